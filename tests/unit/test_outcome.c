/* What an invocation's end means: results from stdout, errors from handlers, signals and statuses. */
#include "base/blob.h"
#include "worker/outcome.h"

#include <criterion/criterion.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct outcome_stdout from(const char *text, size_t len)
{
    struct outcome_stdout outcome;
    struct error err = {0};
    cr_assert_eq(outcome_from_stdout(text, len, &outcome, &err), 0, "%s", err.message);
    cr_assert_eq(strlen(outcome.result), outcome.result_len);
    return outcome;
}

static void expect(const char *text, const char *result, size_t log_len)
{
    struct outcome_stdout outcome = from(text, strlen(text));
    cr_expect_str_eq(outcome.result, result, "of %s: %s", text, outcome.result);
    cr_expect_eq(outcome.log_len, log_len, "of %s: %zu", text, outcome.log_len);
    cr_expect_not(outcome.base64);
    free(outcome.result);
}

Test(outcome, stdout_that_is_json_is_the_result)
{
    expect("{\"a\": 1}\n", "{\"a\": 1}", 0);
    expect("  [1,\n 2]\n\n", "[1,\n 2]", 0);
    expect("12", "12", 0);
}

Test(outcome, last_line_that_is_json_is_the_result_and_the_rest_is_log)
{
    expect("starting\n{\"a\": 1}\n", "{\"a\": 1}", 9);
    expect("a\nb\n\n  7  \n \n", "7", 5);
    expect("{\"first\": 1}\n{\"second\": 2}\n", "{\"second\": 2}", 13);
}

Test(outcome, other_text_is_a_json_string)
{
    expect("hello\n", "\"hello\\n\"", 0);
    expect("{\"a\": 1}\nbye", "\"{\\\"a\\\": 1}\\nbye\"", 0);
    expect("NaN", "\"NaN\"", 0);
    expect("", "\"\"", 0);
    expect("\n", "\"\\n\"", 0);
}

Test(outcome, bytes_that_are_not_utf8_are_base64)
{
    struct outcome_stdout outcome = from("\xff\x00\x01", 3);
    cr_expect(outcome.base64);
    cr_expect_str_eq(outcome.result, "\"/wAB\"");
    free(outcome.result);
}

Test(outcome, deeply_nested_stdout_is_text)
{
    size_t len = 200000;
    char *text = malloc(len);
    memset(text, '[', len);
    struct outcome_stdout outcome = from(text, len);
    cr_expect_eq(outcome.result[0], '"');
    cr_expect_eq(outcome.result_len, len + 2);
    free(outcome.result);
    free(text);
}

static struct execution execution;

static void set_up(void)
{
    execution_init(&execution);
}

static void tear_down(void)
{
    execution_deinit(&execution);
}

TestSuite(outcome_execution, .init = set_up, .fini = tear_down);

Test(outcome_execution, exit_status_and_signal_are_named)
{
    outcome_from_wait_status(&execution, 3 << 8);
    cr_expect_eq(execution.status, EXECUTION_FAILED);
    cr_expect_str_eq(execution.error.type, "Function.ExitStatus");
    cr_expect_eq(execution.error.exit_code, 3);
    outcome_from_wait_status(&execution, SIGSEGV);
    cr_expect_str_eq(execution.error.type, "Function.Signal");
    cr_expect_str_eq(execution.error.signal, "SIGSEGV");
    cr_expect_eq(execution.error.exit_code, -1);
}

static void handler_error(const char *body)
{
    outcome_from_handler_error(&execution, body, strlen(body));
    cr_assert_eq(execution.status, EXECUTION_FAILED);
}

Test(outcome_execution, handler_errors_keep_type_message_and_stack)
{
    handler_error("{\"type\": \"KeyError\", \"message\": \"'x'\", \"stack\": [\"one\", \"two\"]}");
    cr_expect_str_eq(execution.error.type, "KeyError");
    cr_expect_str_eq(execution.error.message, "'x'");
    cr_expect_str_eq(execution.error.stack, "[\"one\",\"two\"]");
}

Test(outcome_execution, a_handler_cannot_pose_as_the_platform)
{
    handler_error("{\"type\": \"Platform.StartFailed\", \"message\": \"no\"}");
    cr_expect_str_eq(execution.error.type, "Error");
}

Test(outcome_execution, malformed_handler_errors_are_still_errors)
{
    static const char *const bodies[] = {"", "[]", "{", "{\"type\": 1}", "{\"stack\": [1, {}]}"};
    for (size_t i = 0; i < sizeof(bodies) / sizeof(bodies[0]); i++) {
        handler_error(bodies[i]);
        cr_expect(execution.has_error);
        cr_expect_gt(strlen(execution.error.type), 0);
        cr_expect_not_null(execution.error.message);
    }
}

