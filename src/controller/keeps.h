/* min_instances: which worker keeps how many instances of which version ready.
 *
 * The plan is made for all workers together: a function's instances are spread over the workers that have memory for them, and
 * stay where they are while that worker stays. Workers are told by "keep" messages, say in their states what
 * they have been told, and are told again when the two differ: a message that got lost does not matter. Loop thread only. */
#pragma once

#include "base/json.h"
#include "base/list.h"
#include "controller/registry.h"

struct controller;
struct worker_session;

/* What one worker keeps of one version; a part of struct worker_session, by the version's key. */
struct keep {
    char key[VERSION_KEY_MAX];
    char function[FUNCTION_NAME_MAX + 1];
    int64_t version;
    int64_t memory_mb; /* of one instance */
    int64_t wanted;
    int64_t said; /* by the worker's last word */
    int64_t told; /* last */
    uint64_t told_ns;
};

/* Plans and tells, when something has changed or a while has passed. Called every tick. */
void keeps_tick(struct controller *controller);
/* Workers came, went or are draining: the next tick plans anew. */
void keeps_workers_changed(struct controller *controller);
/* The member "kept" of a state: [{"function", "version", "count"}]. */
void keeps_read(struct worker_session *session, const struct json *kept);
/* The worker knows nothing any more, or is gone. */
void keeps_clear(struct worker_session *session);
