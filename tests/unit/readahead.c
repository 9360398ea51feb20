/* Tests of cache/readahead.c. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include <string.h>

#include "readahead.h"

#define KIB ((uint64_t)1 << 10)
#define MIB ((uint64_t)1 << 20)
#define GIB ((uint64_t)1 << 30)
#define MAX_WINDOW (256 * MIB)

static struct readahead ra;
static struct readahead_ask ask;
static uint64_t file_size;
static int64_t now;
static bool follows;

static int setup(void **state)
{
	readahead_init(&ra, "model.bin");
	file_size = 10 * GIB;
	now = 1000;
	follows = true;
	return 0;
}

static uint64_t note_max(uint64_t off, uint64_t len, bool waited, uint64_t max_window)
{
	struct readahead_read read = {
		.off = off,
		.len = len,
		.size = file_size,
		.waited = waited,
		.follows = follows,
		.now_ms = now,
		.max_window = max_window,
		.connections = 8,
	};

	readahead_note(&ra, &read, &ask);
	assert_true(ask.off % MIB == 0 && ask.end % MIB == 0 && ask.off <= ask.end);
	assert_true(ask.tail_off % MIB == 0 && ask.tail_end % MIB == 0 && ask.tail_off <= ask.tail_end);
	assert_true(ask.dead_off % MIB == 0 && ask.dead_end % MIB == 0 && ask.dead_off <= ask.dead_end);
	if (ask.off < ask.end)
		assert_true(ask.part >= MIB && ask.part % MIB == 0);
	return ask.end - ask.off;
}

static uint64_t note(uint64_t off, uint64_t len, bool waited)
{
	return note_max(off, len, waited, MAX_WINDOW);
}

/* Reads [from, to) in the kernel's pieces; waits for what was not asked for and now and then. Answers the
 * bytes asked for ahead. */
static uint64_t read_through(uint64_t from, uint64_t to)
{
	uint64_t asked = 0;

	for (uint64_t at = from; at < to; at += 128 * KIB)
		asked += note(at, 128 * KIB, at / (128 * KIB) % 64 == 0);
	return asked;
}

static void test_first_reads_ask_nothing(void **state)
{
	assert_int_equal(note(0, 128 * KIB, true), 0);
	assert_int_equal(note(0, 128 * KIB, false), 0);         /* again, now from the cache */
	assert_int_equal(note(128 * KIB, 128 * KIB, false), 0); /* a header that the kernel cut */
	assert_int_equal(note(256 * KIB, 128 * KIB, false), 0);
	assert_int_equal(note(5 * GIB, 128 * KIB, true), 0);
}

/* The kernel's requests of 512 KiB: two come with the first, whatever the program does. */
static void test_few_large_reads_open_nothing(void **state)
{
	assert_int_equal(note(0, 512 * KIB, true), 0);
	assert_int_equal(note(512 * KIB, 512 * KIB, false), 0);
	assert_int_equal(note(MIB, 512 * KIB, true), 0);
	assert_int_equal(note(MIB + 512 * KIB, 512 * KIB, true), READAHEAD_FIRST);
}

/* A column of a parquet file: half a block of each row group, and what the kernel asks beside it. */
static void test_strides_ask_nothing(void **state)
{
	for (uint64_t at = 1900 * KIB; at < 100 * MIB; at += 4860 * KIB)
		for (uint64_t i = 0; i < 3; i++)
			assert_int_equal(note(at + i * 512 * KIB, 512 * KIB, true), 0);
}

/* Requests of 1 MiB, the second of them sent before the first is answered: no program has read so far yet. */
static void test_the_kernel_alone_opens_nothing(void **state)
{
	assert_int_equal(note(0, MIB, true), 0);
	follows = false;
	assert_int_equal(note(MIB, MIB, true), 0);
	assert_int_equal(note(2 * MIB, MIB, true), 0);
	assert_int_equal(note(3 * MIB, MIB, true), 0);
	follows = true;
	assert_int_equal(note(4 * MIB, MIB, true), READAHEAD_FIRST);
}

