/* commit_plan: which files a commit adds and which it deletes.
 *
 * Not for whether the branch moved meanwhile (commit) nor for bytes (upload). The thread of a commit calls
 * it.
 *
 * Each row of the overlay says something about one path of the parent commit:
 *
 *     whiteout                          delete the file, or every file of the folder, that is there
 *     folder, FOLLOW                    nothing: only its own rows count
 *     folder, NONE or PINNED            delete every file of what is there; PINNED: add every file of the
 *                                       folder that it was, but for names that have a row
 *     file, frozen                      add its frozen bytes
 *     file, unsettled, once committed   add its committed bytes under this name
 *     file, unsettled, new              keep whatever is there: its successor is not finished
 *
 * keep beats add beats delete for one path. Names that are not published (design.md 3.4) add nothing; what
 * the parent holds by that name is ordinary, so it can be changed and deleted. What comes along unchanged
 * in a renamed folder is ordinary too, unless the folder's new name is ignored. */
#define LOG_MODULE "commit_plan"

#include "commit_plan.h"

#include <assert.h>
#include <errno.h>
#include <search.h>
#include <string.h>

#include "log.h"

#define TITLE_NAME_MAX 80
#define CHANGES_MAX ((size_t)1 << 20) /* forty times what the Hub takes in one commit (hub-api.md 6.7) */

/* A folder of the overlay. */
struct dir {
	uint64_t node;
	char *path;
	bool ignored; /* nothing below it is published */
	bool covered; /* everything that the parent has below it is deleted already, unless added */
};

struct planner {
	const struct commit_plan_env *env;
	const struct stage_names *names;
	struct hub_error *err;
	const struct stage_row **by_name; /* the rows by parent and name */
	void *dirs;                       /* tsearch(3) tree of struct dir by node */
	struct commit_plan plan;
	size_t cap, cap_folders, cap_left, cap_took;
	char **keeps;                     /* paths at or below which nothing is deleted */
	size_t n_keeps, cap_keeps;
};

static void change_fini(struct commit_change *c)
{
	free(c->path);
	free(c->blob_path);
}

void commit_plan_fini(struct commit_plan *p)
{
	for (size_t i = 0; i < p->n; i++)
		change_fini(&p->changes[i]);
	free(p->changes);
	for (size_t i = 0; i < p->n_left; i++)
		free(p->left[i].path);
	free(p->left);
	for (size_t i = 0; i < p->n_folders; i++)
		free(p->folders[i]);
	free(p->folders);
	free(p->took);
	*p = (struct commit_plan){0};
}

static void dir_free(void *node)
{
	struct dir *d = node;

	free(d->path);
	free(d);
}

static void planner_fini(struct planner *p)
{
	tdestroy(p->dirs, dir_free);
	free(p->by_name);
	for (size_t i = 0; i < p->n_keeps; i++)
		free(p->keeps[i]);
	free(p->keeps);
	commit_plan_fini(&p->plan);
}

int commit_plan_stat(struct tree *tree, const struct repo_id *repo, const char *commit, const char *path,
                     struct tree_entry *ret, struct hub_error *err)
{
	int r = tree_stat(tree, repo, commit, path, true, ret, err);

	if (r == -ENOENT || r == -ENOTDIR) {
		if (err)
			*err = (struct hub_error){.retry_after_s = -1}; /* it is no failure here */
		return 0;
	}
	return r < 0 ? r : 1;
}

/* -- lists -- */

static int text_add(char ***list, size_t *n, size_t *cap, const char *text)
{
	char *copy;

	if (*n == *cap) {
		size_t more = *cap ? *cap * 2 : 16;
		char **grown = more > CHANGES_MAX ? NULL : reallocarray(*list, more, sizeof(*grown));

		if (!grown)
			return more > CHANGES_MAX ? -EFBIG : -ENOMEM;
		*list = grown;
		*cap = more;
	}
	copy = strdup(text);
	if (!copy)
		return -ENOMEM;
	(*list)[(*n)++] = copy;
	return 0;
}

