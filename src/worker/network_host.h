/* What bridged functions need of the host: forwarding, a packet filter, and in the end its removal.
 *
 * Several workers of one host may share a bridge. Each has nftables tables of its own and a file under
 * <state>/<bridge>/users/, locked while it lives; the last one to leave deletes the bridge, switches forwarding back as it was, and removes
 * the state. All calls block (they run nft): start-up and thread-pool jobs only. */
#pragma once

#include "worker/network_filter.h"

struct network_host;

/* Everything is borrowed until network_host_leave(). */
struct network_host_options {
    const char *worker;
    const char *bridge; /* name of its interface */
    const char *subnet; /* "10.88.64.0/18" */
    const char *state;  /* folder that all workers of all bridges share */
    const char *denied; /* networks that no function may reach, separated by commas; may be NULL */
    const struct name_servers *name_servers; /* may be asked nevertheless; may be NULL */
};

struct network_host *network_host_join(const struct network_host_options *options,
                                       struct error *err);
/* <state>/<bridge>: goes when the last worker leaves. Borrowed. */
const char *network_host_folder(const struct network_host *host);
/* The name of the worker's nftables tables; borrowed. */
const char *network_host_table(const struct network_host *host);
/* Undoes it; accepts NULL. */
void network_host_leave(struct network_host *host);

/* No direct path between this port of the bridge and the other isolated ones, and nothing said on it by the host's IPv6. */
int network_host_isolate(const char *interface, struct error *err);
/* Nothing passes through it any more. */
int network_host_link_down(const char *interface, struct error *err);
/* Whether ever a packet came from it; also true when that cannot be told. */
bool network_host_link_spoke(const char *interface);
