/* A message stream over a socket pair, with the test as the other side, and what it told last. */
#pragma once

#include "json_ahead_fixture.h"

#include "base/blob.h"
#include "base/buffer.h"
#include "base/message_stream.h"
#include "base/shared_memory.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define MAX_BODY 1000000

struct pair_stream {
    struct byte_stream stream; /* first member */
    size_t sends;
};

static uv_loop_t loop;
static struct pair_stream pair;
static struct message_stream *stream;
static int peer = -1;
static int messages, closed, settled, cut, seen_ahead;
static char last_head[100];
static char *last_body; /* taken */
static size_t last_len;
static bool free_in_message, answer_when_settled;
static struct shared_memory *told_from; /* NULL: no message tells a body where it lies */
static bool told_in_place, done_too_soon;
static enum { TAKE, HOLD, OWN } does; /* with a body */
static struct blob *last_held;        /* owned */
static const char *last_told;
/* Above the socket, as TLS has what is left of a record; handed out a message at a time. */
static char held[64][MESSAGE_HEADER_SIZE + 1];
static size_t held_count;

static inline ssize_t pair_receive(struct byte_stream *base, void *to, size_t max)
{
    ssize_t got = recv(base->fd, to, max, MSG_DONTWAIT);
    if (got >= 0 || held_count == 0)
        return got;
    cr_assert_geq(max, sizeof(held[0]));
    memcpy(to, held[--held_count], sizeof(held[0]));
    return sizeof(held[0]);
}

static inline ssize_t pair_send(struct byte_stream *base, const void *from, size_t len)
{
    pair.sends++;
    return send(base->fd, from, len, MSG_DONTWAIT | MSG_NOSIGNAL);
}

static inline void pair_close(struct byte_stream *base)
{
    close(base->fd);
}

static inline void drop_stream(void)
{
    message_stream_free(stream);
    stream = NULL;
}

/* What is there of the body is read last: it must stand until the end of the call. */
static inline void see_in_place(struct message_in *in)
{
    struct shared_place place;
    const char *from;
    last_body = message_take_room(in, &from);
    told_in_place = from == in->message.body;
    done_too_soon = shared_memory_reserve(told_from, SHARED_AREA_SIZE, &place);
    if (free_in_message)
        drop_stream();
    if (from)
        memcpy(last_body, from, in->message.body_len);
}

static inline void on_message(void *data, struct message_in *in)
{
    (void)data;
    messages++;
    seen_ahead += half_was_seen(in->message.ahead, in->message.body, in->message.body_len);
    cut += in->cut;
    last_len = in->message.body_len;
    snprintf(last_head, sizeof(last_head), "%.*s", (int)in->message.head_len, in->message.head);
    free(last_body);
    last_body = NULL;
    last_told = in->message.body;
    if (told_from) {
        see_in_place(in);
        return;
    }
    if (does == HOLD && (last_held = message_hold(in, in->message.body_len - 1))) {
        if (free_in_message)
            drop_stream();
        return;
    }
    if (does == OWN)
        cr_assert_eq(message_own_body(in, NULL), 0);
    last_body = message_take_body(in);
    if (free_in_message)
        drop_stream();
}

static inline void on_settled(void *data)
{
    (void)data;
    settled++;
    if (answer_when_settled) {
        cr_expect_eq(message_stream_send(stream, "{}", 2, NULL, 0, NULL), 0);
        message_stream_push(stream);
    }
}

static inline void on_closed(void *data, const struct error *why)
{
    (void)data;
    cr_expect_gt(strlen(why->message), 0);
    closed++;
}

enum told { COPIED, IN_PLACE, HELD };

static inline void open_stream(enum told told)
{
    struct message_stream_options options = {.max_body = MAX_BODY,
                                             .max_queued = 4 * MAX_BODY,
                                             .json_bodies = true,
                                             .shared_in_place = told == IN_PLACE,
                                             .shared_held = told == HELD,
                                             .message = on_message,
                                             .settled = on_settled,
                                             .closed = on_closed};
    int ends[2];
    struct error err = {0};
    cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
    pair = (struct pair_stream){
        .stream = {.receive = pair_receive, .send = pair_send, .close = pair_close, .fd = ends[0]}};
    peer = ends[1];
    stream = message_stream_new(&loop, &pair.stream, &options, &err);
    cr_assert_not_null(stream, "%s", err.message);
}

static inline void set_up(void)
{
    messages = closed = settled = cut = seen_ahead = 0;
    last_body = NULL;
    free_in_message = answer_when_settled = false;
    told_from = NULL;
    last_held = NULL;
    does = TAKE;
    held_count = 0;
    uv_loop_init(&loop);
    open_stream(COPIED);
}

static inline void tear_down(void)
{
    drop_stream();
    close(peer);
    free(last_body);
    uv_run(&loop, UV_RUN_DEFAULT);
    cr_expect_eq(uv_loop_close(&loop), 0);
}

static inline void write_all(const char *bytes, size_t len)
{
    while (len > 0) {
        ssize_t written = send(peer, bytes, len, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (written < 0) {
            cr_assert_eq(errno, EAGAIN);
            uv_run(&loop, UV_RUN_NOWAIT);
            continue;
        }
        bytes += written;
        len -= (size_t)written;
    }
}

static inline void say_body(const char *head, const char *body, size_t body_len)
{
    char header[MESSAGE_HEADER_SIZE];
    message_header_write(header, strlen(head), body_len);
    write_all(header, sizeof(header));
    write_all(head, strlen(head));
    write_all(body, body_len);
}

static inline void say(const char *head, size_t body_len)
{
    char *body = malloc(body_len + 1);
    memset(body, 'b', body_len);
    say_body(head, body, body_len);
    free(body);
}

static inline void run_until(const int *counter, int count)
{
    while (*counter < count)
        uv_run(&loop, UV_RUN_ONCE);
}

/* Everything that the stream sends until `len` bytes are here. */
static inline char *read_sent(size_t len)
{
    char *bytes = malloc(len + 1);
    size_t have = 0;
    while (have < len) {
        ssize_t got = recv(peer, bytes + have, len - have, MSG_DONTWAIT);
        if (got > 0)
            have += (size_t)got;
        else
            uv_run(&loop, UV_RUN_NOWAIT);
    }
    return bytes;
}
