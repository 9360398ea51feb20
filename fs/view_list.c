/* view_list: the names that a folder of the mount shows, merged from its layers.
 *
 * Threads: any FUSE thread and worker; see view.c. */
#define LOG_MODULE "view"

#include <errno.h>
#include <string.h>

#include "view_internal.h"

void view_dir_free(struct view_dir *d)
{
	if (!d)
		return;
	for (size_t i = 0; i < d->n; i++)
		free(d->ents[i].name);
	free(d->ents);
	free(d);
}

static void view_dir_freep(struct view_dir **d)
{
	view_dir_free(*d);
}

static int dir_add(struct view_dir *d, const char *name, bool is_dir, uint64_t ino)
{
	if ((d->n & (d->n - 1)) == 0) {
		struct view_dirent *ents = reallocarray(d->ents, d->n ? d->n * 2 : 1, sizeof(*ents));
		if (!ents)
			return -ENOMEM;
		d->ents = ents;
	}
	char *copy = strdup(name);
	if (!copy)
		return -ENOMEM;
	d->ents[d->n++] = (struct view_dirent){copy, is_dir, ino};
	return 0;
}

static bool dir_has(const struct view_dir *d, const char *name)
{
	for (size_t i = 0; i < d->n; i++)
		if (strcmp(d->ents[i].name, name) == 0)
			return true;
	return false;
}

static int by_name(const void *a, const void *b)
{
	const struct view_dirent *x = a, *y = b;
	return strcmp(x->name, y->name);
}

struct overlay_name {
	char *name;
	struct stage_name what;
};
struct overlay {
	struct overlay_name *names;
	size_t n;
};

static void overlay_fini(struct overlay *o)
{
	for (size_t i = 0; i < o->n; i++)
		free(o->names[i].name);
	free(o->names);
}

static int overlay_add(void *arg, const char *name, struct stage_name what)
{
	struct overlay *o = arg;
	if ((o->n & (o->n - 1)) == 0) {
		struct overlay_name *names = reallocarray(o->names, o->n ? o->n * 2 : 1, sizeof(*names));
		if (!names)
			return -ENOMEM;
		o->names = names;
	}
	char *copy = strdup(name);
	if (!copy)
		return -ENOMEM;
	o->names[o->n++] = (struct overlay_name){copy, what};
	return 0;
}

static int by_overlay_name(const void *a, const void *b)
{
	const struct overlay_name *x = a, *y = b;
	return strcmp(x->name, y->name);
}

/* The st_ino that a lookup would answer. */
static uint64_t ino_of(struct view *v, struct inode *dir, const struct view_loc *loc, const char *name)
{
	struct inode *inode = inode_find(v->table, dir, name);
	if (inode) {
		uint64_t ino = inode->ino;
		view_put(v, inode, 1);
		return ino;
	}
	char *path AUTO_FREE = view_join(loc->path, name);
	return path ? view_ino(dir->rev, path) : 2;
}

static int list_rev_dir(struct view *v, struct inode *dir, struct view_dir *d, struct view_need *need)
{
	int r = view_use(v, dir->rev, need);
	if (r < 0)
		return r;
	struct overlay over CLEANUP(overlay_fini) = {0};
	struct view_loc loc CLEANUP(view_loc_fini) = {0};
	struct tree_listing *list CLEANUP(tree_listing_unrefp) = NULL;
	LOCKED(&dir->rev->lock);
	r = view_locate_dir(v, dir, &loc);
	if (r == 0)
		r = view_base_list(v, dir->rev, &loc, &list, need);
	if (r == 0 && loc.snode)
		r = stage_list(dir->rev->stage, loc.snode, overlay_add, &over);
	if (over.n)
		qsort(over.names, over.n, sizeof(*over.names), by_overlay_name);
	for (size_t i = 0; r == 0 && list && i < list->n; i++) {
		const struct tree_entry *e = &list->entries[i];
		struct overlay_name key = {.name = (char *)(uintptr_t)e->name};
		if (e->kind == HUB_ENTRY_OTHER ||
		    (over.n && bsearch(&key, over.names, over.n, sizeof(key), by_overlay_name)))
			continue;
		r = dir_add(d, e->name, e->kind == HUB_ENTRY_DIR, ino_of(v, dir, &loc, e->name));
	}
	for (size_t i = 0; r == 0 && i < over.n; i++)
		if (over.names[i].what.kind != STAGE_WHITEOUT)
			r = dir_add(d, over.names[i].name, over.names[i].what.kind == STAGE_DIR,
			            ino_of(v, dir, &loc, over.names[i].name));
	return r;
}

