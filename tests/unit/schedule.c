/* Unit tests of schedule, on a clock of our own: each row of the table in design.md 3.2. */
#include "schedule.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#define S 1000
#define MIB ((uint64_t)1 << 20)

static struct schedule_brake brake;

static struct schedule *make(enum schedule_mode mode)
{
	struct schedule_opts opts = {
		.mode = mode, .delay_ms = 2 * S, .open_wait_ms = 60 * S, .brake = &brake,
	};
	struct schedule *s = NULL;

	memset(&brake, 0, sizeof(brake));
	assert_int_equal(schedule_new(&opts, &s), 0);
	return s;
}

#define AUTO_SCHEDULE CLEANUP(schedule_freep) struct schedule

/* The answer at `now`: -1 nothing, -2 - reason a commit, else the time to ask again. */
static int64_t next(struct schedule *s, int64_t now)
{
	enum schedule_reason reason = SCHEDULE_QUIET;
	int64_t wake = 0;

	switch (schedule_next(s, now, &reason, &wake)) {
	case SCHEDULE_COMMIT:
		return -2 - (int64_t)reason;
	case SCHEDULE_WAIT:
		assert_true(wake > now);
		return wake;
	case SCHEDULE_NOTHING:
		break;
	}
	return -1;
}

#define NOTHING (-1)
#define QUIET (-2 - (int64_t)SCHEDULE_QUIET)
#define SYNC (-2 - (int64_t)SCHEDULE_SYNC)
#define ASKED (-2 - (int64_t)SCHEDULE_ASKED)
#define RECOVER (-2 - (int64_t)SCHEDULE_RECOVER)

static void done(struct schedule *s, int64_t now, int err)
{
	struct schedule_outcome o = {.err = err, .retry_s = -1, .sent = err == 0};

	schedule_done(s, now, &o);
}

static void run(struct schedule *s, int64_t now, int err)
{
	enum schedule_reason reason;
	int64_t wake;

	assert_int_equal(schedule_next(s, now, &reason, &wake), SCHEDULE_COMMIT);
	schedule_began(s, reason);
	assert_int_equal(next(s, now), NOTHING);
	done(s, now, err);
}

/* A file of its own name: made, written and closed. */
static void save(struct schedule *s, int64_t from, int64_t to, const char *name, uint64_t node)
{
	schedule_changed(s, from, SCHEDULE_CREATED, name, node);
	schedule_opened(s, from, node);
	schedule_wrote(s, to, node, 10);
	schedule_closed(s, to, node, true);
}

static void quiet_after_the_last_change(void **state)
{
	AUTO_SCHEDULE *s = make(SCHEDULE_CLOSE);

	assert_int_equal(next(s, 0), NOTHING);
	save(s, 100, 100, "a", 5);
	assert_int_equal(next(s, 100), 100 + 2 * S);
	schedule_changed(s, 1 * S, SCHEDULE_RENAMED, "b", 5);
	assert_int_equal(next(s, 2100), 3 * S);
	schedule_changed(s, 2 * S, SCHEDULE_DELETED, "c", 0);
	assert_int_equal(next(s, 3 * S), 4 * S);
	assert_int_equal(next(s, 4 * S), QUIET);
	run(s, 4 * S, 0);
	assert_int_equal(next(s, 100 * S), NOTHING);
}

static void an_unchanged_close_is_no_change(void **state)
{
	AUTO_SCHEDULE *s = make(SCHEDULE_CLOSE);

	schedule_opened(s, 0, 5);
	schedule_closed(s, 1 * S, 5, false);
	assert_int_equal(next(s, 1 * S), NOTHING);
}

