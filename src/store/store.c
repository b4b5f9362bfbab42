/* The store's calls: each becomes a job for the queue, which an engine (picked by the URL's scheme)
 * runs.
 */
#include "store/store.h"

#include "base/log.h"
#include "store/queue.h"

#include <stdlib.h>
#include <string.h>

#define EXPIRE_BATCH 500

struct store {
    const struct store_engine *engine;
    void *db;                  /* the engine's */
    struct store_queue *queue; /* owned */
};

static const struct store_engine *const engines[] = {&sqlite_engine, &postgres_engine};

static const struct store_engine *engine_for(const char *url, const char **ret_location)
{
    const char *separator = strstr(url, "://");
    for (size_t i = 0; separator && i < sizeof(engines) / sizeof(engines[0]); i++) {
        size_t length = strlen(engines[i]->scheme);
        if (length == (size_t)(separator - url) && memcmp(url, engines[i]->scheme, length) == 0) {
            *ret_location = separator + 3;
            return engines[i];
        }
    }
    return NULL;
}

int store_schema_version(const char *url)
{
    const char *location;
    const struct store_engine *engine = engine_for(url, &location);
    return engine ? *engine->schema_version : -1;
}

struct store *store_open(uv_loop_t *loop, const char *url, struct error *err)
{
    const char *location = NULL;
    const struct store_engine *engine = engine_for(url, &location);
    if (!engine) {
        error_set(err, ERROR_INVALID_REQUEST,
                  "the database URL must begin with sqlite:// (sqlite:///path/to/file) or "
                  "postgresql://, not \"%.*s\"",
                  (int)(strstr(url, "://") ? strcspn(url, ":") : 0), url);
        return NULL;
    }
    struct store *store = calloc(1, sizeof(*store));
    if (!store) {
        error_set(err, ERROR_INTERNAL, "out of memory");
        return NULL;
    }
    store->engine = engine;
    if (engine->open(location, &store->db, err) == 0) {
        store->queue = store_queue_new(loop, engine, store->db, err);
        if (store->queue)
            return store;
        engine->close(store->db);
    }
    free(store);
    return NULL;
}

void store_close(struct store *store)
{
    if (!store)
        return;
    store_queue_free(store->queue);
    store->engine->close(store->db);
    free(store);
}

size_t store_queue_length(const struct store *store)
{
    return store_queue_jobs(store->queue);
}

void function_record_deinit(struct function_record *record)
{
    function_spec_deinit(&record->spec);
    free(record->build_output);
    memset(record, 0, sizeof(*record));
}

/* ---- jobs ---- */

/* One call of the interface: arguments and outcome. Each kind uses the members it needs; all are
 * owned.
 */
struct call {
    struct store_job job; /* first member: a job is a call */
    const char *what;     /* for the log */
    store_done_fn *done;
    store_code_fn *code_done;
    store_execution_fn *execution_done;
    store_executions_fn *executions_done;
    void *data;

    char *name, *value;
    int64_t number;
    uint64_t time_ns;
    struct function_record record;
    struct execution execution;
    bool found;
    char *bytes;
    size_t bytes_len;
    struct execution_query query; /* its strings are `name` and `value` */
    struct store_engine_execution_page page;
};

static struct call *call_of(struct store_job *job)
{
    return (struct call *)job;
}

static void page_clear(struct store_engine_execution_page *page)
{
    for (size_t i = 0; i < page->count; i++)
        execution_deinit(&page->items[i]);
    free(page->items);
    memset(page, 0, sizeof(*page));
}

static void call_free(struct call *call)
{
    free(call->name);
    free(call->value);
    function_record_deinit(&call->record);
    execution_deinit(&call->execution);
    free(call->bytes);
    page_clear(&call->page);
    free(call);
}

/* The end of each call that only writes. */
static void push_write(struct store *store, struct call *call, store_done_fn *done)
{
    call->done = done;
    call->job.patient = call->job.patient || !done;
    store_queue_push(store->queue, &call->job);
}

