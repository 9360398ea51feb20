/* hub: the Hub's API: who and what there is, trees, and THE table that turns an answer into an errno.
 *
 * Not for bytes (hub_read.c), large uploads (hub_lfs.c), commits (hub_commit.c), the shape of JSON
 * (hub_json.c) or transfers (http.c). Worker threads only: every call blocks. No state but what it was made
 * of. */
#define LOG_MODULE "hub"

#include "hub.h"

#include <assert.h>
#include <errno.h>
#include <string.h>
#include <strings.h>

#include "hub_json.h"
#include "hub_priv.h"
#include "log.h"

#define HURRY_S 5            /* for an answer that is not waited for longer: things go on without it */
#define MAX_HOPS 5           /* of a repository that was renamed, more than once */
#define MAX_PAGES 20000      /* of 1000 entries each */
#define MAX_ENTRIES 20000000
#define PATHS_PER_CALL 1000  /* the Hub takes 2000 (hub-api.md 4.2) */
#define COMMITS_MAX 1000
#define PATH_LEN_MAX 1000   /* bytes, of a path in a commit */
#define ABOUT_MAX 240        /* leaves room for the cure in hub_error.text */

int hub_new(struct http *http, struct auth *auth, const struct hub_opts *opts, struct hub **ret)
{
	struct hub *h = calloc(1, sizeof(*h));
	int r;

	if (!h)
		return -ENOMEM;
	h->http = http;
	h->auth = auth;
	h->endpoint = auth_endpoint(auth);
	h->opts = *opts;
	if (h->opts.sig_margin_s == 0)
		h->opts.sig_margin_s = 60;
	r = hub_urls_new(&h->urls);
	if (r < 0) {
		free(h);
		return r;
	}
	*ret = h;
	return 0;
}

void hub_free(struct hub *h)
{
	if (!h)
		return;
	hub_urls_free(h->urls);
	free(h);
}

const char *hub_endpoint(const struct hub *h)
{
	return h->endpoint;
}

/* -- what came back, freed -- */

void hub_whoami_fini(struct hub_whoami *w)
{
	for (char **org = w->orgs; org && *org; org++)
		free(*org);
	free(w->orgs);
	free(w->name);
	*w = (struct hub_whoami){0};
}

void hub_refs_fini(struct hub_refs *r)
{
	for (size_t i = 0; i < r->n; i++)
		free(r->refs[i].name);
	free(r->refs);
	*r = (struct hub_refs){0};
}

static void cut_commits(struct hub_commits *c, size_t n)
{
	for (; c->n > n; c->n--) {
		free(c->commits[c->n - 1].title);
		free(c->commits[c->n - 1].message);
		free(c->commits[c->n - 1].author);
	}
}

void hub_commits_fini(struct hub_commits *c)
{
	cut_commits(c, 0);
	free(c->commits);
	*c = (struct hub_commits){0};
}

void hub_entries_fini(struct hub_entries *e)
{
	for (size_t i = 0; i < e->n; i++)
		free(e->entries[i].path);
	free(e->entries);
	*e = (struct hub_entries){0};
}

void hub_commit_result_fini(struct hub_commit_result *r)
{
	free(r->url);
	free(r->pr_url);
	*r = (struct hub_commit_result){0};
}

/* -- failures -- */

/* What an answer that is no success means. */
enum verdict {
	NO_REPO, NO_REVISION, NO_ENTRY, GATED, DISABLED, BAD_TOKEN, NEED_TOKEN, FORBIDDEN, QUOTA,
	TOO_MANY_ENTRIES, TOO_LARGE, LFS_MISSING, REFUSED, CONFLICT, BUSY, RATE, SERVER, ODD,
};

