/* ops: the table of requests, and those that wait.
 *
 * Not for: what a name means (view) or where bytes lie (stage, fetch): a request is decoded, one call is made, one reply is
 * sent. This is the one place that flips the sign of an errno.
 *
 * Threads: libfuse's, which run a request at once and never wait for the network; `workers` threads that satisfy needs of
 * names and run the request again; transfer workers (fetch) and publishers, which do the same when their part is done; one
 * thread that answers interrupted requests; one that reads /proc.
 *
 *   state        who moves it                     to
 *   STARTING     start_need                       PARKED, or RUNNING when ops stops: then it replies
 *   PARKED       whoever completes the need       RUNNING, then a reply, or STARTING again with another need
 *   PARKED       the kernel's INTERRUPT, stop     ANSWERED: EINTR is sent, the completion finds nothing to do
 *   STARTING     the kernel's INTERRUPT           ANSWERED
 *
 * References of a parked call: one of the need that is under way, one of the answer that is queued. An interrupt's
 * call-back must not reply itself: libfuse holds the request's lock around it.
 */
#define LOG_MODULE "ops"

#include "ops_internal.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "log.h"

#define WORKERS 4
#define BACKGROUND_MAX 4096 /* reads that the kernel lets wait at once; it bounds what ordinary users may ask for */
#define MAX_ROUNDS 64     /* needs of one request: a read of a much edited file has many gaps */
#define ROOM ((uint64_t)64 << 20) /* that the cache gives up at once for who writes */
#define KILLED_WAIT_MS 20 /* an exec blocks readers of /proc/PID until its FLUSH is answered */

enum { STARTING, PARKED, RUNNING, ANSWERED };

struct ops {
	struct ops_env env;
	_Atomic(struct view *) view;
	struct ops_wire wire;
	pthread_t *threads;
	unsigned n_threads;
	pthread_t answerer, prober;
	bool has_answerer, has_prober;
	struct lock lock; /* LOCK_OPS */
	struct cond work, answer, probe, probed, idle;
	/* -- guarded by lock -- */
	bool stop, stop_answers;
	struct call *queue, **queue_end;
	struct call *answers;
	struct call *parked; /* all that wait */
	unsigned n_parked;
	struct handle *handles;
	struct {
		pid_t pid;        /* 0: idle */
		uint64_t asked, done;
		bool killed;
	} proc;
};

struct view *ops_view(struct ops *o)
{
	return atomic_load(&o->view);
}

const struct ops_env *ops_env(struct ops *o)
{
	return &o->env;
}

struct ops_wire *ops_wire(struct ops *o)
{
	return &o->wire;
}

struct ops *ops_of(fuse_req_t req)
{
	return fuse_req_userdata(req);
}

struct held_inode ops_hold(struct call *c, fuse_ino_t ino)
{
	struct view *v = ops_view(c->ops);
	return (struct held_inode){v, view_get(v, ino)};
}

void ops_putp(struct held_inode *h)
{
	view_put(h->view, h->inode, 1);
}

int ops_entry(struct ops *o, struct inode *dir, struct inode *inode, struct fuse_entry_param *ret)
{
	struct fuse_entry_param e = {.ino = inode->id, .generation = 1};
	int r = view_stat(ops_view(o), inode, &e.attr, &e.attr_timeout);
	if (r < 0)
		return r;
	e.entry_timeout = view_entry_timeout(ops_view(o), dir);
	*ret = e;
	return 0;
}

/* -- parked requests -- */

static void reply_err(struct call *c, int r)
{
	fuse_reply_err(c->req, -r);
}

static void call_unref(struct call *c)
{
	if (atomic_fetch_sub(&c->refs, 1) > 1)
		return;
	if (c->held)
		view_release(c->held);
	view_need_fini(&c->need);
	free((char *)(uintptr_t)c->name);
	free((char *)(uintptr_t)c->newname);
	struct ops *o = c->ops;
	LOCKED(&o->lock);
	if (c->prev_parked)
		c->prev_parked->next_parked = c->next_parked;
	else
		o->parked = c->next_parked;
	if (c->next_parked)
		c->next_parked->prev_parked = c->prev_parked;
	free(c);
	if (--o->n_parked == 0)
		cond_broadcast(&o->idle); /* ops_free waits for the last one */
}

