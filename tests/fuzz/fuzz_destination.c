/* What an operator or a user writes as a place in the network: an entry of network_allow, a range, a list of name servers, an
 * address to listen on; and several entries, one a line, as rules without overlaps that mean the same. */
#include "base/cleanup.h"
#include "base/http_server.h"
#include "model/destination.h"
#include "worker/network.h"
#include "worker/network_addresses.h"

#include <arpa/inet.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define RANGES_MAX 64

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool condition)
{
    if (!condition)
        abort();
}

/* ---- one entry ---- */

static void check_destination(const struct destination *destination)
{
    struct destination again = {0};
    require(destination->first <= destination->last && (destination->tcp || destination->udp));
    require(destination->port_first >= 1 && destination->port_first <= destination->port_last);
    if (!destination->name)
        return;
    require(strlen(destination->name) <= DESTINATION_NAME_MAX);
    require(destination_parse(destination->name, &again, NULL) == 0 && again.name &&
            strcmp(again.name, destination->name) == 0);
    destination_deinit(&again);
}

static bool try_destination(const char *text, struct destination *ret)
{
    struct error err = {0};
    if (destination_parse(text, ret, &err) < 0) {
        require(err.message[0] && !strchr(err.message, '\n'));
        return false;
    }
    check_destination(ret);
    return true;
}

/* ---- several ---- */

static bool holds(const struct filter_range *ranges, size_t count, const struct filter_range *place)
{
    for (size_t i = 0; i < count; i++)
        if (ranges[i].protocol == place->protocol && ranges[i].first <= place->first &&
            place->first <= ranges[i].last && ranges[i].port_first <= place->port_first &&
            place->port_first <= ranges[i].port_last)
            return true;
    return false;
}

static bool overlap(const struct filter_range *a, const struct filter_range *b)
{
    return a->protocol == b->protocol && a->first <= b->last && b->first <= a->last &&
           a->port_first <= b->port_last && b->port_first <= a->port_last;
}

/* At the corners of what is given, and right beyond them. */
static void check_corners(const struct filter_range *before, size_t count,
                          const struct filter_range *after, size_t after_count,
                          const struct filter_range *at)
{
    const uint32_t addresses[] = {at->first, at->last, at->first - 1, at->last + 1};
    const uint16_t ports[] = {at->port_first, at->port_last, (uint16_t)(at->port_first - 1),
                              (uint16_t)(at->port_last + 1)};
    for (size_t i = 0; i < 4; i++)
        for (size_t j = 0; j < 4; j++) {
            struct filter_range place = {
                .protocol = at->protocol, .first = addresses[i], .port_first = ports[j]};
            require(holds(before, count, &place) == holds(after, after_count, &place));
        }
}

static void check_ranges(const struct filter_range *ranges, size_t count)
{
    autofree struct filter_range *after = NULL;
    size_t after_count = 0;
    struct error err = {0};
    if (filter_ranges_disjoint(ranges, count, &after, &after_count, &err) < 0) {
        require(err.code == ERROR_INVALID_REQUEST); /* too many */
        return;
    }
    require(after_count <= FILTER_RANGES_MAX);
    for (size_t i = 0; i < after_count; i++)
        for (size_t j = i + 1; j < after_count; j++)
            require(!overlap(&after[i], &after[j]));
    for (size_t i = 0; i < count; i++)
        check_corners(ranges, count, after, after_count, &ranges[i]);
}

static void try_list(char *text)
{
    struct filter_range ranges[RANGES_MAX];
    size_t count = 0;
    char *rest = NULL;
    for (char *line = strtok_r(text, "\n", &rest); line && count + 2 <= RANGES_MAX;
         line = strtok_r(NULL, "\n", &rest)) {
        struct destination item = {0};
        if (!try_destination(line, &item))
            continue;
        struct filter_range range = {.first = item.first,
                                     .last = item.last,
                                     .port_first = item.port_first,
                                     .port_last = item.port_last,
                                     .protocol = IPPROTO_TCP};
        if (item.tcp)
            ranges[count++] = range;
        range.protocol = IPPROTO_UDP;
        if (item.udp)
            ranges[count++] = range;
        destination_deinit(&item);
    }
    check_ranges(ranges, count);
}

/* ---- addresses ---- */

/* A socket that listens at 127.0.0.1; its port. */
static int listener(unsigned *ret_port)
{
    static int fd = -1;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof(address);
    if (fd < 0)
        require((fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) >= 0 &&
                bind(fd, (struct sockaddr *)&address, len) == 0);
    require(getsockname(fd, (struct sockaddr *)&address, &len) == 0);
    *ret_port = ntohs(address.sin_port);
    return fd;
}

static void try_listen(const char *text)
{
    unsigned port = 0;
    if (!http_listens_at(listener(&port), text))
        return;
    const char *colon = strrchr(text, ':');
    require(colon && (strtoul(colon + 1, NULL, 10) == 0 || strtoul(colon + 1, NULL, 10) == port));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct destination destination = {0};
    struct name_servers servers = {0};
    uint32_t first = 1, last = 0;
    autofree char *text = strndup((const char *)data, size);
    if (!text)
        return 0;
    if (try_destination(text, &destination))
        destination_deinit(&destination);
    if (network_range_parse((const char *)data, size, &first, &last, NULL) == 0 && first > last)
        abort();
    if (name_servers_parse(text, &servers, NULL) == 0 && servers.count > NAME_SERVERS_MAX)
        abort();
    try_listen(text);
    if (subnet_parse(text, NULL, NULL) == 0)
        require(network_range_parse(text, strlen(text), &first, &last, NULL) == 0);
    try_list(text);
    return 0;
}
