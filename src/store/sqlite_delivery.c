/* Delivery of asynchronous executions in SQLite: see store.h. One controller at a time has the file open, so a lease
 * ends when the next one joins. */
#include "base/cleanup.h"
#include "base/loop.h"
#include "store/record.h"
#include "store/sqlite.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A statement of one text (or none) that gives no rows. */
static int run_with(struct sqlite_store *store, enum sqlite_statement which, const char *text,
                    const char *what, struct error *err)
{
    auto_statement *statement = sqlite_statement(store, which, err);
    if (!statement)
        return -1;
    if (text)
        sqlite_bind_string(statement, 1, text);
    return sqlite_run(store, statement, what, err);
}

/* ---- leases ---- */

int sqlite_join(void *db, const char *owner, int64_t lease_ms, struct error *err)
{
    static const char what[] = "joining";
    (void)lease_ms;
    if (run_with(db, STATEMENT_JOIN, NULL, what, err) < 0 ||
        run_with(db, STATEMENT_RENEW, owner, what, err) < 0)
        return -1;
    return run_with(db, STATEMENT_RELEASE_LOST, NULL, what, err);
}

int sqlite_leave(void *db, const char *owner, struct error *err)
{
    static const char what[] = "leaving";
    if (run_with(db, STATEMENT_LEAVE, owner, what, err) < 0)
        return -1;
    return run_with(db, STATEMENT_RELEASE_LOST, NULL, what, err);
}

int sqlite_renew(void *db, const char *owner, int64_t lease_ms, bool *ret_held, struct error *err)
{
    (void)db;
    (void)owner;
    (void)lease_ms;
    (void)err;
    *ret_held = true;
    return 0;
}

/* ---- acceptance ---- */

/* The id that the key stands for: this execution's, or an earlier one's. */
static int take_key(struct sqlite_store *store, const struct execution *execution,
                    const struct store_acceptance *acceptance, char *ret_id, struct error *err)
{
    auto_statement *statement = sqlite_statement(store, STATEMENT_PUT_KEY, err);
    if (!statement)
        return -1;
    sqlite_bind_string(statement, 1, execution->function);
    sqlite_bind_string(statement, 2, acceptance->key);
    sqlite_bind_string(statement, 3, execution->id);
    sqlite3_bind_int64(statement, 4, (sqlite3_int64)acceptance->key_until_ns);
    sqlite3_bind_int64(statement, 5, (sqlite3_int64)acceptance->now_ns);
    int row = sqlite_next(store, statement, "writing an idempotency key", err);
    if (row <= 0)
        return row;
    snprintf(ret_id, TIME_ID_LEN + 1, "%s", (const char *)sqlite3_column_text(statement, 0));
    return 0;
}

int sqlite_accept_execution(void *db, const struct execution *execution, const char *payload,
                            size_t payload_len, const struct store_acceptance *acceptance,
                            char *ret_id, struct error *err)
{
    with_cleanup(buffer_deinit) struct buffer error = BUFFER_INIT(RECORD_DETAIL_MAX);
    with_cleanup(buffer_deinit) struct buffer metrics = BUFFER_INIT(RECORD_DETAIL_MAX);
    if (acceptance->key && take_key(db, execution, acceptance, ret_id, err) < 0)
        return -1;
    if (strcmp(ret_id, execution->id) != 0)
        return 0;
    auto_statement *statement = sqlite_statement(db, STATEMENT_ACCEPT_EXECUTION, err);
    if (!statement || sqlite_bind_head(statement, execution, &error, &metrics, err) < 0)
        return -1;
    sqlite_bind_bytes(statement, RECORD_HEAD_END + 1, payload, payload_len);
    sqlite_bind_string(statement, RECORD_HEAD_END + 2, acceptance->owner);
    if (sqlite_run(db, statement, "writing an execution", err) < 0)
        return -1;
    return acceptance->callback_url ? sqlite_put_callback(db, execution->id, acceptance, err) : 0;
}

