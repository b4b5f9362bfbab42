/* The store's calls on records of executions. */
#include "store/call.h"
#include "store/record.h"

#include <stdlib.h>

#define EXPIRE_BATCH 500

static int run_put_execution(struct store_job *job, const struct store_engine *engine, void *db,
                             struct error *err)
{
    return engine->put_execution(db, &call_of(job)->execution, err);
}

void store_put_execution(struct store *store, struct execution *execution, store_done_fn *done,
                         void *data)
{
    struct call *call = call_new("put_execution", run_put_execution, data);
    call->execution = *execution;
    execution_init(execution);
    call->job.bytes += call->execution.result_len + call->execution.logs_len;
    call->job.patient = execution_status_final(call->execution.status);
    call_push_write(store, call, done);
}

static int run_get_execution(struct store_job *job, const struct store_engine *engine, void *db,
                             struct error *err)
{
    struct call *call = call_of(job);
    execution_deinit(&call->execution);
    execution_init(&call->execution);
    if (engine->get_execution(db, call->name, &call->execution, &call->found, err) < 0)
        return -1;
    record_check_result(&call->execution);
    return 0;
}

static void finish_get_execution(struct store_job *job)
{
    struct call *call = call_of(job);
    call->execution_done(call->data, !job->failed && call->found ? &call->execution : NULL,
                         job->failed ? &job->error : NULL);
    call_free(call);
}

void store_get_execution(struct store *store, const char *id, store_execution_fn *done, void *data)
{
    struct call *call = call_new("get_execution", run_get_execution, data);
    call->job.finish = finish_get_execution;
    call->execution_done = done;
    call->name = call_copy_text(id);
    store_queue_push(store->queue, &call->job);
}

static int run_list_executions(struct store_job *job, const struct store_engine *engine, void *db,
                               struct error *err)
{
    struct call *call = call_of(job);
    store_page_clear(&call->page);
    return engine->list_executions(db, &call->query, &call->page, err);
}

static void finish_list_executions(struct store_job *job)
{
    struct call *call = call_of(job);
    struct store_engine_execution_page *page = &call->page;
    if (job->failed)
        call->executions_done(call->data, NULL, 0, NULL, &job->error);
    else
        call->executions_done(call->data, page->items, page->count,
                              page->more ? page->items[page->count - 1].id : NULL, NULL);
    call_free(call);
}

void store_list_executions(struct store *store, const struct execution_query *query,
                           store_executions_fn *done, void *data)
{
    struct call *call = call_new("list_executions", run_list_executions, data);
    call->job.finish = finish_list_executions;
    call->executions_done = done;
    call->name = call_copy_text(query->function);
    call->value = call_copy_text(query->cursor);
    call->query = *query;
    call->query.function = call->name;
    call->query.cursor = call->value;
    store_queue_push(store->queue, &call->job);
}

static int run_expire_executions(struct store_job *job, const struct store_engine *engine, void *db,
                                 struct error *err)
{
    struct call *call = call_of(job);
    return engine->expire_executions(db, &call->retention, EXPIRE_BATCH, &job->again, err);
}

void store_expire_executions(struct store *store, const struct store_retention *retention,
                             store_done_fn *done, void *data)
{
    struct call *call = call_new("expire_executions", run_expire_executions, data);
    call->retention = *retention;
    call_push_write(store, call, done);
}
