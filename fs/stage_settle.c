/* stage_settle: the commit of the intent is on the branch: what it holds leaves the overlay, the rest is
 * made right over the new base, and nobody sees a difference. First a plan of acts, then their transaction,
 * then the same in memory. Not for finding out whether the commit landed (commit).
 *
 * Any thread, under the lock all along; nothing but the local disk is waited for.
 *
 * Settling: a row is unchanged when its gen is not above the intent's, and all its ancestors are unchanged.
 * What is unchanged is on the branch now, so it leaves the overlay; what changed meanwhile stays, over the
 * new base:
 *
 *     unchanged whiteout                 goes; but it stays in a folder that stays PINNED
 *     unchanged file in the intent,
 *         with the layer that was sent   goes, node and bytes; its times go to `local`. With writers it is
 *                                        the new blob and stays
 *         with a newer layer             stays; the layer after the one that was sent lies over the new blob
 *         with bytes that were not sent  stays; the branch holds the blob that was sent
 *     unchanged file not in the intent   stays (a name that is not published, an open file)
 *     unchanged FOLLOW folder            stays while it has rows, or (KEEP) when it was emptied and its base
 *                                        may have lost it
 *     unchanged NONE folder in a FOLLOW  is FOLLOW and KEEP: it hides nothing any more, so what a push brings
 *                                        there shows
 *     unchanged PINNED or NONE folder    is FOLLOW if the commit has anything below it, else stays
 *     HOME folder in such a PINNED one   is FOLLOW too, changed or not
 *     changed, or in conflict            stays, with all below it
 *
 * A commit has all that a PINNED folder shows or nothing of it. */
#define LOG_MODULE "stage_settle"

#include "stage_internal.h"

#include <string.h>

enum act_kind {
	ACT_DROP_ROW,  /* whiteout */
	ACT_DROP_FILE, /* it is on the branch */
	ACT_BLOB,      /* the same, but it has writers: it is the blob */
	ACT_REBASE,    /* it has newer layers: over the blob */
	ACT_COMMITTED, /* it stays as it is; the branch holds the blob */
	ACT_DIR,       /* a folder's base or KEEP changes */
	ACT_DROP_DIR,
};

struct act {
	enum act_kind kind;
	struct row *row;   /* DROP_ROW, DROP_DIR */
	struct node *node;
	struct layer *over; /* REBASE: the layer that was over the one that was sent; NULL: none was */
	const struct stage_item *item;
	char *path;        /* of the blob, for node and layer each; of a dropped whiteout */
	char *path2;
	unsigned flags;    /* DIR: what they will be */
};

struct plan {
	struct stage *s;
	const char *commit;
	struct stage_intent intent;
	const struct stage_item **by_node, **by_path; /* sorted */
	bool *done; /* of by_node */
	struct stage_changes told; /* times, modes and owners of what leaves the overlay */
	struct act *act;
	size_t n, cap;
};

static void plan_fini(struct plan *p)
{
	for (size_t i = 0; i < p->n; i++) {
		free(p->act[i].path);
		free(p->act[i].path2);
	}
	free(p->act);
	free(p->by_node);
	free(p->by_path);
	free(p->done);
	stage_changes_fini(&p->told);
	stage_intent_fini(&p->intent);
}

static int cmp_node(const void *a, const void *b)
{
	const struct stage_item *const *x = a, *const *y = b;

	return (*x)->node < (*y)->node ? -1 : (*x)->node > (*y)->node;
}

static int cmp_path(const void *a, const void *b)
{
	const struct stage_item *const *x = a, *const *y = b;

	return strcmp((*x)->path, (*y)->path);
}

static int plan_init(struct plan *p)
{
	int rc = journal_get_intent(p->s->journal, &p->intent);
	size_t n = p->intent.n;

	if (rc < 0)
		return rc;
	p->by_node = reallocarray(NULL, n + 1, sizeof(*p->by_node));
	p->by_path = reallocarray(NULL, n + 1, sizeof(*p->by_path));
	p->done = calloc(n + 1, sizeof(*p->done));
	if (!p->by_node || !p->by_path || !p->done)
		return -ENOMEM;
	for (size_t i = 0; i < n; i++)
		p->by_node[i] = p->by_path[i] = &p->intent.items[i];
	qsort(p->by_node, n, sizeof(*p->by_node), cmp_node);
	qsort(p->by_path, n, sizeof(*p->by_path), cmp_path);
	return 0;
}

