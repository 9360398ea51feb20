/* ops: one kernel request: decode, call, reply exactly once. ops.c: the table, parked requests and their workers, publishers of
 * branches; ops_dir.c: names; ops_file.c: opens and bytes; ops_xattr.c: extended attributes.
 *
 * A FUSE thread never waits for the network: a request that needs it is parked and goes on in a worker; when it is interrupted it
 * is answered EINTR at once. */
#ifndef HUGFS_OPS_H
#define HUGFS_OPS_H

#include "publish.h"
#include "view.h"

struct ops;
struct fuse_lowlevel_ops;
struct fuse_session;

struct ops_env {
	struct view *view;
	struct hub *hub;
	struct tree *tree;
	struct blocks *blocks;
	struct fetch *fetch;
	const struct opts *opts;
	const struct ignore *ignore;
};
/* Starts `workers` (0: 4) threads for metadata. The view is set later with ops_set_view, because it needs ops_staged first. */
int ops_new(const struct ops_env *env, unsigned workers, struct ops **ret) MUST_USE;
void ops_set_view(struct ops *o, struct view *view);
/* After the session's loop has ended. Answers every parked request with EINTR, joins the workers (http_stop first makes it
 * quick), ends the writers whose RELEASE never came. */
void ops_stop(struct ops *o);
/* After the session's loop has ended, publishers are gone and the network was stopped: waits until fetch has given back
 * the requests that it still holds. */
void ops_free(struct ops *o);

/* For fuse_session_new, with `struct ops *` as user data. */
const struct fuse_lowlevel_ops *ops_table(void);

/* Between fuse_session_mount and the session's loop: has the kernel's requests pass by ops_wire.c. 0 or -errno. */
int ops_attach(struct ops *o, struct fuse_session *session, const char *mountpoint) MUST_USE;

/* view_env.staged and .unstaged: arg is the struct ops. */
int ops_staged(void *arg, struct rev *rev, struct stage *stage, struct publish **ret);
bool ops_unstaged(void *arg, struct publish *publish);

/* Requests that are parked now, for status. */
unsigned ops_parked(struct ops *o);

#endif
