/* inode: numbers, lookup counts, names; which node is behind one.
 *
 * A file's nodeid means path + content version: when somebody else's push changes the content, the next lookup makes a new
 * inode and the old one lives until it is forgotten, so open files and mappings keep their bytes. A folder's nodeid means
 * its path. Our own write, rename and commit keep the nodeid. The tables stand at the head of inode.c. */
#ifndef HUGFS_INODE_H
#define HUGFS_INODE_H

#include "fetch.h"
#include "lock.h"
#include "stage.h"
#include "tree.h"

struct publish;
struct view;

/* A revision that this mount has touched: where its files come from and where changes go. Lives as long as the view. */
struct rev {
	struct view *view;
	struct repo_id repo;    /* canonical */
	char internal_id[40];
	char *name;             /* "main", "v1", "refs/pr/3", 40 hex */
	char *sub;              /* folder that is the root of the mount (hf://a/b@main/sub); "" else */
	enum tree_rev_kind kind;
	bool writable;          /* a branch or pull request, and the mount is not ro */
	struct inode *root;     /* its root folder, as it was seen first; referenced; guarded by the view's lock */
	struct lock lock;       /* LOCK_INODE: names of this revision */
	/* -- guarded by lock -- */
	char commit[41];        /* the base of what is shown; "" until the first use */
	int64_t date_s;
	char ref[48];           /* refs/pr/N that is shown and written in its place (-o pr); "" else: view_ref */
	int may_write;          /* -1 not asked yet, 0, 1 */
	struct stage *stage;    /* NULL: nothing staged here by this mount */
	struct stage_locals *locals; /* without a stage: what it left; NULL: none */
	struct publish *publish;
	unsigned users;         /* handles that use the stage */
	int64_t no_loans_ms;    /* util_now_ms() before which no file is lent: see view_part */
};

enum inode_kind {
	INODE_HUB,       /* root of hf:// */
	INODE_TYPE,      /* datasets/, spaces/ */
	INODE_NAMESPACE, /* user/ */
	INODE_REVS,      /* repo@/ : its revisions as folders */
	INODE_REVPART,   /* refs/, refs/pr/, feature/ */
	INODE_DIR,       /* folder of a revision; its root too */
	INODE_FILE,
};

/* Where the bytes of a clean file can be fetched. */
struct inode_place {
	char commit[41];
	char path[];
};

struct inode {
	uint64_t id;          /* nodeid; never used again */
	enum inode_kind kind;
	uint64_t ino;         /* st_ino */
	struct rev *rev;      /* DIR, FILE */
	struct repo_id *repo; /* TYPE: type; NAMESPACE: type, ns; REVS, REVPART: all; NULL for others; owned */
	/* -- guarded by the table's lock -- */
	uint64_t refs;        /* lookups of the kernel + references held by us */
	struct inode *parent; /* referenced; NULL for the root */
	char *name;           /* below parent; REVPART: the last component */
	struct inode *real;   /* DIR: an alias, seen by another path (repo/ and repo@main/), of this one; referenced; NULL: none */
	struct inode *aliases, *next_alias; /* of this one; among those of `real` */
	bool detached;        /* no longer what its name means: unlinked, or replaced by a push */
	struct inode *next[3]; /* hash chains: by nodeid, by name, by st_ino */
	/* -- guarded by rev->lock -- */
	uint64_t snode;       /* FILE: stage node; 0: clean */
	struct blob_key key;  /* FILE, clean: its bytes */
	struct inode_place *place; /* FILE, clean; owned */
	struct stage_attr *local;  /* FILE, clean: times and modes set here; NULL: none; owned */
	unsigned local_set;   /* STAGE_SET_* of local */
	int64_t date_s;       /* of the commit that it was first seen in */
	unsigned opens;       /* handles */
	bool pinned;          /* snode is pinned, because opens > 0 */
	unsigned shared;      /* handles that the kernel reads through its page cache */
	unsigned lent;        /* handles that it reads from the file that is lent; one of the two is 0 */
	int lent_id;          /* that file's number in the kernel */
	struct loan *loan;    /* kept while lent > 0 */
	struct source *source; /* what its committed bytes are read from; kept while opens > 0 */
};

struct inode_table;
int inode_table_new(struct inode_table **ret) MUST_USE;
void inode_table_free(struct inode_table *t);

/* What a new inode is made of. repo is copied; may be NULL. ino is changed when a living inode has it. */
struct inode_spec {
	enum inode_kind kind;
	struct rev *rev;
	const struct repo_id *repo;
	uint64_t ino;
	struct inode *real; /* it is an alias of this, which is none */
	bool shared; /* a living one of that name, kind and revision is as good: two may be made at once */
};
/* The living inode of that name in `parent`, or NULL. Referenced. */
struct inode *inode_find(struct inode_table *t, struct inode *parent, const char *name);
/* A new one under that name; a former one of that name is detached. parent NULL: the root, nodeid 1. Referenced. */
int inode_make(struct inode_table *t, struct inode *parent, const char *name, const struct inode_spec *spec,
               struct inode **ret) MUST_USE;
/* By nodeid, as the kernel names it; referenced; NULL: unknown. */
struct inode *inode_get(struct inode_table *t, uint64_t id);
struct inode *inode_ref(struct inode_table *t, struct inode *i);
void inode_unref(struct inode_table *t, struct inode *i, uint64_t n);
/* Its name means something else now. */
void inode_detach(struct inode_table *t, struct inode *i);
bool inode_is_detached(struct inode_table *t, struct inode *i);
/* rename: moves it under its new name (whatever had that is detached). */
int inode_move(struct inode_table *t, struct inode *i, struct inode *parent, const char *name) MUST_USE;
/* The path below the revision's root ("" for that itself), as shown now; -ENOENT when it or a folder above is detached.
 * Caller frees. */
int inode_path(struct inode_table *t, struct inode *i, char **ret) MUST_USE;
/* nodeid of the parent (0: none) and the name, for notify. Caller frees the name. */
int inode_where(struct inode_table *t, struct inode *i, uint64_t *ret_parent, char **ret_name) MUST_USE;
/* Calls each for every living inode of `rev` (NULL: those above the revisions); under the table's lock: it must not call back. */
typedef void (*inode_each_fn)(void *arg, struct inode *i);
void inode_each(struct inode_table *t, struct rev *rev, inode_each_fn each, void *arg);
/* nodeids of the aliases of `real`, at most `max`; the answer is how many it wrote. */
size_t inode_aliases(struct inode_table *t, struct inode *real, uint64_t *ids, size_t max);
/* Inodes that are alive, for status. */
size_t inode_count(struct inode_table *t);

#endif
