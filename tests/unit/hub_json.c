/* hub_json: good, wrong-shaped, huge and deep texts; and what is written, read back. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <string.h>

#include "hub_json.h"

#define SHA1 "0123456789abcdef0123456789abcdef01234567"
#define SHA256 "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"

static void test_whoami(void **state)
{
	const char *good = "{\"type\":\"user\",\"name\":\"ann\",\"extra\":[{}],\"orgs\":[{\"name\":\"lab\"},{\"name\":\"..\"}]}";
	static const char *const bad[] = {
		"", "null", "[]", "{}", "{\"name\":1}", "{\"name\":\"a/b\"}", "{\"name\":\"a\",\"orgs\":{}}",
		"{\"name\":\"a\",\"orgs\":[1]}", "{\"name\":\"a\"", "{\"name\":\"a\"} x",
			"{\"name\":\"a\\u0000b\"}",
		"<html>",
	};
	struct hub_whoami w = {.name = (char *)1};

	for (size_t i = 0; i < ARRAY_LEN(bad); i++)
		assert_int_equal(hub_json_whoami(bad[i], strlen(bad[i]), &w), -EBADMSG);
	assert_int_equal(hub_json_whoami(NULL, 0, &w), -EBADMSG);
	assert_ptr_equal(w.name, (char *)1);
	assert_int_equal(hub_json_whoami("{\"name\":\"a\"}\0", 13, &w), -EBADMSG);
	assert_int_equal(hub_json_whoami(good, strlen(good), &w), 0);
	assert_string_equal(w.name, "ann");
	assert_string_equal(w.orgs[0], "lab");
	assert_null(w.orgs[1]);
	hub_whoami_fini(&w);
}

static int repo(const char *text, struct hub_repo *ret)
{
	return hub_json_repo(text, strlen(text), REPO_DATASET, ret);
}

static void test_repo(void **state)
{
	struct hub_repo r;

	assert_int_equal(repo("{\"id\":\"ns/Name\",\"_id\":\"65f0\",\"sha\":\"" SHA1 "\",\"private\":true,\"gated\":\"auto\","
	                      "\"lastModified\":\"2026-01-02T03:04:05.678Z\",\"disabled\":false}", &r), 0);
	assert_string_equal(r.id.ns, "ns");
	assert_string_equal(r.id.name, "Name");
	assert_int_equal(r.id.type, REPO_DATASET);
	assert_string_equal(r.internal_id, "65f0");
	assert_string_equal(r.sha, SHA1);
	assert_int_equal(r.modified_s, 1767323045);
	assert_true(r.is_private);
	assert_true(r.gated);
	assert_false(r.disabled);
	assert_int_equal(repo("{\"id\":\"gpt2\",\"gated\":false,\"lastModified\":\"2026-01-02T05:04:05+02:00\"}", &r), 0);
	assert_string_equal(r.id.ns, "");
	assert_string_equal(r.sha, "");
	assert_int_equal(r.modified_s, 1767323045);
	assert_false(r.gated);
	static const char *const bad[] = {
		"{}", "{\"id\":\"a/b/c\"}", "{\"id\":\"../b\"}", "{\"id\":\"/b\"}", "{\"id\":7}",
		"{\"id\":\"a/b\",\"sha\":\"main\"}", "{\"id\":\"a/b\",\"sha\":5}",
			"{\"id\":\"a/b\",\"private\":\"no\"}",
		"{\"id\":\"a/b\",\"_id\":\"../../x\"}", "{\"id\":\"a/b\",\"gated\":3}",
		"{\"id\":\"a/b\",\"lastModified\":\"yesterday\"}",
			"{\"id\":\"a/b\",\"lastModified\":\"2026-13-02T03:04:05Z\"}",
		"{\"id\":\"a/b\",\"_id\":\"0123456789012345678901234567890123456789\"}",
	};
	for (size_t i = 0; i < ARRAY_LEN(bad); i++)
		assert_int_equal(repo(bad[i], &r), -EBADMSG);
}

static void test_refs(void **state)
{
	const char *good = "{\"branches\":[{\"name\":\"main\",\"ref\":\"refs/heads/main\",\"targetCommit\":\"" SHA1 "\"},"
	                   "{\"name\":\"a..b\",\"ref\":\"refs/heads/a..b\",\"targetCommit\":\"" SHA1 "\"}],"
	                   "\"tags\":[{\"name\":\"v1\",\"ref\":\"refs/tags/v1\",\"targetCommit\":\"" SHA1 "\"}],"
	                   "\"converts\":[{\"name\":\"parquet\",\"ref\":\"refs/convert/parquet\",\"targetCommit\":\"" SHA1 "\"}],"
	                   "\"pullRequests\":[{\"name\":\"3\",\"ref\":\"refs/pr/3\",\"targetCommit\":\"" SHA1 "\"}]}";
	static const char *const bad[] = {
		"{}", "{\"branches\":{}}", "{\"branches\":[5]}", "{\"branches\":[{\"name\":\"main\"}]}",
		"{\"branches\":[],\"tags\":[{\"name\":\"v1\",\"targetCommit\":\"xyz\"}]}",
			"{\"branches\":[],\"tags\":7}",
	};
	struct hub_refs r = {0};

	for (size_t i = 0; i < ARRAY_LEN(bad); i++)
		assert_int_equal(hub_json_refs(bad[i], strlen(bad[i]), &r), -EBADMSG);
	assert_int_equal(hub_json_refs(good, strlen(good), &r), 0);
	assert_int_equal(r.n, 4);
	assert_int_equal(r.refs[0].kind, HUB_REF_BRANCH);
	assert_string_equal(r.refs[0].name, "main");
	assert_string_equal(r.refs[0].commit, SHA1);
	assert_string_equal(r.refs[1].name, "v1");
	assert_int_equal(r.refs[2].kind, HUB_REF_PR);
	assert_string_equal(r.refs[2].name, "refs/pr/3");
	assert_int_equal(r.refs[3].kind, HUB_REF_CONVERT);
	assert_string_equal(r.refs[3].name, "refs/convert/parquet");
	hub_refs_fini(&r);
}

static void test_commits(void **state)
{
	const char *page = "[{\"id\":\"" SHA1 "\",\"title\":\"t\",\"message\":\"m\",\"date\":\"2026-01-02T03:04:05Z\"}]";
	const char *bad = "[{\"id\":\"" SHA1 "\",\"title\":\"t\"},{\"id\":\"x\"}]";
	struct hub_commits c = {0};

	assert_int_equal(hub_json_commits(page, strlen(page), &c), 0);
	assert_int_equal(hub_json_commits(bad, strlen(bad), &c), -EBADMSG);
	assert_int_equal(c.n, 1);
	assert_int_equal(hub_json_commits(page, strlen(page), &c), 0);
	assert_int_equal(c.n, 2);
	assert_string_equal(c.commits[1].id, SHA1);
	assert_string_equal(c.commits[1].title, "t");
	assert_string_equal(c.commits[1].message, "m");
	assert_int_equal(c.commits[1].date_s, 1767323045);
	hub_commits_fini(&c);
}

static void test_entries(void **state)
{
	const char *good = "[{\"type\":\"directory\",\"path\":\"d\",\"oid\":\"" SHA1 "\",\"size\":0},"
	                   "{\"type\":\"file\",\"path\":\"d/\\u00e9\",\"oid\":\"" SHA1 "\",\"size\":7,\"lfs\":null},"
	                   "{\"type\":\"file\",\"path\":\"w\",\"oid\":\"" SHA1 "\",\"size\":130,\"lfs\":{\"oid\":\"" SHA256
	                   "\",\"size\":9007199254740992,\"pointerSize\":130}},"
	                   "{\"type\":\"file\",\"path\":\"a/../b\",\"oid\":\"" SHA1 "\",\"size\":1},"
	                   "{\"type\":\"unknown\",\"path\":\"sub\"}]";
	static const char *const bad[] = {
		"{}", "[1]", "[{}]", "[{\"type\":\"file\"}]", "[{\"type\":\"file\",\"path\":\"a\"}]",
		"[{\"type\":\"file\",\"path\":\"a\",\"oid\":\"" SHA1 "\"}]",
		"[{\"type\":\"file\",\"path\":\"a\",\"oid\":\"" SHA1 "\",\"size\":-1}]",
		"[{\"type\":\"file\",\"path\":\"a\",\"oid\":\"" SHA1 "\",\"size\":1.5}]",
		"[{\"type\":\"file\",\"path\":\"a\",\"oid\":\"" SHA1 "\",\"size\":1e300}]",
		"[{\"type\":\"file\",\"path\":\"a\",\"oid\":\"" SHA1 "\",\"size\":\"7\"}]",
		"[{\"type\":\"file\",\"path\":\"a\",\"oid\":\"zz\",\"size\":1}]",
		"[{\"type\":\"file\",\"path\":\"a\",\"oid\":\"" SHA1 "\",\"size\":1,\"lfs\":{\"oid\":\"" SHA1 "\",\"size\":1}}]",
		"[{\"type\":\"file\",\"path\":\"a\",\"oid\":\"" SHA1 "\",\"size\":1,\"lfs\":[]}]",
		"[{\"type\":\"file\",\"path\":\"a\\u0000\",\"oid\":\"" SHA1 "\",\"size\":1}]",
	};
	struct hub_entries e = {0};
	size_t skipped = 0;

	assert_int_equal(hub_json_entries("[]", 2, &e, &skipped), 0);
	assert_int_equal(e.n, 0);
	assert_int_equal(hub_json_entries(good, strlen(good), &e, &skipped), 0);
	for (size_t i = 0; i < ARRAY_LEN(bad); i++)
		assert_int_equal(hub_json_entries(bad[i], strlen(bad[i]), &e, &skipped), -EBADMSG);
	assert_int_equal(e.n, 4);
	assert_int_equal(skipped, 1);
	assert_int_equal(e.entries[0].kind, HUB_ENTRY_DIR);
	assert_string_equal(e.entries[1].path, "d/\xc3\xa9");
	assert_int_equal(e.entries[1].key.alg, HASH_GIT_SHA1);
	assert_int_equal(e.entries[1].key.size, 7);
	assert_int_equal(e.entries[2].key.alg, HASH_SHA256);
	assert_int_equal(e.entries[2].key.size, 9007199254740992);
	assert_int_equal(e.entries[2].oid[1], 0x23);
	assert_int_equal(e.entries[3].kind, HUB_ENTRY_OTHER);
	hub_entries_fini(&e);
}

static void test_preupload(void **state)
{
	const char *good = "{\"files\":[{\"path\":\"b\",\"uploadMode\":\"lfs\",\"shouldIgnore\":false,\"oid\":\"" SHA256 "\"},"
	                   "{\"path\":\"a\",\"uploadMode\":\"regular\",\"shouldIgnore\":true}],\"commitOid\":\"" SHA1 "\"}";
	static const char *const bad[] = {
		"{}", "{\"files\":[]}", "{\"files\":[{\"path\":\"a\",\"uploadMode\":\"regular\"}]}",
		"{\"files\":[{\"path\":\"a\",\"uploadMode\":\"xet\"},{\"path\":\"b\",\"uploadMode\":\"lfs\"}]}",
		"{\"files\":[{\"path\":\"a\",\"uploadMode\":\"lfs\",\"oid\":\"1\"},{\"path\":\"b\",\"uploadMode\":\"lfs\"}]}",
	};
	struct hub_pre_file files[2] = {{.path = "a", .size = 1}, {.path = "b", .size = 2}};
	char head[41] = "";

	for (size_t i = 0; i < ARRAY_LEN(bad); i++)
		assert_int_equal(hub_json_preupload(bad[i], strlen(bad[i]), files, 2, head), -EBADMSG);
	assert_false(files[1].lfs);
	assert_int_equal(hub_json_preupload(good, strlen(good), files, 2, head), 0);
	assert_string_equal(head, SHA1);
	assert_false(files[0].lfs);
	assert_true(files[0].ignored);
	assert_false(files[0].has_remote);
	assert_true(files[1].lfs);
	assert_true(files[1].has_remote);
	assert_int_equal(files[1].remote.alg, HASH_SHA256);
	assert_int_equal(files[1].size, 2);
}

static int batch(const char *object, struct hub_json_lfs_batch *ret)
{
	AUTO_FREE char *text = util_printf("{\"transfer\":\"basic\",\"objects\":[%s]}", object);

	return hub_json_lfs_batch(text, strlen(text), ret);
}

static void test_lfs_batch(void **state)
{
#define OBJECT(rest) "{\"oid\":\"" SHA256 "\",\"size\":5" rest "}"
#define UPLOAD(rest) OBJECT(",\"actions\":{\"upload\":{\"href\":\"https://s/1?sig\"" rest "}}")
	static const char *const bad[] = {
		"1", "{}", "{\"oid\":\"xx\",\"size\":5}", OBJECT(",\"error\":5"),
			OBJECT(",\"error\":{\"code\":\"x\"}"),
		OBJECT(",\"actions\":[]"), OBJECT(",\"actions\":{\"upload\":{}}"),
		OBJECT(",\"actions\":{\"upload\":{\"href\":\"file:///etc\"}}"),
		UPLOAD(",\"header\":[]"), UPLOAD(",\"header\":{\"X-A\":\"b\\r\\nX-B: c\"}"),
		UPLOAD(",\"header\":{\"chunk_size\":\"0\"}"), UPLOAD(",\"header\":{\"chunk_size\":\"x\"}"),
		UPLOAD(",\"header\":{\"chunk_size\":\"5\"}"),
		UPLOAD(",\"header\":{\"chunk_size\":\"5\",\"00002\":\"https://s/2\"}"),
		UPLOAD(",\"header\":{\"chunk_size\":\"5\",\"1\":\"https://s/2\",\"01\":\"https://s/2\"}"),
		UPLOAD(",\"header\":{\"chunk_size\":\"5\",\"0\":\"https://s/2\"}"),
		UPLOAD(",\"header\":{\"chunk_size\":\"5\",\"99999999999999999999\":\"https://s/2\"}"),
	};
	struct hub_json_lfs_batch b = {0};

	for (size_t i = 0; i < ARRAY_LEN(bad); i++)
		assert_int_equal(batch(bad[i], &b), -EBADMSG);
	assert_int_equal(batch(OBJECT(""), &b), 0);
	assert_false(b.objects[0].upload);
	hub_json_lfs_batch_fini(&b);
	assert_int_equal(batch(OBJECT(",\"error\":{\"code\":422,\"message\":\"too big\"}"), &b), 0);
	assert_int_equal(b.objects[0].error_code, 422);
	assert_string_equal(b.objects[0].error, "too big");
	hub_json_lfs_batch_fini(&b);
	assert_int_equal(batch(UPLOAD(",\"header\":{\"X-A\":\"b\",\"Authorization\":\"Basic x\",\"a b\":\"c\"}"), &b), 0);
	assert_true(b.objects[0].upload);
	assert_string_equal(b.objects[0].href, "https://s/1?sig");
	assert_string_equal(b.objects[0].headers[0], "X-A: b");
	assert_null(b.objects[0].headers[1]);
	assert_int_equal(b.objects[0].chunk_size, 0);
	hub_json_lfs_batch_fini(&b);
	assert_int_equal(batch(OBJECT(",\"actions\":{\"verify\":{\"href\":\"https://v\"},\"upload\":{\"href\":\"https://c\","
	                              "\"header\":{\"00002\":\"https://s/2\",\"chunk_size\":3,\"00001\":\"https://s/1\"}}}"),
	                       &b), 0);
	assert_int_equal(b.objects[0].chunk_size, 3);
	assert_int_equal(b.objects[0].n_parts, 2);
	assert_string_equal(b.objects[0].parts[0], "https://s/1");
	assert_string_equal(b.objects[0].parts[1], "https://s/2");
	assert_string_equal(b.objects[0].verify_href, "https://v");
	hub_json_lfs_batch_fini(&b);
}

static void test_commit_result(void **state)
{
	const char *good = "{\"success\":true,\"commitOid\":\"" SHA1 "\",\"commitUrl\":\"u\",\"pullRequestUrl\":null}";
	struct hub_commit_result r = {0};

	assert_int_equal(hub_json_commit_result("{}", 2, &r), -EBADMSG);
	assert_int_equal(hub_json_commit_result(good, strlen(good), &r), 0);
	assert_string_equal(r.commit, SHA1);
	assert_string_equal(r.url, "u");
	assert_null(r.pr_url);
	hub_commit_result_fini(&r);
}

static void check_error(const char *text, const char *want)
{
	char said[32];

	hub_json_error(text, strlen(text), said, sizeof(said));
	assert_string_equal(said, want);
}

static void test_error(void **state)
{
	check_error("{\"error\":\"no\"}", "no");
	check_error("{\"error\":[\"a\",\"b\"]}", "a; b");
	check_error("{\"error\":\"x\",\"error_description\":\"y\"}", "x; y");
	check_error("{\"errors\":[{\"message\":\"m\"},{\"message\":\"n\"}]}", "m; n");
	check_error("{\"message\":\"hi\"}", "hi");
	check_error("{\"error\":5}", "");
	check_error("plain\nnot this", "plain");
	check_error("<html>", "");
	check_error("", "");
	check_error("{\"error\":\"a\\nb\\u001b[31m\"}", "a b [31m");
	check_error("{\"error\":\"0123456789012345678901234567890123456789\"}",
	            "0123456789012345678901234567890");
	/* Cut between two characters, not inside one. */
	check_error("{\"error\":\"012345678901234567890123456789\xc3\xa9\"}",
	            "012345678901234567890123456789");
	check_error("bad\xff", "bad?");
}

