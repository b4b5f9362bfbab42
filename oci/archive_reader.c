/* Reading tar and zip through libarchive: see archive_reader.h. */
#include "oci/archive_reader.h"

#include "base/cleanup.h"

#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <sys/stat.h>

static pthread_once_t locales_once = PTHREAD_ONCE_INIT;
static locale_t bytes_locale, utf8_locale;

static void make_locales(void)
{
    bytes_locale = newlocale(LC_ALL_MASK, "C", (locale_t)0);
    utf8_locale = newlocale(LC_ALL_MASK, "C.UTF-8", (locale_t)0);
    if (!utf8_locale)
        utf8_locale = bytes_locale; /* then names beyond ASCII in zips are refused */
}

void archive_locale_enter(enum archive_reader_format format, locale_t *ret_previous)
{
    pthread_once(&locales_once, make_locales);
    *ret_previous = uselocale(format == ARCHIVE_READER_ZIP ? utf8_locale : bytes_locale);
}

void archive_locale_leave(const locale_t *previous)
{
    uselocale(*previous);
}

struct archive *archive_reader_new(enum archive_reader_format format, bool filters)
{
    struct archive *reader = archive_read_new();
    if (!reader)
        return NULL;
    int result = ARCHIVE_OK;
    if (filters) {
        result |= archive_read_support_filter_gzip(reader);
        result |= archive_read_support_filter_zstd(reader);
    }
    if (format == ARCHIVE_READER_ZIP) {
        result |= archive_read_support_format_zip_seekable(reader);
    } else {
        result |= archive_read_support_format_tar(reader);
    }
    if (result == ARCHIVE_OK)
        return reader;
    archive_read_free(reader);
    return NULL;
}

void archive_reader_free(struct archive *const *reader)
{
    if (*reader)
        archive_read_free(*reader);
}

int archive_reader_failed(struct archive *reader, const char *what, struct error *err)
{
    char words[TREE_NAME_MAX];
    const char *said = archive_error_string(reader);
    if (archive_errno(reader) == ENOMEM)
        return error_set(err, ERROR_INTERNAL, "out of memory while reading %s", what);
    return error_set(err, ERROR_INVALID_REQUEST, "%s is damaged or of another format: %s", what,
                     tree_name(said ? said : "no further details", words));
}

int archive_reader_next(struct archive *reader, enum archive_reader_format format,
                        struct archive_entry **ret_entry, struct error *err)
{
    int result = archive_read_next_header(reader, ret_entry);
    if (result == ARCHIVE_EOF)
        return 0;
    /* Tar's warnings are about attributes that are not used here, and about names that are not
     * ASCII; zip's are about headers that contradict each other. */
    if (result == ARCHIVE_OK || (result == ARCHIVE_WARN && format == ARCHIVE_READER_TAR))
        return 1;
    return archive_reader_failed(reader, "the archive", err);
}

static int write_data(struct archive *reader, struct archive_entry *entry,
                      struct tree_writer *writer, struct error *err)
{
    const void *data;
    size_t len;
    la_int64_t offset;
    for (;;) {
        int result = archive_read_data_block(reader, &data, &len, &offset);
        if (result == ARCHIVE_EOF)
            break;
        if (result != ARCHIVE_OK) /* a warning is a wrong size or checksum */
            return archive_reader_failed(reader, "an entry's data", err);
        if (len > 0 && tree_writer_file_write(writer, data, len, (uint64_t)offset, err) < 0)
            return -1;
    }
    bool sparse = archive_entry_sparse_count(entry) > 0;
    la_int64_t size = archive_entry_size(entry);
    return tree_writer_file_end(writer, sparse && size > 0 ? (uint64_t)size : 0, err);
}

/* Only the bits that mean something in a tree that is never written (see the headers). */
static mode_t mode_of(const struct archive_entry *entry, enum tree_writer_manner manner)
{
    mode_t mode = archive_entry_perm((struct archive_entry *)entry);
    if (manner == TREE_WRITER_LAYER)
        return mode & 0755;
    return mode & 0111 ? 0755 : 0644;
}

static int write_file(struct archive *reader, struct archive_entry *entry, const char *path,
                      struct timespec time, struct tree_writer *writer, struct error *err)
{
    char name[TREE_NAME_MAX];
    if (archive_entry_is_encrypted(entry))
        return error_set(err, ERROR_INVALID_REQUEST,
                         "entry \"%s\" is encrypted; pack it without a password",
                         tree_name(path, name));
    if (tree_writer_file_begin(writer, path, mode_of(entry, writer->manner), time, err) < 0)
        return -1;
    if (write_data(reader, entry, writer, err) < 0)
        return error_wrap(err, "entry \"%s\"", tree_name(path, name));
    return 0;
}

static int write_hardlink(const char *target, const char *path, struct tree_writer *writer,
                          struct error *err)
{
    autofree char *normalised = NULL;
    if (tree_writer_normalise(writer, target, &normalised, err) < 0) {
        char name[TREE_NAME_MAX];
        return error_wrap(err, "target of the hard link \"%s\"", tree_name(path, name));
    }
    return tree_writer_hardlink(writer, path, normalised, err);
}

static const char *type_name(mode_t type)
{
    switch (type) {
    case S_IFCHR:
    case S_IFBLK:
        return "a device";
    case S_IFIFO:
        return "a fifo";
    case S_IFSOCK:
        return "a socket";
    default:
        return "of an unknown type";
    }
}

int archive_reader_write(struct archive *reader, struct archive_entry *entry, const char *path,
                         struct tree_writer *writer, struct error *err)
{
    char name[TREE_NAME_MAX];
    const struct timespec time = {.tv_sec = archive_entry_mtime(entry),
                                  .tv_nsec = archive_entry_mtime_nsec(entry) % 1000000000};
    const char *hardlink = archive_entry_hardlink(entry);
    mode_t type = archive_entry_filetype(entry);
    bool strict = writer->manner == TREE_WRITER_ARCHIVE;
    if (!hardlink && type == S_IFREG)
        return write_file(reader, entry, path, time, writer, err);
    if (strict && archive_entry_size(entry) > 0 && type != S_IFLNK)
        return error_set(err, ERROR_INVALID_REQUEST, "entry \"%s\" has data but is no file",
                         tree_name(path, name));
    if (hardlink)
        return write_hardlink(hardlink, path, writer, err);
    if (type == S_IFDIR)
        return tree_writer_directory(writer, path, time, err);
    if (type == S_IFLNK) {
        const char *target = archive_entry_symlink(entry);
        return tree_writer_symlink(writer, path, target ? target : "", time, err);
    }
    if (!strict)
        return 0;
    return error_set(err, ERROR_INVALID_REQUEST,
                     "entry \"%s\" is %s; only files, folders and links are taken",
                     tree_name(path, name), type_name(type));
}
