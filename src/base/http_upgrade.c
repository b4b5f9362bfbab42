/* Connections that leave HTTP: libmicrohttpd gives the socket away, and closes it when it is told to. */
#include "base/http_internal.h"
#include "base/http_tls.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>

/* What is to become of the connection. */
struct http_upgrade {
    void (*opened)(void *data, struct byte_stream *stream);
    void *data;
};

struct upgraded {
    struct byte_stream stream; /* first member */
    struct http_daemon *daemon;
    struct MHD_UpgradeResponseHandle *handle;
    /* What libmicrohttpd gave: the connection, or with TLS one end of a pair of sockets. */
    MHD_socket given;
    struct http_tls *tls; /* owned; NULL: there is none */
    size_t early_len, early_done;
    char early[]; /* read by libmicrohttpd with the request */
};

static ssize_t receive(struct byte_stream *stream, void *to, size_t max)
{
    struct upgraded *upgraded = (struct upgraded *)stream;
    size_t left = upgraded->early_len - upgraded->early_done;
    if (left == 0 && upgraded->tls)
        return http_tls_receive(upgraded->tls, to, max);
    if (left == 0)
        return recv(stream->fd, to, max, MSG_DONTWAIT);
    size_t len = left < max ? left : max;
    memcpy(to, upgraded->early + upgraded->early_done, len);
    upgraded->early_done += len;
    stream->holds_bytes = upgraded->tls || upgraded->early_done < upgraded->early_len;
    return (ssize_t)len;
}

static ssize_t send_bytes(struct byte_stream *stream, const void *from, size_t len)
{
    const struct upgraded *upgraded = (struct upgraded *)stream;
    if (upgraded->tls)
        return http_tls_send(upgraded->tls, from, len);
    return send(stream->fd, from, len, MSG_DONTWAIT | MSG_NOSIGNAL);
}

static void close_stream(struct byte_stream *stream)
{
    struct upgraded *upgraded = (struct upgraded *)stream;
    if (upgraded->tls)
        http_tls_give_back(upgraded->tls);
    shutdown(upgraded->given, SHUT_RDWR); /* libmicrohttpd closes it in its next run */
    MHD_upgrade_action(upgraded->handle, MHD_UPGRADE_ACTION_CLOSE);
    http_daemon_schedule(upgraded->daemon);
    free(upgraded);
}

static struct byte_stream *upgraded_new(struct http_server *server,
                                        struct MHD_Connection *connection, const char *early,
                                        size_t early_len, MHD_socket given,
                                        struct MHD_UpgradeResponseHandle *handle)
{
    int one = 1, zero = 0;
    struct upgraded *upgraded = calloc(1, sizeof(*upgraded) + early_len);
    if (!upgraded || http_tls_take(connection, &upgraded->tls) < 0) {
        free(upgraded);
        return NULL;
    }
    upgraded->stream = (struct byte_stream){
        .receive = receive,
        .send = send_bytes,
        .close = close_stream,
        .fd = upgraded->tls ? http_tls_socket(upgraded->tls) : given,
        .holds_bytes = upgraded->tls || early_len > 0,
    };
    upgraded->daemon = http_daemon_of(server, connection);
    upgraded->handle = handle;
    upgraded->given = given;
    upgraded->early_len = early_len;
    if (early_len > 0)
        memcpy(upgraded->early, early, early_len);
    setsockopt(upgraded->stream.fd, IPPROTO_TCP, TCP_CORK, &zero, sizeof(zero));
    setsockopt(upgraded->stream.fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    return &upgraded->stream;
}

/* From inside of libmicrohttpd, when the 101 is out. */
static void upgrade(void *data, struct MHD_Connection *connection, void *request_slot,
                    const char *early, size_t early_len, MHD_socket fd,
                    struct MHD_UpgradeResponseHandle *handle)
{
    struct http_server *server = data;
    struct http_request *request = request_slot;
    struct http_upgrade *upgrade = request->upgrade;
    struct http_connection *own = http_connection_of(connection);
    if (own)
        own->upgraded = true;
    struct byte_stream *stream = upgraded_new(server, connection, early, early_len, fd, handle);
    if (!stream) {
        shutdown(fd, SHUT_RDWR);
        MHD_upgrade_action(handle, MHD_UPGRADE_ACTION_CLOSE);
        http_daemon_schedule(http_daemon_of(server, connection));
        return;
    }
    request->upgrade = NULL;
    upgrade->opened(upgrade->data, stream);
    free(upgrade);
}

void http_upgrade_free(struct http_upgrade *upgrade)
{
    if (upgrade)
        upgrade->opened(upgrade->data, NULL);
    free(upgrade);
}

bool http_request_wants_upgrade(const struct http_request *request, const char *protocol)
{
    const char *connection = http_request_header(request, MHD_HTTP_HEADER_CONNECTION);
    const char *wanted = http_request_header(request, MHD_HTTP_HEADER_UPGRADE);
    return connection && wanted && strcasestr(connection, "upgrade") &&
           strcasecmp(wanted, protocol) == 0;
}

void http_respond_upgrade(struct http_request *request, const char *protocol,
                          void (*opened)(void *data, struct byte_stream *stream), void *data)
{
    struct http_upgrade *upgraded = malloc(sizeof(*upgraded));
    struct MHD_Response *response =
        upgraded ? MHD_create_response_for_upgrade(upgrade, request->server) : NULL;
    if (!response) {
        free(upgraded);
        http_answer_with(request, 500, NULL);
        opened(data, NULL);
        return;
    }
    *upgraded = (struct http_upgrade){.opened = opened, .data = data};
    MHD_add_response_header(response, MHD_HTTP_HEADER_UPGRADE, protocol);
    request->upgrade = upgraded;
    http_answer_with(request, MHD_HTTP_SWITCHING_PROTOCOLS, response);
}
