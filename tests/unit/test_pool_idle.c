/* What becomes of idle instances: keep-alive, fixed or learnt; prewarming; instances kept ready; freezing; who goes when room is
 * needed. Time goes by when the test says so: pool_idle_look() is what the pool's timer calls. */
#include "pool_fixture.h"
#include "worker/pool_internal.h"

#define SECOND 1000000000ull
#define MINUTE (60 * SECOND)
#define KEEP_MS 300000

static struct idle_table *table;

static void open_learning_pool(void)
{
    struct pool_options options = pool_options_of(0, KEEP_MS, 1000, 4);
    table = options.idle_table = idle_table_new(10, NULL);
    open_pool_with(&options);
}

static void tear_down(void)
{
    close_pool();
    idle_table_free(table);
    table = NULL;
}

TestSuite(pool_idle, .fini = tear_down);

/* So many idle times are known of the function. */
static void learn(const char *function, uint64_t idle_ms, int times)
{
    for (int i = 0; i < times; i++)
        idle_table_add(table, function, idle_ms);
}

static void look_after(uint64_t ns)
{
    pool_idle_look(pool, clock_monotonic_ns() + ns);
    settle();
}

/* A call, answered by this fake. */
static void call(struct function *function, size_t fake)
{
    invoke(function);
    cr_assert_lt(fake, fake_count);
    fake_answer(&fakes[fake], "1", 0);
    cr_assert_eq(outcomes[invoked - 1].status, EXECUTION_SUCCEEDED);
}

static bool was_cold(void)
{
    return outcomes[invoked - 1].cold;
}

/* ---- keep-alive ---- */

Test(pool_idle, the_fixed_keep_alive_ends_an_idle_instance)
{
    open_pool(KEEP_MS, 1000, 4);
    call(alpha, 0);
    look_after(4 * MINUTE);
    cr_expect_not(fakes[0].stopped);
    look_after(6 * MINUTE);
    cr_expect(fakes[0].stopped);
}

Test(pool_idle, the_timer_ends_an_idle_instance_too)
{
    open_pool(20, 1000, 4);
    call(alpha, 0);
    while (!fakes[0].stopped)
        uv_run(&loop, UV_RUN_ONCE);
}

Test(pool_idle, a_functions_own_keep_alive_beats_the_workers)
{
    open_pool(KEEP_MS, 1000, 4);
    alpha->spec.keep_alive_ms = 20;
    beta->spec.keep_alive_ms = 1000 * 3600;
    call(alpha, 0);
    call(beta, 1);
    while (!fakes[0].stopped)
        uv_run(&loop, UV_RUN_ONCE);
    look_after(50 * MINUTE);
    cr_expect_not(fakes[1].stopped);
}

Test(pool_idle, a_functions_own_keep_alive_of_zero_is_an_instance_for_each)
{
    open_pool(KEEP_MS, 1000, 4);
    alpha->spec.keep_alive_ms = 0;
    call(alpha, 0);
    cr_expect(fakes[0].stopped);
    call(alpha, 1);
    cr_expect(fakes[1].stopped);
    cr_expect(was_cold());
}

Test(pool_idle, without_enough_history_the_fixed_keep_alive_holds)
{
    open_learning_pool();
    learn("alpha", 20 * 60 * 1000, 5);
    call(alpha, 0);
    look_after(4 * MINUTE);
    cr_expect_not(fakes[0].stopped);
    look_after(6 * MINUTE);
    cr_expect(fakes[0].stopped);
    look_after(20 * MINUTE);
    cr_expect_eq(fake_count, 1, "nothing is made ahead either");
}

Test(pool_idle, a_function_that_is_called_all_the_time_is_let_go_sooner)
{
    open_learning_pool();
    learn("alpha", 50, 100);
    call(alpha, 0);
    look_after(50 * SECOND);
    cr_expect_not(fakes[0].stopped);
    look_after(70 * SECOND);
    cr_expect(fakes[0].stopped);
}

