/* The JSON documents of images, the store's own index among them, and their names. The first byte says which reader. */
#include "oci/image_manifest.h"

#include "base/cleanup.h"
#include "oci/image_records.h"
#include "oci/image_store.h"
#include "scratch.h"

#include <sys/stat.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const struct image_choice choices[] = {{0}, {.name = "a:latest"}, {.reference = "latest"}};

static int read_manifest(const char *text, size_t len, struct error *err)
{
    struct image_manifest manifest = {0};
    int result = image_manifest_read(text, len, 8, &manifest, err);
    if (result == 0 && manifest.layer_count > 8)
        abort();
    for (size_t i = 0; result == 0 && i < manifest.layer_count; i++) {
        if (!image_digest_valid(manifest.layers[i].digest) || manifest.layers[i].size < 0)
            abort();
    }
    image_manifest_deinit(&manifest);
    return result;
}

static int read_config(const char *text, size_t len, struct error *err)
{
    struct image_config config = {0};
    int result = image_config_read(text, len, 8, &config, err);
    if (result == 0 && (config.diff_id_count > 8 || !config.env || !config.user))
        abort();
    for (size_t i = 0; result == 0 && i < config.diff_id_count; i++) {
        if (!image_digest_valid(config.diff_ids[i]))
            abort();
    }
    image_config_deinit(&config);
    return result;
}

static int choose(const char *text, size_t len, unsigned kind, struct error *err)
{
    const struct image_choice *choice = &choices[kind % 3];
    struct image_descriptor descriptor;
    struct docker_manifest manifest = {0};
    if (kind < 3) {
        int result = image_index_choose(text, len, choice, &descriptor, err);
        if (result == 0 && !image_digest_valid(descriptor.digest))
            abort();
        return result;
    }
    int result = docker_manifest_choose(text, len, choice, 8, &manifest, err);
    if (result == 0 && (!manifest.config || !manifest.layers))
        abort();
    docker_manifest_deinit(&manifest);
    return result;
}

/* What was read can be written, and is then read as the same. */
static int read_records(const char *text, size_t len, struct error *err)
{
    with_cleanup(image_records_deinit) struct image_records records = {0}, again = {0};
    char path[128];
    snprintf(path, sizeof(path), "%s/index.json", scratch_folder());
    if (write_file_atomic(path, text, len, 0644, false, NULL) < 0)
        abort();
    if (image_records_load(path, &records, err) < 0)
        return -1;
    if (image_records_save(path, &records, NULL) < 0 ||
        image_records_load(path, &again, NULL) < 0 || again.count != records.count)
        abort();
    for (size_t i = 0; i < again.count; i++)
        if (strcmp(again.items[i].name, records.items[i].name) != 0 ||
            again.items[i].chain_count != records.items[i].chain_count)
            abort();
    return 0;
}

/* A name that was put right is right, and no path leads out of a folder by it. */
static int read_name(const char *text, size_t len, struct error *err)
{
    char name[IMAGE_NAME_MAX + 1], again[IMAGE_NAME_MAX + 1];
    autofree char *copy = strndup(text, len);
    if (!copy || image_name_normalise(copy, name, err) < 0)
        return copy ? -1 : 0;
    if (image_name_normalise(name, again, NULL) < 0 || strcmp(name, again) != 0 || name[0] == '/' ||
        strstr(name, "../") || !strchr(name, ':'))
        abort();
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct error err = {0};
    int result;
    if (size == 0)
        return 0;
    unsigned kind = data[0] % 8;
    const char *text = (const char *)data + 1;
    if (data[0] & 8)
        result = (kind & 1 ? read_name : read_records)(text, size - 1, &err);
    else if (kind < 6)
        result = choose(text, size - 1, kind, &err);
    else
        result = (kind == 6 ? read_manifest : read_config)(text, size - 1, &err);
    if (result < 0 && err.code == ERROR_NONE)
        abort();
    return 0;
}
