/* base/text.h: base64 in both directions. */
#include "base/text.h"

#include "base/cleanup.h"

#include <criterion/criterion.h>
#include <string.h>

#define autobuffer with_cleanup(buffer_deinit) struct buffer

/* RFC 4648, section 10. */
static const struct {
    const char *plain;
    const char *encoded;
} vectors[] = {{"", ""},
               {"f", "Zg=="},
               {"fo", "Zm8="},
               {"foo", "Zm9v"},
               {"foob", "Zm9vYg=="},
               {"fooba", "Zm9vYmE="},
               {"foobar", "Zm9vYmFy"}};

Test(base64, the_standards_examples_in_both_directions)
{
    for (size_t i = 0; i < ARRAY_LENGTH(vectors); i++) {
        autobuffer encoded = BUFFER_INIT(100), plain = BUFFER_INIT(100);
        cr_assert_eq(base64_encode(vectors[i].plain, strlen(vectors[i].plain), &encoded, NULL), 0);
        cr_assert_str_eq(encoded.data, vectors[i].encoded);
        cr_assert_eq(base64_decode(encoded.data, encoded.len, &plain, NULL), 0);
        cr_assert_str_eq(plain.data, vectors[i].plain);
        cr_assert_eq(plain.len, strlen(vectors[i].plain));
    }
}

Test(base64, all_bytes_survive_a_round_trip)
{
    autobuffer encoded = BUFFER_INIT(4096), plain = BUFFER_INIT(4096);
    unsigned char bytes[256];
    for (int i = 0; i < 256; i++)
        bytes[i] = (unsigned char)i;
    for (size_t len = 253; len <= 256; len++) {
        buffer_clear(&encoded);
        buffer_clear(&plain);
        cr_assert_eq(base64_encode(bytes, len, &encoded, NULL), 0);
        cr_assert_eq(base64_decode(encoded.data, encoded.len, &plain, NULL), 0);
        cr_assert_eq(plain.len, len);
        cr_assert_arr_eq(plain.data, bytes, len);
    }
}

Test(base64, white_space_between_lines_is_skipped_and_output_is_appended)
{
    autobuffer plain = BUFFER_INIT(100);
    buffer_append_string(&plain, "> ", NULL);
    cr_assert_eq(base64_decode("Zm9v\r\n Ym\tE=\n", 13, &plain, NULL), 0);
    cr_assert_str_eq(plain.data, "> fooba");
}

Test(base64, what_is_wrong_is_refused_and_leaves_the_buffer_as_it_was)
{
    static const char *const bad[] = {
        "Z",     "Zg",   "Zg=",  "Zm9",  "=",    "====",  "Z===",  "Zg===",   "Zg==Zg",
        "Zm9v=", "Zm-v", "Zm_v", "Zh==", "Zm9=", "Zg=\n", "Zm9v!", "\xC3\xA9"};
    for (size_t i = 0; i < ARRAY_LENGTH(bad); i++) {
        autobuffer plain = BUFFER_INIT(100);
        struct error err;
        buffer_append_string(&plain, "kept", NULL);
        cr_assert_eq(base64_decode(bad[i], strlen(bad[i]), &plain, &err), -1, "%s", bad[i]);
        cr_assert_eq(err.code, ERROR_INVALID_REQUEST);
        cr_assert_str_eq(plain.data, "kept");
    }
}

Test(base64, the_error_names_the_byte_and_its_place)
{
    autobuffer plain = BUFFER_INIT(100);
    struct error err;
    base64_decode("Zm9v!", 5, &plain, &err);
    cr_assert_not_null(strstr(err.message, "'!' at byte 4"), "%s", err.message);
    base64_decode("Zm\0v", 4, &plain, &err);
    cr_assert_not_null(strstr(err.message, "0x00 at byte 2"), "%s", err.message);
}

Test(base64, output_over_the_maximum_is_refused)
{
    autobuffer small = BUFFER_INIT(5);
    struct error err;
    cr_assert_eq(base64_encode("foob", 4, &small, &err), -1);
    cr_assert_eq(err.code, ERROR_PAYLOAD_TOO_LARGE);
    cr_assert_eq(base64_decode("Zm9vYmFy", 8, &small, &err), -1);
    cr_assert_eq(err.code, ERROR_PAYLOAD_TOO_LARGE);
    cr_assert_eq(base64_decode("Zm9vYmE=", 8, &small, &err), 0);
}
