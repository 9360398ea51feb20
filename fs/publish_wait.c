/* publish_wait: those who wait for a commit: an fsync, or somebody who asked for one. What an fsync is for, and when who
 * waits has waited too long.
 *
 * Not for when a commit begins (schedule) nor for making one (publish.c, commit). FUSE and control threads come with a
 * wish; the clock answers them; a commit's worker lets fsyncs join. The table of a waiter's states stands at the head of
 * publish.c. */
#define LOG_MODULE "publish"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "log.h"
#include "publish_internal.h"

#define SAMPLE_MS 1000  /* how often a run's progress is looked at while somebody waits */
#define HTTP_TOO_MANY 429

/* -- waiters -- */

/* Unlinks *at; the caller frees or answers it. */
struct waiter *publish_unlink_locked(struct waiter **at)
{
	struct waiter *w = *at;

	*at = w->next;
	w->next = NULL;
	return w;
}

static bool in_run_locked(const struct publish *p, const struct waiter *w)
{
	return p->running && w->run == p->run;
}

/* It will not be in a commit: schedule is not to make one for it. */
static void unschedule_locked(struct publish *p, const struct waiter *w)
{
	if (in_run_locked(p, w))
		return;
	if (w->asking)
		schedule_unask(p->schedule);
	else if (!w->closing)
		schedule_unsync(p->schedule, w->node);
}

static void add_waiter_locked(struct publish *p, struct waiter *w)
{
	struct waiter **end = &p->waiters;

	while (*end)
		end = &(*end)->next;
	*end = w;
	w->id = ++p->last_id;
	w->progress_ms = util_now_ms();
	cond_signal(&p->wake);
}

void publish_join_run_locked(struct publish *p, struct waiter *w)
{
	if (!w->run) {
		w->progress_ms = util_now_ms();
		w->phase = 0;
		w->moved = 0;
	}
	w->run = p->run;
}

/* commit_ask.join, on the worker. */
bool publish_join(void *arg)
{
	struct publish *p = arg;
	bool any = false;

	LOCKED(&p->lock);
	for (struct waiter *w = p->waiters; w; w = w->next) {
		if (w->asking || w->run == p->run)
			continue;
		publish_join_run_locked(p, w);
		any = true;
	}
	if (any)
		schedule_joined(p->schedule);
	return any;
}

static void answer_ask_locked(struct publish *p, struct waiter *w, int err,
                              const struct commit_result *result)
{
	struct publish_answer *a = &w->asking->answer;

	a->err = err;
	if (result) {
		memcpy(a->commit, result->commit, sizeof(a->commit));
		a->url = result->url ? strdup(result->url) : NULL;
		a->pr_url = result->pr_url ? strdup(result->pr_url) : NULL;
		snprintf(a->text, sizeof(a->text), "%s", result->error.text);
	}
	w->asking->answered = true;
	cond_broadcast(&p->answered);
	free(w);
}

/* Moves *at to the fsyncs that are answered when the lock is dropped. */
void publish_answer_locked(struct publish *p, struct waiter **at, int err, const struct commit_result *result,
                          struct waiter **out)
{
	struct waiter *w = publish_unlink_locked(at);

	if (w->asking) {
		answer_ask_locked(p, w, err, result);
		return;
	}
	w->err = err;
	w->next = *out;
	*out = w;
}

void publish_call_back(struct waiter *out)
{
	while (out) {
		struct waiter *w = out;

		out = w->next;
		w->done(w->arg, w->err);
		free(w);
	}
}

void publish_answer_run_locked(struct publish *p, int err, const struct commit_result *result, int64_t now,
                              struct schedule_outcome *outcome, struct waiter **out)
{
	struct waiter **at = &p->waiters;

	while (*at) {
		struct waiter *w = *at;

		if (w->run != p->run) {
			at = &w->next;
		} else if (err < 0 && schedule_transient(err)) {
			w->err = err;
			if (result->error.status == HTTP_TOO_MANY && result->error.retry_after_s > 0)
				w->progress_ms = now + result->error.retry_after_s * (int64_t)1000;
			if (w->asking)
				outcome->asked = true;
			else
				outcome->syncs++;
			w->closing = false; /* from now on it is one of those for whom it is tried again soon */
			at = &w->next;
		} else {
			publish_answer_locked(p, at, err, result, out);
		}
	}
}

static void look_at_progress_locked(struct publish *p, struct waiter *w, int64_t now)
{
	const struct upload_progress *up = &p->progress.upload;
	uint64_t sent = atomic_load(&up->sent), to_send = atomic_load(&up->to_send);
	uint64_t moved = atomic_load(&up->hashed) + MIN(sent, to_send);
	int phase = atomic_load(&p->progress.phase);

	if (!p->running) {
		if (!w->run)
			w->progress_ms = now; /* others are waited for: schedule limits that */
		return;
	}
	if (phase > w->phase || moved > w->moved) {
		w->phase = MAX(w->phase, phase);
		w->moved = MAX(w->moved, moved);
		w->progress_ms = MAX(w->progress_ms, now);
	}
}

