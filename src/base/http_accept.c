/* Who is let in, and to which libmicrohttpd.
 *
 * The listening socket is the server's own, because libmicrohttpd's memory of a connection is the same for all of one daemon, and cleared
 * as a whole for each request: what makes a large body fast makes small requests slow. The first bytes of a
 * connection are looked at, without taking them, when it is accepted; the socket's option TCP_DEFER_ACCEPT lets them be there by then. So
 * the limits that libmicrohttpd would keep for one daemon are kept here for both. */
#include "base/http_head.h"
#include "base/http_internal.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#define ACCEPTS_IN_A_ROW 64
/* Enough for a head with its token and what proxies add. */
#define PEEK_MAX 2048
/* So many connections have large memory at a time: a bound of what clients can make the server take by announcing. */
#define LARGE_CONNECTIONS_MAX 64

/* ---- clients ---- */

struct http_client {
    char address[INET6_ADDRSTRLEN]; /* the key in server->clients */
    unsigned connections;
};

static void client_leave(struct http_server *server, struct http_client *client)
{
    if (!client || --client->connections > 0)
        return;
    string_map_remove(&server->clients, client->address);
    free(client);
}

static struct http_client *client_get(struct http_server *server, const char *address)
{
    struct http_client *client = string_map_get(&server->clients, address);
    if (client)
        return client;
    client = calloc(1, sizeof(*client));
    if (!client)
        return NULL;
    snprintf(client->address, sizeof(client->address), "%s", address);
    if (string_map_put(&server->clients, client->address, client, NULL) == 0)
        return client;
    free(client);
    return NULL;
}

/* -1: it has as many connections as it may have, or there is no memory. */
static int client_join(struct http_server *server, const struct sockaddr_storage *from,
                       struct http_client **ret)
{
    unsigned limit = server->options.connections_per_client;
    char address[INET6_ADDRSTRLEN];
    const void *bytes = from->ss_family == AF_INET6
                            ? (const void *)&((const struct sockaddr_in6 *)from)->sin6_addr
                            : (const void *)&((const struct sockaddr_in *)from)->sin_addr;
    *ret = NULL;
    if (!limit || !inet_ntop(from->ss_family, bytes, address, sizeof(address)))
        return 0;
    struct http_client *client = client_get(server, address);
    if (!client || client->connections >= limit)
        return -1;
    client->connections++;
    *ret = client;
    return 0;
}

/* ---- connections ---- */

/* Whether its first request announces a large body. */
static bool is_large(int fd)
{
    char head[PEEK_MAX];
    ssize_t len = recv(fd, head, sizeof(head), MSG_PEEK | MSG_DONTWAIT);
    return len > 0 && http_head_announces(head, (size_t)len) >= HTTP_LARGE_MIN;
}

static struct http_daemon *choose_daemon(struct http_server *server, int fd)
{
    struct http_daemon *large = &server->daemons[HTTP_LARGE];
    if (large->mhd && server->large_count < LARGE_CONNECTIONS_MAX && is_large(fd))
        return large;
    return &server->daemons[HTTP_ORDINARY];
}

static void let_in(struct http_server *server, int fd, struct sockaddr_storage *from,
                   socklen_t from_len)
{
    struct http_connection *connection = calloc(1, sizeof(*connection));
    if (!connection || client_join(server, from, &connection->client)) {
        free(connection);
        close(fd);
        return;
    }
    connection->fd = fd;
    connection->daemon = choose_daemon(server, fd);
    list_prepend(&server->arriving, &connection->link);
    server->connection_count++;
    server->large_count += connection->daemon == &server->daemons[HTTP_LARGE];
    connection->daemon->due = true;
    /* Closes the socket when it fails. */
    if (MHD_add_connection(connection->daemon->mhd, fd, (struct sockaddr *)from, from_len) !=
        MHD_YES)
        http_connection_free(server, connection);
}

void http_connection_free(struct http_server *server, struct http_connection *connection)
{
    list_remove(&connection->link);
    server->connection_count--;
    server->large_count -= connection->daemon == &server->daemons[HTTP_LARGE];
    client_leave(server, connection->client);
    free(connection);
}

struct http_connection *http_arrival_take(struct http_server *server, int fd)
{
    list_for_each(link, &server->arriving)
    {
        struct http_connection *connection = list_entry(link, struct http_connection, link);
        if (connection->fd != fd)
            continue;
        list_remove(link);
        return connection;
    }
    return NULL;
}

void http_arrivals_check(struct http_server *server)
{
    list_for_each(link, &server->arriving)
    {
        struct http_connection *connection = list_entry(link, struct http_connection, link);
        if (server->freeing || !connection->daemon->due)
            http_connection_free(server, connection);
    }
}

/* ---- accepting ---- */

/* Without descriptors or memory for another one: a pause is made, until a connection ends or the sweeper comes by. */
static bool is_exhausted(int error)
{
    return error == EMFILE || error == ENFILE || error == ENOBUFS || error == ENOMEM;
}

static void accept_some(struct http_server *server)
{
    struct sockaddr_storage from = {0};
    for (int i = 0; i < ACCEPTS_IN_A_ROW; i++) {
        bool has_room = server->connection_count < server->options.connection_limit;
        socklen_t len = sizeof(from);
        int fd = has_room ? accept4(server->listen_fd, (struct sockaddr *)&from, &len,
                                    SOCK_CLOEXEC | SOCK_NONBLOCK)
                          : -1;
        if (fd >= 0)
            let_in(server, fd, &from, len);
        else if (!has_room || is_exhausted(errno))
            uv_poll_stop(&server->arrivals);
        if (!has_room || (fd < 0 && errno != ECONNABORTED && errno != EINTR))
            break;
    }
    http_server_run(server);
}

static void arrived(uv_poll_t *poll, int status, int events)
{
    (void)status;
    (void)events;
    accept_some(poll->data);
}

void http_arrivals_watch(struct http_server *server)
{
    if (!server->paused && !server->freeing && !uv_is_active((uv_handle_t *)&server->arrivals))
        uv_poll_start(&server->arrivals, UV_READABLE, arrived);
}

void http_server_accept_waiting(struct http_server *server)
{
    if (server->listen_fd >= 0)
        accept_some(server);
}
