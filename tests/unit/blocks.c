/* Tests of cache/blocks.c. Two stores on one folder stand for two daemons: their locks belong to open
 * files. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "blocks.h"

#define MIB ((size_t)1 << 20)

static char dir[256];

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	return remove(path);
}

static int setup(void **state)
{
	const char *tmp = getenv("TMPDIR");

	snprintf(dir, sizeof(dir), "%s/hugfs-blocks-XXXXXX", tmp ? tmp : "/tmp");
	return mkdtemp(dir) ? 0 : -1;
}

static int teardown(void **state)
{
	return nftw(dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

struct store {
	struct index *ix;
	struct blocks *b;
};

static void store_open(struct store *s, uint64_t max_bytes)
{
	struct blocks_opts opts = {.dir = dir, .max_bytes = max_bytes, .min_free = 1};

	assert_int_equal(index_open(dir, &s->ix), 0);
	assert_int_equal(blocks_new(&opts, s->ix, &s->b), 0);
}

static void store_close(struct store *s)
{
	blocks_free(s->b);
	index_close(s->ix);
}

/* Content that is different everywhere, and its key. */
static uint8_t *content(unsigned seed, size_t size, struct blob_key *ret)
{
	uint8_t *data = malloc(size + 8);
	uint64_t x = seed * 0x9e3779b97f4a7c15u + 1;

	assert_non_null(data);
	for (size_t i = 0; i < size; i += 8) {
		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
		memcpy(data + i, &x, 8);
	}
	assert_int_equal(hash_buf(HASH_SHA256, data, size, ret), 0);
	return data;
}

static size_t len_of(size_t size, uint64_t block)
{
	return MIN(MIB, size - block * MIB);
}

static int put_block(struct blob *blob, const uint8_t *data, uint64_t block)
{
	return blocks_store(blob, block, data + block * MIB, len_of(blocks_key(blob)->size, block));
}

static void fill(struct blob *blob, const uint8_t *data)
{
	uint64_t n = (blocks_key(blob)->size + MIB - 1) / MIB;

	for (uint64_t k = 0; k < n; k++)
		assert_int_equal(put_block(blob, data, k), 0);
}

static void assert_reads(struct blob *blob, const uint8_t *data, uint64_t off, size_t len)
{
	uint8_t *buf = malloc(len + 1);

	assert_int_equal(blocks_read(blob, off, buf, len), len);
	assert_memory_equal(buf, data + off, len);
	free(buf);
}

static struct blob *get(struct store *s, const struct blob_key *key)
{
	struct blob *blob = NULL;

	assert_int_equal(blocks_get(s->b, key, &blob), 0);
	return blob;
}

static void data_file(struct store *s, const struct blob_key *key, char out[400])
{
	struct index_known k = {0};
	char hex[HASH_MAX_HEX];

	assert_int_equal(index_load(s->ix, key, &k), 0);
	hash_key_hex(key, hex);
	snprintf(out, 400, "%s/obj/%.2s/sha256-%s.%llx", dir, hex, hex, (unsigned long long)k.gen);
	index_known_fini(&k);
}

/* Lends it, as soon as the writer thread has hashed it: pinned until blocks_lend_end. */
static void lend(struct blob *blob)
{
	int fd = -1;

	for (int i = 0; i < 2000 && blocks_lend(blob, &fd) < 0; i++)
		usleep(5000);
	assert_true(fd >= 0);
}

static void assert_lends(struct blob *blob)
{
	lend(blob);
	blocks_lend_end(blob);
}

static void test_fill_and_remount(void **state)
{
	size_t size = 3 * MIB + 1000;
	struct blob_key key;
	uint8_t *data = content(1, size, &key), byte;
	struct store s;
	struct blob *blob;

	store_open(&s, 0);
	blob = get(&s, &key);
	assert_false(blocks_has(blob, 0, 1));
	assert_int_equal(blocks_read(blob, 0, &byte, 1), -EAGAIN);
	assert_int_equal(put_block(blob, data, 1), 0);
	assert_true(blocks_has(blob, MIB, MIB));
	assert_false(blocks_has(blob, MIB, MIB + 1));
	assert_int_equal(blocks_first_missing(blob, 1, 4), 2);
	assert_false(blocks_complete(blob));
	assert_reads(blob, data, MIB + 5, 1000);
	fill(blob, data);
	assert_true(blocks_complete(blob));
	assert_reads(blob, data, 0, size);
	assert_int_equal(blocks_read(blob, size, &byte, 1), 0);
	assert_int_equal(blocks_read(blob, size - 1, &byte, 100), 1);
	blocks_put(blob);
	store_close(&s);

	store_open(&s, 0);
	blob = get(&s, &key);
	assert_true(blocks_complete(blob));
	assert_reads(blob, data, 0, size);
	blocks_put(blob);
	store_close(&s);
	free(data);
}