/* Index of the node's item in by_node, or n. */
static size_t item_of(const struct plan *p, uint64_t node)
{
	size_t lo = 0, hi = p->intent.n;

	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;

		if (p->by_node[mid]->node < node)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo < p->intent.n && p->by_node[lo]->node == node ? lo : p->intent.n;
}

/* Has the commit anything below the folder `path`? */
static bool has_below(const struct plan *p, const char *path)
{
	size_t lo = 0, hi = p->intent.n, len = strlen(path);

	/* Compares as if path ended in a slash. */
	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;
		const char *at = p->by_path[mid]->path;
		int order = strncmp(at, path, len);

		if (order == 0)
			order = (unsigned char)at[len] - '/';
		if (order < 0)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo < p->intent.n && strncmp(p->by_path[lo]->path, path, len) == 0 &&
	        p->by_path[lo]->path[len] == '/';
}

static int plan_add(struct plan *p, const struct act *act)
{
	struct act a = *act;

	if (p->n == p->cap) {
		size_t cap = p->cap ? p->cap * 2 : 64;
		struct act *more = reallocarray(p->act, cap, sizeof(*more));

		if (!more)
			return -ENOMEM;
		p->act = more;
		p->cap = cap;
	}
	if (a.item) {
		a.path = strdup(a.item->path);
		a.path2 = strdup(a.item->path);
		if (!a.path || !a.path2) {
			free(a.path);
			free(a.path2);
			return -ENOMEM;
		}
	}
	p->act[p->n++] = a;
	return 0;
}

static struct layer *layer_of(const struct node *n, uint32_t number)
{
	struct layer *l = n->top;

	while (l && l->rec.layer != number)
		l = l->older;
	return l;
}

/* The layer that lies over `sent`. */
static struct layer *layer_over(const struct node *n, const struct layer *sent)
{
	struct layer *l = n->top;

	while (l && l->below != sent)
		l = l->older;
	return l;
}

/* An unchanged row of a file. */
static int plan_file(struct plan *p, struct row *row, size_t *kept)
{
	struct node *n = row->node;
	size_t at = item_of(p, n->rec.id);
	struct act act = {.node = n, .row = row, .kind = ACT_COMMITTED};
	struct layer *sent;

	if (at == p->intent.n) {
		++*kept;
		return 0;
	}
	act.item = p->by_node[at];
	p->done[at] = true;
	sent = act.item->layer ? layer_of(n, act.item->layer) : NULL;
	if (act.item->layer && !sent) {
		++*kept; /* not what was sent, whatever it is */
		return 0;
	}
	if (n->top == sent) {
		act.kind = n->writers ? ACT_BLOB : ACT_DROP_FILE;
	} else if (sent) {
		act.kind = ACT_REBASE;
		act.over = layer_over(n, sent);
	}
	*kept += act.kind != ACT_DROP_FILE;
	return plan_add(p, &act);
}

/* `n` stands where its parent's base shows it, and that base becomes FOLLOW: so does this, and what is like
 * it below. */
static int plan_home(struct plan *p, struct node *n)
{
	struct act act = {.kind = ACT_DIR, .node = n, .flags = n->rec.flags};
	int rc = plan_add(p, &act);

	for (struct row *r = n->rows; r && rc == 0; r = r->next) {
		if (r->node && r->node->rec.kind == STAGE_DIR && (r->node->rec.flags & JOURNAL_HOME))
			rc = plan_home(p, r->node);
	}
	return rc;
}

static int plan_rows(struct plan *p, struct node *dir, const char *path, enum stage_base_kind base,
                     size_t *kept, bool *emptied);

