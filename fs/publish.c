/* publish: one branch's way to the Hub: asks schedule when, lets commit work, and answers those who wait.
 *
 * Not for when (schedule), nor for what a commit holds (commit). One thread of its own per branch, the
 * clock, decides, watches the waiters' time-outs and answers them. For each commit it starts a worker,
 * which may take hours, lets fsyncs join, and ends with it. Events come from FUSE threads, publish_commit
 * from control's.
 *
 * A waiter (an fsync, or who asked for a commit):
 *
 *     WAITING --a run begins, or lets it join--> IN THE RUN --on the branch and settled--> answered 0
 *        ^                                          |--failed for good-----------------> answered that errno
 *        '----------------- no answer, 5xx, 409 ----'
 *     from each: no progress for fsync_timeout: ETIMEDOUT (EIO after a 5xx); cancelled; at the end: ECANCELED
 *
 * Progress is a byte read or sent, or a step, that its runs had not come to before. */
#define LOG_MODULE "publish"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "log.h"
#include "publish_internal.h"

#define EARLY_BYTES ((uint64_t)8 << 20) /* a file of this size is sent ahead of the commit */

/* All branches of a mount share the Hub's commit quota. */
static struct schedule_brake brake;

/* -- events -- */

/* The clock looks again at least each quiet period while something is to be published, so only its long
 * sleep is ended. */
static void nudge_locked(struct publish *p)
{
	if (p->asleep || p->waiters)
		cond_signal(&p->wake);
}

void publish_changed(struct publish *p, enum publish_change what, const char *path, uint64_t node)
{
	static const enum schedule_change changes[] = {
		[PUBLISH_CREATED] = SCHEDULE_CREATED, [PUBLISH_RENAMED] = SCHEDULE_RENAMED,
		[PUBLISH_DELETED] = SCHEDULE_DELETED,
	};

	LOCKED(&p->lock);
	schedule_changed(p->schedule, util_now_ms(), changes[what], path, node);
	nudge_locked(p);
}

void publish_opened(struct publish *p, uint64_t node)
{
	LOCKED(&p->lock);
	schedule_opened(p->schedule, util_now_ms(), node);
}

void publish_wrote(struct publish *p, uint64_t node, uint64_t bytes)
{
	LOCKED(&p->lock);
	schedule_wrote(p->schedule, util_now_ms(), node, bytes);
	if (p->env.opts->commit_interval_ms)
		nudge_locked(p);
}

static int failed_cmp(const void *a, const void *b)
{
	const struct failed *x = a, *y = b;

	return (x->node > y->node) - (x->node < y->node);
}

static struct failed *find_failed_locked(struct publish *p, uint64_t node)
{
	struct failed want = {.node = node};

	return p->n_failed ? bsearch(&want, p->failed, p->n_failed, sizeof(want), failed_cmp) : NULL;
}

void publish_closed(struct publish *p, uint64_t node, bool changed)
{
	struct stage_attr attr;
	bool is_large = changed && stage_attr(p->env.stage, node, &attr) == 0 && attr.size >= EARLY_BYTES;
	struct failed *f;

	LOCKED(&p->lock);
	schedule_closed(p->schedule, util_now_ms(), node, changed);
	f = changed ? find_failed_locked(p, node) : NULL;
	if (f) { /* what comes of its new content is news */
		p->n_failed--;
		memmove(f, f + 1, (size_t)(p->failed + p->n_failed - f) * sizeof(*f));
	}
	if (changed && is_large && p->env.opts->commit == OPTS_COMMIT_CLOSE) {
		p->early_due = true;
		cond_signal(&p->wake);
	}
	nudge_locked(p);
}

int publish_take_error(struct publish *p, uint64_t node)
{
	struct failed *f;

	LOCKED(&p->lock);
	f = find_failed_locked(p, node);
	if (!f || f->told)
		return 0;
	f->told = true;
	return p->failed_err;
}

