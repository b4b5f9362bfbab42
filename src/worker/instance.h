/* One instance: faas-init and a function version's code, in a container or as a process, for many
 * invocations.
 *
 *     creating -> idle <-> busy
 *     creating, idle, busy -> stopping -> gone
 *
 * instance_new() makes sockets and pipes and asks the runtime; `ready` follows when faas-init (and
 * the adapter of contract `handler`) said so. instance_run() gives it one invocation. Whatever goes
 * wrong ends in instance_stop() by the owner, after `broken` was called; instance_stop() kills at
 * once, `gone` follows when nothing is left, and then the owner frees it. Loop thread only; events
 * never come from inside the call that causes them, but for those of instance_run(). */
#pragma once

#include "model/execution.h"
#include "worker/functions.h"
#include "worker/output.h"
#include "worker/runtime.h"

struct instance;
struct invocation;

enum instance_state {
    INSTANCE_CREATING,
    INSTANCE_IDLE,
    INSTANCE_BUSY,
    INSTANCE_STOPPING,
    INSTANCE_GONE,
    INSTANCE_STATE_COUNT
};

const char *instance_state_name(enum instance_state state);
bool instance_state_may_move(enum instance_state from, enum instance_state to);

/* Why an instance could not be used (any more). */
enum instance_fault {
    INSTANCE_FAULT_START, /* the runtime could not start it: the platform's fault, see the error */
    INSTANCE_FAULT_LOAD, /* the function's module could not be loaded: its own error, as a handler's
                            ERROR */
    INSTANCE_FAULT_TIMEOUT, /* not ready in time */
    INSTANCE_FAULT_ENDED,   /* faas-init or the adapter went away */
};

struct instance_events {
    /* faas-init runs; its code may still be loading. */
    void (*started)(void *data, struct instance *instance);
    /* creating -> idle */
    void (*ready)(void *data, struct instance *instance);
    /* creating or idle, and of no use any more: stop it. `failure` carries status and error for who
     * waited for it. */
    void (*broken)(void *data, struct instance *instance, enum instance_fault fault,
                   const struct execution *failure);
    /* stopping -> gone: instance_free() is due. */
    void (*gone)(void *data, struct instance *instance);
};

struct instance_limits {
    size_t payload_max;
    size_t result_max;
    size_t log_max;
    uint64_t start_timeout_ms;
};

/* Keeps a reference on `function`. NULL when not even a socket could be made. */
struct instance *instance_new(uv_loop_t *loop, struct runtime *runtime, struct function *function,
                              const struct instance_limits *limits,
                              const struct instance_events *events, void *data, struct error *err);
void instance_stop(struct instance *instance);
/* Only when gone. Accepts NULL. */
void instance_free(struct instance *instance);

/* idle -> busy. The invocation is finished by invocation_finish() (see there); the instance is then
 * idle, or of no use. */
void instance_run(struct instance *instance, struct invocation *invocation);

const char *instance_id(const struct instance *instance);
enum instance_state instance_state(const struct instance *instance);
struct function *instance_function(const struct instance *instance);
/* How long it took from instance_new() to ready; 0 while it is not. */
uint64_t instance_start_ns(const struct instance *instance);
