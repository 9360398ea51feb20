/* view: what a folder of the mount shows.
 *
 * Not for: asking the Hub (tree, through view_satisfy), what a change does (view_change.c), bytes on disk (stage, fetch).
 *
 * Threads: any FUSE thread and worker. No lock is held while a function of this file is entered; rev->lock is held while
 * both layers of a folder are looked at, so that a commit's settling is seen whole or not at all.
 *
 *   kind       its names come from
 *   HUB        datasets, spaces, namespaces (asked for one by one)
 *   TYPE       namespaces of that type
 *   NAMESPACE  repo, repo@rev, repo@
 *   REVS       the repository's refs; slashed names nest in REVPARTs; a 40-hex commit is found, not listed
 *   DIR        stage over tree at rev->commit
 */
#define LOG_MODULE "view"

#include <assert.h>
#include <errno.h>
#include <string.h>
#include <time.h>

#include "log.h"
#include "view_internal.h"

#define FOREVER_S 86400.0 /* the kernel may keep for a day what can never change */

struct inode *view_get(struct view *v, uint64_t nodeid)
{
	return inode_get(v->table, nodeid);
}

void view_put(struct view *v, struct inode *inode, uint64_t n)
{
	if (inode)
		inode_unref(v->table, inode, n);
}

char *view_join(const char *dir, const char *name)
{
	return dir[0] ? util_printf("%s/%s", dir, name) : strdup(name);
}

uint64_t view_ino(const struct rev *rev, const char *path)
{
	char text[REPO_TEXT_MAX];
	repo_text(&rev->repo, text);
	uint64_t h = hash_text64(0, text, strlen(text) + 1);
	h = hash_text64(h, rev->name, strlen(rev->name) + 1);
	return hash_text64(h, path, strlen(path));
}

/* -- both layers of a folder -- */

void view_loc_fini(struct view_loc *l)
{
	free(l->path);
	free(l->base);
	*l = (struct view_loc){0};
}

/* One component further down. */
static int step(struct rev *rev, struct view_loc *l, const char *name)
{
	struct stage_name what = {.kind = STAGE_NONE};
	int r = 0;
	if (l->snode)
		r = stage_lookup(rev->stage, l->snode, name, &what);
	if (r < 0)
		return r;
	if (what.kind == STAGE_WHITEOUT || what.kind == STAGE_FILE)
		return -ENOENT;
	l->snode = 0;
	if (what.kind == STAGE_DIR) {
		struct stage_base base CLEANUP(stage_base_fini) = {0};
		r = stage_dir_base(rev->stage, what.node, &base);
		if (r < 0)
			return r;
		l->snode = what.node;
		if (base.kind == STAGE_BASE_NONE) {
			l->has_base = false;
			return 0;
		}
		if (base.kind == STAGE_BASE_PINNED) {
			l->has_base = true;
			memcpy(l->commit, base.commit, sizeof(l->commit));
			free(l->base);
			l->base = STEAL(base.path);
			return 0;
		}
	}
	if (!l->has_base)
		return what.kind == STAGE_DIR ? 0 : -ENOENT;
	char *base = view_join(l->base, name);
	if (!base)
		return -ENOMEM;
	free(l->base);
	l->base = base;
	return 0;
}

static int walk(struct rev *rev, struct view_loc *l, const char *path)
{
	char *copy AUTO_FREE = strdup(path);
	if (!copy)
		return -ENOMEM;
	char *rest = copy;
	for (char *name; (name = strsep(&rest, "/"));) {
		int r = name[0] ? step(rev, l, name) : 0;
		if (r < 0)
			return r;
	}
	return 0;
}

int view_locate(struct view *v, struct rev *rev, const char *path, struct view_loc *ret)
{
	struct view_loc l CLEANUP(view_loc_fini) = {.has_base = true};
	l.snode = rev->stage ? STAGE_ROOT : 0;
	memcpy(l.commit, rev->commit, sizeof(l.commit));
	l.path = strdup(path);
	l.base = strdup("");
	if (!l.path || !l.base)
		return -ENOMEM;
	int r = walk(rev, &l, rev->sub);
	if (r == 0)
		r = walk(rev, &l, path);
	if (r < 0)
		return r;
	*ret = STEAL(l);
	return 0;
}

