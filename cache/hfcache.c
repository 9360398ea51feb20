/* hfcache: reader of the official client's download cache.
 *
 * For: finding a complete blob under HF_HUB_CACHE and proving its bytes, once. Not for: writing, locking or
 * deleting there; nor for revisions and listings.
 *
 * Transfer workers enter, several at once; hashing a file holds no lock. What was hashed is remembered in a
 * table of fixed size, where a newer file may push an older one out, and behind it in notes that outlive us. */
#define LOG_MODULE "hfcache"
#include "hfcache.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lock.h"
#include "log.h"

#define MEMO_SLOTS 4096
#define PIECE ((size_t)256 << 10)
#define NOTE_MAX 160

/* A file as it was when it was hashed. */
struct memo {
	struct blob_key key;
	dev_t dev;
	ino_t ino;
	struct timespec mtime, ctime;
	bool good; /* its bytes were those of key */
};

struct hfcache {
	char *dir;
	struct hfcache_notes notes;
	atomic_bool stopping;
	struct lock lock;
	/* -- guarded by lock -- */
	struct memo memo[MEMO_SLOTS];
};

int hfcache_new(const char *dir, struct hfcache **ret)
{
	struct hfcache *c = calloc(1, sizeof(*c));

	if (!c)
		return -ENOMEM;
	lock_init(&c->lock, LOCK_HFCACHE);
	c->dir = strdup(dir);
	if (!c->dir) {
		hfcache_free(c);
		return -ENOMEM;
	}
	*ret = c;
	return 0;
}

void hfcache_free(struct hfcache *c)
{
	if (!c)
		return;
	lock_fini(&c->lock);
	free(c->dir);
	free(c);
}

void hfcache_set_notes(struct hfcache *c, const struct hfcache_notes *notes)
{
	c->notes = *notes;
}

void hfcache_stop(struct hfcache *c)
{
	atomic_store(&c->stopping, true);
}

static void memo_of(const struct stat *st, const struct blob_key *key, struct memo *m)
{
	*m = (struct memo){.key = *key, .dev = st->st_dev, .ino = st->st_ino, .mtime = st->st_mtim,
	                   .ctime = st->st_ctim};
}

static bool time_equal(struct timespec a, struct timespec b)
{
	return a.tv_sec == b.tv_sec && a.tv_nsec == b.tv_nsec;
}

static bool memo_equal(const struct memo *a, const struct memo *b)
{
	return hash_key_equal(&a->key, &b->key) && a->dev == b->dev && a->ino == b->ino &&
	       time_equal(a->mtime, b->mtime) && time_equal(a->ctime, b->ctime);
}

static struct memo *slot_of(struct hfcache *c, const struct memo *m)
{
	return &c->memo[(hash_key_u64(&m->key) ^ m->ino) % MEMO_SLOTS];
}

/* Hashes the file: 1 its bytes are those of key, 0 they are not, or -errno. */
static int hash_file(struct hfcache *c, int fd, const struct blob_key *key)
{
	struct hash *h CLEANUP(hash_freep) = hash_new(key->alg, key->size);
	AUTO_FREE uint8_t *buf = malloc(PIECE);
	struct blob_key got = {0};
	uint64_t off = 0;
	int r;

	if (!h || !buf)
		return -ENOMEM;
	posix_fadvise(fd, 0, 0, POSIX_FADV_SEQUENTIAL);
	while (off < key->size) {
		size_t len = (size_t)MIN(PIECE, key->size - off);
		ssize_t n = util_pread_all(fd, buf, len, off);

		if (atomic_load(&c->stopping))
			return -ECANCELED;
		if (n < 0)
			return (int)n;
		if ((size_t)n != len)
			return 0;
		r = hash_add(h, buf, len);
		if (r < 0)
			return r;
		off += len;
	}
	r = hash_end(h, &got);
	return r < 0 ? r : hash_key_equal(&got, key);
}

/* Opens the blob's file: only a regular file of the right size that lies inside the cache's folder,
 * wherever the symlinks on the way lead (hub-api.md 9: blobs may be links into the shared store). */
