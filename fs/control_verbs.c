/* control_verbs: what each request of the control socket does: calls of view and publish, and their outcome in the answer.
 *
 * Not for the socket (control.c), nor for what is said on it (control_wire.c). The thread of a connection; several at once. */
#define LOG_MODULE "control"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "control_internal.h"
#include "log.h"

#define BUSY_TEXT "a transaction (hugfs run) is under way there: try again when it has ended"
#define HELD_TEXT "a transaction that did not end is held there: `hugfs commit` publishes it, `hugfs discard` takes it back"
#define GONE_WAIT_MS 2000 /* from the kernel's unmount until the session's loop has noticed */

static const char *state_name(const struct stage_attr *attr, const struct ignore *ignore, const char *path)
{
	static const char *const names[] = {
		[STAGE_CLEAN] = "moved",
		[STAGE_STAGED] = "staged",
		[STAGE_OPEN] = "open",
		[STAGE_COMMITTING] = "committing",
		[STAGE_INTERRUPTED] = "interrupted",
		[STAGE_CONFLICT] = "conflict",
	};

	if (attr->state == STAGE_CONFLICT)
		return "conflict";
	if (attr->kind == STAGE_WHITEOUT)
		return "deleted";
	if (attr->kind == STAGE_DIR && attr->state == STAGE_CLEAN)
		return "staged"; /* new, or moved: it counts for the names below it */
	if (attr->state == STAGE_STAGED && ignore && ignore_match(ignore, path, attr->kind == STAGE_DIR))
		return "local";
	return names[attr->state];
}

struct listing {
	struct control_rev *rev;
	const struct ignore *ignore;
	const char *top; /* only what lies there or below; "" is everything */
};

/* Under the stage's lock. */
static int add_change(void *arg, const char *path, const struct stage_attr *attr)
{
	struct listing *l = arg;
	struct control_change *change;
	size_t n = strlen(l->top);

	if (n > 0 && (strncmp(path, l->top, n) != 0 || (path[n] && path[n] != '/')))
		return 0;
	if (l->rev->n_changes >= CONTROL_CHANGES_MAX)
		return 1;
	change = control_append(&l->rev->changes, &l->rev->n_changes, sizeof(*change), CONTROL_CHANGES_MAX);
	if (!change)
		return -ENOMEM;
	change->path = strdup(path);
	change->state = strdup(state_name(attr, l->ignore, path));
	change->folder = attr->kind == STAGE_DIR;
	change->size = attr->kind == STAGE_FILE ? attr->size : 0;
	return change->path && change->state ? 0 : -ENOMEM;
}

static int describe_stage(struct control *c, struct rev *rev, struct publish *p, const char *top,
                          struct control_rev *ret)
{
	static const char *const phases[] = {
		[PUBLISH_IDLE] = "idle",
		[PUBLISH_WAITING] = "waiting",
		[PUBLISH_UPLOADING] = "uploading",
		[PUBLISH_COMMITTING] = "committing",
		[PUBLISH_FAILED] = "failed",
	};
	static const char *const transactions[] = {
		[STAGE_TX_NONE] = "", [STAGE_TX_RUNNING] = "running", [STAGE_TX_HELD] = "held",
	};
	struct listing l = {ret, c->env.ignore, top};
	struct publish_status status = {0};
	struct stage_counts counts = {0};
	int r;

	publish_status(p, &status);
	stage_counts(rev->stage, &counts);
	ret->files = counts.files;
	ret->deletions = counts.deletions;
	ret->open = counts.open;
	ret->interrupted = counts.interrupted;
	ret->conflicts = counts.conflicts;
	ret->bytes = counts.bytes;
	ret->transaction = strdup(transactions[status.tx]);
	ret->phase = strdup(phases[status.phase]);
	ret->next_ms = status.next_ms ? MAX(status.next_ms - util_now_ms(), 0) : -1;
	ret->sent = status.sent;
	ret->to_send = status.to_send;
	ret->last_commit = strdup(status.last_commit);
	if (status.pr_url[0]) {
		free(ret->pr_url);
		ret->pr_url = strdup(status.pr_url);
	}
	ret->last_error = status.last_err < 0 ? -status.last_err : status.last_err;
	ret->last_text = strdup(status.last_text);
	r = stage_each(rev->stage, add_change, &l);
	if (r < 0)
		return r;
	return ret->phase && ret->last_commit && ret->last_text ? 0 : -ENOMEM;
}

