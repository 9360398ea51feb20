/* blocks_room: the writer thread, the index behind, and room for more.
 *
 * For: noting what was stored, last use, eviction. Not for: the blobs
 * themselves (blocks.c). Any thread enters blocks_make_room and blocks_mark_dirty.
 *
 * The writer thread works in rounds: it takes the list of blobs that have something to note, syncs and
 * notes each, and looks whether there is too much. Who needs room waits for a round first, for only what is
 * noted can be evicted. */
#define LOG_MODULE "blocks"
#include "blocks_int.h"

#include <errno.h>
#include <string.h>
#include <sys/statvfs.h>
#include <unistd.h>

#define BEHIND_MS 2000 /* the index is at most this far behind */
#define BEHIND_BYTES ((uint64_t)256 << 20)
#define BEHIND_BLOBS 256 /* each keeps a descriptor */
#define FULL_MS 1000     /* between tries to evict when nothing could be */
#define PART_MIN ((uint64_t)64 << 20) /* smaller objects go as a whole */
#define LET_GO_MAX 64     /* blobs of one bucket in a round */
#define HOLD_MS 2000    /* locks of units that nobody pinned for so long are given back */

static _Thread_local struct blocks *writer_of; /* set in the writer thread */

/* -- the index, behind -- */

/* Has the writer thread look at `blob` soon. */
void blocks_mark_dirty_locked(struct blob *blob)
{
	struct blocks *b = blob->b;

	if (!blob->in_dirty) {
		blob->in_dirty = true;
		blob->refs++;
		blob->dirty_next = b->dirty;
		if (!b->dirty)
			b->dirty_since_ms = util_now_ms();
		b->dirty = blob;
		b->n_dirty++;
		if (b->n_dirty == 1 || b->n_dirty == BEHIND_BLOBS)
			cond_signal(&b->wake);
	}
}

void blocks_mark_dirty(struct blob *blob)
{
	LOCKED(&blob->b->lock);
	blocks_mark_dirty_locked(blob);
	if (atomic_load(&blob->b->behind) >= BEHIND_BYTES)
		cond_signal(&blob->b->wake);
}

/* Writes the index rows of `blob` for what was stored since. Worker or writer thread. */
int blocks_note_fresh(struct blob *blob)
{
	struct blocks *b = blob->b;
	AUTO_FREE struct index_seg *segs = NULL;
	uint64_t bytes = 0;
	size_t n = 0, cap = 0;
	int r = 0;

	for (uint64_t s = 0; s < blob->n_segs; s++) {
		uint64_t bits = atomic_exchange(&blob->fresh[s], 0);

		if (!bits)
			continue;
		if (n == cap) {
			struct index_seg *more = realloc(segs, (cap = cap ? 2 * cap : 4) * sizeof(*segs));

			if (!more) {
				atomic_fetch_or(&blob->fresh[s], bits);
				return -ENOMEM;
			}
			segs = more;
		}
		segs[n] = (struct index_seg){.seg = s, .present = bits};
		for (uint64_t i = 0; i < 64; i++) {
			if (!(bits >> i & 1))
				continue;
			segs[n].crc[i] = atomic_load(&blob->crc[s * 64 + i]);
			bytes += block_len(blob, s * 64 + i);
		}
		n++;
	}
	if (n == 0)
		return 0;
	/* The one block of a small blob is proven by its content id and needs no sync. */
	if (blob->n_blocks > 1 && fdatasync(blob->fd) < 0) {
		r = -errno;
		log_warn("%s: %s: its blocks will be fetched again", blob->path, strerror(-r));
		atomic_store(&blob->sick, true);
	}
	/* A block that was found bad meanwhile stays out. */
	for (size_t i = 0; i < n; i++)
		segs[i].present &= atomic_load(&blob->present[segs[i].seg]);
	if (r == 0)
		r = index_store(b->ix, &blob->key, blob->gen, segs, n);
	if (r == -EBUSY) {
		for (size_t i = 0; i < n; i++)
			atomic_fetch_or(&blob->fresh[segs[i].seg], segs[i].present);
		return r;
	}
	atomic_fetch_sub(&b->behind, bytes);
	if (r == 0)
		atomic_fetch_add(&b->indexed, bytes);
	if (r == -ESTALE)
		blocks_gone_stale(blob);
	return r;
}

