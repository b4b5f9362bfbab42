/* model/execution.h: an invocation's record as JSON, and reading what a worker says of one. */
#include "model/execution.h"

#include "base/cleanup.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#define autobuffer with_cleanup(buffer_deinit) struct buffer
#define autoexecution with_cleanup(execution_deinit) struct execution

static struct json *written(const struct execution *execution)
{
    autobuffer text = BUFFER_INIT(1 << 20);
    struct error err = {0};
    struct json_writer *writer = json_writer_new(&text);
    execution_write(writer, execution);
    cr_assert_eq(json_writer_finish(writer, &err), 0, "%s", err.message);
    struct json *root = json_parse(text.data, text.len, NULL, &err);
    cr_assert_not_null(root, "%s", err.message);
    return root;
}

Test(execution, status_names_are_the_contracts_and_read_back)
{
    static const char *const names[] = {"queued",    "running",       "succeeded", "failed",
                                        "timed_out", "out_of_memory", "lost",      "cancelled"};
    for (int i = 0; i < EXECUTION_STATUS_COUNT; i++) {
        enum execution_status status = EXECUTION_STATUS_COUNT;
        cr_assert_str_eq(execution_status_name((enum execution_status)i), names[i]);
        cr_assert_eq(execution_status_parse(names[i], &status, NULL), 0);
        cr_assert_eq((int)status, i);
        cr_assert_eq(execution_status_final(status), i >= EXECUTION_SUCCEEDED);
    }
    struct error err = {0};
    enum execution_status status;
    cr_assert_eq(execution_status_parse("done", &status, &err), -1);
    cr_assert_not_null(strstr(err.message, "status must be queued, running"), "%s", err.message);
}

Test(execution, a_finished_one_is_written_as_the_contract_has_it)
{
    autoexecution execution;
    execution_init(&execution);
    strcpy(execution.id, "0190a5b2-1111-7abc-8def-0123456789ab");
    execution.function = strdup("hello");
    execution.version = 3;
    execution.status = EXECUTION_SUCCEEDED;
    execution.result = strdup("{\"x\": [1]}");
    execution.result_len = 10;
    execution.logs = strdup("line\n\xFF");
    execution.logs_len = 6;
    execution.cold_start = true;
    execution.worker = strdup("host-1");
    execution.attempt = 1;
    execution.created_at_ns = 1769860800123000000;
    execution.metrics.duration = 1500000;
    execution.metrics.memory_peak = UINT64_MAX;

    autojson *root = written(&execution);
    cr_assert_str_eq(json_get_string(root, "id"), execution.id);
    cr_assert_str_eq(json_get_string(root, "function"), "hello");
    cr_assert_eq(json_get_int(root, "version", 0), 3);
    cr_assert_str_eq(json_get_string(root, "status"), "succeeded");
    cr_assert_eq(json_count(json_get(json_get(root, "result"), "x")), 1);
    cr_assert_null(json_get(root, "result_base64"));
    cr_assert_null(json_get(root, "error"));
    cr_assert_str_eq(json_get_string(root, "logs"), "line\n\xEF\xBF\xBD");
    cr_assert(json_get_bool(root, "cold_start", false));
    cr_assert_str_eq(json_get_string(root, "worker"), "host-1");
    cr_assert_eq(json_get_int(root, "attempt", 0), 1);
    cr_assert_str_eq(json_get_string(root, "created_at"), "2026-01-31T12:00:00.123Z");
    cr_assert_null(json_get(root, "finished_at"));
    const struct json *metrics = json_get(root, "metrics");
    cr_assert_eq(json_count(metrics), 7);
    cr_assert_eq(json_get_int(metrics, "duration", 0), 1500000);
    cr_assert_eq(json_get_int(metrics, "memory_peak", 0), INT64_MAX);
}

Test(execution, a_failed_one_tells_its_error)
{
    autoexecution execution;
    execution_init(&execution);
    execution.status = EXECUTION_FAILED;
    execution.has_error = true;
    execution.error.type = strdup("Function.ExitStatus");
    execution.error.message = strdup("it said \"no\"");
    execution.error.exit_code = 0;
    execution.error.stack = strdup("[\"a\",\"b\"]");
    execution.result_base64 = true;

    autojson *root = written(&execution);
    const struct json *error = json_get(root, "error");
    cr_assert_str_eq(json_get_string(error, "type"), "Function.ExitStatus");
    cr_assert_str_eq(json_get_string(error, "message"), "it said \"no\"");
    cr_assert_eq(json_get_int(error, "exit_code", -1), 0);
    cr_assert_null(json_get(error, "signal"));
    cr_assert_eq(json_count(json_get(error, "stack")), 2);
    cr_assert(json_get_bool(root, "result_base64", false));
}

