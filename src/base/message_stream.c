/* Messages over one connection: see message_stream.h. */
#include "base/message_stream.h"

#include "base/json.h"
#include "base/shared_memory.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#define IN_SIZE (64UL * 1024)
/* Reads and writes in one turn of the loop. */
#define TURN_MAX 16
/* Up to here a body is copied behind its head; a larger one is sent from where it is. */
#define COPY_MAX (8UL * 1024)
#define CHUNK_SIZE (16UL * 1024)
/* From here on a body goes through shared memory; below, the socket is as fast. */
#define SHARED_MIN (256UL * 1024)
/* Copied out of it piece by piece, so that a piece is in the cache when it is looked at. */
#define SHARED_PIECE (128UL * 1024)
/* So much of it in one turn of the loop: a few bytes of a stranger's ask for a whole area, and others wait. */
#define SHARED_TURN_MAX SHARED_AREA_SIZE
#define PAGE_BYTES ((size_t)4096)

/* What is sent in one piece: collected small messages, or a body. */
struct chunk {
    struct chunk *next;
    const char *bytes;
    char *owned;
    struct blob *shared; /* a use of it */
    size_t len, done;
    size_t room;   /* for more behind `len` */
    uint64_t ends; /* messages that end in it */
};

/* A message that does not fit into the buffer, while it comes. */
struct large {
    bool active;
    char *head, *body; /* owned; no body: it is thrown away */
    size_t head_len, body_len, have;
    struct json_ahead *ahead; /* owned */
};

struct message_stream {
    uv_poll_t poll;        /* first member: the handle's memory is the stream's */
    uv_prepare_t turn_end; /* active while something was sent in this turn */
    int open_handles;
    struct byte_stream *connection; /* owned; NULL once it was closed */
    struct message_stream_options options;
    char *in; /* owned, IN_SIZE; bytes from in_at to in_len were not taken yet */
    size_t in_at, in_len;
    struct large large;
    struct shared_memory *shared; /* owned; NULL: none */
    bool shares_sending;
    size_t copied; /* out of it in this turn */
    struct chunk *first, *last;
    size_t queued;
    uint64_t sent;     /* messages */
    uint64_t received; /* bytes */
    int watched;
    bool pushed; /* in this turn */
    bool behind; /* bytes wait to be read, or to be taken, that the socket may not show */
    bool failed; /* writing has: reading tells why */
    bool dead;   /* closed() was called */
    bool *freed; /* set while callbacks run */
};

/* ---- life ---- */

static void chunk_free(struct chunk *chunk)
{
    free(chunk->owned);
    blob_unref(chunk->shared);
    free(chunk);
}

static void drop_first(struct message_stream *stream)
{
    struct chunk *chunk = stream->first;
    stream->first = chunk->next;
    chunk_free(chunk);
}

static void handle_closed(uv_handle_t *handle)
{
    struct message_stream *stream = handle->data;
    if (--stream->open_handles > 0)
        return;
    free(stream->in);
    free(stream);
}

void message_stream_free(struct message_stream *stream)
{
    if (!stream)
        return;
    if (stream->freed)
        *stream->freed = true;
    stream->dead = true;
    uv_close((uv_handle_t *)&stream->poll, handle_closed);
    uv_close((uv_handle_t *)&stream->turn_end, handle_closed);
    stream->connection->close(stream->connection);
    stream->connection = NULL;
    while (stream->first)
        drop_first(stream);
    free(stream->large.head);
    free(stream->large.body);
    json_ahead_free(stream->large.ahead);
    shared_memory_free(stream->shared);
    stream->shared = NULL;
}

static void watch(struct message_stream *stream);
static void send_queued(struct message_stream *stream);

static void turn_ended(uv_prepare_t *prepare)
{
    struct message_stream *stream = prepare->data;
    uv_prepare_stop(prepare);
    stream->pushed = false;
    send_queued(stream);
}

