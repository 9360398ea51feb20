/* tree_adopt: the listings of a commit that we made: those of its parent, with what it changed, so that nobody asks for what we
 * know. Not for which commit is the head (tree_refs.c).
 *
 * Worker threads. A folder's git tree id is what git gives it, as long as all its files are ordinary ones (mode 100644, as all
 * that the Hub makes are); of another it is only one of a kind, and the Hub is asked once more when somebody else's commit
 * shows the real one. */
#define LOG_MODULE "tree"
#include "tree_int.h"

#include <errno.h>
#include <string.h>

struct adopting {
	struct tree *t;
	const struct repo_id *id;
	const char *base;
	const struct tree_change *changes; /* by path */
};

/* The names of one folder as they will be. */
struct folder {
	struct hub_entry *entries; /* path: the full one */
	size_t n;
};

static void folder_fini(struct folder *f)
{
	for (size_t i = 0; i < f->n; i++)
		free(f->entries[i].path);
	free(f->entries);
}

/* again: the path may be there already (a file that gave way to a folder). */
static int folder_put(struct folder *f, const char *path, bool again, const struct hub_entry *what)
{
	size_t i = again ? 0 : f->n;

	while (i < f->n && strcmp(f->entries[i].path, path) != 0)
		i++;
	if (i == f->n) {
		struct hub_entry *grown = (f->n & (f->n - 1)) == 0
		                          ? reallocarray(f->entries, f->n ? f->n * 2 : 1, sizeof(*grown)) : f->entries;

		if (!grown)
			return -ENOMEM;
		f->entries = grown;
		grown[i] = (struct hub_entry){.path = strdup(path)};
		if (!grown[i].path)
			return -ENOMEM;
		f->n++;
	}
	f->entries[i].kind = what->kind;
	memcpy(f->entries[i].oid, what->oid, sizeof(what->oid));
	f->entries[i].key = what->key;
	return 0;
}

static bool folder_has(const struct folder *f, const char *path)
{
	for (size_t i = 0; i < f->n; i++)
		if (strcmp(f->entries[i].path, path) == 0)
			return true;
	return false;
}

/* git compares a folder as if its name ended in a slash. */
static int git_order(const void *a, const void *b)
{
	const struct tree_entry *x = *(const struct tree_entry *const *)a, *y = *(const struct tree_entry *const *)b;
	size_t nx = strlen(x->name), ny = strlen(y->name), n = MIN(nx, ny);
	int d = memcmp(x->name, y->name, n);
	unsigned char cx, cy;

	if (d != 0)
		return d;
	cx = nx > n ? (unsigned char)x->name[n] : x->kind == HUB_ENTRY_DIR ? '/' : 0;
	cy = ny > n ? (unsigned char)y->name[n] : y->kind == HUB_ENTRY_DIR ? '/' : 0;
	return cx - cy;
}

static int tree_oid(const struct tree_listing *l, uint8_t ret[20])
{
	AUTO_FREE const struct tree_entry **sorted = calloc(l->n + 1, sizeof(*sorted));
	AUTO_BUF out = {.max = SIZE_MAX - 1};
	int r = sorted ? 0 : -ENOMEM;

	for (size_t i = 0; r == 0 && i < l->n; i++)
		sorted[i] = &l->entries[i];
	if (r == 0 && l->n)
		qsort(sorted, l->n, sizeof(*sorted), git_order);
	for (size_t i = 0; r == 0 && i < l->n; i++) {
		const struct tree_entry *e = sorted[i];

		r = buf_addf(&out, "%s %s", e->kind == HUB_ENTRY_DIR ? "40000" : e->kind == HUB_ENTRY_FILE ? "100644" : "120000",
		             e->name);
		if (r == 0)
			r = buf_add(&out, "", 1);
		if (r == 0)
			r = buf_add(&out, e->oid, sizeof(e->oid));
	}
	return r < 0 ? r : hash_git_tree(out.data ? out.data : "", out.len, ret);
}

static int publish(const struct adopting *a, const char *key, struct tree_listing *l)
{
	AUTO_BUF text = {.max = INDEX_META_MAX};
	struct answer answer = {.listing = l};

	if (a->t->ix && tree_listing_encode(l, &text) == 0)
		tree_save(a->t, key, text.data, text.len);
	tree_publish(a->t, key, &answer, false);
	return 0;
}

static int adopt_folder(const struct adopting *a, const char *path, bool in_base, size_t lo, size_t hi, int depth,
                        struct tree_listing **ret, uint8_t ret_oid[20]);

