/* fetch_queue: which flight goes when, and the workers that carry them.
 *
 * For: single flight, order, budget, readers who were woken. Not for: what one flight does (fetch_flight.c).
 * Workers live here; any thread schedules.
 *
 * Order: demand, a hedge, tail, read-ahead. A reader who waits for a block of a queued flight moves it to
 * demand; one who waits for a block far behind the point that a running flight has reached cuts that flight
 * in two. A running flight that brings no block for much longer than blocks usually take, while a reader
 * waits for it, gets a hedge: a second flight for its next blocks on another connection. Who brings them
 * first ends the other; what is left of an overtaken flight is queued again. A long flight that is about to
 * end lets the next begin on another connection: else each would cost a round trip. */
#define LOG_MODULE "fetch"
#include "fetch_int.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#define SPLIT_BLK 4          /* a reader waits for so many blocks of a running flight rather than cut it */
#define KEEP_BLK 2           /* a running flight that nobody wants is let end when so few are left */
#define ENDING_BLK 2         /* blocks left of a long flight: the next may begin, so that its round trip is hidden */
#define LONG_BLK 8
#define HEDGE_BLK 4          /* blocks of a hedge: then its connection is known to be the better one */
#define HEDGE_MIN_MS 1500
#define HEDGE_MAX_MS 10000
#define HEDGE_SHARE 20       /* one flight in so many may be a hedge ... */
#define HEDGE_FREE 4         /* ... beside the first few of a mount */
#define CLOCK_MS 250         /* how often an idle worker looks for slow flights */
#define BUSY_MIN_MS 5        /* between looks at blocks that another daemon brings */
#define BUSY_MAX_MS 100

/* -- flights -- */

static void queue_add(struct queue *q, struct flight *fl)
{
	fl->q_next = NULL;
	fl->q_prev = q->last;
	*(q->last ? &q->last->q_next : &q->first) = fl;
	q->last = fl;
}

static void queue_remove(struct queue *q, struct flight *fl)
{
	*(fl->q_prev ? &fl->q_prev->q_next : &q->first) = fl->q_next;
	*(fl->q_next ? &fl->q_next->q_prev : &q->last) = fl->q_prev;
	fl->q_prev = fl->q_next = NULL;
}

/* What is under way of read-ahead: called with `on` false before a flight changes, with true after it. */
static void count_ahead_locked(struct flight *fl, bool on)
{
	struct source *s = fl->s;
	struct fetch *f = s->f;
	uint64_t bytes = fetch_bytes(s, fl->cur, fl->end);

	if (fl->lane != LANE_AHEAD)
		return;
	f->ahead_bytes += on ? bytes : -bytes;
	if (on ? s->n_ahead++ == 0 : --s->n_ahead == 0)
		atomic_fetch_add(&f->ahead_sources, on ? 1u : -1u);
}

static void set_end_locked(struct flight *fl, uint64_t end)
{
	count_ahead_locked(fl, false);
	fl->end = end;
	count_ahead_locked(fl, true);
}

static struct flight *flight_new_locked(struct source *s, uint64_t first, uint64_t end, enum lane lane)
{
	struct flight *fl = calloc(1, sizeof(*fl));

	if (!fl)
		return NULL;
	fl->s = s;
	s->refs++;
	fl->first = fl->cur = first;
	fl->end = end;
	fl->lane = lane;
	fl->s_next = s->flights;
	s->flights = fl;
	count_ahead_locked(fl, true);
	return fl;
}

static int flight_add_locked(struct source *s, uint64_t first, uint64_t end, enum lane lane)
{
	struct flight *fl = flight_new_locked(s, first, end, lane);

	if (!fl)
		return -ENOMEM;
	queue_add(&s->f->lanes[lane], fl);
	cond_signal(&s->f->work);
	return 0;
}

/* A flight leaves its queue and its source. Its reference to the source becomes the caller's. */
static void flight_unlink_locked(struct flight *fl)
{
	struct flight **p = &fl->s->flights;

	while (*p != fl)
		p = &(*p)->s_next;
	*p = fl->s_next;
	count_ahead_locked(fl, false);
	if (!fl->running)
		queue_remove(&fl->s->f->lanes[fl->lane], fl);
}

