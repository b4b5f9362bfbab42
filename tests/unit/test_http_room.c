/* Large bodies that go where the server's program wants them. */
#include "http_fixture.h"

#define BODY_MAX 1000000
#define CLOSE "Host: x\r\nConnection: close\r\n"

static char memory[BODY_MAX];
static bool full;              /* there is no room */
static int asked, taken, left; /* rooms */
static size_t asked_len;

static void leave(void *data)
{
    (void)data;
    left++;
}

static struct blob *room(struct http_request *request, const struct http_route *route, void *data,
                         size_t len)
{
    (void)data;
    cr_expect_str_eq(http_request_path(request), "/sum");
    cr_expect_str_eq(route->pattern, "/sum");
    asked++;
    asked_len = len;
    if (full)
        return NULL;
    taken++;
    memset(memory, 0, sizeof(memory));
    return blob_new_lent(memory, len, leave, NULL);
}

/* Answers with length and sum, and whether the body is in the room. */
static void handle_sum(struct http_request *request, void *data)
{
    size_t len;
    unsigned long sum = 0;
    (void)data;
    const char *body = http_request_body(request, &len);
    struct blob *blob = http_request_take_blob(request);
    cr_expect_eq(blob->len, len);
    cr_expect_eq(blob->bytes, body);
    for (size_t i = 0; i < len; i++)
        sum += (unsigned long)(unsigned char)blob->bytes[i] * (i % 251);
    struct buffer answer = BUFFER_INIT(100);
    buffer_printf(&answer, NULL, "<%zu %lu %s>", len, sum,
                  blob->bytes == memory ? "room" : "other");
    blob_unref(blob);
    http_respond_json(request, 200, &answer);
}

static void handle_left(struct http_request *request, void *data)
{
    struct buffer answer = BUFFER_INIT(100);
    (void)data;
    buffer_printf(&answer, NULL, "<asked %d taken %d left %d>", asked, taken, left);
    http_respond_json(request, 200, &answer);
}

static const struct http_route routes[] = {{"POST", "/sum", handle_sum, BODY_MAX, 0},
                                           {"GET", "/left", handle_left, 0, 0}};

static void start(unsigned timeout_seconds)
{
    asked = taken = left = 0;
    full = false;
    fixture_start((struct http_server_options){.routes = routes,
                                               .route_count = sizeof(routes) / sizeof(routes[0]),
                                               .room = room,
                                               .idle_timeout_seconds = timeout_seconds});
}

static void setup(void)
{
    start(600);
}

static void setup_impatient(void)
{
    start(1);
}

TestSuite(http_room, .init = setup, .fini = fixture_end, .timeout = 60);
TestSuite(http_room_impatient, .init = setup_impatient, .fini = fixture_end, .timeout = 60);

static char *new_body(size_t len, unsigned long *ret_sum)
{
    char *body = malloc(len);
    *ret_sum = 0;
    for (size_t i = 0; i < len; i++) {
        body[i] = (char)('a' + i % 23);
        *ret_sum += (unsigned long)(unsigned char)body[i] * (i % 251);
    }
    return body;
}

static void send_all(int fd, const char *bytes, size_t len)
{
    for (size_t done = 0; done < len;) {
        ssize_t sent = send(fd, bytes + done, len - done, MSG_NOSIGNAL);
        cr_assert_gt(sent, 0);
        done += (size_t)sent;
    }
}

static void check(size_t len, const char *where)
{
    char head[200], expected[100];
    unsigned long sum;
    char *body = new_body(len, &sum);
    int fd = connect_raw();
    snprintf(head, sizeof(head), "POST /sum HTTP/1.1\r\n" CLOSE "Content-Length: %zu\r\n\r\n", len);
    send_text(fd, head);
    send_all(fd, body, len);
    snprintf(expected, sizeof(expected), "<%zu %lu %s>", len, sum, where);
    const char *answer = receive_until(fd, NULL);
    cr_expect_not_null(strstr(answer, expected), "%s, not %s", answer, expected);
    close(fd);
    free(body);
}

Test(http_room, a_large_body_goes_there)
{
    check(HTTP_LARGE_MIN, "room");
    cr_assert_eq(asked_len, HTTP_LARGE_MIN);
    check(BODY_MAX, "room");
    cr_assert_eq(left, 2);
}

Test(http_room, a_small_one_does_not_ask)
{
    check(HTTP_LARGE_MIN - 1, "other");
    check(1, "other");
    cr_assert_eq(asked, 0);
}

Test(http_room, where_there_is_none_a_body_is_kept_as_any_other)
{
    full = true;
    check(BODY_MAX, "other");
    cr_assert_eq(asked, 1);
}

Test(http_room, a_body_of_unknown_length_does_not_ask)
{
    char expected[100];
    unsigned long sum;
    char *body = new_body(BODY_MAX, &sum);
    int fd = connect_raw();
    send_text(fd, "POST /sum HTTP/1.1\r\n" CLOSE "Transfer-Encoding: chunked\r\n\r\n");
    send_text(fd, "7a120\r\n"); /* both halves */
    send_all(fd, body, BODY_MAX / 2);
    send_text(fd, "\r\n7a120\r\n");
    send_all(fd, body + BODY_MAX / 2, BODY_MAX / 2);
    send_text(fd, "\r\n0\r\n\r\n");
    snprintf(expected, sizeof(expected), "<%d %lu other>", BODY_MAX, sum);
    const char *answer = receive_until(fd, NULL);
    cr_expect_not_null(strstr(answer, expected), "%s", answer);
    cr_assert_eq(asked, 0);
    close(fd);
    free(body);
}

static void expect_left(const char *words)
{
    const char *answer = "";
    while (!strstr(answer, words)) /* the suite has a timeout */
        answer = exchange("GET /left HTTP/1.1\r\n" CLOSE "\r\n");
}

/* Who only announces has no room; who then sends slowly has one until it is given up. */
Test(http_room_impatient, a_client_that_does_not_go_on_gives_it_back)
{
    int fd = connect_raw();
    send_text(fd, "POST /sum HTTP/1.1\r\n" CLOSE
                  "Content-Length: 900000\r\nExpect: 100-continue\r\n\r\n");
    receive_until(fd, "100 Continue\r\n\r\n");
    expect_left("<asked 0 taken 0 left 0>");
    send_text(fd, "a");
    expect_left("<asked 1 taken 1 left 0>");
    expect_left("<asked 1 taken 1 left 1>");
    close(fd);
}

Test(http_room, clients_that_go_away_give_theirs_back)
{
    char words[100];
    enum { COUNT = 40 };
    for (int i = 0; i < COUNT; i++) {
        int fd = connect_raw();
        send_text(fd, "POST /sum HTTP/1.1\r\n" CLOSE "Content-Length: 900000\r\n\r\nabc");
        close(fd);
    }
    snprintf(words, sizeof(words), "<asked %d taken %d left %d>", COUNT, COUNT, COUNT);
    expect_left(words);
}
