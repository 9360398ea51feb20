/* fetch_int: what the files of fetch share with each other, and with nobody else. fetch.c: sources, reads and
 * wants; fetch_queue.c: which flight goes when, and the workers; fetch_flight.c: one flight on its worker;
 * fetch_ring.c: blocks that the disk refused. The states are told at the head of fetch.c. */
#ifndef HUGFS_FETCH_INT_H
#define HUGFS_FETCH_INT_H

#include "fetch.h"
#include "lock.h"
#include "log.h"
#include "readahead.h"

#define BUCKETS 1024
#define WORKERS_MAX 64
#define SPARE 2               /* more connections, for readers who wait while read-ahead has all the others */
#define THREADS_MAX (WORKERS_MAX + SPARE)
#define PLACES_MAX 8          /* of one blob; more of them would not make it more reachable */
#define PART_MAX_BLK 8        /* blocks of one request for a reader who waits */
#define ROUNDS_MAX 20         /* flights for one want: its blocks vanish as fast as they come */

struct place {
	struct hub_place p; /* p.path is ours */
	bool probed;        /* the official client's cache was asked; guarded by lock */
};

struct want {
	struct want *next;
	struct source *s; /* referenced */
	uint64_t first, end;
	fetch_done done;
	void *arg;
	unsigned rounds;
	int err;
};

/* What is fetched first. */
enum lane { LANE_DEMAND, LANE_TAIL, LANE_AHEAD, LANES };

struct flight {
	struct source *s; /* referenced */
	atomic_bool cancel;
	bool hedge; /* runs beside `rival`, for the same blocks */

	/* -- guarded by fetch.lock -- */
	enum lane lane;      /* stays while it runs */
	uint64_t first, end; /* `end` may come nearer while it runs: see fetch_deliver */
	uint64_t cur;        /* blocks before it are delivered */
	bool running;
	bool overtaken;        /* its rival brought blocks: what is left is queued again */
	struct flight *rival;
	int64_t moved_ms;      /* running: when it began, or brought its last block */
	int64_t not_before_ms; /* queued: another daemon is bringing its blocks; look again then */
	int64_t busy_since_ms; /* 0, or since when another daemon has brought none of them */
	struct flight *q_prev, *q_next; /* queue; unused while running */
	struct flight *s_next;          /* all flights of the source */
};

struct queue {
	struct flight *first, *last;
};

struct source {
	struct fetch *f;
	struct blob_key key;
	struct blob *blob;
	uint64_t n_blocks;
	atomic_int alt_fd; /* the official client's file of these bytes; -1: none (yet) */
	atomic_bool alt_bad;
	atomic_uint wrong_before; /* blocks_mismatches when it was opened */
	atomic_uint served_at; /* 1 + blocks_mismatches when unproven bytes were first read; 0: not yet */

	/* -- guarded by fetch.lock -- */
	unsigned refs;  /* opens, flights and wants */
	unsigned opens;
	struct place *places[PLACES_MAX]; /* only added to */
	unsigned n_places;
	bool probing;
	unsigned n_ahead; /* flights of read-ahead */
	struct flight *flights;
	struct want *wants;
	struct source *hash_next;

	struct lock ra_lock;
	/* -- guarded by ra_lock -- */
	struct readahead ra;
};

/* A block that the disk refused. */
struct ring_block {
	struct source *s; /* not referenced: goes when the source goes */
	uint64_t block;
	uint8_t *data;
	size_t len;
	struct ring_block *next; /* oldest first */
};

struct fetch {
	struct blocks *blocks;
	struct hub *hub;
	struct hfcache *hfcache;
	uint64_t budget, ring_max;
	uint64_t window_max; /* bytes of read-ahead under way, of all sources together */
	unsigned workers, spare;
	unsigned n_threads;
	pthread_t threads[THREADS_MAX];
	atomic_uint ahead_sources; /* sources with read-ahead under way; changed under lock */

	struct lock lock;
	struct cond work;
	/* -- guarded by lock -- */
	bool stopping;
	bool has_clock; /* one idle worker looks at the time */
	struct source *bucket[BUCKETS];
	struct queue lanes[LANES];
	struct want *ready;
	struct flight *flying[THREADS_MAX]; /* workers + spare of them */
	unsigned running, running_demand;
	uint64_t ahead_bytes;
	uint64_t block_ms, block_dev_ms; /* what a block takes: mean and deviation, x 8 and x 4 (RFC 6298) */
	uint64_t flights_begun, hedges;
	struct ring_block *ring_first, **ring_end;
	atomic_uint_fast64_t ring_bytes; /* changed under lock, looked at without */
};

static inline uint64_t fetch_block_len(const struct source *s, uint64_t block)
{
	return MIN(BLOCKS_SIZE, s->key.size - block * BLOCKS_SIZE);
}

static inline uint64_t fetch_bytes(const struct source *s, uint64_t first, uint64_t end)
{
	return first < end ? MIN(end * BLOCKS_SIZE, s->key.size) - first * BLOCKS_SIZE : 0;
}

/* -- fetch.c -- */

/* Is the block there: on disk, in the official client's cache, or in the ring? */
bool fetch_resident_locked(struct source *s, uint64_t block);
/* The same of all blocks of [first, end). */
bool fetch_range_resident_locked(struct source *s, uint64_t first, uint64_t end);
/* Were its bytes found wrong twice, or after some of them were read? Then -EIO until it is opened anew. */
bool fetch_distrusted(struct source *s);
/* Drops a reference. The last one answers the source, out of reach: the caller frees it without the lock. */
struct source *fetch_unref_locked(struct source *s) MUST_USE;
void fetch_source_free(struct source *s);

/* -- fetch_queue.c -- */

/* Sees to it that every missing block of [first, end) is in a flight, in requests of at most `part` blocks.
 * Demand may fail with -ENOMEM; read-ahead does what it can. */
int fetch_schedule_locked(struct source *s, uint64_t first, uint64_t end, unsigned part,
                          enum lane lane) MUST_USE;
/* Nobody will come for the read-ahead of blocks [first, end). */
void fetch_drop_ahead_locked(struct source *s, uint64_t first, uint64_t end);
/* Calls back and frees; the wants' references to the source go. No lock is held. */
void fetch_call_back(struct fetch *f, struct want *list);
/* Blocks up to `upto` of a running flight are there: tells who waits for them. Answers where the flight is to
 * end now. No lock is held. */
uint64_t fetch_deliver(struct flight *fl, uint64_t upto);
/* All that a running flight delivered was dropped: it begins anew. */
void fetch_rewind_locked(struct flight *fl);
/* Empties the queues. Sources that go with them are put into *dead. */
void fetch_drop_queues_locked(struct fetch *f, struct source **dead);
void *fetch_worker_main(void *arg);

/* -- fetch_flight.c -- */

/* Brings what the flight still misses. Blocks: transfer workers only. 0; -EBUSY: another daemon brings them,
 * look again later; or -errno for blocks from fl->cur on. */
int fetch_flight_run(struct flight *fl) MUST_USE;

/* -- fetch_ring.c -- */

/* Keeps a block that the disk refused. Takes `data` in any case. */
int fetch_ring_put_locked(struct source *s, uint64_t block, uint8_t *data, size_t len) MUST_USE;
struct ring_block *fetch_ring_find_locked(struct source *s, uint64_t block);
/* Drops the oldest blocks until `bytes` are left at most. */
void fetch_ring_shrink_locked(struct fetch *f, uint64_t bytes);
void fetch_ring_forget_locked(struct source *s);

#endif
