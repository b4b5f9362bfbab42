/* The HTTP server's place in the event loop: listening, driving libmicrohttpd, stopping. */
#include "base/http_internal.h"

#include "base/cleanup.h"
#include "base/text.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define RUNS_IN_A_ROW 16
/* GnuTLS's own words. */
#define TLS_PRIORITIES "NORMAL:-VERS-ALL:+VERS-TLS1.3:+VERS-TLS1.2"

/* ---- listening ---- */

/* "127.0.0.1:8080", "[::1]:8080" into its parts. */
static int split_address(const char *listen, char *host, size_t host_size, const char **ret_port,
                         struct error *err)
{
    const char *colon = strrchr(listen, ':');
    const char *start = listen;
    size_t len = colon ? (size_t)(colon - listen) : 0;
    if (len >= 2 && listen[0] == '[' && listen[len - 1] == ']') {
        start++;
        len -= 2;
    }
    char *end = NULL;
    long port = colon ? strtol(colon + 1, &end, 10) : -1;
    if (!colon || len == 0 || len >= host_size || end == colon + 1 || *end || port < 0 ||
        port > 65535)
        return error_set(err, ERROR_INVALID_REQUEST,
                         "an address to listen on looks like 127.0.0.1:8080 or [::1]:8080, not %s",
                         listen);
    snprintf(host, host_size, "%.*s", (int)len, start);
    *ret_port = colon + 1;
    return 0;
}

static int bind_and_listen(const struct addrinfo *address)
{
    int one = 1;
    autoclose int fd = socket(address->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) ||
        bind(fd, address->ai_addr, address->ai_addrlen) || listen(fd, SOMAXCONN))
        return -1;
    return steal_fd(&fd);
}

/* NULL with `err` set; else freeaddrinfo() it. */
static struct addrinfo *read_address(const char *listen, struct error *err)
{
    struct addrinfo hints = {.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV,
                             .ai_socktype = SOCK_STREAM};
    struct addrinfo *address = NULL;
    char host[64];
    const char *port = NULL;
    if (split_address(listen, host, sizeof(host), &port, err))
        return NULL;
    if (getaddrinfo(host, port, &hints, &address)) {
        error_set(err, ERROR_INVALID_REQUEST, "%s is no IP address to listen on", host);
        return NULL;
    }
    return address;
}

static bool is_bound_to(int fd, const struct addrinfo *address)
{
    union {
        struct sockaddr any;
        struct sockaddr_in in;
        struct sockaddr_in6 in6;
    } bound = {0};
    socklen_t len = sizeof(bound);
    if (getsockname(fd, &bound.any, &len) || bound.any.sa_family != address->ai_family)
        return false;
    if (address->ai_family == AF_INET) {
        const struct sockaddr_in *wanted = (const struct sockaddr_in *)address->ai_addr;
        return wanted->sin_addr.s_addr == bound.in.sin_addr.s_addr &&
               (!wanted->sin_port || wanted->sin_port == bound.in.sin_port);
    }
    const struct sockaddr_in6 *wanted = (const struct sockaddr_in6 *)address->ai_addr;
    return memcmp(&wanted->sin6_addr, &bound.in6.sin6_addr, sizeof(wanted->sin6_addr)) == 0 &&
           (!wanted->sin6_port || wanted->sin6_port == bound.in6.sin6_port);
}

bool http_listens_at(int fd, const char *listen)
{
    struct addrinfo *address = read_address(listen, NULL);
    bool at = address && is_bound_to(fd, address);
    if (address)
        freeaddrinfo(address);
    return at;
}

static int bind_new(const char *listen, struct error *err)
{
    struct addrinfo *address = read_address(listen, err);
    if (!address)
        return -1;
    int fd = bind_and_listen(address);
    freeaddrinfo(address);
    return fd >= 0 ? fd
                   : error_set_errno(err, ERROR_UNAVAILABLE, errno, "cannot listen on %s", listen);
}

static int open_listener(struct http_server *server, struct error *err)
{
    struct sockaddr_storage bound = {0};
    socklen_t bound_len = sizeof(bound);
    int inherited_fd = server->options.inherited_fd;
    server->listen_fd = inherited_fd > 0 ? inherited_fd : bind_new(server->options.listen, err);
    if (server->listen_fd < 0)
        return -1;
    if (getsockname(server->listen_fd, (struct sockaddr *)&bound, &bound_len))
        return error_set_errno(err, ERROR_INTERNAL, errno, "getsockname");
    /* The analyzer does not know that getsockname() writes through its transparent union. */
    /* NOLINTNEXTLINE(clang-analyzer-core.CallAndMessage) */
    server->port = ntohs(bound.ss_family == AF_INET6 ? ((struct sockaddr_in6 *)&bound)->sin6_port
                                                     : ((struct sockaddr_in *)&bound)->sin_port);
    return 0;
}

