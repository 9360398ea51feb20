/* blocks_pin: blocks that must stay while somebody reads them, and the eviction of those that nobody does.
 *
 * For: parts of a blob: units of UNIT_BLK blocks. Not for: whole blobs, nor what is to go (blocks_room.c). Any thread enters.
 *
 * A unit is pinned by who reads or stores a block of it. The first pin takes a shared lock on a byte that stands for the unit, which other daemons
 * see; it is kept for some seconds after the last pin, so that a read that hits costs no call to the kernel. Who evicts
 * needs the exclusive lock of a descriptor of its own, so it sees the pins of its own daemon too. Then, in this order: the bits go from the map (readers miss from here on), from the
 * index, durably, and the bytes from the file. */
#define LOG_MODULE "blocks"
#include "blocks_int.h"

#include <assert.h>
#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define COUNT_MASK (UNIT_TOUCHED - 1)
#define BATCH 32       /* units that go with one write to the index */

/* -- time -- */

uint32_t blocks_tick(void)
{
	return (uint32_t)(util_now_ms() / TICK_MS);
}

int64_t blocks_tick_of(int64_t unix_s)
{
	int64_t ago_s = time(NULL) - unix_s;

	return MAX((util_now_ms() - ago_s * 1000) / TICK_MS, 0);
}

/* -- pins -- */

static int hold(struct blob *blob, uint64_t unit)
{
	int r = 0;

	{
		LOCKED(&blob->hold_lock);
		if (atomic_load(&blob->units[unit]) & UNIT_HELD)
			return 0;
		/* Another daemon evicts it at this moment: that takes as long as one write to the index. */
		r = blocks_range_lock(blob->fd, F_OFD_SETLKW, F_RDLCK, UNIT_AT + (off_t)unit, 1);
		if (r == 0)
			atomic_fetch_or(&blob->units[unit], UNIT_HELD);
	}
	if (r == 0 && !atomic_exchange(&blob->holding, true)) {
		LOCKED(&blob->b->lock);
		if (atomic_fetch_add(&blob->b->n_holding, 1) == 0)
			cond_signal(&blob->b->wake);
	}
	return r;
}

static void touch(struct blob *blob, uint64_t unit)
{
	atomic_fetch_or(&blob->units[unit], UNIT_TOUCHED);
	atomic_store(&blob->unit_used[unit], blocks_tick());
}

int blocks_pin(struct blob *blob, uint64_t first, uint64_t last)
{
	if (!blob->units)
		return 0;
	for (uint64_t u = first / UNIT_BLK; u <= last / UNIT_BLK; u++) {
		uint32_t was = atomic_fetch_add(&blob->units[u], 1);
		int r = was & UNIT_HELD ? 0 : hold(blob, u);

		if (r < 0) {
			log_debug("%s: pinning: %s", blob->path, strerror(-r));
			blocks_unpin(blob, first, u * UNIT_BLK);
			return r;
		}
		if (!(was & UNIT_TOUCHED))
			touch(blob, u);
	}
	return 0;
}

void blocks_unpin(struct blob *blob, uint64_t first, uint64_t last)
{
	if (!blob->units)
		return;
	for (uint64_t u = first / UNIT_BLK; u <= last / UNIT_BLK; u++) {
		uint32_t was = atomic_fetch_sub(&blob->units[u], 1);

		assert(was & COUNT_MASK);
	}
}

unsigned blocks_let_go(struct blob *blob, bool all)
{
	unsigned left = 0;

	LOCKED(&blob->hold_lock);
	for (uint64_t u = 0; u < blob->n_units; u++) {
		uint32_t was = atomic_load(&blob->units[u]);

		if (!(was & UNIT_HELD))
			continue;
		if (was & (all ? COUNT_MASK : COUNT_MASK | UNIT_TOUCHED)) {
			if (!all)
				atomic_fetch_and(&blob->units[u], ~UNIT_TOUCHED);
			left++;
			continue;
		}
		/* Who pins it after this comes to hold(), and waits there for hold_lock. */
		if (!atomic_compare_exchange_strong(&blob->units[u], &was, 0)) {
			left++;
			continue;
		}
		blocks_window_close(blob, u);
		if (blocks_range_lock(blob->fd, F_OFD_SETLK, F_UNLCK, UNIT_AT + (off_t)u, 1) < 0)
			log_debug("%s: unpinning", blob->path);
	}
	return left;
}

/* -- eviction -- */

struct cold {
	uint64_t unit;
	uint32_t used;
};

static int older_first(const void *a, const void *b)
{
	const struct cold *x = a, *y = b;

	return x->used != y->used ? (x->used < y->used ? -1 : 1) : (x->unit < y->unit ? -1 : 1);
}

