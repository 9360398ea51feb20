/* Unit tests of publish: its threads, the real schedule, commit, upload and stage against a Hub in memory.
 * Times are short, and waiting is for what has to happen. */
#include "publish.h"

#include "fake_hub.h"
#include "log.h"

#define LONG_MS 20000 /* what has to happen happens by then */

struct fixture {
	char dir[64];
	struct stage *stage;
	struct ignore *ignore;
	struct opts opts;
	struct publish *p;
};

/* One fsync that waits. */
struct wait {
	uint64_t id;
	bool answered;
	int err;
};

static struct fixture *the;

static int on_settle(void *arg, const char *ref, const char *commit, int64_t date_s)
{
	CLEANUP(stage_settled_fini) struct stage_settled settled = {0};
	struct fixture *f = arg;
	int r = stage_settle(f->stage, commit, &settled);

	fake_lock();
	if (r == 0)
		memcpy(fake.known, commit, 41);
	fake_unlock();
	return r;
}

static void open_all(struct fixture *f)
{
	struct stage_ident ident = {
		.endpoint = "http://hub", .repo = {.type = REPO_MODEL, .ns = "user", .name = "repo"},
		.rev = "main",
		.internal_id = "0123456789abcdef01234567",
	};
	struct publish_env env = {
		.hub = (struct hub *)1, .tree = (struct tree *)1, .blocks = (struct blocks *)1,
		.fetch = (struct fetch *)1,
		.opts = &f->opts, .ignore = f->ignore, .repo = ident.repo, .rev = "main", .settle = on_settle,
		.arg = f,
	};
	char parent[41];

	assert_int_equal(stage_open(f->dir, &ident, true, &f->stage), 0);
	stage_parent(f->stage, parent);
	if (!*parent)
		assert_int_equal(stage_set_parent(f->stage, fake_head()->id), 0);
	env.stage = f->stage;
	assert_int_equal(publish_new(&env, &f->p), 0);
}

static void close_all(struct fixture *f, int64_t deadline_ms)
{
	publish_free(f->p, deadline_ms);
	f->p = NULL;
	stage_close(f->stage);
}

/* With other times: publisher and its threads read them at any moment. */
static void reopen(struct fixture *f, int64_t delay_ms, int64_t timeout_ms)
{
	close_all(f, 0);
	f->opts.commit_delay_ms = delay_ms;
	f->opts.fsync_timeout_ms = timeout_ms;
	open_all(f);
}

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));
	const char *tmp = getenv("TMPDIR");
	char *why = NULL;

	snprintf(f->dir, sizeof(f->dir), "%s/hugfs-publish-XXXXXX", tmp ? tmp : "/tmp");
	assert_non_null(mkdtemp(f->dir));
	assert_int_equal(ignore_new(NULL, 0, &f->ignore, &why), 0);
	f->opts = (struct opts){
		.commit = OPTS_COMMIT_CLOSE, .commit_delay_ms = 50, .open_wait_ms = LONG_MS,
		.fsync = OPTS_FSYNC_PUBLISH, .commit_files = 25000,
		.fsync_timeout_ms = LONG_MS,
	};
	fake_push("a", "1", NULL);
	memcpy(fake.known, fake_head()->id, 41);
	open_all(f);
	assert_int_equal(log_set_levels("err"), 0);
	*state = the = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;
	AUTO_FREE char *rm = util_printf("rm -rf '%s'", f->dir);

	fake_lock();
	fake.awake = true;
	fake_unlock();
	if (f->p)
		close_all(f, 0);
	ignore_free(f->ignore);
	assert_int_equal(system(rm), 0);
	free(f);
	fake_reset();
	return 0;
}

