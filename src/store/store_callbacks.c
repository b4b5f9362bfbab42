/* Callbacks as the store's calls: see store.h. */
#include "store/call.h"

#include <stdlib.h>

static int run_claim_callbacks(struct store_job *job, const struct store_engine *engine, void *db,
                               struct error *err)
{
    struct call *call = call_of(job);
    store_callbacks_clear(&call->callbacks);
    call->callbacks.items =
        calloc((size_t)call->callback_claim.limit + 1, sizeof(*call->callbacks.items));
    if (!call->callbacks.items)
        return error_set(err, ERROR_INTERNAL, "out of memory");
    return engine->claim_callbacks(db, &call->callback_claim, &call->callbacks, err);
}

static void finish_claim_callbacks(struct store_job *job)
{
    struct call *call = call_of(job);
    call->callbacks_done(call->data, call->callbacks.items, job->failed ? 0 : call->callbacks.count,
                         call->callbacks.next_due_ns, job->failed ? &job->error : NULL);
    call_free(call);
}

void store_claim_callbacks(struct store *store, const struct store_callback_claim *claim,
                           store_callbacks_fn *done, void *data)
{
    struct call *call = call_new("claim_callbacks", run_claim_callbacks, data);
    call->job.finish = finish_claim_callbacks;
    call->callbacks_done = done;
    call->callback_claim = *claim;
    if (claim->limit > STORE_CALLBACKS_MAX)
        call->callback_claim.limit = STORE_CALLBACKS_MAX;
    call->callback_claim.busy = call->value = call_copy_text(claim->busy);
    store_queue_push(store->queue, &call->job);
}

static int run_finish_callback(struct store_job *job, const struct store_engine *engine, void *db,
                               struct error *err)
{
    return engine->finish_callback(db, &call_of(job)->outcome, err);
}

void store_finish_callback(struct store *store, const struct store_callback_outcome *outcome,
                           store_done_fn *done, void *data)
{
    struct call *call = call_new("finish_callback", run_finish_callback, data);
    call->outcome = *outcome;
    call->outcome.id = call->name = call_copy_text(outcome->id);
    call->outcome.state = call->owner = call_copy_text(outcome->state);
    call->outcome.error = call->value = call_copy_text(outcome->error);
    call_push_write(store, call, done);
}

static int run_redrive_callback(struct store_job *job, const struct store_engine *engine, void *db,
                                struct error *err)
{
    struct call *call = call_of(job);
    return engine->redrive_callback(db, call->name, call->time_ns, &call->number, err);
}

void store_redrive_callback(struct store *store, const char *id, uint64_t now_ns,
                            store_count_fn *done, void *data)
{
    struct call *call = call_new("redrive_callback", run_redrive_callback, data);
    call->job.finish = call_finish_count;
    call->count_done = done;
    call->name = call_copy_text(id);
    call->time_ns = now_ns;
    store_queue_push(store->queue, &call->job);
}
