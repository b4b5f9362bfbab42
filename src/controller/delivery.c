/* Delivery of asynchronous invocations: see delivery.h. Acceptance is in delivery_accept.c. */
#include "controller/delivery_internal.h"

#include "base/log.h"
#include "controller/controller.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NS_PER_MS 1000000ULL
/* What waits is looked for so often, for want of better news. */
#define READ_EVERY_MS 1000
#define READ_AGAIN_MS 5
#define COUNT_EVERY_NS (10000 * NS_PER_MS)
#define COUNT_AGAIN_NS (1000 * NS_PER_MS) /* when it is known to be wrong, or most likely is */
#define BACKOFF_MAX_MS ((uint64_t)3600 * 1000)

static void read_due(void *data);

/* ---- looking for work ---- */

static void arm_read(struct controller *controller, uint64_t after_ms)
{
    struct delivery *delivery = &controller->delivery;
    loop_timer_stop(delivery->read_timer);
    delivery->read_at_ns = clock_monotonic_ns() + after_ms * NS_PER_MS;
    delivery->read_timer =
        loop_timer_start(&controller->loop, after_ms, 0, read_due, controller, NULL);
}

static uint64_t until_ms(uint64_t due_ns)
{
    uint64_t now_ns = clock_realtime_ns();
    uint64_t wait_ms = due_ns > now_ns ? (due_ns - now_ns) / NS_PER_MS + 1 : READ_AGAIN_MS;
    return due_ns && wait_ms < READ_EVERY_MS ? wait_ms : READ_EVERY_MS;
}

static void counted(void *data, int64_t count, const struct error *err)
{
    struct controller *controller = data;
    controller->delivery.counting = false;
    if (!err)
        controller->delivery.stored = (size_t)count;
}

/* Counting ends where nothing more is accepted anyway. */
static int64_t count_limit(const struct controller *controller)
{
    return controller->config.async_queue_length + 1;
}

/* What others accept and take, and what is due later, is not seen from here. */
static void count_when_due(struct controller *controller, bool wrong)
{
    struct delivery *delivery = &controller->delivery;
    uint64_t now_ns = clock_monotonic_ns();
    uint64_t pause_ns = wrong ? COUNT_AGAIN_NS : COUNT_EVERY_NS;
    if (delivery->counting || now_ns - delivery->counted_ns < pause_ns)
        return;
    delivery->counting = true;
    delivery->counted_ns = now_ns;
    store_count_free(controller->store, count_limit(controller), counted, controller);
}

static void backlog_came(void *data, const char *const *functions, size_t count,
                         const char *next_after, uint64_t next_due_ns, const struct error *err)
{
    struct controller *controller = data;
    struct delivery *delivery = &controller->delivery;
    if (delivery->stopped)
        return;
    delivery->reading = false;
    bool whole = !delivery->read_after[0] && !next_after;
    snprintf(delivery->read_after, sizeof(delivery->read_after), "%s",
             next_after ? next_after : "");
    delivery->read_again |= next_after != NULL;
    count_when_due(controller, !err && whole && count == 0 && delivery->stored > 0);
    for (size_t i = 0; i < count; i++) {
        struct function_entry *function = registry_find(&controller->registry, functions[i]);
        if (!function)
            continue;
        function->stored = true;
        delivery_claim(controller, function);
    }
    arm_read(controller, delivery->read_again ? READ_AGAIN_MS : until_ms(next_due_ns));
    delivery->read_again = false;
}

static void read_due(void *data)
{
    struct controller *controller = data;
    struct delivery *delivery = &controller->delivery;
    loop_timer_stop(delivery->read_timer);
    delivery->read_timer = NULL;
    delivery->reading = true;
    store_read_backlog(controller->store, clock_realtime_ns(),
                       delivery->read_after[0] ? delivery->read_after : NULL, backlog_came,
                       controller);
}

/* Only ever sooner: who asks again and again must not put it off. */
void delivery_look(struct controller *controller)
{
    struct delivery *delivery = &controller->delivery;
    if (delivery->reading)
        delivery->read_again = true;
    else if (!delivery->read_timer ||
             delivery->read_at_ns > clock_monotonic_ns() + READ_AGAIN_MS * NS_PER_MS)
        arm_read(controller, READ_AGAIN_MS);
}

/* ---- beginning ---- */

bool delivery_lease_holds(const struct controller *controller)
{
    const struct delivery *delivery = &controller->delivery;
    return !delivery->shared || clock_monotonic_ns() < delivery->lease_until_ns;
}

static bool is_too_old(const struct live_execution *execution, uint64_t at_ns)
{
    uint64_t max_age_ns = (uint64_t)execution->version->record.spec.retry.max_age_ms * NS_PER_MS;
    uint64_t from_ns = execution->record.delivery.aged_from_ns;
    return at_ns > from_ns && at_ns - from_ns > max_age_ns;
}

