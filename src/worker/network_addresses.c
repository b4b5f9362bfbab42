/* Addresses in use, as symbolic links. */
#include "worker/network_addresses.h"

#include "base/cleanup.h"
#include "base/file.h"
#include "base/log.h"
#include "base/text.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Longer than any id of a namespace. */
#define ID_SIZE 64

struct network_addresses {
    int folder; /* owned */
    struct subnet subnet;
    _Atomic uint32_t
        next; /* counts up without end; its rest by the number of addresses is the one to try */
};

int subnet_parse(const char *text, struct subnet *ret, struct error *err)
{
    char address[INET_ADDRSTRLEN] = "", extra;
    unsigned length = 0;
    struct in_addr parsed;

    if (sscanf(text, "%15[0-9.]/%2u%c", address, &length, &extra) != 2 ||
        inet_pton(AF_INET, address, &parsed) != 1 || length < 8 || length > 29)
        return error_set(
            err, ERROR_INVALID_REQUEST,
            "subnet \"%.32s\" must be an IPv4 network such as 10.88.64.0/18, /8 to /29", text);
    if (ntohl(parsed.s_addr) & (UINT32_MAX >> length))
        return error_set(err, ERROR_INVALID_REQUEST,
                         "subnet \"%.32s\" has bits set beyond its first %u", text, length);
    if (ret)
        *ret = (struct subnet){.base = ntohl(parsed.s_addr), .length = length};
    return 0;
}

uint32_t subnet_gateway(const struct subnet *subnet)
{
    return subnet->base + 1;
}

/* Those that instances may have: all but the network's, the gateway's and the broadcast address. */
static uint32_t first_address(const struct subnet *subnet)
{
    return subnet->base + 2;
}

static uint32_t count_addresses(const struct subnet *subnet)
{
    return (UINT32_MAX >> subnet->length) - 2;
}

static const char *name_of(uint32_t address, char name[INET_ADDRSTRLEN])
{
    const struct in_addr in = {.s_addr = htonl(address)};

    return inet_ntop(AF_INET, &in, name, INET_ADDRSTRLEN);
}

struct network_addresses *network_addresses_new(const char *folder, const struct subnet *subnet,
                                                struct error *err)
{
    struct network_addresses *addresses = calloc(1, sizeof(*addresses));
    uint32_t start = 0;

    if (!addresses) {
        error_set(err, ERROR_INTERNAL, "out of memory");
        return NULL;
    }
    addresses->subnet = *subnet;
    addresses->folder = -1;
    /* A successor does not begin where its predecessor did: what that one talked with may still send answers. */
    if (getentropy(&start, sizeof(start)) < 0)
        error_set_errno(err, ERROR_INTERNAL, errno, "random bytes");
    else if (make_directories(folder, 0700, err) == 0) {
        atomic_init(&addresses->next, start);
        addresses->folder = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (addresses->folder >= 0)
            return addresses;
        error_set_errno(err, ERROR_UNAVAILABLE, errno, "open %s", folder);
    }
    network_addresses_free(addresses);
    return NULL;
}

void network_addresses_free(struct network_addresses *addresses)
{
    if (!addresses)
        return;
    if (addresses->folder >= 0)
        close(addresses->folder);
    free(addresses);
}

int network_addresses_take(struct network_addresses *addresses, const char *id, uint32_t *ret,
                           struct error *err)
{
    uint32_t count = count_addresses(&addresses->subnet);
    char name[INET_ADDRSTRLEN];

    for (uint32_t tries = 0; tries < count; tries++) {
        uint32_t address =
            first_address(&addresses->subnet) + atomic_fetch_add(&addresses->next, 1) % count;
        if (symlinkat(id, addresses->folder, name_of(address, name)) == 0) {
            *ret = address;
            return 0;
        }
        if (errno != EEXIST)
            return error_set_errno(err, ERROR_UNAVAILABLE, errno, "note that %s is in use", name);
    }
    return error_set(err, ERROR_UNAVAILABLE, "all %u addresses of %s/%u are in use", count,
                     name_of(addresses->subnet.base, name), addresses->subnet.length);
}

void network_addresses_give_back(struct network_addresses *addresses, uint32_t address)
{
    char name[INET_ADDRSTRLEN];

    if (unlinkat(addresses->folder, name_of(address, name), 0) < 0)
        log_warn("an address stays in use", LOG_STR("address", name_of(address, name)),
                 LOG_STR("error", strerror(errno)));
}

static bool belongs_to(int folder, const char *name, const char *id)
{
    char owner[ID_SIZE];
    ssize_t len = readlinkat(folder, name, owner, sizeof(owner));

    return len >= 0 && (size_t)len == strlen(id) && memcmp(owner, id, (size_t)len) == 0;
}

bool network_addresses_find(struct network_addresses *addresses, const char *id, uint32_t *ret)
{
    int copy = openat(addresses->folder, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *entries = copy < 0 ? NULL : fdopendir(copy);
    struct in_addr address;
    bool found = false;

    if (!entries) {
        log_warn("addresses in use cannot be read", LOG_STR("error", strerror(errno)));
        if (copy >= 0)
            close(copy);
        return false;
    }
    for (struct dirent *entry; !found && (entry = readdir(entries));)
        found = belongs_to(addresses->folder, entry->d_name, id) &&
                inet_pton(AF_INET, entry->d_name, &address) == 1;
    closedir(entries);
    if (found)
        *ret = ntohl(address.s_addr);
    return found;
}