static bool move_state(struct call *c, int from, int to)
{
	return atomic_compare_exchange_strong(&c->state, &from, to);
}

static void queue_answer_locked(struct call *c)
{
	atomic_fetch_add(&c->refs, 1);
	c->next_answer = c->ops->answers;
	c->ops->answers = c;
	cond_signal(&c->ops->answer);
}

static void on_interrupt(fuse_req_t req, void *data)
{
	struct call *c = data;
	(void)req;
	if (!move_state(c, PARKED, ANSWERED) && !move_state(c, STARTING, ANSWERED))
		return;
	LOCKED(&c->ops->lock);
	queue_answer_locked(c);
}

static void complete(struct call *c, int err);

static void on_fetched(void *arg, int err)
{
	complete(arg, err);
}

static void on_published(void *arg, int err)
{
	struct call *c = arg;
	c->waited = true;
	c->wait_err = err;
	complete(c, 0);
}

/* Workers leave only when the queue is empty, and nothing comes into it any more. */
static bool enqueue(struct call *c)
{
	LOCKED(&c->ops->lock);
	if (c->ops->stop)
		return false;
	c->next_queued = NULL;
	*c->ops->queue_end = c;
	c->ops->queue_end = &c->next_queued;
	cond_signal(&c->ops->work);
	return true;
}

static void queue_work(struct call *c)
{
	if (!enqueue(c))
		complete(c, -EINTR);
}

static void wait_published(struct call *c)
{
	uint64_t id = 0;
	int r = c->need.what == VIEW_NEED_CLOSED
	        ? publish_closing(c->held->publish, c->need.off, on_published, c, &id)
	        : publish_fsync(c->held->publish, c->need.off, on_published, c, &id);
	if (r == 0)
		atomic_store(&c->wait_id, id);
	else
		on_published(c, r < 0 ? r : 0);
}

/* From here on the call may be answered by others. false: it was, or ops stops and it is ours to answer. */
static bool leave_starting(struct call *c)
{
	LOCKED(&c->ops->lock);
	return move_state(c, STARTING, c->ops->stop ? RUNNING : PARKED) && !c->ops->stop;
}

/* Sets about the need of a STARTING call, whose reference it takes. */
static void start_need(struct call *c)
{
	fuse_req_interrupt_func(c->req, on_interrupt, c);
	if (!leave_starting(c)) {
		if (atomic_load(&c->state) == RUNNING) {
			fuse_req_interrupt_func(c->req, NULL, NULL);
			reply_err(c, -EINTR);
		}
		call_unref(c);
		return;
	}
	if (c->need.what == VIEW_NEED_BLOCKS) {
		int r = fetch_want(c->need.source, c->need.off, c->need.len, on_fetched, c);
		if (r < 0)
			complete(c, r);
	} else if (c->need.what == VIEW_NEED_PUBLISH || c->need.what == VIEW_NEED_CLOSED) {
		/* The id is stored after the call, so the call is kept alive across it. */
		atomic_fetch_add(&c->refs, 1);
		wait_published(c);
		call_unref(c);
	} else {
		queue_work(c);
	}
}

bool ops_make_room(struct ops *o)
{
	struct stat cache, staging;
	if (!o->env.blocks || stat(o->env.opts->cache_dir, &cache) < 0 || stat(o->env.opts->staging_dir, &staging) < 0)
		return false;
	return cache.st_dev == staging.st_dev && blocks_give_way(o->env.blocks, ROOM) == 0;
}

/* Runs it as long as only chance, or the cache, stands in the way. */
static int run(struct call *c, struct view_need *need)
{
	for (;;) {
		int r = c->run(c, need);
		if (r == -ENOSPC && !c->made_room) {
			c->made_room = true;
			if (ops_make_room(c->ops))
				continue;
		}
		if (r != -EAGAIN || need->what != VIEW_NEED_NONE)
			return r;
	}
}

static bool is_stopping(struct ops *o)
{
	LOCKED(&o->lock);
	return o->stop;
}

