/* Invoking a function: POST /v1/functions/{name}/invocations and ANY /fn/{name}.
 *
 * The way of a synchronous one is all in memory: look-up, a check of the payload, dispatch; the answer comes
 * when the result does (answer.c). An asynchronous one is committed to the store before its 202. */
#include "controller/controller.h"
#include "controller/handlers.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define PAYLOAD_DEPTH_MAX 1000

/* The version that serves. */
static struct function_version *find_version(const struct controller *controller, const char *name,
                                             struct error *err)
{
    const struct function_entry *function = registry_find(&controller->registry, name);
    if (!function) {
        error_set(err, ERROR_NOT_FOUND, "there is no function %.80s", name);
        return NULL;
    }
    if (controller->draining) {
        error_set(err, ERROR_NO_CAPACITY, "the controller is stopping; try again later");
        return NULL;
    }
    if (function->current)
        return function->current;
    if (function->newest->record.state == FUNCTION_FAILED)
        error_set(
            err, ERROR_NOT_READY,
            "function %s could not be built; GET /v1/functions/%s has the compiler's words in "
            "build_output",
            name, name);
    else
        error_set(err, ERROR_NOT_READY,
                  "function %s is being built; try again when its state is "
                  "ready",
                  name);
    return NULL;
}

/* ---- payloads ---- */

static int check_json(const char *text, size_t len, struct error *err)
{
    struct json_limits limits = {
        .max_bytes = SIZE_MAX, .max_depth = PAYLOAD_DEPTH_MAX, .max_values = SIZE_MAX};
    return json_check(text, len, &limits, err);
}

/* The body as the payload; "{}" when there is none. NULL with `err` set. */
static char *take_payload(struct http_request *request, size_t *ret_len, struct error *err)
{
    size_t len = 0;
    http_request_body(request, &len);
    char *payload = len ? http_request_take_body(request, &len) : strdup("{}");
    if (!payload)
        error_set(err, ERROR_INTERNAL, "out of memory");
    *ret_len = len ? len : 2;
    return payload;
}

/* Text that is no JSON, as a JSON string. Takes `text`. */
static char *wrap_text(char *text, size_t *len, size_t max, struct error *err)
{
    struct buffer wrapped = BUFFER_INIT(max);
    struct json_writer *writer = utf8_valid(text, *len) ? json_writer_new(&wrapped) : NULL;
    int outcome = -1;
    if (writer) {
        json_write_string_len(writer, text, *len);
        outcome = json_writer_finish(writer, err);
    } else {
        error_set(err, ERROR_INVALID_REQUEST,
                  "the payload must be JSON or UTF-8 text (bytes can be sent as base64 text)");
    }
    free(text);
    if (outcome == 0)
        return buffer_take(&wrapped, len);
    buffer_deinit(&wrapped);
    return NULL;
}

static bool is_json_type(const char *content_type)
{
    size_t len = content_type ? strcspn(content_type, "; ") : 0;
    return (len == 16 && strncasecmp(content_type, "application/json", len) == 0) ||
           (len > 5 && strncasecmp(content_type + len - 5, "+json", 5) == 0);
}

/* For /fn/: a body that is JSON is passed on as it is, any other as a JSON string, unless the client says that
 * it is JSON. */
static char *take_raw_payload(struct http_request *request, size_t max, size_t *ret_len,
                              struct error *err)
{
    char *payload = take_payload(request, ret_len, err);
    if (!payload || check_json(payload, *ret_len, err) == 0)
        return payload;
    if (is_json_type(http_request_header(request, "Content-Type"))) {
        error_wrap(err, "the payload says that it is JSON and is not");
        free(payload);
        return NULL;
    }
    return wrap_text(payload, ret_len, max, err);
}

static char *take_json_payload(struct http_request *request, size_t *ret_len, struct error *err)
{
    char *payload = take_payload(request, ret_len, err);
    if (!payload || check_json(payload, *ret_len, err) == 0)
        return payload;
    error_wrap(err, "the payload is no JSON that can be used");
    free(payload);
    return NULL;
}

/* ---- synchronous ---- */

/* The client went away: what is still in a queue need not run. */
static void client_gone(void *data)
{
    struct live_execution *execution = data;
    struct controller *controller = http_request_data(execution->request);
    if (execution->record.status != EXECUTION_QUEUED)
        return;
    dispatch_remove(&controller->dispatch, execution);
    executions_fail(controller, execution, EXECUTION_CANCELLED, "Platform.ClientGone",
                    "the client closed its connection before this could run");
}

static void start_sync(struct controller *controller, struct http_request *request,
                       struct live_execution *execution, enum answer_form form)
{
    execution->request = request;
    execution->form = form;
    http_request_set_data(request, controller);
    http_request_on_abort(request, client_gone, execution);
    dispatch_enqueue(&controller->dispatch, execution);
    controller_dispatch(controller);
}

