/* Records as the engines keep them: the parts that are JSON text in every database, and the bounds of ids. */
#pragma once

#include "store/store.h"

/* Sorts behind every id (in the order of bytes). */
#define RECORD_ID_AFTER_ALL "~"

/* A definition as JSON text. */
int record_write_spec(const struct function_spec *spec, struct buffer *out, struct error *err);
/* `spec` is initialised by the caller and his to deinit, also on failure. */
int record_read_spec(const char *text, size_t len, struct function_spec *spec, struct error *err);
/* FUNCTION_FAILED for a word that is not known. NULL is allowed. */
enum function_state record_parse_state(const char *text);

/* An execution's error (nothing when it has none) and metrics. */
int record_write_details(const struct execution *execution, struct buffer *error,
                         struct buffer *metrics, struct error *err);
/* Either text may be NULL. */
int record_read_details(const char *error, const char *metrics, struct execution *execution,
                        struct error *err);

/* The id behind which everything made before `time_ns` sorts. */
void record_id_bound(uint64_t time_ns, char out[TIME_ID_LEN + 1]);

/* malloc'd, with a NUL behind it; NULL when out of memory. */
char *record_copy(const void *bytes, size_t len, struct error *err);
