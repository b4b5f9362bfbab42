/* A request from its first header to the handler: route, authorisation, body. */
#include "base/http_internal.h"

#include "base/loop.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* How much of a body that is too large is read and thrown away, so that a client which does not
 * look for an early answer still gets it. */
#define DISCARD_MAX (16UL * 1024 * 1024)

/* ---- life ---- */

static void link_request(struct http_server *server, struct http_request *request)
{
    request->next = server->requests;
    if (request->next)
        request->next->previous = request;
    server->requests = request;
}

static void unlink_request(struct http_request *request)
{
    if (!request->server)
        return;
    if (request->previous)
        request->previous->next = request->next;
    else
        request->server->requests = request->next;
    if (request->next)
        request->next->previous = request->previous;
}

static void release_body(struct http_request *request)
{
    if (request->server)
        request->server->buffered_bytes -= request->accounted_bytes;
    request->accounted_bytes = 0;
    buffer_deinit(&request->body);
}

/* Frees it when neither libmicrohttpd nor the handler has it any more. */
void http_request_release(struct http_request *request)
{
    if (request->connection || request->phase == HTTP_PHASE_HANDLER)
        return;
    unlink_request(request);
    release_body(request);
    if (request->response)
        MHD_destroy_response(request->response);
    http_route_match_deinit(&request->match);
    for (size_t i = 0; i < request->query_count; i++) {
        free(request->queries[i].name);
        free(request->queries[i].value);
    }
    free(request->method);
    free(request->path);
    free(request);
}

static struct http_request *new_request(struct http_server *server,
                                        struct MHD_Connection *connection, const char *method,
                                        const char *url)
{
    struct http_request *request = calloc(1, sizeof(*request));
    if (!request)
        return NULL;
    request->server = server;
    request->connection = connection;
    request->received_ns = clock_monotonic_ns();
    snprintf(request->id, sizeof(request->id), "%s%016llx", server->id_prefix,
             (unsigned long long)server->next_id++);
    request->method = strdup(method);
    request->path = strdup(url);
    link_request(server, request);
    if (!request->method || !request->path) {
        request->connection = NULL;
        http_request_release(request);
        return NULL;
    }
    return request;
}

void http_completed(void *data, struct MHD_Connection *connection, void **request_slot,
                    enum MHD_RequestTerminationCode code)
{
    struct http_request *request = *request_slot;
    (void)data;
    (void)connection;
    if (!request)
        return;
    *request_slot = NULL;
    request->connection = NULL;
    request->suspended = false;
    if (request->phase == HTTP_PHASE_HANDLER && request->on_abort &&
        code != MHD_REQUEST_TERMINATED_COMPLETED_OK) {
        void (*on_abort)(void *) = request->on_abort;
        request->on_abort = NULL;
        on_abort(request->on_abort_data); /* may answer, which releases the request */
        return;
    }
    http_request_release(request);
}

/* ---- headers ---- */

static enum MHD_Result queue_answer(struct http_request *request)
{
    struct MHD_Response *response = request->response;
    if (!response)
        return MHD_NO; /* no memory for it: the connection ends */
    request->response = NULL;
    enum MHD_Result result =
        MHD_queue_response(request->connection, (unsigned)request->status, response);
    MHD_destroy_response(response);
    return result;
}

static enum MHD_Result refuse(struct http_request *request, const struct error *err, int status)
{
    int code_status;
    struct MHD_Response *response = http_error_response(request, err, &code_status);
    if (!response)
        return MHD_NO;
    request->phase = HTTP_PHASE_ANSWERED;
    request->response = response;
    request->status = status ? status : code_status;
    return queue_answer(request);
}

/* The announced length of the body; 0 when there is none or it is chunked; -1 when malformed. */
static int64_t content_length(struct http_request *request)
{
    const char *text = http_request_header(request, "Content-Length");
    char *end = NULL;
    if (!text)
        return 0;
    errno = 0;
    long long length = strtoll(text, &end, 10);
    return errno || end == text || *end || length < 0 ? -1 : length;
}

static int body_too_large(const struct http_request *request, struct error *err)
{
    return error_set(err, ERROR_PAYLOAD_TOO_LARGE,
                     "the request body is over the limit of %zu bytes for this call",
                     request->match.route->max_body_bytes);
}

static int check_body_size(struct http_request *request, struct error *err)
{
    struct http_server *server = request->server;
    int64_t length = content_length(request);
    if (length < 0)
        return error_set(err, ERROR_INVALID_REQUEST, "Content-Length must be a number of bytes");
    if ((uint64_t)length > request->match.route->max_body_bytes)
        return body_too_large(request, err);
    if (server->buffered_bytes + (size_t)length > server->options.max_buffered_bytes)
        return error_set(err, ERROR_NO_CAPACITY,
                         "too many large requests are under way; try again soon");
    buffer_init(&request->body, request->match.route->max_body_bytes);
    request->accounted_bytes = (size_t)length;
    server->buffered_bytes += (size_t)length;
    return 0;
}

static enum MHD_Result begin_request(struct http_request *request)
{
    struct http_server *server = request->server;
    struct error err = {0};