/* Waits until `cond`, which is looked at under the fake's lock. */
#define UNTIL(cond) \
	do { \
		int64_t until_ = util_now_ms() + LONG_MS; \
		bool met_ = false; \
		while (!met_) { \
			fake_lock(); \
			met_ = (cond); \
			fake_unlock(); \
			if (!met_ && util_now_ms() > until_) \
				fail_msg("never: %s", #cond); \
			if (!met_) \
				usleep(1000); \
		} \
	} while (0)

static void until_idle(struct fixture *f)
{
	int64_t until = util_now_ms() + LONG_MS;

	while (!publish_idle(f->p)) {
		if (util_now_ms() > until)
			fail_msg("never idle");
		usleep(1000);
	}
}

static void on_done(void *arg, int err)
{
	struct wait *w = arg;

	fake_lock();
	assert_false(w->answered);
	w->err = err;
	w->answered = true;
	fake_unlock();
}

static void start_fsync(struct fixture *f, uint64_t node, struct wait *w)
{
	*w = (struct wait){0};
	assert_int_equal(publish_fsync(f->p, node, on_done, w, &w->id), 0);
	assert_true(w->id > 0);
}

static int end_fsync(struct wait *w)
{
	UNTIL(w->answered);
	return w->err;
}

static int do_fsync(struct fixture *f, uint64_t node)
{
	struct wait w;

	start_fsync(f, node, &w);
	return end_fsync(&w);
}

/* What ops does. */
static uint64_t start_writing(struct fixture *f, const char *name, const char *text)
{
	uint64_t node = 0;

	assert_int_equal(stage_create(f->stage, STAGE_ROOT, name, 0644, &node), 0);
	assert_int_equal(stage_writer_open(f->stage, node), 0);
	publish_changed(f->p, PUBLISH_CREATED, name, node);
	publish_opened(f->p, node);
	assert_int_equal(stage_write(f->stage, node, 0, text, strlen(text), 1), 0);
	publish_wrote(f->p, node, strlen(text));
	return node;
}

static void stop_writing(struct fixture *f, uint64_t node)
{
	assert_true(stage_writer_flush(f->stage, node, 1, false) >= 0);
	stage_writer_close(f->stage, node);
	publish_closed(f->p, node, true);
}

static uint64_t make(struct fixture *f, const char *name, const char *text)
{
	uint64_t node = start_writing(f, name, text);

	stop_writing(f, node);
	return node;
}

static uint64_t open_again(struct fixture *f, uint64_t node)
{
	assert_int_equal(stage_writer_open(f->stage, node), 0);
	publish_opened(f->p, node);
	return node;
}

static void close_is_published(void **state)
{
	struct fixture *f = *state;
	struct publish_status status;

	make(f, "b", "2");
	make(f, "c.bin", "3");
	publish_status(f->p, &status);
	assert_int_equal(status.phase, PUBLISH_WAITING);
	assert_true(status.next_ms > 0);
	UNTIL(fake.posts == 1);
	until_idle(f);
	assert_string_equal(fake_tree(), "a=1 b=2 c.bin=3");
	publish_status(f->p, &status);
	assert_int_equal(status.phase, PUBLISH_IDLE);
	assert_int_equal(status.last_err, 0);
	assert_string_equal(status.last_commit, fake_head()->id);
	assert_int_equal(fake.posts, 1);
}

static void a_writer_holds_back(void **state)
{
	struct fixture *f = *state;
	uint64_t node = start_writing(f, "log", "l");

	make(f, "b", "2");
	assert_int_equal(do_fsync(f, 0), 0); /* the folder's: what is settled */
	assert_string_equal(fake_tree(), "a=1 b=2");
	stop_writing(f, node);
	until_idle(f);
	assert_string_equal(fake_tree(), "a=1 b=2 log=l");
	assert_int_equal(fake.posts, 2);
}

static void fsync_publishes_the_bytes_of_its_call(void **state)
{
	struct fixture *f = *state;
	uint64_t node = start_writing(f, "b", "synced");
	uint64_t other = start_writing(f, "c", "half");

	assert_int_equal(do_fsync(f, node), 0);
	assert_string_equal(fake_tree(), "a=1 b=synced");
	/* Nothing new: nothing to wait for. */
	uint64_t id;
	assert_int_equal(publish_fsync(f->p, node, on_done, NULL, &id), 1);
	assert_int_equal(fake.posts, 1);
	stop_writing(f, node);
	stop_writing(f, other);
	until_idle(f);
	assert_string_equal(fake_tree(), "a=1 b=synced c=half");
}

static void fsync_that_is_only_local(void **state)
{
	struct fixture *f = *state;
	uint64_t tmp, nameless, dir, below, id;

	assert_int_equal(publish_fsync(f->p, 0, on_done, NULL, &id), 1); /* nothing staged */
	tmp = start_writing(f, "x.tmp", "junk");
	assert_int_equal(publish_fsync(f->p, tmp, on_done, NULL, &id), 1);
	nameless = start_writing(f, "gone", "g");
	assert_int_equal(stage_unlink(f->stage, STAGE_ROOT, "gone", false), 0);
	publish_changed(f->p, PUBLISH_DELETED, "gone", nameless);
	assert_int_equal(publish_fsync(f->p, nameless, on_done, NULL, &id), 1);
	assert_int_equal(publish_fsync(f->p, 99999, on_done, NULL, &id), 1);
	assert_int_equal(stage_mkdir(f->stage, STAGE_ROOT, ".cache", 0755, &dir), 0);
	assert_int_equal(stage_create(f->stage, dir, "below", 0644, &below), 0);
	assert_int_equal(publish_fsync(f->p, below, on_done, NULL, &id), 1);
	assert_int_equal(publish_fsync(f->p, 0, on_done, NULL, &id), 1);
	/* Renamed to a name that counts, it does. */
	assert_int_equal(stage_rename(f->stage, STAGE_ROOT, "x.tmp", false, STAGE_ROOT, "x", NULL), 0);
	publish_changed(f->p, PUBLISH_RENAMED, "x", tmp);
	f->opts.fsync = OPTS_FSYNC_STAGE;
	assert_int_equal(publish_fsync(f->p, tmp, on_done, NULL, &id), 1);
	f->opts.fsync = OPTS_FSYNC_PUBLISH;
	f->opts.commit = OPTS_COMMIT_MANUAL;
	assert_int_equal(publish_fsync(f->p, tmp, on_done, NULL, &id), 1);
	f->opts.commit = OPTS_COMMIT_CLOSE;
	assert_int_equal(fake.posts + fake.preuploads, 0);
	assert_int_equal(do_fsync(f, tmp), 0);
	assert_string_equal(fake_tree(), "a=1 x=junk");
	stop_writing(f, tmp);
	stop_writing(f, nameless);
}

static int close_and_wait(struct fixture *f, uint64_t node)
{
	struct wait w = {0};

	assert_int_equal(stage_writer_flush(f->stage, node, 1, false), 1);
	assert_int_equal(publish_closing(f->p, node, on_done, &w, &w.id), 0);
	return end_fsync(&w);
}

static void a_close_that_waits_for_the_commit(void **state)
{
	struct fixture *f = *state;
	uint64_t id = 0, node = start_writing(f, "b", "2");

	f->opts.fsync = OPTS_FSYNC_STAGE; /* is about fsync */
	assert_int_equal(close_and_wait(f, node), 0);
	assert_string_equal(fake_tree(), "a=1 b=2");
	assert_int_equal(publish_closing(f->p, node, on_done, NULL, &id), 1); /* of a copy of its descriptor */
	stop_writing(f, node);
	until_idle(f);
	assert_int_equal(fake.posts, 1);
	/* The commit's failure is the close's. */
	node = start_writing(f, "c", "3");
	fake.commit = (struct fake_fault){.err = -EACCES, .status = 403, .times = 1};
	assert_int_equal(close_and_wait(f, node), -EACCES);
	stop_writing(f, node); /* which is no change, so it is not tried again */
	make(f, "d", "4");
	UNTIL(fake.posts == 3);
	until_idle(f);
	assert_string_equal(fake_tree(), "a=1 b=2 c=3 d=4");
}

static void hugfs_commit_takes_what_was_closed(void **state)
{
	struct fixture *f = *state;
	uint64_t closed = start_writing(f, "closed", "1"), open = start_writing(f, "open", "2");
	struct publish_answer answer = {0};
	struct publish_ask ask = {0};

	assert_int_equal(stage_writer_flush(f->stage, closed, 1, false), 1);
	assert_int_equal(publish_commit(f->p, &ask, LONG_MS, &answer), 0);
	assert_int_equal(answer.err, 0);
	assert_int_equal(answer.left_out, 1);
	assert_string_equal(fake_tree(), "a=1 closed=1");
	publish_answer_fini(&answer);
	stop_writing(f, closed);
	stop_writing(f, open);
	until_idle(f);
	assert_string_equal(fake_tree(), "a=1 closed=1 open=2");
}

/* -- joining -- */

static struct wait second;
static uint64_t second_node;

static void fsync_another(void)
{
	start_fsync(the, second_node, &second);
}

static void two_fsyncs_one_commit(void **state)
{
	struct fixture *f = *state;
	uint64_t one = start_writing(f, "b.bin", "first");

	second_node = start_writing(f, "c.bin", "second");
	fake.on_batch = fsync_another; /* while the first one uploads */
	assert_int_equal(do_fsync(f, one), 0);
	assert_int_equal(end_fsync(&second), 0);
	assert_int_equal(fake.posts, 1);
	assert_string_equal(fake_tree(), "a=1 b.bin=first c.bin=second");
	stop_writing(f, one);
	stop_writing(f, second_node);
}

static void too_late_to_join(void **state)
{
	struct fixture *f = *state;
	uint64_t one = start_writing(f, "b", "first");

	second_node = start_writing(f, "c", "second");
	fake.on_commit = fsync_another;
	assert_int_equal(do_fsync(f, one), 0);
	assert_int_equal(end_fsync(&second), 0);
	assert_int_equal(fake.posts, 2);
	assert_string_equal(fake_tree(), "a=1 b=first c=second");
	stop_writing(f, one);
	stop_writing(f, second_node);
}

static void shards_wait_for_each_other(void **state)
{
	struct fixture *f = *state;
	struct wait waits[6];
	uint64_t nodes[ARRAY_LEN(waits)];
	char name[20];

	for (unsigned i = 0; i < ARRAY_LEN(nodes); i++) {
		snprintf(name, sizeof(name), "shard-%u.bin", i);
		nodes[i] = start_writing(f, name, name);
	}
	for (unsigned i = 0; i < ARRAY_LEN(nodes); i++)
		start_fsync(f, nodes[i], &waits[i]);
	for (unsigned i = 0; i < ARRAY_LEN(nodes); i++)
		assert_int_equal(end_fsync(&waits[i]), 0);
	assert_int_equal(fake.posts, 1);
	for (unsigned i = 0; i < ARRAY_LEN(nodes); i++)
		stop_writing(f, nodes[i]);
}

/* -- failures -- */

static void failures_are_told_at_once(void **state)
{
	static const struct {
		struct fake_fault *at, fault;
		int err;
	} cases[] = {
		{&fake.preupload, {.err = -EACCES, .status = 403, .times = 1}, -EACCES},
		{&fake.preupload, {.err = -ENETDOWN, .times = 1}, -ENETDOWN},
		{&fake.commit, {.err = -EDQUOT, .status = 429, .retry_after_s = 3600, .times = 1}, -EDQUOT},
		{&fake.commit, {.err = -EINVAL, .status = 400, .times = 1}, -EINVAL},
	};
	struct fixture *f = *state;
	struct publish_status status;
	uint64_t node;

	node = start_writing(f, "b", "2");
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		fake_lock();
		*cases[i].at = cases[i].fault;
		fake_unlock();
		assert_int_equal(do_fsync(f, node), cases[i].err);
		publish_status(f->p, &status);
		assert_int_equal(status.phase, PUBLISH_FAILED);
		assert_int_equal(status.last_err, cases[i].err);
		assert_string_equal(status.last_text, "the fake Hub says no");
		/* It was told: the close says nothing. */
		assert_int_equal(publish_take_error(f->p, node), 0);
	}
	assert_int_equal(do_fsync(f, node), 0);
	assert_string_equal(fake_tree(), "a=1 b=2");
	publish_status(f->p, &status);
	assert_int_equal(status.last_err, 0);
	stop_writing(f, node);
}

