/* See image_source.h. A tar is read from its beginning for each member: its headers are few, and
 * libarchive skips data by seeking. */
#include "oci/image_source.h"

#include "base/cleanup.h"
#include "base/file.h"
#include "base/text.h"
#include "oci/archive_reader.h"

#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#define BLOCK_BYTES (256 * 1024)
/* Entries of an image archive; more are no image archive that anybody makes. */
#define MAX_MEMBERS 10000
#define MAX_LINKS 8
#define MAX_NAME 1024

/* ---- which format ---- */

/* Whether an entry of this name could be part of an image archive; only its first component counts. */
static bool is_archive_name(const char *name, size_t len)
{
    static const char *const names[] = {"oci-layout",   "index.json", "manifest.json",
                                        "repositories", "version",    "blobs"};
    for (size_t i = 0; i < ARRAY_LENGTH(names); i++) {
        if (strlen(names[i]) == len && strncmp(name, names[i], len) == 0)
            return true;
    }
    if (len == SHA256_HEX_LEN && strspn(name, "0123456789abcdef") >= len)
        return true;
    return (len > 5 && strncmp(name + len - 5, ".json", 5) == 0) ||
           (len > 4 && strncmp(name + len - 4, ".tar", 4) == 0);
}

static const char *without_dots(const char *name)
{
    while (name[0] == '.' && (name[1] == '/' || name[1] == '\0'))
        name += name[1] == '/' ? 2 + strspn(name + 2, "/") : 1;
    return name;
}

static struct archive *open_tar(const char *path, struct error *err)
{
    struct archive *reader = archive_reader_new(ARCHIVE_READER_TAR, true);
    if (!reader) {
        error_set(err, ERROR_INTERNAL, "out of memory");
        return NULL;
    }
    if (archive_read_open_filename(reader, path, BLOCK_BYTES) == ARCHIVE_OK)
        return reader;
    archive_reader_failed(reader, "the file", err);
    archive_read_free(reader);
    return NULL;
}

static int find_kind(struct image_source *source, bool *ret_packed, struct error *err)
{
    with_cleanup(archive_reader_free) struct archive *reader = open_tar(source->path, err);
    struct archive_entry *entry;
    bool has_manifest = false, has_index = false;
    int result = reader ? 0 : -1;
    source->kind = IMAGE_SOURCE_ROOTFS;
    for (int i = 0; reader && i < MAX_MEMBERS; i++) {
        result = archive_reader_next(reader, ARCHIVE_READER_TAR, &entry, err);
        if (result <= 0)
            break;
        *ret_packed = archive_filter_count(reader) > 1;
        const char *name = archive_entry_pathname(entry);
        name = without_dots(name ? name : "?");
        size_t len = strcspn(name, "/");
        if (len > 0 && !is_archive_name(name, len))
            return 0;
        has_manifest = has_manifest || strcmp(name, "manifest.json") == 0;
        has_index = has_index || strcmp(name, "index.json") == 0;
    }
    if (result < 0)
        return -1;
    if (has_manifest)
        source->kind = IMAGE_SOURCE_DOCKER;
    else if (has_index)
        source->kind = IMAGE_SOURCE_OCI;
    return 0;
}

static int write_all(int fd, const char *bytes, size_t len, struct error *err)
{
    while (len > 0) {
        ssize_t written = write(fd, bytes, len);
        if (written < 0 && errno == EINTR)
            continue;
        if (written < 0)
            return error_set_errno(err, ERROR_INTERNAL, errno, "cannot write a temporary file");
        bytes += written;
        len -= (size_t)written;
    }
    return 0;
}

static int copy_unpacked(struct archive *reader, int fd, uint64_t max_bytes, struct error *err)
{
    const void *block;
    size_t len;
    la_int64_t offset;
    uint64_t total = 0;
    for (;;) {
        int result = archive_read_data_block(reader, &block, &len, &offset);
        if (result == ARCHIVE_EOF)
            return 0;
        if (result != ARCHIVE_OK)
            return archive_reader_failed(reader, "the file's compression", err);
        total += len;
        if (total > max_bytes)
            return error_set(err, ERROR_PAYLOAD_TOO_LARGE,
                             "it unpacks to more than %llu bytes, which is the most allowed",
                             (unsigned long long)max_bytes);
        if (write_all(fd, block, len, err) < 0)
            return -1;
    }
}

