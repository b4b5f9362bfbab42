/* Connections that were refused while their body was still coming.
 *
 * A socket that is closed with unread data makes the kernel send a reset, and a client that was
 * busy sending never sees the answer. So a second descriptor of the socket stays open for a moment:
 * libmicrohttpd closes its own, the client gets answer and end, and what it still sends is thrown
 * away, within limits of time and amount. */
#include "base/http_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#define LINGER_MS 3000
#define LINGER_BYTES (64UL * 1024 * 1024)
#define LINGER_STEP (1024UL * 1024)
#define LINGERS_MAX 64

struct http_linger {
    struct http_server *server;
    struct http_linger *next, *previous;
    int fd; /* owned */
    size_t left;
    uv_poll_t poll;
    uv_timer_t timer;
    int open_handles;
};

static void handle_closed(uv_handle_t *handle)
{
    struct http_linger *linger = handle->data;
    if (--linger->open_handles > 0)
        return;
    close(linger->fd);
    free(linger);
}

static void linger_end(struct http_linger *linger)
{
    if (linger->previous)
        linger->previous->next = linger->next;
    else
        linger->server->lingers = linger->next;
    if (linger->next)
        linger->next->previous = linger->previous;
    linger->server->linger_count--;
    uv_close((uv_handle_t *)&linger->poll, handle_closed);
    uv_close((uv_handle_t *)&linger->timer, handle_closed);
}

static void bytes_came(uv_poll_t *poll, int status, int events)
{
    struct http_linger *linger = poll->data;
    (void)events;
    /* MSG_TRUNC: TCP drops the bytes without copying them (tcp(7)). */
    ssize_t len = recv(linger->fd, NULL, LINGER_STEP, MSG_TRUNC | MSG_DONTWAIT);
    if (len < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (status < 0 || len <= 0 || (size_t)len >= linger->left)
        linger_end(linger);
    else
        linger->left -= (size_t)len;
}

static void time_over(uv_timer_t *timer)
{
    linger_end(timer->data);
}

void http_linger_start(struct http_server *server, int connection_fd)
{
    struct http_linger *linger =
        server->linger_count < LINGERS_MAX && !server->freeing ? calloc(1, sizeof(*linger)) : NULL;
    if (!linger)
        return;
    linger->fd = fcntl(connection_fd, F_DUPFD_CLOEXEC, 3);
    if (linger->fd < 0 || uv_poll_init(server->loop, &linger->poll, linger->fd)) {
        if (linger->fd >= 0)
            close(linger->fd);
        free(linger);
        return;
    }
    linger->server = server;
    linger->left = LINGER_BYTES;
    linger->open_handles = 2;
    linger->poll.data = linger->timer.data = linger;
    uv_timer_init(server->loop, &linger->timer);
    uv_timer_start(&linger->timer, time_over, LINGER_MS, 0);
    uv_poll_start(&linger->poll, UV_READABLE, bytes_came);
    linger->next = server->lingers;
    if (linger->next)
        linger->next->previous = linger;
    server->lingers = linger;
    server->linger_count++;
}

void http_lingers_end(struct http_server *server)
{
    while (server->lingers)
        linger_end(server->lingers);
}
