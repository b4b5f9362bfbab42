/* What an instance says to the worker, and does to memory of both sides before, between and while the worker reads there. The first byte
 * tells what there is, the rest are steps (enum step). A body has the length that was said, whichever way it came; of the memory each byte is
 * read once, what was read is what is told, and what was found out about a result while it came holds for what was told.
 *
 * The linker puts the functions below in the place of those that make that memory and read it: its pages stay from run to run, and it
 * changes under the reader's hands. */
#include "base/blob.h"
#include "base/json_tree.h"
#include "base/sealed_memory.h"
#include "worker/body_area.h"
#include "worker/channel.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define KIB ((size_t)1024)
#define SMALL_AREA (320 * KIB)
#define BODY_MAX (512 * KIB)
#define PASSED_OVER_MAX (768 * KIB)
#define PAYLOAD_MAX (1024 * KIB)
#define LATER_MAX 64
#define PLAIN 'x'

/* The first byte. */
enum {
    WITH_AREA = 1,
    LARGE_AREA = 2, /* for all bodies */
    WITH_ROOM = 4,
    PASSES_OVER = 8,
    FREES = 16, /* the channel inside of the last event, and of a frame with flag DIRTY */
};

/* A step's lowest three bits; the others are its number. */
enum step {
    SAY,          /* so many bytes that follow and one more; 31: all */
    SAY_PLAIN,    /* 16 KiB so many times and once more, all of them the same */
    CHANGE,       /* the area; what follows says where and to what */
    CHANGE_LATER, /* likewise, once the worker has read the next piece of it */
    SEND,         /* the worker does, 32 KiB so many times and once more */
    HEAR,         /* the instance does, all that was sent */
};
#define SAY_ALL 31

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct script {
    const uint8_t *bytes;
    size_t len;
};

struct change {
    size_t at, len;
    uint8_t byte;
};

/* What the instance has of an area: a long string that does not end, but for what was changed. */
struct memory {
    const size_t size;
    int fd;
    char *bytes;
    size_t changed_from, changed_to;
};

static struct memory memories[] = {{.size = SMALL_AREA}, {.size = BODY_MAX}};
static struct memory *area; /* one of them; NULL: there is none */
static uv_loop_t loop;
static char payload[PAYLOAD_MAX]; /* as an area is */
static char room[BODY_MAX];
static int rooms; /* that are given */
static char read_bytes[BODY_MAX];
static size_t read_len; /* of the area, for the frame that comes */
static struct change later[LATER_MAX];
static size_t later_count, later_done;

struct seen {
    struct channel *channel; /* NULL once it was freed */
    int peer;
    bool has_room, frees;
    unsigned ends;
};

/* ---- memory of both sides ---- */

int __real_sealed_memory_new(const char *name, size_t size, struct error *err);
int __wrap_sealed_memory_new(const char *name, size_t size, struct error *err);
int __wrap_sealed_memory_new(const char *name, size_t size, struct error *err)
{
    (void)name;
    (void)err;
    assert(area && size == area->size);
    return fcntl(area->fd, F_DUPFD_CLOEXEC, 0);
}

static void change(const struct change *to)
{
    size_t at = to->at % area->size;
    size_t len = to->len < area->size - at ? to->len : area->size - at;
    memset(area->bytes + at, to->byte, len);
    area->changed_from = at < area->changed_from ? at : area->changed_from;
    area->changed_to = at + len > area->changed_to ? at + len : area->changed_to;
}

/* As it is at the begin of a run. */
static void restore(struct memory *memory)
{
    if (memory->changed_from < memory->changed_to)
        memcpy(memory->bytes + memory->changed_from, payload + memory->changed_from,
               memory->changed_to - memory->changed_from);
    memory->changed_from = memory->size;
    memory->changed_to = 0;
}

void __real_body_area_get(const struct body_area *from, char *to, size_t at, size_t len);
void __wrap_body_area_get(const struct body_area *from, char *to, size_t at, size_t len);
void __wrap_body_area_get(const struct body_area *from, char *to, size_t at, size_t len)
{
    assert(at == read_len && len <= BODY_MAX - at);
    __real_body_area_get(from, to, at, len);
    memcpy(read_bytes + at, to, len);
    read_len += len;
    if (later_done < later_count)
        change(&later[later_done++]);
}

