/* tree_refs: repositories, their revisions, and the commits that these are at.
 *
 * For: how long a branch is trusted, and what is served while the Hub cannot be reached. Not for: folders
 * (tree.c). Entered as tree.c is.
 *
 * All revisions of a repository come with one answer, which ages as a whole; a tag is asked for once in a
 * mount. The date of a commit never ages. A commit of ours stands in the refs at once, also in an answer
 * that the Hub gave before it knew. */
#define LOG_MODULE "tree"
#include "tree_int.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define REV_NAME_MAX 1024

/* -- repositories -- */

static int repo_decode(const char *text, const struct repo_id *asked, struct tree_repo *ret)
{
	struct tree_repo repo = {.id = *asked};

	/* "<_id> <ns> <name>" */
	if (sscanf(text, "%39s %96s %96s", repo.internal_id, repo.id.ns, repo.id.name) != 3)
		return -EINVAL;
	if (!repo_name_valid(repo.id.ns) || !repo_name_valid(repo.id.name))
		return -EINVAL;
	*ret = repo;
	return 0;
}

struct repo_question {
	const struct repo_id *id;
	const char *key;
};

static int ask_repo(struct tree *t, void *arg, struct answer *ret, struct hub_error *err)
{
	const struct repo_question *q = arg;
	AUTO_FREE char *text = NULL;
	struct hub_repo info;
	int r = hub_repo_info(t->hub, q->id, NULL, tree_is_known(t, q->key), &info, err);

	if (r < 0 && r != -ENOENT)
		return r;
	ret->absent = r == -ENOENT;
	ret->checked_ms = MAX(util_now_ms(), 1);
	if (r == 0) {
		ret->repo.id = info.id;
		memcpy(ret->repo.internal_id, info.internal_id, sizeof(ret->repo.internal_id));
		text = util_printf("%s %s %s", info.internal_id[0] ? info.internal_id : "-", info.id.ns,
		                   info.id.name);
		if (text)
			tree_save(t, q->key, text, strlen(text));
	}
	tree_publish(t, q->key, ret, false);
	return 0;
}

static void repo_load(struct tree *t, const char *key, const struct repo_id *id)
{
	AUTO_FREE char *text = NULL;
	struct answer a = {0};
	size_t len;

	if (t->ix && index_meta_get(t->ix, key, &text, &len) == 0 && repo_decode(text, id, &a.repo) == 0)
		tree_publish(t, key, &a, true);
}

int tree_repo(struct tree *t, const struct repo_id *id, bool wait, struct tree_repo *ret,
              struct hub_error *err)
{
	AUTO_FREE char *key = tree_key("repo", id, NULL);
	struct repo_question q = {.id = id, .key = key};
	uint64_t seen = tree_published(t);
	AUTO_ANSWER a = {0};
	bool fresh, any;
	int r;

	if (!key)
		return -ENOMEM;
	fresh = tree_look(t, key, &a, &any);
	if (!any) {
		repo_load(t, key, id);
		fresh = tree_look(t, key, &a, &any);
	}
	/* That it exists is asked once in a mount. */
	if (!fresh && !(a.checked_ms && !a.absent)) {
		if (!wait)
			return -EAGAIN;
		r = tree_ask(t, key, seen, ask_repo, &q, &a, err);
		if (r < 0 && !(tree_unreachable(r) && any && !a.absent))
			return r;
		if (r < 0)
			tree_note_stale(t, key, r);
	}
	if (a.absent)
		return -ENOENT;
	*ret = a.repo;
	return 0;
}

void tree_forget_repo(struct tree *t, const struct repo_id *id)
{
	AUTO_FREE char *key = tree_key("repo", id, NULL);
	struct item *it;

	if (!key)
		return;
	LOCKED(&t->lock);
	it = tree_find_locked(t, key);
	if (it)
		it->a.checked_ms = it->failed_ms = 0;
}

/* -- refs -- */

struct ref_in {
	enum tree_rev_kind kind;
	const char *name;
	const char *commit;
};

