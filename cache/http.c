/* http: one call is one exchange, with its retries, on a connection of a pool.
 *
 * Not for knowing what an answer means (hub.c) and not for redirects: the caller goes there by hand, because
 * each hop has its own rules about the token. Any thread; each call blocks its thread.
 *
 * A call goes through tries. Before each it waits while the gate of its lane and origin is closed (a 429
 * closes it). A try takes a slot (a multi and an easy handle with their connections) from the pool; after a
 * failed try the slot is thrown away and the next try opens a new connection. Three clocks end a try: the
 * call's deadline, which stands still while body bytes move; the answer limit, no byte in either direction
 * for so long; and the low-speed limit while a body is under way. A waiting thread looks at the cancel flag
 * and at http_stop every TICK_MS. */
#define LOG_MODULE "http"

#include "http.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <string.h>
#include <strings.h>

#include <curl/curl.h>

#include "http_head.h"
#include "http_pool.h"
#include "lock.h"
#include "log.h"

#ifndef HUGFS_VERSION
#define HUGFS_VERSION "0"
#endif

#define TICK_MS 100
#define DEADLINE_S 60
#define CONNECT_S 10
#define ANSWER_MIN_MS 5000        /* a try may be without a byte for this long at least; of data: the first try */
#define SMALL_BODY 65536
#define UNSENT_MAX (256 * 1024)   /* of a request's body in the kernel: what it holds counts as sent here */
#define LOW_SPEED_MS 15000
#define LOW_SPEED_BYTES (15 * 1024)
#define BACKOFF_MS 200
#define BACKOFF_MAX_MS 8000
#define UNREACHABLE_TRIES 5       /* without a connection, some 2 s of trying say enough */
#define SKIP_MAX ((uint64_t)16 << 20) /* of a 200 to a range: bytes read for nothing */
#define ERROR_BODY_MAX 65536
#define REDIRECT_BODY_MAX 4096
#define REDIRECT_WAIT_MS 500
#define HEADERS_MAX (256 * 1024)
#define URL_TEXT_MAX 16384
#define GATES 16
#define REFUSAL_MAX 400
#define VERIFY_ISSUER_MIN 18 /* X509_V_ERR_*: nobody whom we trust has signed it */
#define VERIFY_ISSUER_MAX 21

struct gate {
	enum http_lane lane;
	uint64_t origin; /* hash of its text */
	int64_t until_ms;
};

struct http {
	struct auth *auth;
	struct http_opts opts;
	char *ca_file;
	bool plain_allowed; /* the endpoint itself is http */
	struct http_pool *pool;
	CURLSH *share;      /* names and TLS sessions of all slots */
	pthread_mutex_t share_locks[CURL_LOCK_DATA_LAST];
	atomic_bool stopping;
	atomic_uint in_flight;
	struct lock lock;
	struct cond wake; /* http_stop: waits end */
	/* -- guarded by lock -- */
	struct gate gates[GATES];
	char refusal[REFUSAL_MAX];
};

struct call {
	struct http *h;
	const struct http_req *req;
	struct http_resp resp;
	char *origin;
	int64_t deadline_ms;
	int64_t slept_ms;   /* util_slept_ms when it was looked at last */
	int64_t quota_left_ms;
	unsigned tries;
	uint64_t delivered; /* body bytes given to the sink, over all tries */
	bool fresh;         /* the last try failed: no old connection for the next */
	/* -- of the try under way -- */
	int error;          /* why we ended it, 0: we did not */
	bool enough;        /* ended by us as a success: the rest of the body is not wanted */
	bool headers_done;
	bool fatal;         /* no other try will do better */
	size_t header_bytes;
	uint64_t skip;      /* body bytes before the range, in a 200 */
	uint64_t sent;
	uint64_t moved;     /* body bytes in both directions */
	char curl_error[CURL_ERROR_SIZE];
};

/* -- URLs -- */

/* "scheme://host:port" of a URL. Caller frees. */
static char *url_origin(const char *url)
{
	const char *host = strstr(url, "://");
	size_t n = host ? (size_t)(host + 3 - url) : 0;

	return strndup(url, n + strcspn(url + n, "/?#"));
}

bool http_url_allowed(struct http *h, const char *url)
{
	const char *host = strstr(url, "://");
	size_t n;

	for (const char *c = url; *c; c++) {
		if ((unsigned char)*c <= 0x20 || *c == 0x7f)
			return false;
	}
	if (!host || strlen(url) > URL_TEXT_MAX)
		return false;
	/* Two parsers must not read two hosts out of it. */
	host += 3;
	n = strcspn(host, "/?#");
	if (n == 0 || memchr(host, '@', n) || memchr(host, '\\', n))
		return false;
	if (strncasecmp(url, "https://", 8) == 0)
		return true;
	return h->plain_allowed && strncasecmp(url, "http://", 7) == 0;
}

