/* Tables by `nft`, elements of their sets by netlink (linux/netfilter/nf_tables.h). */
#include "worker/network_filter.h"

#include "base/cleanup.h"
#include "base/spawn.h"
#include "base/text.h"
#include "worker/netlink.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netlink.h>
#include <net/if.h>
#include <stdlib.h>
#include <string.h>

#define TOOL_TIMEOUT_MS 30000
#define TEXT_MAX (64 * 1024)
#define DENIED_MAX 256
/* Where clouds answer their guests beside 169.254.0.0/16: Alibaba Cloud, Azure (its name server, too) and Oracle Cloud. */
#define METADATA_ADDRESSES "100.100.100.200, 168.63.129.16, 192.0.0.192"
/* Connections of one instance, and of all where the host does not say how many it tracks. */
#define FLOWS_MAX 4096
#define FLOWS_OF_ALL_DEFAULT 32768
/* In one message: an attribute holds 64 KiB, an element takes about 60 bytes. */
#define MESSAGE_ELEMENTS 512

/* ---- the tables ---- */

static int run_nft(const char *commands, struct error *err)
{
    const char *const argv[] = {"nft", "-f", "-", NULL};
    const struct spawn_options options = {.argv = argv,
                                          .input = commands,
                                          .input_len = strlen(commands),
                                          .timeout_ms = TOOL_TIMEOUT_MS,
                                          .output_max = 16384};
    with_cleanup(spawn_result_deinit) struct spawn_result result = {0};

    if (spawn_run(&options, &result, err) == 0 && spawn_result_check(&result, argv[0], err) == 0)
        return 0;
    return error_wrap(err, "packet filter (nftables is needed for network \"bridge\")");
}

/* Appends every network of the list to `out` (may be NULL). */
static int read_list(const char *list, struct buffer *out, struct error *err)
{
    size_t count = 0;

    for (const char *at = list ? list : ""; *at;) {
        size_t blank = strspn(at, ", "), len = strcspn(at + blank, ", ");
        uint32_t first, last;
        at += blank;
        if (len == 0)
            break;
        if (++count > DENIED_MAX)
            return error_set(err, ERROR_INVALID_REQUEST, "more than %d networks in one list",
                             DENIED_MAX);
        if (network_range_parse(at, len, &first, &last, err) < 0)
            return -1;
        if (out && buffer_printf(out, err, "%s%.*s", out->len ? ", " : "", (int)len, at) < 0)
            return -1;
        at += len;
    }
    return 0;
}

int network_filter_check_list(const char *list, struct error *err)
{
    return read_list(list, NULL, err);
}

static int append_set(struct buffer *text, const char *name, const char *type, const char *elements,
                      struct error *err)
{
    return buffer_printf(text, err, "  set %s {\n    type %s\n%s%s%s  }\n", name, type,
                         elements && *elements ? "    elements = { " : "", elements ? elements : "",
                         elements && *elements ? " }\n" : "");
}

static int append_name_servers(struct buffer *text, const struct name_servers *servers,
                               struct error *err)
{
    with_cleanup(buffer_deinit) struct buffer list = BUFFER_INIT(256);

    for (size_t i = 0; servers && i < servers->count; i++) {
        struct in_addr address = {htonl(servers->addresses[i])};
        char shown[INET_ADDRSTRLEN];
        inet_ntop(AF_INET, &address, shown, sizeof(shown));
        if (buffer_printf(&list, err, "%s%s", i ? ", " : "", shown) < 0)
            return -1;
    }
    return append_set(text, "name_servers", "ipv4_addr; flags interval; auto-merge", list.data,
                      err);
}

