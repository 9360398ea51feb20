/* util: small helpers that every module may use: cleanup, whole reads and writes, sizes, hex, growing
 * buffers.
 *
 * Not for anything that knows a word of the Hub or of FUSE. Any thread; no state. */
#define LOG_MODULE "util"

#include "util.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <pwd.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <syslog.h>
#include <time.h>
#include <unistd.h>

#define BUF_MAX_DEFAULT ((size_t)64 << 20)
#define BUF_FIRST 256

_Noreturn void util_must_failed(const char *cond, const char *file, int line)
{
	/* Both ways: a daemon's stderr is /dev/null, and syslog may not be there in the foreground. */
	dprintf(STDERR_FILENO, "hugfs: %s:%d: must(%s) failed\n", file, line, cond);
	syslog(LOG_CRIT, "%s:%d: must(%s) failed", file, line, cond);
	abort();
}

void util_freep(void *p)
{
	void *mem;

	memcpy(&mem, p, sizeof(mem));
	free(mem);
}

void util_closep(int *fd)
{
	int saved = errno;

	if (*fd > 0)
		close(*fd);
	*fd = -1;
	errno = saved;
}

void util_fclosep(FILE **f)
{
	int saved = errno;

	if (*f)
		fclose(*f);
	*f = NULL;
	errno = saved;
}

char *util_printf(const char *fmt, ...)
{
	va_list ap;
	char *text;
	int n;

	va_start(ap, fmt);
	n = vasprintf(&text, fmt, ap);
	va_end(ap);
	return n < 0 ? NULL : text;
}

char *util_home_dir(void)
{
	const char *home = getenv("HOME");
	struct passwd pw, *found = NULL;
	char text[4096];

	if (home && *home)
		return strdup(home);
	if (getpwuid_r(getuid(), &pw, text, sizeof(text), &found) == 0 && found && *found->pw_dir)
		return strdup(found->pw_dir);
	return strdup("/");
}

/* The folder that holds `path`. */
static int fsync_parent(const char *path)
{
	AUTO_FREE char *text = strdup(path);

	return text ? util_fsync_dir(dirname(text)) : -ENOMEM;
}

static int mkdir_one(const char *path)
{
	struct stat st;
	int err;

	if (mkdir(path, 0700) == 0)
		return fsync_parent(path);
	err = errno;
	/* An existing folder on a read-only or foreign filesystem need not answer EEXIST. */
	if (stat(path, &st) == 0)
		return S_ISDIR(st.st_mode) ? 0 : -ENOTDIR;
	return -err;
}

int util_mkdirs(const char *path)
{
	AUTO_FREE char *part = strdup(path);
	int rc;

	if (!part)
		return -ENOMEM;
	if (!*part)
		return -ENOENT;
	for (char *slash = strchr(part + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
		if (slash[-1] == '/' || !slash[1])
			continue;
		*slash = '\0';
		rc = mkdir_one(part);
		*slash = '/';
		if (rc < 0)
			return rc;
	}
	return mkdir_one(part);
}

ssize_t util_pread_all(int fd, void *buf, size_t len, uint64_t off)
{
	size_t done = 0;

	while (done < len) {
		ssize_t n = pread(fd, (char *)buf + done, len - done, (off_t)(off + done));

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			break;
		done += (size_t)n;
	}
	return (ssize_t)done;
}

int util_pwrite_all(int fd, const void *buf, size_t len, uint64_t off)
{
	size_t done = 0;

	while (done < len) {
		ssize_t n = pwrite(fd, (const char *)buf + done, len - done, (off_t)(off + done));

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			return -EIO;
		done += (size_t)n;
	}
	return 0;
}

int util_write_all(int fd, const void *buf, size_t len)
{
	size_t done = 0;

	while (done < len) {
		ssize_t n = write(fd, (const char *)buf + done, len - done);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			return -EIO;
		done += (size_t)n;
	}
	return 0;
}

int util_fsync_dir(const char *path)
{
	AUTO_CLOSE int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (fd < 0 || fsync(fd) < 0)
		return -errno;
	return 0;
}

int util_read_file(const char *path, size_t max, char **ret_text, size_t *ret_len)
{
	AUTO_BUF b = {.max = SIZE_MAX - 1};
	AUTO_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC);
	char chunk[4096];
	int rc;

	if (fd < 0)
		return -errno;
	rc = buf_add(&b, "", 0);
	while (rc == 0) {
		ssize_t n = read(fd, chunk, sizeof(chunk));

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			break;
		if ((size_t)n > max - b.len)
			return -EFBIG;
		rc = buf_add(&b, chunk, (size_t)n);
	}
	explicit_bzero(chunk, sizeof(chunk)); /* it may have been a token */
	if (rc < 0)
		return rc;
	if (ret_len)
		*ret_len = b.len;
	*ret_text = STEAL(b.data);
	return 0;
}

