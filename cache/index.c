/* index: the SQLite index of the cache.
 *
 * For: rows about blocks that are on stable storage, last use, and saved metadata texts. Not for: deciding
 * what is served (the checksums decide that in blocks.c), nor for the path of a hit.
 *
 * Any thread enters. Two connections, each under its own lock, so that opening a file does not wait for a
 * commit that is being synced: `rd` only reads, `wr` writes. They are never held together. SQLite itself
 * lets only one daemon write at a time; the others wait up to BUSY_MS.
 *
 * States: on disk -> broken (SQLite said corrupt) -> set aside, and on disk again with an empty one:
 * `epoch` counts this, and each connection opens itself anew when it sees an epoch that is not its own.
 * When no file can be made (full or read-only disk) `wr` is a database in memory and serves both. */
#define LOG_MODULE "index"
#include "index.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sqlite3.h>
#include <stdatomic.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "lock.h"
#include "log.h"

#define APP_ID 0x68756766 /* "hugf" */
#define VERSION 2
#define IN_MEMORY ":memory:" /* SQLite's name for a database without a file */
#define BUSY_MS 5000
#define META_TOTAL_MAX ((int64_t)1 << 30) /* saved texts of all commits together; the oldest go first */
#define OBJECTS_MAX ((size_t)16 << 20)

enum stmt {
	ST_BEGIN,
	ST_COMMIT,
	ST_ROLLBACK,
	ST_SYNC_FULL,
	ST_SYNC_NORMAL,
	ST_OBJ_GET,
	ST_OBJ_ADD,
	ST_OBJ_OF_GEN,
	ST_OBJ_DEL,
	ST_OBJ_BYTES,
	ST_OBJ_VERIFIED,
	ST_OBJ_TOUCH,
	ST_OBJ_ALL,
	ST_OBJ_SUM,
	ST_SEG_LOAD,
	ST_SEG_GET,
	ST_SEG_PUT,
	ST_SEG_DEL_ALL,
	ST_META_GET,
	ST_META_PUT,
	ST_COUNT
};

#define OF_KEY "alg = ?1 AND oid = ?2 AND size = ?3"
static const char *const stmt_sql[ST_COUNT] = {
	[ST_BEGIN] = "BEGIN IMMEDIATE",
	[ST_COMMIT] = "COMMIT",
	[ST_ROLLBACK] = "ROLLBACK",
	[ST_SYNC_FULL] = "PRAGMA synchronous = FULL",
	[ST_SYNC_NORMAL] = "PRAGMA synchronous = NORMAL",
	[ST_OBJ_GET] = "SELECT id, gen, verified, used, ino, mtime, ctime FROM obj WHERE " OF_KEY,
	[ST_OBJ_ADD] = "INSERT OR IGNORE INTO obj(alg, oid, size, gen, used) VALUES(?1, ?2, ?3, ?4, ?5)",
	[ST_OBJ_OF_GEN] = "SELECT id FROM obj WHERE " OF_KEY " AND gen = ?4",
	[ST_OBJ_DEL] = "DELETE FROM obj WHERE id = ?1",
	[ST_OBJ_BYTES] = "UPDATE obj SET bytes = bytes + ?2 WHERE id = ?1",
	[ST_OBJ_VERIFIED] = "UPDATE obj SET verified = ?4, ino = ?5, mtime = ?6, ctime = ?7 WHERE " OF_KEY,
	[ST_OBJ_TOUCH] = "UPDATE obj SET used = ?4 WHERE " OF_KEY,
	[ST_OBJ_ALL] = "SELECT alg, oid, size, gen, bytes, used FROM obj ORDER BY used, id",
	[ST_OBJ_SUM] = "SELECT total(bytes), count(*) FROM obj",
	[ST_SEG_LOAD] = "SELECT seg, present, crc FROM seg WHERE obj = ?1 AND present != 0 ORDER BY seg",
	[ST_SEG_GET] = "SELECT present, crc FROM seg WHERE obj = ?1 AND seg = ?2",
	[ST_SEG_PUT] = "INSERT OR REPLACE INTO seg(obj, seg, present, crc) VALUES(?1, ?2, ?3, ?4)",
	[ST_SEG_DEL_ALL] = "DELETE FROM seg WHERE obj = ?1",
	[ST_META_GET] = "SELECT value FROM meta WHERE key = ?1",
	[ST_META_PUT] = "INSERT OR REPLACE INTO meta(key, saved, len, value) VALUES(?1, ?2, ?3, ?4)",
};

