/* stage_load: a stage as the journal has it comes into memory, and what was under way when hugfs died is
 * made good. Also the checker of the invariants at the head of stage.c. Not for the formats of rows
 * (stage_journal.c) or extents (stage_layer.c).
 *
 * Runs in stage_open, alone. A journal that contradicts itself is refused with -EIO and left as it is.
 *
 * Recovery, one transaction: a file without a name goes; an unchanged file loses its row; one that was
 * open, or whose data is not as the journal says or in doubt (power loss), is interrupted; FOLLOW folders that say
 * nothing go. When that is on stable storage, files in the data folder that nothing refers to are removed. */
#define LOG_MODULE "stage_load"

#include "stage_internal.h"

#include <assert.h>
#include <dirent.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "log.h"

/* -- rows into structs -- */

static int load_node(void *arg, struct journal_node *rec)
{
	struct stage *s = arg;
	struct node *n;

	if (rec->id == STAGE_ROOT) { /* it has a row once something was told about it */
		if (rec->kind != STAGE_DIR || rec->base != STAGE_BASE_FOLLOW)
			return -EIO;
		s->root->rec = *rec;
		return 0;
	}
	n = stage_node_new(rec);
	if (!n)
		return -ENOMEM;
	rec->base_path = rec->blob.path = NULL;
	stage_node_insert(s, n);
	s->next_node = MAX(s->next_node, n->rec.id + 1);
	return 0;
}

static int load_layer(void *arg, struct journal_layer *rec)
{
	struct stage *s = arg;
	struct node *n = stage_node_find(s, rec->node);
	struct layer *l, *below = NULL;

	if (!n || n->rec.kind != STAGE_FILE || rec->layer > n->rec.last_layer ||
	    (n->top && !n->top->rec.frozen))
		return -EIO;
	if (rec->lower == JOURNAL_OVER_LAYER) {
		for (below = n->top; below && below->rec.layer != rec->lower_layer; below = below->older)
			;
		if (!below)
			return -EIO;
	}
	l = stage_layer_alloc(rec);
	if (!l)
		return -ENOMEM;
	rec->blob.path = NULL;
	if (below) {
		l->below = below;
		below->refs++;
	}
	stage_layer_push(n, l);
	return stage_layer_load(s, l, n->rec.state == JOURNAL_CLOSED);
}

static int load_name(void *arg, uint64_t parent, const char *name, uint64_t node, uint64_t gen)
{
	struct stage *s = arg;
	struct node *dir = stage_dir_find(s, parent);
	struct node *n = node ? stage_node_find(s, node) : NULL;
	struct row *row;

	if (!dir || stage_check_name(name) < 0 || (node && (!n || n->row || node == STAGE_ROOT)))
		return -EIO;
	row = stage_row_new(name);
	if (!row)
		return -ENOMEM;
	stage_row_attach(s, dir, row, n, gen);
	s->gen = MAX(s->gen, gen);
	return 0;
}

static int load_conflict(void *arg, uint64_t parent, const char *name)
{
	struct stage *s = arg;
	struct node *dir = stage_dir_find(s, parent);
	struct row *row = dir ? stage_row_find(s, dir, name) : NULL;

	if (!row)
		return -EIO;
	row->conflict = true;
	return 0;
}

static int load_local(void *arg, struct journal_local *rec)
{
	struct stage *s = arg;

	return stage_locals_load(s->locals, rec);
}

static int make_root(struct stage *s)
{
	struct journal_node rec = {
		.id = STAGE_ROOT,
		.kind = STAGE_DIR,
		.base = STAGE_BASE_FOLLOW,
		.flags = JOURNAL_HOME,
	};
	struct node *root = stage_node_new(&rec);

	if (!root)
		return -ENOMEM;
	stage_node_insert(s, root);
	s->root = root;
	return 0;
}

static size_t count_named(const struct node *dir)
{
	size_t n = 0;

	for (const struct row *r = dir->rows; r; r = r->next) {
		if (r->node)
			n += 1 + count_named(r->node);
	}
	return n;
}