static int open_inside(struct hfcache *c, const char *path, uint64_t size, struct stat *st)
{
	AUTO_FREE char *root = realpath(c->dir, NULL);
	AUTO_FREE char *real = root ? realpath(path, NULL) : NULL;
	AUTO_CLOSE int fd = -1;
	size_t n;

	if (!real)
		return errno == ENOMEM ? -ENOMEM : -ENOENT;
	n = strlen(root);
	if (strncmp(real, root, n) != 0 || real[n] != '/')
		return -ENOENT;
	fd = open(real, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	if (fd < 0)
		return -ENOENT;
	if (fstat(fd, st) < 0 || !S_ISREG(st->st_mode) || (uint64_t)st->st_size != size)
		return -ENOENT;
	return STEAL(fd);
}

/* -- what was hashed -- */

/* Under which name and as which text a memo is kept: they say all that memo_of() reads. */
static int memo_text(const struct memo *m, char key[NOTE_MAX], char value[NOTE_MAX])
{
	char hex[HASH_MAX_HEX];

	hash_key_hex(&m->key, hex);
	snprintf(key, NOTE_MAX, "hfcache/%s/%jx:%jx", hex, (uintmax_t)m->dev, (uintmax_t)m->ino);
	return snprintf(value, NOTE_MAX, "%llu %lld.%09ld %lld.%09ld", (unsigned long long)m->key.size,
	                (long long)m->mtime.tv_sec, m->mtime.tv_nsec, (long long)m->ctime.tv_sec, m->ctime.tv_nsec);
}

/* Was it hashed as it is now? 1 with the right result, 0 with a wrong one, -EAGAIN: it was not. */
static int recall(struct hfcache *c, const struct memo *m)
{
	char key[NOTE_MAX], value[NOTE_MAX];
	AUTO_FREE char *kept = NULL;
	size_t len = 0;

	{
		LOCKED(&c->lock);
		if (memo_equal(slot_of(c, m), m))
			return slot_of(c, m)->good;
	}
	if (!c->notes.get)
		return -EAGAIN;
	memo_text(m, key, value);
	if (c->notes.get(c->notes.arg, key, &kept, &len) < 0 || strcmp(kept, value) != 0)
		return -EAGAIN;
	LOCKED(&c->lock);
	*slot_of(c, m) = *m;
	slot_of(c, m)->good = true;
	return 1;
}

static void remember(struct hfcache *c, const struct memo *m)
{
	char key[NOTE_MAX], value[NOTE_MAX];
	int len = memo_text(m, key, value);

	if (m->good && c->notes.put && c->notes.put(c->notes.arg, key, value, (size_t)len) < 0)
		log_debug("the next mount will hash %s again", key);
	LOCKED(&c->lock);
	*slot_of(c, m) = *m;
}

/* Hashes the file, which *m describes, and fills in what came of it. 0, or -errno. */
static int check(struct hfcache *c, int fd, struct memo *m)
{
	struct memo after;
	struct stat st;
	int r = hash_file(c, fd, &m->key);

	if (r == -ECANCELED || r == -ENOMEM)
		return r;
	m->good = r > 0;
	if (fstat(fd, &st) < 0)
		return -ENOENT;
	memo_of(&st, &m->key, &after);
	if (!memo_equal(m, &after))
		return -ENOENT; /* it changed while it was read */
	remember(c, m);
	return 0;
}

/* -- opening -- */

/* *ret_path, which the caller frees, is for messages. */
static int open_blob(struct hfcache *c, const struct hfcache_place *place, const struct blob_key *key, struct memo *ret,
                     char **ret_path)
{
	AUTO_FREE char *repo = util_printf("%s/%s--%s--%s", c->dir, repo_type_api(place->id->type), place->id->ns,
	                                   place->id->name);
	AUTO_FREE char *path = NULL;
	char hex[HASH_MAX_HEX];
	struct stat st;
	int fd;

	hash_key_hex(key, hex);
	path = repo ? util_printf("%s/blobs/%s", repo, hex) : NULL;
	if (!path)
		return -ENOMEM;
	fd = open_inside(c, path, key->size, &st);
	if (fd == -ENOENT) {
		free(path);
		path = util_printf("%s/snapshots/%s/%s", repo, place->commit, place->path);
		fd = path ? open_inside(c, path, key->size, &st) : -ENOMEM;
	}
	if (fd < 0)
		return fd;
	memo_of(&st, key, ret);
	*ret_path = STEAL(path);
	return fd;
}

int hfcache_open(struct hfcache *c, const struct hfcache_place *place, const struct blob_key *key, int *ret_fd)
{
	AUTO_FREE char *path = NULL;
	AUTO_CLOSE int fd = -1;
	struct memo m;
	int r;

	fd = open_blob(c, place, key, &m, &path);
	if (fd < 0)
		return fd;
	r = recall(c, &m);
	if (r == -EAGAIN) {
		r = check(c, fd, &m);
		if (r < 0)
			return r;
		r = m.good;
		if (!m.good)
			log_warn("%s does not hold the bytes that its name says: it is not used", path);
	}
	if (!r)
		return -ENOENT;
	*ret_fd = STEAL(fd);
	return 0;
}

int hfcache_open_checked(struct hfcache *c, const struct hfcache_place *place, const struct blob_key *key, int *ret_fd)
{
	AUTO_FREE char *path = NULL;
	AUTO_CLOSE int fd = -1;
	struct memo m;

	fd = open_blob(c, place, key, &m, &path);
	if (fd < 0)
		return fd;
	if (recall(c, &m) != 1)
		return -EAGAIN;
	*ret_fd = STEAL(fd);
	return 0;
}

bool hfcache_is_checked(struct hfcache *c, const struct blob_key *key, int fd)
{
	struct stat st;
	struct memo m;

	if (fstat(fd, &st) < 0 || (uint64_t)st.st_size != key->size)
		return false;
	memo_of(&st, key, &m);
	return recall(c, &m) == 1;
}
