/* stage_name: the names of a stage: looking up, making, removing, moving, throwing away. Not for bytes, nor
 * for what the base holds: the caller says (hide) whether it has the name.
 *
 * Any thread. A change is one transaction; the structs that it needs are allocated before, so that nothing
 * can fail after.
 *
 * Renaming a folder is one row, whatever lies below it. A FOLLOW folder is pinned to the commit and path
 * where it was, and so are the FOLLOW folders below it, for their paths change with it. */
#define LOG_MODULE "stage_name"

#include "stage_internal.h"

#include <assert.h>
#include <string.h>

#define IDS_BOOKED 1024 /* node ids that the journal books at once */

int stage_check_name(const char *name)
{
	size_t len = strnlen(name, STAGE_NAME_MAX + 1);

	if (len > STAGE_NAME_MAX)
		return -ENAMETOOLONG;
	if (len == 0 || strchr(name, '/') || strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
		return -EINVAL;
	return 0;
}

static struct stage_name name_of(const struct row *row)
{
	if (!row)
		return (struct stage_name){.kind = STAGE_NONE};
	if (!row->node)
		return (struct stage_name){.kind = STAGE_WHITEOUT};
	return (struct stage_name){.kind = row->node->rec.kind, .node = row->node->rec.id};
}

int stage_lookup(struct stage *s, uint64_t dir, const char *name, struct stage_name *ret)
{
	LOCKED(&s->lock);
	struct node *d = stage_dir_find(s, dir);

	*ret = name_of(d ? stage_row_find(s, d, name) : NULL);
	return 0;
}

int stage_list(struct stage *s, uint64_t dir, stage_list_fn each, void *arg)
{
	LOCKED(&s->lock);
	struct node *d = stage_dir_find(s, dir);
	int rc = 0;

	for (struct row *r = d ? d->rows : NULL; r && rc == 0; r = r->next)
		rc = each(arg, r->name, name_of(r));
	return rc;
}

void stage_base_fini(struct stage_base *b)
{
	free(b->path);
	*b = (struct stage_base){0};
}

int stage_dir_base(struct stage *s, uint64_t dir, struct stage_base *ret)
{
	LOCKED(&s->lock);
	struct node *d = stage_dir_find(s, dir);
	struct stage_base b = {0};

	if (!d)
		return -ENOENT;
	b.kind = d->rec.base;
	if (b.kind == STAGE_BASE_PINNED) {
		memcpy(b.commit, d->rec.base_commit, sizeof(b.commit));
		b.path = strdup(d->rec.base_path);
		if (!b.path)
			return -ENOMEM;
	}
	*ret = b;
	return 0;
}

/* An emptied folder that the branch has after all. */
static int forget_kept(struct stage *s, struct node *n)
{
	AUTO_FREE char *path = NULL;
	struct stage_changes told = {0};
	int rc = stage_node_path(n, &path);

	if (rc == 0)
		rc = stage_changes_keep(&told, n, path);
	if (rc == 0) {
		journal_begin(s->journal);
		journal_del_name(s->journal, n->row->dir->rec.id, n->row->name);
		journal_del_node(s->journal, n->rec.id);
		stage_changes_journal(s, &told);
		rc = journal_end(s->journal);
	}
	if (rc == 0) {
		stage_changes_apply(s, &told);
		stage_row_detach(s, n->row);
		stage_node_drop(s, n);
	}
	stage_changes_fini(&told);
	return rc;
}

int stage_keep(struct stage *s, uint64_t dir, bool keep)
{
	LOCKED(&s->lock);
	struct node *n = stage_dir_find(s, dir);
	struct journal_node next;
	int rc;

	if (!n || n == s->root || !stage_is_follow(n) || keep == ((n->rec.flags & JOURNAL_KEEP) != 0))
		return 0;
	if (!keep && !n->rows)
		return forget_kept(s, n);
	next = n->rec;
	next.flags ^= JOURNAL_KEEP;
	journal_begin(s->journal);
	journal_put_node(s->journal, &next);
	rc = journal_end(s->journal);
	if (rc == 0)
		stage_node_set_flags(s, n, next.flags);
	return rc;
}

static bool is_thinned(const struct node *dir)
{
	const struct row *r = stage_is_follow(dir) ? dir->rows : NULL;

	while (r && r->node)
		r = r->next;
	return r != NULL;
}

int stage_thinned(struct stage *s, stage_thinned_fn each, void *arg)
{
	LOCKED(&s->lock);
	int rc = 0;

	for (size_t i = 0; i < s->node_buckets; i++) {
		for (const struct node *d = s->node_table[i]; d && rc == 0; d = d->hash_next) {
			AUTO_FREE char *path = NULL;

			if (!is_thinned(d))
				continue;
			rc = stage_node_path(d, &path);
			if (rc == 0)
				rc = each(arg, d->rec.id, path);
		}
	}
	return rc;
}

/* Removing a name must leave a whiteout? */
static bool hides(const struct stage *s, bool hide)
{
	return hide || s->names_taken || s->has_intent;
}

/* Inside a transaction: names of the folder change now. So that not every name costs a row more, the journal
 * is up to a second behind until the stage is tidied up. */
static struct journal_node journal_touch(struct stage *s, const struct node *dir)
{
	struct journal_node next = dir->rec;

	next.mtime = stage_mtime_after(next.mtime);
	next.flags |= JOURNAL_HAS_MTIME;
	if (next.mtime.tv_sec != dir->told_s)
		journal_put_node(s->journal, &next);
	return next;
}

/* After it. */
static void touch(struct node *dir, const struct journal_node *next)
{
	if (next->mtime.tv_sec != dir->told_s) {
		dir->told_s = next->mtime.tv_sec;
		dir->unsaved = false;
	} else {
		dir->unsaved = true;
	}
	dir->rec.mtime = next->mtime;
	dir->rec.flags |= JOURNAL_HAS_MTIME;
}

/* An id for a new node, inside a transaction. */
static void book_id(struct stage *s, uint64_t id)
{
	char text[24];

	if (id < s->next_reserved)
		return;
	snprintf(text, sizeof(text), "%llu", (unsigned long long)id + IDS_BOOKED);
	journal_put_meta(s->journal, "next_node", text);
}

/* Parent folder, and that no row but a whiteout is in the way. */
static int new_name(struct stage *s, uint64_t parent, const char *name, struct node **ret_dir,
                    struct row **ret_row)
{
	struct row *row;
	int rc = stage_check_name(name);

	if (rc < 0)
		return rc;
	*ret_dir = stage_dir_find(s, parent);
	if (!*ret_dir)
		return -ENOENT;
	row = stage_row_find(s, *ret_dir, name);
	if (row && row->node)
		return -EEXIST;
	*ret_row = row;
	return 0;
}

/* Puts a new node under a name that new_name has judged. Takes the node, with its layers, when it returns
 * 0. */
static int add_node(struct stage *s, struct node *dir, struct row *row, const char *name, struct node *n)
{
	struct row *fresh = row ? NULL : stage_row_new(name);
	bool shown = !(n->rec.flags & JOURNAL_HOME); /* else nothing that anybody can see changes */
	struct journal_node touched = dir->rec;
	int rc;

	if (!row && !fresh)
		return -ENOMEM;
	journal_begin(s->journal);
	book_id(s, n->rec.id);
	journal_put_node(s->journal, &n->rec);
	if (n->top)
		journal_put_layer(s->journal, &n->top->rec);
	journal_put_name(s->journal, dir->rec.id, name, n->rec.id, s->gen + 1);
	if (shown)
		touched = journal_touch(s, dir);
	rc = journal_end(s->journal);
	if (rc < 0) {
		free(fresh);
		return rc;
	}
	if (shown)
		touch(dir, &touched);
	if (n->rec.id >= s->next_reserved)
		s->next_reserved = n->rec.id + IDS_BOOKED;
	s->gen++;
	stage_node_insert(s, n);
	if (fresh)
		stage_row_attach(s, dir, fresh, n, s->gen);
	else
		stage_row_set(s, row, n, s->gen);
	return 0;
}

/* What was told about a committed folder goes with its node from now on. */
static int recall(struct stage *s, const struct node *dir, const char *name, struct node *n)
{
	AUTO_FREE char *path = NULL;
	struct stage_attr attr;
	int rc;

	if (stage_locals_count(s->locals) == 0)
		return 0;
	if (n->rec.base == STAGE_BASE_PINNED) {
		path = strdup(n->rec.base_path);
		rc = path ? 0 : -ENOMEM;
	} else {
		AUTO_FREE char *above = NULL;

		rc = stage_node_path(dir, &above);
		if (rc == 0)
			path = util_printf("%s%s%s", above, *above ? "/" : "", name);
		if (rc == 0 && !path)
			rc = -ENOMEM;
	}
	if (rc == 0)
		rc = stage_locals_get(s->locals, path, STAGE_DIR, NULL, &attr);
	if (rc < 0)
		return rc == -ENOENT ? 0 : rc;
	n->rec.flags |= (attr.has_mode ? JOURNAL_HAS_MODE : 0) | (attr.has_owner ? JOURNAL_HAS_OWNER : 0) |
	                (attr.has_mtime ? JOURNAL_HAS_MTIME : 0);
	n->rec.mode = attr.mode;
	n->rec.uid = attr.uid;
	n->rec.gid = attr.gid;
	n->rec.mtime = attr.mtime;
	return 0;
}

int stage_follow(struct stage *s, uint64_t parent, const char *name, uint64_t *ret)
{
	LOCKED(&s->lock);
	struct journal_node rec = {.kind = STAGE_DIR, .flags = JOURNAL_HOME};
	struct node *dir, *n;
	struct row *row;
	int rc = new_name(s, parent, name, &dir, &row);

	if (rc < 0)
		return rc;
	rec.base = dir->rec.base;
	if (rec.base == STAGE_BASE_NONE)
		return -ENOENT;
	if (rec.base == STAGE_BASE_PINNED) {
		bool top = !*dir->rec.base_path;

		memcpy(rec.base_commit, dir->rec.base_commit, sizeof(rec.base_commit));
		rec.base_path = util_printf("%s%s%s", dir->rec.base_path, top ? "" : "/", name);
		if (!rec.base_path)
			return -ENOMEM;
	}
	rec.id = s->next_node++;
	n = stage_node_new(&rec);
	if (!n) {
		free(rec.base_path);
		return -ENOMEM;
	}
	rc = recall(s, dir, name, n);
	if (rc == 0)
		rc = add_node(s, dir, row, name, n);
	if (rc < 0) {
		stage_node_free(n);
		return rc;
	}
	*ret = n->rec.id;
	return 0;
}

int stage_borrow(struct stage *s, uint64_t parent, const char *name, const struct stage_blob *blob,
                 uint64_t *ret)
{
	LOCKED(&s->lock);
	struct journal_node rec = {.kind = STAGE_FILE, .flags = JOURNAL_HOME, .has_blob = true};
	struct node *dir, *n;
	struct row *row;
	int rc = new_name(s, parent, name, &dir, &row);

	if (rc < 0)
		return rc;
	if (dir->rec.base == STAGE_BASE_NONE)
		return -ENOENT;
	rec.mode = blob->mode & 07777;
	rec.flags |= rec.mode ? JOURNAL_HAS_MODE : 0;
	rec.mtime = blob->mtime;
	rec.blob.key = blob->key;
	memcpy(rec.blob.commit, blob->commit, sizeof(rec.blob.commit));
	rec.blob.path = strdup(blob->path ? blob->path : "");
	rec.id = s->next_node++;
	n = rec.blob.path ? stage_node_new(&rec) : NULL;
	if (!n) {
		free(rec.blob.path);
		return -ENOMEM;
	}
	rc = add_node(s, dir, row, name, n);
	if (rc < 0) {
		stage_node_free(n);
		return rc;
	}
	*ret = n->rec.id;
	return 0;
}

static int create(struct stage *s, uint64_t parent, const char *name, mode_t mode, enum journal_state state,
                  uint64_t *ret)
{
	LOCKED(&s->lock);
	struct journal_node rec = {.kind = STAGE_FILE, .mode = mode & 07777, .last_layer = 1, .state = state,
	                           .flags = JOURNAL_HAS_MODE | JOURNAL_HAS_MTIME};
	struct node *dir, *n;
	struct layer *first;
	struct row *row;
	int rc = journal_is_tight(s->journal) ? -ENOSPC : new_name(s, parent, name, &dir, &row);

	if (rc < 0)
		return rc;
	rec.mtime = stage_mtime_after(rec.mtime);
	rec.id = s->next_node++;
	n = stage_node_new(&rec);
	if (!n)
		return -ENOMEM;
	rc = stage_layer_first(s, rec.id, &first);
	if (rc == 0) {
		stage_layer_push(n, first);
		rc = add_node(s, dir, row, name, n);
		if (rc < 0) {
			n->top = NULL;
			stage_layer_undo(s, first);
		}
	}
	if (rc < 0) {
		stage_node_free(n);
		return rc;
	}
	n->changed = s->unsynced = true;
	*ret = n->rec.id;
	return 0;
}

int stage_create(struct stage *s, uint64_t parent, const char *name, mode_t mode, uint64_t *ret)
{
	return create(s, parent, name, mode, JOURNAL_CLOSED, ret);
}

int stage_create_open(struct stage *s, uint64_t parent, const char *name, mode_t mode, uint64_t *ret)
{
	return create(s, parent, name, mode, JOURNAL_OPEN, ret);
}

int stage_mkdir(struct stage *s, uint64_t parent, const char *name, mode_t mode, uint64_t *ret)
{
	LOCKED(&s->lock);
	struct journal_node rec = {.kind = STAGE_DIR, .mode = mode & 07777, .base = STAGE_BASE_NONE,
	                           .flags = JOURNAL_HAS_MODE | JOURNAL_HAS_MTIME};
	struct node *dir, *n;
	struct row *row;
	int rc = journal_is_tight(s->journal) ? -ENOSPC : new_name(s, parent, name, &dir, &row);

	if (rc < 0)
		return rc;
	rec.mtime = stage_mtime_after(rec.mtime);
	rec.id = s->next_node++;
	n = stage_node_new(&rec);
	if (!n)
		return -ENOMEM;
	rc = add_node(s, dir, row, name, n);
	if (rc < 0) {
		stage_node_free(n);
		return rc;
	}
	*ret = n->rec.id;
	return 0;
}

/* Inside a transaction: the journal forgets everything below `dir`, then `dir` itself (own). Files that
 * somebody has open stay as nodes without a name. forget_below does the same in memory afterwards. */
static void journal_forget(struct stage *s, const struct node *dir, bool own)
{
	for (const struct row *r = dir->rows; r; r = r->next) {
		journal_del_name(s->journal, dir->rec.id, r->name);
		if (r->node && r->node->rec.kind == STAGE_DIR)
			journal_forget(s, r->node, true);
		else if (r->node && stage_node_unused(r->node))
			journal_del_node(s->journal, r->node->rec.id);
	}
	if (own)
		journal_del_node(s->journal, dir->rec.id);
}

static void forget_below(struct stage *s, struct node *dir)
{
	while (dir->rows) {
		struct node *n = dir->rows->node;

		if (n && n->rec.kind == STAGE_DIR)
			forget_below(s, n);
		stage_row_detach(s, dir->rows);
		if (n && (n->rec.kind == STAGE_DIR || stage_node_unused(n)))
			stage_node_drop(s, n);
	}
}

/* The node lost its row, in journal and memory: what follows in memory. */
static void forget_node(struct stage *s, struct node *n)
{
	if (n->rec.kind == STAGE_DIR) {
		forget_below(s, n);
		stage_node_drop(s, n);
	} else if (stage_node_unused(n)) {
		stage_node_drop(s, n);
	}
}

static void journal_forget_node(struct stage *s, const struct node *n)
{
	if (n->rec.kind == STAGE_DIR)
		journal_forget(s, n, true);
	else if (stage_node_unused(n))
		journal_del_node(s->journal, n->rec.id);
}

/* Does the overlay itself put anything into the folder? */
static bool has_children(const struct node *dir)
{
	for (const struct row *r = dir->rows; r; r = r->next) {
		if (r->node && (r->node->rec.kind == STAGE_FILE || r->node->rec.base == STAGE_BASE_NONE ||
		                has_children(r->node)))
			return true;
	}
	return false;
}

/* Takes away the row of a name, or puts a whiteout there. */
static int remove_row(struct stage *s, struct node *dir, struct row *row, const char *name, bool whiteout)
{
	struct node *n = row ? row->node : NULL;
	struct row *fresh = row ? NULL : stage_row_new(name);
	struct journal_node touched;
	int rc;

	if (!row && !fresh)
		return -ENOMEM;
	journal_begin(s->journal);
	if (whiteout)
		journal_put_name(s->journal, dir->rec.id, name, 0, s->gen + 1);
	else
		journal_del_name(s->journal, dir->rec.id, name);
	if (n)
		journal_forget_node(s, n);
	touched = journal_touch(s, dir);
	rc = journal_end(s->journal);
	if (rc < 0) {
		free(fresh);
		return rc;
	}
	touch(dir, &touched);
	s->gen++;
	if (fresh)
		stage_row_attach(s, dir, fresh, NULL, s->gen);
	else if (whiteout)
		stage_row_set(s, row, NULL, s->gen);
	else
		stage_row_detach(s, row);
	if (n)
		forget_node(s, n);
	return 0;
}

static int remove_name(struct stage *s, uint64_t parent, const char *name, bool hide, enum stage_kind kind)
{
	struct node *dir = stage_dir_find(s, parent);
	int rc = stage_check_name(name);
	struct row *row;

	if (rc < 0)
		return rc;
	row = dir ? stage_row_find(s, dir, name) : NULL;
	if (!dir || (!row && !hide) || (row && !row->node))
		return -ENOENT;
	if (row && row->node->rec.kind != kind)
		return kind == STAGE_DIR ? -ENOTDIR : -EISDIR;
	if (row && kind == STAGE_DIR && has_children(row->node))
		return -ENOTEMPTY;
	return remove_row(s, dir, row, name, row ? hides(s, hide) : true);
}

int stage_unlink(struct stage *s, uint64_t parent, const char *name, bool hide)
{
	int rc;

	{
		LOCKED(&s->lock);
		rc = remove_name(s, parent, name, hide, STAGE_FILE);
	}
	(void)stage_housekeep(s, false);
	return rc;
}

int stage_rmdir(struct stage *s, uint64_t parent, const char *name, bool hide)
{
	LOCKED(&s->lock);

	return remove_name(s, parent, name, hide, STAGE_DIR);
}

/* -- renaming -- */

/* FOLLOW folders that a rename moves: each is pinned to where it was. */
struct pin {
	struct node *node;
	char *path;
};
struct pins {
	struct pin *pin;
	size_t n, cap;
	char commit[41];
};

static void pins_fini(struct pins *p)
{
	for (size_t i = 0; i < p->n; i++)
		free(p->pin[i].path);
	free(p->pin);
}

static int pins_add(struct pins *p, struct node *n, const char *path)
{
	char *copy = strdup(path);
	int rc = copy ? 0 : -ENOMEM;

	if (rc == 0 && p->n == p->cap) {
		size_t cap = p->cap ? p->cap * 2 : 8;
		struct pin *more = reallocarray(p->pin, cap, sizeof(*more));

		if (more) {
			p->pin = more;
			p->cap = cap;
		} else {
			rc = -ENOMEM;
		}
	}
	if (rc < 0) {
		free(copy);
		return rc;
	}
	p->pin[p->n++] = (struct pin){.node = n, .path = copy};
	for (struct row *r = n->rows; r && rc == 0; r = r->next) {
		if (stage_is_follow(r->node)) {
			AUTO_FREE char *below = util_printf("%s%s%s", path, *path ? "/" : "", r->name);

			rc = below ? pins_add(p, r->node, below) : -ENOMEM;
		}
	}
	return rc;
}

static bool is_above(const struct node *dir, const struct node *n)
{
	while (n && n != dir)
		n = n->row ? n->row->dir : NULL;
	return n != NULL;
}

/* May `n` take the place of what `over` holds, in folder `to`? */
static int check_rename(const struct node *n, const struct node *from, const struct node *to,
                        const struct node *over)
{
	bool dir = n->rec.kind == STAGE_DIR;

	if (dir && is_above(n, to))
		return -EINVAL;
	if (!over)
		return 0;
	if (dir != (over->rec.kind == STAGE_DIR))
		return dir ? -ENOTDIR : -EISDIR;
	if (dir && (is_above(over, from) || has_children(over)))
		return -ENOTEMPTY;
	return 0;
}

struct move {
	struct node *from, *to, *node;
	struct row *row, *dest; /* dest: NULL, then fresh */
	struct row *fresh;
	const char *sname, *dname;
	bool whiteout;
	struct pins pins;
	struct journal_node from_touched, to_touched;
};

static int journal_move(struct stage *s, struct move *m)
{
	struct journal_node moved = m->node->rec;

	moved.flags &= ~(JOURNAL_HOME | JOURNAL_KEEP);
	journal_begin(s->journal);
	if (m->dest && m->dest->node)
		journal_forget_node(s, m->dest->node);
	if (m->whiteout)
		journal_put_name(s->journal, m->from->rec.id, m->sname, 0, s->gen + 1);
	else
		journal_del_name(s->journal, m->from->rec.id, m->sname);
	journal_put_name(s->journal, m->to->rec.id, m->dname, m->node->rec.id, s->gen + 1);
	if (m->row->conflict)
		journal_put_conflict(s->journal, m->to->rec.id, m->dname);
	if (moved.flags != m->node->rec.flags)
		journal_put_node(s->journal, &moved);
	for (size_t i = 0; i < m->pins.n; i++) {
		struct journal_node next = m->pins.pin[i].node->rec;

		next.base = STAGE_BASE_PINNED;
		next.base_path = m->pins.pin[i].path;
		memcpy(next.base_commit, m->pins.commit, sizeof(next.base_commit));
		if (i == 0)
			next.flags = moved.flags;
		journal_put_node(s->journal, &next);
	}
	m->from_touched = journal_touch(s, m->from);
	m->to_touched = journal_touch(s, m->to);
	return journal_end(s->journal);
}

static void apply_move(struct stage *s, struct move *m)
{
	struct node *over = m->dest ? m->dest->node : NULL;
	bool conflict = m->row->conflict || (m->dest && m->dest->conflict);

	s->gen++;
	if (m->whiteout)
		stage_row_set(s, m->row, NULL, s->gen);
	else
		stage_row_detach(s, m->row);
	stage_node_set_flags(s, m->node, m->node->rec.flags & ~(JOURNAL_HOME | JOURNAL_KEEP));
	if (m->dest)
		stage_row_set(s, m->dest, m->node, s->gen);
	else
		stage_row_attach(s, m->to, STEAL(m->fresh), m->node, s->gen);
	m->node->row->conflict = conflict;
	if (over)
		forget_node(s, over);
	for (size_t i = 0; i < m->pins.n; i++)
		stage_node_set_base(s, m->pins.pin[i].node, STAGE_BASE_PINNED, m->pins.commit,
		                    STEAL(m->pins.pin[i].path));
	touch(m->from, &m->from_touched);
	touch(m->to, &m->to_touched);
}

static int rename_row(struct stage *s, struct move *m, const struct stage_base *pin)
{
	int rc = check_rename(m->node, m->from, m->to, m->dest ? m->dest->node : NULL);

	if (rc == 0 && stage_is_follow(m->node)) {
		if (!pin || pin->kind != STAGE_BASE_PINNED || !pin->path)
			return -EINVAL;
		memcpy(m->pins.commit, pin->commit, sizeof(m->pins.commit));
		rc = pins_add(&m->pins, m->node, pin->path);
	}
	if (rc == 0 && !m->dest) {
		m->fresh = stage_row_new(m->dname);
		rc = m->fresh ? 0 : -ENOMEM;
	}
	if (rc == 0)
		rc = journal_move(s, m);
	if (rc == 0)
		apply_move(s, m);
	free(m->fresh);
	pins_fini(&m->pins);
	return rc;
}

int stage_rename(struct stage *s, uint64_t sparent, const char *sname, bool hide, uint64_t dparent,
                 const char *dname, const struct stage_base *pin)
{
	int rc = stage_check_name(dname);

	if (rc == 0) {
		LOCKED(&s->lock);
		struct move m = {.sname = sname, .dname = dname, .whiteout = hides(s, hide)};

		m.from = stage_dir_find(s, sparent);
		m.to = stage_dir_find(s, dparent);
		m.row = m.from ? stage_row_find(s, m.from, sname) : NULL;
		if (!m.to || !m.row || !m.row->node)
			return -ENOENT;
		m.node = m.row->node;
		m.dest = stage_row_find(s, m.to, dname);
		if (m.dest == m.row)
			return 0;
		rc = rename_row(s, &m, pin);
	}
	(void)stage_housekeep(s, false);
	return rc;
}

int stage_discard(struct stage *s, const char *path)
{
	int rc = 0;

	{
		LOCKED(&s->lock);
		struct node *n = s->root;
		struct row *row = NULL;

		if (s->committing || s->has_intent)
			return -EBUSY;
		while (*path && n) {
			AUTO_FREE char *part = strndup(path, strcspn(path, "/"));

			if (!part)
				return -ENOMEM;
			row = n->rec.kind == STAGE_DIR ? stage_row_find(s, n, part) : NULL;
			n = row ? row->node : NULL;
			path += strlen(part);
			path += *path == '/';
		}
		if (*path || (n != s->root && !row))
			return 0; /* nothing is staged there */
		journal_begin(s->journal);
		if (row)
			journal_del_name(s->journal, row->dir->rec.id, row->name);
		if (n == s->root)
			journal_forget(s, n, false);
		else if (n)
			journal_forget_node(s, n);
		rc = journal_end(s->journal);
		if (rc == 0) {
			s->gen++;
			if (row)
				stage_row_detach(s, row);
			if (n == s->root)
				forget_below(s, n);
			else if (n)
				forget_node(s, n);
		}
	}
	(void)stage_housekeep(s, false);
	return rc;
}
