/* stage_internal: what the files of stage share: its structs, and the steps that they do for each other.
 * For stage*.c only. */
#ifndef HUGFS_STAGE_INTERNAL_H
#define HUGFS_STAGE_INTERNAL_H

#include <errno.h>

#include "lock.h"
#include "stage.h"
#include "stage_journal.h"
#include "stage_place.h"

#define STAGE_DEPTH_MAX 8 /* frozen layers of a file that nobody holds: then the top one is thawed instead */
#define STAGE_NAME_MAX 255

/* Why a frozen layer must stay as it is. */
#define HELD_COMMIT 1u /* stage_freeze gave it out: until stage_settle or stage_release */
#define HELD_FSYNC 2u  /* an fsync waits for just these bytes: until a commit had them, or newer ones */
#define HELD_TX 8u     /* a transaction may bring it back */
#define HELD_INTENT 4u /* it is in the intent: until that is settled or dropped */

/* Local bytes [off, end) of a layer. */
struct ext {
	uint64_t off, end;
};

/* Bytes at or above lower_len are those of the data file (holes: zeros). Below it they are those of the
 * data file where an ext says so, else those of what the layer lies over. */
struct layer {
	struct journal_layer rec; /* as in the journal */
	struct layer *older;      /* next one of its node */
	struct layer *below;      /* JOURNAL_OVER_LAYER: referenced */
	unsigned refs;            /* its node, layers above it, reads and writes that run without the lock */
	unsigned held;            /* HELD_* */
	int fd;                   /* data file; -1: not open */
	int log_fd;               /* extent log; -1: not open */
	unsigned fd_users;
	uint64_t size;            /* logical size; st_size of the data file */
	uint64_t lower_len;       /* bytes of the lower that count */
	struct ext *ext;          /* sorted, disjoint, not touching, all below lower_len */
	size_t n_ext, cap_ext;
	uint64_t log_len;         /* bytes of the extent log; all of it is whole records */
	/* a record could not be written: the log is written anew before anything else changes */
	bool log_behind;
	bool synced;              /* stage_sync promised its bytes */
	unsigned changes;         /* of its bytes, since it was loaded or made */
	bool durable;             /* all of them are on stable storage */
	bool unpromised;          /* the journal took rec.synced back, which is not on stable storage yet */
	bool lost;                /* its data file was not as the journal says */
	bool half;                /* may be half written: a commit takes it only as the top one of a settled file */
	bool doomed, needed;      /* marks of the call that runs: it goes; something lies over it */
};

struct row {
	struct row *hash_next;
	struct row *prev, *next; /* in the folder */
	struct node *dir;
	struct node *node; /* NULL: whiteout */
	uint64_t gen;      /* of its last change */
	bool conflict;     /* left out of commits until the user decides */
	char name[];
};

struct node {
	struct journal_node rec; /* as in the journal, unless unsaved */
	struct node *hash_next;
	struct row *row;         /* its name; NULL: none (or the root) */
	/* folder */
	struct row *rows;
	size_t n_rows;
	time_t told_s; /* its mtime in the journal, which is at most a second behind until stage_close */
	/* file */
	struct layer *top;       /* newest; NULL: it is rec.blob */
	unsigned pins, writers;
	unsigned freezers;       /* threads that wait to freeze it: new writes stay out */
	bool busy;               /* a thread writes to its top layer without the lock */
	bool changed;            /* since its last writer closed */
	bool written;            /* bytes, since its first writer opened; not only made or cut */
	int64_t closed_ms;       /* when its last writer closed, as util_now_ms() */
	/* the journal refused rec when no error could be answered: put again with the next change */
	bool unsaved;
	bool appended;           /* since its first writer opened, each write began at its end */
	bool before;             /* a transaction may bring it back */
	bool listed;             /* stage_freeze was asked for it by name */
	bool stuck;              /* the journal refused to forget it: the next stage_open does */
	pid_t last_pid;          /* the thread that wrote last; 0: none since its first writer opened */
};

/* Files of a layer that the journal does not know any more. They are removed without the lock; those whose
 * bytes were promised (stage_sync) not before that journal is on stable storage. What is forgotten here
 * stage_open removes. */
