/* stage: the table of states, bytes and extents, names, recovery after kill -9 and after loss of data, full
 * disks, owners, threads. What a commit leaves unchanged is tested against a model in stage_model.c. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <glob.h>
#include <pthread.h>
#include <signal.h>
#include <sqlite3.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "log.h"
#include "scratch.h"
#include "stage.h"

#define COMMIT1 "1111111111111111111111111111111111111111"
#define COMMIT2 "2222222222222222222222222222222222222222"
#define TOKEN "0123456789abcdef0123456789abcdef"
#define HERE "/v1/*/http%3A%2F%2Flocalhost%3A1/models/user/repo/main"

static char root[4200];
static unsigned roots;
static struct stage *stage;

static struct stage_ident ident = {
	.endpoint = "http://localhost:1",
	.repo = {.type = REPO_MODEL, .ns = "user", .name = "repo"},
	.rev = "main",
	.internal_id = "65f0",
};

static void reopen(void)
{
	stage_close(stage);
	stage = NULL;
	assert_int_equal(stage_open(root, &ident, true, &stage), 0);
	stage_check(stage);
}

static int begin(void **state)
{
	snprintf(root, sizeof(root), "%s/root%u", tmp, ++roots);
	return stage_open(root, &ident, true, &stage);
}

static int end(void **state)
{
	if (stage)
		stage_check(stage);
	stage_close(stage);
	stage = NULL;
	return nftw(root, remove_one, 16, FTW_DEPTH | FTW_PHYS) < 0 && errno != ENOENT;
}

/* The one path that matches below root; the caller frees. */
static char *path_of(const char *pattern)
{
	char full[4400];
	glob_t g;
	char *path;

	snprintf(full, sizeof(full), "%s%s", root, pattern);
	assert_int_equal(glob(full, 0, NULL, &g), 0);
	assert_int_equal(g.gl_pathc, 1);
	path = strdup(g.gl_pathv[0]);
	globfree(&g);
	return path;
}

static size_t count_of(const char *pattern)
{
	char full[4400];
	size_t n;
	glob_t g;

	snprintf(full, sizeof(full), "%s%s", root, pattern);
	n = glob(full, 0, NULL, &g) == 0 ? g.gl_pathc : 0;
	globfree(&g);
	return n;
}

static struct stage_name lookup(uint64_t dir, const char *name)
{
	struct stage_name what;

	assert_int_equal(stage_lookup(stage, dir, name, &what), 0);
	return what;
}

static struct stage_attr attr_of(uint64_t node)
{
	struct stage_attr attr;

	assert_int_equal(stage_attr(stage, node, &attr), 0);
	return attr;
}

static uint64_t create(uint64_t dir, const char *name)
{
	uint64_t node;

	assert_int_equal(stage_create(stage, dir, name, 0644, &node), 0);
	return node;
}

static void write_text(uint64_t node, uint64_t off, const char *text)
{
	assert_int_equal(stage_write(stage, node, off, text, strlen(text), 1), 0);
}

static void writer(uint64_t node)
{
	assert_int_equal(stage_pin(stage, node), 0);
	assert_int_equal(stage_writer_open(stage, node), 0);
}

static void writer_gone(uint64_t node)
{
	stage_writer_close(stage, node);
	stage_unpin(stage, node);
}

/* A closed file with that text. */
static uint64_t put(uint64_t dir, const char *name, const char *text)
{
	uint64_t node = create(dir, name);

	writer(node);
	write_text(node, 0, text);
	writer_gone(node);
	return node;
}

static struct blob_key key_of(const char *text)
{
	struct blob_key key;

	assert_int_equal(hash_buf(HASH_SHA256, text, strlen(text), &key), 0);
	return key;
}

/* The committed file `name` of the branch's root, as a node. */
static uint64_t borrow(const char *name, const char *text)
{
	struct stage_blob blob = {.key = key_of(text), .commit = COMMIT1, .path = name,
	                          .mtime = {.tv_sec = 1000}};
	uint64_t node;

	assert_int_equal(stage_borrow(stage, STAGE_ROOT, name, &blob, &node), 0);
	return node;
}

/* Reads it all, bytes of the blob from `base`. */
static void assert_bytes(uint64_t node, const char *base, const char *want, size_t len)
{
	static struct stage_gap gap;
	char buf[256];
	size_t off = 0;

	for (;;) {
		ssize_t n = stage_read(stage, node, off, buf + off, sizeof(buf) - off, &gap);

		assert_true(n >= 0);
		if (n == 0 && gap.len == 0)
			break;
		if (n == 0) {
			assert_int_equal(gap.off, off);
			assert_true(gap.off + gap.len <= strlen(base));
			memcpy(buf + off, base + off, gap.len);
			n = (ssize_t)gap.len;
		}
		off += (size_t)n;
	}
	assert_int_equal(off, len);
	assert_memory_equal(buf, want, len);
	assert_int_equal(attr_of(node).size, len);
}

static void freeze(void)
{
	struct stage_freeze f;

	assert_int_equal(stage_freeze(stage, NULL, 0, 0, &f), 0);
	stage_freeze_fini(&f);
}

/* Commits all that is settled as `commit`; items: path and text of each. */
static void publish(const char *commit, const char *const *texts)
{
	struct stage_intent intent = {.token = TOKEN, .parent = COMMIT1};
	struct stage_item items[16] = {0};
	struct stage_settled told;
	struct stage_names names;

	freeze();
	assert_int_equal(stage_names(stage, &names), 0);
	for (size_t i = 0; i < names.n; i++) {
		const struct stage_row *row = &names.rows[i];

		if (row->kind != STAGE_FILE || (!row->frozen && !row->is_blob && !row->has_committed))
			continue;
		items[intent.n].node = row->node;
		items[intent.n].layer = row->layer;
		items[intent.n].path = texts[2 * intent.n];
		items[intent.n].key = key_of(texts[2 * intent.n + 1]);
		intent.n++;
	}
	intent.gen = names.gen;
	intent.items = items;
	stage_names_fini(&names);
	assert_int_equal(stage_intent_put(stage, &intent), 0);
	assert_int_equal(stage_settle(stage, commit, &told), 0);
	assert_int_equal(told.n, intent.n);
	stage_settled_fini(&told);
	stage_check(stage);
}

/* -- the table of states, row by row -- */

static void state_conflict(void **state)
{
	uint64_t node = put(STAGE_ROOT, "f", "one");
	char *path = path_of(HERE "/journal.db");
	sqlite3 *db;

	stage_close(stage);
	assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
	assert_int_equal(sqlite3_exec(db, "UPDATE node SET state = 3", NULL, NULL, NULL), SQLITE_OK);
	sqlite3_close(db);
	free(path);
	assert_int_equal(stage_open(root, &ident, false, &stage), 0);
	assert_int_equal(attr_of(node).state, STAGE_CONFLICT);
	writer(node);
	write_text(node, 0, "two");
	assert_true(stage_writer_flush(stage, node, 1, true) >= 0);
	assert_int_equal(attr_of(node).state, STAGE_CONFLICT);
	writer_gone(node);
	assert_int_equal(attr_of(node).state, STAGE_CONFLICT);
	freeze();
	assert_int_equal(attr_of(node).state, STAGE_CONFLICT); /* left out */
	stage_release(stage);
	assert_bytes(node, "", "two", 3);
}

