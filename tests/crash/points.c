/* points: an LD_PRELOAD library for a hugfs daemon under torture. It sees every call that changes the staging folder or talks
 * to the Hub, counts them by name ("wal fdatasync", "data pwrite", "send POST commit"), kills the process with SIGKILL before
 * the N-th call of a name, and writes down all changes of the staging folder, so that replay.py can make of them what a power
 * failure would have left. The daemon has no code for this.
 *
 * Environment:
 *   TORTURE_STATE   the staging folder, an absolute path
 *   TORTURE_COUNTS  a file of struct point that is mapped and shared with whoever looks at it
 *   TORTURE_KILL    "N NAME": kill before the N-th call of that name; unset: never
 *   TORTURE_LOG     where changes are written down; unset: nowhere
 *   TORTURE_BOOT_ID the file that stands for /proc/sys/kernel/random/boot_id; unset: that itself
 *
 * Any thread enters. With a log, changes are serialised by `log_lock`, so that the log has them in their real order; a sync is
 * two records, for only what was written before its begin is safe at its end. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#define POINTS 96
#define FDS 4096
#define COPY ((size_t)128 << 10)

struct point {
	char name[56];
	uint64_t calls;
};

/* One record of the log; `path_len` and `path2_len` bytes of paths below the staging folder and `data_len` bytes follow. */
struct record {
	uint32_t kind;
	uint16_t path_len, path2_len;
	uint64_t ino, off, len, data_len;
};

/* replay.py has the same numbers. */
enum kind { WRITE = 1, SIZE, CREATE, RENAME, UNLINK, MKDIR, RMDIR, SYNC_BEGIN, SYNC_END };

static pthread_mutex_t count_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_mutex_t log_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static char state[PATH_MAX];
static size_t state_len;
static struct point *points;
static char kill_name[56];
static uint64_t kill_at;
static int log_fd = -1;
static char pending[FDS][16]; /* what was asked on a socket: "POST commit"; the first answer after it is a point too */

#define REAL(name) ((__typeof__(&name))real(#name))

static void *real(const char *name)
{
	void *f = dlsym(RTLD_NEXT, name);

	if (!f)
		abort();
	return f;
}

