/* JSON out: keeps commas and nesting, keeps the first error, and makes all text valid. Every answer and every message is written
 * here, so it writes straight into the buffer. */
#include "base/json_tree.h"

#include "base/text.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DEPTH_MAX 127
#define FIRST_ROOM 512

struct json_writer {
    struct buffer *buffer; /* borrowed */
    size_t depth;
    bool first;     /* nothing is in the innermost array or object yet */
    bool key_waits; /* for its value */
    bool any;       /* something was written */
    bool failed;
    bool is_object[DEPTH_MAX]; /* of each level that is open */
    struct error error;        /* the first one; set when failed */
};

struct json_writer *json_writer_new(struct buffer *buffer)
{
    struct json_writer *writer = malloc(sizeof(*writer));
    if (!writer)
        return NULL;
    writer->buffer = buffer;
    writer->depth = 0;
    writer->first = writer->key_waits = writer->any = writer->failed = false;
    buffer_reserve(buffer, FIRST_ROOM, NULL); /* it grows when it must */
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
    free(writer);
    return result;
}

/* ---- structure ---- */

/* Nearly always there is room. */
static void put(struct json_writer *writer, const char *text, size_t len)
{
    struct buffer *buffer = writer->buffer;
    if (writer->failed)
        return;
    if (buffer->cap - buffer->len > len) {
        memcpy(buffer->data + buffer->len, text, len);
        buffer->len += len;
        buffer->data[buffer->len] = '\0';
        return;
    }
    if (buffer_append(writer->buffer, text, len, &writer->error) < 0)
        writer->failed = true;
}

static bool in_object(const struct json_writer *writer)
{
    return writer->depth > 0 && writer->is_object[writer->depth - 1];
}

static void put_comma(struct json_writer *writer)
{
    if (!writer->first)
        put(writer, ",", 1);
    writer->first = false;
}

/* What has to stand before a value; false when none may be here. */
static bool begin_value(struct json_writer *writer)
{
    bool misplaced = writer->depth == 0 ? writer->any : in_object(writer) && !writer->key_waits;
    if (misplaced)
        fail(writer, "a value at a place where none may be");
    if (writer->failed)
        return false;
    if (writer->depth > 0 && !in_object(writer))
        put_comma(writer);
    writer->key_waits = false;
    writer->any = true;
    return !writer->failed;
}

static void begin(struct json_writer *writer, bool is_object)
{
    if (!begin_value(writer))
        return;
    if (writer->depth == DEPTH_MAX) {
        fail(writer, "nested too deep");
        return;
    }
    writer->is_object[writer->depth++] = is_object;
    writer->first = true;
    put(writer, is_object ? "{" : "[", 1);
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
    writer->first = false;
    put(writer, is_object ? "}" : "]", 1);
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

/* ---- strings ---- */

static void put_escaped(struct json_writer *writer, unsigned char byte)
{
    static const char digits[] = "0123456789ABCDEF";
    static const char letters[] = {['"'] = '"',  ['\\'] = '\\', ['\b'] = 'b', ['\f'] = 'f',
                                   ['\n'] = 'n', ['\r'] = 'r',  ['\t'] = 't'};
    char escape[6] = {'\\', letters[byte]};
    size_t len = 2;
    if (!escape[1]) {
        memcpy(escape + 1, "u00", 3);
        escape[4] = digits[byte >> 4];
        escape[5] = digits[byte & 15];
        len = 6;
    }
    put(writer, escape, len);
}

static bool is_plain(unsigned char byte)
{
    return byte >= 0x20 && byte != '"' && byte != '\\';
}

/* Valid UTF-8 in quotes. */
static void put_string(struct json_writer *writer, const char *text, size_t len)
{
    put(writer, "\"", 1);
    for (size_t at = 0; at < len;) {
        size_t start = at;
        while (at < len && is_plain((unsigned char)text[at]))
            at++;
        put(writer, text + start, at - start);
        if (at < len)
            put_escaped(writer, (unsigned char)text[at++]);
    }
    put(writer, "\"", 1);
}

/* Each byte that belongs to no character becomes one U+FFFD. */
static void put_repaired(struct json_writer *writer, const char *text, size_t len)
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
    put_string(writer, repaired, out);
    free(repaired);
}

static void put_text(struct json_writer *writer, const char *text, size_t len)
{
    if (utf8_valid(text, len))
        put_string(writer, text, len);
    else
        put_repaired(writer, text, len);
}

void json_key(struct json_writer *writer, const char *key)
{
    if (!in_object(writer) || writer->key_waits)
        fail(writer, "a key at a place where none may be");
    if (writer->failed)
        return;
    put_comma(writer);
    put_text(writer, key, strlen(key));
    put(writer, ":", 1);
    writer->key_waits = true;
}

void json_write_string_len(struct json_writer *writer, const char *string, size_t len)
{
    if (!string)
        json_write_null(writer);
    else if (begin_value(writer))
        put_text(writer, string, len);
}

void json_write_string(struct json_writer *writer, const char *string)
{
    json_write_string_len(writer, string, string ? strlen(string) : 0);
}

/* ---- other values ---- */

void json_write_int(struct json_writer *writer, int64_t number)
{
    char text[24];
    char *at = text + sizeof(text);
    uint64_t left = number < 0 ? 0 - (uint64_t)number : (uint64_t)number;
    do
        *--at = (char)('0' + left % 10);
    while (left /= 10);
    if (number < 0)
        *--at = '-';
    json_write_raw(writer, at, (size_t)(text + sizeof(text) - at));
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
    json_write_raw(writer, text, (size_t)len);
}

void json_write_bool(struct json_writer *writer, bool value)
{
    json_write_raw(writer, value ? "true" : "false", value ? 4 : 5);
}

void json_write_null(struct json_writer *writer)
{
    json_write_raw(writer, "null", 4);
}

void json_write_raw(struct json_writer *writer, const char *text, size_t len)
{
    if (begin_value(writer))
        put(writer, text, len);
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
