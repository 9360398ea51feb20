/* hub: the Hub's API as calls. hub.c: repositories, trees, bytes; hub_lfs.c: large uploads; hub_commit.c:
 * preupload and commit; hub_json.c: JSON <-> structs, pure.
 *
 * Every call blocks on the network (http.h): worker threads only, no lock held. Every call takes an optional
 * struct hub_error, in which a failure is told in words for the user. The table that turns an HTTP answer
 * into an errno stands in hub.c (architecture.md 5): -ENOENT, -EACCES, -EDQUOT, -EFBIG, -EMLINK, -EINVAL,
 * -ESTALE (412), -EBUSY (409), -ETIMEDOUT, -EIO, -ENETDOWN, -ECANCELED. Failures are logged here, once. A
 * renamed repository (301, 302, 307, 308 on the endpoint) is followed with method and body kept. */
#ifndef HUGFS_HUB_H
#define HUGFS_HUB_H

#include "hash.h"
#include "http.h"
#include "repo.h"

struct hub;

struct hub_error {
	int status;       /* HTTP status, 0: no answer */
	int retry_after_s; /* -1 unknown */
	bool maybe_done;  /* a POST whose answer was lost or 5xx: the Hub may have done it */
	char code[40];    /* X-Error-Code */
	char text[400];   /* one sentence that names the thing and the cure */
};

struct hub_opts {
	size_t sig_margin_s; /* a signed URL is given up this long before its expiry; 0: 60 */
};
/* Keeps `http` and `auth`, which must outlive it. */
int hub_new(struct http *http, struct auth *auth, const struct hub_opts *opts, struct hub **ret) MUST_USE;
void hub_free(struct hub *h);
const char *hub_endpoint(const struct hub *h);

/* -- who and what -- */

struct hub_whoami {
	char *name;    /* namespace of the token's owner; NULL: no token */
	char **orgs;   /* NULL-terminated names */
};
void hub_whoami_fini(struct hub_whoami *w);
/* At most once per mount (hub-api.md 1.5). No token: 0 with name NULL. */
int hub_whoami(struct hub *h, struct hub_whoami *ret, struct hub_error *err) MUST_USE;

struct hub_repo {
	struct repo_id id;   /* canonical spelling */
	char internal_id[40]; /* _id: survives renames, differs for another repository of the same name */
	char sha[41];        /* head of the revision that was asked for */
	int64_t modified_s;  /* lastModified, 0: not told */
	bool is_private, gated, disabled;
};
/* rev NULL: the default branch. hurry, here and below: an older answer serves as well, so this one is waited for
 * seconds only. */
int hub_repo_info(struct hub *h, const struct repo_id *id, const char *rev, bool hurry, struct hub_repo *ret,
                  struct hub_error *err) MUST_USE;
/* May the token write there? 1 yes, 0 no, or -errno, within some seconds. */
int hub_may_write(struct hub *h, const struct repo_id *id, struct hub_error *err) MUST_USE;
/* 1 when a user or an organisation has that name, 0 when none has, or -errno. */
int hub_namespace_exists(struct hub *h, const char *ns, struct hub_error *err) MUST_USE;

enum hub_ref_kind { HUB_REF_BRANCH, HUB_REF_TAG, HUB_REF_PR, HUB_REF_CONVERT };
struct hub_ref {
	enum hub_ref_kind kind;
	char *name; /* as a revision: "main", "v1", "refs/pr/3", "refs/convert/parquet" */
	char commit[41];
};
struct hub_refs {
	struct hub_ref *refs;
	size_t n;
};
void hub_refs_fini(struct hub_refs *r);
int hub_refs(struct hub *h, const struct repo_id *id, bool hurry, struct hub_refs *ret,
             struct hub_error *err) MUST_USE;

struct hub_commit_info {
	char id[41];
	int64_t date_s;
	char *title, *message; /* message: the description */
	char *author;          /* the first one; NULL: not told */
};
struct hub_commits {
	struct hub_commit_info *commits; /* newest first */
	size_t n;
};
void hub_commits_fini(struct hub_commits *c);
/* At most `limit` (<= 1000) commits from the head of `rev` backwards. */
int hub_commits(struct hub *h, const struct repo_id *id, const char *rev, unsigned limit,
                struct hub_commits *ret, struct hub_error *err) MUST_USE;

/* -- trees -- */

enum hub_entry_kind { HUB_ENTRY_FILE, HUB_ENTRY_DIR, HUB_ENTRY_OTHER };
struct hub_entry {
	enum hub_entry_kind kind;
	char *path;          /* full path from the repository's root */
	uint8_t oid[20];     /* git object id; for an LFS file that of its pointer */
	struct blob_key key; /* of a file: what its bytes are named by */
};
struct hub_entries {
	struct hub_entry *entries;
	size_t n;
};
void hub_entries_fini(struct hub_entries *e);
/* All pages of one folder ("" is the root), or of everything below it. -ENOENT: no such folder (or a
 * file). */
int hub_tree(struct hub *h, const struct repo_id *id, const char *rev, const char *path, bool recursive,
             struct hub_entries *ret, struct hub_error *err) MUST_USE;
/* Those of `paths` that exist, in any order; in batches. */
int hub_paths_info(struct hub *h, const struct repo_id *id, const char *rev, const char *const *paths,
                   size_t n, struct hub_entries *ret, struct hub_error *err) MUST_USE;

/* -- bytes -- */

