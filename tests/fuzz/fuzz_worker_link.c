/* A worker, whole, whose controller is a stranger: what it says over the connection, in pieces whose size the first byte gives. A message of kind
 * "definition" has the body of the answer to every question for a function's definition. There is no code to be had, so nothing is run. However it ends, the worker stops and leaves nothing. The linker puts the functions
 * below in the place of those that reach for a controller, and of the timer, so that no pause is waited for. */
#include "base/http_tunnel.h"
#include "base/log.h"
#include "base/loop.h"
#include "base/message.h"
#include "read_log.h"
#include "scratch.h"
#include "worker/worker.h"

#include <assert.h>
#include <errno.h>
#include <stdint.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* ---- the controller ---- */

static struct {
    struct byte_stream stream;
    const uint8_t *bytes;
    size_t len, piece;
    bool connected, closed;
    http_tunnel_done_fn *done; /* while it connects */
    void *data;
} controller;
static uv_loop_t *loop;

static ssize_t receive(struct byte_stream *stream, void *to, size_t max)
{
    (void)stream;
    size_t len = controller.len < controller.piece ? controller.len : controller.piece;
    len = len < max ? len : max;
    memcpy(to, controller.bytes, len);
    controller.bytes += len;
    controller.len -= len;
    return (ssize_t)len;
}

static ssize_t take(struct byte_stream *stream, const void *from, size_t len)
{
    (void)stream;
    (void)from;
    return (ssize_t)len;
}

static void close_stream(struct byte_stream *stream)
{
    close(stream->fd);
    controller.closed = true;
}

static void connected(void *data)
{
    int ends[2];
    (void)data;
    if (!controller.done)
        return;
    if (pipe(ends) < 0)
        abort();
    close(ends[1]);
    controller.stream = (struct byte_stream){.receive = receive,
                                             .send = take,
                                             .close = close_stream,
                                             .fd = ends[0],
                                             .holds_bytes = true};
    http_tunnel_done_fn *done = controller.done;
    controller.done = NULL;
    controller.connected = true;
    done(controller.data, &controller.stream, NULL);
}

struct http_tunnel *__wrap_http_tunnel_start(struct http_client *client,
                                             const struct http_tunnel_options *options,
                                             http_tunnel_done_fn *done, void *data,
                                             struct error *err);
struct http_tunnel *__wrap_http_tunnel_start(struct http_client *client,
                                             const struct http_tunnel_options *options,
                                             http_tunnel_done_fn *done, void *data,
                                             struct error *err)
{
    (void)client;
    (void)options;
    if (controller.connected) {
        error_set(err, ERROR_UNAVAILABLE, "the controller is gone");
        return NULL;
    }
    controller.done = done;
    controller.data = data;
    return loop_defer(loop, connected, NULL, err) == 0 ? (struct http_tunnel *)&controller : NULL;
}

void __wrap_http_tunnel_cancel(struct http_tunnel *tunnel);
void __wrap_http_tunnel_cancel(struct http_tunnel *tunnel)
{
    (void)tunnel;
    controller.done = NULL;
}

/* ---- definitions; code: there is none ---- */

static struct {
    const char *text; /* NULL: there is none */
    size_t len;
} definition;

/* The body of the first message that says that it is one. */
static void find_definition(const uint8_t *data, size_t size)
{
    static const char kind[] = "\"definition\"";
    size_t head_len, body_len;
    definition.text = NULL;
    while (size >= MESSAGE_HEADER_SIZE &&
           message_header_read((const char *)data, &head_len, &body_len, NULL) == 0) {
        size -= MESSAGE_HEADER_SIZE;
        data += MESSAGE_HEADER_SIZE;
        if (head_len > size || body_len > size - head_len)
            return;
        if (memmem(data, head_len, kind, strlen(kind))) {
            definition.text = (const char *)data + head_len;
            definition.len = body_len;
            return;
        }
        data += head_len + body_len;
        size -= head_len + body_len;
    }
}

struct http_call {
    http_call_done_fn *done; /* NULL: cancelled */
    void *data;
    bool is_definition;
};

