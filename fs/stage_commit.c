/* stage_commit: publication as the stage sees it: bytes are frozen, names are taken, the intent is written
 * down, and stage_settle.c ends it. Not for when and whether (schedule), what is sent (commit), nor for
 * uploading.
 *
 * Any thread; one publication at a time. Its steps and what each leaves behind:
 *
 *     idle -> stage_freeze -> committing -> stage_names -> names taken
 *          -> stage_intent_put -> intent -> stage_settle -> idle
 *
 * stage_release leads back to idle from anywhere and leaves an intent alone; stage_intent_drop takes that
 * away. The intent alone survives the process: stage_settle works from it, whatever this process knows of a
 * commit. */
#define LOG_MODULE "stage_commit"

#include "stage_internal.h"

#include <string.h>

#include "log.h"

/* -- freezing -- */

void stage_freeze_fini(struct stage_freeze *f)
{
	for (size_t i = 0; i < f->n; i++)
		free(f->files[i].path);
	free(f->files);
	*f = (struct stage_freeze){0};
}

/* Layers that nothing lies over or holds any more; inside a transaction. What is below is older, so one
 * pass does. */
static void doom_unreachable(struct stage *s, struct node *n)
{
	for (struct layer *l = n->top; l; l = l->older) {
		if (l == n->top || l->held || l->needed) {
			if (l->below)
				l->below->needed = true;
		} else {
			l->doomed = true;
			journal_del_layer(s->journal, n->rec.id, l->rec.layer);
		}
		l->needed = false;
	}
}

/* After the transaction: the doomed ones go, or do not. */
void stage_sweep(struct stage *s, struct node *n, bool done)
{
	struct layer **at = &n->top;

	while (*at) {
		struct layer *l = *at;

		if (l->doomed && done) {
			*at = l->older;
			stage_layer_drop(s, l);
		} else {
			l->doomed = false;
			at = &l->older;
		}
	}
}

/* Closed by whoever wrote last: only its RELEASE is to come. */
static bool is_flushed(const struct node *n)
{
	return n->rec.state == JOURNAL_CLOSED && n->changed && n->last_pid;
}

static bool may_freeze(const struct node *n, unsigned take)
{
	if (n->rec.kind != STAGE_FILE || !n->row || !n->top || n->busy ||
	    (!(take & STAGE_TAKE_CONFLICT) && stage_in_conflict(n)))
		return false;
	if (n->rec.state == JOURNAL_INTERRUPTED && (!(take & STAGE_TAKE_INTERRUPTED) || n->writers))
		return false;
	return n->listed || !n->writers || ((take & STAGE_TAKE_FLUSHED) && is_flushed(n));
}

/* Inside a transaction: the top layer's bytes are as they will stay. */
void stage_journal_freeze(struct stage *s, struct node *n)
{
	struct journal_layer top = n->top->rec;

	top.frozen = true;
	top.synced = n->top->durable;
	top.size = n->top->size;
	journal_put_layer(s->journal, &top);
	if (n->unsaved)
		journal_put_node(s->journal, &n->rec);
	doom_unreachable(s, n);
}

void stage_apply_freeze(struct stage *s, struct node *n)
{
	n->top->rec.frozen = true;
	n->top->rec.synced = n->top->durable;
	s->unsynced = s->unsynced || !n->top->durable;
	n->top->rec.size = n->top->size;
	n->unsaved = false;
	stage_sweep(s, n, true);
}

/* The newest frozen layer with one of these holds; `held` 0: any that was settled. */
static struct layer *frozen_layer(const struct node *n, unsigned held)
{
	struct layer *l = n->top;

	while (l && (!l->rec.frozen || (held ? !(l->held & held) : l->half)))
		l = l->older;
	return l;
}

static int add_frozen(struct stage_freeze *f, size_t *cap, const struct node *n, const struct layer *l)
{
	char *path;
	int rc;

	if (f->n == *cap) {
		size_t more = *cap ? *cap * 2 : 16;
		struct stage_frozen *files = reallocarray(f->files, more, sizeof(*files));

		if (!files)
			return -ENOMEM;
		f->files = files;
		*cap = more;
	}
	rc = stage_node_path(n, &path);
	if (rc < 0)
		return rc;
	f->files[f->n++] = (struct stage_frozen){
		.node = n->rec.id,
		.layer = l->rec.layer,
		.path = path,
		.size = l->size,
		.has_digests = l->rec.has_digests,
		.sha256 = l->rec.sha256,
		.git = l->rec.git,
	};
	return 0;
}