    http_route_find(server->options.routes, server->options.route_count, request->method,
                    request->path, &request->match);
    if (!request->match.route) {
        if (request->match.path_known) {
            error_set(&err, ERROR_INVALID_REQUEST,
                      "%s is not possible on %.200s; GET /openapi.yaml tells what is",
                      request->method, request->path);
            return refuse(request, &err, 405);
        }
        error_set(&err, ERROR_NOT_FOUND,
                  "there is nothing at %.200s; GET /openapi.yaml tells what is there",
                  request->path);
        return refuse(request, &err, 0);
    }
    if (server->options.authorize &&
        server->options.authorize(request, request->match.route, server->options.data, &err))
        return refuse(request, &err, 0);
    if (check_body_size(request, &err))
        return refuse(request, &err, 0);
    return MHD_YES;
}

/* ---- body ---- */

static void take_chunk(struct http_request *request, const char *data, size_t len)
{
    struct http_server *server = request->server;
    size_t accounted = request->accounted_bytes;
    if (!request->too_large && request->body.len + len > accounted) {
        size_t more = request->body.len + len - accounted;
        if (server->buffered_bytes + more > server->options.max_buffered_bytes)
            request->too_large = true;
        else {
            request->accounted_bytes += more;
            server->buffered_bytes += more;
        }
    }
    if (!request->too_large && request->body.len == 0 && request->accounted_bytes > len)
        buffer_reserve(&request->body, request->accounted_bytes, NULL);
    if (!request->too_large && buffer_append(&request->body, data, len, NULL)) {
        request->too_large = true;
        release_body(request);
    }
    if (request->too_large)
        request->discarded += len;
}

static enum MHD_Result call_handler(struct http_request *request)
{
    struct http_server *server = request->server;
    request->phase = HTTP_PHASE_HANDLER;
    server->pending++;
    request->in_callback = true;
    request->match.route->handler(request, server->options.data);
    request->in_callback = false;
    if (request->phase == HTTP_PHASE_ANSWERED)
        return queue_answer(request);
    request->suspended = true;
    MHD_suspend_connection(request->connection);
    return MHD_YES;
}

enum MHD_Result http_access(void *data, struct MHD_Connection *connection, const char *url,
                            const char *method, const char *version, const char *upload_data,
                            size_t *upload_data_size, void **request_slot)
{
    struct http_server *server = data;
    struct http_request *request = *request_slot;
    struct error err = {0};
    (void)version;

    if (!request) {
        request = *request_slot = new_request(server, connection, method, url);
        return request ? begin_request(request) : MHD_NO;
    }
    if (server->freeing)
        return MHD_NO;
    if (request->phase == HTTP_PHASE_ANSWERED)
        return queue_answer(request);
    if (request->phase == HTTP_PHASE_HANDLER)
        return MHD_YES;
    if (*upload_data_size > 0) {
        take_chunk(request, upload_data, *upload_data_size);
        *upload_data_size = 0;
        return request->discarded > DISCARD_MAX ? MHD_NO : MHD_YES;
    }
    if (request->too_large) {
        body_too_large(request, &err);
        return refuse(request, &err, 0);
    }
    return call_handler(request);
}

/* ---- reading ---- */

const char *http_request_id(const struct http_request *request)
{
    return request->id;
}

const char *http_request_method(const struct http_request *request)
{
    return request->method;
}

const char *http_request_path(const struct http_request *request)
{
    return request->path;
}

const char *http_request_param(const struct http_request *request, const char *name)
{
    for (size_t i = 0; i < request->match.param_count; i++)
        if (strlen(name) == request->match.params[i].name_len &&
            strncmp(name, request->match.params[i].name, request->match.params[i].name_len) == 0)
            return request->match.params[i].value;
    return NULL;
}

const char *http_request_query(const struct http_request *constant, const char *name)
{
    /* Decoded once and kept: a cache does not change what the request says. */
    struct http_request *request = (struct http_request *)constant;
    for (size_t i = 0; i < request->query_count; i++)
        if (strcmp(request->queries[i].name, name) == 0)
            return request->queries[i].value;
    if (!request->connection ||
        request->query_count == sizeof(request->queries) / sizeof(request->queries[0]))
        return NULL;
    const char *raw = MHD_lookup_connection_value(request->connection, MHD_GET_ARGUMENT_KIND, name);
    if (!raw)
        return NULL;
    char *value = http_percent_decode(raw, strlen(raw), true);
    char *name_copy = strdup(name);
    if (!value || !name_copy) {
        free(value);
        free(name_copy);
        return NULL;
    }
    request->queries[request->query_count++] =
        (struct http_query_value){.name = name_copy, .value = value};
    return value;
}

const char *http_request_header(const struct http_request *request, const char *name)
{
    return request->connection
               ? MHD_lookup_connection_value(request->connection, MHD_HEADER_KIND, name)
               : NULL;
}

const char *http_request_body(const struct http_request *request, size_t *ret_len)
{
    if (ret_len)
        *ret_len = request->body.len;
    return request->body.data ? request->body.data : "";
}

char *http_request_take_body(struct http_request *request, size_t *ret_len)
{
    char *body = buffer_take(&request->body, ret_len);
    release_body(request);
    return body;
}

uint64_t http_request_received_ns(const struct http_request *request)
{
    return request->received_ns;
}

void *http_request_data(const struct http_request *request)
{
    return request->data;
}

void http_request_set_data(struct http_request *request, void *data)
{
    request->data = data;
}

void http_request_on_abort(struct http_request *request, void (*fn)(void *data), void *data)
{
    request->on_abort = fn;
    request->on_abort_data = data;
}