int view_base_list(struct view *v, struct rev *rev, const struct view_loc *loc, struct tree_listing **ret,
                   struct view_need *need)
{
	if (!loc->has_base)
		return 0;
	int r = tree_list(v->env.tree, &rev->repo, loc->commit, loc->base, false, ret, NULL);
	if (r == -EAGAIN)
		return view_need_list(need, &rev->repo, loc->commit, loc->base);
	/* A push took the folder away below our changes: they stand alone then. */
	if ((r == -ENOENT || r == -ENOTDIR) && loc->snode)
		return 0;
	return r;
}

int view_find(struct view *v, struct rev *rev, const struct view_loc *dir, const char *name, struct view_ent *ret,
              struct view_need *need)
{
	struct view_ent ent = {.kind = STAGE_NONE};
	struct tree_listing *list CLEANUP(tree_listing_unrefp) = NULL;
	int r = view_base_list(v, rev, dir, &list, need);
	if (r < 0)
		return r;
	ent.dir_in_base = list != NULL;
	const struct tree_entry *base = list ? tree_find(list, name) : NULL;
	if (base && base->kind == HUB_ENTRY_OTHER)
		base = NULL;
	if (base) {
		ent.in_base = true;
		ent.kind = base->kind == HUB_ENTRY_DIR ? STAGE_DIR : STAGE_FILE;
		ent.key = base->key;
		memcpy(ent.oid, base->oid, sizeof(ent.oid));
	}
	struct stage_name what = {.kind = STAGE_NONE};
	if (dir->snode) {
		r = stage_lookup(rev->stage, dir->snode, name, &what);
		if (r < 0)
			return r;
	}
	if (what.kind == STAGE_WHITEOUT) {
		ent.kind = STAGE_NONE;
	} else if (what.kind != STAGE_NONE) {
		ent.kind = what.kind;
		ent.snode = what.node;
	}
	*ret = ent;
	return 0;
}

/* -- inodes of a revision -- */

int view_set_snode(struct rev *rev, struct inode *inode, uint64_t snode)
{
	if (inode->snode == snode)
		return 0;
	if (inode->opens > 0) {
		int r = stage_pin(rev->stage, snode);
		if (r < 0)
			return r;
		if (inode->pinned)
			stage_unpin(rev->stage, inode->snode);
		else
			rev->users++;
		inode->pinned = true;
	}
	inode->snode = snode;
	return 0;
}

void view_clear_snode(struct rev *rev, struct inode *inode)
{
	if (inode->pinned) {
		stage_unpin(rev->stage, inode->snode); /* a pinned one keeps the stage */
		assert(rev->users > 0);
		rev->users--;
	}
	inode->pinned = false;
	inode->snode = 0;
}

unsigned view_told(const struct stage_attr *attr)
{
	return (attr->has_mtime ? STAGE_SET_MTIME : 0) | (attr->has_mode ? STAGE_SET_MODE : 0) |
	       (attr->has_owner ? STAGE_SET_OWNER : 0);
}

static struct inode_place *place_new(const char *commit, const char *dir, const char *name)
{
	char *path AUTO_FREE = view_join(dir, name);
	struct inode_place *p = path ? malloc(sizeof(*p) + strlen(path) + 1) : NULL;
	if (!p)
		return NULL;
	memcpy(p->commit, commit, sizeof(p->commit));
	memcpy(p->path, path, strlen(path) + 1);
	return p;
}

/* What the user told about a file or folder that is not staged. -ENOENT: nothing. */
static int local_of(struct rev *rev, const char *path, enum stage_kind kind, const struct blob_key *key,
                    struct stage_attr *ret)
{
	if (rev->stage)
		return stage_local_get(rev->stage, path, kind, key, ret);
	return rev->locals ? stage_locals_get(rev->locals, path, kind, key, ret) : -ENOENT;
}

