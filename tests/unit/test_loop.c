/* Event-loop helpers: pool jobs, deferred calls, timers, signals, the end of a supervisor, times as text. */
#include "base/loop.h"

#include <criterion/criterion.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static uv_loop_t loop;
static char trace[256];

static void setup(void)
{
    trace[0] = '\0';
    cr_assert_eq(uv_loop_init(&loop), 0);
}

static void teardown(void)
{
    uv_run(&loop, UV_RUN_DEFAULT);
    cr_expect_eq(uv_loop_close(&loop), 0, "a handle is left in the loop");
}

TestSuite(loop, .init = setup, .fini = teardown, .timeout = 30);

static void note(void *data)
{
    strncat(trace, data, sizeof(trace) - strlen(trace) - 1);
}

static void note_thread(void *job)
{
    *(pthread_t *)job = pthread_self();
}

static void job_done(void *job)
{
    cr_expect(!pthread_equal(*(pthread_t *)job, pthread_self()), "the work ran on the loop thread");
    note((void *)"done");
}

Test(loop, pool_work_runs_elsewhere_and_its_end_is_told_on_the_loop_thread)
{
    pthread_t worker = pthread_self();
    cr_assert_eq(loop_work(&loop, note_thread, job_done, &worker, NULL), 0);
    cr_expect_str_eq(trace, "", "the callback came from inside the call");
    uv_run(&loop, UV_RUN_DEFAULT);
    cr_expect_str_eq(trace, "done");
}

Test(loop, a_deferred_call_comes_later_and_once)
{
    cr_assert_eq(loop_defer(&loop, note, (void *)"x", NULL), 0);
    cr_expect_str_eq(trace, "");
    uv_run(&loop, UV_RUN_DEFAULT);
    cr_expect_str_eq(trace, "x");
}

static int deferrals;

static void defer_again(void *data)
{
    if (++deferrals < 100)
        loop_defer(&loop, defer_again, data, NULL);
}

Test(loop, a_call_that_defers_itself_again_leaves_turns_to_others)
{
    loop_defer(&loop, defer_again, NULL, NULL);
    uv_run(&loop, UV_RUN_NOWAIT);
    cr_expect_leq(deferrals, 2);
    uv_run(&loop, UV_RUN_DEFAULT);
    cr_expect_eq(deferrals, 100);
}

static struct loop_timer *repeating;

static void note_three_times(void *data)
{
    note(data);
    if (strlen(trace) == 3)
        loop_timer_stop(repeating);
}

Test(loop, a_timer_may_stop_itself)
{
    repeating = loop_timer_start(&loop, 1, 1, note_three_times, (void *)"t", NULL);
    cr_assert_not_null(repeating);
    uv_run(&loop, UV_RUN_DEFAULT);
    cr_expect_str_eq(trace, "ttt");
}

Test(loop, a_stopped_timer_does_not_fire)
{
    loop_timer_stop(loop_timer_start(&loop, 0, 0, note, (void *)"never", NULL));
    loop_timer_stop(NULL);
    uv_run(&loop, UV_RUN_DEFAULT);
    cr_expect_str_eq(trace, "");
}

static struct loop_signals *signals;

static void on_signal(void *data, int number)
{
    note(data);
    cr_expect_eq(number, SIGTERM);
    loop_signals_stop(signals);
}

Test(loop, sigterm_is_told_on_the_loop)
{
    signals = loop_signals_start(&loop, on_signal, (void *)"term", NULL);
    cr_assert_not_null(signals);
    kill(getpid(), SIGTERM);
    uv_run(&loop, UV_RUN_DEFAULT);
    cr_expect_str_eq(trace, "term");
}

Test(loop, the_end_of_the_supervisor_counts_as_sigterm)
{
    int ends[2];
    char number[16];
    cr_assert_eq(pipe(ends), 0);
    snprintf(number, sizeof(number), "%d", ends[0]);
    setenv("FAAS_PARENT_FD", number, 1);
    signals = loop_signals_start(&loop, on_signal, (void *)"orphan", NULL);
    unsetenv("FAAS_PARENT_FD");
    uv_run(&loop, UV_RUN_NOWAIT);
    cr_expect_str_eq(trace, "", "the supervisor is still there");
    close(ends[1]);
    uv_run(&loop, UV_RUN_DEFAULT);
    cr_expect_str_eq(trace, "orphan");
    close(ends[0]);
}

Test(loop, times_are_written_as_rfc_3339)
{
    char text[25];
    clock_format_rfc3339(1769860800123456789ULL, text);
    cr_expect_str_eq(text, "2026-01-31T12:00:00.123Z");
    clock_format_rfc3339(1769860800999999999ULL, text); /* the same second */
    cr_expect_str_eq(text, "2026-01-31T12:00:00.999Z");
    clock_format_rfc3339(1769860801000000000ULL, text);
    cr_expect_str_eq(text, "2026-01-31T12:00:01.000Z");
    clock_format_rfc3339(0, text);
    cr_expect_str_eq(text, "1970-01-01T00:00:00.000Z");
}
