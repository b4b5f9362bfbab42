/* The store's thread and its queue: see queue.h. */
#include "store/queue.h"

#include "base/log.h"
#include "base/loop.h"
#include "base/memory.h"

#include <stdlib.h>

#define NS_PER_MS 1000000ULL
#define COMPANY_WAIT_NS (2 * NS_PER_MS)
/* After so many, and then none for so long, what they took goes back to the system. */
#define REST_JOBS 256
#define REST_MS 500

struct job_list {
    struct store_job *first, **last;
    size_t jobs, bytes;
};

struct store_queue {
    const struct store_engine *engine;
    void *db;
    uv_thread_t thread;
    uv_async_t wake; /* tells the loop of finished jobs; its close callback frees the queue */
    uv_mutex_t lock;
    uv_cond_t work_came;
    struct job_list waiting, finished; /* under lock */
    struct job_list held;              /* under lock: patient ones that cannot be written yet */
    uint64_t held_until_ns;            /* under lock; monotonic */
    size_t unfinished_jobs, unfinished_bytes; /* loop thread */
    bool stopping;                            /* under lock */
    size_t wanted; /* under lock: the thread is told of work when so many jobs wait */
    size_t
        callers; /* the store's thread: jobs in the last batch, and those that waited at its end */
    uint64_t batch_ns; /* how long it took */
    bool told;         /* the store's thread: that jobs are held */
    size_t since_rest; /* the store's thread: jobs whose memory may be the heap's still */
};

static void list_init(struct job_list *list)
{
    *list = (struct job_list){.last = &list->first};
}

static void list_append(struct job_list *list, struct store_job *job)
{
    job->next = NULL;
    *list->last = job;
    list->last = &job->next;
    list->jobs++;
    list->bytes += job->bytes;
}

static struct store_job *list_pop(struct job_list *list)
{
    struct store_job *job = list->first;
    if (!job)
        return NULL;
    list->first = job->next;
    if (!list->first)
        list->last = &list->first;
    list->jobs--;
    list->bytes -= job->bytes;
    return job;
}

/* Appends all of `from`, which is empty afterwards. */
static void list_move(struct job_list *to, struct job_list *from)
{
    if (from->first) {
        *to->last = from->first;
        to->last = from->last;
        to->jobs += from->jobs;
        to->bytes += from->bytes;
    }
    list_init(from);
}

/* ---- the store's thread ---- */

static int run_job(struct store_queue *queue, struct store_job *job)
{
    job->again = false;
    job->failed = job->run(job, queue->engine, queue->db, &job->error) < 0;
    return job->failed ? -1 : 0;
}

static void fail_job(struct store_job *job, const struct error *err)
{
    job->failed = true;
    job->error = *err;
}

static bool is_lost(const struct store_queue *queue)
{
    return queue->engine->lost && queue->engine->lost(queue->db);
}

static bool has_collided(const struct store_queue *queue)
{
    return queue->engine->collided && queue->engine->collided(queue->db);
}

static bool has_passed(uint64_t since_ns, uint64_t for_ms)
{
    return clock_monotonic_ns() - since_ns >= for_ms * NS_PER_MS;
}

static void try_alone(struct store_queue *queue, struct store_job *job)
{
    struct error err = {0};
    if (queue->engine->begin(queue->db, &err) < 0) {
        fail_job(job, &err);
        return;
    }
    if (run_job(queue, job) < 0) {
        queue->engine->rollback(queue->db);
        return;
    }
    if (queue->engine->commit(queue->db, &err) < 0) {
        queue->engine->rollback(queue->db);
        fail_job(job, &err);
    }
}

/* One job in a transaction of its own. */
static void run_alone(struct store_queue *queue, struct store_job *job)
{
    int tries = 0;
    do
        try_alone(queue, job);
    while (job->failed && ++tries < STORE_COLLISIONS_MAX && has_collided(queue));
}

/* All of them in one transaction; -1 when one did not work (nothing has happened then, as far as is known). */
static int run_together(struct store_queue *queue, struct job_list *batch)
{
    if (queue->engine->begin(queue->db, NULL) < 0)
        return -1;
    for (struct store_job *job = batch->first; job; job = job->next)
        if (run_job(queue, job) < 0)
            goto fail;
    if (queue->engine->commit(queue->db, NULL) == 0)
        return 0;
fail:
    queue->engine->rollback(queue->db);
    return -1;
}

static void split_urgent(struct job_list *from, struct job_list *urgent)
{
    struct job_list others;
    list_init(&others);
    for (struct store_job *job; (job = list_pop(from));)
        list_append(job->urgent ? urgent : &others, job);
    list_move(from, &others);
}

