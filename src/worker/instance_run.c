/* One invocation in an instance: send it, watch the clock, make the execution from what comes. */
#include "base/cleanup.h"
#include "base/log.h"
#include "base/loop.h"
#include "worker/instance_internal.h"
#include "worker/outcome.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

/* Logs of invocations that run longer than this are sent while they run. */
#define LOG_INTERVAL_MS 200
/* How long faas-init may take to say how the adapter ended. */
#define EXIT_GRACE_MS 1000

static void measure(struct instance *instance, uint64_t now_ns)
{
    struct execution *execution = &instance->invocation->execution;
    struct execution_metrics *metrics = &execution->metrics;
    const struct runtime_usage *before = &instance->before;
    struct runtime_usage after = instance->before;
    metrics->duration = now_ns - instance->sent_ns;
    if (instance->runtime->ops->usage(instance->runtime_instance, &after, NULL) < 0)
        return;
    metrics->memory_peak = after.memory_peak_bytes;
    metrics->cpu_time = after.cpu_ns - before->cpu_ns;
    metrics->network_in = after.network_in_bytes - before->network_in_bytes;
    metrics->network_out = after.network_out_bytes - before->network_out_bytes;
    instance_check_memory(instance, execution, before, &after);
}

/* The invocation is over; its status and error are set. */
static void finish(struct instance *instance, enum instance_after after)
{
    struct invocation *invocation = instance->invocation;
    struct execution *execution = &invocation->execution;
    loop_timer_stop(instance->deadline);
    loop_timer_stop(instance->log_timer);
    instance->deadline = instance->log_timer = NULL;
    execution->finished_at_ns = clock_realtime_ns();
    free(execution->logs);
    execution->logs = output_take_log(instance->output, &execution->logs_len);
    if (execution->status == EXECUTION_OUT_OF_MEMORY || channel_sending(instance->control) ||
        (instance->adapter && channel_sending(instance->adapter)))
        after = after == INSTANCE_USABLE ? INSTANCE_SPENT : after;
    instance->invocation = NULL;
    if (after == INSTANCE_USABLE)
        instance_move(instance, INSTANCE_IDLE);
    instance->events.finished(instance->data, instance, invocation, after);
}

/* What contract `process` wrote to stdout, when it did not become the result, is worth seeing. */
static void stdout_to_log(struct instance *instance)
{
    size_t len;
    const char *text = output_stdout(instance->output, &len);
    output_log_append(instance->output, text, len);
}

/* Fails the invocation with the error that is set in its execution. */
static void finish_failed(struct instance *instance, enum instance_after after)
{
    uint64_t now_ns = clock_monotonic_ns();
    output_drain(instance->output);
    measure(instance, now_ns);
    stdout_to_log(instance);
    finish(instance, after);
}

static void too_large(struct execution *execution, size_t max)
{
    outcome_fail(execution, EXECUTION_FAILED, "Function.ResultTooLarge",
                 "the result is larger than the limit of %zu bytes", max);
}

void instance_run_too_large(struct instance *instance)
{
    too_large(&instance->invocation->execution, instance->limits.result_max);
    finish_failed(instance, INSTANCE_SPENT);
}

static void take_stdout(struct instance *instance)
{
    struct execution *execution = &instance->invocation->execution;
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
    free(execution->result);
    execution->result = outcome.result;
    execution->result_len = outcome.result_len;
    execution->result_base64 = outcome.base64;
    execution->status = EXECUTION_SUCCEEDED;
    output_log_append(instance->output, text, outcome.log_len);
}

/* Contract process: the program has ended. */
static void take_exit(struct instance *instance, const struct frame_header *header,
                      const char *meta)
{
    struct execution *execution = &instance->invocation->execution;
    enum instance_after after = header->flags & FRAME_FLAG_DIRTY ? INSTANCE_SPENT : INSTANCE_USABLE;
    uint64_t now_ns = clock_monotonic_ns();
    if (output_drain(instance->output) < 0)
        too_large(execution, instance->limits.result_max);
    else if (header->flags & FRAME_FLAG_NOT_STARTED)
        instance_describe_exit(execution, header, meta, "");
    else if (header->value == 0)
        take_stdout(instance);
    else
        outcome_from_wait_status(execution, (int)header->value);
    measure(instance, now_ns);
    if (execution->status != EXECUTION_SUCCEEDED)
        stdout_to_log(instance);
    finish(instance, after);
}

/* Contract handler: it has returned, or raised an exception. */
static void take_answer(struct instance *instance, const struct frame_header *header,
                        const char *body)
{
    struct execution *execution = &instance->invocation->execution;
    uint64_t now_ns = clock_monotonic_ns();
    if (header->type == FRAME_RESULT) {
        size_t len = 0;
        char *result = channel_take_body(instance->adapter, &len);
        outcome_from_handler_result(execution, result, len, instance->limits.result_max);
    } else {
        outcome_from_handler_error(execution, body, header->body_len);
    }
    output_drain(instance->output);
    measure(instance, now_ns);
    finish(instance, INSTANCE_USABLE);
}

