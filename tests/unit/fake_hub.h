/* A Hub in memory behind the functions of hub, tree, fetch and blocks that publication calls, for the unit
 * tests of upload, commit and publish: the linker takes these before those of the library. One repository,
 * one branch, real content ids.
 *
 * Names that end in ".bin" go to LFS. Included by one .c of a program. */
#ifndef HUGFS_TESTS_FAKE_HUB_H
#define HUGFS_TESTS_FAKE_HUB_H

#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "blocks.h"
#include "fetch.h"
#include "hub.h"
#include "stage.h"
#include "tree.h"

#define FAKE_FILES 128
#define FAKE_COMMITS 64

struct fake_file {
	char path[200];
	struct blob_key key;
	char *data;
};
struct fake_commit {
	char id[41];
	char title[300], description[300];
	struct fake_file files[FAKE_FILES];
	size_t n;
};
/* How calls are answered; `times` of them, then well again. */
struct fake_fault {
	int err, times;
	int status, retry_after_s;
	bool lands, maybe_done; /* of a commit */
	bool silent;            /* waits until fake.awake, or cancelled */
};
static struct {
	pthread_mutex_t mutex;
	struct fake_commit commits[FAKE_COMMITS]; /* oldest first */
	size_t n;
	char known[41];          /* head, as tree knows it */
	struct blob_key lfs[FAKE_FILES]; /* what the repository has */
	char *lfs_data[FAKE_FILES];
	size_t n_lfs;
	struct fake_fault preupload, batch, commit, look;
	bool awake;
	bool gone;               /* the branch */
	unsigned slow_us;        /* for each 7 bytes of a large file */
	/* what was asked */
	unsigned preuploads, judged, batches, puts, posts, looks, heads, adopted, fetched;
	char sent[2000];         /* "+path " "-path " of the last commit that came */
	/* Called before the call of that name is answered, without the lock; once. */
	void (*on_preupload)(void), (*on_batch)(void), (*on_commit)(void);
} fake = {.mutex = PTHREAD_MUTEX_INITIALIZER};

/* -- the repository -- */

static void fake_lock(void)
{
	assert_int_equal(pthread_mutex_lock(&fake.mutex), 0);
}

static void fake_unlock(void)
{
	pthread_mutex_unlock(&fake.mutex);
}

static bool fake_is_lfs(const char *path)
{
	size_t n = strlen(path);

	return n > 4 && strcmp(path + n - 4, ".bin") == 0;
}

static struct blob_key fake_key(const char *path, const char *data)
{
	struct blob_key key;

	assert_int_equal(hash_buf(fake_is_lfs(path) ? HASH_SHA256 : HASH_GIT_SHA1, data, strlen(data), &key),
	                 0);
	return key;
}

static struct fake_commit *fake_head(void)
{
	return &fake.commits[fake.n - 1];
}

static struct fake_commit *fake_find_commit(const char *id)
{
	for (size_t i = 0; i < fake.n; i++) {
		if (strcmp(fake.commits[i].id, id) == 0)
			return &fake.commits[i];
	}
	return NULL;
}

static struct fake_file *fake_find(struct fake_commit *c, const char *path)
{
	for (size_t i = 0; i < c->n; i++) {
		if (strcmp(c->files[i].path, path) == 0)
			return &c->files[i];
	}
	return NULL;
}

static void fake_remove(struct fake_commit *c, const char *path)
{
	struct fake_file *f = fake_find(c, path);

	assert_non_null(f);
	free(f->data);
	*f = c->files[--c->n];
}

static void fake_put(struct fake_commit *c, const char *path, const struct blob_key *key, const char *data)
{
	struct fake_file *f = fake_find(c, path);

	if (!f) {
		assert_true(c->n < FAKE_FILES);
		f = &c->files[c->n++];
		f->data = NULL;
	}
	free(f->data);
	snprintf(f->path, sizeof(f->path), "%s", path);
	f->key = *key;
	f->data = strdup(data);
}

