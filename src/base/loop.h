/* libuv helpers that every program needs. One loop thread owns all mutable state of a program;
 * blocking work goes to the thread pool with data that the job owns. */
#pragma once

#include "base/error.h"

#include <stdint.h>
#include <uv.h>

/* Runs `work` on a pool thread, then `done` on the loop thread. `job` is the caller's; it must live
 * until `done`. */
int loop_work(uv_loop_t *loop, void (*work)(void *job), void (*done)(void *job), void *job,
              struct error *err);
/* Starts the pool's threads, which otherwise come with the first job: libuv aborts where they cannot be made, and that
 * is to be when a program starts, not in the middle of its work. */
int loop_start_pool(uv_loop_t *loop, struct error *err);
/* The calling thread, which is to run the loop, goes before functions and before all that it starts: its threads and child processes begin
 * at the usual priority again. Nothing happens without CAP_SYS_NICE, or when the program was started with a priority of its own. */
void loop_raise_priority(void);
/* Calls `fn` on the loop thread in the next iteration (loop thread only). "A callback that may be
 * async always is." */
int loop_defer(uv_loop_t *loop, void (*fn)(void *data), void *data, struct error *err);

/* One-shot or repeating timer, allocated by start and freed by stop. `fn` may stop its own timer.
 */
struct loop_timer;
struct loop_timer *loop_timer_start(uv_loop_t *loop, uint64_t after_ms, uint64_t repeat_ms,
                                    void (*fn)(void *data), void *data, struct error *err);
/* Accepts NULL. After it `fn` is not called again. A one-shot timer that has fired must still be
 * stopped. */
void loop_timer_stop(struct loop_timer *timer);

/* SIGINT and SIGTERM call `fn` once each time they arrive; SIGPIPE is ignored. When the environment has FAAS_PARENT_FD, a
 * descriptor that ends with the program that supervises this one (`faas up`), its end counts as a SIGTERM: nobody is left
 * behind when the supervisor is killed. Stop before closing the loop. */
struct loop_signals;
struct loop_signals *loop_signals_start(uv_loop_t *loop, void (*fn)(void *data, int signal),
                                        void *data, struct error *err);
void loop_signals_stop(struct loop_signals *signals);

/* Runs the loop until the handles that are closing have closed, then closes it. */
void loop_close(uv_loop_t *loop);

uint64_t clock_monotonic_ns(void);
uint64_t clock_realtime_ns(void);
/* RFC 3339 in UTC with milliseconds: "2026-01-31T12:00:00.123Z" (24 characters and NUL). */
void clock_format_rfc3339(uint64_t realtime_ns, char out[25]);