/* -- answers -- */

/* All headers are there: may the body come? */
static int check_answer(struct call *c)
{
	const struct http_req *req = c->req;
	struct http_resp *r = &c->resp;
	uint64_t first = req->range_off + c->delivered, end = req->range_off + req->range_len;
	int64_t total = (int64_t)req->range_total;

	if (r->status >= 300 && r->status < 400 && r->location && r->content_length > REDIRECT_BODY_MAX) {
		c->enough = true; /* its length may be a lie */
		return 0;
	}
	if (r->status < 200 || r->status > 299 || strcmp(req->method, "HEAD") == 0)
		return 0;
	if (req->range_len == 0 && r->status != 206)
		return 0;
	if (req->range_len > 0 && r->status == 200) {
		c->skip = first;
		if (total && r->content_length >= 0 && r->content_length != total)
			goto wrong;
		if (c->skip > SKIP_MAX)
			goto wrong;
		return 0;
	}
	if (req->range_len == 0 || r->status != 206 || r->range_first != (int64_t)first)
		goto wrong;
	if (r->range_last < r->range_first || r->range_last >= (int64_t)end)
		goto wrong;
	if (r->range_total >= 0 && r->range_total <= r->range_last)
		goto wrong;
	if (total && r->range_total != total)
		goto wrong;
	return 0;
wrong:
	log_warn("%s: asked for bytes %" PRIu64 "-%" PRIu64 " of %" PRId64 ", answered %d with %" PRId64
	         "-%" PRId64 " of %" PRId64 ", length %" PRId64, c->origin, first, end - 1, total, r->status,
	         r->range_first, r->range_last, r->range_total, r->content_length);
	c->fatal = true;
	return -EIO;
}

/* One header line: whole, its line end included. */
static int take_line(struct call *c, char *line, size_t len)
{
	char *value;

	while (len > 0 && strchr("\r\n \t", line[len - 1]))
		len--;
	line[len] = '\0';
	if (c->headers_done)
		return 0; /* a trailer */
	if (strncmp(line, "HTTP/", 5) == 0) {
		value = strchr(line, ' ');
		http_head_reset(&c->resp);
		c->resp.body.max = c->req->max_body;
		c->resp.status = value ? (int)strtol(value, NULL, 10) : 0;
		return c->resp.status >= 100 && c->resp.status <= 999 ? 0 : -EIO;
	}
	if (len == 0) {
		if (c->resp.status < 200)
			return 0; /* the real answer follows */
		c->headers_done = true;
		return check_answer(c);
	}
	value = strchr(line, ':');
	if (!value)
		return 0;
	*value++ = '\0';
	return http_head_field(&c->resp, c->req->url, line, value + strspn(value, " \t"));
}

static size_t on_header(char *data, size_t size, size_t n, void *arg)
{
	struct call *c = arg;
	AUTO_FREE char *line = strndup(data, size * n);

	c->header_bytes += size * n;
	if (!line)
		c->error = -ENOMEM;
	else if (c->header_bytes > HEADERS_MAX || strlen(line) != size * n)
		c->error = -EIO;
	else
		c->error = take_line(c, line, size * n);
	return c->error < 0 || c->enough ? 0 : n * size;
}

/* -- bodies -- */

static size_t on_body(char *data, size_t size, size_t n, void *arg)
{
	struct call *c = arg;
	const struct http_req *req = c->req;
	size_t len = size * n, drop;

	if (c->resp.status < 200 || c->resp.status > 299) {
		size_t room = ERROR_BODY_MAX - MIN(c->resp.body.len, (size_t)ERROR_BODY_MAX);

		/* One that cannot be kept is only a poorer message. */
		if (buf_add(&c->resp.body, data, MIN(len, room)) < 0)
			log_debug("%s: body of %d dropped", c->origin, c->resp.status);
		return size * n;
	}
	c->moved += len;
	drop = MIN(c->skip, len);
	c->skip -= drop;
	data += drop;
	len -= drop;
	if (req->range_len > 0 && len > req->range_len - c->delivered) {
		len = (size_t)(req->range_len - c->delivered);
		c->enough = true;
	}
	if (len > 0)
		c->error = req->sink ? req->sink(req->sink_arg, data, len)
		                     : buf_add(&c->resp.body, data, len);
	if (c->error < 0) {
		c->fatal = true;
		if (!req->sink && c->error == -EFBIG) {
			log_warn("%s: answer is longer than %zu bytes", c->origin, c->resp.body.max);
			c->error = -EIO;
		}
		return 0;
	}
	c->delivered += len;
	return c->enough ? 0 : size * n;
}