static const char schema_sql[] =
	"CREATE TABLE obj(id INTEGER PRIMARY KEY, alg INTEGER NOT NULL, oid BLOB NOT NULL,"
	" size INTEGER NOT NULL, gen INTEGER NOT NULL, verified INTEGER NOT NULL DEFAULT 0,"
	" ino INTEGER NOT NULL DEFAULT 0, mtime INTEGER NOT NULL DEFAULT 0, ctime INTEGER NOT NULL DEFAULT 0,"
	" bytes INTEGER NOT NULL DEFAULT 0,"
	" used INTEGER NOT NULL, UNIQUE(alg, oid, size));"
	"CREATE INDEX obj_used ON obj(used);"
	"CREATE TABLE seg(obj INTEGER NOT NULL, seg INTEGER NOT NULL, present INTEGER NOT NULL,"
	" crc BLOB NOT NULL, PRIMARY KEY(obj, seg)) WITHOUT ROWID;"
	"CREATE TABLE meta(key TEXT PRIMARY KEY, saved INTEGER NOT NULL, len INTEGER NOT NULL,"
	" value BLOB NOT NULL);"
	"CREATE INDEX meta_saved ON meta(saved, len);";

struct conn {
	struct lock lock;
	/* -- guarded by lock -- */
	sqlite3 *db;
	sqlite3_stmt *stmt[ST_COUNT];
	unsigned epoch;
};

struct index {
	char *path; /* of the database */
	struct conn wr, rd;
	bool in_memory; /* set once, by index_open: rd is not used */
	bool is_new;
	atomic_uint epoch;
	atomic_bool setting_aside;
};

/* -- connections -- */

static int errno_of(int rc)
{
	switch (rc & 0xff) {
	case SQLITE_OK:
	case SQLITE_ROW:
	case SQLITE_DONE:
		return 0;
	case SQLITE_NOMEM:
		return -ENOMEM;
	case SQLITE_FULL:
		return -ENOSPC;
	case SQLITE_READONLY:
	case SQLITE_PERM:
		return -EROFS;
	case SQLITE_CANTOPEN:
		return -EACCES;
	case SQLITE_BUSY:
	case SQLITE_LOCKED:
		return -EBUSY;
	case SQLITE_CORRUPT:
	case SQLITE_NOTADB:
		return -EUCLEAN;
	case SQLITE_TOOBIG:
		return -EFBIG;
	default:
		return -EIO;
	}
}

static void conn_close(struct conn *c)
{
	for (int i = 0; i < ST_COUNT; i++) {
		sqlite3_finalize(c->stmt[i]);
		c->stmt[i] = NULL;
	}
	sqlite3_close(c->db);
	c->db = NULL;
}

static int pragma_int(sqlite3 *db, const char *sql, int64_t *ret)
{
	sqlite3_stmt *st = NULL;
	int rc = sqlite3_prepare_v2(db, sql, -1, &st, NULL);

	if (rc == SQLITE_OK)
		rc = sqlite3_step(st);
	if (rc == SQLITE_ROW)
		*ret = sqlite3_column_int64(st, 0);
	sqlite3_finalize(st);
	return rc == SQLITE_ROW ? 0 : rc == SQLITE_DONE ? -EIO : errno_of(rc);
}

/* Makes the tables of an empty database; -EPROTO when it is one of another program or version. */
static int conn_check_schema(sqlite3 *db, bool *ret_made)
{
	int64_t app = 0, version = 0, objects = 0;
	char sql[120];
	int r, rc;

	/* Under the write lock: two daemons may start at once. */
	rc = sqlite3_exec(db, "BEGIN IMMEDIATE", NULL, NULL, NULL);
	if (rc != SQLITE_OK)
		return errno_of(rc);
	r = pragma_int(db, "PRAGMA application_id", &app);
	if (r == 0)
		r = pragma_int(db, "PRAGMA user_version", &version);
	if (r == 0)
		r = pragma_int(db, "SELECT count(*) FROM sqlite_master", &objects);
	if (r == 0 && objects == 0) {
		snprintf(sql, sizeof(sql), "PRAGMA application_id = %d; PRAGMA user_version = %d", APP_ID,
		         VERSION);
		rc = sqlite3_exec(db, schema_sql, NULL, NULL, NULL);
		if (rc == SQLITE_OK)
			rc = sqlite3_exec(db, sql, NULL, NULL, NULL);
		r = errno_of(rc);
		*ret_made = true;
	} else if (r == 0 && (app != APP_ID || version != VERSION)) {
		r = -EPROTO;
	}
	rc = sqlite3_exec(db, r == 0 ? "COMMIT" : "ROLLBACK", NULL, NULL, NULL);
	return r < 0 ? r : errno_of(rc);
}

/* Daemons open the database one after the other: SQLite never asks the busy handler in the change to WAL
 * (https://sqlite.org/c3ref/busy_handler.html), so that of two that make it at once one would be refused.
 * The kernel frees the lock of a process that dies. A folder that takes no lock file has no second writer. */