static void test_caps(void **state)
{
	AUTO_BUF text = {.max = (size_t)80 << 20};
	struct hub_entries e = {0};
	size_t skipped = 0;
	char *big;

	for (int i = 0; i < 100000; i++)
		assert_int_equal(buf_add(&text, "[", 1), 0);
	assert_int_equal(hub_json_entries(text.data, text.len, &e, &skipped), -EBADMSG);
	for (int i = 0; i < 100000; i++)
		assert_int_equal(buf_add(&text, "]", 1), 0);
	assert_int_equal(hub_json_entries(text.data, text.len, &e, &skipped), -EBADMSG);
	text.len = 0;
	assert_int_equal(buf_add(&text, "[1", 2), 0);
	for (int i = 0; i < 1100000; i++)
		assert_int_equal(buf_add(&text, ",1", 2), 0);
	assert_int_equal(buf_add(&text, "]", 1), 0);
	assert_int_equal(hub_json_entries(text.data, text.len, &e, &skipped), -EBADMSG);
	big = malloc((size_t)65 << 20);
	assert_non_null(big);
	memset(big, ' ', (size_t)65 << 20);
	memcpy(big, "[]", 2);
	assert_int_equal(hub_json_entries(big, (size_t)65 << 20, &e, &skipped), -EBADMSG);
	free(big);
	assert_null(e.entries);
}

