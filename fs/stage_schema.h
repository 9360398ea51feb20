/* stage_schema: the tables of a stage's journal, and how those of an older hugfs become ours. Knows no rows.
 *
 * PATH is that of the database, for messages and for the copy. All log what fails, once. */
#ifndef HUGFS_STAGE_SCHEMA_H
#define HUGFS_STAGE_SCHEMA_H

#include "util.h"

#define STAGE_SCHEMA 4

struct sqlite3;

/* Logs the failure `rc` of SQLite, and says it as -errno; 0 when it is none. db may be NULL. */
int stage_schema_failed(const char *path, struct sqlite3 *db, int rc, const char *what);
int stage_schema_exec(const char *path, struct sqlite3 *db, const char *sql) MUST_USE;

/* The schema of what lies there; 0: nothing yet. Writes nothing. -EIO: no journal of hugfs. */
int stage_schema_version(const char *path, struct sqlite3 *db, int64_t *ret) MUST_USE;
/* Makes the tables of STAGE_SCHEMA in an empty database. */
int stage_schema_make(const char *path, struct sqlite3 *db) MUST_USE;
/* Takes the tables from schema `from` to STAGE_SCHEMA: all of it or nothing. What was there before is kept
 * as PATH.v<from>, on stable storage before anything is changed. */
int stage_schema_migrate(const char *path, struct sqlite3 *db, int64_t from) MUST_USE;

#endif
