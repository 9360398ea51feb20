/* blocks: the block store: bytes of blobs on disk.
 *
 * For: which bytes are on disk, proof that they are right, room for more. Not for: where bytes come from
 * (fetch.c).
 *
 * Any thread enters; one writer thread of its own writes the index behind, hashes what became complete and
 * evicts.
 *
 * A blob's files: the sparse data file, and beside it a small map of presence bits and checksums that all
 * daemons of this boot share. The map outlives a kill -9 (its pages are the kernel's) but is not trusted
 * after a reboot: then it is filled from the index, which names only what was synced before. A blob of one
 * block has no map: its content id proves the block, which is noted in the index at once.
 *
 * States of a block: missing -> present (data written, checksum and bit in the map; readable by all
 * daemons) -> noted (synced, and in the index). `checked` says that this process wrote it or compared its
 * checksum. States of a blob: loading -> open (refs > 0) -> idle (refs 0, kept for the next open) -> freed.
 * A stale blob has lost its index row (the index was set aside): it serves who has it and goes with its
 * last reference.
 *
 * Locks between daemons, byte ranges of an open file description on the data file, far behind any data: USE
 * shared while a blob is open or idle here, exclusive to evict all of it; UNIT + unit while blocks of it are read or stored, and
 * some seconds longer, exclusive to evict it (blocks_pin.c); INIT while the map is being made; CLAIM
 * + block while a block is being filled. */
#define LOG_MODULE "blocks"
#include "blocks_int.h"

#include <assert.h>
#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

_Static_assert(BLOCKS_SIZE == INDEX_BLOCK, "the index counts in the same blocks");

#define IDLE_MAX 64       /* each keeps a descriptor and a mapping */
#define TOUCH_S 60        /* last use is noted this exactly */
#define CLAIM_POLL_MS 10  /* the kernel cannot wait for a lock with a limit */

/* -- the table of blobs -- */

static struct blob **bucket_of(struct blocks *b, const struct blob_key *key)
{
	return &b->bucket[hash_key_u64(key) % BUCKETS];
}

struct blob *blocks_find_locked(struct blocks *b, const struct blob_key *key)
{
	for (struct blob *blob = *bucket_of(b, key); blob; blob = blob->hash_next)
		if (hash_key_equal(&blob->key, key))
			return blob;
	return NULL;
}

void blocks_table_remove_locked(struct blob *blob)
{
	struct blob **p = bucket_of(blob->b, &blob->key);

	if (!blob->in_table)
		return;
	while (*p != blob)
		p = &(*p)->hash_next;
	*p = blob->hash_next;
	blob->in_table = false;
}

void blocks_idle_remove_locked(struct blob *blob)
{
	struct blocks *b = blob->b;

	if (!blob->in_idle)
		return;
	*(blob->idle_prev ? &blob->idle_prev->idle_next : &b->idle_first) = blob->idle_next;
	*(blob->idle_next ? &blob->idle_next->idle_prev : &b->idle_last) = blob->idle_prev;
	blob->idle_prev = blob->idle_next = NULL;
	blob->in_idle = false;
	b->n_idle--;
}

/* Drops a reference. A blob that this makes superfluous is answered: the caller frees it without the lock. */
struct blob *blocks_unref_locked(struct blob *blob)
{
	struct blocks *b = blob->b;
	struct blob *victim = NULL;

	assert(blob->refs > 0);
	if (--blob->refs > 0)
		return NULL;
	/* What failed is tried again at the next open. */
	if (blob->stale || blob->fd < 0 || atomic_load(&blob->lost) || atomic_load(&blob->sick)) {
		blocks_table_remove_locked(blob);
		return blob;
	}
	blob->in_idle = true;
	blob->idle_prev = b->idle_last;
	*(b->idle_last ? &b->idle_last->idle_next : &b->idle_first) = blob;
	b->idle_last = blob;
	if (++b->n_idle > IDLE_MAX) {
		victim = b->idle_first;
		blocks_idle_remove_locked(victim);
		blocks_table_remove_locked(victim);
	}
	return victim;
}