/* A copy of the head with an id of its own, not yet visible. */
static struct fake_commit *fake_begin(void)
{
	struct fake_commit *c = &fake.commits[fake.n];

	assert_true(fake.n < FAKE_COMMITS);
	*c = (struct fake_commit){0};
	snprintf(c->id, sizeof(c->id), "%040x", (unsigned)fake.n + 1);
	for (size_t i = 0; fake.n && i < fake_head()->n; i++) {
		const struct fake_file *f = &fake_head()->files[i];

		fake_put(c, f->path, &f->key, f->data);
	}
	return c;
}

/* Somebody's push: pairs of path and text (NULL deletes), NULL after the last. */
__attribute__((sentinel)) static void fake_push(const char *path, ...)
{
	struct fake_commit *c;
	va_list ap;

	fake_lock();
	c = fake_begin();
	va_start(ap, path);
	for (; path; path = va_arg(ap, const char *)) {
		const char *data = va_arg(ap, const char *);
		struct blob_key key;

		if (!data) {
			fake_remove(c, path);
			continue;
		}
		key = fake_key(path, data);
		fake_put(c, path, &key, data);
	}
	va_end(ap);
	fake.n++;
	fake_unlock();
}

static void fake_reset(void)
{
	for (size_t i = 0; i < fake.n; i++) {
		while (fake.commits[i].n)
			fake_remove(&fake.commits[i], fake.commits[i].files[0].path);
	}
	for (size_t i = 0; i < fake.n_lfs; i++)
		free(fake.lfs_data[i]);
	memset((char *)&fake + sizeof(fake.mutex), 0, sizeof(fake) - sizeof(fake.mutex));
}

/* The branch, as "path=text path=text" in the order of names. */
static int fake_by_path(const void *a, const void *b)
{
	return strcmp(((const struct fake_file *)a)->path, ((const struct fake_file *)b)->path);
}

__attribute__((unused)) static const char *fake_tree(void)
{
	static char text[4000];
	struct fake_commit *c;
	size_t at = 0;

	fake_lock();
	c = fake_head();
	qsort(c->files, c->n, sizeof(*c->files), fake_by_path);
	text[0] = '\0';
	for (size_t i = 0; i < c->n; i++)
		at += (size_t)snprintf(text + at, sizeof(text) - at, "%s%s=%s", i ? " " : "",
		                       c->files[i].path, c->files[i].data);
	fake_unlock();
	return text;
}

static void fake_call(void (**hook)(void))
{
	void (*f)(void) = *hook;

	*hook = NULL;
	if (f)
		f();
}

/* The answer of a faulty call, or 0. */
static int fake_answer(struct fake_fault *fault, struct hub_error *err, atomic_bool *cancel)
{
	struct fake_fault now;

	fake_lock();
	now = *fault;
	if (fault->times > 0)
		fault->times--;
	fake_unlock();
	if (now.times <= 0)
		return 0;
	while (now.silent) {
		bool awake;

		fake_lock();
		awake = fake.awake;
		fake_unlock();
		if (awake || (cancel && atomic_load(cancel)))
			break;
		usleep(1000);
	}
	if (cancel && atomic_load(cancel))
		now.err = -ECANCELED;
	if (err)
		*err = (struct hub_error){
			.status = now.status, .retry_after_s = now.retry_after_s ? now.retry_after_s : -1,
			.maybe_done = now.maybe_done, .text = "the fake Hub says no",
		};
	return now.err;
}

/* -- hub -- */

int hub_preupload(struct hub *h, const struct repo_id *id, const char *rev, bool create_pr,
                  struct hub_pre_file *files, size_t n, char ret_head[41], struct hub_error *err)
{
	int r;

	fake_call(&fake.on_preupload);
	fake_lock();
	fake.preuploads++;
	fake_unlock();
	r = fake_answer(&fake.preupload, err, NULL);
	if (r < 0)
		return r;
	fake_lock();
	fake.judged += (unsigned)n;
	for (size_t i = 0; i < n; i++) {
		struct fake_file *f = fake_find(fake_head(), files[i].path);

		assert_int_equal(files[i].sample_len, MIN(files[i].size, sizeof(files[i].sample)));
		files[i].lfs = files[i].size && fake_is_lfs(files[i].path);
		files[i].has_remote = f != NULL;
		if (f) {
			files[i].remote = f->key;
			files[i].remote.size = 0;
		}
	}
	memcpy(ret_head, fake_head()->id, 41);
	fake_unlock();
	return 0;
}

