/* control: the control socket: both ends in one file, so that they cannot drift. control.c: the protocol
 * and the daemon's end; control_mounts.c: which mount a path lies in, how to take a mount away, who holds
 * files in it.
 *
 * A mount listens on a Unix socket (mode 0600, in $XDG_RUNTIME_DIR/hugfs or /tmp/hugfs-UID, mode 0700 and
 * owner checked), named by a hash of the mountpoint and its pid. The peer's uid must be the mount's or
 * root's. One request per connection, text lines. */
#ifndef HUGFS_CONTROL_H
#define HUGFS_CONTROL_H

#include "ops.h"
#include "view.h"

/* -- what is said -- */

enum control_verb {
	CONTROL_STATUS,
	CONTROL_COMMIT,  /* publish now, wait */
	CONTROL_DISCARD, /* throw staged changes at and below the path away */
	CONTROL_UMOUNT,  /* publish what is settled, then unmount unless files are open */
	CONTROL_BEGIN,   /* a transaction, which ends when this connection does */
	CONTROL_END,     /* of that: outcome */
	CONTROL_DIFF,    /* what the next commit would hold: changes with state added, changed, renamed, deleted */
	CONTROL_LOG,     /* items: the last `limit` commits of the revision, or those that changed the file */
	CONTROL_TAG,     /* the revision's head gets the tag `title`; `description` is its message */
	CONTROL_REFRESH, /* look now whether branches moved */
	CONTROL_YIELD,   /* to a daemon whose mount is gone: leave the branches of that repository now */
};
struct control_request {
	uint64_t verb;
	char *path;        /* in the mount, no leading slash; "" is its root. YIELD: "ns/name", "" for all */
	char *endpoint;    /* YIELD */
	uint64_t limit;    /* LOG */
	char *title;       /* COMMIT; NULL: made from what changed */
	char *description; /* COMMIT */
	bool interrupted;  /* COMMIT: interrupted files too */
	char *outcome;     /* END: "commit", "hold", "discard" */
	bool pr;           /* COMMIT, END: to a pull request */
	char *on_conflict; /* COMMIT: "keep", "pr" or "ours", for what is in conflict too; NULL: as the mount's option */
};

struct control_change {
	char *path;  /* below the revision */
	char *state; /* staged, open, committing, conflict, interrupted, local, moved, deleted */
	bool folder;
	uint64_t size;
	char *from;        /* DIFF: where it was; NULL: it was not moved */
	uint64_t old_size; /* DIFF: of what it replaces or deletes */
};
/* One commit of LOG. */
struct control_item {
	char *id, *author, *title;
	int64_t date_s;
};
#define CONTROL_ITEMS_MAX 1000
/* What is known of one revision that the mount touched. */
struct control_rev {
	char *repo;     /* "datasets/ns/name" */
	char *revision;
	char *head;     /* 40 hex; "" not looked at yet */
	bool writable;
	uint64_t files, deletions, open, interrupted, conflicts, bytes; /* staged */
	char *phase;    /* idle, waiting, uploading, committing, failed */
	int64_t next_ms; /* WAITING, FAILED: in that time it tries; -1: not by itself */
	uint64_t sent, to_send;
	char *transaction; /* "", "running", "held" */
	char *pr_url;   /* the pull request that commits went to; "" none */
	char *last_commit; /* "" none yet */
	int64_t last_error; /* errno of the last try; 0: went well or none yet */
	char *last_text;
	/* COMMIT, UMOUNT */
	int64_t error;  /* errno; 0: published, or there was nothing */
	char *error_text;
	char *commit;   /* "" there was nothing to publish */
	char *url;
	uint64_t left_out; /* files that are open or interrupted */
	struct control_change *changes; /* at most CONTROL_CHANGES_MAX */
	size_t n_changes;
};
#define CONTROL_CHANGES_MAX 10000 /* told of one revision; the counts above are of all */
struct control_answer {
	int64_t error;    /* errno of the whole request */
	char *error_text;
	uint64_t pid;
	char *source, *mountpoint, *endpoint;
	bool read_only;
	bool unmounted;   /* it only publishes what is left */
	uint64_t cache_bytes, cache_max, cache_objects;
	uint64_t transaction; /* BEGIN: its number */
	uint64_t parked;  /* requests that wait for the network */
	struct control_rev *revs;
	size_t n_revs;
	struct control_item *items;
	size_t n_items;
};
void control_answer_fini(struct control_answer *a);