/* Answers those who waited too long; until when the others wait at least. */
int64_t publish_expire_locked(struct publish *p, int64_t now, struct waiter **out)
{
	int64_t timeout = p->env.opts->fsync_timeout_ms;
	struct commit_result late = {.error.text = "the Hub does not answer; all of it stays staged"};
	struct waiter **at = &p->waiters;
	int64_t wake = INT64_MAX;

	if (p->last_err)
		memcpy(late.error.text, p->last_text, sizeof(late.error.text));
	while (*at) {
		struct waiter *w = *at;

		look_at_progress_locked(p, w, now);
		if (now - w->progress_ms >= timeout) {
			unschedule_locked(p, w);
			publish_answer_locked(p, at, w->err == -EIO ? -EIO : -ETIMEDOUT, &late, out);
			continue;
		}
		wake = MIN(wake, w->progress_ms + timeout);
		at = &w->next;
	}
	if (p->running && p->waiters)
		wake = MIN(wake, now + MIN(SAMPLE_MS, MAX(timeout / 8, PUBLISH_SLEEP_MIN_MS)));
	return wake;
}

/* -- what an fsync is for -- */

struct search {
	uint64_t node;
	struct {
		uint64_t node;
		char *path;
	} *dirs;
	size_t n, cap;
	const char *at; /* the folder that is listed */
	char *found;
	int err;
};

static int search_one(void *arg, const char *name, struct stage_name what)
{
	struct search *s = arg;
	char *path;

	if (what.kind != STAGE_DIR && (what.kind != STAGE_FILE || what.node != s->node))
		return 0;
	if (what.kind == STAGE_DIR && s->n == s->cap) {
		size_t cap = s->cap ? s->cap * 2 : 16;
		void *grown = reallocarray(s->dirs, cap, sizeof(*s->dirs));

		if (!grown)
			return -ENOMEM;
		s->dirs = grown;
		s->cap = cap;
	}
	path = *s->at ? util_printf("%s/%s", s->at, name) : strdup(name);
	if (!path)
		return -ENOMEM;
	if (what.kind == STAGE_FILE) {
		s->found = path;
		return 1;
	}
	s->dirs[s->n].node = what.node;
	s->dirs[s->n++].path = path;
	return 0;
}

/* The present name of a staged file: 1 and the path, 0: it has none. */
static int find_path(struct stage *stage, uint64_t node, char **ret)
{
	struct search s = {.node = node, .at = ""};
	int r = stage_list(stage, STAGE_ROOT, search_one, &s);

	for (size_t i = 0; r == 0 && i < s.n; i++) {
		s.at = s.dirs[i].path;
		r = stage_list(stage, s.dirs[i].node, search_one, &s);
	}
	for (size_t i = 0; i < s.n; i++)
		free(s.dirs[i].path);
	free(s.dirs);
	if (r == 1)
		*ret = s.found;
	return r;
}

/* Is a change published by the next commit? Ends the scan then. */
static int is_settled(void *arg, const char *path, const struct stage_attr *attr)
{
	struct publish *p = arg;

	if (attr->kind == STAGE_WHITEOUT)
		return attr->state != STAGE_CONFLICT;
	if (attr->kind != STAGE_FILE || ignore_match(p->env.ignore, path, false))
		return 0;
	return attr->state == STAGE_CLEAN || attr->state == STAGE_STAGED || attr->state == STAGE_COMMITTING;
}

/* Does the branch hold this file under its present name? */
static bool is_held(struct publish *p, const char *path, const struct blob_key *key)
{
	struct tree_entry ent;
	char parent[41];

	stage_parent(p->env.stage, parent);
	return *parent && tree_stat(p->env.tree, &p->env.repo, parent, path, false, &ent, NULL) == 0 &&
	       ent.kind == HUB_ENTRY_FILE && hash_key_equal(&ent.key, key);
}

/* 0: wait for a commit; its bytes of now are frozen. 1: there is nothing to wait for. */
static int prepare_file(struct publish *p, uint64_t node)
{
	AUTO_FREE char *path = NULL;
	struct stage_attr attr;
	int r;

	if (stage_tx_state(p->env.stage) != STAGE_TX_NONE)
		return 1; /* it is published, or not, as a whole */
	r = stage_attr(p->env.stage, node, &attr);
	if (r < 0)
		return r == -ENOENT ? 1 : r;
	if (attr.state == STAGE_CONFLICT)
		return -ESTALE;
	r = find_path(p->env.stage, node, &path);
	if (r <= 0)
		return r < 0 ? r : 1;
	r = commit_is_published(p->commit, path, false);
	if (r < 0 && r != -EAGAIN)
		return r;
	if (r == 0 || (attr.is_blob && is_held(p, path, &attr.blob)))
		return 1;
	r = attr.is_blob ? 0 : stage_freeze_node(p->env.stage, node, NULL);
	return r == -ENOENT ? 1 : r;
}

