/* The life of an instance: sockets and pipes, start, ready, stop; see instance.h. */
#include "base/cleanup.h"
#include "base/log.h"
#include "base/loop.h"
#include "worker/body_area.h"
#include "worker/instance_internal.h"
#include "worker/instance_spec.h"
#include "worker/outcome.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* A result over the limit does not end an instance that others run in, unless it is larger than adapters may send. */
#define PASSED_OVER_MAX (64u << 20)

/* The states, and where each may go. */
static const struct {
    const char *name;
    unsigned next; /* bits */
} states[INSTANCE_STATE_COUNT] = {
    [INSTANCE_CREATING] = {"creating",
                           1u << INSTANCE_WARM | 1u << INSTANCE_IDLE | 1u << INSTANCE_STOPPING},
    [INSTANCE_WARM] = {"warm", 1u << INSTANCE_LOADING | 1u << INSTANCE_STOPPING},
    [INSTANCE_LOADING] = {"loading", 1u << INSTANCE_IDLE | 1u << INSTANCE_STOPPING},
    [INSTANCE_IDLE] = {"idle",
                       1u << INSTANCE_FROZEN | 1u << INSTANCE_BUSY | 1u << INSTANCE_STOPPING},
    [INSTANCE_FROZEN] = {"frozen", 1u << INSTANCE_BUSY | 1u << INSTANCE_STOPPING},
    [INSTANCE_BUSY] = {"busy", 1u << INSTANCE_IDLE | 1u << INSTANCE_STOPPING},
    [INSTANCE_STOPPING] = {"stopping", 1u << INSTANCE_GONE},
    [INSTANCE_GONE] = {"gone", 0},
};

const char *instance_state_name(enum instance_state state)
{
    return states[state].name;
}

bool instance_state_may_move(enum instance_state from, enum instance_state to)
{
    return (states[from].next & 1u << to) != 0;
}

void instance_move(struct instance *instance, enum instance_state to)
{
    assert(instance_state_may_move(instance->state, to));
    instance->state = to;
}

/* For the log. */
static const char *name_of(const struct instance *instance)
{
    return instance->function ? instance->spec->name : "";
}

/* The instance will not become, or no longer is, of use. */
static void break_with(struct instance *instance, struct execution *failure)
{
    loop_timer_stop(instance->deadline);
    instance->deadline = NULL;
    if (instance->output) {
        output_drain(instance->output);
        size_t text_len;
        const char *text = output_stdout(instance->output, &text_len);
        log_tail_append(output_log(instance->output), text, text_len);
        failure->logs = output_take_log(instance->output, &failure->logs_len);
    }
    instance->events.broken(instance->data, instance, failure);
    execution_deinit(failure);
}

static void break_lost(struct instance *instance, const char *type, const struct error *why)
{
    struct execution failure;
    execution_init(&failure);
    outcome_lost(&failure, type, why);
    break_with(instance, &failure);
}

static const char *start_failure_type(const struct error *err)
{
    return err->code == ERROR_NOT_FOUND   ? "Platform.NotFound"
           : err->code == ERROR_TIMED_OUT ? "Platform.StartTimedOut"
                                          : "Platform.StartFailed";
}

static void become_warm(struct instance *instance)
{
    instance->control_ready = false; /* it says so once more when it is loaded */
    instance_move(instance, INSTANCE_WARM);
    instance->ready_ns = clock_monotonic_ns();
    log_info("generic instance ready", LOG_STR("instance", instance->id),
             LOG_STR("image", instance->spec->image),
             LOG_INT("start_us", (int64_t)(instance->ready_ns - instance->asked_ns) / 1000));
    instance->events.warm(instance->data, instance);
}

static void become_ready(struct instance *instance)
{
    bool loaded = instance->handler ? instance->adapter_ready : instance->control_ready;
    if (!instance->started || !loaded)
        return;
    loop_timer_stop(instance->deadline);
    instance->deadline = NULL;
    if (!instance->function) {
        become_warm(instance);
        return;
    }
    if (!channel_sending(instance->control))
        free(steal_pointer(&instance->load));
    instance_move(instance, INSTANCE_IDLE);
    instance->ready_ns = clock_monotonic_ns();
    log_info("instance ready", LOG_STR("instance", instance->id),
             LOG_STR("function", name_of(instance)), LOG_INT("version", instance->spec->version),
             LOG_INT("start_us", (int64_t)(instance->ready_ns - instance->asked_ns) / 1000));
    instance->events.ready(instance->data, instance);
}

