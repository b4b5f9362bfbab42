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
 * finished executions) and claims wait until it is back. A batch whose commit was lost is written again: calls are made so
 * that the second time changes nothing. While the database's disk is full or another session holds a lock it is the same, but
 * that calls which somebody waits for fail at once (after STORE_PATIENCE_MS where there is a lock), and reads are
 * answered; they may then miss a write that waits.
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
/* With SQLite a result of more bytes lies in a file of its own, which takes any bytes; a shorter one in a row, where it has to be UTF-8. */
#define STORE_LARGE_BYTES ((size_t)256 * 1024)

/* `url`: "sqlite:///absolute/path" (or "sqlite://:memory:" in tests), or "postgresql://…" as libpq takes it. A newer
 * schema than this program knows is refused, and so is an SQLite database that another process has open. Neither
 * errors nor logs say a URL's password. */
struct store *store_open(uv_loop_t *loop, const char *url, struct error *err);
void store_close(struct store *store);
/* The newest schema version this program knows, for `url`'s engine; -1 for an unknown scheme. */
int store_schema_version(const char *url);
/* Blocking, without opening a store: a consistent copy of an SQLite database that may be in use, as a file of its own; and
 * such a file in the place of a database that is not in use (which is kept beside it, with ".replaced" in its name). */
int store_backup(const char *url, const char *file, struct error *err);
int store_restore(const char *url, const char *file, struct error *err);
/* Calls not yet done, for metrics. */
size_t store_queue_length(const struct store *store);
/* What those calls hold: payloads, results, logs, code. */
size_t store_queue_bytes(const struct store *store);

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

/* Replaces what there is of (name, version): ERROR_NOT_FOUND when it has been deleted, or another controller has written
 * the outcome of its build. Takes a copy. With the bytes of the build artifact that it names, if they are new (free()d; or
 * NULL): both are on the disk, or neither. Patient: it has happened. */
void store_update_function(struct store *store, const struct function_record *record,
                           char *artifact, size_t artifact_len, store_done_fn *done, void *data);
/* Makes `owner`, which has joined, the builder of newest versions that are being built and whose builder is no more, or
 * that have none; at most STORE_CLAIM_BUILDS_MAX at a time. Tells the functions' names, with those that it was the builder
 * of already. Where nobody shares the database there are none. */
#define STORE_CLAIM_BUILDS_MAX 1000
typedef void store_builds_fn(void *data, const char *const *functions, size_t count,
                             const struct error *err);
void store_claim_builds(struct store *store, const char *owner, store_builds_fn *done, void *data);
/* A new version: ERROR_CONFLICT when another controller has given its name this number. Takes a copy. With its code, if
 * that is new (free()d; or NULL): both are on the disk, or neither. */
void store_add_function(struct store *store, const struct function_record *record, char *code,
                        size_t code_len, store_done_fn *done, void *data);
/* What the store has of one function (or, with NULL, of all), as store_load_functions(); with one, the highest number its
 * name ever had. `done` may take the records' content. */
typedef void store_functions_fn(void *data, struct function_record *records, size_t count,
                                int64_t last_version, const struct error *err);
void store_read_functions(struct store *store, const char *name, store_functions_fn *done,
                          void *data);
/* Removes all versions, and code that no other function uses; executions stay until retention takes
 * them. */
void store_delete_function(struct store *store, const char *name, store_done_fn *done, void *data);
/* Removes versions of `name` below `version`, and code that nothing uses any more. */
void store_prune_versions(struct store *store, const char *name, int64_t version,
                          store_done_fn *done, void *data);

/* Code archives and build artifacts, by SHA-256. `bytes` is the callback's (free() it); NULL with err on failure. */
typedef void store_code_fn(void *data, char *bytes, size_t len, const struct error *err);
void store_get_code(struct store *store, const char *sha256, store_code_fn *done, void *data);

/* Inserts or updates by id: the record of a synchronous execution that is final. Takes the execution's content (it is
 * left as by execution_init()). */
void store_put_execution(struct store *store, struct execution *execution, store_done_fn *done,
                         void *data);
/* `execution` NULL when there is none (err NULL) or on failure. Valid during the call. With logs.
 */
typedef void store_execution_fn(void *data, const struct execution *execution,
                                const struct error *err);
void store_get_execution(struct store *store, const char *id, store_execution_fn *done, void *data);

struct execution_query {
    const char *function; /* NULL: any */
    int status;           /* enum execution_status, or -1: any */
    bool dead;            /* dead letters only */
    int limit;            /* 1 to 1000 */
    const char *cursor;   /* id: older than this one; NULL: from the newest */
};
/* Newest first, without logs and results. `next_cursor` NULL: no more. */
typedef void store_executions_fn(void *data, const struct execution *executions, size_t count,
                                 const char *next_cursor, const struct error *err);
void store_list_executions(struct store *store, const struct execution_query *query,
                           store_executions_fn *done, void *data);