/* A frame of a port that is not its own is dropped before the bridge learns from it. */
static int append_bridge_table(struct buffer *text, const char *table, struct error *err)
{
    return buffer_printf(
        text, err,
        "table bridge %s {\n"
        "  set ports {\n    type ifname\n  }\n"
        "  set bound {\n    type ifname . ether_addr . ipv4_addr\n  }\n"
        "  chain prerouting {\n"
        "    type filter hook prerouting priority -300; policy accept;\n"
        "    iifname @ports jump from_function\n"
        "  }\n"
        "  chain from_function {\n"
        "    ether type arp jump from_function_arp\n"
        "    meta pkttype { broadcast, multicast } drop\n"
        "    ether type ip iifname . ether saddr . ip saddr @bound accept\n"
        "    drop\n"
        "  }\n"
        "  chain from_function_arp {\n"
        "    iifname . ether saddr . arp saddr ip @bound iifname . arp saddr ether . arp saddr ip "
        "@bound accept\n"
        "    drop\n"
        "  }\n"
        "}\n",
        table);
}

/* Half of the connections that the host can track: the rest is the host's own. */
static long long flows_of_all(void)
{
    with_cleanup(buffer_deinit) struct buffer text = BUFFER_INIT(64);

    if (buffer_read_file(&text, "/proc/sys/net/netfilter/nf_conntrack_max", NULL) < 0 || !text.data)
        return FLOWS_OF_ALL_DEFAULT;
    long long max = strtoll(text.data, NULL, 10);
    return max >= 2 ? max / 2 : FLOWS_OF_ALL_DEFAULT;
}

static int append_chains(struct buffer *text, const char *bridge, const char *subnet,
                         struct error *err)
{
    return buffer_printf(
        text, err,
        "  chain input {\n"
        "    type filter hook input priority -10; policy accept;\n"
        "    iifname \"%s\" drop\n"
        "  }\n"
        "  chain forward {\n"
        "    type filter hook forward priority -10; policy accept;\n"
        "    iifname \"%s\" jump from_function\n"
        "    oifname \"%s\" ct state != { established, related } drop\n"
        "  }\n"
        "  chain from_function {\n"
        "    oifname \"%s\" drop\n"
        "    meta nfproto != ipv4 drop\n"
        "    ip saddr != %s drop\n"
        "    ip daddr 169.254.0.0/16 drop\n"
        "    ip saddr @limited goto limited_function\n"
        "    ip daddr @name_servers meta l4proto { tcp, udp } th dport 53 goto count_flows\n"
        "    ip saddr @functions ip daddr @denied drop\n"
        "    goto count_flows\n"
        "  }\n"
        "  chain limited_function {\n"
        "    ip saddr @named ip daddr @name_servers meta l4proto { tcp, udp } th dport 53 goto "
        "count_flows\n"
        "    ip daddr @denied drop\n"
        "    ip saddr . ip daddr . meta l4proto . th dport @allowed goto count_flows\n"
        "    drop\n"
        "  }\n"
        "  chain count_flows {\n"
        "    ct state new ip saddr @functions add @flows { ip saddr ct count over %d } drop\n"
        "    ct state new ip saddr @functions add @all_flows { ip saddr & 0.0.0.0 ct count over "
        "%lld } drop\n"
        "  }\n"
        "  chain postrouting {\n"
        "    type nat hook postrouting priority 100; policy accept;\n"
        "    ip saddr %s oifname != \"%s\" masquerade\n"
        "  }\n",
        bridge, bridge, bridge, bridge, subnet, FLOWS_MAX, flows_of_all(), subnet, bridge);
}

static int append_inet_table(struct buffer *text, const struct network_filter_options *options,
                             struct error *err)
{
    with_cleanup(buffer_deinit) struct buffer denied = BUFFER_INIT(8192);

    if (buffer_append_string(&denied, METADATA_ADDRESSES, err) < 0 ||
        read_list(options->denied, &denied, err) < 0)
        return error_wrap(err, "forbidden networks");
    if (buffer_printf(text, err, "table inet %s {\n", options->table) < 0 ||
        append_set(text, "functions", "ipv4_addr", NULL, err) < 0 ||
        append_set(text, "limited", "ipv4_addr", NULL, err) < 0 ||
        append_set(text, "named", "ipv4_addr", NULL, err) < 0 ||
        append_set(text, "allowed",
                   "ipv4_addr . ipv4_addr . inet_proto . inet_service; flags interval", NULL,
                   err) < 0 ||
        append_set(text, "flows", "ipv4_addr; flags dynamic; size 65535", NULL, err) < 0 ||
        append_set(text, "all_flows", "ipv4_addr; flags dynamic; size 2", NULL, err) < 0 ||
        append_set(text, "denied", "ipv4_addr; flags interval; auto-merge", denied.data, err) < 0 ||
        append_name_servers(text, options->name_servers, err) < 0 ||
        append_chains(text, options->bridge, options->subnet, err) < 0)
        return -1;
    return buffer_append_string(text, "}\n", err);
}