static int ref_compare(const void *a, const void *b)
{
	const struct ref_in *x = a, *y = b;
	int d = strcmp(x->name, y->name);

	return d ? d : (int)x->kind - (int)y->kind; /* a branch before a tag of the same name */
}

/* Sorts `in` and copies it into one allocation. */
static struct tree_refs *refs_build(struct ref_in *in, size_t n)
{
	size_t bytes = sizeof(struct tree_refs) + n * sizeof(struct tree_ref);
	struct tree_refs *refs;
	char *at;

	for (size_t i = 0; i < n; i++)
		bytes += strlen(in[i].name) + 1;
	refs = malloc(bytes);
	if (!refs)
		return NULL;
	if (n)
		qsort(in, n, sizeof(*in), ref_compare);
	atomic_init(&refs->refs, 1);
	refs->n = n;
	at = (char *)&refs->ref[n];
	for (size_t i = 0; i < n; i++) {
		size_t len = strlen(in[i].name) + 1;

		refs->ref[i].kind = in[i].kind;
		refs->ref[i].name = memcpy(at, in[i].name, len);
		memcpy(refs->ref[i].commit, in[i].commit, 41);
		at += len;
	}
	return refs;
}

static struct tree_refs *refs_ref(struct tree_refs *r)
{
	atomic_fetch_add(&r->refs, 1);
	return r;
}

void tree_refs_unref(struct tree_refs *r)
{
	if (r && atomic_fetch_sub(&r->refs, 1) == 1)
		free(r);
}

void tree_refs_unrefp(struct tree_refs **r)
{
	tree_refs_unref(*r);
	*r = NULL;
}

/* The branch of that name, else what else has it. */
static const struct tree_ref *refs_find(const struct tree_refs *refs, const char *name)
{
	size_t lo = 0, hi = refs->n;

	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;

		if (strcmp(refs->ref[mid].name, name) < 0)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo < refs->n && strcmp(refs->ref[lo].name, name) == 0 ? &refs->ref[lo] : NULL;
}

static bool refs_equal(const struct tree_refs *a, const struct tree_refs *b)
{
	if (a->n != b->n)
		return false;
	for (size_t i = 0; i < a->n; i++)
		if (a->ref[i].kind != b->ref[i].kind || strcmp(a->ref[i].name, b->ref[i].name) != 0 ||
		    strcmp(a->ref[i].commit, b->ref[i].commit) != 0)
			return false;
	return true;
}

/* A copy in which `rev` is at `commit`. NULL: no memory. */
static struct tree_refs *refs_with(const struct tree_refs *refs, const char *rev, const char *commit)
{
	AUTO_FREE struct ref_in *in = calloc(refs->n + 1, sizeof(*in));
	const struct tree_ref *there = refs_find(refs, rev);
	size_t n = 0;

	if (!in)
		return NULL;
	for (; n < refs->n; n++)
		in[n] = (struct ref_in){refs->ref[n].kind, refs->ref[n].name,
		                        &refs->ref[n] == there ? commit : refs->ref[n].commit};
	if (!there) {
		bool pr = repo_rev_kind(rev) == REPO_REV_PR;

		in[n++] = (struct ref_in){pr ? TREE_PR : TREE_BRANCH, rev, commit};
	}
	return refs_build(in, n);
}

static void refs_save(struct tree *t, const char *key, const struct tree_refs *refs)
{
	AUTO_BUF text = {0};

	if (!t->ix)
		return;
	for (size_t i = 0; i < refs->n; i++) {
		const struct tree_ref *ref = &refs->ref[i];

		if (buf_addf(&text, "%d %s %s\n", (int)ref->kind, ref->commit, ref->name) < 0)
			return;
	}
	tree_save(t, key, text.len ? text.data : "", text.len);
}

/* Parses what refs_save wrote; the text is cut up. */
static struct tree_refs *refs_decode(char *text)
{
	AUTO_FREE struct ref_in *in = NULL;
	size_t n = 0, lines = 0;

