/* readahead: which range comes next.
 *
 * For: the arithmetic of streams and windows. Not for: queues, budgets or blocks that are there already
 * (fetch.c). Pure; the caller holds what lock it needs.
 *
 * States of a stream: unused -> started (one read, no window) -> open (window > 0) -> taken over by a newer
 * one, least recently used first. */
#define LOG_MODULE "readahead"
#include "readahead.h"

/* The kernel sends the read-aheads of one reader out of order: so much before and after the end of a stream
 * still belongs to it; of one that has not proven itself, two requests of the kernel's default size. */
#define BACK ((uint64_t)4 << 20)
#define FORWARD ((uint64_t)1 << 20)
#define NEAR ((uint64_t)256 << 10)

static struct readahead_stream *match(struct readahead *ra, uint64_t off)
{
	struct readahead_stream *best = NULL;

	for (int i = 0; i < READAHEAD_STREAMS; i++) {
		struct readahead_stream *s = &ra->streams[i];
		uint64_t forward = s->window ? FORWARD : NEAR;

		if (s->used == 0 || off > s->next_off + forward || off + BACK < s->next_off ||
		    off + NEAR < s->start)
			continue;
		/* The one whose end is nearest. */
		if (!best || (off > s->next_off ? off - s->next_off : s->next_off - off) <
		                     (off > best->next_off ? off - best->next_off : best->next_off - off))
			best = s;
	}
	return best;
}

static struct readahead_stream *oldest(struct readahead *ra)
{
	struct readahead_stream *s = &ra->streams[0];

	for (int i = 1; i < READAHEAD_STREAMS; i++)
		if (ra->streams[i].used < s->used)
			s = &ra->streams[i];
	return s;
}

static uint64_t align_up(uint64_t n)
{
	return (n + READAHEAD_BLOCK - 1) / READAHEAD_BLOCK * READAHEAD_BLOCK;
}

void readahead_note(struct readahead *ra, uint64_t off, uint64_t len, uint64_t size, bool waited,
                    uint64_t max_window, uint64_t *ret_off, uint64_t *ret_len)
{
	struct readahead_stream *s = match(ra, off);
	uint64_t end = off + len, want;

	*ret_off = 0;
	*ret_len = 0;
	if (!s) {
		s = oldest(ra);
		*s = (struct readahead_stream){.start = off, .next_off = end, .issued_end = align_up(end),
		                               .used = ++ra->clock};
		return;
	}
	s->used = ++ra->clock;
	s->start = MIN(s->start, off);
	if (end <= s->next_off)
		return; /* read before: nothing new is learnt */
	s->next_off = end;
	s->issued_end = MAX(s->issued_end, align_up(end));
	if (max_window < READAHEAD_BLOCK || end - s->start <= READAHEAD_PROOF)
		return;
	if (!s->window) {
		s->window = MIN(READAHEAD_FIRST, max_window);
		s->doubled_at = end;
	} else if (waited && end - s->doubled_at >= s->window) {
		s->window = MIN(2 * s->window, max_window);
		s->doubled_at = end;
	}
	s->window = MIN(s->window, max_window);
	/* Topped up when half of it is used, so that requests stay large. */
	if (s->issued_end >= size || s->issued_end - end > s->window / 2)
		return;
	want = MIN(align_up(end + s->window), align_up(size));
	*ret_off = s->issued_end;
	*ret_len = want - s->issued_end;
	s->issued_end = want;
}
