/* What `faas` shows: to people on a terminal, and to programs in a pipe. */
#include "cli/output.h"

#include <criterion/criterion.h>
#include <pty.h>
#include <stdlib.h>
#include <string.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

/* A stream whose output can be read back: a terminal of the test's own, or a pipe. */
struct shown {
    FILE *stream;
    int reading;
    char text[4096];
};

static void shown_open(struct shown *shown, bool terminal)
{
    int ends[2];
    unsetenv("NO_COLOR");
    if (terminal) {
        struct termios raw;
        cr_assert_eq(openpty(&ends[0], &ends[1], NULL, NULL, NULL), 0);
        tcgetattr(ends[1], &raw);
        cfmakeraw(&raw);
        cr_assert_eq(tcsetattr(ends[1], TCSANOW, &raw), 0);
    } else {
        cr_assert_eq(pipe(ends), 0);
    }
    shown->reading = ends[0];
    shown->stream = fdopen(ends[1], "w");
    cr_assert_not_null(shown->stream);
}

/* What was written so far, which must be shorter than the buffers of pipes and terminals. */
static const char *shown_text(struct shown *shown)
{
    fputs("<end>", shown->stream);
    fflush(shown->stream);
    size_t len = 0;
    do {
        ssize_t got = read(shown->reading, shown->text + len, sizeof(shown->text) - 1 - len);
        cr_assert_gt(got, 0);
        len += (size_t)got;
        shown->text[len] = '\0';
    } while (!strstr(shown->text, "<end>"));
    *strstr(shown->text, "<end>") = '\0';
    return shown->text;
}

static void shown_close(struct shown *shown)
{
    fclose(shown->stream);
    close(shown->reading);
}

static void print(FILE *stream, const char *text)
{
    print_untrusted(stream, text, strlen(text));
}

Test(cli_output, strangers_text_cannot_command_a_terminal)
{
    struct shown shown;
    shown_open(&shown, true);
    print(shown.stream, "a\033[31mred\033]0;title\007\r\b\177 tab\tline\n");
    print(shown.stream, "\xc2\x9b"
                        "31m \xc3\xa9\xc2\xa9 \xe2\x82\xac");
    cr_expect_str_eq(shown_text(&shown), "a?[31mred?]0;title???? tab\tline\n"
                                         "??31m \xc3\xa9\xc2\xa9 \xe2\x82\xac");
    shown_close(&shown);
}

Test(cli_output, strangers_text_is_as_it_is_in_a_pipe)
{
    struct shown shown;
    shown_open(&shown, false);
    print_untrusted(shown.stream, "a\033[31m\0b", 8);
    fflush(shown.stream);
    char got[8];
    cr_assert_eq(read(shown.reading, got, sizeof(got)), 8);
    cr_expect_arr_eq(got, "a\033[31m\0b", 8);
    shown_close(&shown);
}

Test(cli_output, states_have_colours_on_a_terminal_only)
{
    struct shown terminal, pipe_end;
    shown_open(&terminal, true);
    shown_open(&pipe_end, false);
    cr_expect_str_eq(style_status(terminal.stream, "succeeded"), "\033[32m");
    cr_expect_str_eq(style_status(terminal.stream, "out_of_memory"), "\033[31m");
    cr_expect_str_eq(style_status(terminal.stream, "building"), "\033[33m");
    cr_expect_str_eq(style_status(terminal.stream, "something else"), "");
    cr_expect_str_eq(style_status(pipe_end.stream, "failed"), "");
    shown_close(&terminal);
    shown_close(&pipe_end);
}

Test(cli_output, no_color_is_respected_unless_empty)
{
    struct shown terminal;
    shown_open(&terminal, true);
    setenv("NO_COLOR", "", 1);
    cr_expect_str_eq(style_bold(terminal.stream), "\033[1m");
    setenv("NO_COLOR", "1", 1);
    cr_expect_str_eq(style_bold(terminal.stream), "");
    cr_expect_str_eq(style_status(terminal.stream, "failed"), "");
    shown_close(&terminal);
}

Test(cli_output, json_is_shown_on_one_line_or_indented)
{
    const char text[] = "{\"a\":[1,{\"b\\n\":null},[]],\"c\":{},\"d\":\"\\u001b\"}";
    struct error err = {0};
    struct json *value = json_parse(text, sizeof(text) - 1, NULL, &err);
    struct shown shown;
    cr_assert_not_null(value, "%s", err.message);

    shown_open(&shown, false);
    cr_expect_eq(print_json(shown.stream, value, false), 0);
    cr_expect_str_eq(shown_text(&shown),
                     "{\"a\":[1,{\"b\\n\":null},[]],\"c\":{},\"d\":\"\\u001B\"}\n");
    cr_expect_eq(print_json(shown.stream, value, true), 0);
    cr_expect_str_eq(shown_text(&shown), "{\n"
                                         "  \"a\": [\n"
                                         "    1,\n"
                                         "    {\n"
                                         "      \"b\\n\": null\n"
                                         "    },\n"
                                         "    []\n"
                                         "  ],\n"
                                         "  \"c\": {},\n"
                                         "  \"d\": \"\\u001B\"\n"
                                         "}\n");
    shown_close(&shown);
    json_free(value);
}

static void expect_age(long long seconds, const char *expected)
{
    char text[64], age[32];
    time_t then = time(NULL) - seconds;
    struct tm tm;
    strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%S.123Z", gmtime_r(&then, &tm));
    format_age(text, age, sizeof(age));
    cr_expect_str_eq(age, expected, "%s for %s", age, text);
}

/* In the middle of each unit, so that a second that passes changes nothing. */
Test(cli_output, ages_have_the_largest_unit_that_fits)
{
    char age[32];
    expect_age(-3600, "0 s ago");
    expect_age(90, "1 min ago");
    expect_age(2 * 3600 + 1800, "2 h ago");
    expect_age(3 * 86400 + 43200, "3 days ago");
    format_age("yesterday", age, sizeof(age));
    cr_expect_str_eq(age, "-");
    format_age(NULL, age, sizeof(age));
    cr_expect_str_eq(age, "-");
}
