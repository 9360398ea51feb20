/* readahead: which range comes next. Pure: the caller holds what lock it needs and tells the time.
 *
 * Streams belong to the inode: forked readers and the kernel's reordered read-ahead each find their own. A
 * window opens when a second read goes on about where the first ended and more than READAHEAD_PROOF bytes
 * were read in a row (the kernel cuts one small read of a program into two), doubles only when a reader had
 * to wait, and closes for random access: a read that goes on nowhere starts a stream without a window. */
#ifndef HUGFS_READAHEAD_H
#define HUGFS_READAHEAD_H

#include "util.h"

#define READAHEAD_STREAMS 8
#define READAHEAD_PROOF ((uint64_t)256 << 10)
#define READAHEAD_FIRST ((uint64_t)4 << 20)  /* the window when it opens */
#define READAHEAD_BLOCK ((uint64_t)1 << 20)  /* answers are aligned to it: BLOCKS_SIZE of blocks.h */
struct readahead_stream {
	uint64_t start;      /* where its first read began */
	uint64_t next_off;   /* where a contiguous read would start */
	uint64_t issued_end; /* asked for up to here */
	uint64_t window;     /* bytes to stay ahead; 0: none yet */
	uint64_t doubled_at; /* next_off when the window last grew */
	uint64_t used;       /* counter of the last read, for LRU; 0: no stream */
};
struct readahead {
	struct readahead_stream streams[READAHEAD_STREAMS];
	uint64_t clock;
};

/* A read of [off, off+len) of a file of `size` bytes came in, and its reader has to wait (or not). Answers in
 * *ret_off,*ret_len what to fetch ahead now, block aligned; len 0: nothing. `max_window`
 * caps the window. */
void readahead_note(struct readahead *ra, uint64_t off, uint64_t len, uint64_t size, bool waited,
                    uint64_t max_window, uint64_t *ret_off, uint64_t *ret_len);

#endif
