/* Bytes that an instance has received and sent, from /proc/<pid>/net/dev (proc(5)). */
#include "worker/network.h"

#include "base/cleanup.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

int network_counters_open(pid_t pid, struct error *err)
{
    char path[64];

    snprintf(path, sizeof(path), "/proc/%d/net/dev", (int)pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        error_set_errno(err, errno == ENOENT ? ERROR_NOT_FOUND : ERROR_UNAVAILABLE, errno,
                        "open %s", path);
    return fd;
}

/* "  eth0: RX_BYTES packets errs drop fifo frame compressed multicast TX_BYTES …" */
static void add_line(const char *line, struct network_counters *sum)
{
    unsigned long long in = 0, out = 0;
    const char *name = line + strspn(line, " ");
    const char *colon = strchr(name, ':');

    if (!colon || strncmp(name, "lo:", 3) == 0)
        return;
    if (sscanf(colon + 1, "%llu %*u %*u %*u %*u %*u %*u %*u %llu", &in, &out) != 2)
        return;
    sum->in_bytes += in;
    sum->out_bytes += out;
}

int network_counters_read(int fd, struct network_counters *ret, struct error *err)
{
    char text[4096];
    char *rest = NULL;
    ssize_t len = pread(fd, text, sizeof(text) - 1, 0);

    if (len < 0)
        return error_set_errno(err, ERROR_UNAVAILABLE, errno, "read network counters");
    text[len] = '\0';
    *ret = (struct network_counters){0};
    for (char *line = strtok_r(text, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest))
        add_line(line, ret);
    return 0;
}
