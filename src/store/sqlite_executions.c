/* Executions in SQLite. Their ids begin with the time of making (UUID version 7), so order and age
 * are the primary key's. */
#include "base/cleanup.h"
#include "store/record.h"
#include "store/sqlite.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- writing ---- */

/* Columns are numbered from 0, parameters from 1. */
static void bind_int(sqlite3_stmt *statement, enum record_column column, int64_t value)
{
    sqlite3_bind_int64(statement, (int)column + 1, value);
}

static void bind_string(sqlite3_stmt *statement, enum record_column column, const char *text)
{
    sqlite_bind_string(statement, (int)column + 1, text);
}

int sqlite_bind_head(sqlite3_stmt *statement, const struct execution *execution,
                     struct buffer *error, struct buffer *metrics, struct error *err)
{
    const struct execution_delivery *delivery = &execution->delivery;
    if (record_write_details(execution, error, metrics, err) < 0)
        return error_wrap(err, "writing execution %s", execution->id);
    bind_string(statement, RECORD_ID, execution->id);
    bind_string(statement, RECORD_FUNCTION, execution->function);
    bind_int(statement, RECORD_VERSION, execution->version);
    bind_string(statement, RECORD_STATUS, execution_status_name(execution->status));
    bind_int(statement, RECORD_ASYNC, execution->async);
    bind_int(statement, RECORD_COLD_START, execution->cold_start);
    bind_string(statement, RECORD_WORKER, execution->worker);
    bind_int(statement, RECORD_ATTEMPT, execution->attempt);
    bind_int(statement, RECORD_CREATED_AT, (int64_t)execution->created_at_ns);
    bind_int(statement, RECORD_STARTED_AT, (int64_t)execution->started_at_ns);
    bind_int(statement, RECORD_FINISHED_AT, (int64_t)execution->finished_at_ns);
    bind_string(statement, RECORD_ERROR, error->data);
    bind_string(statement, RECORD_METRICS, metrics->data);
    bind_int(statement, RECORD_PRIORITY, delivery->priority);
    bind_int(statement, RECORD_FAILURES, delivery->failures);
    bind_int(statement, RECORD_LOSSES, delivery->losses);
    bind_int(statement, RECORD_AGED_FROM, (int64_t)delivery->aged_from_ns);
    bind_int(statement, RECORD_DEAD_AT, (int64_t)delivery->dead_at_ns);
    return 0;
}

static bool goes_beside(const struct sqlite_store *store, const struct execution *execution)
{
    return execution->result && execution->result_len > STORE_LARGE_BYTES && store->large.path;
}

int sqlite_bind_body(struct sqlite_store *store, sqlite3_stmt *statement,
                     const struct execution *execution, int place,
                     char file[SQLITE_LARGE_NAME_SIZE], struct error *err)
{
    bind_int(statement, RECORD_RESULT_BASE64, execution->result_base64);
    if (execution->logs)
        sqlite_bind_bytes(statement, RECORD_LOGS + 1, execution->logs, execution->logs_len);
    if (goes_beside(store, execution)) {
        if (sqlite_large_write(&store->large, execution->id, execution->result,
                               execution->result_len, file, err) < 0)
            return -1;
        sqlite_bind_string(statement, place, file);
        sqlite3_bind_int64(statement, place + 1, (sqlite3_int64)execution->result_len);
    } else if (execution->result) {
        sqlite3_bind_text64(statement, RECORD_RESULT + 1, execution->result, execution->result_len,
                            SQLITE_STATIC, SQLITE_UTF8);
    }
    return 0;
}

int sqlite_put_execution(void *db, const struct execution *execution, struct error *err)
{
    with_cleanup(buffer_deinit) struct buffer error = BUFFER_INIT(RECORD_DETAIL_MAX);
    with_cleanup(buffer_deinit) struct buffer metrics = BUFFER_INIT(RECORD_DETAIL_MAX);
    char file[SQLITE_LARGE_NAME_SIZE];
    auto_statement *statement = sqlite_statement(db, STATEMENT_PUT_EXECUTION, err);
    if (!statement || sqlite_bind_head(statement, execution, &error, &metrics, err) < 0 ||
        sqlite_bind_body(db, statement, execution, RECORD_BODY_END + 1, file, err) < 0)
        return -1;
    return sqlite_run(db, statement, "writing an execution", err);
}

/* ---- reading ---- */

