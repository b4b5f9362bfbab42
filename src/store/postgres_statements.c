/* The PostgreSQL engine's statements, prepared once a connection. */
#include "store/postgres.h"

#define EXECUTION_COLUMNS                                                                          \
    "id, function, version, status, async, cold_start, worker, attempt, created_at, started_at,"   \
    " finished_at, error, metrics"
#define LIST_EXECUTIONS(condition)                                                                 \
    "SELECT " EXECUTION_COLUMNS " FROM executions WHERE id < $1 " condition                        \
    " ORDER BY id DESC LIMIT $2"
/* Versions that go: those of a name below a number. */
#define GOING "name = $1 AND version < $2"
/* Any number: what changes functions and code waits for its like in other controllers. */
#define FUNCTIONS_LOCK "7305180611"

const char *const postgres_statement_texts[POSTGRES_STATEMENT_COUNT] = {
    [POSTGRES_BEGIN] = "BEGIN",
    [POSTGRES_COMMIT] = "COMMIT",
    [POSTGRES_ROLLBACK] = "ROLLBACK",
    [POSTGRES_LOCK_FUNCTIONS] = "SELECT pg_advisory_xact_lock(" FUNCTIONS_LOCK ")",
    [POSTGRES_PUT_FUNCTION] =
        "INSERT INTO functions (name, version, state, spec, code_sha256, artifact_sha256,"
        " build_output, created_at, updated_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)"
        " ON CONFLICT (name, version) DO UPDATE SET state = excluded.state, spec = excluded.spec,"
        " code_sha256 = excluded.code_sha256, artifact_sha256 = excluded.artifact_sha256,"
        " build_output = excluded.build_output, created_at = excluded.created_at,"
        " updated_at = excluded.updated_at",
    [POSTGRES_PUT_LAST_VERSION] = "INSERT INTO last_versions AS v VALUES ($1, $2)"
                                  " ON CONFLICT (name) DO UPDATE SET version ="
                                  " greatest(v.version, excluded.version)",
    [POSTGRES_PRUNE_CODE] =
        "DELETE FROM code WHERE sha256 IN (SELECT code_sha256 FROM functions WHERE " GOING
        " UNION SELECT artifact_sha256 FROM functions WHERE " GOING ")"
        " AND NOT EXISTS (SELECT 1 FROM functions WHERE code_sha256 = code.sha256 AND NOT (" GOING
        ")) AND NOT EXISTS (SELECT 1 FROM functions WHERE artifact_sha256 = code.sha256 AND NOT"
        " (" GOING "))",
    [POSTGRES_PRUNE_VERSIONS] = "DELETE FROM functions WHERE " GOING,
    /* A moment old at least: another controller may be about to write the function. */
    [POSTGRES_SWEEP_CODE] =
        "DELETE FROM code WHERE put_at < now() - interval '1 hour' AND NOT EXISTS (SELECT 1 FROM"
        " functions WHERE code_sha256 = code.sha256) AND NOT EXISTS (SELECT 1 FROM functions"
        " WHERE artifact_sha256 = code.sha256)",
    [POSTGRES_LOAD_FUNCTIONS] =
        "SELECT state, spec, build_output, created_at, updated_at FROM functions AS f WHERE"
        " version = (SELECT max(version) FROM functions WHERE name = f.name) OR"
        " version = (SELECT max(version) FROM functions WHERE name = f.name AND state = 'ready')"
        " ORDER BY name, version",
    [POSTGRES_LOAD_LAST_VERSIONS] = "SELECT name, version FROM last_versions ORDER BY name",
    [POSTGRES_PUT_CODE] = "INSERT INTO code (sha256, bytes) VALUES ($1, $2)"
                          " ON CONFLICT (sha256) DO UPDATE SET put_at = now()",
    [POSTGRES_GET_CODE] = "SELECT bytes FROM code WHERE sha256 = $1",
    [POSTGRES_PUT_EXECUTION] =
        "INSERT INTO executions (" EXECUTION_COLUMNS ", result_base64, result, logs, payload)"
        " VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17)"
        " ON CONFLICT (id) DO UPDATE SET function = excluded.function, version = excluded.version,"
        " status = excluded.status, async = excluded.async, cold_start = excluded.cold_start,"
        " worker = excluded.worker, attempt = excluded.attempt, created_at = excluded.created_at,"
        " started_at = excluded.started_at, finished_at = excluded.finished_at,"
        " error = excluded.error, metrics = excluded.metrics,"
        " result_base64 = excluded.result_base64, result = excluded.result, logs = excluded.logs,"
        " payload = excluded.payload",
    [POSTGRES_START_EXECUTION] =
        "UPDATE executions SET status = 'running', attempt = $2, started_at = $3"
        " WHERE id = $1 AND status IN ('queued', 'running')",
    [POSTGRES_GET_EXECUTION] = "SELECT " EXECUTION_COLUMNS ", result_base64, result, logs"
                               " FROM executions WHERE id = $1",
    [POSTGRES_LIST_EXECUTIONS] = LIST_EXECUTIONS(""),
    [POSTGRES_LIST_BY_FUNCTION] = LIST_EXECUTIONS("AND function = $3"),
    [POSTGRES_LIST_BY_STATUS] = LIST_EXECUTIONS("AND status = $3"),
    [POSTGRES_LIST_BY_BOTH] = LIST_EXECUTIONS("AND function = $3 AND status = $4"),
    [POSTGRES_LOAD_UNFINISHED] = "SELECT " EXECUTION_COLUMNS ", payload FROM executions"
                                 " WHERE status IN ('queued', 'running') AND async ORDER BY id",
    [POSTGRES_NTH_NEWEST] = "SELECT id FROM executions ORDER BY id DESC LIMIT 1 OFFSET $1",
    [POSTGRES_EXPIRE] =
        "DELETE FROM executions WHERE id IN (SELECT id FROM executions WHERE id < $1 AND status"
        " NOT IN ('queued', 'running') ORDER BY id LIMIT $2 FOR UPDATE SKIP LOCKED)",
    [POSTGRES_PUT_SETTING] = "INSERT INTO settings (name, value) VALUES ($1, $2)"
                             " ON CONFLICT (name) DO UPDATE SET value = excluded.value",
    [POSTGRES_DELETE_SETTING] = "DELETE FROM settings WHERE name = $1",
    [POSTGRES_GET_SETTING] = "SELECT value FROM settings WHERE name = $1",
};
