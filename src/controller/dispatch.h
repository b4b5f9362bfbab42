/* Which execution goes to which worker, and when.
 *
 * Every function has a queue, first in first out; functions take turns, so that a busy one cannot
 * starve another; one that has as many under way as its max_instances (times its concurrency) or max_concurrency
 * allows waits until one of them ends. Functions with reserved_concurrency have places of their own among all that
 * the workers have: the others together get what is left, but always one at least; none of the others gets so much of it
 * that nothing is left for the next. An execution goes to a worker that
 * can take one, can be told at once (it is connected) and has the labels that its version requires (placement.h):
 * preferably one with a free place in an instance of that version, then one that has its code, then the least
 * loaded. A worker that asks gets, within a bound on patience, a function that it is warm for before one that it is
 * not. A function that no worker in contact may run loses its turn, and takes turns again
 * when something about the workers changes: it holds up nobody.
 *
 * Pure logic over the lists: no I/O, no clock. Loop thread only. */
#pragma once

#include "controller/executions.h"

struct dispatch_limits {
    size_t length; /* of all queues together */
    size_t length_per_function;
    size_t payload_bytes; /* waiting in all queues */
};

struct dispatch {
    struct dispatch_limits limits;
    /* Those with a queue, in turn; without those known to be at their bound. */
    struct list functions;   /* without places of their own */
    struct list reserved;    /* with such */
    bool reserved_had_turn;  /* the last turn was one of `reserved` */
    int64_t places;          /* that all workers have */
    int64_t places_reserved; /* by all functions together */
    size_t sharing;          /* executions at workers on places that are nobody's own */
    struct list unplaced;    /* functions that no worker in contact may run */
    unsigned placed;         /* the placement's generation by which they were put there */
    struct placement placement;
    struct list waiting; /* synchronous executions in order of acceptance, by wait_link */
    size_t length;
    size_t payload_bytes;
};

/* What choosing needs to know of a worker; a part of struct worker_session. */
struct dispatch_worker {
    struct list link;    /* in the list that is chosen from */
    int64_t free_slots;  /* invocations that it can take now, by its own last word */
    int64_t concurrency; /* most that it runs at once; it never gets more */
    size_t busy;         /* invocations that it has, or that are on their way to it */
    bool reachable;      /* it can be told now */
    bool draining;
    int place;              /* in dispatch's placement */
    struct string_map warm; /* version's key -> struct dispatch_warm, owned */
};

/* A version that a worker has the code of, and how many calls its instances could take at once. */
struct dispatch_warm {
    char key[VERSION_KEY_MAX];
    int64_t places;
    unsigned seen; /* see dispatch_warm_begin() */
};

void dispatch_init(struct dispatch *dispatch, const struct dispatch_limits *limits);
/* ERROR_THROTTLED when a queue is full. */
int dispatch_check_room(const struct dispatch *dispatch, const struct function_entry *function,
                        size_t payload_len, struct error *err);
/* Into its function's queue: those that a client waits for stand before asynchronous ones, which stand by priority. */
void dispatch_enqueue(struct dispatch *dispatch, struct live_execution *execution);
/* At the head of its function's queue: it was a worker's already. */
void dispatch_enqueue_first(struct dispatch *dispatch, struct live_execution *execution);
/* Takes it out of its queue. */
void dispatch_remove(struct dispatch *dispatch, struct live_execution *execution);

/* The next pair: the execution is taken out of its queue. NULL when nothing waits or no worker can
 * take any. */
struct live_execution *dispatch_next(struct dispatch *dispatch, struct list *workers,
                                     struct dispatch_worker **ret_worker);
/* The next one for this worker, which can take one. */
struct live_execution *dispatch_next_for(struct dispatch *dispatch, struct dispatch_worker *worker);

/* An execution was given to a worker; it is no longer at one. */
void dispatch_begun(struct dispatch *dispatch, struct live_execution *execution);
void dispatch_ended(struct dispatch *dispatch, struct live_execution *execution);
/* A function that was at its bound is so no more. */
void dispatch_take_turns(struct dispatch *dispatch, struct function_entry *function);
/* Whether its function has as many under way as this one's version allows, so that it waits. */
bool dispatch_at_bound(const struct live_execution *execution);
/* Whether all places that are nobody's own are taken. */
bool dispatch_shared_full(const struct dispatch *dispatch);

/* Keeping `warm`: what the worker says (begin, set for each instance, end), and what is known to
 * have changed since.
 */
void dispatch_warm_begin(struct dispatch_worker *worker);
void dispatch_warm_set(struct dispatch_worker *worker, const char *key, int64_t free_places);
void dispatch_warm_end(struct dispatch_worker *worker);
void dispatch_warm_adjust(struct dispatch_worker *worker, const char *key, int by);
void dispatch_worker_deinit(struct dispatch_worker *worker);
