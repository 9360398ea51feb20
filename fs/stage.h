/* stage: what the user changed in one branch and the Hub does not have yet. The only durable state of hugfs.
 *
 * A stage is a TREE OVERLAY over the branch's commit: nodes (own id, never used again) and names
 * (parent node, name -> node or whiteout). Folder nodes say what lies below them: nothing (NONE), the folder of the same
 * path at the branch's head (FOLLOW), or a folder of a given commit (PINNED: a renamed committed folder). File nodes are a stack
 * of layers: the top one is written to, lower ones are frozen by a commit under way, the lowest lies over nothing or over a
 * committed blob. A file node without layers of its own IS its blob.
 *
 * One journal (SQLite) and one data folder per branch in
 *     ROOT/v1/<machine-id>/<endpoint>/<type>/<namespace>/<name>/<branch>/{journal.db,data/,lock}
 * held by an OFD lock for as long as the stage is open. After kill -9 at any instruction the next stage_open finds every
 * name change and every closed file; after power loss what stage_sync returned 0 for.
 *
 * Any thread may call; each call is atomic under the stage's lock. Calls touch the local disk only, never the network.
 * Only stage_open, stage_sync, stage_sync_behind, stage_intent_put and stage_close wait for fsync (and one of some thousand
 * changes, which moves the journal's log, and the first change of a file that was synced: both without the lock). Common errors: -ENOSPC, -EIO, -ENOMEM, -ENOENT (no such node or name:
 * node ids are never used again, so a stale one is just absent). */
#ifndef HUGFS_STAGE_H
#define HUGFS_STAGE_H

#include <sys/stat.h>
#include <sys/types.h>
#include <time.h>

#include "hash.h"
#include "repo.h"

struct stage;

#define STAGE_ROOT ((uint64_t)1) /* the branch's root folder: always there, FOLLOW */

/* -- opening -- */

struct stage_ident {
	const char *endpoint;
	struct repo_id repo;
	const char *rev;         /* branch name or refs/pr/N */
	const char *internal_id; /* the repository's _id; another one on disk: -ESTALE with a log line */
};
/* Opens the stage of a branch below ROOT (the staging_dir option). create = false: -ENOENT when none was left there.
 * -EBUSY: another process owns it (logged with its pid). -EPROTO: written by a newer hugfs, left untouched.
 * Recovers: files that were open for writing become interrupted (those never changed are dropped), data files
 * without a node are removed. */
int stage_open(const char *root, const struct stage_ident *ident, bool create, struct stage **ret) MUST_USE;
/* Leaves the lock. A stage with nothing in it removes its folder. NULL is fine. */
void stage_close(struct stage *s);
/* Calls `each` for every branch of `endpoint` (of repository `only`, unless NULL) with a journal below ROOT. Its non-zero answer
 * ends the scan and is returned. */
typedef int (*stage_scan_fn)(void *arg, const struct repo_id *repo, const char *rev);
int stage_scan(const char *root, const char *endpoint, const struct repo_id *only, stage_scan_fn each, void *arg) MUST_USE;

/* Nothing staged at all: no names, no nodes, no intent. */
bool stage_empty(struct stage *s);
/* The commit that the overlay was made against: the parent of the next commit. Set while empty: the base it starts from.
 * "" when it was never set. */
void stage_parent(struct stage *s, char ret[41]);
int stage_set_parent(struct stage *s, const char *commit) MUST_USE;

/* A word of the journal for whoever publishes; "" when it was never put, and when it is taken away. Caller frees. */
int stage_note_put(struct stage *s, const char *key, const char *value) MUST_USE;
int stage_note_get(struct stage *s, const char *key, char **ret) MUST_USE;
#define STAGE_NOTE_TARGET "target" /* the ref that its commits go to, when it is not the branch: refs/pr/N */
#define STAGE_NOTE_OWN "own"       /* tokens of commits that were given up and may land late */

/* -- names -- */

enum stage_kind { STAGE_NONE, STAGE_WHITEOUT, STAGE_FILE, STAGE_DIR };
struct stage_name {
	enum stage_kind kind; /* NONE: the overlay says nothing, ask the base */
	uint64_t node;
};
/* 0 with NONE when `dir` is no node. */
int stage_lookup(struct stage *s, uint64_t dir, const char *name, struct stage_name *ret) MUST_USE;
/* Every name of `dir` in the overlay, whiteouts too, in no order. `each` is called under the stage's lock: it must not call
 * back. Its non-zero answer ends it and is returned. */
