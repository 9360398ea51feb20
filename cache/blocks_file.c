/* blocks_file: the files of a blob, and the locks on them that daemons see of each other.
 *
 * For: opening, making and removing a data file and its map. Not for: what is in them (blocks.c), nor for
 * when they go (blocks_room.c). Any thread enters; a blob is touched by one thread alone while it is
 * loading. */
#define LOG_MODULE "blocks"
#include "blocks_int.h"

#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define MAP_MAGIC "hugfsmp3"
#define MAPS_MAX 8192
#define OPEN_TRIES 8 /* evicted between our looking it up and our opening it, so many times */

/* -- locks between daemons -- */

int blocks_range_lock(int fd, int cmd, short type, off_t start, off_t len)
{
	struct flock fl = {.l_type = type, .l_whence = SEEK_SET, .l_start = start, .l_len = len};

	while (fcntl(fd, cmd, &fl) < 0) {
		if (errno == EACCES || errno == EAGAIN)
			return -EBUSY;
		if (errno != EINTR)
			return -errno;
	}
	return 0;
}

/* -- files of a blob -- */

char *blocks_data_path(const struct blocks *b, const struct blob_key *key, uint64_t gen)
{
	const char *alg = key->alg == HASH_SHA256 ? "sha256" : "git";
	char hex[HASH_MAX_HEX];

	hash_key_hex(key, hex);
	return util_printf("%s/%.2s/%s-%s.%llx", b->obj_dir, hex, alg, hex, (unsigned long long)gen);
}

static char *map_path(const char *path)
{
	return util_printf("%s.map", path);
}

int blocks_make_folder_of(const char *path)
{
	AUTO_FREE char *dir = strdup(path);

	if (!dir)
		return -ENOMEM;
	*strrchr(dir, '/') = '\0';
	return util_mkdirs(dir);
}

