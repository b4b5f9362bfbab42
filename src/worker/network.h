/* Network namespaces for instances: made, wired by CNI plugins, pooled, destroyed.
 *
 * A namespace is bound to a file in the worker's own folder and joined by path (struct
 * oci_runtime_spec.network_namespace). It belongs to the host's user namespace, so code in a
 * container has no rights over it. IPv6 is off inside.
 *
 *     none    loopback only
 *     bridge  a veth pair to the bridge (CNI 1.0.0 plugin `bridge`), masqueraded
 *             and filtered by the worker's nftables tables (worker/network_filter.h): nothing to the
 *             host itself, to other functions, to metadata services, to what the operator forbids, and
 *             nothing with a source that is not its own. Bridge ports are isolated from each other.
 *             What one function may reach, and how fast, is put in force by network_apply().
 *
 * Life cycle:
 *
 *     network_new()                            at start (blocks: removes what a predecessor left,
 *                                              sets up the host)
 *     network_take() … network_release()       loop thread, asynchronous; a release destroys,
 *                                              nothing is used twice
 *     network_apply()                          between the two, when it is known whose it is
 *     network_stop(done), then network_free()
 *
 * Where bridge cannot be had (a missing plugin, no nftables), `none` still works and network_take()
 * of a bridge tells why. */
#pragma once

#include "base/error.h"
#include "model/function.h"
#include "worker/network_filter.h"

#include <net/if.h>
#include <netinet/in.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <uv.h>

struct network_options {
    const char *worker;    /* its name: [a-z0-9-]; names the nftables table */
    const char *directory; /* namespaces are bound here: /run/faas/<worker>/netns */
    const char
        *state; /* addresses in use, shared by all workers of one bridge; NULL: /run/faas/cni */
    const char *cni_path; /* folders of the plugins, colon-separated; NULL:
                             /usr/lib/cni:/opt/cni/bin:/usr/libexec/cni */
    const char *bridge;   /* NULL: faas0 */
    const char *subnet;   /* NULL: 10.88.64.0/18 */
    const char *denied;   /* networks that no function may reach, comma-separated; NULL: none */
    const struct name_servers *name_servers; /* copied; NULL: none */
    size_t pool_bridge;                      /* ready namespaces kept in advance of each kind */
    size_t pool_none;
};

struct network;

/* One namespace, taken by an instance. */
struct network_namespace {
    const char *path;              /* for the runtime spec */
    char address[INET_ADDRSTRLEN]; /* on the bridge; "" for none */
    char host_interface[IFNAMSIZ]; /* the bridge's end of the veth pair; "" for none */
};

/* NULL only when even network `none` cannot work (not root, folder not writable). All strings are
 * copied. */
struct network *network_new(uv_loop_t *loop, const struct network_options *options,
                            struct error *err);
/* NULL when bridge works, otherwise why not (borrowed). */
const struct error *network_bridge_problem(const struct network *network);

/* Exactly one of `ns` and `err` is not NULL. The namespace is the caller's until network_release().
 */
typedef void network_done_fn(void *data, struct network_namespace *ns, const struct error *err);

/* Always asynchronous. -1: `done` is never called. */
int network_take(struct network *network, enum function_network kind, network_done_fn *done,
                 void *data, struct error *err);
/* Puts the function's network policy (network_allow, network_kbps) in force on a namespace that was taken of the spec's kind: once,
 * before any of its code runs. 1: it is, or there is none, and `done` is not called. 0: `done` follows, never from inside this call, unless
 * the namespace is released before; so it is when network_policy_waits(spec). With an error: nothing may run in it. A name that is not known (yet) is no error; its addresses are let
 * through as soon as they are. */
typedef void network_applied_fn(void *data, const struct error *err);
int network_apply(struct network *network, struct network_namespace *ns,
                  const struct function_spec *spec, network_applied_fn *done, void *data,
                  struct error *err);
/* Destroys it in the background; accepts NULL. Processes in it should have ended. */
void network_release(struct network *network, struct network_namespace *ns);

/* Waits for what is under way (takes still pending get an error), destroys every namespace, taken
 * or not, and undoes what was done to the host: nftables table, forwarding switch, and the bridge
 * when nobody uses it any more. Then `done`, on the loop thread. */
void network_stop(struct network *network, void (*done)(void *data), void *data);
/* After network_stop()'s `done`. Accepts NULL. */
void network_free(struct network *network);

/* ---- what an instance has sent and received ---- */

struct network_counters {
    uint64_t in_bytes;  /* received by the instance */
    uint64_t out_bytes; /* sent */
};
/* A descriptor for the counters of the network namespace of process `pid` (/proc/<pid>/net/dev);
 * close() it when the instance is gone: it keeps the namespace alive. -1 on failure. */
int network_counters_open(pid_t pid, struct error *err);
/* Sum over all interfaces but loopback. */
int network_counters_read(int fd, struct network_counters *ret, struct error *err);

/* ---- name resolution ---- */

/* Appends the lines of a resolv.conf (`text`, which is cut into them) but for comments and servers of no use in a container, and
 * adds the others to `servers`. */
int network_copy_resolv_conf(char *text, struct buffer *out, struct name_servers *servers,
                             struct error *err);
/* Writes a resolv.conf for containers to `path` (mode 0644), and tells which name servers are in it. `list` (IPv4 addresses
 * separated by commas) is what it names, unless it is NULL or "": then the host's file, without name servers on loopback addresses, which mean the
 * container itself there, and without IPv6 ones. If none is left: those that systemd-resolved uses upstream. */
int network_write_resolv_conf(const char *path, const char *list, struct name_servers *ret,
                              struct error *err);
/* Whether `list` is one. */
int name_servers_parse(const char *list, struct name_servers *ret, struct error *err);
