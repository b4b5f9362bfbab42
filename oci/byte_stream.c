/* Byte streams from a descriptor and from memory: see byte_stream.h. */
#include "oci/byte_stream.h"

#include "base/cleanup.h"

#include <errno.h>
#include <fcntl.h>

#define BLOCK_BYTES (256 * 1024)

struct fd_stream {
    struct byte_stream base;
    int fd; /* owned */
    char block[BLOCK_BYTES];
};

static ssize_t fd_next(struct byte_stream *base, const void **ret_block, struct error *err)
{
    struct fd_stream *stream = (struct fd_stream *)base;
    ssize_t len;
    do
        len = read(stream->fd, stream->block, sizeof(stream->block));
    while (len < 0 && errno == EINTR);
    if (len < 0)
        return error_set_errno(err, ERROR_INTERNAL, errno, "cannot read");
    *ret_block = stream->block;
    return len;
}

static void fd_close(struct byte_stream *base)
{
    close(((struct fd_stream *)base)->fd);
    free(base);
}

struct byte_stream *byte_stream_from_fd(int fd)
{
    struct fd_stream *stream = malloc(sizeof(*stream));
    if (!stream) {
        close(fd);
        return NULL;
    }
    stream->base = (struct byte_stream){.next = fd_next, .close = fd_close};
    stream->fd = fd;
    posix_fadvise(fd, 0, 0, POSIX_FADV_SEQUENTIAL);
    return &stream->base;
}

struct memory_stream {
    struct byte_stream base;
    const void *bytes; /* borrowed; NULL once given */
    size_t len;
};

static ssize_t memory_next(struct byte_stream *base, const void **ret_block, struct error *err)
{
    struct memory_stream *stream = (struct memory_stream *)base;
    (void)err;
    if (!stream->bytes)
        return 0;
    *ret_block = steal_pointer(&stream->bytes);
    return (ssize_t)stream->len;
}

static void memory_close(struct byte_stream *base)
{
    free(base);
}

struct byte_stream *byte_stream_from_memory(const void *bytes, size_t len)
{
    struct memory_stream *stream = malloc(sizeof(*stream));
    if (!stream)
        return NULL;
    *stream = (struct memory_stream){
        .base = {.next = memory_next, .close = memory_close}, .bytes = bytes, .len = len};
    return &stream->base;
}
