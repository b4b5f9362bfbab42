/* Starting processes: what a child gets, how its end is told, what happens when it cannot start or does not end. */
#include "base/loop.h"
#include "base/spawn.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#define NICEST 19

TestSuite(spawn, .timeout = 60);

static struct spawn_result run(struct spawn_options options)
{
    struct spawn_result result;
    struct error err = {0};
    cr_assert_eq(spawn_run(&options, &result, &err), 0, "%s", err.message);
    return result;
}

Test(spawn, a_child_has_no_descriptor_but_those_named)
{
    const char *const argv[] = {"sh", "-c", "ls /proc/$$/fd; :", NULL};
    int leaked = open("/dev/null", O_RDONLY); /* not CLOEXEC, on purpose */
    cr_assert_geq(leaked, 3);
    struct spawn_result result = run((struct spawn_options){.argv = argv, .output_max = 100});
    cr_expect_str_eq(result.output, "0\n1\n2\n");
    spawn_result_deinit(&result);
    close(leaked);
}

/* Sources and targets share numbers here: whatever order the child's are made in, some would overwrite others. */
Test(spawn, named_descriptors_get_their_numbers_even_when_they_are_in_each_others_way)
{
    int a[2], b[2];
    char got[64] = "";
    cr_assert_eq(pipe(a), 0);
    cr_assert_eq(pipe(b), 0);
    const int fds[] = {b[1], a[1], b[1], a[1], b[1], a[1], b[1], a[1], b[1], a[1], b[1], a[1]};
    cr_assert_leq(b[1], 14, "the sources are not among the targets 3 to 14");
    const char *const argv[] = {
        "bash", "-c",
        "for i in {3..14}; do echo $i >&$i; done; cd /proc/$$/fd; echo $(ls | sort -n)", NULL};
    struct spawn_result result =
        run((struct spawn_options){.argv = argv, .output_max = 100, .fds = fds, .fd_count = 12});
    cr_expect_eq(strncmp(result.output, "0 1 2 3 4 5 6 7 8 9 10 11 12 13 14", 34), 0, "%s",
                 result.output);
    cr_expect_eq(read(b[0], got, 60), 14);
    cr_expect_str_eq(got, "3\n5\n7\n9\n11\n13\n");
    memset(got, 0, sizeof(got));
    cr_expect_eq(read(a[0], got, 60), 15);
    cr_expect_str_eq(got, "4\n6\n8\n10\n12\n14\n");
    spawn_result_deinit(&result);
}

static void forget_result(void *data, const struct spawn_result *result)
{
    (void)data;
    (void)result;
}

struct ending {
    struct spawn *spawn;
    pid_t pid;
    bool there;
};

static void look_whether_it_is_there(void *data, const struct spawn_result *result)
{
    struct ending *ending = data;
    ending->there = WIFSIGNALED(result->wait_status) && WTERMSIG(result->wait_status) == SIGTERM &&
                    kill(ending->pid, 0) == 0;
}

/* Its number is nobody else's while somebody is told of its end. */
Test(spawn, a_child_is_reaped_after_its_end_was_told)
{
    uv_loop_t *loop = uv_default_loop();
    struct error err = {0};
    struct ending ending = {0};
    struct spawn_options options = {.argv = (const char *const[]){"sleep", "600", NULL}};
    ending.spawn = spawn_start(loop, &options, look_whether_it_is_there, &ending, &err);
    cr_assert_not_null(ending.spawn, "%s", err.message);
    ending.pid = spawn_pid(ending.spawn);
    spawn_kill(ending.spawn, SIGTERM);
    uv_run(loop, UV_RUN_DEFAULT);
    cr_expect(ending.there);
    cr_expect_eq(kill(ending.pid, 0), -1);
}

/* A program that lives until it is told to end. */
struct waiting {
    pid_t pid;
    int ends[2];
};

static struct waiting start_waiting(struct spawn_options options)
{
    struct waiting waiting;
    struct error err = {0};
    cr_assert_eq(pipe2(waiting.ends, O_CLOEXEC), 0);
    options.argv = (const char *const[]){"sh", "-c", "read word <&3", NULL};
    options.fds = waiting.ends;
    options.fd_count = 1;
    struct spawn *spawn = spawn_start(uv_default_loop(), &options, forget_result, NULL, &err);
    cr_assert_not_null(spawn, "%s", err.message);
    waiting.pid = spawn_pid(spawn);
    return waiting;
}

static void end_waiting(const struct waiting *waiting)
{
    close(waiting->ends[0]);
    close(waiting->ends[1]);
    uv_run(uv_default_loop(), UV_RUN_DEFAULT);
}

