/* The one place that starts processes.
 *
 * The child gets exactly the argv, environment and descriptors that are named here and nothing
 * else: default signal dispositions, empty signal mask, descriptors 0 to 2 as said, `fds[i]` as
 * 3+i, everything above closed. A pidfd tells of its end, so it is reaped exactly once, and its end
 * is its exit, never the end of its pipes (a container's processes inherit them from the OCI
 * runtime). Past its deadline it gets SIGKILL.
 *
 * spawn_start() is asynchronous on a libuv loop; spawn_run() blocks, for command-line programs and
 * thread-pool jobs. */
#pragma once

#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <uv.h>

#define SPAWN_BACKGROUND_NICE 10

struct spawn_options {
    const char *const
        *argv; /* NULL-terminated; argv[0] is looked up in PATH when it has no slash */
    const char *const *environment; /* NULL-terminated; NULL: PATH only */
    const char *directory;          /* NULL: this process's */
    const char *input;              /* bytes for its stdin (at most 1 MiB); NULL: /dev/null */
    size_t input_len;
    const int *fds; /* become 3, 4, …; borrowed, CLOEXEC or not */
    size_t fd_count;
    uint64_t timeout_ms; /* 0: none */
    size_t output_max; /* bytes kept of stdout and of stderr each: the first of stdout, the last of
                          stderr; 0: /dev/null */
    bool inherit_output; /* stdout and stderr are this process's own (output_max is then ignored) */
    bool new_process_group; /* signals from a terminal do not reach it */
    bool background; /* nobody waits for it: nicer by SPAWN_BACKGROUND_NICE, and so is all that it
                        starts */
    bool
        background_session; /* nobody waits for it, but for what it starts: in a session of its own that is nicer, where the
                                kernel groups by session (sched(7), autogroup); what leaves that for a cgroup is not */
};

struct spawn_result {
    int wait_status; /* as from waitpid(2) */
    bool timed_out;
    char *output; /* stdout; owned by the result, NUL-terminated, never NULL */
    size_t output_len;
    char *errors; /* stderr, likewise */
    size_t errors_len;
};

struct spawn; /* a running child */

/* Called once on the loop thread after the child has ended; `result` is valid during the call only.
 * The child is reaped a moment later, on a pool thread: the loop has to run until then. */
typedef void spawn_done_fn(void *data, const struct spawn_result *result);

/* NULL when it could not be started (program not found: ERROR_NOT_FOUND); `done` is then never
 * called. The returned handle is borrowed and valid until `done` returns. */
struct spawn *spawn_start(uv_loop_t *loop, const struct spawn_options *options, spawn_done_fn *done,
                          void *data, struct error *err);
void spawn_kill(struct spawn *spawn, int signal);
pid_t spawn_pid(const struct spawn *spawn);

int spawn_run(const struct spawn_options *options, struct spawn_result *ret_result,
              struct error *err);
void spawn_result_deinit(struct spawn_result *result);
/* 0 for exit status 0. Otherwise an error with the program's name, how it ended, and the last line
 * of its stderr. */
int spawn_result_check(const struct spawn_result *result, const char *program, struct error *err);
