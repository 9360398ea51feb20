/* view_change: what the user changes below a revision: names, attributes, the first write to a committed file; and how a
 * commit, or hugfs discard, takes the overlay away again.
 *
 * Threads: any FUSE thread and worker. Each function holds rev->lock from its look at both layers to the stage's
 * transaction, so names change one at a time in a revision. */
#define LOG_MODULE "view"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <string.h>
#include <time.h>

#include "log.h"
#include "view_internal.h"

#define NO_LOANS_MS 5000 /* from ESTALE to the same writer's second open: this is much */

int view_may_write(struct view *v, struct inode *inode, struct view_need *need)
{
	return inode->rev ? view_may_write_rev(v, inode->rev, need) : -EPERM;
}

int view_may_write_rev(struct view *v, struct rev *rev, struct view_need *need)
{
	if (!rev->writable)
		return -EROFS;
	int may;
	{
		LOCKED(&rev->lock);
		may = rev->may_write;
	}
	if (may < 0)
		return view_need_name(need, VIEW_NEED_ACCESS, &rev->repo, "");
	return may ? view_open_stage(v, rev, true) : -EROFS;
}

/* Everything that has to be true before a change below rev; then the caller takes rev->lock. */
static int prepare(struct view *v, struct inode *dir, struct view_need *need)
{
	int r = view_may_write(v, dir, need);
	return r < 0 ? r : view_use(v, dir->rev, need);
}

static int locate(struct view *v, struct inode *dir, struct view_loc *ret)
{
	if (!dir->rev->stage)
		return -EAGAIN; /* it was given back since prepare: the caller's worker comes again */
	char *path AUTO_FREE = NULL;
	int r = inode_path(v->table, dir, &path);
	return r < 0 ? r : view_locate(v, dir->rev, path, ret);
}

/* Gives every folder from the root down to `path` a node. */
static int ensure_nodes(struct view *v, struct rev *rev, struct view_loc *loc)
{
	if (stage_empty(rev->stage)) {
		int r = stage_set_parent(rev->stage, rev->commit);
		if (r < 0)
			return r;
	}
	if (loc->snode)
		return 0;
	char *full AUTO_FREE = rev->sub[0] && loc->path[0] ? util_printf("%s/%s", rev->sub, loc->path)
	                                                   : strdup(rev->sub[0] ? rev->sub : loc->path);
	if (!full)
		return -ENOMEM;
	uint64_t node = STAGE_ROOT;
	char *rest = full;
	for (char *name; (name = strsep(&rest, "/"));) {
		struct stage_name what;
		int r = stage_lookup(rev->stage, node, name, &what);
		if (r < 0)
			return r;
		if (what.kind == STAGE_DIR)
			node = what.node;
		else
			r = stage_follow(rev->stage, node, name, &node);
		if (r < 0)
			return r;
	}
	loc->snode = node;
	return 0;
}

/* What stands under a name, and the folder's node, ready for a change. rev->lock held. */
static int find_for_change(struct view *v, struct inode *dir, const char *name, struct view_loc *loc,
                           struct view_ent *ent, struct view_need *need)
{
	int r = locate(v, dir, loc);
	return r < 0 ? r : view_find(v, dir->rev, loc, name, ent, need);
}

/* A name that the Hub can never take would keep everything else from being published, so it is refused, unless it is one
 * that stays here (design.md 3.4). */
static int check_name(struct view *v, struct inode *dir, const char *name, bool is_dir)
{
	char *folder AUTO_FREE = NULL;
	if (strlen(name) > NAME_MAX)
		return -ENAMETOOLONG;
	int r = view_path(v, dir, &folder);
	if (r < 0)
		return r;
	char *path AUTO_FREE = view_join(folder, name);
	if (!path)
		return -ENOMEM;
	return ignore_match(v->env.ignore, path, is_dir) ? 0 : hub_path_check(path);
}

#define PATHS_MAX 16 /* by which one revision is seen at once, that are told of changes; for others their entries age */

/* A name in the folder (NULL: none), and its own attributes, were changed by one of the paths that it is seen by: what the kernel
 * remembers of the others expires. */
