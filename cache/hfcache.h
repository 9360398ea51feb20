/* hfcache: reader of the official client's download cache (hub-api.md 9). Never writes, locks or deletes
 * there. */
#ifndef HUGFS_HFCACHE_H
#define HUGFS_HFCACHE_H

#include "hash.h"
#include "repo.h"

struct hfcache;
/* dir is HF_HUB_CACHE; it may be missing, now or later. */
int hfcache_new(const char *dir, struct hfcache **ret) MUST_USE;
void hfcache_free(struct hfcache *c);
/* Where it is kept which files were hashed, for the next mount: texts under a key, as index_meta_get and _put have them. Set
 * before the first hfcache_open; without it that is known for as long as this process lives. */
struct hfcache_notes {
	int (*get)(void *arg, const char *key, char **ret_value, size_t *ret_len);
	int (*put)(void *arg, const char *key, const void *value, size_t len);
	void *arg;
};
void hfcache_set_notes(struct hfcache *c, const struct hfcache_notes *notes);
/* A check under way ends with -ECANCELED, and so does every later one. */
void hfcache_stop(struct hfcache *c);
/* Where a file stands on the Hub. Borrowed. */
struct hfcache_place {
	const struct repo_id *id;
	const char *commit; /* 40 hex */
	const char *path;
};
/* A descriptor of the complete blob `key` of this place, in blobs/ or, where that client makes no symlinks, in
 * snapshots/COMMIT/PATH; its hash was checked once (remembered by
 * device, inode, size, mtime, ctime). -ENOENT: not there, not complete, not readable or not those bytes.
 * Reads the whole file at the first use: worker threads only. Caller closes the descriptor. */
int hfcache_open(struct hfcache *c, const struct hfcache_place *place, const struct blob_key *key,
                 int *ret_fd) MUST_USE;
/* The same for a file that was checked before; -EAGAIN: it was not, or changed since. Any thread: reads nothing of it. */
int hfcache_open_checked(struct hfcache *c, const struct hfcache_place *place, const struct blob_key *key,
                         int *ret_fd) MUST_USE;
/* Is the file behind `fd` still the one that was checked to be `key`? */
bool hfcache_is_checked(struct hfcache *c, const struct blob_key *key, int fd);

#endif