static int do_commit(struct fixture *f, const struct publish_ask *ask)
{
	struct publish_answer answer = {0};
	int r = publish_commit(f->p, ask, LONG_MS, &answer);

	r = r < 0 ? r : answer.err;
	publish_answer_fini(&answer);
	return r;
}

static void a_conflict_is_estale(void **state)
{
	struct fixture *f = *state;
	const struct publish_ask ask = {.resolve = true, .on_conflict = COMMIT_OURS};
	uint64_t node = start_writing(f, "b", "mine"), id;

	fake_push("b", "theirs", NULL);
	assert_int_equal(do_fsync(f, node), -ESTALE);
	assert_string_equal(fake_tree(), "a=1 b=theirs");
	assert_false(stage_empty(f->stage));
	assert_int_equal(publish_fsync(f->p, node, on_done, NULL, &id), -ESTALE); /* until it is decided */
	stop_writing(f, node);
	assert_int_equal(do_commit(f, &ask), 0);
	assert_string_equal(fake_tree(), "a=1 b=mine");
	assert_true(stage_empty(f->stage));
}

static void *begin_tx(void *arg)
{
	struct fixture *f = arg;
	struct publish_answer answer = {0};
	uint64_t number = 0;
	int r = publish_tx_begin(f->p, &answer, &number);

	publish_answer_fini(&answer);
	return r == 0 ? (void *)(uintptr_t)number : NULL;
}