/* What changes [lo, hi) make of the names of folder `path`. Those that it loses become HUB_ENTRY_OTHER with no oid, and go. */
static int change_names(const struct adopting *a, const char *path, const struct tree_listing *base, size_t lo, size_t hi,
                        int depth, struct folder *f)
{
	size_t skip = *path ? strlen(path) + 1 : 0;
	int r = 0;

	for (size_t i = lo, next; r == 0 && i < hi; i = next) {
		const struct tree_change *c = &a->changes[i];
		const char *slash = strchr(c->path + skip, '/');
		size_t len = slash ? (size_t)(slash - c->path) : strlen(c->path);
		AUTO_FREE char *full = strndup(c->path, len);
		struct hub_entry what = {.kind = HUB_ENTRY_FILE, .key = c->key};
		struct tree_listing *below CLEANUP(tree_listing_unrefp) = NULL;
		const struct tree_entry *old;

		if (!full)
			return -ENOMEM;
		next = i + 1;
		if (!slash) {
			if (c->deleted)
				what.kind = HUB_ENTRY_OTHER;
			else
				memcpy(what.oid, c->oid, sizeof(what.oid));
			r = folder_put(f, full, false, &what);
			continue;
		}
		while (next < hi && strncmp(a->changes[next].path, full, len) == 0 && a->changes[next].path[len] == '/')
			next++;
		old = base ? tree_find(base, full + skip) : NULL;
		what = (struct hub_entry){.kind = HUB_ENTRY_DIR};
		r = adopt_folder(a, full, old && old->kind == HUB_ENTRY_DIR, i, next, depth + 1, &below, what.oid);
		if (r == 0 && below->n == 0) {
			if (folder_has(f, full))
				continue; /* it gave way to a file */
			what = (struct hub_entry){.kind = HUB_ENTRY_OTHER};
		}
		if (r == 0)
			r = folder_put(f, full, true, &what);
	}
	return r;
}

static int by_path(const void *a, const void *b)
{
	return strcmp(((const struct hub_entry *)a)->path, ((const struct hub_entry *)b)->path);
}

static int keep_others(const char *path, const struct tree_listing *base, struct folder *f)
{
	size_t changed = f->n;
	int r = 0;

	if (changed)
		qsort(f->entries, changed, sizeof(*f->entries), by_path);

	for (size_t i = 0; r == 0 && base && i < base->n; i++) {
		const struct tree_entry *e = &base->entries[i];
		struct hub_entry what = {.kind = e->kind, .key = e->key};
		AUTO_FREE char *full = util_printf("%s%s%s", path, *path ? "/" : "", e->name);
		struct hub_entry wanted = {.path = full};

		if (!full)
			return -ENOMEM;
		if (changed && bsearch(&wanted, f->entries, changed, sizeof(*f->entries), by_path))
			continue;
		memcpy(what.oid, e->oid, sizeof(what.oid));
		if ((f->n & (f->n - 1)) == 0) {
			struct hub_entry *grown = reallocarray(f->entries, f->n ? f->n * 2 : 1, sizeof(*grown));

			if (!grown)
				return -ENOMEM;
			f->entries = grown;
		}
		f->entries[f->n] = what;
		f->entries[f->n++].path = STEAL(full);
	}
	return r;
}

static void drop_lost(struct folder *f)
{
	static const uint8_t none[20];
	size_t kept = 0;

	for (size_t i = 0; i < f->n; i++) {
		if (f->entries[i].kind == HUB_ENTRY_OTHER && memcmp(f->entries[i].oid, none, sizeof(none)) == 0)
			free(f->entries[i].path);
		else
			f->entries[kept++] = f->entries[i];
	}
	f->n = kept;
}

static int adopt_folder(const struct adopting *a, const char *path, bool in_base, size_t lo, size_t hi, int depth,
                        struct tree_listing **ret, uint8_t ret_oid[20])
{
	struct tree_listing *base CLEANUP(tree_listing_unrefp) = NULL;
	struct tree_listing *made CLEANUP(tree_listing_unrefp) = NULL;
	CLEANUP(folder_fini) struct folder f = {0};
	struct hub_entries entries;
	char key[5 + 40 + 1] = "tree:";
	int r = 0;

	if (depth > TREE_DEPTH_MAX)
		return -ELOOP;
	if (in_base)
		r = tree_list(a->t, a->id, a->base, path, false, &base, NULL);
	if (r == 0)
		r = change_names(a, path, base, lo, hi, depth, &f);
	if (r == 0)
		r = keep_others(path, base, &f);
	if (r < 0)
		return r;
	drop_lost(&f);
	entries = (struct hub_entries){.entries = f.entries, .n = f.n};
	made = tree_listing_of_hub(&entries, path);
	if (!made)
		return -ENOMEM;
	r = tree_oid(made, ret_oid);
	if (r == 0 && *path && made->n) {
		util_hex(ret_oid, 20, key + 5);
		r = publish(a, key, made);
	}
	if (r == 0)
		*ret = STEAL(made);
	return r;
}

int tree_adopt_changes(struct tree *t, const struct repo_id *id, const char *base, const char *commit,
                       const struct tree_change *changes, size_t n)
{
	const struct adopting a = {.t = t, .id = id, .base = base, .changes = changes};
	struct tree_listing *root CLEANUP(tree_listing_unrefp) = NULL;
	AUTO_FREE char *key = tree_key("root", id, commit);
	uint8_t oid[20];
	int r = key ? adopt_folder(&a, "", true, 0, n, 0, &root, oid) : -ENOMEM;

	return r < 0 ? r : publish(&a, key, root);
}
