/* A stream of messages from a stranger, who also has memory with the reader: see struct input. However the bytes come, the same messages are
 * told, each within what was received, and the stream ends once. A body that was copied is what was there, what was found out about it holds
 * for what is told, and of those that stay where they are no more is held than may be.
 *
 * The linker puts the functions below in the place of those that tell where a body is, and that look at it while it is copied. */
#include "base/json_tree.h"
#include "base/message_stream.h"
#include "shared_ends.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MAX_BODY (320UL * 1024)
#define FILL_UNIT (4UL * 1024)
#define PLAIN 'x'
/* Of each area, that has anything but zeros. */
#define FILLED (1024UL * 1024)
#define HELD_COUNT 32

enum {
    IN_PLACE = 1, /* bodies are told where they lie in the memory */
    HELD = 2,     /* or can be held there */
    JSON = 4,     /* bodies begin with it */
    OPENER = 8,   /* the reader has opened the memory: the other end shows bodies, too */
    SHARED = 0x80 /* there is memory */
};

/* As the input begins; after it come `change_count` changes, and then what the stream brings. */
struct input {
    uint8_t flags;
    uint8_t piece;           /* into which that is cut */
    uint8_t fill;            /* so many times FILL_UNIT bytes are in it, all of them the same, */
    uint8_t fill_at[2];      /* there */
    uint8_t change_count[1]; /* of the memory: */
};

struct change {
    uint8_t after; /* so many messages were told */
    uint8_t at[3]; /* its highest bit: of what is shown; the next: not before a body is looked at */
    uint8_t byte;
};

/* By the length of a message's head: what is done with its body. */
enum { LEAVE, TAKE, HOLD, OWN, TAKE_ROOM, HOLD_HALF, DEEDS };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* A connection whose other side has sent `bytes` and is gone. */
struct script {
    struct byte_stream stream; /* first member */
    const uint8_t *bytes;
    size_t len, piece, fill_piece;
    size_t fill_at, fill; /* so many bytes before it, and of it, are left */
};

struct seen {
    struct message_stream *stream;
    struct shared_memory *memory; /* NULL: none */
    const struct change *changes;
    size_t change_count, changed;
    bool can_be_held, opener;
    size_t messages, bytes, closed;
    uint64_t sum;
    struct blob *held[HELD_COUNT]; /* owned */
    size_t held_at;
};

static struct shared_ends ends;
static struct seen *reading;
static const char
    *told_at; /* the last body, for the reader; NULL: not known, or it was changed since */
static uv_loop_t loop;
static int ended; /* a pipe without a writer */

/* ---- the stranger ---- */

static ssize_t receive(struct byte_stream *stream, void *to, size_t max)
{
    struct script *script = (struct script *)stream;
    bool fills = script->fill > 0 && script->fill_at == 0;
    size_t len = fills ? script->fill : script->len;
    if (!fills && script->fill > 0 && len > script->fill_at)
        len = script->fill_at;
    size_t piece = fills ? script->fill_piece : script->piece;
    len = len < piece ? len : piece;
    len = len < max ? len : max;
    if (fills) {
        memset(to, PLAIN, len);
        script->fill -= len;
        return (ssize_t)len;
    }
    memcpy(to, script->bytes, len);
    script->bytes += len;
    script->len -= len;
    script->fill_at -= script->fill > 0 ? len : 0;
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
    (void)stream;
}

/* Where a change is made. */
static char *changed_at(const struct seen *seen, const struct change *to)
{
    size_t at = to->at[0] | (size_t)to->at[1] << 8 | (size_t)to->at[2] << 16;
    char *copied = seen->opener ? ends.makers : ends.openers;
    return (to->at[2] & 0x80 ? ends.shown : copied) + at % FILLED;
}

/* All that are to come after so many messages. */
static void change(struct seen *seen, bool looks)
{
    for (; seen->changed < seen->change_count; seen->changed++) {
        const struct change *next = &seen->changes[seen->changed];
        bool waits = (next->at[2] & 0x40) && next->after == seen->messages && !looks;
        if (next->after > seen->messages || waits)
            break;
        *changed_at(seen, next) = (char)next->byte;
        told_at = NULL;
    }
}

