/* ignore: the names of design.md 3.4, and patterns put in and taken off. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <string.h>

#include "ignore.h"

static struct ignore *make(const char *const *changes, size_t n)
{
	struct ignore *ig = NULL;
	char *why = NULL;

	assert_int_equal(ignore_new(changes, n, &ig, &why), 0);
	assert_null(why);
	return ig;
}

static void test_builtin(void **state)
{
	static const char *const files[] = {
		".tmp", ".tmpabc", "model.bin~", ".#model", "#model#", ".model.swp", ".x.swo", "4913",
		".goutputstream-AB12CD", ".~lock.odt#", "x.tmp", ".tmp", "x.part", "x.crdownload",
		"blob.incomplete", ".nfs0000001", ".fuse_hidden0001", ".DS_Store", "._photo.jpg", "Thumbs.db",
		"desktop.ini", "~", "a b~",
	};
	static const char *const folders[] = {
		".Trash-1000", ".ipynb_checkpoints", "__pycache__", ".git", ".cache", ".tmpdir", "old~",
	};
	static const char *const published[] = {
		"model.safetensors", "tmp", "x.tmp.bin", "4913x", "x4913", ".gitattributes", ".gitignore",
		".swp", "x.swp", ".x.swap", "#x", "x#", "thumbs.db", "nfs", "x.parts", "part", "DS_Store",
		"README.md", ".x", "~x", "_x", ".Trash", "-rf", "caf\xc3\xa9", "\xff\xfe",
	};
	struct ignore *ig = make(NULL, 0);

	for (size_t i = 0; i < ARRAY_LEN(files); i++) {
		AUTO_FREE char *deep = util_printf("a/b/%s", files[i]);
		AUTO_FREE char *above = util_printf("%s/a/b", files[i]);

		print_message("%s\n", files[i]);
		assert_true(ignore_match(ig, files[i], false));
		assert_true(ignore_match(ig, files[i], true));
		assert_true(ignore_match(ig, deep, false));
		assert_true(ignore_match(ig, above, false));
	}
	for (size_t i = 0; i < ARRAY_LEN(folders); i++) {
		AUTO_FREE char *deep = util_printf("a/%s", folders[i]);
		AUTO_FREE char *below = util_printf("a/%s/b/c", folders[i]);

		print_message("%s\n", folders[i]);
		assert_true(ignore_match(ig, folders[i], true));
		assert_true(ignore_match(ig, deep, true));
		assert_true(ignore_match(ig, below, false));
	}
	for (size_t i = 0; i < 5; i++) /* a file of a folder's name is ordinary */
		assert_false(ignore_match(ig, folders[i], false));
	for (size_t i = 0; i < ARRAY_LEN(published); i++) {
		AUTO_FREE char *deep = util_printf("a/b/%s", published[i]);

		print_message("%s\n", published[i]);
		assert_false(ignore_match(ig, published[i], false));
		assert_false(ignore_match(ig, published[i], true));
		assert_false(ignore_match(ig, deep, false));
	}
	assert_false(ignore_match(ig, "", true));
	assert_int_equal(ignore_match_name(ig, ".git", true), true);
	assert_int_equal(ignore_match_name(ig, ".git", false), false);
	ignore_free(ig);
	ignore_free(NULL);
}

static void test_changes(void **state)
{
	static const char *const changes[] = {
		"*.log", "runs/", "!*.tmp", "!.git/", "[ab]?", "*.log", "!x*", "x*",
	};
	struct ignore *ig = make(changes, 6);
	struct ignore *other = NULL;
	char *why = NULL;

	assert_true(ignore_match(ig, "train.log", false));
	assert_true(ignore_match(ig, "a/train.log/x", false));
	assert_true(ignore_match(ig, "runs/1/events", false));
	assert_true(ignore_match(ig, "a/runs", true));
	assert_false(ignore_match(ig, "a/runs", false));
	assert_false(ignore_match(ig, "x.tmp", false));
	assert_true(ignore_match(ig, ".tmp1", false));
	assert_false(ignore_match(ig, ".git/config", false));
	assert_true(ignore_match(ig, "a1", false));
	assert_false(ignore_match(ig, "c1", false));
	ignore_free(ig);

	/* Taken off before it is there. */
	assert_int_equal(ignore_new(changes + 6, 2, &other, &why), -EINVAL);
	assert_null(other);
	assert_non_null(strstr(why, "ignore=!x*"));
	free(why);
}

static void test_bad_changes(void **state)
{
	static const char *const bad[] = {"", "!", "/", "a/b", "/a", "a//", "!a/b", "!.tmp", "!*.tmp/"};
	AUTO_FREE char *longest = malloc(300), *why = NULL;
	const char *one = longest;
	struct ignore *ig = NULL;

	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		print_message("%s\n", bad[i]);
		assert_int_equal(ignore_new(&bad[i], 1, &ig, &why), -EINVAL);
		assert_null(ig);
		assert_non_null(why);
		free(STEAL(why));
	}
	memset(longest, 'x', 299);
	longest[299] = '\0';
	assert_int_equal(ignore_new(&one, 1, &ig, &why), -EINVAL);
	free(STEAL(why));
	longest[255] = '/';
	longest[256] = '\0';
	assert_int_equal(ignore_new(&one, 1, &ig, &why), 0);
	longest[255] = '\0';
	assert_true(ignore_match(ig, longest, true));
	assert_false(ignore_match(ig, longest, false));
	ignore_free(ig);
}

static void test_caps(void **state)
{
	const char **changes = calloc(2000, sizeof(*changes));
	struct ignore *ig = NULL;
	char *why = NULL;

	for (int i = 0; i < 2000; i++) {
		changes[i] = util_printf("pattern-%d", i);
		assert_non_null(changes[i]);
	}
	assert_int_equal(ignore_new(changes, 2000, &ig, &why), -EINVAL);
	assert_non_null(strstr(why, "too many"));
	free(why);
	for (int i = 0; i < 2000; i++)
		free((char *)changes[i]);
	free(changes);
}

static void test_long_names(void **state)
{
	struct ignore *ig = make(NULL, 0);
	AUTO_FREE char *path = malloc(5001);

	memset(path, 'x', 5000);
	path[5000] = '\0';
	memcpy(path + 4996, ".tmp", 4);
	assert_false(ignore_match(ig, path, false)); /* no such name can be made */
	path[4990] = '/';
	assert_true(ignore_match(ig, path, false));
	ignore_free(ig);
}

static void test_iteration(void **state)
{
	struct ignore *ig = make(NULL, 0);
	bool seen = false;
	size_t n = 0;

	for (const char *pattern; (pattern = ignore_pattern(ig, n)); n++)
		seen = seen || strcmp(pattern, "__pycache__/") == 0;
	assert_true(seen);
	assert_int_equal(n, 23); /* as many as design.md lists */
	ignore_free(ig);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_builtin), cmocka_unit_test(test_changes),
		cmocka_unit_test(test_bad_changes), cmocka_unit_test(test_caps),
		cmocka_unit_test(test_long_names), cmocka_unit_test(test_iteration),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
