/* The header of a message: written and read. */
#include "base/message.h"

#include <endian.h>
#include <string.h>

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
