/* hub: the calls against the local test Hub (tests/hub), which is started here and asked what it saw. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <ftw.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "hub.h"
#include "hub_json.h"
#include "log.h"
#include "test_clock.h"

/* One account's way to the Hub. */
struct user {
	struct auth *auth;
	struct http *http;
	struct hub *hub;
};

static char root[4096];
static pid_t server;
static char *endpoint;
static struct user user, other, reader, nobody;

/* -- the test Hub -- */

/* The string behind `"name": "` in a JSON text. Caller frees. */
static char *string_of(const char *text, const char *name)
{
	AUTO_FREE char *key = util_printf("\"%s\": \"", name);
	const char *at = strstr(text, key);

	assert_non_null(at);
	at += strlen(key);
	return strndup(at, strcspn(at, "\""));
}

static void user_start(struct user *u, const char *token)
{
	struct http_opts http_opts = {.deadline_s = 10};
	struct hub_opts hub_opts = {0};

	if (token)
		setenv("HF_TOKEN", token, 1);
	assert_int_equal(auth_new(endpoint, "/nonexistent", &u->auth), 0);
	unsetenv("HF_TOKEN");
	assert_int_equal(http_new(u->auth, &http_opts, &u->http), 0);
	assert_int_equal(hub_new(u->http, u->auth, &hub_opts, &u->hub), 0);
}

static void user_end(struct user *u)
{
	hub_free(u->hub);
	http_free(u->http);
	auth_free(u->auth);
}

static int setup(void **state)
{
	const char *source = getenv("HUGFS_SOURCE_ROOT"), *tmp = getenv("TMPDIR");
	AUTO_FREE char *script = util_printf("%s/tests/hub", source ? source : ".");
	struct {
		struct user *user;
		const char *name;
	} users[] = {{&user, "user"}, {&other, "other"}, {&reader, "reader"}};
	char line[2048];
	FILE *out;
	int fds[2];

	snprintf(root, sizeof(root), "%s/hugfs-hub-XXXXXX", tmp ? tmp : "/tmp");
	if (!mkdtemp(root) || pipe(fds) < 0)
		return -1;
	unsetenv("HF_TOKEN");
	unsetenv("HUGGING_FACE_HUB_TOKEN");
	unsetenv("http_proxy");
	server = fork();
	if (server == 0) {
		dup2(fds[1], STDOUT_FILENO);
		close(fds[0]);
		close(fds[1]);
		execlp("python3", "python3", script, "--root", root, (char *)NULL);
		_exit(127);
	}
	close(fds[1]);
	out = fdopen(fds[0], "r");
	if (!out || !fgets(line, sizeof(line), out))
		return -1;
	fclose(out);
	endpoint = string_of(line, "endpoint");
	for (size_t i = 0; i < ARRAY_LEN(users); i++) {
		AUTO_FREE char *token = string_of(line, users[i].name);

		user_start(users[i].user, token);
	}
	user_start(&nobody, NULL);
	/* What goes wrong here is meant to. */
	return log_set_levels(getenv("TEST_LOG") ? getenv("TEST_LOG") : "err");
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	return remove(path);
}

