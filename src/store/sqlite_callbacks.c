/* Callbacks in SQLite: see store.h. Triggers of the schema make them due and remove them. */
#include "base/cleanup.h"
#include "store/record.h"
#include "store/sqlite.h"

#include <stdio.h>
#include <stdlib.h>

int sqlite_put_callback(struct sqlite_store *store, const char *id,
                        const struct store_acceptance *acceptance, struct error *err)
{
    auto_statement *statement = sqlite_statement(store, STATEMENT_PUT_CALLBACK, err);
    if (!statement)
        return -1;
    sqlite_bind_string(statement, 1, id);
    sqlite_bind_string(statement, 2, acceptance->callback_url);
    sqlite_bind_string(statement, 3, acceptance->callback_host);
    sqlite_bind_string(statement, 4, acceptance->callback_secret);
    return sqlite_run(store, statement, "writing a callback", err);
}

static int read_callback(sqlite3_stmt *row, struct execution_callback *callback, struct error *err)
{
    callback->attempts = sqlite3_column_int64(row, 2);
    callback->status = sqlite3_column_int64(row, 3);
    callback->due_at_ns = (uint64_t)sqlite3_column_int64(row, 5);
    callback->delivered_at_ns = (uint64_t)sqlite3_column_int64(row, 6);
    if (sqlite_column_copy(row, 0, &callback->url, NULL, err) < 0 ||
        sqlite_column_copy(row, 1, &callback->state, NULL, err) < 0)
        return -1;
    return sqlite_column_copy(row, 4, &callback->error, NULL, err);
}

int sqlite_get_callback(struct sqlite_store *store, struct execution *execution, struct error *err)
{
    auto_statement *statement = sqlite_statement(store, STATEMENT_GET_CALLBACK, err);
    if (!statement)
        return -1;
    sqlite_bind_string(statement, 1, execution->id);
    int row = sqlite_next(store, statement, "reading a callback", err);
    if (row <= 0)
        return row;
    execution->callback = calloc(1, sizeof(*execution->callback));
    if (!execution->callback)
        return error_set(err, ERROR_INTERNAL, "out of memory");
    return read_callback(statement, execution->callback, err);
}

/* ---- claims ---- */

/* The ids first: a statement must not change what it goes through. */
static int find_due(struct sqlite_store *store, const struct store_callback_claim *claim,
                    char (*ids)[TIME_ID_LEN + 1], size_t *ret_count, struct error *err)
{
    auto_statement *statement = sqlite_statement(store, STATEMENT_DUE_CALLBACKS, err);
    size_t count = 0;
    int row;
    if (!statement)
        return -1;
    sqlite3_bind_int64(statement, 1, (sqlite3_int64)claim->now_ns);
    sqlite_bind_string(statement, 2, claim->busy);
    sqlite3_bind_int(statement, 3, claim->per_host);
    sqlite3_bind_int(statement, 4, claim->limit);
    while ((row = sqlite_next(store, statement, "looking for callbacks", err)) > 0)
        snprintf(ids[count++], TIME_ID_LEN + 1, "%s",
                 (const char *)sqlite3_column_text(statement, 0));
    *ret_count = count;
    return row;
}

static int claim_one(struct sqlite_store *store, const struct store_callback_claim *claim,
                     const char *id, struct store_callback *item, struct error *err)
{
    auto_statement *statement = sqlite_statement(store, STATEMENT_CLAIM_CALLBACK, err);
    if (!statement)
        return -1;
    sqlite_bind_string(statement, 1, id);
    sqlite3_bind_int64(statement, 2, (sqlite3_int64)claim->lease_until_ns);
    if (sqlite_next(store, statement, "claiming a callback", err) <= 0)
        return -1;
    snprintf(item->id, sizeof(item->id), "%s", id);
    item->attempt = sqlite3_column_int64(statement, 4);
    item->fence = sqlite3_column_int64(statement, 5);
    item->since_ns = (uint64_t)sqlite3_column_int64(statement, 6);
    if (sqlite_column_copy(statement, 1, &item->url, NULL, err) < 0 ||
        sqlite_column_copy(statement, 2, &item->host, NULL, err) < 0)
        return -1;
    return sqlite_column_copy(statement, 3, &item->secret, NULL, err);
}

int sqlite_claim_callbacks(void *db, const struct store_callback_claim *claim,
                           struct store_engine_callbacks *out, struct error *err)
{
    char ids[STORE_CALLBACKS_MAX][TIME_ID_LEN + 1];
    size_t count = 0;
    if (find_due(db, claim, ids, &count, err) < 0)
        return -1;
    while (out->count < count) {
        struct store_callback *item = &out->items[out->count];
        if (claim_one(db, claim, ids[out->count++], item, err) < 0)
            return -1;
    }
    auto_statement *statement = sqlite_statement(db, STATEMENT_NEXT_CALLBACK, err);
    if (!statement || sqlite_next(db, statement, "looking for callbacks", err) < 0)
        return -1;
    out->next_due_ns = (uint64_t)sqlite3_column_int64(statement, 0);
    return 0;
}

/* ---- outcomes ---- */

int sqlite_finish_callback(void *db, const struct store_callback_outcome *outcome,
                           struct error *err)
{
    auto_statement *statement = sqlite_statement(db, STATEMENT_FINISH_CALLBACK, err);
    if (!statement)
        return -1;
    sqlite_bind_string(statement, 1, outcome->id);
    sqlite3_bind_int64(statement, 2, outcome->fence);
    sqlite_bind_string(statement, 3, outcome->state);
    sqlite3_bind_int64(statement, 4, (sqlite3_int64)outcome->due_at_ns);
    sqlite3_bind_int64(statement, 5, (sqlite3_int64)outcome->delivered_at_ns);
    sqlite3_bind_int64(statement, 6, outcome->status);
    sqlite_bind_string(statement, 7, outcome->error);
    return sqlite_run(db, statement, "writing a callback", err);
}

int sqlite_redrive_callback(void *db, const char *id, uint64_t now_ns, int64_t *ret_count,
                            struct error *err)
{
    auto_statement *statement = sqlite_statement(db, STATEMENT_REDRIVE_CALLBACK, err);
    if (!statement)
        return -1;
    sqlite_bind_string(statement, 1, id);
    sqlite3_bind_int64(statement, 2, (sqlite3_int64)now_ns);
    if (sqlite_run(db, statement, "writing a callback", err) < 0)
        return -1;
    *ret_count = sqlite3_changes(((struct sqlite_store *)db)->db);
    return 0;
}
