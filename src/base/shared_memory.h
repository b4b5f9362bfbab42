/* Memory that the two ends of a connection on one machine have mapped, so that large bodies need not go through the kernel, piece by
 * piece and twice.
 *
 * One end makes it and offers it over the connection: process, descriptor and a proof, which nobody reads there but who really
 * opens that memory. The other opens it in /proc; where it cannot (another machine, another pid namespace, no right), the connection goes
 * on without. It has an area for each direction: the sender puts a body there and says the place in a message, the receiver copies it out
 * before it looks at it, or holds it for a while, and says done. Places are given back in any order. A body gets the first room that is
 * large enough, so calls one after the other use the same pages, and nothing that does not fit is taken.
 *
 * The maker has one area more that it only shows: the other end can map it for reading and no process for writing any more. In it the maker
 * makes bodies in place that it goes by, and keeps, after the other end was told of them.
 *
 * What the other end writes is not trusted further than what it says over the connection: a place is checked, the size is sealed, and bytes
 * may change until they are copied. Of a body that is held they may change at any time: it can be passed on from there, and looked at by
 * what rests on no byte being the same twice, as json_check_quick() does. So the most that a sender can do which lies about its own body is
 * that whoever gets it gets something else than was checked. One that says done before it is gets the bytes of another body.
 *
 * Life cycle: shared_memory_new() or shared_memory_open(), shared_memory_ref() for who needs it longer, shared_memory_free() for each; the
 * memory itself is gone with the last of both ends and of what is held, however they end. One thread, but for shared_memory_done() and
 * shared_memory_free(), and a body that is held is given back from any. */
#pragma once

#include "base/blob.h"
#include "base/error.h"
#include "base/json.h"

#include <stdbool.h>
#include <stdint.h>

/* Bytes of an area; only pages that were used take memory. */
#define SHARED_AREA_SIZE (16UL * 1024 * 1024)
/* Of the other end's area, in bodies that are held: the rest is for others, however slow those are whom it is held for. */
#define SHARED_HELD_MAX (SHARED_AREA_SIZE / 2)

struct shared_memory;

struct shared_place {
    uint64_t at, len; /* within the sender's area, behind which is the one that it shows */
};

struct shared_memory *shared_memory_new(struct error *err);
/* Writes the value that shared_memory_open() takes. */
void shared_memory_offer(const struct shared_memory *memory, struct json_writer *writer);
/* The other end has it, or does not want it: nobody can open it any more. */
void shared_memory_withdraw(struct shared_memory *memory);
/* `offer` is a stranger's. */
struct shared_memory *shared_memory_open(const struct json *offer, struct error *err);
/* The same memory, once more: to be freed once more. */
struct shared_memory *shared_memory_ref(struct shared_memory *memory);
/* Accepts NULL. */
void shared_memory_free(struct shared_memory *memory);
/* The other end of the maker: whether it can read what the maker shows. */
bool shared_memory_is_shown(const struct shared_memory *memory);
/* The maker: the other end can read it. */
void shared_memory_show(struct shared_memory *memory);

/* Room for a body of `len` bytes, at the beginning of a page; NULL: none now. It is the caller's until the receiver is done with it. */
char *shared_memory_reserve(struct shared_memory *memory, size_t len, struct shared_place *ret);
/* The receiver was not and will not be told of a place that was reserved. */
void shared_memory_cancel(struct shared_memory *memory, const struct shared_place *place);
/* Where the other end's body is, NULL when it says a place that cannot be. */
const char *shared_memory_at(const struct shared_memory *memory, const struct shared_place *place);
/* Whether a body of the other end can stay where it is while it is needed, because less than SHARED_HELD_MAX is held. */
bool shared_memory_may_hold(const struct shared_memory *memory, size_t len);
/* The first `len` bytes of that body, which stays where it is, also without `memory`, until nobody holds them: then it is done. NULL: not
 * now, and it is not done. */
struct blob *shared_memory_hold(struct shared_memory *memory, const struct shared_place *place,
                                size_t len);
/* That body was copied, or is not wanted. shared_memory_at() has approved of the place. */
void shared_memory_done(struct shared_memory *memory, const struct shared_place *place);

/* A body of this end's that is made where it is sent from: `len` bytes for whoever fills them, and then `spare` more. It stays there as
 * long as somebody holds it, also without `memory` and when the receiver is done with it. NULL: no room now, which is so, too, when
 * bodies that are not sent yet have half of the area: the rest is for those that are whole. The maker's are in the area that it shows, from
 * shared_memory_show() on. */
struct blob *shared_memory_room(struct shared_memory *memory, size_t len, size_t spare);
/* Whether `body` is at the begin of one, with so many bytes; then `ret` is its place. */
bool shared_memory_is_room(const struct shared_memory *memory, const char *body, size_t len,
                           struct shared_place *ret);
/* The receiver is told of that place, once, and says when it is done. */
void shared_memory_room_sent(struct shared_memory *memory, const struct shared_place *place);
