/* base/text.h: SHA-256 against the standard's examples. */
#include "base/text.h"

#include <criterion/criterion.h>
#include <string.h>

static void assert_digest(const char *text, const char *expected)
{
    char hex[SHA256_HEX_LEN + 1];
    sha256_hex(text, strlen(text), hex);
    cr_assert_str_eq(hex, expected);
}

/* NIST's example values for FIPS 180-4. */
Test(sha256, the_standards_examples)
{
    assert_digest("", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    assert_digest("abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    assert_digest("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
                  "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
}

Test(sha256, a_million_letters_in_uneven_pieces)
{
    struct sha256 sha;
    uint8_t digest[32];
    char hex[65], piece[997];
    size_t left = 1000000;
    memset(piece, 'a', sizeof(piece));
    sha256_init(&sha);
    for (size_t step = 1; left > 0; step = step % sizeof(piece) + 1) {
        size_t take = step < left ? step : left;
        sha256_update(&sha, piece, take);
        left -= take;
    }
    sha256_final(&sha, digest);
    hex_encode(digest, sizeof(digest), hex);
    cr_assert_str_eq(hex, "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

Test(sha256, every_length_around_a_block_is_the_same_in_one_piece_and_byte_by_byte)
{
    char text[130];
    memset(text, 'x', sizeof(text));
    for (size_t len = 0; len <= sizeof(text); len++) {
        char whole[SHA256_HEX_LEN + 1], bytewise[SHA256_HEX_LEN + 1];
        struct sha256 sha;
        uint8_t digest[32];
        sha256_hex(text, len, whole);
        sha256_init(&sha);
        for (size_t i = 0; i < len; i++)
            sha256_update(&sha, text + i, 1);
        sha256_final(&sha, digest);
        hex_encode(digest, sizeof(digest), bytewise);
        cr_assert_str_eq(whole, bytewise);
    }
}
