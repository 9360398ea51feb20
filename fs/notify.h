/* notify: the kernel's entries to expire: a queue filled by anybody, drained by one thread that holds no lock.
 *
 * Only names and attributes are ever told, never data pages: a file's nodeid means its content, so pages stay right
 * (fuse-notes.md 1.4). Nothing is sent any more once notify_stop was called. */
#ifndef HUGFS_NOTIFY_H
#define HUGFS_NOTIFY_H

#include "util.h"

struct notify;
struct fuse_session;

/* Starts its thread. `session` must outlive it. */
int notify_new(struct fuse_session *session, struct notify **ret) MUST_USE;
/* Any thread, any lock held. Dropped silently when stopping or out of memory: entries age anyhow. */
void notify_entry(struct notify *n, uint64_t parent, const char *name); /* this name may mean something else now */
void notify_attr(struct notify *n, uint64_t nodeid);                    /* its attributes changed */
void notify_stop(struct notify *n); /* before the session ends */
void notify_free(struct notify *n);

#endif
