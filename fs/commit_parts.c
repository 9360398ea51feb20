/* commit_parts: what is beyond one call of the Hub (hub-api.md 6.7): several commits on a pull request of our own, which is then
 * merged, so that the branch moves once. Not for what a commit holds (commit_plan).
 *
 * The thread of the run. The journal's note "parts" says which pull request, a hash of all operations, and the intent's token: after a crash the same
 * ones go on there, others begin anew, and an intent of another commit has no parts. The intent is there from the first part until the merge is settled:
 *
 *     intent, note --parts--> all on refs/pr/N --merge--> on the branch: settled
 *                                                '--refused--> EFBIG; merged by somebody later, it is found */
#define LOG_MODULE "commit"

#include "commit_internal.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "log.h"

#define NOTE "parts"
#define PR_PREFIX "refs/pr/"
#define CALL_BYTES ((uint64_t)900 << 20) /* of regular files in one call: the Hub takes 1 GB */
#define PART_BYTES ((uint64_t)200 << 20) /* of a part: one call may take the Hub 60 s */
#define PART_FILES 5000u
#define PART_TRIES 4

static uint64_t body_bytes(const struct hub_op *op)
{
	return op->kind == HUB_OP_FILE ? op->key.size : 0;
}

bool commit_needs_parts(const struct run *run)
{
	uint64_t bytes = 0;

	for (size_t i = 0; i < run->n_ops; i++)
		bytes += body_bytes(&run->ops[i]);
	return run->n_ops > run->c->env.max_ops || bytes > CALL_BYTES;
}

static uint64_t hash_of(const struct run *run)
{
	uint64_t hash = 1;

	for (size_t i = 0; i < run->n_ops; i++) {
		const struct hub_op *op = &run->ops[i];

		hash = hash_text64(hash, op->path, strlen(op->path) + 1);
		hash = hash_text64(hash, (const char *)op->key.id, sizeof(op->key.id));
		hash = hash_text64(hash, op->kind == HUB_OP_DELETE ? "-" : "+", 1);
	}
	return hash;
}

/* The pull request that the note names; 0: none. hash may be NULL. */
static unsigned noted(struct run *run, uint64_t *ret_hash)
{
	AUTO_FREE char *note = NULL;
	unsigned number = 0;
	uint64_t hash = 0;

	if (stage_note_get(run->c->env.stage, NOTE, &note) < 0 || !*note)
		return 0;
	number = (unsigned)strtoul(note, NULL, 10);
	hash = strchr(note, ' ') ? strtoull(strchr(note, ' ') + 1, NULL, 16) : 0;
	if (ret_hash)
		*ret_hash = hash;
	return number;
}

static int put_note(struct run *run, unsigned number, uint64_t hash, const char *token)
{
	AUTO_FREE char *note = number ? util_printf("%u %" PRIx64 " %s", number, hash, token) : strdup("");

	return note ? stage_note_put(run->c->env.stage, NOTE, note) : -ENOMEM;
}

/* The commit of the branch by which the pull request was merged. 1: it was; 0: not. */
static int merged_as(struct run *run, unsigned number, char ret[41])
{
	struct commit *c = run->c;
	struct hub_pr pr;
	int r = hub_pr_get(c->env.hub, &c->env.repo, number, &pr, &run->ret->error);

	if (r < 0 || pr.status != HUB_PR_MERGED)
		return MIN(r, 0);
	if (!pr.merged_as[0])
		r = commit_ask_head(run, pr.merged_as);
	memcpy(ret, pr.merged_as, sizeof(pr.merged_as));
	return r < 0 ? r : 1;
}

int commit_parts_landed(struct run *run, const char *token, char ret_commit[41])
{
	AUTO_FREE char *note = NULL;
	unsigned number = noted(run, NULL);

	/* It may be the note of an earlier commit. */
	if (!number || stage_note_get(run->c->env.stage, NOTE, &note) < 0 || !strstr(note, token))
		return -ENOENT;
	return merged_as(run, number, ret_commit);
}

/* The pull request for these operations: the one that was begun, or a new one. *ret_begun: some may be there already. */
static int get_pr(struct run *run, const char *title, unsigned *ret, bool *ret_begun)
{
	struct commit *c = run->c;
	struct hub_error *err = &run->ret->error;
	uint64_t hash = hash_of(run), old_hash;
	unsigned number = noted(run, &old_hash);
	struct hub_pr pr;
	int r;

	*ret_begun = false;
	if (number && hash == old_hash &&
	    hub_pr_get(c->env.hub, &c->env.repo, number, &pr, NULL) == 0 &&
	    (pr.status == HUB_PR_DRAFT || pr.status == HUB_PR_OPEN)) {
		log_info("%s: goes on with the parts that are on pull request %u", c->env.rev, number);
		*ret = number;
		*ret_begun = true;
		return 0;
	}
	if (strcmp(c->env.rev, "main") != 0) {
		snprintf(err->text, sizeof(err->text), "%zu changes are too many for one commit of the Hub, and only for main can "
		         "several become one: publish fewer at a time", run->n_ops);
		return -EFBIG;
	}
	r = hub_pr_open(c->env.hub, &c->env.repo, title, run->ask->description, &number, err);
	if (r == 0)
		r = put_note(run, number, hash, "");
	*ret = number;
	return r;
}