/* An fsync that waits for another try, and one who asks, when a transaction begins. */
static void a_transaction_begins_beside_others(void **state)
{
	const struct publish_ask ask = {0}, ends = {.ends = true};
	struct fixture *f = *state;
	uint64_t id, node = start_writing(f, "b", "2");
	struct publish_status status;
	pthread_t thread;
	struct wait w;
	void *number;

	start_fsync(f, node, &w);
	assert_int_equal(end_fsync(&w), 0);
	assert_int_equal(pthread_create(&thread, NULL, begin_tx, f), 0);
	assert_int_equal(pthread_join(thread, &number), 0);
	assert_non_null(number);
	publish_status(f->p, &status);
	assert_int_equal(status.tx, STAGE_TX_RUNNING);
	assert_int_equal(publish_fsync(f->p, node, on_done, NULL, &id), 1); /* local */
	assert_int_equal(do_commit(f, &ask), -EBUSY);
	make(f, "c", "3");
	stop_writing(f, node);
	assert_int_equal(publish_tx_hold(f->p, (uint64_t)(uintptr_t)number + 1), 0); /* another one's end */
	publish_status(f->p, &status);
	assert_int_equal(status.tx, STAGE_TX_RUNNING);
	assert_string_equal(fake_tree(), "a=1 b=2");
	assert_int_equal(do_commit(f, &ends), 0);
	assert_string_equal(fake_tree(), "a=1 b=2 c=3");
	publish_status(f->p, &status);
	assert_int_equal(status.tx, STAGE_TX_NONE);
	make(f, "d", "4");
	UNTIL(fake.posts == 3);
	until_idle(f);
}

