/* Refusals of requests whose body is still on its way: a client that sends all of it before it reads gets the answer. */
#include "http_fixture.h"

#include <dirent.h>

static int refuse_all(struct http_request *request, const struct http_route *route, void *data,
                      struct error *err)
{
    (void)request;
    (void)data;
    return route->tag ? error_set(err, ERROR_UNAUTHORIZED, "no token") : 0;
}

static void handle(struct http_request *request, void *data)
{
    (void)data;
    http_respond(request, 200, "text/plain", strdup("hello"), 5, NULL, 0);
}

static const struct http_route routes[] = {{"POST", "/small", handle, 1000, 0},
                                           {"POST", "/private", handle, 100 << 20, 1}};

static void setup(void)
{
    fixture_start(
        (struct http_server_options){.routes = routes, .route_count = 2, .authorize = refuse_all});
}

TestSuite(http_linger, .init = setup, .fini = fixture_end, .timeout = 60);

#define BODY_BYTES (20 * 1024 * 1024)

static void send_all(int fd, const char *bytes, size_t len)
{
    while (len > 0) {
        ssize_t sent = send(fd, bytes, len, MSG_NOSIGNAL);
        cr_assert_gt(sent, 0, "the connection was reset: %m");
        bytes += sent;
        len -= (size_t)sent;
    }
}

static const char *post_without_looking(int fd, const char *path)
{
    static char body[BODY_BYTES];
    char head[200];
    snprintf(head, sizeof(head), "POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n", path,
             BODY_BYTES);
    send_all(fd, head, strlen(head));
    send_all(fd, body, BODY_BYTES);
    return receive_until(fd, NULL);
}

Test(http_linger, a_refusal_reaches_a_client_that_sends_everything_first)
{
    const struct {
        const char *path, *status;
    } cases[] = {
        {"/small", "HTTP/1.1 413 "}, {"/private", "HTTP/1.1 401 "}, {"/x", "HTTP/1.1 404 "}};
    for (size_t i = 0; i < 3; i++) {
        int fd = connect_raw();
        const char *answer = post_without_looking(fd, cases[i].path);
        cr_expect_eq(strncmp(answer, cases[i].status, 13), 0, "%.200s", answer);
        cr_expect_not_null(strstr(answer, "Connection: close"), "%.300s", answer);
        close(fd);
    }
}

static int open_descriptors(void)
{
    int count = 0;
    DIR *folder = opendir("/proc/self/fd");
    while (readdir(folder))
        count++;
    closedir(folder);
    return count;
}

Test(http_linger, refused_clients_that_never_hang_up_are_few_and_let_go_at_the_end)
{
    int fds[200];
    for (size_t i = 0; i < 200; i++) {
        fds[i] = connect_raw();
        send_text(fds[i], "POST /small HTTP/1.1\r\nHost: x\r\nContent-Length: 5000\r\n\r\n");
        cr_expect_not_null(strstr(receive_until(fds[i], NULL), " 413 "));
    }
    int with_all = open_descriptors();
    for (size_t i = 0; i < 200; i++)
        close(fds[i]);
    cr_expect_leq(with_all, 200 + 64 + 30);
    fixture_end();
    cr_expect_leq(open_descriptors(), 30, "a refused socket outlives its server");
    setup(); /* for the suite's own end */
}
