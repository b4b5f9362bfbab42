/* See layer_reader.h. Two libarchive readers in a row: one that only unpacks (its "raw" format), one
 * that reads tar from what comes out, because the digest of the plain tar is needed in between. */
#include "oci/layer_reader.h"

#include "base/cleanup.h"
#include "oci/archive_reader.h"

#include <archive.h>
#include <archive_entry.h>
#include <string.h>

#define PROGRESS_BYTES (4u * 1024 * 1024)
#define TAR_BLOCK 512

static ssize_t next_packed(struct layer_reader *reader, const void **ret_block)
{
    ssize_t len;
    if (reader->first) {
        *ret_block = steal_pointer(&reader->first);
        len = (ssize_t)reader->first_len;
    } else {
        len = byte_stream_next(reader->source, ret_block, &reader->failure);
    }
    if (len > 0) {
        reader->packed_bytes += (uint64_t)len;
        if (reader->unpacker) /* else the digest of the plain bytes is this one too */
            sha256_update(&reader->packed_sha, *ret_block, (size_t)len);
    }
    if (reader->progress && reader->packed_bytes - reader->reported >= PROGRESS_BYTES) {
        reader->reported = reader->packed_bytes;
        reader->progress(reader->progress_data, reader->packed_bytes);
    }
    return len;
}

static ssize_t next_unpacked(struct layer_reader *reader, const void **ret_block)
{
    size_t len = 0;
    la_int64_t offset;
    for (;;) {
        int result = archive_read_data_block(reader->unpacker, ret_block, &len, &offset);
        if (result == ARCHIVE_EOF)
            return 0;
        if (result != ARCHIVE_OK) {
            if (reader->failure.code == ERROR_NONE)
                archive_reader_failed(reader->unpacker, "the layer's compression",
                                      &reader->failure);
            return -1;
        }
        if (len > 0)
            return (ssize_t)len;
    }
}

/* At the end of the plain tar: what is missing of its last block, outside of digests and counts. */
static ssize_t complete(struct layer_reader *reader, const void **ret_block)
{
    static const char zeros[TAR_BLOCK];
    size_t missing = (TAR_BLOCK - reader->plain_bytes % TAR_BLOCK) % TAR_BLOCK;
    if (!reader->complete_last_block || reader->completed)
        return 0;
    reader->completed = true;
    *ret_block = zeros;
    return (ssize_t)missing;
}

static ssize_t next_plain(struct layer_reader *reader, const void **ret_block)
{
    ssize_t len =
        reader->unpacker ? next_unpacked(reader, ret_block) : next_packed(reader, ret_block);
    if (len <= 0)
        return len < 0 ? len : complete(reader, ret_block);
    if ((uint64_t)len > reader->max_plain_bytes - reader->plain_bytes)
        return error_set(&reader->failure, ERROR_PAYLOAD_TOO_LARGE,
                         "the layer unpacks to more than %llu bytes, which is the most allowed",
                         (unsigned long long)reader->max_plain_bytes);
    reader->plain_bytes += (uint64_t)len;
    sha256_update(&reader->plain_sha, *ret_block, (size_t)len);
    return len;
}

static la_ssize_t on_packed(struct archive *archive, void *data, const void **ret_block)
{
    ssize_t len = next_packed(data, ret_block);
    if (len < 0)
        archive_set_error(archive, -1, "the source failed");
    return len;
}

static la_ssize_t on_plain(struct archive *archive, void *data, const void **ret_block)
{
    ssize_t len = next_plain(data, ret_block);
    if (len < 0)
        archive_set_error(archive, -1, "the source failed");
    return len;
}

int layer_reader_failed(const struct layer_reader *reader, struct error *err)
{
    if (reader->failure.code != ERROR_NONE && err)
        *err = reader->failure;
    return -1;
}

static bool is_packed(const void *block, size_t len)
{
    return (len >= 2 && memcmp(block, "\x1f\x8b", 2) == 0) ||
           (len >= 4 && memcmp(block, "\x28\xb5\x2f\xfd", 4) == 0);
}

static int start_unpacker(struct layer_reader *reader, struct error *err)
{
    struct archive_entry *entry;
    reader->unpacker = archive_read_new();
    if (!reader->unpacker || archive_read_support_filter_gzip(reader->unpacker) != ARCHIVE_OK ||
        archive_read_support_filter_zstd(reader->unpacker) != ARCHIVE_OK ||
        archive_read_support_format_raw(reader->unpacker) != ARCHIVE_OK ||
        archive_read_support_format_empty(reader->unpacker) != ARCHIVE_OK)
        return error_set(err, ERROR_INTERNAL, "out of memory");
    if (archive_read_open(reader->unpacker, reader, NULL, on_packed, NULL) == ARCHIVE_OK) {
        int result = archive_read_next_header(reader->unpacker, &entry);
        if (result == ARCHIVE_OK || result == ARCHIVE_EOF)
            return 0;
    }
    archive_reader_failed(reader->unpacker, "the layer's compression", err);
    return layer_reader_failed(reader, err);
}

int layer_reader_init(struct layer_reader *reader, struct byte_stream *source,
                      uint64_t max_plain_bytes, struct error *err)
{
    *reader = (struct layer_reader){.source = source, .max_plain_bytes = max_plain_bytes};
    sha256_init(&reader->packed_sha);
    sha256_init(&reader->plain_sha);
    ssize_t len = byte_stream_next(source, &reader->first, err);
    if (len < 0)
        return -1;
    if (len == 0)
        return error_set(err, ERROR_INVALID_REQUEST, "the layer is empty");
    reader->first_len = (size_t)len;
    if (is_packed(reader->first, (size_t)len) && start_unpacker(reader, err) < 0)
        return -1;
    reader->tar = archive_reader_new(ARCHIVE_READER_TAR, false);
    if (!reader->tar)
        return error_set(err, ERROR_INTERNAL, "out of memory");
    if (archive_read_open(reader->tar, reader, NULL, on_plain, NULL) == ARCHIVE_OK)
        return 0;
    archive_reader_failed(reader->tar, "the layer", err);
    return layer_reader_failed(reader, err);
}

void layer_reader_deinit(struct layer_reader *reader)
{
    archive_reader_free(&reader->tar);
    archive_reader_free(&reader->unpacker);
}

int layer_reader_drain(struct layer_reader *reader, struct error *err)
{
    const void *block;
    ssize_t len;
    while ((len = next_plain(reader, &block)) > 0)
        ;
    while (len == 0 && (len = next_packed(reader, &block)) > 0)
        len = 0;
    if (len < 0)
        return layer_reader_failed(reader, err);
    if (reader->progress)
        reader->progress(reader->progress_data, reader->packed_bytes);
    return 0;
}
