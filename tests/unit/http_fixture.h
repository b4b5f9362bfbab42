/* An HTTP server on a loop in a thread of its own, and a raw client beside it. For test_http_server.c and test_http_client.c. */
#pragma once

#include "base/http_server.h"
#include "base/loop.h"

#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

struct fixture {
    uv_loop_t loop;
    uv_async_t stop;
    struct http_server *server;
    pthread_t thread;
    void (*before_free)(void);
};

static struct fixture fixture;

static inline void fixture_stop(uv_async_t *async)
{
    if (fixture.before_free)
        fixture.before_free();
    http_server_free(fixture.server);
    uv_close((uv_handle_t *)async, NULL);
}

static inline void *fixture_run(void *data)
{
    (void)data;
    uv_run(&fixture.loop, UV_RUN_DEFAULT);
    return NULL;
}

static inline void fixture_start(struct http_server_options options)
{
    struct error err = {0};
    memset(&fixture, 0, sizeof(fixture));
    cr_assert_eq(uv_loop_init(&fixture.loop), 0);
    uv_async_init(&fixture.loop, &fixture.stop, fixture_stop);
    options.listen = "127.0.0.1:0";
    fixture.server = http_server_new(&fixture.loop, &options, &err);
    cr_assert_not_null(fixture.server, "%s", err.message);
    cr_assert_eq(pthread_create(&fixture.thread, NULL, fixture_run, NULL), 0);
}

static inline void fixture_end(void)
{
    uv_async_send(&fixture.stop);
    pthread_join(fixture.thread, NULL);
    cr_expect_eq(uv_loop_close(&fixture.loop), 0, "a handle is left in the loop");
}

static inline int connect_raw(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons(http_server_port(fixture.server)),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct timeval patience = {.tv_sec = 20};
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    cr_assert_eq(connect(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
    return fd;
}

static inline void send_text(int fd, const char *text)
{
    size_t len = strlen(text);
    cr_assert_eq(send(fd, text, len, MSG_NOSIGNAL), (ssize_t)len);
}

/* Reads until `enough` was seen or the connection ends. */
static inline const char *receive_until(int fd, const char *enough)
{
    static char answer[256 * 1024];
    size_t len = 0;
    answer[0] = '\0';
    while (len < sizeof(answer) - 1 && !(enough && strstr(answer, enough))) {
        ssize_t got = recv(fd, answer + len, sizeof(answer) - 1 - len, 0);
        if (got <= 0)
            break;
        len += (size_t)got;
        answer[len] = '\0';
    }
    return answer;
}

/* One request with "Connection: close" in it; the whole answer. */
static inline const char *exchange(const char *request)
{
    int fd = connect_raw();
    send_text(fd, request);
    const char *answer = receive_until(fd, NULL);
    close(fd);
    return answer;
}