Test(outcome_execution, long_handler_errors_are_cut)
{
    char *body = malloc(200000);
    size_t at = (size_t)sprintf(body, "{\"type\": \"");
    memset(body + at, 'T', 50000);
    at += 50000;
    at += (size_t)sprintf(body + at, "\", \"message\": \"");
    memset(body + at, 'm', 100000);
    strcpy(body + at + 100000, "\"}");
    handler_error(body);
    cr_expect_leq(strlen(execution.error.type), 256);
    cr_expect_leq(strlen(execution.error.message), 4096);
    free(body);
}

Test(outcome_execution, handler_results_must_be_json_within_the_limit)
{
    outcome_from_handler_result(&execution, strdup("{\"a\":1}"), 7, NULL, 100);
    cr_expect_eq(execution.status, EXECUTION_SUCCEEDED);
    cr_expect_str_eq(execution.result, "{\"a\":1}");
    outcome_from_handler_result(&execution, strdup("{\"a\":"), 5, NULL, 100);
    cr_expect_str_eq(execution.error.type, "Function.InvalidResult");
    outcome_from_handler_result(&execution, strdup("[1,2,3]"), 7, NULL, 5);
    cr_expect_str_eq(execution.error.type, "Function.ResultTooLarge");
}

static void expect_result(const char *body, size_t len, size_t max, const char *expected)
{
    char *copy = malloc(len + 1);
    memcpy(copy, body, len + 1);
    outcome_from_handler_result(&execution, copy, len, NULL, max);
    cr_expect_str_eq(execution.result ? execution.result : "none", expected);
    cr_expect_eq(execution.result_len, strlen(expected));
}

/* An adapter leaves them as they are: it does not look at each character of a large string. */
Test(outcome_execution, control_characters_in_a_handlers_strings_are_escaped)
{
    static const char all[] = "\"a\nb\tc\rd\be\ff\x01g\x1fh\0i\x7f\"";
    expect_result(all, sizeof(all) - 1, 100,
                  "\"a\\nb\\tc\\rd\\be\\ff\\u0001g\\u001fh\\u0000i\x7f\"");
    static const char around[] = "[\n\"\\\"\n\\\\\",\n{\"\t\":\n1}\n]\n";
    expect_result(around, sizeof(around) - 1, 100, "[\n\"\\\"\\n\\\\\",\n{\"\\t\":\n1}\n]\n");
}

Test(outcome_execution, what_is_escaped_must_be_json_within_the_limit_too)
{
    outcome_from_handler_result(&execution, strdup("\"\n\n\""), 4, NULL, 5);
    cr_expect_str_eq(execution.error.type, "Function.ResultTooLarge");
    outcome_from_handler_result(&execution, strdup("\"\n\n\""), 4, NULL, 6);
    cr_expect_eq(execution.status, EXECUTION_SUCCEEDED);
    static const char *const wrong[] = {"\"\n",     "[\"\n\"",  "\"\n\\",
                                        "\x01\"\"", "\"\\\n\"", "\"\n\"\""};
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        outcome_from_handler_result(&execution, strdup(wrong[i]), strlen(wrong[i]), NULL, 100);
        cr_expect_str_eq(execution.error.type, "Function.InvalidResult", "%zu", i);
    }
}

static int given_back;

static void give_back(void *data)
{
    (void)data;
    given_back++;
}

static struct blob *lend(const char *text)
{
    return blob_new_lent(text, strlen(text), give_back, NULL);
}

Test(outcome_execution, a_handlers_result_stays_where_it_lies_when_it_is_fine)
{
    static const char text[] = "[1, \"two\"]";
    outcome_from_handler_blob(&execution, lend(text), NULL, 100);
    cr_assert_eq(execution.status, EXECUTION_SUCCEEDED);
    cr_assert_eq(execution.result, text);
    cr_assert_eq(execution.result_len, strlen(text));
    cr_assert_eq(given_back, 0);
    outcome_from_handler_blob(&execution, lend("2"), NULL, 100);
    cr_assert_eq(*execution.result, '2');
    cr_assert_eq(given_back, 1, "the one before");
}

Test(outcome_execution, what_a_handler_has_to_escape_is_a_copy_and_its_place_is_given_back)
{
    outcome_from_handler_blob(&execution, lend("\"\t\""), NULL, 100);
    cr_assert_str_eq(execution.result, "\"\\t\"");
    cr_assert_eq(execution.result_len, 4);
    cr_assert_eq(given_back, 1);
    outcome_from_handler_blob(&execution, lend("{"), NULL, 100);
    cr_assert_str_eq(execution.error.type, "Function.InvalidResult");
    outcome_from_handler_blob(&execution, lend("[1,2,3]"), NULL, 5);
    cr_assert_str_eq(execution.error.type, "Function.ResultTooLarge");
    cr_assert_eq(given_back, 3);
}
