/* stage_journal: the SQLite file of a stage. For: its rows, its transactions, when they are durable. Not for:
 * its tables and versions (stage_schema.c), what a change means (stage.c), nor the bytes of files
 * (stage_layer.c). SQLite is not on the path of a write.
 *
 * Threads: `db` is used by one thread at a time (the stage's lock); `side` only under `side_lock`, so that
 * the write-ahead log is moved into the database without anybody waiting for its fsync; `wal_fd` by
 * anybody.
 *
 * States of a transaction: none -> journal_begin -> open -> (first failure: `err` is set, nothing is run
 * any more) -> journal_end -> none, with everything or nothing of it.
 *
 * Names and paths are blobs, because they need not be UTF-8. Numbers of enums are the format. A newer schema
 * is refused before anything is written: SQLite reads it, but neither its checkpoint nor ours runs. */
#define LOG_MODULE "stage_journal"

#include "stage_journal.h"
#include "stage_reserve.h"
#include "stage_schema.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sqlite3.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

#include "lock.h"
#include "log.h"

#define BUSY_MS 10000
#define DUE_PAGES 8192   /* 32 MiB of log: some 3,000 changes between two checkpoints */
#define HARD_PAGES 65536 /* then the one that writes checkpoints itself: disk use stays bounded */
#define PAGE 4096u
#define TEXT_MAX 65536   /* no name, path or token is longer */
#define ITEMS_MAX ((size_t)10 << 20)

enum stmt {
	ST_BEGIN,
	ST_COMMIT,
	ST_ROLLBACK,
	ST_META_PUT,
	ST_META_GET,
	ST_NODE_PUT,
	ST_NODE_DEL,
	ST_NODE_ALL,
	ST_NAME_PUT,
	ST_NAME_DEL,
	ST_NAME_ALL,
	ST_CONFLICT_PUT,
	ST_CONFLICT_DEL,
	ST_CONFLICT_DEL_ALL,
	ST_CONFLICT_ALL,
	ST_NAME_DEL_ALL,
	ST_BEFORE_NODE,
	ST_BEFORE_NAME,
	ST_BEFORE_NODE_DEL,
	ST_BEFORE_NAME_DEL,
	ST_BEFORE_NODE_ALL,
	ST_BEFORE_NAME_ALL,
	ST_LAYER_PUT,
	ST_LAYER_DEL,
	ST_LAYER_DEL_ALL,
	ST_LAYER_ALL,
	ST_INTENT_PUT,
	ST_INTENT_GET,
	ST_INTENT_DEL,
	ST_ITEM_PUT,
	ST_ITEM_ALL,
	ST_ITEM_DEL,
	ST_LOCAL_PUT,
	ST_LOCAL_DEL,
	ST_LOCAL_ALL,
	ST_COUNT
};

#define NODE_COLUMNS \
	"id, kind, base, base_commit, base_path, flags, mode, uid, gid, mtime_s, mtime_ns, state, last_layer," \
	" alg, oid, size, at_commit, at_path"