static void a_writer_holds_back_for_open_wait(void **state)
{
	AUTO_SCHEDULE *s = make(SCHEDULE_CLOSE);

	schedule_changed(s, 0, SCHEDULE_CREATED, "big", 5);
	schedule_opened(s, 0, 5);
	save(s, 1 * S, 1 * S, "small", 6);
	assert_int_equal(next(s, 10 * S), 60 * S);
	/* Each further 64 MiB holds back anew; less does not. */
	schedule_wrote(s, 30 * S, 5, 63 * MIB);
	assert_int_equal(next(s, 30 * S), 60 * S);
	schedule_wrote(s, 40 * S, 5, 1 * MIB);
	assert_int_equal(next(s, 40 * S), 100 * S);
	schedule_wrote(s, 50 * S, 5, 63 * MIB);
	assert_int_equal(next(s, 50 * S), 100 * S);
	assert_int_equal(next(s, 100 * S), QUIET);
	run(s, 100 * S, 0);
	/* A log that stays open blocks nothing. */
	schedule_wrote(s, 110 * S, 5, 10);
	assert_int_equal(next(s, 110 * S), NOTHING);
	save(s, 200 * S, 200 * S, "other", 7);
	assert_int_equal(next(s, 200 * S), 202 * S);
}

static void what_was_left_out_is_published_when_it_closes(void **state)
{
	AUTO_SCHEDULE *s = make(SCHEDULE_CLOSE);

	schedule_changed(s, 0, SCHEDULE_CREATED, "empty", 5);
	schedule_opened(s, 0, 5);
	run(s, 60 * S, 0);
	assert_int_equal(next(s, 61 * S), NOTHING);
	schedule_closed(s, 70 * S, 5, false); /* it never wrote, but it was not in the commit */
	assert_int_equal(next(s, 70 * S), 72 * S);
}

static void the_last_of_two_writers_settles(void **state)
{
	AUTO_SCHEDULE *s = make(SCHEDULE_CLOSE);

	schedule_opened(s, 0, 5);
	schedule_opened(s, 0, 5);
	schedule_closed(s, 1 * S, 5, true);
	assert_int_equal(next(s, 1 * S), NOTHING);
	schedule_closed(s, 70 * S, 5, false);
	assert_int_equal(next(s, 70 * S), 72 * S);
}

static void a_slow_save_waits_longer(void **state)
{
	AUTO_SCHEDULE *s = make(SCHEDULE_CLOSE);

	/* 40 s of writing: a quarter of that. */
	save(s, 0, 40 * S, "shard-1", 5);
	assert_int_equal(next(s, 40 * S), 50 * S);
	/* Within 9 s the next one: one change set, of 80 s. */
	save(s, 49 * S, 80 * S, "shard-2", 6);
	assert_int_equal(next(s, 80 * S), 100 * S);
	/* At most 60 s. */
	for (int i = 0; i < 10; i++)
		save(s, (90 + i * 50) * S, (130 + i * 50) * S, (char[]){'n', (char)('0' + i), 0},
		     10 + (uint64_t)i);
	assert_int_equal(next(s, 580 * S), 640 * S);
	run(s, 640 * S, 0);
	save(s, 700 * S, 700 * S, "x", 50);
	assert_int_equal(next(s, 700 * S), 702 * S);
}

static void what_no_longer_holds_back_does_not_count_as_writing(void **state)
{
	AUTO_SCHEDULE *s = make(SCHEDULE_CLOSE);

	schedule_opened(s, 0, 5); /* a log */
	schedule_closed(s, 1000 * S, 5, true);
	assert_int_equal(next(s, 1000 * S), 1002 * S);
}

static void deletions_alone_wait_ten_times_longer(void **state)
{
	AUTO_SCHEDULE *s = make(SCHEDULE_CLOSE);

	schedule_changed(s, 0, SCHEDULE_DELETED, "a", 0);
	assert_int_equal(next(s, 0), 20 * S);
	schedule_changed(s, 5 * S, SCHEDULE_DELETED, "b", 0);
	assert_int_equal(next(s, 5 * S), 25 * S);
	save(s, 6 * S, 6 * S, "c", 5); /* what followed them */
	assert_int_equal(next(s, 6 * S), 8 * S);
	run(s, 8 * S, 0);
	schedule_changed(s, 10 * S, SCHEDULE_DELETED, "c", 5);
	assert_int_equal(next(s, 10 * S), 30 * S);
	run(s, 30 * S, -EIO); /* as before when it failed */
	assert_int_equal(next(s, 31 * S), QUIET);
}

