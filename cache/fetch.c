/* fetch: makes a range of a blob resident.
 *
 * For: who fetches what when: single flight, order, budget, what to do when a place, the disk or the bytes
 * are bad. Not for: HTTP (hub.c), where bytes lie (blocks.c), which range comes next (readahead.c).
 *
 * FUSE threads and workers enter anywhere; N transfer workers of its own do what blocks. One lock; nothing
 * blocks under it, and no call-back is made under it.
 *
 * A want is a parked reader: waiting (in its source's list) -> ready (all its blocks are resident, or it
 * failed) -> called back and freed. A flight is one request of neighbouring blocks: queued (demand or
 * ahead) -> running -> gone; no two flights of a source overlap. Whenever a flight ends, every want that
 * still misses a block which no flight covers gets a new one: no want is ever forgotten.
 *
 * Budget: bytes of running flights not yet delivered, plus the ring of blocks that the disk refused, stay
 * below `inflight`. Read-ahead that does not fit is not queued; demand waits for its turn. */
#define LOG_MODULE "fetch"
#include "fetch_int.h"

#include <assert.h>
#include <errno.h>
#include <string.h>
#include <unistd.h>

_Static_assert(READAHEAD_BLOCK == BLOCKS_SIZE, "both speak of the same blocks");

#define PART_MAX_BLK 8        /* blocks of one request: 8 MiB hide the round trip, and still share the work */
#define WINDOW_MAX ((uint64_t)64 << 20)
#define WINDOW_UNCACHED ((uint64_t)4 << 20) /* read-ahead that only memory can keep */
#define RING_MIN ((uint64_t)16 << 20)       /* else two readers throw out each other's blocks */
#define ROUNDS_MAX 20         /* flights for one want: its blocks vanish as fast as they come */
#define WAIT_PIECE ((uint64_t)4 << 20)
#define CANCEL_LOOK_MS 200

/* -- the ring -- */

static struct ring_block **ring_find_locked(struct fetch *f, const struct source *s, uint64_t block)
{
	for (struct ring_block **p = &f->ring_first; *p; p = &(*p)->next)
		if ((*p)->s == s && (*p)->block == block)
			return p;
	return NULL;
}

static void ring_remove_locked(struct fetch *f, struct ring_block **p)
{
	struct ring_block *b = *p;

	*p = b->next;
	if (f->ring_end == &b->next)
		f->ring_end = p;
	atomic_fetch_sub(&f->ring_bytes, b->len);
	free(b->data);
	free(b);
}

/* Takes `data` in any case. */
int fetch_ring_put_locked(struct source *s, uint64_t block, uint8_t *data, size_t len)
{
	struct fetch *f = s->f;
	struct ring_block *b;

	if (ring_find_locked(f, s, block)) {
		free(data);
		return 0;
	}
	b = malloc(sizeof(*b));
	if (!b) {
		free(data);
		return -ENOMEM;
	}
	while (f->ring_first && atomic_load(&f->ring_bytes) + len > f->ring_max)
		ring_remove_locked(f, &f->ring_first);
	*b = (struct ring_block){.s = s, .block = block, .data = data, .len = len};
	*f->ring_end = b;
	f->ring_end = &b->next;
	atomic_fetch_add(&f->ring_bytes, len);
	return 0;
}

/* -- sources -- */

static struct source **bucket_of(struct fetch *f, const struct blob_key *key)
{
	return &f->bucket[hash_key_u64(key) % BUCKETS];
}

static struct source *find_locked(struct fetch *f, const struct blob_key *key)
{
	for (struct source *s = *bucket_of(f, key); s; s = s->hash_next)
		if (hash_key_equal(&s->key, key))
			return s;
	return NULL;
}

static void place_free(struct place *p)
{
	if (!p)
		return;
	free((char *)p->p.path);
	free(p);
}

static void source_free(struct source *s)
{
	if (!s)
		return;
	for (unsigned i = 0; i < s->n_places; i++)
		place_free(s->places[i]);
	if (atomic_load(&s->alt_fd) >= 0)
		close(atomic_load(&s->alt_fd));
	blocks_put(s->blob);
	free(s);
}

/* Drops a reference. The last one answers the source, out of reach: the caller frees it without the lock. */
static struct source *unref_locked(struct source *s)
{
	struct fetch *f = s->f;
	struct source **p = bucket_of(f, &s->key);

