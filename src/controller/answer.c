/* Answers to waiting clients: see answer.h. */
#include "controller/answer.h"

#include "base/cleanup.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ANSWER_MAX ((size_t)256 * 1024 * 1024)
#define HEADER_COUNT 8
/* A result from here on is sent from where it is. */
#define SHARED_MIN ((size_t)64 * 1024)

/* ---- the execution object ---- */

/* NULL: it is small, or there is no memory to share it. */
static struct blob *share_large(struct execution *record)
{
    return record->result && record->result_len >= SHARED_MIN ? execution_share_result(record)
                                                              : NULL;
}

static void answer_object(struct live_execution *execution, struct http_request *request)
{
    with_cleanup(buffer_deinit) struct buffer body = BUFFER_INIT(ANSWER_MAX);
    struct error err = {0};
    struct json_writer *writer = json_writer_new(&body);
    if (!writer) {
        error_set(&err, ERROR_INTERNAL, "out of memory");
        http_respond_error(request, &err);
        return;
    }
    struct execution *record = &execution->record;
    struct blob *result = share_large(record);
    execution_write_before_result(writer, record);
    if (record->result)
        json_write_raw(writer, result ? "" : record->result, result ? 0 : record->result_len);
    size_t at = body.len;
    execution_write_after_result(writer, record);
    if (json_writer_finish(writer, &err) < 0) {
        error_wrap(&err, "writing execution %s", record->id);
        blob_unref(result);
        http_respond_error(request, &err);
    } else if (result) {
        http_respond_around(request, 200, "application/json", &body, at, result, NULL, 0);
    } else {
        http_respond_json(request, 200, &body);
    }
}

/* ---- the raw result ---- */

struct answer_headers {
    struct http_header headers[HEADER_COUNT];
    char values[HEADER_COUNT][48];
    size_t count;
};

static void add_header(struct answer_headers *to, const char *name, const char *value)
{
    snprintf(to->values[to->count], sizeof(to->values[0]), "%s", value);
    to->headers[to->count] = (struct http_header){.name = name, .value = to->values[to->count]};
    to->count++;
}

static void add_number(struct answer_headers *to, const char *name, uint64_t number)
{
    char text[24];
    snprintf(text, sizeof(text), "%" PRIu64, number);
    add_header(to, name, text);
}

static void make_headers(const struct execution *record, struct answer_headers *headers)
{
    headers->count = 0;
    add_header(headers, "X-Execution-Id", record->id);
    add_header(headers, "X-Execution-Status", execution_status_name(record->status));
    add_number(headers, "X-Function-Version", (uint64_t)record->version);
    add_header(headers, "X-Cold-Start", record->cold_start ? "true" : "false");
    add_number(headers, "X-Duration-Ns", record->metrics.duration);
    add_number(headers, "X-Queue-Time-Ns", record->metrics.queue_time);
    add_number(headers, "X-Start-Time-Ns", record->metrics.start_time);
}

/* A result whose text its worker can change: it was JSON when it was checked, and is looked at in a copy. */
static struct json *parse_foreign(const struct execution *record, struct error *err)
{
    struct json_limits limits = {.max_bytes = SIZE_MAX};
    struct error why = {0};
    autofree char *copy = malloc(record->result_len);
    if (!copy) {
        error_set(err, ERROR_INTERNAL, "out of memory");
        return NULL;
    }
    memcpy(copy, record->result, record->result_len);
    struct json *tree = json_parse(copy, record->result_len, &limits, &why);
    if (!tree)
        error_set(err, ERROR_INTERNAL, "the worker has made no JSON of the result: %s",
                  why.message);
    return tree;
}

static bool is_foreign(const struct execution *record)
{
    return record->shared && record->shared->foreign;
}

/* One that its worker can change stays what it was when it was taken. */
static bool is_text(const struct execution *record)
{
    return is_foreign(record) ? record->taken_as_text : record->result && record->result[0] == '"';
}

static struct json *parse_result(const struct execution *record, struct error *err)
{
    struct json_limits limits = {.max_bytes = SIZE_MAX};
    if (is_foreign(record))
        return parse_foreign(record, err);
    return json_parse(record->result, record->result_len, &limits, err);
}

