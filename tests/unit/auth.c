/* auth: endpoint, origins that may see the token, and where the token comes from. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "auth.h"
#include "log.h"

static const char *const variables[] = {
	"HF_ENDPOINT", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_TOKEN_PATH", "HF_HOME", "XDG_CACHE_HOME",
	"HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE",
};

static char dir[4096];

static int setup(void **state)
{
	const char *tmp = getenv("TMPDIR");

	for (size_t i = 0; i < ARRAY_LEN(variables); i++)
		unsetenv(variables[i]);
	snprintf(dir, sizeof(dir), "%s/hugfs-auth-XXXXXX", tmp ? tmp : "/tmp");
	if (!mkdtemp(dir))
		return -1;
	setenv("HOME", dir, 1);
	return log_set_levels("err");
}

static int teardown(void **state)
{
	static const char *const left[] = {
		"token", "new", "other", ".cache/huggingface/token", ".cache/huggingface", ".cache",
		"home/token", "home", "",
	};

	for (size_t i = 0; i < ARRAY_LEN(left); i++) {
		AUTO_FREE char *path = util_printf("%s/%s", dir, left[i]);

		if (unlink(path) < 0)
			rmdir(path);
	}
	return access(dir, F_OK) == 0;
}

static void put(const char *name, const char *text)
{
	AUTO_FREE char *path = util_printf("%s/%s", dir, name);
	AUTO_CLOSE int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	assert_true(fd > 0);
	assert_int_equal(util_write_all(fd, text, strlen(text)), 0);
}

static void expect_token(struct auth *a, const char *want)
{
	CLEANUP(auth_token_freep) char *token = auth_token(a);

	if (want) {
		assert_non_null(token);
		assert_string_equal(token, want);
	} else {
		assert_null(token);
	}
}

static void test_endpoint(void **state)
{
	static const char *const bad[] = {
		"", "/", "huggingface.co", "ftp://x", "https://", "https:///x", "https://a b",
		"https://user@host", "https://u:p@host", "https://host:", "https://host:0",
		"https://host:65536", "https://host:80x", "https://host?x=1", "https://host/#x",
		"https://ho%73t", "https://host\\x", "https://[::1", "https://[]", "https://host/\n",
		"https://h\xc3\xb6st", "http//x",
	};
	static const struct {
		const char *given, *kept;
	} good[] = {
		{"https://hub.example", "https://hub.example"},
		{"https://hub.example/", "https://hub.example"},
		{"http://127.0.0.1:8080", "http://127.0.0.1:8080"},
		{"http://[::1]:8080/", "http://[::1]:8080"},
		{"https://mirror.example/hf/", "https://mirror.example/hf"},
		{"HTTPS://Hub.Example:8443", "HTTPS://Hub.Example:8443"},
	};
	struct auth *a = NULL;

	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		print_message("%s\n", bad[i]);
		assert_int_equal(auth_new(bad[i], NULL, &a), -EINVAL);
		assert_null(a);
	}
	for (size_t i = 0; i < ARRAY_LEN(good); i++) {
		assert_int_equal(auth_new(good[i].given, NULL, &a), 0);
		assert_string_equal(auth_endpoint(a), good[i].kept);
		auth_free(a);
	}
	assert_int_equal(auth_new(NULL, NULL, &a), 0);
	assert_string_equal(auth_endpoint(a), "https://huggingface.co");
	auth_free(a);
	setenv("HF_ENDPOINT", "http://localhost:1234/", 1);
	assert_int_equal(auth_new(NULL, NULL, &a), 0);
	assert_string_equal(auth_endpoint(a), "http://localhost:1234");
	auth_free(a);
	unsetenv("HF_ENDPOINT");
	auth_free(NULL);
}

static void test_origin(void **state)
{
	static const char *const same[] = {
		"https://hub.example/api/models", "https://hub.example", "https://hub.example:443/x",
		"HTTPS://HUB.EXAMPLE/x", "https://hub.example?x", "https://hub.example#x",
		"https://hub.example/@evil.example",
	};
	static const char *const other[] = {
		"http://hub.example/x", "https://hub.example:8443/x", "https://hub.example.evil.example/x",
		"https://evil.example/hub.example", "https://xhub.example/",
		"https://hub.example@evil.example/", "https://hub.example:443@evil.example/",
		"https://u@hub.example/", "https://hub.example./", "https://hub.example\\@evil.example/",
		"https://hub.example\\.evil.example/", "//hub.example/x", "/x", "", "https:/hub.example/",
		"https:hub.example/", " https://hub.example/", "https://hub.example /",
		"https://hub.exampl%65/", "https://hub.example\t/", "https://hub.example:/",
		"https://hub.example:44 3/", "https://hub.example:0443x/",
		"https://hub.example\n.evil.example/", "ftp://hub.example/",
		"https://hub.example:4294967739/", "https://[hub.example]/",
	};
	struct auth *a, *v6;

	assert_int_equal(auth_new("https://Hub.Example/", NULL, &a), 0);
	for (size_t i = 0; i < ARRAY_LEN(same); i++) {
		print_message("%s\n", same[i]);
		assert_true(auth_same_origin(a, same[i]));
	}
	for (size_t i = 0; i < ARRAY_LEN(other); i++) {
		print_message("%s\n", other[i]);
		assert_false(auth_same_origin(a, other[i]));
	}
	auth_free(a);

	assert_int_equal(auth_new("http://127.0.0.1:8080", NULL, &a), 0);
	assert_true(auth_same_origin(a, "http://127.0.0.1:8080/x"));
	assert_false(auth_same_origin(a, "http://127.0.0.1:8081/x"));
	assert_false(auth_same_origin(a, "http://localhost:8080/x"));
	assert_false(auth_same_origin(a, "http://127.0.0.1/x"));
	assert_false(auth_same_origin(a, "https://127.0.0.1:8080/x"));
	auth_free(a);

	assert_int_equal(auth_new("http://[::1]:80", NULL, &v6), 0);
	assert_true(auth_same_origin(v6, "http://[::1]/x"));
	assert_false(auth_same_origin(v6, "http://[::2]/x"));
	auth_free(v6);
}

static void test_env_token(void **state)
{
	struct auth *a = NULL;

	setenv("HUGGING_FACE_HUB_TOKEN", "hf_old", 1);
	assert_int_equal(auth_new(NULL, "/nonexistent/token", &a), 0);
	expect_token(a, "hf_old");
	auth_free(a);
	setenv("HF_TOKEN", " \thf_new\r\n", 1);
	assert_int_equal(auth_new(NULL, NULL, &a), 0);
	unsetenv("HF_TOKEN");
	expect_token(a, "hf_new");
	auth_free(STEAL(a));
	setenv("HF_TOKEN", " \n", 1); /* nothing is left of it: the next counts */
	assert_int_equal(auth_new(NULL, NULL, &a), 0);
	expect_token(a, "hf_old");
	auth_free(STEAL(a));
	unsetenv("HUGGING_FACE_HUB_TOKEN");
	setenv("HF_TOKEN", "hf_x\001y", 1);
	assert_int_equal(auth_new(NULL, NULL, &a), -EINVAL);
	setenv("HF_TOKEN", "hf_x y", 1);
	assert_int_equal(auth_new(NULL, NULL, &a), -EINVAL);
	assert_null(a);
	unsetenv("HF_TOKEN");
}