/* What goes: final executions (and logs) made before `before_ns`, and the oldest beyond `keep_count` (0: no bound), but
 * dead letters only when they died before `dead_before_ns`; idempotency keys that ended before `now_ns` (all wall
 * clock). In batches that never block other writes for long. */
struct store_retention {
    uint64_t before_ns, dead_before_ns, now_ns;
    int64_t keep_count;
};
void store_expire_executions(struct store *store, const struct store_retention *retention,
                             store_done_fn *done, void *data);

/* ---- delivery of asynchronous executions ----
 *
 * A stored execution that waits is either free or has an owner: a controller that has it in memory. An owner is a name
 * that is never used again, with a lease that it must renew; when the lease ends, what it owned is free again, and what
 * it had given to workers counts as one more attempt. Only its owner can change an execution, so whatever a controller
 * says of one that has been taken from it changes nothing: the owner's name is the fence between controllers, as the
 * attempt's number is the one between workers.
 *
 * SQLite has one controller at a time: joining ends every earlier owner's lease. */

/* Blocking, for start-up only. */
int store_join(struct store *store, const char *owner, int64_t lease_ms, struct error *err);
/* Ends the lease at once. */
void store_leave(struct store *store, const char *owner, store_done_fn *done, void *data);
/* Renews the lease, and frees what owners had whose lease has ended. `held`: it had not ended itself; then all is lost
 * that it owned, and it must join under another name (store_rejoin()).
 * `urgent`: calls that wait for another session's lock do not hold it up; not before store_rejoin() has come to its end. */
typedef void store_renewed_fn(void *data, bool held, const struct error *err);
void store_renew(struct store *store, const char *owner, int64_t lease_ms, bool urgent,
                 store_renewed_fn *done, void *data);
/* As store_join(), not blocking. */
void store_rejoin(struct store *store, const char *owner, int64_t lease_ms, store_done_fn *done,
                  void *data);

struct store_acceptance {
    const char *owner;     /* that has it in memory; NULL: free */
    const char *key;       /* idempotency key; NULL: none */
    uint64_t key_until_ns; /* wall clock */
    uint64_t now_ns;
    const char *callback_url; /* to be told of its end; NULL: nobody */
    const char *callback_host, *callback_secret;
};
/* A new execution, queued. Takes its content and the payload (free()d). With a key that the function has had before (and
 * that has not ended), nothing is written, and `id` is that execution's. */
typedef void store_accepted_fn(void *data, const char *id, const struct error *err);
void store_accept_execution(struct store *store, struct execution *execution, char *payload,
                            size_t payload_len, const struct store_acceptance *acceptance,
                            store_accepted_fn *done, void *data);
/* The caller was told that the acceptance failed, and whether its commit was lost is not known: unless it has begun, it
 * is removed, and its key (NULL: none) with it. */
void store_withdraw_execution(struct store *store, const char *id, const char *function,
                              const char *key, store_done_fn *done, void *data);
/* It has been handed to a worker: status running, with this attempt. */
void store_start_execution(struct store *store, const char *owner, const char *id, int64_t attempt,
                           int64_t losses, uint64_t started_at_ns, store_done_fn *done, void *data);
/* It is final, or (delivery.dead_at_ns) a dead letter, which keeps its payload. Takes the content. */
void store_finish_execution(struct store *store, const char *owner, struct execution *execution,
                            store_done_fn *done, void *data);
/* Free again, with the execution's attempt, counts and error, and not to be claimed before `due_at_ns` (wall clock; 0:
 * at once). Takes the content. */
void store_retry_execution(struct store *store, const char *owner, struct execution *execution,
                           uint64_t due_at_ns, store_done_fn *done, void *data);

/* One that was claimed: the callback may take both (leaving `execution` as by execution_init(), payload NULL). */
struct store_claimed {
    struct execution execution;
    char *payload;
    size_t payload_len;
};
/* Makes `owner` the owner of up to `limit` free ones of `function`, by priority, oldest first, with payloads of
 * `max_bytes` together (but at least one). `more`: there may be others. */
typedef void store_claimed_fn(void *data, struct store_claimed *items, size_t count, bool more,
                              const struct error *err);
void store_claim_executions(struct store *store, const char *owner, const char *function, int limit,
                            size_t max_bytes, store_claimed_fn *done, void *data);
/* Blocking, for start-up only: those of all functions that were under way when their owner was lost. */
int store_claim_interrupted(struct store *store, const char *owner, store_claimed_fn *each,
                            void *data, struct error *err);
/* Which functions have free executions that are due, by name, at most STORE_BACKLOG_MAX of them that come after the name
 * `after` (NULL: from the first); `next_after`: where to go on (NULL: that was the end). And when the next one will be due (0:
 * none is known). What waits for a function that is no more is cancelled. */
#define STORE_BACKLOG_MAX 1000
typedef void store_backlog_fn(void *data, const char *const *functions, size_t count,
                              const char *next_after, uint64_t next_due_ns,
                              const struct error *err);
