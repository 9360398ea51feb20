/* publish: one thread per branch that was written to, and a second one while a commit is made. It asks schedule when,
 * lets commit work, and answers those who wait.
 *
 * ops tells it what happens (none of these calls blocks, none may be made with a stage or inode lock held except as said);
 * it never calls back into ops but through the call-backs of the waiters, from its own thread with no lock held. */
#ifndef HUGFS_PUBLISH_H
#define HUGFS_PUBLISH_H

#include "blocks.h"
#include "commit.h"
#include "fetch.h"
#include "hub.h"
#include "ignore.h"
#include "opts.h"
#include "stage.h"
#include "tree.h"

struct publish;

/* What a publisher works with; all borrowed, all outlive it. */
struct publish_env {
	struct hub *hub;
	struct tree *tree;
	struct blocks *blocks; /* NULL: no cache */
	struct fetch *fetch;
	const struct opts *opts;
	const struct ignore *ignore;
	struct stage *stage;
	struct repo_id repo;
	const char *rev;
	const char *target; /* refs/pr/N that this mount's commits go to by now (-o pr); NULL: the branch, or none yet */
	/* Throws away what is staged at a path of the branch, for it is in a pull request now. Implemented by view. */
	int (*discard)(void *arg, const char *path);
	/* The commit is on the branch, or on `ref` where commits go instead: takes the overlay down over the new head. Implemented by view; calls stage_settle under the lock
	 * of the names, moves the inodes, calls tree_adopt. */
	int (*settle)(void *arg, const char *ref, const char *commit, int64_t date_s);
	void *arg;
};
/* Starts the thread. When the stage is not empty (a former mount left it), everything in it counts as changed just now and an
 * intent found there is looked for on the branch first. */
int publish_new(const struct publish_env *env, struct publish **ret) MUST_USE;

/* -- events -- */

enum publish_change { PUBLISH_CREATED, PUBLISH_RENAMED, PUBLISH_DELETED };
/* path: from the branch's root; of a rename the new one. */
void publish_changed(struct publish *p, enum publish_change what, const char *path, uint64_t node);
void publish_opened(struct publish *p, uint64_t node);                 /* a writer came */
void publish_wrote(struct publish *p, uint64_t node, uint64_t bytes);
void publish_closed(struct publish *p, uint64_t node, bool changed);   /* a writer went (RELEASE) */

/* -- waiting -- */

/* err: 0, or the errno of design.md 3.2. Called once. `id` is what publish_fsync answered. */
typedef void (*publish_done)(void *arg, int err);
/* fsync of a file (node) or of a folder (0: whatever is unpublished). The caller has made it durable locally (stage_sync). Freezes the
 * bytes of now and waits for their commit. 0: `done` will be called (perhaps before this returns); 1: nothing is unpublished, no
 * call-back; or -errno. The cases in which fsync is only local (design.md 3.2: unpublished names, fsync=stage, commit=manual) answer 1. */
int publish_fsync(struct publish *p, uint64_t node, publish_done done, void *arg, uint64_t *ret_id) MUST_USE;
/* close of a file by who wrote it, with commit=sync: as publish_fsync of a file, but it waits for the commit that comes by
 * itself, and for the commit alone: fsync=stage does not make it local. */
int publish_closing(struct publish *p, uint64_t node, publish_done done, void *arg, uint64_t *ret_id) MUST_USE;
/* The waiter was interrupted: true when `done` will not be called any more. */
bool publish_cancel(struct publish *p, uint64_t id);

struct publish_ask {
	const char *title;      /* NULL: made from what changed */
	const char *description;
	bool interrupted;       /* take interrupted files too */
	bool resolve;           /* on_conflict counts, not the option, and what is in conflict already is part of it */
	enum commit_on_conflict on_conflict;
	bool ends;              /* of a transaction: its commit; others get -EBUSY while it runs */
	bool held;              /* also of what a transaction left that did not end well; else -EBUSY */
	bool pr;                /* to a pull request, as with the option pr from now on */
	bool may_empty;         /* also a commit that leaves no file but .gitattributes, which is held otherwise (-EPERM) */
};
/* What an explicit commit came to. */
struct publish_answer {
	int err;
	char commit[41]; /* "" when there was nothing to publish */
	char *url;
	char *pr_url;    /* of the pull request that it went to; NULL: none */
	char text[400];  /* why it failed */
	uint64_t left_out; /* files that are open or interrupted */
};
/* hugfs commit, hugfs umount: at once; blocks the calling (control) thread until it is done or `deadline_ms` have passed
 * (-ETIMEDOUT; 0: no limit). */
int publish_commit(struct publish *p, const struct publish_ask *ask, int64_t deadline_ms, struct publish_answer *ret) MUST_USE;
void publish_answer_fini(struct publish_answer *a);

/* Ends what is sent ahead of a commit, for it may be thrown away. */
void publish_calm(struct publish *p);

/* A transaction of the branch begins, after what is settled was published (`ret` says how, also when that failed): until
 * publish_commit with `ends`, publish_tx_hold or publish_tx_ended every change belongs to it, fsync is local and nothing leaves the machine. -EBUSY: there is one
 * already. Blocks as publish_commit. */
int publish_tx_begin(struct publish *p, struct publish_answer *ret, uint64_t *ret_number) MUST_USE;
/* Whoever ran the transaction `number` (0: whichever is there) is gone: it is kept until somebody commits or discards. */
int publish_tx_hold(struct publish *p, uint64_t number) MUST_USE;
void publish_tx_ended(struct publish *p); /* stage_tx_restore was called */

/* A failed publication is told once by the next close of a writer of a file that was in it: 0, or that -errno (taken). */
int publish_take_error(struct publish *p, uint64_t node);

struct publish_status {
	enum { PUBLISH_IDLE, PUBLISH_WAITING, PUBLISH_UPLOADING, PUBLISH_COMMITTING, PUBLISH_FAILED } phase;
	int64_t next_ms;            /* WAITING, FAILED: when it tries, as util_now_ms(); 0: not by itself */
	uint64_t sent, to_send;     /* bytes of the commit under way */
	char last_commit[41];
	enum stage_tx tx;
	char pr_url[400];           /* of the pull request that commits went to; "": none */
	int last_err;               /* of the last try; 0: went well or none yet */
	char last_text[400];
};
void publish_status(struct publish *p, struct publish_status *ret);

/* Nothing is staged, nobody waits and no commit is under way: it may be freed to let another mount write. */
bool publish_idle(struct publish *p);
/* Publishes what is settled, at most until `deadline_ms` of util_now_ms() (0: nothing any more), answers those who still wait with
 * -ECANCELED, ends the thread. */
void publish_free(struct publish *p, int64_t deadline_ms);

#endif
