/* commit_bring: the content of a run: frozen, digested, judged by the Hub and, where it is large, sent ahead; and
 * the plan of its names, which may need more content. Not for the commit call (commit_send).
 *
 * The thread of the run. */
#define LOG_MODULE "commit"

#include "commit_internal.h"

#include <errno.h>
#include <search.h>
#include <string.h>

#include "log.h"

#define JOINS_MAX 16     /* rounds in which fsyncs may join; later ones wait for the next commit */
#define NAMES_MAX 4      /* times that names are read again because one was not judged */

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

/* Is it still that content? A layer that nobody held may have been written to again. */
static bool is_same(const struct upload_file *f, const struct stage_frozen *frozen)
{
	return f->size == frozen->size &&
	       (!f->has_sha256 || (frozen->has_digests && hash_key_equal(&f->sha256, &frozen->sha256)));
}

static void drop_file(struct run *run, struct upload_file *f)
{
	size_t i = 0;

	while (run->files[i] != f)
		i++;
	run->files[i] = run->files[--run->n_files];
	tdelete(f, &run->tree, file_cmp);
	upload_file_free(f);
}

static int get_frozen(struct run *run, const char *path, const struct stage_frozen *frozen,
                      struct upload_file **ret)
{
	struct upload_file want = {.node = frozen->node, .layer = frozen->layer};
	struct upload_file **found = tfind(&want, &run->tree, file_cmp);
	struct upload_file *f = found ? *found : NULL;
	int r;

	if (f && !is_same(f, frozen)) {
		drop_file(run, f);
		f = NULL;
	}
	if (!f) {
		r = upload_file_frozen(run->up, path, frozen, &f);
		if (r == 0)
			r = keep_file(run, f, &f);
		if (r < 0)
			return r;
	} else if (strcmp(f->path, path) != 0) { /* under a new name it is to be judged again */
		char *copy = strdup(path);

		if (!copy)
			return -ENOMEM;
		free(f->path);
		f->path = copy;
		f->judged = false;
	}
	f->used = true;
	*ret = f;
	return 0;
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
	r = upload_file_blob(run->up, change->path, &change->blob, change->commit, change->blob_path, &f);
	return r < 0 ? r : keep_file(run, f, ret);
}

/* Judges and sends those of `files` that are not on the Hub yet. */
static int bring_files(struct run *run, struct upload_file **files, size_t n)
{
	char head[41] = "";
	int r;

	if (!n)
		return 0;
	r = upload_judge(run->up, files, n, head, &run->ret->error);
	if (r < 0)
		return r;
	if (*head)
		memcpy(run->head, head, sizeof(head));
	return upload_send(run->up, files, n, &run->ret->error);
}

/* Freezes what is settled, and brings its content to the Hub. */
static int bring_round(struct run *run)
{
	struct commit *c = run->c;
	CLEANUP(stage_freeze_fini) struct stage_freeze frozen = {0};
	AUTO_FREE struct upload_file **todo = NULL;
	size_t n = 0;
	int r;

	commit_enter(run, COMMIT_READING);
	r = stage_freeze(c->env.stage, NULL, 0, run->ask->take, &frozen);
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
			r = commit_stat_at(run, run->parent, it->path, &ent);
		if (r < 0)
			return r;
		if (r == 1 && ent.kind == HUB_ENTRY_FILE && upload_is(f, &ent.key))
			continue; /* the branch holds it there */
		todo[n++] = f;
	}
	commit_enter(run, COMMIT_UPLOADING);
	return bring_files(run, todo, n);
}

int commit_bring(struct run *run)
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
	int r, held = commit_stat_at(run, run->parent, change->path, &ent);

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

/* Reads the names as they are now, and makes of them what is to be sent. ret_again: something had to be
 * brought to the Hub first, so names may have changed meanwhile. */
static int read_names(struct run *run, bool *ret_again)
{
	struct commit *c = run->c;
	struct commit_plan_env env = commit_env_of_plan(run);
	AUTO_FREE struct upload_file **todo = NULL;
	size_t n = 0;
	int r;

	commit_forget_plan(run);
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

int commit_decide(struct run *run)
{
	bool again = true;
	int r = 0;

	commit_enter(run, COMMIT_NAMING);
	for (unsigned i = 0; r == 0 && again && i < NAMES_MAX; i++)
		r = read_names(run, &again);
	return r;
}