/* An unchanged row of a folder, in one whose base will be `parent`. */
static int plan_dir(struct plan *p, struct row *row, const char *path, enum stage_base_kind parent,
                    size_t *kept)
{
	struct node *n = row->node;
	bool below = has_below(p, path), emptied = false;
	bool none = n->rec.base == STAGE_BASE_NONE && parent == STAGE_BASE_FOLLOW;
	bool follow = n->rec.base == STAGE_BASE_FOLLOW || below || none ||
	              (parent == STAGE_BASE_FOLLOW && n->rec.base == STAGE_BASE_PINNED &&
	               (n->rec.flags & JOURNAL_HOME));
	struct act act = {.kind = ACT_DIR, .node = n, .row = row, .flags = n->rec.flags};
	size_t rows = 0;
	int rc;

	if (!follow && n->rec.base == STAGE_BASE_PINNED) {
		++*kept;
		return 0;
	}
	rc = plan_rows(p, n, path, follow ? STAGE_BASE_FOLLOW : STAGE_BASE_NONE, &rows, &emptied);
	if (rc < 0)
		return rc;
	if (!follow) {
		++*kept;
		return 0;
	}
	act.flags |= JOURNAL_HOME | (emptied || none ? JOURNAL_KEEP : 0);
	if (below)
		act.flags &= ~JOURNAL_KEEP;
	if (rows == 0 && !(act.flags & JOURNAL_KEEP)) {
		act.kind = ACT_DROP_DIR;
		return plan_add(p, &act);
	}
	++*kept;
	return act.flags != n->rec.flags || n->rec.base != STAGE_BASE_FOLLOW ? plan_add(p, &act) : 0;
}

/* The rows of an unchanged folder, whose base will be `base`. *kept: rows that stay; *emptied: whiteouts
 * went. */
static int plan_rows(struct plan *p, struct node *dir, const char *path, enum stage_base_kind base,
                     size_t *kept, bool *emptied)
{
	int rc = 0;

	for (struct row *r = dir->rows; r && rc == 0; r = r->next) {
		AUTO_FREE char *at = util_printf("%s%s%s", path, *path ? "/" : "", r->name);
		bool dirs = r->node && r->node->rec.kind == STAGE_DIR;

		if (!at)
			return -ENOMEM;
		if (r->conflict) {
			++*kept;
		} else if (r->gen > p->intent.gen) {
			++*kept;
			if (dirs && base == STAGE_BASE_FOLLOW && r->node->rec.base == STAGE_BASE_PINNED &&
			    (r->node->rec.flags & JOURNAL_HOME))
				rc = plan_home(p, r->node);
		} else if (!r->node) {
			struct act act = {.kind = ACT_DROP_ROW, .row = r, .path = strdup(at)};

			rc = act.path ? plan_add(p, &act) : -ENOMEM;
			if (rc < 0)
				free(act.path);
			*emptied = true;
		} else if (dirs) {
			rc = plan_dir(p, r, at, base, kept);
		} else {
			rc = plan_file(p, r, kept);
		}
	}
	return rc;
}

/* What was sent of nodes that have another name now, or stand below such a one. */
static int plan_others(struct plan *p)
{
	int rc = 0;

	for (size_t i = 0; i < p->intent.n && rc == 0; i++) {
		struct act act = {.kind = ACT_COMMITTED, .item = p->by_node[i]};

		act.node = stage_node_find(p->s, act.item->node);
		if (!p->done[i] && act.node && act.node->rec.kind == STAGE_FILE && act.node->row &&
		    (act.item->layer == 0 || layer_of(act.node, act.item->layer)))
			rc = plan_add(p, &act);
	}
	return rc;
}

static struct journal_blob blob_of(const struct plan *p, const struct stage_item *item, char *path)
{
	struct journal_blob b = {.key = item->key, .path = path};

	snprintf(b.commit, sizeof(b.commit), "%s", p->commit);
	return b;
}

/* A file's record once the commit holds `item`. */
static struct journal_node settled_rec(const struct plan *p, const struct act *a)
{
	struct journal_node rec = a->node->rec;

	rec.has_blob = true;
	rec.blob = blob_of(p, a->item, a->path);
	if (a->kind == ACT_BLOB) {
		rec.flags |= JOURNAL_HOME | JOURNAL_TOLD;
		if (rec.state == JOURNAL_INTERRUPTED)
			rec.state = JOURNAL_OPEN;
	}
	return rec;
}

