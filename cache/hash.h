/* hash: digests of content, and the key that names content. The only user of OpenSSL. Any thread; no
 * locks. */
#ifndef HUGFS_HASH_H
#define HUGFS_HASH_H

#include "util.h"

/* Regular files are named by git's blob id, LFS files by the SHA-256 of their bytes
 * (../shared/hub-api.md 5.8: the ETag of a regular and of an LFS file). */
enum hash_alg { HASH_GIT_SHA1 = 1, HASH_SHA256 = 2 };
#define HASH_MAX_LEN 32
#define HASH_MAX_HEX 65

/* THE name of content, wherever it can be fetched. Unused tail bytes of id are zero, so that keys
 * compare with hash_key_equal(). */
struct blob_key {
	uint64_t size;
	enum hash_alg alg;
	uint8_t id[HASH_MAX_LEN];
};

size_t hash_len(enum hash_alg alg); /* 20 or 32 */
bool hash_key_equal(const struct blob_key *a, const struct blob_key *b);
uint64_t hash_key_u64(const struct blob_key *key); /* for hash tables */
/* "<hex>" of the id into out. */
void hash_key_hex(const struct blob_key *key, char out[HASH_MAX_HEX]);
int hash_key_from_hex(enum hash_alg alg, const char *hex, uint64_t size, struct blob_key *ret) MUST_USE;

/* A running digest. For HASH_GIT_SHA1 the size must be known before the first byte. */
struct hash;
struct hash *hash_new(enum hash_alg alg, uint64_t size) MUST_USE; /* NULL: no memory */
void hash_free(struct hash *h);
void hash_freep(struct hash **h);
int hash_add(struct hash *h, const void *data, size_t len) MUST_USE;
/* Ends it: id, alg and the number of bytes that were added. -EINVAL: for HASH_GIT_SHA1, they are not the size
 * that was announced. Only hash_free may follow. */
int hash_end(struct hash *h, struct blob_key *ret) MUST_USE;

/* Of a whole buffer. */
int hash_buf(enum hash_alg alg, const void *data, size_t len, struct blob_key *ret) MUST_USE;

/* git blob id of the LFS pointer file that stands for this SHA-256 key (hub-api.md 5.8). */
int hash_lfs_pointer(const struct blob_key *lfs, struct blob_key *ret_pointer) MUST_USE;

/* git id of a tree object with these bytes. */
int hash_git_tree(const void *data, size_t len, uint8_t ret[20]) MUST_USE;

/* CRC32C (Castagnoli) as iSCSI and ext4 use it; start with crc = 0. Guards a block in the cache. */
uint32_t hash_crc32c(uint32_t crc, const void *data, size_t len);

/* A 64-bit hash of text (FNV-1a), the same on every machine and run: st_ino comes from it.
 * Seed 0 is plain FNV-1a; a hash as the seed chains texts. */
uint64_t hash_text64(uint64_t seed, const char *text, size_t len);

#endif
