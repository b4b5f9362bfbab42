/* The pool of network namespaces: who wants one, which are ready, and how many are made in advance. */
#include "worker/network_item.h"

#include "base/cleanup.h"
#include "base/file.h"
#include "base/log.h"
#include "base/loop.h"
#include "base/text.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define STATE_DEFAULT "/run/faas/cni"
#define BRIDGE_DEFAULT "faas0"
#define SUBNET_DEFAULT "10.88.64.0/18"
/* Namespaces of one kind on their way up at once, so that a burst of takes does not start a burst of plugins. */
#define MAKING_MAX 4

struct take {
    struct take *next;
    struct network *network;
    enum function_network kind;
    network_done_fn *done;
    void *data;
    struct item *item; /* what it gets, or: */
    struct error err;  /* why it gets none */
};

static void refill(struct network *network);
static void check_stopped(struct network *network);

/* ---- the list of items ---- */

static size_t count_items(const struct network *network, enum function_network kind,
                          enum item_state first, enum item_state last)
{
    size_t count = 0;

    for (const struct item *item = network->items; item; item = item->next)
        count += item->kind == kind && item->state >= first && item->state <= last;
    return count;
}

struct item *network_find_ready(const struct network *network, enum function_network kind)
{
    for (struct item *item = network->items; item; item = item->next)
        if (item->kind == kind && item->state == READY)
            return item;
    return NULL;
}

/* ---- takes ---- */

static struct take *pop_take(struct network *network, enum function_network kind)
{
    for (struct take **at = &network->takes; *at; at = &(*at)->next) {
        struct take *take = *at;
        if (take->kind != kind)
            continue;
        *at = take->next;
        return take;
    }
    return NULL;
}

static size_t count_takes(const struct network *network, enum function_network kind)
{
    size_t count = 0;

    for (const struct take *take = network->takes; take; take = take->next)
        count += take->kind == kind;
    return count;
}

static void deliver(void *data)
{
    struct take *take = data;
    struct network *network = take->network;

    network->deliveries--;
    /* network_stop() destroys what was taken, so nobody may be given it any more. */
    if (network->stopping && !take->err.code)
        error_set(&take->err, ERROR_UNAVAILABLE, "the worker is stopping");
    if (take->err.code)
        take->done(take->data, NULL, &take->err);
    else
        take->done(take->data, &take->item->public, NULL);
    free(take);
    check_stopped(network);
}

/* Exactly one of `item` and `err` is not NULL. Deferred, so that no caller of network_take() is called back from within it. */
static void finish_take(struct take *take, struct item *item, const struct error *err)
{
    take->item = item;
    if (item)
        item->state = TAKEN;
    else
        take->err = *err;
    take->network->deliveries++;
    if (loop_defer(take->network->loop, deliver, take, NULL) < 0)
        deliver(take);
}

/* Gives what is ready to those who wait. */
static void serve(struct network *network, enum function_network kind)
{
    struct item *item;

    while (!network->stopping && count_takes(network, kind) > 0 &&
           (item = network_find_ready(network, kind)))
        finish_take(pop_take(network, kind), item, NULL);
}

/* ---- what comes of namespaces ---- */

/* The oldest waiting take learns of it; without one it was for the pool. */
void network_item_failed(struct item *item)
{
    struct network *network = item->network;
    struct error err = item->err;
    struct take *take = network->stopping ? NULL : pop_take(network, item->kind);

    if (!take && !network->stopping)
        log_warn("network namespace for the pool could not be made",
                 LOG_STR("network", function_network_name(item->kind)), LOG_ERR(&err));
    network->stalled[item->kind] = true;
    bool wired = item->state == WIRING;
    if (wired)
        network_item_destroy(item);
    else
        network_item_free(item);
    if (take)
        finish_take(take, NULL, &err);
    refill(network);
    check_stopped(network);
}

void network_item_came_up(struct item *item)
{
    struct network *network = item->network;

    item->state = READY;
    network->stalled[item->kind] = false;
    if (network->stopping) {
        network_item_destroy(item);
        return;
    }
    serve(network, item->kind);
    refill(network);
}

static void fail_takes(struct network *network, enum function_network kind, const struct error *err)
{
    struct take *take;

    while ((take = pop_take(network, kind)))
        finish_take(take, NULL, err);
}

