/* ops_file: opens, bytes, and when a file counts as closed.
 *
 * A read is answered from what is on this machine, or parked until the blocks are (fetch). A write goes to the stage and
 * nowhere else. FLUSH is not "close" (fork, exec and `>` send it too): stage decides by the thread that wrote last.
 *
 * Threads: see ops.c. */
#define LOG_MODULE "ops"

#include "ops_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <time.h>

#include "log.h"

/* -- set-user-ID -- */

/* A write or a change of owner takes these bits away, as chown(2) and write(2) say. The kernel leaves that to us. */
static mode_t without_suid(mode_t mode)
{
	return mode & ~(mode_t)(S_ISUID | (mode & S_IXGRP ? S_ISGID : 0));
}

static void kill_suid(struct handle *h)
{
	struct stage_attr attr;
	if (stage_attr(h->stage, h->node, &attr) < 0 || !attr.has_mode || without_suid(attr.mode) == attr.mode)
		return;
	attr.mode = without_suid(attr.mode);
	if (stage_setattr(h->stage, h->node, STAGE_SET_MODE, &attr) < 0)
		log_warn("a file keeps its set-user-ID bit, though it was written");
}

/* -- open -- */

static bool writes(int flags)
{
	return (flags & O_ACCMODE) != O_RDONLY;
}

static void handle_free(struct ops *o, struct handle *h)
{
	ops_pass_close(o, h);
	ops_handle_drop(o, h);
	view_closed(ops_view(o), h->inode);
	view_put(ops_view(o), h->inode, 1);
	free(h);
}

/* Ends what handle_new began: the writer, then the handle. */
static void handle_end(struct ops *o, struct handle *h)
{
	struct rev *rev = h->inode->rev;
	bool writer = h->writer;
	if (writer) {
		stage_writer_close(h->stage, h->node);
		publish_closed(h->publish, h->node, h->wrote);
	}
	handle_free(o, h);
	if (writer)
		view_release(rev);
}

/* Makes the handle a writer: the file has a stage node. */
static int become_writer(struct handle *h)
{
	struct rev *rev = h->inode->rev;
	h->publish = view_hold(rev);
	if (!h->publish)
		return -ENOENT; /* the branch was given back, and the node with it */
	{
		LOCKED(&rev->lock);
		h->stage = rev->stage;
		h->node = h->inode->snode;
	}
	int r = stage_writer_open(h->stage, h->node);
	if (r < 0) {
		view_release(rev);
		return r;
	}
	h->writer = true;
	publish_opened(h->publish, h->node);
	return 0;
}

/* `inode` is referenced by the caller; the handle takes one of its own. */
static int handle_new(struct call *c, struct inode *inode, int flags, struct handle **ret)
{
	struct view *v = ops_view(c->ops);
	struct handle *h = calloc(1, sizeof(*h));
	if (!h)
		return -ENOMEM;
	int r = view_opened(v, inode);
	if (r < 0) {
		free(h);
		return r;
	}
	h->inode = view_get(v, inode->id);
	h->flags = flags;
	ops_handle_add(c->ops, h);
	if (writes(flags))
		r = become_writer(h);
	if (r == 0 && h->writer && (flags & O_TRUNC)) {
		h->wrote = true;
		r = stage_truncate(h->stage, h->node, 0);
		if (r == 0 && c->kills_suid)
			kill_suid(h);
		if (r < 0) {
			handle_end(c->ops, h);
			return r;
		}
	}
	if (r < 0) {
		handle_free(c->ops, h);
		return r;
	}
	*ret = h;
	return 0;
}

/* Sends the answer to an OPEN, or with `e` to a CREATE. An error: it was not sent, and the handle is ended. -ENOENT: the
 * kernel does not wait for it any more. */
