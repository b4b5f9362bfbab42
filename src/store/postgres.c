/* PostgreSQL: opening, transactions, settings. */
#include "store/postgres.h"

#include "base/cleanup.h"
#include "base/loop.h"
#include "base/text.h"

#include <stdlib.h>
#include <string.h>

#define TELL_EVERY_NS (100 * 1000000ULL)

/* ---- opening ---- */

static void engine_close(void *data)
{
    struct postgres_store *store = data;
    postgres_disconnect(store);
    if (store->url)
        explicit_bzero(store->url, strlen(store->url));
    free(store->url);
    free(store);
}

/* A password with an @ or / that is not written as %XX would be taken for a host or a database, and then be shown. */
static bool is_ambiguous(const char *location)
{
    size_t len = strcspn(location, "?");
    const char *at = memchr(location, '@', len);
    const char *slash = memchr(location, '/', len);
    return at && ((slash && slash < at) || memchr(at + 1, '@', len - (size_t)(at + 1 - location)));
}

/* libpq's message would quote the URL, and with it the password. */
static int check_url(const char *url, const char *location, struct error *err)
{
    char *ignored = NULL;
    PQconninfoOption *options = is_ambiguous(location) ? NULL : PQconninfoParse(url, &ignored);
    PQfreemem(ignored);
    if (!options)
        return error_set(
            err, ERROR_INVALID_REQUEST,
            "the database URL cannot be understood; right would be "
            "postgresql://USER:PASSWORD@HOST:PORT/DATABASE (reserved characters as %%XX)");
    PQconninfoFree(options);
    return 0;
}

/* Code whose function was never written, because a crash came between. */
static int sweep(struct postgres_store *store, struct error *err)
{
    auto_result *rows =
        postgres_read(store, POSTGRES_SWEEP_CODE, NULL, "removing unused code", err);
    return rows ? 0 : -1;
}

static int engine_open(const char *location, void **ret_db, struct error *err)
{
    struct postgres_store *store = calloc(1, sizeof(*store));
    if (store)
        store->url = string_printf("postgresql://%s", location);
    if (!store || !store->url) {
        free(store);
        return error_set(err, ERROR_INTERNAL, "out of memory");
    }
    random_id(store->name);
    if (check_url(store->url, location, err) == 0 && postgres_connect(store, err) == 0 &&
        sweep(store, err) == 0) {
        *ret_db = store;
        return 0;
    }
    engine_close(store);
    return -1;
}

static int engine_connect(void *db, struct error *err)
{
    return postgres_connect(db, err);
}

static bool engine_lost(void *db)
{
    const struct postgres_store *store = db;
    return !store->pg || store->broken || PQstatus(store->pg) != CONNECTION_OK;
}

static bool engine_collided(void *db)
{
    const struct postgres_store *store = db;
    return store->collided;
}

/* ---- transactions ---- */

static int engine_begin(void *db, struct error *err)
{
    struct postgres_store *store = db;
    memset(&store->failure, 0, sizeof(store->failure));
    store->frees = false;
    store->collided = false;
    if (postgres_write(store, POSTGRES_BEGIN, NULL, "beginning a transaction", NULL, err) < 0)
        return -1;
    store->in_transaction = true;
    return 0;
}

/* Not for each commit: telling takes a lock, and who was told looks for all that waits. */
static int tell_of_free(struct postgres_store *store, struct error *err)
{
    struct postgres_arguments arguments = {0};
    uint64_t now_ns = clock_monotonic_ns();
    if (!store->frees || now_ns - store->told_ns < TELL_EVERY_NS)
        return 0;
    store->told_ns = now_ns;
    postgres_bind_text(&arguments, STORE_CHANNEL_WAITING);
    postgres_bind_text(&arguments, store->name);
    return postgres_write(store, POSTGRES_NOTIFY, &arguments, "telling of what waits", NULL, err);
}

static int engine_commit(void *db, struct error *err)
{
    struct postgres_store *store = db;
    if (tell_of_free(store, err) < 0 ||
        postgres_write(store, POSTGRES_COMMIT, NULL, "committing", NULL, err) < 0 ||
        postgres_sync(store, err) < 0)
        return -1;
    store->in_transaction = false;
    return 0;
}

/* A sync clears a pipeline in which something failed; then the transaction ends by itself or here. */
static void engine_rollback(void *db)
{
    struct postgres_store *store = db;
    store->in_transaction = false;
    postgres_drop_gathered(store);
    if (!store->pg || store->broken)
        return;
    postgres_sync(store, NULL);
    memset(&store->failure, 0, sizeof(store->failure));
    if (PQtransactionStatus(store->pg) == PQTRANS_IDLE)
        return;
    postgres_write(store, POSTGRES_ROLLBACK, NULL, "rolling back", NULL, NULL);
    postgres_sync(store, NULL);
    memset(&store->failure, 0, sizeof(store->failure));
}

