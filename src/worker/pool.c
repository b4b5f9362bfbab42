/* Which instance runs which invocation; see pool.h. */
#include "worker/pool.h"

#include "base/cleanup.h"
#include "base/log.h"
#include "base/loop.h"
#include "worker/outcome.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

/* An instance and its place in the pool's lists. */
struct member {
    struct pool *pool;
    struct pool_slot *slot;
    struct instance *instance;
    bool starting; /* the runtime is not done with starting it */
    bool used;     /* has run an invocation */
    uint64_t idle_since_ns;
    TAILQ_ENTRY(member) all;
    TAILQ_ENTRY(member) idle; /* of its slot: last used first */
    TAILQ_ENTRY(member) age;  /* of all idle ones: longest idle first */
};
TAILQ_HEAD(member_list, member);

/* One function version: its idle instances, and who waits for one. */
struct pool_slot {
    struct function *function; /* a reference */
    struct member_list idle;
    struct invocation_list waiting;
    size_t waiting_count;
    size_t creating;  /* instances that will become ready */
    size_t instances; /* not yet gone */
    bool forgotten;
    TAILQ_ENTRY(pool_slot) slots;
};
TAILQ_HEAD(slot_list, pool_slot);

struct pool {
    uv_loop_t *loop;
    struct pool_options options;
    struct slot_list slots;
    struct member_list members;
    struct member_list idle; /* by age */
    size_t count;
    int64_t memory_mb; /* of all members */
    size_t waiting;    /* invocations, in all slots */
    size_t starting;
    size_t stopping;
    int64_t stopping_memory_mb;
    struct loop_timer *keep_alive;
    void (*stopped)(void *data);
    void *stopped_data;
    bool deferred; /* `stopped` is on its way */
};

static void schedule(struct pool *pool);

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
    return pool;
}

void pool_free(struct pool *pool)
{
    if (!pool)
        return;
    assert(TAILQ_EMPTY(&pool->members));
    loop_timer_stop(pool->keep_alive);
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
    TAILQ_INIT(&slot->idle);
    TAILQ_INIT(&slot->waiting);
    TAILQ_INSERT_TAIL(&pool->slots, slot, slots);
    function->slot = slot;
    return slot;
}