static void test_sequential_opens_and_grows(void **state)
{
	uint64_t asked_to = MIB, first = 0, largest = 0, largest_part = 0;

	for (uint64_t at = 0; at < 2 * GIB; at += 128 * KIB) {
		uint64_t len = note(at, 128 * KIB, at >= asked_to || at % (8 * MIB) == 0);

		if (!len)
			continue;
		if (!first)
			first = at;
		assert_int_equal(ask.off, asked_to); /* no gap, nothing twice */
		asked_to = ask.end;
		largest = MAX(largest, asked_to - at);
		largest_part = MAX(largest_part, ask.part);
		assert_true(asked_to <= at + 128 * KIB + MAX_WINDOW + MIB);
	}
	assert_int_equal(first, READAHEAD_PROOF + 128 * KIB);
	assert_true(largest >= MAX_WINDOW - MIB); /* it grew to the cap while readers waited */
	assert_int_equal(largest_part, MAX_WINDOW / 8);
}

/* All connections work from the first window on, and none is left alone with the end of the file. */
static void test_parts(void **state)
{
	assert_int_equal(read_through(0, READAHEAD_PROOF + 256 * KIB), READAHEAD_FIRST);
	assert_int_equal(ask.part, READAHEAD_FIRST / 8);
	file_size = GIB;
	setup(state);
	file_size = GIB;
	for (uint64_t at = 0; at < GIB; at += 128 * KIB) {
		if (note(at, 128 * KIB, at % (8 * MIB) == 0) && ask.off >= GIB - 64 * MIB)
			assert_int_equal(ask.part, 4 * MIB);
	}
}

static void test_no_growth_without_waiting(void **state)
{
	uint64_t largest = 0, asked_to = 0;

	for (uint64_t at = 0; at < 250 * MIB; at += 128 * KIB) {
		if (note(at, 128 * KIB, false))
			asked_to = ask.end;
		if (asked_to > at)
			largest = MAX(largest, asked_to - at);
	}
	assert_true(largest >= READAHEAD_FIRST && largest <= READAHEAD_FIRST + 2 * MIB);
}

static void test_random_asks_nothing(void **state)
{
	uint64_t at = 12345;

	for (int i = 0; i < 1000; i++) {
		at = (at * 6364136223846793005u + 1442695040888963407u);
		assert_int_equal(note(at % (9 * GIB) / 4096 * 4096, 4 * KIB, true), 0);
	}
}

/* Small reads in one neighbourhood are no stream, however far they go. */
static void test_sparse_asks_nothing(void **state)
{
	for (uint64_t at = 0; at < 100 * MIB; at += 100 * KIB)
		assert_int_equal(note(at, 4 * KIB, false), 0);
}

/* Forked readers with one descriptor, and the kernel's reordered requests, each find their stream. */
static void test_streams(void **state)
{
	uint64_t asked[8] = {0};

	for (uint64_t i = 0; i < 64; i++) {
		for (uint64_t s = 0; s < 8; s++) {
			/* pairs are swapped */
			uint64_t off = s * GIB + (i ^ 1) * 128 * KIB;

			asked[s] += note(off, 128 * KIB, false);
		}
	}
	for (int s = 0; s < 8; s++)
		assert_true(asked[s] >= 8 * MIB);
}

/* Streams of one inode share its window. */
static void test_streams_share(void **state)
{
	for (uint64_t i = 0; i < 2000; i++)
		for (uint64_t s = 0; s < 4; s++)
			if (note(s * GIB + i * 128 * KIB, 128 * KIB, true) && i > 1000)
				assert_true(ask.end <= s * GIB + (i + 1) * 128 * KIB + MAX_WINDOW / 4 + MIB);
}

