/* Which image to take when a source holds several: platform first, then the reference that was asked
 * for, then the name under which it is imported; never a guess. */
#include "oci/image_json.h"

#include "base/cleanup.h"

#include <stdio.h>
#include <string.h>

/* Of choices named in an error. */
#define CHOICES_TEXT 400

static void add_choice(char text[CHOICES_TEXT], const char *choice)
{
    char shown[TREE_NAME_MAX];
    size_t used = strlen(text);
    snprintf(text + used, CHOICES_TEXT - used, "%s%s", used ? ", " : "", tree_name(choice, shown));
}

/* "a/b:1" is called "a/b:1", or "<host>/a/b:1". */
static bool is_called(const char *reference, const char *name)
{
    size_t reference_len = strlen(reference), name_len = strlen(name);
    if (reference_len < name_len || strcmp(reference + reference_len - name_len, name) != 0)
        return false;
    return reference_len == name_len || reference[reference_len - name_len - 1] == '/';
}

static const char *tag_of(const char *name)
{
    const char *colon = strrchr(name, ':');
    return colon ? colon + 1 : name;
}

/* ---- image index ---- */

static const char *annotation(const struct json *entry, const char *key)
{
    return image_json_string(json_get(json_get(entry, "annotations"), key));
}

/* A build's attestation is stored as if it were an image. */
static bool is_for_this_machine(const struct json *entry)
{
    const struct json *platform = json_get(entry, "platform");
    const char *os = json_get_string(platform, "os");
    const char *architecture = json_get_string(platform, "architecture");
    if (annotation(entry, "vnd.docker.reference.type"))
        return false;
    return (!os || !*os || strcmp(os, "linux") == 0) &&
           (!architecture || !*architecture ||
            strcmp(architecture, image_machine_architecture()) == 0);
}

static bool has_reference(const struct json *entry, const char *reference)
{
    const char *ref = annotation(entry, "org.opencontainers.image.ref.name");
    const char *full = annotation(entry, "io.containerd.image.name");
    const char *digest = json_get_string(entry, "digest");
    return (ref && strcmp(ref, reference) == 0) || (full && strcmp(full, reference) == 0) ||
           (digest && strcmp(digest, reference) == 0);
}

static bool has_name(const struct json *entry, const char *name)
{
    const char *ref = annotation(entry, "org.opencontainers.image.ref.name");
    const char *full = annotation(entry, "io.containerd.image.name");
    return (ref && (is_called(ref, name) || strcmp(ref, tag_of(name)) == 0)) ||
           (full && is_called(full, name));
}

static void describe_entry(const struct json *entry, char text[CHOICES_TEXT])
{
    const char *ref = annotation(entry, "io.containerd.image.name");
    if (!ref)
        ref = annotation(entry, "org.opencontainers.image.ref.name");
    const char *architecture = json_get_string(json_get(entry, "platform"), "architecture");
    const char *os = json_get_string(json_get(entry, "platform"), "os");
    char platform[128], label[384];
    snprintf(platform, sizeof(platform), "%.60s/%.60s", os ? os : "?",
             architecture ? architecture : "?");
    snprintf(label, sizeof(label), "%.250s%s%s%s", ref ? ref : json_get_string(entry, "digest") ?: "?",
             architecture ? " (" : "", architecture ? platform : "", architecture ? ")" : "");
    add_choice(text, label);
}

enum filter { FILTER_PLATFORM, FILTER_REFERENCE, FILTER_NAME };

static bool passes(const struct json *entry, enum filter filter, const struct image_choice *choice)
{
    if (!is_for_this_machine(entry))
        return false;
    if (filter == FILTER_REFERENCE)
        return has_reference(entry, choice->reference);
    return filter == FILTER_PLATFORM || has_name(entry, choice->name);
}

/* How many different images pass; *ret_entry is the first. */
static size_t count_passing(const struct json *entries, enum filter filter,
                            const struct image_choice *choice, const struct json **ret_entry)
{
    size_t count = 0;
    const char *first = NULL;
    json_foreach (i, entry, entries) {
        const char *digest = json_get_string(entry, "digest");
        if (!digest || !passes(entry, filter, choice))
            continue;
        if (!first)
            *ret_entry = entry;
        if (!first || strcmp(first, digest) != 0)
            count++;
        if (!first)
            first = digest;
    }
    return count;
}

static int refuse_index(const struct json *entries, const struct image_choice *choice,
                        size_t fitting, struct error *err)
{
    char text[CHOICES_TEXT] = "", reference[TREE_NAME_MAX];
    json_foreach (i, entry, entries) {
        describe_entry(entry, text);
    }
    if (choice->reference)
        return error_set(
            err, ERROR_INVALID_REQUEST, "there %s called \"%s\" for linux/%s; there is: %s",
            fitting ? "are several images" : "is no image", tree_name(choice->reference, reference),
            image_machine_architecture(), *text ? text : "nothing");
    if (fitting == 0)
        return error_set(err, ERROR_INVALID_REQUEST, "there is no image for linux/%s; there is: %s",
                         image_machine_architecture(), *text ? text : "nothing");
    return error_set(err, ERROR_INVALID_REQUEST,
                     "there are several images; say which one by its reference: %s", text);
}

