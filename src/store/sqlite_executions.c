/* Executions in SQLite. Their ids begin with the time of making (UUID version 7), so order and age
 * are the primary key's. */
#include "base/cleanup.h"
#include "store/record.h"
#include "store/sqlite.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DETAIL_MAX (1024 * 1024)

enum execution_column {
    COLUMN_ID,
    COLUMN_FUNCTION,
    COLUMN_VERSION,
    COLUMN_STATUS,
    COLUMN_ASYNC,
    COLUMN_COLD_START,
    COLUMN_WORKER,
    COLUMN_ATTEMPT,
    COLUMN_CREATED_AT,
    COLUMN_STARTED_AT,
    COLUMN_FINISHED_AT,
    COLUMN_ERROR,
    COLUMN_METRICS,
    COLUMN_RESULT_BASE64,
    COLUMN_RESULT,
    COLUMN_LOGS,
    COLUMN_PAYLOAD,
    COLUMN_LOADED_PAYLOAD = COLUMN_RESULT_BASE64, /* of STATEMENT_LOAD_UNFINISHED */
};

/* ---- writing ---- */

static void bind_execution(sqlite3_stmt *statement, const struct execution *execution)
{
    /* Columns are numbered from 0, parameters from 1. */
    sqlite_bind_string(statement, COLUMN_ID + 1, execution->id);
    sqlite_bind_string(statement, COLUMN_FUNCTION + 1, execution->function);
    sqlite3_bind_int64(statement, COLUMN_VERSION + 1, execution->version);
    sqlite_bind_string(statement, COLUMN_STATUS + 1, execution_status_name(execution->status));
    sqlite3_bind_int(statement, COLUMN_ASYNC + 1, execution->async);
    sqlite3_bind_int(statement, COLUMN_COLD_START + 1, execution->cold_start);
    sqlite_bind_string(statement, COLUMN_WORKER + 1, execution->worker);
    sqlite3_bind_int64(statement, COLUMN_ATTEMPT + 1, execution->attempt);
    sqlite3_bind_int64(statement, COLUMN_CREATED_AT + 1, (sqlite3_int64)execution->created_at_ns);
    sqlite3_bind_int64(statement, COLUMN_STARTED_AT + 1, (sqlite3_int64)execution->started_at_ns);
    sqlite3_bind_int64(statement, COLUMN_FINISHED_AT + 1, (sqlite3_int64)execution->finished_at_ns);
    sqlite3_bind_int(statement, COLUMN_RESULT_BASE64 + 1, execution->result_base64);
    if (execution->result)
        sqlite3_bind_text64(statement, COLUMN_RESULT + 1, execution->result, execution->result_len,
                            SQLITE_STATIC, SQLITE_UTF8);
    if (execution->logs)
        sqlite_bind_bytes(statement, COLUMN_LOGS + 1, execution->logs, execution->logs_len);
}

int sqlite_put_execution(void *db, const struct execution *execution, const char *payload,
                         size_t payload_len, struct error *err)
{
    with_cleanup(buffer_deinit) struct buffer error = BUFFER_INIT(DETAIL_MAX);
    with_cleanup(buffer_deinit) struct buffer metrics = BUFFER_INIT(DETAIL_MAX);
    if (record_write_details(execution, &error, &metrics, err) < 0)
        return error_wrap(err, "writing execution %s", execution->id);
    auto_statement *statement = sqlite_statement(db, STATEMENT_PUT_EXECUTION, err);
    if (!statement)
        return -1;
    bind_execution(statement, execution);
    sqlite_bind_string(statement, COLUMN_ERROR + 1, error.data);
    sqlite_bind_string(statement, COLUMN_METRICS + 1, metrics.data);
    if (payload && execution->async && !execution_status_final(execution->status))
        sqlite_bind_bytes(statement, COLUMN_PAYLOAD + 1, payload, payload_len);
    return sqlite_run(db, statement, "writing an execution", err);
}

int sqlite_start_execution(void *db, const char *id, int64_t attempt, uint64_t started_at_ns,
                           struct error *err)
{
    auto_statement *statement = sqlite_statement(db, STATEMENT_START_EXECUTION, err);
    if (!statement)
        return -1;
    sqlite_bind_string(statement, 1, id);
    sqlite3_bind_int64(statement, 2, attempt);
    sqlite3_bind_int64(statement, 3, (sqlite3_int64)started_at_ns);
    return sqlite_run(db, statement, "writing an execution", err);
}

/* ---- reading ---- */

static int read_execution(sqlite3_stmt *row, struct execution *execution, struct error *err)
{
    const char *id = (const char *)sqlite3_column_text(row, COLUMN_ID);
    const char *status = (const char *)sqlite3_column_text(row, COLUMN_STATUS);
    snprintf(execution->id, sizeof(execution->id), "%s", id ? id : "");
    if (execution_status_parse(status ? status : "", &execution->status, err) < 0)
        return -1;
    execution->version = sqlite3_column_int64(row, COLUMN_VERSION);
    execution->async = sqlite3_column_int(row, COLUMN_ASYNC) != 0;
    execution->cold_start = sqlite3_column_int(row, COLUMN_COLD_START) != 0;
    execution->attempt = sqlite3_column_int64(row, COLUMN_ATTEMPT);
    execution->created_at_ns = (uint64_t)sqlite3_column_int64(row, COLUMN_CREATED_AT);
    execution->started_at_ns = (uint64_t)sqlite3_column_int64(row, COLUMN_STARTED_AT);
    execution->finished_at_ns = (uint64_t)sqlite3_column_int64(row, COLUMN_FINISHED_AT);
    if (sqlite_column_copy(row, COLUMN_FUNCTION, &execution->function, NULL, err) < 0 ||
        sqlite_column_copy(row, COLUMN_WORKER, &execution->worker, NULL, err) < 0)
        return -1;
    return record_read_details((const char *)sqlite3_column_text(row, COLUMN_ERROR),
                               (const char *)sqlite3_column_text(row, COLUMN_METRICS), execution,
                               err);
}

