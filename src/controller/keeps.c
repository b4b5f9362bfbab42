/* Instances that are kept ready: see keeps.h. */
#include "controller/keeps.h"

#include "base/log.h"
#include "base/loop.h"
#include "controller/controller.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A plan without a reason, for what nobody told us of. */
#define PLAN_EVERY_MS 1000
/* A worker that does not say what it was told is told again after so long. */
#define TELL_AGAIN_MS 5000
/* A worker keeps no more versions (worker/kept.c); what it says beyond that is passed over. */
#define SAID_MAX 8192
#define NS_PER_MS 1000000ULL

/* ---- one worker's part ---- */

static struct keep *keep_get(struct worker_session *session, const char *function, int64_t version)
{
    char key[VERSION_KEY_MAX];
    snprintf(key, sizeof(key), "%.*s/%lld", FUNCTION_NAME_MAX, function, (long long)version);
    struct keep *keep = string_map_get(&session->keeps, key);
    if (keep)
        return keep;
    keep = calloc(1, sizeof(*keep));
    if (!keep)
        return NULL;
    memcpy(keep->key, key, sizeof(key));
    snprintf(keep->function, sizeof(keep->function), "%s", function);
    keep->version = version;
    if (string_map_put(&session->keeps, keep->key, keep, NULL) < 0) {
        free(keep);
        return NULL;
    }
    return keep;
}

void keeps_clear(struct worker_session *session)
{
    string_map_for_each(slot, &session->keeps) free(slot->value);
    string_map_deinit(&session->keeps);
}

void keeps_read(struct worker_session *session, const struct json *kept)
{
    string_map_for_each(slot, &session->keeps)((struct keep *)slot->value)->said = 0;
    json_foreach (i, item, kept) {
        const char *function = json_get_string(item, "function");
        int64_t count = json_get_int(item, "count", 0);
        struct keep *keep = function && function_name_valid(function) && count > 0 &&
                                    session->keeps.count < SAID_MAX
                                ? keep_get(session, function, json_get_int(item, "version", 0))
                                : NULL;
        if (keep)
            keep->said = count;
    }
}

static bool can_keep(const struct worker_session *session)
{
    return !session->lost && !session->dispatch.draining && session->described;
}

static int64_t memory_kept_mb(const struct worker_session *session)
{
    int64_t sum = 0;
    string_map_for_each(slot, &session->keeps)
    {
        const struct keep *keep = slot->value;
        sum += keep->wanted * keep->memory_mb;
    }
    return sum;
}

static struct worker_session *session_of(struct list *link)
{
    return (struct worker_session *)list_entry(link, struct dispatch_worker, link);
}

/* ---- the plan ---- */

/* Versions that do not serve any more, and workers that cannot: nothing. */
static void drop_outdated(struct controller *controller, struct worker_session *session)
{
    string_map_for_each(slot, &session->keeps)
    {
        struct keep *keep = slot->value;
        const struct function_entry *function =
            registry_find(&controller->registry, keep->function);
        if (!can_keep(session) || !function || !function->current ||
            strcmp(function->current->key, keep->key) != 0 ||
            !placement_fits(&controller->dispatch.placement, function->current,
                            session->dispatch.place))
            keep->wanted = 0;
    }
}

/* How many instances of the version this worker keeps, and whether it can keep one more. */
struct share {
    struct worker_session *session;
    int64_t count;
    int64_t memory_mb;
    bool has_room;
};

static struct share share_of(const struct controller *controller, struct worker_session *session,
                             struct function_version *version)
{
    const struct keep *keep = string_map_get(&session->keeps, version->key);
    int64_t memory_mb = memory_kept_mb(session);
    return (struct share){.session = session,
                          .count = keep ? keep->wanted : 0,
                          .memory_mb = memory_mb,
                          .has_room = can_keep(session) &&
                                      placement_fits(&controller->dispatch.placement, version,
                                                     session->dispatch.place) &&
                                      memory_mb + version->record.spec.memory_mb <=
                                          json_get_int(session->described, "memory_mb", 0)};
}

