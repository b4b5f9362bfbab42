/* Several invocations in one instance: whose answer is whose, and what becomes of the others. */
#include "worker/instance.h"

#include "worker_fixture.h"

#define PLACES 3
#define RESULT_MAX 1000

static struct instance *instance;
static struct function *function;
static struct invocation *calls[PLACES + 1];
static size_t call_count;
static struct invocation *ended[16];
static enum instance_after afters[16];
static size_t ended_count;
static bool gone;
static bool one_more; /* the next end makes room for another call, which comes at once */

static struct invocation *give(const char *payload, size_t payload_len);

static void on_any(void *data, struct instance *which)
{
    (void)data;
    (void)which;
}

static void on_broken(void *data, struct instance *which, struct execution *why)
{
    (void)data;
    (void)why;
    instance_stop(which);
}

static void on_finished(void *data, struct instance *which, struct invocation *invocation,
                        enum instance_after how)
{
    (void)data;
    (void)which;
    cr_expect_null(invocation->instance);
    ended[ended_count] = invocation;
    afters[ended_count++] = how;
    if (!one_more)
        return;
    one_more = false;
    give("{}", 2);
}

static void on_gone(void *data, struct instance *which)
{
    (void)data;
    (void)which;
    gone = true;
}

/* An instance whose adapter says that it takes `adapters` calls at once. */
static void open_instance(uint32_t adapters)
{
    static const struct instance_events events = {.started = on_any,
                                                  .ready = on_any,
                                                  .broken = on_broken,
                                                  .finished = on_finished,
                                                  .gone = on_gone};
    struct instance_limits limits = {.payload_max = 1 << 20,
                                     .result_max = RESULT_MAX,
                                     .log_max = 1000,
                                     .start_timeout_ms = 60000};
    struct error err = {0};
    fixture_open();
    function = fixture_function("alpha", 128);
    function->spec.contract = CONTRACT_HANDLER;
    function->spec.concurrency = PLACES;
    instance = instance_new(&loop, &fake_runtime, function, &limits, &events, NULL, &err);
    cr_assert_not_null(instance, "%s", err.message);
    settle();
    fake_say(&fakes[0], 1, FRAME_READY, adapters, "");
    settle();
    cr_assert_eq(instance_state(instance), INSTANCE_IDLE);
}

static void close_instance(void)
{
    if (instance_calls(instance) > 0)
        instance_abort_all(instance, EXECUTION_LOST, "Platform.Stopping", "the test is over");
    if (instance_state(instance) < INSTANCE_STOPPING)
        instance_stop(instance);
    settle();
    cr_expect(gone);
    for (size_t i = 0; i < call_count; i++)
        invocation_free(calls[i]);
    instance_free(instance);
    function_unref(function);
    fixture_close();
}

/* With the id "a", "b", …; the loop does not turn. */
static struct invocation *give(const char *payload, size_t payload_len)
{
    char id[] = {(char)('a' + call_count), '\0'};
    struct invocation *invocation = invocation_new(id, 1, "alpha", 1, NULL);
    invocation->timeout_ms = 60000;
    invocation->payload = malloc(payload_len + 1);
    memcpy(invocation->payload, payload, payload_len);
    invocation->payload_len = payload_len;
    calls[call_count++] = invocation;
    instance_run(instance, invocation);
    return invocation;
}

static struct invocation *run(const char *payload, size_t payload_len)
{
    struct invocation *invocation = give(payload, payload_len);
    settle();
    return invocation;
}

static void run_all(void)
{
    for (int i = 0; i < PLACES; i++)
        run("{}", 2);
    cr_assert_eq(instance_calls(instance), PLACES);
    cr_assert_eq(instance_free_places(instance), 0);
}

static void say(enum frame_type type, const char *id, const char *body)
{
    fake_say_of(&fakes[0], 1, type, 0, id, body);
    settle();
}

static void expect(size_t at, size_t which, enum execution_status status, enum instance_after after)
{
    cr_assert_gt(ended_count, at);
    cr_expect_eq(ended[at], calls[which]);
    cr_expect_eq(ended[at]->execution.status, status);
    cr_expect_eq(afters[at], after);
}

