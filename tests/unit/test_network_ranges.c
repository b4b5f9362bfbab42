/* filter_ranges_disjoint(): the same places as before, and no two that overlap. */
#include "worker/network_filter.h"

#include "base/cleanup.h"

#include <criterion/criterion.h>
#include <netinet/in.h>
#include <stdlib.h>

static bool holds(const struct filter_range *ranges, size_t count, uint8_t protocol,
                  uint32_t address, unsigned port)
{
    for (size_t i = 0; i < count; i++)
        if (ranges[i].protocol == protocol && ranges[i].first <= address &&
            address <= ranges[i].last && ranges[i].port_first <= port &&
            port <= ranges[i].port_last)
            return true;
    return false;
}

static bool overlap(const struct filter_range *a, const struct filter_range *b)
{
    return a->protocol == b->protocol && a->first <= b->last && b->first <= a->last &&
           a->port_first <= b->port_last && b->port_first <= a->port_last;
}

static void assert_same(const struct filter_range *before, size_t count)
{
    autofree struct filter_range *after = NULL;
    size_t after_count = 0;
    struct error err = {0};

    cr_assert_eq(filter_ranges_disjoint(before, count, &after, &after_count, &err), 0, "%s",
                 err.message);
    for (size_t i = 0; i < after_count; i++)
        for (size_t j = i + 1; j < after_count; j++)
            cr_assert_not(overlap(&after[i], &after[j]), "%zu and %zu", i, j);
    for (uint32_t address = 0; address < 24; address++)
        for (unsigned port = 0; port < 24; port++)
            for (int udp = 0; udp < 2; udp++) {
                uint8_t protocol = udp ? IPPROTO_UDP : IPPROTO_TCP;
                cr_assert_eq(holds(before, count, protocol, address, port),
                             holds(after, after_count, protocol, address, port),
                             "address %u port %u", address, port);
            }
}

Test(network_ranges, random_lists_mean_the_same_afterwards)
{
    struct filter_range ranges[12];
    unsigned seed = 4711;

    for (int round = 0; round < 300; round++) {
        size_t count = (size_t)rand_r(&seed) % 12;
        for (size_t i = 0; i < count; i++) {
            ranges[i].first = (uint32_t)rand_r(&seed) % 20;
            ranges[i].last = ranges[i].first + (uint32_t)rand_r(&seed) % 5;
            ranges[i].port_first = (uint16_t)(rand_r(&seed) % 20);
            ranges[i].port_last = (uint16_t)(ranges[i].port_first + rand_r(&seed) % 5);
            ranges[i].protocol = rand_r(&seed) % 2 ? IPPROTO_TCP : IPPROTO_UDP;
        }
        assert_same(ranges, count);
    }
}

Test(network_ranges, the_whole_of_everything_is_one)
{
    const struct filter_range ranges[] = {{0, UINT32_MAX, 1, 65535, IPPROTO_TCP},
                                          {0x0a000000, 0x0affffff, 80, 80, IPPROTO_TCP},
                                          {UINT32_MAX, UINT32_MAX, 65535, 65535, IPPROTO_TCP}};
    autofree struct filter_range *after = NULL;
    size_t count = 0;

    cr_assert_eq(filter_ranges_disjoint(ranges, 3, &after, &count, NULL), 0);
    cr_expect_eq(count, 1);
    cr_expect_eq(after[0].last, UINT32_MAX);
    cr_expect_eq(after[0].port_last, 65535);
}

Test(network_ranges, a_list_that_comes_to_too_much_is_refused)
{
    struct filter_range ranges[64];
    struct filter_range *after = NULL;
    size_t count = 0;
    struct error err = {0};

    for (unsigned i = 0; i < 64; i++)
        ranges[i] = (struct filter_range){i * 16, i * 16 + 1, (uint16_t)(i + 1),
                                          (uint16_t)(1000 + i * 7), IPPROTO_TCP};
    cr_assert_eq(filter_ranges_disjoint(ranges, 64, &after, &count, &err), -1);
    cr_expect_eq(err.code, ERROR_INVALID_REQUEST);
    cr_expect_null(after);
}
