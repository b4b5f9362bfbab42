/* Which instances are made for invocations that wait, and who goes to make room for them.
 *
 * An invocation that finds no idle instance waits in its slot, and whichever instance becomes free or ready first takes it. Meanwhile one is
 * made for it: a generic one is loaded when there is one, otherwise one that is on its way is awaited, otherwise one is started. None is
 * made while those that are busy will be free sooner. */
#include "base/log.h"
#include "base/loop.h"
#include "worker/pool_internal.h"

#include <stdlib.h>

#define NS_PER_MS 1000000ull
/* Weight of the newest value in a moving average: one part of so many. */
#define AVERAGE_PARTS 4
/* A function is being called when two calls came in this time. */
#define CALLED_MS 500
/* A function has at most so many times as much as is left to others. */
#define SHARE 8
/* The OCI runtime takes some 25 ms of a processor to start a container, on a slow machine 100. */
#define START_COUNTS_MS 250

/* ---- what was seen ---- */

static uint64_t average(uint64_t old_ns, uint64_t new_ns)
{
    return old_ns ? old_ns - old_ns / AVERAGE_PARTS + new_ns / AVERAGE_PARTS : new_ns;
}

/* Falls at once, because a call that is in others' way takes longer and none takes less than it needs; rises bit by bit. */
static uint64_t least(uint64_t old_ns, uint64_t new_ns)
{
    return new_ns < old_ns ? new_ns : average(old_ns, new_ns);
}

void pool_note_service(struct pool_slot *slot, const struct execution_metrics *metrics)
{
    slot->service_ns = least(slot->service_ns, metrics->duration);
    slot->cpu_ns = least(slot->cpu_ns, metrics->cpu_time);
    slot->finished_ns = clock_monotonic_ns();
}

void pool_note_ready(struct pool *pool, const struct member *member)
{
    uint64_t *seen_ns = member->kind ? &pool->load_ns : &pool->start_ns;
    *seen_ns = average(*seen_ns, instance_start_ns(member->instance));
}

/* ---- policy: is another instance worth its start? ---- */

/* How many more instances the function's own max_instances allows here. */
static size_t allowed(const struct pool_slot *slot)
{
    size_t max = (size_t)slot->function->spec.max_instances;
    size_t have = slot->instances + slot->promised;
    if (max == 0)
        return SIZE_MAX;
    return max > have ? max - have : 0;
}

/* So many instances it lacks, with all their places, for those who wait. */
static size_t unserved(const struct pool_slot *slot)
{
    size_t coming = slot->creating + slot->promised;
    size_t wanted = (slot->waiting_count + slot->places - 1) / slot->places;
    size_t lack = wanted > coming ? wanted - coming : 0;
    return lack < allowed(slot) ? lack : allowed(slot);
}

/* So many instances keep all CPUs busy; more would only take turns. */
static size_t useful_instances(const struct pool *pool, const struct pool_slot *slot)
{
    if (slot->cpu_ns == 0 || slot->cpu_ns >= slot->service_ns)
        return pool->cpus;
    return (size_t)(pool->cpus * slot->service_ns / slot->cpu_ns / slot->places) + 1;
}

/* 0: now; otherwise when to ask again. An instance is made when those that there are need longer to serve everybody than it takes to start, and the
 * machine can use one more. Whatever the estimate says, it is made when none of them has finished anything for as long as a start takes: so waiting
 * costs at most as much again as starting at once would have. */
static uint64_t worth_starting_at(const struct pool *pool, const struct pool_slot *slot,
                                  uint64_t now_ns)
{
    size_t servers = slot->instances - slot->stopping;
    bool is_warm = slot->kind && slot->kind->warm_count > 0;
    uint64_t start_ns = is_warm ? pool->load_ns : pool->start_ns;
    if (servers == 0 || slot->service_ns == 0 || pool_fixed_keep_alive_ms(pool, slot) == 0)
        return 0;
    uint64_t wait_ns = unserved(slot) * slot->service_ns / servers;
    if (wait_ns >= start_ns && servers < useful_instances(pool, slot))
        return 0;
    uint64_t since_ns = TAILQ_FIRST(&slot->waiting)->received_ns;
    if (slot->finished_ns > since_ns)
        since_ns = slot->finished_ns;
    return now_ns - since_ns >= start_ns ? 0 : since_ns + start_ns;
}

/* With one more it would have so many of the instances, or so much of the memory, that too little is left to others, whose next call may come while
 * this one's last for minutes. What nobody needs now would go for others, so it counts as left. The first two it may have, whatever they take. */
