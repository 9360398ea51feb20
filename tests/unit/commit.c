/* Unit tests of commit: the real stage, upload and plan against a Hub in memory. */
#include "commit.h"

#include "fake_hub.h"

struct fixture {
	char dir[64];
	struct stage *stage;
	struct commit *commit;
	struct ignore *ignore;
	atomic_bool cancel;
	struct commit_progress progress;
	struct commit_ask ask;
	struct commit_result result;
	unsigned settles;
	int settle_err; /* of the next settle */
	bool (*join)(struct fixture *f);
};

static int on_settle(void *arg, const char *ref, const char *commit, int64_t date_s)
{
	CLEANUP(stage_settled_fini) struct stage_settled settled = {0};
	struct fixture *f = arg;
	int r = f->settle_err;

	f->settle_err = 0;
	if (r < 0)
		return r;
	assert_true(date_s > 0);
	r = stage_settle(f->stage, commit, &settled);
	if (r == 0) {
		fake_lock();
		memcpy(fake.known, commit, 41);
		fake_unlock();
		f->settles++;
		stage_check(f->stage);
	}
	return r;
}

static bool on_join(void *arg)
{
	struct fixture *f = arg;
	bool (*join)(struct fixture *f) = f->join;

	f->join = NULL;
	return join && join(f);
}

static void open_stage(struct fixture *f)
{
	struct stage_ident ident = {
		.endpoint = "http://hub", .repo = {.type = REPO_MODEL, .ns = "user", .name = "repo"},
		.rev = "main",
		.internal_id = "0123456789abcdef01234567",
	};
	struct commit_env env = {
		.hub = (struct hub *)1, .tree = (struct tree *)1, .blocks = (struct blocks *)1,
		.fetch = (struct fetch *)1,
		.ignore = f->ignore, .repo = ident.repo, .rev = "main", .max_ops = 25000, .settle = on_settle, .arg = f,
	};

	assert_int_equal(stage_open(f->dir, &ident, true, &f->stage), 0);
	env.stage = f->stage;
	assert_int_equal(commit_new(&env, &f->commit), 0);
}

static void close_stage(struct fixture *f)
{
	commit_free(f->commit);
	stage_close(f->stage);
}

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));
	const char *tmp = getenv("TMPDIR");
	char *why = NULL;

	snprintf(f->dir, sizeof(f->dir), "%s/hugfs-commit-XXXXXX", tmp ? tmp : "/tmp");
	assert_non_null(mkdtemp(f->dir));
	assert_int_equal(ignore_new(NULL, 0, &f->ignore, &why), 0);
	f->ask = (struct commit_ask){
		.cancel = &f->cancel, .progress = &f->progress, .join = on_join, .arg = f,
	};
	open_stage(f);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;
	AUTO_FREE char *rm = util_printf("rm -rf '%s'", f->dir);

	commit_result_fini(&f->result);
	close_stage(f);
	ignore_free(f->ignore);
	assert_int_equal(system(rm), 0);
	free(f);
	fake_reset();
	return 0;
}

/* The branch at the start; the stage is made against it. */
#define START(f, ...) \
	do { \
		fake_push(__VA_ARGS__, NULL); \
		assert_int_equal(stage_set_parent((f)->stage, fake_head()->id), 0); \
		memcpy(fake.known, fake_head()->id, 41); \
	} while (0)

static uint64_t start_writing(struct fixture *f, uint64_t dir, const char *name, const char *text)
{
	uint64_t node = 0;

	assert_int_equal(stage_create(f->stage, dir, name, 0644, &node), 0);
	assert_int_equal(stage_writer_open(f->stage, node), 0);
	assert_int_equal(stage_write(f->stage, node, 0, text, strlen(text), 1), 0);
	return node;
}

static void stop_writing(struct fixture *f, uint64_t node)
{
	assert_true(stage_writer_flush(f->stage, node, 1, false) >= 0);
	stage_writer_close(f->stage, node);
}

static uint64_t make(struct fixture *f, uint64_t dir, const char *name, const char *text)
{
	uint64_t node = start_writing(f, dir, name, text);

	stop_writing(f, node);
	return node;
}

/* Opens what the branch has at `path` (whose last part is `name`) for writing. */
static uint64_t borrow(struct fixture *f, uint64_t dir, const char *name, const char *path)
{
	struct stage_blob blob = {.path = path, .mode = 0644};
	uint64_t node = 0;
	char parent[41];

	stage_parent(f->stage, parent);
	memcpy(blob.commit, parent, sizeof(blob.commit));
	assert_non_null(fake_find(fake_find_commit(parent), path));
	blob.key = fake_find(fake_find_commit(parent), path)->key;
	assert_int_equal(stage_borrow(f->stage, dir, name, &blob, &node), 0);
	return node;
}

static uint64_t rewrite(struct fixture *f, const char *name, const char *text)
{
	uint64_t node = borrow(f, STAGE_ROOT, name, name);

	assert_int_equal(stage_writer_open(f->stage, node), 0);
	assert_int_equal(stage_truncate(f->stage, node, 0), 0);
	assert_int_equal(stage_write(f->stage, node, 0, text, strlen(text), 1), 0);
	stop_writing(f, node);
	return node;
}

static uint64_t conflicts(struct fixture *f)
{
	struct stage_counts counts;

	stage_counts(f->stage, &counts);
	return counts.conflicts;
}

static int run(struct fixture *f)
{
	int r;

	commit_result_fini(&f->result);
	fake.sent[0] = '\0';
	fake.preuploads = fake.judged = fake.batches = fake.puts = fake.posts = fake.looks = fake.heads = 0;
	fake.adopted = fake.fetched = 0;
	r = commit_run(f->commit, &f->ask, &f->result);
	stage_check(f->stage);
	if (r == 0)
		assert_false(f->result.unsure);
	else
		assert_true(f->result.error.text[0] != '\0');
	return r;
}

#define RUNS(f) assert_int_equal(run(f), 0)
#define TREE(text) assert_string_equal(fake_tree(), text)
#define SENT(text) assert_string_equal(fake.sent, text)