typedef int (*stage_list_fn)(void *arg, const char *name, struct stage_name what);
int stage_list(struct stage *s, uint64_t dir, stage_list_fn each, void *arg) MUST_USE;

enum stage_base_kind { STAGE_BASE_NONE, STAGE_BASE_FOLLOW, STAGE_BASE_PINNED };
struct stage_base {
	enum stage_base_kind kind;
	char commit[41]; /* PINNED */
	char *path;      /* PINNED; freed by stage_base_fini */
};
void stage_base_fini(struct stage_base *b);
int stage_dir_base(struct stage *s, uint64_t dir, struct stage_base *ret) MUST_USE;
/* A folder of the branch that our changes have emptied shows on, as on a local disk, although the branch has none any more.
 * stage_settle keeps every folder in which names were deleted, for it does not know what is left there; keep = false says that
 * the branch has it, so that nothing of it need be staged. For others than FOLLOW folders it does nothing. */
int stage_keep(struct stage *s, uint64_t dir, bool keep) MUST_USE;
/* Calls `each` for the FOLLOW folders in which the overlay deletes names. Same rules as stage_list. */
typedef int (*stage_thinned_fn)(void *arg, uint64_t dir, const char *path);
int stage_thinned(struct stage *s, stage_thinned_fn each, void *arg) MUST_USE;

/* Makes rows; each is one journal transaction. An existing row of that name is replaced where POSIX replaces (rename), a
 * whiteout always; anything else there is -EEXIST. */

/* Gives the committed folder `name` of `parent` a node (FOLLOW; below a PINNED parent it is PINNED one deeper). Changes
 * nothing that anybody can see. */
int stage_follow(struct stage *s, uint64_t parent, const char *name, uint64_t *ret) MUST_USE;
/* Gives the committed file `name` a node that is its blob. Changes nothing that anybody can see. `commit`, `path`: where it
 * can be fetched. */
struct stage_blob {
	struct blob_key key;
	char commit[41];
	const char *path;
	mode_t mode; /* 0: the mount's default */
	struct timespec mtime;
};
int stage_borrow(struct stage *s, uint64_t parent, const char *name, const struct stage_blob *blob, uint64_t *ret) MUST_USE;
int stage_create(struct stage *s, uint64_t parent, const char *name, mode_t mode, uint64_t *ret) MUST_USE;
/* The same for open(O_CREAT): a writer follows, and the file counts as being written from its first moment. */
int stage_create_open(struct stage *s, uint64_t parent, const char *name, mode_t mode, uint64_t *ret) MUST_USE;
int stage_mkdir(struct stage *s, uint64_t parent, const char *name, mode_t mode, uint64_t *ret) MUST_USE;
/* Takes a name away. hide: the base holds that name, so a whiteout stays. While a commit is under way one stays anyhow. A
 * file with writers or readers lives on without a name until the last stage_unpin. rmdir: the caller saw that the
 * folder is empty; what the overlay has below it (whiteouts) goes too. A name without a row is fine when hide. */
int stage_unlink(struct stage *s, uint64_t parent, const char *name, bool hide) MUST_USE;
int stage_rmdir(struct stage *s, uint64_t parent, const char *name, bool hide) MUST_USE;
/* Moves a row (borrow or follow first) over whatever row is at the destination; atomic. hide: the base holds the source's
 * name. pin: for a FOLLOW folder, what its base is now ({PINNED, commit, path}): it keeps that; NULL for others. */
int stage_rename(struct stage *s, uint64_t sparent, const char *sname, bool hide, uint64_t dparent, const char *dname,
                 const struct stage_base *pin) MUST_USE;

/* -- files -- */

enum stage_state {
	STAGE_CLEAN,       /* is its blob, nothing to publish but perhaps its name */
	STAGE_STAGED,      /* closed, waits for a commit */
	STAGE_OPEN,        /* has a writer */
	STAGE_COMMITTING,  /* frozen by the commit under way, no writer */
	STAGE_INTERRUPTED, /* its writer was killed, or it was open when hugfs died */
	STAGE_CONFLICT,    /* left out of commits until the user decides */
};
struct stage_attr {
	enum stage_kind kind;
	enum stage_state state;
	uint64_t size;
	uint64_t blocks; /* of 512 bytes, that its bytes take, were they all here; fewer where it has holes */
	mode_t mode; /* permission bits */
	bool has_mode; /* told by the user, else the mount's default counts */
	bool has_owner;
	bool has_mtime; /* always of a file; a folder's moves when its names change */
	uid_t uid;
	gid_t gid;
	struct timespec mtime;
	bool is_blob; /* of a file: its bytes are exactly `blob` */
	const char *from; /* only from stage_each: where a moved committed file or folder was; NULL: it was not */
	struct blob_key blob;
};
int stage_attr(struct stage *s, uint64_t node, struct stage_attr *ret) MUST_USE;
#define STAGE_SET_MODE 1u
#define STAGE_SET_OWNER 2u
#define STAGE_SET_MTIME 4u
int stage_setattr(struct stage *s, uint64_t node, unsigned what, const struct stage_attr *attr) MUST_USE;