static size_t on_read(char *data, size_t size, size_t n, void *arg)
{
	struct call *c = arg;
	const struct http_req *req = c->req;
	size_t want = (size_t)MIN((uint64_t)(size * n), req->body_len - c->sent);
	ssize_t got = (ssize_t)want;

	if (want == 0)
		return 0;
	if (req->body)
		memcpy(data, (const char *)req->body + c->sent, want);
	else
		got = req->body_source(req->body_arg, data, want, c->sent);
	if (got <= 0 || (size_t)got > want) {
		c->error = got < 0 ? (int)got : -EIO;
		c->fatal = true;
		return CURL_READFUNC_ABORT;
	}
	c->sent += (size_t)got;
	c->moved += (size_t)got;
	return (size_t)got;
}

static int on_seek(void *arg, curl_off_t offset, int origin)
{
	struct call *c = arg;

	if (origin != SEEK_SET || offset < 0 || (uint64_t)offset > c->req->body_len)
		return CURL_SEEKFUNC_FAIL;
	c->sent = (uint64_t)offset;
	return CURL_SEEKFUNC_OK;
}

/* -- waiting -- */

static bool stopped(const struct call *c)
{
	return atomic_load(&c->h->stopping) || (c->req->cancel && atomic_load(c->req->cancel));
}

/* 0, or -ECANCELED. */
static int pause_until(struct call *c, int64_t until_ms)
{
	struct http *h = c->h;
	LOCKED(&h->lock);

	while (!stopped(c)) {
		int64_t left = until_ms - util_now_ms();

		if (left <= 0)
			return 0;
		cond_wait_ms(&h->wake, &h->lock, MIN(left, TICK_MS));
	}
	return -ECANCELED;
}

/* Waits for a time that a server announced. 0, 1: it lies behind the deadline, or -ECANCELED. */
static int quota_pause(struct call *c, int64_t until_ms)
{
	int64_t wait = until_ms - util_now_ms();

	if (wait <= 0)
		return 0;
	if (wait <= c->quota_left_ms) {
		c->quota_left_ms -= wait;
		c->deadline_ms += wait;
	} else if (until_ms > c->deadline_ms) {
		return 1;
	}
	return pause_until(c, until_ms);
}

/* The gate of the call's lane and origin; NULL: none. */
static struct gate *gate_find_locked(struct call *c, uint64_t *ret_origin)
{
	uint64_t origin = 0;

	for (const char *t = c->origin; *t; t++)
		origin = origin * 31 + (unsigned char)*t;
	*ret_origin = origin;
	for (unsigned i = 0; i < GATES; i++) {
		struct gate *g = &c->h->gates[i];

		if (g->lane == c->req->lane && g->origin == origin)
			return g;
	}
	return NULL;
}

static int64_t gate_until(struct call *c)
{
	LOCKED(&c->h->lock);
	uint64_t origin;
	struct gate *g = gate_find_locked(c, &origin);

	return g ? g->until_ms : 0;
}

static void gate_close(struct call *c, int64_t until_ms)
{
	LOCKED(&c->h->lock);
	uint64_t origin;
	struct gate *g = gate_find_locked(c, &origin);

	if (g) {
		g->until_ms = MAX(g->until_ms, until_ms);
		return;
	}
	g = &c->h->gates[0];
	for (unsigned i = 1; i < GATES; i++) {
		if (c->h->gates[i].until_ms < g->until_ms)
			g = &c->h->gates[i];
	}
	*g = (struct gate){c->req->lane, origin, until_ms};
}

/* 0 when a try may start; 1: not before the deadline; or -ECANCELED. */
static int gate_wait(struct call *c)
{
	for (;;) {
		int64_t until = gate_until(c);
		int r;

		if (until <= util_now_ms())
			return stopped(c) ? -ECANCELED : 0;
		r = quota_pause(c, until);
		if (r != 0)
			return r;
	}
}

/* -- one try -- */

static int add_line(struct curl_slist **list, const char *line)
{
	struct curl_slist *grown = curl_slist_append(*list, line);

	if (!grown)
		return -ENOMEM;
	*list = grown;
	return 0;
}

static void lines_free(struct curl_slist **list)
{
	for (struct curl_slist *l = *list; l; l = l->next)
		explicit_bzero(l->data, strlen(l->data)); /* the token was in one */
	curl_slist_free_all(*list);
}