/* The descriptor of the data file, locked for use; -EAGAIN: it was evicted at this moment, look again. */
static int open_data(struct blob *blob, bool *ret_created)
{
	AUTO_CLOSE int fd = open(blob->path, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
	struct stat st;
	int r;

	*ret_created = false;
	if (fd < 0 && (errno == EROFS || errno == EACCES)) {
		blob->read_only = true;
		fd = open(blob->path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	} else if (fd < 0 && errno == ENOENT) {
		r = blocks_make_folder_of(blob->path);
		if (r < 0)
			return r;
		fd = open(blob->path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
		*ret_created = true;
	}
	if (fd < 0)
		return -errno;
	r = blocks_range_lock(fd, F_OFD_SETLKW, F_RDLCK, USE_AT, 1);
	if (r < 0)
		return r;
	if (fstat(fd, &st) < 0)
		return -errno;
	if (st.st_nlink == 0)
		return -EAGAIN;
	if (!S_ISREG(st.st_mode))
		return -EIO;
	if (!is_one_block(blob) && !blob->read_only && (uint64_t)st.st_size != blob->key.size &&
	    ftruncate(fd, (off_t)blob->key.size) < 0)
		return -errno;
	return STEAL(fd);
}

/* A page of a shared map that cannot be read or written, because its disk fails, is SIGBUS to whoever touches it. It
 * becomes a page of this process alone then, all zero: nothing is present; and the blob is lost: nothing is read from or stored
 * in it until it is opened anew. */
static struct {
	_Atomic uintptr_t start, end; /* 0: free */
	atomic_bool *lost;
} maps[MAPS_MAX];
static size_t page_size;

static void on_bus(int number, siginfo_t *info, void *context)
{
	uintptr_t at = (uintptr_t)info->si_addr;
	int saved = errno;

	for (size_t i = 0; i < MAPS_MAX; i++) {
		if (at < atomic_load(&maps[i].start) || at >= atomic_load(&maps[i].end))
			continue;
		atomic_store(maps[i].lost, true); /* first: whoever sees the new page must see this */
		if (mmap((void *)(at & ~(page_size - 1)), page_size, PROT_READ | PROT_WRITE,
		         MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == MAP_FAILED)
			break;
		errno = saved;
		return;
	}
	signal(SIGBUS, SIG_DFL); /* not ours: it happens again when we return */
}

int blocks_guard_maps(void)
{
	struct sigaction act = {.sa_sigaction = on_bus, .sa_flags = SA_SIGINFO | SA_RESTART};

	page_size = (size_t)sysconf(_SC_PAGESIZE);
	return sigaction(SIGBUS, &act, NULL) < 0 ? -errno : 0;
}

/* With more maps than slots the last ones are not guarded. */
static void map_guard(struct blob *blob)
{
	for (size_t i = 0; i < MAPS_MAX; i++) {
		uintptr_t unused = 0;

		if (!atomic_compare_exchange_strong(&maps[i].start, &unused, (uintptr_t)blob->map))
			continue;
		maps[i].lost = &blob->lost;
		atomic_store(&maps[i].end, (uintptr_t)blob->map + blob->map_len);
		blob->guard = i + 1;
		return;
	}
}

static void map_unguard(struct blob *blob)
{
	if (!blob->guard)
		return;
	atomic_store(&maps[blob->guard - 1].end, 0);
	atomic_store(&maps[blob->guard - 1].start, 0);
}

static void map_set(struct blob *blob, void *map, size_t len, bool shared)
{
	blob->map = map;
	blob->map_len = len;
	blob->map_shared = shared;
	blob->present = (void *)((char *)map + sizeof(struct map));
	blob->crc = (void *)(blob->present + blob->n_segs);
	blob->unit_used = blob->crc + blob->n_blocks;
	if (shared)
		map_guard(blob);
}

static void map_fill(struct blob *blob, const struct index_known *known)
{
	bool all;

	for (size_t i = 0; i < known->n; i++) {
		const struct index_seg *seg = &known->segs[i];

		if (seg->seg >= blob->n_segs)
			continue;
		for (uint64_t k = 0; k < 64 && seg->seg * 64 + k < blob->n_blocks; k++)
			atomic_store(&blob->crc[seg->seg * 64 + k], seg->crc[k]);
		atomic_store(&blob->present[seg->seg], seg->present & seg_mask(blob, seg->seg));
	}
	for (uint64_t u = 0; u < blob->n_units; u++)
		atomic_store(&blob->unit_used[u], (uint32_t)MIN(blocks_tick_of(known->used_s), UINT32_MAX));
	all = all_present(blob);
	blob->map->stamp = known->stamp;
	atomic_store(&blob->map->verified, known->verified && all);
}

/* A map of this process alone. */
static int map_private(struct blob *blob, const struct index_known *known)
{
	size_t len = map_bytes(blob);
	void *map = calloc(1, len);

	if (!map)
		return -ENOMEM;
	map_set(blob, map, len, false);
	if (known)
		map_fill(blob, known);
	return 0;
}

/* INIT is held: makes the file a map of this boot and generation, filled from the index, if it is none. */
static int map_shared_init(struct blob *blob, int fd, size_t len, const struct index_known *known)
{
	struct stat st;
	struct map *map;
	int r;

	if (fstat(fd, &st) < 0)
		return -errno;
	if ((size_t)st.st_size != len) {
		/* Nobody has it mapped: all daemons of this boot agree on its length. */
		if (ftruncate(fd, 0) < 0)
			return -errno;
		/* A store into a hole on a full disk would be SIGBUS. */
		r = posix_fallocate(fd, 0, (off_t)len);
		if (r != 0)
			return -r;
	}
	map = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (map == MAP_FAILED)
		return -errno;
	map_set(blob, map, len, true);
	if (memcmp(map->magic, MAP_MAGIC, sizeof(map->magic)) != 0 || map->gen != blob->gen ||
	    map->n_blocks != blob->n_blocks || memcmp(map->boot, blob->b->boot, sizeof(map->boot)) != 0) {
		memset(map, 0, len);
		map_fill(blob, known);
		map->gen = blob->gen;
		map->n_blocks = blob->n_blocks;
		memcpy(map->boot, blob->b->boot, sizeof(map->boot));
		memcpy(map->magic, MAP_MAGIC, sizeof(map->magic));
	}
	return 0;
}

static int map_shared(struct blob *blob, const struct index_known *known)
{
	size_t len = map_bytes(blob);
	AUTO_FREE char *path = map_path(blob->path);
	AUTO_CLOSE int fd = -1;
	int r;

	if (!path)
		return -ENOMEM;
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return -errno;
	r = blocks_range_lock(blob->fd, F_OFD_SETLKW, F_WRLCK, INIT_AT, 1);
	if (r < 0)
		return r;
	r = map_shared_init(blob, fd, len, known);
	if (blocks_range_lock(blob->fd, F_OFD_SETLK, F_UNLCK, INIT_AT, 1) < 0)
		log_debug("%s: unlocking", path);
	return r;
}

/* Is the one block of this blob on disk, whatever the index says? Another daemon, or we before a crash, may
 * have put it there. */
void blocks_find_one_block(struct blob *blob)
{
	size_t len = (size_t)blob->key.size;
	AUTO_FREE uint8_t *buf = NULL;
	struct blob_key got;
	struct stat st;

	if (bit_get(blob->present, 0) || fstat(blob->fd, &st) < 0 || (uint64_t)st.st_size != len)
		return;
	buf = malloc(len);
	if (!buf || util_pread_all(blob->fd, buf, len, 0) != (ssize_t)len ||
	    hash_buf(blob->key.alg, buf, len, &got) < 0 || !hash_key_equal(&got, &blob->key))
		return;
	atomic_store(&blob->crc[0], hash_crc32c(0, buf, len));
	bit_set(blob->checked, 0);
	bit_set(blob->present, 0);
	atomic_store(&blob->map->verified, 1);
}

/* Blocks in the shared map that the index does not know, left by a daemon that was killed: they are noted
 * by us. */
static void find_unnoted(struct blob *blob, const struct index_known *known)
{
	size_t i = 0;

	for (uint64_t s = 0; s < blob->n_segs; s++) {
		uint64_t bits = atomic_load(&blob->present[s]) & seg_mask(blob, s);

		while (i < known->n && known->segs[i].seg < s)
			i++;
		if (i < known->n && known->segs[i].seg == s)
			bits &= ~known->segs[i].present;
		atomic_store(&blob->fresh[s], bits);
		for (; bits; bits &= bits - 1)
			atomic_fetch_add(&blob->b->behind, block_len(blob, s * 64 + lowest_bit(bits)));
	}
}

/* Without the shared map we would not see that another daemon evicts parts of it: it may not, and what the index says is read
 * when that is sure. */
static int open_unshared(struct blob *blob, struct index_known *known)
{
	int r = 0;

	if (!is_one_block(blob)) {
		r = blocks_range_lock(blob->fd, F_OFD_SETLKW, F_RDLCK, UNIT_AT, (off_t)blob->n_units);
		index_known_fini(known);
		if (r == 0)
			r = index_load(blob->b->ix, &blob->key, known);
	}
	return r < 0 ? r : map_private(blob, known);
}

static int blob_open_files(struct blob *blob)
{
	struct blocks *b = blob->b;
	struct index_known known = {0};
	bool created = false;
	int r = -EAGAIN;

	for (int i = 0; i < OPEN_TRIES; i++) {
		uint64_t gen;

		index_known_fini(&known);
		r = index_load(b->ix, &blob->key, &known);
		if (r < 0)
			break;
		blob->gen = known.gen;
		atomic_store(&blob->used_s, known.used_s);
		free(blob->path);
		blob->path = blocks_data_path(b, &blob->key, blob->gen);
		r = blob->path ? open_data(blob, &created) : -ENOMEM;
		if (r < 0 && r != -EAGAIN)
			break;
		if (r < 0)
			continue;
		blob->fd = r;
		r = 0;
		if (!created)
			break;
		/* Its row may have been dropped before our file was there to be locked. */
		gen = known.gen;
		index_known_fini(&known);
		r = index_load(b->ix, &blob->key, &known);
		if (r < 0 || known.gen == gen)
			break;
		unlink(blob->path);
		util_closep(&blob->fd);
		r = -EAGAIN;
	}
	if (r < 0) {
		index_known_fini(&known);
		util_closep(&blob->fd);
		return r;
	}
	r = -EOPNOTSUPP;
	if (!is_one_block(blob) && !blob->read_only && b->have_boot)
		r = map_shared(blob, &known);
	if (r == 0) {
		find_unnoted(blob, &known);
		blob->units = calloc(blob->n_units, sizeof(*blob->units));
		blob->windows = calloc(blob->n_units, sizeof(*blob->windows));
		blob->filled = calloc(blob->n_units, sizeof(*blob->filled));
		r = blob->units && blob->windows && blob->filled ? 0 : -ENOMEM;
	} else {
		r = open_unshared(blob, &known);
	}
	if (r == 0 && is_one_block(blob))
		blocks_find_one_block(blob);
	else if (r == 0 && !blocks_check_verified(blob))
		log_debug("%s is not verified", blob->path);
	index_known_fini(&known);
	return r;
}

/* Fills in a blob that is still loading. Without a disk it is a blob in which nothing is present nor
 * stored. */
int blocks_open_blob(struct blob *blob)
{
	int r;

	blob->n_blocks = (blob->key.size + BLOCKS_SIZE - 1) / BLOCKS_SIZE;
	blob->n_segs = (blob->n_blocks + 63) / 64;
	blob->n_units = (blob->n_blocks + UNIT_BLK - 1) / UNIT_BLK;
	blob->checked = calloc(3 * blob->n_segs + 1, sizeof(*blob->checked));
	if (!blob->checked)
		return -ENOMEM;
	blob->fresh = blob->checked + blob->n_segs;
	blob->pending = blob->fresh + blob->n_segs;
	if (blob->n_blocks == 0)
		return map_private(blob, NULL);
	r = blob_open_files(blob);
	if (r == 0 || r == -ENOMEM)
		return r;
	log_warn("%s: %s: it is served without the cache", blob->path ? blob->path : blob->b->obj_dir,
	         strerror(-r));
	return map_private(blob, NULL);
}

void blocks_free_blob(struct blob *blob)
{
	if (!blob)
		return;
	if (atomic_load(&blob->holding))
		atomic_fetch_sub(&blob->b->n_holding, 1);
	map_unguard(blob);
	if (blob->map && blob->map_shared)
		munmap(blob->map, blob->map_len);
	else
		free(blob->map);
	hash_free(blob->hash);
	util_closep(&blob->fd);
	free(blob->checked);
	for (uint64_t u = 0; blob->windows && u < blob->n_units; u++)
		blocks_window_close(blob, u);
	free(blob->windows);
	free(blob->filled);
	free(blob->units);
	lock_fini(&blob->hold_lock);
	free(blob->path);
	free(blob);
}

int blocks_unlink_files(const char *path)
{
	AUTO_FREE char *map = map_path(path);

	if (!map)
		return -ENOMEM;
	if (unlink(map) < 0 && errno != ENOENT)
		return -errno;
	if (unlink(path) < 0 && errno != ENOENT)
		return -errno;
	return 0;
}

/* -- files without a blob -- */

/* Data files that an empty index does not know: older than it, and nobody has them open. */
static void sweep_folder(struct blocks *b, const char *dir)
{
	DIR *d = opendir(dir);
	struct dirent *e;

	if (!d)
		return;
	while ((e = readdir(d))) {
		AUTO_CLOSE int fd = -1;
		struct stat st;

		if (e->d_name[0] == '.')
			continue;
		fd = openat(dirfd(d), e->d_name, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
		if (fd < 0 || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || st.st_ctime >= b->started ||
		    blocks_range_lock(fd, F_OFD_SETLK, F_WRLCK, USE_AT, 1) < 0)
			continue;
		if (unlinkat(dirfd(d), e->d_name, 0) < 0)
			log_debug("%s/%s: %s", dir, e->d_name, strerror(errno));
	}
	closedir(d);
}

void blocks_sweep(struct blocks *b)
{
	for (int i = 0; i < 256; i++) {
		AUTO_FREE char *dir = util_printf("%s/%02x", b->obj_dir, i);
		bool stop;

		{
			LOCKED(&b->lock);
			stop = b->stopping;
		}
		if (!dir || stop)
			return;
		sweep_folder(b, dir);
	}
}
