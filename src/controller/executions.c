/* Executions in memory: see executions.h. */
#include "controller/executions.h"

#include "base/log.h"
#include "controller/admission.h"
#include "controller/answer.h"
#include "controller/controller.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Records wait so long for company before they are written. */
#define FLUSH_AFTER_MS 20
#define FLUSH_COUNT 256
#define FLUSH_BYTES ((size_t)8 * 1024 * 1024)
/* With so many records that the store has not taken yet, or with so many bytes of them as is set, new invocations are refused. */
#define UNWRITTEN_MAX 50000

void executions_init(struct executions *executions)
{
    memset(executions, 0, sizeof(*executions));
    list_init(&executions->finals);
}

static void free_execution(struct controller *controller, struct live_execution *execution)
{
    delivery_left_window(controller, execution);
    admission_give_place(controller, execution);
    string_map_remove(&controller->executions.by_id, execution->record.id);
    version_unref(&controller->registry, execution->version);
    execution_deinit(&execution->record);
    buffer_deinit(&execution->log);
    blob_unref(execution->payload);
    free(execution);
}

void executions_deinit(struct controller *controller)
{
    struct executions *executions = &controller->executions;
    loop_timer_stop(executions->flush_timer);
    executions->flush_timer = NULL;
    string_map_for_each(slot, &executions->by_id)
    {
        struct live_execution *execution = slot->value;
        execution_deinit(&execution->record);
        buffer_deinit(&execution->log);
        blob_unref(execution->payload);
        free(execution);
    }
    string_map_deinit(&executions->by_id);
}

struct live_execution *executions_find(const struct controller *controller, const char *id)
{
    return string_map_get(&controller->executions.by_id, id);
}

/* ---- beginning ---- */

static struct live_execution *new_execution(struct controller *controller, struct error *err)
{
    struct live_execution *execution = calloc(1, sizeof(*execution));
    if (!execution) {
        error_set(err, ERROR_INTERNAL, "out of memory");
        return NULL;
    }
    execution_init(&execution->record);
    buffer_init(&execution->log, (size_t)controller->config.log_max_bytes + LOG_LINE_MAX);
    list_init(&execution->queue_link);
    list_init(&execution->wait_link);
    list_init(&execution->owner_link);
    execution->accepted_ns = clock_monotonic_ns();
    return execution;
}

static int check_unwritten(struct controller *controller, struct error *err)
{
    size_t count = controller->executions.final_count + store_queue_length(controller->store);
    size_t bytes = controller->executions.final_bytes + store_queue_bytes(controller->store);
    if (count < UNWRITTEN_MAX && bytes < (size_t)controller->config.unwritten_max_mb * 1024 * 1024)
        return 0;
    return error_set(err, ERROR_THROTTLED,
                     "%zu records with %zu bytes wait to be written to the database, which is as "
                     "much as may; try again later",
                     count, bytes);
}

struct live_execution *executions_accept(struct controller *controller,
                                         struct function_version *version, struct blob *payload,
                                         bool async, struct error *err)
{
    struct live_execution *execution = NULL;
    int room =
        async ? delivery_check_room(controller, err)
              : dispatch_check_room(&controller->dispatch, version->function, payload->len, err);
    if (room < 0 || check_unwritten(controller, err) < 0)
        controller->metrics.throttled++;
    else if (async || admission_check_place(controller, version->function, err) == 0)
        execution = new_execution(controller, err);
    if (!execution) {
        blob_unref(payload);
        return NULL;
    }
    struct execution *record = &execution->record;
    time_id(record->id);
    record->function = strdup(version->function->name);
    record->version = version->record.spec.version;
    record->async = async;
    record->attempt = 1;
    record->created_at_ns = clock_realtime_ns();
    execution->payload = payload;
    if (!record->function ||
        string_map_put(&controller->executions.by_id, record->id, execution, err) < 0) {
        execution_deinit(record);
        blob_unref(payload);
        free(execution);
        error_set(err, ERROR_INTERNAL, "out of memory");
        return NULL;
    }
    execution->version = version_ref(version);
    if (!async)
        admission_take_place(execution);
    return execution;
}

