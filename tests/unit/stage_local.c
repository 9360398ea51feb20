/* stage_local: what the user told about committed files and folders holds while they have a node, after it, over
 * commits of ours, renames and reopenings, until the content changes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <ftw.h>
#include <string.h>
#include <unistd.h>

#include "scratch.h"
#include "stage.h"

#define COMMIT1 "1111111111111111111111111111111111111111"
#define COMMIT2 "2222222222222222222222222222222222222222"

static char root[4200];
static unsigned roots;
static struct stage *stage;

static const struct stage_ident ident = {
	.endpoint = "http://localhost:1",
	.repo = {.type = REPO_MODEL, .ns = "user", .name = "repo"},
	.rev = "main",
	.internal_id = "65f0",
};

static int begin(void **state)
{
	snprintf(root, sizeof(root), "%s/root%u", tmp, ++roots);
	if (stage_open(root, &ident, true, &stage) < 0)
		return -1;
	return stage_set_parent(stage, COMMIT1);
}

static int end(void **state)
{
	stage_close(stage);
	stage = NULL;
	return nftw(root, remove_one, 16, FTW_DEPTH | FTW_PHYS) < 0 && errno != ENOENT;
}

static void reopen(void)
{
	stage_close(stage);
	stage = NULL;
	assert_int_equal(stage_open(root, &ident, true, &stage), 0);
	stage_check(stage);
}

static struct blob_key key_of(const char *text)
{
	struct blob_key key;

	assert_int_equal(hash_buf(HASH_SHA256, text, strlen(text), &key), 0);
	return key;
}

static struct blob_key tree_of(const char *text)
{
	struct blob_key key;

	assert_int_equal(hash_buf(HASH_GIT_SHA1, text, strlen(text), &key), 0);
	key.size = 0;
	return key;
}

static void tell(const char *path, enum stage_kind kind, const struct blob_key *key, mode_t mode, time_t mtime)
{
	struct stage_attr attr = {.kind = kind, .mode = mode, .has_mode = true, .has_mtime = true,
	                          .mtime = {.tv_sec = mtime}};

	assert_int_equal(stage_local_put(stage, path, key, &attr), 0);
}

/* Its mode; -1: nothing is known. */
static int mode_at(const char *path, enum stage_kind kind, const struct blob_key *key)
{
	struct stage_attr attr;
	int rc = stage_local_get(stage, path, kind, key, &attr);

	assert_true(rc == 0 || rc == -ENOENT);
	return rc == 0 ? (int)attr.mode : -1;
}

static struct stage_attr attr_of(uint64_t node)
{
	struct stage_attr attr;

	assert_int_equal(stage_attr(stage, node, &attr), 0);
	return attr;
}

static uint64_t put(uint64_t dir, const char *name, const char *text)
{
	uint64_t node;

	assert_int_equal(stage_create(stage, dir, name, 0644, &node), 0);
	assert_int_equal(stage_writer_open(stage, node), 0);
	assert_int_equal(stage_write(stage, node, 0, text, strlen(text), 1), 0);
	stage_writer_close(stage, node);
	return node;
}

/* Commits all that is staged; `items` say what the commit adds. */
static void commit(struct stage_item *items, size_t n)
{
	struct stage_intent intent = {.token = "0123456789abcdef0123456789abcdef", .items = items, .n = n};
	struct stage_freeze f = {0};
	struct stage_names names = {0};
	struct stage_settled told = {0};

	assert_int_equal(stage_freeze(stage, NULL, 0, false, &f), 0);
	for (size_t i = 0; i < f.n; i++) {
		for (size_t k = 0; k < n; k++) {
			if (items[k].node == f.files[i].node)
				items[k].layer = f.files[i].layer;
		}
	}
	assert_int_equal(stage_names(stage, &names), 0);
	intent.gen = names.gen;
	stage_parent(stage, intent.parent);
	assert_int_equal(stage_intent_put(stage, &intent), 0);
	assert_int_equal(stage_settle(stage, COMMIT2, &told), 0);
	stage_settled_fini(&told);
	stage_names_fini(&names);
	stage_freeze_fini(&f);
	stage_check(stage);
}

static void files(void **state)
{
	struct blob_key one = key_of("1"), two = key_of("2");

	tell("a/f", STAGE_FILE, &one, 0600, 5);
	assert_int_equal(mode_at("a/f", STAGE_FILE, &one), 0600);
	assert_int_equal(mode_at("a/f", STAGE_FILE, &two), -1);
	assert_int_equal(mode_at("a/f", STAGE_FILE, &one), 0600); /* an older commit may be shown beside */
	assert_int_equal(mode_at("a/f", STAGE_DIR, NULL), -1);
	tell("a/f", STAGE_FILE, &two, 0640, 5);
	reopen();
	assert_int_equal(mode_at("a/f", STAGE_FILE, &one), -1);
	assert_int_equal(mode_at("a/f", STAGE_FILE, &two), 0640);
}

