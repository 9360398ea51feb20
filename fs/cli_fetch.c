/* cli_fetch: the verb fetch: reads files of a mount, so that the cache has them. Several threads, each with a file. */
#define LOG_MODULE "cli"

#include "cli_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <fts.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lock.h"

#define THREADS 4
#define PIECE ((size_t)4 << 20)
#define SHOW_MS 500

struct fetch_list {
	char **paths;
	size_t n;
	uint64_t bytes;
	atomic_size_t next;
	atomic_uint_fast64_t done;
	atomic_uint failed;
	struct lock lock;
	struct cond ended;
	/* -- guarded by lock -- */
	unsigned active; /* threads */
};

static int add(struct fetch_list *l, const char *path, uint64_t size)
{
	char **grown;

	if ((l->n & (l->n + 1)) == 0) {
		grown = reallocarray(l->paths, l->n * 2 + 2, sizeof(*grown));
		if (!grown)
			return -ENOMEM;
		l->paths = grown;
	}
	l->paths[l->n] = strdup(path);
	if (!l->paths[l->n])
		return -ENOMEM;
	l->n++;
	l->bytes += size;
	return 0;
}

static int collect(char **roots, struct fetch_list *l)
{
	FTS *walk = fts_open(roots, FTS_PHYSICAL | FTS_NOCHDIR, NULL);
	FTSENT *ent;
	int r = CLI_OK;

	if (!walk)
		return cli_complain("%s", strerror(errno));
	while (r == CLI_OK && (ent = fts_read(walk))) {
		if (ent->fts_info == FTS_ERR || ent->fts_info == FTS_DNR || ent->fts_info == FTS_NS)
			r = cli_complain("%s: %s", ent->fts_path, strerror(ent->fts_errno));
		else if (ent->fts_info == FTS_F && add(l, ent->fts_path, (uint64_t)ent->fts_statp->st_size) < 0)
			r = cli_complain("out of memory");
	}
	fts_close(walk);
	return r;
}

/* Past the page cache: its bytes are wanted on the disk, not in memory. */
static int read_all(struct fetch_list *l, const char *path, char *buf)
{
	AUTO_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n;

	if (fd < 0)
		return -errno;
	for (off_t off = 0; (n = pread(fd, buf, PIECE, off)) != 0; off += n) {
		if (n < 0)
			return -errno;
		atomic_fetch_add(&l->done, (uint64_t)n);
		posix_fadvise(fd, off, n, POSIX_FADV_DONTNEED);
	}
	return 0;
}

static void *fetch_some(void *arg)
{
	struct fetch_list *l = arg;
	AUTO_FREE char *buf = malloc(PIECE);

	for (;;) {
		size_t i = atomic_fetch_add(&l->next, 1);
		int r;

		if (i >= l->n)
			break;
		r = buf ? read_all(l, l->paths[i], buf) : -ENOMEM;
		if (r < 0) {
			cli_complain("%s: %s", l->paths[i], strerror(-r));
			atomic_fetch_add(&l->failed, 1);
		}
	}
	LOCKED(&l->lock);
	l->active--;
	cond_signal(&l->ended);
	return NULL;
}

static void show(const struct fetch_list *l)
{
	char done[24], all[24];

	fprintf(stderr, "\r\033[Kfetching: %s of %s", cli_size_text(atomic_load(&l->done), done),
	        cli_size_text(l->bytes, all));
}

/* Until all threads have ended, with the progress on a terminal. */
static void wait_for_all(struct fetch_list *l)
{
	bool shows = isatty(STDERR_FILENO);

	LOCKED(&l->lock);
	while (l->active > 0) {
		cond_wait_ms(&l->ended, &l->lock, SHOW_MS);
		if (shows)
			show(l);
	}
	if (shows)
		fputs("\r\033[K", stderr);
}

static int fetch_list(struct fetch_list *l)
{
	pthread_t threads[THREADS];
	char all[24], files[40];
	unsigned n = 0;

	lock_init(&l->lock, LOCK_CONTROL);
	cond_init(&l->ended);
	l->active = THREADS;
	while (n < THREADS && pthread_create(&threads[n], NULL, fetch_some, l) == 0)
		n++;
	for (unsigned i = n; i < THREADS; i++)
		fetch_some(l); /* as good as a thread */
	wait_for_all(l);
	while (n > 0)
		pthread_join(threads[--n], NULL);
	cond_fini(&l->ended);
	lock_fini(&l->lock);
	if (atomic_load(&l->failed))
		return CLI_FAILED;
	printf("%s (%s)\n", cli_count_text(l->n, "file", files), cli_size_text(l->bytes, all));
	return CLI_OK;
}

int cli_fetch(int argc, char **argv)
{
	struct fetch_list l = {0};
	int r = CLI_OK;

	if (argc < 2)
		return cli_usage(argv[0]);
	for (int i = 1; i < argc && r == CLI_OK; i++) {
		struct control_mount m = {0};

		if (argv[i][0] == '-')
			return cli_usage(argv[0]);
		r = cli_find(argv[i], &m);
		control_mount_fini(&m);
	}
	if (r == CLI_OK)
		r = collect(argv + 1, &l);
	if (r == CLI_OK)
		r = fetch_list(&l);
	for (size_t i = 0; i < l.n; i++)
		free(l.paths[i]);
	free(l.paths);
	return r;
}