/* The flight that brings `block`; one that runs is preferred. */
static struct flight *flight_over_locked(const struct source *s, uint64_t block)
{
	struct flight *found = NULL;

	for (struct flight *fl = s->flights; fl; fl = fl->s_next)
		if (block >= fl->cur && block < fl->end && (!found || fl->running))
			found = fl;
	return found;
}

static bool wanted_locked(const struct flight *fl)
{
	for (struct want *w = fl->s->wants; w; w = w->next)
		if (w->first < fl->end && w->end > fl->cur)
			return true;
	return false;
}

/* -- scheduling -- */

/* A reader waits for `block` of a queued flight: from there on it goes to `lane`; what lies before stays. */
static void promote_locked(struct flight *fl, uint64_t block, enum lane lane)
{
	struct source *s = fl->s;
	uint64_t end = fl->end;

	if (block > fl->cur) {
		set_end_locked(fl, block);
		if (flight_add_locked(s, block, end, lane) == 0)
			return;
		set_end_locked(fl, end);
	}
	count_ahead_locked(fl, false);
	queue_remove(&s->f->lanes[fl->lane], fl);
	fl->lane = lane;
	queue_add(&s->f->lanes[lane], fl);
	count_ahead_locked(fl, true);
	cond_signal(&s->f->work);
}

/* A reader waits for blocks [first, end) at the far end of a running flight: they get a flight of their own. */
static int split_locked(struct flight *fl, uint64_t first, uint64_t end)
{
	struct source *s = fl->s;
	uint64_t old = fl->end;
	int r = flight_add_locked(s, first, MIN(end, old), LANE_DEMAND);

	if (r < 0)
		return r;
	set_end_locked(fl, first);
	if (end < old && flight_add_locked(s, end, old, fl->lane) < 0)
		log_debug("no memory to read ahead");
	return 0;
}

/* Blocks [first, ...) are in this flight already: moves them forward if need be. */
static int hurry_locked(struct flight *fl, uint64_t first, uint64_t end, enum lane lane)
{
	if (!fl->running && lane < fl->lane)
		promote_locked(fl, first, lane);
	else if (fl->running && !fl->hedge && lane == LANE_DEMAND && first > fl->cur + SPLIT_BLK)
		return split_locked(fl, first, end);
	return 0;
}

int fetch_schedule_locked(struct source *s, uint64_t first, uint64_t end, unsigned part, enum lane lane)
{
	struct fetch *f = s->f;
	int r;

	while (first < end) {
		struct flight *fl;
		uint64_t stop = first + 1;

		if (fetch_resident_locked(s, first)) {
			first++;
			continue;
		}
		fl = flight_over_locked(s, first);
		if (fl) {
			stop = MIN(fl->end, end);
			r = hurry_locked(fl, first, end, lane);
			if (r < 0)
				return r;
			first = stop;
			continue;
		}
		while (stop < end && stop - first < part && !fetch_resident_locked(s, stop) &&
		       !flight_over_locked(s, stop))
			stop++;
		if (lane == LANE_AHEAD && f->ahead_bytes + fetch_bytes(s, first, stop) > f->window_max)
			return 0;
		r = flight_add_locked(s, first, stop, lane);
		if (r < 0)
			return lane == LANE_DEMAND ? r : 0;
		first = stop;
	}
	return 0;
}

void fetch_drop_ahead_locked(struct source *s, uint64_t first, uint64_t end)
{
	for (struct flight *fl = s->flights, *next; fl; fl = next) {
		struct source *dead;

		next = fl->s_next;
		if (fl->lane == LANE_DEMAND || fl->cur >= end || fl->end <= first || wanted_locked(fl))
			continue;
		if (fl->running) {
			/* Ending it costs the connection. */
			if (fl->end - fl->cur > KEEP_BLK)
				atomic_store(&fl->cancel, true);
			continue;
		}
		flight_unlink_locked(fl);
		free(fl);
		dead = fetch_unref_locked(s);
		assert(!dead); /* the caller has a reference */
	}
}