static bool may_go(const struct blob *blob, uint64_t unit)
{
	return !(atomic_load(&blob->units[unit]) & COUNT_MASK) &&
	       (atomic_load(&blob->present[unit * UNIT_BLK / 64]) & unit_mask(unit));
}

int64_t blocks_oldest_use(struct blob *blob)
{
	int64_t oldest = INT64_MAX;

	for (uint64_t u = 0; blob->units && u < blob->n_units; u++)
		if (may_go(blob, u))
			oldest = MIN(oldest, (int64_t)atomic_load(&blob->unit_used[u]));
	return oldest;
}

/* The exclusive locks on a unit, of `fd`: nobody reads nor stores its blocks until they are dropped. What somebody fills now is
 * left alone. */
static bool seize(int fd, uint64_t unit)
{
	off_t first = CLAIM_AT + (off_t)(unit * UNIT_BLK);

	if (blocks_range_lock(fd, F_OFD_SETLK, F_WRLCK, first, UNIT_BLK) < 0)
		return false;
	if (blocks_range_lock(fd, F_OFD_SETLK, F_WRLCK, UNIT_AT + (off_t)unit, 1) == 0)
		return true;
	if (blocks_range_lock(fd, F_OFD_SETLK, F_UNLCK, first, UNIT_BLK) < 0)
		log_debug("unclaiming a unit");
	return false;
}

static void note_gone(struct index_seg *segs, size_t *n, uint64_t seg, uint64_t bits)
{
	size_t i = 0;

	while (i < *n && segs[i].seg != seg)
		i++;
	if (i == *n)
		segs[(*n)++] = (struct index_seg){.seg = seg};
	segs[i].present |= bits;
}

/* Evicts these units, as far as nobody uses them: the bytes that went. */
static uint64_t evict_batch(struct blob *blob, int fd, const struct cold *cold, size_t n)
{
	AUTO_FREE struct index_seg *segs = calloc(n, sizeof(*segs));
	bool seized[BATCH] = {0};
	uint64_t bytes = 0;
	size_t n_segs = 0;

	if (!segs)
		return 0;
	for (size_t i = 0; i < n; i++) {
		uint64_t seg = cold[i].unit * UNIT_BLK / 64, mask = unit_mask(cold[i].unit), had;

		seized[i] = seize(fd, cold[i].unit);
		if (!seized[i])
			continue;
		had = atomic_fetch_and(&blob->present[seg], ~mask) & mask;
		atomic_fetch_and(&blob->checked[seg], ~mask);
		blocks_forget_fresh(blob, seg, had);
		note_gone(segs, &n_segs, seg, had);
		for (uint64_t bits = had; bits; bits &= bits - 1)
			bytes += block_len(blob, seg * 64 + lowest_bit(bits));
	}
	if (bytes == 0)
		return 0;
	atomic_store(&blob->map->verified, 0);
	atomic_fetch_add(&blob->map->drops, 1);
	if (index_drop(blob->b->ix, &blob->key, segs, n_segs) < 0)
		return 0; /* the bytes stay, and nobody looks at them any more */
	for (size_t i = 0; i < n; i++) {
		uint64_t size = UNIT_BLK * BLOCKS_SIZE;

		if (seized[i] && fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
		                           (off_t)(cold[i].unit * size), (off_t)size) < 0) {
			log_debug("%s: punching a hole: %s", blob->path, strerror(errno));
			return 0;
		}
	}
	return bytes;
}

uint64_t blocks_evict_units(struct blob *blob, uint64_t want, int64_t before)
{
	AUTO_FREE struct cold *cold = NULL;
	uint64_t freed = 0;
	size_t n = 0;

	if (!blob->units)
		return 0;
	cold = calloc(blob->n_units, sizeof(*cold));
	if (!cold)
		return 0;
	for (uint64_t u = 0; u < blob->n_units; u++)
		if (may_go(blob, u) && (int64_t)atomic_load(&blob->unit_used[u]) < before)
			cold[n++] = (struct cold){.unit = u, .used = atomic_load(&blob->unit_used[u])};
	qsort(cold, n, sizeof(*cold), older_first);
	blocks_let_go(blob, true);
	for (size_t i = 0; i < n && freed < want;) {
		AUTO_CLOSE int fd = open(blob->path, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
		uint64_t left = (want - freed + UNIT_BLK * BLOCKS_SIZE - 1) / (UNIT_BLK * BLOCKS_SIZE);
		size_t batch = (size_t)MIN(MIN(left, BATCH), n - i);
		struct stat ours, st;

		if (fd < 0 || fstat(fd, &st) < 0 || fstat(blob->fd, &ours) < 0 || st.st_ino != ours.st_ino)
			break;
		freed += evict_batch(blob, fd, cold + i, batch);
		i += batch;
	}
	if (freed)
		log_debug("evicted %llu bytes of %s", (unsigned long long)freed, blob->path);
	return freed;
}
