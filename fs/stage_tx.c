/* stage_tx: a transaction of a branch (hugfs run): the overlay as it was when it began, kept until it ends, so that
 * discard brings that back. Not for who may begin one, nor for when it is published (publish).
 *
 * Any thread; the stage's lock, which beginning and restoring drop while somebody writes a file.
 *
 *     NONE --begin--> RUNNING --hold, or hugfs dies--> HELD
 *       ^                |                              |
 *       '--stage_settle, end, restore-------------------'
 *
 * The journal keeps a copy of each row and node that was there (before_name, before_node), with the number of a file's top
 * layer, which is frozen: what is written later lies above it. Such a file stays as long as the copy, named or not. */
#define LOG_MODULE "stage_tx"

#include "stage_internal.h"

#include <string.h>

#include "log.h"

#define NOTE "transaction"

static const char *const notes[] = {[STAGE_TX_NONE] = "", [STAGE_TX_RUNNING] = "running", [STAGE_TX_HELD] = "held"};

enum stage_tx stage_tx_state(struct stage *s)
{
	LOCKED(&s->lock);
	return s->tx;
}

/* -- beginning -- */

/* The files that have something to keep, with nobody writing to them until let_go. */
struct grip {
	struct node **nodes;
	size_t n;
};

static int hold_files(struct stage *s, struct grip *ret)
{
	struct node **nodes = reallocarray(NULL, s->n_files + 1, sizeof(struct node *));

	if (!nodes)
		return -ENOMEM;
	*ret = (struct grip){.nodes = nodes};
	for (size_t i = 0; i < s->node_buckets; i++) {
		for (struct node *n = s->node_table[i]; n; n = n->hash_next) {
			if (n->rec.kind != STAGE_FILE)
				continue;
			n->freezers++;
			nodes[ret->n++] = n;
		}
	}
	for (size_t i = 0; i < ret->n; i++)
		stage_freeze_enter(s, nodes[i]);
	return 0;
}

static void let_go(struct stage *s, struct grip *g)
{
	for (size_t i = 0; i < g->n; i++) {
		g->nodes[i]->freezers--;
		stage_freeze_leave(s, g->nodes[i]);
	}
	free(STEAL(g->nodes));
}

static bool is_kept(const struct node *n)
{
	return n->row && !stage_node_unchanged(n);
}

static void journal_rows(struct stage *s, const struct node *dir)
{
	for (const struct row *r = dir->rows; r; r = r->next) {
		if (r->node && r->node->rec.kind == STAGE_FILE && !is_kept(r->node))
			continue;
		journal_before_name(s->journal, dir->rec.id, r->name, r->node ? r->node->rec.id : 0, r->conflict);
		if (!r->node)
			continue;
		journal_put_node(s->journal, &r->node->rec);
		journal_before_node(s->journal, r->node->rec.id, r->node->top ? r->node->top->rec.layer : 0);
		if (r->node->rec.kind == STAGE_DIR)
			journal_rows(s, r->node);
	}
}

static int begin(struct stage *s, const struct grip *g)
{
	int rc;

	journal_begin(s->journal);
	for (size_t i = 0; i < g->n; i++) {
		if (is_kept(g->nodes[i]) && g->nodes[i]->top && !g->nodes[i]->top->rec.frozen)
			stage_journal_freeze(s, g->nodes[i]);
	}
	journal_rows(s, s->root);
	journal_put_meta(s->journal, NOTE, notes[STAGE_TX_RUNNING]);
	rc = journal_end(s->journal);
	for (size_t i = 0; i < g->n; i++) {
		struct node *n = g->nodes[i];

		if (rc < 0) {
			stage_sweep(s, n, false);
			continue;
		}
		if (!is_kept(n))
			continue;
		if (n->top && !n->top->rec.frozen) {
			stage_apply_freeze(s, n);
			n->top->half = n->writers > 0;
		}
		n->before = true;
		if (n->top)
			n->top->held |= HELD_TX;
	}
	if (rc == 0)
		s->tx = STAGE_TX_RUNNING;
	return rc;
}

int stage_tx_begin(struct stage *s)
{
	struct grip g = {0};
	int rc;

	{
		LOCKED(&s->lock);
		if (s->tx != STAGE_TX_NONE || s->committing || s->has_intent)
			return -EBUSY;
		rc = hold_files(s, &g);
		if (rc == 0)
			rc = s->tx != STAGE_TX_NONE || s->committing ? -EBUSY : begin(s, &g);
		let_go(s, &g);
	}
	return rc < 0 ? rc : stage_housekeep(s, true);
}

int stage_tx_hold(struct stage *s)
{
	int rc;

	{
		LOCKED(&s->lock);
		if (s->tx == STAGE_TX_NONE)
			return 0;
		journal_begin(s->journal);
		journal_put_meta(s->journal, NOTE, notes[STAGE_TX_HELD]);
		rc = journal_end(s->journal);
		if (rc == 0)
			s->tx = STAGE_TX_HELD;
	}
	return rc;
}