static const char *const stmt_sql[ST_COUNT] = {
	[ST_BEGIN] = "BEGIN IMMEDIATE",
	[ST_COMMIT] = "COMMIT",
	[ST_ROLLBACK] = "ROLLBACK",
	[ST_META_PUT] = "INSERT OR REPLACE INTO meta(key, value) VALUES(?, ?)",
	[ST_META_GET] = "SELECT value FROM meta WHERE key = ?",
	[ST_NODE_PUT] =
		"INSERT OR REPLACE INTO node(" NODE_COLUMNS ")"
		" VALUES(?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)",
	[ST_NODE_DEL] = "DELETE FROM node WHERE id = ?",
	[ST_NODE_ALL] = "SELECT " NODE_COLUMNS " FROM node ORDER BY id",
	[ST_NAME_PUT] = "INSERT OR REPLACE INTO name(parent, name, node, gen) VALUES(?, ?, ?, ?)",
	[ST_NAME_DEL] = "DELETE FROM name WHERE parent = ? AND name = ?",
	[ST_NAME_ALL] = "SELECT parent, name, node, gen FROM name",
	[ST_CONFLICT_PUT] = "INSERT OR REPLACE INTO conflict(parent, name) VALUES(?, ?)",
	[ST_CONFLICT_DEL] = "DELETE FROM conflict WHERE parent = ? AND name = ?",
	[ST_CONFLICT_DEL_ALL] = "DELETE FROM conflict",
	[ST_CONFLICT_ALL] = "SELECT parent, name FROM conflict",
	[ST_NAME_DEL_ALL] = "DELETE FROM name",
	[ST_BEFORE_NODE] =
		"INSERT INTO before_node(" NODE_COLUMNS ", top) SELECT " NODE_COLUMNS ", ? FROM node WHERE id = ?",
	[ST_BEFORE_NAME] = "INSERT INTO before_name(parent, name, node, conflict) VALUES(?, ?, ?, ?)",
	[ST_BEFORE_NODE_DEL] = "DELETE FROM before_node",
	[ST_BEFORE_NAME_DEL] = "DELETE FROM before_name",
	[ST_BEFORE_NODE_ALL] = "SELECT " NODE_COLUMNS ", top FROM before_node ORDER BY id",
	[ST_BEFORE_NAME_ALL] = "SELECT parent, name, node, conflict FROM before_name",
	[ST_LAYER_PUT] =
		"INSERT OR REPLACE INTO layer(node, layer, lower, lower_layer, frozen, bytes, sha256, git,"
		" alg, oid, size, at_commit, at_path, synced) VALUES(?,?,?,?,?,?,?,?,?,?,?,?,?,?)",
	[ST_LAYER_DEL] = "DELETE FROM layer WHERE node = ? AND layer = ?",
	[ST_LAYER_DEL_ALL] = "DELETE FROM layer WHERE node = ?",
	[ST_LAYER_ALL] =
		"SELECT node, layer, lower, lower_layer, frozen, bytes, sha256, git,"
		" alg, oid, size, at_commit, at_path, synced FROM layer ORDER BY node, layer",
	[ST_INTENT_PUT] = "INSERT OR REPLACE INTO intent(one, token, parent, gen) VALUES(1, ?, ?, ?)",
	[ST_INTENT_GET] = "SELECT token, parent, gen FROM intent WHERE one = 1",
	[ST_INTENT_DEL] = "DELETE FROM intent",
	[ST_ITEM_PUT] =
		"INSERT INTO intent_item(seq, node, layer, path, alg, oid, size) VALUES(?, ?, ?, ?, ?, ?, ?)",
	[ST_ITEM_ALL] = "SELECT node, layer, path, alg, oid, size FROM intent_item ORDER BY seq",
	[ST_ITEM_DEL] = "DELETE FROM intent_item",
	[ST_LOCAL_PUT] =
		"INSERT OR REPLACE INTO local(path, kind, alg, oid, size, flags, mode, uid, gid, mtime_s,"
		" mtime_ns) VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
	[ST_LOCAL_DEL] = "DELETE FROM local WHERE path = ?",
	[ST_LOCAL_ALL] =
		"SELECT path, kind, alg, oid, size, flags, mode, uid, gid, mtime_s, mtime_ns FROM local",
};

struct journal {
	char *path;
	sqlite3 *db;
	sqlite3_stmt *stmt[ST_COUNT];
	int err; /* of the open transaction; sticky */
	bool open;
	int wal_fd;
	struct stage_reserve reserve;
	atomic_int pages;      /* in the write-ahead log */
	atomic_int pages_done; /* of these when it was moved last */
	pthread_mutex_t side_lock; /* a leaf: nothing is taken under it */
	sqlite3 *side;
};

/* -- errors -- */

static int failed(struct journal *j, sqlite3 *db, int rc, const char *what)
{
	return stage_schema_failed(j->path, db, rc, what);
}

/* -- running statements -- */

static int bind_key(sqlite3_stmt *st, int at, const struct blob_key *key)
{
	int rc;

	if (!key)
		return SQLITE_OK; /* NULL three times */
	rc = sqlite3_bind_int(st, at, (int)key->alg);
	if (rc == SQLITE_OK)
		rc = sqlite3_bind_blob(st, at + 1, key->id, (int)hash_len(key->alg), SQLITE_TRANSIENT);
	if (rc == SQLITE_OK)
		rc = sqlite3_bind_int64(st, at + 2, (sqlite3_int64)key->size);
	return rc;
}

/* i: int64_t; t: text; p: the bytes of a text; k: blob_key, three columns; d: the digest alone. NULL is
 * NULL. */
static int bind_all(sqlite3_stmt *st, const char *types, va_list ap)
{
	int rc = SQLITE_OK, at = 1;
	const struct blob_key *key;
	const char *text;

	sqlite3_clear_bindings(st);
	for (; *types && rc == SQLITE_OK; types++) {
		switch (*types) {
		case 'i':
			rc = sqlite3_bind_int64(st, at++, va_arg(ap, int64_t));
			break;
		case 't':
			rc = sqlite3_bind_text(st, at++, va_arg(ap, const char *), -1, SQLITE_TRANSIENT);
			break;
		case 'p':
			text = va_arg(ap, const char *);
			if (text && *text)
				rc = sqlite3_bind_blob(st, at, text, (int)strlen(text), SQLITE_TRANSIENT);
			else if (text)
				rc = sqlite3_bind_zeroblob(st, at, 0);
			at++;
			break;
		case 'k':
			rc = bind_key(st, at, va_arg(ap, const struct blob_key *));
			at += 3;
			break;
		case 'd':
			key = va_arg(ap, const struct blob_key *);
			if (key)
				rc = sqlite3_bind_blob(st, at, key->id, (int)hash_len(key->alg),
				                       SQLITE_TRANSIENT);
			at++;
			break;
		default:
			assert(!"type of a column");
		}
	}
	return rc;
}

