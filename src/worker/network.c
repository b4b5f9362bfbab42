/* The pool of network namespaces: what is wanted, what is ready, and each one's way from nothing to nothing.
 *
 *     MAKING -> WIRING -> READY -> TAKEN -> CLEARING -> REMOVING -> (freed)
 *
 * A namespace of kind none skips WIRING and CLEARING; a failure on the way up goes straight to the way down. WIRING ends with
 * its address, the port's isolation and its rules, CLEARING takes back what the packet filter has of it while its address is still its own. */
#include "worker/network.h"

#include "base/cleanup.h"
#include "base/file.h"
#include "base/log.h"
#include "base/loop.h"
#include "base/text.h"
#include "worker/cni.h"
#include "worker/network_addresses.h"
#include "worker/network_conntrack.h"
#include "worker/network_host.h"
#include "worker/network_link.h"
#include "worker/network_namespace.h"
#include "worker/network_policy.h"

#include <arpa/inet.h>
#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define STATE_DEFAULT "/run/faas/cni"
#define BRIDGE_DEFAULT "faas0"
#define SUBNET_DEFAULT "10.88.64.0/18"
/* Namespaces of one kind on their way up at once, so that a burst of takes does not start a burst of plugins. */
#define MAKING_MAX 4
#define KINDS 2
/* Namespaces that are cleared at once. */
#define CLEARING_MAX 64

/* File names in the worker's folder begin with these, which tells what kind a predecessor left. */
static const char *const kind_prefixes[KINDS] = {
    [NETWORK_BRIDGE] = "faas-b-", [NETWORK_NONE] = "faas-n-"};

enum item_state { MAKING, WIRING, READY, TAKEN, CLEARING, REMOVING };

struct item {
    struct network_namespace public; /* first: a pointer to it is a pointer to the item */
    struct network *network;
    struct item *next; /* in network->items */
    enum function_network kind;
    enum item_state state;
    char *path;     /* owned */
    const char *id; /* the file's name, in path: the CNI container id */
    struct cni_command command;
    struct filter_port port; /* its interface is public.host_interface; address 0: none yet */
    bool filtered;           /* the packet filter has the port */
    bool to_clear;           /* CLEARING, and not yet of the job */
    struct network_policy *policy;
    network_applied_fn *applied;
    void *applied_data;
    struct error err; /* why it failed; code 0 if it did not */
};

struct take {
    struct take *next;
    struct network *network;
    enum function_network kind;
    network_done_fn *done;
    void *data;
    struct item *item; /* what it gets, or: */
    struct error err;  /* why it gets none */
};