void blocks_gone_stale(struct blob *blob)
{
	int r;

	{
		LOCKED(&blob->b->lock);
		if (blob->stale)
			return;
		blob->stale = true;
		blocks_table_remove_locked(blob);
	}
	r = blocks_unlink_files(blob->path);
	if (r < 0)
		log_debug("%s: %s", blob->path, strerror(-r));
}

/* Called when a blob was opened: what there is to do about it later? */
static void blob_opened_locked(struct blob *blob)
{
	bool unnoted = false;

	if (blob->fd < 0 || blob->n_blocks == 0)
		return;
	if (time(NULL) - atomic_load(&blob->used_s) >= TOUCH_S)
		blob->want_touch = true;
	if (!atomic_load(&blob->map->verified) && all_present(blob))
		blocks_hash_queue_locked(blob);
	for (uint64_t s = 0; s < blob->n_segs && !unnoted; s++)
		unnoted = atomic_load(&blob->fresh[s]);
	if (blob->want_touch || unnoted)
		blocks_mark_dirty_locked(blob);
}

/* Enters `key` into the table as loading, for this thread to fill in; or answers who is there
 * (referenced). */
static struct blob *enter(struct blocks *b, const struct blob_key *key, bool *ret_mine)
{
	struct blob *blob, *made = calloc(1, sizeof(*made));

	LOCKED(&b->lock);
	while ((blob = blocks_find_locked(b, key)) && blob->state == BLOB_LOADING)
		cond_wait(&b->change, &b->lock);
	*ret_mine = !blob;
	if (blob) {
		free(made);
		blocks_idle_remove_locked(blob);
		blob->refs++;
		blob_opened_locked(blob);
		return blob;
	}
	if (!made)
		return NULL;
	*made = (struct blob){.b = b, .key = *key, .fd = -1, .refs = 1, .in_table = true};
	lock_init(&made->hold_lock, LOCK_BLOCKS);
	made->state = BLOB_LOADING;
	atomic_init(&made->mismatches, blocks_wrong_times_locked(b, key));
	made->hash_next = *bucket_of(b, key);
	*bucket_of(b, key) = made;
	return made;
}

/* Ends the loading of a blob that enter() gave us. */
static void entered(struct blob *blob, int r)
{
	struct blocks *b = blob->b;

	lock_take(&b->lock);
	blob->state = BLOB_OPEN;
	if (r < 0)
		blocks_table_remove_locked(blob);
	else
		blob_opened_locked(blob);
	cond_broadcast(&b->change);
	lock_drop(&b->lock);
	if (r < 0)
		blocks_free_blob(blob);
}

int blocks_get(struct blocks *b, const struct blob_key *key, struct blob **ret)
{
	bool mine = false;
	struct blob *blob;
	int r;

	if (key->size > (uint64_t)INT64_MAX / 4)
		return -EFBIG;
	blob = enter(b, key, &mine);
	if (!blob)
		return -ENOMEM;
	if (mine) {
		r = blocks_open_blob(blob);
		entered(blob, r);
		if (r < 0)
			return r;
	}
	*ret = blob;
	return 0;
}

struct blob *blocks_ref(struct blob *blob)
{
	LOCKED(&blob->b->lock);
	assert(blob->refs > 0);
	blob->refs++;
	return blob;
}

void blocks_put(struct blob *blob)
{
	struct blob *victim;

	if (!blob)
		return;
	{
		LOCKED(&blob->b->lock);
		victim = blocks_unref_locked(blob);
	}
	blocks_free_blob(victim);
}

void blocks_putp(struct blob **blob)
{
	blocks_put(*blob);
	*blob = NULL;
}

const struct blob_key *blocks_key(const struct blob *blob)
{
	return &blob->key;
}

/* -- reading -- */

bool blocks_has(struct blob *blob, uint64_t off, uint64_t len)
{
	uint64_t end;

	if (len == 0 || off >= blob->key.size)
		return true;
	end = (off + MIN(len, blob->key.size - off) - 1) / BLOCKS_SIZE + 1;
	return blocks_first_missing(blob, off / BLOCKS_SIZE, end) == end;
}

uint64_t blocks_first_missing(struct blob *blob, uint64_t from, uint64_t end)
{
	end = MIN(end, blob->n_blocks);
	for (uint64_t k = from; k < end; k++)
		if (!bit_get(blob->present, k))
			return k;
	return from < end && atomic_load(&blob->lost) ? from : end;
}

