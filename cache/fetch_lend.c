/* fetch_lend: whole files that are lent, and bytes that are shown where they lie.
 *
 * For: which file on this machine holds all of a source's bytes, proven. Not for: reading it. Any thread enters; the disk is
 * asked for what is known of files, never for their bytes. */
#define LOG_MODULE "fetch"
#include "fetch_int.h"

#include <errno.h>
#include <unistd.h>

struct loan {
	struct source *s; /* keeps the blob, and the official client's file, open */
	int fd;           /* theirs */
	bool of_blob;
};

int fetch_look(struct source *s, uint64_t off, size_t len, const void **ret)
{
	return fetch_distrusted(s) ? -EAGAIN : blocks_look(s->blob, off, len, ret);
}

void fetch_look_end(struct source *s, uint64_t off, size_t len)
{
	blocks_look_end(s->blob, off, len);
}

/* The official client's file, if it was checked: by a read of this mount, or in an earlier one. */
static int lend_hfcache(struct source *s, int *ret_fd)
{
	struct fetch *f = s->f;
	int fd = atomic_load(&s->alt_fd);

	for (unsigned i = 0; fd < 0 && i < PLACES_MAX; i++) {
		const struct hub_place *p;
		int none = -1, found = -1;

		{
			LOCKED(&f->lock);
			if (i >= s->n_places)
				break;
			p = &s->places[i]->p; /* it stays as long as the source */
		}
		if (hfcache_open_checked(f->hfcache, &(struct hfcache_place){&p->id, p->commit, p->path}, &s->key,
		                         &found) < 0)
			continue;
		if (atomic_compare_exchange_strong(&s->alt_fd, &none, found)) {
			fd = found;
		} else {
			close(found);
			fd = none;
		}
	}
	if (fd < 0 || atomic_load(&s->alt_bad) || !hfcache_is_checked(f->hfcache, &s->key, fd))
		return -EAGAIN;
	*ret_fd = fd;
	return 0;
}

int fetch_lend(struct source *s, struct loan **ret)
{
	AUTO_FREE struct loan *l = NULL;
	int r;

	/* One block is one request, and then in the kernel's page cache: lending it would bring nothing. */
	if (s->n_blocks < 2 || fetch_distrusted(s))
		return -EAGAIN;
	l = calloc(1, sizeof(*l));
	if (!l)
		return -ENOMEM;
	r = blocks_lend(s->blob, &l->fd);
	l->of_blob = r == 0;
	if (r == -EAGAIN && s->f->hfcache)
		r = lend_hfcache(s, &l->fd);
	if (r < 0)
		return r;
	l->s = fetch_ref(s);
	*ret = STEAL(l);
	return 0;
}

int loan_fd(const struct loan *l)
{
	return l->fd;
}

void loan_end(struct loan *l)
{
	if (!l)
		return;
	if (l->of_blob)
		blocks_lend_end(l->s->blob);
	fetch_close(l->s);
	free(l);
}
