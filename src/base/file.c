/* Files and folders as a whole: made, written so that a crash leaves the old or the new content,
 * locked. (Removing trees is in remove_tree.c.) */
#include "base/file.h"

#include "base/cleanup.h"
#include "base/text.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

static enum error_code code_of_errno(int number)
{
    return number == ENOENT || number == ENOTDIR ? ERROR_NOT_FOUND : ERROR_INTERNAL;
}

/* The last component may be a symbolic link to a folder (/var/run), so it is followed. */
static int make_directory(const char *path, mode_t mode, struct error *err)
{
    if (mkdir(path, mode) == 0) {
        if (chmod(path, mode) < 0)
            return error_set_errno(err, ERROR_INTERNAL, errno, "cannot set the mode of %s", path);
        return 0;
    }
    int number = errno;
    struct stat status;
    if (number == EEXIST && stat(path, &status) == 0 && S_ISDIR(status.st_mode))
        return 0;
    if (number == EEXIST)
        number = ENOTDIR;
    return error_set_errno(err, code_of_errno(number), number, "cannot make the folder %s", path);
}

int make_directories(const char *path, mode_t mode, struct error *err)
{
    autofree char *copy = strdup(path);
    if (!copy)
        return error_set(err, ERROR_INTERNAL, "out of memory");
    for (char *slash = copy; (slash = strchr(slash + 1, '/'));) {
        *slash = '\0';
        if (make_directory(copy, mode, err) < 0)
            return -1;
        *slash = '/';
    }
    return make_directory(copy, mode, err);
}

static int write_all(int fd, const char *data, size_t len)
{
    while (len > 0) {
        ssize_t written = write(fd, data, len);
        if (written < 0 && errno == EINTR)
            continue;
        if (written < 0)
            return -1;
        data += written;
        len -= (size_t)written;
    }
    return 0;
}

/* The rename itself is on the disk only when the folder is. */
static int sync_folder_of(const char *path)
{
    const char *slash = strrchr(path, '/');
    autofree char *folder = slash == path ? strdup("/")
                            : slash       ? strndup(path, (size_t)(slash - path))
                                          : strdup(".");
    autoclose int fd = folder ? open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
    return fd < 0 ? -1 : fsync(fd);
}

static int write_and_rename(int fd, const char *temporary, const char *path, const void *data,
                            size_t len, mode_t mode, bool sync)
{
    if (fchmod(fd, mode) < 0 || write_all(fd, data, len) < 0)
        return -1;
    if (sync && fsync(fd) < 0)
        return -1;
    if (rename(temporary, path) < 0)
        return -1;
    return sync ? sync_folder_of(path) : 0;
}

int write_file_atomic(const char *path, const void *data, size_t len, mode_t mode, bool sync,
                      struct error *err)
{
    autofree char *temporary = string_printf("%s.XXXXXX", path);
    if (!temporary)
        return error_set(err, ERROR_INTERNAL, "out of memory");
    autoclose int fd = mkostemp(temporary, O_CLOEXEC);
    if (fd < 0)
        return error_set_errno(err, code_of_errno(errno), errno, "cannot write %s", path);
    if (write_and_rename(fd, temporary, path, data, len, mode, sync) < 0) {
        int number = errno;
        unlink(temporary);
        return error_set_errno(err, code_of_errno(number), number, "cannot write %s", path);
    }
    return 0;
}

int write_file_value(const char *path, const char *value, struct error *err)
{
    autoclose int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return error_set_errno(err, code_of_errno(errno), errno, "cannot open %s", path);
    ssize_t written;
    do
        written = write(fd, value, strlen(value));
    while (written < 0 && errno == EINTR);
    if (written < 0)
        return error_set_errno(err, code_of_errno(errno), errno, "cannot write \"%.64s\" to %s",
                               value, path);
    if ((size_t)written != strlen(value))
        return error_set(err, ERROR_INTERNAL, "%s took only %zd bytes of \"%.64s\"", path, written,
                         value);
    return 0;
}

bool is_file_at(int fd, const char *path)
{
    struct stat held, there;
    return fstat(fd, &held) == 0 && stat(path, &there) == 0 && held.st_dev == there.st_dev &&
           held.st_ino == there.st_ino;
}

int lock_file(const char *path, int *ret_fd, struct error *err)
{
    for (;;) {
        autoclose int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
        if (fd < 0)
            return error_set_errno(err, code_of_errno(errno), errno, "cannot open %s", path);
        if (flock(fd, LOCK_EX | LOCK_NB) < 0) {
            if (errno == EWOULDBLOCK)
                return error_set(err, ERROR_CONFLICT, "%s is held by another process", path);
            return error_set_errno(err, ERROR_INTERNAL, errno, "cannot lock %s", path);
        }
        if (is_file_at(fd, path)) {
            *ret_fd = steal_fd(&fd);
            return 0;
        }
    }
}

bool path_exists(const char *path)
{
    return access(path, F_OK) == 0;
}

char *program_directory(void)
{
    char path[PATH_MAX];
    ssize_t len = readlink("/proc/self/exe", path, sizeof(path));
    if (len <= 0 || (size_t)len == sizeof(path))
        return NULL;
    while (len > 1 && path[len - 1] != '/')
        len--;
    return strndup(path, len > 1 ? (size_t)len - 1 : 1);
}
