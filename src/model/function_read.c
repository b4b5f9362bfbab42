/* A function's definition from JSON, by one table: from users (a request) and from our own programs (store, worker link). */
#include "model/function_rules.h"

#include "base/cleanup.h"
#include "base/http_url.h"

#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CPUS_MIN 0.05
/* Of a definition that was checked against its machine when it was made. */
#define CPUS_MAX_ANY 4096
#define TMP_MB_MAX 10240
#define PIDS_MAX 4096
#define VERSION_MAX 9007199254740991.0

/* The string in `value`, or NULL with an error that says which words are right. */
static const char *read_word(const struct json *value, const char *pointer, const char *words,
                             struct error *err)
{
    size_t len = 0;
    const char *text = json_string(value, &len);
    if (text && strlen(text) == len)
        return text;
    char shown[JSON_SHOWN_SIZE];
    json_show(value, shown);
    error_set_field(err, ERROR_INVALID_REQUEST, pointer, "%s must be %s, not %s", pointer + 1,
                    words, shown);
    return NULL;
}

static int read_runtime(void *object, const struct json *value, const char *pointer,
                        struct error *err)
{
    struct function_spec *spec = object;
    const char *text = read_word(value, pointer, "python, nodejs, go or native", err);
    return text ? function_runtime_parse(text, &spec->runtime, err) : -1;
}

/* The second of two words sets 1. */
static int read_choice(const struct json *value, const char *pointer, const char *zero,
                       const char *one, int *ret, struct error *err)
{
    const char *text = json_string(value, NULL);
    bool is_one = text && strcmp(text, one) == 0;
    if (!is_one && (!text || strcmp(text, zero) != 0)) {
        char shown[JSON_SHOWN_SIZE];
        json_show(value, shown);
        return error_set_field(err, ERROR_INVALID_REQUEST, pointer, "%s must be %s or %s, not %s",
                               pointer + 1, zero, one, shown);
    }
    *ret = is_one;
    return 0;
}

static int read_contract(void *object, const struct json *value, const char *pointer,
                         struct error *err)
{
    struct function_spec *spec = object;
    int choice = 0;
    if (read_choice(value, pointer, "process", "handler", &choice, err) < 0)
        return -1;
    spec->contract = choice ? CONTRACT_HANDLER : CONTRACT_PROCESS;
    return 0;
}

static int read_network(void *object, const struct json *value, const char *pointer,
                        struct error *err)
{
    struct function_spec *spec = object;
    int choice = 0;
    if (read_choice(value, pointer, "bridge", "none", &choice, err) < 0)
        return -1;
    spec->network = choice ? NETWORK_NONE : NETWORK_BRIDGE;
    return 0;
}

/* What was read so far is in the list, which the spec owns, also on failure. */
static int read_destination(struct destinations *list, const struct json *value,
                            const char *pointer, size_t index, struct error *err)
{
    char key[24], below[128], shown[JSON_SHOWN_SIZE];
    size_t len;
    const char *text = json_string(value, &len);

    snprintf(key, sizeof(key), "%zu", index);
    json_pointer_join(below, sizeof(below), pointer, key);
    json_show(value, shown);
    if (!text || strlen(text) != len)
        return error_set_field(err, ERROR_INVALID_REQUEST, below,
                               "an entry of network_allow must be a text, not %s", shown);
    struct error why = {0};
    if (destination_parse(text, &list->items[list->count], &why) < 0)
        return error_set_field(err, why.code, below, "network_allow: %s", why.message);
    list->count++;
    return 0;
}

static int read_network_allow(void *object, const struct json *value, const char *pointer,
                              struct error *err)
{
    struct destinations *list = &((struct function_spec *)object)->network_allow;
    char shown[JSON_SHOWN_SIZE];
    size_t count = json_count(value);

    json_show(value, shown);
    if (json_type(value) != JSON_ARRAY)
        return error_set_field(err, ERROR_INVALID_REQUEST, pointer,
                               "network_allow must be a list of destinations, not %s", shown);
    if (count == 0 || count > FUNCTION_NETWORK_ALLOW_MAX)
        return error_set_field(err, ERROR_INVALID_REQUEST, pointer,
                               "network_allow must have 1 to %d entries, not %zu; leave it out to "
                               "allow everything that bridge reaches, or set network to none",
                               FUNCTION_NETWORK_ALLOW_MAX, count);
    list->items = calloc(count, sizeof(*list->items));
    if (!list->items)
        return error_set(err, ERROR_INTERNAL, "out of memory");
    json_foreach (i, item, value)
        if (read_destination(list, item, pointer, i, err) < 0)
            return -1;
    return 0;
}

/* The code itself is the caller's to decode: it may be megabytes. */
static int read_code(void *object, const struct json *value, const char *pointer, struct error *err)
{
    (void)object;
    return read_word(value, pointer, "base64 text of a file or archive", err) ? 0 : -1;
}