/* ---- driving libmicrohttpd ---- */

static void run(struct http_server *server);

static void timer_fired(uv_timer_t *timer)
{
    run(timer->data);
}

static void ran_idle(uv_idle_t *idle)
{
    uv_idle_stop(idle);
    run(idle->data);
}

static void poll_ready(uv_poll_t *poll, int status, int events)
{
    (void)status;
    (void)events;
    run(poll->data);
}

/* libmicrohttpd says when it wants to be called next even if no socket becomes ready (timeouts,
 * data it has read). */
static void set_timer(struct http_server *server)
{
    MHD_UNSIGNED_LONG_LONG timeout_ms;
    if (MHD_get_timeout(server->daemon, &timeout_ms) != MHD_YES)
        uv_timer_stop(&server->timer);
    else if (timeout_ms == 0)
        uv_idle_start(&server->again, ran_idle);
    else
        uv_timer_start(&server->timer, timer_fired, timeout_ms, 0);
}

/* A handler that answers another request (a worker's result that wakes its client) resumes a
 * connection, which needs one more run: at once, for the sake of latency, but not for ever, for the
 * sake of the rest of the loop. */
static void run(struct http_server *server)
{
    if (server->running || server->freeing)
        return;
    server->running = true;
    for (int i = 0; i < RUNS_IN_A_ROW; i++) {
        server->run_again = false;
        MHD_run(server->daemon);
        if (!server->run_again)
            break;
    }
    server->running = false;
    set_timer(server);
    if (server->run_again)
        uv_idle_start(&server->again, ran_idle);
}

void http_server_schedule(struct http_server *server)
{
    server->run_again = true;
    if (!server->running && !server->freeing)
        uv_idle_start(&server->again, ran_idle);
}

/* Decoding is ours: libmicrohttpd would lose the difference between %2F and a slash. */
static size_t leave_escaped(void *data, struct MHD_Connection *connection, char *text)
{
    (void)data;
    (void)connection;
    return strlen(text);
}

static int start_daemon(struct http_server *server, struct error *err)
{
    const struct http_server_options *options = &server->options;
    bool tls = options->tls_certificate != NULL;
    struct MHD_OptionItem tls_options[] = {
        {MHD_OPTION_HTTPS_MEM_CERT, 0, (void *)options->tls_certificate},
        {MHD_OPTION_HTTPS_MEM_KEY, 0, (void *)options->tls_key},
        {MHD_OPTION_HTTPS_PRIORITIES, 0, (void *)TLS_PRIORITIES},
        {MHD_OPTION_END, 0, NULL},
    };
    if (!tls)
        tls_options[0] = (struct MHD_OptionItem){MHD_OPTION_END, 0, NULL};
    else if (MHD_is_feature_supported(MHD_FEATURE_TLS) != MHD_YES)
        return error_set(err, ERROR_UNAVAILABLE, "this libmicrohttpd was built without TLS");
    server->daemon = MHD_start_daemon(
        MHD_USE_EPOLL | MHD_ALLOW_SUSPEND_RESUME | MHD_ALLOW_UPGRADE | (tls ? MHD_USE_TLS : 0), 0,
        NULL, NULL, http_access, server, MHD_OPTION_LISTEN_SOCKET, server->listen_fd,
        MHD_OPTION_CONNECTION_LIMIT, options->connection_limit, MHD_OPTION_PER_IP_CONNECTION_LIMIT,
        options->connections_per_client, MHD_OPTION_CONNECTION_TIMEOUT,
        options->idle_timeout_seconds, MHD_OPTION_NOTIFY_COMPLETED, http_completed, server,
        MHD_OPTION_NOTIFY_CONNECTION, http_connection_notify, server, MHD_OPTION_UNESCAPE_CALLBACK,
        leave_escaped, NULL, MHD_OPTION_ARRAY, tls_options, MHD_OPTION_END);
    if (!server->daemon)
        return error_set(err, tls ? ERROR_INVALID_REQUEST : ERROR_INTERNAL,
                         "cannot start the HTTP server%s",
                         tls ? ": certificate and key must be PEM text, and belong together" : "");
    return 0;
}

