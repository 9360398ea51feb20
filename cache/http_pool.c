/* http_pool: idle connections, kept for the next transfer to the same origin in the same lane.
 *
 * Not for transfers (http.c). Any thread; a slot belongs to the thread that took it. */
#define LOG_MODULE "http"

#include "http_pool.h"

#include <string.h>

#include <curl/curl.h>

#include "lock.h"

#define POOL_MAX 64 /* idle connections; one per worker thread and lane is plenty */
#define POOL_IDLE_MS 60000 /* load balancers drop an idle connection soon after, and may not tell */

struct http_pool {
	struct lock lock;
	/* -- guarded by lock -- */
	struct http_slot *idle; /* last used first */
	int64_t slept_ms;       /* when it was looked at last */
};

static void slot_free(struct http_slot *s)
{
	if (!s)
		return;
	if (s->easy)
		curl_easy_cleanup(s->easy);
	if (s->multi)
		curl_multi_cleanup(s->multi);
	free(s->origin);
	free(s);
}

void http_slot_freep(struct http_slot **s)
{
	slot_free(*s);
}

static struct http_slot *slot_new(enum http_lane lane, const char *origin)
{
	CLEANUP(http_slot_freep) struct http_slot *s = calloc(1, sizeof(*s));

	if (!s)
		return NULL;
	s->lane = lane;
	s->origin = strdup(origin);
	s->multi = curl_multi_init();
	s->easy = curl_easy_init();
	if (!s->origin || !s->multi || !s->easy)
		return NULL;
	return STEAL(s);
}

/* Takes out what is too much, too old, or from before the machine slept. */
static struct http_slot *worn_locked(struct http_pool *p)
{
	int64_t now = util_now_ms(), slept = util_slept_ms();
	struct http_slot **at = &p->idle, *worn;
	unsigned n = 0;

	if (slept - p->slept_ms < UTIL_SLEEP_MS) {
		/* Ordered by age: everything from the first one too many or too old goes. */
		while (*at && n < POOL_MAX && now - (*at)->idle_since < POOL_IDLE_MS) {
			at = &(*at)->next;
			n++;
		}
	}
	p->slept_ms = slept;
	worn = *at;
	*at = NULL;
	return worn;
}

static void free_list(struct http_slot *s)
{
	while (s) {
		struct http_slot *next = s->next;

		slot_free(s);
		s = next;
	}
}

static struct http_slot *take_locked(struct http_pool *p, const char *origin, const enum http_lane *lane)
{
	for (struct http_slot **at = &p->idle; *at; at = &(*at)->next) {
		struct http_slot *s = *at;

		if (strcmp(s->origin, origin) == 0 && (!lane || s->lane == *lane)) {
			*at = s->next;
			return s;
		}
	}
	return NULL;
}

struct http_slot *http_pool_take(struct http_pool *p, enum http_lane lane, const char *origin)
{
	struct http_slot *found = NULL, *worn;

	{
		LOCKED(&p->lock);
		worn = worn_locked(p);
		found = take_locked(p, origin, &lane);
		if (!found)
			found = take_locked(p, origin, NULL);
	}
	if (found)
		found->lane = lane;
	free_list(worn);
	return found ? found : slot_new(lane, origin);
}

void http_pool_put(struct http_pool *p, struct http_slot *s)
{
	struct http_slot *worn;

	{
		LOCKED(&p->lock);
		worn = worn_locked(p);
		s->idle_since = util_now_ms();
		s->next = p->idle;
		p->idle = s;
	}
	free_list(worn);
}

struct http_pool *http_pool_new(void)
{
	struct http_pool *p = calloc(1, sizeof(*p));

	if (!p)
		return NULL;
	lock_init(&p->lock, LOCK_HTTP);
	p->slept_ms = util_slept_ms();
	return p;
}

void http_pool_free(struct http_pool *p)
{
	if (!p)
		return;
	free_list(p->idle);
	lock_fini(&p->lock);
	free(p);
}
