/* Which instance runs which invocation; see pool.h. */
#include "worker/pool_internal.h"

#include "base/cleanup.h"
#include "base/log.h"
#include "base/loop.h"
#include "worker/outcome.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysinfo.h>

/* How long starting and loading take, before it was seen. */
#define FIRST_START_NS (100 * 1000000ull)
#define FIRST_LOAD_NS (5 * 1000000ull)

struct pool *pool_new(uv_loop_t *loop, const struct pool_options *options, struct error *err)
{
    struct pool *pool = calloc(1, sizeof(*pool));
    if (!pool) {
        error_set(err, ERROR_INTERNAL, "out of memory");
        return NULL;
    }
    pool->loop = loop;
    pool->options = *options;
    TAILQ_INIT(&pool->slots);
    TAILQ_INIT(&pool->members);
    TAILQ_INIT(&pool->idle);
    TAILQ_INIT(&pool->kinds);
    TAILQ_INIT(&pool->unfrozen);
    TAILQ_INIT(&pool->rising);
    pool->cpus = (size_t)get_nprocs();
    pool->start_ns = FIRST_START_NS;
    pool->load_ns = FIRST_LOAD_NS;
    return pool;
}

void pool_free(struct pool *pool)
{
    if (!pool)
        return;
    assert(TAILQ_EMPTY(&pool->members));
    pool_idle_stop(pool);
    pool_weight_stop(pool);
    loop_timer_stop(pool->rethink);
    pool_kinds_free(pool);
    free(pool);
}

/* ---- slots ---- */

static struct pool_slot *slot_get(struct pool *pool, struct function *function)
{
    struct pool_slot *slot = function->slot;
    if (slot)
        return slot;
    slot = calloc(1, sizeof(*slot));
    if (!slot)
        return NULL;
    slot->function = function_ref(function);
    slot->kind = pool_kind_for(pool, &function->spec);
    if (slot->kind)
        slot->kind->slots++;
    TAILQ_INIT(&slot->idle);
    TAILQ_INIT(&slot->open);
    TAILQ_INIT(&slot->waiting);
    slot->parts = 1;
    slot->places = pool_fixed_keep_alive_ms(pool, slot) ? (size_t)function->spec.concurrency : 1;
    TAILQ_INSERT_TAIL(&pool->slots, slot, slots);
    function->slot = slot;
    return slot;
}

void pool_slot_drop_if_empty(struct pool *pool, struct pool_slot *slot)
{
    if (slot->instances > 0 || slot->waiting_count > 0 || pool_idle_needs_slot(pool, slot))
        return;
    TAILQ_REMOVE(&pool->slots, slot, slots);
    slot->function->slot = NULL;
    if (slot->kind)
        slot->kind->slots--;
    function_unref(slot->function);
    free(slot);
}

static void wait_add(struct pool *pool, struct pool_slot *slot, struct invocation *invocation,
                     bool first)
{
    pool->waiting++;
    if (first)
        TAILQ_INSERT_HEAD(&slot->waiting, invocation, waiting);
    else
        TAILQ_INSERT_TAIL(&slot->waiting, invocation, waiting);
    slot->waiting_count++;
}

static void wait_remove(struct pool *pool, struct pool_slot *slot, struct invocation *invocation)
{
    TAILQ_REMOVE(&slot->waiting, invocation, waiting);
    slot->waiting_count--;
    pool->waiting--;
}

struct invocation *pool_wait_take(struct pool *pool, struct pool_slot *slot)
{
    struct invocation *invocation = TAILQ_FIRST(&slot->waiting);
    if (invocation)
        wait_remove(pool, slot, invocation);
    return invocation;
}

static void done(struct invocation *invocation)
{
    invocation->done(invocation->data, invocation);
}

void pool_fail_lost(struct invocation *invocation, const char *type, const struct error *why)
{
    outcome_lost(&invocation->execution, type, why);
    done(invocation);
}

/* ---- members ---- */

static void count(struct member *member, int64_t memory_mb)
{
    member->pool->memory_mb += memory_mb - member->memory_mb;
    member->memory_mb = memory_mb;
}

void pool_member_add(struct member *member, int64_t memory_mb)
{
    struct pool *pool = member->pool;
    TAILQ_INSERT_TAIL(&pool->members, member, all);
    member->parts = 1;
    pool->count++;
    count(member, memory_mb);
    if (member->slot) {
        member->slot->instances++;
    } else {
        member->kind->instances++;
        member->kind->members++;
        pool->generic_memory_mb += memory_mb;
    }
}

