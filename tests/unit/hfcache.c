/* Tests of cache/hfcache.c. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "hfcache.h"

static char dir[256], root[300];
static const struct repo_id repo = {.type = REPO_DATASET, .ns = "user", .name = "set"};
static const struct hfcache_place place = {&repo, "0123456789abcdef0123456789abcdef01234567", "dir/file.bin"};
static struct blob_key key;
static struct hfcache *hf;

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	return remove(path);
}

static int setup(void **state)
{
	const char *tmp = getenv("TMPDIR");

	snprintf(dir, sizeof(dir), "%s/hugfs-hfcache-XXXXXX", tmp ? tmp : "/tmp");
	if (!mkdtemp(dir))
		return -1;
	snprintf(root, sizeof(root), "%s/hub", dir);
	return hash_buf(HASH_SHA256, "content", 7, &key) < 0 ? -1 : hfcache_new(root, &hf);
}

static int teardown(void **state)
{
	hfcache_free(hf);
	return nftw(dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

/* PATH below the cache's folder, its folders made. */
static char *in_root(const char *path)
{
	static char out[600];
	char *slash;

	snprintf(out, sizeof(out), "%s/%s", root, path);
	slash = strrchr(out, '/');
	*slash = '\0';
	assert_int_equal(util_mkdirs(out), 0);
	*slash = '/';
	return out;
}