static void folders(void **state)
{
	struct blob_key one = tree_of("1"), two = tree_of("2");
	struct stage_locals *kept;
	struct stage_attr attr;

	tell("a", STAGE_DIR, NULL, 0700, 5);
	assert_int_equal(mode_at("a", STAGE_DIR, NULL), 0700);
	assert_int_equal(mode_at("a", STAGE_DIR, &one), 0700); /* it is that of this tree now */
	reopen();
	assert_int_equal(mode_at("a", STAGE_DIR, &two), -1);
	assert_int_equal(mode_at("a", STAGE_DIR, NULL), -1);
	assert_int_equal(mode_at("a", STAGE_DIR, &one), 0700);
	/* Also when another mount has the stage. */
	kept = stage_locals_keep(stage);
	assert_non_null(kept);
	assert_int_equal(stage_locals_get(kept, "a", STAGE_DIR, &one, &attr), 0);
	assert_int_equal(attr.mode, 0700);
	assert_int_equal(stage_locals_get(kept, "b", STAGE_DIR, &one, &attr), -ENOENT);
	stage_locals_free(kept);
}

/* A node takes what was told along, and gives it back. */
static void nodes(void **state)
{
	struct stage_attr set = {.mode = 0711};
	struct stage_locals *kept;
	struct stage_attr attr;
	uint64_t a, b, plain;

	tell("a", STAGE_DIR, NULL, 0700, 5);
	assert_int_equal(stage_follow(stage, STAGE_ROOT, "plain", &plain), 0);
	assert_false(attr_of(plain).has_mode || attr_of(plain).has_mtime);
	assert_int_equal(stage_follow(stage, STAGE_ROOT, "a", &a), 0);
	assert_true(attr_of(a).mode == 0700 && attr_of(a).mtime.tv_sec == 5);
	assert_int_equal(stage_follow(stage, a, "b", &b), 0);
	assert_int_equal(attr_of(a).mtime.tv_sec, 5); /* nothing that anybody sees changed in it */
	assert_int_equal(stage_setattr(stage, b, STAGE_SET_MODE, &set), 0);
	assert_true(stage_empty(stage));
	kept = stage_locals_keep(stage);
	assert_non_null(kept);
	assert_int_equal(stage_locals_get(kept, "a/b", STAGE_DIR, NULL, &attr), 0);
	assert_true(attr.mode == 0711 && !attr.has_mtime);
	stage_locals_free(kept);
	reopen();
	assert_int_equal(mode_at("a", STAGE_DIR, NULL), 0700);
	assert_int_equal(mode_at("a/b", STAGE_DIR, NULL), 0711);
	assert_int_equal(mode_at("plain", STAGE_DIR, NULL), -1);
}

/* A folder's time moves when its names change, also over kill -9 and a reopening, to the last nanosecond. */
static void times(void **state)
{
	struct stage_attr before, after;
	uint64_t d, node;

	assert_int_equal(stage_mkdir(stage, STAGE_ROOT, "d", 0750, &d), 0);
	before = attr_of(d);
	assert_true(before.has_mtime && before.has_mode && before.mode == 0750);
	for (int i = 0; i < 3; i++) {
		char name[2] = {(char)('a' + i), '\0'};

		node = put(d, name, "x");
		after = attr_of(d);
		assert_true(after.mtime.tv_sec > before.mtime.tv_sec || after.mtime.tv_nsec > before.mtime.tv_nsec);
		before = after;
	}
	assert_int_equal(stage_write(stage, node, 0, "y", 1, 1), 0);
	after = attr_of(d);
	assert_memory_equal(&after.mtime, &before.mtime, sizeof(before.mtime));
	reopen();
	after = attr_of(d);
	assert_memory_equal(&after.mtime, &before.mtime, sizeof(before.mtime));
	assert_int_equal(stage_unlink(stage, d, "a", false), 0);
	assert_true(attr_of(d).mtime.tv_sec > before.mtime.tv_sec ||
	            attr_of(d).mtime.tv_nsec > before.mtime.tv_nsec);
}

