/* commit_plan: an overlay and the commit that it was made against -> the changes that bring the branch to
 * it, at most one for each path. Part of commit.
 *
 * Asks tree with wait = true, so it may block on the network; touches nothing else. */
#ifndef HUGFS_COMMIT_PLAN_H
#define HUGFS_COMMIT_PLAN_H

#include "ignore.h"
#include "stage.h"
#include "tree.h"
#include "upload.h"

/* All borrowed. */
struct commit_plan_env {
	struct tree *tree;
	const struct ignore *ignore;
	const struct repo_id *repo;
	const char *parent; /* the commit that the overlay was made against */
	bool conflicts;     /* only what is in conflict counts, else only what is not */
};

enum commit_change_kind { COMMIT_DELETE, COMMIT_ADD };
struct commit_change {
	enum commit_change_kind kind;
	char *path;
	/* ADD: what is put there. Frozen bytes of the row, or a committed blob. */
	const struct stage_row *row; /* NULL: comes along with a renamed folder */
	bool frozen;
	struct blob_key blob;
	char commit[41];             /* where the blob can be fetched */
	char *blob_path;
	/* filled by commit */
	bool ours;                   /* differs from the parent */
	struct upload_file *file;    /* ADD: its content; borrowed */
	struct blob_key key;         /* ADD: what the branch calls that */
};
/* A staged file that the commit leaves out, or in its committed bytes: open, interrupted, not published. */
struct commit_left {
	char *path;
	const struct stage_row *row;
	bool conflict; /* commit_plan_check: somebody else changed it meanwhile */
};
struct commit_plan {
	struct commit_change *changes; /* by path */
	size_t n;
	struct commit_left *left;
	size_t n_left;
	char **folders;                /* of the parent, deleted or replaced as a whole */
	size_t n_folders;
	const struct stage_row **took; /* whiteouts and folders that took something away or brought it along */
	size_t n_took;
};
void commit_plan_fini(struct commit_plan *p);
/* `names` must outlive the plan. An addition may turn out to be what the branch holds already: the caller
 * compares. */
int commit_plan_make(const struct commit_plan_env *env, const struct stage_names *names,
                     struct commit_plan *ret, struct hub_error *err) MUST_USE;

/* Path of a row. Caller frees. -ENOENT: it stands below a folder that has none. */
int commit_plan_row_path(const struct stage_names *names, const struct stage_row *row, char **ret) MUST_USE;

/* Do the changes that are ours go on top of `head` as well as on the parent? 0, or -ESTALE and the path
 * that somebody else changed (caller frees). That both did the same is no conflict. What is left out is judged one by
 * one: commit_left.conflict. */
int commit_plan_check(const struct commit_plan_env *env, struct commit_plan *plan, const char *head,
                      char **ret_path, struct hub_error *err) MUST_USE;

/* tree_stat for which absence is an answer: 1 and the entry, 0 when nothing has that path, or -errno. */
int commit_plan_stat(struct tree *tree, const struct repo_id *repo, const char *commit, const char *path,
                     struct tree_entry *ret, struct hub_error *err) MUST_USE;

/* What a commit says of itself: "Add 3 files, update config.json, delete old.bin". kinds: added, updated, deleted; the paths
 * are borrowed. Caller frees the title. */
struct commit_tally {
	size_t n;
	const char *first;
};
void commit_tally_add(struct commit_tally *t, const char *path);
int commit_tally_title(const struct commit_tally kinds[3], char **ret) MUST_USE;

#endif
