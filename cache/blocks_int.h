/* blocks_int: what the files of the block store share with each other, and with nobody else. blocks.c: the
 * table of blobs, reading, filling; blocks_proof.c: checksums and what they are good for; blocks_hash.c: the hash of
 * the whole; blocks_file.c: a blob's files and the locks on them; blocks_pin.c: what must
 * stay, and parts that go; blocks_look.c: windows; blocks_room.c: the writer thread, the index behind,
 * room. The states and locks are told at the head of
 * blocks.c. */
#ifndef HUGFS_BLOCKS_INT_H
#define HUGFS_BLOCKS_INT_H

#include <fcntl.h>
#include <stdatomic.h>
#include <time.h>

#include "blocks.h"
#include "lock.h"
#include "log.h"

/* Bytes of the data file that stand for something between daemons (see blocks.c). */
#define CLAIM_AT ((off_t)1 << 61)
#define USE_AT ((off_t)1 << 62)
#define INIT_AT (USE_AT + 1)
#define UNIT_AT (USE_AT + ((off_t)1 << 40))

#define UNIT_BLK 8 /* blocks that are pinned and evicted together, and share one last use: a divisor of 64 */
/* In blob.units: how often it is pinned here, and */
#define UNIT_HELD ((uint32_t)1 << 31)    /* this process has the lock on it */
#define UNIT_TOUCHED ((uint32_t)1 << 30) /* it was pinned since the writer thread looked last */

/* Uses of units are told in ticks since the machine started: a map is of one boot. */
#define TICK_MS 16

#define BUCKETS 4096
#define SPACE_EVERY ((uint64_t)64 << 20) /* bytes written between looks at the free space, at most */

struct map {
	char magic[8];
	uint8_t boot[16];
	uint64_t gen, n_blocks;
	struct index_stamp stamp; /* of the data file, if verified */
	_Atomic uint32_t verified;
	_Atomic uint32_t drops; /* counts what ceased to be present */
	uint32_t unused[14];
	/* then: present bits, one word per segment; one checksum per block; the last use of each unit, in ticks */
};
_Static_assert(sizeof(struct map) == 128, "part of a file format");

enum blob_state { BLOB_LOADING, BLOB_OPEN };

struct blob {
	struct blocks *b;
	struct blob_key key;
	uint64_t n_blocks, n_segs, n_units, gen;
	char *path;
	int fd;              /* -1: no disk */
	bool read_only;
	struct map *map;     /* mapped or, when it is not shared, allocated */
	size_t map_len;
	bool map_shared;
	size_t guard;        /* 1 + its slot; 0: none */
	atomic_bool lost;    /* a page of its map could not be reached */
	_Atomic uint64_t *present;
	_Atomic uint32_t *crc;
	_Atomic uint32_t *unit_used;
	_Atomic uint64_t *checked; /* one allocation with fresh and pending; may be older than the eviction by another daemon */
	_Atomic uint64_t *fresh;   /* present, not yet noted */
	_Atomic uint64_t *pending; /* written by us, not yet present */
	_Atomic uint32_t *units;   /* NULL: nothing of it is evicted while it is open here */
	_Atomic(char *) *windows;  /* on units that are held; NULL: none */
	_Atomic uint8_t *filled;   /* blocks of them whose pages were read in */
	struct lock hold_lock;     /* while the lock of a unit is taken or given back */
	atomic_bool holding;       /* it may hold locks of units */
	atomic_bool sick;          /* its file failed: nothing more is stored */
	atomic_uint mismatches;    /* how often all of it was dropped for a wrong hash */
	atomic_int_fast64_t used_s;

	struct hash *hash;               /* of whoever has the turn (`hashing`) */
	atomic_uint_fast64_t hashed_blk; /* blocks before it are in `hash`; changed by the same */
	uint32_t hash_drops;             /* map->drops when `hash` began */

	/* -- guarded by blocks.lock -- */
	enum blob_state state;
	unsigned refs;
	bool stale, in_table, in_idle, in_dirty, in_hash, hashing, want_touch;
	struct blob *hash_next;             /* bucket */
	struct blob *idle_prev, *idle_next; /* oldest first */
	struct blob *dirty_next;            /* holds a reference */
	struct blob *hash_queue_next;       /* holds a reference */
};

struct blocks {
	struct index *ix;
	char *obj_dir;
	uint64_t max_bytes, min_free;
	uint8_t boot[16];
	bool have_boot;
	time_t started;