static void tell_others(struct view *v, struct inode *seen, const char *name)
{
	struct notify *notify = atomic_load(&v->notify);
	struct inode *real = view_real(seen);
	uint64_t ids[PATHS_MAX + 1];
	size_t n = notify ? inode_aliases(v->table, real, ids, PATHS_MAX) : 0;
	if (n > 0)
		ids[n++] = real->id;
	for (size_t i = 0; i < n; i++) {
		if (ids[i] == seen->id)
			continue;
		notify_attr(notify, ids[i]);
		if (name)
			notify_entry(notify, ids[i], name);
	}
}

/* stage_create, stage_create_open or stage_mkdir. */
typedef int (*make_fn)(struct stage *s, uint64_t parent, const char *name, mode_t mode, uint64_t *ret);

static int make(struct view *v, struct inode *seen, const char *name, mode_t mode, make_fn how, struct inode **ret,
                struct view_need *need)
{
	struct inode *dir = view_real(seen), *made;
	bool is_dir = how == stage_mkdir;
	int r = prepare(v, dir, need);
	if (r == 0)
		r = check_name(v, dir, name, is_dir);
	if (r < 0)
		return r;
	struct rev *rev = dir->rev;
	LOCKED(&rev->lock);
	struct view_loc loc CLEANUP(view_loc_fini) = {0};
	struct view_ent ent;
	r = find_for_change(v, dir, name, &loc, &ent, need);
	if (r < 0)
		return r;
	if (ent.kind != STAGE_NONE)
		return -EEXIST;
	r = ensure_nodes(v, rev, &loc);
	if (r == 0)
		r = how(rev->stage, loc.snode, name, mode, &ent.snode);
	if (r < 0)
		return r;
	ent.kind = is_dir ? STAGE_DIR : STAGE_FILE;
	r = view_child(v, dir, &loc, name, &ent, &made);
	if (r < 0)
		return r;
	tell_others(v, seen, name);
	return view_alias(v, seen, name, made, ret);
}

int view_create(struct view *v, struct inode *dir, const char *name, mode_t mode, bool open, struct inode **ret,
                struct view_need *need)
{
	return make(v, dir, name, mode, open ? stage_create_open : stage_create, ret, need);
}

int view_mkdir(struct view *v, struct inode *dir, const char *name, mode_t mode, struct inode **ret,
               struct view_need *need)
{
	if (!dir->rev)
		return view_make_upper(v, dir, name, need);
	return make(v, dir, name, mode, stage_mkdir, ret, need);
}

static void detach_name(struct view *v, struct inode *dir, const char *name)
{
	struct inode *inode = inode_find(v->table, dir, name);
	if (!inode)
		return;
	inode_detach(v->table, inode);
	view_put(v, inode, 1);
}

static int count_name(void *arg, const char *name, struct stage_name what)
{
	(void)name;
	return what.kind == STAGE_WHITEOUT ? 0 : -ENOTEMPTY;
}

/* -ENOTEMPTY when the folder `name` of `loc` shows any name. */
static int check_empty(struct view *v, struct rev *rev, const struct view_loc *loc, const char *name,
                       struct view_need *need)
{
	struct view_loc sub CLEANUP(view_loc_fini) = {0};
	struct tree_listing *list CLEANUP(tree_listing_unrefp) = NULL;
	char *path AUTO_FREE = view_join(loc->path, name);
	if (!path)
		return -ENOMEM;
	int r = view_locate(v, rev, path, &sub);
	if (r == 0)
		r = view_base_list(v, rev, &sub, &list, need);
	if (r == 0 && sub.snode)
		r = stage_list(rev->stage, sub.snode, count_name, NULL);
	for (size_t i = 0; r == 0 && list && i < list->n; i++) {
		struct stage_name what = {.kind = STAGE_NONE};
		if (list->entries[i].kind == HUB_ENTRY_OTHER)
			continue;
		if (sub.snode)
			r = stage_lookup(rev->stage, sub.snode, list->entries[i].name, &what);
		if (r == 0 && what.kind != STAGE_WHITEOUT)
			r = -ENOTEMPTY;
	}
	return r;
}

/* Before a name of the folder goes: an empty folder stays a folder, also one that is not on the branch any more. */
static int keep_dir(struct rev *rev, const struct view_loc *dir, const struct view_ent *ent)
{
	return ent->dir_in_base ? 0 : stage_keep(rev->stage, dir->snode, true);
}

