/* blocks_proof: proof that bytes on disk are the right ones.
 *
 * For: checksums of blocks, the hash of a whole blob, and how long that counts: it was taken of one file, and is void when that
 * file's inode, size, mtime or ctime is another. Not for: where bytes lie (blocks_file.c). Any thread enters. */
#define LOG_MODULE "blocks"
#include "blocks_int.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define NS ((int64_t)1000000000)

void blocks_forget_fresh(struct blob *blob, uint64_t seg, uint64_t bits)
{
	uint64_t had = atomic_fetch_and(&blob->fresh[seg], ~bits) & bits;

	for (; had; had &= had - 1)
		atomic_fetch_sub(&blob->b->behind, block_len(blob, seg * 64 + lowest_bit(had)));
}

void blocks_drop(struct blob *blob, uint64_t block, const char *why)
{
	int r;

	bit_clear(blob->checked, block);
	blocks_forget_fresh(blob, block / 64, (uint64_t)1 << block % 64);
	if (!bit_clear(blob->present, block))
		return;
	atomic_store(&blob->map->verified, 0);
	log_warn("%s: block %llu %s: it is dropped", blob->path, (unsigned long long)block, why);
	r = index_drop(blob->b->ix, &blob->key, block / 64, (uint64_t)1 << block % 64);
	if (r < 0)
		log_debug("%s: dropping a block: %s", blob->path, strerror(-r));
}

int blocks_check(struct blob *blob, uint64_t block)
{
	uint8_t piece[64 << 10];
	uint64_t off = block * BLOCKS_SIZE, left = block_len(blob, block);
	uint32_t want = atomic_load(&blob->crc[block]), crc = 0;

	while (left) {
		size_t len = MIN(left, sizeof(piece));
		ssize_t got = util_pread_all(blob->fd, piece, len, off);

		if (got != (ssize_t)len) {
			if (got < 0)
				atomic_store(&blob->sick, true);
			blocks_drop(blob, block, got < 0 ? strerror((int)-got) : "is not there");
			return -EAGAIN;
		}
		crc = hash_crc32c(crc, piece, len);
		off += len;
		left -= len;
	}
	if (crc != want) {
		blocks_drop(blob, block, "does not have its checksum");
		return -EAGAIN;
	}
	bit_set(blob->checked, block);
	return 0;
}

static int stamp_of(int fd, struct index_stamp *ret)
{
	struct stat st;

	if (fstat(fd, &st) < 0)
		return -errno;
	*ret = (struct index_stamp){
		.ino = st.st_ino,
		.mtime_ns = st.st_mtim.tv_sec * NS + st.st_mtim.tv_nsec,
		.ctime_ns = st.st_ctim.tv_sec * NS + st.st_ctim.tv_nsec,
	};
	return 0;
}

int blocks_set_verified(struct blob *blob)
{
	struct index_stamp stamp;
	int r = stamp_of(blob->fd, &stamp);

	if (r < 0)
		return r;
	blob->map->stamp = stamp;
	atomic_store(&blob->map->verified, 1);
	r = index_set_verified(blob->b->ix, &blob->key, &stamp);
	if (r < 0)
		log_debug("%s: noting that it was checked: %s", blob->path, strerror(-r));
	return 0;
}

bool blocks_check_verified(struct blob *blob)
{
	const struct index_stamp *was = &blob->map->stamp;
	struct index_stamp now;
	off_t hole;

	if (!atomic_load(&blob->map->verified))
		return false;
	if (stamp_of(blob->fd, &now) == 0 && now.ino == was->ino && now.mtime_ns == was->mtime_ns &&
	    now.ctime_ns == was->ctime_ns) {
		hole = lseek(blob->fd, 0, SEEK_HOLE);
		if (hole < 0 || (uint64_t)hole >= blob->key.size)
			return true;
	}
	log_info("%s was touched since it was checked: it is checked again", blob->path);
	atomic_store(&blob->map->verified, 0);
	for (uint64_t s = 0; s < blob->n_segs; s++)
		atomic_store(&blob->checked[s], 0);
	return false;
}