static void put(const char *path, const char *text)
{
	int fd = open(in_root(path), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	assert_true(fd >= 0);
	assert_int_equal(util_write_all(fd, text, strlen(text)), 0);
	close(fd);
}

static char *blob_path(void)
{
	static char out[200];
	char hex[HASH_MAX_HEX];

	hash_key_hex(&key, hex);
	snprintf(out, sizeof(out), "datasets--user--set/blobs/%s", hex);
	return out;
}

static void assert_found(void)
{
	char text[8] = "";
	int fd = -1;

	assert_int_equal(hfcache_open(hf, &place, &key, &fd), 0);
	assert_int_equal(pread(fd, text, 7, 0), 7);
	assert_string_equal(text, "content");
	assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
	assert_int_equal(fcntl(fd, F_GETFL) & O_ACCMODE, O_RDONLY);
	close(fd);
}

static void assert_missing(void)
{
	int fd = -1;

	assert_int_equal(hfcache_open(hf, &place, &key, &fd), -ENOENT);
	assert_int_equal(fd, -1);
}

static void test_found(void **state)
{
	assert_missing(); /* not even the folder is there */
	put(blob_path(), "content");
	assert_found();
	assert_found();
}

static void test_git_blob(void **state)
{
	assert_int_equal(hash_buf(HASH_GIT_SHA1, "content", 7, &key), 0);
	put(blob_path(), "content");
	assert_found();
}

static void test_wrong_size_or_bytes(void **state)
{
	put(blob_path(), "conten");
	assert_missing();
	put(blob_path(), "CONTENT");
	assert_missing();
	assert_missing();
	/* Mended, though of the same size: it is looked at again. */
	usleep(20000); /* the clock of file times is coarse */
	put(blob_path(), "content");
	assert_found();
	usleep(20000);
	put(blob_path(), "CONTENT");
	assert_missing();
}

static void test_shared_store(void **state)
{
	put("blobs/ab/abcdef", "content");
	assert_int_equal(symlink("../../blobs/ab/abcdef", in_root(blob_path())), 0);
	assert_found();
}

static void test_link_outside(void **state)
{
	char target[400];
	FILE *f;

	snprintf(target, sizeof(target), "%s/secret", dir);
	f = fopen(target, "we");
	assert_non_null(f);
	fputs("content", f);
	fclose(f);
	assert_int_equal(symlink(target, in_root(blob_path())), 0);
	assert_missing();
	/* A folder whose name begins like the cache's is outside, too. */
	snprintf(target, sizeof(target), "%s2", root);
	assert_int_equal(mkdir(target, 0700), 0);
	strcat(target, "/x");
	f = fopen(target, "we");
	assert_non_null(f);
	fputs("content", f);
	fclose(f);
	assert_int_equal(unlink(in_root(blob_path())), 0);
	assert_int_equal(symlink(target, in_root(blob_path())), 0);
	assert_missing();
}

static void test_not_a_file(void **state)
{
	assert_int_equal(mkfifo(in_root(blob_path()), 0600), 0);
	assert_missing();
	assert_int_equal(unlink(in_root(blob_path())), 0);
	assert_int_equal(mkdir(in_root(blob_path()), 0700), 0);
	assert_missing();
}

/* -- notes: one text at a time is enough -- */

static char note_key[200], note_value[200];

static int note_get(void *arg, const char *name, char **ret_value, size_t *ret_len)
{
	if (strcmp(name, note_key) != 0)
		return -ENOENT;
	*ret_value = strdup(note_value);
	*ret_len = strlen(note_value);
	return 0;
}

static int note_put(void *arg, const char *name, const void *value, size_t len)
{
	assert_true(strlen(name) < sizeof(note_key) && len < sizeof(note_value));
	memcpy(note_key, name, strlen(name) + 1);
	memcpy(note_value, value, len);
	note_value[len] = '\0';
	return 0;
}

/* What was hashed by an earlier process is not hashed again, unless the file was touched since. */
static void test_notes(void **state)
{
	const struct hfcache_notes notes = {note_get, note_put, NULL};
	struct timespec old[2] = {{.tv_sec = 1000}, {.tv_sec = 1000}};
	int fd = -1;

	note_key[0] = '\0';
	hfcache_set_notes(hf, &notes);
	put(blob_path(), "content");
	assert_int_equal(hfcache_open_checked(hf, &place, &key, &fd), -EAGAIN);
	assert_found();
	assert_true(note_key[0]);
	hfcache_free(hf);

	assert_int_equal(hfcache_new(root, &hf), 0);
	assert_int_equal(hfcache_open_checked(hf, &place, &key, &fd), -EAGAIN);
	hfcache_set_notes(hf, &notes);
	assert_int_equal(hfcache_open_checked(hf, &place, &key, &fd), 0);
	assert_true(hfcache_is_checked(hf, &key, fd));
	/* The same bytes written again: ctime tells, whatever the other times say. */
	put(blob_path(), "content");
	assert_false(hfcache_is_checked(hf, &key, fd));
	assert_int_equal(futimens(fd, old), 0);
	assert_false(hfcache_is_checked(hf, &key, fd));
	close(fd);
	fd = -1;
	assert_int_equal(hfcache_open_checked(hf, &place, &key, &fd), -EAGAIN);
	assert_found();
	assert_int_equal(hfcache_open_checked(hf, &place, &key, &fd), 0);
	close(fd);
}

/* Where the client makes no symlinks, the content lies in the snapshot; only that of the wanted commit counts. */
static void test_no_symlinks(void **state)
{
	put("datasets--user--set/snapshots/ffffffffffffffffffffffffffffffffffffffff/dir/file.bin", "content");
	assert_missing();
	put("datasets--user--set/snapshots/0123456789abcdef0123456789abcdef01234567/dir/file.bin", "CONTENT");
	assert_missing();
	put("datasets--user--set/snapshots/0123456789abcdef0123456789abcdef01234567/dir/file.bin", "content");
	assert_found();
	put(blob_path(), "content");
	assert_found();
}

static void test_stop(void **state)
{
	int fd = -1;

	put(blob_path(), "content");
	hfcache_stop(hf);
	assert_int_equal(hfcache_open(hf, &place, &key, &fd), -ECANCELED);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_found, setup, teardown),
		cmocka_unit_test_setup_teardown(test_git_blob, setup, teardown),
		cmocka_unit_test_setup_teardown(test_wrong_size_or_bytes, setup, teardown),
		cmocka_unit_test_setup_teardown(test_shared_store, setup, teardown),
		cmocka_unit_test_setup_teardown(test_link_outside, setup, teardown),
		cmocka_unit_test_setup_teardown(test_not_a_file, setup, teardown),
		cmocka_unit_test_setup_teardown(test_notes, setup, teardown),
		cmocka_unit_test_setup_teardown(test_no_symlinks, setup, teardown),
		cmocka_unit_test_setup_teardown(test_stop, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
