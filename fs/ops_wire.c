/* ops_wire: the parts of the kernel's protocol that libfuse does not speak, or not in every version.
 *
 * For: passthrough (Linux 6.9: the kernel reads a file that we lend it, protocol 7.40), which libfuse knows from 3.17 on and
 * Debian 12's 3.14 does not; HANDLE_KILLPRIV_V2 (protocol 7.33), without which each WRITE brings a GETXATTR of
 * security.capability, and which no libfuse before 3.18 has; the read-ahead window. Not for: which file is lent
 * (ops_pass.c).
 *
 * How: fuse_session_custom_io() has every request and every answer pass by here. The answer to INIT gets the flags that
 * libfuse left out, the answer to an OPEN the number of a lent file. The layouts and numbers are those of the kernel's
 * include/uapi/linux/fuse.h, which never change; what is newer than Debian 12's copy of it (7.38) stands below. This is one
 * way for every libfuse from 3.14 on, tested as it is shipped; linking a newer libfuse would mean to carry along a copy of
 * it with its security fixes, and to have two ways of which one is hardly ever tested.
 *
 * Threads: libfuse's, and all that answer. What passes from a handler to the answer is the thread's own: an answer is
 * written on the stack of fuse_reply_*. */
#define LOG_MODULE "ops"

#include "ops_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/fuse.h>
#include <linux/magic.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "log.h"

/* Since protocol 7.40 (Linux 6.9), include/uapi/linux/fuse.h. */
#ifndef FUSE_PASSTHROUGH
#define FUSE_PASSTHROUGH (1ULL << 37)
#endif
#ifndef FOPEN_PASSTHROUGH
#define FOPEN_PASSTHROUGH (1 << 7)
struct fuse_backing_map {
	int32_t fd;
	uint32_t flags;
	uint64_t padding;
};
#define FUSE_DEV_IOC_BACKING_OPEN _IOW(FUSE_DEV_IOC_MAGIC, 1, struct fuse_backing_map)
#define FUSE_DEV_IOC_BACKING_CLOSE _IOW(FUSE_DEV_IOC_MAGIC, 2, uint32_t)
#endif
/* init_out.max_stack_depth is the first of 7.38's unused words, open_out.backing_id what was its padding. */
#define STACK_DEPTH_AT (offsetof(struct fuse_init_out, flags2) + sizeof(uint32_t))
#define BACKING_ID_AT (offsetof(struct fuse_open_out, open_flags) + sizeof(uint32_t))
_Static_assert(sizeof(struct fuse_init_out) == 64 && STACK_DEPTH_AT == 36, "the kernel's layout");
_Static_assert(sizeof(struct fuse_open_out) == 16 && BACKING_ID_AT == 12, "the kernel's layout");

#define READ_AHEAD_KB "512" /* as fast as 1024 here, and a page fault of a mapping, which reads all of it, half as dear */

static _Thread_local struct {
	bool kills_suid;
	int lent;
} here;

void ops_wire_answer(int id)
{
	here.lent = id;
}

bool ops_wire_kills_suid(void)
{
	return here.kills_suid;
}

/* -- requests -- */

/* The kernel left set-user-ID and set-group-ID to us: HANDLE_KILLPRIV_V2. */
static bool kills_suid(const struct fuse_in_header *head, size_t len)
{
	const void *body = head + 1;
	size_t n = len - sizeof(*head);

	switch (head->opcode) {
	case FUSE_WRITE:
		return n >= sizeof(struct fuse_write_in) &&
		       (((const struct fuse_write_in *)body)->write_flags & FUSE_WRITE_KILL_SUIDGID);
	case FUSE_SETATTR:
		return n >= sizeof(struct fuse_setattr_in) &&
		       (((const struct fuse_setattr_in *)body)->valid & FATTR_KILL_SUIDGID);
	case FUSE_OPEN:
		return n >= sizeof(struct fuse_open_in) &&
		       (((const struct fuse_open_in *)body)->open_flags & FUSE_OPEN_KILL_SUIDGID);
	default:
		return false;
	}
}

static ssize_t wire_read(int fd, void *buf, size_t len, void *userdata)
{
	struct ops_wire *w = ops_wire(userdata);
	const struct fuse_in_header *head = buf;
	ssize_t n = read(fd, buf, len);

	if (n < (ssize_t)sizeof(*head))
		return n;
	here.kills_suid = kills_suid(head, (size_t)n);
	if (head->opcode == FUSE_INIT)
		atomic_store(&w->init, head->unique);
	return n;
}

/* -- answers -- */

/* The kernel ignores flags that it does not know, so they need not be looked for in what it offered. */
static void amend_init(const struct ops_wire *w, struct fuse_init_out *out)
{
	uint64_t flags = FUSE_HANDLE_KILLPRIV_V2 | (w->may_lend ? FUSE_PASSTHROUGH : 0);
	uint32_t depth = (uint32_t)w->stack_depth;

	out->flags |= (uint32_t)flags | FUSE_INIT_EXT;
	out->flags2 |= (uint32_t)(flags >> 32);
	if (w->may_lend)
		memcpy((char *)out + STACK_DEPTH_AT, &depth, sizeof(depth));
}

static ssize_t write_amended(int fd, const struct iovec *iov, const void *body)
{
	struct iovec parts[] = {iov[0], {(void *)(uintptr_t)body, iov[1].iov_len}};

	return writev(fd, parts, ARRAY_LEN(parts));
}

