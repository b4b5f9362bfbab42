/* The PostgreSQL engine's statements, prepared once a connection. */
#include "store/postgres.h"
#include "store/record.h"

#define LIST_EXECUTIONS(condition)                                                                 \
    "SELECT " RECORD_HEAD " FROM executions WHERE id < $1 " condition " ORDER BY id DESC LIMIT $2"
/* Versions that go: those of a name below a number, made before a time: other controllers may have calls of younger ones. */
#define GOING "name = $1 AND version < $2 AND updated_at < $3"

#define REDRIVE(condition, limit)                                                                  \
    "UPDATE executions SET status = 'queued', attempt = attempt + 1, failures = 0, losses = 0,"    \
    " dead_at = 0, aged_from = $1, due_at = 0, started_at = 0, finished_at = 0, error = NULL,"     \
    " result = NULL, logs = NULL, worker = NULL, owner = NULL WHERE id IN (SELECT id FROM"         \
    " executions WHERE dead_at > 0 " condition " ORDER BY id LIMIT " limit                         \
    " FOR UPDATE SKIP LOCKED)"

#define LOAD_FUNCTIONS(condition)                                                                  \
    "SELECT state, spec, build_output, created_at, updated_at FROM functions AS f "                \
    "WHERE " condition " (version = (SELECT max(version) FROM functions WHERE name = f.name) OR"   \
    " version = (SELECT max(version) FROM functions WHERE name = f.name AND state = 'ready'))"     \
    " ORDER BY name, version"

/* Candidates: the longest due of hosts that are not busy, so many that one host's cannot hide the others'. */
#define CALLBACK_CANDIDATES "1024"

