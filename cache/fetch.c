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
 * Budget: a running flight holds one block in memory; these and the ring of blocks that the disk refused stay
 * below `inflight`. Read-ahead that does not fit into its window is not queued; demand waits for its turn. */
#define LOG_MODULE "fetch"
#include "fetch_int.h"

#include <assert.h>
#include <errno.h>
#include <string.h>
#include <unistd.h>

_Static_assert(READAHEAD_BLOCK == BLOCKS_SIZE, "both speak of the same blocks");

#define WINDOW_PER_WORKER ((uint64_t)64 << 20) /* two of the largest parts: no connection waits for the reader */
#define WINDOW_MAX ((uint64_t)1 << 30)
#define WINDOW_UNCACHED ((uint64_t)4 << 20) /* read-ahead that only memory can keep */
#define RING_MIN ((uint64_t)16 << 20)       /* else two readers throw out each other's blocks */
#define WAIT_PIECE ((uint64_t)4 << 20)
#define CANCEL_LOOK_MS 200

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

void fetch_source_free(struct source *s)
{
	if (!s)
		return;
	for (unsigned i = 0; i < s->n_places; i++)
		place_free(s->places[i]);
	if (atomic_load(&s->alt_fd) >= 0)
		close(atomic_load(&s->alt_fd));
	blocks_put(s->blob);
	lock_fini(&s->ra_lock);
	free(s);
}

struct source *fetch_unref_locked(struct source *s)
{
	struct fetch *f = s->f;
	struct source **p = bucket_of(f, &s->key);