Test(pool_idle, a_function_whose_pauses_are_long_is_kept_longer)
{
    open_learning_pool();
    learn("alpha", 50, 50);
    learn("alpha", 15 * 60 * 1000, 10);
    call(alpha, 0);
    look_after(14 * MINUTE);
    cr_expect_not(fakes[0].stopped);
    look_after(25 * MINUTE);
    cr_expect(fakes[0].stopped);
}

Test(pool_idle, what_a_burst_left_over_goes_after_the_fixed_time)
{
    open_learning_pool();
    learn("alpha", 15 * 60 * 1000, 20);
    invoke(alpha);
    invoke(alpha);
    fake_answer(&fakes[1], "1", 0);
    look_after(4 * MINUTE);
    cr_expect_not(fakes[1].stopped);
    look_after(6 * MINUTE);
    cr_expect(fakes[1].stopped, "the other one still runs");
    fake_answer(&fakes[0], "1", 0);
}

Test(pool_idle, calls_teach)
{
    open_learning_pool();
    for (int i = 0; i < 30; i++)
        call(alpha, 0);
    cr_expect(idle_table_windows(table, "alpha", KEEP_MS).learnt);
}

/* ---- prewarming ---- */

Test(pool_idle, a_call_that_is_due_finds_an_instance_made_for_it)
{
    open_learning_pool();
    learn("alpha", 20 * 60 * 1000, 20);
    call(alpha, 0);
    look_after(5 * SECOND);
    cr_expect_not(fakes[0].stopped, "not at once");
    look_after(20 * SECOND);
    cr_expect(fakes[0].stopped, "none is needed for a while");
    look_after(10 * MINUTE);
    cr_assert_eq(fake_count, 1);
    look_after(18 * MINUTE);
    cr_assert_eq(fake_count, 2);
    cr_expect_not(fakes[1].stopped);
    call(alpha, 1);
    cr_expect_not(was_cold());
}

Test(pool_idle, an_instance_made_ahead_goes_when_the_call_did_not_come)
{
    open_learning_pool();
    learn("alpha", 20 * 60 * 1000, 20);
    call(alpha, 0);
    look_after(20 * SECOND);
    look_after(18 * MINUTE);
    cr_assert_eq(fake_count, 2);
    look_after(21 * MINUTE);
    cr_expect_not(fakes[1].stopped);
    look_after(30 * MINUTE);
    cr_expect(fakes[1].stopped);
    look_after(40 * MINUTE);
    cr_expect_eq(fake_count, 2, "and no other is made");
    cr_expect(TAILQ_EMPTY(&pool->slots), "nothing is kept of it");
}

Test(pool_idle, nothing_is_made_ahead_of_a_version_that_is_of_no_more_use)
{
    open_learning_pool();
    learn("alpha", 20 * 60 * 1000, 20);
    call(alpha, 0);
    look_after(20 * SECOND);
    pool_forget(pool, "alpha", 1);
    look_after(18 * MINUTE);
    cr_expect_eq(fake_count, 1);
    cr_expect(TAILQ_EMPTY(&pool->slots));
}

Test(pool_idle, an_early_call_takes_the_place_of_the_one_that_was_due)
{
    open_learning_pool();
    learn("alpha", 20 * 60 * 1000, 200);
    call(alpha, 0);
    look_after(20 * SECOND);
    call(alpha, 1);
    cr_expect(was_cold());
    look_after(20 * SECOND);
    cr_expect(fakes[1].stopped);
    look_after(18 * MINUTE);
    cr_expect_eq(fake_count, 3, "the next is expected as long after this one");
}

Test(pool_idle, nobody_has_to_go_for_a_call_that_is_only_due)
{
    open_learning_pool();
    learn("alpha", 20 * 60 * 1000, 20);
    call(alpha, 0);
    look_after(20 * SECOND);
    pool->options.memory_mb = 100;
    call(beta, 1);
    look_after(4 * MINUTE);
    look_after(18 * MINUTE);
    cr_expect_eq(fake_count, 3, "beta's keep-alive is over by then");
    cr_expect(fakes[1].stopped);
    call(beta, 3);
    cr_expect(fakes[2].stopped, "but who waits comes first");
}