bool blocks_ready(struct blob *blob, uint64_t first, uint64_t last)
{
	for (uint64_t k = first; k <= last; k++)
		if (!bit_get(blob->present, k) || (!bit_get(blob->checked, k) && blocks_check(blob, k) < 0))
			return false;
	return true;
}

/* Blocks [first, last] are pinned. */
static ssize_t read_pinned(struct blob *blob, uint64_t first, uint64_t last, uint64_t off, void *buf, size_t len)
{
	ssize_t got;

	if (!blocks_ready(blob, first, last))
		return -EAGAIN;
	got = util_pread_all(blob->fd, buf, len, off);
	if (got == (ssize_t)len)
		return got;
	atomic_store(&blob->sick, true);
	for (uint64_t k = first; k <= last; k++)
		blocks_drop(blob, k, got < 0 ? strerror((int)-got) : "was cut off");
	return -EAGAIN;
}

ssize_t blocks_read(struct blob *blob, uint64_t off, void *buf, size_t len)
{
	uint64_t first, last;
	ssize_t got;

	if (len == 0 || off >= blob->key.size)
		return 0;
	len = (size_t)MIN(len, blob->key.size - off);
	first = off / BLOCKS_SIZE;
	last = (off + len - 1) / BLOCKS_SIZE;
	/* Most that is not there is known without a pin. */
	if (blocks_first_missing(blob, first, last + 1) <= last || blocks_pin(blob, first, last) < 0)
		return -EAGAIN;
	got = read_pinned(blob, first, last, off, buf, len);
	blocks_unpin(blob, first, last);
	return got;
}

bool blocks_complete(struct blob *blob)
{
	return blob->n_blocks == 0 ||
	       (atomic_load(&blob->map->verified) && all_present(blob) && !atomic_load(&blob->lost));
}

/* -- filling -- */

static int write_block(struct blob *blob, uint64_t block, const void *data, size_t len)
{
	int r = util_pwrite_all(blob->fd, data, len, block * BLOCKS_SIZE);

	if ((r == -ENOSPC || r == -EDQUOT) && util_now_ms() >= atomic_load(&blob->b->full_until_ms)) {
		blocks_evict(blob->b, len, SPACE_EVERY);
		r = util_pwrite_all(blob->fd, data, len, block * BLOCKS_SIZE);
	}
	if (r < 0 && r != -ENOSPC && r != -EDQUOT && !atomic_exchange(&blob->sick, true))
		log_warn("%s: %s: nothing more is stored in it", blob->path, strerror(-r));
	return r;
}

/* The data lies there: all but its presence is known. */
static void block_written(struct blob *blob, uint64_t block, uint32_t crc)
{
	atomic_store(&blob->crc[block], crc);
	atomic_store(&blob->unit_used[block / UNIT_BLK], blocks_tick());
	bit_set(blob->checked, block);
}

static void block_arrived(struct blob *blob, uint64_t block)
{
	atomic_fetch_add(&blob->b->behind, block_len(blob, block));
	bit_set(blob->present, block);
	if (!bit_set(blob->fresh, block))
		atomic_fetch_sub(&blob->b->behind, block_len(blob, block));
}

static int store_one_block(struct blob *blob, const void *data, size_t len)
{
	struct blob_key got = {0};
	int r = hash_buf(blob->key.alg, data, len, &got);

	if (r < 0)
		return r;
	if (!hash_key_equal(&got, &blob->key)) {
		char hex[HASH_MAX_HEX];

		hash_key_hex(&blob->key, hex);
		log_warn("%s: the bytes that arrived do not have this hash", hex);
		blocks_count_wrong(blob);
		return -EBADMSG;
	}
	if (bit_get(blob->present, 0))
		return 0;
	if (blob->fd < 0 || blob->read_only)
		return -EROFS;
	if (atomic_load(&blob->sick))
		return -EIO;
	r = blocks_make_room(blob->b, len);
	if (r == 0)
		r = write_block(blob, 0, data, len);
	if (r < 0)
		return r;
	block_written(blob, 0, hash_crc32c(0, data, len));
	block_arrived(blob, 0);
	r = blocks_note_fresh(blob);
	if (r == 0)
		r = blocks_set_verified(blob);
	if (r < 0)
		blocks_mark_dirty(blob);
	return 0;
}