static void state_interrupted(void **state)
{
	uint64_t node = create(STAGE_ROOT, "f");
	struct stage_freeze f;
	struct stage_counts counts;

	writer(node);
	write_text(node, 0, "half");
	assert_true(stage_writer_flush(stage, node, 1, true) >= 0);
	assert_int_equal(attr_of(node).state, STAGE_INTERRUPTED);
	writer_gone(node);
	assert_int_equal(attr_of(node).state, STAGE_INTERRUPTED);
	stage_counts(stage, &counts);
	assert_int_equal(counts.interrupted, 1);
	assert_int_equal(stage_freeze(stage, &node, 1, 0, &f), 0);
	assert_int_equal(f.n, 0);
	stage_freeze_fini(&f);
	stage_release(stage);
	reopen();
	assert_int_equal(attr_of(node).state, STAGE_INTERRUPTED);
	assert_int_equal(stage_freeze(stage, NULL, 0, STAGE_TAKE_INTERRUPTED, &f), 0);
	assert_int_equal(f.n, 1);
	stage_freeze_fini(&f);
	stage_release(stage);
	/* Written and closed again. */
	writer(node);
	assert_int_equal(attr_of(node).state, STAGE_INTERRUPTED);
	write_text(node, 4, "whole");
	assert_int_equal(attr_of(node).state, STAGE_OPEN);
	writer_gone(node);
	assert_int_equal(attr_of(node).state, STAGE_STAGED);
	/* A cut without a writer does it too. */
	writer(node);
	write_text(node, 0, "x");
	assert_true(stage_writer_flush(stage, node, 7, true) >= 0);
	writer_gone(node);
	assert_int_equal(attr_of(node).state, STAGE_INTERRUPTED);
	assert_int_equal(stage_truncate(stage, node, 0), 0);
	assert_int_equal(attr_of(node).state, STAGE_STAGED);
	/* The killed thread of a reader, or of a writer that changed nothing, does no harm. */
	assert_true(stage_writer_flush(stage, node, 1, true) >= 0);
	assert_int_equal(attr_of(node).state, STAGE_STAGED);
	node = put(STAGE_ROOT, "g", "whole");
	writer(node);
	assert_true(stage_writer_flush(stage, node, 1, true) >= 0);
	writer_gone(node);
	assert_int_equal(attr_of(node).state, STAGE_STAGED);
}

static void state_open(void **state)
{
	uint64_t node = create(STAGE_ROOT, "f");

	writer(node);
	assert_int_equal(attr_of(node).state, STAGE_OPEN);
	write_text(node, 0, "a");
	/* Another thread's flush does not close it, the writer's does; a further write opens it again. */
	assert_true(stage_writer_flush(stage, node, 2, false) >= 0);
	assert_int_equal(attr_of(node).state, STAGE_OPEN);
	writer(node);
	writer_gone(node);
	assert_int_equal(attr_of(node).state, STAGE_OPEN);
	writer_gone(node);
	assert_int_equal(attr_of(node).state, STAGE_STAGED);
}

static bool takes(uint64_t node, unsigned take, uint64_t size)
{
	struct stage_freeze f;
	bool found = false;

	assert_int_equal(stage_freeze(stage, NULL, 0, take, &f), 0);
	for (size_t i = 0; i < f.n; i++) {
		if (f.files[i].node != node)
			continue;
		assert_int_equal(f.files[i].size, size);
		found = true;
	}
	stage_freeze_fini(&f);
	stage_release(stage);
	stage_check(stage);
	return found;
}

/* Files that have a writer still. */
static void takes_what_is_open(void **state)
{
	uint64_t log = create(STAGE_ROOT, "log"), redirected;
	struct stage_counts counts;

	writer(log);
	assert_false(takes(log, STAGE_TAKE_APPENDED | STAGE_TAKE_FLUSHED, 0)); /* not a byte yet */
	write_text(log, 0, "one");
	assert_false(takes(log, STAGE_TAKE_FLUSHED, 0));
	assert_true(takes(log, STAGE_TAKE_APPENDED, 3));
	write_text(log, 3, " two");
	assert_true(takes(log, STAGE_TAKE_APPENDED, 7));
	assert_int_equal(stage_writer_flush(stage, log, 2, false), 0);
	assert_int_equal(stage_writer_flush(stage, log, 1, false), 1);
	assert_true(takes(log, STAGE_TAKE_FLUSHED, 7));
	write_text(log, 7, "!");
	assert_true(takes(log, 0, 7)); /* what was frozen before */
	write_text(log, 0, "O");
	assert_int_equal(attr_of(log).size, 8);
	assert_true(takes(log, STAGE_TAKE_APPENDED, 7)); /* it is not only appended to any more */
	writer_gone(log);
	assert_true(takes(log, 0, 8));
	/* A shell's `program > file` closes a copy before the first byte. */
	redirected = create(STAGE_ROOT, "redirected");
	writer(redirected);
	assert_int_equal(stage_writer_flush(stage, redirected, 1, false), 0);
	assert_false(takes(redirected, STAGE_TAKE_FLUSHED | STAGE_TAKE_APPENDED, 0));
	stage_counts(stage, &counts);
	assert_int_equal(counts.open, 1);
	assert_int_equal(counts.unfinished, 1);
	/* Cut to nothing by its open, and appended to since. */
	assert_int_equal(stage_truncate(stage, redirected, 0), 0);
	write_text(redirected, 0, "x");
	assert_true(takes(redirected, STAGE_TAKE_APPENDED, 1));
	assert_int_equal(stage_truncate(stage, redirected, 0), 0);
	write_text(redirected, 0, "yy");
	assert_true(takes(redirected, STAGE_TAKE_APPENDED, 1)); /* as it was before the cut */
	writer_gone(redirected);
}

static void state_clean(void **state)
{
	uint64_t node = borrow("c", "committed"), dir;
	struct stage_attr attr = attr_of(node);
	struct blob_key key = key_of("committed");

	assert_int_equal(attr.state, STAGE_CLEAN);
	assert_true(attr.is_blob && hash_key_equal(&attr.blob, &key));
	assert_bytes(node, "committed", "committed", 9);
	/* Open for writing and closed unchanged: it loses its row. */
	writer(node);
	assert_int_equal(attr_of(node).state, STAGE_OPEN);
	assert_int_equal(stage_truncate(stage, node, 9), 0);
	assert_true(stage_writer_flush(stage, node, 1, true) >= 0);
	assert_int_equal(stage_pin(stage, node), 0);
	writer_gone(node);
	/* a reader has it: writes must reach him */
	assert_int_equal(lookup(STAGE_ROOT, "c").kind, STAGE_FILE);
	stage_unpin(stage, node);
	assert_int_equal(lookup(STAGE_ROOT, "c").kind, STAGE_NONE);
	assert_int_equal(stage_attr(stage, node, &attr), -ENOENT);
	assert_true(stage_empty(stage));
	/* Moved, it is clean and stays. */
	node = borrow("c", "committed");
	assert_int_equal(stage_mkdir(stage, STAGE_ROOT, "d", 0755, &dir), 0);
	assert_int_equal(stage_rename(stage, STAGE_ROOT, "c", true, dir, "e", NULL), 0);
	writer(node);
	writer_gone(node);
	assert_int_equal(attr_of(node).state, STAGE_CLEAN);
	assert_int_equal(lookup(dir, "e").node, node);
	assert_int_equal(lookup(STAGE_ROOT, "c").kind, STAGE_WHITEOUT);
}

static void state_committing(void **state)
{
	static const char *const texts[] = {"f", "one"};
	uint64_t node = put(STAGE_ROOT, "f", "one");
	struct stage_intent intent;

	assert_int_equal(attr_of(node).state, STAGE_STAGED);
	freeze();
	assert_int_equal(attr_of(node).state, STAGE_COMMITTING);
	assert_int_equal(stage_discard(stage, ""), -EBUSY);
	stage_release(stage);
	assert_int_equal(attr_of(node).state, STAGE_STAGED);
	freeze();
	writer(node);
	assert_int_equal(attr_of(node).state, STAGE_OPEN);
	write_text(node, 3, "+");
	writer_gone(node);
	assert_int_equal(attr_of(node).state, STAGE_STAGED);
	stage_release(stage);
	assert_int_equal(stage_intent_get(stage, &intent), -ENOENT);
	assert_bytes(node, "", "one+", 4);
	publish(COMMIT2, texts);
	assert_int_equal(lookup(STAGE_ROOT, "f").kind, STAGE_NONE);
	assert_true(stage_empty(stage));
	assert_int_equal(count_of(HERE "/data/*"), 0);
}

/* -- commits -- */

