/* The HTTP server through real sockets: refusals, bodies, answers that come later, streams, endings. */
#include "http_fixture.h"

#include <dirent.h>

static struct http_request *held; /* by a handler that answers later or never */
static struct http_stream *stream;
static volatile int handled, aborted, stream_closed;

static void respond_text(struct http_request *request, const char *text)
{
    http_respond(request, 200, "text/plain", strdup(text), strlen(text), NULL, 0);
}

static void handle_hello(struct http_request *request, void *data)
{
    (void)data;
    handled++;
    respond_text(request, "hello");
}

static void answer_held(void *data)
{
    respond_text(data, "later");
}

static void handle_later(struct http_request *request, void *data)
{
    (void)data;
    loop_defer(&fixture.loop, answer_held, request, NULL);
}

static void note_abort(void *data)
{
    (void)data;
    aborted++;
}

static void handle_hold(struct http_request *request, void *data)
{
    (void)data;
    held = request;
    handled++;
    http_request_on_abort(request, note_abort, NULL);
}

static void handle_echo(struct http_request *request, void *data)
{
    size_t len;
    (void)data;
    char *body = http_request_take_body(request, &len);
    http_respond(request, 200, "application/octet-stream", body, len, NULL, 0);
}

static void handle_params(struct http_request *request, void *data)
{
    char text[200];
    (void)data;
    const char *q = http_request_query(request, "q");
    const char *header = http_request_header(request, "x-given");
    snprintf(text, sizeof(text), "<%s|%s|%s>", http_request_param(request, "name"), q ? q : "-",
             header ? header : "-");
    respond_text(request, text);
}

static void note_closed(void *data)
{
    (void)data;
    stream_closed++;
    stream = NULL;
}

static struct loop_timer *ticker;
static int ticks;

static void tick(void *data)
{
    (void)data;
    if (!stream || ++ticks > 3) {
        loop_timer_stop(ticker);
        if (stream)
            http_stream_end(stream);
    } else {
        http_stream_write(stream, "line\n", 5);
    }
}

static void handle_stream(struct http_request *request, void *data)
{
    (void)data;
    ticks = 0;
    stream = http_stream_begin(request, 200, "application/x-ndjson", note_closed, NULL);
    ticker = loop_timer_start(&fixture.loop, 5, 5, tick, NULL, NULL);
}

/* Writes far more than a reader that does not read can be owed. */
static void handle_flood(struct http_request *request, void *data)
{
    static char block[65536];
    (void)data;
    memset(block, 'x', sizeof(block));
    stream = http_stream_begin(request, 200, "text/plain", note_closed, NULL);
    int refused = 0;
    for (int i = 0; i < 1000 && !refused; i++)
        refused = http_stream_write(stream, block, sizeof(block));
    cr_expect_eq(refused, -1, "a slow reader may make us keep any amount");
}

static void handle_quiesce(struct http_request *request, void *data)
{
    (void)data;
    http_server_quiesce(fixture.server);
    http_server_quiesce(fixture.server);
    respond_text(request, "last");
}

static void handle_big(struct http_request *request, void *data)
{
    size_t len = 6 * 1024 * 1024;
    (void)data;
    char *body = malloc(len);
    memset(body, 'b', len);
    http_respond(request, 200, "text/plain", body, len, NULL, 0);
}

static void handle_around(struct http_request *request, void *data)
{
    size_t len = 6 * 1024 * 1024;
    struct buffer text = BUFFER_INIT(16);
    (void)data;
    char *middle = malloc(len);
    memset(middle, 'b', len);
    buffer_append_string(&text, "<>>", NULL);
    http_respond_around(request, 200, "text/plain", &text, 1, blob_new(middle, len), NULL, 0);
}

static int authorize(struct http_request *request, const struct http_route *route, void *data,
                     struct error *err)
{
    const char *token = http_request_header(request, "Authorization");
    (void)data;
    if (route->tag == 1 && !(token && strcmp(token, "Bearer right") == 0))
        return error_set(err, ERROR_UNAUTHORIZED, "no valid token");
    return 0;
}

static const struct http_route routes[] = {
    {"GET", "/hello", handle_hello, 0, 0},        {"GET", "/later", handle_later, 0, 0},
    {"GET", "/hold", handle_hold, 0, 0},          {"POST", "/echo", handle_echo, 100000, 0},
    {"POST", "/private", handle_echo, 100000, 1}, {"*", "/p/{name}/x", handle_params, 10, 0},
    {"GET", "/stream", handle_stream, 0, 0},      {"GET", "/flood", handle_flood, 0, 0},
    {"POST", "/quiesce", handle_quiesce, 0, 0},   {"GET", "/big", handle_big, 0, 0},
    {"GET", "/around", handle_around, 0, 0},
};

