/* Mounts, host name and /tmp of a container that runs; see attach.h. */
#include "worker/attach.h"

#include "base/cleanup.h"
#include "base/file.h"
#include "base/log.h"
#include "base/text.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define READ_ONLY (MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV)

/* ---- the folder ---- */

/* Every mount at or below it. */
static void detach_all(const char *folder)
{
    while (umount2(folder, MNT_DETACH | UMOUNT_NOFOLLOW) == 0) {
    }
}

int attach_folder_open(const char *folder, struct error *err)
{
    detach_all(folder);
    if (remove_tree(folder, err) < 0 || make_directories(folder, 0711, err) < 0)
        return -1;
    if (mount(folder, folder, NULL, MS_BIND, NULL) < 0)
        return error_set_errno(err, ERROR_UNAVAILABLE, errno, "cannot mount %s on itself", folder);
    if (mount(NULL, folder, NULL, MS_PRIVATE, NULL) == 0)
        return 0;
    error_set_errno(err, ERROR_UNAVAILABLE, errno, "cannot make the mount %s private", folder);
    detach_all(folder);
    return -1;
}

void attach_folder_close(const char *folder)
{
    struct error err = {0};
    detach_all(folder);
    if (remove_tree(folder, &err) < 0)
        log_warn("attach points are left behind", LOG_ERR(&err));
}

/* ---- points ---- */

/* A detached mount of the folder `path`, read-only; -1 with errno. */
static int clone_mount(const char *path, uint64_t propagation)
{
    struct mount_attr attributes = {.attr_set = READ_ONLY, .propagation = propagation};
    int tree = open_tree(AT_FDCWD, path, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
    if (tree < 0)
        return -1;
    if (mount_setattr(tree, "", AT_EMPTY_PATH, &attributes, sizeof(attributes)) == 0)
        return tree;
    int saved = errno;
    close(tree);
    errno = saved;
    return -1;
}

static int place(int tree, const char *path)
{
    int rc = move_mount(tree, "", AT_FDCWD, path, MOVE_MOUNT_F_EMPTY_PATH);
    int saved = errno;
    close(tree);
    errno = saved;
    return rc;
}

static int make_point(const char *path)
{
    if (mkdir(path, 0755) < 0)
        return -1;
    int tree = clone_mount(path, MS_SHARED);
    if (tree < 0 || place(tree, path) < 0)
        return -1;
    return open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
}

int attach_point_init(struct attach_point *point, const char *folder, const char *name,
                      struct error *err)
{
    *point = ATTACH_POINT_NONE;
    autofree char *path = string_printf("%s/%s", folder, name);
    if (!path)
        return error_set(err, ERROR_INTERNAL, "out of memory");
    int fd = make_point(path);
    if (fd < 0) {
        error_set_errno(err, ERROR_UNAVAILABLE, errno, "cannot make the attach point %s", path);
        detach_all(path);
        rmdir(path);
        return -1;
    }
    *point = (struct attach_point){.path = steal_pointer(&path), .fd = fd};
    return 0;
}

int attach_point_put(const struct attach_point *point, const char *code_dir, struct error *err)
{
    int tree = clone_mount(code_dir, MS_PRIVATE);
    if (tree < 0 || place(tree, point->path) < 0)
        return error_set_errno(err, ERROR_UNAVAILABLE, errno, "cannot mount the code %s", code_dir);
    return 0;
}

void attach_point_release(struct attach_point *point)
{
    /* Private first: what is unmounted then stays in the slaves. */
    struct mount_attr attributes = {.propagation = MS_PRIVATE};
    if (point->fd < 0)
        return;
    if (mount_setattr(point->fd, "", AT_EMPTY_PATH, &attributes, sizeof(attributes)) < 0)
        log_warn("attach point cannot be made private", LOG_STR("path", point->path),
                 LOG_INT("errno", errno));
    detach_all(point->path);
    close(point->fd);
    point->fd = -1;
}

void attach_point_remove(struct attach_point *point)
{
    attach_point_release(point);
    if (!point->path)
        return;
    rmdir(point->path);
    free(point->path);
    *point = ATTACH_POINT_NONE;
}

/* ---- the rest of a container ---- */

int attach_hostname(int pidfd, const char *name, struct error *err)
{
    int own = open("/proc/thread-self/ns/uts", O_RDONLY | O_CLOEXEC);
    if (own < 0 || setns(pidfd, CLONE_NEWUTS) < 0) {
        error_set_errno(err, ERROR_UNAVAILABLE, errno,
                        "cannot enter the container's UTS namespace");
        if (own >= 0)
            close(own);
        return -1;
    }
    int rc = sethostname(name, strlen(name));
    if (rc < 0)
        error_set_errno(err, ERROR_UNAVAILABLE, errno, "cannot set the container's host name");
    /* This thread must not stay there; a process that may enter another's may always go back. */
    if (setns(own, CLONE_NEWUTS) < 0)
        abort();
    close(own);
    return rc;
}

/* Never leads out of the container, whatever links its image has. */
static int open_in_container(pid_t pid, const char *path)
{
    struct open_how how = {.flags = O_PATH | O_DIRECTORY | O_CLOEXEC, .resolve = RESOLVE_IN_ROOT};
    char root_path[40];
    snprintf(root_path, sizeof(root_path), "/proc/%d/root", pid);
    int root = open(root_path, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (root < 0)
        return -1;
    int fd = (int)syscall(SYS_openat2, root, path, &how, sizeof(how));
    int saved = errno;
    close(root);
    errno = saved;
    return fd;
}

static int reconfigure(int mount_fd, const char *size)
{
    int context = fspick(mount_fd, "", FSPICK_EMPTY_PATH | FSPICK_CLOEXEC);
    if (context < 0)
        return -1;
    int rc = fsconfig(context, FSCONFIG_SET_STRING, "size", size, 0);
    if (rc == 0)
        rc = fsconfig(context, FSCONFIG_CMD_RECONFIGURE, NULL, NULL, 0);
    int saved = errno;
    close(context);
    errno = saved;
    return rc;
}

int attach_tmp_size(pid_t pid, int64_t bytes, struct error *err)
{
    char size[32];
    snprintf(size, sizeof(size), "%lld", (long long)bytes);
    int tmp = open_in_container(pid, "tmp");
    int rc = tmp < 0 ? -1 : reconfigure(tmp, size);
    if (rc < 0)
        error_set_errno(err, ERROR_UNAVAILABLE, errno, "cannot resize the container's /tmp");
    if (tmp >= 0)
        close(tmp);
    return rc;
}
