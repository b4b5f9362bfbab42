/* base/text.h: SHA-256 against the standard's examples. */
#include "base/sha256_blocks.h"
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

/* Whichever of the two this machine takes, the other is right too. */
Test(sha256, the_portable_code_agrees_with_the_processors_instructions)
{
    uint8_t blocks[64 * 50];
    uint32_t start[8] = {1, 2, 3, 4, 5, 6, 7, 8}, portable[8], native[8];
    if (!sha256_has_native())
        cr_skip_test("this processor has no SHA instructions");
    for (size_t i = 0; i < sizeof(blocks); i++)
        blocks[i] = (uint8_t)(i * i * 31 + i * 7);
    for (size_t count = 0; count <= 50; count++) {
        memcpy(portable, start, sizeof(start));
        memcpy(native, start, sizeof(start));
        sha256_blocks_portable(portable, blocks, count);
        sha256_blocks_native(native, blocks, count);
        cr_assert_arr_eq(portable, native, sizeof(native), "%zu blocks", count);
    }
}