static int teardown(void **state)
{
	user_end(&user);
	user_end(&other);
	user_end(&reader);
	user_end(&nobody);
	free(endpoint);
	kill(server, SIGTERM);
	waitpid(server, NULL, 0);
	return nftw(root, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

/* A request of the test itself. The answer's text; caller frees. */
static char *ask(const char *method, const char *path, const char *body, int want)
{
	static const char *const headers[] = {"Content-Type: application/json", NULL};
	AUTO_FREE char *url = util_printf("%s%s", endpoint, path);
	AUTO_HTTP_RESP resp = {0};
	struct http_req req = {
		.method = method, .url = url, .headers = headers, .body = body, .body_len = body
			? strlen(body) : 0};

	assert_int_equal(http_perform(user.http, &req, &resp), 0);
	assert_int_equal(resp.status, want);
	return resp.body.data ? strdup(resp.body.data) : strdup("");
}

static void tell(const char *method, const char *path, const char *body)
{
	free(ask(method, path, body, 200));
}

static void fault(const char *body)
{
	tell("POST", "/_test/faults", body);
}

static void config(const char *body)
{
	tell("POST", "/_test/config", body);
}

static void reset_hub(void)
{
	tell("DELETE", "/_test/faults", NULL);
	config("{\"signature_lifetime_s\": 3600, \"upload_lifetime_s\": 900, \"signature_age_s\": 0, "
	       "\"page_size\": null, \"multipart_threshold\": 50000000, \"chunk_size\": 16000000}");
}

/* How many requests since number `since` had all of these in their record. NULL: anything. */
static unsigned count(unsigned since, const char *origin, const char *method, const char *path)
{
	AUTO_FREE char *where = util_printf("/_test/requests?since=%u", since);
	AUTO_FREE char *text = ask("GET", where, NULL, 200);
	AUTO_FREE char *want_origin = util_printf("\"origin\": \"%s\"", origin ? origin : "");
	AUTO_FREE char *want_method = util_printf("\"method\": \"%s\"", method ? method : "");
	unsigned n = 0;

	for (char *at = strstr(text, "{\"origin\""), *next; at; at = next) {
		next = strstr(at + 1, "{\"origin\"");
		if (next)
			next[-1] = '\0';
		n += (!origin || strstr(at, want_origin)) && (!method || strstr(at, want_method)) &&
		     (!path || strstr(at, path));
	}
	return n;
}

static unsigned now(void)
{
	return count(0, NULL, NULL, NULL);
}

static struct repo_id make_repo_of(const char *type, enum repo_type t, const char *name,
                                   const char *visibility)
{
	AUTO_FREE char *body = util_printf("{\"name\": \"%s\", \"organization\": \"user\", \"type\": \"%s\", "
	                                   "\"visibility\": \"%s\"}", name, type, visibility);
	struct repo_id id = {.type = t, .ns = "user"};

	tell("POST", "/api/repos/create", body);
	snprintf(id.name, sizeof(id.name), "%s", name);
	return id;
}

static struct repo_id make_repo(const char *name)
{
	return make_repo_of("model", REPO_MODEL, name, "public");
}

/* -- bytes -- */

struct text {
	const char *data;
	size_t len;
};

static ssize_t text_source(void *arg, void *data, size_t len, uint64_t off)
{
	const struct text *t = arg;
	size_t n = MIN(len, t->len - MIN((size_t)off, t->len));

	memcpy(data, t->data + MIN((size_t)off, t->len), n);
	return (ssize_t)n;
}

static struct hub_op file_op(const char *path, struct text *text)
{
	struct hub_op op = {.kind = HUB_OP_FILE, .path = path, .source = text_source, .arg = text};

	assert_int_equal(hash_buf(HASH_GIT_SHA1, text->data, text->len, &op.key), 0);
	return op;
}

static void head_of(const struct repo_id *id, char ret[41])
{
	struct hub_repo repo;

	assert_int_equal(hub_repo_info(user.hub, id, "main", false, &repo, NULL), 0);
	memcpy(ret, repo.sha, 41);
}

/* Commits the operations on top of the head; `ret_commit` may be NULL. */
static void commit_ops(const struct repo_id *id, const struct hub_op *ops, size_t n, char ret_commit[41])
{
	CLEANUP(hub_commit_result_fini) struct hub_commit_result result = {0};
	char head[41];
	struct hub_commit_req req = {
		.rev = "main", .title = "a commit", .description = "token 1", .parent = head, .ops = ops, .n =
			n};

	head_of(id, head);
	assert_int_equal(hub_commit(user.hub, id, &req, &result, NULL), 0);
	assert_int_equal(strlen(result.commit), 40);
	if (ret_commit)
		memcpy(ret_commit, result.commit, 41);
}

static void commit_text(const struct repo_id *id, const char *path, const char *data, char ret_commit[41])
{
	struct text text = {data, strlen(data)};
	struct hub_op op = file_op(path, &text);

	commit_ops(id, &op, 1, ret_commit);
}

static int to_buf(void *arg, const void *data, size_t len)
{
	return buf_add(arg, data, len);
}

static int read_at(struct user *u, const struct repo_id *id, const char *commit, const char *path,
                   const struct blob_key *key, uint64_t off, uint64_t len, struct buf *out,
                   struct hub_error *err)
{
	struct hub_place place = {.id = *id, .path = path};

	memcpy(place.commit, commit, 41);
	return hub_read_range(u->hub, &place, key, off, len, to_buf, out, NULL, err);
}

static struct blob_key key_of(const struct repo_id *id, const char *path)
{
	struct hub_entries e = {0};
	struct blob_key key;

	assert_int_equal(hub_paths_info(user.hub, id, "main", &path, 1, &e, NULL), 0);
	assert_int_equal(e.n, 1);
	key = e.entries[0].key;
	hub_entries_fini(&e);
	return key;
}

/* -- who and what -- */

static void test_whoami(void **state)
{
	struct hub_whoami w = {.name = (char *)1};
	unsigned since = now();

	assert_int_equal(hub_whoami(nobody.hub, &w, NULL), 0);
	assert_null(w.name);
	assert_int_equal(now(), since);
	assert_int_equal(hub_whoami(user.hub, &w, NULL), 0);
	assert_string_equal(w.name, "user");
	assert_string_equal(w.orgs[0], "acme");
	hub_whoami_fini(&w);
}

static void test_repo_info(void **state)
{
	struct repo_id id = make_repo_of("dataset", REPO_DATASET, "Info", "private");
	struct repo_id shouted = id, missing = id;
	struct hub_error err;
	struct hub_repo repo;

	memcpy(shouted.name, "INFO", 5);
	assert_int_equal(hub_repo_info(user.hub, &shouted, NULL, false, &repo, &err), 0);
	assert_true(repo_equal(&repo.id, &id));
	assert_int_equal(strlen(repo.sha), 40);
	assert_int_equal(strlen(repo.internal_id), 24);
	assert_true(repo.is_private);
	assert_false(repo.gated);
	assert_true(repo.modified_s > 1600000000);
	assert_int_equal(hub_repo_info(user.hub, &id, "no/such", false, &repo, &err), -ENOENT);
	assert_string_equal(err.code, "RevisionNotFound");
	assert_non_null(strstr(err.text, "datasets/user/Info@no/such: no such revision"));
	memcpy(missing.name, "none", 5);
	assert_int_equal(hub_repo_info(user.hub, &missing, NULL, false, &repo, &err), -ENOENT);
	assert_non_null(strstr(err.text, "hf auth login"));
	assert_int_equal(hub_repo_info(other.hub, &id, NULL, false, &repo, &err), -ENOENT);
	assert_int_equal(hub_repo_info(nobody.hub, &id, NULL, false, &repo, &err), -ENOENT);
}

static void test_a_bad_token(void **state)
{
	struct repo_id id = make_repo("badtoken");
	struct user stranger;
	struct hub_error err;
	struct hub_repo repo;

	user_start(&stranger, "hf_wrong");
	assert_int_equal(hub_repo_info(stranger.hub, &id, NULL, false, &repo, &err), -EACCES);
	assert_int_equal(err.status, 401);
	assert_non_null(strstr(err.text, "the token is not valid"));
	assert_null(strstr(err.text, "hf_wrong"));
	user_end(&stranger);
}

static void test_no_network(void **state)
{
	struct http_opts opts = {.offline = true};
	struct hub_opts hub_opts = {0};
	struct repo_id id = {.ns = "a", .name = "b"};
	struct hub_error err;
	struct hub_repo repo;
	struct http *http;
	struct hub *hub;

	assert_int_equal(http_new(user.auth, &opts, &http), 0);
	assert_int_equal(hub_new(http, user.auth, &hub_opts, &hub), 0);
	assert_int_equal(hub_repo_info(hub, &id, NULL, false, &repo, &err), -ENETDOWN);
	assert_non_null(strstr(err.text, endpoint));
	assert_false(err.maybe_done);
	hub_free(hub);
	http_free(http);
}

static void test_who_may_write(void **state)
{
	struct repo_id id = make_repo("write");
	struct repo_id missing = {.ns = "user", .name = "none"};
	unsigned since = now();

	assert_int_equal(hub_may_write(nobody.hub, &id, NULL), 0);
	assert_int_equal(now(), since);
	assert_int_equal(hub_may_write(user.hub, &id, NULL), 1);
	assert_int_equal(hub_may_write(other.hub, &id, NULL), 0);
	assert_int_equal(hub_may_write(user.hub, &missing, NULL), -ENOENT);
	assert_int_equal(hub_namespace_exists(user.hub, "user", NULL), 1);
	assert_int_equal(hub_namespace_exists(user.hub, "acme", NULL), 1);
	assert_int_equal(hub_namespace_exists(user.hub, "nothere", NULL), 0);
	since = now();
	assert_int_equal(hub_namespace_exists(user.hub, ".git", NULL), 0);
	assert_int_equal(now(), since);
}

static void test_refs(void **state)
{
	struct repo_id id = make_repo("refs");
	struct hub_refs refs;
	unsigned found = 0;

	tell("POST", "/api/models/user/refs/branch/feature%2Fx", "{}");
	tell("POST", "/api/models/user/refs/tag/main", "{\"tag\": \"v1\"}");
	tell("POST", "/_test/ref",
	     "{\"type\": \"model\", \"id\": \"user/refs\", \"ref\": \"refs/convert/parquet\", "
	                           "\"target\": \"main\"}");
	tell("POST", "/api/models/user/refs/discussions", "{\"title\": \"a title\", \"pullRequest\": true, "
	                                                  "\"description\": \"d\"}");
	assert_int_equal(hub_refs(user.hub, &id, false, &refs, NULL), 0);
	for (size_t i = 0; i < refs.n; i++) {
		static const struct hub_ref want[] = {
			{HUB_REF_BRANCH, (char *)"main", ""}, {HUB_REF_BRANCH, (char *)"feature/x", ""},
			{HUB_REF_TAG, (char *)"v1", ""}, {HUB_REF_PR, (char *)"refs/pr/1", ""},
			{HUB_REF_CONVERT, (char *)"refs/convert/parquet", ""},
		};

		assert_true(repo_is_commit(refs.refs[i].commit));
		for (size_t k = 0; k < ARRAY_LEN(want); k++)
			found += refs.refs[i].kind == want[k].kind && strcmp(refs.refs[i].name,
			                                                     want[k].name) == 0;
	}
	assert_int_equal(found, 5);
	assert_int_equal(refs.n, 5);
	hub_refs_fini(&refs);
}

static void test_commits(void **state)
{
	struct repo_id id = make_repo("history");
	struct hub_commits c;
	char last[41];

	for (int i = 0; i < 4; i++) {
		char text[2] = {(char)('a' + i), '\0'};

		commit_text(&id, "file", text, last);
	}
	config("{\"page_size\": 2}");
	assert_int_equal(hub_commits(user.hub, &id, "main", 3, &c, NULL), 0);
	assert_int_equal(c.n, 3);
	assert_string_equal(c.commits[0].id, last);
	assert_string_equal(c.commits[0].title, "a commit");
	assert_non_null(strstr(c.commits[0].message, "token 1"));
	assert_true(c.commits[0].date_s > 1600000000);
	hub_commits_fini(&c);
	reset_hub();
	assert_int_equal(hub_commits(user.hub, &id, "nope", 3, &c, NULL), -ENOENT);
}

/* -- trees -- */

static void test_tree(void **state)
{
	static const char *const names[] = {"a", "b", "d/c", "d/e/f", "d/sp ace#?%", "g", "\xc3\xbc/x"};
	struct repo_id id = make_repo("tree");
	struct hub_entries e = {0};
	struct hub_op ops[ARRAY_LEN(names)];
	struct text text = {"hello\n", 6};
	struct hub_error err;
	unsigned since, seen = 0;

	for (size_t i = 0; i < ARRAY_LEN(names); i++)
		ops[i] = file_op(names[i], &text);
	commit_ops(&id, ops, ARRAY_LEN(names), NULL);
	config("{\"page_size\": 3}");
	since = now();
	assert_int_equal(hub_tree(user.hub, &id, "main", "", true, &e, NULL), 0);
	/* Seven files, three folders, .gitattributes. */
	assert_int_equal(e.n, 11);
	assert_int_equal(count(since, "hub", "GET", "/tree/"), 4);
	for (size_t i = 0; i < e.n; i++) {
		for (size_t k = 0; k < ARRAY_LEN(names); k++) {
			if (strcmp(e.entries[i].path, names[k]) != 0)
				continue;
			seen++;
			assert_int_equal(e.entries[i].kind, HUB_ENTRY_FILE);
			assert_true(hash_key_equal(&e.entries[i].key, &ops[k].key));
			assert_memory_equal(e.entries[i].oid, ops[k].key.id, 20);
		}
	}
	assert_int_equal(seen, ARRAY_LEN(names));
	hub_entries_fini(&e);
	assert_int_equal(hub_tree(user.hub, &id, "main", "d", false, &e, NULL), 0);
	assert_int_equal(e.n, 3);
	hub_entries_fini(&e);
	reset_hub();
	assert_int_equal(hub_tree(user.hub, &id, "main", "\xc3\xbc", false, &e, NULL), 0);
	assert_int_equal(e.n, 1);
	hub_entries_fini(&e);
	assert_int_equal(hub_tree(user.hub, &id, "main", "none", false, &e, &err), -ENOENT);
	assert_string_equal(err.code, "EntryNotFound");
	assert_int_equal(hub_tree(user.hub, &id, "main", "a", false, &e, &err), -ENOENT);
	assert_int_equal(hub_tree(user.hub, &id, "nope", "", false, &e, &err), -ENOENT);
	assert_string_equal(err.code, "RevisionNotFound");
}

static void test_paths_info(void **state)
{
	static const char *const ask_for[] = {"a", "none", "d", "d/\xc3\xa4", "d/none", "\xff"};
	struct repo_id id = make_repo("paths");
	struct hub_entries e = {0};
	unsigned since;

	commit_text(&id, "a", "1", NULL);
	commit_text(&id, "d/\xc3\xa4", "2", NULL);
	since = now();
	assert_int_equal(hub_paths_info(user.hub, &id, "main", ask_for, ARRAY_LEN(ask_for), &e, NULL), 0);
	assert_int_equal(count(since, NULL, NULL, NULL), 1);
	assert_int_equal(e.n, 3);
	hub_entries_fini(&e);
	assert_int_equal(hub_paths_info(user.hub, &id, "main", ask_for, 0, &e, NULL), 0);
	assert_int_equal(e.n, 0);
	hub_entries_fini(&e);
}

static void test_bad_answers(void **state)
{
	struct repo_id id = make_repo("bad");
	struct hub_entries e = {0};
	struct hub_error err;
	unsigned since;

	fault("{\"path\": \"/tree/\", \"action\": {\"status\": 200, \"body\": \"<html>login</html>\"}}");
	assert_int_equal(hub_tree(user.hub, &id, "main", "", false, &e, &err), -EIO);
	assert_non_null(strstr(err.text, "makes no sense"));
	fault("{\"path\": \"/tree/\", \"action\": {\"status\": 404, \"body\": \"not found\"}}");
	/* Nobody says what is missing: no proof of absence. */
	assert_int_equal(hub_tree(user.hub, &id, "main", "", false, &e, &err), -EIO);
	fault("{\"path\": \"/tree/\", \"times\": 2, \"action\": {\"status\": 503}}");
	assert_int_equal(hub_tree(user.hub, &id, "main", "", false, &e, &err), 0);
	hub_entries_fini(&e);
	/* A next page elsewhere is not fetched. */
	fault("{\"path\": \"/tree/\", \"action\": {\"status\": 200, \"body\": [], "
	      "\"headers\": {\"Link\": \"<http://127.0.0.2:9/x>; rel=\\\"next\\\"\"}}}");
	since = now();
	assert_int_equal(hub_tree(user.hub, &id, "main", "", false, &e, &err), -EIO);
	assert_int_equal(count(since, NULL, NULL, NULL), 1);
	/* The official endpoint's name in a link means this Hub. */
	fault("{\"path\": \"/tree/\", \"action\": {\"status\": 200, \"body\": [], \"headers\": "
	      "{\"Link\": \"<https://huggingface.co/api/models/user/bad/tree/main>; rel=\\\"next\\\"\"}}}");
	assert_int_equal(hub_tree(user.hub, &id, "main", "", false, &e, &err), 0);
	assert_int_equal(e.n, 1);
	hub_entries_fini(&e);
	reset_hub();
}

static void rename_fault(const char *method, const char *from, int status, const char *to)
{
	AUTO_FREE char *body =
		util_printf("{\"method\": \"%s\", \"path\": \"%s\", \"action\": {\"status\": %d, "
	                                   "\"headers\": {\"Location\": \"%s\"}}}", method, from, status, to);

	fault(body);
}

/* Each of its addresses answers with the new one; method and body go along. */
static void test_a_renamed_repository(void **state)
{
	CLEANUP(hub_commit_result_fini) struct hub_commit_result result = {0};
	struct repo_id id = make_repo("after"), old = {.ns = "user", .name = "before"};
	struct text text = {"two", 3};
	struct hub_op op = file_op("b", &text);
	struct hub_commit_req req = {.rev = "main", .title = "t", .ops = &op, .n = 1};
	struct hub_entries e = {0};
	AUTO_BUF out = {0};
	AUTO_FREE char *absolute = util_printf("%s/api/models/user/after/tree/main?recursive=false",
	                                       endpoint);
	const char *path = "a";
	struct hub_repo repo;
	struct blob_key key;
	char commit[41];

	commit_text(&id, "a", "one", commit);
	key = key_of(&id, "a");
	rename_fault("GET", "before", 307, "/api/models/user/after?expand=sha");
	assert_int_equal(hub_repo_info(user.hub, &old, NULL, false, &repo, NULL), 0);
	assert_string_equal(repo.id.name, "after");
	rename_fault("GET", "before", 301, absolute);
	assert_int_equal(hub_tree(user.hub, &old, "main", "", false, &e, NULL), 0);
	assert_int_equal(e.n, 2);
	hub_entries_fini(&e);
	rename_fault("POST", "before", 308, "/api/models/user/after/paths-info/main");
	assert_int_equal(hub_paths_info(user.hub, &old, "main", &path, 1, &e, NULL), 0);
	assert_int_equal(e.n, 1);
	hub_entries_fini(&e);
	AUTO_FREE char *to = util_printf("/user/after/resolve/%s/a", commit);
	rename_fault("GET", "before", 307, to);
	assert_int_equal(read_at(&user, &old, commit, "a", &key, 0, 3, &out, NULL), 0);
	assert_string_equal(out.data, "one");
	req.parent = commit;
	rename_fault("POST", "before", 302, "/api/models/user/after/commit/main");
	assert_int_equal(hub_commit(user.hub, &old, &req, &result, NULL), 0);
	key_of(&id, "b");
	/* Elsewhere it is no rename. */
	rename_fault("GET", "before", 307, "http://127.0.0.2:9/api/models/user/after");
	assert_int_equal(hub_repo_info(user.hub, &old, NULL, false, &repo, NULL), -EIO);
	/* Nor round in circles. */
	fault("{\"path\": \"before\", \"times\": -1, \"action\": {\"status\": 307, \"headers\": "
	      "{\"Location\": \"/api/models/user/before\"}}}");
	assert_int_equal(hub_repo_info(user.hub, &old, NULL, false, &repo, NULL), -EIO);
	reset_hub();
}

/* -- bytes -- */

static void test_read_regular(void **state)
{
	struct repo_id ids[] = {make_repo("plain"), make_repo_of("dataset", REPO_DATASET, "hidden",
	                                                         "private")};

	for (size_t i = 0; i < ARRAY_LEN(ids); i++) {
		/* Public: a redirect to resolve-cache, remembered. Private: the bytes at once. */
		unsigned first = i == 0 ? 2 : 1, since;
		AUTO_BUF out = {0};
		struct blob_key key;
		char commit[41];

		commit_text(&ids[i], "d/f #1", "0123456789", commit);
		key = key_of(&ids[i], "d/f #1");
		since = now();
		assert_int_equal(read_at(&user, &ids[i], commit, "d/f #1", &key, 3, 4, &out, NULL), 0);
		assert_string_equal(out.data, "3456");
		assert_int_equal(count(since, NULL, "GET", NULL), first);
		assert_int_equal(read_at(&user, &ids[i], commit, "d/f #1", &key, 9, 1, &out, NULL), 0);
		assert_string_equal(out.data, "34569");
		assert_int_equal(count(since, NULL, "GET", NULL), first + 1);
		assert_int_equal(count(since, "data", NULL, NULL), 0);
	}
}

static char *sparse(const struct repo_id *id, const char *path, const char *size, const char *seeds)
{
	AUTO_FREE char *body =
		util_printf("{\"type\": \"model\", \"id\": \"user/%s\", \"path\": \"%s\", \"size\": %s, "
	                                   "\"seeds\": {%s}}", id->name, path, size, seeds);
	AUTO_FREE char *answer = ask("POST", "/_test/lfs-sparse", body, 200);

	return string_of(answer, "commit");
}

static void test_read_lfs(void **state)
{
	struct repo_id id = make_repo("lfs");
	AUTO_FREE char *commit = sparse(&id, "big.bin", "10000000000", "\"5000000000\": \"68656c6c6f\"");
	struct blob_key key = key_of(&id, "big.bin");
	AUTO_BUF out = {0};
	unsigned since = now();

	assert_int_equal(key.alg, HASH_SHA256);
	assert_int_equal(key.size, 10000000000);
	assert_int_equal(read_at(&user, &id, commit, "big.bin", &key, 5000000000, 5, &out, NULL), 0);
	assert_string_equal(out.data, "hello");
	assert_int_equal(count(since, "hub", "GET", "/resolve/"), 1);
	assert_int_equal(count(since, "data", "GET", NULL), 1);
	out.len = 0;
	assert_int_equal(read_at(&user, &id, commit, "big.bin", &key, 5000000003, 2, &out, NULL), 0);
	assert_string_equal(out.data, "lo");
	assert_int_equal(count(since, "hub", NULL, NULL), 1);
	assert_int_equal(count(since, "data", "GET", "bytes=5000000003-5000000004"), 1);
	assert_int_equal(count(since, "data", NULL, "\"token\": true"), 0);
}

struct one_read {
	const struct repo_id *id;
	const char *commit;
	const struct blob_key *key;
	uint64_t off;
	int result;
};

static void *read_thread(void *arg)
{
	struct one_read *one = arg;
	AUTO_BUF out = {0};

	one->result = read_at(&user, one->id, one->commit, "shared.bin", one->key, one->off, 1000, &out,
	                      NULL);
	if (one->result == 0 && out.len != 1000)
		one->result = 1;
	return NULL;
}

/* Eight readers of one blob, all of whom get the same failure or one resolve. */
static void read_by_eight(const struct repo_id *id, const char *commit, const struct blob_key *key, int want)
{
	struct one_read reads[8];
	pthread_t threads[8];

	for (size_t i = 0; i < 8; i++) {
		reads[i] = (struct one_read){id, commit, key, i * 5000, 2};
		assert_int_equal(pthread_create(&threads[i], NULL, read_thread, &reads[i]), 0);
	}
	for (size_t i = 0; i < 8; i++) {
		pthread_join(threads[i], NULL);
		assert_int_equal(reads[i].result, want);
	}
}

static void test_readers_share_one_resolve(void **state)
{
	struct repo_id id = make_repo("shared");
	AUTO_FREE char *commit = sparse(&id, "shared.bin", "1000000", "");
	struct blob_key key = key_of(&id, "shared.bin");
	unsigned since = now();

	fault("{\"path\": \"/resolve/\", \"action\": {\"delay_ms\": 300}}");
	read_by_eight(&id, commit, &key, 0);
	assert_int_equal(count(since, "hub", NULL, "/resolve/"), 1);
	assert_int_equal(count(since, "data", NULL, NULL), 8);
	/* A URL that stops working is asked for once more, by one of them. */
	fault("{\"origin\": \"data\", \"times\": 1, \"action\": {\"status\": 403}}");
	since = now();
	read_by_eight(&id, commit, &key, 0);
	assert_int_equal(count(since, "hub", NULL, "/resolve/"), 1);
	assert_int_equal(count(since, "data", NULL, NULL), 9);
	reset_hub();
}

static void test_expiry(void **state)
{
	struct repo_id id = make_repo("expiry");
	AUTO_FREE char *commit = sparse(&id, "x.bin", "1000000", "");
	struct blob_key key = key_of(&id, "x.bin");
	AUTO_BUF out = {0};
	struct hub_error err;
	unsigned since = now();

	/* Nearly over when it comes: used, but not again. */
	config("{\"signature_lifetime_s\": 3600, \"signature_age_s\": 3550}");
	assert_int_equal(read_at(&user, &id, commit, "x.bin", &key, 0, 10, &out, NULL), 0);
	assert_int_equal(read_at(&user, &id, commit, "x.bin", &key, 10, 10, &out, NULL), 0);
	assert_int_equal(count(since, "hub", NULL, "/resolve/"), 2);
	assert_int_equal(count(since, "data", NULL, "\"status\": 206"), 2);
	/* Over already: asked for once more, then refused. */
	config("{\"signature_lifetime_s\": 0, \"signature_age_s\": 0}");
	since = now();
	assert_int_equal(read_at(&user, &id, commit, "x.bin", &key, 0, 10, &out, &err), -EACCES);
	assert_int_equal(err.status, 403);
	assert_int_equal(count(since, "hub", NULL, "/resolve/"), 2);
	assert_int_equal(count(since, "data", NULL, "\"status\": 403"), 2);
	reset_hub();
}

/* A URL ages while the machine sleeps. While it lasts the first read after a sleep is one request, else two. */
static void test_a_url_ages_in_a_sleep(void **state)
{
	struct repo_id id = make_repo("sleep");
	AUTO_FREE char *commit = sparse(&id, "x.bin", "1000000", "");
	struct blob_key key = key_of(&id, "x.bin");
	AUTO_BUF out = {0};
	unsigned since;

	config("{\"signature_lifetime_s\": 3600}");
	assert_int_equal(read_at(&user, &id, commit, "x.bin", &key, 0, 10, &out, NULL), 0);
	since = now();
	atomic_fetch_add(&slept_ms, 30 * 60 * 1000);
	assert_int_equal(read_at(&user, &id, commit, "x.bin", &key, 10, 10, &out, NULL), 0);
	assert_int_equal(count(since, NULL, NULL, NULL), 1);
	assert_int_equal(count(since, "data", "GET", "\"status\": 206"), 1);
	since = now();
	atomic_fetch_add(&slept_ms, 30 * 60 * 1000);
	assert_int_equal(read_at(&user, &id, commit, "x.bin", &key, 20, 10, &out, NULL), 0);
	assert_int_equal(count(since, NULL, NULL, NULL), 2);
	assert_int_equal(count(since, "hub", "GET", "/resolve/"), 1);
	assert_int_equal(count(since, "data", "GET", "\"status\": 206"), 1);
	reset_hub();
}

static void test_url_expiry_of_each_style(void **state)
{
	AUTO_BUF out = {0};
	struct repo_id id = make_repo("styles");
	AUTO_FREE char *commit = sparse(&id, "x.bin", "1000", "");
	struct blob_key key = key_of(&id, "x.bin");
	unsigned since = now();

	/* A redirect of CloudFront's style, to a place on the Hub's host name but another port. */
	fault("{\"path\": \"/resolve/\", \"times\": 2, \"action\": {\"status\": 302, \"body\": \"x\", \"headers\": "
	      "{\"Location\": \"http://127.0.0.1:1/x?Expires=99999999999&Policy=p\"}}}");
	assert_int_equal(read_at(&user, &id, commit, "x.bin", &key, 0, 10, &out, NULL), -ENETDOWN);
	assert_int_equal(count(since, "hub", NULL, "/resolve/"), 2);
	reset_hub();
}

static void test_a_cut_read_goes_on(void **state)
{
	struct repo_id id = make_repo("cut");
	AUTO_FREE char *commit = sparse(&id, "x.bin", "1000000", "\"999990\": \"656e64\"");
	struct blob_key key = key_of(&id, "x.bin");
	AUTO_BUF out = {0};
	unsigned since = now();

	fault("{\"origin\": \"data\", \"times\": 3, \"action\": {\"cut_after\": 200000}}");
	assert_int_equal(read_at(&user, &id, commit, "x.bin", &key, 0, 1000000, &out, NULL), 0);
	assert_int_equal(out.len, 1000000);
	assert_string_equal(out.data + 999990, "end");
	assert_int_equal(count(since, "data", NULL, NULL), 4);
	assert_int_equal(count(since, "data", NULL, "bytes=600000-999999"), 1);
	assert_int_equal(count(since, "hub", NULL, "/resolve/"), 1);
	reset_hub();
}

static void test_reading_fails(void **state)
{
	struct repo_id id = make_repo("fails");
	AUTO_FREE char *commit = sparse(&id, "x.bin", "1000", "");
	struct blob_key key = key_of(&id, "x.bin"), wrong = key;
	AUTO_BUF out = {0};
	struct hub_error err;
	atomic_bool cancel = true;
	struct hub_place place = {.id = id, .path = "x.bin"};

	memcpy(place.commit, commit, 41);
	assert_int_equal(read_at(&user, &id, commit, "gone.bin", &key, 0, 10, &out, &err), -ENOENT);
	assert_string_equal(err.code, "EntryNotFound");
	wrong.size = 999;
	wrong.id[0] ^= 1;
	assert_int_equal(read_at(&user, &id, commit, "x.bin", &wrong, 0, 10, &out, NULL), -EIO);
	assert_int_equal(hub_read_range(user.hub, &place, &key, 0, 10, to_buf, &out, &cancel, NULL),
	                 -ECANCELED);
	/* A sink that refuses. */
	out.max = 1;
	assert_int_equal(read_at(&user, &id, commit, "x.bin", &key, 0, 10, &out, NULL), -EFBIG);
	assert_int_equal(out.len, 0);
}

static void test_gated(void **state)
{
	struct repo_id id = make_repo("gated");
	AUTO_FREE char *commit = sparse(&id, "x.bin", "1000", "");
	struct blob_key key = key_of(&id, "x.bin");
	AUTO_BUF out = {0};
	struct hub_error err;
	struct hub_repo repo;

	config("{\"repo\": {\"type\": \"model\", \"id\": \"user/gated\", \"gated\": \"auto\"}}");
	assert_int_equal(hub_repo_info(other.hub, &id, NULL, false, &repo, &err), 0);
	assert_true(repo.gated);
	assert_int_equal(read_at(&other, &id, commit, "x.bin", &key, 0, 10, &out, &err), -EACCES);
	assert_string_equal(err.code, "GatedRepo");
	assert_non_null(strstr(err.text, "request access at"));
	assert_non_null(strstr(err.text, "/user/gated"));
	assert_int_equal(read_at(&nobody, &id, commit, "x.bin", &key, 0, 10, &out, &err), -EACCES);
	assert_int_equal(read_at(&user, &id, commit, "x.bin", &key, 0, 10, &out, &err), 0);
	config("{\"repo\": {\"type\": \"model\", \"id\": \"user/gated\", \"gated\": false, \"disabled\": true}}");
	assert_int_equal(hub_repo_info(user.hub, &id, NULL, false, &repo, &err), -EACCES);
	assert_non_null(strstr(err.text, "disabled"));
}

/* -- publication -- */

static void test_preupload(void **state)
{
	struct repo_id id = make_repo("pre");
	static struct hub_pre_file files[1300] = {
		{.path = "a.txt", .size = 3, .sample = "new", .sample_len = 3},
		{.path = "w.bin", .size = 2000},
		{.path = "empty.bin", .size = 0},
	};
	char head[41], want[41];
	struct blob_key key;
	struct hub_error err;
	unsigned since;

	commit_text(&id, "a.txt", "old", want);
	key = key_of(&id, "a.txt");
	for (int i = 3; i < 1300; i++)
		files[i] = (struct hub_pre_file){.path = "a.txt", .size = 1};
	since = now();
	assert_int_equal(hub_preupload(user.hub, &id, "main", false, files, 1300, head, &err), 0);
	assert_int_equal(count(since, "hub", "POST", "/preupload/"), 2);
	assert_string_equal(head, want);
	assert_false(files[0].lfs);
	assert_true(files[0].has_remote);
	assert_memory_equal(files[0].remote.id, key.id, sizeof(key.id));
	assert_true(files[1].lfs);
	assert_false(files[1].has_remote);
	assert_false(files[2].lfs);
	assert_int_equal(hub_preupload(other.hub, &id, "main", false, files, 1, head, &err), -EACCES);
	assert_int_equal(hub_preupload(other.hub, &id, "main", true, files, 1, head, &err), 0);
	assert_int_equal(hub_preupload(nobody.hub, &id, "main", false, files, 1, head, &err), -EACCES);
	files[0].path = "a\xff";
	assert_int_equal(hub_preupload(user.hub, &id, "main", false, files, 1, head, &err), -EILSEQ);
}

#define LFS_FILES 6
struct payload {
	struct text texts[LFS_FILES];
	struct hub_lfs_file files[LFS_FILES];
	atomic_uint_fast64_t sent[LFS_FILES];
	char *data;
};

/* Files of 1000, 2000 … bytes, other ones for each seed; the last has the content of the first. */
static void payload_make(struct payload *p, unsigned seed)
{
	*p = (struct payload){.data = malloc(100000)};
	for (unsigned i = 0; i < 100000; i++)
		p->data[i] = (char)(i * 7 + i / 256 + seed * 13);
	for (unsigned i = 0; i < LFS_FILES; i++) {
		unsigned k = i == LFS_FILES - 1 ? 0 : i;

		p->texts[i] = (struct text){p->data + k, 1000 * (k + 1)};
		p->files[i] = (struct hub_lfs_file){.source = text_source, .arg = &p->texts[i],
		                                    .sent = &p->sent[i]};
		assert_int_equal(hash_buf(HASH_SHA256, p->texts[i].data, p->texts[i].len, &p->files[i].key),
		                 0);
	}
}

static int upload(struct payload *p, const struct repo_id *id, struct hub_error *err)
{
	return hub_lfs_upload(user.hub, id, "main", false, p->files, LFS_FILES, 3, NULL, err);
}

/* Commits them and reads each back. */
static void check_payload(struct payload *p, const struct repo_id *id)
{
	struct hub_op ops[LFS_FILES];
	char *names[LFS_FILES], commit[41];

	for (unsigned i = 0; i < LFS_FILES; i++) {
		names[i] = util_printf("f%u.bin", i);
		ops[i] = (struct hub_op){.kind = HUB_OP_LFS, .path = names[i], .key = p->files[i].key};
	}
	commit_ops(id, ops, LFS_FILES, commit);
	for (unsigned i = 0; i < LFS_FILES; i++) {
		AUTO_BUF out = {0};

		assert_int_equal(read_at(&user, id, commit, names[i], &p->files[i].key, 0, p->texts[i].len,
		                         &out, NULL), 0);
		assert_memory_equal(out.data, p->texts[i].data, p->texts[i].len);
		free(names[i]);
	}
}

static void test_basic_uploads(void **state)
{
	struct repo_id id = make_repo("basic");
	struct hub_error err;
	struct payload p;
	unsigned since = now();

	payload_make(&p, 1);
	fault("{\"origin\": \"data\", \"method\": \"PUT\", \"action\": {\"status\": 503}}");
	assert_int_equal(upload(&p, &id, &err), 0);
	for (unsigned i = 0; i < LFS_FILES; i++) {
		assert_int_equal(p.files[i].result, 0);
		assert_false(p.files[i].was_there);
		assert_int_equal(p.sent[i], p.texts[i].len);
	}
	/* One of six has another's content; one met the fault. */
	assert_int_equal(count(since, "hub", "POST", "/objects/batch"), 1);
	assert_int_equal(count(since, "data", "PUT", NULL), 6);
	assert_int_equal(count(since, "hub", "POST", "/objects/verify"), 5);
	check_payload(&p, &id);
	since = now();
	assert_int_equal(upload(&p, &id, &err), 0);
	assert_true(p.files[3].was_there);
	assert_int_equal(count(since, NULL, NULL, NULL), 1);
	assert_int_equal(count(0, "data", NULL, "\"token\": true"), 0);
	free(p.data);
	reset_hub();
}

static void test_multipart_uploads(void **state)
{
	struct repo_id id = make_repo("multipart");
	struct hub_error err;
	struct payload p;
	unsigned since;

	config("{\"multipart_threshold\": 1500, \"chunk_size\": 700}");
	payload_make(&p, 2);
	/* One part fails once: it alone is sent again. */
	fault("{\"origin\": \"data\", \"method\": \"PUT\", \"path\": \"/00002\", \"action\": {\"status\": 500}}");
	since = now();
	assert_int_equal(upload(&p, &id, &err), 0);
	/* 1000 bytes basic; 2000, 3000, 4000, 5000 in 3 + 5 + 6 + 8 parts. */
	assert_int_equal(count(since, "data", "PUT", NULL), 1 + 22 + 1);
	assert_int_equal(count(since, "hub", "POST", "complete_multipart"), 4);
	assert_int_equal(count(since, "hub", "POST", "/objects/batch"), 1);
	check_payload(&p, &id);
	free(p.data);
	/* The answer to a completion is lost: a new batch tells that it was done. */
	payload_make(&p, 3);
	fault("{\"path\": \"complete_multipart\", \"action\": {\"lose_answer\": true}}");
	since = now();
	assert_int_equal(upload(&p, &id, &err), 0);
	assert_int_equal(count(since, "data", "PUT", NULL), 23);
	assert_int_equal(count(since, "hub", "POST", "/objects/batch"), 2);
	check_payload(&p, &id);
	free(p.data);
	reset_hub();
}

static void test_expired_uploads(void **state)
{
	struct repo_id id = make_repo("expired");
	struct hub_error err;
	struct payload p;
	unsigned since = now();

	payload_make(&p, 4);
	fault("{\"origin\": \"data\", \"method\": \"PUT\", \"times\": 2, \"action\": {\"status\": 403}}");
	assert_int_equal(upload(&p, &id, &err), 0);
	assert_int_equal(count(since, "hub", "POST", "/objects/batch"), 2);
	assert_int_equal(count(since, "data", "PUT", NULL), 7);
	for (unsigned i = 0; i < LFS_FILES; i++)
		assert_int_equal(p.sent[i], p.texts[i].len);
	free(p.data);
	/* Born expired, again and again. */
	config("{\"upload_lifetime_s\": 0}");
	payload_make(&p, 5);
	since = now();
	assert_int_equal(upload(&p, &id, &err), -EACCES);
	assert_int_equal(err.status, 403);
	assert_int_equal(p.files[0].result, -EACCES);
	assert_int_equal(p.sent[0], 0);
	assert_true(count(since, "hub", "POST", "/objects/batch") <= 4);
	free(p.data);
	reset_hub();
}

static ssize_t failing_source(void *arg, void *data, size_t len, uint64_t off)
{
	return -ENOSPC;
}

static void test_uploads_fail(void **state)
{
	struct repo_id id = make_repo("upfail");
	atomic_bool cancel = true;
	struct hub_error err;
	struct payload p;

	payload_make(&p, 6);
	p.files[2].source = failing_source;
	assert_int_equal(upload(&p, &id, &err), -ENOSPC);
	assert_int_equal(p.files[2].result, -ENOSPC);
	assert_int_equal(p.files[1].result, 0);
	assert_int_equal(p.files[3].result, 0);
	assert_int_equal(hub_lfs_upload(other.hub, &id, "main", false, p.files, LFS_FILES, 3, NULL, &err),
	                 -EACCES);
	assert_int_equal(hub_lfs_upload(user.hub, &id, "main", false, p.files, LFS_FILES, 3, &cancel, &err),
	                 -ECANCELED);
	fault("{\"path\": \"/objects/batch\", \"action\": {\"status\": 403, \"body\": "
	      "{\"error\": \"Private repository storage limit reached, please upgrade\"}}}");
	assert_int_equal(upload(&p, &id, &err), -EDQUOT);
	assert_non_null(strstr(err.text, "storage limit reached"));
	free(p.data);
	reset_hub();
}

static void test_commit(void **state)
{
	struct repo_id id = make_repo("commit");
	AUTO_BUF big = {0};
	AUTO_BUF out = {0};
	struct text texts[3] = {{"hello\n", 6}, {"", 0}};
	struct hub_op ops[4];
	struct hub_entries e = {0};
	char commit[41];

	/* More than the spool keeps in memory, and no multiple of three. */
	for (int i = 0; i < 100000; i++)
		assert_int_equal(buf_addf(&big, "line %d of many\n", i), 0);
	texts[2] = (struct text){big.data, big.len};
	ops[0] = file_op("d/\"quoted\"\t\xc3\xa9", &texts[0]);
	ops[1] = file_op("empty", &texts[1]);
	ops[2] = file_op("big.txt", &texts[2]);
	commit_ops(&id, ops, 3, commit);
	assert_int_equal(read_at(&user, &id, commit, "big.txt", &ops[2].key, 0, big.len, &out, NULL), 0);
	assert_int_equal(out.len, big.len);
	assert_memory_equal(out.data, big.data, big.len);
	ops[1] = (struct hub_op){.kind = HUB_OP_DELETE, .path = "empty"};
	ops[0] = (struct hub_op){.kind = HUB_OP_DELETE, .path = "d/\"quoted\"\t\xc3\xa9"};
	ops[2].path = "e";
	commit_ops(&id, ops, 3, commit);
	assert_int_equal(hub_tree(user.hub, &id, commit, "", true, &e, NULL), 0);
	assert_int_equal(e.n, 3); /* .gitattributes, big.txt, e */
	hub_entries_fini(&e);
}

static void test_commit_as_pull_request(void **state)
{
	CLEANUP(hub_commit_result_fini) struct hub_commit_result result = {0};
	struct repo_id id = make_repo("proposed");
	struct text text = {"x", 1};
	struct hub_op op = file_op("a", &text);
	char head[41];
	struct hub_commit_req req = {
		.rev = "main", .title = "mine", .parent = head, .create_pr = true, .ops = &op, .n = 1};

	head_of(&id, head);
	assert_int_equal(hub_commit(other.hub, &id, &req, &result, NULL), 0);
	assert_non_null(result.pr_url);
	assert_non_null(strstr(result.pr_url, "/discussions/1"));
}

/* One commit that must fail with `want`. */
static void fail_commit(struct user *u, const struct repo_id *id, const char *parent, const struct hub_op *op,
                        int want,
                        struct hub_error *err)
{
	struct hub_commit_result result = {0};
	struct hub_commit_req req = {.rev = "main", .title = "no", .parent = parent, .ops = op, .n = 1};

	assert_int_equal(hub_commit(u->hub, id, &req, &result, err), want);
	assert_null(result.url);
}

static void test_commits_fail(void **state)
{
	struct repo_id id = make_repo("confail");
	struct text text = {"x", 1};
	struct hub_op op = file_op("a", &text), bad = op, missing = {.kind = HUB_OP_DELETE, .path = "none"};
	struct hub_error err;
	char old[41], head[41];
	unsigned since;

	head_of(&id, old);
	commit_text(&id, "b", "1", head);
	since = now();
	fail_commit(&user, &id, old, &op, -ESTALE, &err);
	assert_int_equal(err.status, 412);
	assert_false(err.maybe_done);
	fail_commit(&other, &id, head, &op, -EACCES, &err);
	fail_commit(&nobody, &id, head, &op, -EACCES, &err);
	fail_commit(&user, &id, head, &missing, -ENOENT, &err);
	fault("{\"path\": \"/commit/\", \"action\": {\"status\": 409}}");
	fail_commit(&user, &id, head, &op, -EBUSY, &err);
	fault("{\"path\": \"/commit/\", \"action\": {\"status\": 429, \"headers\": {\"Retry-After\": \"3600\"}}}");
	fail_commit(&user, &id, head, &op, -EDQUOT, &err);
	assert_int_equal(err.retry_after_s, 3600);
	fault("{\"path\": \"/commit/\", \"action\": {\"status\": 400, \"body\": {\"error\": \"Your push was rejected because "
	      "it contains too many files per directory\"}}}");
	fail_commit(&user, &id, head, &op, -EMLINK, &err);
	fault("{\"path\": \"/commit/\", \"action\": {\"status\": 400, \"body\": {\"error\": \"Your push was rejected because "
	      "it contains files larger than 10 MiB\"}}}");
	fail_commit(&user, &id, head, &op, -EFBIG, &err);
	fault("{\"path\": \"/commit/\", \"action\": {\"status\": 400, \"body\": {\"error\": "
	      "\"LFS pointer pointed to a file that does not exist\"}}}");
	fail_commit(&user, &id, head, &op, -EIO, &err);
	assert_string_equal(err.code, "LfsObjectMissing");
	assert_int_equal(count(since, "hub", "POST", "/commit/"), 9);
	/* Never sent. */
	bad.path = "a\xff";
	fail_commit(&user, &id, head, &bad, -EILSEQ, &err);
	bad = op;
	bad.source = failing_source;
	fail_commit(&user, &id, head, &bad, -ENOSPC, &err);
	assert_false(err.maybe_done);
	assert_int_equal(count(since, "hub", "POST", "/commit/"), 9);
	reset_hub();
}

static void test_lost_answers_of_commits(void **state)
{
	static const char *const faults[] = {
		"{\"path\": \"/commit/\", \"action\": {\"lose_answer\": true}}",
		"{\"path\": \"/commit/\", \"action\": {\"lose_answer_status\": 504}}",
	};
	struct repo_id id = make_repo("lost");

	for (size_t i = 0; i < ARRAY_LEN(faults); i++) {
		char contents[2] = {(char)('x' + i), '\0'};
		struct text text = {contents, 1};
		struct hub_op op = file_op("a", &text);
		struct hub_error err;
		char before[41], after[41];
		unsigned since = now();

		head_of(&id, before);
		fault(faults[i]);
		fail_commit(&user, &id, before, &op, -EIO, &err);
		assert_true(err.maybe_done);
		assert_int_equal(count(since, "hub", "POST", "/commit/"), 1);
		head_of(&id, after);
		assert_string_not_equal(before, after);
	}
	reset_hub();
}

static void test_paths_that_the_hub_takes(void **state)
{
	char longest[1002];

	memset(longest, 'a', sizeof(longest));
	longest[1000] = '\0';
	assert_int_equal(hub_path_check("a b#c?%25.txt"), 0);
	assert_int_equal(hub_path_check("d/\xc3\xa9t\xc3\xa9/.gitattributes"), 0);
	assert_int_equal(hub_path_check(longest), 0);
	longest[1000] = 'a';
	longest[1001] = '\0';
	assert_int_equal(hub_path_check(longest), -ENAMETOOLONG);
	assert_int_equal(hub_path_check("a\\b"), -EINVAL);
	assert_int_equal(hub_path_check(".git"), -EINVAL);
	assert_int_equal(hub_path_check("d/.GIT"), -EINVAL);
	assert_int_equal(hub_path_check("a/.git/b"), -EINVAL);
	assert_int_equal(hub_path_check("\xff"), -EILSEQ);
	assert_int_equal(hub_path_check("d/\xc0\xaf"), -EILSEQ);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_paths_that_the_hub_takes),
		cmocka_unit_test(test_whoami),
		cmocka_unit_test(test_repo_info),
		cmocka_unit_test(test_a_bad_token),
		cmocka_unit_test(test_no_network),
		cmocka_unit_test(test_who_may_write),
		cmocka_unit_test(test_refs),
		cmocka_unit_test(test_commits),
		cmocka_unit_test(test_tree),
		cmocka_unit_test(test_paths_info),
		cmocka_unit_test(test_bad_answers),
		cmocka_unit_test(test_a_renamed_repository),
		cmocka_unit_test(test_read_regular),
		cmocka_unit_test(test_read_lfs),
		cmocka_unit_test(test_readers_share_one_resolve),
		cmocka_unit_test(test_expiry),
		cmocka_unit_test(test_a_url_ages_in_a_sleep),
		cmocka_unit_test(test_url_expiry_of_each_style),
		cmocka_unit_test(test_a_cut_read_goes_on),
		cmocka_unit_test(test_reading_fails),
		cmocka_unit_test(test_gated),
		cmocka_unit_test(test_preupload),
		cmocka_unit_test(test_basic_uploads),
		cmocka_unit_test(test_multipart_uploads),
		cmocka_unit_test(test_expired_uploads),
		cmocka_unit_test(test_uploads_fail),
		cmocka_unit_test(test_commit),
		cmocka_unit_test(test_commit_as_pull_request),
		cmocka_unit_test(test_commits_fail),
		cmocka_unit_test(test_lost_answers_of_commits),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
