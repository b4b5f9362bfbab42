/* What becomes of idle instances: how long each is kept, when it is frozen, which one goes when room is needed; and which are made before
 * anybody waits for them, because some are to be kept ready or because a call is due. */
#include "base/log.h"
#include "base/loop.h"
#include "worker/pool_internal.h"

#include <assert.h>

#define NS_PER_MS 1000000ull
/* Idle instances are looked at so often at least. */
#define LOOK_MS 10000
/* When no call is due for a while, the instance goes so long after the last one; not at once, because calls like company. */
#define UNLOAD_MS 10000
#define RETRY_FIRST_MS 1000
#define RETRY_LAST_MS (5 * 60 * 1000)

/* ---- how long ---- */

uint64_t pool_fixed_keep_alive_ms(const struct pool *pool, const struct pool_slot *slot)
{
    int64_t own_ms = slot->function->spec.keep_alive_ms;
    return own_ms >= 0 ? (uint64_t)own_ms : pool->options.keep_alive_ms;
}

/* What its history says, when that may decide. */
static struct idle_windows windows_of(const struct pool *pool, const struct pool_slot *slot)
{
    uint64_t fixed_ms = pool_fixed_keep_alive_ms(pool, slot);
    if (!pool->options.idle_table || slot->function->spec.keep_alive_ms >= 0 || fixed_ms == 0)
        return (struct idle_windows){.keep_alive_ms = fixed_ms};
    return idle_table_windows(pool->options.idle_table, slot->function->spec.name, fixed_ms);
}