static void settles_writers(void **state)
{
	static const char *const first[] = {"open", "12345", "plain", "p"};
	static const char *const second[] = {"open", "12345"};
	uint64_t open = create(STAGE_ROOT, "open");
	struct blob_key key = key_of("12345");
	struct timespec mtime;
	struct stage_attr local;

	put(STAGE_ROOT, "plain", "p");
	writer(open);
	write_text(open, 0, "12345");
	/* Nothing of a file with a writer is settled, unless an fsync waits. */
	{
		struct stage_names names;

		freeze();
		assert_int_equal(stage_names(stage, &names), 0);
		for (size_t i = 0; i < names.n; i++)
			assert_int_equal(names.rows[i].frozen, names.rows[i].node != open);
		stage_names_fini(&names);
		stage_release(stage);
	}
	assert_int_equal(stage_freeze_node(stage, open, NULL), 0);
	mtime = attr_of(open).mtime;
	{
		/* publish() pairs texts with rows in their order, which is not promised. */
		const char *const turned[] = {first[2], first[3], first[0], first[1]};
		struct stage_names names;
		bool open_first;

		assert_int_equal(stage_names(stage, &names), 0);
		open_first = names.rows[0].node == open;
		stage_names_fini(&names);
		publish(COMMIT2, open_first ? first : turned);
	}
	assert_int_equal(attr_of(open).state, STAGE_OPEN);
	assert_true(attr_of(open).is_blob);
	assert_int_equal(attr_of(open).mtime.tv_nsec, mtime.tv_nsec);
	assert_int_equal(lookup(STAGE_ROOT, "plain").kind, STAGE_NONE);
	assert_int_equal(count_of(HERE "/data/*"), 0);
	assert_bytes(open, "12345", "12345", 5);
	/* More bytes: over the new blob. Publishing it now brings its committed bytes. */
	write_text(open, 3, "xyz");
	assert_bytes(open, "12345", "123xyz", 6);
	publish(COMMIT2, second);
	assert_bytes(open, "12345", "123xyz", 6);
	assert_int_equal(stage_truncate(stage, open, 0), 0);
	write_text(open, 0, "z");
	writer_gone(open);
	assert_bytes(open, "", "z", 1);
	/* Local times outlive the node. */
	{
		struct blob_key p = key_of("p");

		assert_int_equal(stage_local_get(stage, "plain", STAGE_FILE, &p, &local), 0);
		assert_int_equal(stage_local_get(stage, "plain", STAGE_FILE, &key, &local), -ENOENT);
		assert_int_equal(stage_local_get(stage, "open", STAGE_FILE, &key, &local), -ENOENT);
	}
}

/* A folder that became part of the commit, beside one whose name begins the same. */
static void settles_folders(void **state)
{
	static const char *const texts[] = {"a.x/f", "1"};
	uint64_t a, ax;

	assert_int_equal(stage_mkdir(stage, STAGE_ROOT, "a", 0755, &a), 0);
	assert_int_equal(stage_mkdir(stage, STAGE_ROOT, "a.x", 0755, &ax), 0);
	put(ax, "f", "1");
	publish(COMMIT2, texts);
	assert_int_equal(lookup(STAGE_ROOT, "a.x").kind, STAGE_NONE);
	assert_int_equal(lookup(STAGE_ROOT, "a").node, a); /* empty: kept here */
	{
		static const char *const more[] = {"a/f", "2", "a.x/g", "3"};
		struct stage_base base = {0};
		uint64_t gap;

		put(a, "f", "2");
		assert_int_equal(stage_follow(stage, STAGE_ROOT, "a.x", &ax), 0);
		put(ax, "g", "3");
		publish(COMMIT2, more);
		assert_int_equal(lookup(STAGE_ROOT, "a").kind, STAGE_NONE);
		/* FOLLOW below FOLLOW; none below a folder that has no base. */
		assert_int_equal(stage_follow(stage, STAGE_ROOT, "a", &a), 0);
		assert_int_equal(stage_follow(stage, a, "b", &gap), 0);
		assert_int_equal(stage_dir_base(stage, gap, &base), 0);
		assert_int_equal(base.kind, STAGE_BASE_FOLLOW);
		assert_true(stage_empty(stage));
		assert_int_equal(stage_mkdir(stage, STAGE_ROOT, "n", 0755, &gap), 0);
		assert_int_equal(stage_follow(stage, gap, "b", &a), -ENOENT);
	}
}

/* fsync again and again while no commit succeeds. */
static void thaws(void **state)
{
	uint64_t node = create(STAGE_ROOT, "log");
	struct stage_freeze f;
	char want[64] = "";
	uint32_t layer = 0;

	writer(node);
	for (unsigned i = 0; i < 40; i++) {
		want[i] = (char)('a' + i % 26);
		write_text(node, i, (char[]){want[i], 0});
		assert_int_equal(stage_freeze_node(stage, node, &layer), 0);
		assert_int_equal(stage_freeze(stage, NULL, 0, 0, &f), 0); /* a publication that fails */
		assert_int_equal(f.n, 1);
		assert_int_equal(f.files[0].layer, layer);
		assert_int_equal(f.files[0].size, i + 1);
		stage_freeze_fini(&f);
		stage_release(stage);
	}
	assert_true(layer <= 10);
	assert_bytes(node, "", want, 40);
	stage_check(stage);
	reopen();
	node = lookup(STAGE_ROOT, "log").node;
	assert_bytes(node, "", want, 40);
}

/* Frozen bytes stay readable when the file is changed, cut, replaced and deleted. */
static void frozen_stays(void **state)
{
	uint64_t node = put(STAGE_ROOT, "f", "frozen");
	static struct stage_gap gap;
	struct stage_freeze f;
	char buf[16], *path;
	bool exists;

	assert_int_equal(stage_freeze(stage, NULL, 0, 0, &f), 0);
	assert_int_equal(f.n, 1);
	assert_string_equal(f.files[0].path, "f");
	assert_int_equal(f.files[0].size, 6);
	write_text(node, 0, "FR");
	assert_int_equal(stage_truncate(stage, node, 3), 0);
	assert_bytes(node, "", "FRo", 3);
	assert_int_equal(stage_unlink(stage, STAGE_ROOT, "f", false), 0);
	assert_int_equal(stage_frozen_read(stage, node, f.files[0].layer, 0, buf, sizeof(buf), &gap), 6);
	assert_memory_equal(buf, "frozen", 6);
	assert_int_equal(stage_whole_path(stage, node, f.files[0].layer, &path, &exists), 0);
	assert_true(exists);
	free(path);
	stage_release(stage);
	assert_int_equal(stage_frozen_read(stage, node, f.files[0].layer, 0, buf, sizeof(buf), &gap),
	                 -ENOENT);
	assert_int_equal(count_of(HERE "/data/*"), 0);
	stage_freeze_fini(&f);
	/* Over a blob there is no whole file yet. */
	node = borrow("c", "committed");
	write_text(node, 0, "C");
	assert_int_equal(stage_freeze(stage, NULL, 0, 0, &f), 0);
	assert_int_equal(stage_whole_path(stage, node, f.files[0].layer, &path, &exists), 0);
	assert_false(exists);
	free(path);
	stage_freeze_fini(&f);
	stage_release(stage);
}

/* -- transactions -- */

/* What stands below the root, as "name=state" each, sorted by nobody: one string a call. */
static int describe(void *arg, const char *path, const struct stage_attr *attr)
{
	char *out = arg;

	snprintf(out + strlen(out), 400 - strlen(out), "%s=%d,%llu ", path, (int)attr->kind * 10 + (int)attr->state,
	         (unsigned long long)attr->size);
	return 0;
}

static bool has_entry(const char *entry)
{
	char all[400] = "";

	assert_int_equal(stage_each(stage, describe, all), 0);
	return strstr(all, entry) != NULL;
}

static size_t entries(void)
{
	char all[400] = "";
	size_t n = 0;

	assert_int_equal(stage_each(stage, describe, all), 0);
	for (const char *p = all; *p; p++)
		n += *p == ' ';
	return n;
}