static void setup(void)
{
    handled = aborted = stream_closed = 0;
    held = NULL;
    fixture_start((struct http_server_options){.routes = routes,
                                               .route_count = sizeof(routes) / sizeof(routes[0]),
                                               .authorize = authorize,
                                               .idle_timeout_seconds = 1,
                                               .max_buffered_bytes = 150000});
}

TestSuite(http_server, .init = setup, .fini = fixture_end, .timeout = 60);

#define CLOSE "Host: x\r\nConnection: close\r\n"

static void expect_error(const char *answer, int status, const char *type)
{
    char line[32], member[64];
    snprintf(line, sizeof(line), "HTTP/1.1 %d ", status);
    snprintf(member, sizeof(member), "\"type\":\"%s\"", type);
    cr_expect_eq(strncmp(answer, line, strlen(line)), 0, "%.300s", answer);
    cr_expect_not_null(strstr(answer, member), "%.600s", answer);
    cr_expect_not_null(strstr(answer, "\"request_id\":"));
}

Test(http_server, a_handler_answers_at_once_or_later)
{
    cr_expect_not_null(strstr(exchange("GET /hello HTTP/1.1\r\n" CLOSE "\r\n"), "\r\n\r\nhello"));
    cr_expect_not_null(strstr(exchange("GET /later HTTP/1.1\r\n" CLOSE "\r\n"), "\r\n\r\nlater"));
}

Test(http_server, every_answer_names_its_request)
{
    cr_expect_not_null(strstr(exchange("GET /hello HTTP/1.1\r\n" CLOSE "\r\n"), "X-Request-Id: "));
}

Test(http_server, unknown_paths_and_methods_are_told_apart)
{
    expect_error(exchange("GET /none HTTP/1.1\r\n" CLOSE "\r\n"), 404, "not_found");
    expect_error(exchange("DELETE /hello HTTP/1.1\r\n" CLOSE "\r\n"), 405, "invalid_request");
    cr_expect_not_null(
        strstr(exchange("DELETE /hello HTTP/1.1\r\n" CLOSE "\r\n"), "\r\nAllow: GET\r\n"));
}

Test(http_server, a_query_that_cannot_be_read_is_refused)
{
    expect_error(exchange("GET /p/a/x?q=%zz HTTP/1.1\r\n" CLOSE "\r\n"), 400, "invalid_request");
    expect_error(exchange("GET /p/a/x?q=%ff HTTP/1.1\r\n" CLOSE "\r\n"), 400, "invalid_request");
    expect_error(exchange("GET /p/a/x?q=a%00b HTTP/1.1\r\n" CLOSE "\r\n"), 400, "invalid_request");
    expect_error(
        exchange("GET /p/a/x?1&2&3&4&5&6&7&8&9&10&11&12&13&14&15&16&17 HTTP/1.1\r\n" CLOSE "\r\n"),
        400, "invalid_request");
    const char *answer = exchange("GET /p/a/x?%71=named HTTP/1.1\r\n" CLOSE "\r\n");
    cr_expect_not_null(strstr(answer, "<a|named|->"), "%s", answer);
    answer = exchange("GET /p/a/x?q HTTP/1.1\r\n" CLOSE "\r\n");
    cr_expect_not_null(strstr(answer, "<a||->"), "%s", answer);
}

/* Where another length is believed, a body becomes a request of somebody else's. */
Test(http_server, nothing_behind_a_request_of_two_lengths_is_taken_for_another)
{
    static const char *const heads[] = {
        "GET /hello HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nContent-Length: 40\r\n",
        "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nContent-Length: 40\r\n",
        "GET /nowhere HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nContent-Length: 40\r\n",
        "POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: "
        "gzip\r\n",
    };
    for (size_t i = 0; i < sizeof(heads) / sizeof(heads[0]); i++) {
        char request[512];
        snprintf(request, sizeof(request), "%s\r\nGET /hello HTTP/1.1\r\n" CLOSE "\r\n", heads[i]);
        const char *answer = exchange(request);
        cr_expect(strncmp(answer, "HTTP/1.1 40", 11) == 0, "%zu: %s", i, answer);
        cr_expect_null(strstr(answer + 1, "HTTP/1.1 "), "%zu: %s", i, answer);
    }
}

