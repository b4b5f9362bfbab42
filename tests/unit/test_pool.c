/* Which instance runs which invocation, with instances that do what the test says. */
#include "pool_fixture.h"
#include "worker/instance_internal.h"
#include "worker/pool_internal.h"

TestSuite(pool, .fini = close_pool);

Test(pool, the_first_invocation_starts_an_instance_and_the_second_uses_it)
{
    open_pool(60000, 1000, 4);
    invoke(alpha);
    cr_assert_eq(fake_count, 1);
    fake_answer(&fakes[0], "1", 0);
    cr_expect_eq(outcomes[0].status, EXECUTION_SUCCEEDED);
    cr_expect_str_eq(outcomes[0].result, "1");
    cr_expect(outcomes[0].cold);
    invoke(alpha);
    fake_answer(&fakes[0], "2", 0);
    cr_expect_str_eq(outcomes[1].result, "2");
    cr_expect_not(outcomes[1].cold);
    cr_expect_eq(fake_count, 1);
}

Test(pool, an_instance_serves_one_function_only)
{
    open_pool(60000, 1000, 4);
    invoke(alpha);
    fake_answer(&fakes[0], "1", 0);
    invoke(beta);
    cr_assert_eq(fake_count, 2);
    cr_expect_str_eq(fakes[1].function, "beta");
    fake_answer(&fakes[1], "2", 0);
}

Test(pool, invocations_at_once_get_an_instance_each)
{
    open_pool(60000, 1000, 4);
    invoke(alpha);
    invoke(alpha);
    cr_assert_eq(fake_count, 2);
    cr_expect(fake_was_asked(&fakes[0]));
    cr_expect(fake_was_asked(&fakes[1]));
    fake_answer(&fakes[1], "1", 0);
    fake_answer(&fakes[0], "2", 0);
}

Test(pool, keep_alive_zero_is_an_instance_for_each)
{
    open_pool(0, 1000, 4);
    invoke(alpha);
    fake_answer(&fakes[0], "1", 0);
    cr_expect(fakes[0].stopped);
    invoke(alpha);
    cr_assert_eq(fake_count, 2);
    fake_answer(&fakes[1], "2", 0);
    cr_expect(outcomes[1].cold);
    cr_expect_eq(pool_instances(pool), 0);
}

Test(pool, memory_is_a_bound_and_the_longest_idle_makes_room)
{
    open_pool(60000, 200, 4);
    invoke(alpha);
    fake_answer(&fakes[0], "1", 0);
    invoke(beta);
    invoke(beta);
    cr_expect(fakes[0].stopped, "the idle one of alpha had to go");
    cr_assert_eq(fake_count, 3);
    cr_expect_eq(fakes_alive(), 2);
    invoke(alpha);
    cr_expect_eq(fake_count, 3, "no room while both of beta are busy");
    fake_answer(&fakes[1], "2", 0);
    cr_assert_eq(fake_count, 4, "the idle one of beta made room");
    fake_answer(&fakes[2], "3", 0);
    fake_answer(&fakes[3], "4", 0);
    cr_expect_str_eq(outcomes[3].result, "4");
}

Test(pool, what_never_fits_is_refused)
{
    open_pool(60000, 99, 4);
    invoke(alpha);
    cr_expect_eq(outcomes[0].status, EXECUTION_LOST);
    cr_expect_str_eq(outcomes[0].type, "Platform.NoCapacity");
    cr_expect_eq(fake_count, 0);
}

Test(pool, a_failed_start_is_told_to_who_waited)
{
    open_pool(60000, 1000, 4);
    fake_starts_fail = true;
    invoke(alpha);
    cr_expect_eq(outcomes[0].status, EXECUTION_LOST);
    cr_expect_str_eq(outcomes[0].type, "Platform.StartFailed");
    fake_starts_fail = false;
    invoke(alpha);
    fake_answer(&fakes[1], "1", 0);
    cr_expect_eq(outcomes[1].status, EXECUTION_SUCCEEDED);
}

