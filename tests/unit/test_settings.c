/* base/settings.h: defaults, environment and flags, their order, and what a wrong value is told. */
#include "base/settings.h"

#include "base/cleanup.h"
#include "capture.h"

#include <criterion/criterion.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

struct sample {
    char *listen;
    char *token;
    int64_t count;
    int64_t keep_alive_ms;
    bool container;
    char *runtime;
};

#define AT(member) offsetof(struct sample, member)

static const struct setting rows[] = {
    {.name = "SAMPLE_LISTEN",
     .type = SETTING_STRING,
     .offset = AT(listen),
     .default_value = "127.0.0.1:8080",
     .text = "Address to listen on."},
    {.name = "SAMPLE_TOKEN",
     .type = SETTING_STRING,
     .offset = AT(token),
     .secret = true,
     .text = "The token."},
    {.name = "SAMPLE_COUNT",
     .type = SETTING_INT,
     .offset = AT(count),
     .default_value = "4",
     .min = 1,
     .max = 100,
     .text = "How many."},
    {.name = "SAMPLE_KEEP_ALIVE_MS",
     .type = SETTING_INT,
     .offset = AT(keep_alive_ms),
     .min = 0,
     .max = 3600000,
     .unit = "ms",
     .text = "How long."},
    {.name = "SAMPLE_USE_CONTAINER",
     .type = SETTING_BOOL,
     .offset = AT(container),
     .default_value = "true",
     .text = "Whether."},
    {.name = "RUNTIME_TYPE",
     .type = SETTING_CHOICE,
     .offset = AT(runtime),
     .choices = "container|simple",
     .default_value = "container",
     .text = "Which."},
};

static int check(const void *object, struct error *err)
{
    const struct sample *sample = object;
    if (sample->count == 13)
        return error_set(err, ERROR_INVALID_REQUEST, "13 brings bad luck");
    return 0;
}

static const struct settings_spec spec = {.program = "sample",
                                          .prefix = "SAMPLE_",
                                          .summary = "A sample.",
                                          .example = "sample --count 3",
                                          .rows = rows,
                                          .row_count = ARRAY_LENGTH(rows),
                                          .check = check};

static enum settings_outcome outcome;

/* `line`: arguments separated by spaces. */
static int load(const char *line, struct sample *sample, struct error *err)
{
    autofree char *copy = strdup(line);
    char *argv[16] = {copy}, *save = NULL; /* argv[0] is not looked at */
    int argc = 1;
    for (char *word = strtok_r(copy, " ", &save); word; word = strtok_r(NULL, " ", &save))
        argv[argc++] = word;
    *sample = (struct sample){0};
    return settings_load(&spec, argc, argv, sample, &outcome, err);
}

static void clear_environment(void)
{
    for (size_t i = 0; i < ARRAY_LENGTH(rows); i++)
        unsetenv(rows[i].name);
}

TestSuite(settings, .init = clear_environment);

static void assert_refused(const char *line, const char *message)
{
    struct sample sample;
    struct error err = {0};
    cr_assert_eq(load(line, &sample, &err), -1, "%s", line);
    cr_assert_str_eq(err.message, message);
    cr_assert_eq(err.code, ERROR_INVALID_REQUEST);
    cr_assert_null(sample.listen, "nothing is left to clean");
}

Test(settings, defaults_hold_when_nothing_is_given)
{
    struct sample sample;
    cr_assert_eq(load("", &sample, NULL), 0);
    cr_assert_eq(outcome, SETTINGS_RUN);
    cr_assert_str_eq(sample.listen, "127.0.0.1:8080");
    cr_assert_str_empty(sample.token);
    cr_assert_eq(sample.count, 4);
    cr_assert_eq(sample.keep_alive_ms, 0);
    cr_assert(sample.container);
    cr_assert_str_eq(sample.runtime, "container");
    settings_deinit(&spec, &sample);
    cr_assert_null(sample.listen);
}

Test(settings, a_flag_beats_the_environment_which_beats_the_default)
{
    struct sample sample;
    setenv("SAMPLE_COUNT", "5", 1);
    setenv("SAMPLE_LISTEN", "env", 1);
    setenv("RUNTIME_TYPE", "simple", 1);
    cr_assert_eq(load("--count 6 --keep-alive-ms=30s", &sample, NULL), 0);
    cr_assert_eq(sample.count, 6);
    cr_assert_eq(sample.keep_alive_ms, 30000);
    cr_assert_str_eq(sample.listen, "env");
    cr_assert_str_eq(sample.runtime, "simple");
    settings_deinit(&spec, &sample);
}

Test(settings, an_empty_variable_counts_as_not_set)
{
    struct sample sample;
    setenv("SAMPLE_COUNT", "", 1);
    cr_assert_eq(load("", &sample, NULL), 0);
    cr_assert_eq(sample.count, 4);
    settings_deinit(&spec, &sample);
}

Test(settings, a_boolean_flag_needs_no_value)
{
    static const struct {
        const char *line;
        bool expected;
    } cases[] = {{"--use-container", true},
                 {"--use-container=false", false},
                 {"--use-container no", false},
                 {"--use-container --count 3", true},
                 {"--use-container=YES", true},
                 {"--use-container=0", false},
                 {"--use-container 1 --count 3", true}};
    for (size_t i = 0; i < ARRAY_LENGTH(cases); i++) {
        struct sample sample;
        struct error err = {0};
        cr_assert_eq(load(cases[i].line, &sample, &err), 0, "%s", err.message);
        cr_assert_eq(sample.container, cases[i].expected, "%s", cases[i].line);
        settings_deinit(&spec, &sample);
    }
}

