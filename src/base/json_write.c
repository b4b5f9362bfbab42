/* JSON out, over yajl_gen: it keeps commas and nesting, this file keeps the first error and makes
 * all text valid. */
#include "base/json_tree.h"

#include "base/text.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <yajl/yajl_gen.h>

struct json_writer {
    struct buffer *buffer; /* borrowed */
    yajl_gen gen;
    size_t depth;
    bool is_object[YAJL_MAX_DEPTH]; /* of each level that is open */
    bool key_waits;                 /* for its value */
    bool any;                       /* something was written */
    bool failed;
    struct error error; /* the first one */
};

static void print(void *data, const char *text, size_t len)
{
    struct json_writer *writer = data;
    if (!writer->failed && buffer_append(writer->buffer, text, len, &writer->error) < 0)
        writer->failed = true;
}

struct json_writer *json_writer_new(struct buffer *buffer)
{
    struct json_writer *writer = calloc(1, sizeof(*writer));
    if (!writer)
        return NULL;
    writer->buffer = buffer;
    writer->gen = yajl_gen_alloc(NULL);
    if (!writer->gen) {
        free(writer);
        return NULL;
    }
    yajl_gen_config(writer->gen, yajl_gen_print_callback, print, writer);
    return writer;
}

static void fail(struct json_writer *writer, const char *reason)
{
    if (!writer->failed)
        error_set(&writer->error, ERROR_INTERNAL, "cannot write JSON: %s", reason);
    writer->failed = true;
}

int json_writer_finish(struct json_writer *writer, struct error *err)
{
    if (!writer->any)
        fail(writer, "nothing was written");
    if (writer->depth > 0)
        fail(writer, "an object or array was not ended");
    int result = writer->failed ? -1 : 0;
    if (writer->failed && err)
        *err = writer->error;
    yajl_gen_free(writer->gen);
    free(writer);
    return result;
}

static void note(struct json_writer *writer, yajl_gen_status status)
{
    writer->any = true;
    writer->key_waits = false;
    if (status == yajl_max_depth_exceeded)
        fail(writer, "nested too deep");
    else if (status != yajl_gen_status_ok)
        fail(writer, "a value at a place where none may be");
}

static void begin(struct json_writer *writer, bool is_object)
{
    if (writer->depth < YAJL_MAX_DEPTH) /* deeper, yajl refuses it */
        writer->is_object[writer->depth] = is_object;
    writer->depth++;
    note(writer, (is_object ? yajl_gen_map_open : yajl_gen_array_open)(writer->gen));
}

static void end(struct json_writer *writer, bool is_object)
{
    if (writer->failed)
        return;
    if (writer->depth == 0 || writer->key_waits ||
        writer->is_object[writer->depth - 1] != is_object) {
        fail(writer, "an end that does not fit");
        return;
    }
    writer->depth--;
    note(writer, (is_object ? yajl_gen_map_close : yajl_gen_array_close)(writer->gen));
}

void json_object_begin(struct json_writer *writer)
{
    begin(writer, true);
}

void json_object_end(struct json_writer *writer)
{
    end(writer, true);
}

void json_array_begin(struct json_writer *writer)
{
    begin(writer, false);
}

void json_array_end(struct json_writer *writer)
{
    end(writer, false);
}

void json_key(struct json_writer *writer, const char *key)
{
    json_write_string(writer, key);
    writer->key_waits = true;
}

/* Each byte that belongs to no character becomes one U+FFFD. */
static void write_repaired(struct json_writer *writer, const char *text, size_t len)
{
    char *repaired = malloc(3 * len); /* len > 0: an empty string is valid */
    size_t out = 0;
    if (!repaired) {
        fail(writer, "out of memory");
        return;
    }
    for (size_t at = 0; at < len;) {
        size_t width = utf8_width(text + at, len - at);
        memcpy(repaired + out, width ? text + at : "\xEF\xBF\xBD", width ? width : 3);
        out += width ? width : 3;
        at += width ? width : 1;
    }
    note(writer, yajl_gen_string(writer->gen, (const unsigned char *)repaired, out));
    free(repaired);
}

void json_write_string_len(struct json_writer *writer, const char *string, size_t len)
{
    if (!string)
        json_write_null(writer);
    else if (utf8_valid(string, len))
        note(writer, yajl_gen_string(writer->gen, (const unsigned char *)string, len));
    else
        write_repaired(writer, string, len);
}

void json_write_string(struct json_writer *writer, const char *string)
{
    json_write_string_len(writer, string, string ? strlen(string) : 0);
}

void json_write_int(struct json_writer *writer, int64_t number)
{
    note(writer, yajl_gen_integer(writer->gen, number));
}

/* The shortest of two forms that reads back as the same number; JSON has no word for what is not
 * finite. */
void json_write_double(struct json_writer *writer, double number)
{
    char text[40];
    if (!isfinite(number)) {
        json_write_null(writer);
        return;
    }
    int len = snprintf(text, sizeof(text), "%.15g", number);
    if (strtod(text, NULL) != number)
        len = snprintf(text, sizeof(text), "%.17g", number);
    note(writer, yajl_gen_number(writer->gen, text, (size_t)len));
}

void json_write_bool(struct json_writer *writer, bool value)
{
    note(writer, yajl_gen_bool(writer->gen, value));
}

void json_write_null(struct json_writer *writer)
{
    note(writer, yajl_gen_null(writer->gen));
}

/* yajl_gen copies a number's text as it is. */
void json_write_raw(struct json_writer *writer, const char *text, size_t len)
{
    note(writer, yajl_gen_number(writer->gen, text, len));
}

static void write_container(struct json_writer *writer, const struct json *value)
{
    bool is_object = value->type == JSON_OBJECT;
    (is_object ? json_object_begin : json_array_begin)(writer);
    /* Too deep is an error of the writer, so this stops long before the stack does. */
    for (size_t i = 0; i < json_count(value) && !writer->failed; i++) {
        if (is_object)
            json_key(writer, json_key_at(value, i));
        json_write_value(writer, json_at(value, i));
    }
    (is_object ? json_object_end : json_array_end)(writer);
}

void json_write_value(struct json_writer *writer, const struct json *value)
{
    switch (value->type) {
    case JSON_NULL:
        json_write_null(writer);
        break;
    case JSON_BOOL:
        json_write_bool(writer, value->boolean);
        break;
    case JSON_NUMBER:
        if (value->count == 1)
            json_write_int(writer, value->integer);
        else
            json_write_raw(writer, value->real->text, strlen(value->real->text));
        break;
    case JSON_STRING:
        json_write_string_len(writer, value->string, value->count);
        break;
    case JSON_ARRAY:
    case JSON_OBJECT:
        write_container(writer, value);
        break;
    }
}

void json_member_string(struct json_writer *writer, const char *key, const char *string)
{
    if (!string)
        return;
    json_key(writer, key);
    json_write_string(writer, string);
}

void json_member_int(struct json_writer *writer, const char *key, int64_t number)
{
    json_key(writer, key);
    json_write_int(writer, number);
}

void json_member_double(struct json_writer *writer, const char *key, double number)
{
    json_key(writer, key);
    json_write_double(writer, number);
}

void json_member_bool(struct json_writer *writer, const char *key, bool value)
{
    json_key(writer, key);
    json_write_bool(writer, value);
}