static void five_hundreds_are_repeated(void **state)
{
	struct fixture *f = *state;
	uint64_t node = start_writing(f, "b", "2");

	fake.commit = (struct fake_fault){.err = -EIO, .status = 503, .times = 1};
	assert_int_equal(do_fsync(f, node), 0);
	assert_int_equal(fake.posts, 2);
	assert_string_equal(fake_tree(), "a=1 b=2");
	stop_writing(f, node);
}

static void five_hundreds_until_the_time_is_up(void **state)
{
	struct fixture *f = *state;
	uint64_t node;

	reopen(f, 50, 300);
	node = start_writing(f, "b", "3");
	fake.commit = (struct fake_fault){.err = -EIO, .status = 503, .times = 1000};
	assert_int_equal(do_fsync(f, node), -EIO);
	fake_lock();
	fake.commit.times = 0;
	fake_unlock();
	stop_writing(f, node);
	until_idle(f); /* and by itself afterwards */
	assert_string_equal(fake_tree(), "a=1 b=3");
}

static void a_lost_answer_that_landed_is_success(void **state)
{
	struct fixture *f = *state;
	uint64_t node = start_writing(f, "b", "2");

	fake.commit = (struct fake_fault){.err = -EIO, .status = 504, .maybe_done = true, .lands = true};
	fake.commit.times = 1;
	assert_int_equal(do_fsync(f, node), 0);
	assert_string_equal(fake_tree(), "a=1 b=2");
	assert_int_equal(fake.posts, 1);
	stop_writing(f, node);
}

