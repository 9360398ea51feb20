/* A clock on which the machine can sleep. It stands in the place of cache/util_clock.c: the linker takes that from
 * the library only for a program that has none of its own. For one file of a program. */
#ifndef HUGFS_TEST_CLOCK_H
#define HUGFS_TEST_CLOCK_H

#include <stdatomic.h>
#include <time.h>

#include "util.h"

static atomic_int_fast64_t slept_ms;

int64_t util_now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000 + atomic_load(&slept_ms);
}

int64_t util_slept_ms(void)
{
	return atomic_load(&slept_ms);
}

#endif