static void on_started(void *data, const struct error *err)
{
    struct instance *instance = data;
    if (instance->state != INSTANCE_CREATING)
        return;
    if (err) {
        log_warn("instance could not be started", LOG_STR("instance", instance->id),
                 LOG_STR("function", name_of(instance)), LOG_ERR(err));
        break_lost(instance, start_failure_type(err), err);
        return;
    }
    instance->started = true;
    instance->events.started(instance->data, instance);
    if (instance->state == INSTANCE_CREATING)
        become_ready(instance);
}

void instance_start_timed_out(void *data)
{
    struct instance *instance = data;
    struct execution failure;
    struct error why = {0};
    if (!instance->started) {
        error_set(&why, ERROR_TIMED_OUT, "the instance was not started within %llu ms",
                  (unsigned long long)instance->limits.start_timeout_ms);
        log_warn("instance not started in time", LOG_STR("instance", instance->id),
                 LOG_STR("function", name_of(instance)));
        break_lost(instance, "Platform.StartTimedOut", &why);
        return;
    }
    execution_init(&failure);
    outcome_fail(&failure, EXECUTION_FAILED, "Function.LoadFailed",
                 "the function's code was not loaded within %llu ms",
                 (unsigned long long)instance->limits.start_timeout_ms);
    break_with(instance, &failure);
}

void instance_check_memory(struct instance *instance, struct execution *execution,
                           const struct runtime_usage *before, const struct runtime_usage *after)
{
    if (execution->status != EXECUTION_FAILED || after->oom_kills <= before->oom_kills)
        return;
    outcome_fail(execution, EXECUTION_OUT_OF_MEMORY, "Function.OutOfMemory",
                 "the function needed more than its memory_mb of %lld MiB",
                 (long long)instance->spec->memory_mb);
}

void instance_describe_exit(struct execution *execution, const struct frame_header *header,
                            const char *meta, const char *when)
{
    if (header->flags & FRAME_FLAG_NOT_STARTED) {
        outcome_fail(execution, EXECUTION_FAILED, "Function.NotStarted", "%s",
                     *meta ? meta : "the function's program could not be started");
        return;
    }
    outcome_from_wait_status(execution, (int)header->value);
    autofree char *message = steal_pointer(&execution->error.message);
    execution->error.message = string_printf("%s %s", message ? message : "", when);
}

static bool is_rising(const struct instance *instance)
{
    return instance->state == INSTANCE_CREATING || instance->state == INSTANCE_LOADING;
}

/* An interpreter that was started ahead and ends when it is loaded, before any code of the function's could run. */
static bool ended_by_itself(const struct instance *instance, const struct frame_header *header)
{
    return instance->state == INSTANCE_LOADING && !instance->handler &&
           header->type == FRAME_ADAPTER_EXIT;
}

void instance_set_places(struct instance *instance, uint32_t adapters)
{
    size_t wanted = (size_t)instance->spec->concurrency;
    size_t able = adapters > 1 ? adapters : 1;
    instance->places = able < wanted ? able : wanted;
    if (instance->places < wanted)
        log_warn("the adapter takes fewer calls at once than the function allows",
                 LOG_STR("instance", instance->id), LOG_STR("function", name_of(instance)),
                 LOG_INT("concurrency", (int64_t)wanted),
                 LOG_INT("takes", (int64_t)instance->places));
    if (instance->places > 1)
        channel_pass_over_large(instance->adapter, PASSED_OVER_MAX);
}

/* Frames before the instance is ready. */
static void take_rising_frame(struct instance *instance, const struct frame_header *header,
                              const char *meta, const char *body, bool control)
{
    struct execution failure;
    struct runtime_usage after = {0};
    if (header->type == FRAME_READY) {
        *(control ? &instance->control_ready : &instance->adapter_ready) = true;
        if (!control)
            instance_set_places(instance, header->value);
        become_ready(instance);
        return;
    }
    /* The adapter's own words, if there are any, tell more than its exit status. */
    if (header->type == FRAME_ADAPTER_EXIT && instance->adapter) {
        channel_read(instance->adapter);
        if (!is_rising(instance))
            return;
    }
    execution_init(&failure);
    if (header->type == FRAME_ERROR)
        outcome_from_handler_error(&failure, body, header->body_len);
    else if (header->type == FRAME_ADAPTER_EXIT)
        instance_describe_exit(&failure, header, meta, "while its code was loaded");
    else
        outcome_fail(&failure, EXECUTION_FAILED, "Function.ProtocolError",
                     "the instance answered before it was asked");
    if (ended_by_itself(instance, header))
        failure.status = EXECUTION_LOST;
    else if (instance->runtime->ops->usage(instance->runtime_instance, &after, NULL) == 0)
        instance_check_memory(instance, &failure, &instance->before, &after);
    break_with(instance, &failure);
}

