/* Greedy dual size frequency; see eviction.h. */
#include "worker/eviction.h"

#include <assert.h>

#define NS_PER_US 1000

double eviction_worth(const struct eviction *eviction, uint64_t uses, uint64_t cost_ns,
                      int64_t memory_mb)
{
    assert(memory_mb > 0);
    return eviction->clock + (double)uses * ((double)cost_ns / NS_PER_US) / (double)memory_mb;
}

void eviction_took(struct eviction *eviction, double worth)
{
    if (worth > eviction->clock)
        eviction->clock = worth;
}
