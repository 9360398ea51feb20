/* hub_read: the bytes of a blob, through `resolve` and the URL that it leads to.
 *
 * Not for caching bytes (fetch.c, blocks.c). Worker threads; any number at once, also for one blob.
 *
 * Each (repository, blob) that was read has an entry that holds the URL to ask for ranges: the signed URL of
 * the object store until shortly before it expires, or an address of the Hub itself (a regular file), which
 * is pinned by the commit and does not expire. An entry is
 *     empty      nobody knows a URL, or it was dropped (generation counts the URLs that there were)
 *     resolving  one thread asks for it; the others that need it wait
 *     ready      url and expires_ms are set
 * The thread that resolves asks with the Range that it wants, so that an answer from the Hub itself already
 * carries the bytes: then the entry becomes ready with the first of them. A URL that fails is dropped, by the
 * generation that failed, and resolved once more per call. */
#define LOG_MODULE "hub"

#include <assert.h>
#include <errno.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#include "hub_json.h"
#include "hub_priv.h"
#include "lock.h"
#include "log.h"

#define BUCKETS 1024
#define ENTRIES_MAX 4096     /* a signed URL has some 1.5 KB: 6 MB */
#define MAX_HOPS 6           /* renamed repositories and resolve-cache */
#define LIFE_MAX_S 3600      /* hub-api.md 0.3 rule 5 */
#define LIFE_UNKNOWN_S 600   /* of a URL that does not say when it ends */
#define WAIT_MS 100          /* how often a waiting reader looks at its cancel flag */
#define FIRST_TRIES 2        /* then the URL itself is doubted (hub-api.md 5.6) */
#define READ_TRIES 2         /* URLs that one call tries */

struct entry {
	struct entry *next;              /* in its bucket */
	struct entry *newer, *older;     /* by last use */
	struct repo_id id;
	struct blob_key key;
	char *url; /* NULL: empty */
	int64_t expires_ms;
	uint64_t generation;
	bool resolving;
	unsigned waiters;
	int failed; /* how the last resolving ended */
	struct hub_error *failure;
};

struct hub_urls {
	struct lock lock;
	struct cond resolved; /* some entry is not resolving any more */
	/* -- guarded by lock -- */
	struct entry *buckets[BUCKETS];
	struct entry *newest, *oldest;
	size_t n;
};

/* One call of hub_read_range. */
struct reading {
	struct hub *h;
	const struct hub_place *place;
	const struct blob_key *key;
	uint64_t off, len;
	uint64_t done; /* bytes that the sink has */
	http_sink sink;
	void *arg;
	int sink_error;
	atomic_bool *cancel;
	struct hub_error *err;
	struct hub_ask ask;
	struct entry *leads;    /* the entry that this call resolves, until it is ready */
	const char *direct_url; /* the Hub's address that is being asked meanwhile */
};

int hub_urls_new(struct hub_urls **ret)
{
	struct hub_urls *u = calloc(1, sizeof(*u));

	if (!u)
		return -ENOMEM;
	lock_init(&u->lock, LOCK_HUB);
	cond_init(&u->resolved);
	*ret = u;
	return 0;
}

static void entry_free(struct entry *e)
{
	free(e->url);
	free(e->failure);
	free(e);
}

void hub_urls_free(struct hub_urls *u)
{
	if (!u)
		return;
	while (u->newest) {
		struct entry *older = u->newest->older;

		entry_free(u->newest);
		u->newest = older;
	}
	cond_fini(&u->resolved);
	lock_fini(&u->lock);
	free(u);
}

/* -- entries; the caller holds the lock -- */

static struct entry **bucket_locked(struct hub_urls *u, const struct blob_key *key)
{
	return &u->buckets[hash_key_u64(key) % BUCKETS];
}

static void unlink_age_locked(struct hub_urls *u, struct entry *e)
{
	*(e->newer ? &e->newer->older : &u->newest) = e->older;
	*(e->older ? &e->older->newer : &u->oldest) = e->newer;
}

static void make_newest_locked(struct hub_urls *u, struct entry *e)
{
	e->newer = NULL;
	e->older = u->newest;
	*(u->newest ? &u->newest->newer : &u->oldest) = e;
	u->newest = e;
}