static void refill_kind(struct network *network, enum function_network kind)
{
    struct error err = {0};

    if (kind == NETWORK_BRIDGE && network->bridge_problem.code)
        return;
    for (;;) {
        size_t waiting = count_takes(network, kind);
        size_t wanted = waiting + (network->stalled[kind] ? 0 : network->pool[kind]);
        size_t rising = count_items(network, kind, MAKING, WIRING);
        size_t most = waiting < MAKING_MAX ? waiting + 1 : MAKING_MAX; /* one ahead of who waits */
        if (rising >= most || rising + count_items(network, kind, READY, READY) >= wanted)
            return;
        if (network_item_start(network, kind, &err) < 0) {
            network->stalled[kind] = true;
            if (rising == 0)
                fail_takes(network, kind, &err);
            return;
        }
    }
}

static void refill(struct network *network)
{
    if (network->stopping)
        return;
    refill_kind(network, NETWORK_BRIDGE);
    refill_kind(network, NETWORK_NONE);
}

void network_item_gone(struct network *network)
{
    refill(network);
    check_stopped(network);
}

/* ---- start ---- */

static int check_bridge(struct network *network, struct error *err)
{
    if (!interface_name_valid(network->bridge))
        return error_set(err, ERROR_INVALID_REQUEST, "\"%.32s\" cannot name a network bridge",
                         network->bridge);
    if (subnet_parse(network->subnet, &network->subnet_parsed, err) < 0)
        return -1;
    autofree char *path = cni_find_plugin(&network->cni, "bridge", err);
    return path ? 0 : -1;
}

static int join_bridge(struct network *network, struct error *err)
{
    const struct network_host_options options = {.worker = network->worker,
                                                 .bridge = network->bridge,
                                                 .subnet = network->subnet,
                                                 .state = network->state,
                                                 .denied = network->denied,
                                                 .name_servers = &network->name_servers};

    if (check_bridge(network, err) < 0)
        return -1;
    network->host = network_host_join(&options, err);
    if (!network->host)
        return -1;
    autofree char *folder = string_printf("%s/addresses", network_host_folder(network->host));
    network->addresses =
        folder ? network_addresses_new(folder, &network->subnet_parsed, err) : NULL;
    if (network->addresses)
        return 0;
    network_host_leave(steal_pointer(&network->host));
    return folder ? -1 : error_set(err, ERROR_INTERNAL, "out of memory");
}

static char *copy_or(const char *value, const char *fallback)
{
    return strdup(value && *value ? value : fallback);
}

static int copy_options(struct network *network, const struct network_options *options,
                        struct error *err)
{
    network->worker = strdup(options->worker);
    network->directory = strdup(options->directory);
    network->state = copy_or(options->state, STATE_DEFAULT);
    network->cni_path = copy_or(options->cni_path, CNI_PATH_DEFAULT);
    network->bridge = copy_or(options->bridge, BRIDGE_DEFAULT);
    network->subnet = copy_or(options->subnet, SUBNET_DEFAULT);
    network->denied = copy_or(options->denied, "");
    if (options->name_servers)
        network->name_servers = *options->name_servers;
    network->pool[NETWORK_BRIDGE] = options->pool_bridge;
    network->pool[NETWORK_NONE] = options->pool_none;
    if (!network->worker || !network->directory || !network->state || !network->cni_path ||
        !network->bridge || !network->subnet || !network->denied)
        return error_set(err, ERROR_INTERNAL, "out of memory");
    network->cni = (struct cni_config){.path = network->cni_path, .bridge = network->bridge};
    return 0;
}

static int open_network(struct network *network, const struct network_options *options,
                        struct error *err)
{
    if (copy_options(network, options, err) < 0 ||
        make_directories(network->directory, 0700, err) < 0)
        return -1;
    /* Before the leftovers: taking them back changes what the workers of a bridge share. */
    join_bridge(network, &network->bridge_problem);
    network->names = names_new(network->loop, &network->name_servers, err);
    if (!network->names)
        return -1;
    return network_items_remove_left(network, err);
}

struct network *network_new(uv_loop_t *loop, const struct network_options *options,
                            struct error *err)
{
    struct network *network = calloc(1, sizeof(*network));

    if (!network) {
        error_set(err, ERROR_INTERNAL, "out of memory");
        return NULL;
    }
    network->loop = loop;
    if (open_network(network, options, err) < 0) {
        error_wrap(err, "networks");
        network_free(network);
        return NULL;
    }
    refill(network);
    return network;
}

