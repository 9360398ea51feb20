/* hub_lfs: large uploads: LFS batch, the PUTs, completion, verify.
 *
 * Not for committing what was uploaded (hub_commit.c). Worker threads; each call starts helper threads of its
 * own and has ended them when it returns.
 *
 * Each distinct content is a job. Rounds: ask for the plans of a batch of waiting jobs; cut the plans into
 * pieces (a basic upload is one piece, a multipart one piece a part); the threads take piece after piece, and
 * who ends a job's last piece also completes and verifies it. A job is
 *     WAITING   to be asked for; again after an expired URL or a failed completion, once
 *     RUNNING   in the round that is under way
 *     DONE      the repository has the content
 *     FAILED    with its error
 * Objects are named by their content, so asking again is always safe. */
#define LOG_MODULE "hub"

#include <assert.h>
#include <errno.h>
#include <string.h>
#include <time.h>

#include "hub_json.h"
#include "hub_priv.h"
#include "lock.h"
#include "log.h"

#define OBJECTS_PER_BATCH 256
#define BYTES_PER_BATCH ((uint64_t)64 << 30) /* one signed URL a part: the answer stays below its cap */
#define PARALLEL_MAX 32
#define PUT_TRIES 6           /* a PUT begins again from its first byte */
#define STORE_TIMEOUT_TRIES 3 /* S3 says 400 RequestTimeout to a slow sender */
#define TRIES 2               /* rounds that may end badly for one job */
#define EXPIRY_MARGIN_S 5

enum job_state { WAITING, RUNNING, DONE, FAILED };

struct job {
	struct hub_lfs_file **files; /* all that have this content; the first one's source is read */
	size_t n_files;
	enum job_state state;
	unsigned tries;
	int result;
	bool was_there;
	/* -- of the round under way -- */
	const struct hub_json_lfs *plan;
	int64_t usable_until_ms;
	size_t n_pieces;
	char **etags;
	atomic_size_t pieces_left;
	atomic_int failed;      /* the first -errno, 0: none; set with the lock held */
	struct hub_error err;   /* of that; guarded by lock */
	atomic_bool again;      /* a new plan may help */
	atomic_bool stale;      /* a new plan is needed, though nothing went wrong */
	atomic_int_fast64_t counted; /* bytes in *sent */
};

struct piece {
	struct job *job;
	size_t index;
};

struct upload {
	struct hub *h;
	struct hub_ask ask;
	const struct repo_id *id;
	const char *rev;
	bool create_pr;
	unsigned parallel;
	atomic_bool *cancel;
	struct job *jobs;
	size_t n_jobs;
	/* -- of the round under way -- */
	struct piece *pieces;
	size_t n_pieces;
	atomic_size_t next;
	atomic_int stop; /* an -errno that ends everything: no network, cancelled, quota */
	struct lock lock; /* of the jobs' errors */
	struct hub_error err; /* for the caller; only its thread */
	bool have_err;
};

/* -- jobs -- */

static int compare_files(const void *a, const void *b)
{
	const struct hub_lfs_file *const *fa = a, *const *fb = b;

	return memcmp((*fa)->key.id, (*fb)->key.id, sizeof((*fa)->key.id));
}

/* Groups the files by content. ret_sorted: n pointers that the jobs point into. */
static int make_jobs(struct hub_lfs_file *files, size_t n, struct upload *up,
                     struct hub_lfs_file ***ret_sorted)
{
	AUTO_FREE struct hub_lfs_file **sorted = calloc(n + 1, sizeof(struct hub_lfs_file *));
	struct job *jobs = calloc(n + 1, sizeof(*jobs));
	size_t n_jobs = 0;

