/* A token bucket for each client address: see rate_limit.h. */
#include "controller/rate_limit.h"

#include <netinet/in.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#define NS_PER_SECOND 1000000000ULL
#define WAYS 8 /* buckets where one client's may be */
#define IPV4_MARK 0x0400000000000000ULL

int rate_limit_init(struct rate_limit *limit, uint64_t per_second, uint64_t burst,
                    struct error *err)
{
    *limit = (struct rate_limit){0};
    if (per_second == 0)
        return 0;
    limit->interval_ns = per_second > NS_PER_SECOND ? 1 : NS_PER_SECOND / per_second;
    limit->depth_ns = limit->interval_ns * (burst ? burst : 1);
    if (getrandom(&limit->seed, sizeof(limit->seed), 0) != (ssize_t)sizeof(limit->seed))
        return error_set(err, ERROR_INTERNAL, "no random bytes for the table of clients");
    limit->buckets = calloc(RATE_LIMIT_BUCKETS, sizeof(*limit->buckets));
    return limit->buckets ? 0 : error_set(err, ERROR_INTERNAL, "out of memory");
}

void rate_limit_deinit(struct rate_limit *limit)
{
    free(limit->buckets);
    *limit = (struct rate_limit){0};
}

static uint64_t ipv4_client(const void *address)
{
    uint32_t bits;
    memcpy(&bits, address, sizeof(bits));
    return IPV4_MARK | ntohl(bits);
}

/* Never 0. An IPv4 address is the same client through an IPv6 socket. No network has addresses that
 * begin like the mark (RFC 4291, section 2.4: they would be in the reserved 0400::/8). */
static uint64_t client_of(const struct sockaddr *address)
{
    struct sockaddr_in6 six;
    uint64_t network;
    if (address && address->sa_family == AF_INET) {
        struct sockaddr_in four;
        memcpy(&four, address, sizeof(four));
        return ipv4_client(&four.sin_addr);
    }
    if (!address || address->sa_family != AF_INET6)
        return UINT64_MAX;
    memcpy(&six, address, sizeof(six));
    if (IN6_IS_ADDR_V4MAPPED(&six.sin6_addr))
        return ipv4_client(&six.sin6_addr.s6_addr[12]);
    network = 0;
    for (int i = 0; i < 8; i++)
        network = network << 8 | six.sin6_addr.s6_addr[i];
    return network ? network : 1; /* ::1 */
}

/* The finaliser of SplitMix64 (Steele, Lea, Flood 2014), seeded on both sides. */
static uint64_t mix(uint64_t value, uint64_t seed)
{
    value = (value ^ seed) * 0xbf58476d1ce4e5b9ULL;
    value = (value ^ value >> 27 ^ seed >> 7) * 0x94d049bb133111ebULL;
    return value ^ value >> 31;
}

/* The client's bucket, or the one that may best be forgotten for it. */
static struct rate_bucket *find(struct rate_limit *limit, uint64_t client)
{
    size_t set = (size_t)(mix(client, limit->seed) & (RATE_LIMIT_BUCKETS - 1)) / WAYS * WAYS;
    struct rate_bucket *fullest = &limit->buckets[set];
    for (size_t i = 0; i < WAYS; i++) {
        struct rate_bucket *bucket = &limit->buckets[set + i];
        if (bucket->client == client)
            return bucket;
        if (bucket->full_ns < fullest->full_ns)
            fullest = bucket;
    }
    *fullest = (struct rate_bucket){.client = client};
    return fullest;
}

/* 0, or how long to wait. */
static uint64_t take(uint64_t *full_ns, uint64_t interval_ns, uint64_t depth_ns, uint64_t now_ns)
{
    uint64_t start_ns = *full_ns > now_ns ? *full_ns : now_ns;
    uint64_t after_ns = start_ns + interval_ns - now_ns; /* until it would be full again */
    if (after_ns > depth_ns)
        return after_ns - depth_ns;
    *full_ns = now_ns + after_ns;
    return 0;
}

uint64_t rate_limit_take(struct rate_limit *limit, const struct sockaddr *client, uint64_t now_ns)
{
    if (!limit->buckets)
        return 0;
    struct rate_bucket *bucket = find(limit, client_of(client));
    uint64_t wait_ns = take(&bucket->full_ns, limit->interval_ns, limit->depth_ns, now_ns);
    limit->refused += wait_ns > 0;
    return wait_ns;
}

void rate_set(struct rate *rate, double per_second, uint64_t burst)
{
    if (per_second <= 0) {
        *rate = (struct rate){0};
        return;
    }
    if (burst == 0)
        burst = per_second > 1 ? (uint64_t)per_second : 1;
    rate->interval_ns = (uint64_t)(NS_PER_SECOND / per_second);
    rate->depth_ns = rate->interval_ns * burst;
}

uint64_t rate_take(struct rate *rate, uint64_t now_ns)
{
    if (rate->interval_ns == 0)
        return 0;
    if (rate->full_ns > now_ns + rate->depth_ns) /* the limit was another */
        rate->full_ns = now_ns + rate->depth_ns;
    return take(&rate->full_ns, rate->interval_ns, rate->depth_ns, now_ns);
}