int sqlite_withdraw_execution(void *db, const char *id, const char *function, const char *key,
                              struct error *err)
{
    if (run_with(db, STATEMENT_WITHDRAW_EXECUTION, id, "removing an execution", err) < 0)
        return -1;
    auto_statement *statement = key ? sqlite_statement(db, STATEMENT_WITHDRAW_KEY, err) : NULL;
    if (!statement)
        return key ? -1 : 0;
    sqlite_bind_string(statement, 1, function);
    sqlite_bind_string(statement, 2, key);
    sqlite_bind_string(statement, 3, id);
    return sqlite_run(db, statement, "removing an idempotency key", err);
}

/* ---- attempts ---- */

int sqlite_start_execution(void *db, const char *owner, const char *id, int64_t attempt,
                           int64_t losses, uint64_t started_at_ns, struct error *err)
{
    auto_statement *statement = sqlite_statement(db, STATEMENT_START_EXECUTION, err);
    if (!statement)
        return -1;
    sqlite_bind_string(statement, 1, id);
    sqlite_bind_string(statement, 2, owner);
    sqlite3_bind_int64(statement, 3, attempt);
    sqlite3_bind_int64(statement, 4, losses);
    sqlite3_bind_int64(statement, 5, (sqlite3_int64)started_at_ns);
    return sqlite_run(db, statement, "writing an execution", err);
}

int sqlite_finish_execution(void *db, const char *owner, const struct execution *execution,
                            struct error *err)
{
    with_cleanup(buffer_deinit) struct buffer error = BUFFER_INIT(RECORD_DETAIL_MAX);
    with_cleanup(buffer_deinit) struct buffer metrics = BUFFER_INIT(RECORD_DETAIL_MAX);
    char file[SQLITE_LARGE_NAME_SIZE] = "";
    auto_statement *statement = sqlite_statement(db, STATEMENT_FINISH_EXECUTION, err);
    if (!statement || sqlite_bind_head(statement, execution, &error, &metrics, err) < 0 ||
        sqlite_bind_body(db, statement, execution, RECORD_BODY_END + 2, file, err) < 0)
        return -1;
    sqlite_bind_string(statement, RECORD_BODY_END + 1, owner);
    if (sqlite_run(db, statement, "writing an execution", err) < 0)
        return -1;
    struct sqlite_store *store = db;
    if (file[0] && sqlite3_changes(store->db) == 0)
        sqlite_large_let_go(&store->large, file);
    return 0;
}

int sqlite_retry_execution(void *db, const char *owner, const struct execution *execution,
                           uint64_t due_at_ns, struct error *err)
{
    with_cleanup(buffer_deinit) struct buffer error = BUFFER_INIT(RECORD_DETAIL_MAX);
    with_cleanup(buffer_deinit) struct buffer metrics = BUFFER_INIT(RECORD_DETAIL_MAX);
    auto_statement *statement = sqlite_statement(db, STATEMENT_RETRY_EXECUTION, err);
    if (!statement || record_write_details(execution, &error, &metrics, err) < 0)
        return -1;
    sqlite_bind_string(statement, 1, execution->id);
    sqlite_bind_string(statement, 2, owner);
    sqlite3_bind_int64(statement, 3, execution->attempt);
    sqlite3_bind_int64(statement, 4, execution->delivery.failures);
    sqlite3_bind_int64(statement, 5, execution->delivery.losses);
    sqlite_bind_string(statement, 6, error.data);
    sqlite3_bind_int64(statement, 7, (sqlite3_int64)due_at_ns);
    return sqlite_run(db, statement, "writing an execution", err);
}

/* ---- claims ---- */

static int claim_one(struct sqlite_store *store, const char *owner, const char *id,
                     struct store_claimed *item, struct error *err)
{
    auto_statement *statement = sqlite_statement(store, STATEMENT_CLAIM, err);
    if (!statement)
        return -1;
    sqlite_bind_string(statement, 1, owner);
    sqlite_bind_string(statement, 2, id);
    if (sqlite_next(store, statement, "claiming an execution", err) <= 0)
        return -1;
    if (sqlite_read_head(statement, &item->execution, err) < 0)
        return error_wrap(err, "reading execution %s", id);
    item->execution.delivery.has_callback = sqlite3_column_int(statement, RECORD_HEAD_END + 1) != 0;
    return sqlite_column_copy(statement, RECORD_HEAD_END, &item->payload, &item->payload_len, err);
}

