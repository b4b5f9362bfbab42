/* A token bucket for each client address. */
#include "controller/rate_limit.h"

#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <netinet/in.h>
#include <stdlib.h>

#define MS 1000000ULL
#define SECOND (1000 * MS)
#define START (5000 * SECOND)

static struct rate_limit limit;

static void begin(uint64_t per_second, uint64_t burst)
{
    struct error err = {0};
    cr_assert_eq(rate_limit_init(&limit, per_second, burst, &err), 0, "%s", err.message);
}

static void end(void)
{
    rate_limit_deinit(&limit);
}

static uint64_t take4(uint32_t address, uint64_t now_ns)
{
    struct sockaddr_in client = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(address)};
    return rate_limit_take(&limit, (struct sockaddr *)&client, now_ns);
}

static uint64_t take6(const char *address, uint64_t now_ns)
{
    struct sockaddr_in6 client = {.sin6_family = AF_INET6};
    cr_assert_eq(inet_pton(AF_INET6, address, &client.sin6_addr), 1);
    return rate_limit_take(&limit, (struct sockaddr *)&client, now_ns);
}

Test(rate_limit, a_rate_of_zero_lets_everything_through, .fini = end)
{
    begin(0, 1);
    for (int i = 0; i < 1000; i++)
        cr_assert_eq(take4(1, START), 0);
    cr_expect_null(limit.buckets, "a table that is of no use");
}

Test(rate_limit, a_burst_is_let_through_then_one_for_each_interval, .fini = end)
{
    begin(10, 3);
    for (int i = 0; i < 3; i++)
        cr_expect_eq(take4(1, START), 0, "request %d of a burst of 3", i);
    cr_expect_eq(take4(1, START), 100 * MS, "the wait for the next token");
    cr_expect_eq(take4(1, START + 99 * MS), 1 * MS);
    cr_expect_eq(take4(1, START + 100 * MS), 0);
    cr_expect_eq(take4(1, START + 100 * MS), 100 * MS, "one interval brings one token");
    cr_expect_eq(limit.refused, 3);
}

Test(rate_limit, what_was_refused_costs_nothing, .fini = end)
{
    begin(10, 1);
    cr_expect_eq(take4(1, START), 0);
    for (int i = 0; i < 1000; i++)
        cr_expect_gt(take4(1, START + 50 * MS), 0);
    cr_expect_eq(take4(1, START + 100 * MS), 0);
}

Test(rate_limit, silence_saves_up_no_more_than_the_burst, .fini = end)
{
    begin(10, 2);
    cr_expect_eq(take4(1, START), 0);
    for (int i = 0; i < 2; i++)
        cr_expect_eq(take4(1, START + 3600 * SECOND), 0);
    cr_expect_gt(take4(1, START + 3600 * SECOND), 0);
}

Test(rate_limit, clients_do_not_touch_each_other, .fini = end)
{
    begin(1, 1);
    cr_expect_eq(take4(1, START), 0);
    cr_expect_gt(take4(1, START), 0);
    cr_expect_eq(take4(2, START), 0);
    cr_expect_eq(take6("2001:db8::1", START), 0);
    cr_expect_eq(rate_limit_take(&limit, NULL, START), 0);
    cr_expect_gt(rate_limit_take(&limit, NULL, START), 0);
}

Test(rate_limit, ipv6_clients_are_told_apart_by_their_network, .fini = end)
{
    begin(1, 1);
    cr_expect_eq(take6("2001:db8:0:1::1", START), 0);
    cr_expect_gt(take6("2001:db8:0:1:ffff::2", START), 0);
    cr_expect_eq(take6("2001:db8:0:2::1", START), 0);
    cr_expect_eq(take6("::1", START), 0);
    cr_expect_gt(take6("::1", START), 0);
}

Test(rate_limit, an_ipv4_client_is_the_same_through_an_ipv6_socket, .fini = end)
{
    begin(1, 1);
    cr_expect_eq(take4(0xc0000201, START), 0);
    cr_expect_gt(take6("::ffff:192.0.2.1", START), 0);
    cr_expect_eq(take6("::ffff:192.0.2.2", START), 0);
}

/* A flood from more addresses than the table holds: whoever is at his limit stays there unless
 * everybody in his place of the table is too. */
Test(rate_limit, a_flood_of_addresses_does_not_free_one_that_is_at_its_limit, .fini = end)
{
    begin(1, 100);
    for (int i = 0; i < 100; i++)
        cr_assert_eq(take4(0x0a000001, START), 0);
    for (uint32_t i = 0; i < 8 * RATE_LIMIT_BUCKETS; i++)
        cr_assert_eq(take4(0x0b000000 + i, START), 0, "a stranger is refused for another's sake");
    cr_expect_gt(take4(0x0a000001, START), 0);
}

Test(rate_limit, extreme_settings_do_not_overflow, .fini = end)
{
    begin(1000000, 1000000);
    for (int i = 0; i < 1000000; i++)
        cr_assert_eq(take4(1, START), 0);
    cr_expect_eq(take4(1, START), 1000);
    end();
    begin(1, 1000000);
    cr_expect_eq(take4(1, START), 0);
}

Test(rate_limit, a_bucket_of_its_own)
{
    struct rate rate = {0};
    cr_expect_eq(rate_take(&rate, START), 0, "no limit");
    rate_set(&rate, 10, 2);
    cr_expect_eq(rate_take(&rate, START), 0);
    cr_expect_eq(rate_take(&rate, START), 0);
    cr_expect_eq(rate_take(&rate, START), 100 * MS);
    cr_expect_eq(rate_take(&rate, START + 100 * MS), 0);
    rate_set(&rate, 0.5, 0);
    cr_expect_eq(rate_take(&rate, START + 10 * SECOND), 0);
    cr_expect_eq(rate_take(&rate, START + 10 * SECOND), 2 * SECOND, "one in two seconds");
    rate_set(&rate, 3.9, 0);
    for (int i = 0; i < 3; i++)
        cr_expect_eq(rate_take(&rate, START + 100 * SECOND), 0, "the burst is a second's worth");
    cr_expect_neq(rate_take(&rate, START + 100 * SECOND), 0);
}

Test(rate_limit, a_limit_that_is_changed_keeps_nobody_waiting_for_longer_than_a_bucket)
{
    struct rate rate = {0};
    rate_set(&rate, 0.001, 1000000);
    for (int i = 0; i < 1000; i++)
        cr_expect_eq(rate_take(&rate, START), 0);
    rate_set(&rate, 10, 1);
    cr_expect_eq(rate_take(&rate, START), 100 * MS);
    cr_expect_eq(rate_take(&rate, START + 100 * MS), 0);
}