/* THE table (architecture.md 5). The text is the user's cure; %s stands for what the Hub itself said. */
static const struct {
	int error;
	const char *text;
} verdicts[] = {
	[NO_REPO] = {-ENOENT, "no such repository, or this account may not see it (private ones need a "
	                      "token: `hf auth login` or HF_TOKEN)"},
	[NO_REVISION] = {-ENOENT, "no such revision"},
	[NO_ENTRY] = {-ENOENT, "no such file or folder"},
	[GATED] = {-EACCES, "gated"},
	[DISABLED] = {-EACCES, "the Hub has disabled access to this repository"},
	[BAD_TOKEN] = {-EACCES, "the token is not valid: run `hf auth login` or set HF_TOKEN"},
	[NEED_TOKEN] = {-EACCES, "this needs a token: run `hf auth login` or set HF_TOKEN"},
	[FORBIDDEN] = {-EACCES, "not permitted with this token"},
	[QUOTA] = {-EDQUOT, "a quota of the account is used up"},
	[TOO_MANY_ENTRIES] = {-EMLINK, "too many entries in one folder: the Hub allows 10,000"},
	[TOO_LARGE] = {-EFBIG, "too large for the Hub"},
	[LFS_MISSING] = {-EIO, "an uploaded file is missing on the Hub and must be sent again"},
	[REFUSED] = {-EINVAL, "refused by the rules of the Hub"},
	[CONFLICT] = {-ESTALE, "the branch was changed by somebody else"},
	[BUSY] = {-EBUSY, "another operation on the repository is under way, or it exists already"},
	[RATE] = {-ETIMEDOUT, "too many requests: the Hub asks to wait"},
	[SERVER] = {-EIO, "the server failed"},
	[ODD] = {-EIO, "an answer that nobody expects"},
};

static bool has(const char *text, const char *part)
{
	return text && strcasestr(text, part) != NULL;
}

static enum verdict judge_400(const char *said)
{
	if (has(said, "too many files per directory"))
		return TOO_MANY_ENTRIES;
	if (has(said, "larger than") || has(said, "too large"))
		return TOO_LARGE;
	if (has(said, "pointer") && has(said, "does not exist"))
		return LFS_MISSING;
	return REFUSED;
}

/* In the order of hub-api.md 7.2. `said`: the Hub's own words. */
static enum verdict judge(const struct hub_ask *ask, const struct http_resp *resp, bool have_token,
                          const char *said)
{
	const char *code = resp->error_code ? resp->error_code : "";

	if (ask->store)
		return resp->status == 401 || resp->status == 403 ? FORBIDDEN
		       : resp->status == 429                      ? RATE
		                                                  : SERVER;
	if (strcmp(code, "RevisionNotFound") == 0)
		return NO_REVISION;
	if (strcmp(code, "EntryNotFound") == 0)
		return NO_ENTRY;
	if (strcmp(code, "GatedRepo") == 0)
		return GATED;
	if (resp->status == 403 && has(said, "access to this resource is disabled"))
		return DISABLED;
	if (strcmp(code, "RepoNotFound") == 0)
		return resp->status == 401 && ask->writes ? NEED_TOKEN : NO_REPO;
	switch (resp->status) {
	case 400:
	case 422:
		return judge_400(said);
	case 401:
		if (has(said, "invalid credentials"))
			return BAD_TOKEN;
		/* A missing repository and a private one look the same to somebody without a name. */
		return ask->id && !ask->writes ? NO_REPO : have_token ? BAD_TOKEN : NEED_TOKEN;
	case 402:
		return QUOTA;
	case 403:
		if (!has(said, "storage"))
			return FORBIDDEN;
		return has(said, "limit") || has(said, "pattern") || has(said, "quota") ? QUOTA : FORBIDDEN;
	case 408:
		return RATE;
	case 409:
		return BUSY;
	case 412:
		return CONFLICT;
	case 413:
		return TOO_LARGE;
	case 429:
		/* The quota of an action is no window of requests (hub-api.md 8.1). */
		return ask->writes && !resp->window_used_up ? QUOTA : RATE;
	}
	/* A 404 without a code may come from anything on the way: it proves no absence. */
	return resp->status >= 500 ? SERVER : ODD;
}