/* The ids first: a statement must not change what it goes through. */
static int find_candidates(struct sqlite_store *store, const char *function, int limit,
                           size_t max_bytes, char (*ids)[TIME_ID_LEN + 1], size_t *ret_count,
                           struct error *err)
{
    auto_statement *statement = sqlite_statement(
        store, function ? STATEMENT_CANDIDATES : STATEMENT_INTERRUPTED_CANDIDATES, err);
    size_t bytes = 0, count = 0;
    int row;
    if (!statement)
        return -1;
    if (function)
        sqlite_bind_string(statement, 1, function);
    sqlite3_bind_int(statement, function ? 2 : 1, limit);
    while ((row = sqlite_next(store, statement, "claiming executions", err)) > 0) {
        bytes += (size_t)sqlite3_column_int64(statement, 1);
        if (count > 0 && bytes > max_bytes)
            break;
        snprintf(ids[count++], TIME_ID_LEN + 1, "%s",
                 (const char *)sqlite3_column_text(statement, 0));
    }
    *ret_count = count;
    return row < 0 ? -1 : row;
}

int sqlite_claim_executions(void *db, const char *owner, const char *function, int limit,
                            size_t max_bytes, struct store_engine_claim *claim, struct error *err)
{
    autofree char(*ids)[TIME_ID_LEN + 1] = calloc((size_t)limit, sizeof(*ids));
    size_t count = 0;
    claim->items = calloc((size_t)limit, sizeof(*claim->items));
    if (!ids || !claim->items)
        return error_set(err, ERROR_INTERNAL, "out of memory");
    int cut = find_candidates(db, function, limit, max_bytes, ids, &count, err);
    if (cut < 0)
        return -1;
    claim->more = cut > 0 || count == (size_t)limit;
    while (claim->count < count) {
        struct store_claimed *item = &claim->items[claim->count];
        execution_init(&item->execution);
        if (claim_one(db, owner, ids[claim->count++], item, err) < 0)
            return -1;
    }
    return 0;
}

/* ---- what waits ---- */

int sqlite_cancel_waiting(void *db, const char *function, struct error *err)
{
    auto_statement *statement = sqlite_statement(db, STATEMENT_CANCEL_WAITING, err);
    if (!statement)
        return -1;
    sqlite_bind_string(statement, 1, function);
    sqlite3_bind_int64(statement, 2, (sqlite3_int64)clock_realtime_ns());
    sqlite_bind_string(statement, 3, RECORD_DELETED_ERROR);
    return sqlite_run(db, statement, "cancelling executions", err);
}

static int promote_due(struct sqlite_store *store, uint64_t now_ns, struct error *err)
{
    auto_statement *statement = sqlite_statement(store, STATEMENT_PROMOTE_DUE, err);
    if (!statement)
        return -1;
    sqlite3_bind_int64(statement, 1, (sqlite3_int64)now_ns);
    return sqlite_run(store, statement, "looking for executions that are due", err);
}

static int read_next_due(struct sqlite_store *store, uint64_t *ret_ns, struct error *err)
{
    auto_statement *statement = sqlite_statement(store, STATEMENT_NEXT_DUE, err);
    if (!statement || sqlite_next(store, statement, "looking for what is due next", err) < 0)
        return -1;
    *ret_ns = (uint64_t)sqlite3_column_int64(statement, 0);
    return 0;
}

