/* A request from its first header to the handler and to its end: route, authorisation, body. */
#include "base/http_internal.h"

#include "base/json.h"
#include "base/loop.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* How much of a body that is too large is read and thrown away, so that a client which does not
 * look for an early answer still gets it. */
#define DISCARD_MAX (16UL * 1024 * 1024)
/* About as much as libmicrohttpd's usual memory of a connection holds, also for one that has more of it. */
#define HEAD_MAX (32UL * 1024)

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

void http_request_release_body(struct http_request *request)
{
    if (request->server)
        request->server->buffered_bytes -= request->accounted_bytes;
    request->accounted_bytes = 0;
    buffer_deinit(&request->body);
    blob_unref(request->room);
    request->room = NULL;
}

/* Frees it when neither libmicrohttpd nor the handler has it any more. */
void http_request_release(struct http_request *request)
{
    if (request->connection || request->phase == HTTP_PHASE_HANDLER)
        return;
    unlink_request(request);
    http_request_release_body(request);
    json_ahead_free(request->ahead);
    if (request->response)
        MHD_destroy_response(request->response);
    http_upgrade_free(request->upgrade);
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
    struct http_connection *http_connection = http_connection_of(connection);
    if (http_connection)
        http_connection->request = request;
    if (!request->method || !request->path) {
        request->connection = NULL;
        if (http_connection)
            http_connection->request = NULL;
        http_request_release(request);
        return NULL;
    }
    return request;
}

void http_request_abort(struct http_request *request)
{
    void (*on_abort)(void *) = request->on_abort;
    request->on_abort = NULL;
    if (on_abort)
        on_abort(request->on_abort_data); /* may answer, which can release the request */
}

void http_request_wake(struct http_request *request)
{
    if (!request->suspended)
        return;
    request->suspended = false;
    MHD_resume_connection(request->connection);
    http_daemon_schedule(http_daemon_of(request->server, request->connection));
}

