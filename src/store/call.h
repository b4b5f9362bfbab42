/* One call of the store's interface as a job for its queue: arguments and outcome. Each kind uses the members it needs;
 * all are owned.
 *
 * call_new() -> fill in -> push_write() (calls that only write) or store_queue_push(); the job's finish calls back on the
 * loop thread and ends with call_free(). A run function may be called again after a rollback, so it first removes what an
 * earlier run left in the call. */
#pragma once

#include "store/queue.h"

struct store {
    const struct store_engine *engine;
    void *db;                  /* the engine's */
    struct store_queue *queue; /* owned */
    struct store_watch *watch; /* owned; see watch.c */
};

/* Ends it; accepts NULL. */
void store_watch_free(struct store_watch *watch);

struct store_engine_functions {
    struct function_record *items; /* owned */
    size_t count;
    bool failed; /* out of memory */
};

struct call {
    struct store_job job; /* first member: a job is a call */
    const char *what;     /* for the log */
    store_done_fn *done;
    store_code_fn *code_done;
    store_execution_fn *execution_done;
    store_executions_fn *executions_done;
    store_accepted_fn *accepted_done;
    store_claimed_fn *claimed_done;
    store_backlog_fn *backlog_done;
    store_builds_fn *builds_done;
    store_renewed_fn *renewed_done;
    store_count_fn *count_done;
    store_functions_fn *functions_done;
    store_settings_fn *settings_done;
    store_callbacks_fn *callbacks_done;
    void *data;

    char *name, *value, *owner;
    int64_t number, losses;
    uint64_t time_ns;
    size_t max_bytes;
    struct function_record record;
    struct execution execution;
    bool found;
    char *bytes;
    size_t bytes_len;
    struct execution_query query; /* its strings are `name` and `value` */
    struct store_engine_execution_page page;
    struct store_retention retention;
    struct store_acceptance acceptance; /* its strings are `owner` and `value` */
    char accepted_id[TIME_ID_LEN + 1];
    struct store_engine_claim claim;
    struct store_engine_backlog backlog;
    struct store_engine_functions functions;
    struct store_engine_settings settings;
    struct store_callback_claim callback_claim; /* its string is `value` */
    struct store_callback_outcome outcome;      /* its strings are `name`, `owner` and `value` */
    struct store_engine_callbacks callbacks;
    char *callback_url, *callback_host, *callback_secret; /* of `acceptance` */
};

static inline struct call *call_of(struct store_job *job)
{
    return (struct call *)job;
}

struct call *call_new(const char *what, store_run_fn *run, void *data);
void call_free(struct call *call);
void call_push_write(struct store *store, struct call *call, store_done_fn *done);
/* The `finish` of a call that reads bytes: gives `bytes` away to code_done. */
void call_finish_bytes(struct store_job *job);
/* Of one that counts: tells count_done the `number`. */
void call_finish_count(struct store_job *job);
/* NULL for NULL. */
char *call_copy_text(const char *text);

void store_functions_clear(struct store_engine_functions *functions);
void store_page_clear(struct store_engine_execution_page *page);
void store_claim_clear(struct store_engine_claim *claim);
