/* The hash table: against a plain array as the model, through growth and removal. */
#include "base/string_map.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define KEYS 5000

static char keys[KEYS][16];
static bool present[KEYS];

static void check_all(const struct string_map *map)
{
    size_t count = 0;
    for (size_t i = 0; i < KEYS; i++) {
        cr_assert_eq(string_map_get(map, keys[i]), present[i] ? keys[i] : NULL, "key %zu", i);
        count += present[i];
    }
    cr_assert_eq(map->count, count);
}

Test(string_map, does_what_an_array_does)
{
    struct string_map map = {0};
    unsigned random = 1;
    for (size_t i = 0; i < KEYS; i++)
        snprintf(keys[i], sizeof(keys[i]), "key-%zu", i);
    cr_expect_null(string_map_get(&map, "key-0"));
    cr_expect_null(string_map_remove(&map, "key-0"));
    for (int step = 0; step < 60000; step++) {
        random = random * 1103515245 + 12345;
        size_t i = (random >> 8) % KEYS;
        if (present[i])
            cr_assert_eq(string_map_remove(&map, keys[i]), keys[i]);
        else
            cr_assert_eq(string_map_put(&map, keys[i], keys[i], NULL), 0);
        present[i] = !present[i];
        if (step % 6000 == 0)
            check_all(&map);
    }
    check_all(&map);
    size_t walked = 0;
    string_map_for_each(slot, &map)
    {
        cr_assert_str_eq(slot->key, slot->value);
        walked++;
    }
    cr_expect_eq(walked, map.count);
    string_map_deinit(&map);
    cr_expect_eq(map.count, 0);
}

static bool is_odd(const void *value)
{
    return atoi((const char *)value + strlen("key-")) % 2 == 1;
}

static size_t released;

static void release(void *value)
{
    cr_assert(is_odd(value));
    released++;
}

/* Of tables of every size, so that entries lie around the end of some. */
Test(string_map, sweeps_out_what_is_over_and_nothing_else)
{
    for (size_t count = 1; count < 400; count++) {
        struct string_map map = {0};
        released = 0;
        for (size_t i = 0; i < count; i++) {
            snprintf(keys[i], sizeof(keys[i]), "key-%zu", i);
            cr_assert_eq(string_map_put(&map, keys[i], keys[i], NULL), 0);
        }
        string_map_sweep(&map, is_odd, release);
        cr_assert_eq(released, count / 2);
        cr_assert_eq(map.count, count - count / 2);
        for (size_t i = 0; i < count; i++)
            cr_assert_eq(string_map_get(&map, keys[i]), i % 2 ? NULL : keys[i], "%zu of %zu", i,
                         count);
        string_map_deinit(&map);
    }
}
