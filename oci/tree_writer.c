/* The beneath-only writer: see tree_writer.h for what it promises. The kernel's path resolution
 * does the promising (RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS for archives, RESOLVE_IN_ROOT for
 * layers); checks on text are here for clear messages, not for safety. */
#include "oci/tree_writer.h"

#include "base/cleanup.h"
#include "base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>

/* The kernel asks for another try when something was renamed anywhere while it resolved a "..". */
#define OPEN_TRIES 10000

int tree_open(int at, const char *path, int flags, uint64_t resolve)
{
    struct open_how how = {.flags = (uint64_t)(flags | O_CLOEXEC), .resolve = resolve};
    long fd = -1;
    for (int i = 0; i < OPEN_TRIES; i++) {
        fd = syscall(SYS_openat2, at, *path ? path : ".", &how, sizeof(how));
        if (fd >= 0 || errno != EAGAIN)
            break;
    }
    return (int)fd;
}

const char *tree_name(const char *name, char out[TREE_NAME_MAX])
{
    size_t used = 0;
    for (const char *at = name; *at; at++) {
        unsigned char c = (unsigned char)*at;
        if (used + 8 > TREE_NAME_MAX) {
            used += (size_t)sprintf(out + used, "...");
            break;
        }
        if (c < 0x20 || c >= 0x7f || c == '"' || c == '\\')
            used += (size_t)sprintf(out + used, "\\x%02x", c);
        else
            out[used++] = *at;
    }
    out[used] = '\0';
    return out;
}

static int refuse(struct error *err, const char *path, const char *reason)
{
    char name[TREE_NAME_MAX];
    return error_set(err, ERROR_INVALID_REQUEST, "entry \"%s\" %s", tree_name(path, name), reason);
}

/* ENOSPC and EDQUOT are the machine's matter, as everything else that is not about the entry. */
static int failed(struct error *err, const char *path, int error_number)
{
    char name[TREE_NAME_MAX];
    if (error_number == ENOTDIR)
        return refuse(err, path, "is below something that is not a folder");
    if (error_number == ELOOP)
        return refuse(err, path, "is below a symbolic link");
    if (error_number == EXDEV)
        return refuse(err, path, "leads out of the folder");
    if (error_number == ENAMETOOLONG)
        return refuse(err, path, "has a name that is too long for the file system");
    return error_set_errno(err, ERROR_INTERNAL, error_number, "cannot write \"%s\"",
                           tree_name(path, name));
}

static uint64_t resolve_flags(const struct tree_writer *writer)
{
    uint64_t manner = writer->manner == TREE_WRITER_LAYER ? RESOLVE_IN_ROOT
                                                          : RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS;
    return manner | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_XDEV;
}

void tree_writer_init(struct tree_writer *writer, int root, enum tree_writer_manner manner,
                      const struct tree_writer_limits *limits)
{
    *writer = (struct tree_writer){
        .root = root, .manner = manner, .limits = *limits, .parent_fd = -1, .file = -1};
}

static void forget_parent(struct tree_writer *writer)
{
    free(steal_pointer(&writer->parent_path));
    if (writer->parent_fd >= 0)
        close(writer->parent_fd);
    writer->parent_fd = -1;
}

void tree_writer_deinit(struct tree_writer *writer)
{
    forget_parent(writer);
    if (writer->file >= 0)
        close(writer->file);
    for (size_t i = 0; i < writer->folder_count; i++)
        free(writer->folders[i].path);
    for (size_t i = 0; i < writer->link_count; i++)
        free(writer->links[i]);
    free(writer->folders);
    free(writer->links);
}

/* ---- paths ---- */

