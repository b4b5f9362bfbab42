/* One execution on its way through the worker: what was asked, the deadline, what came out.
 *
 * Made by worker.c from an assignment, handed to the pool, run by an instance, and finished exactly
 * once: `done` gets the execution with status, result, error, log and metrics. Loop thread only. */
#pragma once

#include "model/execution.h"
#include "worker/functions.h"
#include "worker/log_tail.h"
#include "worker/runtime.h"

#include <sys/queue.h>
#include <uv.h>

struct invocation;
struct instance;
struct link;

/* What the instance that it runs in keeps of it: instance_run.c's alone. */
struct invocation_run {
    struct loop_timer *deadline;
    struct loop_timer *log_timer;
    struct runtime_usage before;
    uint64_t sent_ns;
    uint64_t log_offset;
    struct log_tail log; /* where several may run in the instance at once */
    bool queued;         /* waits until those before it are sent */
    bool unsendable;     /* the instance was dead when it was to be sent */
    TAILQ_ENTRY(invocation) calls;
    TAILQ_ENTRY(invocation) unsent;
};

struct invocation {
    struct execution execution;
    struct function *function; /* a reference; NULL until the definition is known */
    char *payload;             /* owned */
    const char *payload_at;    /* where it is in place of there, NULL: there; see below */
    size_t payload_len;
    uint64_t timeout_ms;
    uint64_t received_ns; /* monotonic: when the assignment came */
    bool cancelled;
    bool queued;               /* waits in the worker, before functions and pool */
    bool retried;              /* its first instance was dead before it began */
    struct link *link;         /* which controller it came from; borrowed */
    struct instance *instance; /* that it runs in; borrowed, NULL while it does not */
    struct invocation_run run;
    /* Called exactly once; the invocation is freed after it by its owner. */
    void (*done)(void *data, struct invocation *invocation);
    /* Memory for its result of `len` bytes, from where that is sent on without a copy; NULL: none, or not now. May be NULL. */
    struct blob *(*room)(void *data, struct invocation *invocation, size_t len);
    void *data;
    TAILQ_ENTRY(invocation) waiting; /* the pool's */
    TAILQ_ENTRY(invocation) all;     /* the worker's */
};
TAILQ_HEAD(invocation_list, invocation);

struct invocation *invocation_new(const char *execution_id, int64_t attempt, const char *function,
                                  int64_t version, struct error *err);
void invocation_free(struct invocation *invocation);
/* A payload that was borrowed, for an instance that takes it at once, comes to where it is owned. */
void invocation_keep_payload(struct invocation *invocation);
