/* upload: digests of frozen files, the Hub's judgement of them, and the way of large ones to the Hub.
 *
 * Not for which files a commit holds (commit) nor for the requests themselves (hub_commit, hub_lfs). The
 * thread of a commit calls everything; upload_read also runs on the transfer threads of hub_lfs_upload,
 * several at once for one file.
 *
 * A file goes through: digest -> judged (regular: its bytes go with the commit; LFS: they go ahead) ->
 * ready. Each step is skipped when its result is known, so that a try after a failure repeats only what is
 * missing. */
#define LOG_MODULE "upload"

#include "upload.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "log.h"

#define READ_SIZE ((size_t)1 << 20)
#define JUDGE_BATCH 1000 /* files of one preupload: hub-api.md 6.1 */
#define PARALLEL 4      /* transfers at a time */

/* -- files -- */

static struct upload_file *file_new(const struct upload *u, const char *path, uint64_t size)
{
	struct upload_file *f = calloc(1, sizeof(*f));

	if (!f)
		return NULL;
	f->path = strdup(path);
	if (!f->path) {
		free(f);
		return NULL;
	}
	f->upload = u;
	f->size = size;
	lock_init(&f->lock, LOCK_UPLOAD);
	return f;
}

int upload_file_frozen(const struct upload *u, const char *path, const struct stage_frozen *frozen,
                       struct upload_file **ret)
{
	struct upload_file *f = file_new(u, path, frozen->size);

	if (!f)
		return -ENOMEM;
	f->node = frozen->node;
	f->layer = frozen->layer;
	if (frozen->has_digests) {
		f->has_sha256 = f->has_git = true;
		f->sha256 = frozen->sha256;
		f->git = frozen->git;
	}
	*ret = f;
	return 0;
}

int upload_file_blob(const struct upload *u, const char *path, const struct blob_key *blob,
                     const char *commit, const char *blob_path, struct upload_file **ret)
{
	struct upload_file *f = file_new(u, path, blob->size);

	if (!f)
		return -ENOMEM;
	f->blob = *blob;
	f->blob_path = strdup(blob_path ? blob_path : "");
	if (!f->blob_path) {
		upload_file_free(f);
		return -ENOMEM;
	}
	snprintf(f->commit, sizeof(f->commit), "%s", commit);
	if (blob->alg == HASH_SHA256) {
		/* What is in the repository as LFS content is named there again, wherever it goes. */
		f->has_sha256 = true;
		f->sha256 = *blob;
		f->judged = f->lfs = f->ready = true;
	} else {
		f->has_git = true;
		f->git = *blob;
	}
	*ret = f;
	return 0;
}

void upload_file_free(struct upload_file *f)
{
	if (!f)
		return;
	fetch_close(f->source);
	lock_fini(&f->lock);
	free(f->path);
	free(f->blob_path);
	free(f);
}

void upload_file_freep(struct upload_file **f)
{
	upload_file_free(*f);
}

const struct blob_key *upload_key(const struct upload_file *f)
{
	assert(f->judged && (f->lfs ? f->has_sha256 : f->has_git));
	return f->lfs ? &f->sha256 : &f->git;
}

bool upload_is(const struct upload_file *f, const struct blob_key *key)
{
	if (key->alg == HASH_SHA256)
		return f->has_sha256 && hash_key_equal(&f->sha256, key);
	return f->has_git && hash_key_equal(&f->git, key);
}

/* -- reading -- */

/* The source of a blob that the file's bytes come from, referenced. */
static int get_source(struct upload_file *f, const struct blob_key *key, const char *commit, const char *path,
                      struct source **ret)
{
	struct hub_place place = {.id = *f->upload->repo, .path = path};
	CLEANUP(fetch_closep) struct source *old = NULL;
	CLEANUP(fetch_closep) struct source *made = NULL;
	int r;

	{
		LOCKED(&f->lock);
		if (f->source && hash_key_equal(fetch_key(f->source), key)) {
			*ret = fetch_ref(f->source);
			return 0;
		}
	}
	snprintf(place.commit, sizeof(place.commit), "%s", commit);
	r = fetch_open(f->upload->fetch, key, &place, &made);
	if (r < 0)
		return r;
	{
		LOCKED(&f->lock);
		old = f->source; /* closed below, without the lock */
		f->source = fetch_ref(made);
	}
	*ret = STEAL(made);
	return 0;
}

static ssize_t read_blob(struct upload_file *f, const struct blob_key *key, const char *commit,
                         const char *path, uint64_t off, void *data, size_t len)
{
	CLEANUP(fetch_closep) struct source *source = NULL;
	ssize_t n;
	int r = get_source(f, key, commit, path, &source);

	if (r < 0)
		return r;
	n = fetch_read_wait(source, off, data, len, f->upload->cancel);
	return n == 0 ? -EIO : n; /* it was asked for inside its size */
}