/* "listing datasets/ns/name@rev/path" */
static void describe(const struct hub_ask *ask, char *ret, size_t size)
{
	char repo[REPO_TEXT_MAX] = "";

	if (ask->id)
		snprintf(repo, sizeof(repo), "%s", repo_type_prefix(ask->id->type));
	if (ask->id)
		hub_id_path(ask->id, repo + strlen(repo));
	snprintf(ret, size, "%s%s%s%s%s%s%.150s", ask->what, ask->id ? " " : "", repo, ask->rev ? "@" : "",
	         ask->rev ? ask->rev : "", ask->path && *ask->path ? "/" : "", ask->path ? ask->path : "");
}

/* Appends to what is told already; a long text is cut at its end. */
static PRINTF(2, 3) void tell(struct hub_error *err, const char *fmt, ...)
{
	size_t n = strlen(err->text);
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(err->text + n, sizeof(err->text) - n, fmt, ap);
	va_end(ap);
}

static void tell_refusal(struct hub *h, const char *about, struct hub_error *err)
{
	char why[ABOUT_MAX];

	http_refusal(h->http, why, sizeof(why));
	tell(err, "%s: %s", about, why);
}

static void tell_transfer(struct hub *h, int r, const char *about, struct hub_error *err)
{
	if (r == -ENETDOWN)
		tell(err, "%s: %s cannot be reached (no network, offline, or a wrong HF_ENDPOINT or proxy)", about,
		     h->endpoint);
	else if (r == -ETIMEDOUT)
		tell(err, "%s: %s did not answer in time", about, h->endpoint);
	else if (r == -EKEYREJECTED)
		tell_refusal(h, about, err);
	else if (r == -EIO)
		tell(err, "%s: %s broke off its answer", about, h->endpoint);
	else
		tell(err, "%s: %s", about, strerror(-r));
}

static void tell_answer(struct hub *h, const struct hub_ask *ask, enum verdict v, const char *about,
                        const char *said, struct hub_error *err)
{
	char id[REPO_TEXT_MAX] = "";

	if (ask->id)
		hub_id_path(ask->id, id);
	if (v == GATED)
		tell(err, "%s: this repository is gated: request access at %s/%s%s, and use a token that "
		     "has it", about, h->endpoint, ask->id ? repo_type_prefix(ask->id->type) : "", id);
	else
		tell(err, "%s: %s", about, verdicts[v].text);
	if (said[0] && v != NO_REPO && v != NO_REVISION && v != NO_ENTRY && v != GATED)
		tell(err, " (%s)", said);
}

int hub_fail(struct hub *h, const struct hub_ask *ask, const char *url, int r, const struct http_resp *resp,
             struct hub_error *err)
{
	struct hub_error local = {.retry_after_s = -1};
	AUTO_FREE char *log_url = http_url_for_log(url);
	enum log_level level = LOG_LEVEL_WARN;
	char about[ABOUT_MAX], said[200] = "";
	int error = r;

	describe(ask, about, sizeof(about));
	if (resp) {
		CLEANUP(auth_token_freep) char *token = auth_token(h->auth);
		enum verdict v;

		if (resp->error_message)
			snprintf(said, sizeof(said), "%s", resp->error_message);
		else if (resp->body.data)
			hub_json_error(resp->body.data, resp->body.len, said, sizeof(said));
		v = judge(ask, resp, token != NULL, said);
		error = verdicts[v].error;
		local.status = resp->status;
		local.retry_after_s = resp->retry_after_s;
		local.maybe_done = resp->status >= 500;
		snprintf(local.code, sizeof(local.code), "%s", v == LFS_MISSING       ? "LfsObjectMissing"
		                                              : resp->error_code ? resp->error_code
		                                                                 : "");
		tell_answer(h, ask, v, about, said, &local);
		if (error == -ENOENT || resp->status == ask->quiet_status)
			level = LOG_LEVEL_DEBUG;
	} else {
		error = r == -EKEYREJECTED ? -EIO : r;
		local.maybe_done = r == -EIO || r == -ETIMEDOUT || r == -ECANCELED;
		tell_transfer(h, r, about, &local);
		if (r == -ECANCELED)
			level = LOG_LEVEL_DEBUG;
	}
	log_write(level, LOG_MODULE, "%s (%s: HTTP %d, request %s)", local.text, log_url ? log_url : "?",
	          local.status,
	          resp && resp->request_id ? resp->request_id : "-");
	if (err)
		*err = local;
	return error;
}

