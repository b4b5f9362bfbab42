/* faas-init: the first process of every instance. Reads its command line, makes itself untouchable,
 * and serves. */
#include "init/instance.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define EXIT_USAGE 64

static const char usage[] =
    "usage: faas-init exec|standby|zygote|handler [--code DIR] [--run DIR] -- PROGRAM "
    "[ARGUMENT...]\n"
    "       faas-init generic [--code DIR] [--run DIR] [-- PROGRAM [ARGUMENT...]]\n"
    "First process of a function's container; the worker starts it. Without a worker it serves\n"
    "one invocation: payload from FUNCTION_PAYLOAD or stdin, result on stdout.\n"
    "example: FUNCTION_PAYLOAD='{}' faas-init exec --code . --run /tmp/run -- ./bootstrap\n";

int mode_parse(const char *name, enum mode *ret_mode)
{
    static const char *const names[] = {"exec", "standby", "zygote", "handler"};

    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        if (strcmp(name, names[i]) == 0) {
            *ret_mode = (enum mode)i;
            return 0;
        }
    return -1;
}

static int parse_arguments(struct instance *instance, char **argv)
{
    bool generic = argv[0] && argv[1] && strcmp(argv[1], "generic") == 0;

    if (generic)
        instance->mode = MODE_GENERIC;
    else if (!argv[0] || !argv[1] || mode_parse(argv[1], &instance->mode) != 0)
        return -1;
    for (argv += 2; *argv && strcmp(*argv, "--") != 0; argv += 2) {
        if (!argv[1])
            return -1;
        if (strcmp(*argv, "--code") == 0)
            instance->code_dir = argv[1];
        else if (strcmp(*argv, "--run") == 0)
            instance->run_dir = argv[1];
        else
            return -1;
    }
    if (generic && !argv[0])
        return 0;
    if (!argv[0] || !argv[1])
        return -1;
    instance->argv = argv + 1;
    return 0;
}

/* Whatever was inherited besides the protocol's descriptors is not ours to pass on. */
static void close_unknown_descriptors(void)
{
    int fd;

    do
        fd = open("/dev/null", O_RDWR | O_CLOEXEC);
    while (fd >= 0 && fd <= 2 && fcntl(fd, F_SETFD, 0) == 0);
    if (fd > 2)
        close(fd);
    for (fd = INSTANCE_FD_CONTROL; fd <= INSTANCE_FD_STDERR; fd++)
        fcntl(fd, F_SETFD, FD_CLOEXEC);
    if (syscall(SYS_close_range, INSTANCE_FD_STDERR + 1, ~0U, 0) != 0)
        for (fd = INSTANCE_FD_STDERR + 1; fd < 1024; fd++)
            close(fd);
}

static void become_untouchable(struct instance *instance)
{
    ssize_t len;

    instance->own_pid = getpid();
    instance->is_pid1 = instance->own_pid == 1;
    instance->oom_fd = open("/proc/self/oom_score_adj", O_RDWR | O_CLOEXEC);
    len = instance->oom_fd < 0
              ? -1
              : pread(instance->oom_fd, instance->oom_score, sizeof(instance->oom_score) - 1, 0);
    if (len <= 0)
        instance->oom_fd = -1;
    prctl(PR_SET_DUMPABLE, 0);
    prctl(PR_SET_NAME, "faas-init");
    if (!instance->is_pid1)
        prctl(PR_SET_CHILD_SUBREAPER, 1);
    umask(022);
}

/* Blocked signals are queued even for PID 1, and their default action never happens. Dispositions
 * go back to the default because the function's processes would inherit ignored ones. */
static int take_signals(struct instance *instance)
{
    sigset_t all;

    for (int number = 1; number < NSIG; number++)
        signal(number, SIG_DFL);
    sigfillset(&all);
    sigprocmask(SIG_SETMASK, &all, NULL);
    instance->signal_fd = signalfd(-1, &all, SFD_CLOEXEC | SFD_NONBLOCK);
    return instance->signal_fd < 0 ? -1 : 0;
}

bool signals_take(struct instance *instance)
{
    struct signalfd_siginfo queue[8];
    ssize_t len;

    while ((len = read(instance->signal_fd, queue, sizeof(queue))) > 0)
        for (size_t i = 0; i < (size_t)len / sizeof(queue[0]); i++) {
            bool end = queue[i].ssi_signo == SIGTERM || queue[i].ssi_signo == SIGINT ||
                       queue[i].ssi_signo == SIGHUP;

            /* A sender inside of the namespace (which has an id here) is the function. */
            if (end && (!instance->is_pid1 || queue[i].ssi_pid == 0))
                instance->told_to_end = true;
        }
    return instance->told_to_end;
}

static bool has_worker(void)
{
    struct stat info;

    return fstat(INSTANCE_FD_CONTROL, &info) == 0 && S_ISSOCK(info.st_mode);
}

int main(int argc, char **argv)
{
    struct instance instance = {.code_dir = "/app/function", .run_dir = "/run/faas"};

    (void)argc;
    if (parse_arguments(&instance, argv) != 0) {
        fputs(usage, stderr);
        return EXIT_USAGE;
    }
    close_unknown_descriptors();
    become_untouchable(&instance);
    if (take_signals(&instance) != 0) {
        fprintf(stderr, "faas-init: no signal descriptor: %s\n", strerror(errno));
        return 1;
    }
    instance.run_fd = open(instance.run_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (instance.run_fd < 0) {
        fprintf(stderr, "faas-init: cannot open the folder for the payload, %s: %s\n",
                instance.run_dir, strerror(errno));
        return 1;
    }
    if (has_worker())
        return serve(&instance);
    if (instance.mode != MODE_GENERIC)
        return standalone(&instance);
    fputs("faas-init: a generic instance has no function until its worker loads one\n", stderr);
    return EXIT_USAGE;
}