	if (!sorted || !jobs) {
		free(jobs);
		return -ENOMEM;
	}
	for (size_t i = 0; i < n; i++) {
		assert(files[i].key.alg == HASH_SHA256);
		sorted[i] = &files[i];
	}
	qsort(sorted, n, sizeof(struct hub_lfs_file *), compare_files);
	for (size_t i = 0; i < n; i++) {
		if (i == 0 || compare_files(&sorted[i], &sorted[i - 1]) != 0)
			jobs[n_jobs++].files = &sorted[i];
		jobs[n_jobs - 1].n_files++;
	}
	up->jobs = jobs;
	up->n_jobs = n_jobs;
	*ret_sorted = STEAL(sorted);
	return 0;
}

/* The words of the first failure that counts go to the caller. */
static void tell_caller(struct upload *up, const struct hub_error *err)
{
	if (!up->have_err)
		up->err = *err;
	up->have_err = true;
}

/* A piece failed: the job keeps its first failure. Some failures end everything. */
static void note_failure(struct upload *up, struct job *job, int r, const struct hub_error *err)
{
	int none = 0;

	if (r == -ECANCELED || r == -ENETDOWN || r == -EDQUOT || r == -ENOMEM)
		atomic_compare_exchange_strong(&up->stop, &none, r);
	LOCKED(&up->lock);
	if (!atomic_load(&job->failed))
		job->err = *err;
	none = 0;
	atomic_compare_exchange_strong(&job->failed, &none, r);
}

static void count_sent(struct job *job, int64_t bytes)
{
	atomic_fetch_add(&job->counted, bytes);
	for (size_t i = 0; i < job->n_files; i++) {
		if (job->files[i]->sent)
			atomic_fetch_add(job->files[i]->sent, (uint_fast64_t)bytes);
	}
}

/* -- the batch -- */

static int write_batch(struct buf *out, const struct upload *up, struct job *const *jobs, size_t n)
{
	struct hub_json_writer w;
	char oid[HASH_MAX_HEX];

	hub_json_write_init(&w, out);
	hub_json_write_object(&w, NULL);
	hub_json_write_exact(&w, "operation", "upload");
	hub_json_write_array(&w, "transfers");
	hub_json_write_exact(&w, NULL, "basic");
	hub_json_write_exact(&w, NULL, "multipart");
	hub_json_write_end(&w);
	hub_json_write_exact(&w, "hash_algo", "sha256");
	if (!up->create_pr) {
		hub_json_write_object(&w, "ref");
		hub_json_write_exact(&w, "name", up->rev);
		hub_json_write_end(&w);
	}
	hub_json_write_array(&w, "objects");
	for (size_t i = 0; i < n; i++) {
		hash_key_hex(&jobs[i]->files[0]->key, oid);
		hub_json_write_object(&w, NULL);
		hub_json_write_exact(&w, "oid", oid);
		hub_json_write_number(&w, "size", (int64_t)jobs[i]->files[0]->key.size);
		hub_json_write_end(&w);
	}
	hub_json_write_end(&w);
	hub_json_write_end(&w);
	return hub_json_write_done(&w);
}

static int ask_batch(struct upload *up, struct job *const *jobs, size_t n, struct hub_json_lfs_batch *ret,
                     int64_t *ret_date_s, struct hub_error *err)
{
	static const char *const headers[] = {"Accept: application/vnd.git-lfs+json",
	                                      "Content-Type: application/vnd.git-lfs+json", NULL};
	AUTO_FREE char *url = NULL;
	AUTO_HTTP_RESP resp = {0};
	AUTO_BUF body = {0};
	char name[REPO_TEXT_MAX];
	int r;

	hub_id_path(up->id, name);
	url = util_printf("%s/%s%s.git/info/lfs/objects/batch", up->h->endpoint,
	                  repo_type_prefix(up->id->type), name);
	r = write_batch(&body, up, jobs, n);
	if (r < 0)
		return hub_fail(up->h, &up->ask, url ? url : "", r, NULL, err);
	r = hub_post(up->h, &up->ask, url, &body, headers, up->cancel, &resp, err);
	if (r < 0)
		return r;
	*ret_date_s = resp.date_s ? resp.date_s : (int64_t)time(NULL);
	r = hub_json_lfs_batch(resp.body.data, resp.body.len, ret);
	return r < 0 ? hub_fail_json(up->h, &up->ask, url, r, &resp, err) : 0;
}

