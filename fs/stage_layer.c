/* stage_layer: the bytes of staged files: layers, reading, writing. Not for fsync (stage_sync.c), names, nor for
 * what is published when.
 *
 * Any thread; the lock is that of the stage, dropped around every read, write and fsync of data. A file
 * that is written to without the lock is `busy`: its top layer belongs to that thread alone. Readers see ext
 * and sizes as they were, since these change under the lock only.
 *
 * Files of a layer, in data/: NODE.LAYER, whose size is the file's; NODE.LAYER.ext, its extent log, when it
 * lies over something (stage_extent.c); NODE.LAYER.whole, put there by the uploader.
 *
 * Order: bytes, then record, then the call returns. Killed between: a write beyond lower_len may be there
 * or not; a write below it is not; a cut is there, because the size of the data file limits lower_len when
 * it is loaded. */
#define LOG_MODULE "stage_layer"

#include "stage_internal.h"

#include <assert.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <unistd.h>

#include "log.h"

#define EXT_SPARE 4096   /* records that a log may have beyond twice what it needs */
#define PIECES 16        /* of data files, read without taking the lock again */



void stage_layer_name(uint64_t node, uint32_t layer, const char *suffix, char out[STAGE_DATA_NAME_MAX])
{
	snprintf(out, STAGE_DATA_NAME_MAX, "%llu.%u%s", (unsigned long long)node, layer, suffix);
}

int stage_layer_open(struct stage *s, const struct layer *l, const char *suffix, int flags, int *ret)
{
	char name[STAGE_DATA_NAME_MAX];
	int fd;

	stage_layer_name(l->rec.node, l->rec.layer, suffix, name);
	fd = openat(s->data_fd, name, O_RDWR | O_CLOEXEC | O_NOFOLLOW | flags, 0600);
	if (fd < 0) {
		int err = -errno;

		log_err("%s/%s: %s", s->place.data, name, strerror(-err));
		return err;
	}
	*ret = fd;
	return 0;
}

uint64_t stage_layer_below(const struct layer *l)
{
	return l->rec.lower == JOURNAL_OVER_BLOB ? l->rec.blob.key.size : l->below ? l->below->size : 0;
}

uint64_t stage_layer_bytes(const struct layer *l)
{
	uint64_t sum = l->size - l->lower_len;

	for (size_t i = 0; i < l->n_ext; i++)
		sum += l->ext[i].end - l->ext[i].off;
	return sum;
}

uint64_t stage_layer_blocks(struct stage *s, const struct layer *l, uint64_t size)
{
	char name[STAGE_DATA_NAME_MAX];
	struct stat st;

	if (l && l->rec.lower == JOURNAL_OVER_NONE) {
		stage_layer_name(l->rec.node, l->rec.layer, "", name);
		if (fstatat(s->data_fd, name, &st, AT_SYMLINK_NOFOLLOW) == 0)
			return (uint64_t)st.st_blocks;
	}
	return (size + 511) / 512; /* what comes from elsewhere has no holes */
}

/* -- layers and their files -- */

struct layer *stage_layer_alloc(const struct journal_layer *rec)
{
	struct layer *l = calloc(1, sizeof(*l));

	if (!l)
		return NULL;
	l->rec = *rec;
	l->refs = 1;
	l->fd = l->log_fd = -1;
	return l;
}

void stage_layer_push(struct node *n, struct layer *l)
{
	l->older = n->top;
	n->top = l;
}

static void layer_close(struct layer *l)
{
	util_closep(&l->fd);
	util_closep(&l->log_fd);
}

void stage_layer_unref(struct layer *l)
{
	while (l && --l->refs == 0) {
		struct layer *below = l->below;

		layer_close(l);
		free(l->rec.blob.path);
		free(l->ext);
		free(l);
		l = below;
	}
}

void stage_layer_close_idle(struct node *n)
{
	if (n->pins || n->writers || n->busy)
		return;
	for (struct layer *l = n->top; l; l = l->older) {
		if (l->fd_users == 0)
			layer_close(l);
	}
}

/* Keeps its data file open until stage_layer_release. */
int stage_layer_hold(struct stage *s, struct layer *l, bool log)
{
	int rc = 0;

	if (l->fd < 0)
		rc = stage_layer_open(s, l, "", 0, &l->fd);
	if (rc == 0 && log && l->log_fd < 0)
		rc = stage_layer_open(s, l, ".ext", O_CREAT, &l->log_fd);
	if (rc < 0)
		return rc;
	l->fd_users++;
	l->refs++;
	return 0;
}

