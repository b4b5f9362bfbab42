/* Who is let in, and how much of a body is read at a time. */
#include "base/http_head.h"
#include "http_fixture.h"

#include <semaphore.h>

#define BODY_BYTES (1024UL * 1024)
/* What libmicrohttpd reads at a time into a connection's usual memory, and into the memory of one with a large body. */
#define USUAL_READ_MAX (16UL * 1024)
#define LARGE_READ_MIN (48UL * 1024)
#define LARGE_CONNECTIONS_MAX 64

static sem_t held;
static _Atomic size_t largest_read; /* of the server's */

/* In front of the C library's, for libmicrohttpd, too. */
ssize_t recv(int fd, void *to, size_t max, int flags)
{
    if (pthread_equal(pthread_self(), fixture.thread) && max > largest_read)
        largest_read = max;
    return recvfrom(fd, to, max, flags, NULL, NULL);
}

static void handle_length(struct http_request *request, void *data)
{
    char text[64];
    size_t len = 0, wrong = 0;
    (void)data;
    const char *body = http_request_body(request, &len);
    for (size_t i = 0; i < len; i++)
        wrong += body[i] != 'x';
    snprintf(text, sizeof(text), "<%zu, %zu wrong>", len, wrong);
    http_respond(request, 200, "text/plain", strdup(text), strlen(text), NULL, 0);
}

static void handle_stream(struct http_request *request, void *data)
{
    struct http_stream *stream = http_stream_begin(request, 200, "text/plain", NULL, NULL);
    (void)data;
    http_stream_write(stream, "first\n", 6);
    sem_post(&held);
}

static const struct http_route routes[] = {
    {.method = "POST",
     .pattern = "/length",
     .handler = handle_length,
     .max_body_bytes = BODY_BYTES},
    {.method = "POST",
     .pattern = "/stream",
     .handler = handle_stream,
     .max_body_bytes = BODY_BYTES},
};

static void serve(struct http_server_options options)
{
    options.routes = routes;
    options.route_count = sizeof(routes) / sizeof(routes[0]);
    sem_init(&held, 0, 0);
    fixture_start(options);
}

static void serve_all(void)
{
    serve((struct http_server_options){0});
}

static void send_body(int fd, size_t len)
{
    static char body[BODY_BYTES];
    memset(body, 'x', sizeof(body));
    for (size_t sent = 0; sent < len;) {
        ssize_t now = send(fd, body + sent, len - sent, MSG_NOSIGNAL);
        cr_assert_gt(now, 0);
        sent += (size_t)now;
    }
}

#define HEAD(path, length) "POST " path " HTTP/1.1\r\nHost: x\r\nContent-Length: " length "\r\n\r\n"
#define LARGE HEAD("/length", "1048576")
#define LARGE_ANSWER "<1048576, 0 wrong>"
#define SMALL HEAD("/length", "3") "xxx"
#define SMALL_ANSWER "<3, 0 wrong>"

static void expect_answer(int fd, const char *wanted)
{
    const char *answer = receive_until(fd, wanted);
    cr_expect_not_null(strstr(answer, wanted), "%s", answer);
}

/* ---- how much is read at a time ---- */

TestSuite(http_accept, .init = serve_all, .fini = fixture_end, .timeout = 60);

Test(http_accept, a_large_body_is_read_in_large_pieces)
{
    int fd = connect_raw();
    send_text(fd, LARGE);
    send_body(fd, BODY_BYTES);
    expect_answer(fd, LARGE_ANSWER);
    cr_expect_geq(largest_read, LARGE_READ_MIN);
    close(fd);
}

Test(http_accept, a_small_request_has_no_large_memory_cleared_for_it)
{
    int fd = connect_raw();
    send_text(fd, SMALL);
    expect_answer(fd, SMALL_ANSWER);
    cr_expect_leq(largest_read, USUAL_READ_MAX);
    close(fd);
}

Test(http_accept, a_large_body_on_a_later_request_comes_whole)
{
    int fd = connect_raw();
    for (int i = 0; i < 3; i++) {
        send_text(fd, SMALL);
        expect_answer(fd, SMALL_ANSWER);
        send_text(fd, LARGE);
        send_body(fd, BODY_BYTES);
        expect_answer(fd, LARGE_ANSWER);
    }
    close(fd);
}

Test(http_accept, a_small_request_right_behind_a_large_one_is_answered_after_it)
{
    int fd = connect_raw();
    for (int i = 0; i < 3; i++) {
        send_text(fd, LARGE);
        send_body(fd, BODY_BYTES);
        send_text(fd, SMALL);
        const char *answer = receive_until(fd, SMALL_ANSWER);
        const char *large = strstr(answer, LARGE_ANSWER), *small = strstr(answer, SMALL_ANSWER);
        cr_assert(large && small, "%s", answer);
        cr_expect_lt(large, small);
    }
    close(fd);
}

/* That it is accepted before the rest is sent is made likely by the other connection's answer, not certain. */
Test(http_accept, a_head_in_pieces_is_read_all_the_same)
{
    static const char *const pieces[] = {
        "P", "OST /length HTT", "P/1.1\r\nHost: x\r\nContent-Len", "gth: 1048", "576\r\n\r", "\n"};
    int fd = connect_raw();
    for (size_t i = 0; i < sizeof(pieces) / sizeof(pieces[0]); i++) {
        int other = connect_raw();
        send_text(fd, pieces[i]);
        send_text(other, SMALL);
        expect_answer(other, SMALL_ANSWER);
        close(other);
    }
    send_body(fd, BODY_BYTES);
    expect_answer(fd, LARGE_ANSWER);
    close(fd);
}