/* Pinned, for what is evicted meanwhile becomes a hole. */
static int store_pinned(struct blob *blob, uint64_t block, const void *data, size_t len)
{
	int r = write_block(blob, block, data, len);

	if (r < 0)
		return r;
	block_written(blob, block, hash_crc32c(0, data, len));
	bit_set(blob->pending, block);
	r = blocks_hash_last(blob, block, data);
	if (r == 0)
		block_arrived(blob, block);
	bit_clear(blob->pending, block);
	return r;
}

int blocks_store(struct blob *blob, uint64_t block, const void *data, size_t len)
{
	int r;

	assert(block < blob->n_blocks && len == block_len(blob, block));
	if (is_one_block(blob))
		return store_one_block(blob, data, len);
	if (bit_get(blob->present, block) && !atomic_load(&blob->lost))
		return 0;
	if (blob->fd < 0 || blob->read_only)
		return -EROFS;
	if (atomic_load(&blob->sick) || atomic_load(&blob->lost))
		return -EIO;
	r = blocks_make_room(blob->b, len);
	if (r == 0)
		r = blocks_pin(blob, block, block);
	if (r < 0)
		return r;
	r = store_pinned(blob, block, data, len);
	blocks_unpin(blob, block, block);
	if (r < 0)
		return r;
	blocks_hash_stored(blob, block);
	blocks_mark_dirty(blob);
	return 0;
}

/* -- claims -- */

int blocks_claim(struct blob *blob, uint64_t first, uint64_t n)
{
	int r;

	if (blob->fd < 0 || blob->read_only)
		return 0;
	r = blocks_range_lock(blob->fd, F_OFD_SETLK, F_WRLCK, CLAIM_AT + (off_t)first, (off_t)n);
	if (r == -EBUSY)
		return r;
	if (r < 0) {
		log_debug("%s: claiming: %s", blob->path, strerror(-r));
		return 0;
	}
	if (is_one_block(blob))
		blocks_find_one_block(blob);
	for (uint64_t k = first; k < first + n; k++) {
		if (bit_get(blob->present, k)) {
			blocks_unclaim(blob, first, n);
			return -EALREADY;
		}
	}
	return 0;
}

void blocks_unclaim(struct blob *blob, uint64_t first, uint64_t n)
{
	if (blob->fd < 0 || blob->read_only)
		return;
	if (blocks_range_lock(blob->fd, F_OFD_SETLK, F_UNLCK, CLAIM_AT + (off_t)first, (off_t)n) < 0)
		log_debug("%s: unclaiming", blob->path);
}

int blocks_wait_claim(struct blob *blob, uint64_t first, uint64_t n, int ms)
{
	int64_t until = util_now_ms() + ms;
	struct timespec pause = {.tv_nsec = CLAIM_POLL_MS * 1000000L};

	if (blob->fd < 0 || blob->read_only)
		return 0;
	for (;;) {
		struct flock fl = {.l_type = F_WRLCK, .l_whence = SEEK_SET,
		                   .l_start = CLAIM_AT + (off_t)first, .l_len = (off_t)n};

		if (blocks_first_missing(blob, first, first + n) == MIN(first + n, blob->n_blocks))
			return 0;
		if (fcntl(blob->fd, F_OFD_GETLK, &fl) < 0 || fl.l_type == F_UNLCK)
			return 0;
		if (util_now_ms() >= until)
			return -ETIMEDOUT;
		nanosleep(&pause, NULL);
	}
}

/* -- adoption -- */

/* Fills what is missing from the file. */
static int adopt_copy(struct blob *blob, int fd)
{
	AUTO_FREE uint8_t *buf = malloc(BLOCKS_SIZE);
	int r = 0;

	if (!buf)
		return -ENOMEM;
	for (uint64_t k = 0; r == 0 && k < blob->n_blocks; k++) {
		size_t len = (size_t)block_len(blob, k);
		ssize_t got;

		if (bit_get(blob->present, k))
			continue;
		got = util_pread_all(fd, buf, len, k * BLOCKS_SIZE);
		if (got != (ssize_t)len)
			return got < 0 ? (int)got : -EIO;
		r = blocks_store(blob, k, buf, len);
	}
	return r;
}

