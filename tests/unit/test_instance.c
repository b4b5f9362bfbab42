/* The life of an instance: its table of states, and what it makes of what faas-init and adapters say. */
#include "worker/instance.h"

#include "worker_fixture.h"

static struct instance *instance;
static int started, ready, broken, gone;
static struct execution failure;
static char failure_type[64];
static enum instance_after after;
static int finished;

static void on_started(void *data, struct instance *which)
{
    (void)data;
    (void)which;
    started++;
}

static void on_ready(void *data, struct instance *which)
{
    (void)data;
    (void)which;
    ready++;
}

static void on_broken(void *data, struct instance *which, struct execution *why)
{
    (void)data;
    broken++;
    failure.status = why->status;
    snprintf(failure_type, sizeof(failure_type), "%s", why->error.type);
    instance_stop(which);
}

static void on_finished(void *data, struct instance *which, struct invocation *invocation,
                        enum instance_after how)
{
    (void)data;
    (void)which;
    (void)invocation;
    after = how;
    finished++;
}

static void on_gone(void *data, struct instance *which)
{
    (void)data;
    (void)which;
    gone++;
}

static struct function *function;

static void open_instance(bool handler)
{
    static const struct instance_events events = {.started = on_started,
                                                  .ready = on_ready,
                                                  .broken = on_broken,
                                                  .finished = on_finished,
                                                  .gone = on_gone};
    struct instance_limits limits = {
        .payload_max = 1000, .result_max = 1000, .log_max = 1000, .start_timeout_ms = 60000};
    struct error err = {0};
    fixture_open();
    function = fixture_function("alpha", 128);
    if (handler)
        function->spec.contract = CONTRACT_HANDLER;
    instance = instance_new(&loop, &fake_runtime, function, &limits, &events, NULL, &err);
    cr_assert_not_null(instance, "%s", err.message);
    cr_expect_eq(started, 0, "never from inside of the call");
    settle();
}

static void close_instance(void)
{
    if (instance_state(instance) < INSTANCE_STOPPING)
        instance_stop(instance);
    settle();
    cr_expect_eq(gone, 1);
    cr_expect_eq(instance_state(instance), INSTANCE_GONE);
    instance_free(instance);
    function_unref(function);
    fixture_close();
}

Test(instance, states_only_move_as_the_table_says)
{
    static const char allowed[INSTANCE_STATE_COUNT][INSTANCE_STATE_COUNT + 1] = {
        [INSTANCE_CREATING] = ".+.+..+.", [INSTANCE_WARM] = "..+...+.",
        [INSTANCE_LOADING] = "...+..+.",  [INSTANCE_IDLE] = "....+++.",
        [INSTANCE_FROZEN] = ".....++.",   [INSTANCE_BUSY] = "...+..+.",
        [INSTANCE_STOPPING] = ".......+", [INSTANCE_GONE] = "........",
    };
    for (int from = 0; from < INSTANCE_STATE_COUNT; from++) {
        for (int to = 0; to < INSTANCE_STATE_COUNT; to++)
            cr_expect_eq(
                instance_state_may_move((enum instance_state)from, (enum instance_state)to),
                allowed[from][to] == '+', "%s to %s",
                instance_state_name((enum instance_state)from),
                instance_state_name((enum instance_state)to));
    }
}

/* "`idle`, `stopping` |" */
static void list_moves(enum instance_state from, char *out, size_t size)
{
    size_t len = 0;
    out[0] = '\0';
    for (int to = 0; to < INSTANCE_STATE_COUNT; to++)
        if (instance_state_may_move(from, (enum instance_state)to))
            len += (size_t)snprintf(out + len, size - len, "%s`%s`", len ? ", " : "",
                                    instance_state_name((enum instance_state)to));
    snprintf(out + len, size - len, len ? " |" : "|");
}

Test(instance, the_documentation_has_the_table_of_states)
{
    struct error err = {0};
    with_cleanup(buffer_deinit) struct buffer text = BUFFER_INIT(1 << 20);
    cr_assert_eq(buffer_read_file(&text, TEST_SOURCE_DIR "/docs/container-execution.md", &err), 0,
                 "%s", err.message);
    for (int from = 0; from < INSTANCE_STATE_COUNT; from++) {
        char begin[64], moves[256];
        snprintf(begin, sizeof(begin), "\n| `%s` |",
                 instance_state_name((enum instance_state)from));
        list_moves((enum instance_state)from, moves, sizeof(moves));
        const char *line = strstr(text.data, begin);
        cr_assert_not_null(line, "no line for %s", begin + 1);
        const char *end = strchr(line + 1, '\n');
        cr_expect(end && (size_t)(end - line) > strlen(moves) &&
                      strncmp(end - strlen(moves), moves, strlen(moves)) == 0,
                  "%s should end with %s", begin + 1, moves);
    }
}