static void new_files(void **state)
{
	struct fixture *f = *state;
	uint64_t dir;

	START(f, "config.json", "{}", "old.bin", "old", "sub/old.txt", "o");
	make(f, STAGE_ROOT, "model.bin", "tensors");
	make(f, STAGE_ROOT, "readme", "text");
	make(f, STAGE_ROOT, "empty.bin", "");
	assert_int_equal(stage_follow(f->stage, STAGE_ROOT, "sub", &dir), 0);
	make(f, dir, "a b#c?%25.txt", "evil");
	assert_int_equal(stage_mkdir(f->stage, dir, "new", 0755, &dir), 0);
	make(f, dir, "deep.bin", "deep");
	assert_int_equal(stage_mkdir(f->stage, STAGE_ROOT, "nothing", 0755, &dir), 0);
	rewrite(f, "config.json", "{1}");
	assert_int_equal(stage_unlink(f->stage, STAGE_ROOT, "old.bin", true), 0);
	RUNS(f);
	SENT("-old.bin +config.json +empty.bin *model.bin +readme +sub/a b#c?%25.txt *sub/new/deep.bin");
	TREE("config.json={1} empty.bin= model.bin=tensors readme=text sub/a b#c?%25.txt=evil "
	     "sub/new/deep.bin=deep sub/old.txt=o");
	assert_string_equal(fake_head()->title, "Add 5 files, update config.json, delete old.bin");
	assert_non_null(strstr(fake_head()->description, "hugfs-commit: "));
	assert_string_equal(f->result.commit, fake_head()->id);
	assert_true(f->result.sent);
	assert_int_equal(fake.preuploads, 1);
	assert_int_equal(fake.batches, 1);
	assert_int_equal(fake.puts, 2);
	assert_int_equal(fake.posts, 1);
	assert_int_equal(fake.heads, 0);
	assert_int_equal(fake.looks, 0);
	assert_int_equal(fake.fetched, 0);
	assert_int_equal(fake.adopted, 5); /* all but the empty one */
	/* Nothing is left, but the empty folder. */
	RUNS(f);
	assert_int_equal(fake.preuploads + fake.posts + fake.batches + fake.looks, 0);
	assert_string_equal(f->result.commit, "");
	assert_int_equal(stage_rmdir(f->stage, STAGE_ROOT, "nothing", false), 0);
	assert_true(stage_empty(f->stage));
}

static void title_and_text_are_kept(void **state)
{
	struct fixture *f = *state;

	START(f, "a", "1");
	f->ask.title = "Mine";
	f->ask.description = "Words.";
	make(f, STAGE_ROOT, "b", "2");
	RUNS(f);
	assert_string_equal(fake_head()->title, "Mine");
	assert_memory_equal(fake_head()->description, "Words.\n\nhugfs-commit: ", 22);
	f->ask.title = f->ask.description = NULL;
	make(f, STAGE_ROOT, "c", "3");
	RUNS(f);
	assert_string_equal(fake_head()->title, "Add c");
	assert_memory_equal(fake_head()->description, "hugfs-commit: ", 14);
}

static void open_files_wait(void **state)
{
	struct fixture *f = *state;
	uint64_t node;

	START(f, "a", "1");
	node = start_writing(f, STAGE_ROOT, "log", "half");
	RUNS(f);
	assert_int_equal(fake.preuploads + fake.posts, 0);
	make(f, STAGE_ROOT, "b", "2");
	RUNS(f);
	SENT("+b");
	assert_int_equal(stage_write(f->stage, node, 4, " done", 5, 1), 0);
	stop_writing(f, node);
	RUNS(f);
	SENT("+log");
	TREE("a=1 b=2 log=half done");
	assert_true(stage_empty(f->stage));
}

static void names_settle_apart_from_bytes(void **state)
{
	struct fixture *f = *state;
	uint64_t node, lfs;

	START(f, "a", "committed", "w.bin", "weights");
	node = borrow(f, STAGE_ROOT, "a", "a");
	assert_int_equal(stage_writer_open(f->stage, node), 0);
	assert_int_equal(stage_write(f->stage, node, 0, "COMM", 4, 1), 0);
	assert_int_equal(stage_rename(f->stage, STAGE_ROOT, "a", true, STAGE_ROOT, "b", NULL), 0);
	lfs = borrow(f, STAGE_ROOT, "w.bin", "w.bin");
	assert_int_equal(stage_rename(f->stage, STAGE_ROOT, "w.bin", true, STAGE_ROOT, "v.bin", NULL), 0);
	assert_true(lfs != node);
	RUNS(f);
	/* The open one goes in with its committed bytes under its present name. */
	SENT("-a -w.bin +b *v.bin");
	TREE("b=committed v.bin=weights");
	assert_int_equal(fake.puts, 0);
	assert_int_equal(fake.judged, 1);
	stop_writing(f, node);
	RUNS(f);
	SENT("+b");
	TREE("b=COMMitted v.bin=weights");
	assert_int_equal(fake.adopted, 1); /* assembled from both */
	assert_true(stage_empty(f->stage));
}

static void a_successor_that_is_open_keeps_what_is_there(void **state)
{
	struct fixture *f = *state;
	uint64_t a, d;

	START(f, "a", "old", "d/x", "1", "d/y", "2", "z", "3");
	assert_int_equal(stage_unlink(f->stage, STAGE_ROOT, "a", true), 0);
	a = start_writing(f, STAGE_ROOT, "a", "new");
	assert_int_equal(stage_rmdir(f->stage, STAGE_ROOT, "d", true), 0);
	d = start_writing(f, STAGE_ROOT, "d", "was a folder");
	assert_int_equal(stage_unlink(f->stage, STAGE_ROOT, "z", true), 0);
	RUNS(f);
	SENT("-z");
	TREE("a=old d/x=1 d/y=2");
	stop_writing(f, a);
	stop_writing(f, d);
	RUNS(f);
	SENT("-d/x -d/y +a +d");
	TREE("a=new d=was a folder");
	assert_true(stage_empty(f->stage));
}

