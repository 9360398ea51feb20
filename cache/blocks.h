/* blocks: the block store: bytes of blobs on disk, in blocks of 1 MiB, each with a checksum.
 *
 * One sparse data file per blob, CACHE/obj/<2 hex>/<alg>-<id>.<gen>. Fill order: data, fdatasync, index;
 * evict order: index durably, then punch or unlink. After an unclean stop nothing is trusted that its
 * checksum does not prove: each block's CRC32C is checked at its first touch in a mount. A blob is hashed
 * against its id while it comes or soon after its last block: a mismatch drops all of it. Single flight between daemons: the
 * one that fills a block holds a byte-range lock of an open file description on the object's file (freed by
 * the kernel on kill -9).
 *
 * Above the size limit or below the floor of free space the least recently used goes, small and closed blobs as a whole, of
 * others the units of 8 blocks that were read longest ago; never what somebody reads, fills or was lent.
 *
 * A full, read-only or sick disk never fails a read: blocks_store answers -ENOSPC/-EIO/-EROFS and the
 * fetcher serves the bytes from memory. Any thread. Calls block on the disk only. */
#ifndef HUGFS_BLOCKS_H
#define HUGFS_BLOCKS_H

#include "hash.h"
#include "index.h"

#define BLOCKS_SIZE ((uint64_t)1 << 20)

struct blocks;
struct blob; /* an open handle of a blob in the store; refcounted */

struct blocks_opts {
	const char *dir;      /* made with mode 0700; owner is checked */
	uint64_t max_bytes;   /* evict above this; 0: 50 GiB */
	uint64_t min_free;    /* floor of free disk; 0: 2 GiB or 5 % of the disk, the smaller */
};
int blocks_new(const struct blocks_opts *opts, struct index *ix, struct blocks **ret) MUST_USE;
/* Writes behind what is not yet in the index. */
void blocks_free(struct blocks *b);

/* Opens (or makes) the object of `key`. Put it back with blocks_put. */
int blocks_get(struct blocks *b, const struct blob_key *key, struct blob **ret) MUST_USE;
struct blob *blocks_ref(struct blob *blob);
void blocks_put(struct blob *blob);
void blocks_putp(struct blob **blob);
const struct blob_key *blocks_key(const struct blob *blob);

/* Is every block that [off, off+len) touches present? No I/O. */
bool blocks_has(struct blob *blob, uint64_t off, uint64_t len);
/* Number of the first missing block at or after `from` and below `end`; `end` if none. */
uint64_t blocks_first_missing(struct blob *blob, uint64_t from, uint64_t end);
/* Reads [off, off+len), clamped to the blob's size: the bytes read, -EAGAIN when a block is missing, was
 * evicted or fails its checksum (it is dropped then). No network. Pins while it reads. */
ssize_t blocks_read(struct blob *blob, uint64_t off, void *buf, size_t len) MUST_USE;
/* Shows [off, off+len) where it lies, until blocks_look_end, instead of copying it. -EAGAIN: not there, not complete and verified,
 * too small a piece or across two units of 8 MiB: blocks_read says which. */
int blocks_look(struct blob *blob, uint64_t off, size_t len, const void **ret) MUST_USE;
void blocks_look_end(struct blob *blob, uint64_t off, size_t len);
/* Stores one whole block (the last one is shorter). Present for readers when it returns 0. If it was the
 * last missing block the blob's hash is checked, here unless it is far behind: -EBADMSG when it is wrong and
 * all of it was dropped. */
int blocks_store(struct blob *blob, uint64_t block, const void *data, size_t len) MUST_USE;
/* How often, since this process began, the blob's bytes were found wrong and dropped. Who read of it before
 * the count grew may have read wrong bytes. */
unsigned blocks_mismatches(const struct blob *blob);
bool blocks_was_wrong(struct blocks *b, const struct blob_key *key);

/* Claims blocks [first, first + n) for filling between daemons. 0 claimed; -EBUSY: another daemon fills one
 * of them now; -EALREADY: another daemon filled them meanwhile (they are present). Drop with
 * blocks_unclaim. */
int blocks_claim(struct blob *blob, uint64_t first, uint64_t n) MUST_USE;
void blocks_unclaim(struct blob *blob, uint64_t first, uint64_t n);
/* Waits (bounded, `ms`) until the other daemon is done with it or died. */
int blocks_wait_claim(struct blob *blob, uint64_t first, uint64_t n, int ms) MUST_USE;

/* Takes the bytes of the regular file `path`, which are known to be `key` and are never written again, into
 * the store, complete and verified: hard-linked when both lie on one filesystem, else copied (reflink where
 * possible). `path` itself stays: its owner removes it. A blob that is complete already is left alone. */
int blocks_adopt(struct blocks *b, const struct blob_key *key, const char *path) MUST_USE;
/* Complete and verified right now? */
bool blocks_complete(struct blob *blob);
/* The descriptor of the data file of a complete, verified blob, for somebody who reads it without asking us:
 * no block of it goes until blocks_lend_end. It stays ours. -EAGAIN: it is not complete, not verified, or was touched
 * since (then it is checked again, in the background). */
int blocks_lend(struct blob *blob, int *ret_fd) MUST_USE;
void blocks_lend_end(struct blob *blob);

/* Somebody else needs room on this disk: evicts `bytes`, or what can go. -ENOSPC: nothing could. */
int blocks_give_way(struct blocks *b, uint64_t bytes) MUST_USE;

struct blocks_stats {
	uint64_t bytes, max_bytes, objects;
};
void blocks_stats(struct blocks *b, struct blocks_stats *ret);

#endif