Test(pool, who_waits_takes_an_instance_that_became_free_first)
{
    open_pool(60000, 100, 4);
    invoke(alpha);
    invoke(alpha);
    cr_expect_eq(fake_count, 1);
    fake_answer(&fakes[0], "1", 0);
    fake_answer(&fakes[0], "2", 0);
    cr_expect_str_eq(outcomes[1].result, "2");
    cr_expect_not(outcomes[1].cold);
}

Test(pool, an_idle_instance_that_ends_is_removed)
{
    open_pool(60000, 1000, 4);
    invoke(alpha);
    fake_answer(&fakes[0], "1", 0);
    fake_close(&fakes[0]);
    settle();
    cr_expect(fakes[0].stopped);
    cr_expect_eq(pool_instances(pool), 0);
}

Test(pool, an_instance_that_ends_while_busy_loses_its_invocation_only)
{
    open_pool(60000, 1000, 4);
    invoke(alpha);
    fake_close(&fakes[0]);
    settle();
    cr_expect_str_eq(outcomes[0].type, "Platform.InstanceEnded");
    cr_expect_eq(outcomes[0].status, EXECUTION_LOST);
    invoke(alpha);
    fake_answer(&fakes[1], "1", 0);
    cr_expect_eq(outcomes[1].status, EXECUTION_SUCCEEDED);
}

Test(pool, out_of_memory_is_told_by_the_kernels_counter_and_spends_the_instance)
{
    open_pool(60000, 1000, 4);
    invoke(alpha);
    fake_oom_kills = 1;
    fake_answer(&fakes[0], "", 9);
    cr_expect_eq(outcomes[0].status, EXECUTION_OUT_OF_MEMORY);
    cr_expect(fakes[0].stopped);
    invoke(alpha);
    fake_answer(&fakes[1], "", 9);
    cr_expect_eq(outcomes[1].status, EXECUTION_FAILED);
    cr_expect_str_eq(outcomes[1].type, "Function.Signal");
}

Test(pool, cancelling_ends_who_waits_and_who_runs)
{
    open_pool(60000, 100, 4);
    struct invocation *running = invoke(alpha);
    struct invocation *waiting = invoke(alpha);
    pool_cancel(pool, waiting);
    cr_expect_eq(outcomes[1].status, EXECUTION_CANCELLED);
    pool_cancel(pool, running);
    cr_expect_eq(outcomes[0].status, EXECUTION_CANCELLED);
    cr_expect(fakes[0].stopped);
}

Test(pool, forgetting_removes_idle_ones_now_and_busy_ones_afterwards)
{
    open_pool(60000, 1000, 4);
    invoke(alpha);
    invoke(alpha);
    fake_answer(&fakes[0], "1", 0);
    pool_forget(pool, "alpha", 2);
    cr_expect_not(fakes[0].stopped);
    pool_forget(pool, "alpha", 1);
    cr_expect(fakes[0].stopped);
    cr_expect_not(fakes[1].stopped);
    fake_answer(&fakes[1], "2", 0);
    cr_expect(fakes[1].stopped);
}

Test(pool, stopping_ends_everything)
{
    open_pool(60000, 200, 4);
    invoke(alpha);
    fake_answer(&fakes[0], "1", 0);
    invoke(beta);
    invoke(beta);
    invoke(beta);
    pool_stop(pool, on_pool_stopped, NULL);
    settle();
    cr_expect(stopped);
    for (size_t i = 1; i < invoked; i++) {
        cr_expect_eq(outcomes[i].status, EXECUTION_LOST);
        cr_expect_str_eq(outcomes[i].type, "Platform.Stopping");
    }
}

/* ---- generic instances ---- */

static struct function_spec *generic_like(void)
{
    return &alpha->spec;
}

static void open_warm_pool(size_t size)
{
    open_pool_of(size, 60000, 1000, 4);
    pool_prewarm(pool, generic_like());
    await_fakes(1);
}

Test(pool, a_prewarmed_kind_has_one_that_waits)
{
    open_warm_pool(3);
    cr_expect_eq(fake_count, 1);
    cr_expect(fakes[0].generic);
    cr_expect_eq(count_state(INSTANCE_WARM), 1);
    pool_prewarm(pool, generic_like());
    settle();
    cr_expect_eq(fake_count, 1);
}

