/* A controller, whole, and a user with a token: up to four requests, each ended by NUL. Of one the first line is method and target, in which "{id}"
 * is the execution that was answered with last, the lines up to an empty one are headers, the rest is its body. There is no worker, so calls wait for as long as they may, which is no time at all.
 *
 * Each request is answered, with JSON where it says so, and never with what a user cannot help (500). The linker puts the functions below in the place of
 * those that reach for receivers of callbacks, and of the timer, so that the controller looks at what waits every millisecond. */
#include "base/cleanup.h"
#include "base/http_client.h"
#include "base/log.h"
#include "controller/controller.h"
#include "read_log.h"
#include "scratch.h"

#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <stdint.h>
#include <sys/socket.h>

#define REQUESTS_MAX 4
#define REQUEST_MAX ((size_t)256 * 1024)
#define ANSWER_MAX ((size_t)16 * 1024 * 1024)
#define TURNS_MAX 20000
/* Records and removed names stay, so there is a new controller after so many inputs. */
#define INPUTS_MAX 2000

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct controller controller;
static bool running;
static char token[128];

static void require(bool condition)
{
    if (!condition)
        abort();
}

/* ---- what is not there ---- */

struct http_call *__wrap_http_call_start(struct http_client *client,
                                         const struct http_call_options *options,
                                         http_call_done_fn *done, void *data, struct error *err);
struct http_call *__wrap_http_call_start(struct http_client *client,
                                         const struct http_call_options *options,
                                         http_call_done_fn *done, void *data, struct error *err)
{
    (void)client;
    (void)options;
    (void)done;
    (void)data;
    error_set(err, ERROR_UNAVAILABLE, "nobody is to be reached");
    return NULL;
}

struct loop_timer *__real_loop_timer_start(uv_loop_t *on, uint64_t after_ms, uint64_t repeat_ms,
                                           void (*fn)(void *data), void *data, struct error *err);
struct loop_timer *__wrap_loop_timer_start(uv_loop_t *on, uint64_t after_ms, uint64_t repeat_ms,
                                           void (*fn)(void *data), void *data, struct error *err);
struct loop_timer *__wrap_loop_timer_start(uv_loop_t *on, uint64_t after_ms, uint64_t repeat_ms,
                                           void (*fn)(void *data), void *data, struct error *err)
{
    bool is_tick = after_ms == 100 && repeat_ms == 100;
    return __real_loop_timer_start(on, is_tick ? 1 : after_ms, is_tick ? 1 : repeat_ms, fn, data,
                                   err);
}

/* ---- the controller ---- */

static void stop(void)
{
    if (!running)
        return;
    running = false;
    controller_deinit(&controller);
    settings_deinit(&controller_settings, &controller.config);
    memset(&controller, 0, sizeof(controller));
}

static void read_token(const char *data_dir)
{
    with_cleanup(buffer_deinit) struct buffer text = BUFFER_INIT(sizeof(token) - 1);
    autofree char *path = string_printf("%s/token", data_dir);
    require(path && buffer_read_file(&text, path, NULL) == 0);
    snprintf(token, sizeof(token), "%.*s", (int)strcspn(text.data, "\n"), text.data);
}

static void start(void)
{
    static char data_dir[96], flag[112];
    static bool stops_at_exit;
    char *argv[] = {(char *)"faas-controller",
                    flag,
                    (char *)"--listen=127.0.0.1:0",
                    (char *)"--queue-wait-ms=0",
                    (char *)"--rate-limit=0",
                    (char *)"--payload-max-bytes=4096",
                    (char *)"--archive-max-bytes=65536",
                    (char *)"--archive-unpacked-max-mb=1",
                    NULL};
    enum settings_outcome outcome;
    struct error err = {0};
    snprintf(data_dir, sizeof(data_dir), "%s/data", scratch_folder());
    snprintf(flag, sizeof(flag), "--data-dir=%s", data_dir);
    require(remove_tree(data_dir, NULL) == 0);
    log_init("fuzz", LOG_LEVEL_DEBUG, LOG_FORMAT_TEXT);
    require(settings_load(&controller_settings, 8, argv, &controller.config, &outcome, &err) == 0);
    require(controller_start(&controller, &err) == 0);
    read_token(data_dir);
    running = true;
    if (!stops_at_exit)
        atexit(stop);
    stops_at_exit = true;
}

/* ---- a request ---- */

static const char *find(const char *text, size_t len, const char *what)
{
    return memmem(text, len, what, strlen(what));
}

static void append(struct buffer *out, const char *text, size_t len)
{
    require(buffer_append(out, text, len, NULL) == 0);
}

/* The line at *at without its end; moves behind it. */
static size_t take_line(const char **at, const char *end)
{
    const char *newline = memchr(*at, '\n', (size_t)(end - *at));
    size_t len = (size_t)((newline ? newline : end) - *at);
    *at += len + (newline != NULL);
    return len;
}

/* Headers that say how the request itself is framed are ours to say. */
static bool frames(const char *line, size_t len)
{
    static const char *const names[] = {"Content-Length", "Transfer-Encoding", "Connection",
                                        "Expect",         "Upgrade",           "Authorization"};
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        if (len >= strlen(names[i]) && strncasecmp(line, names[i], strlen(names[i])) == 0)
            return true;
    return len == 0 || line[0] == ' ' || line[0] == '\t';
}