static int take(struct planner *p, const struct stage_row *row)
{
	if (p->plan.n_took == p->cap_took) {
		size_t more = p->cap_took ? p->cap_took * 2 : 16;
		const struct stage_row **grown = reallocarray(p->plan.took, more, sizeof(*grown));

		if (!grown)
			return -ENOMEM;
		p->plan.took = grown;
		p->cap_took = more;
	}
	p->plan.took[p->plan.n_took++] = row;
	return 0;
}

/* Adds a change for `path`, to be filled by the caller. */
static int change_add(struct planner *p, enum commit_change_kind kind, const char *path,
                      struct commit_change **ret)
{
	struct commit_change *c;

	if (p->plan.n == p->cap) {
		size_t more = p->cap ? p->cap * 2 : 64;
		struct commit_change *grown;

		if (more > CHANGES_MAX)
			return -EFBIG;
		grown = reallocarray(p->plan.changes, more, sizeof(*grown));
		if (!grown)
			return -ENOMEM;
		p->plan.changes = grown;
		p->cap = more;
	}
	c = &p->plan.changes[p->plan.n];
	*c = (struct commit_change){.kind = kind, .path = strdup(path)};
	if (!c->path)
		return -ENOMEM;
	p->plan.n++;
	if (ret)
		*ret = c;
	return 0;
}

static int add_blob(struct planner *p, const char *path, const struct stage_row *row,
                    const struct blob_key *blob, const char *commit, const char *blob_path)
{
	struct commit_change *c;
	int r = change_add(p, COMMIT_ADD, path, &c);

	if (r < 0)
		return r;
	c->row = row;
	c->blob = *blob;
	snprintf(c->commit, sizeof(c->commit), "%s", commit);
	c->blob_path = strdup(blob_path ? blob_path : "");
	return c->blob_path ? 0 : -ENOMEM;
}

static char *join(const char *dir, const char *name)
{
	return *dir ? util_printf("%s/%s", dir, name) : strdup(name);
}

/* -- what the parent has -- */

struct held {
	bool any;
	enum hub_entry_kind kind;
};

static int get_held(struct planner *p, const char *path, struct held *ret)
{
	struct tree_entry ent;
	int r = commit_plan_stat(p->env->tree, p->env->repo, p->env->parent, path, &ent, p->err);

	if (r < 0)
		return r;
	*ret = (struct held){.any = r == 1, .kind = r == 1 ? ent.kind : HUB_ENTRY_OTHER};
	return 0;
}

static int delete_one(void *arg, const char *path, const struct tree_entry *entry)
{
	return change_add(arg, COMMIT_DELETE, path, NULL);
}

static int delete_held(struct planner *p, const char *path, const struct held *held)
{
	int r;

	if (!held->any)
		return 0;
	if (held->kind != HUB_ENTRY_DIR)
		return change_add(p, COMMIT_DELETE, path, NULL);
	r = text_add(&p->plan.folders, &p->plan.n_folders, &p->cap_folders, path);
	if (r < 0)
		return r;
	return tree_walk(p->env->tree, p->env->repo, p->env->parent, path, delete_one, p, p->err);
}

/* -- folders -- */

static int by_node(const void *a, const void *b)
{
	const struct dir *x = a, *y = b;

	return (x->node > y->node) - (x->node < y->node);
}

static int row_cmp(const void *a, const void *b)
{
	const struct stage_row *x = *(const struct stage_row *const *)a;
	const struct stage_row *y = *(const struct stage_row *const *)b;

	if (x->parent != y->parent)
		return x->parent < y->parent ? -1 : 1;
	return strcmp(x->name, y->name);
}

static bool has_row(const struct planner *p, uint64_t parent, const char *name)
{
	struct stage_row want = {.parent = parent, .name = (char *)name};
	const struct stage_row *key = &want;

	return bsearch(&key, p->by_name, p->names->n, sizeof(*p->by_name), row_cmp) != NULL;
}

/* Takes `path` over. */
static int dir_add(struct planner *p, uint64_t node, char *path, bool ignored, bool covered)
{
	struct dir *d = malloc(sizeof(*d));
	struct dir **at;

	if (!d) {
		free(path);
		return -ENOMEM;
	}
	*d = (struct dir){.node = node, .path = path, .ignored = ignored, .covered = covered};
	at = tsearch(d, &p->dirs, by_node);
	if (!at || *at != d) {
		assert(!at); /* a node has one name */
		dir_free(d);
		return -ENOMEM;
	}
	return 0;
}

