/* What an invocation's end means: pure functions from what was seen to the status, result and error
 * of the contract (docs/api.md). No I/O, no state. */
#pragma once

#include "model/execution.h"

/* The result of contract `process` from its stdout: all of it as JSON; else its last non-empty line
 * as JSON, the lines before it being log; else the text as a JSON string (base64 when it is not
 * UTF-8). */
struct outcome_stdout {
    char *result; /* JSON text; owned by the caller */
    size_t result_len;
    bool base64;
    size_t log_len; /* so many bytes at the start of stdout belong to the log */
};
int outcome_from_stdout(const char *text, size_t len, struct outcome_stdout *ret,
                        struct error *err);

/* Fails the execution: status, type and message (printf). exit_code and signal stay unset. */
void outcome_fail(struct execution *execution, enum execution_status status, const char *type,
                  const char *format, ...) __attribute__((format(printf, 4, 5)));
/* A wait status that is not success. */
void outcome_from_wait_status(struct execution *execution, int wait_status);
/* Error of a handler: {"type", "message", "stack"}; anything malformed is reported as such, cut to
 * sane lengths. */
void outcome_from_handler_error(struct execution *execution, const char *body, size_t len);
/* Result of a handler: JSON as it is, with control characters in its strings escaped where they are not, or a failure. Takes
 * `body`; NULL: there was no memory for it. `ahead`: what was seen of it while it came, or NULL. */
void outcome_from_handler_result(struct execution *execution, char *body, size_t len,
                                 const struct json_ahead *ahead, size_t max_len);
/* The same of a blob, which it takes: where the result is fine as it is, it is the execution's, else a copy is gone on with. */
void outcome_from_handler_blob(struct execution *execution, struct blob *body,
                               const struct json_ahead *ahead, size_t max_len);
/* The platform could not run it: status lost, type "Platform.…", message from `why`. */
void outcome_lost(struct execution *execution, const char *type, const struct error *why);