static void set_up(void)
{
    memset(payload, PLAIN, sizeof(payload));
    payload[0] = '"';
    if (uv_loop_init(&loop) < 0)
        abort();
    for (size_t i = 0; i < sizeof(memories) / sizeof(memories[0]); i++) {
        memories[i].fd = __real_sealed_memory_new("faas-fuzz", memories[i].size, NULL);
        memories[i].bytes = sealed_memory_map(memories[i].fd, memories[i].size, NULL);
        if (!memories[i].bytes)
            abort();
        memories[i].changed_to = memories[i].size;
        restore(&memories[i]);
    }
}

/* ---- the worker ---- */

static void drop(struct seen *seen)
{
    channel_free(seen->channel);
    seen->channel = NULL;
}

static void give_back(void *data)
{
    (void)data;
    rooms--;
}

/* One byte too many is beyond it. What is not put there is no JSON. */
static struct blob *on_room(void *data, size_t len)
{
    const struct seen *seen = data;
    assert(len >= BODY_AREA_MIN && len <= sizeof(room));
    if (!seen->has_room || rooms > 0)
        return NULL;
    char *bytes = room + sizeof(room) - len;
    rooms++;
    memset(bytes, 0, len);
    return blob_new_lent(bytes, len, give_back, NULL);
}

/* What was found while it came holds for all of it. */
static void check_result(const struct json_ahead *ahead, const char *body, size_t len)
{
    static const struct json_limits limits = {
        .max_bytes = BODY_MAX, .max_depth = 128, .max_values = 1024 * KIB};
    if (ahead && json_scan_rest(ahead, body, len, &limits))
        assert(json_check(body, len, &limits, NULL) == 0);
}

/* As a result is: where there was room for it, or else. */
static void take(struct channel *channel, const char *body, size_t body_len)
{
    struct blob *blob = channel_take_room(channel);
    size_t len;
    if (blob) {
        assert(blob->bytes == body && blob->len == body_len);
        blob_unref(blob);
        return;
    }
    char *taken = channel_take_body(channel, &len);
    assert(taken && len == body_len && taken[len] == '\0');
    free(taken);
}

static void on_frame(void *data, const struct frame_header *header, const char *meta,
                     const char *body)
{
    struct seen *seen = data;
    assert(seen->ends == 0 && header->body_len <= BODY_MAX && strlen(meta) == header->meta_len);
    if (header->flags & FRAME_FLAG_IN_AREA)
        assert(read_len == header->body_len && memcmp(body, read_bytes, read_len) == 0);
    else
        assert(body[header->body_len] == '\0');
    read_len = 0;
    if (header->type == FRAME_RESULT) {
        check_result(channel_ahead(seen->channel), body, header->body_len);
        take(seen->channel, body, header->body_len);
    }
    if (seen->frees && (header->flags & FRAME_FLAG_DIRTY))
        drop(seen);
}

static void ended(struct seen *seen)
{
    assert(seen->ends == 0);
    seen->ends++;
    if (seen->frees)
        drop(seen);
}

static void on_too_large(void *data, const struct frame_header *header, const char *meta)
{
    assert(header->body_len > BODY_MAX && (!meta || strlen(meta) == header->meta_len));
    if (!meta)
        ended(data);
}

static void on_closed(void *data, const struct error *why)
{
    assert(*why->message);
    ended(data);
}

static void pass_area(struct channel *channel)
{
    struct error err = {0};
    struct body_area *passed = body_area_new(area->size, &err);
    if (!passed)
        abort();
    channel_pass_area(channel, passed);
    if (channel_send(channel, FRAME_INVOKE, 1, "id", "{}", 2, &err) < 0)
        abort();
    channel_use_area(channel);
}