	for (const char *p = text; *p; p++)
		lines += *p == '\n';
	in = calloc(lines + 1, sizeof(*in));
	if (!in)
		return NULL;
	for (char *line = text, *end; (end = strchr(line, '\n')); line = end + 1) {
		*end = '\0';
		if (end - line < 44 || line[0] < '0' || line[0] > '0' + TREE_CONVERT || line[1] != ' ' ||
		    line[42] != ' ')
			return NULL;
		line[42] = '\0';
		if (!repo_is_commit(line + 2) || !repo_rev_valid(line + 43))
			return NULL;
		in[n++] = (struct ref_in){(enum tree_rev_kind)(line[0] - '0'), line + 43, line + 2};
	}
	return refs_build(in, n);
}

static struct tree_refs *refs_of_hub(const struct hub_refs *hub)
{
	static const enum tree_rev_kind kinds[] = {
		[HUB_REF_BRANCH] = TREE_BRANCH,
		[HUB_REF_TAG] = TREE_TAG,
		[HUB_REF_PR] = TREE_PR,
		[HUB_REF_CONVERT] = TREE_CONVERT,
	};
	AUTO_FREE struct ref_in *in = calloc(hub->n + 1, sizeof(*in));
	size_t n = 0;

	if (!in)
		return NULL;
	for (size_t i = 0; i < hub->n; i++) {
		const struct hub_ref *r = &hub->refs[i];

		if (!repo_rev_valid(r->name) || !repo_is_commit(r->commit) ||
		    strlen(r->name) > REV_NAME_MAX) {
			log_warn("a revision is left out, its name or commit is not valid: %.80s", r->name);
			continue;
		}
		in[n++] = (struct ref_in){kinds[r->kind], r->name, r->commit};
	}
	return refs_build(in, n);
}

struct refs_question {
	const struct repo_id *id;
	const char *key;
};

/* Puts in what we committed after the question was sent. */
static struct tree_refs *refs_adopted_locked(struct tree *t, const char *key, struct tree_refs *refs,
                                             int64_t since_ms)
{
	for (unsigned i = 0; i < ADOPTIONS; i++) {
		/* Oldest first, so that the last commit wins. */
		const struct adoption *a = &t->adoptions[(t->next_adoption + i) % ADOPTIONS];
		struct tree_refs *with;

		if (!a->repo || a->ms < since_ms || strcmp(a->repo, key) != 0)
			continue;
		with = refs_with(refs, a->rev, a->commit);
		if (!with)
			continue;
		tree_refs_unref(refs);
		refs = with;
	}
	return refs;
}

static int ask_refs(struct tree *t, void *arg, struct answer *ret, struct hub_error *err)
{
	const struct refs_question *q = arg;
	struct hub_refs hub = {0};
	int64_t began = MAX(util_now_ms(), 1);
	bool changed = false;
	int r = hub_refs(t->hub, q->id, tree_is_known(t, q->key), &hub, err);

	if (r < 0 && r != -ENOENT)
		return r;
	ret->absent = r == -ENOENT;
	ret->checked_ms = began;
	if (r == 0) {
		ret->refs = refs_of_hub(&hub);
		hub_refs_fini(&hub);
		if (!ret->refs)
			return -ENOMEM;
	}
	{
		const struct item *old;
		struct item *it;

		LOCKED(&t->lock);
		if (ret->refs)
			ret->refs = refs_adopted_locked(t, q->key, ret->refs, began);
		old = tree_find_locked(t, q->key);
		changed = ret->refs && !(old && old->a.refs && refs_equal(old->a.refs, ret->refs));
		it = tree_item_new(q->key, ret);
		if (it)
			tree_insert_locked(t, it);
	}
	if (changed)
		refs_save(t, q->key, ret->refs);
	return 0;
}

