/* Tests of cache/fetch.c on a Hub of this file: it defines the only call that fetch.c makes,
 * hub_read_range, so that the linker never takes hub.c from the library. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <pthread.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fetch.h"
#include "lock.h"
#include "readahead.h"

#define MIB ((size_t)1 << 20)

static char dir[256];

/* -- the Hub -- */

#define CALLS_MAX 4096
struct call {
	uint64_t off, len;
	char path[16];
};
static struct {
	struct lock lock;
	struct cond change;
	struct call calls[CALLS_MAX];
	unsigned n_calls, waiting, running, most_running;
	uint64_t bytes;    /* delivered */
	uint64_t gate;     /* no byte at or after this offset is delivered; ~0: no gate */
	size_t piece;      /* bytes per call of the sink */
	bool wrong;        /* deliver wrong bytes */
	unsigned wrong_left; /* ... only in so many calls; 0: in all */
	int fail;          /* answer of places named "bad" */
	uint64_t cut_at;   /* -EIO when it comes to this offset; ~0: never */
	unsigned stalled;  /* the number of the call (from 1) that gets no byte until it is cancelled; 0: none */
	const uint8_t *data;
} hub;

static void hub_reset(const uint8_t *data)
{
	hub.n_calls = hub.waiting = hub.running = hub.most_running = 0;
	hub.bytes = 0;
	hub.gate = hub.cut_at = ~(uint64_t)0;
	hub.piece = 100000;
	hub.wrong = false;
	hub.wrong_left = hub.stalled = 0;
	hub.fail = -EACCES;
	hub.data = data;
}

static int serve(unsigned number, uint64_t off, uint64_t len, bool wrong, http_sink sink, void *arg,
                 atomic_bool *cancel)
{
	uint8_t *buf = malloc(hub.piece);
	int r = 0;

	while (len && r == 0) {
		size_t n = (size_t)MIN(len, hub.piece);

		lock_take(&hub.lock);
		hub.waiting++;
		cond_broadcast(&hub.change);
		while ((off + n > hub.gate || number == hub.stalled) && !atomic_load(cancel))
			cond_wait_ms(&hub.change, &hub.lock, 20);
		hub.waiting--;
		if (off + n > hub.cut_at)
			r = -EIO;
		else
			hub.bytes += n;
		lock_drop(&hub.lock);
		if (atomic_load(cancel))
			r = -ECANCELED;
		if (r < 0)
			break;
		memcpy(buf, hub.data + off, n);
		if (wrong)
			buf[0] ^= 1;
		r = sink(arg, buf, n);
		off += n;
		len -= n;
	}
	free(buf);
	return r;
}

int hub_read_range(struct hub *h, const struct hub_place *place, const struct blob_key *key, uint64_t off,
                   uint64_t len, http_sink sink, void *arg, atomic_bool *cancel, struct hub_error *err)
{
	unsigned number;
	bool wrong;
	int r;

	lock_take(&hub.lock);
	if (hub.n_calls < CALLS_MAX) {
		hub.calls[hub.n_calls] = (struct call){.off = off, .len = len};
		snprintf(hub.calls[hub.n_calls].path, sizeof(hub.calls->path), "%.15s", place->path);
		hub.n_calls++;
	}
	number = hub.n_calls;
	wrong = hub.wrong;
	if (hub.wrong && hub.wrong_left && --hub.wrong_left == 0)
		hub.wrong = false;
	r = strncmp(place->path, "bad", 3) == 0 ? hub.fail : 0;
	hub.running++;
	hub.most_running = MAX(hub.most_running, hub.running);
	cond_broadcast(&hub.change);
	lock_drop(&hub.lock);
	if (r == 0)
		r = serve(number, off, len, wrong, sink, arg, cancel);
	lock_take(&hub.lock);
	hub.running--;
	cond_broadcast(&hub.change);
	lock_drop(&hub.lock);
	return r;
}

static void gate(uint64_t off)
{
	lock_take(&hub.lock);
	hub.gate = off;
	cond_broadcast(&hub.change);
	lock_drop(&hub.lock);
}

static void wait_calls(unsigned n)
{
	lock_take(&hub.lock);
	while (hub.n_calls < n)
		cond_wait(&hub.change, &hub.lock);
	lock_drop(&hub.lock);
}