static void a_name_rewritten_again_and_again_restarts_nothing(void **state)
{
	AUTO_SCHEDULE *s = make(SCHEDULE_CLOSE);

	save(s, 0, 0, "model", 4);
	/* status.json, in place, each second */
	schedule_changed(s, 1 * S, SCHEDULE_CREATED, "status.json", 5);
	schedule_opened(s, 1 * S, 5);
	schedule_closed(s, 1 * S, 5, true);
	assert_int_equal(next(s, 1 * S), 3 * S);
	schedule_opened(s, 2 * S, 5);
	schedule_closed(s, 2 * S, 5, true);
	assert_int_equal(next(s, 2 * S), 4 * S);
	for (int i = 3; i <= 50; i++) {
		schedule_opened(s, i * S, 5);
		schedule_closed(s, i * S, 5, true);
		/* counts as open since the first */
		assert_int_equal(next(s, i * S), 61 * S);
	}
	/* Others do restart. */
	save(s, 60 * S, 60 * S, "late", 6);
	schedule_opened(s, 61 * S, 5);
	schedule_closed(s, 61 * S, 5, true);
	assert_int_equal(next(s, 61 * S), 75 * S); /* a quarter of 60 s */
	assert_int_equal(next(s, 75 * S), QUIET);
	run(s, 75 * S, 0);
	/* A new set counts anew. */
	schedule_opened(s, 80 * S, 5);
	schedule_closed(s, 80 * S, 5, true);
	assert_int_equal(next(s, 80 * S), 82 * S);
}

static void replacing_by_rename_is_rewriting(void **state)
{
	AUTO_SCHEDULE *s = make(SCHEDULE_CLOSE);
	char tmp[16];

	/* tmpNNN is made, written, closed and renamed to x, each second, each time with another name */
	for (int i = 0; i < 40; i++) {
		uint64_t node = 100 + (uint64_t)i;

		snprintf(tmp, sizeof(tmp), "tmp%d", i);
		save(s, i * S, i * S, tmp, node);
		schedule_changed(s, i * S, SCHEDULE_RENAMED, "x", node);
		assert_int_equal(next(s, i * S), i < 2 ? (i + 2) * S : 60 * S);
	}
	assert_int_equal(next(s, 60 * S), QUIET);
}

static void renamed_while_open_is_rewritten_once(void **state)
{
	AUTO_SCHEDULE *s = make(SCHEDULE_CLOSE);

	for (int i = 0; i < 2; i++) {
		uint64_t node = 100 + (uint64_t)i;

		schedule_changed(s, i * S, SCHEDULE_CREATED, ".tmpX", node);
		schedule_opened(s, i * S, node);
		schedule_changed(s, i * S, SCHEDULE_RENAMED, "x", node);
		schedule_closed(s, i * S, node, true);
	}
	assert_int_equal(next(s, 1 * S), 3 * S);
}

static void fsync_is_at_once(void **state)
{
	AUTO_SCHEDULE *s = make(SCHEDULE_CLOSE);

	schedule_changed(s, 0, SCHEDULE_CREATED, "a", 5);
	schedule_opened(s, 0, 5);
	schedule_wrote(s, 100, 5, 10);
	schedule_fsync(s, 100, 5);
	assert_int_equal(next(s, 100), SYNC);
	run(s, 100, 0);
	assert_int_equal(next(s, 100), NOTHING);
}