/* Keeps a node alive while it has no name: one per open handle, whether it writes or reads. */
int stage_pin(struct stage *s, uint64_t node) MUST_USE;
void stage_unpin(struct stage *s, uint64_t node);

/* A writer: an open for writing until RELEASE (design.md 3.1). What was closed counts as closed until it is changed. */
int stage_writer_open(struct stage *s, uint64_t node) MUST_USE;
/* FLUSH by thread `pid`: when it is the one that wrote last, or its bytes came by a mapping, the file counts as closed if hugfs
 * dies now. killed: that thread is being ended by a signal: the node becomes interrupted. 1: it is who wrote last, and there
 * are changes since the last writer closed; else 0. */
int stage_writer_flush(struct stage *s, uint64_t node, pid_t pid, bool killed) MUST_USE;
/* RELEASE. The last one settles the file, unless it is interrupted. An unchanged borrowed file loses its row again. */
void stage_writer_close(struct stage *s, uint64_t node);

/* Instead of stage_writer_close when the mount has ended before RELEASE came: a file that counts as closed is closed, one that
 * was being written is interrupted. */
void stage_writer_end(struct stage *s, uint64_t node);

/* Writes all of it; makes a new layer when the top one is frozen. Bytes, then journal; no SQLite here unless the file's
 * journalled state must change (first write after a flush). */
int stage_write(struct stage *s, uint64_t node, uint64_t off, const void *data, size_t len, pid_t pid) MUST_USE;
int stage_truncate(struct stage *s, uint64_t node, uint64_t size) MUST_USE;

/* fallocate(2): room, KEEP_SIZE, PUNCH_HOLE, ZERO_RANGE; other modes, and what the disk cannot do, -EOPNOTSUPP. */
int stage_fallocate(struct stage *s, uint64_t node, int mode, uint64_t off, uint64_t len, pid_t pid) MUST_USE;
/* lseek(2) with SEEK_DATA or SEEK_HOLE; what comes from a blob is data. -ENXIO as there. */
int stage_seek(struct stage *s, uint64_t node, uint64_t off, int whence, uint64_t *ret) MUST_USE;
/* copy_file_range(2) within the stage, and from a committed file (which may be of another revision): how many bytes, at most `len`;
 * 0 at the end of the source. -EOPNOTSUPP: it must be read and written. */
ssize_t stage_copy(struct stage *s, uint64_t src, uint64_t soff, uint64_t dst, uint64_t doff, uint64_t len, pid_t pid) MUST_USE;
ssize_t stage_copy_blob(struct stage *s, const struct stage_blob *blob, uint64_t soff, uint64_t dst, uint64_t doff, uint64_t len,
                        pid_t pid) MUST_USE;

/* Bytes of a committed blob that a read needs. */
struct stage_gap {
	struct blob_key key;
	char commit[41];
	char path[4096]; /* where it can be fetched; "" when only the key is known */
	uint64_t off, len;
};
/* Reads from `off`: the bytes that lie here (holes as zeros), at most `len`, up to the first byte that comes from a blob. 0 with
 * gap->len > 0: that range comes from gap->key at gap->off. 0 with gap->len = 0: end of file. */
ssize_t stage_read(struct stage *s, uint64_t node, uint64_t off, void *buf, size_t len, struct stage_gap *gap) MUST_USE;

/* Bytes of `node`, its names and all journal writes before this are on stable storage when it returns 0. Blocks on fsync. */
int stage_sync(struct stage *s, uint64_t node) MUST_USE;
/* The same for all files that were closed `age_ms` ago or earlier, so that a power failure puts few of them in doubt. Blocks on
 * fsync: for a thread that nobody waits for. */
int stage_sync_behind(struct stage *s, int age_ms) MUST_USE;

/* What the user told about committed files and folders that have no node: it counts until the content changes on the Hub.
 * path: where their base has it (as stage_dir_base says). key: a file's content, or a folder's git tree (HASH_GIT_SHA1, size 0);
 * NULL: whatever it is. Of the answer only kind, mode, owner and mtime are set. */