Test(instance, a_process_instance_is_ready_when_init_says_so)
{
    open_instance(false);
    cr_expect_eq(started, 1);
    cr_expect_eq(ready, 1);
    cr_expect_eq(instance_state(instance), INSTANCE_IDLE);
    close_instance();
}

Test(instance, a_handler_instance_is_ready_when_the_adapter_says_so)
{
    open_instance(true);
    cr_expect_eq(ready, 0);
    fake_say(&fakes[0], 1, FRAME_READY, 0, "");
    settle();
    cr_expect_eq(ready, 1);
    close_instance();
}

Test(instance, a_module_that_cannot_be_loaded_is_the_functions_failure)
{
    open_instance(true);
    fake_say(&fakes[0], 1, FRAME_ERROR, 0, "{\"type\": \"SyntaxError\", \"message\": \"no\"}");
    fake_say(&fakes[0], 0, FRAME_ADAPTER_EXIT, 1 << 8, "");
    settle();
    cr_expect_eq(broken, 1);
    cr_expect_eq(failure.status, EXECUTION_FAILED);
    cr_expect_str_eq(failure_type, "SyntaxError");
    close_instance();
}

Test(instance, an_adapter_that_ends_while_loading_is_told_by_its_status)
{
    open_instance(true);
    fake_say(&fakes[0], 0, FRAME_ADAPTER_EXIT, 9, "");
    settle();
    cr_expect_eq(broken, 1);
    cr_expect_str_eq(failure_type, "Function.Signal");
    close_instance();
}

Test(instance, a_result_before_it_was_asked_ends_it)
{
    open_instance(true);
    fake_say(&fakes[0], 1, FRAME_READY, 0, "");
    settle();
    fake_say(&fakes[0], 1, FRAME_RESULT, 0, "1");
    settle();
    cr_expect_eq(broken, 1);
    close_instance();
}

static struct invocation *run_invocation(void)
{
    char id[TIME_ID_LEN + 1];
    time_id(id);
    struct invocation *invocation = invocation_new(id, 1, "alpha", 1, NULL);
    invocation->timeout_ms = 60000;
    instance_run(instance, invocation);
    cr_expect_eq(finished, 0, "never from inside of the call");
    settle();
    return invocation;
}

Test(instance, a_handlers_result_that_came_before_its_end_counts)
{
    open_instance(true);
    fake_say(&fakes[0], 1, FRAME_READY, 0, "");
    settle();
    struct invocation *invocation = run_invocation();
    fake_say(&fakes[0], 1, FRAME_RESULT, 0, "{\"a\":1}");
    fake_say(&fakes[0], 0, FRAME_ADAPTER_EXIT, 0, "");
    settle();
    cr_expect_eq(finished, 1);
    cr_expect_eq(invocation->execution.status, EXECUTION_SUCCEEDED);
    cr_expect_str_eq(invocation->execution.result, "{\"a\":1}");
    invocation_free(invocation);
    close_instance();
}

Test(instance, a_result_over_the_limit_is_refused_by_its_length_alone)
{
    open_instance(true);
    fake_say(&fakes[0], 1, FRAME_READY, 0, "");
    settle();
    struct invocation *invocation = run_invocation();
    struct frame_header header = frame_header_make(FRAME_RESULT, 0, 0, 0, 1001);
    cr_assert_eq(write(fakes[0].fds[1], &header, sizeof(header)), (ssize_t)sizeof(header));
    settle();
    cr_expect_eq(finished, 1);
    cr_expect_eq(after, INSTANCE_SPENT);
    cr_expect_str_eq(invocation->execution.error.type, "Function.ResultTooLarge");
    invocation_free(invocation);
    close_instance();
}

Test(instance, garbage_from_a_function_ends_its_invocation_only)
{
    open_instance(true);
    fake_say(&fakes[0], 1, FRAME_READY, 0, "");
    settle();
    struct invocation *invocation = run_invocation();
    cr_assert_eq(write(fakes[0].fds[1],
                       "\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", 16),
                 16);
    fake_say(&fakes[0], 0, FRAME_ADAPTER_EXIT, 11, "");
    settle();
    cr_expect_eq(finished, 1);
    cr_expect_eq(after, INSTANCE_SPENT);
    cr_expect_eq(invocation->execution.status, EXECUTION_FAILED);
    invocation_free(invocation);
    close_instance();
}

Test(instance, an_instance_that_is_gone_before_it_has_the_payload_gives_it_back)
{
    open_instance(true);
    fake_say(&fakes[0], 1, FRAME_READY, 0, "");
    settle();
    close(fakes[0].fds[1]);
    fakes[0].fds[1] = -1;
    struct invocation *invocation = run_invocation();
    for (int i = 0; i < 1000 && !finished; i++)
        uv_run(&loop, UV_RUN_ONCE);
    cr_expect_eq(after, INSTANCE_RETRY);
    invocation_free(invocation);
    close_instance();
}
