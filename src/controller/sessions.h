/* Workers in contact: what each can take, runs and has warm, and the connection by which it is told.
 *
 * A worker is known by its name; each start of it is a session. A state with another session
 * replaces the earlier one: what that was running is lost, as it is when nothing was heard for
 * CONTROLLER_WORKER_LOST_MS, or when its connection has ended and CONTROLLER_WORKER_RECONNECT_MS later there is no other: a worker
 * whose process has died. A cut connection alone loses nothing: the session goes on with the next one. A lost worker stays on
 * the list for a while, so that users see it, and comes back with its next state. Loop thread only. */
#pragma once

#include "base/json.h"
#include "controller/dispatch.h"
#include "controller/keeps.h"
#include "controller/worker_stream.h"

struct controller;
struct build;
struct worker_message;

#define SESSION_NAME_MAX 127
#define SESSION_ID_MAX 63
#define SESSION_CANCELS_KEPT 32
/* A worker that says that it can run more at once is taken to be able to run so many: sums over all workers stay numbers. */
#define SESSION_CONCURRENCY_MAX 65536
/* A cancel for an execution that the worker goes on to name is told again after so long. */
#define SESSION_CANCEL_AGAIN_MS 1000
/* A worker says its state at least so often, and three times before it would be lost. */
#define SESSION_STATE_MS 5000
/* A worker that does not say that it knows of its mark is told again after so long. */
#define SESSION_DRAIN_AGAIN_MS 5000
/* An execution that a worker was given and does not have so long afterwards never arrived there, unless it is known to be on its way. */
#define SESSION_DELIVERY_MS 10000

struct worker_session {
    struct dispatch_worker dispatch; /* its link: in struct sessions */
    char name[SESSION_NAME_MAX + 1];
    char id[SESSION_ID_MAX + 1];
    struct json *described;        /* owned: the last state that had all members */
    uint64_t last_contact_ns;      /* monotonic */
    uint64_t detached_ns;          /* monotonic: when its last connection ended */
    uint64_t last_contact_wall_ns; /* realtime */
    bool lost;
    bool says_draining; /* itself: it stops */
    bool says_drained;  /* it knows of its mark (worker_drains.h) */
    bool told_drained;  /* last, on this connection */
    uint64_t told_drained_ns;
    struct list running;          /* struct live_execution by owner_link */
    struct worker_stream *stream; /* borrowed; NULL: it has no connection */
    uint64_t stream_number;       /* counts its connections */
    struct build *build;          /* that it compiles; borrowed */
    struct string_map keeps;      /* version's key -> struct keep, owned */
    struct {
        char id[TIME_ID_LEN + 1];
        uint64_t told_ns;
    } cancels[SESSION_CANCELS_KEPT]; /* told lately */
    unsigned cancels_next;
};

struct sessions {
    struct string_map by_name;
    struct list all;     /* struct dispatch_worker by link */
    struct list streams; /* struct worker_stream by link */
    char superseded[64][SESSION_ID_MAX + 1];
    unsigned superseded_next;
};

void sessions_init(struct sessions *sessions);
void sessions_deinit(struct controller *controller);

/* A worker's state came by this stream: makes or updates its session, which the stream then belongs to. */
void session_take_state(struct controller *controller, struct worker_stream *stream,
                        const struct worker_message *message);
/* Its connection is over. */
void session_detach(struct worker_session *session);
/* Something else was heard of it. */
void session_heard(struct worker_session *session);
/* Queues a message for the worker; session_flush() sends. -1 when it cannot be told now. */
int session_tell(struct worker_session *session, const char *head, struct error *err);
/* The same with a body. */
int session_give(struct worker_session *session, const char *head, struct blob *body,
                 struct error *err);
void session_flush(struct worker_session *session);
/* Bytes that wait to be sent. */
size_t session_queued(const struct worker_session *session);
/* An execution is no longer the session's. */
void session_execution_ended(struct worker_session *session, struct live_execution *execution);
/* Tells every worker that a version is of no more use. */
void sessions_forget(struct controller *controller, const char *function, int64_t version);
/* Tells it to end an execution, unless it was told a moment ago. */
void session_cancel(struct worker_session *session, const char *execution_id);
/* Marks of drained workers have changed (worker_drains.h). */
void sessions_drains_changed(struct controller *controller);
/* Finds lost workers. Called every tick. */
void sessions_tick(struct controller *controller);
size_t sessions_alive(const struct controller *controller);
/* Those of them that are given work: neither drained nor about to stop. */
size_t sessions_taking(const struct controller *controller);
/* Free slots of all workers that may be given work. */
int64_t sessions_free_slots(const struct controller *controller);
/* Instances in that state, as the workers in contact last told. */
size_t sessions_instances(const struct controller *controller, const char *state);
