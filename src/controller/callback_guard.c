/* Addresses that callbacks may go to: see callback_guard.h. */
#include "controller/callback_guard.h"

#include <arpa/inet.h>
#include <ifaddrs.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAPPED_BITS 96

/* IANA's special-purpose registries (IPv4 and IPv6), multicast, and addresses at which clouds answer their guests. */
static const char refused_networks[] =
    "0.0.0.0/8,10.0.0.0/8,100.64.0.0/10,127.0.0.0/8,169.254.0.0/16,172.16.0.0/12,192.0.0.0/24,"
    "192.0.2.0/24,192.31.196.0/24,192.52.193.0/24,192.88.99.0/24,192.168.0.0/16,192.175.48.0/24,"
    "198.18.0.0/15,198.51.100.0/24,203.0.113.0/24,224.0.0.0/4,240.0.0.0/4,168.63.129.16/32,"
    "2001::/23,2001:db8::/32,2002::/16,2620:4f:8000::/48,3fff::/20";
/* All other IPv6 is none of the internet's. */
static const struct callback_network global_unicast = {.address = {0x20}, .bits = 3};
/* An IPv4 address behind a translator (RFC 6052). */
static const struct callback_network translated = {.address = {0, 0x64, 0xff, 0x9b},
                                                   .bits = MAPPED_BITS};

static void map_v4(const void *v4, uint8_t out[16])
{
    memset(out, 0, 10);
    memset(out + 10, 0xff, 2);
    memcpy(out + 12, v4, 4);
}

static bool is_mapped(const uint8_t address[16])
{
    static const uint8_t prefix[12] = {[10] = 0xff, [11] = 0xff};
    return memcmp(address, prefix, sizeof(prefix)) == 0;
}

static bool contains(const struct callback_network *network, const uint8_t address[16])
{
    unsigned whole = network->bits / 8, rest = network->bits % 8;
    if (memcmp(network->address, address, whole) != 0)
        return false;
    return rest == 0 || ((network->address[whole] ^ address[whole]) >> (8 - rest)) == 0;
}

/* ---- reading ---- */

static bool parse_address(const char *text, uint8_t out[16], bool *ret_v4)
{
    struct in_addr v4;
    *ret_v4 = inet_pton(AF_INET, text, &v4) == 1;
    if (*ret_v4)
        map_v4(&v4, out);
    return *ret_v4 || inet_pton(AF_INET6, text, out) == 1;
}

static int parse_network(const char *text, size_t len, struct callback_network *ret,
                         struct error *err)
{
    char copy[64], *end = NULL;
    bool v4 = false;
    snprintf(copy, sizeof(copy), "%.*s", (int)(len < sizeof(copy) ? len : sizeof(copy) - 1), text);
    char *slash = strchr(copy, '/');
    if (slash)
        *slash = '\0';
    bool valid = len < sizeof(copy) && parse_address(copy, ret->address, &v4);
    unsigned long most = v4 ? 32 : 128, bits = most;
    if (slash) {
        bits = strtoul(slash + 1, &end, 10);
        valid = valid && slash[1] >= '0' && slash[1] <= '9' && *end == '\0' && bits <= most;
    }
    if (!valid)
        return error_set(err, ERROR_INVALID_REQUEST,
                         "a network must be such as 10.1.0.0/16 or fd00:1::/64, not \"%.*s\"",
                         (int)(len < 60 ? len : 60), text);
    ret->bits = (unsigned)bits + (v4 ? MAPPED_BITS : 0);
    return 0;
}

static int parse_networks(const char *text, struct callback_networks *ret, struct error *err)
{
    ret->count = 0;
    while (*text) {
        size_t len = strcspn(text, ",");
        if (ret->count == CALLBACK_NETWORKS_MAX)
            return error_set(err, ERROR_INVALID_REQUEST, "at most %d networks can be given",
                             CALLBACK_NETWORKS_MAX);
        if (parse_network(text, len, &ret->items[ret->count], err) < 0)
            return -1;
        ret->count++;
        text += len;
        text += *text == ',';
    }
    return 0;
}

int callback_guard_init(struct callback_guard *guard, const char *text, struct error *err)
{
    memset(guard, 0, sizeof(*guard));
    if (parse_networks(refused_networks, &guard->refused, err) < 0)
        return -1;
    return parse_networks(text, &guard->allowed, err);
}

/* ---- asking ---- */

static bool in_any(const struct callback_networks *list, const uint8_t address[16])
{
    for (size_t i = 0; i < list->count; i++)
        if (contains(&list->items[i], address))
            return true;
    return false;
}

static bool read_sockaddr(const struct sockaddr *address, uint8_t out[16])
{
    if (address->sa_family == AF_INET)
        map_v4(&((const struct sockaddr_in *)(const void *)address)->sin_addr, out);
    else if (address->sa_family == AF_INET6)
        memcpy(out, &((const struct sockaddr_in6 *)(const void *)address)->sin6_addr, 16);
    else
        return false;
    return true;
}

/* Also when that cannot be found out. Asked anew each time: a machine's addresses change. */
static bool is_own(const uint8_t address[16])
{
    struct ifaddrs *all = NULL;
    bool own = false;
    uint8_t one[16];
    if (getifaddrs(&all) < 0)
        return true;
    for (const struct ifaddrs *i = all; i && !own; i = i->ifa_next)
        own = i->ifa_addr && read_sockaddr(i->ifa_addr, one) && memcmp(one, address, 16) == 0;
    freeifaddrs(all);
    return own;
}

static bool is_public(const struct callback_guard *guard, const uint8_t address[16])
{
    uint8_t inner[16];
    if (contains(&translated, address)) {
        map_v4(address + 12, inner);
        return is_public(guard, inner);
    }
    return (is_mapped(address) || contains(&global_unicast, address)) &&
           !in_any(&guard->refused, address);
}

static bool allows(const struct callback_guard *guard, const uint8_t address[16], bool tls)
{
    return in_any(&guard->allowed, address) ||
           (tls && is_public(guard, address) && !is_own(address));
}

bool callback_guard_allows(const struct callback_guard *guard, const struct sockaddr *address,
                           bool tls)
{
    uint8_t bytes[16];
    return read_sockaddr(address, bytes) && allows(guard, bytes, tls);
}

bool callback_guard_allows_host(const struct callback_guard *guard, const char *host, bool tls)
{
    uint8_t bytes[16];
    bool v4;
    if (!parse_address(host, bytes, &v4))
        return tls || guard->allowed.count > 0;
    return allows(guard, bytes, tls);
}
