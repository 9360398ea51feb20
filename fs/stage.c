/* stage: what the user changed in one branch and the Hub does not have yet. Here: the life of a stage, its
 * tables, the states of its files. Names are in stage_name.c, bytes in stage_layer.c, publication in
 * stage_commit.c and stage_settle.c, recovery and the checker in stage_load.c, the tables on
 * disk in stage_journal.c, the folder and its lock in stage_place.c. Not for: what the base holds (tree),
 * what a folder shows (view), when something is published (schedule).
 *
 * Any thread enters; one lock. A change is in the journal before it is in memory, so a call that fails has
 * changed nothing.
 *
 * STATES OF A FILE. On disk: the journal's state (closed, open, interrupted, conflict) and its layers. From
 * that and from who has it open follows what stage_attr says, the first line that fits:
 *
 *     state        on disk      layers  writers  means; how it goes on
 *     -----------  -----------  ------  -------  ------------------------------------------------------
 *     CONFLICT     conflict     any     any      left out until resolved; writes do not change that
 *     INTERRUPTED  interrupted  any     any      a killed thread flushed it, it was open when hugfs
 *                                                died, or power loss took bytes. Its next write or cut:
 *                                                OPEN, or STAGED without a writer
 *     OPEN         open, or     any     > 0      made by an open, and the first write after that or after a
 *                  closed                        flush, put `open` on disk; a flush by the thread that
 *                                                wrote last puts `closed`, so that it counts if hugfs dies
 *                                                (not before the first byte: the kernel flushes then too).
 *                                                Last close: CLEAN or STAGED
 *     CLEAN        closed       0       0        is its committed blob
 *     COMMITTING   closed       >= 1    0        the top layer is held by the commit under way or by an
 *                                                intent
 *     STAGED       closed       >= 1    0        waits for a commit
 *
 * A commit settles COMMITTING: the file leaves the overlay; with writers it loses its layers and stays
 * OPEN; with a newer layer it stays, over the committed blob. stage_open turns `open` into `interrupted`.
 *
 * INVARIANTS (stage_check):
 *
 *   - A node has at most one name, a name at most one node; the root has none. A folder without a name is
 *     gone at once; a file without one lives while it is pinned, has a writer, is being written to or
 *     frozen, or a commit holds a layer of it.
 *   - A file without layers has a blob. Layers are numbered upwards, all but the top one are frozen, and
 *     each lies over nothing, over a blob, or over an older layer of the same file. Frozen bytes never
 *     change, but for `thaw`.
 *   - The exts of a layer are sorted, disjoint, do not touch, and lie below lower_len <= size.
 *   - A HOME file or folder is what its parent's base shows at its name, so a HOME folder has its parent's
 *     kind of base. FOLLOW folders are HOME.
 *   - gen of every row <= gen of the stage; ids of nodes < next_node, which the journal has booked.
 *   - `busy` implies a top layer that is not frozen.
 *
 * While the names of a commit are taken, or an intent is there, a name that is taken away leaves a
 * whiteout, for the commit may bring it. A whiteout that hides nothing is harmless. */
#define LOG_MODULE "stage"

#include "stage_internal.h"

#include <assert.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "log.h"

#define BUCKETS_MIN 64
#define PROMISED_MAX 256 /* files that may wait for the journal's fsync before they are removed */

/* -- tables -- */

static size_t node_bucket(const struct stage *s, uint64_t id)
{
	return (id * 0x9e3779b97f4a7c15u >> 17) & (s->node_buckets - 1);
}

static size_t row_bucket(const struct stage *s, uint64_t dir, const char *name)
{
	return hash_text64(dir, name, strlen(name)) & (s->row_buckets - 1);
}

/* Growing is a matter of speed: without memory the chains get longer. */
static void grow_nodes(struct stage *s)
{
	struct node **old = s->node_table;
	size_t n_old = s->node_buckets;
	struct node **table = s->n_nodes < n_old ? NULL : calloc(n_old * 2, sizeof(*table));

	if (!table)
		return;
	s->node_table = table;
	s->node_buckets = n_old * 2;
	for (size_t i = 0; i < n_old; i++) {
		while (old[i]) {
			struct node *n = old[i];
			size_t to = node_bucket(s, n->rec.id);

			old[i] = n->hash_next;
			n->hash_next = table[to];
			table[to] = n;
		}
	}
	free(old);
}

