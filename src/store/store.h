/* What the controller keeps: functions, their code, executions and logs. One interface, several
 * engines (SQLite now; PostgreSQL shares it between controllers).
 *
 * Threads: every call here is asynchronous: it may be made on the loop thread only, owns or copies
 * what it is given, runs on a thread of the store's own, and calls back on the loop thread. Writes
 * that are queued at the same time share one transaction (group commit); a callback with success
 * means that the data is on the disk. Order of one caller's writes is kept. Queues are bounded:
 * over the bound a call fails at once with ERROR_THROTTLED.
 *
 * Life cycle: store_open() (blocking; runs migrations) … store_close() (blocking; finishes what is
 * queued). */
#pragma once

#include "model/execution.h"
#include "model/function.h"

#include <uv.h>

struct store;

struct function_record {
    struct function_spec spec;
    enum function_state state;
    char *build_output;     /* owned; the compiler's words when the build failed; NULL otherwise */
    uint64_t created_at_ns; /* of the function */
    uint64_t updated_at_ns; /* of this version */
};
void function_record_deinit(struct function_record *record);

/* `url`: "sqlite:///absolute/path" (or "sqlite://:memory:" in tests). A newer schema than this
 * program knows is refused. */
struct store *store_open(uv_loop_t *loop, const char *url, struct error *err);
void store_close(struct store *store);
/* The newest schema version this program knows. */
int store_schema_version(void);

/* err is NULL on success. */
typedef void store_done_fn(void *data, const struct error *err);

/* Blocking, for start-up only: all newest ready or building or failed versions: for each function
 * its current ready version (if any) and a newer one that is not ready (if any). Called on the loop
 * thread before the loop runs. */
int store_load_functions(struct store *store,
                         void (*each)(void *data, struct function_record *record), void *data,
                         struct error *err);

/* Inserts or replaces (name, version). Takes a copy. */
void store_put_function(struct store *store, const struct function_record *record,
                        store_done_fn *done, void *data);
/* Removes all versions, and code that no other function uses; executions stay until retention takes
 * them. */
void store_delete_function(struct store *store, const char *name, store_done_fn *done, void *data);
/* Removes versions of `name` below `version`, and code that nothing uses any more. */
void store_prune_versions(struct store *store, const char *name, int64_t version,
                          store_done_fn *done, void *data);

/* Code archives and build artifacts, by SHA-256. `bytes` becomes the store's (free()d). */
void store_put_code(struct store *store, const char *sha256, char *bytes, size_t len,
                    store_done_fn *done, void *data);
/* `bytes` is the callback's (free() it); NULL with err on failure. */
typedef void store_code_fn(void *data, char *bytes, size_t len, const struct error *err);
void store_get_code(struct store *store, const char *sha256, store_code_fn *done, void *data);

/* Inserts or updates by id; takes a copy. The payload of an asynchronous one is kept until it is
 * final. */
void store_put_execution(struct store *store, const struct execution *execution,
                         const char *payload, size_t payload_len, store_done_fn *done, void *data);
/* `execution` NULL when there is none (err NULL) or on failure. Valid during the call. With logs.
 */
typedef void store_execution_fn(void *data, const struct execution *execution,
                                const struct error *err);
void store_get_execution(struct store *store, const char *id, store_execution_fn *done, void *data);

struct execution_query {
    const char *function; /* NULL: any */
    int status;           /* enum execution_status, or -1: any */
    int limit;            /* 1 to 1000 */
    const char *cursor;   /* id: older than this one; NULL: from the newest */
};
/* Newest first, without logs and results. `next_cursor` NULL: no more. */
typedef void store_executions_fn(void *data, const struct execution *executions, size_t count,
                                 const char *next_cursor, const struct error *err);
void store_list_executions(struct store *store, const struct execution_query *query,
                           store_executions_fn *done, void *data);

/* Asynchronous executions that were accepted and not finished (status queued or running), oldest
 * first, with payload: what a controller takes up again after a restart. Blocking, for start-up
 * only. */
int store_load_unfinished(struct store *store,
                          void (*each)(void *data, struct execution *execution, const char *payload,
                                       size_t payload_len),
                          void *data, struct error *err);

/* Deletes final executions (and logs) older than `before_ns` (wall clock), and the oldest beyond
 * `keep_count`, in batches that never block other writes for long. */
void store_expire_executions(struct store *store, uint64_t before_ns, int64_t keep_count,
                             store_done_fn *done, void *data);

/* Name and value pairs (tokens' hashes, instance id). value NULL deletes. */
void store_put_setting(struct store *store, const char *name, const char *value,
                       store_done_fn *done, void *data);
/* Blocking, for start-up only; *ret_value is malloc'd, NULL when absent. */
int store_get_setting(struct store *store, const char *name, char **ret_value, struct error *err);