/* -- room -- */

uint64_t blocks_bytes_now(struct blocks *b)
{
	return atomic_load(&b->indexed) + atomic_load(&b->behind);
}

void blocks_refresh_usage(struct blocks *b)
{
	uint64_t bytes, objects;

	if (index_usage(b->ix, &bytes, &objects) < 0)
		return;
	atomic_store(&b->indexed, bytes);
	atomic_store(&b->objects, objects);
}

/* Bytes below the floor of free space; 0: there is enough. */
uint64_t blocks_space_short(struct blocks *b)
{
	struct statvfs st;
	uint64_t avail;

	if (statvfs(b->obj_dir, &st) < 0)
		return 0;
	avail = (uint64_t)st.f_bavail * st.f_frsize;
	/* The less there is, the sooner it is looked at again. */
	atomic_store(&b->space_every, MIN(SPACE_EVERY, MAX(avail / 16, BLOCKS_SIZE)));
	return avail < b->min_free ? b->min_free - avail : 0;
}

/* Removes one object that nobody has open, here or in another daemon: -EBUSY when somebody has. */
static int evict_one(struct blocks *b, const struct index_object *o)
{
	AUTO_FREE char *path = blocks_data_path(b, &o->key, o->gen);
	AUTO_CLOSE int fd = -1;
	struct blob *blob;
	int r;

	if (!path)
		return -ENOMEM;
	{
		LOCKED(&b->lock);
		blob = blocks_find_locked(b, &o->key);
		if (blob && (blob->refs > 0 || blob->state == BLOB_LOADING))
			return -EBUSY;
		if (blob) {
			blocks_idle_remove_locked(blob);
			blocks_table_remove_locked(blob);
		}
	}
	blocks_free_blob(blob);
	fd = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
	if (fd < 0 && errno != ENOENT)
		return -errno;
	if (fd >= 0) {
		r = blocks_range_lock(fd, F_OFD_SETLK, F_WRLCK, USE_AT, 1);
		if (r < 0)
			return r;
	}
	r = index_drop_object(b->ix, &o->key, o->gen);
	if (r < 0 && r != -ENOENT)
		return r;
	r = blocks_unlink_files(path);
	log_debug("evicted %s, %llu bytes", path, (unsigned long long)o->bytes);
	return r;
}

/* Has the writer thread note everything that is stored by now: only what is noted can be evicted. */
static void flush(struct blocks *b)
{
	uint64_t want;

	LOCKED(&b->lock);
	if (writer_of == b || b->stopping)
		return;
	want = b->rounds_begun + 1;
	b->flush_wanted = true;
	cond_signal(&b->wake);
	while (b->rounds_done < want && !b->stopping)
		cond_wait(&b->change, &b->lock);
}

/* What may go: an object as a whole, or units of one that is open here. */
struct victim {
	int64_t used; /* in ticks */
	const struct index_object *o;
	struct blob *open; /* referenced */
};

static int older_first(const void *a, const void *b)
{
	const struct victim *x = a, *y = b;

	return x->used != y->used ? (x->used < y->used ? -1 : 1) : (x->o < y->o ? -1 : x->o > y->o);
}

/* The blob of `key`, referenced, if somebody has it open here. */
static struct blob *find_open(struct blocks *b, const struct blob_key *key)
{
	struct blob *blob;

	LOCKED(&b->lock);
	blob = blocks_find_locked(b, key);
	if (!blob || blob->refs == 0 || blob->state == BLOB_LOADING)
		return NULL;
	blob->refs++;
	return blob;
}

/* Units of an object that is not open here: all of it would be more than is wanted, or another daemon has it open. */
static uint64_t evict_part(struct blocks *b, const struct blob_key *key, uint64_t want)
{
	struct blob *blob CLEANUP(blocks_putp) = NULL;

	return blocks_get(b, key, &blob) < 0 ? 0 : blocks_evict_units(blob, want, INT64_MAX);
}