/* Nobody waits for it: a generic instance that ends, or an idle one. */
static void take_unasked_frame(struct instance *instance)
{
    struct error why = {0};
    error_set(&why, ERROR_UNAVAILABLE, "the %s instance ended",
              instance_state_name(instance->state));
    log_info("unused instance ended", LOG_STR("instance", instance->id),
             LOG_STR("function", name_of(instance)),
             LOG_STR("state", instance_state_name(instance->state)));
    break_lost(instance, "Platform.InstanceEnded", &why);
}

static void take_frame(struct instance *instance, const struct frame_header *header,
                       const char *meta, const char *body, bool control)
{
    switch (instance->state) {
    case INSTANCE_CREATING:
    case INSTANCE_LOADING:
        take_rising_frame(instance, header, meta, body, control);
        break;
    case INSTANCE_BUSY:
        instance_run_frame(instance, header, meta, body);
        break;
    case INSTANCE_WARM:
    case INSTANCE_IDLE:
    case INSTANCE_FROZEN:
        take_unasked_frame(instance);
        break;
    default:
        break;
    }
}

static void on_control_frame(void *data, const struct frame_header *header, const char *meta,
                             const char *body)
{
    take_frame(data, header, meta, body, true);
}

static void on_adapter_frame(void *data, const struct frame_header *header, const char *meta,
                             const char *body)
{
    const struct instance *instance = data;
    /* Threads that a call left behind may write on. */
    if (header->type == FRAME_LOG && instance->state != INSTANCE_BUSY)
        return;
    take_frame(data, header, meta, body, false);
}

static void channel_ended(struct instance *instance, bool control, const struct error *why)
{
    if (instance->state == INSTANCE_BUSY) {
        instance_run_closed(instance, control, why);
        return;
    }
    /* An adapter that ends closes its socket first; faas-init then says how it ended. And what the
     * runtime has to say about a start that failed is better than that a socket closed. */
    if (is_rising(instance) && (!control || !instance->started))
        return;
    log_info("instance ended", LOG_STR("instance", instance->id),
             LOG_STR("function", name_of(instance)),
             LOG_STR("state", instance_state_name(instance->state)), LOG_ERR(why));
    struct execution failure;
    struct runtime_usage after = {0};
    execution_init(&failure);
    outcome_fail(&failure, EXECUTION_FAILED, "Platform.InstanceEnded",
                 "the instance ended unexpectedly: %s", why->message);
    if (instance->runtime->ops->usage(instance->runtime_instance, &after, NULL) == 0)
        instance_check_memory(instance, &failure, &instance->before, &after);
    if (failure.status == EXECUTION_FAILED)
        failure.status = EXECUTION_LOST;
    break_with(instance, &failure);
}

static void on_control_closed(void *data, const struct error *why)
{
    channel_ended(data, true, why);
}

static void on_adapter_closed(void *data, const struct error *why)
{
    channel_ended(data, false, why);
}

static void on_too_large(void *data, const struct frame_header *header, const char *meta)
{
    struct instance *instance = data;
    struct error why = {0};
    if (header->type == FRAME_LOG && meta)
        return;
    if (instance->state == INSTANCE_BUSY) {
        instance_run_too_large(instance, meta);
        return;
    }
    error_set(&why, ERROR_UNAVAILABLE, "a frame of %u bytes before it was asked", header->body_len);
    channel_ended(instance, true, &why);
}

static void on_stdout_overflow(void *data)
{
    struct instance *instance = data;
    if (instance->state == INSTANCE_BUSY)
        instance_run_too_large(instance, NULL);
}

static void on_adapter_sent(void *data)
{
    instance_run_sent(data);
}

static struct blob *on_adapter_room(void *data, size_t len)
{
    return instance_run_room(data, len);
}