Test(spawn, what_nobody_waits_for_is_behind_what_somebody_does)
{
    int own = getpriority(PRIO_PROCESS, 0);
    for (int background = 0; background < 2; background++) {
        struct waiting waiting = start_waiting((struct spawn_options){.background = background});
        int wanted = own + background * SPAWN_BACKGROUND_NICE;
        cr_expect_eq(getpriority(PRIO_PROCESS, (id_t)waiting.pid),
                     wanted < NICEST ? wanted : NICEST);
        end_waiting(&waiting);
    }
}

static void expect_session(pid_t pid, bool nicer)
{
    char path[64], said[64] = "", wanted[16];

    snprintf(path, sizeof(path), "/proc/%d/autogroup", (int)pid);
    FILE *file = fopen(path, "re");
    if (!file)
        return; /* a kernel without such groups */
    cr_assert_not_null(fgets(said, sizeof(said), file));
    fclose(file);
    snprintf(wanted, sizeof(wanted), "nice %d\n", SPAWN_BACKGROUND_NICE);
    if (strncmp(said, "/autogroup-", strlen("/autogroup-")) == 0)
        cr_expect_eq(strstr(said, wanted) != NULL, nicer, "%s", said);
    cr_expect_eq(getsid(pid) == pid, nicer);
}

Test(spawn, nor_does_its_session_take_as_much_as_another)
{
    for (int i = 0; i < 3; i++) {
        struct waiting waiting = start_waiting(
            (struct spawn_options){.background = i == 1, .background_session = i == 2});
        expect_session(waiting.pid, i > 0);
        if (i == 2)
            cr_expect_eq(getpriority(PRIO_PROCESS, (id_t)waiting.pid),
                         getpriority(PRIO_PROCESS, 0));
        end_waiting(&waiting);
    }
}

Test(spawn, the_environment_is_exactly_the_one_given)
{
    setenv("LEAKED", "secret", 1);
    const char *const argv[] = {"/usr/bin/env", NULL};
    const char *const environment[] = {"A=1", NULL};
    struct spawn_result result =
        run((struct spawn_options){.argv = argv, .environment = environment, .output_max = 1000});
    cr_expect_str_eq(result.output, "A=1\n");
    spawn_result_deinit(&result);
}

Test(spawn, blocked_and_ignored_signals_are_not_inherited)
{
    sigset_t all;
    sigfillset(&all);
    sigprocmask(SIG_BLOCK, &all, NULL);
    signal(SIGPIPE, SIG_IGN);
    const char *const argv[] = {"grep", "SigBlk", "/proc/self/status", NULL};
    struct spawn_result result = run((struct spawn_options){.argv = argv, .output_max = 1000});
    cr_expect_str_eq(result.output, "SigBlk:\t0000000000000000\n");
    spawn_result_deinit(&result);
    /* With SIGPIPE ignored, yes would see EPIPE and say so instead of dying of the signal. */
    const char *const pipe_argv[] = {"bash", "-c", "yes | head -n 1; echo ${PIPESTATUS[0]}", NULL};
    result = run((struct spawn_options){.argv = pipe_argv, .output_max = 1000});
    cr_expect_str_eq(result.output, "y\n141\n");
    spawn_result_deinit(&result);
}

Test(spawn, input_reaches_stdin)
{
    const char *const argv[] = {"cat", NULL};
    struct spawn_result result = run((struct spawn_options){
        .argv = argv, .input = "in\0put", .input_len = 6, .output_max = 100});
    cr_expect_eq(result.output_len, 6);
    cr_expect_arr_eq(result.output, "in\0put", 6);
    spawn_result_deinit(&result);
}

Test(spawn, output_keeps_its_beginning_and_errors_keep_their_end)
{
    const char *const argv[] = {"sh", "-c", "seq 1 100000; seq 1 100000 >&2", NULL};
    struct spawn_result result = run((struct spawn_options){.argv = argv, .output_max = 10});
    cr_expect_str_eq(result.output, "1\n2\n3\n4\n5\n");
    cr_expect_str_eq(result.errors, "99\n100000\n");
    spawn_result_deinit(&result);
}

Test(spawn, a_missing_program_is_not_found)
{
    const char *const argv[] = {"/nonexistent/program", NULL};
    struct spawn_result result;
    struct error err = {0};
    cr_expect_eq(spawn_run(&(struct spawn_options){.argv = argv}, &result, &err), -1);
    cr_expect_eq(err.code, ERROR_NOT_FOUND);
    cr_expect_not_null(strstr(err.message, "/nonexistent/program"));
}

Test(spawn, a_missing_directory_is_not_taken_for_a_missing_program)
{
    const char *const argv[] = {"true", NULL};
    struct spawn_result result;
    struct error err = {0};
    cr_expect_eq(spawn_run(&(struct spawn_options){.argv = argv, .directory = "/nonexistent"},
                           &result, &err),
                 -1);
    cr_expect_not_null(strstr(err.message, "/nonexistent"), "%s", err.message);
}