/* After a reboot the shared map counts for nothing: only the index does. */
static void test_reboot(void **state)
{
	size_t size = 3 * MIB;
	struct blob_key key;
	uint8_t *data = content(2, size, &key), zero[16] = {0};
	char path[400], map[410];
	struct store s;
	struct blob *blob;
	int fd;

	store_open(&s, 0);
	blob = get(&s, &key);
	assert_int_equal(put_block(blob, data, 0), 0);
	blocks_put(blob);
	store_close(&s);
	store_open(&s, 0);
	data_file(&s, &key, path);
	snprintf(map, sizeof(map), "%s.map", path);
	fd = open(map, O_RDWR | O_CLOEXEC);
	assert_true(fd >= 0);
	assert_int_equal(util_pwrite_all(fd, zero, 16, 8), 0); /* the boot id */
	assert_int_equal(util_pwrite_all(fd, "\xff", 1, 64), 0); /* the bits claim everything */
	close(fd);
	blob = get(&s, &key);
	assert_true(blocks_has(blob, 0, MIB));
	assert_false(blocks_has(blob, MIB, 1));
	assert_reads(blob, data, 0, MIB);
	blocks_put(blob);
	store_close(&s);
	free(data);
}

static void damage(const char *path, off_t off, bool hole)
{
	uint8_t byte;
	int fd = open(path, O_RDWR | O_CLOEXEC);

	assert_true(fd >= 0);
	if (hole) {
		int mode = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;

		assert_int_equal(fallocate(fd, mode, off, (off_t)MIB), 0);
	} else {
		assert_int_equal(pread(fd, &byte, 1, off), 1);
		byte ^= 1;
		assert_int_equal(pwrite(fd, &byte, 1, off), 1);
	}
	close(fd);
}

static void test_damage_is_caught(void **state)
{
	size_t size = 4 * MIB;
	struct blob_key key, small_key;
	uint8_t *data = content(3, size, &key), *small = content(4, 5000, &small_key), byte;
	char path[400], small_path[400];
	struct store s;
	struct blob *blob;

	store_open(&s, 0);
	blob = get(&s, &key);
	fill(blob, data);
	blocks_put(blob);
	blob = get(&s, &small_key);
	fill(blob, small);
	blocks_put(blob);
	data_file(&s, &key, path);
	data_file(&s, &small_key, small_path);
	store_close(&s);

	damage(path, (off_t)MIB + 77, false);
	damage(path, 2 * (off_t)MIB, true);
	assert_int_equal(truncate(small_path, 100), 0);
	store_open(&s, 0);
	blob = get(&s, &key);
	assert_reads(blob, data, 0, MIB);
	assert_int_equal(blocks_read(blob, MIB, &byte, 1), -EAGAIN);
	assert_int_equal(blocks_read(blob, 2 * MIB, &byte, 1), -EAGAIN);
	assert_false(blocks_has(blob, MIB, 1));
	assert_false(blocks_complete(blob));
	assert_int_equal(put_block(blob, data, 1), 0);
	assert_int_equal(put_block(blob, data, 2), 0);
	assert_reads(blob, data, 0, size);
	assert_lends(blob);
	blocks_put(blob);
	blob = get(&s, &small_key);
	assert_int_equal(blocks_read(blob, 0, &byte, 1), -EAGAIN);
	fill(blob, small);
	assert_reads(blob, small, 0, 5000);
	blocks_put(blob);
	store_close(&s);
	free(data);
	free(small);
}

static void test_wrong_bytes(void **state)
{
	size_t size = 3 * MIB;
	struct blob_key key, small_key;
	uint8_t *data = content(5, size, &key), *small = content(6, 10, &small_key);
	struct store s;
	struct blob *blob;

	store_open(&s, 0);
	blob = get(&s, &key);
	data[MIB] ^= 1;
	assert_int_equal(put_block(blob, data, 0), 0);
	assert_int_equal(put_block(blob, data, 2), 0);
	assert_int_equal(put_block(blob, data, 1), -EBADMSG);
	assert_false(blocks_has(blob, 0, 1));
	assert_false(blocks_has(blob, 2 * MIB, 1));
	data[MIB] ^= 1;
	fill(blob, data);
	assert_true(blocks_complete(blob));
	assert_reads(blob, data, 0, size);
	blocks_put(blob);

	blob = get(&s, &small_key);
	small[0] ^= 1;
	assert_int_equal(blocks_store(blob, 0, small, 10), -EBADMSG);
	assert_false(blocks_has(blob, 0, 1));
	blocks_put(blob);
	store_close(&s);
	free(data);
	free(small);
}