/* The letter of a unit -> its power of two, 0 for none, -1 for a foreign one. */
static int unit_shift(const char *unit)
{
	static const char letters[] = "KMGTPE";
	const char *at;

	if (!*unit || (strcmp(unit, "B") == 0))
		return 0;
	at = strchr(letters, *unit >= 'a' && *unit <= 'z' ? *unit - 'a' + 'A' : *unit);
	if (!at)
		return -1;
	unit++;
	if (*unit && strcmp(unit, "B") != 0 && strcmp(unit, "iB") != 0 && strcmp(unit, "i") != 0)
		return -1;
	return 10 * (int)(at - letters + 1);
}

int util_parse_size(const char *text, uint64_t *ret)
{
	uint64_t whole = 0, frac = 0, scale = 1;
	const char *p = text;
	unsigned __int128 bytes;
	int shift;

	if (*p < '0' || *p > '9')
		return -EINVAL;
	for (; *p >= '0' && *p <= '9'; p++) {
		if (__builtin_mul_overflow(whole, (uint64_t)10, &whole) ||
		    __builtin_add_overflow(whole, (uint64_t)(*p - '0'), &whole))
			return -ERANGE;
	}
	if (*p == '.') {
		p++;
		if (*p < '0' || *p > '9')
			return -EINVAL;
		for (; *p >= '0' && *p <= '9'; p++) {
			if (scale < 1000000000) { /* what is beyond nine digits is below a byte anyway */
				frac = frac * 10 + (uint64_t)(*p - '0');
				scale *= 10;
			}
		}
	}
	shift = unit_shift(p);
	if (shift < 0 || (shift == 0 && frac != 0))
		return -EINVAL;
	bytes = ((unsigned __int128)whole << shift) + ((unsigned __int128)frac << shift) / scale;
	if (bytes > UINT64_MAX)
		return -ERANGE;
	*ret = (uint64_t)bytes;
	return 0;
}

void util_random(void *buf, size_t len)
{
	size_t done = 0;

	while (done < len) {
		ssize_t n = getrandom((char *)buf + done, len - done, 0);

		must(n >= 0 || errno == EINTR);
		if (n > 0)
			done += (size_t)n;
	}
}

void util_hex(const uint8_t *bytes, size_t n, char *out)
{
	static const char digits[] = "0123456789abcdef";

	for (size_t i = 0; i < n; i++) {
		out[2 * i] = digits[bytes[i] >> 4];
		out[2 * i + 1] = digits[bytes[i] & 15];
	}
	out[2 * n] = '\0';
}

static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return -1;
}

int util_unhex(const char *hex, uint8_t *out, size_t n)
{
	for (size_t i = 0; i < 2 * n; i++) {
		if (hex_digit(hex[i]) < 0) /* the NUL of a short text too */
			return -EINVAL;
	}
	if (hex[2 * n])
		return -EINVAL;
	for (size_t i = 0; i < n; i++)
		out[i] = (uint8_t)(hex_digit(hex[2 * i]) << 4 | hex_digit(hex[2 * i + 1]));
	return 0;
}

void buf_fini(struct buf *b)
{
	free(b->data);
	*b = (struct buf){.max = b->max};
}

/* Room for `more` bytes and the NUL. */
static int buf_room(struct buf *b, size_t more)
{
	size_t max = b->max ? b->max : BUF_MAX_DEFAULT;
	size_t need, cap;
	char *data;

	if (b->len > max || more > max - b->len || max == SIZE_MAX)
		return -EFBIG;
	need = b->len + more + 1;
	if (need <= b->cap)
		return 0;
	cap = MAX(need, BUF_FIRST);
	if (b->cap <= max / 2)
		cap = MAX(cap, b->cap * 2);
	data = realloc(b->data, cap);
	if (!data)
		return -ENOMEM;
	b->data = data;
	b->cap = cap;
	return 0;
}

int buf_add(struct buf *b, const void *data, size_t len)
{
	int rc = buf_room(b, len);

	if (rc < 0)
		return rc;
	if (len)
		memcpy(b->data + b->len, data, len);
	b->len += len;
	b->data[b->len] = '\0';
	return 0;
}

int buf_addf(struct buf *b, const char *fmt, ...)
{
	va_list ap;
	int n, rc;

	va_start(ap, fmt);
	n = vsnprintf(NULL, 0, fmt, ap);
	va_end(ap);
	if (n < 0)
		return -EINVAL;
	rc = buf_room(b, (size_t)n);
	if (rc < 0)
		return rc;
	va_start(ap, fmt);
	vsnprintf(b->data + b->len, (size_t)n + 1, fmt, ap);
	va_end(ap);
	b->len += (size_t)n;
	return 0;
}