Test(spawn, a_failure_is_seen_even_when_this_program_was_started_with_sigchld_ignored)
{
    signal(SIGCHLD, SIG_IGN);
    const char *const argv[] = {"false", NULL};
    struct spawn_result result = run((struct spawn_options){.argv = argv});
    cr_expect(WIFEXITED(result.wait_status));
    cr_expect_eq(WEXITSTATUS(result.wait_status), 1);
    spawn_result_deinit(&result);
}

Test(spawn, past_its_deadline_a_child_is_killed)
{
    const char *const argv[] = {"sleep", "1000", NULL};
    struct spawn_result result = run((struct spawn_options){.argv = argv, .timeout_ms = 50});
    struct error err = {0};
    cr_expect(result.timed_out);
    cr_expect(WIFSIGNALED(result.wait_status));
    cr_expect_eq(spawn_result_check(&result, "sleep", &err), -1);
    cr_expect_eq(err.code, ERROR_TIMED_OUT);
    spawn_result_deinit(&result);
}

Test(spawn, a_failure_is_told_with_the_last_line_of_stderr)
{
    const char *const argv[] = {"sh", "-c", "echo first >&2; echo last words >&2; exit 7", NULL};
    struct spawn_result result = run((struct spawn_options){.argv = argv, .output_max = 100});
    struct error err = {0};
    cr_expect_eq(spawn_result_check(&result, "tool", &err), -1);
    cr_expect_str_eq(err.message, "tool ended with status 7: last words");
    spawn_result_deinit(&result);
}

/* ---- on a loop ---- */

struct outcome {
    int calls, wait_status;
    bool timed_out;
    char output[64];
};

static void ended(void *data, const struct spawn_result *result)
{
    struct outcome *outcome = data;
    outcome->calls++;
    outcome->wait_status = result->wait_status;
    outcome->timed_out = result->timed_out;
    strncpy(outcome->output, result->output, sizeof(outcome->output) - 1);
}

Test(spawn, the_end_is_the_exit_and_not_the_end_of_the_pipe)
{
    uv_loop_t loop;
    uv_loop_init(&loop);
    struct outcome outcome = {0};
    const char *const argv[] = {"sh", "-c", "sleep 1000 & echo $!", NULL};
    cr_assert_not_null(spawn_start(&loop, &(struct spawn_options){.argv = argv, .output_max = 60},
                                   ended, &outcome, NULL));
    uv_run(&loop, UV_RUN_DEFAULT);
    cr_expect_eq(outcome.calls, 1);
    cr_expect_eq(outcome.wait_status, 0);
    pid_t grandchild = atoi(outcome.output);
    cr_assert_gt(grandchild, 1);
    cr_expect_eq(kill(grandchild, 0), 0, "the grandchild holds the pipe and must still be there");
    kill(grandchild, SIGKILL);
    loop_close(&loop);
}

Test(spawn, many_children_end_once_each_and_leave_no_zombie)
{
    uv_loop_t loop;
    uv_loop_init(&loop);
    struct outcome outcomes[20] = {{0}};
    const char *const argv[] = {"true", NULL};
    for (size_t i = 0; i < 20; i++)
        cr_assert_not_null(spawn_start(&loop,
                                       &(struct spawn_options){.argv = argv, .output_max = 10},
                                       ended, &outcomes[i], NULL));
    uv_run(&loop, UV_RUN_DEFAULT);
    for (size_t i = 0; i < 20; i++)
        cr_expect_eq(outcomes[i].calls, 1);
    cr_expect_eq(waitpid(-1, NULL, WNOHANG), -1, "a child was not reaped");
    loop_close(&loop);
}

Test(spawn, a_deadline_holds_on_the_loop_and_a_signal_reaches_the_child)
{
    uv_loop_t loop;
    uv_loop_init(&loop);
    struct outcome late = {0}, killed = {0};
    const char *const argv[] = {"sleep", "1000", NULL};
    cr_assert_not_null(spawn_start(&loop, &(struct spawn_options){.argv = argv, .timeout_ms = 20},
                                   ended, &late, NULL));
    struct spawn *other =
        spawn_start(&loop, &(struct spawn_options){.argv = argv}, ended, &killed, NULL);
    cr_assert_not_null(other);
    spawn_kill(other, SIGTERM);
    uv_run(&loop, UV_RUN_DEFAULT);
    cr_expect(late.timed_out);
    cr_expect(!killed.timed_out);
    cr_expect_eq(WTERMSIG(killed.wait_status), SIGTERM);
    loop_close(&loop);
}
