/* hub_make: what is made beside commits: tags, branches, repositories (hub-api.md 3.7, 3.8, 3.10).
 *
 * Worker threads only. Each goes out once: that it is there already is an answer (-EEXIST), also after a lost one. */
#define LOG_MODULE "hub"

#include <errno.h>
#include <string.h>

#include "hub_json.h"
#include "hub_priv.h"

#define HTTP_CONFLICT 409

static int make(struct hub *h, const struct hub_ask *ask, const char *url, struct hub_json_writer *w,
                struct hub_error *err)
{
	static const char *const headers[] = {"Content-Type: application/json", NULL};
	struct hub_error local = {.retry_after_s = -1};
	struct http_req req = {.method = "POST", .url = url, .lane = HTTP_API, .headers = headers};
	AUTO_HTTP_RESP resp = {0};
	int r = hub_json_write_done(w);

	hub_error_clear(err);
	if (r < 0 || !url)
		return r < 0 ? r : -ENOMEM;
	req.body = w->out->data;
	req.body_len = w->out->len;
	r = hub_call(h, ask, &req, &resp, &local);
	if (err)
		*err = local;
	return r < 0 && local.status == HTTP_CONFLICT && !strcasestr(local.text, "in progress") ? -EEXIST : r;
}

int hub_tag(struct hub *h, const struct repo_id *id, const char *commit, const char *name, const char *message,
            struct hub_error *err)
{
	struct hub_ask ask = {
		.what = "tagging", .id = id, .rev = commit, .writes = true, .quiet_status = HTTP_CONFLICT,
	};
	AUTO_FREE char *url = hub_api_url(h, id, "/tag/%s", commit);
	AUTO_BUF body = {0};
	struct hub_json_writer w;

	hub_json_write_init(&w, &body);
	hub_json_write_object(&w, NULL);
	hub_json_write_exact(&w, "tag", name);
	if (message)
		hub_json_write_string(&w, "message", message);
	hub_json_write_end(&w);
	return make(h, &ask, url, &w, err);
}

int hub_branch(struct hub *h, const struct repo_id *id, const char *name, const char *start, struct hub_error *err)
{
	struct hub_ask ask = {
		.what = "making a branch of", .id = id, .rev = name, .writes = true, .quiet_status = HTTP_CONFLICT,
	};
	AUTO_FREE char *escaped = repo_escape_rev(name);
	AUTO_FREE char *url = escaped ? hub_api_url(h, id, "/branch/%s", escaped) : NULL;
	AUTO_BUF body = {0};
	struct hub_json_writer w;

	hub_json_write_init(&w, &body);
	hub_json_write_object(&w, NULL);
	if (start)
		hub_json_write_exact(&w, "startingPoint", start);
	hub_json_write_end(&w);
	return make(h, &ask, url, &w, err);
}

int hub_create_repo(struct hub *h, const struct repo_id *id, bool is_private, const char *sdk, struct hub_error *err)
{
	struct hub_ask ask = {.what = "making", .id = id, .writes = true, .quiet_status = HTTP_CONFLICT};
	AUTO_FREE char *url = util_printf("%s/api/repos/create", h->endpoint);
	AUTO_BUF body = {0};
	struct hub_json_writer w;

	hub_json_write_init(&w, &body);
	hub_json_write_object(&w, NULL);
	hub_json_write_exact(&w, "name", id->name);
	hub_json_write_exact(&w, "organization", id->ns);
	hub_json_write_exact(&w, "type", repo_type_name(id->type));
	hub_json_write_exact(&w, "visibility", is_private ? "private" : "public");
	if (id->type == REPO_SPACE)
		hub_json_write_exact(&w, "sdk", sdk);
	hub_json_write_end(&w);
	return make(h, &ask, url, &w, err);
}