/* The descriptors of both sides: `ours` and `theirs` are control, adapter, stdout, stderr. */
static int make_descriptors(int ours[INSTANCE_FD_COUNT], int theirs[INSTANCE_FD_COUNT],
                            struct error *err)
{
    for (int i = 0; i < INSTANCE_FD_COUNT; i++) {
        int pair[2];
        int rc = i < 2 ? socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair)
                       : pipe2(pair, O_CLOEXEC);
        if (rc < 0) {
            int saved = errno;
            for (int j = 0; j < i; j++) {
                close(ours[j]);
                close(theirs[j]);
            }
            return error_set_errno(err, ERROR_INTERNAL, saved, "cannot make an instance's sockets");
        }
        ours[i] = pair[0];
        theirs[i] = pair[1];
        fcntl(ours[i], F_SETFL, O_NONBLOCK);
    }
    return 0;
}

int instance_open_adapter(struct instance *instance, int fd, struct error *err)
{
    static const struct channel_events events = {.frame = on_adapter_frame,
                                                 .too_large = on_too_large,
                                                 .closed = on_adapter_closed,
                                                 .sent = on_adapter_sent,
                                                 .room = on_adapter_room};
    uint32_t types = FRAME_BIT(FRAME_READY) | FRAME_BIT(FRAME_RESULT) | FRAME_BIT(FRAME_ERROR);
    if (instance->spec->concurrency > 1)
        types |= FRAME_BIT(FRAME_LOG);
    instance->adapter =
        channel_new(instance->loop, fd, types, instance->limits.result_max, &events, instance, err);
    return instance->adapter ? 0 : -1;
}

/* Takes all of `fds`. */
static int open_channels(struct instance *instance, int fds[INSTANCE_FD_COUNT], struct error *err)
{
    static const struct channel_events events = {
        .frame = on_control_frame, .too_large = on_too_large, .closed = on_control_closed};
    struct output_options output = {.collect_stdout = instance->function && !instance->handler,
                                    .stdout_max = instance->limits.result_max,
                                    .log_max = instance->limits.log_max,
                                    .overflow = on_stdout_overflow,
                                    .shared = instance_run_shared_log,
                                    .data = instance};
    instance->output = output_new(instance->loop, fds[2], fds[3], &output, err);
    instance->control =
        channel_new(instance->loop, fds[0],
                    FRAME_BIT(FRAME_READY) | FRAME_BIT(FRAME_EXIT) | FRAME_BIT(FRAME_ADAPTER_EXIT),
                    0, &events, instance, err);
    if (instance->handler && instance_open_adapter(instance, fds[1], err) < 0)
        return -1;
    if (!instance->function)
        instance->adapter_fd = fds[1];
    else if (!instance->handler)
        close(fds[1]);
    return instance->output && instance->control ? 0 : -1;
}

static void close_channels(struct instance *instance)
{
    channel_free(instance->control);
    channel_free(instance->adapter);
    output_free(instance->output);
    if (instance->adapter_fd >= 0)
        close(instance->adapter_fd);
    instance->adapter_fd = -1;
    free(instance->load);
    instance->load = NULL;
    free(instance->given_up);
    instance->given_up = NULL;
    instance->control = instance->adapter = NULL;
    instance->output = NULL;
    loop_timer_stop(instance->deadline);
    instance->deadline = NULL;
}

static int start(struct instance *instance, struct error *err)
{
    int ours[INSTANCE_FD_COUNT];
    const struct function *function = instance->function;
    struct runtime_start start = {.id = instance->id,
                                  .spec = instance->spec,
                                  .code_dir = function ? code_directory(function->code) : NULL,
                                  .command = instance->command};
    if (make_descriptors(ours, start.fds, err) < 0)
        return -1;
    if (open_channels(instance, ours, err) < 0) {
        for (int i = 0; i < INSTANCE_FD_COUNT; i++)
            close(start.fds[i]);
        return -1;
    }
    instance->deadline = loop_timer_start(instance->loop, instance->limits.start_timeout_ms, 0,
                                          instance_start_timed_out, instance, err);
    instance->runtime_instance =
        instance->runtime->ops->start(instance->runtime, &start, on_started, instance, err);
    return instance->runtime_instance ? 0 : -1;
}

void instance_take_function(struct instance *instance, struct function *function)
{
    instance->function = function_ref(function);
    instance->spec = &function->spec;
    instance->command = function->command;
    instance->handler = function->spec.contract == CONTRACT_HANDLER;
    instance->asked_ns = clock_monotonic_ns();
    instance->ready_ns = 0;
}

