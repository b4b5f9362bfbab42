/* One job at a time brings the packet filter from what it has (`now`) to what is wanted (`next`). */
#include "worker/network_policy.h"

#include "base/cleanup.h"
#include "base/log.h"
#include "base/loop.h"
#include "worker/network_shape.h"

#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>

struct network_policy {
    uv_loop_t *loop;
    struct network_policy_options options;
    struct destinations allow; /* owned */
    int64_t kbps;
    bool shaped;
    struct names_watch *watch;      /* NULL: no names in it */
    struct filter_policy now, next; /* owned */
    bool deferred, working, again, is_ready;
    struct error err; /* of the last job */
    void (*ready)(void *data, const struct error *err);
    void *ready_data;
    void (*closed)(void *data, const struct error *err);
    void *closed_data;
};

bool network_policy_needed(const struct function_spec *spec)
{
    return spec->network == NETWORK_BRIDGE &&
           (spec->network_allow.count > 0 || spec->network_kbps > 0);
}

bool network_policy_waits(const struct function_spec *spec)
{
    return network_policy_needed(spec) &&
           (spec->network_kbps > 0 || destinations_have_names(&spec->network_allow));
}

static void policy_free(struct network_policy *policy)
{
    names_unwatch(policy->watch);
    destinations_deinit(&policy->allow);
    filter_policy_deinit(&policy->now);
    filter_policy_deinit(&policy->next);
    free(policy);
}

/* ---- what is wanted ---- */

static void append(struct filter_range *ranges, size_t *count, const struct destination *from,
                   uint32_t first, uint32_t last)
{
    struct filter_range range = {
        .first = first, .last = last, .port_first = from->port_first, .port_last = from->port_last};

    range.protocol = IPPROTO_TCP;
    if (from->tcp)
        ranges[(*count)++] = range;
    range.protocol = IPPROTO_UDP;
    if (from->udp)
        ranges[(*count)++] = range;
}

static int fill_ranges(const struct network_policy *policy, struct filter_policy *ret,
                       struct error *err)
{
    size_t count = 0;
    autofree struct filter_range *ranges =
        calloc(policy->allow.count * 2 * NAME_ADDRESSES_MAX + 1, sizeof(*ranges));

    if (!ranges)
        return error_set(err, ERROR_INTERNAL, "out of memory");
    for (size_t i = 0; i < policy->allow.count; i++) {
        const struct destination *item = &policy->allow.items[i];
        const uint32_t *addresses = NULL;
        size_t known = item->name ? names_addresses(policy->watch, item->name, &addresses) : 0;
        if (!item->name)
            append(ranges, &count, item, item->first, item->last);
        for (size_t j = 0; j < known; j++)
            append(ranges, &count, item, addresses[j], addresses[j]);
    }
    return filter_ranges_disjoint(ranges, count, &ret->ranges, &ret->range_count, err);
}

static int fill_next(struct network_policy *policy, struct error *err)
{
    filter_policy_deinit(&policy->next);
    if (policy->closed || policy->allow.count == 0)
        return 0;
    policy->next.limited = true;
    policy->next.names = policy->watch != NULL;
    return fill_ranges(policy, &policy->next, err);
}

/* ---- the job ---- */

static void apply_work(void *job)
{
    struct network_policy *policy = job;

    policy->err = (struct error){0};
    if (network_filter_change(policy->options.table, policy->options.address, &policy->now,
                              &policy->next, &policy->err) < 0)
        return;
    filter_policy_deinit(&policy->now);
    policy->now = policy->next;
    policy->next = (struct filter_policy){0};
    if (policy->kbps > 0 && !policy->shaped && !policy->closed)
        policy->shaped = network_shape(policy->options.path, policy->options.host_interface,
                                       policy->kbps, &policy->err) == 0;
}

static void start_job(void *data);