static int take_away(struct view *v, struct inode *seen, const char *name, enum stage_kind kind, struct view_need *need)
{
	struct inode *dir = view_real(seen);
	int r = prepare(v, dir, need);
	if (r < 0)
		return r;
	struct rev *rev = dir->rev;
	LOCKED(&rev->lock);
	struct view_loc loc CLEANUP(view_loc_fini) = {0};
	struct view_ent ent;
	r = find_for_change(v, dir, name, &loc, &ent, need);
	if (r < 0)
		return r;
	if (ent.kind == STAGE_NONE)
		return -ENOENT;
	if (ent.kind != kind)
		return kind == STAGE_DIR ? -ENOTDIR : -EISDIR;
	if (kind == STAGE_DIR)
		r = check_empty(v, rev, &loc, name, need);
	if (r == 0)
		r = ensure_nodes(v, rev, &loc);
	if (r == 0)
		r = keep_dir(rev, &loc, &ent);
	if (r == 0)
		r = kind == STAGE_DIR ? stage_rmdir(rev->stage, loc.snode, name, ent.in_base)
		                      : stage_unlink(rev->stage, loc.snode, name, ent.in_base);
	if (r < 0)
		return r;
	detach_name(v, dir, name);
	if (seen != dir)
		detach_name(v, seen, name);
	tell_others(v, seen, name);
	return 0;
}

int view_unlink(struct view *v, struct inode *dir, const char *name, struct view_need *need)
{
	return take_away(v, dir, name, STAGE_FILE, need);
}

int view_rmdir(struct view *v, struct inode *dir, const char *name, struct view_need *need)
{
	return take_away(v, dir, name, STAGE_DIR, need);
}

/* Gives a clean committed file the node `*ret`, which is its blob. rev->lock held. */
static int borrow(struct rev *rev, const struct view_loc *loc, const char *name, const struct view_ent *ent,
                  const struct inode *inode, uint64_t *ret)
{
	char *path AUTO_FREE = view_join(loc->base, name);
	if (!path)
		return -ENOMEM;
	struct stage_blob blob = {
		.key = ent->key,
		.path = path,
		.mtime = {.tv_sec = inode && inode->date_s ? inode->date_s : rev->date_s},
	};
	memcpy(blob.commit, loc->commit, sizeof(blob.commit));
	unsigned told = inode && inode->local ? inode->local_set : 0;
	if (told & STAGE_SET_MTIME)
		blob.mtime = inode->local->mtime;
	if (told & STAGE_SET_MODE)
		blob.mode = inode->local->mode;
	int r = stage_borrow(rev->stage, loc->snode, name, &blob, ret);
	if (r == 0 && (told & STAGE_SET_OWNER))
		r = stage_setattr(rev->stage, *ret, STAGE_SET_OWNER, inode->local);
	return r;
}

/* Does a rename of `src` over `dst` keep to POSIX? */
static int check_over(struct view *v, struct rev *rev, const struct view_ent *src, const struct view_loc *dloc,
                      const char *newname, const struct view_ent *dst, unsigned flags, struct view_need *need)
{
	if (src->kind == STAGE_NONE)
		return -ENOENT;
	if (dst->kind == STAGE_NONE)
		return 0;
	if (flags & RENAME_NOREPLACE)
		return -EEXIST;
	if (src->kind == STAGE_FILE)
		return dst->kind == STAGE_DIR ? -EISDIR : 0;
	return dst->kind == STAGE_FILE ? -ENOTDIR : check_empty(v, rev, dloc, newname, need);
}

/* Where the base of a folder that follows the branch is now, so that it keeps it under its new name. */
static int pin_base(struct view *v, struct rev *rev, const struct view_loc *loc, const char *name, uint64_t node,
                    struct stage_base *ret)
{
	struct stage_base base CLEANUP(stage_base_fini) = {0};
	int r = stage_dir_base(rev->stage, node, &base);
	if (r < 0 || base.kind != STAGE_BASE_FOLLOW)
		return r;
	struct view_loc sub CLEANUP(view_loc_fini) = {0};
	char *path AUTO_FREE = view_join(loc->path, name);
	if (!path)
		return -ENOMEM;
	r = view_locate(v, rev, path, &sub);
	if (r < 0)
		return r;
	if (sub.has_base) {
		ret->kind = STAGE_BASE_PINNED;
		memcpy(ret->commit, sub.commit, sizeof(ret->commit));
		ret->path = STEAL(sub.base);
	}
	return 0;
}

