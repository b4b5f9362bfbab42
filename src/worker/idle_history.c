/* The hybrid histogram policy; see idle_history.h. */
#include "worker/idle_history.h"

#include <stddef.h>

#define FIRST_BIN_MS 1000
#define BINS_PER_OCTAVE 4
/* Fewer say nothing yet. */
#define COUNT_MIN 10
/* Of all idle times, that may lie beyond the bins. */
#define BEYOND_PERCENT_MAX 25
#define HEAD_PERCENT 5
#define TAIL_PERCENT 99
#define MARGIN_PERCENT 10
/* To be without an instance for less than this is not worth making it again. */
#define PREWARM_MIN_MS 60000
/* An instance that was just used stays at least so long, unless the fixed keep-alive is shorter: the
 * one pause in a hundred between bursts of calls is likely to end soon, too. */
#define KEEP_ALIVE_MIN_MS 60000

/* Where a bin begins. */
static uint64_t bin_start_ms(size_t bin)
{
    static const uint64_t steps[BINS_PER_OCTAVE] = {1000, 1189, 1414, 1682}; /* 2^(i/4) */

    return bin == 0 ? 0 : steps[(bin - 1) % BINS_PER_OCTAVE] << ((bin - 1) / BINS_PER_OCTAVE);
}

/* IDLE_BINS for what is beyond. */
static size_t bin_of(uint64_t idle_ms)
{
    size_t low = 0, high = IDLE_BINS;

    if (idle_ms < FIRST_BIN_MS)
        return 0;
    if (idle_ms >= bin_start_ms(IDLE_BINS))
        return IDLE_BINS;
    while (high - low > 1) {
        size_t middle = (low + high) / 2;
        if (bin_start_ms(middle) <= idle_ms)
            low = middle;
        else
            high = middle;
    }
    return low;
}

static void halve(struct idle_history *history)
{
    history->count = history->beyond /= 2;
    for (size_t i = 0; i < IDLE_BINS; i++)
        history->count += history->bins[i] /= 2;
}

void idle_history_add(struct idle_history *history, uint64_t idle_ms)
{
    size_t bin = bin_of(idle_ms);

    if (history->count >= IDLE_COUNT_MAX)
        halve(history);
    if (bin == IDLE_BINS)
        history->beyond++;
    else
        history->bins[bin]++;
    history->count++;
}

/* Enough of them, within the bins, and not spread evenly over them: the coefficient of variation of the
 * bins' counts is at least 1. (The paper asks for 2, of bins of one minute each; an exponential distribution, calls that come
 * by chance at a steady rate, passes there and has 1.2 here.) */
static bool is_representative(const struct idle_history *history)
{
    uint64_t sum = 0, squares = 0;

    if (history->count < COUNT_MIN ||
        history->beyond * 100u > history->count * (unsigned)BEYOND_PERCENT_MAX)
        return false;
    for (size_t i = 0; i < IDLE_BINS; i++) {
        sum += history->bins[i];
        squares += (uint64_t)history->bins[i] * history->bins[i];
    }
    return squares * IDLE_BINS >= 2 * sum * sum;
}

/* The bin in which so many percent of what lies in the bins has been counted. */
static size_t percentile(const struct idle_history *history, unsigned percent)
{
    unsigned wanted = (unsigned)(history->count - history->beyond) * percent, seen = 0;
    size_t bin = 0;

    for (; bin < IDLE_BINS - 1; bin++) {
        seen += history->bins[bin] * 100u;
        if (seen > 0 && seen >= wanted)
            break;
    }
    return bin;
}

static uint64_t at_least(uint64_t value, uint64_t least)
{
    return value > least ? value : least;
}

struct idle_windows idle_history_windows(const struct idle_history *history, uint64_t fixed_ms)
{
    if (!is_representative(history))
        return (struct idle_windows){.keep_alive_ms = fixed_ms};

    uint64_t head_ms = bin_start_ms(percentile(history, HEAD_PERCENT));
    uint64_t tail_ms = bin_start_ms(percentile(history, TAIL_PERCENT) + 1);
    uint64_t prewarm_ms = head_ms * (100 - MARGIN_PERCENT) / 100;
    uint64_t keep_alive_ms = tail_ms * (100 + MARGIN_PERCENT) / 100;
    uint64_t least_ms = fixed_ms < KEEP_ALIVE_MIN_MS ? fixed_ms : KEEP_ALIVE_MIN_MS;
    return (struct idle_windows){.learnt = true,
                                 .prewarm_ms = prewarm_ms >= PREWARM_MIN_MS ? prewarm_ms : 0,
                                 .keep_alive_ms = at_least(keep_alive_ms, least_ms)};
}
