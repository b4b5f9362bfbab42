/* The store's calls on the delivery of asynchronous executions: leases, acceptance, attempts, claims, dead letters. */
#include "store/call.h"

#include <stdlib.h>
#include <string.h>

#define CLAIM_AT_START 1000
#define CLAIM_AT_START_BYTES ((size_t)256 * 1024 * 1024)
#define DEAD_BATCH 500

/* ---- leases ---- */

/* Blocking: one call in a transaction of its own, on the thread that calls. */
static int in_transaction(struct store *store, struct call *call, store_run_fn *run,
                          struct error *err)
{
    if (store->engine->begin(store->db, err) < 0)
        return -1;
    if (run(&call->job, store->engine, store->db, err) == 0 &&
        store->engine->commit(store->db, err) == 0)
        return 0;
    store->engine->rollback(store->db);
    return -1;
}

static int run_rejoin(struct store_job *job, const struct store_engine *engine, void *db,
                      struct error *err)
{
    struct call *call = call_of(job);
    return engine->join(db, call->owner, call->number, err);
}

void store_rejoin(struct store *store, const char *owner, int64_t lease_ms, store_done_fn *done,
                  void *data)
{
    struct call *call = call_new("rejoin", run_rejoin, data);
    call->owner = call_copy_text(owner);
    call->number = lease_ms;
    call_push_write(store, call, done);
}

int store_join(struct store *store, const char *owner, int64_t lease_ms, struct error *err)
{
    struct call *call = call_new("join", run_rejoin, NULL);
    call->owner = call_copy_text(owner);
    call->number = lease_ms;
    int outcome = in_transaction(store, call, run_rejoin, err);
    call_free(call);
    return outcome;
}

static int run_leave(struct store_job *job, const struct store_engine *engine, void *db,
                     struct error *err)
{
    struct call *call = call_of(job);
    return engine->leave(db, call->owner, err);
}

void store_leave(struct store *store, const char *owner, store_done_fn *done, void *data)
{
    struct call *call = call_new("leave", run_leave, data);
    call->owner = call_copy_text(owner);
    call_push_write(store, call, done);
}

static int run_renew(struct store_job *job, const struct store_engine *engine, void *db,
                     struct error *err)
{
    struct call *call = call_of(job);
    return engine->renew(db, call->owner, call->number, &call->found, err);
}

static void finish_renew(struct store_job *job)
{
    struct call *call = call_of(job);
    call->renewed_done(call->data, !job->failed && call->found, job->failed ? &job->error : NULL);
    call_free(call);
}

void store_renew(struct store *store, const char *owner, int64_t lease_ms, bool urgent,
                 store_renewed_fn *done, void *data)
{
    struct call *call = call_new("renew", run_renew, data);
    call->job.finish = finish_renew;
    call->job.urgent = urgent;
    call->renewed_done = done;
    call->owner = call_copy_text(owner);
    call->number = lease_ms;
    store_queue_push(store->queue, &call->job);
}

/* ---- acceptance ---- */

static int run_accept(struct store_job *job, const struct store_engine *engine, void *db,
                      struct error *err)
{
    struct call *call = call_of(job);
    memcpy(call->accepted_id, call->execution.id, sizeof(call->accepted_id));
    return engine->accept_execution(db, &call->execution, call->bytes, call->bytes_len,
                                    &call->acceptance, call->accepted_id, err);
}

static void finish_accept(struct store_job *job)
{
    struct call *call = call_of(job);
    call->accepted_done(call->data, job->failed ? NULL : call->accepted_id,
                        job->failed ? &job->error : NULL);
    call_free(call);
}

void store_accept_execution(struct store *store, struct execution *execution, char *payload,
                            size_t payload_len, const struct store_acceptance *acceptance,
                            store_accepted_fn *done, void *data)
{
    struct call *call = call_new("accept_execution", run_accept, data);
    call->job.finish = finish_accept;
    call->accepted_done = done;
    call->execution = *execution;
    execution_init(execution);
    call->bytes = payload;
    call->bytes_len = payload_len;
    call->owner = call_copy_text(acceptance->owner);
    call->value = call_copy_text(acceptance->key);
    call->acceptance = *acceptance;
    call->acceptance.owner = call->owner;
    call->acceptance.key = call->value;
    call->acceptance.callback_url = call->callback_url = call_copy_text(acceptance->callback_url);
    call->acceptance.callback_host = call->callback_host =
        call_copy_text(acceptance->callback_host);
    call->acceptance.callback_secret = call->callback_secret =
        call_copy_text(acceptance->callback_secret);
    call->job.bytes += payload_len;
    store_queue_push(store->queue, &call->job);
}

