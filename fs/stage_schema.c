/* stage_schema: the tables of a stage's journal, and how those of an older hugfs become ours. Not for: rows
 * and transactions (stage_journal.c).
 *
 * Runs while a stage is opened, alone.
 *
 * A change of the tables, or of what the numbers in them mean, is a new schema: STAGE_SCHEMA goes up by one,
 * schema_sql says how a new journal begins, steps[] how one of the schema before becomes one. A step stays as
 * it was written, for it meets journals of its time. The test keeps a journal of each schema as text.
 *
 *     schema  since then
 *     1       the first
 *     2       local: folders too, and attributes without a content id. JOURNAL_HAS_MTIME. layer.synced, and
 *             meta has the boot id. Extent logs have records of kind EXT_LOWER
 *     3       conflict: names that are left out of commits until the user decides
 *     4       before_node, before_name: the overlay as it was when a transaction began */
#define LOG_MODULE "stage_schema"

#include "stage_schema.h"

#include <errno.h>
#include <fcntl.h>
#include <sqlite3.h>
#include <string.h>
#include <unistd.h>

#include "log.h"

#define APP_ID 0x68756773 /* "hugs" */

#define BLOB_COLUMNS " alg INTEGER, oid BLOB, size INTEGER, at_commit TEXT, at_path BLOB"
#define ATTR_COLUMNS \
	" flags INTEGER NOT NULL, mode INTEGER NOT NULL, uid INTEGER NOT NULL, gid INTEGER NOT NULL," \
	" mtime_s INTEGER NOT NULL, mtime_ns INTEGER NOT NULL"
#define CONFLICT_TABLE \
	"CREATE TABLE conflict(parent INTEGER NOT NULL, name BLOB NOT NULL, PRIMARY KEY(parent, name))" \
	" WITHOUT ROWID;"
#define BEFORE_TABLES \
	"CREATE TABLE before_node(id INTEGER PRIMARY KEY, kind INTEGER NOT NULL, base INTEGER NOT NULL," \
	" base_commit TEXT, base_path BLOB," ATTR_COLUMNS ", state INTEGER NOT NULL," \
	" last_layer INTEGER NOT NULL," BLOB_COLUMNS ", top INTEGER NOT NULL);" \
	"CREATE TABLE before_name(parent INTEGER NOT NULL, name BLOB NOT NULL, node INTEGER NOT NULL," \
	" conflict INTEGER NOT NULL, PRIMARY KEY(parent, name)) WITHOUT ROWID;"
#define LOCAL_TABLE \
	"(path BLOB PRIMARY KEY, kind INTEGER NOT NULL, alg INTEGER, oid BLOB, size INTEGER," ATTR_COLUMNS \
	") WITHOUT ROWID;"

static const char schema_sql[] =
	"CREATE TABLE meta(key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;"
	"CREATE TABLE node(id INTEGER PRIMARY KEY, kind INTEGER NOT NULL, base INTEGER NOT NULL,"
	" base_commit TEXT, base_path BLOB," ATTR_COLUMNS ", state INTEGER NOT NULL,"
	" last_layer INTEGER NOT NULL," BLOB_COLUMNS ");"
	"CREATE TABLE name(parent INTEGER NOT NULL, name BLOB NOT NULL, node INTEGER NOT NULL,"
	" gen INTEGER NOT NULL, PRIMARY KEY(parent, name)) WITHOUT ROWID;"
	CONFLICT_TABLE
	BEFORE_TABLES
	"CREATE TABLE layer(node INTEGER NOT NULL, layer INTEGER NOT NULL, lower INTEGER NOT NULL,"
	" lower_layer INTEGER NOT NULL, frozen INTEGER NOT NULL, bytes INTEGER NOT NULL, sha256 BLOB,"
	" git BLOB," BLOB_COLUMNS ", synced INTEGER NOT NULL DEFAULT 0, PRIMARY KEY(node, layer))"
	" WITHOUT ROWID;"
	"CREATE TABLE intent(one INTEGER PRIMARY KEY CHECK(one = 1), token TEXT NOT NULL,"
	" parent TEXT NOT NULL, gen INTEGER NOT NULL);"
	"CREATE TABLE intent_item(seq INTEGER PRIMARY KEY, node INTEGER NOT NULL, layer INTEGER NOT NULL,"
	" path BLOB NOT NULL, alg INTEGER NOT NULL, oid BLOB NOT NULL, size INTEGER NOT NULL);"
	"CREATE TABLE local" LOCAL_TABLE;

/* 32 is JOURNAL_HAS_MTIME, 2 and 3 are STAGE_FILE and STAGE_DIR: a file's mtime always counted, and that of
 * a folder which the base did not have. */
static const char from_1[] =
	"ALTER TABLE local RENAME TO local_1;"
	"CREATE TABLE local" LOCAL_TABLE
	"INSERT INTO local SELECT path, 2, alg, oid, size, flags | 32, mode, uid, gid, mtime_s, mtime_ns"
	" FROM local_1;"
	"DROP TABLE local_1;"
	"ALTER TABLE layer ADD COLUMN synced INTEGER NOT NULL DEFAULT 0;"
	"UPDATE node SET flags = flags | 32 WHERE kind = 2 OR base = 0;";

static const char from_2[] = CONFLICT_TABLE;

static const char from_3[] = BEFORE_TABLES;

/* steps[n]: from n + 1 to n + 2. */
static const char *const steps[] = {from_1, from_2, from_3};
_Static_assert(ARRAY_LEN(steps) == STAGE_SCHEMA - 1, "a step for each older schema");