static void a_folder_made_anew_keeps_what_its_open_files_replace(void **state)
{
	struct fixture *f = *state;
	uint64_t dir, node;

	START(f, "d/x", "1", "d/y", "2", "d-", "3", "z", "4");
	assert_int_equal(stage_rmdir(f->stage, STAGE_ROOT, "d", true), 0);
	assert_int_equal(stage_mkdir(f->stage, STAGE_ROOT, "d", 0755, &dir), 0);
	node = start_writing(f, dir, "x", "new");
	RUNS(f);
	SENT("-d/y");
	TREE("d-=3 d/x=1 z=4");
	stop_writing(f, node);
	RUNS(f);
	TREE("d-=3 d/x=new z=4");
	assert_true(stage_empty(f->stage));
}

static void replaced_while_open(void **state)
{
	struct fixture *f = *state;
	uint64_t node;

	START(f, "model.bin", "old");
	node = start_writing(f, STAGE_ROOT, ".tmpAb3", "new");
	assert_int_equal(stage_rename(f->stage, STAGE_ROOT, ".tmpAb3", false, STAGE_ROOT, "model.bin", NULL),
	                 0);
	make(f, STAGE_ROOT, "other", "o");
	RUNS(f);
	TREE("model.bin=old other=o");
	stop_writing(f, node);
	RUNS(f);
	TREE("model.bin=new other=o");
	assert_true(stage_empty(f->stage));
}

static void rename_of_a_folder(void **state)
{
	struct fixture *f = *state;
	struct stage_base pin = {.kind = STAGE_BASE_PINNED, .path = (char *)"ckpt"};
	uint64_t dir, sub;

	START(f, "ckpt/w.bin", "weights", "ckpt/c.json", "{}", "ckpt/sub/s.txt", "s", "ckpt/sub/t.txt", "t",
	      "ckpt/__pycache__/x", "junk", "keep", "k");
	assert_int_equal(stage_follow(f->stage, STAGE_ROOT, "ckpt", &dir), 0);
	memcpy(pin.commit, fake_head()->id, sizeof(pin.commit));
	assert_int_equal(stage_rename(f->stage, STAGE_ROOT, "ckpt", true, STAGE_ROOT, "best", &pin), 0);
	make(f, dir, "n.txt", "new");
	assert_int_equal(stage_follow(f->stage, dir, "sub", &sub), 0);
	assert_int_equal(stage_unlink(f->stage, sub, "t.txt", true), 0);
	RUNS(f);
	TREE("best/__pycache__/x=junk best/c.json={} best/n.txt=new best/sub/s.txt=s best/w.bin=weights "
	     "keep=k");
	assert_int_equal(fake.puts, 0); /* large files by reference */
	assert_true(fake.fetched > 0);  /* regular ones from the cache */
	assert_int_equal(fake.posts, 1);
	/* The overlay is gone: the same again is nothing. */
	RUNS(f);
	assert_int_equal(fake.posts, 0);
	assert_true(stage_empty(f->stage));
}

static void what_is_not_published(void **state)
{
	struct fixture *f = *state;
	uint64_t dir, node;

	START(f, "a", "1", "held.tmp", "h", "d/x", "x");
	make(f, STAGE_ROOT, "x.tmp", "junk");
	assert_int_equal(stage_mkdir(f->stage, STAGE_ROOT, ".cache", 0755, &dir), 0);
	make(f, dir, "inside", "junk");
	assert_int_equal(stage_mkdir(f->stage, dir, "deeper", 0755, &dir), 0);
	make(f, dir, "inside", "junk");
	RUNS(f);
	assert_int_equal(fake.preuploads + fake.posts, 0); /* no byte left */
	/* What the branch holds by such a name is ordinary. */
	rewrite(f, "held.tmp", "changed");
	RUNS(f);
	SENT("+held.tmp");
	/* A rename to such a name is a deletion, from one an addition. */
	node = borrow(f, STAGE_ROOT, "a", "a");
	assert_true(node > 0);
	assert_int_equal(stage_rename(f->stage, STAGE_ROOT, "a", true, STAGE_ROOT, "a~", NULL), 0);
	assert_int_equal(stage_rename(f->stage, STAGE_ROOT, "x.tmp", false, STAGE_ROOT, "x", NULL), 0);
	RUNS(f);
	SENT("-a +x");
	TREE("d/x=x held.tmp=changed x=junk");
	/* A committed folder too. */
	struct stage_base pin = {.kind = STAGE_BASE_PINNED, .path = (char *)"d"};
	memcpy(pin.commit, fake_head()->id, sizeof(pin.commit));
	assert_int_equal(stage_follow(f->stage, STAGE_ROOT, "d", &dir), 0);
	assert_int_equal(stage_rename(f->stage, STAGE_ROOT, "d", true, STAGE_ROOT, "__pycache__", &pin), 0);
	RUNS(f);
	SENT("-d/x");
	assert_false(stage_empty(f->stage));
}

static struct fixture *the;

static void rename_again(void)
{
	assert_int_equal(stage_rename(the->stage, STAGE_ROOT, "x.bin", false, STAGE_ROOT, "y.bin", NULL), 0);
}

static void renamed_while_it_uploads(void)
{
	struct fixture *f = the;

	assert_int_equal(stage_rename(f->stage, STAGE_ROOT, "x.tmp", false, STAGE_ROOT, "x.bin", NULL), 0);
	assert_int_equal(stage_rename(f->stage, STAGE_ROOT, "two", false, STAGE_ROOT, "renamed.bin", NULL),
	                 0);
	assert_int_equal(stage_unlink(f->stage, STAGE_ROOT, "one.bin", false), 0);
	fake.on_preupload = rename_again; /* while the new names are judged */
}

