/* Cloning, copying and measuring trees: see tree.h. */
#include "oci/tree.h"

#include "base/cleanup.h"
#include "oci/folder.h"

#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/stat.h>

#define MAX_NAMES 10000000
#define COPY_BYTES (256 * 1024)

static int failed(const char *doing, const char *name, struct error *err)
{
    int number = errno;
    char shown[TREE_NAME_MAX];
    return error_set_errno(err, ERROR_INTERNAL, number, "cannot %s \"%s\"", doing,
                           tree_name(name, shown));
}

static int open_folder(int at, const char *name)
{
    return openat(at, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
}

static int check_depth(int depth, struct error *err)
{
    if (depth <= TREE_MAX_DEPTH)
        return 0;
    return error_set(err, ERROR_INVALID_REQUEST, "folders are nested deeper than %d",
                     TREE_MAX_DEPTH);
}

/* ---- clone ---- */

static int clone_folder(int from, int to, int depth, uint64_t *budget, struct error *err);

/* An inode takes so many links and no more (65,000 on ext4), and some file systems none to a link. */
static int clone_by_copy(int from, int to, const char *name, const struct stat *status,
                         struct error *err)
{
    const struct timespec times[2] = {status->st_mtim, status->st_mtim};
    if (S_ISLNK(status->st_mode)) {
        char target[PATH_MAX];
        ssize_t len = readlinkat(from, name, target, sizeof(target) - 1);
        target[len < 0 ? 0 : len] = '\0';
        return symlinkat(target, to, name) < 0 ? failed("link", name, err) : 0;
    }
    autoclose int in = openat(from, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    autoclose int out = openat(to, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (in < 0 || out < 0)
        return failed("copy", name, err);
    ssize_t len;
    while ((len = sendfile(out, in, NULL, COPY_BYTES)) > 0)
        ;
    if (len < 0 || fchmod(out, status->st_mode & 0777) < 0 || futimens(out, times) < 0)
        return failed("copy", name, err);
    return 0;
}

static int clone_entry(int from, int to, const char *name, int depth, uint64_t *budget,
                       struct error *err)
{
    struct stat status;
    if (*budget == 0)
        return error_set(err, ERROR_PAYLOAD_TOO_LARGE,
                         "the image's layers have too many files in all");
    --*budget;
    if (fstatat(from, name, &status, AT_SYMLINK_NOFOLLOW) < 0)
        return failed("read", name, err);
    if (!S_ISDIR(status.st_mode)) {
        if (linkat(from, name, to, name, 0) == 0)
            return 0;
        return errno == EMLINK || errno == EPERM ? clone_by_copy(from, to, name, &status, err)
                                                 : failed("link", name, err);
    }
    if (mkdirat(to, name, 0755) < 0)
        return failed("make", name, err);
    const struct timespec times[2] = {status.st_mtim, status.st_mtim};
    autoclose int from_below = open_folder(from, name);
    autoclose int to_below = open_folder(to, name);
    if (from_below < 0 || to_below < 0 || fchmod(to_below, 0755) < 0)
        return failed("open", name, err);
    if (clone_folder(from_below, to_below, depth + 1, budget, err) < 0)
        return -1;
    return futimens(to_below, times) < 0 ? failed("set the time of", name, err) : 0;
}

static int clone_folder(int from, int to, int depth, uint64_t *budget, struct error *err)
{
    with_cleanup(folder_names_deinit) struct folder_names names = {0};
    if (check_depth(depth, err) < 0 || folder_names_read(&names, from, MAX_NAMES, err) < 0)
        return -1;
    for (size_t i = 0; i < names.count; i++) {
        if (clone_entry(from, to, names.items[i], depth, budget, err) < 0)
            return -1;
    }
    return 0;
}

int tree_clone(int from, int to, uint64_t *budget, struct error *err)
{
    return clone_folder(from, to, 0, budget, err);
}

/* ---- copy ---- */

struct copying {
    struct tree_writer *writer; /* borrowed */
    struct sha256 sha;
    char *chunk; /* owned */
};

/* Length and bytes, so that no two trees run together into the same text. */
static void digest_bytes(struct copying *copying, const void *bytes, size_t len)
{
    uint64_t prefix = htole64(len);
    sha256_update(&copying->sha, &prefix, sizeof(prefix));
    sha256_update(&copying->sha, bytes, len);
}

static void digest_entry(struct copying *copying, const char *path, const struct stat *status)
{
    char head[96];
    int len = snprintf(head, sizeof(head), "%o %lld.%09ld %lld", status->st_mode & (S_IFMT | 0755),
                       (long long)status->st_mtim.tv_sec, status->st_mtim.tv_nsec,
                       S_ISREG(status->st_mode) ? (long long)status->st_size : 0LL);
    digest_bytes(copying, path, strlen(path));
    digest_bytes(copying, head, (size_t)len);
}

static int copy_file(struct copying *copying, int at, const char *name, const char *path,
                     struct error *err)
{
    struct stat status;
    autoclose int fd = openat(at, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &status) < 0 || !S_ISREG(status.st_mode))
        return failed("read", path, err);
    digest_entry(copying, path, &status);
    if (tree_writer_file_begin(copying->writer, path, status.st_mode & 0755, status.st_mtim, err) <
        0)
        return -1;
    uint64_t offset = 0;
    ssize_t len;
    while ((len = read(fd, copying->chunk, COPY_BYTES)) != 0) {
        if (len < 0 && errno == EINTR)
            continue;
        if (len < 0)
            return failed("read", path, err);
        sha256_update(&copying->sha, copying->chunk, (size_t)len); /* the head has its length */
        if (tree_writer_file_write(copying->writer, copying->chunk, (size_t)len, offset, err) < 0)
            return -1;
        offset += (uint64_t)len;
    }
    return tree_writer_file_end(copying->writer, 0, err);
}

static int copy_link(struct copying *copying, int at, const char *name, const char *path,
                     const struct stat *status, struct error *err)
{
    char target[PATH_MAX];
    ssize_t len = readlinkat(at, name, target, sizeof(target) - 1);
    if (len < 0)
        return failed("read", path, err);
    target[len] = '\0';
    digest_entry(copying, path, status);
    digest_bytes(copying, target, (size_t)len);
    return tree_writer_symlink(copying->writer, path, target, status->st_mtim, err);
}

static int copy_folder(struct copying *copying, int fd, const char *path, int depth,
                       struct error *err);

static int copy_entry(struct copying *copying, int at, const char *name, const char *path,
                      int depth, struct error *err)
{
    struct stat status;
    if (fstatat(at, name, &status, AT_SYMLINK_NOFOLLOW) < 0)
        return failed("read", path, err);
    if (S_ISREG(status.st_mode))
        return copy_file(copying, at, name, path, err);
    if (S_ISLNK(status.st_mode))
        return copy_link(copying, at, name, path, &status, err);
    if (!S_ISDIR(status.st_mode))
        return 0;
    digest_entry(copying, path, &status);
    autoclose int fd = open_folder(at, name);
    if (fd < 0)
        return failed("open", path, err);
    if (tree_writer_directory(copying->writer, path, status.st_mtim, err) < 0)
        return -1;
    return copy_folder(copying, fd, path, depth + 1, err);
}

static int copy_folder(struct copying *copying, int fd, const char *path, int depth,
                       struct error *err)
{
    with_cleanup(folder_names_deinit) struct folder_names names = {0};
    if (check_depth(depth, err) < 0 || folder_names_read(&names, fd, MAX_NAMES, err) < 0)
        return -1;
    for (size_t i = 0; i < names.count; i++) {
        autofree char *below = string_printf("%s%s%s", path, *path ? "/" : "", names.items[i]);
        autofree char *normalised = NULL;
        if (!below)
            return error_set(err, ERROR_INTERNAL, "out of memory");
        if (tree_writer_normalise(copying->writer, below, &normalised, err) < 0 ||
            copy_entry(copying, fd, names.items[i], normalised, depth, err) < 0)
            return -1;
    }
    return 0;
}

int tree_copy(int from, struct tree_writer *writer, char ret_digest[DIGEST_LEN + 1],
              struct error *err)
{
    autofree char *chunk = malloc(COPY_BYTES);
    struct copying copying = {.writer = writer, .chunk = chunk};
    uint8_t digest[32];
    if (!chunk)
        return error_set(err, ERROR_INTERNAL, "out of memory");
    sha256_init(&copying.sha);
    if (copy_folder(&copying, from, "", 0, err) < 0 || tree_writer_finish(writer, err) < 0)
        return -1;
    sha256_final(&copying.sha, digest);
    char *hex = stpcpy(ret_digest, "sha256:");
    hex_encode(digest, sizeof(digest), hex);
    return 0;
}

/* ---- measure ---- */

static int measure_folder(int fd, int depth, uint64_t *bytes, struct error *err)
{
    with_cleanup(folder_names_deinit) struct folder_names names = {0};
    if (check_depth(depth, err) < 0 || folder_names_read(&names, fd, MAX_NAMES, err) < 0)
        return -1;
    for (size_t i = 0; i < names.count; i++) {
        struct stat status;
        if (fstatat(fd, names.items[i], &status, AT_SYMLINK_NOFOLLOW) < 0)
            return failed("read", names.items[i], err);
        if (S_ISREG(status.st_mode))
            *bytes += (uint64_t)status.st_size;
        if (!S_ISDIR(status.st_mode))
            continue;
        autoclose int below = open_folder(fd, names.items[i]);
        if (below < 0)
            return failed("open", names.items[i], err);
        if (measure_folder(below, depth + 1, bytes, err) < 0)
            return -1;
    }
    return 0;
}

int tree_measure(int root, uint64_t *ret_bytes, struct error *err)
{
    uint64_t bytes = 0;
    if (measure_folder(root, 0, &bytes, err) < 0)
        return -1;
    *ret_bytes = bytes;
    return 0;
}
