/* The HTTP client against a real server: blocking and on a loop. */
#include "http_fixture.h"

#include "base/http_client.h"

#include <fcntl.h>

static void respond_text(struct http_request *request, int status, const char *text)
{
    http_respond(request, status, "text/plain", strdup(text), strlen(text), NULL, 0);
}

static void handle_hello(struct http_request *request, void *data)
{
    (void)data;
    respond_text(request, 200, "hello");
}

static void handle_echo(struct http_request *request, void *data)
{
    size_t len;
    (void)data;
    char *body = http_request_take_body(request, &len);
    http_respond(request, 200, http_request_header(request, "Content-Type"), body, len, NULL, 0);
}

static struct http_request *held;

static void handle_hold(struct http_request *request, void *data)
{
    (void)data;
    held = request;
}

static void answer_held(void)
{
    if (held)
        respond_text(held, 200, "");
}

static void handle_refuse(struct http_request *request, void *data)
{
    struct error err = {0};
    (void)data;
    error_set_field(&err, ERROR_THROTTLED, "/slots", "too much at once");
    http_respond_error(request, &err);
}

static void handle_big(struct http_request *request, void *data)
{
    (void)data;
    char *body = malloc(200000);
    memset(body, 'x', 200000);
    http_respond(request, 200, "text/plain", body, 200000, NULL, 0);
}

static void handle_moved(struct http_request *request, void *data)
{
    const struct http_header location = {"Location", "/hello"};
    (void)data;
    http_respond(request, 302, NULL, NULL, 0, &location, 1);
}

static void handle_strange(struct http_request *request, void *data)
{
    (void)data;
    respond_text(request, 502, "<html>Bad Gateway</html>");
}

static const struct http_route routes[] = {
    {"GET", "/moved", handle_moved, 0, 0}, {"GET", "/strange", handle_strange, 0, 0},
    {"GET", "/hello", handle_hello, 0, 0}, {"POST", "/echo", handle_echo, 10000000, 0},
    {"GET", "/hold", handle_hold, 0, 0},   {"GET", "/refuse", handle_refuse, 0, 0},
    {"GET", "/big", handle_big, 0, 0},
};

static char base[64];

static const char *url(const char *path)
{
    static char text[128];
    snprintf(text, sizeof(text), "%s%s", base, path);
    return text;
}

static void setup(void)
{
    held = NULL;
    fixture_start((struct http_server_options){.routes = routes, .route_count = 7});
    fixture.before_free = answer_held;
    snprintf(base, sizeof(base), "http://127.0.0.1:%u", http_server_port(fixture.server));
}

TestSuite(http_client, .init = setup, .fini = fixture_end, .timeout = 60);

Test(http_client, a_body_comes_back_with_its_type)
{
    struct http_answer answer;
    struct error err = {0};
    const char *const headers[] = {"Content-Type: application/x-test", NULL};
    struct http_call_options options = {
        .method = "POST", .url = url("/echo"), .headers = headers, .body = "a\0b", .body_len = 3};
    cr_assert_eq(http_fetch(&options, &answer, &err), 0, "%s", err.message);
    cr_expect_eq(answer.status, 200);
    cr_expect_eq(answer.body.len, 3);
    cr_expect_arr_eq(answer.body.data, "a\0b", 3);
    cr_expect_str_eq(answer.content_type, "application/x-test");
    http_answer_deinit(&answer);
}

Test(http_client, an_api_error_comes_back_as_an_error)
{
    struct http_answer answer;
    struct error err = {0};
    cr_assert_eq(http_fetch(&(struct http_call_options){.method = "GET", .url = url("/refuse")},
                            &answer, &err),
                 0);
    cr_expect_eq(answer.status, 429);
    cr_expect_str_eq(answer.retry_after, "1");
    cr_expect_eq(http_answer_check(&answer, &err), -1);
    cr_expect_eq(err.code, ERROR_THROTTLED);
    cr_expect_str_eq(err.message, "too much at once");
    cr_expect_str_eq(err.field, "/slots");
    http_answer_deinit(&answer);
}

Test(http_client, nobody_there_is_unavailable_and_names_the_address)
{
    struct http_answer answer;
    struct error err = {0};
    cr_expect_eq(
        http_fetch(&(struct http_call_options){.method = "GET", .url = "http://127.0.0.1:1/x"},
                   &answer, &err),
        -1);
    cr_expect_eq(err.code, ERROR_UNAVAILABLE);
    cr_expect_not_null(strstr(err.message, "http://127.0.0.1:1/x"));
}