static int reply_open(struct call *c, struct handle *h, const struct fuse_entry_param *e)
{
	int id = 0;
	int r = ops_pass_open(c->ops, h, &id);
	if (r == 0) {
		c->fi.fh = (uint64_t)(uintptr_t)h;
		/* A nodeid means its content, so pages that the kernel holds are right, unless wrong bytes had come.
		 * Readers need no FLUSH. */
		c->fi.keep_cache = view_may_keep_pages(ops_view(c->ops), h->inode);
		c->fi.noflush = !h->writer;
		ops_wire_answer(id);
		r = e ? fuse_reply_create(c->req, e, &c->fi) : fuse_reply_open(c->req, &c->fi);
		ops_wire_answer(0);
		if (r == 0)
			return 0;
		r = -ENOENT;
	}
	handle_end(c->ops, h);
	return r;
}

static int open_inode(struct call *c, struct inode *inode, struct view_need *need, struct handle **ret)
{
	struct view *v = ops_view(c->ops);
	int r = 0;
	if (inode->kind != INODE_FILE)
		return -EISDIR;
	if (writes(c->fi.flags)) {
		r = view_may_write(v, inode, need);
		if (r == 0)
			r = view_stage_file(v, inode, need);
	}
	if (r < 0)
		return r;
	r = handle_new(c, inode, c->fi.flags, ret);
	/* The last writer closed an unchanged file between the two steps, and took its node along: once more. */
	return r == -ENOENT && writes(c->fi.flags) ? -EAGAIN : r;
}

static int run_open(struct call *c, struct view_need *need)
{
	AUTO_INODE inode = ops_hold(c, c->ino);
	struct handle *h;
	if (!inode.inode)
		return -ESTALE;
	int r = open_inode(c, inode.inode, need, &h);
	if (r < 0)
		return r;
	r = reply_open(c, h, NULL);
	return r == -ENOENT ? 0 : r;
}

void ops_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct call c = {.req = req, .ops = ops_of(req), .run = run_open, .ino = ino, .fi = *fi};
	c.kills_suid = ops_wire_kills_suid();
	ops_dispatch(&c);
}

static int run_create(struct call *c, struct view_need *need)
{
	AUTO_INODE dir = ops_hold(c, c->ino);
	struct view *v = dir.view;
	struct inode *inode = NULL;
	struct handle *h = NULL;
	struct fuse_entry_param e;
	if (!dir.inode)
		return -ESTALE;
	int r = view_create(v, dir.inode, c->name, c->mode, true, &inode, need);
	if (r == 0) {
		ops_changed(dir.inode, PUBLISH_CREATED, c->name, view_snode(inode));
		r = handle_new(c, inode, c->fi.flags, &h);
		if (r == 0)
			h->wrote = true; /* a new empty file is a change */
		else if (r == -ENOENT)
			r = open_inode(c, inode, need, &h); /* a commit had it already */
	} else if (r == -EEXIST && !(c->fi.flags & O_EXCL)) {
		/* A push brought the name since the kernel asked: then this is an open. */
		r = view_lookup(v, dir.inode, c->name, &inode, need);
		if (r == 0)
			r = open_inode(c, inode, need, &h);
	}
	if (r == 0)
		r = ops_entry(c->ops, dir.inode, inode, &e);
	if (r < 0) {
		if (h)
			handle_end(c->ops, h);
		view_put(v, inode, 1);
		return r;
	}
	r = reply_open(c, h, &e);
	if (r < 0)
		view_put(v, inode, 1);
	return r == -ENOENT ? 0 : r;
}

void ops_create(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, struct fuse_file_info *fi)
{
	struct call c = {
		.req = req,
		.ops = ops_of(req),
		.run = run_create,
		.ino = parent,
		.name = name,
		.mode = mode,
		.fi = *fi,
	};
	ops_dispatch(&c);
}

/* -- bytes -- */

