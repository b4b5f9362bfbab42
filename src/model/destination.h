/* A place on the network that a function may reach (field `network_allow`), as users write it:
 *
 *     HOST[:PORT[-PORT]][/tcp|/udp]
 *
 * HOST is an IPv4 address, a network (10.0.0.0/8) or a name. Without a port: all ports; without a
 * protocol: TCP and UDP. IPv6 is off inside functions. */
#pragma once

#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define DESTINATION_NAME_MAX 253 /* RFC 1035, section 2.3.4 */
#define DESTINATION_TEXT_MAX 280

struct destination {
    char *text;           /* owned: as it was written */
    char *name;           /* owned: in lower case, without a trailing dot; NULL for addresses */
    uint32_t first, last; /* addresses, host byte order; 0 for names */
    uint16_t port_first, port_last;
    bool tcp, udp;
};

struct destinations {
    struct destination *items; /* owned */
    size_t count;
};

/* The error says what would be right; it has no field. After a failure there is nothing to free. */
int destination_parse(const char *text, struct destination *ret, struct error *err);
void destination_deinit(struct destination *destination);
void destinations_deinit(struct destinations *list);
/* -1 only when out of memory. */
int destinations_copy(struct destinations *to, const struct destinations *from);
bool destinations_have_names(const struct destinations *list);

/* "a.b.c.d" or "a.b.c.d/len" without host bits: an operator's list of networks, too. */
int network_range_parse(const char *text, size_t len, uint32_t *ret_first, uint32_t *ret_last,
                        struct error *err);
