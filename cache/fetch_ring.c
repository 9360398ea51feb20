/* fetch_ring: blocks that the disk refused, kept in memory until newer ones take their room.
 *
 * Not for: when a block goes there (fetch_flight.c), nor for the budget (fetch_queue.c). All under
 * fetch.lock. */
#define LOG_MODULE "fetch"
#include "fetch_int.h"

#include <errno.h>

static struct ring_block **find_locked(struct fetch *f, const struct source *s, uint64_t block)
{
	for (struct ring_block **p = &f->ring_first; *p; p = &(*p)->next)
		if ((*p)->s == s && (*p)->block == block)
			return p;
	return NULL;
}

static void remove_locked(struct fetch *f, struct ring_block **p)
{
	struct ring_block *b = *p;

	*p = b->next;
	if (f->ring_end == &b->next)
		f->ring_end = p;
	atomic_fetch_sub(&f->ring_bytes, b->len);
	free(b->data);
	free(b);
}

struct ring_block *fetch_ring_find_locked(struct source *s, uint64_t block)
{
	struct ring_block **p = find_locked(s->f, s, block);

	return p ? *p : NULL;
}

void fetch_ring_shrink_locked(struct fetch *f, uint64_t bytes)
{
	while (f->ring_first && atomic_load(&f->ring_bytes) > bytes)
		remove_locked(f, &f->ring_first);
}

int fetch_ring_put_locked(struct source *s, uint64_t block, uint8_t *data, size_t len)
{
	struct fetch *f = s->f;
	struct ring_block *b;

	if (find_locked(f, s, block)) {
		free(data);
		return 0;
	}
	b = malloc(sizeof(*b));
	if (!b) {
		free(data);
		return -ENOMEM;
	}
	fetch_ring_shrink_locked(f, f->ring_max - MIN(len, f->ring_max));
	*b = (struct ring_block){.s = s, .block = block, .data = data, .len = len};
	*f->ring_end = b;
	f->ring_end = &b->next;
	atomic_fetch_add(&f->ring_bytes, len);
	return 0;
}

void fetch_ring_forget_locked(struct source *s)
{
	struct fetch *f = s->f;

	for (struct ring_block **p = &f->ring_first; *p;) {
		if ((*p)->s == s)
			remove_locked(f, p);
		else
			p = &(*p)->next;
	}
}
