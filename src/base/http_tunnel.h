/* A connection of the HTTP client that leaves HTTP: "GET … Upgrade: PROTOCOL" (RFC 9110, section 7.8), then bytes both ways. As any
 * request it goes out to the server's address, with TLS where the URL says https. */
#pragma once

#include "base/byte_stream.h"
#include "base/http_client.h"

struct http_tunnel; /* one that is being made */

struct http_tunnel_options {
    const char *url;
    const char *protocol;
    const char *const *headers; /* NULL-terminated "Name: value" lines */
    uint64_t timeout_ms;        /* until the 101 is here */
    const char *ca_file;        /* NULL: the system's */
};

/* `stream` is the caller's; it must be closed before the client is freed. NULL: see `err`. An answer of the
 * contract's form other than 101 becomes an error of its type. */
typedef void http_tunnel_done_fn(void *data, struct byte_stream *stream, const struct error *err);

/* NULL on failure (then `done` is never called). The handle is valid until `done` is called or it is
 * cancelled. */
struct http_tunnel *http_tunnel_start(struct http_client *client,
                                      const struct http_tunnel_options *options,
                                      http_tunnel_done_fn *done, void *data, struct error *err);
/* No callback after it. */
void http_tunnel_cancel(struct http_tunnel *tunnel);

/* The head of the answer in what was received: its length (behind the empty line) with its status, 0 when it is not whole yet,
 * or -1 when it is none. */
ssize_t http_tunnel_read_answer(const char *bytes, size_t len, int *ret_status);
