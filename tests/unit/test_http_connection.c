/* Clients that go away while their request sleeps, and clients that never finish one. */
#include "http_fixture.h"

#include <errno.h>

#include <semaphore.h>

static sem_t handled, aborted, closed;
static struct http_request *held;

static void answer_nobody(void *data)
{
    (void)data;
    http_respond(held, 200, "text/plain", strdup("nobody"), 6, NULL, 0);
    held = NULL;
    sem_post(&aborted);
}

static void handle_hold(struct http_request *request, void *data)
{
    (void)data;
    held = request;
    http_request_on_abort(request, answer_nobody, NULL);
    sem_post(&handled);
}

static void note_closed(void *data)
{
    (void)data;
    sem_post(&closed);
}

static void handle_silence(struct http_request *request, void *data)
{
    (void)data;
    struct http_stream *stream = http_stream_begin(request, 200, "text/plain", note_closed, NULL);
    http_stream_write(stream, "first\n", 6);
}

static void handle_hello(struct http_request *request, void *data)
{
    (void)data;
    http_respond(request, 200, "text/plain", strdup("hello"), 5, NULL, 0);
}

static const struct http_route routes[] = {
    {"*", "/hold", handle_hold, 1000, 0},
    {"GET", "/silence", handle_silence, 0, 0},
    {"GET", "/hello", handle_hello, 0, 0},
};

static void setup(void)
{
    sem_init(&handled, 0, 0);
    sem_init(&aborted, 0, 0);
    sem_init(&closed, 0, 0);
    fixture_start((struct http_server_options){
        .routes = routes, .route_count = 3, .receive_timeout_seconds = 1, .connection_limit = 60});
}

TestSuite(http_connection, .init = setup, .fini = fixture_end, .timeout = 60);

Test(http_connection, a_client_that_leaves_while_its_request_sleeps_is_noticed)
{
    for (int i = 0; i < 3; i++) {
        int fd = connect_raw();
        send_text(fd, "POST /hold HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nhi");
        sem_wait(&handled);
        close(fd);
        sem_wait(&aborted);
    }
    cr_expect_eq(http_server_pending(fixture.server), 0);
}

Test(http_connection, a_client_that_left_before_its_request_was_read_is_noticed)
{
    for (int i = 0; i < 50; i++) {
        int fd = connect_raw();
        send_text(fd, "GET /hold HTTP/1.1\r\nHost: x\r\n\r\n");
        close(fd);
        sem_wait(&aborted);
    }
}

Test(http_connection, a_stream_without_news_ends_with_its_reader)
{
    int fd = connect_raw();
    send_text(fd, "GET /silence HTTP/1.1\r\nHost: x\r\n\r\n");
    cr_assert_not_null(strstr(receive_until(fd, "first\n"), "first\n"));
    close(fd);
    sem_wait(&closed);
}

Test(http_connection, a_request_that_comes_byte_by_byte_for_ever_is_ended)
{
    int fd = connect_raw();
    char answer;
    struct timeval pause = {.tv_usec = 100000};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &pause, sizeof(pause));
    send_text(fd, "POST /hold HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n");
    /* The wait between two bytes is recv() itself: it returns at once when the server hangs up. */
    int sent = 0;
    ssize_t got = -1;
    while (sent++ < 1000 && got != 0) {
        if (send(fd, "x", 1, MSG_NOSIGNAL) < 0)
            break;
        got = recv(fd, &answer, 1, 0);
        if (got < 0 && errno != EAGAIN)
            break;
    }
    cr_expect_lt(sent, 1000, "it may go on for ever");
    close(fd);
}

Test(http_connection, a_connection_is_given_its_time_for_each_request)
{
    int fd = connect_raw();
    struct timeval pause = {.tv_usec = 300000};
    char byte;
    for (int i = 0; i < 8; i++) { /* longer together than one request may take */
        send_text(fd, "GET /hello HTTP/1.1\r\nHost: x\r\n\r\n");
        cr_assert_not_null(strstr(receive_until(fd, "hello"), "hello"), "request %d", i);
        setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &pause, sizeof(pause));
        cr_assert_eq(recv(fd, &byte, 1, 0), -1, "the server hung up");
    }
    close(fd);
}

Test(http_connection, over_the_limit_a_client_waits_until_another_leaves)
{
    int fds[60], late;
    char answer[200] = "";
    struct timeval moment = {.tv_usec = 100000}, long_time = {.tv_sec = 20};
    for (size_t i = 0; i < 60; i++) {
        fds[i] = connect_raw();
        send_text(fds[i], "GET /silence HTTP/1.1\r\nHost: x\r\n\r\n");
        cr_assert_not_null(strstr(receive_until(fds[i], "first"), "first"));
    }
    late = connect_raw();
    send_text(late, "GET /hello HTTP/1.1\r\nHost: x\r\n\r\n");
    setsockopt(late, SOL_SOCKET, SO_RCVTIMEO, &moment, sizeof(moment));
    cr_expect_eq(recv(late, answer, 1, 0), -1, "one more than the limit is served");
    close(fds[0]);
    setsockopt(late, SOL_SOCKET, SO_RCVTIMEO, &long_time, sizeof(long_time));
    cr_expect_gt(recv(late, answer, sizeof(answer) - 1, 0), 0);
    for (size_t i = 1; i < 60; i++)
        close(fds[i]);
    close(late);
}

static void setup_patient(void)
{
    sem_init(&closed, 0, 0);
    fixture_start((struct http_server_options){
        .routes = routes, .route_count = 3, .connection_limit = 3, .idle_timeout_seconds = 3600});
}

TestSuite(http_connection_places, .init = setup_patient, .fini = fixture_end, .timeout = 60);

/* Nothing is to be done for any other at that moment. */
Test(http_connection_places, a_stream_that_is_reset_gives_its_place_up_at_once)
{
    int fds[2], kept, late;
    for (size_t i = 0; i < 2; i++) {
        fds[i] = connect_raw();
        send_text(fds[i], "GET /silence HTTP/1.1\r\nHost: x\r\n\r\n");
        cr_assert_not_null(strstr(receive_until(fds[i], "first"), "first"));
    }
    kept = connect_raw();
    send_text(kept, "GET /hello HTTP/1.1\r\nHost: x\r\n\r\n");
    cr_assert_not_null(strstr(receive_until(kept, "hello"), "hello"));
    late = connect_raw();
    send_text(late, "GET /hello HTTP/1.1\r\nHost: x\r\n\r\n");
    setsockopt(fds[0], SOL_SOCKET, SO_LINGER, &(struct linger){.l_onoff = 1},
               sizeof(struct linger));
    close(fds[0]);
    cr_expect_not_null(strstr(receive_until(late, "hello"), "hello"));
    close(fds[1]);
    close(kept);
    close(late);
}
