/* tree: what the Hub said about names: revision -> commit (ages), commit + folder -> listing (never
 * expires).
 *
 * Every question has two forms: with wait = false it answers from memory or the index, or -EAGAIN when the
 * Hub must be asked (FUSE threads); with wait = true it asks, single flight per question (worker threads
 * only). A failure of the Hub is never absence: -ENOENT only when the Hub said so; a known head goes on
 * serving when the Hub cannot be reached. Listings are kept by git tree id, so an unchanged folder of a new
 * commit costs no request; they are saved in the index, so a remount asks nothing for a commit that it
 * knows. Memory is capped (LRU). */
#ifndef HUGFS_TREE_H
#define HUGFS_TREE_H

#include "hub.h"
#include "index.h"

struct tree;

struct tree_opts {
	int64_t poll_ms;     /* a branch's head older than this is asked for again when used; 0: 30 s */
	size_t max_entries;  /* kept in memory; 0: 1 million */
	bool offline;        /* on purpose: that old answers serve is no news */
};
/* Keeps hub and ix (which may be NULL: nothing is saved); both must outlive it. */
int tree_new(struct hub *hub, struct index *ix, const struct tree_opts *opts, struct tree **ret) MUST_USE;
void tree_free(struct tree *t);

/* -- repositories and revisions -- */

struct tree_repo {
	struct repo_id id;    /* canonical */
	char internal_id[40]; /* _id */
};
/* Does it exist for this token? -ENOENT is remembered for poll_ms. */
int tree_repo(struct tree *t, const struct repo_id *id, bool wait, struct tree_repo *ret,
              struct hub_error *err) MUST_USE;

enum tree_rev_kind { TREE_BRANCH, TREE_TAG, TREE_COMMIT, TREE_PR, TREE_CONVERT };
struct tree_ref {
	enum tree_rev_kind kind;
	const char *name; /* revision */
	char commit[41];
};
/* Immutable, refcounted; sorted by name. */
struct tree_refs {
	atomic_uint refs;
	size_t n;
	struct tree_ref ref[];
};
int tree_refs(struct tree *t, const struct repo_id *id, bool wait, struct tree_refs **ret,
              struct hub_error *err) MUST_USE;
void tree_refs_unref(struct tree_refs *r);
void tree_refs_unrefp(struct tree_refs **r);

struct tree_head {
	enum tree_rev_kind kind;
	char commit[41];
	int64_t date_s;    /* of that commit */
	int64_t checked_ms; /* util_now_ms() of the last time the Hub said so */
};
/* The head of revision `rev`. wait = false: -EAGAIN when it is unknown, or may move (branch, PR, convert)
 * and is older than poll_ms. wait = true: asked for when unknown or too old; if the Hub cannot be reached,
 * the last known one. */
int tree_head(struct tree *t, const struct repo_id *id, const char *rev, bool wait, struct tree_head *ret,
              struct hub_error *err) MUST_USE;
/* The last known head whatever its age; -ENOENT when none is known. Never asks. */
int tree_head_known(struct tree *t, const struct repo_id *id, const char *rev,
                    struct tree_head *ret) MUST_USE;
/* Makes the next tree_head ask. */
void tree_forget_head(struct tree *t, const struct repo_id *id, const char *rev);
/* Makes the next tree_repo ask, for one that was not there. */
void tree_forget_repo(struct tree *t, const struct repo_id *id);
/* We made this commit, or a branch at it: it is the head from now on. */
void tree_adopt(struct tree *t, const struct repo_id *id, const char *rev, const char *commit,
                int64_t date_s);

/* What a commit of ours changed of `base`, by path (strcmp), each path once. */
struct tree_change {
	const char *path;
	bool deleted;
	uint8_t oid[20];     /* as tree_entry.oid */
	struct blob_key key;
};
/* Makes the listings of `commit` from those of `base`, without a request. -EAGAIN: one of base is not known any more; then the
 * Hub is asked as for any commit. */
int tree_adopt_changes(struct tree *t, const struct repo_id *id, const char *base, const char *commit,
                       const struct tree_change *changes, size_t n) MUST_USE;

/* -- listings -- */

struct tree_entry {
	const char *name;
	enum hub_entry_kind kind;
	uint8_t oid[20];
	struct blob_key key; /* files */
};
/* Immutable, refcounted; sorted by strcmp of the names. Names that no filesystem can show (`/`, `.`, `..`,
 * NUL, empty, longer than 255 bytes) were left out with a log line. */
struct tree_listing {
	atomic_uint refs;
	size_t n;
	struct tree_entry *entries;
	/* names lie behind the entries in one allocation */
};
/* The folder `path` ("" is the root) at `commit` (40 hex). -ENOENT, -ENOTDIR final. */
int tree_list(struct tree *t, const struct repo_id *id, const char *commit, const char *path, bool wait,
              struct tree_listing **ret, struct hub_error *err) MUST_USE;
void tree_listing_unref(struct tree_listing *l);
void tree_listing_unrefp(struct tree_listing **l);
/* NULL when it has no such name. Lives as long as the listing. */
const struct tree_entry *tree_find(const struct tree_listing *l, const char *name);
/* One path by way of the listings of its folders. ret_entry->name is not set. "" answers a folder. */
int tree_stat(struct tree *t, const struct repo_id *id, const char *commit, const char *path, bool wait,
              struct tree_entry *ret_entry, struct hub_error *err) MUST_USE;

/* Every file below folder `path` at `commit`, with full paths: calls `each` per file; its non-zero answer
 * ends the walk and is returned. Blocks (asks for unlisted folders). */
typedef int (*tree_walk_fn)(void *arg, const char *path, const struct tree_entry *entry);
int tree_walk(struct tree *t, const struct repo_id *id, const char *commit, const char *path,
              tree_walk_fn each, void *arg, struct hub_error *err) MUST_USE;

#endif
