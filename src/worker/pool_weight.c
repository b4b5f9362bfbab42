/* Functions share the processors, not instances: one with sixteen at work weighs, in all, as much as one with a single one.
 *
 * Each instance of a function counts as one part in so many, a power of two, so that few files are written while the number changes. More
 * at work is followed at once, fewer after a while. */
#include "base/loop.h"
#include "worker/pool_internal.h"

#define PARTS_MAX 64
#define LOOK_MS 1000

static unsigned parts_for(size_t count)
{
    unsigned parts = 1;
    while (parts < count && parts < PARTS_MAX)
        parts *= 2;
    return parts;
}

/* Instances that run something, or their function's code at its start. */
static size_t at_work(const struct pool_slot *slot)
{
    size_t alive = slot->instances - slot->stopping;
    size_t wanted = slot->busy + slot->creating;
    return wanted < alive ? wanted : alive;
}

static void weigh(struct member *member)
{
    unsigned parts = member->slot->parts;
    bool ends = instance_state(member->instance) == INSTANCE_STOPPING;
    if (member->parts != parts && !member->starting && !ends &&
        instance_weigh(member->instance, parts) == 0)
        member->parts = parts;
}

static void set_parts(struct pool *pool, struct pool_slot *slot, unsigned parts)
{
    struct member *member;
    slot->parts = parts;
    TAILQ_FOREACH(member, &pool->members, all)
    {
        if (member->slot == slot)
            weigh(member);
    }
}

void pool_weight_look(struct pool *pool)
{
    struct pool_slot *slot;
    bool shared = false;
    TAILQ_FOREACH(slot, &pool->slots, slots)
    {
        unsigned parts = parts_for(slot->most_at_work);
        if (parts < slot->parts)
            set_parts(pool, slot, parts);
        slot->most_at_work = at_work(slot);
        shared |= slot->parts > 1;
    }
    if (!shared)
        pool_weight_stop(pool);
}

static void on_look(void *data)
{
    pool_weight_look(data);
}

void pool_weight_changed(struct pool *pool, struct pool_slot *slot)
{
    size_t count = at_work(slot);
    if (count <= slot->most_at_work)
        return;
    slot->most_at_work = count;
    if (parts_for(count) <= slot->parts)
        return;
    set_parts(pool, slot, parts_for(count));
    if (!pool->weight && !pool->stopped)
        pool->weight = loop_timer_start(pool->loop, LOOK_MS, LOOK_MS, on_look, pool, NULL);
}

void pool_weight_joined(struct member *member)
{
    pool_weight_changed(member->pool, member->slot);
    weigh(member);
}

void pool_weight_stop(struct pool *pool)
{
    loop_timer_stop(pool->weight);
    pool->weight = NULL;
}
