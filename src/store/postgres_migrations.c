/* The PostgreSQL schema as numbered steps. A step that was released is never changed: later ones build on it.
 *
 * Times are wall-clock nanoseconds, states and statuses the contract's words, as in SQLite. Names and ids sort by their
 * bytes (COLLATE "C"), whatever the database's own order. */
#include "base/cleanup.h"
#include "base/loop.h"
#include "store/postgres.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Any number: controllers that start together migrate one after the other. */
#define MIGRATIONS_LOCK "7305180610"

static const char *const migrations[] = {
    /* 1: functions and their code, executions, settings */
    "CREATE TABLE settings (name text COLLATE \"C\" PRIMARY KEY, value text NOT NULL);"
    "CREATE TABLE functions ("
    "  name text COLLATE \"C\" NOT NULL, version bigint NOT NULL, state text NOT NULL,"
    "  spec text NOT NULL, code_sha256 text COLLATE \"C\", artifact_sha256 text COLLATE \"C\","
    "  build_output text, created_at bigint NOT NULL, updated_at bigint NOT NULL,"
    "  PRIMARY KEY (name, version));"
    "CREATE INDEX functions_by_code ON functions (code_sha256);"
    "CREATE INDEX functions_by_artifact ON functions (artifact_sha256);"
    "CREATE TABLE code (sha256 text COLLATE \"C\" PRIMARY KEY, bytes bytea NOT NULL,"
    "  put_at timestamptz NOT NULL DEFAULT now());"
    /* packed archives: not to be compressed again */
    "ALTER TABLE code ALTER bytes SET STORAGE EXTERNAL;"
    "CREATE TABLE last_versions (name text COLLATE \"C\" PRIMARY KEY, version bigint NOT NULL);"
    /* ids sort by time, so the id's own index serves 'newest first' */
    "CREATE TABLE executions ("
    "  id text COLLATE \"C\" PRIMARY KEY, function text COLLATE \"C\" NOT NULL,"
    "  version bigint NOT NULL, status text COLLATE \"C\" NOT NULL, async boolean NOT NULL,"
    "  cold_start boolean NOT NULL, worker text, attempt bigint NOT NULL,"
    "  created_at bigint NOT NULL, started_at bigint NOT NULL, finished_at bigint NOT NULL,"
    "  error text, metrics text NOT NULL, result_base64 boolean NOT NULL, result text, logs bytea,"
    "  payload bytea);"
    "CREATE INDEX executions_by_function ON executions (function, id);"
    "CREATE INDEX executions_by_status ON executions (status, id);",

    /* 2: delivery: owners with leases, retries, dead letters, idempotency keys. What was under way goes again. */
    "ALTER TABLE executions ADD COLUMN priority bigint NOT NULL DEFAULT 2;"
    "ALTER TABLE executions ADD COLUMN failures bigint NOT NULL DEFAULT 0;"
    "ALTER TABLE executions ADD COLUMN losses bigint NOT NULL DEFAULT 0;"
    "ALTER TABLE executions ADD COLUMN aged_from bigint NOT NULL DEFAULT 0;"
    "ALTER TABLE executions ADD COLUMN dead_at bigint NOT NULL DEFAULT 0;"
    "ALTER TABLE executions ADD COLUMN due_at bigint NOT NULL DEFAULT 0;"
    "ALTER TABLE executions ADD COLUMN owner text COLLATE \"C\";"
    "UPDATE executions SET aged_from = created_at WHERE status IN ('queued', 'running');"
    "UPDATE executions SET status = 'queued', attempt = attempt + 1, losses = 1, priority = -8,"
    "  started_at = 0 WHERE status = 'running' AND async;"
    "CREATE INDEX executions_waiting ON executions (function, priority, id)"
    "  WHERE status = 'queued' AND owner IS NULL AND due_at = 0;"
    "CREATE INDEX executions_due ON executions (due_at) WHERE due_at > 0;"
    "CREATE INDEX executions_owned ON executions (owner) WHERE owner IS NOT NULL;"
    "CREATE INDEX executions_dead ON executions (id) WHERE dead_at > 0;"
    "CREATE TABLE controllers (id text COLLATE \"C\" PRIMARY KEY,"
    "  alive_until timestamptz NOT NULL);"
    "CREATE TABLE idempotency_keys (function text COLLATE \"C\", key text COLLATE \"C\","
    "  execution_id text COLLATE \"C\" NOT NULL, ends_at bigint NOT NULL,"
    "  PRIMARY KEY (function, key));"
    "CREATE INDEX idempotency_keys_by_end ON idempotency_keys (ends_at);",

    /* 3: callbacks. They become due with the end of their execution, and go with its record. */
    "CREATE TABLE callbacks (execution_id text COLLATE \"C\" PRIMARY KEY, url text NOT NULL,"
    "  host text COLLATE \"C\" NOT NULL, secret text NOT NULL,"
    "  state text COLLATE \"C\" NOT NULL DEFAULT 'waiting', attempts bigint NOT NULL DEFAULT 0,"
    "  fence bigint NOT NULL DEFAULT 0, due_at bigint NOT NULL DEFAULT 0,"
    "  since bigint NOT NULL DEFAULT 0, delivered_at bigint NOT NULL DEFAULT 0,"
    "  status bigint NOT NULL DEFAULT 0, error text);"
    "CREATE INDEX callbacks_due ON callbacks (due_at) WHERE state = 'pending';"
    "CREATE FUNCTION callbacks_end() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
    "  UPDATE callbacks SET state = 'pending', attempts = 0, fence = fence + 1, status = 0,"
    "  error = NULL, delivered_at = 0, due_at = NEW.finished_at, since = NEW.finished_at"
    "  WHERE execution_id = NEW.id; RETURN NULL; END $$;"
    "CREATE FUNCTION callbacks_gone() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
    "  DELETE FROM callbacks WHERE execution_id = OLD.id; RETURN NULL; END $$;"
    "CREATE TRIGGER callbacks_end AFTER UPDATE OF status ON executions FOR EACH ROW"
    "  WHEN (NEW.async AND OLD.status IN ('queued', 'running') AND"
    "  NEW.status NOT IN ('queued', 'running')) EXECUTE FUNCTION callbacks_end();"
    "CREATE TRIGGER callbacks_gone AFTER DELETE ON executions FOR EACH ROW WHEN (OLD.async)"
    "  EXECUTE FUNCTION callbacks_gone();",

    /* 4: which controller sees to a build */
    "ALTER TABLE functions ADD COLUMN builder text COLLATE \"C\";"
    "CREATE INDEX functions_building ON functions (name) WHERE state = 'building';",
};

