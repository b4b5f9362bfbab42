/* The bytes of a layer on their way from its source to the tar reader: hashed as they come, unpacked
 * when they are gzip or zstd, hashed again, and capped. */
#pragma once

#include "base/text.h"
#include "oci/byte_stream.h"

#include <stdbool.h>

struct archive;

struct layer_reader {
    struct byte_stream *source; /* borrowed */
    void (*progress)(void *data, uint64_t packed_bytes);
    void *progress_data;
    uint64_t reported;

    struct sha256 packed_sha, plain_sha;
    uint64_t packed_bytes, plain_bytes, max_plain_bytes;
    bool complete_last_block, completed; /* see layer_options */
    const void *first;                   /* the block that was read to see the format */
    size_t first_len;

    struct archive *unpacker; /* owned; NULL when the bytes are plain */
    struct archive *tar;      /* owned; what entries are read from */
    struct error failure;     /* of the source or a cap; code ERROR_NONE while there is none */
};

int layer_reader_init(struct layer_reader *reader, struct byte_stream *source,
                      uint64_t max_plain_bytes, struct error *err);
void layer_reader_deinit(struct layer_reader *reader);
/* Reads whatever is behind the tar's end. */
int layer_reader_drain(struct layer_reader *reader, struct error *err);
/* -1; when libarchive failed only because the source did, `err` becomes the source's error. */
int layer_reader_failed(const struct layer_reader *reader, struct error *err);