struct pinned {
	struct planner *p;
	const char *commit;
	const char *from, *to; /* folder there and here */
};

static int pinned_one(void *arg, const char *path, const struct tree_entry *entry)
{
	struct pinned *in = arg;
	const char *rest = path + strlen(in->from);
	AUTO_FREE char *to = NULL;

	if (entry->kind != HUB_ENTRY_FILE) {
		log_warn("%s is neither a file nor a folder and does not come along to %s", path, in->to);
		return 0;
	}
	to = join(in->to, *rest == '/' ? rest + 1 : rest);
	if (!to)
		return -ENOMEM;
	return add_blob(in->p, to, NULL, &entry->key, in->commit, path);
}

/* A folder is not in `commit`. 0: it was emptied by an earlier commit, and git has no empty folders. -ESTALE: the commit itself is
 * gone (a squashed history), which proves nothing about the folder. */
static int check_commit(struct planner *p, const char *commit)
{
	CLEANUP(tree_listing_unrefp) struct tree_listing *root = NULL;
	int r = tree_list(p->env->tree, p->env->repo, commit, "", true, &root, p->err);

	return r == -ENOENT ? -ESTALE : r;
}

/* Adds what lies in the committed folder that `row` was, but for names that have a row of their own. */
static int add_pinned(struct planner *p, const struct stage_row *row, const char *path)
{
	const char *commit = row->base.commit, *from = row->base.path;
	CLEANUP(tree_listing_unrefp) struct tree_listing *list = NULL;
	int r = tree_list(p->env->tree, p->env->repo, commit, from, true, &list, p->err);

	if (r == -ENOENT || r == -ENOTDIR)
		return check_commit(p, commit);
	for (size_t i = 0; r == 0 && i < list->n; i++) {
		const struct tree_entry *ent = &list->entries[i];
		AUTO_FREE char *ent_from = NULL;
		AUTO_FREE char *ent_to = NULL;
		struct pinned in = {.p = p, .commit = commit};

		if (has_row(p, row->node, ent->name))
			continue;
		ent_from = join(from, ent->name);
		ent_to = join(path, ent->name);
		if (!ent_from || !ent_to)
			return -ENOMEM;
		in.from = ent_from;
		in.to = ent_to;
		if (ent->kind == HUB_ENTRY_DIR) {
			r = tree_walk(p->env->tree, p->env->repo, commit, ent_from, pinned_one, &in, p->err);
		} else if (ent->kind == HUB_ENTRY_FILE) {
			r = add_blob(p, ent_to, NULL, &ent->key, commit, ent_from);
		} else {
			log_warn("%s is neither a file nor a folder and does not come along to %s", ent_from,
			         path);
		}
	}
	return r;
}

static int plan_dir(struct planner *p, const struct dir *parent, const struct stage_row *row,
                    const char *path, const struct held *held)
{
	bool ignored = parent->ignored || (!held->any && ignore_match_name(p->env->ignore, row->name, true));
	bool covered = parent->covered;
	char *copy;
	int r = 0;

	if (row->base.kind != STAGE_BASE_FOLLOW && !covered) {
		r = delete_held(p, path, held);
		covered = true;
	}
	if (r == 0 && row->base.kind != STAGE_BASE_FOLLOW && (held->any || row->base.kind == STAGE_BASE_PINNED))
		r = take(p, row);
	if (r == 0 && row->base.kind == STAGE_BASE_PINNED && !ignored)
		r = add_pinned(p, row, path);
	if (r < 0)
		return r;
	copy = strdup(path);
	return copy ? dir_add(p, row->node, copy, ignored, covered) : -ENOMEM;
}

/* -- files -- */

static int leave_out(struct planner *p, const char *path, const struct stage_row *row)
{
	struct commit_plan *plan = &p->plan;
	char *copy;

	if (plan->n_left == p->cap_left) {
		size_t more = p->cap_left ? p->cap_left * 2 : 16;
		struct commit_left *grown = reallocarray(plan->left, more, sizeof(*grown));

		if (!grown)
			return -ENOMEM;
		plan->left = grown;
		p->cap_left = more;
	}
	copy = strdup(path);
	if (!copy)
		return -ENOMEM;
	plan->left[plan->n_left++] = (struct commit_left){.path = copy, .row = row};
	return 0;
}

