/* stage_range: what is done to ranges of a staged file besides reading and writing them: room and holes made
 * (fallocate), holes found (lseek), ranges copied from one file to another. Not for single writes
 * (stage_layer.c).
 *
 * Any thread; the lock is dropped around whatever touches bytes, as in stage_layer.c.
 *
 * A copy moves as few bytes as it can. What comes from a committed blob is taken by reference, when the copy so
 * far is the beginning of that blob: so `cp` of a committed file costs no bytes, however many calls it makes, and
 * when the copy is closed it IS the blob. What lies here is copied by the kernel, which shares the blocks on
 * filesystems that can. For the rest the caller is told to read and write. */
#define LOG_MODULE "stage_range"

#include "stage_internal.h"

#include <fcntl.h>
#include <limits.h>
#include <linux/falloc.h>
#include <string.h>
#include <unistd.h>

#include "log.h"

#define COPY_MAX ((uint64_t)64 << 20) /* of bytes that are really copied, in one call: a thread is busy with it */

/* -- fallocate -- */

struct room {
	struct stage_change_range range;
	int mode;
};

/* Zeros in [off, end) of the data file, as holes where that is possible. */
static int put_zeros(struct stage_change_range *c, int fd, uint64_t size)
{
	const struct room *room = (const struct room *)c;
	uint64_t inside = MIN(c->end, MAX(size, c->off)) - c->off;

	if (!c->grows)
		c->end = c->off + inside;
	if (room->mode & FALLOC_FL_ZERO_RANGE) {
		if (c->end > c->off && fallocate(fd, FALLOC_FL_ZERO_RANGE, (off_t)c->off, (off_t)(c->end - c->off)) == 0)
			return 0;
		if (c->end > c->off && errno != EOPNOTSUPP)
			return -errno;
	}
	if (inside && fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)c->off, (off_t)inside) < 0)
		return -errno;
	return c->grows && c->end > size && ftruncate(fd, (off_t)c->end) < 0 ? -errno : 0;
}

static int put_room(struct stage_change_range *c, int fd, uint64_t size)
{
	int mode = c->grows ? 0 : FALLOC_FL_KEEP_SIZE;

	return fallocate(fd, mode, (off_t)c->off, (off_t)(c->end - c->off)) < 0 ? -errno : 0;
}

int stage_fallocate(struct stage *s, uint64_t node, int mode, uint64_t off, uint64_t len, pid_t pid)
{
	struct room room = {.mode = mode};
	bool keep = mode & FALLOC_FL_KEEP_SIZE;

	room.range = (struct stage_change_range){.off = off, .grows = !keep};
	if (len == 0)
		return -EINVAL;
	if (__builtin_add_overflow(off, len, &room.range.end))
		return -EFBIG;
	switch (mode & ~FALLOC_FL_KEEP_SIZE) {
	case 0:
		room.range.put = put_room;
		break;
	case FALLOC_FL_PUNCH_HOLE:
		if (!keep)
			return -EOPNOTSUPP;
		/* fall through */
	case FALLOC_FL_ZERO_RANGE:
		room.range.own = true;
		room.range.put = put_zeros;
		break;
	default:
		return -EOPNOTSUPP; /* what shifts bytes would have to rewrite the extents */
	}
	return stage_change_range(s, node, &room.range, pid);
}

/* -- lseek -- */

/* Looks in a data file for data or a hole in [off, end): there, or `end`. */
static int seek_piece(int fd, uint64_t off, uint64_t end, int whence, uint64_t *ret)
{
	off_t at = lseek(fd, (off_t)off, whence);

	if (at < 0 && errno != ENXIO)
		return -errno;
	*ret = at < 0 || (uint64_t)at > end ? end : (uint64_t)at;
	return 0;
}

/* A piece of the file from `off` on: its end, and a layer that is held, or NULL where it comes from a blob. */
static int next_piece(struct stage *s, uint64_t node, uint64_t off, uint64_t *ret_size, uint64_t *ret_end,
                      struct layer **ret_layer)
{
	LOCKED(&s->lock);
	int rc = 0;
	struct node *n = stage_file_find(s, node, &rc);
	const struct journal_blob *blob;
	struct layer *from = NULL;
	uint64_t len = UINT64_MAX;

	if (!n)
		return rc;
	*ret_size = n->top ? n->top->size : n->rec.blob.key.size;
	*ret_end = *ret_size;
	*ret_layer = NULL;
	if (!n->top || off >= *ret_size)
		return 0;
	rc = stage_layer_locate(n->top, off, &len, &from, &blob);
	if (rc == 0 && from)
		rc = stage_layer_hold(s, from, false);
	if (rc < 0)
		return rc;
	*ret_end = off + len;
	*ret_layer = from;
	return 0;
}

int stage_seek(struct stage *s, uint64_t node, uint64_t off, int whence, uint64_t *ret)
{
	uint64_t at = off, size, end;

	if (whence != SEEK_DATA && whence != SEEK_HOLE)
		return -EINVAL;
	for (;;) {
		struct layer *l;
		uint64_t found;
		int rc = next_piece(s, node, at, &size, &end, &l);

		if (rc < 0)
			return rc;
		if (at >= size) {
			if (whence == SEEK_DATA || off >= size)
				return -ENXIO;
			*ret = size;
			return 0;
		}
		found = whence == SEEK_DATA ? at : end; /* all that comes from a blob is data */
		if (l) {
			rc = seek_piece(l->fd, at, end, whence, &found);
			lock_take(&s->lock);
			stage_layer_release(s, l);
			lock_drop(&s->lock);
		}
		if (rc < 0)
			return rc;
		if (found < end) {
			*ret = found;
			return 0;
		}
		at = end;
	}
}

