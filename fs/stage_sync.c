/* stage_sync: which staged bytes are on stable storage: fsync, and the same behind closed files. Not for the
 * bytes themselves (stage_layer.c) nor for the journal's log (stage_journal.c).
 *
 * The journal says of a layer `synced` when all its bytes and its extent log are on stable storage. After the
 * death of hugfs that is no matter, for the kernel has the bytes. After a power failure (the journal was used
 * last under another boot id) a layer that is not synced is in doubt, though its size be right: its file is
 * interrupted then, kept and not published. So that this is rare, closed files are synced soon after.
 *
 * Order: bytes, their folder, the journal's row, its flush. The first change of a synced layer takes the row back
 * and waits for that (stage_layer.c), before a byte changes. While a file is open for writing the journal says
 * so, which is as good; `synced` is not set then, so that a program that writes and syncs in turn pays once.
 *
 * A layer's `changes` counts its changes; it is durable when they were all synced. */
#define LOG_MODULE "stage_sync"

#include "stage_internal.h"

#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "log.h"

#define EACH_MAX 64 /* files that are synced one by one; more of them by one call for the whole filesystem */

/* A layer as it was when its sync began. */
struct item {
	uint64_t node;
	uint32_t layer;
	unsigned changes;
	int fd, log_fd; /* our own; -1: none */
};
struct items {
	struct item *item;
	size_t n, cap;
};

static void items_fini(struct items *t)
{
	for (size_t i = 0; i < t->n; i++) {
		util_closep(&t->item[i].fd);
		util_closep(&t->item[i].log_fd);
	}
	free(t->item);
}

static int dup_fd(int fd, int *ret)
{
	*ret = fcntl(fd, F_DUPFD_CLOEXEC, 3);
	return *ret < 0 ? -errno : 0;
}

static int add_layer(struct stage *s, struct layer *l, bool open, struct items *to)
{
	bool log = l->rec.lower != JOURNAL_OVER_NONE;
	struct item *it;
	int rc = 0;

	if (to->n == to->cap) {
		size_t cap = to->cap ? to->cap * 2 : 16;
		struct item *more = reallocarray(to->item, cap, sizeof(*more));

		if (!more)
			return -ENOMEM;
		to->item = more;
		to->cap = cap;
	}
	it = &to->item[to->n++];
	*it = (struct item){
		.node = l->rec.node, .layer = l->rec.layer, .changes = l->changes, .fd = -1, .log_fd = -1};
	if (!open)
		return 0;
	rc = stage_layer_hold(s, l, log);
	if (rc < 0)
		return rc;
	rc = dup_fd(l->fd, &it->fd);
	if (rc == 0 && log)
		rc = dup_fd(l->log_fd, &it->log_fd);
	stage_layer_release(s, l);
	return rc;
}

static int sync_items(struct stage *s, const struct items *t)
{
	for (size_t i = 0; i < t->n; i++) {
		if (fdatasync(t->item[i].fd) < 0 || (t->item[i].log_fd >= 0 && fdatasync(t->item[i].log_fd) < 0))
			return -errno;
	}
	return t->n && fsync(s->data_fd) < 0 ? -errno : 0;
}

/* The layer, if it is still as it was synced. */
static struct layer *find_layer(struct stage *s, const struct item *it, bool *ret_open)
{
	struct node *n = stage_node_find(s, it->node);
	struct layer *l = n ? n->top : NULL;

	while (l && l->rec.layer != it->layer)
		l = l->older;
	if (!l || l->changes != it->changes)
		return NULL;
	*ret_open = !l->rec.frozen && n->rec.state == JOURNAL_OPEN;
	return l;
}