static void grow_rows(struct stage *s)
{
	struct row **old = s->row_table;
	size_t n_old = s->row_buckets;
	struct row **table = s->n_rows < n_old ? NULL : calloc(n_old * 2, sizeof(*table));

	if (!table)
		return;
	s->row_table = table;
	s->row_buckets = n_old * 2;
	for (size_t i = 0; i < n_old; i++) {
		while (old[i]) {
			struct row *r = old[i];
			size_t to = row_bucket(s, r->dir->rec.id, r->name);

			old[i] = r->hash_next;
			r->hash_next = table[to];
			table[to] = r;
		}
	}
	free(old);
}

struct node *stage_node_find(struct stage *s, uint64_t id)
{
	struct node *n = s->node_table[node_bucket(s, id)];

	while (n && n->rec.id != id)
		n = n->hash_next;
	return n;
}

struct node *stage_file_find(struct stage *s, uint64_t id, int *ret_err)
{
	struct node *n = stage_node_find(s, id);

	if (n && n->rec.kind == STAGE_FILE)
		return n;
	*ret_err = n ? -EISDIR : -ENOENT;
	return NULL;
}

struct node *stage_dir_find(struct stage *s, uint64_t id)
{
	struct node *n = stage_node_find(s, id);

	return n && n->rec.kind == STAGE_DIR ? n : NULL;
}

struct row *stage_row_find(struct stage *s, const struct node *dir, const char *name)
{
	struct row *r = s->row_table[row_bucket(s, dir->rec.id, name)];

	while (r && (r->dir != dir || strcmp(r->name, name) != 0))
		r = r->hash_next;
	return r;
}

struct node *stage_node_new(const struct journal_node *rec)
{
	struct node *n = calloc(1, sizeof(*n));

	if (n)
		n->rec = *rec;
	return n;
}

void stage_node_insert(struct stage *s, struct node *n)
{
	size_t at;

	grow_nodes(s);
	at = node_bucket(s, n->rec.id);
	n->hash_next = s->node_table[at];
	s->node_table[at] = n;
	s->n_nodes++;
	s->n_files += n->rec.kind == STAGE_FILE;
}

static void node_remove(struct stage *s, struct node *n)
{
	struct node **at = &s->node_table[node_bucket(s, n->rec.id)];

	while (*at != n)
		at = &(*at)->hash_next;
	*at = n->hash_next;
	s->n_nodes--;
	s->n_files -= n->rec.kind == STAGE_FILE;
}

void stage_node_free(struct node *n)
{
	while (n->top) {
		struct layer *l = n->top;

		n->top = l->older;
		stage_layer_unref(l);
	}
	free(n->rec.base_path);
	free(n->rec.blob.path);
	free(n);
}

void stage_node_drop(struct stage *s, struct node *n)
{
	assert(!n->row && !n->busy);
	node_remove(s, n);
	while (n->top) {
		struct layer *l = n->top;

		n->top = l->older;
		stage_layer_drop(s, l);
	}
	stage_node_free(n);
}

struct row *stage_row_new(const char *name)
{
	size_t len = strlen(name) + 1;
	struct row *r = calloc(1, sizeof(*r) + len);

	if (r)
		memcpy(r->name, name, len);
	return r;
}

bool stage_is_follow(const struct node *n)
{
	return n && n->rec.kind == STAGE_DIR && n->rec.base == STAGE_BASE_FOLLOW;
}

bool stage_is_nothing(const struct node *n)
{
	return stage_is_follow(n) && !(n->rec.flags & JOURNAL_KEEP);
}

void stage_row_set(struct stage *s, struct row *row, struct node *node, uint64_t gen)
{
	s->n_follow -= stage_is_nothing(row->node);
	if (row->node)
		row->node->row = NULL;
	row->node = node;
	row->gen = gen;
	if (node)
		node->row = row;
	s->n_follow += stage_is_nothing(node);
}

