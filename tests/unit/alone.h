/* Runs a piece of a test in a process that has one thread and three descriptors, which the test framework's has not.
 *
 *     ALONE_CHECK(condition)     ends that process, with the line as its exit status
 *     run_alone(piece)           0 when all was well, else the line (or minus the signal) */
#pragma once

#include <sys/wait.h>
#include <unistd.h>

#define ALONE_CHECK(condition)                                                                     \
    do {                                                                                           \
        if (!(condition))                                                                          \
            _exit(__LINE__ % 255 + 1);                                                             \
    } while (0)

static inline int alone_status(pid_t pid)
{
    int status = 0;

    while (waitpid(pid, &status, 0) != pid)
        ;
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

static inline int run_alone(void (*piece)(void))
{
    pid_t pid = fork();

    if (pid == 0) {
        alarm(60); /* a bound on hanging */
        close_range(3, ~0u, 0);
        piece();
        _exit(0);
    }
    return alone_status(pid);
}