/* Makes the source of a rename a row of the overlay, and tells what it is pinned to. */
static int stage_source(struct view *v, struct inode *dir, const struct view_loc *loc, const char *name,
                        struct view_ent *src, struct stage_base *ret_pin)
{
	struct rev *rev = dir->rev;
	struct inode *inode = inode_find(v->table, dir, name);
	if (inode && !view_is_same(rev, inode, src)) {
		/* A push changed the file since the kernel looked: what is open keeps its bytes and has no name any more. */
		inode_detach(v->table, inode);
		view_put(v, inode, 1);
		inode = NULL;
	}
	int r = 0;
	if (!src->snode && src->kind == STAGE_DIR)
		r = stage_follow(rev->stage, loc->snode, name, &src->snode);
	else if (!src->snode)
		r = borrow(rev, loc, name, src, inode, &src->snode);
	if (r == 0 && inode && inode->kind == INODE_FILE)
		r = view_set_snode(rev, inode, src->snode);
	if (r == 0 && src->kind == STAGE_DIR)
		r = pin_base(v, rev, loc, name, src->snode, ret_pin);
	view_put(v, inode, 1);
	return r;
}

static void move_inode(struct view *v, struct inode *dir, const char *name, struct inode *newdir, const char *newname)
{
	struct inode *inode = inode_find(v->table, dir, name);
	if (!inode) {
		detach_name(v, newdir, newname);
		return;
	}
	if (inode_move(v->table, inode, newdir, newname) < 0) {
		/* No memory: both names are looked up anew. */
		inode_detach(v->table, inode);
		detach_name(v, newdir, newname);
	}
	view_put(v, inode, 1);
}

int view_rename(struct view *v, struct inode *seen, const char *name, struct inode *newseen, const char *newname,
                unsigned flags, struct view_need *need)
{
	struct inode *dir = view_real(seen), *newdir = view_real(newseen);
	if (flags & ~(unsigned)RENAME_NOREPLACE)
		return -EINVAL;
	if (!dir->rev || dir->rev != newdir->rev)
		return dir->rev || newdir->rev ? -EXDEV : -EPERM;
	int r = prepare(v, dir, need);
	if (r < 0)
		return r;
	struct rev *rev = dir->rev;
	LOCKED(&rev->lock);
	struct view_loc sloc CLEANUP(view_loc_fini) = {0}, dloc CLEANUP(view_loc_fini) = {0};
	struct view_ent src, dst;
	struct stage_base pin CLEANUP(stage_base_fini) = {0};
	r = find_for_change(v, dir, name, &sloc, &src, need);
	if (r == 0)
		r = check_name(v, newdir, newname, src.kind == STAGE_DIR);
	if (r == 0)
		r = find_for_change(v, newdir, newname, &dloc, &dst, need);
	if (r == 0)
		r = check_over(v, rev, &src, &dloc, newname, &dst, flags, need);
	if (r < 0 || (dir == newdir && strcmp(name, newname) == 0))
		return r;
	r = ensure_nodes(v, rev, &sloc);
	if (r == 0)
		r = ensure_nodes(v, rev, &dloc);
	if (r == 0)
		r = keep_dir(rev, &sloc, &src);
	if (r == 0)
		r = stage_source(v, dir, &sloc, name, &src, &pin);
	if (r == 0)
		r = stage_rename(rev->stage, sloc.snode, name, src.in_base, dloc.snode, newname,
		                 pin.kind == STAGE_BASE_PINNED ? &pin : NULL);
	if (r < 0)
		return r;
	move_inode(v, dir, name, newdir, newname);
	if (seen != dir)
		move_inode(v, seen, name, newseen, newname);
	tell_others(v, seen, name);
	tell_others(v, newseen, newname);
	return 0;
}

void view_part(struct view *v, struct inode *inode)
{
	struct rev *rev = inode->rev;
	/* Times and modes that were set here belong to the name, which the next inode will have. */
	if (inode->local && inode->place && !inode->snode && rev->stage &&
	    stage_local_put(rev->stage, inode->place->path, &inode->key, inode->local) < 0)
		log_warn("%s: the mode and time that it was given here are lost", inode->place->path);
	if (inode->snode && inode->place)
		view_clear_snode(rev, inode);
	inode_detach(v->table, inode);
	/* The writer comes back in a moment, and must not find another reader served that way. */
	rev->no_loans_ms = util_now_ms() + NO_LOANS_MS;
}