int hub_fail_json(struct hub *h, const struct hub_ask *ask, const char *url, int r,
                  const struct http_resp *resp,
                  struct hub_error *err)
{
	struct hub_error local = {.retry_after_s = -1, .status = resp->status, .maybe_done = true};
	AUTO_FREE char *log_url = http_url_for_log(url);
	char about[ABOUT_MAX];

	describe(ask, about, sizeof(about));
	tell(&local, "%s: %s gave an answer that makes no sense%s", about, h->endpoint,
	     resp->is_json ? "" : " (is HF_ENDPOINT a Hub? a login page of the network?)");
	log_warn("%s (%s: HTTP %d, %zu bytes, request %s)", local.text, log_url ? log_url : "?", resp->status,
	         resp->body.len, resp->request_id ? resp->request_id : "-");
	if (err)
		*err = local;
	return r == -ENOMEM ? -ENOMEM : -EIO;
}

/* -- calls -- */

static bool is_rename(const struct hub *h, const struct http_resp *resp)
{
	int s = resp->status;

	return (s == 301 || s == 302 || s == 307 || s == 308) && resp->location &&
	       auth_same_origin(h->auth, resp->location);
}

int hub_call(struct hub *h, const struct hub_ask *ask, const struct http_req *req, struct http_resp *ret,
             struct hub_error *err)
{
	struct http_req hop = *req;
	AUTO_FREE char *url = NULL;
	int r;

	for (unsigned hops = 0;; hops++) {
		AUTO_HTTP_RESP resp = {0};

		r = http_perform(h->http, &hop, &resp);
		if (r < 0)
			return hub_fail(h, ask, hop.url, r, NULL, err);
		if (resp.status >= 200 && resp.status <= 299) {
			*ret = STEAL(resp);
			return 0;
		}
		if (hops >= MAX_HOPS || !is_rename(h, &resp))
			return hub_fail(h, ask, hop.url, 0, &resp, err);
		free(url);
		url = STEAL(resp.location);
		hop.url = url;
	}
}

int hub_get(struct hub *h, const struct hub_ask *ask, const char *url, struct http_resp *ret,
            struct hub_error *err)
{
	struct http_req req = {
		.method = "GET",
		.url = url,
		.lane = HTTP_API,
		.idempotent = true,
		.deadline_s = ask->deadline_s,
	};

	if (!url)
		return -ENOMEM;
	return hub_call(h, ask, &req, ret, err);
}

int hub_post(struct hub *h, const struct hub_ask *ask, const char *url, const struct buf *body,
             const char *const *headers, atomic_bool *cancel, struct http_resp *ret, struct hub_error *err)
{
	static const char *const json[] = {"Content-Type: application/json", NULL};
	struct http_req req = {
		.method = "POST",
		.url = url,
		.lane = HTTP_API,
		.headers = headers ? headers : json,
		.body = body->data,
		.body_len = body->len,
		.idempotent = true,
		.cancel = cancel,
	};

	if (!url)
		return -ENOMEM;
	return hub_call(h, ask, &req, ret, err);
}

void hub_id_path(const struct repo_id *id, char out[REPO_TEXT_MAX])
{
	snprintf(out, REPO_TEXT_MAX, "%s%s%s", id->ns, id->ns[0] ? "/" : "", id->name);
}

char *hub_api_url(const struct hub *h, const struct repo_id *id, const char *fmt, ...)
{
	AUTO_FREE char *tail = NULL;
	char path[REPO_TEXT_MAX];
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vasprintf(&tail, fmt, ap);
	va_end(ap);
	if (n < 0) {
		tail = NULL;
		return NULL;
	}
	hub_id_path(id, path);
	return util_printf("%s/api/%s/%s%s", h->endpoint, repo_type_api(id->type), path, tail);
}

