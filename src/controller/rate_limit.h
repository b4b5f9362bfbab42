/* How many requests a second each client address may make: one token bucket an address, kept as the
 * single time at which it will be full again (the generic cell rate algorithm: ATM Forum, Traffic
 * Management 4.0, appendix B).
 *
 * Clients are told apart by IPv4 address, or by the first 64 bits of an IPv6 address, since whoever
 * has one of those has all. The table is of a fixed size: where it is full, the bucket that is nearest
 * to full is forgotten, which takes nothing from anybody else. Its hash has a random seed.
 *
 * init makes no table when the rate is 0: everything is then let through. One thread. */
#pragma once

#include "base/error.h"

#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

/* One bucket of its own: a function's, a token's. All zero: no limit. */
struct rate {
    uint64_t interval_ns; /* 0: no limit */
    uint64_t depth_ns;
    uint64_t full_ns;
};

/* `per_second` 0: no limit. `burst` 0: what one second brings, at least 1. What was taken so far stays taken, up to a
 * whole bucket. */
void rate_set(struct rate *rate, double per_second, uint64_t burst);
/* Takes one. 0, or the nanoseconds until there is one. */
uint64_t rate_take(struct rate *rate, uint64_t now_ns);

#define RATE_LIMIT_BUCKETS 16384 /* a power of two; 256 KiB */

struct rate_bucket {
    uint64_t client;  /* 0: unused */
    uint64_t full_ns; /* when the bucket is full again; in the past: it is */
};

struct rate_limit {
    struct rate_bucket *buckets; /* owned; NULL: no limit */
    uint64_t interval_ns;        /* between two requests at the steady rate */
    uint64_t depth_ns;           /* what a full bucket is worth */
    uint64_t seed;
    uint64_t refused;
};

/* `per_second` 0: no limit. `burst` is how many may come at once after silence; at least 1. */
int rate_limit_init(struct rate_limit *limit, uint64_t per_second, uint64_t burst,
                    struct error *err);
void rate_limit_deinit(struct rate_limit *limit);
/* Takes one token of the client's. 0, or the nanoseconds until there is one. A client without an
 * internet address (NULL, a local socket) shares one bucket with its like. */
uint64_t rate_limit_take(struct rate_limit *limit, const struct sockaddr *client, uint64_t now_ns);
