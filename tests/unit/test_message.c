/* base/message.h: the header's bytes, also of messages that cannot be. */
#include "base/message.h"

#include <criterion/criterion.h>
#include <string.h>

Test(message, the_header_is_little_endian)
{
    char header[MESSAGE_HEADER_SIZE];
    message_header_write(header, 0x0102, 0x030405);
    cr_assert_arr_eq(header, "\x02\x01\0\0\x05\x04\x03\0\0\0\0\0", sizeof(header));
    size_t head_len, body_len;
    cr_assert_eq(message_header_read(header, &head_len, &body_len, NULL), 0);
    cr_assert_eq(head_len, 0x0102);
    cr_assert_eq(body_len, 0x030405);
}

Test(message, lengths_that_cannot_be_are_refused)
{
    struct error err = {0};
    size_t head_len, body_len;
    char header[MESSAGE_HEADER_SIZE];
    message_header_write(header, MESSAGE_HEAD_MAX, 0);
    cr_assert_eq(message_header_read(header, &head_len, &body_len, &err), 0);
    message_header_write(header, MESSAGE_HEAD_MAX + 1, 0);
    cr_assert_eq(message_header_read(header, &head_len, &body_len, &err), -1);
    cr_assert_not_null(strstr(err.message, "1048577"));
    message_header_write(header, 0, SIZE_MAX);
    cr_assert_eq(message_header_read(header, &head_len, &body_len, &err), -1);
    message_header_write(header, 0, INT64_MAX);
    cr_assert_eq(message_header_read(header, &head_len, &body_len, &err), 0);
}