/* What it was counted as while it was generic. */
static void leave_kind(struct member *member)
{
    member->kind->instances--;
    member->pool->generic_memory_mb -= member->memory_mb;
}

void pool_member_give(struct member *member, struct pool_slot *slot)
{
    leave_kind(member);
    member->slot = slot;
    slot->instances++;
    count(member, slot->function->spec.memory_mb);
}

static bool is_rising(const struct member *member)
{
    enum instance_state state = instance_state(member->instance);
    return state == INSTANCE_CREATING || state == INSTANCE_LOADING;
}

/* It will not become ready, or has become so. */
static void note_risen(struct member *member)
{
    pool_start_risen(member);
    if (member->slot)
        member->slot->creating--;
    else
        member->kind->creating--;
}

static void set_open(struct member *member, bool open)
{
    struct member_list *list = member->slot ? &member->slot->open : NULL;
    if (member->open && !open)
        TAILQ_REMOVE(list, member, opens);
    if (!member->open && open)
        TAILQ_INSERT_HEAD(list, member, opens);
    member->open = open;
}

/* Not while it is busy or in the idle lists. */
void pool_member_stop(struct member *member)
{
    struct pool *pool = member->pool;
    set_open(member, false);
    if (is_rising(member))
        note_risen(member);
    pool_start_over(member);
    if (member->slot) {
        member->slot->stopping++;
        pool->lacking |= member->slot->kept > 0;
    } else {
        leave_kind(member);
    }
    pool->stopping++;
    pool->stopping_memory_mb += member->memory_mb;
    instance_stop(member->instance);
}

void pool_evict(struct member *member, const char *why)
{
    log_debug("idle instance goes", LOG_STR("instance", instance_id(member->instance)),
              LOG_STR("function", member->slot->function->spec.name), LOG_STR("why", why));
    pool_idle_remove(member);
    pool_member_stop(member);
}

/* Used, and none of its function's is used twice. */
static bool is_spent(const struct member *member)
{
    return member->used && pool_fixed_keep_alive_ms(member->pool, member->slot) == 0;
}

/* So many more it may be given. */
static size_t free_places(const struct member *member)
{
    return is_spent(member) ? 0 : instance_free_places(member->instance);
}

static void dispatch(struct member *member, struct invocation *invocation, bool waited, bool cold)
{
    struct execution *execution = &invocation->execution;
    execution->cold_start = cold;
    execution->metrics.start_time = waited ? clock_monotonic_ns() - invocation->received_ns : 0;
    if (!cold) {
        member->slot->warm_before_ns = member->slot->warm_ns;
        member->slot->warm_ns = clock_monotonic_ns();
    }
    member->used = true;
    pool_idle_used(member, invocation->received_ns);
    pool_weight_changed(member->pool, member->slot);
    instance_run(member->instance, invocation);
}

/* ---- events of instances ---- */

/* A member takes as many of those who wait as it can. What then has nothing to do is idle, or goes. */
static void offer(struct member *member)
{
    struct pool *pool = member->pool;
    struct pool_slot *slot = member->slot;
    struct invocation *invocation;
    bool cold = !member->used;
    while (free_places(member) > 0 && (invocation = pool_wait_take(pool, slot)))
        dispatch(member, invocation, true, cold);
    set_open(member, instance_calls(member->instance) > 0 && free_places(member) > 0);
    if (instance_calls(member->instance) > 0)
        return;
    if (slot->forgotten || pool->stopped || free_places(member) == 0)
        pool_member_stop(member);
    else
        pool_idle_add(member);
}

/* A busy instance of the slot that has a place, or NULL. */
static struct member *open_member(struct pool_slot *slot)
{
    struct member *member;
    while ((member = TAILQ_FIRST(&slot->open)) && free_places(member) == 0)
        set_open(member, false);
    return member;
}

static void on_started(void *data, struct instance *instance)
{
    struct member *member = data;
    (void)instance;
    pool_start_over(member);
    if (member->slot)
        pool_weight_joined(member);
    pool_schedule(member->pool);
}

static void on_warm(void *data, struct instance *instance)
{
    struct member *member = data;
    note_risen(member);
    member->kind->failures = 0;
    pool_generic_put(member);
    if (instance_outdated(instance))
        pool_generic_evict(member, "its image was replaced or removed");
    pool_schedule(member->pool);
}

static void on_ready(void *data, struct instance *instance)
{
    struct member *member = data;
    note_risen(member);
    pool_note_ready(member->pool, member);
    if (pool_fixed_keep_alive_ms(member->pool, member->slot) > 0)
        member->slot->places = instance_places(instance);
    pool_idle_ready(member->slot);
    offer(member);
    pool_schedule(member->pool);
}