static void change_everything(uint64_t a, uint64_t dir)
{
	uint64_t node;

	writer(a);
	write_text(a, 0, "CHANGED AND LONGER");
	writer_gone(a);
	assert_int_equal(stage_rename(stage, STAGE_ROOT, "a", false, STAGE_ROOT, "moved", NULL), 0);
	assert_int_equal(stage_unlink(stage, STAGE_ROOT, "b", false), 0);
	assert_int_equal(stage_unlink(stage, dir, "x", false), 0);
	assert_int_equal(stage_rmdir(stage, STAGE_ROOT, "dir", false), 0);
	put(STAGE_ROOT, "b", "another b");
	put(STAGE_ROOT, "new", "new");
	assert_int_equal(stage_unlink(stage, STAGE_ROOT, "committed", true), 0);
	node = borrow("c", "committed bytes");
	writer(node);
	write_text(node, 0, "C");
	writer_gone(node);
	assert_int_equal(stage_unlink(stage, STAGE_ROOT, "gone", false), 0);
}

static void a_transaction_is_taken_back(void **state)
{
	uint64_t a = put(STAGE_ROOT, "a", "one"), b = put(STAGE_ROOT, "b", "two"), dir, x, half, open;
	const struct stage_ref gone = {.parent = STAGE_ROOT, .name = "gone"};

	assert_int_equal(stage_mkdir(stage, STAGE_ROOT, "dir", 0755, &dir), 0);
	x = put(dir, "x", "three");
	assert_int_equal(stage_unlink(stage, STAGE_ROOT, "gone", true), 0);
	assert_int_equal(stage_conflict_put(stage, &gone, 1), 0);
	half = create(STAGE_ROOT, "half");
	writer(half);
	write_text(half, 0, "half");
	assert_int_equal(stage_tx_begin(stage), 0);
	assert_int_equal(stage_tx_begin(stage), -EBUSY);
	assert_int_equal(stage_tx_state(stage), STAGE_TX_RUNNING);
	stage_check(stage);
	for (int round = 0; round < 2; round++) {
		write_text(half, 4, " and more");
		writer_gone(half);
		open = create(STAGE_ROOT, "open");
		writer(open);
		write_text(open, 0, "o");
		assert_int_equal(stage_unlink(stage, STAGE_ROOT, "gone", true), -ENOENT);
		assert_int_equal(stage_create(stage, STAGE_ROOT, "gone", 0644, &x), 0);
		change_everything(a, dir);
		stage_check(stage);
		if (round == 1) { /* the daemon is killed */
			writer_gone(open);
			reopen();
			assert_int_equal(stage_tx_state(stage), STAGE_TX_HELD);
			stage_check(stage);
		}
		assert_int_equal(stage_tx_restore(stage), 0);
		assert_int_equal(stage_tx_state(stage), STAGE_TX_NONE);
		stage_check(stage);
		if (round == 0)
			writer_gone(open); /* without a name by now */
		assert_int_equal(entries(), 6);
		assert_true(has_entry("a=21,3 ") && has_entry("b=21,3 ") && has_entry("dir/x=21,5 "));
		assert_true(has_entry("half=24,4 ")); /* interrupted: it was half written then */
		assert_true(has_entry("gone=15,0 ")); /* a whiteout, in conflict */
		assert_int_equal(lookup(STAGE_ROOT, "a").node, a);
		assert_bytes(a, "", "one", 3);
		assert_bytes(b, "", "two", 3);
		dir = lookup(STAGE_ROOT, "dir").node;
		assert_bytes(lookup(dir, "x").node, "", "three", 5);
		assert_bytes(half, "", "half", 4);
		if (round == 0) {
			writer(half);
			assert_int_equal(stage_tx_begin(stage), 0);
		}
	}
	/* Nothing of it is left behind. */
	assert_int_equal(stage_discard(stage, ""), 0);
	assert_true(stage_empty(stage));
	assert_int_equal(stage_sync_behind(stage, 0), 0);
	assert_int_equal(count_of(HERE "/data/*"), 0);
}

/* What was being written when the transaction began was kept half written, for the way back; that is nothing to publish. */
static void a_transaction_publishes_nothing_half(void **state)
{
	uint64_t half = create(STAGE_ROOT, "half"), killed = create(STAGE_ROOT, "killed");

	writer(half);
	write_text(half, 0, "half");
	writer(killed);
	write_text(killed, 0, "half");
	assert_true(stage_writer_flush(stage, killed, 1, true) >= 0);
	writer_gone(killed);
	assert_int_equal(stage_tx_begin(stage), 0);
	assert_false(takes(half, 0, 4));
	assert_false(takes(half, STAGE_TAKE_FLUSHED, 4));
	write_text(half, 4, " and more");
	assert_false(takes(half, 0, 4));
	/* An interrupted file is not whole because somebody goes on with it. */
	writer(killed);
	write_text(killed, 4, "x");
	assert_false(takes(killed, 0, 4));
	writer_gone(killed);
	assert_true(takes(killed, 0, 5));
	writer_gone(half);
	assert_int_equal(stage_tx_hold(stage), 0);
	reopen();
	/* Closed, and written again: the half one below it is still none. */
	writer(half);
	write_text(half, 0, "H");
	assert_false(takes(half, 0, 4));
	writer_gone(half);
	assert_true(takes(half, 0, 13));
}

/* A file that is open when its transaction is taken back goes on without a name, whatever lies below its bytes. */
static void work_after_the_way_back(void)
{
	uint64_t node = create(STAGE_ROOT, "new");
	struct stage_freeze f;

	assert_int_equal(stage_tx_begin(stage), 0);
	node = create(STAGE_ROOT, "open");
	writer(node);
	write_text(node, 0, "one");
	writer_gone(node);
	assert_int_equal(stage_tx_hold(stage), 0);
	assert_int_equal(stage_freeze(stage, NULL, 0, 0, &f), 0); /* a commit that fails */
	stage_freeze_fini(&f);
	stage_release(stage);
	writer(node);
	assert_int_equal(stage_tx_restore(stage), 0);
	write_text(node, 3, "two");
	assert_bytes(node, "", "onetwo", 6);
	stage_check(stage);
}