/* What was synced is noted, as far as nothing changed meanwhile; on disk for files that are closed. */
static int note_synced(struct stage *s, const struct items *t)
{
	LOCKED(&s->lock);
	int rc;

	journal_begin(s->journal);
	for (size_t i = 0; i < t->n; i++) {
		bool open;
		struct layer *l = find_layer(s, &t->item[i], &open);
		struct journal_layer rec;

		if (!l)
			continue;
		l->durable = true;
		rec = l->rec;
		rec.synced = true;
		if (!l->rec.synced && !open)
			journal_put_layer(s->journal, &rec);
	}
	rc = journal_end(s->journal);
	for (size_t i = 0; rc == 0 && i < t->n; i++) {
		bool open;
		struct layer *l = find_layer(s, &t->item[i], &open);

		if (l && !open)
			l->rec.synced = true;
	}
	return rc;
}

/* -- fsync -- */

static int collect_file(struct stage *s, uint64_t node, struct items *to)
{
	LOCKED(&s->lock);
	struct node *n = stage_node_find(s, node);
	struct journal_node same;
	int rc;

	if (!n)
		return -ENOENT;
	if (!n->top)
		return 0;
	stage_freeze_enter(s, n);
	same = n->rec;
	rc = stage_node_save(s, n, &same); /* its mtime of now */
	for (struct layer *l = n->top; rc == 0 && l; l = l->below) {
		l->synced = true;
		rc = add_layer(s, l, true, to);
	}
	stage_freeze_leave(s, n);
	return rc;
}

int stage_sync(struct stage *s, uint64_t node)
{
	CLEANUP(items_fini) struct items items = {0};
	int rc = collect_file(s, node, &items);

	if (rc == -ENOENT)
		return rc;
	if (rc == 0)
		rc = sync_items(s, &items);
	if (rc == 0 && items.n)
		rc = note_synced(s, &items);
	if (rc < 0) {
		log_err("%s: fsync of file %llu: %s", s->place.data, (unsigned long long)node, strerror(-rc));
		return rc;
	}
	return stage_housekeep(s, true);
}

/* -- behind closed files -- */

static bool is_due(const struct node *n, int64_t before_ms)
{
	return n->rec.kind == STAGE_FILE && n->row && !n->writers && !n->busy && !n->freezers &&
	        n->rec.state != JOURNAL_OPEN && n->closed_ms <= before_ms;
}

/* Layers that wait, of files that are due. each: with descriptors; -E2BIG when they are too many for that. */
static int collect_closed(struct stage *s, int64_t before_ms, bool each, struct items *to)
{
	LOCKED(&s->lock);
	bool left = false;
	int rc = 0;

	if (!s->unsynced)
		return 0;
	for (size_t i = 0; i < s->node_buckets; i++) {
		for (struct node *n = s->node_table[i]; n; n = n->hash_next) {
			for (struct layer *l = n->top; rc == 0 && l; l = l->older) {
				left = left || !l->rec.synced;
				if (l->rec.synced || !is_due(n, before_ms))
					continue;
				rc = each && to->n == EACH_MAX ? -E2BIG : add_layer(s, l, each, to);
			}
			stage_layer_close_idle(n);
			if (rc < 0)
				return rc;
		}
	}
	s->unsynced = left;
	return 0;
}

static bool has_trash(struct stage *s)
{
	LOCKED(&s->lock);

	return s->n_trash > 0;
}

int stage_sync_behind(struct stage *s, int age_ms)
{
	CLEANUP(items_fini) struct items each = {0};
	CLEANUP(items_fini) struct items all = {0};
	int64_t before_ms = util_now_ms() - age_ms;
	struct items *items = &each;
	int rc = collect_closed(s, before_ms, true, &each);

	if (rc == -E2BIG) {
		items = &all;
		rc = collect_closed(s, before_ms, false, &all);
		if (rc == 0 && syncfs(s->data_fd) < 0)
			rc = -errno;
	} else if (rc == 0) {
		rc = sync_items(s, &each);
	}
	if (rc == 0 && items->n)
		rc = note_synced(s, items);
	/* Also for what waits until the journal forgets it durably before it is removed. */
	if (rc == 0 && (items->n || has_trash(s)))
		rc = stage_housekeep(s, true);
	if (rc < 0)
		log_warn("%s: closed files cannot be synced: %s", s->place.data, strerror(-rc));
	return rc;
}
