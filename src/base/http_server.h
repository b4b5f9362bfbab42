/* HTTP/1.1 server over libmicrohttpd, driven by a libuv loop: MHD's epoll descriptor sits in the
 * loop, no thread is made, and every handler runs on the loop thread. The only place that includes
 * microhttpd.h.
 *
 * A request's way: headers read -> `admit` -> route found (404, 405) -> `authorize` (before one byte of body
 * is taken) -> body collected, capped by the route (413) -> handler. The handler answers with
 * exactly one http_respond*() call, at once or later from any callback on the loop thread; until
 * then the connection sleeps and costs nothing. After answering, the request must not be touched.
 *
 * When the client goes away first, `on_abort` (if set by the handler before it returned) is called,
 * and the request must still be answered (the answer goes nowhere). A client that has shut down its
 * sending side counts as gone.
 *
 * Refused at once: a path or query with a broken escape or text that is not UTF-8, more than 16
 * query parameters, another transfer coding than chunked. Connections are closed when they are
 * silent for `idle_timeout_seconds`, or have not sent a whole request in `receive_timeout_seconds`. A client that
 * sends nothing waits in the kernel for a second before it is a connection here, and counts as one.
 *
 * Without TLS, a connection whose first request announces a large body is read in larger pieces than the others, while no
 * more than 64 are so. It makes no other difference.
 *
 * Errors all have the contract's form: {"error": {...}, "request_id": "..."}; each answer carries
 * X-Request-Id. */
#pragma once

#include "base/blob.h"
#include "base/buffer.h"
#include "base/byte_stream.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>
#include <uv.h>

struct http_server;
struct http_request;
struct json_ahead;

/* A body of so many bytes or more is a large one, where its length is announced. */
#define HTTP_LARGE_MIN ((size_t)256 * 1024)

typedef void http_handler_fn(struct http_request *request, void *data);

struct http_route {
    const char *method;  /* "GET", or "*" for any */
    const char *pattern; /* "/v1/functions/{name}/invocations"; a parameter is one path segment,
                            "{rest...}" the remainder */
    http_handler_fn *handler;
    size_t max_body_bytes; /* 0: a body is refused */
    int tag;               /* the program's own; `authorize` sees it */
};

struct http_server_options {
    const char *listen;              /* "127.0.0.1:8080", "[::1]:0" */
    int inherited_fd;                /* to use in place of a new socket there, and taken; 0: none */
    const struct http_route *routes; /* borrowed */
    size_t route_count;
    void *data; /* for handlers and authorize */
    /* Comes first, also where there is no such route (`route` is then NULL); otherwise as authorize. May be NULL. */
    int (*admit)(struct http_request *request, const struct http_route *route, void *data,
                 struct error *err);
    /* 0 to go on; -1 with `err` set refuses (its code makes the status). May be NULL. */
    int (*authorize)(struct http_request *request, const struct http_route *route, void *data,
                     struct error *err);
    /* Once more, when the body has come, which may be long after: likewise. May be NULL. */
    int (*confirm)(struct http_request *request, const struct http_route *route, void *data,
                   struct error *err);
    /* Where a large body goes whose `len` bytes are announced, asked when its first bytes are there: a blob, which is taken, and whose bytes
     * are written until the handler has the request. NULL: into memory of the server's. May be NULL. The handler takes such a
     * body with http_request_take_blob() only; it does not end with a NUL. */
    struct blob *(*room)(struct http_request *request, const struct http_route *route, void *data,
                         size_t len);
    /* TLS 1.2 and newer in place of plain HTTP: certificate chain and private key as PEM text, borrowed
     * until http_server_free(). Both, or neither. */
    const char *tls_certificate, *tls_key;
    unsigned connection_limit;       /* 0: 4096 */
    unsigned connections_per_client; /* from one address; 0: no limit of its own */
    unsigned idle_timeout_seconds; /* of a connection that is sending or silent between requests; 0:
                                      60 */
    unsigned receive_timeout_seconds; /* for one whole request to come; 0: 900 */
    size_t max_buffered_bytes; /* of all bodies under way together (503 over it); 0: 512 MiB */
};

/* Whether `listen` is an address and port that can be listened on, of this machine or not. */
int http_check_address(const char *listen, struct error *err);
/* Whether a listening socket is at that address; at any port where 0 is asked for. */
bool http_listens_at(int fd, const char *listen);
struct http_server *http_server_new(uv_loop_t *loop, const struct http_server_options *options,
                                    struct error *err);
/* The port it listens on (for ":0"). */
uint16_t http_server_port(const struct http_server *server);
/* The listening socket; -1 once it is closed. Borrowed. */
int http_server_listener(const struct http_server *server);
/* No new connections; those that are open get "Connection: close". Call before http_server_free()
 * when draining. */
