/* Structs from JSON objects by table. Every error names the member's pointer, the value, and what
 * would be right. */
#include "base/json.h"

#include "base/text.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define STRING_MAX_DEFAULT 65536

static int wrong(const struct json_field *field, const struct json *value, const char *pointer,
                 const char *expected, struct error *err)
{
    char shown[JSON_SHOWN_SIZE];
    json_show(value, shown);
    return error_set_field(err, ERROR_INVALID_REQUEST, pointer, "%s must be %s, not %s",
                           field->name, expected, shown);
}

static bool has_range(const struct json_field *field)
{
    return field->min != 0 || field->max != 0;
}

static int read_string(const struct json_field *field, const struct json *value,
                       const char *pointer, char **to, struct error *err)
{
    size_t len, max = field->max > 0 ? (size_t)field->max : STRING_MAX_DEFAULT;
    const char *text = json_string(value, &len);
    if (!text)
        return wrong(field, value, pointer, "a string", err);
    if (memchr(text, '\0', len))
        return error_set_field(err, ERROR_INVALID_REQUEST, pointer,
                               "%s must not contain the NUL character", field->name);
    if (len < (size_t)field->min || len > max)
        return error_set_field(err, ERROR_INVALID_REQUEST, pointer,
                               "%s must be %zu to %zu bytes long, not %zu", field->name,
                               (size_t)field->min, max, len);
    char *copy = strdup(text);
    if (!copy)
        return error_set(err, ERROR_INTERNAL, "out of memory");
    free(*to);
    *to = copy;
    return 0;
}

static int read_number(const struct json_field *field, const struct json *value,
                       const char *pointer, void *to, struct error *err)
{
    char expected[96] = "a number";
    const char *whole = " that is whole";
    bool integer = field->type == JSON_FIELD_INT64;
    if (has_range(field)) {
        snprintf(expected, sizeof(expected), "%.15g to %.15g", field->min, field->max);
        whole = ", a whole number";
    }
    if (json_type(value) != JSON_NUMBER)
        return wrong(field, value, pointer, expected, err);

    double number = json_double(value, 0);
    if (has_range(field) && (number < field->min || number > field->max))
        return wrong(field, value, pointer, expected, err);
    if (integer && !json_is_int(value)) {
        size_t len = strlen(expected);
        snprintf(expected + len, sizeof(expected) - len, "%s", whole);
        return wrong(field, value, pointer, expected, err);
    }
    if (integer)
        *(int64_t *)to = json_int(value, 0);
    else
        *(double *)to = number;
    return 0;
}

static int read_field(const struct json_field *field, const struct json *value, void *object,
                      struct error *err)
{
    char pointer[128];
    char *to = (char *)object + field->offset;
    json_pointer_join(pointer, sizeof(pointer), "", field->name);
    switch (field->type) {
    case JSON_FIELD_STRING:
        return read_string(field, value, pointer, (char **)to, err);
    case JSON_FIELD_INT64:
    case JSON_FIELD_DOUBLE:
        return read_number(field, value, pointer, to, err);
    case JSON_FIELD_BOOL:
        if (json_type(value) != JSON_BOOL)
            return wrong(field, value, pointer, "true or false", err);
        *(bool *)to = json_bool(value, false);
        return 0;
    case JSON_FIELD_CUSTOM:
        return field->read(object, value, pointer, err);
    }
    return 0;
}

static int refuse_unknown(const char *key, const struct json_field *fields, size_t field_count,
                          struct error *err)
{
    struct nearest nearest = {.wanted = key};
    char pointer[128], known[512] = "";
    json_pointer_join(pointer, sizeof(pointer), "", key);
    for (size_t i = 0; i < field_count; i++) {
        size_t len = strlen(known);
        nearest_offer(&nearest, fields[i].name);
        snprintf(known + len, sizeof(known) - len, "%s%s", i ? ", " : "", fields[i].name);
    }
    if (nearest.best)
        return error_set_field(err, ERROR_INVALID_REQUEST, pointer,
                               "unknown field \"%.64s\"; did you mean \"%s\"?", key, nearest.best);
    return error_set_field(err, ERROR_INVALID_REQUEST, pointer,
                           "unknown field \"%.64s\"; known are %s", key, known);
}

static const struct json_field *find_field(const char *key, const struct json_field *fields,
                                           size_t field_count)
{
    for (size_t i = 0; i < field_count; i++)
        if (strcmp(fields[i].name, key) == 0)
            return &fields[i];
    return NULL;
}

static int read_members(const struct json *value, const struct json_field *fields,
                        size_t field_count, bool refuse, void *object, struct error *err)
{
    if (json_type(value) != JSON_OBJECT) {
        char shown[JSON_SHOWN_SIZE];
        json_show(value, shown);
        return error_set(err, ERROR_INVALID_REQUEST, "it must be a JSON object, not %s", shown);
    }
    json_foreach (i, member, value) {
        const char *key = json_key_at(value, i);
        const struct json_field *field = find_field(key, fields, field_count);
        if (!field && refuse)
            return refuse_unknown(key, fields, field_count, err);
        if (field && read_field(field, member, object, err) < 0)
            return -1;
    }
    for (size_t i = 0; i < field_count; i++)
        if (fields[i].required && !json_get(value, fields[i].name)) {
            char pointer[128];
            json_pointer_join(pointer, sizeof(pointer), "", fields[i].name);
            return error_set_field(err, ERROR_INVALID_REQUEST, pointer, "%s is required",
                                   fields[i].name);
        }
    return 0;
}

int json_read_struct(const struct json *value, const struct json_field *fields, size_t field_count,
                     void *object, struct error *err)
{
    return read_members(value, fields, field_count, true, object, err);
}

int json_read_known(const struct json *value, const struct json_field *fields, size_t field_count,
                    void *object, struct error *err)
{
    return read_members(value, fields, field_count, false, object, err);
}