static int plan_file(struct planner *p, const struct dir *parent, const struct stage_row *row,
                     const char *path, const struct held *held)
{
	struct commit_change *c;
	int r = 0;

	if (!row->frozen && !row->is_blob)
		r = leave_out(p, path, row);
	if (r < 0)
		return r;
	if (parent->ignored || (!held->any && ignore_match_name(p->env->ignore, row->name, false)))
		return row->frozen || row->is_blob ? leave_out(p, path, row) : 0;
	if (!row->frozen && !row->is_blob && !row->has_committed)
		return text_add(&p->keeps, &p->n_keeps, &p->cap_keeps, path);
	if (held->any && held->kind == HUB_ENTRY_DIR && !parent->covered) {
		r = delete_held(p, path, held);
		if (r < 0)
			return r;
	}
	if (!row->frozen)
		return add_blob(p, path, row, &row->blob, row->blob_commit, row->blob_path);
	r = change_add(p, COMMIT_ADD, path, &c);
	if (r < 0)
		return r;
	c->row = row;
	c->frozen = true;
	return 0;
}

static int plan_row(struct planner *p, const struct stage_row *row)
{
	struct dir want = {.node = row->parent};
	struct dir **found = tfind(&want, &p->dirs, by_node);
	AUTO_FREE char *path = NULL;
	struct held held;
	int r;

	if (!found || (row->conflict && !p->env->conflicts))
		return 0; /* below a folder that has no name any more; or left out, with all below it */
	path = join((*found)->path, row->name);
	if (!path)
		return -ENOMEM;
	if (!row->conflict && p->env->conflicts) /* only the way to one */
		return row->kind == STAGE_DIR ? dir_add(p, row->node, STEAL(path), false, false) : 0;
	r = get_held(p, path, &held);
	if (r < 0)
		return r;
	switch (row->kind) {
	case STAGE_WHITEOUT:
		if ((*found)->covered || !held.any)
			return 0;
		r = take(p, row);
		return r < 0 ? r : delete_held(p, path, &held);
	case STAGE_DIR:
		return plan_dir(p, *found, row, path, &held);
	case STAGE_FILE:
		return plan_file(p, *found, row, path, &held);
	case STAGE_NONE:
		break;
	}
	return 0;
}

/* -- one change for each path -- */

static int change_cmp(const void *a, const void *b)
{
	const struct commit_change *x = a, *y = b;
	int c = strcmp(x->path, y->path);

	return c ? c : (x->kind == COMMIT_DELETE) - (y->kind == COMMIT_DELETE); /* additions first */
}