static void slot_drop_if_empty(struct pool *pool, struct pool_slot *slot)
{
    if (slot->instances > 0 || slot->waiting_count > 0)
        return;
    TAILQ_REMOVE(&pool->slots, slot, slots);
    slot->function->slot = NULL;
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

static struct invocation *wait_take(struct pool *pool, struct pool_slot *slot)
{
    struct invocation *invocation = TAILQ_FIRST(&slot->waiting);
    if (invocation)
        wait_remove(pool, slot, invocation);
    return invocation;
}

static void done(struct invocation *invocation)
{
    invocation->instance = NULL;
    invocation->done(invocation->data, invocation);
}

static void fail_lost(struct invocation *invocation, const char *type, const struct error *why)
{
    outcome_lost(&invocation->execution, type, why);
    done(invocation);
}

/* ---- members ---- */

static int64_t member_memory(const struct member *member)
{
    return member->slot->function->spec.memory_mb;
}

static void note_started(struct member *member)
{
    if (member->starting)
        member->pool->starting--;
    member->starting = false;
}

static void leave_idle(struct member *member)
{
    TAILQ_REMOVE(&member->slot->idle, member, idle);
    TAILQ_REMOVE(&member->pool->idle, member, age);
}

/* Not while it is busy or in the idle lists. */
static void stop_member(struct member *member)
{
    struct pool *pool = member->pool;
    if (instance_state(member->instance) == INSTANCE_CREATING)
        member->slot->creating--;
    note_started(member);
    pool->stopping++;
    pool->stopping_memory_mb += member_memory(member);
    instance_stop(member->instance);
}

static void evict(struct member *member, const char *why)
{
    log_debug("idle instance goes", LOG_STR("instance", instance_id(member->instance)),
              LOG_STR("function", member->slot->function->spec.name), LOG_STR("why", why));
    leave_idle(member);
    stop_member(member);
}

static void dispatch(struct member *member, struct invocation *invocation, bool waited)
{
    struct execution *execution = &invocation->execution;
    invocation->instance = member->instance;
    execution->cold_start = waited && !member->used;
    execution->metrics.start_time = waited ? clock_monotonic_ns() - invocation->received_ns : 0;
    member->used = true;
    instance_run(member->instance, invocation);
}

/* ---- keep-alive ---- */

static void keep_alive_arm(struct pool *pool);

static void on_keep_alive(void *data)
{
    struct pool *pool = data;
    uint64_t now_ns = clock_monotonic_ns();
    uint64_t keep_ns = pool->options.keep_alive_ms * 1000000;
    struct member *member;
    loop_timer_stop(pool->keep_alive);
    pool->keep_alive = NULL;
    while ((member = TAILQ_FIRST(&pool->idle)) && now_ns - member->idle_since_ns >= keep_ns)
        evict(member, "keep-alive is over");
    keep_alive_arm(pool);
}

/* For the one that is idle for longest; those after it are looked at when it fires. */
static void keep_alive_arm(struct pool *pool)
{
    const struct member *oldest = TAILQ_FIRST(&pool->idle);
    if (!oldest || pool->keep_alive)
        return;
    uint64_t idle_ms = (clock_monotonic_ns() - oldest->idle_since_ns) / 1000000;
    uint64_t keep_ms = pool->options.keep_alive_ms;
    pool->keep_alive = loop_timer_start(pool->loop, idle_ms < keep_ms ? keep_ms - idle_ms + 1 : 1,
                                        0, on_keep_alive, pool, NULL);
}

/* ---- events of instances ---- */

/* An instance that can take the next invocation. */
static void offer(struct member *member)
{
    struct pool *pool = member->pool;
    struct pool_slot *slot = member->slot;
    struct invocation *invocation = wait_take(pool, slot);
    if (invocation) {
        dispatch(member, invocation, true);
        return;
    }
    if (slot->forgotten || pool->stopped || (member->used && pool->options.keep_alive_ms == 0)) {
        stop_member(member);
        return;
    }
    member->idle_since_ns = clock_monotonic_ns();
    TAILQ_INSERT_HEAD(&slot->idle, member, idle);
    TAILQ_INSERT_TAIL(&pool->idle, member, age);
    keep_alive_arm(pool);
}

static void on_started(void *data, struct instance *instance)
{
    struct member *member = data;
    (void)instance;
    note_started(member);
    schedule(member->pool);
}

static void on_ready(void *data, struct instance *instance)
{
    struct member *member = data;
    (void)instance;
    member->slot->creating--;
    offer(member);
    schedule(member->pool);
}

static void on_broken(void *data, struct instance *instance, struct execution *failure)
{
    struct member *member = data;
    struct pool *pool = member->pool;
    struct invocation *invocation = NULL;
    if (instance_state(instance) == INSTANCE_IDLE)
        leave_idle(member);
    else
        invocation = wait_take(pool, member->slot);
    stop_member(member);
    if (invocation) {
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
    schedule(pool);
}

static void retry(struct member *member, struct invocation *invocation)
{
    struct error why = {0};
    invocation->instance = NULL;
    if (!invocation->retried) {
        invocation->retried = true;
        wait_add(member->pool, member->slot, invocation, true);
        return;
    }
    error_set(&why, ERROR_UNAVAILABLE, "two instances ended before they had taken the invocation");
    fail_lost(invocation, "Platform.InstanceEnded", &why);
}

static void on_finished(void *data, struct instance *instance, struct invocation *invocation,
                        enum instance_after after)
{
    struct member *member = data;
    struct pool *pool = member->pool;
    (void)instance;
    if (after == INSTANCE_RETRY)
        retry(member, invocation);
    else
        done(invocation);
    if (after == INSTANCE_USABLE && (pool->options.keep_alive_ms > 0 || !member->used))
        offer(member);
    else
        stop_member(member);
    schedule(pool);
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

static void stopped_if_empty(struct pool *pool)
{
    if (!pool->stopped || pool->deferred || !TAILQ_EMPTY(&pool->members))
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
    pool->memory_mb -= member_memory(member);
    slot->instances--;
    free(member);
    slot_drop_if_empty(pool, slot);
}

static void on_gone(void *data, struct instance *instance)
{
    struct member *member = data;
    struct pool *pool = member->pool;
    pool->stopping--;
    pool->stopping_memory_mb -= member_memory(member);
    instance_free(instance);
    member_remove(member);
    schedule(pool);
    stopped_if_empty(pool);
}

/* ---- making instances ---- */

static const struct instance_events events = {
    .started = on_started,
    .ready = on_ready,
    .broken = on_broken,
    .finished = on_finished,
    .log = on_log,
    .gone = on_gone,
};

static int member_start(struct pool *pool, struct pool_slot *slot, struct error *err)
{
    struct member *member = calloc(1, sizeof(*member));
    if (!member)
        return error_set(err, ERROR_INTERNAL, "out of memory");
    member->pool = pool;
    member->slot = slot;
    member->instance = instance_new(pool->loop, pool->options.runtime, slot->function,
                                    &pool->options.limits, &events, member, err);
    if (!member->instance) {
        free(member);
        return -1;
    }
    TAILQ_INSERT_TAIL(&pool->members, member, all);
    member->starting = true;
    pool->starting++;
    pool->count++;
    pool->memory_mb += member_memory(member);
    slot->instances++;
    slot->creating++;
    return 0;
}

/* The slot whose first waiting invocation has no instance on its way and is the oldest. */
static struct pool_slot *most_urgent(struct pool *pool)
{
    struct pool_slot *urgent = NULL, *slot;
    TAILQ_FOREACH(slot, &pool->slots, slots)
    {
        if (slot->waiting_count <= slot->creating)
            continue;
        if (!urgent ||
            TAILQ_FIRST(&slot->waiting)->received_ns < TAILQ_FIRST(&urgent->waiting)->received_ns)
            urgent = slot;
    }
    return urgent;
}

/* Whether there is room for one more of `memory_mb`; if not, makes some (that takes until the evicted are gone). */
static bool has_room(struct pool *pool, int64_t memory_mb)
{
    const struct pool_options *options = &pool->options;
    struct member *oldest;
    if (pool->memory_mb + memory_mb <= options->memory_mb && pool->count < options->max_instances)
        return true;
    while ((pool->memory_mb - pool->stopping_memory_mb + memory_mb > options->memory_mb ||
            pool->count - pool->stopping >= options->max_instances) &&
           (oldest = TAILQ_FIRST(&pool->idle)))
        evict(oldest, "room is needed");
    return false;
}

static void schedule(struct pool *pool)
{
    struct pool_slot *slot;
    while (pool->waiting > 0 && !pool->stopped && pool->starting < pool->options.start_parallel &&
           (slot = most_urgent(pool))) {
        struct error err = {0};
        int64_t memory_mb = slot->function->spec.memory_mb;
        const char *type = "Platform.StartFailed";
        int rc = 0;
        if (memory_mb > pool->options.memory_mb) {
            type = "Platform.NoCapacity";
            rc = error_set(&err, ERROR_NO_CAPACITY,
                           "the function needs %lld MiB, this worker has %lld MiB for functions "
                           "(WORKER_MEMORY_MB)",
                           (long long)memory_mb, (long long)pool->options.memory_mb);
        } else if (!has_room(pool, memory_mb)) {
            return;
        } else {
            rc = member_start(pool, slot, &err);
        }
        if (rc < 0) {
            struct invocation *invocation = wait_take(pool, slot);
            slot_drop_if_empty(pool, slot);
            fail_lost(invocation, type, &err);
        }
    }
}

static void deferred_schedule(void *data)
{
    schedule(data);
}

/* ---- the interface ---- */

void pool_run(struct pool *pool, struct invocation *invocation)
{
    struct pool_slot *slot = pool->stopped ? NULL : slot_get(pool, invocation->function);
    if (!slot) {
        struct error err = {0};
        error_set(&err, ERROR_UNAVAILABLE,
                  pool->stopped ? "the worker is stopping" : "out of memory");
        fail_lost(invocation, "Platform.Stopping", &err);
        return;
    }
    slot->forgotten = false;
    struct member *member = TAILQ_FIRST(&slot->idle);
    if (member) {
        leave_idle(member);
        dispatch(member, invocation, false);
        return;
    }
    wait_add(pool, slot, invocation, false);
    /* Deferred, because a failure to start finishes the invocation. */
    loop_defer(pool->loop, deferred_schedule, pool, NULL);
}

void pool_cancel(struct pool *pool, struct invocation *invocation)
{
    static const char message[] = "the execution was cancelled";
    if (invocation->instance) {
        instance_abort(invocation->instance, EXECUTION_CANCELLED, "Function.Cancelled", message);
        return;
    }
    struct pool_slot *slot = invocation->function->slot;
    wait_remove(pool, slot, invocation);
    slot_drop_if_empty(pool, slot);
    outcome_fail(&invocation->execution, EXECUTION_CANCELLED, "Function.Cancelled", "%s", message);
    done(invocation);
}

void pool_forget(struct pool *pool, const char *name, int64_t version)
{
    struct pool_slot *slot, *next;
    for (slot = TAILQ_FIRST(&pool->slots); slot; slot = next) {
        next = TAILQ_NEXT(slot, slots);
        if (slot->function->spec.version != version || strcmp(slot->function->spec.name, name) != 0)
            continue;
        slot->forgotten = true;
        struct member *member;
        while ((member = TAILQ_FIRST(&slot->idle)))
            evict(member, "its version is of no more use");
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
        while ((invocation = wait_take(pool, slot)))
            fail_lost(invocation, "Platform.Stopping", &err);
        slot_drop_if_empty(pool, slot);
    }
}

void pool_stop(struct pool *pool, void (*stopped)(void *data), void *data)
{
    struct member *member, *next;
    if (pool->stopped)
        return;
    pool->stopped = stopped;
    pool->stopped_data = data;
    fail_all_waiting(pool);
    /* `next` stays valid: a member leaves the list in on_gone() only, which comes later. */
    for (member = TAILQ_FIRST(&pool->members); member; member = next) {
        next = TAILQ_NEXT(member, all);
        switch (instance_state(member->instance)) {
        case INSTANCE_IDLE:
            evict(member, "the worker is stopping");
            break;
        case INSTANCE_CREATING:
            stop_member(member);
            break;
        case INSTANCE_BUSY:
            instance_abort(member->instance, EXECUTION_LOST, "Platform.Stopping",
                           "the worker is stopping");
            break;
        default:
            break;
        }
    }
    stopped_if_empty(pool);
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