void stage_row_attach(struct stage *s, struct node *dir, struct row *row, struct node *node, uint64_t gen)
{
	size_t at;

	grow_rows(s);
	at = row_bucket(s, dir->rec.id, row->name);
	row->hash_next = s->row_table[at];
	s->row_table[at] = row;
	row->dir = dir;
	row->next = dir->rows;
	if (row->next)
		row->next->prev = row;
	dir->rows = row;
	dir->n_rows++;
	s->n_rows++;
	stage_row_set(s, row, node, gen);
}

void stage_row_detach(struct stage *s, struct row *row)
{
	struct row **at = &s->row_table[row_bucket(s, row->dir->rec.id, row->name)];

	stage_row_set(s, row, NULL, 0);
	while (*at != row)
		at = &(*at)->hash_next;
	*at = row->hash_next;
	if (row->prev)
		row->prev->next = row->next;
	else
		row->dir->rows = row->next;
	if (row->next)
		row->next->prev = row->prev;
	row->dir->n_rows--;
	s->n_rows--;
	free(row);
}

void stage_node_set_base(struct stage *s, struct node *n, enum stage_base_kind kind, const char *commit,
                         char *path)
{
	bool named = n->row != NULL;

	s->n_follow -= named && stage_is_nothing(n);
	n->rec.base = kind;
	snprintf(n->rec.base_commit, sizeof(n->rec.base_commit), "%s", commit ? commit : "");
	free(n->rec.base_path);
	n->rec.base_path = path;
	s->n_follow += named && stage_is_nothing(n);
}

void stage_node_set_flags(struct stage *s, struct node *n, unsigned flags)
{
	bool named = n->row != NULL;

	s->n_follow -= named && stage_is_nothing(n);
	n->rec.flags = flags;
	s->n_follow += named && stage_is_nothing(n);
}

static int row_path(const struct row *row, char **ret)
{
	size_t len = 0;
	char *path, *at;

	for (const struct row *r = row; r; r = r->dir->row)
		len += strlen(r->name) + 1;
	path = malloc(len + 1);
	if (!path)
		return -ENOMEM;
	at = path + len;
	*at = '\0';
	for (const struct row *r = row; r; r = r->dir->row) {
		size_t part = strlen(r->name);

		at -= part;
		memcpy(at, r->name, part);
		*--at = '/';
	}
	memmove(path, path + 1, len);
	*ret = path;
	return 0;
}

int stage_node_path(const struct node *n, char **ret)
{
	if (n->rec.id != STAGE_ROOT)
		return n->row ? row_path(n->row, ret) : -ENOENT;
	*ret = strdup("");
	return *ret ? 0 : -ENOMEM;
}

int stage_base_path(const struct node *dir, char **ret)
{
	if (dir->rec.base != STAGE_BASE_PINNED)
		return stage_node_path(dir, ret);
	*ret = strdup(dir->rec.base_path);
	return *ret ? 0 : -ENOMEM;
}

/* -- states -- */

struct timespec stage_mtime_after(struct timespec old)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	if (now.tv_sec > old.tv_sec || (now.tv_sec == old.tv_sec && now.tv_nsec > old.tv_nsec))
		return now;
	/* The clock of who wrote it last was ahead: a rewrite must still be seen by those who compare
	 * times. */
	if (++old.tv_nsec == 1000000000) {
		old.tv_nsec = 0;
		old.tv_sec++;
	}
	return old;
}

static enum stage_state node_state(const struct node *n)
{
	if (stage_in_conflict(n))
		return STAGE_CONFLICT;
	if (n->rec.state == JOURNAL_INTERRUPTED)
		return STAGE_INTERRUPTED;
	if (n->writers)
		return STAGE_OPEN;
	if (!n->top)
		return STAGE_CLEAN;
	return n->top->held & (HELD_COMMIT | HELD_INTENT) ? STAGE_COMMITTING : STAGE_STAGED;
}