/* Takes out of the operations what `commit` has already. */
static int skip_done(struct run *run, const char *commit)
{
	size_t kept = 0;

	for (size_t i = 0; i < run->n_ops; i++) {
		const struct hub_op *op = &run->ops[i];
		struct tree_entry ent;
		int held = commit_stat_at(run, commit, op->path, &ent);
		bool done;

		if (held < 0)
			return held;
		if (op->kind == HUB_OP_DELETE)
			done = !held;
		else
			done = held && ent.kind == HUB_ENTRY_FILE && hash_key_equal(&ent.key, &op->key);
		if (!done)
			run->ops[kept++] = run->ops[i];
	}
	run->n_ops = kept;
	return 0;
}

/* One part on top of *at, which it moves. */
static int send_part(struct run *run, size_t first, size_t n, const char *title, char at[41])
{
	struct commit *c = run->c;
	int r = -EIO;

	for (unsigned i = 0; i < PART_TRIES && (r == -EIO || r == -EBUSY || r == -ETIMEDOUT); i++) {
		CLEANUP(hub_commit_result_fini) struct hub_commit_result made = {0};
		AUTO_FREE char *description = NULL;
		char token[33];
		uint8_t random[16];
		int64_t date_s;
		struct hub_commit_req req = {
			.rev = run->rev, .title = title, .parent = at, .ops = run->ops + first, .n = n,
			.cancel = run->ask->cancel,
		};

		util_random(random, sizeof(random));
		util_hex(random, sizeof(random), token);
		description = util_printf("hugfs-part: %s", token);
		if (!description)
			return -ENOMEM;
		req.description = description;
		run->ret->error = (struct hub_error){.retry_after_s = -1};
		r = hub_commit(c->env.hub, &c->env.repo, &req, &made, &run->ret->error);
		if (r < 0 && run->ret->error.maybe_done && !commit_cancelled(run) &&
		    commit_look_for(run, token, at, made.commit, &date_s) == 1)
			r = 0;
		if (r == 0)
			memcpy(at, made.commit, sizeof(made.commit));
	}
	return r;
}

static int send_parts(struct run *run, const char *title, char at[41])
{
	size_t total = run->n_ops;

	for (size_t i = 0; i < total;) {
		uint64_t bytes = 0;
		size_t n = 0;
		int r;

		while (i + n < total && n < MIN(PART_FILES, run->c->env.max_ops) &&
		       (n == 0 || bytes + body_bytes(&run->ops[i + n]) <= PART_BYTES))
			bytes += body_bytes(&run->ops[i + n++]);
		r = send_part(run, i, n, title, at);
		if (r < 0)
			return r;
		i += n;
		log_info("%s: %zu of %zu changes are on %s", run->c->env.rev, i, total, run->rev);
	}
	return 0;
}

/* -ESTALE: the branch has moved. */
static int merge(struct run *run, unsigned number, char ret_commit[41])
{
	struct commit *c = run->c;
	AUTO_FREE char *url = hub_pr_url(c->env.hub, &c->env.repo, number);
	struct hub_error *err = &run->ret->error;
	struct hub_pr pr;
	char head[41], said[200];
	int r = hub_pr_get(c->env.hub, &c->env.repo, number, &pr, err);

	if (r == 0 && pr.status == HUB_PR_DRAFT)
		r = hub_pr_publish(c->env.hub, &c->env.repo, number, err);
	if (r == 0)
		r = hub_pr_merge(c->env.hub, &c->env.repo, number, "Published by hugfs", err);
	if (r < 0 && !err->maybe_done && r != -EACCES && r != -EINVAL && r != -EBUSY && r != -ESTALE)
		return r;
	snprintf(said, sizeof(said), "%.190s", err->text);
	if (r == 0 || err->maybe_done) {
		int landed = merged_as(run, number, ret_commit);

		if (landed != 0)
			return landed < 0 ? landed : 0;
		r = r < 0 ? r : -EIO;
	}
	if (commit_ask_head(run, head) == 0 && strcmp(head, run->base) != 0)
		return -ESTALE;
	snprintf(err->text, sizeof(err->text), "too much for one commit, so it is on %s, which cannot be merged from here (%s): "
	         "merge it there, all of it stays staged until then", url ? url : "a pull request", said);
	return -EFBIG;
}

int commit_send_parts(struct run *run, const char *title)
{
	struct commit *c = run->c;
	AUTO_FREE char *ref = NULL;
	const char *rev = run->rev;
	unsigned number = 0;
	char at[41], commit[41], token[33];
	bool begun;
	int r = get_pr(run, title, &number, &begun);

	if (r < 0)
		return r;
	ref = util_printf(PR_PREFIX "%u", number);
	if (!ref)
		return -ENOMEM;
	r = commit_put_intent(run, token);
	if (r == 0)
		r = put_note(run, number, hash_of(run), token);
	if (r < 0)
		return r;
	run->rev = ref;
	r = commit_ask_head(run, at);
	if (r == 0 && begun)
		r = skip_done(run, at);
	if (r == 0 && !begun && strcmp(at, run->base) != 0)
		r = -ESTALE;
	if (r == 0)
		r = send_parts(run, title, at);
	run->rev = rev;
	if (r == 0)
		r = merge(run, number, commit);
	if (r < 0) {
		int dropped;

		run->ret->unsure = run->ret->error.maybe_done;
		if (run->ret->unsure)
			return r;
		dropped = stage_intent_drop(c->env.stage);
		return dropped < 0 ? dropped : r;
	}
	r = commit_landed(run, commit, true, time(NULL), hub_pr_url(c->env.hub, &c->env.repo, number), title);
	return r < 0 ? r : put_note(run, 0, 0, "");
}
