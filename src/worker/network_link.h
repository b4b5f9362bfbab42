/* The link between an instance and its bridge, once the CNI plugin has made it: addresses, routes, and its end. By rtnetlink.
 *
 * The plugin could give the addresses, too, by way of a second one (`host-local`), and take the link away (`DEL`): three more programs for each
 * instance, at some milliseconds of a processor each that others' calls would wait for. These are some microseconds.
 *
 * All calls block for less than some milliseconds: thread-pool jobs only. */
#pragma once

#include "base/error.h"
#include "worker/network_addresses.h"

#include <stdint.h>

/* The interface in an instance's namespace. */
#define NETWORK_LINK_INSIDE "eth0"

/* Gives the bridge the subnet's gateway address, and a MAC address that stays whatever ports come and go. Nothing to do when it has it. */
int network_link_set_gateway(const char *bridge, const struct subnet *subnet, struct error *err);
/* Inside of a namespace: the address, a MAC address that follows from it (so nobody's idea of who has an address is ever out of date), and
 * the route to everything else. Waits until both ends let packets pass: the kernel switches a link on some time after it is up, and drops what is
 * sent before, which costs the sender a second. */
int network_link_set_address(const char *namespace_path, const char *host_interface,
                             const struct subnet *subnet, uint32_t address, uint8_t ret_mac[6],
                             struct error *err);
/* Both ends are gone afterwards. 0 also when there was none. */
int network_link_delete(const char *namespace_path, struct error *err);
