/* The frame reader, fed in pieces whose sizes come from the input too: it must come to the same end as when fed at once. */
#include "init/frame.h"

#include <assert.h>
#include <stdbool.h>
#include <string.h>

#define TYPES                                                                                      \
    (FRAME_BIT(FRAME_INVOKE) | FRAME_BIT(FRAME_EXIT) | FRAME_BIT(FRAME_RESULT) |                   \
     FRAME_BIT(FRAME_LOG))
#define BODY_MAX 5000

struct summary {
    unsigned heads, ends;
    size_t body_bytes;
    const char *problem;
};

static void take(struct frame_reader *reader, const uint8_t *bytes, size_t len,
                 struct summary *summary)
{
    enum frame_event event;

    while ((event = frame_reader_next(reader, &bytes, &len)) != FRAME_EVENT_MORE) {
        if (event == FRAME_EVENT_INVALID) {
            summary->problem = reader->problem;
            return;
        }
        if (event == FRAME_EVENT_HEAD) {
            assert(strlen(reader->meta) == reader->header.meta_len);
            assert(reader->header.body_len <= BODY_MAX);
            assert(!(reader->header.flags & FRAME_FLAG_IN_AREA) ||
                   (reader->has_area && reader->header.body_len <= FRAME_IN_AREA_MAX));
            summary->heads++;
        } else if (event == FRAME_EVENT_BODY) {
            assert(reader->piece_len > 0);
            summary->body_bytes += reader->piece_len;
        } else {
            summary->ends++;
        }
    }
    assert(len == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct frame_reader at_once, in_pieces;
    struct summary whole = {0}, pieces = {0};

    if (size == 0)
        return 0;
    size_t step = data[0] / 2 + 1U;
    bool area = data[0] & 1;
    data++;
    size--;
    frame_reader_init(&at_once, TYPES, BODY_MAX);
    if (area)
        frame_reader_expect_area(&at_once);
    take(&at_once, data, size, &whole);
    frame_reader_init(&in_pieces, TYPES, BODY_MAX);
    if (area)
        frame_reader_expect_area(&in_pieces);
    for (size_t at = 0; at < size && !pieces.problem; at += step)
        take(&in_pieces, data + at, size - at < step ? size - at : step, &pieces);
    assert(whole.heads == pieces.heads && whole.ends == pieces.ends);
    assert(whole.body_bytes == pieces.body_bytes && whole.problem == pieces.problem);
    assert(frame_reader_pending(&at_once) == frame_reader_pending(&in_pieces));
    return 0;
}