/* Runs a statement that answers no rows, unless the transaction has failed. */
static void run(struct journal *j, enum stmt which, const char *types, ...)
{
	sqlite3_stmt *st = j->stmt[which];
	va_list ap;
	int rc;

	assert(j->open);
	if (j->err)
		return;
	va_start(ap, types);
	rc = bind_all(st, types, ap);
	va_end(ap);
	if (rc == SQLITE_OK)
		rc = sqlite3_step(st);
	if (rc != SQLITE_DONE)
		j->err = failed(j, j->db, rc, stmt_sql[which]);
	sqlite3_reset(st);
}

static int simple(struct journal *j, enum stmt which)
{
	int rc = sqlite3_step(j->stmt[which]);
	int err = rc == SQLITE_DONE ? 0 : failed(j, j->db, rc, stmt_sql[which]);

	sqlite3_reset(j->stmt[which]);
	return err;
}

void journal_begin(struct journal *j)
{
	assert(!j->open);
	j->open = true;
	j->err = simple(j, ST_BEGIN);
}

bool journal_is_tight(struct journal *j)
{
	return stage_reserve_is_tight(&j->reserve, j->wal_fd);
}

/* Bytes of the log: its header, and frames. */
static uint64_t wal_bytes(struct journal *j)
{
	return 32 + (uint64_t)atomic_load(&j->pages) * (PAGE + 24);
}

int journal_end(struct journal *j)
{
	int err = j->err;

	assert(j->open);
	if (err == 0)
		err = simple(j, ST_COMMIT);
	if (err == 0)
		stage_reserve_fill(&j->reserve, j->wal_fd, wal_bytes(j));
	if (err < 0 && !sqlite3_get_autocommit(j->db))
		must(simple(j, ST_ROLLBACK) == 0 || sqlite3_get_autocommit(j->db));
	j->open = false;
	j->err = 0;
	return err;
}

void journal_fail(struct journal *j, int err)
{
	assert(j->open && err < 0);
	if (!j->err)
		j->err = err;
}

/* -- columns -- */

static int get_text(sqlite3_stmt *st, int col, char **ret)
{
	int len = sqlite3_column_bytes(st, col);
	const void *text;
	char *copy;

	if (len > TEXT_MAX)
		return -EIO;
	text = sqlite3_column_blob(st, col);
	if (len && (!text || memchr(text, '\0', (size_t)len)))
		return -EIO;
	copy = len ? strndup(text, (size_t)len) : strdup("");
	if (!copy)
		return -ENOMEM;
	*ret = copy;
	return 0;
}

/* NULL stays NULL. */
static int get_text_or_null(sqlite3_stmt *st, int col, char **ret)
{
	return sqlite3_column_type(st, col) == SQLITE_NULL ? 0 : get_text(st, col, ret);
}

/* "" or a text of at most len - 1 bytes. */
static int get_fixed(sqlite3_stmt *st, int col, char *out, size_t len)
{
	const char *text = (const char *)sqlite3_column_text(st, col);

	if (text && strlen(text) >= len)
		return -EIO;
	snprintf(out, len, "%s", text ? text : "");
	return 0;
}

static int get_digest(sqlite3_stmt *st, int col, enum hash_alg alg, struct blob_key *ret)
{
	const void *id = sqlite3_column_blob(st, col);

	if (!id || (size_t)sqlite3_column_bytes(st, col) != hash_len(alg))
		return -EIO;
	memset(ret->id, 0, sizeof(ret->id));
	memcpy(ret->id, id, hash_len(alg));
	ret->alg = alg;
	return 0;
}

static int get_key(sqlite3_stmt *st, int col, struct blob_key *ret)
{
	int alg = sqlite3_column_int(st, col);
	int64_t size = sqlite3_column_int64(st, col + 2);

	if ((alg != HASH_GIT_SHA1 && alg != HASH_SHA256) || size < 0)
		return -EIO;
	ret->size = (uint64_t)size;
	return get_digest(st, col + 1, (enum hash_alg)alg, ret);
}

/* alg, oid, size, at_commit, at_path */
static int get_blob(sqlite3_stmt *st, int col, bool *ret_has, struct journal_blob *ret)
{
	int rc;

	*ret_has = sqlite3_column_type(st, col) != SQLITE_NULL;
	if (!*ret_has)
		return 0;
	rc = get_key(st, col, &ret->key);
	if (rc == 0)
		rc = get_fixed(st, col + 3, ret->commit, sizeof(ret->commit));
	return rc < 0 ? rc : get_text_or_null(st, col + 4, &ret->path);
}

