/* Frames (init/protocol.h) over one non-blocking stream socket to an instance.
 *
 * The other side is hostile: lengths are checked against the caps before memory is taken, memory
 * is touched only where bytes arrived, and the first thing that does not fit ends the channel. What one
 * turn of the loop reads is bounded, so that one instance cannot starve the others. Loop thread
 * only. */
#pragma once

#include "base/error.h"
#include "init/frame.h"

#include <stdbool.h>
#include <uv.h>

struct blob;
struct body_area;
struct channel;
struct json_ahead;

struct channel_events {
    /* The header is in the machine's byte order, and its body_len that of the body wherever it was; `meta` and `body` are valid during the
     * call and NUL-terminated, but for a body in memory that room() gave. The channel may be freed inside any event. */
    void (*frame)(void *data, const struct frame_header *header, const char *meta,
                  const char *body);
    /* A frame announced a body over the cap; the channel is dead, closed() does not follow. After channel_pass_over_large(): a
     * frame whose body was over the cap has come and was passed over; the channel lives. `meta`: NULL or the frame's. */
    void (*too_large)(void *data, const struct frame_header *header, const char *meta);
    /* End of file, or a violation (`why`). Called once; the channel must still be freed. */
    void (*closed)(void *data, const struct error *why);
    /* All is sent of a frame that channel_send() could not send at once. May be NULL; here the channel must
     * not be freed. */
    void (*sent)(void *data);
    /* Memory for a RESULT of `len` bytes that is about to come through the area, as a blob that is the channel's now, and only it writes
     * to; NULL: nobody has any, the channel takes its own. May be NULL; here the channel must not be freed. */
    struct blob *(*room)(void *data, size_t len);
};

/* Takes `fd`, also on failure. `types`: FRAME_BIT() of each type that may come; `max_body`: bytes
 * of one frame's body. */
struct channel *channel_new(uv_loop_t *loop, int fd, uint32_t types, size_t max_body,
                            const struct channel_events *events, void *data, struct error *err);
/* Accepts NULL. */
void channel_free(struct channel *channel);
/* Writes at once what the socket takes; the rest follows by itself. `body` is borrowed until
 * channel_sending() says false; one frame at a time. Fails when the peer is gone. A large body goes through the area where there is
 * one. */
int channel_send(struct channel *channel, enum frame_type type, uint32_t value, const char *meta,
                 const char *body, size_t body_len, struct error *err);
/* While it is sending: the body that it borrows lies at `body` from now on. */
void channel_move_body(struct channel *channel, const char *body);
/* Inside of frame(): the body becomes the caller's. NULL when out of memory. Not of a body in memory that room() gave: */
char *channel_take_body(struct channel *channel, size_t *ret_len);
/* That becomes the caller's; NULL: it is elsewhere. */
struct blob *channel_take_room(struct channel *channel);
/* Inside of frame(): what was seen of a large RESULT while it came, for json_check_ahead() of its body. */
const struct json_ahead *channel_ahead(const struct channel *channel);
/* The next frame carries the descriptor of `area` (body_area.h), which is the channel's now; once it is sent, large results may be in it.
 * One in a channel's life. */
void channel_pass_area(struct channel *channel, struct body_area *area);
/* The peer says that it has it: bodies may be sent through it. Nothing when it was not passed. */
void channel_use_area(struct channel *channel);
/* NULL: there is none. */
struct body_area *channel_area(const struct channel *channel);
/* Takes what has already arrived, without waiting for the loop. Events come from inside. */
void channel_read(struct channel *channel);
/* From the next frame on a body over the cap, up to `max` bytes, is read and dropped. */
void channel_pass_over_large(struct channel *channel, uint32_t max);
/* Not all of the last frame is on its way; stays so when the peer went away before it had all. */
bool channel_sending(const struct channel *channel);
