/* Times processes from their start to their end, without an interpreter in between that would take time of its own.
 *
 *     bench-spawn [--jobs N] [--parallel N] [--stdin FILE] [--chroot DIR] -- COMMAND... [::: COMMAND...]...
 *
 * A job runs its commands one after the other; `{}` at the end of an argument becomes the job's number. At most --parallel jobs run
 * at once. Their stdout goes to /dev/null. Prints one JSON object with each job's time in ns (`values`), the time from the
 * first start to the last end (`elapsed`), and how many jobs a second that is (`rate`). A command that fails ends everything
 * with exit status 1. */
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define COMMANDS_MAX 8
#define ARGUMENTS_MAX 64
#define ARGUMENT_BYTES 512

struct job {
    pid_t pid; /* 0: not running */
    size_t command;
    uint64_t started_ns;
};

static struct {
    long jobs, parallel;
    const char *input, *root;
} options = {.jobs = 1, .parallel = 1, .input = "/dev/null"};

static char **commands[COMMANDS_MAX]; /* each ends with NULL */
static size_t command_count;
static struct job *jobs;
static uint64_t *durations;

static void die(const char *what)
{
    perror(what);
    exit(2);
}

static void usage(void)
{
    fprintf(stderr, "usage: bench-spawn [--jobs N] [--parallel N] [--stdin FILE] [--chroot DIR] -- "
                    "COMMAND... [::: COMMAND...]...\n");
    exit(2);
}

static uint64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000ULL + (uint64_t)now.tv_nsec;
}

static void add_command(char **first)
{
    if (!*first || command_count == COMMANDS_MAX)
        usage();
    commands[command_count++] = first;
}

static void parse_commands(char **argument)
{
    add_command(argument);
    for (; *argument; argument++) {
        if (strcmp(*argument, ":::") != 0)
            continue;
        *argument = NULL;
        add_command(argument + 1);
    }
}

static void parse_options(int argc, char **argv)
{
    int i = 1;
    for (; i + 1 < argc && strcmp(argv[i], "--") != 0; i += 2) {
        if (strcmp(argv[i], "--jobs") == 0)
            options.jobs = atol(argv[i + 1]);
        else if (strcmp(argv[i], "--parallel") == 0)
            options.parallel = atol(argv[i + 1]);
        else if (strcmp(argv[i], "--stdin") == 0)
            options.input = argv[i + 1];
        else if (strcmp(argv[i], "--chroot") == 0)
            options.root = argv[i + 1];
        else
            usage();
    }
    if (i + 1 >= argc || options.jobs < 1 || options.parallel < 1)
        usage();
    parse_commands(argv + i + 1);
}

static void redirect(const char *path, int flags, int to)
{
    int fd = open(path, flags | O_CLOEXEC);
    if (fd < 0 || dup2(fd, to) < 0)
        die(path);
}

/* In the child. */
static void execute(char **command, long number)
{
    static char texts[ARGUMENTS_MAX][ARGUMENT_BYTES];
    char *arguments[ARGUMENTS_MAX + 1] = {NULL};
    for (size_t i = 0; command[i] && i < ARGUMENTS_MAX; i++) {
        size_t len = strlen(command[i]);
        arguments[i] = command[i];
        if (len < 2 || len > ARGUMENT_BYTES - 24 || strcmp(command[i] + len - 2, "{}") != 0)
            continue;
        snprintf(texts[i], ARGUMENT_BYTES, "%.*s%ld", (int)len - 2, command[i], number);
        arguments[i] = texts[i];
    }
    redirect(options.input, O_RDONLY, STDIN_FILENO);
    redirect("/dev/null", O_WRONLY, STDOUT_FILENO);
    if (options.root && (chroot(options.root) || chdir("/")))
        die(options.root);
    execvp(arguments[0], arguments);
    die(arguments[0]);
}

static void start_command(long number)
{
    struct job *job = &jobs[number];
    job->pid = fork();
    if (job->pid < 0)
        die("fork");
    if (job->pid == 0)
        execute(commands[job->command], number);
}

static void start_job(long number)
{
    jobs[number].started_ns = now_ns();
    start_command(number);
}

static long find_job(pid_t pid)
{
    for (long i = 0; i < options.jobs; i++) {
        if (jobs[i].pid == pid)
            return i;
    }
    return -1;
}

/* Takes the end of one command; true when its job is done. */
static bool take_end(void)
{
    int status;
    pid_t pid = wait(&status);
    if (pid < 0)
        die("wait");
    long number = find_job(pid);
    if (number < 0)
        return false;
    struct job *job = &jobs[number];
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
        fprintf(stderr, "%s of job %ld ended with wait status %#x\n", commands[job->command][0],
                number, (unsigned)status);
        exit(1);
    }
    job->pid = 0;
    if (++job->command < command_count) {
        start_command(number);
        return false;
    }
    durations[number] = now_ns() - job->started_ns;
    return true;
}

static void print_figures(uint64_t elapsed_ns)
{
    printf("{\"elapsed\": %llu, \"rate\": %.2f, \"values\": [", (unsigned long long)elapsed_ns,
           (double)options.jobs * 1e9 / (double)elapsed_ns);
    for (long i = 0; i < options.jobs; i++)
        printf("%s%llu", i ? ", " : "", (unsigned long long)durations[i]);
    printf("]}\n");
}

int main(int argc, char **argv)
{
    parse_options(argc, argv);
    jobs = calloc((size_t)options.jobs, sizeof(*jobs));
    durations = calloc((size_t)options.jobs, sizeof(*durations));
    if (!jobs || !durations)
        die("set-up");
    uint64_t begin_ns = now_ns();
    long started = 0, done = 0;
    while (started < options.jobs && started < options.parallel)
        start_job(started++);
    while (done < options.jobs) {
        if (!take_end())
            continue;
        done++;
        if (started < options.jobs)
            start_job(started++);
    }
    print_figures(now_ns() - begin_ns);
    return 0;
}