static int run_read(struct call *c, struct view_need *need)
{
	struct handle *h = handle_of(&c->fi);
	struct view_look look;
	if (view_look(ops_view(c->ops), h->inode, (uint64_t)c->off, c->size, &look) == 0) {
		fuse_reply_buf(c->req, look.data, look.len);
		view_look_end(&look);
		return 0;
	}
	char *buf AUTO_FREE = malloc(c->size);
	if (!buf)
		return -ENOMEM;
	ssize_t n = view_read(ops_view(c->ops), h->inode, (uint64_t)c->off, buf, c->size, need);
	if (n < 0)
		return (int)n;
	fuse_reply_buf(c->req, buf, (size_t)n);
	return 0;
}

void ops_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi)
{
	struct call c = {
		.req = req, .ops = ops_of(req), .run = run_read, .ino = ino, .size = size, .off = off, .fi = *fi};
	ops_dispatch(&c);
}

void ops_write(fuse_req_t req, fuse_ino_t ino, const char *data, size_t size, off_t off, struct fuse_file_info *fi)
{
	struct handle *h = handle_of(fi);
	(void)ino;
	pid_t pid = fuse_req_ctx(req)->pid;
	int r = stage_write(h->stage, h->node, (uint64_t)off, data, size, pid);
	if (r == -ENOSPC && ops_make_room(ops_of(req)))
		r = stage_write(h->stage, h->node, (uint64_t)off, data, size, pid);
	if (r < 0) {
		fuse_reply_err(req, -r);
		return;
	}
	h->wrote = true;
	if (ops_wire_kills_suid())
		kill_suid(h);
	publish_wrote(h->publish, h->node, size);
	fuse_reply_write(req, size);
}

void ops_fallocate(fuse_req_t req, fuse_ino_t ino, int mode, off_t off, off_t len, struct fuse_file_info *fi)
{
	struct handle *h = handle_of(fi);
	(void)ino;
	pid_t pid = fuse_req_ctx(req)->pid;
	int r = h->writer ? stage_fallocate(h->stage, h->node, mode, (uint64_t)off, (uint64_t)len, pid) : -EBADF;
	if (r == -ENOSPC && ops_make_room(ops_of(req)))
		r = stage_fallocate(h->stage, h->node, mode, (uint64_t)off, (uint64_t)len, pid);
	if (r == 0) {
		h->wrote = true;
		publish_wrote(h->publish, h->node, 0);
	}
	fuse_reply_err(req, -r);
}

/* What comes from a blob is data: only what is staged has holes. */
static int seek_clean(uint64_t size, uint64_t off, int whence, uint64_t *ret)
{
	if (off >= size)
		return -ENXIO;
	*ret = whence == SEEK_DATA ? off : size;
	return 0;
}

void ops_lseek(fuse_req_t req, fuse_ino_t ino, off_t off, int whence, struct fuse_file_info *fi)
{
	struct inode *inode = handle_of(fi)->inode;
	struct view *v = ops_view(ops_of(req));
	uint64_t at = 0, node = view_snode(inode);
	int r = -ENOENT;
	(void)ino;
	if (node && view_hold(inode->rev)) {
		r = stage_seek(inode->rev->stage, node, (uint64_t)off, whence, &at);
		view_release(inode->rev);
	}
	if (r == -ENOENT) { /* clean, or a commit settled it just now */
		struct stat st;
		double timeout;
		r = view_stat(v, inode, &st, &timeout);
		if (r == 0)
			r = seek_clean((uint64_t)st.st_size, (uint64_t)off, whence, &at);
	}
	if (r < 0)
		fuse_reply_err(req, -r);
	else
		fuse_reply_lseek(req, (off_t)at);
}

