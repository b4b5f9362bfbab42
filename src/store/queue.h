/* The store's thread: takes jobs in order, runs what has gathered in one transaction, and reports
 * on the loop thread. One fsync serves a whole batch, however many callers wait for it.
 *
 * When a job fails, the batch is rolled back and its jobs run again one by one, each in a
 * transaction of its own: one caller's failure is never another's. When the connection was lost, what is not done yet
 * waits for a new one, which is tried for with growing pauses; jobs that are not patient fail meanwhile. One whose
 * transaction collided with another's is run again at once, STORE_COLLISIONS_MAX times.
 *
 * A patient job that fails because the database cannot write just now (its disk is full, somebody holds a lock) is held,
 * and with it every patient one behind it, so that they keep their order; the first is tried again, by itself, with
 * pauses that grow from STORE_HOLD_MS. The others go on; those that are not patient fail, untried once others of their
 * batch have kept them waiting for STORE_BLOCKED_MS, so that locks hold up nobody for long. What is urgent goes
 * before others as soon as one of them was kept waiting. */
#pragma once

#include "store/engine.h"

struct store_queue;

struct store_job;

/* On the store's thread. May be called again after a rollback. */
typedef int store_run_fn(struct store_job *job, const struct store_engine *engine, void *db,
                         struct error *err);

struct store_job {
    struct store_job *next; /* the queue's */
    size_t bytes;           /* what it holds, counted against the queue's bound */
    uint64_t queued_ns;
    unsigned losses; /* how often the connection broke while it ran */
    unsigned holds;  /* how often it was held as the first */
    bool patient;    /* rather waits for a lost connection, a full disk or a lock than fails */
    bool urgent;     /* a lease's renewal: not patient, and always tried */
    bool failed;
    bool again;      /* set by run: once more, in a later transaction */
    unsigned rounds; /* of `again`, that were committed */
    struct error error;
    store_run_fn *run;
    /* On the loop thread: calls back and frees the job. */
    void (*finish)(struct store_job *job);
};

#define STORE_QUEUE_JOBS_MAX 100000
#define STORE_QUEUE_BYTES_MAX ((size_t)1024 * 1024 * 1024)
#define STORE_BATCH_JOBS_MAX 1024
/* A job with which the connection broke so often is not tried again. */
#define STORE_LOSSES_MAX 5
#define STORE_RECONNECT_FIRST_MS 20
#define STORE_RECONNECT_LAST_MS 2000
#define STORE_HOLD_MS 1000
#define STORE_HOLDS_MAX 5 /* longer than so many times that, no pause grows */
#define STORE_COLLISIONS_MAX 5
#define STORE_BLOCKED_MS 10000
#define STORE_BATCH_BYTES_MAX ((size_t)64 * 1024 * 1024)

/* `engine` and `db` are borrowed. */
struct store_queue *store_queue_new(uv_loop_t *loop, const struct store_engine *engine, void *db,
                                    struct error *err);
/* Runs what is queued, finishes every job, stops the thread. */
void store_queue_free(struct store_queue *queue);
/* Takes the job; a full queue fails it. */
void store_queue_push(struct store_queue *queue, struct store_job *job);
size_t store_queue_jobs(const struct store_queue *queue);
size_t store_queue_job_bytes(const struct store_queue *queue);
uv_loop_t *store_queue_loop(const struct store_queue *queue);
