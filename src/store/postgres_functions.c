/* Functions, their versions and their code in PostgreSQL.
 *
 * Several controllers may change functions at the same time. Whatever does so takes one lock first, held until the
 * commit, so that code which one of them is about to use is not removed by another that sees no use of it. */
#include "base/cleanup.h"
#include "base/loop.h"
#include "store/postgres.h"
#include "store/record.h"

#include <stdlib.h>
#include <string.h>

#define SPEC_MAX (1024 * 1024)
#define KEPT_FOR_OTHERS_NS (3600LL * 1000000000)

static int lock_functions(struct postgres_store *store, struct error *err)
{
    return postgres_write(store, POSTGRES_LOCK_FUNCTIONS, NULL, "locking the functions", NULL, err);
}

/* Tells all controllers, once the transaction is committed. */
static int notify(struct postgres_store *store, const char *name, struct error *err)
{
    struct postgres_arguments arguments = {0};
    postgres_bind_text(&arguments, STORE_CHANNEL_FUNCTIONS);
    postgres_bind_text(&arguments, name);
    return postgres_write(store, POSTGRES_NOTIFY, &arguments, "telling of a function", NULL, err);
}

/* `spec` holds what is bound. */
static int bind_record(struct postgres_arguments *arguments, const struct function_record *record,
                       struct buffer *spec, struct error *err)
{
    if (record_write_spec(&record->spec, spec, err) < 0)
        return error_wrap(err, "writing function %s", record->spec.name);
    postgres_bind_text(arguments, record->spec.name);
    postgres_bind_int(arguments, record->spec.version);
    postgres_bind_text(arguments, function_state_name(record->state));
    postgres_bind_text_len(arguments, spec->data, spec->len);
    postgres_bind_text(arguments, record->spec.code_sha256);
    postgres_bind_text(arguments, record->spec.artifact_sha256);
    postgres_bind_text(arguments, record->build_output);
    postgres_bind_int(arguments, (int64_t)record->created_at_ns);
    postgres_bind_int(arguments, (int64_t)record->updated_at_ns);
    return 0;
}

static void bind_version(struct postgres_arguments *arguments, const struct function_record *record)
{
    postgres_bind_text(arguments, record->spec.name);
    postgres_bind_int(arguments, record->spec.version);
}

/* Writes the record by that statement, and tells; *ret_rows is how many it has changed. */
static int write_record(struct postgres_store *store, enum postgres_statement which,
                        const struct function_record *record, int64_t *ret_rows, struct error *err)
{
    struct postgres_arguments arguments = {0};
    with_cleanup(buffer_deinit) struct buffer spec = BUFFER_INIT(SPEC_MAX);
    if (bind_record(&arguments, record, &spec, err) < 0)
        return -1;
    auto_result *rows = postgres_read(store, which, &arguments, "writing a function", err);
    if (!rows)
        return -1;
    *ret_rows = strtoll(PQcmdTuples(rows), NULL, 10);
    return notify(store, record->spec.name, err);
}

int postgres_update_function(void *db, const struct function_record *record, struct error *err)
{
    int64_t rows = 0;
    if (lock_functions(db, err) < 0 ||
        write_record(db, POSTGRES_UPDATE_FUNCTION, record, &rows, err) < 0)
        return -1;
    return rows > 0 ? 0 : record_gone(record, err);
}

/* The functions are locked first, as by all others: whoever waits for the rows has them locked too. This is asked every few
 * seconds, and nearly always there is nothing: then it waits for nobody's lock. */
