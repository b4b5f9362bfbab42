/* A hash table from strings to pointers: see string_map.h. */
#include "base/string_map.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

static uint64_t seed(void)
{
    static uint64_t value;
    if (!value && getrandom(&value, sizeof(value), 0) != sizeof(value))
        value = (uint64_t)(uintptr_t)&value;
    return value;
}

/* FNV-1a over the seed and the key, its end mixed so that the low bits depend on all of it. */
static uint32_t hash_of(const char *key)
{
    uint64_t hash = 0xcbf29ce484222325ULL ^ seed();
    for (; *key; key++)
        hash = (hash ^ (uint8_t)*key) * 0x100000001b3ULL;
    hash ^= hash >> 32;
    hash *= 0xd6e8feb86659fd93ULL;
    return (uint32_t)(hash >> 32);
}

static struct string_map_slot *find(const struct string_map *map, const char *key, uint32_t hash)
{
    for (size_t i = hash & (map->capacity - 1);; i = (i + 1) & (map->capacity - 1)) {
        struct string_map_slot *slot = &map->slots[i];
        if (!slot->key || (slot->hash == hash && strcmp(slot->key, key) == 0))
            return slot;
    }
}

void string_map_deinit(struct string_map *map)
{
    free(map->slots);
    memset(map, 0, sizeof(*map));
}

void *string_map_get(const struct string_map *map, const char *key)
{
    if (map->count == 0)
        return NULL;
    const struct string_map_slot *slot = find(map, key, hash_of(key));
    return slot->key ? slot->value : NULL;
}

static int grow(struct string_map *map, struct error *err)
{
    struct string_map bigger = {.capacity = map->capacity ? map->capacity * 2 : 16};
    bigger.slots = calloc(bigger.capacity, sizeof(*bigger.slots));
    if (!bigger.slots)
        return error_set(err, ERROR_INTERNAL, "out of memory for a table of %zu", bigger.capacity);
    string_map_for_each(slot, map) * find(&bigger, slot->key, slot->hash) = *slot;
    bigger.count = map->count;
    free(map->slots);
    *map = bigger;
    return 0;
}

int string_map_put(struct string_map *map, const char *key, void *value, struct error *err)
{
    if ((map->count + 1) * 2 > map->capacity && grow(map, err) < 0)
        return -1;
    uint32_t hash = hash_of(key);
    struct string_map_slot *slot = find(map, key, hash);
    assert(!slot->key);
    *slot = (struct string_map_slot){.key = key, .value = value, .hash = hash};
    map->count++;
    return 0;
}

/* Entries behind the hole that it kept from their own places move up, so that no search ends early.
 */
static void close_hole(struct string_map *map, size_t hole)
{
    size_t mask = map->capacity - 1;
    for (size_t i = (hole + 1) & mask; map->slots[i].key; i = (i + 1) & mask) {
        size_t home = map->slots[i].hash & mask;
        if (((i - home) & mask) >= ((i - hole) & mask)) {
            map->slots[hole] = map->slots[i];
            hole = i;
        }
    }
    memset(&map->slots[hole], 0, sizeof(map->slots[hole]));
}

void *string_map_remove(struct string_map *map, const char *key)
{
    if (map->count == 0)
        return NULL;
    struct string_map_slot *slot = find(map, key, hash_of(key));
    if (!slot->key)
        return NULL;
    void *value = slot->value;
    map->count--;
    close_hole(map, (size_t)(slot - map->slots));
    return value;
}

/* What moves into a hole comes from behind it, or, around the end, from the beginning, where all has been looked at. */
void string_map_sweep(struct string_map *map, bool (*is_over)(const void *value),
                      void (*release)(void *value))
{
    for (size_t i = 0; i < map->capacity;) {
        void *value = map->slots[i].value;
        if (!map->slots[i].key || !is_over(value)) {
            i++;
            continue;
        }
        map->count--;
        close_hole(map, i);
        release(value);
    }
}