static void a_kill_after_the_way_back(void **state)
{
	int status;
	pid_t pid;

	stage_close(stage);
	stage = NULL;
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		if (stage_open(root, &ident, true, &stage) < 0)
			_exit(1);
		work_after_the_way_back();
		_exit(0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	assert_int_equal(stage_open(root, &ident, true, &stage), 0);
	assert_int_equal(lookup(STAGE_ROOT, "new").kind, STAGE_FILE);
	assert_int_equal(lookup(STAGE_ROOT, "open").kind, STAGE_NONE);
}

static void a_transaction_ends_when_it_is_settled(void **state)
{
	static const char *const texts[] = {"a", "new"};
	uint64_t a = put(STAGE_ROOT, "a", "old");

	assert_int_equal(stage_tx_begin(stage), 0);
	writer(a);
	assert_int_equal(stage_truncate(stage, a, 0), 0);
	write_text(a, 0, "new");
	writer_gone(a);
	assert_int_equal(stage_tx_hold(stage), 0);
	assert_int_equal(stage_tx_state(stage), STAGE_TX_HELD);
	publish(COMMIT2, texts);
	assert_int_equal(stage_tx_state(stage), STAGE_TX_NONE);
	assert_true(stage_empty(stage));
	/* One in which nothing changed. */
	assert_int_equal(stage_tx_begin(stage), 0);
	assert_false(stage_empty(stage));
	assert_int_equal(stage_tx_end(stage), 0);
	assert_true(stage_empty(stage));
	reopen();
	assert_int_equal(stage_tx_state(stage), STAGE_TX_NONE);
}

/* -- bytes -- */

static void extents(void **state)
{
	static const char base[] = "0123456789abcdefghij";
	static struct stage_gap gap;
	uint64_t node = borrow("c", base);
	char buf[32];

	writer(node);
	write_text(node, 5, "VWX");
	assert_bytes(node, base, "01234VWX89abcdefghij", 20);
	assert_int_equal(stage_read(stage, node, 0, buf, sizeof(buf), &gap), 0);
	assert_int_equal(gap.off, 0);
	assert_int_equal(gap.len, 5);
	assert_string_equal(gap.path, "c");
	assert_string_equal(gap.commit, COMMIT1);
	assert_int_equal(stage_read(stage, node, 6, buf, sizeof(buf), &gap), 2);
	assert_int_equal(gap.len, 0);
	assert_int_equal(stage_read(stage, node, 20, buf, sizeof(buf), &gap), 0);
	assert_int_equal(gap.len, 0);
	write_text(node, 7, "yz");                        /* overlaps at the end */
	write_text(node, 4, "u");                         /* touches at the start */
	write_text(node, 12, "M");                        /* apart */
	assert_bytes(node, base, "0123uVWyz9abMdefghij", 20);
	write_text(node, 3, "................");          /* over all of them */
	assert_bytes(node, base, "012................j", 20);
	assert_int_equal(stage_truncate(stage, node, 10), 0);
	assert_int_equal(stage_truncate(stage, node, 14), 0);
	assert_bytes(node, base, "012.......\0\0\0\0", 14);
	write_text(node, 18, "end");                      /* a hole before it */
	assert_bytes(node, base, "012.......\0\0\0\0\0\0\0\0end", 21);
	writer_gone(node);
	reopen();
	node = lookup(STAGE_ROOT, "c").node;
	assert_bytes(node, base, "012.......\0\0\0\0\0\0\0\0end", 21);
	assert_int_equal(stage_truncate(stage, node, 2), 0);
	assert_int_equal(stage_truncate(stage, node, 4), 0);
	reopen();
	assert_bytes(node, base, "01\0\0", 4);
	assert_int_equal(stage_write(stage, node, UINT64_MAX, "x", 1, 1), -EFBIG);
	assert_int_equal(stage_truncate(stage, node, UINT64_MAX), -EFBIG);
	assert_int_equal(stage_write(stage, STAGE_ROOT, 0, "x", 1, 1), -EISDIR);
	assert_int_equal(stage_write(stage, 999, 0, "x", 1, 1), -ENOENT);
}

/* Random writes and cuts over a blob, against an array; the log replayed now and then. */
static void extents_random(void **state)
{
	static char base[3000], want[4000];
	static struct stage_gap gap;
	size_t size = sizeof(base) - 1;
	unsigned seed = 5;
	uint64_t node;

	for (size_t i = 0; i < size; i++)
		base[i] = want[i] = (char)('a' + i % 23);
	node = borrow("c", base);
	for (unsigned i = 0; i < 600; i++) {
		size_t off = (size_t)rand_r(&seed) % 3500, len = 1 + (size_t)rand_r(&seed) % 200;
		char text[201], got[4000];
		size_t at = 0;

		if (i % 9 == 8) {
			assert_int_equal(stage_truncate(stage, node, off), 0);
			if (off > size)
				memset(want + size, 0, off - size);
			size = off;
		} else {
			memset(text, 'A' + (int)(i % 26), len);
			assert_int_equal(stage_write(stage, node, off, text, len, 1), 0);
			if (off > size)
				memset(want + size, 0, off - size);
			memcpy(want + off, text, len);
			size = size > off + len ? size : off + len;
		}
		if (i % 50 == 49)
			reopen();
		for (;;) {
			ssize_t n = stage_read(stage, node, at, got + at, sizeof(got) - at, &gap);

			assert_true(n >= 0);
			if (n == 0 && gap.len == 0)
				break;
			if (n == 0)
				memcpy(got + at, base + at, gap.len);
			at += n ? (size_t)n : gap.len;
		}
		assert_int_equal(at, size);
		assert_memory_equal(got, want, size);
	}
	stage_check(stage);
}

/* The log of extents, torn and damaged; a data file that is gone. */
static void damaged(void **state)
{
	static const char base[] = "0123456789";
	uint64_t node = borrow("c", base), other = put(STAGE_ROOT, "o", "other");
	char *log, *data;
	int fd;

	write_text(node, 2, "XX");
	write_text(node, 6, "YY");
	log = path_of(HERE "/data/*.ext");
	stage_close(stage);
	fd = open(log, O_WRONLY | O_APPEND);
	assert_int_equal(write(fd, "torn", 4), 4);
	close(fd);
	assert_int_equal(stage_open(root, &ident, false, &stage), 0);
	/* A closed file whose log ends in half a record was not left so by hugfs. */
	assert_int_equal(attr_of(node).state, STAGE_INTERRUPTED);
	assert_int_equal(attr_of(other).state, STAGE_STAGED);
	assert_bytes(node, base, "01XX45YY89", 10);
	write_text(node, 8, "Z");
	assert_bytes(node, base, "01XX45YYZ9", 10);
	stage_close(stage);
	fd = open(log, O_WRONLY);
	assert_int_equal(pwrite(fd, "?", 1, 24 * 2), 1); /* the third record: truncate, XX, YY, Z */
	close(fd);
	assert_int_equal(stage_open(root, &ident, false, &stage), 0);
	assert_int_equal(attr_of(node).state, STAGE_INTERRUPTED);
	assert_bytes(node, base, "01XX456789", 10);
	stage_close(stage);
	free(log);
	data = path_of(HERE "/data/2.1");
	stage_close(NULL);
	assert_int_equal(unlink(data), 0);
	free(data);
	assert_int_equal(stage_open(root, &ident, false, &stage), 0);
	assert_int_equal(lookup(STAGE_ROOT, "c").node, node);
	assert_int_equal(attr_of(node).state, STAGE_INTERRUPTED);
	/* Shorter than when it was closed, as after power loss. */
	stage_close(stage);
	data = path_of(HERE "/data/3.1");
	assert_int_equal(truncate(data, 2), 0);
	free(data);
	assert_int_equal(stage_open(root, &ident, false, &stage), 0);
	assert_int_equal(attr_of(other).state, STAGE_INTERRUPTED);
	assert_bytes(other, "", "ot", 2);
}

static void orphans(void **state)
{
	char *data = path_of(HERE "/data"), path[4400];

	put(STAGE_ROOT, "f", "x");
	for (int i = 0; i < 3; i++) {
		static const char *const names[] = {"77.1", "2.1.tmp", "2.9.ext"};
		int fd;

		snprintf(path, sizeof(path), "%s/%s", data, names[i]);
		fd = open(path, O_WRONLY | O_CREAT, 0600);
		assert_true(fd >= 0);
		close(fd);
	}
	assert_int_equal(count_of(HERE "/data/*"), 4);
	reopen();
	assert_int_equal(count_of(HERE "/data/*"), 1);
	free(data);
}

/* -- names -- */

static void name_errors(void **state)
{
	uint64_t d, e, f = put(STAGE_ROOT, "f", "1"), g;
	char longest[300], was[] = "base";
	struct stage_base pin = {.kind = STAGE_BASE_PINNED, .commit = COMMIT1, .path = was}, base = {0};

	memset(longest, 'n', sizeof(longest));
	longest[256] = '\0';
	assert_int_equal(stage_create(stage, STAGE_ROOT, longest, 0644, &g), -ENAMETOOLONG);
	longest[255] = '\0';
	assert_int_equal(stage_create(stage, STAGE_ROOT, longest, 0644, &g), 0);
	assert_int_equal(stage_create(stage, STAGE_ROOT, "f", 0644, &g), -EEXIST);
	assert_int_equal(stage_create(stage, STAGE_ROOT, "..", 0644, &g), -EINVAL);
	assert_int_equal(stage_create(stage, STAGE_ROOT, "a/b", 0644, &g), -EINVAL);
	assert_int_equal(stage_create(stage, 999, "x", 0644, &g), -ENOENT);
	assert_int_equal(stage_create(stage, f, "x", 0644, &g), -ENOENT);
	assert_int_equal(lookup(999, "x").kind, STAGE_NONE);
	assert_int_equal(stage_mkdir(stage, STAGE_ROOT, "d", 0700, &d), 0);
	assert_int_equal(stage_mkdir(stage, d, "e", 0700, &e), 0);
	assert_int_equal(stage_unlink(stage, STAGE_ROOT, "d", false), -EISDIR);
	assert_int_equal(stage_rmdir(stage, STAGE_ROOT, "f", false), -ENOTDIR);
	assert_int_equal(stage_rmdir(stage, STAGE_ROOT, "d", false), -ENOTEMPTY);
	assert_int_equal(stage_unlink(stage, STAGE_ROOT, "nothing", false), -ENOENT);
	assert_int_equal(stage_unlink(stage, STAGE_ROOT, "base-file", true), 0);
	assert_int_equal(lookup(STAGE_ROOT, "base-file").kind, STAGE_WHITEOUT);
	assert_int_equal(stage_unlink(stage, STAGE_ROOT, "base-file", true), -ENOENT);
	assert_int_equal(stage_rename(stage, STAGE_ROOT, "d", false, e, "x", NULL), -EINVAL);
	assert_int_equal(stage_rename(stage, d, "e", false, STAGE_ROOT, "d", NULL), -ENOTEMPTY);
	assert_int_equal(stage_rename(stage, STAGE_ROOT, "f", false, STAGE_ROOT, "d", NULL), -EISDIR);
	assert_int_equal(stage_rename(stage, STAGE_ROOT, "d", false, STAGE_ROOT, "f", NULL), -ENOTDIR);
	assert_int_equal(stage_rename(stage, STAGE_ROOT, "nothing", false, STAGE_ROOT, "f", NULL), -ENOENT);
	assert_int_equal(stage_rename(stage, STAGE_ROOT, "f", false, STAGE_ROOT, "f", NULL), 0);
	assert_int_equal(stage_rename(stage, STAGE_ROOT, "f", false, d, "f", NULL), 0);
	assert_int_equal(lookup(STAGE_ROOT, "f").kind, STAGE_NONE);
	/* A committed folder must say where it was; so is what is known below it. */
	assert_int_equal(stage_follow(stage, STAGE_ROOT, "base", &g), 0);
	assert_int_equal(stage_follow(stage, g, "sub", &e), 0);
	assert_int_equal(stage_rename(stage, STAGE_ROOT, "base", true, d, "moved", NULL), -EINVAL);
	assert_int_equal(stage_rename(stage, STAGE_ROOT, "base", true, d, "moved", &pin), 0);
	assert_int_equal(stage_dir_base(stage, e, &base), 0);
	assert_int_equal(base.kind, STAGE_BASE_PINNED);
	assert_string_equal(base.path, "base/sub");
	stage_base_fini(&base);
	assert_int_equal(stage_follow(stage, e, "deeper", &g), 0);
	assert_int_equal(stage_dir_base(stage, g, &base), 0);
	assert_string_equal(base.path, "base/sub/deeper");
	assert_string_equal(base.commit, COMMIT1);
	stage_base_fini(&base);
	stage_check(stage);
	reopen();
	assert_int_equal(lookup(STAGE_ROOT, "base").kind, STAGE_WHITEOUT);
	assert_int_equal(lookup(d, "moved").kind, STAGE_DIR);
	assert_int_equal(lookup(lookup(d, "moved").node, "sub").kind, STAGE_NONE); /* it said nothing */
}

/* A file that is deleted or replaced while it is open lives on. */
static void nameless(void **state)
{
	uint64_t node = put(STAGE_ROOT, "f", "first"), next = put(STAGE_ROOT, "g", "second");
	struct stage_attr attr;

	writer(node);
	assert_int_equal(stage_rename(stage, STAGE_ROOT, "g", false, STAGE_ROOT, "f", NULL), 0);
	assert_int_equal(lookup(STAGE_ROOT, "f").node, next);
	write_text(node, 5, "!");
	assert_bytes(node, "", "first!", 6);
	assert_int_equal(stage_sync(stage, node), 0);
	assert_false(stage_empty(stage));
	writer_gone(node);
	assert_int_equal(stage_attr(stage, node, &attr), -ENOENT);
	assert_int_equal(stage_sync(stage, node), -ENOENT);
	assert_int_equal(stage_pin(stage, node), -ENOENT);
	stage_unpin(stage, node);
	assert_int_equal(stage_pin(stage, next), 0);
	assert_int_equal(stage_unlink(stage, STAGE_ROOT, "f", false), 0);
	assert_bytes(next, "", "second", 6);
	assert_int_equal(stage_freeze_node(stage, next, NULL), 0);
	stage_unpin(stage, next);
	assert_int_equal(stage_attr(stage, next, &attr), -ENOENT);
	assert_true(stage_empty(stage));
	assert_int_equal(stage_sync(stage, STAGE_ROOT), 0); /* files whose bytes were promised go now */
	assert_int_equal(count_of(HERE "/data/*"), 0);
}

static void attributes(void **state)
{
	uint64_t node = put(STAGE_ROOT, "f", "1");
	struct stage_attr set = {.mode = 0751, .uid = 12, .gid = 34, .mtime = {.tv_sec = 4102444800}}, got;
	struct blob_key key = key_of("committed");

	assert_true(attr_of(node).has_mode && attr_of(node).mode == 0644 && !attr_of(node).has_owner);
	assert_int_equal(stage_setattr(stage, node, STAGE_SET_MODE | STAGE_SET_OWNER | STAGE_SET_MTIME, &set),
	                 0);
	assert_int_equal(stage_setattr(stage, STAGE_ROOT, STAGE_SET_MODE, &set), 0);
	reopen();
	got = attr_of(node);
	assert_true(got.has_mode && got.has_owner && got.mode == 0751 && got.uid == 12 && got.gid == 34);
	assert_int_equal(got.mtime.tv_sec, 4102444800);
	assert_int_equal(attr_of(STAGE_ROOT).mode, 0751);
	/* Every rewrite raises the time, also one that lies ahead. */
	write_text(node, 0, "2");
	assert_true(attr_of(node).mtime.tv_sec == 4102444800 && attr_of(node).mtime.tv_nsec == 1);
	/* What was told about an unchanged file outlives its row. */
	node = borrow("c", "committed");
	writer(node);
	assert_int_equal(stage_setattr(stage, node, STAGE_SET_MODE, &set), 0);
	writer_gone(node);
	assert_int_equal(lookup(STAGE_ROOT, "c").kind, STAGE_NONE);
	assert_int_equal(stage_local_get(stage, "c", STAGE_FILE, &key, &got), 0);
	assert_int_equal(got.mode, 0751);
	assert_int_equal(got.mtime.tv_sec, 1000);
	assert_int_equal(stage_discard(stage, ""), 0);
	assert_true(stage_empty(stage));
	/* Which keeps the folder. */
	reopen();
	assert_int_equal(stage_local_get(stage, "c", STAGE_FILE, &key, &got), 0);
}

static int count_each(void *arg, const char *path, const struct stage_attr *attr)
{
	char *all = arg;
	size_t len = strlen(all);

	snprintf(all + len, 400 - len, "%s:%d ", path, (int)attr->kind);
	return strcmp(path, "stop") == 0 ? 7 : 0;
}

static void discards(void **state)
{
	uint64_t d, e, node, open;
	struct stage_counts counts;
	char all[400] = "";

	assert_int_equal(stage_follow(stage, STAGE_ROOT, "d", &d), 0);
	assert_int_equal(stage_mkdir(stage, d, "e", 0755, &e), 0);
	node = put(e, "f", "1");
	put(d, "g", "22");
	assert_int_equal(stage_unlink(stage, d, "h", true), 0);
	stage_counts(stage, &counts);
	assert_int_equal(counts.files, 2);
	assert_int_equal(counts.deletions, 1);
	assert_int_equal(counts.bytes, 3);
	assert_int_equal(stage_each(stage, count_each, all), 0);
	assert_non_null(strstr(all, "d/e:3"));
	assert_non_null(strstr(all, "d/e/f:2"));
	assert_non_null(strstr(all, "d/h:1"));
	assert_null(strstr(all, "d:3")); /* nobody sees that it has a node */
	assert_int_equal(stage_discard(stage, "nothing/there"), 0);
	assert_int_equal(stage_discard(stage, "d/g"), 0);
	assert_int_equal(lookup(d, "g").kind, STAGE_NONE);
	assert_int_equal(stage_discard(stage, "d/h"), 0);
	assert_int_equal(lookup(d, "h").kind, STAGE_NONE);
	writer(node);
	assert_int_equal(stage_discard(stage, "d"), 0);
	assert_int_equal(lookup(STAGE_ROOT, "d").kind, STAGE_NONE);
	assert_bytes(node, "", "1", 1); /* lives on for its writer */
	writer_gone(node);
	assert_true(stage_empty(stage));
	open = put(STAGE_ROOT, "stop", "1");
	all[0] = '\0';
	assert_int_equal(stage_each(stage, count_each, all), 7);
	assert_int_equal(stage_discard(stage, ""), 0);
	assert_int_equal(stage_pin(stage, open), -ENOENT);
	assert_true(stage_empty(stage));
}

/* -- who owns it, where it lies -- */

static void one_owner(void **state)
{
	pid_t pid;
	int status;

	pid = fork();
	if (pid == 0) {
		struct stage *second = NULL;

		_exit(stage_open(root, &ident, true, &second) == -EBUSY ? 0 : 1);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	{
		struct stage *second = NULL;
		char *lock = path_of(HERE "/lock"), *text;

		assert_int_equal(stage_open(root, &ident, false, &second), -EBUSY); /* in this process too */
		assert_int_equal(util_read_file(lock, 100, &text, NULL), 0);
		assert_int_equal(atoi(text), getpid());
		free(text);
		free(lock);
	}
}

static void leaves_nothing(void **state)
{
	struct stage_ident other = ident;

	assert_int_equal(stage_set_parent(stage, COMMIT1), 0);
	stage_close(stage);
	stage = NULL;
	assert_int_equal(count_of("/v1/*"), 0);
	assert_int_equal(count_of("/v1"), 1);
	assert_int_equal(stage_open(root, &ident, false, &stage), -ENOENT);
	assert_int_equal(count_of("/v1/*"), 0);
	assert_int_equal(stage_open(root, &ident, true, &stage), 0);
	put(STAGE_ROOT, "f", "1");
	assert_int_equal(stage_set_parent(stage, COMMIT2), 0);
	stage_close(stage);
	/* Another repository of the same name. */
	other.internal_id = "ffff";
	assert_int_equal(stage_open(root, &other, true, &stage), -ESTALE);
	assert_int_equal(stage_open(root, &ident, false, &stage), 0);
	{
		char parent[41];
		struct stat st;
		char *path = path_of(HERE);

		stage_parent(stage, parent);
		assert_string_equal(parent, COMMIT2);
		assert_int_equal(stat(path, &st), 0);
		assert_int_equal(st.st_mode & 0777, 0700);
		free(path);
		path = path_of(HERE "/data/2.1");
		assert_int_equal(stat(path, &st), 0);
		assert_int_equal(st.st_mode & 0777, 0600);
		free(path);
	}
}

/* Many open and close an empty stage at once: each gets it or is told that another has it. */
static void comes_and_goes(void **state)
{
	pid_t pids[4];

	stage_close(stage);
	stage = NULL;
	for (int i = 0; i < 4; i++) {
		pids[i] = fork();
		if (pids[i] == 0) {
			bool bad = log_set_levels("err") < 0;

			for (int n = 0; n < 12 && !bad; n++) {
				struct stage *s = NULL;
				int rc = stage_open(root, &ident, n % 3 != 0, &s);

				bad = rc < 0 && rc != -EBUSY && rc != -ENOENT;
				stage_close(s);
			}
			_exit(bad);
		}
	}
	for (int i = 0; i < 4; i++) {
		int status;

		assert_int_equal(waitpid(pids[i], &status, 0), pids[i]);
		assert_int_equal(status, 0);
	}
	assert_int_equal(stage_open(root, &ident, true, &stage), 0);
}

static int scan_one(void *arg, const struct repo_id *repo, const char *rev)
{
	char text[REPO_TEXT_MAX], *all = arg;
	size_t len = strlen(all);

	repo_text(repo, text);
	snprintf(all + len, 400 - len, "%s@%s ", text, rev);
	return 0;
}

static void scans(void **state)
{
	struct stage_ident other = {
		.endpoint = ident.endpoint,
		.repo = {.type = REPO_DATASET, .ns = "acme", .name = "data.set"},
		.rev = "refs/pr/3",
	};
	struct stage *second;
	char all[400] = "";

	assert_int_equal(stage_open(root, &other, true, &second), 0);
	assert_int_equal(stage_scan(root, ident.endpoint, NULL, scan_one, all), 0);
	assert_string_equal(all, "user/repo@main datasets/acme/data.set@refs/pr/3 ");
	all[0] = '\0';
	assert_int_equal(stage_scan(root, ident.endpoint, &other.repo, scan_one, all), 0);
	assert_string_equal(all, "datasets/acme/data.set@refs/pr/3 ");
	all[0] = '\0';
	assert_int_equal(stage_scan(root, "https://other", NULL, scan_one, all), 0);
	assert_int_equal(stage_scan("/nowhere/at/all", ident.endpoint, NULL, scan_one, all), 0);
	assert_string_equal(all, "");
	stage_close(second);
}

/* -- dying -- */

/* What the child says when it is done with a file, one byte each. */
static void child_works(int fd, unsigned seed)
{
	struct stage *s;

	if (stage_open(root, &ident, true, &s) < 0)
		_exit(1);
	for (unsigned i = 0;; i++) {
		char name[16], text[64];
		uint64_t node;

		snprintf(name, sizeof(name), "f%u", i);
		snprintf(text, sizeof(text), "this is file %u of seed %u", i, seed);
		if (stage_create(s, STAGE_ROOT, "new.tmp", 0644, &node) < 0 ||
		    stage_writer_open(s, node) < 0 ||
		    stage_write(s, node, 0, text, 10, 9) < 0 ||
		    stage_write(s, node, 10, text + 10, strlen(text) - 10, 9) < 0 ||
		    stage_writer_flush(s, node, 9, false) < 0 ||
		    stage_rename(s, STAGE_ROOT, "new.tmp", false, STAGE_ROOT, name, NULL) < 0)
			_exit(2);
		if (write(fd, "x", 1) != 1) /* its RELEASE comes after close(2) returned, or never */
			_exit(3);
		if (i % 2)
			stage_writer_close(s, node);
	}
}

static void killed(void **state)
{
	unsigned seed = 11;

	for (int round = 0; round < 25; round++) {
		unsigned done = 0, want = (unsigned)rand_r(&seed) % 30, mark = seed;
		int fds[2], status;
		char c;
		pid_t pid;

		end(NULL);
		snprintf(root, sizeof(root), "%s/root%u", tmp, ++roots);
		assert_int_equal(pipe(fds), 0);
		pid = fork();
		if (pid == 0) {
			close(fds[0]);
			child_works(fds[1], mark);
		}
		close(fds[1]);
		while (done < want && read(fds[0], &c, 1) == 1)
			done++;
		for (unsigned spin = (unsigned)rand_r(&seed) % 200000; spin > 0; spin--)
			__asm__ volatile("");
		kill(pid, SIGKILL);
		assert_int_equal(waitpid(pid, &status, 0), pid);
		assert_int_equal(WTERMSIG(status), SIGKILL);
		while (read(fds[0], &c, 1) == 1)
			done++;
		close(fds[0]);
		assert_true(done >= want);
		assert_int_equal(stage_open(root, &ident, true, &stage), 0);
		stage_check(stage);
		for (unsigned i = 0; i < done; i++) {
			char name[16], text[64];
			struct stage_name what;

			snprintf(name, sizeof(name), "f%u", i);
			snprintf(text, sizeof(text), "this is file %u of seed %u", i, mark);
			what = lookup(STAGE_ROOT, name);
			assert_int_equal(what.kind, STAGE_FILE);
			assert_int_equal(attr_of(what.node).state, STAGE_STAGED);
			assert_bytes(what.node, "", text, strlen(text));
		}
		/* The one that was on its way is there under one name, or not at all. */
		if (lookup(STAGE_ROOT, "new.tmp").kind == STAGE_FILE) {
			enum stage_state was = attr_of(lookup(STAGE_ROOT, "new.tmp").node).state;

			assert_true(was == STAGE_INTERRUPTED || was == STAGE_STAGED);
		}
	}
}

/* What was synced waits for a journal that is synced before its files go. */
static void promised(void **state)
{
	uint64_t node = put(STAGE_ROOT, "f", "1"), plain = put(STAGE_ROOT, "g", "2");

	assert_int_equal(stage_sync(stage, node), 0);
	assert_int_equal(stage_unlink(stage, STAGE_ROOT, "f", false), 0);
	assert_int_equal(stage_unlink(stage, STAGE_ROOT, "g", false), 0);
	assert_int_not_equal(plain, node);
	assert_int_equal(count_of(HERE "/data/*"), 1);
	assert_int_equal(stage_sync(stage, STAGE_ROOT), 0);
	assert_int_equal(count_of(HERE "/data/*"), 0);
}

/* -- full disks: files may not grow beyond a limit -- */

static void limit_files(rlim_t bytes)
{
	struct rlimit lim;

	assert_int_equal(getrlimit(RLIMIT_FSIZE, &lim), 0);
	lim.rlim_cur = bytes < lim.rlim_max ? bytes : lim.rlim_max;
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &lim), 0);
}

