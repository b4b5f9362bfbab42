/* Executions in PostgreSQL. Their ids begin with the time of making (UUID version 7), so order and age are the primary
 * key's. */
#include "base/cleanup.h"
#include "store/postgres.h"
#include "store/record.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- writing ---- */

int postgres_bind_head(struct postgres_arguments *arguments, const struct execution *execution,
                       struct buffer *error, struct buffer *metrics, struct error *err)
{
    const struct execution_delivery *delivery = &execution->delivery;
    if (record_write_details(execution, error, metrics, err) < 0)
        return error_wrap(err, "writing execution %s", execution->id);
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
    postgres_bind_int(arguments, delivery->priority);
    postgres_bind_int(arguments, delivery->failures);
    postgres_bind_int(arguments, delivery->losses);
    postgres_bind_int(arguments, (int64_t)delivery->aged_from_ns);
    postgres_bind_int(arguments, (int64_t)delivery->dead_at_ns);
    return 0;
}

void postgres_bind_body(struct postgres_arguments *arguments, const struct execution *execution)
{
    postgres_bind_bool(arguments, execution->result_base64);
    postgres_bind_text_len(arguments, execution->result, execution->result_len);
    postgres_bind_bytes(arguments, execution->logs, execution->logs_len);
}

int postgres_put_execution(void *db, const struct execution *execution, struct error *err)
{
    struct postgres_arguments arguments = {0};
    with_cleanup(buffer_deinit) struct buffer error = BUFFER_INIT(RECORD_DETAIL_MAX);
    with_cleanup(buffer_deinit) struct buffer metrics = BUFFER_INIT(RECORD_DETAIL_MAX);
    if (postgres_bind_head(&arguments, execution, &error, &metrics, err) < 0)
        return -1;
    postgres_bind_body(&arguments, execution);
    return postgres_write(db, POSTGRES_PUT_EXECUTION, &arguments, "writing an execution", NULL,
                          err);
}

/* ---- reading ---- */

int postgres_read_head(const PGresult *rows, int row, struct execution *execution,
                       struct error *err)
{
    const char *status = postgres_get_text(rows, row, RECORD_STATUS);
    snprintf(execution->id, sizeof(execution->id), "%s", PQgetvalue(rows, row, RECORD_ID));
    if (execution_status_parse(status ? status : "", &execution->status, err) < 0)
        return -1;
    execution->version = postgres_get_int(rows, row, RECORD_VERSION);
    execution->async = postgres_get_bool(rows, row, RECORD_ASYNC);
    execution->cold_start = postgres_get_bool(rows, row, RECORD_COLD_START);
    execution->attempt = postgres_get_int(rows, row, RECORD_ATTEMPT);
    execution->created_at_ns = (uint64_t)postgres_get_int(rows, row, RECORD_CREATED_AT);
    execution->started_at_ns = (uint64_t)postgres_get_int(rows, row, RECORD_STARTED_AT);
    execution->finished_at_ns = (uint64_t)postgres_get_int(rows, row, RECORD_FINISHED_AT);
    record_read_priority(postgres_get_int(rows, row, RECORD_PRIORITY), execution);
    execution->delivery.failures = postgres_get_int(rows, row, RECORD_FAILURES);
    execution->delivery.losses = postgres_get_int(rows, row, RECORD_LOSSES);
    execution->delivery.aged_from_ns = (uint64_t)postgres_get_int(rows, row, RECORD_AGED_FROM);
    execution->delivery.dead_at_ns = (uint64_t)postgres_get_int(rows, row, RECORD_DEAD_AT);
    if (postgres_get_copy(rows, row, RECORD_FUNCTION, &execution->function, NULL, err) < 0 ||
        postgres_get_copy(rows, row, RECORD_WORKER, &execution->worker, NULL, err) < 0)
        return -1;
    return record_read_details(postgres_get_text(rows, row, RECORD_ERROR),
                               postgres_get_text(rows, row, RECORD_METRICS), execution, err);
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
    execution->result_base64 = postgres_get_bool(rows, 0, RECORD_RESULT_BASE64);
    if (postgres_read_head(rows, 0, execution, err) < 0 ||
        postgres_get_copy(rows, 0, RECORD_RESULT, &execution->result, &execution->result_len, err) <
            0 ||
        postgres_get_copy(rows, 0, RECORD_LOGS, &execution->logs, &execution->logs_len, err) < 0)
        return error_wrap(err, "reading execution %s", id);
    return execution->async ? postgres_get_callback(db, execution, err) : 0;
}

static enum postgres_statement list_statement(const struct execution_query *query)
{
    if (query->dead)
        return query->function ? POSTGRES_LIST_DEAD_OF : POSTGRES_LIST_DEAD;
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
        if (postgres_read_head(rows, row, &page->items[page->count++], err) < 0)
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
    if (query->status >= 0 && !query->dead)
        postgres_bind_text(&arguments, execution_status_name((enum execution_status)query->status));
    auto_result *rows =
        postgres_read(db, list_statement(query), &arguments, "listing executions", err);
    return rows ? read_page(rows, query->limit, page, err) : -1;
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

/* Runs a statement that removes what is before `bound` (text or time), at most `limit`; sets *more when it removed as
 * many. */
static int expire(struct postgres_store *store, enum postgres_statement which,
                  const char *text_bound, uint64_t time_bound, int limit, bool *more,
                  struct error *err)
{
    struct postgres_arguments arguments = {0};
    if (text_bound)
        postgres_bind_text(&arguments, text_bound);
    else
        postgres_bind_int(&arguments, (int64_t)time_bound);
    postgres_bind_int(&arguments, limit);
    auto_result *rows = postgres_read(store, which, &arguments, "removing old executions", err);
    if (!rows)
        return -1;
    *more = *more || strtoll(PQcmdTuples(rows), NULL, 10) == limit;
    return 0;
}

int postgres_expire_executions(void *db, const struct store_retention *retention, int limit,
                               bool *ret_more, struct error *err)
{
    char bound[TIME_ID_LEN + 1];
    bool more = false;
    record_id_bound(retention->before_ns, bound);
    if (retention->keep_count > 0 && raise_bound(db, retention->keep_count, bound, err) < 0)
        return -1;
    if (expire(db, POSTGRES_EXPIRE, bound, 0, limit, &more, err) < 0 ||
        expire(db, POSTGRES_EXPIRE_DEAD, NULL, retention->dead_before_ns, limit, &more, err) < 0 ||
        expire(db, POSTGRES_EXPIRE_KEYS, NULL, retention->now_ns, limit, &more, err) < 0)
        return -1;
    *ret_more = more;
    return 0;
}