void http_completed(void *server, struct MHD_Connection *mhd, void **request_slot,
                    enum MHD_RequestTerminationCode code)
{
    struct http_request *request = *request_slot;
    struct http_connection *connection = http_connection_of(mhd);
    (void)code;
    if (!request)
        return;
    *request_slot = NULL;
    request->connection = NULL;
    request->suspended = false;
    if (connection) {
        connection->request = NULL;
        connection->receiving_since_ns = clock_monotonic_ns();
        if (request->body_unread)
            http_linger_start(server, connection->fd);
    }
    if (request->phase == HTTP_PHASE_HANDLER)
        http_request_abort(request);
    else
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

static enum MHD_Result refuse(struct http_request *request, const struct error *err)
{
    request->response = http_error_response(request, err, &request->status);
    request->phase = HTTP_PHASE_ANSWERED;
    return queue_answer(request);
}

/* The methods that would do are part of the answer (RFC 9110, section 15.5.6). */
static enum MHD_Result refuse_method(struct http_request *request)
{
    const struct http_server_options *options = &request->server->options;
    struct error err;
    char allowed[128];
    http_route_allowed(options->routes, options->route_count, request->path, allowed,
                       sizeof(allowed));
    error_set(&err, ERROR_INVALID_REQUEST, "%.32s is not possible on %.200s, only %s",
              request->method, request->path, allowed);
    request->response = http_error_response(request, &err, &request->status);
    request->status = MHD_HTTP_METHOD_NOT_ALLOWED;
    request->phase = HTTP_PHASE_ANSWERED;
    if (request->response)
        MHD_add_response_header(request->response, MHD_HTTP_HEADER_ALLOW, allowed);
    return queue_answer(request);
}

/* The announced length of the body; 0 when there is none or it is chunked. libmicrohttpd has
 * refused what is no number. */
static uint64_t content_length(struct http_request *request)
{
    const char *text = http_request_header(request, MHD_HTTP_HEADER_CONTENT_LENGTH);
    return text ? strtoull(text, NULL, 10) : 0;
}

/* Why the body cannot be taken. */
static void set_refusal(const struct http_request *request, enum error_code code, struct error *err)
{
    if (code == ERROR_PAYLOAD_TOO_LARGE)
        error_set(err, code, "the request body is over the limit of %zu bytes for this call",
                  request->match.route->max_body_bytes);
    else
        error_set(err, code, "too many large requests are under way; try again soon");
}

/* How often the headers say where the body ends: libmicrohttpd believes the first. */
struct framing {
    unsigned lengths, codings;
};

static enum MHD_Result note_header(void *data, enum MHD_ValueKind kind, const char *name,
                                   const char *value)
{
    struct framing *framing = data;
    (void)kind;
    (void)value;
    framing->lengths += strcasecmp(name, MHD_HTTP_HEADER_CONTENT_LENGTH) == 0;
    framing->codings += strcasecmp(name, MHD_HTTP_HEADER_TRANSFER_ENCODING) == 0;
    return MHD_YES;
}

/* Somebody in between may have found the request's end elsewhere: nothing behind it can be believed to be a request. */
static bool is_ambiguous(struct http_request *request)
{
    struct framing framing = {0};
    MHD_get_connection_values(request->connection, MHD_HEADER_KIND, note_header, &framing);
    return framing.lengths > 1 || framing.codings > 1;
}

/* Libmicrohttpd reads a body of any other coding until the client hangs up, and believes
 * Transfer-Encoding where somebody in between may have believed Content-Length. */
static int check_body_form(struct http_request *request, struct error *err)
{
    const char *coding = http_request_header(request, MHD_HTTP_HEADER_TRANSFER_ENCODING);
    if (is_ambiguous(request))
        return error_set(err, ERROR_INVALID_REQUEST,
                         "Content-Length and Transfer-Encoding can be given once");
    if (!coding)
        return 0;
    if (strcasecmp(coding, "chunked") != 0)
        return error_set(err, ERROR_INVALID_REQUEST, "Transfer-Encoding can be chunked, not %.100s",
                         coding);
    if (http_request_header(request, MHD_HTTP_HEADER_CONTENT_LENGTH))
        return error_set(err, ERROR_INVALID_REQUEST,
                         "Content-Length and Transfer-Encoding exclude each other");
    return 0;
}

static int check_body_size(struct http_request *request, struct error *err)
{
    struct http_server *server = request->server;
    uint64_t length = content_length(request);
    enum error_code refusal = ERROR_NONE;
    if (length > request->match.route->max_body_bytes)
        refusal = ERROR_PAYLOAD_TOO_LARGE;
    else if (server->buffered_bytes + length > server->options.max_buffered_bytes)
        refusal = ERROR_NO_CAPACITY;
    if (refusal) {
        set_refusal(request, refusal, err);
        return -1;
    }
    buffer_init(&request->body, request->match.route->max_body_bytes);
    request->accounted_bytes = length;
    server->buffered_bytes += length;
    return 0;
}

static int check_request(struct http_request *request, struct error *err)
{
    const struct http_server_options *options = &request->server->options;
    const struct http_route *route = request->match.route;
    if (!route)
        return error_set(err, ERROR_NOT_FOUND,
                         "there is nothing at %.200s; GET /openapi.yaml tells what is there",
                         request->path);
    if (http_request_read_query(request, err) ||
        (options->authorize && options->authorize(request, route, options->data, err)))
        return -1;
    return check_body_form(request, err) || check_body_size(request, err) ? -1 : 0;
}

static bool is_head_too_long(struct http_request *request)
{
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(request->connection, MHD_CONNECTION_INFO_REQUEST_HEADER_SIZE);
    return info && info->header_size > HEAD_MAX;
}

static enum MHD_Result refuse_head(struct http_request *request)
{
    struct error err;
    error_set(&err, ERROR_INVALID_REQUEST, "a request's headers have at most %lu bytes", HEAD_MAX);
    request->response = http_error_response(request, &err, &request->status);
    request->status = MHD_HTTP_REQUEST_HEADER_FIELDS_TOO_LARGE;
    request->phase = HTTP_PHASE_ANSWERED;
    return queue_answer(request);
}

static enum MHD_Result begin_request(struct http_request *request)
{
    const struct http_server_options *options = &request->server->options;
    struct error err = {0};
    enum MHD_Result result = MHD_YES;

