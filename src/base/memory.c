/* The heap's thresholds and its rest: see memory.h. */
#include "base/memory.h"

#include "base/loop.h"

#include <malloc.h>
#include <stdlib.h>
#include <time.h>

#define KEPT_MAX (32 * 1024 * 1024) /* the most that glibc takes for M_MMAP_THRESHOLD */
/* Of a thread's own heap malloc_trim() leaves the top, which only a free() gives back: of a piece that makes glibc look (64 KiB), and with
 * a threshold that is passed. */
#define TOP_PIECE (128 * 1024)
#define LOOK_MS 500
#define NS_PER_MS 1000000ull
/* Processor time of the whole program: less than the one from one look to the next is rest, less than the other since memory was given back
 * leaves too little behind for doing it again. */
#define REST_NS (5 * NS_PER_MS)
#define WORK_NS (50 * NS_PER_MS)

static int trim_threshold = TOP_PIECE; /* glibc's own, until main() asks for another */

struct memory_rest {
    struct loop_timer *timer;
    uint64_t seen_ns,
        trimmed_ns; /* processor time at the last look, and when memory was given back */
};

void memory_keep_freed(void)
{
    mallopt(M_MMAP_THRESHOLD, KEPT_MAX);
    mallopt(M_TRIM_THRESHOLD, KEPT_MAX);
    trim_threshold = KEPT_MAX;
}

void memory_give_back(void)
{
    malloc_trim(0);
    mallopt(M_TRIM_THRESHOLD, TOP_PIECE);
    void *volatile piece = malloc(TOP_PIECE); /* volatile: a compiler may leave out both calls */
    free(piece);
    mallopt(M_TRIM_THRESHOLD, trim_threshold);
}

static uint64_t processor_ns(void)
{
    struct timespec time = {0};

    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
    return (uint64_t)time.tv_sec * 1000 * NS_PER_MS + (uint64_t)time.tv_nsec;
}

static void look(void *data)
{
    struct memory_rest *rest = data;
    uint64_t now_ns = processor_ns(), used_ns = now_ns - rest->seen_ns;

    rest->seen_ns = now_ns;
    if (used_ns >= REST_NS || now_ns - rest->trimmed_ns < WORK_NS)
        return;
    memory_give_back();
    rest->seen_ns = rest->trimmed_ns = processor_ns();
}

struct memory_rest *memory_rest_start(uv_loop_t *loop, struct error *err)
{
    struct memory_rest *rest = calloc(1, sizeof(*rest));

    if (!rest) {
        error_set(err, ERROR_INTERNAL, "out of memory");
        return NULL;
    }
    rest->timer = loop_timer_start(loop, LOOK_MS, LOOK_MS, look, rest, err);
    if (rest->timer)
        return rest;
    free(rest);
    return NULL;
}

void memory_rest_stop(struct memory_rest *rest)
{
    if (!rest)
        return;
    loop_timer_stop(rest->timer);
    free(rest);
}
