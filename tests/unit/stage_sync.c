/* stage_sync: what a power failure puts in doubt. A child works and dies, the journal is given another boot id, and what
 * was not synced is interrupted, though every byte of it happens to be there. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <ftw.h>
#include <glob.h>
#include <sqlite3.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "scratch.h"
#include "stage.h"

#define COMMIT1 "1111111111111111111111111111111111111111"

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
	return 0;
}

static int end(void **state)
{
	stage_close(stage);
	stage = NULL;
	return nftw(root, remove_one, 16, FTW_DEPTH | FTW_PHYS) < 0 && errno != ENOENT;
}

/* Runs `work` in a process that opens the stage and is not there to close it. */
static void life(void (*work)(void))
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
		work();
		_exit(0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
}

/* What the journal says of the number of layers that `where` holds for. */
static int count_layers(const char *where)
{
	char pattern[4400], sql[200];
	sqlite3_stmt *st;
	sqlite3 *db;
	glob_t g;
	int n;

	snprintf(pattern, sizeof(pattern), "%s/v1/*/*/models/user/repo/main/journal.db", root);
	assert_int_equal(glob(pattern, 0, NULL, &g), 0);
	assert_int_equal(sqlite3_open(g.gl_pathv[0], &db), SQLITE_OK);
	globfree(&g);
	snprintf(sql, sizeof(sql), "SELECT count(*) FROM layer WHERE %s", where);
	assert_int_equal(sqlite3_prepare_v2(db, sql, -1, &st, NULL), SQLITE_OK);
	assert_int_equal(sqlite3_step(st), SQLITE_ROW);
	n = sqlite3_column_int(st, 0);
	sqlite3_finalize(st);
	sqlite3_close(db);
	return n;
}

static void new_boot(void)
{
	char pattern[4400];
	sqlite3 *db;
	glob_t g;

	snprintf(pattern, sizeof(pattern), "%s/v1/*/*/models/user/repo/main/journal.db", root);
	assert_int_equal(glob(pattern, 0, NULL, &g), 0);
	assert_int_equal(sqlite3_open(g.gl_pathv[0], &db), SQLITE_OK);
	globfree(&g);
	assert_int_equal(sqlite3_exec(db, "UPDATE meta SET value = 'another' WHERE key = 'boot'", NULL, NULL, NULL),
	                 SQLITE_OK);
	assert_int_equal(sqlite3_changes(db), 1);
	sqlite3_close(db);
}

static void reopen(void)
{
	assert_int_equal(stage_open(root, &ident, true, &stage), 0);
	stage_check(stage);
}

static uint64_t node_of(const char *name)
{
	struct stage_name what;

	assert_int_equal(stage_lookup(stage, STAGE_ROOT, name, &what), 0);
	return what.node;
}

static enum stage_state state_of(const char *name)
{
	struct stage_attr attr;

	assert_int_equal(stage_attr(stage, node_of(name), &attr), 0);
	return attr.state;
}

/* Opens, writes, closes, as a program does. */
static uint64_t put(const char *name, const char *text)
{
	uint64_t node;

	assert_int_equal(stage_create_open(stage, STAGE_ROOT, name, 0644, &node), 0);
	assert_int_equal(stage_writer_open(stage, node), 0);
	assert_int_equal(stage_write(stage, node, 0, text, strlen(text), 1), 0);
	assert_int_equal(stage_writer_flush(stage, node, 1, false), 1);
	stage_writer_close(stage, node);
	return node;
}

static void change(uint64_t node, const char *text)
{
	assert_int_equal(stage_writer_open(stage, node), 0);
	assert_int_equal(stage_write(stage, node, 0, text, strlen(text), 1), 0);
	assert_int_equal(stage_writer_flush(stage, node, 1, false), 1);
	stage_writer_close(stage, node);
}

