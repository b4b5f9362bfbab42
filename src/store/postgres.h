/* The PostgreSQL engine's own pieces: connection, pipeline, prepared statements.
 *
 * The only files that include libpq's header are postgres*.c in this room.
 *
 * Statements travel in libpq's pipeline mode: a write is sent and its outcome read later, at the next read or at the
 * commit, so a batch of a thousand writes costs one round trip. The first failure of a transaction is kept and is that
 * of every later call until the rollback. A write's count of rows is there when the next read or the commit has
 * succeeded.
 *
 * Nothing waits for ever for a server: one that says nothing for POSTGRES_SILENCE_MS is given up like one whose
 * connection broke. Thread: whoever holds the connection. */
#pragma once

#include "store/engine.h"

#include <libpq-fe.h>

#define POSTGRES_SILENCE_MS 30000
#define POSTGRES_CONNECT_TIMEOUT_S "5"
/* An advisory lock, any number: what changes functions and code waits for its like in other controllers. */
#define POSTGRES_FUNCTIONS_LOCK "7305180611"
/* Calls do not wait for longer than STORE_PATIENCE_MS for what another session has locked, so that one does not keep all
 * others waiting. Bringing the schema up does: another controller may be at it. */
#define POSTGRES_LOCK_TIMEOUT "3s"
#define POSTGRES_MIGRATION_LOCK_TIMEOUT "10s"

enum postgres_statement {
    POSTGRES_BEGIN,
    POSTGRES_COMMIT,
    POSTGRES_ROLLBACK,
    POSTGRES_LOCK_FUNCTIONS,
    POSTGRES_PUT_FUNCTION,
    POSTGRES_UPDATE_FUNCTION,
    POSTGRES_ANY_BUILD,
    POSTGRES_CLAIM_BUILDS,
    POSTGRES_SAME_FUNCTION,
    POSTGRES_ADD_LAST_VERSION,
    POSTGRES_CLAIM_SETTING,
    POSTGRES_NOTIFY,
    POSTGRES_PRUNE_CODE,
    POSTGRES_PRUNE_VERSIONS,
    POSTGRES_SWEEP_CODE,
    POSTGRES_LOAD_FUNCTIONS,
    POSTGRES_LOAD_FUNCTION,
    POSTGRES_LOAD_LAST_VERSIONS,
    POSTGRES_LOAD_LAST_VERSION,
    POSTGRES_PUT_CODE,
    POSTGRES_GET_CODE,
    POSTGRES_PUT_EXECUTION,
    POSTGRES_START_EXECUTION,
    POSTGRES_GET_EXECUTION,
    POSTGRES_LIST_EXECUTIONS,
    POSTGRES_LIST_BY_FUNCTION,
    POSTGRES_LIST_BY_STATUS,
    POSTGRES_LIST_BY_BOTH,
    POSTGRES_NTH_NEWEST,
    POSTGRES_EXPIRE,
    POSTGRES_PUT_SETTING,
    POSTGRES_DELETE_SETTING,
    POSTGRES_GET_SETTING,
    POSTGRES_LIST_SETTINGS,
    POSTGRES_JOIN,
    POSTGRES_LEAVE,
    POSTGRES_RENEW,
    POSTGRES_BURY,
    POSTGRES_RELEASE_LOST,
    POSTGRES_PUT_KEY,
    POSTGRES_ACCEPT_EXECUTION,
    POSTGRES_ACCEPT_SEVERAL,
    POSTGRES_WITHDRAW_EXECUTION,
    POSTGRES_WITHDRAW_KEY,
    POSTGRES_FINISH_EXECUTION,
    POSTGRES_RETRY_EXECUTION,
    POSTGRES_CANDIDATES,
    POSTGRES_INTERRUPTED_CANDIDATES,
    POSTGRES_CLAIM,
    POSTGRES_UNCLAIM,
    POSTGRES_PROMOTE_DUE,
    POSTGRES_NEXT_DUE,
    POSTGRES_COUNT_FREE,
    POSTGRES_BACKLOG,
    POSTGRES_CANCEL_WAITING,
    POSTGRES_REDRIVE_ONE,
    POSTGRES_REDRIVE_FUNCTION,
    POSTGRES_REDRIVE_ALL,
    POSTGRES_PURGE_ONE,
    POSTGRES_PURGE_FUNCTION,
    POSTGRES_PURGE_ALL,
    POSTGRES_GET_PAYLOAD,
    POSTGRES_LIST_DEAD,
    POSTGRES_LIST_DEAD_OF,
    POSTGRES_EXPIRE_DEAD,
    POSTGRES_EXPIRE_KEYS,
    POSTGRES_PUT_CALLBACK,
    POSTGRES_GET_CALLBACK,
    POSTGRES_CLAIM_CALLBACKS,
    POSTGRES_NEXT_CALLBACK,
    POSTGRES_FINISH_CALLBACK,
    POSTGRES_REDRIVE_CALLBACK,
    POSTGRES_STATEMENT_COUNT
};

