/* Invocations in an instance: send them, watch the clock, make the executions from what comes.
 *
 * Most instances run one at a time. Where there are several, each is in `calls` until it is over, and answers name theirs by
 * execution id. */
#include "base/cleanup.h"
#include "base/log.h"
#include "base/loop.h"
#include "worker/body_area.h"
#include "worker/instance_internal.h"
#include "worker/outcome.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

/* Logs of invocations that run longer than this are sent while they run. */
#define LOG_INTERVAL_MS 200
/* How long faas-init may take to say how the adapter ended. */
#define EXIT_GRACE_MS 1000

static struct channel *channel_of(const struct instance *instance)
{
    return instance->handler ? instance->adapter : instance->control;
}

static struct log_tail *log_of(struct invocation *invocation)
{
    struct instance *instance = invocation->instance;
    return instance->places > 1 ? &invocation->run.log : output_log(instance->output);
}

/* NULL: none of that id runs. Without an id, the only one. */
static struct invocation *find(const struct instance *instance, const char *execution_id)
{
    struct invocation *invocation;
    if (instance->places == 1 || (instance->call_count == 1 && *execution_id == '\0'))
        return TAILQ_FIRST(&instance->calls);
    TAILQ_FOREACH(invocation, &instance->calls, run.calls)
    {
        if (strcmp(invocation->execution.id, execution_id) == 0)
            return invocation;
    }
    return NULL;
}

static bool is_being_sent(const struct invocation *invocation)
{
    const struct instance *instance = invocation->instance;
    return instance->sending == invocation && channel_sending(channel_of(instance));
}

/* The instance has not had all of it. */
static bool has_not_begun(const struct invocation *invocation)
{
    const struct invocation_run *run = &invocation->run;
    return run->queued || run->unsendable || is_being_sent(invocation);
}

static void measure(struct invocation *invocation, uint64_t now_ns)
{
    struct instance *instance = invocation->instance;
    struct execution *execution = &invocation->execution;
    struct execution_metrics *metrics = &execution->metrics;
    const struct runtime_usage *before = &invocation->run.before;
    struct runtime_usage after = *before;
    metrics->duration = now_ns - invocation->run.sent_ns;
    if (instance->runtime->ops->usage(instance->runtime_instance, &after, NULL) < 0)
        return;
    instance->usage = after;
    instance->measured = true;
    metrics->memory_peak = after.memory_peak_bytes;
    metrics->cpu_time = after.cpu_ns - before->cpu_ns;
    metrics->network_in = after.network_in_bytes - before->network_in_bytes;
    metrics->network_out = after.network_out_bytes - before->network_out_bytes;
    instance_check_memory(instance, execution, before, &after);
}

/* The instance lets go of it. What it borrowed of it for sending, it keeps. */
static void detach(struct invocation *invocation, enum instance_after after)
{
    struct instance *instance = invocation->instance;
    if (is_being_sent(invocation) && after != INSTANCE_RETRY) {
        free(instance->given_up);
        instance->given_up = steal_pointer(&invocation->payload);
    }
    if (instance->sending == invocation)
        instance->sending = NULL;
    if (invocation->run.queued)
        TAILQ_REMOVE(&instance->unsent, invocation, run.unsent);
    TAILQ_REMOVE(&instance->calls, invocation, run.calls);
    instance->call_count--;
    invocation->instance = NULL;
}

/* The invocation is over; its status and error are set. */
static void finish(struct invocation *invocation, enum instance_after after)
{
    struct instance *instance = invocation->instance;
    struct execution *execution = &invocation->execution;
    loop_timer_stop(invocation->run.deadline);
    loop_timer_stop(invocation->run.log_timer);
    invocation->run.deadline = invocation->run.log_timer = NULL;
    execution->finished_at_ns = clock_realtime_ns();
    free(execution->logs);
    execution->logs = instance->places > 1
                          ? log_tail_take(&invocation->run.log, &execution->logs_len)
                          : output_take_log(instance->output, &execution->logs_len);
    instance->spent |= after != INSTANCE_USABLE || execution->status == EXECUTION_OUT_OF_MEMORY ||
                       is_being_sent(invocation) || channel_sending(instance->control);
    detach(invocation, after);
    if (instance->spent && after == INSTANCE_USABLE)
        after = INSTANCE_SPENT;
    if (instance->call_count == 0 && !instance->spent)
        instance_move(instance, INSTANCE_IDLE);
    instance->events.finished(instance->data, instance, invocation, after);
    instance->measured = false;
}

