/* One instance: faas-init and a function version's code, in a container or as a process, for many
 * invocations: one after the other, or, where function and adapter allow it, several at once.
 *
 *     creating -> idle <-> busy
 *     idle -> frozen -> busy                   its processes are stopped meanwhile
 *     creating -> warm -> loading -> idle      a generic instance, which has no function before `loading`
 *     each of them -> stopping -> gone
 *
 * instance_new() makes sockets and pipes and asks the runtime; `ready` follows when faas-init, or
 * the adapter of contract `handler`, said so. instance_new_generic() does so without a function, `warm` follows, and
 * instance_load() makes it a function's, once and for ever, before `ready`. instance_run() gives it one invocation. Whatever goes
 * wrong ends in instance_stop() by the owner, after broken() or finished() said so (it may be
 * called inside of them); it kills at once, `gone` follows when nothing is left, and then the owner
 * frees it. Loop thread only; events never come from inside a call, unless it says so. */
#pragma once

#include "model/execution.h"
#include "worker/functions.h"
#include "worker/runtime.h"

struct instance;
struct invocation;

enum instance_state {
    INSTANCE_CREATING,
    INSTANCE_WARM,
    INSTANCE_LOADING,
    INSTANCE_IDLE,
    INSTANCE_FROZEN,
    INSTANCE_BUSY,
    INSTANCE_STOPPING,
    INSTANCE_GONE,
    INSTANCE_STATE_COUNT
};

const char *instance_state_name(enum instance_state state);
bool instance_state_may_move(enum instance_state from, enum instance_state to);

/* What an instance is good for after an invocation. */
enum instance_after {
    INSTANCE_USABLE, /* it has a place again */
    INSTANCE_SPENT,  /* stop it when nothing runs in it any more */
    INSTANCE_RETRY, /* likewise; it was dead before it had the whole payload, so the invocation never
                       began and may go to another */
};

struct instance_events {
    /* faas-init runs; the function's code may still be loading. */
    void (*started)(void *data, struct instance *instance);
    /* creating -> warm; of generic instances */
    void (*warm)(void *data, struct instance *instance);
    /* creating or loading -> idle */
    void (*ready)(void *data, struct instance *instance);
    /* Creating, warm, loading or idle, and of no use any more: stop it. `failure` (status, error, log) is for who
     * waited for it; its texts may be taken. */
    void (*broken)(void *data, struct instance *instance, struct execution *failure);
    /* The invocation's execution is complete (but for RETRY). The instance has let go of it. */
    void (*finished)(void *data, struct instance *instance, struct invocation *invocation,
                     enum instance_after after);
    /* Log text of a running invocation; may be NULL. `offset` counts all bytes so far. */
    void (*log)(void *data, struct invocation *invocation, uint64_t offset, const char *text,
                size_t len);
    /* stopping -> gone: instance_free() is due. */
    void (*gone)(void *data, struct instance *instance);
};

struct instance_limits {
    size_t payload_max;
    size_t result_max;
    size_t log_max;
    uint64_t start_timeout_ms;
    bool share_memory; /* with adapters that can, for large bodies */
};

/* Keeps a reference on `function`. NULL when not even a socket could be made. */
struct instance *instance_new(uv_loop_t *loop, struct runtime *runtime, struct function *function,
                              const struct instance_limits *limits,
                              const struct instance_events *events, void *data, struct error *err);
/* A generic one. `spec` (image, runtime, network, limits; no name) and `command` are borrowed until instance_load() or `gone`. */
struct instance *instance_new_generic(uv_loop_t *loop, struct runtime *runtime,
                                      const struct function_spec *spec, const char *const *command,
                                      const struct instance_limits *limits,
                                      const struct instance_events *events, void *data,
                                      struct error *err);
/* warm -> loading, and a reference on `function` is kept; -1: it is of no use any more, stop it. ERROR_CONFLICT: its image was replaced. */
int instance_load(struct instance *instance, struct function *function, struct error *err);
/* Of a warm one: whether its image was replaced or removed. */
bool instance_outdated(struct instance *instance);
/* Not while it is busy: instance_abort() first. */
void instance_stop(struct instance *instance);
/* Only when gone. Accepts NULL. */
void instance_free(struct instance *instance);

/* From now on it counts as one part in so many when instances share the processors; -1 where the runtime cannot. Of one that is started. */
int instance_weigh(struct instance *instance, unsigned parts);
/* idle -> frozen; -1 where the runtime cannot, and it stays idle. */
int instance_freeze(struct instance *instance, struct error *err);
/* idle or frozen -> busy, or busy with a place left; finished() follows, never from inside this call. `invocation` and its
 * payload must stand until then. */
void instance_run(struct instance *instance, struct invocation *invocation);
/* Ends a running invocation at once with this status and error; finished(SPENT) comes from inside
 * this call. What the function does about it is not known to end before the instance does, so that takes no further ones; others
 * that run in it go on. */
void instance_abort(struct invocation *invocation, enum execution_status status, const char *type,
                    const char *message);
/* All that run in it. */
void instance_abort_all(struct instance *instance, enum execution_status status, const char *type,
                        const char *message);

const char *instance_id(const struct instance *instance);
enum instance_state instance_state(const struct instance *instance);
/* NULL: a generic one. */
struct function *instance_function(const struct instance *instance);
/* The function's, or what a generic one was made with. */
const struct function_spec *instance_spec_of(const struct instance *instance);
/* How long it took from instance_new() or instance_load() to ready, of a generic one to warm; 0 while it is not. */
uint64_t instance_start_ns(const struct instance *instance);
/* Invocations that run in it. */
size_t instance_calls(const struct instance *instance);
/* So many more it could take now if they came; 0 of one that is not idle, frozen or busy. */
size_t instance_free_places(const struct instance *instance);
/* So many at once; known once it is ready. */
size_t instance_places(const struct instance *instance);