Test(settings, a_wrong_value_is_told_with_what_would_be_right)
{
    assert_refused("--count 0", "--count must be 1 to 100, not \"0\"");
    assert_refused("--count=101", "--count must be 1 to 100, not \"101\"");
    assert_refused("--count 5x", "--count must be 1 to 100, not \"5x\"");
    assert_refused("--count=", "--count must be 1 to 100, not \"\"");
    assert_refused("--count 99999999999999999999",
                   "--count must be 1 to 100, not \"99999999999999999999\"");
    assert_refused("--keep-alive-ms 2h", "--keep-alive-ms must be 0 to 3600000 ms, not \"2h\"");
    assert_refused("--use-container=maybe", "--use-container must be true or false, not \"maybe\"");
    assert_refused("--runtime-type contain",
                   "--runtime-type must be container or simple, not \"contain\"");
    assert_refused("--count", "--count needs a value");
    setenv("SAMPLE_COUNT", "many", 1);
    assert_refused("", "SAMPLE_COUNT must be 1 to 100, not \"many\"");
}

Test(settings, unknown_flags_and_stray_arguments_are_refused)
{
    assert_refused("--conut 3", "unknown flag --conut; did you mean --count?");
    assert_refused("--zzz", "unknown flag --zzz; sample --help lists all");
    assert_refused("--sample-count 3", "unknown flag --sample-count; sample --help lists all");
    assert_refused("serve", "unexpected argument \"serve\"; settings are written --name VALUE");
    assert_refused("--", "unknown flag --; sample --help lists all");
}

Test(settings, checks_across_settings_run_last)
{
    assert_refused("--count 13", "13 brings bad luck");
}

static struct buffer served(const char *line)
{
    struct sample sample;
    struct error err = {0};
    struct capture capture = capture_start(STDOUT_FILENO);
    int result = load(line, &sample, &err);
    struct buffer text = capture_stop(&capture);
    cr_assert_eq(result, 0, "%s", err.message);
    cr_assert_eq(outcome, SETTINGS_EXIT);
    settings_deinit(&spec, &sample);
    return text;
}

#define autobuffer with_cleanup(buffer_deinit) struct buffer

Test(settings, help_comes_even_when_a_setting_is_wrong)
{
    setenv("SAMPLE_COUNT", "many", 1);
    autobuffer text = served("--count x --help");
    cr_assert_not_null(strstr(text.data, "Usage: sample"));
    cr_assert_not_null(strstr(text.data, "--listen, SAMPLE_LISTEN"));
    cr_assert_not_null(strstr(text.data, "--runtime-type, RUNTIME_TYPE"));
    cr_assert_not_null(strstr(text.data, "1 to 100; default 4"));
    cr_assert_not_null(strstr(text.data, "sample --count 3"));
}

Test(settings, check_config_shows_what_holds_but_no_secret)
{
    autobuffer text = served("--check-config --token hunter2 --count 9");
    cr_assert_not_null(strstr(text.data, "SAMPLE_COUNT=9\n"));
    cr_assert_not_null(strstr(text.data, "SAMPLE_USE_CONTAINER=true\n"));
    cr_assert_not_null(strstr(text.data, "SAMPLE_TOKEN=(secret)\n"));
    cr_assert_null(strstr(text.data, "hunter2"));
}

Test(settings, a_variable_that_is_no_setting_is_told_without_its_value)
{
    setenv("SAMPLE_COUNTS", "value", 1);
    setenv("SAMPLE_", "value", 1);
    setenv("SAMPLE_WHOLLY_UNKNOWN", "value", 1);
    setenv("SAMPLE_COUNT", "7", 1);
    setenv("SAMPLES_OF_OTHERS", "value", 1);
    struct capture capture = capture_start(STDERR_FILENO);
    autobuffer ignored = served("--check-config");
    autobuffer told = capture_stop(&capture);
    cr_expect_not_null(strstr(told.data, "variable=SAMPLE_COUNTS did_you_mean=SAMPLE_COUNT\n"),
                       "%s", told.data);
    cr_expect_not_null(strstr(told.data, "variable=SAMPLE_WHOLLY_UNKNOWN"), "%s", told.data);
    cr_expect_null(strstr(told.data, "value"), "%s", told.data);
    cr_expect_null(strstr(told.data, "OTHERS"), "%s", told.data);
    cr_expect_null(strstr(told.data, "SAMPLE_COUNT "), "%s", told.data);
}

Test(settings, a_secret_does_not_stay_among_the_arguments)
{
    struct sample sample = {0};
    char first[] = "--token", second[] = "hunter2", third[] = "--token=hunter3",
         fourth[] = "--count=9";
    char *argv[] = {first, first, second, third, fourth, NULL};
    cr_assert_eq(settings_load(&spec, 5, argv, &sample, &outcome, NULL), 0);
    cr_assert_str_eq(sample.token, "hunter3");
    cr_assert_str_eq(second, "xxxxxxx");
    cr_assert_str_eq(third, "--token=xxxxxxx");
    cr_assert_str_eq(fourth, "--count=9");
    settings_deinit(&spec, &sample);
}

Test(settings, check_config_fails_on_a_wrong_setting)
{
    assert_refused("--check-config --count 0", "--count must be 1 to 100, not \"0\"");
    assert_refused("--count 13 --check-config", "13 brings bad luck");
}

Test(settings, version_and_markdown_are_served)
{
    autobuffer version = served("--version");
    cr_assert_eq(strncmp(version.data, "sample ", 7), 0);
    autobuffer table = served("--markdown");
    cr_assert_not_null(
        strstr(table.data, "| `SAMPLE_COUNT` | `--count` | `4` | 1 to 100 | How many. |\n"), "%s",
        table.data);
    cr_assert_not_null(strstr(table.data, "| `SAMPLE_TOKEN` | `--token` |  |  | The token. |\n"),
                       "%s", table.data);
}
