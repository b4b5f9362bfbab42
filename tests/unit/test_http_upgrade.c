/* A connection that leaves HTTP, from the server's side, with a raw client. */
#include "http_fixture.h"

#include <errno.h>

static _Atomic int opened, never_opened;
static struct byte_stream *streams[8];

static void on_opened(void *data, struct byte_stream *stream)
{
    (void)data;
    if (!stream) {
        never_opened++;
        return;
    }
    streams[opened++] = stream;
    stream->send(stream, "welcome", 7);
}

static void handle_upgrade(struct http_request *request, void *data)
{
    http_respond_upgrade(request, "x", on_opened, data);
}

static void handle_hello(struct http_request *request, void *data)
{
    (void)data;
    http_respond(request, 200, "text/plain", strdup("hello"), 5, NULL, 0);
}

static const struct http_route routes[] = {
    {.method = "GET", .pattern = "/up", .handler = handle_upgrade},
    {.method = "GET", .pattern = "/hello", .handler = handle_hello}};

static void close_streams(void)
{
    for (int i = 0; i < opened; i++)
        streams[i]->close(streams[i]);
}

static void serve(void)
{
    fixture_start((struct http_server_options){.routes = routes, .route_count = 2});
    fixture.before_free = close_streams;
}

TestSuite(http_upgrade, .init = serve, .fini = fixture_end);

#define REQUEST "GET /up HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n"

Test(http_upgrade, the_answer_is_101_and_then_bytes_are_bytes)
{
    int fd = connect_raw();
    send_text(fd, REQUEST);
    const char *answer = receive_until(fd, "welcome");
    cr_assert_eq(strncmp(answer, "HTTP/1.1 101 ", 13), 0, "%s", answer);
    cr_assert_not_null(strstr(answer, "Upgrade: x\r\n"));
    close(fd);
}

Test(http_upgrade, bytes_that_came_with_the_request_are_not_lost)
{
    int fd = connect_raw();
    char got[16] = "";
    size_t len = 0;
    send_text(fd, REQUEST "early");
    receive_until(fd, "welcome");
    send_text(fd, " late");
    while (len < 10) {
        ssize_t some = streams[0]->receive(streams[0], got + len, 10 - len);
        cr_assert(some > 0 || (some < 0 && errno == EAGAIN));
        len += some > 0 ? (size_t)some : 0;
    }
    cr_assert_str_eq(got, "early late");
    close(fd);
}

Test(http_upgrade, other_connections_go_on_and_the_server_stops_with_open_ones)
{
    int fds[3];
    for (int i = 0; i < 3; i++) {
        fds[i] = connect_raw();
        send_text(fds[i], REQUEST);
        receive_until(fds[i], "welcome");
        cr_assert_not_null(strstr(
            exchange("GET /hello HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"), "hello"));
    }
    close(fds[0]);
    cr_assert_eq(opened, 3);
    cr_assert_eq(never_opened, 0);
    fixture_end();
    for (int i = 1; i < 3; i++) {
        char byte;
        cr_assert_leq(recv(fds[i], &byte, 1, 0), 0, "the server has closed it");
        close(fds[i]);
    }
    opened = 0;
    serve();
}

Test(http_upgrade, an_old_client_cannot_leave)
{
    const char *answer = exchange("GET /up HTTP/1.0\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n");
    cr_assert_null(strstr(answer, "101"), "%s", answer);
    cr_assert_not_null(
        strstr(exchange("GET /hello HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"), "hello"));
    cr_assert_eq(never_opened, 1);
}