static int lock_opening(const char *path)
{
	AUTO_FREE char *name = strcmp(path, IN_MEMORY) == 0 ? NULL : util_printf("%s.lock", path);
	struct flock all = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
	int fd = name ? open(name, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600) : -1;

	if (fd >= 0 && fcntl(fd, F_OFD_SETLKW, &all) < 0)
		log_debug("%s: %s", name, strerror(errno));
	return fd;
}

static int conn_open(struct conn *c, const char *path, bool *ret_made)
{
	AUTO_CLOSE int lock = lock_opening(path);
	int rc = sqlite3_open_v2(path, &c->db,
	                         SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX, NULL);
	int r;

	if (lock < 0)
		log_debug("%s is opened without a lock", path);
	if (rc == SQLITE_OK)
		rc = sqlite3_busy_timeout(c->db, BUSY_MS);
	if (rc == SQLITE_OK)
		rc = sqlite3_exec(c->db,
		                  "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL;"
		                  "PRAGMA mmap_size = 0; PRAGMA wal_autocheckpoint = 1000;"
		                  "PRAGMA cache_size = -2000;"
		                  "PRAGMA trusted_schema = OFF", NULL, NULL, NULL);
	r = rc == SQLITE_OK ? conn_check_schema(c->db, ret_made) : errno_of(rc);
	if (r < 0)
		conn_close(c);
	return r;
}

/* Renames the database away, so that somebody may look at it; its log goes along. */
static int set_aside(const char *path)
{
	AUTO_FREE char *bad = util_printf("%s.bad", path);
	AUTO_FREE char *wal = util_printf("%s-wal", path);
	AUTO_FREE char *bad_wal = util_printf("%s.bad-wal", path);
	AUTO_FREE char *shm = util_printf("%s-shm", path);

	if (!bad || !wal || !bad_wal || !shm)
		return -ENOMEM;
	if (rename(wal, bad_wal) < 0 && errno != ENOENT)
		return -errno;
	if (unlink(shm) < 0 && errno != ENOENT)
		return -errno;
	if (rename(path, bad) < 0 && errno != ENOENT)
		return -errno;
	return 0;
}

/* SQLite said that the database is damaged: the first to come renames it away, everybody opens the new
 * one. */
static void index_broken(struct index *ix, unsigned epoch)
{
	if (ix->in_memory || atomic_exchange(&ix->setting_aside, true))
		return;
	if (atomic_load(&ix->epoch) == epoch) {
		int r = set_aside(ix->path);

		log_warn("%s is damaged: %s", ix->path,
		         r < 0 ? strerror(-r) : "set aside as index.db.bad, an empty one is started");
		if (r == 0)
			atomic_fetch_add(&ix->epoch, 1);
	}
	atomic_store(&ix->setting_aside, false);
}

static int conn_ready_locked(struct index *ix, struct conn *c)
{
	unsigned epoch = atomic_load(&ix->epoch);
	bool made = false;

	if (c->db && c->epoch == epoch)
		return 0;
	conn_close(c);
	c->epoch = epoch;
	return conn_open(c, ix->path, &made);
}

static int conn_stmt_locked(struct conn *c, enum stmt which, sqlite3_stmt **ret)
{
	if (!c->stmt[which]) {
		int rc = sqlite3_prepare_v3(c->db, stmt_sql[which], -1, SQLITE_PREPARE_PERSISTENT,
		                            &c->stmt[which], NULL);

		if (rc != SQLITE_OK)
			return errno_of(rc);
	}
	*ret = c->stmt[which];
	return 0;
}

/* 1 a row, 0 done, or -errno. */
static int step(sqlite3_stmt *st)
{
	int rc = sqlite3_step(st);

	return rc == SQLITE_ROW ? 1 : errno_of(rc);
}

static void stmt_resetp(sqlite3_stmt **st)
{
	if (*st) {
		sqlite3_reset(*st);
		sqlite3_clear_bindings(*st);
	}
}
#define AUTO_STMT CLEANUP(stmt_resetp) sqlite3_stmt

static int run_locked(struct conn *c, enum stmt which)
{
	AUTO_STMT *st = NULL;
	int r = conn_stmt_locked(c, which, &st);

	if (r < 0)
		return r;
	r = step(st);
	return r > 0 ? 0 : r;
}

/* The statement `which`, its parameters 1 to 3 bound to the key. */
static int stmt_of_key_locked(struct conn *c, enum stmt which, const struct blob_key *key, sqlite3_stmt **ret)
{
	int r = conn_stmt_locked(c, which, ret);

	if (r < 0)
		return r;
	if (sqlite3_bind_int(*ret, 1, (int)key->alg) != SQLITE_OK ||
	    sqlite3_bind_blob(*ret, 2, key->id, (int)hash_len(key->alg), SQLITE_TRANSIENT) != SQLITE_OK ||
	    sqlite3_bind_int64(*ret, 3, (int64_t)key->size) != SQLITE_OK)
		return -ENOMEM;
	return 0;
}

