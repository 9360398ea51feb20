/* hash: digests of content, and the key that names content.
 *
 * The only user of OpenSSL, through its EVP interface. Not for signatures or secrets. Any thread; a struct
 * hash belongs to one thread at a time. */
#define LOG_MODULE "hash"

#include "hash.h"

#include <assert.h>
#include <endian.h>
#include <errno.h>
#include <inttypes.h>
#include <openssl/evp.h>
#include <pthread.h>
#include <string.h>

struct hash {
	EVP_MD_CTX *ctx;
	enum hash_alg alg;
	uint64_t size;  /* announced; counts for HASH_GIT_SHA1 */
	uint64_t added;
	bool ended;
};

size_t hash_len(enum hash_alg alg)
{
	return alg == HASH_GIT_SHA1 ? 20 : 32;
}

bool hash_key_equal(const struct blob_key *a, const struct blob_key *b)
{
	return a->size == b->size && a->alg == b->alg && memcmp(a->id, b->id, sizeof(a->id)) == 0;
}

uint64_t hash_key_u64(const struct blob_key *key)
{
	uint64_t n;

	memcpy(&n, key->id, sizeof(n)); /* digests are evenly spread already */
	return le64toh(n);
}

void hash_key_hex(const struct blob_key *key, char out[HASH_MAX_HEX])
{
	util_hex(key->id, hash_len(key->alg), out);
}

int hash_key_from_hex(enum hash_alg alg, const char *hex, uint64_t size, struct blob_key *ret)
{
	struct blob_key key = {.size = size, .alg = alg};
	int rc = util_unhex(hex, key.id, hash_len(alg));

	if (rc < 0)
		return rc;
	*ret = key;
	return 0;
}

struct hash *hash_new(enum hash_alg alg, uint64_t size)
{
	const EVP_MD *md = alg == HASH_GIT_SHA1 ? EVP_sha1() : EVP_sha256();
	CLEANUP(hash_freep) struct hash *h = calloc(1, sizeof(*h));
	char head[32];
	int n;

	if (!h)
		return NULL;
	h->alg = alg;
	h->size = size;
	h->ctx = EVP_MD_CTX_new();
	if (!h->ctx || EVP_DigestInit_ex(h->ctx, md, NULL) != 1)
		return NULL;
	if (alg == HASH_GIT_SHA1) {
		n = snprintf(head, sizeof(head), "blob %" PRIu64, size);
		if (EVP_DigestUpdate(h->ctx, head, (size_t)n + 1) != 1) /* its NUL too */
			return NULL;
	}
	return STEAL(h);
}

void hash_free(struct hash *h)
{
	if (!h)
		return;
	EVP_MD_CTX_free(h->ctx);
	free(h);
}

void hash_freep(struct hash **h)
{
	hash_free(*h);
}

int hash_add(struct hash *h, const void *data, size_t len)
{
	assert(!h->ended);
	if (len && EVP_DigestUpdate(h->ctx, data, len) != 1)
		return -EIO;
	h->added += len;
	return 0;
}

int hash_end(struct hash *h, struct blob_key *ret)
{
	struct blob_key key = {.size = h->added, .alg = h->alg};
	unsigned char digest[EVP_MAX_MD_SIZE];
	unsigned n = 0;

	assert(!h->ended);
	h->ended = true;
	if (h->alg == HASH_GIT_SHA1 && h->added != h->size)
		return -EINVAL;
	if (EVP_DigestFinal_ex(h->ctx, digest, &n) != 1 || n != hash_len(h->alg))
		return -EIO;
	memcpy(key.id, digest, n);
	*ret = key;
	return 0;
}

int hash_buf(enum hash_alg alg, const void *data, size_t len, struct blob_key *ret)
{
	CLEANUP(hash_freep) struct hash *h = hash_new(alg, len);
	int rc;

	if (!h)
		return -ENOMEM;
	rc = hash_add(h, data, len);
	return rc < 0 ? rc : hash_end(h, ret);
}

