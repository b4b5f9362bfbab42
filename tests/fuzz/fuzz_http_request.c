/* What a client sends, whole: headers, target, query, body, through a real socket into the server. What is answered is HTTP,
 * a body is within its route's bound, and no request outlives its client. */
#include "base/http_server.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define IDLE_TURNS 4

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static uv_loop_t loop;
static struct http_server *server;

static void handle(struct http_request *request, void *data)
{
    size_t len = 0;
    (void)data;
    const char *name = http_request_param(request, "name");
    const char *value = http_request_query(request, "a");
    if ((name && strlen(name) > 70000) || (value && strlen(value) > 70000))
        abort();
    char *body = http_request_take_body(request, &len);
    if (len > 1000)
        abort();
    http_respond(request, 200, "application/octet-stream", body, len, NULL, 0);
}

/* Memory of the program's for a large body, which never comes whole. */
static struct blob *make_room(struct http_request *request, const struct http_route *route,
                              void *data, size_t announced)
{
    (void)request;
    (void)route;
    (void)data;
    char *memory = announced <= 400000 ? malloc(announced) : NULL;
    return memory ? blob_new(memory, announced) : NULL;
}

static const struct http_route routes[] = {
    {.method = "PUT", .pattern = "/large", .handler = handle, .max_body_bytes = 400000},
    {.method = "POST", .pattern = "/echo", .handler = handle, .max_body_bytes = 1000},
    {.method = "*", .pattern = "/fn/{name}", .handler = handle, .max_body_bytes = 1000},
    {.method = "GET", .pattern = "/none/{rest...}", .handler = handle},
};

static void stop(void)
{
    http_server_free(server);
    uv_run(&loop, UV_RUN_DEFAULT);
    uv_loop_close(&loop);
}

static void start(void)
{
    struct http_server_options options = {.listen = "127.0.0.1:0",
                                          .routes = routes,
                                          .route_count = sizeof(routes) / sizeof(routes[0]),
                                          .room = make_room,
                                          .max_buffered_bytes = 600000,
                                          .idle_timeout_seconds = 1,
                                          .receive_timeout_seconds = 1};
    if (server)
        return;
    if (uv_loop_init(&loop) || !(server = http_server_new(&loop, &options, NULL)))
        abort();
    atexit(stop);
}

/* libFuzzer's timer may interrupt it: it goes on then. */
static int connect_to(int fd, const struct sockaddr_in *address)
{
    struct pollfd wait = {.fd = fd, .events = POLLOUT};
    int error = 0;
    socklen_t len = sizeof(error);
    if (connect(fd, (const struct sockaddr *)address, sizeof(*address)) == 0)
        return 0;
    if (errno != EINTR)
        return -1;
    while (poll(&wait, 1, -1) < 0 && errno == EINTR)
        ;
    return getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &len) || error ? -1 : 0;
}

static int connect_client(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons(http_server_port(server)),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    /* It ends by a reset, and not before: no port stays taken for a minute after it. */
    struct linger at_once = {.l_onoff = 1};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once)) ||
        connect_to(fd, &address) || fcntl(fd, F_SETFL, O_NONBLOCK))
        abort();
    return fd;
}

/* Until the server has closed, or does nothing more: it waits for the rest of a request, or for the client to go. */
static void read_answer(int fd)
{
    char start_of_it[5] = "", bytes[4096];
    size_t seen = 0;
    for (int idle = 0; idle < IDLE_TURNS;) {
        uv_run(&loop, UV_RUN_NOWAIT);
        ssize_t len = recv(fd, bytes, sizeof(bytes), 0);
        if (len < 0 && errno == EAGAIN) {
            idle++;
            continue;
        }
        if (len <= 0)
            break;
        idle = 0;
        for (ssize_t i = 0; i < len && seen < sizeof(start_of_it); i++)
            start_of_it[seen++] = bytes[i];
    }
    if (memcmp(start_of_it, "HTTP/", seen) != 0)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size > 16384)
        return 0;
    start();
    int fd = connect_client();
    if (send(fd, data, size, MSG_NOSIGNAL) != (ssize_t)size)
        abort();
    read_answer(fd);
    close(fd);
    while (http_server_pending(server) > 0)
        uv_run(&loop, UV_RUN_NOWAIT);
    return 0;
}