int view_stage_file(struct view *v, struct inode *inode, struct view_need *need)
{
	struct rev *rev = inode->rev;
	int r = view_snode(inode) ? 0 : prepare(v, inode, need);
	if (r < 0)
		return r;
	LOCKED(&rev->lock);
	if (!rev->stage)
		return -EAGAIN;
	if (inode->lent > 0) {
		view_part(v, inode);
		return -ESTALE;
	}
	view_check_snode(rev, inode);
	if (inode->snode)
		return 0;
	struct view_loc loc CLEANUP(view_loc_fini) = {0};
	struct view_ent ent;
	char *path AUTO_FREE = NULL;
	r = inode_path(v->table, inode, &path);
	if (r < 0)
		return -ESTALE;
	char *slash = strrchr(path, '/');
	const char *name = slash ? slash + 1 : path;
	char *dir AUTO_FREE = slash ? strndup(path, (size_t)(slash - path)) : strdup("");
	if (!dir)
		return -ENOMEM;
	r = view_locate(v, rev, dir, &loc);
	if (r == 0)
		r = view_find(v, rev, &loc, name, &ent, need);
	if (r < 0)
		return r == -ENOENT ? -ESTALE : r;
	/* Somebody else's push changed it: nobody's bytes are overwritten through an old handle. */
	if (ent.kind != STAGE_FILE || ent.snode || !hash_key_equal(&ent.key, &inode->key))
		return -ESTALE;
	uint64_t node;
	r = ensure_nodes(v, rev, &loc);
	if (r == 0)
		r = borrow(rev, &loc, name, &ent, inode, &node);
	return r < 0 ? r : view_set_snode(rev, inode, node);
}

static void merge(struct stage_attr *to, unsigned what, const struct stage_attr *attr)
{
	if (what & STAGE_SET_MTIME) {
		to->has_mtime = true;
		to->mtime = attr->mtime;
	}
	if (what & STAGE_SET_MODE) {
		to->has_mode = true;
		to->mode = attr->mode;
	}
	if (what & STAGE_SET_OWNER) {
		to->has_owner = true;
		to->uid = attr->uid;
		to->gid = attr->gid;
	}
}

/* rev->lock held. */
static int set_dir_attr(struct view *v, struct inode *seen, unsigned what, const struct stage_attr *attr)
{
	struct inode *dir = view_real(seen);
	struct rev *rev = dir->rev;
	struct view_loc loc CLEANUP(view_loc_fini) = {0};
	if (!rev->stage)
		return -EAGAIN; /* it was given back just now */
	int r = view_locate_dir(v, dir, &loc);
	if (r < 0)
		return r;
	if (loc.snode)
		return stage_setattr(rev->stage, loc.snode, what, attr);
	struct stage_attr local = {.kind = STAGE_DIR};
	r = stage_local_get(rev->stage, loc.base, STAGE_DIR, NULL, &local);
	if (r < 0 && r != -ENOENT)
		return r;
	merge(&local, what, attr);
	return stage_local_put(rev->stage, loc.base, NULL, &local);
}

int view_setattr(struct view *v, struct inode *inode, unsigned what, const struct stage_attr *attr,
                 struct view_need *need)
{
	struct rev *rev = inode->rev;
	int r = view_may_write(v, inode, need);
	if (r < 0)
		return r;
	LOCKED(&rev->lock);
	view_check_snode(rev, inode);
	if (inode->snode)
		return stage_setattr(rev->stage, inode->snode, what, attr);
	if (inode->kind != INODE_FILE) {
		r = set_dir_attr(v, inode, what, attr);
		if (r == 0)
			tell_others(v, inode, NULL);
		return r;
	}
	if (!inode->local)
		inode->local = calloc(1, sizeof(*inode->local));
	if (!inode->local)
		return -ENOMEM;
	inode->local->kind = STAGE_FILE;
	if (!(inode->local_set & STAGE_SET_MTIME))
		inode->local->mtime = (struct timespec){.tv_sec = inode->date_s ? inode->date_s : rev->date_s};
	inode->local->has_mtime = true; /* a file's time stays what it was when its mode was set */
	merge(inode->local, what, attr);
	inode->local_set = view_told(inode->local);
	if (!inode->place || !rev->stage)
		return 0;
	return stage_local_put(rev->stage, inode->place->path, &inode->key, inode->local);
}