/* Some bytes from `off`; 0 at the end. */
static ssize_t read_some(struct upload_file *f, void *data, size_t len, uint64_t off)
{
	struct stage_gap gap;
	ssize_t n;

	if (!f->layer) {
		if (off >= f->size)
			return 0;
		return read_blob(f, &f->blob, f->commit, f->blob_path, off, data, MIN(len, f->size - off));
	}
	gap.len = 0;
	n = stage_frozen_read(f->upload->stage, f->node, f->layer, off, data, len, &gap);
	if (n != 0 || gap.len == 0)
		return n;
	return read_blob(f, &gap.key, gap.commit, gap.path, gap.off, data, MIN(len, gap.len));
}

ssize_t upload_read(void *arg, void *data, size_t len, uint64_t off)
{
	struct upload_file *f = arg;
	size_t done = 0;

	while (done < len) {
		ssize_t n;

		if (atomic_load(f->upload->cancel))
			return -ECANCELED;
		n = read_some(f, (char *)data + done, len - done, off + done);
		if (n < 0)
			return n;
		if (n == 0)
			break;
		done += (size_t)n;
	}
	return (ssize_t)done;
}

/* -- digests -- */

/* An assembled copy under way. It is for the cache only: when it fails the commit goes on without. */
struct assembly {
	char *path; /* NULL: none is wanted */
	char *tmp;
	int fd;
};

static void assembly_drop(struct assembly *a)
{
	if (a->fd > 0) {
		close(a->fd);
		unlink(a->tmp);
	}
	free(a->path);
	free(a->tmp);
	*a = (struct assembly){.fd = -1};
}