Test(http_accept, only_so_many_connections_have_large_memory)
{
    int fds[LARGE_CONNECTIONS_MAX];
    for (size_t i = 0; i < LARGE_CONNECTIONS_MAX; i++) {
        fds[i] = connect_raw();
        send_text(fds[i], HEAD("/stream", "300000"));
        send_body(fds[i], 300000);
        sem_wait(&held);
    }
    cr_expect_geq(largest_read, LARGE_READ_MIN);
    largest_read = 0;
    int fd = connect_raw();
    send_text(fd, LARGE);
    send_body(fd, BODY_BYTES);
    expect_answer(fd, LARGE_ANSWER);
    cr_expect_leq(largest_read, USUAL_READ_MAX);
    close(fd);
    for (size_t i = 0; i < LARGE_CONNECTIONS_MAX; i++)
        close(fds[i]);
}

Test(http_accept, a_head_is_no_longer_where_the_body_is_large)
{
    static char request[60000];
    static const char start[] =
        "POST /length HTTP/1.1\r\nHost: x\r\nContent-Length: 1048576\r\nX-Long: ";
    memset(request, 'x', sizeof(request));
    memcpy(request, start, sizeof(start) - 1);
    memcpy(request + sizeof(request) - 5, "\r\n\r\n", 5);
    int fd = connect_raw();
    send_text(fd, request);
    const char *answer = receive_until(fd, NULL);
    cr_expect_eq(strncmp(answer, "HTTP/1.1 431 ", 13), 0, "%.200s", answer);
    close(fd);
}

/* ---- who is let in ---- */

TestSuite(http_limits, .timeout = 60);

/* A connection that is held open by an answer without end. */
static int hold(const char *head, size_t body_len)
{
    int fd = connect_raw();
    send_text(fd, head);
    send_body(fd, body_len);
    sem_wait(&held);
    return fd;
}

#define HOLD_SMALL hold(HEAD("/stream", "3"), 3)
#define HOLD_LARGE hold(HEAD("/stream", "300000"), 300000)

static void expect_answer_only_after(int late, int leaving)
{
    struct timeval moment = {.tv_usec = 100000}, long_time = {.tv_sec = 20};
    char byte;
    setsockopt(late, SOL_SOCKET, SO_RCVTIMEO, &moment, sizeof(moment));
    cr_expect_eq(recv(late, &byte, 1, MSG_PEEK), -1, "one more than the limit is served");
    if (leaving >= 0)
        close(leaving);
    setsockopt(late, SOL_SOCKET, SO_RCVTIMEO, &long_time, sizeof(long_time));
    expect_answer(late, SMALL_ANSWER);
}

Test(http_limits, connections_count_whatever_memory_they_have)
{
    serve((struct http_server_options){.connection_limit = 4});
    int small = HOLD_SMALL, large = HOLD_LARGE, others[2] = {HOLD_SMALL, HOLD_LARGE};
    int late = connect_raw();
    send_text(late, SMALL);
    expect_answer_only_after(late, large);
    int later = connect_raw();
    send_text(later, SMALL);
    expect_answer_only_after(later, small);
    close(late);
    close(later);
    close(others[0]);
    close(others[1]);
    fixture_end();
}

Test(http_limits, one_client_has_so_many_connections_whatever_memory_they_have)
{
    serve((struct http_server_options){.connections_per_client = 2});
    int small = HOLD_SMALL, large = HOLD_LARGE;
    char byte;
    int refused = connect_raw();
    send_text(refused, SMALL);
    cr_expect_leq(recv(refused, &byte, 1, 0), 0, "one more than its limit is served");
    close(refused);
    close(large);
    /* Until the server has seen that it left, the next is refused, too. */
    const char *answer = "";
    for (int i = 0; i < 10000 && !strstr(answer, SMALL_ANSWER); i++)
        answer = exchange("POST /length HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
                          "Content-Length: 3\r\n\r\nxxx");
    cr_expect_not_null(strstr(answer, SMALL_ANSWER));
    close(small);
    fixture_end();
}

Test(http_limits, a_silent_connection_counts_and_is_closed_in_time)
{
    serve((struct http_server_options){.connection_limit = 1, .idle_timeout_seconds = 2});
    int silent = connect_raw();
    char byte;
    while (http_server_connections(fixture.server) < 1)
        usleep(1000);
    int late = connect_raw();
    send_text(late, SMALL);
    expect_answer_only_after(late, -1);
    cr_expect_eq(recv(silent, &byte, 1, 0), 0);
    close(silent);
    close(late);
    fixture_end();
}

/* ---- the guess ---- */

Test(http_head, a_length_is_found_where_it_is_one)
{
    static const struct {
        const char *bytes;
        uint64_t length;
    } cases[] = {
        {"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 300000\r\n\r\n", 300000},
        {"POST / HTTP/1.1\r\ncontent-LENGTH:300000\r\nHost: x\r\n", 300000},
        {"POST / HTTP/1.1\r\nContent-Length: 300000", 0},
        {"POST / HTTP/1.1\r\nContent-Length: 300000 0\r\n", 0},
        {"POST / HTTP/1.1\r\nContent-Length: -300000\r\n", 0},
        {"POST / HTTP/1.1\r\nContent-Length: 30000000000000000000000\r\n", 0},
        {"POST / HTTP/1.1\r\nX-Content-Length: 300000\r\n", 0},
        {"POST / HTTP/1.1\r\nHost: x\r\n\r\nContent-Length: 300000\r\n", 0},
        {"Content-Length: 300000\r\n", 0},
        {"", 0},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        cr_expect_eq(http_head_announces(cases[i].bytes, strlen(cases[i].bytes)), cases[i].length,
                     "%s", cases[i].bytes);
}
