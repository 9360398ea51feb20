/* tree: what the Hub said about names: revision -> commit (ages), commit + folder -> listing (never
 * expires).
 *
 * For: memory and saved copies of what was asked, one question at a time per thing, what is served while
 * the Hub is out of reach. Not for: HTTP and JSON (hub.c), nor for what the user changed (fs/view.c).
 *
 * FUSE threads enter with wait = false, worker threads with wait = true. One lock, never held across disk
 * or network.
 *
 * An item (listing, refs, commit or repository) has a text key, is immutable once published and stands in
 * one table and one LRU list. Ways of an answer: Hub -> item, and saved in the index under the same key;
 * index -> item. States of refs: unknown -> saved (from the index, of unknown age) -> checked (the Hub said
 * so, fresh for poll_ms) -> old -> checked ... A Hub that cannot be reached leaves the last ones in use, and
 * is asked again after poll_ms. */
#define LOG_MODULE "tree"
#include "tree_int.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#define ENTRIES_DEFAULT 1000000
#define POLL_DEFAULT_MS 30000
#define WARN_EVERY_MS 60000
#define RETRY_AFTER_MS 10000 /* a Hub that did not answer is not asked again before, so that few wait for it */

/* -- items -- */

static struct item **bucket_of(struct tree *t, const char *key)
{
	return &t->bucket[hash_text64(0, key, strlen(key)) % BUCKETS];
}

static void lru_add_locked(struct tree *t, struct item *it)
{
	it->lru_next = NULL;
	it->lru_prev = t->lru_last;
	*(t->lru_last ? &t->lru_last->lru_next : &t->lru_first) = it;
	t->lru_last = it;
}

static void lru_remove_locked(struct tree *t, struct item *it)
{
	*(it->lru_prev ? &it->lru_prev->lru_next : &t->lru_first) = it->lru_next;
	*(it->lru_next ? &it->lru_next->lru_prev : &t->lru_last) = it->lru_prev;
}

struct item *tree_find_locked(struct tree *t, const char *key)
{
	for (struct item *it = *bucket_of(t, key); it; it = it->hash_next) {
		if (strcmp(it->key, key) == 0) {
			lru_remove_locked(t, it);
			lru_add_locked(t, it);
			return it;
		}
	}
	return NULL;
}

void tree_answer_fini(struct answer *a)
{
	tree_listing_unref(a->listing);
	tree_refs_unref(a->refs);
	*a = (struct answer){0};
}

void tree_answer_copy(struct answer *to, const struct answer *from)
{
	tree_answer_fini(to);
	*to = *from;
	if (to->listing)
		atomic_fetch_add(&to->listing->refs, 1);
	if (to->refs)
		atomic_fetch_add(&to->refs->refs, 1);
}

/* With a copy of `a`. */
struct item *tree_item_new(const char *key, const struct answer *a)
{
	size_t len = strlen(key) + 1;
	struct item *it = calloc(1, sizeof(*it) + len);

	if (!it)
		return NULL;
	it->weight = a->listing ? a->listing->n : a->refs ? a->refs->n : 1;
	it->weight = MAX(it->weight, 1);
	tree_answer_copy(&it->a, a);
	memcpy(it->key, key, len);
	return it;
}

static void item_free(struct item *it)
{
	tree_answer_fini(&it->a);
	free(it);
}

static void remove_locked(struct tree *t, struct item *it)
{
	struct item **p = bucket_of(t, it->key);

	while (*p != it)
		p = &(*p)->hash_next;
	*p = it->hash_next;
	lru_remove_locked(t, it);
	t->weight -= it->weight;
	item_free(it);
}

/* Publishes `it` in the place of one with the same key. */
void tree_insert_locked(struct tree *t, struct item *it)
{
	struct item *old = tree_find_locked(t, it->key);
	struct item **p;

	if (old)
		remove_locked(t, old);
	it->number = ++t->published;
	p = bucket_of(t, it->key);
	it->hash_next = *p;
	*p = it;
	lru_add_locked(t, it);
	t->weight += it->weight;
	while (t->weight > t->max_entries && t->lru_first != it)
		remove_locked(t, t->lru_first);
}

/* Publishes a copy of `a`; without memory it is not published. `only_new`: not in the place of another. */
void tree_publish(struct tree *t, const char *key, const struct answer *a, bool only_new)
{
	struct item *it = tree_item_new(key, a);

	if (!it)
		return;
	LOCKED(&t->lock);
	if (only_new && tree_find_locked(t, key))
		item_free(it);
	else
		tree_insert_locked(t, it);
}

