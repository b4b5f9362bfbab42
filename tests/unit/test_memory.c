/* base/memory.h: what a burst took goes back when the program rests, and not before. */
#include "base/loop.h"
#include "base/memory.h"

#include <criterion/criterion.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PIECE 4096
#define PIECES 4096 /* 16 MiB */

static size_t resident_bytes(void)
{
    unsigned long size = 0, resident = 0;
    FILE *file = fopen("/proc/self/statm", "re");

    cr_assert_not_null(file);
    cr_assert_eq(fscanf(file, "%lu %lu", &size, &resident), 2);
    fclose(file);
    return resident * (size_t)sysconf(_SC_PAGESIZE);
}

/* Leaves 16 MiB of free heap below a piece that is still in use. */
static void *burst(void)
{
    static char *pieces[PIECES];

    for (size_t i = 0; i < PIECES; i++) {
        pieces[i] = malloc(PIECE);
        cr_assert_not_null(pieces[i]);
        memset(pieces[i], (int)i | 1, PIECE);
    }
    void *last = malloc(PIECE);
    for (size_t i = 0; i < PIECES; i++)
        free(pieces[i]);
    return last;
}

/* In a thread, whose heap is not the one that malloc_trim() knows to the top. */
static void *burst_and_give_back(void *data)
{
    size_t *after = data;

    after[0] = resident_bytes();
    void *last = burst();
    free(last);
    after[1] = resident_bytes();
    memory_give_back();
    after[2] = resident_bytes();
    return NULL;
}

Test(memory, a_thread_gives_back_its_heap_to_the_top)
{
    pthread_t thread;
    size_t after[3] = {0};

#ifdef __SANITIZE_ADDRESS__
    cr_skip_test("the sanitizer has a heap of its own");
#endif
    memory_keep_freed();
    cr_assert_eq(pthread_create(&thread, NULL, burst_and_give_back, after), 0);
    pthread_join(thread, NULL);
    cr_expect_geq(after[1], after[0] + PIECE * (PIECES - 1), "it is kept at first");
    cr_expect_leq(after[2], after[0] + PIECE * PIECES / 4);
}

static void work_for_ms(uint64_t ms)
{
    uint64_t end_ns = clock_monotonic_ns() + ms * 1000000;

    while (clock_monotonic_ns() < end_ns)
        ;
}

static void work_a_little(void *data)
{
    (void)data;
    work_for_ms(40);
}

static void stop_loop(void *data)
{
    uv_stop(data);
}

static void run_for_ms(uv_loop_t *loop, uint64_t ms)
{
    struct loop_timer *end = loop_timer_start(loop, ms, 0, stop_loop, loop, NULL);

    cr_assert_not_null(end);
    uv_run(loop, UV_RUN_DEFAULT);
    loop_timer_stop(end);
}

Test(memory, what_is_free_goes_back_at_rest_and_stays_while_there_is_work, .timeout = 60)
{
    uv_loop_t loop;
    struct error err = {0};

#ifdef __SANITIZE_ADDRESS__
    cr_skip_test("the sanitizer has a heap of its own");
#endif
    memory_keep_freed();
    uv_loop_init(&loop);
    struct memory_rest *rest = memory_rest_start(&loop, &err);
    cr_assert_not_null(rest, "%s", err.message);
    size_t before = resident_bytes();
    void *last = burst();
    size_t after = resident_bytes();
    cr_assert_geq(after, before + PIECE * (PIECES - 1));

    struct loop_timer *work = loop_timer_start(&loop, 0, 50, work_a_little, NULL, NULL);
    cr_assert_not_null(work);
    run_for_ms(&loop, 1600);
    cr_expect_geq(resident_bytes(), after - PIECE * PIECES / 2, "it is kept for the next call");
    loop_timer_stop(work);

    while (resident_bytes() > before + PIECE * PIECES / 4)
        uv_run(&loop, UV_RUN_ONCE);
    memory_rest_stop(rest);
    loop_close(&loop);
    free(last);
}