static bool has_its_share(const struct pool *pool, const struct pool_slot *slot)
{
    const struct pool_options *options = &pool->options;
    int64_t memory_mb = slot->function->spec.memory_mb;
    int64_t own = (int64_t)slot->instances + 1;
    int64_t left = (int64_t)options->max_instances - 1, left_mb = options->memory_mb - memory_mb;
    const struct member *member;
    if (slot->instances < 2)
        return false;
    TAILQ_FOREACH(member, &pool->members, all)
    {
        enum instance_state state = instance_state(member->instance);
        if (state == INSTANCE_IDLE || state == INSTANCE_FROZEN || state == INSTANCE_WARM)
            continue;
        left--;
        left_mb -= member->memory_mb;
    }
    return own > SHARE * left || own * memory_mb > SHARE * left_mb;
}

static void on_rethink(void *data)
{
    struct pool *pool = data;
    loop_timer_stop(pool->rethink);
    pool->rethink = NULL;
    pool_schedule(pool);
}

static void rethink_at(struct pool *pool, uint64_t at_ns, uint64_t now_ns)
{
    if (pool->rethink && pool->rethink_ns <= at_ns)
        return;
    loop_timer_stop(pool->rethink);
    pool->rethink_ns = at_ns;
    pool->rethink =
        loop_timer_start(pool->loop, (at_ns - now_ns) / NS_PER_MS + 1, 0, on_rethink, pool, NULL);
}

/* Since when it is the slot's turn: functions for which many wait and those for which one does get an instance in turn. */
static uint64_t turn_ns(const struct pool_slot *slot)
{
    uint64_t received_ns = TAILQ_FIRST(&slot->waiting)->received_ns;
    return received_ns > slot->served_ns ? received_ns : slot->served_ns;
}

/* The slot that lacks an instance for those who wait, should have one, and whose turn it is for longest. */
static struct pool_slot *most_urgent(struct pool *pool)
{
    struct pool_slot *urgent = NULL, *slot;
    uint64_t now_ns = clock_monotonic_ns();
    TAILQ_FOREACH(slot, &pool->slots, slots)
    {
        if (unserved(slot) == 0)
            continue;
        uint64_t at_ns = worth_starting_at(pool, slot, now_ns);
        if (at_ns > 0) {
            rethink_at(pool, at_ns, now_ns);
            continue;
        }
        if (!has_its_share(pool, slot) && (!urgent || turn_ns(slot) < turn_ns(urgent)))
            urgent = slot;
    }
    return urgent;
}

/* ---- policy: how many are started at once ---- */

void pool_start_begun(struct member *member)
{
    struct pool *pool = member->pool;
    member->starting = true;
    member->begun_ns = clock_monotonic_ns();
    member->rising = true;
    TAILQ_INSERT_TAIL(&pool->rising, member, rises);
    if (member->slot)
        pool->starting++;
    else
        pool->refilling++;
}

void pool_start_over(struct member *member)
{
    struct pool *pool = member->pool;
    if (!member->starting)
        return;
    member->starting = false;
    if (member->slot)
        pool->starting--;
    else
        pool->refilling--;
}

void pool_start_risen(struct member *member)
{
    struct pool *pool = member->pool;
    uint64_t now_ns = clock_monotonic_ns();
    uint64_t took_ns = now_ns - member->begun_ns;
    if (!member->rising)
        return;
    if (took_ns > START_COUNTS_MS * NS_PER_MS)
        took_ns = START_COUNTS_MS * NS_PER_MS;
    member->rising = false;
    TAILQ_REMOVE(&pool->rising, member, rises);
    pool->rest_ns = 0;
    if (pool->cpus < POOL_CALLS_PART)
        pool->rest_ns = now_ns + took_ns * (POOL_CALLS_PART - pool->cpus) / pool->cpus;
}

/* Calls of other functions come, and find an instance: they are what more starts at once would slow down. */
static bool others_are_called(const struct pool *pool, const struct pool_slot *slot,
                              uint64_t now_ns)
{
    const struct pool_slot *other;
    TAILQ_FOREACH(other, &pool->slots, slots)
    {
        if (other != slot && other->warm_before_ns &&
            now_ns - other->warm_before_ns < CALLED_MS * NS_PER_MS)
            return true;
    }
    return false;
}

/* Starts take their part of the processors: as many at once, or on a small machine one with a rest after it. One that takes long waits for
 * something, most likely, and counts no more. */
