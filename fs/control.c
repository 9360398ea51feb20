/* control: how the verbs of cli and the daemons of a user talk: a Unix socket, one request and one answer
 * a connection. Here is the daemon's end.
 *
 * Not for deciding anything: requests become calls of view and publish. Not for what people read: cli
 * makes that from the answer.
 *
 * Threads: one accepts, one for each connection (a commit may take minutes, and status must answer
 * meanwhile).
 *
 *     running --control_drain--> draining --control_stop--> stopped --control_free
 *     all verbs but yield        status, yield              nobody answers, but the socket is there
 */
#define LOG_MODULE "control"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <unistd.h>

#include "control_internal.h"
#include "lock.h"
#include "log.h"

#define CONNECTIONS_MAX 32
#define PEER_TIMEOUT_S 5  /* a peer that stopped in the middle of a message */
#define GONE_WAIT_MS 2000 /* from the kernel's unmount until the session's loop has noticed */

/* -- the daemon's end -- */

struct control {
	struct control_env env;
	char *path;
	int listen_fd;
	int wake_fd;
	pthread_t thread;
	struct lock lock;
	struct cond changed;
	/* -- guarded by lock -- */
	unsigned active;   /* connections */
	unsigned touching; /* of these, how many use publishers now, those that wait for a commit apart */
	bool draining;
	bool unmounted; /* by us, after publishing */
	int fds[CONNECTIONS_MAX]; /* of the active ones; -1: free */
};

struct connection {
	struct control *control;
	int fd;
	unsigned slot;
};

/* The peer's uid is ours, root's, or (we are root) whoever we came for. */
static bool peer_is(int fd, uid_t uid)
{
	struct ucred cred;
	socklen_t len = sizeof(cred);

	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &len) < 0)
		return false;
	return cred.uid == uid || cred.uid == 0;
}

static bool is_draining(struct control *c)
{
	LOCKED(&c->lock);
	return c->draining;
}

/* The publishers of the mount may be used until leave(); not any more when it is unmounted. */
static bool enter(struct control *c)
{
	LOCKED(&c->lock);
	if (c->draining)
		return false;
	c->touching++;
	return true;
}

static void leave(struct control *c)
{
	LOCKED(&c->lock);
	c->touching--;
	cond_broadcast(&c->changed);
}

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

/* top: the path below it whose changes are told. */
static int describe(struct control *c, struct rev *rev, const char *top, struct control_rev *ret)
{
	bool may = enter(c);
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
		leave(c);
	if (r == 0 && (!ret->repo || !ret->revision || !ret->head || !ret->phase))
		r = -ENOMEM;
	return r;
}

/* What a request is about: one revision and a path in it, or all revisions at and below a folder above
 * them. */
struct scope {
	struct rev *rev; /* NULL: several */
	char *path;      /* below rev; else what the folder is called from hf://, as "user/repo@/refs" */
};

static int find_scope(struct control *c, const char *path, struct scope *ret)
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

static bool in_scope(const struct scope *scope, struct rev *rev)
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

struct work {
	struct control *control;
	const struct control_request *req;
	struct control_answer *ans;
	const struct scope *scope;
	int64_t deadline_ms; /* UMOUNT; 0: none */
};

static int work_status(void *arg, struct rev *rev)
{
	struct work *w = arg;
	struct control_rev *slot;

	if (!in_scope(w->scope, rev))
		return 0;
	slot = control_append(&w->ans->revs, &w->ans->n_revs, sizeof(*slot), CONTROL_REVS_MAX);
	return slot ? describe(w->control, rev, w->scope->rev ? w->scope->path : "", slot) : -ENOMEM;
}

/* 0, or what publish_commit says; its publisher may be freed while it waits. -ENOENT: nothing was ever
 * staged there. */
static int publish_one(struct control *c, struct rev *rev, const struct work *w, struct publish_answer *ret)
{
	static const char *const ways[] = {
		[COMMIT_KEEP] = "keep", [COMMIT_PR] = "pr", [COMMIT_OURS] = "ours",
	};
	struct publish_ask ask = {
		.title = w->req->title,
		.description = w->req->description,
		.interrupted = w->req->interrupted,
		.may_empty = w->req->verb == CONTROL_COMMIT,
	};
	struct publish *p;
	int r;

	for (size_t i = 0; w->req->on_conflict && i < ARRAY_LEN(ways); i++) {
		if (strcmp(w->req->on_conflict, ways[i]) != 0)
			continue;
		ask.resolve = true;
		ask.on_conflict = (enum commit_on_conflict)i;
	}
	if (!enter(c))
		return -ECANCELED;
	p = view_hold(rev);
	leave(c);
	if (!p)
		return -ENOENT;
	r = publish_commit(p, &ask, w->deadline_ms ? MAX(w->deadline_ms - util_now_ms(), 1) : 0, ret);
	view_release(rev);
	return r;
}