/* All calls from number `i` (from 0) on are for what is read ahead at or behind `off`. */
static void assert_calls_from(unsigned i, uint64_t off)
{
	LOCKED(&hub.lock);

	for (; i < hub.n_calls; i++)
		assert_true(hub.calls[i].off >= off);
}

static void wait_idle(void)
{
	lock_take(&hub.lock);
	while (hub.running)
		cond_wait(&hub.change, &hub.lock);
	lock_drop(&hub.lock);
}

/* -- fixtures -- */

struct bench {
	struct index *ix;
	struct blocks *b;
	struct hfcache *hf;
	struct fetch *f;
	struct blob_key key;
	uint8_t *data;
	struct source *s;
};

static struct hub_place place_of(const char *path)
{
	struct hub_place p = {.id = {.type = REPO_MODEL, .ns = "user", .name = "repo"}, .path = path};

	memset(p.commit, 'a', 40);
	return p;
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	return remove(path);
}

static int setup(void **state)
{
	const char *tmp = getenv("TMPDIR");

	snprintf(dir, sizeof(dir), "%s/hugfs-fetch-XXXXXX", tmp ? tmp : "/tmp");
	return mkdtemp(dir) ? 0 : -1;
}

static int teardown(void **state)
{
	return nftw(dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

static void bench_start(struct bench *t, const struct fetch_opts *opts, uint64_t max_bytes)
{
	struct blocks_opts b_opts = {.dir = dir, .max_bytes = max_bytes, .min_free = 1};
	char hf[300];

	snprintf(hf, sizeof(hf), "%s/hf", dir);
	assert_int_equal(index_open(dir, &t->ix), 0);
	assert_int_equal(blocks_new(&b_opts, t->ix, &t->b), 0);
	assert_int_equal(hfcache_new(hf, &t->hf), 0);
	assert_int_equal(fetch_new(opts, t->b, NULL, t->hf, &t->f), 0);
}

static void bench_open(struct bench *t, size_t size, const char *path)
{
	struct hub_place place = place_of(path);
	uint64_t x = size + 88172645463325252u;

	t->data = malloc(size + 8);
	for (size_t i = 0; i < size; i += 8) {
		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
		memcpy(t->data + i, &x, 8);
	}
	assert_int_equal(hash_buf(HASH_SHA256, t->data, size, &t->key), 0);
	hub_reset(t->data);
	assert_int_equal(fetch_open(t->f, &t->key, &place, &t->s), 0);
}

static void bench_end(struct bench *t)
{
	fetch_closep(&t->s);
	fetch_free(t->f);
	hfcache_free(t->hf);
	blocks_free(t->b);
	index_close(t->ix);
	free(t->data);
	*t = (struct bench){0};
}

static void bench_all(struct bench *t, size_t size)
{
	struct fetch_opts opts = {0};

	bench_start(t, &opts, 0);
	bench_open(t, size, "ok");
}

/* A want that a test can wait for. */
struct parked {
	struct lock lock;
	struct cond cond;
	int calls, err;
};

static void parked_init(struct parked *p)
{
	*p = (struct parked){0};
	lock_init(&p->lock, LOCK_FETCH);
	cond_init(&p->cond);
}

static void parked_done(void *arg, int err)
{
	struct parked *p = arg;

	lock_take(&p->lock);
	p->calls++;
	p->err = err;
	cond_broadcast(&p->cond);
	lock_drop(&p->lock);
}

static int parked_wait(struct parked *p)
{
	int r;

	lock_take(&p->lock);
	while (!p->calls)
		cond_wait(&p->cond, &p->lock);
	assert_int_equal(p->calls, 1);
	r = p->err;
	lock_drop(&p->lock);
	return r;
}

static bool parked_called(struct parked *p)
{
	bool called;

	lock_take(&p->lock);
	called = p->calls;
	lock_drop(&p->lock);
	return called;
}

static int want(struct bench *t, uint64_t off, uint64_t len)
{
	struct parked p;
	int r;

	parked_init(&p);
	r = fetch_want(t->s, off, len, parked_done, &p);
	r = r < 0 ? r : parked_wait(&p);
	cond_fini(&p.cond);
	lock_fini(&p.lock);
	return r;
}

static void assert_reads(struct bench *t, uint64_t off, size_t len)
{
	uint8_t *buf = malloc(len + 1);

	assert_int_equal(fetch_read_wait(t->s, off, buf, len, NULL), len);
	assert_memory_equal(buf, t->data + off, len);
	free(buf);
}

/* Reads three quarters of a block from `at`, so that the read-ahead window opens behind it. */
static void open_window(struct bench *t, uint64_t at)
{
	for (uint64_t end = at + READAHEAD_PROOF + (256 << 10); at < end; at += 128 << 10)
		assert_reads(t, at, 128 << 10);
}

/* -- tests -- */

static void test_first_read_is_one_block(void **state)
{
	struct bench t;
	uint8_t byte;

	bench_all(&t, 40 * MIB + 123);
	assert_int_equal(fetch_read(t.s, 0, &byte, 1), -EAGAIN);
	assert_reads(&t, 0, 4096);
	assert_reads(&t, 20 * MIB + 5, 1);
	assert_reads(&t, 40 * MIB + 100, 23);
	wait_idle();
	assert_int_equal(hub.n_calls, 3);
	assert_int_equal(hub.calls[0].len, MIB);
	assert_int_equal(hub.calls[1].off, 20 * MIB);
	assert_int_equal(hub.calls[1].len, MIB);
	assert_int_equal(hub.calls[2].len, 123);
	/* Again: no request. */
	assert_reads(&t, 0, 4096);
	assert_reads(&t, 20 * MIB + 5, 1);
	assert_int_equal(fetch_read(t.s, 40 * MIB + 123, &byte, 1), 0);
	wait_idle();
	assert_int_equal(hub.n_calls, 3);
	/* Missing neighbours are one request, and what is there is left out. */
	assert_int_equal(want(&t, 19 * MIB, 4 * MIB), 0);
	assert_int_equal(hub.n_calls, 5);
	bench_end(&t);

	bench_all(&t, 40 * MIB + 123);
	assert_reads(&t, 0, 4096);
	assert_reads(&t, 20 * MIB + 5, 1);
	assert_int_equal(hub.n_calls, 0); /* nor in the next mount */
	bench_end(&t);
}

static void test_span_is_one_request(void **state)
{
	struct bench t;

	bench_all(&t, 40 * MIB);
	assert_int_equal(want(&t, 10 * MIB - 1, 2), 0);
	assert_int_equal(hub.n_calls, 1);
	assert_int_equal(hub.calls[0].off, 9 * MIB);
	assert_int_equal(hub.calls[0].len, 2 * MIB);
	assert_int_equal(want(&t, 0, 0), 0);
	assert_int_equal(want(&t, 40 * MIB, 100), 0);
	assert_int_equal(want(&t, 9 * MIB, 100), 0);
	assert_int_equal(hub.n_calls, 1);
	bench_end(&t);
}

static void test_single_flight_and_early_delivery(void **state)
{
	struct parked p[10], second;
	struct bench t;

	bench_all(&t, 40 * MIB);
	gate(0);
	for (int i = 0; i < 10; i++) {
		parked_init(&p[i]);
		assert_int_equal(fetch_want(t.s, 4 * MIB, 2 * MIB, parked_done, &p[i]), 0);
	}
	parked_init(&second);
	assert_int_equal(fetch_want(t.s, 4 * MIB, 100, parked_done, &second), 0);
	wait_calls(1);
	assert_false(parked_called(&second));
	gate(5 * MIB + 100000); /* the first of the two blocks arrives */
	assert_int_equal(parked_wait(&second), 0);
	assert_false(parked_called(&p[0]));
	gate(~(uint64_t)0);
	for (int i = 0; i < 10; i++)
		assert_int_equal(parked_wait(&p[i]), 0);
	wait_idle();
	assert_int_equal(hub.calls[0].off, 4 * MIB);
	assert_calls_from(1, 6 * MIB);
	bench_end(&t);
}

static void test_sequential_reads_ahead(void **state)
{
	struct bench t;
	size_t size = 32 * MIB;

	bench_all(&t, size);
	gate(MIB);
	open_window(&t, 0);
	wait_calls(1 + 8);
	assert_int_equal(hub.most_running, 8); /* all connections at once */
	gate(~(uint64_t)0);
	for (size_t at = 0; at < size; at += 128 << 10)
		assert_reads(&t, at, 128 << 10);
	wait_idle();
	assert_int_equal(hub.bytes, size); /* every byte once */
	assert_true(hub.n_calls <= 32);
	bench_end(&t);
}

static void test_places(void **state)
{
	struct hub_place good = place_of("good");
	struct source *again = NULL;
	struct fetch_opts opts = {0};
	struct bench t;

	bench_start(&t, &opts, 0);
	bench_open(&t, 5 * MIB, "bad1");
	assert_int_equal(want(&t, 0, 1), -EACCES);
	assert_int_equal(fetch_open(t.f, &t.key, &good, &again), 0);
	assert_ptr_equal(again, t.s);
	assert_int_equal(want(&t, 0, 1), 0);
	assert_string_equal(hub.calls[1].path, "bad1");
	assert_string_equal(hub.calls[2].path, "good");
	hub.fail = -ETIMEDOUT; /* not a verdict on the place: no other is tried */
	assert_int_equal(want(&t, MIB, 1), -ETIMEDOUT);
	assert_int_equal(hub.n_calls, 4);
	fetch_close(again);
	bench_end(&t);
}

static void test_failure_midway(void **state)
{
	struct parked first, rest;
	struct bench t;

	bench_all(&t, 20 * MIB);
	hub.cut_at = 2 * MIB + 100000;
	parked_init(&first);
	parked_init(&rest);
	gate(0);
	assert_int_equal(fetch_want(t.s, 0, 4 * MIB, parked_done, &rest), 0);
	assert_int_equal(fetch_want(t.s, MIB, 1, parked_done, &first), 0);
	gate(~(uint64_t)0);
	assert_int_equal(parked_wait(&first), 0);
	assert_int_equal(parked_wait(&rest), -EIO);
	wait_idle();
	hub.cut_at = ~(uint64_t)0;
	hub.n_calls = 0;
	assert_int_equal(want(&t, 0, 4 * MIB), 0);
	wait_idle();
	for (unsigned i = 0; i < hub.n_calls; i++)
		assert_true(hub.calls[i].off >= 2 * MIB); /* what had arrived was kept */
	bench_end(&t);
}

static void test_wrong_bytes(void **state)
{
	struct bench t;
	uint8_t byte;

	/* Once wrong: fetched again. */
	bench_all(&t, 1000);
	hub.wrong = true;
	hub.wrong_left = 1;
	assert_reads(&t, 0, 1000);
	assert_int_equal(hub.n_calls, 2);
	bench_end(&t);
	/* Always wrong: one more try, then -EIO, and never served. */
	bench_all(&t, 1001);
	hub.wrong = true;
	assert_int_equal(want(&t, 0, 1), -EIO);
	assert_int_equal(hub.n_calls, 2);
	assert_int_equal(fetch_read(t.s, 0, &byte, 1), -EIO);
	bench_end(&t);
	/* The same of several blocks, where the last to come shows it. */
	bench_all(&t, 3 * MIB);
	hub.wrong = true;
	hub.wrong_left = 1;
	assert_int_equal(want(&t, 0, 3 * MIB), 0);
	assert_reads(&t, 0, 3 * MIB);
	bench_end(&t);
	bench_all(&t, 3 * MIB + 1);
	hub.wrong = true;
	assert_int_equal(want(&t, 0, 3 * MIB + 1), -EIO);
	bench_end(&t);
}

/* Who has read of it before it was found wrong gets an error, never a right end after a wrong beginning; who
 * opens it anew gets it anew. */
static void test_wrong_bytes_after_some_were_read(void **state)
{
	struct hub_place place = place_of("ok");
	struct bench t;
	uint8_t byte;

	bench_all(&t, 3 * MIB);
	hub.wrong = true;
	hub.wrong_left = 1;
	assert_int_equal(fetch_read_wait(t.s, 0, &byte, 1, NULL), 1);
	assert_false(fetch_was_wrong(t.f, &t.key));
	assert_int_equal(want(&t, MIB, 2 * MIB), -EIO);
	assert_int_equal(fetch_read(t.s, 0, &byte, 1), -EIO);
	assert_int_equal(want(&t, 0, 1), -EIO);
	assert_true(fetch_was_wrong(t.f, &t.key));
	fetch_closep(&t.s);
	assert_int_equal(fetch_open(t.f, &t.key, &place, &t.s), 0);
	assert_reads(&t, 0, 3 * MIB);
	bench_end(&t);
}

static void test_full_disk(void **state)
{
	struct fetch_opts opts = {.workers = 4, .inflight = 32 * MIB};
	struct bench t;
	uint64_t bytes;

	bench_start(&t, &opts, 3 * MIB);
	bench_open(&t, 20 * MIB, "ok");
	for (size_t at = 0; at < 20 * MIB; at += 256 << 10)
		assert_reads(&t, at, 256 << 10);
	wait_idle();
	bytes = hub.bytes;
	assert_int_equal(bytes, 20 * MIB);
	bench_end(&t);
}

static void test_budget(void **state)
{
	struct fetch_opts opts = {.workers = 8, .inflight = 4 * MIB};
	struct parked p[20];
	struct bench t;

	bench_start(&t, &opts, 0);
	bench_open(&t, 40 * MIB, "ok");
	gate(0);
	for (uint64_t i = 0; i < 20; i++) {
		parked_init(&p[i]);
		assert_int_equal(fetch_want(t.s, i * 2 * MIB, 1, parked_done, &p[i]), 0);
	}
	wait_calls(4);
	usleep(50000); /* a fifth would come now */
	assert_int_equal(hub.n_calls, 4);
	gate(~(uint64_t)0);
	for (int i = 0; i < 20; i++)
		assert_int_equal(parked_wait(&p[i]), 0);
	wait_idle();
	bench_end(&t);
}

/* Read-ahead that stalls has every connection: a reader elsewhere is served all the same. */
static void test_demand_passes_stalled_read_ahead(void **state)
{
	struct fetch_opts opts = {.workers = 4};
	struct bench t;

	bench_start(&t, &opts, 0);
	bench_open(&t, 40 * MIB, "ok");
	gate(21 * MIB);
	open_window(&t, 20 * MIB);
	wait_calls(1 + 4);
	assert_reads(&t, 5 * MIB, 100);
	assert_reads(&t, 10 * MIB, 100);
	gate(~(uint64_t)0);
	bench_end(&t);
}

/* What a reader waits for goes before what is read ahead and was queued long before it. */
static void test_demand_overtakes_queued_read_ahead(void **state)
{
	struct fetch_opts opts = {.workers = 1, .inflight = 2 * MIB};
	struct bench t;

	bench_start(&t, &opts, 0);
	bench_open(&t, 60 * MIB, "ok");
	gate(21 * MIB + 1000);
	open_window(&t, 20 * MIB);
	wait_calls(2); /* the first read, and a read-ahead that stalls */
	assert_int_equal(hub.calls[1].off, 21 * MIB);
	assert_reads(&t, 10 * MIB, 100);
	assert_int_equal(hub.calls[2].off, 10 * MIB);
	gate(~(uint64_t)0);
	bench_end(&t);
}

/* A reader who waits for the far end of a running request gets one of his own, and nothing comes twice. */
static void test_a_long_flight_is_split(void **state)
{
	struct fetch_opts opts = {.workers = 4};
	struct parked whole;
	struct bench t;

	bench_start(&t, &opts, 0);
	bench_open(&t, 40 * MIB, "ok");
	parked_init(&whole);
	hub.stalled = 1;
	assert_int_equal(fetch_want(t.s, 10 * MIB, 8 * MIB, parked_done, &whole), 0);
	wait_calls(1);
	assert_int_equal(hub.calls[0].len, 8 * MIB);
	assert_reads(&t, 16 * MIB + 5, 100);
	lock_take(&hub.lock);
	hub.stalled = 0;
	cond_broadcast(&hub.change);
	lock_drop(&hub.lock);
	assert_int_equal(parked_wait(&whole), 0);
	wait_idle();
	assert_reads(&t, 10 * MIB, 8 * MIB);
	assert_int_equal(hub.calls[1].off + hub.calls[2].off, (16 + 17) * MIB);
	assert_int_equal(hub.calls[1].len + hub.calls[2].len, 2 * MIB);
	assert_calls_from(3, 18 * MIB);
	bench_end(&t);
}

/* A connection that brings nothing while a reader waits gets a rival; the reader does not wait for the first. */
static void test_a_stalled_flight_is_hedged(void **state)
{
	struct bench t;
	int64_t began;

	bench_all(&t, 40 * MIB);
	hub.stalled = 1;
	began = util_now_ms();
	assert_reads(&t, 10 * MIB, 2 * MIB);
	assert_true(util_now_ms() - began >= 1000 && util_now_ms() - began < 8000);
	wait_idle(); /* the first was ended */
	assert_int_equal(hub.calls[1].off, 10 * MIB);
	assert_calls_from(2, 12 * MIB);
	bench_end(&t);
}

/* A second flight that comes to a block which another daemon is bringing waits for that, as any other. */
static void test_a_hedge_waits_for_another_daemon(void **state)
{
	struct blocks_opts opts = {.dir = dir, .min_free = 1};
	struct blocks *other;
	struct blob *blob;
	struct parked p;
	struct bench t;

	bench_all(&t, 40 * MIB);
	assert_int_equal(blocks_new(&opts, t.ix, &other), 0);
	assert_int_equal(blocks_get(other, &t.key, &blob), 0);
	assert_int_equal(blocks_claim(blob, 11, 1), 0);
	hub.stalled = 1;
	parked_init(&p);
	assert_int_equal(fetch_want(t.s, 10 * MIB, 2 * MIB, parked_done, &p), 0);
	wait_calls(2);
	/* It looks for the other's block several times. */
	usleep(300000);
	assert_false(parked_called(&p));
	assert_int_equal(blocks_store(blob, 11, t.data + 11 * MIB, MIB), 0);
	blocks_unclaim(blob, 11, 1);
	assert_int_equal(parked_wait(&p), 0);
	assert_int_equal(hub.n_calls, 2);
	assert_int_equal(hub.calls[1].off, 10 * MIB);
	assert_int_equal(hub.calls[1].len, MIB);
	blocks_put(blob);
	blocks_free(other);
	bench_end(&t);
}

/* Read-ahead for a file that was closed ends, also what is under way. */
static void test_close_ends_read_ahead(void **state)
{
	struct fetch_opts opts = {.workers = 2};
	struct hub_place place = place_of("ok");
	struct bench t;

	bench_start(&t, &opts, 0);
	bench_open(&t, 60 * MIB, "ok");
	gate(11 * MIB + 1000);
	open_window(&t, 10 * MIB);
	wait_calls(3);
	assert_true(hub.calls[1].len > 2 * MIB && hub.calls[2].len > 2 * MIB);
	fetch_closep(&t.s);
	wait_idle(); /* though the gate is closed */
	gate(~(uint64_t)0);
	assert_int_equal(fetch_open(t.f, &t.key, &place, &t.s), 0);
	assert_reads(&t, 11 * MIB, 100);
	wait_idle();
	assert_int_equal(hub.n_calls, 4);
	assert_int_equal(hub.calls[3].len, MIB);
	bench_end(&t);
}

static void test_hfcache(void **state)
{
	struct fetch_opts opts = {0};
	struct bench t;
	char path[400], hex[HASH_MAX_HEX];
	int fd;

	bench_start(&t, &opts, 0);
	bench_open(&t, 5 * MIB + 1, "ok");
	hash_key_hex(&t.key, hex);
	snprintf(path, sizeof(path), "%s/hf/models--user--repo/blobs", dir);
	assert_int_equal(util_mkdirs(path), 0);
	snprintf(path, sizeof(path), "%s/hf/models--user--repo/blobs/%s", dir, hex);
	fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0400);
	assert_true(fd >= 0);
	assert_int_equal(util_pwrite_all(fd, t.data, 5 * MIB + 1, 0), 0);
	assert_reads(&t, 100, 3 * MIB);
	assert_reads(&t, 0, 5 * MIB + 1);
	assert_int_equal(hub.n_calls, 0);
	/* It is cut short under us: the network serves. */
	assert_int_equal(ftruncate(fd, 1000), 0);
	assert_reads(&t, 2 * MIB, 100);
	assert_int_equal(hub.n_calls, 1);
	close(fd);
	bench_end(&t);
}

static atomic_bool notes_answer;

static int slow_note(void *arg, const char *key, char **ret_value, size_t *ret_len)
{
	while (!atomic_load(&notes_answer))
		usleep(1000);
	return -ENOENT;
}

static int no_note(void *arg, const char *key, const void *value, size_t len)
{
	return 0;
}

/* It takes long to prove a large file of the official client's: nobody asks the Hub for it meanwhile. */
static void test_hfcache_is_waited_for(void **state)
{
	struct parked p[3];
	struct bench t;
	char path[400], hex[HASH_MAX_HEX];
	int fd;

	atomic_store(&notes_answer, false);
	bench_all(&t, 40 * MIB);
	hfcache_set_notes(t.hf, &(struct hfcache_notes){slow_note, no_note, NULL});
	hash_key_hex(&t.key, hex);
	snprintf(path, sizeof(path), "%s/hf/models--user--repo/blobs", dir);
	assert_int_equal(util_mkdirs(path), 0);
	snprintf(path, sizeof(path), "%s/hf/models--user--repo/blobs/%s", dir, hex);
	fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0400);
	assert_true(fd >= 0);
	assert_int_equal(util_pwrite_all(fd, t.data, 40 * MIB, 0), 0);
	close(fd);
	for (unsigned i = 0; i < 3; i++) {
		parked_init(&p[i]);
		assert_int_equal(fetch_want(t.s, i * 12 * MIB, MIB, parked_done, &p[i]), 0);
	}
	usleep(2500000); /* longer than a hedge waits */
	assert_int_equal(hub.n_calls, 0);
	atomic_store(&notes_answer, true);
	for (unsigned i = 0; i < 3; i++)
		assert_int_equal(parked_wait(&p[i]), 0);
	assert_int_equal(hub.n_calls, 0);
	bench_end(&t);
}

