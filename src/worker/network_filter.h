/* The worker's packet filter: two nftables tables, and what one instance has in their sets.
 *
 *     table bridge  a port of the bridge may send IPv4 and ARP with its own MAC and IPv4 address only, and nothing to
 *                   broadcast or multicast addresses but ARP
 *     table inet    nothing to the host, to other functions, to metadata services, to the operator's forbidden networks; what a
 *                   function with an allow-list sends must be in it; connections are bounded, because the host's table of them is
 *                   for all; nothing reaches a function unasked; masquerading
 *
 * The tables are installed once, by `nft`. An instance's rules are elements of their sets, keyed by its interface and its
 * address; each change is one transaction over netlink, so it is there in full or not at all. Calls block: start-up and
 * thread-pool jobs only. */
#pragma once

#include "base/error.h"
#include "model/destination.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define NAME_SERVERS_MAX 3 /* as many as resolv.conf(5) takes */
/* Elements of one instance in the set of what is allowed. */
#define FILTER_RANGES_MAX 1024

struct name_servers {
    uint32_t addresses[NAME_SERVERS_MAX]; /* host byte order, as everywhere here */
    size_t count;
};

struct network_filter_options {
    const char *table;
    const char *bridge;
    const char *subnet;
    const char *denied;                      /* networks, separated by commas; NULL or "": none */
    const struct name_servers *name_servers; /* may be asked in spite of `denied`; NULL: none */
};

int network_filter_install(const struct network_filter_options *options, struct error *err);
int network_filter_remove(const char *table, struct error *err);
/* Whether a list of networks is one. */
int network_filter_check_list(const char *list, struct error *err);

/* One port of the bridge: what it may send as. */
struct filter_port {
    const char *interface;
    uint8_t mac[6];
    uint32_t address;
};
int network_filter_add_port(const char *table, const struct filter_port *port, struct error *err);
/* All in one transaction: the kernel waits some milliseconds at the end of one that removes. */
int network_filter_remove_ports(const char *table, const struct filter_port *const *ports,
                                size_t count, struct error *err);

/* A place that may be reached. */
struct filter_range {
    uint32_t first, last; /* addresses */
    uint16_t port_first, port_last;
    uint8_t protocol; /* IPPROTO_TCP or IPPROTO_UDP */
};

/* Order by protocol, ports, addresses; for qsort(3). */
int filter_range_compare(const void *a, const void *b);
/* The same places, without overlaps, sorted; `*ret` is malloc'd. ERROR_INVALID_REQUEST when they come to more than FILTER_RANGES_MAX. */
int filter_ranges_disjoint(const struct filter_range *ranges, size_t count,
                           struct filter_range **ret, size_t *ret_count, struct error *err);

/* What an instance is held to. Zero: it is not limited. */
struct filter_policy {
    bool limited;
    bool names;                  /* it may ask the name servers */
    struct filter_range *ranges; /* owned; disjoint and sorted */
    size_t range_count;
};
void filter_policy_deinit(struct filter_policy *policy);
/* From one to the other, in one transaction. */
int network_filter_change(const char *table, uint32_t address, const struct filter_policy *from,
                          const struct filter_policy *to, struct error *err);