/* -- a commit of ours -- */

struct staged_inode {
	uint64_t node;
	struct inode *inode;
};

struct settling {
	struct view *view;
	struct rev *rev;
	const char *commit;
	struct staged_inode *staged; /* files of this revision with a stage node, by node */
	size_t n, cap;
	int r;
};

static void collect_staged(void *arg, struct inode *i)
{
	struct settling *s = arg;
	if (!i->snode || s->r < 0)
		return;
	if (s->n == s->cap) {
		size_t cap = s->cap ? s->cap * 2 : 64;
		struct staged_inode *staged = reallocarray(s->staged, cap, sizeof(*staged));
		if (!staged) {
			s->r = -ENOMEM;
			return;
		}
		s->staged = staged;
		s->cap = cap;
	}
	s->staged[s->n++] = (struct staged_inode){i->snode, i};
}

/* The branch holds the bytes of a staged file. It is clean now, unless newer ones stay staged (kept): same nodeid, number,
 * size and time. */
static int make_clean(struct settling *s, struct inode *inode, const struct stage_settled_file *file)
{
	struct inode_place *place = malloc(sizeof(*place) + strlen(file->path) + 1);
	struct stage_attr *local = malloc(sizeof(*local));
	if (!place || !local) {
		free(place);
		free(local);
		return -ENOMEM;
	}
	memcpy(place->commit, s->commit, sizeof(place->commit));
	memcpy(place->path, file->path, strlen(file->path) + 1);
	*local = file->attr;
	local->kind = STAGE_FILE;
	free(inode->place);
	free(inode->local);
	inode->place = place;
	inode->local = local;
	inode->local_set = view_told(local);
	inode->key = file->key;
	if (!file->kept)
		view_clear_snode(s->rev, inode);
	return 0;
}

static int by_node(const void *a, const void *b)
{
	const struct staged_inode *x = a, *y = b;
	return (x->node > y->node) - (x->node < y->node);
}

static void settle_inodes(struct settling *s, const struct stage_settled *settled)
{
	if (s->n)
		qsort(s->staged, s->n, sizeof(*s->staged), by_node);
	for (size_t i = 0; s->n && i < settled->n; i++) {
		const struct stage_settled_file *file = &settled->files[i];
		struct staged_inode key = {.node = file->node};
		struct staged_inode *found = bsearch(&key, s->staged, s->n, sizeof(key), by_node);
		if (!found)
			continue;
		/* More than one where a file is seen by several paths: repo/ and repo@main/. */
		while (found > s->staged && found[-1].node == file->node)
			found--;
		for (; found < s->staged + s->n && found->node == file->node; found++)
			if (make_clean(s, found->inode, file) < 0)
				inode_detach(s->view->table, found->inode); /* no memory: looked up anew */
	}
}

/* Folders that names were deleted in, each as view_locate says. */
struct thinned {
	const struct rev *rev;
	struct view_loc *dirs;
	size_t n;
};

static void thinned_fini(struct thinned *t)
{
	for (size_t i = 0; i < t->n; i++)
		view_loc_fini(&t->dirs[i]);
	free(t->dirs);
}

static int add_thinned(void *arg, uint64_t dir, const char *path)
{
	struct thinned *t = arg;
	if ((t->n & (t->n - 1)) == 0) {
		struct view_loc *dirs = reallocarray(t->dirs, t->n ? t->n * 2 : 1, sizeof(*dirs));
		if (!dirs)
			return -ENOMEM;
		t->dirs = dirs;
	}
	struct view_loc *loc = &t->dirs[t->n];
	*loc = (struct view_loc){.snode = dir, .has_base = true, .base = strdup(path)};
	if (!loc->base)
		return -ENOMEM;
	memcpy(loc->commit, t->rev->commit, sizeof(loc->commit));
	t->n++;
	return 0;
}

/* Is there a name in the folder's base that the overlay says nothing about, so that it stays on the branch? Only what is
 * known is looked at. */