static void fsync_waits_for_others_that_grow(void **state)
{
	AUTO_SCHEDULE *s = make(SCHEDULE_FSYNC);

	for (uint64_t node = 5; node < 8; node++)
		schedule_opened(s, 0, node);
	for (uint64_t node = 5; node < 8; node++)
		schedule_wrote(s, 10 * S, node, 10);
	schedule_fsync(s, 10 * S, 5);
	assert_int_equal(next(s, 10 * S), 11 * S);
	schedule_wrote(s, 10500, 6, 10);
	assert_int_equal(next(s, 10500), 11500);
	schedule_fsync(s, 10600, 6);
	assert_int_equal(next(s, 10600), 11 * S); /* 7 only */
	schedule_fsync(s, 10700, 7);
	assert_int_equal(next(s, 10700), SYNC); /* all of them are in it */
	run(s, 10700, 0);
	/* One that never stops is waited for 5 s. */
	schedule_fsync(s, 20 * S, 5);
	for (int64_t now = 20 * S; now < 25 * S; now += 500) {
		schedule_wrote(s, now, 6, 10);
		assert_true(next(s, now) > now);
	}
	schedule_wrote(s, 25 * S, 6, 10);
	assert_int_equal(next(s, 25 * S), SYNC);
}

static void fsync_that_gave_up_makes_no_commit(void **state)
{
	AUTO_SCHEDULE *s = make(SCHEDULE_FSYNC);

	schedule_opened(s, 0, 6);
	schedule_wrote(s, 0, 6, 1);
	schedule_fsync(s, 0, 5);
	schedule_fsync(s, 0, 7);
	schedule_unsync(s, 5);
	assert_int_equal(next(s, 0), 1 * S);
	schedule_unsync(s, 7);
	assert_int_equal(next(s, 0), NOTHING);
}

static void fsync_joins_the_run(void **state)
{
	AUTO_SCHEDULE *s = make(SCHEDULE_FSYNC);

	schedule_fsync(s, 0, 5);
	schedule_began(s, SCHEDULE_SYNC);
	schedule_fsync(s, 10, 6);
	schedule_joined(s);
	schedule_fsync(s, 20, 7);
	done(s, 30, 0);
	assert_int_equal(next(s, 30), SYNC); /* that one came too late */
	run(s, 30, 0);
	assert_int_equal(next(s, 30), NOTHING);
}

static void modes(void **state)
{
	AUTO_SCHEDULE *f = make(SCHEDULE_FSYNC);
	AUTO_SCHEDULE *m = make(SCHEDULE_MANUAL);

	save(f, 0, 0, "a", 5);
	assert_int_equal(next(f, 1000 * S), NOTHING);
	schedule_fsync(f, 1000 * S, 5);
	assert_int_equal(next(f, 1000 * S), SYNC);
	save(m, 0, 0, "a", 5);
	assert_int_equal(next(m, 1000 * S), NOTHING);
	schedule_ask(m, 1000 * S);
	assert_int_equal(next(m, 1000 * S), ASKED);
	run(m, 1000 * S, 0);
	assert_int_equal(next(m, 2000 * S), NOTHING);
}

static void a_close_that_waits_holds_nothing_back(void **state)
{
	AUTO_SCHEDULE *s = make(SCHEDULE_CLOSE);

	schedule_changed(s, 1 * S, SCHEDULE_CREATED, "a", 5);
	schedule_opened(s, 1 * S, 5);
	schedule_wrote(s, 1 * S, 5, 1);
	assert_int_equal(next(s, 1 * S), 61 * S);
	schedule_closing(s, 5 * S, 5);
	assert_int_equal(next(s, 5 * S), 7 * S); /* but for the quiet period */
	schedule_closing(s, 6 * S, 5);           /* of a copy of the descriptor */
	run(s, 7 * S, 0);
	schedule_closed(s, 8 * S, 5, true); /* its RELEASE is no news */
	assert_int_equal(next(s, 8 * S), NOTHING);
	/* Written again after that, it is open again. */
	schedule_opened(s, 10 * S, 5);
	schedule_wrote(s, 10 * S, 5, 1);
	schedule_closing(s, 11 * S, 5);
	schedule_wrote(s, 12 * S, 5, 1);
	assert_int_equal(next(s, 12 * S), 70 * S);
	schedule_closed(s, 13 * S, 5, true);
	assert_int_equal(next(s, 13 * S), 15 * S);
}

