/* Three ways to outlive a parent: a child, a grandchild whose parent has ended, and a session of its own. Each has the marker that the suite
 * looks for as its name. */
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

static void stay(char *name)
{
    memcpy(name, "outlive!", 8);
    prctl(PR_SET_NAME, "outlive!");
    for (int i = 1; i < 64; i++)
        signal(i, SIG_IGN);
    for (;;)
        pause();
}

int main(int argc, char **argv)
{
    (void)argc;
    if (fork() == 0)
        stay(argv[0]);
    if (fork() == 0) {
        if (fork() == 0)
            stay(argv[0]);
        _exit(0);
    }
    if (fork() == 0) {
        setsid();
        if (fork() == 0)
            stay(argv[0]);
        _exit(0);
    }
    usleep(50000);
    puts("{\"left\": 3}");
    return 0;
}