#define POSTGRES_PENDING_MAX 512
#define POSTGRES_PENDING_BYTES_MAX ((size_t)8 * 1024 * 1024)

/* Arguments of a statement, borrowed until it is sent. */
#define POSTGRES_ARGUMENTS_MAX 32
struct postgres_arguments {
    int count;
    const char *values[POSTGRES_ARGUMENTS_MAX];
    int lengths[POSTGRES_ARGUMENTS_MAX];
    int formats[POSTGRES_ARGUMENTS_MAX];
    uint64_t numbers[POSTGRES_ARGUMENTS_MAX]; /* in network order */
    size_t bytes;
};

/* Executions that are accepted in one transaction go several in a statement: POSTGRES_ACCEPT_SEVERAL has as many rows. */
#define POSTGRES_GATHERED_MAX 8
struct postgres_gathered {
    struct {
        struct postgres_arguments arguments;
        struct buffer error, metrics; /* what they bind */
    } rows[POSTGRES_GATHERED_MAX];
    int count;
};

struct postgres_store {
    char *url;     /* owned; may hold a password: never shown */
    PGconn *pg;    /* NULL: no connection */
    bool broken;   /* the connection is of no more use */
    bool collided; /* the transaction failed for another one's sake: it may be made again */
    bool in_transaction;
    bool frees;       /* the transaction makes executions free: other controllers are told */
    uint64_t told_ns; /* when they were told last (monotonic) */
    char name[RANDOM_ID_LEN + 1]; /* by which it knows what it told itself */
    struct error failure;         /* the transaction's first, when its code is set */
    struct {
        const char *what;
        int64_t *ret_rows;
    } pending[POSTGRES_PENDING_MAX]; /* sent, outcome not read yet */
    size_t pending_count, pending_bytes;
    struct postgres_gathered gathered; /* not sent yet: before any other statement they are */
};

/* ---- postgres_connection.c ---- */

/* Connects, brings the schema up and prepares the statements; does nothing while there is a connection. */
int postgres_connect(struct postgres_store *store, struct error *err);
void postgres_disconnect(struct postgres_store *store);
/* Runs SQL text and waits, outside of the pipeline; the last statement's rows in *ret unless it is NULL. */
int postgres_execute(struct postgres_store *store, const char *sql, PGresult **ret,
                     struct error *err);

/* A connection by the engine's defaults for time limits; libpq's own outcome. */
PGconn *postgres_new_connection(const char *url);

/* ---- postgres_listen.c ---- */
void *postgres_listen(void *db, store_heard_fn *heard, void *data, struct error *err);
void postgres_unlisten(void *listener);

/* ---- postgres_pipeline.c ---- */

/* NULL binds NULL. */
void postgres_bind_text(struct postgres_arguments *arguments, const char *text);
void postgres_bind_text_len(struct postgres_arguments *arguments, const char *text, size_t len);
void postgres_bind_bytes(struct postgres_arguments *arguments, const char *bytes, size_t len);
void postgres_bind_int(struct postgres_arguments *arguments, int64_t number);
/* An array as PostgreSQL writes it: "{a,b}". */
void postgres_bind_array(struct postgres_arguments *arguments, const char *text);
void postgres_bind_bool(struct postgres_arguments *arguments, bool value);