static void published_under_the_name_of_the_moment(void **state)
{
	struct fixture *f = the = *state;

	START(f, "a", "1");
	make(f, STAGE_ROOT, "one.bin", "first");
	make(f, STAGE_ROOT, "two", "second");
	make(f, STAGE_ROOT, "x.tmp", "third");
	fake.on_preupload = renamed_while_it_uploads;
	RUNS(f);
	SENT("*renamed.bin *y.bin");
	TREE("a=1 renamed.bin=second y.bin=third");
	assert_int_equal(fake.posts, 1);
	assert_true(stage_empty(f->stage));
}

static void rename_after_the_names(void)
{
	struct fixture *f = the;

	assert_int_equal(stage_rename(f->stage, STAGE_ROOT, "one", false, STAGE_ROOT, "uno", NULL), 0);
	assert_int_equal(stage_unlink(f->stage, STAGE_ROOT, "two", false), 0);
	make(f, STAGE_ROOT, "three", "3");
}

static void changes_during_the_call_are_for_the_next(void **state)
{
	struct fixture *f = the = *state;

	START(f, "a", "1");
	make(f, STAGE_ROOT, "one", "1");
	make(f, STAGE_ROOT, "two", "2");
	fake.on_commit = rename_after_the_names;
	RUNS(f);
	TREE("a=1 one=1 two=2");
	assert_false(stage_empty(f->stage));
	RUNS(f);
	TREE("a=1 three=3 uno=1");
	assert_true(stage_empty(f->stage));
}

static void equal_bytes_are_no_change(void **state)
{
	struct fixture *f = *state;
	uint64_t node;

	START(f, "a", "same", "m.bin", "weights");
	rewrite(f, "a", "same");
	node = rewrite(f, "m.bin", "weights");
	RUNS(f);
	assert_true(node > 0);
	assert_int_equal(fake.posts + fake.batches + fake.preuploads, 0);
	assert_string_equal(f->result.commit, "");
	assert_int_equal(f->settles, 1);
	assert_true(stage_empty(f->stage));
	/* Taken away and put back. */
	assert_int_equal(stage_unlink(f->stage, STAGE_ROOT, "a", true), 0);
	make(f, STAGE_ROOT, "a", "same");
	RUNS(f);
	assert_int_equal(fake.posts, 0);
	assert_true(stage_empty(f->stage));
	/* Content that the repository has under another name is not sent. */
	make(f, STAGE_ROOT, "copy.bin", "weights");
	RUNS(f);
	SENT("*copy.bin");
	assert_int_equal(fake.puts, 0);
	/* One content under two names goes once. */
	make(f, STAGE_ROOT, "p.bin", "twice");
	make(f, STAGE_ROOT, "q.bin", "twice");
	RUNS(f);
	assert_int_equal(fake.puts, 1);
}

static void file_and_folder_change_places(void **state)
{
	struct fixture *f = *state;
	uint64_t dir;

	START(f, "a", "file", "d/x", "1", "d/y/z", "2");
	assert_int_equal(stage_unlink(f->stage, STAGE_ROOT, "a", true), 0);
	assert_int_equal(stage_mkdir(f->stage, STAGE_ROOT, "a", 0755, &dir), 0);
	make(f, dir, "b", "in a folder");
	assert_int_equal(stage_rmdir(f->stage, STAGE_ROOT, "d", true), 0);
	make(f, STAGE_ROOT, "d", "a file");
	RUNS(f);
	SENT("-a -d/x -d/y/z +a/b +d");
	TREE("a/b=in a folder d=a file");
	assert_true(stage_empty(f->stage));
	/* A folder made where another one was. */
	assert_int_equal(stage_rmdir(f->stage, STAGE_ROOT, "a", true), 0);
	assert_int_equal(stage_mkdir(f->stage, STAGE_ROOT, "a", 0755, &dir), 0);
	make(f, dir, "c", "other");
	RUNS(f);
	SENT("-a/b +a/c");
	TREE("a/c=other d=a file");
	assert_true(stage_empty(f->stage));
}

/* -- fsync -- */

static uint64_t synced;

static bool join_with_one_more(struct fixture *f)
{
	synced = start_writing(f, STAGE_ROOT, "b.bin", "of now");
	assert_int_equal(stage_freeze_node(f->stage, synced, NULL), 0);
	assert_int_equal(stage_write(f->stage, synced, 0, "LATER ", 6, 1), 0);
	return true;
}

static void fsync_joins_with_the_bytes_of_its_call(void **state)
{
	struct fixture *f = *state;

	START(f, "a", "1");
	make(f, STAGE_ROOT, "shard", "s");
	f->join = join_with_one_more;
	RUNS(f);
	SENT("*b.bin +shard");
	TREE("a=1 b.bin=of now shard=s");
	RUNS(f);
	assert_int_equal(fake.posts, 0); /* it is still open */
	stop_writing(f, synced);
	RUNS(f);
	TREE("a=1 b.bin=LATER  shard=s");
	assert_true(stage_empty(f->stage));
}

static void many_shards_one_commit(void **state)
{
	struct fixture *f = *state;
	uint64_t nodes[8];
	char name[20];

	START(f, "a", "1");
	for (unsigned i = 0; i < ARRAY_LEN(nodes); i++) {
		snprintf(name, sizeof(name), "shard-%u.bin", i);
		nodes[i] = start_writing(f, STAGE_ROOT, name, name);
		assert_int_equal(stage_freeze_node(f->stage, nodes[i], NULL), 0);
	}
	RUNS(f);
	assert_int_equal(fake.posts, 1);
	assert_int_equal(fake.preuploads, 1);
	assert_int_equal(fake.batches, 1);
	assert_int_equal(fake.puts, 8);
	assert_int_equal(f->result.n_nodes, 8);
	for (unsigned i = 0; i < ARRAY_LEN(nodes); i++)
		stop_writing(f, nodes[i]);
	RUNS(f);
	assert_int_equal(fake.posts, 0); /* closed unchanged since */
	assert_true(stage_empty(f->stage));
}

/* -- somebody else's pushes -- */

static void push_other(void)
{
	fake_push("theirs", "t", NULL);
}

static void push_ours(void)
{
	fake_push("a", "theirs", NULL);
}

static void push_same(void)
{
	fake_push("a", "mine", "gone", NULL, "theirs", "t", NULL);
}

