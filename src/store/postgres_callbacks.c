/* Callbacks in PostgreSQL: see store.h. Triggers of the schema make them due and remove them. Leases end by the wall clock of the
 * controller that looks: clocks that differ make one be told twice, never not at all. */
#include "base/cleanup.h"
#include "store/postgres.h"
#include "store/record.h"

#include <stdio.h>
#include <stdlib.h>

int postgres_put_callback(struct postgres_store *store, const char *id,
                          const struct store_acceptance *acceptance, struct error *err)
{
    struct postgres_arguments arguments = {0};
    postgres_bind_text(&arguments, id);
    postgres_bind_text(&arguments, acceptance->callback_url);
    postgres_bind_text(&arguments, acceptance->callback_host);
    postgres_bind_text(&arguments, acceptance->callback_secret);
    return postgres_write(store, POSTGRES_PUT_CALLBACK, &arguments, "writing a callback", NULL,
                          err);
}

static int read_callback(const PGresult *rows, struct execution_callback *callback,
                         struct error *err)
{
    callback->attempts = postgres_get_int(rows, 0, 2);
    callback->status = postgres_get_int(rows, 0, 3);
    callback->due_at_ns = (uint64_t)postgres_get_int(rows, 0, 5);
    callback->delivered_at_ns = (uint64_t)postgres_get_int(rows, 0, 6);
    if (postgres_get_copy(rows, 0, 0, &callback->url, NULL, err) < 0 ||
        postgres_get_copy(rows, 0, 1, &callback->state, NULL, err) < 0)
        return -1;
    return postgres_get_copy(rows, 0, 4, &callback->error, NULL, err);
}

int postgres_get_callback(struct postgres_store *store, struct execution *execution,
                          struct error *err)
{
    struct postgres_arguments arguments = {0};
    postgres_bind_text(&arguments, execution->id);
    auto_result *rows =
        postgres_read(store, POSTGRES_GET_CALLBACK, &arguments, "reading a callback", err);
    if (!rows)
        return -1;
    if (PQntuples(rows) == 0)
        return 0;
    execution->callback = calloc(1, sizeof(*execution->callback));
    if (!execution->callback)
        return error_set(err, ERROR_INTERNAL, "out of memory");
    return read_callback(rows, execution->callback, err);
}

/* ---- claims ---- */

static int read_claimed(const PGresult *rows, int row, struct store_callback *item,
                        struct error *err)
{
    snprintf(item->id, sizeof(item->id), "%s", postgres_get_text(rows, row, 0));
    item->attempt = postgres_get_int(rows, row, 4);
    item->fence = postgres_get_int(rows, row, 5);
    item->since_ns = (uint64_t)postgres_get_int(rows, row, 6);
    if (postgres_get_copy(rows, row, 1, &item->url, NULL, err) < 0 ||
        postgres_get_copy(rows, row, 2, &item->host, NULL, err) < 0)
        return -1;
    return postgres_get_copy(rows, row, 3, &item->secret, NULL, err);
}

int postgres_claim_callbacks(void *db, const struct store_callback_claim *claim,
                             struct store_engine_callbacks *out, struct error *err)
{
    struct postgres_arguments arguments = {0};
    postgres_bind_int(&arguments, (int64_t)claim->now_ns);
    postgres_bind_text(&arguments, claim->busy);
    postgres_bind_int(&arguments, claim->per_host);
    postgres_bind_int(&arguments, claim->limit);
    postgres_bind_int(&arguments, (int64_t)claim->lease_until_ns);
    auto_result *rows =
        postgres_read(db, POSTGRES_CLAIM_CALLBACKS, &arguments, "claiming callbacks", err);
    if (!rows)
        return -1;
    while ((int)out->count < PQntuples(rows)) {
        struct store_callback *item = &out->items[out->count];
        if (read_claimed(rows, (int)out->count++, item, err) < 0)
            return -1;
    }
    auto_result *next =
        postgres_read(db, POSTGRES_NEXT_CALLBACK, NULL, "looking for callbacks", err);
    if (!next)
        return -1;
    out->next_due_ns = (uint64_t)postgres_get_int(next, 0, 0);
    return 0;
}

/* ---- outcomes ---- */

int postgres_finish_callback(void *db, const struct store_callback_outcome *outcome,
                             struct error *err)
{
    struct postgres_arguments arguments = {0};
    postgres_bind_text(&arguments, outcome->id);
    postgres_bind_int(&arguments, outcome->fence);
    postgres_bind_text(&arguments, outcome->state);
    postgres_bind_int(&arguments, (int64_t)outcome->due_at_ns);
    postgres_bind_int(&arguments, (int64_t)outcome->delivered_at_ns);
    postgres_bind_int(&arguments, outcome->status);
    postgres_bind_text(&arguments, outcome->error);
    return postgres_write(db, POSTGRES_FINISH_CALLBACK, &arguments, "writing a callback", NULL,
                          err);
}

int postgres_redrive_callback(void *db, const char *id, uint64_t now_ns, int64_t *ret_count,
                              struct error *err)
{
    struct postgres_arguments arguments = {0};
    postgres_bind_text(&arguments, id);
    postgres_bind_int(&arguments, (int64_t)now_ns);
    auto_result *rows =
        postgres_read(db, POSTGRES_REDRIVE_CALLBACK, &arguments, "writing a callback", err);
    if (!rows)
        return -1;
    *ret_count = strtoll(PQcmdTuples(rows), NULL, 10);
    return 0;
}