/* -- copying -- */

struct copy {
	struct stage_change_range range;
	struct layer *from; /* held */
	uint64_t off;
};

static int put_copy(struct stage_change_range *c, int fd, uint64_t size)
{
	const struct copy *copy = (const struct copy *)c;
	off_t in = (off_t)copy->off, out = (off_t)c->off;

	while ((uint64_t)out < c->end) {
		ssize_t n = copy_file_range(copy->from->fd, &in, fd, &out, c->end - (uint64_t)out, 0);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && (uint64_t)out == c->off)
			return errno == EXDEV || errno == ENOSYS || errno == EINVAL ? -EOPNOTSUPP : -errno;
		if (n <= 0)
			break; /* the source was cut meanwhile */
	}
	if ((uint64_t)out == c->off)
		return -EOPNOTSUPP;
	c->end = (uint64_t)out;
	return 0;
}

static ssize_t copy_bytes(struct stage *s, struct layer *from, uint64_t soff, uint64_t len, uint64_t dst,
                          uint64_t doff, pid_t pid)
{
	struct copy copy = {.from = from, .off = soff};
	int rc;

	copy.range = (struct stage_change_range){.off = doff, .own = true, .grows = true, .put = put_copy};
	if (__builtin_add_overflow(doff, MIN(len, COPY_MAX), &copy.range.end))
		return -EFBIG;
	rc = stage_change_range(s, dst, &copy.range, pid);
	return rc < 0 ? rc : (ssize_t)(copy.range.end - doff);
}

ssize_t stage_copy_blob(struct stage *s, const struct stage_blob *blob, uint64_t soff, uint64_t dst, uint64_t doff,
                        uint64_t len, pid_t pid)
{
	struct journal_blob from = {.key = blob->key, .path = (char *)(uintptr_t)blob->path};
	int rc;

	if (soff >= blob->key.size)
		return 0;
	if (soff != doff)
		return -EOPNOTSUPP;
	memcpy(from.commit, blob->commit, sizeof(from.commit));
	len = MIN(MIN(len, blob->key.size - soff), (uint64_t)SSIZE_MAX);
	rc = stage_refer(s, dst, &from, doff, len, pid);
	return rc < 0 ? rc : (ssize_t)len;
}

ssize_t stage_copy(struct stage *s, uint64_t src, uint64_t soff, uint64_t dst, uint64_t doff, uint64_t len, pid_t pid)
{
	struct stage_gap gap;
	struct stage_blob blob = {0};
	struct layer *from;
	uint64_t size, end;
	ssize_t n;
	int rc = next_piece(s, src, soff, &size, &end, &from);

	if (rc < 0 || soff >= size)
		return rc;
	len = MIN(len, end - soff);
	if (from) {
		n = copy_bytes(s, from, soff, len, dst, doff, pid);
		lock_take(&s->lock);
		stage_layer_release(s, from);
		lock_drop(&s->lock);
		return n;
	}
	/* A read answers which blob it is. */
	n = stage_read(s, src, soff, &(char){0}, 1, &gap);
	if (n != 0 || gap.len == 0)
		return n < 0 ? n : -EOPNOTSUPP; /* it was written meanwhile */
	blob.key = gap.key;
	blob.path = gap.path;
	memcpy(blob.commit, gap.commit, sizeof(blob.commit));
	return stage_copy_blob(s, &blob, soff, dst, doff, len, pid);
}

/* Nothing of the layer is its own, and all of the blob shows through it. */
static bool is_blob(const struct layer *l)
{
	return l && !l->older && !l->rec.frozen && !l->held && l->fd_users == 0 && l->rec.lower == JOURNAL_OVER_BLOB &&
	        l->n_ext == 0 && l->size == l->lower_len && l->size == l->rec.blob.key.size;
}

void stage_become_blob(struct stage *s, struct node *n)
{
	struct layer *l = n->top;
	struct journal_node next = n->rec;
	bool same;

	/* A commit under way may have taken the file as it was. */
	if (s->committing || s->has_intent || n->rec.state != JOURNAL_CLOSED || n->freezers || !is_blob(l))
		return;
	same = n->rec.has_blob && hash_key_equal(&n->rec.blob.key, &l->rec.blob.key);
	next.flags |= JOURNAL_TOLD; /* its time */
	if (!same) {
		next.flags &= ~JOURNAL_HOME;
		next.has_blob = true;
		next.blob = l->rec.blob;
	}
	journal_begin(s->journal);
	journal_del_layer(s->journal, n->rec.id, l->rec.layer);
	journal_put_node(s->journal, &next);
	if (journal_end(s->journal) < 0)
		return; /* it stays a file like any other */
	if (!same) {
		free(n->rec.blob.path);
		l->rec.blob.path = NULL; /* the node's */
	}
	n->rec = next;
	n->unsaved = false;
	n->top = NULL;
	stage_layer_drop(s, l);
}
