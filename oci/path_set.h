/* A set of paths: which ones a layer brought itself, so that its own whiteouts do not hide them. */
#pragma once

#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>

struct path_set {
    char **slots; /* owned; open addressing, NULL is free */
    size_t count, cap;
};

void path_set_deinit(struct path_set *set);
bool path_set_has(const struct path_set *set, const char *path);
/* Adds the path and every folder on its way ("a/b/c": also "a/b" and "a"). */
int path_set_add(struct path_set *set, const char *path, struct error *err);
/* Adds the path alone. */
int path_set_add_only(struct path_set *set, const char *path, struct error *err);
/* Whether one of the folders on the path's way is in the set. */
bool path_set_has_parent(const struct path_set *set, const char *path);
