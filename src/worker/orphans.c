/* Reaps dead children that nobody waits for; see orphans.h.
 *
 * Everything that this program starts is waited for by its pidfd a moment after it ends (base/spawn.c). So a child that is dead at two
 * looks in a row is nobody's. */
#include "worker/orphans.h"

#include "base/log.h"
#include "base/loop.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#define LOOK_MS 5000
#define DEAD_MAX 256

struct orphans {
    struct loop_timer *timer;
    pid_t dead[DEAD_MAX]; /* at the last look */
    size_t count;
};

static bool is_zombie(pid_t pid)
{
    char path[40], line[512];
    snprintf(path, sizeof(path), "/proc/%d/stat", pid);
    FILE *file = fopen(path, "re");
    const char *name_end = NULL;
    if (file && fgets(line, sizeof(line), file))
        name_end = strrchr(line, ')');
    if (file)
        fclose(file);
    return name_end && name_end[1] == ' ' && name_end[2] == 'Z';
}

static bool was_dead(const struct orphans *orphans, pid_t pid)
{
    for (size_t i = 0; i < orphans->count; i++) {
        if (orphans->dead[i] == pid)
            return true;
    }
    return false;
}

/* Children of every thread: a fork is its thread's. */
static void look(struct orphans *orphans, bool all)
{
    pid_t dead[DEAD_MAX];
    size_t count = 0;
    pid_t pid;
    FILE *file = fopen("/proc/thread-self/children", "re");
    while (file && count < DEAD_MAX && fscanf(file, "%d", &pid) == 1) {
        if (!is_zombie(pid))
            continue;
        if (all || was_dead(orphans, pid)) {
            if (waitpid(pid, NULL, WNOHANG) == pid)
                log_debug("reaped an orphan", LOG_INT("pid", pid));
        } else {
            dead[count++] = pid;
        }
    }
    if (file)
        fclose(file);
    memcpy(orphans->dead, dead, count * sizeof(dead[0]));
    orphans->count = count;
}

static void on_timer(void *data)
{
    look(data, false);
}

struct orphans *orphans_start(uv_loop_t *loop, struct error *err)
{
    struct orphans *orphans = calloc(1, sizeof(*orphans));
    if (!orphans) {
        error_set(err, ERROR_INTERNAL, "out of memory");
        return NULL;
    }
    if (prctl(PR_SET_CHILD_SUBREAPER, 1) < 0) {
        error_set_errno(err, ERROR_INTERNAL, errno, "cannot become a subreaper");
        free(orphans);
        return NULL;
    }
    orphans->timer = loop_timer_start(loop, LOOK_MS, LOOK_MS, on_timer, orphans, err);
    if (!orphans->timer) {
        free(orphans);
        return NULL;
    }
    return orphans;
}

void orphans_stop(struct orphans *orphans)
{
    if (!orphans)
        return;
    look(orphans, true);
    loop_timer_stop(orphans->timer);
    free(orphans);
}
