/* Tests of cache/tree.c on a Hub of this file: it defines every hub_ call that tree.c makes, so that the
 * linker never takes hub.c from the library. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include <errno.h>
#include <ftw.h>
#include <pthread.h>
#include <string.h>
#include <unistd.h>

#include "lock.h"
#include "log.h"
#include "tree.h"

static char dir[256];
static const struct repo_id repo = {.type = REPO_MODEL, .ns = "user", .name = "repo"};

/* -- the Hub: what it holds, and what it was asked -- */

struct file {
	const char *commit; /* its first letter stands for 40 of it */
	const char *path;   /* ends with a slash: a folder */
	char oid;           /* stands for 20 bytes of it */
	uint64_t size;
	bool lfs;
};
static const struct file files[] = {
	{"a", "README.md", 'r', 10, false},
	{"a", "model.bin", 'm', 5000000000, true},
	{"a", "sub/", 's', 0, false},
	{"a", "sub/x", 'x', 1, false},
	{"a", "sub/deep/", 'd', 0, false},
	{"a", "sub/deep/y", 'y', 2, false},
	{"b", "README.md", 'R', 11, false},
	{"b", "model.bin", 'm', 5000000000, true},
	{"b", "sub/", 's', 0, false}, /* the same tree as in a */
	{"b", "sub/x", 'x', 1, false},
	{"b", "sub/deep/", 'd', 0, false},
	{"b", "sub/deep/y", 'y', 2, false},
};

static struct {
	struct lock lock;
	struct cond change;
	unsigned n_repo, n_refs, n_commits, n_tree;
	int fail; /* answer of every call; 0: none */
	bool hold; /* no call returns while set */
	unsigned inside;
	char main_commit, tag_commit;
	bool with_evil;
} hub;

static void begin(unsigned *count)
{
	lock_take(&hub.lock);
	++*count;
	hub.inside++;
	cond_broadcast(&hub.change);
	while (hub.hold)
		cond_wait(&hub.change, &hub.lock);
	hub.inside--;
	lock_drop(&hub.lock);
}

static void sha_of(char letter, char out[41])
{
	memset(out, letter, 40);
	out[40] = '\0';
}

int hub_repo_info(struct hub *h, const struct repo_id *id, const char *rev, bool hurry, struct hub_repo *ret,
                  struct hub_error *err)
{
	begin(&hub.n_repo);
	if (hub.fail)
		return hub.fail;
	if (strcmp(id->name, "none") == 0)
		return -ENOENT;
	*ret = (struct hub_repo){.id = *id};
	strcpy(ret->id.name, "repo"); /* the canonical spelling */
	strcpy(ret->internal_id, "0123456789abcdef01234567");
	sha_of(hub.main_commit, ret->sha);
	return 0;
}

int hub_refs(struct hub *h, const struct repo_id *id, bool hurry, struct hub_refs *ret, struct hub_error *err)
{
	static const struct {
		enum hub_ref_kind kind;
		const char *name;
	} refs[] = {
		{HUB_REF_TAG, "both"},         {HUB_REF_TAG, "v1"},
		{HUB_REF_BRANCH, "main"},      {HUB_REF_BRANCH, "both"},
		{HUB_REF_BRANCH, "feature/x"}, {HUB_REF_PR, "refs/pr/1"},
		{HUB_REF_CONVERT, "refs/convert/parquet"},
	};
	char main_commit = hub.main_commit; /* as of when the question came */

	begin(&hub.n_refs);
	if (hub.fail) {
		strcpy(err->text, "the Hub says no");
		return hub.fail;
	}
	ret->n = ARRAY_LEN(refs);
	ret->refs = calloc(ret->n, sizeof(*ret->refs));
	for (size_t i = 0; i < ret->n; i++) {
		ret->refs[i].kind = refs[i].kind;
		ret->refs[i].name = strdup(refs[i].name);
		sha_of(refs[i].kind == HUB_REF_TAG ? hub.tag_commit : main_commit, ret->refs[i].commit);
	}
	return 0;
}

void hub_refs_fini(struct hub_refs *r)
{
	for (size_t i = 0; i < r->n; i++)
		free(r->refs[i].name);
	free(r->refs);
	*r = (struct hub_refs){0};
}

