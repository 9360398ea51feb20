/* blocks_proof: proof that bytes on disk are the right ones.
 *
 * For: checksums of blocks, and how long the hash of a whole blob counts: it was taken of one file, and is void when that
 * file's inode, size, mtime or ctime is another. Not for: taking that hash (blocks_hash.c). Any thread enters. */
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
	const struct index_seg gone = {.seg = block / 64, .present = (uint64_t)1 << block % 64};
	int r;

	bit_clear(blob->checked, block);
	blocks_forget_fresh(blob, gone.seg, gone.present);
	if (!bit_clear(blob->present, block))
		return;
	atomic_store(&blob->map->verified, 0);
	log_warn("%s: block %llu %s: it is dropped", blob->path, (unsigned long long)block, why);
	atomic_fetch_add(&blob->map->drops, 1);
	r = index_drop(blob->b->ix, &blob->key, &gone, 1);
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
	log_debug("%s was touched since it was checked: it is checked again", blob->path);
	atomic_store(&blob->map->verified, 0);
	for (uint64_t s = 0; s < blob->n_segs; s++)
		atomic_store(&blob->checked[s], 0);
	return false;
}

/* -- lending -- */

int blocks_lend(struct blob *blob, int *ret_fd)
{
	if (blob->fd < 0 || !blocks_complete(blob))
		return -EAGAIN;
	if (!blocks_check_verified(blob)) {
		blocks_hash_queue(blob);
		return -EAGAIN;
	}
	/* Pinned, and then looked at again: what was evicted a moment ago is a hole. */
	if (blocks_pin(blob, 0, blob->n_blocks - 1) < 0)
		return -EAGAIN;
	if (!blocks_complete(blob)) {
		blocks_lend_end(blob);
		return -EAGAIN;
	}
	*ret_fd = blob->fd;
	return 0;
}

void blocks_lend_end(struct blob *blob)
{
	blocks_unpin(blob, 0, blob->n_blocks - 1);
}