int tree_writer_normalise(const struct tree_writer *writer, const char *path, char **ret_path,
                          struct error *err)
{
    if (path[0] == '/' && writer->manner == TREE_WRITER_ARCHIVE)
        return refuse(err, path, "has an absolute path");
    if (strlen(path) > writer->limits.max_path_bytes)
        return refuse(err, path, "has a path that is too long");
    autofree char *out = malloc(strlen(path) + 1);
    if (!out)
        return error_set(err, ERROR_INTERNAL, "out of memory");
    size_t used = 0, depth = 0;
    for (const char *at = path; *at;) {
        size_t len = strcspn(at, "/");
        if (len == 2 && at[0] == '.' && at[1] == '.')
            return refuse(err, path, "has \"..\" in its path");
        if (len > 0 && !(len == 1 && at[0] == '.')) {
            if (used > 0)
                out[used++] = '/';
            memcpy(out + used, at, len);
            used += len;
            if (++depth > writer->limits.max_depth)
                return refuse(err, path, "is in too many folders");
        }
        at += len;
        at += strspn(at, "/");
    }
    out[used] = '\0';
    *ret_path = steal_pointer(&out);
    return 0;
}

static int count_file(struct tree_writer *writer, struct error *err)
{
    if (++writer->files > writer->limits.max_files)
        return error_set(err, ERROR_PAYLOAD_TOO_LARGE,
                         "there are more than %llu files and folders, which is the most allowed",
                         (unsigned long long)writer->limits.max_files);
    return 0;
}

/* The umask must not decide who can enter. */
static int make_folder(int at, const char *name)
{
    return mkdirat(at, name, 0755) < 0 ? -1 : fchmodat(at, name, 0755, 0);
}

static int make_missing_folder(struct tree_writer *writer, int at, const char *name,
                               const char *path, struct error *err)
{
    if (count_file(writer, err) < 0)
        return -1;
    if (make_folder(at, name) == 0)
        return 0;
    /* It could not be opened, yet it is there: a link that leads nowhere. */
    if (errno == EEXIST && writer->manner == TREE_WRITER_LAYER && unlinkat(at, name, 0) == 0 &&
        make_folder(at, name) == 0)
        return 0;
    return failed(err, path, errno);
}

/* Opens `folder`, making what is missing of it, one component after the other. */
static int make_folders(struct tree_writer *writer, const char *folder, int *ret_fd,
                        struct error *err)
{
    autofree char *prefix = strdup(folder);
    if (!prefix)
        return error_set(err, ERROR_INTERNAL, "out of memory");
    autoclose int at = tree_open(writer->root, "", O_PATH | O_DIRECTORY, resolve_flags(writer));
    if (at < 0)
        return failed(err, folder, errno);
    for (char *name = prefix; *name;) {
        size_t len = strcspn(name, "/");
        bool last = name[len] == '\0';
        name[len] = '\0';
        int fd = tree_open(writer->root, prefix, O_PATH | O_DIRECTORY, resolve_flags(writer));
        if (fd < 0 && errno == ENOENT) {
            if (make_missing_folder(writer, at, name, folder, err) < 0)
                return -1;
            fd = tree_open(writer->root, prefix, O_PATH | O_DIRECTORY, resolve_flags(writer));
        }
        if (fd < 0)
            return failed(err, folder, errno);
        close(at);
        at = fd;
        if (!last)
            name[len] = '/';
        name += len + !last;
    }
    *ret_fd = steal_fd(&at);
    return 0;
}

int tree_writer_open_parent(struct tree_writer *writer, const char *path, bool make, int *ret_fd,
                            const char **ret_base, struct error *err)
{
    const char *slash = strrchr(path, '/');
    *ret_base = slash ? slash + 1 : path;
    *ret_fd = writer->root;
    if (!slash)
        return 0;
    size_t len = (size_t)(slash - path);
    if (writer->parent_path && strncmp(writer->parent_path, path, len) == 0 &&
        writer->parent_path[len] == '\0') {
        *ret_fd = writer->parent_fd;
        return 0;
    }
    autofree char *folder = strndup(path, len);
    if (!folder)
        return error_set(err, ERROR_INTERNAL, "out of memory");
    int fd = tree_open(writer->root, folder, O_PATH | O_DIRECTORY, resolve_flags(writer));
    if (fd < 0 && !make && (errno == ENOENT || errno == ENOTDIR || errno == ELOOP)) {
        *ret_fd = -1;
        return 0;
    }
    if (fd < 0 && errno != ENOENT)
        return failed(err, path, errno);
    if (fd < 0 && make_folders(writer, folder, &fd, err) < 0)
        return -1;
    forget_parent(writer);
    writer->parent_path = steal_pointer(&folder);
    writer->parent_fd = fd;
    *ret_fd = fd;
    return 0;
}