int hub_commits(struct hub *h, const struct repo_id *id, const char *rev, unsigned limit,
                struct hub_commits *ret, struct hub_error *err)
{
	begin(&hub.n_commits);
	if (hub.fail)
		return hub.fail;
	if (rev[0] == 'f')
		return -ENOENT;
	ret->commits = calloc(1, sizeof(*ret->commits));
	ret->n = 1;
	strcpy(ret->commits[0].id, rev);
	ret->commits[0].date_s = 1000000 + rev[0];
	return 0;
}

void hub_commits_fini(struct hub_commits *c)
{
	free(c->commits);
	*c = (struct hub_commits){0};
}

static void add_entry(struct hub_entries *e, const char *path, const struct file *f)
{
	struct hub_entry *x;

	e->entries = realloc(e->entries, (e->n + 1) * sizeof(*e->entries));
	x = &e->entries[e->n++];
	*x = (struct hub_entry){.path = strdup(path)};
	memset(x->oid, f->oid, 20);
	if (x->path[strlen(path) - 1] == '/') {
		x->path[strlen(path) - 1] = '\0';
		x->kind = HUB_ENTRY_DIR;
		return;
	}
	x->kind = HUB_ENTRY_FILE;
	x->key = (struct blob_key){.size = f->size, .alg = f->lfs ? HASH_SHA256 : HASH_GIT_SHA1};
	memset(x->key.id, f->lfs ? f->oid + 1 : f->oid, hash_len(x->key.alg));
}

int hub_tree(struct hub *h, const struct repo_id *id, const char *rev, const char *path, bool recursive,
             struct hub_entries *ret, struct hub_error *err)
{
	size_t len = strlen(path);

	begin(&hub.n_tree);
	if (hub.fail)
		return hub.fail;
	for (size_t i = 0; i < ARRAY_LEN(files); i++) {
		const char *name = files[i].path + (len ? len + 1 : 0), *slash;

		if (files[i].commit[0] != rev[0] || strncmp(files[i].path, path, len) != 0 ||
		    (len && files[i].path[len] != '/') || !*name)
			continue;
		slash = strchr(name, '/');
		if (slash && slash[1])
			continue;
		add_entry(ret, files[i].path, &files[i]);
	}
	if (ret->n == 0)
		return -ENOENT;
	if (hub.with_evil) {
		static const char *const evil[] = {"..", ".", "a/b", "README.md"};

		for (size_t i = 0; i < ARRAY_LEN(evil); i++)
			add_entry(ret, evil[i], &files[0]);
	}
	return 0;
}

void hub_entries_fini(struct hub_entries *e)
{
	for (size_t i = 0; i < e->n; i++)
		free(e->entries[i].path);
	free(e->entries);
	*e = (struct hub_entries){0};
}

static unsigned asked(void)
{
	return hub.n_repo + hub.n_refs + hub.n_commits + hub.n_tree;
}

/* -- fixtures -- */

static struct index *ix;
static struct tree *t;
static char A[41], B[41];

static void open_tree(int64_t poll_ms, size_t max_entries)
{
	struct tree_opts opts = {.poll_ms = poll_ms, .max_entries = max_entries};

	assert_int_equal(index_open(dir, &ix), 0);
	assert_int_equal(tree_new(NULL, ix, &opts, &t), 0);
}

static void close_tree(void)
{
	tree_free(t);
	index_close(ix);
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	return remove(path);
}

static int setup(void **state)
{
	const char *tmp = getenv("TMPDIR");

	snprintf(dir, sizeof(dir), "%s/hugfs-tree-XXXXXX", tmp ? tmp : "/tmp");
	if (!mkdtemp(dir))
		return -1;
	hub.n_repo = hub.n_refs = hub.n_commits = hub.n_tree = 0;
	hub.fail = 0;
	hub.hold = hub.with_evil = false;
	hub.main_commit = 'a';
	hub.tag_commit = 'a';
	sha_of('a', A);
	sha_of('b', B);
	open_tree(0, 0);
	return 0;
}