static int run_withdraw_execution(struct store_job *job, const struct store_engine *engine,
                                  void *db, struct error *err)
{
    struct call *call = call_of(job);
    return engine->withdraw_execution(db, call->name, call->owner, call->value, err);
}

void store_withdraw_execution(struct store *store, const char *id, const char *function,
                              const char *key, store_done_fn *done, void *data)
{
    struct call *call = call_new("withdraw_execution", run_withdraw_execution, data);
    call->name = call_copy_text(id);
    call->owner = call_copy_text(function);
    call->value = call_copy_text(key);
    call_push_write(store, call, done);
}

/* ---- attempts ---- */

static int run_start_execution(struct store_job *job, const struct store_engine *engine, void *db,
                               struct error *err)
{
    struct call *call = call_of(job);
    return engine->start_execution(db, call->owner, call->name, call->number, call->losses,
                                   call->time_ns, err);
}

void store_start_execution(struct store *store, const char *owner, const char *id, int64_t attempt,
                           int64_t losses, uint64_t started_at_ns, store_done_fn *done, void *data)
{
    struct call *call = call_new("start_execution", run_start_execution, data);
    call->owner = call_copy_text(owner);
    call->name = call_copy_text(id);
    call->number = attempt;
    call->losses = losses;
    call->time_ns = started_at_ns;
    call_push_write(store, call, done);
}

static int run_finish_execution(struct store_job *job, const struct store_engine *engine, void *db,
                                struct error *err)
{
    struct call *call = call_of(job);
    return engine->finish_execution(db, call->owner, &call->execution, err);
}

void store_finish_execution(struct store *store, const char *owner, struct execution *execution,
                            store_done_fn *done, void *data)
{
    struct call *call = call_new("finish_execution", run_finish_execution, data);
    call->owner = call_copy_text(owner);
    call->execution = *execution;
    execution_init(execution);
    call->job.bytes += call->execution.result_len + call->execution.logs_len;
    call->job.patient = true;
    call_push_write(store, call, done);
}

static int run_retry_execution(struct store_job *job, const struct store_engine *engine, void *db,
                               struct error *err)
{
    struct call *call = call_of(job);
    return engine->retry_execution(db, call->owner, &call->execution, call->time_ns, err);
}

void store_retry_execution(struct store *store, const char *owner, struct execution *execution,
                           uint64_t due_at_ns, store_done_fn *done, void *data)
{
    struct call *call = call_new("retry_execution", run_retry_execution, data);
    call->owner = call_copy_text(owner);
    call->execution = *execution;
    execution_init(execution);
    call->job.bytes += call->execution.result_len + call->execution.logs_len;
    call->time_ns = due_at_ns;
    call->job.patient = true;
    call_push_write(store, call, done);
}

/* ---- claims ---- */

static int run_claim(struct store_job *job, const struct store_engine *engine, void *db,
                     struct error *err)
{
    struct call *call = call_of(job);
    if (call->claim.count > 0 && engine->unclaim_executions &&
        engine->unclaim_executions(db, call->owner, &call->claim, err) < 0)
        return -1;
    store_claim_clear(&call->claim);
    return engine->claim_executions(db, call->owner, call->name, (int)call->number, call->max_bytes,
                                    &call->claim, err);
}

static void finish_claim(struct store_job *job)
{
    struct call *call = call_of(job);
    call->claimed_done(call->data, call->claim.items, job->failed ? 0 : call->claim.count,
                       call->claim.more, job->failed ? &job->error : NULL);
    call_free(call);
}

static struct call *new_claim(const char *owner, const char *function, int limit, size_t max_bytes,
                              void *data)
{
    struct call *call = call_new("claim_executions", run_claim, data);
    call->job.finish = finish_claim;
    call->owner = call_copy_text(owner);
    call->name = call_copy_text(function);
    call->number = limit;
    call->max_bytes = max_bytes;
    return call;
}

void store_claim_executions(struct store *store, const char *owner, const char *function, int limit,
                            size_t max_bytes, store_claimed_fn *done, void *data)
{
    struct call *call = new_claim(owner, function, limit, max_bytes, data);
    call->claimed_done = done;
    call->job.patient = true; /* one that failed may have been committed */
    store_queue_push(store->queue, &call->job);
}