/* -- questions -- */

uint64_t tree_published(struct tree *t)
{
	LOCKED(&t->lock);
	return t->published;
}

/* Did an answer come after the caller looked, when `seen` publications had been made? */
static bool answered_since_locked(struct tree *t, const char *key, uint64_t seen, struct answer *ret)
{
	const struct item *it = tree_find_locked(t, key);

	if (!it || it->number <= seen)
		return false;
	/* Of refs and repositories only the Hub's own word is an answer, not what was saved. */
	if ((it->a.refs || it->a.repo.id.name[0]) && !it->a.checked_ms)
		return false;
	tree_answer_copy(ret, &it->a);
	return true;
}

/* Asks, or waits for who asks already. `seen`: tree_published() before the caller found that there is no
 * answer. */
int tree_ask(struct tree *t, const char *key, uint64_t seen, tree_ask_fn fn, void *arg, struct answer *ret,
               struct hub_error *err)
{
	AUTO_ANSWER answer = {0};
	struct hub_error own = {.retry_after_s = -1};
	struct question *q, *made;
	size_t len = strlen(key) + 1;
	bool mine;
	int r;

	made = calloc(1, sizeof(*made) + len);
	if (!made)
		return -ENOMEM;
	{
		LOCKED(&t->lock);
		for (q = t->questions; q && strcmp(q->key, key) != 0; q = q->next)
			;
		if (!q && answered_since_locked(t, key, seen, ret)) {
			free(made);
			return 0;
		}
		mine = !q;
		if (mine) {
			q = STEAL(made);
			memcpy(q->key, key, len);
			q->next = t->questions;
			t->questions = q;
		}
		q->refs++;
		while (!mine && !q->done)
			cond_wait(&t->answered, &t->lock);
	}
	free(made);
	r = mine ? fn(t, arg, &answer, &own) : 0;
	{
		LOCKED(&t->lock);
		if (mine) {
			struct question **p = &t->questions;

			while (*p != q)
				p = &(*p)->next;
			*p = q->next;
			q->result = r;
			q->err = own;
			tree_answer_copy(&q->answer, &answer);
			q->done = true;
			cond_broadcast(&t->answered);
		}
		r = q->result;
		if (err)
			*err = q->err;
		if (r == 0)
			tree_answer_copy(ret, &q->answer);
		if (--q->refs == 0) {
			tree_answer_fini(&q->answer);
			free(q);
		}
	}
	return r;
}

/* Did the Hub not answer, so that what it said last goes on serving? */
bool tree_unreachable(int r)
{
	return r == -ETIMEDOUT || r == -EIO || r == -ENETDOWN;
}

static void warn_stale_locked(struct tree *t, const char *what, int r)
{
	int64_t now = util_now_ms();

	if (t->offline || (t->warned_ms && now - t->warned_ms < WARN_EVERY_MS))
		return;
	t->warned_ms = now;
	log_warn("the Hub cannot be reached (%s): the last known state of %s is shown", strerror(-r), what);
}

/* The Hub could not be reached: what is known serves until it is time to try again. */
void tree_note_stale(struct tree *t, const char *key, int r)
{
	struct item *it;

	LOCKED(&t->lock);
	warn_stale_locked(t, key, r);
	it = tree_find_locked(t, key);
	if (it)
		it->failed_ms = util_now_ms();
}

bool tree_is_known(struct tree *t, const char *key)
{
	const struct item *it;

	LOCKED(&t->lock);
	it = tree_find_locked(t, key);
	return it && !it->a.absent;
}

/* What memory has. True: it is no older than poll_ms, or the Hub was out of reach since. */
bool tree_look(struct tree *t, const char *key, struct answer *ret, bool *ret_any)
{
	const struct item *it;
	int64_t now = util_now_ms();

	LOCKED(&t->lock);
	it = tree_find_locked(t, key);
	*ret_any = it;
	if (!it)
		return false;
	tree_answer_copy(ret, &it->a);
	if (it->failed_ms && now - it->failed_ms < MAX(t->poll_ms, RETRY_AFTER_MS))
		return true;
	return it->a.checked_ms && now - it->a.checked_ms < t->poll_ms;
}

void tree_save(struct tree *t, const char *key, const void *value, size_t len)
{
	if (t->ix && index_meta_put(t->ix, key, value, len) < 0)
		log_debug("%s is not saved", key);
}

