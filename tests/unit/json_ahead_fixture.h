/* For tests of what reads large JSON while it comes. */
#pragma once

#include "base/json_tree.h"

#include <stdlib.h>
#include <string.h>

/* Whether the first half had been read before: it is not looked at again. */
static inline bool half_was_seen(const struct json_ahead *ahead, const char *text, size_t len)
{
    static const struct json_limits limits = {
        .max_bytes = SIZE_MAX, .max_depth = 1000, .max_values = SIZE_MAX};
    char *copy = malloc(len);
    memcpy(copy, text, len);
    memset(copy, '\n', len / 2);
    bool seen = ahead && json_scan_rest(ahead, copy, len, &limits);
    free(copy);
    return seen;
}