Test(pool, a_kind_that_is_prewarmed_no_more_is_not_started_again)
{
    open_warm_pool(3);
    pool_prewarm_no_more(pool, generic_like());
    fake_close(&fakes[0]);
    settle();
    struct generic_kind *kind = pool_kind_for(pool, generic_like());
    cr_assert_not_null(kind);
    cr_expect_not(kind->prewarmed);
    kind->retry_ns = 0;
    pool_images_changed(pool);
    settle();
    cr_expect_eq(fake_count, 1);
    pool_prewarm(pool, generic_like());
    await_fakes(2);
}

Test(pool, a_function_without_instance_takes_a_generic_one)
{
    open_warm_pool(1);
    invoke(alpha);
    cr_expect_str_eq(fakes[0].function, "alpha");
    cr_expect(fake_was_asked(&fakes[0]));
    fake_answer(&fakes[0], "1", 0);
    cr_expect(outcomes[0].cold);
    cr_expect_str_eq(outcomes[0].result, "1");
}

Test(pool, what_was_taken_is_replaced_and_a_kind_in_use_is_kept_in_full)
{
    open_warm_pool(3);
    invoke(alpha);
    await_fakes(4);
    fake_answer(&fakes[0], "1", 0);
    cr_expect_eq(count_state(INSTANCE_WARM), 3);
    cr_expect_eq(count_state(INSTANCE_IDLE), 1);
}

/* An invocation runs, what was taken is due to be replaced, and there are so many processors. */
static void open_busy_pool(size_t size, size_t cpus)
{
    open_warm_pool(size);
    pool->cpus = cpus;
    invoke(alpha);
    pool->refill_due_ns = pool->rest_ns = 0;
}

static void end_calls(void)
{
    fake_answer(&fakes[0], "1", 0);
    pool->call_ns = 0;
    pool_schedule(pool);
}

Test(pool, while_calls_come_a_part_of_the_processors_starts_generic_ones)
{
    open_busy_pool(5, 8);
    pool_schedule(pool);
    cr_expect_eq(fake_count, 1 + 8 / 4);
    await_fakes(1 + 5); /* all the same, one after the other */
    cr_expect_eq(count_state(INSTANCE_WARM), 5);
}

Test(pool, without_calls_generic_ones_are_started_as_many_at_once_as_may_be)
{
    open_busy_pool(5, 8);
    end_calls();
    cr_expect_geq(fake_count, 1 + 4);
}

Test(pool, on_a_small_machine_calls_have_a_pause_between_two_starts)
{
    open_busy_pool(5, 1);
    pool_schedule(pool);
    cr_assert_eq(fake_count, 2);
    while (count_state(INSTANCE_WARM) == 0)
        uv_run(&loop, UV_RUN_ONCE);
    cr_assert_gt(pool->rest_ns, 0);
    pool->rest_ns += 60ull * 1000000000;
    pool_schedule(pool);
    settle();
    cr_expect_eq(fake_count, 2);
    end_calls();
    cr_expect_gt(fake_count, 2);
}

Test(pool, a_pause_of_the_calls_ends_that_on_a_small_machine, .timeout = 60)
{
    open_busy_pool(5, 1);
    pool_schedule(pool);
    while (count_state(INSTANCE_WARM) == 0)
        uv_run(&loop, UV_RUN_ONCE);
    pool->rest_ns += 600ull * 1000000000;
    fake_answer(&fakes[0], "1", 0);
    await_fakes(1 + 5);
    cr_expect_eq(count_state(INSTANCE_WARM), 5);
}

Test(pool, while_calls_come_one_that_hangs_holds_up_the_others_for_a_while_only)
{
    open_busy_pool(3, 1);
    fake_starts_hang = true;
    pool_schedule(pool);
    settle();
    pool_schedule(pool);
    cr_assert_eq(fake_count, 2);
    fake_starts_hang = false;
    pool->rise_ns -= 60ull * 1000000000;
    pool_schedule(pool);
    settle();
    cr_expect_eq(fake_count, 3);
    cr_expect_eq(count_state(INSTANCE_WARM), 1);
}