/* In odd pieces; `sent` counts them. */
static int fake_read(http_source source, void *arg, uint64_t size, atomic_uint_fast64_t *sent, char **ret)
{
	AUTO_FREE char *data = calloc(1, size + 2);
	uint64_t off = 0;

	while (off < size) {
		ssize_t n = source(arg, data + off, MIN((size_t)7, (size_t)(size - off)), off);

		assert_int_not_equal(n, 0);
		if (n < 0)
			return (int)n;
		off += (uint64_t)n;
		if (sent) {
			atomic_fetch_add(sent, (uint64_t)n);
			usleep(fake.slow_us);
		}
	}
	assert_int_equal(source(arg, data + size, 1, size), 0);
	*ret = STEAL(data);
	return 0;
}

static bool fake_has_lfs(const struct blob_key *key)
{
	for (size_t i = 0; i < fake.n_lfs; i++) {
		if (hash_key_equal(&fake.lfs[i], key))
			return true;
	}
	for (size_t i = 0; i < fake_head()->n; i++) {
		if (hash_key_equal(&fake_head()->files[i].key, key))
			return true;
	}
	return false;
}

int hub_lfs_upload(struct hub *h, const struct repo_id *id, const char *rev, bool create_pr,
                   struct hub_lfs_file *files, size_t n, unsigned parallel, atomic_bool *cancel,
                   struct hub_error *err)
{
	int r;

	fake_call(&fake.on_batch);
	fake_lock();
	fake.batches++;
	fake_unlock();
	r = fake_answer(&fake.batch, err, cancel);
	if (r < 0)
		return r;
	for (size_t i = 0; i < n; i++) {
		char *data;
		struct blob_key key;

		fake_lock();
		files[i].was_there = fake_has_lfs(&files[i].key);
		fake_unlock();
		if (files[i].was_there)
			continue;
		files[i].result = fake_read(files[i].source, files[i].arg, files[i].key.size, files[i].sent,
		                            &data);
		if (files[i].result < 0)
			return files[i].result;
		assert_int_equal(hash_buf(HASH_SHA256, data, files[i].key.size, &key), 0);
		assert_true(hash_key_equal(&key, &files[i].key));
		fake_lock();
		assert_true(fake.n_lfs < FAKE_FILES);
		fake.lfs_data[fake.n_lfs] = data;
		fake.lfs[fake.n_lfs++] = key;
		fake.puts++;
		fake_unlock();
	}
	return 0;
}

/* What the LFS store or an earlier commit holds by that key. */
static const char *fake_content(const struct blob_key *key)
{
	for (size_t i = 0; i < fake.n_lfs; i++) {
		if (hash_key_equal(&fake.lfs[i], key))
			return fake.lfs_data[i];
	}
	for (size_t c = 0; c < fake.n; c++) {
		for (size_t i = 0; i < fake.commits[c].n; i++) {
			if (hash_key_equal(&fake.commits[c].files[i].key, key))
				return fake.commits[c].files[i].data;
		}
	}
	return NULL;
}

static void fake_apply(struct fake_commit *c, const struct hub_commit_req *req, char *const *data)
{
	bool adding = false;

	for (size_t i = 0; i < req->n; i++) {
		const struct hub_op *op = &req->ops[i];

		for (size_t j = 0; j < i; j++)
			assert_string_not_equal(op->path, req->ops[j].path);
		if (op->kind == HUB_OP_DELETE) {
			assert_false(adding);
			fake_remove(c, op->path);
		} else {
			adding = true;
			fake_put(c, op->path, &op->key, data[i]);
		}
	}
	snprintf(c->title, sizeof(c->title), "%s", req->title);
	snprintf(c->description, sizeof(c->description), "%s", req->description);
}

