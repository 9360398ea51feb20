/* util: small helpers that every module may use. A leaf: it includes nothing of hugfs. */
#ifndef HUGFS_UTIL_H
#define HUGFS_UTIL_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#define MUST_USE __attribute__((warn_unused_result))
#define PRINTF(fmt, first) __attribute__((format(printf, fmt, first)))
#define CLEANUP(f) __attribute__((cleanup(f)))
#define ARRAY_LEN(a) (sizeof(a) / sizeof((a)[0]))
#define MIN(a, b) ((a) < (b) ? (a) : (b))
#define MAX(a, b) ((a) > (b) ? (a) : (b))

/* Takes the value out of a variable that has a cleanup attribute; the variable is zeroed. */
#define STEAL(p) \
	({ \
		__typeof__(p) steal_ = (p); \
		(p) = (__typeof__(p)){0}; \
		steal_; \
	})

/* Stays in release builds. Guards only what would lose or corrupt data: prints where, and aborts. */
#define must(cond) ((cond) ? (void)0 : util_must_failed(#cond, __FILE__, __LINE__))
_Noreturn void util_must_failed(const char *cond, const char *file, int line);

/* Cleanup functions for free(3)-able pointers, descriptors and streams. util_closep leaves descriptor 0
 * alone: it is what STEAL leaves behind, and 0 to 2 are never ours. */
void util_freep(void *p);
void util_closep(int *fd);
void util_fclosep(FILE **f);
#define AUTO_FREE CLEANUP(util_freep)
#define AUTO_CLOSE CLEANUP(util_closep)
#define AUTO_FCLOSE CLEANUP(util_fclosep)

/* Milliseconds of CLOCK_BOOTTIME: it neither steps nor stops while the machine sleeps. */
int64_t util_now_ms(void);
/* How long the machine has slept since it was started, to some milliseconds. Connections from before a sleep are
 * most likely dead, and nobody says so. */
int64_t util_slept_ms(void);
#define UTIL_SLEEP_MS 1000 /* less is no sleep: the two clocks are not read at the same moment */

/* asprintf(3) that returns the string, or NULL when there is no memory. Caller frees. */
char *util_printf(const char *fmt, ...) PRINTF(1, 2) MUST_USE;

/* $HOME, else the password file's, else "/": a daemon started from fstab has no HOME. Caller frees; NULL: no
 * memory. */
char *util_home_dir(void) MUST_USE;

/* Creates every folder of `path` that is missing, each with mode 0700 and durably in its parent (an fsync each). 0 or
 * -errno. */
int util_mkdirs(const char *path) MUST_USE;

/* Reads or writes all of it, going on after short counts and EINTR. util_pread_all returns the
 * bytes read, fewer than `len` only at the end of the file. Others 0 or -errno. */
ssize_t util_pread_all(int fd, void *buf, size_t len, uint64_t off) MUST_USE;
int util_pwrite_all(int fd, const void *buf, size_t len, uint64_t off) MUST_USE;
int util_write_all(int fd, const void *buf, size_t len) MUST_USE;

/* fsync(2) of the folder at `path`, so that names in it are durable. 0 or -errno. */
int util_fsync_dir(const char *path) MUST_USE;

/* Whole small file into a NUL-terminated malloc'd buffer; -EFBIG above `max` bytes. ret_len may be NULL. */
int util_read_file(const char *path, size_t max, char **ret_text, size_t *ret_len) MUST_USE;

/* "50G", "1.5MiB", "4096" -> bytes (powers of 1024). -EINVAL, -ERANGE. */
int util_parse_size(const char *text, uint64_t *ret) MUST_USE;

/* Fills `buf` with bytes of the kernel's random generator. Cannot fail on a supported kernel. */
void util_random(void *buf, size_t len);

/* Lower-case hex of `n` bytes into `out` (2n + 1 bytes), and back from a text of exactly 2n digits of
 * either case: 0 or -EINVAL. */
void util_hex(const uint8_t *bytes, size_t n, char *out);
int util_unhex(const char *hex, uint8_t *out, size_t n) MUST_USE;

/* A growing byte buffer with a hard cap. data is NUL-terminated after every append. */
struct buf {
	char *data;
	size_t len;
	size_t cap;
	size_t max; /* 0: 64 MiB */
};
#define AUTO_BUF CLEANUP(buf_fini) struct buf
void buf_fini(struct buf *b);
/* 0, -ENOMEM, or -EFBIG when it would pass max. */
int buf_add(struct buf *b, const void *data, size_t len) MUST_USE;
int buf_addf(struct buf *b, const char *fmt, ...) PRINTF(2, 3) MUST_USE;

#endif
