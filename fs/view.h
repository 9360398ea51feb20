/* view: what a folder of the mount shows: hf://, namespaces, revisions, and below a revision the merge of its tree (what
 * the Hub said at a commit) with its stage (what the user did).
 *
 * No function here waits for the network, so all may run on a FUSE thread: what is missing comes back as -EAGAIN with a
 * struct view_need, which a worker satisfies with view_satisfy before it calls again. */
#ifndef HUGFS_VIEW_H
#define HUGFS_VIEW_H

#include "fetch.h"
#include "ignore.h"
#include "inode.h"
#include "notify.h"
#include "opts.h"
#include "stage.h"
#include "tree.h"

struct view;

/* All borrowed; all outlive the view. */
struct view_env {
	struct hub *hub;
	struct tree *tree;
	struct fetch *fetch;
	struct blocks *blocks;
	const struct opts *opts;
	const struct ignore *ignore;
	/* A branch's stage was opened: make its publisher. Called without a lock that lies right of ops. */
	int (*staged)(void *arg, struct rev *rev, struct stage *stage, struct publish **ret);
	/* May it go (nobody waits, nothing under way)? Then it is freed. */
	bool (*unstaged)(void *arg, struct publish *publish);
	void *arg;
};

/* Looks the source up on the Hub (blocks) and makes the root. On failure `err` holds the sentence for the user: no such
 * repository or revision, no permission, bad token, no network. */
int view_new(const struct view_env *env, const struct repo_source *source, struct view **ret,
             struct hub_error *err) MUST_USE;
/* Opens every stage that a former mount left below what the source covers (unless ro), so that it is shown and published.
 * What is not possible now is logged and left. Blocks on the network; once the view was given to ops. */
int view_start(struct view *v, const struct repo_source *source) MUST_USE;
void view_free(struct view *v);
/* Attributes of changed names are told to the kernel through it; set once the session exists. */
void view_set_notify(struct view *v, struct notify *n);
/* What is to be done now and then: puts what was closed on stable storage, and releases stages and publishers of branches that
 * have nothing staged any more, so that another mount may write there. Blocks on fsync. */
void view_reap(struct view *v);

/* Every revision that this mount has touched, each with a reference that the callee does not keep. */
typedef int (*view_rev_fn)(void *arg, struct rev *rev);
int view_each_rev(struct view *v, view_rev_fn each, void *arg);

/* What a path of the mount (from its root, no leading slash) belongs to: its revision (NULL above the revisions), and the path
 * below the revision. Never asks the Hub. Caller frees *ret_path; the revision lives as long as the view. */
int view_resolve(struct view *v, const char *path, struct rev **ret_rev, char **ret_path) MUST_USE;

/* What stands in the way. */
struct view_need {
	enum {
		VIEW_NEED_NONE,
		VIEW_NEED_HEAD,   /* head of repo@rev */
		VIEW_NEED_LIST,   /* listing of repo, commit, path */
		VIEW_NEED_REFS,   /* refs of repo */
		VIEW_NEED_REPO,   /* does repo exist, under which name */
		VIEW_NEED_NS,     /* does the namespace repo.ns exist */
		VIEW_NEED_ACCESS, /* may the token write to repo */
		VIEW_NEED_MAKE_REPO,   /* repo is to be made */
		VIEW_NEED_MAKE_BRANCH, /* a branch of repo is to be made */
		VIEW_NEED_BLOCKS, /* bytes of a source */
		VIEW_NEED_PUBLISH, /* an fsync's commit */
		VIEW_NEED_CLOSED, /* the commit that a close waits for */
	} what;
	struct repo_id repo;
	char *text;       /* revision or path; owned */
	char commit[41];
	struct source *source; /* BLOCKS; referenced */
	uint64_t off, len;
};
void view_need_fini(struct view_need *need);
/* Blocks on the network: worker threads only. Errors of the Hub as errno. */
int view_satisfy(struct view *v, const struct view_need *need) MUST_USE;

/* -- names; inodes in the answers are referenced: view_put -- */

/* By nodeid, referenced; NULL: unknown. */
struct inode *view_get(struct view *v, uint64_t nodeid);
void view_put(struct view *v, struct inode *inode, uint64_t n);

int view_lookup(struct view *v, struct inode *dir, const char *name, struct inode **ret, struct view_need *need) MUST_USE;

struct view_dirent {
	char *name;
	bool is_dir;
	uint64_t ino;
};
struct view_dir {
	struct view_dirent *ents;
	size_t n;
};
void view_dir_free(struct view_dir *d);
int view_list(struct view *v, struct inode *dir, struct view_dir **ret, struct view_need *need) MUST_USE;

