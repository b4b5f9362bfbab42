/* What one instance may do on the network beyond the rules for all: a function's network_allow and network_kbps, in force on the
 * namespace that the instance has.
 *
 *     network_policy_start() … ready(…) … network_policy_close() … closed()
 *     network_policy_start_now()          … network_policy_close() … closed()
 *
 * While it stands, changed addresses of names change the packet filter. Loop thread only; work that waits is done on pool threads. */
#pragma once

#include "model/function.h"
#include "worker/names.h"
#include "worker/network_filter.h"

struct network_policy;

struct network_policy_options {
    const char *table;          /* nftables tables of the worker */
    const char *path;           /* of the namespace */
    const char *host_interface; /* all three are borrowed until `closed` */
    uint32_t address;           /* host byte order */
};

bool network_policy_needed(const struct function_spec *spec);
/* Whether putting it in force has to wait: for name servers, or for the kernel's lock on interfaces. */
bool network_policy_waits(const struct function_spec *spec);

/* For one that does not wait: it is in force when this returns. NULL: it is not. */
struct network_policy *network_policy_start_now(uv_loop_t *loop,
                                                const struct network_policy_options *options,
                                                const struct function_spec *spec,
                                                struct error *err);
/* `ready` follows, never from inside this call, with NULL or why the policy cannot be enforced; nothing is given up by itself
 * then: network_policy_close(). NULL: neither is called. */
struct network_policy *network_policy_start(uv_loop_t *loop, struct names *names,
                                            const struct network_policy_options *options,
                                            const struct function_spec *spec,
                                            void (*ready)(void *data, const struct error *err),
                                            void *data, struct error *err);
/* Takes the rules back; `closed` follows, never from inside this call, with NULL or why some are still there, and then it is freed. `ready` is not
 * called any more. */
void network_policy_close(struct network_policy *policy,
                          void (*closed)(void *data, const struct error *err), void *data);
