/* base/text.h: random identifiers and those that sort by time. */
#include "base/text.h"

#include "base/cleanup.h"

#include <criterion/criterion.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

Test(identifier, random_ones_are_hexadecimal_and_differ)
{
    char a[RANDOM_ID_LEN + 1], b[RANDOM_ID_LEN + 1];
    random_id(a);
    random_id(b);
    cr_assert_eq(strlen(a), RANDOM_ID_LEN);
    cr_assert_eq(strspn(a, "0123456789abcdef"), RANDOM_ID_LEN);
    cr_assert_str_neq(a, b);
}

Test(identifier, time_ids_are_valid_and_strictly_increasing)
{
    char last[TIME_ID_LEN + 1] = "", next[TIME_ID_LEN + 1];
    for (int i = 0; i < 100000; i++) {
        time_id(next);
        cr_assert(time_id_valid(next), "%s", next);
        cr_assert_gt(strcmp(next, last), 0, "%s after %s", next, last);
        memcpy(last, next, sizeof(last));
    }
}

Test(identifier, a_time_id_begins_with_the_time_of_its_making)
{
    char id[TIME_ID_LEN + 1], digits[13] = "";
    struct timespec before, after;
    clock_gettime(CLOCK_REALTIME, &before);
    time_id(id);
    clock_gettime(CLOCK_REALTIME, &after);
    memcpy(digits, id, 8);
    memcpy(digits + 8, id + 9, 4);
    long long ms = strtoll(digits, NULL, 16);
    cr_assert_geq(ms, (long long)before.tv_sec * 1000 + before.tv_nsec / 1000000);
    cr_assert_leq(ms, (long long)after.tv_sec * 1000 + after.tv_nsec / 1000000);
}

#define THREADS 4
#define EACH 20000
static char ids[THREADS * EACH][TIME_ID_LEN + 1];

static void *make_ids(void *argument)
{
    size_t first = (size_t)argument * EACH;
    for (size_t i = 0; i < EACH; i++)
        time_id(ids[first + i]);
    return NULL;
}

static int compare_ids(const void *a, const void *b)
{
    return memcmp(a, b, 18); /* the time part only: random bits alone must not be what differs */
}

Test(identifier, threads_never_get_the_same_tick)
{
    pthread_t threads[THREADS];
    for (size_t i = 0; i < THREADS; i++)
        cr_assert_eq(pthread_create(&threads[i], NULL, make_ids, (void *)i), 0);
    for (size_t i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    qsort(ids, ARRAY_LENGTH(ids), sizeof(ids[0]), compare_ids);
    for (size_t i = 1; i < ARRAY_LENGTH(ids); i++)
        cr_assert_neq(compare_ids(ids[i - 1], ids[i]), 0);
}

Test(identifier, what_is_no_time_id_is_told)
{
    static const char *const bad[] = {"",
                                      "0190a5b2-1111-7abc-8def-0123456789a",
                                      "0190a5b2-1111-7abc-8def-0123456789abc",
                                      "0190a5b2-1111-4abc-8def-0123456789ab",
                                      "0190a5b2-1111-7abc-cdef-0123456789ab",
                                      "0190A5b2-1111-7abc-8def-0123456789ab",
                                      "0190a5b2+1111-7abc-8def-0123456789ab",
                                      "0190a5b2-1111-7abc-8def-0123456789g/"};
    cr_assert(time_id_valid("0190a5b2-1111-7abc-8def-0123456789ab"));
    cr_assert(!time_id_valid(NULL));
    for (size_t i = 0; i < ARRAY_LENGTH(bad); i++)
        cr_assert(!time_id_valid(bad[i]), "%s", bad[i]);
}
