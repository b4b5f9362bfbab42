/* The SQLite schema as numbered steps. A step that was released is never changed: later ones build
 * on it.
 *
 * Times are wall-clock nanoseconds, states and statuses the contract's words, so that the file can
 * be read with the sqlite3 command. */
#include "store/sqlite.h"

#include "base/loop.h"

#include <assert.h>

static const char *const migrations[] = {
    /* 1: functions and their code */
    "CREATE TABLE settings (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;"
    "CREATE TABLE functions ("
    "  name TEXT NOT NULL, version INTEGER NOT NULL, state TEXT NOT NULL, spec TEXT NOT NULL,"
    "  code_sha256 TEXT, artifact_sha256 TEXT, build_output TEXT,"
    "  created_at INTEGER NOT NULL, updated_at INTEGER NOT NULL,"
    "  PRIMARY KEY (name, version)) WITHOUT ROWID;"
    "CREATE TABLE code (sha256 TEXT PRIMARY KEY, bytes BLOB NOT NULL);",

    /* 2: executions. Ids sort by time, so the id's own index serves 'newest first'. */
    "CREATE TABLE executions ("
    "  id TEXT PRIMARY KEY, function TEXT NOT NULL, version INTEGER NOT NULL, status TEXT NOT NULL,"
    "  async INTEGER NOT NULL, cold_start INTEGER NOT NULL, worker TEXT, attempt INTEGER NOT NULL,"
    "  created_at INTEGER NOT NULL, started_at INTEGER NOT NULL, finished_at INTEGER NOT NULL,"
    "  error TEXT, metrics TEXT NOT NULL, result_base64 INTEGER NOT NULL, result TEXT, logs BLOB,"
    "  payload BLOB);"
    "CREATE INDEX executions_by_function ON executions (function, id);"
    "CREATE INDEX executions_by_status ON executions (status, id);",

    /* 3: the highest version of each name, kept when the function is deleted; and who uses which
       code */
    "CREATE TABLE last_versions (name TEXT PRIMARY KEY, version INTEGER NOT NULL) WITHOUT ROWID;"
    "INSERT INTO last_versions SELECT name, max(version) FROM functions GROUP BY name;"
    "CREATE INDEX functions_by_code ON functions (code_sha256);"
    "CREATE INDEX functions_by_artifact ON functions (artifact_sha256);",

    /* 4: delivery: owners with leases, retries, dead letters, idempotency keys. What was under way goes again. */
    "ALTER TABLE executions ADD COLUMN priority INTEGER NOT NULL DEFAULT 2;"
    "ALTER TABLE executions ADD COLUMN failures INTEGER NOT NULL DEFAULT 0;"
    "ALTER TABLE executions ADD COLUMN losses INTEGER NOT NULL DEFAULT 0;"
    "ALTER TABLE executions ADD COLUMN aged_from INTEGER NOT NULL DEFAULT 0;"
    "ALTER TABLE executions ADD COLUMN dead_at INTEGER NOT NULL DEFAULT 0;"
    "ALTER TABLE executions ADD COLUMN due_at INTEGER NOT NULL DEFAULT 0;"
    "ALTER TABLE executions ADD COLUMN owner TEXT;"
    "UPDATE executions SET aged_from = created_at WHERE status IN ('queued', 'running');"
    "UPDATE executions SET status = 'queued', attempt = attempt + 1, losses = 1, priority = -8,"
    "  started_at = 0 WHERE status = 'running' AND async;"
    "CREATE INDEX executions_waiting ON executions (function, priority, id)"
    "  WHERE status = 'queued' AND owner IS NULL AND due_at = 0;"
    "CREATE INDEX executions_due ON executions (due_at) WHERE due_at > 0;"
    "CREATE INDEX executions_owned ON executions (owner) WHERE owner IS NOT NULL;"
    "CREATE INDEX executions_dead ON executions (id) WHERE dead_at > 0;"
    "CREATE TABLE controllers (id TEXT PRIMARY KEY) WITHOUT ROWID;"
    "CREATE TABLE idempotency_keys (function TEXT, key TEXT, execution_id TEXT NOT NULL,"
    "  ends_at INTEGER NOT NULL, PRIMARY KEY (function, key)) WITHOUT ROWID;"
    "CREATE INDEX idempotency_keys_by_end ON idempotency_keys (ends_at);",

    /* 5: callbacks. They become due with the end of their execution, and go with its record. */
    "CREATE TABLE callbacks (execution_id TEXT PRIMARY KEY, url TEXT NOT NULL, host TEXT NOT NULL,"
    "  secret TEXT NOT NULL, state TEXT NOT NULL DEFAULT 'waiting',"
    "  attempts INTEGER NOT NULL DEFAULT 0, fence INTEGER NOT NULL DEFAULT 0,"
    "  due_at INTEGER NOT NULL DEFAULT 0, since INTEGER NOT NULL DEFAULT 0,"
    "  delivered_at INTEGER NOT NULL DEFAULT 0, status INTEGER NOT NULL DEFAULT 0, error TEXT)"
    "  WITHOUT ROWID;"
    "CREATE INDEX callbacks_due ON callbacks (due_at) WHERE state = 'pending';"
    "CREATE TRIGGER callbacks_end AFTER UPDATE OF status ON executions WHEN new.async AND"
    "  old.status IN ('queued', 'running') AND new.status NOT IN ('queued', 'running') BEGIN"
    "  UPDATE callbacks SET state = 'pending', attempts = 0, fence = fence + 1, status = 0,"
    "  error = NULL, delivered_at = 0, due_at = new.finished_at, since = new.finished_at"
    "  WHERE execution_id = new.id; END;"
    "CREATE TRIGGER callbacks_gone AFTER DELETE ON executions WHEN old.async BEGIN"
    "  DELETE FROM callbacks WHERE execution_id = old.id; END;",

    /* 6: large results in files beside the database: see sqlite_large.h */
    "ALTER TABLE executions ADD COLUMN result_file TEXT;"
    "ALTER TABLE executions ADD COLUMN result_file_bytes INTEGER;",
};