struct message_stream *message_stream_new(uv_loop_t *loop, struct byte_stream *connection,
                                          const struct message_stream_options *options,
                                          struct error *err)
{
    struct message_stream *stream = calloc(1, sizeof(*stream));
    char *in = malloc(IN_SIZE);
    int status = stream && in ? uv_poll_init(loop, &stream->poll, connection->fd) : UV_ENOMEM;
    if (status < 0) {
        connection->close(connection);
        free(in);
        free(stream);
        error_set_errno(err, ERROR_INTERNAL, -status, "cannot watch a connection");
        return NULL;
    }
    uv_prepare_init(loop, &stream->turn_end);
    stream->poll.data = stream->turn_end.data = stream;
    stream->open_handles = 2;
    stream->connection = connection;
    stream->options = *options;
    stream->in = in;
    /* Bytes may have come already that the socket does not show: the first turn looks. */
    stream->behind = connection->holds_bytes;
    watch(stream);
    return stream;
}

static void die(struct message_stream *stream, const struct error *why)
{
    stream->dead = true;
    uv_poll_stop(&stream->poll);
    uv_prepare_stop(&stream->turn_end);
    stream->options.closed(stream->options.data, why);
}

/* ---- reading ---- */

/* Whether the stream still stands. */
static bool tell(struct message_stream *stream, struct message_in *message)
{
    bool freed = false;
    bool *outer = stream->freed;
    stream->freed = &freed;
    stream->options.message(stream->options.data, message);
    if (freed && outer)
        *outer = true;
    if (!freed)
        stream->freed = outer;
    return !freed && !stream->dead;
}

char *message_take_room(struct message_in *message, const char **ret_from)
{
    size_t len = message->message.body_len;
    char *body = message->large ? message->large : malloc(len + 1);
    *ret_from = message->large ? NULL : message->message.body;
    if (body)
        body[len] = '\0';
    message->large = NULL;
    return body;
}

char *message_take_body(struct message_in *message)
{
    const char *from;
    char *body = message_take_room(message, &from);
    if (body && from)
        memcpy(body, from, message->message.body_len);
    return body;
}

/* On a page's begin, so that it can be written to a disk from there; with room for a NUL. */
static char *new_body(size_t len)
{
    return aligned_alloc(PAGE_BYTES, (len + PAGE_BYTES) / PAGE_BYTES * PAGE_BYTES);
}

int message_own_body(struct message_in *message, struct error *err)
{
    if (!message->memory)
        return 0;
    size_t len = message->message.body_len;
    message->large = new_body(len);
    if (!message->large)
        return error_set(err, ERROR_INTERNAL, "out of memory");
    memcpy(message->large, message->message.body, len);
    message->message.body = message->large;
    message->memory = NULL;
    return 0;
}

struct blob *message_hold(struct message_in *message, size_t len)
{
    struct blob *blob =
        message->memory ? shared_memory_hold(message->memory, message->place, len) : NULL;
    message->held |= blob != NULL;
    return blob;
}

/* A body that stays where it is while it is told. */
static bool tell_in_place(struct message_stream *stream, const char *head, size_t head_len,
                          const struct shared_place *place)
{
    struct shared_memory *memory = shared_memory_ref(stream->shared); /* also without the stream */
    struct message_in message = {.message = {.head = head,
                                             .head_len = head_len,
                                             .body = shared_memory_at(memory, place),
                                             .body_len = place->len},
                                 .memory = memory,
                                 .place = place};
    bool stands = tell(stream, &message);
    if (!message.held)
        shared_memory_done(memory, place);
    shared_memory_free(memory);
    free(message.large); /* unless it was taken */
    return stands;
}

static bool tell_large(struct message_stream *stream)
{
    struct large large = stream->large;
    struct message_in message = {.message = {.head = large.head,
                                             .head_len = large.head_len,
                                             .body = large.body ? large.body : "",
                                             .body_len = large.body ? large.body_len : 0,
                                             .ahead = large.ahead},
                                 .cut = !large.body,
                                 .large = large.body};
    stream->large = (struct large){0};
    large.head[large.head_len] = '\0';
    if (large.body)
        large.body[large.body_len] = '\0';
    bool stands = tell(stream, &message);
    free(large.head);
    free(message.large); /* unless it was taken */
    json_ahead_free(large.ahead);
    return stands;
}