bool stage_node_unchanged(const struct node *n)
{
	return n->rec.kind == STAGE_FILE && n->row && !n->top && (n->rec.flags & JOURNAL_HOME);
}

bool stage_node_idle(const struct node *n)
{
	return n->rec.kind == STAGE_FILE && !n->pins && !n->writers && !n->busy && !n->freezers;
}

bool stage_node_unused(const struct node *n)
{
	if (n->before)
		return false;
	for (const struct layer *l = n->top; l; l = l->older) {
		if (l->held & (HELD_COMMIT | HELD_INTENT))
			return false;
	}
	return stage_node_idle(n);
}

void stage_node_attr(const struct node *n, struct stage_attr *ret)
{
	*ret = (struct stage_attr){
		.kind = n->rec.kind,
		.state = n->rec.kind == STAGE_FILE ? node_state(n)
		         : stage_in_conflict(n)     ? STAGE_CONFLICT
		                                    : STAGE_CLEAN,
		.mode = n->rec.mode,
		.has_mode = n->rec.flags & JOURNAL_HAS_MODE,
		.has_owner = n->rec.flags & JOURNAL_HAS_OWNER,
		.has_mtime = n->rec.kind == STAGE_FILE || (n->rec.flags & JOURNAL_HAS_MTIME),
		.uid = n->rec.uid,
		.gid = n->rec.gid,
		.mtime = n->rec.mtime,
	};
	if (n->top) {
		ret->size = n->top->size;
	} else if (n->rec.has_blob) {
		ret->size = n->rec.blob.key.size;
		ret->is_blob = true;
		ret->blob = n->rec.blob.key;
	}
}

int stage_node_save(struct stage *s, struct node *n, const struct journal_node *next)
{
	int rc;

	journal_begin(s->journal);
	journal_put_node(s->journal, next);
	rc = journal_end(s->journal);
	if (rc == 0) {
		n->rec = *next;
		n->unsaved = false;
	}
	return rc;
}

/* What is there counts as closed if hugfs dies now. */
static int save_closed(struct stage *s, struct node *n)
{
	struct journal_node next = n->rec;
	int rc;

	if (next.state == JOURNAL_OPEN)
		next.state = JOURNAL_CLOSED;
	journal_begin(s->journal);
	if (n->top && !n->top->rec.frozen) {
		struct journal_layer top = n->top->rec;

		top.size = n->top->size;
		top.synced = n->top->durable;
		journal_put_layer(s->journal, &top);
	}
	journal_put_node(s->journal, &next);
	rc = journal_end(s->journal);
	if (rc < 0)
		return rc;
	if (n->top && !n->top->rec.frozen) {
		n->top->rec.size = n->top->size;
		n->top->rec.synced = n->top->durable;
		s->unsynced = s->unsynced || !n->top->durable;
	}
	n->closed_ms = util_now_ms();
	n->rec = next;
	n->unsaved = false;
	return 0;
}

void stage_node_closed(struct stage *s, struct node *n)
{
	n->changed = false;
	if ((n->rec.state == JOURNAL_OPEN || n->unsaved) && save_closed(s, n) < 0) {
		/* Nobody can be told. If hugfs dies before the next try, the file is found interrupted. */
		if (n->rec.state == JOURNAL_OPEN)
			n->rec.state = JOURNAL_CLOSED;
		n->unsaved = true;
		return;
	}
	stage_become_blob(s, n);
}

void stage_journal_drop_unchanged(struct stage *s, const struct node *n, struct stage_changes *kept)
{
	struct stage_attr attr;
	int rc;

	journal_del_name(s->journal, n->row->dir->rec.id, n->row->name);
	journal_del_node(s->journal, n->rec.id);
	if (!(n->rec.flags & JOURNAL_TOLD) || !n->rec.blob.path)
		return;
	stage_node_attr(n, &attr);
	rc = stage_changes_put(kept, n->rec.blob.path, &n->rec.blob.key, &attr);
	if (rc < 0)
		journal_fail(s->journal, rc);
}

