/* Who gets an instance next, and how many are started at once. */
#include "pool_fixture.h"
#include "worker/pool_internal.h"

#define SECOND 1000000000ull

TestSuite(pool_start, .fini = close_pool);

static void invoke_many(struct function *function, int count)
{
    for (int i = 0; i < count; i++)
        invoke_soon(function);
}

/* Everybody who waits gets an answer. */
static void answer_all(void)
{
    for (size_t i = 0, tries = 0; i < fake_count && tries < 100; i++, tries++) {
        if (!fake_was_asked(&fakes[i]))
            continue;
        fake_answer(&fakes[i], "1", 0);
        i = (size_t)-1; /* the next one may have gone to any of them */
    }
}

static void expect_functions(const char *const *names, size_t count)
{
    cr_assert_eq(fake_count, count);
    for (size_t i = 0; i < count; i++)
        cr_expect_str_eq(fakes[i].function, names[i], "instance %zu", i);
}

Test(pool_start, starts_at_the_same_time_are_bounded)
{
    open_pool(60000, 1000, 1);
    invoke_many(alpha, 3);
    uv_run(&loop, UV_RUN_NOWAIT);
    cr_expect_leq(fake_count, 1);
    settle();
    cr_expect_eq(fake_count, 3);
    answer_all();
}

Test(pool_start, functions_take_turns_however_many_wait_for_each)
{
    static const char *const turns[] = {"alpha", "beta", "alpha", "beta", "alpha", "alpha"};
    open_pool(60000, 1000, 1);
    invoke_many(alpha, 4);
    invoke_many(beta, 2);
    settle();
    expect_functions(turns, 6);
    answer_all();
}

Test(pool_start, who_came_first_is_first_where_none_has_had_its_turn)
{
    static const char *const turns[] = {"beta", "alpha"};
    open_pool(60000, 1000, 1);
    invoke_many(beta, 1);
    invoke_many(alpha, 1);
    settle();
    expect_functions(turns, 2);
    answer_all();
}

/* The first one is a cold start. */
static void call_beta(int times)
{
    for (int i = 0; i < times; i++) {
        invoke(beta);
        answer_all();
    }
}

/* Beta has an instance, which has just been called twice; starts hang from now on. */
static void open_called_pool(size_t cpus)
{
    open_pool(60000, 1000, 4);
    pool->cpus = cpus;
    call_beta(3);
    pool->rest_ns = 0;
    fake_starts_hang = true;
}

static void let_starts_go_on(void)
{
    fake_starts_hang = false;
    for (size_t i = 1; i < fake_count; i++)
        fake_say(&fakes[i], 0, FRAME_READY, 0, "");
    settle();
    answer_all();
}

Test(pool_start, while_others_are_called_a_quarter_of_the_processors_start)
{
    open_called_pool(8);
    invoke_many(alpha, 4);
    settle();
    cr_expect_eq(fake_count, 1 + 2);
    fake_starts_hang = false;
    fake_say(&fakes[1], 0, FRAME_READY, 0, "");
    settle();
    cr_expect_geq(fake_count, 1 + 3, "one is ready, so another may start");
    let_starts_go_on();
}

Test(pool_start, one_processor_starts_one)
{
    open_called_pool(1);
    invoke_many(alpha, 4);
    settle();
    cr_expect_eq(fake_count, 1 + 1);
    let_starts_go_on();
}

/* How long it rests after a start that took so long. */
static uint64_t rest_after(uint64_t ns)
{
    struct member *member = TAILQ_FIRST(&pool->rising);
    member->begun_ns -= ns;
    fake_starts_hang = false;
    fake_say(&fakes[fake_count - 1], 0, FRAME_READY, 0, "");
    settle();
    uint64_t now_ns = clock_monotonic_ns();
    return pool->rest_ns > now_ns ? pool->rest_ns - now_ns : 0;
}