/* The need of a parked call is satisfied, or cannot be (err). */
static void complete(struct call *c, int err)
{
	if (!move_state(c, PARKED, RUNNING)) {
		call_unref(c);
		return;
	}
	/* From here on no call-back of libfuse runs: this waits for one that does. */
	fuse_req_interrupt_func(c->req, NULL, NULL);
	if (is_stopping(c->ops))
		err = -EINTR;
	if (err == 0) {
		struct view_need need = {0};
		err = run(c, &need);
		if (err == -EAGAIN && ++c->rounds < MAX_ROUNDS) {
			view_need_fini(&c->need);
			c->need = need;
			atomic_store(&c->state, STARTING);
			start_need(c);
			return;
		}
		view_need_fini(&need);
		if (err == -EAGAIN)
			err = -EIO;
	}
	if (err < 0)
		reply_err(c, err == -ECANCELED ? -EINTR : err);
	call_unref(c);
}

static struct call *park(const struct call *c, struct view_need *need)
{
	struct call *p = malloc(sizeof(*p));
	if (!p)
		return NULL;
	*p = *c;
	p->name = c->name ? strdup(c->name) : NULL;
	p->newname = c->newname ? strdup(c->newname) : NULL;
	if ((c->name && !p->name) || (c->newname && !p->newname)) {
		free((char *)(uintptr_t)p->name);
		free((char *)(uintptr_t)p->newname);
		free(p);
		return NULL;
	}
	p->need = STEAL(*need);
	atomic_init(&p->state, STARTING);
	atomic_init(&p->refs, 1);
	LOCKED(&c->ops->lock);
	p->next_parked = c->ops->parked;
	if (p->next_parked)
		p->next_parked->prev_parked = p;
	c->ops->parked = p;
	c->ops->n_parked++;
	return p;
}

void ops_dispatch(struct call *c)
{
	struct view_need need = {0};
	int r = run(c, &need);
	if (r == -EAGAIN) {
		struct call *p = is_stopping(c->ops) ? NULL : park(c, &need);
		if (p) {
			start_need(p);
			return;
		}
		r = is_stopping(c->ops) ? -EINTR : -ENOMEM;
	}
	view_need_fini(&need);
	if (c->held)
		view_release(c->held);
	if (r < 0)
		reply_err(c, r);
}

/* A listing that is not there may be the base of a folder that our changes keep alive: the request decides. */
static int satisfy(struct ops *o, struct call *c)
{
	int r = view_satisfy(ops_view(o), &c->need);
	if (r == 0 && (c->need.what == VIEW_NEED_MAKE_REPO || c->need.what == VIEW_NEED_MAKE_BRANCH))
		c->made = true;
	bool gone = r == -ENOENT || r == -ENOTDIR;
	return gone && c->need.what == VIEW_NEED_LIST && c->rounds < 3 ? 0 : r;
}

static void *work(void *arg)
{
	struct ops *o = arg;
	for (;;) {
		struct call *c;
		bool stop;
		{
			LOCKED(&o->lock);
			while (!o->queue && !o->stop)
				cond_wait(&o->work, &o->lock);
			c = o->queue;
			stop = o->stop;
			if (c) {
				o->queue = c->next_queued;
				if (!o->queue)
					o->queue_end = &o->queue;
			}
		}
		if (!c)
			return NULL;
		bool wanted = !stop && atomic_load(&c->state) == PARKED;
		complete(c, wanted ? satisfy(o, c) : -EINTR);
	}
}

/* Sends EINTR for calls that left PARKED by an interrupt. */
static void *answer(void *arg)
{
	struct ops *o = arg;
	for (;;) {
		struct call *c;
		{
			LOCKED(&o->lock);
			while (!o->answers && !o->stop_answers)
				cond_wait(&o->answer, &o->lock);
			c = o->answers;
			if (!c)
				return NULL;
			o->answers = c->next_answer;
		}
		fuse_req_interrupt_func(c->req, NULL, NULL);
		fuse_reply_err(c->req, EINTR);
		uint64_t id = atomic_load(&c->wait_id);
		if (id && c->held && publish_cancel(c->held->publish, id))
			call_unref(c); /* the reference of a call-back that will not come */
		call_unref(c);
	}
}

/* -- handles -- */

void ops_handle_add(struct ops *o, struct handle *h)
{
	LOCKED(&o->lock);
	h->next = o->handles;
	if (h->next)
		h->next->prev = h;
	o->handles = h;
}

void ops_handle_drop(struct ops *o, struct handle *h)
{
	LOCKED(&o->lock);
	if (h->prev)
		h->prev->next = h->next;
	else
		o->handles = h->next;
	if (h->next)
		h->next->prev = h->prev;
}

/* -- killed writers -- */