struct trash {
	uint64_t node;
	uint32_t layer;
	bool promised;
};

/* Changes of locals: first in a transaction, then in memory. */
struct stage_change {
	char *drop;        /* this path */
	struct local *put; /* or this one, in place of what is there */
};
struct stage_changes {
	struct stage_change *change;
	size_t n, cap;
};

struct stage {
	struct stage_place place;
	struct journal *journal;
	int data_fd; /* the data folder */
	struct lock lock;
	struct cond idle; /* some node is not busy any more */
	/* -- guarded by lock -- */
	struct node **node_table;
	size_t node_buckets, n_nodes, n_files;
	struct row **row_table;
	size_t row_buckets, n_rows, n_follow; /* n_follow: rows for which stage_is_nothing */
	struct node *root;
	uint64_t next_node, next_reserved; /* ids below next_reserved are booked in the journal */
	uint64_t gen;
	char parent[41];
	bool committing;  /* since stage_freeze or stage_names */
	bool names_taken; /* since stage_names */
	bool has_intent;
	enum stage_tx tx;
	struct stage_locals *locals;
	char boot[64];        /* the machine's boot id; "": unknown */
	bool unsynced;        /* some closed file may not be on stable storage */
	bool power_failed;    /* while it is loaded: since the journal was used last */
	unsigned n_doubtful;  /* layers of which bytes may be missing */
	struct trash *trash;
	size_t n_trash, cap_trash, n_promised;
};

/* -- stage.c: tables, states of a file; all with the lock -- */

struct node *stage_node_find(struct stage *s, uint64_t id);
/* NULL, and -ENOENT or -EISDIR in *ret_err. */
struct node *stage_file_find(struct stage *s, uint64_t id, int *ret_err);
struct node *stage_dir_find(struct stage *s, uint64_t id); /* NULL: no folder */
struct row *stage_row_find(struct stage *s, const struct node *dir, const char *name);
struct node *stage_node_new(const struct journal_node *rec); /* NULL: no memory */
void stage_node_insert(struct stage *s, struct node *n);
void stage_node_free(struct node *n); /* the struct and its layers; their files stay */
struct row *stage_row_new(const char *name);
void stage_row_attach(struct stage *s, struct node *dir, struct row *row, struct node *node, uint64_t gen);
void stage_row_detach(struct stage *s, struct row *row); /* and frees it; its node has no name then */
/* Gives it another node, or none: a whiteout. The former one has no name then. */
void stage_row_set(struct stage *s, struct row *row, struct node *node, uint64_t gen);
/* Sets base, and the count of FOLLOW rows with it. Takes path. */
void stage_node_set_base(struct stage *s, struct node *n, enum stage_base_kind kind, const char *commit,
                         char *path);

bool stage_is_follow(const struct node *n); /* NULL is none */
/* A FOLLOW folder that shows nothing which the base does not: its row alone is no staged change. NULL is none. */
bool stage_is_nothing(const struct node *n);
void stage_node_set_flags(struct stage *s, struct node *n, unsigned flags);

/* Path of what has a name; "" for the root. -ENOENT: it has none. Caller frees. */
int stage_node_path(const struct node *n, char **ret) MUST_USE;

/* Path at which its base has a folder, or where it will be when it has none. Caller frees. */
int stage_base_path(const struct node *dir, char **ret) MUST_USE;

void stage_node_attr(const struct node *n, struct stage_attr *ret);
/* A file on which nothing differs from what its parent's base shows at this name. */
bool stage_node_unchanged(const struct node *n);
/* A file that nobody has open, writes or freezes. */
bool stage_node_idle(const struct node *n);
/* And of which no commit holds a layer: it goes when it has no name. */
bool stage_node_unused(const struct node *n);
/* Inside a transaction: the journal forgets an unchanged file's row. What was told about it goes into
 * `kept`. */
void stage_journal_drop_unchanged(struct stage *s, const struct node *n, struct stage_changes *kept);
/* After the transaction that deleted it: memory and files. It has no name any more. */
void stage_node_drop(struct stage *s, struct node *n);
/* Forgets an unused file that has no name, and the row of an unused one that is unchanged. */
void stage_node_reap(struct stage *s, struct node *n);
void stage_reap_all(struct stage *s);
/* Nobody writes to it any more. */
void stage_node_closed(struct stage *s, struct node *n);
/* A transaction that puts `next` in place of n->rec, and it is so in memory. The paths in next are those of
 * n->rec. */
