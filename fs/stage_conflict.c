/* stage_conflict: rows that somebody else's push is in conflict with: which they are, for how long. Not for finding that
 * out (commit_base) nor for what is done about it.
 *
 * Any thread, under the stage's lock. */
#define LOG_MODULE "stage_conflict"

#include "stage_internal.h"

bool stage_in_conflict(const struct node *n)
{
	if (n->rec.state == JOURNAL_CONFLICT)
		return true;
	for (const struct row *r = n->row; r; r = r->dir->row) {
		if (r->conflict || r->dir->rec.state == JOURNAL_CONFLICT)
			return true;
	}
	return false;
}

/* The row, while it is what it was. */
static struct row *find_row(struct stage *s, const struct stage_ref *ref)
{
	struct node *dir = stage_dir_find(s, ref->parent);
	struct row *row = dir ? stage_row_find(s, dir, ref->name) : NULL;

	return row && (row->node ? row->node->rec.id : 0) == ref->node ? row : NULL;
}

int stage_conflict_put(struct stage *s, const struct stage_ref *rows, size_t n)
{
	LOCKED(&s->lock);
	int rc;

	journal_begin(s->journal);
	for (size_t i = 0; i < n; i++) {
		if (find_row(s, &rows[i]))
			journal_put_conflict(s->journal, rows[i].parent, rows[i].name);
	}
	rc = journal_end(s->journal);
	for (size_t i = 0; rc == 0 && i < n; i++) {
		struct row *row = find_row(s, &rows[i]);

		if (row)
			row->conflict = true;
	}
	return rc;
}

static void clear_below(struct node *dir)
{
	for (struct row *r = dir->rows; r; r = r->next) {
		r->conflict = false;
		if (!r->node)
			continue;
		if (r->node->rec.state == JOURNAL_CONFLICT)
			r->node->rec.state = JOURNAL_CLOSED;
		if (r->node->rec.kind == STAGE_DIR)
			clear_below(r->node);
	}
}

/* Files that the state on disk itself says it of. */
static void journal_clear(struct stage *s, const struct node *dir)
{
	for (const struct row *r = dir->rows; r; r = r->next) {
		if (r->node && r->node->rec.state == JOURNAL_CONFLICT) {
			struct journal_node next = r->node->rec;

			next.state = JOURNAL_CLOSED;
			journal_put_node(s->journal, &next);
		}
		if (r->node && r->node->rec.kind == STAGE_DIR)
			journal_clear(s, r->node);
	}
}

int stage_conflict_clear(struct stage *s)
{
	LOCKED(&s->lock);
	int rc;

	journal_begin(s->journal);
	journal_del_conflicts(s->journal);
	journal_clear(s, s->root);
	rc = journal_end(s->journal);
	if (rc == 0)
		clear_below(s->root);
	return rc;
}