/* A number of an enum, 0 to max. */
static int get_enum(sqlite3_stmt *st, int col, int max, int *ret)
{
	int64_t value = sqlite3_column_int64(st, col);

	if (value < 0 || value > max)
		return -EIO;
	*ret = (int)value;
	return 0;
}

/* Steps a query: 1 a row, 0 no more, or the error. */
static int next_row(struct journal *j, sqlite3_stmt *st)
{
	int rc = sqlite3_step(st);

	if (rc == SQLITE_ROW)
		return 1;
	return rc == SQLITE_DONE ? 0 : failed(j, j->db, rc, sqlite3_sql(st));
}

/* -- rows -- */

void journal_put_meta(struct journal *j, const char *key, const char *value)
{
	run(j, ST_META_PUT, "tt", key, value);
}

int journal_get_meta(struct journal *j, const char *key, char **ret)
{
	sqlite3_stmt *st = j->stmt[ST_META_GET];
	int rc = sqlite3_bind_text(st, 1, key, -1, SQLITE_TRANSIENT);

	if (rc != SQLITE_OK)
		return failed(j, j->db, rc, "bind");
	rc = next_row(j, st);
	if (rc == 0)
		rc = -ENOENT;
	else if (rc > 0)
		rc = get_text(st, 0, ret);
	sqlite3_reset(st);
	return rc;
}

void journal_put_node(struct journal *j, const struct journal_node *n)
{
	bool pinned = n->base == STAGE_BASE_PINNED;

	run(j, ST_NODE_PUT, "iiitpiiiiiiiiktp", (int64_t)n->id, (int64_t)n->kind, (int64_t)n->base,
	    pinned ? n->base_commit : NULL, pinned ? n->base_path : NULL, (int64_t)n->flags, (int64_t)n->mode,
	    (int64_t)n->uid, (int64_t)n->gid, (int64_t)n->mtime.tv_sec, (int64_t)n->mtime.tv_nsec,
	    (int64_t)n->state, (int64_t)n->last_layer, n->has_blob ? &n->blob.key : NULL, n->has_blob ?
	        n->blob.commit : NULL,
	    n->has_blob ? n->blob.path : NULL);
}

void journal_del_node(struct journal *j, uint64_t id)
{
	run(j, ST_NODE_DEL, "i", (int64_t)id);
	run(j, ST_LAYER_DEL_ALL, "i", (int64_t)id);
}

void journal_put_name(struct journal *j, uint64_t parent, const char *name, uint64_t node, uint64_t gen)
{
	run(j, ST_NAME_PUT, "ipii", (int64_t)parent, name, (int64_t)node, (int64_t)gen);
}

void journal_del_name(struct journal *j, uint64_t parent, const char *name)
{
	run(j, ST_NAME_DEL, "ip", (int64_t)parent, name);
	run(j, ST_CONFLICT_DEL, "ip", (int64_t)parent, name);
}

void journal_put_conflict(struct journal *j, uint64_t parent, const char *name)
{
	run(j, ST_CONFLICT_PUT, "ip", (int64_t)parent, name);
}

void journal_del_conflicts(struct journal *j)
{
	run(j, ST_CONFLICT_DEL_ALL, "");
}

void journal_before_node(struct journal *j, uint64_t id, uint32_t top)
{
	run(j, ST_BEFORE_NODE, "ii", (int64_t)top, (int64_t)id);
}

void journal_before_name(struct journal *j, uint64_t parent, const char *name, uint64_t node, bool conflict)
{
	run(j, ST_BEFORE_NAME, "ipii", (int64_t)parent, name, (int64_t)node, (int64_t)conflict);
}

void journal_before_clear(struct journal *j)
{
	run(j, ST_BEFORE_NODE_DEL, "");
	run(j, ST_BEFORE_NAME_DEL, "");
}

void journal_forget_rows(struct journal *j)
{
	run(j, ST_NAME_DEL_ALL, "");
	run(j, ST_CONFLICT_DEL_ALL, "");
}

void journal_put_layer(struct journal *j, const struct journal_layer *l)
{
	bool blob = l->lower == JOURNAL_OVER_BLOB;

	run(j, ST_LAYER_PUT, "iiiiiiddktpi", (int64_t)l->node, (int64_t)l->layer, (int64_t)l->lower,
	    (int64_t)l->lower_layer, (int64_t)l->frozen, (int64_t)l->size, l->has_digests ? &l->sha256 : NULL,
	    l->has_digests ? &l->git : NULL, blob ? &l->blob.key : NULL, blob ? l->blob.commit : NULL,
	    blob ? l->blob.path : NULL, (int64_t)l->synced);
}

void journal_del_layer(struct journal *j, uint64_t node, uint32_t layer)
{
	run(j, ST_LAYER_DEL, "ii", (int64_t)node, (int64_t)layer);
}

/* -- the intent -- */