int hub_commit(struct hub *h, const struct repo_id *id, const struct hub_commit_req *req,
               struct hub_commit_result *ret, struct hub_error *err)
{
	static const char marks[] = {[HUB_OP_FILE] = '+', [HUB_OP_LFS] = '*', [HUB_OP_DELETE] = '-'};
	AUTO_FREE char **data = calloc(req->n + 1, sizeof(char *));
	struct fake_commit *c;
	bool lands;
	int r;

	fake_call(&fake.on_commit);
	fake_lock();
	fake.posts++;
	lands = fake.commit.times <= 0 || fake.commit.lands;
	fake.sent[0] = '\0';
	for (size_t i = 0; i < req->n; i++)
		snprintf(fake.sent + strlen(fake.sent), sizeof(fake.sent) - strlen(fake.sent), "%s%c%s",
		         i ? " " : "", marks[req->ops[i].kind], req->ops[i].path);
	fake_unlock();
	assert_true(req->n > 0);
	for (size_t i = 0; lands && i < req->n; i++) {
		const struct hub_op *op = &req->ops[i];
		struct blob_key key;

		if (op->kind == HUB_OP_FILE) {
			r = fake_read(op->source, op->arg, op->key.size, NULL, &data[i]);
			if (r < 0) {
				while (i-- > 0)
					free(data[i]);
				return r;
			}
			assert_int_equal(hash_buf(HASH_GIT_SHA1, data[i], op->key.size, &key), 0);
			assert_true(hash_key_equal(&key, &op->key));
		} else if (op->kind == HUB_OP_LFS) {
			fake_lock();
			assert_non_null(fake_content(&op->key)); /* else the Hub refuses the commit */
			data[i] = strdup(fake_content(&op->key));
			fake_unlock();
		}
	}
	if (lands) {
		fake_lock();
		if (strcmp(req->parent, fake_head()->id) != 0) {
			fake_unlock();
			for (size_t i = 0; i < req->n; i++)
				free(data[i]);
			*err = (struct hub_error){.status = 412, .retry_after_s = -1, .text = "updated"};
			return -ESTALE;
		}
		c = fake_begin();
		fake_apply(c, req, data);
		fake.n++;
		memcpy(ret->commit, c->id, 41);
		fake_unlock();
	}
	for (size_t i = 0; i < req->n; i++)
		free(data[i]);
	r = fake_answer(&fake.commit, err, req->cancel);
	if (r < 0) {
		ret->commit[0] = '\0';
		return r;
	}
	ret->url = strdup("http://hub/commit");
	return 0;
}

void hub_commit_result_fini(struct hub_commit_result *r)
{
	free(r->url);
	free(r->pr_url);
}

/* Pull requests are for tests/mount: nothing here opens one. */
int tree_adopt_changes(struct tree *t, const struct repo_id *id, const char *base, const char *commit,
                       const struct tree_change *changes, size_t n)
{
	for (size_t i = 1; i < n; i++)
		assert_true(strcmp(changes[i - 1].path, changes[i].path) < 0);
	return 0;
}

int hub_pr_open(struct hub *h, const struct repo_id *id, const char *title, const char *description,
                unsigned *ret_number, struct hub_error *err)
{
	fail();
	return -EACCES;
}

int hub_pr_get(struct hub *h, const struct repo_id *id, unsigned number, struct hub_pr *ret,
               struct hub_error *err)
{
	fail();
	return -EACCES;
}

int hub_pr_publish(struct hub *h, const struct repo_id *id, unsigned number, struct hub_error *err)
{
	fail();
	return -EACCES;
}

int hub_pr_merge(struct hub *h, const struct repo_id *id, unsigned number, const char *comment,
                 struct hub_error *err)
{
	fail();
	return -EACCES;
}

char *hub_pr_url(const struct hub *h, const struct repo_id *id, unsigned number)
{
	fail();
	return NULL;
}