static uint64_t evict_victim(struct blocks *b, const struct victim *v, uint64_t want, int64_t before)
{
	int r;

	if (v->open)
		return blocks_evict_units(v->open, want, before);
	if (v->o->bytes > 2 * want && v->o->bytes > PART_MIN)
		return evict_part(b, &v->o->key, want);
	r = evict_one(b, v->o);
	if (r == 0)
		return v->o->bytes;
	return r == -EBUSY ? evict_part(b, &v->o->key, want) : 0;
}

/* The least recently used first: `want` bytes, if so many can go. */
static uint64_t evict_bytes(struct blocks *b, uint64_t want)
{
	AUTO_FREE struct index_object *objects = NULL;
	AUTO_FREE struct victim *victims = NULL;
	uint64_t freed = 0;
	size_t n = 0;

	if (index_objects(b->ix, &objects, &n) < 0 || !(victims = calloc(n + 1, sizeof(*victims))))
		return 0;
	for (size_t i = 0; i < n; i++) {
		victims[i] = (struct victim){.used = blocks_tick_of(objects[i].used_s), .o = &objects[i]};
		victims[i].open = find_open(b, &objects[i].key);
		if (victims[i].open)
			victims[i].used = blocks_oldest_use(victims[i].open);
	}
	qsort(victims, n, sizeof(*victims), older_first);
	for (size_t i = 0; i < n && freed < want; i++) {
		/* Of an open one only what is older than the next; the last gives what it can. */
		int64_t before = i + 1 < n && victims[i + 1].used < INT64_MAX ? victims[i + 1].used + 1 : INT64_MAX;

		freed += evict_victim(b, &victims[i], want - freed, before);
	}
	for (size_t i = 0; i < n; i++) {
		if (victims[i].open && freed < want)
			freed += blocks_evict_units(victims[i].open, want - freed, INT64_MAX);
		blocks_put(victims[i].open);
	}
	return freed;
}

void blocks_evict(struct blocks *b, uint64_t bytes, uint64_t at_least)
{
	uint64_t target, freed, want, space = blocks_space_short(b);

	{
		LOCKED(&b->lock);
		if (b->evicting) {
			/* The one who evicts may be waiting for the writer thread. */
			while (b->evicting && writer_of != b)
				cond_wait(&b->change, &b->lock);
			return;
		}
		b->evicting = true;
	}
	flush(b);
	blocks_refresh_usage(b);
	/* A sixteenth below, so that not every block evicts. */
	target = b->max_bytes - MIN(b->max_bytes, b->max_bytes / 16 + bytes);
	want = blocks_bytes_now(b) > target ? blocks_bytes_now(b) - target : 0;
	want = MAX(want, space ? space + BLOCKS_SIZE : 0);
	want = MAX(want, at_least);
	freed = evict_bytes(b, want);
	blocks_refresh_usage(b);
	atomic_store(&b->no_space, blocks_space_short(b) > 0);
	if (freed == 0)
		atomic_store(&b->full_until_ms, util_now_ms() + FULL_MS);
	LOCKED(&b->lock);
	b->evicting = false;
	cond_broadcast(&b->change);
}

int blocks_make_room(struct blocks *b, uint64_t bytes)
{
	bool tight;

	if (atomic_fetch_add(&b->since_space, bytes) >= atomic_load(&b->space_every)) {
		atomic_store(&b->since_space, 0);
		atomic_store(&b->no_space, blocks_space_short(b) > 0);
	}
	tight = atomic_load(&b->no_space);
	if (!tight && blocks_bytes_now(b) + bytes <= b->max_bytes)
		return 0;
	/* Full of what is open: looking again for each block would cost more than it brings. */
	if (util_now_ms() < atomic_load(&b->full_until_ms))
		return -ENOSPC;
	blocks_evict(b, bytes, 0);
	return !atomic_load(&b->no_space) && blocks_bytes_now(b) + bytes <= b->max_bytes ? 0 : -ENOSPC;
}

int blocks_give_way(struct blocks *b, uint64_t bytes)
{
	uint64_t before = blocks_bytes_now(b);

	if (util_now_ms() < atomic_load(&b->full_until_ms))
		return -ENOSPC;
	blocks_evict(b, 0, bytes);
	return blocks_bytes_now(b) < before ? 0 : -ENOSPC;
}