struct live_execution *executions_take_up(struct controller *controller, struct execution *record,
                                          char *payload, size_t payload_len, struct error *err)
{
    struct live_execution *execution = new_execution(controller, err);
    if (execution)
        execution->payload = blob_new(payload, payload_len);
    if (!execution || !execution->payload) {
        error_set(err, ERROR_INTERNAL, "out of memory");
        free(execution);
        free(payload);
        return NULL;
    }
    execution->record = *record;
    execution_init(record);
    if (string_map_put(&controller->executions.by_id, execution->record.id, execution, err) == 0)
        return execution;
    execution_deinit(&execution->record);
    blob_unref(execution->payload);
    free(execution);
    return NULL;
}

void executions_discard(struct controller *controller, struct live_execution *execution)
{
    free_execution(controller, execution);
}

void executions_started(struct controller *controller, struct live_execution *execution,
                        struct worker_session *session)
{
    struct execution *record = &execution->record;
    execution->dispatched_ns = clock_monotonic_ns();
    execution->session = session;
    execution->stream_number = session->stream_number;
    execution->stream_message = session->stream ? session->stream->given : 0;
    execution->delivered = false;
    execution->interrupted = false;
    execution->code_unknown = !string_map_get(&session->dispatch.warm, execution->version->key);
    delivery_left_window(controller, execution);
    list_append(&session->running, &execution->owner_link);
    session->dispatch.busy++;
    session->dispatch.free_slots--;
    admission_take_place(execution);
    dispatch_begun(&controller->dispatch, execution);
    dispatch_warm_adjust(&session->dispatch, execution->version->key, -1);
    controller->executions.running++;

    execution_error_deinit(&record->error); /* of the attempt before */
    record->has_error = false;
    record->status = EXECUTION_RUNNING;
    record->started_at_ns = clock_realtime_ns();
    record->metrics.queue_time = execution->dispatched_ns - execution->accepted_ns;
    free(record->worker);
    record->worker = strdup(session->name);
    if (record->async) {
        store_start_execution(controller->store, controller->delivery.owner, record->id,
                              record->attempt, record->delivery.losses, record->started_at_ns, NULL,
                              NULL);
    } else {
        blob_unref(execution->payload);
        execution->payload = NULL;
    }
}

void executions_adopt(struct controller *controller, struct live_execution *execution,
                      struct worker_session *session)
{
    dispatch_remove(&controller->dispatch, execution);
    execution->record.attempt--;
    execution->record.delivery.losses--;
    executions_started(controller, execution, session);
    execution->delivered = true;
    log_info("an execution goes on at its worker", LOG_STR("execution", execution->record.id),
             LOG_STR("worker", session->name), LOG_INT("attempt", execution->record.attempt));
}

/* ---- end ---- */

static void flush_due(void *data)
{
    executions_flush(data);
}

static void written(void *data, const struct error *err)
{
    struct controller *controller = data;
    if (!err)
        return;
    if (controller->metrics.records_failed++ % 1000 == 0)
        log_error("an execution's record could not be written", LOG_ERR(err),
                  LOG_INT("failed_so_far", (int64_t)controller->metrics.records_failed));
}

void executions_flush(struct controller *controller)
{
    struct executions *executions = &controller->executions;
    loop_timer_stop(executions->flush_timer);
    executions->flush_timer = NULL;
    bool tells = false;
    list_for_each(link, &executions->finals)
    {
        struct live_execution *execution = list_entry(link, struct live_execution, owner_link);
        list_remove(link);
        executions->handed_over++;
        tells = tells || execution->record.delivery.has_callback;
        string_map_remove(&executions->by_id, execution->record.id);
        if (execution->record.async)
            store_finish_execution(controller->store, controller->delivery.owner,
                                   &execution->record, written, controller);
        else
            store_put_execution(controller->store, &execution->record, written, controller);
        free(execution);
    }
    executions->final_count = 0;
    executions->final_bytes = 0;
    if (tells)
        callbacks_look(controller);
}