static int list_revs(struct view *v, struct inode *dir, struct view_dir *d, struct view_need *need)
{
	struct tree_refs *refs CLEANUP(tree_refs_unrefp) = NULL;
	int r = view_refs(v, dir->repo, &refs, need);
	if (r < 0)
		return r;
	char *prefix AUTO_FREE = view_rev_prefix(v, dir);
	if (!prefix)
		return -ENOMEM;
	for (size_t i = 0; r == 0 && i < refs->n; i++) {
		const char *name = refs->ref[i].name;
		if (view_is_shadowed(refs, name)) {
			char *escaped AUTO_FREE = dir->kind == INODE_REVS ? repo_escape_rev(name) : NULL;
			if (escaped)
				r = dir_add(d, escaped, true, hash_text64(dir->ino, escaped, strlen(escaped)));
			continue;
		}
		if (strncmp(name, prefix, strlen(prefix)) != 0)
			continue;
		char *first AUTO_FREE = strdup(name + strlen(prefix));
		if (!first)
			return -ENOMEM;
		first[strcspn(first, "/")] = '\0';
		if (!dir_has(d, first))
			r = dir_add(d, first, true, hash_text64(dir->ino, first, strlen(first)));
	}
	return r;
}

struct visited {
	struct inode *dir;
	struct view_dir *d;
	int r;
};

static void add_visited(void *arg, struct inode *i)
{
	struct visited *vis = arg;
	if (i->parent == vis->dir && !i->detached && vis->r == 0 && !dir_has(vis->d, i->name))
		vis->r = dir_add(vis->d, i->name, true, i->ino);
}

static int add_visited_of(void *arg, struct rev *rev)
{
	inode_each(rev->view->table, rev, add_visited, arg);
	return 0;
}

static int add_once(struct view_dir *d, struct inode *dir, const char *name)
{
	return dir_has(d, name) ? 0 : dir_add(d, name, true, hash_text64(dir->ino, name, strlen(name)));
}

/* hf://, datasets/, a namespace: what was visited, the token owner's namespaces. The Hub cannot be listed. */
static int list_upper(struct view *v, struct inode *dir, struct view_dir *d)
{
	int r = 0;
	if (dir->kind == INODE_HUB) {
		r = add_once(d, dir, "datasets");
		if (r == 0)
			r = add_once(d, dir, "spaces");
	}
	if (dir->kind != INODE_NAMESPACE && v->who.name) {
		r = r ? r : add_once(d, dir, v->who.name);
		for (char **org = v->who.orgs; r == 0 && org && *org; org++)
			r = add_once(d, dir, *org);
	}
	struct visited vis = {dir, d, r};
	inode_each(v->table, NULL, add_visited, &vis);
	/* Below a namespace stand roots of revisions, which belong to one. */
	if (dir->kind == INODE_NAMESPACE) {
		r = view_each_rev(v, add_visited_of, &vis);
		if (r < 0)
			return r;
	}
	return vis.r;
}

int view_list(struct view *v, struct inode *dir, struct view_dir **ret, struct view_need *need)
{
	struct view_dir *d CLEANUP(view_dir_freep) = calloc(1, sizeof(*d));
	if (!d)
		return -ENOMEM;
	int r = -ENOTDIR;
	if (dir->kind == INODE_DIR)
		r = list_rev_dir(v, view_real(dir), d, need);
	else if (dir->kind == INODE_REVS || dir->kind == INODE_REVPART)
		r = list_revs(v, dir, d, need);
	else if (dir->kind != INODE_FILE)
		r = list_upper(v, dir, d);
	if (r < 0)
		return r;
	if (d->n)
		qsort(d->ents, d->n, sizeof(*d->ents), by_name);
	*ret = STEAL(d);
	return 0;
}