/* Within one repository content can be taken by reference. The kernel reads and writes when it is told EOPNOTSUPP. */
static ssize_t copy_range(struct call *c, struct handle *in, off_t in_off, struct handle *out, off_t out_off, size_t len)
{
	struct rev *rev = in->inode->rev;
	struct stage_blob blob;
	char *path AUTO_FREE = NULL;
	pid_t pid = fuse_req_ctx(c->req)->pid;
	if (!out->writer)
		return -EBADF;
	if (!repo_equal(&rev->repo, &out->inode->rev->repo))
		return -EOPNOTSUPP;
	int r = view_blob(ops_view(c->ops), in->inode, &blob, &path);
	if (r == 0)
		return stage_copy_blob(out->stage, &blob, (uint64_t)in_off, out->node, (uint64_t)out_off, len, pid);
	uint64_t node = view_snode(in->inode);
	if (r != -ENODATA || !node || rev != out->inode->rev)
		return r == -ENODATA ? -EOPNOTSUPP : r;
	return stage_copy(out->stage, node, (uint64_t)in_off, out->node, (uint64_t)out_off, len, pid);
}

void ops_copy_file_range(fuse_req_t req, fuse_ino_t ino_in, off_t off_in, struct fuse_file_info *fi_in, fuse_ino_t ino_out,
                         off_t off_out, struct fuse_file_info *fi_out, size_t len, int flags)
{
	struct call c = {.req = req, .ops = ops_of(req)};
	struct handle *out = handle_of(fi_out);
	(void)ino_in;
	(void)ino_out;
	ssize_t n = flags ? -EINVAL : copy_range(&c, handle_of(fi_in), off_in, out, off_out, len);
	if (n == -ENOSPC && ops_make_room(c.ops))
		n = copy_range(&c, handle_of(fi_in), off_in, out, off_out, len);
	if (n == -ENOENT)
		n = -EOPNOTSUPP; /* a commit settled the source just now */
	if (n < 0) {
		fuse_reply_err(req, (int)-n);
		return;
	}
	if (n > 0) {
		out->wrote = true;
		publish_wrote(out->publish, out->node, (uint64_t)n);
	}
	fuse_reply_write(req, (size_t)n);
}

/* With commit=sync the close by who wrote waits for the commit; every other answer is given at once. */
static int run_flush(struct call *c, struct view_need *need)
{
	struct handle *h = handle_of(&c->fi);
	int r = 0;
	if (c->waited) {
		r = c->wait_err;
	} else if (h->writer) {
		pid_t pid = fuse_req_ctx(c->req)->pid;
		int wrote = stage_writer_flush(h->stage, h->node, pid, ops_was_killed(c->ops, pid));
		r = wrote < 0 ? wrote : publish_take_error(h->publish, h->node);
		if (r == 0 && wrote > 0 && ops_env(c->ops)->opts->commit == OPTS_COMMIT_SYNC) {
			r = ops_wait_published(c, h->inode->rev, h->node, need);
			if (r == -EAGAIN)
				need->what = VIEW_NEED_CLOSED;
		}
	}
	if (r == 0)
		fuse_reply_err(c->req, 0);
	return r;
}

void ops_flush(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct call c = {.req = req, .ops = ops_of(req), .run = run_flush, .ino = ino, .fi = *fi};
	ops_dispatch(&c);
}

void ops_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	(void)ino;
	handle_end(ops_of(req), handle_of(fi));
	fuse_reply_err(req, 0);
}

/* -- fsync -- */

int ops_wait_published(struct call *c, struct rev *rev, uint64_t node, struct view_need *need)
{
	if (c->waited)
		return c->wait_err;
	if (!view_hold(rev))
		return 0; /* nothing was ever staged in this branch */
	c->held = rev;
	view_need_fini(need);
	need->what = VIEW_NEED_PUBLISH;
	need->off = node;
	return -EAGAIN;
}

static int run_fsync(struct call *c, struct view_need *need)
{
	struct handle *h = handle_of(&c->fi);
	struct rev *rev = h->inode->rev;
	uint64_t node = h->writer ? h->node : view_snode(h->inode);
	int r = 0;
	if (node && !c->waited && view_hold(rev)) {
		r = stage_sync(rev->stage, node); /* held, so it stays */
		view_release(rev);
		if (r == -ENOENT)
			node = r = 0; /* a commit settled it just now */
	}
	/* With O_SYNC and O_DSYNC the kernel sends one of these after each write: local durability is what was asked. */
	if (r == 0 && node && !(h->flags & (O_SYNC | O_DSYNC)))
		r = ops_wait_published(c, rev, node, need);
	if (r == 0)
		fuse_reply_err(c->req, 0);
	return r;
}