int hub_commits(struct hub *h, const struct repo_id *id, const char *rev, unsigned limit,
                struct hub_commits *ret, struct hub_error *err)
{
	int r = fake_answer(&fake.look, err, NULL);
	size_t n;

	if (r < 0)
		return r;
	fake_lock();
	fake.looks++;
	n = MIN((size_t)limit, fake.n);
	ret->commits = calloc(n, sizeof(*ret->commits));
	ret->n = n;
	for (size_t i = 0; i < n; i++) {
		const struct fake_commit *c = &fake.commits[fake.n - 1 - i];

		memcpy(ret->commits[i].id, c->id, 41);
		ret->commits[i].date_s = 1000;
		ret->commits[i].title = strdup(c->title);
		ret->commits[i].message = strdup(c->description);
	}
	fake_unlock();
	return 0;
}

void hub_commits_fini(struct hub_commits *c)
{
	for (size_t i = 0; i < c->n; i++) {
		free(c->commits[i].title);
		free(c->commits[i].message);
	}
	free(c->commits);
	*c = (struct hub_commits){0};
}

/* -- tree -- */

int tree_head(struct tree *t, const struct repo_id *id, const char *rev, bool wait, struct tree_head *ret,
              struct hub_error *err)
{
	fake_lock();
	if (fake.gone) {
		fake_unlock();
		return -ENOENT;
	}
	if (!fake.known[0]) {
		memcpy(fake.known, fake_head()->id, 41);
		fake.heads++;
	}
	memcpy(ret->commit, fake.known, 41);
	ret->date_s = 1000;
	fake_unlock();
	return 0;
}

int tree_head_known(struct tree *t, const struct repo_id *id, const char *rev, struct tree_head *ret)
{
	int r = -ENOENT;

	fake_lock();
	if (fake.known[0]) {
		memcpy(ret->commit, fake.known, 41);
		ret->date_s = 1000;
		r = 0;
	}
	fake_unlock();
	return r;
}

void tree_forget_head(struct tree *t, const struct repo_id *id, const char *rev)
{
	fake_lock();
	fake.known[0] = '\0';
	fake_unlock();
}

/* Below `dir`: the rest of the path, or NULL. */
static const char *fake_below(const char *path, const char *dir)
{
	size_t n = strlen(dir);

	if (!n)
		return path;
	return strncmp(path, dir, n) == 0 && path[n] == '/' ? path + n + 1 : NULL;
}

/* A folder is called by what lies below it. */
static bool fake_dir_oid(const struct fake_commit *c, const char *dir, uint8_t oid[20])
{
	bool any = !*dir;

	memset(oid, 0, 20);
	for (size_t i = 0; i < c->n; i++) {
		const char *rest = fake_below(c->files[i].path, dir);
		uint64_t h;

		if (!rest)
			continue;
		any = true;
		h = hash_text64(hash_key_u64(&c->files[i].key), rest, strlen(rest));
		for (size_t b = 0; b < 8; b++)
			oid[b] ^= (uint8_t)(h >> 8 * b);
	}
	return any;
}

static int fake_stat(const char *commit, const char *path, struct tree_entry *ret)
{
	struct fake_commit *c = fake_find_commit(commit);
	struct fake_file *f;

	assert_non_null(c);
	*ret = (struct tree_entry){0};
	f = fake_find(c, path);
	if (f) {
		ret->kind = HUB_ENTRY_FILE;
		ret->key = f->key;
		memcpy(ret->oid, f->key.id, 20);
		return 0;
	}
	ret->kind = HUB_ENTRY_DIR;
	return fake_dir_oid(c, path, ret->oid) ? 0 : -ENOENT;
}

int tree_stat(struct tree *t, const struct repo_id *id, const char *commit, const char *path, bool wait,
              struct tree_entry *ret_entry, struct hub_error *err)
{
	int r;

	fake_lock();
	r = fake_stat(commit, path, ret_entry);
	fake_unlock();
	return r;
}

