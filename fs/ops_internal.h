/* What the files of ops share. */
#ifndef HUGFS_OPS_INTERNAL_H
#define HUGFS_OPS_INTERNAL_H

#define FUSE_USE_VERSION 312
#include <fuse_lowlevel.h>

#include "ops.h"
#include "ops_wire.h"

/* One request of the kernel. Lives on the FUSE thread's stack; when it must wait, on the heap with names of its own. */
struct call {
	fuse_req_t req;
	struct ops *ops;
	/* Does the work without waiting: 0: it has replied; -EAGAIN: what `need` says must happen first, then it is run again
	 * from the start; another -errno: the caller replies it. */
	int (*run)(struct call *c, struct view_need *need);

	/* decoded arguments, as far as the request has them */
	fuse_ino_t ino, newino;
	const char *name, *newname;
	size_t size;
	off_t off;
	unsigned flags;
	mode_t mode;
	int to_set;
	bool kills_suid; /* set-user-ID and set-group-ID go, too */
	struct stat attr;
	struct fuse_file_info fi;

	/* fsync: the commit that it waits for */
	struct rev *held;      /* view_hold was called */
	bool waited;
	bool made;             /* what its mkdir makes was made */
	int wait_err;
	_Atomic uint64_t wait_id;

	bool made_room; /* ops_make_room was called for it */

	/* parked; see ops.c */
	atomic_int state, refs;
	struct view_need need;
	unsigned rounds;
	struct call *next_queued, *next_answer;
	struct call *prev_parked, *next_parked;
};

/* Runs it, replies, or parks it. `c` is the caller's. */
void ops_dispatch(struct call *c);

/* The staging disk is full: the cache gives way when it lies on the same one. true: it did, so that the change may be tried
 * again. */
bool ops_make_room(struct ops *o);

/* An open file. */
struct handle {
	struct inode *inode; /* referenced */
	int flags;           /* of open(2) */
	/* writers only: they stay as they are for as long as the handle lives */
	bool writer;
	struct stage *stage;
	struct publish *publish;
	uint64_t node;
	_Atomic bool wrote;
	enum { PASS_NONE, PASS_SHARED, PASS_LENT } pass; /* how the kernel reads it: ops_pass.c */
	struct handle *prev, *next; /* all handles: see ops_handle_add */
};
static inline struct handle *handle_of(const struct fuse_file_info *fi)
{
	return (struct handle *)(uintptr_t)fi->fh;
}

/* Handles whose RELEASE never comes, because the mount ends before it, are freed by ops_free. */
void ops_handle_add(struct ops *o, struct handle *h);
void ops_handle_drop(struct ops *o, struct handle *h);

struct view *ops_view(struct ops *o);
const struct ops_env *ops_env(struct ops *o);
struct ops *ops_of(fuse_req_t req);
struct ops_wire *ops_wire(struct ops *o);
/* Was thread `pid` ended by a signal? Asks a thread of its own, and waits for it some milliseconds at most. */
bool ops_was_killed(struct ops *o, pid_t pid);

/* By nodeid, referenced. With CLEANUP(ops_putp). */
struct held_inode {
	struct view *view;
	struct inode *inode; /* NULL: unknown nodeid */
};
struct held_inode ops_hold(struct call *c, fuse_ino_t ino);
void ops_putp(struct held_inode *h);
#define AUTO_INODE CLEANUP(ops_putp) struct held_inode

/* Entry parameters of an inode that was found in `dir`. */
int ops_entry(struct ops *o, struct inode *dir, struct inode *inode, struct fuse_entry_param *ret) MUST_USE;

/* A name in `dir` was changed: tells the branch's publisher. */
void ops_changed(struct inode *dir, enum publish_change what, const char *name, uint64_t node);

/* ops_dir.c */
void ops_lookup(fuse_req_t req, fuse_ino_t parent, const char *name);
void ops_forget(fuse_req_t req, fuse_ino_t ino, uint64_t n);
void ops_forget_multi(fuse_req_t req, size_t count, struct fuse_forget_data *forgets);
void ops_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void ops_access(fuse_req_t req, fuse_ino_t ino, int mask);
void ops_mkdir(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode);
void ops_mknod(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, dev_t rdev);
void ops_symlink(fuse_req_t req, const char *link, fuse_ino_t parent, const char *name);
void ops_link(fuse_req_t req, fuse_ino_t ino, fuse_ino_t newparent, const char *newname);
void ops_unlink(fuse_req_t req, fuse_ino_t parent, const char *name);
void ops_rmdir(fuse_req_t req, fuse_ino_t parent, const char *name);
void ops_rename(fuse_req_t req, fuse_ino_t parent, const char *name, fuse_ino_t newparent, const char *newname,
                unsigned flags);
void ops_opendir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void ops_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi);
void ops_readdirplus(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi);
void ops_releasedir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void ops_fsyncdir(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi);
void ops_statfs(fuse_req_t req, fuse_ino_t ino);

/* ops_file.c */
void ops_create(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, struct fuse_file_info *fi);
void ops_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void ops_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi);
void ops_write(fuse_req_t req, fuse_ino_t ino, const char *data, size_t size, off_t off, struct fuse_file_info *fi);
void ops_fallocate(fuse_req_t req, fuse_ino_t ino, int mode, off_t off, off_t len, struct fuse_file_info *fi);
void ops_lseek(fuse_req_t req, fuse_ino_t ino, off_t off, int whence, struct fuse_file_info *fi);
void ops_copy_file_range(fuse_req_t req, fuse_ino_t ino_in, off_t off_in, struct fuse_file_info *fi_in, fuse_ino_t ino_out,
                         off_t off_out, struct fuse_file_info *fi_out, size_t len, int flags);
void ops_flush(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void ops_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void ops_fsync(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi);
void ops_setattr(fuse_req_t req, fuse_ino_t ino, struct stat *attr, int to_set, struct fuse_file_info *fi);
/* Waits (parked) until what is unpublished of `node` of `rev` (0: anything) is on the Hub. For fsync and fsyncdir. */
int ops_wait_published(struct call *c, struct rev *rev, uint64_t node, struct view_need *need) MUST_USE;

/* ops_pass.c */
/* Chooses how the kernel is to read this new handle: *ret_id > 0 is the lent file, 0 the page cache. -ESTALE: the kernel must
 * look the name up again. */
int ops_pass_open(struct ops *o, struct handle *h, int *ret_id) MUST_USE;
/* At its RELEASE, or when it never was opened. */
void ops_pass_close(struct ops *o, struct handle *h);

/* ops_xattr.c */
void ops_getxattr(fuse_req_t req, fuse_ino_t ino, const char *name, size_t size);
void ops_listxattr(fuse_req_t req, fuse_ino_t ino, size_t size);
void ops_setxattr(fuse_req_t req, fuse_ino_t ino, const char *name, const char *value, size_t size, int flags);
void ops_removexattr(fuse_req_t req, fuse_ino_t ino, const char *name);

#endif
