/* Applying a layer: entries through the tree writer, whiteouts here. */
#include "oci/layer.h"

#include "base/cleanup.h"
#include "base/file.h"
#include "oci/archive_reader.h"
#include "oci/layer_reader.h"
#include "oci/path_set.h"

#include <archive.h>
#include <archive_entry.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#define WHITEOUT ".wh."
#define WHITEOUT_META ".wh..wh."
#define WHITEOUT_OPAQUE ".wh..wh..opq"
/* A header, a pax header and padding. */
#define TAR_BYTES_PER_FILE 4096
/* Links inside a root can make a tree deeper than any path of it. */
#define MAX_PRUNE_DEPTH 256

struct applying {
    struct tree_writer *writer; /* borrowed */
    bool has_lower;
    /* Kept only when there are lower layers. */
    struct path_set own;   /* what this layer brought */
    struct path_set links; /* the symbolic links among it */
};

static void applying_deinit(struct applying *applying)
{
    path_set_deinit(&applying->own);
    path_set_deinit(&applying->links);
}

/* ---- whiteouts ---- */

static int prune(struct applying *applying, int at, const char *name, const char *path, int depth,
                 struct error *err);

static void folder_cleanup(DIR **folder)
{
    if (*folder)
        closedir(*folder);
}

/* Removes from the open folder what lower layers put there. Takes `fd`. */
static int prune_folder(struct applying *applying, int fd, const char *path, int depth,
                        struct error *err)
{
    autoclose int own = fd;
    with_cleanup(folder_cleanup) DIR *folder = fdopendir(own);
    if (!folder)
        return error_set_errno(err, ERROR_INTERNAL, errno, "cannot read a folder");
    own = -1; /* closed with the folder */
    if (depth > MAX_PRUNE_DEPTH)
        return error_set(err, ERROR_INVALID_REQUEST, "folders are nested deeper than %d",
                         MAX_PRUNE_DEPTH);
    for (;;) {
        errno = 0;
        struct dirent *entry = readdir(folder);
        if (!entry)
            return errno ? error_set_errno(err, ERROR_INTERNAL, errno, "cannot read a folder") : 0;
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        autofree char *below = string_printf("%s%s%s", path, *path ? "/" : "", entry->d_name);
        if (!below)
            return error_set(err, ERROR_INTERNAL, "out of memory");
        if (prune(applying, dirfd(folder), entry->d_name, below, depth, err) < 0)
            return -1;
    }
}

/* Removes the entry unless this layer brought it; of a folder that it brought, what it did not. */
static int prune(struct applying *applying, int at, const char *name, const char *path, int depth,
                 struct error *err)
{
    if (!path_set_has(&applying->own, path))
        return remove_tree_at(at, name, err);
    int fd = openat(at, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0 && (errno == ENOTDIR || errno == ELOOP || errno == ENOENT))
        return 0;
    if (fd < 0)
        return error_set_errno(err, ERROR_INTERNAL, errno, "cannot open a folder");
    return prune_folder(applying, fd, path, depth + 1, err);
}

static int hide(struct applying *applying, const char *path, struct error *err)
{
    int at;
    const char *name;
    if (tree_writer_open_parent(applying->writer, path, false, &at, &name, err) < 0)
        return -1;
    if (at < 0)
        return 0;
    if (!path_set_has(&applying->own, path))
        return tree_writer_remove(applying->writer, path, err);
    return prune(applying, at, name, path, 0, err);
}