/* The last two blocks come at the same moment, one of them wrong: no reader ever finds them all. */
struct last {
	struct blob *blob;
	const uint8_t *data;
	uint64_t block;
	pthread_barrier_t *start;
	atomic_bool *seen_all;
	int r;
};

static void *store_last(void *arg)
{
	struct last *l = arg;

	pthread_barrier_wait(l->start);
	l->r = put_block(l->blob, l->data, l->block);
	if (l->r == 0 && blocks_has(l->blob, 0, 4 * MIB))
		atomic_store(l->seen_all, true);
	return NULL;
}

static void test_last_blocks_at_once(void **state)
{
	size_t size = 4 * MIB;
	struct blob_key key;
	uint8_t *data = content(17, size, &key);
	atomic_bool seen_all = false;
	pthread_barrier_t start;
	struct store s;
	struct blob *blob;

	store_open(&s, 0);
	blob = get(&s, &key);
	data[3 * MIB + 7] ^= 1;
	pthread_barrier_init(&start, NULL, 2);
	for (unsigned round = 1; round <= 60; round++) {
		struct last l[2];
		pthread_t threads[2];

		assert_int_equal(put_block(blob, data, 0), 0);
		assert_int_equal(put_block(blob, data, 1), 0);
		for (unsigned i = 0; i < 2; i++) {
			l[i] = (struct last){blob, data, 2 + i, &start, &seen_all, 0};
			assert_int_equal(pthread_create(&threads[i], NULL, store_last, &l[i]), 0);
		}
		for (unsigned i = 0; i < 2; i++)
			pthread_join(threads[i], NULL);
		assert_true(l[0].r == -EBADMSG || l[1].r == -EBADMSG);
		assert_false(atomic_load(&seen_all));
		assert_int_equal(blocks_mismatches(blob), round);
	}
	assert_true(blocks_was_wrong(s.b, &key));
	pthread_barrier_destroy(&start);
	data[3 * MIB + 7] ^= 1;
	fill(blob, data);
	assert_true(blocks_complete(blob));
	blocks_put(blob);
	store_close(&s);
	free(data);
}

/* A blob that came together out of order is hashed by a thread of its own. */
static void test_hash_behind(void **state)
{
	size_t size = 20 * MIB;
	struct blob_key key;
	uint8_t *data = content(7, size, &key);
	struct store s;
	struct blob *blob;

	store_open(&s, 0);
	blob = get(&s, &key);
	for (uint64_t k = 20; k-- > 0;)
		assert_int_equal(put_block(blob, data, k), 0);
	for (int i = 0; i < 1000 && !blocks_complete(blob); i++)
		usleep(10000);
	assert_true(blocks_complete(blob));
	blocks_put(blob);
	store_close(&s);
	free(data);
}

static void test_empty(void **state)
{
	struct blob_key key;
	uint8_t *data = content(0, 0, &key);
	struct store s;
	struct blob *blob;
	char byte;

	store_open(&s, 0);
	blob = get(&s, &key);
	assert_true(blocks_complete(blob));
	assert_true(blocks_has(blob, 0, 10));
	assert_int_equal(blocks_read(blob, 0, &byte, 1), 0);
	blocks_put(blob);
	store_close(&s);
	free(data);
}

