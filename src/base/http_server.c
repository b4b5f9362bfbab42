/* The HTTP server's place in the event loop: driving libmicrohttpd, starting and stopping. */
#include "base/http_internal.h"

#include "base/text.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#define RUNS_IN_A_ROW 16
/* libmicrohttpd's memory of one connection, half of which it reads into. It clears all of it for each request. */
#define ORDINARY_MEMORY_BYTES (32UL * 1024)
#define LARGE_MEMORY_BYTES (128UL * 1024)
/* GnuTLS's own words. */
#define TLS_PRIORITIES "NORMAL:-VERS-ALL:+VERS-TLS1.3:+VERS-TLS1.2"

/* ---- driving libmicrohttpd ---- */

static void run(struct http_server *server);

static void run_daemon(struct http_daemon *daemon)
{
    daemon->due = true;
    run(daemon->server);
}

static void timer_fired(uv_timer_t *timer)
{
    run_daemon(timer->data);
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
    run_daemon(poll->data);
}

/* libmicrohttpd says when it wants to be called next even if no socket becomes ready (timeouts,
 * data it has read). */
static void set_timer(struct http_daemon *daemon)
{
    MHD_UNSIGNED_LONG_LONG timeout_ms;
    if (MHD_get_timeout(daemon->mhd, &timeout_ms) != MHD_YES)
        uv_timer_stop(&daemon->timer);
    else if (timeout_ms == 0)
        http_daemon_schedule(daemon);
    else
        uv_timer_start(&daemon->timer, timer_fired, timeout_ms, 0);
}

/* False: there was nothing to do. */
static bool run_due(struct http_server *server)
{
    bool ran = false;
    for (size_t i = 0; i < HTTP_DAEMONS; i++) {
        struct http_daemon *daemon = &server->daemons[i];
        if (!daemon->due)
            continue;
        daemon->due = false;
        MHD_run(daemon->mhd);
        daemon->ran = ran = true;
    }
    return ran;
}

/* A handler that answers another request (a worker's result that wakes its client) resumes a
 * connection, which needs one more run: at once, for the sake of latency, but not for ever, for the
 * sake of the rest of the loop. */
static void run(struct http_server *server)
{
    if (server->running || server->freeing)
        return;
    server->running = true;
    for (int i = 0; i < RUNS_IN_A_ROW && run_due(server); i++)
        ;
    server->running = false;
    http_arrivals_check(server);
    for (size_t i = 0; i < HTTP_DAEMONS; i++) {
        struct http_daemon *daemon = &server->daemons[i];
        if (daemon->due)
            http_daemon_schedule(daemon);
        else if (daemon->ran)
            set_timer(daemon);
        daemon->ran = false;
    }
}

void http_daemon_schedule(struct http_daemon *daemon)
{
    struct http_server *server = daemon->server;
    daemon->due = true;
    if (!server->running && !server->freeing)
        uv_idle_start(&server->again, ran_idle);
}

void http_server_run(struct http_server *server)
{
    run(server);
}

struct http_daemon *http_daemon_of(struct http_server *server, struct MHD_Connection *connection)
{
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(connection, MHD_CONNECTION_INFO_DAEMON);
    struct http_daemon *large = &server->daemons[HTTP_LARGE];
    return info && info->daemon == large->mhd ? large : &server->daemons[HTTP_ORDINARY];
}

/* Decoding is ours: libmicrohttpd would lose the difference between %2F and a slash. */
static size_t leave_escaped(void *data, struct MHD_Connection *connection, char *text)
{
    (void)data;
    (void)connection;
    return strlen(text);
}

static int start_daemon(struct http_server *server, enum http_daemon_kind kind, size_t memory_bytes,
                        struct error *err)
{
    struct http_daemon *daemon = &server->daemons[kind];
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
    daemon->server = server;
    daemon->mhd = MHD_start_daemon(
        MHD_USE_EPOLL | MHD_USE_NO_LISTEN_SOCKET | MHD_ALLOW_SUSPEND_RESUME | MHD_ALLOW_UPGRADE |
            (tls ? MHD_USE_TLS : 0),
        0, NULL, NULL, http_access, server, MHD_OPTION_CONNECTION_LIMIT, options->connection_limit,
        MHD_OPTION_CONNECTION_MEMORY_LIMIT, memory_bytes, MHD_OPTION_CONNECTION_TIMEOUT,
        options->idle_timeout_seconds, MHD_OPTION_NOTIFY_COMPLETED, http_completed, server,
        MHD_OPTION_NOTIFY_CONNECTION, http_connection_notify, server, MHD_OPTION_UNESCAPE_CALLBACK,
        leave_escaped, NULL, MHD_OPTION_ARRAY, tls_options, MHD_OPTION_END);
    if (!daemon->mhd)
        return error_set(err, tls ? ERROR_INVALID_REQUEST : ERROR_INTERNAL,
                         "cannot start the HTTP server%s",
                         tls ? ": certificate and key must be PEM text, and belong together" : "");
    return 0;
}