static void some_files(void)
{
	struct stage_blob blob = {.commit = COMMIT1, .path = "edited"};
	uint64_t node;

	put("loose", "1");
	assert_int_equal(stage_sync(stage, put("synced", "2")), 0);
	node = put("again", "3");
	assert_int_equal(stage_sync(stage, node), 0);
	change(node, "4");
	node = put("synced again", "5");
	assert_int_equal(stage_sync(stage, node), 0);
	change(node, "6");
	assert_int_equal(stage_sync(stage, node), 0);
	node = put("in two layers", "7");
	assert_int_equal(stage_sync(stage, node), 0);
	assert_int_equal(stage_freeze_node(stage, node, NULL), 0);
	change(node, "8");
	assert_int_equal(stage_create(stage, STAGE_ROOT, "nothing", 0644, &node), 0);
	assert_int_equal(hash_buf(HASH_SHA256, "committed", 9, &blob.key), 0);
	assert_int_equal(stage_borrow(stage, STAGE_ROOT, "edited", &blob, &node), 0);
	change(node, "E");
	/* Synced before it is closed, and never again. */
	assert_int_equal(stage_create_open(stage, STAGE_ROOT, "before close", 0644, &node), 0);
	assert_int_equal(stage_writer_open(stage, node), 0);
	assert_int_equal(stage_write(stage, node, 0, "9", 1, 1), 0);
	assert_int_equal(stage_sync(stage, node), 0);
	assert_int_equal(stage_writer_flush(stage, node, 1, false), 1);
	stage_writer_close(stage, node);
}

static void the_same_boot(void **state)
{
	life(some_files);
	reopen();
	for (const char **name = (const char *[]){"loose", "synced", "again", "synced again", "in two layers", "nothing",
	                                          "edited", "before close", NULL}; *name; name++)
		assert_int_equal(state_of(*name), STAGE_STAGED);
}

static void another_boot(void **state)
{
	life(some_files);
	new_boot();
	reopen();
	assert_int_equal(state_of("loose"), STAGE_INTERRUPTED);
	assert_int_equal(state_of("synced"), STAGE_STAGED);
	assert_int_equal(state_of("again"), STAGE_INTERRUPTED);
	assert_int_equal(state_of("synced again"), STAGE_STAGED);
	assert_int_equal(state_of("in two layers"), STAGE_INTERRUPTED);
	assert_int_equal(state_of("nothing"), STAGE_STAGED);
	assert_int_equal(state_of("edited"), STAGE_INTERRUPTED);
	assert_int_equal(state_of("before close"), STAGE_STAGED);
	/* It is kept, and settled when it is written again. */
	change(node_of("loose"), "new");
	assert_int_equal(state_of("loose"), STAGE_STAGED);
	/* From now on this is the boot that counts. */
	stage_close(stage);
	stage = NULL;
	reopen();
	assert_int_equal(state_of("loose"), STAGE_STAGED);
	assert_int_equal(state_of("again"), STAGE_INTERRUPTED);
}

static void close_and_sync_behind(void)
{
	uint64_t node;
	char name[16];

	for (int i = 0; i < 100; i++) { /* more than are synced one by one */
		snprintf(name, sizeof(name), "f%d", i);
		put(name, name);
	}
	assert_int_equal(stage_sync_behind(stage, 60000), 0);
	assert_int_equal(count_layers("synced"), 0); /* too early */
	assert_int_equal(stage_sync_behind(stage, 0), 0);
	assert_int_equal(count_layers("NOT synced"), 0);
	put("one more", "1");
	assert_int_equal(stage_sync_behind(stage, 0), 0);
	assert_int_equal(count_layers("NOT synced"), 0);
	/* Neither what is open nor what was changed since. */
	assert_int_equal(stage_create_open(stage, STAGE_ROOT, "open", 0644, &node), 0);
	assert_int_equal(stage_writer_open(stage, node), 0);
	assert_int_equal(stage_write(stage, node, 0, "9", 1, 1), 0);
	change(node_of("f7"), "changed");
	assert_int_equal(count_layers("NOT synced"), 2);
	assert_int_equal(stage_sync_behind(stage, 0), 0);
	change(node_of("f8"), "changed");
}