/* What contract `process` wrote to stdout, when it did not become the result, is worth seeing. */
static void stdout_to_log(struct invocation *invocation)
{
    size_t len;
    const char *text = output_stdout(invocation->instance->output, &len);
    log_tail_append(log_of(invocation), text, len);
}

/* Fails the invocation with the error that is set in its execution. */
static void finish_failed(struct invocation *invocation, enum instance_after after)
{
    uint64_t now_ns = clock_monotonic_ns();
    output_drain(invocation->instance->output);
    measure(invocation, now_ns);
    stdout_to_log(invocation);
    finish(invocation, after);
}

/* Why all invocations of an instance are over. */
struct ending {
    const struct frame_header *header; /* how the adapter ended; NULL: the three below */
    const char *meta;
    enum execution_status status;
    const char *type;
    const char *message;
    bool not_its_fault; /* unless it was for a lack of memory */
    bool may_retry;     /* those that had not begun go to another instance */
};

static void fail(struct execution *execution, const struct ending *ending)
{
    if (ending->header)
        instance_describe_exit(execution, ending->header, ending->meta,
                               "before it had returned a result");
    else
        outcome_fail(execution, ending->status, ending->type, "%s", ending->message);
}

/* One of several says so: it need not be the one that caused the end. */
static void mention_others(struct execution *execution, size_t others)
{
    if (others == 0)
        return;
    autofree char *message = steal_pointer(&execution->error.message);
    execution->error.message =
        string_printf("%s (%zu other call%s ran in the instance)", message ? message : "", others,
                      others == 1 ? "" : "s");
}

static void finish_all(struct instance *instance, const struct ending *ending)
{
    size_t others = instance->call_count - 1;
    struct invocation *invocation;
    uint64_t now_ns = clock_monotonic_ns();
    instance->spent = true;
    output_drain(instance->output);
    while ((invocation = TAILQ_FIRST(&instance->calls))) {
        struct execution *execution = &invocation->execution;
        if (ending->may_retry && has_not_begun(invocation)) {
            finish(invocation, INSTANCE_RETRY);
            continue;
        }
        fail(execution, ending);
        measure(invocation, now_ns);
        if (ending->not_its_fault && execution->status == EXECUTION_FAILED)
            execution->status = EXECUTION_LOST;
        mention_others(execution, others);
        stdout_to_log(invocation);
        finish(invocation, INSTANCE_SPENT);
    }
}

static void too_large(struct execution *execution, size_t max)
{
    outcome_fail(execution, EXECUTION_FAILED, "Function.ResultTooLarge",
                 "the result is larger than the limit of %zu bytes", max);
}

void instance_run_too_large(struct instance *instance, const char *execution_id)
{
    char message[100];
    struct invocation *invocation = execution_id ? find(instance, execution_id) : NULL;
    if (invocation) {
        too_large(&invocation->execution, instance->limits.result_max);
        finish_failed(invocation, INSTANCE_USABLE);
        return;
    }
    if (execution_id && instance->spent)
        return; /* of one that was given up */
    snprintf(message, sizeof(message), "the result is larger than the limit of %zu bytes",
             instance->limits.result_max);
    finish_all(instance, &(struct ending){.status = EXECUTION_FAILED,
                                          .type = "Function.ResultTooLarge",
                                          .message = message});
}

static void take_stdout(struct invocation *invocation)
{
    struct instance *instance = invocation->instance;
    struct execution *execution = &invocation->execution;
    struct outcome_stdout outcome;
    struct error err = {0};
    size_t len;
    const char *text = output_stdout(instance->output, &len);
    if (outcome_from_stdout(text, len, &outcome, &err) < 0) {
        outcome_lost(execution, "Platform.Internal", &err);
        return;
    }
    /* Text may grow sixfold as a JSON string, base64 by a third. */
    if (outcome.result_len > instance->limits.result_max / 3 * 4 + 1024) {
        free(outcome.result);
        too_large(execution, instance->limits.result_max);
        return;
    }
    execution_drop_result(execution);
    execution->result = outcome.result;
    execution->result_len = outcome.result_len;
    execution->result_base64 = outcome.base64;
    execution->status = EXECUTION_SUCCEEDED;
    log_tail_append(log_of(invocation), text, outcome.log_len);
}