int postgres_claim_builds(void *db, const char *owner, struct store_engine_backlog *builds,
                          struct error *err)
{
    struct postgres_arguments arguments = {0};
    postgres_bind_text(&arguments, owner);
    postgres_bind_int(&arguments, STORE_CLAIM_BUILDS_MAX);
    auto_result *any = postgres_read(db, POSTGRES_ANY_BUILD, NULL, "looking for builds", err);
    if (!any)
        return -1;
    if (PQntuples(any) == 0)
        return 0;
    if (lock_functions(db, err) < 0)
        return -1;
    auto_result *rows =
        postgres_read(db, POSTGRES_CLAIM_BUILDS, &arguments, "looking for builds", err);
    if (!rows)
        return -1;
    for (int row = 0; row < PQntuples(rows); row++)
        if (record_add_function(builds, PQgetvalue(rows, row, 0), err) < 0)
            return -1;
    return 0;
}

/* Whether the number was given to this very record, whose commit was thought lost. */
static int is_there_already(struct postgres_store *store, const struct function_record *record,
                            struct error *err)
{
    struct postgres_arguments arguments = {0};
    bind_version(&arguments, record);
    postgres_bind_int(&arguments, (int64_t)record->updated_at_ns);
    auto_result *rows =
        postgres_read(store, POSTGRES_SAME_FUNCTION, &arguments, "reading a function", err);
    if (!rows)
        return -1;
    return PQntuples(rows) > 0 ? 0 : record_version_taken(record, err);
}

int postgres_add_function(void *db, const struct function_record *record, struct error *err)
{
    struct postgres_arguments version = {0};
    int64_t rows = 0;
    bind_version(&version, record);
    if (lock_functions(db, err) < 0)
        return -1;
    auto_result *counted =
        postgres_read(db, POSTGRES_ADD_LAST_VERSION, &version, "writing a function", err);
    if (!counted)
        return -1;
    if (strtoll(PQcmdTuples(counted), NULL, 10) == 0)
        return is_there_already(db, record, err);
    return write_record(db, POSTGRES_PUT_FUNCTION, record, &rows, err);
}

/* Versions below `version` that were made before `before_ns`. Code first: the versions that go say which it may be. */
static int prune(struct postgres_store *store, const char *name, int64_t version, int64_t before_ns,
                 struct error *err)
{
    static const char what[] = "removing versions of a function";
    struct postgres_arguments arguments = {0};
    postgres_bind_text(&arguments, name);
    postgres_bind_int(&arguments, version);
    postgres_bind_int(&arguments, before_ns);
    if (lock_functions(store, err) < 0 ||
        postgres_write(store, POSTGRES_PRUNE_CODE, &arguments, what, NULL, err) < 0)
        return -1;
    return postgres_write(store, POSTGRES_PRUNE_VERSIONS, &arguments, what, NULL, err);
}

/* Another controller may still have calls of a version that this one has no more use for, for as long as a call can be
 * under way. */
int postgres_prune_versions(void *db, const char *name, int64_t version, struct error *err)
{
    return prune(db, name, version, (int64_t)clock_realtime_ns() - KEPT_FOR_OTHERS_NS, err);
}

int postgres_delete_function(void *db, const char *name, struct error *err)
{
    if (postgres_cancel_waiting(db, name, err) < 0 ||
        prune(db, name, INT64_MAX, INT64_MAX, err) < 0)
        return -1;
    return notify(db, name, err);
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

int postgres_load_functions(void *db, const char *name, store_function_each_fn *each, void *data,
                            struct error *err)
{
    struct postgres_arguments arguments = {0};
    if (name)
        postgres_bind_text(&arguments, name);
    auto_result *rows = postgres_read(db, name ? POSTGRES_LOAD_FUNCTION : POSTGRES_LOAD_FUNCTIONS,
                                      &arguments, "reading functions", err);
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

int postgres_load_last_versions(void *db, const char *name, store_last_version_each_fn *each,
                                void *data, struct error *err)
{
    struct postgres_arguments arguments = {0};
    if (name)
        postgres_bind_text(&arguments, name);
    auto_result *rows =
        postgres_read(db, name ? POSTGRES_LOAD_LAST_VERSION : POSTGRES_LOAD_LAST_VERSIONS,
                      &arguments, "reading versions", err);
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