static bool leaves_processors(struct pool *pool, uint64_t now_ns)
{
    const struct member *member, *oldest = NULL;
    size_t count = 0;
    TAILQ_FOREACH_REVERSE(member, &pool->rising, member_list, rises)
    {
        if (now_ns - member->begun_ns >= START_COUNTS_MS * NS_PER_MS)
            break;
        oldest = member;
        count++;
    }
    uint64_t until_ns = count > 0 ? oldest->begun_ns + START_COUNTS_MS * NS_PER_MS : pool->rest_ns;
    if (now_ns >= until_ns || (count > 0 && count < pool->cpus / POOL_CALLS_PART))
        return true;
    rethink_at(pool, until_ns, now_ns);
    return false;
}

bool pool_may_start(struct pool *pool, const struct pool_slot *slot)
{
    uint64_t now_ns = clock_monotonic_ns();
    if (slot && pool->starting >= pool->options.start_parallel)
        return false;
    return !others_are_called(pool, slot, now_ns) || leaves_processors(pool, now_ns);
}

/* ---- policy: who makes room ---- */

static bool evict_idle(struct pool *pool, bool kept)
{
    struct member *member = pool_idle_dispensable(pool, kept);
    if (!member)
        return false;
    eviction_took(&pool->eviction, member->worth);
    pool_evict(member, "room is needed");
    return true;
}

static bool evict_generic(struct pool *pool)
{
    struct member *member = pool_generic_dispensable(pool);
    if (member)
        pool_generic_evict(member, "room is needed");
    return member != NULL;
}

/* The idle instance that is worth least; then generic ones, which take less room and are of use to more; those that are to be kept
 * ready only when somebody waits who would wait for ever. */
static bool evict_one(struct pool *pool)
{
    return evict_idle(pool, false) || evict_generic(pool) ||
           (pool->waiting > 0 && evict_idle(pool, true));
}

static bool fits(const struct pool *pool, size_t count, int64_t memory_mb)
{
    return pool->memory_mb + memory_mb <= pool->options.memory_mb &&
           pool->count + count <= pool->options.max_instances;
}

/* Whether there is room for so much more; if not, makes some (that takes until the evicted are gone). */
static bool has_room(struct pool *pool, size_t count, int64_t memory_mb)
{
    const struct pool_options *options = &pool->options;
    if (fits(pool, count, memory_mb))
        return true;
    while ((pool->memory_mb - pool->stopping_memory_mb + memory_mb > options->memory_mb ||
            pool->count - pool->stopping + count > options->max_instances) &&
           evict_one(pool)) {
    }
    return false;
}

/* ---- making instances ---- */

static int start_for(struct pool *pool, struct pool_slot *slot, struct error *err)
{
    struct member *member = calloc(1, sizeof(*member));
    if (!member)
        return error_set(err, ERROR_INTERNAL, "out of memory");
    member->pool = pool;
    member->slot = slot;
    member->instance = instance_new(pool->loop, pool->options.runtime, slot->function,
                                    &pool->options.limits, &pool_instance_events, member, err);
    if (!member->instance) {
        free(member);
        return -1;
    }
    pool_start_begun(member);
    slot->creating++;
    pool_member_add(member, slot->function->spec.memory_mb);
    return 0;
}

/* The member is its slot's from now on, whatever becomes of it. */
static void load(struct member *member, struct pool_slot *slot)
{
    struct error err = {0};
    pool_member_give(member, slot);
    slot->creating++;
    pool_weight_joined(member);
    if (instance_load(member->instance, slot->function, &err) == 0)
        return;
    log_info("generic instance cannot be loaded",
             LOG_STR("instance", instance_id(member->instance)),
             LOG_STR("function", slot->function->spec.name), LOG_ERR(&err));
    if (err.code != ERROR_CONFLICT)
        slot->direct = true;
    pool_member_stop(member);
}

enum step { STEP_DONE, STEP_LATER, STEP_FULL, STEP_FAILED };