/* A packed image archive becomes a plain one. */
static int unpack(struct image_source *source, const char *scratch, uint64_t max_bytes,
                  struct error *err)
{
    autofree char *path = string_printf("%s/source.tar", scratch);
    with_cleanup(archive_reader_free) struct archive *reader = archive_read_new();
    struct archive_entry *entry;
    if (!path || !reader || archive_read_support_filter_gzip(reader) != ARCHIVE_OK ||
        archive_read_support_filter_zstd(reader) != ARCHIVE_OK ||
        archive_read_support_format_raw(reader) != ARCHIVE_OK)
        return error_set(err, ERROR_INTERNAL, "out of memory");
    autoclose int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0)
        return error_set_errno(err, ERROR_INTERNAL, errno, "cannot make %s", path);
    if (archive_read_open_filename(reader, source->path, BLOCK_BYTES) != ARCHIVE_OK ||
        archive_read_next_header(reader, &entry) != ARCHIVE_OK)
        return archive_reader_failed(reader, "the file's compression", err);
    if (copy_unpacked(reader, fd, max_bytes, err) < 0)
        return -1;
    free(source->path);
    source->path = steal_pointer(&path);
    return 0;
}

static int open_tar_source(struct image_source *source, const char *scratch, uint64_t max_bytes,
                           struct error *err)
{
    bool packed = false;
    if (find_kind(source, &packed, err) < 0)
        return error_wrap(err, "%s is no image that can be imported", source->path);
    if (!packed || source->kind == IMAGE_SOURCE_ROOTFS)
        return 0;
    return unpack(source, scratch, max_bytes, err);
}

int image_source_init(struct image_source *source, const char *path, const char *scratch,
                      uint64_t max_bytes, struct error *err)
{
    struct stat status;
    *source = (struct image_source){.folder = -1, .path = strdup(path)};
    if (!source->path)
        return error_set(err, ERROR_INTERNAL, "out of memory");
    if (stat(path, &status) < 0)
        return error_set_errno(err, errno == ENOENT ? ERROR_NOT_FOUND : ERROR_INVALID_REQUEST,
                               errno, "cannot open %s", path);
    if (S_ISREG(status.st_mode)) {
        source->bytes = (uint64_t)status.st_size;
        return open_tar_source(source, scratch, max_bytes, err);
    }
    if (!S_ISDIR(status.st_mode))
        return error_set(err, ERROR_INVALID_REQUEST, "%s is neither a file nor a folder", path);
    source->folder = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (source->folder < 0)
        return error_set_errno(err, ERROR_INVALID_REQUEST, errno, "cannot open %s", path);
    bool layout = faccessat(source->folder, "oci-layout", F_OK, 0) == 0 &&
                  faccessat(source->folder, "index.json", F_OK, 0) == 0;
    source->kind = layout ? IMAGE_SOURCE_OCI : IMAGE_SOURCE_FOLDER;
    return 0;
}

void image_source_deinit(struct image_source *source)
{
    if (source->folder >= 0)
        close(source->folder);
    free(source->path);
}

struct byte_stream *image_source_stream(const struct image_source *source, struct error *err)
{
    int fd = open(source->path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        error_set_errno(err, ERROR_INVALID_REQUEST, errno, "cannot open %s", source->path);
        return NULL;
    }
    struct byte_stream *stream = byte_stream_from_fd(fd);
    if (!stream)
        error_set(err, ERROR_INTERNAL, "out of memory");
    return stream;
}

/* ---- members ---- */

static void not_found(const char *name, struct error *err)
{
    char shown[TREE_NAME_MAX];
    error_set(err, ERROR_INVALID_REQUEST, "\"%s\" is not in it", tree_name(name, shown));
}

static struct byte_stream *folder_member(const struct image_source *source, const char *name,
                                         struct error *err)
{
    struct stat status;
    char shown[TREE_NAME_MAX];
    struct byte_stream *stream = NULL;
    autoclose int fd = tree_open(source->folder, name, O_RDONLY | O_NONBLOCK,
                                 RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS);
    if (fd < 0 && errno == ENOENT)
        not_found(name, err);
    else if (fd < 0 || fstat(fd, &status) < 0)
        error_set_errno(err, ERROR_INVALID_REQUEST, errno, "cannot open \"%s\"",
                        tree_name(name, shown));
    else if (!S_ISREG(status.st_mode))
        error_set(err, ERROR_INVALID_REQUEST, "\"%s\" is no regular file", tree_name(name, shown));
    else if (!(stream = byte_stream_from_fd(steal_fd(&fd))))
        error_set(err, ERROR_INTERNAL, "out of memory");
    return stream;
}

struct member_stream {
    struct byte_stream base;
    struct archive *reader; /* owned */
    la_int64_t offset;
};

static ssize_t member_next(struct byte_stream *base, const void **ret_block, struct error *err)
{
    struct member_stream *stream = (struct member_stream *)base;
    size_t len = 0;
    la_int64_t offset;
    while (len == 0) {
        int result = archive_read_data_block(stream->reader, ret_block, &len, &offset);
        if (result == ARCHIVE_EOF)
            return 0;
        if (result != ARCHIVE_OK)
            return archive_reader_failed(stream->reader, "the file", err);
        if (len > 0 && offset != stream->offset)
            return error_set(err, ERROR_INVALID_REQUEST, "a member has holes");
    }
    stream->offset += (la_int64_t)len;
    return (ssize_t)len;
}