static void journal_layers(struct plan *p, struct act *a)
{
	uint32_t last = a->kind == ACT_BLOB ? UINT32_MAX : a->item->layer;

	for (struct layer *l = a->node->top; l; l = l->older) {
		if (l->rec.layer <= last) {
			l->doomed = true;
			journal_del_layer(p->s->journal, a->node->rec.id, l->rec.layer);
		}
	}
	if (a->over) {
		struct journal_layer rec = a->over->rec;

		rec.lower = JOURNAL_OVER_BLOB;
		rec.lower_layer = 0;
		rec.blob = blob_of(p, a->item, a->path2);
		journal_put_layer(p->s->journal, &rec);
	}
}

static void journal_act(struct plan *p, struct act *a)
{
	struct journal *j = p->s->journal;
	struct journal_node rec;

	switch (a->kind) {
	case ACT_DROP_ROW:
		journal_del_name(j, a->row->dir->rec.id, a->row->name);
		break;
	case ACT_DROP_FILE:
		journal_del_name(j, a->row->dir->rec.id, a->row->name);
		if (stage_node_idle(a->node))
			journal_del_node(j, a->node->rec.id);
		break;
	case ACT_BLOB:
	case ACT_REBASE:
		journal_layers(p, a);
		/* fall through */
	case ACT_COMMITTED:
		rec = settled_rec(p, a);
		journal_put_node(j, &rec);
		break;
	case ACT_DIR:
		rec = a->node->rec;
		rec.base = STAGE_BASE_FOLLOW;
		rec.flags = a->flags;
		journal_put_node(j, &rec);
		break;
	case ACT_DROP_DIR:
		journal_del_name(j, a->row->dir->rec.id, a->row->name);
		journal_del_node(j, a->node->rec.id);
		break;
	}
}

/* The layer's fields one by one: its writer may be reading others of them. */
static void apply_over(struct plan *p, struct act *a)
{
	if (!a->over)
		return;
	stage_layer_unref(a->over->below);
	a->over->below = NULL;
	a->over->rec.lower = JOURNAL_OVER_BLOB;
	a->over->rec.lower_layer = 0;
	a->over->rec.blob = blob_of(p, a->item, STEAL(a->path2));
}

static void apply_act(struct plan *p, struct act *a)
{
	struct stage *s = p->s;
	struct node *n = a->node;
	struct journal_node rec;

	switch (a->kind) {
	case ACT_DROP_ROW:
		stage_row_detach(s, a->row);
		break;
	case ACT_DROP_FILE:
		stage_row_detach(s, a->row);
		if (stage_node_idle(n))
			stage_node_drop(s, n);
		break;
	case ACT_BLOB:
	case ACT_REBASE:
	case ACT_COMMITTED:
		rec = settled_rec(p, a);
		a->path = NULL; /* rec's */
		free(n->rec.blob.path);
		n->rec = rec;
		n->unsaved = false;
		apply_over(p, a);
		stage_sweep(s, n, true);
		if (a->kind == ACT_BLOB)
			n->changed = false;
		break;
	case ACT_DIR:
		stage_node_set_base(s, n, STAGE_BASE_FOLLOW, NULL, NULL);
		stage_node_set_flags(s, n, a->flags);
		break;
	case ACT_DROP_DIR:
		stage_row_detach(s, a->row);
		stage_node_drop(s, n);
		break;
	}
}

void stage_settled_fini(struct stage_settled *s)
{
	for (size_t i = 0; i < s->n; i++)
		free(s->files[i].path);
	free(s->files);
	*s = (struct stage_settled){0};
}

/* What the caller is told, before anything changes. `kept` is set afterwards. */
static int report(struct plan *p, struct stage_settled *ret)
{
	struct stage_settled r = {.files = calloc(p->intent.n + 1, sizeof(*r.files))};

	if (!r.files)
		return -ENOMEM;
	for (size_t i = 0; i < p->intent.n; i++) {
		const struct stage_item *it = &p->intent.items[i];
		struct node *n = stage_node_find(p->s, it->node);
		struct stage_settled_file *f = &r.files[r.n];

		if (it->node == 0)
			continue; /* below a renamed folder, without a node of its own */
		*f = (struct stage_settled_file){.node = it->node, .key = it->key, .path = strdup(it->path)};
		if (!f->path) {
			stage_settled_fini(&r);
			return -ENOMEM;
		}
		if (n)
			stage_node_attr(n, &f->attr);
		f->kept = n && !n->row;
		r.n++;
	}
	*ret = r;
	return 0;
}

