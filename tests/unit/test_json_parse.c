/* base/json.h: which texts are JSON, within which limits, and where the others go wrong. */
#include "base/json.h"

#include "base/cleanup.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool parses(const char *text, size_t len, struct error *err)
{
    autojson *root = json_parse(text, len, NULL, err);
    return root != NULL;
}

Test(json_parse, valid_texts_are_accepted_by_parse_and_check)
{
    static const char *const good[] = {"0",
                                       "-0",
                                       "1e3",
                                       "1E-3",
                                       "-1.5",
                                       "true",
                                       "false",
                                       "null",
                                       "\"\"",
                                       "[]",
                                       "{}",
                                       " [ ] ",
                                       "[[],{}]",
                                       "{\"\":1}",
                                       "\"\\u00e9\\n\\/\\\"\"",
                                       "\"\\ud83d\\ude00\"",
                                       "\"\\\\ud83d\"",
                                       "\"\xF0\x9F\x98\x80\"",
                                       "\t\r\n{\"a\":[1,2]}\n",
                                       "\"\\u0000\"",
                                       "12345678901234567890",
                                       "\"\x7f\""};
    for (size_t i = 0; i < ARRAY_LENGTH(good); i++) {
        struct error err = {0};
        cr_assert(parses(good[i], strlen(good[i]), &err), "%s: %s", good[i], err.message);
        cr_assert_eq(json_check(good[i], strlen(good[i]), NULL, &err), 0, "%s", good[i]);
    }
}

Test(json_parse, what_is_not_json_is_refused_by_parse_and_check)
{
    static const char *const bad[] = {"",
                                      " ",
                                      "tru",
                                      "nul",
                                      "NaN",
                                      "Infinity",
                                      "-Infinity",
                                      "-",
                                      "+1",
                                      "01",
                                      "1.",
                                      ".5",
                                      "1e",
                                      "0x10",
                                      "1 2",
                                      "[1]x",
                                      "[1,]",
                                      "[,1]",
                                      "{,}",
                                      "{\"a\":1,}",
                                      "{\"a\"}",
                                      "{\"a\":}",
                                      "{1:2}",
                                      "{a:1}",
                                      "'a'",
                                      "\"abc",
                                      "\"\\x\"",
                                      "\"\\u12\"",
                                      "\"\\u12g4\"",
                                      "\"\n\"",
                                      "\"\x01\"",
                                      "[",
                                      "{",
                                      "[1",
                                      "{\"a\":1",
                                      "]",
                                      "}",
                                      "[}",
                                      "{]",
                                      "\"\\",
                                      "\"\\u",
                                      "//c\n1",
                                      "/*c*/1",
                                      "1/*c*/",
                                      "#c\n1",
                                      "\xEF\xBB\xBF{}",
                                      "1e400",
                                      "-1e400",
                                      "undefined",
                                      "[1 2]",
                                      "{\"a\" 1}",
                                      "\"a\" \"b\""};
    for (size_t i = 0; i < ARRAY_LENGTH(bad); i++) {
        struct error err = {0};
        cr_assert(!parses(bad[i], strlen(bad[i]), &err), "%s", bad[i]);
        cr_assert_eq(err.code, ERROR_INVALID_REQUEST);
        cr_assert_eq(json_check(bad[i], strlen(bad[i]), NULL, &err), -1, "%s", bad[i]);
    }
}

Test(json_parse, nul_bytes_do_not_end_the_text)
{
    cr_assert(!parses("1\0", 2, NULL));
    cr_assert(!parses("\0", 1, NULL));
    cr_assert(!parses("\"a\0b\"", 5, NULL));
}

Test(json_parse, bytes_that_are_no_utf8_are_refused_with_their_place)
{
    static const char *const bad[] = {"\"\xFF\"", "\"\xC0\x80\"", "\"\xED\xA0\x80\"",
                                      "\"\xF4\x90\x80\x80\"", "\"\xC3\""};
    for (size_t i = 0; i < ARRAY_LENGTH(bad); i++) {
        struct error err = {0};
        cr_assert(!parses(bad[i], strlen(bad[i]), &err));
        cr_assert_not_null(strstr(err.message, "line 1, byte 2: byte 0x"), "%s", err.message);
        cr_assert_eq(json_check(bad[i], strlen(bad[i]), NULL, NULL), -1);
    }
}

Test(json_parse, half_a_surrogate_pair_is_refused)
{
    static const char *const bad[] = {"\"\\ud83d\"",        "\"\\ude00\"",        "\"\\ud83dx\"",
                                      "\"\\ud83d\\u0041\"", "\"\\ud83d\\ud83d\"", "\"\\uDBFF\\n\"",
                                      "\"\\ude00\\ud83d\"", "{\"\\ud800\":1}"};
    for (size_t i = 0; i < ARRAY_LENGTH(bad); i++) {
        struct error err = {0};
        cr_assert(!parses(bad[i], strlen(bad[i]), &err), "%s", bad[i]);
        cr_assert_not_null(strstr(err.message, "surrogate"), "%s", err.message);
        cr_assert_eq(json_check(bad[i], strlen(bad[i]), NULL, NULL), -1);
    }
}

