/* stage_journal: rows come back as they were put, a transaction is all or nothing, versions and damage are
 * refused with nothing changed, the write-ahead log is flushed and moved. */
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
#include <unistd.h>

#include "scratch.h"
#include "stage_journal.h"
#include "stage_schema.h"

#define COMMIT1 "1111111111111111111111111111111111111111"

static char dir[4200];
static unsigned dirs;
static struct journal *journal;

static int begin(void **state)
{
	bool fresh;

	snprintf(dir, sizeof(dir), "%s/%u", tmp, ++dirs);
	if (util_mkdirs(dir) < 0 || journal_open(dir, true, &journal, &fresh) < 0)
		return -1;
	return fresh ? 0 : -1;
}

static int end(void **state)
{
	journal_close(journal);
	journal = NULL;
	return 0;
}

static void reopen(void)
{
	bool fresh;

	journal_close(journal);
	journal = NULL;
	assert_int_equal(journal_open(dir, false, &journal, &fresh), 0);
	assert_false(fresh);
}

static void sql(const char *text)
{
	char path[4300];
	sqlite3 *db;

	snprintf(path, sizeof(path), "%s/journal.db", dir);
	assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
	assert_int_equal(sqlite3_exec(db, text, NULL, NULL, NULL), SQLITE_OK);
	assert_int_equal(sqlite3_close(db), SQLITE_OK);
}

static void set_schema(int version)
{
	char text[100];

	snprintf(text, sizeof(text), "UPDATE meta SET value = '%d' WHERE key = 'schema'", version);
	sql(text);
}

static struct blob_key key_of(enum hash_alg alg, const char *text)
{
	struct blob_key key;

	assert_int_equal(hash_buf(alg, text, strlen(text), &key), 0);
	return key;
}

struct loaded {
	struct journal_node nodes[8];
	struct journal_layer layers[8];
	struct {
		uint64_t parent, node, gen;
		char name[300];
	} names[8];
	struct journal_local locals[8];
	size_t n_nodes, n_layers, n_names, n_locals;
	int answer;
};

static int on_node(void *arg, struct journal_node *n)
{
	struct loaded *l = arg;

	l->nodes[l->n_nodes++] = *n;
	n->base_path = n->blob.path = NULL;
	return l->answer;
}

static int on_layer(void *arg, struct journal_layer *layer)
{
	struct loaded *l = arg;

	l->layers[l->n_layers++] = *layer;
	layer->blob.path = NULL;
	return 0;
}

static int on_name(void *arg, uint64_t parent, const char *name, uint64_t node, uint64_t gen)
{
	struct loaded *l = arg;

	l->names[l->n_names].parent = parent;
	l->names[l->n_names].node = node;
	l->names[l->n_names].gen = gen;
	snprintf(l->names[l->n_names++].name, sizeof(l->names[0].name), "%s", name);
	return 0;
}

static int on_local(void *arg, struct journal_local *local)
{
	struct loaded *l = arg;

	l->locals[l->n_locals++] = *local;
	local->path = NULL;
	return 0;
}

static int load(struct loaded *l)
{
	static const struct journal_loader to = {
		.node = on_node, .layer = on_layer, .name = on_name, .local = on_local};

	return journal_load(journal, &to, l);
}

static void loaded_fini(struct loaded *l)
{
	for (size_t i = 0; i < l->n_nodes; i++) {
		free(l->nodes[i].base_path);
		free(l->nodes[i].blob.path);
	}
	for (size_t i = 0; i < l->n_layers; i++)
		free(l->layers[i].blob.path);
	for (size_t i = 0; i < l->n_locals; i++)
		free(l->locals[i].path);
}