void http_server_quiesce(struct http_server *server);

/* ---- handing the listening socket to a successor, which has it too ----
 *
 * pause, then close_idle again and again until http_server_connections() is 0, then quiesce: no client meets a closed door.
 * New connections wait in the socket's queue. Each that is open is told "Connection: close" with its next answer. */
void http_server_pause(struct http_server *server);
/* Takes those that wait in the queue now, after all. */
void http_server_accept_waiting(struct http_server *server);
/* Closes connections that have been between two requests for so long. */
void http_server_close_idle(struct http_server *server, uint64_t silent_ns);
/* Open connections, without those that have left HTTP. */
size_t http_server_connections(const struct http_server *server);

/* Requests not yet answered. */
size_t http_server_pending(const struct http_server *server);
/* Aborts what is still open. */
void http_server_free(struct http_server *server);

/* ---- reading a request; everything is borrowed from it ---- */
const char *http_request_id(const struct http_request *request);
const char *http_request_method(const struct http_request *request);
const char *http_request_path(const struct http_request *request);
/* Path parameter, percent-decoded; NULL when the pattern has none of that name. */
const char *http_request_param(const struct http_request *request, const char *name);
/* Query parameter, percent-decoded, "" without a value; NULL when absent. */
const char *http_request_query(const struct http_request *request, const char *name);
const char *http_request_header(const struct http_request *request, const char *name);
/* Where it came from; NULL when that is not known. */
const struct sockaddr *http_request_client(const struct http_request *request);
const char *http_request_body(const struct http_request *request, size_t *ret_len);
/* The body becomes the caller's; free() it. */
char *http_request_take_body(struct http_request *request, size_t *ret_len);
/* The same as a blob, also where it is in a room of the program's (struct http_server_options); NULL: out of memory. */
struct blob *http_request_take_blob(struct http_request *request);
/* What was seen of a large body while it came, for json_check_ahead() of it; NULL when there is nothing. */
const struct json_ahead *http_request_ahead(const struct http_request *request);
uint64_t http_request_received_ns(const struct http_request *request); /* monotonic */
void *http_request_data(
    const struct http_request *request); /* a pointer of the program's, e.g. set by authorize */
void http_request_set_data(struct http_request *request, void *data);
void http_request_on_abort(struct http_request *request, void (*fn)(void *data), void *data);

/* ---- answering ---- */
struct http_header {
    const char *name;
    const char *value;
};

/* `body` becomes the server's (malloc'd; NULL with 0 for none) and is freed even on failure.
 * Headers are copied. */
void http_respond(struct http_request *request, int status, const char *content_type, char *body,
                  size_t body_len, const struct http_header *headers, size_t header_count);
/* The same with a body in two pieces and `middle`, which goes between them from where it is: the first `at` bytes of `text`, which becomes the
 * server's, then it, then the rest. One use of `middle` is taken. */
void http_respond_around(struct http_request *request, int status, const char *content_type,
                         struct buffer *text, size_t at, struct blob *middle,
                         const struct http_header *headers, size_t header_count);
/* The buffer's content is taken; application/json. */
void http_respond_json(struct http_request *request, int status, struct buffer *body);
/* Status and body from `err`; for throttled and no_capacity Retry-After: its retry_after_s, at least 1. */
void http_respond_error(struct http_request *request, const struct error *err);

/* A body of unknown length (NDJSON). Begin answers the headers; write queues bytes (-1 when more
 * than 1 MiB waits for a slow reader: the stream is then ended); end finishes. `closed` is called
 * once when the stream is over for whatever reason; the handle is invalid from then on. NULL when
 * the client is gone or there is no memory: the request is then answered, and `closed` not called. */
struct http_stream;
struct http_stream *http_stream_begin(struct http_request *request, int status,
                                      const char *content_type, void (*closed)(void *data),
                                      void *data);
int http_stream_write(struct http_stream *stream, const char *bytes, size_t len);
void http_stream_end(struct http_stream *stream);

/* ---- leaving HTTP ---- */

/* Whether the client asked for `protocol` on this connection (RFC 9110, section 7.8). */
bool http_request_wants_upgrade(const struct http_request *request, const char *protocol);
/* Answers 101: from then on the connection carries bytes of `protocol` both ways. `opened` comes once: with the stream, which is
 * then the caller's and must be closed before http_server_free(); or with NULL when the client went away first. */
void http_respond_upgrade(struct http_request *request, const char *protocol,
                          void (*opened)(void *data, struct byte_stream *stream), void *data);
