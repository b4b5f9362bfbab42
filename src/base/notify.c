/* Datagrams to the service manager; see notify.h. */
#include "base/notify.h"

#include "base/log.h"
#include "base/loop.h"

#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

struct notify {
    int fd;
    struct sockaddr_un address;
    socklen_t address_len;
    struct loop_timer *watchdog;
};

/* A path, or an abstract name that begins with '@'. */
static int set_address(struct notify *notify, const char *name)
{
    size_t len = strlen(name);
    if ((name[0] != '/' && name[0] != '@') || len >= sizeof(notify->address.sun_path))
        return -1;
    notify->address.sun_family = AF_UNIX;
    memcpy(notify->address.sun_path, name, len);
    if (name[0] == '@')
        notify->address.sun_path[0] = '\0';
    notify->address_len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len);
    return 0;
}

/* With a descriptor, unless that is -1. */
static int tell_with(const struct notify *notify, const char *text, int fd)
{
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(sizeof(int))];
    } control = {0};
    struct iovec part = {.iov_base = (void *)text, .iov_len = strlen(text)};
    struct msghdr message = {.msg_name = (void *)&notify->address,
                             .msg_namelen = notify->address_len,
                             .msg_iov = &part,
                             .msg_iovlen = 1};
    if (fd >= 0) {
        message.msg_control = control.bytes;
        message.msg_controllen = sizeof(control.bytes);
        struct cmsghdr *header = CMSG_FIRSTHDR(&message);
        header->cmsg_level = SOL_SOCKET;
        header->cmsg_type = SCM_RIGHTS;
        header->cmsg_len = CMSG_LEN(sizeof(int));
        memcpy(CMSG_DATA(header), &fd, sizeof(fd));
    }
    if (sendmsg(notify->fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT) >= 0)
        return 0;
    log_warn("the service manager cannot be told", LOG_STR("what", text));
    return -1;
}

static void tell(const struct notify *notify, const char *text)
{
    tell_with(notify, text, -1);
}

static void feed(void *data)
{
    tell(data, "WATCHDOG=1");
}

/* Half of the time that the manager gives; 0 when it does not watch this process. */
static uint64_t feed_every_ms(void)
{
    const char *usec = getenv("WATCHDOG_USEC");
    const char *pid = getenv("WATCHDOG_PID");
    if (!usec || (pid && strtol(pid, NULL, 10) != getpid()))
        return 0;
    return strtoull(usec, NULL, 10) / 2000;
}

static struct notify *notify_open(void)
{
    const char *name = getenv("NOTIFY_SOCKET");
    struct notify *notify = name ? calloc(1, sizeof(*notify)) : NULL;
    if (!notify)
        return NULL;
    notify->fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (notify->fd >= 0 && set_address(notify, name) == 0)
        return notify;
    notify_free(notify);
    return NULL;
}

bool notify_keep_fd(const struct notify *notify, const char *name, int fd)
{
    char text[128];
    if (!notify)
        return false;
    snprintf(text, sizeof(text), "FDSTORE=1\nFDNAME=%s", name);
    return tell_with(notify, text, fd) == 0;
}

void notify_drop_fd(const char *name)
{
    char text[128];
    struct notify *notify = notify_open();
    snprintf(text, sizeof(text), "FDSTOREREMOVE=1\nFDNAME=%s", name);
    if (notify)
        tell(notify, text);
    notify_free(notify);
}

struct notify *notify_ready(uv_loop_t *loop)
{
    struct notify *notify = notify_open();
    if (!notify)
        return NULL;
    tell(notify, "READY=1");
    uint64_t every_ms = feed_every_ms();
    if (every_ms > 0)
        notify->watchdog = loop_timer_start(loop, every_ms, every_ms, feed, notify, NULL);
    return notify;
}

void notify_stopping(struct notify *notify)
{
    if (notify)
        tell(notify, "STOPPING=1");
}

void notify_free(struct notify *notify)
{
    if (!notify)
        return;
    loop_timer_stop(notify->watchdog);
    if (notify->fd >= 0)
        close(notify->fd);
    free(notify);
}