/* Functions with something free; `missing`: only those that are no more. */
static int list_waiting(struct sqlite_store *store, const char *after,
                        struct store_engine_backlog *backlog, struct store_engine_backlog *missing,
                        struct error *err)
{
    auto_statement *statement = sqlite_statement(store, STATEMENT_BACKLOG, err);
    int row;
    size_t rows = 0;
    if (!statement)
        return -1;
    sqlite_bind_string(statement, 1, after);
    sqlite3_bind_int(statement, 2, STORE_BACKLOG_MAX);
    while ((row = sqlite_next(store, statement, "looking for executions that wait", err)) > 0) {
        struct store_engine_backlog *to = sqlite3_column_int(statement, 1) ? backlog : missing;
        const char *name = (const char *)sqlite3_column_text(statement, 0);
        if (record_add_function(to, name, err) < 0 ||
            (++rows == STORE_BACKLOG_MAX && record_go_on(backlog, name, err) < 0))
            return -1;
    }
    return row;
}

int sqlite_count_free(void *db, int64_t limit, int64_t *ret, struct error *err)
{
    auto_statement *statement = sqlite_statement(db, STATEMENT_COUNT_FREE, err);
    if (!statement)
        return -1;
    sqlite3_bind_int64(statement, 1, limit);
    if (sqlite_next(db, statement, "counting executions that wait", err) < 0)
        return -1;
    *ret = sqlite3_column_int64(statement, 0);
    return 0;
}

int sqlite_backlog(void *db, uint64_t now_ns, const char *after,
                   struct store_engine_backlog *backlog, struct error *err)
{
    with_cleanup(store_backlog_clear) struct store_engine_backlog missing = {0};
    if (promote_due(db, now_ns, err) < 0 || list_waiting(db, after, backlog, &missing, err) < 0 ||
        read_next_due(db, &backlog->next_due_ns, err) < 0)
        return -1;
    for (size_t i = 0; i < missing.count; i++)
        if (sqlite_cancel_waiting(db, missing.functions[i], err) < 0)
            return -1;
    return 0;
}

/* ---- dead letters ---- */

int sqlite_redrive_dead(void *db, const char *id, const char *function, uint64_t now_ns, int limit,
                        int64_t *ret_count, struct error *err)
{
    const char *bound = id ? id : function;
    auto_statement *statement = sqlite_statement(db,
                                                 id         ? STATEMENT_REDRIVE_ONE
                                                 : function ? STATEMENT_REDRIVE_FUNCTION
                                                            : STATEMENT_REDRIVE_ALL,
                                                 err);
    if (!statement)
        return -1;
    sqlite3_bind_int64(statement, 1, (sqlite3_int64)now_ns);
    if (bound)
        sqlite_bind_string(statement, 2, bound);
    sqlite3_bind_int(statement, bound ? 3 : 2, limit);
    if (sqlite_run(db, statement, "queuing dead letters", err) < 0)
        return -1;
    *ret_count = sqlite3_changes(((struct sqlite_store *)db)->db);
    return 0;
}

int sqlite_purge_dead(void *db, const char *id, const char *function, int limit, int64_t *ret_count,
                      struct error *err)
{
    const char *bound = id ? id : function;
    auto_statement *statement = sqlite_statement(db,
                                                 id         ? STATEMENT_PURGE_ONE
                                                 : function ? STATEMENT_PURGE_FUNCTION
                                                            : STATEMENT_PURGE_ALL,
                                                 err);
    if (!statement)
        return -1;
    if (bound)
        sqlite_bind_string(statement, 1, bound);
    sqlite3_bind_int(statement, bound ? 2 : 1, limit);
    if (sqlite_run(db, statement, "removing dead letters", err) < 0)
        return -1;
    *ret_count = sqlite3_changes(((struct sqlite_store *)db)->db);
    return 0;
}

int sqlite_get_payload(void *db, const char *id, char **ret_payload, size_t *ret_len,
                       struct error *err)
{
    auto_statement *statement = sqlite_statement(db, STATEMENT_GET_PAYLOAD, err);
    if (!statement)
        return -1;
    sqlite_bind_string(statement, 1, id);
    int row = sqlite_next(db, statement, "reading a payload", err);
    if (row < 0)
        return -1;
    if (row == 0)
        return error_set(err, ERROR_NOT_FOUND, "no payload is kept of execution %s", id);
    return sqlite_column_copy(statement, 0, ret_payload, ret_len, err);
}