int stage_node_save(struct stage *s, struct node *n, const struct journal_node *next) MUST_USE;
struct timespec stage_mtime_after(struct timespec old);

/* The journal has forgotten it: its files go, the struct too once nobody reads it. It is in no list any
 * more. */
void stage_layer_drop(struct stage *s, struct layer *l);
/* What waits for the disk, without the lock; at the end of everything that makes changes. flush: the
 * journal is on stable storage when it returns 0; without, it cannot fail in a way that matters. */
int stage_housekeep(struct stage *s, bool flush);

/* -- stage_name.c -- */

int stage_check_name(const char *name) MUST_USE; /* -EINVAL, -ENAMETOOLONG */

/* -- stage_conflict.c -- */

/* Is it, or a folder above it, in conflict? */
bool stage_in_conflict(const struct node *n);

/* -- stage_tx.c -- */

/* A transaction ends: inside a transaction of the journal, and after it. */
void stage_tx_journal_end(struct stage *s);
void stage_tx_apply_end(struct stage *s);
int stage_tx_load(struct stage *s) MUST_USE;

/* -- stage_load.c -- */

int stage_load(struct stage *s) MUST_USE;
/* Forgets the folders that were needed only for rows which are gone; what was told about them goes to locals. */
int stage_prune(struct stage *s) MUST_USE;

/* -- stage_range.c -- */

/* A closed file that was copied from a committed one, all of it, is that blob. */
void stage_become_blob(struct stage *s, struct node *n);

/* -- stage_local.c: what was told about what has no node -- */

struct stage_locals *stage_locals_new(void); /* NULL: no memory */
struct stage_locals *stage_locals_copy(const struct stage_locals *t); /* NULL: no memory */
size_t stage_locals_count(const struct stage_locals *t);
int stage_locals_load(struct stage_locals *t, struct journal_local *rec) MUST_USE; /* takes rec->path */
/* The journal learns which tree a folder was seen with. */
int stage_locals_save(struct stage *s) MUST_USE;
/* Adds to the list: what is put; all at or below `top` go; copies of all below `from`, under `to`. Nothing is
 * changed before stage_changes_apply. */
int stage_changes_put(struct stage_changes *c, const char *path, const struct blob_key *key,
                      const struct stage_attr *attr) MUST_USE;
int stage_changes_drop(struct stage_changes *c, const struct stage_locals *t, const char *top) MUST_USE;
int stage_changes_move(struct stage_changes *c, const struct stage_locals *t, const char *from,
                       const char *to) MUST_USE;
int stage_changes_join(struct stage_changes *c, struct stage_changes *more) MUST_USE; /* takes those of more */
/* What was told about a folder that loses its node, if anything was. */
int stage_changes_keep(struct stage_changes *c, const struct node *n, const char *path) MUST_USE;
void stage_changes_journal(struct stage *s, const struct stage_changes *c); /* inside a transaction */
void stage_changes_apply(struct stage *s, struct stage_changes *c); /* after it; empties the list */
void stage_changes_fini(struct stage_changes *c);

/* -- stage_extent.c: which bytes of a layer are its own -- */

#define STAGE_EXT_WRITE 1u /* the numbers are the format */
#define STAGE_EXT_TRUNCATE 2u
#define STAGE_EXT_LOWER 3u
#define STAGE_EXT_RECORD 24 /* bytes of one in the log */

/* The first ext that ends at or after `off`. */
size_t stage_ext_at(const struct layer *l, uint64_t off);
/* Room for one more; then stage_ext_add cannot fail. */
int stage_ext_reserve(struct layer *l) MUST_USE;
void stage_ext_add(struct layer *l, uint64_t off, uint64_t end);
bool stage_ext_covers(const struct layer *l, uint64_t off, uint64_t end);
void stage_ext_cut(struct layer *l, uint64_t size);
/* Is every byte of it in its data file? */
bool stage_ext_whole(const struct layer *l);
/* Writes one record; log_behind when the log must be written anew first. */
int stage_ext_log(struct layer *l, uint32_t kind, uint64_t off, uint64_t len) MUST_USE;
int stage_ext_rewrite(struct stage *s, struct layer *l) MUST_USE;
/* *ret_torn: it ended in something that is no record. */
int stage_ext_load(struct stage *s, struct layer *l, bool *ret_torn) MUST_USE;

