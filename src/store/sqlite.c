/* SQLite: opening, transactions, prepared statements, settings.
 *
 * WAL with synchronous=FULL: a commit is one fsync of the log, and readers (the sqlite3 command)
 * never wait. A lock file beside the database keeps a second controller out: each keeps functions
 * and executions in its own memory. */
#include "store/sqlite.h"

#include "base/cleanup.h"
#include "base/file.h"
#include "base/text.h"
#include "store/record.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* ---- helpers ---- */

int sqlite_fail(sqlite3 *db, struct error *err, const char *what)
{
    int code = db ? sqlite3_errcode(db) & 0xff : SQLITE_NOMEM;
    enum error_code kind = code == SQLITE_FULL || code == SQLITE_IOERR || code == SQLITE_CANTOPEN ||
                                   code == SQLITE_BUSY || code == SQLITE_READONLY
                               ? ERROR_UNAVAILABLE
                               : ERROR_INTERNAL;
    return error_set(err, kind, "%s: SQLite says: %s", what, db ? sqlite3_errmsg(db) : "no memory");
}

sqlite3_stmt *sqlite_statement(struct sqlite_store *store, enum sqlite_statement which,
                               struct error *err)
{
    sqlite3_stmt **statement = &store->statements[which];
    if (!*statement && sqlite3_prepare_v3(store->db, sqlite_statement_texts[which], -1,
                                          SQLITE_PREPARE_PERSISTENT, statement, NULL) != SQLITE_OK)
        sqlite_fail(store->db, err, "preparing a statement");
    return *statement;
}

void sqlite_release(sqlite3_stmt *const *statement)
{
    if (*statement) {
        sqlite3_reset(*statement);
        sqlite3_clear_bindings(*statement);
    }
}

int sqlite_run(struct sqlite_store *store, sqlite3_stmt *statement, const char *what,
               struct error *err)
{
    return sqlite3_step(statement) == SQLITE_DONE ? 0 : sqlite_fail(store->db, err, what);
}

int sqlite_next(struct sqlite_store *store, sqlite3_stmt *statement, const char *what,
                struct error *err)
{
    int outcome = sqlite3_step(statement);
    if (outcome == SQLITE_ROW)
        return 1;
    return outcome == SQLITE_DONE ? 0 : sqlite_fail(store->db, err, what);
}

void sqlite_bind_string(sqlite3_stmt *statement, int index, const char *text)
{
    sqlite3_bind_text(statement, index, text, -1, SQLITE_STATIC);
}

void sqlite_bind_bytes(sqlite3_stmt *statement, int index, const char *bytes, size_t len)
{
    sqlite3_bind_blob64(statement, index, bytes, len, SQLITE_STATIC);
}

int sqlite_column_copy(sqlite3_stmt *statement, int column, char **ret, size_t *ret_len,
                       struct error *err)
{
    if (sqlite3_column_type(statement, column) == SQLITE_NULL) {
        *ret = NULL;
        if (ret_len)
            *ret_len = 0;
        return 0;
    }
    const void *bytes = sqlite3_column_blob(statement, column);
    size_t len = (size_t)sqlite3_column_bytes(statement, column);
    char *copy = record_copy(bytes, len, err);
    if (!copy)
        return -1;
    *ret = copy;
    if (ret_len)
        *ret_len = len;
    return 0;
}

static int run_plain(void *db, enum sqlite_statement which, const char *what, struct error *err)
{
    auto_statement *statement = sqlite_statement(db, which, err);
    return statement ? sqlite_run(db, statement, what, err) : -1;
}

/* ---- opening ---- */

static void engine_close(void *data)
{
    struct sqlite_store *store = data;
    for (size_t i = 0; i < STATEMENT_COUNT; i++)
        sqlite3_finalize(store->statements[i]);
    sqlite3_close(store->db);
    sqlite_large_close(&store->large);
    if (store->lock_fd >= 0)
        close(store->lock_fd);
    free(store);
}

static void engine_rest(void *data)
{
    struct sqlite_store *store = data;
    sqlite3_db_release_memory(store->db);
}

int sqlite_lock(const char *path, int *ret_fd, struct error *err)
{
    autofree char *lock = string_printf("%s.lock", path);
    if (!lock)
        return error_set(err, ERROR_INTERNAL, "out of memory");
    if (lock_file(lock, ret_fd, err) == 0)
        return 0;
    return error_wrap(err, "the database %s is used by another controller or cannot be locked",
                      path);
}

static int open_database(struct sqlite_store *store, const char *path, struct error *err)
{
    static const char pragmas[] = "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;"
                                  "PRAGMA temp_store = MEMORY; PRAGMA cache_size = -2000;"
                                  "PRAGMA journal_size_limit = 67108864; PRAGMA foreign_keys = ON;";
    int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_FULLMUTEX;

    if (sqlite3_open_v2(path, &store->db, flags, NULL) != SQLITE_OK)
        return sqlite_fail(store->db, err, "opening the database");
    sqlite3_busy_timeout(store->db, 5000);
    if (sqlite3_exec(store->db, pragmas, NULL, NULL, NULL) != SQLITE_OK)
        return sqlite_fail(store->db, err, "opening the database");
    if (sqlite_migrate(store->db, sqlite_schema_version, err) < 0)
        return -1;
    if (strcmp(path, ":memory:") != 0 && sqlite_large_open(&store->large, path, store->db, err) < 0)
        return -1;
    /* Code whose function was never written, because a crash came between. */
    return run_plain(store, STATEMENT_SWEEP_CODE, "removing unused code", err);
}