/* What came in the place of text. Not its value, which may be a secret. */
static const char *kind_of(const struct json *value)
{
    static const char *const kinds[] = {
        [JSON_NULL] = "null",       [JSON_BOOL] = "true or false", [JSON_NUMBER] = "a number",
        [JSON_STRING] = "a string", [JSON_ARRAY] = "an array",     [JSON_OBJECT] = "an object",
    };
    return kinds[json_type(value)];
}

static int read_pair(struct key_value *pair, const char *key, const struct json *value,
                     const char *pointer, struct error *err)
{
    char below[128];
    size_t len;
    const char *text = json_string(value, &len);
    json_pointer_join(below, sizeof(below), pointer, key);
    if (!text)
        return error_set_field(err, ERROR_INVALID_REQUEST, below,
                               "%s of %.64s must be a string, not %s", pointer + 1, key,
                               kind_of(value));
    if (strlen(text) != len)
        return error_set_field(err, ERROR_INVALID_REQUEST, below,
                               "%s of %.64s must not contain the NUL character", pointer + 1, key);
    pair->key = strdup(key);
    pair->value = strdup(text);
    return pair->key && pair->value ? 0 : error_set(err, ERROR_INTERNAL, "out of memory");
}

/* What was read so far is in `pairs`, which the spec owns, also on failure. */
static int read_pairs(struct key_values *pairs, const struct json *value, const char *pointer,
                      size_t max, struct error *err)
{
    size_t count = json_count(value);
    if (json_type(value) != JSON_OBJECT)
        return error_set_field(err, ERROR_INVALID_REQUEST, pointer,
                               "%s must be an object of names and string values, not %s",
                               pointer + 1, kind_of(value));
    if (count > max)
        return error_set_field(err, ERROR_INVALID_REQUEST, pointer,
                               "%s must have at most %zu members, not %zu", pointer + 1, max,
                               count);
    pairs->items = calloc(count + 1, sizeof(*pairs->items));
    if (!pairs->items)
        return error_set(err, ERROR_INTERNAL, "out of memory");
    json_foreach (i, member, value) {
        pairs->count = i + 1;
        if (read_pair(&pairs->items[i], json_key_at(value, i), member, pointer, err) < 0)
            return -1;
    }
    return 0;
}

static int read_env(void *object, const struct json *value, const char *pointer, struct error *err)
{
    struct function_spec *spec = object;
    if (read_pairs(&spec->env, value, pointer, FUNCTION_ENV_MAX, err) < 0)
        return -1;
    return function_check_env(&spec->env, err);
}

static int read_labels(void *object, const struct json *value, const char *pointer,
                       struct error *err)
{
    struct function_spec *spec = object;
    if (read_pairs(&spec->labels, value, pointer, FUNCTION_LABELS_MAX, err) < 0)
        return -1;
    return function_check_labels(&spec->labels, err);
}

/* What was read so far is in the list, which the spec owns, also on failure. */
static int read_requirement(struct labels *list, const struct json *value, const char *pointer,
                            size_t index, struct error *err)
{
    char key[24], below[128];
    size_t len = 0;
    const char *text = json_string(value, &len);
    struct error why = {0};

    snprintf(key, sizeof(key), "%zu", index);
    json_pointer_join(below, sizeof(below), pointer, key);
    if (!text || strlen(text) != len)
        return error_set_field(err, ERROR_INVALID_REQUEST, below,
                               "an entry of requires must be a text such as \"gpu\" or "
                               "\"arch=aarch64\", not %s",
                               kind_of(value));
    return labels_add(list, text, &why) < 0
               ? error_set_field(err, why.code, below, "requires: %s", why.message)
               : 0;
}

static int read_requires(void *object, const struct json *value, const char *pointer,
                         struct error *err)
{
    struct function_spec *spec = object;
    if (json_type(value) != JSON_ARRAY)
        return error_set_field(err, ERROR_INVALID_REQUEST, pointer,
                               "requires must be a list of labels such as [\"gpu\"], not %s",
                               kind_of(value));
    json_foreach (i, item, value)
        if (read_requirement(&spec->requires, item, pointer, i, err) < 0)
            return -1;
    return 0;
}

#define RETRY_MEMBER(member) .name = #member, .offset = offsetof(struct function_retry, member)

static const struct json_field retry_fields[] = {
    {RETRY_MEMBER(max_attempts), .type = JSON_FIELD_INT64, .min = 1,
     .max = FUNCTION_RETRY_ATTEMPTS_MAX},
    {RETRY_MEMBER(backoff_ms), .type = JSON_FIELD_INT64, .max = FUNCTION_RETRY_BACKOFF_MS_MAX},
    {RETRY_MEMBER(max_age_ms), .type = JSON_FIELD_INT64, .min = 1000,
     .max = FUNCTION_RETRY_AGE_MS_MAX},
};

