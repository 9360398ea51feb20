/* repo: the grammar of hub-api.md 2.3, names, revisions, escaping, and what evil input does. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <limits.h>
#include <string.h>

#include "repo.h"

#define X10 "xxxxxxxxxx"
#define X50 X10 X10 X10 X10 X10
#define X96 X50 X10 X10 X10 X10 "xxxxxx"
#define HEX40 "0123456789abcdef0123456789abcdef01234567"

struct source_case {
	const char *text;
	enum repo_source_kind kind;
	enum repo_type type;
	const char *ns, *name, *rev, *path; /* rev NULL: none */
	bool all;
};

static const struct source_case good[] = {
	{"hf://", REPO_SOURCE_HUB, REPO_MODEL, "", "", NULL, NULL, false},
	{"hf://datasets", REPO_SOURCE_TYPE, REPO_DATASET, "", "", NULL, NULL, false},
	{"hf://datasets/", REPO_SOURCE_TYPE, REPO_DATASET, "", "", NULL, NULL, false},
	{"hf://spaces", REPO_SOURCE_TYPE, REPO_SPACE, "", "", NULL, NULL, false},
	{"hf://models", REPO_SOURCE_TYPE, REPO_MODEL, "", "", NULL, NULL, false},
	{"datasets/", REPO_SOURCE_TYPE, REPO_DATASET, "", "", NULL, NULL, false},
	{"hf://gpt2", REPO_SOURCE_WORD, REPO_MODEL, "gpt2", "", NULL, NULL, false},
	{"hf://models/gpt2", REPO_SOURCE_WORD, REPO_MODEL, "gpt2", "", NULL, NULL, false},
	{"hf://user/", REPO_SOURCE_NAMESPACE, REPO_MODEL, "user", "", NULL, NULL, false},
	{"hf://user///", REPO_SOURCE_NAMESPACE, REPO_MODEL, "user", "", NULL, NULL, false},
	{"user/", REPO_SOURCE_NAMESPACE, REPO_MODEL, "user", "", NULL, NULL, false},
	{"hf://datasets/squad", REPO_SOURCE_NAMESPACE, REPO_DATASET, "squad", "", NULL, NULL, false},
	{"hf://spaces/user/", REPO_SOURCE_NAMESPACE, REPO_SPACE, "user", "", NULL, NULL, false},
	{"datasets/user", REPO_SOURCE_NAMESPACE, REPO_DATASET, "user", "", NULL, NULL, false},

	{"hf://user/repo", REPO_SOURCE_REPO, REPO_MODEL, "user", "repo", NULL, "", true},
	{"user/repo", REPO_SOURCE_REPO, REPO_MODEL, "user", "repo", NULL, "", true},
	{"hf://user/repo/", REPO_SOURCE_REPO, REPO_MODEL, "user", "repo", NULL, "", true},
	{"hf://user/repo@", REPO_SOURCE_REPO, REPO_MODEL, "user", "repo", NULL, "", true},
	{"hf://user/repo@/", REPO_SOURCE_REPO, REPO_MODEL, "user", "repo", NULL, "", true},
	{"hf://models/user/repo", REPO_SOURCE_REPO, REPO_MODEL, "user", "repo", NULL, "", true},
	{"hf://datasets/user/repo", REPO_SOURCE_REPO, REPO_DATASET, "user", "repo", NULL, "", true},
	{"spaces/user/repo", REPO_SOURCE_REPO, REPO_SPACE, "user", "repo", NULL, "", true},
	{"hf://user/datasets", REPO_SOURCE_REPO, REPO_MODEL, "user", "datasets", NULL, "", true},
	{"hf://User-1/Re.po_x", REPO_SOURCE_REPO, REPO_MODEL, "User-1", "Re.po_x", NULL, "", true},
	{"hf://_u/_r", REPO_SOURCE_REPO, REPO_MODEL, "_u", "_r", NULL, "", true},
	{"hf://" X96 "/" X96, REPO_SOURCE_REPO, REPO_MODEL, X96, X96, NULL, "", true},

	{"hf://user/repo@main", REPO_SOURCE_REPO, REPO_MODEL, "user", "repo", "main", "", false},
	{"hf://user/repo@main/", REPO_SOURCE_REPO, REPO_MODEL, "user", "repo", "main", "", false},
	{"hf://user/repo@main/sub/dir", REPO_SOURCE_REPO, REPO_MODEL,
	 "user", "repo", "main", "sub/dir", false},
	{"hf://user/repo@main/sub/dir//", REPO_SOURCE_REPO, REPO_MODEL,
	 "user", "repo", "main", "sub/dir", false},
	{"user/repo@v1.0", REPO_SOURCE_REPO, REPO_MODEL, "user", "repo", "v1.0", "", false},
	{"hf://datasets/user/repo@" HEX40, REPO_SOURCE_REPO, REPO_DATASET, "user", "repo", HEX40, "", false},
	{"hf://user/repo@feature%2Fx/a", REPO_SOURCE_REPO, REPO_MODEL,
	 "user", "repo", "feature/x", "a", false},
	{"hf://user/repo@feature%2fx", REPO_SOURCE_REPO, REPO_MODEL, "user", "repo", "feature/x", "", false},
	{"hf://user/repo@50%25", REPO_SOURCE_REPO, REPO_MODEL, "user", "repo", "50%", "", false},
	/* special refs with plain slashes, taken greedily */
	{"hf://user/repo@refs/pr/10", REPO_SOURCE_REPO, REPO_MODEL, "user", "repo", "refs/pr/10", "", false},
	{"hf://user/repo@refs/pr/10/", REPO_SOURCE_REPO, REPO_MODEL, "user", "repo", "refs/pr/10", "", false},
	{"hf://user/repo@refs/pr/10/a/b", REPO_SOURCE_REPO, REPO_MODEL,
	 "user", "repo", "refs/pr/10", "a/b", false},
	{"hf://user/repo@refs%2Fpr%2F2/a", REPO_SOURCE_REPO, REPO_MODEL,
	 "user", "repo", "refs/pr/2", "a", false},
	{"hf://datasets/user/repo@refs/convert/parquet/x", REPO_SOURCE_REPO, REPO_DATASET, "user", "repo",
	 "refs/convert/parquet", "x", false},
	{"hf://user/repo@refs/convert/a.b-c_d", REPO_SOURCE_REPO, REPO_MODEL,
	 "user", "repo", "refs/convert/a.b-c_d", "",
	 false},
	{"hf://user/repo@refs/convert/\xc3\xa9t\xc3\xa9/x", REPO_SOURCE_REPO, REPO_MODEL, "user", "repo",
	 "refs/convert/\xc3\xa9t\xc3\xa9", "x", false},
	/* a branch called refs: only in an escaped spelling */
	{"hf://user/repo@refs", REPO_SOURCE_REPO, REPO_MODEL, "user", "repo", "refs", "", false},
	{"hf://user/repo@%72efs/pr/10", REPO_SOURCE_REPO, REPO_MODEL, "user", "repo", "refs", "pr/10", false},
	/* an @ that is not right behind the repository belongs to the path; so do all other characters */
	{"hf://user/repo@main/file@1.txt", REPO_SOURCE_REPO, REPO_MODEL,
	 "user", "repo", "main", "file@1.txt", false},
	{"hf://user/repo@main/a b#c?%25.txt", REPO_SOURCE_REPO, REPO_MODEL,
	 "user", "repo", "main", "a b#c?%25.txt",
	 false},
	{"hf://user/repo@a@b", REPO_SOURCE_REPO, REPO_MODEL, "user", "repo", "a@b", "", false},
	/* a path without a revision: the default branch, as the official client reads it */
	{"hf://user/repo/sub", REPO_SOURCE_REPO, REPO_MODEL, "user", "repo", NULL, "sub", false},
	{"hf://user/repo/sub@1/x/", REPO_SOURCE_REPO, REPO_MODEL, "user", "repo", NULL, "sub@1/x", false},
};

