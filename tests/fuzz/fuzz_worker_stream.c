/* A controller, whole, whose worker is a stranger with the worker token. The input is messages, a head and a body each, both ended by NUL.
 * What comes behind a head that begins with a blank comes at the same time. An empty head cuts the connection and makes another; "+N" lets N seconds pass. Two functions serve and one is to be compiled; calls wait from the beginning, and
 * have the ids that counted_id() gives.
 *
 * Whatever is said: no call is lost and none ends twice, what is written of one keeps the rules of a record, and what the controller
 * says and shows can be read. The linker puts the functions below in the place of the HTTP server's, the store's, the clock and the makers of ids. */
#include "base/cleanup.h"
#include "base/log.h"
#include "controller/controller.h"
#include "controller/handlers.h"
#include "read_log.h"
#include "scratch.h"

#include <errno.h>
#include <stdint.h>

#define CALLS 4
#define RESULT_MAX 4096
#define LOG_MAX 1024
#define OUT_MAX ((size_t)16 * 1024 * 1024)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct controller controller;
static unsigned ids_made, pending_writes;
static uint64_t passed_ns;

static void require(bool condition)
{
    if (!condition)
        abort();
}

/* ---- ids and time ---- */

/* The calls': the first four of a run. */
static void counted_id(char out[TIME_ID_LEN + 1])
{
    snprintf(out, TIME_ID_LEN + 1, "00000000-0000-7000-8000-%012u", ++ids_made);
}

void __wrap_time_id(char out[TIME_ID_LEN + 1]);
void __wrap_time_id(char out[TIME_ID_LEN + 1])
{
    counted_id(out);
}

/* A build's. */
void __wrap_random_id(char out[RANDOM_ID_LEN + 1]);
void __wrap_random_id(char out[RANDOM_ID_LEN + 1])
{
    snprintf(out, RANDOM_ID_LEN + 1, "%032u", ++ids_made);
}

/* SIGTERM ends the fuzzer; a controller that stopped for it would end what stands for requests here. */
int __wrap_uv_signal_start(uv_signal_t *handle, uv_signal_cb callback, int number);
int __wrap_uv_signal_start(uv_signal_t *handle, uv_signal_cb callback, int number)
{
    (void)handle;
    (void)callback;
    (void)number;
    return 0;
}

uint64_t __real_clock_monotonic_ns(void);
uint64_t __wrap_clock_monotonic_ns(void);
uint64_t __wrap_clock_monotonic_ns(void)
{
    return __real_clock_monotonic_ns() + passed_ns;
}

/* ---- the store: what was written ---- */

static struct {
    char id[TIME_ID_LEN + 1];
    unsigned left; /* memory, for the store */
} calls[CALLS];

static void count_left(const char *id)
{
    for (size_t i = 0; i < CALLS; i++)
        if (strcmp(calls[i].id, id) == 0)
            calls[i].left++;
}

static void check_record(const struct execution *record)
{
    require(execution_status_final(record->status));
    require(record->has_error == (record->status != EXECUTION_SUCCEEDED));
    require(record->result_len <= RESULT_MAX && record->logs_len <= LOG_MAX + 1024);
    require(!record->result ||
            json_check(record->result, record->result_len,
                       &(struct json_limits){.max_bytes = SIZE_MAX, .max_depth = 1000}, NULL) == 0);
}

/* Takes it, as the store does. */
static void take_record(struct execution *record)
{
    count_left(record->id);
    execution_deinit(record);
}

void __wrap_store_put_execution(struct store *store, struct execution *execution,
                                store_done_fn *done, void *data);
void __wrap_store_put_execution(struct store *store, struct execution *execution,
                                store_done_fn *done, void *data)
{
    (void)store;
    (void)done;
    (void)data;
    check_record(execution);
    take_record(execution);
}

void __wrap_store_finish_execution(struct store *store, const char *owner,
                                   struct execution *execution, store_done_fn *done, void *data);
void __wrap_store_finish_execution(struct store *store, const char *owner,
                                   struct execution *execution, store_done_fn *done, void *data)
{
    (void)owner;
    __wrap_store_put_execution(store, execution, done, data);
}

void __wrap_store_retry_execution(struct store *store, const char *owner,
                                  struct execution *execution, uint64_t due_at_ns,
                                  store_done_fn *done, void *data);
