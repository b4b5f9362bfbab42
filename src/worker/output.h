/* What an instance writes to stdout and stderr: read from its two pipes, kept within caps.
 *
 * For contract `process` stdout is collected whole (it becomes the result) up to a cap, and stderr
 * is the log. For `handler` both are the log. Of a log the last `log_max` bytes are kept, with a
 * marker line where it was cut.
 *
 * output_begin() starts a new invocation's record; output_drain() reads what is in the pipes now
 * and nothing that comes later; then the texts are taken. Loop thread only. */
#pragma once

#include "worker/log_tail.h"

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

struct output;

struct output_options {
    bool collect_stdout; /* contract process */
    size_t stdout_max;
    size_t log_max;
    /* stdout went over its cap; called at most once an invocation. May free the output. */
    void (*overflow)(void *data);
    /* Log text that has come, when it is not the only running invocation's; false: it is, and is kept here. May be NULL. */
    bool (*shared)(void *data, const char *text, size_t len);
    void *data;
};

/* Takes both descriptors, also on failure. */
struct output *output_new(uv_loop_t *loop, int stdout_fd, int stderr_fd,
                          const struct output_options *options, struct error *err);
void output_free(struct output *output);
/* Whether stdout is collected from now on, where it was not known at first. */
void output_collect_stdout(struct output *output, bool collect);
/* A new invocation: stdout is emptied. Log text that came since the last one is kept: it belongs to
 * this one. */
void output_begin(struct output *output);
/* Reads what the pipes hold at this moment. -1 when stdout went over its cap (overflow() is not
 * called). */
int output_drain(struct output *output);
const char *output_stdout(const struct output *output, size_t *ret_len);
/* The log so far: borrowed, the output's. */
struct log_tail *output_log(struct output *output);
/* The same (tail, with the marker when cut), which becomes the caller's; the log is empty
 * afterwards, and what output_stdout() gave is no longer valid. */
char *output_take_log(struct output *output, size_t *ret_len);