	assert(s->refs > 0);
	if (--s->refs > 0)
		return NULL;
	while (*p != s)
		p = &(*p)->hash_next;
	*p = s->hash_next;
	fetch_ring_forget_locked(s);
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
	lock_init(&made->ra_lock, LOCK_READAHEAD);
	readahead_init(&made->ra, place->path);
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
	if (s->opens == 0) {
		/* Also when flights of an earlier opening keep it. */
		atomic_store(&s->wrong_before, blocks_mismatches(s->blob));
		atomic_store(&s->served_at, 0);
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
	fetch_source_free(made);
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

bool fetch_resident_locked(struct source *s, uint64_t block)
{
	if (blocks_first_missing(s->blob, block, block + 1) == block + 1)
		return true;
	if (atomic_load(&s->alt_fd) >= 0 && !atomic_load(&s->alt_bad))
		return true;
	return fetch_ring_find_locked(s, block);
}

bool fetch_range_resident_locked(struct source *s, uint64_t first, uint64_t end)
{
	while (first < end && fetch_resident_locked(s, first))
		first++;
	return first == end;
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
			struct ring_block *b;

			LOCKED(&f->lock);
			b = fetch_ring_find_locked(s, block);
			if (!b)
				return -EAGAIN;
			memcpy(buf + done, b->data + at % BLOCKS_SIZE, n);
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

/* -- read-ahead -- */

/* Window that a source may have now: all that read ahead share one. */
static uint64_t window_of(const struct source *s)
{
	const struct fetch *f = s->f;
	uint64_t window = f->window_max / MAX(atomic_load(&f->ahead_sources), 1);

	return atomic_load(&f->ring_bytes) ? MIN(window, WINDOW_UNCACHED) : window;
}

/* Tells read-ahead of a read. True: there is something to do. */
static bool note_read(struct source *s, uint64_t off, uint64_t len, bool waited, struct readahead_ask *ret)
{
	struct readahead_read read = {
		.off = off,
		.len = len,
		.size = s->key.size,
		.waited = waited,
		.follows = off == 0 || blocks_has(s->blob, off - 1, 1) || atomic_load(&s->f->ring_bytes),
		.now_ms = util_now_ms(),
		.max_window = window_of(s),
		.connections = s->f->workers,
	};

	if (s->n_blocks == 1 || atomic_load(&s->alt_fd) >= 0 || blocks_complete(s->blob))
		return false;
	LOCKED(&s->ra_lock);
	readahead_note(&s->ra, &read, ret);
	return ret->off < ret->end || ret->tail_off < ret->tail_end || ret->dead_off < ret->dead_end;
}

static void follow_locked(struct source *s, const struct readahead_ask *ask)
{
	int r = 0;

	if (s->f->stopping)
		return;
	if (ask->dead_off < ask->dead_end)
		fetch_drop_ahead_locked(s, ask->dead_off / BLOCKS_SIZE, ask->dead_end / BLOCKS_SIZE);
	if (ask->tail_off < ask->tail_end)
		r = fetch_schedule_locked(s, ask->tail_off / BLOCKS_SIZE,
		                          MIN(s->n_blocks, ask->tail_end / BLOCKS_SIZE), 2, LANE_TAIL);
	if (r == 0 && ask->off < ask->end)
		r = fetch_schedule_locked(s, ask->off / BLOCKS_SIZE, MIN(s->n_blocks, ask->end / BLOCKS_SIZE),
		                          (unsigned)(ask->part / BLOCKS_SIZE), LANE_AHEAD);
	if (r < 0)
		log_debug("no memory to read ahead");
}

/* -- trust -- */

bool fetch_distrusted(struct source *s)
{
	unsigned wrong = blocks_mismatches(s->blob), served = atomic_load(&s->served_at);

	return wrong > atomic_load(&s->wrong_before) + 1 || (served && wrong > served - 1);
}

bool fetch_was_wrong(struct fetch *f, const struct blob_key *key)
{
	return blocks_was_wrong(f->blocks, key);
}

/* -- the calls -- */

ssize_t fetch_read(struct source *s, uint64_t off, void *buf, size_t len)
{
	unsigned wrong = blocks_mismatches(s->blob), none = 0;
	bool proven = blocks_complete(s->blob);
	struct readahead_ask ask;
	ssize_t r;

	if (len == 0 || off >= s->key.size)
		return 0;
	if (fetch_distrusted(s))
		return -EIO;
	len = (size_t)MIN(len, s->key.size - off);
	r = read_resident(s, off, buf, len);
	if (r > 0 && !proven)
		atomic_compare_exchange_strong(&s->served_at, &none, wrong + 1);
	if (r > 0 && note_read(s, off, len, false, &ask)) {
		LOCKED(&s->f->lock);
		follow_locked(s, &ask);
	}
	return r;
}

int fetch_want(struct source *s, uint64_t off, uint64_t len, fetch_done done, void *arg)
{
	struct fetch *f = s->f;
	struct want *w = malloc(sizeof(*w));
	struct readahead_ask ask;
	int r;

	if (!w)
		return -ENOMEM;
	if (fetch_distrusted(s)) {
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
	r = fetch_schedule_locked(s, w->first, w->end, PART_MAX_BLK, LANE_DEMAND);
	if (r < 0) {
		free(w);
		return r;
	}
	s->refs++;
	if (fetch_range_resident_locked(s, w->first, w->end)) {
		w->next = f->ready;
		f->ready = w;
		cond_signal(&f->work);
	} else {
		w->next = s->wants;
		s->wants = w;
	}
	if (w->end > w->first && note_read(s, off, len, true, &ask))
		follow_locked(s, &ask);
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
		if (--s->opens == 0)
			fetch_drop_ahead_locked(s, 0, s->n_blocks);
		dead = fetch_unref_locked(s);
	}
	fetch_source_free(dead);
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
	struct blocks_stats stats;

	if (!f)
		return -ENOMEM;
	f->blocks = blocks;
	f->hub = hub;
	f->hfcache = hfcache;
	f->workers = opts->workers ? MIN(opts->workers, WORKERS_MAX) : 8;
	f->spare = MIN(f->workers, SPARE);
	f->budget = MAX(opts->inflight ? opts->inflight : (uint64_t)256 << 20, 2 * BLOCKS_SIZE);
	f->ring_max = MAX(f->budget / 2, MIN(RING_MIN, f->budget));
	blocks_stats(blocks, &stats);
	/* What is read ahead must not push itself out of the cache. */
	f->window_max = MIN(MIN(f->workers * WINDOW_PER_WORKER, WINDOW_MAX), stats.max_bytes / 4);
	f->window_max = MAX(f->window_max, WINDOW_UNCACHED);
	f->ring_end = &f->ring_first;
	lock_init(&f->lock, LOCK_FETCH);
	cond_init(&f->work);
	while (f->n_threads < f->workers + f->spare) {
		int r = -pthread_create(&f->threads[f->n_threads], NULL, fetch_worker_main, f);

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
	fetch_drop_queues_locked(f, &dead);
	list = abandon_locked(f);
	lock_drop(&f->lock);
	while (dead) {
		struct source *s = dead;

		dead = s->hash_next;
		fetch_source_free(s);
	}
	fetch_call_back(f, list);
	for (int i = 0; i < BUCKETS; i++)
		assert(!f->bucket[i]);
	cond_fini(&f->work);
	lock_fini(&f->lock);
	free(f);
}
