/* util: cleanup, whole reads and writes, sizes, hex, buffers. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "util.h"

static char dir[4096];

static int make_dir(void **state)
{
	const char *tmp = getenv("TMPDIR");

	snprintf(dir, sizeof(dir), "%s/hugfs-util-XXXXXX", tmp ? tmp : "/tmp");
	return mkdtemp(dir) ? 0 : -1;
}

static int remove_dir(void **state)
{
	AUTO_FREE char *file = util_printf("%s/file", dir);

	unlink(file);
	return rmdir(dir);
}

static bool fd_is_open(int fd)
{
	return fcntl(fd, F_GETFD) >= 0;
}

static void test_cleanup(void **state)
{
	int fd = open("/dev/null", O_RDONLY | O_CLOEXEC), kept;

	assert_true(fd > 0);
	{
		AUTO_CLOSE int closed = fd;
		AUTO_FCLOSE FILE *none = NULL;
		AUTO_FREE char *mem = strdup("x");

		errno = EXDEV;
		assert_non_null(mem);
		assert_null(none);
		assert_int_equal(closed, fd);
	}
	assert_int_equal(errno, EXDEV);
	assert_false(fd_is_open(fd));

	fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
	{
		AUTO_CLOSE int stolen = fd;

		kept = STEAL(stolen);
		assert_int_equal(stolen, 0);
	}
	assert_true(fd_is_open(kept));
	close(kept);
}

static void test_stolen_descriptor_leaves_stdin(void **state)
{
	int saved = dup(0), null = open("/dev/null", O_RDONLY | O_CLOEXEC);

	assert_int_equal(dup2(null, 0), 0);
	close(null);
	{
		AUTO_CLOSE int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);

		close(STEAL(fd));
	}
	assert_true(fd_is_open(0));
	if (saved >= 0) {
		dup2(saved, 0);
		close(saved);
	}
}

static void test_must(void **state)
{
	int status;
	pid_t pid = fork();

	assert_true(pid >= 0);
	if (pid == 0) {
		close(STDERR_FILENO);
		must(1 + 1 == 2);
		must(1 + 1 == 3);
		_exit(0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFSIGNALED(status));
	assert_int_equal(WTERMSIG(status), SIGABRT);
}

static void test_time(void **state)
{
	int64_t a = util_now_ms(), b = util_now_ms();

	assert_true(a > 0);
	assert_true(b >= a && b - a < 60000);
}

static void test_home(void **state)
{
	AUTO_FREE char *before = getenv("HOME") ? strdup(getenv("HOME")) : NULL;
	AUTO_FREE char *given = NULL, *found = NULL;

	setenv("HOME", "/somewhere", 1);
	given = util_home_dir();
	assert_string_equal(given, "/somewhere");
	unsetenv("HOME");
	found = util_home_dir();
	assert_int_equal(found[0], '/');
	if (before)
		setenv("HOME", before, 1);
}

static void test_mkdirs(void **state)
{
	AUTO_FREE char *deep = util_printf("%s/a//b/c/", dir), *file = util_printf("%s/file", dir);
	AUTO_FREE char *below = util_printf("%s/file/x", dir);
	struct stat st;
	int fd;

	assert_int_equal(util_mkdirs(deep), 0);
	assert_int_equal(util_mkdirs(deep), 0);
	assert_int_equal(stat(deep, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0700);
	assert_int_equal(util_mkdirs("/"), 0);
	assert_int_equal(util_mkdirs(""), -ENOENT);
	fd = open(file, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	close(fd);
	assert_int_equal(util_mkdirs(file), -ENOTDIR);
	assert_int_equal(util_mkdirs(below), -ENOTDIR);
	for (int i = 0; i < 3; i++) {
		AUTO_FREE char *part = util_printf("%s/%s", dir, i == 0 ? "a/b/c" : i == 1 ? "a/b" : "a");

		assert_int_equal(rmdir(part), 0);
	}
}

static void test_files(void **state)
{
	AUTO_FREE char *path = util_printf("%s/file", dir), *text = NULL;
	AUTO_CLOSE int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	char got[16];
	size_t len = 99;

	assert_true(fd > 0);
	assert_int_equal(util_write_all(fd, "hello", 5), 0);
	assert_int_equal(util_pwrite_all(fd, "world", 5, 3), 0);
	assert_int_equal(util_pread_all(fd, got, sizeof(got), 0), 8);
	assert_memory_equal(got, "helworld", 8);
	assert_int_equal(util_pread_all(fd, got, 3, 2), 3);
	assert_memory_equal(got, "lwo", 3);
	assert_int_equal(util_pread_all(fd, got, 3, 8), 0);

	assert_int_equal(util_read_file(path, 8, &text, &len), 0);
	assert_int_equal(len, 8);
	assert_string_equal(text, "helworld");
	free(STEAL(text));
	len = 99;
	assert_int_equal(util_read_file(path, 7, &text, &len), -EFBIG);
	assert_null(text);
	assert_int_equal(len, 99);
	assert_int_equal(util_read_file(dir, 7, &text, NULL), -EISDIR);
	assert_int_equal(util_read_file("/nonexistent/x", 7, &text, NULL), -ENOENT);
	assert_int_equal(ftruncate(fd, 0), 0);
	assert_int_equal(util_read_file(path, 0, &text, NULL), 0);
	assert_string_equal(text, "");

	assert_int_equal(util_fsync_dir(dir), 0);
	assert_int_equal(util_fsync_dir(path), -ENOTDIR);
	assert_int_equal(util_pread_all(-1, got, 1, 0), -EBADF);
	assert_int_equal(util_pwrite_all(-1, got, 1, 0), -EBADF);
	assert_int_equal(util_write_all(-1, got, 1), -EBADF);
}

/* A pipe takes and gives pieces: the whole must still arrive. */
static void test_short_writes(void **state)
{
	enum { SIZE = 300000 };
	AUTO_FREE char *sent = malloc(SIZE), *got = malloc(SIZE);
	int pipe_fd[2], status;
	size_t n = 0;
	pid_t pid;

	memset(sent, 'x', SIZE);
	assert_int_equal(pipe2(pipe_fd, O_CLOEXEC), 0);
	pid = fork();
	if (pid == 0)
		_exit(util_write_all(pipe_fd[1], sent, SIZE) == 0 ? 0 : 1);
	close(pipe_fd[1]);
	for (ssize_t r; n < SIZE && (r = read(pipe_fd[0], got + n, SIZE - n)) > 0;)
		n += (size_t)r;
	assert_int_equal(n, SIZE);
	assert_memory_equal(sent, got, SIZE);
	close(pipe_fd[0]);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
}