/* Takes the texts of `failure`. */
static void fail_as(struct invocation *invocation, struct execution *failure)
{
    struct execution *execution = &invocation->execution;
    execution->status = failure->status;
    execution->has_error = failure->has_error;
    execution->error = failure->error;
    failure->error = (struct execution_error){.exit_code = -1};
    execution->logs = steal_pointer(&failure->logs);
    execution->logs_len = failure->logs_len;
    execution->cold_start = true;
    execution->metrics.start_time = clock_monotonic_ns() - invocation->received_ns;
    done(invocation);
}

static void break_generic(struct member *member, const struct execution *failure)
{
    const char *why = failure->error.message ? failure->error.message : "unknown reason";
    if (instance_state(member->instance) == INSTANCE_WARM)
        pool_generic_ended(member);
    else
        pool_generic_failed(member->kind, why);
    pool_member_stop(member);
}

static bool is_resting(const struct instance *instance)
{
    enum instance_state state = instance_state(instance);
    return state == INSTANCE_IDLE || state == INSTANCE_FROZEN;
}

static void on_broken(void *data, struct instance *instance, struct execution *failure)
{
    struct member *member = data;
    struct pool *pool = member->pool;
    struct pool_slot *slot = member->slot;
    struct invocation *invocation = NULL;
    if (!slot) {
        break_generic(member, failure);
        pool_schedule(pool);
        return;
    }
    if (is_resting(instance)) {
        pool_idle_remove(member);
        pool_idle_ended(member);
    } else if (instance_state(instance) == INSTANCE_LOADING && failure->status == EXECUTION_LOST) {
        slot->direct = true; /* not the function's fault, and its invocation has not begun */
    } else {
        pool_idle_failed(pool, slot);
        invocation = pool_wait_take(pool, slot);
    }
    pool_member_stop(member);
    if (invocation)
        fail_as(invocation, failure);
    pool_schedule(pool);
}

static void retry(struct member *member, struct invocation *invocation)
{
    struct error why = {0};
    if (!invocation->retried) {
        invocation->retried = true;
        wait_add(member->pool, member->slot, invocation, true);
        return;
    }
    error_set(&why, ERROR_UNAVAILABLE, "two instances ended before they had taken the invocation");
    pool_fail_lost(invocation, "Platform.InstanceEnded", &why);
}

static void on_finished(void *data, struct instance *instance, struct invocation *invocation,
                        enum instance_after after)
{
    struct member *member = data;
    struct pool *pool = member->pool;
    struct pool_slot *slot = member->slot;
    (void)instance;
    if (after == INSTANCE_RETRY) {
        retry(member, invocation);
    } else {
        pool_note_service(slot, &invocation->execution.metrics);
        done(invocation);
    }
    offer(member);
    pool_idle_finished(pool, slot);
    pool_schedule(pool);
}

static void on_log(void *data, struct invocation *invocation, uint64_t offset, const char *text,
                   size_t len)
{
    const struct member *member = data;
    if (member->pool->options.log)
        member->pool->options.log(invocation, offset, text, len);
}

static void call_stopped(void *data)
{
    struct pool *pool = data;
    pool->stopped(pool->stopped_data);
}

void pool_tell_stopped(struct pool *pool)
{
    if (!pool->stopped || pool->deferred || pool->scheduled || !TAILQ_EMPTY(&pool->members))
        return;
    pool->deferred = true;
    loop_defer(pool->loop, call_stopped, pool, NULL);
}

static void member_remove(struct member *member)
{
    struct pool *pool = member->pool;
    struct pool_slot *slot = member->slot;
    TAILQ_REMOVE(&pool->members, member, all);
    pool->count--;
    pool->stopping--;
    pool->stopping_memory_mb -= member->memory_mb;
    count(member, 0);
    if (member->kind)
        member->kind->members--;
    free(member);
    if (!slot)
        return;
    slot->instances--;
    slot->stopping--;
    pool_slot_drop_if_empty(pool, slot);
}

static void on_gone(void *data, struct instance *instance)
{
    struct member *member = data;
    struct pool *pool = member->pool;
    instance_free(instance);
    member_remove(member);
    pool_schedule(pool);
    pool_tell_stopped(pool);
}

const struct instance_events pool_instance_events = {
    .started = on_started,
    .warm = on_warm,
    .ready = on_ready,
    .broken = on_broken,
    .finished = on_finished,
    .log = on_log,
    .gone = on_gone,
};

/* ---- the interface ---- */