	assert(s->refs > 0);
	if (--s->refs > 0)
		return NULL;
	while (*p != s)
		p = &(*p)->hash_next;
	*p = s->hash_next;
	for (struct ring_block **r = &f->ring_first; *r;) {
		if ((*r)->s == s)
			ring_remove_locked(f, r);
		else
			r = &(*r)->next;
	}
	return s;
}

static bool place_known_locked(const struct source *s, const struct hub_place *p)
{
	for (unsigned i = 0; i < s->n_places; i++) {
		const struct hub_place *q = &s->places[i]->p;

		if (repo_equal(&q->id, &p->id) && strcmp(q->commit, p->commit) == 0 &&
		    strcmp(q->path, p->path) == 0)
			return true;
	}
	return false;
}

int fetch_open(struct fetch *f, const struct blob_key *key, const struct hub_place *place,
               struct source **ret)
{
	struct place *p = calloc(1, sizeof(*p));
	struct source *s, *made = calloc(1, sizeof(*made));
	int r = -ENOMEM;

	if (!p || !made)
		goto fail;
	*made = (struct source){.f = f, .key = *key};
	atomic_init(&made->alt_fd, -1);
	made->n_blocks = (key->size + BLOCKS_SIZE - 1) / BLOCKS_SIZE;
	p->p = *place;
	p->p.path = strdup(place->path);
	if (!p->p.path)
		goto fail;
	r = blocks_get(f->blocks, key, &made->blob);
	if (r < 0)
		goto fail;
	lock_take(&f->lock);
	s = find_locked(f, key);
	if (!s) {
		s = STEAL(made);
		s->hash_next = *bucket_of(f, key);
		*bucket_of(f, key) = s;
	}
	s->refs++;
	s->opens++;
	if (s->n_places < PLACES_MAX && !place_known_locked(s, place))
		s->places[s->n_places++] = STEAL(p);
	lock_drop(&f->lock);
	*ret = s;
	r = 0;
fail:
	place_free(p);
	source_free(made);
	return r;
}

struct source *fetch_ref(struct source *s)
{
	LOCKED(&s->f->lock);
	assert(s->opens > 0);
	s->refs++;
	s->opens++;
	return s;
}

const struct blob_key *fetch_key(const struct source *s)
{
	return &s->key;
}

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

bool fetch_resident_locked(struct source *s, uint64_t block)
{
	if (blocks_first_missing(s->blob, block, block + 1) == block + 1)
		return true;
	if (atomic_load(&s->alt_fd) >= 0 && !atomic_load(&s->alt_bad))
		return true;
	return ring_find_locked(s->f, s, block);
}

static bool range_resident_locked(struct source *s, uint64_t first, uint64_t end)
{
	while (first < end && fetch_resident_locked(s, first))
		first++;
	return first == end;
}

static struct flight *flight_over_locked(const struct source *s, uint64_t block)
{
	for (struct flight *fl = s->flights; fl; fl = fl->s_next)
		if (block >= fl->first && block < fl->end)
			return fl;
	return NULL;
}

static int flight_add_locked(struct source *s, uint64_t first, uint64_t end, bool ahead)
{
	struct fetch *f = s->f;
	struct flight *fl = calloc(1, sizeof(*fl));

	if (!fl)
		return -ENOMEM;
	fl->s = s;
	s->refs++;
	fl->first = fl->cur = first;
	fl->end = end;
	fl->ahead = ahead;
	fl->s_next = s->flights;
	s->flights = fl;
	queue_add(ahead ? &f->ahead : &f->demand, fl);
	if (ahead)
		f->queued_ahead_bytes += fetch_bytes(s, first, end);
	cond_signal(&f->work);
	return 0;
}

/* A flight that is not running leaves queue and source. Its reference to the source becomes the caller's. */
static void flight_unlink_locked(struct flight *fl)
{
	struct fetch *f = fl->s->f;
	struct flight **p = &fl->s->flights;

	while (*p != fl)
		p = &(*p)->s_next;
	*p = fl->s_next;
	if (fl->running)
		return;
	queue_remove(fl->ahead ? &f->ahead : &f->demand, fl);
	if (fl->ahead)
		f->queued_ahead_bytes -= fetch_bytes(fl->s, fl->first, fl->end);
}

/* A reader waits for `block` of a queued read-ahead: from there on it is demand; what lies before stays
 * ahead. */
