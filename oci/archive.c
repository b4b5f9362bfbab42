/* Unpacking code archives: which kind the bytes are, and all or nothing into a folder. What an
 * archive may hold is decided in archive_reader.c and tree_writer.c. */
#include "oci/archive.h"

#include "base/cleanup.h"
#include "base/file.h"
#include "base/text.h"
#include "oci/archive_reader.h"

#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#define DEFAULT_PACKED_BYTES (64ull * 1024 * 1024)
#define DEFAULT_UNPACKED_BYTES (512ull * 1024 * 1024)
#define DEFAULT_FILES 65536
#define DEFAULT_PATH_BYTES 1024
#define DEFAULT_DEPTH 64

/* ---- which kind ---- */

struct signature {
    enum archive_kind kind;
    size_t len;
    const char *bytes;
};

static const struct signature signatures[] = {
    {ARCHIVE_KIND_ZIP, 4, "PK\3\4"},
    {ARCHIVE_KIND_ZIP, 4, "PK\5\6"}, /* with nothing in it */
    {ARCHIVE_KIND_TAR_GZIP, 3, "\x1f\x8b\x08"},
    {ARCHIVE_KIND_TAR_ZSTD, 4, "\x28\xb5\x2f\xfd"},
    {ARCHIVE_KIND_UNSUPPORTED, 10, "BZh91AY&SY"},
    {ARCHIVE_KIND_UNSUPPORTED, 6,
     "\xfd"
     "7zXZ\0"},
    {ARCHIVE_KIND_UNSUPPORTED, 6, "7z\xbc\xaf\x27\x1c"},
    {ARCHIVE_KIND_UNSUPPORTED, 6, "Rar!\x1a\7"},
};

/* A number of a tar header: octal digits between blanks. -1: none. */
static long octal(const unsigned char *field, size_t len)
{
    long number = -1;
    size_t i = 0;
    while (i < len && field[i] == ' ')
        i++;
    for (; i < len && field[i] >= '0' && field[i] <= '7'; i++)
        number = (number < 0 ? 0 : number) * 8 + (field[i] - '0');
    return number;
}

/* The header's checksum is right (POSIX ustar and its forerunners), or it is the end of an archive
 * with nothing in it. */
static bool is_tar(const unsigned char *bytes, size_t len)
{
    if (len < 512)
        return false;
    long sum = 0, signed_sum = 0;
    bool zeros = true;
    for (size_t i = 0; i < 512; i++) {
        bool in_checksum = i >= 148 && i < 156;
        sum += in_checksum ? ' ' : bytes[i];
        signed_sum += in_checksum ? ' ' : (signed char)bytes[i];
        zeros = zeros && bytes[i] == 0;
    }
    long stated = octal(bytes + 148, 8);
    return zeros || (bytes[0] != 0 && stated >= 0 && (stated == sum || stated == signed_sum));
}

enum archive_kind archive_detect(const void *bytes, size_t len)
{
    for (size_t i = 0; i < ARRAY_LENGTH(signatures); i++) {
        if (len >= signatures[i].len && memcmp(bytes, signatures[i].bytes, signatures[i].len) == 0)
            return signatures[i].kind;
    }
    return is_tar(bytes, len) ? ARCHIVE_KIND_TAR : ARCHIVE_KIND_FILE;
}

const char *archive_kind_name(enum archive_kind kind)
{
    static const char *const names[] = {
        [ARCHIVE_KIND_FILE] = "file",        [ARCHIVE_KIND_ZIP] = "zip",
        [ARCHIVE_KIND_TAR] = "tar",          [ARCHIVE_KIND_TAR_GZIP] = "tar.gz",
        [ARCHIVE_KIND_TAR_ZSTD] = "tar.zst", [ARCHIVE_KIND_UNSUPPORTED] = "unsupported archive",
    };
    return names[kind];
}

/* ---- a folder that appears complete or not at all ---- */

