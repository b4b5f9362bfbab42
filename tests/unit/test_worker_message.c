/* Messages of workers: what is read from good ones, and that bad ones are refused. */
#include "controller/worker_message.h"

#include <criterion/criterion.h>
#include <string.h>

static struct worker_message out;
static struct error err;

static int read_message(const char *head, const char *body)
{
    struct message message = {
        .head = head, .head_len = strlen(head), .body = body, .body_len = strlen(body)};
    memset(&err, 0, sizeof(err));
    return worker_message_read(&message, &out, &err);
}

Test(worker_message, a_result_with_all_its_members)
{
    cr_assert_eq(read_message("{\"kind\":\"result\",\"execution_id\":\"e\",\"attempt\":2,"
                              "\"status\":\"failed\",\"cold_start\":true,\"result_base64\":true,"
                              "\"result_len\":4,\"logs_len\":3,\"logs_total\":100,"
                              "\"error\":{\"type\":\"E\",\"message\":\"m\",\"exit_code\":7},"
                              "\"metrics\":{\"duration\":5,\"memory_peak\":6}}",
                              "null"
                              "log"),
                 0, "%s", err.message);
    cr_expect_eq(out.kind, WORKER_MESSAGE_RESULT);
    cr_expect_str_eq(out.id, "e");
    cr_expect_eq(out.attempt, 2);
    cr_expect_eq(out.status, EXECUTION_FAILED);
    cr_expect(out.cold_start && out.result_base64 && out.has_error);
    cr_expect_str_eq(out.error.type, "E");
    cr_expect_eq(out.error.exit_code, 7);
    cr_expect_eq(out.metrics.duration, 5);
    cr_expect_eq(out.result_len, 4);
    cr_expect_arr_eq(out.result, "null", 4);
    cr_expect_arr_eq(out.logs, "log", 3);
    cr_expect_eq(out.logs_total, 100);
    worker_message_deinit(&out);
}

Test(worker_message, a_result_without_result_or_log)
{
    cr_assert_eq(
        read_message("{\"kind\":\"result\",\"execution_id\":\"e\",\"status\":\"timed_out\"}", ""),
        0);
    cr_expect_null(out.result);
    cr_expect_eq(out.logs_len, 0);
    cr_expect_eq(out.attempt, 1);
    worker_message_deinit(&out);
}

Test(worker_message, a_log_chunk_and_build_results)
{
    cr_assert_eq(read_message("{\"kind\":\"log\",\"execution_id\":\"e\",\"offset\":9}", "abc"), 0);
    cr_expect_eq(out.kind, WORKER_MESSAGE_LOG);
    cr_expect_eq(out.offset, 9);
    cr_expect_eq(out.bytes_len, 3);
    cr_assert_eq(
        read_message("{\"kind\":\"build_result\",\"build_id\":\"b\",\"ok\":true,\"output_len\":2}",
                     "outart"),
        0);
    cr_expect(out.ok);
    cr_expect_arr_eq(out.output, "ou", 2);
    cr_expect_eq(out.artifact_len, 4);
    cr_expect_arr_eq(out.artifact, "tart", 4);
    cr_assert_eq(
        read_message("{\"kind\":\"build_result\",\"build_id\":\"b\",\"ok\":false,\"output_len\":6}",
                     "failed"),
        0);
    cr_expect_eq(out.artifact_len, 0);
}

Test(worker_message, bad_ones_are_refused)
{
    static const struct {
        const char *head, *body;
    } bad[] = {
        {"", ""},
        {"{", ""},
        {"[]", ""},
        {"{}", ""},
        {"{\"kind\":\"dance\"}", ""},
        {"{\"kind\":7}", ""},
        {"{\"kind\":\"result\",\"status\":\"failed\"}", ""},
        {"{\"kind\":\"result\",\"execution_id\":\"\",\"status\":\"failed\"}", ""},
        {"{\"kind\":\"result\",\"execution_id\":\"0123456789012345678901234567890123456789\","
         "\"status\":\"failed\"}",
         ""},
        {"{\"kind\":\"result\",\"execution_id\":\"e\",\"status\":\"running\"}", ""},
        {"{\"kind\":\"result\",\"execution_id\":\"e\",\"status\":\"odd\"}", ""},
        {"{\"kind\":\"result\",\"execution_id\":\"e\",\"status\":\"failed\",\"result_len\":1}", ""},
        {"{\"kind\":\"result\",\"execution_id\":\"e\",\"status\":\"failed\",\"result_len\":-1}",
         "x"},
        {"{\"kind\":\"result\",\"execution_id\":\"e\",\"status\":\"failed\",\"result_len\":1,"
         "\"logs_len\":9223372036854775807}",
         "1x"},
        {"{\"kind\":\"result\",\"execution_id\":\"e\",\"status\":\"failed\"}", "unaccounted"},
        {"{\"kind\":\"result\",\"execution_id\":\"e\",\"status\":\"succeeded\",\"result_len\":4}",
         "nope"},
        {"{\"kind\":\"log\",\"offset\":1}", ""},
        {"{\"kind\":\"build_result\",\"ok\":true}", "x"},
        {"{\"kind\":\"build_result\",\"build_id\":\"b\",\"ok\":true}", ""},
        {"{\"kind\":\"build_result\",\"build_id\":\"b\",\"output_len\":3}", "x"},
    };
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        cr_expect_eq(read_message(bad[i].head, bad[i].body), -1, "%s", bad[i].head);
        cr_expect_neq(err.message[0], '\0');
    }
}