/* Nothing that was told changes by a commit. */
static void commits(void **state)
{
	struct stage_attr set = {.mode = 0700, .mtime = {.tv_sec = 77}}, local;
	struct blob_key key = key_of("x"), tree = tree_of("after");
	struct stage_item item = {.path = "d/e/f", .key = key};
	uint64_t d, e;

	tell("gone/f", STAGE_FILE, &key, 0600, 5);
	tell("gone", STAGE_DIR, NULL, 0700, 5);
	assert_int_equal(stage_mkdir(stage, STAGE_ROOT, "d", 0755, &d), 0);
	assert_int_equal(stage_mkdir(stage, d, "e", 0755, &e), 0);
	item.node = put(e, "f", "x");
	assert_int_equal(stage_setattr(stage, item.node, STAGE_SET_MODE | STAGE_SET_MTIME, &set), 0);
	assert_int_equal(stage_setattr(stage, e, STAGE_SET_MODE | STAGE_SET_MTIME, &set), 0);
	assert_int_equal(stage_rmdir(stage, STAGE_ROOT, "gone", true), 0);
	commit(&item, 1);
	for (int i = 0; i < 2; i++) {
		assert_true(stage_empty(stage));
		assert_int_equal(stage_local_get(stage, "d/e/f", STAGE_FILE, &key, &local), 0);
		assert_true(local.mode == 0700 && local.mtime.tv_sec == 77);
		assert_int_equal(stage_local_get(stage, "d/e", STAGE_DIR, &tree, &local), 0);
		assert_true(local.mode == 0700 && local.mtime.tv_sec == 77);
		assert_int_equal(mode_at("d", STAGE_DIR, NULL), 0755);
		assert_int_equal(mode_at("gone", STAGE_DIR, NULL), -1);
		assert_int_equal(mode_at("gone/f", STAGE_FILE, &key), -1);
		reopen();
	}
}

/* What lies below a renamed folder is told by its former path until the branch has it, then by its new one. */
static void renames(void **state)
{
	struct stage_base pin_a = {.kind = STAGE_BASE_PINNED, .commit = COMMIT1, .path = (char[]){"a"}};
	struct stage_base pin_b = {.kind = STAGE_BASE_PINNED, .commit = COMMIT1, .path = (char[]){"b"}};
	struct blob_key one = key_of("1"), two = key_of("2");
	struct stage_item items[] = {{.path = "b/x/f", .key = one}, {.path = "a/f", .key = two}};
	uint64_t a, b;

	tell("a", STAGE_DIR, NULL, 0701, 1);
	tell("a/x", STAGE_DIR, NULL, 0702, 1);
	tell("a/x/f", STAGE_FILE, &one, 0601, 1);
	tell("b", STAGE_DIR, NULL, 0703, 1);
	tell("b/f", STAGE_FILE, &two, 0602, 1);
	tell("ab", STAGE_FILE, &two, 0604, 1);
	/* They change places. */
	assert_int_equal(stage_follow(stage, STAGE_ROOT, "a", &a), 0);
	assert_int_equal(stage_follow(stage, STAGE_ROOT, "b", &b), 0);
	assert_int_equal(stage_rename(stage, STAGE_ROOT, "a", true, STAGE_ROOT, "t", &pin_a), 0);
	assert_int_equal(stage_rename(stage, STAGE_ROOT, "b", true, STAGE_ROOT, "a", &pin_b), 0);
	assert_int_equal(stage_rename(stage, STAGE_ROOT, "t", false, STAGE_ROOT, "b", NULL), 0);
	assert_int_equal(attr_of(a).mode, 0701);
	assert_int_equal(mode_at("a/x", STAGE_DIR, NULL), 0702); /* where its base has it */
	commit(items, 2);
	for (int i = 0; i < 2; i++) {
		assert_int_equal(mode_at("b", STAGE_DIR, NULL), 0701);
		assert_int_equal(mode_at("b/x", STAGE_DIR, NULL), 0702);
		assert_int_equal(mode_at("b/x/f", STAGE_FILE, &one), 0601);
		assert_int_equal(mode_at("a", STAGE_DIR, NULL), 0703);
		assert_int_equal(mode_at("a/f", STAGE_FILE, &two), 0602);
		assert_int_equal(mode_at("ab", STAGE_FILE, &two), 0604);
		reopen();
	}
}

static void many(void **state)
{
	struct blob_key key = key_of("1");
	char path[32];

	for (int i = 0; i < 300; i++) {
		snprintf(path, sizeof(path), "f%d", i);
		tell(path, STAGE_FILE, &key, (mode_t)i, 1);
	}
	reopen();
	for (int i = 0; i < 300; i++) {
		snprintf(path, sizeof(path), "f%d", i);
		assert_int_equal(mode_at(path, STAGE_FILE, &key), i);
	}
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, begin, end)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(files),
		TEST(folders),
		TEST(nodes),
		TEST(times),
		TEST(commits),
		TEST(renames),
		TEST(many),
	};

	return cmocka_run_group_tests(tests, make_tmp, remove_tmp);
}