/* Those that must not be late go before the rest of the batch, also those that came meanwhile. */
static void let_urgent_by(struct store_queue *queue, struct job_list *batch)
{
    struct job_list urgent;
    list_init(&urgent);
    split_urgent(batch, &urgent);
    uv_mutex_lock(&queue->lock);
    split_urgent(&queue->waiting, &urgent);
    uv_mutex_unlock(&queue->lock);
    list_move(&urgent, batch);
    list_move(batch, &urgent);
}

/* One by one; stops when the connection is lost. What is done moves to `done`, what is to be held to `held`. */
static void run_each(struct store_queue *queue, struct job_list *batch, struct job_list *done,
                     struct job_list *held)
{
    struct error blocked = {0};
    uint64_t began_ns = clock_monotonic_ns();
    while (batch->first) {
        struct store_job *job = batch->first;
        if (job->patient && held->first) {
            list_append(held, list_pop(batch));
            continue;
        }
        if (blocked.code && !job->patient && !job->urgent &&
            has_passed(began_ns, STORE_BLOCKED_MS)) {
            fail_job(job, &blocked);
            list_append(done, list_pop(batch));
            continue;
        }
        run_alone(queue, job);
        bool lost = job->failed && is_lost(queue);
        bool unwritable = job->failed && !lost && job->error.code == ERROR_UNAVAILABLE;
        if (unwritable)
            blocked = job->error;
        if (unwritable && job->patient)
            list_append(held, list_pop(batch));
        else if (!lost || ++job->losses >= STORE_LOSSES_MAX)
            list_append(done, list_pop(batch));
        if (lost)
            return;
        if (unwritable)
            let_urgent_by(queue, batch);
    }
}

static void tell_of_held(struct store_queue *queue, const struct job_list *held)
{
    if (held->first && !queue->told)
        log_warn("what has happened cannot be written; trying again until it can",
                 LOG_INT("calls", (int64_t)held->jobs), LOG_ERR(&held->first->error));
    queue->told |= held->first != NULL;
}

/* Patient jobs that came while what is held now was tried: they must not overtake it. Under lock. */
static void hold_followers(struct store_queue *queue)
{
    struct job_list all;
    list_init(&all);
    list_move(&all, &queue->waiting);
    for (struct store_job *job; (job = list_pop(&all));)
        list_append(job->patient ? &queue->held : &queue->waiting, job);
}

/* In their order, before those that came meanwhile. A queue that is stopping has tried for the last time. Under lock. */
static void hold(struct store_queue *queue, struct job_list *held)
{
    if (!held->first) {
        queue->told &= queue->held.first != NULL;
        return;
    }
    if (queue->stopping) {
        struct error err = held->first->error;
        for (struct store_job *job; (job = list_pop(held));) {
            fail_job(job, &err);
            list_append(&queue->finished, job);
        }
        return;
    }
    list_move(held, &queue->held);
    list_move(&queue->held, held);
    hold_followers(queue);
    struct store_job *first = queue->held.first;
    first->holds += first->holds < STORE_HOLDS_MAX;
    queue->held_until_ns = clock_monotonic_ns() + first->holds * STORE_HOLD_MS * NS_PER_MS;
}

/* Those whose time has come wait again, before all else. Under lock. */
static void release_held(struct store_queue *queue)
{
    if (!queue->held.first || (!queue->stopping && clock_monotonic_ns() < queue->held_until_ns))
        return;
    list_move(&queue->held, &queue->waiting);
    list_move(&queue->waiting, &queue->held);
}

/* What is done is told to the loop; what is not (the connection was lost) waits again, before all else. */
static void run_batch(struct store_queue *queue, struct job_list *batch)
{
    struct job_list done, held;
    list_init(&done);
    list_init(&held);
    if (batch->jobs > 1 && run_together(queue, batch) == 0)
        list_move(&done, batch);
    else if (batch->jobs == 1 || !is_lost(queue))
        run_each(queue, batch, &done, &held);
    tell_of_held(queue, &held);

    uv_mutex_lock(&queue->lock);
    list_move(batch, &queue->waiting);
    list_move(&queue->waiting, batch);
    for (struct store_job *job; (job = list_pop(&done));) {
        bool again = job->again && !job->failed;
        job->rounds += again;
        list_append(again ? &queue->waiting : &queue->finished, job);
    }
    hold(queue, &held);
    uv_mutex_unlock(&queue->lock);
    uv_async_send(&queue->wake);
}

/* ---- the connection ---- */

/* Those that somebody waits for, and that have waited long enough; all of them when stopping. Under lock. */
static void fail_impatient(struct store_queue *queue, const struct error *err)
{
    struct job_list all = {.last = &all.first};
    list_move(&all, &queue->waiting);
    for (struct store_job *job; (job = list_pop(&all));) {
        if (queue->stopping || (!job->patient && has_passed(job->queued_ns, STORE_PATIENCE_MS))) {
            fail_job(job, err);
            list_append(&queue->finished, job);
        } else {
            list_append(&queue->waiting, job);
        }
    }
}

