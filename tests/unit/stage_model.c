/* A stage against a model that is too simple to be wrong: random names, renames, writes, freezes, commits
 * that settle late, kills (the folder is copied as it stands and opened there) and reopenings. After every
 * step the overlay over the base must show exactly what the model has; a commit must change nothing of
 * that.
 *
 * The test plays the parts of view (what a folder shows) and commit (what a commit holds) in their simplest
 * form. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <linux/falloc.h>
#include <spawn.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "log.h"
#include "stage.h"

#define SEEDS 40
#define STEPS 260
#define FILES_MAX 256
#define DIRS_MAX 256
#define BLOBS_MAX 8192
#define COMMITS_MAX 128
#define BYTES_MAX 400
#define PATH_LEN 64

/* -- the Hub: blobs and commits -- */

struct bytes {
	size_t len;
	unsigned char data[BYTES_MAX];
};

struct blob_entry {
	struct blob_key key;
	struct bytes bytes;
};

struct commit_file {
	char path[PATH_LEN];
	size_t blob;
};

struct commit {
	struct commit_file files[FILES_MAX];
	size_t n;
};

static struct blob_entry blobs[BLOBS_MAX];
static size_t n_blobs;
static struct commit commits[COMMITS_MAX];
static size_t n_commits;

/* -- the model: what a program sees -- */

struct file {
	bool used;
	char path[PATH_LEN]; /* "": no name, but open */
	struct bytes bytes;
	uint64_t node;       /* while open */
	unsigned opens;
	bool disk_open;      /* a kill now makes it interrupted */
	bool interrupted;
	pid_t last_pid;
};

static struct file files[FILES_MAX];
static char dirs[DIRS_MAX][PATH_LEN];
static size_t n_dirs;

/* -- the run -- */

static uint64_t rng;
static char tmp[4096];
static char root[4200];
static unsigned roots;
static struct stage *stage;
static size_t head; /* commit that the overlay lies over */
static enum { IDLE, FROZEN, NAMED, INTENDED } phase;
static size_t landing; /* INTENDED: the commit that is made of it */

static unsigned rnd(unsigned n)
{
	rng ^= rng << 13;
	rng ^= rng >> 7;
	rng ^= rng << 17;
	return (unsigned)(rng >> 20) % n;
}

static void commit_name(size_t i, char out[41])
{
	snprintf(out, 41, "%040zu", i);
}

static size_t blob_of(const struct bytes *b)
{
	struct blob_key key;

	assert_int_equal(hash_buf(HASH_SHA256, b->data, b->len, &key), 0);
	for (size_t i = 0; i < n_blobs; i++) {
		if (hash_key_equal(&blobs[i].key, &key))
			return i;
	}
	assert_true(n_blobs < BLOBS_MAX);
	blobs[n_blobs].key = key;
	blobs[n_blobs].bytes = *b;
	return n_blobs++;
}

static const struct bytes *bytes_of(const struct blob_key *key)
{
	for (size_t i = 0; i < n_blobs; i++) {
		if (hash_key_equal(&blobs[i].key, key))
			return &blobs[i].bytes;
	}
	fail_msg("a blob that never was");
	return NULL;
}

static void join(char out[PATH_LEN], const char *dir, const char *name)
{
	int n = snprintf(out, PATH_LEN, "%s%s%s", dir, *dir ? "/" : "", name);

	assert_true(n < PATH_LEN);
}

static void split(const char *path, char dir[PATH_LEN], char name[PATH_LEN])
{
	const char *slash = strrchr(path, '/');

	snprintf(dir, PATH_LEN, "%.*s", slash ? (int)(slash - path) : 0, path);
	snprintf(name, PATH_LEN, "%s", slash ? slash + 1 : path);
}

static bool is_below(const char *path, const char *dir)
{
	size_t len = strlen(dir);

	return !len || (strncmp(path, dir, len) == 0 && path[len] == '/');
}

/* -- what is shown: the part of view -- */

struct base {
	enum stage_base_kind kind; /* FOLLOW and PINNED: commit, path */
	size_t commit;
	char path[PATH_LEN];
};

static const struct commit_file *commit_find(size_t commit, const char *path)
{
	for (size_t i = 0; i < commits[commit].n; i++) {
		if (strcmp(commits[commit].files[i].path, path) == 0)
			return &commits[commit].files[i];
	}
	return NULL;
}

static bool commit_has_dir(size_t commit, const char *path)
{
	for (size_t i = 0; i < commits[commit].n; i++) {
		if (is_below(commits[commit].files[i].path, path))
			return true;
	}
	return false;
}

static bool base_has(const struct base *b, const char *name)
{
	char path[PATH_LEN];

	if (b->kind == STAGE_BASE_NONE)
		return false;
	join(path, b->path, name);
	return commit_find(b->commit, path) || commit_has_dir(b->commit, path);
}

static struct base base_of(uint64_t node, const char *path)
{
	struct stage_base b = {0};
	struct base out = {0};

	assert_int_equal(stage_dir_base(stage, node, &b), 0);
	out.kind = b.kind;
	if (b.kind == STAGE_BASE_FOLLOW) {
		out.commit = head;
		snprintf(out.path, sizeof(out.path), "%s", path);
	} else if (b.kind == STAGE_BASE_PINNED) {
		out.commit = strtoul(b.commit, NULL, 10);
		snprintf(out.path, sizeof(out.path), "%s", b.path);
	}
	stage_base_fini(&b);
	return out;
}