static void test_a_dead_stream_is_taken_back(void **state)
{
	uint64_t asked = read_through(0, 20 * MIB);

	assert_true(asked >= 20 * MIB);
	now += READAHEAD_DEAD_MS + 1;
	asked = 0;
	for (uint64_t at = 4 * GIB; at < 4 * GIB + 3 * MIB && !asked; at += 128 * KIB) {
		note(at, 128 * KIB, true);
		asked = ask.dead_end - ask.dead_off;
	}
	assert_int_equal(ask.dead_off, 20 * MIB);
	assert_true(asked >= 4 * MIB);
	/* Its reader comes back: it begins anew, and nothing is left out. */
	assert_int_equal(note(20 * MIB, 128 * KIB, true), 0);
	assert_true(read_through(20 * MIB + 128 * KIB, 22 * MIB) >= READAHEAD_FIRST);
}

static void test_a_stream_is_taken_over(void **state)
{
	uint64_t dead = 0;

	read_through(0, 20 * MIB);
	for (uint64_t i = 1; i <= READAHEAD_STREAMS; i++) {
		note(i * GIB / 4 + GIB, 4096, true);
		dead += ask.dead_end - ask.dead_off;
	}
	assert_true(dead >= 4 * MIB);
}

static void test_ends_with_the_file(void **state)
{
	uint64_t end = 0;

	file_size = 3 * MIB + 17;
	for (uint64_t at = 0; at < file_size; at += 128 * KIB) {
		if (note(at, MIN(128 * KIB, file_size - at), true))
			end = ask.end;
	}
	assert_int_equal(end, 4 * MIB);
}

static void test_no_window_no_ahead(void **state)
{
	for (uint64_t at = 0; at < 100 * MIB; at += MIB)
		assert_int_equal(note_max(at, MIB, true, 0), 0);
}

/* Its directory is fetched when a second block is read, once, and not for a header alone. */
static void test_tail(void **state)
{
	readahead_init(&ra, "data/train.PARQUET");
	note(0, 16 * KIB, true);
	assert_int_equal(ask.tail_end, 0);
	note(16 * KIB, 128 * KIB, false);
	assert_int_equal(ask.tail_end, 0);
	note(5 * GIB, 4 * KIB, true);
	assert_int_equal(ask.tail_off, 10 * GIB - MIB);
	assert_int_equal(ask.tail_end, 10 * GIB);
	note(6 * GIB, 4 * KIB, true);
	assert_int_equal(ask.tail_end, 0);
	/* One that may begin in the block before. */
	readahead_init(&ra, "a.zip");
	file_size = 10 * MIB + 100;
	note(10 * MIB, 100, true);
	assert_int_equal(ask.tail_end, 0);
	note(0, 4 * KIB, true);
	assert_int_equal(ask.tail_off, 9 * MIB);
	assert_int_equal(ask.tail_end, 11 * MIB);
	/* Others have none. */
	readahead_init(&ra, "zip");
	note(0, 100, true);
	note(5 * MIB, 100, true);
	assert_int_equal(ask.tail_end, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(test_first_reads_ask_nothing, setup),
		cmocka_unit_test_setup(test_few_large_reads_open_nothing, setup),
		cmocka_unit_test_setup(test_strides_ask_nothing, setup),
		cmocka_unit_test_setup(test_the_kernel_alone_opens_nothing, setup),
		cmocka_unit_test_setup(test_sequential_opens_and_grows, setup),
		cmocka_unit_test_setup(test_parts, setup),
		cmocka_unit_test_setup(test_no_growth_without_waiting, setup),
		cmocka_unit_test_setup(test_random_asks_nothing, setup),
		cmocka_unit_test_setup(test_sparse_asks_nothing, setup),
		cmocka_unit_test_setup(test_streams, setup),
		cmocka_unit_test_setup(test_streams_share, setup),
		cmocka_unit_test_setup(test_a_dead_stream_is_taken_back, setup),
		cmocka_unit_test_setup(test_a_stream_is_taken_over, setup),
		cmocka_unit_test_setup(test_ends_with_the_file, setup),
		cmocka_unit_test_setup(test_no_window_no_ahead, setup),
		cmocka_unit_test_setup(test_tail, setup),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