void __wrap_store_retry_execution(struct store *store, const char *owner,
                                  struct execution *execution, uint64_t due_at_ns,
                                  store_done_fn *done, void *data)
{
    (void)store;
    (void)owner;
    (void)due_at_ns;
    (void)done;
    (void)data;
    take_record(execution);
}

void __wrap_store_start_execution(struct store *store, const char *owner, const char *id,
                                  int64_t attempt, int64_t losses, uint64_t started_at_ns,
                                  store_done_fn *done, void *data);
void __wrap_store_start_execution(struct store *store, const char *owner, const char *id,
                                  int64_t attempt, int64_t losses, uint64_t started_at_ns,
                                  store_done_fn *done, void *data)
{
    (void)store;
    (void)owner;
    (void)id;
    (void)started_at_ns;
    (void)done;
    (void)data;
    require(attempt >= 1 && losses >= 0);
}

struct write {
    store_done_fn *done;
    void *data;
};

static void written(void *data)
{
    struct write *write = data;
    pending_writes--;
    write->done(write->data, NULL);
    free(write);
}

/* What is stored of a function can be read again. */
static void check_function(const struct function_record *record)
{
    with_cleanup(buffer_deinit) struct buffer text = BUFFER_INIT(1 << 20);
    with_cleanup(function_spec_deinit) struct function_spec again;
    struct json_writer *writer = json_writer_new(&text);
    json_object_begin(writer);
    function_spec_write_members(writer, &record->spec);
    json_object_end(writer);
    require(json_writer_finish(writer, NULL) == 0);
    autojson *value = json_parse(text.data, text.len, NULL, NULL);
    require(value && function_spec_read(value, &again, NULL) == 0);
    require(!record->build_output ||
            utf8_valid(record->build_output, strlen(record->build_output)));
}

void __wrap_store_update_function(struct store *store, const struct function_record *record,
                                  char *artifact, size_t artifact_len, store_done_fn *done,
                                  void *data);
void __wrap_store_update_function(struct store *store, const struct function_record *record,
                                  char *artifact, size_t artifact_len, store_done_fn *done,
                                  void *data)
{
    struct write *write = malloc(sizeof(*write));
    (void)store;
    require(write && (record->state == FUNCTION_READY) == (artifact && artifact_len > 0));
    check_function(record);
    *write = (struct write){done, data};
    pending_writes++;
    require(loop_defer(&controller.loop, written, write, NULL) == 0);
    free(artifact);
}

void __wrap_store_prune_versions(struct store *store, const char *name, int64_t version,
                                 store_done_fn *done, void *data);
void __wrap_store_prune_versions(struct store *store, const char *name, int64_t version,
                                 store_done_fn *done, void *data)
{
    (void)store;
    (void)name;
    (void)version;
    (void)done;
    (void)data;
}

/* ---- what is shown ---- */

static struct {
    void (*closed)(void *data);
    void *data;
} follower;

struct http_stream *__wrap_http_stream_begin(struct http_request *request, int status,
                                             const char *content_type, void (*closed)(void *data),
                                             void *data);
struct http_stream *__wrap_http_stream_begin(struct http_request *request, int status,
                                             const char *content_type, void (*closed)(void *data),
                                             void *data)
{
    (void)request;
    (void)status;
    (void)content_type;
    follower.closed = closed;
    follower.data = data;
    return (struct http_stream *)&follower;
}

/* Lines of JSON. */
int __wrap_http_stream_write(struct http_stream *stream, const char *bytes, size_t len);
int __wrap_http_stream_write(struct http_stream *stream, const char *bytes, size_t len)
{
    (void)stream;
    require(len > 0 && bytes[len - 1] == '\n');
    while (len > 0) {
        size_t line = (size_t)((const char *)memchr(bytes, '\n', len) - bytes);
        autojson *value = json_parse(bytes, line, NULL, NULL);
        require(value && json_type(value) == JSON_OBJECT);
        bytes += line + 1;
        len -= line + 1;
    }
    return 0;
}

/* ---- the connection ---- */

static struct {
    struct byte_stream stream;
    struct buffer in; /* to the controller */
    struct buffer out;
    int fd; /* always readable */
    bool open, ends;
} wire = {.in = {.max = SIZE_MAX}, .out = {.max = OUT_MAX}, .fd = -1};

static ssize_t receive(struct byte_stream *stream, void *to, size_t max)
{
    size_t len = wire.in.len < max ? wire.in.len : max;
    (void)stream;
    if (len == 0 && !wire.ends) {
        errno = EAGAIN;
        return -1;
    }
    if (len > 0) {
        memcpy(to, wire.in.data, len);
        buffer_consume(&wire.in, len);
    }
    return (ssize_t)len;
}

