/* Answers of unknown length: bytes are queued, libmicrohttpd fetches them, the connection sleeps
 * while there are none. */
#include "base/http_internal.h"

#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#define STREAM_WAITING_MAX (1024 * 1024)
#define STREAM_BLOCK 16384

struct http_stream {
    struct http_server *server;
    struct http_request *request; /* lives at least as long as libmicrohttpd asks for bytes */
    struct buffer waiting;
    bool ended;
    void (*closed)(void *data);
    void *data;
};

static ssize_t read_stream(void *data, uint64_t position, char *out, size_t max)
{
    struct http_stream *stream = data;
    (void)position;
    size_t len = stream->waiting.len < max ? stream->waiting.len : max;
    if (len > 0) {
        memcpy(out, stream->waiting.data, len);
        buffer_consume(&stream->waiting, len);
        return (ssize_t)len;
    }
    if (stream->ended || stream->server->freeing)
        return MHD_CONTENT_READER_END_OF_STREAM;
    struct http_connection *connection = http_connection_of(stream->request->connection);
    if (connection && connection->hung_up) {
        /* What libmicrohttpd writes now fails, and the connection is closed. After END_WITH_ERROR it would stay until all that are older have
         * ended (0.9.75). */
        shutdown(connection->fd, SHUT_RDWR);
        return MHD_CONTENT_READER_END_OF_STREAM;
    }
    stream->request->suspended = true;
    MHD_suspend_connection(stream->request->connection);
    return 0;
}

/* libmicrohttpd is done with the response, for whatever reason. */
static void stream_over(void *data)
{
    struct http_stream *stream = data;
    if (stream->closed)
        stream->closed(stream->data);
    buffer_deinit(&stream->waiting);
    free(stream);
}

struct http_stream *http_stream_begin(struct http_request *request, int status,
                                      const char *content_type, void (*closed)(void *data),
                                      void *data)
{
    struct http_stream *stream = calloc(1, sizeof(*stream));
    struct MHD_Response *response = NULL;
    if (stream && request->connection && request->server) {
        *stream = (struct http_stream){.server = request->server,
                                       .request = request,
                                       .waiting = BUFFER_INIT(STREAM_WAITING_MAX),
                                       .closed = closed,
                                       .data = data};
        response = MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, STREAM_BLOCK, read_stream,
                                                     stream, stream_over);
    }
    if (!response) {
        free(stream);
        http_answer_with(request, status, NULL);
        return NULL;
    }
    MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, content_type);
    http_add_common_headers(request, response);
    http_answer_with(request, status, response);
    return stream;
}

int http_stream_write(struct http_stream *stream, const char *bytes, size_t len)
{
    if (stream->ended)
        return -1;
    if (buffer_append(&stream->waiting, bytes, len, NULL)) {
        stream->ended = true;
        http_request_wake(stream->request);
        return -1;
    }
    http_request_wake(stream->request);
    return 0;
}

void http_stream_end(struct http_stream *stream)
{
    stream->ended = true;
    http_request_wake(stream->request);
}
