/* Generic instances that are kept ready, by kind: image, runtime and network.
 *
 * A kind that was asked for lately is kept at its full number, one that is prewarmed at one, others at none. They are started in the
 * background, after those that somebody waits for, and go when room is needed, when they are too many, or when their image was replaced. */
#include "base/cleanup.h"
#include "base/log.h"
#include "base/loop.h"
#include "oci/image_store.h"
#include "worker/instance_spec.h"
#include "worker/network_policy.h"
#include "worker/pool_internal.h"

#include <stdlib.h>
#include <string.h>

#define KINDS_MAX 64
#define NS_PER_MS 1000000ull
/* A kind is in use for so long after it was asked for. */
#define KIND_USE_MS (10 * 60 * 1000)
#define TRIM_MS 30000
/* One that was taken is replaced after the call that took it has most likely been answered; when calls never pause, at the latest then. */
#define REFILL_DELAY_MS 20
#define REFILL_LATEST_MS 1000
/* Calls come until a pause of this length. */
#define CALLS_PAUSE_MS 50
/* So long one that rises is waited for at most: it may hang, or take its time on purpose, where its image is a stranger's. */
#define RISE_MAX_MS 5000
/* So many more than are started at the same time are prepared for it. */
#define PREPARED_AHEAD 2
#define RETRY_FIRST_MS 1000
#define RETRY_LAST_MS (5 * 60 * 1000)
/* The part of the memory that may be spent on them. */
#define MEMORY_SHARE 4

/* ---- kinds ---- */

/* What one may use while it waits, and is counted with: no stranger's code runs in it, so it needs no reserve, only what an interpreter
 * takes that has done nothing yet, and what the OCI runtime takes to start it. */
static int64_t waiting_memory_mb(enum function_runtime runtime)
{
    switch (runtime) {
    case RUNTIME_PYTHON:
        return 32;
    case RUNTIME_NODEJS:
        return 64;
    default:
        return 16;
    }
}

static void kind_free(struct pool *pool, struct generic_kind *kind)
{
    TAILQ_REMOVE(&pool->kinds, kind, kinds);
    pool->kind_count--;
    function_spec_deinit(&kind->spec);
    free(kind->command);
    free(kind);
}

static struct generic_kind *kind_find(struct pool *pool, const char *image,
                                      const struct function_spec *function)
{
    struct generic_kind *kind;
    TAILQ_FOREACH(kind, &pool->kinds, kinds)
    {
        if (kind->spec.runtime == function->runtime && kind->spec.network == function->network &&
            strcmp(kind->spec.image, image) == 0)
            return kind;
    }
    return NULL;
}

static struct generic_kind *kind_new(struct pool *pool, const char *image,
                                     const struct function_spec *function)
{
    struct generic_kind *kind = pool->kind_count < KINDS_MAX ? calloc(1, sizeof(*kind)) : NULL;
    if (!kind)
        return NULL;
    function_spec_init(&kind->spec);
    TAILQ_INIT(&kind->warm);
    TAILQ_INSERT_TAIL(&pool->kinds, kind, kinds);
    pool->kind_count++;
    kind->spec.runtime = function->runtime;
    kind->spec.network = function->network;
    kind->spec.memory_mb = waiting_memory_mb(function->runtime);
    free(kind->spec.image);
    kind->spec.image = strdup(image);
    kind->command = instance_generic_command(function->runtime, NULL);
    if (kind->spec.image && kind->command)
        return kind;
    kind_free(pool, kind);
    return NULL;
}

/* The name of its image in full; false when there is no kind for it. */
static bool has_kind(const struct pool *pool, const struct function_spec *function,
                     char image[IMAGE_NAME_MAX + 1])
{
    return pool->options.generic_size > 0 && pool->options.runtime->ops->specialise &&
           function->image && instance_takes_late_environment(function) &&
           !network_policy_waits(function) &&
           image_name_normalise(function->image, image, NULL) == 0;
}

struct generic_kind *pool_kind_for(struct pool *pool, const struct function_spec *function)
{
    char image[IMAGE_NAME_MAX + 1];
    if (!has_kind(pool, function, image))
        return NULL;
    struct generic_kind *kind = kind_find(pool, image, function);
    return kind ? kind : kind_new(pool, image, function);
}

void pool_kinds_free(struct pool *pool)
{
    struct generic_kind *kind;
    while ((kind = TAILQ_FIRST(&pool->kinds)))
        kind_free(pool, kind);
    loop_timer_stop(pool->refill);
    loop_timer_stop(pool->trim);
    pool->refill = pool->trim = NULL;
}

/* ---- policy: how many, and which one goes ---- */

static bool is_in_use(const struct generic_kind *kind, uint64_t now_ns)
{
    return kind->used_ns && now_ns - kind->used_ns < KIND_USE_MS * NS_PER_MS;
}