void journal_put_intent(struct journal *j, const struct stage_intent *intent)
{
	journal_del_intent(j);
	run(j, ST_INTENT_PUT, "tti", intent->token, intent->parent, (int64_t)intent->gen);
	for (size_t i = 0; i < intent->n; i++) {
		const struct stage_item *it = &intent->items[i];

		run(j, ST_ITEM_PUT, "iiipk", (int64_t)i, (int64_t)it->node, (int64_t)it->layer, it->path,
		    &it->key);
	}
}

void journal_del_intent(struct journal *j)
{
	run(j, ST_INTENT_DEL, "");
	run(j, ST_ITEM_DEL, "");
}

static int read_item(sqlite3_stmt *st, struct stage_item *ret)
{
	char *path = NULL;
	int rc;

	ret->node = (uint64_t)sqlite3_column_int64(st, 0);
	ret->layer = (uint32_t)sqlite3_column_int64(st, 1);
	rc = get_key(st, 3, &ret->key);
	if (rc == 0)
		rc = get_text(st, 2, &path);
	if (rc == 0)
		ret->path = path;
	return rc;
}

static int read_items(struct journal *j, struct stage_intent *to)
{
	sqlite3_stmt *st = j->stmt[ST_ITEM_ALL];
	size_t cap = 0;
	int rc;

	while ((rc = next_row(j, st)) > 0) {
		struct stage_item item = {0};

		if (to->n == cap) {
			struct stage_item *more;

			cap = cap ? cap * 2 : 64;
			more = cap > ITEMS_MAX ? NULL : reallocarray(to->items, cap, sizeof(*more));
			if (!more)
				rc = -ENOMEM;
			else
				to->items = more;
		}
		if (rc > 0)
			rc = read_item(st, &item);
		if (rc < 0)
			break;
		to->items[to->n++] = item;
	}
	sqlite3_reset(st);
	return rc;
}

int journal_get_intent(struct journal *j, struct stage_intent *ret)
{
	sqlite3_stmt *st = j->stmt[ST_INTENT_GET];
	struct stage_intent got = {0};
	int rc = next_row(j, st);

	if (rc == 0)
		rc = -ENOENT;
	if (rc > 0) {
		got.gen = (uint64_t)sqlite3_column_int64(st, 2);
		rc = get_fixed(st, 0, got.token, sizeof(got.token));
		if (rc == 0)
			rc = get_fixed(st, 1, got.parent, sizeof(got.parent));
	}
	sqlite3_reset(st);
	if (rc == 0)
		rc = read_items(j, &got);
	if (rc < 0) {
		stage_intent_fini(&got);
		return rc;
	}
	*ret = got;
	return 0;
}

/* -- local attributes -- */

static unsigned attr_flags(const struct stage_attr *attr)
{
	return (attr->has_mode ? JOURNAL_HAS_MODE : 0) | (attr->has_owner ? JOURNAL_HAS_OWNER : 0) |
	        (attr->has_mtime ? JOURNAL_HAS_MTIME : 0);
}

void journal_put_local(struct journal *j, const struct journal_local *l)
{
	const struct stage_attr *a = &l->attr;

	run(j, ST_LOCAL_PUT, "pikiiiiii", l->path, (int64_t)a->kind, l->has_key ? &l->key : NULL,
	    (int64_t)attr_flags(a), (int64_t)a->mode, (int64_t)a->uid, (int64_t)a->gid,
	    (int64_t)a->mtime.tv_sec, (int64_t)a->mtime.tv_nsec);
}

void journal_del_local(struct journal *j, const char *path)
{
	run(j, ST_LOCAL_DEL, "p", path);
}

/* -- loading -- */

static int read_node(sqlite3_stmt *st, struct journal_node *n)
{
	int kind = 0, base = 0, state = 0, rc;

	n->id = (uint64_t)sqlite3_column_int64(st, 0);
	rc = get_enum(st, 1, STAGE_DIR, &kind);
	if (rc == 0)
		rc = get_enum(st, 2, STAGE_BASE_PINNED, &base);
	if (rc == 0)
		rc = get_enum(st, 11, JOURNAL_CONFLICT, &state);
	if (rc == 0)
		rc = get_fixed(st, 3, n->base_commit, sizeof(n->base_commit));
	if (rc == 0)
		rc = get_text_or_null(st, 4, &n->base_path);
	if (rc == 0)
		rc = get_blob(st, 13, &n->has_blob, &n->blob);
	if (rc < 0)
		return rc;
	n->kind = (enum stage_kind)kind;
	n->base = (enum stage_base_kind)base;
	n->state = (enum journal_state)state;
	n->flags = (unsigned)sqlite3_column_int(st, 5);
	n->mode = (mode_t)sqlite3_column_int64(st, 6);
	n->uid = (uid_t)sqlite3_column_int64(st, 7);
	n->gid = (gid_t)sqlite3_column_int64(st, 8);
	n->mtime.tv_sec = sqlite3_column_int64(st, 9);
	n->mtime.tv_nsec = sqlite3_column_int64(st, 10);
	n->last_layer = (uint32_t)sqlite3_column_int64(st, 12);
	if (n->id == 0 || kind < STAGE_FILE || (base == STAGE_BASE_PINNED && !n->base_path))
		return -EIO;
	return 0;
}

