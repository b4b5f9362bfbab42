/* What functions hand back: stdout that may be JSON, results and errors of handlers, a wait status. A result is JSON within its limit, and the
 * same whether it was looked at while it came, or lies where another process can read it. */
#include "worker/outcome.h"

#include "base/blob.h"

#include <stdlib.h>
#include <string.h>

#define RESULT_MAX 1000

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_result(const struct execution *execution)
{
    if (execution->status != EXECUTION_SUCCEEDED) {
        if (!execution->has_error || execution->result)
            abort();
        return;
    }
    if (execution->has_error || execution->result_len > RESULT_MAX ||
        json_check(execution->result, execution->result_len,
                   &(struct json_limits){.max_depth = 128}, NULL) < 0)
        abort();
}

static void check_same(const struct execution *one, const struct execution *other)
{
    if (one->status != other->status || one->result_len != other->result_len ||
        (one->result && memcmp(one->result, other->result, one->result_len) != 0))
        abort();
}

static char *copy_of(const char *text, size_t size)
{
    char *copy = malloc(size + 1);
    if (!copy)
        abort();
    memcpy(copy, text, size);
    copy[size] = '\0';
    return copy;
}

static void try_result(const char *text, size_t size)
{
    struct execution plain, ahead, lent;
    struct json_ahead *seen = json_ahead_new();
    execution_init(&plain);
    execution_init(&ahead);
    execution_init(&lent);
    outcome_from_handler_result(&plain, copy_of(text, size), size, NULL, RESULT_MAX);
    check_result(&plain);
    char *body = copy_of(text, size);
    json_ahead_look(seen, body, size / 2);
    json_ahead_look(seen, body, size);
    outcome_from_handler_result(&ahead, body, size, seen, RESULT_MAX);
    check_same(&plain, &ahead);
    struct blob *blob = blob_new(copy_of(text, size), size);
    if (!blob)
        abort();
    outcome_from_handler_blob(&lent, blob, NULL, RESULT_MAX);
    check_same(&plain, &lent);
    json_ahead_free(seen);
    execution_deinit(&plain);
    execution_deinit(&ahead);
    execution_deinit(&lent);
}

static void try_wait_status(const char *text, size_t size)
{
    struct execution execution;
    int status = 0;
    memcpy(&status, text, size < sizeof(status) ? size : sizeof(status));
    execution_init(&execution);
    outcome_from_wait_status(&execution, status);
    if (!execution.has_error || execution.status != EXECUTION_FAILED)
        abort();
    execution_deinit(&execution);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct outcome_stdout outcome;
    struct execution execution;
    char *text = malloc(size + 1);
    if (!text)
        return 0;
    memcpy(text, data, size);
    text[size] = '\0';
    if (outcome_from_stdout(text, size, &outcome, NULL) == 0) {
        if (outcome.log_len > size || outcome.result_len == 0 ||
            json_check(outcome.result, outcome.result_len, &(struct json_limits){.max_depth = 128},
                       NULL) < 0)
            abort();
        free(outcome.result);
    }
    execution_init(&execution);
    outcome_from_handler_error(&execution, text, size);
    if (!execution.error.type || strncmp(execution.error.type, "Platform.", 9) == 0)
        abort();
    execution_deinit(&execution);
    try_result(text, size);
    try_wait_status(text, size);
    free(text);
    return 0;
}