/* -- failures -- */

static void forget_failed_locked(struct publish *p)
{
	free(STEAL(p->failed));
	p->n_failed = 0;
}

/* The files of the failed run are told of it at their next close; once, however often it is repeated. */
static void note_failed_locked(struct publish *p, int err, const struct commit_result *result)
{
	struct failed *failed = calloc(result->n_nodes + 1, sizeof(*failed));

	if (!failed)
		return; /* status tells it */
	for (size_t i = 0; i < result->n_nodes; i++) {
		const struct failed *old = find_failed_locked(p, result->nodes[i]);

		failed[i].node = result->nodes[i];
		failed[i].told = old && old->told && err == p->failed_err;
	}
	qsort(failed, result->n_nodes, sizeof(*failed), failed_cmp);
	forget_failed_locked(p);
	p->failed = failed;
	p->n_failed = result->n_nodes;
	p->failed_err = err;
}

static void log_failed_locked(struct publish *p, int err, const char *text, int64_t now)
{
	enum schedule_reason reason;
	char repo[REPO_TEXT_MAX];
	int64_t wake_ms;

	repo_text(&p->env.repo, repo);
	if (schedule_next(p->schedule, now, &reason, &wake_ms) == SCHEDULE_WAIT)
		log_warn("%s@%s is not published: %s. It stays staged; next try in %lld s, or `hugfs commit`",
		         repo, p->env.rev, text, (long long)(wake_ms - now + 999) / 1000);
	else
		log_warn("%s@%s is not published: %s. Staged until a change, fsync or `hugfs commit`",
		         repo, p->env.rev, text);
}

static void note_result_locked(struct publish *p, int err, const struct commit_result *result, int64_t now)
{
	bool news = err != p->last_err || strcmp(result->error.text, p->last_text) != 0;

	if (*result->commit)
		memcpy(p->last_commit, result->commit, sizeof(p->last_commit));
	if (result->pr_url)
		snprintf(p->pr_url, sizeof(p->pr_url), "%s", result->pr_url);
	if (err == 0) {
		if (p->reason != SCHEDULE_RECOVER)
			forget_failed_locked(p);
		p->last_err = 0;
		p->last_text[0] = '\0';
		p->failing_ms = 0;
		return;
	}
	p->last_err = err;
	snprintf(p->last_text, sizeof(p->last_text), "%s", result->error.text);
	if (err == -ECANCELED)
		return;
	if (!p->failing_ms)
		p->failing_ms = now;
	if (!schedule_transient(err) || now - p->failing_ms >= p->env.opts->fsync_timeout_ms)
		note_failed_locked(p, err, result);
	if (news)
		log_failed_locked(p, err, p->last_text, now);
}

/* -- runs -- */

static bool join_nobody(void *arg)
{
	return false;
}

static void *worker_main(void *arg)
{
	struct publish *p = arg;
	struct commit_ask ask = {
		.cancel = &p->cancel, .progress = &p->progress, .join = publish_join, .arg = p,
	};
	struct commit_result result = {0};
	bool only_look, ends;
	int r;

	{
		LOCKED(&p->lock);
		ask.title = p->title; /* they stay until end_run_locked */
		ask.description = p->description;
		ask.take = p->take;
		ask.may_empty = p->may_empty;
		ask.resolve = p->resolve;
		ask.pr = p->pr;
		ends = p->tx != STAGE_TX_NONE;
		ask.on_conflict = p->on_conflict;
		only_look = p->reason == SCHEDULE_RECOVER;
	}
	r = only_look ? commit_recover(p->commit, &ask, &result) : commit_run(p->commit, &ask, &result);
	if (ends && !only_look) {
		int held = r == 0 ? stage_tx_end(p->env.stage) : stage_tx_hold(p->env.stage);

		r = r < 0 ? r : held;
	}
	LOCKED(&p->lock);
	p->run_err = r;
	p->result = result;
	p->done = true;
	cond_signal(&p->wake);
	return NULL;
}