struct network {
    uv_loop_t *loop;
    char *worker, *directory, *state, *cni_path, *bridge, *subnet, *denied; /* owned */
    struct name_servers name_servers;
    struct names *names;
    struct item *clearing[CLEARING_MAX]; /* those of the job that runs */
    size_t clearing_count;
    struct subnet subnet_parsed;
    struct cni_config cni; /* borrows from the above */
    struct network_host *host;
    struct network_addresses *addresses; /* there with `host` */
    struct error bridge_problem;         /* code 0: none */
    size_t pool[KINDS];
    bool stalled[KINDS]; /* the last attempt for the pool failed: no new one before somebody asks */
    struct item *items;  /* owned, all of them */
    struct take *takes;  /* owned: waiting, oldest first */
    size_t deliveries;   /* deferred calls under way */
    bool stopping, torn_down;
    void (*stopped)(void *data);
    void *stopped_data;
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

static struct item *find_ready(const struct network *network, enum function_network kind)
{
    for (struct item *item = network->items; item; item = item->next)
        if (item->kind == kind && item->state == READY)
            return item;
    return NULL;
}

static void item_free(struct item *item)
{
    cni_command_deinit(&item->command);
    free(item->path);
    free(item);
}

static void item_unlink_and_free(struct item *item)
{
    struct item **at = &item->network->items;

    while (*at != item)
        at = &(*at)->next;
    *at = item->next;
    item_free(item);
}

/* ---- the way down ---- */

/* The link first: its other end, too, is gone when this returns; with the namespace it would go some time later. An address whose link may be there
 * stays in use. */
static void remove_work(void *job)
{
    struct item *item = job;
    struct error err = {0};

    item->err = (struct error){0};
    if (item->kind == NETWORK_BRIDGE && network_link_delete(item->path, &err) < 0)
        item->err = err;
    else if (item->port.address)
        network_addresses_give_back(item->network->addresses, item->port.address);
    if (network_namespace_remove(item->path, &err) < 0)
        item->err = err;
}

static void removed(void *job)
{
    struct item *item = job;
    struct network *network = item->network;

    if (item->err.code)
        log_warn("network namespace or interface is left behind", LOG_STR("path", item->path),
                 LOG_ERR(&item->err));
    item_unlink_and_free(item);
    refill(network);
    check_stopped(network);
}

static void start_removing(struct item *item)
{
    item->state = REMOVING;
    if (loop_work(item->network->loop, remove_work, removed, item, NULL) == 0)
        return;
    remove_work(item);
    removed(item);
}

/* What the host has of these instances goes: their rules, then their connections. Their addresses are still their own. */
static void clear_batch(struct network *network, struct item **items, size_t count)
{
    const struct filter_port *ports[CLEARING_MAX];
    uint32_t addresses[CLEARING_MAX];
    struct error err = {0};

    for (size_t i = 0; i < count; i++) {
        ports[i] = &items[i]->port;
        addresses[i] = items[i]->port.address;
        if (network_host_link_down(items[i]->public.host_interface, &err) < 0)
            items[i]->err = err;
    }
    bool filtered =
        network_filter_remove_ports(network_host_table(network->host), ports, count, &err) < 0;
    bool tracked = network_conntrack_forget(addresses, count, &err) < 0;
    for (size_t i = 0; i < count; i++) {
        items[i]->filtered = filtered;
        if (filtered || tracked)
            items[i]->err = err;
    }
}

static void clear_work(void *job)
{
    struct network *network = job;

    clear_batch(network, network->clearing, network->clearing_count);
}

static void clear_next(struct network *network);

static void cleared(void *job)
{
    struct network *network = job;
    struct item *items[CLEARING_MAX];
    size_t count = network->clearing_count;

    memcpy(items, network->clearing, sizeof(items));
    network->clearing_count = 0;
    for (size_t i = 0; i < count; i++) {
        if (items[i]->err.code)
            log_warn("packet filter rules or connections of an instance are left behind",
                     LOG_STR("namespace", items[i]->id), LOG_ERR(&items[i]->err));
        start_removing(items[i]);
    }
    clear_next(network);
}

/* One job at a time, for all that wait: what the kernel takes for it does not grow with their number. */
static void clear_next(struct network *network)
{
    if (network->clearing_count > 0)
        return;
    for (struct item *item = network->items; item; item = item->next) {
        if (item->state != CLEARING || !item->to_clear || network->clearing_count == CLEARING_MAX)
            continue;
        item->to_clear = false;
        item->err = (struct error){0};
        network->clearing[network->clearing_count++] = item;
    }
    if (network->clearing_count == 0 ||
        loop_work(network->loop, clear_work, cleared, network, NULL) == 0)
        return;
    clear_work(network);
    cleared(network);
}

static void start_clearing(void *data)
{
    struct item *item = data;

    item->policy = NULL;
    if (!item->filtered) {
        start_removing(item);
        return;
    }
    item->to_clear = true;
    clear_next(item->network);
}

static void start_destroying(struct item *item)
{
    if (item->kind != NETWORK_BRIDGE) {
        start_removing(item);
        return;
    }
    item->state = CLEARING;
    if (item->policy)
        network_policy_close(item->policy, start_clearing, item);
    else
        start_clearing(item);
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
           (item = find_ready(network, kind)))
        finish_take(pop_take(network, kind), item, NULL);
}

/* ---- the way up ---- */

/* The oldest waiting take learns of it; without one it was for the pool. */
static void failed_on_the_way_up(struct item *item)
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
        start_destroying(item);
    else
        item_unlink_and_free(item);
    if (take)
        finish_take(take, NULL, &err);
    refill(network);
    check_stopped(network);
}

static void came_up(struct item *item)
{
    struct network *network = item->network;

    item->state = READY;
    network->stalled[item->kind] = false;
    if (network->stopping) {
        start_destroying(item);
        return;
    }
    serve(network, item->kind);
    refill(network);
}

static int give_address(struct item *item, struct error *err)
{
    const struct network *network = item->network;
    struct in_addr address;

    if (network_link_set_gateway(network->bridge, &network->subnet_parsed, err) < 0 ||
        network_addresses_take(network->addresses, item->id, &item->port.address, err) < 0)
        return -1;
    address.s_addr = htonl(item->port.address);
    inet_ntop(AF_INET, &address, item->public.address, sizeof(item->public.address));
    return network_link_set_address(item->path, item->public.host_interface,
                                    &network->subnet_parsed, item->port.address, item->port.mac,
                                    err);
}

/* Nothing but its own frames may come from this port, and none go to other functions' ports. */
static void protect_work(void *job)
{
    struct item *item = job;

    if (network_host_isolate(item->public.host_interface, &item->err) == 0 &&
        give_address(item, &item->err) == 0)
        item->filtered = network_filter_add_port(network_host_table(item->network->host),
                                                 &item->port, &item->err) == 0;
}

