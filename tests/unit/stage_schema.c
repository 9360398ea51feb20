/* stage_schema: a journal that an older hugfs wrote becomes ours with all that was staged in it, a copy of it is
 * kept, and a migration that is cut off has changed nothing. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <sqlite3.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "scratch.h"
#include "stage.h"
#include "stage_place.h"
#include "stage_schema.h"

static char root[4200];
static char folder[4300]; /* of the stage */
static unsigned roots;

static const struct stage_ident ident = {
	.endpoint = "http://localhost:1",
	.repo = {.type = REPO_MODEL, .ns = "user", .name = "repo"},
	.rev = "main",
	.internal_id = "65f0",
};

static void put_file(const char *name, const void *data, size_t len)
{
	char path[4400];
	int fd;

	snprintf(path, sizeof(path), "%s/%s", folder, name);
	fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
	assert_true(fd >= 0);
	assert_int_equal(write(fd, data, len), len);
	close(fd);
}

static bool has_file(const char *name)
{
	char path[4400];

	snprintf(path, sizeof(path), "%s/%s", folder, name);
	return access(path, F_OK) == 0;
}

/* Runs SQL on the journal; the first value that it answers, or "". */
static void sql(const char *name, const char *text, char ret[100])
{
	char path[4400];
	sqlite3_stmt *st;
	sqlite3 *db;

	snprintf(path, sizeof(path), "%s/%s", folder, name);
	assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
	if (ret) {
		assert_int_equal(sqlite3_prepare_v2(db, text, -1, &st, NULL), SQLITE_OK);
		assert_int_equal(sqlite3_step(st), SQLITE_ROW);
		snprintf(ret, 100, "%s", (const char *)sqlite3_column_text(st, 0));
		sqlite3_finalize(st);
	} else {
		assert_int_equal(sqlite3_exec(db, text, NULL, NULL, NULL), SQLITE_OK);
	}
	sqlite3_close(db);
}

/* A stage's folder as hugfs left it at schema 1. */
static int begin(void **state)
{
	/* 4.1.ext: a write of 4 bytes at 10, a cut at 60. */
	uint8_t ext[48] = {[0] = 10, [8] = 4, [16] = 1, [24] = 60, [40] = 2};
	struct stage_place place;
	char data[60] = "";
	char path[4300], *text;
	size_t len;

	snprintf(root, sizeof(root), "%s/root%u", tmp, ++roots);
	if (stage_place_open(root, &ident, true, &place) < 0)
		return -1;
	snprintf(folder, sizeof(folder), "%s", place.dir);
	stage_place_close(&place, false);
	snprintf(path, sizeof(path), "%s/tests/unit/stage_v1.sql", getenv("HUGFS_SOURCE_ROOT"));
	assert_int_equal(util_read_file(path, 1 << 20, &text, &len), 0);
	sql("journal.db", text, NULL);
	free(text);
	put_file("data/2.1", "hello", 5);
	put_file("data/3.1", "half", 4);
	memcpy(data + 10, "EDIT", 4);
	put_file("data/4.1", data, sizeof(data));
	put_file("data/8.1", "bytes", 5);
	for (int i = 0; i < 2; i++) {
		uint32_t crc = htole32(hash_crc32c(0, ext + 24 * i, 20));

		memcpy(ext + 24 * i + 20, &crc, 4);
	}
	put_file("data/4.1.ext", ext, sizeof(ext));
	return 0;
}

static int end(void **state)
{
	return nftw(root, remove_one, 16, FTW_DEPTH | FTW_PHYS) < 0 && errno != ENOENT;
}

static struct stage_attr at(struct stage *s, uint64_t dir, const char *name, uint64_t *ret)
{
	struct stage_name what;
	struct stage_attr attr;

	assert_int_equal(stage_lookup(s, dir, name, &what), 0);
	assert_int_equal(stage_attr(s, what.node, &attr), 0);
	*ret = what.node;
	return attr;
}