static void test_file_token(void **state)
{
	AUTO_FREE char *path = util_printf("%s/token", dir), *new = util_printf("%s/new", dir);
	AUTO_FREE char *big = malloc(100001);
	struct auth *a;

	assert_int_equal(auth_new(NULL, path, &a), 0);
	expect_token(a, NULL);
	put("token", "hf_first\n");
	expect_token(a, "hf_first");
	expect_token(a, "hf_first");
	put("token", "hf_second\n"); /* another size: seen even within one tick of the clock */
	expect_token(a, "hf_second");
	put("new", "  hf_third \r\n"); /* replaced by rename, as tools do */
	assert_int_equal(rename(new, path), 0);
	expect_token(a, "hf_third");
	put("token", "");
	expect_token(a, NULL);
	put("token", "hf_a\001b");
	expect_token(a, NULL);
	memset(big, 'x', 100000);
	big[100000] = '\0';
	put("token", big);
	expect_token(a, NULL);
	put("token", "hf_again");
	expect_token(a, "hf_again");
	assert_int_equal(unlink(path), 0);
	expect_token(a, NULL);
	assert_int_equal(mkdir(path, 0700), 0);
	expect_token(a, NULL);
	assert_int_equal(rmdir(path), 0);
	assert_int_equal(mkfifo(path, 0600), 0); /* must not block */
	expect_token(a, NULL);
	assert_int_equal(unlink(path), 0);
	auth_free(a);
}