static int start_daemons(struct http_server *server, struct error *err)
{
    if (start_daemon(server, HTTP_ORDINARY, ORDINARY_MEMORY_BYTES, err))
        return -1;
    if (server->options.tls_certificate)
        return 0;
    return start_daemon(server, HTTP_LARGE, LARGE_MEMORY_BYTES, err);
}

/* A handle's `data` is set once it is initialised and has to be closed. */
static int watch(struct http_server *server, uv_poll_t *poll, int fd, void *data, struct error *err)
{
    int status = uv_poll_init(server->loop, poll, fd);
    if (status)
        return error_set(err, ERROR_INTERNAL, "cannot watch the HTTP server: %s",
                         uv_strerror(status));
    poll->data = data;
    return 0;
}

static int join_daemon(struct http_daemon *daemon, struct error *err)
{
    struct http_server *server = daemon->server;
    const union MHD_DaemonInfo *info = MHD_get_daemon_info(daemon->mhd, MHD_DAEMON_INFO_EPOLL_FD);
    if (!info)
        return error_set(err, ERROR_INTERNAL, "libmicrohttpd has no epoll descriptor");
    if (watch(server, &daemon->poll, info->epoll_fd, daemon, err))
        return -1;
    uv_timer_init(server->loop, &daemon->timer);
    daemon->timer.data = daemon;
    uv_poll_start(&daemon->poll, UV_READABLE, poll_ready);
    set_timer(daemon);
    return 0;
}

static int join_loop(struct http_server *server, struct error *err)
{
    uv_idle_init(server->loop, &server->again);
    uv_timer_init(server->loop, &server->sweeper);
    server->sweeper.data = server->again.data = server;
    for (size_t i = 0; i < HTTP_DAEMONS; i++)
        if (server->daemons[i].mhd && join_daemon(&server->daemons[i], err))
            return -1;
    if (watch(server, &server->hangups, server->hangup_epoll, server, err) ||
        watch(server, &server->arrivals, server->listen_fd, server, err))
        return -1;
    http_connections_watch(server);
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
    handle->data = server;
    server->open_handles++;
    uv_close(handle, handle_closed);
}

static void stop_daemons(struct http_server *server)
{
    for (size_t i = 0; i < HTTP_DAEMONS; i++) {
        struct http_daemon *daemon = &server->daemons[i];
        close_handle(server, (uv_handle_t *)&daemon->poll); /* before its descriptor */
        close_handle(server, (uv_handle_t *)&daemon->timer);
        if (daemon->mhd)
            MHD_stop_daemon(daemon->mhd);
        daemon->mhd = NULL;
    }
    http_arrivals_check(server);
}

/* Frees what is there of it; the memory itself when its handles have closed. */
static void destroy(struct http_server *server)
{
    close_handle(server, (uv_handle_t *)&server->arrivals);
    close_handle(server, (uv_handle_t *)&server->hangups);
    close_handle(server, (uv_handle_t *)&server->sweeper);
    close_handle(server, (uv_handle_t *)&server->again);
    if (server->listen_fd >= 0)
        close(server->listen_fd);
    if (server->hangup_epoll >= 0)
        close(server->hangup_epoll);
    http_lingers_end(server);
    string_map_deinit(&server->clients);
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
    list_init(&server->connections);
    list_init(&server->arriving);
    server->listen_fd = -1;
    server->hangup_epoll = epoll_create1(EPOLL_CLOEXEC);
    if (server->hangup_epoll < 0)
        error_set_errno(err, ERROR_INTERNAL, errno, "epoll_create1");
    if (server->hangup_epoll < 0 || http_listener_open(server, err) || start_daemons(server, err) ||
        join_loop(server, err)) {
        server->freeing = true;
        stop_daemons(server);
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
    server->paused = true;
    uv_poll_stop(&server->arrivals);
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
    for (size_t i = 0; i < HTTP_DAEMONS; i++)
        if (server->daemons[i].mhd)
            MHD_run(server->daemons[i].mhd);
    http_server_quiesce(server);
    stop_daemons(server);
    /* Requests that a handler still holds must not look for their server any more. */
    for (struct http_request *request = server->requests; request; request = request->next)
        request->server = NULL;
    destroy(server);
}