static int read_layer(sqlite3_stmt *st, struct journal_layer *l)
{
	bool has_blob = false;
	int lower = 0, rc;

	l->node = (uint64_t)sqlite3_column_int64(st, 0);
	l->layer = (uint32_t)sqlite3_column_int64(st, 1);
	l->lower_layer = (uint32_t)sqlite3_column_int64(st, 3);
	l->frozen = sqlite3_column_int(st, 4) != 0;
	l->size = (uint64_t)sqlite3_column_int64(st, 5);
	l->synced = sqlite3_column_int(st, 13) != 0;
	l->has_digests = sqlite3_column_type(st, 6) != SQLITE_NULL;
	rc = get_enum(st, 2, JOURNAL_OVER_LAYER, &lower);
	if (rc == 0)
		rc = get_blob(st, 8, &has_blob, &l->blob);
	if (rc == 0 && l->has_digests)
		rc = get_digest(st, 6, HASH_SHA256, &l->sha256);
	if (rc == 0 && l->has_digests)
		rc = get_digest(st, 7, HASH_GIT_SHA1, &l->git);
	if (rc < 0)
		return rc;
	l->lower = (enum journal_lower)lower;
	l->sha256.size = l->git.size = l->has_digests ? l->size : 0;
	return has_blob == (l->lower == JOURNAL_OVER_BLOB) && l->layer > 0 ? 0 : -EIO;
}

static int load_nodes(struct journal *j, const struct journal_loader *to, void *arg)
{
	int rc;

	while ((rc = next_row(j, j->stmt[ST_NODE_ALL])) > 0) {
		struct journal_node n = {0};

		rc = read_node(j->stmt[ST_NODE_ALL], &n);
		if (rc == 0)
			rc = to->node(arg, &n);
		free(n.base_path);
		free(n.blob.path);
		if (rc != 0)
			break;
	}
	sqlite3_reset(j->stmt[ST_NODE_ALL]);
	return rc;
}

static int load_layers(struct journal *j, const struct journal_loader *to, void *arg)
{
	int rc;

	while ((rc = next_row(j, j->stmt[ST_LAYER_ALL])) > 0) {
		struct journal_layer l = {0};

		rc = read_layer(j->stmt[ST_LAYER_ALL], &l);
		if (rc == 0)
			rc = to->layer(arg, &l);
		free(l.blob.path);
		if (rc != 0)
			break;
	}
	sqlite3_reset(j->stmt[ST_LAYER_ALL]);
	return rc;
}

static int load_names(struct journal *j, const struct journal_loader *to, void *arg)
{
	sqlite3_stmt *st = j->stmt[ST_NAME_ALL];
	int rc;

	while ((rc = next_row(j, st)) > 0) {
		AUTO_FREE char *name = NULL;

		rc = get_text(st, 1, &name);
		if (rc == 0)
			rc = to->name(arg, (uint64_t)sqlite3_column_int64(st, 0), name,
			              (uint64_t)sqlite3_column_int64(st, 2),
			              (uint64_t)sqlite3_column_int64(st, 3));
		if (rc != 0)
			break;
	}
	sqlite3_reset(st);
	return rc;
}

static int load_conflicts(struct journal *j, const struct journal_loader *to, void *arg)
{
	sqlite3_stmt *st = j->stmt[ST_CONFLICT_ALL];
	int rc;

	while ((rc = next_row(j, st)) > 0) {
		AUTO_FREE char *name = NULL;

		rc = get_text(st, 1, &name);
		if (rc == 0)
			rc = to->conflict(arg, (uint64_t)sqlite3_column_int64(st, 0), name);
		if (rc != 0)
			break;
	}
	sqlite3_reset(st);
	return rc;
}

static int read_local(sqlite3_stmt *st, struct journal_local *l)
{
	unsigned flags = (unsigned)sqlite3_column_int(st, 5);
	int kind = 0, rc = get_enum(st, 1, STAGE_DIR, &kind);

	l->has_key = sqlite3_column_type(st, 2) != SQLITE_NULL;
	if (rc == 0 && l->has_key)
		rc = get_key(st, 2, &l->key);
	if (rc == 0)
		rc = get_text(st, 0, &l->path);
	if (rc < 0)
		return rc;
	l->attr = (struct stage_attr){
		.kind = (enum stage_kind)kind,
		.state = STAGE_CLEAN,
		.has_mode = flags & JOURNAL_HAS_MODE,
		.has_owner = flags & JOURNAL_HAS_OWNER,
		.has_mtime = flags & JOURNAL_HAS_MTIME,
		.mode = (mode_t)sqlite3_column_int64(st, 6),
		.uid = (uid_t)sqlite3_column_int64(st, 7),
		.gid = (gid_t)sqlite3_column_int64(st, 8),
		.mtime = {.tv_sec = sqlite3_column_int64(st, 9), .tv_nsec = sqlite3_column_int64(st, 10)},
	};
	return kind < STAGE_FILE || (kind == STAGE_FILE && !l->has_key) ? -EIO : 0;
}

