/* hub_commit: preupload, and the one POST that is a commit.
 *
 * Not for deciding what a commit holds or whether to send it again (fs/commit.c). Worker threads only. The
 * body of a commit is written to a spool first, because the Hub wants its length (hub-api.md 6.8): memory
 * while it is small, then an unlinked file in $TMPDIR. */
#define LOG_MODULE "hub"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "hub_json.h"
#include "hub_priv.h"

#define FILES_PER_CALL 1000 /* hub-api.md 6.1: the schema's maxItems */
#define SPOOL_MEMORY ((size_t)1 << 20)
#define PIECE 49152 /* of a file, read at a time: a multiple of 3, so that base64 has no padding inside */
#define COMMIT_DEADLINE_S 120

/* -- preupload -- */

static int write_pre_files(struct buf *out, const struct hub_pre_file *files, size_t n)
{
	struct hub_json_writer w;

	hub_json_write_init(&w, out);
	hub_json_write_object(&w, NULL);
	hub_json_write_array(&w, "files");
	for (size_t i = 0; i < n; i++) {
		hub_json_write_object(&w, NULL);
		hub_json_write_exact(&w, "path", files[i].path);
		hub_json_write_number(&w, "size", (int64_t)files[i].size);
		hub_json_write_base64(&w, "sample", files[i].sample,
		                      MIN(files[i].sample_len, sizeof(files[i].sample)));
		hub_json_write_end(&w);
	}
	hub_json_write_end(&w);
	hub_json_write_exact(&w, "gitIgnore", ""); /* else the repository's own would apply */
	hub_json_write_end(&w);
	return hub_json_write_done(&w);
}

int hub_preupload(struct hub *h, const struct repo_id *id, const char *rev, bool create_pr,
                  struct hub_pre_file *files, size_t n, char ret_head[41], struct hub_error *err)
{
	struct hub_ask ask = {.what = "preparing an upload to", .id = id, .rev = rev, .writes = true};
	AUTO_FREE char *escaped = repo_escape_rev(rev);
	AUTO_FREE char *url = NULL;
	char head[41] = "", page_head[41];

	hub_error_clear(err);
	if (escaped)
		url = hub_api_url(h, id, "/preupload/%s%s", escaped, create_pr ? "?create_pr=1" : "");
	if (!url)
		return -ENOMEM;
	for (size_t i = 0; i < n; i += FILES_PER_CALL) {
		size_t count = MIN(n - i, (size_t)FILES_PER_CALL);
		AUTO_HTTP_RESP resp = {0};
		AUTO_BUF body = {0};
		int r;

		r = write_pre_files(&body, files + i, count);
		if (r < 0)
			return hub_fail(h, &ask, url, r, NULL, err);
		r = hub_post(h, &ask, url, &body, NULL, NULL, &resp, err);
		if (r < 0)
			return r;
		r = hub_json_preupload(resp.body.data, resp.body.len, files + i, count, page_head);
		if (r < 0)
			return hub_fail_json(h, &ask, url, r, &resp, err);
		/* The first head: if the branch moved in between, the commit will be told so. */
		if (i == 0)
			memcpy(head, page_head, sizeof(head));
	}
	for (size_t i = 0; i < n; i++) {
		if (files[i].size == 0)
			files[i].lfs = false; /* the store takes no empty object (hub-api.md 6.1) */
	}
	memcpy(ret_head, head, sizeof(head));
	return 0;
}

/* -- the spool -- */

struct spool {
	struct buf memory; /* all of it, or what is not in the file yet */
	int fd;            /* -1: memory was enough */
	uint64_t len;
};

static void spool_fini(struct spool *s)
{
	buf_fini(&s->memory);
	util_closep(&s->fd);
}