void ops_fsync(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi)
{
	(void)datasync;
	struct call c = {.req = req, .ops = ops_of(req), .run = run_fsync, .ino = ino, .fi = *fi};
	ops_dispatch(&c);
}

/* -- attributes -- */

/* truncate(2): a writer for this moment. ftruncate(2) comes with its handle's file still open, which is one more. */
static int truncate_file(struct call *c, struct inode *inode, struct view_need *need)
{
	struct handle *h;
	if (inode->kind != INODE_FILE)
		return -EISDIR;
	c->fi.flags = O_WRONLY;
	int r = open_inode(c, inode, need, &h);
	if (r < 0)
		return r;
	r = stage_truncate(h->stage, h->node, (uint64_t)c->attr.st_size);
	h->wrote = true;
	if (r == 0 && c->kills_suid)
		kill_suid(h);
	if (r == 0)
		publish_wrote(h->publish, h->node, 0);
	handle_end(c->ops, h); /* closes it, unless somebody writes to it */
	return r;
}

static unsigned decode_attr(const struct call *c, struct stage_attr *attr)
{
	unsigned what = 0;
	if (c->to_set & FUSE_SET_ATTR_MODE) {
		what |= STAGE_SET_MODE;
		attr->mode = c->attr.st_mode & 07777;
	}
	if (c->to_set & (FUSE_SET_ATTR_UID | FUSE_SET_ATTR_GID)) {
		what |= STAGE_SET_OWNER;
		if (c->to_set & FUSE_SET_ATTR_UID)
			attr->uid = c->attr.st_uid;
		if (c->to_set & FUSE_SET_ATTR_GID)
			attr->gid = c->attr.st_gid;
	}
	if (c->to_set & FUSE_SET_ATTR_MTIME_NOW) {
		what |= STAGE_SET_MTIME;
		clock_gettime(CLOCK_REALTIME, &attr->mtime);
	} else if (c->to_set & FUSE_SET_ATTR_MTIME) {
		what |= STAGE_SET_MTIME;
		attr->mtime = c->attr.st_mtim;
	}
	return what;
}

static int run_setattr(struct call *c, struct view_need *need)
{
	AUTO_INODE inode = ops_hold(c, c->ino);
	struct stat st;
	double timeout;
	if (!inode.inode)
		return -ESTALE;
	int r = view_stat(inode.view, inode.inode, &st, &timeout);
	struct stage_attr attr = {.uid = st.st_uid, .gid = st.st_gid};
	unsigned what = decode_attr(c, &attr);
	if ((what & STAGE_SET_OWNER) && !(what & STAGE_SET_MODE) && S_ISREG(st.st_mode) &&
	    without_suid(st.st_mode) != st.st_mode) {
		what |= STAGE_SET_MODE;
		attr.mode = without_suid(st.st_mode) & 07777;
	}
	if (r == 0 && (c->to_set & FUSE_SET_ATTR_SIZE))
		r = truncate_file(c, inode.inode, need);
	if (r == 0 && what)
		r = view_setattr(inode.view, inode.inode, what, &attr, need);
	if (r == 0)
		r = view_stat(inode.view, inode.inode, &st, &timeout);
	if (r == 0)
		fuse_reply_attr(c->req, &st, timeout);
	return r;
}

void ops_setattr(fuse_req_t req, fuse_ino_t ino, struct stat *attr, int to_set, struct fuse_file_info *fi)
{
	(void)fi;
	struct call c = {
		.req = req, .ops = ops_of(req), .run = run_setattr, .ino = ino, .attr = *attr, .to_set = to_set};
	c.kills_suid = ops_wire_kills_suid();
	ops_dispatch(&c);
}