static void an_interval(void **state)
{
	AUTO_SCHEDULE *s = make(SCHEDULE_CLOSE);
	struct schedule_opts opts = {
		.mode = SCHEDULE_CLOSE, .delay_ms = 2 * S, .interval_ms = 100 * S, .open_wait_ms = 60 * S,
		.brake = &brake,
	};

	schedule_free(s);
	s = NULL;
	assert_int_equal(schedule_new(&opts, &s), 0);
	assert_int_equal(next(s, 10 * S), NOTHING);
	save(s, 10 * S, 10 * S, "a", 5);
	save(s, 105 * S, 105 * S, "b", 6); /* restarts nothing */
	assert_int_equal(next(s, 105 * S), 110 * S);
	run(s, 110 * S, 0);
	assert_int_equal(next(s, 500 * S), NOTHING); /* nothing settled */
	schedule_changed(s, 515 * S, SCHEDULE_DELETED, "a", 0);
	assert_int_equal(next(s, 515 * S), 610 * S);
	run(s, 610 * S, 0);
	/* A log that stays open is due at each beat at which it has grown. */
	schedule_opened(s, 620 * S, 7);
	assert_int_equal(next(s, 620 * S), NOTHING);
	schedule_wrote(s, 700 * S, 7, 10);
	assert_int_equal(next(s, 700 * S), 710 * S);
	run(s, 710 * S, 0);
	assert_int_equal(next(s, 800 * S), NOTHING);
	schedule_wrote(s, 930 * S, 7, 10);
	assert_int_equal(next(s, 930 * S), 1010 * S);
	/* fsync and who asks do not wait for it */
	schedule_fsync(s, 940 * S, 7);
	assert_int_equal(next(s, 940 * S), SYNC);
}

static void asked_is_at_once_whoever_writes(void **state)
{
	AUTO_SCHEDULE *s = make(SCHEDULE_CLOSE);

	schedule_changed(s, 0, SCHEDULE_CREATED, "a", 5);
	schedule_opened(s, 0, 5);
	schedule_wrote(s, 0, 5, 1);
	schedule_ask(s, 0);
	schedule_ask(s, 0);
	assert_int_equal(next(s, 0), ASKED);
	run(s, 0, 0);
	assert_int_equal(next(s, 0), ASKED); /* each has its own */
	schedule_unask(s);
	assert_int_equal(next(s, 0), NOTHING);
}

static void the_brake(void **state)
{
	AUTO_SCHEDULE *s = make(SCHEDULE_CLOSE);
	int64_t now = 0;

	for (int i = 0; i < 30; i++, now += 10 * S) {
		save(s, now, now, "a", 5);
		assert_int_equal(next(s, now), now + 2 * S);
		run(s, now + 2 * S, 0);
	}
	/* 30 since 2 s; the last at 292 s */
	save(s, now, now, "a", 5);
	assert_int_equal(next(s, now), 292 * S + 60 * S);
	/* fsync is not braked */
	schedule_fsync(s, now, 5);
	assert_int_equal(next(s, now), SYNC);
	run(s, now, 0);
	/* an hour after the first of them it goes on */
	save(s, 3602 * S, 3602 * S, "a", 5);
	assert_int_equal(next(s, 3602 * S), 3604 * S);
}

