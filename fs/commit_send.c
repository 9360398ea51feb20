/* commit_send: the commit call: its operations, the intent in the journal before it, what its answer means, and what
 * follows when it is on the branch. Not for content (commit_bring) nor for conflicts (commit_base).
 *
 * The thread of the run. */
#define LOG_MODULE "commit"

#include "commit_internal.h"

#include <errno.h>
#include <fnmatch.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "log.h"

#define STUBBORN_MAX 3   /* 412 answers although the branch is where we think */
#define WARM_MAX 64      /* folders whose listing is fetched after a commit */
#define ATTRIBUTES_MAX ((size_t)64 << 10)
#define TOKEN_LABEL "hugfs-commit: "

/* -- the commit -- */

static int change_by_path(const void *key, const void *item)
{
	return strcmp(key, ((const struct commit_change *)item)->path);
}

/* tree_walk_fn: a file that stands where ours needs to be. What the plan deletes or replaces anyhow does not count. */
static int add_in_way(void *arg, const char *path, const struct tree_entry *entry)
{
	struct run *run = arg;
	const struct commit_plan *plan = &run->plan;
	char **grown;

	if (bsearch(path, plan->changes, plan->n, sizeof(*plan->changes), change_by_path))
		return 0;
	for (size_t i = 0; i < run->n_in_way; i++) {
		if (strcmp(run->in_way[i], path) == 0)
			return 0;
	}
	grown = reallocarray(run->in_way, run->n_in_way + 1, sizeof(*grown));
	if (!grown)
		return -ENOMEM;
	run->in_way = grown;
	grown[run->n_in_way] = strdup(path);
	if (!grown[run->n_in_way])
		return -ENOMEM;
	run->n_in_way++;
	return 0;
}

static int find_in_way(struct run *run, const char *path)
{
	struct commit *c = run->c;
	AUTO_FREE char *up = strdup(path);
	struct tree_entry ent;
	int held = up ? commit_stat_at(run, run->base, path, &ent) : -ENOMEM;

	if (held == 1 && ent.kind == HUB_ENTRY_DIR)
		return tree_walk(c->env.tree, &c->env.repo, run->base, path, add_in_way, run, &run->ret->error);
	for (char *slash = held == 0 ? strrchr(up, '/') : NULL; slash; slash = strrchr(up, '/')) {
		*slash = '\0';
		held = commit_stat_at(run, run->base, up, &ent);
		if (held == 1)
			return ent.kind == HUB_ENTRY_DIR ? 0 : add_in_way(run, up, &ent);
		if (held < 0)
			break;
	}
	return MIN(held, 0);
}

static int add_op(struct run *run, const struct commit_change *change, struct commit_tally kinds[3])
{
	struct hub_op *op = &run->ops[run->n_ops];
	bool adds = change->kind == COMMIT_ADD;
	struct tree_entry ent;
	int held = commit_stat_at(run, run->base, change->path, &ent);

	if (held < 0)
		return held;
	if (!adds && !held)
		return 0;
	if (adds && held && ent.kind == HUB_ENTRY_FILE && upload_is(change->file, &ent.key))
		return 0;
	*op = (struct hub_op){.kind = HUB_OP_DELETE, .path = change->path};
	if (adds) {
		op->kind = change->file->lfs ? HUB_OP_LFS : HUB_OP_FILE;
		op->key = change->key;
		op->source = upload_read;
		op->arg = change->file;
	}
	commit_tally_add(&kinds[!adds ? 2 : held ? 1 : 0], change->path);
	run->n_ops++;
	return 0;
}