static void test_utf8(void **state)
{
	static const struct {
		const char *text;
		size_t len, want;
	} cases[] = {
		{"a", 1, 1}, {"\xc3\xa9", 2, 2}, {"\xe2\x82\xac", 3, 3}, {"\xf0\x9f\x98\x80", 4, 4}, {"\xc3",
		                                                                                      1, 0},
		{"\x80", 1, 0}, {"\xc0\x80", 2, 0}, {"\xed\xa0\x80", 3, 0}, {"\xf4\x90\x80\x80", 4, 0},
			{"\xff", 1, 0},
		{"\xe2\x82", 2, 0}, {"\xc3z", 2, 0},
	};

	for (size_t i = 0; i < ARRAY_LEN(cases); i++)
		assert_int_equal(hub_json_utf8((const unsigned char *)cases[i].text, cases[i].len),
		                 cases[i].want);
}

static void test_writing(void **state)
{
	AUTO_BUF out = {0};
	struct hub_json_writer w;

	hub_json_write_init(&w, &out);
	hub_json_write_object(&w, NULL);
	hub_json_write_string(&w, "s", "q\" b\\ n\n e\xc3\xa9 x\xff");
	hub_json_write_string(&w, "null", NULL);
	hub_json_write_array(&w, "a");
	hub_json_write_number(&w, NULL, INT64_MIN);
	hub_json_write_double(&w, NULL, 0.5);
	hub_json_write_double(&w, NULL, 1.0 / 0.0);
	hub_json_write_object(&w, NULL);
	hub_json_write_end(&w);
	hub_json_write_bool(&w, NULL, true);
	hub_json_write_end(&w);
	hub_json_write_base64(&w, "b", "\0\xff\x10M", 4);
	hub_json_write_exact(&w, "k\t", "\xe2\x82\xac");
	hub_json_write_end(&w);
	assert_int_equal(hub_json_write_done(&w), 0);
	assert_string_equal(out.data, "{\"s\":\"q\\\" b\\\\ n\\u000a e\xc3\xa9 x\xef\xbf\xbd\",\"null\":null,"
	                              "\"a\":[-9223372036854775808,0.5,null,{},true],\"b\":\"AP8QTQ==\","
	                              "\"k\\u0009\":\"\xe2\x82\xac\"}");
}