static void test_eviction(void **state)
{
	size_t size = 4 * MIB;
	struct blob_key key[4];
	uint8_t *data[4];
	struct blocks_stats stats;
	struct store s, other;
	struct blob *open_blob, *there, *blob;

	for (unsigned i = 0; i < 4; i++)
		data[i] = content(10 + i, size, &key[i]);
	store_open(&s, 13 * MIB);
	store_open(&other, 13 * MIB);
	for (int i = 0; i < 3; i++) {
		blob = get(&s, &key[i]);
		fill(blob, data[i]);
		blocks_put(blob);
	}
	/* The oldest is lent here, the second in another daemon: the third has to go. */
	assert_int_equal(index_touch(s.ix, &key[0], 1000), 0);
	assert_int_equal(index_touch(s.ix, &key[1], 2000), 0);
	assert_int_equal(index_touch(s.ix, &key[2], 3000), 0);
	open_blob = get(&s, &key[0]);
	lend(open_blob);
	there = get(&other, &key[1]);
	lend(there);
	blob = get(&s, &key[3]);
	fill(blob, data[3]);
	assert_reads(open_blob, data[0], 0, size);
	assert_reads(there, data[1], 0, size);
	assert_reads(blob, data[3], 0, size);
	blocks_stats(s.b, &stats);
	assert_true(stats.bytes <= 13 * MIB);
	blocks_put(blob);
	blob = get(&s, &key[2]);
	assert_false(blocks_has(blob, 0, 1));
	/* Now all that is left is lent: the store refuses, and what is lent stays. */
	blocks_put(blob);
	blob = get(&s, &key[3]);
	lend(blob);
	{
		struct blob *last = get(&s, &key[2]);
		int r = blocks_claim(last, 0, 4); /* what is being filled stays, too */

		for (uint64_t k = 0; k < 4 && r == 0; k++)
			r = put_block(last, data[2], k);
		assert_int_equal(r, -ENOSPC);
		blocks_unclaim(last, 0, 4);
		blocks_put(last);
	}
	assert_reads(open_blob, data[0], 0, size);
	blocks_lend_end(blob);
	blocks_put(blob);
	blocks_lend_end(there);
	blocks_put(there);
	blocks_lend_end(open_blob);
	blocks_put(open_blob);
	store_close(&other);
	store_close(&s);
	for (int i = 0; i < 4; i++)
		free(data[i]);
}

static uint64_t blocks_on_disk(const char *path)
{
	struct stat st;

	assert_int_equal(stat(path, &st), 0);
	return (uint64_t)st.st_blocks * 512 / MIB;
}

/* Blocks that this daemon wrote and that another one evicted are not hashed as the holes that they are now. */
static void test_gone_elsewhere(void **state)
{
	size_t size = 12 * MIB;
	struct blob_key key;
	uint8_t *data = content(121, size, &key);
	struct store s, other;
	struct blob *blob, *there;

	store_open(&s, 0);
	store_open(&other, 0);
	blob = get(&s, &key);
	there = get(&other, &key);
	fill(blob, data);
	assert_lends(blob);
	/* Some seconds later we let go of it. */
	for (int i = 0; i < 2000 && blocks_has(blob, 0, 1); i++) {
		usleep(5000);
		if (blocks_give_way(other.b, 1) == -ENOSPC)
			continue; /* nothing could go yet */
	}
	assert_int_equal(blocks_first_missing(blob, 0, 8), 0);
	for (uint64_t k = 0; k < 12; k++)
		assert_int_equal(put_block(blob, data, k), 0);
	assert_lends(blob);
	assert_int_equal(blocks_mismatches(blob), 0);
	blocks_put(blob);
	blocks_put(there);
	store_close(&other);
	store_close(&s);
	free(data);
}

/* A blob that is larger than the cache: what was read longest ago goes, while it is open, here and in another daemon. */
static void test_parts_go(void **state)
{
	size_t size = 70 * MIB + 7;
	struct blob_key key;
	uint8_t *data = content(120, size, &key), byte;
	struct blocks_stats stats;
	struct store s, other;
	struct blob *blob, *there;
	char path[400];

	store_open(&s, 33 * MIB);
	store_open(&other, 33 * MIB);
	blob = get(&s, &key);
	there = get(&other, &key);
	data_file(&s, &key, path);
	for (uint64_t k = 0; k < 71; k++) {
		assert_int_equal(put_block(blob, data, k), 0);
		if (k < 10)
			assert_reads(there, data, k * MIB, len_of(size, k));
	}
	blocks_stats(s.b, &stats);
	assert_true(stats.bytes <= 33 * MIB);
	assert_true(blocks_on_disk(path) <= 34);
	/* What the other daemon has just read stays; some seconds later it lets go of that. */
	assert_reads(blob, data, 0, MIB);
	assert_reads(there, data, 0, MIB);
	for (int i = 0; i < 2000 && blocks_has(blob, 0, 1); i++) {
		uint64_t k = blocks_first_missing(blob, 16, 69);

		usleep(5000);
		assert_int_equal(put_block(blob, data, k), 0);
	}
	/* The last ones are there, and are right; the first are not, for nobody. */
	assert_int_equal(put_block(blob, data, 69), 0);
	assert_int_equal(put_block(blob, data, 70), 0);
	assert_reads(blob, data, 69 * MIB, MIB + 7);
	assert_reads(there, data, 69 * MIB, MIB + 7);
	assert_int_equal(blocks_read(blob, 0, &byte, 1), -EAGAIN);
	assert_int_equal(blocks_read(there, 0, &byte, 1), -EAGAIN);
	assert_int_equal(put_block(blob, data, 0), 0);
	assert_reads(there, data, 0, MIB);
	blocks_put(blob);
	blocks_put(there);
	store_close(&other);
	store_close(&s);
	/* What the index says is what is there. */
	store_open(&s, 33 * MIB);
	blob = get(&s, &key);
	for (uint64_t k = 0; k < 71; k++)
		if (blocks_has(blob, k * MIB, 1))
			assert_reads(blob, data, k * MIB, len_of(size, k));
	assert_true(blocks_has(blob, 0, MIB));
	blocks_put(blob);
	store_close(&s);
	free(data);
}

