/* Making and removing a bound network namespace. */
#include "worker/network_namespace.h"

#include "base/cleanup.h"
#include "base/file.h"
#include "worker/netlink.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/netlink.h>
#include <net/if.h>
#include <pthread.h>
#include <sched.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <unistd.h>

/* What a thread of its own does, and how it went. */
struct errand {
    int (*run)(struct errand *errand, struct error *err);
    const char *path, *interface;
    int index, fd;
    struct error err;
    int failed;
};

static int loopback_up(struct error *err)
{
    struct ifreq request = {.ifr_name = "lo", .ifr_flags = IFF_UP | IFF_RUNNING};
    autoclose int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

    if (fd < 0 || ioctl(fd, SIOCSIFFLAGS, &request) < 0)
        return error_set_errno(err, ERROR_INTERNAL, errno, "loopback of a network namespace");
    return 0;
}

/* /proc/sys/net shows the namespace of the thread that opens it. */
static int ipv6_off(struct error *err)
{
    static const char *const switches[] = {"/proc/sys/net/ipv6/conf/all/disable_ipv6",
                                           "/proc/sys/net/ipv6/conf/default/disable_ipv6"};

    for (size_t i = 0; i < ARRAY_LENGTH(switches); i++)
        if (path_exists(switches[i]) && write_file_value(switches[i], "1", err) < 0)
            return -1;
    return 0;
}

static int make_here(const char *path, struct error *err)
{
    if (unshare(CLONE_NEWNET) < 0)
        return error_set_errno(err, ERROR_UNAVAILABLE, errno, "make a network namespace");
    if (loopback_up(err) < 0 || ipv6_off(err) < 0)
        return -1;
    if (mount("/proc/thread-self/ns/net", path, NULL, MS_BIND, NULL) < 0)
        return error_set_errno(err, ERROR_UNAVAILABLE, errno, "bind a network namespace to %s",
                               path);
    return 0;
}

static void *errand_thread(void *data)
{
    struct errand *errand = data;

    errand->failed = errand->run(errand, &errand->err);
    return NULL;
}

static int run_in_thread(struct errand *errand, struct error *err)
{
    pthread_t thread;
    int failed = pthread_create(&thread, NULL, errand_thread, errand);

    if (failed)
        return error_set_errno(err, ERROR_INTERNAL, failed, "start a thread");
    pthread_join(thread, NULL);
    if (errand->failed && err)
        *err = errand->err;
    return errand->failed;
}

static int run_make(struct errand *errand, struct error *err)
{
    return make_here(errand->path, err);
}

int network_namespace_make(const char *path, struct error *err)
{
    struct errand errand = {.run = run_make, .path = path};
    int fd = open(path, O_RDONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0444);

    if (fd < 0)
        return error_set_errno(err, ERROR_UNAVAILABLE, errno, "make %s", path);
    close(fd);
    if (run_in_thread(&errand, err) == 0)
        return 0;
    unlink(path);
    return -1;
}

static int run_netlink(struct errand *errand, struct error *err)
{
    autoclose int namespace_fd = open(errand->path, O_RDONLY | O_CLOEXEC);

    if (namespace_fd < 0 || setns(namespace_fd, CLONE_NEWNET) < 0)
        return error_set_errno(err, ERROR_UNAVAILABLE, errno, "enter %s", errand->path);
    errand->index = (int)if_nametoindex(errand->interface);
    errand->fd = netlink_open(NETLINK_ROUTE, err);
    return errand->fd < 0 ? -1 : 0;
}

int network_namespace_netlink(const char *path, const char *interface, int *ret_index,
                              struct error *err)
{
    struct errand errand = {.run = run_netlink, .path = path, .interface = interface, .fd = -1};

    if (run_in_thread(&errand, err) < 0)
        return -1;
    *ret_index = errand.index;
    return errand.fd;
}

int network_namespace_remove(const char *path, struct error *err)
{
    /* EINVAL: nothing is mounted there. */
    if (umount2(path, MNT_DETACH | UMOUNT_NOFOLLOW) < 0 && errno != EINVAL && errno != ENOENT)
        return error_set_errno(err, ERROR_INTERNAL, errno, "unmount the network namespace %s",
                               path);
    if (unlink(path) < 0 && errno != ENOENT)
        return error_set_errno(err, ERROR_INTERNAL, errno, "remove %s", path);
    return 0;
}
