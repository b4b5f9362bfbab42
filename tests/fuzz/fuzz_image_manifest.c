/* The JSON documents of images. The first byte says which reader. */
#include "oci/image_manifest.h"

#include <stdlib.h>
#include <string.h>

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

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct error err = {0};
    int result;
    if (size == 0)
        return 0;
    unsigned kind = data[0] % 8;
    const char *text = (const char *)data + 1;
    if (kind < 6)
        result = choose(text, size - 1, kind, &err);
    else
        result = (kind == 6 ? read_manifest : read_config)(text, size - 1, &err);
    if (result < 0 && err.code == ERROR_NONE)
        abort();
    return 0;
}
