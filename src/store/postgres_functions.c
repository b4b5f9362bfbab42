/* Functions, their versions and their code in PostgreSQL.
 *
 * Several controllers may change functions at the same time. Whatever does so takes one lock first, held until the
 * commit, so that code which one of them is about to use is not removed by another that sees no use of it. */
#include "base/cleanup.h"
#include "store/postgres.h"
#include "store/record.h"

#include <string.h>

#define SPEC_MAX (1024 * 1024)

static int lock_functions(struct postgres_store *store, struct error *err)
{
    return postgres_write(store, POSTGRES_LOCK_FUNCTIONS, NULL, "locking the functions", NULL, err);
}

static int put_last_version(struct postgres_store *store, const char *name, int64_t version,
                            struct error *err)
{
    struct postgres_arguments arguments = {0};
    postgres_bind_text(&arguments, name);
    postgres_bind_int(&arguments, version);
    return postgres_write(store, POSTGRES_PUT_LAST_VERSION, &arguments, "writing a function", NULL,
                          err);
}

int postgres_put_function(void *db, const struct function_record *record, struct error *err)
{
    struct postgres_arguments arguments = {0};
    with_cleanup(buffer_deinit) struct buffer spec = BUFFER_INIT(SPEC_MAX);
    if (record_write_spec(&record->spec, &spec, err) < 0)
        return error_wrap(err, "writing function %s", record->spec.name);
    postgres_bind_text(&arguments, record->spec.name);
    postgres_bind_int(&arguments, record->spec.version);
    postgres_bind_text(&arguments, function_state_name(record->state));
    postgres_bind_text_len(&arguments, spec.data, spec.len);
    postgres_bind_text(&arguments, record->spec.code_sha256);
    postgres_bind_text(&arguments, record->spec.artifact_sha256);
    postgres_bind_text(&arguments, record->build_output);
    postgres_bind_int(&arguments, (int64_t)record->created_at_ns);
    postgres_bind_int(&arguments, (int64_t)record->updated_at_ns);
    if (lock_functions(db, err) < 0 ||
        postgres_write(db, POSTGRES_PUT_FUNCTION, &arguments, "writing a function", NULL, err) < 0)
        return -1;
    return put_last_version(db, record->spec.name, record->spec.version, err);
}

/* Code first: the versions that go say which it may be. */
int postgres_prune_versions(void *db, const char *name, int64_t version, struct error *err)
{
    static const char what[] = "removing versions of a function";
    struct postgres_arguments arguments = {0};
    postgres_bind_text(&arguments, name);
    postgres_bind_int(&arguments, version);
    if (lock_functions(db, err) < 0 ||
        postgres_write(db, POSTGRES_PRUNE_CODE, &arguments, what, NULL, err) < 0)
        return -1;
    return postgres_write(db, POSTGRES_PRUNE_VERSIONS, &arguments, what, NULL, err);
}

int postgres_delete_function(void *db, const char *name, struct error *err)
{
    if (postgres_cancel_waiting(db, name, err) < 0)
        return -1;
    return postgres_prune_versions(db, name, INT64_MAX, err);
}

static int read_record(const PGresult *rows, int row, struct function_record *record,
                       struct error *err)
{
    if (record_read_spec(PQgetvalue(rows, row, 1), (size_t)PQgetlength(rows, row, 1), &record->spec,
                         err) < 0)
        return -1;
    record->state = record_parse_state(postgres_get_text(rows, row, 0));
    record->created_at_ns = (uint64_t)postgres_get_int(rows, row, 3);
    record->updated_at_ns = (uint64_t)postgres_get_int(rows, row, 4);
    return postgres_get_copy(rows, row, 2, &record->build_output, NULL, err);
}

int postgres_load_functions(void *db, store_function_each_fn *each, void *data, struct error *err)
{
    auto_result *rows = postgres_read(db, POSTGRES_LOAD_FUNCTIONS, NULL, "reading functions", err);
    if (!rows)
        return -1;
    for (int row = 0; row < PQntuples(rows); row++) {
        struct function_record record = {0};
        function_spec_init(&record.spec);
        int outcome = read_record(rows, row, &record, err);
        if (outcome == 0)
            each(data, &record);
        function_record_deinit(&record);
        if (outcome < 0)
            return -1;
    }
    return 0;
}

int postgres_load_last_versions(void *db, store_last_version_each_fn *each, void *data,
                                struct error *err)
{
    auto_result *rows =
        postgres_read(db, POSTGRES_LOAD_LAST_VERSIONS, NULL, "reading versions", err);
    if (!rows)
        return -1;
    for (int row = 0; row < PQntuples(rows); row++)
        each(data, PQgetvalue(rows, row, 0), postgres_get_int(rows, row, 1));
    return 0;
}

int postgres_put_code(void *db, const char *sha256, const char *bytes, size_t len,
                      struct error *err)
{
    struct postgres_arguments arguments = {0};
    postgres_bind_text(&arguments, sha256);
    postgres_bind_bytes(&arguments, len ? bytes : "", len);
    if (lock_functions(db, err) < 0)
        return -1;
    return postgres_write(db, POSTGRES_PUT_CODE, &arguments, "writing code", NULL, err);
}

int postgres_get_code(void *db, const char *sha256, char **ret_bytes, size_t *ret_len,
                      struct error *err)
{
    struct postgres_arguments arguments = {0};
    postgres_bind_text(&arguments, sha256);
    auto_result *rows = postgres_read(db, POSTGRES_GET_CODE, &arguments, "reading code", err);
    if (!rows)
        return -1;
    if (PQntuples(rows) == 0)
        return error_set(err, ERROR_NOT_FOUND, "no code with SHA-256 %s", sha256);
    return postgres_get_copy(rows, 0, 0, ret_bytes, ret_len, err);
}
