/* blocks_look: bytes that are shown instead of copied.
 *
 * For: a window on a pinned unit of the data file, so that a large read costs one copy, into the kernel, and not two. Not for:
 * what is not complete and verified, nor small reads: those are copied (blocks_read). Any thread enters.
 *
 * A window is opened at the first look at its unit and closed when the lock of the unit is given back, some seconds after
 * the last one: a whole file's page tables would be 2 MiB for each GiB. The pages are read in before the kernel is given
 * the address: what the disk does not give back is then an error that can be mended, not one for the reader. */
#define LOG_MODULE "blocks"
#include "blocks_int.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#define UNIT_BYTES (UNIT_BLK * BLOCKS_SIZE)
#define WINDOWS_MAX 4096 /* of the process, whose mappings the kernel limits to 65530 */
#define LOOK_MIN ((size_t)64 << 10) /* below, a copy is cheaper than a page fault */
_Static_assert(UNIT_BLK <= 8, "blob.filled has a bit for each block");

static atomic_uint n_windows;

static char *window_open(struct blob *blob, uint64_t unit)
{
	size_t len = (size_t)MIN(UNIT_BYTES, blob->key.size - unit * UNIT_BYTES);
	char *window;

	LOCKED(&blob->hold_lock);
	window = atomic_load(&blob->windows[unit]);
	if (window)
		return window;
	if (atomic_fetch_add(&n_windows, 1) >= WINDOWS_MAX)
		window = MAP_FAILED;
	else
		window = mmap(NULL, len, PROT_READ, MAP_SHARED, blob->fd, (off_t)(unit * UNIT_BYTES));
	if (window == MAP_FAILED) {
		atomic_fetch_sub(&n_windows, 1);
		return NULL;
	}
	atomic_store(&blob->windows[unit], window);
	return window;
}

void blocks_window_close(struct blob *blob, uint64_t unit)
{
	char *window = atomic_exchange(&blob->windows[unit], NULL);

	if (!window)
		return;
	atomic_store(&blob->filled[unit], 0);
	munmap(window, (size_t)MIN(UNIT_BYTES, blob->key.size - unit * UNIT_BYTES));
	atomic_fetch_sub(&n_windows, 1);
}

/* MADV_POPULATE_READ since Linux 5.14; elsewhere everything is copied. */
static bool populate(char *from, size_t len)
{
#ifdef MADV_POPULATE_READ
	return madvise(from, len, MADV_POPULATE_READ) == 0;
#else
	return false;
#endif
}

/* Reads the pages of these blocks in, once for each window. */
static bool fill_window(struct blob *blob, char *window, uint64_t first, uint64_t last)
{
	_Atomic uint8_t *filled = &blob->filled[first / UNIT_BLK];

	for (uint64_t k = first; k <= last; k++) {
		uint8_t bit = (uint8_t)(1u << k % UNIT_BLK);

		if (atomic_load(filled) & bit)
			continue;
		if (!populate(window + k % UNIT_BLK * BLOCKS_SIZE, (size_t)block_len(blob, k)))
			return false;
		atomic_fetch_or(filled, bit);
	}
	return true;
}

int blocks_look(struct blob *blob, uint64_t off, size_t len, const void **ret)
{
	uint64_t first = off / BLOCKS_SIZE, last = (off + len - 1) / BLOCKS_SIZE;
	char *window = NULL;

	if (len < LOOK_MIN || off + len > blob->key.size || first / UNIT_BLK != last / UNIT_BLK || !blob->units ||
	    !blocks_complete(blob) || blocks_pin(blob, first, last) < 0)
		return -EAGAIN;
	if (blocks_ready(blob, first, last)) {
		window = atomic_load(&blob->windows[first / UNIT_BLK]);
		if (!window)
			window = window_open(blob, first / UNIT_BLK);
	}
	if (window && fill_window(blob, window, first, last)) {
		*ret = window + off % UNIT_BYTES;
		return 0;
	}
	blocks_unpin(blob, first, last);
	return -EAGAIN;
}

void blocks_look_end(struct blob *blob, uint64_t off, size_t len)
{
	blocks_unpin(blob, off / BLOCKS_SIZE, (off + len - 1) / BLOCKS_SIZE);
}