static void test_sizes(void **state)
{
	static const struct {
		const char *text;
		int rc;
		uint64_t bytes;
	} cases[] = {
		{"0", 0, 0},
		{"4096", 0, 4096},
		{"4096B", 0, 4096},
		{"1K", 0, 1024},
		{"1k", 0, 1024},
		{"1KB", 0, 1024},
		{"1KiB", 0, 1024},
		{"50G", 0, 50ull << 30},
		{"1.5MiB", 0, 3 << 19},
		{"0.5g", 0, 1 << 29},
		{"1.0", 0, 1},
		{"2T", 0, 2ull << 40},
		{"1P", 0, 1ull << 50},
		{"15E", 0, 15ull << 60},
		{"18446744073709551615", 0, UINT64_MAX},
		{"18446744073709551616", -ERANGE, 0},
		{"16E", -ERANGE, 0},
		{"99999999999999999999999", -ERANGE, 0},
		{"", -EINVAL, 0},
		{"G", -EINVAL, 0},
		{"-1", -EINVAL, 0},
		{"+1", -EINVAL, 0},
		{" 1", -EINVAL, 0},
		{"1 ", -EINVAL, 0},
		{"1 G", -EINVAL, 0},
		{"1.", -EINVAL, 0},
		{"1.G", -EINVAL, 0},
		{".5G", -EINVAL, 0},
		{"1.5", -EINVAL, 0},
		{"1X", -EINVAL, 0},
		{"1GG", -EINVAL, 0},
		{"1GiBB", -EINVAL, 0},
		{"0x10", -EINVAL, 0},
		{"1e3", -EINVAL, 0},
	};

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		uint64_t got = 77;

		print_message("%s\n", cases[i].text);
		assert_int_equal(util_parse_size(cases[i].text, &got), cases[i].rc);
		assert_true(got == (cases[i].rc == 0 ? cases[i].bytes : 77));
	}
}

