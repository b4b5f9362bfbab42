/* Stopping: see drain.h. */
#include "controller/drain.h"

#include "base/log.h"
#include "base/notify.h"
#include "controller/controller.h"

#include <stdlib.h>

#define NS_PER_MS 1000000ULL
/* Running asynchronous executions are waited for so long; most end by then. */
#define ASYNC_WAIT_NS (1000 * NS_PER_MS)
/* A connection that has been silent for so long is not just about to bring a request. */
#define SILENT_NS (1000 * NS_PER_MS)

bool drain_refuses(const struct controller *controller)
{
    return controller->draining && !controller->listener_kept;
}

/* Asynchronous executions that wait are in the store: the next controller takes them up. */
static void set_async_aside(struct controller *controller)
{
    string_map_for_each(slot, &controller->executions.by_id)
    {
        struct live_execution *execution = slot->value;
        if (execution->record.async && !list_empty(&execution->queue_link))
            dispatch_remove(&controller->dispatch, execution);
    }
}

void drain_begin(struct controller *controller)
{
    if (controller->draining) { /* asked twice: now */
        controller->drain_deadline_ns = 0;
        return;
    }
    log_info("stopping: finishing what is under way",
             LOG_INT("running", (int64_t)controller->executions.running),
             LOG_INT("queued", (int64_t)controller->dispatch.length));
    notify_stopping(controller->notify);
    controller->draining = true;
    controller->drain_began_ns = clock_monotonic_ns();
    controller->drain_deadline_ns =
        controller->drain_began_ns + (uint64_t)controller->config.drain_ms * NS_PER_MS;
    set_async_aside(controller);
    log_followers_end(controller);
    if (controller->listener_kept)
        http_server_pause(controller->server);
}

/* ---- what is waited for ---- */

/* What workers are at. */
struct running {
    size_t sync, async;
    size_t
        stranded; /* synchronous ones that may need a new connection of their worker's before they can end */
};

static void count_running(const struct controller *controller, struct running *running)
{
    list_for_each(link, &controller->sessions.all)
    {
        const struct worker_session *session =
            (struct worker_session *)list_entry(link, struct dispatch_worker, link);
        list_for_each(own, &session->running)
        {
            const struct live_execution *execution =
                list_entry(own, struct live_execution, owner_link);
            if (execution->record.async)
                running->async++;
            else
                running->sync++;
            running->stranded +=
                !execution->record.async && (execution->code_unknown || !session->stream);
        }
    }
}

static bool has_reachable_worker(const struct controller *controller)
{
    list_for_each(link, &controller->sessions.all)
    {
        if (list_entry(link, struct dispatch_worker, link)->reachable)
            return true;
    }
    return false;
}

/* A worker that dials anew, or that fetches code for an invocation under way, does not wait for the next controller. */
static void let_workers_in(struct controller *controller, const struct running *running)
{
    bool waiting = !list_empty(&controller->dispatch.waiting);
    if (running->stranded > 0 || (waiting && !has_reachable_worker(controller)))
        http_server_accept_waiting(controller->server);
}

static bool is_busy(struct controller *controller)
{
    bool busy = controller->executions.committing > 0 || controller->pending_reads > 0 ||
                controller->deploys > 0;
    if (!controller->listener_kept)
        return busy || controller->executions.running > 0 || controller->dispatch.length > 0;
    struct running running = {0};
    count_running(controller, &running);
    let_workers_in(controller, &running);
    http_server_close_idle(controller->server, SILENT_NS);
    bool moment = clock_monotonic_ns() < controller->drain_began_ns + ASYNC_WAIT_NS;
    return busy || running.sync > 0 || (running.async > 0 && moment) ||
           !list_empty(&controller->dispatch.waiting) ||
           http_server_connections(controller->server) > 0;
}

void drain_tick(struct controller *controller)
{
    if (is_busy(controller) && clock_monotonic_ns() < controller->drain_deadline_ns)
        return;
    controller->stopped = true;
    uv_stop(&controller->loop);
}

/* Clients get an honest answer, records say so. Asynchronous ones go on at the next start. */
void drain_give_up_rest(struct controller *controller)
{
    struct string_map *all = &controller->executions.by_id;
    struct live_execution **rest = calloc(all->count + 1, sizeof(*rest));
    size_t count = 0;
    if (!rest)
        return;
    string_map_for_each(slot, all)
    {
        struct live_execution *execution = slot->value;
        if (!execution->record.async && !execution_status_final(execution->record.status))
            rest[count++] = execution;
    }
    for (size_t i = 0; i < count; i++) {
        bool queued = rest[i]->record.status == EXECUTION_QUEUED;
        if (queued)
            dispatch_remove(&controller->dispatch, rest[i]);
        executions_fail(controller, rest[i], queued ? EXECUTION_CANCELLED : EXECUTION_LOST,
                        queued ? "Platform.NoCapacity" : "Platform.ControllerStopped",
                        "the controller was stopped before this ended");
    }
    free(rest);
}