static ssize_t take(struct byte_stream *stream, const void *from, size_t len)
{
    (void)stream;
    require(buffer_append(&wire.out, from, len, NULL) == 0);
    return (ssize_t)len;
}

static void close_stream(struct byte_stream *stream)
{
    (void)stream;
    wire.open = false;
}

bool __wrap_http_request_wants_upgrade(const struct http_request *request, const char *protocol);
bool __wrap_http_request_wants_upgrade(const struct http_request *request, const char *protocol)
{
    (void)request;
    (void)protocol;
    return true;
}

void __wrap_http_respond_upgrade(struct http_request *request, const char *protocol,
                                 void (*opened)(void *data, struct byte_stream *stream),
                                 void *data);
void __wrap_http_respond_upgrade(struct http_request *request, const char *protocol,
                                 void (*opened)(void *data, struct byte_stream *stream), void *data)
{
    (void)request;
    (void)protocol;
    opened(data, &wire.stream);
}

static void open_connection(void)
{
    wire.stream = (struct byte_stream){.receive = receive,
                                       .send = take,
                                       .close = close_stream,
                                       .fd = wire.fd,
                                       .holds_bytes = true};
    wire.open = true;
    wire.ends = false;
    buffer_clear(&wire.in);
    buffer_clear(&wire.out);
    serve_worker_stream(NULL, &controller);
    require(wire.open);
}

/* What the controller has said: whole messages, each with a kind. */
static void check_said(void)
{
    for (size_t at = 0; at < wire.out.len;) {
        size_t head_len = 0, body_len = 0;
        require(wire.out.len - at >= MESSAGE_HEADER_SIZE &&
                message_header_read(wire.out.data + at, &head_len, &body_len, NULL) == 0);
        at += MESSAGE_HEADER_SIZE;
        require(head_len <= wire.out.len - at && body_len <= wire.out.len - at - head_len);
        autojson *head = json_parse(wire.out.data + at, head_len, NULL, NULL);
        require(head && json_get_string(head, "kind"));
        at += head_len + body_len;
    }
    buffer_clear(&wire.out);
}

static void turn(void)
{
    do
        uv_run(&controller.loop, UV_RUN_NOWAIT);
    while ((wire.open && wire.in.len > 0) || pending_writes > 0);
    uv_run(&controller.loop, UV_RUN_NOWAIT);
    check_said();
}

static void cut(void)
{
    turn();
    wire.ends = true;
    while (wire.open)
        uv_run(&controller.loop, UV_RUN_NOWAIT);
    check_said();
}

/* ---- the controller ---- */

static void stop(void)
{
    controller_deinit(&controller);
    settings_deinit(&controller_settings, &controller.config);
    buffer_deinit(&wire.in);
    buffer_deinit(&wire.out);
    close(wire.fd);
}

static void start(void)
{
    static char data_dir[96];
    char *argv[] = {(char *)"faas-controller",       data_dir,
                    (char *)"--listen=127.0.0.1:0",  (char *)"--result-max-bytes=4096",
                    (char *)"--log-max-bytes=1024",  (char *)"--async-attempts=3",
                    (char *)"--callback-attempts=1", NULL};
    enum settings_outcome outcome;
    struct error err = {0};
    int ends[2];
    snprintf(data_dir, sizeof(data_dir), "--data-dir=%s/data", scratch_folder());
    log_init("fuzz", LOG_LEVEL_DEBUG, LOG_FORMAT_TEXT);
    require(settings_load(&controller_settings, 7, argv, &controller.config, &outcome, &err) == 0);
    require(controller_start(&controller, &err) == 0);
    loop_timer_stop(controller.tick); /* the inputs say when time passes */
    loop_timer_stop(controller.ping);
    controller.tick = controller.ping = NULL;
    require(pipe(ends) == 0 && write(ends[1], "", 1) == 1);
    close(ends[1]);
    wire.fd = ends[0];
    atexit(stop);
}

static struct function_version *add_function(const char *text, enum function_state state)
{
    struct function_record record = {.state = state};
    autojson *value = json_parse(text, strlen(text), NULL, NULL);
    require(value && function_spec_read(value, &record.spec, NULL) == 0);
    struct function_entry *entry = registry_entry(&controller.registry, record.spec.name, NULL);
    require(entry && registry_add_version(&controller.registry, entry, &record, NULL) == 0);
    return entry->newest;
}