Test(pool, an_instance_that_was_generic_serves_its_function_for_ever)
{
    open_warm_pool(1);
    invoke(alpha);
    fake_answer(&fakes[0], "1", 0);
    await_fakes(2);
    invoke(beta);
    cr_expect_str_eq(fakes[0].function, "alpha");
    cr_expect_str_eq(fakes[1].function, "beta");
    fake_answer(&fakes[1], "2", 0);
    cr_expect_str_eq(outcomes[1].result, "2");
}

Test(pool, keep_alive_zero_takes_a_fresh_generic_one_each_time)
{
    open_pool_of(1, 0, 1000, 4);
    pool_prewarm(pool, generic_like());
    await_fakes(1);
    invoke(alpha);
    fake_answer(&fakes[0], "1", 0);
    cr_expect(fakes[0].stopped);
    await_fakes(2);
    invoke(alpha);
    cr_expect_not(fakes[1].generic);
    fake_answer(&fakes[1], "2", 0);
    cr_expect(fakes[1].stopped);
    cr_expect(outcomes[1].cold);
}

Test(pool, an_environment_that_the_interpreter_reads_at_its_start_is_started_for)
{
    open_warm_pool(1);
    struct function_spec *spec = &beta->spec;
    spec->env.items = calloc(1, sizeof(*spec->env.items));
    spec->env.items[0] =
        (struct key_value){.key = strdup("PYTHONPATH"), .value = strdup("/app/function/lib")};
    spec->env.count = 1;
    invoke(beta);
    cr_expect(fakes[0].generic);
    cr_expect_str_eq(fakes[1].function, "beta");
    fake_answer(&fakes[1], "1", 0);
}

Test(pool, an_empty_pool_costs_nothing_extra)
{
    open_pool_of(1, 60000, 1000, 4);
    invoke(alpha);
    cr_expect_eq(fake_count, 1);
    cr_expect_str_eq(fakes[0].function, "alpha");
    fake_answer(&fakes[0], "1", 0);
}

Test(pool, a_generic_one_that_ends_while_it_waits_is_removed)
{
    open_warm_pool(1);
    fake_close(&fakes[0]);
    settle();
    cr_expect(fakes[0].stopped);
    cr_expect_eq(pool_instances(pool), 0);
    invoke(alpha);
    cr_expect_str_eq(fakes[1].function, "alpha");
    fake_answer(&fakes[1], "1", 0);
    cr_expect_eq(outcomes[0].status, EXECUTION_SUCCEEDED);
}

Test(pool, a_generic_one_that_ends_while_it_is_loaded_costs_its_invocation_nothing)
{
    open_warm_pool(1);
    fake_loads_end = true;
    invoke(alpha);
    fake_loads_end = false;
    cr_expect(fakes[0].stopped);
    cr_expect_eq(outcomes[0].done, 0);
    fake_answer(&fakes[1], "1", 0);
    cr_expect_eq(outcomes[0].status, EXECUTION_SUCCEEDED);
}

Test(pool, a_function_that_cannot_be_loaded_is_started_from_then_on)
{
    open_warm_pool(1);
    fake_specialise_error = ERROR_NO_CAPACITY;
    invoke(alpha);
    fake_specialise_error = 0;
    cr_expect(fakes[0].stopped);
    cr_expect_not(fakes[1].generic);
    await_fakes(3);
    invoke(alpha);
    cr_expect(fakes[2].generic, "not tried again");
    cr_expect_str_eq(fakes[3].function, "alpha");
    fake_answer(&fakes[1], "1", 0);
    fake_answer(&fakes[3], "2", 0);
}

Test(pool, generic_ones_of_a_replaced_image_go)
{
    open_warm_pool(1);
    fakes[0].outdated = true;
    pool_images_changed(pool);
    settle();
    cr_expect(fakes[0].stopped);
    await_fakes(2);
    fakes[1].outdated = true; /* and nobody says so */
    invoke(alpha);
    cr_expect(fakes[1].stopped);
    cr_expect_str_eq(fakes[2].function, "alpha");
    fake_answer(&fakes[2], "1", 0);
}