/* An unfinished folder beside its final place. */
struct staging {
    int parent;       /* owned */
    char *name;       /* owned; of the unfinished folder */
    const char *base; /* borrowed; its final name */
    int fd;           /* owned */
};

static int staging_init(struct staging *staging, const char *destination, struct error *err)
{
    char id[RANDOM_ID_LEN + 1];
    const char *slash = strrchr(destination, '/');
    staging->base = slash ? slash + 1 : destination;
    if (*staging->base == '\0')
        return error_set(err, ERROR_INVALID_REQUEST, "\"%s\" names no folder", destination);
    autofree char *folder =
        !slash ? strdup(".")
               : strndup(destination, slash == destination ? 1 : (size_t)(slash - destination));
    random_id(id);
    staging->name = string_printf(".unpack-%s", id);
    if (!folder || !staging->name)
        return error_set(err, ERROR_INTERNAL, "out of memory");
    staging->parent = open(folder, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (staging->parent < 0)
        return error_set_errno(err, ERROR_INTERNAL, errno, "cannot open %s", folder);
    if (mkdirat(staging->parent, staging->name, 0700) < 0)
        return error_set_errno(err, ERROR_INTERNAL, errno, "cannot make a folder in %s", folder);
    staging->fd =
        openat(staging->parent, staging->name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (staging->fd < 0)
        return error_set_errno(err, ERROR_INTERNAL, errno, "cannot open a folder in %s", folder);
    return 0;
}

/* Removes it unless it was finished. */
static void staging_deinit(struct staging *staging)
{
    if (staging->fd >= 0)
        close(staging->fd);
    if (staging->parent >= 0 && staging->name)
        remove_tree_at(staging->parent, staging->name, NULL);
    if (staging->parent >= 0)
        close(staging->parent);
    free(staging->name);
}

static int staging_finish(struct staging *staging, struct error *err)
{
    if (fchmod(staging->fd, 0755) < 0)
        return error_set_errno(err, ERROR_INTERNAL, errno, "cannot set a folder's mode");
    if (renameat2(staging->parent, staging->name, staging->parent, staging->base,
                  RENAME_NOREPLACE) < 0) {
        if (errno == EEXIST)
            return error_set(err, ERROR_CONFLICT, "%s exists already", staging->base);
        return error_set_errno(err, ERROR_INTERNAL, errno, "cannot rename to %s", staging->base);
    }
    free(steal_pointer(&staging->name));
    return 0;
}

/* ---- unpacking ---- */

static uint64_t limit(uint64_t given, uint64_t otherwise)
{
    return given ? given : otherwise;
}

static struct tree_writer_limits writer_limits(const struct archive_limits *limits)
{
    return (struct tree_writer_limits){
        .max_bytes = limit(limits->max_unpacked_bytes, DEFAULT_UNPACKED_BYTES),
        .max_files = limit(limits->max_files, DEFAULT_FILES),
        .max_path_bytes = limit(limits->max_path_bytes, DEFAULT_PATH_BYTES),
        .max_depth = limit(limits->max_depth, DEFAULT_DEPTH),
    };
}

static int check_kind(enum archive_kind kind, size_t len, const struct archive_limits *limits,
                      struct error *err)
{
    uint64_t max = limit(limits->max_packed_bytes, DEFAULT_PACKED_BYTES);
    if (len > max)
        return error_set(err, ERROR_PAYLOAD_TOO_LARGE,
                         "the archive has %zu bytes; %llu is the most allowed", len,
                         (unsigned long long)max);
    if (kind == ARCHIVE_KIND_FILE)
        return error_set(err, ERROR_INVALID_REQUEST,
                         "this is no archive; a zip, tar or tar.gz would be");
    if (kind == ARCHIVE_KIND_UNSUPPORTED)
        return error_set(err, ERROR_INVALID_REQUEST,
                         "this kind of archive is not supported; use zip, tar or tar.gz");
    return 0;
}

static int extract_entry(struct archive *reader, struct archive_entry *entry,
                         struct tree_writer *writer, struct error *err)
{
    autofree char *path = NULL;
    const char *raw = archive_entry_pathname(entry);
    if (!raw || !*raw)
        return error_set(err, ERROR_INVALID_REQUEST, "the archive has an entry without a name");
    if (tree_writer_normalise(writer, raw, &path, err) < 0)
        return -1;
    return archive_reader_write(reader, entry, path, writer, err);
}

static int extract_entries(const void *bytes, size_t len, enum archive_kind kind,
                           struct tree_writer *writer, struct error *err)
{
    enum archive_reader_format format =
        kind == ARCHIVE_KIND_ZIP ? ARCHIVE_READER_ZIP : ARCHIVE_READER_TAR;
    with_archive_locale(format);
    with_cleanup(archive_reader_free) struct archive *reader =
        archive_reader_new(format, kind == ARCHIVE_KIND_TAR_GZIP || kind == ARCHIVE_KIND_TAR_ZSTD);
    if (!reader)
        return error_set(err, ERROR_INTERNAL, "out of memory");
    if (archive_read_open_memory(reader, bytes, len) != ARCHIVE_OK)
        return archive_reader_failed(reader, "the archive", err);
    struct archive_entry *entry;
    int result;
    while ((result = archive_reader_next(reader, format, &entry, err)) > 0) {
        if (extract_entry(reader, entry, writer, err) < 0)
            return -1;
    }
    if (result < 0)
        return -1;
    if (writer->files == 0)
        return error_set(err, ERROR_INVALID_REQUEST, "the archive is empty");
    return tree_writer_finish(writer, err);
}

int archive_extract(const void *bytes, size_t len, const char *destination,
                    const struct archive_limits *limits, struct archive_totals *ret_totals,
                    struct error *err)
{
    static const struct archive_limits defaults;
    enum archive_kind kind = archive_detect(bytes, len);
    if (check_kind(kind, len, limits ? limits : &defaults, err) < 0)
        return -1;
    with_cleanup(staging_deinit) struct staging staging = {.parent = -1, .fd = -1};
    if (staging_init(&staging, destination, err) < 0)
        return -1;
    const struct tree_writer_limits caps = writer_limits(limits ? limits : &defaults);
    with_cleanup(tree_writer_deinit) struct tree_writer writer;
    tree_writer_init(&writer, staging.fd, TREE_WRITER_ARCHIVE, &caps);
    if (extract_entries(bytes, len, kind, &writer, err) < 0 || staging_finish(&staging, err) < 0)
        return -1;
    if (ret_totals)
        *ret_totals = (struct archive_totals){.bytes = writer.bytes, .files = writer.files};
    return 0;
}

int archive_extract_file(const void *bytes, size_t len, const char *name, bool executable,
                         const char *destination, struct error *err)
{
    const struct timespec now = {.tv_nsec = UTIME_NOW};
    static const struct archive_limits defaults;
    if (*name == '\0' || strchr(name, '/') || strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
        return error_set(err, ERROR_INVALID_REQUEST, "\"%s\" is no file name", name);
    with_cleanup(staging_deinit) struct staging staging = {.parent = -1, .fd = -1};
    if (staging_init(&staging, destination, err) < 0)
        return -1;
    const struct tree_writer_limits caps = writer_limits(&defaults);
    with_cleanup(tree_writer_deinit) struct tree_writer writer;
    tree_writer_init(&writer, staging.fd, TREE_WRITER_ARCHIVE, &caps);
    if (tree_writer_file_begin(&writer, name, executable ? 0755 : 0644, now, err) < 0 ||
        tree_writer_file_write(&writer, bytes, len, 0, err) < 0 ||
        tree_writer_file_end(&writer, 0, err) < 0)
        return -1;
    return staging_finish(&staging, err);
}