/* -- stage_layer.c: bytes -- */

#define STAGE_DATA_NAME_MAX 64
void stage_layer_name(uint64_t node, uint32_t layer, const char *suffix, char out[STAGE_DATA_NAME_MAX]);
int stage_layer_open(struct stage *s, const struct layer *l, const char *suffix, int flags, int *ret) MUST_USE;
/* One change of bytes [off, end) of a file, which runs without the lock. */
struct stage_change_range {
	uint64_t off, end;
	bool own;   /* the bytes are those of the data file from then on, whatever lies below */
	bool grows; /* the file has at least `end` bytes then */
	/* Does it; `size` is the file's. May make `end` smaller, not smaller than off. */
	int (*put)(struct stage_change_range *c, int fd, uint64_t size);
};
int stage_change_range(struct stage *s, uint64_t node, struct stage_change_range *c, pid_t pid) MUST_USE;
/* Where the bytes from `off` on lie: a piece of one data file, or (*ret_layer NULL) of `*ret_blob`. */
int stage_layer_locate(struct layer *l, uint64_t off, uint64_t *len, struct layer **ret_layer,
                       const struct journal_blob **ret_blob) MUST_USE;
/* Makes the file, which has `off` bytes, longer by those of `blob` at the same place. -EOPNOTSUPP: what it has is not the
 * beginning of that blob. */
int stage_refer(struct stage *s, uint64_t node, const struct journal_blob *blob, uint64_t off, uint64_t len,
                pid_t pid) MUST_USE;
/* Size of what it lies over. */
uint64_t stage_layer_below(const struct layer *l);

/* An empty layer over nothing for a new file: its data file and its struct. The journal does not know it
 * yet; if it refuses it, stage_layer_undo. */
int stage_layer_first(struct stage *s, uint64_t node, struct layer **ret) MUST_USE;
void stage_layer_undo(struct stage *s, struct layer *l);
struct layer *stage_layer_alloc(const struct journal_layer *rec); /* takes blob.path when it is not NULL */
void stage_layer_push(struct node *n, struct layer *l);
void stage_layer_unref(struct layer *l);
/* Removes NODE.LAYER* now. */
void stage_layer_unlink(struct stage *s, uint64_t node, uint32_t layer);
/* After stage_open read its row: size, extents. Sets lost where they cannot be right. */
int stage_layer_load(struct stage *s, struct layer *l, bool was_closed) MUST_USE;
/* Keeps its data file (and extent log) open until stage_layer_release. */
int stage_layer_hold(struct stage *s, struct layer *l, bool log) MUST_USE;
void stage_layer_release(struct stage *s, struct layer *l);
unsigned stage_layer_depth(const struct layer *l);
/* Closes descriptors that nobody uses. */
void stage_layer_close_idle(struct node *n);
uint64_t stage_layer_bytes(const struct layer *l); /* of its own */
/* Blocks of 512 bytes of a file of `size` bytes with that top layer (or none). */
uint64_t stage_layer_blocks(struct stage *s, const struct layer *l, uint64_t size);

/* Waits until no thread writes to the file, and lets none begin until stage_freeze_leave. The lock is
 * dropped meanwhile; the node stays, its name may go. */
void stage_freeze_enter(struct stage *s, struct node *n);
void stage_freeze_leave(struct stage *s, struct node *n); /* may forget the node */

/* -- stage_commit.c -- */

/* The top layer's bytes are as they will stay: inside a transaction, and after it. */
void stage_journal_freeze(struct stage *s, struct node *n);
void stage_apply_freeze(struct stage *s, struct node *n);
/* After a transaction that took doomed layers away (done), or did not. */
void stage_sweep(struct stage *s, struct node *n, bool done);
/* What a commit held is not held any more; `also`: more HELD_*. */
void stage_drop_holds(struct stage *s, unsigned also);

#endif
