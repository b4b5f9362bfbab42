/* Executions in PostgreSQL. Their ids begin with the time of making (UUID version 7), so order and age are the primary
 * key's. */
#include "base/cleanup.h"
#include "store/postgres.h"
#include "store/record.h"

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
    COLUMN_LOADED_PAYLOAD = COLUMN_RESULT_BASE64, /* of POSTGRES_LOAD_UNFINISHED */
};

/* ---- writing ---- */

/* In the order of the columns. */
static void bind_execution(struct postgres_arguments *arguments, const struct execution *execution,
                           const struct buffer *error, const struct buffer *metrics)
{
    postgres_bind_text(arguments, execution->id);
    postgres_bind_text(arguments, execution->function);
    postgres_bind_int(arguments, execution->version);
    postgres_bind_text(arguments, execution_status_name(execution->status));
    postgres_bind_bool(arguments, execution->async);
    postgres_bind_bool(arguments, execution->cold_start);
    postgres_bind_text(arguments, execution->worker);
    postgres_bind_int(arguments, execution->attempt);
    postgres_bind_int(arguments, (int64_t)execution->created_at_ns);
    postgres_bind_int(arguments, (int64_t)execution->started_at_ns);
    postgres_bind_int(arguments, (int64_t)execution->finished_at_ns);
    postgres_bind_text(arguments, error->data);
    postgres_bind_text(arguments, metrics->data);
    postgres_bind_bool(arguments, execution->result_base64);
    postgres_bind_text_len(arguments, execution->result, execution->result_len);
    postgres_bind_bytes(arguments, execution->logs, execution->logs_len);
}

int postgres_put_execution(void *db, const struct execution *execution, const char *payload,
                           size_t payload_len, struct error *err)
{
    struct postgres_arguments arguments = {0};
    with_cleanup(buffer_deinit) struct buffer error = BUFFER_INIT(DETAIL_MAX);
    with_cleanup(buffer_deinit) struct buffer metrics = BUFFER_INIT(DETAIL_MAX);
    if (record_write_details(execution, &error, &metrics, err) < 0)
        return error_wrap(err, "writing execution %s", execution->id);
    bind_execution(&arguments, execution, &error, &metrics);
    bool keep = payload && execution->async && !execution_status_final(execution->status);
    postgres_bind_bytes(&arguments, keep ? payload : NULL, payload_len);
    return postgres_write(db, POSTGRES_PUT_EXECUTION, &arguments, "writing an execution", NULL,
                          err);
}

int postgres_start_execution(void *db, const char *id, int64_t attempt, uint64_t started_at_ns,
                             struct error *err)
{
    struct postgres_arguments arguments = {0};
    postgres_bind_text(&arguments, id);
    postgres_bind_int(&arguments, attempt);
    postgres_bind_int(&arguments, (int64_t)started_at_ns);
    return postgres_write(db, POSTGRES_START_EXECUTION, &arguments, "writing an execution", NULL,
                          err);
}

/* ---- reading ---- */

static int read_execution(const PGresult *rows, int row, struct execution *execution,
                          struct error *err)
{
    const char *status = postgres_get_text(rows, row, COLUMN_STATUS);
    snprintf(execution->id, sizeof(execution->id), "%s", PQgetvalue(rows, row, COLUMN_ID));
    if (execution_status_parse(status ? status : "", &execution->status, err) < 0)
        return -1;
    execution->version = postgres_get_int(rows, row, COLUMN_VERSION);
    execution->async = postgres_get_bool(rows, row, COLUMN_ASYNC);
    execution->cold_start = postgres_get_bool(rows, row, COLUMN_COLD_START);
    execution->attempt = postgres_get_int(rows, row, COLUMN_ATTEMPT);
    execution->created_at_ns = (uint64_t)postgres_get_int(rows, row, COLUMN_CREATED_AT);
    execution->started_at_ns = (uint64_t)postgres_get_int(rows, row, COLUMN_STARTED_AT);
    execution->finished_at_ns = (uint64_t)postgres_get_int(rows, row, COLUMN_FINISHED_AT);
    if (postgres_get_copy(rows, row, COLUMN_FUNCTION, &execution->function, NULL, err) < 0 ||
        postgres_get_copy(rows, row, COLUMN_WORKER, &execution->worker, NULL, err) < 0)
        return -1;
    return record_read_details(postgres_get_text(rows, row, COLUMN_ERROR),
                               postgres_get_text(rows, row, COLUMN_METRICS), execution, err);
}