static char last_id[TIME_ID_LEN + 1];

static void write_target(struct buffer *out, const char *line, size_t len)
{
    const char *place = find(line, len, "{id}");
    size_t before = place ? (size_t)(place - line) : len;
    append(out, line, before);
    if (!place)
        return;
    append(out, last_id, strlen(last_id));
    append(out, place + 4, len - before - 4);
}

static void write_request(struct buffer *out, const char *at, const char *end)
{
    const char *line = at;
    size_t len = take_line(&at, end);
    write_target(out, line, len);
    require(buffer_printf(out, NULL, " HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\n",
                          token) == 0);
    while (at < end && (line = at, (len = take_line(&at, end)) > 0)) {
        if (frames(line, len))
            continue;
        append(out, line, len);
        append(out, "\r\n", 2);
    }
    require(buffer_printf(out, NULL, "Connection: close\r\nContent-Length: %zu\r\n\r\n",
                          (size_t)(end - at)) == 0);
    append(out, at, (size_t)(end - at));
}

/* ---- its answer ---- */

static void check_answer(const struct buffer *answer)
{
    if (answer->len == 0)
        return; /* libmicrohttpd cuts what is no HTTP */
    require(answer->len > 12 && memcmp(answer->data, "HTTP/1.1 ", 9) == 0);
    require(memcmp(answer->data + 9, "500", 3) != 0);
    const char *body = find(answer->data, answer->len, "\r\n\r\n");
    require(body != NULL);
    size_t head_len = (size_t)(body - answer->data) + 2, left = answer->len - head_len - 2;
    const char *length = find(answer->data, head_len, "Content-Length: ");
    size_t body_len = length ? strtoull(length + strlen("Content-Length: "), NULL, 10) : 0;
    if (body_len == 0 || left == 0 ||
        !find(answer->data, head_len, "Content-Type: application/json\r\n"))
        return;
    require(body_len <=
            left); /* what libmicrohttpd takes for another request is answered behind it */
    autojson *value = json_parse(body + 4, body_len, NULL, NULL);
    require(value && (answer->data[9] < '4' || json_get(value, "error")));
    const char *id = json_get_string(value, "id");
    if (time_id_valid(id))
        memcpy(last_id, id, sizeof(last_id));
}

static int connect_client(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons(http_server_port(controller.server)),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    /* It ends by a reset, and not before: no port stays taken for a minute after it. */
    struct linger at_once = {.l_onoff = 1};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    require(fd >= 0 && setsockopt(fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once)) == 0);
    while (connect(fd, (const struct sockaddr *)&address, sizeof(address)) < 0)
        require(errno == EINTR || errno == EALREADY || errno == EISCONN);
    return fd;
}

/* Up to its end, or to the beginning of one that has none. */
static void read_answer(int fd, struct buffer *answer)
{
    char bytes[65536];
    for (int turn = 0;; turn++) {
        require(turn < TURNS_MAX);
        ssize_t len = recv(fd, bytes, sizeof(bytes), MSG_DONTWAIT);
        if (len > 0)
            append(answer, bytes, (size_t)len);
        else if (len == 0 || errno == ECONNRESET)
            return;
        else if (answer->len > 0 && find(answer->data, answer->len, "application/x-ndjson"))
            return;
        else
            uv_run(&controller.loop, UV_RUN_ONCE);
    }
}

static void ask(const char *at, const char *end)
{
    with_cleanup(buffer_deinit) struct buffer request = BUFFER_INIT(REQUEST_MAX + 4096);
    with_cleanup(buffer_deinit) struct buffer answer = BUFFER_INIT(ANSWER_MAX);
    write_request(&request, at, end);
    int fd = connect_client();
    for (size_t sent = 0; sent < request.len;) {
        ssize_t len =
            send(fd, request.data + sent, request.len - sent, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (len > 0)
            sent += (size_t)len;
        else if (errno != EAGAIN && errno != EINTR)
            break; /* it was answered before it had come */
        uv_run(&controller.loop, UV_RUN_NOWAIT);
    }
    read_answer(fd, &answer);
    close(fd);
    check_answer(&answer);
}

/* ---- one input ---- */

static void remove_functions(void)
{
    for (int i = 0; controller.registry.sorted_count > 0; i++) {
        char request[96];
        require(i < REQUESTS_MAX);
        int len = snprintf(request, sizeof(request), "DELETE /v1/functions/%s\n",
                           controller.registry.sorted[0]->name);
        ask(request, request + len);
    }
}

static void settle(void)
{
    for (int turn = 0; http_server_pending(controller.server) > 0 || controller.deploys > 0 ||
                       store_queue_length(controller.store) > 0;
         turn++) {
        require(turn < TURNS_MAX);
        uv_run(&controller.loop, UV_RUN_ONCE);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static unsigned inputs;
    const char *at = (const char *)data, *end = at + size;
    if (size > REQUEST_MAX)
        return 0;
    if (inputs++ % INPUTS_MAX == 0)
        stop();
    if (!running)
        start();
    for (int i = 0; i < REQUESTS_MAX && at < end; i++) {
        size_t len = strnlen(at, (size_t)(end - at));
        ask(at, at + len);
        at += len + (at + len < end);
    }
    remove_functions();
    settle();
    return 0;
}