/* What is in an entry's place goes (layer), or the entry is refused (archive). */
static int make_place(struct tree_writer *writer, int at, const char *name, const char *path,
                      struct error *err)
{
    if (writer->manner == TREE_WRITER_ARCHIVE)
        return refuse(err, path, "is there twice");
    if (remove_tree_at(at, name, err) < 0)
        return error_wrap(err, "making place for an entry");
    return 0;
}

/* Whoever replaces what is there then calls forget_parent(): a removed folder or link may have been
 * on the way to the remembered one. */
static int parent_for_new_entry(struct tree_writer *writer, const char *path, int *ret_fd,
                                const char **ret_base, struct error *err)
{
    if (*path == '\0')
        return refuse(err, ".", "must be a folder");
    if (count_file(writer, err) < 0)
        return -1;
    return tree_writer_open_parent(writer, path, true, ret_fd, ret_base, err);
}

int tree_writer_remove(struct tree_writer *writer, const char *path, struct error *err)
{
    int at;
    const char *name;
    if (tree_writer_open_parent(writer, path, false, &at, &name, err) < 0)
        return -1;
    if (at < 0 || *name == '\0')
        return 0;
    int result = remove_tree_at(at, name, err);
    forget_parent(writer);
    return result;
}

/* ---- entries ---- */

static int remember_folder(struct tree_writer *writer, const char *path, struct timespec time,
                           struct error *err)
{
    if (writer->folder_count == writer->folder_cap) {
        size_t cap = writer->folder_cap ? 2 * writer->folder_cap : 64;
        void *folders = reallocarray(writer->folders, cap, sizeof(*writer->folders));
        if (!folders)
            return error_set(err, ERROR_INTERNAL, "out of memory");
        writer->folders = folders;
        writer->folder_cap = cap;
    }
    char *copy = strdup(path);
    if (!copy)
        return error_set(err, ERROR_INTERNAL, "out of memory");
    writer->folders[writer->folder_count++] = (struct tree_writer_time){.path = copy, .time = time};
    return 0;
}

static int remember_link(struct tree_writer *writer, const char *path, struct error *err)
{
    if (writer->link_count == writer->link_cap) {
        size_t cap = writer->link_cap ? 2 * writer->link_cap : 64;
        void *links = reallocarray(writer->links, cap, sizeof(*writer->links));
        if (!links)
            return error_set(err, ERROR_INTERNAL, "out of memory");
        writer->links = links;
        writer->link_cap = cap;
    }
    char *copy = strdup(path);
    if (!copy)
        return error_set(err, ERROR_INTERNAL, "out of memory");
    writer->links[writer->link_count++] = copy;
    return 0;
}

int tree_writer_directory(struct tree_writer *writer, const char *path, struct timespec time,
                          struct error *err)
{
    int at;
    const char *name;
    struct stat status;
    if (*path == '\0')
        return count_file(writer, err) < 0 ? -1 : remember_folder(writer, path, time, err);
    if (parent_for_new_entry(writer, path, &at, &name, err) < 0)
        return -1;
    if (make_folder(at, name) < 0) {
        if (errno != EEXIST || fstatat(at, name, &status, AT_SYMLINK_NOFOLLOW) < 0)
            return failed(err, path, errno);
        if (!S_ISDIR(status.st_mode)) {
            if (make_place(writer, at, name, path, err) < 0)
                return -1;
            if (make_folder(at, name) < 0)
                return failed(err, path, errno);
            forget_parent(writer);
        }
    }
    return remember_folder(writer, path, time, err);
}

int tree_writer_file_begin(struct tree_writer *writer, const char *path, mode_t mode,
                           struct timespec time, struct error *err)
{
    const int flags = O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC;
    int at;
    const char *name;
    if (parent_for_new_entry(writer, path, &at, &name, err) < 0)
        return -1;
    writer->file = openat(at, name, flags, 0600);
    if (writer->file < 0 && errno == EEXIST) {
        if (make_place(writer, at, name, path, err) < 0)
            return -1;
        writer->file = openat(at, name, flags, 0600);
        forget_parent(writer);
    }
    if (writer->file < 0)
        return failed(err, path, errno);
    writer->file_bytes = 0;
    writer->file_mode = mode;
    writer->file_time = time;
    return 0;
}