/* Takes the one that asked first along. */
static void take_ask_locked(struct publish *p)
{
	for (struct waiter *w = p->waiters; w; w = w->next) {
		const struct publish_ask *ask;

		if (!w->asking)
			continue;
		ask = w->asking->ask;
		p->title = ask->title ? strdup(ask->title) : NULL;
		p->description = ask->description ? strdup(ask->description) : NULL;
		p->take |= ask->interrupted ? STAGE_TAKE_INTERRUPTED : 0;
		p->may_empty = ask->may_empty;
		p->resolve = ask->resolve;
		p->pr = ask->pr;
		if (ask->resolve)
			p->on_conflict = ask->on_conflict;
		publish_join_run_locked(p, w);
		return;
	}
}

/* Beside what is written, ahead of the commit. */
static void *early_main(void *arg)
{
	struct publish *p = arg;
	const struct commit_ask ask = {
		.cancel = &p->cancel, .progress = &p->progress, .join = join_nobody, .arg = p,
		.take = p->env.opts->commit_interval_ms ? STAGE_TAKE_APPENDED : 0,
	};
	struct commit_result result = {0};
	int r = commit_prepare(p->commit, &ask, &result);

	if (r < 0)
		log_debug("uploading ahead: %s", result.error.text);
	LOCKED(&p->lock);
	p->run_err = r;
	p->result = result;
	p->done = true;
	cond_signal(&p->wake);
	return NULL;
}

static void begin_early_locked(struct publish *p)
{
	p->early_due = false;
	p->running = p->early = true;
	p->run++;
	p->has_worker = pthread_create(&p->worker, NULL, early_main, p) == 0;
	if (!p->has_worker)
		p->running = p->early = false; /* the commit brings it */
}

static void end_early_locked(struct publish *p)
{
	p->done = p->running = p->early = false;
	if (!p->stopping)
		atomic_store(&p->cancel, false); /* publish_calm */
	commit_result_fini(&p->result);
	cond_broadcast(&p->answered);
}

static void begin_run_locked(struct publish *p, enum schedule_reason reason)
{
	int r;

	p->running = true;
	p->reason = reason;
	p->run++;
	p->on_conflict = (enum commit_on_conflict)p->env.opts->on_conflict;
	p->take = p->env.opts->commit_interval_ms ? STAGE_TAKE_APPENDED : 0;
	if (reason == SCHEDULE_ASKED) {
		p->take |= STAGE_TAKE_FLUSHED;
		take_ask_locked(p);
	}
	for (struct waiter *w = p->waiters; w && reason != SCHEDULE_RECOVER; w = w->next) {
		if (!w->asking)
			publish_join_run_locked(p, w);
	}
	schedule_began(p->schedule, reason);
	r = pthread_create(&p->worker, NULL, worker_main, p);
	p->has_worker = r == 0;
	if (r != 0) {
		p->result = (struct commit_result){
			.error.retry_after_s = -1, .error.text = "no thread can be started",
		};
		p->run_err = -ENOMEM;
		p->done = true;
	}
}

/* One try of the last commit before the end is enough, unless it was nobody's fault. */
static void note_final_locked(struct publish *p, int err, struct schedule_outcome *outcome)
{
	if (!p->final || p->reason != SCHEDULE_ASKED)
		return;
	if (err < 0 && schedule_transient(err))
		outcome->asked = true;
	else
		p->final = false;
}