/* Everything with a name hangs below the root, every file has bytes. */
static int check_loaded(struct stage *s)
{
	size_t named = 0;

	for (size_t i = 0; i < s->node_buckets; i++) {
		for (const struct node *n = s->node_table[i]; n; n = n->hash_next) {
			named += n->row != NULL;
			if (n->rec.kind == STAGE_FILE ? !n->top && !n->rec.has_blob : !n->row && n != s->root)
				return -EIO;
		}
	}
	return named == count_named(s->root) ? 0 : -EIO;
}

/* -- what is not a row -- */

/* Was the machine started anew since the journal was used last? Unless that was told (an older hugfs), it was not. */
static int load_boot(struct stage *s)
{
	AUTO_FREE char *then = NULL, *now = NULL;
	size_t len;
	int rc = journal_get_meta(s->journal, "boot", &then);

	if (rc < 0 && rc != -ENOENT)
		return rc;
	rc = util_read_file("/proc/sys/kernel/random/boot_id", sizeof(s->boot) - 1, &now, &len);
	if (rc < 0) {
		log_warn("/proc/sys/kernel/random/boot_id: %s: a power failure will not be noticed", strerror(-rc));
		return 0;
	}
	snprintf(s->boot, sizeof(s->boot), "%.*s", (int)strcspn(now, "\n"), now);
	s->power_failed = then && strcmp(then, s->boot) != 0;
	return 0;
}

static int load_meta(struct stage *s)
{
	AUTO_FREE char *parent = NULL;
	AUTO_FREE char *next = NULL;
	int rc = journal_get_meta(s->journal, "parent", &parent);

	if (rc < 0 && rc != -ENOENT)
		return rc;
	if (parent && strlen(parent) >= sizeof(s->parent))
		return -EIO;
	snprintf(s->parent, sizeof(s->parent), "%s", parent ? parent : "");
	rc = journal_get_meta(s->journal, "next_node", &next);
	if (rc < 0 && rc != -ENOENT)
		return rc;
	/* Ids up to there may have been used by nodes that are gone. */
	s->next_node = MAX(s->next_node, MAX(next ? strtoull(next, NULL, 10) : 0, STAGE_ROOT + 1));
	s->next_reserved = s->next_node;
	return 0;
}

static int load_intent(struct stage *s)
{
	struct stage_intent intent = {0};
	int rc = journal_get_intent(s->journal, &intent);

	if (rc < 0)
		return rc == -ENOENT ? 0 : rc;
	s->has_intent = true;
	s->gen = MAX(s->gen, intent.gen);
	for (size_t i = 0; i < intent.n; i++) {
		struct node *n = stage_node_find(s, intent.items[i].node);

		for (struct layer *l = n ? n->top : NULL; l; l = l->older) {
			if (l->rec.layer == intent.items[i].layer)
				l->held |= HELD_INTENT;
		}
	}
	stage_intent_fini(&intent);
	return 0;
}

/* -- recovery -- */

