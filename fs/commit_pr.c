/* commit_pr: commits that go to a pull request: -o pr, for those who may not write to the branch or want to be reviewed. Not
 * for what they hold.
 *
 * The thread of the run. One pull request for a mount and branch: its ref is noted in the journal before anything is sent
 * there, so that a crash does not open another. */
#define LOG_MODULE "commit"

#include "commit_internal.h"

#include <errno.h>
#include <string.h>

#include "log.h"

#define PR_PREFIX "refs/pr/"

static unsigned number_of(const char *ref)
{
	return ref && strncmp(ref, PR_PREFIX, strlen(PR_PREFIX)) == 0
	       ? (unsigned)strtoul(ref + strlen(PR_PREFIX), NULL, 10) : 0;
}

/* A new pull request's ref. Caller frees. */
static int open_pr(struct run *run, const char *title, char **ret)
{
	struct commit *c = run->c;
	struct hub_error *err = &run->ret->error;
	unsigned number = 0;
	int r;

	if (strcmp(c->env.rev, "main") != 0) {
		snprintf(err->text, sizeof(err->text),
		         "pull requests are opened against main only: mount without -o pr to write to %.200s",
		         c->env.rev);
		return -EINVAL;
	}
	r = hub_pr_open(c->env.hub, &c->env.repo, title, run->ask->description, &number, err);
	if (r < 0)
		return r;
	*ret = util_printf(PR_PREFIX "%u", number);
	return *ret ? 0 : -ENOMEM;
}

int commit_open_pr(struct run *run, const char *title)
{
	struct commit *c = run->c;
	char head[41];
	int r = open_pr(run, title, &c->target);

	if (r < 0)
		return r;
	r = stage_note_put(c->env.stage, STAGE_NOTE_TARGET, c->target);
	if (r < 0)
		return r;
	run->rev = run->up->rev = c->target;
	run->opens_pr = run->up->create_pr = false;
	r = commit_ask_head(run, head);
	if (r < 0 || strcmp(head, run->base) == 0)
		return r;
	return commit_move_base(run, head);
}

void commit_note_pr(struct run *run)
{
	struct commit *c = run->c;
	unsigned number = number_of(run->rev);
	struct hub_pr pr;

	if (!number)
		return;
	free(run->ret->pr_url);
	run->ret->pr_url = hub_pr_url(c->env.hub, &c->env.repo, number);
	if (run->rev == c->env.rev)
		return; /* the user chose that pull request */
	if (hub_pr_get(c->env.hub, &c->env.repo, number, &pr, NULL) == 0 && pr.status == HUB_PR_DRAFT &&
	    hub_pr_publish(c->env.hub, &c->env.repo, number, NULL) < 0)
		log_warn("%s stays a draft", run->ret->pr_url ? run->ret->pr_url : run->rev);
}

bool commit_lost_pr(struct run *run, int err)
{
	struct commit *c = run->c;
	unsigned number = number_of(c->target);
	struct hub_pr pr;

	if (!number || run->ret->unsure ||
	    (err != -EACCES && err != -EINVAL && err != -ENOENT && err != -ESTALE) ||
	    hub_pr_get(c->env.hub, &c->env.repo, number, &pr, NULL) < 0 ||
	    (pr.status != HUB_PR_CLOSED && pr.status != HUB_PR_MERGED))
		return false;
	log_info("pull request %u is %s: the next commit opens another", number,
	         pr.status == HUB_PR_MERGED ? "merged" : "closed");
	if (stage_note_put(c->env.stage, STAGE_NOTE_TARGET, "") < 0)
		return false;
	free(STEAL(c->target));
	run->rev = run->up->rev = c->env.rev;
	run->opens_pr = run->up->create_pr = true;
	run->head[0] = '\0';
	run->ret->error = (struct hub_error){.retry_after_s = -1};
	return true;
}

/* -- conflicts -- */