/* -- ending -- */

void stage_tx_journal_end(struct stage *s)
{
	if (s->tx == STAGE_TX_NONE)
		return;
	journal_before_clear(s->journal);
	journal_put_meta(s->journal, NOTE, "");
}

void stage_tx_apply_end(struct stage *s)
{
	if (s->tx == STAGE_TX_NONE)
		return;
	s->tx = STAGE_TX_NONE;
	for (size_t i = 0; i < s->node_buckets; i++) {
		for (struct node *n = s->node_table[i]; n; n = n->hash_next) {
			n->before = false;
			for (struct layer *l = n->top; l; l = l->older)
				l->held &= ~HELD_TX;
		}
	}
	stage_reap_all(s);
}

int stage_tx_end(struct stage *s)
{
	int rc;

	{
		LOCKED(&s->lock);
		journal_begin(s->journal);
		stage_tx_journal_end(s);
		rc = journal_end(s->journal);
		if (rc == 0)
			stage_tx_apply_end(s);
	}
	(void)stage_housekeep(s, false);
	return rc;
}

/* -- the way back -- */

struct old_node {
	struct journal_node rec; /* owns its strings */
	uint32_t top;            /* 0: it was its blob */
	struct node *node;       /* the living file, or a folder that is made anew */
	bool fresh;
};
struct old_name {
	uint64_t parent, node;
	bool conflict;
	struct row *row;
};
struct old {
	struct old_node *nodes;
	struct old_name *names;
	size_t n, cap, n_names, cap_names;
};

static void old_fini(struct old *o)
{
	for (size_t i = 0; i < o->n; i++) {
		if (o->nodes[i].fresh)
			stage_node_free(o->nodes[i].node);
		free(o->nodes[i].rec.base_path);
		free(o->nodes[i].rec.blob.path);
	}
	for (size_t i = 0; i < o->n_names; i++)
		free(o->names[i].row);
	free(o->nodes);
	free(o->names);
}

static int old_node(void *arg, struct journal_node *rec, uint32_t top)
{
	struct old *o = arg;

	if (o->n == o->cap) {
		size_t more = o->cap ? o->cap * 2 : 32;
		struct old_node *nodes = reallocarray(o->nodes, more, sizeof(*nodes));

		if (!nodes)
			return -ENOMEM;
		o->nodes = nodes;
		o->cap = more;
	}
	o->nodes[o->n++] = (struct old_node){.rec = *rec, .top = top};
	rec->base_path = rec->blob.path = NULL;
	return 0;
}

static int old_name(void *arg, uint64_t parent, const char *name, uint64_t node, bool conflict)
{
	struct old *o = arg;
	struct row *row = stage_row_new(name);

	if (row && o->n_names == o->cap_names) {
		size_t more = o->cap_names ? o->cap_names * 2 : 32;
		struct old_name *names = reallocarray(o->names, more, sizeof(*names));

		if (!names) {
			free(row);
			return -ENOMEM;
		}
		o->names = names;
		o->cap_names = more;
	}
	if (!row)
		return -ENOMEM;
	o->names[o->n_names++] = (struct old_name){parent, node, conflict, row};
	return 0;
}

static struct old_node *find_old(struct old *o, uint64_t id)
{
	size_t lo = 0, hi = o->n;

