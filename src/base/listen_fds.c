/* What a service manager passes: see listen_fds.h. */
#include "base/listen_fds.h"

#include "base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define FIRST_FD 3
#define FDS_MAX 64

/* -1 when it is no number from 1 to `max`. */
static long read_number(const char *text, long max)
{
    char *end = NULL;
    errno = 0;
    long number = text ? strtol(text, &end, 10) : -1;
    return text && end != text && !*end && errno == 0 && number >= 1 && number <= max ? number : -1;
}

/* The `index`th of the names, which colons part. */
static bool has_name(const char *names, long index, const char *name)
{
    size_t len = strlen(name);
    for (; names && index > 0; index--) {
        names = strchr(names, ':');
        if (names)
            names++;
    }
    return names && strncmp(names, name, len) == 0 && (names[len] == ':' || !names[len]);
}

static bool is_listener(int fd)
{
    int accepts = 0, type = 0, domain = 0;
    socklen_t len = sizeof(int);
    return getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &accepts, &len) == 0 && accepts &&
           getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &len) == 0 && type == SOCK_STREAM &&
           getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &len) == 0 &&
           (domain == AF_INET || domain == AF_INET6);
}

static int make_ready(int fd)
{
    int flags = fcntl(fd, F_GETFL);
    return flags < 0 || fcntl(fd, F_SETFD, FD_CLOEXEC) < 0 ? -1
                                                           : fcntl(fd, F_SETFL, flags | O_NONBLOCK);
}

int listen_fds_take(const char *name)
{
    const char *names = getenv("LISTEN_FDNAMES");
    long pid = read_number(getenv("LISTEN_PID"), INT32_MAX);
    long count = pid == getpid() ? read_number(getenv("LISTEN_FDS"), FDS_MAX) : 0;
    int found = -1;
    for (long i = 0; i < count; i++) {
        int fd = FIRST_FD + (int)i;
        if (found < 0 && has_name(names, i, name) && is_listener(fd) && make_ready(fd) == 0) {
            found = fd;
        } else {
            log_warn("a descriptor that was passed is not used", LOG_INT("descriptor", fd),
                     LOG_STR("wanted", name));
            close(fd);
        }
    }
    unsetenv("LISTEN_PID");
    unsetenv("LISTEN_FDS");
    unsetenv("LISTEN_FDNAMES");
    return found;
}
