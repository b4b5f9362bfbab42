/* What libmicrohttpd does not watch: whether the client of a sleeping connection is still there, and
 * whether a request ever becomes complete.
 *
 * A suspended connection is out of libmicrohttpd's epoll set, so an epoll set of our own has every
 * connection in it from accept to close, edge-triggered, for the one event that the peer will send
 * no more. That costs one system call a connection and none a request. libmicrohttpd's idle timeout
 * starts anew with each byte; a client that sends one now and then is ended here. */
#include "base/http_internal.h"

#include "base/loop.h"

#include <sys/epoll.h>
#include <sys/socket.h>

#define NS_PER_SECOND 1000000000ULL
#define SWEEP_MS 1000
#define EVENTS_IN_A_ROW 64

struct http_connection *http_connection_of(struct MHD_Connection *connection)
{
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(connection, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
    return info ? info->socket_context : NULL;
}

static void connection_started(struct http_server *server, struct MHD_Connection *mhd,
                               void **context)
{
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_CONNECTION_FD);
    struct http_connection *connection = info ? http_arrival_take(server, info->connect_fd) : NULL;
    if (!connection)
        return;
    connection->receiving_since_ns = clock_monotonic_ns();
    list_prepend(&server->connections, &connection->link);
    *context = connection;

    struct epoll_event event = {.events = EPOLLRDHUP | EPOLLET, .data.ptr = connection};
    epoll_ctl(server->hangup_epoll, EPOLL_CTL_ADD, connection->fd, &event);
}

static void connection_closed(struct http_server *server, void **context)
{
    struct http_connection *connection = *context;
    if (!connection)
        return;
    epoll_ctl(server->hangup_epoll, EPOLL_CTL_DEL, connection->fd, NULL);
    *context = NULL;
    http_connection_free(server, connection);
    http_arrivals_watch(server);
}

void http_connection_notify(void *server, struct MHD_Connection *connection, void **context,
                            enum MHD_ConnectionNotificationCode code)
{
    if (code == MHD_CONNECTION_NOTIFY_STARTED)
        connection_started(server, connection, context);
    else
        connection_closed(server, context);
}

/* ---- clients that went away ---- */

static void hung_up(struct http_connection *connection)
{
    struct http_request *request = connection->request;
    connection->hung_up = true;
    if (!request || !request->suspended)
        return;
    if (request->phase == HTTP_PHASE_HANDLER)
        http_request_abort(request);
    else
        http_request_wake(request); /* a stream without news: it ends when it is asked for more */
}

/* One event at a time: what a callback does may end other connections. */
static void hangups_ready(uv_poll_t *poll, int status, int events)
{
    struct http_server *server = poll->data;
    struct epoll_event event;
    (void)status;
    (void)events;
    for (int i = 0; i < EVENTS_IN_A_ROW && !server->freeing &&
                    epoll_wait(server->hangup_epoll, &event, 1, 0) == 1;
         i++)
        hung_up(event.data.ptr);
}

/* ---- requests that never become complete ---- */

static void sweep(uv_timer_t *timer)
{
    struct http_server *server = timer->data;
    uint64_t now_ns = clock_monotonic_ns();
    uint64_t limit_ns = server->options.receive_timeout_seconds * NS_PER_SECOND;
    list_for_each(link, &server->connections)
    {
        struct http_connection *connection = list_entry(link, struct http_connection, link);
        struct http_request *request = connection->request;
        bool receiving = !request || request->phase == HTTP_PHASE_BODY;
        /* libmicrohttpd sees its end and closes it. Where the client's end came together with its last bytes, it reads those and does
         * not look again: that is so until its idle timeout. */
        if (receiving &&
            (connection->hung_up || now_ns - connection->receiving_since_ns > limit_ns))
            shutdown(connection->fd, SHUT_RDWR);
    }
    http_arrivals_watch(server);
}

/* ---- connections that a stopping server waits for ---- */

/* Nothing that the client has sent waits to be read. */
static bool is_silent(const struct http_connection *connection)
{
    char byte;
    return recv(connection->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) < 0;
}

void http_server_close_idle(struct http_server *server, uint64_t silent_ns)
{
    uint64_t now_ns = clock_monotonic_ns();
    list_for_each(link, &server->connections)
    {
        struct http_connection *connection = list_entry(link, struct http_connection, link);
        if (!connection->request && !connection->upgraded &&
            now_ns - connection->receiving_since_ns > silent_ns && is_silent(connection))
            shutdown(connection->fd, SHUT_RDWR);
    }
}

size_t http_server_connections(const struct http_server *server)
{
    size_t count = 0;
    list_for_each(link, &server->connections)
    {
        count += !list_entry(link, struct http_connection, link)->upgraded;
    }
    return count;
}

void http_connections_watch(struct http_server *server)
{
    uv_poll_start(&server->hangups, UV_READABLE, hangups_ready);
    uv_timer_start(&server->sweeper, sweep, SWEEP_MS, SWEEP_MS);
    http_arrivals_watch(server);
}
