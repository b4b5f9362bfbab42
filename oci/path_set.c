/* See path_set.h: a hash table that only grows; its user caps the number of paths. */
#include "oci/path_set.h"

#include "base/cleanup.h"

#include <stdint.h>
#include <string.h>

/* FNV-1a. A stranger can make paths collide; their number is capped and the cost is time only. */
static uint64_t hash(const char *path)
{
    uint64_t value = 0xcbf29ce484222325;
    for (; *path; path++)
        value = (value ^ (unsigned char)*path) * 0x100000001b3;
    return value ^ value >> 32;
}

/* The slot that holds `path`, or the free one where it belongs. */
static char **find(const struct path_set *set, const char *path)
{
    size_t i = (size_t)hash(path) & (set->cap - 1);
    while (set->slots[i] && strcmp(set->slots[i], path) != 0)
        i = (i + 1) & (set->cap - 1);
    return &set->slots[i];
}

void path_set_deinit(struct path_set *set)
{
    for (size_t i = 0; i < set->cap; i++)
        free(set->slots[i]);
    free(set->slots);
}

bool path_set_has(const struct path_set *set, const char *path)
{
    return set->cap > 0 && *find(set, path);
}

static int grow(struct path_set *set, struct error *err)
{
    struct path_set bigger = {.cap = set->cap ? 2 * set->cap : 1024};
    bigger.slots = calloc(bigger.cap, sizeof(*bigger.slots));
    if (!bigger.slots)
        return error_set(err, ERROR_INTERNAL, "out of memory");
    for (size_t i = 0; i < set->cap; i++) {
        if (set->slots[i])
            *find(&bigger, set->slots[i]) = set->slots[i];
    }
    free(set->slots);
    set->slots = bigger.slots;
    set->cap = bigger.cap;
    return 0;
}

static int add_one(struct path_set *set, const char *path, bool *ret_new, struct error *err)
{
    if (2 * set->count >= set->cap && grow(set, err) < 0)
        return -1;
    char **slot = find(set, path);
    *ret_new = !*slot;
    if (*slot)
        return 0;
    *slot = strdup(path);
    if (!*slot)
        return error_set(err, ERROR_INTERNAL, "out of memory");
    set->count++;
    return 0;
}

int path_set_add(struct path_set *set, const char *path, struct error *err)
{
    autofree char *prefix = strdup(path);
    bool new = true;
    if (!prefix)
        return error_set(err, ERROR_INTERNAL, "out of memory");
    while (new &&*prefix) {
        if (add_one(set, prefix, &new, err) < 0)
            return -1;
        char *slash = strrchr(prefix, '/');
        *(slash ? slash : prefix) = '\0';
    }
    return 0;
}

int path_set_add_only(struct path_set *set, const char *path, struct error *err)
{
    bool new;
    return add_one(set, path, &new, err);
}

bool path_set_has_parent(const struct path_set *set, const char *path)
{
    autofree char *prefix = set->count ? strdup(path) : NULL;
    char *slash;
    while (prefix && (slash = strrchr(prefix, '/'))) {
        *slash = '\0';
        if (path_set_has(set, prefix))
            return true;
    }
    return false;
}