int store_claim_interrupted(struct store *store, const char *owner, store_claimed_fn *each,
                            void *data, struct error *err)
{
    int outcome;
    bool more;
    do {
        struct call *call = new_claim(owner, NULL, CLAIM_AT_START, CLAIM_AT_START_BYTES, data);
        outcome = in_transaction(store, call, run_claim, err);
        more = outcome == 0 && call->claim.more && call->claim.count > 0;
        if (outcome == 0)
            each(data, call->claim.items, call->claim.count, more, NULL);
        call_free(call);
    } while (more);
    return outcome;
}

static int run_backlog(struct store_job *job, const struct store_engine *engine, void *db,
                       struct error *err)
{
    struct call *call = call_of(job);
    store_backlog_clear(&call->backlog);
    return engine->backlog(db, call->time_ns, call->name ? call->name : "", &call->backlog, err);
}

static void finish_backlog(struct store_job *job)
{
    struct call *call = call_of(job);
    call->backlog_done(call->data, (const char *const *)call->backlog.functions,
                       job->failed ? 0 : call->backlog.count, call->backlog.next_after,
                       call->backlog.next_due_ns, job->failed ? &job->error : NULL);
    call_free(call);
}

void store_read_backlog(struct store *store, uint64_t now_ns, const char *after,
                        store_backlog_fn *done, void *data)
{
    struct call *call = call_new("read_backlog", run_backlog, data);
    call->job.finish = finish_backlog;
    call->backlog_done = done;
    call->name = call_copy_text(after);
    call->time_ns = now_ns;
    store_queue_push(store->queue, &call->job);
}

/* ---- dead letters ---- */

/* What a batch did; the last, short one ends it. Every one before it was whole, and what was rolled back does not count. */
static int count_batch(struct call *call, int outcome, int64_t count)
{
    call->job.again = outcome == 0 && count == DEAD_BATCH;
    call->number = (int64_t)call->job.rounds * DEAD_BATCH + (outcome == 0 ? count : 0);
    return outcome;
}

static int run_redrive(struct store_job *job, const struct store_engine *engine, void *db,
                       struct error *err)
{
    struct call *call = call_of(job);
    int64_t count = 0;
    int outcome =
        engine->redrive_dead(db, call->name, call->value, call->time_ns, DEAD_BATCH, &count, err);
    return count_batch(call, outcome, count);
}

static int run_purge(struct store_job *job, const struct store_engine *engine, void *db,
                     struct error *err)
{
    struct call *call = call_of(job);
    int64_t count = 0;
    int outcome = engine->purge_dead(db, call->name, call->value, DEAD_BATCH, &count, err);
    return count_batch(call, outcome, count);
}

static int run_count_free(struct store_job *job, const struct store_engine *engine, void *db,
                          struct error *err)
{
    struct call *call = call_of(job);
    return engine->count_free(db, (int64_t)call->max_bytes, &call->number, err);
}

void store_count_free(struct store *store, int64_t limit, store_count_fn *done, void *data)
{
    struct call *call = call_new("count_free", run_count_free, data);
    call->job.finish = call_finish_count;
    call->count_done = done;
    call->max_bytes = (size_t)limit;
    store_queue_push(store->queue, &call->job);
}

int store_count_free_now(struct store *store, int64_t limit, int64_t *ret, struct error *err)
{
    return store->engine->count_free(store->db, limit, ret, err);
}

static struct call *new_count(const char *what, store_run_fn *run, const char *id,
                              const char *function, store_count_fn *done, void *data)
{
    struct call *call = call_new(what, run, data);
    call->job.finish = call_finish_count;
    call->count_done = done;
    call->name = call_copy_text(id);
    call->value = call_copy_text(function);
    return call;
}

void store_redrive_dead(struct store *store, const char *id, const char *function, uint64_t now_ns,
                        store_count_fn *done, void *data)
{
    struct call *call = new_count("redrive_dead", run_redrive, id, function, done, data);
    call->time_ns = now_ns;
    store_queue_push(store->queue, &call->job);
}

void store_purge_dead(struct store *store, const char *id, const char *function,
                      store_count_fn *done, void *data)
{
    struct call *call = new_count("purge_dead", run_purge, id, function, done, data);
    store_queue_push(store->queue, &call->job);
}

static int run_get_payload(struct store_job *job, const struct store_engine *engine, void *db,
                           struct error *err)
{
    struct call *call = call_of(job);
    free(call->bytes);
    call->bytes = NULL;
    return engine->get_payload(db, call->name, &call->bytes, &call->bytes_len, err);
}

void store_get_payload(struct store *store, const char *id, store_code_fn *done, void *data)
{
    struct call *call = call_new("get_payload", run_get_payload, data);
    call->job.finish = call_finish_bytes;
    call->code_done = done;
    call->name = call_copy_text(id);
    store_queue_push(store->queue, &call->job);
}
