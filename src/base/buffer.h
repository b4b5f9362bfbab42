/* A growable byte buffer with a mandatory maximum.
 *
 * Life cycle: buffer_init() (or BUFFER_INIT(max)), append, read `data`/`len`, buffer_deinit().
 * `data` is always NUL-terminated (the NUL is not counted in `len`), and NULL only while nothing
 * was ever appended. Growing past `max` fails with ERROR_PAYLOAD_TOO_LARGE and leaves the content
 * as it was. */
#pragma once

#include "base/error.h"

#include <stdarg.h>
#include <stddef.h>

struct buffer {
    char *data; /* owned */
    size_t len;
    size_t cap;
    size_t max; /* bytes, without the NUL */
};

#define BUFFER_INIT(max_bytes) ((struct buffer){.max = (max_bytes)})

void buffer_init(struct buffer *buffer, size_t max);
void buffer_deinit(struct buffer *buffer);
/* Empties it and keeps the memory. */
void buffer_clear(struct buffer *buffer);
int buffer_reserve(struct buffer *buffer, size_t additional, struct error *err);
int buffer_append(struct buffer *buffer, const void *data, size_t len, struct error *err);
int buffer_append_string(struct buffer *buffer, const char *string, struct error *err);
int buffer_printf(struct buffer *buffer, struct error *err, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* Removes the first `len` bytes (len <= buffer->len). */
void buffer_consume(struct buffer *buffer, size_t len);
/* The content becomes the caller's (free() it); the buffer is empty afterwards. *ret_len may be
 * NULL. "" when empty; NULL only when out of memory. */
char *buffer_take(struct buffer *buffer, size_t *ret_len);
/* The whole of a file, at most `buffer->max` bytes. */
int buffer_read_file(struct buffer *buffer, const char *path, struct error *err);
/* Everything up to end of file. */
int buffer_read_fd(struct buffer *buffer, int fd, struct error *err);
