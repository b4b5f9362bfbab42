/* Delivery of asynchronous executions in PostgreSQL, among several controllers: see store.h. A lease is a row of table
 * controllers with an end by the server's clock, so controllers' clocks need not agree. Whatever takes rows for itself
 * skips those that another controller is just taking. */
#include "base/cleanup.h"
#include "base/loop.h"
#include "store/postgres.h"
#include "store/record.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void tell_when_free(struct postgres_store *store, bool free_now)
{
    store->frees = store->frees || free_now;
}

/* ---- leases ---- */

static int release_lost(struct postgres_store *store, struct error *err)
{
    store->frees = true;
    return postgres_write(store, POSTGRES_RELEASE_LOST, NULL, "freeing executions", NULL, err);
}

int postgres_join(void *db, const char *owner, int64_t lease_ms, struct error *err)
{
    struct postgres_arguments arguments = {0};
    postgres_bind_text(&arguments, owner);
    postgres_bind_int(&arguments, lease_ms);
    return postgres_write(db, POSTGRES_JOIN, &arguments, "joining", NULL, err);
}

int postgres_leave(void *db, const char *owner, struct error *err)
{
    struct postgres_arguments arguments = {0};
    postgres_bind_text(&arguments, owner);
    if (postgres_write(db, POSTGRES_LEAVE, &arguments, "leaving", NULL, err) < 0)
        return -1;
    return release_lost(db, err);
}

int postgres_renew(void *db, const char *owner, int64_t lease_ms, bool *ret_held, struct error *err)
{
    struct postgres_arguments arguments = {0};
    postgres_bind_text(&arguments, owner);
    postgres_bind_int(&arguments, lease_ms);
    auto_result *rows = postgres_read(db, POSTGRES_RENEW, &arguments, "renewing the lease", err);
    if (!rows || postgres_write(db, POSTGRES_BURY, NULL, "ending leases", NULL, err) < 0)
        return -1;
    *ret_held = PQntuples(rows) > 0;
    return release_lost(db, err);
}

/* ---- acceptance ---- */

/* The id that the key stands for: this execution's, or an earlier one's. */
static int take_key(struct postgres_store *store, const struct execution *execution,
                    const struct store_acceptance *acceptance, char *ret_id, struct error *err)
{
    struct postgres_arguments arguments = {0};
    postgres_bind_text(&arguments, execution->function);
    postgres_bind_text(&arguments, acceptance->key);
    postgres_bind_text(&arguments, execution->id);
    postgres_bind_int(&arguments, (int64_t)acceptance->key_until_ns);
    postgres_bind_int(&arguments, (int64_t)acceptance->now_ns);
    auto_result *rows =
        postgres_read(store, POSTGRES_PUT_KEY, &arguments, "writing an idempotency key", err);
    if (!rows)
        return -1;
    if (PQntuples(rows) > 0)
        snprintf(ret_id, TIME_ID_LEN + 1, "%s", PQgetvalue(rows, 0, 0));
    return 0;
}

int postgres_accept_execution(void *db, const struct execution *execution, const char *payload,
                              size_t payload_len, const struct store_acceptance *acceptance,
                              char *ret_id, struct error *err)
{
    if (acceptance->key && take_key(db, execution, acceptance, ret_id, err) < 0)
        return -1;
    if (strcmp(ret_id, execution->id) != 0)
        return 0;
    tell_when_free(db, acceptance->owner == NULL);
    if (postgres_gather(db, execution, payload, payload_len, acceptance->owner, err) < 0)
        return -1;
    return acceptance->callback_url ? postgres_put_callback(db, execution->id, acceptance, err) : 0;
}

int postgres_withdraw_execution(void *db, const char *id, const char *function, const char *key,
                                struct error *err)
{
    struct postgres_arguments execution = {0}, arguments = {0};
    postgres_bind_text(&execution, id);
    postgres_bind_text(&arguments, function);
    postgres_bind_text(&arguments, key);
    postgres_bind_text(&arguments, id);
    if (postgres_write(db, POSTGRES_WITHDRAW_EXECUTION, &execution, "removing an execution", NULL,
                       err) < 0)
        return -1;
    return key ? postgres_write(db, POSTGRES_WITHDRAW_KEY, &arguments,
                                "removing an idempotency key", NULL, err)
               : 0;
}

