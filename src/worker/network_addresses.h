/* Which IPv4 address of a bridge's subnet is whose.
 *
 * An address in use is a symbolic link, named as the address and leading to the id of the namespace that has it, in a folder that all
 * workers of the bridge share: of two symlink(2)s with the same name one fails, so there is no lock, and what a worker that died had can
 * be found by the ids of its namespaces. Addresses go around: one that was given back is given out again as late as can be.
 *
 * All calls may block (file system) and may come from any thread. */
#pragma once

#include "base/error.h"

#include <stdbool.h>
#include <stdint.h>

/* A network; addresses are in host byte order, as everywhere in worker/network_*. */
struct subnet {
    uint32_t base;
    unsigned length; /* bits of the prefix, 8 to 29 */
};
/* "a.b.c.d/len" with len 8 to 29 and no host bits. `ret` may be NULL. */
int subnet_parse(const char *text, struct subnet *ret, struct error *err);
/* The host's own address in it, the first one: where instances send what leaves the subnet. */
uint32_t subnet_gateway(const struct subnet *subnet);

struct network_addresses;

/* Makes the folder. */
struct network_addresses *network_addresses_new(const char *folder, const struct subnet *subnet,
                                                struct error *err);
/* Accepts NULL. What was taken stays taken. */
void network_addresses_free(struct network_addresses *addresses);

/* One that nobody has, neither the gateway's nor the broadcast address. ERROR_UNAVAILABLE when all are in use. */
int network_addresses_take(struct network_addresses *addresses, const char *id, uint32_t *ret,
                           struct error *err);
void network_addresses_give_back(struct network_addresses *addresses, uint32_t address);
/* What another process has taken for this id. */
bool network_addresses_find(struct network_addresses *addresses, const char *id, uint32_t *ret);