int stage_local_get(struct stage *s, const char *path, enum stage_kind kind, const struct blob_key *key,
                    struct stage_attr *ret) MUST_USE; /* -ENOENT */
/* attr->kind says what it is. A file has a key; a folder without one is that of the next look at it. */
int stage_local_put(struct stage *s, const char *path, const struct blob_key *key, const struct stage_attr *attr) MUST_USE;

/* The date that files of `commit` show of which nothing else is known: a commit of ours changes no times, so that of the commit
 * before. -ENOENT: none was told, or for another commit. */
int stage_date_get(struct stage *s, const char *commit, int64_t *ret) MUST_USE;
int stage_date_put(struct stage *s, const char *commit, int64_t date_s) MUST_USE;

/* What stage_local_get tells, when the stage is to be closed and its branch goes on to be shown. Not locked. NULL: no memory. */
struct stage_locals;
struct stage_locals *stage_locals_keep(struct stage *s);
int stage_locals_get(struct stage_locals *t, const char *path, enum stage_kind kind, const struct blob_key *key,
                     struct stage_attr *ret) MUST_USE;
void stage_locals_free(struct stage_locals *t); /* NULL is fine */

/* -- what there is -- */

struct stage_counts {
	uint64_t files, deletions, open, interrupted, conflicts, bytes;
	uint64_t unfinished; /* of those that are open, how many have a change that is not published */
};
void stage_counts(struct stage *s, struct stage_counts *ret);
/* Every changed name with its path and state, whiteouts as kind WHITEOUT; for status. Same rules as stage_list. */
typedef int (*stage_each_fn)(void *arg, const char *path, const struct stage_attr *attr);
int stage_each(struct stage *s, stage_each_fn each, void *arg) MUST_USE;

/* -- publication: one at a time per stage -- */

/* Bytes of a file as a commit takes them. They never change: later writes go to a new layer above. Refcounted by the stage until
 * stage_settle, stage_release or stage_close. */
struct stage_frozen {
	uint64_t node;
	uint32_t layer;
	char *path;             /* its present name, for preupload; names are read again at the commit */
	uint64_t size;
	bool has_digests;       /* known from an earlier try */
	struct blob_key sha256, git; /* of its content, when has_digests */
};
struct stage_freeze {
	struct stage_frozen *files;
	size_t n;
};
void stage_freeze_fini(struct stage_freeze *f);
/* What else than files without a writer is settled. */
#define STAGE_TAKE_INTERRUPTED 1u /* interrupted files */
#define STAGE_TAKE_FLUSHED 2u     /* files that whoever wrote last has closed, though their RELEASE did not come yet */
#define STAGE_TAKE_APPENDED 4u    /* files that were only appended to since they were opened, up to their last whole write */
#define STAGE_TAKE_CONFLICT 8u    /* files in conflict */
/* Freezes every settled file that has unpublished bytes, and the `nodes` (files that an fsync waits for: in their bytes as of
 * now, whoever has them open). take: STAGE_TAKE_*. Files frozen before and not settled are in the answer
 * again. May be called again before stage_names to take more in (a joining fsync). */
int stage_freeze(struct stage *s, const uint64_t *nodes, size_t n, unsigned take, struct stage_freeze *ret) MUST_USE;
/* Freezes one file now, so that a waiting fsync gets the bytes of its call. ret_layer may be NULL. */
int stage_freeze_node(struct stage *s, uint64_t node, uint32_t *ret_layer) MUST_USE;
/* Like stage_read, of frozen bytes. Any thread; several at once. */
ssize_t stage_frozen_read(struct stage *s, uint64_t node, uint32_t layer, uint64_t off, void *buf, size_t len,
                          struct stage_gap *gap) MUST_USE;
int stage_set_digests(struct stage *s, uint64_t node, uint32_t layer, const struct blob_key *sha256,
                      const struct blob_key *git) MUST_USE;
/* The one file that holds all bytes of the frozen content: the layer's own data file when it lies over nothing; otherwise the path
 * where the uploader, which reads it all anyhow, puts an assembled copy (tmp + rename). *ret_exists tells which. It is what the
 * cache adopts after the commit. Caller frees. */
int stage_whole_path(struct stage *s, uint64_t node, uint32_t layer, char **ret_path, bool *ret_exists) MUST_USE;

/* The overlay as it stands: every row, parents before children. From now until stage_settle or stage_release every name that is
 * taken away leaves a whiteout. */