char *tree_key(const char *prefix, const struct repo_id *id, const char *rest)
{
	char text[REPO_TEXT_MAX];

	repo_text(id, text);
	return rest ? util_printf("%s:%s/%s:%s", prefix, repo_type_name(id->type), text, rest)
	            : util_printf("%s:%s/%s", prefix, repo_type_name(id->type), text);
}

/* -- folders -- */

struct list_question {
	const struct repo_id *id;
	const char *commit, *path, *key;
};

static int ask_list(struct tree *t, void *arg, struct answer *ret, struct hub_error *err)
{
	const struct list_question *q = arg;
	AUTO_BUF text = {.max = INDEX_META_MAX};
	struct hub_entries entries = {0};
	int r = hub_tree(t->hub, q->id, q->commit, q->path, false, &entries, err);

	if (r == -ENOENT && q->path[0]) {
		log_warn("%s: folder %s is in its parent's listing, but the Hub does not find it", q->key,
		         q->path);
		return -EIO;
	}
	if (r < 0)
		return r;
	if (entries.n == 0 && q->path[0]) {
		hub_entries_fini(&entries);
		log_warn("%s: the Hub shows folder %s empty, and git has no empty folders", q->key, q->path);
		return -EIO;
	}
	ret->listing = tree_listing_of_hub(&entries, q->path);
	hub_entries_fini(&entries);
	if (!ret->listing)
		return -ENOMEM;
	/* A repository without a file is rare: not to be believed for longer than this mount lives. */
	if (t->ix && ret->listing->n > 0 && tree_listing_encode(ret->listing, &text) == 0)
		tree_save(t, q->key, text.data, text.len);
	tree_publish(t, q->key, ret, false);
	return 0;
}

/* The listing under `key`, which the Hub shows as folder `path` of `commit`. */
static int get_listing(struct tree *t, const struct list_question *q, bool wait, struct tree_listing **ret,
                       struct hub_error *err)
{
	AUTO_FREE char *text = NULL;
	uint64_t seen = tree_published(t);
	AUTO_ANSWER a = {0};
	size_t len;
	bool any;
	int r = 0;

	tree_look(t, q->key, &a, &any);
	if (!any && t->ix && index_meta_get(t->ix, q->key, &text, &len) == 0) {
		a.listing = tree_listing_decode(text, len);
		if (a.listing)
			tree_publish(t, q->key, &a, true);
		else
			log_warn("the saved listing %s is damaged: it is asked for again", q->key);
	}
	if (!a.listing)
		r = wait ? tree_ask(t, q->key, seen, ask_list, (void *)q, &a, err) : -EAGAIN;
	if (r < 0)
		return r;
	*ret = STEAL(a.listing);
	return 0;
}

static int get_root(struct tree *t, const struct repo_id *id, const char *commit, bool wait,
                    struct tree_listing **ret, struct hub_error *err)
{
	AUTO_FREE char *key = tree_key("root", id, commit);
	struct list_question q = {.id = id, .commit = commit, .path = "", .key = key};

	return key ? get_listing(t, &q, wait, ret, err) : -ENOMEM;
}

static int get_folder(struct tree *t, const struct repo_id *id, const char *commit, const char *path,
                      const struct tree_entry *entry, bool wait, struct tree_listing **ret,
                      struct hub_error *err)
{
	char key[5 + 40 + 1] = "tree:";
	struct list_question q = {.id = id, .commit = commit, .path = path, .key = key};

	util_hex(entry->oid, sizeof(entry->oid), key + 5);
	return get_listing(t, &q, wait, ret, err);
}

int tree_list(struct tree *t, const struct repo_id *id, const char *commit, const char *path, bool wait,
              struct tree_listing **ret, struct hub_error *err)
{
	struct tree_listing *l CLEANUP(tree_listing_unrefp) = NULL;
	AUTO_FREE char *upto = strdup(path);
	char *rest = upto;
	int r;

	if (!upto)
		return -ENOMEM;
	if (!repo_is_commit(commit))
		return -EINVAL;
	if (path[0] && !repo_path_valid(path))
		return -ENOENT;
	r = get_root(t, id, commit, wait, &l, err);
	while (r == 0 && *rest) {
		const struct tree_entry *e;
		struct tree_listing *down = NULL;
		char *slash = strchrnul(rest, '/');
		bool last = !*slash;

		*slash = '\0'; /* upto is the path so far, rest its last part */
		e = tree_find(l, rest);
		if (!e)
			return -ENOENT;
		if (e->kind != HUB_ENTRY_DIR)
			return -ENOTDIR;
		r = get_folder(t, id, commit, upto, e, wait, &down, err);
		if (r < 0)
			return r;
		tree_listing_unref(l);
		l = down;
		if (last)
			break;
		*slash = '/';
		rest = slash + 1;
	}
	if (r < 0)
		return r;
	*ret = STEAL(l);
	return 0;
}

