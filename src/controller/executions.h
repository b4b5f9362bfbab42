/* Executions in memory: from acceptance until their record has been handed to the store.
 *
 * An execution is queued (dispatch.h has it), running (a worker's session has it) or final. Records
 * of final ones are written behind, in batches: a synchronous invocation touches no database on its
 * way. An asynchronous one is in the store before it is acknowledged, and is updated there.
 *
 * executions_accept() -> dispatch -> executions_started() -> executions_finish(); a worker's loss
 * leads to executions_worker_lost(). Loop thread only. */
#pragma once

#include "base/http_server.h"
#include "controller/registry.h"

struct controller;
struct worker_session;
struct token;

/* How the waiting client wants its answer. */
enum answer_form {
    ANSWER_EXECUTION, /* the execution object */
    ANSWER_RAW,       /* the result itself */
};

struct live_execution {
    struct execution record;
    struct function_version *version; /* a reference */
    struct blob *payload; /* a use of it; of a synchronous one only until it was dispatched */
    struct http_request *request; /* the waiting client; NULL: nobody */
    enum answer_form form;
    uint64_t accepted_ns, dispatched_ns; /* monotonic */
    struct worker_session *session;      /* that runs it */
    uint64_t stream_number;              /* by which of its connections it went there */
    uint64_t stream_message;             /* and, at the latest, as which of its messages */
    bool delivered;                      /* the worker has said that it has it */
    /* Queued again, but the attempt before may still run at a worker that was out of contact, or that an
     * earlier controller gave it to. */
    bool interrupted;
    bool code_unknown;      /* the worker may have to fetch its version's code first */
    bool committing;        /* on its way into the store */
    bool has_place;         /* admission's: counted among its function's calls at the same time */
    struct token *token;    /* of a synchronous one; a reference; NULL: no named one */
    bool shares;            /* dispatch's: it is at a worker, on a place that is nobody's own */
    bool in_window;         /* delivery's: counted as waiting in memory */
    struct list queue_link; /* in its function's queue */
    struct list wait_link;  /* synchronous and queued: in order of acceptance */
    struct list owner_link; /* running: in its session's list; final: to be written */
    struct buffer log;      /* what came of its log so far (the end of it) */
    uint64_t log_seen;      /* bytes that came so far, those cut included */
    size_t line_pending;    /* bytes at the end of `log` that no follower has seen yet */
};

struct executions {
    struct string_map by_id;         /* id -> struct live_execution, owned */
    struct list finals;              /* to be written */
    size_t final_count, final_bytes; /* bytes: of results and logs */
    uint64_t handed_over;            /* finals that the store has been given so far */
    size_t running;                  /* for metrics */
    struct loop_timer *flush_timer;
    size_t committing; /* asynchronous ones on their way into the store */
};

void executions_init(struct executions *executions);
/* Frees what is left, without writing it. */
void executions_deinit(struct controller *controller);

/* A new execution of the function's current version, not queued yet. Takes the payload, also on
 * failure. */
struct live_execution *executions_accept(struct controller *controller,
                                         struct function_version *version, struct blob *payload,
                                         bool async, struct error *err);
/* One that the store has had already: its record and payload become the new execution's, also on failure. Without a
 * version yet. */
struct live_execution *executions_take_up(struct controller *controller, struct execution *record,
                                          char *payload, size_t payload_len, struct error *err);
/* Takes it out of whatever has it: a queue, a worker's session, a list. */
void executions_detach(struct controller *controller, struct live_execution *execution);
/* Back into the store, queued and free from `due_ns` (wall clock) on, and out of memory. */
void executions_put_back(struct controller *controller, struct live_execution *execution,
                         uint64_t due_ns);
/* Forgets one that was accepted and is in no list. */
void executions_discard(struct controller *controller, struct live_execution *execution);
/* It was handed to `session`. */
void executions_started(struct controller *controller, struct live_execution *execution,
                        struct worker_session *session);
/* An interrupted one turns out to run at `session` still: it goes on there as the attempt that it was. */
void executions_adopt(struct controller *controller, struct live_execution *execution,
                      struct worker_session *session);
/* The record is final: tells the client, followers and metrics, and has it written. */
void executions_finish(struct controller *controller, struct live_execution *execution);
/* The same, with a status and an error of the platform's own ("Platform.NoCapacity"). */
void executions_fail(struct controller *controller, struct live_execution *execution,
                     enum execution_status status, const char *type, const char *format, ...)
    __attribute__((format(printf, 5, 6)));
/* Its worker is gone: an asynchronous one is queued again while it has attempts left, all else is
 * lost.
 */
void executions_worker_lost(struct controller *controller, struct live_execution *execution,
                            const char *why);
/* Hands all final ones to the store. */
void executions_flush(struct controller *controller);
struct live_execution *executions_find(const struct controller *controller, const char *id);