int postgres_get_execution(void *db, const char *id, struct execution *execution, bool *ret_found,
                           struct error *err)
{
    struct postgres_arguments arguments = {0};
    postgres_bind_text(&arguments, id);
    auto_result *rows =
        postgres_read(db, POSTGRES_GET_EXECUTION, &arguments, "reading an execution", err);
    if (!rows)
        return -1;
    *ret_found = PQntuples(rows) > 0;
    if (!*ret_found)
        return 0;
    execution->result_base64 = postgres_get_bool(rows, 0, COLUMN_RESULT_BASE64);
    if (read_execution(rows, 0, execution, err) < 0 ||
        postgres_get_copy(rows, 0, COLUMN_RESULT, &execution->result, &execution->result_len, err) <
            0 ||
        postgres_get_copy(rows, 0, COLUMN_LOGS, &execution->logs, &execution->logs_len, err) < 0)
        return error_wrap(err, "reading execution %s", id);
    return 0;
}

static enum postgres_statement list_statement(const struct execution_query *query)
{
    if (query->function)
        return query->status >= 0 ? POSTGRES_LIST_BY_BOTH : POSTGRES_LIST_BY_FUNCTION;
    return query->status >= 0 ? POSTGRES_LIST_BY_STATUS : POSTGRES_LIST_EXECUTIONS;
}

static int read_page(const PGresult *rows, int limit, struct store_engine_execution_page *page,
                     struct error *err)
{
    page->items = calloc((size_t)limit, sizeof(*page->items));
    if (!page->items)
        return error_set(err, ERROR_INTERNAL, "out of memory");
    page->more = PQntuples(rows) > limit;
    for (int row = 0; row < PQntuples(rows) && row < limit; row++) {
        execution_init(&page->items[page->count]);
        if (read_execution(rows, row, &page->items[page->count++], err) < 0)
            return -1;
    }
    return 0;
}

int postgres_list_executions(void *db, const struct execution_query *query,
                             struct store_engine_execution_page *page, struct error *err)
{
    struct postgres_arguments arguments = {0};
    postgres_bind_text(&arguments, query->cursor ? query->cursor : RECORD_ID_AFTER_ALL);
    postgres_bind_int(&arguments, query->limit + 1); /* one more tells whether there are more */
    if (query->function)
        postgres_bind_text(&arguments, query->function);
    if (query->status >= 0)
        postgres_bind_text(&arguments, execution_status_name((enum execution_status)query->status));
    auto_result *rows =
        postgres_read(db, list_statement(query), &arguments, "listing executions", err);
    return rows ? read_page(rows, query->limit, page, err) : -1;
}

int postgres_load_unfinished(void *db, store_unfinished_each_fn *each, void *data,
                             struct error *err)
{
    auto_result *rows =
        postgres_read(db, POSTGRES_LOAD_UNFINISHED, NULL, "reading unfinished executions", err);
    if (!rows)
        return -1;
    for (int row = 0; row < PQntuples(rows); row++) {
        struct execution execution;
        autofree char *payload = NULL;
        size_t payload_len = 0;
        execution_init(&execution);
        int outcome = read_execution(rows, row, &execution, err);
        if (outcome == 0)
            outcome =
                postgres_get_copy(rows, row, COLUMN_LOADED_PAYLOAD, &payload, &payload_len, err);
        if (outcome == 0)
            each(data, &execution, &payload, payload_len);
        execution_deinit(&execution);
        if (outcome < 0)
            return -1;
    }
    return 0;
}

/* ---- retention ---- */

/* Raises `bound` so that what sorts before it is also what is beyond the newest `keep_count`. */
static int raise_bound(struct postgres_store *store, int64_t keep_count,
                       char bound[TIME_ID_LEN + 1], struct error *err)
{
    struct postgres_arguments arguments = {0};
    postgres_bind_int(&arguments, keep_count - 1);
    auto_result *rows =
        postgres_read(store, POSTGRES_NTH_NEWEST, &arguments, "counting executions", err);
    if (!rows)
        return -1;
    const char *id = PQntuples(rows) > 0 ? postgres_get_text(rows, 0, 0) : NULL;
    if (id && strcmp(id, bound) > 0)
        snprintf(bound, TIME_ID_LEN + 1, "%s", id);
    return 0;
}

int postgres_expire_executions(void *db, uint64_t before_ns, int64_t keep_count, int limit,
                               bool *ret_more, struct error *err)
{
    char bound[TIME_ID_LEN + 1];
    struct postgres_arguments arguments = {0};
    record_id_bound(before_ns, bound);
    if (keep_count > 0 && raise_bound(db, keep_count, bound, err) < 0)
        return -1;
    postgres_bind_text(&arguments, bound);
    postgres_bind_int(&arguments, limit);
    auto_result *rows =
        postgres_read(db, POSTGRES_EXPIRE, &arguments, "removing old executions", err);
    if (!rows)
        return -1;
    *ret_more = strtoll(PQcmdTuples(rows), NULL, 10) == limit;
    return 0;
}