static void test_good_sources(void **state)
{
	for (size_t i = 0; i < ARRAY_LEN(good); i++) {
		const struct source_case *c = &good[i];
		CLEANUP(repo_source_fini) struct repo_source s = {0};
		const char *why = NULL;

		print_message("%s\n", c->text);
		assert_int_equal(repo_parse_source(c->text, &s, &why), 0);
		assert_null(why);
		assert_int_equal(s.kind, c->kind);
		assert_int_equal(s.id.type, c->type);
		assert_string_equal(s.id.ns, c->ns);
		assert_string_equal(s.id.name, c->name);
		assert_int_equal(s.all_revisions, c->all);
		if (c->rev)
			assert_string_equal(s.rev, c->rev);
		else
			assert_null(s.rev);
		if (c->path)
			assert_string_equal(s.path, c->path);
		else
			assert_null(s.path);
	}
}

static void test_bad_sources(void **state)
{
	static const struct {
		const char *text, *part_of_why;
	} bad[] = {
		{"", "hf://"},
		{"gpt2", "holds a slash"},
		{"status", "holds a slash"},
		{"statsu", "holds a slash"},
		{"datasets", "holds a slash"},
		{"gpt2@main", "holds a slash"},
		{"/home/user/repo", "local path"},
		{"./user/repo", "local path"},
		{"../user/repo", "local path"},
		{"~/user/repo", "local path"},
		{"https://huggingface.co/user/repo", "web address"},
		{"s3://user/repo", "web address"},
		{"hf:user/repo", "two slashes"},
		{"hf:/user/repo", "two slashes"},
		{"HF://user/repo", "two slashes"},
		{"hf:///user/repo", "1 to 96"},
		{"hf:////", "1 to 96"},
		{"hf://user//repo", "1 to 96"},
		{"hf://datasets//repo", "1 to 96"},
		{"hf://dataset/user/repo", "plural"},
		{"hf://model/user/repo", "plural"},
		{"hf://space", "plural"},
		{"hf://buckets/user/x", "only"},
		{"hf://kernels/user/x", "only"},
		{"hf://kernel/user/x", "only"},
		{"hf://gpt2@main", "right after"},
		{"gpt2@refs/pr/1", "right after"},
		{"hf://@main", "right after"},
		{"hf://user/@main", "1 to 96"},
		{"hf://datasets/squad@main", "right after"},
		{"hf://user/repo@/main", "missing after @"},
		{"hf://user/repo@refs/heads/main", "refs/pr/NUMBER"},
		{"hf://user/repo@refs/pr/", "refs/pr/NUMBER"},
		{"hf://user/repo@refs/pr/10abc", "refs/pr/NUMBER"},
		{"hf://user/repo@refs/pr/x", "refs/pr/NUMBER"},
		{"hf://user/repo@refs/convert/", "refs/pr/NUMBER"},
		{"hf://user/repo@refs/convert/a b", "refs/pr/NUMBER"},
		{"hf://user/repo@a%2", "no revision"},
		{"hf://user/repo@a%zz", "no revision"},
		{"hf://user/repo@a%00b", "no revision"},
		{"hf://user/repo@a%2F%2Fb", "no revision"},
		{"hf://user/repo@..", "no revision"},
		{"hf://user/repo@%2E%2E%2Fx", "no revision"},
		{"hf://user/repo@a b", "no revision"},
		{"hf://user/repo@a\nb", "no revision"},
		{"hf://user/repo@main/../x", "empty part"},
		{"hf://user/repo@main/./x", "empty part"},
		{"hf://user/repo@main//x", "empty part"},
		{"hf://user/repo/..", "empty part"},
		{"hf://../..", "1 to 96"},
		{"hf://user/..", "1 to 96"},
		{"hf://user/.git", "1 to 96"},
		{"hf://user/re po", "1 to 96"},
		{"hf://user/repo:/mnt:ro", "1 to 96"},
		{"hf://caf\xc3\xa9/repo", "1 to 96"},
		{"hf://" X96 "x/repo", "1 to 96"},
		{"hf://user/" X96 "x", "1 to 96"},
		{"hf://user/" X96 X96 X96, "1 to 96"},
	};

	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		struct repo_source s = {.path = (char *)bad};
		const char *why = NULL;

		print_message("%s\n", bad[i].text);
		assert_int_equal(repo_parse_source(bad[i].text, &s, &why), -EINVAL);
		assert_non_null(why);
		assert_non_null(strstr(why, bad[i].part_of_why));
		assert_ptr_equal(s.path, bad); /* untouched on failure */
	}
}