const char *__real_shared_memory_at(const struct shared_memory *memory,
                                    const struct shared_place *place);
const char *__wrap_shared_memory_at(const struct shared_memory *memory,
                                    const struct shared_place *place);
const char *__wrap_shared_memory_at(const struct shared_memory *memory,
                                    const struct shared_place *place)
{
    told_at = __real_shared_memory_at(memory, place);
    return told_at;
}

void __real_json_ahead_look(struct json_ahead *ahead, const char *text, size_t len);
void __wrap_json_ahead_look(struct json_ahead *ahead, const char *text, size_t len);
void __wrap_json_ahead_look(struct json_ahead *ahead, const char *text, size_t len)
{
    change(reading, true);
    __real_json_ahead_look(ahead, text, len);
}

static void take_back_changes(struct seen *seen)
{
    for (; seen->changed > 0; seen->changed--)
        *changed_at(seen, &seen->changes[seen->changed - 1]) = PLAIN;
}

/* ---- the reader ---- */

/* Of a long one its begin, its end and some of what is between. */
static uint64_t sum_of(const char *bytes, size_t len)
{
    uint64_t sum = len;
    for (size_t i = 0; i < len; i += i < 256 || len - i <= 256 ? 1 : 4099)
        sum = sum * 31 + (unsigned char)bytes[i];
    return sum;
}

static void add(struct seen *seen, const char *bytes, size_t len)
{
    seen->sum = seen->sum * 31 + sum_of(bytes, len);
    seen->bytes += len;
}

/* What was found while it came holds for all of it. */
static void check_json(const struct message *message)
{
    static const struct json_limits limits = {
        .max_bytes = MAX_BODY, .max_depth = 1000, .max_values = SIZE_MAX};
    if (json_scan_rest(message->ahead, message->body, message->body_len, &limits) &&
        json_check(message->body, message->body_len, &limits, NULL) < 0)
        abort();
}

/* Where a body is, and that the stranger changes it only where it is told so. */
static void check_body(struct seen *seen, const struct message_in *in)
{
    const struct message *message = &in->message;
    if (message->body_len > MAX_BODY || (in->cut && message->body_len > 0))
        abort();
    if (in->memory && (in->memory != seen->memory || in->place->len != message->body_len ||
                       shared_memory_at(in->memory, in->place) != message->body ||
                       (!seen->opener && in->place->at >= SHARED_AREA_SIZE)))
        abort();
    if (told_at && !in->cut && memcmp(message->body, told_at, message->body_len) != 0)
        abort();
    told_at = NULL;
    uint64_t before = sum_of(message->body, message->body_len);
    change(seen, false);
    if (!in->memory && sum_of(message->body, message->body_len) != before)
        abort();
    if (message->ahead)
        check_json(message);
}

static void hold(struct seen *seen, struct message_in *in, size_t len, bool for_long)
{
    struct blob *blob = message_hold(in, len);
    if (!blob) {
        if (in->memory && seen->can_be_held)
            abort();
        return;
    }
    if (!in->memory || !blob->foreign || blob->len != len || blob->bytes != in->message.body)
        abort();
    add(seen, blob->bytes, blob->len);
    if (!for_long) {
        blob_unref(blob);
        return;
    }
    struct blob **oldest = &seen->held[seen->held_at++ % HELD_COUNT];
    blob_unref(*oldest);
    *oldest = blob;
}

static void own(struct message_in *in)
{
    const char *there = in->memory ? in->message.body : NULL;
    if (message_own_body(in, NULL) < 0 || in->memory || in->message.body == there)
        abort();
}

static void take(struct message_in *in)
{
    char *body = message_take_body(in);
    if (!body || body[in->message.body_len])
        abort();
    free(body);
}

static void take_room(struct message_in *in)
{
    const char *from;
    char *body = message_take_room(in, &from);
    if (!body || (from && from != in->message.body))
        abort();
    if (from)
        memcpy(body, from, in->message.body_len);
    free(body);
}