static void finish_done(struct store_job *job)
{
    struct call *call = call_of(job);
    if (call->done)
        call->done(call->data, job->failed ? &job->error : NULL);
    else if (job->failed)
        log_error("the store could not write", LOG_STR("call", call->what), LOG_ERR(&job->error));
    call_free(call);
}

/* A few hundred bytes that cannot be had end the program: no caller could do better. */
static void *must(void *pointer)
{
    if (!pointer)
        abort();
    return pointer;
}

static char *copy_text(const char *text)
{
    return text ? must(strdup(text)) : NULL;
}

static struct call *call_new(const char *what, store_run_fn *run, void *data)
{
    struct call *call = must(calloc(1, sizeof(*call)));
    execution_init(&call->execution);
    call->what = what;
    call->data = data;
    call->job.run = run;
    call->job.finish = finish_done;
    call->job.bytes = sizeof(*call);
    return call;
}

/* ---- functions ---- */

static int run_put_function(struct store_job *job, const struct store_engine *engine, void *db,
                            struct error *err)
{
    return engine->put_function(db, &call_of(job)->record, err);
}

void store_put_function(struct store *store, const struct function_record *record,
                        store_done_fn *done, void *data)
{
    struct call *call = call_new("put_function", run_put_function, data);
    call->record = *record;
    call->record.build_output = copy_text(record->build_output);
    memset(&call->record.spec, 0, sizeof(call->record.spec));
    if (function_spec_copy(&call->record.spec, &record->spec, NULL) < 0)
        abort();
    push_write(store, call, done);
}

static int run_delete_function(struct store_job *job, const struct store_engine *engine, void *db,
                               struct error *err)
{
    return engine->delete_function(db, call_of(job)->name, err);
}

void store_delete_function(struct store *store, const char *name, store_done_fn *done, void *data)
{
    struct call *call = call_new("delete_function", run_delete_function, data);
    call->name = copy_text(name);
    push_write(store, call, done);
}

static int run_prune_versions(struct store_job *job, const struct store_engine *engine, void *db,
                              struct error *err)
{
    return engine->prune_versions(db, call_of(job)->name, call_of(job)->number, err);
}

void store_prune_versions(struct store *store, const char *name, int64_t version,
                          store_done_fn *done, void *data)
{
    struct call *call = call_new("prune_versions", run_prune_versions, data);
    call->name = copy_text(name);
    call->number = version;
    push_write(store, call, done);
}

int store_load_functions(struct store *store, store_function_each_fn *each, void *data,
                         struct error *err)
{
    return store->engine->load_functions(store->db, each, data, err);
}

int store_load_last_versions(struct store *store, store_last_version_each_fn *each, void *data,
                             struct error *err)
{
    return store->engine->load_last_versions(store->db, each, data, err);
}

/* ---- code ---- */

static int run_put_code(struct store_job *job, const struct store_engine *engine, void *db,
                        struct error *err)
{
    struct call *call = call_of(job);
    return engine->put_code(db, call->name, call->bytes, call->bytes_len, err);
}

void store_put_code(struct store *store, const char *sha256, char *bytes, size_t len,
                    store_done_fn *done, void *data)
{
    struct call *call = call_new("put_code", run_put_code, data);
    call->name = copy_text(sha256);
    call->bytes = bytes;
    call->bytes_len = len;
    call->job.bytes += len;
    push_write(store, call, done);
}

static int run_get_code(struct store_job *job, const struct store_engine *engine, void *db,
                        struct error *err)
{
    struct call *call = call_of(job);
    free(call->bytes);
    call->bytes = NULL;
    return engine->get_code(db, call->name, &call->bytes, &call->bytes_len, err);
}

static void finish_get_code(struct store_job *job)
{
    struct call *call = call_of(job);
    char *bytes = job->failed ? NULL : call->bytes;
    if (bytes)
        call->bytes = NULL;
    call->code_done(call->data, bytes, bytes ? call->bytes_len : 0,
                    job->failed ? &job->error : NULL);
    call_free(call);
}

