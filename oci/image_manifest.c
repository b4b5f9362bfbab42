/* Manifests and configs as structs: see image_manifest.h. Which of several images is taken is in
 * image_choice.c. */
#include "oci/image_manifest.h"

#include "base/cleanup.h"
#include "base/json.h"

#include <stdio.h>
#include <string.h>
#include <sys/utsname.h>
#include <time.h>

#include "oci/image_json.h"

const char *image_machine_architecture(void)
{
    static const char *const names[][2] = {
        {"x86_64", "amd64"},    {"aarch64", "arm64"}, {"armv7l", "arm"},      {"i686", "386"},
        {"ppc64le", "ppc64le"}, {"s390x", "s390x"},   {"riscv64", "riscv64"},
    };
    static _Thread_local struct utsname system;
    if (uname(&system) < 0)
        return "";
    for (size_t i = 0; i < ARRAY_LENGTH(names); i++) {
        if (strcmp(system.machine, names[i][0]) == 0)
            return names[i][1];
    }
    return system.machine;
}

bool image_digest_valid(const char *digest)
{
    return strncmp(digest, "sha256:", 7) == 0 && strlen(digest) == DIGEST_LEN &&
           strspn(digest + 7, "0123456789abcdef") == SHA256_HEX_LEN;
}

struct json *image_json_parse(const char *text, size_t len, const char *what, struct error *err)
{
    const struct json_limits limits = {
        .max_bytes = IMAGE_JSON_MAX_BYTES, .max_depth = 32, .max_values = 100000};
    struct json *root = json_parse(text, len, &limits, err);
    if (!root) {
        error_wrap(err, "%s", what);
        return NULL;
    }
    if (json_type(root) == JSON_OBJECT || json_type(root) == JSON_ARRAY)
        return root;
    json_free(root);
    error_set(err, ERROR_INVALID_REQUEST, "%s: neither a JSON object nor an array", what);
    return NULL;
}

/* A string without NULs inside; NULL when it is none. */
const char *image_json_string(const struct json *value)
{
    size_t len;
    const char *string = json_string(value, &len);
    return string && strlen(string) == len ? string : NULL;
}

int image_json_digest(const struct json *value, const char *what, char out[DIGEST_LEN + 1],
                      struct error *err)
{
    const char *digest = image_json_string(value);
    if (!digest)
        return error_set(err, ERROR_INVALID_REQUEST, "%s has no digest", what);
    if (!image_digest_valid(digest)) {
        char shown[TREE_NAME_MAX];
        return error_set(
            err, ERROR_INVALID_REQUEST,
            "%s has the digest \"%s\"; \"sha256:\" and 64 hexadecimal digits are needed", what,
            tree_name(digest, shown));
    }
    memcpy(out, digest, DIGEST_LEN + 1);
    return 0;
}

int image_json_descriptor(const struct json *value, const char *what,
                          struct image_descriptor *ret_descriptor, struct error *err)
{
    const char *type = image_json_string(json_get(value, "mediaType"));
    const struct json *size = json_get(value, "size");
    struct image_descriptor descriptor = {
        .is_index = type && (strstr(type, "image.index") || strstr(type, "manifest.list")),
        .size = json_int(size, -1)};
    if (image_json_digest(json_get(value, "digest"), what, descriptor.digest, err) < 0)
        return -1;
    if (!json_is_int(size) || descriptor.size < 0)
        return error_set(err, ERROR_INVALID_REQUEST, "%s has no valid size", what);
    if (type && strstr(type, "+encrypted"))
        return error_set(err, ERROR_INVALID_REQUEST, "%s is encrypted", what);
    *ret_descriptor = descriptor;
    return 0;
}

/* ---- manifest ---- */

void image_manifest_deinit(struct image_manifest *manifest)
{
    free(manifest->layers);
    *manifest = (struct image_manifest){0};
}

int image_manifest_read(const char *text, size_t len, size_t max_layers,
                        struct image_manifest *ret_manifest, struct error *err)
{
    autojson *root = image_json_parse(text, len, "the image manifest", err);
    with_cleanup(image_manifest_deinit) struct image_manifest manifest = {0};
    if (!root)
        return -1;
    const struct json *layers = json_get(root, "layers");
    if (!layers && json_type(json_get(root, "manifests") ?: root) == JSON_ARRAY) {
        *ret_manifest = (struct image_manifest){.is_index = true};
        return 0;
    }
    if (json_get_int(root, "schemaVersion", 0) != 2)
        return error_set(err, ERROR_INVALID_REQUEST,
                         "the image manifest is of schema version %lld; 2 is supported",
                         (long long)json_get_int(root, "schemaVersion", 0));
    if (!layers || json_type(layers) != JSON_ARRAY)
        return error_set(err, ERROR_INVALID_REQUEST, "the image manifest has no list of layers");
    if (json_count(layers) > max_layers)
        return error_set(err, ERROR_PAYLOAD_TOO_LARGE,
                         "the image has %zu layers; %zu are the most allowed", json_count(layers),
                         max_layers);
    manifest.layers = calloc(json_count(layers) + 1, sizeof(*manifest.layers));
    if (!manifest.layers)
        return error_set(err, ERROR_INTERNAL, "out of memory");
    if (image_json_descriptor(json_get(root, "config"), "the manifest's config", &manifest.config,
                              err) < 0)
        return -1;
    json_foreach (i, layer, layers) {
        char what[32];
        snprintf(what, sizeof(what), "layer %zu", i + 1);
        if (image_json_descriptor(layer, what, &manifest.layers[manifest.layer_count++], err) < 0)
            return -1;
    }
    *ret_manifest = manifest;
    manifest = (struct image_manifest){0};
    return 0;
}