void stage_node_reap(struct stage *s, struct node *n)
{
	struct stage_changes kept = {0};
	bool unchanged = stage_node_unchanged(n);

	if ((n->row && !unchanged) || n->stuck || !stage_node_unused(n))
		return;
	journal_begin(s->journal);
	if (unchanged)
		stage_journal_drop_unchanged(s, n, &kept);
	else
		journal_del_node(s->journal, n->rec.id);
	stage_changes_journal(s, &kept);
	if (journal_end(s->journal) < 0) {
		stage_changes_fini(&kept);
		n->stuck = !unchanged; /* the next stage_open does it */
		return;
	}
	stage_changes_apply(s, &kept);
	if (unchanged)
		stage_row_detach(s, n->row);
	stage_node_drop(s, n);
}

void stage_reap_all(struct stage *s)
{
	for (size_t i = 0; i < s->node_buckets; i++) {
		struct node *next;

		for (struct node *n = s->node_table[i]; n; n = next) {
			next = n->hash_next;
			if (n->rec.kind == STAGE_FILE)
				stage_node_reap(s, n);
		}
	}
}

int stage_attr(struct stage *s, uint64_t node, struct stage_attr *ret)
{
	LOCKED(&s->lock);
	struct node *n = stage_node_find(s, node);

	if (!n)
		return -ENOENT;
	stage_node_attr(n, ret);
	ret->blocks = stage_layer_blocks(s, n->top, ret->size);
	return 0;
}

int stage_setattr(struct stage *s, uint64_t node, unsigned what, const struct stage_attr *attr)
{
	LOCKED(&s->lock);
	struct node *n = stage_node_find(s, node);
	struct journal_node next;

	if (!n)
		return -ENOENT;
	next = n->rec;
	next.flags |= JOURNAL_TOLD;
	if (what & STAGE_SET_MODE) {
		next.flags |= JOURNAL_HAS_MODE;
		next.mode = attr->mode & 07777;
	}
	if (what & STAGE_SET_OWNER) {
		next.flags |= JOURNAL_HAS_OWNER;
		next.uid = attr->uid;
		next.gid = attr->gid;
	}
	if (what & STAGE_SET_MTIME) {
		next.flags |= JOURNAL_HAS_MTIME;
		next.mtime = attr->mtime;
	}
	return stage_node_save(s, n, &next);
}

int stage_pin(struct stage *s, uint64_t node)
{
	LOCKED(&s->lock);
	struct node *n = stage_node_find(s, node);

	if (!n)
		return -ENOENT;
	n->pins++;
	return 0;
}

void stage_unpin(struct stage *s, uint64_t node)
{
	{
		LOCKED(&s->lock);
		struct node *n = stage_node_find(s, node);

		if (!n) /* a folder that was removed */
			return;
		assert(n->pins > 0);
		n->pins--;
		stage_layer_close_idle(n);
		if (n->rec.kind == STAGE_FILE)
			stage_node_reap(s, n);
	}
	(void)stage_housekeep(s, false);
}

int stage_writer_open(struct stage *s, uint64_t node)
{
	LOCKED(&s->lock);
	int rc = 0;
	struct node *n = stage_file_find(s, node, &rc);

	if (!n)
		return rc;
	if (n->writers++ == 0) {
		n->last_pid = 0;
		n->written = false;
		n->appended = true;
	}
	return 0;
}

static int interrupt_file(struct stage *s, struct node *n)
{
	struct journal_node next = n->rec;
	int rc;

	next.state = JOURNAL_INTERRUPTED;
	rc = stage_node_save(s, n, &next);
	if (rc < 0) { /* on disk it is open still, which comes to the same */
		n->rec.state = JOURNAL_INTERRUPTED;
		n->unsaved = true;
	}
	return rc;
}