/* The operations that bring `base` to what we want, deletions first. ret_title: what they are, in words. */
int commit_make_ops(struct run *run, char **ret_title)
{
	struct commit_tally kinds[3] = {0};
	int r = 0;

	for (size_t i = 0; r == 0 && run->on_conflict == COMMIT_OURS && i < run->plan.n; i++) {
		if (run->plan.changes[i].kind == COMMIT_ADD && run->plan.changes[i].ours)
			r = find_in_way(run, run->plan.changes[i].path);
	}
	if (r < 0)
		return r;
	free(STEAL(run->ops));
	run->n_ops = 0;
	run->ops = calloc(run->plan.n + run->n_in_way + 1, sizeof(*run->ops));
	if (!run->ops)
		return -ENOMEM;
	for (size_t i = 0; i < run->n_in_way; i++) {
		run->ops[run->n_ops++] = (struct hub_op){.kind = HUB_OP_DELETE, .path = run->in_way[i]};
		commit_tally_add(&kinds[2], run->in_way[i]);
	}
	for (int pass = COMMIT_DELETE; pass <= COMMIT_ADD; pass++) {
		for (size_t i = 0; i < run->plan.n; i++) {
			if ((int)run->plan.changes[i].kind != pass || !run->plan.changes[i].ours)
				continue;
			r = add_op(run, &run->plan.changes[i], kinds);
			if (r < 0)
				return r;
		}
	}
	return run->n_ops ? commit_tally_title(kinds, ret_title) : 0;
}

/* Is there anything staged whose place on the branch is settled by this run, though no request is needed
 * for it? */
static bool has_news(const struct run *run)
{
	for (size_t i = 0; i < run->plan.n; i++) {
		const struct commit_change *change = &run->plan.changes[i];

		if (change->kind == COMMIT_DELETE || change->frozen || !change->row || change->row->is_blob)
			return true;
	}
	return false;
}

int commit_put_intent(struct run *run, char token[33])
{
	AUTO_FREE struct stage_item *items = calloc(run->plan.n + 1, sizeof(*items));
	struct stage_intent intent = {.gen = run->names.gen, .items = items};
	uint8_t random[16];

	if (!items)
		return -ENOMEM;
	for (size_t i = 0; i < run->plan.n; i++) {
		const struct commit_change *change = &run->plan.changes[i];

		if (change->kind != COMMIT_ADD)
			continue;
		/* Node 0: comes along with a renamed folder, which settles by what lies below it. */
		items[intent.n++] = (struct stage_item){
			.node = change->row ? change->row->node : 0,
			.layer = change->frozen ? change->row->layer : 0,
			.path = change->path,
			.key = change->key,
		};
	}
	util_random(random, sizeof(random));
	util_hex(random, sizeof(random), token);
	memcpy(intent.token, token, sizeof(intent.token));
	memcpy(intent.parent, run->base, sizeof(intent.parent));
	return stage_intent_put(run->c->env.stage, &intent);
}

/* Staged bytes become cache: they are never fetched again. */
static void adopt_bytes(struct run *run)
{
	struct commit *c = run->c;

	for (size_t i = 0; c->env.blocks && i < run->plan.n; i++) {
		const struct commit_change *change = &run->plan.changes[i];
		AUTO_FREE char *path = NULL;
		bool exists = false;
		int r;

		if (change->kind != COMMIT_ADD || !change->frozen || change->key.size == 0)
			continue;
		r = stage_whole_path(c->env.stage, change->row->node, change->row->layer, &path, &exists);
		if (r == 0 && exists)
			r = blocks_adopt(c->env.blocks, &change->key, path);
		if (r < 0)
			log_debug("%s: not kept in the cache: %s", change->path, strerror(-r));
	}
}

/* Does the text of a .gitattributes keep the path in LFS for sure? */
static bool is_tracked(char *text, const char *path)
{
	const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
	bool tracked = false;
	char *save = NULL;

	for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
		size_t len = strcspn(line, " \t");
		const char *rest = line + len;
		AUTO_FREE char *pattern = strndup(line, len);
		bool lfs = strstr(rest, " filter=lfs"), other = !lfs && strstr(rest, "filter");

		if (!pattern || !len || *pattern == '#')
			continue;
		if (strstr(pattern, "**") || *pattern == '"' || strchr(pattern, '\\')) {
			tracked = tracked && !other; /* as if it did not match, but for what would untrack */
			continue;
		}
		if (strchr(pattern, '/') ? fnmatch(pattern + (*pattern == '/'), path, FNM_PATHNAME) == 0
		                         : fnmatch(pattern, name, 0) == 0)
			tracked = lfs || (tracked && !other);
	}
	return tracked;
}

