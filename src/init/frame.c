/* The frame reader: a machine of four states (header, meta, body, done) that is fed bytes in pieces
 * of any size. */
#include "init/frame.h"

#include <endian.h>
#include <string.h>

enum { READ_HEADER, READ_META, READ_BODY, READ_BROKEN };

void frame_reader_init(struct frame_reader *reader, uint32_t types, uint32_t body_max)
{
    memset(reader, 0, sizeof(*reader));
    reader->types = types;
    reader->body_max = body_max;
}

void frame_reader_expect(struct frame_reader *reader, uint32_t types, uint32_t body_max)
{
    reader->types = types;
    reader->body_max = body_max;
}

void frame_reader_expect_area(struct frame_reader *reader)
{
    reader->has_area = 1;
}

static enum frame_event refuse(struct frame_reader *reader, const char *problem)
{
    reader->state = READ_BROKEN;
    reader->problem = problem;
    return FRAME_EVENT_INVALID;
}

/* Fills `part` up to `size` bytes in all; whether it is full now. */
static int collect(struct frame_reader *reader, void *part, size_t size, const uint8_t **bytes,
                   size_t *len)
{
    size_t take = size - reader->have < *len ? size - reader->have : *len;

    memcpy((uint8_t *)part + reader->have, *bytes, take);
    reader->have += (uint32_t)take;
    *bytes += take;
    *len -= take;
    return reader->have == size;
}

static void decode_header(struct frame_reader *reader)
{
    struct frame_header wire;

    memcpy(&wire, reader->raw, sizeof(wire));
    reader->header.type = le16toh(wire.type);
    reader->header.flags = le16toh(wire.flags);
    reader->header.meta_len = le32toh(wire.meta_len);
    reader->header.body_len = le32toh(wire.body_len);
    reader->header.value = le32toh(wire.value);
}

/* Of a frame with IN_AREA. */
static const char *area_problem(const struct frame_reader *reader)
{
    const struct frame_header *header = &reader->header;

    if (!reader->has_area || (header->type != FRAME_INVOKE && header->type != FRAME_RESULT))
        return "a frame with its body in memory that it does not have";
    if (header->body_len == 0 || header->body_len % FRAME_IN_AREA_LEN != 0 ||
        header->body_len > FRAME_IN_AREA_MAX)
        return "a frame with its body elsewhere, and more than numbers in it";
    return NULL;
}

static const char *header_problem(const struct frame_reader *reader)
{
    static const int known = FRAME_FLAG_NOT_STARTED | FRAME_FLAG_DIRTY | FRAME_FLAG_STANDS_BY |
                             FRAME_FLAG_AREA | FRAME_FLAG_IN_AREA;
    const struct frame_header *header = &reader->header;

    if (header->type >= 32 || !(reader->types & FRAME_BIT(header->type)))
        return "a frame of a type that is not expected here";
    if (header->flags & ~known)
        return "a frame with flags that do not exist";
    if (header->meta_len > FRAME_META_MAX)
        return "a frame with more than 4096 bytes of meta";
    if (header->body_len > reader->body_max)
        return "a frame with a body over the limit";
    return header->flags & FRAME_FLAG_IN_AREA ? area_problem(reader) : NULL;
}

static enum frame_event begin_body(struct frame_reader *reader)
{
    reader->meta[reader->header.meta_len] = '\0';
    if (memchr(reader->meta, '\0', reader->header.meta_len))
        return refuse(reader, "a frame with a NUL byte in its meta");
    reader->state = READ_BODY;
    reader->have = 0;
    return FRAME_EVENT_HEAD;
}

static enum frame_event next_body(struct frame_reader *reader, const uint8_t **bytes, size_t *len)
{
    size_t left = reader->header.body_len - reader->have;

    if (left == 0) {
        reader->state = READ_HEADER;
        reader->have = 0;
        return FRAME_EVENT_END;
    }
    if (*len == 0)
        return FRAME_EVENT_MORE;
    reader->piece = *bytes;
    reader->piece_len = left < *len ? left : *len;
    reader->have += (uint32_t)reader->piece_len;
    *bytes += reader->piece_len;
    *len -= reader->piece_len;
    return FRAME_EVENT_BODY;
}

enum frame_event frame_reader_next(struct frame_reader *reader, const uint8_t **bytes, size_t *len)
{
    const char *problem;

    switch (reader->state) {
    case READ_HEADER:
        if (*len == 0 || !collect(reader, reader->raw, sizeof(reader->raw), bytes, len))
            return FRAME_EVENT_MORE;
        decode_header(reader);
        problem = header_problem(reader);
        if (problem)
            return refuse(reader, problem);
        reader->state = READ_META;
        reader->have = 0;
        __attribute__((fallthrough));
    case READ_META:
        if (!collect(reader, reader->meta, reader->header.meta_len, bytes, len))
            return FRAME_EVENT_MORE;
        return begin_body(reader);
    case READ_BODY:
        return next_body(reader, bytes, len);
    default:
        return FRAME_EVENT_INVALID;
    }
}

int frame_reader_pending(const struct frame_reader *reader)
{
    return reader->state != READ_HEADER || reader->have > 0;
}

size_t frame_reader_body_left(const struct frame_reader *reader)
{
    return reader->state == READ_BODY ? reader->header.body_len - reader->have : 0;
}

struct frame_header frame_header_make(enum frame_type type, uint16_t flags, uint32_t value,
                                      uint32_t meta_len, uint32_t body_len)
{
    return (struct frame_header){.type = htole16((uint16_t)type),
                                 .flags = htole16(flags),
                                 .meta_len = htole32(meta_len),
                                 .body_len = htole32(body_len),
                                 .value = htole32(value)};
}
