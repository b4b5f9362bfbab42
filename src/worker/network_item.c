/* One network namespace's way up and down: see network_item.h. */
#include "worker/network_item.h"

#include "base/cleanup.h"
#include "base/log.h"
#include "base/loop.h"
#include "base/text.h"
#include "worker/network_conntrack.h"
#include "worker/network_link.h"
#include "worker/network_namespace.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define NS_PER_MS 1000000ull
/* After the table of connections was read, nothing is cleared for so many times as long. */
#define REST_PARTS 4

/* File names in the worker's folder begin with these, which tells what kind a predecessor left. */
static const char *const kind_prefixes[NETWORK_KINDS] = {
    [NETWORK_BRIDGE] = "faas-b-", [NETWORK_NONE] = "faas-n-"};

void network_item_free(struct item *item)
{
    struct item **at = &item->network->items;

    while (*at != item)
        at = &(*at)->next;
    *at = item->next;
    cni_command_deinit(&item->command);
    free(item->path);
    free(item);
}

/* ---- the way down ---- */

/* The link first: its other end, too, is gone when this returns; with the namespace it would go some time later.
 *
 * An address whose link, rules or connections may be there stays in use, or another instance would have them, too. Its namespace's file stays
 * with it: by that the end of this worker, or the next one's start, finds both. */
static void remove_work(void *job)
{
    struct item *item = job;
    struct error err = {0};

    item->err = (struct error){0};
    if (item->kind == NETWORK_BRIDGE && network_link_delete(item->path, &err) < 0)
        item->err = err;
    if (item->port.address) {
        if (item->err.code || item->uncleared)
            return;
        network_addresses_give_back(item->network->addresses, item->port.address);
    }
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
    network_item_free(item);
    network_item_gone(network);
}

static void start_removing(struct item *item)
{
    item->state = REMOVING;
    if (loop_work(item->network->loop, remove_work, removed, item, NULL) == 0)
        return;
    remove_work(item);
    removed(item);
}

/* In one transaction, or each by itself: one that fails would keep the others' rules. */
static void remove_rules(const struct network *network, struct item **items, size_t count)
{
    const char *table = network_host_table(network->host);
    const struct filter_port *ports[NETWORK_CLEARING_MAX];

    for (size_t i = 0; i < count; i++)
        ports[i] = &items[i]->port;
    bool all = network_filter_remove_ports(table, ports, count, NULL) == 0;
    for (size_t i = 0; i < count; i++)
        items[i]->filtered =
            !all && network_filter_remove_ports(table, &ports[i], 1, &items[i]->err) < 0;
}

/* Reading the table of connections takes longer than all else, whatever is in it: who never sent a packet has none there. */
static void forget_connections(struct network *network, struct item **items, size_t count)
{
    uint64_t begin_ns = clock_monotonic_ns();
    uint32_t addresses[NETWORK_CLEARING_MAX];
    struct error err = {0};
    size_t speakers = 0;

    for (size_t i = 0; i < count; i++)
        if (network_host_link_spoke(items[i]->public.host_interface))
            addresses[speakers++] = items[i]->port.address;
    if (speakers == 0)
        return;
    int rc = network_conntrack_forget(addresses, speakers, &err);
    network->table_ns = clock_monotonic_ns() - begin_ns;
    if (rc == 0)
        return;
    for (size_t i = 0; i < count; i++) {
        items[i]->err = err;
        items[i]->uncleared = true;
    }
}

/* What the host has of these instances goes: their rules, then their connections. Their addresses are still their own. */
static void clear_batch(struct network *network, struct item **items, size_t count)
{
    for (size_t i = 0; i < count; i++)
        network_host_link_down(items[i]->public.host_interface, &items[i]->err);
    remove_rules(network, items, count);
    for (size_t i = 0; i < count; i++)
        items[i]->uncleared |= items[i]->filtered;
    forget_connections(network, items, count);
}

static void clear_work(void *job)
{
    struct network *network = job;

    network->table_ns = 0;
    clear_batch(network, network->clearing, network->clearing_count);
}

static void clear_next(struct network *network);

static void stop_rest(struct network *network)
{
    loop_timer_stop(network->rest);
    network->rest = NULL;
}

static void on_rested(void *data)
{
    struct network *network = data;

    stop_rest(network);
    clear_next(network);
}

/* Instances that speak once and end, one after the other, would have the table read without a pause. */
static void begin_rest(struct network *network)
{
    if (network->table_ns > 0 && !network->stopping)
        network->rest =
            loop_timer_start(network->loop, network->table_ns * REST_PARTS / NS_PER_MS + 1, 0,
                             on_rested, network, NULL);
}

void network_items_clear_now(struct network *network)
{
    stop_rest(network);
    clear_next(network);
}

static void cleared(void *job)
{
    struct network *network = job;
    struct item *items[NETWORK_CLEARING_MAX];
    size_t count = network->clearing_count;

    memcpy(items, network->clearing, sizeof(items));
    network->clearing_count = 0;
    for (size_t i = 0; i < count; i++) {
        if (items[i]->err.code)
            log_warn("packet filter rules or connections of an instance are left behind",
                     LOG_STR("namespace", items[i]->id), LOG_ERR(&items[i]->err));
        start_removing(items[i]);
    }
    begin_rest(network);
    clear_next(network);
}

/* One job at a time, for all that wait: what the kernel takes for it does not grow with their number. */
static void clear_next(struct network *network)
{
    if (network->clearing_count > 0 || network->rest)
        return;
    for (struct item *item = network->items; item; item = item->next) {
        if (item->state != CLEARING || !item->to_clear ||
            network->clearing_count == NETWORK_CLEARING_MAX)
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

static void start_clearing(struct item *item)
{
    if (!item->filtered) {
        start_removing(item);
        return;
    }
    item->to_clear = true;
    clear_next(item->network);
}

static void on_policy_closed(void *data, const struct error *err)
{
    struct item *item = data;

    item->policy = NULL;
    if (err) {
        log_warn("an instance's allow-list is left behind", LOG_STR("namespace", item->id),
                 LOG_ERR(err));
        item->uncleared = true;
    }
    start_clearing(item);
}

void network_item_destroy(struct item *item)
{
    if (item->kind != NETWORK_BRIDGE) {
        start_removing(item);
        return;
    }
    item->state = CLEARING;
    if (item->policy)
        network_policy_close(item->policy, on_policy_closed, item);
    else
        start_clearing(item);
}

/* ---- the way up ---- */

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
        network_item_failed(item);
    else
        network_item_came_up(item);
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
        network_item_failed(item);
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
        network_item_failed(item);
        return;
    }
    if (item->kind == NETWORK_NONE) {
        network_item_came_up(item);
        return;
    }
    bool spare = network_find_ready(item->network, item->kind) != NULL;
    if (start_wiring(item, spare, &item->err) < 0)
        network_item_failed(item);
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

int network_item_start(struct network *network, enum function_network kind, struct error *err)
{
    struct item *item = item_new(network, kind);

    if (!item)
        return error_set(err, ERROR_INTERNAL, "out of memory");
    if (loop_work(network->loop, make_work, made, item, err) == 0)
        return 0;
    network_item_free(item);
    return -1;
}

/* ---- what a predecessor left ---- */

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

int network_items_remove_left(struct network *network, struct error *err)
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
