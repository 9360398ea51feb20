/* log: levels, one clean line per event, no tokens. What goes to stderr is caught in a file. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <string.h>
#include <unistd.h>

#define LOG_MODULE "unit"
#include "log.h"

static int caught = -1, real_stderr = -1;

static int catch_stderr(void **state)
{
	const char *tmp = getenv("TMPDIR");
	char path[4096];

	snprintf(path, sizeof(path), "%s/hugfs-log-XXXXXX", tmp ? tmp : "/tmp");
	caught = mkostemp(path, O_APPEND | O_CLOEXEC);
	if (caught < 0)
		return -1;
	unlink(path);
	real_stderr = dup(STDERR_FILENO);
	return dup2(caught, STDERR_FILENO) < 0 ? -1 : 0;
}

static int release_stderr(void **state)
{
	dup2(real_stderr, STDERR_FILENO);
	close(real_stderr);
	close(caught);
	return log_set_levels("info");
}

/* What was written since the last call. Caller frees. */
static char *take(void)
{
	off_t size = lseek(caught, 0, SEEK_END);
	char *text = calloc(1, (size_t)size + 1);

	assert_non_null(text);
	assert_int_equal(util_pread_all(caught, text, (size_t)size, 0), size);
	assert_int_equal(ftruncate(caught, 0), 0);
	lseek(caught, 0, SEEK_SET);
	return text;
}

static void test_line(void **state)
{
	AUTO_FREE char *text = NULL;

	assert_int_equal(log_set_levels("info"), 0);
	errno = EXDEV;
	log_warn("%d files are %s", 3, "late");
	assert_int_equal(errno, EXDEV);
	text = take();
	/* hugfs: 12:34:56.789 warn unit: 3 files are late */
	assert_int_equal(strlen(text), strlen("hugfs: 12:34:56.789 warn unit: 3 files are late\n"));
	assert_memory_equal(text, "hugfs: ", 7);
	assert_string_equal(text + 19, " warn unit: 3 files are late\n");
}

static void test_levels(void **state)
{
	AUTO_FREE char *text = NULL;

	assert_int_equal(log_set_levels("warn"), 0);
	assert_true(log_enabled(LOG_LEVEL_ERR, "http"));
	assert_true(log_enabled(LOG_LEVEL_WARN, "http"));
	assert_false(log_enabled(LOG_LEVEL_INFO, "http"));
	assert_int_equal(log_set_levels("err,http=debug,fetch=info"), 0);
	assert_true(log_enabled(LOG_LEVEL_DEBUG, "http"));
	assert_true(log_enabled(LOG_LEVEL_INFO, "fetch"));
	assert_false(log_enabled(LOG_LEVEL_DEBUG, "fetch"));
	assert_false(log_enabled(LOG_LEVEL_WARN, "unit"));
	assert_false(log_enabled(LOG_LEVEL_WARN, "htt"));
	log_warn("not seen");
	log_info("not seen");
	log_debug("not seen");
	log_err("seen");
	text = take();
	assert_non_null(strstr(text, "seen"));
	assert_null(strstr(text, "not seen"));
	assert_int_equal(log_set_levels("http=debug"), 0);
	assert_true(log_enabled(LOG_LEVEL_INFO, "unit"));
	assert_false(log_enabled(LOG_LEVEL_DEBUG, "unit"));
	assert_int_equal(log_set_levels("http=debug,http=err"), 0);
	assert_false(log_enabled(LOG_LEVEL_WARN, "http"));
}

static void test_bad_levels(void **state)
{
	static const char *const bad[] = {
		"", "loud", "INFO", "info,", ",info", "info,,debug", "http=", "=debug", "http=loud",
		"HTTP=debug", "http=debug=info", "a_module_of_a_name_far_too_long=debug", "http =debug",
		"infos", "inf",
	};
	AUTO_BUF many = {0};

	assert_int_equal(log_set_levels("warn,http=debug"), 0);
	for (size_t i = 0; i < ARRAY_LEN(bad); i++)
		assert_int_equal(log_set_levels(bad[i]), -EINVAL);
	for (int i = 0; i < 1000; i++)
		assert_int_equal(buf_addf(&many, "%shttp=info", i ? "," : ""), 0);
	assert_int_equal(log_set_levels(many.data), -EINVAL);
	/* What was in force still is. */
	assert_true(log_enabled(LOG_LEVEL_DEBUG, "http"));
	assert_false(log_enabled(LOG_LEVEL_INFO, "unit"));
}

static void test_one_line(void **state)
{
	AUTO_FREE char *text = NULL;

	assert_int_equal(log_set_levels("info"), 0);
	log_err("the Hub said: a\nb\r\033[2Jc\x7f");
	text = take();
	assert_non_null(strstr(text, "the Hub said: a b??[2Jc?\n"));
	assert_ptr_equal(strchr(text, '\n'), text + strlen(text) - 1);
}

static void test_long_line(void **state)
{
	AUTO_FREE char *text = NULL, *big = malloc(100001);

	memset(big, 'y', 100000);
	big[100000] = '\0';
	log_err("%s", big);
	text = take();
	assert_true(strlen(text) > 4000 && strlen(text) < 4400);
	assert_string_equal(text + strlen(text) - 5, "y...\n");
}

static void test_no_token(void **state)
{
	static const char token[] = "hf_AbCdEfGhIjKlMnOpQrStUvWxYz012345";
	AUTO_FREE char *text = NULL;

	log_err("Bearer %s for hf_hub and %s", token, token);
	text = take();
	assert_null(strstr(text, "AbCdEf"));
	assert_non_null(strstr(text, "for hf_hub and hf_****"));
}

static void *write_many(void *arg)
{
	for (int i = 0; i < 200; i++) {
		log_info("line of one thread");
		if (i % 50 == 0)
			assert_int_equal(log_set_levels(i % 100 ? "info" : "info,http=debug"), 0);
	}
	return NULL;
}

static void test_threads(void **state)
{
	AUTO_FREE char *text = NULL;
	pthread_t threads[4];
	int lines = 0;

	assert_int_equal(log_set_levels("info"), 0);
	for (size_t i = 0; i < ARRAY_LEN(threads); i++)
		assert_int_equal(pthread_create(&threads[i], NULL, write_many, NULL), 0);
	for (size_t i = 0; i < ARRAY_LEN(threads); i++)
		pthread_join(threads[i], NULL);
	text = take();
	for (char *line = text, *end; *line; line = end + 1, lines++) {
		end = strchr(line, '\n');
		assert_non_null(end);
		*end = '\0';
		assert_string_equal(line + 19, " info unit: line of one thread");
	}
	assert_int_equal(lines, 800);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_line), cmocka_unit_test(test_levels), cmocka_unit_test(test_bad_levels),
		cmocka_unit_test(test_one_line), cmocka_unit_test(test_long_line),
		cmocka_unit_test(test_no_token), cmocka_unit_test(test_threads),
	};

	return cmocka_run_group_tests(tests, catch_stderr, release_stderr);
}