/* Two daemons on one cache: one request for each block, and a dead claim holder does not stop the other. */
static void test_two_daemons(void **state)
{
	struct fetch_opts opts = {.workers = 2};
	struct parked here, there;
	struct bench a, b;
	struct hub_place place = place_of("ok");

	bench_start(&a, &opts, 0);
	bench_open(&a, 3 * MIB, "ok");
	bench_start(&b, &opts, 0);
	b.data = NULL;
	assert_int_equal(fetch_open(b.f, &a.key, &place, &b.s), 0);
	parked_init(&here);
	parked_init(&there);
	gate(MIB + 5);
	assert_int_equal(fetch_want(a.s, 0, 2 * MIB, parked_done, &here), 0);
	wait_calls(1);
	assert_int_equal(fetch_want(b.s, 0, 2 * MIB, parked_done, &there), 0);
	usleep(50000);
	assert_int_equal(hub.n_calls, 1);
	gate(~(uint64_t)0);
	assert_int_equal(parked_wait(&here), 0);
	assert_int_equal(parked_wait(&there), 0);
	assert_int_equal(hub.n_calls, 1);
	/* The one that fills goes away: the other takes over. */
	gate(0);
	parked_init(&here);
	parked_init(&there);
	assert_int_equal(fetch_want(a.s, 2 * MIB, 1, parked_done, &here), 0);
	wait_calls(2);
	assert_int_equal(fetch_want(b.s, 2 * MIB, 1, parked_done, &there), 0);
	fetch_closep(&a.s);
	fetch_free(a.f);
	assert_int_equal(parked_wait(&here), -ECANCELED);
	gate(~(uint64_t)0);
	assert_int_equal(parked_wait(&there), 0);
	assert_int_equal(hub.n_calls, 3);
	hfcache_free(a.hf);
	blocks_free(a.b);
	index_close(a.ix);
	bench_end(&b);
	free(a.data);
}

