/* commit_base: a branch that others push to: whether a run's commit can go on top of what they did. Not for what the
 * comparison is (commit_plan).
 *
 * The thread of the run. */
#define LOG_MODULE "commit"

#include "commit_internal.h"

#include <errno.h>
#include <string.h>

#include "log.h"

#define BASES_MAX 5      /* times that a run follows a branch that others push to */

/* -- a branch that others push to -- */

static void tell_conflict(struct run *run, const char *path)
{
	snprintf(run->ret->error.text, sizeof(run->ret->error.text),
	         "somebody else changed %.200s: see `hugfs diff`, then `hugfs commit --on-conflict=ours` (or =pr) "
	         "publishes yours, `hugfs discard` shows theirs", path);
}

static struct stage_ref ref_of(const struct stage_row *row)
{
	return (struct stage_ref){.parent = row->parent, .node = row->node, .name = row->name};
}

/* Everything that the commit held stays staged, in conflict. */
static int keep_all(struct run *run)
{
	const struct commit_plan *plan = &run->plan;
	AUTO_FREE struct stage_ref *refs = calloc(plan->n_took + plan->n + 1, sizeof(*refs));
	size_t n = 0;

	if (!refs)
		return -ENOMEM;
	for (size_t i = 0; i < plan->n_took; i++)
		refs[n++] = ref_of(plan->took[i]);
	for (size_t i = 0; i < plan->n; i++) {
		if (plan->changes[i].row && plan->changes[i].ours)
			refs[n++] = ref_of(plan->changes[i].row);
	}
	return stage_conflict_put(run->c->env.stage, refs, n);
}

/* What the commit leaves out is to go on top of it later: it would undo their change silently. */
static int keep_left(struct run *run)
{
	int r = 0;

	for (size_t i = 0; r == 0 && i < run->plan.n_left; i++) {
		const struct commit_left *left = &run->plan.left[i];
		struct stage_ref ref = ref_of(left->row);

		if (!left->conflict)
			continue;
		log_warn("%s@%s: somebody else changed %s, which is being changed here: it is left out of commits "
		         "until `hugfs commit --on-conflict=ours` or `hugfs discard`", run->c->env.repo.name,
		         run->c->env.rev, left->path);
		r = stage_conflict_put(run->c->env.stage, &ref, 1);
	}
	return r;
}

static bool is_own(const struct commit *c, const char *message)
{
	for (const char *at = c->own; message && *at; at += COMMIT_TOKEN_LEN + 1) {
		char token[COMMIT_TOKEN_LEN + 1];

		snprintf(token, sizeof(token), "%s", at);
		if (strstr(message, token))
			return true;
	}
	return false;
}

/* The commits that follow the parent and are our own, landed after we had given them up: 1 and the last of them, or 0. */
static int own_after_parent(struct run *run, char ret[41])
{
	struct commit *c = run->c;
	CLEANUP(hub_commits_fini) struct hub_commits list = {0};
	size_t i = 0;
	int r;

	if (!*c->own)
		return 0;
	r = hub_commits(c->env.hub, &c->env.repo, run->rev, COMMIT_LOOK_NEAR, &list, &run->ret->error);
	if (r < 0)
		return r;
	while (i < list.n && strcmp(list.commits[i].id, run->parent) != 0)
		i++;
	if (i == list.n)
		return 0;
	for (r = 0; i-- > 0 && is_own(c, list.commits[i].message); r = 1)
		memcpy(ret, list.commits[i].id, sizeof(list.commits[i].id));
	return r;
}

/* The branch is at `head`: can ours go on top of it? 0: yes, base is moved. 1: yes, once names are read
 * again (it was our own commit). -ESTALE: somebody changed one of our paths. */
int commit_move_base(struct run *run, const char *head)
{
	struct commit_plan_env env;
	AUTO_FREE char *path = NULL;
	char late[41];
	int r = 0, own;

	if (++run->bases > BASES_MAX) {
		snprintf(run->ret->error.text, sizeof(run->ret->error.text), "%s is pushed to all the time",
		         run->c->env.rev);
		return -EBUSY;
	}
	own = own_after_parent(run, late);
	if (own < 0)
		return own;
	if (own) {
		log_info("%s: an earlier commit of ours had landed late as %.8s", run->c->env.rev, late);
		r = stage_set_parent(run->c->env.stage, late);
		memcpy(run->parent, late, sizeof(run->parent));
		memcpy(run->base, late, sizeof(run->base));
		return r < 0 ? r : 1;
	}
	env = commit_env_of_plan(run);
	if (run->on_conflict != COMMIT_OURS) {
		r = commit_plan_check(&env, &run->plan, head, &path, &run->ret->error);
		if (r == -ESTALE && path) {
			tell_conflict(run, path);
			run->in_conflict = true;
			return keep_all(run) < 0 ? -EIO : -ESTALE;
		}
		if (r == 0)
			r = keep_left(run);
	}
	if (r == 0)
		memcpy(run->base, head, sizeof(run->base));
	return r;
}

int commit_get_head(struct run *run, char ret[41])
{
	struct commit *c = run->c;
	struct tree_head head;
	int r = tree_head(c->env.tree, &c->env.repo, run->rev, true, &head, &run->ret->error);

	if (r == -ENOENT) {
		snprintf(run->ret->error.text, sizeof(run->ret->error.text), "%s is gone from the Hub",
		         run->rev);
		return -ESTALE;
	}
	if (r == 0)
		memcpy(ret, head.commit, 41);
	return r;
}

int commit_ask_head(struct run *run, char ret[41])
{
	tree_forget_head(run->c->env.tree, &run->c->env.repo, run->rev);
	return commit_get_head(run, ret);
}

/* Goes by what is known of the head: one that is not the base is asked for again, since preupload may have
 * been answered by a copy of the Hub that lags behind. As move_base. */
int commit_follow_head(struct run *run)
{
	struct commit *c = run->c;
	struct tree_head known;
	char head[41];
	int r;

	if (*run->head)
		memcpy(head, run->head, sizeof(head));
	else if (tree_head_known(c->env.tree, &c->env.repo, run->rev, &known) == 0)
		memcpy(head, known.commit, sizeof(head));
	else
		return 0;
	if (strcmp(head, run->base) == 0)
		return 0;
	r = commit_ask_head(run, head);
	if (r < 0)
		return r;
	memcpy(run->head, head, sizeof(head));
	return strcmp(head, run->base) == 0 ? 0 : commit_move_base(run, head);
}

int commit_remember_own(struct commit *c, const char *token)
{
	const size_t full = COMMIT_OWN_MAX * (COMMIT_TOKEN_LEN + 1);
	const char *kept = strlen(c->own) < full ? c->own : c->own + COMMIT_TOKEN_LEN + 1;
	char *own = util_printf("%s%s ", kept, token);
	int r = own ? stage_note_put(c->env.stage, STAGE_NOTE_OWN, own) : -ENOMEM;

	if (r < 0) {
		free(own);
		return r;
	}
	free(c->own);
	c->own = own;
	return 0;
}

void commit_forget_own(struct commit *c)
{
	if (*c->own && stage_note_put(c->env.stage, STAGE_NOTE_OWN, "") == 0)
		*c->own = '\0';
}