void stage_layer_release(struct stage *s, struct layer *l)
{
	struct node *n = stage_node_find(s, l->rec.node);

	l->fd_users--;
	stage_layer_unref(l);
	if (n)
		stage_layer_close_idle(n);
}

void stage_layer_unlink(struct stage *s, uint64_t node, uint32_t layer)
{
	static const char *const suffixes[] = {"", ".ext", ".ext.tmp", ".whole"};
	char name[STAGE_DATA_NAME_MAX];

	for (size_t i = 0; i < ARRAY_LEN(suffixes); i++) {
		stage_layer_name(node, layer, suffixes[i], name);
		if (unlinkat(s->data_fd, name, 0) < 0 && errno != ENOENT)
			log_warn("%s/%s: %s", s->place.data, name, strerror(errno));
	}
}

/* The data file and struct of layer `number`, of `size` bytes that are all below it (lower), or none. */
static int layer_make(struct stage *s, uint64_t node, const struct journal_layer *rec, uint64_t size,
                      struct layer **ret)
{
	struct layer *l = stage_layer_alloc(rec);
	int rc;

	if (!l)
		return -ENOMEM;
	/* What a failed attempt left may be linked elsewhere by now: never into the same file. */
	stage_layer_unlink(s, node, rec->layer);
	rc = stage_layer_open(s, l, "", O_CREAT | O_EXCL, &l->fd);
	if (rc == 0 && size && ftruncate(l->fd, (off_t)size) < 0) {
		rc = -errno;
		stage_layer_unlink(s, node, rec->layer);
	}
	if (rc < 0) {
		l->rec.blob.path = NULL; /* still the caller's */
		stage_layer_unref(l);
		return rc;
	}
	l->size = l->lower_len = size;
	*ret = l;
	return 0;
}

void stage_layer_undo(struct stage *s, struct layer *l)
{
	stage_layer_unlink(s, l->rec.node, l->rec.layer); /* now: its number will be used again */
	stage_layer_unref(l);
}

int stage_layer_first(struct stage *s, uint64_t node, struct layer **ret)
{
	struct journal_layer rec = {.node = node, .layer = 1, .lower = JOURNAL_OVER_NONE};

	return layer_make(s, node, &rec, 0, ret);
}

int stage_layer_load(struct stage *s, struct layer *l, bool was_closed)
{
	char name[STAGE_DATA_NAME_MAX];
	bool torn = false, fixed = l->rec.frozen || was_closed;
	struct stat st;
	int rc;

	stage_layer_name(l->rec.node, l->rec.layer, "", name);
	if (fstatat(s->data_fd, name, &st, AT_SYMLINK_NOFOLLOW) < 0) {
		if (errno != ENOENT)
			return -errno;
		/* Only power loss does that. Its name stays, so that the user sees what is missing. */
		l->lost = true;
		rc = stage_layer_open(s, l, "", O_CREAT, &l->fd);
		if (rc < 0)
			return rc;
		st.st_size = 0;
	}
	l->size = (uint64_t)st.st_size;
	l->lower_len = stage_layer_below(l);
	if (l->rec.lower != JOURNAL_OVER_NONE) {
		rc = stage_ext_load(s, l, &torn);
		if (rc < 0)
			return rc;
	}
	l->durable = l->rec.synced;
	s->unsynced = s->unsynced || !l->rec.synced;
	if (fixed && (torn || l->size != l->rec.size))
		l->lost = true;
	if (!l->lost && s->power_failed && !l->rec.synced && (l->size || l->rec.lower != JOURNAL_OVER_NONE)) {
		l->lost = true; /* who knows which of its bytes are there */
		s->n_doubtful++;
	} else if (l->lost) {
		log_warn("%s/%s is not as the journal says (%llu bytes, not %llu): kept, not published",
		         s->place.data, name, (unsigned long long)l->size, (unsigned long long)l->rec.size);
	}
	if (torn || l->lower_len > l->size ||
	    l->log_len / STAGE_EXT_RECORD > 2 * l->n_ext + EXT_SPARE) {
		stage_ext_cut(l, l->size);
		rc = stage_ext_rewrite(s, l);
		if (rc < 0)
			return rc;
	}
	layer_close(l);
	return 0;
}

