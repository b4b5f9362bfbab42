/* Functions, their versions and their code in SQLite. */
#include "base/cleanup.h"
#include "store/record.h"
#include "store/sqlite.h"

#include <string.h>

#define SPEC_MAX (1024 * 1024)

static int add_last_version(struct sqlite_store *store, const struct function_record *record,
                            struct error *err)
{
    auto_statement *statement = sqlite_statement(store, STATEMENT_ADD_LAST_VERSION, err);
    if (!statement)
        return -1;
    sqlite_bind_string(statement, 1, record->spec.name);
    sqlite3_bind_int64(statement, 2, record->spec.version);
    return sqlite_run(store, statement, "writing a function", err);
}

static int write_record(struct sqlite_store *store, enum sqlite_statement which,
                        const struct function_record *record, struct error *err)
{
    with_cleanup(buffer_deinit) struct buffer spec = BUFFER_INIT(SPEC_MAX);
    if (record_write_spec(&record->spec, &spec, err) < 0)
        return error_wrap(err, "writing function %s", record->spec.name);
    auto_statement *statement = sqlite_statement(store, which, err);
    if (!statement)
        return -1;
    sqlite_bind_string(statement, 1, record->spec.name);
    sqlite3_bind_int64(statement, 2, record->spec.version);
    sqlite_bind_string(statement, 3, function_state_name(record->state));
    sqlite3_bind_text(statement, 4, spec.data, (int)spec.len, SQLITE_STATIC);
    sqlite_bind_string(statement, 5, record->spec.code_sha256);
    sqlite_bind_string(statement, 6, record->spec.artifact_sha256);
    sqlite_bind_string(statement, 7, record->build_output);
    sqlite3_bind_int64(statement, 8, (sqlite3_int64)record->created_at_ns);
    sqlite3_bind_int64(statement, 9, (sqlite3_int64)record->updated_at_ns);
    return sqlite_run(store, statement, "writing a function", err);
}

int sqlite_update_function(void *db, const struct function_record *record, struct error *err)
{
    if (write_record(db, STATEMENT_UPDATE_FUNCTION, record, err) < 0)
        return -1;
    return sqlite3_changes(((struct sqlite_store *)db)->db) > 0 ? 0 : record_gone(record, err);
}

/* Whether the number was given to this very record, whose commit was thought lost. */
static int is_there_already(struct sqlite_store *store, const struct function_record *record,
                            struct error *err)
{
    auto_statement *statement = sqlite_statement(store, STATEMENT_SAME_FUNCTION, err);
    if (!statement)
        return -1;
    sqlite_bind_string(statement, 1, record->spec.name);
    sqlite3_bind_int64(statement, 2, record->spec.version);
    sqlite3_bind_int64(statement, 3, (sqlite3_int64)record->updated_at_ns);
    int row = sqlite_next(store, statement, "reading a function", err);
    return row == 0 ? record_version_taken(record, err) : row < 0 ? -1 : 0;
}

int sqlite_add_function(void *db, const struct function_record *record, struct error *err)
{
    if (add_last_version(db, record, err) < 0)
        return -1;
    if (sqlite3_changes(((struct sqlite_store *)db)->db) == 0)
        return is_there_already(db, record, err);
    return write_record(db, STATEMENT_PUT_FUNCTION, record, err);
}

static int run_prune(struct sqlite_store *store, enum sqlite_statement which, const char *name,
                     int64_t version, struct error *err)
{
    auto_statement *statement = sqlite_statement(store, which, err);
    if (!statement)
        return -1;
    sqlite_bind_string(statement, 1, name);
    sqlite3_bind_int64(statement, 2, version);
    return sqlite_run(store, statement, "removing versions of a function", err);
}

/* Code first: the versions that go say which it may be. */
int sqlite_prune_versions(void *db, const char *name, int64_t version, struct error *err)
{
    if (run_prune(db, STATEMENT_PRUNE_CODE, name, version, err) < 0)
        return -1;
    return run_prune(db, STATEMENT_PRUNE_VERSIONS, name, version, err);
}

int sqlite_delete_function(void *db, const char *name, struct error *err)
{
    if (sqlite_cancel_waiting(db, name, err) < 0)
        return -1;
    return sqlite_prune_versions(db, name, INT64_MAX, err);
}

static int read_record(sqlite3_stmt *row, struct function_record *record, struct error *err)
{
    const char *text = (const char *)sqlite3_column_text(row, 1);
    if (record_read_spec(text ? text : "", (size_t)sqlite3_column_bytes(row, 1), &record->spec,
                         err) < 0)
        return -1;
    record->state = record_parse_state((const char *)sqlite3_column_text(row, 0));
    record->created_at_ns = (uint64_t)sqlite3_column_int64(row, 3);
    record->updated_at_ns = (uint64_t)sqlite3_column_int64(row, 4);
    return sqlite_column_copy(row, 2, &record->build_output, NULL, err);
}

int sqlite_load_functions(void *db, const char *name, store_function_each_fn *each, void *data,
                          struct error *err)
{
    auto_statement *statement =
        sqlite_statement(db, name ? STATEMENT_LOAD_FUNCTION : STATEMENT_LOAD_FUNCTIONS, err);
    if (!statement)
        return -1;
    if (name)
        sqlite_bind_string(statement, 1, name);
    int more;
    while ((more = sqlite_next(db, statement, "reading functions", err)) > 0) {
        struct function_record record = {0};
        function_spec_init(&record.spec);
        int outcome = read_record(statement, &record, err);
        if (outcome == 0)
            each(data, &record);
        function_record_deinit(&record);
        if (outcome < 0)
            return -1;
    }
    return more;
}

int sqlite_load_last_versions(void *db, const char *name, store_last_version_each_fn *each,
                              void *data, struct error *err)
{
    auto_statement *statement = sqlite_statement(
        db, name ? STATEMENT_LOAD_LAST_VERSION : STATEMENT_LOAD_LAST_VERSIONS, err);
    if (!statement)
        return -1;
    if (name)
        sqlite_bind_string(statement, 1, name);
    int more;
    while ((more = sqlite_next(db, statement, "reading versions", err)) > 0)
        each(data, (const char *)sqlite3_column_text(statement, 0),
             sqlite3_column_int64(statement, 1));
    return more;
}

int sqlite_put_code(void *db, const char *sha256, const char *bytes, size_t len, struct error *err)
{
    auto_statement *statement = sqlite_statement(db, STATEMENT_PUT_CODE, err);
    if (!statement)
        return -1;
    sqlite_bind_string(statement, 1, sha256);
    sqlite_bind_bytes(statement, 2, len ? bytes : "", len);
    return sqlite_run(db, statement, "writing code", err);
}

int sqlite_get_code(void *db, const char *sha256, char **ret_bytes, size_t *ret_len,
                    struct error *err)
{
    auto_statement *statement = sqlite_statement(db, STATEMENT_GET_CODE, err);
    if (!statement)
        return -1;
    sqlite_bind_string(statement, 1, sha256);
    int row = sqlite_next(db, statement, "reading code", err);
    if (row < 0)
        return -1;
    if (row == 0)
        return error_set(err, ERROR_NOT_FOUND, "no code with SHA-256 %s", sha256);
    return sqlite_column_copy(statement, 0, ret_bytes, ret_len, err);
}
