/* base/text.h: UTF-8, hexadecimal, durations, sizes, suggestions. */
#include "base/text.h"

#include "base/cleanup.h"

#include <criterion/criterion.h>
#include <string.h>

static bool valid(const char *text)
{
    return utf8_valid(text, strlen(text));
}

Test(text, well_formed_utf8_is_accepted_up_to_the_last_code_point)
{
    cr_assert(valid(""));
    cr_assert(valid("plain text, longer than eight bytes"));
    cr_assert(valid("\xC2\x80 \xDF\xBF \xE0\xA0\x80 \xED\x9F\xBF \xEE\x80\x80 \xEF\xBF\xBF"));
    cr_assert(valid("\xF0\x90\x80\x80 \xF4\x8F\xBF\xBF"));
    cr_assert(utf8_valid("a\0b", 3));
}

Test(text, overlong_surrogate_too_large_and_cut_utf8_is_refused)
{
    static const char *const bad[] = {"\x80",
                                      "\xC0\x80",
                                      "\xC1\xBF",
                                      "\xE0\x9F\xBF",
                                      "\xED\xA0\x80",
                                      "\xF0\x8F\xBF\xBF",
                                      "\xF4\x90\x80\x80",
                                      "\xF5\x80\x80\x80",
                                      "\xFF",
                                      "\xC3",
                                      "\xE2\x82",
                                      "\xF0\x9F\x98",
                                      "\xE2\x28\xA1",
                                      "\xE2\x82\x28"};
    for (size_t i = 0; i < ARRAY_LENGTH(bad); i++)
        cr_assert(!valid(bad[i]), "number %zu", i);
    cr_assert_eq(utf8_valid_len("12345678\xFF", 9), 8);
    cr_assert_eq(utf8_valid_len("\xC3\xA9\xC3", 3), 2);
}

Test(text, hexadecimal_is_lower_case)
{
    char out[7];
    hex_encode("\x00\xAB\xff", 3, out);
    cr_assert_str_eq(out, "00abff");
}

Test(text, comparison_in_constant_time_compares)
{
    cr_assert(equal_constant_time("abc", "abc", 3));
    cr_assert(!equal_constant_time("abc", "abd", 3));
    cr_assert(!equal_constant_time("abc", "bbc", 3));
    cr_assert(equal_constant_time("", "", 0));
}

Test(text, durations_are_read_in_each_unit)
{
    static const struct {
        const char *text;
        int64_t ms;
    } rows[] = {{"250ms", 250},  {"30s", 30000}, {"2m", 120000},
                {"1h", 3600000}, {"1500", 1500}, {"0", 0}};
    for (size_t i = 0; i < ARRAY_LENGTH(rows); i++) {
        int64_t ms = -1;
        cr_assert_eq(duration_parse_ms(rows[i].text, &ms, NULL), 0, "%s", rows[i].text);
        cr_assert_eq(ms, rows[i].ms, "%s", rows[i].text);
    }
}

Test(text, what_is_no_duration_is_refused_with_an_example)
{
    static const char *const bad[] = {"",
                                      "s",
                                      "-1s",
                                      "1.5s",
                                      "1 s",
                                      "10d",
                                      "+3",
                                      "0x10",
                                      "1sx",
                                      "99999999999999999999",
                                      "9223372036854775807h"};
    for (size_t i = 0; i < ARRAY_LENGTH(bad); i++) {
        struct error err;
        int64_t ms = 77;
        cr_assert_eq(duration_parse_ms(bad[i], &ms, &err), -1, "%s", bad[i]);
        cr_assert_eq(err.code, ERROR_INVALID_REQUEST);
        cr_assert_eq(ms, 77);
    }
}

Test(text, durations_and_sizes_are_shown_for_people)
{
    static const struct {
        uint64_t value;
        const char *text;
    } durations[] = {{0, "0 ns"},
                     {999, "999 ns"},
                     {1500, "1.5 µs"},
                     {1500000, "1.5 ms"},
                     {999960000, "1.0 s"},
                     {59900000000, "59.9 s"},
                     {62000000000, "1 min 2 s"},
                     {3720000000000, "1 h 2 min"}};
    static const struct {
        uint64_t value;
        const char *text;
    } sizes[] = {{0, "0 B"},
                 {999, "999 B"},
                 {45678912, "45.7 MB"},
                 {1000, "1.0 kB"},
                 {UINT64_MAX, "18446.7 PB"}};
    char out[32];
    for (size_t i = 0; i < ARRAY_LENGTH(durations); i++) {
        format_duration_ns(durations[i].value, out, sizeof(out));
        cr_assert_str_eq(out, durations[i].text);
    }
    for (size_t i = 0; i < ARRAY_LENGTH(sizes); i++) {
        format_bytes(sizes[i].value, out, sizeof(out));
        cr_assert_str_eq(out, sizes[i].text);
    }
    format_duration_ns(UINT64_MAX, out, 24);
    cr_assert_lt(strlen(out), 24);
}

static const char *nearest_of(const char *wanted)
{
    static const char *const names[] = {"name", "memory_mb", "timeout_ms", "tmp_mb", "env"};
    struct nearest nearest = {.wanted = wanted};
    for (size_t i = 0; i < ARRAY_LENGTH(names); i++)
        nearest_offer(&nearest, names[i]);
    return nearest.best;
}

Test(text, a_misspelt_name_finds_the_one_that_was_meant)
{
    cr_assert_str_eq(nearest_of("memroy_mb"), "memory_mb");
    cr_assert_str_eq(nearest_of("memory"), "memory_mb");
    cr_assert_str_eq(nearest_of("timeout"), "timeout_ms");
    cr_assert_str_eq(nearest_of("environment"), "env");
    cr_assert_str_eq(nearest_of("nmae"), "name");
}

Test(text, a_name_unlike_all_others_gets_no_suggestion)
{
    char long_name[200];
    memset(long_name, 'm', sizeof(long_name) - 1);
    long_name[199] = '\0';
    cr_assert_null(nearest_of("zzz"));
    cr_assert_null(nearest_of(""));
    cr_assert_null(nearest_of(long_name));
}

Test(text, string_printf_allocates)
{
    autofree char *text = string_printf("%s-%d", "a", 7);
    cr_assert_str_eq(text, "a-7");
}