static void a_silent_hub_times_out(void **state)
{
	struct fixture *f = *state;
	int64_t since;
	uint64_t node;

	reopen(f, 50, 300);
	node = start_writing(f, "b", "2");
	since = util_now_ms();
	fake.preupload = (struct fake_fault){.err = -ETIMEDOUT, .silent = true, .times = 1};
	assert_int_equal(do_fsync(f, node), -ETIMEDOUT);
	assert_true(util_now_ms() - since >= 300);
	fake_lock();
	fake.awake = true;
	fake_unlock();
	stop_writing(f, node);
	until_idle(f); /* it goes on by itself */
	assert_string_equal(fake_tree(), "a=1 b=2");
}

static void moving_bytes_are_waited_for(void **state)
{
	struct fixture *f = *state;
	int64_t since;
	uint64_t node;

	reopen(f, 50, 400);
	node = start_writing(f, "b.bin",
	                     "0123456789012345678901234567890123456789012345678901234567890123456789");
	since = util_now_ms();
	fake.slow_us = 100000; /* ten pieces */
	assert_int_equal(do_fsync(f, node), 0);
	assert_true(util_now_ms() - since > 800);
	stop_writing(f, node);
}

static void the_close_of_a_file_that_failed_says_so_once(void **state)
{
	struct fixture *f = *state;
	struct publish_status status = {0};
	uint64_t b, c;

	fake.preupload = (struct fake_fault){.err = -EACCES, .status = 403, .times = 1};
	b = make(f, "b", "2");
	c = make(f, "c", "3");
	for (int64_t until = util_now_ms() + LONG_MS; !status.last_err && util_now_ms() < until; usleep(1000))
		publish_status(f->p, &status);
	assert_int_equal(status.last_err, -EACCES);
	assert_int_equal(status.next_ms, 0); /* not by itself */
	uint64_t other = start_writing(f, "d", "4");
	assert_int_equal(publish_take_error(f->p, other), 0);
	open_again(f, b);
	assert_int_equal(publish_take_error(f->p, b), -EACCES);
	assert_int_equal(publish_take_error(f->p, b), 0);
	/* A close that changed something begins a new set, which succeeds: all is forgotten. */
	stop_writing(f, b);
	stop_writing(f, other);
	until_idle(f);
	assert_int_equal(publish_take_error(f->p, c), 0);
	assert_string_equal(fake_tree(), "a=1 b=2 c=3 d=4");
}

/* -- cancelling -- */