static void end_run_locked(struct publish *p, struct waiter **out)
{
	struct commit_result *result = &p->result;
	int64_t now = util_now_ms();
	int err = p->run_err;
	struct schedule_outcome outcome = {
		.err = err, .retry_s = result->error.retry_after_s, .sent = result->sent,
		.unsure = result->unsure,
	};

	p->done = false;
	p->running = false;
	note_final_locked(p, err, &outcome);
	publish_answer_run_locked(p, err, result, now, &outcome, out);
	schedule_done(p->schedule, now, &outcome);
	note_result_locked(p, err, result, now);
	for (struct waiter *w = *out; w; w = w->next) {
		struct failed *f = w->err < 0 ? find_failed_locked(p, w->node) : NULL;

		if (f)
			f->told = true;
	}
	commit_result_fini(result);
	free(STEAL(p->title));
	free(STEAL(p->description));
	p->may_empty = p->resolve = p->pr = false;
	if (!p->beginning) {
		p->tx = stage_tx_state(p->env.stage);
		schedule_hold(p->schedule, p->tx != STAGE_TX_NONE);
	}
	cond_broadcast(&p->answered);
}

/* -- the clock -- */

static bool may_end_locked(struct publish *p, int64_t now)
{
	if (!p->stopping)
		return false;
	if (!p->final || now >= p->stop_ms)
		atomic_store(&p->cancel, true);
	return !p->running && (!p->final || now >= p->stop_ms);
}

/* Sleeps until something happens or is due. */
static void sleep_locked(struct publish *p, int64_t now, int64_t wake)
{
	if (p->stopping && now < p->stop_ms)
		wake = MIN(wake, p->stop_ms);
	p->asleep = wake == INT64_MAX;
	if (p->asleep)
		cond_wait(&p->wake, &p->lock);
	else
		cond_wait_ms(&p->wake, &p->lock, wake - now);
	p->asleep = false;
}

/* One decision. */
static void step_locked(struct publish *p, struct waiter **out)
{
	int64_t now = util_now_ms();
	int64_t wake = publish_expire_locked(p, now, out), due;
	enum schedule_reason reason;

	if (*out)
		return;
	if (!p->running) {
		switch (schedule_next(p->schedule, now, &reason, &due)) {
		case SCHEDULE_COMMIT:
			begin_run_locked(p, reason);
			return;
		case SCHEDULE_WAIT: /* events may make it earlier, but never than a quiet period from now */
			if (p->early_due && !p->stopping && p->tx == STAGE_TX_NONE) {
				begin_early_locked(p);
				return;
			}
			due = MIN(due, now + MAX(p->env.opts->commit_delay_ms, PUBLISH_SLEEP_MIN_MS));
			wake = MIN(wake, due);
			break;
		case SCHEDULE_NOTHING:
			break;
		}
	}
	sleep_locked(p, now, wake);
}

/* The publisher ends: nobody waits any longer. */
static void end_locked(struct publish *p, struct waiter **out)
{
	while (p->waiters)
		publish_answer_locked(p, &p->waiters, -ECANCELED, NULL, out);
}

static void *clock_main(void *arg)
{
	struct publish *p = arg;
	bool end = false;

	while (!end) {
		struct waiter *out = NULL;
		bool ran;

		{
			LOCKED(&p->lock);
			ran = p->done;
			if (ran && p->early)
				end_early_locked(p);
			else if (ran)
				end_run_locked(p, &out);
			else if (may_end_locked(p, util_now_ms()))
				end = true;
			else
				step_locked(p, &out);
			if (end)
				end_locked(p, &out);
		}
		if (ran && STEAL(p->has_worker))
			pthread_join(p->worker, NULL); /* it said that it is done */
		publish_call_back(out);
	}
	return NULL;
}

/* -- life -- */

/* What a former mount left. */
static void note_left(struct publish *p)
{
	CLEANUP(stage_intent_fini) struct stage_intent intent = {0};
	int64_t now = util_now_ms();
	struct stage_counts counts;

	if (stage_empty(p->env.stage))
		return;
	stage_counts(p->env.stage, &counts);
	schedule_changed(p->schedule, now, counts.files ? SCHEDULE_CREATED : SCHEDULE_DELETED, "", 0);
	if (stage_intent_get(p->env.stage, &intent) == 0)
		schedule_unsure(p->schedule, now);
}