static void start(void)
{
	const char *dir = getenv("TORTURE_STATE"), *counts = getenv("TORTURE_COUNTS"), *text = getenv("TORTURE_KILL");
	const char *log = getenv("TORTURE_LOG");
	int fd;

	if (!dir || !counts)
		return;
	snprintf(state, sizeof(state), "%s/", dir);
	state_len = strlen(state);
	fd = REAL(open64)(counts, O_RDWR | O_CLOEXEC);
	points = mmap(NULL, POINTS * sizeof(*points), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (points == MAP_FAILED)
		abort();
	close(fd);
	if (text && sscanf(text, "%lu %55[^\n]", &kill_at, kill_name) != 2)
		abort();
	if (log)
		log_fd = REAL(open64)(log, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
}

static bool active(void)
{
	pthread_once(&once, start);
	return points != NULL;
}

static void point(const char *what, const char *call)
{
	char name[56];
	struct point *p = points;
	bool last;

	snprintf(name, sizeof(name), "%s %s", what, call);
	pthread_mutex_lock(&count_lock);
	while (p < points + POINTS - 1 && p->name[0] && strcmp(p->name, name) != 0)
		p++;
	memcpy(p->name, name, sizeof(name));
	p->calls++;
	last = p->calls == kill_at && strcmp(name, kill_name) == 0;
	if (last)
		kill(getpid(), SIGKILL);
	while (last)
		pause();
	pthread_mutex_unlock(&count_lock);
}

/* -- what is it that is changed -- */

/* The path below the staging folder ("" is the folder itself), or NULL when it is elsewhere. */
static const char *below(const char *path)
{
	size_t n = strlen(path);

	if (n == state_len - 1 && strncmp(path, state, n) == 0)
		return path + n;
	return strncmp(path, state, state_len) == 0 ? path + state_len : NULL;
}

static const char *path_of_fd(int fd, char buf[PATH_MAX])
{
	char link[40];
	ssize_t n;

	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	n = readlink(link, buf, PATH_MAX - 1);
	buf[n < 0 ? 0 : n] = 0;
	return below(buf);
}

static const char *path_at(int dir, const char *name, char buf[PATH_MAX])
{
	if (name[0] == '/' || dir == AT_FDCWD)
		return below(strncpy(buf, name, PATH_MAX - 1));
	if (!path_of_fd(dir, buf) || strlen(buf) + strlen(name) + 2 > PATH_MAX)
		return NULL;
	strcat(strcat(buf, "/"), name);
	return below(buf);
}

static bool ends(const char *text, const char *with)
{
	size_t n = strlen(text), m = strlen(with);

	return n >= m && strcmp(text + n - m, with) == 0;
}

static const char *what_is(const char *path)
{
	return ends(path, "journal.db") ? "journal" : ends(path, ".db-wal") ? "wal" : ends(path, ".db-shm") ? "shm" :
	       ends(path, "/lock") ? "lock" : strstr(path, ".ext") ? "extents" : strstr(path, "/data/") ? "data" :
	       "folder";
}

/* -- the log -- */

static void put(const void *buf, size_t len)
{
	for (const char *p = buf; len;) {
		ssize_t n = REAL(write)(log_fd, p, len);

		if (n < 0)
			abort();
		p += n;
		len -= (size_t)n;
	}
}

static void record(enum kind kind, uint64_t ino, uint64_t off, uint64_t len, const char *path, const char *path2,
                   const void *data, size_t data_len)
{
	struct record r = {.kind = kind, .ino = ino, .off = off, .len = len, .data_len = data_len,
	                   .path_len = (uint16_t)(path ? strlen(path) : 0),
	                   .path2_len = (uint16_t)(path2 ? strlen(path2) : 0)};

	put(&r, sizeof(r));
	put(path, r.path_len);
	put(path2, r.path2_len);
	put(data, data_len);
}

static uint64_t ino_of(int fd)
{
	struct stat st;

	return fstat(fd, &st) == 0 ? st.st_ino : 0;
}

/* Writes down what is now in a range of a file: for calls whose bytes come from elsewhere. */
static void record_range(int fd, uint64_t off, uint64_t len)
{
	char buf[COPY];

	while (len) {
		ssize_t n = pread64(fd, buf, len < sizeof(buf) ? len : sizeof(buf), (off64_t)off);

		if (n <= 0)
			return;
		record(WRITE, ino_of(fd), off, (uint64_t)n, NULL, NULL, buf, (size_t)n);
		off += (uint64_t)n;
		len -= (uint64_t)n;
	}
}

static void change_begin(void)
{
	if (log_fd >= 0)
		pthread_mutex_lock(&log_lock);
}

/* Keeps errno. */
static void change_end(void)
{
	if (log_fd >= 0)
		pthread_mutex_unlock(&log_lock);
}

/* Runs `call` as a change of the staging folder; `then` writes it down when it succeeded. */
#define CHANGE(type, call, then) ({ \
	type changed_; \
	int errno_; \
	change_begin(); \
	changed_ = (call); \
	errno_ = errno; \
	if (changed_ >= 0 && log_fd >= 0) { \
		then; \
	} \
	change_end(); \
	errno = errno_; \
	changed_; \
})

/* -- bytes -- */

static ssize_t seen_pwrite(int fd, const void *buf, size_t len, off64_t off)
{
	char path[PATH_MAX];
	const char *p = active() ? path_of_fd(fd, path) : NULL;

	if (!p)
		return REAL(pwrite64)(fd, buf, len, off);
	point(what_is(p), "pwrite");
	return CHANGE(ssize_t, REAL(pwrite64)(fd, buf, len, off),
	              record(WRITE, ino_of(fd), (uint64_t)off, (uint64_t)changed_, NULL, NULL, buf, (size_t)changed_));
}

ssize_t pwrite64(int fd, const void *buf, size_t len, off64_t off) { return seen_pwrite(fd, buf, len, off); }
ssize_t pwrite(int fd, const void *buf, size_t len, off_t off) { return seen_pwrite(fd, buf, len, off); }

ssize_t write(int fd, const void *buf, size_t len)
{
	char path[PATH_MAX];
	const char *p = active() ? path_of_fd(fd, path) : NULL;
	off64_t end;

	if (!p)
		return REAL(write)(fd, buf, len);
	point(what_is(p), "write");
	return CHANGE(ssize_t, REAL(write)(fd, buf, len), ({
		end = lseek64(fd, 0, SEEK_CUR);
		record(WRITE, ino_of(fd), (uint64_t)(end - changed_), (uint64_t)changed_, NULL, NULL, buf, (size_t)changed_);
	}));
}

ssize_t splice(int in, off64_t *off_in, int out, off64_t *off_out, size_t len, unsigned flags)
{
	char path[PATH_MAX];
	const char *p = active() ? path_of_fd(out, path) : NULL;
	uint64_t at = off_out ? (uint64_t)*off_out : 0;

	if (!p || !off_out)
		return REAL(splice)(in, off_in, out, off_out, len, flags);
	point(what_is(p), "splice");
	return CHANGE(ssize_t, REAL(splice)(in, off_in, out, off_out, len, flags), record_range(out, at, (uint64_t)changed_));
}

