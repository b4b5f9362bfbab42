/* OCI layouts and docker archives made by hand, for tests of the image store. */
#pragma once

#include "archive_maker.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "base/text.h"
#include "oci/image_manifest.h"

#include <stdlib.h>

/* One image on its way into a layout folder. */
struct made_image {
    const char *layout; /* the folder */
    char diff_ids[8][DIGEST_LEN + 1];
    char digests[8][DIGEST_LEN + 1];
    size_t sizes[8];
    size_t layer_count;
    const char *run_config;   /* JSON of the config's "config"; NULL: {} */
    const char *architecture; /* NULL: this machine's */
    char config[DIGEST_LEN + 1];
    char manifest[DIGEST_LEN + 1];
    size_t manifest_len;
};

static inline void write_text(const char *text, size_t len, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
static inline void write_text(const char *text, size_t len, const char *format, ...)
{
    char path[512];
    struct error err = {0};
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(path, sizeof(path), format, arguments);
    va_end(arguments);
    cr_assert_eq(write_file_atomic(path, text, len, 0644, false, &err), 0, "%s", err.message);
}

static inline void make_layout(const char *layout)
{
    autofree char *blobs = string_printf("%s/blobs/sha256", layout);
    cr_assert_eq(make_directories(blobs, 0755, NULL), 0);
    write_text("{\"imageLayoutVersion\":\"1.0.0\"}", 30, "%s/oci-layout", layout);
}

static inline void add_blob(const char *layout, const void *bytes, size_t len,
                            char digest[DIGEST_LEN + 1])
{
    strcpy(digest, "sha256:");
    sha256_hex(bytes, len, digest + 7);
    write_text(bytes, len, "%s/blobs/sha256/%s", layout, digest + 7);
}

/* `tar` is finished here, and emptied for the next layer. */
static inline void add_layer(struct made_image *image, struct buffer *tar, bool packed)
{
    struct buffer gz = BUFFER_INIT(ARCHIVE_MAX);
    size_t i = image->layer_count++;
    tar_end(tar);
    if (packed)
        gzip(&gz, tar);
    const struct buffer *bytes = packed ? &gz : tar;
    strcpy(image->diff_ids[i], "sha256:");
    sha256_hex(tar->data, tar->len, image->diff_ids[i] + 7);
    add_blob(image->layout, bytes->data, bytes->len, image->digests[i]);
    image->sizes[i] = bytes->len;
    buffer_deinit(&gz);
    buffer_clear(tar);
}

static inline void config_json(const struct made_image *image, struct buffer *out)
{
    buffer_printf(out, NULL, "{\"architecture\":\"%s\",\"os\":\"linux\",\"config\":%s,",
                  image->architecture ? image->architecture : image_machine_architecture(),
                  image->run_config ? image->run_config : "{}");
    buffer_append_string(out,
                         "\"created\":\"2024-01-02T03:04:05Z\",\"rootfs\":{\"type\":\"layers\","
                         "\"diff_ids\":[",
                         NULL);
    for (size_t i = 0; i < image->layer_count; i++)
        buffer_printf(out, NULL, "%s\"%s\"", i ? "," : "", image->diff_ids[i]);
    buffer_append_string(out, "]}}", NULL);
}

/* Config and manifest; the image can then be listed in an index. */
static inline void finish_image(struct made_image *image)
{
    struct buffer config = BUFFER_INIT(1 << 20), manifest = BUFFER_INIT(1 << 20);
    config_json(image, &config);
    add_blob(image->layout, config.data, config.len, image->config);
    buffer_printf(&manifest, NULL,
                  "{\"schemaVersion\":2,\"config\":{\"digest\":\"%s\",\"size\":%zu},\"layers\":[",
                  image->config, config.len);
    for (size_t i = 0; i < image->layer_count; i++)
        buffer_printf(&manifest, NULL, "%s{\"digest\":\"%s\",\"size\":%zu}", i ? "," : "",
                      image->digests[i], image->sizes[i]);
    buffer_append_string(&manifest, "]}", NULL);
    add_blob(image->layout, manifest.data, manifest.len, image->manifest);
    image->manifest_len = manifest.len;
    buffer_deinit(&config);
    buffer_deinit(&manifest);
}

/* index.json of entries; `names` are reference names, NULL for none. */
static inline void write_index(const char *layout, const struct made_image *const *images,
                               const char *const *names, size_t count)
{
    struct buffer index = BUFFER_INIT(1 << 20);
    buffer_append_string(&index, "{\"schemaVersion\":2,\"manifests\":[", NULL);
    for (size_t i = 0; i < count; i++) {
        buffer_printf(&index, NULL,
                      "%s{\"digest\":\"%s\",\"size\":%zu,\"platform\":{\"os\":\"linux\","
                      "\"architecture\":\"%s\"}",
                      i ? "," : "", images[i]->manifest, images[i]->manifest_len,
                      images[i]->architecture ? images[i]->architecture
                                              : image_machine_architecture());
        if (names[i])
            buffer_printf(&index, NULL,
                          ",\"annotations\":{\"org.opencontainers.image.ref.name\":\"%s\"}",
                          names[i]);
        buffer_append_string(&index, "}", NULL);
    }
    buffer_append_string(&index, "]}", NULL);
    write_text(index.data, index.len, "%s/index.json", layout);
    buffer_deinit(&index);
}