Test(http_server, a_body_whose_length_is_ambiguous_is_refused)
{
    expect_error(exchange("POST /echo HTTP/1.1\r\n" CLOSE "Content-Length: 5\r\n"
                          "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
                 400, "invalid_request");
    expect_error(exchange("POST /echo HTTP/1.1\r\n" CLOSE "Transfer-Encoding: gzip\r\n\r\nx"), 400,
                 "invalid_request");
}

Test(http_server, bodies_together_are_limited)
{
    int first = connect_raw();
    send_text(first, "POST /echo HTTP/1.1\r\n" CLOSE "Content-Length: 100000\r\n\r\nx");
    /* Until the first is known to be counted, the second gets its answer. */
    const char *answer = "";
    for (int i = 0; i < 1000 && !strstr(answer, " 503 "); i++)
        answer = exchange("POST /echo HTTP/1.1\r\n" CLOSE "Content-Length: 60000\r\n"
                          "Expect: 100-continue\r\n\r\n");
    expect_error(answer, 503, "no_capacity");
    close(first);
}

Test(http_server, parameters_queries_and_headers_reach_the_handler)
{
    const char *answer =
        exchange("PUT /p/a%2Fb/x?q=c+d%21 HTTP/1.1\r\nX-Given: yes\r\n" CLOSE "\r\n");
    cr_expect_not_null(strstr(answer, "<a/b|c d!|yes>"), "%s", answer);
}

Test(http_server, a_body_over_the_limit_is_refused_before_it_is_sent)
{
    /* Nothing of the body follows: an answer at all proves that it is not waited for. */
    expect_error(exchange("POST /echo HTTP/1.1\r\n" CLOSE "Content-Length: 100001\r\n\r\n"), 413,
                 "payload_too_large");
    expect_error(exchange("GET /hello HTTP/1.1\r\n" CLOSE "Content-Length: 5\r\n\r\n"), 413,
                 "payload_too_large");
}

Test(http_server, a_chunked_body_over_the_limit_is_refused)
{
    static char request[400000];
    size_t len = (size_t)sprintf(request, "POST /echo HTTP/1.1\r\n" CLOSE
                                          "Transfer-Encoding: chunked\r\n\r\n");
    for (int i = 0; i < 200; i++) {
        len += (size_t)sprintf(request + len, "400\r\n");
        memset(request + len, 'x', 1024);
        len += 1024;
        len += (size_t)sprintf(request + len, "\r\n");
    }
    sprintf(request + len, "0\r\n\r\n");
    expect_error(exchange(request), 413, "payload_too_large");
}

Test(http_server, a_chunked_body_within_the_limit_is_put_together)
{
    const char *answer =
        exchange("POST /echo HTTP/1.1\r\n" CLOSE
                 "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n");
    cr_expect_not_null(strstr(answer, "\r\n\r\nabcde"), "%s", answer);
}

Test(http_server, who_may_not_is_told_before_a_byte_of_the_body)
{
    expect_error(exchange("POST /private HTTP/1.1\r\n" CLOSE "Content-Length: 50000\r\n\r\n"), 401,
                 "unauthorized");
    const char *answer = exchange("POST /private HTTP/1.1\r\n" CLOSE
                                  "Authorization: Bearer right\r\nContent-Length: 2\r\n\r\nok");
    cr_expect_not_null(strstr(answer, "\r\n\r\nok"));
}

Test(http_server, head_answers_without_a_body)
{
    const char *answer = exchange("HEAD /hello HTTP/1.1\r\n" CLOSE "\r\n");
    cr_expect_not_null(strstr(answer, "Content-Length: 5"));
    cr_expect_null(strstr(answer, "\r\n\r\nhello"));
}

Test(http_server, an_expecting_client_is_told_to_continue)
{
    int fd = connect_raw();
    send_text(fd,
              "POST /echo HTTP/1.1\r\n" CLOSE "Content-Length: 4\r\nExpect: 100-continue\r\n\r\n");
    cr_expect_not_null(strstr(receive_until(fd, "100 Continue\r\n\r\n"), "100 Continue"));
    send_text(fd, "body");
    cr_expect_not_null(strstr(receive_until(fd, NULL), "\r\n\r\nbody"));
    close(fd);
}

Test(http_server, many_requests_come_at_once_on_one_connection)
{
    char requests[8000];
    size_t len = 0;
    for (int i = 0; i < 50; i++)
        len += (size_t)snprintf(requests + len, sizeof(requests) - len,
                                "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\n<%02d>"
                                "GET /later HTTP/1.1\r\nHost: x\r\n\r\n",
                                i);
    int fd = connect_raw();
    send_text(fd, requests);
    send_text(fd, "GET /hello HTTP/1.1\r\n" CLOSE "\r\n");
    const char *at = receive_until(fd, NULL);
    for (int i = 0; i < 50 && at; i++) {
        char mark[8];
        snprintf(mark, sizeof(mark), "<%02d>", i);
        at = strstr(at, mark);
        at = at ? strstr(at, "\r\n\r\nlater") : NULL;
        cr_assert_not_null(at, "answer %d is missing or out of order", i);
    }
    cr_expect_not_null(strstr(at, "hello"));
    close(fd);
}

Test(http_server, requests_on_one_connection_are_answered_in_order)
{
    int fd = connect_raw();
    send_text(fd, "GET /later HTTP/1.1\r\nHost: x\r\n\r\nGET /hello HTTP/1.1\r\n" CLOSE "\r\n");
    const char *answer = receive_until(fd, NULL);
    const char *later = strstr(answer, "later"), *hello = strstr(answer, "hello");
    cr_assert(later && hello, "%s", answer);
    cr_expect_lt(later, hello);
    close(fd);
}

Test(http_server, a_half_sent_request_is_given_up_and_harms_nobody)
{
    int half = connect_raw();
    send_text(half, "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nabc");
    cr_expect_not_null(strstr(exchange("GET /hello HTTP/1.1\r\n" CLOSE "\r\n"), "hello"));
    char byte;
    cr_expect_leq(recv(half, &byte, 1, 0), 0, "the server answered half a request");
    close(half);
}

Test(http_server, garbage_is_no_request)
{
    cr_expect_eq(strncmp(exchange("\x16\x03\x01 no http at all\r\n\r\n"), "HTTP/1.1 200", 12) == 0,
                 0);
    cr_expect_not_null(strstr(exchange("GET /hello HTTP/1.1\r\n" CLOSE "\r\n"), "hello"));
}

Test(http_server, a_stream_sends_what_is_written_and_ends)
{
    const char *answer = exchange("GET /stream HTTP/1.1\r\n" CLOSE "\r\n");
    int lines = 0;
    for (const char *at = answer; (at = strstr(at, "line\n")); at++)
        lines++;
    cr_expect_eq(lines, 3, "%s", answer);
    cr_expect_eq(stream_closed, 1);
}

Test(http_server, a_reader_that_does_not_read_loses_its_stream)
{
    int fd = connect_raw();
    send_text(fd, "GET /flood HTTP/1.1\r\n" CLOSE "\r\n");
    cr_expect_not_null(strstr(receive_until(fd, "xxxx"), "xxxx"));
    close(fd);
    cr_expect_not_null(strstr(exchange("GET /hello HTTP/1.1\r\n" CLOSE "\r\n"), "hello"));
}

/* The fixture frees the server while `held` sleeps; the handler answers after that. */
static void answer_after_free(void *data)
{
    respond_text(data, "nobody reads this");
}

static void answer_held_after_free(void)
{
    loop_defer(&fixture.loop, answer_after_free, held, NULL);
}

Test(http_server, a_server_can_be_freed_while_requests_sleep)
{
    int fd = connect_raw();
    send_text(fd, "GET /hold HTTP/1.1\r\n" CLOSE "\r\n");
    while (!handled)
        usleep(1000);
    fixture.before_free = answer_held_after_free;
    fixture_end();
    cr_expect_eq(aborted, 1);
    close(fd);
    setup(); /* for the suite's own end */
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

Test(http_server, a_thousand_connections_leave_no_descriptor)
{
    exchange("GET /hello HTTP/1.1\r\n" CLOSE "\r\n");
    int before = open_descriptors();
    for (int i = 0; i < 1000; i++)
        cr_assert_not_null(strstr(exchange("GET /later HTTP/1.1\r\n" CLOSE "\r\n"), "later"));
    cr_expect_leq(open_descriptors(), before + 2);
}

Test(http_server, an_address_in_use_or_malformed_is_said)
{
    char taken[32];
    struct error err = {0};
    snprintf(taken, sizeof(taken), "127.0.0.1:%u", http_server_port(fixture.server));
    cr_expect_null(
        http_server_new(&fixture.loop, &(struct http_server_options){.listen = taken}, &err));
    cr_expect_not_null(strstr(err.message, taken), "%s", err.message);
    const char *const bad[] = {"8080", "localhost:8080", "127.0.0.1:99999", "127.0.0.1:", ":80",
                               ""};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        cr_expect_null(
            http_server_new(&fixture.loop, &(struct http_server_options){.listen = bad[i]}, &err),
            "%s", bad[i]);
        cr_expect_eq(err.code, ERROR_INVALID_REQUEST, "%s: %s", bad[i], err.message);
    }
}

Test(http_server, after_quiescing_open_connections_are_told_and_new_ones_refused)
{
    int fd = connect_raw();
    send_text(fd, "GET /hello HTTP/1.1\r\nHost: x\r\n\r\n");
    cr_expect_null(strstr(receive_until(fd, "hello"), "Connection: close"));
    exchange("POST /quiesce HTTP/1.1\r\n" CLOSE "Content-Length: 0\r\n\r\n");
    send_text(fd, "GET /later HTTP/1.1\r\nHost: x\r\n\r\n");
    const char *answer = receive_until(fd, NULL);
    cr_expect_not_null(strstr(answer, "later"));
    cr_expect_not_null(strstr(answer, "Connection: close"), "%s", answer);
    close(fd);

    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons(http_server_port(fixture.server)),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    fd = socket(AF_INET, SOCK_STREAM, 0);
    cr_expect_eq(connect(fd, (struct sockaddr *)&address, sizeof(address)), -1);
    close(fd);
}

Test(http_server, headers_without_end_are_refused)
{
    static char request[200000];
    size_t len = (size_t)sprintf(request, "GET /hello HTTP/1.1\r\n" CLOSE "X-Long: ");
    memset(request + len, 'x', 100000);
    strcpy(request + len + 100000, "\r\n\r\n");
    int fd = connect_raw();
    send(fd, request, strlen(request), MSG_NOSIGNAL);
    const char *answer = receive_until(fd, NULL);
    cr_expect_null(strstr(answer, "200 OK"));
    close(fd);
    cr_expect_not_null(strstr(exchange("GET /hello HTTP/1.1\r\n" CLOSE "\r\n"), "hello"));
}

Test(http_server, a_large_answer_reaches_a_slow_reader_whole)
{
    int small = 65536, fd = connect_raw();
    static char block[10000];
    size_t total = 0, wrong = 0;
    setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof(small));
    send_text(fd, "GET /big HTTP/1.1\r\n" CLOSE "\r\n");
    for (ssize_t got; (got = recv(fd, block, sizeof(block), 0)) > 0;) {
        for (ssize_t i = 0; total > 10000 && i < got; i++)
            wrong += block[i] != 'b';
        total += (size_t)got;
    }
    cr_expect_gt(total, 6 * 1024 * 1024);
    cr_expect_lt(total, 6 * 1024 * 1024 + 1000);
    cr_expect_eq(wrong, 0);
    close(fd);
}