static void read_all(uint64_t node, uint32_t layer, struct bytes *out)
{
	static struct stage_gap gap;

	out->len = 0;
	for (;;) {
		size_t want = 1 + rnd(BYTES_MAX);
		unsigned char buf[BYTES_MAX];
		ssize_t n = layer ? stage_frozen_read(stage, node, layer, out->len, buf, want, &gap)
		                  : stage_read(stage, node, out->len, buf, want, &gap);

		assert_true(n >= 0 && (size_t)n <= want && gap.len <= want);
		assert_true(n == 0 || gap.len == 0);
		if (n == 0 && gap.len == 0)
			return;
		if (n == 0) {
			const struct bytes *b = bytes_of(&gap.key);
			const struct commit_file *at = commit_find(strtoul(gap.commit, NULL, 10), gap.path);

			/* It can be fetched where the gap says. */
			assert_non_null(at);
			assert_true(hash_key_equal(&blobs[at->blob].key, &gap.key));
			assert_int_equal(gap.off, out->len);
			assert_true(gap.off + gap.len <= b->len);
			memcpy(buf, b->data + gap.off, gap.len);
			n = (ssize_t)gap.len;
		}
		assert_true(out->len + (size_t)n <= BYTES_MAX);
		memcpy(out->data + out->len, buf, (size_t)n);
		out->len += (size_t)n;
	}
}

struct shown {
	char dirs[DIRS_MAX][PATH_LEN];
	size_t n_dirs;
	struct {
		char path[PATH_LEN];
		struct bytes bytes;
	} files[FILES_MAX];
	size_t n_files;
};

struct listed {
	struct {
		char name[PATH_LEN];
		struct stage_name what;
	} names[FILES_MAX];
	size_t n;
};

static int list_one(void *arg, const char *name, struct stage_name what)
{
	struct listed *l = arg;

	assert_true(l->n < FILES_MAX);
	snprintf(l->names[l->n].name, PATH_LEN, "%s", name);
	l->names[l->n++].what = what;
	return 0;
}

static bool is_listed(const struct listed *l, const char *name)
{
	for (size_t i = 0; i < l->n; i++) {
		if (strcmp(l->names[i].name, name) == 0)
			return true;
	}
	return false;
}

static void show_dir(struct shown *to, const char *path)
{
	for (size_t i = 0; i < to->n_dirs; i++) {
		if (strcmp(to->dirs[i], path) == 0)
			return;
	}
	assert_true(to->n_dirs < DIRS_MAX);
	snprintf(to->dirs[to->n_dirs++], PATH_LEN, "%s", path);
}

/* All that the base has below, without the names in `but`. */
static void show_base(struct shown *to, const struct base *b, const char *path, const struct listed *but)
{
	const struct commit *c = &commits[b->commit];

	for (size_t i = 0; i < c->n; i++) {
		const char *rest = c->files[i].path + (*b->path ? strlen(b->path) + 1 : 0);
		char name[PATH_LEN], at[PATH_LEN];

		if (!is_below(c->files[i].path, b->path))
			continue;
		snprintf(name, sizeof(name), "%.*s", (int)strcspn(rest, "/"), rest);
		if (is_listed(but, name))
			continue;
		for (const char *slash = strchr(rest, '/'); slash; slash = strchr(slash + 1, '/')) {
			snprintf(name, sizeof(name), "%.*s", (int)(slash - rest), rest);
			join(at, path, name);
			show_dir(to, at);
		}
		join(at, path, rest);
		assert_true(to->n_files < FILES_MAX);
		snprintf(to->files[to->n_files].path, PATH_LEN, "%s", at);
		to->files[to->n_files++].bytes = blobs[c->files[i].blob].bytes;
	}
}

static void show(struct shown *to, uint64_t node, const char *path)
{
	struct base b = base_of(node, path);
	struct listed *l = test_calloc(1, sizeof(*l));

	assert_int_equal(stage_list(stage, node, list_one, l), 0);
	if (b.kind != STAGE_BASE_NONE)
		show_base(to, &b, path, l);
	for (size_t i = 0; i < l->n; i++) {
		char at[PATH_LEN];

		join(at, path, l->names[i].name);
		if (l->names[i].what.kind == STAGE_DIR) {
			show_dir(to, at);
			show(to, l->names[i].what.node, at);
		} else if (l->names[i].what.kind == STAGE_FILE) {
			struct stage_attr attr;

			assert_true(to->n_files < FILES_MAX);
			snprintf(to->files[to->n_files].path, PATH_LEN, "%s", at);
			read_all(l->names[i].what.node, 0, &to->files[to->n_files].bytes);
			assert_int_equal(stage_attr(stage, l->names[i].what.node, &attr), 0);
			assert_int_equal(attr.size, to->files[to->n_files].bytes.len);
			to->n_files++;
		}
	}
	test_free(l);
}

static struct file *file_at(const char *path)
{
	for (size_t i = 0; i < FILES_MAX; i++) {
		if (files[i].used && *files[i].path && strcmp(files[i].path, path) == 0)
			return &files[i];
	}
	return NULL;
}