/* Does `n` belong to the commit? Then *ret_top says whether with its top layer. */
static bool takes_part(const struct node *n, unsigned take, bool *ret_top)
{
	*ret_top = may_freeze(n, take);
	return *ret_top || (n->rec.kind == STAGE_FILE && n->row &&
	                    ((take & STAGE_TAKE_CONFLICT) || !stage_in_conflict(n)) &&
	                    n->rec.state != JOURNAL_INTERRUPTED && frozen_layer(n, 0));
}

/* With nobody writing to what is listed. */
static int freeze_all(struct stage *s, unsigned take, struct stage_freeze *ret)
{
	struct stage_freeze f = {0};
	size_t cap = 0;
	bool top;
	int rc = 0;

	journal_begin(s->journal);
	for (size_t i = 0; i < s->node_buckets; i++) {
		for (struct node *n = s->node_table[i]; n; n = n->hash_next) {
			if (takes_part(n, take, &top) && top && !n->top->rec.frozen)
				stage_journal_freeze(s, n);
			/* What is answered, while it can still fail: the top one will be frozen. */
			if (rc == 0 && takes_part(n, take, &top))
				rc = add_frozen(&f, &cap, n, top ? n->top : frozen_layer(n, 0));
		}
	}
	if (rc < 0)
		journal_fail(s->journal, rc);
	rc = journal_end(s->journal);
	for (size_t i = 0; i < s->node_buckets; i++) {
		for (struct node *n = s->node_table[i]; n; n = n->hash_next) {
			if (rc < 0) {
				stage_sweep(s, n, false);
				continue;
			}
			if (!takes_part(n, take, &top))
				continue;
			if (top && !n->top->rec.frozen)
				stage_apply_freeze(s, n);
			n->top->half = n->top->half && !top;
			frozen_layer(n, 0)->held |= HELD_COMMIT;
		}
	}
	if (rc < 0) {
		stage_freeze_fini(&f);
		return rc;
	}
	s->committing = true;
	*ret = f;
	return 0;
}

struct listed {
	struct node **nodes;
	size_t n, cap;
};

static int listed_add(struct listed *l, struct node *n)
{
	if (l->n == l->cap) {
		size_t more = l->cap ? l->cap * 2 : 16;
		struct node **nodes = reallocarray(l->nodes, more, sizeof(struct node *));

		if (!nodes)
			return -ENOMEM;
		l->nodes = nodes;
		l->cap = more;
	}
	l->nodes[l->n++] = n;
	return 0;
}

/* The files that are taken whoever has them open. */
static int list_files(struct stage *s, const uint64_t *nodes, size_t n, unsigned take, struct listed *ret)
{
	int rc = 0;

	for (size_t i = 0; i < n && rc == 0; i++) {
		struct node *file = stage_node_find(s, nodes[i]);

		if (file && file->rec.kind == STAGE_FILE)
			rc = listed_add(ret, file);
	}
	for (size_t i = 0; (take & STAGE_TAKE_APPENDED) && i < s->node_buckets && rc == 0; i++) {
		for (struct node *file = s->node_table[i]; file && rc == 0; file = file->hash_next) {
			if (file->rec.kind == STAGE_FILE && file->row && file->writers && file->appended &&
			    file->last_pid)
				rc = listed_add(ret, file);
		}
	}
	return rc;
}

int stage_freeze(struct stage *s, const uint64_t *nodes, size_t n, unsigned take, struct stage_freeze *ret)
{
	struct listed listed = {0};
	size_t entered = 0;
	int rc;

	{
		LOCKED(&s->lock);

		rc = list_files(s, nodes, n, take, &listed);
		/* All of them before the first is waited for: then they stay, though the lock is dropped. */
		for (size_t i = 0; rc == 0 && i < listed.n; i++)
			listed.nodes[i]->freezers++;
		for (; rc == 0 && entered < listed.n; entered++)
			stage_freeze_enter(s, listed.nodes[entered]);
		for (size_t i = 0; rc == 0 && i < listed.n; i++)
			listed.nodes[i]->listed = true;
		if (rc == 0)
			rc = freeze_all(s, take, ret);
		for (size_t i = 0; i < entered; i++) {
			listed.nodes[i]->listed = false;
			listed.nodes[i]->freezers--;
			stage_freeze_leave(s, listed.nodes[i]);
		}
	}
	free(listed.nodes);
	(void)stage_housekeep(s, false);
	return rc;
}