void store_read_backlog(struct store *store, uint64_t now_ns, const char *after,
                        store_backlog_fn *done, void *data);
/* How many executions are free; counting ends at `limit`, once for those that are due and once for those that will be.
 * The second is blocking, for start-up only. */
typedef void store_count_fn(void *data, int64_t count, const struct error *err);
void store_count_free(struct store *store, int64_t limit, store_count_fn *done, void *data);
int store_count_free_now(struct store *store, int64_t limit, int64_t *ret, struct error *err);

/* Dead letters, of one id, of a function, or (both NULL) all: queued again under their ids, or removed. In batches. */
void store_redrive_dead(struct store *store, const char *id, const char *function, uint64_t now_ns,
                        store_count_fn *done, void *data);
void store_purge_dead(struct store *store, const char *id, const char *function,
                      store_count_fn *done, void *data);
/* The payload of one that is not final, or a dead letter. ERROR_NOT_FOUND when there is none. As store_get_code(). */
void store_get_payload(struct store *store, const char *id, store_code_fn *done, void *data);

/* ---- callbacks ----
 *
 * Who is to be told of an execution's end is stored with its acceptance, and becomes due in the transaction that stores
 * the end, by whichever way it came. Whoever claims one has it until its lease ends, and then it is due again: it is told
 * at least once. `fence` grows with each claim; an outcome with an old one changes nothing. It goes with its execution. */

struct store_callback {
    char id[TIME_ID_LEN + 1];  /* the execution's */
    char *url, *host, *secret; /* owned; the callback of a claim may take them (leaving NULL) */
    int64_t attempt;           /* from 1 */
    int64_t fence;
    uint64_t since_ns; /* when the execution ended, or it was asked to be told again; wall clock */
};

struct store_callback_claim {
    uint64_t now_ns, lease_until_ns; /* wall clock */
    int limit;                       /* at most STORE_CALLBACKS_MAX */
    int per_host;
    const char *busy; /* hosts of which none is to come, each with a space before and behind it */
};
#define STORE_CALLBACKS_MAX 256

/* Those that are due, longest first; `next_due_ns`: when another will be (0: none is known). */
typedef void store_callbacks_fn(void *data, struct store_callback *items, size_t count,
                                uint64_t next_due_ns, const struct error *err);
void store_claim_callbacks(struct store *store, const struct store_callback_claim *claim,
                           store_callbacks_fn *done, void *data);

struct store_callback_outcome {
    const char *id;
    int64_t fence;
    const char *state; /* "delivered", "failed", or "pending" until due_at_ns */
    uint64_t due_at_ns, delivered_at_ns;
    int64_t status;
    const char *error; /* NULL: none */
};
void store_finish_callback(struct store *store, const struct store_callback_outcome *outcome,
                           store_done_fn *done, void *data);
/* One whose execution has ended is due again, with all its attempts: the count is 1, or 0 when there is none. */
void store_redrive_callback(struct store *store, const char *id, uint64_t now_ns,
                            store_count_fn *done, void *data);

/* ---- other controllers ---- */

/* News of what other controllers (or this one) have changed, until the store is closed. Never with SQLite, which has no
 * others. Called on the loop thread. */
enum store_news {
    STORE_NEWS_FUNCTION, /* with its name */
    STORE_NEWS_SETTINGS, /* one or several of them */
    STORE_NEWS_WAITING,  /* executions are free */
    STORE_NEWS_ANYTHING, /* functions or settings: news may have been missed */
};
typedef void store_news_fn(void *data, enum store_news news, const char *function);
int store_watch(struct store *store, store_news_fn *news, void *data, struct error *err);

/* Blocking, for start-up only: the value that all controllers use, which is `value` when there was none. malloc'd. */
int store_claim_setting(struct store *store, const char *name, const char *value, char **ret_value,
                        struct error *err);
/* Name and value pairs. value NULL deletes. */
void store_put_setting(struct store *store, const char *name, const char *value,
                       store_done_fn *done, void *data);
/* The same for a name that has no value yet: else ERROR_CONFLICT. */
void store_add_setting(struct store *store, const char *name, const char *value,
                       store_done_fn *done, void *data);
/* Those whose names begin with `prefix`, by name; the blocking one is for start-up only, and calls back once before it
 * returns 0. */
struct store_setting {
    char *name, *value; /* owned by the store; valid during the call */
};
typedef void store_settings_fn(void *data, const struct store_setting *settings, size_t count,
                               const struct error *err);
void store_read_settings(struct store *store, const char *prefix, store_settings_fn *done,
                         void *data);
int store_load_settings(struct store *store, const char *prefix, store_settings_fn *done,
                        void *data, struct error *err);
/* Blocking, for start-up only; *ret_value is malloc'd, NULL when absent. */
int store_get_setting(struct store *store, const char *name, char **ret_value, struct error *err);