/* Where the next bytes of the large message go, and how many. */
static char *large_target(struct message_stream *stream, size_t *ret_len)
{
    const struct large *large = &stream->large;
    if (large->have < large->head_len) {
        *ret_len = large->head_len - large->have;
        return large->head + large->have;
    }
    size_t body_have = large->have - large->head_len;
    *ret_len = large->body_len - body_have;
    if (large->body)
        return large->body + body_have;
    *ret_len = *ret_len < IN_SIZE ? *ret_len : IN_SIZE;
    return stream->in;
}

static int large_begin(struct message_stream *stream, size_t head_len, size_t body_len,
                       struct error *err)
{
    struct large *large = &stream->large;
    *large = (struct large){.active = true, .head_len = head_len, .body_len = body_len};
    large->head = malloc(head_len + 1);
    large->body = body_len <= stream->options.max_body ? new_body(body_len) : NULL;
    if (!large->head)
        return error_set(err, ERROR_INTERNAL, "out of memory");
    if (large->body && body_len >= JSON_AHEAD_MIN && stream->options.json_bodies)
        large->ahead = json_ahead_new();
    /* What is in the buffer belongs to it. */
    size_t left = stream->in_len - stream->in_at;
    const char *from = stream->in + stream->in_at;
    size_t of_head = left < head_len ? left : head_len;
    memcpy(large->head, from, of_head);
    if (large->body)
        memcpy(large->body, from + of_head, left - of_head);
    large->have = left;
    stream->in_at = stream->in_len = 0;
    return 0;
}

/* Copies a body out of the shared memory; the message becomes a large one that has come. */
static int large_from_shared(struct message_stream *stream, const char *head, size_t head_len,
                             const struct shared_place *place, struct error *err)
{
    struct large *large = &stream->large;
    const char *from = shared_memory_at(stream->shared, place);
    size_t len = place->len;
    *large = (struct large){.head_len = head_len, .body_len = len};
    large->head = malloc(head_len + 1);
    large->body = len <= stream->options.max_body ? new_body(len) : NULL;
    if (!large->head)
        return error_set(err, ERROR_INTERNAL, "out of memory");
    memcpy(large->head, head, head_len);
    if (large->body && len >= JSON_AHEAD_MIN && stream->options.json_bodies)
        large->ahead = json_ahead_new();
    for (size_t done = 0; large->body && done < len;) {
        size_t piece = len - done < SHARED_PIECE ? len - done : SHARED_PIECE;
        memcpy(large->body + done, from + done, piece);
        done += piece;
        if (large->ahead)
            json_ahead_look(large->ahead, large->body, done);
    }
    shared_memory_done(stream->shared, place);
    stream->copied += large->body ? len : 0;
    return 0;
}

static bool stays(const struct message_stream *stream, size_t len)
{
    return len <= stream->options.max_body &&
           (stream->options.shared_in_place ||
            (stream->options.shared_held && shared_memory_may_hold(stream->shared, len)));
}

/* As take_one(); all of the message is in the buffer. */
static int take_shared(struct message_stream *stream, size_t head_len, size_t body_len,
                       struct error *err)
{
    size_t total = MESSAGE_HEADER_SIZE + head_len + body_len;
    const char *head = stream->in + stream->in_at + MESSAGE_HEADER_SIZE;
    if (total > IN_SIZE || body_len != MESSAGE_PLACE_SIZE)
        return error_set(err, ERROR_INVALID_REQUEST,
                         "a message with a body in shared memory cannot have %zu bytes", total);
    if (total > stream->in_len - stream->in_at)
        return 0;
    struct shared_place place;
    message_place_read(head + head_len, &place.at, &place.len);
    if (!shared_memory_at(stream->shared, &place))
        return error_set(err, ERROR_INVALID_REQUEST,
                         "%llu bytes at %llu are no place in the shared memory",
                         (unsigned long long)place.len, (unsigned long long)place.at);
    stream->received += place.len;
    stream->in_at += total;
    if (stays(stream, place.len)) {
        stream->copied += place.len; /* by whom it is told to, perhaps */
        return tell_in_place(stream, head, head_len, &place) ? 1 : -1;
    }
    if (large_from_shared(stream, head, head_len, &place, err) < 0)
        return -1;
    return tell_large(stream) ? 1 : -1;
}

