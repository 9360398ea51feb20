/* Tests of cache/index.c. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "index.h"

static char dir[256];

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	return remove(path);
}

static int setup(void **state)
{
	const char *tmp = getenv("TMPDIR");

	snprintf(dir, sizeof(dir), "%s/hugfs-index-XXXXXX", tmp ? tmp : "/tmp");
	return mkdtemp(dir) ? 0 : -1;
}

static int teardown(void **state)
{
	return nftw(dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

static struct blob_key key_of(uint8_t first, uint64_t size)
{
	struct blob_key key = {.size = size, .alg = HASH_SHA256};

	memset(key.id, first, sizeof(key.id));
	return key;
}

static struct index *open_index(void)
{
	struct index *ix = NULL;

	assert_int_equal(index_open(dir, &ix), 0);
	return ix;
}

static void test_segments_survive(void **state)
{
	struct blob_key key = key_of(1, 100 * INDEX_BLOCK + 5);
	struct index_seg segs[2] = {{.seg = 0, .present = 5}, {.seg = 1, .present = (uint64_t)1 << 36}};
	const struct index_stamp stamp = {.ino = 77, .mtime_ns = 5000000001, .ctime_ns = -3};
	struct index_known k = {0};
	struct index *ix = open_index();
	uint64_t gen, bytes, objects;

	assert_true(index_is_new(ix));
	segs[0].crc[0] = 0xdeadbeef;
	segs[0].crc[2] = 7;
	segs[1].crc[36] = 9;
	assert_int_equal(index_load(ix, &key, &k), 0);
	assert_int_equal(k.n, 0);
	gen = k.gen;
	assert_int_equal(index_store(ix, &key, gen, segs, 2), 0);
	/* More bits are or-ed in, and the other checksums stay. */
	segs[0] = (struct index_seg){.seg = 0, .present = 2};
	segs[0].crc[1] = 8;
	assert_int_equal(index_store(ix, &key, gen, segs, 1), 0);
	assert_int_equal(index_store(ix, &key, gen + 1, segs, 1), -ESTALE);
	assert_int_equal(index_set_verified(ix, &key, &stamp), 0);
	index_close(ix);

	ix = open_index();
	assert_false(index_is_new(ix));
	assert_int_equal(index_load(ix, &key, &k), 0);
	assert_true(k.gen == gen);
	assert_true(k.verified);
	assert_memory_equal(&k.stamp, &stamp, sizeof(stamp));
	assert_int_equal(k.n, 2);
	assert_int_equal(k.segs[0].present, 7);
	assert_int_equal(k.segs[0].crc[0], 0xdeadbeef);
	assert_int_equal(k.segs[0].crc[1], 8);
	assert_int_equal(k.segs[0].crc[2], 7);
	assert_int_equal(k.segs[1].crc[36], 9);
	index_known_fini(&k);
	/* The last block, number 100, has 5 bytes. */
	assert_int_equal(index_usage(ix, &bytes, &objects), 0);
	assert_int_equal(bytes, 3 * INDEX_BLOCK + 5);
	assert_int_equal(objects, 1);
	index_close(ix);
}

static void test_drops(void **state)
{
	struct blob_key a = key_of(1, 10 * INDEX_BLOCK), b = key_of(2, 10 * INDEX_BLOCK);
	struct index_seg seg = {.present = 0x3ff};
	/* Of segment 7 nothing is there: no error. */
	const struct index_seg gone[] = {{.seg = 0, .present = 0xf0}, {.seg = 7, .present = ~(uint64_t)0}};
	struct index_known ka = {0}, kb = {0}, again = {0};
	struct index_object *objects = NULL;
	struct index *ix = open_index();
	size_t n = 0;

	assert_int_equal(index_load(ix, &a, &ka), 0);
	assert_int_equal(index_load(ix, &b, &kb), 0);
	assert_int_equal(index_store(ix, &a, ka.gen, &seg, 1), 0);
	assert_int_equal(index_store(ix, &b, kb.gen, &seg, 1), 0);
	assert_int_equal(index_touch(ix, &a, 2000), 0);
	assert_int_equal(index_touch(ix, &b, 1000), 0);
	assert_int_equal(index_drop(ix, &a, gone, 2), 0);
	assert_int_equal(index_objects(ix, &objects, &n), 0);
	assert_int_equal(n, 2);
	assert_true(hash_key_equal(&objects[0].key, &b)); /* least recently used first */
	assert_int_equal(objects[0].bytes, 10 * INDEX_BLOCK);
	assert_int_equal(objects[1].bytes, 6 * INDEX_BLOCK);
	free(objects);
	assert_int_equal(index_drop_object(ix, &b, kb.gen + 1), -ENOENT);
	assert_int_equal(index_drop_object(ix, &b, kb.gen), 0);
	assert_int_equal(index_drop_object(ix, &b, kb.gen), -ENOENT);
	assert_int_equal(index_store(ix, &b, kb.gen, &seg, 1), -ESTALE);
	assert_int_equal(index_load(ix, &b, &again), 0);
	assert_int_equal(again.n, 0);
	assert_true(again.gen != kb.gen); /* a file name is never used again */
	index_close(ix);
}