/* ---- config ---- */

void image_strings_free(char **strings)
{
    for (char **string = strings; string && *string; string++)
        free(*string);
    free(strings);
}

void image_config_deinit(struct image_config *config)
{
    free(config->architecture);
    free(config->os);
    free(config->user);
    free(config->working_directory);
    image_strings_free(config->env);
    image_strings_free(config->entrypoint);
    image_strings_free(config->cmd);
    image_strings_free(config->diff_ids);
    *config = (struct image_config){0};
}

/* A list of strings; absent and null are an empty one. */
int image_json_strings(const struct json *value, const char *what, char ***ret_strings,
                       struct error *err)
{
    char **strings = calloc(json_count(value) + 1, sizeof(*strings));
    if (!strings)
        return error_set(err, ERROR_INTERNAL, "out of memory");
    *ret_strings = strings;
    if (!value || json_type(value) == JSON_NULL)
        return 0;
    if (json_type(value) != JSON_ARRAY)
        return error_set(err, ERROR_INVALID_REQUEST, "%s is no list of strings", what);
    json_foreach (i, item, value) {
        const char *string = image_json_string(item);
        if (!string)
            return error_set(err, ERROR_INVALID_REQUEST, "%s is no list of strings", what);
        strings[i] = strdup(string);
        if (!strings[i])
            return error_set(err, ERROR_INTERNAL, "out of memory");
    }
    return 0;
}

static int read_text(const struct json *object, const char *key, char **ret_text, struct error *err)
{
    const struct json *value = json_get(object, key);
    const char *string = image_json_string(value);
    if (value && json_type(value) != JSON_NULL && !string)
        return error_set(err, ERROR_INVALID_REQUEST, "the image config's \"%s\" is no text", key);
    *ret_text = strdup(string ? string : "");
    return *ret_text ? 0 : error_set(err, ERROR_INTERNAL, "out of memory");
}

/* RFC 3339, to the second; what is no time counts as not known. */
static int64_t read_time(const char *text)
{
    struct tm tm = {0};
    const char *rest = text ? strptime(text, "%Y-%m-%dT%H:%M:%S", &tm) : NULL;
    if (!rest)
        return 0;
    if (*rest == '.')
        rest += 1 + strspn(rest + 1, "0123456789");
    int64_t seconds = (int64_t)timegm(&tm);
    int hours, minutes;
    if ((*rest == '+' || *rest == '-') && sscanf(rest + 1, "%2d:%2d", &hours, &minutes) == 2)
        seconds -= (*rest == '-' ? -1 : 1) * (hours * 3600 + minutes * 60);
    return seconds > 0 ? seconds : 0;
}

static int read_run_config(const struct json *settings, struct image_config *config,
                           struct error *err)
{
    if (settings && json_type(settings) != JSON_OBJECT && json_type(settings) != JSON_NULL)
        return error_set(err, ERROR_INVALID_REQUEST, "the image config's \"config\" is no object");
    if (read_text(settings, "User", &config->user, err) < 0 ||
        read_text(settings, "WorkingDir", &config->working_directory, err) < 0 ||
        image_json_strings(json_get(settings, "Env"), "the image config's \"Env\"", &config->env,
                           err) < 0 ||
        image_json_strings(json_get(settings, "Entrypoint"), "the image config's \"Entrypoint\"",
                           &config->entrypoint, err) < 0)
        return -1;
    return image_json_strings(json_get(settings, "Cmd"), "the image config's \"Cmd\"", &config->cmd,
                              err);
}

static int read_diff_ids(const struct json *rootfs, size_t max_layers, struct image_config *config,
                         struct error *err)
{
    const char *type = json_get_string(rootfs, "type");
    if (type && strcmp(type, "layers") != 0)
        return error_set(err, ERROR_INVALID_REQUEST,
                         "the image config's root file system is not of "
                         "type \"layers\"");
    if (image_json_strings(json_get(rootfs, "diff_ids"), "the image config's \"diff_ids\"",
                           &config->diff_ids, err) < 0)
        return -1;
    config->diff_id_count = 0;
    while (config->diff_ids[config->diff_id_count])
        config->diff_id_count++;
    if (config->diff_id_count > max_layers)
        return error_set(err, ERROR_PAYLOAD_TOO_LARGE,
                         "the image has %zu layers; %zu are the most allowed",
                         config->diff_id_count, max_layers);
    for (size_t i = 0; i < config->diff_id_count; i++) {
        if (!image_digest_valid(config->diff_ids[i]))
            return error_set(err, ERROR_INVALID_REQUEST,
                             "the image config's diff_id %zu is no sha256 digest", i + 1);
    }
    return 0;
}

int image_config_read(const char *text, size_t len, size_t max_layers,
                      struct image_config *ret_config, struct error *err)
{
    autojson *root = image_json_parse(text, len, "the image config", err);
    with_cleanup(image_config_deinit) struct image_config config = {0};
    if (!root)
        return -1;
    if (json_type(root) != JSON_OBJECT)
        return error_set(err, ERROR_INVALID_REQUEST, "the image config is no JSON object");
    if (read_text(root, "architecture", &config.architecture, err) < 0 ||
        read_text(root, "os", &config.os, err) < 0 ||
        read_run_config(json_get(root, "config"), &config, err) < 0 ||
        read_diff_ids(json_get(root, "rootfs"), max_layers, &config, err) < 0)
        return -1;
    config.created = read_time(json_get_string(root, "created"));
    *ret_config = config;
    config = (struct image_config){0};
    return 0;
}