static void test_two_daemons(void **state)
{
	size_t size = 4 * MIB;
	struct blob_key key, small_key;
	uint8_t *data = content(20, size, &key), *small = content(21, 100, &small_key);
	struct store s, other;
	struct blob *here, *there;

	store_open(&s, 0);
	store_open(&other, 0);
	here = get(&s, &key);
	there = get(&other, &key);
	assert_int_equal(blocks_claim(here, 0, 2), 0);
	assert_int_equal(blocks_claim(there, 1, 2), -EBUSY);
	assert_int_equal(blocks_claim(there, 2, 2), 0);
	blocks_unclaim(there, 2, 2);
	assert_int_equal(blocks_wait_claim(there, 0, 1, 30), -ETIMEDOUT);
	assert_int_equal(put_block(here, data, 0), 0);
	/* The bit is seen at once, before the claim ends and before the index knows. */
	assert_int_equal(blocks_wait_claim(there, 0, 1, 1000), 0);
	assert_reads(there, data, 0, MIB);
	assert_int_equal(put_block(here, data, 1), 0);
	blocks_unclaim(here, 0, 2);
	assert_int_equal(blocks_claim(there, 1, 2), -EALREADY);
	assert_int_equal(blocks_claim(there, 2, 2), 0);
	assert_int_equal(put_block(there, data, 2), 0);
	assert_int_equal(put_block(there, data, 3), 0);
	blocks_unclaim(there, 2, 2);
	assert_true(blocks_complete(there));
	assert_true(blocks_complete(here));
	assert_reads(here, data, 0, size);
	blocks_put(here);
	blocks_put(there);

	here = get(&s, &small_key);
	there = get(&other, &small_key);
	assert_int_equal(blocks_claim(here, 0, 1), 0);
	assert_int_equal(blocks_claim(there, 0, 1), -EBUSY);
	assert_int_equal(put_block(here, small, 0), 0);
	blocks_unclaim(here, 0, 1);
	assert_int_equal(blocks_claim(there, 0, 1), -EALREADY);
	assert_reads(there, small, 0, 100);
	blocks_put(here);
	blocks_put(there);
	store_close(&other);
	store_close(&s);
	free(data);
	free(small);
}

static void write_file(const char *path, const uint8_t *data, size_t size)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	assert_true(fd >= 0);
	assert_int_equal(util_pwrite_all(fd, data, size, 0), 0);
	close(fd);
}

static void test_adopt(void **state)
{
	static const size_t sizes[] = {0, 10, 3 * MIB + 5};
	struct store s;
	char path[300];

	snprintf(path, sizeof(path), "%s/staged", dir);
	store_open(&s, 0);
	for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
		for (int part = 0; part < 3; part++) {
			struct blob_key key;
			uint8_t *data = content((unsigned)(30 + 3 * i + (size_t)part), sizes[i], &key);
			struct blob *blob = NULL;

			write_file(path, data, sizes[i]);
			if (part > 0)
				blob = get(&s, &key);
			if (part == 2 && sizes[i])
				assert_int_equal(put_block(blob, data, sizes[i] / MIB), 0);
			assert_int_equal(blocks_adopt(s.b, &key, path), 0);
			assert_int_equal(unlink(path), 0); /* it stayed; the store does not need it */
			if (!blob)
				blob = get(&s, &key);
			assert_true(blocks_complete(blob));
			assert_reads(blob, data, 0, sizes[i]);
			blocks_put(blob);
			free(data);
		}
	}
	store_close(&s);
	store_open(&s, 0);
	for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
		struct blob_key key;
		uint8_t *data = content((unsigned)(30 + 3 * i), sizes[i], &key);
		struct blob *blob = get(&s, &key);

		if (sizes[i] > MIB)
			assert_lends(blob); /* one name of it went since: it is checked again */
		assert_true(blocks_complete(blob));
		assert_reads(blob, data, 0, sizes[i]);
		blocks_put(blob);
		free(data);
	}
	{
		struct blob_key key;
		uint8_t *data = content(60, 10, &key);

		write_file(path, data, 9);
		assert_int_equal(blocks_adopt(s.b, &key, path), -EINVAL);
		assert_int_equal(access(path, F_OK), 0);
		free(data);
	}
	store_close(&s);
}

