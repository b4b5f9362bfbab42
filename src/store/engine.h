/* What a database engine does for the store: blocking calls on one connection.
 *
 * store.c picks an engine by the URL's scheme and owns the thread that calls it (queue.c). Except
 * for open, close and the two load calls, every call happens on that thread, between begin and
 * commit. A call that fails may leave the transaction half done: the caller rolls it back and calls
 * again, so calls have no effect outside the database that a rollback does not undo. */
#pragma once

#include "store/store.h"

struct store_engine_execution_page {
    struct execution *items; /* owned */
    size_t count;
    bool more;
};

/* Executions that were claimed; see store.h. */
struct store_engine_claim {
    struct store_claimed *items; /* owned, with their content */
    size_t count;
    bool more;
};

struct store_engine_backlog {
    char **functions; /* owned, each malloc'd */
    size_t count;
    char *next_after; /* owned; NULL: the list has ended */
    uint64_t next_due_ns;
};
struct store_engine_settings {
    struct store_setting *items; /* owned, with their texts */
    size_t count, capacity;
};
void store_settings_clear(struct store_engine_settings *settings);
/* The next one, zeroed, for the engine to fill; NULL when out of memory. */
struct store_setting *store_settings_add(struct store_engine_settings *settings, struct error *err);

void store_backlog_clear(struct store_engine_backlog *backlog);

struct store_engine_callbacks {
    struct store_callback *items; /* owned, room for the claim's limit */
    size_t count;
    uint64_t next_due_ns;
};
void store_callbacks_clear(struct store_engine_callbacks *callbacks);

typedef void store_heard_fn(void *data, const char *channel, const char *payload);
#define STORE_CHANNEL_FUNCTIONS "faas_functions" /* payload: a function's name */
#define STORE_CHANNEL_SETTINGS "faas_settings"   /* payload: a setting's name */
#define STORE_CHANNEL_WAITING "faas_waiting"     /* something free waits */

struct store_engine {
    const char *scheme;        /* "sqlite" */
    const int *schema_version; /* the newest it knows */

    int (*open)(const char *location, void **ret_db, struct error *err);
    void (*close)(void *db);
    /* A consistent copy as a file, of a database that may be in use; and back, of one that is not. NULL: the server's own
     * tools do that. */
    int (*backup)(const char *location, const char *file, struct error *err);
    int (*restore)(const char *location, const char *file, struct error *err);
    /* Gives back memory that it keeps for speed: there was much to do, and now there is nothing. NULL: it keeps none. */
    void (*rest)(void *db);
    /* Makes sure that there is a connection, called before a batch; NULL: there always is. */
    int (*connect)(void *db, struct error *err);
    /* Whether the connection is gone: after connect() the same calls may be made again. Every call is made so that a
     * second time changes nothing more: whether a lost commit happened is not known. NULL: never. */
    bool (*lost)(void *db);
    /* Whether the last transaction failed for no other reason than another one at the same time (a deadlock was resolved):
     * the same calls may be made again at once. A lock that was not had in time is no such case: that is
     * ERROR_UNAVAILABLE. NULL: never. */
    bool (*collided)(void *db);
    int (*begin)(void *db, struct error *err);
    int (*commit)(void *db, struct error *err);
    void (*rollback)(void *db);

    /* ERROR_NOT_FOUND when there is no such version, or it has been built already. */
    int (*update_function)(void *db, const struct function_record *record, struct error *err);
    /* Names in `builds`, which is empty; see store.h. NULL: there are no others. */
    int (*claim_builds)(void *db, const char *owner, struct store_engine_backlog *builds,
                        struct error *err);
    int (*delete_function)(void *db, const char *name, struct error *err);
    int (*prune_versions)(void *db, const char *name, int64_t version, struct error *err);
    /* ERROR_CONFLICT when the name has had this number already, unless by this very record. */
    int (*add_function)(void *db, const struct function_record *record, struct error *err);
    /* `name` NULL: all. */
    int (*load_functions)(void *db, const char *name, store_function_each_fn *each, void *data,
                          struct error *err);
    int (*load_last_versions)(void *db, const char *name, store_last_version_each_fn *each,
                              void *data, struct error *err);