static bool dir_at(const char *path)
{
	for (size_t i = 0; i < n_dirs; i++) {
		if (strcmp(dirs[i], path) == 0)
			return true;
	}
	return !*path;
}

static void compare(const char *after)
{
	static struct shown s;
	size_t named = 0;

	s.n_dirs = s.n_files = 0;
	show(&s, STAGE_ROOT, "");
	for (size_t i = 0; i < s.n_files; i++) {
		struct file *f = file_at(s.files[i].path);

		if (!f)
			fail_msg("after %s: %s is shown", after, s.files[i].path);
		if (f->bytes.len != s.files[i].bytes.len ||
		    memcmp(f->bytes.data, s.files[i].bytes.data, f->bytes.len) != 0)
			fail_msg("after %s: %s has other bytes (%zu, not %zu)", after, f->path,
			         s.files[i].bytes.len,
			         f->bytes.len);
	}
	for (size_t i = 0; i < s.n_dirs; i++) {
		if (!dir_at(s.dirs[i]))
			fail_msg("after %s: folder %s is shown", after, s.dirs[i]);
	}
	for (size_t i = 0; i < FILES_MAX; i++) {
		struct bytes b;

		named += files[i].used && *files[i].path;
		if (!files[i].used || !files[i].opens)
			continue;
		read_all(files[i].node, 0, &b); /* with a name or without */
		if (b.len != files[i].bytes.len || memcmp(b.data, files[i].bytes.data, b.len) != 0)
			fail_msg("after %s: the open file %s has other bytes", after, files[i].path);
	}
	if (named != s.n_files || n_dirs != s.n_dirs)
		fail_msg("after %s: %zu files and %zu folders, not %zu and %zu", after, s.n_files, s.n_dirs,
		         named, n_dirs);
	stage_check(stage);
}

/* -- names: both sides -- */

static uint64_t need_dir(const char *path)
{
	char dir[PATH_LEN], name[PATH_LEN];
	struct stage_name what;
	uint64_t parent, node;

	if (!*path)
		return STAGE_ROOT;
	split(path, dir, name);
	parent = need_dir(dir);
	assert_int_equal(stage_lookup(stage, parent, name, &what), 0);
	if (what.kind == STAGE_DIR)
		return what.node;
	assert_int_equal(what.kind, STAGE_NONE);
	assert_int_equal(stage_follow(stage, parent, name, &node), 0);
	return node;
}

static uint64_t need_file(const char *path)
{
	char dir[PATH_LEN], name[PATH_LEN], at[PATH_LEN];
	const struct commit_file *there;
	struct stage_blob blob = {0};
	struct stage_name what;
	uint64_t parent, node;
	struct base b;

	split(path, dir, name);
	parent = need_dir(dir);
	assert_int_equal(stage_lookup(stage, parent, name, &what), 0);
	if (what.kind == STAGE_FILE)
		return what.node;
	assert_int_equal(what.kind, STAGE_NONE);
	b = base_of(parent, dir);
	join(at, b.path, name);
	there = commit_find(b.commit, at);
	assert_non_null(there);
	blob.key = blobs[there->blob].key;
	commit_name(b.commit, blob.commit);
	blob.path = at;
	assert_int_equal(stage_borrow(stage, parent, name, &blob, &node), 0);
	return node;
}

static bool hide(uint64_t parent, const char *dir, const char *name)
{
	struct base b = base_of(parent, dir);

	return base_has(&b, name);
}

static const char *random_name(void)
{
	static const char *const names[] = {"a", "b", "c", "d", "a.x", "~t", "~u"};

	return names[rnd(7)];
}

static const char *random_dir(void)
{
	unsigned i = rnd((unsigned)n_dirs + 1);

	return i == n_dirs ? "" : dirs[i];
}

static struct file *random_file(bool open)
{
	size_t from = rnd(FILES_MAX);

	for (size_t i = 0; i < FILES_MAX; i++) {
		struct file *f = &files[(from + i) % FILES_MAX];

		if (f->used && (open ? f->opens > 0 : *f->path != '\0'))
			return f;
	}
	return NULL;
}

/* A name below at most two folders that nothing has. */
static bool free_name(char path[PATH_LEN])
{
	const char *dir = random_dir();
	size_t depth = 0;

	for (const char *p = dir; *p; p++)
		depth += *p == '/';
	if (depth > 1)
		return false;
	join(path, dir, random_name());
	return !file_at(path) && !dir_at(path);
}

static void forget(struct file *f)
{
	f->path[0] = '\0';
	if (!f->opens)
		f->used = false;
}

static void drop_dir(const char *path)
{
	for (size_t i = 0; i < n_dirs; i++) {
		if (strcmp(dirs[i], path) == 0) {
			memmove(dirs[i], dirs[--n_dirs], PATH_LEN);
			return;
		}
	}
}

static bool dir_empty(const char *path)
{
	for (size_t i = 0; i < FILES_MAX; i++) {
		if (files[i].used && *files[i].path && is_below(files[i].path, path))
			return false;
	}
	for (size_t i = 0; i < n_dirs; i++) {
		if (is_below(dirs[i], path))
			return false;
	}
	return true;
}

static struct file *new_file(const char *path)
{
	for (size_t i = 0; i < FILES_MAX; i++) {
		if (!files[i].used) {
			files[i] = (struct file){.used = true};
			snprintf(files[i].path, PATH_LEN, "%s", path);
			return &files[i];
		}
	}
	fail_msg("too many files");
	return NULL;
}