int image_index_choose(const char *text, size_t len, const struct image_choice *choice,
                       struct image_descriptor *ret_descriptor, struct error *err)
{
    autojson *root = image_json_parse(text, len, "the image index", err);
    const struct json *entry = NULL;
    if (!root)
        return -1;
    const struct json *entries = json_get(root, "manifests");
    if (!entries || json_type(entries) != JSON_ARRAY)
        return error_set(err, ERROR_INVALID_REQUEST, "the image index has no list of manifests");
    enum filter filter = choice->reference ? FILTER_REFERENCE : FILTER_PLATFORM;
    size_t fitting = count_passing(entries, filter, choice, &entry);
    if (fitting > 1 && !choice->reference && choice->name) {
        size_t called = count_passing(entries, FILTER_NAME, choice, &entry);
        fitting = called ? called : fitting;
    }
    if (fitting != 1)
        return refuse_index(entries, choice, fitting, err);
    return image_json_descriptor(entry, "the index's entry", ret_descriptor, err);
}

/* ---- docker's manifest.json ---- */

void docker_manifest_deinit(struct docker_manifest *manifest)
{
    free(manifest->config);
    image_strings_free(manifest->layers);
    *manifest = (struct docker_manifest){0};
}

static bool has_tag(const struct json *image, const struct image_choice *choice)
{
    json_foreach (i, value, json_get(image, "RepoTags")) {
        const char *tag = image_json_string(value);
        if (!tag)
            continue;
        if (choice->reference ? strcmp(tag, choice->reference) == 0
                              : choice->name && is_called(tag, choice->name))
            return true;
    }
    return false;
}

static const struct json *find_tagged(const struct json *root, const struct image_choice *choice,
                                      size_t *ret_count)
{
    const struct json *found = NULL;
    *ret_count = 0;
    json_foreach (i, image, root) {
        if (has_tag(image, choice)) {
            found = image;
            ++*ret_count;
        }
    }
    return found;
}

static int refuse_tags(const struct json *root, const struct image_choice *choice,
                       struct error *err)
{
    char text[CHOICES_TEXT] = "", reference[TREE_NAME_MAX];
    json_foreach (i, image, root) {
        json_foreach (j, tag, json_get(image, "RepoTags")) {
            add_choice(text, image_json_string(tag) ?: "?");
        }
    }
    if (choice->reference)
        return error_set(
            err, ERROR_INVALID_REQUEST, "there is no image called \"%s\"; there is: %s",
            tree_name(choice->reference, reference), *text ? text : "one without name");
    return error_set(err, ERROR_INVALID_REQUEST,
                     "there are %zu images; say which one by its reference: %s", json_count(root),
                     *text ? text : "(they have no names)");
}

static int read_docker_image(const struct json *image, size_t max_layers,
                             struct docker_manifest *manifest, struct error *err)
{
    const char *config = image_json_string(json_get(image, "Config"));
    const struct json *layers = json_get(image, "Layers");
    if (!config || !*config)
        return error_set(err, ERROR_INVALID_REQUEST, "manifest.json: the image has no \"Config\"");
    if (json_count(layers) > max_layers)
        return error_set(err, ERROR_PAYLOAD_TOO_LARGE,
                         "the image has %zu layers; %zu are the most allowed", json_count(layers),
                         max_layers);
    manifest->config = strdup(config);
    manifest->layer_count = json_count(layers);
    if (!manifest->config)
        return error_set(err, ERROR_INTERNAL, "out of memory");
    return image_json_strings(layers, "manifest.json: \"Layers\"", &manifest->layers, err);
}

int docker_manifest_choose(const char *text, size_t len, const struct image_choice *choice,
                           size_t max_layers, struct docker_manifest *ret_manifest,
                           struct error *err)
{
    autojson *root = image_json_parse(text, len, "manifest.json", err);
    with_cleanup(docker_manifest_deinit) struct docker_manifest manifest = {0};
    if (!root)
        return -1;
    if (json_type(root) != JSON_ARRAY || json_count(root) == 0)
        return error_set(err, ERROR_INVALID_REQUEST, "manifest.json is no list of images");
    size_t fitting;
    const struct json *image = find_tagged(root, choice, &fitting);
    if (!choice->reference && json_count(root) == 1)
        image = json_at(root, 0);
    else if (fitting != 1)
        return refuse_tags(root, choice, err);
    if (read_docker_image(image, max_layers, &manifest, err) < 0)
        return -1;
    *ret_manifest = manifest;
    manifest = (struct docker_manifest){0};
    return 0;
}
