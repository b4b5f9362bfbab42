/* Messages (base/message.h has their frames) both ways over one connection, on a libuv loop.
 *
 * Reading: complete messages come to `message` in order; a small one lies in the stream's buffer, the body of a large one is read
 * to where it stays: message_take_body() makes it the caller's, without a copy when it is large. A body over
 * `max_body` is read and thrown away, and its message told with `cut`. What breaks the framing ends the stream.
 *
 * Writing: small messages are collected, large bodies are sent from where they are. message_stream_push() sends
 * at once when it is the first in this turn of the loop, else when the turn ends: alone a message waits for nothing, and under load many share
 * one write. Between ends on one machine that have agreed on it (message_stream_share()) a large body is copied into memory of both, while
 * there is room, and its message says where; a body from there is told like any other large one.
 *
 * Life cycle: message_stream_new() takes the connection; `closed` comes once when it has ended, from the loop or from inside of
 * no call; message_stream_free() at any time, also inside of the callbacks, and drops what was not sent. Loop thread only. */
#pragma once

#include "base/blob.h"
#include "base/byte_stream.h"
#include "base/message.h"

#include <uv.h>

struct message_stream;
struct shared_memory;
struct shared_place;

struct message_in {
    struct message message; /* borrowed during the call */
    bool cut;               /* it had a body that was too large, and has none now */
    /* The stream's: */
    char *large;                      /* the body when it lies alone */
    struct shared_memory *memory;     /* that it lies in; NULL: elsewhere, or it was copied */
    const struct shared_place *place; /* in that */
    bool held;                        /* there, for longer than the call */
};

struct message_stream_options {
    size_t max_body;
    size_t max_queued; /* bytes that wait to be sent; more is an error */
    /* Large bodies begin with JSON that is to be checked: it is looked at while it comes. */
    bool json_bodies;
    /* A body in shared memory is told where it lies, without NUL behind it, for one who only passes it on: the other end can change it until
     * it was copied. */
    bool shared_in_place;
    /* The same, but only as long as message_hold() would succeed: else the body is copied, as others are. */
    bool shared_held;
    void (*message)(void *data, struct message_in *message);
    /* All messages that were there have been told; may be NULL. */
    void (*settled)(void *data);
    void (*closed)(void *data, const struct error *why);
    void *data;
};

/* A part of a message's body. */
struct message_part {
    const char *bytes;
    size_t len;
    /* What of it was lent ends when it was sent; NULL both: `bytes` stand until then or until the stream is freed. */
    char *owned;
    struct blob *shared; /* one use of it */
};

/* Takes `connection`, also on failure. */
struct message_stream *message_stream_new(uv_loop_t *loop, struct byte_stream *connection,
                                          const struct message_stream_options *options,
                                          struct error *err);
/* Accepts NULL. */
void message_stream_free(struct message_stream *stream);
/* Queues one message whose body are the parts one after the other; takes what is owned, also on failure. */
int message_stream_send(struct message_stream *stream, const char *head, size_t head_len,
                        const struct message_part *parts, size_t part_count, struct error *err);
/* Large bodies may come through `memory`, which the stream takes, from now on; what it had is freed. */
void message_stream_share(struct message_stream *stream, struct shared_memory *memory);
/* And go through it: the other end has it. */
void message_stream_share_sending(struct message_stream *stream);
/* Its memory, NULL: none. */
struct shared_memory *message_stream_shared(const struct message_stream *stream);
/* Room in that memory for a body of `len` bytes that is still to be made or received, and of `spare` bytes that are sent behind it in one message: when
 * it is sent by this stream, as the first part, nothing is copied but those. NULL: none now. See shared_memory_room(). */
struct blob *message_stream_room(const struct message_stream *stream, size_t len, size_t spare);
/* Sends what is queued: see above. */
void message_stream_push(struct message_stream *stream);
/* Bytes that came: while a large message is on its way they grow, and nothing is told. */
uint64_t message_stream_received(const struct message_stream *stream);
/* Bytes that were not sent yet. */
size_t message_stream_queued(const struct message_stream *stream);
/* Messages that went out whole: what they borrow is not needed any more. */
uint64_t message_stream_sent(const struct message_stream *stream);
/* A body that is told where it lies is copied now, for who looks at it more closely than others may change it. */
int message_own_body(struct message_in *message, struct error *err);
/* The first `len` bytes of a body that is told where it lies, which stays there for the caller; NULL: it cannot, or is not told so. Not
 * NUL-terminated. */
struct blob *message_hold(struct message_in *message, size_t len);
/* The body, NUL-terminated and the caller's; NULL when out of memory. */
char *message_take_body(struct message_in *message);
/* Memory for the body, which is then the caller's, NUL-terminated; NULL when out of memory. Where the body cannot be had without a copy, the
 * memory has nothing yet, and `ret_from` is where the body stands until the message was told (else NULL): who is done with it by then
 * need not copy it. */
char *message_take_room(struct message_in *message, const char **ret_from);
