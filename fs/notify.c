/* notify: the kernel's entries to expire.
 *
 * Not for: deciding what changed (view). Never for data pages: see fuse-notes.md 1.4.
 *
 * Threads: anybody queues; one thread of its own drains, holding no lock while it writes to the kernel. A notification can
 * wait for a lookup that is under way in the same folder, so nobody else may ever wait for this thread, but for
 * notify_free after notify_stop. */
#define FUSE_USE_VERSION 312
#define LOG_MODULE "notify"

#include "notify.h"

#include <errno.h>
#include <fuse_lowlevel.h>
#include <pthread.h>
#include <string.h>

#include "lock.h"
#include "log.h"

#define QUEUE_MAX 65536 /* beyond it entries just age */

struct item {
	struct item *next;
	uint64_t nodeid;
	char name[]; /* "": attributes of nodeid */
};

struct notify {
	struct fuse_session *session;
	pthread_t thread;
	struct lock lock;
	struct cond wake;
	/* -- guarded by lock -- */
	struct item *first, **last;
	size_t n;
	bool stop;
};

static void tell(struct notify *n, const struct item *item)
{
	int64_t start = util_now_ms();
	int r = item->name[0]
	                ? fuse_lowlevel_notify_inval_entry(n->session, item->nodeid, item->name, strlen(item->name))
	                : fuse_lowlevel_notify_inval_inode(n->session, item->nodeid, -1, 0);
	if (r < 0 && r != -ENOENT)
		log_debug("notification failed: %s", strerror(-r));
	int64_t took = util_now_ms() - start;
	if (took > 500)
		log_warn("the kernel took %lld ms for one notification", (long long)took);
}

static void *drain(void *arg)
{
	struct notify *n = arg;
	for (;;) {
		struct item *item;
		{
			LOCKED(&n->lock);
			while (!n->first && !n->stop)
				cond_wait(&n->wake, &n->lock);
			if (n->stop)
				return NULL;
			item = n->first;
			n->first = item->next;
			if (!n->first)
				n->last = &n->first;
			n->n--;
		}
		tell(n, item);
		free(item);
	}
}

int notify_new(struct fuse_session *session, struct notify **ret)
{
	struct notify *n = calloc(1, sizeof(*n));
	if (!n)
		return -ENOMEM;
	n->session = session;
	n->last = &n->first;
	lock_init(&n->lock, LOCK_NOTIFY);
	cond_init(&n->wake);
	int r = pthread_create(&n->thread, NULL, drain, n);
	if (r) {
		cond_fini(&n->wake);
		lock_fini(&n->lock);
		free(n);
		return -r;
	}
	*ret = n;
	return 0;
}

static void queue(struct notify *n, uint64_t nodeid, const char *name)
{
	struct item *item = malloc(sizeof(*item) + strlen(name) + 1);
	if (!item)
		return;
	item->next = NULL;
	item->nodeid = nodeid;
	memcpy(item->name, name, strlen(name) + 1);
	{
		LOCKED(&n->lock);
		if (!n->stop && n->n < QUEUE_MAX) {
			*n->last = item;
			n->last = &item->next;
			n->n++;
			item = NULL;
			cond_signal(&n->wake);
		}
	}
	free(item);
}

void notify_entry(struct notify *n, uint64_t parent, const char *name)
{
	queue(n, parent, name);
}

void notify_attr(struct notify *n, uint64_t nodeid)
{
	queue(n, nodeid, "");
}

void notify_stop(struct notify *n)
{
	LOCKED(&n->lock);
	n->stop = true;
	cond_broadcast(&n->wake);
}

void notify_free(struct notify *n)
{
	if (!n)
		return;
	notify_stop(n);
	pthread_join(n->thread, NULL);
	while (n->first) {
		struct item *next = n->first->next;
		free(n->first);
		n->first = next;
	}
	cond_fini(&n->wake);
	lock_fini(&n->lock);
	free(n);
}