/* -- readers who wait -- */

/* Takes wants that are done out of the source's list, into *list. With err < 0 those that miss a block of
 * [first, end) fail. */
static void settle_wants_locked(struct source *s, uint64_t first, uint64_t end, int err, struct want **list)
{
	for (struct want **p = &s->wants; *p;) {
		struct want *w = *p;
		bool all = fetch_range_resident_locked(s, w->first, w->end);
		uint64_t from = MAX(first, w->first), to = MIN(end, w->end);

		if (!all && (err == 0 || from >= to || fetch_range_resident_locked(s, from, to))) {
			p = &w->next;
			continue;
		}
		*p = w->next;
		w->err = all ? 0 : err;
		w->next = *list;
		*list = w;
	}
}

/* Wants that miss blocks which no flight brings get one. */
static void reschedule_locked(struct source *s, struct want **list)
{
	for (struct want **p = &s->wants; *p;) {
		struct want *w = *p;
		bool covered = true;
		int r = 0;

		for (uint64_t k = w->first; k < w->end && covered; k++)
			covered = fetch_resident_locked(s, k) || flight_over_locked(s, k);
		if (!covered && ++w->rounds > ROUNDS_MAX)
			r = -EIO;
		else if (!covered)
			r = fetch_schedule_locked(s, w->first, w->end, PART_MAX_BLK, LANE_DEMAND);
		if (r == 0) {
			p = &w->next;
			continue;
		}
		*p = w->next;
		w->err = r;
		w->next = *list;
		*list = w;
	}
}

void fetch_call_back(struct fetch *f, struct want *list)
{
	while (list) {
		struct want *w = list;
		struct source *dead;

		list = w->next;
		w->done(w->arg, w->err);
		{
			LOCKED(&f->lock);
			dead = fetch_unref_locked(w->s);
		}
		fetch_source_free(dead);
		free(w);
	}
}

/* -- slow flights -- */

/* RFC 6298's estimate of what a block takes. */
static void learn_locked(struct fetch *f, uint64_t ms)
{
	uint64_t mean = f->block_ms / 8, off = mean > ms ? mean - ms : ms - mean;

	if (f->block_ms == 0) {
		f->block_ms = 8 * ms;
		f->block_dev_ms = 2 * ms;
		return;
	}
	f->block_dev_ms += off;
	f->block_dev_ms -= f->block_dev_ms / 4;
	f->block_ms += ms;
	f->block_ms -= f->block_ms / 8;
}

static int64_t slow_ms(const struct fetch *f)
{
	return (int64_t)MIN(MAX(f->block_ms / 8 + f->block_dev_ms, HEDGE_MIN_MS), HEDGE_MAX_MS);
}

/* A running flight that is too slow for a reader who waits for it; made into a second one, which the caller
 * is to carry. */
static struct flight *hedge_locked(struct fetch *f, int64_t now)
{
	if (f->hedges * HEDGE_SHARE > f->flights_begun + HEDGE_FREE * HEDGE_SHARE)
		return NULL;
	for (unsigned i = 0; i < f->workers + f->spare; i++) {
		struct flight *fl = f->flying[i], *h;

		/* What the official client's cache may have is not asked for meanwhile. */
		if (!fl || fl->rival || fl->hedge || fl->s->probing || now - fl->moved_ms < slow_ms(f) || !wanted_locked(fl))
			continue;
		h = flight_new_locked(fl->s, fl->cur, MIN(fl->end, fl->cur + HEDGE_BLK), LANE_DEMAND);
		if (!h)
			return NULL;
		h->hedge = true;
		h->rival = fl;
		fl->rival = h;
		f->hedges++;
		log_debug("block %llu takes longer than %lld ms: asked for on another connection",
		          (unsigned long long)fl->cur, (long long)slow_ms(f));
		return h;
	}
	return NULL;
}

/* -- which is next -- */