/* ---- attempts ---- */

int postgres_start_execution(void *db, const char *owner, const char *id, int64_t attempt,
                             int64_t losses, uint64_t started_at_ns, struct error *err)
{
    struct postgres_arguments arguments = {0};
    postgres_bind_text(&arguments, id);
    postgres_bind_text(&arguments, owner);
    postgres_bind_int(&arguments, attempt);
    postgres_bind_int(&arguments, losses);
    postgres_bind_int(&arguments, (int64_t)started_at_ns);
    return postgres_write(db, POSTGRES_START_EXECUTION, &arguments, "writing an execution", NULL,
                          err);
}

int postgres_finish_execution(void *db, const char *owner, const struct execution *execution,
                              struct error *err)
{
    struct postgres_arguments arguments = {0};
    with_cleanup(buffer_deinit) struct buffer error = BUFFER_INIT(RECORD_DETAIL_MAX);
    with_cleanup(buffer_deinit) struct buffer metrics = BUFFER_INIT(RECORD_DETAIL_MAX);
    if (postgres_bind_head(&arguments, execution, &error, &metrics, err) < 0)
        return -1;
    postgres_bind_body(&arguments, execution);
    postgres_bind_text(&arguments, owner);
    return postgres_write(db, POSTGRES_FINISH_EXECUTION, &arguments, "writing an execution", NULL,
                          err);
}

int postgres_retry_execution(void *db, const char *owner, const struct execution *execution,
                             uint64_t due_at_ns, struct error *err)
{
    struct postgres_arguments arguments = {0};
    with_cleanup(buffer_deinit) struct buffer error = BUFFER_INIT(RECORD_DETAIL_MAX);
    with_cleanup(buffer_deinit) struct buffer metrics = BUFFER_INIT(RECORD_DETAIL_MAX);
    if (record_write_details(execution, &error, &metrics, err) < 0)
        return -1;
    postgres_bind_text(&arguments, execution->id);
    postgres_bind_text(&arguments, owner);
    postgres_bind_int(&arguments, execution->attempt);
    postgres_bind_int(&arguments, execution->delivery.failures);
    postgres_bind_int(&arguments, execution->delivery.losses);
    postgres_bind_text(&arguments, error.data);
    postgres_bind_int(&arguments, (int64_t)due_at_ns);
    tell_when_free(db, due_at_ns == 0);
    return postgres_write(db, POSTGRES_RETRY_EXECUTION, &arguments, "writing an execution", NULL,
                          err);
}

/* ---- claims ---- */

/* "{id,id}" of those that may be taken, which are locked then. 1 when the limit on bytes left some out. */
static int find_candidates(struct postgres_store *store, const char *function, int limit,
                           size_t max_bytes, struct buffer *ids, int *ret_count, struct error *err)
{
    struct postgres_arguments arguments = {0};
    size_t bytes = 0;
    int count = 0;
    if (function)
        postgres_bind_text(&arguments, function);
    postgres_bind_int(&arguments, limit);
    auto_result *rows =
        postgres_read(store, function ? POSTGRES_CANDIDATES : POSTGRES_INTERRUPTED_CANDIDATES,
                      &arguments, "claiming executions", err);
    if (!rows)
        return -1;
    for (; count < PQntuples(rows); count++) {
        bytes += (size_t)postgres_get_int(rows, count, 1);
        if (count > 0 && bytes > max_bytes)
            break;
        if (buffer_printf(ids, err, "%c%s", count ? ',' : '{', PQgetvalue(rows, count, 0)) < 0)
            return -1;
    }
    *ret_count = count;
    return count < PQntuples(rows);
}

