/* Memory between the ends of a connection: see shared_memory.h. */
#include "base/shared_memory.h"

#include "base/cleanup.h"
#include "base/sealed_memory.h"
#include "base/text.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define HEAD_SIZE 4096UL
#define WHOLE_SIZE (HEAD_SIZE + 2 * SHARED_AREA_SIZE)
/* An area is given out in pieces of so many bytes, so that few words say which are free. */
#define PIECE_SIZE (64UL * 1024)
#define PIECES (SHARED_AREA_SIZE / PIECE_SIZE)

enum { MAKERS, OPENERS, SHOWN, AREAS }; /* whose bodies are in an area; SHOWN: the maker's, too */

/* The first page. */
struct head {
    char proof[RANDOM_ID_LEN + 1];
    /* For each area, at the piece with which a place begins: its receiver is done with that. */
    _Atomic unsigned char done[AREAS][PIECES];
};

enum room { ROOM_NONE, ROOM_OPEN, ROOM_SENT };

struct shared_memory {
    struct head *head; /* the mapping's begin */
    char *shown; /* an area with a mapping of its own, which the opener can only read; NULL: none */
    int fd, shown_fd; /* the maker's until they are withdrawn, else -1 */
    int own;          /* the area that this end writes */
    bool is_shown;    /* the maker: the other end has it */
    atomic_uint users;
    atomic_size_t held; /* bytes of the other end's area */
    /* Of an area that this end writes: pieces of the place that begins with one; 0: none does. */
    uint16_t taken[AREAS][PIECES];
    /* Of the place that begins with a piece, in the area for it: whether this end keeps it, and the receiver knows it. */
    unsigned char rooms[PIECES];
    size_t open; /* pieces in rooms that it does not know */
};

static struct shared_memory *new_end(int own, struct error *err)
{
    struct shared_memory *memory = calloc(1, sizeof(*memory));
    if (!memory) {
        error_set(err, ERROR_INTERNAL, "out of memory");
        return NULL;
    }
    memory->fd = memory->shown_fd = -1;
    memory->own = own;
    memory->users = 1;
    return memory;
}

static int map(struct shared_memory *memory, int fd, struct error *err)
{
    memory->head = sealed_memory_map(fd, WHOLE_SIZE, err);
    return memory->head ? 0 : -1;
}

static int make(struct shared_memory *memory, struct error *err)
{
    memory->fd = sealed_memory_new("faas-bodies", WHOLE_SIZE, err);
    if (memory->fd < 0 || map(memory, memory->fd, err) < 0)
        return -1;
    random_id(memory->head->proof);
    return 0;
}

/* Without it bodies are copied into the other area. */
static void make_shown(struct shared_memory *memory)
{
    void *shown = NULL;
    memory->shown_fd = sealed_memory_new_to_read("faas-shown", SHARED_AREA_SIZE, &shown, NULL);
    memory->shown = shown;
}

struct shared_memory *shared_memory_new(struct error *err)
{
    struct shared_memory *memory = new_end(0, err);
    if (!memory)
        return NULL;
    if (make(memory, err) < 0) {
        shared_memory_free(memory);
        return NULL;
    }
    make_shown(memory);
    return memory;
}

void shared_memory_offer(const struct shared_memory *memory, struct json_writer *writer)
{
    json_object_begin(writer);
    json_member_int(writer, "pid", getpid());
    json_member_int(writer, "fd", memory->fd);
    if (memory->shown)
        json_member_int(writer, "shown_fd", memory->shown_fd);
    json_member_string(writer, "proof", memory->head->proof);
    json_object_end(writer);
}

void shared_memory_withdraw(struct shared_memory *memory)
{
    if (memory->fd >= 0)
        close(steal_fd(&memory->fd));
    if (memory->shown_fd >= 0)
        close(steal_fd(&memory->shown_fd));
}

/* What the offer names may be anything, on another machine by chance: with a FIFO, a watchdog or a tape, opening it has effects already,
 * so that it is looked at before; and only sealed memory of the right size can be mapped without surprises. */