static void drop_oldest_locked(struct hub_urls *u)
{
	struct entry *e = u->oldest, **at;

	while (e && (e->resolving || e->waiters > 0))
		e = e->newer;
	if (!e)
		return;
	unlink_age_locked(u, e);
	for (at = bucket_locked(u, &e->key); *at != e; at = &(*at)->next)
		;
	*at = e->next;
	u->n--;
	entry_free(e);
}

/* The entry, made if need be; NULL: no memory. */
static struct entry *entry_get_locked(struct hub_urls *u, const struct repo_id *id,
                                      const struct blob_key *key)
{
	struct entry **bucket = bucket_locked(u, key), *e;

	for (e = *bucket; e; e = e->next) {
		if (hash_key_equal(&e->key, key) && repo_equal(&e->id, id)) {
			unlink_age_locked(u, e);
			make_newest_locked(u, e);
			return e;
		}
	}
	if (u->n >= ENTRIES_MAX)
		drop_oldest_locked(u);
	e = calloc(1, sizeof(*e));
	if (!e)
		return NULL;
	e->id = *id;
	e->key = *key;
	e->next = *bucket;
	*bucket = e;
	make_newest_locked(u, e);
	u->n++;
	return e;
}

/* Ends the resolving: with a URL (taken over), or with a failure. */
static void entry_resolved_locked(struct hub_urls *u, struct entry *e, char *url, int64_t expires_ms,
                                  int failed, const struct hub_error *failure)
{
	assert(e->resolving);
	e->resolving = false;
	e->failed = failed;
	if (url) {
		free(e->url);
		e->url = url;
		e->expires_ms = expires_ms;
		e->generation++;
	}
	if (failure && !e->failure)
		e->failure = malloc(sizeof(*e->failure));
	if (failure && e->failure)
		*e->failure = *failure;
	cond_broadcast(&u->resolved);
}

/* -- signed URLs -- */

/* The value of a query parameter, whatever the case of its name; NULL without it. */
static const char *query_param(const char *url, const char *name)
{
	size_t n = strlen(name);

	for (const char *p = strchr(url, '?'); p; p = strchr(p + 1, '&')) {
		if (strncasecmp(p + 1, name, n) == 0 && p[1 + n] == '=')
			return p + 2 + n;
	}
	return NULL;
}

static bool param_number(const char *text, int64_t *ret)
{
	size_t n = text ? strspn(text, "0123456789") : 0;

	if (n == 0 || n > 12 || (text[n] != '\0' && text[n] != '&'))
		return false;
	*ret = strtoll(text, NULL, 10);
	return true;
}

bool hub_url_expiry(const char *url, int64_t *ret_s)
{
	static const char *const styles[][2] = {{"X-Amz-Date", "X-Amz-Expires"},
	                                        {"X-Goog-Date", "X-Goog-Expires"}};

	for (size_t i = 0; i < ARRAY_LEN(styles); i++) {
		const char *date = query_param(url, styles[i][0]);
		struct tm tm = {0};
		int64_t life;

		if (!date || !param_number(query_param(url, styles[i][1]), &life))
			continue;
		if (sscanf(date, "%4d%2d%2dT%2d%2d%2dZ", &tm.tm_year, &tm.tm_mon, &tm.tm_mday, &tm.tm_hour,
		           &tm.tm_min, &tm.tm_sec) != 6)
			continue;
		tm.tm_year -= 1900;
		tm.tm_mon -= 1;
		*ret_s = timegm(&tm) + life;
		return true;
	}
	return param_number(query_param(url, "Expires"), ret_s);
}

/* Until when, on the clock of util_now_ms, the URL is used. The Date of `resp`, which gave it, is the signer's
 * clock. */
static int64_t usable_until_ms(const struct hub *h, const char *url, const struct http_resp *resp)
{
	int64_t signer_now = resp->date_s ? resp->date_s : (int64_t)time(NULL);
	int64_t ends, life = LIFE_UNKNOWN_S;

	if (hub_url_expiry(url, &ends))
		life = MIN(ends - signer_now, (int64_t)LIFE_MAX_S) - (int64_t)h->opts.sig_margin_s;
	return util_now_ms() + life * 1000;
}

/* -- resolving -- */