int stage_freeze_node(struct stage *s, uint64_t node, uint32_t *ret_layer)
{
	LOCKED(&s->lock);
	uint32_t layer = 0;
	int rc = 0;
	struct node *n = stage_file_find(s, node, &rc);

	if (!n)
		return rc;
	stage_freeze_enter(s, n);
	if (n->row && n->top && !n->top->rec.frozen) {
		journal_begin(s->journal);
		stage_journal_freeze(s, n);
		rc = journal_end(s->journal);
		if (rc == 0)
			stage_apply_freeze(s, n);
		else
			stage_sweep(s, n, false);
	}
	if (rc == 0 && n->row && n->top) {
		n->top->held |= HELD_FSYNC;
		n->top->half = false;
		layer = n->top->rec.layer;
	}
	stage_freeze_leave(s, n);
	if (rc == 0 && ret_layer)
		*ret_layer = layer;
	return rc;
}

int stage_set_digests(struct stage *s, uint64_t node, uint32_t layer, const struct blob_key *sha256,
                      const struct blob_key *git)
{
	LOCKED(&s->lock);
	struct node *n = stage_node_find(s, node);
	struct layer *l = n ? n->top : NULL;
	struct journal_layer rec;
	int rc;

	while (l && l->rec.layer != layer)
		l = l->older;
	if (!l || !l->rec.frozen)
		return -ENOENT;
	if (sha256->size != l->size || git->size != l->size)
		return -EINVAL;
	rec = l->rec;
	rec.has_digests = true;
	rec.sha256 = *sha256;
	rec.git = *git;
	journal_begin(s->journal);
	journal_put_layer(s->journal, &rec);
	rc = journal_end(s->journal);
	if (rc == 0) {
		l->rec.has_digests = true;
		l->rec.sha256 = *sha256;
		l->rec.git = *git;
	}
	return rc;
}

/* -- names -- */

void stage_names_fini(struct stage_names *n)
{
	for (size_t i = 0; i < n->n; i++) {
		free(n->rows[i].name);
		free(n->rows[i].blob_path);
		stage_base_fini(&n->rows[i].base);
	}
	free(n->rows);
	*n = (struct stage_names){0};
}

static int file_row(const struct node *n, struct stage_row *to)
{
	const struct layer *l = frozen_layer(n, HELD_COMMIT);

	to->is_blob = !n->top;
	to->newer = n->writers || n->top != l;
	if (l) {
		to->frozen = true;
		to->layer = l->rec.layer;
		to->size = l->size;
		to->has_digests = l->rec.has_digests;
		to->sha256 = l->rec.sha256;
		to->git = l->rec.git;
	}
	if (!n->rec.has_blob)
		return 0;
	to->has_committed = n->top != NULL;
	to->blob = n->rec.blob.key;
	to->size = l ? l->size : n->rec.blob.key.size;
	memcpy(to->blob_commit, n->rec.blob.commit, sizeof(to->blob_commit));
	to->blob_path = strdup(n->rec.blob.path ? n->rec.blob.path : "");
	return to->blob_path ? 0 : -ENOMEM;
}

static int dir_row(const struct node *n, struct stage_row *to)
{
	to->base.kind = n->rec.base;
	if (n->rec.base != STAGE_BASE_PINNED)
		return 0;
	memcpy(to->base.commit, n->rec.base_commit, sizeof(to->base.commit));
	to->base.path = strdup(n->rec.base_path);
	return to->base.path ? 0 : -ENOMEM;
}

