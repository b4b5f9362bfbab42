/* A worker's claim to its name (the folder of its run-time state) and to its data: two files that are locked for as long as it
 * runs. Makes both folders. */
#pragma once

#include "base/error.h"

struct worker_settings;

struct worker_locks {
    int run, data; /* -1: not taken */
};

#define WORKER_LOCKS_NONE ((struct worker_locks){-1, -1})

/* What was taken stays taken after a failure. */
int worker_locks_take(struct worker_locks *locks, const struct worker_settings *settings,
                      struct error *err);
/* Removes the folder of run-time state, in which nothing else is left; what a worker that died had there is its successor's. */
void worker_locks_release(struct worker_locks *locks, const struct worker_settings *settings);