const struct tree_entry *tree_find(const struct tree_listing *l, const char *name)
{
	size_t lo = 0, hi = l->n;

	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;
		int d = strcmp(l->entries[mid].name, name);

		if (d == 0)
			return &l->entries[mid];
		if (d < 0)
			lo = mid + 1;
		else
			hi = mid;
	}
	return NULL;
}

int tree_stat(struct tree *t, const struct repo_id *id, const char *commit, const char *path, bool wait,
              struct tree_entry *ret_entry, struct hub_error *err)
{
	struct tree_listing *l CLEANUP(tree_listing_unrefp) = NULL;
	AUTO_FREE char *folder = strdup(path);
	const struct tree_entry *e;
	char *slash;
	int r;

	if (!folder)
		return -ENOMEM;
	slash = strrchr(folder, '/');
	if (slash)
		*slash = '\0';
	r = tree_list(t, id, commit, slash ? folder : "", wait, &l, err);
	if (r < 0)
		return r;
	if (!path[0]) {
		*ret_entry = (struct tree_entry){.kind = HUB_ENTRY_DIR};
		return 0;
	}
	e = tree_find(l, slash ? slash + 1 : folder);
	if (!e)
		return -ENOENT;
	*ret_entry = *e;
	ret_entry->name = NULL;
	return 0;
}

struct walk {
	struct tree *t;
	const struct repo_id *id;
	const char *commit;
	tree_walk_fn each;
	void *arg;
	struct hub_error *err;
};

static int walk_listing(const struct walk *w, const struct tree_listing *l, const char *path, int depth)
{
	if (depth > TREE_DEPTH_MAX)
		return -ELOOP;
	for (size_t i = 0; i < l->n; i++) {
		const struct tree_entry *e = &l->entries[i];
		struct tree_listing *down CLEANUP(tree_listing_unrefp) = NULL;
		AUTO_FREE char *full = NULL;
		int r = 0;

		full = util_printf("%s%s%s", path, path[0] ? "/" : "", e->name);
		if (!full)
			return -ENOMEM;
		if (e->kind == HUB_ENTRY_FILE) {
			r = w->each(w->arg, full, e);
		} else if (e->kind == HUB_ENTRY_DIR) {
			r = get_folder(w->t, w->id, w->commit, full, e, true, &down, w->err);
			if (r == 0)
				r = walk_listing(w, down, full, depth + 1);
		}
		if (r != 0)
			return r;
	}
	return 0;
}

int tree_walk(struct tree *t, const struct repo_id *id, const char *commit, const char *path,
              tree_walk_fn each, void *arg, struct hub_error *err)
{
	struct walk w = {.t = t, .id = id, .commit = commit, .each = each, .arg = arg, .err = err};
	struct tree_listing *l CLEANUP(tree_listing_unrefp) = NULL;
	int r = tree_list(t, id, commit, path, true, &l, err);

	return r < 0 ? r : walk_listing(&w, l, path, 0);
}

/* -- life -- */

int tree_new(struct hub *hub, struct index *ix, const struct tree_opts *opts, struct tree **ret)
{
	struct tree *t = calloc(1, sizeof(*t));

	if (!t)
		return -ENOMEM;
	t->hub = hub;
	t->ix = ix;
	t->poll_ms = opts->poll_ms ? opts->poll_ms : POLL_DEFAULT_MS;
	t->offline = opts->offline;
	t->max_entries = opts->max_entries ? opts->max_entries : ENTRIES_DEFAULT;
	lock_init(&t->lock, LOCK_TREE);
	cond_init(&t->answered);
	*ret = t;
	return 0;
}

void tree_free(struct tree *t)
{
	if (!t)
		return;
	assert(!t->questions);
	lock_take(&t->lock);
	while (t->lru_first)
		remove_locked(t, t->lru_first);
	lock_drop(&t->lock);
	for (int i = 0; i < ADOPTIONS; i++) {
		free(t->adoptions[i].repo);
		free(t->adoptions[i].rev);
	}
	cond_fini(&t->answered);
	lock_fini(&t->lock);
	free(t);
}
