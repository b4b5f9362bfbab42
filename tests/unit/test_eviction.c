/* Which idle instance goes: by cost, use, memory and age. */
#include "worker/eviction.h"

#include <criterion/criterion.h>

#define MS 1000000ull

static struct eviction eviction;

static double worth(uint64_t uses, uint64_t cost_ms, int64_t memory_mb)
{
    return eviction_worth(&eviction, uses, cost_ms * MS, memory_mb);
}

Test(eviction, what_is_dear_to_make_is_worth_more)
{
    cr_expect_gt(worth(1, 800, 128), worth(1, 5, 128));
}

Test(eviction, what_is_used_often_is_worth_more)
{
    cr_expect_gt(worth(10, 5, 128), worth(1, 5, 128));
}

Test(eviction, what_takes_much_memory_is_worth_less)
{
    cr_expect_lt(worth(3, 50, 2048), worth(3, 50, 128));
    cr_expect_float_eq(worth(8, 50, 1024), worth(1, 50, 128), 1e-6, "eight times of both");
}

Test(eviction, one_never_used_is_worth_nothing_but_its_age)
{
    cr_expect_eq(worth(0, 500, 128), 0);
}

Test(eviction, the_popular_of_yesterday_falls_behind)
{
    double popular = worth(1000, 10, 128);
    int rounds = 0;

    /* Others come, are used once, and are the least every time. */
    for (; rounds < 100000; rounds++) {
        double other = worth(1, 10, 128);
        if (other > popular)
            break;
        eviction_took(&eviction, other);
    }
    cr_expect_gt(rounds, 100, "not at once");
    cr_expect_lt(rounds, 100000, "but in the end");
}

Test(eviction, the_clock_never_goes_back)
{
    eviction_took(&eviction, 50);
    eviction_took(&eviction, 20);
    cr_expect_eq(eviction.clock, 50);
    cr_expect_gt(worth(1, 1, 16), 50);
}

/* FaasCache's own argument: under pressure from a scan of functions that are called once, the one that is called in between
 * stays, where the oldest-first rule would evict it. */
Test(eviction, a_scan_of_functions_called_once_does_not_flush_the_one_that_is_called_again)
{
    double kept = worth(1, 10, 128);
    uint64_t uses = 1;
    double scanned[3] = {0};

    for (int call = 0; call < 300; call++) {
        if (call % 10 == 0)
            kept = worth(++uses, 10, 128);
        int least = 0;
        for (int i = 1; i < 3; i++)
            if (scanned[i] < scanned[least])
                least = i;
        if (uses > 2)
            cr_assert_leq(scanned[least], kept, "call %d", call);
        eviction_took(&eviction, scanned[least]);
        scanned[least] = worth(1, 10, 128);
    }
}