static void call(size_t i, struct function_version *version, bool async)
{
    struct blob *payload = blob_new(strdup("{}"), 2);
    struct live_execution *execution =
        payload ? executions_accept(&controller, version, payload, async, NULL) : NULL;
    require(execution != NULL);
    execution->record.delivery.aged_from_ns = clock_realtime_ns();
    memcpy(calls[i].id, execution->record.id, sizeof(calls[i].id));
    calls[i].left = 0;
    dispatch_enqueue(&controller.dispatch, execution);
}

static void set_up(void)
{
    static const char hello[] =
        "{\"name\":\"hello\",\"version\":1,\"runtime\":\"python\",\"min_instances\":2}";
    static const char picky[] = "{\"name\":\"picky\",\"version\":3,\"runtime\":\"python\","
                                "\"requires\":[\"gpu\"],\"reserved_concurrency\":1}";
    static const char compiled[] = "{\"name\":\"compiled\",\"version\":1,\"runtime\":\"go\"}";
    ids_made = 0;
    passed_ns = 0;
    struct function_version *common = add_function(hello, FUNCTION_READY);
    struct function_version *rare = add_function(picky, FUNCTION_READY);
    call(0, common, false);
    call(1, common, true);
    call(2, rare, false);
    call(3, common, true);
    require(builds_add(&controller, add_function(compiled, FUNCTION_BUILDING), NULL) == 0);
    log_follow(&controller, NULL, "hello");
}

static void check_calls(void)
{
    executions_flush(&controller);
    for (size_t i = 0; i < CALLS; i++)
        require(calls[i].left + (executions_find(&controller, calls[i].id) != NULL) == 1);
}

static void clear(void)
{
    void (*gone)(void *data, const struct function_version *version) = controller.registry.gone;
    for (size_t i = 0; i < CALLS; i++) {
        struct live_execution *execution = executions_find(&controller, calls[i].id);
        if (!execution)
            continue;
        executions_detach(&controller, execution);
        executions_discard(&controller, execution);
    }
    follower.closed(follower.data);
    builds_deinit(&controller);
    builds_init(&controller.builds);
    sessions_deinit(&controller);
    sessions_init(&controller.sessions);
    struct dispatch_limits limits = controller.dispatch.limits;
    dispatch_init(&controller.dispatch, &limits);
    registry_deinit(&controller.registry);
    registry_init(&controller.registry, gone, &controller);
    controller.delivery.stored = controller.delivery.window = 0;
}

static void pass(const char *seconds)
{
    turn();
    passed_ns += strtoull(seconds, NULL, 10) % 100000 * 1000000000;
    sessions_tick(&controller);
    keeps_tick(&controller);
    delivery_tick(&controller);
    controller_dispatch(&controller);
    turn();
}

static void say(const char *head, size_t head_len, const char *body, size_t body_len)
{
    char header[MESSAGE_HEADER_SIZE];
    message_header_write(header, head_len, body_len);
    require(buffer_append(&wire.in, header, sizeof(header), NULL) == 0 &&
            buffer_append(&wire.in, head, head_len, NULL) == 0 &&
            buffer_append(&wire.in, body, body_len, NULL) == 0);
}

/* The text up to its NUL or the end; moves behind it. */
static const char *next(const char **at, const char *end, size_t *ret_len)
{
    const char *text = *at;
    *ret_len = strnlen(text, (size_t)(end - text));
    *at = text + *ret_len + (text + *ret_len < end);
    return text;
}

static void talk(const char *at, const char *end)
{
    while (at < end) {
        size_t head_len, body_len;
        const char *head = next(&at, end, &head_len);
        if (head_len == 0 || !wire.open) {
            if (wire.open)
                cut();
            open_connection();
            continue;
        }
        if (head[0] == '+') {
            pass(head); /* the whole text has a NUL behind it */
            continue;
        }
        const char *body = next(&at, end, &body_len);
        say(head, head_len, body, body_len);
        if (head[0] != ' ')
            turn();
    }
    if (wire.open)
        cut();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    autofree char *text = malloc(size + 1);
    require(text != NULL);
    memcpy(text, data, size);
    text[size] = '\0';
    if (wire.fd < 0)
        start();
    set_up();
    open_connection();
    talk(text, text + size);
    check_calls();
    clear();
    return 0;
}
