/* util_clock: what time it is. A file of its own, so that a test can put its own clock in its place.
 *
 * Any thread; no state. */
#define LOG_MODULE "util"
#include "util.h"

#include <time.h>

static int64_t clock_ms(clockid_t clock)
{
	struct timespec ts;

	clock_gettime(clock, &ts);
	return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

int64_t util_now_ms(void)
{
	return clock_ms(CLOCK_BOOTTIME);
}

int64_t util_slept_ms(void)
{
	return clock_ms(CLOCK_BOOTTIME) - clock_ms(CLOCK_MONOTONIC);
}