/* -- the writer thread -- */

static void serve_dirty(struct blob *blob, bool touch)
{
	struct blocks *b = blob->b;
	bool again = blocks_note_fresh(blob) == -EBUSY;

	if (touch) {
		int64_t now = time(NULL);

		atomic_store(&blob->used_s, now);
		if (index_touch(b->ix, &blob->key, now) < 0)
			log_debug("%s: its use was not noted", blob->path);
	}
	if (again)
		blocks_mark_dirty(blob);
}

/* Gives locks of units back that nobody uses, so that other daemons may evict them. */
static void let_go(struct blocks *b)
{
	for (int i = 0; i < BUCKETS; i++) {
		struct blob *held[LET_GO_MAX], *victim;
		size_t n = 0;

		{
			LOCKED(&b->lock);
			for (struct blob *blob = b->bucket[i]; blob && n < LET_GO_MAX; blob = blob->hash_next) {
				if (blob->state != BLOB_OPEN || !atomic_exchange(&blob->holding, false))
					continue;
				atomic_fetch_sub(&b->n_holding, 1);
				blocks_idle_remove_locked(blob);
				blob->refs++;
				held[n++] = blob;
			}
		}
		for (size_t k = 0; k < n; k++) {
			bool more = blocks_let_go(held[k], false) > 0;

			{
				LOCKED(&b->lock);
				if (more && !atomic_exchange(&held[k]->holding, true))
					atomic_fetch_add(&b->n_holding, 1);
				victim = blocks_unref_locked(held[k]);
			}
			blocks_free_blob(victim);
		}
	}
}

/* Is there something to do now? Else *ret_ms says when to look again (-1: when woken). */
static bool writer_due_locked(struct blocks *b, int64_t *ret_ms)
{
	*ret_ms = atomic_load(&b->n_holding) ? HOLD_MS : -1;
	if (!b->dirty)
		return b->stopping || b->flush_wanted;
	*ret_ms = b->dirty_since_ms + BEHIND_MS - util_now_ms();
	return *ret_ms <= 0 || b->stopping || b->flush_wanted ||
	       b->n_dirty >= BEHIND_BLOBS || atomic_load(&b->behind) >= BEHIND_BYTES;
}

void *blocks_writer_main(void *arg)
{
	struct blocks *b = arg;
	int64_t let_go_ms = util_now_ms() + HOLD_MS;
	bool stop = false;

	writer_of = b;
	if (index_is_new(b->ix))
		blocks_sweep(b);
	while (!stop) {
		struct blob *list;
		int64_t ms;

		{
			LOCKED(&b->lock);
			while (!writer_due_locked(b, &ms) && !(atomic_load(&b->n_holding) && util_now_ms() >= let_go_ms)) {
				if (ms < 0)
					cond_wait(&b->wake, &b->lock);
				else
					cond_wait_ms(&b->wake, &b->lock, ms);
			}
			stop = b->stopping;
			list = b->dirty;
			b->dirty = NULL;
			b->n_dirty = 0;
			b->flush_wanted = false;
			b->rounds_begun++;
		}
		while (list) {
			struct blob *blob = list, *victim;
			bool touch;

			{
				LOCKED(&b->lock);
				list = blob->dirty_next;
				blob->in_dirty = false;
				touch = blob->want_touch;
				blob->want_touch = false;
			}
			serve_dirty(blob, touch);
			{
				LOCKED(&b->lock);
				victim = blocks_unref_locked(blob);
			}
			blocks_free_blob(victim);
		}
		{
			LOCKED(&b->lock);
			b->rounds_done = b->rounds_begun;
			cond_broadcast(&b->change);
		}
		if (!stop && util_now_ms() >= let_go_ms) {
			let_go(b);
			let_go_ms = util_now_ms() + HOLD_MS;
		}
		if (!stop) {
			blocks_refresh_usage(b);
			if (blocks_make_room(b, 0) < 0)
				log_debug("the cache is full of what is open");
		}
	}
	return NULL;
}
