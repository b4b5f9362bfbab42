/* stdout and stderr of an instance through real pipes, with the caps. */
#include "worker/output.h"

#include "base/cleanup.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define STDOUT_MAX 100000
#define LOG_MAX 8192

static uv_loop_t loop;
static struct output *output;
static int out = -1, log_fd = -1;
static int overflows;

static void on_overflow(void *data)
{
    (void)data;
    overflows++;
}

static void open_output(bool collect)
{
    int out_pipe[2], log_pipe[2];
    struct error err = {0};
    struct output_options options = {.collect_stdout = collect,
                                     .stdout_max = STDOUT_MAX,
                                     .log_max = LOG_MAX,
                                     .overflow = on_overflow};
    uv_loop_init(&loop);
    cr_assert_eq(pipe2(out_pipe, O_NONBLOCK), 0);
    cr_assert_eq(pipe2(log_pipe, O_NONBLOCK), 0);
    out = out_pipe[1];
    log_fd = log_pipe[1];
    output = output_new(&loop, out_pipe[0], log_pipe[0], &options, &err);
    cr_assert_not_null(output, "%s", err.message);
    output_begin(output);
}

static void tear_down(void)
{
    output_free(output);
    close(out);
    close(log_fd);
    uv_run(&loop, UV_RUN_DEFAULT);
    cr_expect_eq(uv_loop_close(&loop), 0);
}

TestSuite(output, .fini = tear_down);

static void say(int fd, const char *text)
{
    cr_assert_eq(write(fd, text, strlen(text)), (ssize_t)strlen(text));
}

static void say_much(int fd, char c, size_t len)
{
    char chunk[4096];
    memset(chunk, c, sizeof(chunk));
    while (len > 0) {
        size_t part = len < sizeof(chunk) ? len : sizeof(chunk);
        cr_assert_eq(write(fd, chunk, part), (ssize_t)part);
        len -= part;
        uv_run(&loop, UV_RUN_NOWAIT);
    }
}

static void expect_log(const char *text)
{
    size_t len;
    char *log = output_take_log(output, &len);
    cr_expect_str_eq(log, text);
    cr_expect_eq(len, strlen(text));
    free(log);
}

Test(output, stdout_is_collected_and_stderr_is_the_log)
{
    size_t len;
    open_output(true);
    say(out, "result");
    say(log_fd, "log\n");
    cr_expect_eq(output_drain(output), 0);
    cr_expect_str_eq(output_stdout(output, &len), "result");
    cr_expect_eq(len, 6);
    expect_log("log\n");
}

Test(output, a_handlers_stdout_and_stderr_are_the_log)
{
    size_t len;
    open_output(false);
    say(out, "one\n");
    output_drain(output);
    say(log_fd, "two\n");
    output_drain(output);
    cr_expect_str_eq(output_stdout(output, &len), "");
    expect_log("one\ntwo\n");
}

Test(output, each_invocation_begins_anew)
{
    size_t len;
    open_output(true);
    say(out, "first");
    output_drain(output);
    output_begin(output);
    say(out, "second");
    output_drain(output);
    cr_expect_str_eq(output_stdout(output, &len), "second");
}

Test(output, stdout_over_the_cap_is_told_once)
{
    open_output(true);
    say_much(out, 'x', STDOUT_MAX);
    cr_expect_eq(overflows, 0);
    say_much(out, 'x', 50000);
    cr_expect_eq(overflows, 1);
    cr_expect_eq(output_drain(output), -1);
    output_begin(output);
    cr_expect_eq(output_drain(output), 0);
}

Test(output, of_a_long_log_the_end_is_kept_with_a_marker)
{
    size_t len;
    open_output(true);
    say_much(log_fd, 'a', 100000);
    say(log_fd, "THE END");
    output_drain(output);
    char *log = output_take_log(output, &len);
    cr_expect_gt(len, LOG_MAX);
    cr_expect_lt(len, LOG_MAX + 100);
    cr_expect_eq(strncmp(log, "[... 91815 bytes of log before this were cut ...]\naaa", 52), 0,
                 "%.60s", log);
    cr_expect_str_eq(log + len - 8, "aTHE END");
    free(log);
    expect_log("");
}

Test(output, a_log_of_exactly_the_cap_is_whole)
{
    size_t len;
    open_output(true);
    say_much(log_fd, 'a', LOG_MAX);
    output_drain(output);
    char *log = output_take_log(output, &len);
    cr_expect_eq(len, LOG_MAX);
    free(log);
}

Test(output, live_pieces_follow_each_other)
{
    with_cleanup(buffer_deinit) struct buffer text = BUFFER_INIT(100000);
    uint64_t offset = 0;
    open_output(true);
    say(log_fd, "one ");
    output_drain(output);
    cr_assert_eq(log_tail_since(output_log(output), &offset, &text, NULL), 0);
    cr_expect_str_eq(text.data, "one ");
    say(log_fd, "two");
    output_drain(output);
    buffer_clear(&text);
    cr_assert_eq(log_tail_since(output_log(output), &offset, &text, NULL), 0);
    cr_expect_str_eq(text.data, "two");
    cr_expect_eq(offset, 7);
    say_much(log_fd, 'x', 20000);
    output_drain(output);
    buffer_clear(&text);
    cr_assert_eq(log_tail_since(output_log(output), &offset, &text, NULL), 0);
    cr_expect_eq(text.len, LOG_MAX, "what was cut is skipped");
    cr_expect_eq(offset, 20007);
}

Test(output, writers_that_close_are_no_trouble)
{
    size_t len;
    open_output(true);
    say(out, "last words");
    close(out);
    out = dup(log_fd);
    uv_run(&loop, UV_RUN_NOWAIT);
    cr_expect_eq(output_drain(output), 0);
    cr_expect_str_eq(output_stdout(output, &len), "last words");
}