static void full_disk(void **state)
{
	static char big[100000];
	uint64_t node = put(STAGE_ROOT, "f", "small"), keep = borrow("c", "committed"), other = 0;
	int failures = 0;

	memset(big, 'b', sizeof(big));
	signal(SIGXFSZ, SIG_IGN);
	assert_int_equal(log_set_levels("err,stage_journal=err"), 0);
	writer(node);
	writer(keep);
	write_text(keep, 0, "C");
	write_text(node, 5, "!");
	limit_files(60000);
	/* Bytes: the file is as before. */
	assert_int_equal(stage_write(stage, node, 0, "SMALL", 5, 1), 0);
	assert_true(stage_write(stage, node, 6, big, sizeof(big), 1) < 0);
	assert_bytes(node, "", "SMALL!", 6);
	assert_true(stage_write(stage, keep, 9, big, sizeof(big), 1) < 0);
	assert_bytes(keep, "committed", "Committed", 9);
	assert_true(stage_truncate(stage, node, 70000) < 0);
	assert_bytes(node, "", "SMALL!", 6);
	/* The journal: names are as before. */
	limit_files(4096);
	for (int i = 0; i < 20; i++) {
		char name[8];
		int rc;

		snprintf(name, sizeof(name), "n%d", i);
		rc = stage_create(stage, STAGE_ROOT, name, 0644, &other);
		failures += rc < 0;
		assert_int_equal(lookup(STAGE_ROOT, name).kind, rc < 0 ? STAGE_NONE : STAGE_FILE);
		stage_check(stage);
	}
	assert_true(failures > 0);
	assert_true(stage_unlink(stage, STAGE_ROOT, "f", false) < 0);
	assert_true(stage_rename(stage, STAGE_ROOT, "f", false, STAGE_ROOT, "g", NULL) < 0);
	assert_int_equal(lookup(STAGE_ROOT, "f").node, node);
	assert_true(stage_writer_flush(stage, node, 1, false) < 0);
	stage_writer_close(stage, keep); /* cannot fail, and is made good later */
	stage_unpin(stage, keep);
	assert_int_equal(attr_of(keep).state, STAGE_STAGED);
	limit_files(RLIM_INFINITY);
	writer_gone(node);
	assert_int_equal(stage_create(stage, STAGE_ROOT, "later", 0644, &other), 0);
	freeze();
	stage_release(stage);
	reopen();
	assert_int_equal(attr_of(lookup(STAGE_ROOT, "f").node).state, STAGE_STAGED);
	assert_int_equal(attr_of(lookup(STAGE_ROOT, "c").node).state, STAGE_STAGED);
	assert_bytes(lookup(STAGE_ROOT, "c").node, "committed", "Committed", 9);
	assert_int_equal(log_set_levels("err"), 0);
}