static void rows(void **state)
{
	char path[] = "a\xff\n/b", empty[] = "";
	struct journal_node file = {
		.id = 7,
		.kind = STAGE_FILE,
		.flags = JOURNAL_HAS_MODE | JOURNAL_HOME,
		.mode = 0751,
		.uid = 4294967294u,
		.gid = 5,
		.mtime = {.tv_sec = -3, .tv_nsec = 999999999},
		.state = JOURNAL_INTERRUPTED,
		.last_layer = 4,
		.has_blob = true,
		.blob = {.key = key_of(HASH_GIT_SHA1, "x"), .commit = COMMIT1, .path = path},
	};
	struct journal_node folder = {
		.id = 8, .kind = STAGE_DIR, .base = STAGE_BASE_PINNED, .base_commit = COMMIT1, .base_path =
		        empty};
	struct journal_layer layer = {
		.node = 7,
		.layer = 4,
		.lower = JOURNAL_OVER_BLOB,
		.blob = file.blob,
		.frozen = true,
		.size = 5000000000,
		.has_digests = true,
		.sha256 = key_of(HASH_SHA256, "y"),
		.git = key_of(HASH_GIT_SHA1, "y"),
	};
	struct loaded l = {0};

	journal_begin(journal);
	journal_put_node(journal, &file);
	journal_put_node(journal, &folder);
	journal_put_layer(journal, &layer);
	journal_put_name(journal, 1, "nam\xff", 7, 3);
	journal_put_name(journal, 1, "gone", 0, 4);
	journal_put_name(journal, 1, "gone", 0, 5);
	journal_put_meta(journal, "parent", COMMIT1);
	assert_int_equal(journal_end(journal), 0);
	reopen();
	assert_int_equal(load(&l), 0);
	assert_int_equal(l.n_nodes, 2);
	assert_int_equal(l.nodes[0].id, 7);
	assert_int_equal(l.nodes[0].flags, file.flags);
	assert_int_equal(l.nodes[0].mode, 0751);
	assert_int_equal(l.nodes[0].uid, 4294967294u);
	assert_int_equal(l.nodes[0].mtime.tv_sec, -3);
	assert_int_equal(l.nodes[0].mtime.tv_nsec, 999999999);
	assert_int_equal(l.nodes[0].state, JOURNAL_INTERRUPTED);
	assert_int_equal(l.nodes[0].last_layer, 4);
	assert_true(hash_key_equal(&l.nodes[0].blob.key, &file.blob.key));
	assert_string_equal(l.nodes[0].blob.path, path);
	assert_string_equal(l.nodes[1].base_path, "");
	assert_string_equal(l.nodes[1].base_commit, COMMIT1);
	assert_false(l.nodes[1].has_blob);
	assert_int_equal(l.n_layers, 1);
	assert_true(l.layers[0].frozen && l.layers[0].has_digests);
	assert_int_equal(l.layers[0].size, 5000000000);
	assert_int_equal(l.layers[0].sha256.size, 5000000000);
	assert_memory_equal(l.layers[0].sha256.id, layer.sha256.id, 32);
	assert_memory_equal(l.layers[0].git.id, layer.git.id, HASH_MAX_LEN);
	assert_string_equal(l.layers[0].blob.commit, COMMIT1);
	assert_int_equal(l.n_names, 2);
	assert_string_equal(l.names[0].name, "gone");
	assert_int_equal(l.names[0].gen, 5);
	assert_string_equal(l.names[1].name, "nam\xff");
	loaded_fini(&l);
	/* A node goes with its layers; the callee's answer ends the loading. */
	journal_begin(journal);
	journal_del_node(journal, 7);
	journal_del_name(journal, 1, "gone");
	assert_int_equal(journal_end(journal), 0);
	l = (struct loaded){.answer = -ECANCELED};
	assert_int_equal(load(&l), -ECANCELED);
	assert_int_equal(l.n_nodes, 1);
	loaded_fini(&l);
	l = (struct loaded){0};
	assert_int_equal(load(&l), 0);
	assert_int_equal(l.n_layers, 0);
	assert_int_equal(l.n_names, 1);
	loaded_fini(&l);
}

static void all_or_nothing(void **state)
{
	char *text;

	journal_begin(journal);
	journal_put_meta(journal, "parent", "one");
	assert_int_equal(journal_end(journal), 0);
	journal_begin(journal);
	journal_put_meta(journal, "parent", "two");
	journal_put_name(journal, 1, "x", 2, 1);
	journal_fail(journal, -ENOMEM);
	journal_put_meta(journal, "parent", "three");
	assert_int_equal(journal_end(journal), -ENOMEM);
	assert_int_equal(journal_get_meta(journal, "parent", &text), 0);
	assert_string_equal(text, "one");
	free(text);
	assert_int_equal(journal_get_meta(journal, "nothing", &text), -ENOENT);
	/* And the next one works. */
	journal_begin(journal);
	journal_put_meta(journal, "parent", "four");
	assert_int_equal(journal_end(journal), 0);
	reopen();
	assert_int_equal(journal_get_meta(journal, "parent", &text), 0);
	assert_string_equal(text, "four");
	free(text);
}