char *hub_own_url(const struct hub *h, const char *url)
{
	static const char *const official[] = {"https://huggingface.co/", "https://hub-ci.huggingface.co/"};

	for (size_t i = 0; i < ARRAY_LEN(official); i++) {
		size_t n = strlen(official[i]);

		if (strncasecmp(url, official[i], n) == 0)
			return util_printf("%s/%s", h->endpoint, url + n);
	}
	return strdup(url);
}

/* Takes one page's text: 0, 1 when no more pages are wanted, or what hub_json said. */
typedef int (*page_sink)(void *arg, const char *text, size_t len);

/* Goes through all pages. `url` is taken over. */
static int get_pages(struct hub *h, const struct hub_ask *ask, char *url, page_sink page, void *arg,
                     struct hub_error *err)
{
	AUTO_FREE char *at = url;
	int r;

	for (unsigned n = 0; at; n++) {
		AUTO_HTTP_RESP resp = {0};
		AUTO_FREE char *next = NULL;

		r = hub_get(h, ask, at, &resp, err);
		if (r < 0)
			return r;
		r = page(arg, resp.body.data, resp.body.len);
		if (r < 0)
			return hub_fail_json(h, ask, at, r, &resp, err);
		if (r > 0 || !resp.link_next)
			return 0;
		next = hub_own_url(h, resp.link_next);
		if (!next)
			return -ENOMEM;
		/* A list goes on where it began. */
		if (n >= MAX_PAGES || !auth_same_origin(h->auth, next))
			return hub_fail_json(h, ask, next, -EBADMSG, &resp, err);
		free(at);
		at = STEAL(next);
	}
	return -ENOMEM;
}

/* -- who and what -- */

static bool have_token(struct hub *h)
{
	CLEANUP(auth_token_freep) char *token = auth_token(h->auth);

	return token != NULL;
}

int hub_whoami(struct hub *h, struct hub_whoami *ret, struct hub_error *err)
{
	struct hub_ask ask = {.what = "asking who the token belongs to"};
	AUTO_FREE char *url = NULL;
	AUTO_HTTP_RESP resp = {0};
	int r;

	hub_error_clear(err);
	if (!have_token(h)) {
		*ret = (struct hub_whoami){0};
		return 0;
	}
	url = util_printf("%s/api/whoami-v2", h->endpoint);
	r = hub_get(h, &ask, url, &resp, err);
	if (r < 0)
		return r;
	r = hub_json_whoami(resp.body.data, resp.body.len, ret);
	return r < 0 ? hub_fail_json(h, &ask, url, r, &resp, err) : 0;
}

int hub_repo_info(struct hub *h, const struct repo_id *id, const char *rev, bool hurry, struct hub_repo *ret,
                  struct hub_error *err)
{
	struct hub_ask ask = {.what = "looking up", .id = id, .rev = rev, .deadline_s = hurry ? HURRY_S : 0};
	AUTO_FREE char *escaped = rev ? repo_escape_rev(rev) : NULL;
	AUTO_FREE char *url = NULL;
	AUTO_HTTP_RESP resp = {0};
	int r;

	hub_error_clear(err);
	if (rev && !escaped)
		return -ENOMEM;
	/* Spaces are never gated, and an unknown name is a 400. */
	url = hub_api_url(h, id, "%s%s?expand=sha&expand=lastModified&expand=private&expand=disabled%s",
	                  rev ? "/revision/" : "", rev ? escaped : "",
	                  id->type == REPO_SPACE ? "" : "&expand=gated");
	r = hub_get(h, &ask, url, &resp, err);
	if (r < 0)
		return r;
	r = hub_json_repo(resp.body.data, resp.body.len, id->type, ret);
	return r < 0 ? hub_fail_json(h, &ask, url, r, &resp, err) : 0;
}