/* Field 52 of /proc/PID/stat is the exit code of a thread that is on its way out: its low 7 bits are the signal
 * (proc(5)). PF_EXITING (0x4) in field 9 says that it is. */
static bool read_killed(pid_t pid)
{
	char path[64];
	char *text AUTO_FREE = NULL;
	size_t len;
	snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	if (util_read_file(path, 4096, &text, &len) < 0)
		return false;
	char *at = strrchr(text, ')'); /* the name may hold anything */
	unsigned long flags = 0;
	long code = 0;
	int field = 2;
	for (char *rest = at ? at + 1 : NULL, *word; rest && (word = strsep(&rest, " "));) {
		if (!word[0])
			continue;
		field++;
		if (field == 9)
			flags = strtoul(word, NULL, 10);
		if (field == 52)
			code = strtol(word, NULL, 10);
	}
	return (flags & 0x4) && (code & 0x7f) != 0;
}

static void *probe(void *arg)
{
	struct ops *o = arg;
	for (;;) {
		pid_t pid;
		{
			LOCKED(&o->lock);
			while (!o->proc.pid && !o->stop_answers)
				cond_wait(&o->probe, &o->lock);
			if (o->stop_answers)
				return NULL;
			pid = o->proc.pid;
		}
		bool killed = read_killed(pid);
		LOCKED(&o->lock);
		o->proc.killed = killed;
		o->proc.done = o->proc.asked;
		o->proc.pid = 0;
		cond_broadcast(&o->probed);
	}
}

bool ops_was_killed(struct ops *o, pid_t pid)
{
	int64_t until = util_now_ms() + KILLED_WAIT_MS;
	LOCKED(&o->lock);
	/* One question at a time; who cannot ask in time counts as alive. */
	while (o->proc.pid && util_now_ms() < until)
		cond_wait_ms(&o->probed, &o->lock, MAX(1, until - util_now_ms()));
	if (o->proc.pid || o->stop_answers)
		return false;
	o->proc.pid = pid;
	uint64_t mine = ++o->proc.asked;
	cond_signal(&o->probe);
	while (o->proc.done < mine && util_now_ms() < until)
		cond_wait_ms(&o->probed, &o->lock, MAX(1, until - util_now_ms()));
	return o->proc.done == mine && o->proc.killed;
}

/* -- publishers of branches -- */

int ops_staged(void *arg, struct rev *rev, struct stage *stage, struct publish **ret)
{
	struct ops *o = arg;
	struct publish_env env = {
		.hub = o->env.hub,
		.tree = o->env.tree,
		.blocks = o->env.blocks,
		.fetch = o->env.fetch,
		.opts = o->env.opts,
		.ignore = o->env.ignore,
		.stage = stage,
		.repo = rev->repo,
		.rev = rev->name,
		.target = rev->ref[0] ? rev->ref : NULL,
		.discard = view_discard_path,
		.settle = view_settle,
		.arg = rev,
	};
	return publish_new(&env, ret);
}

bool ops_unstaged(void *arg, struct publish *publish)
{
	(void)arg;
	if (!publish_idle(publish))
		return false;
	publish_free(publish, 0);
	return true;
}

/* -- life -- */

int ops_new(const struct ops_env *env, unsigned workers, struct ops **ret)
{
	struct ops *o = calloc(1, sizeof(*o));
	if (!o)
		return -ENOMEM;
	o->env = *env;
	atomic_init(&o->view, env->view);
	o->queue_end = &o->queue;
	lock_init(&o->lock, LOCK_OPS);
	cond_init(&o->work);
	cond_init(&o->answer);
	cond_init(&o->probe);
	cond_init(&o->probed);
	cond_init(&o->idle);
	unsigned n = workers ? workers : WORKERS;
	o->threads = calloc(n, sizeof(*o->threads));
	int r = o->threads ? 0 : ENOMEM;
	for (; r == 0 && o->n_threads < n; o->n_threads += r == 0)
		r = pthread_create(&o->threads[o->n_threads], NULL, work, o);
	if (r == 0)
		r = pthread_create(&o->answerer, NULL, answer, o);
	o->has_answerer = r == 0;
	if (r == 0)
		r = pthread_create(&o->prober, NULL, probe, o);
	o->has_prober = r == 0;
	if (r) {
		ops_stop(o);
		ops_free(o);
		return -r;
	}
	*ret = o;
	return 0;
}