/* -- changing bytes -- */

/* A raw wait: the caller may hold locks to the left of ours, which whoever is waited for here does not
 * need. */
static void wait_idle(struct stage *s)
{
	must(pthread_cond_wait(&s->idle.cond, &s->lock.mutex) == 0);
}

void stage_freeze_enter(struct stage *s, struct node *n)
{
	n->freezers++;
	while (n->busy)
		wait_idle(s);
}

void stage_freeze_leave(struct stage *s, struct node *n)
{
	n->freezers--;
	cond_broadcast(&s->idle);
	stage_node_reap(s, n);
}

unsigned stage_layer_depth(const struct layer *l)
{
	unsigned n = 0;

	for (; l; l = l->older)
		n++;
	return n;
}

/* The record of a new top layer over what the file is now. */
static struct journal_layer next_layer(const struct node *n, bool empty, uint64_t *ret_size)
{
	struct journal_layer rec = {.node = n->rec.id, .layer = n->rec.last_layer + 1};
	uint64_t size = n->top ? n->top->size : n->rec.blob.key.size;

	if (empty || size == 0) {
		rec.lower = JOURNAL_OVER_NONE;
		size = 0;
	} else if (n->top) {
		rec.lower = JOURNAL_OVER_LAYER;
		rec.lower_layer = n->top->rec.layer;
	} else {
		rec.lower = JOURNAL_OVER_BLOB;
		rec.blob = n->rec.blob;
	}
	*ret_size = size;
	return rec;
}

static int save_layer(struct stage *s, const struct journal_node *node, const struct journal_layer *layer)
{
	journal_begin(s->journal);
	journal_put_layer(s->journal, layer);
	journal_put_node(s->journal, node);
	return journal_end(s->journal);
}

static int add_layer(struct stage *s, struct node *n, struct journal_node next, bool empty,
                     struct layer **ret)
{
	uint64_t size;
	struct journal_layer rec = next_layer(n, empty, &size);
	AUTO_FREE char *path = NULL;
	struct layer *l;
	int rc;

	if (rec.lower == JOURNAL_OVER_BLOB && rec.blob.path) {
		path = strdup(rec.blob.path);
		if (!path)
			return -ENOMEM;
		rec.blob.path = path;
	}
	rc = layer_make(s, n->rec.id, &rec, size, &l);
	if (rc < 0)
		return rc;
	path = NULL; /* the layer's */
	next.last_layer = rec.layer;
	rc = save_layer(s, &next, &rec);
	if (rc < 0) {
		stage_layer_undo(s, l);
		return rc;
	}
	if (rec.lower == JOURNAL_OVER_LAYER) {
		l->below = n->top;
		l->below->refs++;
	}
	n->rec = next;
	s->unsynced = true;
	stage_layer_push(n, l);
	*ret = l;
	return 0;
}

/* Goes on writing to a frozen layer that nobody needs as it is, so that a file which is synced again and
 * again while no commit succeeds is not a thousand layers deep. -EMLINK: the cache has linked it. */
static int thaw(struct stage *s, struct node *n, const struct journal_node *next)
{
	struct layer *top = n->top;
	struct journal_layer thawed = top->rec;
	char name[STAGE_DATA_NAME_MAX];
	struct stat st;
	int rc;

	stage_layer_name(n->rec.id, thawed.layer, "", name);
	if (fstatat(s->data_fd, name, &st, AT_SYMLINK_NOFOLLOW) < 0 || st.st_nlink != 1)
		return -EMLINK;
	stage_layer_name(n->rec.id, thawed.layer, ".whole", name);
	if (unlinkat(s->data_fd, name, 0) < 0 && errno != ENOENT)
		return -errno;
	thawed.frozen = thawed.has_digests = thawed.synced = false;
	rc = save_layer(s, next, &thawed);
	if (rc < 0)
		return rc;
	top->unpromised = top->rec.synced;
	top->rec = thawed;
	n->rec = *next;
	n->unsaved = false;
	return 0;
}

/* The journal takes back that all bytes of the top layer are on stable storage: durably, before one of them
 * changes (settle_promise). */
static int unpromise(struct stage *s, struct node *n, const struct journal_node *next)
{
	struct journal_layer top = n->top->rec;
	int rc;

	top.synced = false;
	rc = save_layer(s, next, &top);
	if (rc < 0)
		return rc;
	n->top->rec.synced = false;
	n->top->unpromised = true;
	n->rec = *next;
	n->unsaved = false;
	return 0;
}

