/* The store's calls: each becomes a job for the queue, which an engine (picked by the URL's scheme)
 * runs.
 */
#include "store/store.h"

#include "store/call.h"

#include <stdlib.h>
#include <string.h>

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

static int refuse_url(const char *url, struct error *err)
{
    return error_set(err, ERROR_INVALID_REQUEST,
                     "the database URL must begin with sqlite:// (sqlite:///path/to/file) or "
                     "postgresql://, not \"%.*s\"",
                     (int)(strstr(url, "://") ? strcspn(url, ":") : 0), url);
}

static int refuse_copy(struct error *err)
{
    return error_set(
        err, ERROR_INVALID_REQUEST,
        "only SQLite databases are backed up and restored here; for PostgreSQL there are "
        "pg_dump and pg_restore");
}

int store_backup(const char *url, const char *file, struct error *err)
{
    const char *location = NULL;
    const struct store_engine *engine = engine_for(url, &location);
    if (!engine)
        return refuse_url(url, err);
    return engine->backup ? engine->backup(location, file, err) : refuse_copy(err);
}

int store_restore(const char *url, const char *file, struct error *err)
{
    const char *location = NULL;
    const struct store_engine *engine = engine_for(url, &location);
    if (!engine)
        return refuse_url(url, err);
    return engine->restore ? engine->restore(location, file, err) : refuse_copy(err);
}