struct stage_row {
	uint64_t parent, node; /* node 0: whiteout */
	char *name;
	enum stage_kind kind;
	bool conflict;          /* it, or a folder above it, is in conflict */
	struct stage_base base; /* folders */
	/* files */
	bool newer;             /* it is being written, or was since what a commit takes of it */
	bool frozen;            /* `layer` is what the commit takes, else its committed bytes (if any) */
	uint32_t layer;
	uint64_t size;
	bool has_digests;
	struct blob_key sha256, git;
	bool is_blob;           /* not changed: its bytes are `blob` (fetchable at commit + path) */
	bool has_committed;     /* the branch holds these bytes for this file, under its present or an earlier name */
	struct blob_key blob;   /* of is_blob or has_committed */
	char blob_commit[41];
	char *blob_path;
};
struct stage_names {
	uint64_t gen;           /* counter of name changes at this moment */
	struct stage_row *rows;
	size_t n;
};
void stage_names_fini(struct stage_names *n);
int stage_names(struct stage *s, struct stage_names *ret) MUST_USE;
/* Somebody else changed what a commit held: its rows are in conflict, left out of commits until the user decides, whatever is
 * written to them meanwhile. What takes the name of such a row, and what such a file or folder is renamed to, is too. Marks
 * those of the rows that still are what they were. */
struct stage_ref {
	uint64_t parent, node; /* node 0: whiteout */
	const char *name;
};
int stage_conflict_put(struct stage *s, const struct stage_ref *rows, size_t n) MUST_USE;
/* None is any more: they are ordinary changes again. */
int stage_conflict_clear(struct stage *s) MUST_USE;

/* A transaction of the branch: begin keeps a copy of the overlay, with the bytes as they are then. It ends when a commit
 * settles, by stage_tx_end, or by stage_tx_restore, which brings back what was there; open handles of what goes live on without
 * a name. A stage with one is not empty. begin: -EBUSY while one is there or a commit is under way. */
enum stage_tx { STAGE_TX_NONE, STAGE_TX_RUNNING, STAGE_TX_HELD };
enum stage_tx stage_tx_state(struct stage *s);
int stage_tx_begin(struct stage *s) MUST_USE;
int stage_tx_hold(struct stage *s) MUST_USE; /* whoever ran it is gone; so after stage_open */
int stage_tx_end(struct stage *s) MUST_USE;
int stage_tx_restore(struct stage *s) MUST_USE;

/* The commit will not happen (now): frozen layers stay frozen, names go on as before. */
void stage_release(struct stage *s);

/* What is sent, recorded durably before the POST, so that recovery can look for it between the parent and the head. Of a
 * PINNED folder it has all that is shown below it, or nothing (a name that is not published). */
struct stage_item {
	uint64_t node;       /* 0: comes along with a renamed folder */
	uint32_t layer;      /* 0: its committed or borrowed blob, no staged bytes */
	const char *path;
	struct blob_key key; /* as the branch will name it: sha256 (LFS) or git */
};
struct stage_intent {
	char token[33];      /* 32 hex, put into the commit's description */
	char parent[41];
	uint64_t gen;        /* of the stage_names that it was made from */
	struct stage_item *items; /* files that the commit adds; deletions need none */
	size_t n;
};
void stage_intent_fini(struct stage_intent *i);
int stage_intent_put(struct stage *s, const struct stage_intent *intent) MUST_USE;
/* After a restart or a lost answer. -ENOENT: none. */
int stage_intent_get(struct stage *s, struct stage_intent *ret) MUST_USE;
int stage_intent_drop(struct stage *s) MUST_USE; /* it is known not to have landed */

/* The commit of the intent is on the branch as `commit`: takes away what it holds and did not change meanwhile, and makes the rest
 * right over the new base; one transaction. parent becomes `commit`. With nothing but equal bytes to publish, call it with an intent
 * put before and `commit` = parent. */
struct stage_settled_file { /* of every item with a node */
	uint64_t node;       /* gone from the overlay now, or (kept) still there with newer bytes, name or writer */
	bool kept;
	char *path;          /* as committed */
	struct blob_key key;
	struct stage_attr attr; /* its local attributes at that moment */
};
struct stage_settled {
	struct stage_settled_file *files;
	size_t n;
};
void stage_settled_fini(struct stage_settled *s);
int stage_settle(struct stage *s, const char *commit, struct stage_settled *ret) MUST_USE;

/* Throws away what is staged below folder or file `path` ("" all of it). -EBUSY while a commit is under way. Open handles see the
 * committed content again at their next open; their staged nodes live on without a name. */
int stage_discard(struct stage *s, const char *path) MUST_USE;

/* Debug builds: walks everything and asserts the invariants that stand at the head of stage.c. */
void stage_check(struct stage *s);

#endif
