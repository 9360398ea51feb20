/* hub_pr: pull requests: opening one, its state, merging it (hub-api.md 3.10).
 *
 * Not for what is committed to one: that is a commit to its ref (hub_commit.c). Worker threads only. */
#define LOG_MODULE "hub"

#include <errno.h>
#include <string.h>

#include "hub_json.h"
#include "hub_priv.h"

#define TITLE_MIN 3 /* hub-api.md 3.10 */
#define TITLE_MAX 200

static const char *const json_headers[] = {"Content-Type: application/json", NULL};

char *hub_pr_url(const struct hub *h, const struct repo_id *id, unsigned number)
{
	char name[REPO_TEXT_MAX];

	hub_id_path(id, name);
	return util_printf("%s/%s%s/discussions/%u", h->endpoint, repo_type_prefix(id->type), name, number);
}

/* A POST that changes something: it goes out once. */
static int post_once(struct hub *h, const struct hub_ask *ask, const char *url, const struct buf *body,
                     struct http_resp *resp, struct hub_error *err)
{
	struct http_req req = {
		.method = "POST", .url = url, .lane = HTTP_API, .headers = json_headers, .body = body->data,
		.body_len = body->len,
	};

	return url ? hub_call(h, ask, &req, resp, err) : -ENOMEM;
}

/* Cut to what the Hub takes, at the end of a character. */
static char *fit_title(const char *title)
{
	size_t n = strlen(title);

	if (n < TITLE_MIN)
		return util_printf("hugfs: %s", title);
	if (n > TITLE_MAX) {
		n = TITLE_MAX;
		while (n > 0 && ((unsigned char)title[n] & 0xc0) == 0x80)
			n--;
	}
	return strndup(title, n);
}

/* An empty pull request of that title which we opened without hearing of it: its number, 0: none. */
static int find_lost(struct hub *h, const struct repo_id *id, const char *title, unsigned *ret,
                     struct hub_error *err)
{
	CLEANUP(hub_whoami_fini) struct hub_whoami who = {0};
	struct hub_ask ask = {.what = "listing the pull requests of", .id = id};
	AUTO_FREE char *name = NULL;
	AUTO_FREE char *url = NULL;
	AUTO_HTTP_RESP resp = {0};
	int r = hub_whoami(h, &who, err);

	*ret = 0;
	if (r < 0 || !who.name)
		return r;
	name = repo_escape_rev(who.name);
	if (name)
		url = hub_api_url(h, id, "/discussions?type=pull_request&status=open&author=%s", name);
	r = hub_get(h, &ask, url, &resp, err);
	if (r < 0)
		return r;
	r = hub_json_find_draft(resp.body.data, resp.body.len, title, ret);
	return r < 0 ? hub_fail_json(h, &ask, url, r, &resp, err) : 0;
}

int hub_pr_open(struct hub *h, const struct repo_id *id, const char *title, const char *description,
                unsigned *ret_number, struct hub_error *err)
{
	struct hub_ask ask = {.what = "opening a pull request at", .id = id, .writes = true};
	AUTO_FREE char *fit = fit_title(title);
	AUTO_FREE char *url = hub_api_url(h, id, "/discussions");
	struct hub_error local = {.retry_after_s = -1};
	AUTO_HTTP_RESP resp = {0};
	AUTO_BUF body = {0};
	struct hub_json_writer w;
	unsigned number = 0;
	int r;

	hub_error_clear(err);
	if (!fit || !url)
		return -ENOMEM;
	hub_json_write_init(&w, &body);
	hub_json_write_object(&w, NULL);
	hub_json_write_string(&w, "title", fit);
	hub_json_write_string(&w, "description", description ? description : "");
	hub_json_write_bool(&w, "pullRequest", true);
	hub_json_write_end(&w);
	r = hub_json_write_done(&w);
	if (r < 0)
		return r;
	r = post_once(h, &ask, url, &body, &resp, &local);
	if (r < 0 && local.maybe_done) {
		r = find_lost(h, id, fit, &number, err);
		if (r == 0 && !number)
			r = post_once(h, &ask, url, &body, &resp, &local);
	}
	if (r < 0) {
		if (err && !err->text[0])
			*err = local;
		return r;
	}
	if (!number) {
		r = hub_json_number(resp.body.data, resp.body.len, "num", &number);
		if (r < 0)
			return hub_fail_json(h, &ask, url, r, &resp, err);
	}
	*ret_number = number;
	return 0;
}

int hub_pr_get(struct hub *h, const struct repo_id *id, unsigned number, struct hub_pr *ret, struct hub_error *err)
{
	struct hub_ask ask = {.what = "looking at a pull request of", .id = id};
	AUTO_FREE char *url = hub_api_url(h, id, "/discussions/%u", number);
	AUTO_HTTP_RESP resp = {0};
	int r;

	hub_error_clear(err);
	r = hub_get(h, &ask, url, &resp, err);
	if (r < 0)
		return r;
	r = hub_json_pr(resp.body.data, resp.body.len, ret);
	return r < 0 ? hub_fail_json(h, &ask, url, r, &resp, err) : 0;
}

static int change(struct hub *h, const struct repo_id *id, const struct hub_ask *ask, unsigned number,
                  const char *verb, const char *field, const char *value, struct hub_error *err)
{
	AUTO_FREE char *url = hub_api_url(h, id, "/discussions/%u/%s", number, verb);
	AUTO_HTTP_RESP resp = {0};
	AUTO_BUF body = {0};
	struct hub_json_writer w;
	int r;

	hub_error_clear(err);
	hub_json_write_init(&w, &body);
	hub_json_write_object(&w, NULL);
	hub_json_write_string(&w, field, value);
	hub_json_write_end(&w);
	r = hub_json_write_done(&w);
	return r < 0 ? r : post_once(h, ask, url, &body, &resp, err);
}

int hub_pr_publish(struct hub *h, const struct repo_id *id, unsigned number, struct hub_error *err)
{
	struct hub_ask ask = {.what = "publishing a pull request of", .id = id, .writes = true};

	return change(h, id, &ask, number, "status", "status", "open", err);
}

int hub_pr_merge(struct hub *h, const struct repo_id *id, unsigned number, const char *comment,
                 struct hub_error *err)
{
	struct hub_ask ask = {.what = "merging a pull request of", .id = id, .writes = true};

	return change(h, id, &ask, number, "merge", "comment", comment, err);
}
