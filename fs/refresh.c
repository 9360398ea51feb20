/* refresh: gives back branches that have nothing staged any more, so that another mount may write there.
 *
 * Not for: asking for heads, which view does when a branch is used.
 *
 * Threads: one of its own. */
#define LOG_MODULE "refresh"

#include "refresh.h"

#include <errno.h>
#include <pthread.h>

#include "lock.h"

#define PERIOD_MS 1000

struct refresh {
	struct view *view;
	pthread_t thread;
	struct lock lock;
	struct cond wake;
	/* -- guarded by lock -- */
	bool stop;
};

static bool wait_period(struct refresh *r)
{
	LOCKED(&r->lock);
	int64_t until = util_now_ms() + PERIOD_MS;
	for (int64_t now = util_now_ms(); !r->stop && now < until; now = util_now_ms())
		cond_wait_ms(&r->wake, &r->lock, until - now);
	return !r->stop;
}

static void *run(void *arg)
{
	struct refresh *r = arg;
	while (wait_period(r))
		view_reap(r->view);
	return NULL;
}

int refresh_new(struct view *view, struct refresh **ret)
{
	struct refresh *r = calloc(1, sizeof(*r));
	if (!r)
		return -ENOMEM;
	r->view = view;
	lock_init(&r->lock, LOCK_REFRESH);
	cond_init(&r->wake);
	int err = pthread_create(&r->thread, NULL, run, r);
	if (err) {
		cond_fini(&r->wake);
		lock_fini(&r->lock);
		free(r);
		return -err;
	}
	*ret = r;
	return 0;
}

void refresh_free(struct refresh *r)
{
	if (!r)
		return;
	{
		LOCKED(&r->lock);
		r->stop = true;
		cond_broadcast(&r->wake);
	}
	pthread_join(r->thread, NULL);
	cond_fini(&r->wake);
	lock_fini(&r->lock);
	free(r);
}