static void expect_error(size_t which, const char *type, const char *message)
{
    cr_expect_str_eq(calls[which]->execution.error.type, type);
    cr_expect_str_eq(calls[which]->execution.error.message, message);
}

Test(instance_run, answers_come_back_in_any_order_with_logs_of_their_own)
{
    open_instance(PLACES);
    run_all();
    say(FRAME_LOG, "a", "of a\n");
    say(FRAME_LOG, "b", "of b\n");
    say(FRAME_LOG, "a", "again\n");
    say(FRAME_RESULT, "c", "3");
    expect(0, 2, EXECUTION_SUCCEEDED, INSTANCE_USABLE);
    cr_expect_eq(instance_free_places(instance), 1);
    cr_expect_eq(instance_state(instance), INSTANCE_BUSY);
    say(FRAME_RESULT, "a", "1");
    say(FRAME_ERROR, "b", "{\"type\": \"E\", \"message\": \"m\"}");
    expect(1, 0, EXECUTION_SUCCEEDED, INSTANCE_USABLE);
    expect(2, 1, EXECUTION_FAILED, INSTANCE_USABLE);
    cr_expect_str_eq(calls[0]->execution.result, "1");
    cr_expect_str_eq(calls[0]->execution.logs, "of a\nagain\n");
    cr_expect_str_eq(calls[1]->execution.logs, "of b\n");
    cr_expect_str_eq(calls[2]->execution.logs, "");
    cr_expect_eq(instance_state(instance), INSTANCE_IDLE);
    close_instance();
}

Test(instance_run, what_comes_through_the_pipes_is_in_the_log_of_all_that_run)
{
    open_instance(PLACES);
    cr_assert_eq(write(fakes[0].fds[3], "loaded\n", 7), 7);
    settle();
    run("{}", 2);
    run("{}", 2);
    cr_assert_eq(write(fakes[0].fds[3], "somebody\n", 9), 9);
    settle();
    run("{}", 2);
    say(FRAME_RESULT, "c", "3");
    say(FRAME_RESULT, "b", "2");
    say(FRAME_RESULT, "a", "1");
    cr_expect_str_eq(calls[0]->execution.logs, "loaded\nsomebody\n");
    cr_expect_str_eq(calls[1]->execution.logs, "somebody\n");
    cr_expect_str_eq(calls[2]->execution.logs, "");
    close_instance();
}

Test(instance_run, an_adapter_that_does_not_say_how_many_it_takes_gets_one_at_a_time)
{
    open_instance(0);
    cr_expect_eq(instance_places(instance), 1);
    run("{}", 2);
    cr_expect_eq(instance_free_places(instance), 0);
    say(FRAME_RESULT, "", "1");
    expect(0, 0, EXECUTION_SUCCEEDED, INSTANCE_USABLE);
    cr_expect_eq(instance_free_places(instance), 1);
    close_instance();
}

Test(instance_run, an_adapter_cannot_ask_for_more_than_the_function_allows)
{
    open_instance(UINT32_MAX);
    cr_expect_eq(instance_places(instance), PLACES);
    close_instance();
}

Test(instance_run, one_that_is_given_up_lets_the_others_finish_and_its_late_answer_is_passed_over)
{
    open_instance(PLACES);
    run_all();
    instance_abort(calls[1], EXECUTION_TIMED_OUT, "Function.TimedOut", "too long");
    expect(0, 1, EXECUTION_TIMED_OUT, INSTANCE_SPENT);
    cr_expect_eq(instance_free_places(instance), 0, "it takes no more");
    say(FRAME_LOG, "b", "late\n");
    say(FRAME_RESULT, "b", "2");
    cr_expect_eq(ended_count, 1);
    say(FRAME_RESULT, "a", "1");
    expect(1, 0, EXECUTION_SUCCEEDED, INSTANCE_SPENT);
    cr_expect_eq(instance_calls(instance), 1);
    say(FRAME_RESULT, "c", "3");
    expect(2, 2, EXECUTION_SUCCEEDED, INSTANCE_SPENT);
    cr_expect_eq(instance_calls(instance), 0);
    close_instance();
}