const char *const postgres_statement_texts[POSTGRES_STATEMENT_COUNT] = {
    [POSTGRES_BEGIN] = "BEGIN",
    [POSTGRES_COMMIT] = "COMMIT",
    [POSTGRES_ROLLBACK] = "ROLLBACK",
    [POSTGRES_LOCK_FUNCTIONS] = "SELECT pg_advisory_xact_lock(" POSTGRES_FUNCTIONS_LOCK ")",
    [POSTGRES_PUT_FUNCTION] =
        "INSERT INTO functions (name, version, state, spec, code_sha256, artifact_sha256,"
        " build_output, created_at, updated_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
    [POSTGRES_UPDATE_FUNCTION] =
        "UPDATE functions SET state = $3, spec = $4, code_sha256 = $5, artifact_sha256 = $6,"
        " build_output = $7, created_at = $8, updated_at = $9 WHERE name = $1 AND version = $2"
        " AND (state = 'building' OR updated_at = $9)", /* or it is this very record */
    [POSTGRES_ANY_BUILD] = "SELECT 1 FROM functions WHERE state = 'building' LIMIT 1",
    [POSTGRES_CLAIM_BUILDS] =
        "UPDATE functions SET builder = $1 WHERE EXISTS (SELECT 1 FROM controllers WHERE id = $1)"
        " AND (name, version) IN (SELECT name, version FROM functions AS f WHERE state ="
        " 'building' AND (builder IS NULL OR builder = $1 OR NOT EXISTS (SELECT 1 FROM controllers"
        " AS c WHERE c.id = f.builder)) AND NOT EXISTS (SELECT 1 FROM functions AS n WHERE n.name ="
        " f.name AND n.version > f.version) ORDER BY name LIMIT $2) RETURNING name",
    [POSTGRES_SAME_FUNCTION] = "SELECT 1 FROM functions WHERE name = $1 AND version = $2 AND"
                               " updated_at = $3",
    [POSTGRES_ADD_LAST_VERSION] =
        "INSERT INTO last_versions AS v VALUES ($1, $2) ON CONFLICT (name)"
        " DO UPDATE SET version = excluded.version WHERE v.version < excluded.version",
    [POSTGRES_CLAIM_SETTING] = "INSERT INTO settings (name, value) VALUES ($1, $2)"
                               " ON CONFLICT (name) DO NOTHING",
    [POSTGRES_NOTIFY] = "SELECT pg_notify($1, $2)",
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
    [POSTGRES_LOAD_FUNCTIONS] = LOAD_FUNCTIONS(""),
    [POSTGRES_LOAD_FUNCTION] = LOAD_FUNCTIONS("name = $1 AND"),
    [POSTGRES_LOAD_LAST_VERSIONS] = "SELECT name, version FROM last_versions ORDER BY name",
    [POSTGRES_LOAD_LAST_VERSION] = "SELECT name, version FROM last_versions WHERE name = $1",
    [POSTGRES_PUT_CODE] = "INSERT INTO code (sha256, bytes) VALUES ($1, $2)"
                          " ON CONFLICT (sha256) DO UPDATE SET put_at = now()",
    [POSTGRES_GET_CODE] = "SELECT bytes FROM code WHERE sha256 = $1",
    [POSTGRES_LIST_EXECUTIONS] = LIST_EXECUTIONS(""),
    [POSTGRES_LIST_BY_FUNCTION] = LIST_EXECUTIONS("AND function = $3"),
    [POSTGRES_LIST_BY_STATUS] = LIST_EXECUTIONS("AND status = $3"),
    [POSTGRES_LIST_BY_BOTH] = LIST_EXECUTIONS("AND function = $3 AND status = $4"),
    [POSTGRES_NTH_NEWEST] = "SELECT id FROM executions ORDER BY id DESC LIMIT 1 OFFSET $1",
    [POSTGRES_PUT_SETTING] = "INSERT INTO settings (name, value) VALUES ($1, $2)"
                             " ON CONFLICT (name) DO UPDATE SET value = excluded.value",
    [POSTGRES_DELETE_SETTING] = "DELETE FROM settings WHERE name = $1",
    [POSTGRES_GET_SETTING] = "SELECT value FROM settings WHERE name = $1",
    [POSTGRES_LIST_SETTINGS] =
        "SELECT name, value FROM settings WHERE left(name, length($1)) = $1 ORDER BY name",
    [POSTGRES_JOIN] =
        "INSERT INTO controllers VALUES ($1, now() + $2::bigint * interval '1 millisecond')"
        " ON CONFLICT (id) DO NOTHING",
    [POSTGRES_LEAVE] = "DELETE FROM controllers WHERE id = $1",
    [POSTGRES_RENEW] =
        "UPDATE controllers SET alive_until = now() + $2::bigint * interval '1 millisecond'"
        " WHERE id = $1 RETURNING id",
    [POSTGRES_BURY] = "DELETE FROM controllers WHERE alive_until < now()",
    [POSTGRES_RELEASE_LOST] = "UPDATE executions SET owner = NULL, attempt = attempt + (status = "
                              "'running')::int, losses = losses + (status = 'running')::int,"
                              " priority = CASE WHEN status = 'running' AND priority >= 0 THEN "
                              "priority - " RECORD_INTERRUPTED " ELSE priority END,"
                              " status = 'queued', started_at = 0 WHERE id IN (SELECT id FROM "
                              "executions AS e WHERE owner IS NOT NULL"
                              " AND NOT EXISTS (SELECT 1 FROM controllers AS c WHERE c.id = "
                              "e.owner) FOR UPDATE SKIP LOCKED)",
    [POSTGRES_PUT_KEY] =
        "INSERT INTO idempotency_keys AS k (function, key, execution_id, ends_at)"
        " VALUES ($1, $2, $3, $4) ON CONFLICT (function, key) DO UPDATE SET"
        " execution_id = CASE WHEN k.ends_at <= $5 THEN excluded.execution_id ELSE k.execution_id "
        "END,"
        " ends_at = CASE WHEN k.ends_at <= $5 THEN excluded.ends_at ELSE k.ends_at END"
        " RETURNING execution_id",
    [POSTGRES_ACCEPT_EXECUTION] =
        "INSERT INTO executions (" RECORD_HEAD ", payload, owner, result_base64)"
        " VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, "
        "$19, $20, false)"
        " ON CONFLICT (id) DO NOTHING",
    /* The same, POSTGRES_GATHERED_MAX at once. */
    [POSTGRES_ACCEPT_SEVERAL] =
        "INSERT INTO executions (" RECORD_HEAD ", payload, owner, result_base64) VALUES"
        " ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, "
        "$20, false),"
        " ($21, $22, $23, $24, $25, $26, $27, $28, $29, $30, $31, $32, $33, $34, $35, $36, $37, "
        "$38, $39, $40, false),"
        " ($41, $42, $43, $44, $45, $46, $47, $48, $49, $50, $51, $52, $53, $54, $55, $56, $57, "
        "$58, $59, $60, false),"
        " ($61, $62, $63, $64, $65, $66, $67, $68, $69, $70, $71, $72, $73, $74, $75, $76, $77, "
        "$78, $79, $80, false),"
        " ($81, $82, $83, $84, $85, $86, $87, $88, $89, $90, $91, $92, $93, $94, $95, $96, $97, "
        "$98, $99, $100, false),"
        " ($101, $102, $103, $104, $105, $106, $107, $108, $109, $110, $111, $112, $113, $114, "
        "$115, $116, $117, $118, $119, $120, false),"
        " ($121, $122, $123, $124, $125, $126, $127, $128, $129, $130, $131, $132, $133, $134, "
        "$135, $136, $137, $138, $139, $140, false),"
        " ($141, $142, $143, $144, $145, $146, $147, $148, $149, $150, $151, $152, $153, $154, "
        "$155, $156, $157, $158, $159, $160, false)"
        " ON CONFLICT (id) DO NOTHING",
    [POSTGRES_WITHDRAW_EXECUTION] = "DELETE FROM executions WHERE id = $1 AND status = 'queued' "
                                    "AND started_at = 0 AND attempt = 1",
    [POSTGRES_WITHDRAW_KEY] =
        "DELETE FROM idempotency_keys WHERE function = $1 AND key = $2 AND execution_id = $3",
    [POSTGRES_START_EXECUTION] =
        "UPDATE executions SET status = 'running', attempt = $3, losses = $4, started_at = $5,"
        " priority = CASE WHEN priority < 0 THEN priority + " RECORD_INTERRUPTED
        " ELSE priority END"
        " WHERE id = $1 AND owner = $2 AND status IN ('queued', 'running')",
    [POSTGRES_FINISH_EXECUTION] =
        "UPDATE executions SET"
        " function = $2, version = $3, status = $4, async = $5, cold_start = $6,"
        " worker = $7, attempt = $8, created_at = $9, started_at = $10, finished_at = $11,"
        " error = $12, metrics = $13, priority = $14, failures = $15, losses = $16,"
        " aged_from = $17, dead_at = $18::bigint, result_base64 = $19, result = $20, logs = $21,"
        " owner = NULL, payload = CASE WHEN $18::bigint > 0 THEN payload END"
        " WHERE id = $1 AND owner = $22 AND status IN ('queued', 'running')",
    [POSTGRES_RETRY_EXECUTION] =
        "UPDATE executions SET status = 'queued', attempt = $3, failures = $4, losses = $5,"
        " error = $6, due_at = $7, started_at = 0, owner = NULL"
        " WHERE id = $1 AND owner = $2 AND status IN ('queued', 'running')",
    [POSTGRES_CANDIDATES] = "SELECT id, octet_length(payload)::bigint FROM executions WHERE "
                            "function = $1 AND status = 'queued' AND owner IS NULL AND due_at = 0"
                            " ORDER BY priority, id LIMIT $2 FOR UPDATE SKIP LOCKED",
    [POSTGRES_INTERRUPTED_CANDIDATES] =
        "SELECT id, octet_length(payload)::bigint FROM executions WHERE status = 'queued' AND "
        "owner IS NULL AND due_at = 0 AND priority < 0"
        " ORDER BY id LIMIT $1 FOR UPDATE SKIP LOCKED",
    [POSTGRES_CLAIM] =
        "UPDATE executions SET owner = $1 WHERE id = ANY($2::text[]) RETURNING " RECORD_HEAD
        ", payload, EXISTS (SELECT 1 FROM callbacks WHERE execution_id = executions.id)",
    [POSTGRES_UNCLAIM] = "UPDATE executions SET owner = NULL WHERE id = ANY($2::text[]) AND"
                         " owner = $1 AND status = 'queued'",
    [POSTGRES_PROMOTE_DUE] =
        "UPDATE executions SET due_at = 0 WHERE id IN (SELECT id FROM executions WHERE due_at > 0"
        " AND due_at <= $1 FOR UPDATE SKIP LOCKED)",
    [POSTGRES_NEXT_DUE] = "SELECT min(due_at) FROM executions WHERE due_at > 0",
    [POSTGRES_COUNT_FREE] =
        "SELECT (SELECT count(*) FROM (SELECT 1 FROM executions WHERE status = 'queued' AND owner"
        " IS NULL AND due_at = 0 LIMIT $1) AS due) + (SELECT count(*) FROM (SELECT 1 FROM "
        "executions"
        " WHERE status = 'queued' AND owner IS NULL AND due_at > 0 LIMIT $1) AS later)",
    [POSTGRES_BACKLOG] =
        "WITH RECURSIVE f (name) AS ((SELECT function FROM executions WHERE status = 'queued' AND "
        "owner IS NULL AND due_at = 0 AND function > $1"
        " ORDER BY function LIMIT 1) UNION ALL SELECT (SELECT function FROM executions WHERE "
        "status = 'queued' AND owner IS NULL AND due_at = 0"
        " AND function > f.name ORDER BY function LIMIT 1) FROM f WHERE f.name IS NOT NULL)"
        " SELECT name, EXISTS (SELECT 1 FROM functions WHERE functions.name = f.name) FROM f"
        " WHERE name IS NOT NULL LIMIT $2",
    [POSTGRES_CANCEL_WAITING] =
        "UPDATE executions SET status = 'cancelled', error = $3, finished_at = $2, due_at = 0,"
        " payload = NULL WHERE function = $1 AND status = 'queued' AND owner IS NULL",
    [POSTGRES_REDRIVE_ONE] = REDRIVE("AND id = $2", "$3"),
    [POSTGRES_REDRIVE_FUNCTION] = REDRIVE("AND function = $2", "$3"),
    [POSTGRES_REDRIVE_ALL] = REDRIVE("", "$2"),
    [POSTGRES_PURGE_ONE] = "DELETE FROM executions WHERE id IN (SELECT id FROM executions WHERE "
                           "dead_at > 0 AND id = $1 ORDER BY id LIMIT $2 FOR UPDATE SKIP LOCKED)",
    [POSTGRES_PURGE_FUNCTION] =
        "DELETE FROM executions WHERE id IN (SELECT id FROM executions WHERE dead_at > 0 AND "
        "function = $1 ORDER BY id LIMIT $2 FOR UPDATE SKIP LOCKED)",
    [POSTGRES_PURGE_ALL] = "DELETE FROM executions WHERE id IN (SELECT id FROM executions WHERE "
                           "dead_at > 0 ORDER BY id LIMIT $1 FOR UPDATE SKIP LOCKED)",
    [POSTGRES_GET_PAYLOAD] = "SELECT payload FROM executions WHERE id = $1 AND payload IS NOT NULL",
    [POSTGRES_LIST_DEAD] = LIST_EXECUTIONS("AND dead_at > 0"),
    [POSTGRES_LIST_DEAD_OF] = LIST_EXECUTIONS("AND dead_at > 0 AND function = $3"),
    [POSTGRES_EXPIRE] =
        "DELETE FROM executions WHERE id IN (SELECT id FROM executions WHERE id < $1 AND status"
        " NOT IN ('queued', 'running') AND dead_at = 0 ORDER BY id LIMIT $2 FOR UPDATE SKIP "
        "LOCKED)",
    [POSTGRES_EXPIRE_DEAD] =
        "DELETE FROM executions WHERE id IN (SELECT id FROM executions WHERE dead_at > 0 AND "
        "dead_at < $1 ORDER BY id LIMIT $2 FOR UPDATE SKIP LOCKED)",
    [POSTGRES_EXPIRE_KEYS] =
        "DELETE FROM idempotency_keys WHERE (function, key) IN (SELECT function, key FROM "
        "idempotency_keys WHERE ends_at < $1 LIMIT $2 FOR UPDATE SKIP LOCKED)",
    [POSTGRES_PUT_CALLBACK] = "INSERT INTO callbacks (execution_id, url, host, secret)"
                              " VALUES ($1, $2, $3, $4) ON CONFLICT (execution_id) DO NOTHING",
    [POSTGRES_GET_CALLBACK] = "SELECT url, state, attempts, status, error, due_at, delivered_at"
                              " FROM callbacks WHERE execution_id = $1",
    [POSTGRES_CLAIM_CALLBACKS] =
        "UPDATE callbacks SET attempts = attempts + 1, fence = fence + 1, due_at = $5"
        " WHERE execution_id IN (SELECT execution_id FROM callbacks WHERE state = 'pending' AND"
        " due_at <= $1 AND execution_id = ANY (ARRAY("
        "SELECT execution_id FROM (SELECT execution_id, due_at, row_number() OVER (PARTITION BY"
        " host ORDER BY due_at) AS n FROM (SELECT execution_id, host, due_at FROM callbacks WHERE"
        " state = 'pending' AND due_at <= $1 AND strpos($2, ' ' || host || ' ') = 0"
        " ORDER BY due_at LIMIT " CALLBACK_CANDIDATES ") AS due) AS ranked WHERE n <= $3"
        " ORDER BY due_at LIMIT $4)) FOR UPDATE SKIP LOCKED) RETURNING execution_id, url, host, "
        "secret, attempts, fence,"
        " since",
    [POSTGRES_NEXT_CALLBACK] = "SELECT min(due_at) FROM callbacks WHERE state = 'pending'",
    [POSTGRES_FINISH_CALLBACK] =
        "UPDATE callbacks SET state = $3, due_at = $4, delivered_at = $5, status = $6, error = $7"
        " WHERE execution_id = $1 AND fence = $2 AND state = 'pending'",
    [POSTGRES_REDRIVE_CALLBACK] =
        "UPDATE callbacks SET state = 'pending', attempts = 0, fence = fence + 1, due_at = $2,"
        " since = $2, delivered_at = 0, status = 0, error = NULL"
        " WHERE execution_id = $1 AND state <> 'waiting'",
    [POSTGRES_PUT_EXECUTION] =
        "INSERT INTO executions (" RECORD_HEAD ", " RECORD_BODY ")"
        " VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, "
        "$19, $20, $21)"
        " ON CONFLICT (id) DO UPDATE SET"
        " function = excluded.function, version = excluded.version,"
        " status = excluded.status, async = excluded.async,"
        " cold_start = excluded.cold_start, worker = excluded.worker,"
        " attempt = excluded.attempt, created_at = excluded.created_at,"
        " started_at = excluded.started_at, finished_at = excluded.finished_at,"
        " error = excluded.error, metrics = excluded.metrics,"
        " priority = excluded.priority, failures = excluded.failures,"
        " losses = excluded.losses, aged_from = excluded.aged_from,"
        " dead_at = excluded.dead_at, result_base64 = excluded.result_base64,"
        " result = excluded.result, logs = excluded.logs",
    [POSTGRES_GET_EXECUTION] =
        "SELECT " RECORD_HEAD ", " RECORD_BODY " FROM executions WHERE id = $1",
};
