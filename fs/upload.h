/* upload: brings the content of a commit to the Hub before the commit names it: digests, preupload, LFS.
 *
 * Works for commit, on its thread; upload_read is called from the threads of hub_lfs_upload too. Blocks on
 * disk and network; no lock of others held. */
#ifndef HUGFS_UPLOAD_H
#define HUGFS_UPLOAD_H

#include <stdatomic.h>

#include "fetch.h"
#include "hub.h"
#include "lock.h"
#include "stage.h"

/* How far it is; read by anybody. */
struct upload_progress {
	atomic_uint_fast64_t hashed;        /* bytes that were read for digests */
	atomic_uint_fast64_t sent, to_send; /* bytes of large files */
};

/* What it works with; borrowed. */
struct upload {
	struct hub *hub;
	struct fetch *fetch;
	struct stage *stage;
	const struct repo_id *repo;
	const char *rev;
	bool create_pr; /* what is sent is for a pull request that will be opened against rev */
	atomic_bool *cancel;
	struct upload_progress *progress;
};

/* Content under a path. Either frozen staged bytes (node, layer) or a committed blob (layer 0). */
struct upload_file {
	const struct upload *upload;
	char *path;              /* owned */
	uint64_t size;
	uint64_t node;
	uint32_t layer;
	struct blob_key blob;    /* layer 0 */
	char commit[41];         /* where it can be fetched */
	char *blob_path;         /* owned */
	bool has_sha256, has_git;
	struct blob_key sha256, git;
	/* what preupload says of this content at this path */
	bool judged, lfs;
	bool ready;              /* of LFS content: the repository has it */
	bool used;               /* by the run under way */
	/* -- guarded by lock -- */
	struct lock lock;
	struct source *source;   /* of the blob that was read from last */
};

/* From a frozen file, or from a committed blob. Takes copies. */
int upload_file_frozen(const struct upload *u, const char *path, const struct stage_frozen *frozen,
                       struct upload_file **ret) MUST_USE;
int upload_file_blob(const struct upload *u, const char *path, const struct blob_key *blob,
                     const char *commit, const char *blob_path, struct upload_file **ret) MUST_USE;
void upload_file_free(struct upload_file *f);
void upload_file_freep(struct upload_file **f);

/* Bytes of the file: an http_source, `arg` is the struct upload_file. Fewer than `len` only at its end. */
ssize_t upload_read(void *arg, void *data, size_t len, uint64_t off);

/* Makes both digests known, reading it once when they are not; tells the stage. Content that lies over a
 * blob is assembled meanwhile where stage_whole_path says. -ECANCELED. */
int upload_digest(struct upload_file *f) MUST_USE;

/* Asks the Hub how each file that is not judged is to be sent. ret_head: the branch's head, "" when it was
 * not told or nothing was asked. */
int upload_judge(const struct upload *u, struct upload_file **files, size_t n, char ret_head[41],
                 struct hub_error *err) MUST_USE;

/* Sends the content of those judged LFS that the repository does not have. */
int upload_send(const struct upload *u, struct upload_file **files, size_t n, struct hub_error *err) MUST_USE;

/* What the branch will call its content; it is judged and has its digests. */
const struct blob_key *upload_key(const struct upload_file *f);
/* Is its content `key`, by whatever digest that names it? */
bool upload_is(const struct upload_file *f, const struct blob_key *key);

#endif