/* Times and modes that the user gave a clean file in an earlier life of its inode. */
static int recall_local(struct rev *rev, struct inode *inode, const char *path)
{
	struct stage_attr attr;
	int r = local_of(rev, path, STAGE_FILE, &inode->key, &attr);
	if (r == -ENOENT)
		return 0;
	if (r < 0)
		return r;
	if (!inode->local)
		inode->local = malloc(sizeof(attr));
	if (!inode->local)
		return -ENOMEM;
	*inode->local = attr;
	inode->local_set = view_told(&attr);
	return 0;
}

/* A folder is seen with this tree: what was told about it with another one counts no more. */
static int check_dir(struct rev *rev, const struct view_loc *loc, const char *name, const struct view_ent *ent)
{
	if (ent->snode || !(rev->stage || rev->locals))
		return 0;
	struct stage_attr attr;
	struct blob_key key = {.alg = HASH_GIT_SHA1};
	memcpy(key.id, ent->oid, sizeof(ent->oid));
	char *path AUTO_FREE = view_join(loc->base, name);
	if (!path)
		return -ENOMEM;
	int r = local_of(rev, path, STAGE_DIR, &key, &attr);
	return r == -ENOENT ? 0 : r;
}

/* What the user told about a folder, staged or not. */
static int dir_attr(struct view *v, struct inode *dir, struct stage_attr *ret)
{
	struct rev *rev = dir->rev;
	struct view_loc loc CLEANUP(view_loc_fini) = {0};
	if (!rev->stage && !rev->locals)
		return -ENOENT;
	int r = view_locate_dir(v, dir, &loc);
	if (r < 0)
		return r;
	return loc.snode ? stage_attr(rev->stage, loc.snode, ret) : local_of(rev, loc.base, STAGE_DIR, NULL, ret);
}

void view_check_snode(struct rev *rev, struct inode *inode)
{
	struct stage_attr attr;
	if (!inode->snode || (rev->stage && stage_attr(rev->stage, inode->snode, &attr) != -ENOENT))
		return;
	view_clear_snode(rev, inode);
	if (inode->place && recall_local(rev, inode, inode->place->path) < 0)
		log_debug("no memory for the times of %s", inode->place->path);
}

bool view_is_same(struct rev *rev, struct inode *inode, const struct view_ent *ent)
{
	view_check_snode(rev, inode);
	if (inode->kind != (ent->kind == STAGE_DIR ? INODE_DIR : INODE_FILE))
		return false;
	if (ent->kind == STAGE_DIR)
		return true;
	return inode->snode == ent->snode && (ent->snode || hash_key_equal(&inode->key, &ent->key));
}

/* The same bytes are in a newer commit, too: they are asked for there, for the older one may be gone (a squash). */
static int move_place(struct inode *inode, const struct view_loc *loc, const char *name)
{
	if (!inode->place || inode->snode || strcmp(inode->place->commit, loc->commit) == 0)
		return 0;
	struct inode_place *place = place_new(loc->commit, loc->base, name);
	if (!place)
		return -ENOMEM;
	free(inode->place);
	inode->place = place;
	return 0;
}

