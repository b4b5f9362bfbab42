/* What a handler can ask a request. */
#include "base/http_internal.h"

#include "base/cleanup.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

/* ---- the query ---- */

struct query_reader {
    struct http_request *request;
    struct error *err;
    bool failed;
};

static enum MHD_Result read_query_value(void *data, enum MHD_ValueKind kind, const char *name,
                                        const char *value)
{
    struct query_reader *reader = data;
    struct http_request *request = reader->request;
    (void)kind;
    if (request->query_count == HTTP_QUERIES_MAX) {
        error_set(reader->err, ERROR_INVALID_REQUEST, "a query has at most %d parameters",
                  HTTP_QUERIES_MAX);
        reader->failed = true;
        return MHD_NO;
    }
    struct http_query_value *query = &request->queries[request->query_count++];
    query->name = http_percent_decode(name, strlen(name), true);
    query->value = http_percent_decode(value ? value : "", value ? strlen(value) : 0, true);
    if (query->name && query->value)
        return MHD_YES;
    error_set(reader->err, ERROR_INVALID_REQUEST,
              "the query parameter %.100s=%.100s is not percent-encoded UTF-8", name,
              value ? value : "");
    reader->failed = true;
    return MHD_NO;
}

int http_request_read_query(struct http_request *request, struct error *err)
{
    struct query_reader reader = {.request = request, .err = err};
    MHD_get_connection_values(request->connection, MHD_GET_ARGUMENT_KIND, read_query_value,
                              &reader);
    return reader.failed ? -1 : 0;
}

const char *http_request_query(const struct http_request *request, const char *name)
{
    for (size_t i = 0; i < request->query_count; i++)
        if (strcmp(request->queries[i].name, name) == 0)
            return request->queries[i].value;
    return NULL;
}

/* ---- the rest ---- */

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

const char *http_request_header(const struct http_request *request, const char *name)
{
    return request->connection
               ? MHD_lookup_connection_value(request->connection, MHD_HEADER_KIND, name)
               : NULL;
}

const char *http_request_body(const struct http_request *request, size_t *ret_len)
{
    if (ret_len)
        *ret_len = request->room ? request->room_len : request->body.len;
    if (request->room)
        return request->room->bytes;
    return request->body.data ? request->body.data : "";
}

char *http_request_take_body(struct http_request *request, size_t *ret_len)
{
    assert(!request->room);
    char *body = buffer_take(&request->body, ret_len);
    http_request_release_body(request);
    return body;
}

struct blob *http_request_take_blob(struct http_request *request)
{
    size_t len;
    struct blob *room = steal_pointer(&request->room);
    if (room) {
        assert(request->room_len == room->len); /* behind it are bytes of another body */
        http_request_release_body(request);
        return room;
    }
    char *body = http_request_take_body(request, &len);
    struct blob *blob = body ? blob_new(body, len) : NULL;
    if (!blob)
        free(body);
    return blob;
}

const struct json_ahead *http_request_ahead(const struct http_request *request)
{
    return request->ahead;
}

const struct sockaddr *http_request_client(const struct http_request *request)
{
    const union MHD_ConnectionInfo *info =
        request->connection
            ? MHD_get_connection_info(request->connection, MHD_CONNECTION_INFO_CLIENT_ADDRESS)
            : NULL;
    return info ? info->client_addr : NULL;
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
