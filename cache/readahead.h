/* readahead: which range comes next. Pure: the caller holds what lock it needs and tells the time.
 *
 * Streams belong to the inode: forked readers and the kernel's reordered read-ahead each find their own. A
 * window opens when a read goes on about where the last ended and more than READAHEAD_PROOF bytes before it were
 * read in a row, and two reads as large as it (a header opens none, nor what the kernel asks ahead of a program), grows when a reader had to
 * wait, and closes for random access: a read that goes on nowhere starts a stream without a window. A
 * stream that nobody read for READAHEAD_DEAD_MS while others were is dead: what it asked for is taken back.
 *
 * Formats that keep their table of contents at the end (readahead_init) have the end fetched as soon as a
 * second part of the file is read; the first read of a file brings its own block and nothing else. */
#ifndef HUGFS_READAHEAD_H
#define HUGFS_READAHEAD_H

#include "util.h"

#define READAHEAD_STREAMS 16
#define READAHEAD_PROOF ((uint64_t)512 << 10)
#define READAHEAD_FIRST ((uint64_t)8 << 20)  /* the window when it opens */
#define READAHEAD_BLOCK ((uint64_t)1 << 20)  /* answers are aligned to it: BLOCKS_SIZE of blocks.h */
#define READAHEAD_DEAD_MS 5000
struct readahead_stream {
	uint64_t start;      /* where its first read began */
	uint64_t next_off;   /* where a contiguous read would start */
	uint64_t bytes;      /* read between the two */
	uint64_t issued_end; /* asked for up to here */
	uint64_t window;     /* bytes to stay ahead; 0: none yet */
	uint64_t used;       /* counter of the last read, for LRU; 0: no stream */
	int64_t last_ms;
};
struct readahead {
	struct readahead_stream streams[READAHEAD_STREAMS];
	uint64_t clock;
	bool has_tail;       /* of a format with its directory at the end, not yet asked for */
	uint64_t first_read; /* block of the first read, + 1 */
};

/* One read, as it comes in. */
struct readahead_read {
	uint64_t off, len, size; /* bytes [off, off+len) of a file of `size`; len > 0 */
	bool waited;             /* its reader has to wait */
	bool follows;            /* the byte before it is here: a program may have come so far, not only the kernel */
	int64_t now_ms;
	uint64_t max_window;     /* for the whole inode */
	unsigned connections;    /* that share the work: a window is cut into so many parts */
};
/* What to do about it. Ranges are block aligned; empty ones (off == end) ask for nothing. */
struct readahead_ask {
	uint64_t off, end;           /* fetch ahead now ... */
	uint64_t part;               /* ... in requests of so many bytes */
	uint64_t tail_off, tail_end; /* fetch before what is ahead: the directory of the file */
	uint64_t dead_off, dead_end; /* was asked for, and nobody will come for it */
};

/* `path` tells the format. */
void readahead_init(struct readahead *ra, const char *path);
void readahead_note(struct readahead *ra, const struct readahead_read *read, struct readahead_ask *ret);

#endif