static void a_waiter_that_is_interrupted(void **state)
{
	struct fixture *f = *state;
	uint64_t node = start_writing(f, "b", "2"), c = start_writing(f, "c", "3");
	struct wait w, other;

	fake.preupload = (struct fake_fault){.err = -ETIMEDOUT, .silent = true, .times = 1};
	start_fsync(f, node, &w);
	UNTIL(fake.preuploads == 1);
	start_fsync(f, c, &other);
	assert_true(publish_cancel(f->p, w.id));
	assert_false(publish_cancel(f->p, w.id));
	fake_lock();
	fake.awake = true;
	fake_unlock();
	assert_int_equal(end_fsync(&other), 0);
	assert_false(publish_cancel(f->p, other.id));
	stop_writing(f, node);
	stop_writing(f, c);
	until_idle(f);
	assert_false(w.answered);
}

/* -- asked for -- */

static void asked(void **state)
{
	struct fixture *f = *state;
	struct publish_ask ask = {.title = "Release", .description = "Words."};
	struct publish_answer answer = {0};
	uint64_t node;

	reopen(f, LONG_MS, LONG_MS);
	node = start_writing(f, "open", "o");
	make(f, "b", "2");
	assert_int_equal(publish_commit(f->p, &ask, 0, &answer), 0);
	assert_int_equal(answer.err, 0);
	assert_string_equal(answer.commit, fake_head()->id);
	assert_string_equal(answer.url, "http://hub/commit");
	assert_int_equal(answer.left_out, 1);
	assert_string_equal(fake_head()->title, "Release");
	assert_string_equal(fake_tree(), "a=1 b=2");
	publish_answer_fini(&answer);
	/* Nothing to publish. */
	assert_int_equal(publish_commit(f->p, &(struct publish_ask){0}, LONG_MS, &answer), 0);
	assert_int_equal(answer.err, 0);
	assert_string_equal(answer.commit, "");
	publish_answer_fini(&answer);
	/* A failure in words. */
	make(f, "c", "3");
	fake.commit = (struct fake_fault){.err = -EINVAL, .status = 400, .times = 1};
	assert_int_equal(publish_commit(f->p, &(struct publish_ask){0}, 0, &answer), 0);
	assert_int_equal(answer.err, -EINVAL);
	assert_string_equal(answer.text, "the fake Hub says no");
	publish_answer_fini(&answer);
	/* A deadline; what was asked for goes on. */
	fake.preupload = (struct fake_fault){.err = -ETIMEDOUT, .silent = true, .times = 1};
	assert_int_equal(publish_commit(f->p, &ask, 100, &answer), -ETIMEDOUT);
	stop_writing(f, node);
}

static void manual_is_only_asked_for(void **state)
{
	struct fixture *f = *state;
	struct publish_answer answer = {0};

	close_all(f, 0);
	f->opts.commit = OPTS_COMMIT_MANUAL;
	open_all(f);
	make(f, "b", "2");
	close_all(f, util_now_ms() + LONG_MS); /* not even at the end */
	assert_int_equal(fake.posts + fake.preuploads, 0);
	open_all(f);
	assert_int_equal(publish_commit(f->p, &(struct publish_ask){0}, 0, &answer), 0);
	assert_string_equal(answer.commit, fake_head()->id);
	publish_answer_fini(&answer);
	assert_string_equal(fake_tree(), "a=1 b=2");
}

/* -- ends and beginnings -- */

static void the_end_publishes_what_is_settled(void **state)
{
	struct fixture *f = *state;

	reopen(f, LONG_MS, LONG_MS);
	make(f, "b", "2");
	/* Nobody's fault: once more. */
	fake.commit = (struct fake_fault){.err = -EIO, .status = 500, .times = 1};
	close_all(f, util_now_ms() + LONG_MS);
	assert_string_equal(fake_tree(), "a=1 b=2");
	open_all(f);
	assert_true(publish_idle(f->p));
	make(f, "c", "3");
	close_all(f, 0); /* no time for it */
	assert_string_equal(fake_tree(), "a=1 b=2");
}

static void the_end_answers_who_waits(void **state)
{
	struct fixture *f = *state;
	uint64_t node = start_writing(f, "b.bin", "2");
	struct wait w;

	fake.batch = (struct fake_fault){.err = -ETIMEDOUT, .silent = true, .times = 1};
	start_fsync(f, node, &w);
	UNTIL(fake.batches == 1);
	publish_free(f->p, util_now_ms() + 100); /* bounded */
	f->p = NULL;
	assert_true(w.answered);
	assert_int_equal(w.err, -ECANCELED);
	stage_close(f->stage);
}

