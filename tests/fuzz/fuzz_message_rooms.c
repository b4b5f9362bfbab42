/* Large bodies that are made in memory of both ends and sent from there, while the other end lies about what it is done with. What is in a
 * room that somebody holds stays, no two of them overlap, the other end is told where each body is, and when all is given back and done, all
 * is free. The first byte says which end sends, the rest are steps (enum step). */
#include "base/message_stream.h"
#include "shared_ends.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define KIB ((size_t)1024)
#define PIECE (64 * KIB)
#define PIECES (SHARED_AREA_SIZE / PIECE)
#define SLOTS 8
#define EXPECTED_MAX 64
#define MEMORIES 2

/* A step's lowest three bits; the others are its number, for three of them the slot. */
enum step {
    ROOM,      /* two bytes follow: its length and what is to be spare */
    SEND,      /* a byte follows: how much more is behind it */
    LET_GO,    /* of it */
    COPY,      /* a body of (number + 1) * 32 KiB and send it */
    LIE,       /* a byte follows: the other end is done with what begins with that piece */
    BLOCK,     /* the connection takes nothing any more, or all again */
    RECONNECT, /* with the memory of that number; beyond those: without */
    CHECK,     /* what all slots have, and go on with what is to be sent */
};
/* Numbers of a lie; else it is of the area for bodies that are copied. */
enum { LIE_SHOWN = 1, LIE_ALL = 31 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct slot {
    struct blob *blob; /* owned; NULL: none */
    size_t pieces;
    size_t memory; /* that it is in */
    bool sent;     /* from there */
    bool lied;     /* since it was made */
    uint32_t tag;  /* at its begin, in each piece and at its end */
};

/* A message that was sent and has not arrived. */
struct expected {
    uint32_t tag;
    size_t len; /* of the body */
    bool there; /* sent from a room */
    bool lied;  /* where it was may be something else by now, unless the room is held */
};

struct run {
    struct byte_stream connection; /* first member */
    struct message_stream *stream;
    bool opener;   /* sends */
    size_t memory; /* which; MEMORIES: none */
    struct slot slots[SLOTS];
    uint32_t tags;
    /* the other end */
    bool blocked;
    char head[MESSAGE_HEADER_SIZE + 2 + MESSAGE_PLACE_SIZE];
    size_t have; /* of it */
    size_t body_left;
    struct expected expected[EXPECTED_MAX];
    size_t first, end; /* of those that are expected, all counted */
};

static struct shared_ends memories[MEMORIES];
static uv_loop_t loop;
static int silent; /* a pipe to which nothing is written */
static char filler[1024 * 1024];

static struct shared_memory *sender(const struct run *run, size_t memory)
{
    return run->opener ? memories[memory].opener : memories[memory].maker;
}

static struct shared_memory *receiver(const struct run *run, size_t memory)
{
    return run->opener ? memories[memory].maker : memories[memory].opener;
}

/* ---- slots ---- */

static void check_tag(const char *bytes, uint32_t tag)
{
    if (memcmp(bytes, &tag, sizeof(tag)) != 0)
        abort();
}

static void put_tag(const struct slot *slot)
{
    char *bytes = (char *)slot->blob->bytes;
    for (size_t at = 0; at < slot->blob->len; at += PIECE)
        memcpy(bytes + at, &slot->tag, sizeof(slot->tag));
    memcpy(bytes + slot->blob->len - sizeof(slot->tag), &slot->tag, sizeof(slot->tag));
}

static void check_slot(const struct slot *slot)
{
    if (!slot->blob)
        return;
    for (size_t at = 0; at < slot->blob->len; at += PIECE)
        check_tag(slot->blob->bytes + at, slot->tag);
    check_tag(slot->blob->bytes + slot->blob->len - sizeof(slot->tag), slot->tag);
}

static bool overlap(const struct slot *a, const struct slot *b)
{
    return a->blob->bytes < b->blob->bytes + b->pieces * PIECE &&
           b->blob->bytes < a->blob->bytes + a->pieces * PIECE;
}

/* Against all others. */
static void check_new(const struct run *run, const struct slot *slot)
{
    size_t open = slot->pieces;
    for (const struct slot *other = run->slots; other < run->slots + SLOTS; other++) {
        if (other == slot || !other->blob)
            continue;
        if (overlap(slot, other))
            abort();
        open += !other->sent && other->memory == slot->memory ? other->pieces : 0;
    }
    if (open > (run->opener ? PIECES / 2 : PIECES))
        abort();
}

static void let_go(struct slot *slot)
{
    check_slot(slot);
    blob_unref(slot->blob);
    *slot = (struct slot){0};
}

static void make_room(struct run *run, struct slot *slot, size_t len, size_t spare)
{
    let_go(slot);
    struct blob *blob = message_stream_room(run->stream, len, spare);
    if (!blob)
        return;
    if (blob->len != len || run->memory == MEMORIES)
        abort();
    *slot = (struct slot){.blob = blob,
                          .pieces = (len + spare + PIECE - 1) / PIECE,
                          .memory = run->memory,
                          .tag = ++run->tags};
    check_new(run, slot);
    put_tag(slot);
}

/* ---- what is sent ---- */

static void send_parts(struct run *run, const struct message_part parts[2],
                       struct expected expected)
{
    expected.len = parts[0].len + parts[1].len;
    size_t at = run->end++ % EXPECTED_MAX;
    run->expected[at] = expected;
    if (message_stream_send(run->stream, "{}", 2, parts, 2, NULL) < 0)
        abort();
    message_stream_push(run->stream);
}

static void send_slot(struct run *run, struct slot *slot, size_t behind)
{
    struct shared_place place;
    if (!slot->blob || run->end - run->first == EXPECTED_MAX)
        return;
    size_t len = slot->blob->len + behind;
    bool there = run->memory < MEMORIES &&
                 shared_memory_is_room(sender(run, run->memory), slot->blob->bytes, len, &place);
    if (there != (!slot->sent && slot->memory == run->memory && len <= slot->pieces * PIECE))
        abort();
    struct message_part parts[2] = {
        {.bytes = slot->blob->bytes, .len = slot->blob->len, .shared = blob_ref(slot->blob)},
        {.bytes = filler, .len = behind}};
    slot->sent |= there;
    send_parts(run, parts,
               (struct expected){.tag = slot->tag, .there = there, .lied = there && slot->lied});
}

static void send_copy(struct run *run, size_t len)
{
    size_t first = 16 * KIB;
    uint32_t tag = ++run->tags;
    if (run->end - run->first == EXPECTED_MAX)
        return;
    char *bytes = calloc(1, first);
    if (!bytes)
        abort();
    memcpy(bytes, &tag, sizeof(tag));
    struct message_part parts[2] = {{.bytes = bytes, .len = first, .owned = bytes},
                                    {.bytes = filler, .len = len - first}};
    send_parts(run, parts, (struct expected){.tag = tag});
}

/* ---- the other end ---- */

static bool is_held(const struct run *run, uint32_t tag)
{
    for (const struct slot *slot = run->slots; slot < run->slots + SLOTS; slot++)
        if (slot->blob && slot->tag == tag)
            return true;
    return false;
}

static void arrived(struct run *run, const char *body, size_t len, bool in_memory)
{
    if (run->first == run->end)
        abort();
    const struct expected *expected = &run->expected[run->first++ % EXPECTED_MAX];
    if (expected->len != len || (expected->there && !in_memory))
        abort();
    if (!in_memory || !expected->lied || (expected->there && is_held(run, expected->tag)))
        check_tag(body, expected->tag);
}

static void place_arrived(struct run *run)
{
    struct shared_place place;
    message_place_read(run->head + MESSAGE_HEADER_SIZE + 2, &place.at, &place.len);
    if (run->memory == MEMORIES)
        abort();
    const char *body = shared_memory_at(receiver(run, run->memory), &place);
    if (!body)
        abort();
    arrived(run, body, place.len, true);
}

/* Of a message's header, head and place; how many bytes. */
static size_t take_head(struct run *run, const char *from, size_t len)
{
    size_t all = MESSAGE_HEADER_SIZE;
    if (run->have >= all)
        all += 2 + (run->head[3] & 0x80 ? MESSAGE_PLACE_SIZE : 0);
    size_t count = len < all - run->have ? len : all - run->have;
    memcpy(run->head + run->have, from, count);
    run->have += count;
    if (run->have < all || all == MESSAGE_HEADER_SIZE)
        return count;
    size_t head_len;
    bool in_memory = message_header_unmark_shared(run->head);
    if (message_header_read(run->head, &head_len, &run->body_left, NULL) < 0 || head_len != 2)
        abort();
    if (in_memory) {
        place_arrived(run);
        run->body_left = 0;
        run->have = 0;
    }
    return count;
}

/* A body's bytes begin with one call. */
static size_t take_body(struct run *run, const char *from, size_t len)
{
    size_t count = len < run->body_left ? len : run->body_left;
    if (run->have > 0)
        arrived(run, from, run->body_left, false);
    run->have = 0;
    run->body_left -= count;
    return count;
}

static ssize_t take_bytes(struct byte_stream *connection, const void *bytes, size_t len)
{
    struct run *run = (struct run *)connection;
    if (run->blocked) {
        errno = EAGAIN;
        return -1;
    }
    for (size_t done = 0; done < len;) {
        const char *from = (const char *)bytes + done;
        done += run->body_left > 0 ? take_body(run, from, len - done)
                                   : take_head(run, from, len - done);
    }
    return (ssize_t)len;
}

static ssize_t receive_nothing(struct byte_stream *connection, void *to, size_t max)
{
    (void)connection;
    (void)to;
    (void)max;
    errno = EAGAIN;
    return -1;
}

static void close_connection(struct byte_stream *connection)
{
    (void)connection;
}

static void lie(struct run *run, size_t memory, size_t number, size_t piece)
{
    struct shared_memory *liar = receiver(run, memory);
    bool shown = number == LIE_SHOWN && !run->opener; /* the maker is shown nothing */
    struct shared_place place = {.at = piece * PIECE + (shown ? SHARED_AREA_SIZE : 0)};
    if (number != LIE_ALL) {
        shared_memory_done(liar, &place);
        return;
    }
    for (size_t i = 0; i < (run->opener ? PIECES : 2 * PIECES); i++)
        shared_memory_done(liar, &(struct shared_place){.at = i * PIECE});
}

static void note_lie(struct run *run)
{
    for (struct slot *slot = run->slots; slot < run->slots + SLOTS; slot++)
        slot->lied = true;
    for (size_t i = run->first; i < run->end; i++)
        run->expected[i % EXPECTED_MAX].lied = true;
}

/* ---- connections ---- */

static void on_message(void *data, struct message_in *message)
{
    (void)data;
    (void)message;
    abort();
}

static void on_closed(void *data, const struct error *why)
{
    (void)data;
    (void)why;
    abort();
}

/* What was not sent before is not sent any more. */
static void connect_with(struct run *run, size_t memory)
{
    static const struct message_stream_options options = {
        .max_body = 1, .max_queued = SIZE_MAX, .message = on_message, .closed = on_closed};
    message_stream_free(run->stream);
    run->connection = (struct byte_stream){
        .receive = receive_nothing, .send = take_bytes, .close = close_connection, .fd = silent};
    run->stream = message_stream_new(&loop, &run->connection, &options, NULL);
    if (!run->stream)
        abort();
    run->first = run->end;
    run->have = run->body_left = 0;
    run->memory = memory < MEMORIES ? memory : MEMORIES;
    if (run->memory == MEMORIES)
        return;
    message_stream_share(run->stream, shared_memory_ref(sender(run, memory)));
    message_stream_share_sending(run->stream);
}

static void go_on(struct run *run)
{
    do {
        message_stream_push(run->stream);
        uv_run(&loop, UV_RUN_NOWAIT);
    } while (!run->blocked && message_stream_queued(run->stream) > 0);
}

/* ---- runs ---- */

static bool take_step(struct run *run, const uint8_t **at, const uint8_t *end)
{
    static const uint8_t arguments[] = {[ROOM] = 2, [SEND] = 1, [LIE] = 1, [CHECK] = 0};
    const uint8_t *args = *at + 1;
    size_t kind = **at & 7, number = **at >> 3;
    struct slot *slot = &run->slots[number % SLOTS];
    if (arguments[kind] > end - args)
        return false;
    *at = args + arguments[kind];
    if (kind == ROOM)
        make_room(run, slot, (256 + 32 * args[0]) * KIB, 8 * args[1] * KIB);
    else if (kind == SEND)
        send_slot(run, slot, 2 * args[0] * KIB);
    else if (kind == LET_GO)
        let_go(slot);
    else if (kind == COPY)
        send_copy(run, (number + 1) * 32 * KIB);
    else if (kind == BLOCK)
        run->blocked = !run->blocked;
    else if (kind == RECONNECT)
        connect_with(run, number);
    if (kind == LIE && run->memory < MEMORIES) {
        lie(run, run->memory, number, args[0]);
        note_lie(run);
    }
    for (size_t i = 0; kind == CHECK && i < SLOTS; i++)
        check_slot(&run->slots[i]);
    go_on(run);
    return true;
}

/* Whether all of a memory is, for the sender, once the other end is done with all. */
static void check_free(const struct run *run, size_t memory)
{
    struct shared_memory *own = sender(run, memory);
    struct shared_place place;
    if (!shared_memory_reserve(own, SHARED_AREA_SIZE, &place))
        abort();
    shared_memory_cancel(own, &place);
    struct blob *blob =
        shared_memory_room(own, run->opener ? SHARED_AREA_SIZE / 2 : SHARED_AREA_SIZE, 0);
    if (!blob)
        abort();
    blob_unref(blob);
}

static void finish(struct run *run)
{
    run->blocked = false;
    go_on(run);
    if (run->first != run->end)
        abort();
    for (size_t i = 0; i < SLOTS; i++)
        let_go(&run->slots[i]);
    message_stream_free(run->stream);
    uv_run(&loop, UV_RUN_DEFAULT);
    for (size_t i = 0; i < MEMORIES; i++) {
        lie(run, i, LIE_ALL, 0);
        check_free(run, i);
    }
}

static void set_up(void)
{
    int pair[2];
    if (uv_loop_init(&loop) || pipe2(pair, O_CLOEXEC))
        abort();
    silent = pair[0];
    for (size_t i = 0; i < MEMORIES; i++)
        shared_ends_init(&memories[i]);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    if (!memories[0].maker)
        set_up();
    struct run run = {.opener = data[0] & 1};
    const uint8_t *at = data + 1, *end = data + size;
    connect_with(&run, 0);
    while (at < end && take_step(&run, &at, end))
        ;
    finish(&run);
    return 0;
}