const int sqlite_schema_version = sizeof(migrations) / sizeof(migrations[0]);

static int execute(sqlite3 *db, const char *sql, const char *what, struct error *err)
{
    return sqlite3_exec(db, sql, NULL, NULL, NULL) == SQLITE_OK ? 0 : sqlite_fail(db, err, what);
}

int sqlite_read_version(sqlite3 *db, int *ret, struct error *err)
{
    sqlite3_stmt *statement = NULL;
    static const char has_table[] = "SELECT count(*) FROM sqlite_master WHERE type = 'table'"
                                    " AND name = 'schema_migrations'";
    static const char newest[] = "SELECT coalesce(max(version), 0) FROM schema_migrations";
    const char *const steps[] = {has_table, newest};
    *ret = 1;
    for (size_t i = 0; i < 2 && *ret > 0; i++) {
        bool read = sqlite3_prepare_v2(db, steps[i], -1, &statement, NULL) == SQLITE_OK &&
                    sqlite3_step(statement) == SQLITE_ROW;
        *ret = read ? sqlite3_column_int(statement, 0) : -1;
        sqlite3_finalize(statement);
    }
    return *ret >= 0 ? 0 : sqlite_fail(db, err, "reading the schema's version");
}

int sqlite_check_version(int version, struct error *err)
{
    if (version <= sqlite_schema_version)
        return 0;
    return error_set(err, ERROR_UNAVAILABLE,
                     "the database has schema version %d and this program knows versions up to %d: "
                     "use a newer faas-controller, or another database",
                     version, sqlite_schema_version);
}

static int current_version(sqlite3 *db, int *ret, struct error *err)
{
    if (execute(db,
                "CREATE TABLE IF NOT EXISTS schema_migrations"
                " (version INTEGER PRIMARY KEY, applied_at INTEGER NOT NULL)",
                "reading the schema's version", err) < 0)
        return -1;
    return sqlite_read_version(db, ret, err);
}

static int apply(sqlite3 *db, int version, struct error *err)
{
    char note[128];
    snprintf(note, sizeof(note), "INSERT INTO schema_migrations VALUES (%d, %lld)", version,
             (long long)clock_realtime_ns());
    if (execute(db, "BEGIN IMMEDIATE", "a migration", err) < 0)
        return -1;
    if (execute(db, migrations[version - 1], "a migration", err) < 0 ||
        execute(db, note, "a migration", err) < 0 ||
        execute(db, "COMMIT", "a migration", err) < 0) {
        sqlite3_exec(db, "ROLLBACK", NULL, NULL, NULL);
        return error_wrap(err, "bringing the database to schema version %d", version);
    }
    return 0;
}

int sqlite_migrate(sqlite3 *db, int target, struct error *err)
{
    int version = 0;
    assert(target <= sqlite_schema_version);
    if (current_version(db, &version, err) < 0 || sqlite_check_version(version, err) < 0)
        return -1;
    assert(version >= 0);
    for (int next = version + 1; next <= target; next++)
        if (apply(db, next, err) < 0)
            return -1;
    return 0;
}

int sqlite_create_at_version(const char *path, int version, struct error *err)
{
    sqlite3 *db = NULL;
    int outcome = sqlite3_open(path, &db) == SQLITE_OK ? sqlite_migrate(db, version, err)
                                                       : sqlite_fail(db, err, "opening");
    sqlite3_close(db);
    return outcome;
}