/* Contract process: the program has ended. */
static void take_exit(struct instance *instance, const struct frame_header *header,
                      const char *meta)
{
    struct invocation *invocation = TAILQ_FIRST(&instance->calls);
    struct execution *execution = &invocation->execution;
    enum instance_after after = header->flags & FRAME_FLAG_DIRTY ? INSTANCE_SPENT : INSTANCE_USABLE;
    uint64_t now_ns = clock_monotonic_ns();
    if (output_drain(instance->output) < 0)
        too_large(execution, instance->limits.result_max);
    else if (header->flags & FRAME_FLAG_NOT_STARTED)
        instance_describe_exit(execution, header, meta, "");
    else if (header->value == 0)
        take_stdout(invocation);
    else
        outcome_from_wait_status(execution, (int)header->value);
    measure(invocation, now_ns);
    if (execution->status != EXECUTION_SUCCEEDED)
        stdout_to_log(invocation);
    finish(invocation, after);
}

static void not_asked_for(struct instance *instance)
{
    finish_all(instance, &(struct ending){.status = EXECUTION_FAILED,
                                          .type = "Function.ProtocolError",
                                          .message = "the instance sent what was not asked for"});
}

/* What the adapter says about memory for large bodies: that it would like some, or that it has mapped what it was passed. */
static void hear_of_area(struct instance *instance)
{
    if (channel_area(instance->adapter))
        channel_use_area(instance->adapter);
    else
        instance->wants_area = instance->limits.share_memory && instance->places == 1;
}

struct blob *instance_run_room(struct instance *instance, size_t len)
{
    struct invocation *invocation = TAILQ_FIRST(&instance->calls);
    return invocation && invocation->room ? invocation->room(invocation->data, invocation, len)
                                          : NULL;
}

static void take_result(struct instance *instance, struct invocation *invocation)
{
    const struct json_ahead *ahead = channel_ahead(instance->adapter);
    struct execution *execution = &invocation->execution;
    struct blob *blob = channel_take_room(instance->adapter);
    size_t len = 0;
    if (blob) {
        outcome_from_handler_blob(execution, blob, ahead, instance->limits.result_max);
        return;
    }
    char *result = channel_take_body(instance->adapter, &len);
    outcome_from_handler_result(execution, result, len, ahead, instance->limits.result_max);
}

/* Contract handler: it has returned, or raised an exception. */
static void take_answer(struct instance *instance, const struct frame_header *header,
                        const char *meta, const char *body)
{
    struct invocation *invocation = find(instance, meta);
    uint64_t now_ns = clock_monotonic_ns();
    if (!invocation) {
        /* What was given up may answer still. */
        if (!instance->spent)
            not_asked_for(instance);
        return;
    }
    if (header->flags & FRAME_FLAG_AREA)
        hear_of_area(instance);
    if (header->type == FRAME_RESULT) {
        take_result(instance, invocation);
    } else {
        outcome_from_handler_error(&invocation->execution, body, header->body_len);
    }
    output_drain(instance->output);
    measure(invocation, now_ns);
    finish(invocation, header->flags & FRAME_FLAG_DIRTY ? INSTANCE_SPENT : INSTANCE_USABLE);
}

static void take_log(struct instance *instance, const struct frame_header *header, const char *meta,
                     const char *body)
{
    struct invocation *invocation = find(instance, meta);
    if (invocation)
        log_tail_append(log_of(invocation), body, header->body_len);
}

static void take_adapter_exit(struct instance *instance, const struct frame_header *header,
                              const char *meta)
{
    if (instance->adapter) {
        channel_read(instance->adapter);
        if (instance->state != INSTANCE_BUSY)
            return;
    }
    finish_all(instance, &(struct ending){.header = header, .meta = meta, .may_retry = true});
}