static void send_payload(struct channel *channel, size_t len)
{
    struct error err = {0};
    if (!channel_sending(channel) &&
        channel_send(channel, FRAME_INVOKE, 1, "id", payload, len, &err) < 0)
        abort();
}

/* ---- the instance ---- */

static void say(struct seen *seen, const void *bytes, size_t len)
{
    if (len > 0 && write(seen->peer, bytes, len) != (ssize_t)len)
        abort();
    channel_read(seen->channel);
}

static void hear(struct seen *seen)
{
    static char heard[256 * 1024];
    while (read(seen->peer, heard, sizeof(heard)) > 0)
        ;
    uv_run(&loop, UV_RUN_NOWAIT);
}

static const uint8_t *next(struct script *script, size_t len)
{
    const uint8_t *bytes = script->bytes;
    if (len > script->len)
        return NULL;
    script->bytes += len;
    script->len -= len;
    return bytes;
}

static void say_next(struct seen *seen, struct script *script, size_t number)
{
    size_t len = number < SAY_ALL && number + 1 < script->len ? number + 1 : script->len;
    while (len > 0 && seen->channel && seen->ends == 0) {
        size_t piece = len < 64 * KIB ? len : 64 * KIB;
        say(seen, next(script, piece), piece);
        len -= piece;
    }
}

/* `number`: so many bytes, as a power of two. */
static void change_next(struct script *script, size_t number, bool at_once)
{
    const uint8_t *bytes = next(script, 4);
    if (!bytes || !area)
        return;
    struct change to = {.at = bytes[0] | (size_t)bytes[1] << 8 | (size_t)bytes[2] << 16,
                        .len = (size_t)1 << number % 20,
                        .byte = bytes[3]};
    if (at_once)
        change(&to);
    else if (later_count < LATER_MAX)
        later[later_count++] = to;
}

static void take_step(struct seen *seen, struct script *script)
{
    uint8_t byte = *next(script, 1);
    size_t number = byte >> 3;
    switch (byte & 7) {
    case SAY_PLAIN:
        for (size_t i = 0; i <= number && seen->channel && seen->ends == 0; i++)
            say(seen, payload + 1, 16 * KIB);
        break;
    case CHANGE:
    case CHANGE_LATER:
        change_next(script, number, (byte & 7) == CHANGE);
        break;
    case SEND:
        send_payload(seen->channel, (number + 1) * 32 * KIB);
        break;
    case HEAR:
        hear(seen);
        break;
    default:
        say_next(seen, script, number);
    }
}

/* It does what is said, and is gone. */
static void play(struct seen *seen, struct script *script)
{
    while (script->len > 0 && seen->channel && seen->ends == 0)
        take_step(seen, script);
    close(seen->peer);
    while (seen->channel && seen->ends == 0)
        channel_read(seen->channel);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct channel_events events = {
        .frame = on_frame, .too_large = on_too_large, .closed = on_closed, .room = on_room};
    struct error err = {0};
    int pair[2];
    if (size == 0)
        return 0;
    struct script script = {.bytes = data + 1, .len = size - 1};
    if (!memories[0].bytes)
        set_up();
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair) < 0)
        abort();
    struct seen seen = {.peer = pair[1], .has_room = data[0] & WITH_ROOM, .frees = data[0] & FREES};
    seen.channel = channel_new(
        &loop, pair[0], FRAME_BIT(FRAME_READY) | FRAME_BIT(FRAME_RESULT) | FRAME_BIT(FRAME_ERROR),
        BODY_MAX, &events, &seen, &err);
    if (!seen.channel)
        abort();
    area = data[0] & WITH_AREA ? &memories[data[0] & LARGE_AREA ? 1 : 0] : NULL;
    later_count = later_done = read_len = 0;
    if (data[0] & PASSES_OVER)
        channel_pass_over_large(seen.channel, PASSED_OVER_MAX);
    if (area)
        pass_area(seen.channel);
    play(&seen, &script);
    channel_free(seen.channel);
    uv_run(&loop, UV_RUN_DEFAULT);
    assert(rooms == 0 && !uv_loop_alive(&loop));
    if (area)
        restore(area);
    return 0;
}
