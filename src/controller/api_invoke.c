/* Invoking a function: POST /v1/functions/{name}/invocations and ANY /fn/{name}.
 *
 * The way of a synchronous one is all in memory: look-up, a check of the payload, dispatch; the answer comes
 * when the result does (answer.c). An asynchronous one is committed to the store before its 202. */
#include "controller/admission.h"
#include "controller/controller.h"
#include "controller/handlers.h"
#include "controller/refresh.h"

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
    if (drain_refuses(controller)) {
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

static int check_json(const struct http_request *request, const struct blob *payload,
                      struct error *err)
{
    struct json_limits limits = {
        .max_bytes = SIZE_MAX, .max_depth = PAYLOAD_DEPTH_MAX, .max_values = SIZE_MAX};
    return json_check_ahead(http_request_ahead(request), payload->bytes, payload->len, &limits,
                            err);
}

/* Takes `text`, which may be NULL: out of memory. */
static struct blob *new_payload(char *text, size_t len, struct error *err)
{
    struct blob *payload = text ? blob_new(text, len) : NULL;
    if (payload)
        return payload;
    free(text);
    error_set(err, ERROR_INTERNAL, "out of memory");
    return NULL;
}

/* The body as the payload; "{}" when there is none. NULL with `err` set. */
static struct blob *take_payload(struct http_request *request, struct error *err)
{
    size_t len = 0;
    http_request_body(request, &len);
    if (len == 0)
        return new_payload(strdup("{}"), 2, err);
    struct blob *payload = http_request_take_blob(request);
    if (!payload)
        error_set(err, ERROR_INTERNAL, "out of memory");
    return payload;
}

/* Text that is no JSON, as a JSON string. Takes `text`. */
static struct blob *wrap_text(struct blob *text, size_t max, struct error *err)
{
    struct buffer wrapped = BUFFER_INIT(max);
    struct json_writer *writer =
        utf8_valid(text->bytes, text->len) ? json_writer_new(&wrapped) : NULL;
    struct blob *payload = NULL;
    size_t len = 0;
    if (!writer) {
        error_set(err, ERROR_INVALID_REQUEST,
                  "the payload must be JSON or UTF-8 text (bytes can be sent as base64 text)");
    } else {
        json_write_string_len(writer, text->bytes, text->len);
        if (json_writer_finish(writer, err) == 0) {
            char *bytes = buffer_take(&wrapped, &len);
            payload = new_payload(bytes, len, err);
        }
    }
    blob_unref(text);
    buffer_deinit(&wrapped);
    return payload;
}

static bool is_json_type(const char *content_type)
{
    size_t len = content_type ? strcspn(content_type, "; ") : 0;
    return (len == 16 && strncasecmp(content_type, "application/json", len) == 0) ||
           (len > 5 && strncasecmp(content_type + len - 5, "+json", 5) == 0);
}

/* For /fn/: a body that is JSON is passed on as it is, any other as a JSON string, unless the client says that
 * it is JSON. */
static struct blob *take_raw_payload(struct http_request *request, size_t max, struct error *err)
{
    struct blob *payload = take_payload(request, err);
    if (!payload || check_json(request, payload, err) == 0)
        return payload;
    if (is_json_type(http_request_header(request, "Content-Type"))) {
        error_wrap(err, "the payload says that it is JSON and is not");
        blob_unref(payload);
        return NULL;
    }
    return wrap_text(payload, max, err);
}

static struct blob *take_json_payload(struct http_request *request, struct error *err)
{
    struct blob *payload = take_payload(request, err);
    if (!payload || check_json(request, payload, err) == 0)
        return payload;
    error_wrap(err, "the payload is no JSON that can be used");
    blob_unref(payload);
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
                       struct live_execution *execution, struct token *token, enum answer_form form)
{
    admission_take_token(execution, token);
    execution->request = request;
    execution->form = form;
    http_request_set_data(request, controller);
    http_request_on_abort(request, client_gone, execution);
    dispatch_enqueue(&controller->dispatch, execution);
    controller_dispatch(controller);
}

/* ---- asynchronous ---- */

#define KEY_MAX 255

/* What only an asynchronous invocation can be asked for. */
struct async_options {
    const char *key;      /* borrowed; NULL: none */
    const char *callback; /* borrowed; NULL: none */
    int64_t priority;
};

static int read_async_options(const struct http_request *request, bool async,
                              struct async_options *options, struct error *err)
{
    const char *priority = http_request_query(request, "priority");
    options->key = http_request_header(request, "Idempotency-Key");
    options->priority = PRIORITY_NORMAL;
    if (!async && (options->key || priority))
        return error_set_field(err, ERROR_INVALID_REQUEST,
                               options->key ? "Idempotency-Key" : "priority",
                               "%s is for asynchronous invocations (mode=async) only",
                               options->key ? "the header Idempotency-Key" : "priority");
    size_t len = options->key ? strlen(options->key) : 1;
    if (len < 1 || len > KEY_MAX || (options->key && !utf8_valid(options->key, len)))
        return error_set_field(err, ERROR_INVALID_REQUEST, "Idempotency-Key",
                               "the header Idempotency-Key must be 1 to %d bytes of text", KEY_MAX);
    return priority ? execution_priority_parse(priority, &options->priority, err) : 0;
}

/* The call's own URL, or else its function's. */
static int read_callback(const struct controller *controller, const struct http_request *request,
                         const struct function_version *version, bool async,
                         struct async_options *options, struct error *err)
{
    const char *given = http_request_header(request, "Callback-Url");
    const struct function_spec *spec = &version->record.spec;
    options->callback = given ? given : spec->callback_url;
    if (given && !async)
        return error_set_field(err, ERROR_INVALID_REQUEST, "Callback-Url",
                               "the header Callback-Url is for asynchronous invocations "
                               "(mode=async) only");
    if (!async || !options->callback)
        return 0;
    return callback_check(controller, options->callback, spec, "Callback-Url", err);
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
    struct async_options options;
    bool async;
    if (refresh_missing(controller, request, http_request_param(request, "name"), serve_invoke))
        return;
    struct function_version *version =
        find_version(controller, http_request_param(request, "name"), &err);
    struct token *token = tokens_of_request(controller, request);
    struct blob *payload =
        version && read_mode(request, &async, &err) == 0 &&
                read_async_options(request, async, &options, &err) == 0 &&
                read_callback(controller, request, version, async, &options, &err) == 0 &&
                (async || (controller_check_placement(controller, version, &err) == 0 &&
                           admission_check_token_place(controller, token, &err) == 0))
            ? take_json_payload(request, &err)
            : NULL;
    struct live_execution *execution =
        payload ? executions_accept(controller, version, payload, async, &err) : NULL;
    if (!execution) {
        http_respond_error(request, &err);
        return;
    }
    if (!async) {
        start_sync(controller, request, execution, token, ANSWER_EXECUTION);
    } else {
        execution->record.delivery.priority = options.priority;
        delivery_accept(controller, request, execution, options.key, options.callback);
    }
}

void serve_invoke_raw(struct http_request *request, void *data)
{
    struct controller *controller = data;
    struct error err = {0};
    if (refresh_missing(controller, request, http_request_param(request, "name"), serve_invoke_raw))
        return;
    struct function_version *version =
        find_version(controller, http_request_param(request, "name"), &err);
    struct token *token =
        version && !version->record.spec.public ? tokens_of_request(controller, request) : NULL;
    struct blob *payload =
        version && controller_check_placement(controller, version, &err) == 0 &&
                admission_check_token_place(controller, token, &err) == 0
            ? take_raw_payload(request, (size_t)controller->config.payload_max_bytes, &err)
            : NULL;
    struct live_execution *execution =
        payload ? executions_accept(controller, version, payload, false, &err) : NULL;
    if (execution)
        start_sync(controller, request, execution, token, ANSWER_RAW);
    else
        http_respond_error(request, &err);
}
