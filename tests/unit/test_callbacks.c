/* Callbacks without a receiver: how they are signed, where they may go, which URLs are taken. */
#include "base/cleanup.h"
#include "base/http_url.h"
#include "controller/callback_guard.h"
#include "controller/controller.h"

#include <criterion/criterion.h>

static void hmac_hex(const void *key, size_t key_len, const char *data, char out[65])
{
    struct hmac_sha256 hmac;
    uint8_t digest[32];
    hmac_sha256_init(&hmac, key, key_len);
    hmac_sha256_update(&hmac, data, strlen(data));
    hmac_sha256_final(&hmac, digest);
    hex_encode(digest, sizeof(digest), out);
}

Test(callbacks, hmac_is_that_of_rfc_4231)
{
    char hex[65], key[131];
    memset(key, 0x0b, 20);
    hmac_hex(key, 20, "Hi There", hex);
    cr_expect_str_eq(hex, "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7");
    hmac_hex("Jefe", 4, "what do ya want for nothing?", hex);
    cr_expect_str_eq(hex, "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
    memset(key, 0xaa, sizeof(key));
    hmac_hex(key, sizeof(key), "Test Using Larger Than Block-Size Key - Hash Key First", hex);
    cr_expect_str_eq(hex, "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54");
}

Test(callbacks, the_signature_is_of_time_and_body)
{
    char signature[CALLBACK_SIGNATURE_SIZE], hex[65], expected[128];
    callback_sign("a secret of tests", 1700000000, "{}", 2, signature);
    hmac_hex("a secret of tests", 17, "1700000000.{}", hex);
    snprintf(expected, sizeof(expected), "t=1700000000,v1=%s", hex);
    cr_expect_str_eq(signature, expected);
}

Test(callbacks, only_public_addresses_are_allowed_by_themselves)
{
    static const char *const refused[] = {"0.0.0.0",
                                          "10.1.2.3",
                                          "100.64.0.1",
                                          "100.100.100.200",
                                          "127.0.0.1",
                                          "127.255.255.255",
                                          "169.254.169.254",
                                          "172.16.0.1",
                                          "172.31.255.255",
                                          "192.0.0.192",
                                          "192.168.1.1",
                                          "198.19.0.1",
                                          "224.0.0.1",
                                          "255.255.255.255",
                                          "168.63.129.16",
                                          "::",
                                          "::1",
                                          "fe80::1",
                                          "fd00:ec2::254",
                                          "fc00::1",
                                          "ff02::1",
                                          "::ffff:127.0.0.1",
                                          "::ffff:10.0.0.1",
                                          "64:ff9b::a00:1",
                                          "64:ff9b:1::1",
                                          "2002:7f00:1::1",
                                          "2001:0:7f00:1::1",
                                          "2001:db8::1",
                                          "::127.0.0.1",
                                          "fec0::1",
                                          "::ffff:169.254.1.1",
                                          "64:ff9b::7f00:1",
                                          "192.175.48.1",
                                          "3fff::1",
                                          "240.0.0.1",
                                          "203.0.113.7"};
    static const char *const allowed[] = {"8.8.8.8",         "172.32.0.1",     "100.128.0.1",
                                          "192.169.0.1",     "::ffff:8.8.8.8", "64:ff9b::808:808",
                                          "2606:4700::1111", "2a00:1450::1"};
    struct callback_guard guard;
    cr_assert_eq(callback_guard_init(&guard, "", NULL), 0);
    for (size_t i = 0; i < ARRAY_LENGTH(refused); i++)
        cr_expect_not(callback_guard_allows_host(&guard, refused[i], true), "%s", refused[i]);
    for (size_t i = 0; i < ARRAY_LENGTH(allowed); i++) {
        cr_expect(callback_guard_allows_host(&guard, allowed[i], true), "%s", allowed[i]);
        cr_expect_not(callback_guard_allows_host(&guard, allowed[i], false), "%s", allowed[i]);
    }
}

Test(callbacks, the_operator_allows_networks)
{
    struct callback_guard guard;
    struct error err = {0};
    cr_assert_eq(callback_guard_init(&guard, "10.1.0.0/17,::1,fd00:1::/33", &err), 0);
    cr_expect(callback_guard_allows_host(&guard, "10.1.127.255", false));
    cr_expect_not(callback_guard_allows_host(&guard, "10.1.128.0", true));
    cr_expect(callback_guard_allows_host(&guard, "::ffff:10.1.0.1", false));
    cr_expect(callback_guard_allows_host(&guard, "::1", false));
    cr_expect_not(callback_guard_allows_host(&guard, "::2", false));
    cr_expect(callback_guard_allows_host(&guard, "fd00:1:7fff::1", false));
    cr_expect_not(callback_guard_allows_host(&guard, "fd00:1:8000::1", false));
    static const char *const wrong[] = {"10.0.0.0/33", "x", "10.0.0.0/",
                                        "::1/129",     ",", "10.0.0.0/-1"};
    for (size_t i = 0; i < ARRAY_LENGTH(wrong); i++)
        cr_expect_eq(callback_guard_init(&guard, wrong[i], &err), -1, "%s", wrong[i]);
}

Test(callbacks, urls_are_checked)
{
    struct http_url url;
    struct error err = {0};
    cr_assert_eq(http_url_parse("https://Example.ORG/a?b#c", &url, &err), 0, "%s", err.message);
    cr_expect(url.tls);
    cr_expect_str_eq(url.host, "example.org");
    cr_expect_eq(url.port, 443);
    cr_assert_eq(http_url_parse("http://[FD00::1]:81", &url, &err), 0, "%s", err.message);
    cr_expect_str_eq(url.host, "fd00::1");
    cr_expect_eq(url.port, 81);
    static const char *const wrong[] = {"",
                                        "https://",
                                        "ftp://a/",
                                        "file:///a",
                                        "https://u@h/",
                                        "https://u:p@h/",
                                        "https://h:0/",
                                        "https://h:65536/",
                                        "https://a b/",
                                        "https://h/\r\nX: y",
                                        "https://[fe80::1%25eth0]/",
                                        "https://%00/",
                                        "https://h\xc3\xa9/"};
    for (size_t i = 0; i < ARRAY_LENGTH(wrong); i++)
        cr_expect_eq(http_url_parse(wrong[i], &url, &err), -1, "%s", wrong[i]);
}