static int text_cmp(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

struct prefix {
	const char *path;
	size_t len;
};

static int prefix_cmp(const void *key, const void *item)
{
	const struct prefix *want = key;
	const char *text = *(char *const *)item;
	int c = strncmp(want->path, text, want->len);

	return c ? c : -(text[want->len] != '\0');
}

/* Is `path`, or a folder above it, to be left as it is? */
static bool is_kept(const struct planner *p, const char *path)
{
	struct prefix at = {.path = path, .len = strlen(path)};

	while (at.len && p->n_keeps) {
		if (bsearch(&at, p->keeps, p->n_keeps, sizeof(*p->keeps), prefix_cmp))
			return true;
		do
			at.len--;
		while (at.len && path[at.len] != '/');
	}
	return false;
}

static void settle_changes(struct planner *p)
{
	struct commit_plan *plan = &p->plan;
	size_t kept = 0;

	if (!plan->n)
		return;
	qsort(plan->changes, plan->n, sizeof(*plan->changes), change_cmp);
	if (p->n_keeps)
		qsort(p->keeps, p->n_keeps, sizeof(*p->keeps), text_cmp);
	for (size_t i = 0; i < plan->n; i++) {
		struct commit_change *c = &plan->changes[i];
		bool again = kept && strcmp(plan->changes[kept - 1].path, c->path) == 0;

		if (again || (c->kind == COMMIT_DELETE && is_kept(p, c->path)))
			change_fini(c);
		else
			plan->changes[kept++] = *c;
	}
	plan->n = kept;
}

int commit_plan_make(const struct commit_plan_env *env, const struct stage_names *names,
                     struct commit_plan *ret, struct hub_error *err)
{
	CLEANUP(planner_fini) struct planner p = {.env = env, .names = names, .err = err};
	char *root = strdup("");
	int r;

	if (!root)
		return -ENOMEM;
	r = dir_add(&p, STAGE_ROOT, root, false, false);
	if (r < 0)
		return r;
	p.by_name = calloc(names->n + 1, sizeof(*p.by_name));
	if (!p.by_name)
		return -ENOMEM;
	for (size_t i = 0; i < names->n; i++)
		p.by_name[i] = &names->rows[i];
	qsort(p.by_name, names->n, sizeof(*p.by_name), row_cmp);
	for (size_t i = 0; i < names->n; i++) {
		r = plan_row(&p, &names->rows[i]);
		if (r < 0)
			return r;
	}
	settle_changes(&p);
	*ret = STEAL(p.plan);
	return 0;
}

int commit_plan_row_path(const struct stage_names *names, const struct stage_row *row, char **ret)
{
	AUTO_FREE char *path = strdup(row->name);
	uint64_t at = row->parent;

	/* Parents stand before their children. */
	for (const struct stage_row *r = row; path && at != STAGE_ROOT; ) {
		char *longer;

		while (r > names->rows && r->node != at)
			r--;
		if (r->node != at)
			return -ENOENT;
		longer = util_printf("%s/%s", r->name, path);
		free(path);
		path = longer;
		at = r->parent;
	}
	if (!path)
		return -ENOMEM;
	*ret = STEAL(path);
	return 0;
}

/* -- another head -- */

struct check {
	const struct commit_plan_env *env;
	struct commit_plan *plan;
	const char *head;
	char *path; /* in conflict */
	struct hub_error *err;
};

/* What the parent and the head have at `path`: 0, or -errno. */
static int stat_both(struct check *k, const char *path, struct tree_entry ents[2], int has[2])
{
	const char *commits[] = {k->env->parent, k->head};

	for (int i = 0; i < 2; i++) {
		has[i] = commit_plan_stat(k->env->tree, k->env->repo, commits[i], path, &ents[i], k->err);
		if (has[i] < 0)
			return has[i];
	}
	return 0;
}

static bool same(const struct tree_entry ents[2], const int has[2])
{
	if (!has[0] || !has[1])
		return has[0] == has[1];
	if (ents[0].kind != ents[1].kind)
		return false;
	if (ents[0].kind == HUB_ENTRY_FILE)
		return hash_key_equal(&ents[0].key, &ents[1].key);
	return memcmp(ents[0].oid, ents[1].oid, sizeof(ents[0].oid)) == 0;
}

static int conflict(struct check *k, const char *path)
{
	free(k->path);
	k->path = strdup(path);
	return k->path ? -ESTALE : -ENOMEM;
}

static bool adds_it(const struct commit_change *c, const struct tree_entry *theirs)
{
	return c->kind == COMMIT_ADD && theirs->kind == HUB_ENTRY_FILE && upload_is(c->file, &theirs->key);
}

/* Has the head a file where a new path of ours needs a folder? */
static int check_above(struct check *k, const char *path)
{
	AUTO_FREE char *up = strdup(path);

	if (!up)
		return -ENOMEM;
	for (char *slash = strrchr(up, '/'); slash; slash = strrchr(up, '/')) {
		struct tree_entry ents[2];
		int has[2], r;

		*slash = '\0';
		r = stat_both(k, up, ents, has);
		if (r < 0)
			return r;
		if (has[1] && ents[1].kind == HUB_ENTRY_DIR)
			return 0;
		if (has[1] && !same(ents, has))
			return conflict(k, up);
	}
	return 0;
}

static int check_change(struct check *k, const struct commit_change *c)
{
	struct tree_entry ents[2];
	int has[2], r;

	if (!c->ours)
		return 0;
	r = stat_both(k, c->path, ents, has);
	if (r < 0)
		return r;
	if (has[1] ? adds_it(c, &ents[1]) : c->kind == COMMIT_DELETE)
		return 0; /* both did the same */
	/* The file was changed here when theirs was there already: ours is a change of theirs. */
	if (has[1] && c->row && c->row->has_committed && ents[1].kind == HUB_ENTRY_FILE &&
	    hash_key_equal(&c->row->blob, &ents[1].key))
		return 0;
	if (!same(ents, has))
		return conflict(k, c->path);
	return c->kind == COMMIT_ADD && !has[1] ? check_above(k, c->path) : 0;
}

/* What is staged but not in this commit will go on top of it later: a push of the same path must not be taken for its base. */
static int check_left(struct check *k, struct commit_left *left)
{
	const struct stage_row *row = left->row;
	struct tree_entry ents[2];
	int has[2], r = stat_both(k, left->path, ents, has);

	if (r < 0 || same(ents, has))
		return r;
	left->conflict = !(has[1] && (row->is_blob || row->has_committed) && ents[1].kind == HUB_ENTRY_FILE &&
	                   hash_key_equal(&row->blob, &ents[1].key));
	return 0;
}

static int change_by_path(const void *key, const void *item)
{
	return strcmp(key, ((const struct commit_change *)item)->path);
}

static int check_below(void *arg, const char *path, const struct tree_entry *theirs)
{
	struct check *k = arg;
	const struct commit_change *c;
	struct tree_entry ents[2];
	int has[2], r = stat_both(k, path, ents, has);

	if (r < 0 || same(ents, has))
		return r;
	c = bsearch(path, k->plan->changes, k->plan->n, sizeof(*c), change_by_path);
	return c && adds_it(c, theirs) ? 0 : conflict(k, path);
}

/* Was anything added or changed below a folder that we took away? */
static int check_folder(struct check *k, const char *path)
{
	struct tree_entry ents[2];
	int has[2], r = stat_both(k, path, ents, has);

	if (r < 0 || !has[1] || same(ents, has))
		return r;
	if (ents[1].kind != HUB_ENTRY_DIR)
		return conflict(k, path);
	return tree_walk(k->env->tree, k->env->repo, k->head, path, check_below, k, k->err);
}

int commit_plan_check(const struct commit_plan_env *env, struct commit_plan *plan, const char *head,
                      char **ret_path, struct hub_error *err)
{
	struct check k = {.env = env, .plan = plan, .head = head, .err = err};
	int r = 0;

	for (size_t i = 0; r == 0 && i < plan->n; i++)
		r = check_change(&k, &plan->changes[i]);
	for (size_t i = 0; r == 0 && i < plan->n_left; i++)
		r = check_left(&k, &plan->left[i]);
	for (size_t i = 0; r == 0 && i < plan->n_folders; i++)
		r = check_folder(&k, plan->folders[i]);
	if (r < 0)
		*ret_path = k.path;
	else
		free(k.path);
	return r;
}

/* -- the title -- */

void commit_tally_add(struct commit_tally *t, const char *path)
{
	if (t->n++ == 0)
		t->first = path;
}

static int tally_say(struct buf *out, const char *verb, const struct commit_tally *t)
{
	int r;

	if (!t->n)
		return 0;
	r = buf_addf(out, "%s%s ", out->len ? ", " : "", verb);
	if (r == 0 && t->n == 1 && strlen(t->first) <= TITLE_NAME_MAX)
		return buf_add(out, t->first, strlen(t->first));
	return r < 0 ? r : buf_addf(out, t->n == 1 ? "a file" : "%zu files", t->n);
}

int commit_tally_title(const struct commit_tally kinds[3], char **ret)
{
	static const char *const verbs[] = {"add", "update", "delete"};
	AUTO_BUF out = {0};
	int r = 0;

	for (size_t i = 0; r == 0 && i < ARRAY_LEN(verbs); i++)
		r = tally_say(&out, verbs[i], &kinds[i]);
	if (r < 0)
		return r;
	for (size_t i = 0; i < out.len; i++) {
		if ((unsigned char)out.data[i] < 0x20)
			out.data[i] = '?';
	}
	out.data[0] = (char)(out.data[0] - 'a' + 'A');
	*ret = STEAL(out.data);
	return 0;
}