static void open_file(struct file *f)
{
	f->node = need_file(f->path);
	assert_int_equal(stage_pin(stage, f->node), 0);
	assert_int_equal(stage_writer_open(stage, f->node), 0);
	if (f->opens++ == 0)
		f->last_pid = 0;
}

static void step_create(void)
{
	char path[PATH_LEN], dir[PATH_LEN], name[PATH_LEN];
	struct file *f;
	uint64_t node;

	if (!free_name(path))
		return;
	split(path, dir, name);
	f = new_file(path);
	if (rnd(4)) {
		assert_int_equal(stage_create_open(stage, need_dir(dir), name, 0644, &node), 0);
		open_file(f);
		f->disk_open = true;
	} else {
		assert_int_equal(stage_create(stage, need_dir(dir), name, 0644, &node), 0);
	}
}

static void step_write(void)
{
	struct file *f = random_file(true);
	unsigned char data[120];
	size_t off, len;

	if (!f)
		return;
	off = rnd(BYTES_MAX - 120);
	len = 1 + rnd(sizeof(data));
	for (size_t i = 0; i < len; i++)
		data[i] = (unsigned char)rnd(256);
	f->last_pid = 1 + (pid_t)rnd(2);
	assert_int_equal(stage_write(stage, f->node, off, data, len, f->last_pid), 0);
	if (off > f->bytes.len)
		memset(f->bytes.data + f->bytes.len, 0, off - f->bytes.len);
	memcpy(f->bytes.data + off, data, len);
	f->bytes.len = off + len > f->bytes.len ? off + len : f->bytes.len;
	f->disk_open = true;
	f->interrupted = false;
}

static void step_truncate(void)
{
	struct file *f = random_file(rnd(2));
	size_t size = rnd(3) ? rnd(BYTES_MAX) : 0;
	uint64_t node;

	if (!f)
		return;
	node = f->opens ? f->node : need_file(f->path);
	assert_int_equal(stage_truncate(stage, node, size), 0);
	if (size > f->bytes.len)
		memset(f->bytes.data + f->bytes.len, 0, size - f->bytes.len);
	f->bytes.len = size;
	f->interrupted = false;
	f->disk_open = f->opens > 0;
}

static void step_fallocate(void)
{
	static const int modes[] = {0, FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
	                            FALLOC_FL_ZERO_RANGE, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE};
	struct file *f = random_file(true);
	int mode = modes[rnd(5)];
	size_t off = rnd(BYTES_MAX - 120), len = 1 + rnd(120), end;

	if (!f)
		return;
	f->last_pid = 1 + (pid_t)rnd(2);
	assert_int_equal(stage_fallocate(stage, f->node, mode, off, len, f->last_pid), 0);
	f->disk_open = true;
	f->interrupted = false;
	end = off + len;
	if (!(mode & FALLOC_FL_KEEP_SIZE) && end > f->bytes.len) {
		memset(f->bytes.data + f->bytes.len, 0, end - f->bytes.len);
		f->bytes.len = end;
	}
	end = end < f->bytes.len ? end : f->bytes.len;
	if ((mode & ~FALLOC_FL_KEEP_SIZE) && off < end)
		memset(f->bytes.data + off, 0, end - off);
}

/* A range, or from the beginning, as `cp` does. */
static void step_copy(void)
{
	struct file *to = random_file(true), *from = random_file(rnd(2));
	bool all = rnd(2);
	size_t soff = all ? 0 : rnd(BYTES_MAX), doff = all || rnd(2) ? soff : rnd(BYTES_MAX);
	uint64_t src;

	if (!to || !from || to == from)
		return;
	src = from->opens ? from->node : need_file(from->path);
	to->last_pid = 1;
	if (all) {
		assert_int_equal(stage_truncate(stage, to->node, 0), 0);
		to->bytes.len = 0;
		to->disk_open = true;
		to->interrupted = false;
	}
	for (;;) {
		size_t want = 1 + rnd(BYTES_MAX);
		ssize_t n;

		want = want < BYTES_MAX - doff ? want : BYTES_MAX - doff;
		if (want == 0)
			return;
		n = stage_copy(stage, src, soff, to->node, doff, want, 1);
		if (n == -EOPNOTSUPP || n == 0) {
			assert_true(n < 0 || soff >= from->bytes.len);
			return;
		}
		assert_true(n > 0 && (size_t)n <= want && soff + (size_t)n <= from->bytes.len);
		to->disk_open = true;
		to->interrupted = false;
		if (doff > to->bytes.len)
			memset(to->bytes.data + to->bytes.len, 0, doff - to->bytes.len);
		memcpy(to->bytes.data + doff, from->bytes.data + soff, (size_t)n);
		to->bytes.len = doff + (size_t)n > to->bytes.len ? doff + (size_t)n : to->bytes.len;
		soff += (size_t)n;
		doff += (size_t)n;
		if (!all)
			return;
	}
}

static void step_close(void)
{
	struct file *f = random_file(true);

	if (!f)
		return;
	stage_writer_close(stage, f->node);
	stage_unpin(stage, f->node);
	if (--f->opens)
		return;
	f->disk_open = false;
	if (!*f->path)
		f->used = false;
}