/* 1: a message was told, 0: more bytes are needed, -1: broken, or the stream does not stand any more (then `err` is not set). */
static int take_one(struct message_stream *stream, struct error *err)
{
    size_t left = stream->in_len - stream->in_at;
    const char *at = stream->in + stream->in_at;
    size_t head_len, body_len;
    char header[MESSAGE_HEADER_SIZE];
    if (left < MESSAGE_HEADER_SIZE)
        return 0;
    memcpy(header, at, sizeof(header));
    bool shared = stream->shared && message_header_unmark_shared(header);
    if (message_header_read(header, &head_len, &body_len, err) < 0)
        return -1;
    if (shared)
        return take_shared(stream, head_len, body_len, err);
    size_t total = MESSAGE_HEADER_SIZE + head_len + body_len;
    if (total > left && total > IN_SIZE) {
        stream->in_at += MESSAGE_HEADER_SIZE;
        return large_begin(stream, head_len, body_len, err);
    }
    if (total > left)
        return 0;
    struct message_in message = {.message = {.head = at + MESSAGE_HEADER_SIZE,
                                             .head_len = head_len,
                                             .body = at + MESSAGE_HEADER_SIZE + head_len,
                                             .body_len = body_len},
                                 .cut = body_len > stream->options.max_body};
    if (message.cut)
        message.message.body_len = 0;
    stream->in_at += total;
    return tell(stream, &message) ? 1 : -1;
}

/* Whether the stream still stands. */
static bool take_all(struct message_stream *stream)
{
    struct error err = {0};
    int status = 1;
    while (status > 0 && !stream->large.active && stream->copied < SHARED_TURN_MAX)
        status = take_one(stream, &err);
    if (status < 0) {
        if (err.code)
            die(stream, &err);
        return false;
    }
    if (stream->in_at > 0) {
        stream->in_len -= stream->in_at;
        memmove(stream->in, stream->in + stream->in_at, stream->in_len);
        stream->in_at = 0;
    }
    return true;
}

static bool take_received(struct message_stream *stream, size_t len)
{
    struct large *large = &stream->large;
    if (!large->active) {
        stream->in_len += len;
        return take_all(stream);
    }
    large->have += len;
    if (large->ahead && large->have > large->head_len)
        json_ahead_look(large->ahead, large->body, large->have - large->head_len);
    return large->have < large->head_len + large->body_len || tell_large(stream);
}

static void receive_failed(struct message_stream *stream, ssize_t got)
{
    struct error why = {0};
    bool within = stream->large.active || stream->in_len > 0;
    if (got < 0)
        error_set_errno(&why, ERROR_UNAVAILABLE, errno, "the connection failed");
    else
        error_set(&why, ERROR_UNAVAILABLE, "the other side has closed the connection%s",
                  within ? " in the middle of a message" : "");
    die(stream, &why);
}

/* Whether the stream still stands. */
static bool receive_some(struct message_stream *stream)
{
    stream->copied = 0;
    /* What the turn before has left in the buffer. */
    if (!stream->large.active && stream->in_len > 0 && !take_all(stream))
        return false;
    for (int turn = 0; turn < TURN_MAX && stream->copied < SHARED_TURN_MAX; turn++) {
        size_t max = IN_SIZE - stream->in_len;
        char *to = stream->large.active ? large_target(stream, &max) : stream->in + stream->in_len;
        ssize_t got = stream->connection->receive(stream->connection, to, max);
        stream->received += got > 0 ? (uint64_t)got : 0;
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0 && errno == EAGAIN)
            return true;
        if (got <= 0) {
            receive_failed(stream, got);
            return false;
        }
        if (!take_received(stream, (size_t)got))
            return false;
        if ((size_t)got < max && !stream->connection->holds_bytes &&
            stream->copied < SHARED_TURN_MAX)
            return true;
    }
    stream->behind = stream->connection->holds_bytes || stream->copied >= SHARED_TURN_MAX;
    watch(stream);
    return true;
}