static int open_offered(const struct json *offer, const char *member, size_t size, int access,
                        struct error *err)
{
    char path[64], found_path[64];
    struct stat status;
    snprintf(path, sizeof(path), "/proc/%lld/fd/%lld", (long long)json_get_int(offer, "pid", -1),
             (long long)json_get_int(offer, member, -1));
    autoclose int found = open(path, O_PATH | O_CLOEXEC);
    if (found < 0)
        return error_set_errno(err, ERROR_NOT_FOUND, errno, "cannot open %s", path);
    if (fstat(found, &status) < 0 || !S_ISREG(status.st_mode) || status.st_size != (off_t)size)
        return error_set(err, ERROR_INVALID_REQUEST, "%s is no memory that can be shared", path);
    snprintf(found_path, sizeof(found_path), "/proc/self/fd/%d", found);
    autoclose int fd = open(found_path, access | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return error_set_errno(err, ERROR_NOT_FOUND, errno, "cannot open %s", path);
    if (!sealed_memory_is(fd))
        return error_set(err, ERROR_INVALID_REQUEST, "%s is no memory that can be shared", path);
    return steal_fd(&fd);
}

/* Of the process that has proved itself. */
static void open_shown(struct shared_memory *memory, const struct json *offer)
{
    autoclose int fd = open_offered(offer, "shown_fd", SHARED_AREA_SIZE, O_RDONLY, NULL);
    if (fd >= 0)
        memory->shown = sealed_memory_map_to_read(fd, SHARED_AREA_SIZE, NULL);
}

struct shared_memory *shared_memory_open(const struct json *offer, struct error *err)
{
    const char *proof = json_get_string(offer, "proof");
    autoclose int fd = open_offered(offer, "fd", WHOLE_SIZE, O_RDWR, err);
    if (fd < 0)
        return NULL;
    struct shared_memory *memory = new_end(1, err);
    if (!memory)
        return NULL;
    int status = map(memory, fd, err);
    if (status == 0 && (!proof || strlen(proof) != RANDOM_ID_LEN ||
                        memcmp(memory->head->proof, proof, RANDOM_ID_LEN) != 0))
        status = error_set(err, ERROR_INVALID_REQUEST, "it is not the memory that was offered");
    if (status < 0) {
        shared_memory_free(memory);
        return NULL;
    }
    open_shown(memory, offer);
    return memory;
}

bool shared_memory_is_shown(const struct shared_memory *memory)
{
    return memory->shown;
}

void shared_memory_show(struct shared_memory *memory)
{
    memory->is_shown = memory->shown && memory->own == MAKERS;
}

struct shared_memory *shared_memory_ref(struct shared_memory *memory)
{
    atomic_fetch_add(&memory->users, 1);
    return memory;
}

void shared_memory_free(struct shared_memory *memory)
{
    if (!memory || atomic_fetch_sub(&memory->users, 1) > 1)
        return;
    shared_memory_withdraw(memory);
    if (memory->head)
        munmap(memory->head, WHOLE_SIZE);
    if (memory->shown)
        munmap(memory->shown, SHARED_AREA_SIZE);
    free(memory);
}

static char *area(const struct shared_memory *memory, int which)
{
    return which == SHOWN ? memory->shown
                          : (char *)memory->head + HEAD_SIZE + (size_t)which * SHARED_AREA_SIZE;
}

/* Where this end makes bodies in place. */
static int area_of_rooms(const struct shared_memory *memory)
{
    return memory->own == MAKERS ? SHOWN : OPENERS;
}

/* Takes back the place that begins with a piece, once its receiver is done with it. */
static void take_back(struct shared_memory *memory, int which, size_t piece)
{
    if (memory->taken[which][piece] > 0 && atomic_load(&memory->head->done[which][piece]) &&
        (which != area_of_rooms(memory) || memory->rooms[piece] == ROOM_NONE))
        memory->taken[which][piece] = 0;
}

/* The first of `count` free pieces in a row; PIECES: there are none. */
static size_t find_free(struct shared_memory *memory, int which, size_t count)
{
    size_t begin = 0, end = 0;
    while (end < PIECES && end - begin < count) {
        take_back(memory, which, end);
        size_t taken = memory->taken[which][end];
        end += taken > 0 ? taken : 1;
        begin = taken > 0 ? end : begin;
    }
    return end - begin == count ? begin : PIECES;
}

/* As shared_memory_reserve(). */
static char *reserve(struct shared_memory *memory, int which, size_t len, struct shared_place *ret)
{
    if (len > SHARED_AREA_SIZE)
        return NULL;
    size_t count = len > 0 ? (len + PIECE_SIZE - 1) / PIECE_SIZE : 1;
    size_t piece = find_free(memory, which, count);
    if (piece == PIECES)
        return NULL;
    memory->taken[which][piece] = (uint16_t)count;
    atomic_store(&memory->head->done[which][piece], 0);
    *ret = (struct shared_place){.at = piece * PIECE_SIZE, .len = len};
    if (which == SHOWN)
        ret->at += SHARED_AREA_SIZE;
    return area(memory, which) + piece * PIECE_SIZE;
}

char *shared_memory_reserve(struct shared_memory *memory, size_t len, struct shared_place *ret)
{
    return reserve(memory, memory->own, len, ret);
}

/* The area of a place that `sender` tells. */
static int area_of(int sender, const struct shared_place *place)
{
    return place->at < SHARED_AREA_SIZE ? sender : SHOWN;
}

static size_t piece_of(const struct shared_place *place)
{
    return place->at % SHARED_AREA_SIZE / PIECE_SIZE;
}

void shared_memory_cancel(struct shared_memory *memory, const struct shared_place *place)
{
    memory->taken[area_of(memory->own, place)][piece_of(place)] = 0;
}

const char *shared_memory_at(const struct shared_memory *memory, const struct shared_place *place)
{
    int which = area_of(!memory->own, place);
    uint64_t at = place->at % SHARED_AREA_SIZE;
    if (place->at >= 2 * SHARED_AREA_SIZE || at % PIECE_SIZE != 0 ||
        place->len > SHARED_AREA_SIZE - at ||
        (which == SHOWN && (memory->own == MAKERS || !memory->shown)))
        return NULL;
    return area(memory, which) + at;
}

void shared_memory_done(struct shared_memory *memory, const struct shared_place *place)
{
    atomic_store(&memory->head->done[area_of(!memory->own, place)][piece_of(place)], 1);
}

/* ---- bodies that are made in place ---- */

struct made {
    struct shared_memory *memory; /* owned: a reference */
    struct shared_place place;
};

static void let_go(void *data)
{
    struct made *made = data;
    struct shared_memory *memory = made->memory;
    size_t piece = piece_of(&made->place);
    if (memory->rooms[piece] == ROOM_OPEN) {
        memory->open -= memory->taken[area_of_rooms(memory)][piece];
        shared_memory_cancel(memory, &made->place);
    }
    memory->rooms[piece] = ROOM_NONE;
    shared_memory_free(memory);
    free(made);
}

/* In the maker's area for them are no other bodies. */
static size_t most_open(const struct shared_memory *memory)
{
    return area_of_rooms(memory) == SHOWN ? PIECES : PIECES / 2;
}

struct blob *shared_memory_room(struct shared_memory *memory, size_t len, size_t spare)
{
    struct shared_place place;
    size_t left = (most_open(memory) - memory->open) * PIECE_SIZE;
    if ((memory->own == MAKERS && !memory->is_shown) || len > left || spare > left - len)
        return NULL;
    char *bytes = reserve(memory, area_of_rooms(memory), len + spare, &place);
    struct made *made = bytes ? malloc(sizeof(*made)) : NULL;
    struct blob *blob = made ? blob_new_lent(bytes, len, let_go, made) : NULL;
    if (!blob) {
        if (bytes)
            shared_memory_cancel(memory, &place);
        free(made);
        return NULL;
    }
    *made = (struct made){.memory = shared_memory_ref(memory), .place = place};
    memory->rooms[piece_of(&place)] = ROOM_OPEN;
    memory->open += memory->taken[area_of_rooms(memory)][piece_of(&place)];
    return blob;
}

bool shared_memory_is_room(const struct shared_memory *memory, const char *body, size_t len,
                           struct shared_place *ret)
{
    int which = area_of_rooms(memory);
    uintptr_t at = (uintptr_t)body - (uintptr_t)area(memory, which);
    size_t piece = at / PIECE_SIZE;
    if (at >= SHARED_AREA_SIZE || at % PIECE_SIZE != 0 || memory->rooms[piece] != ROOM_OPEN ||
        len > memory->taken[which][piece] * PIECE_SIZE)
        return false;
    *ret = (struct shared_place){.at = which == SHOWN ? SHARED_AREA_SIZE + at : at, .len = len};
    return true;
}

void shared_memory_room_sent(struct shared_memory *memory, const struct shared_place *place)
{
    memory->rooms[piece_of(place)] = ROOM_SENT;
    memory->open -= memory->taken[area_of_rooms(memory)][piece_of(place)];
}

/* ---- bodies that are held ---- */

struct held {
    struct shared_memory *memory; /* owned: a reference */
    struct shared_place place;
};

static void give_back(void *data)
{
    struct held *held = data;
    atomic_fetch_sub(&held->memory->held, held->place.len);
    shared_memory_done(held->memory, &held->place);
    shared_memory_free(held->memory);
    free(held);
}

bool shared_memory_may_hold(const struct shared_memory *memory, size_t len)
{
    size_t held = atomic_load(&memory->held);
    return held <= SHARED_HELD_MAX && len <= SHARED_HELD_MAX - held;
}

struct blob *shared_memory_hold(struct shared_memory *memory, const struct shared_place *place,
                                size_t len)
{
    struct held *held = shared_memory_may_hold(memory, place->len) ? malloc(sizeof(*held)) : NULL;
    struct blob *blob =
        held ? blob_new_lent(shared_memory_at(memory, place), len, give_back, held) : NULL;
    if (!blob) {
        free(held);
        return NULL;
    }
    blob->foreign = true;
    *held = (struct held){.memory = shared_memory_ref(memory), .place = *place};
    atomic_fetch_add(&memory->held, place->len);
    return blob;
}