/* What was written last, by the clock of the filesystem. */
static void take_mtime(struct stage *s, struct node *n)
{
	char name[64];
	struct stat st;

	snprintf(name, sizeof(name), "%llu.%u", (unsigned long long)n->rec.id, n->top->rec.layer);
	if (fstatat(s->data_fd, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return;
	if (st.st_mtim.tv_sec > n->rec.mtime.tv_sec ||
	    (st.st_mtim.tv_sec == n->rec.mtime.tv_sec && st.st_mtim.tv_nsec > n->rec.mtime.tv_nsec))
		n->rec.mtime = st.st_mtim;
}

static void recover_file(struct stage *s, struct node *n, struct stage_changes *kept,
                         unsigned *ret_interrupted)
{
	bool lost = false;

	for (struct layer *l = n->top; l; l = l->older) {
		lost = lost || l->lost;
		l->half = l != n->top || n->rec.state != JOURNAL_CLOSED;
	}
	if (!n->row && n->before) {
		return; /* discard may bring it back */
	} else if (!n->row) {
		journal_del_node(s->journal, n->rec.id);
		stage_node_drop(s, n);
	} else if (stage_node_unchanged(n)) {
		stage_journal_drop_unchanged(s, n, kept);
		stage_row_detach(s, n->row);
		stage_node_drop(s, n);
	} else if (n->rec.state == JOURNAL_OPEN && !n->top) {
		n->rec.state = JOURNAL_CLOSED; /* moved, but not a byte was written */
		journal_put_node(s->journal, &n->rec);
	} else if (n->rec.state == JOURNAL_OPEN || (n->rec.state == JOURNAL_CLOSED && lost)) {
		n->rec.state = JOURNAL_INTERRUPTED;
		take_mtime(s, n);
		journal_put_node(s->journal, &n->rec);
		++*ret_interrupted;
	}
}

static void keep_told(struct stage *s, const struct node *dir, struct stage_changes *kept)
{
	AUTO_FREE char *path = NULL;
	int rc = stage_base_path(dir, &path);

	if (rc == 0)
		rc = stage_changes_keep(kept, dir, path);
	if (rc < 0)
		journal_fail(s->journal, rc);
}

/* Inside a transaction that ends the stage, or begins it: folders that were needed only for rows that are gone
 * go, and the times of the others are told. */
static void prune(struct stage *s, struct node *dir, struct stage_changes *kept)
{
	struct row *next;

	if (dir->unsaved)
		journal_put_node(s->journal, &dir->rec);
	for (struct row *r = dir->rows; r; r = next) {
		struct node *n = r->node;

		next = r->next;
		if (!n || n->rec.kind != STAGE_DIR)
			continue;
		prune(s, n, kept);
		if (n->n_rows || !(n->rec.flags & JOURNAL_HOME) || (n->rec.flags & JOURNAL_KEEP))
			continue;
		keep_told(s, n, kept);
		journal_del_name(s->journal, dir->rec.id, r->name);
		journal_del_node(s->journal, n->rec.id);
		stage_row_detach(s, r);
		stage_node_drop(s, n);
	}
}

/* Like journal_end. */
static int end_with(struct stage *s, struct stage_changes *kept)
{
	int rc;

	stage_changes_journal(s, kept);
	rc = journal_end(s->journal);
	if (rc == 0)
		stage_changes_apply(s, kept);
	stage_changes_fini(kept);
	return rc;
}

int stage_prune(struct stage *s)
{
	struct stage_changes kept = {0};

	journal_begin(s->journal);
	prune(s, s->root, &kept);
	return end_with(s, &kept);
}

static int recover(struct stage *s)
{
	struct stage_changes kept = {0};
	unsigned interrupted = 0;
	int rc;

	journal_begin(s->journal);
	for (size_t i = 0; i < s->node_buckets; i++) {
		struct node *next;

		for (struct node *n = s->node_table[i]; n; n = next) {
			next = n->hash_next;
			if (n->rec.kind == STAGE_FILE)
				recover_file(s, n, &kept, &interrupted);
		}
	}
	prune(s, s->root, &kept);
	if (*s->boot)
		journal_put_meta(s->journal, "boot", s->boot);
	rc = end_with(s, &kept);
	if (rc == 0 && interrupted && s->n_doubtful)
		log_warn("%s: %u files were open for writing, or not yet on stable storage, when the machine went "
		         "down; they are kept, not published", s->place.dir, interrupted);
	else if (rc == 0 && interrupted)
		log_warn("%s: %u files were open for writing when hugfs ended; they are kept, not published",
		         s->place.dir, interrupted);
	return rc;
}

/* Does the file `name` of the data folder belong to a layer? */
static bool is_known(struct stage *s, const char *name)
{
	char *end, *suffix;
	unsigned long long id = strtoull(name, &end, 10);
	unsigned long number = *end == '.' ? strtoul(end + 1, &suffix, 10) : 0;
	struct node *n = id ? stage_node_find(s, id) : NULL;

	if (*end != '.' || (*suffix && strcmp(suffix, ".ext") != 0 && strcmp(suffix, ".whole") != 0))
		return false;
	for (const struct layer *l = n ? n->top : NULL; l; l = l->older) {
		if (l->rec.layer == number)
			return true;
	}
	return false;
}

static int remove_orphans(struct stage *s)
{
	DIR *d = opendir(s->place.data);
	struct dirent *e;
	int rc = 0;

	if (!d)
		return -errno;
	while ((errno = 0, e = readdir(d))) {
		if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0 || is_known(s, e->d_name))
			continue;
		log_debug("%s/%s: removed", s->place.data, e->d_name);
		if (unlinkat(s->data_fd, e->d_name, 0) < 0)
			log_warn("%s/%s: %s", s->place.data, e->d_name, strerror(errno));
	}
	if (errno)
		rc = -errno;
	closedir(d);
	return rc;
}

int stage_load(struct stage *s)
{
	static const struct journal_loader to = {
		.node = load_node, .layer = load_layer, .name = load_name, .conflict = load_conflict,
		.local = load_local};
	int rc = make_root(s);

	if (rc == 0)
		rc = load_boot(s);
	if (rc == 0)
		rc = journal_load(s->journal, &to, s);
	if (rc == 0) {
		rc = check_loaded(s);
		if (rc < 0)
			log_err("%s: the journal contradicts itself; it was left as it is", s->place.dir);
	}
	if (rc == 0)
		rc = load_meta(s);
	if (rc == 0)
		rc = load_intent(s);
	if (rc == 0)
		rc = stage_tx_load(s);
	if (rc == 0)
		rc = recover(s);
	if (rc == 0)
		rc = journal_flush(s->journal);
	if (rc == 0)
		rc = remove_orphans(s);
	return rc;
}

/* -- the checker -- */

#ifndef NDEBUG
static void check_layers(const struct node *n)
{
	for (const struct layer *l = n->top; l; l = l->older) {
		const struct layer *below = l->older;

		assert(l == n->top || l->rec.frozen);
		assert(l->rec.layer <= n->rec.last_layer && l->rec.node == n->rec.id);
		assert(!below || below->rec.layer < l->rec.layer);
		assert((l->rec.lower == JOURNAL_OVER_LAYER) == (l->below != NULL));
		while (l->below && below && below != l->below)
			below = below->older;
		assert(!l->below || (below == l->below && below->rec.layer == l->rec.lower_layer));
		assert(l->lower_len <= l->size || n->busy);
		assert(l->lost || !l->below || l->lower_len <= l->below->size);
		for (size_t i = 0; i < l->n_ext; i++) {
			assert(l->ext[i].off < l->ext[i].end && l->ext[i].end <= l->lower_len);
			assert(i == 0 || l->ext[i - 1].end < l->ext[i].off);
		}
		assert(l->refs >= 1 && l->refs >= 1 + l->fd_users);
	}
}

static void check_node(const struct stage *s, const struct node *n)
{
	assert(n->rec.id < s->next_node);
	assert(!n->row || n->row->node == n);
	if (n->rec.kind == STAGE_FILE) {
		assert(n->top || n->rec.has_blob);
		assert(!n->busy || (n->top && !n->top->rec.frozen));
		assert(n->row || n->stuck || !stage_node_unused(n));
		assert(!n->rows && n->rec.base == STAGE_BASE_NONE);
		assert(!stage_node_unchanged(n) || n->row->dir->rec.base != STAGE_BASE_NONE);
		check_layers(n);
		return;
	}
	assert(n->rec.kind == STAGE_DIR && !n->top && (n->row || n == s->root));
	assert(!stage_is_follow(n) || (n->rec.flags & JOURNAL_HOME));
	assert(!(n->rec.flags & JOURNAL_HOME) || n == s->root || n->rec.base == n->row->dir->rec.base);
	assert((n->rec.base == STAGE_BASE_PINNED) == (n->rec.base_path != NULL));
}

static void check_rows(const struct stage *s, const struct node *dir, size_t *rows, size_t *follow)
{
	size_t n = 0;

	for (const struct row *r = dir->rows; r; r = r->next, n++) {
		assert(r->dir == dir && r->gen <= s->gen);
		assert(!r->next || r->next->prev == r);
		*follow += stage_is_nothing(r->node);
		if (r->node) {
			assert(r->node->row == r);
			check_rows(s, r->node, rows, follow);
		}
	}
	assert(n == dir->n_rows);
	*rows += n;
}

void stage_check(struct stage *s)
{
	LOCKED(&s->lock);
	size_t nodes = 0, files = 0, rows = 0, follow = 0;

	for (size_t i = 0; i < s->node_buckets; i++) {
		for (const struct node *n = s->node_table[i]; n; n = n->hash_next) {
			nodes++;
			files += n->rec.kind == STAGE_FILE;
			check_node(s, n);
		}
	}
	check_rows(s, s->root, &rows, &follow);
	assert(nodes == s->n_nodes && files == s->n_files && rows == s->n_rows && follow == s->n_follow);
	assert(!s->names_taken || s->committing);
}
#else
void stage_check(struct stage *s)
{
}
#endif