/* The Hub adds a line to .gitattributes for each file of LFS that none covers yet, and does not tell. Will it? */
static int leaves_attributes(struct run *run)
{
	CLEANUP(upload_file_freep) struct upload_file *attrs = NULL;
	struct tree_entry ent;
	int held = -1, r = 0;

	for (size_t i = 0; r == 0 && i < run->n_ops; i++) {
		AUTO_FREE char *text = NULL;
		const struct hub_op *op = &run->ops[i];
		int has = op->kind == HUB_OP_LFS ? commit_stat_at(run, run->base, op->path, &ent) : 0;

		if (strcmp(op->path, ".gitattributes") == 0)
			return 0;
		if (op->kind != HUB_OP_LFS || (has == 1 && ent.kind == HUB_ENTRY_FILE && ent.key.alg == HASH_SHA256))
			continue;
		if (held < 0) {
			held = commit_stat_at(run, run->base, ".gitattributes", &ent);
			if (held != 1 || ent.kind != HUB_ENTRY_FILE || ent.key.alg != HASH_GIT_SHA1 ||
			    ent.key.size > ATTRIBUTES_MAX)
				return MIN(held, 0);
			r = upload_file_blob(run->up, ".gitattributes", &ent.key, run->base, ".gitattributes", &attrs);
			if (r < 0)
				return r;
		}
		text = calloc(1, ATTRIBUTES_MAX + 1);
		if (!text)
			return -ENOMEM;
		if (upload_read(attrs, text, ATTRIBUTES_MAX, 0) < 0 || !is_tracked(text, op->path))
			return 0;
	}
	return r < 0 ? r : 1;
}

static int by_path(const void *a, const void *b)
{
	return strcmp(((const struct tree_change *)a)->path, ((const struct tree_change *)b)->path);
}

/* The listings of our commit are those of its parent with what it changed. 0: nobody has to ask for them. */
static int adopt_listings(struct run *run, const char *commit)
{
	struct commit *c = run->c;
	AUTO_FREE struct tree_change *changes = calloc(run->n_ops + 1, sizeof(*changes));
	int r = changes ? leaves_attributes(run) : -ENOMEM;

	if (r <= 0)
		return r < 0 ? r : -EAGAIN;
	for (size_t i = 0; i < run->n_ops; i++) {
		const struct hub_op *op = &run->ops[i];
		struct blob_key oid = op->key;

		changes[i] = (struct tree_change){.path = op->path, .deleted = op->kind == HUB_OP_DELETE, .key = op->key};
		if (op->kind == HUB_OP_LFS && hash_lfs_pointer(&op->key, &oid) < 0)
			return -ENOMEM;
		memcpy(changes[i].oid, oid.id, sizeof(changes[i].oid));
	}
	qsort(changes, run->n_ops, sizeof(*changes), by_path);
	return tree_adopt_changes(c->env.tree, &c->env.repo, run->base, commit, changes, run->n_ops);
}

/* Fetches the listings of the folders that the commit touched, so that nobody waits for them. */
static void warm_listings(struct run *run, const char *commit)
{
	struct commit *c = run->c;
	AUTO_FREE char *last = NULL;
	unsigned done = 0;

	for (size_t i = 0; i < run->n_ops && done < WARM_MAX && !commit_cancelled(run); i++) {
		const char *slash = strrchr(run->ops[i].path, '/');
		size_t len = slash ? (size_t)(slash - run->ops[i].path) : 0;
		struct tree_listing *list;
		int r;

		if (last && strlen(last) == len && memcmp(last, run->ops[i].path, len) == 0)
			continue;
		free(STEAL(last));
		last = strndup(run->ops[i].path, len);
		if (!last)
			return;
		r = tree_list(c->env.tree, &c->env.repo, commit, last, true, &list, NULL);
		if (r == 0)
			tree_listing_unref(list);
		else if (r != -ENOENT && r != -ENOTDIR)
			return; /* whoever looks there asks for it */
		done++;
	}
}