static int read_retry(void *object, const struct json *value, const char *pointer,
                      struct error *err)
{
    struct function_spec *spec = object;
    struct error inner = {0};
    if (json_read_struct(value, retry_fields, ARRAY_LENGTH(retry_fields), &spec->retry, &inner) ==
        0)
        return 0;
    char below[sizeof(inner.field)];
    snprintf(below, sizeof(below), "%s%.100s", pointer, inner.field);
    return error_set_field(err, inner.code, below, "retry: %.600s", inner.message);
}

static int read_stored_retry(void *object, const struct json *value, const char *pointer,
                             struct error *err)
{
    struct function_spec *spec = object;
    (void)pointer;
    return json_read_known(value, retry_fields, ARRAY_LENGTH(retry_fields), &spec->retry, err);
}

static int read_callback_url(void *object, const struct json *value, const char *pointer,
                             struct error *err)
{
    struct function_spec *spec = object;
    struct http_url url;
    struct error why = {0};
    size_t len = 0;
    const char *text = json_string(value, &len);
    if (!text || strlen(text) != len)
        return error_set_field(err, ERROR_INVALID_REQUEST, pointer,
                               "callback_url must be a URL, not %s", kind_of(value));
    if (http_url_parse(text, &url, &why) < 0)
        return error_set_field(err, why.code, pointer, "callback_url: %s", why.message);
    spec->callback_url = strdup(text);
    return spec->callback_url ? 0 : error_set(err, ERROR_INTERNAL, "out of memory");
}

/* The error does not show what was given. */
static int read_callback_secret(void *object, const struct json *value, const char *pointer,
                                struct error *err)
{
    struct function_spec *spec = object;
    size_t len = 0;
    const char *text = json_string(value, &len);
    bool fits = text && strlen(text) == len && len >= FUNCTION_CALLBACK_SECRET_MIN &&
                len <= FUNCTION_CALLBACK_SECRET_MAX;
    if (!fits)
        return error_set_field(err, ERROR_INVALID_REQUEST, pointer,
                               "callback_secret must be a string of %d to %d bytes",
                               FUNCTION_CALLBACK_SECRET_MIN, FUNCTION_CALLBACK_SECRET_MAX);
    spec->callback_secret = strdup(text);
    return spec->callback_secret ? 0 : error_set(err, ERROR_INTERNAL, "out of memory");
}

#define MEMBER(member) .name = #member, .offset = offsetof(struct function_spec, member)

enum { FIELD_CPUS };

/* What users give. `cpus` stands first: its upper bound depends on the machine. */
#define USER_FIELDS                                                                                \
    [FIELD_CPUS] = {MEMBER(cpus), .type = JSON_FIELD_DOUBLE, .min = CPUS_MIN,                      \
                    .max = CPUS_MAX_ANY},                                                          \
    {MEMBER(name), .type = JSON_FIELD_STRING},                                                     \
    {MEMBER(runtime), .type = JSON_FIELD_CUSTOM, .read = read_runtime, .required = true},          \
    {MEMBER(image), .type = JSON_FIELD_STRING, .min = 1, .max = 255},                              \
    {MEMBER(contract), .type = JSON_FIELD_CUSTOM, .read = read_contract},                          \
    {MEMBER(handler), .type = JSON_FIELD_STRING, .max = 255},                                      \
    {MEMBER(env), .type = JSON_FIELD_CUSTOM, .read = read_env},                                    \
    {MEMBER(labels), .type = JSON_FIELD_CUSTOM, .read = read_labels},                              \
    {MEMBER(requires), .type = JSON_FIELD_CUSTOM, .read = read_requires},                          \
    {MEMBER(memory_mb), .type = JSON_FIELD_INT64, .min = FUNCTION_MEMORY_MB_MIN,                   \
     .max = FUNCTION_MEMORY_MB_MAX},                                                               \
    {MEMBER(timeout_ms), .type = JSON_FIELD_INT64, .min = 1, .max = FUNCTION_TIMEOUT_MS_MAX},      \
    {MEMBER(tmp_mb), .type = JSON_FIELD_INT64, .min = 1, .max = TMP_MB_MAX},                       \
    {MEMBER(pids), .type = JSON_FIELD_INT64, .min = 1, .max = PIDS_MAX},                           \
    {MEMBER(io_bps), .type = JSON_FIELD_INT64, .max = FUNCTION_IO_BPS_MAX},                        \
    {MEMBER(io_iops), .type = JSON_FIELD_INT64, .max = FUNCTION_IO_IOPS_MAX},                      \
    {MEMBER(network), .type = JSON_FIELD_CUSTOM, .read = read_network},                            \
    {MEMBER(network_allow), .type = JSON_FIELD_CUSTOM, .read = read_network_allow},                \
    {MEMBER(network_kbps), .type = JSON_FIELD_INT64, .min = 0, .max = FUNCTION_NETWORK_KBPS_MAX},  \
    {MEMBER(public), .type = JSON_FIELD_BOOL},                                                     \
    {MEMBER(min_instances), .type = JSON_FIELD_INT64, .max = FUNCTION_INSTANCES_MAX},              \
    {MEMBER(max_instances), .type = JSON_FIELD_INT64, .max = FUNCTION_INSTANCES_MAX},              \
    {MEMBER(concurrency), .type = JSON_FIELD_INT64, .min = 1, .max = FUNCTION_PLACES_MAX},         \
    {MEMBER(rate_limit), .type = JSON_FIELD_DOUBLE, .max = FUNCTION_RATE_MAX},                     \
    {MEMBER(rate_burst), .type = JSON_FIELD_INT64, .max = FUNCTION_BURST_MAX},                     \
    {MEMBER(max_concurrency), .type = JSON_FIELD_INT64, .max = FUNCTION_CONCURRENCY_MAX},          \
    {MEMBER(reserved_concurrency), .type = JSON_FIELD_INT64, .max = FUNCTION_CONCURRENCY_MAX},     \
    {MEMBER(callback_url), .type = JSON_FIELD_CUSTOM, .read = read_callback_url},                  \
    {MEMBER(callback_secret), .type = JSON_FIELD_CUSTOM, .read = read_callback_secret},            \
    {                                                                                              \
        MEMBER(keep_alive_ms), .type = JSON_FIELD_INT64, .max = FUNCTION_KEEP_ALIVE_MS_MAX         \
    }

