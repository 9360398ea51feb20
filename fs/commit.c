/* commit: one run brings what is settled in a branch onto the Hub as one commit.
 *
 * Not for when (schedule), nor for who waits (publish), nor for bytes (upload), nor for what the rows of
 * the overlay mean (commit_plan). One thread at a time enters a struct commit, but for
 * commit_is_published, which any thread may call.
 *
 * A run holds three commits apart: `parent`, which the overlay was made against; `base`, which the new
 * commit goes on top of (the head, when somebody else pushed and none of our paths changed there); and the
 * new one. parent moves only when a commit is settled, so that what an overlay means never depends on a
 * push.
 *
 * States of the journal's intent:
 *
 *     none --put--> POST --answered ok---> settled: none
 *                     |---refused--------> dropped: none
 *                     `---no answer, 5xx-> looked for between base and head: found: settled; not found, or
 *                                          nobody answers: it stays, and the next run looks again first
 *
 * One that was not found may still land later (the Hub goes on after its 60 s). Its token is remembered in the
 * journal until a newer commit is on the branch: commits after the parent that are our own are no conflict, and
 * the overlay goes on from there. */
#define LOG_MODULE "commit"

#include "commit_internal.h"

#include <assert.h>
#include <errno.h>
#include <search.h>
#include <string.h>
#include <time.h>

#include "log.h"

int commit_new(const struct commit_env *env, struct commit **ret)
{
	struct commit *c = calloc(1, sizeof(*c));
	int r;

	if (!c)
		return -ENOMEM;
	c->env = *env;
	r = env->target ? 0 : stage_note_get(env->stage, STAGE_NOTE_TARGET, &c->target);
	if (r == 0 && env->target)
		c->target = strdup(env->target);
	if (r == 0)
		r = stage_note_get(env->stage, STAGE_NOTE_OWN, &c->own);
	if (r < 0 || !c->target) {
		commit_free(c);
		return r < 0 ? r : -ENOMEM;
	}
	if (!*c->target)
		free(STEAL(c->target));
	*ret = c;
	return 0;
}

void commit_free(struct commit *c)
{
	if (!c)
		return;
	free(c->target);
	free(c->own);
	free(c);
}

void commit_result_fini(struct commit_result *r)
{
	free(r->url);
	free(r->pr_url);
	free(r->nodes);
	*r = (struct commit_result){0};
}

void commit_forget_plan(struct run *run)
{
	commit_plan_fini(&run->plan);
	stage_names_fini(&run->names);
	free(STEAL(run->ops));
	run->n_ops = 0;
	while (run->n_in_way)
		free(run->in_way[--run->n_in_way]);
	free(STEAL(run->in_way));
}

static void run_fini(struct run *run)
{
	commit_forget_plan(run);
	tdestroy(run->tree, (void (*)(void *))upload_file_free);
	free(run->files);
}

static void run_init(struct run *run, struct commit *c, const struct commit_ask *ask,
                     struct commit_result *ret)
{
	struct upload_progress *up = &ask->progress->upload;

	*ret = (struct commit_result){.error.retry_after_s = -1};
	*run = (struct run){
		.c = c, .ask = ask, .ret = ret, .rev = c->target ? c->target : c->env.rev,
		.on_conflict = ask->on_conflict, .opens_pr = (c->env.pr || ask->pr) && !c->target,
		.up = &c->up, .tree = STEAL(c->tree), .files = STEAL(c->files), .n_files = c->n_files,
		.cap_files = c->cap_files,
	};
	c->n_files = c->cap_files = 0;
	for (size_t i = 0; i < run->n_files; i++)
		run->files[i]->used = false;
	c->up = (struct upload){
		.hub = c->env.hub, .fetch = c->env.fetch, .stage = c->env.stage, .repo = &c->env.repo,
		.rev = run->rev, .create_pr = run->opens_pr, .cancel = ask->cancel, .progress = up,
	};
	atomic_store(&up->hashed, 0);
	atomic_store(&up->sent, 0);
	atomic_store(&up->to_send, 0);
}

void commit_enter(struct run *run, enum commit_phase phase)
{
	atomic_store(&run->ask->progress->phase, (int)phase);
}

bool commit_cancelled(const struct run *run)
{
	return atomic_load(run->ask->cancel);
}

int commit_stat_at(struct run *run, const char *commit, const char *path, struct tree_entry *ret)
{
	struct commit *c = run->c;

	return commit_plan_stat(c->env.tree, &c->env.repo, commit, path, ret, &run->ret->error);
}

struct commit_plan_env commit_env_of_plan(const struct run *run)
{
	const struct commit_env *env = &run->c->env;

	return (struct commit_plan_env){
		.tree = env->tree, .ignore = env->ignore, .repo = &env->repo, .parent = run->parent,
		.conflicts = run->conflicts,
	};
}

/* -- names -- */

int commit_is_published(struct commit *c, const char *path, bool wait)
{
	AUTO_FREE char *part = strdup(path);
	char parent[41];

	if (!part)
		return -ENOMEM;
	stage_parent(c->env.stage, parent);
	for (char *name = part, *slash; name; name = slash ? slash + 1 : NULL) {
		struct tree_entry ent;
		int r;

		slash = strchr(name, '/');
		if (slash)
			*slash = '\0';
		if (ignore_match_name(c->env.ignore, name, slash != NULL)) {
			/* What the branch holds by that name is ordinary. */
			if (!*parent)
				return 0;
			r = tree_stat(c->env.tree, &c->env.repo, parent, part, wait, &ent, NULL);
			if (r == -ENOENT || r == -ENOTDIR)
				return 0;
			if (r < 0)
				return r;
		}
		if (slash)
			*slash = '/';
	}
	return 1;
}

