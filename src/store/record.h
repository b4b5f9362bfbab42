/* Records as the engines keep them: the parts that are JSON text in every database, and the bounds of ids. */
#pragma once

#include "store/engine.h"

/* Sorts behind every id (in the order of bytes). */
#define RECORD_ID_AFTER_ALL "~"

/* Columns of an execution in the order in which both engines bind (from 1) and read (from 0) them. */
#define RECORD_HEAD                                                                                \
    "id, function, version, status, async, cold_start, worker, attempt, created_at, started_at,"   \
    " finished_at, error, metrics, priority, failures, losses, aged_from, dead_at"
#define RECORD_BODY "result_base64, result, logs"
enum record_column {
    RECORD_ID,
    RECORD_FUNCTION,
    RECORD_VERSION,
    RECORD_STATUS,
    RECORD_ASYNC,
    RECORD_COLD_START,
    RECORD_WORKER,
    RECORD_ATTEMPT,
    RECORD_CREATED_AT,
    RECORD_STARTED_AT,
    RECORD_FINISHED_AT,
    RECORD_ERROR,
    RECORD_METRICS,
    RECORD_PRIORITY,
    RECORD_FAILURES,
    RECORD_LOSSES,
    RECORD_AGED_FROM,
    RECORD_DEAD_AT,
    RECORD_HEAD_END,
    /* RECORD_BODY, when it follows */
    RECORD_RESULT_BASE64 = RECORD_HEAD_END,
    RECORD_RESULT,
    RECORD_LOGS,
    RECORD_BODY_END,
};
#define RECORD_DETAIL_MAX (1024 * 1024)
/* Added to the priority of one that was under way when its controller was lost: it goes first, and the attempt before may
 * still run. */
#define RECORD_INTERRUPTED "10"
/* What is stored of an execution that waited when its function was deleted. */
#define RECORD_DELETED_ERROR                                                                       \
    "{\"type\":\"Platform.FunctionDeleted\",\"message\":\"the function was deleted before this "   \
    "could run\"}"

/* Sets priority and the mark `interrupted` from the stored number. */
void record_read_priority(int64_t stored, struct execution *execution);

/* A definition as JSON text. */
int record_write_spec(const struct function_spec *spec, struct buffer *out, struct error *err);
/* `spec` is initialised by the caller and his to deinit, also on failure. */
int record_read_spec(const char *text, size_t len, struct function_spec *spec, struct error *err);
/* FUNCTION_FAILED for a word that is not known. NULL is allowed. */
enum function_state record_parse_state(const char *text);

/* ERROR_CONFLICT: another controller has given the name this number. */
int record_version_taken(const struct function_record *record, struct error *err);
/* ERROR_NOT_FOUND. */
int record_gone(const struct function_record *record, struct error *err);

/* An execution's error (nothing when it has none) and metrics. */
int record_write_details(const struct execution *execution, struct buffer *error,
                         struct buffer *metrics, struct error *err);
/* Either text may be NULL. */
int record_read_details(const char *error, const char *metrics, struct execution *execution,
                        struct error *err);

/* A large result may have been changed by its worker after it was checked, until it was written: one that is no JSON is taken away, and the
 * execution has an error instead that says so. What others keep of an execution is text that can stand in an object. */
void record_check_result(struct execution *execution);

/* The id behind which everything made before `time_ns` sorts. */
void record_id_bound(uint64_t time_ns, char out[TIME_ID_LEN + 1]);

int record_add_function(struct store_engine_backlog *backlog, const char *name, struct error *err);
/* The list goes on after `name`. */
int record_go_on(struct store_engine_backlog *backlog, const char *name, struct error *err);

/* malloc'd, with a NUL behind it; NULL when out of memory. */
char *record_copy(const void *bytes, size_t len, struct error *err);
