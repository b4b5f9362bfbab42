/* Ends what an invocation left running.
 *
 * Whether something is left is asked of the kernel with waitpid: orphans come to the nearest
 * subreaper (PID 1, or the process that called PR_SET_CHILD_SUBREAPER), so "no child" there means
 * that nothing is left anywhere below. Lists of processes are only used to know whom to kill: they
 * may miss one that forks or ends at that moment, and the next round finds it. A process with
 * SIGKILL pending cannot fork, so rounds converge. */
#include "init/instance.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define ROUND_MS 2

uint64_t now_ms(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

static pid_t parse_pid(const char *text)
{
    char *end;
    long pid = strtol(text, &end, 10);

    return *end == '\0' && pid > 0 ? (pid_t)pid : 0;
}

/* PID 1: every process of the namespace. */
static void kill_namespace(pid_t spare)
{
    DIR *dir;
    struct dirent *entry;

    if (spare == 0) {
        kill(-1, SIGKILL);
        return;
    }
    dir = opendir("/proc");
    if (!dir)
        return;
    while ((entry = readdir(dir))) {
        pid_t pid = parse_pid(entry->d_name);

        if (pid > 1 && pid != spare)
            kill(pid, SIGKILL);
    }
    closedir(dir);
}

static void kill_descendants(pid_t pid, pid_t spare, int depth);

/* `path` names a `children` file: process ids with a blank after each. */
static void kill_listed(const char *path, pid_t spare, int depth)
{
    FILE *file = fopen(path, "re");
    int pid;

    if (!file)
        return;
    while (fscanf(file, "%d", &pid) == 1) {
        /* Children first: once their parent is dead they are found elsewhere. */
        kill_descendants(pid, spare, depth + 1);
        if (pid != spare)
            kill(pid, SIGKILL);
    }
    fclose(file);
}

/* Not PID 1: follows the lists of children, which each thread has for itself. */
static void kill_descendants(pid_t pid, pid_t spare, int depth)
{
    char path[96];
    DIR *dir;
    struct dirent *entry;

    if (depth > 64)
        return;
    snprintf(path, sizeof(path), "/proc/%d/task", pid);
    dir = opendir(path);
    if (!dir)
        return;
    while ((entry = readdir(dir))) {
        if (parse_pid(entry->d_name) == 0)
            continue;
        snprintf(path, sizeof(path), "/proc/%d/task/%.20s/children", pid, entry->d_name);
        kill_listed(path, spare, depth);
    }
    closedir(dir);
}

static void kill_round(struct instance *instance, pid_t spare)
{
    if (instance->is_pid1)
        kill_namespace(spare);
    else
        kill_descendants(instance->own_pid, spare, 0);
}

void leftovers_kill(struct instance *instance)
{
    kill_round(instance, instance->keeper);
}

/* Reaps all that ended; true when there is no child at all. */
static bool reap_all(void)
{
    pid_t pid;

    do
        pid = waitpid(-1, NULL, WNOHANG | __WALL);
    while (pid > 0 || (pid < 0 && errno == EINTR));
    return pid < 0;
}

int leftovers_end(struct instance *instance)
{
    struct pollfd signals = {.fd = instance->signal_fd, .events = POLLIN};

    uint64_t give_up_ms = now_ms() + CLEANUP_LIMIT_MS;

    while (!reap_all()) {
        if (now_ms() > give_up_ms)
            return -1;
        kill_round(instance, 0);
        poll(&signals, 1, ROUND_MS);
        signals_take(instance);
    }
    return 0;
}