ssize_t copy_file_range(int in, off64_t *off_in, int out, off64_t *off_out, size_t len, unsigned flags)
{
	char path[PATH_MAX];
	const char *p = active() ? path_of_fd(out, path) : NULL;
	uint64_t at = off_out ? (uint64_t)*off_out : 0;

	if (!p || !off_out)
		return REAL(copy_file_range)(in, off_in, out, off_out, len, flags);
	point(what_is(p), "copy_file_range");
	return CHANGE(ssize_t, REAL(copy_file_range)(in, off_in, out, off_out, len, flags),
	              record_range(out, at, (uint64_t)changed_));
}

static int seen_ftruncate(int fd, off64_t len)
{
	char path[PATH_MAX];
	const char *p = active() ? path_of_fd(fd, path) : NULL;

	if (!p)
		return REAL(ftruncate64)(fd, len);
	point(what_is(p), "ftruncate");
	return CHANGE(int, REAL(ftruncate64)(fd, len), record(SIZE, ino_of(fd), 0, (uint64_t)len, NULL, NULL, NULL, 0));
}

int ftruncate64(int fd, off64_t len) { return seen_ftruncate(fd, len); }
int ftruncate(int fd, off_t len) { return seen_ftruncate(fd, len); }

static int seen_fallocate(int fd, int mode, off64_t off, off64_t len)
{
	char path[PATH_MAX];
	const char *p = active() ? path_of_fd(fd, path) : NULL;

	if (!p)
		return REAL(fallocate64)(fd, mode, off, len);
	point(what_is(p), "fallocate");
	return CHANGE(int, REAL(fallocate64)(fd, mode, off, len), ({
		struct stat st;

		if (fstat(fd, &st) == 0)
			record(SIZE, ino_of(fd), 0, (uint64_t)st.st_size, NULL, NULL, NULL, 0);
		record_range(fd, (uint64_t)off, (uint64_t)len);
	}));
}

int fallocate64(int fd, int mode, off64_t off, off64_t len) { return seen_fallocate(fd, mode, off, len); }
int fallocate(int fd, int mode, off_t off, off_t len) { return seen_fallocate(fd, mode, off, len); }

static int seen_sync(int fd, const char *call, int (*sync)(int))
{
	char path[PATH_MAX];
	const char *p = active() ? path_of_fd(fd, path) : NULL;
	static uint64_t number;
	uint64_t mine;
	int rc;

	if (!p)
		return sync(fd);
	point(what_is(p), call);
	if (log_fd < 0)
		return sync(fd);
	pthread_mutex_lock(&log_lock);
	mine = ++number;
	record(SYNC_BEGIN, ino_of(fd), mine, 0, p, NULL, NULL, 0);
	pthread_mutex_unlock(&log_lock);
	rc = sync(fd);
	if (rc == 0) {
		pthread_mutex_lock(&log_lock);
		record(SYNC_END, ino_of(fd), mine, 0, p, NULL, NULL, 0);
		pthread_mutex_unlock(&log_lock);
	}
	return rc;
}

int fsync(int fd) { return seen_sync(fd, "fsync", REAL(fsync)); }
int fdatasync(int fd) { return seen_sync(fd, "fdatasync", REAL(fdatasync)); }

/* -- names -- */

static int seen_open(int dir, const char *name, int flags, mode_t mode)
{
	char path[PATH_MAX] = "";
	const char *p = (flags & O_CREAT) && active() ? path_at(dir, name, path) : NULL;
	const char *boot_id = getenv("TORTURE_BOOT_ID");
	struct stat st;
	bool fresh;

	if (boot_id && name && !strcmp(name, "/proc/sys/kernel/random/boot_id"))
		name = boot_id;
	if (!p)
		return REAL(openat64)(dir, name, flags, mode);
	fresh = fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) < 0;
	if (fresh)
		point(what_is(p), "create");
	return CHANGE(int, REAL(openat64)(dir, name, flags, mode), ({
		if (fresh)
			record(CREATE, ino_of(changed_), 0, 0, p, NULL, NULL, 0);
		else if (flags & O_TRUNC)
			record(SIZE, ino_of(changed_), 0, 0, NULL, NULL, NULL, 0);
	}));
}

#define MODE_OF(flags) ({ \
	mode_t mode_ = 0; \
	if ((flags) & (O_CREAT | __O_TMPFILE)) { \
		va_list ap_; \
		va_start(ap_, flags); \
		mode_ = va_arg(ap_, mode_t); \
		va_end(ap_); \
	} \
	mode_; \
})