const int postgres_schema_version = sizeof(migrations) / sizeof(migrations[0]);

static int current_version(struct postgres_store *store, int *ret, struct error *err)
{
    auto_result *rows = NULL;
    if (postgres_execute(store,
                         "SELECT pg_advisory_xact_lock(" MIGRATIONS_LOCK ");"
                         "CREATE TABLE IF NOT EXISTS schema_migrations"
                         " (version integer PRIMARY KEY, applied_at bigint NOT NULL);"
                         "SELECT coalesce(max(version), 0) FROM schema_migrations",
                         &rows, err) < 0)
        return -1;
    *ret = PQntuples(rows) == 1 ? atoi(PQgetvalue(rows, 0, 0)) : 0;
    return 0;
}

static int apply(struct postgres_store *store, int version, struct error *err)
{
    char note[128];
    snprintf(note, sizeof(note), "INSERT INTO schema_migrations VALUES (%d, %lld)", version,
             (long long)clock_realtime_ns());
    if (postgres_execute(store, migrations[version - 1], NULL, err) == 0 &&
        postgres_execute(store, note, NULL, err) == 0)
        return 0;
    return error_wrap(err, "bringing the database to schema version %d", version);
}

static int migrate(struct postgres_store *store, int target, struct error *err)
{
    int version = 0;
    if (current_version(store, &version, err) < 0)
        return -1;
    if (version > postgres_schema_version)
        return error_set(err, ERROR_UNAVAILABLE,
                         "the database has schema version %d and this program knows versions up to "
                         "%d: use a newer faas-controller, or another database",
                         version, postgres_schema_version);
    for (int next = version + 1; next <= target; next++)
        if (apply(store, next, err) < 0)
            return -1;
    return 0;
}

int postgres_migrate(struct postgres_store *store, int target, struct error *err)
{
    assert(target <= postgres_schema_version);
    if (postgres_execute(store, "BEGIN", NULL, err) < 0)
        return -1;
    if (migrate(store, target, err) == 0)
        return postgres_execute(store, "COMMIT", NULL, err);
    postgres_execute(store, "ROLLBACK", NULL, NULL);
    return -1;
}

int postgres_create_at_version(const char *url, int version, struct error *err)
{
    struct postgres_store store = {.pg = PQconnectdb(url)};
    int outcome = PQstatus(store.pg) == CONNECTION_OK
                      ? postgres_migrate(&store, version, err)
                      : error_set(err, ERROR_UNAVAILABLE, "connecting to PostgreSQL");
    PQfinish(store.pg);
    return outcome;
}