/* -- runs -- */

static int recover(struct run *run)
{
	struct commit *c = run->c;
	CLEANUP(stage_intent_fini) struct stage_intent intent = {0};
	char commit[41];
	int64_t date_s = 0;
	int r = stage_intent_get(c->env.stage, &intent);

	if (r < 0)
		return r == -ENOENT ? 0 : r;
	commit_enter(run, COMMIT_LOOKING);
	r = commit_parts_landed(run, intent.token, commit);
	if (r == 0)
		return stage_intent_drop(c->env.stage); /* the parts that are there are gone on with */
	if (r == 1)
		date_s = time(NULL);
	else if (r == -ENOENT)
		r = commit_look_for(run, intent.token, intent.parent, commit, &date_s);
	if (r < 0) {
		run->ret->unsure = true;
		return r;
	}
	if (r == 0) {
		log_info("%s: a commit whose answer was lost is not there: it is sent again", c->env.rev);
		r = commit_remember_own(c, intent.token);
		return r < 0 ? r : stage_intent_drop(c->env.stage);
	}
	log_info("%s: a commit whose answer was lost is there: %.8s", c->env.rev, commit);
	commit_forget_own(c);
	r = commit_settle(run, commit, date_s);
	run->ret->sent = r == 0;
	memcpy(run->ret->commit, commit, sizeof(run->ret->commit));
	return r;
}

static int get_parent(struct run *run)
{
	struct stage *stage = run->c->env.stage;
	int r = 0;

	stage_parent(stage, run->parent);
	if (!*run->parent) {
		r = commit_get_head(run, run->parent);
		if (r == 0)
			r = stage_set_parent(stage, run->parent);
	}
	memcpy(run->base, run->parent, sizeof(run->base));
	return r;
}

/* Which files it was about, and why it failed. */
static int finish(struct run *run, int r)
{
	struct commit_result *ret = run->ret;

	ret->nodes = calloc(run->n_files + 1, sizeof(*ret->nodes));
	for (size_t i = 0; ret->nodes && i < run->n_files; i++) {
		if (run->files[i]->layer && run->files[i]->used)
			ret->nodes[ret->n_nodes++] = run->files[i]->node;
	}
	/* The repository or the branch is gone; or a staged file, and then the next try has a new list. */
	if (r == -ENOENT)
		r = ret->error.status ? -ESTALE : -EIO;
	if (commit_cancelled(run) && r < 0)
		r = -ECANCELED;
	if (r < 0 && !*ret->error.text)
		snprintf(ret->error.text, sizeof(ret->error.text), "the staging area failed: %s",
		         strerror(-r));
	commit_enter(run, COMMIT_IDLE);
	return r;
}

/* From what is settled now to a commit on the branch. */
static int publish_once(struct run *run)
{
	int r = get_parent(run);

	if (r == 0)
		r = commit_bring(run);
	do {
		if (r >= 0)
			r = commit_decide(run);
		if (r == 0)
			r = commit_send(run);
	} while (r > 0);
	return r;
}

int commit_run(struct commit *c, const struct commit_ask *ask, struct commit_result *ret)
{
	CLEANUP(run_fini) struct run run;
	struct hub_error why;
	int r;

	run_init(&run, c, ask, ret);
	r = recover(&run);
	if (r == 0 && ask->resolve && ask->on_conflict == COMMIT_OURS)
		r = stage_conflict_clear(c->env.stage);
	if (r == 0 && ask->resolve && ask->on_conflict == COMMIT_PR)
		r = get_parent(&run) ?: commit_propose(&run);
	if (r == 0)
		r = publish_once(&run);
	if (r < 0 && commit_lost_pr(&run, r))
		r = publish_once(&run);
	if (r == -ESTALE && run.in_conflict && ask->on_conflict == COMMIT_PR) {
		why = ret->error;
		r = commit_propose(&run);
		if (r == 0)
			ret->error = (struct hub_error){.retry_after_s = -1};
		else if (!ret->error.text[0])
			ret->error = why;
	}
	if (!ret->unsure)
		stage_release(c->env.stage);
	return finish(&run, r);
}

int commit_prepare(struct commit *c, const struct commit_ask *ask, struct commit_result *ret)
{
	CLEANUP(run_fini) struct run run;
	int r;

	run_init(&run, c, ask, ret);
	r = get_parent(&run);
	if (r == 0)
		r = commit_bring(&run);
	stage_release(c->env.stage);
	if (r == 0) {
		c->tree = STEAL(run.tree);
		c->files = STEAL(run.files);
		c->n_files = run.n_files;
		c->cap_files = run.cap_files;
		run.n_files = 0;
	}
	return finish(&run, r);
}

int commit_recover(struct commit *c, const struct commit_ask *ask, struct commit_result *ret)
{
	CLEANUP(run_fini) struct run run;

	run_init(&run, c, ask, ret);
	return finish(&run, recover(&run));
}