int control_describe(struct control *c, struct rev *rev, const char *top, struct control_rev *ret)
{
	bool may = control_enter(c);
	struct publish *p = may ? view_hold(rev) : NULL;
	char repo[REPO_TEXT_MAX];
	int r = 0;

	repo_text(&rev->repo, repo);
	ret->repo = strdup(repo);
	ret->revision = strdup(rev->name);
	ret->writable = rev->writable;
	{
		LOCKED(&rev->lock);
		ret->head = strdup(rev->commit);
		if (rev->ref[0]) /* refs/pr/N */
			ret->pr_url = util_printf("%s/%s/discussions/%s", c->env.endpoint, repo,
			                          strrchr(rev->ref, '/') + 1);
	}
	if (p) {
		r = describe_stage(c, rev, p, top, ret);
		view_release(rev);
	} else {
		ret->phase = strdup(may ? "idle" : "unmounted");
		ret->next_ms = -1;
	}
	if (may)
		control_leave(c);
	if (r == 0 && (!ret->repo || !ret->revision || !ret->head || !ret->phase))
		r = -ENOMEM;
	return r;
}

static int find_scope(struct control *c, const char *path, struct control_scope *ret)
{
	struct repo_source source = {0};
	char repo[REPO_TEXT_MAX];
	const char *why;
	int r = view_resolve(c->env.view, path, &ret->rev, &ret->path);

	if (r < 0 || ret->rev)
		return r;
	util_freep(&ret->path);
	r = repo_parse_source(c->env.source, &source, &why);
	if (r < 0)
		return r;
	repo_text(&source.id, repo);
	switch (source.kind) {
	case REPO_SOURCE_HUB:
		ret->path = strdup(path);
		break;
	case REPO_SOURCE_TYPE:
		ret->path = util_printf("%s%s", repo_type_prefix(source.id.type), path);
		break;
	case REPO_SOURCE_NAMESPACE:
	case REPO_SOURCE_WORD:
		ret->path = util_printf("%s%s%s%s", repo_type_prefix(source.id.type), source.id.ns,
		                        *path ? "/" : "", path);
		break;
	case REPO_SOURCE_REPO:
		ret->path = util_printf("%s@%s%s", repo, *path ? "/" : "", path);
		break;
	}
	repo_source_fini(&source);
	return ret->path ? 0 : -ENOMEM;
}

bool control_in_scope(const struct control_scope *scope, struct rev *rev)
{
	AUTO_FREE char *name = NULL;
	char repo[REPO_TEXT_MAX];
	size_t n;

	if (scope->rev)
		return scope->rev == rev;
	repo_text(&rev->repo, repo);
	name = util_printf("%s@/%s", repo, rev->name);
	for (n = strlen(scope->path); n > 0 && scope->path[n - 1] == '/';)
		n--;
	return name && strncmp(name, scope->path, n) == 0 && (n == 0 || name[n] == '/');
}

static int work_status(void *arg, struct rev *rev)
{
	struct control_work *w = arg;
	struct control_rev *slot;

	if (!control_in_scope(w->scope, rev))
		return 0;
	slot = control_append(&w->ans->revs, &w->ans->n_revs, sizeof(*slot), CONTROL_REVS_MAX);
	return slot ? control_describe(w->control, rev, w->scope->rev ? w->scope->path : "", slot) : -ENOMEM;
}

/* 0, or what publish_commit says; its publisher may be freed while it waits. -ENOENT: nothing was ever
 * staged there. */
