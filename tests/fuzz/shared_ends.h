/* For fuzz targets of what goes through memory of two ends: both ends of one, here in one process, which stay from run to run, because to
 * make them anew would take most of the time. */
#pragma once

#include "base/shared_memory.h"

#include <stdlib.h>
#include <string.h>

struct shared_ends {
    struct shared_memory *maker, *opener;
    /* Where the maker's bodies are, the opener's, and those that the maker shows, for who writes them. */
    char *makers, *openers, *shown;
};

static inline struct shared_memory *shared_ends_open(const struct shared_memory *maker)
{
    struct buffer text = BUFFER_INIT(1000);
    struct json_writer *writer = json_writer_new(&text);
    if (!writer)
        abort();
    shared_memory_offer(maker, writer);
    if (json_writer_finish(writer, NULL) < 0)
        abort();
    struct json *offer = json_parse(text.data, text.len, NULL, NULL);
    struct shared_memory *opener = offer ? shared_memory_open(offer, NULL) : NULL;
    json_free(offer);
    buffer_deinit(&text);
    return opener;
}

/* Where its area begins, all of which is free. */
static inline char *shared_ends_area(struct shared_memory *memory)
{
    struct shared_place place;
    char *bytes = shared_memory_reserve(memory, SHARED_AREA_SIZE, &place);
    if (!bytes)
        abort();
    shared_memory_cancel(memory, &place);
    return bytes;
}

static inline void shared_ends_init(struct shared_ends *ends)
{
    ends->maker = shared_memory_new(NULL);
    ends->opener = ends->maker ? shared_ends_open(ends->maker) : NULL;
    if (!ends->opener || !shared_memory_is_shown(ends->opener))
        abort();
    shared_memory_withdraw(ends->maker);
    shared_memory_show(ends->maker);
    ends->makers = shared_ends_area(ends->maker);
    ends->openers = shared_ends_area(ends->opener);
    struct blob *shown = shared_memory_room(ends->maker, SHARED_AREA_SIZE, 0);
    if (!shown)
        abort();
    ends->shown = (char *)shown->bytes;
    blob_unref(shown);
}