int hub_may_write(struct hub *h, const struct repo_id *id, struct hub_error *err)
{
	struct hub_ask ask = {.what = "asking for write access to", .id = id, .writes = true,
	                      .quiet_status = 403, .deadline_s = HURRY_S};
	struct hub_error local = {0};
	AUTO_FREE char *url = NULL;
	AUTO_HTTP_RESP resp = {0};
	int r;

	hub_error_clear(err);
	if (!have_token(h))
		return 0;
	url = hub_api_url(h, id, "/auth-check/write");
	r = hub_get(h, &ask, url, &resp, err ? err : &local);
	if (r == -EACCES && (err ? err : &local)->status == 403)
		return 0;
	return r < 0 ? r : 1;
}

int hub_namespace_exists(struct hub *h, const char *ns, struct hub_error *err)
{
	static const char *const kinds[] = {"users", "organizations"};
	struct hub_ask ask = {.what = "looking up a namespace", .quiet_status = 404};
	struct hub_error local = {0};
	struct hub_error *e = err ? err : &local;

	hub_error_clear(err);
	if (!repo_name_valid(ns))
		return 0;
	for (size_t i = 0; i < ARRAY_LEN(kinds); i++) {
		AUTO_FREE char *url = util_printf("%s/api/%s/%s/overview", h->endpoint, kinds[i], ns);
		AUTO_HTTP_RESP resp = {0};
		int r;

		r = hub_get(h, &ask, url, &resp, e);
		if (r == 0)
			return 1;
		if (r == -ENOMEM || e->status != 404)
			return r;
	}
	return 0;
}

int hub_refs(struct hub *h, const struct repo_id *id, bool hurry, struct hub_refs *ret, struct hub_error *err)
{
	struct hub_ask ask = {.what = "listing the revisions of", .id = id, .deadline_s = hurry ? HURRY_S : 0};
	AUTO_FREE char *url = hub_api_url(h, id, "/refs?include_prs=1");
	AUTO_HTTP_RESP resp = {0};
	int r;

	hub_error_clear(err);
	r = hub_get(h, &ask, url, &resp, err);
	if (r < 0)
		return r;
	r = hub_json_refs(resp.body.data, resp.body.len, ret);
	return r < 0 ? hub_fail_json(h, &ask, url, r, &resp, err) : 0;
}

struct commits_page {
	struct hub_commits commits;
	unsigned limit;
};

static int add_commits(void *arg, const char *text, size_t len)
{
	struct commits_page *p = arg;
	int r;

	r = hub_json_commits(text, len, &p->commits);
	if (r < 0)
		return r;
	cut_commits(&p->commits, p->limit);
	return p->commits.n == p->limit;
}

int hub_commits(struct hub *h, const struct repo_id *id, const char *rev, unsigned limit,
                struct hub_commits *ret,
                struct hub_error *err)
{
	struct hub_ask ask = {.what = "reading the history of", .id = id, .rev = rev};
	struct commits_page page = {.limit = MAX(MIN(limit, COMMITS_MAX), 1u)};
	AUTO_FREE char *escaped = repo_escape_rev(rev);
	char *url;
	int r;

	hub_error_clear(err);
	if (!escaped)
		return -ENOMEM;
	url = hub_api_url(h, id, "/commits/%s?limit=%u", escaped, page.limit);
	r = get_pages(h, &ask, url, add_commits, &page, err);
	if (r == 0)
		*ret = page.commits;
	else
		hub_commits_fini(&page.commits);
	return r;
}

/* -- trees -- */

struct entries_page {
	struct hub_entries entries;
	size_t skipped;
};

static int add_entries(void *arg, const char *text, size_t len)
{
	struct entries_page *p = arg;

	return p->entries.n > MAX_ENTRIES ? -EBADMSG : hub_json_entries(text, len, &p->entries, &p->skipped);
}

/* Gives the entries away, or frees them. */
static int end_entries(const struct hub_ask *ask, struct entries_page *p, int r, struct hub_entries *ret)
{
	char about[ABOUT_MAX];

	if (r < 0) {
		hub_entries_fini(&p->entries);
		return r;
	}
	if (p->skipped > 0) {
		describe(ask, about, sizeof(about));
		log_warn("%s: %zu entries left out: their names cannot be served", about, p->skipped);
	}
	*ret = p->entries;
	return 0;
}