static void a_push_elsewhere_is_rebased_on(void **state)
{
	struct fixture *f = *state;
	static void (*const *hooks[])(void) = {&fake.on_preupload, &fake.on_commit};

	START(f, "a", "1");
	for (size_t i = 0; i < ARRAY_LEN(hooks); i++) {
		rewrite(f, "a", i ? "mine again" : "mine");
		*(void (**)(void))hooks[i] = push_other;
		RUNS(f);
		assert_int_equal(fake.posts, 1 + i); /* seen before the call, or by its 412 */
		assert_true(stage_empty(f->stage));
	}
	TREE("a=mine again theirs=t");
}

static void a_push_to_our_path_is_a_conflict(void **state)
{
	struct fixture *f = *state;
	static void (*const *hooks[])(void) = {&fake.on_preupload, &fake.on_commit};

	START(f, "a", "1", "b", "2");
	for (size_t i = 0; i < ARRAY_LEN(hooks); i++) {
		rewrite(f, "a", "mine");
		make(f, STAGE_ROOT, "new", "n");
		*(void (**)(void))hooks[i] = push_ours;
		assert_int_equal(run(f), -ESTALE);
		assert_non_null(strstr(f->result.error.text, " a:"));
		assert_false(f->result.unsure);
		TREE("a=theirs b=2");
		assert_int_equal(f->result.n_nodes, 2);
		/* All of it stays staged, in conflict, over a new start too; others go on without it. */
		assert_int_equal(conflicts(f), 2);
		RUNS(f);
		assert_int_equal(fake.posts + fake.preuploads, 0);
		close_stage(f);
		open_stage(f);
		assert_int_equal(conflicts(f), 2);
		make(f, STAGE_ROOT, "free", "f");
		RUNS(f);
		SENT("+free");
		TREE("a=theirs b=2 free=f");
		assert_int_equal(conflicts(f), 2);
		/* Thrown away and made anew over theirs. */
		assert_int_equal(stage_discard(f->stage, ""), 0);
		assert_true(stage_empty(f->stage));
		fake_push("a", "1", "free", NULL, NULL);
		assert_int_equal(stage_set_parent(f->stage, fake_head()->id), 0);
		memcpy(fake.known, fake_head()->id, 41);
	}
}

static int resolve(struct fixture *f)
{
	int r;

	f->ask.resolve = true;
	f->ask.on_conflict = COMMIT_OURS;
	r = run(f);
	f->ask.resolve = false;
	f->ask.on_conflict = COMMIT_KEEP;
	return r;
}

static void conflicts_of_every_kind_resolved_with_ours(void **state)
{
	struct fixture *f = *state;
	uint64_t a, dir, other;

	START(f, "a", "1", "b", "2", "d/x", "3", "gone", "4", "moved", "5", "m.bin", "6", "z", "7");
	a = rewrite(f, "a", "mine");
	assert_int_equal(stage_rmdir(f->stage, STAGE_ROOT, "d", true), 0);
	assert_int_equal(stage_unlink(f->stage, STAGE_ROOT, "gone", true), 0);
	borrow(f, STAGE_ROOT, "m.bin", "m.bin");
	assert_int_equal(stage_rename(f->stage, STAGE_ROOT, "m.bin", true, STAGE_ROOT, "n.bin", NULL), 0);
	make(f, STAGE_ROOT, "file", "ours is a file");
	assert_int_equal(stage_mkdir(f->stage, STAGE_ROOT, "folder", 0755, &dir), 0);
	make(f, dir, "x", "ours is a folder");
	fake_push("a", "theirs", "d/theirs", "t", "gone", "again", "m.bin", "new", "file/y", "below", "file/z", "b",
	          "folder", "a file", "other", "o", NULL);
	fake.known[0] = '\0';
	assert_int_equal(run(f), -ESTALE);
	assert_true(conflicts(f) >= 7);
	/* What goes on meanwhile takes nothing of it along, and undoes nothing of theirs. */
	other = make(f, STAGE_ROOT, "later", "l");
	assert_true(other > a);
	RUNS(f);
	SENT("+later");
	TREE("a=theirs b=2 d/theirs=t d/x=3 file/y=below file/z=b folder=a file gone=again later=l m.bin=new moved=5 "
	     "other=o z=7");
	/* Renamed, replaced and deleted ones stay what they are. */
	assert_int_equal(stage_rename(f->stage, STAGE_ROOT, "a", true, STAGE_ROOT, "mine", NULL), 0);
	assert_int_equal(stage_rename(f->stage, STAGE_ROOT, "mine", false, STAGE_ROOT, "a", NULL), 0);
	make(f, STAGE_ROOT, "tmp2", "newer");
	assert_int_equal(stage_rename(f->stage, STAGE_ROOT, "tmp2", false, STAGE_ROOT, "a", NULL), 0);
	RUNS(f);
	assert_int_equal(fake.posts, 0);
	assert_int_equal(resolve(f), 0);
	TREE("a=newer b=2 file=ours is a file folder/x=ours is a folder later=l moved=5 n.bin=6 other=o z=7");
	assert_int_equal(conflicts(f), 0);
	assert_int_equal(fake.puts, 0);
	assert_true(stage_empty(f->stage));
}

static void ours_goes_on_top_by_itself(void **state)
{
	struct fixture *f = *state;

	START(f, "a", "1", "d/x", "3");
	f->ask.on_conflict = COMMIT_OURS;
	rewrite(f, "a", "mine");
	assert_int_equal(stage_rmdir(f->stage, STAGE_ROOT, "d", true), 0);
	fake_push("a", "theirs", "d/theirs", "t", NULL);
	fake.known[0] = '\0';
	RUNS(f);
	SENT("-d/x +a"); /* files by name, never a folder blindly */
	TREE("a=mine d/theirs=t");
	assert_true(stage_empty(f->stage));
	f->ask.on_conflict = COMMIT_KEEP;
}