static int load_locals(struct journal *j, const struct journal_loader *to, void *arg)
{
	int rc;

	while ((rc = next_row(j, j->stmt[ST_LOCAL_ALL])) > 0) {
		struct journal_local l = {0};

		rc = read_local(j->stmt[ST_LOCAL_ALL], &l);
		if (rc == 0)
			rc = to->local(arg, &l);
		free(l.path);
		if (rc != 0)
			break;
	}
	sqlite3_reset(j->stmt[ST_LOCAL_ALL]);
	return rc;
}

int journal_load_before(struct journal *j, journal_before_node_fn node, journal_before_name_fn name, void *arg)
{
	sqlite3_stmt *st = j->stmt[ST_BEFORE_NODE_ALL];
	int rc;

	while ((rc = next_row(j, st)) > 0) {
		struct journal_node n = {0};

		rc = read_node(st, &n);
		if (rc == 0)
			rc = node(arg, &n, (uint32_t)sqlite3_column_int64(st, 18));
		free(n.base_path);
		free(n.blob.path);
		if (rc != 0)
			break;
	}
	sqlite3_reset(st);
	if (rc != 0)
		return rc;
	st = j->stmt[ST_BEFORE_NAME_ALL];
	while ((rc = next_row(j, st)) > 0) {
		AUTO_FREE char *text = NULL;

		rc = get_text(st, 1, &text);
		if (rc == 0)
			rc = name(arg, (uint64_t)sqlite3_column_int64(st, 0), text,
			          (uint64_t)sqlite3_column_int64(st, 2), sqlite3_column_int(st, 3) != 0);
		if (rc != 0)
			break;
	}
	sqlite3_reset(st);
	return rc;
}

int journal_load(struct journal *j, const struct journal_loader *to, void *arg)
{
	int rc = load_nodes(j, to, arg);

	if (rc == 0)
		rc = load_layers(j, to, arg);
	if (rc == 0)
		rc = load_names(j, to, arg);
	if (rc == 0)
		rc = load_conflicts(j, to, arg);
	if (rc == 0)
		rc = load_locals(j, to, arg);
	if (rc == -EIO)
		log_err("journal %s is damaged; nothing in it was changed", j->path);
	return rc;
}

/* -- durability -- */

/* SQLite calls it after each commit with the length of the write-ahead log. */
static int on_wal(void *arg, sqlite3 *db, const char *name, int pages)
{
	struct journal *j = arg;

	if (pages < atomic_load(&j->pages_done)) { /* it was begun anew, and may have been cut */
		atomic_store(&j->pages_done, 0);
		j->reserve.have = 0;
	}
	atomic_store(&j->pages, pages);
	if (pages - atomic_load(&j->pages_done) >= HARD_PAGES) {
		int rc = sqlite3_wal_checkpoint_v2(db, NULL, SQLITE_CHECKPOINT_PASSIVE, NULL, NULL);

		(void)failed(j, db, rc, "checkpoint"); /* the commit stands all the same */
		atomic_store(&j->pages_done, pages);
	}
	return SQLITE_OK;
}

int journal_flush(struct journal *j)
{
	/* What a checkpoint moved away before is synced in the database: SQLite does that before it reuses
	 * the log. */
	if (fdatasync(j->wal_fd) < 0) {
		int err = -errno;

		log_err("journal %s-wal: fdatasync: %s", j->path, strerror(-err));
		return err;
	}
	return 0;
}

bool journal_is_due(struct journal *j)
{
	return atomic_load(&j->pages) - atomic_load(&j->pages_done) >= DUE_PAGES;
}

void journal_checkpoint(struct journal *j)
{
	int rc, moved = 0;

	if (pthread_mutex_trylock(&j->side_lock) != 0)
		return; /* another thread does it */
	rc = sqlite3_wal_checkpoint_v2(j->side, NULL, SQLITE_CHECKPOINT_PASSIVE, NULL, &moved);
	if (rc != SQLITE_OK && rc != SQLITE_BUSY)
		(void)failed(j, j->side, rc, "checkpoint");
	/* Also after a failure: the next try comes with as many more pages. */
	atomic_store(&j->pages_done, rc == SQLITE_OK && moved > 0 ? moved : atomic_load(&j->pages));
	pthread_mutex_unlock(&j->side_lock);
}