/* ---- writing ---- */

static struct chunk *chunk_new(struct message_stream *stream, struct chunk content)
{
    struct chunk *chunk = malloc(sizeof(*chunk));
    if (!chunk)
        return NULL;
    *chunk = content;
    *(stream->first ? &stream->last->next : &stream->first) = chunk;
    stream->last = chunk;
    return chunk;
}

/* Room for `len` bytes behind what is queued. */
static char *reserve(struct message_stream *stream, size_t len)
{
    struct chunk *chunk = stream->first ? stream->last : NULL;
    if (!chunk || chunk->room < len) {
        size_t size = len > CHUNK_SIZE ? len : CHUNK_SIZE;
        char *memory = malloc(size);
        chunk = memory ? chunk_new(stream,
                                   (struct chunk){.bytes = memory, .owned = memory, .room = size})
                       : NULL;
        if (!chunk) {
            free(memory);
            return NULL;
        }
    }
    char *at = chunk->owned + chunk->len;
    chunk->len += len;
    chunk->room -= len;
    stream->queued += len;
    return at;
}

static void free_part(const struct message_part *part)
{
    free(part->owned);
    blob_unref(part->shared);
}

static bool put_body(struct message_stream *stream, const struct message_part *part)
{
    if (part->len <= COPY_MAX) {
        char *at = part->len ? reserve(stream, part->len) : NULL;
        if (at)
            memcpy(at, part->bytes, part->len);
        free_part(part);
        return at || part->len == 0;
    }
    if (!chunk_new(stream, (struct chunk){.bytes = part->bytes,
                                          .owned = part->owned,
                                          .shared = part->shared,
                                          .len = part->len})) {
        free_part(part);
        return false;
    }
    stream->queued += part->len;
    return true;
}

static char *put_head(struct message_stream *stream, const char *head, size_t head_len,
                      size_t body_len)
{
    char *at = reserve(stream, MESSAGE_HEADER_SIZE + head_len);
    if (!at)
        return NULL;
    message_header_write(at, head_len, body_len);
    memcpy(at + MESSAGE_HEADER_SIZE, head, head_len);
    return at;
}

/* False: it cannot go that way now. */
static bool put_shared(struct message_stream *stream, const char *head, size_t head_len,
                       const struct message_part *parts, size_t part_count, size_t body_len)
{
    struct shared_place place;
    if (!stream->shares_sending || body_len < SHARED_MIN || head_len > IN_SIZE / 2)
        return false;
    bool there = shared_memory_is_room(stream->shared, parts[0].bytes, body_len, &place);
    char *to =
        there ? (char *)parts[0].bytes : shared_memory_reserve(stream->shared, body_len, &place);
    char *at = to ? reserve(stream, MESSAGE_HEADER_SIZE + head_len + MESSAGE_PLACE_SIZE) : NULL;
    if (to && !at && !there)
        shared_memory_cancel(stream->shared, &place);
    if (!at)
        return false;
    if (there)
        shared_memory_room_sent(stream->shared, &place);
    message_header_write(at, head_len, MESSAGE_PLACE_SIZE);
    message_header_mark_shared(at);
    memcpy(at + MESSAGE_HEADER_SIZE, head, head_len);
    message_place_write(at + MESSAGE_HEADER_SIZE + head_len, place.at, place.len);
    for (size_t i = 0; i < part_count; i++) {
        if (parts[i].len > 0 && parts[i].bytes != to)
            memcpy(to, parts[i].bytes, parts[i].len);
        to += parts[i].len;
        free_part(&parts[i]);
    }
    return true;
}

