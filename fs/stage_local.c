/* stage_local: times, modes and owners that the user gave to what the branch holds, and which nothing else in
 * the overlay needs a node for. Not for files and folders with a node, which carry their own.
 *
 * All of them are in memory, by the path at which their base has the file or folder (below a renamed folder
 * that is its former path). A file's count for one content. A folder's count until its git tree changes by
 * somebody else's push: our own commits change it too, so one that was put without its tree takes that of the
 * next look at it.
 *
 * Under the stage's lock; after stage_locals_keep under that of whoever has them. */
#define LOG_MODULE "stage_local"

#include "stage_internal.h"

#include <string.h>

#define BUCKETS_MIN 64

struct local {
	struct local *next;
	struct journal_local rec;
	bool unsaved; /* the journal does not know its key yet */
	bool stale;   /* its folder was seen with another tree */
};

struct stage_locals {
	struct local **table;
	size_t buckets, n;
};

/* -- the table -- */

static struct local **slot(const struct stage_locals *t, const char *path)
{
	struct local **at = &t->table[hash_text64(0, path, strlen(path)) & (t->buckets - 1)];

	while (*at && strcmp((*at)->rec.path, path) != 0)
		at = &(*at)->next;
	return at;
}

static void local_free(struct local *l)
{
	if (l)
		free(l->rec.path);
	free(l);
}

struct stage_locals *stage_locals_new(void)
{
	struct stage_locals *t = calloc(1, sizeof(*t));

	if (t)
		t->table = calloc(BUCKETS_MIN, sizeof(*t->table));
	if (!t || !t->table) {
		free(t);
		return NULL;
	}
	t->buckets = BUCKETS_MIN;
	return t;
}

void stage_locals_free(struct stage_locals *t)
{
	if (!t)
		return;
	for (size_t i = 0; i < t->buckets; i++) {
		while (t->table[i]) {
			struct local *l = t->table[i];

			t->table[i] = l->next;
			local_free(l);
		}
	}
	free(t->table);
	free(t);
}

size_t stage_locals_count(const struct stage_locals *t)
{
	return t->n;
}

/* Growing is a matter of speed: without memory the chains get longer. */
static void grow(struct stage_locals *t)
{
	size_t n_old = t->buckets;
	struct local **old = t->table;
	struct local **table = t->n < n_old ? NULL : calloc(n_old * 2, sizeof(struct local *));

	if (!table)
		return;
	t->table = table;
	t->buckets = n_old * 2;
	for (size_t i = 0; i < n_old; i++) {
		while (old[i]) {
			struct local *l = old[i], **at = slot(t, l->rec.path);

			old[i] = l->next;
			l->next = *at;
			*at = l;
		}
	}
	free(old);
}

static void insert(struct stage_locals *t, struct local *l)
{
	struct local **at;

	grow(t);
	at = slot(t, l->rec.path);
	if (*at) {
		l->next = (*at)->next;
		local_free(*at);
	} else {
		t->n++;
	}
	*at = l;
}

static void take_out(struct stage_locals *t, const char *path)
{
	struct local **at = slot(t, path), *l = *at;

	if (!l)
		return;
	*at = l->next;
	local_free(l);
	t->n--;
}

struct stage_locals *stage_locals_copy(const struct stage_locals *t)
{
	struct stage_locals *copy = stage_locals_new();

	for (size_t i = 0; copy && i < t->buckets; i++) {
		for (const struct local *l = t->table[i]; l; l = l->next) {
			struct local *twin = calloc(1, sizeof(*twin));

			if (twin)
				*twin = (struct local){.rec = l->rec, .unsaved = l->unsaved, .stale = l->stale};
			if (twin)
				twin->rec.path = strdup(l->rec.path);
			if (!twin || !twin->rec.path) {
				free(twin);
				stage_locals_free(copy);
				return NULL;
			}
			insert(copy, twin);
		}
	}
	return copy;
}

/* -- loading -- */

int stage_locals_load(struct stage_locals *t, struct journal_local *rec)
{
	struct local *l = calloc(1, sizeof(*l));

	if (!l)
		return -ENOMEM;
	l->rec = *rec;
	rec->path = NULL;
	insert(t, l);
	return 0;
}

