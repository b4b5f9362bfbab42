/* One invocation's record as an object, and as the contract's JSON. (Its error and metrics are in execution_parts.c.) */
#include "model/execution.h"

#include "base/loop.h"

#include <stdlib.h>
#include <string.h>

static const struct {
    const char *name;
    bool final;
} statuses[EXECUTION_STATUS_COUNT] = {
    [EXECUTION_QUEUED] = {"queued", false},
    [EXECUTION_RUNNING] = {"running", false},
    [EXECUTION_SUCCEEDED] = {"succeeded", true},
    [EXECUTION_FAILED] = {"failed", true},
    [EXECUTION_TIMED_OUT] = {"timed_out", true},
    [EXECUTION_OUT_OF_MEMORY] = {"out_of_memory", true},
    [EXECUTION_LOST] = {"lost", true},
    [EXECUTION_CANCELLED] = {"cancelled", true},
};

const char *execution_status_name(enum execution_status status)
{
    return statuses[status].name;
}

int execution_status_parse(const char *text, enum execution_status *ret, struct error *err)
{
    for (int i = 0; i < EXECUTION_STATUS_COUNT; i++)
        if (strcmp(text, statuses[i].name) == 0) {
            *ret = (enum execution_status)i;
            return 0;
        }
    return error_set_field(err, ERROR_INVALID_REQUEST, "/status",
                           "status must be queued, running, succeeded, failed, timed_out, "
                           "out_of_memory, lost or cancelled, not \"%.64s\"",
                           text);
}

bool execution_status_final(enum execution_status status)
{
    return statuses[status].final;
}

static const char *const priorities[] = {
    [PRIORITY_HIGH] = "high", [PRIORITY_NORMAL] = "normal", [PRIORITY_LOW] = "low"};

const char *execution_priority_name(int64_t priority)
{
    bool known = priority >= PRIORITY_HIGH && priority <= PRIORITY_LOW;
    return priorities[known ? priority : PRIORITY_NORMAL];
}

int execution_priority_parse(const char *text, int64_t *ret, struct error *err)
{
    for (int64_t i = PRIORITY_HIGH; i <= PRIORITY_LOW; i++)
        if (strcmp(text, priorities[i]) == 0) {
            *ret = i;
            return 0;
        }
    return error_set_field(err, ERROR_INVALID_REQUEST, "priority",
                           "priority must be high, normal or low, not \"%.40s\"", text);
}

void execution_init(struct execution *execution)
{
    *execution =
        (struct execution){.error = {.exit_code = -1}, .delivery = {.priority = PRIORITY_NORMAL}};
}

struct blob *execution_share_result(struct execution *execution)
{
    if (!execution->shared)
        execution->shared = blob_new(execution->result, execution->result_len);
    return execution->shared ? blob_ref(execution->shared) : NULL;
}

void execution_take_result(struct execution *execution, struct blob *result)
{
    execution->shared = result;
    execution->taken_as_text = result->len > 0 && result->bytes[0] == '"';
    execution->result = (char *)result->bytes; /* which nobody writes to */
    execution->result_len = result->len;
}

void execution_drop_result(struct execution *execution)
{
    if (execution->shared)
        blob_unref(execution->shared);
    else
        free(execution->result);
    execution->shared = NULL;
    execution->result = NULL;
    execution->result_len = 0;
}

void execution_callback_free(struct execution_callback *callback)
{
    if (!callback)
        return;
    free(callback->url);
    free(callback->state);
    free(callback->error);
    free(callback);
}

void execution_deinit(struct execution *execution)
{
    execution_callback_free(execution->callback);
    free(execution->function);
    execution_drop_result(execution);
    free(execution->logs);
    free(execution->worker);
    execution_error_deinit(&execution->error);
    execution_init(execution);
}

/* The end of the log, not beginning in the middle of a character. */
static void write_logs(struct json_writer *writer, const struct execution *execution)
{
    size_t len = execution->logs_len;
    const char *start = execution->logs;
    if (len > EXECUTION_LOGS_SHOWN) {
        start += len - EXECUTION_LOGS_SHOWN;
        len = EXECUTION_LOGS_SHOWN;
        for (int i = 0; i < 3 && ((unsigned char)*start & 0xC0) == 0x80; i++) {
            start++;
            len--;
        }
    }
    json_key(writer, "logs");
    json_write_string_len(writer, start, len);
}

static void write_time(struct json_writer *writer, const char *key, uint64_t realtime_ns)
{
    char text[25];
    if (realtime_ns == 0)
        return;
    clock_format_rfc3339(realtime_ns, text);
    json_member_string(writer, key, text);
}

static void write_callback(struct json_writer *writer, const struct execution_callback *callback)
{
    json_key(writer, "callback");
    json_object_begin(writer);
    json_member_string(writer, "url", callback->url);
    json_member_string(writer, "state", callback->state);
    json_member_int(writer, "attempts", callback->attempts);
    if (callback->status > 0)
        json_member_int(writer, "last_status", callback->status);
    json_member_string(writer, "last_error", callback->error);
    if (callback->state && strcmp(callback->state, "pending") == 0)
        write_time(writer, "next_attempt_at", callback->due_at_ns);
    write_time(writer, "delivered_at", callback->delivered_at_ns);
    json_object_end(writer);
}

void execution_write_before_result(struct json_writer *writer, const struct execution *execution)
{
    json_object_begin(writer);
    json_member_string(writer, "id", execution->id);
    json_member_string(writer, "function", execution->function);
    json_member_int(writer, "version", execution->version);
    json_member_string(writer, "status", execution_status_name(execution->status));
    if (execution->result)
        json_key(writer, "result");
}

void execution_write_after_result(struct json_writer *writer, const struct execution *execution)
{
    if (execution->result_base64)
        json_member_bool(writer, "result_base64", true);
    if (execution->has_error) {
        json_key(writer, "error");
        execution_error_write(writer, &execution->error);
    }
    if (execution->logs)
        write_logs(writer, execution);
    json_member_bool(writer, "cold_start", execution->cold_start);
    json_member_string(writer, "worker", execution->worker);
    json_member_string(writer, "waiting_for", execution->waiting_for);
    json_member_int(writer, "attempt", execution->attempt);
    write_time(writer, "created_at", execution->created_at_ns);
    write_time(writer, "started_at", execution->started_at_ns);
    write_time(writer, "finished_at", execution->finished_at_ns);
    write_time(writer, "dead_at", execution->delivery.dead_at_ns);
    if (execution->callback)
        write_callback(writer, execution->callback);
    json_key(writer, "metrics");
    execution_metrics_write(writer, &execution->metrics);
    json_object_end(writer);
}

void execution_write(struct json_writer *writer, const struct execution *execution)
{
    execution_write_before_result(writer, execution);
    if (execution->result)
        json_write_raw(writer, execution->result, execution->result_len);
    execution_write_after_result(writer, execution);
}