Test(instance_run, the_end_of_the_adapter_is_told_to_each_of_them)
{
    open_instance(PLACES);
    run_all();
    say(FRAME_RESULT, "a", "1");
    fake_say(&fakes[0], 0, FRAME_ADAPTER_EXIT, 9 << 8, "");
    settle();
    cr_assert_eq(ended_count, 3);
    expect(0, 0, EXECUTION_SUCCEEDED, INSTANCE_USABLE);
    expect(1, 1, EXECUTION_FAILED, INSTANCE_SPENT);
    expect(2, 2, EXECUTION_FAILED, INSTANCE_SPENT);
    for (size_t i = 1; i < 3; i++) {
        cr_expect_eq(calls[i]->execution.error.exit_code, 9);
        cr_expect(strstr(calls[i]->execution.error.message, "(1 other call ran in the instance)"),
                  "%s", calls[i]->execution.error.message);
    }
    close_instance();
}

Test(instance_run, the_end_of_the_instance_is_told_to_each_of_them)
{
    open_instance(PLACES);
    run_all();
    fake_close(&fakes[0]);
    settle();
    for (size_t i = 0; i < PLACES; i++) {
        expect(i, i, EXECUTION_LOST, INSTANCE_SPENT);
        cr_expect(strstr(calls[i]->execution.error.message, "(2 other calls ran in the instance)"));
    }
    close_instance();
}

Test(instance_run, a_lack_of_memory_is_told_to_each_of_them)
{
    open_instance(PLACES);
    run_all();
    fake_oom_kills = 1;
    fake_say(&fakes[0], 0, FRAME_ADAPTER_EXIT, 9, "");
    settle();
    for (size_t i = 0; i < PLACES; i++)
        expect(i, i, EXECUTION_OUT_OF_MEMORY, INSTANCE_SPENT);
    close_instance();
}

Test(instance_run, an_answer_to_nobody_ends_them_all)
{
    open_instance(PLACES);
    run("{}", 2);
    run("{}", 2);
    say(FRAME_RESULT, "x", "1");
    cr_assert_eq(ended_count, 2);
    expect(0, 0, EXECUTION_FAILED, INSTANCE_SPENT);
    expect_error(1, "Function.ProtocolError",
                 "the instance sent what was not asked for (1 other call ran in the instance)");
    close_instance();
}

Test(instance_run, an_answer_without_a_name_is_to_the_only_one)
{
    open_instance(PLACES);
    run("{}", 2);
    say(FRAME_RESULT, "", "1");
    expect(0, 0, EXECUTION_SUCCEEDED, INSTANCE_USABLE);
    run("{}", 2);
    run("{}", 2);
    say(FRAME_RESULT, "", "1");
    expect(1, 1, EXECUTION_FAILED, INSTANCE_SPENT);
    close_instance();
}

Test(instance_run, a_result_over_the_limit_is_one_calls_failure)
{
    char large[RESULT_MAX + 2];
    memset(large, '1', sizeof(large) - 1);
    large[sizeof(large) - 1] = '\0';
    open_instance(PLACES);
    run_all();
    say(FRAME_RESULT, "b", large);
    expect(0, 1, EXECUTION_FAILED, INSTANCE_USABLE);
    expect_error(1, "Function.ResultTooLarge", "the result is larger than the limit of 1000 bytes");
    say(FRAME_LOG, "a", large);
    say(FRAME_RESULT, "a", "1");
    expect(1, 0, EXECUTION_SUCCEEDED, INSTANCE_USABLE);
    cr_expect_str_eq(calls[0]->execution.logs, "");
    close_instance();
}

Test(instance_run, an_answer_that_says_that_it_was_the_last_lets_no_other_call_in)
{
    open_instance(PLACES);
    run("{}", 2);
    struct frame_header header = frame_header_make(FRAME_ERROR, FRAME_FLAG_DIRTY, 0, 1, 2);
    cr_assert_eq(write(fakes[0].fds[1], &header, sizeof(header)), (ssize_t)sizeof(header));
    cr_assert_eq(write(fakes[0].fds[1], "a{}", 3), 3);
    settle();
    expect(0, 0, EXECUTION_FAILED, INSTANCE_SPENT);
    cr_expect_eq(instance_free_places(instance), 0);
    close_instance();
}

