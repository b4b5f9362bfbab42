/* How long a function stays idle between its calls, and what that says about its instances: the hybrid histogram policy of
 * M. Shahrad et al., "Serverless in the Wild" (USENIX ATC 2020), section 4.
 *
 * Every idle time is counted in a histogram. When the histogram is representative, an instance is needed between its 5th
 * and 99th percentile after the last call, each with a tenth of margin: before that it may be gone, if it is made again in
 * time, and after that nobody is likely to come. Otherwise the fixed keep-alive holds.
 *
 * Three things differ from the paper. Bins grow by a quarter octave, so that one minute and four hours are known with the same
 * relative precision in 58 numbers instead of 240. Counts are halved when there are many, so that what a function
 * does now outweighs what it did long ago. And a function whose idle times lie beyond the range is not forecast by a time
 * series model: it gets the fixed keep-alive.
 *
 * Plain data and pure functions: no clock, no thread. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

/* The first: below one second. The last ends at 2^14 s, 4 hours and 33 minutes. */
#define IDLE_BINS 57
/* Idle times in a history at most: then all counts are halved. */
#define IDLE_COUNT_MAX 512

struct idle_history {
    uint16_t bins[IDLE_BINS];
    uint16_t beyond; /* longer than all bins */
    uint16_t count;  /* all of them together */
};

/* All times are from the end of the last call. */
struct idle_windows {
    bool learnt;            /* false: the fixed keep-alive, for want of anything better */
    uint64_t prewarm_ms;    /* until then no instance is needed; 0: keep it */
    uint64_t keep_alive_ms; /* from then on none is */
};

/* A call came so long after the one before had ended. */
void idle_history_add(struct idle_history *history, uint64_t idle_ms);
struct idle_windows idle_history_windows(const struct idle_history *history, uint64_t fixed_ms);
