/* Calls about the service itself: health, metrics, its description; and what handlers share. */
#include "controller/controller.h"
#include "controller/handlers.h"
#include "controller/openapi.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define ANSWER_MAX ((size_t)256 * 1024 * 1024)

/* ---- shared by handlers ---- */

int query_limit(const struct http_request *request, int max, int fallback, int *ret,
                struct error *err)
{
    const char *text = http_request_query(request, "limit");
    char *end;
    *ret = fallback;
    if (!text)
        return 0;
    errno = 0;
    long number = strtol(text, &end, 10);
    if (errno || end == text || *end || number < 1 || number > max)
        return error_set_field(err, ERROR_INVALID_REQUEST, "limit",
                               "limit must be a whole number from 1 to %d, not \"%.40s\"", max,
                               text);
    *ret = (int)number;
    return 0;
}

int json_answer_begin(struct json_answer *answer, struct http_request *request)
{
    struct error err = {0};
    buffer_init(&answer->body, ANSWER_MAX);
    answer->writer = json_writer_new(&answer->body);
    if (answer->writer)
        return 0;
    error_set(&err, ERROR_INTERNAL, "out of memory");
    http_respond_error(request, &err);
    return -1;
}

void json_answer_respond(struct json_answer *answer, struct http_request *request, int status)
{
    struct error err = {0};
    if (json_writer_finish(answer->writer, &err) < 0)
        http_respond_error(request, &err);
    else
        http_respond_json(request, status, &answer->body);
    buffer_deinit(&answer->body);
}

/* ---- health ---- */

static void respond_status(struct http_request *request, int status, const char *text)
{
    struct json_answer answer;
    if (json_answer_begin(&answer, request) < 0)
        return;
    json_object_begin(answer.writer);
    json_member_string(answer.writer, "status", text);
    json_member_string(answer.writer, "version", FAAS_VERSION);
    json_object_end(answer.writer);
    json_answer_respond(&answer, request, status);
}

void serve_health(struct http_request *request, void *data)
{
    (void)data;
    respond_status(request, 200, "ok");
}

void serve_ready(struct http_request *request, void *data)
{
    const struct controller *controller = data;
    struct error err = {0};
    if (drain_refuses(controller))
        error_set(&err, ERROR_NO_CAPACITY, "the controller is stopping");
    else if (sessions_alive(controller) == 0)
        error_set(&err, ERROR_NO_CAPACITY,
                  "no worker is in contact: functions cannot be invoked yet");
    else if (sessions_taking(controller) == 0)
        error_set(&err, ERROR_NO_CAPACITY, "every worker in contact is drained or stops");
    if (!err.code) {
        respond_status(request, 200, "ready");
        return;
    }
    http_respond_error(request, &err);
}

void serve_metrics(struct http_request *request, void *data)
{
    struct error err = {0};
    struct buffer page = BUFFER_INIT(1024 * 1024);
    size_t len = 0;
    if (metrics_write(data, &page, &err) < 0) {
        buffer_deinit(&page);
        http_respond_error(request, &err);
        return;
    }
    char *text = buffer_take(&page, &len);
    http_respond(request, 200, "text/plain; version=0.0.4; charset=utf-8", text, len, NULL, 0);
}

void serve_openapi(struct http_request *request, void *data)
{
    (void)data;
    char *copy = malloc(openapi_len + 1);
    if (copy)
        memcpy(copy, openapi_text, openapi_len);
    http_respond(request, 200, "application/yaml", copy, copy ? openapi_len : 0, NULL, 0);
}