int stage_writer_flush(struct stage *s, uint64_t node, pid_t pid, bool killed)
{
	LOCKED(&s->lock);
	int rc = 0;
	struct node *n = stage_file_find(s, node, &rc);

	if (!n)
		return rc;
	if (killed && n->writers && n->changed && n->rec.state != JOURNAL_CONFLICT)
		return interrupt_file(s, n);
	/* What was only made or cut since it was opened may wait for its first byte: a shell's `cmd > file` closes a copy of its
	 * descriptor before cmd runs. RELEASE tells. */
	if (killed || !n->writers || n->busy || !n->written || (n->last_pid && n->last_pid != pid))
		return 0;
	if (n->rec.state == JOURNAL_OPEN)
		rc = save_closed(s, n);
	return rc < 0 ? rc : n->changed && n->last_pid == pid;
}

void stage_writer_close(struct stage *s, uint64_t node)
{
	{
		LOCKED(&s->lock);
		int err = 0;
		struct node *n = stage_file_find(s, node, &err);

		if (!n)
			return;
		assert(n->writers > 0);
		if (--n->writers == 0 && !n->busy) /* else the one that is writing does it */
			stage_node_closed(s, n);
		stage_layer_close_idle(n);
		stage_node_reap(s, n);
	}
	(void)stage_housekeep(s, false);
}

void stage_writer_end(struct stage *s, uint64_t node)
{
	{
		LOCKED(&s->lock);
		int err = 0;
		struct node *n = stage_file_find(s, node, &err);

		if (n && n->changed && n->rec.state == JOURNAL_OPEN && interrupt_file(s, n) < 0)
			log_err("%s: a file that was open cannot be marked as interrupted", s->place.data);
	}
	stage_writer_close(s, node);
}

/* -- what there is -- */

bool stage_empty(struct stage *s)
{
	LOCKED(&s->lock);

	return s->n_rows == s->n_follow && s->n_files == 0 && !s->has_intent && s->tx == STAGE_TX_NONE;
}

void stage_parent(struct stage *s, char ret[41])
{
	LOCKED(&s->lock);

	memcpy(ret, s->parent, sizeof(s->parent));
}

int stage_set_parent(struct stage *s, const char *commit)
{
	LOCKED(&s->lock);
	int rc;

	if (strlen(commit) >= sizeof(s->parent))
		return -EINVAL;
	journal_begin(s->journal);
	journal_put_meta(s->journal, "parent", commit);
	rc = journal_end(s->journal);
	if (rc == 0)
		snprintf(s->parent, sizeof(s->parent), "%s", commit);
	return rc;
}

int stage_note_put(struct stage *s, const char *key, const char *value)
{
	LOCKED(&s->lock);

	journal_begin(s->journal);
	journal_put_meta(s->journal, key, value);
	return journal_end(s->journal);
}

int stage_note_get(struct stage *s, const char *key, char **ret)
{
	LOCKED(&s->lock);
	int rc = journal_get_meta(s->journal, key, ret);

	if (rc != -ENOENT)
		return rc;
	*ret = strdup("");
	return *ret ? 0 : -ENOMEM;
}

static void count_row(const struct row *row, struct stage_counts *to)
{
	const struct node *n = row->node;

	to->conflicts += row->conflict || (n && n->rec.state == JOURNAL_CONFLICT);
	if (!n) {
		to->deletions++;
		return;
	}
	if (n->rec.kind == STAGE_DIR) {
		for (const struct row *r = n->rows; r; r = r->next)
			count_row(r, to);
		return;
	}
	to->open += n->writers > 0;
	to->unfinished += n->writers > 0 && !stage_node_unchanged(n);
	to->interrupted += n->rec.state == JOURNAL_INTERRUPTED;
	to->files += !stage_node_unchanged(n);
	to->bytes += n->top ? stage_layer_bytes(n->top) : 0;
}

void stage_counts(struct stage *s, struct stage_counts *ret)
{
	LOCKED(&s->lock);

	*ret = (struct stage_counts){0};
	for (const struct row *r = s->root->rows; r; r = r->next)
		count_row(r, ret);
}