/* Without the lock, by the thread that changes the layer. */
static int settle_promise(struct stage *s, struct layer *l)
{
	int rc = l->unpromised ? journal_flush(s->journal) : 0;

	if (rc == 0)
		l->unpromised = false;
	return rc;
}

/* Makes the file ready for a change: its journalled state says open, its top layer may be written to.
 * empty: what it holds now will not count. */
static int ready(struct stage *s, struct node *n, bool empty, struct layer **ret)
{
	struct journal_node next = n->rec;
	struct layer *top = n->top;
	int rc;

	for (struct layer *l = next.state == JOURNAL_INTERRUPTED ? top : NULL; l; l = l->older)
		l->half = true; /* they do not become whole by what is written now */
	if (next.state != JOURNAL_CONFLICT)
		next.state = JOURNAL_OPEN;
	if (top && !top->rec.frozen) {
		*ret = top;
		if (top->rec.synced)
			return unpromise(s, n, &next);
		return n->rec.state != next.state || n->unsaved ? stage_node_save(s, n, &next) : 0;
	}
	if (top && !top->held && stage_layer_depth(top) >= STAGE_DEPTH_MAX) {
		rc = thaw(s, n, &next);
		if (rc != -EMLINK) {
			*ret = top;
			return rc;
		}
	}
	rc = add_layer(s, n, next, empty, ret);
	if (rc == 0)
		n->unsaved = false;
	return rc;
}

/* The file, with nobody writing to it, ready for a change that this thread makes without the lock. */
static int begin_change(struct stage *s, uint64_t id, bool empty, struct node **ret_node,
                        struct layer **ret_layer)
{
	struct layer *l = NULL;
	struct node *n;
	int rc = 0;

	while ((n = stage_file_find(s, id, &rc)) && (n->busy || n->freezers))
		wait_idle(s);
	if (!n)
		return rc;
	rc = ready(s, n, empty, &l);
	if (rc == 0)
		rc = stage_ext_reserve(l);
	if (rc == 0)
		rc = stage_layer_hold(s, l, l->rec.lower != JOURNAL_OVER_NONE);
	if (rc < 0) {
		if (n->writers == 0)
			stage_node_closed(s, n);
		return rc;
	}
	assert(!n->busy && !l->rec.frozen);
	l->changes++;
	l->durable = false;
	n->busy = true;
	n->changed = true;
	*ret_node = n;
	*ret_layer = l;
	return 0;
}

static void end_change(struct stage *s, struct node *n, struct layer *l, bool done)
{
	assert(n->busy && n->top == l && !l->rec.frozen);
	if (done)
		n->rec.mtime = stage_mtime_after(n->rec.mtime);
	n->busy = false;
	cond_broadcast(&s->idle);
	stage_layer_release(s, l);
	if (n->writers == 0)
		stage_node_closed(s, n);
	stage_node_reap(s, n);
}

/* Bytes and extents of [c->off, c->end) of a layer that is the caller's alone. */
static int make_change(struct stage *s, struct layer *l, struct stage_change_range *c)
{
	uint64_t counts;
	int rc = settle_promise(s, l);

	if (rc == 0 && l->log_behind)
		rc = stage_ext_rewrite(s, l);
	if (rc == 0)
		rc = c->put(c, l->fd, l->size);
	counts = MIN(c->end, l->lower_len);
	if (rc == 0 && c->own && c->off < counts && !stage_ext_covers(l, c->off, counts))
		rc = stage_ext_log(l, STAGE_EXT_WRITE, c->off, counts - c->off);
	if (rc < 0 && c->end > l->size && ftruncate(l->fd, (off_t)l->size) < 0)
		log_err("%s/%llu.%u: %s", s->place.data, (unsigned long long)l->rec.node, l->rec.layer,
		        strerror(errno));
	return rc;
}