/* The index is set aside: what lay there is not trusted, and its files go. */
static void test_lost_index(void **state)
{
	size_t size = 3 * MIB;
	struct blob_key key;
	uint8_t *data = content(70, size, &key), byte;
	char path[400], ix_path[300];
	struct store s;
	struct blob *blob;
	struct stat st;

	store_open(&s, 0);
	blob = get(&s, &key);
	fill(blob, data);
	blocks_put(blob);
	data_file(&s, &key, path);
	store_close(&s);
	assert_int_equal(stat(path, &st), 0);
	snprintf(ix_path, sizeof(ix_path), "%s/index.db", dir);
	assert_int_equal(unlink(ix_path), 0);
	/* The sweep spares files of the second in which it starts. */
	while (time(NULL) <= st.st_ctime)
		usleep(20000);
	store_open(&s, 0);
	blob = get(&s, &key);
	assert_int_equal(blocks_read(blob, 0, &byte, 1), -EAGAIN);
	fill(blob, data);
	assert_reads(blob, data, 0, size);
	for (int i = 0; i < 500 && access(path, F_OK) == 0; i++)
		usleep(10000);
	assert_int_equal(access(path, F_OK), -1);
	assert_reads(blob, data, 0, size);
	blocks_put(blob);
	store_close(&s);
	free(data);
}

/* kill -9 while blocks are being filled: what the next one finds present is right. */
static void test_kill(void **state)
{
	size_t size = 24 * MIB;
	struct blob_key key;
	uint8_t *data = content(80, size, &key);

	for (int round = 0; round < 8; round++) {
		struct store s;
		struct blob *blob;
		int status, pipefd[2];
		unsigned found = 0;
		char go;
		pid_t pid;

		assert_int_equal(pipe2(pipefd, O_CLOEXEC), 0);
		pid = fork();
		if (pid == 0) {
			store_open(&s, 0);
			blob = get(&s, &key);
			for (uint64_t k = 0; k < 24; k++) {
				uint64_t at = (k * 7 + (uint64_t)round) % 24;

				if (put_block(blob, data, at) < 0)
					_exit(1);
				if (k == 3 + (uint64_t)round && write(pipefd[1], "x", 1) != 1)
					_exit(1);
			}
			pause();
			_exit(0);
		}
		assert_int_equal(read(pipefd[0], &go, 1), 1);
		usleep(1000 * (useconds_t)round);
		kill(pid, SIGKILL);
		assert_int_equal(waitpid(pid, &status, 0), pid);
		close(pipefd[0]);
		close(pipefd[1]);
		if (round % 2) { /* as if the machine had gone down: maps are gone */
			char path[400], map[410];

			store_open(&s, 0);
			data_file(&s, &key, path);
			snprintf(map, sizeof(map), "%s.map", path);
			assert_int_equal(unlink(map), 0);
			store_close(&s);
		}
		store_open(&s, 0);
		blob = get(&s, &key);
		for (uint64_t k = 0; k < 24; k++) {
			if (!blocks_has(blob, k * MIB, 1))
				continue;
			found++;
			assert_reads(blob, data, k * MIB, MIB);
		}
		assert_true(found > 3); /* the first round's at least: noted when the store was closed */
		assert_int_equal(blocks_claim(blob, 0, 24), -EALREADY);
		blocks_put(blob);
		store_close(&s);
	}
	free(data);
}

/* Threads that fill, read, open and close at once. */
struct crowd {
	struct store s;
	struct blob_key key[4];
	uint8_t *data[4];
	size_t size;
	atomic_int bad;
};

static void *crowd_main(void *arg)
{
	struct crowd *c = arg;
	uint8_t *buf = malloc(c->size);
	unsigned seed = (unsigned)(uintptr_t)pthread_self();

	for (int i = 0; i < 300 && !atomic_load(&c->bad); i++) {
		int which = rand_r(&seed) % 4;
		uint64_t n = (c->size + MIB - 1) / MIB, k = (uint64_t)rand_r(&seed) % n;
		struct blob *blob = NULL;
		ssize_t got;

		if (blocks_get(c->s.b, &c->key[which], &blob) < 0) {
			atomic_store(&c->bad, 1);
			break;
		}
		got = blocks_read(blob, k * MIB, buf, len_of(c->size, k));
		if (got == -EAGAIN) {
			int r = put_block(blob, c->data[which], k);

			if (r < 0 && r != -ENOSPC)
				atomic_store(&c->bad, 2);
		} else if (got != (ssize_t)len_of(c->size, k) ||
		           memcmp(buf, c->data[which] + k * MIB, (size_t)got) != 0) {
			atomic_store(&c->bad, 3);
		}
		blocks_put(blob);
	}
	free(buf);
	return NULL;
}