const struct error *network_bridge_problem(const struct network *network)
{
    return network->bridge_problem.code ? &network->bridge_problem : NULL;
}

/* ---- use ---- */

int network_take(struct network *network, enum function_network kind, network_done_fn *done,
                 void *data, struct error *err)
{
    if (network->stopping)
        return error_set(err, ERROR_UNAVAILABLE, "the worker is stopping");
    if (kind == NETWORK_BRIDGE && network->bridge_problem.code) {
        if (err)
            *err = network->bridge_problem;
        return error_wrap(err, "network \"bridge\" does not work on this worker");
    }
    struct take *take = malloc(sizeof(*take));
    if (!take)
        return error_set(err, ERROR_INTERNAL, "out of memory");
    *take = (struct take){.network = network, .kind = kind, .done = done, .data = data};
    struct take **at = &network->takes;
    while (*at)
        at = &(*at)->next;
    *at = take;
    network->stalled[kind] = false;
    serve(network, kind);
    refill(network);
    return 0;
}

void network_release(struct network *network, struct network_namespace *ns)
{
    struct item *item = (struct item *)ns;

    if (!item)
        return;
    (void)network;
    assert(item->network == network && item->state == TAKEN);
    network_item_destroy(item);
}

static void on_policy_ready(void *data, const struct error *err)
{
    struct item *item = data;

    item->applied(item->applied_data, err);
}

int network_apply(struct network *network, struct network_namespace *ns,
                  const struct function_spec *spec, network_applied_fn *done, void *data,
                  struct error *err)
{
    struct item *item = (struct item *)ns;

    assert(item->network == network && item->state == TAKEN && !item->policy);
    if (!network_policy_needed(spec))
        return 1;
    if (item->kind != NETWORK_BRIDGE)
        return error_set(err, ERROR_INTERNAL, "a network policy for a namespace without network");
    const struct network_policy_options options = {.table = network_host_table(network->host),
                                                   .path = item->path,
                                                   .host_interface = item->public.host_interface,
                                                   .address = item->port.address};
    if (!network_policy_waits(spec)) {
        item->policy = network_policy_start_now(network->loop, &options, spec, err);
        return item->policy ? 1 : -1;
    }
    item->applied = done;
    item->applied_data = data;
    item->policy = network_policy_start(network->loop, network->names, &options, spec,
                                        on_policy_ready, item, err);
    return item->policy ? 0 : -1;
}

/* ---- stop ---- */

static void teardown_work(void *job)
{
    struct network *network = job;

    (void)network_items_remove_left(network, NULL);
    network_addresses_free(steal_pointer(&network->addresses));
    network_host_leave(steal_pointer(&network->host));
    rmdir(network->directory);
}

static void teardown_done(void *job)
{
    struct network *network = job;

    network->stopped(network->stopped_data);
}

static void check_stopped(struct network *network)
{
    if (!network->stopping || network->items || network->deliveries > 0 || network->torn_down)
        return;
    network->torn_down = true;
    if (loop_work(network->loop, teardown_work, teardown_done, network, NULL) == 0)
        return;
    teardown_work(network);
    teardown_done(network);
}

static void stop_step(void *data)
{
    static const struct error stopped = {.code = ERROR_UNAVAILABLE,
                                         .message = "the worker is stopping"};
    struct network *network = data;

    network->deliveries--;
    fail_takes(network, NETWORK_BRIDGE, &stopped);
    fail_takes(network, NETWORK_NONE, &stopped);
    for (struct item *item = network->items, *next; item; item = next) {
        next = item->next;
        if (item->state == READY || item->state == TAKEN)
            network_item_destroy(item);
    }
    network_items_clear_now(network);
    check_stopped(network);
}

void network_stop(struct network *network, void (*done)(void *data), void *data)
{
    network->stopping = true;
    network->stopped = done;
    network->stopped_data = data;
    /* Counts as a delivery, so that nothing ends before it. */
    network->deliveries++;
    if (loop_defer(network->loop, stop_step, network, NULL) < 0)
        stop_step(network);
}

void network_free(struct network *network)
{
    if (!network)
        return;
    assert(!network->items && !network->takes);
    network_addresses_free(network->addresses);
    network_host_leave(network->host);
    names_free(network->names);
    free(network->denied);
    free(network->worker);
    free(network->directory);
    free(network->state);
    free(network->cni_path);
    free(network->bridge);
    free(network->subnet);
    free(network);
}