static int prepare_fsync(struct publish *p, uint64_t node)
{
	const struct opts *opts = p->env.opts;
	int r;

	if (opts->fsync == OPTS_FSYNC_STAGE || opts->commit == OPTS_COMMIT_MANUAL)
		return 1;
	if (node || stage_tx_state(p->env.stage) != STAGE_TX_NONE)
		return prepare_file(p, node);
	r = stage_each(p->env.stage, is_settled, p);
	return r < 0 ? r : !r;
}

static int wait_for(struct publish *p, const struct waiter *what, uint64_t *ret_id)
{
	struct waiter *w = malloc(sizeof(*w));

	if (!w)
		return -ENOMEM;
	*w = *what;
	LOCKED(&p->lock);
	if (p->stopping || p->tx != STAGE_TX_NONE) {
		free(w);
		return p->stopping ? -ECANCELED : 1; /* a transaction has begun meanwhile: it is local */
	}
	add_waiter_locked(p, w);
	if (w->closing)
		schedule_closing(p->schedule, util_now_ms(), w->node);
	else
		schedule_fsync(p->schedule, util_now_ms(), w->node);
	*ret_id = w->id;
	return 0;
}

int publish_fsync(struct publish *p, uint64_t node, publish_done done, void *arg, uint64_t *ret_id)
{
	const struct waiter what = {.node = node, .done = done, .arg = arg};
	int r = prepare_fsync(p, node);

	return r != 0 ? r : wait_for(p, &what, ret_id);
}

int publish_closing(struct publish *p, uint64_t node, publish_done done, void *arg, uint64_t *ret_id)
{
	const struct waiter what = {.node = node, .done = done, .arg = arg, .closing = true};
	int r = prepare_file(p, node);

	return r != 0 ? r : wait_for(p, &what, ret_id);
}

bool publish_cancel(struct publish *p, uint64_t id)
{
	LOCKED(&p->lock);
	for (struct waiter **at = &p->waiters; *at; at = &(*at)->next) {
		if ((*at)->id == id) {
			unschedule_locked(p, *at);
			free(publish_unlink_locked(at));
			return true;
		}
	}
	return false;
}

/* -- explicit commits -- */

/* Takes back an asking that nobody waits for any more. */
static void withdraw_locked(struct publish *p, const struct asking *asking)
{
	for (struct waiter **at = &p->waiters; *at; at = &(*at)->next) {
		if ((*at)->asking == asking) {
			unschedule_locked(p, *at);
			free(publish_unlink_locked(at));
			return;
		}
	}
}

/* May a commit be asked for, as the branch's transaction stands? */
static bool may_ask_locked(const struct publish *p, const struct publish_ask *ask)
{
	return !p->beginning && (p->tx == STAGE_TX_NONE || ask->ends || (p->tx == STAGE_TX_HELD && ask->held));
}

static int ask_and_wait(struct publish *p, struct asking *asking, int64_t deadline_ms)
{
	int64_t until = deadline_ms ? util_now_ms() + deadline_ms : INT64_MAX;
	struct waiter *w = calloc(1, sizeof(*w));

	if (!w)
		return -ENOMEM;
	w->asking = asking;
	LOCKED(&p->lock);
	if (p->stopping || !may_ask_locked(p, asking->ask)) {
		free(w);
		return p->stopping ? -ECANCELED : -EBUSY;
	}
	add_waiter_locked(p, w);
	schedule_ask(p->schedule, util_now_ms());
	while (!asking->answered) {
		int64_t left = until - util_now_ms();

		if (!deadline_ms) {
			cond_wait(&p->answered, &p->lock);
		} else if (left > 0) {
			cond_wait_ms(&p->answered, &p->lock, left);
		} else {
			withdraw_locked(p, asking);
			return -ETIMEDOUT;
		}
	}
	return 0;
}

int publish_commit(struct publish *p, const struct publish_ask *ask, int64_t deadline_ms,
                   struct publish_answer *ret)
{
	struct asking asking = {.ask = ask};
	struct stage_counts counts;
	int r;

	{
		LOCKED(&p->lock);
		p->callers++;
	}
	r = ask_and_wait(p, &asking, deadline_ms);
	if (r == 0) {
		stage_counts(p->env.stage, &counts);
		asking.answer.left_out = counts.unfinished + (ask->interrupted ? 0 : counts.interrupted);
		*ret = asking.answer;
	}
	LOCKED(&p->lock);
	if (--p->callers == 0)
		cond_broadcast(&p->answered); /* publish_free may wait for it */
	return r;
}

void publish_answer_fini(struct publish_answer *a)
{
	free(a->url);
	free(a->pr_url);
	*a = (struct publish_answer){0};
}
