/* ops_wire: the parts of the kernel's protocol that Debian 12's libfuse (3.14) does not speak: see ops_wire.c. Private to
 * ops. */
#ifndef HUGFS_OPS_WIRE_H
#define HUGFS_OPS_WIRE_H

#include <stdatomic.h>

#include "util.h"

struct fuse_session;

/* Of one mount: part of struct ops. */
struct ops_wire {
	struct fuse_session *session;
	char *mountpoint;
	bool may_lend;               /* passthrough was not forbidden, and we have the privilege */
	int stack_depth;             /* of the file systems below us, as INIT is answered */
	atomic_uint_fast64_t init;   /* INIT is being answered under this number; 0: no */
	atomic_bool lends;           /* the kernel takes files from us; goes off for good when it refuses one */
};

void ops_wire_fini(struct ops_wire *w);

/* Gives the kernel the file behind `fd`, to be read without asking us: its number in the kernel's table, > 0. -EOPNOTSUPP:
 * no passthrough in this mount; else what the kernel said: then this file is read through us. */
int ops_wire_lend(struct ops_wire *w, int fd) MUST_USE;
void ops_wire_take_back(struct ops_wire *w, int id);

/* The answer to an OPEN or CREATE that this thread sends next lends the file `id`; 0: it does not. */
void ops_wire_answer(int id);
/* The request that this thread has read last also asks for the set-user-ID and set-group-ID bits to go. */
bool ops_wire_kills_suid(void);

#endif