static void test_token_places(void **state)
{
	AUTO_FREE char *cache = util_printf("%s/.cache/huggingface", dir);
	AUTO_FREE char *home = util_printf("%s/home", dir);
	struct auth *a;

	assert_int_equal(util_mkdirs(home), 0);
	assert_int_equal(util_mkdirs(cache), 0);
	put(".cache/huggingface/token", "hf_default");
	put("home/token", "hf_home");
	put("other", "hf_other");
	assert_int_equal(auth_new(NULL, NULL, &a), 0);
	expect_token(a, "hf_default");
	auth_free(a);
	setenv("HF_HOME", "~/home", 1);
	assert_int_equal(auth_new(NULL, NULL, &a), 0);
	expect_token(a, "hf_home");
	auth_free(a);
	setenv("HF_TOKEN_PATH", "${HOME}/other", 1);
	assert_int_equal(auth_new(NULL, NULL, &a), 0);
	expect_token(a, "hf_other");
	auth_free(a);
	assert_int_equal(auth_new(NULL, "$HOME/home/token", &a), 0); /* the option beats the variables */
	expect_token(a, "hf_home");
	auth_free(a);
	unsetenv("HF_HOME");
	unsetenv("HF_TOKEN_PATH");
}

static void expect_cache_dir(const char *want)
{
	AUTO_FREE char *got = auth_hub_cache_dir();

	assert_string_equal(got, want);
}

static void test_cache_dir(void **state)
{
	AUTO_FREE char *fallback = util_printf("%s/.cache/huggingface/hub", dir);

	expect_cache_dir(fallback);
	setenv("XDG_CACHE_HOME", "/xdg", 1);
	expect_cache_dir("/xdg/huggingface/hub");
	setenv("HF_HOME", "/hf", 1);
	expect_cache_dir("/hf/hub");
	setenv("HUGGINGFACE_HUB_CACHE", "/old", 1);
	expect_cache_dir("/old");
	setenv("HF_HUB_CACHE", "$HF_HOME/$NOT_SET/a${HF_HOME}$/${/$x", 1);
	expect_cache_dir("/hf/$NOT_SET/a/hf$/${/$x");
	for (size_t i = 0; i < ARRAY_LEN(variables); i++)
		unsetenv(variables[i]);
}

static void test_offline(void **state)
{
	static const char *const yes[] = {"1", "on", "ON", "Yes", "TRUE", "true"};
	static const char *const no[] = {"0", "off", "no", "false", "2", "x"};

	assert_false(auth_env_offline());
	for (size_t i = 0; i < ARRAY_LEN(yes); i++) {
		setenv("HF_HUB_OFFLINE", yes[i], 1);
		assert_true(auth_env_offline());
	}
	for (size_t i = 0; i < ARRAY_LEN(no); i++) {
		setenv("HF_HUB_OFFLINE", no[i], 1);
		assert_false(auth_env_offline());
	}
	setenv("TRANSFORMERS_OFFLINE", "1", 1);
	assert_false(auth_env_offline()); /* HF_HUB_OFFLINE says no */
	setenv("HF_HUB_OFFLINE", "", 1);
	assert_true(auth_env_offline());
	unsetenv("HF_HUB_OFFLINE");
	unsetenv("TRANSFORMERS_OFFLINE");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_endpoint), cmocka_unit_test(test_origin),
		cmocka_unit_test(test_env_token), cmocka_unit_test(test_file_token),
		cmocka_unit_test(test_token_places), cmocka_unit_test(test_cache_dir),
		cmocka_unit_test(test_offline),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