Test(pool, one_that_makes_nothing_ahead_does_so_again_when_it_is_told)
{
    open_warm_pool(3);
    pool_make_ahead(pool, false);
    invoke(alpha);
    fake_answer(&fakes[0], "1", 0);
    pool->refill_due_ns = pool->refill_latest_ns = 0;
    pool_schedule(pool);
    settle();
    cr_expect_eq(fake_count, 1);
    invoke(beta); /* what is needed is made */
    cr_assert_eq(fake_count, 2);
    fake_answer(&fakes[1], "2", 0);
    cr_expect_str_eq(outcomes[1].result, "2");
    pool_make_ahead(pool, true);
    await_fakes(3);
    cr_expect(fakes[2].generic);
}

Test(pool, generic_ones_make_room_for_functions)
{
    open_pool_of(1, 60000, 200, 4);
    pool_prewarm(pool, generic_like());
    await_fakes(1);
    beta->spec.network = NETWORK_NONE; /* another kind */
    invoke(beta);
    invoke(beta);
    cr_expect(fakes[0].stopped);
    fake_answer(&fakes[1], "1", 0);
    fake_answer(&fakes[2], "2", 0);
    cr_expect_str_eq(outcomes[1].result, "2");
}

Test(pool, a_kind_that_cannot_be_started_is_not_tried_again_at_once)
{
    fake_starts_fail = true;
    open_warm_pool(3);
    settle();
    cr_expect_eq(fake_count, 1);
    fake_starts_fail = false;
    cr_expect_eq(pool_instances(pool), 0);
}

Test(pool, a_generic_one_that_failed_is_replaced_without_anything_else_happening)
{
    open_warm_pool(2);
    invoke(alpha);
    fake_answer(&fakes[0], "1", 0);
    await_fakes(3);
    invoke(beta); /* another look is due soon when the rest fails */
    fake_close(&fakes[1]);
    settle();
    cr_expect_eq(count_state(INSTANCE_WARM), 0);
    fake_answer(&fakes[2], "2", 0);
    while (count_state(INSTANCE_WARM) < 2)
        uv_run(&loop, UV_RUN_ONCE);
}

Test(pool, who_waits_takes_the_generic_one_that_is_on_its_way)
{
    open_pool_of(1, 60000, 1000, 4);
    pool_prewarm(pool, generic_like());
    while (fake_count < 1)
        uv_run(&loop, UV_RUN_NOWAIT);
    cr_assert_not(fakes[0].started);
    invoke(alpha);
    cr_expect_eq(fake_count, 1);
    cr_expect_str_eq(fakes[0].function, "alpha");
    fake_answer(&fakes[0], "1", 0);
}

Test(pool, short_calls_wait_for_the_busy_instance_instead_of_many_new_ones)
{
    open_pool(60000, 1000, 4);
    invoke(alpha);
    fake_answer(&fakes[0], "1", 0);
    for (int i = 0; i < 5; i++)
        invoke(alpha);
    cr_expect_eq(fake_count, 1);
    for (int i = 0; i < 5; i++)
        fake_answer(&fakes[0], "2", 0);
    cr_expect_eq(outcomes[5].done, 1);
    cr_expect_eq(fake_count, 1);
}

Test(pool, who_has_waited_for_as_long_as_a_start_takes_gets_one)
{
    open_pool(60000, 1000, 4);
    invoke(alpha);
    fake_answer(&fakes[0], "1", 0);
    invoke(alpha);
    invoke(alpha);
    cr_expect_eq(fake_count, 1);
    await_fakes(2);
    fake_answer(&fakes[1], "2", 0);
    fake_answer(&fakes[0], "3", 0);
    cr_expect_str_eq(outcomes[2].result, "2");
}

/* ---- instances that take several at once ---- */

static void allow_several(int64_t concurrency)
{
    alpha->spec.contract = CONTRACT_HANDLER;
    alpha->spec.concurrency = concurrency;
}

