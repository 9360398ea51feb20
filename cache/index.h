/* index: the SQLite index of the cache: which blocks of which object are present, when they were used, and
 * saved metadata. The only user of SQLite in cache/.
 *
 * WAL mode, shared by all daemons of a user. It is never on the path of a hit: presence is loaded when an
 * object is opened and written behind in batches. A corrupt or unknown index is renamed away and an empty
 * one started: only time is lost. Any thread; calls block on the disk. */
#ifndef HUGFS_INDEX_H
#define HUGFS_INDEX_H

#include "hash.h"

struct index;

/* Opens or creates DIR/index.db. */
int index_open(const char *dir, struct index **ret) MUST_USE;
void index_close(struct index *ix);

/* -- blocks: one row per segment of 64 blocks -- */

#define INDEX_SEG_BLOCKS 64
#define INDEX_BLOCK ((uint64_t)1 << 20) /* bytes of a block; only an object's last one is shorter */
struct index_seg {
	uint64_t seg;                    /* number of the segment in the object */
	uint64_t present;                /* bit per block */
	uint32_t crc[INDEX_SEG_BLOCKS];  /* CRC32C of each present block */
};
/* A file as it was at some moment: a change of its bytes changes one of these. */
struct index_stamp {
	uint64_t ino;
	int64_t mtime_ns, ctime_ns;
};
/* What is known of an object. */
struct index_known {
	uint64_t gen;            /* generation: part of the object's file name */
	bool verified;           /* it was complete and its hash was right, in the file of this stamp: */
	struct index_stamp stamp;
	int64_t used_s;          /* last use, unix seconds */
	struct index_seg *segs;  /* in rising order; NULL with n = 0 when none are present */
	size_t n;
};
/* An object that is not known yet becomes known here, with a generation that was never used before. */
int index_load(struct index *ix, const struct blob_key *key, struct index_known *ret) MUST_USE;
void index_known_fini(struct index_known *k);
/* Adds what is present (bits are or-ed in, checksums of the bits given replace old ones). The data must be
 * on stable storage before. -ESTALE: the object was dropped meanwhile (no row of that generation). */
int index_store(struct index *ix, const struct blob_key *key, uint64_t gen, const struct index_seg *segs,
                size_t n) MUST_USE;
/* Takes the bits that are given as present away, durably before it returns: only then may the data go. */
int index_drop(struct index *ix, const struct blob_key *key, const struct index_seg *segs, size_t n) MUST_USE;
/* -ENOENT: not known in that generation. */
int index_drop_object(struct index *ix, const struct blob_key *key, uint64_t gen) MUST_USE;
/* The object is complete and the hash of its file, which has this stamp, was right. NULL: no longer. */
int index_set_verified(struct index *ix, const struct blob_key *key, const struct index_stamp *stamp) MUST_USE;
int index_touch(struct index *ix, const struct blob_key *key, int64_t unix_s) MUST_USE;
/* Sums over all objects. */
int index_usage(struct index *ix, uint64_t *ret_bytes, uint64_t *ret_objects) MUST_USE;
/* Was an empty index started by index_open (none there, or set aside)? Then data files may lie about
 * unknown. */
bool index_is_new(const struct index *ix);
struct index_object {
	struct blob_key key;
	uint64_t gen, bytes; /* bytes: of present blocks */
	int64_t used_s;
};
/* All objects, least recently used first. Caller frees *ret. */
int index_objects(struct index *ix, struct index_object **ret, size_t *ret_n) MUST_USE;

/* -- saved metadata: small texts under a key, for listings, heads and refs -- */

/* Values are bytes of up to INDEX_META_MAX. The oldest go when all of them together pass a cap (at
 * index_open). */
#define INDEX_META_MAX ((size_t)512 << 20)
/* -ENOENT: nothing is saved under that key. The value is NUL-terminated; caller frees. */
int index_meta_get(struct index *ix, const char *key, char **ret_value, size_t *ret_len) MUST_USE;
int index_meta_put(struct index *ix, const char *key, const void *value, size_t len) MUST_USE;

#endif
