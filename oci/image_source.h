/* What an image is imported from: which of the formats it is, and its members by name.
 *
 *     folder with oci-layout and index.json, or a tar of that   IMAGE_SOURCE_OCI
 *     tar with manifest.json (also when it is a layout too)     IMAGE_SOURCE_DOCKER
 *     any other tar                                             IMAGE_SOURCE_ROOTFS
 *     any other folder                                          IMAGE_SOURCE_FOLDER
 *
 * A tar is taken for an image archive as long as every entry in it could belong to one, so a root
 * file system shows by its first entries. A packed image archive is unpacked once to `scratch`, since
 * its members are read in the manifest's order. */
#pragma once

#include "base/buffer.h"
#include "oci/byte_stream.h"

#include <stdbool.h>

enum image_source_kind {
    IMAGE_SOURCE_OCI,
    IMAGE_SOURCE_DOCKER,
    IMAGE_SOURCE_ROOTFS,
    IMAGE_SOURCE_FOLDER,
};

struct image_source {
    enum image_source_kind kind;
    char *path;     /* owned; of a tar that can be read from any place, or of the folder */
    int folder;     /* owned; -1 for a tar */
    uint64_t bytes; /* of the file; 0 for a folder */
};

/* `scratch` is a folder for temporary files that the caller removes; `max_bytes` caps what a packed
 * archive unpacks to. */
int image_source_init(struct image_source *source, const char *path, const char *scratch,
                      uint64_t max_bytes, struct error *err);
void image_source_deinit(struct image_source *source);

/* IMAGE_SOURCE_ROOTFS: the whole file. */
struct byte_stream *image_source_stream(const struct image_source *source, struct error *err);
/* IMAGE_SOURCE_OCI and IMAGE_SOURCE_DOCKER: a member, found beneath the source only; links between
 * members are followed. ERROR_INVALID_REQUEST when it is not there. */
struct byte_stream *image_source_member(const struct image_source *source, const char *name,
                                        struct error *err);
/* All of a member, at most content->max bytes. */
int image_source_read(const struct image_source *source, const char *name, struct buffer *content,
                      struct error *err);