Test(pool_idle, one_made_ahead_that_fails_is_not_tried_again_and_again)
{
    open_learning_pool();
    learn("alpha", 20 * 60 * 1000, 20);
    call(alpha, 0);
    look_after(20 * SECOND);
    fake_starts_fail = true;
    look_after(18 * MINUTE);
    cr_expect_eq(fake_count, 2);
    fake_starts_fail = false;
    call(alpha, 2);
}

/* ---- instances kept ready ---- */

Test(pool_idle, kept_instances_are_made_without_a_call_and_stay)
{
    open_pool(KEEP_MS, 1000, 4);
    pool_keep(pool, alpha, 2);
    settle();
    cr_assert_eq(fake_count, 2);
    look_after(60 * MINUTE);
    cr_expect_eq(fakes_alive(), 2);
    invoke(alpha);
    fake_answer(&fakes[fake_was_asked(&fakes[1]) ? 1 : 0], "1", 0);
    cr_expect_eq(outcomes[0].status, EXECUTION_SUCCEEDED);
    cr_expect_not(was_cold());
    cr_expect_eq(fake_count, 2);
}

Test(pool_idle, more_than_are_to_be_kept_go_as_ever)
{
    open_pool(KEEP_MS, 1000, 4);
    pool_keep(pool, alpha, 1);
    settle();
    invoke(alpha);
    invoke(alpha);
    cr_assert_eq(fake_count, 2);
    fake_answer(&fakes[0], "1", 0);
    fake_answer(&fakes[1], "1", 0);
    look_after(6 * MINUTE);
    cr_expect_eq(fakes_alive(), 1);
    pool_keep(pool, alpha, 0);
    look_after(6 * MINUTE);
    cr_expect_eq(fakes_alive(), 0);
}

Test(pool_idle, a_kept_instance_that_ends_is_replaced)
{
    open_pool(KEEP_MS, 1000, 4);
    pool_keep(pool, alpha, 1);
    settle();
    fake_close(&fakes[0]);
    settle();
    cr_assert_eq(fake_count, 2);
    invoke(alpha);
    fake_close(&fakes[1]);
    settle();
    cr_expect_eq(outcomes[0].status, EXECUTION_LOST);
    cr_expect_eq(fake_count, 3);
    cr_expect_eq(fakes_alive(), 1);
}

Test(pool_idle, a_kept_instance_that_ends_again_and_again_is_replaced_with_pauses)
{
    open_pool(KEEP_MS, 1000, 4);
    pool_keep(pool, alpha, 1);
    settle();
    fake_close(&fakes[0]);
    settle();
    cr_assert_eq(fake_count, 2, "once may be chance");
    fake_close(&fakes[1]);
    settle();
    cr_expect_eq(fake_count, 2);
    invoke(alpha);
    cr_assert_eq(fake_count, 3, "who waits is served at once");
    fake_answer(&fakes[2], "1", 0);
    fake_close(&fakes[2]);
    settle();
    cr_expect_eq(fake_count, 4, "one that has served somebody is as good as the first");
}

Test(pool_idle, with_keep_alive_zero_a_fresh_one_is_kept_ready)
{
    open_pool(0, 1000, 4);
    pool_keep(pool, alpha, 1);
    settle();
    cr_assert_eq(fake_count, 1);
    call(alpha, 0);
    cr_expect_not(was_cold());
    cr_expect(fakes[0].stopped);
    cr_expect_eq(fake_count, 2);
    call(alpha, 1);
    cr_expect_not(was_cold());
}

Test(pool_idle, kept_instances_that_cannot_start_are_tried_with_pauses)
{
    open_pool(KEEP_MS, 1000, 4);
    fake_starts_fail = true;
    pool_keep(pool, alpha, 1);
    settle();
    cr_expect_eq(fake_count, 1);
    invoke(beta); /* something happens meanwhile */
    settle();
    cr_expect_eq(fake_count, 2);
    fake_starts_fail = false;
    while (fakes_alive() == 0)
        uv_run(&loop, UV_RUN_ONCE);
    settle();
    call(alpha, 2);
    cr_expect_not(was_cold());
}