/* ---- settings ---- */

/* Tells all controllers, once the transaction is committed. */
static int tell_of_setting(struct postgres_store *store, const char *name, struct error *err)
{
    struct postgres_arguments arguments = {0};
    postgres_bind_text(&arguments, STORE_CHANNEL_SETTINGS);
    postgres_bind_text(&arguments, name);
    return postgres_write(store, POSTGRES_NOTIFY, &arguments, "telling of a setting", NULL, err);
}

static int put_setting(void *db, const char *name, const char *value, struct error *err)
{
    struct postgres_arguments arguments = {0};
    postgres_bind_text(&arguments, name);
    if (value)
        postgres_bind_text(&arguments, value);
    if (postgres_write(db, value ? POSTGRES_PUT_SETTING : POSTGRES_DELETE_SETTING, &arguments,
                       "writing a setting", NULL, err) < 0)
        return -1;
    return tell_of_setting(db, name, err);
}

static int get_setting(void *db, const char *name, char **ret_value, struct error *err)
{
    struct postgres_arguments arguments = {0};
    postgres_bind_text(&arguments, name);
    auto_result *rows =
        postgres_read(db, POSTGRES_GET_SETTING, &arguments, "reading a setting", err);
    if (!rows)
        return -1;
    *ret_value = NULL;
    return PQntuples(rows) ? postgres_get_copy(rows, 0, 0, ret_value, NULL, err) : 0;
}

static int claim_setting(void *db, const char *name, const char *value, char **ret,
                         struct error *err)
{
    struct postgres_arguments arguments = {0};
    postgres_bind_text(&arguments, name);
    postgres_bind_text(&arguments, value);
    if (postgres_write(db, POSTGRES_CLAIM_SETTING, &arguments, "writing a setting", NULL, err) <
            0 ||
        tell_of_setting(db, name, err) < 0)
        return -1;
    return get_setting(db, name, ret, err);
}

static int list_settings(void *db, const char *prefix, struct store_engine_settings *settings,
                         struct error *err)
{
    struct postgres_arguments arguments = {0};
    postgres_bind_text(&arguments, prefix);
    auto_result *rows =
        postgres_read(db, POSTGRES_LIST_SETTINGS, &arguments, "reading settings", err);
    if (!rows)
        return -1;
    for (int i = 0; i < PQntuples(rows); i++) {
        struct store_setting *setting = store_settings_add(settings, err);
        if (!setting || postgres_get_copy(rows, i, 0, &setting->name, NULL, err) < 0 ||
            postgres_get_copy(rows, i, 1, &setting->value, NULL, err) < 0)
            return -1;
    }
    return 0;
}

const struct store_engine postgres_engine = {
    .scheme = "postgresql",
    .schema_version = &postgres_schema_version,
    .open = engine_open,
    .close = engine_close,
    .connect = engine_connect,
    .lost = engine_lost,
    .collided = engine_collided,
    .begin = engine_begin,
    .commit = engine_commit,
    .rollback = engine_rollback,
    .update_function = postgres_update_function,
    .claim_builds = postgres_claim_builds,
    .add_function = postgres_add_function,
    .delete_function = postgres_delete_function,
    .prune_versions = postgres_prune_versions,
    .load_functions = postgres_load_functions,
    .load_last_versions = postgres_load_last_versions,
    .put_code = postgres_put_code,
    .get_code = postgres_get_code,
    .put_execution = postgres_put_execution,
    .get_execution = postgres_get_execution,
    .list_executions = postgres_list_executions,
    .expire_executions = postgres_expire_executions,
    .join = postgres_join,
    .leave = postgres_leave,
    .renew = postgres_renew,
    .accept_execution = postgres_accept_execution,
    .withdraw_execution = postgres_withdraw_execution,
    .start_execution = postgres_start_execution,
    .finish_execution = postgres_finish_execution,
    .retry_execution = postgres_retry_execution,
    .claim_executions = postgres_claim_executions,
    .unclaim_executions = postgres_unclaim_executions,
    .backlog = postgres_backlog,
    .count_free = postgres_count_free,
    .redrive_dead = postgres_redrive_dead,
    .purge_dead = postgres_purge_dead,
    .get_payload = postgres_get_payload,
    .claim_callbacks = postgres_claim_callbacks,
    .finish_callback = postgres_finish_callback,
    .redrive_callback = postgres_redrive_callback,
    .listen = postgres_listen,
    .unlisten = postgres_unlisten,
    .put_setting = put_setting,
    .claim_setting = claim_setting,
    .get_setting = get_setting,
    .list_settings = list_settings,
};