static void step_flush(void)
{
	struct file *f = random_file(true);
	pid_t pid = 1 + (pid_t)rnd(2);

	if (!f)
		return;
	assert_true(stage_writer_flush(stage, f->node, pid, false) >= 0);
	if (f->last_pid == pid)
		f->disk_open = false;
}

static void step_open(void)
{
	struct file *f = random_file(false);

	if (f)
		open_file(f);
}

static void step_unlink(void)
{
	char dir[PATH_LEN], name[PATH_LEN];
	struct file *f = random_file(false);
	uint64_t parent;

	if (!f)
		return;
	split(f->path, dir, name);
	parent = need_dir(dir);
	assert_int_equal(stage_unlink(stage, parent, name, hide(parent, dir, name)), 0);
	forget(f);
}

static void step_mkdir(void)
{
	char path[PATH_LEN], dir[PATH_LEN], name[PATH_LEN];
	uint64_t node;

	if (!free_name(path))
		return;
	split(path, dir, name);
	assert_int_equal(stage_mkdir(stage, need_dir(dir), name, 0755, &node), 0);
	snprintf(dirs[n_dirs++], PATH_LEN, "%s", path);
}

static void step_rmdir(void)
{
	char path[PATH_LEN], dir[PATH_LEN], name[PATH_LEN];
	uint64_t parent;

	snprintf(path, sizeof(path), "%s", random_dir());
	if (!*path || !dir_empty(path))
		return;
	split(path, dir, name);
	parent = need_dir(dir);
	assert_int_equal(stage_rmdir(stage, parent, name, hide(parent, dir, name)), 0);
	drop_dir(path);
}

static void step_rename_file(void)
{
	char to[PATH_LEN], sdir[PATH_LEN], sname[PATH_LEN], ddir[PATH_LEN], dname[PATH_LEN];
	struct file *f = random_file(false), *over;
	uint64_t from, dest;

	if (!f)
		return;
	if (rnd(3) && (over = random_file(false)))
		snprintf(to, sizeof(to), "%s", over->path);
	else if (!free_name(to))
		return;
	if (strcmp(to, f->path) == 0)
		return;
	over = file_at(to);
	split(f->path, sdir, sname);
	split(to, ddir, dname);
	need_file(f->path);
	from = need_dir(sdir);
	dest = need_dir(ddir);
	assert_int_equal(stage_rename(stage, from, sname, hide(from, sdir, sname), dest, dname, NULL), 0);
	if (over)
		forget(over);
	snprintf(f->path, PATH_LEN, "%s", to);
}

static void move_paths(const char *from, const char *to)
{
	for (size_t i = 0; i < FILES_MAX; i++) {
		char rest[PATH_LEN];

		if (!files[i].used || !*files[i].path || !is_below(files[i].path, from))
			continue;
		snprintf(rest, sizeof(rest), "%s", files[i].path + strlen(from) + 1);
		join(files[i].path, to, rest);
	}
	for (size_t i = 0; i < n_dirs; i++) {
		char rest[PATH_LEN];

		if (strcmp(dirs[i], from) == 0) {
			snprintf(dirs[i], PATH_LEN, "%s", to);
		} else if (is_below(dirs[i], from)) {
			snprintf(rest, sizeof(rest), "%s", dirs[i] + strlen(from) + 1);
			join(dirs[i], to, rest);
		}
	}
}

static void step_rename_dir(void)
{
	char from[PATH_LEN], to[PATH_LEN], sdir[PATH_LEN], sname[PATH_LEN], ddir[PATH_LEN], dname[PATH_LEN];
	struct stage_base pin = {0};
	uint64_t node, parent, dest;
	struct base b;
	bool over;

	snprintf(from, sizeof(from), "%s", random_dir());
	if (rnd(4) == 0)
		snprintf(to, sizeof(to), "%s", random_dir());
	else if (!free_name(to))
		return;
	if (!*from || !*to || strcmp(from, to) == 0 || is_below(to, from) || is_below(from, to))
		return;
	over = dir_at(to);
	if (over && !dir_empty(to))
		return;
	split(from, sdir, sname);
	split(to, ddir, dname);
	node = need_dir(from);
	parent = need_dir(sdir);
	dest = need_dir(ddir);
	b = base_of(node, from);
	if (b.kind == STAGE_BASE_FOLLOW) {
		pin.kind = STAGE_BASE_PINNED;
		commit_name(b.commit, pin.commit);
		pin.path = b.path;
	}
	assert_int_equal(stage_rename(stage, parent, sname, hide(parent, sdir, sname), dest, dname, &pin), 0);
	if (over)
		drop_dir(to);
	move_paths(from, to);
}

/* -- publication: the part of commit -- */

