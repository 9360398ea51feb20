/* blocks_hash: is the whole of a blob what its name says?
 *
 * For: the hash of a blob of several blocks, and dropping all of it when it is wrong. Not for: the checksum of
 * one block, nor blobs of one block (blocks.c).
 *
 * A thread of low priority hashes in the order of the file, on the heels of what is stored: of a sequential
 * read it is done when the last block comes, of a random one it runs when the last block was stored. Whoever
 * stores the last block of a blob whose hash is not far behind finishes it before that block becomes
 * present, so that nobody reads to the end of wrong bytes; else they are found out later. Either way all of
 * the blob is dropped and counted in `mismatches`.
 *
 * One thread at a time has the turn of a blob (`hashing`) and with it `hash` and the right to move
 * `hashed_blk`. A blob in the list is referenced. */
#define LOG_MODULE "blocks"
#include "blocks_int.h"

#include <errno.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#define NICE 19
#define STEP_BLK 16 /* blocks of one blob before the next has its turn */
#define HOLD_BLK 16 /* whoever brings the last block hashes so many, some 15 ms; more is left to the thread */

/* -- wrong bytes -- */

/* A blob that was found wrong; for as long as we live, for its handle may go and come again. */
struct blocks_wrong {
	struct blob_key key;
	unsigned times;
	struct blocks_wrong *next;
};

unsigned blocks_wrong_times_locked(struct blocks *b, const struct blob_key *key)
{
	for (struct blocks_wrong *w = b->wrong; w; w = w->next)
		if (hash_key_equal(&w->key, key))
			return w->times;
	return 0;
}

bool blocks_was_wrong(struct blocks *b, const struct blob_key *key)
{
	LOCKED(&b->lock);
	return blocks_wrong_times_locked(b, key) > 0;
}

void blocks_wrong_free(struct blocks *b)
{
	while (b->wrong) {
		struct blocks_wrong *w = b->wrong;

		b->wrong = w->next;
		free(w);
	}
}

void blocks_count_wrong(struct blob *blob)
{
	struct blocks *b = blob->b;
	unsigned times = atomic_fetch_add(&blob->mismatches, 1) + 1;
	struct blocks_wrong *w;
	LOCKED(&b->lock);

	for (w = b->wrong; w && !hash_key_equal(&w->key, &blob->key); w = w->next)
		;
	if (!w) {
		w = calloc(1, sizeof(*w));
		if (!w)
			return; /* the handle still knows */
		w->key = blob->key;
		w->next = b->wrong;
		b->wrong = w;
	}
	w->times = times;
}

unsigned blocks_mismatches(const struct blob *blob)
{
	return atomic_load(&blob->mismatches);
}

/* The whole has another hash than its name says: nothing of it is to be served. */
static void drop_all(struct blob *blob)
{
	char hex[HASH_MAX_HEX];

	hash_key_hex(&blob->key, hex);
	log_warn("%s: the bytes that arrived do not have this hash: all %llu are dropped", hex,
	         (unsigned long long)blob->key.size);
	atomic_store(&blob->map->verified, 0);
	atomic_fetch_add(&blob->map->drops, 1);
	blocks_count_wrong(blob);
	for (uint64_t s = 0; s < blob->n_segs; s++) {
		struct index_seg gone = {.seg = s};
		int r;

		atomic_store(&blob->checked[s], 0);
		blocks_forget_fresh(blob, s, ~(uint64_t)0);
		gone.present = atomic_exchange(&blob->present[s], 0);
		r = gone.present ? index_drop(blob->b->ix, &blob->key, &gone, 1) : 0;
		if (r < 0)
			log_debug("%s: dropping blocks: %s", blob->path, strerror(-r));
	}
}

/* -- one turn; the caller has it -- */

static int hash_finish(struct blob *blob)
{
	struct blob_key got = {0};
	int r = hash_end(blob->hash, &got);

	hash_free(STEAL(blob->hash));
	atomic_store(&blob->hashed_blk, 0);
	if (r < 0)
		return r;
	if (blob->hash_drops != atomic_load(&blob->map->drops))
		return 1;
	if (!hash_key_equal(&got, &blob->key)) {
		drop_all(blob);
		return -EBADMSG;
	}
	return blocks_set_verified(blob);
}

/* Reads the block that comes next, pinned, for what is evicted meanwhile becomes a hole. -EAGAIN: it is not there. */
static int read_next(struct blob *blob, uint64_t at, uint8_t *buf)
{
	size_t len = (size_t)block_len(blob, at);
	int r = blocks_pin(blob, at, at);

	if (r < 0)
		return r;
	if (!bit_get(blob->pending, at) &&
	    (!bit_get(blob->present, at) || (!bit_get(blob->checked, at) && blocks_check(blob, at) < 0))) {
		r = -EAGAIN;
	} else if (util_pread_all(blob->fd, buf, len, at * BLOCKS_SIZE) != (ssize_t)len) {
		blocks_drop(blob, at, "cannot be read");
		r = -EAGAIN;
	}
	blocks_unpin(blob, at, at);
	return r;
}

/* Adds the block that comes next, from `data` if that is `block`, else from the disk (through `buf`, of one block). 1: there
 * may be more; 0: nothing more to do now; -EBADMSG: the whole is wrong and was dropped; or -errno. */