void ops_set_view(struct ops *o, struct view *view)
{
	atomic_store(&o->view, view);
}

/* The kernel is gone: RELEASEs that did not come will not come. What was closed is published still. */
static void end_writers(struct ops *o)
{
	for (struct handle *h = o->handles; h; h = h->next) {
		if (!h->writer)
			continue;
		stage_writer_end(h->stage, h->node);
		publish_closed(h->publish, h->node, h->wrote);
		view_release(h->inode->rev);
		h->writer = false;
	}
}

void ops_stop(struct ops *o)
{
	{
		LOCKED(&o->lock);
		o->stop = true;
		for (struct call *c = o->parked; c; c = c->next_parked)
			if (move_state(c, PARKED, ANSWERED))
				queue_answer_locked(c);
		cond_broadcast(&o->work);
	}
	for (; o->n_threads > 0; o->n_threads--)
		pthread_join(o->threads[o->n_threads - 1], NULL);
	end_writers(o);
	{
		LOCKED(&o->lock);
		o->stop_answers = true;
		cond_broadcast(&o->answer);
		cond_broadcast(&o->probe);
	}
	if (o->has_answerer)
		pthread_join(o->answerer, NULL);
	if (o->has_prober)
		pthread_join(o->prober, NULL);
	o->has_answerer = o->has_prober = false;
}

void ops_free(struct ops *o)
{
	if (!o)
		return;
	assert(o->n_threads == 0 && !o->has_answerer);
	{
		LOCKED(&o->lock);
		while (o->n_parked > 0)
			cond_wait(&o->idle, &o->lock);
	}
	for (struct handle *h = o->handles, *next; h; h = next) {
		next = h->next;
		free(h); /* what it held went with the view */
	}
	cond_fini(&o->idle);
	cond_fini(&o->work);
	cond_fini(&o->answer);
	cond_fini(&o->probe);
	cond_fini(&o->probed);
	lock_fini(&o->lock);
	ops_wire_fini(&o->wire);
	free(o->threads);
	free(o);
}

unsigned ops_parked(struct ops *o)
{
	LOCKED(&o->lock);
	return o->n_parked;
}

static void init(void *userdata, struct fuse_conn_info *conn)
{
	(void)userdata;
	/* fuse-notes.md 1.2: readdirplus always (du of a million entries). Every page that is not direct is read in the
	 * background, and beyond this many of them the kernel lets nobody in: it must be more than there are readers
	 * that wait for a stalled network, or cached reads would wait with them. */
	conn->want &= ~(unsigned)(FUSE_CAP_READDIRPLUS_AUTO | FUSE_CAP_SPLICE_READ | FUSE_CAP_SPLICE_WRITE |
	                          FUSE_CAP_SPLICE_MOVE | FUSE_CAP_WRITEBACK_CACHE);
	conn->max_background = BACKGROUND_MAX;
	conn->congestion_threshold = BACKGROUND_MAX / 4 * 3;
}

const struct fuse_lowlevel_ops *ops_table(void)
{
	static const struct fuse_lowlevel_ops table = {
		.init = init,
		.lookup = ops_lookup,
		.forget = ops_forget,
		.forget_multi = ops_forget_multi,
		.getattr = ops_getattr,
		.setattr = ops_setattr,
		.access = ops_access,
		.mkdir = ops_mkdir,
		.mknod = ops_mknod,
		.symlink = ops_symlink,
		.link = ops_link,
		.unlink = ops_unlink,
		.rmdir = ops_rmdir,
		.rename = ops_rename,
		.opendir = ops_opendir,
		.readdir = ops_readdir,
		.readdirplus = ops_readdirplus,
		.releasedir = ops_releasedir,
		.fsyncdir = ops_fsyncdir,
		.statfs = ops_statfs,
		.create = ops_create,
		.open = ops_open,
		.read = ops_read,
		.write = ops_write,
		.fallocate = ops_fallocate,
		.lseek = ops_lseek,
		.copy_file_range = ops_copy_file_range,
		.flush = ops_flush,
		.release = ops_release,
		.fsync = ops_fsync,
		.getxattr = ops_getxattr,
		.listxattr = ops_listxattr,
		.setxattr = ops_setxattr,
		.removexattr = ops_removexattr,
	};
	return &table;
}
