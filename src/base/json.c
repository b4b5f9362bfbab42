/* Reading a parsed JSON tree. */
#include "base/json_tree.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* Up to here a double holds every integer exactly. */
#define EXACT_INTEGER_MAX 9007199254740992.0
#define LINEAR_SEARCH_MAX 8

enum json_type json_type(const struct json *value)
{
    return value->type;
}

size_t json_count(const struct json *value)
{
    return value && (value->type == JSON_ARRAY || value->type == JSON_OBJECT) ? value->count : 0;
}

const struct json *json_at(const struct json *array_or_object, size_t index)
{
    if (index >= json_count(array_or_object))
        return NULL;
    if (array_or_object->type == JSON_ARRAY)
        return &array_or_object->items[index];
    return &array_or_object->object->pairs[index].value;
}

const char *json_key_at(const struct json *object, size_t index)
{
    if (!object || object->type != JSON_OBJECT || index >= object->count)
        return NULL;
    return object->object->pairs[index].key;
}

static const struct json *search(const struct json *object, const char *key)
{
    const struct json_pair *pairs = object->object->pairs;
    size_t low = 0, high = object->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        const struct json_pair *pair = &pairs[object->object->by_key[middle]];
        int order = strcmp(key, pair->key);
        if (order == 0)
            return &pair->value;
        if (order < 0)
            high = middle;
        else
            low = middle + 1;
    }
    return NULL;
}

const struct json *json_get(const struct json *object, const char *key)
{
    if (!object || object->type != JSON_OBJECT)
        return NULL;
    if (object->count > LINEAR_SEARCH_MAX)
        return search(object, key);
    const struct json_pair *pairs = object->object->pairs;
    for (size_t i = 0; i < object->count; i++)
        if (strcmp(pairs[i].key, key) == 0)
            return &pairs[i].value;
    return NULL;
}

const char *json_string(const struct json *value, size_t *ret_len)
{
    if (!value || value->type != JSON_STRING)
        return NULL;
    if (ret_len)
        *ret_len = value->count;
    return value->string;
}

/* 128.0 and 1e3 are integers too. */
static bool real_is_integer(const struct json *number)
{
    double value = number->real->value;
    return value == trunc(value) && fabs(value) <= EXACT_INTEGER_MAX;
}

bool json_is_int(const struct json *value)
{
    return value && value->type == JSON_NUMBER && (value->count == 1 || real_is_integer(value));
}

int64_t json_int(const struct json *value, int64_t fallback)
{
    if (!json_is_int(value))
        return fallback;
    return value->count == 1 ? value->integer : (int64_t)value->real->value;
}

double json_double(const struct json *value, double fallback)
{
    if (!value || value->type != JSON_NUMBER)
        return fallback;
    return value->count == 1 ? (double)value->integer : value->real->value;
}

bool json_bool(const struct json *value, bool fallback)
{
    return value && value->type == JSON_BOOL ? value->boolean : fallback;
}

const char *json_get_string(const struct json *object, const char *key)
{
    return json_string(json_get(object, key), NULL);
}

int64_t json_get_int(const struct json *object, const char *key, int64_t fallback)
{
    return json_int(json_get(object, key), fallback);
}

bool json_get_bool(const struct json *object, const char *key, bool fallback)
{
    return json_bool(json_get(object, key), fallback);
}

void json_pointer_join(char *out, size_t size, const char *pointer, const char *key)
{
    int start = snprintf(out, size, "%s/", pointer);
    size_t len = (size_t)start < size ? (size_t)start : size - 1;
    for (; *key && len + 2 < size; key++) {
        bool escaped = *key == '~' || *key == '/';
        out[len++] = escaped ? '~' : *key;
        if (escaped)
            out[len++] = *key == '~' ? '0' : '1';
    }
    out[len] = '\0';
}

void json_show(const struct json *value, char out[JSON_SHOWN_SIZE])
{
    static const char *const words[] = {
        [JSON_NULL] = "null", [JSON_ARRAY] = "an array", [JSON_OBJECT] = "an object"};
    if (value->type == JSON_STRING)
        snprintf(out, JSON_SHOWN_SIZE, "\"%.40s%s\"", value->string,
                 strlen(value->string) > 40 ? "…" : "");
    else if (value->type == JSON_NUMBER && value->count == 1)
        snprintf(out, JSON_SHOWN_SIZE, "%lld", (long long)value->integer);
    else if (value->type == JSON_NUMBER)
        snprintf(out, JSON_SHOWN_SIZE, "%.40s", value->real->text);
    else if (value->type == JSON_BOOL)
        snprintf(out, JSON_SHOWN_SIZE, "%s", value->boolean ? "true" : "false");
    else
        snprintf(out, JSON_SHOWN_SIZE, "%s", words[value->type]);
}
