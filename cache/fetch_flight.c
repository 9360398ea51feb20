/* fetch_flight: one flight on its worker: claim, request, store, tell.
 *
 * For: what is tried in which order when a place, another daemon, the disk or the bytes are bad. Not for:
 * which flights there are (fetch.c). One transfer worker enters with one flight. */
#define LOG_MODULE "fetch"
#include "fetch_int.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#define TAKE_OVER_MS 10000 /* another daemon fills a block and brings nothing for so long: we fetch it too */

struct pour {
	struct flight *fl;
	uint64_t block, end; /* `end` comes nearer when another flight takes over what is behind it */
	uint8_t *buf; /* of BLOCKS_SIZE */
	size_t fill;
};

static int pour_block(struct pour *p, size_t len)
{
	struct source *s = p->fl->s;
	int r = blocks_store(s->blob, p->block, p->buf, len);

	if (r == -EBADMSG)
		return r;
	if (r < 0) {
		uint8_t *spare = malloc(BLOCKS_SIZE);

		if (!spare)
			return -ENOMEM;
		LOCKED(&s->f->lock);
		r = fetch_ring_put_locked(s, p->block, p->buf, len);
		p->buf = spare;
		if (r < 0)
			return r;
	}
	p->fill = 0;
	p->block++;
	return 0;
}

static int pour_sink(void *arg, const void *data, size_t len)
{
	struct pour *p = arg;
	struct source *s = p->fl->s;
	const uint8_t *from = data;

	while (len) {
		size_t want, n;
		int r;

		if (p->block >= p->end)
			return p->end < s->n_blocks ? -ECANCELED : -EIO;
		want = (size_t)fetch_block_len(s, p->block);
		n = MIN(len, want - p->fill);
		memcpy(p->buf + p->fill, from, n);
		p->fill += n;
		from += n;
		len -= n;
		if (p->fill < want)
			return 0;
		r = pour_block(p, want);
		if (r < 0)
			return r;
		p->end = MIN(p->end, fetch_deliver(p->fl, p->block));
	}
	return 0;
}

/* Brings blocks [first, end) from one place. */
static int transfer(struct flight *fl, uint64_t first, uint64_t end, const struct place *place)
{
	struct source *s = fl->s;
	struct pour p = {.fl = fl, .block = first, .end = end, .buf = malloc(BLOCKS_SIZE)};
	struct hub_error err = {0};
	int r;

	if (!p.buf)
		return -ENOMEM;
	r = hub_read_range(s->f->hub, &place->p, &s->key, first * BLOCKS_SIZE, fetch_bytes(s, first, end),
	                   pour_sink, &p, &fl->cancel, &err);
	free(p.buf);
	if (p.block >= p.end && p.fill == 0 && (r == 0 || r == -ECANCELED))
		return 0;
	return r < 0 ? r : -EIO;
}

/* Asks the official client's cache, once for each repository that has the blob. True: it has these bytes. */
static bool probe_hfcache(struct source *s)
{
	struct fetch *f = s->f;
	bool found = false;

	if (!f->hfcache)
		return false;
	for (unsigned i = 0; i < PLACES_MAX && !found; i++) {
		struct place *p;
		int fd = -1, r;

		{
			LOCKED(&f->lock);
			if (i >= s->n_places)
				break;
			p = s->places[i];
			if (p->probed)
				continue;
			p->probed = true;
		}
		r = hfcache_open(f->hfcache, &(struct hfcache_place){&p->p.id, p->p.commit, p->p.path}, &s->key,
		                 &fd);
		if (r == 0) {
			int none = -1;

			log_debug("%s is read from the official client's cache", p->p.path);
			if (!atomic_compare_exchange_strong(&s->alt_fd, &none, fd))
				close(fd);
			found = true;
		}
	}
	LOCKED(&f->lock);
	s->probing = false;
	cond_broadcast(&f->work);
	return found;
}

/* Claims as many of [first, *end) as other daemons leave: *end says how far. -EBUSY: not even the first. */
static int claim_some(struct source *s, uint64_t first, uint64_t *end)
{
	uint64_t n = *end - first;
	int r = blocks_claim(s->blob, first, n);

	while (r == -EBUSY && n > 1) {
		n /= 2;
		r = blocks_claim(s->blob, first, n);
	}
	if (r == 0)
		*end = first + n;
	return r;
}

/* The next blocks of the flight that are missing: [*ret_first, *ret_end). False: there are none left. */
static bool next_missing(struct flight *fl, uint64_t *ret_first, uint64_t *ret_end)
{
	struct source *s = fl->s;
	uint64_t first, end;

	{
		LOCKED(&s->f->lock);
		first = fl->cur;
		while (first < fl->end && fetch_resident_locked(s, first))
			first++;
		end = first;
		while (end < fl->end && !fetch_resident_locked(s, end))
			end++;
	}
	if (first > fl->cur)
		(void)fetch_deliver(fl, first);
	*ret_first = first;
	*ret_end = end;
	return first < end;
}

/* All that was stored is dropped (a wrong hash): the flight begins anew, if anybody may still trust it. */
static int start_again(struct flight *fl)
{
	LOCKED(&fl->s->f->lock);
	fetch_rewind_locked(fl);
	return fetch_distrusted(fl->s) ? -EIO : 0;
}

static struct place *place_at(struct source *s, unsigned i)
{
	LOCKED(&s->f->lock);
	return i < s->n_places ? s->places[i] : NULL;
}

/* Another daemon brings the blocks. -EBUSY: look again later; 0: it has brought nothing for too long. */
static int leave_to_other(struct flight *fl)
{
	int64_t now = util_now_ms();
	LOCKED(&fl->s->f->lock);

	/* `first` is where it stood when it was queued last. */
	if (!fl->busy_since_ms || fl->cur > fl->first)
		fl->busy_since_ms = now;
	if (now - fl->busy_since_ms < TAKE_OVER_MS)
		return -EBUSY;
	log_warn("another daemon fills a block and brings nothing: it is fetched here too");
	return 0;
}

int fetch_flight_run(struct flight *fl)
{
	struct source *s = fl->s;
	unsigned at = 0;
	uint64_t first, end;

	if (!fl->hedge && probe_hfcache(s)) {
		(void)fetch_deliver(fl, fl->end);
		return 0;
	}
	while (next_missing(fl, &first, &end)) {
		int claim, r;

		if (atomic_load(&fl->cancel))
			return -ECANCELED;
		claim = claim_some(s, first, &end);
		if (claim == -EALREADY)
			continue;
		if (claim == -EBUSY)
			claim = leave_to_other(fl) < 0 ? -EBUSY : 1;
		if (claim < 0)
			return claim;
		r = transfer(fl, first, end, place_at(s, at));
		if (claim == 0)
			blocks_unclaim(s->blob, first, end - first);
		if ((r == -EACCES || r == -ENOENT) && place_at(s, at + 1)) {
			at++;
			continue;
		}
		if (r == -ENOENT)
			r = -ESTALE; /* the name is there, its commit is gone */
		if (r == -EBADMSG)
			r = start_again(fl);
		if (r < 0)
			return r;
	}
	return 0;
}
