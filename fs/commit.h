/* commit: WHAT a commit holds: one run brings what is settled in a branch onto the Hub as one commit.
 *
 *     doubt about the last one? -> freeze -> digests -> preupload -> LFS -> (who joined meanwhile: again)
 *     -> names -> changes -> intent -> POST -> cache -> settle
 *
 * Blocks on disk and network; one thread at a time per branch, no lock held. */
#ifndef HUGFS_COMMIT_H
#define HUGFS_COMMIT_H

#include "blocks.h"
#include "fetch.h"
#include "hub.h"
#include "ignore.h"
#include "stage.h"
#include "tree.h"
#include "upload.h"

struct commit;

/* All borrowed; all outlive it. */
struct commit_env {
	struct hub *hub;
	struct tree *tree;
	struct blocks *blocks; /* NULL: no cache */
	struct fetch *fetch;
	const struct ignore *ignore;
	struct stage *stage;
	struct repo_id repo;
	const char *rev;
	size_t max_ops;     /* files of one call; more go in parts */
	bool pr;            /* every commit goes to a pull request of ours */
	const char *target; /* refs/pr/N, when it was opened by this mount already; NULL: not */
	int (*discard)(void *arg, const char *path); /* as publish_env.discard */
	int (*settle)(void *arg, const char *ref, const char *commit, int64_t date_s); /* as publish_env.settle */
	void *arg;
};
int commit_new(const struct commit_env *env, struct commit **ret) MUST_USE;
void commit_free(struct commit *c);

/* In the order of a run; a later one is progress. */
enum commit_phase {
	COMMIT_IDLE,
	COMMIT_LOOKING,
	COMMIT_READING,
	COMMIT_UPLOADING,
	COMMIT_NAMING,
	COMMIT_SENDING,
	COMMIT_SETTLING,
};
struct commit_progress {
	atomic_int phase;
	struct upload_progress upload;
};

/* Somebody else changed what a commit of ours holds. */
enum commit_on_conflict {
	COMMIT_KEEP, /* it stays staged, in conflict */
	COMMIT_PR,   /* ours becomes a pull request */
	COMMIT_OURS, /* ours goes on top */
};

struct commit_ask {
	const char *title;       /* NULL: made from what changed */
	const char *description; /* NULL: none */
	unsigned take;           /* STAGE_TAKE_*: what counts as settled too */
	bool may_empty;          /* as publish_ask.may_empty */
	enum commit_on_conflict on_conflict;
	bool pr;                 /* to a pull request, as commit_env.pr from now on */
	bool resolve;            /* what is in conflict since earlier is part of it again */
	atomic_bool *cancel;     /* set by anybody: the run ends soon with -ECANCELED, and can be repeated */
	struct commit_progress *progress; /* reset here */
	/* The uploads are done: has anybody joined, whose files are frozen by now? Then they are taken in
	 * too. */
	bool (*join)(void *arg);
	void *arg;
};
struct commit_result {
	char commit[41];     /* what the branch is at through this run; "": there was nothing to publish */
	char *url;           /* of the commit; may be NULL */
	char *pr_url;        /* of the pull request that it went to; NULL: none */
	bool sent;           /* a commit was made */
	bool unsure;         /* perhaps one was made: commit_recover tells */
	uint64_t *nodes;     /* files whose staged bytes were in it, also of a failed one */
	size_t n_nodes;
	struct hub_error error; /* why it failed, in words; retry_after_s */
};
void commit_result_fini(struct commit_result *r);

/* 0: everything that was settled when it began (or when somebody joined) is on the branch. Else -errno of
 * architecture.md 5, and all of it stays staged. -ESTALE: somebody else changed one of its paths, or the
 * repository or branch is gone. Fills *ret in either case. */
int commit_run(struct commit *c, const struct commit_ask *ask, struct commit_result *ret) MUST_USE;
/* Brings the content of what is settled now to the Hub, ahead of its commit: digests, preupload, LFS. Nothing is committed, and the
 * stage is as before; what is overwritten meanwhile was brought in vain. The next run begins with it. */
int commit_prepare(struct commit *c, const struct commit_ask *ask, struct commit_result *ret) MUST_USE;
/* Only finds out whether the commit in doubt is on the branch: then it is settled, else forgotten. 0 also
 * when none is. */
int commit_recover(struct commit *c, const struct commit_ask *ask, struct commit_result *ret) MUST_USE;
/* Is the name `path` published? 1 yes, 0 no (design.md 3.4), -EAGAIN: wait is false and the Hub must be
 * asked, or another -errno. Any thread. */
int commit_is_published(struct commit *c, const char *path, bool wait) MUST_USE;

#endif
