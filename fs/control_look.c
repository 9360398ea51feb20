/* control_look: the verbs that look at the Hub for the user: diff, log, tag, refresh. Not for the socket (control.c).
 *
 * The thread of a connection, which may wait for the network. */
#define LOG_MODULE "control"

#include <errno.h>
#include <string.h>

#include "control_internal.h"
#include "log.h"

/* -- diff -- */

/* A change as the stage tells it; the rest is asked for without its lock. */
struct found {
	char *path, *from;
	enum stage_kind kind;
	uint64_t size;
	bool is_blob;
	struct blob_key blob;
};
struct diff {
	struct found *found;
	size_t n;
	const char *top;
	const struct ignore *ignore;
};

static void diff_fini(struct diff *d)
{
	for (size_t i = 0; i < d->n; i++) {
		free(d->found[i].path);
		free(d->found[i].from);
	}
	free(d->found);
}

/* stage_each_fn. What is open, in conflict or not published is for status. */
static int find_change(void *arg, const char *path, const struct stage_attr *attr)
{
	struct diff *d = arg;
	size_t n = strlen(d->top);
	struct found *f;

	if (n > 0 && (strncmp(path, d->top, n) != 0 || (path[n] && path[n] != '/')))
		return 0;
	if (attr->state == STAGE_CONFLICT || attr->state == STAGE_INTERRUPTED || attr->state == STAGE_OPEN ||
	    (attr->kind == STAGE_DIR && !attr->from))
		return 0;
	if (attr->kind != STAGE_WHITEOUT && ignore_match(d->ignore, path, attr->kind == STAGE_DIR))
		return 0;
	f = control_append(&d->found, &d->n, sizeof(*f), SIZE_MAX);
	if (!f)
		return -ENOMEM;
	f->path = strdup(path);
	f->from = attr->from ? strdup(attr->from) : NULL;
	f->kind = attr->kind;
	f->size = attr->size;
	f->is_blob = attr->is_blob;
	f->blob = attr->blob;
	return f->path && (f->from || !attr->from) ? 0 : -ENOMEM;
}

struct total {
	uint64_t bytes;
};

static int add_size(void *arg, const char *path, const struct tree_entry *entry)
{
	((struct total *)arg)->bytes += entry->key.size;
	return 0;
}

static bool is_source(const struct diff *d, const char *path)
{
	for (size_t i = 0; i < d->n; i++) {
		if (d->found[i].from && strcmp(d->found[i].from, path) == 0)
			return true;
	}
	return false;
}

/* Says what a change is; NULL: none that a commit would hold. *ret_old: the size of what was there. */
static const char *judge(struct control *c, struct rev *rev, const char *parent, const struct diff *d,
                         const struct found *f, uint64_t *ret_old)
{
	struct total total = {0};
	struct tree_entry ent;
	int held = *parent ? tree_stat(c->env.tree, &rev->repo, parent, f->path, true, &ent, NULL) : -ENOENT;

	*ret_old = held == 0 && ent.kind == HUB_ENTRY_FILE ? ent.key.size : 0;
	if (f->kind == STAGE_WHITEOUT) {
		if (held < 0 || is_source(d, f->path))
			return NULL;
		if (ent.kind == HUB_ENTRY_DIR &&
		    tree_walk(c->env.tree, &rev->repo, parent, f->path, add_size, &total, NULL) == 0)
			*ret_old = total.bytes;
		return "deleted";
	}
	if (f->kind == STAGE_DIR)
		return "renamed";
	if (held == 0 && ent.kind == HUB_ENTRY_FILE)
		return f->is_blob && hash_key_equal(&f->blob, &ent.key) ? NULL : "changed";
	return f->from ? "renamed" : "added";
}

static int tell_change(struct control_rev *slot, const struct found *f, const char *what, uint64_t old_size)
{
	struct control_change *change = control_append(&slot->changes, &slot->n_changes, sizeof(*change),
	                                               CONTROL_CHANGES_MAX);

	if (!change)
		return slot->n_changes >= CONTROL_CHANGES_MAX ? 1 : -ENOMEM;
	change->path = strdup(f->path);
	change->from = f->from && strcmp(what, "renamed") == 0 ? strdup(f->from) : NULL;
	change->state = strdup(what);
	change->folder = f->kind == STAGE_DIR;
	change->size = f->kind == STAGE_WHITEOUT ? 0 : f->size;
	change->old_size = old_size;
	return change->path && change->state ? 0 : -ENOMEM;
}

int control_diff(void *arg, struct rev *rev)
{
	struct control_work *w = arg;
	struct control *c = w->control;
	CLEANUP(diff_fini) struct diff d = {
		.top = w->scope->rev ? w->scope->path : "", .ignore = c->env.ignore,
	};
	struct control_rev *slot;
	char parent[41];
	int r;

	if (!control_in_scope(w->scope, rev) || !control_enter(c))
		return 0;
	r = view_hold(rev) ? 0 : -ENOENT;
	control_leave(c);
	if (r < 0)
		return 0; /* nothing was ever staged there */
	stage_parent(rev->stage, parent);
	r = stage_each(rev->stage, find_change, &d);
	view_release(rev);
	slot = control_append(&w->ans->revs, &w->ans->n_revs, sizeof(*slot), CONTROL_REVS_MAX);
	if (r < 0 || !slot)
		return r < 0 ? r : -ENOMEM;
	r = control_describe(c, rev, "/", slot); /* no path is below that: its changes come here */
	for (size_t i = 0; r == 0 && i < d.n; i++) {
		uint64_t old_size;
		const char *what = judge(c, rev, parent, &d, &d.found[i], &old_size);

		if (what)
			r = tell_change(slot, &d.found[i], what, old_size);
	}
	return MIN(r, 0);
}