static void both_did_the_same(void **state)
{
	struct fixture *f = *state;

	START(f, "a", "1", "gone", "g");
	rewrite(f, "a", "mine");
	assert_int_equal(stage_unlink(f->stage, STAGE_ROOT, "gone", true), 0);
	make(f, STAGE_ROOT, "b", "2");
	fake.on_commit = push_same;
	RUNS(f);
	SENT("+b");
	TREE("a=mine b=2 theirs=t");
	assert_true(stage_empty(f->stage));
	/* All of it the same: nothing to send. */
	rewrite(f, "a", "x");
	fake_push("a", "x", NULL);
	fake.known[0] = '\0';
	RUNS(f);
	assert_int_equal(fake.posts, 0);
	assert_true(stage_empty(f->stage));
	char parent[41];
	stage_parent(f->stage, parent);
	assert_string_equal(parent, fake_head()->id);
}

static void push_into_folder(void)
{
	fake_push("d/theirs", "t", NULL);
}

static void a_file_added_below_a_folder_that_we_took_away(void **state)
{
	struct fixture *f = *state;

	START(f, "d/x", "1", "e", "2");
	assert_int_equal(stage_rmdir(f->stage, STAGE_ROOT, "d", true), 0);
	make(f, STAGE_ROOT, "new", "n");
	fake.on_preupload = push_into_folder;
	assert_int_equal(run(f), -ESTALE);
	assert_non_null(strstr(f->result.error.text, "d/theirs"));
	TREE("d/theirs=t d/x=1 e=2");
}

static void a_file_against_a_folder(void **state)
{
	struct fixture *f = *state;
	uint64_t dir;

	START(f, "e", "2");
	assert_int_equal(stage_mkdir(f->stage, STAGE_ROOT, "a", 0755, &dir), 0);
	make(f, dir, "b", "2");
	fake.on_preupload = push_ours; /* the file `a` */
	assert_int_equal(run(f), -ESTALE);
	TREE("a=theirs e=2");
	assert_int_equal(stage_discard(f->stage, ""), 0);
	fake_push("a", NULL, NULL);
	assert_int_equal(stage_set_parent(f->stage, fake_head()->id), 0);
	fake.known[0] = '\0';
	make(f, STAGE_ROOT, "d", "a file");
	fake.on_preupload = push_into_folder;
	assert_int_equal(run(f), -ESTALE);
	TREE("d/theirs=t e=2");
}

static void a_folder_that_both_made(void **state)
{
	struct fixture *f = *state;
	uint64_t dir, log;

	START(f, "a", "1");
	assert_int_equal(stage_mkdir(f->stage, STAGE_ROOT, "d", 0755, &dir), 0);
	make(f, dir, "ours", "o");
	log = start_writing(f, dir, "log", "l");
	fake.on_preupload = push_into_folder;
	fake.commit = (struct fake_fault){.err = -EIO, .status = 500, .times = 1};
	assert_int_equal(run(f), -EIO);
	RUNS(f); /* a failure between does not make their file ours to delete */
	TREE("a=1 d/ours=o d/theirs=t");
	stop_writing(f, log);
	RUNS(f);
	SENT("+d/log");
	TREE("a=1 d/log=l d/ours=o d/theirs=t");
	assert_true(stage_empty(f->stage));
}

static void a_412_without_a_push(void **state)
{
	struct fixture *f = *state;

	START(f, "a", "1");
	make(f, STAGE_ROOT, "b", "2");
	fake.commit = (struct fake_fault){.err = -ESTALE, .status = 412, .times = 1};
	RUNS(f);
	TREE("a=1 b=2");
	make(f, STAGE_ROOT, "c", "3");
	fake.commit = (struct fake_fault){.err = -ESTALE, .status = 412, .times = 100};
	assert_int_equal(run(f), -ESTALE);
	assert_true(fake.posts < 5);
	fake.commit.times = 0;
	RUNS(f);
	TREE("a=1 b=2 c=3");
}

/* -- lost answers -- */

static void a_lost_answer_that_landed(void **state)
{
	struct fixture *f = *state;
	size_t before;

	START(f, "a", "1");
	before = fake.n;
	make(f, STAGE_ROOT, "b.bin", "2");
	fake.commit = (struct fake_fault){.err = -EIO, .status = 504, .maybe_done = true, .lands = true};
	fake.commit.times = 1;
	RUNS(f);
	assert_int_equal(fake.n, before + 1);
	assert_string_equal(f->result.commit, fake_head()->id);
	assert_int_equal(fake.adopted, 1);
	assert_true(stage_empty(f->stage));
}

static void a_lost_answer_that_did_not_land(void **state)
{
	struct fixture *f = *state;

	START(f, "a", "1");
	make(f, STAGE_ROOT, "b.bin", "2");
	fake.commit = (struct fake_fault){.err = -ETIMEDOUT, .maybe_done = true, .times = 1};
	assert_int_equal(run(f), -ETIMEDOUT);
	assert_true(f->result.unsure);
	TREE("a=1");
	RUNS(f);
	assert_int_equal(fake.puts, 0); /* the bytes are there already */
	TREE("a=1 b.bin=2");
	assert_true(stage_empty(f->stage));
}

static void a_lost_answer_is_looked_for_later(void **state)
{
	struct fixture *f = *state;

	START(f, "a", "1");
	make(f, STAGE_ROOT, "b", "2");
	fake.commit = (struct fake_fault){.err = -ETIMEDOUT, .maybe_done = true, .lands = true, .times = 1};
	fake.look = (struct fake_fault){.err = -ETIMEDOUT, .times = 2};
	assert_int_equal(run(f), -ETIMEDOUT);
	assert_true(f->result.unsure);
	assert_int_equal(run(f), -ETIMEDOUT); /* still nobody answers: nothing is sent */
	assert_true(f->result.unsure);
	assert_int_equal(fake.posts, 0);
	fake_push("theirs", "t", NULL);
	fake.known[0] = '\0';
	make(f, STAGE_ROOT, "c", "3");
	RUNS(f);
	SENT("+c");
	TREE("a=1 b=2 c=3 theirs=t");
	assert_true(stage_empty(f->stage));
}

