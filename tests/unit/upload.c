/* Unit tests of upload: the real stage against a Hub in memory. */
#include "upload.h"

#include "fake_hub.h"
#include "log.h"

struct fixture {
	char dir[64];
	struct stage *stage;
	struct repo_id repo;
	atomic_bool cancel;
	struct upload_progress progress;
	struct upload up;
};

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));
	const char *tmp = getenv("TMPDIR");
	struct stage_ident ident = {
		.endpoint = "http://hub", .repo = {.type = REPO_MODEL, .ns = "user", .name = "repo"},
		.rev = "main",
		.internal_id = "0123456789abcdef01234567",
	};

	snprintf(f->dir, sizeof(f->dir), "%s/hugfs-upload-XXXXXX", tmp ? tmp : "/tmp");
	assert_non_null(mkdtemp(f->dir));
	assert_int_equal(stage_open(f->dir, &ident, true, &f->stage), 0);
	f->repo = ident.repo;
	f->up = (struct upload){
		.hub = (struct hub *)1, .fetch = (struct fetch *)1, .stage = f->stage, .repo = &f->repo,
		.rev = "main",
		.cancel = &f->cancel, .progress = &f->progress,
	};
	fake_push("big.bin", "0123456789", "text", "abcdefghij", NULL);
	assert_int_equal(stage_set_parent(f->stage, fake_head()->id), 0);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;
	AUTO_FREE char *rm = util_printf("rm -rf '%s'", f->dir);

	stage_close(f->stage);
	assert_int_equal(system(rm), 0);
	free(f);
	fake_reset();
	return 0;
}

static void freep(struct upload_file **f)
{
	upload_file_free(*f);
}
#define AUTO_FILE CLEANUP(freep) struct upload_file

static uint64_t make(struct fixture *f, const char *name, const char *text)
{
	uint64_t node = 0;

	assert_int_equal(stage_create(f->stage, STAGE_ROOT, name, 0644, &node), 0);
	assert_int_equal(stage_writer_open(f->stage, node), 0);
	assert_int_equal(stage_write(f->stage, node, 0, text, strlen(text), 1), 0);
	assert_true(stage_writer_flush(f->stage, node, 1, false) >= 0);
	stage_writer_close(f->stage, node);
	return node;
}

/* The frozen file `name`. */
static struct upload_file *frozen(struct fixture *f, const char *name)
{
	CLEANUP(stage_freeze_fini) struct stage_freeze list = {0};
	struct upload_file *file = NULL;

	assert_int_equal(stage_freeze(f->stage, NULL, 0, 0, &list), 0);
	for (size_t i = 0; i < list.n; i++) {
		if (strcmp(list.files[i].path, name) == 0)
			assert_int_equal(upload_file_frozen(&f->up, name, &list.files[i], &file), 0);
	}
	assert_non_null(file);
	return file;
}

/* `text` over what the branch has as `name` from `off`; left open. */
static uint64_t edit(struct fixture *f, const char *name, uint64_t off, const char *text)
{
	struct stage_blob blob = {.path = name, .mode = 0644, .key = fake_find(fake_head(), name)->key};
	uint64_t node = 0;

	memcpy(blob.commit, fake_head()->id, sizeof(blob.commit));
	assert_int_equal(stage_borrow(f->stage, STAGE_ROOT, name, &blob, &node), 0);
	assert_int_equal(stage_writer_open(f->stage, node), 0);
	assert_int_equal(stage_write(f->stage, node, off, text, strlen(text), 1), 0);
	assert_true(stage_writer_flush(f->stage, node, 1, false) >= 0);
	stage_writer_close(f->stage, node);
	return node;
}

static void check_digests(const struct upload_file *file, const char *text)
{
	struct blob_key key;

	assert_int_equal(hash_buf(HASH_SHA256, text, strlen(text), &key), 0);
	assert_true(file->has_sha256 && hash_key_equal(&key, &file->sha256));
	assert_true(upload_is(file, &key));
	assert_int_equal(hash_buf(HASH_GIT_SHA1, text, strlen(text), &key), 0);
	assert_true(file->has_git && hash_key_equal(&key, &file->git));
	assert_true(upload_is(file, &key));
	key.id[3] ^= 1;
	assert_false(upload_is(file, &key));
}