static void say_ready(size_t fake, uint32_t places)
{
    fake_say(&fakes[fake], 1, FRAME_READY, places, "");
    settle();
}

static void say_result(size_t fake, const struct invocation *invocation)
{
    char id[TIME_ID_LEN + 1];
    snprintf(id, sizeof(id), "%s", invocation->execution.id);
    fake_say_of(&fakes[fake], 1, FRAME_RESULT, 0, id, "1");
    settle();
}

Test(pool, one_instance_is_made_for_as_many_as_it_takes)
{
    open_pool(60000, 1000, 4);
    allow_several(3);
    struct invocation *calls[4];
    for (int i = 0; i < 4; i++)
        calls[i] = invoke(alpha);
    cr_assert_eq(fake_count, 2);
    say_ready(0, 3);
    for (int i = 0; i < 3; i++)
        cr_expect_eq(calls[i]->instance, calls[0]->instance);
    cr_expect_null(calls[3]->instance);
    for (int i = 0; i < 3; i++)
        say_result(0, calls[i]);
    for (int i = 0; i < 3; i++) {
        cr_expect_eq(outcomes[i].status, EXECUTION_SUCCEEDED);
        cr_expect(outcomes[i].cold, "each of them waited for it");
    }
}

Test(pool, a_busy_instance_with_a_place_is_filled_before_an_idle_one)
{
    open_pool(60000, 1000, 4);
    allow_several(2);
    struct invocation *first = invoke(alpha), *second = invoke(alpha), *third = invoke(alpha);
    cr_assert_eq(fake_count, 2);
    say_ready(0, 2);
    say_ready(1, 2);
    say_result(1, third);
    say_result(0, second);
    cr_assert_eq(count_state(INSTANCE_IDLE), 1);
    struct invocation *fourth = invoke(alpha);
    cr_expect_eq(fourth->instance, first->instance);
    struct invocation *fifth = invoke(alpha);
    cr_expect_neq(fifth->instance, first->instance);
    cr_expect_eq(fake_count, 2);
    cr_expect_not(outcomes[3].cold);
    say_result(0, first);
    say_result(0, fourth);
    say_result(1, fifth);
    cr_expect_eq(count_state(INSTANCE_IDLE), 2);
}

Test(pool, an_instance_with_a_call_that_was_given_up_is_replaced_when_the_others_are_done)
{
    open_pool(60000, 1000, 4);
    allow_several(2);
    struct invocation *first = invoke(alpha), *second = invoke(alpha);
    say_ready(0, 2);
    pool_cancel(pool, first);
    settle();
    cr_expect_eq(outcomes[0].status, EXECUTION_CANCELLED);
    cr_expect_not(fakes[0].stopped);
    invoke(alpha);
    await_fakes(2);
    say_result(0, second);
    cr_expect_eq(outcomes[1].status, EXECUTION_SUCCEEDED);
    cr_expect(fakes[0].stopped);
}

Test(pool, with_a_keep_alive_of_nothing_each_still_has_an_instance_of_its_own)
{
    open_pool(0, 1000, 4);
    allow_several(3);
    struct invocation *first = invoke(alpha), *second = invoke(alpha);
    cr_assert_eq(fake_count, 2);
    say_ready(0, 3);
    say_ready(1, 3);
    cr_expect_neq(first->instance, second->instance);
    say_result(0, first);
    cr_expect(fakes[0].stopped);
}

Test(pool, an_adapter_that_takes_one_at_a_time_gets_one_at_a_time)
{
    open_pool(60000, 1000, 4);
    allow_several(3);
    struct invocation *first = invoke(alpha), *second = invoke(alpha);
    cr_assert_eq(fake_count, 1);
    say_ready(0, 0);
    cr_expect_not_null(first->instance);
    cr_expect_null(second->instance);
    fake_say(&fakes[0], 1, FRAME_RESULT, 0, "1");
    settle();
    cr_expect_eq(outcomes[0].status, EXECUTION_SUCCEEDED);
    cr_expect_not_null(second->instance);
}
