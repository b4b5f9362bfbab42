/* What bridged functions need of the host: forwarding, a packet filter, and in the end its removal.
 *
 * Several workers of one host may share a bridge. Each has nftables tables of its own and a file under
 * <state>/<bridge>/users/, locked while it lives; the last one to leave deletes the bridge, switches forwarding back as it was, and removes
 * the state. All calls block (they run nft): start-up and thread-pool jobs only. */
#pragma once

#include "worker/cni.h"
#include "worker/network_filter.h"

struct network_host;

/* `denied`: networks that no function may reach, separated by commas (may be NULL); `name_servers`: what
 * functions may ask nevertheless (may be NULL). Everything is borrowed until network_host_leave(). */
struct network_host *network_host_join(const struct cni_config *config, const char *worker,
                                       const char *denied, const struct name_servers *name_servers,
                                       struct error *err);
/* The name of the worker's nftables tables; borrowed. */
const char *network_host_table(const struct network_host *host);
/* Undoes it; accepts NULL. */
void network_host_leave(struct network_host *host);

/* No direct path between this port of the bridge and the other isolated ones. */
int network_host_isolate(const char *interface, struct error *err);
/* Nothing passes through it any more. */
int network_host_link_down(const char *interface, struct error *err);