static int assembly_begin(struct upload_file *f, struct assembly *a)
{
	bool exists = true;
	int r = f->layer ? stage_whole_path(f->upload->stage, f->node, f->layer, &a->path, &exists) : 0;

	if (r < 0 || exists)
		return r;
	a->tmp = util_printf("%s.tmp", a->path);
	if (!a->tmp)
		return -ENOMEM;
	a->fd = open(a->tmp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (a->fd < 0)
		log_warn("%s: cannot be written (%s): what is uploaded will not be in the cache", a->tmp,
		         strerror(errno));
	return 0;
}

static void assembly_add(struct assembly *a, const void *data, size_t len, uint64_t off)
{
	int r;

	if (a->fd < 0)
		return;
	r = util_pwrite_all(a->fd, data, len, off);
	if (r < 0) {
		log_warn("%s: %s: what is uploaded will not be in the cache", a->tmp, strerror(-r));
		assembly_drop(a);
	}
}

/* Its name appears only when its bytes are on the disk: a crash never leaves a half one there. */
static void assembly_end(struct assembly *a)
{
	if (a->fd < 0)
		return;
	if (fdatasync(a->fd) < 0 || rename(a->tmp, a->path) < 0) {
		log_warn("%s: %s: what is uploaded will not be in the cache", a->tmp, strerror(errno));
		assembly_drop(a);
		return;
	}
	close(a->fd);
	a->fd = -1;
}

static int digest_bytes(struct upload_file *f, struct assembly *copy, struct hash *sha256, struct hash *git)
{
	AUTO_FREE char *buf = malloc(READ_SIZE);
	int r;

	if (!buf)
		return -ENOMEM;
	for (uint64_t off = 0; off < f->size;) {
		ssize_t n = upload_read(f, buf, MIN(READ_SIZE, f->size - off), off);

		if (n < 0)
			return (int)n;
		if (n == 0) {
			log_err("%s: its staged bytes end at %llu of %llu", f->path, (unsigned long long)off,
			        (unsigned long long)f->size);
			return -EIO;
		}
		r = hash_add(sha256, buf, (size_t)n);
		if (r == 0)
			r = hash_add(git, buf, (size_t)n);
		if (r < 0)
			return r;
		assembly_add(copy, buf, (size_t)n, off);
		off += (uint64_t)n;
		atomic_fetch_add(&f->upload->progress->hashed, (uint64_t)n);
	}
	return 0;
}

int upload_digest(struct upload_file *f)
{
	CLEANUP(hash_freep) struct hash *sha256 = NULL;
	CLEANUP(hash_freep) struct hash *git = NULL;
	CLEANUP(assembly_drop) struct assembly copy = {.fd = -1};
	struct blob_key keys[2];
	int r;

	if (f->has_sha256 && f->has_git)
		return 0;
	sha256 = hash_new(HASH_SHA256, f->size);
	git = hash_new(HASH_GIT_SHA1, f->size);
	if (!sha256 || !git)
		return -ENOMEM;
	r = assembly_begin(f, &copy);
	if (r == 0)
		r = digest_bytes(f, &copy, sha256, git);
	if (r == 0)
		r = hash_end(sha256, &keys[0]);
	if (r == 0)
		r = hash_end(git, &keys[1]);
	if (r < 0)
		return r;
	assembly_end(&copy);
	if (!f->layer && !hash_key_equal(&keys[1], &f->git)) {
		log_err("%s: the cached bytes of a committed file are not the file's", f->path);
		return -EIO;
	}
	if (f->layer)
		r = stage_set_digests(f->upload->stage, f->node, f->layer, &keys[0], &keys[1]);
	if (r < 0)
		return r;
	f->sha256 = keys[0];
	f->git = keys[1];
	f->has_sha256 = f->has_git = true;
	return 0;
}

/* -- the Hub's judgement -- */

static int judge_batch(const struct upload *u, struct upload_file **files, struct hub_pre_file *pre, size_t n,
                       char ret_head[41], struct hub_error *err)
{
	int r;

	for (size_t i = 0; i < n; i++) {
		size_t want = MIN(sizeof(pre[i].sample), files[i]->size);
		ssize_t got = upload_read(files[i], pre[i].sample, want, 0);

		if (got < 0)
			return (int)got;
		pre[i].path = files[i]->path;
		pre[i].size = files[i]->size;
		pre[i].sample_len = (size_t)got;
	}
	r = hub_preupload(u->hub, u->repo, u->rev, u->create_pr, pre, n, ret_head, err);
	if (r < 0)
		return r;
	for (size_t i = 0; i < n; i++) {
		struct upload_file *f = files[i];
		struct blob_key remote = pre[i].remote;

		remote.size = f->size; /* it is not told */
		f->judged = true;
		f->lfs = pre[i].lfs && f->size > 0;
		f->ready = pre[i].has_remote && remote.alg == HASH_SHA256 && upload_is(f, &remote);
	}
	return 0;
}

int upload_judge(const struct upload *u, struct upload_file **files, size_t n, char ret_head[41],
                 struct hub_error *err)
{
	AUTO_FREE struct hub_pre_file *pre = calloc(JUDGE_BATCH, sizeof(*pre));
	struct upload_file *batch[JUDGE_BATCH];
	char head[41] = "";
	size_t filled = 0;
	int r;

	if (!pre)
		return -ENOMEM;
	for (size_t i = 0; i < n; i++) {
		if (!files[i]->judged)
			batch[filled++] = files[i];
		if (filled == JUDGE_BATCH || (i == n - 1 && filled)) {
			memset(pre, 0, JUDGE_BATCH * sizeof(*pre));
			r = judge_batch(u, batch, pre, filled, head, err);
			if (r < 0)
				return r;
			filled = 0;
		}
	}
	memcpy(ret_head, head, sizeof(head));
	return 0;
}

/* -- large files -- */

static int by_sha256(const void *a, const void *b)
{
	const struct upload_file *x = *(struct upload_file *const *)a;
	const struct upload_file *y = *(struct upload_file *const *)b;

	return memcmp(x->sha256.id, y->sha256.id, sizeof(x->sha256.id));
}

/* Files to be sent, each content once, into `todo`. */
static int collect(struct upload_file **files, size_t n, struct upload_file **todo, size_t *ret_n)
{
	size_t m = 0, kept = 0;
	int r;

	for (size_t i = 0; i < n; i++) {
		if (!files[i]->judged || !files[i]->lfs || files[i]->ready)
			continue;
		r = upload_digest(files[i]);
		if (r < 0)
			return r;
		todo[m++] = files[i];
	}
	qsort(todo, m, sizeof(struct upload_file *), by_sha256);
	for (size_t i = 0; i < m; i++) {
		if (i == 0 || by_sha256(&todo[i], &todo[kept - 1]) != 0)
			todo[kept++] = todo[i];
	}
	*ret_n = kept;
	return 0;
}

int upload_send(const struct upload *u, struct upload_file **files, size_t n, struct hub_error *err)
{
	AUTO_FREE struct upload_file **todo = calloc(n + 1, sizeof(struct upload_file *));
	AUTO_FREE struct hub_lfs_file *lfs = NULL;
	size_t m = 0;
	int r;

	if (!todo)
		return -ENOMEM;
	r = collect(files, n, todo, &m);
	if (r < 0 || m == 0)
		return r;
	lfs = calloc(m, sizeof(*lfs));
	if (!lfs)
		return -ENOMEM;
	for (size_t i = 0; i < m; i++) {
		lfs[i] = (struct hub_lfs_file){
			.key = todo[i]->sha256, .source = upload_read, .arg = todo[i],
			.sent = &u->progress->sent,
		};
		atomic_fetch_add(&u->progress->to_send, todo[i]->size);
	}
	r = hub_lfs_upload(u->hub, u->repo, u->rev, u->create_pr, lfs, m, PARALLEL, u->cancel, err);
	if (r == -EACCES && u->create_pr && err->status == 403)
		snprintf(err->text, sizeof(err->text),
		         "the Hub takes large (LFS) files only from members who may write, also for a pull request: "
		         "ask for write access, or leave out %.200s", todo[0]->path);
	for (size_t i = 0; i < m; i++) {
		todo[i]->ready = lfs[i].result == 0 && (r == 0 || lfs[i].was_there);
		if (lfs[i].was_there)
			atomic_fetch_sub(&u->progress->to_send, todo[i]->size);
	}
	if (r < 0)
		return r;
	for (size_t i = 0; i < n; i++) {
		if (files[i]->judged && files[i]->lfs)
			files[i]->ready = true; /* the same content under another name too */
	}
	return 0;
}