bool delivery_may_begin(struct controller *controller, struct live_execution *execution)
{
    if (!execution->record.async)
        return true;
    if (is_too_old(execution, clock_realtime_ns())) {
        executions_fail(controller, execution, EXECUTION_CANCELLED, "Platform.TooOld",
                        "it waited for longer than the function's retry.max_age_ms (%lld)",
                        (long long)execution->version->record.spec.retry.max_age_ms);
        return false;
    }
    if (delivery_lease_holds(controller))
        return true;
    delivery_left_window(controller, execution);
    list_append(&controller->delivery.set_aside, &execution->owner_link);
    return false;
}

void delivery_left_window(struct controller *controller, struct live_execution *execution)
{
    if (!execution->in_window)
        return;
    execution->in_window = false;
    execution->version->function->window--;
    controller->delivery.window--;
    delivery_claim(controller, execution->version->function);
}

/* ---- after a failure ---- */

static bool is_own_failure(enum execution_status status)
{
    return status == EXECUTION_FAILED || status == EXECUTION_TIMED_OUT ||
           status == EXECUTION_OUT_OF_MEMORY;
}

/* Between half and the whole of a pause that doubles with each failure. */
static uint64_t backoff_ms(const struct function_retry *retry, int64_t failures)
{
    uint64_t ms = (uint64_t)retry->backoff_ms;
    for (int64_t i = 1; i < failures && ms < BACKOFF_MAX_MS; i++)
        ms *= 2;
    if (ms > BACKOFF_MAX_MS)
        ms = BACKOFF_MAX_MS;
    return ms / 2 + (uint64_t)random() % (ms / 2 + 1);
}

bool delivery_retry(struct controller *controller, struct live_execution *execution)
{
    struct execution *record = &execution->record;
    if (!execution->version)
        return false;
    const struct function_retry *retry = &execution->version->record.spec.retry;
    bool own = is_own_failure(record->status);
    /* A worker that could not run it: as often as workers may be lost. */
    bool lost = record->status == EXECUTION_LOST &&
                record->delivery.losses + 1 < controller->config.async_attempts;
    bool old = record->status == EXECUTION_CANCELLED && is_too_old(execution, clock_realtime_ns());
    if (!own && record->status != EXECUTION_LOST && !old)
        return false;
    record->delivery.failures += own;
    record->delivery.losses += lost;
    int64_t times = own ? record->delivery.failures : record->delivery.losses;
    bool again = own ? times < retry->max_attempts : lost;
    uint64_t due_ns = clock_realtime_ns() + backoff_ms(retry, times) * NS_PER_MS;
    if (!again || !execution->version->function->newest || is_too_old(execution, due_ns)) {
        record->delivery.dead_at_ns = clock_realtime_ns();
        controller->metrics.dead_letters++;
        return false;
    }
    controller->metrics.retries++;
    record->attempt++;
    executions_put_back(controller, execution, due_ns);
    delivery_look(controller);
    return true;
}

/* ---- leases ---- */

/* Forgets what the store no longer has as ours. What workers are at is cancelled when their next poll names it. */
static void forget_all(struct controller *controller)
{
    struct string_map *all = &controller->executions.by_id;
    struct live_execution **lost = calloc(all->count + 1, sizeof(*lost));
    size_t count = 0;
    if (!lost)
        return;
    string_map_for_each(slot, all)
    {
        struct live_execution *execution = slot->value;
        if (execution->record.async && !execution_status_final(execution->record.status) &&
            !execution->committing)
            lost[count++] = execution;
    }
    for (size_t i = 0; i < count; i++) {
        executions_detach(controller, lost[i]);
        executions_discard(controller, lost[i]);
    }
    free(lost);
    log_warn("the lease has ended: what was accepted goes to other controllers",
             LOG_INT("executions", (int64_t)count));
}

static void begin_set_aside(struct controller *controller)
{
    list_for_each(link, &controller->delivery.set_aside)
    {
        struct live_execution *execution = list_entry(link, struct live_execution, owner_link);
        list_remove(link);
        dispatch_enqueue_first(&controller->dispatch, execution);
    }
    controller_dispatch(controller);
}

static uint64_t lease_ns(const struct controller *controller)
{
    return (uint64_t)controller->config.lease_ms * NS_PER_MS;
}

static void rejoined(void *data, const struct error *err)
{
    struct controller *controller = data;
    if (controller->delivery.stopped)
        return;
    if (err)
        log_warn("no new lease yet", LOG_ERR(err));
    else
        delivery_look(controller);
}

static void lease_lost(struct controller *controller)
{
    struct delivery *delivery = &controller->delivery;
    executions_flush(controller); /* by the name under which they ran: the next one's are others */
    forget_all(controller);
    random_id(delivery->owner);
    delivery->lease_until_ns = 0; /* the next renewal says whether it has been joined */
    store_rejoin(controller->store, delivery->owner, controller->config.lease_ms, rejoined,
                 controller);
}