int view_child(struct view *v, struct inode *dir, const struct view_loc *loc, const char *name, const struct view_ent *ent,
               struct inode **ret)
{
	int r = ent->kind == STAGE_DIR ? check_dir(dir->rev, loc, name, ent) : 0;
	if (r < 0)
		return r;
	struct inode *inode = inode_find(v->table, dir, name);
	if (inode && view_is_same(dir->rev, inode, ent)) {
		r = move_place(inode, loc, name);
		if (r < 0)
			view_put(v, inode, 1);
		else
			*ret = inode;
		return r;
	}
	view_put(v, inode, 1);
	char *path AUTO_FREE = view_join(loc->path, name);
	if (!path)
		return -ENOMEM;
	struct inode_spec spec = {
		.kind = ent->kind == STAGE_DIR ? INODE_DIR : INODE_FILE,
		.rev = dir->rev,
		.ino = view_ino(dir->rev, path),
	};
	struct inode_place *place = NULL;
	if (ent->kind == STAGE_FILE && !ent->snode) {
		place = place_new(loc->commit, loc->base, name);
		if (!place)
			return -ENOMEM;
	}
	r = inode_make(v->table, dir, name, &spec, &inode);
	if (r < 0) {
		free(place);
		return r;
	}
	inode->snode = ent->kind == STAGE_FILE ? ent->snode : 0;
	inode->place = place;
	inode->date_s = dir->rev->date_s;
	if (place)
		inode->key = ent->key;
	if (place)
		r = recall_local(dir->rev, inode, place->path);
	if (r < 0) {
		view_put(v, inode, 1);
		return r;
	}
	*ret = inode;
	return 0;
}

int view_locate_dir(struct view *v, struct inode *dir, struct view_loc *ret)
{
	char *path AUTO_FREE = NULL;
	int r = inode_path(v->table, dir, &path);
	return r < 0 ? r : view_locate(v, dir->rev, path, ret);
}

int view_alias(struct view *v, struct inode *dir, const char *name, struct inode *real, struct inode **ret)
{
	if (!dir->real || real->kind == INODE_FILE) {
		*ret = real;
		return 0;
	}
	struct inode *inode = inode_find(v->table, dir, name);
	int r = 0;
	if (!inode || inode->real != real) {
		struct inode_spec spec = {
			.kind = INODE_DIR, .rev = dir->rev, .ino = hash_text64(dir->ino, name, strlen(name)), .real = real};
		view_put(v, inode, 1);
		r = inode_make(v->table, dir, name, &spec, &inode);
	}
	view_put(v, real, 1);
	if (r == 0)
		*ret = inode;
	return r;
}

static int lookup_in_rev(struct view *v, struct inode *dir, const char *name, struct inode **ret, struct view_need *need)
{
	struct inode *real = view_real(dir), *found;
	int r = view_use(v, dir->rev, need);
	if (r < 0)
		return r;
	LOCKED(&dir->rev->lock);
	struct view_loc loc CLEANUP(view_loc_fini) = {0};
	struct view_ent ent;
	r = view_locate_dir(v, real, &loc);
	if (r == 0)
		r = view_find(v, dir->rev, &loc, name, &ent, need);
	if (r == 0)
		r = ent.kind == STAGE_NONE ? -ENOENT : view_child(v, real, &loc, name, &ent, &found);
	return r < 0 ? r : view_alias(v, dir, name, found, ret);
}

/* -- above the revisions -- */

static int upper_child(struct view *v, struct inode *dir, const char *name, enum inode_kind kind, struct rev *rev,
                       const struct repo_id *repo, struct inode **ret)
{
	struct inode *inode = inode_find(v->table, dir, name);
	if (inode && inode->kind == kind && inode->rev == rev) {
		*ret = inode;
		return 0;
	}
	view_put(v, inode, 1);
	uint64_t seed = hash_text64(dir ? dir->ino : 0, name, strlen(name));
	struct inode_spec spec = {
		.kind = kind, .rev = rev, .repo = repo, .ino = rev ? view_ino(rev, "") : seed, .shared = true};
	return inode_make(v->table, dir, name, &spec, ret);
}

/* The root folder of a revision under that name. The first one stays; others are aliases of it. */
static int rev_root(struct view *v, struct inode *dir, const char *entry, struct rev *rev, struct inode **ret)
{
	LOCKED(&v->lock);
	struct inode *inode = inode_find(v->table, dir, entry);
	if (inode && inode->kind == INODE_DIR && inode->rev == rev) {
		*ret = inode;
		return 0;
	}
	view_put(v, inode, 1);
	struct inode_spec spec = {.kind = INODE_DIR, .rev = rev, .ino = view_ino(rev, ""), .real = rev->root, .shared = true};
	int r = inode_make(v->table, dir, entry, &spec, ret);
	if (r == 0 && !rev->root)
		rev->root = inode_ref(v->table, *ret);
	return r;
}

