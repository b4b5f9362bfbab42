/* What engines share: see record.h. */
#include "store/record.h"

#include "base/cleanup.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- functions ---- */

int record_write_spec(const struct function_spec *spec, struct buffer *out, struct error *err)
{
    struct json_writer *writer = json_writer_new(out);
    if (!writer)
        return error_set(err, ERROR_INTERNAL, "out of memory");
    json_object_begin(writer);
    function_spec_write_members(writer, spec);
    function_spec_write_secrets(writer, spec);
    json_object_end(writer);
    return json_writer_finish(writer, err);
}

int record_read_spec(const char *text, size_t len, struct function_spec *spec, struct error *err)
{
    autojson *tree = json_parse(text, len, NULL, err);
    if (!tree || function_spec_read(tree, spec, err) < 0)
        return error_wrap(err, "a function's record in the database");
    return 0;
}

enum function_state record_parse_state(const char *text)
{
    static const enum function_state states[] = {FUNCTION_BUILDING, FUNCTION_READY,
                                                 FUNCTION_FAILED};
    for (size_t i = 0; text && i < ARRAY_LENGTH(states); i++)
        if (strcmp(text, function_state_name(states[i])) == 0)
            return states[i];
    return FUNCTION_FAILED;
}

int record_version_taken(const struct function_record *record, struct error *err)
{
    return error_set(err, ERROR_CONFLICT,
                     "function %s was changed by another controller at the same time; try again",
                     record->spec.name);
}

int record_gone(const struct function_record *record, struct error *err)
{
    return error_set(err, ERROR_NOT_FOUND, "version %lld of function %s was deleted",
                     (long long)record->spec.version, record->spec.name);
}

/* ---- executions ---- */

int record_write_details(const struct execution *execution, struct buffer *error,
                         struct buffer *metrics, struct error *err)
{
    struct json_writer *writer = json_writer_new(metrics);
    if (!writer)
        return error_set(err, ERROR_INTERNAL, "out of memory");
    execution_metrics_write(writer, &execution->metrics);
    if (json_writer_finish(writer, err) < 0)
        return -1;
    if (!execution->has_error)
        return 0;
    writer = json_writer_new(error);
    if (!writer)
        return error_set(err, ERROR_INTERNAL, "out of memory");
    execution_error_write(writer, &execution->error);
    return json_writer_finish(writer, err);
}

int record_read_details(const char *error, const char *metrics, struct execution *execution,
                        struct error *err)
{
    if (metrics) {
        autojson *tree = json_parse(metrics, strlen(metrics), NULL, err);
        if (!tree || execution_metrics_read(tree, &execution->metrics, err) < 0)
            return -1;
    }
    if (error) {
        autojson *tree = json_parse(error, strlen(error), NULL, err);
        if (!tree || execution_error_read(tree, &execution->error, err) < 0)
            return -1;
        execution->has_error = true;
    }
    return 0;
}

void record_read_priority(int64_t stored, struct execution *execution)
{
    int64_t shift = strtoll(RECORD_INTERRUPTED, NULL, 10);
    execution->delivery.interrupted = stored < 0;
    execution->delivery.priority = stored < 0 ? stored + shift : stored;
}

void record_check_result(struct execution *execution)
{
    struct json_limits limits = {
        .max_bytes = SIZE_MAX, .max_depth = EXECUTION_RESULT_DEPTH_MAX, .max_values = SIZE_MAX};
    if (!execution->result || execution->result_len <= STORE_LARGE_BYTES ||
        json_check(execution->result, execution->result_len, &limits, NULL) == 0)
        return;
    execution_drop_result(execution);
    execution->result_base64 = false;
    if (execution->has_error)
        return;
    execution->error.type = strdup("Platform.ResultChanged");
    execution->error.message =
        strdup("the worker has made no JSON of the result after it was checked");
    execution->has_error = true;
}

/* RFC 9562: the first 48 bits are Unix milliseconds. */
void record_id_bound(uint64_t time_ns, char out[TIME_ID_LEN + 1])
{
    uint64_t ms = time_ns / 1000000;
    snprintf(out, TIME_ID_LEN + 1, "%08x-%04x-0000-0000-000000000000",
             (unsigned)(ms >> 16 & 0xffffffff), (unsigned)(ms & 0xffff));
}

char *record_copy(const void *bytes, size_t len, struct error *err)
{
    char *copy = malloc(len + 1);
    if (!copy) {
        error_set(err, ERROR_INTERNAL, "out of memory for %zu bytes of a record", len);
        return NULL;
    }
    if (len)
        memcpy(copy, bytes, len);
    copy[len] = '\0';
    return copy;
}

int record_add_function(struct store_engine_backlog *backlog, const char *name, struct error *err)
{
    char **functions =
        realloc(backlog->functions, (backlog->count + 1) * sizeof(*backlog->functions));
    if (!functions)
        return error_set(err, ERROR_INTERNAL, "out of memory");
    backlog->functions = functions;
    functions[backlog->count] = strdup(name);
    if (!functions[backlog->count])
        return error_set(err, ERROR_INTERNAL, "out of memory");
    backlog->count++;
    return 0;
}

int record_go_on(struct store_engine_backlog *backlog, const char *name, struct error *err)
{
    backlog->next_after = strdup(name);
    return backlog->next_after ? 0 : error_set(err, ERROR_INTERNAL, "out of memory");
}
