/* commit_internal: what the files of commit share: commit.c (runs), commit_bring.c (content), commit_send.c (the call),
 * commit_base.c (a branch that others push to). For commit*.c only. */
#ifndef HUGFS_COMMIT_INTERNAL_H
#define HUGFS_COMMIT_INTERNAL_H

#include "commit.h"
#include "commit_plan.h"

#define COMMIT_LOOK_NEAR 20 /* commits that are looked through first */
#define COMMIT_LOOK_FAR 1000
#define COMMIT_TOKEN_LEN 32
#define COMMIT_OWN_MAX 16    /* tokens that are remembered, the newest */

struct commit {
	struct commit_env env;
	struct upload up;
	/* What commit_prepare brought to the Hub: the next run begins with it. As in struct run. */
	void *tree;
	struct upload_file **files;
	size_t n_files, cap_files;
	char *target;             /* the pull request that commits go to; NULL: the branch, or none yet */
	char *own;                /* tokens of commits that may land late, each with a blank behind it; as in the journal */
};

struct run {
	struct commit *c;
	const struct commit_ask *ask;
	struct commit_result *ret;
	struct upload *up;          /* the commit's */
	const char *rev;            /* where it goes: the branch, or refs/pr/N */
	enum commit_on_conflict on_conflict;
	bool in_conflict;           /* it ended because somebody else changed the same */
	bool conflicts;             /* it is about what is in conflict, and nothing else */
	bool opens_pr;              /* once there is something to send, a pull request is opened for it */
	char parent[41], base[41];
	char head[41];              /* as preupload told; "" unknown */
	void *tree;                 /* tsearch(3) of all files */
	struct upload_file **files;
	size_t n_files, cap_files;
	struct stage_names names;
	struct commit_plan plan;
	struct hub_op *ops;
	char **in_way; /* files of theirs that stand where ours need to be, while on_conflict=ours */
	size_t n_in_way;
	size_t n_ops;
	unsigned bases, stubborn;
};

/* -- commit.c -- */

void commit_enter(struct run *run, enum commit_phase phase);
bool commit_cancelled(const struct run *run);
/* commit_plan_stat of this run's repository. */
int commit_stat_at(struct run *run, const char *commit, const char *path, struct tree_entry *ret) MUST_USE;
void commit_forget_plan(struct run *run);
struct commit_plan_env commit_env_of_plan(const struct run *run);

/* -- commit_bring.c -- */

/* Freezes what is settled, those who join too, and brings its content to the Hub. */
int commit_bring(struct run *run) MUST_USE;
/* Reads the names as they are now and makes of them the plan of what is to be sent; brings what it needs beside. */
int commit_decide(struct run *run) MUST_USE;

/* -- commit_base.c -- */

/* The head of the branch as tree knows it; asked for again by commit_ask_head. -ESTALE: the branch is gone. */
int commit_get_head(struct run *run, char ret[41]) MUST_USE;
int commit_ask_head(struct run *run, char ret[41]) MUST_USE;
/* The branch is at `head`: can ours go on top of it? 0: yes, base is moved. 1: yes, once names are read
 * again (it was our own commit). -ESTALE: somebody changed one of our paths. */
int commit_move_base(struct run *run, const char *head) MUST_USE;
/* The same for what is known of the head by now. */
int commit_follow_head(struct run *run) MUST_USE;
/* A commit with that token was given up, but may land late, also after a restart. */
int commit_remember_own(struct commit *c, const char *token) MUST_USE;
/* A newer commit is on the branch: each names its parent, so what was given up can land no more. That the journal does not take
 * it harms nobody. */
void commit_forget_own(struct commit *c);

/* -- commit_pr.c -- */

/* Opens the pull request that the run goes to. As commit_move_base for its head. */
int commit_open_pr(struct run *run, const char *title) MUST_USE;
/* The commit is on it: it is no draft any more, and the result names it. */
void commit_note_pr(struct run *run);
/* What is in conflict becomes a pull request of its own, and leaves the overlay. 0 also when nothing is. */
int commit_propose(struct run *run) MUST_USE;
/* The run failed with `err`: is its pull request merged or closed? Then it is to begin again, and opens another. */
bool commit_lost_pr(struct run *run, int err);

/* -- commit_parts.c -- */

/* Is it more than one call takes? */
bool commit_needs_parts(const struct run *run);
/* Sends the operations as several commits on a pull request, and merges that. As the call for one. -EFBIG: the merge is
 * refused; all of it stays staged. */
int commit_send_parts(struct run *run, const char *title) MUST_USE;
/* Of an intent that was found: 1: its parts are merged as that commit, 0: not yet, -ENOENT: it has none. */
int commit_parts_landed(struct run *run, const char *token, char ret_commit[41]) MUST_USE;

/* -- commit_send.c -- */

/* The operations that bring `base` to what we want, deletions first. ret_title: what they are, in words. */
int commit_make_ops(struct run *run, char **ret_title) MUST_USE;
/* The call itself, once. token: 32 hex, goes into the description. */
int commit_post(struct run *run, const char *token, const char *title, struct hub_commit_result *ret) MUST_USE;
int commit_put_intent(struct run *run, char token[33]) MUST_USE;
/* What was sent is on the branch as `commit`: bytes become cache, the overlay is taken down. merged: there may be more in it than
 * `base` and the operations. Takes url, which may be NULL. */
int commit_landed(struct run *run, const char *commit, bool merged, int64_t date_s, char *url,
                  const char *title) MUST_USE;
/* Sends the plan as one commit and settles it. 1: names are to be read again. */
int commit_send(struct run *run) MUST_USE;
/* The commit is on the branch: takes the overlay down. */
int commit_settle(struct run *run, const char *commit, int64_t date_s) MUST_USE;
/* Looks for the commit with `token` from the head of the branch back to `parent`. 1 and the commit, 0: it
 * is not there. */
int commit_look_for(struct run *run, const char *token, const char *parent, char ret_commit[41],
                    int64_t *ret_date_s) MUST_USE;

#endif