/* -- threads -- */

#define THREADS 4
#define ROUNDS 60
#define SHARE 100000 /* bytes of the shared file that each thread writes */

struct worker {
	unsigned number;
	uint64_t shared;
};

static void *work(void *arg)
{
	struct worker *w = arg;
	static _Thread_local struct stage_gap gap;
	static _Thread_local char buf[SHARE];
	char name[16];

	for (unsigned i = 0; i < ROUNDS; i++) {
		struct stage_name what;
		uint64_t node;
		ssize_t n;

		snprintf(name, sizeof(name), "t%u-%u", w->number, i % 5);
		(void)!stage_unlink(stage, STAGE_ROOT, name, false);
		must(stage_create(stage, STAGE_ROOT, name, 0644, &node) == 0);
		must(stage_pin(stage, node) == 0 && stage_writer_open(stage, node) == 0);
		memset(buf, 'a' + (int)w->number, sizeof(buf));
		must(stage_write(stage, node, i, buf, 500, (pid_t)w->number + 1) == 0);
		must(stage_write(stage, w->shared, w->number * SHARE, buf, SHARE, (pid_t)w->number + 1) == 0);
		n = stage_read(stage, w->shared, w->number * SHARE, buf, SHARE, &gap);
		must(n == SHARE && buf[0] == 'a' + (int)w->number && buf[SHARE - 1] == buf[0]);
		must(stage_writer_flush(stage, node, (pid_t)w->number + 1, false) >= 0);
		must(stage_lookup(stage, STAGE_ROOT, name, &what) == 0 && what.node == node);
		if (i % 20 == 0)
			must(stage_sync(stage, w->shared) == 0);
		if (i % 7 == 0)
			must(stage_freeze_node(stage, w->shared, NULL) == 0);
		stage_writer_close(stage, node);
		stage_unpin(stage, node);
	}
	return NULL;
}

