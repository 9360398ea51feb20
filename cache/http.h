/* http: transfers. The only user of libcurl.
 *
 * One call is one exchange on one connection, made by the calling thread, which blocks: callers are worker
 * threads, never a FUSE thread. Easy handles are pooled, so connections are kept alive and reused. Redirects
 * are never followed here. The token goes along only to the endpoint's own origin (auth_same_origin). No
 * cookies. TCP and TLS options, low-speed limit and deadlines: hub-api.md 0.3, fuse-notes.md 6. */
#ifndef HUGFS_HTTP_H
#define HUGFS_HTTP_H

#include <stdatomic.h>

#include "auth.h"
#include "util.h"

struct http;

struct http_opts {
	bool offline;         /* every call answers -ENETDOWN at once */
	int connect_timeout_s; /* 0: 10 */
	int deadline_s;        /* for one call with its retries when the request names none; 0: 60 */
	const char *ca_file;   /* NULL: the system's */
	int quota_wait_s;      /* a 429 may announce a wait this long whatever the deadline; 0: it counts */
};
/* After the fork that makes a daemon: libcurl's state does not cross one. Keeps `auth`. Ignores SIGPIPE. */
int http_new(struct auth *auth, const struct http_opts *opts, struct http **ret) MUST_USE;
/* Every transfer must have ended: see http_stop. */
void http_free(struct http *h);
/* All transfers under way and all later ones end with -ECANCELED soon (within 1 s). */
void http_stop(struct http *h);

/* Which connections a request uses, so that bulk data never stands in the way of metadata. */
enum http_lane { HTTP_API, HTTP_DATA };

/* Takes body bytes as they come. Returns 0, or -errno, which ends the transfer and is what http_perform
 * returns. Not called for statuses other than 2xx (their body is kept in http_resp.body). */
typedef int (*http_sink)(void *arg, const void *data, size_t len);
/* Gives `len` bytes of the request's body from `off`; called again from 0 on a retry. Bytes, or -errno. */
typedef ssize_t (*http_source)(void *arg, void *data, size_t len, uint64_t off);

struct http_req {
	const char *method; /* "GET" "HEAD" "POST" "PUT" "DELETE" */
	const char *url;    /* absolute, used byte for byte */
	enum http_lane lane;
	const char *const *headers; /* NULL-terminated "Name: value" list, or NULL */
	const void *body;           /* or body_source with body_len */
	uint64_t body_len;
	http_source body_source;
	void *body_arg;
	uint64_t range_off, range_len; /* range_len 0: no Range header */
	uint64_t range_total;          /* with a range: of a file of this size, else -EIO; 0: unknown */
	http_sink sink;                /* NULL: body is kept in resp->body up to max_body */
	void *sink_arg;
	size_t max_body;      /* 0: 64 MiB */
	bool idempotent;      /* may be sent again after 408, 429, 5xx, reset, time-out */
	bool no_token;        /* never with the token, not even to the endpoint: signed URLs */
	unsigned max_tries;   /* gives up after so many without a new byte for the sink; 0: at the deadline */
	int deadline_s;       /* 0: http_opts.deadline_s; covers all tries, waiting for a quota included. Time
	                       * in which body bytes move does not count: there the low-speed limit rules */
	atomic_bool *cancel;  /* set by anybody: the call ends with -ECANCELED; NULL: none */
};

struct http_resp {
	int status;          /* last status, 0 if there was no answer */
	struct buf body;     /* see http_req.sink; NUL-terminated */
	char *location;      /* absolute, resolved against the request's URL; NULL without one */
	char *etag;          /* without W/ and quotes */
	char *linked_etag;   /* X-Linked-Etag, the same */
	char *link_next;     /* URL of Link rel="next" */
	char *repo_commit;   /* X-Repo-Commit */
	char *error_code;    /* X-Error-Code */
	char *error_message; /* X-Error-Message */
	char *request_id;    /* X-Request-Id */
	char *raw_etag;      /* ETag verbatim, quotes included: multipart completion wants it so */
	int64_t content_length, linked_size;            /* -1: not given */
	int64_t range_first, range_last, range_total;   /* of Content-Range; -1: not given */
	int64_t date_s;                                 /* Date, unix seconds; 0: none */
	int retry_after_s;   /* -1: none. From RateLimit t when r=0, else Retry-After */
	bool window_used_up; /* RateLimit says r=0: the quota is one of requests, not of an action */
	bool is_json;                                   /* Content-Type says JSON */
};
void http_resp_fini(struct http_resp *r);
#define AUTO_HTTP_RESP CLEANUP(http_resp_fini) struct http_resp

/* Performs `req`. 0 when an answer came, whatever its status: the caller judges it. Otherwise -ETIMEDOUT (no
 * answer until the deadline), -ENETDOWN (offline, or no route, name or connection: nothing was sent), -EIO
 * (short body, broken protocol, a URL that is not allowed), -EKEYREJECTED (no secure connection, or the proxy
 * allows none: http_refusal says why, and another try will not help), -ECANCELED, -ENOMEM, or the sink's or source's error. *ret is set only with 0. Idempotent requests are retried inside with
 * exponential backoff and full jitter until the deadline; a 429 waits as the server says, and all requests of
 * that lane's origin wait with it; where that would pass the deadline the answer is the 429 at once (for the
 * others: one without a body). A request that is not idempotent goes out once, on a connection of its own. A
 * retried GET with a sink and a range goes on where the last try stopped. With a range the sink gets exactly
 * [range_off, range_off + range_len) or less at the end of the file: Content-Range is checked before its
 * first byte, a 200 is cut to the range. Logs each failed try once (URL without query). */
int http_perform(struct http *h, const struct http_req *req, struct http_resp *ret) MUST_USE;

/* In words, why the newest -EKEYREJECTED was: the certificate that is not to be trusted, or what the proxy said. */
void http_refusal(struct http *h, char *ret, size_t size);

/* Transfers under way now, for status. */
unsigned http_in_flight(struct http *h);
/* "http" is good enough for the endpoint only if the endpoint itself is http; every other origin must be
 * https then, else http too (a test Hub). */
bool http_url_allowed(struct http *h, const char *url);

/* URL without its query, for log lines. Caller frees. */
char *http_url_for_log(const char *url) MUST_USE;

#endif
