/* base/message.h: batches between controller and worker, also malformed ones. */
#include "base/message.h"

#include "base/cleanup.h"

#include <criterion/criterion.h>
#include <endian.h>
#include <string.h>

#define autobuffer with_cleanup(buffer_deinit) struct buffer

Test(message, what_was_appended_is_read_in_order)
{
    autobuffer batch = BUFFER_INIT(1000);
    struct message message;
    size_t offset = 0;
    cr_assert_eq(message_append(&batch, "{}", 2, "a\0b", 3, NULL), 0);
    cr_assert_eq(message_append(&batch, "{\"x\":1}", 7, NULL, 0, NULL), 0);

    cr_assert_eq(message_next(batch.data, batch.len, &offset, &message, NULL), 1);
    cr_assert_eq(message.head_len, 2);
    cr_assert_arr_eq(message.head, "{}", 2);
    cr_assert_eq(message.body_len, 3);
    cr_assert_arr_eq(message.body, "a\0b", 3);
    cr_assert_eq(message_next(batch.data, batch.len, &offset, &message, NULL), 1);
    cr_assert_arr_eq(message.head, "{\"x\":1}", 7);
    cr_assert_eq(message.body_len, 0);
    cr_assert_eq(message_next(batch.data, batch.len, &offset, &message, NULL), 0);
    cr_assert_eq(offset, batch.len);
}

Test(message, an_empty_batch_has_none)
{
    struct message message;
    size_t offset = 0;
    cr_assert_eq(message_next("", 0, &offset, &message, NULL), 0);
    cr_assert_eq(message_next(NULL, 0, &offset, &message, NULL), 0);
}

Test(message, a_batch_cut_anywhere_is_malformed_and_stays_where_it_is)
{
    autobuffer batch = BUFFER_INIT(1000);
    message_append(&batch, "{}", 2, "body", 4, NULL);
    for (size_t len = 1; len < batch.len; len++) {
        struct message message;
        struct error err;
        size_t offset = 0;
        cr_assert_eq(message_next(batch.data, len, &offset, &message, &err), -1, "%zu", len);
        cr_assert_eq(err.code, ERROR_INVALID_REQUEST);
        cr_assert_eq(offset, 0);
    }
}

static int read_header(uint32_t head_len, uint64_t body_len)
{
    char batch[32] = {0};
    struct message message;
    size_t offset = 0;
    head_len = htole32(head_len);
    body_len = htole64(body_len);
    memcpy(batch, &head_len, 4);
    memcpy(batch + 4, &body_len, 8);
    return message_next(batch, sizeof(batch), &offset, &message, NULL);
}

Test(message, lengths_beyond_what_is_there_are_refused)
{
    cr_assert_eq(read_header(10, 10), 1);
    cr_assert_eq(read_header(10, 11), -1);
    cr_assert_eq(read_header(21, 0), -1);
    cr_assert_eq(read_header(UINT32_MAX, 0), -1);
    cr_assert_eq(read_header(0, UINT64_MAX), -1);
    cr_assert_eq(read_header(20, UINT64_MAX - 10), -1);
    cr_assert_eq(read_header(MESSAGE_HEAD_MAX + 1, 0), -1);
}

Test(message, an_offset_behind_the_end_is_refused)
{
    struct message message;
    size_t offset = 5;
    cr_assert_eq(message_next("abc", 3, &offset, &message, NULL), -1);
}

Test(message, one_that_does_not_fit_leaves_the_batch_as_it_was)
{
    autobuffer batch = BUFFER_INIT(40);
    struct error err;
    cr_assert_eq(message_append(&batch, "{}", 2, "0123456789", 10, &err), 0);
    size_t len = batch.len;
    cr_assert_eq(message_append(&batch, "{}", 2, "0123456789", 10, &err), -1);
    cr_assert_eq(err.code, ERROR_PAYLOAD_TOO_LARGE);
    cr_assert_eq(message_append(&batch, "{}", 2, "", SIZE_MAX, &err), -1);
    cr_assert_eq(message_append(&batch, "", MESSAGE_HEAD_MAX + 1, "", 0, &err), -1);
    cr_assert_eq(batch.len, len);
}