/* Ends a call: damage is seen to, and any other failure is logged here, once. Called without a lock. */
static int finish(struct index *ix, unsigned epoch, const char *what, int r)
{
	if (r == -EUCLEAN) {
		index_broken(ix, epoch);
		return -EIO;
	}
	if (r < 0 && r != -ENOENT && r != -ESTALE)
		log_warn("%s: %s failed: %s", ix->path, what, strerror(-r));
	return r;
}

static struct conn *reader(struct index *ix)
{
	return ix->in_memory ? &ix->wr : &ix->rd;
}

/* Runs fn on the connection `c`: fn is called with c's lock held. */
typedef int (*conn_fn)(struct conn *c, void *arg);

static int with_conn(struct index *ix, struct conn *c, const char *what, conn_fn fn, void *arg)
{
	unsigned epoch;
	int r;

	lock_take(&c->lock);
	r = conn_ready_locked(ix, c);
	epoch = c->epoch;
	if (r == 0)
		r = fn(c, arg);
	lock_drop(&c->lock);
	return finish(ix, epoch, what, r);
}

struct txn {
	conn_fn fn;
	void *arg;
	bool full; /* on stable storage when it returns */
};

static int txn_run(struct conn *c, void *arg)
{
	struct txn *t = arg;
	int r = t->full ? run_locked(c, ST_SYNC_FULL) : 0;

	if (r == 0)
		r = run_locked(c, ST_BEGIN);
	if (r == 0) {
		r = t->fn(c, t->arg);
		if (r == 0)
			r = run_locked(c, ST_COMMIT);
		if (r < 0 && !sqlite3_get_autocommit(c->db)) {
			int rolled = run_locked(c, ST_ROLLBACK);

			if (rolled < 0)
				log_debug("rollback: %s", strerror(-rolled));
		}
	}
	if (t->full) {
		int back = run_locked(c, ST_SYNC_NORMAL);

		if (r == 0)
			r = back;
	}
	return r;
}

static int with_txn(struct index *ix, bool full, const char *what, conn_fn fn, void *arg)
{
	struct txn t = {.fn = fn, .arg = arg, .full = full};

	return with_conn(ix, &ix->wr, what, txn_run, &t);
}

/* -- opening -- */

static void prune_meta(struct index *ix)
{
	static const char sql[] =
		"DELETE FROM meta WHERE rowid IN (SELECT rowid FROM (SELECT rowid,"
		" sum(len) OVER (ORDER BY saved DESC, rowid DESC) AS upto FROM meta) WHERE upto > %lld)";
	int64_t total = 0;
	char text[300];

	if (pragma_int(ix->wr.db, "SELECT total(len) FROM meta", &total) < 0 || total <= META_TOTAL_MAX)
		return;
	snprintf(text, sizeof(text), sql, (long long)META_TOTAL_MAX / 2);
	if (sqlite3_exec(ix->wr.db, text, NULL, NULL, NULL) != SQLITE_OK)
		log_warn("%s: saved listings could not be pruned: %s", ix->path, sqlite3_errmsg(ix->wr.db));
}

int index_open(const char *dir, struct index **ret)
{
	struct index *ix = calloc(1, sizeof(*ix));
	int r;

	if (!ix)
		return -ENOMEM;
	lock_init(&ix->wr.lock, LOCK_INDEX);
	lock_init(&ix->rd.lock, LOCK_INDEX);
	ix->path = util_printf("%s/index.db", dir);
	if (!ix->path) {
		index_close(ix);
		return -ENOMEM;
	}
	r = conn_open(&ix->wr, ix->path, &ix->is_new);
	if (r == -EUCLEAN || r == -EPROTO) {
		log_warn("%s %s: set aside as index.db.bad, an empty one is started", ix->path,
		         r == -EPROTO ? "is of another version of hugfs" : "is damaged");
		r = set_aside(ix->path);
		if (r == 0)
			r = conn_open(&ix->wr, ix->path, &ix->is_new);
	}
	if (r < 0 && r != -ENOMEM) {
		log_warn("%s cannot be used (%s): what is cached will be forgotten", ix->path, strerror(-r));
		ix->in_memory = true;
		r = conn_open(&ix->wr, IN_MEMORY, &ix->is_new);
		ix->is_new = false; /* what lies there belongs to an index that is only out of reach */
	}
	if (r < 0) {
		index_close(ix);
		return r;
	}
	prune_meta(ix);
	*ret = ix;
	return 0;
}