/* ---- asynchronous ---- */

/* An acceptance on its way into the store. */
struct commit {
    struct controller *controller;
    struct http_request *request;
    struct live_execution *execution;
};

static void respond_accepted(struct http_request *request, const char *id)
{
    struct json_answer answer;
    char location[64];
    if (json_answer_begin(&answer, request) < 0)
        return;
    json_object_begin(answer.writer);
    json_member_string(answer.writer, "id", id);
    json_object_end(answer.writer);
    struct error err = {0};
    size_t len = 0;
    if (json_writer_finish(answer.writer, &err) < 0) {
        http_respond_error(request, &err);
        buffer_deinit(&answer.body);
        return;
    }
    snprintf(location, sizeof(location), "/v1/executions/%s", id);
    struct http_header header = {.name = "Location", .value = location};
    char *body = buffer_take(&answer.body, &len);
    http_respond(request, 202, "application/json", body, len, &header, 1);
}

static void committed(void *data, const struct error *err)
{
    struct commit *commit = data;
    struct controller *controller = commit->controller;
    controller->executions.committing--;
    if (err) {
        struct error failure = *err;
        error_wrap(&failure, "the invocation could not be stored");
        http_respond_error(commit->request, &failure);
        executions_discard(controller, commit->execution);
    } else {
        struct live_execution *execution = commit->execution;
        respond_accepted(commit->request, execution->record.id);
        if (!execution->version->function->newest) {
            executions_fail(controller, execution, EXECUTION_CANCELLED, "Platform.FunctionDeleted",
                            "function %s was deleted before this could run",
                            execution->record.function);
        } else if (!controller->draining) {
            dispatch_enqueue(&controller->dispatch, execution);
            controller_dispatch(controller);
        }
    }
    free(commit);
}

/* The store takes what it is given, and the execution goes on living here: copies. */
static int commit_execution(struct controller *controller, struct http_request *request,
                            struct live_execution *execution, struct error *err)
{
    const struct execution *record = &execution->record;
    struct commit *commit = calloc(1, sizeof(*commit));
    char *payload = malloc(execution->payload_len + 1);
    struct execution copy;
    execution_init(&copy);
    copy.function = strdup(record->function);
    if (!commit || !payload || !copy.function) {
        free(commit);
        free(payload);
        execution_deinit(&copy);
        return error_set(err, ERROR_INTERNAL, "out of memory");
    }
    memcpy(payload, execution->payload, execution->payload_len);
    memcpy(copy.id, record->id, sizeof(copy.id));
    copy.version = record->version;
    copy.status = EXECUTION_QUEUED;
    copy.async = true;
    copy.attempt = record->attempt;
    copy.created_at_ns = record->created_at_ns;
    *commit = (struct commit){controller, request, execution};
    controller->executions.committing++;
    store_put_execution(controller->store, &copy, payload, execution->payload_len, committed,
                        commit);
    return 0;
}

/* ---- handlers ---- */

static int read_mode(const struct http_request *request, bool *ret_async, struct error *err)
{
    const char *mode = http_request_query(request, "mode");
    *ret_async = mode && strcmp(mode, "async") == 0;
    if (!mode || *ret_async || strcmp(mode, "sync") == 0)
        return 0;
    return error_set_field(err, ERROR_INVALID_REQUEST, "mode",
                           "mode must be sync or async, not \"%.40s\"", mode);
}

void serve_invoke(struct http_request *request, void *data)
{
    struct controller *controller = data;
    struct error err = {0};
    bool async;
    size_t len;
    struct function_version *version =
        find_version(controller, http_request_param(request, "name"), &err);
    char *payload = version && read_mode(request, &async, &err) == 0
                        ? take_json_payload(request, &len, &err)
                        : NULL;
    struct live_execution *execution =
        payload ? executions_accept(controller, version, payload, len, async, &err) : NULL;
    if (!execution) {
        http_respond_error(request, &err);
        return;
    }
    if (!async) {
        start_sync(controller, request, execution, ANSWER_EXECUTION);
    } else if (commit_execution(controller, request, execution, &err) < 0) {
        executions_discard(controller, execution);
        http_respond_error(request, &err);
    }
}

void serve_invoke_raw(struct http_request *request, void *data)
{
    struct controller *controller = data;
    struct error err = {0};
    size_t len;
    struct function_version *version =
        find_version(controller, http_request_param(request, "name"), &err);
    char *payload =
        version
            ? take_raw_payload(request, (size_t)controller->config.payload_max_bytes, &len, &err)
            : NULL;
    struct live_execution *execution =
        payload ? executions_accept(controller, version, payload, len, false, &err) : NULL;
    if (execution)
        start_sync(controller, request, execution, ANSWER_RAW);
    else
        http_respond_error(request, &err);
}
