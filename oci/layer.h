/* Applies one image layer to a root file system (OCI image-spec, layer.md).
 *
 * A layer is a tar, plain or packed with gzip or zstd. Entries are written in order through the
 * tree writer (what is in their place is replaced); ".wh.NAME" removes NAME, ".wh..wh..opq" removes
 * what lower layers put in its folder, in whichever order the layer lists them. Devices, fifos and
 * sockets are left out. Both digests are of all bytes, also of those behind the archive's end. */
#pragma once

#include "base/text.h"
#include "oci/byte_stream.h"
#include "oci/tree_writer.h"

/* "sha256:" and 64 hexadecimal digits. */
#define DIGEST_LEN (7 + SHA256_HEX_LEN)

struct layer_result {
    char digest[DIGEST_LEN + 1];  /* of the bytes as they came */
    char diff_id[DIGEST_LEN + 1]; /* of the plain tar */
    uint64_t packed_bytes;
};

/* Called now and then with the number of packed bytes read so far. */
typedef void layer_progress_fn(void *data, uint64_t packed_bytes);

struct layer_options {
    bool has_lower; /* the tree is not empty: there may be something to hide */
    /* Of the plain tar, so that what is skipped has an end too; 0: max_bytes of the writer and 4 KiB
     * for each of its max_files. */
    uint64_t max_tar_bytes;
    /* A tar that ends within its last block is completed with zeros, as some tools leave it to their
     * readers (umoci insert): only where a digest says that nothing got lost. */
    bool complete_last_block;
    layer_progress_fn *progress; /* may be NULL */
    void *progress_data;
};

/* `writer` is in the layers' manner and has the tree's root; its totals go on from layer to layer. The
 * caller compares the digests, and throws the tree away on failure. */
int layer_apply(struct byte_stream *stream, struct tree_writer *writer,
                const struct layer_options *options, struct layer_result *ret_result,
                struct error *err);
