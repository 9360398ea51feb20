/* Fuzz target: every reader of hub_json, and the writer, on the same bytes.
 *
 *     clang -fsanitize=fuzzer,address,undefined … tests/unit/fuzz_hub_json.c cache/hub_json.c …
 */
#include <assert.h>
#include <string.h>

#include "hub_json.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void read_all(const char *text, size_t len)
{
	struct hub_pre_file files[2] = {{.path = "a", .size = 1}, {.path = "b", .size = 2}};
	struct hub_whoami who = {0};
	struct hub_refs refs = {0};
	struct hub_commits commits = {0};
	struct hub_entries entries = {0};
	struct hub_json_lfs_batch batch = {0};
	struct hub_commit_result result = {0};
	struct hub_repo repo;
	char head[41], said[40];
	size_t skipped = 0;
	int sum = 0;

	sum += hub_json_whoami(text, len, &who);
	sum += hub_json_repo(text, len, REPO_MODEL, &repo);
	sum += hub_json_refs(text, len, &refs);
	sum += hub_json_commits(text, len, &commits);
	sum += hub_json_entries(text, len, &entries, &skipped);
	sum += hub_json_entries(text, len, &entries, &skipped);
	sum += hub_json_preupload(text, len, files, 2, head);
	sum += hub_json_lfs_batch(text, len, &batch);
	sum += hub_json_commit_result(text, len, &result);
	hub_json_error(text, len, said, sizeof(said));
	assert(sum <= 0 && strlen(said) < sizeof(said));
	hub_whoami_fini(&who);
	hub_refs_fini(&refs);
	hub_commits_fini(&commits);
	hub_entries_fini(&entries);
	hub_json_lfs_batch_fini(&batch);
	hub_commit_result_fini(&result);
}

/* What is written is one string that the reader takes. */
static void write_and_read(const char *text)
{
	AUTO_BUF out = {0};
	struct hub_json_writer w;
	char said[64];

	hub_json_write_init(&w, &out);
	hub_json_write_object(&w, NULL);
	hub_json_write_string(&w, "error", text);
	hub_json_write_end(&w);
	if (hub_json_write_done(&w) < 0)
		return;
	hub_json_error(out.data, out.len, said, sizeof(said));
	assert(!text[0] == !said[0]);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *text = malloc(size + 1);

	if (!text)
		return 0;
	memcpy(text, data, size);
	text[size] = '\0';
	read_all(text, size);
	write_and_read(text);
	free(text);
	return 0;
}