static void test_meta(void **state)
{
	struct index *ix = open_index();
	char *value = NULL;
	size_t len = 0;

	assert_int_equal(index_meta_get(ix, "a", &value, &len), -ENOENT);
	assert_int_equal(index_meta_put(ix, "a", "x\0y", 3), 0);
	assert_int_equal(index_meta_put(ix, "empty", "", 0), 0);
	assert_int_equal(index_meta_put(ix, "a", "x\0z", 3), 0);
	index_close(ix);
	ix = open_index();
	assert_int_equal(index_meta_get(ix, "a", &value, &len), 0);
	assert_int_equal(len, 3);
	assert_memory_equal(value, "x\0z", 4); /* terminated */
	free(value);
	assert_int_equal(index_meta_get(ix, "empty", &value, &len), 0);
	assert_int_equal(len, 0);
	free(value);
	index_close(ix);
}

static void file_path(char out[300], const char *name)
{
	snprintf(out, 300, "%s/%s", dir, name);
}

static void write_garbage(const char *name, off_t off, size_t len)
{
	char path[300], junk[8192];
	int fd;

	file_path(path, name);
	fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	assert_true(fd >= 0);
	memset(junk, 0x5a, sizeof(junk));
	for (size_t done = 0; done < len; done += sizeof(junk))
		assert_int_equal(util_pwrite_all(fd, junk, sizeof(junk), (uint64_t)off + done), 0);
	close(fd);
}

static void test_garbage_is_set_aside(void **state)
{
	struct blob_key key = key_of(1, 10);
	struct index_known k = {0};
	char path[300];
	struct index *ix;

	write_garbage("index.db", 0, 16384);
	ix = open_index();
	assert_true(index_is_new(ix));
	assert_int_equal(index_load(ix, &key, &k), 0);
	index_close(ix);
	file_path(path, "index.db.bad");
	assert_int_equal(access(path, F_OK), 0);
}

static void test_other_version_is_set_aside(void **state)
{
	struct index *ix = open_index();
	char path[300];
	uint8_t version[4] = {0, 0, 0, 99};
	int fd;

	index_close(ix); /* the last connection writes the log into the file */
	file_path(path, "index.db");
	fd = open(path, O_RDWR | O_CLOEXEC);
	assert_true(fd >= 0);
	assert_int_equal(util_pwrite_all(fd, version, 4, 60), 0); /* user_version of SQLite's header */
	close(fd);
	ix = open_index();
	assert_true(index_is_new(ix));
	index_close(ix);
	file_path(path, "index.db.bad");
	assert_int_equal(access(path, F_OK), 0);
}

/* Damage that shows only while it is in use. */
static void test_damage_later(void **state)
{
	struct index *ix = open_index();
	struct index_known k = {0};
	char path[300];
	int r = 0;

	for (int i = 0; i < 200; i++) {
		struct blob_key key = key_of((uint8_t)i, 100);

		assert_int_equal(index_load(ix, &key, &k), 0);
	}
	index_close(ix);
	write_garbage("index.db", 4096, 16384);
	ix = open_index(); /* the schema on the first page is whole */
	for (int i = 0; i < 20 && access((file_path(path, "index.db.bad"), path), F_OK) < 0; i++) {
		struct blob_key key = key_of((uint8_t)i, 100);

		r = index_load(ix, &key, &k);
	}
	assert_int_equal(access(path, F_OK), 0);
	for (int i = 0; i < 3; i++) {
		struct blob_key key = key_of((uint8_t)i, 100);

		r = index_load(ix, &key, &k);
		if (r == 0)
			break;
	}
	assert_int_equal(r, 0);
	index_close(ix);
}