static void intents(void **state)
{
	struct stage_item items[2] = {
		{.node = 7, .layer = 2, .path = "a/b", .key = key_of(HASH_SHA256, "1")},
		{.node = 0, .layer = 0, .path = "a\xff", .key = key_of(HASH_GIT_SHA1, "2")},
	};
	struct stage_intent put = {
		.token = "0123456789abcdef0123456789abcdef", .parent = COMMIT1, .gen = 77, .items = items,
		        .n = 2};
	struct stage_intent got;

	assert_int_equal(journal_get_intent(journal, &got), -ENOENT);
	journal_begin(journal);
	journal_put_intent(journal, &put);
	put.n = 1; /* a later one replaces it */
	journal_put_intent(journal, &put);
	put.n = 2;
	journal_put_intent(journal, &put);
	assert_int_equal(journal_end(journal), 0);
	reopen();
	assert_int_equal(journal_get_intent(journal, &got), 0);
	assert_string_equal(got.token, put.token);
	assert_string_equal(got.parent, COMMIT1);
	assert_int_equal(got.gen, 77);
	assert_int_equal(got.n, 2);
	assert_string_equal(got.items[0].path, "a/b");
	assert_int_equal(got.items[0].node, 7);
	assert_int_equal(got.items[0].layer, 2);
	assert_true(hash_key_equal(&got.items[1].key, &items[1].key));
	assert_string_equal(got.items[1].path, "a\xff");
	stage_intent_fini(&got);
	journal_begin(journal);
	journal_del_intent(journal);
	assert_int_equal(journal_end(journal), 0);
	assert_int_equal(journal_get_intent(journal, &got), -ENOENT);
}

static void locals(void **state)
{
	char file[] = "p", folder[] = "d\xff";
	struct journal_local put = {
		.path = file, .has_key = true, .key = key_of(HASH_SHA256, "1"),
		.attr = {.kind = STAGE_FILE, .mode = 0640, .has_mode = true, .has_mtime = true,
		         .mtime = {.tv_sec = 5, .tv_nsec = 6}},
	};
	struct journal_local dir_put = {
		.path = folder, .attr = {.kind = STAGE_DIR, .has_owner = true, .uid = 7, .gid = 8}};
	struct loaded l = {0};

	journal_begin(journal);
	journal_put_local(journal, &dir_put);
	journal_put_local(journal, &put);
	put.attr.mode = 0600;
	journal_put_local(journal, &put);
	assert_int_equal(journal_end(journal), 0);
	reopen();
	assert_int_equal(load(&l), 0);
	assert_int_equal(l.n_locals, 2);
	assert_string_equal(l.locals[0].path, folder);
	assert_false(l.locals[0].has_key);
	assert_int_equal(l.locals[0].attr.kind, STAGE_DIR);
	assert_true(l.locals[0].attr.has_owner && !l.locals[0].attr.has_mode && !l.locals[0].attr.has_mtime);
	assert_int_equal(l.locals[0].attr.gid, 8);
	assert_string_equal(l.locals[1].path, file);
	assert_true(l.locals[1].has_key && hash_key_equal(&l.locals[1].key, &put.key));
	assert_int_equal(l.locals[1].attr.mode, 0600);
	assert_int_equal(l.locals[1].attr.mtime.tv_nsec, 6);
	loaded_fini(&l);
	journal_begin(journal);
	journal_del_local(journal, "p");
	assert_int_equal(journal_end(journal), 0);
	l = (struct loaded){0};
	assert_int_equal(load(&l), 0);
	assert_int_equal(l.n_locals, 1);
	loaded_fini(&l);
	/* A file without its content's id is no record of ours. */
	sql("UPDATE local SET kind = 2");
	l = (struct loaded){0};
	assert_int_equal(load(&l), -EIO);
	loaded_fini(&l);
}

/* Every file of the folder, one after the other. */
static void read_dir(struct buf *to)
{
	static const char *const names[] = {"journal.db", "journal.db-wal"};

	for (size_t i = 0; i < 2; i++) {
		char path[4300], *text;
		size_t len;

		snprintf(path, sizeof(path), "%s/%s", dir, names[i]);
		if (util_read_file(path, 10 << 20, &text, &len) < 0)
			continue;
		assert_int_equal(buf_add(to, text, len), 0);
		free(text);
	}
}