Test(json_parse, nul_in_a_key_is_refused)
{
    struct error err = {0};
    const char *text = "{\"a\\u0000b\":1}";
    cr_assert(!parses(text, strlen(text), &err));
    cr_assert_not_null(strstr(err.message, "NUL"));
}

Test(json_parse, a_key_that_comes_twice_is_refused_by_name)
{
    static const char *const bad[] = {"{\"a\":1,\"a\":2}", "{\"a\":1,\"b\":2,\"\\u0061\":3}",
                                      "[{\"x\":{\"a\":1,\"c\":0,\"a\":1}}]"};
    for (size_t i = 0; i < ARRAY_LENGTH(bad); i++) {
        struct error err = {0};
        cr_assert(!parses(bad[i], strlen(bad[i]), &err), "%s", bad[i]);
        cr_assert_not_null(strstr(err.message, "\"a\" twice"), "%s", err.message);
    }
    cr_assert(parses("{\"a\":1,\"A\":2,\"b\":{\"a\":1}}", 25, NULL));
}

Test(json_parse, errors_name_line_and_byte)
{
    struct error err = {0};
    const char *text = "{\n  \"a\": 1,\n  \"b\": x\n}";
    cr_assert(!parses(text, strlen(text), &err));
    cr_assert_not_null(strstr(err.message, "line 3, byte 8:"), "%s", err.message);
    cr_assert(!parses("[1,2", 4, &err));
    cr_assert_not_null(strstr(err.message, "line 1, byte 4:"), "%s", err.message);
}

static char *nested(char open, size_t depth)
{
    char *text = malloc(depth);
    memset(text, open, depth);
    return text;
}

Test(json_parse, a_hundred_thousand_levels_are_refused)
{
    autofree char *arrays = nested('[', 100000);
    struct error err = {0};
    cr_assert(!parses(arrays, 100000, &err));
    cr_assert_not_null(strstr(err.message, "more than 64 levels"), "%s", err.message);
    cr_assert_eq(json_check(arrays, 100000, NULL, NULL), -1);

    autofree char *objects = malloc(500000);
    for (size_t i = 0; i < 100000; i++)
        memcpy(objects + 5 * i, "{\"a\":", 5);
    cr_assert(!parses(objects, 500000, &err));
    cr_assert_not_null(strstr(err.message, "more than 64 levels"), "%s", err.message);
}

Test(json_parse, depth_is_counted_exactly_and_closed_levels_do_not_count)
{
    struct json_limits limits = {.max_depth = 3};
    autojson *fits = json_parse("[[[]],[[]],[[1]]]", 17, &limits, NULL);
    cr_assert_not_null(fits);
    cr_assert_null(json_parse("[[[[]]]]", 8, &limits, NULL));
    cr_assert_eq(json_check("[[[]]]", 6, &limits, NULL), 0);
    cr_assert_eq(json_check("[[[[]]]]", 8, &limits, NULL), -1);
}

/* Only the limit stops a tree of any depth: neither parsing nor freeing recurses. */
Test(json_parse, a_caller_may_allow_great_depth)
{
    size_t depth = 200000;
    struct json_limits limits = {.max_depth = depth, .max_values = depth};
    autofree char *text = malloc(2 * depth);
    memset(text, '[', depth);
    memset(text + depth, ']', depth);
    autojson *root = json_parse(text, 2 * depth, &limits, NULL);
    cr_assert_not_null(root);
    cr_assert_eq(json_count(root), 1);
}

Test(json_parse, the_number_of_values_is_limited)
{
    struct json_limits limits = {.max_values = 4};
    struct error err = {0};
    cr_assert_eq(json_check("[1,2,3]", 7, &limits, NULL), 0);
    cr_assert_eq(json_check("[1,2,3,4]", 9, &limits, NULL), -1);
    cr_assert_null(json_parse("[1,[],{},\"\"]", 12, &limits, &err));
    cr_assert_not_null(strstr(err.message, "more than 4 values"), "%s", err.message);
}

Test(json_parse, huge_text_is_refused_as_too_large)
{
    struct json_limits limits = {.max_bytes = 10};
    struct error err = {0};
    cr_assert_null(json_parse("\"123456789\"", 11, &limits, &err));
    cr_assert_eq(err.code, ERROR_PAYLOAD_TOO_LARGE);
    autojson *fits = json_parse("\"12345678\"", 10, &limits, &err);
    cr_assert_not_null(fits);

    size_t len = 9 * 1024 * 1024;
    autofree char *spaces = nested(' ', len);
    cr_assert_eq(json_check(spaces, len, NULL, &err), -1);
    cr_assert_eq(err.code, ERROR_PAYLOAD_TOO_LARGE);
}

Test(json_parse, a_number_of_thousands_of_digits_is_refused)
{
    autofree char *digits = nested('1', 5000);
    struct error err = {0};
    cr_assert(!parses(digits, 5000, &err));
    cr_assert_not_null(strstr(err.message, "5000 characters"), "%s", err.message);
}

Test(json_parse, a_truncation_anywhere_is_an_error_and_leaks_nothing)
{
    const char *text = "{\"a\":[1,-2.5e3,\"x\\u00e9\",true,null],\"b\":{\"c\":\"\xC3\xA9\"}}";
    for (size_t len = 0; len < strlen(text); len++)
        cr_assert(!parses(text, len, NULL), "%zu", len);
    cr_assert(parses(text, strlen(text), NULL));
}