/* Publishes one revision, and tells what came of it and what stays. */
static int work_publish(void *arg, struct rev *rev)
{
	struct work *w = arg;
	struct publish_answer came = {0};
	struct control_rev *slot;
	int r;

	if (!in_scope(w->scope, rev))
		return 0;
	r = publish_one(w->control, rev, w, &came);
	if (r == -ENOENT)
		return 0;
	slot = control_append(&w->ans->revs, &w->ans->n_revs, sizeof(*slot), CONTROL_REVS_MAX);
	if (!slot || describe(w->control, rev, "", slot) < 0) {
		publish_answer_fini(&came);
		return -ENOMEM;
	}
	if (r == 0)
		r = came.err;
	slot->error = r < 0 ? -r : r;
	slot->error_text = strdup(came.text);
	slot->commit = strdup(came.commit);
	slot->url = came.pr_url ? STEAL(came.pr_url) : STEAL(came.url);
	slot->left_out = came.left_out;
	publish_answer_fini(&came);
	return slot->error_text && slot->commit ? 0 : -ENOMEM;
}

static int fail(struct control_answer *ans, int err, const char *text)
{
	free(ans->error_text);
	ans->error = -err;
	ans->error_text = strdup(text);
	return 0;
}

static int do_discard(struct control *c, const struct scope *scope, struct control_answer *ans)
{
	int r;

	if (!scope->rev)
		return fail(ans, -EINVAL, "name a path in one revision: nothing was thrown away");
	if (!enter(c))
		return fail(ans, -ENOTCONN, "it is unmounted already");
	r = view_discard(c->env.view, scope->rev, scope->path);
	leave(c);
	if (r == -EBUSY)
		return fail(ans, r, "a commit is under way: try again when it is done");
	if (r < 0 && r != -ENOENT)
		return fail(ans, r, strerror(-r));
	return 0;
}

static int do_umount(struct control *c, struct work *w)
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
		return fail(w->ans, r, "files are open in it");
	return fail(w->ans, r, strerror(-r));
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

	if (!is_draining(c) && is_mounted(c->env.mountpoint))
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
		return fail(ans, -ENOENT, "another Hub");
	if (!wait_draining(c))
		return fail(ans, -EBUSY, "it is mounted");
	if (view_each_rev(c->env.view, holds_repo, req->path) <= 0)
		return fail(ans, -ENOENT, "another repository");
	log_info("another mount takes over");
	return util_write_all(c->env.stop_fd, &one, sizeof(one));
}

static int dispatch(struct control *c, const struct control_request *req, struct control_answer *ans)
{
	struct scope scope = {0};
	struct work w = {c, req, ans, &scope, 0};
	int r;

	if (req->verb == CONTROL_YIELD)
		return do_yield(c, req, ans);
	if (req->verb != CONTROL_STATUS && is_draining(c))
		return fail(ans, -ENOTCONN, "it is unmounted already");
	r = find_scope(c, req->path, &scope);
	if (r < 0)
		return fail(ans, r, r == -ENOENT ? "there is no such path" : strerror(-r));
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
	default:
		r = fail(ans, -EINVAL, "the daemon is of another version of hugfs and does not know this");
		break;
	}
	free(scope.path);
	return r;
}

static int answer(struct control *c, const struct control_request *req, struct control_answer *ans)
{
	struct blocks_stats stats = {0};

	ans->pid = (uint64_t)getpid();
	ans->source = strdup(c->env.source);
	ans->mountpoint = strdup(c->env.mountpoint);
	ans->endpoint = strdup(c->env.endpoint);
	ans->read_only = c->env.opts->read_only;
	ans->unmounted = is_draining(c);
	ans->parked = ops_parked(c->env.ops);
	if (c->env.blocks)
		blocks_stats(c->env.blocks, &stats);
	ans->cache_bytes = stats.bytes;
	ans->cache_max = stats.max_bytes;
	ans->cache_objects = stats.objects;
	return dispatch(c, req, ans);
}

/* One connection. True: it shall stay open until the process ends. */
static bool talk(struct control *c, int fd)
{
	struct control_request req = {0};
	struct control_answer ans = {0};
	bool stays = false;
	int r = control_recv_request(fd, &req);

	if (r == 0) {
		r = answer(c, &req, &ans);
		if (r < 0)
			fail(&ans, r, strerror(-r));
		r = control_send_answer(fd, &ans);
		stays = (req.verb == CONTROL_UMOUNT || req.verb == CONTROL_YIELD) && ans.error == 0;
	}
	if (r < 0)
		log_debug("a request came to nothing: %s", strerror(-r));
	control_request_fini(&req);
	control_answer_fini(&ans);
	return stays;
}

static void *connection_main(void *arg)
{
	struct connection *conn = arg;
	struct control *c = conn->control;
	bool stays = talk(c, conn->fd);

	LOCKED(&c->lock);
	if (!stays)
		close(conn->fd);
	c->fds[conn->slot] = -1;
	c->active--;
	cond_broadcast(&c->changed);
	free(conn);
	return NULL;
}

static struct connection *take_slot(struct control *c, int fd)
{
	struct connection *conn = malloc(sizeof(*conn));