static void member_close(struct byte_stream *base)
{
    archive_read_free(((struct member_stream *)base)->reader);
    free(base);
}

/* "a/./b/../c" -> "a/c"; -1 when it leads out. `path` starts in the folder `from` ("" or "a/"). */
static int resolve_name(const char *from, size_t from_len, const char *path, char out[MAX_NAME])
{
    size_t used = 0;
    if (from_len + strlen(path) + 2 > MAX_NAME || path[0] == '/')
        return -1;
    char joined[2 * MAX_NAME];
    memcpy(joined, from, from_len);
    memcpy(joined + from_len, path, strlen(path) + 1);
    for (const char *at = joined; *at; at += strspn(at, "/")) {
        size_t len = strcspn(at, "/");
        if (len == 2 && strncmp(at, "..", 2) == 0) {
            if (used == 0)
                return -1;
            while (used > 0 && out[--used] != '/')
                ;
        } else if (!(len == 1 && *at == '.')) {
            if (used > 0)
                out[used++] = '/';
            memcpy(out + used, at, len);
            used += len;
        }
        at += len;
    }
    out[used] = '\0';
    return 0;
}

/* Where the entry leads when it is a link: 1 and `name` is replaced; 0 when it is a file; -1. */
static int follow(struct archive_entry *entry, char name[MAX_NAME])
{
    const char *hardlink = archive_entry_hardlink(entry);
    const char *symlink =
        archive_entry_filetype(entry) == AE_IFLNK ? archive_entry_symlink(entry) : NULL;
    char from[MAX_NAME];
    if (!hardlink && !symlink)
        return archive_entry_filetype(entry) == AE_IFREG ? 0 : -1;
    snprintf(from, sizeof(from), "%s", name);
    const char *slash = hardlink ? NULL : strrchr(from, '/');
    if (resolve_name(from, slash ? (size_t)(slash - from) + 1 : 0, hardlink ? hardlink : symlink,
                     name) < 0)
        return -1;
    return 1;
}

/* Scans for `name`: 1 found (`entry` is current in `reader`), 0 not there, -1. */
static int scan(struct archive *reader, const char *name, struct archive_entry **ret_entry,
                struct error *err)
{
    for (int i = 0; i < MAX_MEMBERS; i++) {
        int result = archive_reader_next(reader, ARCHIVE_READER_TAR, ret_entry, err);
        if (result <= 0)
            return result;
        const char *path = archive_entry_pathname(*ret_entry);
        if (path && strcmp(without_dots(path), name) == 0)
            return 1;
    }
    return 0;
}

static struct byte_stream *tar_member(const struct image_source *source, const char *wanted,
                                      struct error *err)
{
    char name[MAX_NAME];
    if (resolve_name("", 0, wanted, name) < 0 || *name == '\0') {
        not_found(wanted, err);
        return NULL;
    }
    for (int i = 0; i < MAX_LINKS; i++) {
        struct archive_entry *entry;
        with_cleanup(archive_reader_free) struct archive *reader = open_tar(source->path, err);
        int result = reader ? scan(reader, name, &entry, err) : -1;
        if (result < 0)
            return NULL;
        result = result == 0 ? -1 : follow(entry, name);
        if (result < 0)
            break;
        if (result > 0)
            continue;
        struct member_stream *stream = malloc(sizeof(*stream));
        if (!stream) {
            error_set(err, ERROR_INTERNAL, "out of memory");
            return NULL;
        }
        *stream = (struct member_stream){.base = {.next = member_next, .close = member_close},
                                         .reader = steal_pointer(&reader)};
        return &stream->base;
    }
    not_found(wanted, err);
    return NULL;
}

struct byte_stream *image_source_member(const struct image_source *source, const char *name,
                                        struct error *err)
{
    return source->folder >= 0 ? folder_member(source, name, err) : tar_member(source, name, err);
}

int image_source_read(const struct image_source *source, const char *name, struct buffer *content,
                      struct error *err)
{
    char shown[TREE_NAME_MAX];
    with_cleanup(byte_stream_close) struct byte_stream *stream =
        image_source_member(source, name, err);
    const void *block;
    ssize_t len;
    if (!stream)
        return -1;
    while ((len = byte_stream_next(stream, &block, err)) > 0) {
        if (buffer_append(content, block, (size_t)len, err) < 0)
            return error_wrap(err, "\"%s\"", tree_name(name, shown));
    }
    return len < 0 ? error_wrap(err, "\"%s\"", tree_name(name, shown)) : 0;
}
