/* model/destination.h: what a destination means, and what is none. */
#include "model/destination.h"

#include "base/cleanup.h"

#include <criterion/criterion.h>
#include <string.h>

static void assert_addresses(const char *text, uint32_t first, uint32_t last, int port_first,
                             int port_last, bool tcp, bool udp)
{
    with_cleanup(destination_deinit) struct destination read = {0};
    struct error err = {0};

    cr_assert_eq(destination_parse(text, &read, &err), 0, "%s: %s", text, err.message);
    cr_assert_null(read.name, "%s", text);
    cr_assert_str_eq(read.text, text);
    cr_assert_eq(read.first, first, "%s", text);
    cr_assert_eq(read.last, last, "%s", text);
    cr_assert_eq(read.port_first, port_first, "%s", text);
    cr_assert_eq(read.port_last, port_last, "%s", text);
    cr_assert_eq(read.tcp, tcp, "%s", text);
    cr_assert_eq(read.udp, udp, "%s", text);
}

Test(destination, addresses_and_networks)
{
    assert_addresses("192.168.1.5", 0xc0a80105, 0xc0a80105, 1, 65535, true, true);
    assert_addresses("192.168.1.5:5432/tcp", 0xc0a80105, 0xc0a80105, 5432, 5432, true, false);
    assert_addresses("10.0.0.0/8:443", 0x0a000000, 0x0affffff, 443, 443, true, true);
    assert_addresses("10.0.0.0/8/udp", 0x0a000000, 0x0affffff, 1, 65535, false, true);
    assert_addresses("10.0.0.4/30:1-65535/udp", 0x0a000004, 0x0a000007, 1, 65535, false, true);
    assert_addresses("0.0.0.0/0:80", 0, 0xffffffff, 80, 80, true, true);
    assert_addresses("1.2.3.4/32:80-81", 0x01020304, 0x01020304, 80, 81, true, true);
}

static void assert_name(const char *text, const char *name, int port_first)
{
    with_cleanup(destination_deinit) struct destination read = {0};
    struct error err = {0};

    cr_assert_eq(destination_parse(text, &read, &err), 0, "%s: %s", text, err.message);
    cr_assert_str_eq(read.name, name);
    cr_assert_eq(read.port_first, port_first);
}

Test(destination, names)
{
    assert_name("example.org:443", "example.org", 443);
    assert_name("Example.ORG.", "example.org", 1);
    assert_name("db", "db", 1);
    assert_name("_service._tcp.1and1.com:1-2/udp", "_service._tcp.1and1.com", 1);
    assert_name("3com", "3com", 1);
}

Test(destination, what_is_none_is_refused)
{
    static const char *const bad[] = {"",
                                      ":443",
                                      "/tcp",
                                      "10.0.0.0/33",
                                      "10.0.0.1/8",
                                      "10.0.0",
                                      "256.1.1.1",
                                      "1.2.3.4.5",
                                      "10.0.0.0/8:0",
                                      "10.0.0.0/8:65536",
                                      "10.0.0.0/8:90-80",
                                      "10.0.0.0/8:",
                                      "10.0.0.0/8:-",
                                      "10.0.0.0/8:1-",
                                      "10.0.0.0/8: 1",
                                      "10.0.0.0/8:443/sctp",
                                      "10.0.0.0/:443",
                                      "a..b",
                                      ".a",
                                      "-a.org",
                                      "a-.org",
                                      "a.org/8",
                                      "a b",
                                      "a.1",
                                      "http://a.org",
                                      "*.a.org",
                                      "a\xc3\xa4.org",
                                      "[::1]:443",
                                      "::1",
                                      "2001:db8::1"};

    for (size_t i = 0; i < ARRAY_LENGTH(bad); i++) {
        struct destination read = {0};
        struct error err = {0};
        cr_assert_eq(destination_parse(bad[i], &read, &err), -1, "%s", bad[i]);
        cr_assert_neq(err.message[0], 0);
        cr_assert_null(read.text);
    }
}

Test(destination, lengths_have_limits)
{
    char text[400] = "";
    struct destination read = {0};
    struct error err = {0};

    for (int i = 0; i < 4; i++)
        strcat(text, "a23456789012345678901234567890123456789012345678901234567890123.");
    cr_assert_eq(destination_parse(text, &read, &err), -1, "a name of 255 characters");
    text[254] = '\0';
    text[253] = '\0';
    cr_assert_eq(destination_parse(text, &read, &err), 0, "%s", err.message);
    destination_deinit(&read);
    memset(text, 'a', 64);
    strcpy(text + 64, ".org");
    cr_assert_eq(destination_parse(text, &read, &err), -1, "a label of 64 characters");
    memset(text, '1', 300);
    text[300] = '\0';
    cr_assert_eq(destination_parse(text, &read, &err), -1, "300 characters");
}