static void test_random(void **state)
{
	uint8_t a[64] = {0}, b[64] = {0};

	util_random(a, sizeof(a));
	util_random(b, sizeof(b));
	assert_memory_not_equal(a, b, sizeof(a));
}

static void test_hex(void **state)
{
	static const uint8_t bytes[] = {0x00, 0x7f, 0xa5, 0xff};
	uint8_t back[4] = {1, 1, 1, 1};
	char text[9];

	util_hex(bytes, 4, text);
	assert_string_equal(text, "007fa5ff");
	assert_int_equal(util_unhex("007FA5ff", back, 4), 0);
	assert_memory_equal(back, bytes, 4);
	memset(back, 1, sizeof(back));
	assert_int_equal(util_unhex("007fa5f", back, 4), -EINVAL);
	assert_int_equal(util_unhex("007fa5ff0", back, 4), -EINVAL);
	assert_int_equal(util_unhex("007fa5fg", back, 4), -EINVAL);
	assert_int_equal(util_unhex("", back, 4), -EINVAL);
	assert_int_equal(back[0], 1); /* untouched on failure */
	assert_int_equal(util_unhex("", back, 0), 0);
}

static void test_buf(void **state)
{
	AUTO_BUF b = {.max = 1000};
	AUTO_BUF empty = {0};

	assert_int_equal(buf_add(&empty, NULL, 0), 0);
	assert_string_equal(empty.data, "");
	for (int i = 0; i < 100; i++)
		assert_int_equal(buf_addf(&b, "%09d.", i), 0);
	assert_int_equal(b.len, 1000);
	assert_int_equal(b.data[1000], '\0');
	assert_memory_equal(b.data + 990, "000000099.", 10);
	assert_int_equal(buf_add(&b, "x", 1), -EFBIG);
	assert_int_equal(buf_addf(&b, "%s", "x"), -EFBIG);
	assert_int_equal(buf_add(&b, NULL, SIZE_MAX), -EFBIG);
	assert_int_equal(buf_add(&b, "", 0), 0);
	assert_int_equal(b.len, 1000);
	assert_int_equal(buf_add(&empty, NULL, ((size_t)64 << 20) + 1), -EFBIG); /* its default cap */
	buf_fini(&b);
	assert_null(b.data);
	assert_int_equal(b.len, 0);
	assert_int_equal(buf_add(&b, "again", 5), 0);
	assert_string_equal(b.data, "again");
}

static void test_printf(void **state)
{
	AUTO_FREE char *text = util_printf("%s-%d", "a", 7);

	assert_string_equal(text, "a-7");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_cleanup),
		cmocka_unit_test(test_stolen_descriptor_leaves_stdin),
		cmocka_unit_test(test_must),
		cmocka_unit_test(test_time),
		cmocka_unit_test(test_home),
		cmocka_unit_test(test_mkdirs),
		cmocka_unit_test(test_files),
		cmocka_unit_test(test_short_writes),
		cmocka_unit_test(test_sizes),
		cmocka_unit_test(test_random),
		cmocka_unit_test(test_hex),
		cmocka_unit_test(test_buf),
		cmocka_unit_test(test_printf),
	};

	return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