    http_route_find(options->routes, options->route_count, request->method, request->path,
                    &request->match);
    if (is_head_too_long(request))
        result = refuse_head(request);
    else if (options->admit && options->admit(request, request->match.route, options->data, &err))
        result = refuse(request, &err);
    else if (!request->match.route && request->match.path_known)
        result = refuse_method(request);
    else if (check_request(request, &err))
        result = refuse(request, &err);
    request->body_unread =
        request->phase == HTTP_PHASE_ANSWERED &&
        (content_length(request) > 0 ||
         http_request_header(request, MHD_HTTP_HEADER_TRANSFER_ENCODING) != NULL ||
         is_ambiguous(request));
    return result;
}

/* ---- body ---- */

static size_t body_len(const struct http_request *request)
{
    return request->room ? request->room_len : request->body.len;
}

/* Counts the chunk against what all bodies together may take. */
static bool account_chunk(struct http_request *request, size_t len)
{
    struct http_server *server = request->server;
    size_t needed = body_len(request) + len;
    if (needed <= request->accounted_bytes)
        return true;
    size_t more = needed - request->accounted_bytes;
    if (server->buffered_bytes + more > server->options.max_buffered_bytes)
        return false;
    request->accounted_bytes += more;
    server->buffered_bytes += more;
    return true;
}

/* With the first chunk: memory for what was announced. */
static int begin_body(struct http_request *request, struct error *err)
{
    const struct http_server_options *options = &request->server->options;
    uint64_t announced = content_length(request);
    if (request->accounted_bytes >= JSON_AHEAD_MIN)
        request->ahead = json_ahead_new();
    if (announced >= HTTP_LARGE_MIN && options->room)
        request->room = options->room(request, request->match.route, options->data, announced);
    return request->room ? 0 : buffer_reserve(&request->body, request->accounted_bytes, err);
}

static int append(struct http_request *request, const char *data, size_t len, struct error *err)
{
    if (!request->room)
        return buffer_append(&request->body, data, len, err);
    if (len > request->room->len - request->room_len)
        return error_set(err, ERROR_PAYLOAD_TOO_LARGE, "the body is longer than was announced");
    memcpy((char *)request->room->bytes + request->room_len, data, len);
    request->room_len += len;
    return 0;
}

static void take_chunk(struct http_request *request, const char *data, size_t len)
{
    struct error err = {0};
    if (!request->refusal) {
        if (!account_chunk(request, len))
            request->refusal = ERROR_NO_CAPACITY;
        else if ((body_len(request) == 0 && begin_body(request, &err)) ||
                 append(request, data, len, &err))
            request->refusal = err.code == ERROR_PAYLOAD_TOO_LARGE ? err.code : ERROR_NO_CAPACITY;
        if (request->refusal)
            http_request_release_body(request);
        else
            json_ahead_look(request->ahead, http_request_body(request, NULL), body_len(request));
    }
    if (request->refusal)
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
    struct http_connection *connection = http_connection_of(request->connection);
    request->suspended = true;
    MHD_suspend_connection(request->connection);
    if (connection && connection->hung_up)
        http_request_abort(request);
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
    if (request->refusal) {
        set_refusal(request, request->refusal, &err);
        return refuse(request, &err);
    }
    const struct http_server_options *options = &server->options;
    if (options->confirm && options->confirm(request, request->match.route, options->data, &err))
        return refuse(request, &err);
    return call_handler(request);
}