/* A file without a name in $TMPDIR. */
static int open_unlinked(void)
{
	const char *dir = getenv("TMPDIR");
	AUTO_FREE char *path = NULL;
	int fd;

	if (!dir || !*dir)
		dir = "/tmp";
	fd = open(dir, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	if (fd >= 0 || (errno != EOPNOTSUPP && errno != EISDIR && errno != ENOENT))
		return fd >= 0 ? fd : -errno;
	/* A filesystem that cannot do it in one step. */
	path = util_printf("%s/hugfs-commit-XXXXXX", dir);
	if (!path)
		return -ENOMEM;
	fd = mkostemp(path, O_CLOEXEC);
	if (fd < 0)
		return -errno;
	unlink(path);
	return fd;
}

static int spool_flush(struct spool *s)
{
	int r;

	if (s->fd < 0) {
		r = open_unlinked();
		if (r < 0)
			return r;
		s->fd = r;
	}
	r = util_write_all(s->fd, s->memory.data, s->memory.len);
	s->memory.len = 0;
	return r;
}

static int spool_add(struct spool *s, const void *data, size_t len)
{
	int r;

	if (s->memory.len + len > SPOOL_MEMORY) {
		r = spool_flush(s);
		if (r < 0)
			return r;
	}
	r = buf_add(&s->memory, data, len);
	if (r == 0)
		s->len += len;
	return r;
}

static ssize_t spool_source(void *arg, void *data, size_t len, uint64_t off)
{
	struct spool *s = arg;

	if (s->fd >= 0)
		return util_pread_all(s->fd, data, len, off);
	if (off >= s->memory.len)
		return 0;
	len = MIN(len, s->memory.len - (size_t)off);
	memcpy(data, s->memory.data + off, len);
	return (ssize_t)len;
}

/* -- commit -- */

static int add_line(struct spool *s, struct buf *line)
{
	int r;

	r = buf_add(line, "\n", 1);
	return r < 0 ? r : spool_add(s, line->data, line->len);
}

/* {"key":KEY,"value":{ … and the writer stands inside value. */
static void begin_line(struct hub_json_writer *w, struct buf *line, const char *key)
{
	hub_json_write_init(w, line);
	hub_json_write_object(w, NULL);
	hub_json_write_exact(w, "key", key);
	hub_json_write_object(w, "value");
}

static int end_line(struct hub_json_writer *w, struct spool *s)
{
	int r;

	hub_json_write_end(w);
	hub_json_write_end(w);
	r = hub_json_write_done(w);
	return r < 0 ? r : add_line(s, w->out);
}

static int add_header(struct spool *s, const struct hub_commit_req *req)
{
	AUTO_BUF line = {0};
	struct hub_json_writer w;

	begin_line(&w, &line, "header");
	hub_json_write_string(&w, "summary", req->title);
	hub_json_write_string(&w, "description", req->description ? req->description : "");
	hub_json_write_exact(&w, "parentCommit", req->parent);
	return end_line(&w, s);
}

static int add_delete(struct spool *s, const struct hub_op *op)
{
	AUTO_BUF line = {0};
	struct hub_json_writer w;

	begin_line(&w, &line, "deletedFile");
	hub_json_write_exact(&w, "path", op->path);
	return end_line(&w, s);
}

static int add_lfs(struct spool *s, const struct hub_op *op)
{
	AUTO_BUF line = {0};
	struct hub_json_writer w;
	char oid[HASH_MAX_HEX];

	assert(op->key.alg == HASH_SHA256);
	hash_key_hex(&op->key, oid);
	begin_line(&w, &line, "lfsFile");
	hub_json_write_exact(&w, "path", op->path);
	hub_json_write_exact(&w, "algo", "sha256");
	hub_json_write_exact(&w, "oid", oid);
	hub_json_write_number(&w, "size", (int64_t)op->key.size);
	return end_line(&w, s);
}

/* The file's bytes as base64. -EIO when the source has fewer than it said. */
static int add_content(struct spool *s, const struct hub_op *op)
{
	AUTO_FREE uint8_t *piece = malloc(PIECE);
	AUTO_FREE char *text = malloc(PIECE / 3 * 4);
	int r;

	if (!piece || !text)
		return -ENOMEM;
	for (uint64_t off = 0; off < op->key.size;) {
		size_t want = (size_t)MIN(op->key.size - off, (uint64_t)PIECE), got = 0;

		while (got < want) {
			ssize_t n = op->source(op->arg, piece + got, want - got, off + got);

			if (n <= 0)
				return n < 0 ? (int)n : -EIO;
			got += (size_t)n;
		}
		r = spool_add(s, text, hub_json_base64(piece, got, text));
		if (r < 0)
			return r;
		off += got;
	}
	return 0;
}

static int add_file(struct spool *s, const struct hub_op *op)
{
	static const char start[] = "{\"key\":\"file\",\"value\":{\"encoding\":\"base64\",\"path\":";
	static const char middle[] = ",\"content\":\"", end[] = "\"}}\n";
	AUTO_BUF path = {0};
	struct hub_json_writer w;
	int r;

	hub_json_write_init(&w, &path);
	hub_json_write_exact(&w, NULL, op->path);
	r = hub_json_write_done(&w);
	if (r == 0)
		r = spool_add(s, start, sizeof(start) - 1);
	if (r == 0)
		r = spool_add(s, path.data, path.len);
	if (r == 0)
		r = spool_add(s, middle, sizeof(middle) - 1);
	if (r == 0)
		r = add_content(s, op);
	if (r == 0)
		r = spool_add(s, end, sizeof(end) - 1);
	return r;
}

static int fill_spool(struct spool *s, const struct hub_commit_req *req)
{
	int r;

	r = add_header(s, req);
	for (size_t i = 0; i < req->n && r == 0; i++) {
		const struct hub_op *op = &req->ops[i];

		if (req->cancel && atomic_load(req->cancel))
			return -ECANCELED;
		assert(i == 0 || op->kind != HUB_OP_DELETE || op[-1].kind == HUB_OP_DELETE);
		r = op->kind == HUB_OP_DELETE ? add_delete(s, op)
		    : op->kind == HUB_OP_LFS  ? add_lfs(s, op)
		                              : add_file(s, op);
	}
	if (r == 0 && s->fd >= 0)
		r = spool_flush(s);
	return r;
}

/* A failure before anything was sent. */
static int fail_unsent(struct hub *h, const struct hub_ask *ask, const char *url, int r,
                       struct hub_error *err)
{
	struct hub_error local;

	r = hub_fail(h, ask, url, r, NULL, &local);
	local.maybe_done = false;
	if (err)
		*err = local;
	return r;
}

int hub_commit(struct hub *h, const struct repo_id *id, const struct hub_commit_req *req,
               struct hub_commit_result *ret, struct hub_error *err)
{
	static const char *const headers[] = {"Content-Type: application/x-ndjson", NULL};
	struct hub_ask ask = {
		.what = "committing to", .id = id, .rev = req->rev, .writes = true,
		.quiet_status = 412, /* who commits sees to it */
	};
	CLEANUP(spool_fini) struct spool spool = {.fd = -1, .memory = {.max = SPOOL_MEMORY + 4096}};
	AUTO_FREE char *escaped = repo_escape_rev(req->rev);
	AUTO_FREE char *url = NULL;
	AUTO_HTTP_RESP resp = {0};
	struct http_req post = {
		.method = "POST",
		.lane = HTTP_API,
		.headers = headers,
		.body_source = spool_source,
		.body_arg = &spool,
		.cancel = req->cancel,
		.deadline_s = req->deadline_s ? req->deadline_s : COMMIT_DEADLINE_S,
	};
	int r;

	hub_error_clear(err);
	if (escaped)
		url = hub_api_url(h, id, "/commit/%s%s", escaped, req->create_pr ? "?create_pr=1" : "");
	if (!url)
		return -ENOMEM;
	r = fill_spool(&spool, req);
	if (r < 0)
		return fail_unsent(h, &ask, url, r, err);
	post.url = url;
	post.body_len = spool.len;
	r = hub_call(h, &ask, &post, &resp, err);
	if (r < 0)
		return r;
	r = hub_json_commit_result(resp.body.data, resp.body.len, ret);
	return r < 0 ? hub_fail_json(h, &ask, url, r, &resp, err) : 0;
}
