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
#define MAX_WINDOW (64 * MIB)

static struct readahead ra;
static uint64_t got_off, got_len;

static int setup(void **state)
{
	memset(&ra, 0, sizeof(ra));
	return 0;
}

static uint64_t note(uint64_t off, uint64_t len, bool waited)
{
	readahead_note(&ra, off, len, 10 * GIB, waited, MAX_WINDOW, &got_off, &got_len);
	assert_true(got_off % MIB == 0 && got_len % MIB == 0);
	return got_len;
}

static void test_first_read_asks_nothing(void **state)
{
	assert_int_equal(note(0, 128 * KIB, true), 0);
	assert_int_equal(note(0, 128 * KIB, false), 0);       /* again, now from the cache */
	assert_int_equal(note(128 * KIB, 16 * KIB, false), 0); /* the kernel cut one small read in two */
	assert_int_equal(note(5 * GIB, 128 * KIB, true), 0);
}

static void test_sequential_opens_and_grows(void **state)
{
	uint64_t at = 0, asked_to = MIB, first = 0, largest = 0;

	for (int i = 0; i < 4000; i++, at += 128 * KIB) {
		bool waited = at >= asked_to;
		uint64_t len = note(at, 128 * KIB, waited || i % 64 == 0);

		if (!len)
			continue;
		if (!first)
			first = at;
		assert_int_equal(got_off, asked_to); /* no gap, nothing twice */
		asked_to = got_off + len;
		largest = MAX(largest, asked_to - at);
		assert_true(asked_to <= at + 128 * KIB + MAX_WINDOW + MIB);
	}
	assert_int_equal(first, 256 * KIB);
	assert_true(largest >= 63 * MIB); /* it grew to the cap while readers waited */
	assert_true(asked_to > at);
}

static void test_no_growth_without_waiting(void **state)
{
	uint64_t at = 0, largest = 0, asked_to = 0;

	for (int i = 0; i < 2000; i++, at += 128 * KIB) {
		if (note(at, 128 * KIB, false))
			asked_to = got_off + got_len;
		if (asked_to > at)
			largest = MAX(largest, asked_to - at);
	}
	assert_true(largest >= 2 * MIB && largest <= 6 * MIB);
}

static void test_random_asks_nothing(void **state)
{
	uint64_t at = 12345;

	for (int i = 0; i < 1000; i++) {
		at = (at * 6364136223846793005u + 1442695040888963407u);
		assert_int_equal(note(at % (9 * GIB) / 4096 * 4096, 4 * KIB, true), 0);
	}
}

/* Forked readers with one descriptor, and the kernel's reordered requests, each find their stream. */
static void test_streams(void **state)
{
	uint64_t asked[4] = {0};

	for (uint64_t i = 0; i < 64; i++) {
		for (uint64_t s = 0; s < 4; s++) {
			/* pairs are swapped */
			uint64_t off = s * 2 * GIB + (i ^ 1) * 128 * KIB;

			if (note(off, 128 * KIB, false))
				asked[s] += got_len;
		}
	}
	for (int s = 0; s < 4; s++)
		assert_true(asked[s] >= 8 * MIB);
}

static void test_ends_with_the_file(void **state)
{
	uint64_t size = 3 * MIB + 17, end = 0;

	for (uint64_t at = 0; at < size; at += 128 * KIB) {
		uint64_t len = MIN(128 * KIB, size - at);

		readahead_note(&ra, at, len, size, true, MAX_WINDOW, &got_off, &got_len);
		if (got_len)
			end = got_off + got_len;
	}
	assert_int_equal(end, 4 * MIB);
}

static void test_no_window_no_ahead(void **state)
{
	for (uint64_t at = 0; at < 100 * MIB; at += MIB) {
		readahead_note(&ra, at, MIB, GIB, true, 0, &got_off, &got_len);
		assert_int_equal(got_len, 0);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(test_first_read_asks_nothing, setup),
		cmocka_unit_test_setup(test_sequential_opens_and_grows, setup),
		cmocka_unit_test_setup(test_no_growth_without_waiting, setup),
		cmocka_unit_test_setup(test_random_asks_nothing, setup),
		cmocka_unit_test_setup(test_streams, setup),
		cmocka_unit_test_setup(test_ends_with_the_file, setup),
		cmocka_unit_test_setup(test_no_window_no_ahead, setup),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