/* Until `deadline_ns` (monotonic) or until the queue is to stop. Under lock. */
static void pause_until(struct store_queue *queue, uint64_t deadline_ns)
{
    while (!queue->stopping) {
        uint64_t now_ns = clock_monotonic_ns();
        if (now_ns >= deadline_ns)
            return;
        uv_cond_timedwait(&queue->work_came, &queue->lock, deadline_ns - now_ns);
    }
}

/* Half of the pause is chance, so that controllers do not come back all at once. */
static uint64_t jittered_ns(uint64_t ms)
{
    return (ms / 2 + (uint64_t)random() % (ms / 2 + 1)) * NS_PER_MS;
}

/* Returns with a connection, or with nothing left to do. */
static void await_connection(struct store_queue *queue)
{
    struct error err = {0};
    bool told = false;
    uint64_t pause_ms = STORE_RECONNECT_FIRST_MS;
    while (queue->engine->connect && queue->engine->connect(queue->db, &err) < 0) {
        if (!told)
            log_warn("the database cannot be reached; trying again until it can", LOG_ERR(&err));
        told = true;
        uv_mutex_lock(&queue->lock);
        fail_impatient(queue, &err);
        bool none = !queue->waiting.first;
        if (!none)
            pause_until(queue, clock_monotonic_ns() + jittered_ns(pause_ms));
        uv_mutex_unlock(&queue->lock);
        uv_async_send(&queue->wake);
        if (none)
            return;
        pause_ms = pause_ms * 2 < STORE_RECONNECT_LAST_MS ? pause_ms * 2 : STORE_RECONNECT_LAST_MS;
    }
}

/* One that was held goes by itself: should it have to wait for a lock again, no other is undone for it. */
static void take_batch(struct store_queue *queue, struct job_list *batch)
{
    list_init(batch);
    while (
        queue->waiting.first && batch->jobs < STORE_BATCH_JOBS_MAX &&
        (batch->jobs == 0 || batch->bytes + queue->waiting.first->bytes <= STORE_BATCH_BYTES_MAX)) {
        list_append(batch, list_pop(&queue->waiting));
        if (batch->first->holds > 0)
            return;
    }
}

/* Under lock, as all of thread_main() but the work itself. By then the loop has freed the jobs. */
static void await_work(struct store_queue *queue)
{
    while (release_held(queue), !queue->waiting.first && !queue->stopping) {
        if (queue->held.first) {
            uint64_t now_ns = clock_monotonic_ns();
            if (now_ns < queue->held_until_ns)
                uv_cond_timedwait(&queue->work_came, &queue->lock, queue->held_until_ns - now_ns);
        } else if (queue->since_rest < REST_JOBS) {
            uv_cond_wait(&queue->work_came, &queue->lock);
        } else if (uv_cond_timedwait(&queue->work_came, &queue->lock, REST_MS * NS_PER_MS) ==
                   UV_ETIMEDOUT) {
            uv_mutex_unlock(&queue->lock);
            if (queue->engine->rest)
                queue->engine->rest(queue->db);
            memory_give_back();
            queue->since_rest = 0;
            uv_mutex_lock(&queue->lock);
        }
    }
}

/* Those who have just been answered are about to ask again. Half of the callers are waited for, so that two halves take turns: while one
 * half's batch is written, the answers of the other go out and its next calls are read. All of them in one batch would leave the loop
 * with nothing to do meanwhile, and whoever comes first alone would make the others pay for a commit of its own. At most a quarter of
 * what a batch takes is waited. Under lock. */
static void await_company(struct store_queue *queue)
{
    uint64_t wait_ns =
        queue->batch_ns / 4 < COMPANY_WAIT_NS ? queue->batch_ns / 4 : COMPANY_WAIT_NS;
    uint64_t deadline_ns = clock_monotonic_ns() + wait_ns;
    size_t half = (queue->callers + 1) / 2;
    queue->wanted = half < STORE_BATCH_JOBS_MAX ? half : STORE_BATCH_JOBS_MAX;
    while (queue->waiting.jobs < queue->wanted && !queue->stopping) {
        uint64_t now_ns = clock_monotonic_ns();
        if (now_ns >= deadline_ns)
            break;
        uv_cond_timedwait(&queue->work_came, &queue->lock, deadline_ns - now_ns);
    }
    queue->wanted = 1;
}

/* Under lock, which it leaves meanwhile. */
static void serve_batch(struct store_queue *queue)
{
    struct job_list batch;
    await_company(queue);
    take_batch(queue, &batch);
    queue->callers = batch.jobs;
    queue->since_rest += batch.jobs;
    uv_mutex_unlock(&queue->lock);
    uint64_t began_ns = clock_monotonic_ns();
    if (batch.first)
        run_batch(queue, &batch);
    queue->batch_ns = clock_monotonic_ns() - began_ns;
    uv_mutex_lock(&queue->lock);
    queue->callers += queue->waiting.jobs;
}

