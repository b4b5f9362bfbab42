/* Drives an OCI runtime: runc, or any program with runc's command line.
 *
 * Every verb is one process of the runtime, with a deadline. oci_runtime_start() is asynchronous on
 * a libuv loop, oci_runtime_call() blocks (command-line programs, start-up and clean-up). Both take
 * the same `struct oci_call` and give the same `struct oci_outcome`.
 *
 *     struct oci_call call = {.verb = OCI_RUN, .id = id, .bundle = dir, .fds = fds, .fd_count = 4};
 *     oci_runtime_start(&runtime, loop, &call, on_started, instance, err);
 *
 * An error carries the runtime's own last words (its log, JSON lines, read through a memfd that
 * needs no cleaning up). ERROR_NOT_FOUND: no such container, or (kill) none of its processes runs;
 * ERROR_CONFLICT: the id is taken; ERROR_TIMED_OUT: past the deadline, the runtime was killed and
 * the container must be deleted with `force`; ERROR_UNAVAILABLE otherwise.
 *
 * What the runtime prints is taken as hostile: size, depth, names and numbers are checked. */
#pragma once

#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <uv.h>

#define OCI_ID_MAX 128
/* Most containers that one `list` can tell of. */
#define OCI_LIST_MAX 16384

struct oci_runtime {
    char *path; /* owned: the program, resolved to an absolute path */
    char *root; /* owned: where it keeps its containers' state (its --root) */
};

/* Finds the program (in PATH when `path` has no slash) and makes `root` (mode 0700). */
int oci_runtime_init(struct oci_runtime *runtime, const char *path, const char *root,
                     struct error *err);
void oci_runtime_deinit(struct oci_runtime *runtime);

enum oci_verb {
    OCI_CREATE, /* id, bundle, fds */
    OCI_RUN,    /* id, bundle, fds; detached: done when the container's process has been started */
    OCI_START,  /* id */
    OCI_STATE,  /* id */
    OCI_KILL,   /* id, signal, all */
    OCI_DELETE, /* id, force; with force a missing container is no error */
    OCI_LIST,
    OCI_FEATURES, /* ERROR_UNAVAILABLE from a runtime that does not know the verb */
    OCI_VERSION,
    OCI_VERB_COUNT
};

struct oci_call {
    enum oci_verb verb;
    const char *id;     /* [A-Za-z0-9_.+-], at most OCI_ID_MAX */
    const char *bundle; /* folder; its pid file is <bundle>/pid */
    const int *fds; /* become 3, 4, … of the container's process; borrowed until the call returns */
    size_t fd_count; /* at most 16 */
    int signal;      /* 0: SIGKILL */
    bool all;        /* kill: every process of the container */
    bool force;      /* delete: kill it first if it runs */
    /* Takes less CPU time and somewhat longer: for what nobody waits for. A verb that starts no
     * process is put behind others, too. */
    bool unhurried;
    uint64_t timeout_ms; /* 0: 30 s */
};

enum oci_status {
    OCI_STATUS_UNKNOWN,
    OCI_STATUS_CREATING,
    OCI_STATUS_CREATED,
    OCI_STATUS_RUNNING,
    OCI_STATUS_PAUSED,
    OCI_STATUS_STOPPED
};

struct oci_state {
    char id[OCI_ID_MAX + 1];
    enum oci_status status;
    pid_t pid; /* 0 when there is no process */
};

/* Owned by the driver in a callback (valid until it returns), by the caller after
 * oci_runtime_call(). */
struct oci_outcome {
    pid_t pid;                /* create, run: the container's first process */
    struct oci_state *states; /* state: one; list: all */
    size_t state_count;
    char *text; /* version: first line; features: the JSON text (checked) */
};
void oci_outcome_deinit(struct oci_outcome *outcome);

/* Called once on the loop thread. Exactly one of `outcome` and `err` is not NULL. */
typedef void oci_done_fn(void *data, const struct oci_outcome *outcome, const struct error *err);

/* -1 when the runtime could not be started; `done` is then never called. `call` and what it points
 * to are only read until this returns; the struct oci_runtime must live until `done`. */
int oci_runtime_start(const struct oci_runtime *runtime, uv_loop_t *loop,
                      const struct oci_call *call, oci_done_fn *done, void *data,
                      struct error *err);
/* `ret` may be NULL where only success matters. */
int oci_runtime_call(const struct oci_runtime *runtime, const struct oci_call *call,
                     struct oci_outcome *ret, struct error *err);
/* Blocking: deletes (force) every container under the runtime's root, and the state of those that
 * it cannot list any more. For the leftovers of a predecessor. *ret_count (may be NULL): how many
 * there were. */
int oci_runtime_delete_all(const struct oci_runtime *runtime, size_t *ret_count, struct error *err);

/* 1 to OCI_ID_MAX of [A-Za-z0-9_.+-], not beginning with a dot or dash. */
bool oci_id_valid(const char *id);

/* What the driver makes of a runtime's output; public for their tests and fuzz target. */
int oci_parse_state(const char *text, size_t len, struct oci_state *ret, struct error *err);
/* *ret is malloc'd. "null" and an empty text are an empty list. */
int oci_parse_list(const char *text, size_t len, struct oci_state **ret, size_t *ret_count,
                   struct error *err);
/* The message of the last line with level error or fatal of a log in JSON lines; if there is none,
 * the last line's; "" if there is no line at all. Control characters become spaces. Always
 * NUL-terminates. */
void oci_parse_log(const char *text, size_t len, char *out, size_t size);