static void digests_of_new_bytes(void **state)
{
	struct fixture *f = *state;

	make(f, "a", "hello");
	make(f, "empty", "");
	AUTO_FILE *a = frozen(f, "a");
	AUTO_FILE *empty = frozen(f, "empty");
	assert_int_equal(upload_digest(a), 0);
	assert_int_equal(upload_digest(empty), 0);
	check_digests(a, "hello");
	check_digests(empty, "");
	assert_int_equal(f->progress.hashed, 5);
	/* They are remembered. */
	AUTO_FILE *again = frozen(f, "a");
	assert_int_equal(upload_digest(again), 0);
	check_digests(again, "hello");
	assert_int_equal(f->progress.hashed, 5);
}

static void bytes_over_a_blob_are_assembled(void **state)
{
	struct fixture *f = *state;
	AUTO_FREE char *path = NULL;
	AUTO_FREE char *text = NULL;
	char buf[32] = "";
	bool exists = true;

	edit(f, "big.bin", 3, "XY");
	AUTO_FILE *file = frozen(f, "big.bin");
	assert_int_equal(stage_whole_path(f->stage, file->node, file->layer, &path, &exists), 0);
	assert_false(exists);
	assert_int_equal(upload_digest(file), 0);
	check_digests(file, "012XY56789");
	assert_true(fake.fetched > 0);
	free(STEAL(path));
	assert_int_equal(stage_whole_path(f->stage, file->node, file->layer, &path, &exists), 0);
	assert_true(exists);
	assert_int_equal(util_read_file(path, 100, &text, NULL), 0);
	assert_string_equal(text, "012XY56789");
	assert_int_equal(upload_read(file, buf, sizeof(buf), 0), 10);
	assert_string_equal(buf, "012XY56789");
	assert_int_equal(upload_read(file, buf, 4, 2), 4);
	assert_memory_equal(buf, "2XY5", 4);
	assert_int_equal(upload_read(file, buf, 4, 10), 0);
}

static void a_cache_copy_that_cannot_be_written_is_done_without(void **state)
{
	struct fixture *f = *state;
	AUTO_FREE char *path = NULL;
	AUTO_FREE char *tmp = NULL;
	bool exists;

	edit(f, "big.bin", 3, "XY");
	AUTO_FILE *file = frozen(f, "big.bin");
	assert_int_equal(stage_whole_path(f->stage, file->node, file->layer, &path, &exists), 0);
	tmp = util_printf("%s.tmp", path);
	assert_int_equal(util_mkdirs(tmp), 0); /* in its way */
	assert_int_equal(log_set_levels("err"), 0);
	assert_int_equal(upload_digest(file), 0);
	assert_int_equal(log_set_levels("info"), 0);
	check_digests(file, "012XY56789");
	assert_int_equal(rmdir(tmp), 0);
}

static void the_hub_judges(void **state)
{
	struct fixture *f = *state;
	struct upload_file *files[4];
	char head[41] = "";

	make(f, "new", "n");
	make(f, "new.bin", "N");
	make(f, "zero.bin", "");
	edit(f, "big.bin", 0, "0"); /* the same bytes */
	AUTO_FILE *new = files[0] = frozen(f, "new");
	AUTO_FILE *lfs = files[1] = frozen(f, "new.bin");
	AUTO_FILE *zero = files[2] = frozen(f, "zero.bin");
	AUTO_FILE *same = files[3] = frozen(f, "big.bin");
	for (size_t i = 0; i < ARRAY_LEN(files); i++)
		assert_int_equal(upload_digest(files[i]), 0);
	assert_int_equal(upload_judge(&f->up, files, ARRAY_LEN(files), head, NULL), 0);
	assert_string_equal(head, fake_head()->id);
	assert_true(new->judged && lfs->judged && zero->judged && same->judged);
	assert_false(new->lfs);
	assert_true(lfs->lfs && !lfs->ready);
	assert_false(zero->lfs);
	assert_true(same->lfs && same->ready);
	assert_int_equal(upload_key(new)->alg, HASH_GIT_SHA1);
	assert_int_equal(upload_key(lfs)->alg, HASH_SHA256);
	/* Not again. */
	assert_int_equal(upload_judge(&f->up, files, ARRAY_LEN(files), head, NULL), 0);
	assert_int_equal(fake.preuploads, 1);
	assert_int_equal(upload_send(&f->up, files, ARRAY_LEN(files), NULL), 0);
	assert_int_equal(fake.puts, 1);
	assert_true(lfs->ready);
	assert_int_equal(f->progress.sent, 1);
	assert_int_equal(f->progress.to_send, 1);
	assert_int_equal(upload_send(&f->up, files, ARRAY_LEN(files), NULL), 0);
	assert_int_equal(fake.batches, 1);
}