/* An object's own failure, judged as the HTTP status that it is. */
static int fail_object(struct upload *up, const struct hub_json_lfs *plan, struct hub_error *err)
{
	struct http_resp as_answer = {
		.status = plan->error_code,
		.error_message = plan->error,
		.retry_after_s = -1,
	};

	return hub_fail(up->h, &up->ask, up->h->endpoint, 0, &as_answer, err);
}

static void fail_job(struct upload *up, struct job *job, int r, const struct hub_error *err)
{
	tell_caller(up, err);
	job->state = FAILED;
	job->result = r;
}

/* Puts the plan to the job: DONE, FAILED or RUNNING. */
static void take_plan(struct upload *up, struct job *job, const struct hub_json_lfs_batch *batch,
                      int64_t date_s)
{
	const struct blob_key *key = &job->files[0]->key;
	const struct hub_json_lfs *plan = NULL;
	struct hub_error err = {.retry_after_s = -1};
	int64_t ends;

	for (size_t i = 0; i < batch->n && !plan; i++) {
		if (memcmp(batch->objects[i].key.id, key->id, sizeof(key->id)) == 0)
			plan = &batch->objects[i];
	}
	if (plan && plan->error_code) {
		fail_job(up, job, fail_object(up, plan, &err), &err);
		return;
	}
	if (plan && !plan->upload) {
		job->state = DONE;
		/* else a completion had worked though its answer was lost */
		job->was_there = job->tries == 0;
		return;
	}
	job->n_pieces = 1;
	if (plan && plan->chunk_size) {
		job->n_pieces = plan->n_parts;
		if (plan->n_parts != (key->size + plan->chunk_size - 1) / plan->chunk_size)
			plan = NULL;
	}
	job->etags = plan ? calloc(job->n_pieces, sizeof(*job->etags)) : NULL;
	if (!plan || !job->etags) {
		struct http_resp none = {.status = 200, .is_json = true, .retry_after_s = -1};

		int r = plan ? -ENOMEM : -EBADMSG;

		r = hub_fail_json(up->h, &up->ask, up->h->endpoint, r, &none, &err);
		fail_job(up, job, r, &err);
		return;
	}
	job->plan = plan;
	job->usable_until_ms = INT64_MAX;
	if (hub_url_expiry(plan->chunk_size ? plan->parts[0] : plan->href, &ends))
		job->usable_until_ms = util_now_ms() + (ends - date_s - EXPIRY_MARGIN_S) * 1000;
	atomic_store(&job->pieces_left, job->n_pieces);
	atomic_store(&job->failed, 0);
	atomic_store(&job->again, false);
	atomic_store(&job->stale, false);
	job->state = RUNNING;
}

/* -- the pieces -- */

/* What a PUT reads: a window of the file. */
struct window {
	struct job *job;
	uint64_t start, len;
	uint64_t counted;
};

static ssize_t window_source(void *arg, void *data, size_t len, uint64_t off)
{
	struct window *win = arg;
	const struct hub_lfs_file *file = win->job->files[0];
	ssize_t n;

	if (off >= win->len)
		return 0;
	n = file->source(file->arg, data, (size_t)MIN((uint64_t)len, win->len - off), win->start + off);
	if (n > 0) {
		count_sent(win->job, (int64_t)(off + (uint64_t)n) - (int64_t)win->counted);
		win->counted = off + (uint64_t)n;
	}
	return n;
}

static bool is_store_timeout(const struct http_resp *resp)
{
	return resp->status == 400 && resp->body.data && strstr(resp->body.data, "RequestTimeout");
}

/* A part came after the end of its URL's life. Twice in a row: no upload of this file ever ends. */
static int fail_late(const struct job *job, int status, struct hub_error *err)
{
	hub_error_clear(err);
	err->status = status;
	snprintf(err->text, sizeof(err->text),
	         "too large for this line: the upload (%zu parts) takes longer than the Hub's upload URLs live",
	         job->n_pieces);
	return -EFBIG;
}

