/* Answers: plain bodies, JSON, errors in the contract's form. */
#include "base/http_internal.h"

#include "base/json.h"

#include <stdlib.h>
#include <string.h>

void http_add_common_headers(const struct http_request *request, struct MHD_Response *response)
{
    MHD_add_response_header(response, "X-Request-Id", request->id);
    if (request->server && request->server->paused)
        MHD_add_response_header(response, "Connection", "close");
}

void http_answer_with(struct http_request *request, int status, struct MHD_Response *response)
{
    request->phase = HTTP_PHASE_ANSWERED;
    request->on_abort = NULL;
    request->status = status;
    request->response = response;
    if (request->server)
        request->server->pending--;
    if (request->connection)
        http_request_wake(request); /* without a response the connection ends */
    else
        http_request_release(request);
}

static void add_headers(const struct http_request *request, struct MHD_Response *response,
                        const char *content_type, const struct http_header *headers, size_t count)
{
    if (content_type)
        MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, content_type);
    http_add_common_headers(request, response);
    for (size_t i = 0; i < count; i++)
        MHD_add_response_header(response, headers[i].name, headers[i].value);
}

static struct MHD_Response *make_response(const struct http_request *request,
                                          const char *content_type, char *body, size_t body_len)
{
    struct MHD_Response *response;
    if (body && body_len > 0)
        response = MHD_create_response_from_buffer_with_free_callback(body_len, body, free);
    else {
        free(body);
        response = MHD_create_response_from_buffer(0, (void *)"", MHD_RESPMEM_PERSISTENT);
        body = NULL;
    }
    if (!response) {
        free(body);
        return NULL;
    }
    add_headers(request, response, content_type, NULL, 0);
    return response;
}

void http_respond(struct http_request *request, int status, const char *content_type, char *body,
                  size_t body_len, const struct http_header *headers, size_t header_count)
{
    struct MHD_Response *response = make_response(request, content_type, body, body_len);
    for (size_t i = 0; response && i < header_count; i++)
        MHD_add_response_header(response, headers[i].name, headers[i].value);
    http_answer_with(request, status, response);
}

/* What the response's body lies in. */
struct around {
    char *text; /* owned */
    struct blob *middle;
};

static void free_around(void *data)
{
    struct around *around = data;
    free(around->text);
    blob_unref(around->middle);
    free(around);
}

void http_respond_around(struct http_request *request, int status, const char *content_type,
                         struct buffer *text, size_t at, struct blob *middle,
                         const struct http_header *headers, size_t header_count)
{
    size_t len = 0;
    char *bytes = buffer_take(text, &len);
    struct around *around = malloc(sizeof(*around));
    struct MHD_Response *response = NULL;
    if (around) {
        *around = (struct around){.text = bytes, .middle = middle};
        const struct MHD_IoVec parts[] = {
            {bytes, at}, {middle->bytes, middle->len}, {bytes + at, len - at}};
        response = bytes ? MHD_create_response_from_iovec(parts, 3, free_around, around) : NULL;
        if (!response)
            free_around(around);
    } else {
        free(bytes);
        blob_unref(middle);
    }
    if (response)
        add_headers(request, response, content_type, headers, header_count);
    http_answer_with(request, status, response);
}

void http_respond_json(struct http_request *request, int status, struct buffer *body)
{
    size_t len = 0;
    char *text = buffer_take(body, &len);
    http_respond(request, status, "application/json", text, len, NULL, 0);
}

static void add_retry_after(struct MHD_Response *response, unsigned seconds)
{
    char text[16];
    snprintf(text, sizeof(text), "%u", seconds ? seconds : 1);
    MHD_add_response_header(response, "Retry-After", text);
}

struct MHD_Response *http_error_response(const struct http_request *request,
                                         const struct error *err, int *ret_status)
{
    const struct error_code_info *info = error_code_info(err->code);
    struct buffer body = BUFFER_INIT(16 * 1024);
    struct json_writer *writer = json_writer_new(&body);
    if (!writer)
        return NULL;
    json_object_begin(writer);
    json_key(writer, "error");
    json_object_begin(writer);
    json_member_string(writer, "type", info->type);
    json_member_string(writer, "message", err->message);
    json_member_string(writer, "field", err->field[0] ? err->field : NULL);
    json_object_end(writer);
    json_member_string(writer, "request_id", request->id);
    json_object_end(writer);
    if (json_writer_finish(writer, NULL)) {
        buffer_deinit(&body);
        return NULL;
    }
    size_t len = 0;
    char *text = buffer_take(&body, &len);
    struct MHD_Response *response = make_response(request, "application/json", text, len);
    if (response && (err->code == ERROR_THROTTLED || err->code == ERROR_NO_CAPACITY))
        add_retry_after(response, err->retry_after_s);
    if (response && err->code == ERROR_UNAUTHORIZED)
        MHD_add_response_header(response, "WWW-Authenticate", "Bearer");
    *ret_status = info->http_status;
    return response;
}

void http_respond_error(struct http_request *request, const struct error *err)
{
    int status = 500;
    struct MHD_Response *response = http_error_response(request, err, &status);
    http_answer_with(request, status, response);
}