	atomic_uint_fast64_t indexed, objects; /* what the index said last */
	atomic_uint_fast64_t behind;           /* stored and not yet noted */
	atomic_uint_fast64_t since_space, space_every;
	atomic_uint n_holding; /* blobs with `holding` set */
	atomic_bool no_space;
	atomic_int_fast64_t full_until_ms; /* nothing could be evicted: not tried again before */

	pthread_t writer, hasher;
	bool writer_runs, hasher_runs; /* of blocks_new and blocks_free alone */
	struct lock lock;
	struct cond wake;   /* of the writer */
	struct cond change; /* a blob is no longer loading; an eviction or a turn of hashing ended */
	struct cond hash_wake;
	/* -- guarded by lock -- */
	struct blob *bucket[BUCKETS];
	struct blob *idle_first, *idle_last;
	unsigned n_idle;
	struct blob *dirty;
	unsigned n_dirty;
	int64_t dirty_since_ms;
	uint64_t rounds_begun, rounds_done; /* of the writer thread */
	bool flush_wanted, evicting, stopping, hash_stop;
	struct blob *hash_queue, **hash_queue_end;
	struct blocks_wrong *wrong;
};

static inline uint64_t block_len(const struct blob *blob, uint64_t block)
{
	return MIN(BLOCKS_SIZE, blob->key.size - block * BLOCKS_SIZE);
}

static inline bool bit_get(_Atomic uint64_t *bits, uint64_t block)
{
	return atomic_load_explicit(&bits[block / 64], memory_order_acquire) >> block % 64 & 1;
}

static inline bool bit_set(_Atomic uint64_t *bits, uint64_t block)
{
	uint64_t bit = (uint64_t)1 << block % 64;

	return !(atomic_fetch_or(&bits[block / 64], bit) & bit);
}

static inline bool bit_clear(_Atomic uint64_t *bits, uint64_t block)
{
	uint64_t bit = (uint64_t)1 << block % 64;

	return atomic_fetch_and(&bits[block / 64], ~bit) & bit;
}

static inline uint64_t lowest_bit(uint64_t bits)
{
	return (uint64_t)__builtin_ctzll(bits);
}

/* Bits of the blocks that segment `seg` has. */
static inline uint64_t seg_mask(const struct blob *blob, uint64_t seg)
{
	uint64_t left = blob->n_blocks - seg * 64;

	return left >= 64 ? ~(uint64_t)0 : ((uint64_t)1 << left) - 1;
}

static inline bool all_present(const struct blob *blob)
{
	for (uint64_t s = 0; s < blob->n_segs; s++)
		if ((atomic_load(&blob->present[s]) & seg_mask(blob, s)) != seg_mask(blob, s))
			return false;
	return true;
}

static inline bool is_one_block(const struct blob *blob)
{
	return blob->n_blocks == 1;
}

static inline size_t map_bytes(const struct blob *blob)
{
	return sizeof(struct map) + blob->n_segs * 8 + (blob->n_blocks + blob->n_units) * 4;
}

/* Bits of a segment's word that belong to `unit`. */
static inline uint64_t unit_mask(uint64_t unit)
{
	return (((uint64_t)1 << UNIT_BLK) - 1) << unit * UNIT_BLK % 64;
}

/* -- blocks.c -- */

struct blob *blocks_find_locked(struct blocks *b, const struct blob_key *key);
void blocks_table_remove_locked(struct blob *blob);
void blocks_idle_remove_locked(struct blob *blob);
/* Drops a reference. A blob that this makes superfluous is answered: the caller frees it without the lock. */
struct blob *blocks_unref_locked(struct blob *blob) MUST_USE;
/* The row of `blob` is gone: nothing of it will be found again, so its files go too. */
void blocks_gone_stale(struct blob *blob);
/* Are these blocks present and right? They are pinned. */
bool blocks_ready(struct blob *blob, uint64_t first, uint64_t last);

/* -- blocks_look.c -- */

/* Closes the window on a unit, if there is one; nobody has it pinned. */
void blocks_window_close(struct blob *blob, uint64_t unit);

/* -- blocks_proof.c -- */

/* The blocks of `seg` that `bits` name will not be noted: they are counted no longer. */
void blocks_forget_fresh(struct blob *blob, uint64_t seg, uint64_t bits);
/* The block is wrong: nobody reads it any more, and it is fetched again. */
void blocks_drop(struct blob *blob, uint64_t block, const char *why);
/* Compares the block with its checksum. 0, or -EAGAIN when it was wrong and is dropped. */
int blocks_check(struct blob *blob, uint64_t block) MUST_USE;
/* All of it is there and has the right hash: that counts for the data file as it is now. */
int blocks_set_verified(struct blob *blob) MUST_USE;
/* Does that count still? When the file was changed since, not even checksums that were compared do. */
bool blocks_check_verified(struct blob *blob);