int commit_settle(struct run *run, const char *commit, int64_t date_s)
{
	struct commit *c = run->c;
	int r = c->env.settle(c->env.arg, run->rev, commit, date_s);

	if (r < 0) {
		snprintf(run->ret->error.text, sizeof(run->ret->error.text),
		         "commit %.8s is on %s, but the staging area cannot be told (%s): see to its disk",
		         commit, run->rev, strerror(-r));
		run->ret->unsure = true; /* the intent is there still */
		return r;
	}
	return 0;
}

/* Nothing to send: what is staged is what the branch holds. */
static int settle_equal(struct run *run)
{
	struct commit *c = run->c;
	struct tree_head head;
	char token[33];
	int64_t date_s = time(NULL);
	int r;

	if (tree_head_known(c->env.tree, &c->env.repo, run->rev, &head) == 0 &&
	    strcmp(head.commit, run->base) == 0)
		date_s = head.date_s;
	commit_enter(run, COMMIT_SETTLING);
	r = commit_put_intent(run, token);
	if (r < 0)
		return r;
	adopt_bytes(run);
	return commit_settle(run, run->base, date_s);
}

/* Looks for the commit with `token` from the head of the branch back to `parent`. 1 and the commit, 0: it
 * is not there. */
int commit_look_for(struct run *run, const char *token, const char *parent, char ret_commit[41],
                    int64_t *ret_date_s)
{
	static const unsigned depths[] = {COMMIT_LOOK_NEAR, COMMIT_LOOK_FAR};
	struct commit *c = run->c;

	for (size_t d = 0; d < ARRAY_LEN(depths); d++) {
		CLEANUP(hub_commits_fini) struct hub_commits list = {0};
		int r = hub_commits(c->env.hub, &c->env.repo, run->rev, depths[d], &list, &run->ret->error);

		if (r < 0)
			return r;
		for (size_t i = 0; i < list.n; i++) {
			const struct hub_commit_info *it = &list.commits[i];

			if (it->message && strstr(it->message, token)) {
				memcpy(ret_commit, it->id, sizeof(it->id));
				*ret_date_s = it->date_s;
				return 1;
			}
			if (strcmp(it->id, parent) == 0)
				return 0;
		}
		if (list.n < depths[d])
			return 0;
	}
	return 0;
}

/* The answer of the POST is lost. 1: it landed (as ret_commit); else the -errno of the POST, or of
 * looking. */
static int look_after(struct run *run, const char *token, int post_err, char ret_commit[41],
                      int64_t *ret_date_s)
{
	struct hub_error post = run->ret->error;
	int r;

	run->ret->unsure = true;
	if (commit_cancelled(run))
		return -ECANCELED;
	r = commit_look_for(run, token, run->base, ret_commit, ret_date_s);
	if (r > 0) {
		run->ret->unsure = false;
		return 1;
	}
	run->ret->error = post;
	return post_err;
}

int commit_post(struct run *run, const char *token, const char *title, struct hub_commit_result *ret)
{
	struct commit *c = run->c;
	const char *words = run->ask->description;
	AUTO_FREE char *description = util_printf("%s%s" TOKEN_LABEL "%s", words ? words : "",
	                                          words ? "\n\n" : "", token);
	struct hub_commit_req req = {
		.rev = run->rev, .title = run->ask->title ? run->ask->title : title,
		.description = description,
		.parent = run->base, .ops = run->ops, .n = run->n_ops, .cancel = run->ask->cancel,
	};

	if (!description)
		return -ENOMEM;
	return hub_commit(c->env.hub, &c->env.repo, &req, ret, &run->ret->error);
}

static void log_landed(const struct run *run, const char *title)
{
	char repo[REPO_TEXT_MAX];

	repo_text(&run->c->env.repo, repo);
	log_info("%s@%s: commit %.8s: %s", repo, run->rev, run->ret->commit,
	         run->ask->title ? run->ask->title : title);
}

/* The Hub's words about bad metadata do not say where they are. */
static void tell_metadata(struct run *run)
{
	char *text = run->ret->error.text;
	size_t n = strlen(text);

	for (size_t i = 0; i < run->n_ops; i++) {
		if (run->ops[i].kind != HUB_OP_DELETE && strcmp(run->ops[i].path, "README.md") == 0 &&
		    !strstr(text, "README.md"))
			snprintf(text + n, sizeof(run->ret->error.text) - n,
			         ": see the metadata between the --- lines of README.md");
	}
}

