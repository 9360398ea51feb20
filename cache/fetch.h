/* fetch: makes a range of a blob resident. Single flight, budget of bytes in flight, transfer workers.
 *
 * A FUSE thread calls fetch_read, which never touches the network: bytes, or -EAGAIN; then fetch_want parks
 * it, and a transfer worker calls back when the range is resident or cannot be had. A worker runs
 * blocks_claim -> hub_read_range -> blocks_store on one stack and delivers each block as it arrives. Demand
 * before read-ahead. A blob whose place fails with -EACCES, -ENOENT is tried at its next place. Wrong bytes
 * are fetched once more, then -EIO; -EIO at once for who has read some of them, until it opens anew. When the cache's disk refuses, the blocks live in a small
 * memory ring and are served from there. */
#ifndef HUGFS_FETCH_H
#define HUGFS_FETCH_H

#include "blocks.h"
#include "hfcache.h"
#include "hub.h"

struct fetch;

struct fetch_opts {
	unsigned workers;    /* transfer threads = connections; 0: 8 */
	uint64_t inflight;   /* cap of bytes in flight for the whole mount; 0: 256 MiB */
};
/* Starts its workers. hfcache may be NULL. All must outlive it. */
int fetch_new(const struct fetch_opts *opts, struct blocks *blocks, struct hub *hub, struct hfcache *hfcache,
              struct fetch **ret) MUST_USE;
/* Ends every flight (waiters are called back with -ECANCELED) and joins the workers. http_stop first makes
 * it quick. */
void fetch_free(struct fetch *f);

/* A file's content that can be fetched: opened once per inode in use. Refcounted. */
struct source;
/* `place` is copied, and becomes one more place of the same blob when the source is open already. */
int fetch_open(struct fetch *f, const struct blob_key *key, const struct hub_place *place,
               struct source **ret) MUST_USE;
struct source *fetch_ref(struct source *s);
void fetch_close(struct source *s);
void fetch_closep(struct source **s);
const struct blob_key *fetch_key(const struct source *s);
/* Were bytes of this blob found wrong since the process began? What the kernel keeps of it may be wrong. */
bool fetch_was_wrong(struct fetch *f, const struct blob_key *key);

/* Bytes of [off, off+len) that are resident, all of them: clamped to the blob's size (0 at its end), or
 * -EAGAIN. No network, and no wait but for the disk. */
ssize_t fetch_read(struct source *s, uint64_t off, void *buf, size_t len) MUST_USE;

/* fetch_read without a copy: the bytes where they lie, all of them, until fetch_look_end. -EAGAIN: fetch_read does it, or says why
 * not. */
int fetch_look(struct source *s, uint64_t off, size_t len, const void **ret) MUST_USE;
void fetch_look_end(struct source *s, uint64_t off, size_t len);

/* The whole file on this machine's disk, for somebody who reads it without asking us (passthrough): from our store or from the
 * official client's cache, complete, checked and kept until loan_end. */
struct loan;
/* Never waits for the network. -EAGAIN: there is no such file (yet). */
int fetch_lend(struct source *s, struct loan **ret) MUST_USE;
int loan_fd(const struct loan *l);
void loan_end(struct loan *l);

/* Called exactly once, from a transfer worker (or from fetch_free), no lock held. err: 0 (resident:
 * fetch_read will most likely answer now) or -errno. */
typedef void (*fetch_done)(void *arg, int err);
/* Makes [off, off+len) resident, then calls back. Never blocks. 0, or -ENOMEM, -EIO (its bytes were wrong,
 * see above), -ECANCELED (stopping): then there is no call-back. */
int fetch_want(struct source *s, uint64_t off, uint64_t len, fetch_done done, void *arg) MUST_USE;

/* fetch_read that waits: for worker threads (uploads of partly edited files). */
ssize_t fetch_read_wait(struct source *s, uint64_t off, void *buf, size_t len, atomic_bool *cancel) MUST_USE;

#endif
