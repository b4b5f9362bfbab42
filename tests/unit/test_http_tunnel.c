/* A connection that leaves HTTP, from the client's side, against our own server (base/http_upgrade.c) and against odd ones. */
#include "http_fixture.h"

#include "base/http_tunnel.h"

#include <errno.h>

static struct byte_stream *upgraded;

static void on_upgraded(void *data, struct byte_stream *stream)
{
    (void)data;
    upgraded = stream;
    if (stream)
        stream->send(stream, "hello", 5);
}

static void handle_upgrade(struct http_request *request, void *data)
{
    struct error err = {0};
    if (http_request_wants_upgrade(request, "test-protocol")) {
        http_respond_upgrade(request, "test-protocol", on_upgraded, data);
        return;
    }
    error_set(&err, ERROR_UNAUTHORIZED, "not like this");
    http_respond_error(request, &err);
}

static void close_upgraded(void)
{
    if (upgraded)
        upgraded->close(upgraded);
}

static const struct http_route routes[] = {
    {.method = "GET", .pattern = "/up", .handler = handle_upgrade}};

static void serve(void)
{
    fixture_start((struct http_server_options){.routes = routes, .route_count = 1});
    fixture.before_free = close_upgraded;
}

TestSuite(http_tunnel, .init = serve, .fini = fixture_end);

struct client {
    uv_loop_t loop;
    struct http_client *http;
    struct byte_stream *stream;
    struct error error;
    int done;
};

static void on_done(void *data, struct byte_stream *stream, const struct error *err)
{
    struct client *client = data;
    client->stream = stream;
    client->done++;
    if (err)
        client->error = *err;
}

static void client_start(struct client *client, const char *protocol, uint16_t port)
{
    char url[64];
    struct error err = {0};
    snprintf(url, sizeof(url), "http://127.0.0.1:%u/up", port);
    static const char *const headers[] = {"X-Test: yes", NULL};
    struct http_tunnel_options options = {.url = url, .protocol = protocol, .headers = headers};
    memset(client, 0, sizeof(*client));
    uv_loop_init(&client->loop);
    client->http = http_client_new(&client->loop, &err);
    cr_assert_not_null(http_tunnel_start(client->http, &options, on_done, client, &err), "%s",
                       err.message);
}

static void client_run(struct client *client)
{
    while (!client->done)
        uv_run(&client->loop, UV_RUN_ONCE);
}

static void client_end(struct client *client)
{
    if (client->stream)
        client->stream->close(client->stream);
    http_client_free(client->http);
    uv_run(&client->loop, UV_RUN_DEFAULT);
    cr_expect_eq(uv_loop_close(&client->loop), 0);
}

static void expect_received(struct byte_stream *stream, const char *text)
{
    char got[100];
    size_t len = 0;
    while (len < strlen(text)) {
        ssize_t some = stream->receive(stream, got + len, strlen(text) - len);
        cr_assert(some > 0 || (some < 0 && errno == EAGAIN));
        len += some > 0 ? (size_t)some : 0;
    }
    cr_assert_arr_eq(got, text, len);
}

Test(http_tunnel, bytes_go_both_ways)
{
    struct client client;
    char got[4];
    client_start(&client, "test-protocol", http_server_port(fixture.server));
    client_run(&client);
    cr_assert_not_null(client.stream, "%s", client.error.message);
    expect_received(client.stream, "hello");
    cr_assert_eq(client.stream->send(client.stream, "ping", 4), 4);
    ssize_t len;
    while ((len = upgraded->receive(upgraded, got, 4)) < 0 && errno == EAGAIN)
        ;
    cr_assert_eq(len, 4);
    cr_assert_arr_eq(got, "ping", 4);
    client_end(&client);
}

Test(http_tunnel, an_answer_in_the_contracts_form_is_told_as_it_is)
{
    struct client client;
    client_start(&client, "another-protocol", http_server_port(fixture.server));
    client_run(&client);
    cr_assert_null(client.stream);
    cr_assert_eq(client.error.code, ERROR_UNAUTHORIZED);
    cr_assert_str_eq(client.error.message, "not like this");
    client_end(&client);
}

Test(http_tunnel, it_may_be_cancelled)
{
    struct client client;
    struct error err = {0};
    char url[64];
    snprintf(url, sizeof(url), "http://127.0.0.1:%u/up", http_server_port(fixture.server));
    struct http_tunnel_options options = {.url = url, .protocol = "test-protocol"};
    memset(&client, 0, sizeof(client));
    uv_loop_init(&client.loop);
    client.http = http_client_new(&client.loop, &err);
    http_tunnel_cancel(http_tunnel_start(client.http, &options, on_done, &client, &err));
    client_end(&client);
    cr_assert_eq(client.done, 0);
}

/* A server of one connection that says `text` whatever it is asked. */
static int listen_raw(uint16_t *ret_port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof(address);
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    cr_assert_eq(bind(fd, (struct sockaddr *)&address, len), 0);
    cr_assert_eq(listen(fd, 1), 0);
    getsockname(fd, (struct sockaddr *)&address, &len);
    *ret_port = ntohs(address.sin_port);
    return fd;
}

struct raw {
    int listener;
    const char *text;
};

static void *serve_raw(void *data)
{
    const struct raw *raw = data;
    int fd = accept(raw->listener, NULL, NULL);
    receive_until(fd, "\r\n\r\n");
    for (const char *at = raw->text; *at; at++) /* byte by byte */
        send(fd, at, 1, MSG_NOSIGNAL);
    shutdown(fd, SHUT_WR);
    char byte;
    while (recv(fd, &byte, 1, 0) > 0)
        ;
    close(fd);
    return NULL;
}

Test(http_tunnel, other_answers_are_errors_and_early_bytes_are_kept)
{
    static const struct {
        const char *text;
        const char *words; /* NULL: it works, and "early" is received */
    } cases[] = {{"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\nearly", NULL},
                 {"HTTP/1.1 101 \r\n\r\nearly", NULL},
                 {"HTTP/1.1 404 Not Found\r\n\r\n", "status 404"},
                 {"HTTP/1.1 200 OK\r\n\r\n", "status 200"},
                 {"HTTP/1.0 101 x\r\n\r\n", "no HTTP"},
                 {"HTTP/1.1 abc\r\n\r\n", "no HTTP"},
                 {"SSH-2.0-other\r\n", "no HTTP"},
                 {"HTTP/1.1 101 Swit", "without an answer"},
                 {"", "without an answer"}};
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        uint16_t port;
        struct raw raw = {listen_raw(&port), cases[i].text};
        pthread_t thread;
        struct client client;
        pthread_create(&thread, NULL, serve_raw, &raw);
        client_start(&client, "x", port);
        client_run(&client);
        if (cases[i].words) {
            cr_assert_null(client.stream);
            cr_assert_not_null(strstr(client.error.message, cases[i].words), "%s: %s",
                               cases[i].text, client.error.message);
        } else {
            cr_assert_not_null(client.stream, "%s", client.error.message);
            expect_received(client.stream, "early");
        }
        client_end(&client);
        pthread_join(thread, NULL);
        close(raw.listener);
    }
}
