/* The last bytes of a log: a ring that grows as far as its cap, and knows how much was ever written. Loop thread only. */
#pragma once

#include "base/buffer.h"

#include <stdbool.h>
#include <stdint.h>

struct log_tail {
    char *bytes; /* owned ring; NULL until something is written */
    size_t size; /* of the ring; grows up to max */
    size_t max;
    uint64_t total; /* bytes ever written; the newest is at (total - 1) % size */
};

void log_tail_init(struct log_tail *tail, size_t max);
void log_tail_deinit(struct log_tail *tail);
/* Without memory for it, the log loses this piece. */
void log_tail_append(struct log_tail *tail, const char *text, size_t len);
/* What is kept, with a marker line before it when something was cut, which becomes the caller's (NULL: out of memory); the tail is
 * empty afterwards. */
char *log_tail_take(struct log_tail *tail, size_t *ret_len);
/* What came from `*offset` on (all bytes ever written count; what was cut is skipped). *offset moves behind it. */
int log_tail_since(const struct log_tail *tail, uint64_t *offset, struct buffer *to,
                   struct error *err);