static int reading_sink(void *arg, const void *data, size_t len)
{
	struct reading *rd = arg;
	struct hub_urls *u = rd->h->urls;
	int r;

	if (rd->leads) {
		char *url = strdup(rd->direct_url);

		if (!url)
			return -ENOMEM;
		LOCKED(&u->lock);
		entry_resolved_locked(u, rd->leads, url, INT64_MAX, 0, NULL);
		rd->leads = NULL;
	}
	r = rd->sink(rd->arg, data, len);
	if (r < 0) {
		rd->sink_error = r;
		return r;
	}
	rd->done += len;
	return 0;
}

static void make_request(struct reading *rd, const char *url, struct http_req *ret)
{
	*ret = (struct http_req){
		.method = "GET",
		.url = url,
		.lane = HTTP_DATA,
		.range_off = rd->off + rd->done,
		.range_len = rd->len - rd->done,
		.range_total = rd->key->size,
		.sink = reading_sink,
		.sink_arg = rd,
		.idempotent = true,
		.cancel = rd->cancel,
	};
}

/* Does the Hub itself say that these are other bytes? */
static bool is_other_blob(const struct reading *rd, const struct http_resp *resp)
{
	char hex[HASH_MAX_HEX];

	if (rd->key->alg != HASH_SHA256 || !resp->linked_etag || strlen(resp->linked_etag) != 64)
		return false;
	hash_key_hex(rd->key, hex);
	return strcasecmp(hex, resp->linked_etag) != 0;
}

/* Asks the Hub: 1 when its answer carried the bytes, 0 with the URL of the object store, or -errno. */
static int resolve(struct reading *rd, char **ret_url, int64_t *ret_expires_ms)
{
	const struct repo_id *id = &rd->place->id;
	struct hub *h = rd->h;
	AUTO_FREE char *path = repo_escape_path(rd->place->path);
	AUTO_FREE char *url = NULL;
	char name[REPO_TEXT_MAX];

	hub_id_path(id, name);
	if (path)
		url = util_printf("%s/%s%s/resolve/%s/%s", h->endpoint, repo_type_prefix(id->type), name,
		                  rd->place->commit, path);
	for (unsigned hops = 0; url; hops++) {
		AUTO_HTTP_RESP resp = {0};
		struct http_req req;
		int r;

		rd->direct_url = url;
		make_request(rd, url, &req);
		r = http_perform(h->http, &req, &resp);
		if (rd->sink_error)
			return rd->sink_error;
		if (r < 0)
			return hub_fail(h, &rd->ask, url, r, NULL, rd->err);
		if (resp.status >= 200 && resp.status <= 299)
			return 1;
		if (resp.status < 300 || resp.status > 399 || !resp.location || hops >= MAX_HOPS ||
		    !http_url_allowed(h->http, resp.location))
			return hub_fail(h, &rd->ask, url, 0, &resp, rd->err);
		if (is_other_blob(rd, &resp))
			return hub_fail_json(h, &rd->ask, url, -EBADMSG, &resp, rd->err);
		if (!auth_same_origin(h->auth, resp.location)) {
			*ret_expires_ms = usable_until_ms(h, resp.location, &resp);
			*ret_url = STEAL(resp.location);
			return 0;
		}
		free(url);
		url = STEAL(resp.location);
	}
	return -ENOMEM;
}

/* Resolves as the one thread that does so. As resolve(). */
static int lead(struct reading *rd, struct entry *e, char **ret_url, uint64_t *ret_generation)
{
	struct hub_urls *u = rd->h->urls;
	struct hub_error none = {.retry_after_s = -1};
	AUTO_FREE char *url = NULL;
	AUTO_FREE char *copy = NULL;
	int64_t expires_ms = 0;
	int r;

	rd->leads = e;
	r = resolve(rd, &url, &expires_ms);
	if (r == 0) {
		copy = strdup(url);
		if (!copy)
			r = -ENOMEM;
	}
	LOCKED(&u->lock);
	if (r == 0) {
		entry_resolved_locked(u, e, STEAL(copy), expires_ms, 0, NULL);
		*ret_generation = e->generation;
		*ret_url = STEAL(url);
	} else if (rd->leads) {
		entry_resolved_locked(u, e, NULL, 0, r < 0 ? r : -EIO, rd->err ? rd->err : &none);
	}
	rd->leads = NULL;
	return r;
}