static int make_parts(struct publish *p)
{
	static const enum schedule_mode modes[] = {
		[OPTS_COMMIT_CLOSE] = SCHEDULE_CLOSE, [OPTS_COMMIT_SYNC] = SCHEDULE_CLOSE, [OPTS_COMMIT_FSYNC] = SCHEDULE_FSYNC,
		[OPTS_COMMIT_MANUAL] = SCHEDULE_MANUAL,
	};
	const struct publish_env *e = &p->env;
	struct schedule_opts when = {
		.mode = modes[e->opts->commit], .delay_ms = e->opts->commit_delay_ms,
		.interval_ms = e->opts->commit_interval_ms,
		.open_wait_ms = e->opts->open_wait_ms, .brake = &brake,
	};
	struct commit_env what = {
		.hub = e->hub, .tree = e->tree, .blocks = e->blocks, .fetch = e->fetch, .ignore = e->ignore,
		.stage = e->stage, .repo = e->repo, .rev = e->rev, .max_ops = e->opts->commit_files, .pr = e->opts->pr && strncmp(e->rev, "refs/", 5) != 0, .target = e->target, .discard = e->discard, .settle = e->settle,
		.arg = e->arg,
	};
	int r = schedule_new(&when, &p->schedule);

	return r < 0 ? r : commit_new(&what, &p->commit);
}

static void publish_destroy(struct publish *p)
{
	commit_free(p->commit);
	schedule_free(p->schedule);
	forget_failed_locked(p);
	cond_fini(&p->answered);
	cond_fini(&p->wake);
	lock_fini(&p->lock);
	free(p);
}

int publish_new(const struct publish_env *env, struct publish **ret)
{
	struct publish *p = calloc(1, sizeof(*p));
	int r;

	if (!p)
		return -ENOMEM;
	p->env = *env;
	lock_init(&p->lock, LOCK_PUBLISH);
	cond_init(&p->wake);
	cond_init(&p->answered);
	r = make_parts(p);
	if (r == 0) {
		note_left(p);
		p->tx = stage_tx_state(env->stage);
		schedule_hold(p->schedule, p->tx != STAGE_TX_NONE);
		r = -pthread_create(&p->clock, NULL, clock_main, p);
	}
	if (r < 0) {
		publish_destroy(p);
		return r;
	}
	*ret = p;
	return 0;
}

void publish_free(struct publish *p, int64_t deadline_ms)
{
	bool publishes;

	if (!p)
		return;
	publishes = deadline_ms > util_now_ms() && p->env.opts->commit != OPTS_COMMIT_MANUAL &&
	            !stage_empty(p->env.stage) && stage_tx_state(p->env.stage) == STAGE_TX_NONE;
	{
		LOCKED(&p->lock);
		p->stopping = true;
		cond_broadcast(&p->answered); /* close_gate */
		p->stop_ms = deadline_ms;
		p->final = publishes;
		if (publishes)
			schedule_ask(p->schedule, util_now_ms());
		cond_signal(&p->wake);
	}
	pthread_join(p->clock, NULL);
	{
		LOCKED(&p->lock);
		while (p->callers > 0)
			cond_wait(&p->answered, &p->lock);
	}
	publish_destroy(p);
}

void publish_calm(struct publish *p)
{
	LOCKED(&p->lock);
	p->callers++;
	p->early_due = false;
	if (p->early)
		atomic_store(&p->cancel, true);
	while (p->early)
		cond_wait(&p->answered, &p->lock);
	if (--p->callers == 0)
		cond_broadcast(&p->answered);
}

/* -- transactions -- */

static void set_tx_locked(struct publish *p, enum stage_tx tx)
{
	p->tx = tx;
	schedule_hold(p->schedule, tx != STAGE_TX_NONE);
	nudge_locked(p);
}

static bool has_askers_locked(const struct publish *p)
{
	const struct waiter *w = p->waiters;

	while (w && !w->asking)
		w = w->next;
	return w;
}

