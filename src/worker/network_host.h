/* What bridged functions need of the host: forwarding, a packet filter, and in the end its removal.
 *
 * Several workers of one host may share a bridge. Each has an nftables table of its own and a file under
 * <state>/<bridge>/users/, locked while it lives; the last one to leave deletes the bridge, switches forwarding back as it was, and removes
 * the state. All calls block (they run nft): start-up and thread-pool jobs only. */
#pragma once

#include "worker/cni.h"

struct network_host;

/* `config` and `worker` are borrowed until network_host_leave(). */
struct network_host *network_host_join(const struct cni_config *config, const char *worker,
                                       struct error *err);
/* Undoes it; accepts NULL. */
void network_host_leave(struct network_host *host);

/* No direct path between this port of the bridge and the other isolated ones. */
int network_host_isolate(const char *interface, struct error *err);