/* -- changes -- */

void stage_changes_fini(struct stage_changes *c)
{
	for (size_t i = 0; i < c->n; i++) {
		free(c->change[i].drop);
		local_free(c->change[i].put);
	}
	free(c->change);
	*c = (struct stage_changes){0};
}

static int add_change(struct stage_changes *c, char *drop, struct local *put)
{
	if (c->n == c->cap) {
		size_t cap = c->cap ? c->cap * 2 : 16;
		struct stage_change *more = reallocarray(c->change, cap, sizeof(*more));

		if (!more)
			return -ENOMEM;
		c->change = more;
		c->cap = cap;
	}
	c->change[c->n++] = (struct stage_change){.drop = drop, .put = put};
	return 0;
}

int stage_changes_put(struct stage_changes *c, const char *path, const struct blob_key *key,
                      const struct stage_attr *attr)
{
	struct local *l = calloc(1, sizeof(*l));
	int rc = -ENOMEM;

	if (l) {
		l->rec = (struct journal_local){.path = strdup(path), .has_key = key, .attr = *attr};
		if (key)
			l->rec.key = *key;
		rc = l->rec.path ? add_change(c, NULL, l) : -ENOMEM;
	}
	if (rc < 0)
		local_free(l);
	return rc;
}

static int drop(struct stage_changes *c, const char *path)
{
	char *copy = strdup(path);
	int rc = copy ? add_change(c, copy, NULL) : -ENOMEM;

	if (rc < 0)
		free(copy);
	return rc;
}

static bool is_below(const char *path, const char *top)
{
	size_t len = strlen(top);

	return strncmp(path, top, len) == 0 && (path[len] == '/' || path[len] == '\0');
}

int stage_changes_drop(struct stage_changes *c, const struct stage_locals *t, const char *top)
{
	int rc = 0;

	for (size_t i = 0; i < t->buckets; i++) {
		for (const struct local *l = t->table[i]; l && rc == 0; l = l->next) {
			if (is_below(l->rec.path, top))
				rc = drop(c, l->rec.path);
		}
	}
	return rc;
}

int stage_changes_move(struct stage_changes *c, const struct stage_locals *t, const char *from,
                       const char *to)
{
	int rc = 0;

	for (size_t i = 0; i < t->buckets; i++) {
		for (const struct local *l = t->table[i]; l && rc == 0; l = l->next) {
			AUTO_FREE char *path = NULL;

			if (!is_below(l->rec.path, from) || strlen(l->rec.path) == strlen(from))
				continue;
			path = util_printf("%s%s", to, l->rec.path + strlen(from));
			rc = path ? stage_changes_put(c, path, l->rec.has_key ? &l->rec.key : NULL,
			                              &l->rec.attr) : -ENOMEM;
		}
	}
	return rc;
}

int stage_changes_join(struct stage_changes *c, struct stage_changes *more)
{
	int rc = 0;

	for (size_t i = 0; i < more->n && rc == 0; i++) {
		struct stage_change *m = &more->change[i];

		rc = add_change(c, m->drop, m->put);
		if (rc == 0)
			*m = (struct stage_change){0};
	}
	return rc;
}

void stage_changes_journal(struct stage *s, const struct stage_changes *c)
{
	for (size_t i = 0; i < c->n; i++) {
		if (c->change[i].put)
			journal_put_local(s->journal, &c->change[i].put->rec);
		else
			journal_del_local(s->journal, c->change[i].drop);
	}
}

void stage_changes_apply(struct stage *s, struct stage_changes *c)
{
	for (size_t i = 0; i < c->n; i++) {
		if (c->change[i].put)
			insert(s->locals, STEAL(c->change[i].put));
		else
			take_out(s->locals, c->change[i].drop);
	}
	stage_changes_fini(c);
}

static int make_changes(struct stage *s, struct stage_changes *c)
{
	int rc;

	journal_begin(s->journal);
	stage_changes_journal(s, c);
	rc = journal_end(s->journal);
	if (rc == 0)
		stage_changes_apply(s, c);
	stage_changes_fini(c);
	return rc;
}

/* -- asking and telling -- */

