/* base/json_scan.c: the fast check knows what is plainly valid, and never takes what the parser refuses. */
#include "base/cleanup.h"
#include "base/json_tree.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct json_limits limits = {.max_bytes = 1 << 20, .max_depth = 20, .max_values = 64};

static const char *const texts[] = {
    "0",
    "-0.5e-10",
    "[1,2.25,-3E+7]",
    " { \"a\" : [ true , false , null ] , \"b\" : { } , \"c\" : [ ] } ",
    "\"a string that is longer than sixteen bytes, with \\\"escapes\\\" \\u00e9 and more of them "
    "\\n\"",
    "{\"smile\":\"\\ud83d\\ude00 and the same again: \xF0\x9F\x98\x80, \xC3\xA9\xE2\x82\xAC\"}",
    "[[[[[[[[{\"deep\":[{\"er\":[]}]}]]]]]]]]",
    "\"0123456789abcdef0123456789abcdef\"",
};

Test(json_scan, plainly_valid_text_needs_no_parser)
{
    for (size_t i = 0; i < ARRAY_LENGTH(texts); i++)
        cr_assert(json_scan(texts[i], strlen(texts[i]), &limits), "%s", texts[i]);
}

/* One byte changed, or the text cut. */
Test(json_scan, what_it_accepts_the_parser_accepts_too)
{
    static const char replacements[] = "\"\\{}[],:0-.eEu \x01\x1f\x7f\x80\xC3\xED\xFF";
    for (size_t i = 0; i < ARRAY_LENGTH(texts); i++) {
        size_t len = strlen(texts[i]);
        for (size_t at = 0; at < len; at++) {
            autofree char *text = strdup(texts[i]);
            for (size_t byte = 0; byte < sizeof(replacements); byte++) { /* with the NUL */
                text[at] = replacements[byte];
                cr_assert(!json_scan(text, len, &limits) ||
                              json_check_by_parser(text, len, &limits, NULL) == 0,
                          "byte %zu of %s as 0x%02x", at, texts[i],
                          (unsigned char)replacements[byte]);
            }
            cr_assert(!json_scan(texts[i], at, &limits) ||
                          json_check_by_parser(texts[i], at, &limits, NULL) == 0,
                      "the first %zu bytes of %s", at, texts[i]);
        }
    }
}

Test(json_scan, limits_and_oddities_are_left_to_the_parser)
{
    static const char *const unsure[] = {"",
                                         "[[[[[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]]]]",
                                         "{\"nul\\u0000 in a key\":1}",
                                         "1e999",
                                         "1e400",
                                         "\"\\ud83d alone\"",
                                         "\"\\ude00\\ud83d the wrong way round\"",
                                         "1 2",
                                         "[1,]",
                                         "{\"a\":1,}",
                                         "\xEF\xBB\xBF{}"};
    for (size_t i = 0; i < ARRAY_LENGTH(unsure); i++)
        cr_assert_not(json_scan(unsure[i], strlen(unsure[i]), &limits), "%s", unsure[i]);
    autofree char *many =
        strdup("[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,"
               "1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1]");
    cr_assert_not(json_scan(many, strlen(many), &limits));
    memcpy(many, "  ", 2);
    many[2] = '['; /* one value less */
    cr_assert(json_scan(many, strlen(many), &limits));
}

static const struct json_limits passed_on = {
    .max_bytes = 1 << 20, .max_depth = 1000, .max_values = 64};

/* Looked at when `pieces[0]`, `pieces[1]` … bytes were there, up to a 0. */
static struct json_ahead *look_ahead(const char *text, const size_t *pieces)
{
    struct json_ahead *ahead = json_ahead_new();
    cr_assert(ahead);
    for (size_t i = 0; pieces[i]; i++)
        json_ahead_look(ahead, text, pieces[i]);
    return ahead;
}

Test(json_scan, a_text_that_was_cut_anywhere_when_it_was_looked_at_is_judged_the_same)
{
    for (size_t i = 0; i < ARRAY_LENGTH(texts); i++) {
        size_t len = strlen(texts[i]);
        for (size_t first = 1; first < len; first++) {
            for (size_t second = first; second < len; second++) {
                struct json_ahead *ahead = look_ahead(texts[i], (size_t[]){first, second, len, 0});
                cr_assert_eq(json_check_ahead(ahead, texts[i], len, &passed_on, NULL), 0,
                             "%s cut at %zu and %zu", texts[i], first, second);
                cr_assert(json_check_ahead(ahead, texts[i], len - 1, &passed_on, NULL) < 0 ||
                              json_check_by_parser(texts[i], len - 1, &passed_on, NULL) == 0,
                          "without the last byte: %s", texts[i]);
                json_ahead_free(ahead);
            }
        }
    }
}

Test(json_scan, what_was_seen_of_a_string_is_not_looked_at_again)
{
    char text[2000];
    memset(text, 'x', sizeof(text));
    memcpy(text, "[\"", 2);
    struct json_ahead *ahead = look_ahead(text, (size_t[]){300, 900, 1500, 0});
    memcpy(text + sizeof(text) - 2, "\"]", 2);
    cr_assert(json_scan_rest(ahead, text, sizeof(text), &passed_on));
    text[1600] = '\n';
    cr_assert_not(json_scan_rest(ahead, text, sizeof(text), &passed_on));
    memset(text, '\n', 1500); /* not seen: it has been read */
    text[1600] = 'x';
    cr_assert(json_scan_rest(ahead, text, sizeof(text), &passed_on));
    json_ahead_free(ahead);
}

Test(json_scan, what_was_seen_ahead_counts_against_the_limits)
{
    static const char many[] = "[1,2,3,4,5,6,7,8]";
    struct json_limits few = {.max_bytes = 1 << 20, .max_depth = 1000, .max_values = 8};
    struct json_ahead *ahead = look_ahead(many, (size_t[]){6, 12, 0});
    cr_assert_eq(json_check_ahead(ahead, many, strlen(many), &passed_on, NULL), 0);
    cr_assert_lt(json_check_ahead(ahead, many, strlen(many), &few, NULL), 0);
    few = passed_on;
    few.max_bytes = 4;
    cr_assert_lt(json_check_ahead(ahead, many, strlen(many), &few, NULL), 0);
    json_ahead_free(ahead);
    cr_assert_eq(json_check_ahead(NULL, many, strlen(many), &passed_on, NULL), 0);
}

/* A string is read in strides: what may not be in it is seen at every place of one. */
Test(json_scan, a_byte_that_may_not_be_in_a_string_is_found_wherever_it_is)
{
    static const char wrong[] = "\x01\x1f\"\\\x80\xC3\xFF";
    char text[202];
    for (size_t at = 1; at < sizeof(text) - 2; at++) {
        memset(text, 'x', sizeof(text));
        text[0] = text[sizeof(text) - 1] = '"';
        cr_assert(json_scan(text, sizeof(text), &limits));
        cr_assert_not(json_scan(text, at, &limits), "cut at %zu", at);
        for (size_t byte = 0; byte < sizeof(wrong); byte++) { /* with the NUL */
            text[at] = wrong[byte];
            cr_assert_not(json_scan(text, sizeof(text), &limits), "byte 0x%02x at %zu",
                          (unsigned char)wrong[byte], at);
        }
    }
}
