/* base/buffer.h: growing, the maximum, taking, reading files. */
#include "base/buffer.h"

#include "base/cleanup.h"

#include <criterion/criterion.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define autobuffer with_cleanup(buffer_deinit) struct buffer

Test(buffer, what_is_appended_is_there_and_ends_in_nul)
{
    autobuffer buffer = BUFFER_INIT(100);
    struct error err;
    cr_assert_null(buffer.data);
    cr_assert_eq(buffer_append(&buffer, "ab\0c", 4, &err), 0);
    cr_assert_eq(buffer_append_string(&buffer, "de", &err), 0);
    cr_assert_eq(buffer_printf(&buffer, &err, "-%d", 42), 0);
    cr_assert_eq(buffer.len, 9);
    cr_assert_arr_eq(buffer.data, "ab\0cde-42", 10);
}

Test(buffer, growing_past_the_maximum_fails_and_changes_nothing)
{
    autobuffer buffer = BUFFER_INIT(10);
    struct error err;
    cr_assert_eq(buffer_append(&buffer, "0123456789", 10, &err), 0);
    cr_assert_eq(buffer_append(&buffer, "x", 1, &err), -1);
    cr_assert_eq(err.code, ERROR_PAYLOAD_TOO_LARGE);
    cr_assert_eq(buffer_printf(&buffer, &err, "%s", "y"), -1);
    cr_assert_eq(buffer_reserve(&buffer, SIZE_MAX, &err), -1);
    cr_assert_eq(buffer_reserve(&buffer, SIZE_MAX - 5, &err), -1);
    cr_assert_str_eq(buffer.data, "0123456789");
    cr_assert_eq(buffer.len, 10);
    cr_assert_eq(buffer_append(&buffer, "", 0, &err), 0);
}

Test(buffer, a_maximum_of_zero_takes_nothing)
{
    autobuffer buffer = BUFFER_INIT(0);
    cr_assert_eq(buffer_append(&buffer, "x", 1, NULL), -1);
    cr_assert_eq(buffer_append(&buffer, NULL, 0, NULL), 0);
    cr_assert_str_empty(buffer.data);
}

Test(buffer, many_small_appends_up_to_the_maximum)
{
    autobuffer buffer = BUFFER_INIT(100000);
    for (int i = 0; i < 100000; i++)
        cr_assert_eq(buffer_append(&buffer, &(char){(char)('a' + i % 26)}, 1, NULL), 0);
    cr_assert_eq(buffer_append(&buffer, "x", 1, NULL), -1);
    for (int i = 0; i < 100000; i++)
        cr_assert_eq(buffer.data[i], 'a' + i % 26);
    cr_assert_leq(buffer.cap, 100001);
}

Test(buffer, consuming_removes_the_beginning)
{
    autobuffer buffer = BUFFER_INIT(10);
    buffer_consume(&buffer, 0);
    buffer_append_string(&buffer, "abcdef", NULL);
    buffer_consume(&buffer, 2);
    cr_assert_str_eq(buffer.data, "cdef");
    cr_assert_eq(buffer.len, 4);
    buffer_consume(&buffer, 4);
    cr_assert_str_empty(buffer.data);
}

Test(buffer, clearing_keeps_the_memory)
{
    autobuffer buffer = BUFFER_INIT(10);
    buffer_append_string(&buffer, "abc", NULL);
    char *data = buffer.data;
    buffer_clear(&buffer);
    cr_assert_eq(buffer.data, data);
    cr_assert_str_empty(buffer.data);
    cr_assert_eq(buffer.len, 0);
}

Test(buffer, taking_hands_the_content_over_and_leaves_a_usable_buffer)
{
    autobuffer buffer = BUFFER_INIT(10);
    size_t len = 99;
    autofree char *nothing = buffer_take(&buffer, &len);
    cr_assert_str_empty(nothing);
    cr_assert_eq(len, 0);
    buffer_append_string(&buffer, "abc", NULL);
    autofree char *content = buffer_take(&buffer, &len);
    cr_assert_str_eq(content, "abc");
    cr_assert_eq(len, 3);
    cr_assert_null(buffer.data);
    cr_assert_eq(buffer_append_string(&buffer, "0123456789", NULL), 0);
    cr_assert_eq(buffer_append_string(&buffer, "x", NULL), -1);
}

static int memory_file(const char *content, size_t len)
{
    int fd = memfd_create("test", MFD_CLOEXEC);
    cr_assert_eq(write(fd, content, len), (ssize_t)len);
    lseek(fd, 0, SEEK_SET);
    return fd;
}

Test(buffer, a_file_of_exactly_the_maximum_is_read_and_one_byte_more_is_refused)
{
    static char content[70001];
    struct error err;
    memset(content, 'x', sizeof(content));
    autoclose int fits = memory_file(content, 70000);
    autobuffer buffer = BUFFER_INIT(70000);
    cr_assert_eq(buffer_read_fd(&buffer, fits, &err), 0);
    cr_assert_eq(buffer.len, 70000);

    autoclose int larger = memory_file(content, 70001);
    autobuffer other = BUFFER_INIT(70000);
    cr_assert_eq(buffer_read_fd(&other, larger, &err), -1);
    cr_assert_eq(err.code, ERROR_PAYLOAD_TOO_LARGE);
}

Test(buffer, reading_a_file_that_is_missing_names_it)
{
    autobuffer buffer = BUFFER_INIT(10);
    struct error err;
    cr_assert_eq(buffer_read_file(&buffer, "/nonexistent/file", &err), -1);
    cr_assert_eq(err.code, ERROR_NOT_FOUND);
    cr_assert_not_null(strstr(err.message, "/nonexistent/file"));
    cr_assert_eq(buffer_read_file(&buffer, "/proc", &err), -1);
    cr_assert_eq(err.code, ERROR_INTERNAL);
}

Test(buffer, files_without_a_size_are_read_to_their_end)
{
    autobuffer buffer = BUFFER_INIT(65536);
    cr_assert_eq(buffer_read_file(&buffer, "/proc/self/status", NULL), 0);
    cr_assert_eq(strncmp(buffer.data, "Name:", 5), 0);
}