int sqlite_get_execution(void *db, const char *id, struct execution *execution, bool *ret_found,
                         struct error *err)
{
    auto_statement *statement = sqlite_statement(db, STATEMENT_GET_EXECUTION, err);
    if (!statement)
        return -1;
    sqlite_bind_string(statement, 1, id);
    int row = sqlite_next(db, statement, "reading an execution", err);
    *ret_found = row > 0;
    if (row <= 0)
        return row;
    execution->result_base64 = sqlite3_column_int(statement, COLUMN_RESULT_BASE64) != 0;
    if (read_execution(statement, execution, err) < 0 ||
        sqlite_column_copy(statement, COLUMN_RESULT, &execution->result, &execution->result_len,
                           err) < 0 ||
        sqlite_column_copy(statement, COLUMN_LOGS, &execution->logs, &execution->logs_len, err) < 0)
        return error_wrap(err, "reading execution %s", id);
    return 0;
}

static enum sqlite_statement list_statement(const struct execution_query *query)
{
    if (query->function)
        return query->status >= 0 ? STATEMENT_LIST_BY_BOTH : STATEMENT_LIST_BY_FUNCTION;
    return query->status >= 0 ? STATEMENT_LIST_BY_STATUS : STATEMENT_LIST_EXECUTIONS;
}

int sqlite_list_executions(void *db, const struct execution_query *query,
                           struct store_engine_execution_page *page, struct error *err)
{
    auto_statement *statement = sqlite_statement(db, list_statement(query), err);
    if (!statement)
        return -1;
    page->items = calloc((size_t)query->limit, sizeof(*page->items));
    if (!page->items)
        return error_set(err, ERROR_INTERNAL, "out of memory");
    sqlite_bind_string(statement, 1, query->cursor ? query->cursor : RECORD_ID_AFTER_ALL);
    sqlite3_bind_int(statement, 2, query->limit + 1); /* one more tells whether there are more */
    if (query->function)
        sqlite_bind_string(statement, 3, query->function);
    if (query->status >= 0)
        sqlite_bind_string(statement, 4,
                           execution_status_name((enum execution_status)query->status));
    int row;
    while ((row = sqlite_next(db, statement, "listing executions", err)) > 0) {
        page->more = page->count == (size_t)query->limit;
        if (page->more)
            return 0;
        execution_init(&page->items[page->count]);
        if (read_execution(statement, &page->items[page->count++], err) < 0)
            return -1;
    }
    return row;
}

int sqlite_load_unfinished(void *db, store_unfinished_each_fn *each, void *data, struct error *err)
{
    auto_statement *statement = sqlite_statement(db, STATEMENT_LOAD_UNFINISHED, err);
    if (!statement)
        return -1;
    int row;
    while ((row = sqlite_next(db, statement, "reading unfinished executions", err)) > 0) {
        struct execution execution;
        autofree char *payload = NULL;
        size_t payload_len = 0;
        execution_init(&execution);
        int outcome = read_execution(statement, &execution, err);
        if (outcome == 0)
            outcome =
                sqlite_column_copy(statement, COLUMN_LOADED_PAYLOAD, &payload, &payload_len, err);
        if (outcome == 0)
            each(data, &execution, &payload, payload_len);
        execution_deinit(&execution);
        if (outcome < 0)
            return -1;
    }
    return row;
}

/* ---- retention ---- */

/* Raises `bound` so that what sorts before it is also what is beyond the newest `keep_count`. */
static int raise_bound(struct sqlite_store *store, int64_t keep_count, char bound[TIME_ID_LEN + 1],
                       struct error *err)
{
    auto_statement *statement = sqlite_statement(store, STATEMENT_NTH_NEWEST, err);
    if (!statement)
        return -1;
    sqlite3_bind_int64(statement, 1, keep_count - 1);
    int row = sqlite_next(store, statement, "counting executions", err);
    if (row <= 0)
        return row;
    const char *id = (const char *)sqlite3_column_text(statement, 0);
    if (id && strcmp(id, bound) > 0)
        snprintf(bound, TIME_ID_LEN + 1, "%s", id);
    return 0;
}

int sqlite_expire_executions(void *db, uint64_t before_ns, int64_t keep_count, int limit,
                             bool *ret_more, struct error *err)
{
    struct sqlite_store *store = db;
    char bound[TIME_ID_LEN + 1];
    record_id_bound(before_ns, bound);
    if (keep_count > 0 && raise_bound(store, keep_count, bound, err) < 0)
        return -1;
    auto_statement *statement = sqlite_statement(store, STATEMENT_EXPIRE, err);
    if (!statement)
        return -1;
    sqlite_bind_string(statement, 1, bound);
    sqlite3_bind_int(statement, 2, limit);
    if (sqlite_run(store, statement, "removing old executions", err) < 0)
        return -1;
    *ret_more = sqlite3_changes(store->db) == limit;
    return 0;
}