/* Fills st; timeout_s: how long the kernel may keep it. */
int view_stat(struct view *v, struct inode *inode, struct stat *st, double *timeout_s) MUST_USE;
/* Seconds for which the kernel may keep a name of this folder. */
double view_entry_timeout(struct view *v, struct inode *dir);

/* open: a writer follows. */
int view_create(struct view *v, struct inode *dir, const char *name, mode_t mode, bool open, struct inode **ret,
                struct view_need *need) MUST_USE;
int view_mkdir(struct view *v, struct inode *dir, const char *name, mode_t mode, struct inode **ret,
               struct view_need *need) MUST_USE;
int view_unlink(struct view *v, struct inode *dir, const char *name, struct view_need *need) MUST_USE;
int view_rmdir(struct view *v, struct inode *dir, const char *name, struct view_need *need) MUST_USE;
/* flags: 0, RENAME_NOREPLACE; others -EINVAL. */
int view_rename(struct view *v, struct inode *dir, const char *name, struct inode *newdir, const char *newname,
                unsigned flags, struct view_need *need) MUST_USE;
/* rev->publish of a revision that has a stage, kept alive until view_release; NULL: nothing was ever staged there. */
struct publish *view_hold(struct rev *rev);
void view_release(struct rev *rev);
/* Why `inode` may not be written: 0, -EROFS, -EBUSY (another mount owns the branch), -EACCES. */
int view_may_write(struct view *v, struct inode *inode, struct view_need *need) MUST_USE;
int view_may_write_rev(struct view *v, struct rev *rev, struct view_need *need) MUST_USE;
/* Gives a file a stage node, so that it can be written: borrows its blob. -ESTALE: a push replaced it meanwhile, or it was
 * parted from its name (view_part): the kernel looks the name up again. */
int view_stage_file(struct view *v, struct inode *inode, struct view_need *need) MUST_USE;
/* Its stage node now; 0: clean. */
uint64_t view_snode(struct inode *inode);
/* Are the pages that the kernel kept of it since an earlier open right? Not if wrong bytes had come. */
bool view_may_keep_pages(struct view *v, struct inode *inode);
/* A handle of a file came or went: its stage node (or the source of its bytes) stays for as long as one is open. */
int view_opened(struct view *v, struct inode *inode) MUST_USE;
void view_closed(struct view *v, struct inode *inode);
/* Bytes of a file as this mount shows it now, at most len: those, 0 at its end, or -EAGAIN with need. */
ssize_t view_read(struct view *v, struct inode *inode, uint64_t off, void *buf, size_t len, struct view_need *need) MUST_USE;
/* The file that holds all its bytes, if the Hub's bytes are what it shows; rev->lock held. -EAGAIN: it is to be read. */
int view_lend(struct view *v, struct inode *inode, struct loan **ret) MUST_USE;
/* Its bytes are about to change, but somebody reads them from a lent file and would not see that: it keeps them, like after a
 * push, and the next lookup finds a new inode. For some seconds nothing else of the revision is lent. rev->lock held. */
void view_part(struct view *v, struct inode *inode);
/* A clean file's content and where it can be fetched: *ret_path, which is blob->path, the caller frees. -ENODATA: it is
 * staged. */
int view_blob(struct view *v, struct inode *inode, struct stage_blob *blob, char **ret_path) MUST_USE;
/* view_read without a copy, where that is possible: a clean file that is complete in the cache. Until view_look_end. -EAGAIN:
 * view_read does it. */
struct view_look {
	struct source *source; /* referenced */
	uint64_t off;
	size_t len;
	const void *data;
};
int view_look(struct view *v, struct inode *inode, uint64_t off, size_t len, struct view_look *ret) MUST_USE;
void view_look_end(struct view_look *l);
int view_setattr(struct view *v, struct inode *inode, unsigned what, const struct stage_attr *attr,
                 struct view_need *need) MUST_USE; /* what: STAGE_SET_* */

/* Path of an inode from its branch's root (not from a subfolder that is mounted); -ENOENT: it has no name. Caller frees. */
int view_path(struct view *v, struct inode *inode, char **ret) MUST_USE;

/* -- publication and refresh -- */

/* publish_env.settle: arg is the struct rev. */
int view_settle(void *arg, const char *ref, const char *commit, int64_t date_s);
/* publish_env.discard: arg is the struct rev; the path is from the branch's root. */
int view_discard_path(void *arg, const char *path);
/* Asks the Hub for the head now (blocks), and tells the kernel of names that may mean something else. */
int view_refresh(struct view *v, struct rev *rev, struct hub_error *err) MUST_USE;
/* Throws away what is staged at the path below the revision and tells the kernel. A transaction that is held goes as a whole:
 * what was there when it began is there again; -EPERM for a path below. -EBUSY while one is running. */
int view_discard(struct view *v, struct rev *rev, const char *path) MUST_USE;

#endif
