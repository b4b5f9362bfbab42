/* The SQLite engine's statements, prepared when first used. */
#include "store/record.h"
#include "store/sqlite.h"

#define LIST_EXECUTIONS(condition)                                                                 \
    "SELECT " RECORD_HEAD " FROM executions WHERE id < ?1 " condition " ORDER BY id DESC LIMIT ?2"
/* Versions that go: those of a name below a number. */
#define GOING "name = ?1 AND version < ?2"

#define REDRIVE(condition, limit)                                                                  \
    "UPDATE executions SET status = 'queued', attempt = attempt + 1, failures = 0, losses = 0,"    \
    " dead_at = 0, aged_from = ?1, due_at = 0, started_at = 0, finished_at = 0, error = NULL,"     \
    " result = NULL, result_file = NULL, result_file_bytes = NULL, logs = NULL, worker = NULL, "   \
    "owner = NULL WHERE id IN (SELECT id FROM"                                                     \
    " executions WHERE dead_at > 0 " condition " ORDER BY id LIMIT " limit ")"

#define LOAD_FUNCTIONS(condition)                                                                  \
    "SELECT state, spec, build_output, created_at, updated_at FROM functions AS f "                \
    "WHERE " condition " (version = (SELECT max(version) FROM functions WHERE name = f.name) OR"   \
    " version = (SELECT max(version) FROM functions WHERE name = f.name AND state = 'ready'))"     \
    " ORDER BY name, version"

/* Candidates: the longest due of hosts that are not busy, so many that one host's cannot hide the others'. */
#define CALLBACK_CANDIDATES "1024"