static bool has_remains(struct view *v, struct rev *rev, const struct view_loc *dir)
{
	struct view_need need CLEANUP(view_need_fini) = {0};
	struct tree_listing *list CLEANUP(tree_listing_unrefp) = NULL;
	if (view_base_list(v, rev, dir, &list, &need) < 0)
		return false;
	for (size_t i = 0; list && i < list->n; i++) {
		struct stage_name what = {.kind = STAGE_NONE};
		if (stage_lookup(rev->stage, dir->snode, list->entries[i].name, &what) < 0)
			return false;
		if (what.kind == STAGE_NONE)
			return true;
	}
	return false;
}

int view_settle(void *arg, const char *ref, const char *commit, int64_t date_s)
{
	struct rev *rev = arg;
	struct view *v = rev->view;
	struct stage_settled settled CLEANUP(stage_settled_fini) = {0};
	struct settling s = {.view = v, .rev = rev, .commit = commit};
	struct thinned thinned CLEANUP(thinned_fini) = {.rev = rev};
	LOCKED(&rev->lock);
	inode_each(v->table, rev, collect_staged, &s);
	int r = s.r;
	if (r == 0)
		r = stage_thinned(rev->stage, add_thinned, &thinned);
	for (size_t i = 0; r == 0 && i < thinned.n; i++)
		if (!has_remains(v, rev, &thinned.dirs[i]))
			thinned.dirs[i].snode = 0; /* the commit may have emptied it */
	if (r == 0)
		r = stage_settle(rev->stage, commit, &settled);
	if (r == 0) {
		settle_inodes(&s, &settled);
		/* What fails from here on costs a date, or that a folder stays staged; not the commit. */
		for (size_t i = 0; i < thinned.n; i++)
			if (stage_keep(rev->stage, thinned.dirs[i].snode, false) < 0)
				log_debug("a folder that is not empty stays staged");
		if (rev->date_s && stage_date_put(rev->stage, commit, rev->date_s) < 0)
			log_debug("the date of what was not told about is lost at the next mount");
		memcpy(rev->commit, commit, sizeof(rev->commit));
		if (strcmp(ref, view_ref(rev)) != 0)
			snprintf(rev->ref, sizeof(rev->ref), "%s", ref);
		tree_adopt(v->env.tree, &rev->repo, ref, commit, date_s);
	}
	free(s.staged);
	return r;
}

/* -- discard -- */

struct discarding {
	struct view *view;
	struct rev *rev;
	const char *path;      /* below the revision's root */
	struct inode **inodes; /* all of the revision, referenced */
	size_t n, cap;
	struct buf deleted;    /* paths of names that were deleted, NUL-terminated each */
};

static bool is_below(const char *path, const char *top)
{
	size_t n = strlen(top);
	return n == 0 || (strncmp(path, top, n) == 0 && (path[n] == '\0' || path[n] == '/'));
}

static void collect_all(void *arg, struct inode *i)
{
	struct discarding *d = arg;
	if (d->n == d->cap) {
		size_t cap = d->cap ? d->cap * 2 : 64;
		struct inode **inodes = reallocarray(d->inodes, cap, sizeof(struct inode *));
		if (!inodes)
			return; /* its entry ages */
		d->inodes = inodes;
		d->cap = cap;
	}
	i->refs++; /* under the table's lock */
	d->inodes[d->n++] = i;
}

static int collect_deleted(void *arg, const char *path, const struct stage_attr *attr)
{
	struct discarding *d = arg;
	return attr->kind == STAGE_WHITEOUT ? buf_add(&d->deleted, path, strlen(path) + 1) : 0;
}

/* Whatever hangs on staged content below the path is looked up anew. rev->lock held, so that nobody sees the new content under the
 * old nodeid. */
static void detach_staged(struct discarding *d)
{
	for (size_t i = 0; i < d->n; i++) {
		struct inode *inode = d->inodes[i];
		char *path AUTO_FREE = NULL;
		if (inode->snode &&
		    inode_path(d->view->table, inode, &path) == 0 && path[0] && is_below(path, d->path))
			inode_detach(d->view->table, inode);
	}
}

