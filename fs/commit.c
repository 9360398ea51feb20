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
 * One that was not found may still land later (the Hub goes on after its 60 s). Its token is remembered:
 * commits between parent and head that are all our own are no conflict, and the overlay goes on from
 * there. */
#define LOG_MODULE "commit"

#include "commit.h"

#include <assert.h>
#include <errno.h>
#include <search.h>
#include <string.h>
#include <time.h>

#include "commit_plan.h"
#include "log.h"

#define JOINS_MAX 16     /* rounds in which fsyncs may join; later ones wait for the next commit */
#define NAMES_MAX 4      /* times that names are read again because one was not judged */
#define BASES_MAX 5      /* times that a run follows a branch that others push to */
#define STUBBORN_MAX 3   /* 412 answers although the branch is where we think */
#define LOOK_NEAR 20     /* commits that are looked through first */
#define LOOK_FAR 1000
#define WARM_MAX 64      /* folders whose listing is fetched after a commit */
#define OWN_TOKENS 16
#define TOKEN_LABEL "hugfs-commit: "

struct commit {
	struct commit_env env;
	char own[OWN_TOKENS][33]; /* tokens of commits that may land late */
	unsigned n_own;
};

struct run {
	struct commit *c;
	const struct commit_ask *ask;
	struct commit_result *ret;
	struct upload up;
	char parent[41], base[41];
	char head[41];              /* as preupload told; "" unknown */
	void *tree;                 /* tsearch(3) of all files */
	struct upload_file **files;
	size_t n_files, cap_files;
	struct stage_names names;
	struct commit_plan plan;
	struct hub_op *ops;
	size_t n_ops;
	unsigned bases, stubborn;
};

int commit_new(const struct commit_env *env, struct commit **ret)
{
	struct commit *c = calloc(1, sizeof(*c));

	if (!c)
		return -ENOMEM;
	c->env = *env;
	*ret = c;
	return 0;
}

void commit_free(struct commit *c)
{
	free(c);
}

void commit_result_fini(struct commit_result *r)
{
	free(r->url);
	free(r->nodes);
	*r = (struct commit_result){0};
}

static void run_forget_plan(struct run *run)
{
	commit_plan_fini(&run->plan);
	stage_names_fini(&run->names);
	free(STEAL(run->ops));
	run->n_ops = 0;
}

static void run_fini(struct run *run)
{
	run_forget_plan(run);
	tdestroy(run->tree, (void (*)(void *))upload_file_free);
	free(run->files);
}

static void run_init(struct run *run, struct commit *c, const struct commit_ask *ask,
                     struct commit_result *ret)
{
	struct upload_progress *up = &ask->progress->upload;

	*ret = (struct commit_result){.error.retry_after_s = -1};
	*run = (struct run){
		.c = c, .ask = ask, .ret = ret,
		.up = {
			.hub = c->env.hub, .fetch = c->env.fetch, .stage = c->env.stage, .repo = &c->env.repo,
			.rev = c->env.rev, .cancel = ask->cancel, .progress = up,
		},
	};
	atomic_store(&up->hashed, 0);
	atomic_store(&up->sent, 0);
	atomic_store(&up->to_send, 0);
}

static void enter(struct run *run, enum commit_phase phase)
{
	atomic_store(&run->ask->progress->phase, (int)phase);
}

static bool cancelled(const struct run *run)
{
	return atomic_load(run->ask->cancel);
}