static void what_a_former_mount_left_is_published(void **state)
{
	struct fixture *f = *state;

	reopen(f, LONG_MS, LONG_MS);
	make(f, "b", "2");
	reopen(f, 50, LONG_MS);
	until_idle(f);
	assert_string_equal(fake_tree(), "a=1 b=2");
	assert_int_equal(fake.posts, 1);
}

static void a_commit_in_doubt_is_looked_for_at_the_start(void **state)
{
	struct fixture *f = *state;
	struct publish_answer answer = {0};

	close_all(f, 0);
	f->opts.commit = OPTS_COMMIT_MANUAL; /* even then: it only looks */
	open_all(f);
	make(f, "b", "2");
	fake.commit = (struct fake_fault){.err = -ETIMEDOUT, .maybe_done = true, .lands = true, .times = 1};
	fake.look = (struct fake_fault){.err = -ENETDOWN, .times = 1000};
	assert_int_equal(publish_commit(f->p, &(struct publish_ask){0}, 300, &answer), -ETIMEDOUT);
	close_all(f, 0);
	fake_lock();
	fake.look.times = 0;
	fake_unlock();
	open_all(f);
	until_idle(f);
	assert_int_equal(fake.posts, 1);
	assert_string_equal(fake_tree(), "a=1 b=2");
}

static void *write_much(void *arg)
{
	struct fixture *f = the;
	char name[30];

	for (unsigned i = 0; i < 10; i++) {
		snprintf(name, sizeof(name), "t%u-%u%s", *(unsigned *)arg, i, i % 3 ? "" : ".bin");
		uint64_t node = start_writing(f, name, name);
		if (i % 4 == 0)
			assert_int_equal(do_fsync(f, node), 0);
		assert_int_equal(publish_take_error(f->p, node), 0);
		stop_writing(f, node);
	}
	return NULL;
}

static void threads(void **state)
{
	struct fixture *f = *state;
	unsigned numbers[4] = {0, 1, 2, 3};
	pthread_t ids[4];
	struct publish_status status;

	for (unsigned i = 0; i < 4; i++)
		assert_int_equal(pthread_create(&ids[i], NULL, write_much, &numbers[i]), 0);
	for (unsigned i = 0; i < 100; i++)
		publish_status(f->p, &status);
	for (unsigned i = 0; i < 4; i++)
		pthread_join(ids[i], NULL);
	until_idle(f);
	assert_int_equal(fake_head()->n, 41);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(close_is_published),
		TEST(a_writer_holds_back),
		TEST(fsync_publishes_the_bytes_of_its_call),
		TEST(fsync_that_is_only_local),
		TEST(a_close_that_waits_for_the_commit),
		TEST(hugfs_commit_takes_what_was_closed),
		TEST(two_fsyncs_one_commit),
		TEST(too_late_to_join),
		TEST(shards_wait_for_each_other),
		TEST(failures_are_told_at_once),
		TEST(a_conflict_is_estale),
		TEST(a_transaction_begins_beside_others),
		TEST(five_hundreds_are_repeated),
		TEST(five_hundreds_until_the_time_is_up),
		TEST(a_lost_answer_that_landed_is_success),
		TEST(a_silent_hub_times_out),
		TEST(moving_bytes_are_waited_for),
		TEST(the_close_of_a_file_that_failed_says_so_once),
		TEST(a_waiter_that_is_interrupted),
		TEST(asked),
		TEST(manual_is_only_asked_for),
		TEST(the_end_publishes_what_is_settled),
		TEST(the_end_answers_who_waits),
		TEST(what_a_former_mount_left_is_published),
		TEST(a_commit_in_doubt_is_looked_for_at_the_start),
		TEST(threads),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