static void test_long_source(void **state)
{
	AUTO_FREE char *text = malloc(100001);
	struct repo_source s;
	const char *why = NULL;

	memset(text, 'a', 100000);
	text[100000] = '\0';
	memcpy(text, "hf://user/repo@main/", 20);
	assert_int_equal(repo_parse_source(text, &s, &why), -EINVAL);
	assert_non_null(strstr(why, "too long"));
	text[5000] = '\0';
	assert_int_equal(repo_parse_source(text, &s, &why), -EINVAL);
	text[20 + NAME_MAX] = '\0';
	assert_int_equal(repo_parse_source(text, &s, &why), 0);
	repo_source_fini(&s);
	repo_source_fini(&s);
}

static void test_names(void **state)
{
	static const char *const yes[] = {
		"a", "A", "0", "user", "my.repo", "a_b", "a-b", "_", "_a_", "a.git.b", X96,
	};
	static const char *const no[] = {
		"", ".", "..", "-", "-a", "a-", ".a", "a.", "a--b", "a..b", "a.git", ".git", "a/b", "a b",
		"a@b", "a:b", "a%b", "a\n", "a\\b", ".Trash", "a#b", "a?b", "a*", "~", "caf\xc3\xa9", "\xff",
		"a\x01", X96 "x",
	};

	for (size_t i = 0; i < ARRAY_LEN(yes); i++)
		assert_true(repo_name_valid(yes[i]));
	for (size_t i = 0; i < ARRAY_LEN(no); i++) {
		print_message("%s\n", no[i]);
		assert_false(repo_name_valid(no[i]));
	}
}