/* The root folder of revision `name` of a repository. */
static int lookup_rev_root(struct view *v, struct inode *dir, const char *entry, const struct tree_repo *repo,
                           const char *name, struct inode **ret, struct view_need *need)
{
	if (!repo_rev_valid(name))
		return -ENOENT;
	struct tree_head head;
	int r = tree_head(v->env.tree, &repo->id, name, false, &head, NULL);
	if (r == -EAGAIN)
		return view_need_name(need, VIEW_NEED_HEAD, &repo->id, name);
	struct rev *rev;
	if (r == 0)
		r = view_rev_get(v, repo, name, "", &head, &rev);
	return r < 0 ? r : rev_root(v, dir, entry, rev, ret);
}

static int find_repo(struct view *v, const struct repo_id *id, struct tree_repo *ret, struct view_need *need)
{
	int r = tree_repo(v->env.tree, id, false, ret, NULL);
	return r == -EAGAIN ? view_need_name(need, VIEW_NEED_REPO, id, "") : r;
}

static int lookup_in_namespace(struct view *v, struct inode *dir, const char *entry, struct inode **ret,
                               struct view_need *need)
{
	struct repo_id id = *dir->repo;
	char *name AUTO_FREE = NULL;
	struct tree_repo repo;
	if (repo_parse_entry(entry, id.name, &name) < 0)
		return -ENOENT;
	int r = find_repo(v, &id, &repo, need);
	if (r < 0)
		return r;
	if (name && !name[0])
		return upper_child(v, dir, entry, INODE_REVS, NULL, &repo.id, ret);
	return lookup_rev_root(v, dir, entry, &repo, name ? name : "main", ret, need);
}

static int known_namespace(struct view *v, const char *name)
{
	LOCKED(&v->lock);
	for (size_t i = 0; i < v->n_ns; i++) {
		const struct view_ns *ns = &v->ns[i];
		if (strcmp(ns->name, name) != 0)
			continue;
		if (ns->exists)
			return 1;
		return util_now_ms() - ns->asked_ms < MAX(v->env.opts->poll_ms, 1000) ? 0 : -EAGAIN;
	}
	return -EAGAIN;
}

static int lookup_in_hub(struct view *v, struct inode *dir, const char *name, struct inode **ret, struct view_need *need)
{
	struct repo_id id = {.type = dir->kind == INODE_TYPE ? dir->repo->type : REPO_MODEL};
	if (dir->kind == INODE_HUB && (strcmp(name, "datasets") == 0 || strcmp(name, "spaces") == 0)) {
		id.type = name[0] == 'd' ? REPO_DATASET : REPO_SPACE;
		return upper_child(v, dir, name, INODE_TYPE, NULL, &id, ret);
	}
	if (!repo_name_valid(name))
		return -ENOENT;
	int r = known_namespace(v, name);
	if (r == -EAGAIN)
		return view_need_name(need, VIEW_NEED_NS, &id, name);
	if (r == 0)
		return -ENOENT;
	snprintf(id.ns, sizeof(id.ns), "%s", name);
	return upper_child(v, dir, name, INODE_NAMESPACE, NULL, &id, ret);
}

/* -- revisions as folders -- */

char *view_rev_prefix(struct view *v, struct inode *dir)
{
	if (dir->kind == INODE_REVS)
		return strdup("");
	char *up AUTO_FREE = view_rev_prefix(v, dir->parent);
	return up ? util_printf("%s%s/", up, dir->name) : NULL;
}

static const struct tree_ref *find_ref(const struct tree_refs *refs, const char *name)
{
	size_t low = 0, high = refs->n;
	while (low < high) {
		size_t mid = low + (high - low) / 2;
		int order = strcmp(refs->ref[mid].name, name);
		if (order == 0)
			return &refs->ref[mid];
		if (order < 0)
			low = mid + 1;
		else
			high = mid;
	}
	return NULL;
}

