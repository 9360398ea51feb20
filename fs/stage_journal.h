/* stage_journal: the SQLite file of a stage: what it holds, one row at a time. Knows formats, not rules.
 *
 * One connection, used under the stage's lock; journal_flush and journal_checkpoint are called without it,
 * by any thread. Changes are made between journal_begin and journal_end: the first failure sticks and is
 * what journal_end answers, with everything since journal_begin undone. journal_end == 0 survives kill -9;
 * power loss only after journal_flush. */
#ifndef HUGFS_STAGE_JOURNAL_H
#define HUGFS_STAGE_JOURNAL_H

#include "stage.h"

/* A committed blob and where it can be fetched; path NULL or "" when only the key is known. */
struct journal_blob {
	struct blob_key key;
	char commit[41];
	char *path;
};

/* What is on disk about the state of a file; the numbers are the format. */
enum journal_state { JOURNAL_CLOSED = 0, JOURNAL_OPEN = 1, JOURNAL_INTERRUPTED = 2, JOURNAL_CONFLICT = 3 };

/* Bits of journal_node.flags; the numbers are the format. */
#define JOURNAL_HAS_MODE 1u  /* mode was told by the user */
#define JOURNAL_HAS_OWNER 2u /* uid and gid were */
#define JOURNAL_TOLD 4u      /* attributes were set here: they outlive the node in `local` */
#define JOURNAL_HOME 8u      /* at the name where its parent's base shows just this file or folder */
#define JOURNAL_KEEP 16u     /* FOLLOW folder that shows although its base may have no such folder any more */
#define JOURNAL_HAS_MTIME 32u /* mtime counts: of every file; of a folder when its names changed or it was told */

struct journal_node {
	uint64_t id;
	enum stage_kind kind; /* FILE or DIR */
	enum stage_base_kind base; /* DIR */
	char base_commit[41];
	char *base_path;
	unsigned flags;
	mode_t mode;
	uid_t uid;
	gid_t gid;
	struct timespec mtime;
	enum journal_state state;
	uint32_t last_layer; /* numbers of layers are never used again either */
	bool has_blob;
	struct journal_blob blob; /* FILE: what the branch holds of it */
};

/* What a layer lies over; the numbers are the format. */
enum journal_lower { JOURNAL_OVER_NONE = 0, JOURNAL_OVER_BLOB = 1, JOURNAL_OVER_LAYER = 2 };

struct journal_layer {
	uint64_t node;
	uint32_t layer;
	enum journal_lower lower;
	uint32_t lower_layer;
	struct journal_blob blob;
	bool frozen;
	bool synced;   /* all its bytes are on stable storage */
	uint64_t size; /* when it was closed or frozen last */
	bool has_digests;
	struct blob_key sha256, git;
};

struct journal;

/* Opens DIR/journal.db. -ENOENT: there is none and create is false. -EPROTO: written by a newer hugfs; not
 * a byte of it is changed then. -EIO: damaged. `*ret_fresh`: it was made just now. */
int journal_open(const char *dir, bool create, struct journal **ret, bool *ret_fresh) MUST_USE;
void journal_close(struct journal *j);

void journal_begin(struct journal *j);
int journal_end(struct journal *j) MUST_USE;
/* The disk is full but for what is kept for the journal: what makes new names or bytes should not use that up. */
bool journal_is_tight(struct journal *j);
/* Makes the transaction fail with `err` (-errno), whatever else it does. */
void journal_fail(struct journal *j, int err);

void journal_put_meta(struct journal *j, const char *key, const char *value);
int journal_get_meta(struct journal *j, const char *key, char **ret) MUST_USE; /* -ENOENT; caller frees */

void journal_put_node(struct journal *j, const struct journal_node *n);
void journal_del_node(struct journal *j, uint64_t id); /* with its layers */
/* node 0: a whiteout. */
void journal_put_name(struct journal *j, uint64_t parent, const char *name, uint64_t node, uint64_t gen);
void journal_del_name(struct journal *j, uint64_t parent, const char *name);
/* That name is in conflict; journal_del_name takes it back, journal_del_conflicts all of them. */
void journal_put_conflict(struct journal *j, uint64_t parent, const char *name);
void journal_del_conflicts(struct journal *j);
/* The overlay as it was when a transaction began: the node as it is in the journal now, with the number of its top layer
 * (0: none). journal_before_clear forgets all of it. */
void journal_before_node(struct journal *j, uint64_t id, uint32_t top);
void journal_before_name(struct journal *j, uint64_t parent, const char *name, uint64_t node, bool conflict);
void journal_before_clear(struct journal *j);
/* Calls back for its nodes by id, then for its names. As journal_load. */
typedef int (*journal_before_node_fn)(void *arg, struct journal_node *n, uint32_t top);
typedef int (*journal_before_name_fn)(void *arg, uint64_t parent, const char *name, uint64_t node, bool conflict);
int journal_load_before(struct journal *j, journal_before_node_fn node, journal_before_name_fn name, void *arg) MUST_USE;
void journal_forget_rows(struct journal *j); /* all names, all conflicts */
void journal_put_layer(struct journal *j, const struct journal_layer *l);
void journal_del_layer(struct journal *j, uint64_t node, uint32_t layer);

void journal_put_intent(struct journal *j, const struct stage_intent *intent);
int journal_get_intent(struct journal *j, struct stage_intent *ret) MUST_USE; /* -ENOENT */
void journal_del_intent(struct journal *j);

/* What was told about a committed file or folder that has no node. */
struct journal_local {
	char *path;          /* where its base has it */
	bool has_key;        /* FILE: always */
	struct blob_key key; /* its content: of a folder the git tree */
	struct stage_attr attr; /* kind, mode, owner, mtime, and what of them counts */
};
void journal_put_local(struct journal *j, const struct journal_local *l);
void journal_del_local(struct journal *j, const char *path);

/* Calls back for every row: nodes, then layers (ascending in their node), then names, then locals. The callee
 * takes base_path and the paths of blobs and locals by setting them to NULL. A non-zero answer ends it and is returned. */
struct journal_loader {
	int (*node)(void *arg, struct journal_node *n);
	int (*layer)(void *arg, struct journal_layer *l);
	int (*name)(void *arg, uint64_t parent, const char *name, uint64_t node, uint64_t gen);
	int (*local)(void *arg, struct journal_local *l);
	int (*conflict)(void *arg, uint64_t parent, const char *name);
};
int journal_load(struct journal *j, const struct journal_loader *to, void *arg) MUST_USE;

/* Every transaction that ended before this is on stable storage when it returns 0. Without the stage's
 * lock. */
int journal_flush(struct journal *j) MUST_USE;
/* Has the write-ahead log grown so far that journal_checkpoint should be called? With the stage's lock. */
bool journal_is_due(struct journal *j);
/* Moves the write-ahead log into the database, beside running transactions. Without the stage's lock. Waits
 * for fsync. */
void journal_checkpoint(struct journal *j);

#endif