static void runs_that_send_nothing_are_not_counted(void **state)
{
	AUTO_SCHEDULE *s = make(SCHEDULE_CLOSE);
	struct schedule_outcome o = {.retry_s = -1};

	for (int64_t now = 0; now < 400 * S; now += 10 * S) {
		save(s, now, now, "a", 5);
		schedule_began(s, SCHEDULE_QUIET);
		schedule_done(s, now, &o);
	}
	save(s, 400 * S, 400 * S, "a", 5);
	assert_int_equal(next(s, 400 * S), 402 * S);
}

static void backoff_doubles(void **state)
{
	AUTO_SCHEDULE *s = make(SCHEDULE_CLOSE);
	int64_t now = 2 * S, pause = 1 * S;

	save(s, 0, 0, "a", 5);
	run(s, now, -EIO);
	for (int i = 0; i < 12; i++) {
		assert_int_equal(next(s, now), now + pause);
		now += pause;
		run(s, now, -ETIMEDOUT);
		pause = MIN(pause * 2, 300 * S);
	}
	assert_int_equal(pause, 300 * S);
	now += pause;
	run(s, now, 0);
	assert_int_equal(next(s, now), NOTHING);
	/* and starts over */
	save(s, now, now, "a", 5);
	run(s, now + 2 * S, -EBUSY);
	assert_int_equal(next(s, now + 2 * S), now + 3 * S);
}

static void the_hub_says_when(void **state)
{
	AUTO_SCHEDULE *s = make(SCHEDULE_CLOSE);
	struct schedule_outcome o = {.err = -EDQUOT, .retry_s = 40};

	save(s, 0, 0, "a", 5);
	schedule_began(s, SCHEDULE_QUIET);
	schedule_done(s, 2 * S, &o);
	assert_int_equal(next(s, 2 * S), 42 * S);
	o.retry_s = -1;
	schedule_began(s, SCHEDULE_QUIET);
	schedule_done(s, 42 * S, &o);
	assert_int_equal(next(s, 42 * S), 642 * S);
}

static void what_no_repetition_cures_is_not_repeated(void **state)
{
	static const int errs[] = {-EACCES, -ESTALE, -EINVAL, -EFBIG, -EMLINK, -EROFS};

	for (size_t i = 0; i < ARRAY_LEN(errs); i++) {
		AUTO_SCHEDULE *s = make(SCHEDULE_CLOSE);

		save(s, 0, 0, "a", 5);
		run(s, 2 * S, errs[i]);
		assert_int_equal(next(s, 5000 * S), NOTHING);
		/* a change, an fsync or a person may try again */
		schedule_ask(s, 5000 * S);
		run(s, 5000 * S, errs[i]);
		schedule_fsync(s, 5000 * S, 5);
		run(s, 5000 * S, errs[i]);
		assert_int_equal(next(s, 5001 * S), NOTHING);
		save(s, 6000 * S, 6000 * S, "b", 6);
		assert_int_equal(next(s, 6000 * S), 6002 * S);
	}
}

static void waiters_are_retried_sooner(void **state)
{
	AUTO_SCHEDULE *s = make(SCHEDULE_FSYNC);
	struct schedule_outcome o = {.err = -EIO, .retry_s = -1, .syncs = 1};
	int64_t now = 0;

	schedule_fsync(s, 0, 5);
	for (int i = 0; i < 10; i++) {
		assert_int_equal(next(s, now), SYNC);
		schedule_began(s, SCHEDULE_SYNC);
		schedule_done(s, now, &o);
		assert_int_equal(next(s, now), now + MIN(S << i, 8 * S));
		now += MIN(S << i, 8 * S);
	}
	/* another fsync tries at once */
	schedule_began(s, SCHEDULE_SYNC);
	schedule_done(s, now, &o);
	schedule_fsync(s, now + 1, 6);
	assert_int_equal(next(s, now + 1), SYNC);
	schedule_began(s, SCHEDULE_SYNC);
	o = (struct schedule_outcome){.err = -EIO, .retry_s = -1, .asked = true};
	schedule_done(s, now + 1, &o);
	assert_int_equal(next(s, now + 2), now + 1 + 8 * S);
	assert_int_equal(next(s, now + 1 + 8 * S), ASKED);
}