static void step_freeze(void)
{
	struct stage_freeze f = {0};
	struct file *open = rnd(2) ? random_file(true) : NULL;
	uint64_t node = open ? open->node : 0;

	assert_int_equal(stage_freeze(stage, &node, open != NULL, rnd(8), &f), 0);
	for (size_t i = 0; i < f.n; i++) {
		struct blob_key sha256, git;
		struct bytes b;
		bool exists;
		char *path;

		read_all(f.files[i].node, f.files[i].layer, &b);
		assert_int_equal(b.len, f.files[i].size);
		assert_int_equal(hash_buf(HASH_SHA256, b.data, b.len, &sha256), 0);
		assert_int_equal(hash_buf(HASH_GIT_SHA1, b.data, b.len, &git), 0);
		if (f.files[i].has_digests) {
			assert_true(hash_key_equal(&f.files[i].sha256, &sha256));
			assert_true(hash_key_equal(&f.files[i].git, &git));
		} else if (rnd(2)) {
			assert_int_equal(stage_set_digests(stage, f.files[i].node, f.files[i].layer, &sha256,
			                                   &git), 0);
		}
		assert_int_equal(stage_whole_path(stage, f.files[i].node, f.files[i].layer, &path, &exists),
		                 0);
		if (exists) {
			char *text;
			size_t len;

			assert_int_equal(util_read_file(path, BYTES_MAX, &text, &len), 0);
			assert_int_equal(len, b.len);
			assert_memory_equal(text, b.data, len);
			free(text);
		}
		free(path);
	}
	stage_freeze_fini(&f);
	phase = FROZEN;
}

static struct stage_names names;

static void step_names(void)
{
	assert_int_equal(stage_names(stage, &names), 0);
	phase = NAMED;
}

struct builder {
	struct commit *to;
	struct stage_item items[FILES_MAX];
	size_t n;
};

static void commit_put(struct builder *b, const char *path, size_t blob)
{
	assert_true(b->to->n < FILES_MAX);
	snprintf(b->to->files[b->to->n].path, PATH_LEN, "%s", path);
	b->to->files[b->to->n++].blob = blob;
}

static void item_put(struct builder *b, uint64_t node, uint32_t layer, const char *path, size_t blob)
{
	commit_put(b, path, blob);
	b->items[b->n++] = (struct stage_item){
		.node = node, .layer = layer, .path = strdup(path), .key = blobs[blob].key};
}

/* What the base of a folder brings into the commit, but for its rows' names. moved: as items. */
static void build_base(struct builder *b, const struct base *base, const char *path, uint64_t dir, bool moved)
{
	const struct commit *c = &commits[base->commit];

	for (size_t i = 0; i < c->n; i++) {
		const char *rest = c->files[i].path + (*base->path ? strlen(base->path) + 1 : 0);
		char name[PATH_LEN], at[PATH_LEN];
		bool row = false;

		if (!is_below(c->files[i].path, base->path))
			continue;
		snprintf(name, sizeof(name), "%.*s", (int)strcspn(rest, "/"), rest);
		for (size_t k = 0; k < names.n; k++)
			row = row || (names.rows[k].parent == dir && strcmp(names.rows[k].name, name) == 0);
		if (row)
			continue;
		join(at, path, rest);
		if (moved)
			item_put(b, 0, 0, at, c->files[i].blob);
		else
			commit_put(b, at, c->files[i].blob);
	}
}

/* The file's row has nothing to commit: what the branch has there stays, or goes. */
static void build_old(struct builder *b, const char *path)
{
	if (rnd(2) == 0)
		return;
	for (size_t i = 0; i < commits[head].n; i++) {
		const struct commit_file *f = &commits[head].files[i];

		if (strcmp(f->path, path) == 0 || is_below(f->path, path))
			commit_put(b, f->path, f->blob);
	}
}

static void build_file(struct builder *b, const struct stage_row *row, const char *path)
{
	const struct commit_file *there = commit_find(head, path);
	struct bytes bytes;

	if (row->frozen) {
		read_all(row->node, row->layer, &bytes);
		assert_int_equal(bytes.len, row->size);
		item_put(b, row->node, row->layer, path, blob_of(&bytes));
	} else if (row->is_blob || row->has_committed) {
		size_t blob = blob_of(bytes_of(&row->blob));

		/* Equal bytes need not be in the intent. */
		if (there && there->blob == blob && rnd(2))
			commit_put(b, path, blob);
		else
			item_put(b, row->node, 0, path, blob);
	} else {
		build_old(b, path);
	}
}

static void build(struct builder *b, uint64_t dir, const struct base *base, const char *path, bool moved)
{
	if (base->kind != STAGE_BASE_NONE)
		build_base(b, base, path, dir, moved);
	for (size_t i = 0; i < names.n; i++) {
		const struct stage_row *row = &names.rows[i];
		char at[PATH_LEN];

		if (row->parent != dir || *row->name == '~')
			continue; /* names with ~ are not published */
		join(at, path, row->name);
		if (row->kind == STAGE_FILE) {
			build_file(b, row, at);
		} else if (row->kind == STAGE_DIR) {
			struct base below = {.kind = row->base.kind, .commit = head};

			snprintf(below.path, sizeof(below.path), "%s", at);
			if (below.kind == STAGE_BASE_PINNED) {
				below.commit = strtoul(row->base.commit, NULL, 10);
				snprintf(below.path, sizeof(below.path), "%s", row->base.path);
			}
			build(b, row->node, &below, at, below.kind == STAGE_BASE_PINNED);
		}
	}
}

static void step_intent(void)
{
	struct base base = {.kind = STAGE_BASE_FOLLOW, .commit = head};
	struct stage_intent intent = {.gen = names.gen, .token = "0123456789abcdef0123456789abcdef"};
	struct builder b = {.to = &commits[n_commits]};

	assert_true(n_commits < COMMITS_MAX);
	b.to->n = 0;
	build(&b, STAGE_ROOT, &base, "", false);
	landing = n_commits++;
	commit_name(head, intent.parent);
	intent.items = b.items;
	intent.n = b.n;
	assert_int_equal(stage_intent_put(stage, &intent), 0);
	for (size_t i = 0; i < b.n; i++)
		free((char *)b.items[i].path);
	phase = INTENDED;
}