static void refs_load(struct tree *t, const char *key)
{
	AUTO_FREE char *text = NULL;
	AUTO_ANSWER a = {0};
	size_t len;

	if (!t->ix || index_meta_get(t->ix, key, &text, &len) < 0)
		return;
	a.refs = refs_decode(text);
	if (a.refs)
		tree_publish(t, key, &a, true);
}

/* The refs whatever their age, from memory or the index; ret->refs is NULL when there are none. True:
 * fresh. */
static bool refs_known(struct tree *t, const char *key, struct answer *ret)
{
	bool any, fresh = tree_look(t, key, ret, &any);

	if (any)
		return fresh;
	refs_load(t, key);
	return tree_look(t, key, ret, &any);
}

/* `tag`: NULL, or a name that need not be asked for again when it is a tag that the Hub named in this
 * mount. */
static int get_refs(struct tree *t, const struct repo_id *id, const char *tag, bool wait,
                    struct tree_refs **ret, int64_t *ret_checked, struct hub_error *err)
{
	AUTO_FREE char *key = tree_key("refs", id, NULL);
	struct refs_question q = {.id = id, .key = key};
	uint64_t seen = tree_published(t);
	AUTO_ANSWER a = {0};
	bool fresh;
	int r;

	if (!key)
		return -ENOMEM;
	fresh = refs_known(t, key, &a);
	if (!fresh && a.refs && tag && a.checked_ms) {
		const struct tree_ref *ref = refs_find(a.refs, tag);

		fresh = ref && ref->kind == TREE_TAG;
	}
	if (!fresh) {
		if (!wait)
			return -EAGAIN;
		r = tree_ask(t, key, seen, ask_refs, &q, &a, err);
		if (r < 0 && !(tree_unreachable(r) && a.refs))
			return r;
		if (r < 0)
			tree_note_stale(t, key, r);
	}
	if (!a.refs)
		return -ENOENT;
	*ret = STEAL(a.refs);
	*ret_checked = a.checked_ms;
	return 0;
}

int tree_refs(struct tree *t, const struct repo_id *id, bool wait, struct tree_refs **ret,
              struct hub_error *err)
{
	int64_t checked;

	return get_refs(t, id, NULL, wait, ret, &checked, err);
}

/* -- commits and heads -- */

static void commit_save(struct tree *t, const char *key, int64_t date_s)
{
	char text[32];

	snprintf(text, sizeof(text), "%lld", (long long)date_s);
	tree_save(t, key, text, strlen(text));
}

struct commit_question {
	const struct repo_id *id;
	const char *commit, *key;
};

static int ask_commit(struct tree *t, void *arg, struct answer *ret, struct hub_error *err)
{
	const struct commit_question *q = arg;
	struct hub_commits commits = {0};
	int r = hub_commits(t->hub, q->id, q->commit, 1, &commits, err);

	if (r < 0)
		return r;
	if (commits.n == 0) {
		hub_commits_fini(&commits);
		return -ENOENT;
	}
	ret->date_s = commits.commits[0].date_s;
	hub_commits_fini(&commits);
	commit_save(t, q->key, ret->date_s);
	tree_publish(t, q->key, ret, false);
	return 0;
}

/* The date of a commit, which also proves that it exists. */
static int get_commit(struct tree *t, const struct repo_id *id, const char *commit, bool wait,
                      int64_t *ret_date_s, struct hub_error *err)
{
	AUTO_FREE char *key = tree_key("commit", id, commit);
	AUTO_FREE char *text = NULL;
	struct commit_question q = {.id = id, .commit = commit, .key = key};
	uint64_t seen = tree_published(t);
	AUTO_ANSWER a = {0};
	size_t len;
	bool any;
	int r = 0;

	if (!key)
		return -ENOMEM;
	tree_look(t, key, &a, &any);
	if (!any && t->ix && index_meta_get(t->ix, key, &text, &len) == 0) {
		a.date_s = strtoll(text, NULL, 10);
		tree_publish(t, key, &a, true);
		any = true;
	}
	if (!any)
		r = wait ? tree_ask(t, key, seen, ask_commit, &q, &a, err) : -EAGAIN;
	if (r < 0)
		return r;
	*ret_date_s = a.date_s;
	return 0;
}