static void promote_locked(struct flight *fl, uint64_t block)
{
	struct source *s = fl->s;
	struct fetch *f = s->f;
	uint64_t end = fl->end;

	if (block > fl->first && flight_add_locked(s, block, end, false) == 0) {
		f->queued_ahead_bytes -= fetch_bytes(s, block, end);
		fl->end = block;
		return;
	}
	queue_remove(&f->ahead, fl);
	f->queued_ahead_bytes -= fetch_bytes(s, fl->first, fl->end);
	fl->ahead = false;
	queue_add(&f->demand, fl);
}

/* Sees to it that every missing block of [first, end) is in a flight, in requests of at most `part`
 * blocks. */
static int schedule_locked(struct source *s, uint64_t first, uint64_t end, unsigned part, bool ahead)
{
	struct fetch *f = s->f;

	while (first < end) {
		struct flight *fl;
		uint64_t stop = first + 1;
		int r;

		if (fetch_resident_locked(s, first)) {
			first++;
			continue;
		}
		fl = flight_over_locked(s, first);
		if (fl) {
			stop = fl->end;
			if (fl->ahead && !fl->running && !ahead)
				promote_locked(fl, first);
			first = stop;
			continue;
		}
		while (stop < end && stop - first < part && !fetch_resident_locked(s, stop) &&
		       !flight_over_locked(s, stop))
			stop++;
		if (ahead && f->running_bytes + atomic_load(&f->ring_bytes) + f->queued_ahead_bytes +
		                             fetch_bytes(s, first, stop) > f->budget)
			return 0;
		r = flight_add_locked(s, first, stop, ahead);
		if (r < 0)
			return ahead ? 0 : r;
		first = stop;
	}
	return 0;
}

static void note_read_locked(struct source *s, uint64_t off, uint64_t len, bool waited)
{
	struct fetch *f = s->f;
	uint64_t window = MIN(WINDOW_MAX, f->budget / 4), first, ra_off, ra_len;
	unsigned part;

	if (f->stopping || atomic_load(&s->alt_fd) >= 0)
		return;
	if (atomic_load(&f->ring_bytes))
		window = MIN(window, WINDOW_UNCACHED);
	readahead_note(&s->ra, off, len, s->key.size, waited, window, &ra_off, &ra_len);
	if (ra_len == 0)
		return;
	first = ra_off / BLOCKS_SIZE;
	part = (unsigned)MIN(MAX(ra_len / BLOCKS_SIZE / 4, 1), f->part_max_blk);
	if (schedule_locked(s, first, MIN(s->n_blocks, first + ra_len / BLOCKS_SIZE), part, true) < 0)
		log_debug("no memory to read ahead");
}

/* Takes wants that are done out of the source's list, into *list. With err < 0 those that miss a block of
 * [first, end) fail. */
static void settle_wants_locked(struct source *s, uint64_t first, uint64_t end, int err, struct want **list)
{
	for (struct want **p = &s->wants; *p;) {
		struct want *w = *p;
		bool all = range_resident_locked(s, w->first, w->end);
		uint64_t from = MAX(first, w->first), to = MIN(end, w->end);

		if (!all && (err == 0 || from >= to || range_resident_locked(s, from, to))) {
			p = &w->next;
			continue;
		}
		*p = w->next;
		w->err = all ? 0 : err;
		w->next = *list;
		*list = w;
	}
}

/* Calls back and frees; the wants' references to the source go. No lock is held. */
static void call_back(struct fetch *f, struct want *list)
{
	while (list) {
		struct want *w = list;
		struct source *dead;

		list = w->next;
		w->done(w->arg, w->err);
		{
			LOCKED(&f->lock);
			dead = unref_locked(w->s);
		}
		source_free(dead);
		free(w);
	}
}

/* Blocks up to `upto` of a running flight are there: tells who waits for them. */
void fetch_deliver(struct flight *fl, uint64_t upto)
{
	struct source *s = fl->s;
	struct want *list = NULL;

	{
		LOCKED(&s->f->lock);
		if (upto > fl->cur) {
			s->f->running_bytes -= fetch_bytes(s, fl->cur, upto);
			fl->cur = upto;
		}
		settle_wants_locked(s, 0, 0, 0, &list);
		if (s->f->demand.first)
			cond_signal(&s->f->work);
	}
	call_back(s->f, list);
}

/* -- workers -- */

