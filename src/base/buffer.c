/* The growable byte buffer: doubles as it grows, never beyond its maximum. */
#include "base/buffer.h"

#include "base/cleanup.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define FIRST_CAPACITY 64
#define READ_STEP 65536

void buffer_init(struct buffer *buffer, size_t max)
{
    *buffer = BUFFER_INIT(max);
}

void buffer_deinit(struct buffer *buffer)
{
    free(buffer->data);
    *buffer = BUFFER_INIT(buffer->max);
}

void buffer_clear(struct buffer *buffer)
{
    buffer->len = 0;
    if (buffer->data)
        buffer->data[0] = '\0';
}

int buffer_reserve(struct buffer *buffer, size_t additional, struct error *err)
{
    if (additional > buffer->max || buffer->len > buffer->max - additional)
        return error_set(err, ERROR_PAYLOAD_TOO_LARGE, "more than %zu bytes", buffer->max);
    size_t needed = buffer->len + additional + 1;
    if (needed <= buffer->cap)
        return 0;

    size_t cap = buffer->cap ? buffer->cap : FIRST_CAPACITY;
    while (cap < needed)
        cap = cap > SIZE_MAX / 2 ? needed : cap * 2;
    if (cap - 1 > buffer->max)
        cap = buffer->max + 1;
    char *data = realloc(buffer->data, cap);
    if (!data)
        return error_set(err, ERROR_INTERNAL, "out of memory for a buffer of %zu bytes", cap);
    buffer->data = data;
    buffer->cap = cap;
    data[buffer->len] = '\0';
    return 0;
}

int buffer_append(struct buffer *buffer, const void *data, size_t len, struct error *err)
{
    if (buffer_reserve(buffer, len, err) < 0)
        return -1;
    if (len > 0)
        memcpy(buffer->data + buffer->len, data, len);
    buffer->len += len;
    buffer->data[buffer->len] = '\0';
    return 0;
}

int buffer_append_string(struct buffer *buffer, const char *string, struct error *err)
{
    return buffer_append(buffer, string, strlen(string), err);
}

int buffer_printf(struct buffer *buffer, struct error *err, const char *format, ...)
{
    va_list arguments, again;
    va_start(arguments, format);
    va_copy(again, arguments);
    int len = vsnprintf(NULL, 0, format, arguments);
    va_end(arguments);

    int result = -1;
    if (len < 0) {
        error_set_errno(err, ERROR_INTERNAL, errno, "cannot format text");
    } else if (buffer_reserve(buffer, (size_t)len, err) == 0) {
        vsnprintf(buffer->data + buffer->len, (size_t)len + 1, format, again);
        buffer->len += (size_t)len;
        result = 0;
    }
    va_end(again);
    return result;
}

void buffer_consume(struct buffer *buffer, size_t len)
{
    if (len == 0)
        return;
    buffer->len -= len;
    memmove(buffer->data, buffer->data + len, buffer->len + 1);
}

char *buffer_take(struct buffer *buffer, size_t *ret_len)
{
    char *data = buffer->data ? buffer->data : calloc(1, 1);
    if (data && ret_len)
        *ret_len = buffer->len;
    if (data)
        *buffer = BUFFER_INIT(buffer->max);
    return data;
}

int buffer_read_fd(struct buffer *buffer, int fd, struct error *err)
{
    for (;;) {
        size_t room = buffer->max - buffer->len;
        size_t step = room < READ_STEP ? room : READ_STEP;
        char probe;
        if (step > 0 && buffer_reserve(buffer, step, err) < 0)
            return -1;
        /* A full buffer is right only if the file ends here. */
        ssize_t got = step > 0 ? read(fd, buffer->data + buffer->len, step) : read(fd, &probe, 1);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return error_set_errno(err, ERROR_INTERNAL, errno, "cannot read");
        if (got > 0 && step == 0)
            return error_set(err, ERROR_PAYLOAD_TOO_LARGE, "more than %zu bytes", buffer->max);
        if (got == 0)
            break;
        buffer->len += (size_t)got;
        buffer->data[buffer->len] = '\0';
    }
    return 0;
}

int buffer_read_file(struct buffer *buffer, const char *path, struct error *err)
{
    autoclose int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        enum error_code code = errno == ENOENT ? ERROR_NOT_FOUND : ERROR_INTERNAL;
        return error_set_errno(err, code, errno, "cannot open %s", path);
    }
    if (buffer_read_fd(buffer, fd, err) < 0)
        return error_wrap(err, "%s", path);
    return 0;
}