void store_get_code(struct store *store, const char *sha256, store_code_fn *done, void *data)
{
    struct call *call = call_new("get_code", run_get_code, data);
    call->job.finish = finish_get_code;
    call->code_done = done;
    call->name = copy_text(sha256);
    store_queue_push(store->queue, &call->job);
}

/* ---- executions ---- */

static int run_put_execution(struct store_job *job, const struct store_engine *engine, void *db,
                             struct error *err)
{
    struct call *call = call_of(job);
    return engine->put_execution(db, &call->execution, call->bytes, call->bytes_len, err);
}

void store_put_execution(struct store *store, struct execution *execution, char *payload,
                         size_t payload_len, store_done_fn *done, void *data)
{
    struct call *call = call_new("put_execution", run_put_execution, data);
    call->execution = *execution;
    execution_init(execution);
    call->bytes = payload;
    call->bytes_len = payload_len;
    call->job.bytes += payload_len + call->execution.result_len + call->execution.logs_len;
    call->job.patient = execution_status_final(call->execution.status);
    push_write(store, call, done);
}

static int run_start_execution(struct store_job *job, const struct store_engine *engine, void *db,
                               struct error *err)
{
    struct call *call = call_of(job);
    return engine->start_execution(db, call->name, call->number, call->time_ns, err);
}

void store_start_execution(struct store *store, const char *id, int64_t attempt,
                           uint64_t started_at_ns, store_done_fn *done, void *data)
{
    struct call *call = call_new("start_execution", run_start_execution, data);
    call->name = copy_text(id);
    call->number = attempt;
    call->time_ns = started_at_ns;
    push_write(store, call, done);
}

static int run_get_execution(struct store_job *job, const struct store_engine *engine, void *db,
                             struct error *err)
{
    struct call *call = call_of(job);
    execution_deinit(&call->execution);
    execution_init(&call->execution);
    return engine->get_execution(db, call->name, &call->execution, &call->found, err);
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
    call->name = copy_text(id);
    store_queue_push(store->queue, &call->job);
}

static int run_list_executions(struct store_job *job, const struct store_engine *engine, void *db,
                               struct error *err)
{
    struct call *call = call_of(job);
    page_clear(&call->page);
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
    call->name = copy_text(query->function);
    call->value = copy_text(query->cursor);
    call->query = *query;
    call->query.function = call->name;
    call->query.cursor = call->value;
    store_queue_push(store->queue, &call->job);
}

int store_load_unfinished(struct store *store, store_unfinished_each_fn *each, void *data,
                          struct error *err)
{
    return store->engine->load_unfinished(store->db, each, data, err);
}

static int run_expire_executions(struct store_job *job, const struct store_engine *engine, void *db,
                                 struct error *err)
{
    struct call *call = call_of(job);
    return engine->expire_executions(db, call->time_ns, call->number, EXPIRE_BATCH, &job->again,
                                     err);
}

void store_expire_executions(struct store *store, uint64_t before_ns, int64_t keep_count,
                             store_done_fn *done, void *data)
{
    struct call *call = call_new("expire_executions", run_expire_executions, data);
    call->time_ns = before_ns;
    call->number = keep_count;
    push_write(store, call, done);
}

/* ---- settings ---- */

static int run_put_setting(struct store_job *job, const struct store_engine *engine, void *db,
                           struct error *err)
{
    return engine->put_setting(db, call_of(job)->name, call_of(job)->value, err);
}

void store_put_setting(struct store *store, const char *name, const char *value,
                       store_done_fn *done, void *data)
{
    struct call *call = call_new("put_setting", run_put_setting, data);
    call->name = copy_text(name);
    call->value = copy_text(value);
    push_write(store, call, done);
}

int store_get_setting(struct store *store, const char *name, char **ret_value, struct error *err)
{
    return store->engine->get_setting(store->db, name, ret_value, err);
}