static void test_stop_calls_back(void **state)
{
	struct parked p[30];
	struct bench t;

	bench_all(&t, 60 * MIB);
	gate(0);
	for (uint64_t i = 0; i < 30; i++) {
		parked_init(&p[i]);
		assert_int_equal(fetch_want(t.s, 2 * i * MIB, 1, parked_done, &p[i]), 0);
	}
	wait_calls(8);
	bench_end(&t);
	for (int i = 0; i < 30; i++)
		assert_int_equal(parked_wait(&p[i]), -ECANCELED);
}

static void test_wait_can_be_cancelled(void **state)
{
	atomic_bool cancel = true;
	struct bench t;
	uint8_t byte;

	bench_all(&t, 3 * MIB);
	gate(0);
	assert_int_equal(fetch_read_wait(t.s, 0, &byte, 1, &cancel), -ECANCELED);
	gate(~(uint64_t)0);
	bench_end(&t);
}

/* Many threads, random and sequential, sources opened and closed on the way. */
struct crowd {
	struct bench *t;
	atomic_int bad;
	size_t size;
};

static void *crowd_main(void *arg)
{
	struct crowd *c = arg;
	unsigned seed = (unsigned)(uintptr_t)pthread_self();
	uint8_t *buf = malloc(300000);
	struct hub_place place = place_of("ok");
	uint64_t at = 0;

	for (int i = 0; i < 150 && !atomic_load(&c->bad); i++) {
		size_t len = 1 + (size_t)rand_r(&seed) % 300000;
		struct source *s = NULL;
		ssize_t got;

		if (i % 3 == 0)
			at = (uint64_t)rand_r(&seed) % c->size;
		len = (size_t)MIN(len, c->size - at);
		if (fetch_open(c->t->f, &c->t->key, &place, &s) < 0) {
			atomic_store(&c->bad, 1);
			break;
		}
		got = fetch_read_wait(s, at, buf, len, NULL);
		if (got != (ssize_t)len || memcmp(buf, c->t->data + at, len) != 0)
			atomic_store(&c->bad, 2);
		fetch_close(s);
		at = at + len < c->size ? at + len : 0;
	}
	free(buf);
	return NULL;
}