static int each_below(const struct node *dir, const char *at, stage_each_fn each, void *arg)
{
	int rc = 0;

	for (const struct row *r = dir->rows; r && rc == 0; r = r->next) {
		AUTO_FREE char *path = util_printf("%s%s%s", at, *at ? "/" : "", r->name);
		struct stage_attr attr = {
			.kind = STAGE_WHITEOUT, .state = r->conflict ? STAGE_CONFLICT : STAGE_CLEAN,
		};

		if (!path)
			return -ENOMEM;
		if (r->node)
			stage_node_attr(r->node, &attr);
		if (r->node && !(r->node->rec.flags & JOURNAL_HOME))
			attr.from = r->node->rec.kind == STAGE_DIR ? r->node->rec.base_path
			            : r->node->rec.has_blob      ? r->node->rec.blob.path
			                                         : NULL;
		if (!r->node || !(r->node->rec.flags & JOURNAL_HOME) || r->node->top)
			rc = each(arg, path, &attr);
		if (rc == 0 && r->node && r->node->rec.kind == STAGE_DIR)
			rc = each_below(r->node, path, each, arg);
	}
	return rc;
}

int stage_each(struct stage *s, stage_each_fn each, void *arg)
{
	LOCKED(&s->lock);

	return each_below(s->root, "", each, arg);
}

/* -- removing files of layers -- */

void stage_layer_drop(struct stage *s, struct layer *l)
{
	bool promised = l->synced || l->rec.synced; /* a power failure would miss its bytes */

	if (s->n_trash == s->cap_trash) {
		size_t cap = s->cap_trash ? s->cap_trash * 2 : 16;
		struct trash *more = reallocarray(s->trash, cap, sizeof(*more));

		if (more) {
			s->trash = more;
			s->cap_trash = cap;
		}
	}
	if (s->n_trash < s->cap_trash) {
		s->trash[s->n_trash++] = (struct trash){l->rec.node, l->rec.layer, promised};
		s->n_promised += promised;
	}
	l->older = NULL;
	stage_layer_unref(l);
}

int stage_housekeep(struct stage *s, bool flush)
{
	AUTO_FREE struct trash *gone = NULL;
	size_t n_gone = 0;
	bool due;
	int rc;

	{
		LOCKED(&s->lock);
		flush = flush || s->n_promised > PROMISED_MAX;
		due = journal_is_due(s->journal);
		if (s->n_trash > (flush ? 0 : s->n_promised))
			gone = reallocarray(NULL, s->n_trash, sizeof(*gone));
		if (gone) {
			size_t kept = 0;

			for (size_t i = 0; i < s->n_trash; i++) {
				if (s->trash[i].promised && !flush)
					s->trash[kept++] = s->trash[i];
				else
					gone[n_gone++] = s->trash[i];
			}
			s->n_trash = s->n_promised = kept;
		}
	}
	rc = flush ? journal_flush(s->journal) : 0;
	for (size_t i = 0; i < n_gone; i++) {
		if (rc == 0 || !gone[i].promised)
			stage_layer_unlink(s, gone[i].node, gone[i].layer);
	}
	if (due)
		journal_checkpoint(s->journal);
	return rc;
}

/* -- opening -- */

static int write_ident(struct stage *s, const struct stage_ident *ident)
{
	AUTO_FREE char *machine = stage_place_machine();
	char repo[REPO_TEXT_MAX];
	int rc;

	if (!machine)
		return -ENOMEM;
	repo_text(&ident->repo, repo);
	journal_begin(s->journal);
	journal_put_meta(s->journal, "endpoint", ident->endpoint);
	journal_put_meta(s->journal, "type", repo_type_name(ident->repo.type));
	journal_put_meta(s->journal, "repo", repo);
	journal_put_meta(s->journal, "rev", ident->rev);
	journal_put_meta(s->journal, "internal_id", ident->internal_id ? ident->internal_id : "");
	journal_put_meta(s->journal, "machine", machine);
	rc = journal_end(s->journal);
	return rc < 0 ? rc : journal_flush(s->journal);
}

