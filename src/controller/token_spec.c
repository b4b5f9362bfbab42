/* A named API token as JSON: what users send and are shown, and what is stored. */
#include "base/cleanup.h"
#include "base/loop.h"
#include "controller/tokens.h"

#include <stddef.h>
#include <stdio.h>
#include <string.h>

#define STORED_MAX 4096

static int read_name(void *object, const struct json *value, const char *pointer, struct error *err)
{
    struct token_spec *spec = object;
    size_t len = 0;
    const char *text = json_string(value, &len);
    if (!text || strlen(text) != len || !function_name_valid(text)) {
        char shown[JSON_SHOWN_SIZE];
        json_show(value, shown);
        return error_set_field(err, ERROR_INVALID_REQUEST, pointer,
                               "name must be 1 to %d of a-z, 0-9 and -, beginning and ending with "
                               "a letter or digit, not %s",
                               FUNCTION_NAME_MAX, shown);
    }
    snprintf(spec->name, sizeof(spec->name), "%s", text);
    return 0;
}

static int read_scope(void *object, const struct json *value, const char *pointer,
                      struct error *err)
{
    struct token_spec *spec = object;
    const char *text = json_string(value, NULL);
    bool invoke = text && strcmp(text, "invoke") == 0;
    if (!invoke && (!text || strcmp(text, "admin") != 0)) {
        char shown[JSON_SHOWN_SIZE];
        json_show(value, shown);
        return error_set_field(err, ERROR_INVALID_REQUEST, pointer,
                               "scope must be invoke or admin, not %s", shown);
    }
    spec->scope = invoke ? TOKEN_INVOKE : TOKEN_ADMIN;
    return 0;
}

static int read_hash(void *object, const struct json *value, const char *pointer, struct error *err)
{
    struct token_spec *spec = object;
    size_t len = 0;
    const char *text = json_string(value, &len);
    if (!text || len != SHA256_HEX_LEN || strspn(text, "0123456789abcdef") != SHA256_HEX_LEN)
        return error_set_field(err, ERROR_INVALID_REQUEST, pointer,
                               "sha256 must be %d hexadecimal digits", SHA256_HEX_LEN);
    memcpy(spec->hash, text, SHA256_HEX_LEN + 1);
    return 0;
}

#define MEMBER(member) .name = #member, .offset = offsetof(struct token_spec, member)

#define USER_FIELDS                                                                                \
    {MEMBER(name), .type = JSON_FIELD_CUSTOM, .read = read_name, .required = true},                \
        {MEMBER(scope), .type = JSON_FIELD_CUSTOM, .read = read_scope, .required = true},          \
        {MEMBER(rate_limit), .type = JSON_FIELD_DOUBLE, .max = FUNCTION_RATE_MAX},                 \
        {MEMBER(rate_burst), .type = JSON_FIELD_INT64, .max = FUNCTION_BURST_MAX},                 \
    {                                                                                              \
        MEMBER(max_concurrency), .type = JSON_FIELD_INT64, .max = FUNCTION_CONCURRENCY_MAX         \
    }

static const struct json_field request_fields[] = {USER_FIELDS};
static const struct json_field stored_fields[] = {
    USER_FIELDS,
    {.name = "sha256", .type = JSON_FIELD_CUSTOM, .read = read_hash, .required = true},
    {MEMBER(created_at_ns), .type = JSON_FIELD_INT64},
};

int token_spec_read_request(const struct json *value, struct token_spec *spec, struct error *err)
{
    *spec = (struct token_spec){0};
    if (json_read_struct(value, request_fields, ARRAY_LENGTH(request_fields), spec, err) < 0)
        return -1;
    return function_check_rate(spec->rate_limit, spec->rate_burst, err);
}

int token_spec_read_stored(const struct json *value, struct token_spec *spec, struct error *err)
{
    *spec = (struct token_spec){0};
    if (json_read_known(value, stored_fields, ARRAY_LENGTH(stored_fields), spec, err) < 0)
        return -1;
    return function_check_rate(spec->rate_limit, spec->rate_burst, err);
}

static void write_settable(struct json_writer *writer, const struct token_spec *spec)
{
    json_member_string(writer, "name", spec->name);
    json_member_string(writer, "scope", spec->scope == TOKEN_INVOKE ? "invoke" : "admin");
    json_member_double(writer, "rate_limit", spec->rate_limit);
    json_member_int(writer, "rate_burst", spec->rate_burst);
    json_member_int(writer, "max_concurrency", spec->max_concurrency);
}

void token_spec_write_members(struct json_writer *writer, const struct token_spec *spec)
{
    char time[25];
    write_settable(writer, spec);
    clock_format_rfc3339((uint64_t)spec->created_at_ns, time);
    json_member_string(writer, "created_at", time);
}

char *token_spec_to_setting(const struct token_spec *spec, struct error *err)
{
    struct buffer text = BUFFER_INIT(STORED_MAX);
    struct json_writer *writer = json_writer_new(&text);
    if (!writer) {
        error_set(err, ERROR_INTERNAL, "out of memory");
        return NULL;
    }
    json_object_begin(writer);
    write_settable(writer, spec);
    json_member_string(writer, "sha256", spec->hash);
    json_member_int(writer, "created_at_ns", spec->created_at_ns);
    json_object_end(writer);
    size_t len = 0;
    if (json_writer_finish(writer, err) == 0)
        return buffer_take(&text, &len);
    buffer_deinit(&text);
    return NULL;
}

void token_setting_name(const char *name, char out[TOKEN_SETTING_NAME_SIZE])
{
    snprintf(out, TOKEN_SETTING_NAME_SIZE, TOKEN_SETTING_PREFIX "%s", name);
}