static int teardown(void **state)
{
	close_tree();
	return nftw(dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

static void reopen(void)
{
	close_tree();
	open_tree(0, 0);
}

static void assert_head(const char *rev, bool wait, enum tree_rev_kind kind, const char *commit)
{
	struct tree_head head;

	assert_int_equal(tree_head(t, &repo, rev, wait, &head, NULL), 0);
	assert_int_equal(head.kind, kind);
	assert_string_equal(head.commit, commit);
	assert_int_equal(head.date_s, 1000000 + commit[0]);
}

/* -- tests -- */

static void test_repo(void **state)
{
	struct repo_id other = {.type = REPO_MODEL, .ns = "user", .name = "REPO"};
	struct repo_id none = {.type = REPO_MODEL, .ns = "user", .name = "none"};
	struct tree_repo r = {0};

	assert_int_equal(tree_repo(t, &other, false, &r, NULL), -EAGAIN);
	assert_int_equal(tree_repo(t, &other, true, &r, NULL), 0);
	assert_string_equal(r.id.name, "repo");
	assert_string_equal(r.internal_id, "0123456789abcdef01234567");
	assert_int_equal(tree_repo(t, &other, false, &r, NULL), 0);
	assert_int_equal(tree_repo(t, &none, true, &r, NULL), -ENOENT);
	assert_int_equal(tree_repo(t, &none, false, &r, NULL), -ENOENT); /* remembered */
	assert_int_equal(hub.n_repo, 2);
	/* The next mount asks again, but can do without. */
	reopen();
	assert_int_equal(tree_repo(t, &other, false, &r, NULL), -EAGAIN);
	hub.fail = -ENETDOWN;
	assert_int_equal(tree_repo(t, &other, true, &r, NULL), 0);
	assert_string_equal(r.id.name, "repo");
	assert_int_equal(tree_repo(t, &other, false, &r, NULL), 0);
	assert_int_equal(tree_repo(t, &none, true, &r, NULL), -ENETDOWN); /* failure is never absence */
	hub.fail = -EACCES;
	reopen();
	assert_int_equal(tree_repo(t, &other, true, &r, NULL), -EACCES);
}

static void test_heads(void **state)
{
	struct hub_error err = {0};
	struct tree_head head;
	char none[41];

	assert_int_equal(tree_head(t, &repo, "main", false, &head, NULL), -EAGAIN);
	assert_int_equal(tree_head_known(t, &repo, "main", &head), -ENOENT);
	assert_head("main", true, TREE_BRANCH, A);
	assert_head("both", false, TREE_BRANCH, A); /* branch and tag: the branch */
	assert_head("v1", false, TREE_TAG, A);
	assert_head("refs/pr/1", false, TREE_PR, A);
	assert_head("refs/convert/parquet", false, TREE_CONVERT, A);
	assert_head("feature/x", false, TREE_BRANCH, A);
	assert_int_equal(tree_head(t, &repo, "feature", false, &head, NULL), -ENOENT);
	assert_int_equal(asked(), 2); /* the refs, and the date of the one commit */
	assert_head(A, false, TREE_COMMIT, A);
	assert_int_equal(tree_head(t, &repo, B, false, &head, NULL), -EAGAIN);
	assert_head(B, true, TREE_COMMIT, B);
	sha_of('f', none);
	assert_int_equal(tree_head(t, &repo, none, true, &head, NULL), -ENOENT);
	reopen();
	assert_int_equal(tree_head(t, &repo, "main", false, &head, NULL), -EAGAIN); /* of unknown age */
	assert_int_equal(tree_head_known(t, &repo, "main", &head), 0);
	assert_string_equal(head.commit, A);
	assert_int_equal(head.date_s, 1000000 + 'a');
	hub.fail = -ETIMEDOUT;
	assert_head("main", true, TREE_BRANCH, A); /* the last known one */
	assert_head("main", false, TREE_BRANCH, A); /* and not a time-out for each question */
	hub.fail = -EACCES;
	tree_forget_head(t, &repo, "main");
	assert_int_equal(tree_head(t, &repo, "main", true, &head, &err), -EACCES);
	assert_string_equal(err.text, "the Hub says no");
}

static void test_heads_age(void **state)
{
	struct tree_head head;

	close_tree();
	open_tree(200, 0);
	assert_head("main", true, TREE_BRANCH, A);
	assert_head("v1", true, TREE_TAG, A);
	hub.main_commit = 'b';
	hub.tag_commit = 'b';
	assert_head("main", true, TREE_BRANCH, A);
	usleep(250000);
	assert_head("v1", false, TREE_TAG, A); /* a tag is looked at once per mount */
	assert_int_equal(tree_head(t, &repo, "main", false, &head, NULL), -EAGAIN);
	assert_int_equal(tree_head_known(t, &repo, "main", &head), 0);
	assert_string_equal(head.commit, A);
	assert_head("main", true, TREE_BRANCH, B);
	assert_head("main", false, TREE_BRANCH, B);
	hub.main_commit = 'a';
	tree_forget_head(t, &repo, "main");
	assert_int_equal(tree_head(t, &repo, "main", false, &head, NULL), -EAGAIN);
	assert_head("main", true, TREE_BRANCH, A);
}

struct asker {
	pthread_t thread;
	int r;
	struct tree_head head;
};

static void *asker_main(void *arg)
{
	struct asker *a = arg;

	a->r = tree_head(t, &repo, "main", true, &a->head, NULL);
	return NULL;
}

/* An answer that was sent before our own commit does not undo it. */
static void test_adopt(void **state)
{
	struct asker a;
	struct tree_refs *refs = NULL;

	assert_head("main", true, TREE_BRANCH, A);
	tree_forget_head(t, &repo, "main");
	hub.hold = true;
	assert_int_equal(pthread_create(&a.thread, NULL, asker_main, &a), 0);
	lock_take(&hub.lock);
	while (!hub.inside)
		cond_wait(&hub.change, &hub.lock);
	lock_drop(&hub.lock);
	tree_adopt(t, &repo, "main", B, 1000000 + 'b');
	lock_take(&hub.lock);
	hub.hold = false;
	cond_broadcast(&hub.change);
	lock_drop(&hub.lock);
	pthread_join(a.thread, NULL);
	assert_int_equal(a.r, 0);
	assert_string_equal(a.head.commit, B);
	assert_head("main", false, TREE_BRANCH, B);
	assert_head("feature/x", false, TREE_BRANCH, A);
	assert_int_equal(tree_refs(t, &repo, false, &refs, NULL), 0);
	assert_int_equal(refs->n, 7);
	for (size_t i = 1; i < refs->n; i++)
		assert_true(strcmp(refs->ref[i - 1].name, refs->ref[i].name) <= 0);
	tree_refs_unref(refs);
	/* It is saved, too. */
	reopen();
	hub.fail = -ENETDOWN;
	assert_head("main", true, TREE_BRANCH, B);
}

static void test_listings(void **state)
{
	struct tree_listing *l = NULL, *again = NULL;
	const struct tree_entry *e;
	struct tree_entry st;

	assert_int_equal(tree_list(t, &repo, A, "", false, &l, NULL), -EAGAIN);
	assert_int_equal(tree_list(t, &repo, A, "", true, &l, NULL), 0);
	assert_int_equal(l->n, 3);
	assert_string_equal(l->entries[0].name, "README.md");
	e = tree_find(l, "model.bin");
	assert_non_null(e);
	assert_int_equal(e->key.size, 5000000000);
	assert_int_equal(e->key.alg, HASH_SHA256);
	assert_int_equal(e->key.id[31], 'm' + 1);
	assert_int_equal(e->oid[0], 'm');
	assert_null(tree_find(l, "model"));
	assert_int_equal(tree_list(t, &repo, A, "", false, &again, NULL), 0);
	assert_ptr_equal(l, again);
	tree_listing_unrefp(&again);
	tree_listing_unrefp(&l);
	assert_int_equal(tree_list(t, &repo, A, "sub/deep", false, &l, NULL), -EAGAIN);
	assert_int_equal(tree_list(t, &repo, A, "sub/deep", true, &l, NULL), 0);
	assert_int_equal(l->n, 1);
	assert_string_equal(l->entries[0].name, "y");
	tree_listing_unrefp(&l);
	assert_int_equal(hub.n_tree, 3);
	/* Absence is known without a question. */
	assert_int_equal(tree_list(t, &repo, A, "none", false, &l, NULL), -ENOENT);
	assert_int_equal(tree_list(t, &repo, A, "README.md", false, &l, NULL), -ENOTDIR);
	assert_int_equal(tree_list(t, &repo, A, "README.md/x", false, &l, NULL), -ENOTDIR);
	assert_int_equal(tree_list(t, &repo, A, "../x", false, &l, NULL), -ENOENT);
	assert_int_equal(tree_stat(t, &repo, A, "sub/none", false, &st, NULL), -ENOENT);
	assert_int_equal(tree_stat(t, &repo, A, "sub/deep/y", false, &st, NULL), 0);
	assert_int_equal(st.key.size, 2);
	assert_int_equal(tree_stat(t, &repo, A, "", false, &st, NULL), 0);
	assert_int_equal(st.kind, HUB_ENTRY_DIR);
	assert_int_equal(hub.n_tree, 3);
	/* At the next commit the unchanged folders cost nothing. */
	assert_int_equal(tree_list(t, &repo, B, "sub/deep", true, &l, NULL), 0);
	tree_listing_unrefp(&l);
	assert_int_equal(hub.n_tree, 4);
	/* And after a remount nothing does, nor without a network. */
	reopen();
	hub.fail = -ENETDOWN;
	assert_int_equal(tree_list(t, &repo, B, "sub/deep", false, &l, NULL), 0);
	assert_string_equal(l->entries[0].name, "y");
	tree_listing_unrefp(&l);
	assert_int_equal(tree_list(t, &repo, A, "", false, &l, NULL), 0);
	e = tree_find(l, "model.bin");
	assert_int_equal(e->key.size, 5000000000);
	assert_int_equal(e->key.id[31], 'm' + 1);
	assert_int_equal(e->oid[19], 'm');
	assert_int_equal(tree_find(l, "README.md")->key.id[19], 'r');
	assert_int_equal(tree_find(l, "sub")->kind, HUB_ENTRY_DIR);
	tree_listing_unrefp(&l);
	assert_int_equal(hub.n_tree, 4);
}

static void test_failure_is_not_absence(void **state)
{
	static const int fails[] = {-ETIMEDOUT, -EIO, -ENETDOWN, -EACCES, -ECANCELED};
	struct tree_listing *l = NULL;

	for (size_t i = 0; i < ARRAY_LEN(fails); i++) {
		hub.fail = fails[i];
		assert_int_equal(tree_list(t, &repo, A, "sub", true, &l, NULL), fails[i]);
	}
	hub.fail = 0;
	assert_int_equal(tree_list(t, &repo, A, "", true, &l, NULL), 0);
	tree_listing_unrefp(&l);
	hub.fail = -ENOENT; /* the Hub contradicts its own listing */
	assert_int_equal(tree_list(t, &repo, A, "sub", true, &l, NULL), -EIO);
	hub.fail = 0;
	assert_int_equal(tree_list(t, &repo, A, "sub", true, &l, NULL), 0);
	tree_listing_unrefp(&l);
}

static void test_evil_names(void **state)
{
	struct tree_listing *l = NULL;

	hub.with_evil = true;
	assert_int_equal(tree_list(t, &repo, A, "", true, &l, NULL), 0);
	assert_int_equal(l->n, 3);
	tree_listing_unrefp(&l);
	reopen();
	assert_int_equal(tree_list(t, &repo, A, "", false, &l, NULL), 0);
	assert_int_equal(l->n, 3);
	tree_listing_unrefp(&l);
}

/* Whatever lies in the index under a listing's key is a right listing or none. */
static void test_damaged_listing(void **state)
{
	char key[200], *good = NULL;
	struct tree_listing *l = NULL;
	size_t len = 0;

	snprintf(key, sizeof(key), "root:model/user/repo:%s", A);
	assert_int_equal(tree_list(t, &repo, A, "", true, &l, NULL), 0);
	tree_listing_unrefp(&l);
	assert_int_equal(index_meta_get(ix, key, &good, &len), 0);
	assert_int_equal(log_set_levels("err"), 0);
	for (size_t i = 0; i < len; i++) {
		for (int cut = 0; cut < 2; cut++) {
			char *bad = malloc(len);

			memcpy(bad, good, len);
			bad[i] ^= 0x41;
			assert_int_equal(index_meta_put(ix, key, bad, cut ? i : len), 0);
			free(bad);
			reopen();
			assert_int_equal(tree_list(t, &repo, A, "", false, &l, NULL), -EAGAIN);
		}
	}
	assert_int_equal(log_set_levels("warn"), 0);
	assert_int_equal(tree_list(t, &repo, A, "", true, &l, NULL), 0);
	assert_int_equal(l->n, 3);
	tree_listing_unrefp(&l);
	free(good);
}

static int count_file(void *arg, const char *path, const struct tree_entry *entry)
{
	unsigned *seen = arg;

	if (strcmp(path, "README.md") == 0)
		*seen |= 1;
	if (strcmp(path, "model.bin") == 0)
		*seen |= 2;
	if (strcmp(path, "sub/x") == 0)
		*seen |= 4;
	if (strcmp(path, "sub/deep/y") == 0) {
		*seen |= 8;
		return 7;
	}
	*seen += 16;
	return 0;
}

static void test_walk(void **state)
{
	unsigned seen = 0;

	assert_int_equal(tree_walk(t, &repo, A, "", count_file, &seen, NULL), 7);
	assert_int_equal(seen & 11, 11);
	seen = 0;
	assert_int_equal(tree_walk(t, &repo, A, "none", count_file, &seen, NULL), -ENOENT);
}

static void test_memory_is_capped(void **state)
{
	struct tree_listing *root = NULL, *l = NULL;

	close_tree();
	open_tree(0, 3);
	assert_int_equal(tree_list(t, &repo, A, "", true, &root, NULL), 0);
	for (int i = 0; i < 5; i++) {
		assert_int_equal(tree_list(t, &repo, A, "sub/deep", true, &l, NULL), 0);
		tree_listing_unrefp(&l);
		assert_int_equal(tree_list(t, &repo, B, "sub", true, &l, NULL), 0);
		tree_listing_unrefp(&l);
	}
	assert_int_equal(root->n, 3); /* who holds one keeps it */
	assert_string_equal(root->entries[2].name, "sub");
	tree_listing_unrefp(&root);
	assert_int_equal(hub.n_tree, 4); /* the rest came from the index */
}

static void *lister_main(void *arg)
{
	int *bad = arg;

	for (int i = 0; i < 50; i++) {
		struct tree_listing *l = NULL;
		struct tree_head head;

		if (tree_list(t, &repo, i % 2 ? A : B, "sub/deep", true, &l, NULL) < 0 || l->n != 1)
			*bad = 1;
		tree_listing_unref(l);
		if (tree_head(t, &repo, "main", true, &head, NULL) < 0)
			*bad = 1;
		if (i % 10 == 0)
			tree_forget_head(t, &repo, "main");
		if (i % 25 == 0)
			tree_adopt(t, &repo, "main", i % 2 ? A : B, 5);
	}
	return NULL;
}

static void test_threads(void **state)
{
	pthread_t threads[8];
	int bad[8] = {0};

	close_tree();
	open_tree(0, 6);
	for (int i = 0; i < 8; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, lister_main, &bad[i]), 0);
	for (int i = 0; i < 8; i++) {
		pthread_join(threads[i], NULL);
		assert_int_equal(bad[i], 0);
	}
}

static void test_single_flight(void **state)
{
	struct asker a[8];

	hub.hold = true;
	for (int i = 0; i < 8; i++)
		assert_int_equal(pthread_create(&a[i].thread, NULL, asker_main, &a[i]), 0);
	usleep(50000); /* time for wrong second questions */
	lock_take(&hub.lock);
	assert_int_equal(hub.n_refs, 1);
	hub.hold = false;
	cond_broadcast(&hub.change);
	lock_drop(&hub.lock);
	for (int i = 0; i < 8; i++) {
		pthread_join(a[i].thread, NULL);
		assert_int_equal(a[i].r, 0);
		assert_string_equal(a[i].head.commit, A);
	}
	assert_int_equal(hub.n_refs, 1);
	assert_int_equal(hub.n_commits, 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_repo, setup, teardown),
		cmocka_unit_test_setup_teardown(test_heads, setup, teardown),
		cmocka_unit_test_setup_teardown(test_heads_age, setup, teardown),
		cmocka_unit_test_setup_teardown(test_adopt, setup, teardown),
		cmocka_unit_test_setup_teardown(test_listings, setup, teardown),
		cmocka_unit_test_setup_teardown(test_failure_is_not_absence, setup, teardown),
		cmocka_unit_test_setup_teardown(test_evil_names, setup, teardown),
		cmocka_unit_test_setup_teardown(test_damaged_listing, setup, teardown),
		cmocka_unit_test_setup_teardown(test_walk, setup, teardown),
		cmocka_unit_test_setup_teardown(test_memory_is_capped, setup, teardown),
		cmocka_unit_test_setup_teardown(test_threads, setup, teardown),
		cmocka_unit_test_setup_teardown(test_single_flight, setup, teardown),
	};

	lock_init(&hub.lock, LOCK_HUB);
	cond_init(&hub.change);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