/* -- opening -- */

static int prepare_all(struct journal *j)
{
	for (int i = 0; i < ST_COUNT; i++) {
		int rc = sqlite3_prepare_v3(j->db, stmt_sql[i], -1, SQLITE_PREPARE_PERSISTENT, &j->stmt[i],
		                            NULL);

		if (rc != SQLITE_OK)
			return failed(j, j->db, rc, stmt_sql[i]);
	}
	return 0;
}

static int connect_to(struct journal *j, bool create, sqlite3 **ret)
{
	int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX | (create ? SQLITE_OPEN_CREATE : 0);
	int rc = sqlite3_open_v2(j->path, ret, flags, NULL);

	if (rc == SQLITE_OK)
		rc = sqlite3_busy_timeout(*ret, BUSY_MS);
	return failed(j, *ret, rc, "open");
}

/* Everything that may write, once the version is known to be ours or none. */
static int open_checked(struct journal *j, const char *dir, int64_t version)
{
	bool fresh = version == 0;
	AUTO_FREE char *wal = util_printf("%s-wal", j->path);
	int rc;

	if (!wal)
		return -ENOMEM;
	rc = stage_schema_exec(j->path, j->db,
	                       "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; PRAGMA temp_store = MEMORY;"
	                       "PRAGMA journal_size_limit = 33554432");
	if (rc == 0 && fresh)
		rc = stage_schema_make(j->path, j->db);
	else if (rc == 0 && version < STAGE_SCHEMA)
		rc = stage_schema_migrate(j->path, j->db, version);
	if (rc == 0)
		rc = prepare_all(j);
	if (rc == 0)
		rc = connect_to(j, false, &j->side);
	if (rc == 0)
		/* before it has read, it does not know of the log */
		rc = stage_schema_exec(j->path, j->side, "SELECT 1 FROM meta");
	if (rc < 0)
		return rc;
	sqlite3_wal_hook(j->db, on_wal, j); /* instead of SQLite's own, which would make a writer wait */
	journal_begin(j); /* so that the log's file is there */
	rc = journal_end(j);
	if (rc < 0)
		return rc;
	j->wal_fd = open(wal, O_RDWR | O_CLOEXEC);
	if (j->wal_fd < 0 || (fresh && fdatasync(j->wal_fd) < 0)) {
		rc = -errno;
		log_err("%s: %s", wal, strerror(-rc));
		return rc;
	}
	stage_reserve_plan(&j->reserve, j->wal_fd);
	stage_reserve_fill(&j->reserve, j->wal_fd, wal_bytes(j));
	stage_reserve_park(dir);
	return util_fsync_dir(dir);
}

int journal_open(const char *dir, bool create, struct journal **ret, bool *ret_fresh)
{
	struct journal *j = calloc(1, sizeof(*j));
	int64_t version = 0;
	struct stat st;
	int rc;

	if (!j)
		return -ENOMEM;
	j->wal_fd = -1;
	pthread_mutex_init(&j->side_lock, NULL);
	j->path = util_printf("%s/journal.db", dir);
	rc = j->path ? 0 : -ENOMEM;
	if (rc == 0 && !create && stat(j->path, &st) < 0)
		rc = -errno;
	if (rc == 0)
		stage_reserve_unpark(dir);
	if (rc == 0)
		rc = connect_to(j, create, &j->db);
	if (rc == 0) {
		/* A journal that is not ours to change must not even be tidied up. */
		sqlite3_db_config(j->db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL);
		rc = stage_schema_version(j->path, j->db, &version);
	}
	if (rc == 0 && version > STAGE_SCHEMA) {
		log_err("%s was written by a newer hugfs (schema %lld, this one knows %d): use that one",
		        j->path, (long long)version, STAGE_SCHEMA);
		rc = -EPROTO;
	}
	if (rc == 0 && version == 0 && !create)
		rc = -ENOENT;
	if (rc == 0) {
		sqlite3_db_config(j->db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 0, NULL);
		rc = open_checked(j, dir, version);
	}
	if (rc < 0) {
		journal_close(j);
		return rc;
	}
	*ret_fresh = version == 0;
	*ret = j;
	return 0;
}

void journal_close(struct journal *j)
{
	AUTO_FREE char *dir = j && j->wal_fd > 0 ? strndup(j->path, (size_t)(strrchr(j->path, '/') - j->path)) : NULL;

	if (!j)
		return;
	if (dir)
		stage_reserve_unpark(dir);
	for (int i = 0; i < ST_COUNT; i++)
		sqlite3_finalize(j->stmt[i]);
	sqlite3_close(j->side);
	sqlite3_close(j->db);
	if (dir)
		stage_reserve_park(dir);
	if (j->wal_fd > 0)
		close(j->wal_fd);
	pthread_mutex_destroy(&j->side_lock);
	free(j->path);
	free(j);
}
