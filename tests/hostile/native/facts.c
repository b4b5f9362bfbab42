/* Who and where a program in a hostile image is, and which of its device files it can open. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static int opened(const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);

    if (fd >= 0)
        close(fd);
    return fd >= 0;
}

int main(void)
{
    char folder[4096] = "";
    const char *name = getenv("FUNCTION_NAME");

    if (!getcwd(folder, sizeof(folder)))
        folder[0] = '\0';
    printf("{\"uid\": %d, \"gid\": %d, \"euid\": %d, \"egid\": %d, \"folder\": \"%s\", \"name\": "
           "\"%s\", "
           "\"opened\": %s}\n",
           (int)getuid(), (int)getgid(), (int)geteuid(), (int)getegid(), folder, name ? name : "",
           opened("/dev/mem") || opened("/disk") || opened("/kmsg") ? "true" : "false");
    return 0;
}