/* Says why the connection is of no more use; returns -1. */
int postgres_lose(struct postgres_store *store, struct error *err, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* What a result that tells of a failure says, as an error; returns -1. */
int postgres_fail(struct postgres_store *store, const PGresult *result, const char *what,
                  struct error *err);
/* 0 with the next result (NULL at the end of a statement's), waiting for it; -1 when the connection is lost. */
int postgres_next(struct postgres_store *store, PGresult **ret, struct error *err);

/* Sends a write. *ret_rows (may be NULL) gets the count of its rows when its outcome is read. */
int postgres_write(struct postgres_store *store, enum postgres_statement which,
                   const struct postgres_arguments *arguments, const char *what, int64_t *ret_rows,
                   struct error *err);
/* The rows of a statement; NULL with `err` set. The caller clears them (auto_result). */
PGresult *postgres_read(struct postgres_store *store, enum postgres_statement which,
                        const struct postgres_arguments *arguments, const char *what,
                        struct error *err);
/* As postgres_write(), with arguments as libpq takes them, past what was gathered. */
int postgres_send(struct postgres_store *store, enum postgres_statement which, int count,
                  const char *const *values, const int *lengths, const int *formats, size_t bytes,
                  const char *what, int64_t *ret_rows, struct error *err);
/* Ends what was sent since the last one; reads every outcome. */
int postgres_sync(struct postgres_store *store, struct error *err);
/* Sends the preparation of all statements and waits for it. */
int postgres_prepare(struct postgres_store *store, struct error *err);

static inline void postgres_result_clear(PGresult *const *result)
{
    PQclear(*result);
}
#define auto_result __attribute__((__cleanup__(postgres_result_clear))) PGresult

int64_t postgres_get_int(const PGresult *rows, int row, int column);
bool postgres_get_bool(const PGresult *rows, int row, int column);
/* NULL for NULL; valid as long as the rows. */
const char *postgres_get_text(const PGresult *rows, int row, int column);
/* Copies; NULL for NULL. */
int postgres_get_copy(const PGresult *rows, int row, int column, char **ret, size_t *ret_len,
                      struct error *err);

/* ---- postgres_statements.c ---- */
extern const char *const postgres_statement_texts[POSTGRES_STATEMENT_COUNT];

/* ---- postgres_migrations.c ---- */
extern const int postgres_schema_version;
/* Brings the schema from whatever version it has to `target` in one transaction that other controllers wait for.
 * Refuses a newer schema. */
int postgres_migrate(struct postgres_store *store, int target, struct error *err);
/* For tests: an empty schema of an earlier version. */
int postgres_create_at_version(const char *url, int version, struct error *err);

/* ---- postgres_functions.c ---- */
int postgres_update_function(void *db, const struct function_record *record, struct error *err);
int postgres_claim_builds(void *db, const char *owner, struct store_engine_backlog *builds,
                          struct error *err);
int postgres_delete_function(void *db, const char *name, struct error *err);
int postgres_prune_versions(void *db, const char *name, int64_t version, struct error *err);
int postgres_add_function(void *db, const struct function_record *record, struct error *err);
int postgres_load_functions(void *db, const char *name, store_function_each_fn *each, void *data,
                            struct error *err);
int postgres_load_last_versions(void *db, const char *name, store_last_version_each_fn *each,
                                void *data, struct error *err);
int postgres_put_code(void *db, const char *sha256, const char *bytes, size_t len,
                      struct error *err);
int postgres_get_code(void *db, const char *sha256, char **ret_bytes, size_t *ret_len,
                      struct error *err);

/* Queued, free executions of a function that is no more are cancelled. */
int postgres_cancel_waiting(void *db, const char *function, struct error *err);

/* ---- postgres_executions.c ---- */
/* Binds RECORD_HEAD. The buffers hold what is bound. */
int postgres_bind_head(struct postgres_arguments *arguments, const struct execution *execution,
                       struct buffer *error, struct buffer *metrics, struct error *err);
/* RECORD_BODY, behind it. */
void postgres_bind_body(struct postgres_arguments *arguments, const struct execution *execution);
int postgres_read_head(const PGresult *rows, int row, struct execution *execution,
                       struct error *err);
int postgres_put_execution(void *db, const struct execution *execution, struct error *err);
int postgres_get_execution(void *db, const char *id, struct execution *execution, bool *ret_found,
                           struct error *err);
int postgres_list_executions(void *db, const struct execution_query *query,
                             struct store_engine_execution_page *page, struct error *err);
int postgres_expire_executions(void *db, const struct store_retention *retention, int limit,
                               bool *ret_more, struct error *err);

/* ---- postgres_gather.c ---- */

/* Writes an accepted execution, with others or by itself. All that it binds stands until the transaction ends. */
int postgres_gather(struct postgres_store *store, const struct execution *execution,
                    const char *payload, size_t payload_len, const char *owner, struct error *err);
/* Sends those that were gathered. */
int postgres_send_gathered(struct postgres_store *store, struct error *err);
/* Forgets them: the transaction is undone, or the connection is lost. */
void postgres_drop_gathered(struct postgres_store *store);

/* ---- postgres_delivery.c ---- */
int postgres_join(void *db, const char *owner, int64_t lease_ms, struct error *err);
int postgres_leave(void *db, const char *owner, struct error *err);
int postgres_renew(void *db, const char *owner, int64_t lease_ms, bool *ret_held,
                   struct error *err);
int postgres_accept_execution(void *db, const struct execution *execution, const char *payload,
                              size_t payload_len, const struct store_acceptance *acceptance,
                              char *ret_id, struct error *err);
int postgres_withdraw_execution(void *db, const char *id, const char *function, const char *key,
                                struct error *err);
int postgres_start_execution(void *db, const char *owner, const char *id, int64_t attempt,
                             int64_t losses, uint64_t started_at_ns, struct error *err);
int postgres_finish_execution(void *db, const char *owner, const struct execution *execution,
                              struct error *err);
int postgres_retry_execution(void *db, const char *owner, const struct execution *execution,
                             uint64_t due_at_ns, struct error *err);
int postgres_claim_executions(void *db, const char *owner, const char *function, int limit,
                              size_t max_bytes, struct store_engine_claim *claim,
                              struct error *err);
int postgres_unclaim_executions(void *db, const char *owner, const struct store_engine_claim *claim,
                                struct error *err);
int postgres_count_free(void *db, int64_t limit, int64_t *ret, struct error *err);
int postgres_backlog(void *db, uint64_t now_ns, const char *after,
                     struct store_engine_backlog *backlog, struct error *err);
int postgres_redrive_dead(void *db, const char *id, const char *function, uint64_t now_ns,
                          int limit, int64_t *ret_count, struct error *err);
int postgres_purge_dead(void *db, const char *id, const char *function, int limit,
                        int64_t *ret_count, struct error *err);
int postgres_get_payload(void *db, const char *id, char **ret_payload, size_t *ret_len,
                         struct error *err);

/* ---- postgres_callbacks.c ---- */
int postgres_put_callback(struct postgres_store *store, const char *id,
                          const struct store_acceptance *acceptance, struct error *err);
/* The callback of an execution, if it has one. */
int postgres_get_callback(struct postgres_store *store, struct execution *execution,
                          struct error *err);
int postgres_claim_callbacks(void *db, const struct store_callback_claim *claim,
                             struct store_engine_callbacks *out, struct error *err);
int postgres_finish_callback(void *db, const struct store_callback_outcome *outcome,
                             struct error *err);
int postgres_redrive_callback(void *db, const char *id, uint64_t now_ns, int64_t *ret_count,
                              struct error *err);