int hub_tree(struct hub *h, const struct repo_id *id, const char *rev, const char *path, bool recursive,
             struct hub_entries *ret, struct hub_error *err)
{
	struct hub_ask ask = {.what = "listing", .id = id, .rev = rev, .path = path};
	AUTO_FREE char *escaped_rev = repo_escape_rev(rev);
	AUTO_FREE char *escaped_path = repo_escape_path(path);
	struct entries_page page = {0};
	char *url;
	int r;

	hub_error_clear(err);
	if (!escaped_rev || !escaped_path)
		return -ENOMEM;
	url = hub_api_url(h, id, "/tree/%s%s%s?recursive=%s&expand=false", escaped_rev, *path ? "/" : "",
	                  escaped_path,
	                  recursive ? "true" : "false");
	r = get_pages(h, &ask, url, add_entries, &page, err);
	return end_entries(&ask, &page, r, ret);
}

static int post_paths(struct hub *h, const struct hub_ask *ask, const char *url, const char *const *paths,
                      size_t n, struct entries_page *page, struct hub_error *err)
{
	AUTO_BUF body = {0};
	AUTO_HTTP_RESP resp = {0};
	struct hub_json_writer w;
	int r;

	hub_json_write_init(&w, &body);
	hub_json_write_object(&w, NULL);
	hub_json_write_array(&w, "paths");
	for (size_t i = 0; i < n; i++)
		hub_json_write_exact(&w, NULL, paths[i]);
	hub_json_write_end(&w);
	hub_json_write_bool(&w, "expand", false);
	hub_json_write_end(&w);
	r = hub_json_write_done(&w);
	if (r < 0)
		return r;
	r = hub_post(h, ask, url, &body, NULL, NULL, &resp, err);
	if (r < 0)
		return r;
	r = add_entries(page, resp.body.data, resp.body.len);
	return r < 0 ? hub_fail_json(h, ask, url, r, &resp, err) : 0;
}

int hub_paths_info(struct hub *h, const struct repo_id *id, const char *rev, const char *const *paths,
                   size_t n, struct hub_entries *ret, struct hub_error *err)
{
	const char *only = n == 1 ? paths[0] : NULL;
	struct hub_ask ask = {.what = "looking up names in", .id = id, .rev = rev, .path = only};
	AUTO_FREE char *escaped = repo_escape_rev(rev);
	AUTO_FREE char *url = escaped ? hub_api_url(h, id, "/paths-info/%s", escaped) : NULL;
	AUTO_FREE const char **asked = calloc(n + 1, sizeof(*asked));
	struct entries_page page = {0};
	size_t n_asked = 0;
	int r = 0;

	hub_error_clear(err);
	if (!url || !asked)
		return -ENOMEM;
	/* A name that is no UTF-8 cannot be asked for in JSON; what the Hub lists has none. */
	for (size_t i = 0; i < n; i++) {
		size_t len = strlen(paths[i]), at = 0, step = 1;

		for (; at < len && step > 0; at += step)
			step = hub_json_utf8((const unsigned char *)paths[i] + at, len - at);
		if (step > 0)
			asked[n_asked++] = paths[i];
	}
	for (size_t i = 0; i < n_asked && r == 0; i += PATHS_PER_CALL)
		r = post_paths(h, &ask, url, asked + i, MIN(n_asked - i, (size_t)PATHS_PER_CALL), &page, err);
	return end_entries(&ask, &page, r, ret);
}

int hub_path_check(const char *path)
{
	size_t len = strlen(path);

	if (len > PATH_LEN_MAX)
		return -ENAMETOOLONG;
	if (strchr(path, '\\'))
		return -EINVAL;
	for (size_t i = 0, n; i < len; i += n) {
		n = hub_json_utf8((const unsigned char *)path + i, len - i);
		if (n == 0)
			return -EILSEQ;
	}
	for (const char *part = path; *part; part += strspn(part, "/")) {
		size_t n = strcspn(part, "/");

		if (n == 4 && strncasecmp(part, ".git", 4) == 0)
			return -EINVAL;
		part += n;
	}
	return 0;
}
