/* The TLS of a connection that has left HTTP, taken out of libmicrohttpd's hands.
 *
 * libmicrohttpd (0.9.75 at least) would carry the bytes between the TLS session and a pair of sockets, and has four bytes of memory each
 * way for it: its own answer has taken the rest. A message of 1 KiB then is 256 records of 26 bytes. Here the session is read and written
 * directly, a whole record of up to 16 KiB at a time. What libmicrohttpd still tries to read finds nothing, and it has nothing to write. */
#pragma once

#include <microhttpd.h>
#include <sys/types.h>

struct http_tls;

/* Inside of the upgrade handler. 0 with NULL: the connection has no TLS. -1: out of memory. */
int http_tls_take(struct MHD_Connection *connection, struct http_tls **ret);
/* Before libmicrohttpd is told to close the connection. */
void http_tls_give_back(struct http_tls *tls);
/* The connection's socket: to be watched. It may stay unreadable while bytes are here: read until EAGAIN. */
int http_tls_socket(const struct http_tls *tls);
/* As byte_stream.h says. What was not taken by http_tls_send() must be given again with the same bytes first. */
ssize_t http_tls_receive(struct http_tls *tls, void *to, size_t max);
ssize_t http_tls_send(struct http_tls *tls, const void *from, size_t len);