/* Whatever is in conflict leaves the overlay, but for what was changed since it was sent. */
static int drop_proposed(struct run *run, const struct stage_names *sent)
{
	struct commit *c = run->c;
	int r = 0;

	for (size_t i = 0; r == 0 && i < sent->n; i++) {
		const struct stage_row *row = &sent->rows[i];
		AUTO_FREE char *path = NULL;

		if (!row->conflict || commit_plan_row_path(sent, row, &path) < 0 || !path)
			continue;
		if (row->kind == STAGE_FILE && row->newer) {
			log_warn("%s was changed since it went into %s: it stays staged, in conflict", path,
			         run->ret->pr_url ? run->ret->pr_url : run->rev);
			continue;
		}
		r = c->env.discard(c->env.arg, path);
	}
	return r;
}

/* Sends it; 0: it is there. */
static int send_proposal(struct run *run, const char *title)
{
	CLEANUP(hub_commit_result_fini) struct hub_commit_result made = {0};
	char token[33];
	uint8_t random[16];
	int64_t date_s;
	int r;

	util_random(random, sizeof(random));
	util_hex(random, sizeof(random), token);
	commit_enter(run, COMMIT_SENDING);
	r = commit_post(run, token, title, &made);
	if (r < 0 && run->ret->error.maybe_done &&
	    commit_look_for(run, token, run->base, made.commit, &date_s) == 1)
		r = 0;
	if (r < 0)
		return r;
	run->ret->sent = true;
	memcpy(run->ret->commit, made.commit, sizeof(run->ret->commit));
	free(run->ret->url);
	run->ret->url = STEAL(made.url);
	return 0;
}

/* What ours is on top of the head of the ref that the run goes to. */
static int make_over_head(struct run *run, char **title)
{
	char head[41];
	int r = commit_ask_head(run, head);

	if (r < 0)
		return r;
	memcpy(run->base, head, sizeof(run->base));
	free(STEAL(*title));
	return commit_make_ops(run, title);
}

static int propose(struct run *run, char **ref)
{
	struct commit *c = run->c;
	CLEANUP(stage_freeze_fini) struct stage_freeze frozen = {0};
	AUTO_FREE char *title = NULL;
	int r;

	commit_enter(run, COMMIT_READING);
	r = stage_freeze(c->env.stage, NULL, 0, run->ask->take | STAGE_TAKE_CONFLICT, &frozen);
	if (r == 0)
		r = commit_decide(run);
	if (r < 0 || !run->plan.n)
		return r;
	r = make_over_head(run, &title);
	if (r < 0 || !run->n_ops)
		return r;
	r = open_pr(run, run->ask->title ? run->ask->title : title, ref);
	if (r < 0)
		return r;
	run->rev = run->up->rev = *ref;
	r = make_over_head(run, &title);
	if (r == 0 && run->n_ops)
		r = send_proposal(run, title);
	if (r < 0)
		return r;
	commit_note_pr(run);
	log_warn("%s@%s: somebody else changed the same: ours is proposed as %s, the mount shows theirs", c->env.repo.name,
	         c->env.rev, run->ret->pr_url ? run->ret->pr_url : *ref);
	return 0;
}

int commit_propose(struct run *run)
{
	struct commit *c = run->c;
	CLEANUP(stage_names_fini) struct stage_names now = {0};
	AUTO_FREE char *ref = NULL;
	struct stage_counts counts;
	int r;

	stage_counts(c->env.stage, &counts);
	if (!counts.conflicts)
		return 0;
	run->conflicts = true;
	run->on_conflict = COMMIT_OURS;
	run->rev = run->up->rev = c->env.rev;
	run->up->create_pr = true;
	r = propose(run, &ref);
	if (r == 0)
		r = stage_names(c->env.stage, &now);
	stage_release(c->env.stage);
	if (r == 0)
		r = drop_proposed(run, &now);
	commit_forget_plan(run);
	run->conflicts = run->up->create_pr = false;
	run->on_conflict = COMMIT_PR;
	run->rev = run->up->rev = c->target ? c->target : c->env.rev;
	run->head[0] = '\0';
	return r;
}