static void test_ids(void **state)
{
	struct repo_id a = {REPO_DATASET, "user", "repo"}, b = a, longest = {REPO_DATASET, X96, X96};
	char text[REPO_TEXT_MAX];

	repo_text(&a, text);
	assert_string_equal(text, "datasets/user/repo");
	repo_text(&longest, text);
	assert_string_equal(text, "datasets/" X96 "/" X96);
	assert_true(repo_equal(&a, &b));
	b.type = REPO_SPACE;
	assert_false(repo_equal(&a, &b));
	repo_text(&b, text);
	assert_string_equal(text, "spaces/user/repo");
	b = a;
	b.name[0] = 'R';
	assert_false(repo_equal(&a, &b));
	assert_string_equal(repo_type_api(REPO_MODEL), "models");
	assert_string_equal(repo_type_prefix(REPO_MODEL), "");
	assert_string_equal(repo_type_name(REPO_SPACE), "space");
}

static void test_entries(void **state)
{
	static const struct {
		const char *entry, *name, *rev; /* name NULL: refused */
	} cases[] = {
		{"repo", "repo", NULL},
		{"repo@", "repo", ""},
		{"repo@main", "repo", "main"},
		{"repo@v1.0", "repo", "v1.0"},
		{"repo@refs%2Fpr%2F3", "repo", "refs/pr/3"},
		{"repo@feature%2Fx", "repo", "feature/x"},
		{"repo@a@b", "repo", "a@b"},
		{"repo@" HEX40, "repo", HEX40},
		{"", NULL, NULL},
		{"@", NULL, NULL},
		{"@main", NULL, NULL},
		{".git", NULL, NULL},
		{".Trash-1000", NULL, NULL},
		{"a--b", NULL, NULL},
		{"repo/x", NULL, NULL},
		{"repo@feature/x", NULL, NULL},
		{"repo@..", NULL, NULL},
		{"repo@%", NULL, NULL},
		{"repo@%2", NULL, NULL},
		{"repo@%00", NULL, NULL},
		{"repo@%2F", NULL, NULL},
		{"repo@a b", NULL, NULL},
		{X96 "x", NULL, NULL},
		{X96 "x@main", NULL, NULL},
	};

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		char name[REPO_NAME_MAX + 1] = "untouched";
		AUTO_FREE char *rev = NULL;
		int rc = repo_parse_entry(cases[i].entry, name, &rev);

		print_message("%s\n", cases[i].entry);
		if (!cases[i].name) {
			assert_int_equal(rc, -EINVAL);
			assert_string_equal(name, "untouched");
			continue;
		}
		assert_int_equal(rc, 0);
		assert_string_equal(name, cases[i].name);
		if (cases[i].rev)
			assert_string_equal(rev, cases[i].rev);
		else
			assert_null(rev);
	}
}