int stage_change_range(struct stage *s, uint64_t node, struct stage_change_range *c, pid_t pid)
{
	struct layer *l = NULL;
	struct node *n = NULL;
	int rc;

	if (c->off >= c->end)
		return 0;
	if (c->end > INT64_MAX)
		return -EFBIG;
	{
		LOCKED(&s->lock);
		rc = journal_is_tight(s->journal) ? -ENOSPC : begin_change(s, node, false, &n, &l);
		if (rc < 0)
			return rc;
		n->appended = n->appended && c->off == l->size;
		n->written = true;
		n->last_pid = pid;
	}
	/* l is ours; nobody changes its size, ext, lower_len or log but us. */
	rc = make_change(s, l, c);
	{
		LOCKED(&s->lock);
		if (rc == 0) {
			uint64_t counts = MIN(c->end, l->lower_len);

			l->size = c->grows ? MAX(l->size, c->end) : l->size;
			if (c->own && c->off < counts)
				stage_ext_add(l, c->off, counts);
		}
		end_change(s, n, l, rc == 0);
	}
	(void)stage_housekeep(s, false);
	return rc;
}

struct write {
	struct stage_change_range range;
	const void *data;
};

static int put_bytes(struct stage_change_range *c, int fd, uint64_t size)
{
	const struct write *w = (const struct write *)c;

	return util_pwrite_all(fd, w->data, c->end - c->off, c->off);
}

int stage_write(struct stage *s, uint64_t node, uint64_t off, const void *data, size_t len, pid_t pid)
{
	struct write w = {.data = data};

	w.range = (struct stage_change_range){.off = off, .own = true, .grows = true, .put = put_bytes};
	if (__builtin_add_overflow(off, (uint64_t)len, &w.range.end))
		return -EFBIG;
	return stage_change_range(s, node, &w.range, pid);
}

/* May the file be made longer by `len` bytes of `blob` at its end, as a copy from its beginning does? */
static bool can_refer(const struct node *n, const struct journal_blob *blob, uint64_t off)
{
	const struct layer *l = n->top;
	uint64_t size = l ? l->size : n->rec.blob.key.size;

	if (size == 0 && off == 0)
		return true;
	return l && !l->rec.frozen && l->rec.lower == JOURNAL_OVER_BLOB && size == off && l->lower_len == size &&
	        hash_key_equal(&l->rec.blob.key, &blob->key);
}

/* Its extent log says that nothing of what lies below counts. */
static int log_nothing(struct stage *s, struct layer *l)
{
	int rc = stage_layer_hold(s, l, true);

	if (rc < 0)
		return rc;
	rc = l->log_behind ? stage_ext_rewrite(s, l) : stage_ext_log(l, STAGE_EXT_TRUNCATE, 0, 0);
	stage_layer_release(s, l);
	return rc;
}

/* An empty layer lies over the blob from now on; nothing of that counts yet, which the log says first. */
static int put_over(struct stage *s, struct layer *l, const struct journal_blob *blob)
{
	struct journal_layer rec = l->rec;
	int rc = log_nothing(s, l);

	if (rc < 0)
		return rc;
	rec.lower = JOURNAL_OVER_BLOB;
	rec.lower_layer = 0;
	rec.blob = *blob;
	rec.blob.path = strdup(blob->path ? blob->path : "");
	if (!rec.blob.path)
		return -ENOMEM;
	journal_begin(s->journal);
	journal_put_layer(s->journal, &rec);
	rc = journal_end(s->journal);
	if (rc < 0) {
		free(rec.blob.path);
		return rc;
	}
	free(l->rec.blob.path);
	stage_layer_unref(l->below);
	l->below = NULL;
	l->rec = rec;
	l->lower_len = 0;
	return 0;
}

static int begin_refer(struct stage *s, uint64_t id, const struct journal_blob *blob, uint64_t off,
                       struct node **ret_node, struct layer **ret_layer)
{
	struct layer *l = NULL;
	struct node *n;
	int rc = 0;

	while ((n = stage_file_find(s, id, &rc)) && (n->busy || n->freezers))
		wait_idle(s);
	if (!n)
		return rc;
	if (!can_refer(n, blob, off))
		return -EOPNOTSUPP;
	rc = ready(s, n, off == 0, &l);
	if (rc == 0 && off == 0)
		rc = put_over(s, l, blob);
	if (rc == 0)
		rc = begin_change(s, id, false, ret_node, ret_layer);
	return rc;
}

