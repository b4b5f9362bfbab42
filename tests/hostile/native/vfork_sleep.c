/* A parent of vfork() waits for its child in a sleep that no signal but SIGKILL ends, and the child never ends. The suite
 * looks for the name. */
#define _GNU_SOURCE
#include <signal.h>
#include <sys/prctl.h>
#include <unistd.h>

int main(void)
{
    prctl(PR_SET_NAME, "sleeps-on!");
    for (int i = 1; i < 64; i++)
        signal(i, SIG_IGN);
    for (int i = 0; i < 8; i++)
        if (vfork() == 0)
            continue;
    for (;;)
        pause();
}