/* The file was linked into its place: reads it once, for the checksums. All of it is pinned. */
static int adopt_in_place(struct blob *blob)
{
	AUTO_FREE uint8_t *buf = malloc(BLOCKS_SIZE);

	if (!buf)
		return -ENOMEM;
	for (uint64_t k = 0; k < blob->n_blocks; k++) {
		size_t len = (size_t)block_len(blob, k);
		ssize_t got = util_pread_all(blob->fd, buf, len, k * BLOCKS_SIZE);

		if (got != (ssize_t)len)
			return got < 0 ? (int)got : -EIO;
		if (bit_get(blob->present, k))
			continue;
		block_written(blob, k, hash_crc32c(0, buf, len));
		block_arrived(blob, k);
	}
	blocks_mark_dirty(blob);
	return blocks_set_verified(blob);
}

/* 0: `path` is the data file, too. -EEXIST: there is one already. */
static int adopt_link(struct blob *blob, const char *path)
{
	struct index_known known = {0};
	AUTO_FREE char *data = NULL;
	int r = index_load(blob->b->ix, &blob->key, &known);

	if (r < 0)
		return r;
	data = blocks_data_path(blob->b, &blob->key, known.gen);
	r = !data ? -ENOMEM : known.n ? -EEXIST : blocks_make_folder_of(data);
	index_known_fini(&known);
	if (r < 0)
		return r;
	return link(path, data) < 0 ? -errno : 0;
}

int blocks_adopt(struct blocks *b, const struct blob_key *key, const char *path)
{
	AUTO_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	struct blob *blob CLEANUP(blocks_putp) = NULL;
	struct blob *entering;
	bool mine = false, linked = false;
	struct stat st;
	int r;

	if (fd < 0)
		return -errno;
	if (fstat(fd, &st) < 0)
		return -errno;
	if (!S_ISREG(st.st_mode) || (uint64_t)st.st_size != key->size)
		return -EINVAL;
	entering = enter(b, key, &mine);
	if (!entering)
		return -ENOMEM;
	if (mine) {
		linked = key->size > 0 && adopt_link(entering, path) == 0;
		r = blocks_open_blob(entering);
		if (r == 0 && linked)
			r = blocks_pin(entering, 0, entering->n_blocks - 1);
		if (r == 0 && linked) {
			r = adopt_in_place(entering);
			blocks_unpin(entering, 0, entering->n_blocks - 1);
		}
		entered(entering, r);
		if (r < 0)
			return r;
	}
	blob = entering;
	if (!linked) {
		r = adopt_copy(blob, fd);
		if (r < 0)
			return r;
	}
	if (blocks_make_room(b, 0) < 0)
		log_debug("the cache is over its size");
	return 0;
}

/* -- life -- */

static bool read_boot_id(uint8_t boot[16])
{
	AUTO_FREE char *text = NULL;
	char hex[33] = "";
	size_t len = 0, n = 0;

	if (util_read_file("/proc/sys/kernel/random/boot_id", 4096, &text, &len) < 0)
		return false;
	for (size_t i = 0; i < len && n < 32; i++)
		if (text[i] != '-')
			hex[n++] = text[i];
	return n == 32 && util_unhex(hex, boot, 16) == 0;
}

/* The folder must be ours alone: what lies in it is shown as the Hub's content. */
static int check_owner(const char *dir)
{
	struct stat st;

	if (stat(dir, &st) < 0)
		return -errno;
	if (!S_ISDIR(st.st_mode))
		return -ENOTDIR;
	if (st.st_uid != geteuid()) {
		log_err("the cache %s belongs to another user: choose one with -o cache_dir=", dir);
		return -EPERM;
	}
	if ((st.st_mode & 077) && chmod(dir, 0700) < 0)
		log_warn("the cache %s is open to others and cannot be closed: %s", dir, strerror(errno));
	return 0;
}

