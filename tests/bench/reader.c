/* reader: the reading side of tests/bench, the same program for every file system that is compared.
 *
 *	reader seq FILE BLOCK                          the whole file in order, by read() of BLOCK bytes
 *	reader random FILE COUNT THREADS BLOCK SEED [shared]
 *	                                               COUNT aligned blocks in all, by pread(); each thread has an
 *	                                               open file of its own, or all share one
 *	reader mmap FILE THREADS                       the whole file, mapped once, a contiguous share for each thread
 *	reader drop FILE...                            the files' clean pages leave the page cache
 *
 * Prints one line of JSON: seconds from before the first open to after the last close, bytes, the seconds until
 * the first read returned, and the longest read. Ends with a message and status 1 on any error. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define THREADS_MAX 256

struct job {
	const char *path;
	int fd;             /* shared by all, or -1: each opens its own */
	const char *map;
	uint64_t size, block, count, begin, seed;
	uint64_t bytes, sum;
	double first_s, longest_s;
};

static void die(const char *what)
{
	fprintf(stderr, "reader: %s: %s\n", what, strerror(errno));
	exit(1);
}

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static int open_file(const char *path, uint64_t *ret_size)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	struct stat st;

	if (fd < 0 || fstat(fd, &st) < 0)
		die(path);
	*ret_size = (uint64_t)st.st_size;
	return fd;
}

static char *new_buffer(uint64_t size)
{
	char *buffer = aligned_alloc(4096, (size + 4095) & ~(uint64_t)4095);

	if (!buffer)
		die("memory");
	return buffer;
}

static void note(struct job *j, double began, ssize_t got)
{
	double spent = now() - began;

	if (got < 0)
		die(j->path);
	if (j->bytes == 0)
		j->first_s = spent;
	if (spent > j->longest_s)
		j->longest_s = spent;
	j->bytes += (uint64_t)got;
}

static void read_in_order(struct job *j)
{
	char *buffer = new_buffer(j->block);
	double began = now();
	ssize_t got;
	int fd = open_file(j->path, &j->size);

	while ((got = read(fd, buffer, j->block)) != 0) {
		note(j, began, got);
		began = now();
	}
	close(fd);
	free(buffer);
}

/* xorshift64*: the same places for the same seed. */
static uint64_t next_random(uint64_t *state)
{
	*state ^= *state >> 12;
	*state ^= *state << 25;
	*state ^= *state >> 27;
	return *state * 2685821657736338717ull;
}

static void *read_anywhere(void *arg)
{
	struct job *j = arg;
	char *buffer = new_buffer(j->block);
	double began = now();
	int fd = j->fd >= 0 ? j->fd : open_file(j->path, &j->size);

	for (uint64_t i = 0; i < j->count; i++) {
		uint64_t block = next_random(&j->seed) % (j->size / j->block);

		note(j, began, pread(fd, buffer, j->block, (off_t)(block * j->block)));
		began = now();
	}
	if (j->fd < 0)
		close(fd);
	free(buffer);
	return NULL;
}

static void *touch(void *arg)
{
	struct job *j = arg;

	for (uint64_t at = j->begin; at < j->begin + j->count; at += 4096)
		j->sum += (unsigned char)j->map[at];
	j->bytes = j->count;
	return NULL;
}

static void run(struct job *jobs, unsigned n, void *(*work)(void *))
{
	pthread_t threads[THREADS_MAX];

	for (unsigned i = 0; i < n; i++) {
		errno = pthread_create(&threads[i], NULL, work, &jobs[i]);
		if (errno)
			die("a thread");
	}
	for (unsigned i = 0; i < n; i++)
		pthread_join(threads[i], NULL);
}

static void drop(const char *path)
{
	uint64_t size;
	int fd = open_file(path, &size);

	errno = posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
	if (errno)
		die(path);
	close(fd);
}

static void random_reads(struct job *jobs, unsigned n, uint64_t count, bool shared)
{
	uint64_t size, seed = jobs[0].seed;
	int fd = shared ? open_file(jobs[0].path, &size) : -1;

	for (unsigned i = 0; i < n; i++) {
		jobs[i] = jobs[0];
		jobs[i].fd = fd;
		if (shared)
			jobs[i].size = size;
		jobs[i].count = count * (i + 1) / n - count * i / n;
		jobs[i].seed = (seed + 1) * 1000003 + i;
	}
	run(jobs, n, read_anywhere);
	if (shared)
		close(fd);
}

static void map_reads(struct job *jobs, unsigned n)
{
	const char *path = jobs[0].path;
	uint64_t size;
	int fd = open_file(path, &size);
	char *map = mmap(NULL, size, PROT_READ, MAP_SHARED, fd, 0);

	if (map == MAP_FAILED)
		die(path);
	for (unsigned i = 0; i < n; i++) {
		uint64_t begin = size / n / 4096 * 4096 * i;

		jobs[i] = (struct job){.path = path, .map = map, .begin = begin,
		                       .count = i + 1 < n ? size / n / 4096 * 4096 : size - begin};
	}
	run(jobs, n, touch);
	munmap(map, size);
	close(fd);
}

static uint64_t number(const char *text, uint64_t most)
{
	char *end;
	uint64_t value;

	errno = 0;
	value = strtoull(text, &end, 10);
	if (errno || *end || value == 0 || value > most) {
		errno = EINVAL;
		die(text);
	}
	return value;
}

int main(int argc, char **argv)
{
	static struct job jobs[THREADS_MAX];
	const char *mode = argc > 2 ? argv[1] : "";
	uint64_t bytes = 0;
	double began = now(), longest = 0;
	unsigned n = 1;

	jobs[0] = (struct job){.path = argc > 2 ? argv[2] : "", .fd = -1};
	if (strcmp(mode, "drop") == 0) {
		for (int i = 2; i < argc; i++)
			drop(argv[i]);
		return 0;
	}
	if (strcmp(mode, "seq") == 0 && argc == 4) {
		jobs[0].block = number(argv[3], 1 << 30);
		read_in_order(&jobs[0]);
	} else if (strcmp(mode, "random") == 0 && argc >= 7 && argc <= 8) {
		n = (unsigned)number(argv[4], THREADS_MAX);
		jobs[0].block = number(argv[5], 1 << 30);
		jobs[0].seed = number(argv[6], UINT64_MAX);
		random_reads(jobs, n, number(argv[3], UINT64_MAX), argc == 8);
	} else if (strcmp(mode, "mmap") == 0 && argc == 4) {
		n = (unsigned)number(argv[3], THREADS_MAX);
		map_reads(jobs, n);
	} else {
		fputs("usage: reader seq|random|mmap|drop FILE ...; see the head of reader.c\n", stderr);
		return 2;
	}
	for (unsigned i = 0; i < n; i++) {
		bytes += jobs[i].bytes;
		if (jobs[i].longest_s > longest)
			longest = jobs[i].longest_s;
	}
	printf("{\"seconds\": %.9f, \"bytes\": %llu, \"first\": %.9f, \"longest\": %.9f}\n", now() - began,
	       (unsigned long long)bytes, jobs[0].first_s, longest);
	return 0;
}