/* -- refresh -- */

int control_refresh(void *arg, struct rev *rev)
{
	struct control_work *w = arg;
	struct control *c = w->control;
	struct control_rev *slot;
	struct hub_error err = {0};
	int r;

	if (!control_in_scope(w->scope, rev) || !control_enter(c))
		return 0;
	r = view_refresh(c->env.view, rev, &err);
	control_leave(c);
	slot = control_append(&w->ans->revs, &w->ans->n_revs, sizeof(*slot), CONTROL_REVS_MAX);
	if (!slot || control_describe(c, rev, "/", slot) < 0)
		return -ENOMEM;
	slot->error = -r;
	slot->error_text = strdup(err.text);
	return slot->error_text ? 0 : -ENOMEM;
}

/* -- log -- */

static int tell_commit(struct control_answer *ans, const struct hub_commit_info *info)
{
	struct control_item *item = control_append(&ans->items, &ans->n_items, sizeof(*item), CONTROL_ITEMS_MAX);

	if (!item)
		return -ENOMEM;
	item->id = strdup(info->id);
	item->author = strdup(info->author ? info->author : "");
	item->title = strdup(info->title ? info->title : "");
	item->date_s = info->date_s;
	return item->id && item->author && item->title ? 0 : -ENOMEM;
}

/* Do the commits differ at `path`? */
static int differs(struct control *c, struct rev *rev, const char *path, const char *a, const char *b)
{
	struct tree_entry ent[2] = {0};
	const char *at[] = {a, b};
	int has[2];

	for (int i = 0; i < 2; i++) {
		has[i] = at[i] ? tree_stat(c->env.tree, &rev->repo, at[i], path, true, &ent[i], NULL) : -ENOENT;
		if (has[i] < 0 && has[i] != -ENOENT && has[i] != -ENOTDIR)
			return has[i];
	}
	if (has[0] < 0 || has[1] < 0)
		return (has[0] < 0) != (has[1] < 0);
	return ent[0].kind != ent[1].kind || memcmp(ent[0].oid, ent[1].oid, sizeof(ent[0].oid)) != 0;
}

int control_log(struct control_work *w)
{
	struct control *c = w->control;
	CLEANUP(hub_commits_fini) struct hub_commits list = {0};
	struct rev *rev = w->scope->rev;
	struct hub_error err = {0};
	char ref[64];
	bool file;
	int r;

	if (!rev)
		return control_fail(w->ans, -EINVAL, "name a path in one revision");
	{
		LOCKED(&rev->lock);
		snprintf(ref, sizeof(ref), "%s", rev->ref[0] ? rev->ref : rev->commit);
	}
	file = w->scope->path[0] || rev->sub[0];
	/* One more than is told: the oldest is compared with the one before it. */
	r = hub_commits(c->env.hub, &rev->repo, ref[0] ? ref : rev->name,
	                (unsigned)MIN(w->req->limit, CONTROL_ITEMS_MAX - 1) + file, &list, &err);
	if (r < 0)
		return control_fail(w->ans, r, err.text);
	for (size_t i = 0; r == 0 && i < list.n; i++) {
		AUTO_FREE char *path = NULL;
		bool last = i + 1 == list.n;

		if (file) {
			path = util_printf("%s%s%s", rev->sub, rev->sub[0] && w->scope->path[0] ? "/" : "", w->scope->path);
			if (!path)
				return -ENOMEM;
			if (last && list.n > w->req->limit)
				break; /* what is before it is not known */
			r = differs(c, rev, path, list.commits[i].id, last ? NULL : list.commits[i + 1].id);
			if (r == 0)
				continue;
			r = MIN(r, 0);
		}
		if (r == 0)
			r = tell_commit(w->ans, &list.commits[i]);
	}
	return r;
}

/* -- tag -- */

int control_tag(struct control_work *w)
{
	struct control *c = w->control;
	struct rev *rev = w->scope->rev;
	struct control_rev *slot;
	struct hub_error err = {0};
	int r;

	if (!rev)
		return control_fail(w->ans, -EINVAL, "name a path in one revision: its head gets the tag");
	if (!control_enter(c))
		return control_fail(w->ans, -ENOTCONN, "it is unmounted already");
	r = view_refresh(c->env.view, rev, &err);
	control_leave(c);
	if (r < 0)
		return control_fail(w->ans, r, err.text);
	slot = control_append(&w->ans->revs, &w->ans->n_revs, sizeof(*slot), CONTROL_REVS_MAX);
	if (!slot || control_describe(c, rev, "/", slot) < 0)
		return -ENOMEM;
	r = hub_tag(c->env.hub, &rev->repo, slot->head, w->req->title, w->req->description, &err);
	if (r == -EEXIST)
		return control_fail(w->ans, r, "there is a tag of that name already: nothing here moves or deletes one");
	if (r < 0)
		return control_fail(w->ans, r, err.text);
	tree_forget_head(c->env.tree, &rev->repo, "main"); /* with all refs */
	return 0;
}
