/* Bytes that an instance has received and sent, from /proc/<pid>/net/dev (proc(5)). */
#include "worker/network.h"

#include "base/cleanup.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
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

/* The number in this column, the first one being 0. */
static uint64_t column(const char *text, int number)
{
    for (int i = 0; i < number; i++) {
        text += strspn(text, " ");
        text += strcspn(text, " ");
    }
    return strtoull(text, NULL, 10);
}

/* "  eth0: RX_BYTES packets errs drop fifo frame compressed multicast TX_BYTES …" */
static void add_line(const char *line, struct network_counters *sum)
{
    const char *name = line + strspn(line, " ");
    const char *colon = strchr(name, ':');

    if (!colon || strncmp(name, "lo:", 3) == 0)
        return;
    sum->in_bytes += column(colon + 1, 0);
    sum->out_bytes += column(colon + 1, 8);
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