static void behind(void **state)
{
	life(close_and_sync_behind);
	assert_int_equal(count_layers("NOT synced"), 2);
	new_boot();
	reopen();
	assert_int_equal(state_of("f0"), STAGE_STAGED);
	assert_int_equal(state_of("f7"), STAGE_STAGED);
	assert_int_equal(state_of("f8"), STAGE_INTERRUPTED);
	assert_int_equal(state_of("open"), STAGE_INTERRUPTED);
	assert_int_equal(state_of("one more"), STAGE_STAGED);
}

static void work_and_close(void)
{
	some_files();
	stage_close(stage);
}

/* A clean unmount leaves nothing in doubt. */
static void closed(void **state)
{
	life(work_and_close);
	new_boot();
	reopen();
	assert_int_equal(state_of("loose"), STAGE_STAGED);
	assert_int_equal(state_of("edited"), STAGE_STAGED);
}

/* A journal of an older hugfs says neither. */
static void unknown_boot(void **state)
{
	char pattern[4400];
	sqlite3 *db;
	glob_t g;

	life(some_files);
	snprintf(pattern, sizeof(pattern), "%s/v1/*/*/models/user/repo/main/journal.db", root);
	assert_int_equal(glob(pattern, 0, NULL, &g), 0);
	assert_int_equal(sqlite3_open(g.gl_pathv[0], &db), SQLITE_OK);
	globfree(&g);
	assert_int_equal(sqlite3_exec(db, "DELETE FROM meta WHERE key = 'boot'", NULL, NULL, NULL), SQLITE_OK);
	sqlite3_close(db);
	reopen();
	assert_int_equal(state_of("loose"), STAGE_STAGED);
}

static void open_only(void)
{
	uint64_t node = put("closed", "1");

	assert_int_equal(stage_writer_open(stage, node), 0);
	assert_int_equal(stage_create_open(stage, STAGE_ROOT, "new", 0644, &node), 0);
}

/* The shell's `cmd > file`: cut by its open, flushed before cmd runs. And one that was made by that. */
static void redirected(void)
{
	uint64_t node = put("cut", "1");

	assert_int_equal(stage_writer_open(stage, node), 0);
	assert_int_equal(stage_truncate(stage, node, 0), 0);
	assert_int_equal(stage_writer_flush(stage, node, 1, false), 0);
	assert_int_equal(stage_create_open(stage, STAGE_ROOT, "made", 0644, &node), 0);
	assert_int_equal(stage_writer_open(stage, node), 0);
	assert_int_equal(stage_writer_flush(stage, node, 1, false), 0);
	node = put("closed", "1");
	assert_int_equal(stage_writer_open(stage, node), 0);
	assert_int_equal(stage_truncate(stage, node, 0), 0);
	assert_int_equal(stage_writer_flush(stage, node, 1, false), 0);
	stage_writer_close(stage, node);
}

static void cut_before_the_first_byte(void **state)
{
	life(redirected);
	reopen();
	assert_int_equal(state_of("cut"), STAGE_INTERRUPTED);
	assert_int_equal(state_of("made"), STAGE_INTERRUPTED);
	assert_int_equal(state_of("closed"), STAGE_STAGED);
}

/* What was closed is in doubt only once it is changed again; what an open made, from its first moment. */
static void opened(void **state)
{
	life(open_only);
	reopen();
	assert_int_equal(state_of("closed"), STAGE_STAGED);
	assert_int_equal(state_of("new"), STAGE_INTERRUPTED);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, begin, end)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(the_same_boot),
		TEST(another_boot),
		TEST(behind),
		TEST(closed),
		TEST(unknown_boot),
		TEST(opened),
		TEST(cut_before_the_first_byte),
	};

	return cmocka_run_group_tests(tests, make_tmp, remove_tmp);
}