/* ---- payloads that the adapter does not read at once ---- */

#define LARGE (1 << 20)
#define HEAD (sizeof(struct frame_header) + 1)

/* All that there is to read, and how much of it is `kind`; what the worker has not sent yet comes as room is made for it. */
static size_t read_all_and_count(char kind, size_t *ret_count)
{
    static char bytes[64 * 1024];
    size_t got = 0;
    ssize_t part;
    *ret_count = 0;
    do {
        settle();
        part = recv(fakes[0].fds[1], bytes, sizeof(bytes), MSG_DONTWAIT);
        got += part > 0 ? (size_t)part : 0;
        for (ssize_t i = 0; i < part; i++)
            *ret_count += bytes[i] == kind;
    } while (part > 0);
    return got;
}

static size_t read_all(void)
{
    size_t count;
    return read_all_and_count('\0', &count);
}

static void run_large(void)
{
    static char payload[LARGE];
    memset(payload, ' ', sizeof(payload));
    run(payload, sizeof(payload));
}

Test(instance_run, invocations_are_sent_one_after_the_other)
{
    open_instance(PLACES);
    run_large();
    run_large();
    run_large();
    cr_expect_eq(read_all(), 3 * (HEAD + LARGE));
    say(FRAME_RESULT, "b", "2");
    say(FRAME_RESULT, "a", "1");
    say(FRAME_RESULT, "c", "3");
    for (size_t i = 0; i < PLACES; i++)
        cr_expect_eq(afters[i], INSTANCE_USABLE);
    close_instance();
}

Test(instance_run, one_that_is_given_up_before_it_was_sent_leaves_no_trace)
{
    open_instance(PLACES);
    run_large();
    run_large();
    instance_abort(calls[1], EXECUTION_CANCELLED, "Function.Cancelled", "enough");
    expect(0, 1, EXECUTION_CANCELLED, INSTANCE_USABLE);
    cr_expect_eq(read_all(), HEAD + LARGE);
    say(FRAME_RESULT, "a", "1");
    expect(1, 0, EXECUTION_SUCCEEDED, INSTANCE_USABLE);
    close_instance();
}

Test(instance_run, one_that_is_given_up_while_it_is_sent_does_not_break_the_next_ones_frame)
{
    open_instance(PLACES);
    run_large();
    run("{}", 2);
    instance_abort(calls[0], EXECUTION_TIMED_OUT, "Function.TimedOut", "too long");
    expect(0, 0, EXECUTION_TIMED_OUT, INSTANCE_SPENT);
    cr_expect_eq(read_all(), HEAD + LARGE + HEAD + 2);
    say(FRAME_RESULT, "b", "2");
    expect(1, 1, EXECUTION_SUCCEEDED, INSTANCE_SPENT);
    close_instance();
}

Test(instance_run, those_that_had_not_begun_when_the_adapter_ended_go_to_another_instance)
{
    open_instance(PLACES);
    run("{}", 2);
    run_large();
    run("{}", 2);
    fake_say(&fakes[0], 0, FRAME_ADAPTER_EXIT, 9 << 8, "");
    settle();
    expect(0, 0, EXECUTION_FAILED, INSTANCE_SPENT);
    expect(1, 1, EXECUTION_RUNNING, INSTANCE_RETRY);
    expect(2, 2, EXECUTION_RUNNING, INSTANCE_RETRY);
    cr_expect_not_null(calls[1]->payload);
    close_instance();
}

/* ---- payloads that are borrowed ---- */

static void end_adapter(void)
{
    close(fakes[0].fds[1]);
    fakes[0].fds[1] = -1;
}

static char lent[LARGE];

/* With what is lent gone as soon as instance_run() is back. */
static struct invocation *lend(size_t payload_len)
{
    char id[] = {(char)('a' + call_count), '\0'};
    struct invocation *invocation = invocation_new(id, 1, "alpha", 1, NULL);
    invocation->timeout_ms = 60000;
    invocation->payload = calloc(1, payload_len + 1);
    invocation->payload_at = lent;
    invocation->payload_len = payload_len;
    memset(lent, 'l', payload_len);
    calls[call_count++] = invocation;
    instance_run(instance, invocation);
    invocation_keep_payload(invocation);
    memset(lent, 'x', payload_len);
    return invocation;
}