/* The whole has another hash than its name says: nothing of it is to be served. */
static void drop_all(struct blob *blob)
{
	char hex[HASH_MAX_HEX];

	hash_key_hex(&blob->key, hex);
	log_warn("%s: the bytes that arrived do not have this hash: all %llu are dropped", hex,
	         (unsigned long long)blob->key.size);
	atomic_store(&blob->map->verified, 0);
	for (uint64_t s = 0; s < blob->n_segs; s++) {
		uint64_t had;
		int r;

		atomic_store(&blob->checked[s], 0);
		blocks_forget_fresh(blob, s, ~(uint64_t)0);
		had = atomic_exchange(&blob->present[s], 0);
		r = had ? index_drop(blob->b->ix, &blob->key, s, ~(uint64_t)0) : 0;
		if (r < 0)
			log_debug("%s: dropping blocks: %s", blob->path, strerror(-r));
	}
}

/* Owner of `hashing`: feeds what is present and comes next, at most `max` blocks; `data` is the bytes of
 * `block`. 0 nothing more to do now, 1 stopped at `max`, -EBADMSG wrong hash (all dropped), else -errno. */
static int hash_some(struct blob *blob, uint64_t max, uint64_t block, const void *data)
{
	AUTO_FREE uint8_t *buf = NULL;
	struct blob_key got = {0};
	int r;

	if (atomic_load(&blob->map->verified))
		return 0;
	if (!blob->hash) {
		blob->hash = hash_new(blob->key.alg, blob->key.size);
		blob->hashed_blk = 0;
		if (!blob->hash)
			return -ENOMEM;
	}
	for (; blob->hashed_blk < blob->n_blocks; blob->hashed_blk++) {
		uint64_t at = blob->hashed_blk;
		size_t len = (size_t)block_len(blob, at);
		const void *from = data;

		if (!bit_get(blob->present, at))
			return 0;
		if (max-- == 0)
			return 1;
		if (!data || at != block) {
			if (!buf && !(buf = malloc(BLOCKS_SIZE)))
				return -ENOMEM;
			if (!bit_get(blob->checked, at) && blocks_check(blob, at) < 0)
				return 0;
			if (util_pread_all(blob->fd, buf, len, at * BLOCKS_SIZE) != (ssize_t)len) {
				blocks_drop(blob, at, "cannot be read");
				return 0;
			}
			from = buf;
		}
		r = hash_add(blob->hash, from, len);
		if (r < 0)
			return r;
	}
	r = hash_end(blob->hash, &got);
	hash_free(STEAL(blob->hash));
	blob->hashed_blk = 0;
	if (r < 0)
		return r;
	if (!hash_key_equal(&got, &blob->key)) {
		drop_all(blob);
		return -EBADMSG;
	}
	return blocks_set_verified(blob);
}

/* hash_some by one thread at a time: somebody else's turn is not waited for. */
int blocks_hash_turn(struct blob *blob, uint64_t max, uint64_t block, const void *data)
{
	int r;

	do {
		if (atomic_exchange(&blob->hashing, true))
			return 0;
		r = hash_some(blob, max, block, data);
		atomic_store(&blob->hashing, false);
		/* A block may have come just after hash_some missed it, from a thread that saw us hashing. */
	} while (r == 0 && !atomic_load(&blob->map->verified) && all_present(blob));
	return r;
}

/* -- lending -- */

int blocks_lend(struct blob *blob, int *ret_fd)
{
	if (blob->fd < 0 || !blocks_complete(blob))
		return -EAGAIN;
	if (!blocks_check_verified(blob)) {
		blocks_mark_dirty(blob, true);
		return -EAGAIN;
	}
	*ret_fd = blob->fd;
	return 0;
}