static void on_message(void *data, struct message_in *in)
{
    struct seen *seen = data;
    size_t deed = in->message.head_len % DEEDS;
    seen->messages++;
    check_body(seen, in);
    add(seen, in->message.head, in->message.head_len);
    add(seen, in->message.body, in->message.body_len);
    if (deed == HOLD)
        hold(seen, in, in->message.body_len, true);
    else if (deed == HOLD_HALF)
        hold(seen, in, in->message.body_len / 2, false);
    else if (deed == TAKE_ROOM)
        take_room(in);
    if (deed == OWN)
        own(in);
    if (deed == TAKE || deed == OWN)
        take(in);
}

static void on_closed(void *data, const struct error *why)
{
    struct seen *seen = data;
    seen->closed++;
    if (!why->message[0])
        abort();
    message_stream_free(seen->stream);
}

/* ---- runs ---- */

static struct seen run(const struct input *input, size_t size, size_t piece)
{
    const struct change *changes = (const struct change *)(input + 1);
    const uint8_t *bytes = (const uint8_t *)(changes + input->change_count[0]);
    struct seen seen = {.changes = changes,
                        .change_count = input->change_count[0],
                        .can_be_held = !(input->flags & IN_PLACE) && (input->flags & HELD),
                        .opener = input->flags & OPENER};
    struct script script = {.stream = {.receive = receive,
                                       .send = send_nothing,
                                       .close = close_script,
                                       .fd = ended,
                                       .holds_bytes = true},
                            .bytes = bytes,
                            .len = size - (size_t)(bytes - (const uint8_t *)input),
                            .piece = piece,
                            .fill_piece = piece < SIZE_MAX ? piece * 256 : SIZE_MAX,
                            .fill = input->fill * FILL_UNIT,
                            .fill_at = input->fill_at[0] | (size_t)input->fill_at[1] << 8};
    struct message_stream_options options = {.max_body = MAX_BODY,
                                             .max_queued = 1,
                                             .json_bodies = input->flags & JSON,
                                             .shared_in_place = input->flags & IN_PLACE,
                                             .shared_held = input->flags & HELD,
                                             .message = on_message,
                                             .closed = on_closed,
                                             .data = &seen};
    seen.stream = message_stream_new(&loop, &script.stream, &options, NULL);
    if (!seen.stream)
        abort();
    if (input->flags & SHARED) {
        seen.memory = seen.opener ? ends.opener : ends.maker;
        message_stream_share(seen.stream, shared_memory_ref(seen.memory));
    }
    told_at = NULL;
    reading = &seen;
    change(&seen, false);
    uv_run(&loop, UV_RUN_DEFAULT);
    if (seen.closed != 1)
        abort();
    for (size_t i = 0; i < HELD_COUNT; i++)
        blob_unref(seen.held[i]);
    take_back_changes(&seen);
    if (seen.memory && !shared_memory_may_hold(seen.memory, SHARED_HELD_MAX))
        abort();
    return seen;
}

static void set_up(void)
{
    int pair[2];
    shared_ends_init(&ends);
    memset(ends.makers, PLAIN, FILLED);
    memset(ends.openers, PLAIN, FILLED);
    memset(ends.shown, PLAIN, FILLED);
    if (uv_loop_init(&loop) || pipe2(pair, O_CLOEXEC))
        abort();
    close(pair[1]);
    ended = pair[0];
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const struct input *input = (const struct input *)data;
    if (size < sizeof(*input) ||
        size - sizeof(*input) < input->change_count[0] * sizeof(struct change))
        return 0;
    if (!ends.maker)
        set_up();
    struct seen whole = run(input, size, SIZE_MAX);
    struct seen pieces = run(input, size, (size_t)input->piece + 1);
    if (whole.messages != pieces.messages || whole.bytes != pieces.bytes ||
        whole.sum != pieces.sum || (!whole.memory && whole.bytes > size + input->fill * FILL_UNIT))
        abort();
    return 0;
}
