/* Workers in contact: what each can take, runs and has warm; its open polls; what waits to be told
 * to it.
 *
 * A worker is known by its name; each start of it is a session. A poll with another session
 * replaces the earlier one: what that was running is lost, as it is when nothing was heard for
 * CONTROLLER_WORKER_LOST_MS. A lost worker stays on the list for a while, so that users see it, and
 * comes back with its next poll. Loop thread only. */
#pragma once

#include "base/http_server.h"
#include "base/json.h"
#include "controller/dispatch.h"
#include "controller/keeps.h"

struct controller;
struct build;

#define SESSION_NAME_MAX 127
#define SESSION_ID_MAX 63
#define SESSION_FINISHED_KEPT 128
#define SESSION_CANCELS_KEPT 32
/* A cancel for an execution that the worker goes on to name is told again after so long. */
#define SESSION_CANCEL_AGAIN_MS 1000
/* A poll is answered after so long at the latest, well before a silent worker is lost. */
#define SESSION_POLL_MAX_MS 5000
#define SESSION_POLLS_MAX 16
/* An execution that a worker was given and does not have so long afterwards never arrived there. */
#define SESSION_DELIVERY_MS 10000

struct worker_session {
    struct dispatch_worker dispatch; /* its link: in struct sessions */
    char name[SESSION_NAME_MAX + 1];
    char id[SESSION_ID_MAX + 1];
    struct json *described;        /* owned: the last poll that had all members */
    uint64_t last_contact_ns;      /* monotonic */
    uint64_t last_contact_wall_ns; /* realtime */
    bool lost;
    struct list running; /* struct live_execution by owner_link */
    struct list polls;   /* struct parked_poll */
    size_t poll_count;
    struct buffer outbox;    /* messages for the next answer */
    struct build *build;     /* that it compiles; borrowed */
    struct string_map keeps; /* version's key -> struct keep, owned */
    /* Ids of executions that finished lately: a poll that was under way may still name them. */
    char finished[SESSION_FINISHED_KEPT][TIME_ID_LEN + 1];
    unsigned finished_next;
    struct {
        char id[TIME_ID_LEN + 1];
        uint64_t told_ns;
    } cancels[SESSION_CANCELS_KEPT]; /* told lately */
    unsigned cancels_next;
};

struct sessions {
    struct string_map by_name;
    struct list all; /* struct dispatch_worker by link */
    char superseded[64][SESSION_ID_MAX + 1];
    unsigned superseded_next;
};

void sessions_init(struct sessions *sessions);
void sessions_deinit(struct controller *controller);

/* A poll's body came: updates the session, answers at once when there is something to tell, else
 * keeps the request. Always answers or keeps it. */
void sessions_poll(struct controller *controller, struct http_request *request);
/* Something else was heard of it. */
void session_heard(struct worker_session *session);
/* Puts a message for the worker into its outbox; session_flush() sends. -1 when the outbox is full.
 */
int session_tell(struct worker_session *session, const char *head, const char *body,
                 size_t body_len, struct error *err);
/* Answers an open poll with the outbox, if there are both. */
void session_flush(struct worker_session *session);
/* The outbox as the answer of `request`. */
void session_answer(struct worker_session *session, struct http_request *request);
/* An execution is no longer the session's. */
void session_execution_ended(struct worker_session *session, struct live_execution *execution);
/* Tells every worker that a version is of no more use. */
void sessions_forget(struct controller *controller, const char *function, int64_t version);
/* Tells it to end an execution, unless it was told a moment ago. */
void session_cancel(struct worker_session *session, const char *execution_id);
/* Answers old polls, finds lost workers. Called every tick. */
void sessions_tick(struct controller *controller);
/* Answers all polls, so that a draining server can close. */
void sessions_release_polls(struct controller *controller);
size_t sessions_alive(const struct controller *controller);
/* Free slots of all workers that may be given work. */
int64_t sessions_free_slots(const struct controller *controller);
