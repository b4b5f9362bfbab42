/* A worker's connection: GET /v1/worker/stream becomes a stream of messages both ways (docs/worker-protocol.md).
 *
 * It belongs to no session until its first `state` has come, and to none any more when another start of the worker has taken the name;
 * in both cases it is closed when it stays so. It ends with a cut of the connection, a broken frame, the loss of its session or a
 * newer connection of the same one. Every message of the worker is counted when it was taken, and the count is told
 * with what else goes out, or a moment later: what is not acknowledged the worker says again on its next connection. Loop
 * thread only. */
#pragma once

#include "base/list.h"
#include "base/message_stream.h"

struct controller;
struct json_writer;
struct worker_session;

struct worker_stream {
    struct list link; /* in struct sessions */
    struct controller *controller;
    struct message_stream *messages; /* owned */
    int fd;                          /* the connection's, borrowed */
    struct worker_session *session;  /* NULL: see above */
    uint64_t deadline_ns;            /* monotonic: without a session it is closed then */
    uint64_t taken, acknowledged;    /* messages of the worker's */
    uint64_t given;                  /* messages to the worker */
    uint64_t received;               /* bytes, when that was looked at last */
};

/* Queues a message, which holds `body` (NULL: none) until it was sent. */
int worker_stream_send(struct worker_stream *stream, const char *head, struct blob *body,
                       struct error *err);
/* Writes the member `memory` of a welcome for a worker of this machine (shared_memory.h). */
void worker_stream_offer_memory(struct worker_stream *stream, struct json_writer *writer);
/* Room for a payload of `len` bytes in memory that the only worker which is connected can read (message_stream_room()); NULL: none. */
struct blob *worker_streams_room(struct controller *controller, size_t len);
/* What is queued goes out: see message_stream_push(). */
void worker_stream_push(struct worker_stream *stream);
void worker_stream_close(struct worker_stream *stream);
/* Tells the worker why its stream is of no use ("superseded" or "refused") and leaves it to close. */
void worker_stream_dismiss(struct worker_stream *stream, const char *kind, const struct error *why);
/* Acknowledges, and closes those that nobody wants. Called every tick. */
void worker_streams_tick(struct controller *controller);
void worker_streams_close(struct controller *controller);
