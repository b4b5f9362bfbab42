/* libuv helpers: pool jobs, deferred calls, timers, signals, clocks. */
#include "base/loop.h"

#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static int uv_failed(struct error *err, int status, const char *what)
{
    return error_set(err, ERROR_INTERNAL, "%s: %s", what, uv_strerror(status));
}

/* ---- priority ---- */

#define NICE_OF_LOOP (-10)
#define RESET_ON_FORK 1 /* SCHED_FLAG_RESET_ON_FORK: what it starts has priority 0 */

/* struct sched_attr of sched_setattr(2) as in its first version; not every C library has one. */
struct priority_attributes {
    uint32_t size, policy;
    uint64_t flags;
    int32_t nice;
    uint32_t realtime_priority;
    uint64_t runtime, deadline, period;
};

void loop_raise_priority(void)
{
    struct priority_attributes attributes = {
        .size = sizeof(attributes), .flags = RESET_ON_FORK, .nice = NICE_OF_LOOP};

    if (getpriority(PRIO_PROCESS, 0) == 0)
        (void)syscall(SYS_sched_setattr, 0, &attributes, 0);
}

/* ---- pool jobs ---- */

struct pool_job {
    uv_work_t request;
    void (*work)(void *job);
    void (*done)(void *job);
    void *job;
};

static void pool_work(uv_work_t *request)
{
    struct pool_job *pool_job = request->data;
    pool_job->work(pool_job->job);
}

static void pool_done(uv_work_t *request, int status)
{
    struct pool_job *pool_job = request->data;
    void (*done)(void *) = pool_job->done;
    void *job = pool_job->job;
    (void)status;
    free(pool_job);
    if (done)
        done(job);
}

int loop_work(uv_loop_t *loop, void (*work)(void *job), void (*done)(void *job), void *job,
              struct error *err)
{
    struct pool_job *pool_job = calloc(1, sizeof(*pool_job));
    if (!pool_job)
        return error_set(err, ERROR_INTERNAL, "out of memory");
    *pool_job = (struct pool_job){.work = work, .done = done, .job = job};
    pool_job->request.data = pool_job;
    int status = uv_queue_work(loop, &pool_job->request, pool_work, pool_done);
    if (status) {
        free(pool_job);
        return uv_failed(err, status, "cannot queue work");
    }
    return 0;
}

static void no_work(void *job)
{
    (void)job;
}

int loop_start_pool(uv_loop_t *loop, struct error *err)
{
    return loop_work(loop, no_work, no_work, NULL, err);
}

/* ---- timers ---- */

struct loop_timer {
    uv_timer_t handle;
    void (*fn)(void *data);
    void *data;
};

static void timer_closed(uv_handle_t *handle)
{
    free(handle->data);
}

static void timer_fired(uv_timer_t *handle)
{
    struct loop_timer *timer = handle->data;
    timer->fn(timer->data);
}

struct loop_timer *loop_timer_start(uv_loop_t *loop, uint64_t after_ms, uint64_t repeat_ms,
                                    void (*fn)(void *data), void *data, struct error *err)
{
    struct loop_timer *timer = calloc(1, sizeof(*timer));
    if (!timer) {
        error_set(err, ERROR_INTERNAL, "out of memory");
        return NULL;
    }
    timer->fn = fn;
    timer->data = data;
    timer->handle.data = timer;
    uv_timer_init(loop, &timer->handle);
    /* The loop's idea of now may be old when it has just done long work. */
    uv_update_time(loop);
    uv_timer_start(&timer->handle, timer_fired, after_ms, repeat_ms);
    return timer;
}

void loop_timer_stop(struct loop_timer *timer)
{
    if (!timer)
        return;
    uv_timer_stop(&timer->handle);
    uv_close((uv_handle_t *)&timer->handle, timer_closed);
}

/* ---- deferred calls ---- */

struct deferred {
    uv_idle_t handle;
    void (*fn)(void *data);
    void *data;
};

static void deferred_closed(uv_handle_t *handle)
{
    free(handle->data);
}

static void run_deferred(uv_idle_t *handle)
{
    struct deferred *deferred = handle->data;
    uv_idle_stop(handle);
    uv_close((uv_handle_t *)handle, deferred_closed);
    deferred->fn(deferred->data);
}

/* An idle handle and not a timer: one that is started while idle handles run waits for the next
 * iteration, so that a function which defers itself again cannot starve the rest of the loop. */
