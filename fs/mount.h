/* mount: one mount from its start to the end of its process: builds every object in order, goes to the
 * background, signals, teardown. */
#ifndef HUGFS_MOUNT_H
#define HUGFS_MOUNT_H

#include "opts.h"

/* Mounts SOURCE at MOUNTPOINT. In the background it returns when the mount works, in the foreground when
 * it has ended. The process's exit status: on failure one sentence that says what is wrong and what to do
 * is on stderr. */
int mount_run(const struct opts *opts, const char *source, const char *mountpoint) MUST_USE;

#endif