bool view_is_shadowed(const struct tree_refs *refs, const char *name)
{
	char *copy AUTO_FREE = strdup(name);
	if (!copy)
		return false;
	for (char *slash = strchr(copy, '/'); slash; slash = strchr(slash + 1, '/')) {
		*slash = '\0';
		if (find_ref(refs, copy))
			return true;
		*slash = '/';
	}
	return false;
}

static bool has_prefix(const struct tree_refs *refs, const char *prefix)
{
	for (size_t i = 0; i < refs->n; i++)
		if (strncmp(refs->ref[i].name, prefix, strlen(prefix)) == 0 && !view_is_shadowed(refs, refs->ref[i].name))
			return true;
	return false;
}

int view_refs(struct view *v, const struct repo_id *repo, struct tree_refs **ret, struct view_need *need)
{
	int r = tree_refs(v->env.tree, repo, false, ret, NULL);
	return r == -EAGAIN ? view_need_name(need, VIEW_NEED_REFS, repo, "") : r;
}

static int lookup_in_revs(struct view *v, struct inode *dir, const char *name, struct inode **ret, struct view_need *need)
{
	struct tree_refs *refs CLEANUP(tree_refs_unrefp) = NULL;
	struct tree_repo repo;
	int r = find_repo(v, dir->repo, &repo, need);
	if (r < 0)
		return r;
	if (dir->kind == INODE_REVS && repo_is_commit(name))
		return lookup_rev_root(v, dir, name, &repo, name, ret, need);
	r = view_refs(v, dir->repo, &refs, need);
	if (r < 0)
		return r;
	char *prefix AUTO_FREE = view_rev_prefix(v, dir);
	char *plain AUTO_FREE = strstr(name, "%2F") ? repo_unescape(name) : strdup(name);
	if (!prefix || !plain)
		return -ENOENT;
	char *full AUTO_FREE = util_printf("%s%s", prefix, plain);
	char *below AUTO_FREE = util_printf("%s%s/", prefix, plain);
	if (!full || !below)
		return -ENOMEM;
	if (find_ref(refs, full))
		return lookup_rev_root(v, dir, name, &repo, full, ret, need);
	if (has_prefix(refs, below))
		return upper_child(v, dir, name, INODE_REVPART, NULL, dir->repo, ret);
	return -ENOENT;
}

int view_lookup(struct view *v, struct inode *dir, const char *name, struct inode **ret, struct view_need *need)
{
	switch (dir->kind) {
	case INODE_HUB:
	case INODE_TYPE:
		return lookup_in_hub(v, dir, name, ret, need);
	case INODE_NAMESPACE:
		return lookup_in_namespace(v, dir, name, ret, need);
	case INODE_REVS:
	case INODE_REVPART:
		return lookup_in_revs(v, dir, name, ret, need);
	case INODE_DIR:
		return lookup_in_rev(v, dir, name, ret, need);
	case INODE_FILE:
		break;
	}
	return -ENOTDIR;
}

/* -- attributes -- */

double view_entry_timeout(struct view *v, struct inode *dir)
{
	double poll_s = (double)v->env.opts->poll_ms / 1000.0;
	struct rev *rev = dir->rev;
	if (!rev)
		return poll_s;
	if (rev->kind == TREE_TAG || rev->kind == TREE_COMMIT)
		return FOREVER_S;
	struct tree_head head;
	{
		LOCKED(&rev->lock);
		if (tree_head_known(v->env.tree, &rev->repo, view_ref(rev), &head) < 0)
			return 0;
	}
	double age_s = (double)(util_now_ms() - head.checked_ms) / 1000.0;
	return age_s < poll_s ? poll_s - age_s : 0;
}

static void apply(struct stat *st, const struct stage_attr *attr, unsigned what)
{
	if (what & STAGE_SET_MODE)
		st->st_mode = (st->st_mode & S_IFMT) | (attr->mode & 07777);
	if (what & STAGE_SET_OWNER) {
		st->st_uid = attr->uid;
		st->st_gid = attr->gid;
	}
	if (what & STAGE_SET_MTIME)
		st->st_mtim = attr->mtime;
}