/* Those who asked before are served before, and nobody asks any more; then no commit begins. */
static int close_gate(struct publish *p)
{
	LOCKED(&p->lock);
	if (p->tx != STAGE_TX_NONE || p->beginning)
		return -EBUSY;
	p->beginning = true;
	p->callers++;
	while (!p->stopping && (p->running || has_askers_locked(p)))
		cond_wait(&p->answered, &p->lock);
	if (!p->stopping)
		set_tx_locked(p, STAGE_TX_RUNNING);
	return p->stopping ? -ECANCELED : 0;
}

/* fsyncs that came just before the transaction belong to it, so they are local. */
static void answer_fsyncs_locked(struct publish *p, struct waiter **out)
{
	struct waiter **at = &p->waiters;

	schedule_joined(p->schedule);
	while (*at) {
		if ((*at)->asking)
			at = &(*at)->next;
		else
			publish_answer_locked(p, at, 0, NULL, out);
	}
}

int publish_tx_begin(struct publish *p, struct publish_answer *ret, uint64_t *ret_number)
{
	const struct publish_ask settled = {0};
	struct waiter *out = NULL;
	int r = publish_commit(p, &settled, 0, ret);

	if (r < 0 || ret->err < 0)
		return r;
	r = close_gate(p);
	if (r == -EBUSY)
		return r;
	if (r == 0)
		r = stage_tx_begin(p->env.stage);
	{
		LOCKED(&p->lock);
		p->beginning = false;
		if (r == 0)
			answer_fsyncs_locked(p, &out);
		set_tx_locked(p, stage_tx_state(p->env.stage));
		*ret_number = ++p->tx_number;
	}
	publish_call_back(out);
	LOCKED(&p->lock);
	if (--p->callers == 0)
		cond_broadcast(&p->answered);
	return r;
}

int publish_tx_hold(struct publish *p, uint64_t number)
{
	int r;

	{
		LOCKED(&p->lock);
		if (number && number != p->tx_number)
			return 0; /* that one has ended */
	}
	r = stage_tx_hold(p->env.stage);
	LOCKED(&p->lock);
	set_tx_locked(p, stage_tx_state(p->env.stage));
	return r;
}

void publish_tx_ended(struct publish *p)
{
	LOCKED(&p->lock);
	set_tx_locked(p, stage_tx_state(p->env.stage));
}

/* -- looking -- */

void publish_status(struct publish *p, struct publish_status *ret)
{
	bool empty = stage_empty(p->env.stage);
	int64_t now = util_now_ms();
	enum schedule_reason reason;
	enum schedule_verdict verdict;
	int64_t wake = 0;

	LOCKED(&p->lock);
	*ret = (struct publish_status){.last_err = p->last_err};
	memcpy(ret->last_commit, p->last_commit, sizeof(ret->last_commit));
	memcpy(ret->last_text, p->last_text, sizeof(ret->last_text));
	memcpy(ret->pr_url, p->pr_url, sizeof(ret->pr_url));
	ret->tx = p->tx;
	if (p->running) {
		ret->phase = PUBLISH_UPLOADING; /* also ahead of the commit */
		if (atomic_load(&p->progress.phase) >= COMMIT_NAMING)
			ret->phase = PUBLISH_COMMITTING;
		ret->sent = atomic_load(&p->progress.upload.sent);
		ret->to_send = atomic_load(&p->progress.upload.to_send);
		return;
	}
	verdict = schedule_next(p->schedule, now, &reason, &wake);
	ret->next_ms = verdict == SCHEDULE_NOTHING ? 0 : verdict == SCHEDULE_COMMIT ? now : wake;
	if (!empty)
		ret->phase = p->last_err ? PUBLISH_FAILED : PUBLISH_WAITING;
}

bool publish_idle(struct publish *p)
{
	bool empty = stage_empty(p->env.stage);

	LOCKED(&p->lock);
	return empty && !p->running && !p->waiters;
}