static int hash_next(struct blob *blob, uint64_t block, const void *data, uint8_t *buf)
{
	bool given;
	uint64_t at;
	int r;

	if (atomic_load(&blob->map->verified))
		return 0;
	/* A block that went and came again may have other bytes than those that were hashed. */
	if (blob->hash && blob->hash_drops != atomic_load(&blob->map->drops))
		hash_free(STEAL(blob->hash));
	if (!blob->hash) {
		atomic_store(&blob->hashed_blk, 0);
		blob->hash_drops = atomic_load(&blob->map->drops);
		blob->hash = hash_new(blob->key.alg, blob->key.size);
		if (!blob->hash)
			return -ENOMEM;
	}
	at = atomic_load(&blob->hashed_blk);
	given = data && at == block;
	r = given ? 0 : read_next(blob, at, buf);
	if (r == 0)
		r = hash_add(blob->hash, given ? data : buf, (size_t)block_len(blob, at));
	if (r < 0)
		return r == -EAGAIN ? 0 : r;
	if (at + 1 == blob->n_blocks)
		return hash_finish(blob);
	/* Whoever stores block `at` + 1 looks at this after it is there; we look the other way round. */
	atomic_store(&blob->hashed_blk, at + 1);
	return 1;
}

static bool turn_take(struct blob *blob, bool wait)
{
	struct blocks *b = blob->b;
	LOCKED(&b->lock);

	while (blob->hashing) {
		if (!wait)
			return false;
		cond_wait(&b->change, &b->lock);
	}
	blob->hashing = true;
	return true;
}

static void turn_end(struct blob *blob)
{
	LOCKED(&blob->b->lock);
	blob->hashing = false;
	cond_broadcast(&blob->b->change);
}

/* -- whoever stores -- */

static bool all_written(const struct blob *blob)
{
	for (uint64_t s = 0; s < blob->n_segs; s++) {
		uint64_t have = atomic_load(&blob->present[s]) | atomic_load(&blob->pending[s]);

		if ((have & seg_mask(blob, s)) != seg_mask(blob, s))
			return false;
	}
	return true;
}

int blocks_hash_last(struct blob *blob, uint64_t block, const void *data)
{
	AUTO_FREE uint8_t *buf = NULL;
	int r = 1;

	/* Several may come here at once: then none is present yet, and each waits for its turn. */
	if (!all_written(blob) || blob->n_blocks - atomic_load(&blob->hashed_blk) > HOLD_BLK)
		return 0;
	buf = malloc(BLOCKS_SIZE);
	if (!buf)
		return 0;
	turn_take(blob, true);
	if (!bit_get(blob->checked, block))
		r = -EBADMSG; /* whoever had the turn before found it wrong */
	/* It may begin anew, because a block was dropped: then the thread goes on. */
	while (r > 0 && blob->n_blocks - atomic_load(&blob->hashed_blk) <= HOLD_BLK)
		r = hash_next(blob, block, data, buf);
	turn_end(blob);
	return r == -EBADMSG ? r : 0;
}

void blocks_hash_stored(struct blob *blob, uint64_t block)
{
	if (atomic_load(&blob->map->verified))
		return;
	if (atomic_load(&blob->hashed_blk) == block || all_present(blob))
		blocks_hash_queue(blob);
}

/* -- the thread -- */

void blocks_hash_queue_locked(struct blob *blob)
{
	struct blocks *b = blob->b;

	if (blob->in_hash)
		return;
	blob->in_hash = true;
	blob->refs++;
	blob->hash_queue_next = NULL;
	*b->hash_queue_end = blob;
	b->hash_queue_end = &blob->hash_queue_next;
	cond_signal(&b->hash_wake);
}

void blocks_hash_queue(struct blob *blob)
{
	LOCKED(&blob->b->lock);
	blocks_hash_queue_locked(blob);
}

/* Up to STEP_BLK blocks. True: there are more. */
static bool hash_some(struct blob *blob, uint8_t *buf)
{
	int r = 1;

	for (unsigned i = 0; r > 0 && i < STEP_BLK; i++) {
		/* Block by block: whoever stores the last one must not wait for long. */
		if (!turn_take(blob, false))
			return true;
		r = hash_next(blob, 0, NULL, buf);
		turn_end(blob);
	}
	return r > 0;
}

/* The next blob of the list, with its reference; NULL: it is time to stop. */
static struct blob *next_blob(struct blocks *b)
{
	struct blob *blob;
	LOCKED(&b->lock);

	while (!b->hash_queue && !b->hash_stop)
		cond_wait(&b->hash_wake, &b->lock);
	blob = b->hash_stop ? NULL : b->hash_queue;
	if (!blob)
		return NULL;
	b->hash_queue = blob->hash_queue_next;
	if (!b->hash_queue)
		b->hash_queue_end = &b->hash_queue;
	blob->in_hash = false;
	return blob;
}

void *blocks_hash_main(void *arg)
{
	struct blocks *b = arg;
	AUTO_FREE uint8_t *buf = malloc(BLOCKS_SIZE);
	struct blob *blob;

	if (setpriority(PRIO_PROCESS, (id_t)gettid(), NICE) < 0)
		log_debug("the hashing thread has the usual priority: %s", strerror(errno));
	while (buf && (blob = next_blob(b))) {
		struct blob *victim;
		bool more = hash_some(blob, buf);

		{
			LOCKED(&b->lock);
			if (more)
				blocks_hash_queue_locked(blob);
			victim = blocks_unref_locked(blob);
		}
		blocks_free_blob(victim);
	}
	return NULL;
}