static int make_lines(struct call *c, struct curl_slist **ret)
{
	CLEANUP(lines_free) struct curl_slist *list = NULL;
	CLEANUP(auth_token_freep) char *token = NULL;
	const struct http_req *req = c->req;
	bool has_type = false;
	char range[80];
	int r = add_line(&list, "Accept-Encoding: identity");

	for (const char *const *line = req->headers; r == 0 && line && *line; line++) {
		if (strncasecmp(*line, "content-type:", 13) == 0)
			has_type = true;
		r = add_line(&list, *line);
	}
	if (r == 0 && !has_type)
		r = add_line(&list, "Content-Type:");
	if (r == 0)
		r = add_line(&list, "Expect:");
	if (r == 0 && req->range_len > 0) {
		snprintf(range, sizeof(range), "Range: bytes=%" PRIu64 "-%" PRIu64,
		         req->range_off + c->delivered, req->range_off + req->range_len - 1);
		r = add_line(&list, range);
	}
	if (r == 0 && !req->no_token && auth_same_origin(c->h->auth, req->url))
		token = auth_token(c->h->auth);
	if (token) {
		CLEANUP(auth_token_freep) char *line = util_printf("Authorization: Bearer %s", token);

		r = line ? add_line(&list, line) : -ENOMEM;
	}
	if (r == 0)
		*ret = STEAL(list);
	return r;
}

static int on_socket(void *arg, curl_socket_t fd, curlsocktype purpose)
{
	int most = UNSENT_MAX;

	/* Without it a slow line drains megabytes after our last byte, and we would take that for silence. */
	setsockopt(fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, &most, sizeof(most));
	return CURL_SOCKOPT_OK;
}

static void set_method(CURL *e, struct call *c)
{
	const struct http_req *req = c->req;
	bool has_body = req->body || req->body_source;

	if (strcmp(req->method, "GET") == 0 && !has_body) {
		curl_easy_setopt(e, CURLOPT_HTTPGET, 1L);
		return;
	}
	if (strcmp(req->method, "HEAD") == 0) {
		curl_easy_setopt(e, CURLOPT_NOBODY, 1L);
		return;
	}
	if (strcmp(req->method, "POST") == 0) {
		curl_easy_setopt(e, CURLOPT_POST, 1L);
		curl_easy_setopt(e, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)req->body_len);
		if (!has_body)
			curl_easy_setopt(e, CURLOPT_POSTFIELDS, "");
	} else if (has_body || strcmp(req->method, "PUT") == 0) {
		curl_easy_setopt(e, CURLOPT_UPLOAD, 1L);
		curl_easy_setopt(e, CURLOPT_INFILESIZE_LARGE, (curl_off_t)req->body_len);
		curl_easy_setopt(e, CURLOPT_CUSTOMREQUEST, req->method);
	} else {
		curl_easy_setopt(e, CURLOPT_CUSTOMREQUEST, req->method);
	}
	curl_easy_setopt(e, CURLOPT_READFUNCTION, on_read);
	curl_easy_setopt(e, CURLOPT_READDATA, c);
	curl_easy_setopt(e, CURLOPT_SEEKFUNCTION, on_seek);
	curl_easy_setopt(e, CURLOPT_SEEKDATA, c);
}

