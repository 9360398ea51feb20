/* fetch_int: what the files of fetch share with each other, and with nobody else. fetch.c: sources, wants,
 * queues, workers; fetch_flight.c: one flight on its worker. The states are told at the head of fetch.c. */
#ifndef HUGFS_FETCH_INT_H
#define HUGFS_FETCH_INT_H

#include "fetch.h"
#include "lock.h"
#include "log.h"
#include "readahead.h"

#define BUCKETS 1024
#define WORKERS_MAX 64
#define PLACES_MAX 8          /* of one blob; more of them would not make it more reachable */

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

struct flight {
	struct source *s; /* referenced */
	uint64_t first, end;
	uint64_t cur;       /* blocks before it are delivered */
	bool ahead, running;
	atomic_bool cancel;
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
	atomic_bool poisoned; /* wrong bytes twice: -EIO until it is opened anew */

	/* -- guarded by fetch.lock -- */
	unsigned refs;  /* opens, flights and wants */
	unsigned opens;
	struct place *places[PLACES_MAX]; /* only added to */
	unsigned n_places;
	bool probing;
	unsigned mismatches;
	struct flight *flights;
	struct want *wants;
	struct readahead ra;
	struct source *hash_next;
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
	unsigned part_max_blk, ahead_max;
	unsigned n_threads;
	pthread_t threads[WORKERS_MAX];

	struct lock lock;
	struct cond work;
	/* -- guarded by lock -- */
	bool stopping;
	struct source *bucket[BUCKETS];
	struct queue demand, ahead;
	struct want *ready;
	unsigned running, running_ahead;
	uint64_t running_bytes, queued_ahead_bytes;
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
/* Keeps a block that the disk refused. Takes `data` in any case. */
int fetch_ring_put_locked(struct source *s, uint64_t block, uint8_t *data, size_t len) MUST_USE;
/* Blocks up to `upto` of a running flight are there: tells who waits for them. No lock is held. */
void fetch_deliver(struct flight *fl, uint64_t upto);

/* -- fetch_flight.c -- */

/* Brings what the flight still misses. Blocks: transfer workers only. 0, or -errno for blocks from fl->cur
 * on. */
int fetch_flight_run(struct flight *fl) MUST_USE;

#endif