/* Is another worker asking the official client's cache about this source? Then its flights wait. */
static bool must_wait_locked(const struct flight *fl)
{
	return fl->s->probing;
}

static struct flight *queue_next_locked(struct queue *q)
{
	struct flight *fl = q->first;

	while (fl && must_wait_locked(fl))
		fl = fl->q_next;
	return fl;
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

/* The next flight that may start now, taken out of its queue. */
static struct flight *pick_locked(struct fetch *f)
{
	struct flight *fl = queue_next_locked(&f->demand);
	bool ahead = false;
	uint64_t bytes;

	if (!fl) {
		fl = f->running_ahead < f->ahead_max ? queue_next_locked(&f->ahead) : NULL;
		ahead = true;
	}
	if (!fl)
		return NULL;
	bytes = fetch_bytes(fl->s, fl->first, fl->end);
	if (!ahead)
		while (f->ring_first && f->running_bytes + atomic_load(&f->ring_bytes) + bytes > f->budget)
			ring_remove_locked(f, &f->ring_first);
	if (f->running && f->running_bytes + atomic_load(&f->ring_bytes) + bytes > f->budget)
		return NULL;
	queue_remove(ahead ? &f->ahead : &f->demand, fl);
	if (ahead) {
		f->queued_ahead_bytes -= bytes;
		f->running_ahead++;
	}
	fl->running = true;
	fl->s->probing = needs_probe_locked(fl->s);
	f->running++;
	f->running_bytes += bytes;
	if (f->demand.first || f->ahead.first)
		cond_signal(&f->work);
	return fl;
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
			r = schedule_locked(s, w->first, w->end, s->f->part_max_blk, false);
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

static void fly(struct flight *fl)
{
	struct source *s = fl->s, *dead;
	struct fetch *f = s->f;
	struct want *list = NULL;
	int r = fetch_flight_run(fl);

	if (r < 0)
		log_debug("blocks %llu to %llu: %s", (unsigned long long)fl->cur, (unsigned long long)fl->end,
		          strerror(-r));
	{
		LOCKED(&f->lock);
		flight_unlink_locked(fl);
		f->running--;
		f->running_bytes -= fetch_bytes(s, fl->cur, fl->end);
		if (fl->ahead)
			f->running_ahead--;
		settle_wants_locked(s, fl->cur, fl->end, r, &list);
		if (!f->stopping)
			reschedule_locked(s, &list);
		cond_broadcast(&f->work);
	}
	call_back(f, list);
	{
		LOCKED(&f->lock);
		dead = unref_locked(s);
	}
	source_free(dead);
	free(fl);
}

static void *worker_main(void *arg)
{
	struct fetch *f = arg;

	for (;;) {
		struct flight *fl = NULL;
		struct want *list;

		{
			LOCKED(&f->lock);
			while (!f->ready && !f->stopping && !(fl = pick_locked(f)))
				cond_wait(&f->work, &f->lock);
			list = STEAL(f->ready);
			if (!fl && !list)
				return NULL;
		}
		call_back(f, list);
		if (fl)
			fly(fl);
	}
}

/* -- reading -- */

static ssize_t read_alt(struct source *s, uint64_t off, void *buf, size_t len)
{
	int fd = atomic_load(&s->alt_fd);
	ssize_t n;

	if (fd < 0 || atomic_load(&s->alt_bad))
		return -EAGAIN;
	n = util_pread_all(fd, buf, len, off);
	if (n == (ssize_t)len)
		return n;
	/* It was cut or cannot be read any more: the network has it still. */
	if (!atomic_exchange(&s->alt_bad, true))
		log_warn("a file of the official client's cache changed under us: it is used no longer");
	return -EAGAIN;
}

/* Some blocks are on disk, others in the ring. */
static ssize_t read_mixed(struct source *s, uint64_t off, uint8_t *buf, size_t len)
{
	struct fetch *f = s->f;
	size_t done = 0;

	while (done < len) {
		uint64_t at = off + done, block = at / BLOCKS_SIZE;
		size_t n = (size_t)MIN(len - done, (block + 1) * BLOCKS_SIZE - at);
		ssize_t got = blocks_read(s->blob, at, buf + done, n);

		if (got == -EAGAIN) {
			struct ring_block **p;

			LOCKED(&f->lock);
			p = ring_find_locked(f, s, block);
			if (!p)
				return -EAGAIN;
			memcpy(buf + done, (*p)->data + at % BLOCKS_SIZE, n);
			got = (ssize_t)n;
		}
		if (got < 0)
			return got;
		done += (size_t)got;
	}
	return (ssize_t)len;
}

static ssize_t read_resident(struct source *s, uint64_t off, void *buf, size_t len)
{
	ssize_t r = blocks_read(s->blob, off, buf, len);

	if (r == -EAGAIN)
		r = read_alt(s, off, buf, len);
	if (r == -EAGAIN && atomic_load(&s->f->ring_bytes))
		r = read_mixed(s, off, buf, len);
	return r;
}

ssize_t fetch_read(struct source *s, uint64_t off, void *buf, size_t len)
{
	ssize_t r;

	if (len == 0 || off >= s->key.size)
		return 0;
	if (atomic_load(&s->poisoned))
		return -EIO;
	len = (size_t)MIN(len, s->key.size - off);
	r = read_resident(s, off, buf, len);
	if (r > 0 && s->n_blocks > 1) {
		LOCKED(&s->f->lock);
		note_read_locked(s, off, len, false);
	}
	return r;
}

int fetch_want(struct source *s, uint64_t off, uint64_t len, fetch_done done, void *arg)
{
	struct fetch *f = s->f;
	struct want *w = malloc(sizeof(*w));
	int r;

	if (!w)
		return -ENOMEM;
	if (atomic_load(&s->poisoned)) {
		free(w);
		return -EIO;
	}
	*w = (struct want){.s = s, .done = done, .arg = arg};
	if (len && off < s->key.size) {
		len = MIN(len, s->key.size - off);
		w->first = off / BLOCKS_SIZE;
		w->end = (off + len - 1) / BLOCKS_SIZE + 1;
	}
	LOCKED(&f->lock);
	if (f->stopping) {
		free(w);
		return -ECANCELED;
	}
	r = schedule_locked(s, w->first, w->end, f->part_max_blk, false);
	if (r < 0) {
		free(w);
		return r;
	}
	s->refs++;
	if (range_resident_locked(s, w->first, w->end)) {
		w->next = f->ready;
		f->ready = w;
		cond_signal(&f->work);
	} else {
		w->next = s->wants;
		s->wants = w;
	}
	if (w->end > w->first)
		note_read_locked(s, off, len, true);
	return 0;
}

void fetch_close(struct source *s)
{
	struct fetch *f;
	struct source *dead;

	if (!s)
		return;
	f = s->f;
	{
		LOCKED(&f->lock);
		assert(s->opens > 0);
		/* Nobody reads on: what was only to be read ahead is not fetched. */
		if (--s->opens == 0 && !s->wants) {
			for (struct flight *fl = s->flights, *next; fl; fl = next) {
				next = fl->s_next;
				if (fl->running || !fl->ahead)
					continue;
				flight_unlink_locked(fl);
				free(fl);
				dead = unref_locked(s);
				assert(!dead);
			}
		}
		dead = unref_locked(s);
	}
	source_free(dead);
}

void fetch_closep(struct source **s)
{
	fetch_close(*s);
	*s = NULL;
}

/* -- reading that waits -- */

struct waiter {
	struct lock lock;
	struct cond cond;
	/* -- guarded by lock -- */
	unsigned refs; /* the one who waits, and the call-back */
	bool done;
	int err;
};

static void waiter_unref(struct waiter *w)
{
	unsigned left;

	{
		LOCKED(&w->lock);
		left = --w->refs;
	}
	if (left)
		return;
	cond_fini(&w->cond);
	lock_fini(&w->lock);
	free(w);
}

static void waiter_done(void *arg, int err)
{
	struct waiter *w = arg;

	{
		LOCKED(&w->lock);
		w->done = true;
		w->err = err;
		cond_signal(&w->cond);
	}
	waiter_unref(w);
}

static int want_and_wait(struct source *s, uint64_t off, uint64_t len, atomic_bool *cancel)
{
	struct waiter *w = calloc(1, sizeof(*w));
	int r;

	if (!w)
		return -ENOMEM;
	lock_init(&w->lock, LOCK_FETCH);
	cond_init(&w->cond);
	w->refs = 2;
	r = fetch_want(s, off, len, waiter_done, w);
	if (r < 0) {
		w->refs = 1;
		waiter_unref(w);
		return r;
	}
	{
		LOCKED(&w->lock);
		while (!w->done && !(cancel && atomic_load(cancel)))
			cond_wait_ms(&w->cond, &w->lock, CANCEL_LOOK_MS);
		r = w->done ? w->err : -ECANCELED;
	}
	waiter_unref(w);
	return r;
}

ssize_t fetch_read_wait(struct source *s, uint64_t off, void *buf, size_t len, atomic_bool *cancel)
{
	size_t done = 0;

	while (done < len) {
		size_t n = (size_t)MIN(len - done, WAIT_PIECE);
		unsigned rounds = 0;
		ssize_t got;

		while ((got = fetch_read(s, off + done, (char *)buf + done, n)) == -EAGAIN) {
			int r = rounds++ < ROUNDS_MAX ? want_and_wait(s, off + done, n, cancel) : -EIO;

			if (r < 0)
				return r;
		}
		if (got < 0)
			return got;
		if (got == 0)
			break;
		done += (size_t)got;
	}
	return (ssize_t)done;
}

/* -- life -- */

int fetch_new(const struct fetch_opts *opts, struct blocks *blocks, struct hub *hub, struct hfcache *hfcache,
              struct fetch **ret)
{
	struct fetch *f = calloc(1, sizeof(*f));
	unsigned workers = opts->workers ? MIN(opts->workers, WORKERS_MAX) : 8;

