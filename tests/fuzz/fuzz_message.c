/* A stream of messages from a stranger: the first byte says into which pieces the rest is cut, its top bit whether there is
 * shared memory (all of it zeros), and its lowest two whether bodies are told where they lie in it, or can be held there. However the bytes come, the same
 * messages are told, each within what was received, and the stream ends once. */
#include "base/message_stream.h"
#include "base/shared_memory.h"

#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MAX_BODY (128UL * 1024)

enum { IN_PLACE = 1, HELD = 2, SHARED = 0x80 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* A connection whose other side has sent `bytes` and is gone. */
struct script {
    struct byte_stream stream; /* first member */
    const uint8_t *bytes;
    size_t len, piece;
};

struct seen {
    struct message_stream *stream;
    size_t messages, bytes, closed;
    uint64_t sum;
};

static ssize_t receive(struct byte_stream *stream, void *to, size_t max)
{
    struct script *script = (struct script *)stream;
    size_t len = script->len < script->piece ? script->len : script->piece;
    len = len < max ? len : max;
    memcpy(to, script->bytes, len);
    script->bytes += len;
    script->len -= len;
    return (ssize_t)len;
}

static ssize_t send_nothing(struct byte_stream *stream, const void *from, size_t len)
{
    (void)stream;
    (void)from;
    (void)len;
    errno = EAGAIN;
    return -1;
}

static void close_script(struct byte_stream *stream)
{
    close(stream->fd);
}

static void add(struct seen *seen, const char *bytes, size_t len)
{
    for (size_t i = 0; i < len; i++)
        seen->sum = seen->sum * 31 + (unsigned char)bytes[i];
    seen->bytes += len;
}

static void on_message(void *data, struct message_in *in)
{
    struct seen *seen = data;
    seen->messages++;
    add(seen, in->message.head, in->message.head_len);
    add(seen, in->message.body, in->message.body_len);
    if (in->message.body_len > MAX_BODY || (in->cut && in->message.body_len > 0))
        abort();
    if (seen->messages % 3 == 0) {
        struct blob *held = message_hold(in, in->message.body_len);
        if (held)
            add(seen, held->bytes, held->len);
        blob_unref(held);
    }
    if (seen->messages % 2) {
        char *body = message_take_body(in);
        if (!body || body[in->message.body_len])
            abort();
        free(body);
    }
}

static void on_closed(void *data, const struct error *why)
{
    struct seen *seen = data;
    seen->closed++;
    if (!why->message[0])
        abort();
    message_stream_free(seen->stream);
}

static struct seen run(const uint8_t *data, size_t size, size_t piece, uint8_t flags)
{
    uv_loop_t loop;
    int ends[2];
    struct seen seen = {0};
    if (uv_loop_init(&loop) || pipe(ends))
        abort();
    close(ends[1]);
    struct script script = {.stream = {.receive = receive,
                                       .send = send_nothing,
                                       .close = close_script,
                                       .fd = ends[0],
                                       .holds_bytes = true},
                            .bytes = data,
                            .len = size,
                            .piece = piece};
    struct message_stream_options options = {.max_body = MAX_BODY,
                                             .max_queued = 1,
                                             .shared_in_place = flags & IN_PLACE,
                                             .shared_held = flags & HELD,
                                             .message = on_message,
                                             .closed = on_closed,
                                             .data = &seen};
    seen.stream = message_stream_new(&loop, &script.stream, &options, NULL);
    if (!seen.stream)
        abort();
    if (flags & SHARED)
        message_stream_share(seen.stream, shared_memory_new(NULL));
    uv_run(&loop, UV_RUN_DEFAULT);
    if (uv_loop_close(&loop) || seen.closed != 1)
        abort();
    return seen;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    uint8_t flags = data[0];
    struct seen whole = run(data + 1, size - 1, SIZE_MAX, flags);
    struct seen pieces = run(data + 1, size - 1, (size_t)(flags & 0x7f) + 1, flags);
    if (whole.messages != pieces.messages || whole.bytes != pieces.bytes ||
        whole.sum != pieces.sum || (!(flags & SHARED) && whole.bytes > size))
        abort();
    return 0;
}