/* -- errors -- */

static int errno_of(sqlite3 *db, int rc)
{
	int err;

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
	case SQLITE_BUSY:
	case SQLITE_LOCKED:
		return -EBUSY;
	case SQLITE_CANTOPEN:
	case SQLITE_IOERR:
		err = db ? sqlite3_system_errno(db) : 0;
		return err == ENOSPC || err == EDQUOT || err == EFBIG || err == EMFILE || err == ENFILE ?
		        -err : -EIO;
	default:
		return -EIO;
	}
}

int stage_schema_failed(const char *path, sqlite3 *db, int rc, const char *what)
{
	int err = errno_of(db, rc);

	if (err < 0)
		log_err("journal %s: %s: %s", path, what, db ? sqlite3_errmsg(db) : sqlite3_errstr(rc));
	return err;
}

int stage_schema_exec(const char *path, sqlite3 *db, const char *sql)
{
	return stage_schema_failed(path, db, sqlite3_exec(db, sql, NULL, NULL, NULL), sql);
}

/* -- versions -- */

static int query_int(const char *path, sqlite3 *db, const char *sql, int64_t *ret)
{
	sqlite3_stmt *st = NULL;
	int rc = sqlite3_prepare_v2(db, sql, -1, &st, NULL);

	if (rc == SQLITE_OK)
		rc = sqlite3_step(st);
	if (rc == SQLITE_ROW)
		*ret = sqlite3_column_int64(st, 0);
	else
		rc = stage_schema_failed(path, db, rc == SQLITE_DONE ? SQLITE_ERROR : rc, sql);
	sqlite3_finalize(st);
	return rc == SQLITE_ROW ? 0 : rc;
}

int stage_schema_version(const char *path, sqlite3 *db, int64_t *ret)
{
	int64_t objects = 0, app = 0, version = 0;
	int rc = query_int(path, db, "SELECT count(*) FROM sqlite_master", &objects);

	if (rc == 0)
		rc = query_int(path, db, "PRAGMA application_id", &app);
	if (rc == 0 && objects > 0) {
		if (app != APP_ID) {
			log_err("%s is not a journal of hugfs", path);
			return -EIO;
		}
		rc = query_int(path, db, "SELECT CAST(value AS INTEGER) FROM meta WHERE key = 'schema'",
		               &version);
		if (rc == 0 && version < 1) {
			log_err("%s does not say its schema", path);
			return -EIO;
		}
	}
	if (rc == 0)
		*ret = version;
	return rc;
}

int stage_schema_make(const char *path, sqlite3 *db)
{
	AUTO_FREE char *sql = util_printf("BEGIN IMMEDIATE; %s PRAGMA application_id = %d;"
	                                  "INSERT INTO meta(key, value) VALUES('schema', '%d'); COMMIT",
	                                  schema_sql, APP_ID, STAGE_SCHEMA);

	return sql ? stage_schema_exec(path, db, sql) : -ENOMEM;
}

static int sync_file(const char *path)
{
	AUTO_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC);

	return fd < 0 || fsync(fd) < 0 ? -errno : 0;
}

/* A database of its own with all that the write-ahead log holds too. One that is there already was made
 * before a migration that was cut off, so it has the same. */
static int keep_copy(const char *path, sqlite3 *db, int64_t from)
{
	AUTO_FREE char *copy = util_printf("%s.v%lld", path, (long long)from);
	AUTO_FREE char *tmp = util_printf("%s.v%lld.tmp", path, (long long)from);
	AUTO_FREE char *dir = strndup(path, (size_t)(strrchr(path, '/') - path));
	char *sql;
	int rc;

	if (!copy || !tmp || !dir)
		return -ENOMEM;
	if (access(copy, F_OK) == 0)
		return 0;
	if (unlink(tmp) < 0 && errno != ENOENT)
		return -errno;
	sql = sqlite3_mprintf("VACUUM INTO %Q", tmp);
	if (!sql)
		return -ENOMEM;
	rc = stage_schema_exec(path, db, sql);
	sqlite3_free(sql);
	if (rc == 0)
		rc = sync_file(tmp);
	if (rc == 0 && rename(tmp, copy) < 0)
		rc = -errno;
	if (rc == 0)
		rc = util_fsync_dir(dir);
	if (rc < 0)
		log_err("%s: a copy of the journal cannot be kept: %s", copy, strerror(-rc));
	return rc;
}

int stage_schema_migrate(const char *path, sqlite3 *db, int64_t from)
{
	int rc = keep_copy(path, db, from);

	if (rc == 0)
		rc = stage_schema_exec(path, db, "BEGIN IMMEDIATE");
	if (rc < 0)
		return rc;
	for (int64_t at = from; rc == 0 && at < STAGE_SCHEMA; at++)
		rc = stage_schema_exec(path, db, steps[at - 1]);
	if (rc == 0) {
		AUTO_FREE char *sql = util_printf("UPDATE meta SET value = '%d' WHERE key = 'schema'",
		                                  STAGE_SCHEMA);

		rc = sql ? stage_schema_exec(path, db, sql) : -ENOMEM;
	}
	if (rc == 0)
		rc = stage_schema_exec(path, db, "COMMIT");
	if (rc < 0 && !sqlite3_get_autocommit(db))
		must(stage_schema_exec(path, db, "ROLLBACK") == 0 || sqlite3_get_autocommit(db));
	if (rc == 0)
		log_info("%s: taken from schema %lld to %d; %s.v%lld is as it was", path, (long long)from,
		         STAGE_SCHEMA, path, (long long)from);
	return rc;
}