static void set_options(CURL *e, struct call *c, struct curl_slist *lines)
{
	struct http *h = c->h;
	int connect_s = h->opts.connect_timeout_s ? h->opts.connect_timeout_s : CONNECT_S;
	int64_t connect_ms;
	bool data = c->req->lane == HTTP_DATA;

	connect_ms = MAX(MIN((int64_t)connect_s * 1000, c->deadline_ms - util_now_ms()), 1);
	curl_easy_setopt(e, CURLOPT_URL, c->req->url);
	curl_easy_setopt(e, CURLOPT_PROTOCOLS_STR, h->plain_allowed ? "http,https" : "https");
	curl_easy_setopt(e, CURLOPT_FOLLOWLOCATION, 0L);
	curl_easy_setopt(e, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
	curl_easy_setopt(e, CURLOPT_PATH_AS_IS, 1L);
	curl_easy_setopt(e, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(e, CURLOPT_SUPPRESS_CONNECT_HEADERS, 1L);
	curl_easy_setopt(e, CURLOPT_CONNECTTIMEOUT_MS, (long)connect_ms);
	curl_easy_setopt(e, CURLOPT_SOCKOPTFUNCTION, on_socket);
	curl_easy_setopt(e, CURLOPT_TCP_KEEPALIVE, 1L);
	curl_easy_setopt(e, CURLOPT_TCP_KEEPIDLE, 30L);
	curl_easy_setopt(e, CURLOPT_TCP_KEEPINTVL, 10L);
	curl_easy_setopt(e, CURLOPT_MAXAGE_CONN, 60L);
	curl_easy_setopt(e, CURLOPT_MAXLIFETIME_CONN, 600L);
	/* libcurl sends a request again by itself when a kept connection turns out to be dead: never a POST
	 * that may have been done. */
	curl_easy_setopt(e, CURLOPT_FRESH_CONNECT, c->fresh || !c->req->idempotent ? 1L : 0L);
	curl_easy_setopt(e, CURLOPT_BUFFERSIZE, data ? 512L * 1024 : 64L * 1024);
	curl_easy_setopt(e, CURLOPT_UPLOAD_BUFFERSIZE, data ? 512L * 1024 : 64L * 1024);
	curl_easy_setopt(e, CURLOPT_SHARE, h->share);
	curl_easy_setopt(e, CURLOPT_USERAGENT, "hugfs/" HUGFS_VERSION);
	if (h->ca_file)
		curl_easy_setopt(e, CURLOPT_CAINFO, h->ca_file);
	curl_easy_setopt(e, CURLOPT_HTTPHEADER, lines);
	curl_easy_setopt(e, CURLOPT_ERRORBUFFER, c->curl_error);
	curl_easy_setopt(e, CURLOPT_HEADERFUNCTION, on_header);
	curl_easy_setopt(e, CURLOPT_HEADERDATA, c);
	curl_easy_setopt(e, CURLOPT_WRITEFUNCTION, on_body);
	curl_easy_setopt(e, CURLOPT_WRITEDATA, c);
	set_method(e, c);
}

/* The clocks of one try. */
struct watch {
	uint64_t moved;
	int64_t last_move_ms, answer_limit_ms;
	uint64_t window_moved;
	int64_t window_ms;
};

/* Did the machine sleep? Then the deadline did not come nearer, and the connection is not to be trusted. */
static bool has_slept(struct call *c)
{
	int64_t slept = util_slept_ms() - c->slept_ms;

	if (slept < UTIL_SLEEP_MS)
		return false;
	c->slept_ms += slept;
	c->deadline_ms += slept;
	return true;
}

/* 0 while the try may go on; -ETIMEDOUT, -ECANCELED; 1: what is there is enough. */
static int watch_tick(struct watch *w, struct call *c)
{
	int64_t now = util_now_ms();
	bool body_moves = c->sent < c->req->body_len || c->headers_done;

	if (stopped(c))
		return -ECANCELED;
	if (has_slept(c) && c->req->idempotent)
		return -ETIMEDOUT;
	if (c->moved != w->moved) {
		if (w->moved > 0)
			c->deadline_ms += now - w->last_move_ms;
		w->moved = c->moved;
		w->last_move_ms = now;
	}
	if (c->headers_done && c->resp.status >= 300 && c->resp.status < 400 && c->resp.location &&
	    now - w->last_move_ms > REDIRECT_WAIT_MS)
		return 1;
	if (now >= c->deadline_ms || now - w->last_move_ms >= w->answer_limit_ms)
		return -ETIMEDOUT;
	if (!body_moves || c->moved - w->window_moved >= LOW_SPEED_BYTES) {
		w->window_moved = c->moved;
		w->window_ms = now;
	}
	return now - w->window_ms >= LOW_SPEED_MS ? -ETIMEDOUT : 0;
}

/* Drives the transfer to its end or to ours. */
static CURLcode drive(struct http_slot *s, struct call *c)
{
	int64_t now = util_now_ms();
	struct watch w = {.last_move_ms = now, .window_ms = now, .answer_limit_ms = INT64_MAX};
	CURLcode code = CURLE_FAILED_INIT;
	int running = 1, queued, r;

	(void)has_slept(c); /* before it began */
	/* A connection that died in silence is found out early; later if much would have to be sent again (while
	 * it is being sent, the low-speed limit rules). */
	if (c->req->idempotent)
		w.answer_limit_ms = MAX((c->deadline_ms - now) / (c->req->body_len <= SMALL_BODY ? 3 : 2),
		                        ANSWER_MIN_MS);
	/* Readers wait for data: another connection is tried soon, and with more patience each time. */
	if (c->req->lane == HTTP_DATA && !c->req->body_len)
		w.answer_limit_ms = MIN(w.answer_limit_ms, (int64_t)ANSWER_MIN_MS << MIN(c->tries - 1, 10u));
	if (curl_multi_add_handle(s->multi, s->easy) != CURLM_OK)
		return CURLE_OUT_OF_MEMORY;
	while (running) {
		CURLMsg *msg;

		if (curl_multi_perform(s->multi, &running) != CURLM_OK)
			break;
		msg = curl_multi_info_read(s->multi, &queued);
		if (msg && msg->msg == CURLMSG_DONE) {
			code = msg->data.result;
			break;
		}
		r = watch_tick(&w, c);
		if (r > 0)
			c->enough = true;
		else
			c->error = r;
		if (r != 0) {
			code = CURLE_ABORTED_BY_CALLBACK;
			break;
		}
		if (curl_multi_poll(s->multi, NULL, 0, TICK_MS, NULL) != CURLM_OK)
			break;
	}
	return code;
}

static bool is_unreachable(CURLcode code)
{
	return code == CURLE_COULDNT_RESOLVE_HOST || code == CURLE_COULDNT_RESOLVE_PROXY ||
	       code == CURLE_COULDNT_CONNECT || code == CURLE_OPERATION_TIMEDOUT;
}

/* TLS failures that another try will not mend. */
static bool is_tls_refusal(CURLcode code)
{
	return code == CURLE_PEER_FAILED_VERIFICATION || code == CURLE_SSL_CACERT_BADFILE ||
	       code == CURLE_SSL_CERTPROBLEM || code == CURLE_SSL_CIPHER || code == CURLE_SSL_ISSUER_ERROR ||
	       code == CURLE_SSL_ENGINE_NOTFOUND || code == CURLE_SSL_PINNEDPUBKEYNOTMATCH;
}

/* Whether no other try will do better, because of certificates or of the proxy. Keeps and logs the reason. */
static bool is_refused(struct call *c, CURLcode code, CURL *e)
{
	struct http *h = c->h;
	long proxy_status = 0, verdict = 0;
	char text[REFUSAL_MAX];

	curl_easy_getinfo(e, CURLINFO_HTTP_CONNECTCODE, &proxy_status);
	curl_easy_getinfo(e, CURLINFO_SSL_VERIFYRESULT, &verdict);
	if (proxy_status == 407)
		snprintf(text, sizeof(text), "the proxy wants a name and password (HTTP 407): they belong into "
		         "https_proxy");
	else if (proxy_status >= 400 && proxy_status <= 499)
		snprintf(text, sizeof(text), "the proxy allows no connection to %s (HTTP %ld)", c->origin,
		         proxy_status);
	else if (is_tls_refusal(code))
		snprintf(text, sizeof(text), "no secure connection to %s: %s%s", c->origin, c->curl_error,
		         verdict >= VERIFY_ISSUER_MIN && verdict <= VERIFY_ISSUER_MAX
		                 ? " (-o ca_file= or SSL_CERT_FILE names an authority to trust)" : "");
	else
		return false;
	log_err("%s", text);
	LOCKED(&h->lock);
	memcpy(h->refusal, text, sizeof(text));
	return true;
}

/* Was the range cut short by a server that said 206 or 200 all the same? */
static bool is_short(const struct call *c)
{
	const struct http_req *req = c->req;
	uint64_t end = req->range_off + c->delivered;

	if (req->range_len == 0 || c->resp.status < 200 || c->resp.status > 299 ||
	    c->delivered == req->range_len)
		return false;
	if (c->resp.status == 206 && c->resp.range_total >= 0)
		return (int64_t)end < c->resp.range_total;
	return req->range_total == 0 || end < req->range_total;
}

/* What a try came to: 0 with an answer, or -errno. */
static int judge_try(struct call *c, CURLcode code, CURL *e)
{
	long request_size = 0;

	if (c->enough)
		return 0;
	curl_easy_getinfo(e, CURLINFO_REQUEST_SIZE, &request_size);
	if (c->error == -ETIMEDOUT && !c->fatal && request_size == 0)
		return -ENETDOWN;
	/* Of a refusal the status is what matters, whatever became of its body or of ours. */
	if (c->headers_done && c->resp.status >= 300 && !c->fatal && c->error != -ECANCELED)
		return 0;
	if (c->error < 0)
		return c->error;
	if (code == CURLE_OUT_OF_MEMORY)
		return -ENOMEM;
	if (is_unreachable(code))
		return -ENETDOWN;
	if (code != CURLE_OK && is_refused(c, code, e)) {
		c->fatal = true;
		return -EKEYREJECTED;
	}
	return code != CURLE_OK || is_short(c) ? -EIO : 0;
}

static int try_once(struct call *c)
{
	CLEANUP(lines_free) struct curl_slist *lines = NULL;
	CLEANUP(http_slot_freep) struct http_slot *s = NULL;
	CURLcode code;
	int r;

	c->error = 0;
	c->enough = c->headers_done = c->fatal = false;
	c->header_bytes = 0;
	c->skip = c->sent = c->moved = 0;
	c->curl_error[0] = '\0';
	http_head_reset(&c->resp);
	if (!c->req->sink)
		c->delivered = 0;
	r = make_lines(c, &lines);
	if (r < 0)
		return r;
	s = http_pool_take(c->h->pool, c->req->lane, c->origin);
	if (!s)
		return -ENOMEM;
	curl_easy_reset(s->easy);
	set_options(s->easy, c, lines);
	code = drive(s, c);
	r = judge_try(c, code, s->easy);
	if (r == -ECANCELED)
		curl_easy_setopt(s->easy, CURLOPT_QUICK_EXIT, 1L); /* do not wait for a name server */
	curl_multi_remove_handle(s->multi, s->easy);
	curl_easy_setopt(s->easy, CURLOPT_ERRORBUFFER, NULL);
	c->fresh = r < 0;
	if (r == 0)
		http_pool_put(c->h->pool, STEAL(s));
	return r;
}

/* -- tries -- */

static bool is_retried_status(int status)
{
	return status == 408 || status == 429 || (status >= 500 && status != 501 && status != 505);
}

static int64_t backoff_ms(unsigned failures)
{
	int64_t most = MIN((int64_t)BACKOFF_MS << MIN(failures, 10u), BACKOFF_MAX_MS);
	uint32_t dice;

	util_random(&dice, sizeof(dice));
	return (int64_t)(dice % (uint64_t)(most + 1));
}

static void log_try(const struct call *c, int r, const char *next)
{
	AUTO_FREE char *url = http_url_for_log(c->req->url);

	if (r < 0)
		log_info("%s %s: try %u: %s%s%s; %s", c->req->method, url ? url : "?", c->tries, strerror(-r),
		         c->curl_error[0] ? ": " : "", c->curl_error, next);
	else
		log_info("%s %s: try %u: HTTP %d (request %s); %s", c->req->method, url ? url : "?", c->tries,
		         c->resp.status, c->resp.request_id ? c->resp.request_id : "-", next);
}

/* Judges the try that just ended with `r`: 0 when there is to be another (the wait is over), 1 when `r`
 * stands, or -ECANCELED. */
static int next_try(struct call *c, int r, unsigned *failures, unsigned *unreachable)
{
	const struct http_req *req = c->req;
	int announced = r == 0 ? c->resp.retry_after_s : -1;
	int64_t now = util_now_ms(), wait;
	int status = r == 0 ? c->resp.status : 0;

	if (r == 0 && !is_retried_status(status))
		return 1;
	/* An action's quota, as that of commits, closes no gate: other requests may go on. */
	if (status == 429 && announced >= 0 && (c->resp.window_used_up || req->idempotent))
		gate_close(c, now + ((int64_t)announced + 1) * 1000);
	if (r < 0 && (c->fatal || r == -ECANCELED || r == -ENOMEM))
		return 1;
	if (r < 0 && c->delivered > 0 && req->sink && req->range_len == 0)
		return 1; /* the sink cannot take it back */
	if (!req->idempotent || (req->max_tries && *failures + 1 >= req->max_tries))
		return 1;
	*unreachable = r == -ENETDOWN ? *unreachable + 1 : 0;
	if (*unreachable >= UNREACHABLE_TRIES)
		return 1;
	wait = backoff_ms((*failures)++);
	if (announced >= 0 && status == 429)
		wait = MAX(wait, ((int64_t)announced + 1) * 1000);
	else if (announced >= 0)
		wait = MAX(wait, MIN((int64_t)announced * 1000, BACKOFF_MAX_MS));
	if (status == 429) {
		log_try(c, r, "waiting for the quota");
		return quota_pause(c, now + wait);
	}
	if (now + wait >= c->deadline_ms)
		return 1;
	log_try(c, r, "trying again");
	return pause_until(c, now + wait);
}

static int perform(struct call *c)
{
	unsigned failures = 0, unreachable = 0;
	int r, next;

	for (;;) {
		uint64_t before = c->delivered;

		r = gate_wait(c);
		if (r > 0 && c->resp.status != 429) {
			http_head_reset(&c->resp);
			c->resp.status = 429;
			c->resp.window_used_up = true;
			c->resp.retry_after_s = (int)MIN((gate_until(c) - util_now_ms()) / 1000 + 1, INT_MAX);
		}
		if (r != 0)
			return r < 0 ? r : 0;
		c->tries++;
		r = try_once(c);
		if (c->req->sink && c->delivered > before)
			failures = 0;
		next = next_try(c, r, &failures, &unreachable);
		if (next != 0)
			return next < 0 ? next : r;
	}
}

static void in_flight_end(struct http **h)
{
	atomic_fetch_sub(&(*h)->in_flight, 1);
}

int http_perform(struct http *h, const struct http_req *req, struct http_resp *ret)
{
	CLEANUP(in_flight_end) struct http *counted = h;
	int usual_s = h->opts.deadline_s ? h->opts.deadline_s : DEADLINE_S;
	int deadline_s = req->deadline_s ? req->deadline_s : usual_s;
	struct call c = {.h = h, .req = req};
	int r;

	atomic_fetch_add(&counted->in_flight, 1);
	assert(!req->body || !req->body_source);
	if (h->opts.offline)
		return -ENETDOWN;
	if (!http_url_allowed(h, req->url)) {
		AUTO_FREE char *url = http_url_for_log(req->url);

		log_err("%s %s: refused: not https, or not a plain URL", req->method, url ? url : "?");
		return -EIO;
	}
	c.origin = url_origin(req->url);
	if (!c.origin)
		return -ENOMEM;
	c.deadline_ms = util_now_ms() + (int64_t)deadline_s * 1000;
	c.slept_ms = util_slept_ms();
	c.quota_left_ms = (int64_t)h->opts.quota_wait_s * 1000;
	http_head_reset(&c.resp);
	r = perform(&c);
	if (r < 0 && r != -ECANCELED)
		log_try(&c, r, "given up");
	if (r == 0)
		*ret = STEAL(c.resp);
	http_resp_fini(&c.resp);
	free(c.origin);
	return r;
}

/* -- life -- */

static void share_take(CURL *e, curl_lock_data data, curl_lock_access access, void *arg)
{
	struct http *h = arg;

	must(pthread_mutex_lock(&h->share_locks[data]) == 0);
}

static void share_drop(CURL *e, curl_lock_data data, void *arg)
{
	struct http *h = arg;

	must(pthread_mutex_unlock(&h->share_locks[data]) == 0);
}

int http_new(struct auth *auth, const struct http_opts *opts, struct http **ret)
{
	struct sigaction old;
	struct http *h;

	if (curl_global_init(CURL_GLOBAL_DEFAULT) != 0)
		return -ENOMEM;
	/* OpenSSL writes to closed sockets. */
	if (sigaction(SIGPIPE, NULL, &old) == 0 && !(old.sa_flags & SA_SIGINFO) && old.sa_handler == SIG_DFL)
		signal(SIGPIPE, SIG_IGN);
	h = calloc(1, sizeof(*h));
	if (!h) {
		curl_global_cleanup();
		return -ENOMEM;
	}
	h->auth = auth;
	h->opts = *opts;
	h->opts.ca_file = NULL;
	h->plain_allowed = strncasecmp(auth_endpoint(auth), "http://", 7) == 0;
	for (unsigned i = 0; i < ARRAY_LEN(h->share_locks); i++)
		must(pthread_mutex_init(&h->share_locks[i], NULL) == 0);
	lock_init(&h->lock, LOCK_HTTP);
	cond_init(&h->wake);
	h->pool = http_pool_new();
	h->share = curl_share_init();
	h->ca_file = opts->ca_file ? strdup(opts->ca_file) : NULL;
	if (!h->pool || !h->share || (opts->ca_file && !h->ca_file)) {
		http_free(h);
		return -ENOMEM;
	}
	curl_share_setopt(h->share, CURLSHOPT_LOCKFUNC, share_take);
	curl_share_setopt(h->share, CURLSHOPT_UNLOCKFUNC, share_drop);
	curl_share_setopt(h->share, CURLSHOPT_USERDATA, h);
	curl_share_setopt(h->share, CURLSHOPT_SHARE, CURL_LOCK_DATA_DNS);
	curl_share_setopt(h->share, CURLSHOPT_SHARE, CURL_LOCK_DATA_SSL_SESSION);
	*ret = h;
	return 0;
}

void http_free(struct http *h)
{
	if (!h)
		return;
	assert(atomic_load(&h->in_flight) == 0);
	http_pool_free(h->pool);
	curl_share_cleanup(h->share);
	for (unsigned i = 0; i < ARRAY_LEN(h->share_locks); i++)
		pthread_mutex_destroy(&h->share_locks[i]);
	cond_fini(&h->wake);
	lock_fini(&h->lock);
	free(h->ca_file);
	free(h);
	curl_global_cleanup();
}

void http_refusal(struct http *h, char *ret, size_t size)
{
	LOCKED(&h->lock);

	snprintf(ret, size, "%s", h->refusal);
}

void http_stop(struct http *h)
{
	LOCKED(&h->lock);

	atomic_store(&h->stopping, true);
	cond_broadcast(&h->wake);
}

unsigned http_in_flight(struct http *h)
{
	return atomic_load(&h->in_flight);
}