/* What is no longer needed goes now; the record waits for company, unless a worker waits for the room that its result takes. */
static void keep_final(struct controller *controller, struct live_execution *execution)
{
    struct executions *executions = &controller->executions;
    bool held = execution->record.shared && execution->record.shared->foreign;
    delivery_left_window(controller, execution);
    admission_give_place(controller, execution);
    version_unref(&controller->registry, execution->version);
    execution->version = NULL;
    blob_unref(execution->payload);
    execution->payload = NULL;
    buffer_deinit(&execution->log);
    list_append(&executions->finals, &execution->owner_link);
    executions->final_count++;
    executions->final_bytes += execution->record.result_len + execution->record.logs_len;
    if (executions->final_count >= FLUSH_COUNT || executions->final_bytes >= FLUSH_BYTES || held)
        executions_flush(controller);
    else if (!executions->flush_timer)
        executions->flush_timer =
            loop_timer_start(&controller->loop, FLUSH_AFTER_MS, 0, flush_due, controller, NULL);
}

static void leave_session(struct controller *controller, struct live_execution *execution)
{
    if (!execution->session)
        return;
    session_execution_ended(execution->session, execution);
    execution->session = NULL;
    dispatch_ended(&controller->dispatch, execution);
    if (execution->record.async)
        admission_give_place(controller, execution);
    controller->executions.running--;
}

void executions_detach(struct controller *controller, struct live_execution *execution)
{
    leave_session(controller, execution);
    if (!list_empty(&execution->queue_link))
        dispatch_remove(&controller->dispatch, execution);
    list_remove(&execution->owner_link);
    delivery_left_window(controller, execution);
}

void executions_put_back(struct controller *controller, struct live_execution *execution,
                         uint64_t due_ns)
{
    executions_detach(controller, execution);
    string_map_remove(&controller->executions.by_id, execution->record.id);
    controller->delivery.stored++;
    store_retry_execution(controller->store, controller->delivery.owner, &execution->record, due_ns,
                          NULL, NULL);
    free_execution(controller, execution);
}

void executions_finish(struct controller *controller, struct live_execution *execution)
{
    struct execution *record = &execution->record;
    assert(execution_status_final(record->status));
    if (record->async && delivery_retry(controller, execution))
        return;
    leave_session(controller, execution);
    record->finished_at_ns = clock_realtime_ns();
    metrics_execution_finished(&controller->metrics, record);
    if (log_enabled(LOG_LEVEL_DEBUG))
        log_debug("execution finished", LOG_STR("execution", record->id),
                  LOG_STR("function", record->function),
                  LOG_STR("status", execution_status_name(record->status)));
    if (execution->request)
        answer_execution(execution);
    keep_final(controller, execution);
}

void executions_fail(struct controller *controller, struct live_execution *execution,
                     enum execution_status status, const char *type, const char *format, ...)
{
    struct execution *record = &execution->record;
    char message[512];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(message, sizeof(message), format, arguments);
    va_end(arguments);

    execution_error_deinit(&record->error);
    record->error =
        (struct execution_error){.type = strdup(type), .message = strdup(message), .exit_code = -1};
    record->has_error = true;
    record->status = status;
    if (execution->log.len > 0 && !record->logs)
        record->logs = buffer_take(&execution->log, &record->logs_len);
    executions_finish(controller, execution);
}

static void requeue(struct controller *controller, struct live_execution *execution)
{
    struct execution *record = &execution->record;
    leave_session(controller, execution);
    record->attempt++;
    record->delivery.losses++;
    record->status = EXECUTION_QUEUED;
    record->started_at_ns = 0;
    free(record->worker);
    record->worker = NULL;
    buffer_clear(&execution->log);
    execution->log_seen = 0;
    execution->line_pending = 0;
    execution->interrupted = true;
    dispatch_enqueue_first(&controller->dispatch, execution);
}

void executions_worker_lost(struct controller *controller, struct live_execution *execution,
                            const char *why)
{
    struct execution *record = &execution->record;
    if (record->async && record->delivery.losses + 1 < controller->config.async_attempts &&
        execution->version->function->newest) {
        log_warn("an execution's worker is lost; it is queued again",
                 LOG_STR("execution", record->id), LOG_STR("worker", record->worker),
                 LOG_INT("attempt", record->attempt), LOG_STR("reason", why));
        requeue(controller, execution);
        return;
    }
    executions_fail(
        controller, execution, EXECUTION_LOST, "Platform.WorkerLost",
        "worker %s was lost while it ran this: %s; whether the function had an effect is "
        "not known",
        record->worker ? record->worker : "", why);
}