static void newer(void **state)
{
	struct journal *second;
	struct buf before = {0}, after = {0};
	char path[4300];
	bool fresh;
	sqlite3 *db;

	journal_close(journal);
	journal = NULL;
	sql("UPDATE meta SET value = '98' WHERE key = 'schema'");
	/* Also as one that was killed leaves it: the last change in the write-ahead log. */
	snprintf(path, sizeof(path), "%s/journal.db", dir);
	assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
	sqlite3_db_config(db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL);
	assert_int_equal(sqlite3_exec(db, "UPDATE meta SET value = '99' WHERE key = 'schema'", NULL, NULL,
	                              NULL), SQLITE_OK);
	sqlite3_close(db);
	read_dir(&before);
	assert_true(before.len > 8192);
	assert_int_equal(journal_open(dir, true, &second, &fresh), -EPROTO);
	assert_int_equal(journal_open(dir, false, &second, &fresh), -EPROTO);
	read_dir(&after);
	assert_int_equal(before.len, after.len);
	assert_memory_equal(before.data, after.data, before.len);
	buf_fini(&before);
	buf_fini(&after);
	set_schema(STAGE_SCHEMA);
	assert_int_equal(journal_open(dir, false, &journal, &fresh), 0);
}

static void refused(void **state)
{
	struct journal *second;
	struct loaded l = {0};
	char path[4300];
	bool fresh;
	int fd;

	/* Rows that no hugfs wrote. */
	journal_close(journal);
	sql("INSERT INTO node(id, kind, base, flags, mode, uid, gid, mtime_s, mtime_ns, state, last_layer)"
	    " VALUES(9, 2, 0, 0, 0, 0, 0, 0, 0, 99, 0)");
	assert_int_equal(journal_open(dir, false, &journal, &fresh), 0);
	assert_int_equal(load(&l), -EIO);
	journal_close(journal);
	sql("UPDATE node SET state = 0, alg = 2, oid = x'00', size = 1");
	assert_int_equal(journal_open(dir, false, &journal, &fresh), 0);
	assert_int_equal(load(&l), -EIO);
	journal_close(journal);
	sql("DELETE FROM node; INSERT INTO name VALUES(1, x'610062', 0, 1)");
	assert_int_equal(journal_open(dir, false, &journal, &fresh), 0);
	assert_int_equal(load(&l), -EIO);
	loaded_fini(&l);
	journal_close(journal);
	journal = NULL;
	/* A file that is no journal, nor a database. */
	sql("PRAGMA application_id = 1");
	assert_int_equal(journal_open(dir, false, &second, &fresh), -EIO);
	snprintf(path, sizeof(path), "%s/journal.db", dir);
	fd = open(path, O_WRONLY);
	assert_int_equal(pwrite(fd, "this is not a database", 22, 0), 22);
	close(fd);
	assert_int_equal(journal_open(dir, true, &second, &fresh), -EIO);
	assert_int_equal(unlink(path), 0);
	assert_int_equal(journal_open(dir, false, &second, &fresh), -ENOENT);
}

/* The log is moved while transactions go on, and begun anew. */
static void checkpoints(void **state)
{
	char value[3000], wal[4300], *text;
	struct stat st;
	int moved = 0;

	memset(value, 'v', sizeof(value));
	value[sizeof(value) - 1] = '\0';
	snprintf(wal, sizeof(wal), "%s/journal.db-wal", dir);
	for (int i = 0; i < 24000; i++) {
		char key[16];

		snprintf(key, sizeof(key), "k%d", i % 50);
		journal_begin(journal);
		journal_put_meta(journal, key, value);
		assert_int_equal(journal_end(journal), 0);
		if (journal_is_due(journal)) {
			assert_int_equal(journal_flush(journal), 0);
			journal_checkpoint(journal);
			assert_false(journal_is_due(journal));
			moved++;
		}
	}
	assert_int_equal(stat(wal, &st), 0);
	assert_true(moved >= 2);
	assert_true(st.st_size < 40 << 20);
	reopen();
	assert_int_equal(journal_get_meta(journal, "k49", &text), 0);
	assert_string_equal(text, value);
	free(text);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, begin, end)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(rows),
		TEST(all_or_nothing),
		TEST(intents),
		TEST(locals),
		TEST(newer),
		TEST(refused),
		TEST(checkpoints),
	};

	return cmocka_run_group_tests(tests, make_tmp, remove_tmp);
}