/* Accounts for the file reaching to `end`. */
static int grow(struct tree_writer *writer, uint64_t end, struct error *err)
{
    uint64_t more = end - writer->file_bytes;
    if (more > writer->limits.max_bytes - writer->bytes)
        return error_set(err, ERROR_PAYLOAD_TOO_LARGE,
                         "it unpacks to more than %llu bytes, which is the most allowed",
                         (unsigned long long)writer->limits.max_bytes);
    writer->bytes += more;
    writer->file_bytes = end;
    return 0;
}

int tree_writer_file_write(struct tree_writer *writer, const void *data, size_t len,
                           uint64_t offset, struct error *err)
{
    if (offset < writer->file_bytes || offset > INT64_MAX - len)
        return error_set(err, ERROR_INVALID_REQUEST, "an entry's data is out of order");
    if (grow(writer, offset + len, err) < 0)
        return -1;
    const char *bytes = data;
    while (len > 0) {
        ssize_t written = pwrite(writer->file, bytes, len, (off_t)offset);
        if (written < 0 && errno == EINTR)
            continue;
        if (written <= 0)
            return error_set_errno(err, ERROR_INTERNAL, written < 0 ? errno : EIO,
                                   "cannot write a file");
        bytes += written;
        len -= (size_t)written;
        offset += (uint64_t)written;
    }
    return 0;
}

int tree_writer_file_end(struct tree_writer *writer, uint64_t size, struct error *err)
{
    const struct timespec times[2] = {writer->file_time, writer->file_time};
    autoclose int fd = steal_fd(&writer->file);
    if (size > writer->file_bytes) {
        if (size > INT64_MAX)
            return error_set(err, ERROR_INVALID_REQUEST, "an entry has an impossible size");
        if (grow(writer, size, err) < 0)
            return -1;
        if (ftruncate(fd, (off_t)size) < 0)
            return error_set_errno(err, ERROR_INTERNAL, errno, "cannot write a file");
    }
    if (fchmod(fd, writer->file_mode) < 0 || futimens(fd, times) < 0)
        return error_set_errno(err, ERROR_INTERNAL, errno, "cannot set a file's mode and time");
    return 0;
}

/* Whether `target`, seen from the folder that holds `path`, stays in the tree if no link is on
 * its way; whether that is so, the kernel says at the end. */
static bool leads_out(const char *path, const char *target)
{
    size_t depth = 0;
    for (const char *at = path; (at = strchr(at, '/')); at++)
        depth++;
    if (target[0] == '/')
        return true;
    for (const char *at = target; *at; at += strspn(at, "/")) {
        size_t len = strcspn(at, "/");
        if (len == 2 && at[0] == '.' && at[1] == '.') {
            if (depth-- == 0)
                return true;
        } else if (!(len == 1 && at[0] == '.')) {
            depth++;
        }
        at += len;
    }
    return false;
}

int tree_writer_symlink(struct tree_writer *writer, const char *path, const char *target,
                        struct timespec time, struct error *err)
{
    const struct timespec times[2] = {time, time};
    bool replaced = false;
    int at;
    const char *name;
    if (*target == '\0' || strlen(target) > writer->limits.max_path_bytes)
        return refuse(err, path, "is a symbolic link whose target is empty or too long");
    if (writer->manner == TREE_WRITER_ARCHIVE && leads_out(path, target)) {
        char there[TREE_NAME_MAX], here[TREE_NAME_MAX];
        return error_set(err, ERROR_INVALID_REQUEST,
                         "entry \"%s\" is a symbolic link to \"%s\", which leads out of the "
                         "archive's folder; links must be relative and stay in it",
                         tree_name(path, here), tree_name(target, there));
    }
    if (parent_for_new_entry(writer, path, &at, &name, err) < 0)
        return -1;
    if (symlinkat(target, at, name) < 0) {
        if (errno != EEXIST)
            return failed(err, path, errno);
        if (make_place(writer, at, name, path, err) < 0)
            return -1;
        if (symlinkat(target, at, name) < 0)
            return failed(err, path, errno);
        replaced = true;
    }
    if (utimensat(at, name, times, AT_SYMLINK_NOFOLLOW) < 0)
        return failed(err, path, errno);
    if (replaced)
        forget_parent(writer);
    return writer->manner == TREE_WRITER_ARCHIVE ? remember_link(writer, path, err) : 0;
}