/* The first of the lane that may start now; *ret_ms comes down to when the first that waits may. */
static struct flight *queue_next_locked(struct queue *q, int64_t now, int64_t *ret_ms)
{
	for (struct flight *fl = q->first; fl; fl = fl->q_next) {
		if (fl->not_before_ms > now)
			*ret_ms = MIN(*ret_ms, fl->not_before_ms - now);
		else if (!fl->s->probing) /* another worker asks the official client's cache about it */
			return fl;
	}
	return NULL;
}

static bool needs_probe_locked(const struct source *s)
{
	if (!s->f->hfcache || atomic_load(&s->alt_fd) >= 0)
		return false;
	for (unsigned i = 0; i < s->n_places; i++)
		if (!s->places[i]->probed)
			return true;
	return false;
}

/* May one more flight hold a block in memory? Demand takes the room of what the disk refused before. */
static bool room_locked(struct fetch *f, enum lane lane)
{
	uint64_t need = (uint64_t)(f->running + 1) * BLOCKS_SIZE;

	if (f->running == 0)
		return true;
	if (need > f->budget)
		return false;
	if (lane == LANE_DEMAND)
		fetch_ring_shrink_locked(f, f->budget - need);
	return need + atomic_load(&f->ring_bytes) <= f->budget;
}

static bool is_ending(const struct flight *fl)
{
	return fl->end - fl->first >= LONG_BLK && fl->end - fl->cur <= ENDING_BLK;
}

/* May one more connection be used, were it not for a reader who waits? */
static bool connection_locked(const struct fetch *f)
{
	unsigned busy = f->running;

	for (unsigned i = 0; i < f->workers + f->spare && busy >= f->workers; i++)
		busy -= f->flying[i] && is_ending(f->flying[i]);
	return busy < f->workers;
}

/* The next flight that may start now, taken out of its queue; else *ret_ms says when to look again. */
static struct flight *pick_locked(struct fetch *f, int64_t *ret_ms)
{
	int64_t now = util_now_ms();
	struct flight *fl = NULL;
	bool free_one = connection_locked(f);

	*ret_ms = f->running ? CLOCK_MS : INT64_MAX;
	if (free_one || f->running_demand < f->spare)
		fl = queue_next_locked(&f->lanes[LANE_DEMAND], now, ret_ms);
	if (!room_locked(f, fl ? LANE_DEMAND : LANE_AHEAD))
		return NULL;
	if (!fl)
		fl = hedge_locked(f, now);
	for (enum lane lane = LANE_TAIL; !fl && lane < LANES && free_one; lane++)
		fl = queue_next_locked(&f->lanes[lane], now, ret_ms);
	if (!fl)
		return NULL;
	if (!fl->hedge)
		queue_remove(&f->lanes[fl->lane], fl);
	fl->running = true;
	fl->moved_ms = now;
	if (!fl->hedge)
		fl->s->probing = needs_probe_locked(fl->s);
	f->running++;
	f->running_demand += fl->lane == LANE_DEMAND;
	f->flights_begun++;
	for (unsigned i = 0; i < f->workers + f->spare; i++) {
		if (!f->flying[i]) {
			f->flying[i] = fl;
			break;
		}
	}
	cond_signal(&f->work); /* for the next flight, or to look at the time */
	return fl;
}

/* -- workers -- */

uint64_t fetch_deliver(struct flight *fl, uint64_t upto)
{
	struct source *s = fl->s;
	struct want *list = NULL;
	uint64_t end;

	{
		LOCKED(&s->f->lock);
		if (upto > fl->cur) {
			int64_t now = util_now_ms();

			if (upto == fl->cur + 1)
				learn_locked(s->f, (uint64_t)(now - fl->moved_ms));
			count_ahead_locked(fl, false);
			fl->cur = MIN(upto, fl->end);
			count_ahead_locked(fl, true);
			fl->moved_ms = now;
			if (is_ending(fl))
				cond_signal(&s->f->work);
		}
		settle_wants_locked(s, 0, 0, 0, &list);
		end = fl->end;
	}
	fetch_call_back(s->f, list);
	return end;
}

void fetch_rewind_locked(struct flight *fl)
{
	count_ahead_locked(fl, false);
	fl->cur = fl->first;
	count_ahead_locked(fl, true);
}

