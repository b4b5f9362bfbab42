/* What an instance says to the worker, with memory of both sides between them and without: the first byte tells whether there is any, how
 * much, and in what pieces the rest comes. A body has the length that was said, whichever way it came. */
#include "worker/body_area.h"
#include "worker/channel.h"

#include <assert.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define BODY_MAX 3000

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct seen {
    struct channel *channel;
    unsigned ends;
};

static void on_frame(void *data, const struct frame_header *header, const char *meta,
                     const char *body)
{
    struct seen *seen = data;
    size_t len;
    assert(seen->ends == 0);
    assert(header->body_len <= BODY_MAX && body[header->body_len] == '\0');
    assert(strlen(meta) == header->meta_len);
    if (header->type != FRAME_RESULT)
        return;
    char *taken = channel_take_body(seen->channel, &len);
    assert(taken && len == header->body_len);
    free(taken);
}

static void on_too_large(void *data, const struct frame_header *header, const char *meta)
{
    struct seen *seen = data;
    assert(header->body_len > BODY_MAX && !meta);
    seen->ends++;
}

static void on_closed(void *data, const struct error *why)
{
    struct seen *seen = data;
    assert(*why->message);
    seen->ends++;
}

/* Large enough for all bodies, or not. */
static void pass_area(struct channel *channel, bool large)
{
    struct error err = {0};
    struct body_area *area = body_area_new(large ? 4096 : 512, &err);
    if (!area)
        abort();
    channel_pass_area(channel, area);
    if (channel_send(channel, FRAME_INVOKE, 1, "id", "{}", 2, &err) < 0)
        abort();
    channel_use_area(channel);
}

static void say(struct seen *seen, int peer, const uint8_t *data, size_t size, size_t step)
{
    for (size_t at = 0; at < size && seen->ends == 0; at += step) {
        size_t piece = size - at < step ? size - at : step;
        if (write(peer, data + at, piece) != (ssize_t)piece)
            abort();
        channel_read(seen->channel);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct channel_events events = {
        .frame = on_frame, .too_large = on_too_large, .closed = on_closed};
    struct seen seen = {0};
    struct error err = {0};
    uv_loop_t loop;
    int pair[2];
    if (size == 0)
        return 0;
    if (uv_loop_init(&loop) < 0 || socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair) < 0)
        abort();
    seen.channel = channel_new(
        &loop, pair[0], FRAME_BIT(FRAME_READY) | FRAME_BIT(FRAME_RESULT) | FRAME_BIT(FRAME_ERROR),
        BODY_MAX, &events, &seen, &err);
    if (!seen.channel)
        abort();
    if (data[0] & 1)
        pass_area(seen.channel, data[0] & 2);
    say(&seen, pair[1], data + 1, size - 1, 1U + data[0] / 4 * 16U);
    channel_free(seen.channel);
    close(pair[1]);
    uv_run(&loop, UV_RUN_DEFAULT);
    if (uv_loop_close(&loop) < 0)
        abort();
    return 0;
}