static void thread_main(void *data)
{
    struct store_queue *queue = data;
    uv_mutex_lock(&queue->lock);
    for (;;) {
        await_work(queue);
        if (!queue->waiting.first)
            break;
        uv_mutex_unlock(&queue->lock);
        await_connection(queue);
        uv_mutex_lock(&queue->lock);
        serve_batch(queue);
    }
    uv_mutex_unlock(&queue->lock);
}

/* ---- the loop thread ---- */

static bool take_finished(struct store_queue *queue, struct job_list *ret)
{
    list_init(ret);
    uv_mutex_lock(&queue->lock);
    list_move(ret, &queue->finished);
    uv_mutex_unlock(&queue->lock);
    return ret->first;
}

/* Those, too, that fail at once while others are told. */
static void finish_jobs(struct store_queue *queue)
{
    struct job_list finished;
    while (take_finished(queue, &finished)) {
        for (struct store_job *job; (job = list_pop(&finished));) {
            queue->unfinished_jobs--;
            queue->unfinished_bytes -= job->bytes;
            job->finish(job);
        }
    }
}

static void on_wake(uv_async_t *wake)
{
    finish_jobs(wake->data);
}

static void closed(uv_handle_t *wake)
{
    struct store_queue *queue = wake->data;
    uv_cond_destroy(&queue->work_came);
    uv_mutex_destroy(&queue->lock);
    free(queue);
}

struct store_queue *store_queue_new(uv_loop_t *loop, const struct store_engine *engine, void *db,
                                    struct error *err)
{
    struct store_queue *queue = calloc(1, sizeof(*queue));
    if (!queue || uv_mutex_init(&queue->lock) < 0)
        goto fail;
    if (uv_cond_init(&queue->work_came) < 0)
        goto fail_cond;
    if (uv_async_init(loop, &queue->wake, on_wake) < 0)
        goto fail_async;
    queue->engine = engine;
    queue->db = db;
    queue->wake.data = queue;
    queue->wanted = 1;
    list_init(&queue->waiting);
    list_init(&queue->held);
    list_init(&queue->finished);
    if (uv_thread_create(&queue->thread, thread_main, queue) == 0)
        return queue;
    uv_close((uv_handle_t *)&queue->wake, closed);
    error_set(err, ERROR_INTERNAL, "the store's thread cannot be started");
    return NULL;
fail_async:
    uv_cond_destroy(&queue->work_came);
fail_cond:
    uv_mutex_destroy(&queue->lock);
fail:
    free(queue);
    error_set(err, ERROR_INTERNAL, "the store's queue cannot be made: out of memory");
    return NULL;
}

void store_queue_free(struct store_queue *queue)
{
    if (!queue)
        return;
    uv_mutex_lock(&queue->lock);
    queue->stopping = true;
    uv_cond_signal(&queue->work_came);
    uv_mutex_unlock(&queue->lock);
    uv_thread_join(&queue->thread);
    finish_jobs(queue);
    uv_close((uv_handle_t *)&queue->wake, closed);
}

void store_queue_push(struct store_queue *queue, struct store_job *job)
{
    struct error err = {0};
    bool full = queue->unfinished_jobs >= STORE_QUEUE_JOBS_MAX ||
                queue->unfinished_bytes + job->bytes > STORE_QUEUE_BYTES_MAX;
    bool closing = queue->stopping; /* only this thread sets it */

    job->queued_ns = clock_monotonic_ns();
    queue->unfinished_jobs++;
    queue->unfinished_bytes += job->bytes;
    uv_mutex_lock(&queue->lock);
    if (full || closing) {
        if (closing)
            error_set(&err, ERROR_UNAVAILABLE, "the store is closed");
        else
            error_set(&err, ERROR_THROTTLED,
                      "the store has too much to write (%zu calls, %zu bytes)",
                      queue->unfinished_jobs, queue->unfinished_bytes);
        fail_job(job, &err);
        list_append(&queue->finished, job);
    } else {
        list_append(job->patient && queue->held.first ? &queue->held : &queue->waiting, job);
        if (queue->waiting.jobs >= queue->wanted)
            uv_cond_signal(&queue->work_came);
    }
    uv_mutex_unlock(&queue->lock);
    if (full || closing)
        uv_async_send(&queue->wake);
}

size_t store_queue_jobs(const struct store_queue *queue)
{
    return queue->unfinished_jobs;
}

size_t store_queue_job_bytes(const struct store_queue *queue)
{
    return queue->unfinished_bytes;
}

uv_loop_t *store_queue_loop(const struct store_queue *queue)
{
    return queue->wake.loop;
}
