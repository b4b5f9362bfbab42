/* What workers call: docs/worker-protocol.md. */
#include "controller/controller.h"
#include "controller/handlers.h"
#include "controller/worker_message.h"

#include "base/log.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* ---- messages ---- */

static char *copy_bytes(const char *bytes, size_t len)
{
    char *copy = malloc(len + 1);
    if (copy) {
        if (len > 0)
            memcpy(copy, bytes, len);
        copy[len] = '\0';
    }
    return copy;
}

/* Where it lies, when it is passed on from there to the client and to a file. */
static void take_result_text(struct execution *record, const struct worker_message *message,
                             struct message_in *in)
{
    struct blob *held =
        message->result_len > STORE_LARGE_BYTES ? message_hold(in, message->result_len) : NULL;
    if (held) {
        execution_take_result(record, held);
        return;
    }
    record->result = message_take_body(in); /* the log lies behind it */
    record->result_len = record->result ? message->result_len : 0;
    if (record->result)
        record->result[record->result_len] = '\0';
}

/* The record's part that the worker knows. */
static void fill_record(const struct controller *controller, struct execution *record,
                        struct worker_message *message, struct message_in *in)
{
    uint64_t queue_time = record->metrics.queue_time;
    record->status = message->status;
    record->cold_start = message->cold_start;
    record->metrics = message->metrics;
    record->metrics.queue_time = queue_time;
    record->has_error = message->has_error;
    record->error = message->error;
    memset(&message->error, 0, sizeof(message->error));
    size_t log_max = (size_t)controller->config.log_max_bytes + 1024; /* with its marker */
    size_t cut = message->logs_len > log_max ? message->logs_len - log_max : 0;
    record->logs_len = message->logs_len - cut;
    record->logs = copy_bytes(message->logs + cut, record->logs_len); /* "" when it wrote none */
    if (message->result) {
        take_result_text(record, message, in);
        record->result_base64 = message->result_base64;
    }
}

static void set_error(struct execution *record, enum execution_status status, const char *type,
                      const char *message)
{
    execution_error_deinit(&record->error);
    record->error =
        (struct execution_error){.type = strdup(type), .message = strdup(message), .exit_code = -1};
    record->has_error = true;
    record->status = status;
}

/* What must hold whatever the worker says. */
static void check_record(const struct controller *controller, struct execution *record,
                         const struct function_entry *function)
{
    if (record->result_len > (size_t)controller->config.result_max_bytes) {
        execution_drop_result(record);
        set_error(record, EXECUTION_FAILED, "Function.ResultTooLarge",
                  "the result is over the limit (setting CONTROLLER_RESULT_MAX_BYTES)");
    } else if (record->status == EXECUTION_LOST && !function->newest) {
        set_error(record, EXECUTION_CANCELLED, "Platform.FunctionDeleted",
                  "the function was deleted before this could run");
    } else if (record->status != EXECUTION_SUCCEEDED && !record->has_error) {
        set_error(record, record->status, "Platform.NoReason",
                  "the worker gave no reason for this status");
    } else if (record->status == EXECUTION_SUCCEEDED && record->has_error) {
        execution_error_deinit(&record->error);
        memset(&record->error, 0, sizeof(record->error));
        record->has_error = false;
    }
}

/* The execution that a message is about, when it is about the attempt that counts. */
static struct live_execution *find_running(struct controller *controller,
                                           const struct worker_session *session,
                                           const struct worker_message *message)
{
    struct live_execution *execution = executions_find(controller, message->id);
    return execution && execution->session == session &&
                   execution->record.attempt == message->attempt
               ? execution
               : NULL;
}

/* One that was queued again, while the attempt before has come to its end after all: it was not lost. */
static struct live_execution *find_interrupted(struct controller *controller,
                                               const struct worker_message *message)
{
    struct live_execution *execution = executions_find(controller, message->id);
    if (!execution || !execution->interrupted || list_empty(&execution->queue_link) ||
        execution->record.attempt - 1 != message->attempt)
        return NULL;
    dispatch_remove(&controller->dispatch, execution);
    execution->record.attempt--;
    execution->record.delivery.losses--;
    return execution;
}

/* Whether its instance is there for the next one. */
static bool instance_stays(enum execution_status status)
{
    return status == EXECUTION_SUCCEEDED || status == EXECUTION_FAILED;
}

static void take_result(struct controller *controller, struct worker_session *session,
                        struct worker_message *message, struct message_in *in)
{
    struct live_execution *execution = find_running(controller, session, message);
    if (execution && instance_stays(message->status))
        dispatch_warm_adjust(&session->dispatch, execution->version->key, 1);
    if (!execution && !(execution = find_interrupted(controller, message)))
        return;
    fill_record(controller, &execution->record, message, in);
    check_record(controller, &execution->record, execution->version->function);
    log_finished(controller, execution, message->logs_total);
    executions_finish(controller, execution);
}

void worker_message_take(struct controller *controller, struct worker_session *session,
                         struct worker_message *message, struct message_in *in)
{
    session_heard(session);
    if (message->kind == WORKER_MESSAGE_RESULT) {
        take_result(controller, session, message, in);
    } else if (message->kind == WORKER_MESSAGE_BUILD_RESULT) {
        builds_result(controller, message);
    } else if (message->kind == WORKER_MESSAGE_LOG) {
        struct live_execution *execution = find_running(controller, session, message);
        if (execution)
            log_chunk(controller, execution, message->offset, message->bytes, message->bytes_len);
    }
}

/* ---- definitions and code ---- */

void serve_worker_function(struct http_request *request, void *data)
{
    struct controller *controller = data;
    struct error err = {0};
    struct json_answer answer;
    const char *name = http_request_param(request, "name");
    const char *number = http_request_param(request, "version");
    char *end;
    errno = 0;
    long long version = strtoll(number, &end, 10);
    const struct function_version *found =
        errno == 0 && end != number && !*end
            ? registry_find_version(&controller->registry, name, version)
            : NULL;
    if (!found) {
        error_set(&err, ERROR_NOT_FOUND, "there is no version %.20s of a function %.80s", number,
                  name);
        http_respond_error(request, &err);
        return;
    }
    if (json_answer_begin(&answer, request) < 0)
        return;
    json_object_begin(answer.writer);
    function_spec_write_members(answer.writer, &found->record.spec);
    json_object_end(answer.writer);
    json_answer_respond(&answer, request, 200);
}

struct code_fetch {
    struct controller *controller;
    struct http_request *request;
};

static void code_came(void *data, char *bytes, size_t len, const struct error *err)
{
    struct code_fetch *fetch = data;
    fetch->controller->pending_reads--;
    if (err)
        http_respond_error(fetch->request, err);
    else
        http_respond(fetch->request, 200, "application/octet-stream", bytes, len, NULL, 0);
    free(fetch);
}

void serve_worker_code(struct http_request *request, void *data)
{
    struct controller *controller = data;
    struct error err = {0};
    struct code_fetch *fetch = malloc(sizeof(*fetch));
    if (!fetch) {
        error_set(&err, ERROR_INTERNAL, "out of memory");
        http_respond_error(request, &err);
        return;
    }
    *fetch = (struct code_fetch){controller, request};
    controller->pending_reads++;
    store_get_code(controller->store, http_request_param(request, "sha256"), code_came, fetch);
}
