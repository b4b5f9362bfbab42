/* Messages of workers: what is read from good ones, and that bad ones are refused. */
#include "base/shared_memory.h"
#include "controller/worker_message.h"
#include "store/store.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct worker_message out;
static struct error err;

static int read_message(const char *head, const char *body)
{
    struct message_in in = {
        .message = {
            .head = head, .head_len = strlen(head), .body = body, .body_len = strlen(body)}};
    memset(&err, 0, sizeof(err));
    return worker_message_read(&in, &out, &err);
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

/* As told by a stream whose other end has put the body into memory of both; what is copied is freed. */
static int read_in_place(const char *head, const char *body, bool *ret_stays)
{
    struct shared_memory *memory = shared_memory_new(NULL);
    struct message_in in = {
        .message = {.head = head, .head_len = strlen(head), .body = body, .body_len = strlen(body)},
        .memory = memory};
    memset(&err, 0, sizeof(err));
    int status = worker_message_read(&in, &out, &err);
    cr_expect(!out.result || out.result == in.message.body);
    *ret_stays = in.message.body == body;
    cr_expect_eq(*ret_stays, in.memory != NULL);
    worker_message_deinit(&out);
    free(in.large);
    shared_memory_free(memory);
    return status;
}

/* The parser takes what a byte was for granted; only the first look does not. */
Test(worker_message,
     a_large_result_stays_where_the_worker_can_change_it_when_a_first_look_is_enough)
{
    static char body[STORE_LARGE_BYTES + 100];
    memset(body, ' ', STORE_LARGE_BYTES);
    static const struct {
        const char *text;
        int len, status;
        bool stays;
    } results[] = {{"\"text\"log", 6, 0, true},     {"[1, {\"a\": null}]log", 16, 0, true},
                   {"\"\\u0000\"log", 8, 0, false}, {"1e-400log", 6, 0, false},
                   {"\"text log", 6, -1, false},    {"\"\xff\xfe\"log", 4, -1, false}};
    for (size_t i = 0; i < sizeof(results) / sizeof(results[0]); i++) {
        char head[200];
        bool stays;
        snprintf(head, sizeof(head),
                 "{\"kind\":\"result\",\"execution_id\":\"e\",\"status\":\"succeeded\","
                 "\"result_len\":%zu,\"logs_len\":%d}",
                 STORE_LARGE_BYTES + (size_t)results[i].len,
                 (int)strlen(results[i].text) - results[i].len);
        strcpy(body + STORE_LARGE_BYTES, results[i].text);
        cr_expect_eq(read_in_place(head, body, &stays), results[i].status, "number %zu", i);
        cr_expect_eq(stays, results[i].stays, "number %zu", i);
    }
}

/* It will be copied, and then it has to be the copy that was checked. */
Test(worker_message, a_result_that_is_not_large_is_copied_before_it_is_checked)
{
    bool stays = true;
    cr_expect_eq(read_in_place("{\"kind\":\"result\",\"execution_id\":\"e\","
                               "\"status\":\"succeeded\",\"result_len\":6}",
                               "\"text\"", &stays),
                 0, "%s", err.message);
    cr_expect_not(stays);
}

Test(worker_message, what_is_no_result_is_copied_before_it_is_read)
{
    static const char *const heads[] = {
        "{\"kind\":\"state\"}", "{\"kind\":\"log\",\"execution_id\":\"e\"}",
        "{\"kind\":\"build_result\",\"build_id\":\"b\",\"ok\":true,\"output_len\":1}"};
    for (size_t i = 0; i < sizeof(heads) / sizeof(heads[0]); i++) {
        bool stays = true;
        cr_expect_eq(read_in_place(heads[i], "body", &stays), 0, "%s", err.message);
        cr_expect_not(stays, "%s", heads[i]);
    }
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