/* A URL to ask: 0 with a copy of it and its generation; 1 when the Hub gave the bytes at once; or -errno. */
static int url_get(struct reading *rd, char **ret_url, uint64_t *ret_generation)
{
	struct hub_urls *u = rd->h->urls;
	struct entry *e;

	{
		LOCKED(&u->lock);
		uint64_t seen;
		bool waited = false;

		e = entry_get_locked(u, &rd->place->id, rd->key);
		if (!e)
			return -ENOMEM;
		seen = e->generation;
		e->waiters++;
		while (e->resolving && !(rd->cancel && atomic_load(rd->cancel))) {
			waited = true;
			cond_wait_ms(&u->resolved, &u->lock, WAIT_MS);
		}
		e->waiters--;
		if (e->resolving)
			return hub_fail(rd->h, &rd->ask, rd->h->endpoint, -ECANCELED, NULL, rd->err);
		/* What was waited for counts, however short its life. */
		if (e->url && (util_now_ms() < e->expires_ms || (waited && e->generation > seen))) {
			*ret_url = strdup(e->url);
			*ret_generation = e->generation;
			return *ret_url ? 0 : -ENOMEM;
		}
		if (waited && e->failed < 0 && e->failed != -ECANCELED && e->failed != -ENOMEM) {
			if (rd->err && e->failure)
				*rd->err = *e->failure;
			return e->failed;
		}
		e->resolving = true;
	}
	return lead(rd, e, ret_url, ret_generation);
}

static void url_drop(struct reading *rd, uint64_t generation)
{
	struct hub_urls *u = rd->h->urls;
	LOCKED(&u->lock);
	struct entry *e = entry_get_locked(u, &rd->place->id, rd->key);

	if (e && e->generation == generation && !e->resolving) {
		free(e->url);
		e->url = NULL;
	}
}

/* -- reading -- */

/* Reads the rest from `url`: 0, or -errno with *ret_again when another URL may do better. */
static int read_from(struct reading *rd, const char *url, bool last, bool *ret_again)
{
	struct hub *h = rd->h;
	struct hub_ask ask = rd->ask;
	AUTO_HTTP_RESP resp = {0};
	struct http_req req;
	int r;

	make_request(rd, url, &req);
	ask.store = req.no_token = !auth_same_origin(h->auth, url);
	req.max_tries = last ? 0 : FIRST_TRIES;
	r = http_perform(h->http, &req, &resp);
	if (rd->sink_error)
		return rd->sink_error;
	if (r == 0 && resp.status >= 200 && resp.status <= 299)
		return 0;
	*ret_again = r != -ECANCELED && r != -ENOMEM;
	if (*ret_again && !last) {
		AUTO_FREE char *log_url = http_url_for_log(url);

		log_debug("%s: %s (HTTP %d), resolving again", log_url ? log_url : "?", 
		          r < 0 ? strerror(-r) : "refused", resp.status);
		return r < 0 ? r : -EIO;
	}
	return hub_fail(h, &ask, url, r, r < 0 ? NULL : &resp, rd->err);
}

int hub_read_range(struct hub *h, const struct hub_place *place, const struct blob_key *key, uint64_t off,
                   uint64_t len, http_sink sink, void *arg, atomic_bool *cancel, struct hub_error *err)
{
	struct reading rd = {
		.h = h,
		.place = place,
		.key = key,
		.off = off,
		.len = len,
		.sink = sink,
		.arg = arg,
		.cancel = cancel,
		.err = err,
		.ask = {.what = "reading", .id = &place->id, .rev = place->commit, .path = place->path},
	};

	hub_error_clear(err);
	assert(len > 0 && off < key->size && len <= key->size - off);
	for (unsigned tries = 1;; tries++) {
		AUTO_FREE char *url = NULL;
		uint64_t generation = 0;
		bool again = false;
		int r;

		r = url_get(&rd, &url, &generation);
		if (r != 0)
			return r < 0 ? r : 0;
		r = read_from(&rd, url, tries >= READ_TRIES, &again);
		if (again)
			url_drop(&rd, generation);
		if (r == 0 || !again || tries >= READ_TRIES)
			return r;
	}
}