void instance_run_frame(struct instance *instance, const struct frame_header *header,
                        const char *meta, const char *body)
{
    if (header->type == FRAME_EXIT && !instance->handler)
        take_exit(instance, header, meta);
    else if (header->type == FRAME_RESULT || header->type == FRAME_ERROR)
        take_answer(instance, header, meta, body);
    else if (header->type == FRAME_LOG)
        take_log(instance, header, meta, body);
    else if (header->type == FRAME_ADAPTER_EXIT)
        take_adapter_exit(instance, header, meta);
    else
        not_asked_for(instance);
}

bool instance_run_shared_log(void *data, const char *text, size_t len)
{
    struct instance *instance = data;
    struct invocation *invocation;
    if (instance->places == 1 || instance->call_count == 0)
        return false;
    TAILQ_FOREACH(invocation, &instance->calls, run.calls)
    log_tail_append(&invocation->run.log, text, len);
    return true;
}

static void on_exit_grace(void *data)
{
    finish_all(
        data, &(struct ending){
                  .status = EXECUTION_FAILED,
                  .type = "Function.ProtocolError",
                  .message = "the function closed its connection before it had returned a result"});
}

/* faas-init says in a moment how the adapter ended. */
static void await_exit(struct instance *instance)
{
    struct invocation *invocation;
    TAILQ_FOREACH(invocation, &instance->calls, run.calls)
    {
        loop_timer_stop(invocation->run.deadline);
        invocation->run.deadline = NULL;
    }
    instance->spent = true;
    instance->deadline =
        loop_timer_start(instance->loop, EXIT_GRACE_MS, 0, on_exit_grace, instance, NULL);
}

void instance_run_closed(struct instance *instance, bool control, const struct error *why)
{
    if (!control) {
        await_exit(instance);
        return;
    }
    autofree char *message = string_printf("the instance ended unexpectedly: %s", why->message);
    finish_all(instance, &(struct ending){.status = EXECUTION_FAILED,
                                          .type = "Platform.InstanceEnded",
                                          .message = message ? message : "",
                                          .not_its_fault = true,
                                          .may_retry = true});
}

/* ---- one invocation's begin ---- */

/* The function may go on with it for as long as its process lives. */
static void give_up(struct invocation *invocation)
{
    finish_failed(invocation, invocation->run.queued ? INSTANCE_USABLE : INSTANCE_SPENT);
}

static void on_deadline(void *data)
{
    struct invocation *invocation = data;
    outcome_fail(&invocation->execution, EXECUTION_TIMED_OUT, "Function.TimedOut",
                 "the function did not finish within %llu ms",
                 (unsigned long long)invocation->timeout_ms);
    give_up(invocation);
}

static void on_log_timer(void *data)
{
    struct invocation *invocation = data;
    struct instance *instance = invocation->instance;
    struct invocation_run *run = &invocation->run;
    with_cleanup(buffer_deinit) struct buffer text = BUFFER_INIT(instance->limits.log_max + 1);
    if (log_tail_since(log_of(invocation), &run->log_offset, &text, NULL) < 0 || text.len == 0)
        return;
    instance->events.log(instance->data, invocation, run->log_offset - text.len, text.data,
                         text.len);
}

static void on_send_failed(void *data)
{
    finish(data, INSTANCE_RETRY);
}

/* Goes to another instance, in a moment, because it may not be over inside of instance_run(). */
static void send_failed(struct invocation *invocation)
{
    struct instance *instance = invocation->instance;
    invocation->run.unsendable = true;
    instance->spent = true;
    loop_timer_stop(invocation->run.deadline);
    invocation->run.deadline =
        loop_timer_start(instance->loop, 0, 0, on_send_failed, invocation, NULL);
}

/* The adapter has asked for it, and gets it now or never. */
static void pass_area(struct instance *instance)
{
    const struct instance_limits *limits = &instance->limits;
    size_t body_max =
        limits->payload_max > limits->result_max ? limits->payload_max : limits->result_max;
    size_t size = body_area_size(body_max, instance->spec->memory_mb);
    struct error err = {0};
    instance->wants_area = false;
    struct body_area *area = size > 0 ? body_area_new(size, &err) : NULL;
    if (area)
        channel_pass_area(instance->adapter, area);
    else if (size > 0)
        log_warn("large bodies of an instance go over its socket",
                 LOG_STR("instance", instance->id), LOG_ERR(&err));
}