static void doubt_is_cleared_in_every_mode(void **state)
{
	AUTO_SCHEDULE *s = make(SCHEDULE_MANUAL);
	struct schedule_outcome o = {.err = -EIO, .retry_s = -1, .unsure = true};

	schedule_unsure(s, 5);
	assert_int_equal(next(s, 5), RECOVER);
	schedule_began(s, SCHEDULE_RECOVER);
	schedule_done(s, 5, &o);
	assert_int_equal(next(s, 5), 1005);
	run(s, 1005, 0);
	assert_int_equal(next(s, 1005), NOTHING);
	/* a commit whose answer was lost */
	schedule_ask(s, 2000);
	schedule_began(s, SCHEDULE_ASKED);
	schedule_done(s, 2000, &o);
	assert_int_equal(next(s, 2000), 3000);
	assert_int_equal(next(s, 3000), RECOVER);
}

static void a_change_during_the_run_is_for_the_next(void **state)
{
	AUTO_SCHEDULE *s = make(SCHEDULE_CLOSE);

	save(s, 0, 0, "a", 5);
	schedule_began(s, SCHEDULE_QUIET);
	save(s, 3 * S, 3 * S, "b", 6);
	done(s, 4 * S, 0);
	assert_int_equal(next(s, 4 * S), 5 * S);
}

static void many_names(void **state)
{
	AUTO_SCHEDULE *s = make(SCHEDULE_CLOSE);
	char name[32];

	for (uint64_t i = 0; i < 200000; i++) { /* more than is followed */
		snprintf(name, sizeof(name), "f%u", (unsigned)i);
		save(s, (int64_t)i, (int64_t)i, name, 10 + i);
	}
	assert_true(next(s, 200000) > 200000);
	assert_int_equal(next(s, 400000), QUIET);
	run(s, 400000, 0);
	assert_int_equal(next(s, 400000), NOTHING);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(quiet_after_the_last_change),
		cmocka_unit_test(an_unchanged_close_is_no_change),
		cmocka_unit_test(a_writer_holds_back_for_open_wait),
		cmocka_unit_test(what_was_left_out_is_published_when_it_closes),
		cmocka_unit_test(the_last_of_two_writers_settles),
		cmocka_unit_test(a_slow_save_waits_longer),
		cmocka_unit_test(what_no_longer_holds_back_does_not_count_as_writing),
		cmocka_unit_test(deletions_alone_wait_ten_times_longer),
		cmocka_unit_test(a_name_rewritten_again_and_again_restarts_nothing),
		cmocka_unit_test(replacing_by_rename_is_rewriting),
		cmocka_unit_test(renamed_while_open_is_rewritten_once),
		cmocka_unit_test(fsync_is_at_once),
		cmocka_unit_test(fsync_waits_for_others_that_grow),
		cmocka_unit_test(fsync_that_gave_up_makes_no_commit),
		cmocka_unit_test(fsync_joins_the_run),
		cmocka_unit_test(modes),
		cmocka_unit_test(a_close_that_waits_holds_nothing_back),
		cmocka_unit_test(an_interval),
		cmocka_unit_test(asked_is_at_once_whoever_writes),
		cmocka_unit_test(the_brake),
		cmocka_unit_test(runs_that_send_nothing_are_not_counted),
		cmocka_unit_test(backoff_doubles),
		cmocka_unit_test(the_hub_says_when),
		cmocka_unit_test(what_no_repetition_cures_is_not_repeated),
		cmocka_unit_test(waiters_are_retried_sooner),
		cmocka_unit_test(doubt_is_cleared_in_every_mode),
		cmocka_unit_test(a_change_during_the_run_is_for_the_next),
		cmocka_unit_test(many_names),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
