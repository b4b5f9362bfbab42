/* A connection that carries bytes both ways, whatever is below it: a socket that the HTTP server gave away, or one of libcurl's,
 * perhaps with TLS. Never blocks. Made by http_respond_upgrade() and http_tunnel_start(); read and written by
 * message_stream.h. */
#pragma once

#include <stdbool.h>
#include <sys/types.h>

struct byte_stream {
    /* Bytes, 0 at the end, -1 with errno (EAGAIN: none now). */
    ssize_t (*receive)(struct byte_stream *stream, void *to, size_t max);
    /* Bytes taken, or -1 with errno (EAGAIN: none now). */
    ssize_t (*send)(struct byte_stream *stream, const void *from, size_t len);
    /* Ends the connection and frees the stream. Nobody may watch `fd` any more. */
    void (*close)(struct byte_stream *stream);
    int fd; /* to be watched; not to be read or closed */
    bool
        holds_bytes; /* some may wait above the socket, so that it does not become readable for them: read until EAGAIN */
};