/* Freezes, releases and looks while the others work. */
static void *watch(void *arg)
{
	const uint64_t *shared = arg;

	for (unsigned i = 0; i < ROUNDS; i++) {
		static struct stage_gap gap;
		struct stage_counts counts;
		struct stage_freeze f;
		struct stage_names names;
		char buf[256];

		must(stage_freeze(stage, shared, 1, 0, &f) == 0);
		for (size_t k = 0; k < f.n && k < 3; k++)
			must(stage_frozen_read(stage, f.files[k].node, f.files[k].layer, 0, buf, sizeof(buf),
			                       &gap) >= 0);
		stage_freeze_fini(&f);
		must(stage_names(stage, &names) == 0);
		stage_names_fini(&names);
		stage_counts(stage, &counts);
		stage_check(stage);
		stage_release(stage);
	}
	return NULL;
}

static void threads(void **state)
{
	struct worker workers[THREADS];
	pthread_t ids[THREADS + 1];
	uint64_t shared = create(STAGE_ROOT, "shared");

	writer(shared);
	for (unsigned i = 0; i < THREADS; i++) {
		workers[i] = (struct worker){.number = i, .shared = shared};
		assert_int_equal(pthread_create(&ids[i], NULL, work, &workers[i]), 0);
	}
	assert_int_equal(pthread_create(&ids[THREADS], NULL, watch, &shared), 0);
	for (unsigned i = 0; i <= THREADS; i++)
		pthread_join(ids[i], NULL);
	stage_check(stage);
	for (unsigned i = 0; i < THREADS; i++) {
		static struct stage_gap gap;
		static char buf[SHARE];

		assert_int_equal(stage_read(stage, shared, SHARE * (uint64_t)i, buf, SHARE, &gap), SHARE);
		for (size_t k = 0; k < SHARE; k++)
			assert_int_equal(buf[k], 'a' + (int)i);
	}
	writer_gone(shared);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, begin, end)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(state_conflict),
		TEST(state_interrupted),
		TEST(state_open),
		TEST(takes_what_is_open),
		TEST(a_transaction_is_taken_back),
		TEST(a_transaction_ends_when_it_is_settled),
		TEST(a_transaction_publishes_nothing_half),
		TEST(a_kill_after_the_way_back),
		TEST(state_clean),
		TEST(state_committing),
		TEST(settles_writers),
		TEST(settles_folders),
		TEST(thaws),
		TEST(frozen_stays),
		TEST(extents),
		TEST(extents_random),
		TEST(damaged),
		TEST(orphans),
		TEST(name_errors),
		TEST(nameless),
		TEST(attributes),
		TEST(discards),
		TEST(one_owner),
		TEST(leaves_nothing),
		TEST(comes_and_goes),
		TEST(scans),
		TEST(killed),
		TEST(promised),
		TEST(full_disk),
		TEST(threads),
	};

	return cmocka_run_group_tests(tests, make_tmp, remove_tmp);
}