static void protected(void *job)
{
    struct item *item = job;

    if (item->err.code)
        failed_on_the_way_up(item);
    else
        came_up(item);
}

static int take_result(struct item *item, const struct spawn_result *result, struct error *err)
{
    if (cni_check(result, err) < 0 ||
        cni_parse_result(result->output, result->output_len, item->network->bridge,
                         item->public.host_interface, err) < 0)
        return -1;
    item->port.interface = item->public.host_interface;
    return 0;
}

static void wired(void *data, const struct spawn_result *result)
{
    struct item *item = data;

    if (take_result(item, result, &item->err) < 0 ||
        loop_work(item->network->loop, protect_work, protected, item, &item->err) < 0)
        failed_on_the_way_up(item);
}

static void make_work(void *job)
{
    struct item *item = job;

    network_namespace_make(item->path, &item->err);
}

/* `background`: nobody waits for it. */
static int start_wiring(struct item *item, bool background, struct error *err)
{
    item->state = WIRING;
    if (cni_command_init(&item->command, &item->network->cni, item->id, item->path, err) < 0)
        return -1;
    item->command.options.background = background;
    return spawn_start(item->network->loop, &item->command.options, wired, item, err) ? 0 : -1;
}

static void made(void *job)
{
    struct item *item = job;

    if (item->err.code) {
        failed_on_the_way_up(item);
        return;
    }
    if (item->kind == NETWORK_NONE) {
        came_up(item);
        return;
    }
    bool spare = find_ready(item->network, item->kind) != NULL;
    if (start_wiring(item, spare, &item->err) < 0)
        failed_on_the_way_up(item);
}

static struct item *item_new(struct network *network, enum function_network kind)
{
    char id[RANDOM_ID_LEN + 1];
    struct item *item = calloc(1, sizeof(*item));

    if (!item)
        return NULL;
    random_id(id);
    item->path = string_printf("%s/%s%.16s", network->directory, kind_prefixes[kind], id);
    if (!item->path) {
        free(item);
        return NULL;
    }
    item->id = item->path + strlen(network->directory) + 1;
    item->public.path = item->path;
    item->network = network;
    item->kind = kind;
    item->next = network->items;
    network->items = item;
    return item;
}

static int start_making(struct network *network, enum function_network kind, struct error *err)
{
    struct item *item = item_new(network, kind);

    if (!item)
        return error_set(err, ERROR_INTERNAL, "out of memory");
    if (loop_work(network->loop, make_work, made, item, err) == 0)
        return 0;
    item_unlink_and_free(item);
    return -1;
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
        if (start_making(network, kind, &err) < 0) {
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

/* ---- start ---- */

/* Connections that its address had, so that no answer of theirs goes to who has the address next. */
static void take_back_address(const struct network *network, const char *id)
{
    uint32_t address;
    struct error err = {0};

    if (!network->addresses || !network_addresses_find(network->addresses, id, &address))
        return;
    if (network_conntrack_forget(&address, 1, &err) < 0)
        log_warn("connections of an earlier worker's instance are left behind",
                 LOG_STR("namespace", id), LOG_ERR(&err));
    network_addresses_give_back(network->addresses, address);
}

/* A predecessor's namespace: its link, its address, its file. */
static void remove_leftover(const struct network *network, const char *name)
{
    autofree char *path = string_printf("%s/%s", network->directory, name);
    struct error err = {0};

    if (!path)
        return;
    bool bridged =
        strncmp(name, kind_prefixes[NETWORK_BRIDGE], strlen(kind_prefixes[NETWORK_BRIDGE])) == 0;
    if (bridged && network_link_delete(path, &err) < 0)
        log_warn("network interface of an earlier worker may be left behind",
                 LOG_STR("namespace", name), LOG_ERR(&err));
    else if (bridged)
        take_back_address(network, name);
    if (network_namespace_remove(path, &err) < 0)
        log_warn("network namespace of an earlier worker is left behind",
                 LOG_STR("namespace", name), LOG_ERR(&err));
}

static int remove_leftovers(struct network *network, struct error *err)
{
    DIR *folder = opendir(network->directory);

    if (!folder)
        return error_set_errno(err, ERROR_UNAVAILABLE, errno, "open %s", network->directory);
    for (struct dirent *entry; (entry = readdir(folder));)
        if (entry->d_name[0] != '.')
            remove_leftover(network, entry->d_name);
    closedir(folder);
    return 0;
}

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
    return remove_leftovers(network, err);
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
    start_destroying(item);
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
            start_destroying(item);
    }
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
