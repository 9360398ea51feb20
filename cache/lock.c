/* lock: mutexes that know their place in the order of modules, and conditions that belong to them.
 *
 * Not for the leaf mutex of log.c, which stands to the right of this module. Any thread. A debug build (no
 * NDEBUG) keeps, for each thread, the levels that it holds in ascending order: a new one must lie strictly to
 * the right of the last, and only a thread that holds nothing else may wait for a condition. */
#define LOG_MODULE "lock"

#include "lock.h"

#include <assert.h>
#include <errno.h>
#include <time.h>

#ifndef NDEBUG
#define HELD_MAX (LOCK_AUTH + 1) /* strictly ascending: each level once at most */

static _Thread_local enum lock_level held[HELD_MAX];
static _Thread_local unsigned n_held;

static void note_take(enum lock_level level)
{
	assert(n_held == 0 || held[n_held - 1] < level);
	assert(n_held < HELD_MAX);
	held[n_held++] = level;
}

static void note_drop(enum lock_level level)
{
	unsigned i = 0;

	while (i < n_held && held[i] != level)
		i++;
	assert(i < n_held);
	n_held--;
	for (; i < n_held; i++)
		held[i] = held[i + 1];
}

static void note_wait(enum lock_level level)
{
	assert(n_held == 1 && held[0] == level);
}
#else
static void note_take(enum lock_level level)
{
}

static void note_drop(enum lock_level level)
{
}

static void note_wait(enum lock_level level)
{
}
#endif

void lock_init(struct lock *l, enum lock_level level)
{
	pthread_mutexattr_t attr;

	pthread_mutexattr_init(&attr);
#ifndef NDEBUG
	pthread_mutexattr_settype(&attr, PTHREAD_MUTEX_ERRORCHECK);
#endif
	must(pthread_mutex_init(&l->mutex, &attr) == 0);
	pthread_mutexattr_destroy(&attr);
	l->level = level;
}

void lock_fini(struct lock *l)
{
	must(pthread_mutex_destroy(&l->mutex) == 0);
}

void lock_take(struct lock *l)
{
	note_take(l->level);
	must(pthread_mutex_lock(&l->mutex) == 0);
}

void lock_drop(struct lock *l)
{
	note_drop(l->level);
	must(pthread_mutex_unlock(&l->mutex) == 0);
}

void cond_init(struct cond *c)
{
	pthread_condattr_t attr;

	pthread_condattr_init(&attr);
	must(pthread_condattr_setclock(&attr, CLOCK_MONOTONIC) == 0);
	must(pthread_cond_init(&c->cond, &attr) == 0);
	pthread_condattr_destroy(&attr);
}

void cond_fini(struct cond *c)
{
	must(pthread_cond_destroy(&c->cond) == 0);
}

void cond_wait(struct cond *c, struct lock *l)
{
	note_wait(l->level);
	must(pthread_cond_wait(&c->cond, &l->mutex) == 0);
}

bool cond_wait_ms(struct cond *c, struct lock *l, int64_t ms)
{
	struct timespec until;
	int rc;

	note_wait(l->level);
	clock_gettime(CLOCK_MONOTONIC, &until);
	ms = MAX(ms, 0);
	until.tv_sec += (time_t)(ms / 1000);
	until.tv_nsec += (long)(ms % 1000) * 1000000;
	if (until.tv_nsec >= 1000000000) {
		until.tv_sec++;
		until.tv_nsec -= 1000000000;
	}
	rc = pthread_cond_timedwait(&c->cond, &l->mutex, &until);
	must(rc == 0 || rc == ETIMEDOUT);
	return rc == 0;
}

void cond_signal(struct cond *c)
{
	pthread_cond_signal(&c->cond);
}

void cond_broadcast(struct cond *c)
{
	pthread_cond_broadcast(&c->cond);
}

void lock_dropp(struct lock **l)
{
	lock_drop(*l);
}
