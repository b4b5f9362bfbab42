/* What a database engine does for the store: blocking calls on one connection.
 *
 * store.c picks an engine by the URL's scheme and owns the thread that calls it (queue.c). Except
 * for open, close and the two load calls, every call happens on that thread, between begin and
 * commit. A call that fails may leave the transaction half done: the caller rolls it back and calls
 * again, so calls have no effect outside the database. */
#pragma once

#include "store/store.h"

struct store_engine_execution_page {
    struct execution *items; /* owned */
    size_t count;
    bool more;
};

struct store_engine {
    const char *scheme;        /* "sqlite" */
    const int *schema_version; /* the newest it knows */

    int (*open)(const char *location, void **ret_db, struct error *err);
    void (*close)(void *db);
    /* Makes sure that there is a connection, called before a batch; NULL: there always is. */
    int (*connect)(void *db, struct error *err);
    /* Whether the last failure was none of the call's own (the connection broke, a deadlock was resolved): after
     * connect() the same calls may be made again. Every call is made so that a second time changes nothing more: whether
     * a lost commit happened is not known. NULL: never. */
    bool (*lost)(void *db);
    int (*begin)(void *db, struct error *err);
    int (*commit)(void *db, struct error *err);
    void (*rollback)(void *db);

    int (*put_function)(void *db, const struct function_record *record, struct error *err);
    int (*delete_function)(void *db, const char *name, struct error *err);
    int (*prune_versions)(void *db, const char *name, int64_t version, struct error *err);
    int (*load_functions)(void *db, store_function_each_fn *each, void *data, struct error *err);
    int (*load_last_versions)(void *db, store_last_version_each_fn *each, void *data,
                              struct error *err);

    int (*put_code)(void *db, const char *sha256, const char *bytes, size_t len, struct error *err);
    /* malloc'd; ERROR_NOT_FOUND when there is none. */
    int (*get_code)(void *db, const char *sha256, char **ret_bytes, size_t *ret_len,
                    struct error *err);

    int (*put_execution)(void *db, const struct execution *execution, const char *payload,
                         size_t payload_len, struct error *err);
    int (*start_execution)(void *db, const char *id, int64_t attempt, uint64_t started_at_ns,
                           struct error *err);
    /* *ret_found tells whether `execution` was filled. */
    int (*get_execution)(void *db, const char *id, struct execution *execution, bool *ret_found,
                         struct error *err);
    int (*list_executions)(void *db, const struct execution_query *query,
                           struct store_engine_execution_page *page, struct error *err);
    int (*load_unfinished)(void *db, store_unfinished_each_fn *each, void *data, struct error *err);
    /* At most `limit` of them; *ret_more when there are others. */
    int (*expire_executions)(void *db, uint64_t before_ns, int64_t keep_count, int limit,
                             bool *ret_more, struct error *err);

    int (*put_setting)(void *db, const char *name, const char *value, struct error *err);
    int (*get_setting)(void *db, const char *name, char **ret_value, struct error *err);
};

extern const struct store_engine sqlite_engine;
extern const struct store_engine postgres_engine;
