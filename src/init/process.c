/* Starts one program, with nothing of faas-init's own in it.
 *
 * CLONE_VFORK shares faas-init's memory with the child until it executes the program: nothing is
 * copied, the failure is told through a variable, and when the call returns the program runs. The
 * child uses a stack of its own and makes system calls only. */
#include "init/instance.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum step { STEP_DESCRIPTORS, STEP_FOLDER, STEP_EXECUTE };

struct start {
    const struct instance *instance;
    const struct program *program;
    volatile enum step step;
    volatile int error;
};

/* The sources are all above 3 and CLOEXEC, the last one above 4; the copies that dup2 makes are not. */
static int put_descriptors(const struct program *program)
{
    if (dup2(program->stdin_fd, 0) < 0 || dup2(program->stdout_fd, 1) < 0 ||
        dup2(program->stderr_fd, 2) < 0)
        return -1;
    if (program->socket_fd >= 0 && dup2(program->socket_fd, 3) < 0)
        return -1;
    if (program->keeper_fd >= 0 && dup2(program->keeper_fd, 4) < 0)
        return -1;
    return 0;
}

/* Looks in PATH for a bare name only: C libraries differ in what else execvpe() would try. */
static void execute(const struct program *program)
{
    if (strchr(program->argv[0], '/'))
        execve(program->argv[0], program->argv, program->env);
    else
        execvpe(program->argv[0], program->argv, program->env);
}

static int run_child(void *data)
{
    struct start *start = data;
    const struct program *program = start->program;
    sigset_t none;

    if (program->own_session)
        setsid();
    if (!start->instance->is_pid1)
        prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (program->subreaper)
        prctl(PR_SET_CHILD_SUBREAPER, 1);
    start->step = STEP_DESCRIPTORS;
    if (put_descriptors(program) == 0) {
        start->step = STEP_FOLDER;
        if (chdir(start->instance->code_dir) == 0) {
            start->step = STEP_EXECUTE;
            sigemptyset(&none);
            sigprocmask(SIG_SETMASK, &none, NULL);
            execute(program);
        }
    }
    start->error = errno;
    return 127; /* its exit status */
}

static void explain(const struct start *start, char *message)
{
    const char *name = start->program->argv[0];
    const char *code_dir = start->instance->code_dir;
    char path[4096];
    struct stat info;

    if (start->step == STEP_DESCRIPTORS) {
        snprintf(message, MESSAGE_MAX, "cannot start %s: %s", name, strerror(start->error));
        return;
    }
    if (start->step == STEP_FOLDER) {
        snprintf(message, MESSAGE_MAX, "cannot enter %s: %s", code_dir, strerror(start->error));
        return;
    }
    /* The kernel says ENOENT for a missing interpreter too, which would be a riddle. */
    snprintf(path, sizeof(path), "%s/%s", code_dir, name);
    if (start->error == ENOENT && strchr(name, '/') &&
        stat(name[0] == '/' ? name : path, &info) == 0)
        snprintf(message, MESSAGE_MAX,
                 "cannot start %s: the file is there, but the interpreter or loader that it names "
                 "is not in the image",
                 name);
    else
        snprintf(message, MESSAGE_MAX, "cannot start %s: %s", name, strerror(start->error));
}

/* oom_score_adj is inherited, so it is raised for the moment of the start. Writing the child's own
 * file is not possible for faas-init, nor for the child before it executes: both are not dumpable.
 */
static void set_oom_score(const struct instance *instance, const char *score)
{
    if (instance->oom_fd >= 0 && pwrite(instance->oom_fd, score, strlen(score), 0) < 0)
        return; /* the limit holds without it; only the choice of the victim is less good */
}

pid_t program_start(struct instance *instance, const struct program *program, char *message)
{
    static char stack[64 * 1024] __attribute__((aligned(64)));
    struct start start = {.instance = instance, .program = program};
    pid_t pid;

    if (program->expendable)
        set_oom_score(instance, "1000");
    pid = clone(run_child, stack + sizeof(stack), CLONE_VM | CLONE_VFORK | SIGCHLD, &start);
    if (program->expendable)
        set_oom_score(instance, instance->oom_score);
    if (pid < 0) {
        snprintf(message, MESSAGE_MAX, "cannot start %s: no process can be made: %s",
                 program->argv[0], strerror(errno));
        return -1;
    }
    if (start.error == 0)
        return pid;
    waitpid(pid, NULL, 0);
    explain(&start, message);
    return -1;
}
