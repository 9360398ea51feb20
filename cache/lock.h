/* lock: mutexes that know their place in the order of modules.
 *
 * Locks are taken only from left to right in the order
 *     control refresh ops publish schedule commit upload view inode notify stage | fetch readahead
 *     tree blocks index hfcache hub http auth log
 * A debug build (no NDEBUG) keeps the levels that a thread holds and asserts that a new one lies strictly to
 * the right; a thread that waits for a condition holds that lock alone. Nobody holds one across the network,
 * fsync, fuse_reply_* or fuse_lowlevel_notify_*. */
#ifndef HUGFS_LOCK_H
#define HUGFS_LOCK_H

#include <pthread.h>

#include "util.h"

enum lock_level {
	LOCK_CONTROL = 1,
	LOCK_REFRESH,
	LOCK_OPS,
	LOCK_PUBLISH,
	LOCK_COMMIT,
	LOCK_UPLOAD,
	LOCK_VIEW,
	LOCK_INODE,       /* names of one revision */
	LOCK_INODE_TABLE, /* the table of inodes */
	LOCK_NOTIFY,
	LOCK_STAGE,
	LOCK_FETCH,
	LOCK_READAHEAD,
	LOCK_TREE,
	LOCK_BLOCKS,
	LOCK_INDEX,
	LOCK_HFCACHE,
	LOCK_HUB,
	LOCK_HTTP,
	LOCK_AUTH,
};

struct lock {
	pthread_mutex_t mutex;
	enum lock_level level;
};

/* A condition on CLOCK_MONOTONIC that belongs to struct lock. */
struct cond {
	pthread_cond_t cond;
};

void lock_init(struct lock *l, enum lock_level level);
void lock_fini(struct lock *l);
void lock_take(struct lock *l);
void lock_drop(struct lock *l);

void cond_init(struct cond *c);
void cond_fini(struct cond *c);
void cond_wait(struct cond *c, struct lock *l);
/* Waits until signalled or `ms` have passed; false on time-out. May wake early: check the condition. */
bool cond_wait_ms(struct cond *c, struct lock *l, int64_t ms);
void cond_signal(struct cond *c);
void cond_broadcast(struct cond *c);

/* { LOCKED(&x->lock); ... } drops the lock at the end of the block. */
void lock_dropp(struct lock **l);
#define LOCK_JOIN2(a, b) a##b
#define LOCK_JOIN(a, b) LOCK_JOIN2(a, b)
#define LOCKED(l) \
	__attribute__((unused)) struct lock *LOCK_JOIN(locked_, __LINE__) CLEANUP(lock_dropp) = \
		(lock_take(l), (l))

#endif
