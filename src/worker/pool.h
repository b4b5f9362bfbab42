/* Which instance runs which invocation.
 *
 * Idle instances are kept per function version; an invocation takes a place in a busy one that has any (a function's concurrency
 * above 1), the idle one that was used last, or waits for one that is made for it. Instances are made within bounds (number, memory, how many at
 * once); when there is no room, the idle ones that are worth least go first, and
 * invocations wait in order. An idle instance goes after keep_alive_ms, or when the function's history says that no call
 * is due, and one is made ahead of a call that is; keep_alive_ms 0 means that each
 * invocation gets an instance of its own. A function's own keep_alive_ms beats both, its max_instances bounds it here.
 *
 * Where the runtime can, generic instances are kept ready for each image, runtime and network that is in use, and a function that finds no
 * idle instance is loaded into one. It is that function's for ever. Loop thread only. */
#pragma once

#include "worker/idle_table.h"
#include "worker/instance.h"
#include "worker/invocation.h"

struct pool;

struct pool_options {
    struct runtime *runtime;
    struct instance_limits limits;
    uint64_t keep_alive_ms;
    struct idle_table *idle_table; /* histories of functions; borrowed. NULL: keep_alive_ms holds */
    int64_t freeze_after_ms;       /* an idle instance is frozen then; -1: never */
    int64_t memory_mb;             /* of all live instances' limits together */
    size_t max_instances;
    size_t start_parallel; /* instances being started at the same time */
    size_t generic_size;   /* generic ones of a kind that is in use; 0: none at all */
    /* Log text of a running invocation; see struct instance_events. */
    void (*log)(struct invocation *invocation, uint64_t offset, const char *text, size_t len);
};

struct pool *pool_new(uv_loop_t *loop, const struct pool_options *options, struct error *err);
/* After pool_stop()'s `done`. */
void pool_free(struct pool *pool);

/* From now on a generic instance for functions with this one's image, runtime and network is kept ready, even when there are no calls. */
void pool_prewarm(struct pool *pool, const struct function_spec *like);
/* From now on only while there are calls; as it was before pool_prewarm(). */
void pool_prewarm_no_more(struct pool *pool, const struct function_spec *like);
/* Whether instances are made before a call needs them: generic ones, those to be kept, those for calls that are due. Not so in one
 * that gets no calls or is to end soon; what a call needs is made all the same. */
void pool_make_ahead(struct pool *pool, bool ahead);
/* What an image's name means may have changed: generic instances of what it was go. */
void pool_images_changed(struct pool *pool);
/* `invocation->function` is set. Its done() is called exactly once, later, or from
 * inside when the pool is stopped. */
void pool_run(struct pool *pool, struct invocation *invocation);
/* Ends it with status cancelled, whether it waits or runs; its done() comes from inside. */
void pool_cancel(struct pool *pool, struct invocation *invocation);
/* So many instances of the function, idle or busy, there shall be from now on, whether there are calls or not. */
void pool_keep(struct pool *pool, struct function *function, size_t count);
/* Idle instances of that version go, and none are kept ready. */
void pool_forget(struct pool *pool, const char *name, int64_t version);
/* All instances go, at once; `done` when nothing is left. Invocations that still run are finished
 * as lost. Not from inside of an invocation's done(). */
void pool_stop(struct pool *pool, void (*done)(void *data), void *data);

size_t pool_instances(const struct pool *pool);
/* One after the other, for the state's list and the log. */
void pool_each(const struct pool *pool, void (*fn)(void *data, const struct instance *instance),
               void *data);
