/* Which idle instance is worth least: greedy dual size frequency (L. Cherkasova, HP Laboratories 1998; for instances of
 * functions A. Fuerst and P. Sharma, "FaasCache", ASPLOS 2021).
 *
 *     worth = clock + uses x cost of making it again / memory
 *
 * `uses` is how often it was used, an estimate of how likely it will be: since the one used last is always taken first, the
 * surplus of a burst is used little and is worth little. The clock rises to the worth of whatever was evicted, so that those not used
 * since then fall behind, however popular they once were. Plain arithmetic: no clock of time, no thread. */
#pragma once

#include <stdint.h>

struct eviction {
    double clock;
};

/* When an instance was used for the `uses`th time; keep it beside the instance. `cost_ns` is how long making it took;
 * `memory_mb` is above 0. */
double eviction_worth(const struct eviction *eviction, uint64_t uses, uint64_t cost_ns,
                      int64_t memory_mb);
/* The one with this worth, the least of all, goes. */
void eviction_took(struct eviction *eviction, double worth);