struct store *store_open(uv_loop_t *loop, const char *url, struct error *err)
{
    const char *location = NULL;
    const struct store_engine *engine = engine_for(url, &location);
    if (!engine) {
        refuse_url(url, err);
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
    store_watch_free(store->watch);
    store_queue_free(store->queue);
    store->engine->close(store->db);
    free(store);
}

size_t store_queue_length(const struct store *store)
{
    return store_queue_jobs(store->queue);
}

size_t store_queue_bytes(const struct store *store)
{
    return store_queue_job_bytes(store->queue);
}

void function_record_deinit(struct function_record *record)
{
    function_spec_deinit(&record->spec);
    free(record->build_output);
    memset(record, 0, sizeof(*record));
}

/* ---- functions ---- */

/* Before the function that names it. */
static int put_code_of(struct call *call, const struct store_engine *engine, void *db,
                       struct error *err)
{
    return call->bytes ? engine->put_code(db, call->name, call->bytes, call->bytes_len, err) : 0;
}

static int run_add_function(struct store_job *job, const struct store_engine *engine, void *db,
                            struct error *err)
{
    struct call *call = call_of(job);
    return put_code_of(call, engine, db, err) < 0 ? -1
                                                  : engine->add_function(db, &call->record, err);
}

static int run_update_function(struct store_job *job, const struct store_engine *engine, void *db,
                               struct error *err)
{
    struct call *call = call_of(job);
    return put_code_of(call, engine, db, err) < 0 ? -1
                                                  : engine->update_function(db, &call->record, err);
}

static struct call *new_record_call(const char *what, store_run_fn *run,
                                    const struct function_record *record, const char *sha256,
                                    char *code, size_t code_len, void *data)
{
    struct call *call = call_new(what, run, data);
    call->name = call_copy_text(sha256);
    call->bytes = code;
    call->bytes_len = code_len;
    call->job.bytes += code_len;
    call->record = *record;
    call->record.build_output = call_copy_text(record->build_output);
    memset(&call->record.spec, 0, sizeof(call->record.spec));
    if (function_spec_copy(&call->record.spec, &record->spec, NULL) < 0)
        abort();
    return call;
}

void store_update_function(struct store *store, const struct function_record *record,
                           char *artifact, size_t artifact_len, store_done_fn *done, void *data)
{
    struct call *call = new_record_call("update_function", run_update_function, record,
                                        record->spec.artifact_sha256, artifact, artifact_len, data);
    call->job.patient = true;
    call_push_write(store, call, done);
}

static int run_claim_builds(struct store_job *job, const struct store_engine *engine, void *db,
                            struct error *err)
{
    struct call *call = call_of(job);
    store_backlog_clear(&call->backlog);
    return engine->claim_builds ? engine->claim_builds(db, call->owner, &call->backlog, err) : 0;
}

static void finish_claim_builds(struct store_job *job)
{
    struct call *call = call_of(job);
    call->builds_done(call->data, (const char *const *)call->backlog.functions,
                      job->failed ? 0 : call->backlog.count, job->failed ? &job->error : NULL);
    call_free(call);
}

void store_claim_builds(struct store *store, const char *owner, store_builds_fn *done, void *data)
{
    struct call *call = call_new("claim_builds", run_claim_builds, data);
    call->job.finish = finish_claim_builds;
    call->builds_done = done;
    call->owner = call_copy_text(owner);
    store_queue_push(store->queue, &call->job);
}

void store_add_function(struct store *store, const struct function_record *record, char *code,
                        size_t code_len, store_done_fn *done, void *data)
{
    call_push_write(store,
                    new_record_call("add_function", run_add_function, record,
                                    record->spec.code_sha256, code, code_len, data),
                    done);
}

static int run_delete_function(struct store_job *job, const struct store_engine *engine, void *db,
                               struct error *err)
{
    return engine->delete_function(db, call_of(job)->name, err);
}

void store_delete_function(struct store *store, const char *name, store_done_fn *done, void *data)
{
    struct call *call = call_new("delete_function", run_delete_function, data);
    call->name = call_copy_text(name);
    call_push_write(store, call, done);
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
    call->name = call_copy_text(name);
    call->number = version;
    call_push_write(store, call, done);
}

int store_load_functions(struct store *store, store_function_each_fn *each, void *data,
                         struct error *err)
{
    return store->engine->load_functions(store->db, NULL, each, data, err);
}

int store_load_last_versions(struct store *store, store_last_version_each_fn *each, void *data,
                             struct error *err)
{
    return store->engine->load_last_versions(store->db, NULL, each, data, err);
}

static void add_record(void *data, struct function_record *record)
{
    struct store_engine_functions *functions = data;
    struct function_record *items =
        realloc(functions->items, (functions->count + 1) * sizeof(*functions->items));
    if (!items) {
        functions->failed = true;
        return;
    }
    functions->items = items;
    items[functions->count++] = *record;
    memset(record, 0, sizeof(*record));
}

static void note_version(void *data, const char *name, int64_t version)
{
    (void)name;
    *(int64_t *)data = version;
}

static int run_read_functions(struct store_job *job, const struct store_engine *engine, void *db,
                              struct error *err)
{
    struct call *call = call_of(job);
    store_functions_clear(&call->functions);
    call->number = 0;
    if (engine->load_functions(db, call->name, add_record, &call->functions, err) < 0 ||
        (call->name &&
         engine->load_last_versions(db, call->name, note_version, &call->number, err) < 0))
        return -1;
    return call->functions.failed ? error_set(err, ERROR_INTERNAL, "out of memory") : 0;
}

static void finish_read_functions(struct store_job *job)
{
    struct call *call = call_of(job);
    call->functions_done(call->data, call->functions.items, job->failed ? 0 : call->functions.count,
                         call->number, job->failed ? &job->error : NULL);
    call_free(call);
}

void store_read_functions(struct store *store, const char *name, store_functions_fn *done,
                          void *data)
{
    struct call *call = call_new("read_functions", run_read_functions, data);
    call->job.finish = finish_read_functions;
    call->functions_done = done;
    call->name = call_copy_text(name);
    store_queue_push(store->queue, &call->job);
}

/* ---- code ---- */

static int run_get_code(struct store_job *job, const struct store_engine *engine, void *db,
                        struct error *err)
{
    struct call *call = call_of(job);
    free(call->bytes);
    call->bytes = NULL;
    return engine->get_code(db, call->name, &call->bytes, &call->bytes_len, err);
}

void store_get_code(struct store *store, const char *sha256, store_code_fn *done, void *data)
{
    struct call *call = call_new("get_code", run_get_code, data);
    call->job.finish = call_finish_bytes;
    call->code_done = done;
    call->name = call_copy_text(sha256);
    store_queue_push(store->queue, &call->job);
}