/* Deleting what may not be there needs it to be there. */
static int append_removal(struct buffer *text, const char *table, struct error *err)
{
    return buffer_printf(text, err,
                         "add table inet %s\ndelete table inet %s\n"
                         "add table bridge %s\ndelete table bridge %s\n",
                         table, table, table, table);
}

int network_filter_install(const struct network_filter_options *options, struct error *err)
{
    with_cleanup(buffer_deinit) struct buffer text = BUFFER_INIT(TEXT_MAX);

    if (append_removal(&text, options->table, err) < 0 ||
        append_bridge_table(&text, options->table, err) < 0 ||
        append_inet_table(&text, options, err) < 0)
        return -1;
    return run_nft(text.data, err);
}

int network_filter_remove(const char *table, struct error *err)
{
    with_cleanup(buffer_deinit) struct buffer text = BUFFER_INIT(TEXT_MAX);

    return append_removal(&text, table, err) < 0 ? -1 : run_nft(text.data, err);
}

/* ---- elements ---- */

/* What one transaction does to the sets of one table. */
struct transaction {
    struct netlink_request request;
    const char *table;
    size_t list;     /* nest of the elements; 0: no message is open */
    size_t elements; /* in it */
};

static void batch_mark(struct transaction *transaction, uint16_t type)
{
    const struct nfgenmsg header = {.nfgen_family = AF_UNSPEC,
                                    .res_id = htons(NFNL_SUBSYS_NFTABLES)};

    netlink_message(&transaction->request, type, 0, &header, sizeof(header));
}

static void transaction_begin(struct transaction *transaction, const char *table)
{
    *transaction = (struct transaction){.request = NETLINK_REQUEST_INIT, .table = table};
    batch_mark(transaction, NFNL_MSG_BATCH_BEGIN);
}

static void end_elements(struct transaction *transaction)
{
    if (transaction->list)
        netlink_nest_end(&transaction->request, transaction->list);
    transaction->list = 0;
}

static void begin_elements(struct transaction *transaction, uint8_t family, const char *set,
                           bool add)
{
    const struct nfgenmsg header = {.nfgen_family = family};
    uint16_t type = add ? NFT_MSG_NEWSETELEM : NFT_MSG_DELSETELEM;

    netlink_message(&transaction->request, (uint16_t)(NFNL_SUBSYS_NFTABLES << 8 | type),
                    NLM_F_ACK | (add ? NLM_F_CREATE : 0), &header, sizeof(header));
    netlink_attribute(&transaction->request, NFTA_SET_ELEM_LIST_TABLE, transaction->table,
                      strlen(transaction->table) + 1);
    netlink_attribute(&transaction->request, NFTA_SET_ELEM_LIST_SET, set, strlen(set) + 1);
    transaction->list = netlink_nest(&transaction->request, NFTA_SET_ELEM_LIST_ELEMENTS);
    transaction->elements = 0;
}

static void append_key(struct netlink_request *request, uint16_t type, const void *key, size_t len)
{
    size_t nest = netlink_nest(request, type);

    netlink_attribute(request, NFTA_DATA_VALUE, key, len);
    netlink_nest_end(request, nest);
}

/* `end` is NULL for a set without intervals. */
static void append_element(struct transaction *transaction, const void *key, const void *end,
                           size_t len)
{
    size_t nest = netlink_nest(&transaction->request, NFTA_LIST_ELEM);

    append_key(&transaction->request, NFTA_SET_ELEM_KEY, key, len);
    if (end)
        append_key(&transaction->request, NFTA_SET_ELEM_KEY_END, end, len);
    netlink_nest_end(&transaction->request, nest);
    transaction->elements++;
}