static void test_threads(void **state)
{
	struct crowd c = {.size = 5 * MIB + 3};
	pthread_t threads[6];

	store_open(&c.s, 17 * MIB); /* so that there is eviction, too */
	for (unsigned i = 0; i < 4; i++)
		c.data[i] = content(90 + i, c.size, &c.key[i]);
	for (int i = 0; i < 6; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, crowd_main, &c), 0);
	for (int i = 0; i < 6; i++)
		pthread_join(threads[i], NULL);
	assert_int_equal(atomic_load(&c.bad), 0);
	store_close(&c.s);
	for (int i = 0; i < 4; i++)
		free(c.data[i]);
}

/* A file is lent when it is complete and was hashed as it is now. */
static void test_lend(void **state)
{
	size_t size = 3 * MIB + 5;
	struct blob_key key;
	uint8_t *data = content(110, size, &key);
	struct timespec times[2];
	struct store s;
	struct blob *blob;
	struct stat st;
	char path[400];
	int fd = -1;

	store_open(&s, 0);
	blob = get(&s, &key);
	for (uint64_t k = 0; k < 3; k++)
		assert_int_equal(put_block(blob, data, k), 0);
	assert_int_equal(blocks_lend(blob, &fd), -EAGAIN);
	assert_int_equal(put_block(blob, data, 3), 0);
	assert_lends(blob);
	blocks_put(blob);
	store_close(&s);

	/* That is remembered, */
	store_open(&s, 0);
	blob = get(&s, &key);
	assert_int_equal(blocks_lend(blob, &fd), 0);
	blocks_lend_end(blob);
	/* but not when somebody wrote into it, even if its times were put back: it is hashed again. */
	data_file(&s, &key, path);
	assert_int_equal(stat(path, &st), 0);
	times[0] = st.st_atim;
	times[1] = st.st_mtim;
	damage(path, (off_t)MIB + 7, false);
	assert_int_equal(utimensat(AT_FDCWD, path, times, 0), 0);
	assert_int_equal(blocks_lend(blob, &fd), -EAGAIN);
	for (int i = 0; i < 2000 && blocks_has(blob, MIB, 1); i++)
		usleep(5000);
	assert_false(blocks_has(blob, MIB, 1));
	assert_int_equal(blocks_lend(blob, &fd), -EAGAIN);
	assert_int_equal(put_block(blob, data, 1), 0);
	assert_lends(blob);
	blocks_put(blob);
	store_close(&s);
	free(data);
}

/* Below the floor of free space nothing more is stored, and what is there goes. */
static void test_floor(void **state)
{
	struct blocks_opts opts = {.dir = dir, .min_free = (uint64_t)1 << 60};
	struct blob_key key, other_key;
	uint8_t *data = content(150, 3 * MIB, &key), *other = content(151, 3 * MIB, &other_key);
	struct store s;
	struct blob *blob;

	store_open(&s, 0);
	blob = get(&s, &key);
	fill(blob, data);
	blocks_put(blob);
	store_close(&s);

	assert_int_equal(index_open(dir, &s.ix), 0);
	assert_int_equal(blocks_new(&opts, s.ix, &s.b), 0);
	blob = get(&s, &other_key);
	assert_int_equal(put_block(blob, other, 0), -ENOSPC);
	blocks_put(blob);
	blob = get(&s, &key);
	assert_false(blocks_has(blob, 0, 1));
	blocks_put(blob);
	store_close(&s);
	free(data);
	free(other);
}