int postgres_unclaim_executions(void *db, const char *owner, const struct store_engine_claim *claim,
                                struct error *err)
{
    struct postgres_arguments arguments = {0};
    with_cleanup(buffer_deinit) struct buffer ids =
        BUFFER_INIT((claim->count + 1) * (TIME_ID_LEN + 1));
    for (size_t i = 0; i < claim->count; i++)
        if (buffer_printf(&ids, err, "%c%s", i ? ',' : '{', claim->items[i].execution.id) < 0)
            return -1;
    if (buffer_append_string(&ids, "}", err) < 0)
        return -1;
    postgres_bind_text(&arguments, owner);
    postgres_bind_array(&arguments, ids.data);
    return postgres_write(db, POSTGRES_UNCLAIM, &arguments, "claiming executions", NULL, err);
}

/* By priority (interrupted ones first), then by age. */
static int compare_claimed(const void *a, const void *b)
{
    const struct execution *first = &((const struct store_claimed *)a)->execution;
    const struct execution *second = &((const struct store_claimed *)b)->execution;
    if (first->delivery.interrupted != second->delivery.interrupted)
        return first->delivery.interrupted ? -1 : 1;
    if (first->delivery.priority != second->delivery.priority)
        return first->delivery.priority < second->delivery.priority ? -1 : 1;
    return strcmp(first->id, second->id);
}

static int read_claimed(const PGresult *rows, struct store_engine_claim *claim, struct error *err)
{
    for (int row = 0; row < PQntuples(rows); row++) {
        struct store_claimed *item = &claim->items[claim->count++];
        execution_init(&item->execution);
        item->execution.delivery.has_callback = postgres_get_bool(rows, row, RECORD_HEAD_END + 1);
        if (postgres_read_head(rows, row, &item->execution, err) < 0 ||
            postgres_get_copy(rows, row, RECORD_HEAD_END, &item->payload, &item->payload_len, err) <
                0)
            return -1;
    }
    qsort(claim->items, claim->count, sizeof(*claim->items), compare_claimed);
    return 0;
}

int postgres_claim_executions(void *db, const char *owner, const char *function, int limit,
                              size_t max_bytes, struct store_engine_claim *claim, struct error *err)
{
    struct postgres_arguments arguments = {0};
    with_cleanup(buffer_deinit) struct buffer ids =
        BUFFER_INIT(((size_t)limit + 1) * (TIME_ID_LEN + 1));
    int count = 0;
    int cut = find_candidates(db, function, limit, max_bytes, &ids, &count, err);
    if (cut < 0)
        return -1;
    claim->more = cut > 0 || count == limit;
    if (count == 0)
        return 0;
    claim->items = calloc((size_t)count, sizeof(*claim->items));
    if (!claim->items)
        return error_set(err, ERROR_INTERNAL, "out of memory");
    if (buffer_append_string(&ids, "}", err) < 0)
        return -1;
    postgres_bind_text(&arguments, owner);
    postgres_bind_array(&arguments, ids.data);
    auto_result *rows = postgres_read(db, POSTGRES_CLAIM, &arguments, "claiming executions", err);
    return rows ? read_claimed(rows, claim, err) : -1;
}

/* ---- what waits ---- */

int postgres_cancel_waiting(void *db, const char *function, struct error *err)
{
    struct postgres_arguments arguments = {0};
    postgres_bind_text(&arguments, function);
    postgres_bind_int(&arguments, (int64_t)clock_realtime_ns());
    postgres_bind_text(&arguments, RECORD_DELETED_ERROR);
    return postgres_write(db, POSTGRES_CANCEL_WAITING, &arguments, "cancelling executions", NULL,
                          err);
}