static void set_limits(struct blocks *b, const struct blocks_opts *opts)
{
	struct statvfs st;

	b->max_bytes = opts->max_bytes ? opts->max_bytes : (uint64_t)50 << 30;
	b->min_free = opts->min_free;
	if (!b->min_free) {
		b->min_free = (uint64_t)2 << 30;
		if (statvfs(opts->dir, &st) == 0)
			b->min_free = MIN(b->min_free, (uint64_t)st.f_blocks * st.f_frsize / 20);
	}
}

int blocks_new(const struct blocks_opts *opts, struct index *ix, struct blocks **ret)
{
	struct blocks *b;
	int r = util_mkdirs(opts->dir);

	if (r < 0)
		return r;
	r = check_owner(opts->dir);
	if (r < 0)
		return r;
	b = calloc(1, sizeof(*b));
	if (!b)
		return -ENOMEM;
	lock_init(&b->lock, LOCK_BLOCKS);
	cond_init(&b->wake);
	cond_init(&b->change);
	cond_init(&b->hash_wake);
	b->hash_queue_end = &b->hash_queue;
	b->ix = ix;
	b->started = time(NULL);
	b->have_boot = read_boot_id(b->boot);
	b->obj_dir = util_printf("%s/obj", opts->dir);
	if (!b->obj_dir) {
		blocks_free(b);
		return -ENOMEM;
	}
	r = util_mkdirs(b->obj_dir);
	if (r < 0)
		log_warn("%s: %s: nothing will be cached", b->obj_dir, strerror(-r));
	set_limits(b, opts);
	if (blocks_guard_maps() < 0)
		log_debug("maps are not guarded");
	blocks_refresh_usage(b);
	atomic_store(&b->no_space, blocks_space_short(b) > 0);
	r = -pthread_create(&b->writer, NULL, blocks_writer_main, b);
	if (r < 0) {
		blocks_free(b);
		return r;
	}
	b->writer_runs = true;
	r = -pthread_create(&b->hasher, NULL, blocks_hash_main, b);
	if (r < 0) {
		blocks_free(b);
		return r;
	}
	b->hasher_runs = true;
	*ret = b;
	return 0;
}

void blocks_free(struct blocks *b)
{
	if (!b)
		return;
	if (b->hasher_runs) {
		lock_take(&b->lock);
		b->hash_stop = true;
		cond_signal(&b->hash_wake);
		lock_drop(&b->lock);
		pthread_join(b->hasher, NULL);
	}
	/* What is not proven yet is proven in another life. */
	for (struct blob *blob = b->hash_queue, *next; blob; blob = next) {
		struct blob *victim;

		next = blob->hash_queue_next;
		lock_take(&b->lock);
		victim = blocks_unref_locked(blob);
		lock_drop(&b->lock);
		blocks_free_blob(victim);
	}
	if (b->writer_runs) {
		lock_take(&b->lock);
		b->stopping = true;
		cond_signal(&b->wake);
		cond_broadcast(&b->change);
		lock_drop(&b->lock);
		pthread_join(b->writer, NULL);
	}
	/* What another daemon's lock on the index kept from being noted. */
	while (b->dirty) {
		struct blob *blob = b->dirty, *victim;

		b->dirty = blob->dirty_next;
		lock_take(&b->lock);
		victim = blocks_unref_locked(blob);
		lock_drop(&b->lock);
		blocks_free_blob(victim);
	}
	while (b->idle_first) {
		struct blob *blob = b->idle_first;

		blocks_idle_remove_locked(blob);
		blocks_table_remove_locked(blob);
		blocks_free_blob(blob);
	}
	for (int i = 0; i < BUCKETS; i++)
		assert(!b->bucket[i]);
	blocks_wrong_free(b);
	cond_fini(&b->wake);
	cond_fini(&b->hash_wake);
	cond_fini(&b->change);
	lock_fini(&b->lock);
	free(b->obj_dir);
	free(b);
}

void blocks_stats(struct blocks *b, struct blocks_stats *ret)
{
	*ret = (struct blocks_stats){
		.bytes = blocks_bytes_now(b),
		.max_bytes = b->max_bytes,
		.objects = atomic_load(&b->objects),
	};
}