int tree_head(struct tree *t, const struct repo_id *id, const char *rev, bool wait, struct tree_head *ret,
              struct hub_error *err)
{
	struct tree_refs *refs CLEANUP(tree_refs_unrefp) = NULL;
	struct tree_head head = {0};
	const struct tree_ref *ref;
	int r;

	if (repo_is_commit(rev)) {
		head.kind = TREE_COMMIT;
		memcpy(head.commit, rev, sizeof(head.commit));
		head.checked_ms = util_now_ms();
	} else {
		if (!repo_rev_valid(rev))
			return -ENOENT;
		r = get_refs(t, id, rev, wait, &refs, &head.checked_ms, err);
		if (r < 0)
			return r;
		ref = refs_find(refs, rev);
		if (!ref)
			return -ENOENT;
		head.kind = ref->kind;
		memcpy(head.commit, ref->commit, sizeof(head.commit));
	}
	r = get_commit(t, id, head.commit, wait, &head.date_s, err);
	if (r < 0)
		return r;
	*ret = head;
	return 0;
}

int tree_head_known(struct tree *t, const struct repo_id *id, const char *rev, struct tree_head *ret)
{
	AUTO_FREE char *key = tree_key("refs", id, NULL);
	AUTO_ANSWER a = {0};
	struct tree_head head = {0};
	const struct tree_ref *ref;

	if (!key)
		return -ENOMEM;
	if (repo_is_commit(rev)) {
		head.kind = TREE_COMMIT;
		memcpy(head.commit, rev, sizeof(head.commit));
	} else {
		refs_known(t, key, &a);
		ref = a.refs ? refs_find(a.refs, rev) : NULL;
		if (!ref)
			return -ENOENT;
		head.checked_ms = a.checked_ms;
		head.kind = ref->kind;
		memcpy(head.commit, ref->commit, sizeof(head.commit));
	}
	if (get_commit(t, id, head.commit, false, &head.date_s, NULL) < 0)
		return -ENOENT;
	*ret = head;
	return 0;
}

void tree_forget_head(struct tree *t, const struct repo_id *id, const char *rev)
{
	AUTO_FREE char *key = tree_key("refs", id, NULL);
	struct item *it;

	if (!key || repo_is_commit(rev))
		return;
	LOCKED(&t->lock);
	it = tree_find_locked(t, key);
	if (it)
		it->a.checked_ms = it->failed_ms = 0;
}

void tree_adopt(struct tree *t, const struct repo_id *id, const char *rev, const char *commit, int64_t date_s)
{
	AUTO_FREE char *key = tree_key("refs", id, NULL);
	AUTO_FREE char *commit_key = tree_key("commit", id, commit);
	struct adoption a = {.repo = key ? strdup(key) : NULL, .rev = strdup(rev), .ms = util_now_ms()};
	struct answer made = {.date_s = date_s};
	struct tree_refs *with = NULL;
	AUTO_ANSWER known = {0};

	if (!key || !commit_key || !a.repo || !a.rev) {
		free(a.repo);
		free(a.rev);
		return;
	}
	snprintf(a.commit, sizeof(a.commit), "%s", commit);
	commit_save(t, commit_key, date_s);
	tree_publish(t, commit_key, &made, false);
	refs_known(t, key, &known); /* so that they are in memory */
	{
		struct adoption *slot;
		struct item *it;

		LOCKED(&t->lock);
		slot = &t->adoptions[t->next_adoption++ % ADOPTIONS];
		free(slot->repo);
		free(slot->rev);
		*slot = a;
		it = tree_find_locked(t, key);
		if (it && it->a.refs)
			with = refs_with(it->a.refs, rev, commit);
		if (with) {
			tree_refs_unref(it->a.refs);
			it->a.refs = refs_ref(with);
		}
	}
	if (with)
		refs_save(t, key, with);
	tree_refs_unref(with);
}