/* The file that a hard link is to. *ret_fd is owned by the caller. */
static int find_link_target(struct tree_writer *writer, const char *path, const char *target,
                            int *ret_fd, const char **ret_name, struct stat *ret_status,
                            struct error *err)
{
    const char *slash = strrchr(target, '/');
    autofree char *folder = strndup(target, slash ? (size_t)(slash - target) : 0);
    if (!folder)
        return error_set(err, ERROR_INTERNAL, "out of memory");
    *ret_name = slash ? slash + 1 : target;
    autoclose int fd = tree_open(writer->root, folder, O_PATH | O_DIRECTORY, resolve_flags(writer));
    bool found =
        fd >= 0 && **ret_name && fstatat(fd, *ret_name, ret_status, AT_SYMLINK_NOFOLLOW) == 0;
    bool suitable =
        found && (S_ISREG(ret_status->st_mode) ||
                  (S_ISLNK(ret_status->st_mode) && writer->manner == TREE_WRITER_LAYER));
    if (!suitable) {
        char here[TREE_NAME_MAX], there[TREE_NAME_MAX];
        return error_set(err, ERROR_INVALID_REQUEST,
                         "entry \"%s\" is a hard link to \"%s\", which is no earlier file",
                         tree_name(path, here), tree_name(target, there));
    }
    *ret_fd = steal_fd(&fd);
    return 0;
}

int tree_writer_hardlink(struct tree_writer *writer, const char *path, const char *target,
                         struct error *err)
{
    autoclose int from = -1;
    int at;
    const char *name, *from_name = NULL;
    struct stat source, place;
    if (find_link_target(writer, path, target, &from, &from_name, &source, err) < 0 ||
        parent_for_new_entry(writer, path, &at, &name, err) < 0)
        return -1;
    if (linkat(from, from_name, at, name, 0) == 0)
        return 0;
    if (errno != EEXIST || fstatat(at, name, &place, AT_SYMLINK_NOFOLLOW) < 0)
        return failed(err, path, errno);
    if (writer->manner == TREE_WRITER_LAYER && place.st_dev == source.st_dev &&
        place.st_ino == source.st_ino)
        return 0; /* making place would remove the very file */
    if (make_place(writer, at, name, path, err) < 0)
        return -1;
    int result = linkat(from, from_name, at, name, 0);
    int error_number = errno;
    forget_parent(writer);
    return result < 0 ? failed(err, path, error_number) : 0;
}

/* ---- the end ---- */

static int check_link(struct tree_writer *writer, const char *path, struct error *err)
{
    autoclose int fd =
        tree_open(writer->root, path, O_PATH, RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS);
    if (fd >= 0 || errno == ENOENT || errno == ENOTDIR)
        return 0; /* one that leads nowhere stays inside as far as it goes */
    if (errno == EXDEV)
        return refuse(err, path, "is a symbolic link that leads out of the archive's folder");
    if (errno == ELOOP)
        return refuse(err, path, "is a symbolic link that leads in a circle");
    return failed(err, path, errno);
}

int tree_writer_finish(struct tree_writer *writer, struct error *err)
{
    for (size_t i = 0; i < writer->link_count; i++) {
        if (check_link(writer, writer->links[i], err) < 0)
            return -1;
    }
    for (size_t i = writer->folder_count; i-- > 0;) {
        const struct tree_writer_time *folder = &writer->folders[i];
        const struct timespec times[2] = {folder->time, folder->time};
        autoclose int fd =
            tree_open(writer->root, folder->path, O_RDONLY | O_DIRECTORY, resolve_flags(writer));
        if (fd < 0)
            continue; /* a later entry took its place */
        if (futimens(fd, times) < 0)
            return failed(err, folder->path, errno);
    }
    return 0;
}