int view_stat(struct view *v, struct inode *inode, struct stat *ret, double *timeout_s)
{
	if (inode->real) {
		int r = view_stat(v, inode->real, ret, timeout_s);
		ret->st_ino = inode->ino;
		return r;
	}
	const struct opts *o = v->env.opts;
	bool dir = inode->kind != INODE_FILE, staged = false;
	struct stat st = {
		.st_ino = inode->ino,
		.st_mode = dir ? S_IFDIR | (0777 & ~o->umask) : S_IFREG | (0666 & ~o->umask),
		.st_nlink = dir ? 2 : 1,
		.st_uid = o->uid,
		.st_gid = o->gid,
		/* cat and Python read in pieces of this. Half a block: a program that reads a header fetches no second one,
		 * which a whole one makes the kernel ask for. */
		.st_blksize = 1 << 19,
		.st_mtim = {.tv_sec = v->born_s},
	};
	struct rev *rev = inode->rev;
	if (rev) {
		LOCKED(&rev->lock);
		/* A commit of other files changes no time: the date is that of the commit which this was first seen in. */
		st.st_mtim.tv_sec = inode->date_s ? inode->date_s : rev->date_s ? rev->date_s : v->born_s;
		if (!rev->writable || rev->may_write == 0)
			st.st_mode &= ~(mode_t)0222;
		struct stage_attr attr;
		view_check_snode(rev, inode);
		int r = -ENOENT;
		if (dir)
			r = dir_attr(v, inode, &attr);
		else if (inode->snode)
			r = stage_attr(rev->stage, inode->snode, &attr);
		if (r == 0)
			apply(&st, &attr, view_told(&attr));
		else if (inode->local)
			apply(&st, inode->local, inode->local_set);
		if (!dir)
			st.st_size = (off_t)(r == 0 ? attr.size : inode->key.size);
		staged = !dir && r == 0;
		if (staged)
			st.st_blocks = (blkcnt_t)attr.blocks;
	} else if (o->read_only) {
		st.st_mode &= ~(mode_t)0222;
	}
	if (!dir && inode_is_detached(v->table, inode))
		st.st_nlink = 0;
	if (!staged)
		st.st_blocks = (st.st_size + 511) / 512;
	st.st_atim = st.st_ctim = st.st_mtim;
	*timeout_s = view_entry_timeout(v, inode);
	*ret = st;
	return 0;
}

int view_path(struct view *v, struct inode *inode, char **ret)
{
	char *path AUTO_FREE = NULL;
	if (!inode->rev)
		return -ENOENT;
	int r = inode_path(v->table, view_real(inode), &path);
	if (r < 0)
		return r;
	char *full = inode->rev->sub[0] ? view_join(inode->rev->sub, path) : STEAL(path);
	if (!full)
		return -ENOMEM;
	*ret = full;
	return 0;
}

/* -- start and end -- */

