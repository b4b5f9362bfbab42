/* The SQLite engine's own pieces: connection, prepared statements, helpers for binding and reading.
 *
 * The only files that include sqlite3.h are sqlite*.c in this room. Thread: whoever holds the
 * connection. */
#pragma once

#include "store/engine.h"
#include "store/sqlite_large.h"

#include <sqlite3.h>

enum sqlite_statement {
    STATEMENT_BEGIN,
    STATEMENT_COMMIT,
    STATEMENT_ROLLBACK,
    STATEMENT_PUT_FUNCTION,
    STATEMENT_UPDATE_FUNCTION,
    STATEMENT_SAME_FUNCTION,
    STATEMENT_ADD_LAST_VERSION,
    STATEMENT_CLAIM_SETTING,
    STATEMENT_PRUNE_CODE,
    STATEMENT_PRUNE_VERSIONS,
    STATEMENT_SWEEP_CODE,
    STATEMENT_LOAD_FUNCTIONS,
    STATEMENT_LOAD_FUNCTION,
    STATEMENT_LOAD_LAST_VERSIONS,
    STATEMENT_LOAD_LAST_VERSION,
    STATEMENT_PUT_CODE,
    STATEMENT_GET_CODE,
    STATEMENT_PUT_EXECUTION,
    STATEMENT_START_EXECUTION,
    STATEMENT_GET_EXECUTION,
    STATEMENT_LIST_EXECUTIONS,
    STATEMENT_LIST_BY_FUNCTION,
    STATEMENT_LIST_BY_STATUS,
    STATEMENT_LIST_BY_BOTH,
    STATEMENT_NTH_NEWEST,
    STATEMENT_EXPIRE,
    STATEMENT_PUT_SETTING,
    STATEMENT_DELETE_SETTING,
    STATEMENT_GET_SETTING,
    STATEMENT_LIST_SETTINGS,
    STATEMENT_JOIN,
    STATEMENT_LEAVE,
    STATEMENT_RENEW,
    STATEMENT_RELEASE_LOST,
    STATEMENT_PUT_KEY,
    STATEMENT_ACCEPT_EXECUTION,
    STATEMENT_WITHDRAW_EXECUTION,
    STATEMENT_WITHDRAW_KEY,
    STATEMENT_FINISH_EXECUTION,
    STATEMENT_RETRY_EXECUTION,
    STATEMENT_CANDIDATES,
    STATEMENT_INTERRUPTED_CANDIDATES,
    STATEMENT_CLAIM,
    STATEMENT_PROMOTE_DUE,
    STATEMENT_NEXT_DUE,
    STATEMENT_COUNT_FREE,
    STATEMENT_BACKLOG,
    STATEMENT_CANCEL_WAITING,
    STATEMENT_REDRIVE_ONE,
    STATEMENT_REDRIVE_FUNCTION,
    STATEMENT_REDRIVE_ALL,
    STATEMENT_PURGE_ONE,
    STATEMENT_PURGE_FUNCTION,
    STATEMENT_PURGE_ALL,
    STATEMENT_GET_PAYLOAD,
    STATEMENT_LIST_DEAD,
    STATEMENT_LIST_DEAD_OF,
    STATEMENT_EXPIRE_DEAD,
    STATEMENT_EXPIRE_KEYS,
    STATEMENT_PUT_CALLBACK,
    STATEMENT_GET_CALLBACK,
    STATEMENT_DUE_CALLBACKS,
    STATEMENT_CLAIM_CALLBACK,
    STATEMENT_NEXT_CALLBACK,
    STATEMENT_FINISH_CALLBACK,
    STATEMENT_REDRIVE_CALLBACK,
    STATEMENT_COUNT
};

extern const char *const sqlite_statement_texts[STATEMENT_COUNT];

struct sqlite_store {
    sqlite3 *db;
    int lock_fd; /* held while the database is open: one process at a time; -1 in memory */
    sqlite3_stmt *statements[STATEMENT_COUNT]; /* prepared when first used */
    struct sqlite_large large;
};

/* Sets `err` from the connection's last error; returns -1. */
int sqlite_fail(sqlite3 *db, struct error *err, const char *what);
/* The prepared statement, ready to be bound; NULL with `err` set. sqlite_release() gives it back.
 */
sqlite3_stmt *sqlite_statement(struct sqlite_store *store, enum sqlite_statement which,
                               struct error *err);
void sqlite_release(sqlite3_stmt *const *statement);
#define auto_statement __attribute__((__cleanup__(sqlite_release))) sqlite3_stmt

/* Steps a statement that gives no rows. */
int sqlite_run(struct sqlite_store *store, sqlite3_stmt *statement, const char *what,
               struct error *err);
/* 1: a row; 0: no more; -1: failed. */
int sqlite_next(struct sqlite_store *store, sqlite3_stmt *statement, const char *what,
                struct error *err);
/* Bound without a copy: `text` and `bytes` must live until the statement is released. NULL binds
 * NULL.
 */
void sqlite_bind_string(sqlite3_stmt *statement, int index, const char *text);
void sqlite_bind_bytes(sqlite3_stmt *statement, int index, const char *bytes, size_t len);
/* Copies; NULL for NULL. -1 when out of memory. */
int sqlite_column_copy(sqlite3_stmt *statement, int column, char **ret, size_t *ret_len,
                       struct error *err);

/* ---- sqlite_migrations.c ---- */
extern const int sqlite_schema_version;
/* Brings the schema from whatever version it has to `target` (the newest: sqlite_schema_version),
 * each step in a transaction of its own, noted in table schema_migrations. Refuses a newer schema.
 */
