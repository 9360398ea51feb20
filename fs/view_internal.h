/* What the files of view share: view.c (what is shown), view_rev.c (revisions, needs), view_change.c (what the user changes). */
#ifndef HUGFS_VIEW_INTERNAL_H
#define HUGFS_VIEW_INTERNAL_H

#include "view.h"

/* A namespace that the Hub was asked for. */
struct view_ns {
	char *name;
	bool exists;
	int64_t asked_ms;
};

struct view {
	struct view_env env;
	struct inode_table *table;
	struct inode *root;
	_Atomic(struct notify *) notify;
	int64_t born_s;            /* date of what has none of its own */
	struct hub_whoami who;     /* whole-Hub mounts only */
	struct lock opening;       /* held while a stage and its publisher come or go; LOCK_OPS */
	struct lock lock;          /* LOCK_VIEW */
	/* -- guarded by lock -- */
	struct rev **revs;
	size_t n_revs;
	struct view_ns *ns;
	size_t n_ns;
};

/* Where a folder of a revision stands in both layers. */
struct view_loc {
	char *path;      /* below the revision's root, as shown */
	uint64_t snode;  /* 0: the overlay has no node for it */
	bool has_base;
	char commit[41]; /* the base: this folder at this commit */
	char *base;
};
void view_loc_fini(struct view_loc *l);
/* rev->lock held. -ENOENT: the overlay says that there is no such folder. */
int view_locate(struct view *v, struct rev *rev, const char *path, struct view_loc *ret) MUST_USE;
/* Its listing in the base. *ret stays NULL when it has none (or the branch lost it below our changes). -EAGAIN with need. */
int view_base_list(struct view *v, struct rev *rev, const struct view_loc *loc, struct tree_listing **ret,
                   struct view_need *need) MUST_USE;

/* The same for an inode. */
int view_locate_dir(struct view *v, struct inode *dir, struct view_loc *ret) MUST_USE;

/* What a name in a folder means. */
struct view_ent {
	enum stage_kind kind; /* STAGE_NONE, _FILE or _DIR */
	uint64_t snode;       /* of the overlay; 0: it is the base's */
	bool in_base;         /* the base holds the name, whatever the overlay says */
	bool dir_in_base;     /* the base holds the folder itself */
	struct blob_key key;  /* of a file of the base */
	uint8_t oid[20];
};
/* rev->lock held. 0 also for kind NONE. */
int view_find(struct view *v, struct rev *rev, const struct view_loc *dir, const char *name, struct view_ent *ret,
              struct view_need *need) MUST_USE;

/* The ref that the base of a revision is the head of. rev->lock held. */
const char *view_ref(const struct rev *rev);
/* The revision's base is as fresh as poll asks; -EAGAIN with need. */
int view_use(struct view *v, struct rev *rev, struct view_need *need) MUST_USE;
/* The revision `name` of `repo`, made at its first use; its head is known. */
int view_rev_get(struct view *v, const struct tree_repo *repo, const char *name, const char *sub,
                 const struct tree_head *head, struct rev **ret) MUST_USE;
/* Makes sure that rev->stage and rev->publish are there. create: also when nothing was left by a former mount. */
int view_open_stage(struct view *v, struct rev *rev, bool create) MUST_USE;
/* Opens what former mounts left below what `root` covers. */
int view_recover(struct view *v, const struct repo_source *source) MUST_USE;

int view_need_list(struct view_need *need, const struct repo_id *repo, const char *commit, const char *path);
int view_need_name(struct view_need *need, int what, const struct repo_id *repo, const char *text);

/* The folder itself: of an alias that which it stands for. */
static inline struct inode *view_real(struct inode *dir)
{
	return dir->real ? dir->real : dir;
}
/* What `real` is for who looks from folder `dir`: itself, or when `dir` is an alias and it is a folder, an alias of it below that.
 * Takes a reference of `real`. */
int view_alias(struct view *v, struct inode *dir, const char *name, struct inode *real, struct inode **ret) MUST_USE;

/* The inode of a file or folder under its name, made or found: see the table of inode.c. rev->lock held. */
int view_child(struct view *v, struct inode *dir, const struct view_loc *loc, const char *name, const struct view_ent *ent,
               struct inode **ret) MUST_USE;
uint64_t view_ino(const struct rev *rev, const char *path);
/* Is the living inode of a name still what the name means? rev->lock held. */
bool view_is_same(struct rev *rev, struct inode *inode, const struct view_ent *ent);
/* "dir/name", or "name" when dir is "". Caller frees; NULL: no memory. */
char *view_join(const char *dir, const char *name);
/* What of the attributes counts: STAGE_SET_*. */
unsigned view_told(const struct stage_attr *attr);
/* Gives the inode its stage node, pinned when it is open. rev->lock held. */
int view_set_snode(struct rev *rev, struct inode *inode, uint64_t snode) MUST_USE;
void view_clear_snode(struct rev *rev, struct inode *inode);
/* The stage forgets a file by itself that was opened for writing and not changed: then the inode is clean again. To be called
 * before snode is relied on. rev->lock held. */
void view_check_snode(struct rev *rev, struct inode *inode);

/* The source of an inode's committed bytes, kept with the inode; a reference of the caller's. rev->lock held. */
int view_source_for(struct view *v, struct rev *rev, struct inode *inode, const struct blob_key *key, const char *commit,
                    const char *path, struct source **ret) MUST_USE;

/* -- view_make.c: folders that are repositories and branches -- */

/* mkdir above the revisions: -EAGAIN with what is to be made. */
int view_make_upper(struct view *v, struct inode *dir, const char *name, struct view_need *need) MUST_USE;
/* Makes it (blocks). */
int view_make(struct view *v, const struct view_need *need) MUST_USE;

/* -- revisions as folders -- */

/* "refs/pr/" for the folder refs/pr below a REVS; "" for that itself. Caller frees; NULL: no memory. */
char *view_rev_prefix(struct view *v, struct inode *dir);
int view_refs(struct view *v, const struct repo_id *repo, struct tree_refs **ret, struct view_need *need) MUST_USE;
/* Is a revision a folder on the way to `name`? Then that revision's files are there, and `name` shows as one
 * component (`a%2Fb` beside `a`). */
bool view_is_shadowed(const struct tree_refs *refs, const char *name);

#endif