static void take_adapter_exit(struct instance *instance, const struct frame_header *header,
                              const char *meta)
{
    if (instance->adapter) {
        channel_read(instance->adapter);
        if (instance->state != INSTANCE_BUSY)
            return;
        if (channel_sending(instance->adapter)) {
            finish(instance, INSTANCE_RETRY);
            return;
        }
    }
    instance_describe_exit(&instance->invocation->execution, header, meta,
                           "before it had returned a result");
    finish_failed(instance, INSTANCE_SPENT);
}

void instance_run_frame(struct instance *instance, const struct frame_header *header,
                        const char *meta, const char *body)
{
    struct execution *execution = &instance->invocation->execution;
    if (header->type == FRAME_EXIT && !instance->handler)
        take_exit(instance, header, meta);
    else if (header->type == FRAME_RESULT || header->type == FRAME_ERROR)
        take_answer(instance, header, body);
    else if (header->type == FRAME_ADAPTER_EXIT)
        take_adapter_exit(instance, header, meta);
    else {
        outcome_fail(execution, EXECUTION_FAILED, "Function.ProtocolError",
                     "the instance sent what was not asked for");
        finish_failed(instance, INSTANCE_SPENT);
    }
}

static void on_exit_grace(void *data)
{
    struct instance *instance = data;
    outcome_fail(&instance->invocation->execution, EXECUTION_FAILED, "Function.ProtocolError",
                 "the function closed its connection before it had returned a result");
    finish_failed(instance, INSTANCE_SPENT);
}

void instance_run_closed(struct instance *instance, bool control, const struct error *why)
{
    struct channel *channel = instance->handler ? instance->adapter : instance->control;
    if (!control) {
        /* faas-init says in a moment how the adapter ended. */
        loop_timer_stop(instance->deadline);
        instance->deadline =
            loop_timer_start(instance->loop, EXIT_GRACE_MS, 0, on_exit_grace, instance, NULL);
        return;
    }
    if (channel_sending(channel)) {
        finish(instance, INSTANCE_RETRY);
        return;
    }
    struct execution *execution = &instance->invocation->execution;
    outcome_fail(execution, EXECUTION_FAILED, "Platform.InstanceEnded",
                 "the instance ended unexpectedly: %s", why->message);
    output_drain(instance->output);
    measure(instance, clock_monotonic_ns());
    /* Unless it was for a lack of memory, it is not the function's failure. */
    if (execution->status == EXECUTION_FAILED)
        execution->status = EXECUTION_LOST;
    stdout_to_log(instance);
    finish(instance, INSTANCE_SPENT);
}

static void on_deadline(void *data)
{
    struct instance *instance = data;
    outcome_fail(&instance->invocation->execution, EXECUTION_TIMED_OUT, "Function.TimedOut",
                 "the function did not finish within %llu ms",
                 (unsigned long long)instance->invocation->timeout_ms);
    finish_failed(instance, INSTANCE_SPENT);
}

static void on_log_timer(void *data)
{
    struct instance *instance = data;
    with_cleanup(buffer_deinit) struct buffer text = BUFFER_INIT(instance->limits.log_max + 1);
    if (output_log_since(instance->output, &instance->log_offset, &text, NULL) < 0 || text.len == 0)
        return;
    instance->events.log(instance->data, instance->invocation, instance->log_offset - text.len,
                         text.data, text.len);
}

static void on_send_failed(void *data)
{
    struct instance *instance = data;
    finish(instance, INSTANCE_RETRY);
}

static int thaw(struct instance *instance)
{
    struct error err = {0};
    if (instance->runtime->ops->freeze(instance->runtime_instance, false, &err) == 0)
        return 0;
    log_error("instance cannot be thawed", LOG_STR("instance", instance->id), LOG_ERR(&err));
    return -1;
}

void instance_run(struct instance *instance, struct invocation *invocation)
{
    bool runs = instance->state != INSTANCE_FROZEN || thaw(instance) == 0;
    struct channel *channel = instance->handler ? instance->adapter : instance->control;
    struct execution *execution = &invocation->execution;
    instance_move(instance, INSTANCE_BUSY);
    instance->invocation = invocation;
    instance->log_offset = 0;
    output_begin(instance->output);
    instance->before = (struct runtime_usage){0};
    instance->runtime->ops->reset_usage(instance->runtime_instance);
    instance->runtime->ops->usage(instance->runtime_instance, &instance->before, NULL);
    execution->started_at_ns = clock_realtime_ns();
    instance->sent_ns = clock_monotonic_ns();
    if (!runs ||
        channel_send(channel, FRAME_INVOKE, (uint32_t)invocation->timeout_ms, execution->id,
                     invocation->payload, invocation->payload_len, NULL) < 0) {
        instance->deadline = loop_timer_start(instance->loop, 0, 0, on_send_failed, instance, NULL);
        return;
    }
    /* One more, because the loop's clock stands while it works, and counts whole milliseconds. */
    instance->deadline = loop_timer_start(instance->loop, invocation->timeout_ms + 1, 0,
                                          on_deadline, instance, NULL);
    if (instance->events.log)
        instance->log_timer = loop_timer_start(instance->loop, LOG_INTERVAL_MS, LOG_INTERVAL_MS,
                                               on_log_timer, instance, NULL);
}

void instance_abort(struct instance *instance, enum execution_status status, const char *type,
                    const char *message)
{
    assert(instance->state == INSTANCE_BUSY);
    outcome_fail(&instance->invocation->execution, status, type, "%s", message);
    finish_failed(instance, INSTANCE_SPENT);
}
