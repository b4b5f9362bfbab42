/* Packing a folder or a file into a tar.gz that is the same for the same content: names sorted by
 * their bytes, times 0, no owner, two modes. The tree may be what a stranger's build left, so it is
 * walked by descriptors and nothing is followed. */
#include "oci/archive.h"

#include "base/cleanup.h"
#include "oci/archive_reader.h"
#include "oci/folder.h"

#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#define MAX_FILES 65536
#define MAX_DEPTH 64
#define MAX_PATH_BYTES 1024
#define READ_BYTES 65536

/* libarchive leaks when a write fails, so none does: output that does not fit is dropped and
 * remembered. Only when the packer is given up, writing fails, or else closing would go on to fill a
 * file of which gigabytes are missing. */
struct packer {
    struct archive *writer; /* owned */
    struct buffer *out;     /* borrowed */
    size_t max_len;         /* of out */
    struct error *err;      /* borrowed; of the output callback */
    bool output_failed;     /* `err` says why */
    bool given_up;
    size_t files;
};

static la_ssize_t on_output(struct archive *writer, void *data, const void *bytes, size_t len)
{
    struct packer *packer = data;
    (void)writer;
    if (packer->given_up)
        return -1;
    if (packer->output_failed)
        return (la_ssize_t)len;
    if (len > packer->max_len - packer->out->len)
        packer->output_failed = error_set(packer->err, ERROR_PAYLOAD_TOO_LARGE,
                                          "it packs to more than the allowed size") < 0;
    else
        packer->output_failed = buffer_append(packer->out, bytes, len, packer->err) < 0;
    return (la_ssize_t)len;
}

/* After each of libarchive's calls: whether it did what it should. */
static int check_writer(const struct packer *packer, bool done, struct error *err)
{
    if (packer->output_failed)
        return -1;
    if (done)
        return 0;
    const char *said = archive_error_string(packer->writer);
    return error_set(err, ERROR_INTERNAL, "cannot pack: %s", said ? said : "no further details");
}

static int packer_init(struct packer *packer, size_t max_bytes, struct buffer *out,
                       struct error *err)
{
    size_t max_len = max_bytes > SIZE_MAX - out->len ? SIZE_MAX : out->len + max_bytes;
    *packer =
        (struct packer){.writer = archive_write_new(), .out = out, .max_len = max_len, .err = err};
    if (!packer->writer)
        return error_set(err, ERROR_INTERNAL, "out of memory");
    /* GNU's format keeps long names and bytes as they are; gzip's header has no time in it. */
    if (archive_write_set_format_gnutar(packer->writer) != ARCHIVE_OK ||
        archive_write_add_filter_gzip(packer->writer) != ARCHIVE_OK ||
        archive_write_set_filter_option(packer->writer, "gzip", "timestamp", NULL) != ARCHIVE_OK ||
        archive_write_set_bytes_per_block(packer->writer, READ_BYTES) != ARCHIVE_OK ||
        archive_write_set_bytes_in_last_block(packer->writer, 1) != ARCHIVE_OK ||
        archive_write_open(packer->writer, packer, NULL, on_output, NULL) != ARCHIVE_OK)
        return check_writer(packer, false, err);
    return 0;
}

static void packer_deinit(struct packer *packer)
{
    if (!packer->writer)
        return;
    packer->given_up = true;
    archive_write_free(packer->writer);
}

static int packer_finish(struct packer *packer, struct error *err)
{
    return check_writer(packer, archive_write_close(packer->writer) == ARCHIVE_OK, err);
}

static void entry_cleanup(struct archive_entry **entry)
{
    archive_entry_free(*entry);
}
#define autoentry with_cleanup(entry_cleanup) struct archive_entry

/* A header: path, type, mode and size; for a link also its target. */
static int pack_header(struct packer *packer, const char *path, mode_t type, mode_t mode,
                       int64_t size, const char *target, struct error *err)
{
    autoentry *entry = archive_entry_new();
    if (!entry)
        return error_set(err, ERROR_INTERNAL, "out of memory");
    if (packer->files++ >= MAX_FILES)
        return error_set(err, ERROR_PAYLOAD_TOO_LARGE,
                         "there are more than %d files and folders, which is the most allowed",
                         MAX_FILES);
    archive_entry_copy_pathname(entry, path);
    archive_entry_set_filetype(entry, type);
    archive_entry_set_perm(entry, mode);
    archive_entry_set_size(entry, size);
    archive_entry_set_mtime(entry, 0, 0);
    if (target)
        archive_entry_copy_symlink(entry, target);
    return check_writer(packer, archive_write_header(packer->writer, entry) == ARCHIVE_OK, err);
}

/* Exactly `size` bytes, as the header said. */
static int pack_data(struct packer *packer, int fd, const char *path, int64_t size,
                     struct error *err)
{
    autofree char *chunk = malloc(READ_BYTES);
    char name[TREE_NAME_MAX];
    if (!chunk)
        return error_set(err, ERROR_INTERNAL, "out of memory");
    while (size > 0) {
        ssize_t len = read(fd, chunk, size < READ_BYTES ? (size_t)size : READ_BYTES);
        if (len < 0 && errno == EINTR)
            continue;
        if (len < 0)
            return error_set_errno(err, ERROR_INTERNAL, errno, "cannot read \"%s\"",
                                   tree_name(path, name));
        if (len == 0)
            return error_set(err, ERROR_CONFLICT, "\"%s\" became shorter while it was packed",
                             tree_name(path, name));
        bool written = archive_write_data(packer->writer, chunk, (size_t)len) == len;
        if (check_writer(packer, written, err) < 0)
            return -1;
        size -= len;
    }
    return 0;
}