static size_t wanted(const struct pool *pool, const struct generic_kind *kind, uint64_t now_ns)
{
    if (is_in_use(kind, now_ns))
        return pool->options.generic_size;
    return kind->prewarmed ? 1 : 0;
}

static void on_refill(void *data);

static void arm_refill(struct pool *pool, uint64_t at_ns, uint64_t now_ns)
{
    if (pool->refill && pool->refill_ns <= at_ns)
        return;
    loop_timer_stop(pool->refill);
    pool->refill_ns = at_ns;
    pool->refill =
        loop_timer_start(pool->loop, at_ns > now_ns ? (at_ns - now_ns) / NS_PER_MS + 1 : 0, 0,
                         on_refill, pool, NULL);
}

/* The kind that lacks most; of equals the one that was asked for last. Those that failed are looked at again when their time has come. */
static struct generic_kind *neediest(struct pool *pool, uint64_t now_ns)
{
    struct generic_kind *needy = NULL, *kind;
    size_t most = 0;
    TAILQ_FOREACH(kind, &pool->kinds, kinds)
    {
        size_t number = wanted(pool, kind, now_ns);
        size_t lack = number > kind->instances ? number - kind->instances : 0;
        if (lack == 0)
            continue;
        if (kind->retry_ns > now_ns) {
            arm_refill(pool, kind->retry_ns, now_ns);
            continue;
        }
        if (lack > most || (lack == most && kind->used_ns > needy->used_ns)) {
            needy = kind;
            most = lack;
        }
    }
    return needy;
}

/* Of the kind that has most, and of those the one that was asked for longest ago. */
struct member *pool_generic_dispensable(struct pool *pool)
{
    const struct generic_kind *richest = NULL, *kind;
    TAILQ_FOREACH(kind, &pool->kinds, kinds)
    {
        if (kind->warm_count == 0)
            continue;
        if (!richest || kind->warm_count > richest->warm_count ||
            (kind->warm_count == richest->warm_count && kind->used_ns < richest->used_ns))
            richest = kind;
    }
    return richest ? TAILQ_FIRST(&richest->warm) : NULL;
}

static bool has_room(const struct pool *pool, int64_t memory_mb)
{
    const struct pool_options *options = &pool->options;
    return pool->count < options->max_instances &&
           pool->memory_mb + memory_mb <= options->memory_mb &&
           pool->generic_memory_mb + memory_mb <= options->memory_mb / MEMORY_SHARE;
}

/* ---- taking and giving ---- */

static void warm_remove(struct member *member)
{
    TAILQ_REMOVE(&member->kind->warm, member, idle);
    member->kind->warm_count--;
}

void pool_generic_asked(struct pool *pool, struct generic_kind *kind)
{
    uint64_t now_ns = clock_monotonic_ns();
    kind->used_ns = now_ns;
    pool->refill_due_ns = now_ns + REFILL_DELAY_MS * NS_PER_MS;
    if (pool->refill_latest_ns == 0)
        pool->refill_latest_ns = now_ns + REFILL_LATEST_MS * NS_PER_MS;
}

struct member *pool_generic_take(struct generic_kind *kind)
{
    struct member *member = TAILQ_FIRST(&kind->warm);
    if (member)
        warm_remove(member);
    return member;
}

void pool_generic_put(struct member *member)
{
    TAILQ_INSERT_HEAD(&member->kind->warm, member, idle);
    member->kind->warm_count++;
}

void pool_generic_evict(struct member *member, const char *why)
{
    log_debug("generic instance goes", LOG_STR("instance", instance_id(member->instance)),
              LOG_STR("image", member->kind->spec.image), LOG_STR("why", why));
    warm_remove(member);
    pool_member_stop(member);
}

void pool_generic_ended(struct member *member)
{
    warm_remove(member);
    pool_generic_failed(member->kind, "it ended");
}

void pool_generic_failed(struct generic_kind *kind, const char *why)
{
    uint64_t now_ns = clock_monotonic_ns();
    uint64_t pause_ms = RETRY_FIRST_MS;
    for (unsigned i = 0; i < kind->failures && pause_ms < RETRY_LAST_MS; i++)
        pause_ms *= 2;
    kind->failures++;
    kind->retry_ns = now_ns + pause_ms * NS_PER_MS;
    log_warn("generic instance failed", LOG_STR("image", kind->spec.image), LOG_STR("why", why),
             LOG_INT("failures", kind->failures), LOG_INT("retry_ms", (int64_t)pause_ms));
}

/* ---- in the background ---- */

static void trim(void *data)
{
    struct pool *pool = data;
    struct generic_kind *kind, *next;
    uint64_t now_ns = clock_monotonic_ns();
    for (kind = TAILQ_FIRST(&pool->kinds); kind; kind = next) {
        next = TAILQ_NEXT(kind, kinds);
        size_t number = wanted(pool, kind, now_ns);
        for (size_t have = kind->instances; have > number && kind->warm_count > 0; have--)
            pool_generic_evict(TAILQ_FIRST(&kind->warm), "more than are wanted");
        if (number == 0 && kind->members == 0 && kind->slots == 0)
            kind_free(pool, kind);
    }
}