static void test_writing_fails_once(void **state)
{
	AUTO_BUF out = {0};
	AUTO_BUF tiny = {.max = 8};
	struct hub_json_writer w;

	hub_json_write_init(&w, &out);
	hub_json_write_array(&w, NULL);
	hub_json_write_exact(&w, NULL, "a\xff");
	hub_json_write_exact(&w, NULL, "b");
	hub_json_write_end(&w);
	assert_int_equal(hub_json_write_done(&w), -EILSEQ);
	hub_json_write_init(&w, &tiny);
	hub_json_write_array(&w, NULL);
	hub_json_write_exact(&w, NULL, "0123456789");
	hub_json_write_end(&w);
	assert_int_equal(hub_json_write_done(&w), -EFBIG);
}

static void test_base64(void **state)
{
	static const char *const pairs[][2] = {{"", ""}, {"f", "Zg=="}, {"fo", "Zm8="}, {"foo", "Zm9v"},
	                                       {"foobar", "Zm9vYmFy"}};

	for (size_t i = 0; i < ARRAY_LEN(pairs); i++) {
		char out[16] = "";

		assert_int_equal(hub_json_base64(pairs[i][0], strlen(pairs[i][0]), out), strlen(pairs[i][1]));
		assert_string_equal(out, pairs[i][1]);
	}
}

