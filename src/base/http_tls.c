/* See http_tls.h. */
#include "base/http_tls.h"

#include <errno.h>
#include <gnutls/gnutls.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

/* The most that one record holds (RFC 8446, 5.1). */
#define RECORD_MAX (16UL * 1024)

struct http_tls {
    gnutls_session_t session;             /* libmicrohttpd's */
    gnutls_transport_ptr_t their_reading; /* what it had set */
    int socket;
    bool asking;  /* the session is asked from here, not by libmicrohttpd */
    bool sending; /* the session has a record that is not out yet */
    size_t held_at, held_len;
    char held[RECORD_MAX]; /* the rest of a record that was larger than asked for */
};

static ssize_t nothing_now(gnutls_transport_ptr_t data, void *to, size_t max)
{
    (void)data;
    (void)to;
    (void)max;
    errno = EAGAIN;
    return -1;
}

static ssize_t read_socket(gnutls_transport_ptr_t data, void *to, size_t max)
{
    const struct http_tls *tls = data;
    if (!tls->asking)
        return nothing_now(data, to, max);
    return recv(tls->socket, to, max, MSG_DONTWAIT);
}

int http_tls_take(struct MHD_Connection *connection, struct http_tls **ret)
{
    const union MHD_ConnectionInfo *session =
        MHD_get_connection_info(connection, MHD_CONNECTION_INFO_GNUTLS_SESSION);
    *ret = NULL;
    if (!session)
        return 0;
    struct http_tls *tls = calloc(1, sizeof(*tls));
    if (!tls)
        return -1;
    gnutls_transport_ptr_t their_writing;
    tls->session = session->tls_session;
    tls->socket =
        MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD)->connect_fd;
    gnutls_transport_get_ptr2(tls->session, &tls->their_reading, &their_writing);
    gnutls_transport_set_ptr2(tls->session, tls, their_writing);
    gnutls_transport_set_pull_function(tls->session, read_socket);
    *ret = tls;
    return 0;
}

void http_tls_give_back(struct http_tls *tls)
{
    gnutls_transport_ptr_t reading, writing;
    gnutls_transport_get_ptr2(tls->session, &reading, &writing);
    gnutls_transport_set_ptr2(tls->session, tls->their_reading, writing);
    gnutls_transport_set_pull_function(tls->session, nothing_now);
    free(tls);
}

int http_tls_socket(const struct http_tls *tls)
{
    return tls->socket;
}

/* -1 with errno for what the session says instead of a number of bytes. */
static ssize_t failed(ssize_t status)
{
    if (status == GNUTLS_E_INTERRUPTED)
        errno = EINTR;
    else
        errno = status == GNUTLS_E_AGAIN ? EAGAIN : EPROTO;
    return -1;
}

/* A whole record, so that the session never keeps a part which libmicrohttpd could take. */
static ssize_t read_record(struct http_tls *tls, char *to)
{
    tls->asking = true;
    ssize_t got = gnutls_record_recv(tls->session, to, RECORD_MAX);
    tls->asking = false;
    if (got == GNUTLS_E_PREMATURE_TERMINATION)
        return 0;
    return got < 0 ? failed(got) : got;
}

static ssize_t take_held(struct http_tls *tls, void *to, size_t max)
{
    size_t left = tls->held_len - tls->held_at;
    size_t len = left < max ? left : max;
    memcpy(to, tls->held + tls->held_at, len);
    tls->held_at += len;
    return (ssize_t)len;
}

ssize_t http_tls_receive(struct http_tls *tls, void *to, size_t max)
{
    if (tls->held_at < tls->held_len)
        return take_held(tls, to, max);
    if (max >= RECORD_MAX)
        return read_record(tls, to);
    ssize_t got = read_record(tls, tls->held);
    if (got <= 0)
        return got;
    tls->held_at = 0;
    tls->held_len = (size_t)got;
    return take_held(tls, to, max);
}

ssize_t http_tls_send(struct http_tls *tls, const void *from, size_t len)
{
    /* What is in the session already is not said again. */
    ssize_t sent = tls->sending ? gnutls_record_send(tls->session, NULL, 0)
                                : gnutls_record_send(tls->session, from, len);
    tls->sending = sent == GNUTLS_E_AGAIN || sent == GNUTLS_E_INTERRUPTED;
    return sent < 0 ? failed(sent) : sent;
}