static void many_are_judged_in_batches(void **state)
{
	enum { N = 600 };
	struct fixture *f = *state;
	struct upload_file *files[N];
	struct stage_frozen it = {.path = NULL, .size = 2};
	char name[20], head[41];

	it.node = make(f, "a", "aa");
	it.layer = 0;
	{
		AUTO_FILE *one = frozen(f, "a");
		it.layer = one->layer;
	}
	for (size_t i = 0; i < N; i++) {
		snprintf(name, sizeof(name), "f%zu.bin", i);
		assert_int_equal(upload_file_frozen(&f->up, name, &it, &files[i]), 0);
		assert_int_equal(upload_digest(files[i]), 0);
	}
	files[7]->judged = true;
	assert_int_equal(upload_judge(&f->up, files, N, head, NULL), 0);
	assert_int_equal(fake.preuploads, (N - 1 + 999) / 1000);
	assert_int_equal(fake.judged, N - 1);
	/* One content goes once. */
	assert_int_equal(upload_send(&f->up, files, N, NULL), 0);
	assert_int_equal(fake.puts, 1);
	for (size_t i = 0; i < N; i++)
		upload_file_free(files[i]);
}

static void committed_content(void **state)
{
	struct fixture *f = *state;
	struct upload_file *files[2];
	AUTO_FILE *lfs = NULL;
	AUTO_FILE *text = NULL;
	struct fake_commit *c = fake_head();
	char head[41], buf[20] = "";

	assert_int_equal(upload_file_blob(&f->up, "copy.bin", &fake_find(c, "big.bin")->key, c->id, "big.bin",
	                                  &lfs), 0);
	assert_int_equal(upload_file_blob(&f->up, "text.bin", &fake_find(c, "text")->key, c->id, "text",
	                                  &text), 0);
	files[0] = lfs;
	files[1] = text;
	assert_int_equal(upload_judge(&f->up, files, 2, head, NULL), 0);
	assert_int_equal(fake.judged, 1); /* LFS content goes by its name alone */
	assert_true(text->lfs);
	assert_int_equal(upload_send(&f->up, files, 2, NULL), 0);
	assert_int_equal(fake.puts, 1); /* regular content that is LFS under its new name */
	check_digests(text, "abcdefghij");
	assert_int_equal(upload_key(lfs)->alg, HASH_SHA256);
	assert_int_equal(upload_read(text, buf, sizeof(buf), 5), 5);
	assert_string_equal(buf, "fghij");
}

static void failures(void **state)
{
	struct fixture *f = *state;
	struct hub_error err = {0};
	struct upload_file *files[1];
	char head[41], byte;

	make(f, "a.bin", "hello");
	AUTO_FILE *a = files[0] = frozen(f, "a.bin");
	assert_int_equal(upload_digest(a), 0);
	fake.preupload = (struct fake_fault){.err = -EACCES, .status = 403, .times = 1};
	assert_int_equal(upload_judge(&f->up, files, 1, head, &err), -EACCES);
	assert_int_equal(err.status, 403);
	assert_false(a->judged);
	assert_int_equal(upload_judge(&f->up, files, 1, head, &err), 0);
	fake.batch = (struct fake_fault){.err = -EDQUOT, .status = 403, .times = 1};
	assert_int_equal(upload_send(&f->up, files, 1, &err), -EDQUOT);
	assert_false(a->ready);
	f->cancel = true;
	assert_int_equal(upload_read(a, &byte, 1, 0), -ECANCELED);
	assert_int_equal(upload_digest(a), 0); /* known */
	AUTO_FILE *b = NULL;
	f->cancel = false;
	make(f, "b", "b");
	b = frozen(f, "b");
	f->cancel = true;
	assert_int_equal(upload_digest(b), -ECANCELED);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(digests_of_new_bytes),
		TEST(bytes_over_a_blob_are_assembled),
		TEST(a_cache_copy_that_cannot_be_written_is_done_without),
		TEST(the_hub_judges),
		TEST(many_are_judged_in_batches),
		TEST(committed_content),
		TEST(failures),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