int loop_defer(uv_loop_t *loop, void (*fn)(void *data), void *data, struct error *err)
{
    struct deferred *deferred = calloc(1, sizeof(*deferred));
    if (!deferred)
        return error_set(err, ERROR_INTERNAL, "out of memory");
    deferred->fn = fn;
    deferred->data = data;
    deferred->handle.data = deferred;
    uv_idle_init(loop, &deferred->handle);
    uv_idle_start(&deferred->handle, run_deferred);
    return 0;
}

/* ---- signals ---- */

struct loop_signals {
    uv_signal_t interrupt, terminate;
    uv_poll_t parent; /* used when watches_parent */
    bool watches_parent;
    void (*fn)(void *data, int signal);
    void *data;
    int open_handles;
};

static void signal_arrived(uv_signal_t *handle, int number)
{
    struct loop_signals *signals = handle->data;
    signals->fn(signals->data, number);
}

/* Nothing is ever written to the descriptor: it becomes readable when its other end is closed. */
static void parent_ended(uv_poll_t *handle, int status, int events)
{
    struct loop_signals *signals = handle->data;
    (void)status;
    (void)events;
    uv_poll_stop(handle);
    signals->fn(signals->data, SIGTERM);
}

static void signal_closed(uv_handle_t *handle)
{
    struct loop_signals *signals = handle->data;
    if (--signals->open_handles == 0)
        free(signals);
}

static void watch_parent(uv_loop_t *loop, struct loop_signals *signals)
{
    const char *text = getenv("FAAS_PARENT_FD");
    int fd = text ? atoi(text) : -1;
    if (fd < 3 || fcntl(fd, F_SETFD, FD_CLOEXEC) || uv_poll_init(loop, &signals->parent, fd))
        return;
    signals->parent.data = signals;
    signals->watches_parent = true;
    signals->open_handles++;
    uv_poll_start(&signals->parent, UV_READABLE | UV_DISCONNECT, parent_ended);
}

struct loop_signals *loop_signals_start(uv_loop_t *loop, void (*fn)(void *data, int signal),
                                        void *data, struct error *err)
{
    struct loop_signals *signals = calloc(1, sizeof(*signals));
    if (!signals) {
        error_set(err, ERROR_INTERNAL, "out of memory");
        return NULL;
    }
    signal(SIGPIPE, SIG_IGN);
    *signals = (struct loop_signals){.fn = fn, .data = data, .open_handles = 2};
    uv_signal_init(loop, &signals->interrupt);
    uv_signal_init(loop, &signals->terminate);
    signals->interrupt.data = signals->terminate.data = signals;
    int status = uv_signal_start(&signals->interrupt, signal_arrived, SIGINT);
    if (status == 0)
        status = uv_signal_start(&signals->terminate, signal_arrived, SIGTERM);
    if (status) {
        uv_failed(err, status, "cannot handle signals");
        loop_signals_stop(signals);
        return NULL;
    }
    watch_parent(loop, signals);
    return signals;
}

void loop_signals_stop(struct loop_signals *signals)
{
    if (!signals)
        return;
    if (signals->watches_parent)
        uv_close((uv_handle_t *)&signals->parent, signal_closed);
    uv_close((uv_handle_t *)&signals->interrupt, signal_closed);
    uv_close((uv_handle_t *)&signals->terminate, signal_closed);
}

void loop_close(uv_loop_t *loop)
{
    uv_run(loop, UV_RUN_DEFAULT);
    uv_loop_close(loop);
}

/* ---- clocks ---- */

static uint64_t clock_ns(clockid_t clock)
{
    struct timespec now;
    clock_gettime(clock, &now);
    return (uint64_t)now.tv_sec * 1000000000ULL + (uint64_t)now.tv_nsec;
}

uint64_t clock_monotonic_ns(void)
{
    return clock_ns(CLOCK_MONOTONIC);
}

uint64_t clock_realtime_ns(void)
{
    return clock_ns(CLOCK_REALTIME);
}

/* Times of one answer lie within a second nearly always: its date is made once. */
void clock_format_rfc3339(uint64_t realtime_ns, char out[25])
{
    static _Thread_local time_t last_seconds = -1;
    static _Thread_local char date[20];
    time_t seconds = (time_t)(realtime_ns / 1000000000ULL);
    unsigned ms = (unsigned)(realtime_ns / 1000000ULL % 1000);
    if (seconds != last_seconds) {
        struct tm tm;
        gmtime_r(&seconds, &tm);
        strftime(date, sizeof(date), "%Y-%m-%dT%H:%M:%S", &tm);
        last_seconds = seconds;
    }
    memcpy(out, date, 19);
    out[19] = '.';
    out[20] = (char)('0' + ms / 100);
    out[21] = (char)('0' + ms / 10 % 10);
    out[22] = (char)('0' + ms % 10);
    memcpy(out + 23, "Z", 2);
}
