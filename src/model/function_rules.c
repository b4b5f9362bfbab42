/* The rules of a function's fields: formats, reserved names, and what must fit together. */
#include "model/function_rules.h"

#include "base/text.h"

#include <stdlib.h>
#include <string.h>

#define LABEL_KEY_MAX 63
#define LABEL_VALUE_MAX 255

static bool is_lower_or_digit(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
}

static bool is_letter(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

static bool is_alphanumeric(char c)
{
    return is_letter(c) || (c >= '0' && c <= '9');
}

bool function_name_valid(const char *name)
{
    size_t len = strnlen(name, FUNCTION_NAME_MAX + 1);
    if (len == 0 || len > FUNCTION_NAME_MAX)
        return false;
    for (size_t i = 0; i < len; i++)
        if (!is_lower_or_digit(name[i]) && (name[i] != '-' || i == 0 || i == len - 1))
            return false;
    return true;
}

int function_check_name(const char *name, struct error *err)
{
    if (function_name_valid(name))
        return 0;
    return error_set_field(err, ERROR_INVALID_REQUEST, "/name",
                           "name must be 1 to %d of a-z, 0-9 and -, beginning and ending with a "
                           "letter or digit, not \"%.80s\"",
                           FUNCTION_NAME_MAX, name);
}

int function_check_image(const char *image, struct error *err)
{
    bool valid = is_alphanumeric(image[0]) && !strstr(image, "..") && !strstr(image, "//");
    for (const char *c = image; *c && valid; c++)
        valid = is_alphanumeric(*c) || strchr("._-/:@", *c);
    if (valid)
        return 0;
    return error_set_field(err, ERROR_INVALID_REQUEST, "/image",
                           "image must be a name such as \"faas-runtime-python:latest\" (letters, "
                           "digits and . _ - / : @), not \"%.80s\"",
                           image);
}

/* A path of non-empty parts, so no "..", no absolute path; the last part, after a dot, is the function's name. */
static bool handler_valid(const char *handler)
{
    const char *part = handler, *last_dot = strrchr(handler, '.');
    if (!last_dot || strchr(last_dot, '/') || strchr(last_dot, '-'))
        return false;
    if (last_dot[1] >= '0' && last_dot[1] <= '9')
        return false;
    for (const char *c = handler;; c++) {
        bool ends = *c == '.' || *c == '/' || *c == '\0';
        if (ends && c == part)
            return false;
        if (*c == '\0')
            return true;
        if (ends)
            part = c + 1;
        else if (!is_alphanumeric(*c) && !strchr("_$-", *c))
            return false;
    }
}

int function_check_handler(const char *handler, struct error *err)
{
    if (handler_valid(handler))
        return 0;
    return error_set_field(err, ERROR_INVALID_REQUEST, "/handler",
                           "handler must be MODULE.FUNCTION such as \"main.handler\" (a module "
                           "inside the code: letters, digits, _ - and single dots or slashes "
                           "between them), not \"%.80s\"",
                           handler);
}

int function_check_sha256(const char *digest, const char *field, struct error *err)
{
    if (strlen(digest) == SHA256_HEX_LEN && strspn(digest, "0123456789abcdef") == SHA256_HEX_LEN)
        return 0;
    char pointer[64];
    json_pointer_join(pointer, sizeof(pointer), "", field);
    return error_set_field(err, ERROR_INVALID_REQUEST, pointer,
                           "%s must be %d hexadecimal digits, not \"%.70s\"", field, SHA256_HEX_LEN,
                           digest);
}

static bool variable_name_valid(const char *name)
{
    if (!is_letter(*name) && *name != '_')
        return false;
    for (; *name; name++)
        if (!is_alphanumeric(*name) && *name != '_')
            return false;
    return true;
}

static int check_variable(const char *name, struct error *err)
{
    char pointer[128];
    json_pointer_join(pointer, sizeof(pointer), "/env", name);
    if (!variable_name_valid(name))
        return error_set_field(err, ERROR_INVALID_REQUEST, pointer,
                               "an env name must be letters, digits and _, not beginning with a "
                               "digit, not \"%.64s\"",
                               name);
    if (strncmp(name, "FUNCTION_", 9) == 0 || strcmp(name, "EXECUTION_ID") == 0)
        return error_set_field(err, ERROR_INVALID_REQUEST, pointer,
                               "env must not set %.64s: names beginning with FUNCTION_ and "
                               "EXECUTION_ID are set by the platform; choose another name",
                               name);
    return 0;
}

int function_check_env(const struct key_values *env, struct error *err)
{
    size_t bytes = 0;
    for (size_t i = 0; i < env->count; i++) {
        if (check_variable(env->items[i].key, err) < 0)
            return -1;
        bytes += strlen(env->items[i].key) + strlen(env->items[i].value) + 2; /* "=" and NUL */
    }
    if (bytes <= FUNCTION_ENV_BYTES_MAX)
        return 0;
    return error_set_field(err, ERROR_INVALID_REQUEST, "/env",
                           "env must be at most %d bytes in all (names and values), not %zu",
                           FUNCTION_ENV_BYTES_MAX, bytes);
}

static bool label_key_valid(const char *key)
{
    if (!is_alphanumeric(*key) || strlen(key) > LABEL_KEY_MAX)
        return false;
    for (; *key; key++)
        if (!is_alphanumeric(*key) && !strchr("._/-", *key))
            return false;
    return true;
}

int function_check_labels(const struct key_values *labels, struct error *err)
{
    for (size_t i = 0; i < labels->count; i++) {
        const struct key_value *label = &labels->items[i];
        char pointer[128];
        json_pointer_join(pointer, sizeof(pointer), "/labels", label->key);
        if (!label_key_valid(label->key))
            return error_set_field(err, ERROR_INVALID_REQUEST, pointer,
                                   "a label's name must be 1 to %d letters, digits and . _ / -, "
                                   "beginning with a letter or digit, not \"%.80s\"",
                                   LABEL_KEY_MAX, label->key);
        if (strlen(label->value) > LABEL_VALUE_MAX)
            return error_set_field(err, ERROR_INVALID_REQUEST, pointer,
                                   "the label %s must be at most %d bytes, not %zu", label->key,
                                   LABEL_VALUE_MAX, strlen(label->value));
    }
    return 0;
}

static int check_contract(const struct function_spec *spec, struct error *err)
{
    bool can_handle = spec->runtime == RUNTIME_PYTHON || spec->runtime == RUNTIME_NODEJS;
    if (spec->contract == CONTRACT_PROCESS && spec->handler)
        return error_set_field(err, ERROR_INVALID_REQUEST, "/handler",
                               "handler needs \"contract\": \"handler\"; with contract process "
                               "leave it out");
    if (spec->contract == CONTRACT_PROCESS)
        return 0;
    if (!can_handle)
        return error_set_field(err, ERROR_INVALID_REQUEST, "/contract",
                               "contract handler needs runtime python or nodejs, not %s; use "
                               "contract process",
                               function_runtime_name(spec->runtime));
    if (!spec->handler)
        return error_set_field(err, ERROR_INVALID_REQUEST, "/handler",
                               "handler is required with contract handler: MODULE.FUNCTION such as "
                               "\"%s.handler\"",
                               spec->runtime == RUNTIME_PYTHON ? "main" : "index");
    return 0;
}

static int check_scaling(const struct function_spec *spec, struct error *err)
{
    if (spec->max_instances == 0 || spec->min_instances <= spec->max_instances)
        return 0;
    return error_set_field(err, ERROR_INVALID_REQUEST, "/min_instances",
                           "min_instances must be at most max_instances, which is %lld (0 would be "
                           "no bound), not %lld",
                           (long long)spec->max_instances, (long long)spec->min_instances);
}

int function_check_rate(double rate_limit, int64_t rate_burst, struct error *err)
{
    if (rate_limit != 0 && rate_limit < FUNCTION_RATE_MIN)
        return error_set_field(err, ERROR_INVALID_REQUEST, "/rate_limit",
                               "rate_limit must be 0 (no limit) or %g to %d a second, not %g",
                               FUNCTION_RATE_MIN, FUNCTION_RATE_MAX, rate_limit);
    if (rate_burst > 0 && rate_limit == 0)
        return error_set_field(err, ERROR_INVALID_REQUEST, "/rate_burst",
                               "rate_burst needs rate_limit; without one leave it out");
    return 0;
}

static int check_admission(const struct function_spec *spec, struct error *err)
{
    if (function_check_rate(spec->rate_limit, spec->rate_burst, err) < 0)
        return -1;
    if (spec->max_concurrency > 0 && spec->reserved_concurrency > 0)
        return error_set_field(
            err, ERROR_INVALID_REQUEST, "/max_concurrency",
            "reserved_concurrency is a bound already: leave max_concurrency out");
    return 0;
}

static int check_concurrency(const struct function_spec *spec, struct error *err)
{
    if (spec->concurrency == 1)
        return 0;
    if (spec->contract != CONTRACT_HANDLER)
        return error_set_field(
            err, ERROR_INVALID_REQUEST, "/concurrency",
            "concurrency above 1 needs contract handler: with contract process "
            "each call has a process of its own; set 1 or leave it out, not %lld",
            (long long)spec->concurrency);
    if (spec->keep_alive_ms != 0)
        return 0;
    return error_set_field(err, ERROR_INVALID_REQUEST, "/concurrency",
                           "concurrency above 1 does not go with keep_alive_ms 0, which gives each "
                           "call an instance of its own; set 1 or leave it out, not %lld",
                           (long long)spec->concurrency);
}

static int check_network(const struct function_spec *spec, struct error *err)
{
    if (spec->network_kbps != 0 && spec->network_kbps < FUNCTION_NETWORK_KBPS_MIN)
        return error_set_field(err, ERROR_INVALID_REQUEST, "/network_kbps",
                               "network_kbps must be 0 (no limit) or %d to %d, not %lld",
                               FUNCTION_NETWORK_KBPS_MIN, FUNCTION_NETWORK_KBPS_MAX,
                               (long long)spec->network_kbps);
    if (spec->network == NETWORK_BRIDGE)
        return 0;
    if (spec->network_allow.count > 0)
        return error_set_field(err, ERROR_INVALID_REQUEST, "/network_allow",
                               "network_allow needs network bridge; with network none leave it "
                               "out");
    if (spec->network_kbps > 0)
        return error_set_field(err, ERROR_INVALID_REQUEST, "/network_kbps",
                               "network_kbps needs network bridge; with network none leave it out");
    return 0;
}

static int check_io(const struct function_spec *spec, struct error *err)
{
    if (spec->io_bps != 0 && spec->io_bps < FUNCTION_IO_BPS_MIN)
        return error_set_field(err, ERROR_INVALID_REQUEST, "/io_bps",
                               "io_bps must be 0 (no limit) or %lld to %lld, not %lld",
                               (long long)FUNCTION_IO_BPS_MIN, (long long)FUNCTION_IO_BPS_MAX,
                               (long long)spec->io_bps);
    if (spec->io_iops != 0 && spec->io_iops < FUNCTION_IO_IOPS_MIN)
        return error_set_field(err, ERROR_INVALID_REQUEST, "/io_iops",
                               "io_iops must be 0 (no limit) or %d to %d, not %lld",
                               FUNCTION_IO_IOPS_MIN, FUNCTION_IO_IOPS_MAX,
                               (long long)spec->io_iops);
    return 0;
}

int function_check_whole(struct function_spec *spec, struct error *err)
{
    if (check_contract(spec, err) < 0 || check_scaling(spec, err) < 0 ||
        check_concurrency(spec, err) < 0 || check_admission(spec, err) < 0 ||
        check_network(spec, err) < 0 || check_io(spec, err) < 0)
        return -1;
    if (!spec->image)
        spec->image = strdup(function_runtime_default_image(spec->runtime));
    return spec->image ? 0 : error_set(err, ERROR_INTERNAL, "out of memory");
}