    int (*put_code)(void *db, const char *sha256, const char *bytes, size_t len, struct error *err);
    /* malloc'd; ERROR_NOT_FOUND when there is none. */
    int (*get_code)(void *db, const char *sha256, char **ret_bytes, size_t *ret_len,
                    struct error *err);

    int (*put_execution)(void *db, const struct execution *execution, struct error *err);
    /* *ret_found tells whether `execution` was filled. */
    int (*get_execution)(void *db, const char *id, struct execution *execution, bool *ret_found,
                         struct error *err);
    int (*list_executions)(void *db, const struct execution_query *query,
                           struct store_engine_execution_page *page, struct error *err);
    /* At most `limit` of each kind; *ret_more when there are others. */
    int (*expire_executions)(void *db, const struct store_retention *retention, int limit,
                             bool *ret_more, struct error *err);

    /* Delivery of asynchronous executions: store.h says what each does. */
    int (*join)(void *db, const char *owner, int64_t lease_ms, struct error *err);
    int (*leave)(void *db, const char *owner, struct error *err);
    int (*renew)(void *db, const char *owner, int64_t lease_ms, bool *ret_held, struct error *err);
    /* `ret_id`: TIME_ID_LEN + 1 bytes. */
    int (*accept_execution)(void *db, const struct execution *execution, const char *payload,
                            size_t payload_len, const struct store_acceptance *acceptance,
                            char *ret_id, struct error *err);
    int (*withdraw_execution)(void *db, const char *id, const char *function, const char *key,
                              struct error *err);
    int (*start_execution)(void *db, const char *owner, const char *id, int64_t attempt,
                           int64_t losses, uint64_t started_at_ns, struct error *err);
    int (*finish_execution)(void *db, const char *owner, const struct execution *execution,
                            struct error *err);
    int (*retry_execution)(void *db, const char *owner, const struct execution *execution,
                           uint64_t due_at_ns, struct error *err);
    /* `function` NULL: interrupted ones of all functions. */
    int (*claim_executions)(void *db, const char *owner, const char *function, int limit,
                            size_t max_bytes, struct store_engine_claim *claim, struct error *err);
    /* Frees what an earlier claim took, if its commit, which was thought lost, has happened. NULL: none is ever lost. */
    int (*unclaim_executions)(void *db, const char *owner, const struct store_engine_claim *claim,
                              struct error *err);
    /* `after`: "" for the first. */
    int (*backlog)(void *db, uint64_t now_ns, const char *after,
                   struct store_engine_backlog *backlog, struct error *err);
    int (*count_free)(void *db, int64_t limit, int64_t *ret, struct error *err);
    /* Dead letters up to `limit`: of one id, one function, or all (both NULL). */
    int (*redrive_dead)(void *db, const char *id, const char *function, uint64_t now_ns, int limit,
                        int64_t *ret_count, struct error *err);
    int (*purge_dead)(void *db, const char *id, const char *function, int limit, int64_t *ret_count,
                      struct error *err);
    int (*get_payload)(void *db, const char *id, char **ret_payload, size_t *ret_len,
                       struct error *err);

    /* Of callbacks; `out` is empty, with room for the limit. */
    int (*claim_callbacks)(void *db, const struct store_callback_claim *claim,
                           struct store_engine_callbacks *out, struct error *err);
    int (*finish_callback)(void *db, const struct store_callback_outcome *outcome,
                           struct error *err);
    int (*redrive_callback)(void *db, const char *id, uint64_t now_ns, int64_t *ret_count,
                            struct error *err);

    /* News from other users of the database, on a thread of the listener's: `heard` is called for each, and with channel
     * NULL when some may have been missed. NULL: there are no others. */
    void *(*listen)(void *db, store_heard_fn *heard, void *data, struct error *err);
    void (*unlisten)(void *listener);

    int (*put_setting)(void *db, const char *name, const char *value, struct error *err);
    /* The value that there is, or else `value`, which is stored then. *ret is malloc'd. */
    int (*claim_setting)(void *db, const char *name, const char *value, char **ret,
                         struct error *err);
    int (*get_setting)(void *db, const char *name, char **ret_value, struct error *err);
    int (*list_settings)(void *db, const char *prefix, struct store_engine_settings *settings,
                         struct error *err);
};

extern const struct store_engine sqlite_engine;
extern const struct store_engine postgres_engine;