	if (!conn)
		return NULL;
	LOCKED(&c->lock);
	for (unsigned i = 0; i < CONNECTIONS_MAX; i++) {
		if (c->fds[i] >= 0)
			continue;
		c->fds[i] = fd;
		c->active++;
		*conn = (struct connection){c, fd, i};
		return conn;
	}
	free(conn);
	return NULL;
}

static void drop_slot(struct connection *conn)
{
	struct control *c = conn->control;

	LOCKED(&c->lock);
	c->fds[conn->slot] = -1;
	c->active--;
	free(conn);
}

static void accept_one(struct control *c)
{
	const struct timeval limit = {.tv_sec = PEER_TIMEOUT_S};
	struct connection *conn;
	pthread_attr_t attr;
	pthread_t thread;
	int fd = accept4(c->listen_fd, NULL, NULL, SOCK_CLOEXEC);

	if (fd < 0)
		return;
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
	conn = peer_is(fd, geteuid()) ? take_slot(c, fd) : NULL;
	if (!conn) {
		close(fd);
		return;
	}
	pthread_attr_init(&attr);
	pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	if (pthread_create(&thread, &attr, connection_main, conn) != 0) {
		drop_slot(conn);
		close(fd);
	}
	pthread_attr_destroy(&attr);
}

static void *accept_main(void *arg)
{
	struct control *c = arg;
	struct pollfd fds[] = {{.fd = c->listen_fd, .events = POLLIN}, {.fd = c->wake_fd, .events = POLLIN}};

	while (!fds[1].revents) {
		if (poll(fds, ARRAY_LEN(fds), -1) < 0)
			continue;
		if (fds[0].revents)
			accept_one(c);
	}
	return NULL;
}

/* The socket gets its name when somebody listens: one that refuses counts as dead, and is removed. */
static int listen_at(struct control *c)
{
	AUTO_FREE char *making = util_printf("%s.new", c->path);
	struct sockaddr_un addr;
	int r = making ? control_address(making, &addr) : -ENOMEM;

	if (r < 0)
		return r;
	c->listen_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (c->listen_fd < 0)
		return -errno;
	if (unlink(making) < 0 && errno != ENOENT) /* of a daemon of this pid that was killed */
		return -errno;
	if (bind(c->listen_fd, (struct sockaddr *)&addr, sizeof(addr)) < 0 || chmod(making, 0600) < 0 ||
	    listen(c->listen_fd, CONNECTIONS_MAX) < 0 || rename(making, c->path) < 0)
		return -errno;
	return 0;
}

static int start(struct control *c)
{
	AUTO_FREE char *dir = NULL;
	int r = control_make_folder(&dir);

	if (r < 0)
		return r;
	c->path = util_printf("%s/%016llx-%d.sock", dir, control_name_hash(c->env.mountpoint), (int)getpid());
	if (!c->path)
		return -ENOMEM;
	r = listen_at(c);
	if (r < 0) {
		log_err("the control socket %s cannot be made: %s", c->path, strerror(-r));
		return r;
	}
	c->wake_fd = eventfd(0, EFD_CLOEXEC);
	if (c->wake_fd < 0)
		return -errno;
	r = pthread_create(&c->thread, NULL, accept_main, c);
	return -r;
}

static void destroy(struct control *c)
{
	if (c->listen_fd >= 0) {
		unlink(c->path);
		close(c->listen_fd);
	}
	if (c->wake_fd >= 0)
		close(c->wake_fd);
	cond_fini(&c->changed);
	lock_fini(&c->lock);
	free(c->path);
	free(c);
}

int control_new(const struct control_env *env, struct control **ret)
{
	struct control *c = calloc(1, sizeof(*c));
	int r;

	if (!c)
		return -ENOMEM;
	c->env = *env;
	c->listen_fd = c->wake_fd = -1;
	for (size_t i = 0; i < CONNECTIONS_MAX; i++)
		c->fds[i] = -1;
	lock_init(&c->lock, LOCK_CONTROL);
	cond_init(&c->changed);
	r = start(c);
	if (r < 0) {
		destroy(c);
		return r;
	}
	*ret = c;
	return 0;
}

void control_drain(struct control *c)
{
	LOCKED(&c->lock);
	c->draining = true;
	cond_broadcast(&c->changed);
	while (c->touching > 0)
		cond_wait(&c->changed, &c->lock);
}

bool control_unmounted(struct control *c)
{
	LOCKED(&c->lock);
	return c->unmounted;
}

void control_stop(struct control *c)
{
	uint64_t one = 1;

	if (util_write_all(c->wake_fd, &one, sizeof(one)) < 0)
		log_err("the control thread cannot be woken");
	pthread_join(c->thread, NULL);
	LOCKED(&c->lock);
	for (size_t i = 0; i < CONNECTIONS_MAX; i++) {
		if (c->fds[i] >= 0)
			shutdown(c->fds[i], SHUT_RD);
	}
	while (c->active > 0)
		cond_wait(&c->changed, &c->lock);
}

void control_unlink(struct control *c)
{
	unlink(c->path);
}

void control_free(struct control *c)
{
	if (c)
		destroy(c);
}
