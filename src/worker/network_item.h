/* What worker/network.c and worker/network_item.c share: the pool of network namespaces, and one namespace's way from nothing to nothing.
 *
 *     MAKING -> WIRING -> READY -> TAKEN -> CLEARING -> REMOVING -> (freed)
 *
 * A namespace of kind none skips WIRING and CLEARING; a failure on the way up goes straight to the way down. WIRING ends with
 * its address, the port's isolation and its rules, CLEARING takes back what the packet filter has of it while its address is still its own. */
#pragma once

#include "worker/cni.h"
#include "worker/network.h"
#include "worker/network_addresses.h"
#include "worker/network_host.h"
#include "worker/network_policy.h"

#define NETWORK_KINDS 2
/* Namespaces that are cleared at once. */
#define NETWORK_CLEARING_MAX 64

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
    bool uncleared;          /* rules or connections that its address has are still there */
    struct network_policy *policy;
    network_applied_fn *applied;
    void *applied_data;
    struct error err; /* why it failed; code 0 if it did not */
};

struct network {
    uv_loop_t *loop;
    char *worker, *directory, *state, *cni_path, *bridge, *subnet, *denied; /* owned */
    struct name_servers name_servers;
    struct names *names;
    struct item *clearing[NETWORK_CLEARING_MAX]; /* those of the job that runs */
    size_t clearing_count;
    uint64_t table_ns;       /* how long that job read the table of connections; 0: not at all */
    struct loop_timer *rest; /* until the next job may begin */
    struct subnet subnet_parsed;
    struct cni_config cni; /* borrows from the above */
    struct network_host *host;
    struct network_addresses *addresses; /* there with `host` */
    struct error bridge_problem;         /* code 0: none */
    size_t pool[NETWORK_KINDS];
    bool stalled
        [NETWORK_KINDS]; /* the last attempt for the pool failed: no new one before somebody asks */
    struct item *items;  /* owned, all of them */
    struct take *takes;  /* owned: waiting, oldest first */
    size_t deliveries;   /* deferred calls under way */
    bool stopping, torn_down;
    void (*stopped)(void *data);
    void *stopped_data;
};

/* ---- one namespace (network_item.c) ---- */

/* On its way up; it ends in one of the first two calls below. */
int network_item_start(struct network *network, enum function_network kind, struct error *err);
/* On its way down, from WIRING, READY or TAKEN; it ends in network_item_gone(). */
void network_item_destroy(struct item *item);
/* What waits to be cleared waits no longer for the rest between two jobs; the network is stopping. */
void network_items_clear_now(struct network *network);
/* At once: nothing of it must be there. */
void network_item_free(struct item *item);
/* What a worker of this name left in the folder, or this one could not clear. Blocks. */
int network_items_remove_left(struct network *network, struct error *err);

/* ---- what the pool makes of it (network.c) ---- */

void network_item_came_up(struct item *item);
/* item->err says why; the pool frees it, or destroys it when it was WIRING. */
void network_item_failed(struct item *item);
struct item *network_find_ready(const struct network *network, enum function_network kind);
/* One has been freed. */
void network_item_gone(struct network *network);
