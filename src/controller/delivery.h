/* Delivery of asynchronous invocations: what the store holds and what is in memory of it.
 *
 * Every accepted one is in the store. Of each function a window of at most DELIVERY_WINDOW waits in memory, where
 * dispatch finds it; the rest waits in the store, free, and is claimed when the window has become half empty. So a
 * backlog of any length takes little memory, and what an empty function accepts never waits for the store twice.
 *
 * Accepted -> (owned: its window | free: the store -> claimed: its window) -> a worker -> final, or, after the
 * function's own failure, back into the store until the retry is due, or a dead letter.
 *
 * With PostgreSQL several controllers do this at once. Each has a lease under a name of its own (struct delivery's
 * owner), which is renewed; when it could not be for too long, others may have taken what was its own: nothing of it is
 * begun any more, and once that is certain, all of it is forgotten here. A controller with which no worker is in contact
 * leaves the work to others; so it does with a function that none of its workers may run. Loop thread only. */
#pragma once

#include "controller/executions.h"

#define DELIVERY_WINDOW 256

struct delivery {
    char owner[RANDOM_ID_LEN + 1];
    bool shared;             /* the store is */
    uint64_t lease_until_ns; /* monotonic; by this clock it ends earlier than by the store's */
    struct list set_aside;   /* by owner_link: to be begun once the lease is certain */
    size_t window;           /* of all functions together */
    /* Wait in the store only: counted there from time to time, and in between by what this controller does. */
    size_t stored;
    uint64_t counted_ns; /* monotonic: when it was last counted, or asked for */
    bool counting;
    bool reading, read_again;
    char read_after[FUNCTION_NAME_MAX +
                    1]; /* the next look begins after this function; "": at the first */
    bool had_workers;
    bool stopped;
    struct loop_timer *read_timer, *renew_timer;
    uint64_t read_at_ns; /* monotonic: when read_timer ends */
};

/* Blocking, at start-up: takes the lease, and what was under way when an earlier owner was lost. */
int delivery_start(struct controller *controller, bool shared, struct error *err);
/* Gives back all that is left. After it nothing is called back; the store is still open. */
void delivery_stop(struct controller *controller);

/* ERROR_THROTTLED when too much waits. */
int delivery_check_room(const struct controller *controller, struct error *err);
/* Stores an execution that was accepted and answers the request with 202; then it waits in memory or in the store. Takes
 * the execution. `key`: idempotency key or NULL. `callback`: a URL that was checked, or NULL. */
void delivery_accept(struct controller *controller, struct http_request *request,
                     struct live_execution *execution, const char *key, const char *callback);

/* Whether a worker may be given it now; if not, it has been taken care of. */
bool delivery_may_begin(struct controller *controller, struct live_execution *execution);
/* It no longer waits in memory (whatever it does now). */
void delivery_left_window(struct controller *controller, struct live_execution *execution);
/* It has failed: true when it will be tried again (it has left memory), else it is marked as a dead letter where it is
 * one. */
bool delivery_retry(struct controller *controller, struct live_execution *execution);
/* Something may wait in the store that was not known of: a worker came, a dead letter was queued again. */
void delivery_look(struct controller *controller);
/* Called every tick. */
void delivery_tick(struct controller *controller);