static uint64_t least(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

/* How long its idle instances stay, and whether that is counted from when each became idle, or (they wait for a call that is due)
 * from when the slot did. */
struct term {
    uint64_t ms;
    bool of_slot;
};

static struct term term_of(const struct pool *pool, const struct pool_slot *slot, uint64_t now_ns)
{
    struct idle_windows windows = windows_of(pool, slot);
    uint64_t fixed_ms = pool_fixed_keep_alive_ms(pool, slot);
    if (!windows.learnt)
        return (struct term){.ms = windows.keep_alive_ms};
    if (slot->rests_ns == 0) /* others of it are at work: this one is surplus */
        return (struct term){.ms = least(fixed_ms, windows.keep_alive_ms)};
    if (windows.prewarm_ms > 0 && now_ns < slot->rests_ns + windows.prewarm_ms * NS_PER_MS)
        return (struct term){.ms = least(fixed_ms, UNLOAD_MS)};
    return (struct term){.ms = windows.keep_alive_ms, .of_slot = true};
}

static size_t alive(const struct pool_slot *slot)
{
    return slot->instances - slot->stopping;
}

static bool may_go(const struct pool_slot *slot)
{
    return alive(slot) > slot->kept;
}

/* Lets idle ones go whose term is over; returns when the next one's is, UINT64_MAX: never. */
static uint64_t expire(struct pool *pool, struct pool_slot *slot, uint64_t now_ns)
{
    struct term term = term_of(pool, slot, now_ns);
    struct member *member;
    while ((member = TAILQ_LAST(&slot->idle, member_list)) && may_go(slot)) {
        uint64_t since_ns = term.of_slot ? slot->rests_ns : member->idle_since_ns;
        uint64_t end_ns = since_ns + term.ms * NS_PER_MS;
        if (end_ns > now_ns)
            return end_ns;
        pool_evict(member, "keep-alive is over");
    }
    return UINT64_MAX;
}

/* ---- a call that is due ---- */

/* When a resting slot without an instance gets one, 0: not any more. */
static uint64_t prewarm_at(const struct pool *pool, const struct pool_slot *slot, uint64_t now_ns)
{
    struct idle_windows windows = windows_of(pool, slot);
    if (slot->rests_ns == 0 || slot->forgotten || pool->stopped || windows.prewarm_ms == 0 ||
        now_ns >= slot->rests_ns + windows.keep_alive_ms * NS_PER_MS)
        return 0;
    return slot->rests_ns + windows.prewarm_ms * NS_PER_MS;
}

bool pool_idle_needs_slot(const struct pool *pool, const struct pool_slot *slot)
{
    if (pool->stopped)
        return false;
    return slot->kept > 0 || prewarm_at(pool, slot, clock_monotonic_ns()) > 0;
}

/* Whether one is to be made now; returns when it will have to be looked at, UINT64_MAX: never. */
static uint64_t prewarm(const struct pool *pool, struct pool_slot *slot, uint64_t now_ns)
{
    uint64_t at_ns = alive(slot) == 0 ? prewarm_at(pool, slot, now_ns) : 0;
    slot->prewarm = at_ns > 0 && at_ns <= now_ns;
    if (at_ns == 0 && alive(slot) == 0)
        slot->rests_ns = 0; /* for too long: no call is expected any more */
    if (at_ns == 0)
        return UINT64_MAX;
    return slot->prewarm ? now_ns + LOOK_MS * NS_PER_MS : at_ns;
}

size_t pool_idle_lack(const struct pool *pool, const struct pool_slot *slot, uint64_t now_ns)
{
    if (slot->forgotten || pool->stopped || pool->nothing_ahead || now_ns < slot->retry_ns)
        return 0;
    size_t coming = alive(slot) + slot->promised;
    size_t wanted = slot->kept > 0 ? slot->kept : slot->prewarm ? 1 : 0;
    return wanted > coming ? wanted - coming : 0;
}

/* ---- looking ---- */

static void on_look(void *data)
{
    struct pool *pool = data;
    pool_idle_look(pool, clock_monotonic_ns());
}

static void look_at(struct pool *pool, uint64_t at_ns, uint64_t now_ns)
{
    if ((pool->look && pool->look_ns <= at_ns) || pool->stopped)
        return;
    uint64_t ms = at_ns > now_ns ? (at_ns - now_ns) / NS_PER_MS + 1 : 0;
    loop_timer_stop(pool->look);
    pool->look_ns = at_ns;
    pool->look = loop_timer_start(pool->loop, ms, 0, on_look, pool, NULL);
}

void pool_idle_look(struct pool *pool, uint64_t now_ns)
{
    struct pool_slot *slot, *next;
    uint64_t at_ns = now_ns + LOOK_MS * NS_PER_MS;
    loop_timer_stop(pool->look);
    pool->look = NULL;
    for (slot = TAILQ_FIRST(&pool->slots); slot; slot = next) {
        next = TAILQ_NEXT(slot, slots);
        at_ns = least(at_ns, expire(pool, slot, now_ns));
        at_ns = least(at_ns, prewarm(pool, slot, now_ns));
        if (slot->kept > 0 && slot->retry_ns > now_ns)
            at_ns = least(at_ns, slot->retry_ns);
        pool->lacking |= pool_idle_lack(pool, slot, now_ns) > 0;
        pool_slot_drop_if_empty(pool, slot);
    }
    if (!TAILQ_EMPTY(&pool->slots))
        look_at(pool, at_ns, now_ns);
    if (pool->lacking)
        pool_schedule_later(pool);
}

/* ---- freezing ---- */

static void freeze(struct member *member)
{
    struct pool *pool = member->pool;
    struct error err = {0};
    if (pool->cannot_freeze || instance_freeze(member->instance, &err) == 0)
        return;
    log_warn("instances cannot be frozen here; idle ones stay as they are", LOG_ERR(&err));
    pool->cannot_freeze = true;
}

static void freeze_arm(struct pool *pool);

static void on_freeze(void *data)
{
    struct pool *pool = data;
    struct member *member;
    uint64_t now_ns = clock_monotonic_ns();
    uint64_t after_ns = (uint64_t)pool->options.freeze_after_ms * NS_PER_MS;
    loop_timer_stop(pool->freeze);
    pool->freeze = NULL;
    while ((member = TAILQ_FIRST(&pool->unfrozen)) && now_ns - member->idle_since_ns >= after_ns) {
        TAILQ_REMOVE(&pool->unfrozen, member, to_freeze);
        member->unfrozen = false;
        freeze(member);
    }
    freeze_arm(pool);
}

/* For the one that is idle for longest; those after it are looked at when it fires. */
static void freeze_arm(struct pool *pool)
{
    const struct member *first = TAILQ_FIRST(&pool->unfrozen);
    if (!first || pool->freeze)
        return;
    uint64_t idle_ms = (clock_monotonic_ns() - first->idle_since_ns) / NS_PER_MS;
    uint64_t after_ms = (uint64_t)pool->options.freeze_after_ms;
    pool->freeze = loop_timer_start(pool->loop, idle_ms < after_ms ? after_ms - idle_ms + 1 : 1, 0,
                                    on_freeze, pool, NULL);
}

static void freeze_later(struct member *member)
{
    struct pool *pool = member->pool;
    if (pool->options.freeze_after_ms < 0 || pool->cannot_freeze)
        return;
    if (pool->options.freeze_after_ms == 0) {
        freeze(member);
        return;
    }
    TAILQ_INSERT_TAIL(&pool->unfrozen, member, to_freeze);
    member->unfrozen = true;
    freeze_arm(pool);
}

/* ---- events ---- */

void pool_idle_add(struct member *member)
{
    struct pool *pool = member->pool;
    struct pool_slot *slot = member->slot;
    uint64_t now_ns = clock_monotonic_ns();
    uint64_t keep_ms = pool_fixed_keep_alive_ms(pool, slot);
    member->idle_since_ns = now_ns;
    /* One that was made for a call which another took has its first use before it. */
    member->worth = eviction_worth(&pool->eviction, member->uses ? member->uses : 1,
                                   instance_start_ns(member->instance), member->memory_mb);
    TAILQ_INSERT_HEAD(&slot->idle, member, idle);
    TAILQ_INSERT_TAIL(&pool->idle, member, age);
    freeze_later(member);
    /* No term is shorter than this. */
    look_at(pool, now_ns + least(keep_ms, LOOK_MS) * NS_PER_MS, now_ns);
}

void pool_idle_remove(struct member *member)
{
    struct pool *pool = member->pool;
    TAILQ_REMOVE(&member->slot->idle, member, idle);
    TAILQ_REMOVE(&pool->idle, member, age);
    if (member->unfrozen)
        TAILQ_REMOVE(&pool->unfrozen, member, to_freeze);
    member->unfrozen = false;
}

void pool_idle_used(struct member *member, uint64_t received_ns)
{
    struct pool *pool = member->pool;
    struct pool_slot *slot = member->slot;
    if (slot->busy++ == 0 && pool->options.idle_table)
        idle_table_called(pool->options.idle_table, slot->function->spec.name, received_ns);
    pool->busy++;
    slot->rests_ns = 0;
    slot->prewarm = false;
    if (member->uses++ == 0)
        slot->failures = 0;
}

void pool_idle_finished(struct pool *pool, struct pool_slot *slot)
{
    assert(slot->busy > 0);
    pool->busy--;
    pool->call_ns = clock_monotonic_ns();
    if (--slot->busy > 0)
        return;
    slot->rests_ns = pool->call_ns;
    if (pool->options.idle_table)
        idle_table_rests(pool->options.idle_table, slot->function->spec.name, slot->rests_ns);
}

void pool_idle_ready(struct pool_slot *slot)
{
    slot->retry_ns = 0;
}

void pool_idle_failed(struct pool *pool, struct pool_slot *slot)
{
    uint64_t now_ns = clock_monotonic_ns();
    uint64_t pause_ms = RETRY_FIRST_MS;
    for (unsigned i = 0; i < slot->failures && pause_ms < RETRY_LAST_MS; i++)
        pause_ms *= 2;
    slot->failures++;
    slot->retry_ns = now_ns + pause_ms * NS_PER_MS;
    slot->prewarm = false;
    if (slot->kept == 0)
        return;
    log_warn("an instance that is to be kept ready did not become or stay so",
             LOG_STR("function", slot->function->spec.name),
             LOG_INT("version", slot->function->spec.version),
             LOG_INT("retry_ms", (int64_t)pause_ms));
    look_at(pool, slot->retry_ns, now_ns);
}

/* Once may be chance, and after a long time it is no failure of its start. */
void pool_idle_ended(struct member *member)
{
    struct pool_slot *slot = member->slot;
    if (member->used)
        return;
    if (clock_monotonic_ns() - member->idle_since_ns >= RETRY_LAST_MS * NS_PER_MS)
        slot->failures = 0;
    if (slot->failures > 0)
        pool_idle_failed(member->pool, slot);
    else
        slot->failures = 1;
}

/* ---- who goes ---- */

struct member *pool_idle_dispensable(const struct pool *pool, bool kept)
{
    struct member *least_worth = NULL, *member;
    TAILQ_FOREACH(member, &pool->idle, age)
    {
        if ((kept || may_go(member->slot)) && (!least_worth || member->worth < least_worth->worth))
            least_worth = member;
    }
    return least_worth;
}

void pool_idle_stop(struct pool *pool)
{
    loop_timer_stop(pool->look);
    loop_timer_stop(pool->freeze);
    pool->look = pool->freeze = NULL;
}
