/* ops_dir: requests about names and folders.
 *
 * Threads: see ops.c. Each run_* function may be called again from its start after a wait. */
#define LOG_MODULE "ops"

#include "ops_internal.h"

#include <errno.h>
#include <string.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "log.h"

/* -- lookup -- */

static int reply_entry(struct call *c, struct inode *dir, struct inode *inode)
{
	struct fuse_entry_param e;
	int r = ops_entry(c->ops, dir, inode, &e);
	/* The reference goes to the kernel's lookup count, unless the kernel has gone away meanwhile. */
	if (r < 0 || fuse_reply_entry(c->req, &e) < 0)
		view_put(ops_view(c->ops), inode, 1);
	return r;
}

static int run_lookup(struct call *c, struct view_need *need)
{
	AUTO_INODE dir = ops_hold(c, c->ino);
	struct inode *inode;
	if (!dir.inode)
		return -ESTALE;
	int r = view_lookup(dir.view, dir.inode, c->name, &inode, need);
	if (r == 0)
		return reply_entry(c, dir.inode, inode);
	if (r != -ENOENT)
		return r;
	struct fuse_entry_param absent = {.entry_timeout = view_entry_timeout(dir.view, dir.inode)};
	if (absent.entry_timeout == 0)
		return r;
	fuse_reply_entry(c->req, &absent);
	return 0;
}

void ops_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct call c = {.req = req, .ops = ops_of(req), .run = run_lookup, .ino = parent, .name = name};
	ops_dispatch(&c);
}

static void forget(struct view *v, fuse_ino_t ino, uint64_t n)
{
	struct inode *inode = view_get(v, ino);
	if (inode)
		view_put(v, inode, n + 1);
}

void ops_forget(fuse_req_t req, fuse_ino_t ino, uint64_t n)
{
	if (ino != FUSE_ROOT_ID)
		forget(ops_view(ops_of(req)), ino, n);
	fuse_reply_none(req);
}

void ops_forget_multi(fuse_req_t req, size_t count, struct fuse_forget_data *forgets)
{
	for (size_t i = 0; i < count; i++)
		if (forgets[i].ino != FUSE_ROOT_ID)
			forget(ops_view(ops_of(req)), forgets[i].ino, forgets[i].nlookup);
	fuse_reply_none(req);
}

static int run_getattr(struct call *c, struct view_need *need)
{
	AUTO_INODE inode = ops_hold(c, c->ino);
	struct stat st;
	double timeout;
	(void)need;
	if (!inode.inode)
		return -ESTALE;
	int r = view_stat(inode.view, inode.inode, &st, &timeout);
	if (r == 0)
		fuse_reply_attr(c->req, &st, timeout);
	return r;
}

void ops_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	(void)fi;
	struct call c = {.req = req, .ops = ops_of(req), .run = run_getattr, .ino = ino};
	ops_dispatch(&c);
}

/* Without default_permissions only the mounting user comes here: what counts is whether the Hub takes writes. */
static int run_access(struct call *c, struct view_need *need)
{
	AUTO_INODE inode = ops_hold(c, c->ino);
	struct stat st;
	double timeout;
	if (!inode.inode)
		return -ESTALE;
	int r = view_stat(inode.view, inode.inode, &st, &timeout);
	if (r == 0 && (c->flags & W_OK))
		r = view_may_write(inode.view, inode.inode, need);
	if (r == 0 && (c->flags & X_OK) && S_ISREG(st.st_mode) && !(st.st_mode & 0111))
		r = -EACCES;
	if (r == 0)
		fuse_reply_err(c->req, 0);
	return r;
}

void ops_access(fuse_req_t req, fuse_ino_t ino, int mask)
{
	struct call c = {.req = req, .ops = ops_of(req), .run = run_access, .ino = ino, .flags = (unsigned)mask};
	ops_dispatch(&c);
}

/* -- changes of names -- */

void ops_changed(struct inode *dir, enum publish_change what, const char *name, uint64_t node)
{
	struct publish *p = view_hold(dir->rev);
	if (!p)
		return;
	char *folder AUTO_FREE = NULL;
	char *path AUTO_FREE = NULL;
	if (view_path(dir->rev->view, dir, &folder) == 0)
		path = folder[0] ? util_printf("%s/%s", folder, name) : strdup(name);
	publish_changed(p, what, path ? path : name, node);
	view_release(dir->rev);
}