int open(const char *name, int flags, ...) { return seen_open(AT_FDCWD, name, flags, MODE_OF(flags)); }
int open64(const char *name, int flags, ...) { return seen_open(AT_FDCWD, name, flags, MODE_OF(flags)); }
int openat(int dir, const char *name, int flags, ...) { return seen_open(dir, name, flags, MODE_OF(flags)); }
int openat64(int dir, const char *name, int flags, ...) { return seen_open(dir, name, flags, MODE_OF(flags)); }

static int seen_rename(int dir, const char *from, int dir2, const char *to)
{
	char path[PATH_MAX] = "", path2[PATH_MAX] = "";
	const char *p = active() ? path_at(dir, from, path) : NULL;

	if (!p)
		return REAL(renameat)(dir, from, dir2, to);
	point(what_is(p), "rename");
	return CHANGE(int, REAL(renameat)(dir, from, dir2, to), record(RENAME, 0, 0, 0, p, path_at(dir2, to, path2), NULL, 0));
}

int renameat(int dir, const char *from, int dir2, const char *to) { return seen_rename(dir, from, dir2, to); }
int rename(const char *from, const char *to) { return seen_rename(AT_FDCWD, from, AT_FDCWD, to); }

int unlinkat(int dir, const char *name, int flags)
{
	char path[PATH_MAX] = "";
	const char *p = active() ? path_at(dir, name, path) : NULL;
	enum kind kind = flags & AT_REMOVEDIR ? RMDIR : UNLINK;

	if (!p)
		return REAL(unlinkat)(dir, name, flags);
	point(what_is(p), kind == RMDIR ? "rmdir" : "unlink");
	return CHANGE(int, REAL(unlinkat)(dir, name, flags), record(kind, 0, 0, 0, p, NULL, NULL, 0));
}

int unlink(const char *name) { return unlinkat(AT_FDCWD, name, 0); }
int rmdir(const char *name) { return unlinkat(AT_FDCWD, name, AT_REMOVEDIR); }

int mkdirat(int dir, const char *name, mode_t mode)
{
	char path[PATH_MAX] = "";
	const char *p = active() ? path_at(dir, name, path) : NULL;

	if (!p)
		return REAL(mkdirat)(dir, name, mode);
	point("folder", "mkdir");
	return CHANGE(int, REAL(mkdirat)(dir, name, mode), record(MKDIR, 0, 0, 0, p, NULL, NULL, 0));
}

int mkdir(const char *name, mode_t mode) { return mkdirat(AT_FDCWD, name, mode); }

/* -- the Hub -- */

static const struct {
	const char *method, *part, *name;
} requests[] = {
	{"POST ", "/commit/", "commit"}, {"POST ", "/preupload/", "preupload"}, {"POST ", "/objects/batch", "batch"},
	{"POST ", "verify", "verify"},   {"POST ", "complet", "completion"},   {"PUT ", "/", "upload"},
	{"GET ", "/tree/", "tree"},      {"GET ", "/commits/", "commits"},     {"GET ", "/refs", "refs"},
	{"GET ", "/revision/", "revision"},
};

ssize_t send(int fd, const void *buf, size_t len, int flags)
{
	char line[1024];
	char *end;

	if (!active() || fd < 0 || fd >= FDS)
		return REAL(send)(fd, buf, len, flags);
	snprintf(line, sizeof(line), "%.*s", (int)(len < sizeof(line) ? len : sizeof(line) - 1), (const char *)buf);
	end = strpbrk(line, "\r\n");
	if (end && end - line > 9 && strncmp(end - 9, " HTTP/1.1", 9) == 0) {
		*end = 0;
		pending[fd][0] = 0;
		for (size_t i = 0; i < sizeof(requests) / sizeof(requests[0]); i++) {
			if (strncmp(line, requests[i].method, strlen(requests[i].method)) == 0 &&
			    strstr(line, requests[i].part)) {
				point("send", requests[i].name);
				snprintf(pending[fd], sizeof(pending[fd]), "%s", requests[i].name);
				break;
			}
		}
	}
	return REAL(send)(fd, buf, len, flags);
}

ssize_t recv(int fd, void *buf, size_t len, int flags)
{
	ssize_t n = REAL(recv)(fd, buf, len, flags);

	if (n > 0 && active() && fd < FDS && pending[fd][0] && !(flags & MSG_PEEK)) {
		char name[16];

		memcpy(name, pending[fd], sizeof(name));
		pending[fd][0] = 0;
		point("answer", name);
	}
	return n;
}
