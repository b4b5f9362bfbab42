/* What is learnt from the times between calls: synthetic traces, and what the policy makes of them. */
#include "worker/idle_history.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>

#define FIXED_MS 300000u
#define SECOND 1000u
#define MINUTE 60000u
#define HOUR 3600000u

static struct idle_history history;

static void add(uint64_t idle_ms, int times)
{
    for (int i = 0; i < times; i++)
        idle_history_add(&history, idle_ms);
}

static struct idle_windows windows(void)
{
    return idle_history_windows(&history, FIXED_MS);
}

/* Idle times of a Poisson process: calls by chance, at a steady rate. */
static uint64_t by_chance(uint64_t mean_ms)
{
    double uniform = ((double)rand() + 1) / ((double)RAND_MAX + 2);

    return (uint64_t)(-log(uniform) * (double)mean_ms);
}

static void assert_fixed(void)
{
    struct idle_windows got = windows();

    cr_assert(!got.learnt);
    cr_assert_eq(got.prewarm_ms, 0);
    cr_assert_eq(got.keep_alive_ms, FIXED_MS);
}

Test(idle_history, is_small)
{
    cr_expect_leq(sizeof(struct idle_history), 128);
}

Test(idle_history, without_a_past_the_fixed_keep_alive_holds)
{
    assert_fixed();
    add(20 * MINUTE, 9);
    assert_fixed();
    add(20 * MINUTE, 1);
    cr_expect(windows().learnt);
}

Test(idle_history, a_timer_every_ten_minutes_has_its_instance_just_in_time)
{
    for (int i = 0; i < 100; i++)
        add(10 * MINUTE - 500 + (uint64_t)(rand() % 1000), 1);
    struct idle_windows got = windows();
    cr_expect(got.learnt);
    cr_expect_gt(got.prewarm_ms, 7 * MINUTE);
    cr_expect_lt(got.prewarm_ms, 10 * MINUTE - 500);
    cr_expect_gt(got.keep_alive_ms, 10 * MINUTE + 500);
    cr_expect_lt(got.keep_alive_ms, 14 * MINUTE);
}

Test(idle_history, every_idle_time_within_the_range_lies_between_its_own_windows)
{
    for (uint64_t idle_ms = 1; idle_ms < 16384 * SECOND; idle_ms += idle_ms / 50 + 1) {
        history = (struct idle_history){0};
        add(idle_ms, 20);
        struct idle_windows got = windows();
        cr_assert(got.learnt, "%llu", (unsigned long long)idle_ms);
        cr_assert_leq(got.prewarm_ms, idle_ms);
        cr_assert_gt(got.keep_alive_ms, idle_ms);
        cr_assert(got.prewarm_ms == 0 || got.prewarm_ms * 14 > idle_ms * 10, "not much too early");
        cr_assert(got.keep_alive_ms <= idle_ms + idle_ms / 3 || got.keep_alive_ms == MINUTE,
                  "%llu for %llu", (unsigned long long)got.keep_alive_ms,
                  (unsigned long long)idle_ms);
    }
}

Test(idle_history, calls_in_quick_succession_keep_the_instance_for_a_minute)
{
    add(20, 300);
    struct idle_windows got = windows();
    cr_expect(got.learnt);
    cr_expect_eq(got.prewarm_ms, 0);
    cr_expect_eq(got.keep_alive_ms, MINUTE);
    cr_expect_eq(idle_history_windows(&history, 3000).keep_alive_ms, 3000,
                 "or as long as the fixed keep-alive, where that is less");
}

Test(idle_history, an_instance_is_not_given_up_for_less_than_a_minute)
{
    add(50 * SECOND, 50);
    cr_expect(windows().learnt);
    cr_expect_eq(windows().prewarm_ms, 0);
}

Test(idle_history, calls_by_chance_keep_the_instance_as_long_as_one_is_likely)
{
    srand(7);
    for (int i = 0; i < 400; i++)
        idle_history_add(&history, by_chance(10 * MINUTE));
    struct idle_windows got = windows();
    cr_expect(got.learnt);
    cr_expect_eq(got.prewarm_ms, 0, "the next may come at any moment");
    cr_expect_gt(got.keep_alive_ms, 30 * MINUTE);
    cr_expect_lt(got.keep_alive_ms, 2 * HOUR);
}

Test(idle_history, bursts_with_pauses_are_kept_through_the_pauses)
{
    for (int i = 0; i < 40; i++) {
        add(100, 9);
        add(15 * MINUTE, 1);
    }
    struct idle_windows got = windows();
    cr_expect(got.learnt);
    cr_expect_eq(got.prewarm_ms, 0);
    cr_expect_gt(got.keep_alive_ms, 15 * MINUTE);
    cr_expect_lt(got.keep_alive_ms, 21 * MINUTE);
}

Test(idle_history, idle_times_all_over_the_place_say_nothing)
{
    for (int octave = 0; octave < 14; octave++)
        for (int step = 0; step < 4; step++)
            add((uint64_t)(1000 * pow(2, octave + step / 4.0 + 0.1)), 4);
    assert_fixed();
}

Test(idle_history, idle_times_beyond_the_range_say_nothing)
{
    add(10 * HOUR, 30);
    assert_fixed();
    history = (struct idle_history){0};
    add(5 * MINUTE, 70);
    add(10 * HOUR, 30);
    assert_fixed();
}

Test(idle_history, a_few_beyond_the_range_do_not_matter)
{
    add(5 * MINUTE, 90);
    add(10 * HOUR, 10);
    struct idle_windows got = windows();
    cr_expect(got.learnt);
    cr_expect_lt(got.keep_alive_ms, 8 * MINUTE);
    cr_expect_gt(got.prewarm_ms, 3 * MINUTE);
}

Test(idle_history, one_outlier_in_a_thousand_does_not_matter)
{
    for (int i = 0; i < 20; i++) {
        add(5 * MINUTE, 50);
        if (i % 10 == 0)
            add(2 * HOUR, 1);
    }
    cr_expect_lt(windows().keep_alive_ms, 8 * MINUTE);
}

Test(idle_history, a_new_habit_replaces_the_old_one)
{
    add(2 * HOUR, 500);
    cr_expect_gt(windows().prewarm_ms, HOUR);
    add(5 * MINUTE, 5000);
    struct idle_windows got = windows();
    cr_expect(got.learnt);
    cr_expect_lt(got.keep_alive_ms, 8 * MINUTE);
}

Test(idle_history, counts_never_overflow)
{
    add(10, 200000);
    add(100 * HOUR, 200000);
    unsigned sum = history.beyond;
    for (int i = 0; i < IDLE_BINS; i++)
        sum += history.bins[i];
    cr_expect_eq(sum, history.count);
    cr_expect_leq(sum, 1024);
    assert_fixed();
}