static void test_no_folder_is_memory(void **state)
{
	struct blob_key key = key_of(1, 10);
	struct index_known k = {0};
	struct index *ix = NULL;
	char *value = NULL;
	size_t len;

	assert_int_equal(index_open("/proc/no-such-folder", &ix), 0);
	assert_false(index_is_new(ix));
	assert_int_equal(index_load(ix, &key, &k), 0);
	assert_int_equal(index_meta_put(ix, "a", "b", 1), 0);
	assert_int_equal(index_meta_get(ix, "a", &value, &len), 0);
	free(value);
	index_close(ix);
	assert_int_equal(access(":memory:.lock", F_OK), -1);
}

/* Daemons that start at the same moment make one database, and none of them falls back to memory. */
static void test_made_by_many_at_once(void **state)
{
	enum { ROUNDS = 20, DAEMONS = 6 };

	for (unsigned round = 0; round < ROUNDS; round++) {
		char own[PATH_MAX];
		pid_t pids[DAEMONS];
		int gate[2];
		char *value = NULL;
		size_t len;
		struct index *ix = NULL;

		snprintf(own, sizeof(own), "%s/%u", dir, round);
		assert_int_equal(mkdir(own, 0700), 0);
		assert_int_equal(pipe(gate), 0);
		for (int p = 0; p < DAEMONS; p++) {
			pids[p] = fork();
			if (pids[p] == 0) {
				char key[2] = {(char)('a' + p), '\0'};
				char byte;
				int bad;

				close(gate[1]);
				bad = read(gate[0], &byte, 1) != 0 || index_open(own, &ix) < 0 ||
				      index_meta_put(ix, key, "x", 1) < 0;
				index_close(ix);
				_exit(bad);
			}
		}
		close(gate[0]);
		close(gate[1]);
		for (int p = 0; p < DAEMONS; p++) {
			int status;

			assert_int_equal(waitpid(pids[p], &status, 0), pids[p]);
			assert_int_equal(status, 0);
		}
		assert_int_equal(index_open(own, &ix), 0);
		for (int p = 0; p < DAEMONS; p++) {
			char key[2] = {(char)('a' + p), '\0'};

			assert_int_equal(index_meta_get(ix, key, &value, &len), 0);
			free(value);
		}
		index_close(ix);
	}
}

/* Two daemons: what one notes the other sees, and both may write. */
static void test_two_processes(void **state)
{
	struct blob_key key = key_of(1, 200 * 64 * INDEX_BLOCK);
	struct index_known k = {0};
	int status;
	pid_t pids[2];
	struct index *ix;

	for (int p = 0; p < 2; p++) {
		pids[p] = fork();
		if (pids[p] == 0) {
			struct index *own = NULL;
			struct index_known known = {0};
			int bad = index_open(dir, &own);

			if (bad == 0)
				bad = index_load(own, &key, &known);
			for (unsigned i = 0; bad == 0 && i < 100; i++) {
				struct index_seg seg = {.seg = i, .present = p ? 0xff : 0xff00};

				bad = index_store(own, &key, known.gen, &seg, 1);
			}
			index_close(own);
			_exit(bad ? 1 : 0);
		}
	}
	for (int p = 0; p < 2; p++) {
		assert_int_equal(waitpid(pids[p], &status, 0), pids[p]);
		assert_int_equal(status, 0);
	}
	ix = open_index();
	assert_int_equal(index_load(ix, &key, &k), 0);
	assert_int_equal(k.n, 100);
	for (size_t i = 0; i < k.n; i++)
		assert_int_equal(k.segs[i].present, 0xffff);
	index_known_fini(&k);
	index_close(ix);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_segments_survive, setup, teardown),
		cmocka_unit_test_setup_teardown(test_drops, setup, teardown),
		cmocka_unit_test_setup_teardown(test_meta, setup, teardown),
		cmocka_unit_test_setup_teardown(test_garbage_is_set_aside, setup, teardown),
		cmocka_unit_test_setup_teardown(test_other_version_is_set_aside, setup, teardown),
		cmocka_unit_test_setup_teardown(test_damage_later, setup, teardown),
		cmocka_unit_test_setup_teardown(test_no_folder_is_memory, setup, teardown),
		cmocka_unit_test_setup_teardown(test_made_by_many_at_once, setup, teardown),
		cmocka_unit_test_setup_teardown(test_two_processes, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