static void finish_close(struct network_policy *policy)
{
    void (*closed)(void *, const struct error *) = policy->closed;
    void *data = policy->closed_data;
    struct error err = policy->err;

    policy_free(policy);
    closed(data, err.code ? &err : NULL);
}

static void tell_ready(struct network_policy *policy)
{
    if (policy->is_ready) {
        if (policy->err.code)
            log_warn("an instance's packet filter is out of date",
                     LOG_STR("namespace", policy->options.path), LOG_ERR(&policy->err));
        return;
    }
    policy->is_ready = true;
    policy->ready(policy->ready_data, policy->err.code ? &policy->err : NULL);
}

static void applied(void *job)
{
    struct network_policy *policy = job;
    bool was_close = policy->closed && !policy->again;

    policy->working = false;
    if (was_close) {
        finish_close(policy);
        return;
    }
    if (policy->again) {
        start_job(policy);
        return;
    }
    tell_ready(policy);
}

/* Also the event that names have changed. */
static void start_job(void *data)
{
    struct network_policy *policy = data;

    policy->again = policy->working;
    if (policy->working)
        return;
    policy->working = true;
    policy->err = (struct error){0};
    if (fill_next(policy, &policy->err) == 0 &&
        loop_work(policy->loop, apply_work, applied, policy, &policy->err) == 0)
        return;
    /* Never from inside the call that wanted it: everybody who calls this is an event or defers. */
    applied(policy);
}

static void on_deferred(void *data)
{
    struct network_policy *policy = data;

    policy->deferred = false;
    start_job(policy);
}

static int defer_job(struct network_policy *policy, struct error *err)
{
    if (policy->deferred)
        return 0;
    policy->deferred = loop_defer(policy->loop, on_deferred, policy, err) == 0;
    return policy->deferred ? 0 : -1;
}

static struct network_policy *policy_new(uv_loop_t *loop,
                                         const struct network_policy_options *options,
                                         const struct function_spec *spec, struct error *err)
{
    struct network_policy *policy = calloc(1, sizeof(*policy));

    if (!policy || destinations_copy(&policy->allow, &spec->network_allow) < 0) {
        free(policy);
        error_set(err, ERROR_INTERNAL, "out of memory");
        return NULL;
    }
    policy->loop = loop;
    policy->options = *options;
    policy->kbps = spec->network_kbps;
    return policy;
}

struct network_policy *network_policy_start_now(uv_loop_t *loop,
                                                const struct network_policy_options *options,
                                                const struct function_spec *spec, struct error *err)
{
    struct network_policy *policy = policy_new(loop, options, spec, err);

    if (!policy)
        return NULL;
    policy->is_ready = true;
    if (fill_next(policy, &policy->err) == 0)
        apply_work(policy);
    if (!policy->err.code)
        return policy;
    if (err)
        *err = policy->err;
    policy_free(policy);
    return NULL;
}

struct network_policy *network_policy_start(uv_loop_t *loop, struct names *names,
                                            const struct network_policy_options *options,
                                            const struct function_spec *spec,
                                            void (*ready)(void *data, const struct error *err),
                                            void *data, struct error *err)
{
    struct network_policy *policy = policy_new(loop, options, spec, err);

    if (!policy)
        return NULL;
    policy->ready = ready;
    policy->ready_data = data;
    if (destinations_have_names(&policy->allow))
        policy->watch = names_watch(names, &policy->allow, start_job, policy, err);
    if ((destinations_have_names(&policy->allow) && !policy->watch) ||
        (!policy->watch && defer_job(policy, err) < 0)) {
        policy_free(policy);
        return NULL;
    }
    return policy;
}

void network_policy_close(struct network_policy *policy,
                          void (*closed)(void *data, const struct error *err), void *data)
{
    names_unwatch(policy->watch);
    policy->watch = NULL;
    policy->closed = closed;
    policy->closed_data = data;
    if (policy->working)
        policy->again = true;
    else if (defer_job(policy, NULL) < 0)
        start_job(policy);
}