void pool_run(struct pool *pool, struct invocation *invocation)
{
    struct pool_slot *slot = pool->stopped ? NULL : slot_get(pool, invocation->function);
    if (!slot) {
        struct error err = {0};
        error_set(&err, ERROR_UNAVAILABLE,
                  pool->stopped ? "the worker is stopping" : "out of memory");
        pool_fail_lost(invocation, "Platform.Stopping", &err);
        return;
    }
    slot->forgotten = false;
    struct member *member = open_member(slot);
    if (!member && (member = TAILQ_FIRST(&slot->idle)))
        pool_idle_remove(member);
    if (member) {
        dispatch(member, invocation, false, false);
        set_open(member, free_places(member) > 0);
        return;
    }
    wait_add(pool, slot, invocation, false);
    pool_schedule_later(pool);
}

void pool_cancel(struct pool *pool, struct invocation *invocation)
{
    static const char message[] = "the execution was cancelled";
    if (invocation->instance) {
        instance_abort(invocation, EXECUTION_CANCELLED, "Function.Cancelled", message);
        return;
    }
    struct pool_slot *slot = invocation->function->slot;
    wait_remove(pool, slot, invocation);
    pool_slot_drop_if_empty(pool, slot);
    outcome_fail(&invocation->execution, EXECUTION_CANCELLED, "Function.Cancelled", "%s", message);
    done(invocation);
}

void pool_keep(struct pool *pool, struct function *function, size_t count)
{
    struct pool_slot *slot = function->slot;
    if (pool->stopped || (count == 0 && !slot) || (!slot && !(slot = slot_get(pool, function))))
        return;
    slot->forgotten = slot->forgotten && count == 0;
    slot->kept = count;
    slot->failures = 0;
    slot->retry_ns = 0;
    pool->lacking = true;
    pool_slot_drop_if_empty(pool, slot);
    pool_schedule_later(pool);
    pool_idle_look(pool, clock_monotonic_ns());
}

void pool_forget(struct pool *pool, const char *name, int64_t version)
{
    struct pool_slot *slot, *next;
    for (slot = TAILQ_FIRST(&pool->slots); slot; slot = next) {
        next = TAILQ_NEXT(slot, slots);
        if (slot->function->spec.version != version || strcmp(slot->function->spec.name, name) != 0)
            continue;
        slot->forgotten = true;
        slot->kept = 0;
        slot->rests_ns = 0;
        struct member *member;
        while ((member = TAILQ_FIRST(&slot->idle)))
            pool_evict(member, "its version is of no more use");
        pool_slot_drop_if_empty(pool, slot);
    }
}

static void fail_all_waiting(struct pool *pool)
{
    struct error err = {0};
    struct pool_slot *slot, *next;
    error_set(&err, ERROR_UNAVAILABLE, "the worker is stopping");
    for (slot = TAILQ_FIRST(&pool->slots); slot; slot = next) {
        struct invocation *invocation;
        next = TAILQ_NEXT(slot, slots);
        while ((invocation = pool_wait_take(pool, slot)))
            pool_fail_lost(invocation, "Platform.Stopping", &err);
        pool_slot_drop_if_empty(pool, slot);
    }
}

void pool_stop(struct pool *pool, void (*stopped)(void *data), void *data)
{
    struct member *member, *next;
    if (pool->stopped)
        return;
    pool->stopped = stopped;
    pool->stopped_data = data;
    loop_timer_stop(pool->rethink);
    pool->rethink = NULL;
    pool_weight_stop(pool);
    pool_idle_stop(pool);
    fail_all_waiting(pool);
    /* `next` stays valid: a member leaves the list in on_gone() only, which comes later. */
    for (member = TAILQ_FIRST(&pool->members); member; member = next) {
        next = TAILQ_NEXT(member, all);
        switch (instance_state(member->instance)) {
        case INSTANCE_IDLE:
        case INSTANCE_FROZEN:
            pool_evict(member, "the worker is stopping");
            break;
        case INSTANCE_WARM:
            pool_generic_evict(member, "the worker is stopping");
            break;
        case INSTANCE_CREATING:
        case INSTANCE_LOADING:
            pool_member_stop(member);
            break;
        case INSTANCE_BUSY:
            instance_abort_all(member->instance, EXECUTION_LOST, "Platform.Stopping",
                               "the worker is stopping");
            break;
        default:
            break;
        }
    }
    pool_tell_stopped(pool);
}

size_t pool_instances(const struct pool *pool)
{
    return pool->count;
}

void pool_each(const struct pool *pool, void (*fn)(void *data, const struct instance *instance),
               void *data)
{
    const struct member *member;
    TAILQ_FOREACH(member, &pool->members, all)
    fn(data, member->instance);
}