static void one_element(struct transaction *transaction, uint8_t family, const char *set, bool add,
                        const void *key, size_t len)
{
    begin_elements(transaction, family, set, add);
    append_element(transaction, key, NULL, len);
    end_elements(transaction);
}

/* Sends it, and frees it. */
static int transaction_commit(struct transaction *transaction, struct error *err)
{
    batch_mark(transaction, NFNL_MSG_BATCH_END);
    autoclose int fd = netlink_open(NETLINK_NETFILTER, err);
    int rc = fd < 0 ? -1 : netlink_exchange(fd, &transaction->request, err);
    netlink_request_deinit(&transaction->request);
    return rc < 0 ? error_wrap(err, "packet filter (nftables table %s)", transaction->table) : 0;
}

static void change_port(struct transaction *transaction, const struct filter_port *port, bool add)
{
    struct {
        char interface[IFNAMSIZ];
        uint8_t mac[8];
        uint32_t address;
    } bound = {.address = htonl(port->address)};

    strncpy(bound.interface, port->interface, IFNAMSIZ - 1);
    memcpy(bound.mac, port->mac, sizeof(port->mac));
    one_element(transaction, NFPROTO_BRIDGE, "ports", add, bound.interface, IFNAMSIZ);
    one_element(transaction, NFPROTO_BRIDGE, "bound", add, &bound, sizeof(bound));
    one_element(transaction, NFPROTO_INET, "functions", add, &bound.address, sizeof(bound.address));
}

int network_filter_add_port(const char *table, const struct filter_port *port, struct error *err)
{
    struct transaction transaction;

    transaction_begin(&transaction, table);
    change_port(&transaction, port, true);
    return transaction_commit(&transaction, err);
}

int network_filter_remove_ports(const char *table, const struct filter_port *const *ports,
                                size_t count, struct error *err)
{
    struct transaction transaction;

    transaction_begin(&transaction, table);
    for (size_t i = 0; i < count; i++)
        change_port(&transaction, ports[i], false);
    return transaction_commit(&transaction, err);
}

/* ---- policies ---- */

void filter_policy_deinit(struct filter_policy *policy)
{
    free(policy->ranges);
    *policy = (struct filter_policy){0};
}

static void append_range(struct transaction *transaction, uint32_t address,
                         const struct filter_range *range)
{
    struct key {
        uint32_t source, destination;
        uint8_t protocol[4];
        uint16_t port, padding;
    };
    const struct key first = {
        htonl(address), htonl(range->first), {range->protocol}, htons(range->port_first), 0};
    const struct key last = {
        htonl(address), htonl(range->last), {range->protocol}, htons(range->port_last), 0};

    append_element(transaction, &first, &last, sizeof(first));
}

/* Adds (or removes) what `some` has and `others` has not. */
static void change_ranges(struct transaction *transaction, uint32_t address,
                          const struct filter_policy *some, const struct filter_policy *others,
                          bool add)
{
    size_t other = 0;

    for (size_t i = 0; i < some->range_count; i++) {
        const struct filter_range *range = &some->ranges[i];
        while (other < others->range_count &&
               filter_range_compare(&others->ranges[other], range) < 0)
            other++;
        if (other < others->range_count && filter_range_compare(&others->ranges[other], range) == 0)
            continue;
        if (!transaction->list || transaction->elements == MESSAGE_ELEMENTS) {
            end_elements(transaction);
            begin_elements(transaction, NFPROTO_INET, "allowed", add);
        }
        append_range(transaction, address, range);
    }
    end_elements(transaction);
}

int network_filter_change(const char *table, uint32_t address, const struct filter_policy *from,
                          const struct filter_policy *to, struct error *err)
{
    struct transaction transaction;
    uint32_t key = htonl(address);

    transaction_begin(&transaction, table);
    change_ranges(&transaction, address, from, to, false);
    change_ranges(&transaction, address, to, from, true);
    if (from->limited != to->limited)
        one_element(&transaction, NFPROTO_INET, "limited", to->limited, &key, sizeof(key));
    if (from->names != to->names)
        one_element(&transaction, NFPROTO_INET, "named", to->names, &key, sizeof(key));
    return transaction_commit(&transaction, err);
}