static void send_invoke(struct invocation *invocation)
{
    struct instance *instance = invocation->instance;
    if (instance->wants_area)
        pass_area(instance);
    /* The channel counts as sending after a failure, too: whom it was sending before has all of it. */
    instance->sending = invocation;
    struct channel *channel = channel_of(instance);
    const char *payload = invocation->payload_at ? invocation->payload_at : invocation->payload;
    int status = channel_send(channel, FRAME_INVOKE, (uint32_t)invocation->timeout_ms,
                              invocation->execution.id, payload, invocation->payload_len, NULL);
    if (status < 0 || channel_sending(channel))
        invocation_keep_payload(invocation);
    invocation->payload_at = NULL; /* else all of it is sent */
    if (status < 0)
        send_failed(invocation);
    else if (channel_sending(channel))
        channel_move_body(channel, invocation->payload);
}

void instance_run_sent(struct instance *instance)
{
    struct invocation *next;
    free(instance->given_up);
    instance->given_up = NULL;
    while (!channel_sending(instance->adapter) && (next = TAILQ_FIRST(&instance->unsent))) {
        TAILQ_REMOVE(&instance->unsent, next, run.unsent);
        next->run.queued = false;
        send_invoke(next);
    }
}

static int thaw(struct instance *instance)
{
    struct error err = {0};
    if (instance->runtime->ops->freeze(instance->runtime_instance, false, &err) == 0)
        return 0;
    log_error("instance cannot be thawed", LOG_STR("instance", instance->id), LOG_ERR(&err));
    return -1;
}

/* idle -> busy, with nothing of what was before. */
static void wake(struct instance *instance)
{
    instance_move(instance, INSTANCE_BUSY);
    output_begin(instance->output);
    instance->runtime->ops->reset_usage(instance->runtime_instance);
}

static void attach(struct instance *instance, struct invocation *invocation)
{
    struct invocation_run *run = &invocation->run;
    invocation->instance = instance;
    *run = (struct invocation_run){0};
    if (instance->places > 1 && instance->call_count == 0) {
        run->log = *output_log(instance->output); /* what it wrote while it was loaded */
        log_tail_init(output_log(instance->output), instance->limits.log_max);
    } else if (instance->places > 1) {
        log_tail_init(&run->log, instance->limits.log_max);
    }
    TAILQ_INSERT_TAIL(&instance->calls, invocation, run.calls);
    instance->call_count++;
}

static void send_or_queue(struct instance *instance, struct invocation *invocation)
{
    if (instance->places == 1 || !channel_sending(instance->adapter)) {
        send_invoke(invocation);
        return;
    }
    invocation->run.queued = true;
    TAILQ_INSERT_TAIL(&instance->unsent, invocation, run.unsent);
}

void instance_run(struct instance *instance, struct invocation *invocation)
{
    bool runs = instance->state != INSTANCE_FROZEN || thaw(instance) == 0;
    struct invocation_run *run = &invocation->run;
    assert(instance_free_places(instance) > 0);
    if (instance->state != INSTANCE_BUSY)
        wake(instance);
    attach(instance, invocation);
    if (instance->measured) /* it is given to this one while its last one ends */
        run->before = instance->usage;
    else
        instance->runtime->ops->usage(instance->runtime_instance, &run->before, NULL);
    invocation->execution.started_at_ns = clock_realtime_ns();
    run->sent_ns = clock_monotonic_ns();
    if (!runs) {
        send_failed(invocation);
        return;
    }
    send_or_queue(instance, invocation);
    /* One more, because the loop's clock stands while it works, and counts whole milliseconds. */
    if (!run->deadline)
        run->deadline = loop_timer_start(instance->loop, invocation->timeout_ms + 1, 0, on_deadline,
                                         invocation, NULL);
    if (instance->events.log)
        run->log_timer = loop_timer_start(instance->loop, LOG_INTERVAL_MS, LOG_INTERVAL_MS,
                                          on_log_timer, invocation, NULL);
}

void instance_abort(struct invocation *invocation, enum execution_status status, const char *type,
                    const char *message)
{
    outcome_fail(&invocation->execution, status, type, "%s", message);
    give_up(invocation);
}

void instance_abort_all(struct instance *instance, enum execution_status status, const char *type,
                        const char *message)
{
    assert(instance->state == INSTANCE_BUSY);
    finish_all(instance, &(struct ending){.status = status, .type = type, .message = message});
}
