/* One invocation of a function, as users read it (contract, section 3 "Execution"). */
#pragma once

#include "base/blob.h"
#include "base/json.h"
#include "base/text.h"

enum execution_status {
    EXECUTION_QUEUED,
    EXECUTION_RUNNING,
    EXECUTION_SUCCEEDED,
    EXECUTION_FAILED,
    EXECUTION_TIMED_OUT,
    EXECUTION_OUT_OF_MEMORY,
    EXECUTION_LOST,
    EXECUTION_CANCELLED,
    EXECUTION_STATUS_COUNT
};

const char *execution_status_name(enum execution_status status);
int execution_status_parse(const char *text, enum execution_status *ret, struct error *err);
bool execution_status_final(enum execution_status status);

/* Times in nanoseconds, sizes in bytes. */
struct execution_metrics {
    uint64_t duration;
    uint64_t memory_peak;
    uint64_t network_in;
    uint64_t network_out;
    uint64_t cpu_time;
    uint64_t queue_time;
    uint64_t start_time;
};

/* What is told of a failed function. Strings are owned and may be NULL. */
struct execution_error {
    char *type; /* "ZeroDivisionError", "Function.ExitStatus", "Function.TimedOut", … see
                   docs/api.md */
    char *message;
    int exit_code; /* -1: none */
    char *signal;  /* "SIGSEGV" */
    char *stack;   /* JSON array of strings as text, or NULL */
};

/* Of an asynchronous execution only: what its delivery has come to. */
enum execution_priority { PRIORITY_HIGH = 1, PRIORITY_NORMAL, PRIORITY_LOW };
struct execution_delivery {
    int64_t priority;      /* enum execution_priority */
    int64_t failures;      /* attempts that ended with the function's own failure */
    int64_t losses;        /* attempts whose worker or controller was lost */
    uint64_t aged_from_ns; /* its age counts from here (wall clock) */
    uint64_t dead_at_ns;   /* given up, payload kept: a dead letter since then; 0: not */
    bool interrupted;      /* queued again, but the attempt before may still run */
    bool has_callback;     /* the store knows whom to tell of its end */
};

/* Who is told when an asynchronous execution ends, and how far that has come. Strings are owned. */
struct execution_callback {
    char *url;
    char *state; /* "waiting" for the end, "pending", "delivered", "failed" */
    int64_t attempts;
    int64_t status;           /* the receiver's last answer; 0: none */
    char *error;              /* why the last attempt failed; NULL */
    uint64_t due_at_ns;       /* pending: the next attempt; wall clock */
    uint64_t delivered_at_ns; /* 0: not */
};

struct execution {
    char id[TIME_ID_LEN + 1];
    char *function; /* owned */
    int64_t version;
    enum execution_status status;
    bool async;
    char *result; /* JSON text, owned; NULL: none */
    size_t result_len;
    struct blob
        *shared; /* owned: `result` is its, and not NUL-terminated; NULL: `result` is malloc'd */
    bool taken_as_text; /* of a shared one: it was a JSON string when it was taken */
    bool
        result_base64; /* the result is a JSON string holding base64 of bytes that were not UTF-8 */
    bool has_error;
    struct execution_error error;
    char *logs; /* owned; whole log up to the log limit, bytes as the function wrote them; NULL:
                   none */
    size_t logs_len;
    bool cold_start;
    char *worker;            /* owned */
    const char *waiting_for; /* borrowed: shown of a queued one; NULL: nothing but its turn */
    int64_t attempt;
    uint64_t created_at_ns; /* wall clock */
    uint64_t started_at_ns; /* 0: not yet */
    uint64_t finished_at_ns;
    struct execution_metrics metrics;
    struct execution_delivery delivery;
    struct execution_callback *callback; /* owned; as read from the store; NULL: none */
};

/* "high", "normal", "low". */
const char *execution_priority_name(int64_t priority);
int execution_priority_parse(const char *text, int64_t *ret, struct error *err);

void execution_init(struct execution *execution);
void execution_deinit(struct execution *execution);
/* The result, for somebody else to hold, too; NULL when out of memory. There must be one. */
struct blob *execution_share_result(struct execution *execution);
/* Takes a blob as the result, of which there must be none. */
void execution_take_result(struct execution *execution, struct blob *result);
void execution_drop_result(struct execution *execution);

void execution_callback_free(struct execution_callback *callback);
#define EXECUTION_LOGS_SHOWN 4096
#define EXECUTION_RESULT_DEPTH_MAX 1000 /* levels of JSON */
/* The contract's object; "logs" is the last 4 KiB. */
void execution_write(struct json_writer *writer, const struct execution *execution);
/* The same in two parts: up to where the result belongs (with its key if there is one), and from behind it. */
void execution_write_before_result(struct json_writer *writer, const struct execution *execution);
void execution_write_after_result(struct json_writer *writer, const struct execution *execution);
/* error and metrics as JSON objects of their own, also what the worker link carries. */
void execution_error_write(struct json_writer *writer, const struct execution_error *error);
int execution_error_read(const struct json *value, struct execution_error *error,
                         struct error *err);
void execution_error_deinit(struct execution_error *error);
void execution_metrics_write(struct json_writer *writer, const struct execution_metrics *metrics);
int execution_metrics_read(const struct json *value, struct execution_metrics *metrics,
                           struct error *err);