Test(http_server, an_answer_around_shared_bytes_reaches_a_slow_reader_whole)
{
    int small = 65536, fd = connect_raw();
    size_t room = 7 * 1024 * 1024, total = 0;
    char *all = calloc(1, room);
    setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof(small));
    send_text(fd, "GET /around HTTP/1.1\r\n" CLOSE "\r\n");
    for (ssize_t got; (got = recv(fd, all + total, room - 1 - total, 0)) > 0;)
        total += (size_t)got;
    const char *body = strstr(all, "\r\n\r\n<");
    cr_assert_not_null(body, "%.500s", all);
    cr_expect_eq(strspn(body + 5, "b"), 6 * 1024 * 1024);
    cr_expect_str_eq(all + total - 3, "b>>");
    cr_expect_not_null(strstr(all, "Content-Length: 6291459\r\n"), "%.500s", all);
    free(all);
    close(fd);
}

Test(http_server, it_listens_on_ipv6)
{
    struct error err = {0};
    struct sockaddr_in6 address = {.sin6_family = AF_INET6, .sin6_addr = in6addr_loopback};
    int fd = socket(AF_INET6, SOCK_STREAM, 0);
    if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof(address)))
        cr_skip_test("no IPv6 here");
    close(fd);
    uv_loop_t loop;
    uv_loop_init(&loop);
    struct http_server *server =
        http_server_new(&loop, &(struct http_server_options){.listen = "[::1]:0"}, &err);
    cr_assert_not_null(server, "%s", err.message);
    fd = socket(AF_INET6, SOCK_STREAM, 0);
    address.sin6_port = htons(http_server_port(server));
    cr_expect_eq(connect(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    close(fd);
    http_server_free(server);
    loop_close(&loop);
}