int message_stream_send(struct message_stream *stream, const char *head, size_t head_len,
                        const struct message_part *parts, size_t part_count, struct error *err)
{
    size_t body_len = 0, taken = 0;
    for (size_t i = 0; i < part_count; i++)
        body_len += parts[i].len;
    int status = 0;
    if (stream->dead)
        status = error_set(err, ERROR_UNAVAILABLE, "the connection has ended");
    else if (head_len > MESSAGE_HEAD_MAX || body_len > stream->options.max_queued ||
             stream->queued > stream->options.max_queued - body_len)
        status =
            error_set(err, ERROR_PAYLOAD_TOO_LARGE, "more than %zu bytes wait to be sent already",
                      stream->options.max_queued);
    else if (put_shared(stream, head, head_len, parts, part_count, body_len))
        taken = part_count;
    else if (!put_head(stream, head, head_len, body_len))
        status = error_set(err, ERROR_INTERNAL, "out of memory");
    while (status == 0 && taken < part_count)
        if (!put_body(stream, &parts[taken++])) {
            /* There is half a message in the queue, which must not go out. */
            shutdown(stream->connection->fd, SHUT_RDWR);
            status = error_set(err, ERROR_INTERNAL, "out of memory");
        }
    for (; taken < part_count; taken++)
        free_part(&parts[taken]);
    if (status == 0)
        stream->last->ends++;
    return status;
}

/* A connection that fails shows it to the reading side, too. */
static void send_queued(struct message_stream *stream)
{
    for (int turn = 0; stream->first && !stream->failed && turn < TURN_MAX; turn++) {
        struct chunk *chunk = stream->first;
        ssize_t sent = stream->connection->send(stream->connection, chunk->bytes + chunk->done,
                                                chunk->len - chunk->done);
        if (sent < 0 && errno != EINTR && errno != EAGAIN) {
            stream->failed = true;
            break;
        }
        if (sent < 0 && errno == EAGAIN)
            break;
        chunk->done += sent > 0 ? (size_t)sent : 0;
        stream->queued -= sent > 0 ? (size_t)sent : 0;
        if (chunk->done == chunk->len) {
            stream->sent += chunk->ends;
            drop_first(stream);
        }
    }
    watch(stream);
}

void message_stream_share(struct message_stream *stream, struct shared_memory *memory)
{
    shared_memory_free(stream->shared);
    stream->shared = memory;
    stream->shares_sending = false;
}

void message_stream_share_sending(struct message_stream *stream)
{
    stream->shares_sending = stream->shared;
}

struct shared_memory *message_stream_shared(const struct message_stream *stream)
{
    return stream->shared;
}

struct blob *message_stream_room(const struct message_stream *stream, size_t len, size_t spare)
{
    return stream->shares_sending && len >= SHARED_MIN
               ? shared_memory_room(stream->shared, len, spare)
               : NULL;
}

void message_stream_push(struct message_stream *stream)
{
    if (stream->dead || stream->pushed || !stream->first)
        return;
    stream->pushed = true;
    uv_prepare_start(&stream->turn_end, turn_ended);
    send_queued(stream);
}

uint64_t message_stream_received(const struct message_stream *stream)
{
    return stream->received;
}

size_t message_stream_queued(const struct message_stream *stream)
{
    return stream->queued;
}

uint64_t message_stream_sent(const struct message_stream *stream)
{
    return stream->sent;
}

/* ---- the loop ---- */

static void on_poll(uv_poll_t *poll, int status, int events)
{
    struct message_stream *stream = poll->data;
    bool freed = false, behind = stream->behind;
    stream->behind = false;
    if ((events & UV_WRITABLE) && status == 0)
        send_queued(stream);
    /* An error is told by the read. */
    if (!(events & UV_READABLE) && status == 0 && !behind && !stream->connection->holds_bytes)
        return;
    stream->freed = &freed;
    bool stands = receive_some(stream);
    if (stands && stream->options.settled)
        stream->options.settled(stream->options.data);
    if (!freed)
        stream->freed = NULL;
}

/* A socket can be written to nearly always, so that the next turn of the loop comes at once. */
static void watch(struct message_stream *stream)
{
    bool to_send = stream->first && !stream->failed;
    int events = UV_READABLE | (to_send || stream->behind ? UV_WRITABLE : 0);
    if (stream->dead || stream->watched == events)
        return;
    stream->watched = events;
    uv_poll_start(&stream->poll, events, on_poll);
}