Test(pool_idle, others_make_room_for_kept_ones_but_not_they_for_each_other)
{
    open_pool(KEEP_MS, 200, 4);
    call(beta, 0);
    pool_keep(pool, alpha, 2);
    settle();
    look_after(0);
    cr_expect(fakes[0].stopped);
    cr_expect_eq(fakes_alive(), 2);
    pool_keep(pool, beta, 1);
    settle();
    look_after(0);
    cr_expect_eq(fake_count, 3, "there is no room for it");
    call(beta, 3);
    cr_expect_eq(outcomes[1].status, EXECUTION_SUCCEEDED,
                 "but a call that would wait for ever takes the place of one");
}

Test(pool_idle, a_function_too_large_for_the_worker_evicts_nobody_for_nothing)
{
    open_pool(KEEP_MS, 200, 4);
    call(beta, 0);
    alpha->spec.memory_mb = 300;
    pool_keep(pool, alpha, 1);
    settle();
    look_after(0);
    cr_expect_not(fakes[0].stopped);
    cr_expect_eq(fake_count, 1);
    alpha->spec.memory_mb = 100;
}

Test(pool_idle, kept_instances_come_from_the_generic_ones)
{
    open_pool_of(1, KEEP_MS, 1000, 4);
    pool_prewarm(pool, &alpha->spec);
    await_fakes(1);
    pool_keep(pool, alpha, 1);
    settle();
    cr_expect_str_eq(fakes[0].function, "alpha");
    call(alpha, 0);
    cr_expect_not(was_cold());
}

Test(pool_idle, stopping_frees_what_was_kept_without_an_instance)
{
    open_pool(KEEP_MS, 50, 4);
    pool_keep(pool, alpha, 1);
    settle();
    cr_expect_eq(fake_count, 0, "it has no room");
}

/* ---- a bound of the function's own ---- */

static bool scheduled_when_stopped = true;

static void note_scheduled(void *data)
{
    (void)data;
    stopped = true;
    scheduled_when_stopped = pool->scheduled;
}

Test(pool_idle, a_pool_that_is_said_to_be_stopped_has_nothing_on_its_way)
{
    open_pool(KEEP_MS, 1000, 4);
    pool_keep(pool, alpha, 1);
    pool_stop(pool, note_scheduled, NULL);
    pool_images_changed(pool);
    settle();
    cr_assert(stopped);
    cr_expect_not(scheduled_when_stopped, "its owner frees it now");
}

Test(pool_idle, max_instances_bounds_a_function)
{
    open_pool(KEEP_MS, 1000, 4);
    alpha->spec.max_instances = 2;
    for (int i = 0; i < 5; i++)
        invoke(alpha);
    invoke(beta);
    cr_expect_eq(fake_count, 3);
    for (int i = 0; i < 3; i++)
        fake_answer(&fakes[0], "1", 0);
    fake_answer(&fakes[1], "1", 0);
    fake_answer(&fakes[0], "1", 0);
    fake_answer(&fakes[2], "1", 0);
    cr_expect_eq(fake_count, 3);
    for (size_t i = 0; i < 5; i++)
        cr_expect_eq(outcomes[i].status, EXECUTION_SUCCEEDED);
}

Test(pool_idle, one_that_is_being_removed_counts_against_max_instances)
{
    open_pool(0, 1000, 4);
    alpha->spec.max_instances = 1;
    for (int i = 0; i < 3; i++)
        invoke(alpha);
    for (size_t i = 0; i < 3; i++) {
        cr_assert_eq(fake_count, i + 1);
        fake_answer(&fakes[i], "1", 0);
        cr_expect_leq(fakes_alive(), 1);
    }
}

/* ---- freezing ---- */

static void open_freezing_pool(int64_t freeze_after_ms)
{
    struct pool_options options = pool_options_of(0, KEEP_MS, 1000, 4);
    options.freeze_after_ms = freeze_after_ms;
    open_pool_with(&options);
}

