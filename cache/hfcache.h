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
/* A check under way ends with -ECANCELED, and so does every later one. */
void hfcache_stop(struct hfcache *c);
/* A descriptor of the complete blob `key` of repository `id`, whose hash was checked once (remembered by
 * device, inode, size, mtime, ctime for as long as this process lives). -ENOENT: not there, not complete,
 * not readable or not those bytes. Reads the whole file at the first use: worker threads only. Caller
 * closes the descriptor. */
int hfcache_open(struct hfcache *c, const struct repo_id *id, const struct blob_key *key,
                 int *ret_fd) MUST_USE;

#endif