Test(http_client, who_speaks_no_tls_is_asked_whether_he_does)
{
    char tls_url[160];
    struct http_answer answer;
    struct error err = {0};
    snprintf(tls_url, sizeof(tls_url), "https%s", url("/echo") + strlen("http"));
    cr_expect_eq(
        http_fetch(&(struct http_call_options){.method = "GET", .url = tls_url}, &answer, &err),
        -1);
    cr_expect_eq(err.code, ERROR_UNAVAILABLE);
    cr_expect_not_null(strstr(err.message, "does it speak TLS there?"), "%s", err.message);
}

Test(http_client, an_answer_that_does_not_come_times_out)
{
    struct http_answer answer;
    struct error err = {0};
    struct http_call_options options = {.method = "GET", .url = url("/hold"), .timeout_ms = 100};
    cr_expect_eq(http_fetch(&options, &answer, &err), -1);
    cr_expect_eq(err.code, ERROR_TIMED_OUT);
}

Test(http_client, an_answer_over_the_limit_is_not_taken)
{
    struct http_answer answer;
    struct error err = {0};
    struct http_call_options options = {
        .method = "GET", .url = url("/big"), .max_response_bytes = 100000};
    cr_expect_eq(http_fetch(&options, &answer, &err), -1);
    cr_expect_eq(err.code, ERROR_PAYLOAD_TOO_LARGE);
}

Test(http_client, other_protocols_are_refused)
{
    struct http_answer answer;
    struct error err = {0};
    cr_expect_eq(
        http_fetch(&(struct http_call_options){.method = "GET", .url = "file:///etc/passwd"},
                   &answer, &err),
        -1);
    cr_expect_eq(err.code, ERROR_INVALID_REQUEST);
}

Test(http_client, the_environments_proxy_is_ignored)
{
    struct http_answer answer;
    struct error err = {0};
    setenv("http_proxy", "http://127.0.0.1:1", 1);
    setenv("ALL_PROXY", "http://127.0.0.1:1", 1);
    cr_assert_eq(http_fetch(&(struct http_call_options){.method = "GET", .url = url("/hello")},
                            &answer, &err),
                 0, "%s", err.message);
    cr_expect_str_eq(answer.body.data, "hello");
    http_answer_deinit(&answer);
}

Test(http_client, a_redirection_is_an_answer_and_not_followed)
{
    struct http_answer answer;
    struct error err = {0};
    cr_assert_eq(http_fetch(&(struct http_call_options){.method = "GET", .url = url("/moved")},
                            &answer, &err),
                 0, "%s", err.message);
    cr_expect_eq(answer.status, 302);
    cr_expect_eq(http_answer_check(&answer, &err), -1);
    http_answer_deinit(&answer);
}

static int collect(void *data, const char *bytes, size_t len)
{
    return buffer_append(data, bytes, len, NULL);
}

Test(http_client, a_body_can_be_had_as_it_comes_but_an_errors_body_is_kept)
{
    struct http_answer answer;
    struct error err = {0};
    struct buffer seen = BUFFER_INIT(300000);
    struct http_call_options options = {.method = "GET",
                                        .url = url("/big"),
                                        .max_response_bytes = 100, /* holds for collected ones */
                                        .on_data = collect,
                                        .on_data_arg = &seen};
    cr_assert_eq(http_fetch(&options, &answer, &err), 0, "%s", err.message);
    cr_expect_eq(seen.len, 200000);
    http_answer_deinit(&answer);

    buffer_clear(&seen);
    options.url = url("/refuse");
    options.max_response_bytes = 0;
    cr_assert_eq(http_fetch(&options, &answer, &err), 0);
    cr_expect_eq(seen.len, 0);
    cr_expect_eq(http_answer_check(&answer, &err), -1);
    cr_expect_eq(err.code, ERROR_THROTTLED);
    http_answer_deinit(&answer);

    seen.max = 1000; /* collect() then refuses, which ends the exchange */
    options.url = url("/big");
    cr_expect_eq(http_fetch(&options, &answer, &err), -1);
    buffer_deinit(&seen);
}

Test(http_client, an_answer_of_something_else_is_said_to_be_that)
{
    struct http_answer answer;
    struct error err = {0};
    cr_assert_eq(http_fetch(&(struct http_call_options){.method = "GET", .url = url("/strange")},
                            &answer, &err),
                 0);
    cr_expect_eq(http_answer_check(&answer, &err), -1);
    cr_expect_eq(err.code, ERROR_UNAVAILABLE);
    cr_expect_not_null(strstr(err.message, "502"), "%s", err.message);
    http_answer_deinit(&answer);
}

/* ---- on a loop ---- */

struct calls {
    uv_loop_t loop;
    struct http_client *client;
    int wanted, answered, failed;
    int sockets;    /* most at once */
    bool inherited; /* a socket that a child would get */
};

