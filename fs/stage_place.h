/* stage_place: where a stage lies on disk, and who owns it: its folder, its lock file, the list of all of
 * them.
 *
 *     ROOT/v1/<machine-id>/<endpoint>/<type>/<namespace>/<name>/<branch>/{journal.db,data/,lock} */
#ifndef HUGFS_STAGE_PLACE_H
#define HUGFS_STAGE_PLACE_H

#include "stage.h"

struct stage_place {
	char *top;  /* ROOT/v1 */
	char *dir;  /* the branch's folder */
	char *data; /* DIR/data */
	int lock_fd;
};

/* Makes the folder (create), checks that ROOT is ours, takes the lock. -ENOENT: no journal there and create
 * is false; -EBUSY: another process has it (logged); -EACCES: ROOT belongs to somebody else (logged). */
int stage_place_open(const char *root, const struct stage_ident *ident, bool create,
                     struct stage_place *ret) MUST_USE;
/* Leaves the lock. remove: takes the folder away, and the folders above it that are empty then. */
void stage_place_close(struct stage_place *p, bool remove);
/* After the journal was made: the folders down to it are durable when it returns 0. */
int stage_place_sync(const struct stage_place *p) MUST_USE;

/* The id that a stage's folder carries: that of the machine, or "local". Caller frees; NULL: no memory. */
char *stage_place_machine(void) MUST_USE;

#endif
