/* What faas-init knows about the instance that it is the first process of, and its parts.
 *
 * faas-init is one thread with static buffers. It blocks every signal for good and reads
 * them from a signalfd, so nothing interrupts it. As PID 1 it owns every process of its PID
 * namespace; elsewhere (runtime `simple`) it is a child subreaper and owns its own descendants.
 *
 * It runs with the function's own uid. What protects it: it is not dumpable, so that nobody with
 * that uid may ptrace it or open its descriptors or memory; the kernel drops signals that would
 * kill PID 1; and SIGTERM is heeded only from outside of the namespace. */
#pragma once

#include "init/frame.h"

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

enum mode { MODE_EXEC, MODE_STANDBY, MODE_ZYGOTE, MODE_HANDLER, MODE_GENERIC };
/* The first four by name; -1: none of them. */
int mode_parse(const char *name, enum mode *ret_mode);

struct instance {
    /* from the command line; mode and argv anew from LOAD */
    enum mode mode;
    const char *code_dir;
    const char *run_dir;
    char **argv; /* NULL: a generic instance without a keeper */

    bool is_pid1;
    int run_fd;    /* RUN_DIR */
    int signal_fd; /* every signal */
    int oom_fd;    /* own oom_score_adj, opened while that was possible; -1: cannot be set */
    pid_t own_pid;
    char oom_score[16]; /* its value at the start */

    bool told_to_end;
    pid_t keeper; /* the zygote, the adapter, or what may become one; 0: none (any more) */
};

#define MESSAGE_MAX 512

/* ---- process.c: starts one program ---- */
struct program {
    char *const *argv;
    char *const *env;
    int stdin_fd, stdout_fd, stderr_fd;
    int socket_fd;   /* becomes descriptor 3; -1: none */
    int keeper_fd;   /* becomes descriptor 4; -1: none */
    bool subreaper;  /* its descendants' orphans come to it, not to faas-init */
    bool expendable; /* first to go when memory runs out */
    bool own_session;
};
/* The process id once it executes ARGV; -1 with `message` (MESSAGE_MAX bytes) when it cannot. */
pid_t program_start(struct instance *instance, const struct program *program, char *message);

/* ---- payload.c: the payload as file and environment ---- */
struct payload;
/* There is one payload at a time; it lives in static memory. */
/* `len` is what is announced: it decides whether the payload goes into the environment. */
struct payload *payload_begin(struct instance *instance, const char *execution_id, uint32_t len);
void payload_add(struct payload *payload, const uint8_t *bytes, size_t len);
/* Bytes added so far. */
size_t payload_len(const struct payload *payload);
/* -1 with `message` when the file could not be written. */
int payload_finish(struct payload *payload, char *message);
/* The payload file, open for reading; -1 with `message`. */
int payload_open(struct instance *instance, char *message);
/* The environment of one invocation: faas-init's own plus EXECUTION_ID, FUNCTION_PAYLOAD_FILE and,
 * when it fits, FUNCTION_PAYLOAD. Valid until the next payload_begin(). */
char *const *payload_environment(struct payload *payload);
/* What is the same for all invocations: for a zygote or adapter. Handlers get no
 * FUNCTION_PAYLOAD_FILE. */
char *const *payload_base_environment(struct instance *instance);
/* Removes the payload file. */
void payload_remove(struct instance *instance);
/* Empties RUN_DIR; -1 when something stays. */
int run_dir_clean(struct instance *instance);

/* ---- leftovers.c: ends what an invocation left running ---- */
/* Killed processes need the instance's CPU share to end, which may be small; only an uninterruptible sleep takes longer. */
#define CLEANUP_LIMIT_MS 5000
uint64_t now_ms(void); /* monotonic */
/* Kills and reaps every process but faas-init, the keeper too. 0 when none is left, -1 after a
 * bounded time of trying. */
int leftovers_end(struct instance *instance);
/* One round of SIGKILL for everything but faas-init and the keeper, which reaps them. */
void leftovers_kill(struct instance *instance);

/* ---- signals, in main.c ---- */
/* Empties the queue. True once faas-init was told to end by one of them: it is remembered. */
bool signals_take(struct instance *instance);

/* ---- the two ways of life; both return faas-init's exit status ---- */
int serve(struct instance *instance);      /* serve.c: frames from the worker, until it hangs up */
int standalone(struct instance *instance); /* standalone.c: one invocation, by hand */
