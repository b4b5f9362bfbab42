/* The framing of message batches: writing one message, reading the next one with every length
 * checked. */
#include "base/message.h"

#include <endian.h>
#include <string.h>

struct message_header {
    uint32_t head_len;
    uint64_t body_len;
} __attribute__((packed));

_Static_assert(sizeof(struct message_header) == 12, "12 bytes on the wire");

int message_append(struct buffer *batch, const char *head, size_t head_len, const char *body,
                   size_t body_len, struct error *err)
{
    if (head_len > MESSAGE_HEAD_MAX)
        return error_set(err, ERROR_PAYLOAD_TOO_LARGE,
                         "a message head must be at most %d bytes, not %zu", MESSAGE_HEAD_MAX,
                         head_len);
    if (body_len > batch->max)
        return error_set(err, ERROR_PAYLOAD_TOO_LARGE, "more than %zu bytes", batch->max);
    /* All or nothing: a batch never ends in half a message. */
    if (buffer_reserve(batch, sizeof(struct message_header) + head_len + body_len, err) < 0)
        return -1;

    struct message_header header = {.head_len = htole32((uint32_t)head_len),
                                    .body_len = htole64(body_len)};
    buffer_append(batch, &header, sizeof(header), NULL);
    buffer_append(batch, head, head_len, NULL);
    buffer_append(batch, body, body_len, NULL);
    return 0;
}

int message_next(const char *batch, size_t batch_len, size_t *offset, struct message *ret_message,
                 struct error *err)
{
    size_t start = *offset;
    if (start == batch_len)
        return 0;
    struct message_header header;
    if (start > batch_len || batch_len - start < sizeof(header))
        return error_set(err, ERROR_INVALID_REQUEST,
                         "message at byte %zu: its header is cut off after %zu of %zu bytes", start,
                         start > batch_len ? 0 : batch_len - start, sizeof(header));
    memcpy(&header, batch + start, sizeof(header));

    size_t left = batch_len - start - sizeof(header);
    uint32_t head_len = le32toh(header.head_len);
    uint64_t body_len = le64toh(header.body_len);
    if (head_len > MESSAGE_HEAD_MAX)
        return error_set(err, ERROR_INVALID_REQUEST,
                         "message at byte %zu: its head must be at most %d bytes, not %u", start,
                         MESSAGE_HEAD_MAX, head_len);
    if (head_len > left || body_len > left - head_len)
        return error_set(err, ERROR_INVALID_REQUEST,
                         "message at byte %zu: head of %u and body of %llu bytes, but %zu are left",
                         start, head_len, (unsigned long long)body_len, left);

    const char *head = batch + start + sizeof(header);
    *ret_message = (struct message){
        .head = head, .head_len = head_len, .body = head + head_len, .body_len = (size_t)body_len};
    *offset = start + sizeof(header) + head_len + (size_t)body_len;
    return 1;
}