/* Everything that the fixture says. */
static void check_all(struct stage *s)
{
	static struct stage_gap gap;
	struct stage_intent intent;
	struct stage_base base;
	struct stage_name what;
	struct stage_attr attr;
	struct blob_key key;
	char text[100], w[100], parent[41];
	uint64_t node, sub;

	stage_check(s);
	stage_parent(s, parent);
	assert_string_equal(parent, "1111111111111111111111111111111111111111");
	attr = at(s, STAGE_ROOT, "new.txt", &node);
	assert_true(attr.state == STAGE_STAGED && attr.has_mtime && attr.mtime.tv_sec == 1795336696);
	assert_int_equal(stage_read(s, node, 0, text, sizeof(text), &gap), 5);
	assert_memory_equal(text, "hello", 5);
	attr = at(s, STAGE_ROOT, "cut.txt", &node);
	assert_true(attr.state == STAGE_INTERRUPTED && attr.size == 4);
	attr = at(s, STAGE_ROOT, "w.bin", &node);
	assert_true(attr.state == STAGE_STAGED && attr.size == 60);
	assert_int_equal(stage_read(s, node, 0, text, sizeof(text), &gap), 0);
	assert_true(gap.off == 0 && gap.len == 10 && strcmp(gap.path, "w.bin") == 0);
	assert_int_equal(stage_read(s, node, 10, text, sizeof(text), &gap), 4);
	assert_memory_equal(text, "EDIT", 4);
	assert_int_equal(stage_read(s, node, 14, text, sizeof(text), &gap), 0);
	assert_int_equal(gap.len, 46);
	at(s, STAGE_ROOT, "moved", &node);
	assert_int_equal(stage_dir_base(s, node, &base), 0);
	assert_true(base.kind == STAGE_BASE_PINNED && strcmp(base.path, "b") == 0);
	stage_base_fini(&base);
	attr = at(s, STAGE_ROOT, "empty", &node);
	assert_true(attr.kind == STAGE_DIR && attr.has_mtime && attr.mtime.tv_sec == 1795336696);
	assert_int_equal(stage_lookup(s, STAGE_ROOT, "gone.txt", &what), 0);
	assert_int_equal(what.kind, STAGE_WHITEOUT);
	attr = at(s, STAGE_ROOT, "sub", &sub);
	assert_false(attr.has_mtime); /* the branch has it, and nothing was told */
	attr = at(s, sub, "synced", &node);
	assert_int_equal(attr.state, STAGE_COMMITTING);
	memset(w, 'w', sizeof(w));
	assert_int_equal(hash_buf(HASH_SHA256, w, sizeof(w), &key), 0);
	assert_int_equal(stage_local_get(s, "told.txt", STAGE_FILE, &key, &attr), 0);
	assert_true(attr.has_mode && attr.mode == 0640 && attr.has_mtime);
	assert_true(attr.mtime.tv_sec == 981173106 && attr.mtime.tv_nsec == 7);
	assert_int_equal(stage_intent_get(s, &intent), 0);
	assert_string_equal(intent.token, "0123456789abcdef0123456789abcdef");
	assert_true(intent.n == 1 && intent.items[0].node == node);
	stage_intent_fini(&intent);
}

static void from_1(void **state)
{
	struct stage *s;
	char text[100];

	assert_int_equal(stage_open(root, &ident, false, &s), 0);
	check_all(s);
	stage_close(s);
	sql("journal.db", "SELECT value FROM meta WHERE key = 'schema'", text);
	assert_int_equal(strtol(text, NULL, 10), STAGE_SCHEMA);
	/* What was there before, as one file. */
	sql("journal.db.v1", "SELECT value FROM meta WHERE key = 'schema'", text);
	assert_string_equal(text, "1");
	sql("journal.db.v1", "SELECT count(*) FROM node WHERE flags & 32", text);
	assert_string_equal(text, "0");
	assert_false(has_file("journal.db.v1.tmp"));
	assert_int_equal(stage_open(root, &ident, false, &s), 0);
	check_all(s);
	/* The copy goes with the journal, once nothing is staged any more. */
	assert_int_equal(stage_intent_drop(s), 0);
	assert_int_equal(stage_discard(s, ""), 0);
	stage_close(s);
	assert_true(has_file("journal.db.v1")); /* told times are there still */
	sql("journal.db", "DELETE FROM local", NULL);
	assert_int_equal(stage_open(root, &ident, false, &s), 0);
	stage_close(s);
	assert_int_equal(access(folder, F_OK), -1);
}

/* A copy that was being made when the power went. */
static void cut_off(void **state)
{
	char text[100];
	struct stage *s;

	put_file("journal.db.v1.tmp", "half of a copy", 14);
	assert_int_equal(stage_open(root, &ident, false, &s), 0);
	check_all(s);
	stage_close(s);
	sql("journal.db.v1", "SELECT value FROM meta WHERE key = 'schema'", text);
	assert_string_equal(text, "1");
}

/* Without room for the copy nothing is changed, and the next try succeeds. */
static void no_copy(void **state)
{
	char text[100], path[4400];
	struct stage *s;

	snprintf(path, sizeof(path), "%s/journal.db.v1.tmp", folder);
	assert_int_equal(mkdir(path, 0700), 0);
	assert_true(stage_open(root, &ident, false, &s) < 0);
	sql("journal.db", "SELECT value FROM meta WHERE key = 'schema'", text);
	assert_string_equal(text, "1");
	assert_int_equal(rmdir(path), 0);
	assert_int_equal(stage_open(root, &ident, false, &s), 0);
	check_all(s);
	stage_close(s);
}

/* A row that the step cannot take undoes all of it. */
static void all_or_nothing(void **state)
{
	char text[100];
	struct stage *s;

	sql("journal.db", "CREATE TABLE local_1(x)", NULL);
	assert_true(stage_open(root, &ident, false, &s) < 0);
	sql("journal.db", "SELECT value FROM meta WHERE key = 'schema'", text);
	assert_string_equal(text, "1");
	sql("journal.db", "SELECT count(*) FROM node WHERE flags & 32", text);
	assert_string_equal(text, "0");
	sql("journal.db", "DROP TABLE local_1", NULL);
	assert_int_equal(stage_open(root, &ident, false, &s), 0);
	check_all(s);
	stage_close(s);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, begin, end)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(from_1),
		TEST(cut_off),
		TEST(no_copy),
		TEST(all_or_nothing),
	};

	return cmocka_run_group_tests(tests, make_tmp, remove_tmp);
}