/* An ordinary user's mount keeps the kernel's 128 KiB: only root may widen it. */
static void widen_read_ahead(const struct ops_wire *w)
{
	char path[80];
	struct statx st;
	AUTO_CLOSE int fd = -1;

	/* DONT_SYNC: no request to ourselves. */
	if (statx(AT_FDCWD, w->mountpoint, AT_STATX_DONT_SYNC | AT_NO_AUTOMOUNT, 0, &st) < 0)
		return;
	snprintf(path, sizeof(path), "/sys/class/bdi/%u:%u/read_ahead_kb", st.stx_dev_major, st.stx_dev_minor);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0 || util_write_all(fd, READ_AHEAD_KB, strlen(READ_AHEAD_KB)) < 0)
		log_debug("%s stays as it is: %s", path, strerror(errno));
}

static ssize_t answer_init(struct ops_wire *w, int fd, const struct iovec *iov)
{
	struct fuse_init_out out;
	ssize_t n;

	memcpy(&out, iov[1].iov_base, sizeof(out));
	amend_init(w, &out);
	n = write_amended(fd, iov, &out);
	if (n >= 0) {
		atomic_store(&w->lends, w->may_lend);
		widen_read_ahead(w);
	}
	return n;
}

/* An OPEN's answer is an open_out, a CREATE's ends with one. */
static ssize_t answer_open(int fd, const struct iovec *iov, int id)
{
	char body[sizeof(struct fuse_entry_out) + sizeof(struct fuse_open_out)];
	struct fuse_open_out out;
	size_t at = iov[1].iov_len - sizeof(out);

	memcpy(body, iov[1].iov_base, iov[1].iov_len);
	memcpy(&out, body + at, sizeof(out));
	/* With KEEP_CACHE the kernel would refuse: there are no pages to keep (fs/fuse/file.c, fuse_file_io_open). */
	out.open_flags = (out.open_flags & ~(uint32_t)FOPEN_KEEP_CACHE) | FOPEN_PASSTHROUGH;
	memcpy((char *)&out + BACKING_ID_AT, &id, sizeof(id));
	memcpy(body + at, &out, sizeof(out));
	return write_amended(fd, iov, body);
}

static ssize_t wire_writev(int fd, struct iovec *iov, int count, void *userdata)
{
	struct ops_wire *w = ops_wire(userdata);
	uint64_t init = atomic_load_explicit(&w->init, memory_order_relaxed);
	const struct fuse_out_header *head = iov[0].iov_base;

	if (count == 2 && head->error == 0 && init && head->unique == init) {
		atomic_store(&w->init, 0);
		if (iov[1].iov_len == sizeof(struct fuse_init_out))
			return answer_init(w, fd, iov);
	} else if (here.lent && count == 2 && head->error == 0 && head->unique != 0 &&
	           (iov[1].iov_len == sizeof(struct fuse_open_out) ||
	            iov[1].iov_len == sizeof(struct fuse_entry_out) + sizeof(struct fuse_open_out))) {
		return answer_open(fd, iov, here.lent);
	}
	return writev(fd, iov, count);
}

/* -- files that are lent -- */

int ops_wire_lend(struct ops_wire *w, int fd)
{
	struct fuse_backing_map map = {.fd = fd};
	int id;

	if (!atomic_load(&w->lends))
		return -EOPNOTSUPP;
	id = ioctl(fuse_session_fd(w->session), FUSE_DEV_IOC_BACKING_OPEN, &map);
	if (id > 0)
		return id;
	/* ELOOP: that file lies on too many file systems stacked on each other; others may not. */
	if (errno != ELOOP && atomic_exchange(&w->lends, false))
		log_info("no passthrough: the kernel says %s; cached files are read through hugfs", strerror(errno));
	return id < 0 ? -errno : -EIO;
}

void ops_wire_take_back(struct ops_wire *w, int id)
{
	uint32_t number = (uint32_t)id;

	if (ioctl(fuse_session_fd(w->session), FUSE_DEV_IOC_BACKING_CLOSE, &number) < 0)
		log_debug("taking a lent file back: %s", strerror(errno));
}

/* -- life -- */

/* The kernel asks for CAP_SYS_ADMIN where a file is lent. Without it we promise nothing, for the promise
 * alone makes the mount count as stacked. */
static bool is_admin(void)
{
	struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3] = {0};

	return syscall(SYS_capget, &head, data) == 0 &&
	       (data[CAP_TO_INDEX(CAP_SYS_ADMIN)].effective & CAP_TO_MASK(CAP_SYS_ADMIN));
}

/* 1: files on plain file systems are lent, and an overlay may still lie over the mount. 2: the cache lies on an overlay, as in
 * a container: its files are lent too. */
static int stack_depth(const char *cache_dir)
{
	struct statfs st;

	return statfs(cache_dir, &st) == 0 && st.f_type == OVERLAYFS_SUPER_MAGIC ? 2 : 1;
}

int ops_attach(struct ops *o, struct fuse_session *session, const char *mountpoint)
{
	static const struct fuse_custom_io io = {.read = wire_read, .writev = wire_writev};
	struct ops_wire *w = ops_wire(o);
	const struct opts *opts = ops_env(o)->opts;

	w->session = session;
	w->may_lend = !opts->nopassthrough && is_admin();
	w->stack_depth = stack_depth(opts->cache_dir);
	w->mountpoint = strdup(mountpoint);
	if (!w->mountpoint)
		return -ENOMEM;
	/* The descriptor is the session's already; this only puts us in its way. */
	return fuse_session_custom_io(session, &io, fuse_session_fd(session));
}

void ops_wire_fini(struct ops_wire *w)
{
	free(w->mountpoint);
}
