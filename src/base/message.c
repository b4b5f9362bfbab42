/* The header of a message: written and read. */
#include "base/message.h"

#include <endian.h>
#include <string.h>

#define SHARED_BIT 0x80 /* of the header's fourth byte, which is head_len's highest */

void message_header_write(char out[MESSAGE_HEADER_SIZE], size_t head_len, size_t body_len)
{
    uint32_t head_le = htole32((uint32_t)head_len);
    uint64_t body_le = htole64(body_len);
    memcpy(out, &head_le, sizeof(head_le));
    memcpy(out + sizeof(head_le), &body_le, sizeof(body_le));
}

int message_header_read(const char in[MESSAGE_HEADER_SIZE], size_t *ret_head_len,
                        size_t *ret_body_len, struct error *err)
{
    uint32_t head_le;
    uint64_t body_le;
    memcpy(&head_le, in, sizeof(head_le));
    memcpy(&body_le, in + sizeof(head_le), sizeof(body_le));
    if (le32toh(head_le) > MESSAGE_HEAD_MAX)
        return error_set(err, ERROR_INVALID_REQUEST,
                         "a message's head must be at most %d bytes, not %u", MESSAGE_HEAD_MAX,
                         le32toh(head_le));
    if (le64toh(body_le) > INT64_MAX)
        return error_set(err, ERROR_INVALID_REQUEST, "a message's body cannot have %llu bytes",
                         (unsigned long long)le64toh(body_le));
    *ret_head_len = le32toh(head_le);
    *ret_body_len = le64toh(body_le);
    return 0;
}

void message_header_mark_shared(char header[MESSAGE_HEADER_SIZE])
{
    header[3] = (char)((unsigned char)header[3] | SHARED_BIT);
}

bool message_header_unmark_shared(char header[MESSAGE_HEADER_SIZE])
{
    bool marked = (unsigned char)header[3] & SHARED_BIT;
    header[3] = (char)((unsigned char)header[3] & ~SHARED_BIT);
    return marked;
}

void message_place_write(char out[MESSAGE_PLACE_SIZE], uint64_t at, uint64_t len)
{
    uint64_t words[2] = {htole64(at), htole64(len)};
    memcpy(out, words, sizeof(words));
}

void message_place_read(const char in[MESSAGE_PLACE_SIZE], uint64_t *ret_at, uint64_t *ret_len)
{
    uint64_t words[2];
    memcpy(words, in, sizeof(words));
    *ret_at = le64toh(words[0]);
    *ret_len = le64toh(words[1]);
}