static void crowd_run(uint64_t max_bytes, uint64_t inflight)
{
	struct fetch_opts opts = {.workers = 4, .inflight = inflight};
	struct bench t;
	struct crowd c = {.t = &t, .size = 24 * MIB + 17};
	pthread_t threads[6];

	bench_start(&t, &opts, max_bytes);
	bench_open(&t, c.size, "ok");
	for (int i = 0; i < 6; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, crowd_main, &c), 0);
	for (int i = 0; i < 6; i++)
		pthread_join(threads[i], NULL);
	assert_int_equal(atomic_load(&c.bad), 0);
	wait_idle();
	if (max_bytes == 0)
		assert_true(hub.bytes <= c.size); /* nothing was fetched twice */
	bench_end(&t);
}

static void test_threads(void **state)
{
	crowd_run(0, 0);
}

static void test_threads_without_room(void **state)
{
	crowd_run(5 * MIB, 24 * MIB);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_first_read_is_one_block, setup, teardown),
		cmocka_unit_test_setup_teardown(test_span_is_one_request, setup, teardown),
		cmocka_unit_test_setup_teardown(test_single_flight_and_early_delivery, setup, teardown),
		cmocka_unit_test_setup_teardown(test_sequential_reads_ahead, setup, teardown),
		cmocka_unit_test_setup_teardown(test_places, setup, teardown),
		cmocka_unit_test_setup_teardown(test_failure_midway, setup, teardown),
		cmocka_unit_test_setup_teardown(test_wrong_bytes, setup, teardown),
		cmocka_unit_test_setup_teardown(test_wrong_bytes_after_some_were_read, setup, teardown),
		cmocka_unit_test_setup_teardown(test_full_disk, setup, teardown),
		cmocka_unit_test_setup_teardown(test_budget, setup, teardown),
		cmocka_unit_test_setup_teardown(test_demand_passes_stalled_read_ahead, setup, teardown),
		cmocka_unit_test_setup_teardown(test_demand_overtakes_queued_read_ahead, setup, teardown),
		cmocka_unit_test_setup_teardown(test_a_long_flight_is_split, setup, teardown),
		cmocka_unit_test_setup_teardown(test_a_stalled_flight_is_hedged, setup, teardown),
		cmocka_unit_test_setup_teardown(test_a_hedge_waits_for_another_daemon, setup, teardown),
		cmocka_unit_test_setup_teardown(test_close_ends_read_ahead, setup, teardown),
		cmocka_unit_test_setup_teardown(test_hfcache, setup, teardown),
		cmocka_unit_test_setup_teardown(test_hfcache_is_waited_for, setup, teardown),
		cmocka_unit_test_setup_teardown(test_two_daemons, setup, teardown),
		cmocka_unit_test_setup_teardown(test_stop_calls_back, setup, teardown),
		cmocka_unit_test_setup_teardown(test_wait_can_be_cancelled, setup, teardown),
		cmocka_unit_test_setup_teardown(test_threads, setup, teardown),
		cmocka_unit_test_setup_teardown(test_threads_without_room, setup, teardown),
	};

	lock_init(&hub.lock, LOCK_HUB);
	cond_init(&hub.change);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
