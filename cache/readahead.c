/* readahead: which range comes next.
 *
 * For: the arithmetic of streams and windows. Not for: queues, budgets or blocks that are there already
 * (fetch.c). Pure; the caller holds what lock it needs.
 *
 * States of a stream: unused -> started (one read, no window) -> open (window > 0) -> started again when
 * nobody reads it, or taken over by a newer one, least recently used first. */
#define LOG_MODULE "readahead"
#include "readahead.h"

#include <string.h>
#include <strings.h>

/* The kernel sends the read-aheads of one reader out of order: so much before and after the end of a stream
 * still belongs to it. */
#define BACK ((uint64_t)4 << 20)
#define FORWARD ((uint64_t)1 << 20)
#define SPARSE 8                        /* a stream has read one byte in so many at least */
#define GROWTH 4                        /* x what was read in a row: the window where readers wait */
#define PART_MAX ((uint64_t)32 << 20)   /* hides a round trip of 40 ms on every line that one can buy */
#define PART_END ((uint64_t)4 << 20)    /* parts shrink to this towards the end of a large file */
#define TAIL_SHORT ((uint64_t)256 << 10) /* a last block of less: the directory may begin in the one before */

void readahead_init(struct readahead *ra, const char *path)
{
	static const char *const suffixes[] = {".parquet", ".safetensors", ".gguf", ".zip", ".npz", ".pt",
	                                       ".pth", ".arrow"};
	const char *dot = strrchr(path, '.');

	*ra = (struct readahead){0};
	for (size_t i = 0; dot && i < ARRAY_LEN(suffixes); i++)
		ra->has_tail |= strcasecmp(dot, suffixes[i]) == 0;
}

static uint64_t align_up(uint64_t n)
{
	return (n + READAHEAD_BLOCK - 1) / READAHEAD_BLOCK * READAHEAD_BLOCK;
}

static uint64_t align_down(uint64_t n)
{
	return n / READAHEAD_BLOCK * READAHEAD_BLOCK;
}

static uint64_t distance(uint64_t a, uint64_t b)
{
	return a > b ? a - b : b - a;
}

/* The stream whose end is nearest, if it is near enough. */
static struct readahead_stream *match(struct readahead *ra, uint64_t off)
{
	struct readahead_stream *best = NULL;

	for (int i = 0; i < READAHEAD_STREAMS; i++) {
		struct readahead_stream *s = &ra->streams[i];

		if (s->used == 0 || off > s->next_off + FORWARD || off + BACK < s->next_off ||
		    off + FORWARD < s->start)
			continue;
		if (!best || distance(off, s->next_off) < distance(off, best->next_off))
			best = s;
	}
	return best;
}

/* Nobody reads on: what it asked for beyond its end is taken back. */
static void stream_end(struct readahead_stream *s, struct readahead_ask *ret)
{
	uint64_t from = align_up(s->next_off);

	if (s->window && from < s->issued_end) {
		ret->dead_off = from;
		ret->dead_end = s->issued_end;
	}
	s->window = 0;
	s->issued_end = from;
	s->start = s->next_off;
	s->bytes = 0;
}

static struct readahead_stream *take_over(struct readahead *ra, const struct readahead_read *read,
                                          struct readahead_ask *ret)
{
	struct readahead_stream *s = &ra->streams[0];

	for (int i = 1; i < READAHEAD_STREAMS; i++)
		if (ra->streams[i].used < s->used)
			s = &ra->streams[i];
	stream_end(s, ret);
	*s = (struct readahead_stream){.start = read->off,
	                               .next_off = read->off + read->len,
	                               .bytes = read->len,
	                               .issued_end = align_up(read->off + read->len),
	                               .last_ms = read->now_ms};
	return s;
}

/* One dead stream, if there is one, and the number of those that are open. */
static unsigned look_around(struct readahead *ra, const struct readahead_read *read,
                            struct readahead_ask *ret)
{
	unsigned open = 0;

	for (int i = 0; i < READAHEAD_STREAMS; i++) {
		struct readahead_stream *s = &ra->streams[i];

		if (s->window && ret->dead_off == ret->dead_end && read->now_ms - s->last_ms > READAHEAD_DEAD_MS)
			stream_end(s, ret);
		open += s->window > 0;
	}
	return open;
}

/* A second block of the file is read: the directory at its end will be wanted. */
static void ask_tail(struct readahead *ra, const struct readahead_read *read, struct readahead_ask *ret)
{
	uint64_t end = align_up(read->size), last = end - READAHEAD_BLOCK;

	if (!ra->has_tail)
		return;
	if (!ra->first_read)
		ra->first_read = read->off / READAHEAD_BLOCK + 1;
	if ((read->off + read->len - 1) / READAHEAD_BLOCK + 1 == ra->first_read)
		return;
	ra->has_tail = false;
	if (read->size - last < TAIL_SHORT && last >= READAHEAD_BLOCK)
		last -= READAHEAD_BLOCK;
	ret->tail_off = last;
	ret->tail_end = end;
}

/* Opens the window of a stream that goes on, or widens that of one whose reader had to wait: what was read in a
 * row says how much more may be worth it. */
static void grow(struct readahead_stream *s, const struct readahead_read *read, uint64_t most)
{
	uint64_t run = s->next_off - s->start;

	if (!s->window)
		s->window = READAHEAD_FIRST;
	else if (read->waited && s->window < GROWTH * run)
		s->window = align_down(GROWTH * run);
	s->window = MIN(s->window, most);
}

/* Large parts hide the round trip; smaller ones at the end let all connections finish together. */
static uint64_t part_of(const struct readahead_stream *s, uint64_t left, unsigned connections)
{
	uint64_t part = MIN(MIN(s->window, PART_MAX * connections) / connections,
	                    MAX(left / (2 * connections), MIN(PART_END, s->window / 32)));

	return MAX(align_down(part), READAHEAD_BLOCK);
}

void readahead_note(struct readahead *ra, const struct readahead_read *read, struct readahead_ask *ret)
{
	struct readahead_stream *s = match(ra, read->off);
	uint64_t end = read->off + read->len, most, left, want;
	unsigned open;

	*ret = (struct readahead_ask){0};
	ask_tail(ra, read, ret);
	if (!s) {
		s = take_over(ra, read, ret);
		s->used = ++ra->clock;
		return;
	}
	s->used = ++ra->clock;
	s->last_ms = read->now_ms;
	s->start = MIN(s->start, read->off);
	if (end <= s->next_off)
		return; /* read before: nothing new is learnt */
	s->bytes += end - MAX(read->off, s->next_off);
	s->next_off = end;
	s->issued_end = MAX(s->issued_end, align_up(end));
	if (read->max_window < READAHEAD_BLOCK || read->off <= s->start + MAX(READAHEAD_PROOF, 2 * read->len) ||
	    s->bytes < (end - s->start) / SPARSE || (!s->window && !read->follows))
		return;
	open = look_around(ra, read, ret);
	most = MAX(align_down(read->max_window / MAX(open, 1)), READAHEAD_BLOCK);
	grow(s, read, most);
	left = read->size - MIN(s->issued_end, read->size);
	ret->part = part_of(s, left, MAX(read->connections, 1));
	want = align_up(MIN(end + s->window, read->size));
	/* Topped up part by part, so that no connection waits for the reader. */
	if (left == 0 || want < s->issued_end + MIN(ret->part, left))
		return;
	ret->off = s->issued_end;
	ret->end = s->issued_end = want;
}
