/* The host's table of connections, without those of instances that are gone: an address that is given to another instance must not come with
 * connections of its own, and the table is for all. Blocks; for thread-pool jobs. */
#pragma once

#include "base/error.h"

#include <stddef.h>
#include <stdint.h>

/* Forgets every connection that one of these addresses (host byte order) began. */
int network_conntrack_forget(const uint32_t *addresses, size_t count, struct error *err);