/* One more at the worker that keeps the fewest of this version, or the least of all; or one less where most are. */
static bool move_one(struct controller *controller, struct function_version *version, int by)
{
    struct share best = {0};
    list_for_each(link, &controller->sessions.all)
    {
        struct share share = share_of(controller, session_of(link), version);
        if (by > 0 ? !share.has_room : share.count == 0)
            continue;
        int64_t difference =
            share.count != best.count ? share.count - best.count : share.memory_mb - best.memory_mb;
        if (!best.session || difference * by < 0)
            best = share;
    }
    struct keep *keep =
        best.session ? keep_get(best.session, version->function->name, version->record.spec.version)
                     : NULL;
    if (!keep)
        return false;
    keep->memory_mb = version->record.spec.memory_mb;
    keep->wanted += by;
    return true;
}

static int64_t count_wanted(struct controller *controller, struct function_version *version)
{
    int64_t count = 0;
    list_for_each(link, &controller->sessions.all) count +=
        share_of(controller, session_of(link), version).count;
    return count;
}

/* False when it needs no more looking after. */
static bool plan_function(struct controller *controller, struct function_entry *function)
{
    struct function_version *version = function->current;
    int64_t min = version ? version->record.spec.min_instances : 0;
    int64_t count = version ? count_wanted(controller, version) : 0;
    while (count < min && move_one(controller, version, 1))
        count++;
    while (count > min && move_one(controller, version, -1))
        count--;
    if (count < min && !function->kept_short && sessions_alive(controller) > 0)
        log_warn("no worker may or has memory to keep all instances of a function ready",
                 LOG_STR("function", function->name), LOG_INT("min_instances", min),
                 LOG_INT("kept", count));
    function->kept_short = count < min;
    return min > 0;
}

static void plan(struct controller *controller)
{
    list_for_each(link, &controller->sessions.all) drop_outdated(controller, session_of(link));
    list_for_each(link, &controller->registry.kept)
    {
        if (!plan_function(controller, list_entry(link, struct function_entry, kept_link)))
            list_remove(link);
    }
}

/* ---- telling ---- */

static void tell(struct worker_session *session, struct keep *keep, uint64_t now_ns)
{
    char head[192];
    snprintf(head, sizeof(head),
             "{\"kind\":\"keep\",\"function\":\"%s\",\"version\":%lld,\"count\":%lld}",
             keep->function, (long long)keep->version, (long long)keep->wanted);
    if (session_tell(session, head, NULL) < 0)
        return;
    keep->told = keep->wanted;
    keep->told_ns = now_ns;
}

static bool is_due(const struct keep *keep, uint64_t now_ns)
{
    if (keep->told != keep->wanted)
        return true;
    return keep->said != keep->wanted && now_ns - keep->told_ns > TELL_AGAIN_MS * NS_PER_MS;
}

static bool is_over(const void *value)
{
    const struct keep *keep = value;
    return keep->wanted == 0 && keep->told == 0 && keep->said == 0;
}

static void tell_all(struct worker_session *session, uint64_t now_ns)
{
    if (session->lost || session->keeps.count == 0)
        return;
    string_map_for_each(slot, &session->keeps)
    {
        if (is_due(slot->value, now_ns))
            tell(session, slot->value, now_ns);
    }
    string_map_sweep(&session->keeps, is_over, free);
    session_flush(session);
}

/* ---- time ---- */

void keeps_workers_changed(struct controller *controller)
{
    controller->registry.kept_changed = true;
}

void keeps_tick(struct controller *controller)
{
    uint64_t now_ns = clock_monotonic_ns();
    if (controller->draining || (!controller->registry.kept_changed &&
                                 now_ns - controller->planned_ns < PLAN_EVERY_MS * NS_PER_MS))
        return;
    controller->registry.kept_changed = false;
    controller->planned_ns = now_ns;
    plan(controller);
    list_for_each(link, &controller->sessions.all) tell_all(session_of(link), now_ns);
}
