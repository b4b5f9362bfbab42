/* A pool over the runtime of worker_fixture.h, two functions, and what became of their invocations. */
#pragma once

#include "worker/pool.h"

#include "worker_fixture.h"

#define PAYLOAD "{}"

static struct pool *pool;
static struct function *alpha, *beta;
static struct execution_outcome {
    int done;
    enum execution_status status;
    char type[64];
    char result[64];
    bool cold;
} outcomes[64];
static size_t invoked;
static bool stopped;

static void on_done(void *data, struct invocation *invocation)
{
    struct execution_outcome *outcome = data;
    const struct execution *execution = &invocation->execution;
    outcome->done++;
    outcome->status = execution->status;
    outcome->cold = execution->cold_start;
    if (execution->has_error)
        snprintf(outcome->type, sizeof(outcome->type), "%s", execution->error.type);
    if (execution->result)
        snprintf(outcome->result, sizeof(outcome->result), "%s", execution->result);
    invocation_free(invocation);
}

/* The loop does not run. */
static inline struct invocation *invoke_soon(struct function *function)
{
    char id[TIME_ID_LEN + 1];
    struct error err = {0};
    time_id(id);
    struct invocation *invocation = invocation_new(id, 1, function->spec.name, 1, &err);
    cr_assert_not_null(invocation, "%s", err.message);
    invocation->function = function_ref(function);
    invocation->payload = strdup(PAYLOAD);
    invocation->payload_len = strlen(PAYLOAD);
    invocation->timeout_ms = 60000;
    invocation->done = on_done;
    invocation->data = &outcomes[invoked++];
    pool_run(pool, invocation);
    cr_assert_eq(outcomes[invoked - 1].done, 0, "never from inside of the call");
    return invocation;
}

static inline struct invocation *invoke(struct function *function)
{
    struct invocation *invocation = invoke_soon(function);
    settle();
    return invocation;
}

static inline struct pool_options pool_options_of(size_t generic_size, uint64_t keep_alive_ms,
                                                  int64_t memory_mb, size_t start_parallel)
{
    return (struct pool_options){.runtime = &fake_runtime,
                                 .limits = {.payload_max = 1000,
                                            .result_max = 1000,
                                            .log_max = 1000,
                                            .start_timeout_ms = 60000},
                                 .keep_alive_ms = keep_alive_ms,
                                 .memory_mb = memory_mb,
                                 .max_instances = 10,
                                 .start_parallel = start_parallel,
                                 .generic_size = generic_size,
                                 .freeze_after_ms = -1};
}

static inline void open_pool_with(const struct pool_options *options)
{
    struct error err = {0};
    fixture_open();
    pool = pool_new(&loop, options, &err);
    cr_assert_not_null(pool, "%s", err.message);
    alpha = fixture_function("alpha", 100);
    beta = fixture_function("beta", 100);
}

static inline void open_pool_of(size_t generic_size, uint64_t keep_alive_ms, int64_t memory_mb,
                                size_t start_parallel)
{
    struct pool_options options =
        pool_options_of(generic_size, keep_alive_ms, memory_mb, start_parallel);
    open_pool_with(&options);
}

static inline void open_pool(uint64_t keep_alive_ms, int64_t memory_mb, size_t start_parallel)
{
    open_pool_of(0, keep_alive_ms, memory_mb, start_parallel);
}

static void on_pool_stopped(void *data)
{
    (void)data;
    stopped = true;
}

static inline void close_pool(void)
{
    if (!stopped)
        pool_stop(pool, on_pool_stopped, NULL);
    settle();
    cr_expect(stopped);
    cr_expect_eq(fakes_alive(), 0);
    pool_free(pool);
    function_unref(alpha);
    function_unref(beta);
    for (size_t i = 0; i < invoked; i++)
        cr_expect_eq(outcomes[i].done, 1, "invocation %zu was finished %d times", i,
                     outcomes[i].done);
    fixture_close();
}

/* Lets the loop run until there are so many fakes; the pool replaces what was taken a moment later. */
static inline void await_fakes(size_t count)
{
    while (fake_count < count)
        uv_run(&loop, UV_RUN_ONCE);
    settle();
}

static enum instance_state counted_state;
static size_t counted;

static inline void count_one(void *data, const struct instance *one)
{
    (void)data;
    counted += instance_state(one) == counted_state;
}

static inline size_t count_state(enum instance_state state)
{
    counted = 0;
    counted_state = state;
    pool_each(pool, count_one, NULL);
    return counted;
}