static int publish_one(struct control *c, struct rev *rev, const struct control_work *w, struct publish_answer *ret)
{
	static const char *const ways[] = {
		[COMMIT_KEEP] = "keep", [COMMIT_PR] = "pr", [COMMIT_OURS] = "ours",
	};
	struct publish_ask ask = {
		.title = w->req->title,
		.description = w->req->description,
		.interrupted = w->req->interrupted,
		.may_empty = w->req->verb == CONTROL_COMMIT,
		.ends = w->req->verb == CONTROL_END,
		.held = w->req->verb == CONTROL_COMMIT,
		.pr = w->req->pr,
	};
	struct publish *p;
	int r;

	for (size_t i = 0; w->req->on_conflict && i < ARRAY_LEN(ways); i++) {
		if (strcmp(w->req->on_conflict, ways[i]) != 0)
			continue;
		ask.resolve = true;
		ask.on_conflict = (enum commit_on_conflict)i;
	}
	if (!control_enter(c))
		return -ECANCELED;
	p = view_hold(rev);
	control_leave(c);
	if (!p)
		return -ENOENT;
	r = publish_commit(p, &ask, w->deadline_ms ? MAX(w->deadline_ms - util_now_ms(), 1) : 0, ret);
	view_release(rev);
	return r;
}

/* Publishes one revision, and tells what came of it and what stays. */
static int work_publish(void *arg, struct rev *rev)
{
	struct control_work *w = arg;
	struct publish_answer came = {0};
	struct control_rev *slot;
	int r;

	if (!control_in_scope(w->scope, rev))
		return 0;
	r = publish_one(w->control, rev, w, &came);
	if (r == -ENOENT)
		return 0;
	slot = control_append(&w->ans->revs, &w->ans->n_revs, sizeof(*slot), CONTROL_REVS_MAX);
	if (!slot || control_describe(w->control, rev, "", slot) < 0) {
		publish_answer_fini(&came);
		return -ENOMEM;
	}
	if (r == 0)
		r = came.err;
	slot->error = r < 0 ? -r : r;
	slot->error_text = strdup(r != -EBUSY || came.text[0] ? came.text
	                          : strcmp(slot->transaction ? slot->transaction : "", "held") == 0 ? HELD_TEXT : BUSY_TEXT);
	slot->commit = strdup(came.commit);
	slot->url = came.pr_url ? STEAL(came.pr_url) : STEAL(came.url);
	slot->left_out = came.left_out;
	publish_answer_fini(&came);
	return slot->error_text && slot->commit ? 0 : -ENOMEM;
}

int control_fail(struct control_answer *ans, int err, const char *text)
{
	free(ans->error_text);
	ans->error = -err;
	ans->error_text = strdup(text);
	return 0;
}

static int do_discard(struct control *c, const struct control_scope *scope, struct control_answer *ans)
{
	struct publish *p;
	int r;

	if (!scope->rev)
		return control_fail(ans, -EINVAL, "name a path in one revision: nothing was thrown away");
	if (!control_enter(c))
		return control_fail(ans, -ENOTCONN, "it is unmounted already");
	p = view_hold(scope->rev);
	if (p)
		publish_calm(p);
	r = view_discard(c->env.view, scope->rev, scope->path);
	if (p) {
		publish_tx_ended(p);
		view_release(scope->rev);
	}
	control_leave(c);
	if (r == -EPERM)
		return control_fail(ans, r, "a transaction that did not end is held there, and goes back as a whole: name the "
		                    "revision's folder");
	if (r == -EBUSY)
		return control_fail(ans, r, "a commit or a transaction is under way: try again when it is done");
	if (r < 0 && r != -ENOENT)
		return control_fail(ans, r, strerror(-r));
	return 0;
}

/* -- transactions -- */