static void test_look(void **state)
{
	size_t size = 18 * MIB + 5;
	struct blob_key key;
	uint8_t *data = content(140, size, &key);
	const void *seen = NULL;
	struct store s;
	struct blob *blob;

	store_open(&s, 0);
	blob = get(&s, &key);
	assert_int_equal(put_block(blob, data, 0), 0);
	assert_int_equal(blocks_look(blob, 0, MIB, &seen), -EAGAIN); /* not complete */
	fill(blob, data);
	assert_lends(blob);
	for (uint64_t off = 0; off + MIB <= size; off += MIB) {
		assert_int_equal(blocks_look(blob, off + 3, MIB - 3, &seen), 0);
		assert_memory_equal(seen, data + off + 3, MIB - 3);
		blocks_look_end(blob, off + 3, MIB - 3);
	}
	assert_int_equal(blocks_look(blob, 0, 4096, &seen), -EAGAIN);            /* small */
	assert_int_equal(blocks_look(blob, 8 * MIB - 5, MIB, &seen), -EAGAIN);   /* across units */
	assert_int_equal(blocks_look(blob, size - MIB + 1, MIB, &seen), -EAGAIN); /* past the end */
	blocks_put(blob);
	store_close(&s);

	/* A byte that was changed is found at the first look of a mount, too. */
	store_open(&s, 0);
	{
		char path[400];

		data_file(&s, &key, path);
		damage(path, 9 * (off_t)MIB + 9, false);
	}
	blob = get(&s, &key);
	assert_int_equal(blocks_look(blob, 9 * MIB, MIB, &seen), -EAGAIN);
	blocks_put(blob);
	store_close(&s);
	free(data);
}

/* The disk does not give back a page of the map: that is no end of the process, nor a wrong byte. */
static void test_lost_map(void **state)
{
	size_t size = 3 * MIB;
	struct blob_key key;
	uint8_t *data = content(130, size, &key), byte;
	char path[400], map[410];
	struct store s;
	struct blob *blob;

	store_open(&s, 0);
	blob = get(&s, &key);
	assert_int_equal(put_block(blob, data, 0), 0);
	data_file(&s, &key, path);
	snprintf(map, sizeof(map), "%s.map", path);
	assert_int_equal(truncate(map, 0), 0);
	assert_int_equal(blocks_read(blob, 0, &byte, 1), -EAGAIN);
	assert_false(blocks_has(blob, 0, 1));
	assert_int_equal(put_block(blob, data, 0), -EIO);
	assert_int_equal(put_block(blob, data, 1), -EIO);
	assert_false(blocks_complete(blob));
	blocks_put(blob);
	store_close(&s);
	/* It is opened anew. */
	store_open(&s, 0);
	blob = get(&s, &key);
	fill(blob, data);
	assert_reads(blob, data, 0, size);
	blocks_put(blob);
	store_close(&s);
	free(data);
}

static void test_no_disk(void **state)
{
	struct blob_key key;
	uint8_t *data = content(100, 3 * MIB, &key);
	char path[300];
	struct store s;
	struct blob *blob;

	/* Where the folder of data files should be there is a file. */
	snprintf(path, sizeof(path), "%s/obj", dir);
	write_file(path, data, 1);
	store_open(&s, 0);
	blob = get(&s, &key);
	assert_int_equal(blocks_claim(blob, 0, 1), 0);
	assert_true(put_block(blob, data, 0) < 0);
	assert_false(blocks_has(blob, 0, 1));
	blocks_put(blob);
	store_close(&s);
	free(data);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_fill_and_remount, setup, teardown),
		cmocka_unit_test_setup_teardown(test_reboot, setup, teardown),
		cmocka_unit_test_setup_teardown(test_damage_is_caught, setup, teardown),
		cmocka_unit_test_setup_teardown(test_wrong_bytes, setup, teardown),
		cmocka_unit_test_setup_teardown(test_last_blocks_at_once, setup, teardown),
		cmocka_unit_test_setup_teardown(test_hash_behind, setup, teardown),
		cmocka_unit_test_setup_teardown(test_empty, setup, teardown),
		cmocka_unit_test_setup_teardown(test_eviction, setup, teardown),
		cmocka_unit_test_setup_teardown(test_parts_go, setup, teardown),
		cmocka_unit_test_setup_teardown(test_gone_elsewhere, setup, teardown),
		cmocka_unit_test_setup_teardown(test_two_daemons, setup, teardown),
		cmocka_unit_test_setup_teardown(test_adopt, setup, teardown),
		cmocka_unit_test_setup_teardown(test_lost_index, setup, teardown),
		cmocka_unit_test_setup_teardown(test_kill, setup, teardown),
		cmocka_unit_test_setup_teardown(test_threads, setup, teardown),
		cmocka_unit_test_setup_teardown(test_lend, setup, teardown),
		cmocka_unit_test_setup_teardown(test_floor, setup, teardown),
		cmocka_unit_test_setup_teardown(test_look, setup, teardown),
		cmocka_unit_test_setup_teardown(test_lost_map, setup, teardown),
		cmocka_unit_test_setup_teardown(test_no_disk, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