int hash_git_tree(const void *data, size_t len, uint8_t ret[20])
{
	EVP_MD_CTX *ctx = EVP_MD_CTX_new();
	char head[32];
	int n = snprintf(head, sizeof(head), "tree %zu", len);
	bool good = ctx && EVP_DigestInit_ex(ctx, EVP_sha1(), NULL) == 1 &&
	            EVP_DigestUpdate(ctx, head, (size_t)n + 1) == 1 && EVP_DigestUpdate(ctx, data, len) == 1 &&
	            EVP_DigestFinal_ex(ctx, ret, NULL) == 1;

	EVP_MD_CTX_free(ctx);
	return good ? 0 : -ENOMEM;
}

int hash_lfs_pointer(const struct blob_key *lfs, struct blob_key *ret_pointer)
{
	char hex[HASH_MAX_HEX], text[200];
	int n;

	assert(lfs->alg == HASH_SHA256);
	hash_key_hex(lfs, hex);
	n = snprintf(text, sizeof(text),
	             "version https://git-lfs.github.com/spec/v1\noid sha256:%s\nsize %" PRIu64 "\n", hex,
	             lfs->size);
	return hash_buf(HASH_GIT_SHA1, text, (size_t)n, ret_pointer);
}

/* -- CRC32C -- */

#define CRC32C_POLY 0x82f63b78u /* reflected */

static uint32_t crc_tables[8][256];
static pthread_once_t crc_once = PTHREAD_ONCE_INIT;

static void crc_make_tables(void)
{
	for (uint32_t i = 0; i < 256; i++) {
		uint32_t crc = i;

		for (int bit = 0; bit < 8; bit++)
			crc = crc & 1 ? crc >> 1 ^ CRC32C_POLY : crc >> 1;
		crc_tables[0][i] = crc;
	}
	for (uint32_t i = 0; i < 256; i++) {
		for (int k = 1; k < 8; k++) {
			uint32_t crc = crc_tables[k - 1][i];

			crc_tables[k][i] = crc >> 8 ^ crc_tables[0][crc & 255];
		}
	}
}

/* Eight bytes at a time from eight tables. */
static uint32_t crc_by_table(uint32_t crc, const uint8_t *p, size_t len)
{
	pthread_once(&crc_once, crc_make_tables);
	for (; len >= 8; p += 8, len -= 8) {
		uint64_t word;

		memcpy(&word, p, sizeof(word));
		word = le64toh(word) ^ crc;
		crc = 0;
		for (int k = 0; k < 8; k++)
			crc ^= crc_tables[7 - k][word >> 8 * k & 255];
	}
	for (; len; p++, len--)
		crc = crc >> 8 ^ crc_tables[0][(crc ^ *p) & 255];
	return crc;
}

#ifdef __x86_64__
#include <nmmintrin.h>

__attribute__((target("sse4.2"))) static uint32_t crc_by_sse42(uint32_t crc, const uint8_t *p, size_t len)
{
	uint64_t wide = crc;

	for (; len >= 8; p += 8, len -= 8) {
		uint64_t word;

		memcpy(&word, p, sizeof(word));
		wide = _mm_crc32_u64(wide, word);
	}
	crc = (uint32_t)wide;
	for (; len; p++, len--)
		crc = _mm_crc32_u8(crc, *p);
	return crc;
}
#endif

uint32_t hash_crc32c(uint32_t crc, const void *data, size_t len)
{
#ifdef __x86_64__
	if (__builtin_cpu_supports("sse4.2"))
		return ~crc_by_sse42(~crc, data, len);
#endif
	return ~crc_by_table(~crc, data, len);
}

uint64_t hash_text64(uint64_t seed, const char *text, size_t len)
{
	const uint64_t prime = 0x100000001b3;
	uint64_t h = 0xcbf29ce484222325 ^ seed * prime;

	for (size_t i = 0; i < len; i++)
		h = (h ^ (uint8_t)text[i]) * prime;
	return h;
}