/* A name that was deleted is there again, which the kernel may remember as absent. */
static void tell_deleted(struct discarding *d, struct notify *notify, const char *path)
{
	struct view *v = d->view;
	size_t skip = d->rev->sub[0] ? strlen(d->rev->sub) + 1 : 0;
	if (strlen(path) <= skip)
		return;
	for (size_t i = 0; i < d->n; i++) {
		char *dir AUTO_FREE = NULL;
		const char *rest = path + skip;
		if (d->inodes[i]->kind != INODE_DIR || inode_path(v->table, view_real(d->inodes[i]), &dir) < 0)
			continue;
		size_t len = strlen(dir);
		if (len && (!is_below(rest, dir) || rest[len] != '/'))
			continue;
		rest += len ? len + 1 : 0;
		if (!strchr(rest, '/'))
			notify_entry(notify, d->inodes[i]->id, rest);
	}
}

static void tell_kernel(struct discarding *d)
{
	struct notify *notify = atomic_load(&d->view->notify);
	for (size_t i = 0; notify && i < d->n; i++) {
		char *name AUTO_FREE = NULL;
		uint64_t parent = 0;
		if (inode_where(d->view->table, d->inodes[i], &parent, &name) == 0 && parent)
			notify_entry(notify, parent, name);
	}
	for (size_t at = 0; notify && at < d->deleted.len; at += strlen(d->deleted.data + at) + 1)
		tell_deleted(d, notify, d->deleted.data + at);
}

int view_refresh(struct view *v, struct rev *rev, struct hub_error *err)
{
	struct discarding d = {.view = v, .rev = rev, .path = ""};
	struct view_need need = {0};
	struct tree_head head;
	char before[41], ref[sizeof(rev->ref)];
	{
		LOCKED(&rev->lock);
		memcpy(before, rev->commit, sizeof(before));
		snprintf(ref, sizeof(ref), "%s", rev->ref);
	}
	const char *name = ref[0] ? ref : rev->name;
	tree_forget_head(v->env.tree, &rev->repo, name);
	int r = tree_head(v->env.tree, &rev->repo, name, true, &head, err);
	if (r == 0)
		r = view_use(v, rev, &need);
	view_need_fini(&need);
	if (r == 0 && strcmp(before, head.commit) != 0) {
		{
			LOCKED(&rev->lock);
			inode_each(v->table, rev, collect_all, &d);
		}
		tell_kernel(&d);
	}
	for (size_t i = 0; i < d.n; i++)
		view_put(v, d.inodes[i], 1);
	free(d.inodes);
	return r == -EAGAIN ? 0 : r;
}

/* `how` with the path from the branch's root. */
static int discard(struct view *v, struct rev *rev, const char *path, int (*how)(struct stage *s, const char *path))
{
	struct discarding d = {.view = v, .rev = rev, .path = path};
	char *full AUTO_FREE = rev->sub[0] ? view_join(rev->sub, path) : strdup(path);
	int r = full ? 0 : -ENOMEM;
	if (r == 0) {
		LOCKED(&rev->lock);
		if (!rev->stage)
			return 0;
		inode_each(v->table, rev, collect_all, &d);
		r = stage_each(rev->stage, collect_deleted, &d);
		if (r == 0)
			r = how(rev->stage, full);
		if (r == 0)
			detach_staged(&d);
	}
	if (r == 0)
		tell_kernel(&d);
	for (size_t i = 0; i < d.n; i++)
		view_put(v, d.inodes[i], 1);
	free(d.inodes);
	buf_fini(&d.deleted);
	return r;
}

int view_discard_path(void *arg, const char *path)
{
	struct rev *rev = arg;
	size_t n = strlen(rev->sub);
	if (n && (strncmp(path, rev->sub, n) != 0 || (path[n] && path[n] != '/')))
		return stage_discard(rev->stage, path); /* outside of what is shown */
	return discard(rev->view, rev, path + n + (n && path[n]), stage_discard);
}

static int restore(struct stage *s, const char *path)
{
	(void)path;
	return stage_tx_restore(s);
}

int view_discard(struct view *v, struct rev *rev, const char *path)
{
	enum stage_tx tx;
	{
		LOCKED(&rev->lock);
		tx = rev->stage ? stage_tx_state(rev->stage) : STAGE_TX_NONE;
	}
	if (tx == STAGE_TX_NONE)
		return discard(v, rev, path, stage_discard);
	if (tx == STAGE_TX_RUNNING)
		return -EBUSY;
	return *path ? -EPERM : discard(v, rev, path, restore);
}