static void commit_recover_only_looks(void **state)
{
	struct fixture *f = *state;

	START(f, "a", "1");
	make(f, STAGE_ROOT, "b", "2");
	fake.commit = (struct fake_fault){.err = -ETIMEDOUT, .maybe_done = true, .times = 1};
	assert_int_equal(run(f), -ETIMEDOUT);
	commit_result_fini(&f->result);
	assert_int_equal(commit_recover(f->commit, &f->ask, &f->result), 0);
	assert_false(f->result.sent);
	assert_int_equal(fake.posts, 1);
	assert_false(stage_empty(f->stage));
	fake.commit = (struct fake_fault){.err = -ETIMEDOUT, .maybe_done = true, .lands = true, .times = 1};
	fake.look = (struct fake_fault){.err = -EIO, .times = 1};
	assert_int_equal(run(f), -ETIMEDOUT);
	commit_result_fini(&f->result);
	assert_int_equal(commit_recover(f->commit, &f->ask, &f->result), 0);
	assert_true(f->result.sent);
	assert_string_equal(f->result.commit, fake_head()->id);
	assert_true(stage_empty(f->stage));
}

static void death_between_the_call_and_settling(void **state)
{
	struct fixture *f = *state;
	size_t before;

	START(f, "a", "1");
	before = fake.n;
	make(f, STAGE_ROOT, "b.bin", "2");
	f->settle_err = -EIO;
	assert_int_equal(run(f), -EIO);
	assert_true(f->result.unsure);
	close_stage(f);
	fake_push("theirs", "t", NULL); /* on top, before we look */
	fake.known[0] = '\0';
	open_stage(f);
	RUNS(f);
	assert_int_equal(fake.posts, 0);
	assert_int_equal(fake.n, before + 2);
	assert_true(stage_empty(f->stage));
}

/* What the first call asked for lands when the second is under way. */
static void land_late(void)
{
	fake_push("b", "first", NULL);
	snprintf(fake_head()->description, sizeof(fake_head()->description), "hugfs-commit: %.32s",
	         fake.commits[0].title);
}

static void note_token(void)
{
	struct stage_intent intent = {0};

	assert_int_equal(stage_intent_get(the->stage, &intent), 0);
	snprintf(fake.commits[0].title, sizeof(fake.commits[0].title), "%s", intent.token);
	stage_intent_fini(&intent);
}

static void our_own_commit_that_lands_late_is_no_conflict(void **state)
{
	struct fixture *f = the = *state;
	uint64_t node;

	START(f, "a", "1");
	node = make(f, STAGE_ROOT, "b", "first");
	fake.on_commit = note_token;
	fake.commit = (struct fake_fault){.err = -ETIMEDOUT, .maybe_done = true, .times = 1};
	assert_int_equal(run(f), -ETIMEDOUT);
	/* It is changed meanwhile, so theirs is not what we want to send. */
	assert_int_equal(stage_writer_open(f->stage, node), 0);
	assert_int_equal(stage_write(f->stage, node, 0, "secnd", 5, 1), 0);
	stop_writing(f, node);
	fake.on_commit = land_late;
	RUNS(f);
	TREE("a=1 b=secnd");
	assert_true(stage_empty(f->stage));
}

/* It lands after it was looked for, hugfs was killed, and somebody pushed on top of it. */
static void our_own_commit_is_known_after_a_restart(void **state)
{
	struct fixture *f = the = *state;
	uint64_t node;

	START(f, "a", "1");
	node = make(f, STAGE_ROOT, "b", "first");
	fake.on_commit = note_token;
	fake.commit = (struct fake_fault){.err = -ETIMEDOUT, .maybe_done = true, .times = 1};
	assert_int_equal(run(f), -ETIMEDOUT);
	fake.preupload = (struct fake_fault){.err = -ENETDOWN, .times = 1};
	assert_int_equal(run(f), -ENETDOWN); /* it is not there */
	close_stage(f);
	land_late();
	fake_push("theirs", "t", NULL);
	fake.known[0] = '\0';
	open_stage(f);
	assert_int_equal(stage_writer_open(f->stage, node), 0);
	assert_int_equal(stage_write(f->stage, node, 0, "secnd", 5, 1), 0);
	stop_writing(f, node);
	RUNS(f);
	TREE("a=1 b=secnd theirs=t");
	assert_true(stage_empty(f->stage));
}

static void what_it_brings_late_is_deleted_if_we_did(void **state)
{
	struct fixture *f = the = *state;

	START(f, "a", "1");
	make(f, STAGE_ROOT, "b", "first");
	fake.on_commit = note_token;
	fake.commit = (struct fake_fault){.err = -ETIMEDOUT, .maybe_done = true, .times = 1};
	assert_int_equal(run(f), -ETIMEDOUT);
	assert_int_equal(stage_unlink(f->stage, STAGE_ROOT, "b", false), 0);
	make(f, STAGE_ROOT, "c", "3");
	fake.on_commit = land_late;
	RUNS(f);
	TREE("a=1 c=3");
	assert_true(stage_empty(f->stage));
}

/* -- failures -- */

static void failures_keep_everything(void **state)
{
	static const struct {
		struct fake_fault *at, fault;
		int err;
	} cases[] = {
		{&fake.preupload, {.err = -EACCES, .status = 403, .times = 1}, -EACCES},
		{&fake.preupload, {.err = -ENOENT, .status = 404, .times = 1}, -ESTALE},
		{&fake.preupload, {.err = -ENETDOWN, .times = 1}, -ENETDOWN},
		{&fake.batch, {.err = -EDQUOT, .status = 403, .times = 1}, -EDQUOT},
		{&fake.batch, {.err = -EIO, .status = 500, .times = 1}, -EIO},
		{&fake.commit, {.err = -EDQUOT, .status = 429, .retry_after_s = 3600, .times = 1}, -EDQUOT},
		{&fake.commit, {.err = -EBUSY, .status = 409, .times = 1}, -EBUSY},
		{&fake.commit, {.err = -EINVAL, .status = 400, .times = 1}, -EINVAL},
		{&fake.commit, {.err = -EFBIG, .status = 413, .times = 1}, -EFBIG},
	};
	struct fixture *f = *state;
	uint64_t node;

	START(f, "a", "1");
	node = make(f, STAGE_ROOT, "b.bin", "weights");
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		*cases[i].at = cases[i].fault;
		assert_int_equal(run(f), cases[i].err);
		assert_string_equal(f->result.error.text, "the fake Hub says no");
		assert_false(f->result.unsure);
		assert_int_equal(f->result.error.retry_after_s, cases[i].fault.retry_after_s ? 3600 : -1);
		assert_int_equal(f->result.n_nodes, 1);
		assert_int_equal(f->result.nodes[0], node);
		TREE("a=1");
	}
	RUNS(f);
	TREE("a=1 b.bin=weights");
	assert_true(stage_empty(f->stage));
}