	if (!f)
		return -ENOMEM;
	f->blocks = blocks;
	f->hub = hub;
	f->hfcache = hfcache;
	f->budget = MAX(opts->inflight ? opts->inflight : (uint64_t)256 << 20, 2 * BLOCKS_SIZE);
	f->ring_max = MAX(f->budget / 2, MIN(RING_MIN, f->budget));
	f->part_max_blk = (unsigned)MIN(MAX(f->budget / BLOCKS_SIZE / 4, 1), PART_MAX_BLK);
	/* Some connections are left to demand while read-ahead stalls. */
	f->ahead_max = workers > 2 ? workers - 2 : 1;
	f->ring_end = &f->ring_first;
	lock_init(&f->lock, LOCK_FETCH);
	cond_init(&f->work);
	for (unsigned i = 0; i < workers; i++) {
		int r = -pthread_create(&f->threads[i], NULL, worker_main, f);

		if (r < 0) {
			fetch_free(f);
			return r;
		}
		f->n_threads++;
	}
	*ret = f;
	return 0;
}

/* Cuts off everything that is queued or parked: answers the wants, to be called back. */
static struct want *abandon_locked(struct fetch *f)
{
	struct want *list = STEAL(f->ready);

	for (int i = 0; i < BUCKETS; i++) {
		for (struct source *s = f->bucket[i]; s; s = s->hash_next) {
			while (s->wants) {
				struct want *w = s->wants;

				s->wants = w->next;
				w->err = -ECANCELED;
				w->next = list;
				list = w;
			}
		}
	}
	return list;
}

static void drop_queue_locked(struct queue *q, struct source **dead)
{
	while (q->first) {
		struct flight *fl = q->first;
		struct source *s = fl->s;

		flight_unlink_locked(fl);
		free(fl);
		s = unref_locked(s);
		if (s) {
			s->hash_next = *dead;
			*dead = s;
		}
	}
}

void fetch_free(struct fetch *f)
{
	struct source *dead = NULL;
	struct want *list;

	if (!f)
		return;
	if (f->hfcache)
		hfcache_stop(f->hfcache);
	lock_take(&f->lock);
	f->stopping = true;
	for (int i = 0; i < BUCKETS; i++)
		for (struct source *s = f->bucket[i]; s; s = s->hash_next)
			for (struct flight *fl = s->flights; fl; fl = fl->s_next)
				atomic_store(&fl->cancel, true);
	cond_broadcast(&f->work);
	lock_drop(&f->lock);
	for (unsigned i = 0; i < f->n_threads; i++)
		pthread_join(f->threads[i], NULL);
	lock_take(&f->lock);
	drop_queue_locked(&f->demand, &dead);
	drop_queue_locked(&f->ahead, &dead);
	list = abandon_locked(f);
	lock_drop(&f->lock);
	while (dead) {
		struct source *s = dead;

		dead = s->hash_next;
		source_free(s);
	}
	call_back(f, list);
	for (int i = 0; i < BUCKETS; i++)
		assert(!f->bucket[i]);
	cond_fini(&f->work);
	lock_fini(&f->lock);
	free(f);
}
