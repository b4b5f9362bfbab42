/* Removing a tree that a stranger may have filled: by descriptors, never through a symbolic link,
 * never into another mount (a bind mount of the same device included), with two descriptors open
 * however deep it is. */
#include "base/cleanup.h"
#include "base/file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

/* The way from the tree's top to where the removal is. */
struct level {
    char *name; /* owned; of the folder that was entered */
    dev_t device;
    ino_t inode; /* of the folder that holds it: the way back up must lead there */
};

struct removal {
    int fd; /* owned; the folder being emptied */
    struct level *levels;
    size_t depth, cap;
};

static void removal_deinit(struct removal *removal)
{
    for (size_t i = 0; i < removal->depth; i++)
        free(removal->levels[i].name);
    free(removal->levels);
    if (removal->fd >= 0)
        close(removal->fd);
}

static int open_folder(int at, const char *name)
{
    struct open_how how = {.flags = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC,
                           .resolve = RESOLVE_NO_XDEV | RESOLVE_NO_SYMLINKS | RESOLVE_BENEATH};
    return (int)syscall(SYS_openat2, at, name, &how, sizeof(how));
}

static void close_folder(DIR **folder)
{
    if (*folder)
        closedir(*folder);
}

/* 0 when gone, 1 when it is a folder that is not empty, -1 with errno. */
static int remove_entry(int at, const char *name)
{
    if (unlinkat(at, name, 0) == 0 || errno == ENOENT)
        return 0;
    if (errno != EISDIR && errno != EPERM)
        return -1;
    if (unlinkat(at, name, AT_REMOVEDIR) == 0 || errno == ENOENT)
        return 0;
    return errno == ENOTEMPTY || errno == EEXIST ? 1 : -1;
}

/* Removes entries until one is a folder that must be entered first: *ret_folder is its name
 * (malloc'd), else NULL. */
static int empty_folder(int fd, char **ret_folder)
{
    autoclose int own = openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    with_cleanup(close_folder) DIR *folder = own < 0 ? NULL : fdopendir(own);
    if (!folder)
        return -1;
    own = -1;
    *ret_folder = NULL;
    for (;;) {
        errno = 0;
        struct dirent *entry = readdir(folder);
        if (!entry)
            return errno ? -1 : 0;
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        int result = remove_entry(fd, entry->d_name);
        if (result < 0)
            return -1;
        if (result > 0) {
            *ret_folder = strdup(entry->d_name);
            return *ret_folder ? 0 : -1;
        }
    }
}

/* Takes `name`, also on failure. */
static int go_down(struct removal *removal, char *name)
{
    autofree char *owned = name;
    struct stat status;
    if (removal->depth == removal->cap) {
        size_t cap = removal->cap ? 2 * removal->cap : 16;
        struct level *levels = reallocarray(removal->levels, cap, sizeof(*levels));
        if (!levels)
            return -1;
        removal->levels = levels;
        removal->cap = cap;
    }
    if (fstat(removal->fd, &status) < 0)
        return -1;
    int fd = open_folder(removal->fd, name);
    if (fd < 0)
        return -1;
    close(removal->fd);
    removal->fd = fd;
    removal->levels[removal->depth++] = (struct level){
        .name = steal_pointer(&owned), .device = status.st_dev, .inode = status.st_ino};
    return 0;
}

static int go_up(struct removal *removal)
{
    struct level *level = &removal->levels[removal->depth - 1];
    autofree char *name = steal_pointer(&level->name);
    removal->depth--;
    struct stat status;
    autoclose int parent = openat(removal->fd, "..", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (parent < 0 || fstat(parent, &status) < 0)
        return -1;
    if (status.st_dev != level->device || status.st_ino != level->inode) {
        errno = ESTALE; /* somebody moved it while it was being removed */
        return -1;
    }
    close(removal->fd);
    removal->fd = steal_fd(&parent);
    return unlinkat(removal->fd, name, AT_REMOVEDIR) < 0 && errno != ENOENT ? -1 : 0;
}

static int remove_content(struct removal *removal)
{
    for (;;) {
        char *folder = NULL;
        if (empty_folder(removal->fd, &folder) < 0)
            return -1;
        if (!folder && removal->depth == 0)
            return 0;
        if ((folder ? go_down(removal, folder) : go_up(removal)) < 0)
            return -1;
    }
}

static int remove_child(int parent, const char *name)
{
    int result = remove_entry(parent, name);
    if (result <= 0)
        return result;
    with_cleanup(removal_deinit) struct removal removal = {.fd = open_folder(parent, name)};
    if (removal.fd < 0 || remove_content(&removal) < 0)
        return -1;
    return unlinkat(parent, name, AT_REMOVEDIR) < 0 && errno != ENOENT ? -1 : 0;
}

static int remove_and_report(int parent, const char *name, const char *path, struct error *err)
{
    if (remove_child(parent, name) == 0)
        return 0;
    if (errno == EBUSY || errno == EXDEV)
        return error_set_errno(err, ERROR_INTERNAL, errno,
                               "cannot remove %s: something is mounted in it", path);
    return error_set_errno(err, ERROR_INTERNAL, errno, "cannot remove %s", path);
}

int remove_tree(const char *path, struct error *err)
{
    autofree char *copy = strdup(path);
    if (!copy)
        return error_set(err, ERROR_INTERNAL, "out of memory");
    size_t len = strlen(copy);
    while (len > 1 && copy[len - 1] == '/')
        copy[--len] = '\0';
    char *slash = strrchr(copy, '/');
    const char *name = slash ? slash + 1 : copy;
    if (!*name || strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
        return error_set(err, ERROR_INVALID_REQUEST, "\"%s\" does not name a tree to remove", path);
    if (slash)
        *slash = '\0';

    const char *folder = !slash ? "." : *copy ? copy : "/";
    autoclose int parent = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (parent < 0 && (errno == ENOENT || errno == ENOTDIR))
        return 0;
    if (parent < 0)
        return error_set_errno(err, ERROR_INTERNAL, errno, "cannot open %s", folder);
    return remove_and_report(parent, name, path, err);
}

int remove_tree_at(int parent, const char *name, struct error *err)
{
    return remove_and_report(parent, name, name, err);
}
