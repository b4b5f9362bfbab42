/* JSON in, over yajl, and out. The only place that includes yajl.
 *
 * In: json_parse() makes an immutable tree. It is strict RFC 8259: no comments, no trailing text,
 * valid UTF-8, no duplicate keys, and capped in depth, number of values and length, because the
 * text is a stranger's. It never recurses on the input. json_check() does the same checks without
 * building anything (for text that is passed on as it is).
 *
 * Structs are read by table: one `struct json_field` row a member; unknown keys are refused by
 * name, ranges are checked, errors carry the JSON pointer of the offending value.
 *
 * Out: `struct json_writer` appends to a buffer. Errors stick: write everything, then ask
 * json_writer_finish() once. */
#pragma once

#include "base/buffer.h"

#include <stdbool.h>
#include <stdint.h>

enum json_type { JSON_NULL, JSON_BOOL, JSON_NUMBER, JSON_STRING, JSON_ARRAY, JSON_OBJECT };

struct json; /* a value; borrowed from the tree it is part of */

struct json_limits {
    size_t max_bytes;  /* 0: 8 MiB */
    size_t max_depth;  /* 0: 64 */
    size_t max_values; /* 0: 100,000 */
};

/* The tree's root, owned by the caller: json_free(). `limits` may be NULL. */
struct json *json_parse(const char *text, size_t len, const struct json_limits *limits,
                        struct error *err);
void json_free(struct json *root);
static inline void json_cleanup(struct json **root)
{
    json_free(*root);
}
#define autojson __attribute__((__cleanup__(json_cleanup))) struct json
/* 0 when `text` is one JSON value within `limits`. Duplicate keys are not looked for. */
int json_check(const char *text, size_t len, const struct json_limits *limits, struct error *err);
/* A first look: false says nothing. The text may change meanwhile, without harm; then true says nothing either. */
bool json_check_quick(const char *text, size_t len, const struct json_limits *limits);

/* json_check() of a long text, begun while it comes: each piece is looked at while the processor's cache has it, which costs less than
 * reading it all again at the end. Where that leads nowhere (many small values, a text that is no JSON) it is left. */
struct json_ahead;                          /* opaque */
#define JSON_AHEAD_MIN ((size_t)256 * 1024) /* bytes from where on it is worth it */
/* NULL when out of memory, which all calls accept: then everything is looked at in the end. */
struct json_ahead *json_ahead_new(void);
void json_ahead_free(struct json_ahead *ahead);
/* `len` bytes of the text are there by now. It may have moved, but what was there has not changed. */
void json_ahead_look(struct json_ahead *ahead, const char *text, size_t len);
/* json_check() of the text, which is what json_ahead_look() has seen, or begins so. */
int json_check_ahead(const struct json_ahead *ahead, const char *text, size_t len,
                     const struct json_limits *limits, struct error *err);

enum json_type json_type(const struct json *value);
/* Object member, or NULL when absent (or when `object` is NULL or no object). */
const struct json *json_get(const struct json *object, const char *key);
/* Array length or number of members; 0 for anything else. */
size_t json_count(const struct json *value);
const struct json *json_at(const struct json *array_or_object, size_t index);
/* Key of the member at `index` of an object. */
const char *json_key_at(const struct json *object, size_t index);
/* NULL when it is no string. The string is NUL-terminated and may hold NULs inside: *ret_len (may
 * be NULL). */
const char *json_string(const struct json *value, size_t *ret_len);
/* Each returns `fallback` when `value` is NULL or of another type. json_int also for a number with
 * a fraction. */
int64_t json_int(const struct json *value, int64_t fallback);
double json_double(const struct json *value, double fallback);
bool json_bool(const struct json *value, bool fallback);
bool json_is_int(const struct json *value);
/* Shorthands over json_get(). */
const char *json_get_string(const struct json *object,
                            const char *key); /* NULL when absent or no string */
int64_t json_get_int(const struct json *object, const char *key, int64_t fallback);
bool json_get_bool(const struct json *object, const char *key, bool fallback);

#define json_foreach(index, value, container)                                                      \
    for (size_t index = 0; index < json_count(container); index++)                                 \
        for (const struct json *value = json_at((container), index); value; value = NULL)

/* ---- structs by table ---- */

enum json_field_type {
    JSON_FIELD_STRING, /* char *: a copy, owned by the struct; an old value is freed */
    JSON_FIELD_INT64,  /* int64_t, min..max */
    JSON_FIELD_DOUBLE, /* double, min..max */
    JSON_FIELD_BOOL,   /* bool */
    JSON_FIELD_CUSTOM, /* `read` does it */
};

struct json_field {
    const char *name;
    enum json_field_type type;
    size_t offset; /* of the member in the struct */
    double min;    /* numbers: inclusive range (both 0: none); strings: length in bytes */
    double max;    /* strings: 0 is 64 KiB */
    bool required;
    /* JSON_FIELD_CUSTOM: reads `value` into `object`; `pointer` is the JSON pointer for errors. */
    int (*read)(void *object, const struct json *value, const char *pointer, struct error *err);
};

/* Reads `value` (must be an object) into `object` by `fields`. Members not given stay as they are.
 */
int json_read_struct(const struct json *value, const struct json_field *fields, size_t field_count,
                     void *object, struct error *err);

/* The same for what another program of ours wrote, perhaps a newer one: unknown members are ignored. */
int json_read_known(const struct json *value, const struct json_field *fields, size_t field_count,
                    void *object, struct error *err);

/* `pointer` and below it `key`, escaped as RFC 6901 has it; cut when it does not fit. */
void json_pointer_join(char *out, size_t size, const char *pointer, const char *key);
/* The value as an error message shows it: 4, "abc", true, an object. Cut when it is long. */
#define JSON_SHOWN_SIZE 64
void json_show(const struct json *value, char out[JSON_SHOWN_SIZE]);

/* ---- out ---- */

struct json_writer; /* opaque */

/* Appends to `buffer`, which stays the caller's. NULL when out of memory. */
struct json_writer *json_writer_new(struct buffer *buffer);
/* Frees the writer; 0, or the first error (invalid UTF-8, buffer full, unbalanced). */
int json_writer_finish(struct json_writer *writer, struct error *err);
void json_object_begin(struct json_writer *writer);
void json_object_end(struct json_writer *writer);
void json_array_begin(struct json_writer *writer);
void json_array_end(struct json_writer *writer);
void json_key(struct json_writer *writer, const char *key);
/* Bytes that are not UTF-8 are written as U+FFFD, never an error; NULL is written as null. */
void json_write_string(struct json_writer *writer, const char *string);
void json_write_string_len(struct json_writer *writer, const char *string, size_t len);
void json_write_int(struct json_writer *writer, int64_t number);
void json_write_double(struct json_writer *writer, double number);
void json_write_bool(struct json_writer *writer, bool value);
void json_write_null(struct json_writer *writer);
/* `text` must be one valid JSON value (see json_check()); it is copied as it is. */
void json_write_raw(struct json_writer *writer, const char *text, size_t len);
/* A parsed value again. */
void json_write_value(struct json_writer *writer, const struct json *value);
/* key + value in one call; the string one writes nothing at all when `string` is NULL. */
void json_member_string(struct json_writer *writer, const char *key, const char *string);
void json_member_int(struct json_writer *writer, const char *key, int64_t number);
void json_member_double(struct json_writer *writer, const char *key, double number);
void json_member_bool(struct json_writer *writer, const char *key, bool value);