int stage_refer(struct stage *s, uint64_t node, const struct journal_blob *blob, uint64_t off, uint64_t len,
                pid_t pid)
{
	struct layer *l = NULL;
	struct node *n = NULL;
	int rc;

	{
		LOCKED(&s->lock);
		rc = begin_refer(s, node, blob, off, &n, &l);
		if (rc < 0)
			return rc;
		n->appended = false;
		n->written = true;
		n->last_pid = pid;
	}
	rc = settle_promise(s, l);
	if (rc == 0 && l->log_behind)
		rc = stage_ext_rewrite(s, l);
	if (rc == 0 && ftruncate(l->fd, (off_t)(off + len)) < 0)
		rc = -errno;
	if (rc == 0)
		rc = stage_ext_log(l, STAGE_EXT_LOWER, off, len);
	if (rc < 0 && ftruncate(l->fd, (off_t)l->size) < 0)
		log_err("%s/%llu.%u: %s", s->place.data, (unsigned long long)node, l->rec.layer, strerror(errno));
	{
		LOCKED(&s->lock);
		if (rc == 0)
			l->size = l->lower_len = off + len;
		end_change(s, n, l, rc == 0);
	}
	(void)stage_housekeep(s, false);
	return rc;
}

int stage_truncate(struct stage *s, uint64_t node, uint64_t size)
{
	struct layer *l = NULL;
	struct node *n;
	int rc = 0;

	if (size > INT64_MAX)
		return -EFBIG;
	{
		LOCKED(&s->lock);
		n = stage_file_find(s, node, &rc);
		if (!n)
			return rc;
		if (!n->top && size == n->rec.blob.key.size)
			return 0;
		rc = begin_change(s, node, size == 0, &n, &l);
		if (rc < 0)
			return rc;
		n->appended = n->appended && size == 0 && n->last_pid == 0; /* O_TRUNC is part of the open */
	}
	rc = settle_promise(s, l);
	if (rc == 0 && l->log_behind)
		rc = stage_ext_rewrite(s, l);
	if (rc == 0 && ftruncate(l->fd, (off_t)size) < 0)
		rc = -errno;
	/* The cut is done. If it cannot be noted, loading sees it from the size, and nothing else changes
	 * before it is. */
	if (rc == 0 && size < l->lower_len && stage_ext_log(l, STAGE_EXT_TRUNCATE, size, 0) < 0)
		l->log_behind = true;
	{
		LOCKED(&s->lock);
		if (rc == 0)
			stage_ext_cut(l, size);
		end_change(s, n, l, rc == 0);
	}
	(void)stage_housekeep(s, false);
	return rc;
}

/* -- reading -- */

struct piece {
	struct layer *layer; /* held by stage_layer_hold */
	uint64_t off;
	size_t len;
};

int stage_layer_locate(struct layer *l, uint64_t off, uint64_t *len, struct layer **ret_layer,
                  const struct journal_blob **ret_blob)
{
	for (;;) {
		size_t i = stage_ext_at(l, off + 1);

		if (off >= l->size) /* below the top: its data file lost bytes */
			return -EIO;
		*len = MIN(*len, l->size - off);
		*ret_layer = l;
		if (off >= l->lower_len)
			return 0;
		if (i < l->n_ext && l->ext[i].off <= off) {
			uint64_t end = l->ext[i].end;

			*len = MIN(*len, (end == l->lower_len ? l->size : end) - off);
			return 0;
		}
		*len = MIN(*len, (i < l->n_ext ? l->ext[i].off : l->lower_len) - off);
		if (l->rec.lower == JOURNAL_OVER_BLOB) {
			*ret_layer = NULL;
			*ret_blob = &l->rec.blob;
			return 0;
		}
		l = l->below;
	}
}

static void set_gap(struct stage_gap *gap, const struct journal_blob *blob, uint64_t off, uint64_t len)
{
	gap->key = blob->key;
	memcpy(gap->commit, blob->commit, sizeof(gap->commit));
	snprintf(gap->path, sizeof(gap->path), "%s", blob->path ? blob->path : "");
	gap->off = off;
	gap->len = len;
}

static struct layer *layer_find(const struct node *n, uint32_t number)
{
	struct layer *l = n->top;

	while (l && l->rec.layer != number)
		l = l->older;
	return l;
}

/* Collects pieces from `off` on, up to `len` bytes, up to the first byte of a blob. The number of pieces; 0
 * with the gap set, or at the end of the file. `number` 0: the file as it is now. */
static int collect(struct stage *s, uint64_t id, uint32_t number, uint64_t off, size_t len,
                   struct piece *pieces, struct stage_gap *gap)
{
	int rc = 0, n_pieces = 0;
	struct node *n = stage_file_find(s, id, &rc);
	struct layer *l;