/* A result that is a JSON string: its text, or the bytes that it holds in base64. */
static int unwrap_string(const struct execution *record, struct buffer *out, struct error *err)
{
    autojson *tree = parse_result(record, err);
    size_t len = 0;
    if (!tree)
        return -1;
    const char *text = json_string(tree, &len);
    if (!text)
        return error_set(err, ERROR_INTERNAL, "the worker has made no string of the result");
    if (!record->result_base64)
        return buffer_append(out, text, len, err);
    struct error why = {0};
    if (base64_decode(text, len, out, &why) == 0)
        return 0;
    return error_set(err, ERROR_INTERNAL, "the worker has made no base64 of the result: %s",
                     why.message);
}

static void answer_result(struct live_execution *execution, struct http_request *request,
                          const struct answer_headers *headers)
{
    struct execution *record = &execution->record;
    struct error err = {0};
    const char *type = "application/json";
    with_cleanup(buffer_deinit) struct buffer body = BUFFER_INIT(ANSWER_MAX);
    struct blob *shared = NULL;
    int outcome = 0;
    if (is_text(record)) {
        type = record->result_base64 ? "application/octet-stream" : "text/plain; charset=utf-8";
        outcome = unwrap_string(record, &body, &err);
    } else if (!(shared = share_large(record))) {
        outcome = record->result ? buffer_append(&body, record->result, record->result_len, &err)
                                 : buffer_append_string(&body, "null", &err);
    }
    if (outcome < 0) {
        http_respond_error(request, &err);
        return;
    }
    if (shared) {
        http_respond_around(request, 200, type, &body, 0, shared, headers->headers, headers->count);
        return;
    }
    size_t len = 0;
    char *bytes = buffer_take(&body, &len);
    http_respond(request, 200, type, bytes, len, headers->headers, headers->count);
}

/* 502: the function's fault; 504: its time was over; 503: it could not be run now. */
static int failure_status(enum execution_status status)
{
    if (status == EXECUTION_TIMED_OUT)
        return 504;
    return status == EXECUTION_CANCELLED ? 503 : 502;
}

static void answer_failure(struct live_execution *execution, struct http_request *request,
                           struct answer_headers *headers)
{
    const struct execution *record = &execution->record;
    with_cleanup(buffer_deinit) struct buffer body = BUFFER_INIT(ANSWER_MAX);
    struct error err = {0};
    struct json_writer *writer = json_writer_new(&body);
    if (writer) {
        json_object_begin(writer);
        json_key(writer, "error");
        execution_error_write(writer, &record->error);
        json_member_string(writer, "execution_id", record->id);
        json_member_string(writer, "status", execution_status_name(record->status));
        json_member_string(writer, "request_id", http_request_id(request));
        json_object_end(writer);
    }
    if (!writer || json_writer_finish(writer, &err) < 0) {
        http_respond_error(request, &err);
        return;
    }
    size_t len = 0;
    char *text = buffer_take(&body, &len);
    if (record->status == EXECUTION_CANCELLED)
        add_header(headers, "Retry-After", "1");
    http_respond(request, failure_status(record->status), "application/json", text, len,
                 headers->headers, headers->count);
}

static void answer_raw(struct live_execution *execution, struct http_request *request)
{
    struct answer_headers headers;
    make_headers(&execution->record, &headers);
    if (execution->record.status == EXECUTION_SUCCEEDED)
        answer_result(execution, request, &headers);
    else
        answer_failure(execution, request, &headers);
}

void answer_execution(struct live_execution *execution)
{
    struct http_request *request = execution->request;
    const struct execution_error *error = &execution->record.error;
    execution->request = NULL;
    http_request_on_abort(request, NULL, NULL);
    if (execution->record.has_error && error->type &&
        strcmp(error->type, "Platform.NoCapacity") == 0) {
        /* It never ran: that is an answer of the API, not a failed function. */
        struct error err = {0};
        error_set(&err, ERROR_NO_CAPACITY, "%s", error->message);
        http_respond_error(request, &err);
    } else if (execution->form == ANSWER_RAW) {
        answer_raw(execution, request);
    } else {
        answer_object(execution, request);
    }
}