/* Another daemon brings its blocks: it goes back into its queue for a while. */
static void requeue_locked(struct flight *fl, bool busy)
{
	struct fetch *f = fl->s->f;
	int64_t now = util_now_ms();

	fl->running = fl->overtaken = false;
	fl->hedge = false; /* its rival goes on without it */
	atomic_store(&fl->cancel, false);
	fl->first = fl->cur;
	fl->not_before_ms = 0;
	if (busy)
		fl->not_before_ms = now + MIN(MAX(now - fl->busy_since_ms, BUSY_MIN_MS), BUSY_MAX_MS);
	queue_add(&f->lanes[fl->lane], fl);
}

/* The flight ended with `r`. True: it was queued again. */
static bool land_locked(struct flight *fl, int r, struct want **list)
{
	struct source *s = fl->s;
	struct fetch *f = s->f;
	struct flight *rival = STEAL(fl->rival);
	bool again;

	for (unsigned i = 0; i < f->workers + f->spare; i++)
		if (f->flying[i] == fl)
			f->flying[i] = NULL;
	f->running--;
	f->running_demand -= fl->lane == LANE_DEMAND;
	if (rival) {
		rival->rival = NULL;
		if (r == 0) {
			rival->overtaken = !rival->hedge;
			atomic_store(&rival->cancel, true);
		}
	}
	again = !f->stopping && fl->cur < fl->end &&
	        (fl->overtaken ? r < 0 : r == -EBUSY && !atomic_load(&fl->cancel));
	if (again)
		requeue_locked(fl, r == -EBUSY);
	else
		flight_unlink_locked(fl);
	/* What another flight still brings has not failed, nor what was only called off. */
	if (!f->stopping && (rival || again || fl->hedge || r == -ECANCELED || r == -EBUSY))
		r = 0;
	settle_wants_locked(s, fl->cur, fl->end, r, list);
	if (!f->stopping)
		reschedule_locked(s, list);
	if (again)
		cond_broadcast(&f->work); /* who looks at the time learns when it is due */
	return again;
}

static void fly(struct flight *fl)
{
	struct source *s = fl->s, *dead;
	struct fetch *f = s->f;
	struct want *list = NULL;
	int r = fetch_flight_run(fl);
	bool again;

	if (r < 0 && r != -EBUSY)
		log_debug("blocks %llu to %llu: %s", (unsigned long long)fl->cur, (unsigned long long)fl->end,
		          strerror(-r));
	{
		LOCKED(&f->lock);
		again = land_locked(fl, r, &list);
	}
	fetch_call_back(f, list);
	if (again)
		return;
	{
		LOCKED(&f->lock);
		dead = fetch_unref_locked(s);
	}
	fetch_source_free(dead);
	free(fl);
}

/* Waits until there may be something to do. One idle worker looks at the time for all of them. */
static void idle_locked(struct fetch *f, int64_t ms)
{
	if (ms == INT64_MAX || f->has_clock) {
		cond_wait(&f->work, &f->lock);
		return;
	}
	f->has_clock = true;
	cond_wait_ms(&f->work, &f->lock, ms);
	f->has_clock = false;
}

void *fetch_worker_main(void *arg)
{
	struct fetch *f = arg;

	for (;;) {
		struct flight *fl = NULL;
		struct want *list;
		int64_t ms;

		{
			LOCKED(&f->lock);
			while (!f->ready && !f->stopping && !(fl = pick_locked(f, &ms)))
				idle_locked(f, ms);
			list = STEAL(f->ready);
			if (!fl && !list)
				return NULL;
		}
		fetch_call_back(f, list);
		if (fl)
			fly(fl);
	}
}

void fetch_drop_queues_locked(struct fetch *f, struct source **dead)
{
	for (enum lane lane = 0; lane < LANES; lane++) {
		while (f->lanes[lane].first) {
			struct flight *fl = f->lanes[lane].first;
			struct source *s = fl->s;

			flight_unlink_locked(fl);
			free(fl);
			s = fetch_unref_locked(s);
			if (s) {
				s->hash_next = *dead;
				*dead = s;
			}
		}
	}
}