struct renewal {
    struct controller *controller;
    char owner[RANDOM_ID_LEN + 1];
    uint64_t sent_ns;
};

static void renewed(void *data, bool held, const struct error *err)
{
    struct renewal *renewal = data;
    struct controller *controller = renewal->controller;
    struct delivery *delivery = &controller->delivery;
    if (!err && !delivery->stopped && strcmp(renewal->owner, delivery->owner) == 0) {
        delivery->lease_until_ns = renewal->sent_ns + lease_ns(controller);
        if (!held) {
            lease_lost(controller);
        } else {
            if (delivery_has_workers(controller))
                builds_claim(controller);
            if (delivery_lease_holds(controller))
                begin_set_aside(controller);
        }
    }
    free(renewal);
}

static void renew_due(void *data)
{
    struct controller *controller = data;
    struct renewal *renewal = calloc(1, sizeof(*renewal));
    if (!renewal)
        return;
    renewal->controller = controller;
    renewal->sent_ns = clock_monotonic_ns();
    memcpy(renewal->owner, controller->delivery.owner, sizeof(renewal->owner));
    bool joined = controller->delivery.lease_until_ns > 0;
    store_renew(controller->store, renewal->owner, controller->config.lease_ms, joined, renewed,
                renewal);
}

/* ---- without workers ---- */

bool delivery_has_workers(const struct controller *controller)
{
    return !controller->delivery.shared || sessions_taking(controller) > 0;
}

/* One that may still be running where it was is waited for: by an own store always, else while workers may be on their way
 * back. */
static bool may_be_elsewhere(const struct controller *controller,
                             const struct live_execution *execution)
{
    return !execution->interrupted ||
           (controller->delivery.shared && !controller_expects_workers(controller));
}

/* What waits here for workers that are gone or drained may run at another controller's. */
static void give_back(struct controller *controller)
{
    struct string_map *all = &controller->executions.by_id;
    struct live_execution **waiting = calloc(all->count + 1, sizeof(*waiting));
    size_t count = 0;
    if (!waiting)
        return;
    string_map_for_each(slot, all)
    {
        struct live_execution *execution = slot->value;
        if (execution->record.async && !list_empty(&execution->queue_link) &&
            (sessions_alive(controller) == 0 || may_be_elsewhere(controller, execution)))
            waiting[count++] = execution;
    }
    for (size_t i = 0; i < count; i++)
        executions_put_back(controller, waiting[i], 0);
    free(waiting);
}

/* What no worker in contact may run takes no room here; another controller may have a worker for it. */
static void give_back_unplaced(struct controller *controller)
{
    list_for_each(link, &controller->dispatch.unplaced)
    {
        struct function_entry *function = list_entry(link, struct function_entry, waiting_link);
        list_for_each(waiting, &function->queue)
        {
            struct live_execution *execution =
                list_entry(waiting, struct live_execution, queue_link);
            if (execution->record.async && may_be_elsewhere(controller, execution) &&
                !placement_possible(&controller->dispatch.placement, execution->version))
                executions_put_back(controller, execution, 0);
        }
    }
}

void delivery_tick(struct controller *controller)
{
    struct delivery *delivery = &controller->delivery;
    bool workers = delivery_has_workers(controller);
    if (workers && !delivery->had_workers)
        delivery_look(controller);
    if (!workers && controller->dispatch.length > 0 && !controller->draining)
        give_back(controller);
    else if (!controller->draining)
        give_back_unplaced(controller);
    delivery->had_workers = workers;
}

/* ---- life ---- */

int delivery_start(struct controller *controller, bool shared, struct error *err)
{
    struct delivery *delivery = &controller->delivery;
    int64_t waiting = 0;
    delivery->shared = shared;
    list_init(&delivery->set_aside);
    random_id(delivery->owner);
    if (store_join(controller->store, delivery->owner, controller->config.lease_ms, err) < 0 ||
        delivery_load_interrupted(controller, err) < 0 ||
        store_count_free_now(controller->store, count_limit(controller), &waiting, err) < 0)
        return error_wrap(err, "taking up accepted executions");
    delivery->stored = (size_t)waiting;
    delivery->counted_ns = clock_monotonic_ns();
    delivery->lease_until_ns = clock_monotonic_ns() + lease_ns(controller);
    uint64_t renew_ms = (uint64_t)controller->config.lease_ms / 3;
    if (shared && !(delivery->renew_timer = loop_timer_start(&controller->loop, renew_ms, renew_ms,
                                                             renew_due, controller, err)))
        return -1;
    delivery_look(controller);
    return 0;
}

void delivery_stop(struct controller *controller)
{
    struct delivery *delivery = &controller->delivery;
    delivery->stopped = true;
    loop_timer_stop(delivery->read_timer);
    loop_timer_stop(delivery->renew_timer);
    delivery->read_timer = delivery->renew_timer = NULL;
    if (controller->store && delivery->owner[0])
        store_leave(controller->store, delivery->owner, NULL, NULL);
}
