/* A hash table from strings to pointers. Keys are borrowed: they must live, unchanged, in the value
 * (or as long as it). Open addressing, at most half full; keys of strangers cannot be made to
 * collide, since the hash has a random seed. No lock. */
#pragma once

#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct string_map_slot {
    const char *key; /* NULL: free */
    void *value;
    uint32_t hash;
};

struct string_map {
    struct string_map_slot *slots; /* owned */
    size_t capacity;               /* a power of two, or 0 */
    size_t count;
};

void string_map_deinit(struct string_map *map);
/* NULL when absent. */
void *string_map_get(const struct string_map *map, const char *key);
/* The key must not be there yet. -1 only when out of memory. */
int string_map_put(struct string_map *map, const char *key, void *value, struct error *err);
/* Returns what was there, or NULL. */
void *string_map_remove(struct string_map *map, const char *key);

/* Removes every entry whose value `is_over`, and gives it to `release` then. One walk, however many go: a loop of the caller's would have to begin
 * anew after each, because entries move about when one is removed. */
void string_map_sweep(struct string_map *map, bool (*is_over)(const void *value),
                      void (*release)(void *value));

/* The map must not be changed meanwhile. */
#define string_map_for_each(slot_, map_)                                                           \
    for (struct string_map_slot *slot_ = (map_)->slots;                                            \
         slot_ && slot_ < (map_)->slots + (map_)->capacity; slot_++)                               \
        if (slot_->key)