static int make_root(struct view *v, const struct repo_source *source, struct hub_error *err)
{
	struct tree_repo repo;
	struct tree_head head;
	struct tree_entry entry;
	struct rev *rev = NULL;
	struct inode_spec spec = {.ino = 1};
	const char *name;
	int r;

	switch (source->kind) {
	case REPO_SOURCE_HUB:
		spec.kind = INODE_HUB;
		break;
	case REPO_SOURCE_TYPE:
		spec.kind = INODE_TYPE;
		spec.repo = &source->id;
		break;
	case REPO_SOURCE_NAMESPACE:
	case REPO_SOURCE_WORD:
		r = hub_namespace_exists(v->env.hub, source->id.ns, err);
		if (r < 0)
			return r;
		if (r == 0) {
			snprintf(err->text, sizeof(err->text), "There is no user or organisation %s on %s: check the spelling",
			         source->id.ns, hub_endpoint(v->env.hub));
			return -ENOENT;
		}
		spec.kind = INODE_NAMESPACE;
		spec.repo = &source->id;
		break;
	case REPO_SOURCE_REPO:
		r = tree_repo(v->env.tree, &source->id, true, &repo, err);
		if (r < 0)
			return r;
		spec.repo = &repo.id;
		spec.kind = INODE_REVS;
		if (source->all_revisions)
			break;
		name = source->rev ? source->rev : "main";
		r = tree_head(v->env.tree, &repo.id, name, true, &head, err);
		if (r == -ENOENT && !err->text[0])
			snprintf(err->text, sizeof(err->text),
			         "There is no revision %.200s: `ls` in a mount without @ shows all of them", name);
		if (r < 0)
			return r;
		r = tree_stat(v->env.tree, &repo.id, head.commit, source->path, true, &entry, err);
		if (r == 0 && entry.kind != HUB_ENTRY_DIR)
			r = -ENOTDIR;
		if ((r == -ENOENT || r == -ENOTDIR) && !err->text[0])
			snprintf(err->text, sizeof(err->text), "There is no folder %s in revision %s: check the spelling",
			         source->path, name);
		if (r < 0)
			return r;
		r = view_rev_get(v, &repo, name, source->path, &head, &rev);
		if (r < 0)
			return r;
		spec.kind = INODE_DIR;
		spec.rev = rev;
		spec.repo = NULL;
		break;
	}
	return inode_make(v->table, NULL, "", &spec, &v->root);
}

int view_new(const struct view_env *env, const struct repo_source *source, struct view **ret, struct hub_error *err)
{
	struct view *v = calloc(1, sizeof(*v));
	if (!v)
		return -ENOMEM;
	v->env = *env;
	v->born_s = time(NULL);
	lock_init(&v->opening, LOCK_OPS);
	lock_init(&v->lock, LOCK_VIEW);
	int r = inode_table_new(&v->table);
	if (r == 0)
		r = make_root(v, source, err);
	if (r == 0 && (source->kind == REPO_SOURCE_HUB || source->kind == REPO_SOURCE_TYPE)) {
		struct hub_error who_err = {0};
		r = hub_whoami(v->env.hub, &v->who, &who_err);
		if (r == -EACCES)
			*err = who_err; /* a bad token breaks public reads too: say so now */
		else if (r != -ECANCELED)
			r = 0;
	}
	if (r < 0) {
		view_free(v);
		return r;
	}
	*ret = v;
	return 0;
}

int view_start(struct view *v, const struct repo_source *source)
{
	return view_recover(v, source);
}

void view_free(struct view *v)
{
	if (!v)
		return;
	inode_table_free(v->table);
	for (size_t i = 0; i < v->n_revs; i++) {
		assert(!v->revs[i]->publish);
		stage_close(v->revs[i]->stage);
		stage_locals_free(v->revs[i]->locals);
		lock_fini(&v->revs[i]->lock);
		free(v->revs[i]->name);
		free(v->revs[i]->sub);
		free(v->revs[i]);
	}
	free(v->revs);
	for (size_t i = 0; i < v->n_ns; i++)
		free(v->ns[i].name);
	free(v->ns);
	hub_whoami_fini(&v->who);
	lock_fini(&v->opening);
	lock_fini(&v->lock);
	free(v);
}

void view_set_notify(struct view *v, struct notify *n)
{
	atomic_store(&v->notify, n);
}

int view_resolve(struct view *v, const char *path, struct rev **ret_rev, char **ret_path)
{
	char *copy AUTO_FREE = strdup(path);
	if (!copy)
		return -ENOMEM;
	struct inode *at = inode_ref(v->table, v->root);
	char *rest = copy;
	while (!at->rev && rest) {
		char *name = strsep(&rest, "/");
		if (!name[0])
			continue;
		struct inode *next = inode_find(v->table, at, name);
		view_put(v, at, 1);
		if (!next)
			return -ENOENT;
		at = next;
	}
	*ret_rev = at->rev;
	view_put(v, at, 1);
	*ret_path = rest ? strdup(rest) : strdup("");
	return *ret_path ? 0 : -ENOMEM;
}
