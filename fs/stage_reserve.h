/* stage_reserve: blocks of the disk that a file has beyond its end, so that it can grow when the disk is full. */
#ifndef HUGFS_STAGE_RESERVE_H
#define HUGFS_STAGE_RESERVE_H

#include "util.h"

struct stage_reserve {
	uint64_t want; /* bytes beyond the end; 0: this disk cannot do that */
	uint64_t have; /* the file has blocks up to here */
	bool tight;    /* there was no room for more */
};

/* How much to keep for the file `fd`: little on a small disk, or a full one. */
void stage_reserve_plan(struct stage_reserve *r, int fd);
/* The file has `end` bytes of use now: gets blocks once half of what there was is used up. */
void stage_reserve_fill(struct stage_reserve *r, int fd, uint64_t end);
/* Is the disk full but for this? Looks again when it was. */
bool stage_reserve_is_tight(struct stage_reserve *r, int fd);

/* A file of its own in `dir` keeps some more, for opening the journal and for closing it, which moves the log into the database. */
void stage_reserve_park(const char *dir);
void stage_reserve_unpark(const char *dir);

#endif