static int engine_open(const char *path, void **ret_db, struct error *err)
{
    bool in_memory = strcmp(path, ":memory:") == 0;
    if (!in_memory && path[0] != '/')
        return error_set(
            err, ERROR_INVALID_REQUEST,
            "the database's path must be absolute, with three slashes: sqlite:///path/to/file");
    struct sqlite_store *store = calloc(1, sizeof(*store));
    if (!store)
        return error_set(err, ERROR_INTERNAL, "out of memory");
    store->lock_fd = store->large.folder = -1;
    mode_t before = umask(077); /* code and payloads are nobody else's business */
    int outcome = !in_memory && sqlite_lock(path, &store->lock_fd, err) < 0
                      ? -1
                      : open_database(store, path, err);
    umask(before);
    if (outcome < 0) {
        error_wrap(err, "database %s", path);
        engine_close(store);
        return -1;
    }
    *ret_db = store;
    return 0;
}

/* ---- transactions ---- */

static int engine_begin(void *db, struct error *err)
{
    return run_plain(db, STATEMENT_BEGIN, "beginning a transaction", err);
}

static int engine_commit(void *db, struct error *err)
{
    struct sqlite_store *store = db;
    if (sqlite_large_sync(&store->large, err) < 0 ||
        run_plain(db, STATEMENT_COMMIT, "committing", err) < 0)
        return -1;
    sqlite_large_committed(&store->large);
    return 0;
}

static void engine_rollback(void *db)
{
    /* Some failures (a full disk) have ended the transaction already: nothing to roll back then. */
    struct sqlite_store *store = db;
    if (!sqlite3_get_autocommit(store->db))
        run_plain(db, STATEMENT_ROLLBACK, "rolling back", NULL);
    sqlite_large_rolled_back(&store->large);
}

/* ---- settings ---- */

static int put_setting(void *db, const char *name, const char *value, struct error *err)
{
    auto_statement *statement =
        sqlite_statement(db, value ? STATEMENT_PUT_SETTING : STATEMENT_DELETE_SETTING, err);
    if (!statement)
        return -1;
    sqlite_bind_string(statement, 1, name);
    if (value)
        sqlite_bind_string(statement, 2, value);
    return sqlite_run(db, statement, "writing a setting", err);
}

static int get_setting(void *db, const char *name, char **ret_value, struct error *err);

static int claim_setting(void *db, const char *name, const char *value, char **ret,
                         struct error *err)
{
    auto_statement *statement = sqlite_statement(db, STATEMENT_CLAIM_SETTING, err);
    if (!statement)
        return -1;
    sqlite_bind_string(statement, 1, name);
    sqlite_bind_string(statement, 2, value);
    if (sqlite_run(db, statement, "writing a setting", err) < 0)
        return -1;
    return get_setting(db, name, ret, err);
}

static int get_setting(void *db, const char *name, char **ret_value, struct error *err)
{
    auto_statement *statement = sqlite_statement(db, STATEMENT_GET_SETTING, err);
    if (!statement)
        return -1;
    sqlite_bind_string(statement, 1, name);
    int row = sqlite_next(db, statement, "reading a setting", err);
    if (row < 0)
        return -1;
    *ret_value = NULL;
    return row ? sqlite_column_copy(statement, 0, ret_value, NULL, err) : 0;
}

static int list_settings(void *db, const char *prefix, struct store_engine_settings *settings,
                         struct error *err)
{
    auto_statement *statement = sqlite_statement(db, STATEMENT_LIST_SETTINGS, err);
    if (!statement)
        return -1;
    sqlite_bind_string(statement, 1, prefix);
    int more;
    while ((more = sqlite_next(db, statement, "reading settings", err)) > 0) {
        struct store_setting *setting = store_settings_add(settings, err);
        if (!setting || sqlite_column_copy(statement, 0, &setting->name, NULL, err) < 0 ||
            sqlite_column_copy(statement, 1, &setting->value, NULL, err) < 0)
            return -1;
    }
    return more;
}

const struct store_engine sqlite_engine = {
    .scheme = "sqlite",
    .schema_version = &sqlite_schema_version,
    .open = engine_open,
    .close = engine_close,
    .rest = engine_rest,
    .backup = sqlite_backup,
    .restore = sqlite_restore,
    .begin = engine_begin,
    .commit = engine_commit,
    .rollback = engine_rollback,
    .update_function = sqlite_update_function,
    .add_function = sqlite_add_function,
    .delete_function = sqlite_delete_function,
    .prune_versions = sqlite_prune_versions,
    .load_functions = sqlite_load_functions,
    .load_last_versions = sqlite_load_last_versions,
    .put_code = sqlite_put_code,
    .get_code = sqlite_get_code,
    .put_execution = sqlite_put_execution,
    .get_execution = sqlite_get_execution,
    .list_executions = sqlite_list_executions,
    .expire_executions = sqlite_expire_executions,
    .join = sqlite_join,
    .leave = sqlite_leave,
    .renew = sqlite_renew,
    .accept_execution = sqlite_accept_execution,
    .withdraw_execution = sqlite_withdraw_execution,
    .start_execution = sqlite_start_execution,
    .finish_execution = sqlite_finish_execution,
    .retry_execution = sqlite_retry_execution,
    .claim_executions = sqlite_claim_executions,
    .backlog = sqlite_backlog,
    .count_free = sqlite_count_free,
    .redrive_dead = sqlite_redrive_dead,
    .purge_dead = sqlite_purge_dead,
    .get_payload = sqlite_get_payload,
    .claim_callbacks = sqlite_claim_callbacks,
    .finish_callback = sqlite_finish_callback,
    .redrive_callback = sqlite_redrive_callback,
    .put_setting = put_setting,
    .claim_setting = claim_setting,
    .get_setting = get_setting,
    .list_settings = list_settings,
};