static void test_revisions(void **state)
{
	static const char *const yes[] = {
		"main", "v1.0", "a/b/c", "refs/pr/3", "refs/convert/parquet", HEX40, "a@b", "50%",
		"caf\xc3\xa9", "x-", "@a", "a.b", "a.lockx", "a{b", X96 X96,
	};
	static const char *const no[] = {
		"", "/", "/a", "a/", "a//b", ".", "..", ".a", "a/.b", "a..b", "a.", "a.lock", "a.lock/b",
		"-a", "a b", "a\tb", "a\x7f", "a~b", "a^b", "a:b", "a?b", "a*b", "a[b", "a\\b", "@", "a@{b",
		X96 X96 X96, "../../etc", "a/../b",
	};

	for (size_t i = 0; i < ARRAY_LEN(yes); i++) {
		print_message("%s\n", yes[i]);
		assert_true(repo_rev_valid(yes[i]));
	}
	for (size_t i = 0; i < ARRAY_LEN(no); i++) {
		print_message("%s\n", no[i]);
		assert_false(repo_rev_valid(no[i]));
	}

	assert_true(repo_is_commit(HEX40));
	assert_false(repo_is_commit(HEX40 "0"));
	assert_false(repo_is_commit("0123456789ABCDEF0123456789abcdef01234567"));
	assert_false(repo_is_commit("012345"));
	assert_false(repo_is_commit(""));

	assert_int_equal(repo_rev_kind(HEX40), REPO_REV_COMMIT);
	assert_int_equal(repo_rev_kind("main"), REPO_REV_NAME);
	assert_int_equal(repo_rev_kind("refs/pr/3"), REPO_REV_PR);
	assert_int_equal(repo_rev_kind("refs/pr/3x"), REPO_REV_NAME);
	assert_int_equal(repo_rev_kind("refs/pr/"), REPO_REV_NAME);
	assert_int_equal(repo_rev_kind("refs/pr/3/x"), REPO_REV_NAME);
	assert_int_equal(repo_rev_kind("refs/convert/parquet"), REPO_REV_CONVERT);
	assert_int_equal(repo_rev_kind("refs/convert/a/b"), REPO_REV_NAME);
	assert_int_equal(repo_rev_kind("xrefs/pr/3"), REPO_REV_NAME);
}

static void test_escaping(void **state)
{
	static const char evil[] = "d \"1\"/a b#c?%25+&=.txt\xc3\xa9~";
	AUTO_FREE char *path = repo_escape_path(evil), *back = repo_unescape(path);
	AUTO_FREE char *rev = repo_escape_rev("refs/pr/2");
	AUTO_FREE char *empty = repo_escape_path(""), *plain = repo_escape_rev("AZaz09-._~");
	AUTO_FREE char *lower = repo_unescape("%2f%c3%a9");
	char all[256], *escaped, *unescaped;

	assert_string_equal(path, "d%20%221%22/a%20b%23c%3F%2525%2B%26%3D.txt%C3%A9~");
	assert_string_equal(rev, "refs%2Fpr%2F2");
	assert_string_equal(back, evil);
	assert_string_equal(empty, "");
	assert_string_equal(plain, "AZaz09-._~");
	assert_string_equal(lower, "/\xc3\xa9");
	assert_null(repo_unescape("%"));
	assert_null(repo_unescape("a%2"));
	assert_null(repo_unescape("a%zz"));
	assert_null(repo_unescape("a%00"));
	assert_null(repo_unescape("%%41"));

	for (int i = 1; i < 256; i++)
		all[i - 1] = (char)i;
	all[255] = '\0';
	escaped = repo_escape_rev(all);
	unescaped = repo_unescape(escaped);
	assert_string_equal(unescaped, all);
	assert_null(strpbrk(escaped, "/ ?#&\"\n"));
	free(escaped);
	free(unescaped);
}

static void test_paths(void **state)
{
	static const char *const yes[] = {
		"a", "a/b", "a b#c?%25.txt", "...", ".a", "..a", "a..", "a/.../b", "\\", "..\\ddd", "-rf",
		"\xff\xfe", " ", ".git", "a\nb",
	};
	static const char *const no[] = {
		"", "/", "/a", "a/", "a//b", ".", "..", "./a", "a/.", "../a", "a/..", "a/../b", "a/./b", "//",
	};
	char longest[PATH_MAX + 1];

	for (size_t i = 0; i < ARRAY_LEN(yes); i++)
		assert_true(repo_path_valid(yes[i]));
	for (size_t i = 0; i < ARRAY_LEN(no); i++) {
		print_message("%s\n", no[i]);
		assert_false(repo_path_valid(no[i]));
	}
	memset(longest, 'a', sizeof(longest));
	longest[NAME_MAX + 1] = '\0';
	assert_false(repo_path_valid(longest));
	longest[NAME_MAX] = '\0';
	assert_true(repo_path_valid(longest));
	for (size_t i = 0; i < PATH_MAX; i++)
		longest[i] = i % 2 ? '/' : 'a';
	longest[PATH_MAX - 1] = 'a';
	longest[PATH_MAX] = '\0';
	assert_false(repo_path_valid(longest));
	longest[PATH_MAX - 1] = '\0';
	assert_true(repo_path_valid(longest));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_good_sources), cmocka_unit_test(test_bad_sources),
		cmocka_unit_test(test_long_source),  cmocka_unit_test(test_names),
		cmocka_unit_test(test_ids),          cmocka_unit_test(test_entries),
		cmocka_unit_test(test_revisions),    cmocka_unit_test(test_escaping),
		cmocka_unit_test(test_paths),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