int sqlite_read_head(sqlite3_stmt *row, struct execution *execution, struct error *err)
{
    const char *id = (const char *)sqlite3_column_text(row, RECORD_ID);
    const char *status = (const char *)sqlite3_column_text(row, RECORD_STATUS);
    snprintf(execution->id, sizeof(execution->id), "%s", id ? id : "");
    if (execution_status_parse(status ? status : "", &execution->status, err) < 0)
        return -1;
    execution->version = sqlite3_column_int64(row, RECORD_VERSION);
    execution->async = sqlite3_column_int(row, RECORD_ASYNC) != 0;
    execution->cold_start = sqlite3_column_int(row, RECORD_COLD_START) != 0;
    execution->attempt = sqlite3_column_int64(row, RECORD_ATTEMPT);
    execution->created_at_ns = (uint64_t)sqlite3_column_int64(row, RECORD_CREATED_AT);
    execution->started_at_ns = (uint64_t)sqlite3_column_int64(row, RECORD_STARTED_AT);
    execution->finished_at_ns = (uint64_t)sqlite3_column_int64(row, RECORD_FINISHED_AT);
    record_read_priority(sqlite3_column_int64(row, RECORD_PRIORITY), execution);
    execution->delivery.failures = sqlite3_column_int64(row, RECORD_FAILURES);
    execution->delivery.losses = sqlite3_column_int64(row, RECORD_LOSSES);
    execution->delivery.aged_from_ns = (uint64_t)sqlite3_column_int64(row, RECORD_AGED_FROM);
    execution->delivery.dead_at_ns = (uint64_t)sqlite3_column_int64(row, RECORD_DEAD_AT);
    if (sqlite_column_copy(row, RECORD_FUNCTION, &execution->function, NULL, err) < 0 ||
        sqlite_column_copy(row, RECORD_WORKER, &execution->worker, NULL, err) < 0)
        return -1;
    return record_read_details((const char *)sqlite3_column_text(row, RECORD_ERROR),
                               (const char *)sqlite3_column_text(row, RECORD_METRICS), execution,
                               err);
}

/* In the row, or beside it. */
static int read_result(const struct sqlite_store *store, sqlite3_stmt *row,
                       struct execution *execution, struct error *err)
{
    const char *file = (const char *)sqlite3_column_text(row, RECORD_BODY_END);
    if (!file)
        return sqlite_column_copy(row, RECORD_RESULT, &execution->result, &execution->result_len,
                                  err);
    size_t len = (size_t)sqlite3_column_int64(row, RECORD_BODY_END + 1);
    if (sqlite_large_read(store->large.folder, file, len, &execution->result, err) < 0)
        return -1;
    execution->result_len = len;
    return 0;
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
    execution->result_base64 = sqlite3_column_int(statement, RECORD_RESULT_BASE64) != 0;
    if (sqlite_read_head(statement, execution, err) < 0 ||
        read_result(db, statement, execution, err) < 0 ||
        sqlite_column_copy(statement, RECORD_LOGS, &execution->logs, &execution->logs_len, err) < 0)
        return error_wrap(err, "reading execution %s", id);
    return execution->async ? sqlite_get_callback(db, execution, err) : 0;
}

static enum sqlite_statement list_statement(const struct execution_query *query)
{
    if (query->dead)
        return query->function ? STATEMENT_LIST_DEAD_OF : STATEMENT_LIST_DEAD;
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
        if (sqlite_read_head(statement, &page->items[page->count++], err) < 0)
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

/* Runs a statement that removes what is before `bound` (text or time), at most `limit`; sets *more when it removed as
 * many. */
static int expire(struct sqlite_store *store, enum sqlite_statement which, const char *text_bound,
                  uint64_t time_bound, int limit, bool *more, struct error *err)
{
    auto_statement *statement = sqlite_statement(store, which, err);
    if (!statement)
        return -1;
    if (text_bound)
        sqlite_bind_string(statement, 1, text_bound);
    else
        sqlite3_bind_int64(statement, 1, (sqlite3_int64)time_bound);
    sqlite3_bind_int(statement, 2, limit);
    if (sqlite_run(store, statement, "removing old executions", err) < 0)
        return -1;
    *more = *more || sqlite3_changes(store->db) == limit;
    return 0;
}

int sqlite_expire_executions(void *db, const struct store_retention *retention, int limit,
                             bool *ret_more, struct error *err)
{
    char bound[TIME_ID_LEN + 1];
    bool more = false;
    record_id_bound(retention->before_ns, bound);
    if (retention->keep_count > 0 && raise_bound(db, retention->keep_count, bound, err) < 0)
        return -1;
    if (expire(db, STATEMENT_EXPIRE, bound, 0, limit, &more, err) < 0 ||
        expire(db, STATEMENT_EXPIRE_DEAD, NULL, retention->dead_before_ns, limit, &more, err) < 0 ||
        expire(db, STATEMENT_EXPIRE_KEYS, NULL, retention->now_ns, limit, &more, err) < 0)
        return -1;
    *ret_more = more;
    return 0;
}