static void the_branch_is_gone(void **state)
{
	struct fixture *f = *state;

	START(f, "a", "1");
	make(f, STAGE_ROOT, "b", "2");
	fake.gone = true;
	fake.commit = (struct fake_fault){.err = -ESTALE, .status = 412, .times = 1};
	assert_int_equal(run(f), -ESTALE);
	assert_string_equal(f->result.error.text, "main is gone from the Hub");
	assert_false(stage_empty(f->stage));
}

static void cancel_now(void)
{
	the->cancel = true;
}

static void cancelled_and_repeated(void **state)
{
	struct fixture *f = the = *state;

	START(f, "a", "1");
	make(f, STAGE_ROOT, "b.bin", "weights");
	fake.on_preupload = cancel_now;
	assert_int_equal(run(f), -ECANCELED);
	assert_int_equal(fake.posts, 0);
	f->cancel = false;
	RUNS(f);
	TREE("a=1 b.bin=weights");
}

static void deleting_everything_is_held(void **state)
{
	struct fixture *f = *state;

	START(f, "a", "1", "d/b", "2", ".gitattributes", "x");
	assert_int_equal(stage_unlink(f->stage, STAGE_ROOT, "a", true), 0);
	assert_int_equal(stage_rmdir(f->stage, STAGE_ROOT, "d", true), 0);
	assert_int_equal(run(f), -EPERM);
	assert_int_equal(fake.posts, 0);
	assert_false(stage_empty(f->stage));
	f->ask.may_empty = true;
	RUNS(f);
	TREE(".gitattributes=x");
	assert_true(stage_empty(f->stage));
}

static void a_push_to_a_file_that_is_left_out_is_a_conflict(void **state)
{
	static const char *const names[] = {"log", "x.tmp"}; /* open; not published */
	struct fixture *f = *state;

	START(f, "a", "1");
	for (size_t i = 0; i < ARRAY_LEN(names); i++) {
		uint64_t node = start_writing(f, STAGE_ROOT, names[i], "mine");

		if (i == 1)
			stop_writing(f, node);
		fake_push(names[i], "theirs", NULL);
		make(f, STAGE_ROOT, i ? "c" : "b", "2");
		RUNS(f);
		assert_int_equal(fake.posts, 1);
		assert_int_equal(conflicts(f), 1); /* else the next commit would take theirs for its base */
		if (i == 0)
			stop_writing(f, node);
		RUNS(f);
		assert_int_equal(fake.posts, 0);
		assert_int_equal(resolve(f), 0);
		assert_int_equal(conflicts(f), 0);
	}
	TREE("a=1 b=2 c=2 log=mine x.tmp=mine");
}

static void interrupted_files_when_asked(void **state)
{
	struct fixture *f = *state;
	uint64_t node;

	START(f, "a", "1");
	node = start_writing(f, STAGE_ROOT, "half", "ha");
	assert_true(stage_writer_flush(f->stage, node, 1, true) >= 0);
	stage_writer_close(f->stage, node);
	RUNS(f);
	assert_int_equal(fake.posts, 0);
	f->ask.take = STAGE_TAKE_INTERRUPTED;
	RUNS(f);
	TREE("a=1 half=ha");
	assert_true(stage_empty(f->stage));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(new_files),
		TEST(a_push_to_a_file_that_is_left_out_is_a_conflict),
		TEST(deleting_everything_is_held),
		TEST(title_and_text_are_kept),
		TEST(open_files_wait),
		TEST(names_settle_apart_from_bytes),
		TEST(a_successor_that_is_open_keeps_what_is_there),
		TEST(a_folder_made_anew_keeps_what_its_open_files_replace),
		TEST(replaced_while_open),
		TEST(rename_of_a_folder),
		TEST(what_is_not_published),
		TEST(published_under_the_name_of_the_moment),
		TEST(changes_during_the_call_are_for_the_next),
		TEST(equal_bytes_are_no_change),
		TEST(file_and_folder_change_places),
		TEST(fsync_joins_with_the_bytes_of_its_call),
		TEST(many_shards_one_commit),
		TEST(a_push_elsewhere_is_rebased_on),
		TEST(a_push_to_our_path_is_a_conflict),
		TEST(conflicts_of_every_kind_resolved_with_ours),
		TEST(ours_goes_on_top_by_itself),
		TEST(both_did_the_same),
		TEST(a_file_added_below_a_folder_that_we_took_away),
		TEST(a_file_against_a_folder),
		TEST(a_folder_that_both_made),
		TEST(a_412_without_a_push),
		TEST(a_lost_answer_that_landed),
		TEST(a_lost_answer_that_did_not_land),
		TEST(a_lost_answer_is_looked_for_later),
		TEST(commit_recover_only_looks),
		TEST(death_between_the_call_and_settling),
		TEST(our_own_commit_that_lands_late_is_no_conflict),
		TEST(our_own_commit_is_known_after_a_restart),
		TEST(what_it_brings_late_is_deleted_if_we_did),
		TEST(failures_keep_everything),
		TEST(the_branch_is_gone),
		TEST(cancelled_and_repeated),
		TEST(interrupted_files_when_asked),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