	if (!n)
		return rc;
	l = number ? layer_find(n, number) : n->top;
	if (number && (!l || !l->rec.frozen))
		return -ENOENT;
	if (!l && off < n->rec.blob.key.size)
		set_gap(gap, &n->rec.blob, off, MIN(len, n->rec.blob.key.size - off));
	while (l && n_pieces < PIECES && len > 0 && off < l->size) {
		const struct journal_blob *blob = NULL;
		struct layer *from = NULL;
		uint64_t part = len;

		rc = stage_layer_locate(l, off, &part, &from, &blob);
		if (rc == 0 && from)
			rc = stage_layer_hold(s, from, false);
		if (rc < 0)
			break;
		if (!from) {
			if (n_pieces == 0)
				set_gap(gap, blob, off, part);
			break;
		}
		pieces[n_pieces++] = (struct piece){.layer = from, .off = off, .len = part};
		off += part;
		len -= part;
	}
	return n_pieces ? n_pieces : rc;
}

static ssize_t read_pieces(const struct piece *pieces, int n, char *buf)
{
	ssize_t done = 0;

	for (int i = 0; i < n; i++) {
		ssize_t got = util_pread_all(pieces[i].layer->fd, buf + done, pieces[i].len, pieces[i].off);

		if (got < 0)
			return done ? done : got;
		done += got;
		if ((size_t)got < pieces[i].len)
			break; /* it was cut meanwhile: look again */
	}
	return done;
}

/* A truncate that runs has cut the data file, and has not told so yet. */
static void wait_changed(struct stage *s, uint64_t node)
{
	struct node *n;

	LOCKED(&s->lock);
	while ((n = stage_node_find(s, node)) && n->busy)
		wait_idle(s);
}

static ssize_t read_layer(struct stage *s, uint64_t node, uint32_t number, uint64_t off, void *buf,
                          size_t len, struct stage_gap *gap)
{
	struct piece pieces[PIECES];
	size_t done = 0;
	int stalled = 0;

	len = MIN(len, (size_t)SSIZE_MAX);
	gap->len = 0;
	while (done < len && stalled < 2) {
		struct stage_gap *want = done ? &(struct stage_gap){0} : gap;
		ssize_t got;
		int n;

		lock_take(&s->lock);
		n = collect(s, node, number, off + done, len - done, pieces, want);
		lock_drop(&s->lock);
		if (n <= 0)
			return done ? (ssize_t)done : n;
		got = read_pieces(pieces, n, (char *)buf + done);
		lock_take(&s->lock);
		while (n > 0)
			stage_layer_release(s, pieces[--n].layer);
		lock_drop(&s->lock);
		if (got < 0)
			return done ? (ssize_t)done : got;
		if (!got)
			wait_changed(s, node);
		stalled = got ? 0 : stalled + 1;
		done += (size_t)got;
	}
	if (stalled == 2 && done == 0) {
		log_err("%s/%llu: shorter than it was left", s->place.data, (unsigned long long)node);
		return -EIO;
	}
	return (ssize_t)done;
}

ssize_t stage_read(struct stage *s, uint64_t node, uint64_t off, void *buf, size_t len, struct stage_gap *gap)
{
	return read_layer(s, node, 0, off, buf, len, gap);
}

ssize_t stage_frozen_read(struct stage *s, uint64_t node, uint32_t layer, uint64_t off, void *buf, size_t len,
                          struct stage_gap *gap)
{
	return layer ? read_layer(s, node, layer, off, buf, len, gap) : -EINVAL;
}

int stage_whole_path(struct stage *s, uint64_t node, uint32_t layer, char **ret_path, bool *ret_exists)
{
	LOCKED(&s->lock);
	struct node *n = stage_node_find(s, node);
	struct layer *l = n ? layer_find(n, layer) : NULL;
	char name[STAGE_DATA_NAME_MAX];
	bool own;
	char *path;

	if (!l || !l->rec.frozen)
		return -ENOENT;
	own = stage_ext_whole(l);
	stage_layer_name(node, layer, own ? "" : ".whole", name);
	path = util_printf("%s/%s", s->place.data, name);
	if (!path)
		return -ENOMEM;
	*ret_exists = own || faccessat(s->data_fd, name, F_OK, 0) == 0;
	*ret_path = path;
	return 0;
}
