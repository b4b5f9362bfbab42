/* faas-worker: takes assignments from controllers, runs them in instances, sends the results back.
 *
 *     worker_new()    checks the machine, removes a predecessor's leftovers, opens cache, runtime,
 *                     pool and links (blocks)
 *     worker_start()  connects to the controllers
 *     worker_drain()  no new work; what runs is finished, results are delivered, everything is
 *                     removed; then `stopped`
 *     worker_kill()   the same without waiting for what runs
 *     worker_free()   after `stopped` */
#pragma once

#include "worker/config.h"

#include <uv.h>

struct worker;

struct worker *worker_new(uv_loop_t *loop, const struct worker_settings *settings,
                          void (*stopped)(void *data), void *data, struct error *err);
void worker_start(struct worker *worker);
void worker_drain(struct worker *worker);
void worker_kill(struct worker *worker);
/* Accepts NULL. */
void worker_free(struct worker *worker);