/* One PUT. 0, or -errno; *ret_again when only a new URL can help. */
static int put_piece(struct upload *up, const struct piece *piece, bool *ret_again, struct hub_error *err)
{
	struct job *job = piece->job;
	const struct hub_json_lfs *plan = job->plan;
	uint64_t size = job->files[0]->key.size, start = plan->chunk_size * piece->index;
	struct window win = {.job = job, .start = start};
	AUTO_FREE char *url = hub_own_url(up->h, plan->chunk_size ? plan->parts[piece->index] : plan->href);
	struct hub_ask ask = up->ask;
	struct http_req req = {
		.method = "PUT",
		.url = url,
		.lane = HTTP_DATA,
		.headers = plan->chunk_size ? NULL : (const char *const *)plan->headers,
		.body_source = window_source,
		.body_arg = &win,
		.idempotent = true,
		.no_token = true,
		.max_tries = PUT_TRIES,
		.cancel = up->cancel,
	};

	if (!url)
		return -ENOMEM;
	win.len = req.body_len = plan->chunk_size ? MIN(plan->chunk_size, size - start) : size;
	ask.store = true;
	if (job->tries + 1 < TRIES)
		ask.quiet_status = 403; /* an expired URL */
	for (unsigned tries = 1;; tries++) {
		AUTO_HTTP_RESP resp = {0};
		int r;

		r = http_perform(up->h->http, &req, &resp);
		if (r < 0)
			return hub_fail(up->h, &ask, url, r, NULL, err);
		if (resp.status >= 200 && resp.status <= 299) {
			job->etags[piece->index] = STEAL(resp.raw_etag);
			return 0;
		}
		if (is_store_timeout(&resp) && tries < STORE_TIMEOUT_TRIES)
			continue;
		*ret_again = resp.status == 401 || resp.status == 403;
		if (*ret_again && job->n_pieces > 1 && util_now_ms() >= job->usable_until_ms)
			return fail_late(job, resp.status, err);
		return hub_fail(up->h, &ask, url, 0, &resp, err);
	}
}

/* Multipart: tells the Hub that the parts are there. */
static int complete(struct upload *up, struct job *job, bool *ret_again, struct hub_error *err)
{
	static const char *const headers[] = {"Accept: application/vnd.git-lfs+json",
	                                      "Content-Type: application/vnd.git-lfs+json", NULL};
	AUTO_FREE char *url = hub_own_url(up->h, job->plan->href);
	AUTO_HTTP_RESP resp = {0};
	AUTO_BUF body = {0};
	struct http_req req = {
		.method = "POST", .url = url, .lane = HTTP_API, .headers = headers, .cancel = up->cancel};
	struct hub_json_writer w;
	char oid[HASH_MAX_HEX];
	int r;

	if (!url)
		return -ENOMEM;
	hash_key_hex(&job->files[0]->key, oid);
	hub_json_write_init(&w, &body);
	hub_json_write_object(&w, NULL);
	hub_json_write_exact(&w, "oid", oid);
	hub_json_write_array(&w, "parts");
	for (size_t i = 0; i < job->n_pieces; i++) {
		if (!job->etags[i] || !job->etags[i][0])
			return hub_fail(up->h, &up->ask, job->plan->parts[i], -EIO, NULL, err);
		hub_json_write_object(&w, NULL);
		hub_json_write_number(&w, "partNumber", (int64_t)i + 1);
		hub_json_write_exact(&w, "etag", job->etags[i]);
		hub_json_write_end(&w);
	}
	hub_json_write_end(&w);
	hub_json_write_end(&w);
	r = hub_json_write_done(&w);
	if (r < 0)
		return hub_fail(up->h, &up->ask, url, r, NULL, err);
	req.body = body.data;
	req.body_len = body.len;
	r = hub_call(up->h, &up->ask, &req, &resp, err);
	if (r == -EINVAL)
		r = -EIO; /* no rule of the Hub: the parts did not arrive as they were sent */
	/* Perhaps it was done all the same: the next batch tells. */
	*ret_again = r == -EIO || r == -ETIMEDOUT || r == -EACCES;
	return r;
}