/* One place where a blob can be fetched. */
struct hub_place {
	struct repo_id id;
	char commit[41];
	const char *path;
};
/* Reads bytes [off, off+len) of the blob `key` (len > 0, inside its size) into `sink`, which is called with
 * consecutive pieces. The signed URL of a blob is asked for once and used until shortly before it expires, by
 * all threads (single flight); a 403 from the data origin asks for it once more. Checks Content-Range and the
 * total size against the key: anything else is -EIO. `cancel` may be NULL. */
int hub_read_range(struct hub *h, const struct hub_place *place, const struct blob_key *key, uint64_t off,
                   uint64_t len, http_sink sink, void *arg, atomic_bool *cancel,
                   struct hub_error *err) MUST_USE;

/* -- publication -- */

/* Could the Hub take a file of this path? 0, -EILSEQ (not UTF-8), -EINVAL (a backslash, a name .git in any case), -ENAMETOOLONG
 * (hub-api.md 6.1, 6.7, 6.8). Pure. */
int hub_path_check(const char *path) MUST_USE;

struct hub_pre_file {
	const char *path;
	uint64_t size;
	uint8_t sample[512]; /* the first bytes of the file */
	size_t sample_len;
	/* answers */
	bool lfs;
	bool ignored;        /* shouldIgnore: advisory, we send "gitIgnore":"" */
	bool has_remote;
	struct blob_key remote; /* what is at that path now; its size is not told (0) */
};
/* Asks for each file whether it goes to LFS, in batches of 1,000. Empty files are always regular. ret_head:
 * head of the branch (may be empty when the Hub did not tell). */
int hub_preupload(struct hub *h, const struct repo_id *id, const char *rev, bool create_pr,
                  struct hub_pre_file *files, size_t n, char ret_head[41], struct hub_error *err) MUST_USE;

struct hub_lfs_file {
	struct blob_key key;  /* HASH_SHA256 */
	http_source source;   /* must be callable from several threads at once */
	void *arg;
	atomic_uint_fast64_t *sent; /* bytes sent so far, for progress; NULL: none */
	int result;           /* answer: 0, or this file's -errno */
	bool was_there;       /* answer: the repository had it, nothing was sent */
};
/* Uploads what the repository does not have: LFS batch, basic or multipart, verify; up to `parallel`
 * transfers at a time on threads of its own. 0 when every file is there, else the first -errno. An expired
 * URL asks for a new batch once. */
int hub_lfs_upload(struct hub *h, const struct repo_id *id, const char *rev, bool create_pr,
                   struct hub_lfs_file *files, size_t n, unsigned parallel, atomic_bool *cancel,
                   struct hub_error *err) MUST_USE;

enum hub_op_kind { HUB_OP_FILE, HUB_OP_LFS, HUB_OP_DELETE };
struct hub_op {
	enum hub_op_kind kind;
	const char *path;
	struct blob_key key;  /* LFS: what; FILE: size */
	http_source source;   /* FILE: its bytes */
	void *arg;
};
struct hub_commit_req {
	const char *rev;
	const char *title, *description;
	const char *parent; /* 40 hex; always given */
	bool create_pr;
	const struct hub_op *ops; /* deletions first: they are sent in this order */
	size_t n;
	atomic_bool *cancel;
	int deadline_s;     /* 0: 120 */
};
struct hub_commit_result {
	char commit[41];
	char *url;    /* of the commit */
	char *pr_url; /* with create_pr */
};
void hub_commit_result_fini(struct hub_commit_result *r);
/* One ndjson POST with Content-Length (built in a temporary file, so memory stays small). Never retried here:
 * err->maybe_done tells the caller to look at the head first (hub-api.md 6.9). -ESTALE: 412. -EBUSY: 409. */
int hub_commit(struct hub *h, const struct repo_id *id, const struct hub_commit_req *req,
               struct hub_commit_result *ret, struct hub_error *err) MUST_USE;

/* -- what is made beside commits -- */

/* -EEXIST: one of that name is there. message, start: NULL: none, the head of main. */
int hub_tag(struct hub *h, const struct repo_id *id, const char *commit, const char *name, const char *message,
            struct hub_error *err) MUST_USE;
int hub_branch(struct hub *h, const struct repo_id *id, const char *name, const char *start,
               struct hub_error *err) MUST_USE;
int hub_create_repo(struct hub *h, const struct repo_id *id, bool is_private, const char *sdk,
                    struct hub_error *err) MUST_USE;

/* -- pull requests -- */

/* Opens one against main, a draft at its head: refs/pr/NUMBER. Goes out once; when its answer is lost an empty one of ours
 * with that title is looked for. */
int hub_pr_open(struct hub *h, const struct repo_id *id, const char *title, const char *description,
                unsigned *ret_number, struct hub_error *err) MUST_USE;
enum hub_pr_status { HUB_PR_DRAFT, HUB_PR_OPEN, HUB_PR_CLOSED, HUB_PR_MERGED };
struct hub_pr {
	enum hub_pr_status status;
	char merged_as[41]; /* the commit on its base; "": not merged, or not told */
};
int hub_pr_get(struct hub *h, const struct repo_id *id, unsigned number, struct hub_pr *ret,
               struct hub_error *err) MUST_USE;
/* It is no draft any more. */
int hub_pr_publish(struct hub *h, const struct repo_id *id, unsigned number, struct hub_error *err) MUST_USE;
/* err->maybe_done: hub_pr_get tells. */
int hub_pr_merge(struct hub *h, const struct repo_id *id, unsigned number, const char *comment,
                 struct hub_error *err) MUST_USE;
/* Where people see it. Caller frees; NULL: no memory. */
char *hub_pr_url(const struct hub *h, const struct repo_id *id, unsigned number);

#endif