/* Makes the revision one that can be written, with its publisher held. */
static int hold_for_writing(struct control *c, struct rev *rev, struct publish **ret)
{
	int r;

	do {
		struct view_need need = {0};

		r = view_may_write_rev(c->env.view, rev, &need);
		if (r == -EAGAIN && need.what != VIEW_NEED_NONE)
			r = view_satisfy(c->env.view, &need) ?: -EAGAIN;
		view_need_fini(&need);
	} while (r == -EAGAIN);
	if (r < 0)
		return r;
	*ret = view_hold(rev);
	return *ret ? 0 : -EAGAIN; /* it was given back just now */
}

static int do_begin(struct control *c, const struct control_scope *scope, struct control_answer *ans)
{
	struct publish_answer came = {0};
	struct publish_status status;
	struct publish *p = NULL;
	int r;

	if (!scope->rev)
		return control_fail(ans, -EINVAL, "name a path in one revision: a transaction belongs to one");
	if (!control_enter(c))
		return control_fail(ans, -ENOTCONN, "it is unmounted already");
	do
		r = hold_for_writing(c, scope->rev, &p);
	while (r == -EAGAIN);
	control_leave(c);
	if (r < 0)
		return control_fail(ans, r, r == -EROFS ? "it is read-only" : strerror(-r));
	publish_status(p, &status);
	r = status.tx == STAGE_TX_NONE ? publish_tx_begin(p, &came, &ans->transaction) : -EBUSY;
	view_release(scope->rev);
	if (r == -EBUSY)
		control_fail(ans, r, status.tx == STAGE_TX_HELD ? HELD_TEXT : BUSY_TEXT);
	else if (r < 0)
		control_fail(ans, r, strerror(-r));
	else if (came.err < 0)
		control_fail(ans, came.err, came.text);
	publish_answer_fini(&came);
	return 0;
}

void control_hold(struct control *c, const struct control_request *req, uint64_t transaction)
{
	struct control_scope scope = {0};
	struct publish *p;

	if (find_scope(c, req->path, &scope) < 0)
		return;
	free(scope.path);
	if (!scope.rev || !control_enter(c))
		return; /* the next mount finds it running, and holds it */
	p = view_hold(scope.rev);
	control_leave(c);
	if (!p)
		return;
	if (publish_tx_hold(p, transaction) < 0)
		log_err("a transaction cannot be held: the next mount does");
	view_release(scope.rev);
}

static int do_end(struct control *c, struct control_work *w)
{
	const char *outcome = w->req->outcome ? w->req->outcome : "";
	char all[] = "";
	const struct control_scope whole = {.rev = w->scope->rev, .path = all};

	if (!w->scope->rev)
		return control_fail(w->ans, -EINVAL, "name a path in one revision");
	if (strcmp(outcome, "commit") == 0)
		return view_each_rev(c->env.view, work_publish, w);
	control_hold(c, w->req, 0);
	if (strcmp(outcome, "discard") == 0)
		return do_discard(c, &whole, w->ans);
	return view_each_rev(c->env.view, work_status, w);
}

static int do_umount(struct control *c, struct control_work *w)
{
	int r;

	w->deadline_ms = util_now_ms() + c->env.opts->umount_timeout_ms;
	if (c->env.opts->commit == OPTS_COMMIT_MANUAL)
		r = view_each_rev(c->env.view, work_status, w);
	else
		r = view_each_rev(c->env.view, work_publish, w);
	if (r < 0)
		return r;
	{
		LOCKED(&c->lock);
		c->unmounted = true; /* before the loop can end and ask */
	}
	r = control_detach(c->env.mountpoint, false);
	if (r == 0)
		return 0;
	{
		LOCKED(&c->lock);
		c->unmounted = false;
	}
	if (r == -EBUSY)
		return control_fail(w->ans, r, "files are open in it");
	return control_fail(w->ans, r, strerror(-r));
}

static bool is_mounted(const char *mountpoint)
{
	struct control_mount m = {0};
	bool same = control_find(mountpoint, &m) == 0 && strcmp(m.mountpoint, mountpoint) == 0;

	control_mount_fini(&m);
	return same;
}

