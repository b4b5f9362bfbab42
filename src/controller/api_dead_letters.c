/* /v1/dead-letters: asynchronous executions that were given up, with their payloads: list, show, queue again, remove. */
#include "controller/controller.h"
#include "controller/handlers.h"

#include <stdlib.h>
#include <string.h>

#define LIST_MAX 1000
#define LIST_DEFAULT 100

/* A request that waits for the store. */
struct dead_call {
    struct controller *controller;
    struct http_request *request;
    struct execution_query query; /* its strings are the request's */
    char *payload;                /* owned */
    size_t payload_len;
};

static struct dead_call *begin(struct controller *controller, struct http_request *request)
{
    struct error err = {0};
    struct dead_call *call = calloc(1, sizeof(*call));
    if (!call) {
        error_set(&err, ERROR_INTERNAL, "out of memory");
        http_respond_error(request, &err);
        return NULL;
    }
    call->controller = controller;
    call->request = request;
    controller->pending_reads++;
    /* What is final already is told to the store first. */
    executions_flush(controller);
    return call;
}

static void end(struct dead_call *call)
{
    call->controller->pending_reads--;
    free(call->payload);
    free(call);
}

static void respond_none(struct http_request *request)
{
    struct error err = {0};
    error_set(&err, ERROR_NOT_FOUND, "there is no dead letter %.80s",
              http_request_param(request, "id"));
    http_respond_error(request, &err);
}

/* NULL when the path names no id at all; then the request is answered. */
static const char *id_of(struct http_request *request)
{
    const char *id = http_request_param(request, "id");
    if (time_id_valid(id))
        return id;
    respond_none(request);
    return NULL;
}

static int read_function(const struct http_request *request, const char **ret, struct error *err)
{
    *ret = http_request_query(request, "function");
    if (!*ret || function_name_valid(*ret))
        return 0;
    return error_set_field(err, ERROR_INVALID_REQUEST, "function",
                           "function must be a function's name, not \"%.80s\"", *ret);
}

/* ---- list ---- */

static void list_came(void *data, const struct execution *executions, size_t count,
                      const char *next_cursor, const struct error *err)
{
    struct dead_call *call = data;
    struct json_answer answer;
    if (err) {
        http_respond_error(call->request, err);
    } else if (json_answer_begin(&answer, call->request) == 0) {
        json_object_begin(answer.writer);
        json_key(answer.writer, "dead_letters");
        json_array_begin(answer.writer);
        for (size_t i = 0; i < count; i++)
            execution_write(answer.writer, &executions[i]);
        json_array_end(answer.writer);
        json_member_string(answer.writer, "next_cursor", next_cursor);
        json_object_end(answer.writer);
        json_answer_respond(&answer, call->request, 200);
    }
    end(call);
}

void serve_list_dead_letters(struct http_request *request, void *data)
{
    struct execution_query query = {
        .status = -1, .dead = true, .cursor = http_request_query(request, "cursor")};
    struct error err = {0};
    if (query_limit(request, LIST_MAX, LIST_DEFAULT, &query.limit, &err) == 0 &&
        read_function(request, &query.function, &err) == 0 && query.cursor &&
        !time_id_valid(query.cursor))
        error_set_field(&err, ERROR_INVALID_REQUEST, "cursor",
                        "cursor must be the next_cursor of an earlier answer, not \"%.80s\"",
                        query.cursor);
    struct dead_call *call = NULL;
    if (err.code)
        http_respond_error(request, &err);
    else
        call = begin(data, request);
    if (call) {
        call->query = query;
        store_list_executions(call->controller->store, &call->query, list_came, call);
    }
}

/* ---- show ---- */

static void record_came(void *data, const struct execution *execution, const struct error *err)
{
    struct dead_call *call = data;
    struct json_answer answer;
    if (err) {
        http_respond_error(call->request, err);
    } else if (!execution || execution->delivery.dead_at_ns == 0) {
        respond_none(call->request);
    } else if (json_answer_begin(&answer, call->request) == 0) {
        json_object_begin(answer.writer);
        json_key(answer.writer, "execution");
        execution_write(answer.writer, execution);
        json_key(answer.writer, "payload");
        json_write_raw(answer.writer, call->payload, call->payload_len);
        json_object_end(answer.writer);
        json_answer_respond(&answer, call->request, 200);
    }
    end(call);
}

static void payload_came(void *data, char *bytes, size_t len, const struct error *err)
{
    struct dead_call *call = data;
    call->payload = bytes;
    call->payload_len = len;
    if (!err) {
        store_get_execution(call->controller->store, http_request_param(call->request, "id"),
                            record_came, call);
        return;
    }
    if (err->code == ERROR_NOT_FOUND)
        respond_none(call->request);
    else
        http_respond_error(call->request, err);
    end(call);
}

void serve_get_dead_letter(struct http_request *request, void *data)
{
    const char *id = id_of(request);
    struct dead_call *call = id ? begin(data, request) : NULL;
    if (call)
        store_get_payload(call->controller->store, id, payload_came, call);
}

/* ---- queue again, remove ---- */

static void respond_count(struct http_request *request, int64_t count)
{
    struct json_answer answer;
    if (json_answer_begin(&answer, request) < 0)
        return;
    json_object_begin(answer.writer);
    json_member_int(answer.writer, "count", count);
    json_object_end(answer.writer);
    json_answer_respond(&answer, request, 200);
}

static void many_done(void *data, int64_t count, const struct error *err)
{
    struct dead_call *call = data;
    if (err)
        http_respond_error(call->request, err);
    else
        respond_count(call->request, count);
    delivery_look(call->controller);
    end(call);
}

static void one_done(void *data, int64_t count, const struct error *err)
{
    struct dead_call *call = data;
    if (err)
        http_respond_error(call->request, err);
    else if (count == 0)
        respond_none(call->request);
    else
        respond_count(call->request, count);
    delivery_look(call->controller);
    end(call);
}

void serve_redrive_dead_letter(struct http_request *request, void *data)
{
    const char *id = id_of(request);
    struct dead_call *call = id ? begin(data, request) : NULL;
    if (call)
        store_redrive_dead(call->controller->store, id, NULL, clock_realtime_ns(), one_done, call);
}

void serve_delete_dead_letter(struct http_request *request, void *data)
{
    const char *id = id_of(request);
    struct dead_call *call = id ? begin(data, request) : NULL;
    if (call)
        store_purge_dead(call->controller->store, id, NULL, one_done, call);
}

/* Of the function that the query names, or all of them. */
static struct dead_call *begin_many(struct controller *controller, struct http_request *request,
                                    const char **ret_function)
{
    struct error err = {0};
    if (read_function(request, ret_function, &err) == 0)
        return begin(controller, request);
    http_respond_error(request, &err);
    return NULL;
}

void serve_redrive_dead_letters(struct http_request *request, void *data)
{
    const char *function = NULL;
    struct dead_call *call = begin_many(data, request, &function);
    if (call)
        store_redrive_dead(call->controller->store, NULL, function, clock_realtime_ns(), many_done,
                           call);
}

void serve_delete_dead_letters(struct http_request *request, void *data)
{
    const char *function = NULL;
    struct dead_call *call = begin_many(data, request, &function);
    if (call)
        store_purge_dead(call->controller->store, NULL, function, many_done, call);
}