int stage_locals_get(struct stage_locals *t, const char *path, enum stage_kind kind,
                     const struct blob_key *key, struct stage_attr *ret)
{
	struct local *l = *slot(t, path);

	if (!l || l->rec.attr.kind != kind)
		return -ENOENT;
	if (key && !l->rec.has_key) {
		l->rec.key = *key;
		l->rec.has_key = l->unsaved = true;
	}
	if (key)
		l->stale = !hash_key_equal(&l->rec.key, key);
	if (l->stale)
		return -ENOENT;
	*ret = l->rec.attr;
	return 0;
}

int stage_local_get(struct stage *s, const char *path, enum stage_kind kind, const struct blob_key *key,
                    struct stage_attr *ret)
{
	LOCKED(&s->lock);

	return stage_locals_get(s->locals, path, kind, key, ret);
}

int stage_local_put(struct stage *s, const char *path, const struct blob_key *key,
                    const struct stage_attr *attr)
{
	LOCKED(&s->lock);
	struct stage_changes c = {0};
	int rc = stage_changes_put(&c, path, key, attr);

	return rc < 0 ? rc : make_changes(s, &c);
}

int stage_date_get(struct stage *s, const char *commit, int64_t *ret)
{
	LOCKED(&s->lock);
	AUTO_FREE char *text = NULL;
	int rc = journal_get_meta(s->journal, "date", &text);
	size_t len = strlen(commit);

	if (rc < 0)
		return rc;
	if (strncmp(text, commit, len) != 0 || text[len] != ' ')
		return -ENOENT;
	*ret = strtoll(text + len, NULL, 10);
	return 0;
}

int stage_date_put(struct stage *s, const char *commit, int64_t date_s)
{
	LOCKED(&s->lock);
	AUTO_FREE char *text = util_printf("%s %lld", commit, (long long)date_s);

	if (!text)
		return -ENOMEM;
	journal_begin(s->journal);
	journal_put_meta(s->journal, "date", text);
	return journal_end(s->journal);
}

/* -- at the end -- */

/* What a folder that loses its node was told. */
int stage_changes_keep(struct stage_changes *c, const struct node *n, const char *path)
{
	struct stage_attr attr;

	if (!(n->rec.flags & (JOURNAL_HAS_MODE | JOURNAL_HAS_OWNER | JOURNAL_HAS_MTIME)))
		return 0;
	stage_node_attr(n, &attr);
	return stage_changes_put(c, path, NULL, &attr);
}

static int collect_unsaved(struct stage *s, struct stage_changes *c)
{
	int rc = 0;

	for (size_t i = 0; i < s->locals->buckets; i++) {
		for (struct local *l = s->locals->table[i]; l && rc == 0; l = l->next) {
			if (l->unsaved)
				rc = stage_changes_put(c, l->rec.path, &l->rec.key, &l->rec.attr);
		}
	}
	return rc;
}

int stage_locals_save(struct stage *s)
{
	struct stage_changes c = {0};
	int rc = collect_unsaved(s, &c);

	if (rc == 0 && c.n)
		rc = make_changes(s, &c);
	stage_changes_fini(&c);
	return rc;
}

static int keep_below(const struct node *dir, struct stage_changes *kept)
{
	AUTO_FREE char *path = NULL;
	int rc = stage_base_path(dir, &path);

	if (rc == 0)
		rc = stage_changes_keep(kept, dir, path);
	for (const struct row *r = dir->rows; r && rc == 0; r = r->next) {
		if (r->node && r->node->rec.kind == STAGE_DIR)
			rc = keep_below(r->node, kept);
	}
	return rc;
}

struct stage_locals *stage_locals_keep(struct stage *s)
{
	LOCKED(&s->lock);
	struct stage_locals *t = stage_locals_copy(s->locals);
	struct stage_changes kept = {0};
	int rc = t ? keep_below(s->root, &kept) : -ENOMEM;

	for (size_t i = 0; rc == 0 && i < kept.n; i++)
		insert(t, STEAL(kept.change[i].put));
	stage_changes_fini(&kept);
	if (rc < 0) {
		stage_locals_free(t);
		return NULL;
	}
	return t;
}
