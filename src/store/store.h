/* What the controller keeps: functions, their code, executions and logs. One interface, two
 * engines: SQLite, and PostgreSQL, which several controllers can share.
 *
 * Threads: every call here is asynchronous unless it says "blocking": it may be made on the loop
 * thread only, owns or copies what it is given, runs on a thread of the store's own, and calls back
 * on the loop thread, never before it has returned. Calls that are queued at the same time share
 * one transaction (group commit); a callback with success means that the data is on the disk. Calls
 * take effect in the order in which they were made, so a read sees every write made before it. The
 * queue is bounded: over the bound a call fails with ERROR_THROTTLED. A `done` of NULL means that
 * the caller does not want to know (failures are logged).
 *
 * While a database server is out of reach, calls wait. Those that somebody waits for (reads, and writes with a `done`)
 * fail with ERROR_UNAVAILABLE after STORE_PATIENCE_MS; writes of what has happened already (a NULL `done`, and
 * finished executions) wait until it is back. A batch whose commit was lost is written again: calls are made so that
 * the second time changes nothing.
 *
 * Life cycle: store_open() (blocking; runs migrations) … store_close() (blocking; finishes what is
 * queued and calls back; then run the loop once more, see loop_close()). */
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

#define STORE_PATIENCE_MS 3000

/* `url`: "sqlite:///absolute/path" (or "sqlite://:memory:" in tests), or "postgresql://…" as libpq takes it. A newer
 * schema than this program knows is refused, and so is an SQLite database that another process has open. Neither
 * errors nor logs say a URL's password. */
struct store *store_open(uv_loop_t *loop, const char *url, struct error *err);
void store_close(struct store *store);
/* The newest schema version this program knows, for `url`'s engine; -1 for an unknown scheme. */
int store_schema_version(const char *url);
/* Calls not yet done, for metrics. */
size_t store_queue_length(const struct store *store);

/* err is NULL on success. */
typedef void store_done_fn(void *data, const struct error *err);

/* Blocking, for start-up only: for each function its newest ready version (if any), then a newer
 * one that is not ready (if any). `each` may take the record's content (leaving it zeroed). */
typedef void store_function_each_fn(void *data, struct function_record *record);
int store_load_functions(struct store *store, store_function_each_fn *each, void *data,
                         struct error *err);
/* Blocking, for start-up only: the highest version number each name ever had, deleted functions
 * included. A name made again goes on counting, so that (name, version) means one thing for ever:
 * in records, and in what workers keep. */
typedef void store_last_version_each_fn(void *data, const char *name, int64_t version);
int store_load_last_versions(struct store *store, store_last_version_each_fn *each, void *data,
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

/* Code archives and build artifacts, by SHA-256. `bytes` becomes the store's (free()d). Code that
 * no function names goes with the next delete or prune, so put it right before its function. */
void store_put_code(struct store *store, const char *sha256, char *bytes, size_t len,
                    store_done_fn *done, void *data);
/* `bytes` is the callback's (free() it); NULL with err on failure. */
typedef void store_code_fn(void *data, char *bytes, size_t len, const struct error *err);
void store_get_code(struct store *store, const char *sha256, store_code_fn *done, void *data);

/* Inserts or updates by id. Takes the execution's content (it is left as by execution_init()) and
 * the payload (free()d; may be NULL). The payload of an asynchronous one is kept until it is final.
 */
void store_put_execution(struct store *store, struct execution *execution, char *payload,
                         size_t payload_len, store_done_fn *done, void *data);
/* A stored one has been handed to a worker: status running, with this attempt. */
void store_start_execution(struct store *store, const char *id, int64_t attempt,
                           uint64_t started_at_ns, store_done_fn *done, void *data);
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

/* Blocking, for start-up only: asynchronous executions that were accepted and not finished (status
 * queued or running), oldest first: what a controller takes up again after a restart. `each` may
 * take the execution's content and the payload (setting *payload to NULL). */
typedef void store_unfinished_each_fn(void *data, struct execution *execution, char **payload,
                                      size_t payload_len);
int store_load_unfinished(struct store *store, store_unfinished_each_fn *each, void *data,
                          struct error *err);

/* Deletes final executions (and logs) older than `before_ns` (wall clock), and the oldest beyond
 * `keep_count` (0: no bound), in batches that never block other writes for long. */
void store_expire_executions(struct store *store, uint64_t before_ns, int64_t keep_count,
                             store_done_fn *done, void *data);

/* Name and value pairs. value NULL deletes. */
void store_put_setting(struct store *store, const char *name, const char *value,
                       store_done_fn *done, void *data);
/* Blocking, for start-up only; *ret_value is malloc'd, NULL when absent. */
int store_get_setting(struct store *store, const char *name, char **ret_value, struct error *err);
