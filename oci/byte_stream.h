/* A source of bytes that is read once, from front to back, block by block: what layers, whole archives
 * and members of archives have in common.
 *
 * Whoever is given one calls byte_stream_next() until it says 0, then byte_stream_close(). */
#pragma once

#include "base/error.h"

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct byte_stream {
    /* The next block: its length, 0 at the end, -1. *ret_block is valid until the next call. */
    ssize_t (*next)(struct byte_stream *stream, const void **ret_block, struct error *err);
    /* Frees the stream itself too. */
    void (*close)(struct byte_stream *stream);
};

static inline ssize_t byte_stream_next(struct byte_stream *stream, const void **ret_block,
                                       struct error *err)
{
    return stream->next(stream, ret_block, err);
}

/* A pointer to the stream's variable, for with_cleanup(); NULL in it is fine. */
static inline void byte_stream_close(struct byte_stream *const *stream)
{
    if (*stream)
        (*stream)->close(*stream);
}

/* NULL when out of memory. Takes `fd` in any case. */
struct byte_stream *byte_stream_from_fd(int fd);
/* The bytes stay the caller's and must outlive the stream. */
struct byte_stream *byte_stream_from_memory(const void *bytes, size_t len);