static void step_settle(void)
{
	struct stage_settled told = {0};
	char name[41], parent[41];
	struct stage_attr attr;

	commit_name(landing, name);
	assert_int_equal(stage_settle(stage, name, &told), 0);
	head = landing;
	for (size_t i = 0; i < told.n; i++) {
		if (told.files[i].kept)
			assert_int_equal(stage_attr(stage, told.files[i].node, &attr), 0);
		assert_non_null(commit_find(head, told.files[i].path));
	}
	stage_settled_fini(&told);
	stage_parent(stage, parent);
	assert_string_equal(parent, name);
	assert_int_equal(stage_settle(stage, name, &told), -ENOENT);
	phase = IDLE;
}

static void step_kill(void);

static void step_publish(void)
{
	if (phase == INTENDED && rnd(8) == 0) {
		step_kill();
		return;
	}
	if (phase >= NAMED && rnd(3))
		return; /* time for changes that the commit does not have */
	if (phase == INTENDED && rnd(5) == 0) {
		assert_int_equal(stage_intent_drop(stage), 0); /* it did not land */
		stage_release(stage);
		phase = IDLE;
	} else if (phase == INTENDED) {
		step_settle();
	} else if (phase != IDLE && rnd(6) == 0) {
		stage_release(stage);
		phase = IDLE;
	} else if (phase == IDLE || (phase == FROZEN && rnd(4) == 0)) {
		step_freeze();
	} else if (phase == FROZEN) {
		step_names();
	} else {
		step_intent();
	}
	if (phase < NAMED || phase == INTENDED)
		stage_names_fini(&names);
}

static void step_fsync(void)
{
	struct file *f = random_file(true);
	uint32_t layer;

	if (f && rnd(3))
		assert_int_equal(stage_freeze_node(stage, f->node, &layer), 0);
	else if (f && rnd(8) == 0)
		assert_int_equal(stage_sync(stage, f->node), 0);
}

static void step_discard(void)
{
	if (phase != IDLE) {
		assert_int_equal(stage_discard(stage, ""), -EBUSY);
		return;
	}
	assert_int_equal(stage_discard(stage, ""), 0);
	for (size_t i = 0; i < FILES_MAX; i++) {
		if (files[i].used)
			forget(&files[i]);
	}
	n_dirs = 0;
	for (size_t i = 0; i < commits[head].n; i++) {
		const struct commit_file *c = &commits[head].files[i];
		char dir[PATH_LEN];

		new_file(c->path)->bytes = blobs[c->blob].bytes;
		for (const char *slash = strchr(c->path, '/'); slash; slash = strchr(slash + 1, '/')) {
			snprintf(dir, sizeof(dir), "%.*s", (int)(slash - c->path), c->path);
			if (!dir_at(dir))
				snprintf(dirs[n_dirs++], PATH_LEN, "%s", dir);
		}
	}
}

/* -- dying and coming back -- */

static const struct stage_ident ident = {
	.endpoint = "http://localhost:1",
	.repo = {.type = REPO_MODEL, .ns = "user", .name = "repo"},
	.rev = "feature/x",
	.internal_id = "65f0",
};

static void copy_tree(const char *from, const char *to)
{
	char cp[] = "cp", option[] = "-a";
	char *argv[] = {cp, option, (char *)from, (char *)to, NULL};
	pid_t pid;
	int status;

	assert_int_equal(posix_spawnp(&pid, "cp", NULL, NULL, argv, environ), 0);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
}

static int remove_one(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
	return remove(path);
}