/* Sockets that are connected to the server. */
static void look_at_sockets(struct calls *calls)
{
    int count = 0;
    for (int fd = 3; fd < 200; fd++) {
        struct sockaddr_in peer;
        socklen_t len = sizeof(peer);
        if (getpeername(fd, (struct sockaddr *)&peer, &len) || peer.sin_family != AF_INET ||
            ntohs(peer.sin_port) != http_server_port(fixture.server))
            continue;
        count++;
        if (!(fcntl(fd, F_GETFD) & FD_CLOEXEC))
            calls->inherited = true;
    }
    if (count > calls->sockets)
        calls->sockets = count;
}

static void next_call(struct calls *calls);

static void call_done(void *data, struct http_answer *answer, const struct error *err)
{
    struct calls *calls = data;
    look_at_sockets(calls);
    if (err || answer->status != 200)
        calls->failed++;
    if (++calls->answered < calls->wanted)
        next_call(calls);
    else
        http_client_free(calls->client);
}

static void next_call(struct calls *calls)
{
    struct error err = {0};
    cr_assert_not_null(
        http_call_start(calls->client,
                        &(struct http_call_options){.method = "GET", .url = url("/hello")},
                        call_done, calls, &err),
        "%s", err.message);
}

Test(http_client, calls_in_a_row_share_one_connection_that_no_child_inherits)
{
    struct calls calls = {.wanted = 500};
    uv_loop_init(&calls.loop);
    calls.client = http_client_new(&calls.loop, NULL);
    next_call(&calls);
    uv_run(&calls.loop, UV_RUN_DEFAULT);
    cr_expect_eq(calls.answered, 500);
    cr_expect_eq(calls.failed, 0);
    cr_expect_eq(calls.sockets, 1);
    cr_expect(!calls.inherited);
    cr_expect_eq(uv_loop_close(&calls.loop), 0, "a handle is left in the loop");
}

Test(http_client, a_refused_connection_is_told_from_the_loop)
{
    struct calls calls = {.wanted = 1};
    uv_loop_init(&calls.loop);
    calls.client = http_client_new(&calls.loop, NULL);
    cr_assert_not_null(http_call_start(
        calls.client, &(struct http_call_options){.method = "GET", .url = "http://127.0.0.1:1/"},
        call_done, &calls, NULL));
    cr_expect_eq(calls.answered, 0, "the callback came from inside the call");
    uv_run(&calls.loop, UV_RUN_DEFAULT);
    cr_expect_eq(calls.failed, 1);
    cr_expect_eq(uv_loop_close(&calls.loop), 0);
}

Test(http_client, a_cancelled_call_is_not_told)
{
    struct calls calls = {.wanted = 1};
    uv_loop_init(&calls.loop);
    calls.client = http_client_new(&calls.loop, NULL);
    struct http_call *call = http_call_start(
        calls.client, &(struct http_call_options){.method = "GET", .url = url("/hold")}, call_done,
        &calls, NULL);
    uv_run(&calls.loop, UV_RUN_ONCE);
    http_call_cancel(call);
    http_call_start(calls.client, &(struct http_call_options){.method = "GET", .url = url("/hold")},
                    call_done, &calls, NULL);
    http_client_free(calls.client);
    uv_run(&calls.loop, UV_RUN_DEFAULT);
    cr_expect_eq(calls.answered, 0);
    cr_expect_eq(uv_loop_close(&calls.loop), 0);
}

struct upload {
    struct http_client *client;
    char *body;
    int left, right;
};

static void upload_done(void *data, struct http_answer *answer, const struct error *err)
{
    struct upload *upload = data;
    if (!err && answer->status == 200 && answer->body.len == 6000000 &&
        memcmp(answer->body.data, upload->body, 6000000) == 0)
        upload->right++;
    if (--upload->left == 0)
        http_client_free(upload->client);
}

Test(http_client, several_large_bodies_travel_at_once_and_whole)
{
    uv_loop_t loop;
    uv_loop_init(&loop);
    struct upload upload = {
        .client = http_client_new(&loop, NULL), .body = malloc(6000000), .left = 4};
    for (size_t i = 0; i < 6000000; i++)
        upload.body[i] = (char)(i * 7 + i / 251);
    for (int i = 0; i < 4; i++)
        cr_assert_not_null(http_call_start(
            upload.client,
            &(struct http_call_options){
                .method = "POST", .url = url("/echo"), .body = upload.body, .body_len = 6000000},
            upload_done, &upload, NULL));
    uv_run(&loop, UV_RUN_DEFAULT);
    cr_expect_eq(upload.right, 4);
    free(upload.body);
    cr_expect_eq(uv_loop_close(&loop), 0);
}