const char *const sqlite_statement_texts[STATEMENT_COUNT] = {
    [STATEMENT_BEGIN] = "BEGIN",
    [STATEMENT_COMMIT] = "COMMIT",
    [STATEMENT_ROLLBACK] = "ROLLBACK",
    [STATEMENT_PUT_FUNCTION] = "INSERT INTO functions (name, version, state, spec,"
                               " code_sha256, artifact_sha256, build_output, created_at,"
                               " updated_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
    [STATEMENT_UPDATE_FUNCTION] =
        "UPDATE functions SET state = ?3, spec = ?4, code_sha256 = ?5, artifact_sha256 = ?6,"
        " build_output = ?7, created_at = ?8, updated_at = ?9 WHERE name = ?1 AND version = ?2"
        " AND (state = 'building' OR updated_at = ?9)", /* or it is this very record */
    [STATEMENT_SAME_FUNCTION] = "SELECT 1 FROM functions WHERE name = ?1 AND version = ?2 AND"
                                " updated_at = ?3",
    [STATEMENT_ADD_LAST_VERSION] =
        "INSERT INTO last_versions AS v VALUES (?1, ?2) ON CONFLICT (name)"
        " DO UPDATE SET version = excluded.version WHERE v.version < excluded.version",
    [STATEMENT_CLAIM_SETTING] = "INSERT INTO settings (name, value) VALUES (?1, ?2)"
                                " ON CONFLICT (name) DO NOTHING",
    [STATEMENT_PRUNE_CODE] =
        "DELETE FROM code WHERE sha256 IN (SELECT code_sha256 FROM functions WHERE " GOING
        " UNION SELECT artifact_sha256 FROM functions WHERE " GOING ")"
        " AND NOT EXISTS (SELECT 1 FROM functions WHERE code_sha256 = code.sha256 AND NOT (" GOING
        ")) AND NOT EXISTS (SELECT 1 FROM functions WHERE artifact_sha256 = code.sha256 AND NOT"
        " (" GOING "))",
    [STATEMENT_PRUNE_VERSIONS] = "DELETE FROM functions WHERE " GOING,
    [STATEMENT_SWEEP_CODE] =
        "DELETE FROM code WHERE NOT EXISTS (SELECT 1 FROM functions WHERE code_sha256 ="
        " code.sha256) AND NOT EXISTS (SELECT 1 FROM functions WHERE artifact_sha256 ="
        " code.sha256)",
    [STATEMENT_LOAD_FUNCTIONS] = LOAD_FUNCTIONS(""),
    [STATEMENT_LOAD_FUNCTION] = LOAD_FUNCTIONS("name = ?1 AND"),
    [STATEMENT_LOAD_LAST_VERSIONS] = "SELECT name, version FROM last_versions ORDER BY name",
    [STATEMENT_LOAD_LAST_VERSION] = "SELECT name, version FROM last_versions WHERE name = ?1",
    [STATEMENT_PUT_CODE] = "INSERT OR IGNORE INTO code (sha256, bytes) VALUES (?1, ?2)",
    [STATEMENT_GET_CODE] = "SELECT bytes FROM code WHERE sha256 = ?1",
    [STATEMENT_LIST_EXECUTIONS] = LIST_EXECUTIONS(""),
    [STATEMENT_LIST_BY_FUNCTION] = LIST_EXECUTIONS("AND function = ?3"),
    [STATEMENT_LIST_BY_STATUS] = LIST_EXECUTIONS("AND status = ?4"),
    [STATEMENT_LIST_BY_BOTH] = LIST_EXECUTIONS("AND function = ?3 AND status = ?4"),
    [STATEMENT_NTH_NEWEST] = "SELECT id FROM executions ORDER BY id DESC LIMIT 1 OFFSET ?1",
    [STATEMENT_PUT_SETTING] = "INSERT OR REPLACE INTO settings (name, value) VALUES (?1, ?2)",
    [STATEMENT_DELETE_SETTING] = "DELETE FROM settings WHERE name = ?1",
    [STATEMENT_GET_SETTING] = "SELECT value FROM settings WHERE name = ?1",
    [STATEMENT_LIST_SETTINGS] = "SELECT name, value FROM settings WHERE"
                                " substr(name, 1, length(?1)) = ?1 ORDER BY name",
    [STATEMENT_JOIN] = "DELETE FROM controllers",
    [STATEMENT_LEAVE] = "DELETE FROM controllers WHERE id = ?1",
    [STATEMENT_RENEW] = "INSERT OR IGNORE INTO controllers VALUES (?1)",
    [STATEMENT_RELEASE_LOST] =
        "UPDATE executions SET owner = NULL, attempt = attempt + (status = 'running'), losses = "
        "losses + (status = 'running'),"
        " priority = CASE WHEN status = 'running' AND priority >= 0 THEN priority "
        "- " RECORD_INTERRUPTED " ELSE priority END,"
        " status = 'queued', started_at = 0 WHERE owner IS NOT NULL AND status IN ('queued', "
        "'running')"
        " AND NOT EXISTS (SELECT 1 FROM controllers AS c WHERE c.id = owner)",
    [STATEMENT_PUT_KEY] =
        "INSERT INTO idempotency_keys AS k (function, key, execution_id, ends_at)"
        " VALUES (?1, ?2, ?3, ?4) ON CONFLICT (function, key) DO UPDATE SET"
        " execution_id = CASE WHEN k.ends_at <= ?5 THEN excluded.execution_id ELSE k.execution_id "
        "END,"
        " ends_at = CASE WHEN k.ends_at <= ?5 THEN excluded.ends_at ELSE k.ends_at END"
        " RETURNING execution_id",
    [STATEMENT_ACCEPT_EXECUTION] =
        "INSERT INTO executions (" RECORD_HEAD ", payload, owner, result_base64)"
        " VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, "
        "?19, ?20, 0)"
        " ON CONFLICT (id) DO NOTHING",
    [STATEMENT_WITHDRAW_EXECUTION] = "DELETE FROM executions WHERE id = ?1 AND status = 'queued' "
                                     "AND started_at = 0 AND attempt = 1",
    [STATEMENT_WITHDRAW_KEY] =
        "DELETE FROM idempotency_keys WHERE function = ?1 AND key = ?2 AND execution_id = ?3",
    [STATEMENT_START_EXECUTION] =
        "UPDATE executions SET status = 'running', attempt = ?3, losses = ?4, started_at = ?5,"
        " priority = CASE WHEN priority < 0 THEN priority + " RECORD_INTERRUPTED
        " ELSE priority END"
        " WHERE id = ?1 AND owner = ?2 AND status IN ('queued', 'running')",
    [STATEMENT_FINISH_EXECUTION] =
        "UPDATE executions SET"
        " function = ?2, version = ?3, status = ?4, async = ?5, cold_start = ?6,"
        " worker = ?7, attempt = ?8, created_at = ?9, started_at = ?10, finished_at = ?11,"
        " error = ?12, metrics = ?13, priority = ?14, failures = ?15, losses = ?16,"
        " aged_from = ?17, dead_at = ?18, result_base64 = ?19, result = ?20, logs = ?21,"
        " result_file = ?23, result_file_bytes = ?24,"
        " owner = NULL, payload = CASE WHEN ?18 > 0 THEN payload END"
        " WHERE id = ?1 AND owner = ?22 AND status IN ('queued', 'running')",
    [STATEMENT_RETRY_EXECUTION] =
        "UPDATE executions SET status = 'queued', attempt = ?3, failures = ?4, losses = ?5,"
        " error = ?6, due_at = ?7, started_at = 0, owner = NULL"
        " WHERE id = ?1 AND owner = ?2 AND status IN ('queued', 'running')",
    [STATEMENT_CANDIDATES] = "SELECT id, length(payload) FROM executions WHERE function = ?1 AND "
                             "status = 'queued' AND owner IS NULL AND due_at = 0"
                             " ORDER BY priority, id LIMIT ?2",
    [STATEMENT_INTERRUPTED_CANDIDATES] =
        "SELECT id, length(payload) FROM executions WHERE status = 'queued' AND owner IS NULL AND "
        "due_at = 0 AND priority < 0"
        " ORDER BY id LIMIT ?1",
    [STATEMENT_CLAIM] =
        "UPDATE executions SET owner = ?1 WHERE id = ?2 RETURNING " RECORD_HEAD ", payload,"
        " EXISTS (SELECT 1 FROM callbacks WHERE execution_id = executions.id)",
    [STATEMENT_PROMOTE_DUE] = "UPDATE executions SET due_at = 0 WHERE due_at > 0 AND due_at <= ?1",
    [STATEMENT_NEXT_DUE] = "SELECT min(due_at) FROM executions WHERE due_at > 0",
    [STATEMENT_COUNT_FREE] =
        "SELECT (SELECT count(*) FROM (SELECT 1 FROM executions WHERE status = 'queued' AND owner"
        " IS NULL AND due_at = 0 LIMIT ?1)) + (SELECT count(*) FROM (SELECT 1 FROM executions"
        " WHERE status = 'queued' AND owner IS NULL AND due_at > 0 LIMIT ?1))",
    [STATEMENT_BACKLOG] =
        "WITH RECURSIVE f (name) AS (SELECT min(function) FROM executions WHERE status = 'queued' "
        "AND owner IS NULL AND due_at = 0 AND function > ?1"
        " UNION ALL SELECT (SELECT min(function) FROM executions WHERE status = 'queued' AND owner "
        "IS NULL AND due_at = 0 AND function > f.name)"
        " FROM f WHERE f.name IS NOT NULL) SELECT name, EXISTS (SELECT 1 FROM functions WHERE"
        " functions.name = f.name) FROM f WHERE name IS NOT NULL LIMIT ?2",
    [STATEMENT_CANCEL_WAITING] =
        "UPDATE executions SET status = 'cancelled', error = ?3, finished_at = ?2, due_at = 0,"
        " payload = NULL WHERE function = ?1 AND status = 'queued' AND owner IS NULL",
    [STATEMENT_REDRIVE_ONE] = REDRIVE("AND id = ?2", "?3"),
    [STATEMENT_REDRIVE_FUNCTION] = REDRIVE("AND function = ?2", "?3"),
    [STATEMENT_REDRIVE_ALL] = REDRIVE("", "?2"),
    [STATEMENT_PURGE_ONE] = "DELETE FROM executions WHERE id IN (SELECT id FROM executions WHERE "
                            "dead_at > 0 AND id = ?1 ORDER BY id LIMIT ?2)",
    [STATEMENT_PURGE_FUNCTION] = "DELETE FROM executions WHERE id IN (SELECT id FROM executions "
                                 "WHERE dead_at > 0 AND function = ?1 ORDER BY id LIMIT ?2)",
    [STATEMENT_PURGE_ALL] = "DELETE FROM executions WHERE id IN (SELECT id FROM executions WHERE "
                            "dead_at > 0 ORDER BY id LIMIT ?1)",
    [STATEMENT_GET_PAYLOAD] =
        "SELECT payload FROM executions WHERE id = ?1 AND payload IS NOT NULL",
    [STATEMENT_LIST_DEAD] = LIST_EXECUTIONS("AND dead_at > 0"),
    [STATEMENT_LIST_DEAD_OF] = LIST_EXECUTIONS("AND dead_at > 0 AND function = ?3"),
    [STATEMENT_EXPIRE] =
        "DELETE FROM executions WHERE id IN (SELECT id FROM executions WHERE id < ?1 AND status"
        " NOT IN ('queued', 'running') AND dead_at = 0 ORDER BY id LIMIT ?2)",
    [STATEMENT_EXPIRE_DEAD] = "DELETE FROM executions WHERE id IN (SELECT id FROM executions WHERE "
                              "dead_at > 0 AND dead_at < ?1 ORDER BY id LIMIT ?2)",
    [STATEMENT_EXPIRE_KEYS] = "DELETE FROM idempotency_keys WHERE (function, key) IN (SELECT "
                              "function, key FROM idempotency_keys WHERE ends_at < ?1 LIMIT ?2)",
    [STATEMENT_PUT_CALLBACK] = "INSERT INTO callbacks (execution_id, url, host, secret)"
                               " VALUES (?1, ?2, ?3, ?4) ON CONFLICT (execution_id) DO NOTHING",
    [STATEMENT_GET_CALLBACK] = "SELECT url, state, attempts, status, error, due_at, delivered_at"
                               " FROM callbacks WHERE execution_id = ?1",
    [STATEMENT_DUE_CALLBACKS] =
        "SELECT execution_id FROM (SELECT execution_id, due_at, row_number() OVER (PARTITION BY"
        " host ORDER BY due_at) AS n FROM (SELECT execution_id, host, due_at FROM callbacks WHERE"
        " state = 'pending' AND due_at <= ?1 AND instr(?2, ' ' || host || ' ') = 0"
        " ORDER BY due_at LIMIT " CALLBACK_CANDIDATES ")) WHERE n <= ?3 ORDER BY due_at LIMIT ?4",
    [STATEMENT_CLAIM_CALLBACK] =
        "UPDATE callbacks SET attempts = attempts + 1, fence = fence + 1, due_at = ?2"
        " WHERE execution_id = ?1 RETURNING execution_id, url, host, secret, attempts, fence,"
        " since",
    [STATEMENT_NEXT_CALLBACK] = "SELECT min(due_at) FROM callbacks WHERE state = 'pending'",
    [STATEMENT_FINISH_CALLBACK] =
        "UPDATE callbacks SET state = ?3, due_at = ?4, delivered_at = ?5, status = ?6, error = ?7"
        " WHERE execution_id = ?1 AND fence = ?2 AND state = 'pending'",
    [STATEMENT_REDRIVE_CALLBACK] =
        "UPDATE callbacks SET state = 'pending', attempts = 0, fence = fence + 1, due_at = ?2,"
        " since = ?2, delivered_at = 0, status = 0, error = NULL"
        " WHERE execution_id = ?1 AND state <> 'waiting'",
    [STATEMENT_PUT_EXECUTION] =
        "INSERT OR REPLACE INTO executions (" RECORD_HEAD ", " RECORD_BODY
        ", result_file, result_file_bytes)"
        " VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, "
        "?19, ?20, ?21, ?22, ?23)",
    [STATEMENT_GET_EXECUTION] = "SELECT " RECORD_HEAD ", " RECORD_BODY
                                ", result_file, result_file_bytes FROM executions WHERE id = ?1",
};
