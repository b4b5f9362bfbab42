/* The frames of protocol.h, read and written. Used by faas-init and by the worker; no dependency on
 * any other room.
 *
 * The reader is incremental and takes no memory of its own beyond its struct: it is fed whatever
 * bytes arrived and says what they mean, one event at a time. Meta is collected (it is small), a
 * body is handed on in the pieces in which it came, so a body of any size passes through without
 * being held.
 *
 *     struct frame_reader reader;
 *     frame_reader_init(&reader, FRAME_BIT(FRAME_INVOKE), 6 << 20);
 *     ... bytes, len: what read(2) gave ...
 *     while ((event = frame_reader_next(&reader, &bytes, &len)) != FRAME_EVENT_MORE)
 *         ... act on the event; return after FRAME_EVENT_INVALID ...
 *
 *     HEAD     header and meta are complete
 *     BODY     piece, piece_len: the next bytes of the body; they point into `bytes`
 *     END      the frame is complete (comes for a frame without a body too)
 *     INVALID  problem says why; end the connection
 *
 * Whatever it reads comes from a stranger: types that are not expected, lengths over the limits,
 * reserved flags and a meta with a NUL byte in it are refused, before any byte of the body is
 * taken. After FRAME_EVENT_INVALID every further call says the same. */
#pragma once

#include "init/protocol.h"

#include <stddef.h>

#define FRAME_BIT(type) (1U << (type))

enum frame_event {
    FRAME_EVENT_MORE,
    FRAME_EVENT_HEAD,
    FRAME_EVENT_BODY,
    FRAME_EVENT_END,
    FRAME_EVENT_INVALID,
};

struct frame_reader {
    struct frame_header header;    /* in the machine's byte order */
    char meta[FRAME_META_MAX + 1]; /* NUL-terminated; header.meta_len bytes, none of them NUL */
    const uint8_t *piece;          /* borrowed from the bytes that were passed in */
    size_t piece_len;
    const char *problem; /* static text; NULL while all is well */

    /* private */
    uint32_t types;    /* FRAME_BIT of each type that may come */
    uint32_t body_max; /* bytes */
    int has_area;
    uint32_t state;
    uint32_t have; /* bytes of the part that is being read */
    uint8_t raw[sizeof(struct frame_header)];
};

void frame_reader_init(struct frame_reader *reader, uint32_t types, uint32_t body_max);
/* Other types and another limit from the next header on. */
void frame_reader_expect(struct frame_reader *reader, uint32_t types, uint32_t body_max);
/* From the next header on bodies may be in memory of both sides (IN_AREA). */
void frame_reader_expect_area(struct frame_reader *reader);
/* Takes bytes from *bytes (advancing it, and reducing *len) up to the next event. FRAME_EVENT_MORE:
 * all taken. */
enum frame_event frame_reader_next(struct frame_reader *reader, const uint8_t **bytes, size_t *len);
/* In the middle of a frame: an end of file now means that the other side broke off. */
int frame_reader_pending(const struct frame_reader *reader);

/* Bytes of the body that are still to come; 0 outside of one. */
size_t frame_reader_body_left(const struct frame_reader *reader);

/* A header as it goes onto the wire. */
struct frame_header frame_header_make(enum frame_type type, uint16_t flags, uint32_t value,
                                      uint32_t meta_len, uint32_t body_len);