int tree_list(struct tree *t, const struct repo_id *id, const char *commit, const char *path, bool wait,
              struct tree_listing **ret, struct hub_error *err)
{
	struct tree_listing *list = calloc(1, sizeof(*list) + FAKE_FILES * (sizeof(struct tree_entry) + 200));
	struct tree_entry *ents = (struct tree_entry *)(list + 1);
	char(*names)[200] = (char(*)[200])(ents + FAKE_FILES);
	struct fake_commit *c;

	fake_lock();
	c = fake_find_commit(commit);
	assert_non_null(c);
	for (size_t i = 0; i < c->n; i++) {
		const char *rest = fake_below(c->files[i].path, path);
		char full[400];
		bool again = false;

		if (!rest)
			continue;
		snprintf(names[list->n], sizeof(*names), "%.*s", (int)strcspn(rest, "/"), rest);
		for (size_t j = 0; j < list->n; j++)
			again = again || strcmp(names[j], names[list->n]) == 0;
		if (again)
			continue;
		snprintf(full, sizeof(full), "%s%s%s", path, *path ? "/" : "", names[list->n]);
		assert_int_equal(fake_stat(commit, full, &ents[list->n]), 0);
		ents[list->n].name = names[list->n];
		list->n++;
	}
	fake_unlock();
	list->entries = ents;
	if (!list->n && *path) {
		free(list);
		return -ENOENT;
	}
	*ret = list;
	return 0;
}

void tree_listing_unref(struct tree_listing *l)
{
	free(l);
}

void tree_listing_unrefp(struct tree_listing **l)
{
	free(*l);
}

int tree_walk(struct tree *t, const struct repo_id *id, const char *commit, const char *path,
              tree_walk_fn each, void *arg, struct hub_error *err)
{
	char paths[FAKE_FILES][200];
	struct tree_entry ents[FAKE_FILES];
	struct fake_commit *c;
	size_t n = 0;
	int r = 0;

	fake_lock();
	c = fake_find_commit(commit);
	assert_non_null(c);
	for (size_t i = 0; i < c->n; i++) {
		if (!fake_below(c->files[i].path, path))
			continue;
		snprintf(paths[n], sizeof(paths[n]), "%s", c->files[i].path);
		assert_int_equal(fake_stat(commit, paths[n], &ents[n]), 0);
		n++;
	}
	fake_unlock();
	for (size_t i = 0; r == 0 && i < n; i++)
		r = each(arg, paths[i], &ents[i]);
	return n ? r : -ENOENT;
}

/* -- fetch and blocks -- */

struct source {
	struct blob_key key;
	atomic_uint refs;
};

int fetch_open(struct fetch *f, const struct blob_key *key, const struct hub_place *place,
               struct source **ret)
{
	struct source *s = calloc(1, sizeof(*s));

	s->key = *key;
	s->refs = 1;
	*ret = s;
	return 0;
}

struct source *fetch_ref(struct source *s)
{
	s->refs++;
	return s;
}

void fetch_close(struct source *s)
{
	if (s && --s->refs == 0)
		free(s);
}

void fetch_closep(struct source **s)
{
	fetch_close(*s);
}

const struct blob_key *fetch_key(const struct source *s)
{
	return &s->key;
}

ssize_t fetch_read_wait(struct source *s, uint64_t off, void *buf, size_t len, atomic_bool *cancel)
{
	const char *data;
	size_t n;

	fake_lock();
	data = fake_content(&s->key);
	assert_non_null(data);
	n = off < s->key.size ? MIN(len, (size_t)(s->key.size - off)) : 0;
	memcpy(buf, data + off, n);
	fake.fetched++;
	fake_unlock();
	return (ssize_t)n;
}

int blocks_adopt(struct blocks *b, const struct blob_key *key, const char *path)
{
	AUTO_FREE char *text = NULL;
	struct blob_key is;
	size_t len;

	assert_int_equal(util_read_file(path, 1 << 20, &text, &len), 0);
	assert_int_equal(hash_buf(key->alg, text, len, &is), 0);
	assert_true(hash_key_equal(&is, key));
	fake_lock();
	fake.adopted++;
	fake_unlock();
	return 0;
}

#endif
