/* The store's calls on settings: pairs of name and value, for what controllers must agree on. */
#include "store/call.h"

#include <stdlib.h>
#include <string.h>

void store_settings_clear(struct store_engine_settings *settings)
{
    for (size_t i = 0; i < settings->count; i++) {
        free(settings->items[i].name);
        free(settings->items[i].value);
    }
    free(settings->items);
    memset(settings, 0, sizeof(*settings));
}

struct store_setting *store_settings_add(struct store_engine_settings *settings, struct error *err)
{
    if (settings->count == settings->capacity) {
        size_t capacity = settings->capacity ? settings->capacity * 2 : 16;
        struct store_setting *grown =
            realloc(settings->items, capacity * sizeof(struct store_setting));
        if (!grown) {
            error_set(err, ERROR_INTERNAL, "out of memory for %zu settings", capacity);
            return NULL;
        }
        settings->items = grown;
        settings->capacity = capacity;
    }
    struct store_setting *added = &settings->items[settings->count++];
    *added = (struct store_setting){0};
    return added;
}

static int run_put_setting(struct store_job *job, const struct store_engine *engine, void *db,
                           struct error *err)
{
    return engine->put_setting(db, call_of(job)->name, call_of(job)->value, err);
}

void store_put_setting(struct store *store, const char *name, const char *value,
                       store_done_fn *done, void *data)
{
    struct call *call = call_new("put_setting", run_put_setting, data);
    call->name = call_copy_text(name);
    call->value = call_copy_text(value);
    call_push_write(store, call, done);
}

int store_get_setting(struct store *store, const char *name, char **ret_value, struct error *err)
{
    return store->engine->get_setting(store->db, name, ret_value, err);
}

int store_claim_setting(struct store *store, const char *name, const char *value, char **ret_value,
                        struct error *err)
{
    char *claimed = NULL;
    if (store->engine->begin(store->db, err) == 0 &&
        store->engine->claim_setting(store->db, name, value, &claimed, err) == 0 &&
        store->engine->commit(store->db, err) == 0) {
        *ret_value = claimed;
        return 0;
    }
    free(claimed);
    store->engine->rollback(store->db);
    return -1;
}

static int run_add_setting(struct store_job *job, const struct store_engine *engine, void *db,
                           struct error *err)
{
    struct call *call = call_of(job);
    free(call->bytes);
    call->bytes = NULL;
    if (engine->claim_setting(db, call->name, call->value, &call->bytes, err) < 0)
        return -1;
    if (call->bytes && strcmp(call->bytes, call->value) == 0)
        return 0;
    return error_set(err, ERROR_CONFLICT, "the setting %s has a value already", call->name);
}

void store_add_setting(struct store *store, const char *name, const char *value,
                       store_done_fn *done, void *data)
{
    struct call *call = call_new("add_setting", run_add_setting, data);
    call->name = call_copy_text(name);
    call->value = call_copy_text(value);
    call_push_write(store, call, done);
}

static int run_read_settings(struct store_job *job, const struct store_engine *engine, void *db,
                             struct error *err)
{
    struct call *call = call_of(job);
    store_settings_clear(&call->settings);
    return engine->list_settings(db, call->name, &call->settings, err);
}

static void finish_read_settings(struct store_job *job)
{
    struct call *call = call_of(job);
    call->settings_done(call->data, call->settings.items, job->failed ? 0 : call->settings.count,
                        job->failed ? &job->error : NULL);
    call_free(call);
}

void store_read_settings(struct store *store, const char *prefix, store_settings_fn *done,
                         void *data)
{
    struct call *call = call_new("read_settings", run_read_settings, data);
    call->job.finish = finish_read_settings;
    call->settings_done = done;
    call->name = call_copy_text(prefix);
    store_queue_push(store->queue, &call->job);
}

int store_load_settings(struct store *store, const char *prefix, store_settings_fn *done,
                        void *data, struct error *err)
{
    struct store_engine_settings settings = {0};
    int outcome = store->engine->list_settings(store->db, prefix, &settings, err);
    if (outcome == 0)
        done(data, settings.items, settings.count, NULL);
    store_settings_clear(&settings);
    return outcome;
}