static int verify(struct upload *up, struct job *job, struct hub_error *err)
{
	AUTO_FREE char *url = hub_own_url(up->h, job->plan->verify_href);
	AUTO_HTTP_RESP resp = {0};
	AUTO_BUF body = {0};
	struct hub_json_writer w;
	char oid[HASH_MAX_HEX];
	int r;

	hash_key_hex(&job->files[0]->key, oid);
	hub_json_write_init(&w, &body);
	hub_json_write_object(&w, NULL);
	hub_json_write_exact(&w, "oid", oid);
	hub_json_write_number(&w, "size", (int64_t)job->files[0]->key.size);
	hub_json_write_end(&w);
	r = hub_json_write_done(&w);
	return r < 0 ? r : hub_post(up->h, &up->ask, url, &body, NULL, up->cancel, &resp, err);
}

/* One piece, and the job's end when it was the last. */
static void do_piece(struct upload *up, const struct piece *piece, bool first)
{
	struct job *job = piece->job;
	struct hub_error err = {.retry_after_s = -1};
	bool again = false;
	int r = atomic_load(&up->stop);

	/* The first ones always go out, so that a round gets somewhere. */
	/* With parts a new plan begins with the first one again: better to try the old URL. */
	if (!first && job->n_pieces == 1 && util_now_ms() >= job->usable_until_ms)
		atomic_store(&job->stale, true);
	if (r == 0 && !atomic_load(&job->failed) && !atomic_load(&job->stale))
		r = put_piece(up, piece, &again, &err);
	if (r < 0 && again)
		atomic_store(&job->again, true);
	if (r < 0)
		note_failure(up, job, r, &err);
	if (atomic_fetch_sub(&job->pieces_left, 1) != 1 || atomic_load(&job->failed) ||
	    atomic_load(&job->stale))
		return;
	again = false;
	r = job->plan->chunk_size ? complete(up, job, &again, &err) : 0;
	if (r == 0 && job->plan->verify_href)
		r = verify(up, job, &err);
	if (r < 0 && again)
		atomic_store(&job->again, true);
	if (r < 0)
		note_failure(up, job, r, &err);
}

static void *piece_thread(void *arg)
{
	struct upload *up = arg;

	for (;;) {
		size_t i = atomic_fetch_add(&up->next, 1);

		if (i >= up->n_pieces)
			return NULL;
		do_piece(up, &up->pieces[i], i < up->parallel);
	}
}

static void run_pieces(struct upload *up)
{
	pthread_t threads[PARALLEL_MAX];
	unsigned n = 0;

	atomic_store(&up->next, 0);
	while (n + 1 < MIN(up->parallel, up->n_pieces) &&
	       pthread_create(&threads[n], NULL, piece_thread, up) == 0)
		n++;
	/* This thread is one of them, and enough if no other could be started. */
	piece_thread(up);
	while (n > 0)
		must(pthread_join(threads[--n], NULL) == 0);
}

/* -- rounds -- */

/* What became of a job whose pieces have all ended. */
static void settle(struct upload *up, struct job *job)
{
	int failed = atomic_load(&job->failed);

	for (size_t i = 0; i < job->n_pieces; i++)
		free(job->etags[i]);
	free(job->etags);
	job->etags = NULL;
	job->plan = NULL;
	if (!failed && !atomic_load(&job->stale)) {
		job->state = DONE;
		return;
	}
	count_sent(job, -(int64_t)atomic_load(&job->counted));
	if (failed)
		job->tries++;
	if (failed && (!atomic_load(&job->again) || job->tries >= TRIES || atomic_load(&up->stop))) {
		tell_caller(up, &job->err);
		job->state = FAILED;
		job->result = failed;
	} else {
		job->state = WAITING;
	}
}