static int run_make(struct call *c, struct view_need *need)
{
	AUTO_INODE dir = ops_hold(c, c->ino);
	struct inode *inode;
	if (!dir.inode)
		return -ESTALE;
	if (!S_ISDIR(c->mode) && !S_ISREG(c->mode))
		return -EPERM; /* devices, sockets and pipes cannot be published */
	if (c->made) { /* a repository or a branch: it is there by now */
		int found = view_lookup(dir.view, dir.inode, c->name, &inode, need);
		return found < 0 ? found : reply_entry(c, dir.inode, inode);
	}
	int r = S_ISDIR(c->mode) ? view_mkdir(dir.view, dir.inode, c->name, c->mode, &inode, need)
	                         : view_create(dir.view, dir.inode, c->name, c->mode, false, &inode, need);
	if (r < 0)
		return r;
	if (S_ISREG(c->mode))
		ops_changed(dir.inode, PUBLISH_CREATED, c->name, view_snode(inode));
	return reply_entry(c, dir.inode, inode);
}

void ops_mkdir(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode)
{
	struct call c = {
		.req = req,
		.ops = ops_of(req),
		.run = run_make,
		.ino = parent,
		.name = name,
		.mode = (mode & 07777) | S_IFDIR,
	};
	ops_dispatch(&c);
}

void ops_mknod(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, dev_t rdev)
{
	(void)rdev;
	struct call c = {
		.req = req, .ops = ops_of(req), .run = run_make, .ino = parent, .name = name, .mode = mode};
	ops_dispatch(&c);
}

void ops_symlink(fuse_req_t req, const char *link, fuse_ino_t parent, const char *name)
{
	(void)link;
	(void)parent;
	(void)name;
	fuse_reply_err(req, EPERM);
}

void ops_link(fuse_req_t req, fuse_ino_t ino, fuse_ino_t newparent, const char *newname)
{
	(void)ino;
	(void)newparent;
	(void)newname;
	fuse_reply_err(req, EPERM);
}

static int run_remove(struct call *c, struct view_need *need)
{
	AUTO_INODE dir = ops_hold(c, c->ino);
	if (!dir.inode)
		return -ESTALE;
	int r = S_ISDIR(c->mode) ? view_rmdir(dir.view, dir.inode, c->name, need)
	                         : view_unlink(dir.view, dir.inode, c->name, need);
	if (r < 0)
		return r;
	ops_changed(dir.inode, PUBLISH_DELETED, c->name, 0);
	fuse_reply_err(c->req, 0);
	return 0;
}

void ops_unlink(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct call c = {
		.req = req, .ops = ops_of(req), .run = run_remove, .ino = parent, .name = name, .mode = S_IFREG};
	ops_dispatch(&c);
}

void ops_rmdir(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct call c = {
		.req = req, .ops = ops_of(req), .run = run_remove, .ino = parent, .name = name, .mode = S_IFDIR};
	ops_dispatch(&c);
}

static int run_rename(struct call *c, struct view_need *need)
{
	AUTO_INODE dir = ops_hold(c, c->ino);
	AUTO_INODE newdir = ops_hold(c, c->newino);
	if (!dir.inode || !newdir.inode)
		return -ESTALE;
	int r = view_rename(dir.view, dir.inode, c->name, newdir.inode, c->newname, c->flags, need);
	if (r < 0)
		return r;
	ops_changed(newdir.inode, PUBLISH_RENAMED, c->newname, 0);
	fuse_reply_err(c->req, 0);
	return 0;
}

void ops_rename(fuse_req_t req, fuse_ino_t parent, const char *name, fuse_ino_t newparent, const char *newname,
                unsigned flags)
{
	struct call c = {
		.req = req,
		.ops = ops_of(req),
		.run = run_rename,
		.ino = parent,
		.name = name,
		.newino = newparent,
		.newname = newname,
		.flags = flags,
	};
	ops_dispatch(&c);
}

/* -- listing -- */

/* An open folder: its names as of opendir, or of the last time that it was read from its beginning. */
struct dir_handle {
	struct view_dir *names;
	bool begun;
};

static struct dir_handle *dir_handle_of(const struct fuse_file_info *fi)
{
	return (struct dir_handle *)(uintptr_t)fi->fh;
}

static void dir_handle_free(struct dir_handle *h)
{
	view_dir_free(h->names);
	free(h);
}

static int run_opendir(struct call *c, struct view_need *need)
{
	AUTO_INODE dir = ops_hold(c, c->ino);
	struct view_dir *names;
	if (!dir.inode)
		return -ESTALE;
	int r = view_list(dir.view, dir.inode, &names, need);
	if (r < 0)
		return r;
	struct dir_handle *h = malloc(sizeof(*h));
	if (!h) {
		view_dir_free(names);
		return -ENOMEM;
	}
	*h = (struct dir_handle){.names = names};
	c->fi.fh = (uint64_t)(uintptr_t)h;
	if (fuse_reply_open(c->req, &c->fi) < 0)
		dir_handle_free(h);
	return 0;
}

void ops_opendir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct call c = {.req = req, .ops = ops_of(req), .run = run_opendir, .ino = ino, .fi = *fi};
	ops_dispatch(&c);
}