/* Is it still the repository that the changes were made in? */
static int check_ident(struct stage *s, const struct stage_ident *ident)
{
	AUTO_FREE char *there = NULL;
	int rc = journal_get_meta(s->journal, "internal_id", &there);

	if (rc == -ENOENT)
		return write_ident(s, ident);
	if (rc < 0 || !ident->internal_id || strcmp(there, ident->internal_id) == 0)
		return rc;
	if (!*there)
		return write_ident(s, ident);
	if (!*ident->internal_id)
		return 0;
	log_err("%s was staged for another repository of that name, which is gone: move that folder away",
	        s->place.dir);
	return -ESTALE;
}

static void stage_free(struct stage *s, bool remove)
{
	journal_close(s->journal);
	for (size_t i = 0; i < s->row_buckets; i++) {
		while (s->row_table[i]) {
			struct row *r = s->row_table[i];

			s->row_table[i] = r->hash_next;
			free(r);
		}
	}
	for (size_t i = 0; i < s->node_buckets; i++) {
		while (s->node_table[i]) {
			struct node *n = s->node_table[i];

			s->node_table[i] = n->hash_next;
			stage_node_free(n);
		}
	}
	free(s->row_table);
	free(s->node_table);
	free(s->trash);
	stage_locals_free(s->locals);
	util_closep(&s->data_fd);
	stage_place_close(&s->place, remove);
	cond_fini(&s->idle);
	lock_fini(&s->lock);
	free(s);
}

int stage_open(const char *root, const struct stage_ident *ident, bool create, struct stage **ret)
{
	struct stage *s = calloc(1, sizeof(*s));
	bool fresh = false;
	int rc;

	if (!s)
		return -ENOMEM;
	lock_init(&s->lock, LOCK_STAGE);
	cond_init(&s->idle);
	s->place.lock_fd = s->data_fd = -1;
	rc = stage_place_open(root, ident, create, &s->place);
	if (rc == 0) {
		s->node_table = calloc(BUCKETS_MIN, sizeof(struct node *));
		s->row_table = calloc(BUCKETS_MIN, sizeof(struct row *));
		s->node_buckets = s->node_table ? BUCKETS_MIN : 0;
		s->row_buckets = s->row_table ? BUCKETS_MIN : 0;
		s->locals = stage_locals_new();
		rc = s->node_buckets && s->row_buckets && s->locals ? 0 : -ENOMEM;
	}
	if (rc == 0) {
		s->data_fd = open(s->place.data, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		rc = s->data_fd < 0 ? -errno : journal_open(s->place.dir, create, &s->journal, &fresh);
	}
	if (rc == 0)
		rc = fresh ? write_ident(s, ident) : check_ident(s, ident);
	if (rc == 0 && fresh)
		rc = stage_place_sync(&s->place);
	if (rc == 0)
		rc = stage_load(s);
	if (rc < 0) {
		stage_free(s, fresh);
		return rc;
	}
	*ret = s;
	return 0;
}

/* Ends what was open of a file that needs no room: as the next stage_open would. */
static void close_file(struct stage *s, struct node *n)
{
	assert(!n->busy && !n->freezers);
	n->pins = n->writers = 0;
	for (struct layer *l = n->top; l; l = l->older)
		l->held = 0;
	stage_node_reap(s, n);
}

void stage_close(struct stage *s)
{
	bool nothing;

	if (!s)
		return;
	if (stage_sync_behind(s, 0) < 0)
		log_warn("%s: a power failure may cost what was written last", s->place.dir);
	lock_take(&s->lock);
	for (size_t i = 0; i < s->node_buckets; i++) {
		struct node *next;

		for (struct node *n = s->node_table[i]; n; n = next) {
			next = n->hash_next;
			if (n->rec.kind == STAGE_FILE && (!n->row || stage_node_unchanged(n)))
				close_file(s, n);
		}
	}
	if (stage_prune(s) < 0 || stage_locals_save(s) < 0)
		log_warn("%s: the newest times of folders are lost", s->place.dir);
	nothing = s->n_rows == s->n_follow && !s->has_intent && s->tx == STAGE_TX_NONE && stage_locals_count(s->locals) == 0;
	lock_drop(&s->lock);
	(void)stage_housekeep(s, true);
	stage_free(s, nothing);
}