static int make_pieces(struct upload *up, struct job *const *jobs, size_t n)
{
	size_t total = 0;

	for (size_t i = 0; i < n; i++)
		total += jobs[i]->state == RUNNING ? jobs[i]->n_pieces : 0;
	up->pieces = calloc(total + 1, sizeof(*up->pieces));
	if (!up->pieces)
		return -ENOMEM;
	up->n_pieces = 0;
	for (size_t i = 0; i < n; i++) {
		for (size_t k = 0; jobs[i]->state == RUNNING && k < jobs[i]->n_pieces; k++)
			up->pieces[up->n_pieces++] = (struct piece){jobs[i], k};
	}
	return 0;
}

/* One batch and its uploads. -errno ends the whole upload. */
static int round_of(struct upload *up, struct job *const *jobs, size_t n)
{
	CLEANUP(hub_json_lfs_batch_fini) struct hub_json_lfs_batch batch = {0};
	struct hub_error err = {.retry_after_s = -1};
	int64_t date_s = 0;
	int r;

	r = ask_batch(up, jobs, n, &batch, &date_s, &err);
	if (r < 0) {
		tell_caller(up, &err);
		return r;
	}
	for (size_t i = 0; i < n; i++)
		take_plan(up, jobs[i], &batch, date_s);
	r = make_pieces(up, jobs, n);
	if (r == 0)
		run_pieces(up);
	for (size_t i = 0; i < n; i++) {
		if (jobs[i]->state != RUNNING)
			continue;
		if (r < 0)
			atomic_store(&jobs[i]->failed, r);
		settle(up, jobs[i]);
	}
	free(up->pieces);
	up->pieces = NULL;
	return r < 0 ? r : atomic_load(&up->stop);
}

static int run_rounds(struct upload *up)
{
	int r = 0;

	while (r == 0) {
		struct job *jobs[OBJECTS_PER_BATCH];
		uint64_t bytes = 0;
		size_t n = 0;

		for (size_t i = 0; i < up->n_jobs && n < OBJECTS_PER_BATCH; i++) {
			struct job *job = &up->jobs[i];

			uint64_t size = job->files[0]->key.size;

			if (job->state != WAITING || (n > 0 && bytes + size > BYTES_PER_BATCH))
				continue;
			bytes += size;
			jobs[n++] = job;
		}
		if (n == 0)
			break;
		r = round_of(up, jobs, n);
	}
	return r;
}

/* The results to the files. The first failure in the order of the files. */
static int give_results(struct upload *up, struct hub_lfs_file *files, size_t n, int rest)
{
	for (size_t i = 0; i < up->n_jobs; i++) {
		const struct job *job = &up->jobs[i];
		int result = job->state == DONE ? 0 : job->state == FAILED ? job->result : rest;

		for (size_t k = 0; k < job->n_files; k++) {
			job->files[k]->result = result;
			job->files[k]->was_there = job->was_there;
		}
	}
	for (size_t i = 0; i < n; i++) {
		if (files[i].result < 0)
			return files[i].result;
	}
	return 0;
}

int hub_lfs_upload(struct hub *h, const struct repo_id *id, const char *rev, bool create_pr,
                   struct hub_lfs_file *files, size_t n, unsigned parallel, atomic_bool *cancel,
                   struct hub_error *err)
{
	struct upload up = {
		.h = h,
		.ask = {.what = "uploading to", .id = id, .rev = rev, .writes = true},
		.id = id,
		.rev = rev,
		.create_pr = create_pr,
		.parallel = MAX(MIN(parallel, (unsigned)PARALLEL_MAX), 1u),
		.cancel = cancel,
	};
	AUTO_FREE struct hub_lfs_file **sorted = NULL;
	int r;

	hub_error_clear(err);
	r = make_jobs(files, n, &up, &sorted);
	if (r < 0)
		return r;
	lock_init(&up.lock, LOCK_HUB);
	r = run_rounds(&up);
	r = give_results(&up, files, n, r);
	lock_fini(&up.lock);
	free(up.jobs);
	if (r < 0 && err)
		*err = up.err;
	return r;
}