/* Folders before what is in them. */
static int add_rows(struct stage_names *to, size_t *cap, const struct node *dir, bool conflict)
{
	for (const struct row *r = dir->rows; r; r = r->next) {
		struct stage_row *row;
		bool below;
		int rc = 0;

		if (to->n == *cap) {
			size_t more = *cap ? *cap * 2 : 64;
			struct stage_row *rows = reallocarray(to->rows, more, sizeof(*rows));

			if (!rows)
				return -ENOMEM;
			to->rows = rows;
			*cap = more;
		}
		row = &to->rows[to->n++];
		*row = (struct stage_row){.parent = dir->rec.id, .kind = STAGE_WHITEOUT,
		                          .conflict = conflict || r->conflict, .name = strdup(r->name)};
		if (!row->name)
			return -ENOMEM;
		if (!r->node)
			continue;
		row->node = r->node->rec.id;
		row->kind = r->node->rec.kind;
		row->conflict = row->conflict || r->node->rec.state == JOURNAL_CONFLICT;
		below = row->conflict;
		rc = row->kind == STAGE_FILE ? file_row(r->node, row) : dir_row(r->node, row);
		if (rc == 0 && r->node->rec.kind == STAGE_DIR)
			rc = add_rows(to, cap, r->node, below);
		if (rc < 0)
			return rc;
	}
	return 0;
}

int stage_names(struct stage *s, struct stage_names *ret)
{
	LOCKED(&s->lock);
	struct stage_names names = {.gen = s->gen};
	size_t cap = 0;
	int rc = add_rows(&names, &cap, s->root, false);

	if (rc < 0) {
		stage_names_fini(&names);
		return rc;
	}
	s->committing = s->names_taken = true;
	*ret = names;
	return 0;
}

/* The commit had what it held of each file; so it had what fsyncs waited for up to there. */
void stage_drop_holds(struct stage *s, unsigned also)
{
	for (size_t i = 0; i < s->node_buckets; i++) {
		for (struct node *n = s->node_table[i]; n; n = n->hash_next) {
			bool had = false;

			for (struct layer *l = n->top; l; l = l->older) {
				had = had || (l->held & HELD_COMMIT);
				l->held &= ~(HELD_COMMIT | also | (had ? HELD_FSYNC : 0));
			}
		}
	}
}

void stage_release(struct stage *s)
{
	{
		LOCKED(&s->lock);

		s->committing = s->names_taken = false;
		stage_drop_holds(s, 0);
		stage_reap_all(s);
	}
	(void)stage_housekeep(s, false);
}

/* -- the intent -- */

void stage_intent_fini(struct stage_intent *i)
{
	for (size_t k = 0; k < i->n; k++)
		free((char *)i->items[k].path);
	free(i->items);
	*i = (struct stage_intent){0};
}

static int put_intent(struct stage *s, const struct stage_intent *intent)
{
	int rc;

	journal_begin(s->journal);
	journal_put_intent(s->journal, intent);
	rc = journal_end(s->journal);
	if (rc < 0)
		return rc;
	s->has_intent = true;
	for (size_t i = 0; i < s->node_buckets; i++) {
		for (struct node *n = s->node_table[i]; n; n = n->hash_next) {
			for (struct layer *l = n->top; l; l = l->older)
				l->held &= ~HELD_INTENT; /* of an intent that this one replaces */
		}
	}
	for (size_t i = 0; i < intent->n; i++) {
		struct node *n = stage_node_find(s, intent->items[i].node);

		for (struct layer *l = n ? n->top : NULL; l; l = l->older) {
			if (l->rec.layer == intent->items[i].layer)
				l->held |= HELD_INTENT;
		}
	}
	return 0;
}

int stage_intent_put(struct stage *s, const struct stage_intent *intent)
{
	int rc;

	{
		LOCKED(&s->lock);
		rc = put_intent(s, intent);
	}
	if (rc < 0)
		return rc;
	rc = stage_housekeep(s, true);
	/* it must not be sent without a durable record, so it never is */
	if (rc < 0 && stage_intent_drop(s) < 0)
		log_warn("%s: an intent that was not sent stays until the next one", s->place.dir);
	return rc;
}

int stage_intent_get(struct stage *s, struct stage_intent *ret)
{
	LOCKED(&s->lock);

	return journal_get_intent(s->journal, ret);
}

int stage_intent_drop(struct stage *s)
{
	int rc;

	{
		LOCKED(&s->lock);
		journal_begin(s->journal);
		journal_del_intent(s->journal);
		rc = journal_end(s->journal);
		if (rc < 0)
			return rc;
		s->has_intent = false;
		for (size_t i = 0; i < s->node_buckets; i++) {
			for (struct node *n = s->node_table[i]; n; n = n->hash_next) {
				for (struct layer *l = n->top; l; l = l->older)
					l->held &= ~HELD_INTENT;
			}
		}
		stage_reap_all(s);
	}
	(void)stage_housekeep(s, false);
	return 0;
}
