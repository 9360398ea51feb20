/* ops_xattr: extended attributes that name what POSIX cannot: user.hugfs.*, read only. The list stands in hugfs.1.
 *
 * `ls -l` and each write ask for others (security.*, system.posix_acl_*): those are answered ENODATA at once.
 *
 * Threads: see ops.c. */
#define LOG_MODULE "ops"

#include "ops_internal.h"

#include <errno.h>
#include <string.h>

#define PREFIX "user.hugfs."

/* What there is to tell about an inode of a revision, taken at one moment. */
struct facts {
	bool is_file, has_key;
	struct blob_key key;
	char commit[41];
	const char *revision;
	const char *state;
	char error[400];
};

static const char *const names[] = {"oid", "sha256", "commit", "revision", "state", "error"};

static const char *state_name(enum stage_state state)
{
	switch (state) {
	case STAGE_CLEAN:
		return "clean";
	case STAGE_STAGED:
		return "staged";
	case STAGE_OPEN:
		return "open";
	case STAGE_COMMITTING:
		return "committing";
	case STAGE_INTERRUPTED:
		return "interrupted";
	case STAGE_CONFLICT:
		return "conflict";
	}
	return "clean";
}

static int look(struct ops *o, struct inode *inode, struct facts *ret)
{
	struct rev *rev = inode->rev;
	struct facts f = {.is_file = inode->kind == INODE_FILE, .revision = rev->name, .state = "clean"};
	struct publish *publish = view_hold(rev);
	{
		uint64_t snode = view_snode(inode);
		LOCKED(&rev->lock);
		struct stage_attr attr;
		memcpy(f.commit, rev->commit, sizeof(f.commit));
		f.has_key = f.is_file && !snode;
		f.key = inode->key;
		if (snode && rev->stage && stage_attr(rev->stage, snode, &attr) == 0) {
			f.state = state_name(attr.state);
			f.has_key = attr.is_blob;
			f.key = attr.blob;
		}
	}
	if (publish) {
		char *path AUTO_FREE = NULL;
		struct publish_status status;
		publish_status(publish, &status);
		if (status.last_err && strcmp(f.state, "clean") != 0)
			memcpy(f.error, status.last_text, sizeof(f.error));
		view_release(rev);
		if (strcmp(f.state, "clean") != 0 && view_path(ops_view(o), inode, &path) == 0 &&
		    ignore_match(ops_env(o)->ignore, path, !f.is_file))
			f.state = "local";
	}
	*ret = f;
	return 0;
}

/* The value of one attribute; -ENODATA: it does not apply. */
static int value_of(const struct facts *f, const char *name, char out[512])
{
	char hex[HASH_MAX_HEX] = "";
	const char *value = NULL;
	if (f->has_key)
		hash_key_hex(&f->key, hex);
	if (strcmp(name, "oid") == 0 && f->has_key)
		value = hex;
	else if (strcmp(name, "sha256") == 0 && f->has_key && f->key.alg == HASH_SHA256)
		value = hex;
	else if (strcmp(name, "commit") == 0)
		value = f->commit;
	else if (strcmp(name, "revision") == 0)
		value = f->revision;
	else if (strcmp(name, "state") == 0 && f->is_file)
		value = f->state;
	else if (strcmp(name, "error") == 0 && f->error[0])
		value = f->error;
	if (!value)
		return -ENODATA;
	snprintf(out, 512, "%s", value);
	return 0;
}

static void reply(fuse_req_t req, size_t size, const char *data, size_t len)
{
	if (size == 0)
		fuse_reply_xattr(req, len);
	else if (size < len)
		fuse_reply_err(req, ERANGE);
	else
		fuse_reply_buf(req, data, len);
}

static int run_getxattr(struct call *c, struct view_need *need)
{
	struct facts f;
	char value[512];
	AUTO_INODE inode = ops_hold(c, c->ino);
	(void)need;
	if (!inode.inode)
		return -ESTALE;
	if (!inode.inode->rev)
		return -ENODATA;
	int r = look(c->ops, inode.inode, &f);
	if (r == 0)
		r = value_of(&f, c->name + strlen(PREFIX), value);
	if (r == 0)
		reply(c->req, c->size, value, strlen(value));
	return r;
}

void ops_getxattr(fuse_req_t req, fuse_ino_t ino, const char *name, size_t size)
{
	/* The kernel remembers ENOSYS, and asks no more. */
	if (ops_env(ops_of(req))->opts->noxattr) {
		fuse_reply_err(req, ENOSYS);
		return;
	}
	if (strncmp(name, PREFIX, strlen(PREFIX)) != 0) {
		fuse_reply_err(req, ENODATA);
		return;
	}
	struct call c = {
		.req = req, .ops = ops_of(req), .run = run_getxattr, .ino = ino, .name = name, .size = size};
	ops_dispatch(&c);
}

static int run_listxattr(struct call *c, struct view_need *need)
{
	AUTO_INODE inode = ops_hold(c, c->ino);
	AUTO_BUF list = {.max = 65536};
	struct facts f;
	char value[512];
	(void)need;
	if (!inode.inode)
		return -ESTALE;
	int r = inode.inode->rev ? look(c->ops, inode.inode, &f) : 0;
	for (size_t i = 0; r == 0 && inode.inode->rev && i < ARRAY_LEN(names); i++) {
		if (value_of(&f, names[i], value) < 0)
			continue;
		r = buf_addf(&list, "%s%s", PREFIX, names[i]);
		if (r == 0)
			r = buf_add(&list, "", 1);
	}
	if (r == 0)
		reply(c->req, c->size, list.data, list.len);
	return r;
}

void ops_listxattr(fuse_req_t req, fuse_ino_t ino, size_t size)
{
	if (ops_env(ops_of(req))->opts->noxattr) {
		fuse_reply_err(req, ENOSYS);
		return;
	}
	struct call c = {.req = req, .ops = ops_of(req), .run = run_listxattr, .ino = ino, .size = size};
	ops_dispatch(&c);
}

/* Attributes cannot be published: cp -a and rsync -X go on without them. */
void ops_setxattr(fuse_req_t req, fuse_ino_t ino, const char *name, const char *value, size_t size, int flags)
{
	(void)ino;
	(void)name;
	(void)value;
	(void)size;
	(void)flags;
	fuse_reply_err(req, ENOTSUP);
}

void ops_removexattr(fuse_req_t req, fuse_ino_t ino, const char *name)
{
	(void)ino;
	(void)name;
	fuse_reply_err(req, ENOTSUP);
}
