/* worker/network_addresses.h: addresses of a subnet, by two who share the folder. */
#include "base/cleanup.h"
#include "base/file.h"
#include "base/text.h"
#include "worker/network_addresses.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char base[] = "/tmp/faas-addresses-XXXXXX";
static const struct subnet small = {.base = 0x0a584000, .length = 29}; /* 10.88.64.0 to .7 */

static void set_up(void)
{
    cr_assert_not_null(mkdtemp(base));
}

static void tear_down(void)
{
    remove_tree(base, NULL);
}

TestSuite(network_addresses, .init = set_up, .fini = tear_down);

static struct network_addresses *open_addresses(void)
{
    struct error err = {0};
    struct network_addresses *addresses = network_addresses_new(base, &small, &err);

    cr_assert_not_null(addresses, "%s", err.message);
    return addresses;
}

static uint32_t take(struct network_addresses *addresses, const char *id)
{
    struct error err = {0};
    uint32_t address = 0;

    cr_assert_eq(network_addresses_take(addresses, id, &address, &err), 0, "%s", err.message);
    return address;
}

Test(network_addresses, subnets_are_checked)
{
    static const char *const bad[] = {
        "",     "10.0.0.0",    "10.0.0.0/33", "10.0.0.1/24", "10.0.0.0/24x",
        "x/24", "10.0.0.0/30", "10.0.0.0/0"};
    struct subnet subnet;
    struct error err = {0};

    cr_expect_eq(subnet_parse("10.88.64.0/18", &subnet, &err), 0);
    cr_expect_eq(subnet.base, 0x0a584000);
    cr_expect_eq(subnet.length, 18);
    cr_expect_eq(subnet_gateway(&subnet), 0x0a584001);
    for (size_t i = 0; i < ARRAY_LENGTH(bad); i++)
        cr_expect_eq(subnet_parse(bad[i], NULL, &err), -1, "%s", bad[i]);
}

Test(network_addresses, two_workers_never_get_the_same_one)
{
    struct network_addresses *one = open_addresses(), *two = open_addresses();
    bool seen[8] = {0};
    uint32_t address;
    struct error err = {0};

    for (size_t i = 0; i < 5; i++) {
        address = take(i % 2 ? one : two, "id");
        cr_assert(address >= small.base + 2 && address <= small.base + 6, "%08x", address);
        cr_expect_not(seen[address - small.base]);
        seen[address - small.base] = true;
    }
    cr_expect_eq(network_addresses_take(one, "id", &address, &err), -1);
    cr_expect_eq(err.code, ERROR_UNAVAILABLE);
    cr_expect_str_eq(err.message, "all 5 addresses of 10.88.64.0/29 are in use");
    network_addresses_free(one);
    network_addresses_free(two);
}

Test(network_addresses, one_that_was_given_back_comes_last)
{
    struct network_addresses *addresses = open_addresses();
    uint32_t first = take(addresses, "a");

    network_addresses_give_back(addresses, first);
    for (size_t i = 0; i < 4; i++)
        cr_expect_neq(take(addresses, "b"), first);
    cr_expect_eq(take(addresses, "c"), first);
    network_addresses_free(addresses);
}

Test(network_addresses, a_successor_finds_what_an_id_has)
{
    struct network_addresses *before = open_addresses();
    uint32_t mine = take(before, "faas-b-1"), found = 0;

    take(before, "faas-b-11");
    take(before, "faas-b-");
    network_addresses_free(before);
    struct network_addresses *after = open_addresses();
    cr_expect(network_addresses_find(after, "faas-b-1", &found));
    cr_expect_eq(found, mine);
    cr_expect_not(network_addresses_find(after, "faas-b-2", &found));
    network_addresses_give_back(after, mine);
    cr_expect_not(network_addresses_find(after, "faas-b-1", &found));
    network_addresses_free(after);
}

Test(network_addresses, a_folder_that_cannot_be_is_told)
{
    autofree char *file = string_printf("%s/file", base);
    autofree char *below = string_printf("%s/below", file);
    struct error err = {0};

    cr_assert_eq(write_file_atomic(file, "", 0, 0600, false, &err), 0);
    cr_expect_null(network_addresses_new(below, &small, &err));
    cr_expect(strstr(err.message, "/file"), "%s", err.message);
}