static int stat_at(struct run *run, const char *commit, const char *path, struct tree_entry *ret)
{
	struct commit *c = run->c;

	return commit_plan_stat(c->env.tree, &c->env.repo, commit, path, ret, &run->ret->error);
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

/* -- the files of a run -- */

static int file_cmp(const void *a, const void *b)
{
	const struct upload_file *x = a, *y = b;

	if (x->layer || y->layer) {
		if (x->node != y->node)
			return x->node < y->node ? -1 : 1;
		return (x->layer > y->layer) - (x->layer < y->layer);
	}
	return strcmp(x->path, y->path) ?: memcmp(x->blob.id, y->blob.id, sizeof(x->blob.id));
}

/* Takes `f` over. */
static int keep_file(struct run *run, struct upload_file *f, struct upload_file **ret)
{
	if (run->n_files == run->cap_files) {
		size_t cap = run->cap_files ? run->cap_files * 2 : 64;
		struct upload_file **grown = reallocarray(run->files, cap, sizeof(struct upload_file *));

		if (!grown) {
			upload_file_free(f);
			return -ENOMEM;
		}
		run->files = grown;
		run->cap_files = cap;
	}
	if (!tsearch(f, &run->tree, file_cmp)) {
		upload_file_free(f);
		return -ENOMEM;
	}
	run->files[run->n_files++] = f;
	*ret = f;
	return 0;
}

static int get_frozen(struct run *run, const char *path, const struct stage_frozen *frozen,
                      struct upload_file **ret)
{
	struct upload_file want = {.node = frozen->node, .layer = frozen->layer};
	struct upload_file **found = tfind(&want, &run->tree, file_cmp);
	struct upload_file *f;
	int r;

	if (found && strcmp((*found)->path, path) == 0) {
		*ret = *found;
		return 0;
	}
	if (found) { /* under a new name it is to be judged again */
		char *copy = strdup(path);

		if (!copy)
			return -ENOMEM;
		f = *found;
		free(f->path);
		f->path = copy;
		f->judged = false;
		*ret = f;
		return 0;
	}
	r = upload_file_frozen(&run->up, path, frozen, &f);
	return r < 0 ? r : keep_file(run, f, ret);
}

static int get_blob(struct run *run, const struct commit_change *change, struct upload_file **ret)
{
	struct upload_file want = {.path = change->path, .blob = change->blob};
	struct upload_file **found = tfind(&want, &run->tree, file_cmp);
	struct upload_file *f;
	int r;

	if (found) {
		*ret = *found;
		return 0;
	}
	r = upload_file_blob(&run->up, change->path, &change->blob, change->commit, change->blob_path, &f);
	return r < 0 ? r : keep_file(run, f, ret);
}

/* Judges and sends those of `files` that are not on the Hub yet. */
static int bring_files(struct run *run, struct upload_file **files, size_t n)
{
	char head[41] = "";
	int r;

	if (!n)
		return 0;
	r = upload_judge(&run->up, files, n, head, &run->ret->error);
	if (r < 0)
		return r;
	if (*head)
		memcpy(run->head, head, sizeof(head));
	return upload_send(&run->up, files, n, &run->ret->error);
}

/* Freezes what is settled, and brings its content to the Hub. */
static int bring_round(struct run *run)
{
	struct commit *c = run->c;
	CLEANUP(stage_freeze_fini) struct stage_freeze frozen = {0};
	AUTO_FREE struct upload_file **todo = NULL;
	size_t n = 0;
	int r;

	enter(run, COMMIT_READING);
	r = stage_freeze(c->env.stage, NULL, 0, run->ask->interrupted, &frozen);
	if (r < 0)
		return r;
	todo = calloc(frozen.n + 1, sizeof(struct upload_file *));
	if (!todo)
		return -ENOMEM;
	for (size_t i = 0; i < frozen.n; i++) {
		const struct stage_frozen *it = &frozen.files[i];
		struct upload_file *f;
		struct tree_entry ent;

		r = it->path ? commit_is_published(c, it->path, true) : 0;
		if (r == 0)
			continue;
		if (r > 0)
			r = get_frozen(run, it->path, it, &f);
		if (r == 0)
			r = upload_digest(f);
		if (r == 0)
			r = stat_at(run, run->parent, it->path, &ent);
		if (r < 0)
			return r;
		if (r == 1 && ent.kind == HUB_ENTRY_FILE && upload_is(f, &ent.key))
			continue; /* the branch holds it there */
		todo[n++] = f;
	}
	enter(run, COMMIT_UPLOADING);
	return bring_files(run, todo, n);
}

static int bring(struct run *run)
{
	int r = bring_round(run);

	for (unsigned i = 0; r == 0 && i < JOINS_MAX && run->ask->join(run->ask->arg); i++)
		r = bring_round(run);
	return r;
}

/* -- what changes -- */

static int prepare(struct run *run, struct commit_change *change)
{
	struct tree_entry ent;
	int r, held = stat_at(run, run->parent, change->path, &ent);

	if (held < 0)
		return held;
	change->ours = true;
	if (change->kind == COMMIT_DELETE)
		return 0;
	if (change->frozen) {
		struct stage_frozen frozen = {
			.node = change->row->node, .layer = change->row->layer, .size = change->row->size,
			.has_digests = change->row->has_digests, .sha256 = change->row->sha256,
			.git = change->row->git,
		};

		r = get_frozen(run, change->path, &frozen, &change->file);
		if (r == 0)
			r = upload_digest(change->file); /* a name that was not published until now */
	} else {
		r = get_blob(run, change, &change->file);
	}
	if (r == 0 && held && ent.kind == HUB_ENTRY_FILE && upload_is(change->file, &ent.key)) {
		change->ours = false;
		change->key = ent.key;
	}
	return r;
}

static bool is_brought(const struct upload_file *f)
{
	return f->judged && (f->ready || !f->lfs);
}

static struct commit_plan_env plan_env(const struct run *run)
{
	const struct commit_env *env = &run->c->env;

	return (struct commit_plan_env){
		.tree = env->tree, .ignore = env->ignore, .repo = &env->repo, .parent = run->parent,
	};
}

/* Reads the names as they are now, and makes of them what is to be sent. ret_again: something had to be
 * brought to the Hub first, so names may have changed meanwhile. */
static int read_names(struct run *run, bool *ret_again)
{
	struct commit *c = run->c;
	struct commit_plan_env env = plan_env(run);
	AUTO_FREE struct upload_file **todo = NULL;
	size_t n = 0;
	int r;

	run_forget_plan(run);
	r = stage_names(c->env.stage, &run->names);
	if (r == 0)
		r = commit_plan_make(&env, &run->names, &run->plan, &run->ret->error);
	if (r < 0)
		return r;
	todo = calloc(run->plan.n + 1, sizeof(struct upload_file *));
	if (!todo)
		return -ENOMEM;
	for (size_t i = 0; i < run->plan.n; i++) {
		struct commit_change *change = &run->plan.changes[i];

		r = prepare(run, change);
		if (r < 0)
			return r;
		if (change->file && change->ours && !is_brought(change->file))
			todo[n++] = change->file;
	}
	r = bring_files(run, todo, n);
	for (size_t i = 0; r == 0 && i < run->plan.n; i++) {
		if (run->plan.changes[i].file && run->plan.changes[i].ours)
			run->plan.changes[i].key = *upload_key(run->plan.changes[i].file);
	}
	*ret_again = n > 0;
	return r;
}

static int decide(struct run *run)
{
	bool again = true;
	int r = 0;

	enter(run, COMMIT_NAMING);
	for (unsigned i = 0; r == 0 && again && i < NAMES_MAX; i++)
		r = read_names(run, &again);
	return r;
}

/* -- a branch that others push to -- */

static void tell_conflict(struct run *run, const char *path)
{
	snprintf(run->ret->error.text, sizeof(run->ret->error.text),
	         "somebody else changed %.250s: copy yours elsewhere, then `hugfs discard` it to see theirs",
	         path);
}

static bool is_own(const struct commit *c, const char *message)
{
	for (unsigned i = 0; i < MIN(c->n_own, OWN_TOKENS); i++) {
		if (message && strstr(message, c->own[i]))
			return true;
	}
	return false;
}

/* Are all commits from `head` back to the parent our own, landed after we had given them up? 1 yes, 0 no. */
static int all_own(struct run *run, const char *head)
{
	struct commit *c = run->c;
	CLEANUP(hub_commits_fini) struct hub_commits list = {0};
	int r;

	if (!c->n_own)
		return 0;
	r = hub_commits(c->env.hub, &c->env.repo, c->env.rev, LOOK_NEAR, &list, &run->ret->error);
	if (r < 0)
		return r;
	for (size_t i = 0; i < list.n; i++) {
		if (strcmp(list.commits[i].id, run->parent) == 0)
			return i > 0;
		if ((i == 0 && strcmp(list.commits[i].id, head) != 0) || !is_own(c, list.commits[i].message))
			return 0;
	}
	return 0;
}

/* The branch is at `head`: can ours go on top of it? 0: yes, base is moved. 1: yes, once names are read
 * again (it was our own commit). -ESTALE: somebody changed one of our paths. */
static int move_base(struct run *run, const char *head)
{
	struct commit_plan_env env;
	AUTO_FREE char *path = NULL;
	int r, own;

	if (++run->bases > BASES_MAX) {
		snprintf(run->ret->error.text, sizeof(run->ret->error.text), "%s is pushed to all the time",
		         run->c->env.rev);
		return -EBUSY;
	}
	own = all_own(run, head);
	if (own < 0)
		return own;
	if (own) {
		log_info("%s: an earlier commit of ours had landed late as %.8s", run->c->env.rev, head);
		r = stage_set_parent(run->c->env.stage, head);
		memcpy(run->parent, head, sizeof(run->parent));
		memcpy(run->base, head, sizeof(run->base));
		return r < 0 ? r : 1;
	}
	env = plan_env(run);
	r = commit_plan_check(&env, &run->plan, head, &path, &run->ret->error);
	if (r == -ESTALE && path)
		tell_conflict(run, path);
	if (r == 0)
		memcpy(run->base, head, sizeof(run->base));
	return r;
}

static int get_head(struct run *run, char ret[41])
{
	struct commit *c = run->c;
	struct tree_head head;
	int r = tree_head(c->env.tree, &c->env.repo, c->env.rev, true, &head, &run->ret->error);

	if (r == -ENOENT) {
		snprintf(run->ret->error.text, sizeof(run->ret->error.text), "%s is gone from the Hub",
		         c->env.rev);
		return -ESTALE;
	}
	if (r == 0)
		memcpy(ret, head.commit, 41);
	return r;
}

static int ask_head(struct run *run, char ret[41])
{
	tree_forget_head(run->c->env.tree, &run->c->env.repo, run->c->env.rev);
	return get_head(run, ret);
}

/* Goes by what is known of the head: one that is not the base is asked for again, since preupload may have
 * been answered by a copy of the Hub that lags behind. As move_base. */
static int follow_head(struct run *run)
{
	struct commit *c = run->c;
	struct tree_head known;
	char head[41];
	int r;

	if (*run->head)
		memcpy(head, run->head, sizeof(head));
	else if (tree_head_known(c->env.tree, &c->env.repo, c->env.rev, &known) == 0)
		memcpy(head, known.commit, sizeof(head));
	else
		return 0;
	if (strcmp(head, run->base) == 0)
		return 0;
	r = ask_head(run, head);
	if (r < 0)
		return r;
	memcpy(run->head, head, sizeof(head));
	return strcmp(head, run->base) == 0 ? 0 : move_base(run, head);
}

/* -- the commit -- */

/* The operations that bring `base` to what we want, deletions first. ret_title: what they are, in words. */
static int make_ops(struct run *run, char **ret_title)
{
	struct commit_tally kinds[3] = {0};
	size_t n = 0;

	free(STEAL(run->ops));
	run->n_ops = 0;
	run->ops = calloc(run->plan.n + 1, sizeof(*run->ops));
	if (!run->ops)
		return -ENOMEM;
	for (int pass = COMMIT_DELETE; pass <= COMMIT_ADD; pass++) {
		for (size_t i = 0; i < run->plan.n; i++) {
			const struct commit_change *change = &run->plan.changes[i];
			struct hub_op *op = &run->ops[n];
			struct tree_entry ent;
			int held;

			if ((int)change->kind != pass || !change->ours)
				continue;
			held = stat_at(run, run->base, change->path, &ent);
			if (held < 0)
				return held;
			if (pass == COMMIT_DELETE && !held)
				continue;
			if (pass == COMMIT_ADD && held && ent.kind == HUB_ENTRY_FILE &&
			    upload_is(change->file, &ent.key))
				continue;
			*op = (struct hub_op){.kind = HUB_OP_DELETE, .path = change->path};
			if (pass == COMMIT_ADD) {
				op->kind = change->file->lfs ? HUB_OP_LFS : HUB_OP_FILE;
				op->key = change->key;
				op->source = upload_read;
				op->arg = change->file;
			}
			commit_tally_add(&kinds[pass == COMMIT_DELETE ? 2 : held ? 1 : 0], change->path);
			n++;
		}
	}
	run->n_ops = n;
	return n ? commit_tally_title(kinds, ret_title) : 0;
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

static int put_intent(struct run *run, char token[33])
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

static void remember_own(struct commit *c, const char *token)
{
	memcpy(c->own[c->n_own++ % OWN_TOKENS], token, sizeof(c->own[0]));
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

/* Fetches the listings of the folders that the commit touched, so that nobody waits for them. */
static void warm_listings(struct run *run, const char *commit)
{
	struct commit *c = run->c;
	AUTO_FREE char *last = NULL;
	unsigned done = 0;

	for (size_t i = 0; i < run->n_ops && done < WARM_MAX && !cancelled(run); i++) {
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

static int settle(struct run *run, const char *commit, int64_t date_s)
{
	struct commit *c = run->c;
	int r = c->env.settle(c->env.arg, commit, date_s);

	if (r < 0) {
		snprintf(run->ret->error.text, sizeof(run->ret->error.text),
		         "commit %.8s is on %s, but the staging area cannot be told (%s): see to its disk",
		         commit, c->env.rev, strerror(-r));
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

	if (tree_head_known(c->env.tree, &c->env.repo, c->env.rev, &head) == 0 &&
	    strcmp(head.commit, run->base) == 0)
		date_s = head.date_s;
	enter(run, COMMIT_SETTLING);
	r = put_intent(run, token);
	if (r < 0)
		return r;
	adopt_bytes(run);
	return settle(run, run->base, date_s);
}

/* Looks for the commit with `token` from the head of the branch back to `parent`. 1 and the commit, 0: it
 * is not there. */
static int look_for(struct run *run, const char *token, const char *parent, char ret_commit[41],
                    int64_t *ret_date_s)
{
	static const unsigned depths[] = {LOOK_NEAR, LOOK_FAR};
	struct commit *c = run->c;

	for (size_t d = 0; d < ARRAY_LEN(depths); d++) {
		CLEANUP(hub_commits_fini) struct hub_commits list = {0};
		int r = hub_commits(c->env.hub, &c->env.repo, c->env.rev, depths[d], &list, &run->ret->error);

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
	if (cancelled(run))
		return -ECANCELED;
	r = look_for(run, token, run->base, ret_commit, ret_date_s);
	if (r > 0) {
		run->ret->unsure = false;
		return 1;
	}
	run->ret->error = post;
	return post_err;
}

static int post(struct run *run, const char *token, const char *title, struct hub_commit_result *ret)
{
	struct commit *c = run->c;
	const char *words = run->ask->description;
	AUTO_FREE char *description = util_printf("%s%s" TOKEN_LABEL "%s", words ? words : "",
	                                          words ? "\n\n" : "", token);
	struct hub_commit_req req = {
		.rev = c->env.rev, .title = run->ask->title ? run->ask->title : title,
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
	log_info("%s@%s: commit %.8s: %s", repo, run->c->env.rev, run->ret->commit,
	         run->ask->title ? run->ask->title : title);
}

/* 0: it is on the branch and settled. -ESTALE: the branch is not at `base`. */
static int send_once(struct run *run, const char *title)
{
	struct commit *c = run->c;
	CLEANUP(hub_commit_result_fini) struct hub_commit_result made = {0};
	int64_t date_s = time(NULL);
	char token[33];
	int r, dropped;

	r = put_intent(run, token);
	if (r < 0)
		return r;
	run->ret->error = (struct hub_error){.retry_after_s = -1};
	r = post(run, token, title, &made);
	if (r < 0 && (run->ret->error.maybe_done || r == -ECANCELED))
		r = look_after(run, token, r, made.commit, &date_s);
	if (r < 0) {
		if (run->ret->unsure)
			return r;
		dropped = stage_intent_drop(c->env.stage);
		return dropped < 0 ? dropped : r;
	}
	enter(run, COMMIT_SETTLING);
	run->ret->sent = true;
	memcpy(run->ret->commit, made.commit, sizeof(run->ret->commit));
	run->ret->url = STEAL(made.url);
	adopt_bytes(run);
	warm_listings(run, made.commit);
	r = settle(run, made.commit, date_s);
	if (r == 0)
		log_landed(run, title);
	return r;
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
static int send_changes(struct run *run)
{
	int r = follow_head(run);

	while (r == 0) {
		AUTO_FREE char *title = NULL;
		char head[41];

		r = make_ops(run, &title);
		if (r < 0)
			return r;
		if (!run->n_ops)
			return has_news(run) ? settle_equal(run) : 0;
		r = check_emptying(run);
		if (r < 0)
			return r;
		enter(run, COMMIT_SENDING);
		r = send_once(run, title);
		if (r != -ESTALE)
			return r;
		r = ask_head(run, head);
		if (r < 0)
			return r;
		if (strcmp(head, run->base) != 0)
			r = move_base(run, head);
		else if (++run->stubborn == STUBBORN_MAX)
			return -ESTALE;
	}
	return r;
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
	enter(run, COMMIT_LOOKING);
	r = look_for(run, intent.token, intent.parent, commit, &date_s);
	if (r < 0) {
		run->ret->unsure = true;
		return r;
	}
	if (r == 0) {
		remember_own(c, intent.token);
		log_info("%s: a commit whose answer was lost is not there: it is sent again", c->env.rev);
		return stage_intent_drop(c->env.stage);
	}
	log_info("%s: a commit whose answer was lost is there: %.8s", c->env.rev, commit);
	r = settle(run, commit, date_s);
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
		r = get_head(run, run->parent);
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
		if (run->files[i]->layer)
			ret->nodes[ret->n_nodes++] = run->files[i]->node;
	}
	/* The repository or the branch is gone; or a staged file, and then the next try has a new list. */
	if (r == -ENOENT)
		r = ret->error.status ? -ESTALE : -EIO;
	if (cancelled(run) && r < 0)
		r = -ECANCELED;
	if (r < 0 && !*ret->error.text)
		snprintf(ret->error.text, sizeof(ret->error.text), "the staging area failed: %s",
		         strerror(-r));
	enter(run, COMMIT_IDLE);
	return r;
}

int commit_run(struct commit *c, const struct commit_ask *ask, struct commit_result *ret)
{
	CLEANUP(run_fini) struct run run;
	int r;

	run_init(&run, c, ask, ret);
	r = recover(&run);
	if (r == 0)
		r = get_parent(&run);
	if (r == 0)
		r = bring(&run);
	do {
		if (r >= 0)
			r = decide(&run);
		if (r == 0)
			r = send_changes(&run);
	} while (r > 0);
	if (!ret->unsure)
		stage_release(c->env.stage);
	return finish(&run, r);
}

int commit_recover(struct commit *c, const struct commit_ask *ask, struct commit_result *ret)
{
	CLEANUP(run_fini) struct run run;

	run_init(&run, c, ask, ret);
	return finish(&run, recover(&run));
}
