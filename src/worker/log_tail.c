/* The last bytes of a log; see log_tail.h. */
#include "worker/log_tail.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void log_tail_init(struct log_tail *tail, size_t max)
{
    *tail = (struct log_tail){.max = max};
}

void log_tail_deinit(struct log_tail *tail)
{
    free(tail->bytes);
    log_tail_init(tail, tail->max);
}

static size_t tail_len(const struct log_tail *tail)
{
    return tail->total < tail->max ? (size_t)tail->total : tail->max;
}

/* Grows by doubling while nothing was lost yet, so that the ring is linear until it is full-sized.
 */
static bool tail_grow(struct log_tail *tail, size_t wanted)
{
    if (tail->size == tail->max || wanted <= tail->size)
        return true;
    size_t size = tail->size ? tail->size : 4096;
    while (size < wanted && size < tail->max)
        size *= 2;
    if (size > tail->max)
        size = tail->max;
    char *bytes = realloc(tail->bytes, size);
    if (!bytes)
        return false;
    tail->bytes = bytes;
    tail->size = size;
    return true;
}

void log_tail_append(struct log_tail *tail, const char *text, size_t len)
{
    size_t wanted = tail_len(tail) + len;
    if (len == 0 || !tail_grow(tail, wanted < tail->max ? wanted : tail->max))
        return; /* nothing to do, or no memory: the log loses this piece */
    if (len > tail->size) {
        text += len - tail->size;
        tail->total += len - tail->size;
        len = tail->size;
    }
    size_t at = (size_t)(tail->total % tail->size);
    size_t first = len < tail->size - at ? len : tail->size - at;
    memcpy(tail->bytes + at, text, first);
    memcpy(tail->bytes, text + first, len - first);
    tail->total += len;
}

/* Copies `len` bytes that start at position `from` of all that was ever written. */
static void tail_copy(const struct log_tail *tail, uint64_t from, char *to, size_t len)
{
    if (len == 0)
        return;
    size_t at = (size_t)(from % tail->size);
    size_t first = len < tail->size - at ? len : tail->size - at;
    memcpy(to, tail->bytes + at, first);
    memcpy(to + first, tail->bytes, len - first);
}

char *log_tail_take(struct log_tail *tail, size_t *ret_len)
{
    size_t len = tail_len(tail);
    char marker[80] = "";
    if (tail->total > len)
        snprintf(marker, sizeof(marker), "[... %llu bytes of log before this were cut ...]\n",
                 (unsigned long long)(tail->total - len));
    size_t marker_len = strlen(marker);
    char *log = malloc(marker_len + len + 1);
    if (log) {
        memcpy(log, marker, marker_len);
        tail_copy(tail, tail->total - len, log + marker_len, len);
        log[marker_len + len] = '\0';
        *ret_len = marker_len + len;
    }
    log_tail_deinit(tail);
    return log;
}

int log_tail_since(const struct log_tail *tail, uint64_t *offset, struct buffer *to,
                   struct error *err)
{
    uint64_t from = tail->total - tail_len(tail);
    if (*offset > from)
        from = *offset;
    size_t len = (size_t)(tail->total - from);
    if (buffer_reserve(to, len, err) < 0)
        return -1;
    tail_copy(tail, from, to->data + to->len, len);
    to->len += len;
    if (to->data)
        to->data[to->len] = '\0';
    *offset = tail->total;
    return 0;
}