static int list_waiting(struct postgres_store *store, const char *after,
                        struct store_engine_backlog *backlog, struct error *err)
{
    struct postgres_arguments arguments = {0};
    postgres_bind_text(&arguments, after);
    postgres_bind_int(&arguments, STORE_BACKLOG_MAX);
    auto_result *rows =
        postgres_read(store, POSTGRES_BACKLOG, &arguments, "looking for executions that wait", err);
    if (!rows)
        return -1;
    for (int row = 0; row < PQntuples(rows); row++) {
        const char *name = PQgetvalue(rows, row, 0);
        int outcome = postgres_get_bool(rows, row, 1) ? record_add_function(backlog, name, err)
                                                      : postgres_cancel_waiting(store, name, err);
        if (outcome < 0 || (row + 1 == STORE_BACKLOG_MAX && record_go_on(backlog, name, err) < 0))
            return -1;
    }
    return 0;
}

int postgres_count_free(void *db, int64_t limit, int64_t *ret, struct error *err)
{
    struct postgres_arguments arguments = {0};
    postgres_bind_int(&arguments, limit);
    auto_result *rows =
        postgres_read(db, POSTGRES_COUNT_FREE, &arguments, "counting executions that wait", err);
    if (!rows)
        return -1;
    *ret = postgres_get_int(rows, 0, 0);
    return 0;
}

int postgres_backlog(void *db, uint64_t now_ns, const char *after,
                     struct store_engine_backlog *backlog, struct error *err)
{
    struct postgres_arguments arguments = {0};
    postgres_bind_int(&arguments, (int64_t)now_ns);
    if (postgres_write(db, POSTGRES_PROMOTE_DUE, &arguments, "looking for executions that are due",
                       NULL, err) < 0 ||
        list_waiting(db, after, backlog, err) < 0)
        return -1;
    auto_result *rows =
        postgres_read(db, POSTGRES_NEXT_DUE, NULL, "looking for what is due next", err);
    if (!rows)
        return -1;
    backlog->next_due_ns = (uint64_t)postgres_get_int(rows, 0, 0);
    return 0;
}

/* ---- dead letters ---- */

int postgres_redrive_dead(void *db, const char *id, const char *function, uint64_t now_ns,
                          int limit, int64_t *ret_count, struct error *err)
{
    struct postgres_arguments arguments = {0};
    postgres_bind_int(&arguments, (int64_t)now_ns);
    tell_when_free(db, true);
    if (id || function)
        postgres_bind_text(&arguments, id ? id : function);
    postgres_bind_int(&arguments, limit);
    auto_result *rows = postgres_read(db,
                                      id         ? POSTGRES_REDRIVE_ONE
                                      : function ? POSTGRES_REDRIVE_FUNCTION
                                                 : POSTGRES_REDRIVE_ALL,
                                      &arguments, "queuing dead letters", err);
    if (!rows)
        return -1;
    *ret_count = strtoll(PQcmdTuples(rows), NULL, 10);
    return 0;
}

int postgres_purge_dead(void *db, const char *id, const char *function, int limit,
                        int64_t *ret_count, struct error *err)
{
    struct postgres_arguments arguments = {0};
    if (id || function)
        postgres_bind_text(&arguments, id ? id : function);
    postgres_bind_int(&arguments, limit);
    auto_result *rows = postgres_read(db,
                                      id         ? POSTGRES_PURGE_ONE
                                      : function ? POSTGRES_PURGE_FUNCTION
                                                 : POSTGRES_PURGE_ALL,
                                      &arguments, "removing dead letters", err);
    if (!rows)
        return -1;
    *ret_count = strtoll(PQcmdTuples(rows), NULL, 10);
    return 0;
}

int postgres_get_payload(void *db, const char *id, char **ret_payload, size_t *ret_len,
                         struct error *err)
{
    struct postgres_arguments arguments = {0};
    postgres_bind_text(&arguments, id);
    auto_result *rows =
        postgres_read(db, POSTGRES_GET_PAYLOAD, &arguments, "reading a payload", err);
    if (!rows)
        return -1;
    if (PQntuples(rows) == 0)
        return error_set(err, ERROR_NOT_FOUND, "no payload is kept of execution %s", id);
    return postgres_get_copy(rows, 0, 0, ret_payload, ret_len, err);
}
