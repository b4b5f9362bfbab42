/* base/json.h: reading a parsed tree. */
#include "base/json.h"

#include "base/cleanup.h"
#include "base/text.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct json *parse(const char *text)
{
    struct error err = {0};
    struct json *root = json_parse(text, strlen(text), NULL, &err);
    cr_assert_not_null(root, "%s", err.message);
    return root;
}

Test(json, members_are_found_by_key_and_read_by_type)
{
    autojson *root = parse("{\"s\":\"text\",\"i\":-5,\"d\":1.5,\"b\":true,\"n\":null,\"a\":[1,2]}");
    cr_assert_eq(json_type(root), JSON_OBJECT);
    cr_assert_eq(json_count(root), 6);
    cr_assert_str_eq(json_get_string(root, "s"), "text");
    cr_assert_eq(json_get_int(root, "i", 0), -5);
    cr_assert_float_eq(json_double(json_get(root, "d"), 0), 1.5, 0);
    cr_assert(json_get_bool(root, "b", false));
    cr_assert_eq(json_type(json_get(root, "n")), JSON_NULL);
    cr_assert_eq(json_int(json_at(json_get(root, "a"), 1), 0), 2);
    cr_assert_null(json_get(root, "absent"));
}

Test(json, what_is_absent_or_of_another_type_gives_the_fallback)
{
    autojson *root = parse("{\"s\":\"text\",\"f\":1.5}");
    cr_assert_null(json_get_string(root, "f"));
    cr_assert_null(json_get_string(root, "x"));
    cr_assert_eq(json_get_int(root, "s", 7), 7);
    cr_assert_eq(json_get_int(root, "f", 7), 7, "a fraction is no integer");
    cr_assert(json_get_bool(root, "s", true));
    cr_assert_float_eq(json_double(json_get(root, "s"), 2.5), 2.5, 0);
    cr_assert_null(json_get(NULL, "s"));
    cr_assert_null(json_get(json_get(root, "s"), "s"));
    cr_assert_eq(json_count(NULL), 0);
    cr_assert_eq(json_count(json_get(root, "s")), 0);
    cr_assert_null(json_at(root, 2));
    cr_assert_null(json_at(NULL, 0));
    cr_assert_null(json_key_at(root, 2));
    cr_assert_null(json_string(NULL, NULL));
}

Test(json, members_keep_their_order)
{
    autojson *root = parse("{\"z\":0,\"a\":1,\"m\":2}");
    static const char *const keys[] = {"z", "a", "m"};
    json_foreach (i, value, root) {
        cr_assert_str_eq(json_key_at(root, i), keys[i]);
        cr_assert_eq(json_int(value, -1), (int64_t)i);
    }
}

Test(json, every_member_of_a_large_object_is_found)
{
    with_cleanup(buffer_deinit) struct buffer text = BUFFER_INIT(1 << 20);
    buffer_append_string(&text, "{\"first\":0", NULL);
    for (int i = 0; i < 20000; i++)
        buffer_printf(&text, NULL, ",\"key%d\":%d", i * 7919 % 20000, i);
    buffer_append_string(&text, "}", NULL);
    autojson *root = parse(text.data);
    for (int i = 0; i < 20000; i++) {
        char key[20];
        snprintf(key, sizeof(key), "key%d", i * 7919 % 20000);
        cr_assert_eq(json_get_int(root, key, -1), i);
    }
    cr_assert_null(json_get(root, "key20000"));
    cr_assert_null(json_get(root, ""));
}

Test(json, strings_may_hold_nul_and_tell_their_length)
{
    autojson *root = parse("\"a\\u0000b\\ud83d\\ude00\"");
    size_t len;
    const char *text = json_string(root, &len);
    cr_assert_eq(len, 7);
    cr_assert_arr_eq(text, "a\0b\xF0\x9F\x98\x80", 8);
}

Test(json, integers_are_exact_up_to_the_last_one)
{
    autojson *root = parse("[9223372036854775807,-9223372036854775808,9223372036854775808,128.0,"
                           "1e3,0.5,1e300]");
    cr_assert_eq(json_int(json_at(root, 0), 0), INT64_MAX);
    cr_assert_eq(json_int(json_at(root, 1), 0), INT64_MIN);
    cr_assert(!json_is_int(json_at(root, 2)), "one too large is a number, but no integer");
    cr_assert_eq(json_int(json_at(root, 2), 7), 7);
    cr_assert_float_eq(json_double(json_at(root, 2), 0), 9223372036854775808.0, 0);
    cr_assert_eq(json_int(json_at(root, 3), 0), 128);
    cr_assert_eq(json_int(json_at(root, 4), 0), 1000);
    cr_assert(!json_is_int(json_at(root, 5)));
    cr_assert(!json_is_int(json_at(root, 6)));
    cr_assert_float_eq(json_double(json_at(root, 0), 0), 9223372036854775807.0, 0);
}

Test(json, pointers_are_escaped_and_cut)
{
    char out[128], small[8];
    json_pointer_join(out, sizeof(out), "/env", "a/b~c");
    cr_assert_str_eq(out, "/env/a~1b~0c");
    json_pointer_join(out, sizeof(out), "", "name");
    cr_assert_str_eq(out, "/name");
    json_pointer_join(small, sizeof(small), "/env", "//////");
    cr_assert_lt(strlen(small), sizeof(small));
    json_pointer_join(small, sizeof(small), "/environment", "x");
    cr_assert_str_eq(small, "/enviro");
}

Test(json, values_are_shown_in_messages)
{
    autojson *root = parse("[4,-2.50,\"abc\",true,null,[1],{\"a\":1},"
                           "\"0123456789012345678901234567890123456789xyz\"]");
    static const char *const shown[] = {
        "4",    "-2.50",    "\"abc\"",   "true",
        "null", "an array", "an object", "\"0123456789012345678901234567890123456789…\""};
    char out[JSON_SHOWN_SIZE];
    json_foreach (i, value, root) {
        json_show(value, out);
        cr_assert_str_eq(out, shown[i]);
    }
}