int sqlite_migrate(sqlite3 *db, int target, struct error *err);
/* 0 for a database without a schema. */
int sqlite_read_version(sqlite3 *db, int *ret, struct error *err);
/* Refuses one that this program does not know. */
int sqlite_check_version(int version, struct error *err);
/* For tests: makes an empty database file of an earlier version. */
int sqlite_create_at_version(const char *path, int version, struct error *err);

/* Keeps every other controller (and a restore) out while the descriptor is open. */
int sqlite_lock(const char *path, int *ret_fd, struct error *err);

/* ---- sqlite_backup.c ---- */
int sqlite_backup(const char *path, const char *file, struct error *err);
int sqlite_restore(const char *path, const char *file, struct error *err);
/* Makes an entry of the folder that holds `path` durable. */
int sqlite_sync_folder_of(const char *path, struct error *err);

/* ---- sqlite_functions.c ---- */
int sqlite_update_function(void *db, const struct function_record *record, struct error *err);
int sqlite_delete_function(void *db, const char *name, struct error *err);
int sqlite_prune_versions(void *db, const char *name, int64_t version, struct error *err);
int sqlite_add_function(void *db, const struct function_record *record, struct error *err);
int sqlite_load_functions(void *db, const char *name, store_function_each_fn *each, void *data,
                          struct error *err);
int sqlite_load_last_versions(void *db, const char *name, store_last_version_each_fn *each,
                              void *data, struct error *err);
int sqlite_put_code(void *db, const char *sha256, const char *bytes, size_t len, struct error *err);
int sqlite_get_code(void *db, const char *sha256, char **ret_bytes, size_t *ret_len,
                    struct error *err);

/* Removes what waits for a function that is no more: queued, free executions are cancelled. */
int sqlite_cancel_waiting(void *db, const char *function, struct error *err);

/* ---- sqlite_executions.c ---- */
/* Binds RECORD_HEAD, from 1. The buffers hold what is bound. */
int sqlite_bind_head(sqlite3_stmt *statement, const struct execution *execution,
                     struct buffer *error, struct buffer *metrics, struct error *err);
/* RECORD_BODY, behind it; a large result goes beside the database, and its file's name (`file` holds it) and length are
 * bound from `place` on. */
int sqlite_bind_body(struct sqlite_store *store, sqlite3_stmt *statement,
                     const struct execution *execution, int place,
                     char file[SQLITE_LARGE_NAME_SIZE], struct error *err);
int sqlite_read_head(sqlite3_stmt *row, struct execution *execution, struct error *err);
int sqlite_put_execution(void *db, const struct execution *execution, struct error *err);
int sqlite_get_execution(void *db, const char *id, struct execution *execution, bool *ret_found,
                         struct error *err);
int sqlite_list_executions(void *db, const struct execution_query *query,
                           struct store_engine_execution_page *page, struct error *err);
int sqlite_expire_executions(void *db, const struct store_retention *retention, int limit,
                             bool *ret_more, struct error *err);

/* ---- sqlite_delivery.c ---- */
int sqlite_join(void *db, const char *owner, int64_t lease_ms, struct error *err);
int sqlite_leave(void *db, const char *owner, struct error *err);
int sqlite_renew(void *db, const char *owner, int64_t lease_ms, bool *ret_held, struct error *err);
int sqlite_accept_execution(void *db, const struct execution *execution, const char *payload,
                            size_t payload_len, const struct store_acceptance *acceptance,
                            char *ret_id, struct error *err);
int sqlite_withdraw_execution(void *db, const char *id, const char *function, const char *key,
                              struct error *err);
int sqlite_start_execution(void *db, const char *owner, const char *id, int64_t attempt,
                           int64_t losses, uint64_t started_at_ns, struct error *err);
int sqlite_finish_execution(void *db, const char *owner, const struct execution *execution,
                            struct error *err);
int sqlite_retry_execution(void *db, const char *owner, const struct execution *execution,
                           uint64_t due_at_ns, struct error *err);
int sqlite_claim_executions(void *db, const char *owner, const char *function, int limit,
                            size_t max_bytes, struct store_engine_claim *claim, struct error *err);
int sqlite_count_free(void *db, int64_t limit, int64_t *ret, struct error *err);
int sqlite_backlog(void *db, uint64_t now_ns, const char *after,
                   struct store_engine_backlog *backlog, struct error *err);
int sqlite_redrive_dead(void *db, const char *id, const char *function, uint64_t now_ns, int limit,
                        int64_t *ret_count, struct error *err);
int sqlite_purge_dead(void *db, const char *id, const char *function, int limit, int64_t *ret_count,
                      struct error *err);
int sqlite_get_payload(void *db, const char *id, char **ret_payload, size_t *ret_len,
                       struct error *err);

/* ---- sqlite_callbacks.c ---- */
int sqlite_put_callback(struct sqlite_store *store, const char *id,
                        const struct store_acceptance *acceptance, struct error *err);
/* The callback of an execution, if it has one. */
int sqlite_get_callback(struct sqlite_store *store, struct execution *execution, struct error *err);
int sqlite_claim_callbacks(void *db, const struct store_callback_claim *claim,
                           struct store_engine_callbacks *out, struct error *err);
int sqlite_finish_callback(void *db, const struct store_callback_outcome *outcome,
                           struct error *err);
int sqlite_redrive_callback(void *db, const char *id, uint64_t now_ns, int64_t *ret_count,
                            struct error *err);