/* What was told about names that leave the overlay stays, under the paths that they have on the branch now: first
 * what lay below renamed folders, then without what is deleted, then what had rows. */
static int plan_told(struct plan *p)
{
	struct stage_changes moved = {0};
	int rc = 0;

	for (size_t i = 0; i < p->n && rc == 0; i++) {
		const struct act *a = &p->act[i];
		AUTO_FREE char *to = NULL;

		if (a->kind == ACT_DROP_ROW)
			rc = stage_changes_drop(&p->told, p->s->locals, a->path);
		if ((a->kind != ACT_DIR && a->kind != ACT_DROP_DIR) || a->node->rec.base != STAGE_BASE_PINNED ||
		    (a->node->rec.flags & JOURNAL_HOME))
			continue;
		rc = stage_node_path(a->node, &to);
		if (rc == 0)
			rc = stage_changes_move(&moved, p->s->locals, a->node->rec.base_path, to);
	}
	if (rc == 0)
		rc = stage_changes_join(&p->told, &moved);
	for (size_t i = 0; i < p->n && rc == 0; i++) {
		const struct act *a = &p->act[i];
		AUTO_FREE char *path = NULL;
		struct stage_attr attr;

		if (a->kind == ACT_DROP_FILE) {
			stage_node_attr(a->node, &attr);
			rc = stage_changes_put(&p->told, a->item->path, &a->item->key, &attr);
		} else if (a->kind == ACT_DROP_DIR) {
			rc = stage_node_path(a->node, &path);
			if (rc == 0)
				rc = stage_changes_keep(&p->told, a->node, path);
		}
	}
	stage_changes_fini(&moved);
	return rc;
}

static void finish(struct plan *p, struct stage_settled *told)
{
	struct stage *s = p->s;

	s->committing = s->names_taken = s->has_intent = false;
	snprintf(s->parent, sizeof(s->parent), "%s", p->commit);
	stage_drop_holds(s, HELD_INTENT);
	stage_tx_apply_end(s);
	stage_changes_apply(s, &p->told);
	for (size_t i = 0; i < p->n; i++)
		apply_act(p, &p->act[i]);
	stage_reap_all(s);
	for (size_t i = 0; i < told->n; i++) {
		const struct node *n = stage_node_find(s, told->files[i].node);

		told->files[i].kept = n && (n->row || told->files[i].kept);
	}
}

static int settle(struct plan *p, struct stage_settled *ret)
{
	struct stage_settled told = {0};
	bool emptied = false;
	size_t kept = 0;
	int rc = plan_init(p);

	if (rc == 0)
		rc = plan_rows(p, p->s->root, "", STAGE_BASE_FOLLOW, &kept, &emptied);
	if (rc == 0)
		rc = plan_others(p);
	if (rc == 0)
		rc = plan_told(p);
	if (rc == 0)
		rc = report(p, &told);
	if (rc < 0)
		return rc;
	journal_begin(p->s->journal);
	for (size_t i = 0; i < p->n; i++)
		journal_act(p, &p->act[i]);
	stage_changes_journal(p->s, &p->told);
	journal_put_meta(p->s->journal, "parent", p->commit);
	journal_del_intent(p->s->journal);
	stage_tx_journal_end(p->s);
	rc = journal_end(p->s->journal);
	if (rc < 0) {
		for (size_t i = 0; i < p->n; i++) {
			if (p->act[i].node)
				stage_sweep(p->s, p->act[i].node, false);
		}
		stage_settled_fini(&told);
		return rc;
	}
	finish(p, &told);
	*ret = told;
	return 0;
}

int stage_settle(struct stage *s, const char *commit, struct stage_settled *ret)
{
	struct plan plan = {.s = s, .commit = commit};
	int rc;

	if (strlen(commit) >= sizeof(s->parent))
		return -EINVAL;
	{
		LOCKED(&s->lock);
		rc = settle(&plan, ret);
		plan_fini(&plan);
	}
	(void)stage_housekeep(s, false);
	return rc;
}