int commit_landed(struct run *run, const char *commit, bool merged, int64_t date_s, char *url, const char *title)
{
	int r;

	commit_enter(run, COMMIT_SETTLING);
	run->ret->sent = true;
	memcpy(run->ret->commit, commit, sizeof(run->ret->commit));
	free(run->ret->url); /* of what was proposed before */
	run->ret->url = url;
	commit_note_pr(run);
	commit_forget_own(run->c);
	adopt_bytes(run);
	if (merged || adopt_listings(run, commit) < 0)
		warm_listings(run, commit);
	r = commit_settle(run, commit, date_s);
	if (r == 0)
		log_landed(run, title);
	return r;
}

/* 0: it is on the branch and settled. -ESTALE: the branch is not at `base`. */
static int send_once(struct run *run, const char *title)
{
	struct commit *c = run->c;
	CLEANUP(hub_commit_result_fini) struct hub_commit_result made = {0};
	int64_t date_s = time(NULL);
	char token[33];
	int r, dropped;

	r = commit_put_intent(run, token);
	if (r < 0)
		return r;
	run->ret->error = (struct hub_error){.retry_after_s = -1};
	r = commit_post(run, token, title, &made);
	if (r < 0 && (run->ret->error.maybe_done || r == -ECANCELED))
		r = look_after(run, token, r, made.commit, &date_s);
	if (r < 0) {
		if (run->ret->unsure)
			return r;
		if (r == -EINVAL)
			tell_metadata(run);
		dropped = stage_intent_drop(c->env.stage);
		return dropped < 0 ? dropped : r;
	}
	return commit_landed(run, made.commit, false, date_s, STEAL(made.url), title);
}

static int op_path_cmp(const void *path, const void *op)
{
	return strcmp(path, ((const struct hub_op *)op)->path);
}

/* tree_walk_fn: 1 for a file that stays. */
static int stays(void *arg, const char *path, const struct tree_entry *entry)
{
	const struct run *run = arg;

	return strcmp(path, ".gitattributes") != 0 &&
	       !bsearch(path, run->ops, run->n_ops, sizeof(*run->ops), op_path_cmp);
}

/* rm -rf of everything is asked for again: -EPERM when nothing is added and no file but .gitattributes would stay. */
static int check_emptying(struct run *run)
{
	struct commit *c = run->c;
	int r;

	if (run->ask->may_empty || run->ops[run->n_ops - 1].kind != HUB_OP_DELETE)
		return 0; /* deletions come first, each list by path */
	r = tree_walk(c->env.tree, &c->env.repo, run->base, "", stays, run, &run->ret->error);
	if (r != 0)
		return r < 0 ? r : 0;
	snprintf(run->ret->error.text, sizeof(run->ret->error.text),
	         "this would delete every file of %s, so it is held: `hugfs commit` publishes it, `hugfs discard` "
	         "brings the files back", c->env.rev);
	return -EPERM;
}

/* 1: names are to be read again. */
int commit_send(struct run *run)
{
	int r = commit_follow_head(run);

	while (r == 0) {
		AUTO_FREE char *title = NULL;
		char head[41];

		r = commit_make_ops(run, &title);
		if (r < 0)
			return r;
		if (!run->n_ops)
			return has_news(run) ? settle_equal(run) : 0;
		r = check_emptying(run);
		if (r < 0)
			return r;
		if (run->opens_pr) {
			r = commit_open_pr(run, run->ask->title ? run->ask->title : title);
			continue;
		}
		commit_enter(run, COMMIT_SENDING);
		r = commit_needs_parts(run) ? commit_send_parts(run, run->ask->title ? run->ask->title : title)
		                            : send_once(run, title);
		if (r != -ESTALE)
			return r;
		r = commit_ask_head(run, head);
		if (r < 0)
			return r;
		if (strcmp(head, run->base) != 0)
			r = commit_move_base(run, head);
		else if (++run->stubborn == STUBBORN_MAX)
			return -ESTALE;
	}
	return r;
}
