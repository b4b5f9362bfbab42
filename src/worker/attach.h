/* What reaches a container that runs already: a function's code, its host name, the size of its /tmp.
 *
 * A generic container binds a folder of its own, an attach point, at /app/function. The point is a shared mount on the host and the
 * container's bind is its slave, so what the worker mounts on the point appears in the container, with the flags that it was made
 * with (mount_namespaces(7), "Shared subtrees"):
 *
 *     attach_folder_open()                           once, at start: a private mount, so that nothing in it spreads over the host
 *     attach_point_init() … a container is started
 *     attach_point_put()                             code: read-only, nosuid, nodev
 *     attach_point_release()                         the host's mounts go; the container keeps what it has
 *     … the container has ended
 *     attach_point_remove()
 *     attach_folder_close()
 *
 * attach_point_put(), attach_hostname() and attach_tmp_size() are a few system calls each and belong on the loop thread.
 * attach_point_release() and attach_point_remove() wait for the kernel to let go of a mount: on a pool thread, please. */
#pragma once

#include "base/error.h"

#include <stdint.h>
#include <sys/types.h>

/* `folder` is made. What a predecessor left in it is unmounted and removed. */
int attach_folder_open(const char *folder, struct error *err);
void attach_folder_close(const char *folder);

struct attach_point {
    char *path; /* owned; for the bundle. NULL: there is none */
    int fd;     /* holds the point's own mount, below whatever is mounted on it; -1: released */
};

#define ATTACH_POINT_NONE ((struct attach_point){.fd = -1})

/* A point of this name in the folder. After a failure there is nothing to remove. */
int attach_point_init(struct attach_point *point, const char *folder, const char *name,
                      struct error *err);
/* Once. `code_dir` must stand for as long as the container does. */
int attach_point_put(const struct attach_point *point, const char *code_dir, struct error *err);
/* What was put stays in the container and ends with it; the host has no mount any more. The folder stays too: the kernel unmounts what is
 * mounted on a folder, in every namespace, when the folder is removed. */
void attach_point_release(struct attach_point *point);
/* Releases it, and removes the folder. Nothing to do without a point. */
void attach_point_remove(struct attach_point *point);

/* Of the container whose first process is `pidfd`. */
int attach_hostname(int pidfd, const char *name, struct error *err);
/* New size of the tmpfs at /tmp in the container of process `pid`. */
int attach_tmp_size(pid_t pid, int64_t bytes, struct error *err);