void index_close(struct index *ix)
{
	if (!ix)
		return;
	conn_close(&ix->rd);
	conn_close(&ix->wr);
	lock_fini(&ix->rd.lock);
	lock_fini(&ix->wr.lock);
	free(ix->path);
	free(ix);
}

bool index_is_new(const struct index *ix)
{
	return ix->is_new;
}

/* -- blocks -- */

static void crc_decode(const uint8_t *p, uint32_t crc[INDEX_SEG_BLOCKS])
{
	for (int i = 0; i < INDEX_SEG_BLOCKS; i++, p += 4)
		crc[i] = (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static void crc_encode(const uint32_t crc[INDEX_SEG_BLOCKS], uint8_t *p)
{
	for (int i = 0; i < INDEX_SEG_BLOCKS; i++, p += 4) {
		p[0] = (uint8_t)crc[i];
		p[1] = (uint8_t)(crc[i] >> 8);
		p[2] = (uint8_t)(crc[i] >> 16);
		p[3] = (uint8_t)(crc[i] >> 24);
	}
}

/* Reads columns `first` (present) and `first + 1` (checksums) of a row. */
static int seg_decode(sqlite3_stmt *st, int first, struct index_seg *seg)
{
	const void *crc = sqlite3_column_blob(st, first + 1);

	if (!crc || sqlite3_column_bytes(st, first + 1) != 4 * INDEX_SEG_BLOCKS)
		return -EUCLEAN;
	seg->present = (uint64_t)sqlite3_column_int64(st, first);
	crc_decode(crc, seg->crc);
	return 0;
}

/* Bytes that the blocks `present` of a segment hold. */
static int64_t seg_bytes(const struct blob_key *key, uint64_t seg, uint64_t present)
{
	int64_t bytes = (int64_t)((uint64_t)__builtin_popcountll(present) * INDEX_BLOCK);
	uint64_t last = key->size ? (key->size - 1) / INDEX_BLOCK : 0;
	uint64_t tail = key->size % INDEX_BLOCK;

	if (tail && last / INDEX_SEG_BLOCKS == seg && (present >> last % INDEX_SEG_BLOCKS & 1))
		bytes -= (int64_t)(INDEX_BLOCK - tail);
	return bytes;
}

struct load {
	const struct blob_key *key;
	struct index_known known;
};

static int load_segs_locked(struct conn *c, const struct blob_key *key, int64_t obj, struct index_known *k)
{
	AUTO_STMT *rows = NULL;
	uint64_t segs_max = key->size / (INDEX_BLOCK * INDEX_SEG_BLOCKS) + 1;
	size_t cap = 0;
	int r = conn_stmt_locked(c, ST_SEG_LOAD, &rows);

	if (r < 0)
		return r;
	if (sqlite3_bind_int64(rows, 1, obj) != SQLITE_OK)
		return -ENOMEM;
	while ((r = step(rows)) > 0) {
		if (k->n == cap) {
			struct index_seg *more;

			cap = cap ? 2 * cap : 4;
			more = realloc(k->segs, cap * sizeof(*more));
			if (!more)
				return -ENOMEM;
			k->segs = more;
		}
		k->segs[k->n].seg = (uint64_t)sqlite3_column_int64(rows, 0);
		if (k->segs[k->n].seg >= segs_max)
			return -EUCLEAN;
		r = seg_decode(rows, 1, &k->segs[k->n]);
		if (r < 0)
			return r;
		k->n++;
	}
	return r;
}

static int load_fn(struct conn *c, void *arg)
{
	struct load *l = arg;
	AUTO_STMT *get = NULL;
	int r = stmt_of_key_locked(c, ST_OBJ_GET, l->key, &get);

	if (r == 0)
		r = step(get);
	if (r <= 0)
		return r < 0 ? r : -ENOENT;
	l->known.gen = (uint64_t)sqlite3_column_int64(get, 1);
	l->known.verified = sqlite3_column_int(get, 2);
	l->known.used_s = sqlite3_column_int64(get, 3);
	l->known.stamp.ino = (uint64_t)sqlite3_column_int64(get, 4);
	l->known.stamp.mtime_ns = sqlite3_column_int64(get, 5);
	l->known.stamp.ctime_ns = sqlite3_column_int64(get, 6);
	return load_segs_locked(c, l->key, sqlite3_column_int64(get, 0), &l->known);
}

static int add_fn(struct conn *c, void *arg)
{
	struct load *l = arg;
	AUTO_STMT *st = NULL;
	uint64_t gen;
	int r = stmt_of_key_locked(c, ST_OBJ_ADD, l->key, &st);

	if (r < 0)
		return r;
	util_random(&gen, sizeof(gen));
	if (sqlite3_bind_int64(st, 4, (int64_t)(gen >> 1)) != SQLITE_OK ||
	    sqlite3_bind_int64(st, 5, time(NULL)) != SQLITE_OK)
		return -ENOMEM;
	return step(st);
}

int index_load(struct index *ix, const struct blob_key *key, struct index_known *ret)
{
	struct load l = {.key = key};
	int r = -ENOENT;

	/* Again, because another daemon may drop the object between our adding and our reading. */
	for (int i = 0; i < 3 && r == -ENOENT; i++) {
		r = with_conn(ix, reader(ix), "looking an object up", load_fn, &l);
		if (r != -ENOENT)
			break;
		r = with_conn(ix, &ix->wr, "adding an object", add_fn, &l);
		if (r == 0)
			r = with_conn(ix, reader(ix), "looking an object up", load_fn, &l);
	}
	if (r < 0) {
		index_known_fini(&l.known);
		return r == -ENOENT ? -EBUSY : r;
	}
	*ret = l.known;
	return 0;
}

void index_known_fini(struct index_known *k)
{
	free(k->segs);
	*k = (struct index_known){0};
}

struct change {
	const struct blob_key *key;
	uint64_t gen;
	const struct index_seg *segs;
	size_t n;
};

static int obj_of_gen_locked(struct conn *c, const struct blob_key *key, uint64_t gen, int64_t *ret)
{
	AUTO_STMT *st = NULL;
	int r = stmt_of_key_locked(c, ST_OBJ_OF_GEN, key, &st);

	if (r < 0)
		return r;
	if (sqlite3_bind_int64(st, 4, (int64_t)gen) != SQLITE_OK)
		return -ENOMEM;
	r = step(st);
	if (r <= 0)
		return r < 0 ? r : -ENOENT;
	*ret = sqlite3_column_int64(st, 0);
	return 0;
}

/* -ENOENT with *ret cleared when there is no such row. */
static int seg_get_locked(struct conn *c, int64_t obj, uint64_t seg, struct index_seg *ret)
{
	AUTO_STMT *st = NULL;
	int r = conn_stmt_locked(c, ST_SEG_GET, &st);

	*ret = (struct index_seg){.seg = seg};
	if (r < 0)
		return r;
	if (sqlite3_bind_int64(st, 1, obj) != SQLITE_OK ||
	    sqlite3_bind_int64(st, 2, (int64_t)seg) != SQLITE_OK)
		return -ENOMEM;
	r = step(st);
	if (r <= 0)
		return r < 0 ? r : -ENOENT;
	return seg_decode(st, 0, ret);
}

static int seg_put_locked(struct conn *c, int64_t obj, const struct index_seg *seg)
{
	AUTO_STMT *st = NULL;
	uint8_t crc[4 * INDEX_SEG_BLOCKS];
	int r = conn_stmt_locked(c, ST_SEG_PUT, &st);

	if (r < 0)
		return r;
	crc_encode(seg->crc, crc);
	if (sqlite3_bind_int64(st, 1, obj) != SQLITE_OK ||
	    sqlite3_bind_int64(st, 2, (int64_t)seg->seg) != SQLITE_OK ||
	    sqlite3_bind_int64(st, 3, (int64_t)seg->present) != SQLITE_OK ||
	    sqlite3_bind_blob(st, 4, crc, sizeof(crc), SQLITE_TRANSIENT) != SQLITE_OK)
		return -ENOMEM;
	return step(st);
}

static int add_bytes_locked(struct conn *c, int64_t obj, int64_t delta)
{
	AUTO_STMT *st = NULL;
	int r = conn_stmt_locked(c, ST_OBJ_BYTES, &st);

	if (r < 0)
		return r;
	if (sqlite3_bind_int64(st, 1, obj) != SQLITE_OK || sqlite3_bind_int64(st, 2, delta) != SQLITE_OK)
		return -ENOMEM;
	return step(st);
}

static int store_fn(struct conn *c, void *arg)
{
	const struct change *ch = arg;
	int64_t obj = 0, delta = 0;
	int r = obj_of_gen_locked(c, ch->key, ch->gen, &obj);

	if (r < 0)
		return r == -ENOENT ? -ESTALE : r;
	for (size_t i = 0; i < ch->n; i++) {
		struct index_seg seg;

		r = seg_get_locked(c, obj, ch->segs[i].seg, &seg);
		if (r < 0 && r != -ENOENT)
			return r;
		delta -= seg_bytes(ch->key, seg.seg, seg.present);
		seg.present |= ch->segs[i].present;
		for (int b = 0; b < INDEX_SEG_BLOCKS; b++)
			if (ch->segs[i].present >> b & 1)
				seg.crc[b] = ch->segs[i].crc[b];
		delta += seg_bytes(ch->key, seg.seg, seg.present);
		r = seg_put_locked(c, obj, &seg);
		if (r < 0)
			return r;
	}
	return add_bytes_locked(c, obj, delta);
}

int index_store(struct index *ix, const struct blob_key *key, uint64_t gen, const struct index_seg *segs,
                size_t n)
{
	struct change ch = {.key = key, .gen = gen, .segs = segs, .n = n};

	return with_txn(ix, false, "noting blocks", store_fn, &ch);
}

static int drop_seg_locked(struct conn *c, const struct change *ch, int64_t obj, const struct index_seg *drop)
{
	struct index_seg seg;
	int64_t delta;
	int r = seg_get_locked(c, obj, drop->seg, &seg);

	if (r < 0)
		return r == -ENOENT ? 0 : r;
	delta = -seg_bytes(ch->key, drop->seg, seg.present);
	seg.present &= ~drop->present;
	delta += seg_bytes(ch->key, drop->seg, seg.present);
	r = seg_put_locked(c, obj, &seg);
	return r < 0 ? r : add_bytes_locked(c, obj, delta);
}

static int drop_fn(struct conn *c, void *arg)
{
	const struct change *ch = arg;
	AUTO_STMT *get = NULL;
	int64_t obj;
	int r = stmt_of_key_locked(c, ST_OBJ_GET, ch->key, &get);

	if (r == 0)
		r = step(get);
	if (r <= 0)
		return r;
	obj = sqlite3_column_int64(get, 0);
	r = 0;
	for (size_t i = 0; r == 0 && i < ch->n; i++)
		r = drop_seg_locked(c, ch, obj, &ch->segs[i]);
	return r;
}

int index_drop(struct index *ix, const struct blob_key *key, const struct index_seg *segs, size_t n)
{
	struct change ch = {.key = key, .segs = segs, .n = n};

	return with_txn(ix, true, "dropping blocks", drop_fn, &ch);
}

static int drop_object_fn(struct conn *c, void *arg)
{
	const struct change *ch = arg;
	static const enum stmt both[] = {ST_SEG_DEL_ALL, ST_OBJ_DEL};
	int64_t obj = 0;
	int r = obj_of_gen_locked(c, ch->key, ch->gen, &obj);

	for (size_t i = 0; r == 0 && i < ARRAY_LEN(both); i++) {
		AUTO_STMT *st = NULL;

		r = conn_stmt_locked(c, both[i], &st);
		if (r == 0 && sqlite3_bind_int64(st, 1, obj) != SQLITE_OK)
			r = -ENOMEM;
		if (r == 0)
			r = step(st);
	}
	return r;
}

int index_drop_object(struct index *ix, const struct blob_key *key, uint64_t gen)
{
	struct change ch = {.key = key, .gen = gen};

	return with_txn(ix, true, "dropping an object", drop_object_fn, &ch);
}

struct set {
	const struct blob_key *key;
	enum stmt which;
	int64_t value[4]; /* of parameters 4 and on */
	int n;
};

static int set_fn(struct conn *c, void *arg)
{
	const struct set *s = arg;
	AUTO_STMT *st = NULL;
	int r = stmt_of_key_locked(c, s->which, s->key, &st);

	if (r < 0)
		return r;
	for (int i = 0; i < s->n; i++)
		if (sqlite3_bind_int64(st, 4 + i, s->value[i]) != SQLITE_OK)
			return -ENOMEM;
	return step(st);
}

int index_set_verified(struct index *ix, const struct blob_key *key, const struct index_stamp *stamp)
{
	struct set s = {.key = key, .which = ST_OBJ_VERIFIED, .n = 4};

	if (stamp) {
		const int64_t value[] = {1, (int64_t)stamp->ino, stamp->mtime_ns, stamp->ctime_ns};

		memcpy(s.value, value, sizeof(value));
	}
	return with_conn(ix, &ix->wr, "noting a checked object", set_fn, &s);
}

int index_touch(struct index *ix, const struct blob_key *key, int64_t unix_s)
{
	struct set s = {.key = key, .which = ST_OBJ_TOUCH, .value = {unix_s}, .n = 1};

	return with_conn(ix, &ix->wr, "noting a use", set_fn, &s);
}

struct all {
	struct index_object *objects;
	size_t n, cap;
	uint64_t bytes, count;
};

static int usage_fn(struct conn *c, void *arg)
{
	struct all *a = arg;
	AUTO_STMT *st = NULL;
	int r = conn_stmt_locked(c, ST_OBJ_SUM, &st);

	if (r == 0)
		r = step(st);
	if (r <= 0)
		return r < 0 ? r : -EIO;
	a->bytes = (uint64_t)MAX(sqlite3_column_int64(st, 0), 0);
	a->count = (uint64_t)sqlite3_column_int64(st, 1);
	return 0;
}

int index_usage(struct index *ix, uint64_t *ret_bytes, uint64_t *ret_objects)
{
	struct all a = {0};
	int r = with_conn(ix, reader(ix), "adding up", usage_fn, &a);

	if (r < 0)
		return r;
	*ret_bytes = a.bytes;
	*ret_objects = a.count;
	return 0;
}

static int object_decode(sqlite3_stmt *st, struct index_object *o)
{
	int alg = sqlite3_column_int(st, 0);
	const void *oid = sqlite3_column_blob(st, 1);

	*o = (struct index_object){0};
	if (alg != HASH_GIT_SHA1 && alg != HASH_SHA256)
		return -EUCLEAN;
	o->key.alg = (enum hash_alg)alg;
	if (!oid || (size_t)sqlite3_column_bytes(st, 1) != hash_len(o->key.alg))
		return -EUCLEAN;
	memcpy(o->key.id, oid, hash_len(o->key.alg));
	o->key.size = (uint64_t)sqlite3_column_int64(st, 2);
	o->gen = (uint64_t)sqlite3_column_int64(st, 3);
	o->bytes = (uint64_t)MAX(sqlite3_column_int64(st, 4), 0);
	o->used_s = sqlite3_column_int64(st, 5);
	return 0;
}

static int objects_fn(struct conn *c, void *arg)
{
	struct all *a = arg;
	AUTO_STMT *st = NULL;
	int r = conn_stmt_locked(c, ST_OBJ_ALL, &st);

	if (r < 0)
		return r;
	while ((r = step(st)) > 0 && a->n < OBJECTS_MAX) {
		if (a->n == a->cap) {
			size_t cap = a->cap ? 2 * a->cap : 64;
			struct index_object *more = realloc(a->objects, cap * sizeof(*more));

			if (!more)
				return -ENOMEM;
			a->objects = more;
			a->cap = cap;
		}
		r = object_decode(st, &a->objects[a->n]);
		if (r < 0)
			return r;
		a->n++;
	}
	return MIN(r, 0);
}

int index_objects(struct index *ix, struct index_object **ret, size_t *ret_n)
{
	struct all a = {0};
	int r = with_conn(ix, reader(ix), "listing objects", objects_fn, &a);

	if (r < 0) {
		free(a.objects);
		return r;
	}
	*ret = a.objects;
	*ret_n = a.n;
	return 0;
}

/* -- saved metadata -- */

struct meta {
	const char *key;
	const void *value;
	size_t len;
	char *got;
};

static int meta_get_fn(struct conn *c, void *arg)
{
	struct meta *m = arg;
	AUTO_STMT *st = NULL;
	int r = conn_stmt_locked(c, ST_META_GET, &st);

	if (r < 0)
		return r;
	if (sqlite3_bind_text(st, 1, m->key, -1, SQLITE_TRANSIENT) != SQLITE_OK)
		return -ENOMEM;
	r = step(st);
	if (r <= 0)
		return r < 0 ? r : -ENOENT;
	m->value = sqlite3_column_blob(st, 0);
	m->len = (size_t)sqlite3_column_bytes(st, 0);
	m->got = malloc(m->len + 1);
	if (!m->got)
		return -ENOMEM;
	if (m->len)
		memcpy(m->got, m->value, m->len);
	m->got[m->len] = '\0';
	return 0;
}

int index_meta_get(struct index *ix, const char *key, char **ret_value, size_t *ret_len)
{
	struct meta m = {.key = key};
	int r = with_conn(ix, reader(ix), "reading a saved text", meta_get_fn, &m);

	if (r < 0)
		return r;
	*ret_value = m.got;
	*ret_len = m.len;
	return 0;
}

static int meta_put_fn(struct conn *c, void *arg)
{
	const struct meta *m = arg;
	AUTO_STMT *st = NULL;
	int r = conn_stmt_locked(c, ST_META_PUT, &st);

	if (r < 0)
		return r;
	if (sqlite3_bind_text(st, 1, m->key, -1, SQLITE_TRANSIENT) != SQLITE_OK ||
	    sqlite3_bind_int64(st, 2, time(NULL)) != SQLITE_OK ||
	    sqlite3_bind_int64(st, 3, (int64_t)m->len) != SQLITE_OK ||
	    sqlite3_bind_blob64(st, 4, m->len ? m->value : "", m->len, SQLITE_STATIC) != SQLITE_OK)
		return -ENOMEM;
	return step(st);
}

int index_meta_put(struct index *ix, const char *key, const void *value, size_t len)
{
	struct meta m = {.key = key, .value = value, .len = len};

	if (len > INDEX_META_MAX)
		return -EFBIG;
	return with_conn(ix, &ix->wr, "saving a text", meta_put_fn, &m);
}