Test(pool_start, on_a_small_machine_there_is_a_rest_after_each)
{
    open_called_pool(2);
    invoke_many(alpha, 2);
    settle();
    uint64_t rest_ns = rest_after(SECOND / 5);
    cr_expect_gt(rest_ns, SECOND / 10);
    cr_expect_eq(fake_count, 1 + 1);
    await_fakes(1 + 2);
    let_starts_go_on();
}

Test(pool_start, a_start_that_took_long_does_not_mean_a_rest_without_end)
{
    open_called_pool(1);
    invoke_many(alpha, 2);
    settle();
    cr_expect_lt(rest_after(600 * SECOND), SECOND);
    await_fakes(1 + 2);
    let_starts_go_on();
}

Test(pool_start, a_functions_own_calls_do_not_hold_up_its_starts)
{
    open_called_pool(2);
    beta->slot->service_ns = 10 * SECOND; /* too long to wait for the instance that there is */
    beta->slot->cpu_ns = 1;
    invoke_many(beta, 5);
    settle();
    cr_expect_eq(fake_count, 1 + 4);
    let_starts_go_on();
}

Test(pool_start, a_first_call_and_one_more_are_no_calls_that_come)
{
    open_pool(60000, 1000, 4);
    pool->cpus = 2;
    call_beta(2);
    fake_starts_hang = true;
    invoke_many(alpha, 4);
    settle();
    cr_expect_eq(fake_count, 1 + 4);
    let_starts_go_on();
}

Test(pool_start, when_others_are_called_no_more_all_may_start)
{
    open_called_pool(2);
    beta->slot->warm_before_ns -= SECOND;
    invoke_many(alpha, 4);
    settle();
    cr_expect_eq(fake_count, 1 + 4);
    let_starts_go_on();
}

Test(pool_start, one_that_takes_long_holds_up_the_others_for_a_while_only)
{
    open_called_pool(2);
    invoke_many(alpha, 2);
    settle();
    cr_assert_eq(fake_count, 1 + 1);
    await_fakes(1 + 2);
    cr_expect_eq(count_state(INSTANCE_CREATING), 2);
    let_starts_go_on();
}

/* ---- what is left to others ---- */

static void open_roomy_pool(int64_t memory_mb, size_t max_instances)
{
    struct pool_options options = pool_options_of(0, 60000, memory_mb, 4);
    options.max_instances = max_instances;
    open_pool_with(&options);
}

static void expect_share(size_t share)
{
    invoke_many(alpha, 12);
    settle();
    cr_expect_eq(fake_count, share);
    invoke_many(beta, 1);
    settle();
    cr_assert_eq(fake_count, share + 1);
    cr_expect_str_eq(fakes[share].function, "beta");
    answer_all();
}

Test(pool_start, one_function_does_not_get_the_last_of_the_memory)
{
    open_roomy_pool(1000, 100);
    expect_share(8);
}

Test(pool_start, nor_the_last_of_the_instances)
{
    open_roomy_pool(100000, 10);
    expect_share(8);
}

Test(pool_start, two_instances_it_may_have_whatever_they_take)
{
    open_roomy_pool(200, 100);
    invoke_many(alpha, 3);
    settle();
    cr_expect_eq(fake_count, 2);
    answer_all();
}

Test(pool_start, what_is_idle_counts_as_left)
{
    open_roomy_pool(1000, 100);
    invoke_many(beta, 3);
    settle();
    answer_all();
    invoke_many(alpha, 8);
    settle();
    size_t alphas = 0;
    for (size_t i = 0; i < fake_count; i++)
        alphas += strcmp(fakes[i].function, "alpha") == 0;
    cr_expect_eq(alphas, 8);
    answer_all();
}

Test(pool_start, one_that_is_to_be_kept_beyond_its_share_holds_up_nobody)
{
    open_roomy_pool(1000, 100);
    invoke_many(alpha, 8);
    settle();
    pool_keep(pool, alpha, 12);
    settle();
    cr_expect_eq(fake_count, 8);
    pool_keep(pool, beta, 1);
    settle();
    cr_expect_eq(fake_count, 9);
    answer_all();
}