static int start_one(struct pool *pool, struct generic_kind *kind, struct error *err)
{
    struct member *member = calloc(1, sizeof(*member));
    if (!member)
        return error_set(err, ERROR_INTERNAL, "out of memory");
    member->pool = pool;
    member->kind = kind;
    member->instance =
        instance_new_generic(pool->loop, pool->options.runtime, &kind->spec, kind->command,
                             &pool->options.limits, &pool_instance_events, member, err);
    if (!member->instance) {
        free(member);
        return -1;
    }
    kind->creating++;
    pool_start_begun(member);
    pool->rise_ns = member->begun_ns;
    pool_member_add(member, kind->spec.memory_mb);
    return 0;
}

static bool calls_come(const struct pool *pool, uint64_t now_ns)
{
    return pool->busy > 0 || now_ns - pool->call_ns < CALLS_PAUSE_MS * NS_PER_MS;
}

static size_t rising(const struct pool *pool)
{
    const struct generic_kind *kind;
    size_t count = 0;
    TAILQ_FOREACH(kind, &pool->kinds, kinds)
    count += kind->creating;
    return count;
}

/* That calls come: then one is started when another is ready and, on a small machine, has been for as long as its part demands. The
 * calls' pause ends that, too. */
static bool gives_way(struct pool *pool, uint64_t now_ns)
{
    size_t part = pool->cpus / POOL_CALLS_PART;
    uint64_t until_ns = pool->rest_ns;
    uint64_t pause_ns = pool->call_ns + CALLS_PAUSE_MS * NS_PER_MS;
    if (!calls_come(pool, now_ns))
        return false;
    if (rising(pool) >= (part > 0 ? part : 1))
        until_ns = pool->rise_ns + RISE_MAX_MS * NS_PER_MS;
    if (now_ns >= until_ns)
        return false;
    arm_refill(pool, pool->busy == 0 && pause_ns < until_ns ? pause_ns : until_ns, now_ns);
    return true;
}

static void on_refill(void *data)
{
    struct pool *pool = data;
    loop_timer_stop(pool->refill);
    pool->refill = NULL;
    pool_schedule(pool);
}

/* Now, or when a timer says so: calls go first. */
static bool may_refill(struct pool *pool, uint64_t now_ns)
{
    uint64_t due_ns = pool->waiting > 0 ? pool->refill_latest_ns : pool->refill_due_ns;
    if (now_ns >= due_ns)
        return true;
    arm_refill(pool, due_ns, now_ns);
    return false;
}

void pool_generic_refill(struct pool *pool)
{
    struct error err = {0};
    struct generic_kind *kind;
    uint64_t now_ns;
    if (pool->stopped || pool->nothing_ahead || pool->options.generic_size == 0 ||
        TAILQ_EMPTY(&pool->kinds))
        return;
    now_ns = clock_monotonic_ns();
    if (!pool->trim)
        pool->trim = loop_timer_start(pool->loop, TRIM_MS, TRIM_MS, trim, pool, NULL);
    while ((kind = neediest(pool, now_ns)) && has_room(pool, kind->spec.memory_mb)) {
        if (pool->starting + pool->refilling >= pool->options.start_parallel + PREPARED_AHEAD ||
            !may_refill(pool, now_ns) || gives_way(pool, now_ns) || !pool_may_start(pool, NULL))
            return;
        if (start_one(pool, kind, &err) < 0)
            pool_generic_failed(kind, err.message);
    }
    if (!kind)
        pool->refill_latest_ns = 0;
}

void pool_prewarm(struct pool *pool, const struct function_spec *like)
{
    struct generic_kind *kind = pool_kind_for(pool, like);
    if (!kind || kind->prewarmed)
        return;
    kind->prewarmed = true;
    kind->retry_ns = 0;
    pool_schedule_later(pool);
}

void pool_prewarm_no_more(struct pool *pool, const struct function_spec *like)
{
    char image[IMAGE_NAME_MAX + 1];
    struct generic_kind *kind = has_kind(pool, like, image) ? kind_find(pool, image, like) : NULL;
    if (kind)
        kind->prewarmed = false;
}

void pool_make_ahead(struct pool *pool, bool ahead)
{
    pool->nothing_ahead = !ahead;
    if (!ahead)
        return;
    pool->lacking = true;
    pool_schedule_later(pool);
}

void pool_images_changed(struct pool *pool)
{
    struct generic_kind *kind;
    TAILQ_FOREACH(kind, &pool->kinds, kinds)
    {
        struct member *member, *next;
        kind->retry_ns = 0;
        for (member = TAILQ_FIRST(&kind->warm); member; member = next) {
            next = TAILQ_NEXT(member, idle);
            if (instance_outdated(member->instance))
                pool_generic_evict(member, "its image was replaced or removed");
        }
    }
    pool_schedule_later(pool);
}