/* The kernel has taken the mount away, and we know it. */
static bool wait_draining(struct control *c)
{
	int64_t until = util_now_ms() + GONE_WAIT_MS;

	if (!control_is_draining(c) && is_mounted(c->env.mountpoint))
		return false;
	LOCKED(&c->lock);
	while (!c->draining && util_now_ms() < until)
		cond_wait_ms(&c->changed, &c->lock, until - util_now_ms());
	return c->draining;
}

static int holds_repo(void *arg, struct rev *rev)
{
	const char *want = arg;
	char repo[REPO_TEXT_MAX];

	repo_text(&rev->repo, repo);
	if (*want && strcasecmp(want, repo) != 0) /* the Hub takes any case, and answers with its own */
		return 0;
	LOCKED(&rev->lock);
	return rev->stage != NULL;
}

static int do_yield(struct control *c, const struct control_request *req, struct control_answer *ans)
{
	uint64_t one = 1;

	if (!req->endpoint || strcmp(req->endpoint, c->env.endpoint) != 0)
		return control_fail(ans, -ENOENT, "another Hub");
	if (!wait_draining(c))
		return control_fail(ans, -EBUSY, "it is mounted");
	if (view_each_rev(c->env.view, holds_repo, req->path) <= 0)
		return control_fail(ans, -ENOENT, "another repository");
	log_info("another mount takes over");
	return util_write_all(c->env.stop_fd, &one, sizeof(one));
}

static int dispatch(struct control *c, const struct control_request *req, struct control_answer *ans)
{
	struct control_scope scope = {0};
	struct control_work w = {c, req, ans, &scope, 0};
	int r;

	if (req->verb == CONTROL_YIELD)
		return do_yield(c, req, ans);
	if (req->verb != CONTROL_STATUS && control_is_draining(c))
		return control_fail(ans, -ENOTCONN, "it is unmounted already");
	r = find_scope(c, req->path, &scope);
	if (r < 0)
		return control_fail(ans, r, r == -ENOENT ? "there is no such path" : strerror(-r));
	switch (req->verb) {
	case CONTROL_STATUS:
		r = view_each_rev(c->env.view, work_status, &w);
		break;
	case CONTROL_COMMIT:
		r = view_each_rev(c->env.view, work_publish, &w);
		break;
	case CONTROL_DISCARD:
		r = do_discard(c, &scope, ans);
		break;
	case CONTROL_UMOUNT:
		r = do_umount(c, &w);
		break;
	case CONTROL_DIFF:
		r = view_each_rev(c->env.view, control_diff, &w);
		break;
	case CONTROL_LOG:
		r = control_log(&w);
		break;
	case CONTROL_TAG:
		r = control_tag(&w);
		break;
	case CONTROL_REFRESH:
		r = view_each_rev(c->env.view, control_refresh, &w);
		break;
	case CONTROL_BEGIN:
		r = do_begin(c, &scope, ans);
		break;
	case CONTROL_END:
		r = do_end(c, &w);
		break;
	default:
		r = control_fail(ans, -EINVAL, "the daemon is of another version of hugfs and does not know this");
		break;
	}
	free(scope.path);
	return r;
}

void control_answer_to(struct control *c, const struct control_request *req, struct control_answer *ans)
{
	struct blocks_stats stats = {0};
	int r;

	ans->pid = (uint64_t)getpid();
	ans->source = strdup(c->env.source);
	ans->mountpoint = strdup(c->env.mountpoint);
	ans->endpoint = strdup(c->env.endpoint);
	ans->read_only = c->env.opts->read_only;
	ans->unmounted = control_is_draining(c);
	ans->parked = ops_parked(c->env.ops);
	if (c->env.blocks)
		blocks_stats(c->env.blocks, &stats);
	ans->cache_bytes = stats.bytes;
	ans->cache_max = stats.max_bytes;
	ans->cache_objects = stats.objects;
	r = dispatch(c, req, ans);
	if (r < 0)
		control_fail(ans, r, strerror(-r));
}

/* One connection. True: it shall stay open until the process ends. */