static int pack_regular(struct packer *packer, int at, const char *name, const char *path,
                        struct error *err)
{
    struct stat status;
    char shown[TREE_NAME_MAX];
    autoclose int fd = openat(at, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &status) < 0)
        return error_set_errno(err, ERROR_INVALID_REQUEST, errno, "cannot read \"%s\"",
                               tree_name(path, shown));
    if (!S_ISREG(status.st_mode))
        return error_set(err, ERROR_INVALID_REQUEST, "\"%s\" is no regular file",
                         tree_name(path, shown));
    mode_t mode = status.st_mode & 0111 ? 0755 : 0644;
    if (pack_header(packer, path, AE_IFREG, mode, status.st_size, NULL, err) < 0)
        return -1;
    return pack_data(packer, fd, path, status.st_size, err);
}

static int pack_symlink(struct packer *packer, int at, const char *name, const char *path,
                        struct error *err)
{
    char target[PATH_MAX], shown[TREE_NAME_MAX];
    ssize_t len = readlinkat(at, name, target, sizeof(target) - 1);
    if (len < 0)
        return error_set_errno(err, ERROR_INVALID_REQUEST, errno, "cannot read \"%s\"",
                               tree_name(path, shown));
    target[len] = '\0';
    return pack_header(packer, path, AE_IFLNK, 0777, 0, target, err);
}

static int pack_folder(struct packer *packer, int fd, const char *path, int depth,
                       struct error *err);

static int pack_entry(struct packer *packer, int at, const char *name, const char *path, int depth,
                      struct error *err)
{
    struct stat status;
    char shown[TREE_NAME_MAX];
    if (fstatat(at, name, &status, AT_SYMLINK_NOFOLLOW) < 0)
        return error_set_errno(err, ERROR_INTERNAL, errno, "cannot read \"%s\"",
                               tree_name(path, shown));
    if (S_ISREG(status.st_mode))
        return pack_regular(packer, at, name, path, err);
    if (S_ISLNK(status.st_mode))
        return pack_symlink(packer, at, name, path, err);
    if (!S_ISDIR(status.st_mode))
        return error_set(err, ERROR_INVALID_REQUEST,
                         "\"%s\" is a device, fifo or socket and cannot be packed",
                         tree_name(path, shown));
    autoclose int fd = openat(at, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return error_set_errno(err, ERROR_INTERNAL, errno, "cannot open \"%s\"",
                               tree_name(path, shown));
    if (pack_header(packer, path, AE_IFDIR, 0755, 0, NULL, err) < 0)
        return -1;
    return pack_folder(packer, fd, path, depth + 1, err);
}

static int pack_folder(struct packer *packer, int fd, const char *path, int depth,
                       struct error *err)
{
    with_cleanup(folder_names_deinit) struct folder_names names = {0};
    if (depth >= MAX_DEPTH)
        return error_set(err, ERROR_INVALID_REQUEST, "folders are nested deeper than %d",
                         MAX_DEPTH);
    if (folder_names_read(&names, fd, MAX_FILES, err) < 0)
        return -1;
    for (size_t i = 0; i < names.count; i++) {
        char below[MAX_PATH_BYTES + 1];
        if (strcmp(names.items[i], ".git") == 0)
            continue;
        int len = snprintf(below, sizeof(below), "%s%s%s", path, *path ? "/" : "", names.items[i]);
        if ((size_t)len >= sizeof(below))
            return error_set(err, ERROR_INVALID_REQUEST, "a path is longer than %d bytes",
                             MAX_PATH_BYTES);
        if (pack_entry(packer, fd, names.items[i], below, depth, err) < 0)
            return -1;
    }
    return 0;
}

/* What a failed packing appended goes again. */
static int undo(struct buffer *out, size_t len)
{
    if (out->data) {
        out->len = len;
        out->data[len] = '\0';
    }
    return -1;
}

int archive_pack_directory(const char *directory, size_t max_bytes, struct buffer *out,
                           struct error *err)
{
    size_t before = out->len;
    with_archive_locale(ARCHIVE_READER_TAR);
    with_cleanup(packer_deinit) struct packer packer = {0};
    autoclose int fd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return error_set_errno(err, errno == ENOENT ? ERROR_NOT_FOUND : ERROR_INVALID_REQUEST,
                               errno, "cannot open the folder %s", directory);
    if (packer_init(&packer, max_bytes, out, err) < 0 || pack_folder(&packer, fd, "", 0, err) < 0 ||
        packer_finish(&packer, err) < 0)
        return error_wrap(err, "packing %s", directory), undo(out, before);
    return 0;
}

int archive_pack_file(const char *path, const char *name, size_t max_bytes, struct buffer *out,
                      struct error *err)
{
    size_t before = out->len;
    with_archive_locale(ARCHIVE_READER_TAR);
    with_cleanup(packer_deinit) struct packer packer = {0};
    if (packer_init(&packer, max_bytes, out, err) < 0 ||
        pack_regular(&packer, AT_FDCWD, path, name, err) < 0 || packer_finish(&packer, err) < 0)
        return error_wrap(err, "packing %s", path), undo(out, before);
    return 0;
}