static const struct json_field request_fields[] = {
    USER_FIELDS,
    {MEMBER(retry), .type = JSON_FIELD_CUSTOM, .read = read_retry},
    {.name = "code", .type = JSON_FIELD_CUSTOM, .read = read_code},
};

static const struct json_field stored_fields[] = {
    USER_FIELDS,
    {MEMBER(retry), .type = JSON_FIELD_CUSTOM, .read = read_stored_retry},
    {MEMBER(version), .type = JSON_FIELD_INT64, .min = 0, .max = VERSION_MAX},
    {MEMBER(code_sha256), .type = JSON_FIELD_STRING, .max = 64},
    {MEMBER(artifact_sha256), .type = JSON_FIELD_STRING, .max = 64},
    {MEMBER(artifact_arch), .type = JSON_FIELD_STRING, .max = 64},
};

/* Formats of what the table read. */
static int check_formats(const struct function_spec *spec, struct error *err)
{
    if (!spec->name)
        return error_set_field(err, ERROR_INVALID_REQUEST, "/name", "name is required");
    if (function_check_name(spec->name, err) < 0)
        return -1;
    if (spec->image && function_check_image(spec->image, err) < 0)
        return -1;
    if (spec->handler && function_check_handler(spec->handler, err) < 0)
        return -1;
    if (spec->code_sha256 && function_check_sha256(spec->code_sha256, "code_sha256", err) < 0)
        return -1;
    if (spec->artifact_sha256)
        return function_check_sha256(spec->artifact_sha256, "artifact_sha256", err);
    return 0;
}

static int take_name(struct function_spec *spec, const char *name, struct error *err)
{
    if (!name)
        return 0;
    if (spec->name && strcmp(spec->name, name) != 0)
        return error_set_field(err, ERROR_INVALID_REQUEST, "/name",
                               "name must be \"%.64s\" as in the URL, or left out, not \"%.64s\"",
                               name, spec->name);
    if (!spec->name && !(spec->name = strdup(name)))
        return error_set(err, ERROR_INTERNAL, "out of memory");
    return 0;
}

int function_spec_read_request(const struct json *value, const char *name, double machine_cpus,
                               struct function_spec *spec, struct error *err)
{
    struct json_field fields[ARRAY_LENGTH(request_fields)];
    memcpy(fields, request_fields, sizeof(fields));
    fields[FIELD_CPUS].max = machine_cpus;

    function_spec_init(spec);
    if (json_read_struct(value, fields, ARRAY_LENGTH(fields), spec, err) == 0 &&
        take_name(spec, name, err) == 0 && check_formats(spec, err) == 0 &&
        function_check_whole(spec, err) == 0)
        return 0;
    function_spec_deinit(spec);
    return -1;
}

int function_spec_read(const struct json *value, struct function_spec *spec, struct error *err)
{
    function_spec_init(spec);
    if (json_read_known(value, stored_fields, ARRAY_LENGTH(stored_fields), spec, err) == 0 &&
        check_formats(spec, err) == 0 && function_check_whole(spec, err) == 0)
        return 0;
    function_spec_deinit(spec);
    return -1;
}