Test(execution, only_the_last_4_kib_of_the_log_are_shown_from_a_whole_character)
{
    autoexecution execution;
    execution_init(&execution);
    execution.logs_len = 3 * 2000 + 1; /* so that the cut falls into a character */
    execution.logs = malloc(execution.logs_len);
    for (size_t i = 0; i < 2000; i++)
        memcpy(execution.logs + 3 * i, "\xE2\x82\xAC", 3);
    execution.logs[6000] = '.';
    autojson *root = written(&execution);
    size_t len;
    const char *logs = json_string(json_get(root, "logs"), &len);
    cr_assert_leq(len, EXECUTION_LOGS_SHOWN);
    cr_assert_gt(len, EXECUTION_LOGS_SHOWN - 3);
    cr_assert_eq(strncmp(logs, "\xE2\x82\xAC", 3), 0);
    cr_assert_null(strstr(logs, "\xEF\xBF\xBD"));
    cr_assert_eq(logs[len - 1], '.');
}

static int read_error(const char *text, size_t len, struct execution_error *error)
{
    struct json_limits limits = {.max_bytes = 16 << 20};
    autojson *value = json_parse(text, len, &limits, NULL);
    cr_assert_not_null(value);
    return execution_error_read(value, error, NULL);
}

static int read_error_text(const char *text, struct execution_error *error)
{
    return read_error(text, strlen(text), error);
}

Test(execution, errors_survive_a_round_trip)
{
    const char *text = "{\"type\":\"T\",\"message\":\"m\",\"exit_code\":3,\"signal\":\"SIGSEGV\","
                       "\"stack\":[\"a\\n\",\"b\"]}";
    autobuffer out = BUFFER_INIT(10000);
    with_cleanup(execution_error_deinit) struct execution_error error = {0};
    cr_assert_eq(read_error_text(text, &error), 0);
    struct json_writer *writer = json_writer_new(&out);
    execution_error_write(writer, &error);
    cr_assert_eq(json_writer_finish(writer, NULL), 0);
    cr_assert_str_eq(out.data, text);
}

Test(execution, an_odd_error_of_a_function_is_still_told)
{
    with_cleanup(execution_error_deinit) struct execution_error error = {0};
    cr_assert_eq(read_error_text("{\"type\":null,\"message\":\"a\\u0000b\",\"exit_code\":70000,"
                                 "\"extra\":{},\"stack\":[1,\"x\",null]}",
                                 &error),
                 0);
    cr_assert_null(error.type);
    cr_assert_str_eq(error.message, "a");
    cr_assert_eq(error.exit_code, -1);
    cr_assert_str_eq(error.stack, "[\"x\"]");
}

Test(execution, a_huge_error_is_cut_to_size)
{
    autobuffer text = BUFFER_INIT(16 << 20);
    with_cleanup(execution_error_deinit) struct execution_error error = {0};
    buffer_append_string(&text, "{\"message\":\"x", NULL);
    for (int i = 0; i < 500000; i++)
        buffer_append_string(&text, "\xC3\xA9", NULL);
    buffer_append_string(&text, "\",\"stack\":[\"\"", NULL);
    for (int i = 0; i < 3000; i++)
        buffer_printf(&text, NULL, ",\"%2000s\"", "\\u001b");
    buffer_append_string(&text, "]}", NULL);
    cr_assert_eq(read_error(text.data, text.len, &error), 0);
    cr_assert_leq(strlen(error.message), 16384);
    cr_assert(utf8_valid(error.message, strlen(error.message)));
    autojson *stack = json_parse(error.stack, strlen(error.stack), NULL, NULL);
    cr_assert_eq(json_count(stack), 100);
}

Test(execution, what_is_no_error_is_refused)
{
    static const char *const bad[] = {"[]",
                                      "\"x\"",
                                      "{\"type\":1}",
                                      "{\"message\":[]}",
                                      "{\"stack\":\"text\"}",
                                      "{\"message\":\"m\",\"signal\":1}"};
    for (size_t i = 0; i < ARRAY_LENGTH(bad); i++) {
        struct execution_error error = {0};
        cr_assert_eq(read_error_text(bad[i], &error), -1, "%s", bad[i]);
        cr_assert_null(error.message);
    }
}

static int read_metrics(const char *text, struct execution_metrics *metrics)
{
    autojson *value = json_parse(text, strlen(text), NULL, NULL);
    return execution_metrics_read(value, metrics, NULL);
}

Test(execution, metrics_not_given_stay_and_wrong_ones_are_refused)
{
    struct execution_metrics metrics = {.queue_time = 7};
    cr_assert_eq(
        read_metrics("{\"duration\":5,\"cpu_time\":9223372036854775807,\"new\":1}", &metrics), 0);
    cr_assert_eq(metrics.duration, 5);
    cr_assert_eq(metrics.cpu_time, INT64_MAX);
    cr_assert_eq(metrics.queue_time, 7);
    cr_assert_eq(read_metrics("{\"duration\":6,\"cpu_time\":-1}", &metrics), -1);
    cr_assert_eq(read_metrics("{\"duration\":\"6\"}", &metrics), -1);
    cr_assert_eq(read_metrics("[]", &metrics), -1);
    cr_assert_eq(metrics.duration, 5);
}