/* -- blocks_hash.c -- */

/* `block`, whose bytes are `data`, was written and is not present yet. If it is the last one, and the hash not
 * far behind, it is finished now: -EBADMSG: it is wrong, and all was dropped. Else 0. */
int blocks_hash_last(struct blob *blob, uint64_t block, const void *data) MUST_USE;
/* `block` became present: has the hash go on if it waits for it. */
void blocks_hash_stored(struct blob *blob, uint64_t block);
void blocks_hash_queue_locked(struct blob *blob);
void blocks_hash_queue(struct blob *blob);
/* Its bytes were wrong: counted for its handles, and those to come. */
void blocks_count_wrong(struct blob *blob);
unsigned blocks_wrong_times_locked(struct blocks *b, const struct blob_key *key);
void blocks_wrong_free(struct blocks *b);
void *blocks_hash_main(void *arg);

/* -- blocks_file.c -- */

/* fcntl with cmd F_OFD_SETLK or F_OFD_SETLKW. -EBUSY: another daemon has it. */
int blocks_range_lock(int fd, int cmd, short type, off_t start, off_t len) MUST_USE;
/* Path of the data file. Caller frees. */
char *blocks_data_path(const struct blocks *b, const struct blob_key *key, uint64_t gen) MUST_USE;
int blocks_make_folder_of(const char *path) MUST_USE;
/* Fills in a blob that is still loading. Without a disk it is a blob in which nothing is present nor
 * stored. */
int blocks_open_blob(struct blob *blob) MUST_USE;
void blocks_free_blob(struct blob *blob);
int blocks_unlink_files(const char *path) MUST_USE;
/* Is the one block of this blob on disk, whatever the index says? Another daemon, or we before a crash, may
 * have put it there: then it is present. */
void blocks_find_one_block(struct blob *blob);
/* Has a page of a map that its disk does not give back end only that blob, not the process. */
int blocks_guard_maps(void) MUST_USE;
/* Removes data files that an empty index does not know: older than it, and nobody has them open. */
void blocks_sweep(struct blocks *b);

/* -- blocks_pin.c -- */

/* Now, and a time of the index, in ticks. */
uint32_t blocks_tick(void);
int64_t blocks_tick_of(int64_t unix_s);
/* No block of [first, last] goes until blocks_unpin, in whatever daemon. What is present after it is present until then. */
int blocks_pin(struct blob *blob, uint64_t first, uint64_t last) MUST_USE;
void blocks_unpin(struct blob *blob, uint64_t first, uint64_t last);
/* Gives back the locks of units that nobody has pinned (and, if not `all`, nobody touched since the last call). 0: none
 * is held any more. */
unsigned blocks_let_go(struct blob *blob, bool all);
/* Evicts about `want` bytes of an open or large blob, the units that were used longest ago (before `before`, in ticks)
 * first: the bytes that went. Those that are pinned anywhere or being filled stay. */
uint64_t blocks_evict_units(struct blob *blob, uint64_t want, int64_t before);
/* When the first unit that would go was used, in ticks; INT64_MAX: nothing of it can go. */
int64_t blocks_oldest_use(struct blob *blob);

/* -- blocks_room.c -- */

/* Has the writer thread look at `blob` soon. */
void blocks_mark_dirty_locked(struct blob *blob);
void blocks_mark_dirty(struct blob *blob);
/* Writes the index rows of `blob` for what was stored since. */
int blocks_note_fresh(struct blob *blob) MUST_USE;
uint64_t blocks_bytes_now(struct blocks *b);
void blocks_refresh_usage(struct blocks *b);
/* Bytes below the floor of free space; 0: there is enough. */
uint64_t blocks_space_short(struct blocks *b);
/* Frees least recently used objects until `bytes` more fit, and at least `at_least` bytes: 0 where the
 * limits decide, else what the disk wants. One thread at a time; the others wait for it. */
void blocks_evict(struct blocks *b, uint64_t bytes, uint64_t at_least);
/* -ENOSPC: nothing can be evicted that would make `bytes` fit. */
int blocks_make_room(struct blocks *b, uint64_t bytes) MUST_USE;
void *blocks_writer_main(void *arg);

#endif
