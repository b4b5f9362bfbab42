/* What an instance counts when processors are shared out: functions are equal, not instances. */
#include "pool_fixture.h"
#include "worker/pool_internal.h"

TestSuite(pool_weight, .fini = close_pool);

static void invoke_many(struct function *function, int count)
{
    for (int i = 0; i < count; i++)
        invoke_soon(function);
    settle();
}

static void answer(size_t from, size_t to)
{
    for (size_t i = from; i < to; i++)
        fake_answer(&fakes[i], "1", 0);
}

static void expect_parts(size_t from, size_t to, unsigned parts)
{
    for (size_t i = from; i < to; i++)
        cr_expect_eq(fakes[i].parts, parts, "instance %zu: %u", i, fakes[i].parts);
}

/* The pool's timer, twice: what happened before the first one is too long ago at the second. */
static void a_while_passes(void)
{
    cr_assert_not_null(pool->weight);
    for (int i = 0; i < 2; i++)
        pool_weight_look(pool);
}

Test(pool_weight, one_instance_has_its_whole_weight_without_a_word)
{
    open_pool(60000, 1000, 4);
    invoke(alpha);
    cr_expect_eq(fakes[0].weighings, 0);
    cr_expect_null(pool->weight);
    answer(0, 1);
}

Test(pool_weight, several_at_work_share_the_weight_of_one)
{
    open_pool(60000, 1000, 4);
    invoke_many(alpha, 4);
    invoke(beta);
    expect_parts(0, 4, 4);
    cr_expect_eq(fakes[4].weighings, 0, "another function has its own");
    answer(0, 5);
}

Test(pool_weight, parts_are_powers_of_two)
{
    open_pool(60000, 1000, 4);
    invoke_many(alpha, 5);
    expect_parts(0, 5, 8);
    answer(0, 5);
}

Test(pool_weight, one_that_comes_later_weighs_what_the_others_do)
{
    open_pool(60000, 1000, 4);
    invoke_many(alpha, 3);
    expect_parts(0, 3, 4);
    invoke(alpha);
    cr_expect_eq(fakes[3].parts, 4);
    cr_expect_eq(fakes[0].weighings, 1, "said once");
    answer(0, 4);
}

Test(pool_weight, after_a_while_with_less_at_work_each_counts_more)
{
    open_pool(60000, 1000, 4);
    invoke_many(alpha, 4);
    answer(0, 3);
    expect_parts(0, 4, 4);
    a_while_passes();
    expect_parts(0, 4, 1);
    cr_expect_null(pool->weight, "there is nothing to look at any more");
    answer(3, 4);
}

Test(pool_weight, a_short_pause_changes_nothing)
{
    open_pool(60000, 1000, 4);
    invoke_many(alpha, 2);
    answer(0, 2);
    pool_weight_look(pool);
    invoke_many(alpha, 2);
    pool_weight_look(pool);
    expect_parts(0, 2, 2);
    cr_expect_eq(fakes[0].weighings, 1);
    answer(0, 2);
}

Test(pool_weight, a_generic_one_that_is_loaded_weighs_what_the_others_do)
{
    open_pool_of(2, 60000, 1000, 4);
    pool_prewarm(pool, &alpha->spec);
    await_fakes(1);
    invoke(alpha);
    cr_assert_str_eq(fakes[0].function, "alpha");
    invoke_many(alpha, 1);
    await_fakes(2);
    while (count_state(INSTANCE_BUSY) < 2)
        uv_run(&loop, UV_RUN_ONCE);
    size_t weighed = 0;
    for (size_t i = 0; i < fake_count; i++)
        weighed += fakes[i].parts == 2;
    cr_expect_eq(weighed, 2);
    for (size_t i = 0; i < fake_count; i++)
        if (fake_was_asked(&fakes[i]) && strcmp(fakes[i].function, "alpha") == 0 &&
            !fakes[i].generic)
            fake_answer(&fakes[i], "1", 0);
}