Test(pool_idle, an_idle_instance_is_frozen_at_once_and_thawed_for_the_next_call)
{
    open_freezing_pool(0);
    call(alpha, 0);
    cr_expect(fakes[0].frozen);
    cr_expect_eq(count_state(INSTANCE_FROZEN), 1);
    invoke(alpha);
    cr_expect_not(fakes[0].frozen);
    cr_expect_eq(count_state(INSTANCE_BUSY), 1);
    fake_answer(&fakes[0], "1", 0);
    cr_expect_eq(fakes[0].freezes, 2);
    cr_expect_eq(fake_count, 1);
}

Test(pool_idle, an_instance_is_frozen_after_it_was_idle_for_a_while)
{
    open_freezing_pool(30);
    uint64_t before_ns = clock_monotonic_ns();
    call(alpha, 0);
    call(beta, 1);
    cr_expect_not(fakes[0].frozen);
    call(alpha, 0);
    while (!fakes[0].frozen || !fakes[1].frozen)
        uv_run(&loop, UV_RUN_ONCE);
    cr_expect_geq(clock_monotonic_ns() - before_ns, 30 * 1000000);
    cr_expect_eq(fakes[0].freezes, 1);
}

Test(pool_idle, a_frozen_instance_goes_like_any_other)
{
    open_freezing_pool(0);
    call(alpha, 0);
    call(beta, 1);
    look_after(6 * MINUTE);
    cr_expect_eq(fakes_alive(), 0);
    call(alpha, 2);
    pool_forget(pool, "alpha", 1);
    cr_expect(fakes[2].stopped);
    call(beta, 3); /* and one is left when the pool stops */
    cr_expect(fakes[3].frozen);
}

Test(pool_idle, a_frozen_instance_that_is_killed_is_removed)
{
    open_freezing_pool(0);
    call(alpha, 0);
    fake_close(&fakes[0]);
    settle();
    cr_expect(fakes[0].stopped);
    cr_expect_eq(pool_instances(pool), 0);
}

Test(pool_idle, a_call_for_an_instance_that_cannot_be_thawed_goes_to_another)
{
    open_freezing_pool(0);
    call(alpha, 0);
    fake_thaws_fail = true;
    invoke(alpha);
    cr_assert_eq(fake_count, 2);
    cr_expect(fakes[0].stopped);
    fake_answer(&fakes[1], "1", 0);
    cr_expect_eq(outcomes[1].status, EXECUTION_SUCCEEDED);
}

Test(pool_idle, with_freezing_off_none_is_frozen)
{
    open_freezing_pool(-1);
    call(alpha, 0);
    look_after(60 * SECOND);
    cr_expect_eq(fakes[0].freezes, 0);
}

/* ---- who goes when room is needed ---- */

static struct function *gamma_function;

static void open_tight_pool(void)
{
    open_pool(KEEP_MS, 200, 4);
    gamma_function = fixture_function("gamma", 100);
}

Test(pool_idle, of_idle_instances_the_one_used_least_makes_room)
{
    open_tight_pool();
    for (int i = 0; i < 20; i++)
        call(alpha, 0);
    call(beta, 1);
    struct member *member;
    TAILQ_FOREACH(member, &pool->idle, age)
    member->worth = (double)member->uses; /* as if starting had taken the same time */
    call(gamma_function, 2);
    cr_expect(fakes[1].stopped);
    cr_expect_not(fakes[0].stopped, "it is older, but used more");
    function_unref(gamma_function);
}

Test(pool_idle, of_idle_instances_the_one_dear_to_make_stays)
{
    open_tight_pool();
    call(alpha, 0);
    call(beta, 1);
    struct member *first = TAILQ_FIRST(&pool->idle), *second = TAILQ_NEXT(first, age);
    first->worth = second->worth + 100;
    call(gamma_function, 2);
    cr_expect_not(fakes[0].stopped);
    cr_expect(fakes[1].stopped);
    cr_expect_gt(pool->eviction.clock, 0);
    function_unref(gamma_function);
}
