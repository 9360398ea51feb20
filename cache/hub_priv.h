/* hub_priv: what hub.c, hub_read.c, hub_lfs.c and hub_commit.c share. Nobody else includes it. */
#ifndef HUGFS_HUB_PRIV_H
#define HUGFS_HUB_PRIV_H

#include "hub.h"

struct hub_urls; /* the URLs of blobs: hub_read.c */

struct hub {
	struct http *http;
	struct auth *auth;
	const char *endpoint;
	struct hub_opts opts;
	struct hub_urls *urls;
};

int hub_urls_new(struct hub_urls **ret) MUST_USE;
void hub_urls_free(struct hub_urls *u);

/* What a call is about: for messages, and for what a status means there. */
struct hub_ask {
	const char *what;         /* "listing", "committing to": stands before the repository's name */
	const struct repo_id *id; /* NULL: no repository */
	const char *rev, *path;   /* NULL: none */
	bool writes;              /* a 401 or 403 is about writing */
	bool store;               /* asked the object store, not the Hub */
	int quiet_status;         /* an ordinary answer here: logged as a debug line */
	int deadline_s;           /* of a GET; 0: the usual one */
};

/* Every public call begins with it, so that `err` (may be NULL) says something after each kind of failure. */
static inline void hub_error_clear(struct hub_error *err)
{
	if (err)
		*err = (struct hub_error){.retry_after_s = -1};
}

/* Fills `err` (may be NULL) for an answer that is no success or, with resp NULL, for a transfer that ended
 * with `r`; logs it once; returns the errno. */
int hub_fail(struct hub *h, const struct hub_ask *ask, const char *url, int r, const struct http_resp *resp,
             struct hub_error *err) MUST_USE;
/* The same for an answer that hub_json refused (`r` is what it returned). */
int hub_fail_json(struct hub *h, const struct hub_ask *ask, const char *url, int r,
                  const struct http_resp *resp,
                  struct hub_error *err) MUST_USE;

/* Performs `req`, follows a renamed repository on the endpoint, judges: 0 with a 2xx in *ret, else -errno and
 * `err`. req->url is the first address; *ret is untouched on failure. */
int hub_call(struct hub *h, const struct hub_ask *ask, const struct http_req *req, struct http_resp *ret,
             struct hub_error *err) MUST_USE;
/* GET, and POST of a JSON body (headers NULL: application/json). Both may be sent again. A NULL url is
 * -ENOMEM. */
int hub_get(struct hub *h, const struct hub_ask *ask, const char *url, struct http_resp *ret,
            struct hub_error *err) MUST_USE;
int hub_post(struct hub *h, const struct hub_ask *ask, const char *url, const struct buf *body,
             const char *const *headers, atomic_bool *cancel, struct http_resp *ret,
             struct hub_error *err) MUST_USE;

/* "{E}/api/{T}/{id}" and what follows. Caller frees; NULL: no memory. */
char *hub_api_url(const struct hub *h, const struct repo_id *id, const char *fmt, ...) PRINTF(3, 4) MUST_USE;
/* "ns/name", or the old one-word name, into out. */
void hub_id_path(const struct repo_id *id, char out[REPO_TEXT_MAX]);
/* A URL that the Hub gave (Link, href): one of the official endpoint is turned to ours. Caller frees. */
char *hub_own_url(const struct hub *h, const char *url) MUST_USE;
/* When a signed URL ends, in unix seconds of the signer's clock. false: it does not say. */
bool hub_url_expiry(const char *url, int64_t *ret_s);

#endif