static const char *ent_name(const struct view_dir *d, size_t i)
{
	return i == 0 ? "." : i == 1 ? ".." : d->ents[i - 2].name;
}

static struct stat ent_stat(const struct view_dir *d, size_t i)
{
	bool is_dir = i < 2 || d->ents[i - 2].is_dir;
	return (struct stat){.st_ino = i < 2 ? 1 : d->ents[i - 2].ino, .st_mode = is_dir ? S_IFDIR : S_IFREG};
}

/* An entry with attributes, if they are known without asking the Hub; else just the name. Returns its size in the
 * reply; more than `room`: it was not added. */
static size_t add_plus(fuse_req_t req, struct held_inode *dir, const struct view_dir *d, size_t i, char *buf, size_t room)
{
	struct fuse_entry_param e = {.attr = ent_stat(d, i)};
	struct view_need need = {0};
	struct inode *inode = NULL;
	const char *name = ent_name(d, i);
	if (i >= 2 && view_lookup(dir->view, dir->inode, name, &inode, &need) == 0 &&
	    ops_entry(ops_of(req), dir->inode, inode, &e) < 0) {
		view_put(dir->view, inode, 1);
		inode = NULL;
		e = (struct fuse_entry_param){.attr = ent_stat(d, i)};
	}
	view_need_fini(&need);
	size_t n = fuse_add_direntry_plus(req, buf, room, name, &e, (off_t)i + 1);
	if (n > room)
		view_put(dir->view, inode, 1);
	return n;
}

static int run_readdir(struct call *c, struct view_need *need)
{
	struct dir_handle *h = dir_handle_of(&c->fi);
	AUTO_INODE dir = ops_hold(c, c->ino);
	char *buf AUTO_FREE = malloc(c->size);
	bool plus = c->flags;
	if (!buf || !dir.inode)
		return buf ? -ESTALE : -ENOMEM;
	if (c->off == 0 && h->begun) { /* rewinddir shows what is there now */
		struct view_dir *names;
		int r = view_list(dir.view, dir.inode, &names, need);
		if (r < 0)
			return r;
		view_dir_free(h->names);
		h->names = names;
	}
	h->begun = true;
	const struct view_dir *d = h->names;
	size_t used = 0;
	for (size_t i = (size_t)c->off; i < d->n + 2; i++) {
		struct stat st = ent_stat(d, i);
		size_t n = plus ? add_plus(c->req, &dir, d, i, buf + used, c->size - used)
		                : fuse_add_direntry(c->req, buf + used, c->size - used, ent_name(d, i), &st, (off_t)i + 1);
		if (n > c->size - used)
			break;
		used += n;
	}
	fuse_reply_buf(c->req, buf, used);
	return 0;
}

static void read_dir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi, bool plus)
{
	struct call c = {
		.req = req,
		.ops = ops_of(req),
		.run = run_readdir,
		.ino = ino,
		.size = size,
		.off = off,
		.flags = plus,
		.fi = *fi,
	};
	ops_dispatch(&c);
}

void ops_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi)
{
	read_dir(req, ino, size, off, fi, false);
}

void ops_readdirplus(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi)
{
	read_dir(req, ino, size, off, fi, true);
}

void ops_releasedir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	(void)ino;
	dir_handle_free(dir_handle_of(fi));
	fuse_reply_err(req, 0);
}

static int run_fsyncdir(struct call *c, struct view_need *need)
{
	AUTO_INODE dir = ops_hold(c, c->ino);
	if (!dir.inode)
		return -ESTALE;
	if (dir.inode->rev && !c->waited) {
		struct publish *p = view_hold(dir.inode->rev);
		int r = p ? stage_sync(dir.inode->rev->stage, STAGE_ROOT) : 0;
		if (p)
			view_release(dir.inode->rev);
		if (r < 0)
			return r;
	}
	int r = dir.inode->rev ? ops_wait_published(c, dir.inode->rev, 0, need) : 0;
	if (r == 0)
		fuse_reply_err(c->req, 0);
	return r;
}

void ops_fsyncdir(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi)
{
	(void)datasync;
	struct call c = {.req = req, .ops = ops_of(req), .run = run_fsyncdir, .ino = ino, .fi = *fi};
	ops_dispatch(&c);
}

/* The disk that writes go to: it is what runs full. */
void ops_statfs(fuse_req_t req, fuse_ino_t ino)
{
	const struct opts *o = ops_env(ops_of(req))->opts;
	struct statvfs st;
	(void)ino;
	if (statvfs(o->staging_dir, &st) < 0 && statvfs(o->cache_dir, &st) < 0) {
		fuse_reply_err(req, errno);
		return;
	}
	st.f_namemax = 255;
	fuse_reply_statfs(req, &st);
}