/* Everything that lower layers put into the folder `path` ("" is the root). */
static int hide_content(struct applying *applying, const char *path, struct error *err)
{
    /* Any child's parent is this folder. */
    autofree char *child = string_printf("%s%s", path, *path ? "/." : "");
    int at;
    const char *name;
    if (!child)
        return error_set(err, ERROR_INTERNAL, "out of memory");
    if (tree_writer_open_parent(applying->writer, child, false, &at, &name, err) < 0)
        return -1;
    if (at < 0)
        return 0;
    int fd = openat(at, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return error_set_errno(err, ERROR_INTERNAL, errno, "cannot open a folder");
    return prune_folder(applying, fd, path, 0, err);
}

/* Opaque markers and other ".wh..wh." entries (of storage drivers: ignored), and plain whiteouts. */
static int apply_whiteout(struct applying *applying, const char *path, const char *name,
                          struct error *err)
{
    size_t parent_len = (size_t)(name - path);
    const char *hidden = name + strlen(WHITEOUT);
    autofree char *target = NULL;
    bool opaque = strcmp(name, WHITEOUT_OPAQUE) == 0;
    if (!applying->has_lower || (!opaque && strncmp(name, WHITEOUT_META, 8) == 0))
        return 0;
    /* The folder is a link now: what it had is gone, and what the link leads to is not meant. */
    if (path_set_has_parent(&applying->links, path))
        return 0;
    if (opaque) {
        target = strndup(path, parent_len ? parent_len - 1 : 0);
        if (!target)
            return error_set(err, ERROR_INTERNAL, "out of memory");
        if (*target && path_set_add(&applying->own, target, err) < 0)
            return -1;
        return hide_content(applying, target, err);
    }
    if (*hidden == '\0' || strcmp(hidden, ".") == 0 || strcmp(hidden, "..") == 0) {
        char shown[TREE_NAME_MAX];
        return error_set(err, ERROR_INVALID_REQUEST, "whiteout \"%s\" hides no file name",
                         tree_name(path, shown));
    }
    target = string_printf("%.*s%s", (int)parent_len, path, hidden);
    if (!target)
        return error_set(err, ERROR_INTERNAL, "out of memory");
    return hide(applying, target, err);
}

/* ---- entries ---- */

static int apply_entry(struct applying *applying, struct archive *tar, struct archive_entry *entry,
                       struct error *err)
{
    autofree char *path = NULL;
    const char *raw = archive_entry_pathname(entry);
    if (!raw)
        return error_set(err, ERROR_INVALID_REQUEST, "the layer has an entry without a name");
    if (tree_writer_normalise(applying->writer, raw, &path, err) < 0)
        return -1;
    const char *slash = strrchr(path, '/');
    const char *name = slash ? slash + 1 : path;
    if (strncmp(name, WHITEOUT, strlen(WHITEOUT)) == 0)
        return apply_whiteout(applying, path, name, err);
    if (applying->has_lower && path_set_add(&applying->own, path, err) < 0)
        return -1;
    if (applying->has_lower && archive_entry_filetype(entry) == AE_IFLNK &&
        path_set_add_only(&applying->links, path, err) < 0)
        return -1;
    return archive_reader_write(tar, entry, path, applying->writer, err);
}

static int apply_entries(struct applying *applying, struct archive *tar, struct error *err)
{
    struct archive_entry *entry;
    int result;
    while ((result = archive_reader_next(tar, ARCHIVE_READER_TAR, &entry, err)) > 0) {
        if (apply_entry(applying, tar, entry, err) < 0)
            return -1;
    }
    return result;
}

static void digest_text(struct sha256 *sha, char out[DIGEST_LEN + 1])
{
    uint8_t digest[32];
    sha256_final(sha, digest);
    char *hex = stpcpy(out, "sha256:");
    hex_encode(digest, sizeof(digest), hex);
}

int layer_apply(struct byte_stream *stream, struct tree_writer *writer,
                const struct layer_options *options, struct layer_result *ret_result,
                struct error *err)
{
    uint64_t max = options->max_tar_bytes;
    if (max == 0)
        max = writer->limits.max_bytes + writer->limits.max_files * TAR_BYTES_PER_FILE;
    with_archive_locale(ARCHIVE_READER_TAR);
    with_cleanup(layer_reader_deinit) struct layer_reader reader;
    if (layer_reader_init(&reader, stream, max, err) < 0)
        return -1;
    reader.progress = options->progress;
    reader.progress_data = options->progress_data;
    reader.complete_last_block = options->complete_last_block;
    with_cleanup(applying_deinit) struct applying applying = {.writer = writer,
                                                              .has_lower = options->has_lower};
    if (apply_entries(&applying, reader.tar, err) < 0)
        return layer_reader_failed(&reader, err);
    if (layer_reader_drain(&reader, err) < 0 || tree_writer_finish(writer, err) < 0)
        return -1;
    ret_result->packed_bytes = reader.packed_bytes;
    digest_text(&reader.plain_sha, ret_result->diff_id);
    if (reader.unpacker)
        digest_text(&reader.packed_sha, ret_result->digest);
    else
        memcpy(ret_result->digest, ret_result->diff_id, sizeof(ret_result->digest));
    return 0;
}