/* An instance less to make for `slot`. LATER: so many are being started already; FULL: there is no room. */
static enum step serve(struct pool *pool, struct pool_slot *slot, struct error *err)
{
    int64_t memory_mb = slot->function->spec.memory_mb;
    struct generic_kind *kind = slot->direct ? NULL : slot->kind;
    struct member *member = kind ? pool_generic_take(kind) : NULL;
    if (kind)
        pool_generic_asked(pool, kind);
    if (member) {
        if (!has_room(pool, 0, memory_mb - member->memory_mb)) {
            pool_generic_put(member);
            return STEP_FULL;
        }
        load(member, slot);
        return STEP_DONE;
    }
    if (kind && kind->creating > kind->promised) {
        kind->promised++;
        slot->promised++;
        return STEP_DONE;
    }
    if (!pool_may_start(pool, slot))
        return STEP_LATER;
    if (!has_room(pool, 1, memory_mb))
        return STEP_FULL;
    return start_for(pool, slot, err) == 0 ? STEP_DONE : STEP_FAILED;
}

static enum step refuse_too_large(const struct pool *pool, const struct pool_slot *slot,
                                  struct error *err)
{
    error_set(err, ERROR_NO_CAPACITY,
              "the function needs %lld MiB, this worker has %lld MiB for functions "
              "(WORKER_MEMORY_MB)",
              (long long)slot->function->spec.memory_mb, (long long)pool->options.memory_mb);
    return STEP_FAILED;
}

static void forget_promises(struct pool *pool)
{
    struct pool_slot *slot;
    struct generic_kind *kind;
    TAILQ_FOREACH(slot, &pool->slots, slots)
    slot->promised = 0;
    TAILQ_FOREACH(kind, &pool->kinds, kinds)
    kind->promised = 0;
}

/* False when there is no room for somebody. */
static bool serve_all(struct pool *pool)
{
    struct pool_slot *slot;
    while (pool->waiting > 0 && !pool->stopped && (slot = most_urgent(pool))) {
        struct error err = {0};
        bool too_large = slot->function->spec.memory_mb > pool->options.memory_mb;
        enum step step = too_large ? refuse_too_large(pool, slot, &err) : serve(pool, slot, &err);
        if (step == STEP_FULL)
            return false;
        if (step == STEP_DONE)
            slot->served_ns = clock_monotonic_ns();
        if (step == STEP_LATER)
            slot->promised = slot->waiting_count;
        if (step == STEP_FAILED) {
            struct invocation *invocation = pool_wait_take(pool, slot);
            pool_slot_drop_if_empty(pool, slot);
            pool_fail_lost(invocation, too_large ? "Platform.NoCapacity" : "Platform.StartFailed",
                           &err);
        }
    }
    return true;
}

/* For slots that lack instances, though nobody waits for them yet. Room is made for those that are to be kept only, and not at
 * the cost of others of that kind. */
static enum step serve_ahead(struct pool *pool, struct pool_slot *slot, uint64_t now_ns)
{
    struct error err = {0};
    int64_t memory_mb = slot->function->spec.memory_mb;
    enum step step = STEP_DONE;
    while (step == STEP_DONE && pool_idle_lack(pool, slot, now_ns) > 0 && allowed(slot) > 0) {
        if (memory_mb > pool->options.memory_mb || has_its_share(pool, slot) ||
            (slot->kept == 0 && !fits(pool, 1, memory_mb)))
            return STEP_FULL;
        step = serve(pool, slot, &err);
        if (step == STEP_FAILED)
            pool_idle_failed(pool, slot);
    }
    return step;
}

/* What waits for something that is under way is tried again after the next event; what has no room, at the next look. */
static void serve_lacking(struct pool *pool)
{
    struct pool_slot *slot;
    uint64_t now_ns = clock_monotonic_ns();
    pool->lacking = false;
    TAILQ_FOREACH(slot, &pool->slots, slots)
    {
        enum step step = serve_ahead(pool, slot, now_ns);
        pool->lacking |=
            step == STEP_LATER || slot->promised > 0 || (step == STEP_FULL && pool->stopping > 0);
        if (step == STEP_LATER)
            return;
    }
}

void pool_schedule(struct pool *pool)
{
    bool full = false;
    if (pool->waiting > 0 || pool->lacking)
        forget_promises(pool);
    if (pool->waiting > 0)
        full = !serve_all(pool);
    if (pool->lacking && !full && !pool->stopped)
        serve_lacking(pool);
    pool_generic_refill(pool);
}

static void deferred_schedule(void *data)
{
    struct pool *pool = data;
    pool->scheduled = false;
    pool_schedule(pool);
    pool_tell_stopped(pool);
}

void pool_schedule_later(struct pool *pool)
{
    if (!pool->scheduled && !pool->stopped)
        pool->scheduled = loop_defer(pool->loop, deferred_schedule, pool, NULL) == 0;
}
