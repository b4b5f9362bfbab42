/* base/json.h: the writer. */
#include "base/json.h"

#include "base/cleanup.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define autobuffer with_cleanup(buffer_deinit) struct buffer

Test(json_write, all_kinds_of_values)
{
    autobuffer out = BUFFER_INIT(1000);
    struct json_writer *writer = json_writer_new(&out);
    json_object_begin(writer);
    json_member_string(writer, "s", "a\"\\\n\x01/");
    json_member_string(writer, "absent", NULL);
    json_member_int(writer, "i", INT64_MIN);
    json_member_double(writer, "d", 0.1);
    json_member_bool(writer, "b", true);
    json_key(writer, "a");
    json_array_begin(writer);
    json_write_null(writer);
    json_write_string(writer, NULL);
    json_write_raw(writer, "{\"x\": 1}", 8);
    json_write_double(writer, NAN);
    json_write_double(writer, INFINITY);
    json_write_double(writer, 3);
    json_array_end(writer);
    json_object_end(writer);
    struct error err = {0};
    cr_assert_eq(json_writer_finish(writer, &err), 0, "%s", err.message);
    cr_assert_str_eq(out.data,
                     "{\"s\":\"a\\\"\\\\\\n\\u0001/\",\"i\":-9223372036854775808,\"d\":0.1,"
                     "\"b\":true,\"a\":[null,null,{\"x\": 1},null,null,3]}");
    cr_assert_eq(json_check(out.data, out.len, NULL, NULL), 0);
}

static void assert_string(const char *text, size_t len, const char *expected)
{
    autobuffer out = BUFFER_INIT(1000);
    struct json_writer *writer = json_writer_new(&out);
    json_write_string_len(writer, text, len);
    cr_assert_eq(json_writer_finish(writer, NULL), 0);
    cr_assert_str_eq(out.data, expected);
}

Test(json_write, bytes_that_are_no_utf8_become_the_replacement_character)
{
    assert_string("a\xFF\xC3\xA9\xE2\x82z", 7,
                  "\"a\xEF\xBF\xBD\xC3\xA9\xEF\xBF\xBD\xEF\xBF\xBDz\"");
    assert_string("\xED\xA0\x80", 3, "\"\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD\"");
    assert_string("a\0b", 3, "\"a\\u0000b\"");
    assert_string("", 0, "\"\"");
}

Test(json_write, doubles_read_back_as_the_same_number)
{
    static const double numbers[] = {
        0.1, 1.0 / 3, 1e300, 5e-324, 1.7976931348623157e308, -2.5e-7, 123456789.123456789};
    for (size_t i = 0; i < ARRAY_LENGTH(numbers); i++) {
        autobuffer out = BUFFER_INIT(100);
        struct json_writer *writer = json_writer_new(&out);
        json_write_double(writer, numbers[i]);
        json_writer_finish(writer, NULL);
        cr_assert_eq(strtod(out.data, NULL), numbers[i], "%s", out.data);
    }
}

Test(json_write, a_parsed_value_is_written_as_it_was)
{
    const char *text =
        "{\"z\":[1,2.50,12345678901234567890,-0.0,1e3],\"a\":{\"b\":null,\"c\":false},"
        "\"\":\"\\u0000\xC3\xA9\",\"e\":{},\"f\":[]}";
    autobuffer out = BUFFER_INIT(1000);
    autojson *value = json_parse(text, strlen(text), NULL, NULL);
    struct json_writer *writer = json_writer_new(&out);
    json_write_value(writer, value);
    cr_assert_eq(json_writer_finish(writer, NULL), 0);
    cr_assert_str_eq(out.data, text);
}

Test(json_write, a_full_buffer_is_an_error_at_the_end)
{
    autobuffer out = BUFFER_INIT(10);
    struct error err = {0};
    struct json_writer *writer = json_writer_new(&out);
    json_array_begin(writer);
    for (int i = 0; i < 100; i++)
        json_write_int(writer, i);
    json_array_end(writer);
    cr_assert_eq(json_writer_finish(writer, &err), -1);
    cr_assert_eq(err.code, ERROR_PAYLOAD_TOO_LARGE);
}

static int finish_after(void (*write)(struct json_writer *))
{
    autobuffer out = BUFFER_INIT(10000);
    struct json_writer *writer = json_writer_new(&out);
    write(writer);
    return json_writer_finish(writer, NULL);
}

static void write_nothing(struct json_writer *writer)
{
    (void)writer;
}

static void write_open_object(struct json_writer *writer)
{
    json_object_begin(writer);
}

static void write_key_without_value(struct json_writer *writer)
{
    json_object_begin(writer);
    json_key(writer, "a");
    json_object_end(writer);
}

static void write_value_without_key(struct json_writer *writer)
{
    json_object_begin(writer);
    json_write_int(writer, 1);
    json_object_end(writer);
}

static void write_two_values(struct json_writer *writer)
{
    json_write_int(writer, 1);
    json_write_int(writer, 2);
}

static void write_extra_end(struct json_writer *writer)
{
    json_array_begin(writer);
    json_array_end(writer);
    json_array_end(writer);
}

static void write_wrong_end(struct json_writer *writer)
{
    json_array_begin(writer);
    json_object_end(writer);
}

static void write_too_deep(struct json_writer *writer)
{
    for (int i = 0; i < 1000; i++)
        json_array_begin(writer);
    for (int i = 0; i < 1000; i++)
        json_array_end(writer);
}

Test(json_write, unbalanced_writing_is_an_error)
{
    void (*const wrong[])(struct json_writer *) = {
        write_nothing,    write_open_object, write_key_without_value, write_value_without_key,
        write_two_values, write_extra_end,   write_wrong_end,         write_too_deep};
    for (size_t i = 0; i < ARRAY_LENGTH(wrong); i++)
        cr_assert_eq(finish_after(wrong[i]), -1, "number %zu", i);
}

Test(json_write, a_tree_deeper_than_the_writer_allows_is_an_error)
{
    size_t depth = 100000;
    struct json_limits limits = {.max_depth = depth};
    autofree char *text = malloc(2 * depth);
    memset(text, '[', depth);
    memset(text + depth, ']', depth);
    autojson *value = json_parse(text, 2 * depth, &limits, NULL);
    cr_assert_not_null(value);
    autobuffer out = BUFFER_INIT(1 << 20);
    struct json_writer *writer = json_writer_new(&out);
    json_write_value(writer, value);
    cr_assert_eq(json_writer_finish(writer, NULL), -1);
}