/* -- the daemon's end -- */

struct control;

struct control_env {
	struct hub *hub;
	struct tree *tree;
	struct view *view;
	struct ops *ops;
	struct blocks *blocks;
	const struct opts *opts;
	const struct ignore *ignore;
	const char *endpoint;
	const char *source;     /* as shown: hf://user/repo */
	const char *mountpoint; /* absolute */
	int stop_fd;            /* eventfd: written when another mount takes over and we shall leave */
};
/* Starts its thread. -EPERM: the folder of the socket belongs to somebody else (logged). */
int control_new(const struct control_env *env, struct control **ret) MUST_USE;
/* The mount is gone: from now on only status and yield are answered. When it returns nobody here uses a
 * publisher any more, but for those that wait in publish_commit. */
void control_drain(struct control *c);
/* Was it unmounted by `hugfs umount`, which has published already? */
bool control_unmounted(struct control *c);
/* Ends the threads after the requests under way (publish_free ends those that wait for a commit). The
 * socket stays: who asks now waits for the end of the process, and then knows that all locks are free. */
void control_stop(struct control *c);
/* Only removes the socket's name: for a process that ends at once. */
void control_unlink(struct control *c);
/* The last thing before the process ends: removes the socket. */
void control_free(struct control *c);

/* -- the client's end -- */

/* Sockets of living mounts of `uid`, NULL-terminated; those of `mountpoint`, unless NULL. Dead ones are
 * removed. */
int control_sockets(uid_t uid, const char *mountpoint, char ***ret) MUST_USE;
void control_sockets_free(char **sockets);
void control_sockets_freep(char ***sockets);
/* Asks and waits for the answer, as long as it takes. 0 when one came, whatever it says; -ECONNREFUSED:
 * nobody is there; -EPROTO. ret_fd, unless NULL: the connection, which the daemon keeps until it has ended
 * (UMOUNT, YIELD); the caller closes it. */
int control_ask(const char *socket, const struct control_request *req, struct control_answer *ret,
                int *ret_fd) MUST_USE;
/* The same in two steps, for somebody who wants to look at other things meanwhile: the descriptor is
 * readable when the answer has begun. */
int control_send(const char *socket, const struct control_request *req, int *ret_fd) MUST_USE;
int control_receive(int fd, struct control_answer *ret) MUST_USE;
/* Asks every daemon of this user whose mount is gone to leave the repository (NULL: all of them) to us,
 * and waits at most `ms` until those that were in the way have ended. */
void control_take_over(const char *endpoint, const struct repo_id *repo, int ms);

/* -- mounts -- */

struct control_mount {
	char *mountpoint;
	char *path;   /* of what was asked for, in the mount, without leading slash */
	uid_t uid;    /* who mounted it */
};
void control_mount_fini(struct control_mount *m);
/* The hugfs mount that `path` lies in, by /proc/self/mountinfo; what is not there (deleted, or the mount
 * is dead) is found by its name. -ENOENT: it lies in no hugfs mount. */
int control_find(const char *path, struct control_mount *ret) MUST_USE;
/* Takes the mount away: umount2 as root, fusermount3 otherwise. lazy: also while files are open. -EBUSY;
 * -EINVAL: not a mount; -EPERM with the words of fusermount3 in the log. Blocks on the kernel. */
int control_detach(const char *mountpoint, bool lazy) MUST_USE;
/* Processes with open files, folders or mappings in the mount, as lines "PID NAME", as far as this user
 * may see them. */
int control_holders(const char *mountpoint, struct buf *out) MUST_USE;
/* Is there a program of that name to be run? fusermount3 is also looked for where libfuse does. */
bool control_have_fusermount(void);

#endif