static void answer(void *data)
{
    struct http_call *call = data;
    struct http_answer answer = {.status = 404, .body = BUFFER_INIT(1 << 20)};
    if (call->is_definition && definition.text) {
        answer.status = 200;
        if (buffer_append(&answer.body, definition.text, definition.len, NULL) < 0)
            abort();
    }
    if (call->done)
        call->done(call->data, &answer, NULL);
    buffer_deinit(&answer.body);
    free(call);
}

struct http_call *__wrap_http_call_start(struct http_client *client,
                                         const struct http_call_options *options,
                                         http_call_done_fn *done, void *data, struct error *err);
struct http_call *__wrap_http_call_start(struct http_client *client,
                                         const struct http_call_options *options,
                                         http_call_done_fn *done, void *data, struct error *err)
{
    struct http_call *call = malloc(sizeof(*call));
    (void)client;
    if (!call)
        abort();
    *call = (struct http_call){done, data, strstr(options->url, "/v1/worker/functions/") != NULL};
    if (loop_defer(loop, answer, call, err) < 0)
        abort();
    return call;
}

void __wrap_http_call_cancel(struct http_call *call);
void __wrap_http_call_cancel(struct http_call *call)
{
    call->done = NULL;
}

/* ---- time ---- */

struct loop_timer *__real_loop_timer_start(uv_loop_t *on, uint64_t after_ms, uint64_t repeat_ms,
                                           void (*fn)(void *data), void *data, struct error *err);
struct loop_timer *__wrap_loop_timer_start(uv_loop_t *on, uint64_t after_ms, uint64_t repeat_ms,
                                           void (*fn)(void *data), void *data, struct error *err);
struct loop_timer *__wrap_loop_timer_start(uv_loop_t *on, uint64_t after_ms, uint64_t repeat_ms,
                                           void (*fn)(void *data), void *data, struct error *err)
{
    return __real_loop_timer_start(on, after_ms > 0 && repeat_ms == 0 ? 1 : after_ms, repeat_ms, fn,
                                   data, err);
}

/* ---- the worker ---- */

static struct worker_settings settings;

static void load_settings(void)
{
    static char data_dir[96], run_dir[96], libexec_dir[96], program[112];
    static char token[] = "--token=0123456789abcdef"; /* which is wiped */
    char *argv[] = {(char *)"faas-worker",
                    data_dir,
                    run_dir,
                    libexec_dir,
                    (char *)"--runtime-type=simple",
                    (char *)"--name=fuzz",
                    token,
                    (char *)"--concurrency=2",
                    NULL};
    enum settings_outcome outcome;
    snprintf(data_dir, sizeof(data_dir), "--data-dir=%s/data", scratch_folder());
    snprintf(run_dir, sizeof(run_dir), "--run-dir=%s/run", scratch_folder());
    snprintf(libexec_dir, sizeof(libexec_dir), "--libexec-dir=%s", scratch_folder());
    snprintf(program, sizeof(program), "%s/init", scratch_folder());
    if (settings_load(&worker_settings_spec, 8, argv, &settings, &outcome, NULL) < 0 ||
        worker_settings_fill(&settings, NULL) < 0 ||
        write_file_atomic(program, "", 0, 0755, false, NULL) < 0)
        abort();
    log_init("fuzz", LOG_LEVEL_DEBUG, LOG_FORMAT_TEXT);
}

static void on_stopped(void *data)
{
    *(bool *)data = true;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uv_loop_t own;
    bool stopped = false;
    struct error err = {0};
    if (size == 0)
        return 0;
    if (!settings.name)
        load_settings();
    memset(&controller, 0, sizeof(controller));
    controller.bytes = data + 1;
    controller.len = size - 1;
    controller.piece = data[0] ? data[0] : SIZE_MAX;
    find_definition(data + 1, size - 1);
    loop = &own;
    struct worker *worker =
        uv_loop_init(&own) == 0 ? worker_new(&own, &settings, on_stopped, &stopped, &err) : NULL;
    if (!worker)
        abort();
    worker_start(worker);
    while (!controller.closed)
        uv_run(&own, UV_RUN_ONCE);
    if (!stopped)
        worker_kill(worker);
    while (!stopped)
        uv_run(&own, UV_RUN_ONCE);
    worker_free(worker);
    loop_close(&own);
    return 0;
}