	while (lo < hi) { /* by id */
		size_t mid = lo + (hi - lo) / 2;

		if (o->nodes[mid].rec.id < id)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo < o->n && o->nodes[lo].rec.id == id ? &o->nodes[lo] : NULL;
}

/* Everything that may fail before the transaction. */
static int prepare(struct stage *s, struct old *o)
{
	int rc = journal_load_before(s->journal, old_node, old_name, o);

	for (size_t i = 0; i < o->n && rc == 0; i++) {
		struct old_node *old = &o->nodes[i];

		if (old->rec.kind == STAGE_DIR) {
			struct journal_node rec = old->rec;

			old->node = stage_node_new(&rec);
			rc = old->node ? 0 : -ENOMEM;
			old->fresh = rc == 0;
			if (rc == 0) /* its strings are the node's */
				old->rec.base_path = old->rec.blob.path = NULL;
			continue;
		}
		old->node = stage_node_find(s, old->rec.id);
		if (!old->node || old->node->rec.kind != STAGE_FILE)
			return -EIO;
		old->rec.last_layer = MAX(old->rec.last_layer, old->node->rec.last_layer);
		if (old->rec.state == JOURNAL_OPEN && !old->node->writers)
			old->rec.state = JOURNAL_INTERRUPTED; /* it was half written then */
	}
	for (size_t i = 0; i < o->n_names && rc == 0; i++) {
		if ((o->names[i].parent != STAGE_ROOT && !find_old(o, o->names[i].parent)) ||
		    (o->names[i].node && !find_old(o, o->names[i].node)))
			rc = -EIO;
	}
	return rc;
}

static void journal_old(struct stage *s, struct old *o)
{
	journal_forget_rows(s->journal);
	for (size_t i = 0; i < s->node_buckets; i++) {
		for (const struct node *n = s->node_table[i]; n; n = n->hash_next) {
			/* Who has a file open goes on with it, and with its layers. */
			if (n != s->root && !n->before && (n->rec.kind == STAGE_DIR || (!n->pins && !n->writers)))
				journal_del_node(s->journal, n->rec.id);
		}
	}
	for (size_t i = 0; i < o->n; i++) {
		const struct old_node *old = &o->nodes[i];

		journal_put_node(s->journal, old->fresh ? &old->node->rec : &old->rec);
		for (struct layer *l = old->fresh ? NULL : old->node->top; l; l = l->older) {
			l->doomed = l->rec.layer > old->top;
			if (l->doomed)
				journal_del_layer(s->journal, l->rec.node, l->rec.layer);
		}
	}
	for (size_t i = 0; i < o->n_names; i++) {
		const struct old_name *name = &o->names[i];

		journal_put_name(s->journal, name->parent, name->row->name, name->node, s->gen + 1);
		if (name->conflict)
			journal_put_conflict(s->journal, name->parent, name->row->name);
	}
	stage_tx_journal_end(s);
}

static void detach_below(struct stage *s, struct node *dir)
{
	while (dir->rows) {
		struct node *n = dir->rows->node;

		if (n && n->rec.kind == STAGE_DIR)
			detach_below(s, n);
		stage_row_detach(s, dir->rows);
		if (n && n->rec.kind == STAGE_DIR)
			stage_node_drop(s, n);
	}
}

static void apply_old(struct stage *s, struct old *o)
{
	s->gen++;
	detach_below(s, s->root);
	for (size_t i = 0; i < o->n; i++) {
		struct old_node *old = &o->nodes[i];
		struct node *n = old->node;

		if (old->fresh) {
			old->fresh = false;
			stage_node_insert(s, n);
			continue;
		}
		free(n->rec.base_path);
		free(n->rec.blob.path);
		n->rec = old->rec;
		old->rec.base_path = old->rec.blob.path = NULL;
		n->changed = n->unsaved = false;
		stage_sweep(s, n, true);
	}
	for (size_t i = 0; i < o->n_names; i++) {
		const struct old_name *name = &o->names[i];
		struct node *dir = name->parent == STAGE_ROOT ? s->root : find_old(o, name->parent)->node;
		struct node *n = name->node ? find_old(o, name->node)->node : NULL;
		struct row *row = STEAL(o->names[i].row);

		stage_row_attach(s, dir, row, n, s->gen);
		row->conflict = name->conflict;
	}
	stage_tx_apply_end(s);
}

static int restore(struct stage *s)
{
	CLEANUP(old_fini) struct old old = {0};
	int rc = prepare(s, &old);

	if (rc < 0)
		return rc;
	journal_begin(s->journal);
	journal_old(s, &old);
	rc = journal_end(s->journal);
	if (rc == 0) {
		apply_old(s, &old);
		return 0;
	}
	for (size_t i = 0; i < old.n; i++) {
		if (!old.nodes[i].fresh)
			stage_sweep(s, old.nodes[i].node, false);
	}
	return rc;
}

int stage_tx_restore(struct stage *s)
{
	struct grip g = {0};
	int rc;

	{
		LOCKED(&s->lock);
		if (s->committing || s->has_intent)
			return -EBUSY;
		rc = hold_files(s, &g);
		if (rc == 0)
			rc = s->tx == STAGE_TX_NONE ? 0 : restore(s);
		let_go(s, &g);
	}
	(void)stage_housekeep(s, false);
	return rc;
}

/* -- loading -- */

static int load_before_node(void *arg, struct journal_node *rec, uint32_t top)
{
	struct stage *s = arg;
	struct node *n = stage_node_find(s, rec->id);
	struct layer *l;

	if (rec->kind != STAGE_FILE)
		return 0;
	if (!n)
		return -EIO;
	for (l = n->top; l && l->rec.layer != top; l = l->older)
		;
	if (top && !l)
		return -EIO;
	n->before = true;
	if (l)
		l->held |= HELD_TX;
	return 0;
}

static int load_before_name(void *arg, uint64_t parent, const char *name, uint64_t node, bool conflict)
{
	return 0;
}

int stage_tx_load(struct stage *s)
{
	AUTO_FREE char *note = NULL;
	int rc = journal_get_meta(s->journal, NOTE, &note);

	if (rc < 0 || !*note)
		return rc == -ENOENT ? 0 : rc;
	s->tx = STAGE_TX_HELD; /* whoever ran it is gone */
	return journal_load_before(s->journal, load_before_node, load_before_name, s);
}