static void test_pull_requests(void **state)
{
	static const char merged[] = "{\"num\":3,\"status\":\"merged\",\"changes\":{\"base\":\"refs/heads/main\","
	                             "\"mergeCommitId\":\"" SHA1 "\"}}";
	static const char list[] = "{\"discussions\":[{\"num\":9,\"title\":\"other\",\"status\":\"draft\"},"
	                           "{\"num\":7,\"title\":\"mine\",\"status\":\"draft\"},"
	                           "{\"num\":8,\"title\":\"mine\",\"status\":\"open\"},"
	                           "{\"num\":4,\"title\":\"mine\",\"status\":\"draft\"}],\"count\":4,\"start\":0}";
	static const char *const bad[] = {
		"[]", "{\"num\":0,\"status\":\"odd\"}", "{\"num\":\"3\",\"status\":3}",
		"{\"num\":1.5e300,\"discussions\":{}}", "{\"discussions\":[{}]}",
	};
	struct hub_pr pr;
	unsigned n = 5;

	assert_int_equal(hub_json_pr(merged, strlen(merged), &pr), 0);
	assert_int_equal(pr.status, HUB_PR_MERGED);
	assert_string_equal(pr.merged_as, SHA1);
	assert_int_equal(hub_json_number(merged, strlen(merged), "num", &n), 0);
	assert_int_equal(n, 3);
	assert_int_equal(hub_json_find_draft(list, strlen(list), "mine", &n), 0);
	assert_int_equal(n, 7);
	assert_int_equal(hub_json_find_draft(list, strlen(list), "nobody's", &n), 0);
	assert_int_equal(n, 0);
	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		assert_int_equal(hub_json_pr(bad[i], strlen(bad[i]), &pr), -EBADMSG);
		assert_int_equal(hub_json_number(bad[i], strlen(bad[i]), "num", &n), -EBADMSG);
		assert_int_equal(hub_json_find_draft(bad[i], strlen(bad[i]), "mine", &n), -EBADMSG);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_whoami),
		cmocka_unit_test(test_repo),
		cmocka_unit_test(test_refs),
		cmocka_unit_test(test_commits),
		cmocka_unit_test(test_entries),
		cmocka_unit_test(test_preupload),
		cmocka_unit_test(test_lfs_batch),
		cmocka_unit_test(test_commit_result),
		cmocka_unit_test(test_pull_requests),
		cmocka_unit_test(test_error),
		cmocka_unit_test(test_caps),
		cmocka_unit_test(test_utf8),
		cmocka_unit_test(test_writing),
		cmocka_unit_test(test_writing_fails_once),
		cmocka_unit_test(test_base64),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