/* A handle's `data` is set once it is initialised and has to be closed. */
static int join_loop(struct http_server *server, struct error *err)
{
    const union MHD_DaemonInfo *info =
        MHD_get_daemon_info(server->daemon, MHD_DAEMON_INFO_EPOLL_FD);
    int status = info ? uv_poll_init(server->loop, &server->poll, info->epoll_fd) : UV_EINVAL;
    if (!status) {
        server->poll.data = server;
        status = uv_poll_init(server->loop, &server->hangups, server->hangup_epoll);
    }
    if (status)
        return error_set(err, ERROR_INTERNAL, "cannot watch the HTTP server: %s",
                         uv_strerror(status));
    uv_timer_init(server->loop, &server->timer);
    uv_timer_init(server->loop, &server->sweeper);
    uv_idle_init(server->loop, &server->again);
    server->hangups.data = server->timer.data = server->sweeper.data = server->again.data = server;
    uv_poll_start(&server->poll, UV_READABLE, poll_ready);
    http_connections_watch(server);
    set_timer(server);
    return 0;
}

static void handle_closed(uv_handle_t *handle)
{
    struct http_server *server = handle->data;
    if (--server->open_handles == 0)
        free(server);
}

static void close_handle(struct http_server *server, uv_handle_t *handle)
{
    if (!handle->data)
        return;
    server->open_handles++;
    uv_close(handle, handle_closed);
}

/* Frees what is there of it; the memory itself when its handles have closed. */
static void destroy(struct http_server *server)
{
    close_handle(server, (uv_handle_t *)&server->poll);
    close_handle(server, (uv_handle_t *)&server->hangups);
    close_handle(server, (uv_handle_t *)&server->timer);
    close_handle(server, (uv_handle_t *)&server->sweeper);
    close_handle(server, (uv_handle_t *)&server->again);
    if (server->daemon)
        MHD_stop_daemon(
            server->daemon); /* closes the listening socket, unless that was taken back */
    else if (server->listen_fd >= 0)
        close(server->listen_fd);
    server->daemon = NULL;
    if (server->hangup_epoll >= 0)
        close(server->hangup_epoll);
    http_lingers_end(server);
    if (server->open_handles == 0)
        free(server);
}

static void fill_options(struct http_server *server, const struct http_server_options *options)
{
    server->options = *options;
    if (!server->options.connection_limit)
        server->options.connection_limit = 4096;
    if (!server->options.idle_timeout_seconds)
        server->options.idle_timeout_seconds = 60;
    if (!server->options.receive_timeout_seconds)
        server->options.receive_timeout_seconds = 900;
    if (!server->options.max_buffered_bytes)
        server->options.max_buffered_bytes = 512UL * 1024 * 1024;
}

struct http_server *http_server_new(uv_loop_t *loop, const struct http_server_options *options,
                                    struct error *err)
{
    struct http_server *server = calloc(1, sizeof(*server));
    char random_text[RANDOM_ID_LEN + 1];
    if (!server) {
        error_set(err, ERROR_INTERNAL, "out of memory");
        return NULL;
    }
    server->loop = loop;
    fill_options(server, options);
    random_id(random_text);
    memcpy(server->id_prefix, random_text, 16);
    server->listen_fd = -1;
    server->hangup_epoll = epoll_create1(EPOLL_CLOEXEC);
    if (server->hangup_epoll < 0)
        error_set_errno(err, ERROR_INTERNAL, errno, "epoll_create1");
    if (server->hangup_epoll < 0 || open_listener(server, err) || start_daemon(server, err) ||
        join_loop(server, err)) {
        server->freeing = true;
        destroy(server);
        return NULL;
    }
    return server;
}

uint16_t http_server_port(const struct http_server *server)
{
    return server->port;
}

size_t http_server_pending(const struct http_server *server)
{
    return server->pending;
}

int http_server_listener(const struct http_server *server)
{
    return server->listen_fd;
}

void http_server_pause(struct http_server *server)
{
    if (!server->paused)
        MHD_quiesce_daemon(server->daemon);
    server->paused = true;
}

void http_server_quiesce(struct http_server *server)
{
    http_server_pause(server);
    if (server->listen_fd >= 0)
        close(server->listen_fd);
    server->listen_fd = -1;
}

/* libmicrohttpd must not be stopped while connections sleep: each is woken first and told to end.
 */
void http_server_free(struct http_server *server)
{
    if (!server)
        return;
    server->freeing = true;
    for (struct http_request *request = server->requests; request; request = request->next)
        http_request_wake(request);
    uv_poll_stop(&server->poll); /* libmicrohttpd closes its descriptor */
    MHD_run(server->daemon);
    http_server_quiesce(server); /* libmicrohttpd might shut a socket down that others have, too */
    MHD_stop_daemon(server->daemon);
    server->daemon = NULL;
    /* Requests that a handler still holds must not look for their server any more. */
    for (struct http_request *request = server->requests; request; request = request->next)
        request->server = NULL;
    destroy(server);
}
