/* Where callbacks may go: the internet's public addresses, by TLS, and whatever networks the operator allows. Anything else that a
 * user could name would let him speak, from the controller's place, to machines that he cannot reach himself (cloud metadata,
 * other services, the controller itself).
 *
 * Asked with the very address that is about to be connected to, so a name that changes its address between two look-ups
 * gains nothing. Any thread. */
#pragma once

#include "base/error.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

#define CALLBACK_NETWORKS_MAX 64

/* Addresses are IPv6; IPv4 ones are mapped (::ffff:a.b.c.d). */
struct callback_network {
    uint8_t address[16];
    unsigned bits;
};

struct callback_networks {
    struct callback_network items[CALLBACK_NETWORKS_MAX];
    size_t count;
};

struct callback_guard {
    struct callback_networks allowed; /* by the operator */
    struct callback_networks refused; /* none of the internet's public ones */
};

/* `text`: networks or addresses that are allowed, comma-separated; may be empty. */
int callback_guard_init(struct callback_guard *guard, const char *text, struct error *err);
/* Whether a callback may be sent there; without TLS only where it is allowed by name. */
bool callback_guard_allows(const struct callback_guard *guard, const struct sockaddr *address,
                           bool tls);
/* The same for the text of an address; true for anything else, which has to be resolved first. */
bool callback_guard_allows_host(const struct callback_guard *guard, const char *host, bool tls);