/* How many bytes of what was sent are of what was lent, once nothing more comes. */
static size_t read_lent(void)
{
    size_t count;
    read_all_and_count('l', &count);
    return count;
}

Test(instance_run, a_small_payload_that_is_borrowed_is_sent_from_where_it_is)
{
    open_instance(PLACES);
    struct invocation *invocation = lend(1000);
    cr_expect_null(invocation->payload_at);
    cr_expect_eq(invocation->payload[0], '\0', "it was copied");
    cr_expect_eq(read_lent(), 1000);
    close_instance();
}

Test(instance_run, what_the_socket_does_not_take_at_once_of_a_borrowed_payload_is_kept)
{
    open_instance(PLACES);
    lend(LARGE);
    lend(LARGE);
    cr_expect_eq(read_lent(), 2 * LARGE);
    close_instance();
}

Test(instance_run, a_borrowed_payload_is_kept_for_another_instance)
{
    open_instance(PLACES);
    run("{}", 2);
    end_adapter();
    struct invocation *invocation = lend(1000);
    settle();
    cr_expect_eq(strspn(invocation->payload, "l"), 1000);
    fake_say(&fakes[0], 0, FRAME_ADAPTER_EXIT, 9 << 8, "");
    settle();
    expect(0, 1, EXECUTION_RUNNING, INSTANCE_RETRY);
    close_instance();
}

/* ---- adapters that are dead already, which nobody has seen yet ---- */

Test(instance_run, one_that_runs_does_not_begin_again_when_a_later_one_cannot_be_sent)
{
    open_instance(PLACES);
    run("{}", 2);
    end_adapter();
    give("{}", 2);
    fake_say(&fakes[0], 0, FRAME_ADAPTER_EXIT, 9 << 8, "");
    settle();
    expect(0, 1, EXECUTION_RUNNING, INSTANCE_RETRY);
    expect(1, 0, EXECUTION_FAILED, INSTANCE_SPENT);
    cr_expect_eq(calls[0]->execution.error.exit_code, 9);
    close_instance();
}

Test(instance_run, one_that_could_not_be_sent_goes_to_another_instance_when_the_end_is_seen_first)
{
    open_instance(PLACES);
    run("{}", 2);
    one_more = true;
    fake_say_of(&fakes[0], 1, FRAME_RESULT, 0, "a", "1");
    end_adapter();
    fake_say(&fakes[0], 0, FRAME_ADAPTER_EXIT, 9 << 8, "");
    settle();
    expect(0, 0, EXECUTION_SUCCEEDED, INSTANCE_USABLE);
    expect(1, 1, EXECUTION_RUNNING, INSTANCE_RETRY);
    close_instance();
}

Test(instance_run, one_that_could_not_be_sent_and_is_cancelled_is_over_once)
{
    open_instance(PLACES);
    run("{}", 2);
    end_adapter();
    give("{}", 2);
    instance_abort(calls[1], EXECUTION_CANCELLED, "Function.Cancelled", "enough");
    settle();
    expect(0, 1, EXECUTION_CANCELLED, INSTANCE_SPENT);
    cr_expect_eq(ended_count, 1);
    cr_expect_eq(instance_calls(instance), 1);
    close_instance();
}

Test(instance_run, what_a_call_used_is_its_own_with_and_without_a_pause_before_it)
{
    open_instance(1);
    fake_cpu_ns = 100;
    run("{}", 2);
    fake_cpu_ns = 400;
    one_more = true; /* the second one begins where the first one ends */
    say(FRAME_RESULT, "", "1");
    fake_cpu_ns = 900;
    say(FRAME_RESULT, "", "2");
    fake_cpu_ns = 5000; /* by what the function left running */
    run("{}", 2);
    fake_cpu_ns = 5010;
    say(FRAME_RESULT, "", "3");
    cr_assert_eq(ended_count, 3);
    cr_expect_eq(ended[0]->execution.metrics.cpu_time, 300);
    cr_expect_eq(ended[1]->execution.metrics.cpu_time, 500);
    cr_expect_eq(ended[2]->execution.metrics.cpu_time, 10);
    close_instance();
}