static struct instance *instance_alloc(uv_loop_t *loop, struct runtime *runtime,
                                       const struct instance_limits *limits,
                                       const struct instance_events *events, void *data)
{
    char id[RANDOM_ID_LEN + 1];
    struct instance *instance = calloc(1, sizeof(*instance));
    if (!instance)
        return NULL;
    random_id(id);
    memcpy(instance->id, id, INSTANCE_ID_LEN);
    instance->loop = loop;
    instance->runtime = runtime;
    instance->limits = *limits;
    instance->events = *events;
    instance->data = data;
    instance->state = INSTANCE_CREATING;
    instance->created_ns = instance->asked_ns = clock_monotonic_ns();
    instance->adapter_fd = -1;
    instance->places = 1;
    TAILQ_INIT(&instance->calls);
    TAILQ_INIT(&instance->unsent);
    return instance;
}

/* Takes `instance`, which may be NULL. */
static struct instance *begin(struct instance *instance, struct error *err)
{
    if (!instance) {
        error_set(err, ERROR_INTERNAL, "out of memory");
        return NULL;
    }
    if (start(instance, err) < 0) {
        close_channels(instance);
        function_unref(instance->function);
        free(instance);
        return NULL;
    }
    log_debug("instance starting", LOG_STR("instance", instance->id),
              LOG_STR("function", name_of(instance)));
    return instance;
}

struct instance *instance_new(uv_loop_t *loop, struct runtime *runtime, struct function *function,
                              const struct instance_limits *limits,
                              const struct instance_events *events, void *data, struct error *err)
{
    struct instance *instance = instance_alloc(loop, runtime, limits, events, data);
    if (instance)
        instance_take_function(instance, function);
    return begin(instance, err);
}

struct instance *instance_new_generic(uv_loop_t *loop, struct runtime *runtime,
                                      const struct function_spec *spec, const char *const *command,
                                      const struct instance_limits *limits,
                                      const struct instance_events *events, void *data,
                                      struct error *err)
{
    struct instance *instance = instance_alloc(loop, runtime, limits, events, data);
    if (instance) {
        instance->spec = spec;
        instance->command = command;
    }
    return begin(instance, err);
}

static void on_stopped(void *data)
{
    struct instance *instance = data;
    instance->runtime_instance = NULL;
    instance_move(instance, INSTANCE_GONE);
    log_info("instance removed", LOG_STR("instance", instance->id),
             LOG_STR("function", name_of(instance)),
             LOG_INT("lived_ms", (int64_t)(clock_monotonic_ns() - instance->created_ns) / 1000000));
    instance->events.gone(instance->data, instance);
}

void instance_stop(struct instance *instance)
{
    assert(instance->call_count == 0);
    instance_move(instance, INSTANCE_STOPPING);
    close_channels(instance);
    instance->runtime->ops->stop(instance->runtime_instance, on_stopped, instance);
}

void instance_free(struct instance *instance)
{
    if (!instance)
        return;
    assert(instance->state == INSTANCE_GONE);
    function_unref(instance->function);
    free(instance);
}

int instance_freeze(struct instance *instance, struct error *err)
{
    const struct runtime_ops *ops = instance->runtime->ops;
    if (!ops->freeze)
        return error_set(err, ERROR_UNAVAILABLE, "runtime %s cannot freeze instances", ops->name);
    if (ops->freeze(instance->runtime_instance, true, err) < 0)
        return -1;
    instance_move(instance, INSTANCE_FROZEN);
    if (instance->adapter)
        body_area_empty(channel_area(instance->adapter));
    return 0;
}

int instance_weigh(struct instance *instance, unsigned parts)
{
    const struct runtime_ops *ops = instance->runtime->ops;
    return ops->weigh ? ops->weigh(instance->runtime_instance, parts) : -1;
}

const char *instance_id(const struct instance *instance)
{
    return instance->id;
}

enum instance_state instance_state(const struct instance *instance)
{
    return instance->state;
}

struct function *instance_function(const struct instance *instance)
{
    return instance->function;
}

const struct function_spec *instance_spec_of(const struct instance *instance)
{
    return instance->spec;
}

uint64_t instance_start_ns(const struct instance *instance)
{
    return instance->ready_ns ? instance->ready_ns - instance->asked_ns : 0;
}

size_t instance_calls(const struct instance *instance)
{
    return instance->call_count;
}

size_t instance_places(const struct instance *instance)
{
    return instance->places;
}

size_t instance_free_places(const struct instance *instance)
{
    bool takes = instance->state == INSTANCE_IDLE || instance->state == INSTANCE_FROZEN ||
                 instance->state == INSTANCE_BUSY;
    return takes && !instance->spent ? instance->places - instance->call_count : 0;
}
