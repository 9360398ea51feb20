/* stage_extent: which bytes of a layer that lies over something are its own, in memory and in its extent log.
 * Not for the bytes (stage_layer.c).
 *
 * Under the stage's lock, or by the one thread that changes the layer (`busy`).
 *
 * The log is records of 24 bytes, little endian: u64 offset, u64 length, u32 kind, u32 CRC32C of the 20 bytes
 * before. `write`: these bytes are in the data file. `truncate`: the file was cut to `offset`: what lies below
 * counts up to there only, also when the file grows again. `lower`: the file, which had just `offset` bytes, was
 * made longer by these bytes of what lies below. It ends where a record is not whole or not right. Bytes that
 * are known already need no further record, so it cannot outgrow what it describes by much. */
#define LOG_MODULE "stage_extent"

#include "stage_internal.h"

#include <assert.h>
#include <endian.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "log.h"

struct ext_record {
	uint64_t off, len;
	uint32_t kind, crc;
};
_Static_assert(sizeof(struct ext_record) == STAGE_EXT_RECORD, "the format on disk");

/* -- what is local -- */

/* The first ext that ends at or after `off`. */
size_t stage_ext_at(const struct layer *l, uint64_t off)
{
	size_t lo = 0, hi = l->n_ext;

	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;

		if (l->ext[mid].end < off)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

int stage_ext_reserve(struct layer *l)
{
	struct ext *more;
	size_t cap;

	if (l->n_ext < l->cap_ext)
		return 0;
	cap = l->cap_ext ? l->cap_ext * 2 : 8;
	more = reallocarray(l->ext, cap, sizeof(*more));
	if (!more)
		return -ENOMEM;
	l->ext = more;
	l->cap_ext = cap;
	return 0;
}

/* After ext_reserve. */
void stage_ext_add(struct layer *l, uint64_t off, uint64_t end)
{
	size_t first = stage_ext_at(l, off), last = first;

	if (off >= end)
		return;
	for (; last < l->n_ext && l->ext[last].off <= end; last++) {
		off = MIN(off, l->ext[last].off);
		end = MAX(end, l->ext[last].end);
	}
	if (first == last)
		assert(l->n_ext < l->cap_ext);
	memmove(&l->ext[first + 1], &l->ext[last], (l->n_ext - last) * sizeof(*l->ext));
	l->n_ext = l->n_ext - (last - first) + 1;
	l->ext[first] = (struct ext){.off = off, .end = end};
}

bool stage_ext_covers(const struct layer *l, uint64_t off, uint64_t end)
{
	size_t i = stage_ext_at(l, off);

	/* The one that ends just at `off` is not it. */
	if (i < l->n_ext && l->ext[i].end == off)
		i++;
	return i < l->n_ext && l->ext[i].off <= off && end <= l->ext[i].end;
}

static void ext_clip(struct layer *l, uint64_t size)
{
	while (l->n_ext && l->ext[l->n_ext - 1].off >= size)
		l->n_ext--;
	if (l->n_ext)
		l->ext[l->n_ext - 1].end = MIN(l->ext[l->n_ext - 1].end, size);
}

void stage_ext_cut(struct layer *l, uint64_t size)
{
	l->size = size;
	l->lower_len = MIN(l->lower_len, size);
	ext_clip(l, l->lower_len);
}

/* Is every byte of it in its data file? */
bool stage_ext_whole(const struct layer *l)
{
	return l->lower_len == 0 || stage_ext_covers(l, 0, l->lower_len);
}

/* -- the extent log -- */

static struct ext_record record(uint32_t kind, uint64_t off, uint64_t len)
{
	struct ext_record r = {.off = htole64(off), .len = htole64(len), .kind = htole32(kind)};

	r.crc = htole32(hash_crc32c(0, &r, offsetof(struct ext_record, crc)));
	return r;
}

int stage_ext_log(struct layer *l, uint32_t kind, uint64_t off, uint64_t len)
{
	struct ext_record r = record(kind, off, len);
	int rc = util_pwrite_all(l->log_fd, &r, sizeof(r), l->log_len);

	if (rc == 0) {
		l->log_len += sizeof(r);
		return 0;
	}
	if (ftruncate(l->log_fd, (off_t)l->log_len) < 0)
		l->log_behind = true; /* half a record may stand there */
	return rc;
}

/* Writes the log anew: tmp, fdatasync (its old records may have been promised), rename. */
int stage_ext_rewrite(struct stage *s, struct layer *l)
{
	char name[STAGE_DATA_NAME_MAX], tmp[STAGE_DATA_NAME_MAX];
	struct ext_record r = record(STAGE_EXT_TRUNCATE, l->lower_len, 0);
	AUTO_CLOSE int fd = -1;
	uint64_t at = sizeof(r);
	int rc;

	stage_layer_name(l->rec.node, l->rec.layer, ".ext", name);
	stage_layer_name(l->rec.node, l->rec.layer, ".ext.tmp", tmp);
	rc = stage_layer_open(s, l, ".ext.tmp", O_CREAT | O_TRUNC, &fd);
	if (rc == 0)
		rc = util_pwrite_all(fd, &r, sizeof(r), 0);
	for (size_t i = 0; rc == 0 && i < l->n_ext; i++, at += sizeof(r)) {
		r = record(STAGE_EXT_WRITE, l->ext[i].off, l->ext[i].end - l->ext[i].off);
		rc = util_pwrite_all(fd, &r, sizeof(r), at);
	}
	if (rc == 0 && (fdatasync(fd) < 0 || renameat(s->data_fd, tmp, s->data_fd, name) < 0))
		rc = -errno;
	if (rc < 0) {
		unlinkat(s->data_fd, tmp, 0);
		return rc;
	}
	util_closep(&l->log_fd);
	l->log_fd = STEAL(fd);
	l->log_len = at;
	l->log_behind = false;
	return 0;
}

/* One record into memory; false when it cannot be one. */
static bool log_replay(struct layer *l, const struct ext_record *raw, int *ret_err)
{
	uint64_t off = le64toh(raw->off), len = le64toh(raw->len), end;
	uint32_t kind = le32toh(raw->kind);

	if (le32toh(raw->crc) != hash_crc32c(0, raw, offsetof(struct ext_record, crc)) ||
	    __builtin_add_overflow(off, len, &end) || end > INT64_MAX)
		return false;
	if (kind == STAGE_EXT_TRUNCATE) {
		l->lower_len = MIN(l->lower_len, off);
		ext_clip(l, l->lower_len);
		return true;
	}
	if (kind == STAGE_EXT_LOWER && off <= l->lower_len && end <= stage_layer_below(l)) {
		l->lower_len = MAX(l->lower_len, end);
		return true;
	}
	if (kind != STAGE_EXT_WRITE)
		return false;
	*ret_err = stage_ext_reserve(l);
	if (*ret_err == 0)
		stage_ext_add(l, off, MIN(end, l->lower_len));
	return true;
}

/* Reads the log; *ret_torn: it ended in something that is no record. */
int stage_ext_load(struct stage *s, struct layer *l, bool *ret_torn)
{
	struct ext_record chunk[512];
	int rc = stage_layer_open(s, l, ".ext", O_CREAT, &l->log_fd);
	ssize_t n;

	if (rc < 0)
		return rc;
	do {
		n = util_pread_all(l->log_fd, chunk, sizeof(chunk), l->log_len);
		if (n < 0)
			return (int)n;
		for (size_t i = 0; i < (size_t)n / sizeof(*chunk); i++) {
			if (!log_replay(l, &chunk[i], &rc)) {
				*ret_torn = true;
				return 0;
			}
			if (rc < 0)
				return rc;
			l->log_len += sizeof(*chunk);
		}
		*ret_torn = n % (ssize_t)sizeof(*chunk) != 0;
	} while (n == sizeof(chunk));
	return 0;
}