static void remove_tree(const char *path)
{
	(void)nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

static void check_states(void)
{
	for (size_t i = 0; i < FILES_MAX; i++) {
		char dir[PATH_LEN], name[PATH_LEN];
		struct stage_name what;
		struct stage_attr attr;
		bool interrupted;

		if (!files[i].used)
			continue;
		split(files[i].path, dir, name);
		assert_int_equal(stage_lookup(stage, need_dir(dir), name, &what), 0);
		if (what.kind == STAGE_NONE) {
			files[i].interrupted = false;
			continue;
		}
		assert_int_equal(stage_attr(stage, what.node, &attr), 0);
		interrupted = !attr.is_blob && (files[i].disk_open || files[i].interrupted);
		if (interrupted != (attr.state == STAGE_INTERRUPTED))
			fail_msg("%s is in state %d, not %s", files[i].path, (int)attr.state,
			         interrupted ? "interrupted" : "closed");
		files[i].interrupted = interrupted;
		files[i].disk_open = false;
	}
}

static void lose_handles(void)
{
	for (size_t i = 0; i < FILES_MAX; i++) {
		files[i].opens = 0;
		if (files[i].used && !*files[i].path)
			files[i].used = false;
	}
}

static void step_kill(void)
{
	char next[4200];
	struct stage_intent intent = {0};

	snprintf(next, sizeof(next), "%s/root%u", tmp, ++roots);
	copy_tree(root, next);
	stage_close(stage);
	remove_tree(root);
	snprintf(root, sizeof(root), "%s", next);
	assert_int_equal(stage_open(root, &ident, true, &stage), 0);
	lose_handles();
	check_states();
	stage_names_fini(&names);
	if (phase == INTENDED) {
		assert_int_equal(stage_intent_get(stage, &intent), 0);
		assert_string_equal(intent.token, "0123456789abcdef0123456789abcdef");
		stage_intent_fini(&intent);
		return;
	}
	assert_int_equal(stage_intent_get(stage, &intent), -ENOENT);
	phase = IDLE;
}

static void step_reopen(void)
{
	bool empty = stage_empty(stage);
	char parent[41];

	if (phase == INTENDED)
		return;
	stage_close(stage);
	assert_int_equal(stage_open(root, &ident, true, &stage), 0);
	lose_handles();
	if (empty) { /* folders that were emptied live as long as the stage */
		for (size_t i = n_dirs; i-- > 0;) {
			if (dir_empty(dirs[i])) {
				drop_dir(dirs[i]);
				i = n_dirs;
			}
		}
		commit_name(head, parent);
		assert_int_equal(stage_set_parent(stage, parent), 0);
	}
	check_states();
	stage_names_fini(&names);
	phase = IDLE;
}

static const struct {
	const char *name;
	void (*run)(void);
	unsigned weight;
} steps[] = {
	{"create", step_create, 12},
	{"write", step_write, 14},
	{"truncate", step_truncate, 6},
	{"fallocate", step_fallocate, 4},
	{"copy", step_copy, 8},
	{"close", step_close, 12},
	{"flush", step_flush, 4},
	{"open", step_open, 8},
	{"unlink", step_unlink, 6},
	{"mkdir", step_mkdir, 5},
	{"rmdir", step_rmdir, 4},
	{"rename of a file", step_rename_file, 9},
	{"rename of a folder", step_rename_dir, 8},
	{"publication", step_publish, 26},
	{"discarding", step_discard, 1},
	{"fsync", step_fsync, 4},
	{"kill", step_kill, 2},
	{"reopening", step_reopen, 2},
};

static void begin(uint64_t seed)
{
	static const char *const first[] = {"a/a", "a/b", "a/c/d", "b/a", "b/b/a", "b/b/b/c",
	                                    "b/b/b/d", "c", "d", "a.x/a"};
	static const char *const folders[] = {"a", "a/c", "b", "b/b", "b/b/b", "a.x"};
	char name[41];

	rng = seed * 0x9e3779b97f4a7c15u + 1;
	n_blobs = 0;
	n_commits = 1;
	head = 0;
	phase = IDLE;
	commits[0].n = 0;
	memset(files, 0, sizeof(files));
	for (size_t i = 0; i < sizeof(first) / sizeof(*first); i++) {
		struct file *f = new_file(first[i]);
		struct builder b = {.to = &commits[0]};

		f->bytes.len = rnd(BYTES_MAX);
		for (size_t k = 0; k < f->bytes.len; k++)
			f->bytes.data[k] = (unsigned char)rnd(256);
		commit_put(&b, first[i], blob_of(&f->bytes));
	}
	for (n_dirs = 0; n_dirs < sizeof(folders) / sizeof(*folders); n_dirs++)
		snprintf(dirs[n_dirs], PATH_LEN, "%s", folders[n_dirs]);
	snprintf(root, sizeof(root), "%s/root%u", tmp, ++roots);
	assert_int_equal(stage_open(root, &ident, true, &stage), 0);
	commit_name(0, name);
	assert_int_equal(stage_set_parent(stage, name), 0);
}

static void run_seed(uint64_t seed, bool trace)
{
	unsigned total = 0;

	for (size_t i = 0; i < sizeof(steps) / sizeof(*steps); i++)
		total += steps[i].weight;
	begin(seed);
	compare("the beginning");
	for (unsigned n = 0; n < STEPS && n_commits < COMMITS_MAX - 1; n++) {
		unsigned pick = rnd(total), i = 0;
		char what[80];

		while (pick >= steps[i].weight)
			pick -= steps[i++].weight;
		snprintf(what, sizeof(what), "seed %llu step %u (%s)", (unsigned long long)seed, n,
		         steps[i].name);
		if (trace)
			print_message("%s, phase %d\n", what, (int)phase);
		steps[i].run();
		compare(what);
	}
	stage_names_fini(&names);
	stage_close(stage);
	remove_tree(root);
}

/* One seed by hand: STAGE_MODEL_SEED=7 tells its steps. */
static void model(void **state)
{
	const char *one = getenv("STAGE_MODEL_SEED");

	if (one) {
		run_seed(strtoull(one, NULL, 10), true);
		return;
	}
	for (uint64_t seed = 1; seed <= SEEDS; seed++)
		run_seed(seed, false);
}

static int make_tmp(void **state)
{
	const char *dir = getenv("TMPDIR");

	if (log_set_levels("err") < 0) /* what it warns of is what is done to it here */
		return -1;
	snprintf(tmp, sizeof(tmp), "%s/hugfs-stage-XXXXXX", dir ? dir : "/tmp");
	return mkdtemp(tmp) ? 0 : -1;
}

static int remove_tmp(void **state)
{
	remove_tree(tmp);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(model),
	};

	return cmocka_run_group_tests(tests, make_tmp, remove_tmp);
}
