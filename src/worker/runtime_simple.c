/* Instances as plain processes of this host: the same faas-init, without any isolation.
 *
 * faas-init gets a process group and a run folder of its own and is the subreaper of what it starts, so everything of an
 * instance is below it in the process tree until it is killed; stop() stops the whole tree first, so that nothing can fork away. Readings
 * come from /proc and are coarse: CPU time in clock ticks, memory of what lives at the time. */
#include "base/cleanup.h"
#include "base/file.h"
#include "base/log.h"
#include "base/loop.h"
#include "base/spawn.h"
#include "base/text.h"
#include "worker/config.h"
#include "worker/instance_spec.h"
#include "worker/runtime.h"

#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Looks for new processes while a tree is being stopped. */
#define STOP_ROUNDS 20
#define TREE_MAX 8192

struct simple_runtime {
    struct runtime base;
    uv_loop_t *loop;
    const struct worker_settings *settings;
    char *init, *runs, *path; /* owned: program, folder of run folders, "PATH=…" */
    size_t instances;
    bool closing;
    void (*closed)(void *data);
    void *closed_data;
};

struct runtime_instance {
    struct simple_runtime *runtime;
    char *run_dir;       /* owned */
    struct spawn *spawn; /* NULL once it has ended */
    pid_t pid;
    uint64_t memory_peak_bytes;
    bool stopping;
    runtime_started_fn *started; /* NULL once called */
    void *started_data;
    runtime_stopped_fn *stopped;
    void *stopped_data;
};

/* ---- the process tree ---- */

struct process {
    pid_t pid;
    uint64_t ticks; /* CPU time with that of reaped children */
    bool dead;
};

static bool read_process(pid_t pid, struct process *ret)
{
    char path[40], line[1024], state;
    unsigned long user, system;
    long child_user, child_system;
    snprintf(path, sizeof(path), "/proc/%d/stat", pid);
    FILE *file = fopen(path, "re");
    const char *name_end = NULL;
    if (file && fgets(line, sizeof(line), file))
        name_end = strrchr(line, ')');
    if (file)
        fclose(file);
    if (!name_end ||
        sscanf(name_end + 1, " %c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu %ld %ld", &state,
               &user, &system, &child_user, &child_system) != 5)
        return false;
    *ret = (struct process){.pid = pid,
                            .ticks = user + system + (uint64_t)(child_user + child_system),
                            .dead = state == 'Z' || state == 'X'};
    return true;
}

/* Adds the children of every thread of `pid`. */
static size_t add_children(pid_t pid, struct process *processes, size_t count)
{
    char path[64];
    snprintf(path, sizeof(path), "/proc/%d/task", pid);
    DIR *directory = opendir(path);
    const struct dirent *entry;
    while (directory && (entry = readdir(directory))) {
        pid_t child;
        snprintf(path, sizeof(path), "/proc/%d/task/%d/children", pid, atoi(entry->d_name));
        FILE *file = entry->d_name[0] == '.' ? NULL : fopen(path, "re");
        while (file && count < TREE_MAX && fscanf(file, "%d", &child) == 1) {
            if (read_process(child, &processes[count]))
                count++;
        }
        if (file)
            fclose(file);
    }
    if (directory)
        closedir(directory);
    return count;
}

/* `root` and everything below it. */
static size_t read_tree(pid_t root, struct process *processes)
{
    size_t count = read_process(root, &processes[0]) ? 1 : 0;
    for (size_t i = 0; i < count; i++)
        count = add_children(processes[i].pid, processes, count);
    return count;
}

static uint64_t peak_of(pid_t pid)
{
    char path[40], line[256];
    unsigned long kib = 0;
    snprintf(path, sizeof(path), "/proc/%d/status", pid);
    FILE *file = fopen(path, "re");
    while (file && fgets(line, sizeof(line), file)) {
        if (sscanf(line, "VmHWM: %lu", &kib) == 1)
            break;
    }
    if (file)
        fclose(file);
    return kib * 1024ull;
}

/* Stops everything below `root` until nothing new appears, then kills all of it. */
static void kill_tree(pid_t root)
{
    struct process *processes = calloc(TREE_MAX, sizeof(*processes));
    if (!processes) {
        kill(root, SIGKILL);
        return;
    }
    size_t count = 0, alive = 0, before = 0;
    for (int round = 0; round < STOP_ROUNDS; round++) {
        before = alive;
        alive = 0;
        count = read_tree(root, processes);
        for (size_t i = 0; i < count; i++) {
            if (!processes[i].dead) {
                kill(processes[i].pid, SIGSTOP);
                alive++;
            }
        }
        if (round > 0 && alive <= before)
            break;
    }
    for (size_t i = 0; i < count; i++) {
        if (!processes[i].dead)
            kill(processes[i].pid, SIGKILL);
    }
    free(processes);
}

/* ---- life ---- */

static void finish_close(struct simple_runtime *runtime);

static void instance_destroy(struct runtime_instance *instance)
{
    struct simple_runtime *runtime = instance->runtime;
    runtime_stopped_fn *stopped = instance->stopped;
    void *data = instance->stopped_data;
    struct error err = {0};
    if (instance->run_dir && remove_tree(instance->run_dir, &err) < 0)
        log_warn("run folder could not be removed", LOG_ERR(&err));
    free(instance->run_dir);
    free(instance);
    runtime->instances--;
    if (stopped)
        stopped(data);
    finish_close(runtime);
}

static void on_ended(void *data, const struct spawn_result *result)
{
    struct runtime_instance *instance = data;
    instance->spawn = NULL;
    if (result->errors_len > 0)
        log_warn("faas-init said", LOG_STR("text", result->errors));
    if (instance->stopping)
        instance_destroy(instance);
}

static void deferred_started(void *data)
{
    struct runtime_instance *instance = data;
    if (!instance->stopping)
        instance->started(instance->started_data, NULL);
}

/* "init MODE --code DIR --run DIR -- ARGV…" */
static const char **make_argv(const struct runtime_instance *instance,
                              const struct runtime_start *start)
{
    const char *const first[] = {instance->runtime->init,
                                 start->command[0],
                                 "--code",
                                 start->code_dir,
                                 "--run",
                                 instance->run_dir,
                                 NULL};
    return instance_strings_join(first, start->command + 1);
}

static int start_process(struct runtime_instance *instance, const struct runtime_start *start,
                         struct error *err)
{
    struct simple_runtime *runtime = instance->runtime;
    const char *const host_env[] = {runtime->path, NULL};
    autofree const char **argv = make_argv(instance, start);
    autofree const char **environment = instance_environment(start->spec, host_env, err);
    if (!environment)
        return -1;
    if (!argv)
        return error_set(err, ERROR_INTERNAL, "out of memory");
    struct spawn_options options = {
        .argv = argv,
        .environment = environment,
        .directory = start->code_dir,
        .fds = start->fds,
        .fd_count = INSTANCE_FD_COUNT,
        .output_max = 4096,
        .new_process_group = true,
    };
    instance->spawn = spawn_start(runtime->loop, &options, on_ended, instance, err);
    if (!instance->spawn)
        return -1;
    instance->pid = spawn_pid(instance->spawn);
    return loop_defer(runtime->loop, deferred_started, instance, err);
}

static struct runtime_instance *simple_start(struct runtime *base,
                                             const struct runtime_start *start,
                                             runtime_started_fn *started, void *data,
                                             struct error *err)
{
    struct simple_runtime *runtime = (struct simple_runtime *)base;
    struct runtime_instance *instance = calloc(1, sizeof(*instance));
    int rc = instance ? 0 : error_set(err, ERROR_INTERNAL, "out of memory");
    if (instance) {
        instance->runtime = runtime;
        instance->started = started;
        instance->started_data = data;
        runtime->instances++;
        instance->run_dir = string_printf("%s/%s", runtime->runs, start->id);
        rc = instance->run_dir ? make_directories(instance->run_dir, 0700, err)
                               : error_set(err, ERROR_INTERNAL, "out of memory");
    }
    if (rc == 0)
        rc = start_process(instance, start, err);
    for (int i = 0; i < INSTANCE_FD_COUNT; i++)
        close(start->fds[i]);
    if (rc < 0 && instance)
        instance_destroy(instance);
    return rc < 0 ? NULL : instance;
}

static void deferred_destroy(void *data)
{
    instance_destroy(data);
}

static void simple_stop(struct runtime_instance *instance, runtime_stopped_fn *stopped, void *data)
{
    assert(!instance->stopping);
    instance->stopping = true;
    instance->stopped = stopped;
    instance->stopped_data = data;
    if (instance->spawn)
        kill_tree(instance->pid);
    else
        loop_defer(instance->runtime->loop, deferred_destroy, instance, NULL);
}

static int simple_usage(struct runtime_instance *instance, struct runtime_usage *ret,
                        struct error *err)
{
    struct process *processes = calloc(TREE_MAX, sizeof(*processes));
    uint64_t ticks = 0, memory = 0;
    if (!processes)
        return error_set(err, ERROR_INTERNAL, "out of memory");
    size_t count = instance->spawn ? read_tree(instance->pid, processes) : 0;
    for (size_t i = 0; i < count; i++) {
        ticks += processes[i].ticks;
        memory += processes[i].dead ? 0 : peak_of(processes[i].pid);
    }
    free(processes);
    if (memory > instance->memory_peak_bytes)
        instance->memory_peak_bytes = memory;
    *ret = (struct runtime_usage){
        .cpu_ns = ticks * (1000000000ull / (uint64_t)sysconf(_SC_CLK_TCK)),
        .memory_peak_bytes = instance->memory_peak_bytes,
    };
    return 0;
}

static void simple_reset_usage(struct runtime_instance *instance)
{
    instance->memory_peak_bytes = 0;
}

static pid_t simple_pid(const struct runtime_instance *instance)
{
    return instance->pid;
}

static size_t simple_leftovers(const struct runtime *runtime)
{
    (void)runtime;
    return 0;
}

/* ---- the runtime ---- */

static void runtime_destroy(struct simple_runtime *runtime)
{
    if (runtime->runs)
        remove_tree(runtime->runs, NULL);
    free(runtime->init);
    free(runtime->runs);
    free(runtime->path);
    free(runtime);
}

static void deferred_close(void *data)
{
    struct simple_runtime *runtime = data;
    void (*closed)(void *) = runtime->closed;
    void *closed_data = runtime->closed_data;
    runtime_destroy(runtime);
    if (closed)
        closed(closed_data);
}

static void finish_close(struct simple_runtime *runtime)
{
    if (runtime->closing && runtime->instances == 0)
        loop_defer(runtime->loop, deferred_close, runtime, NULL);
}

static void simple_close(struct runtime *base, void (*closed)(void *data), void *data)
{
    struct simple_runtime *runtime = (struct simple_runtime *)base;
    runtime->closing = true;
    runtime->closed = closed;
    runtime->closed_data = data;
    finish_close(runtime);
}

struct runtime *runtime_simple_new(uv_loop_t *loop, const struct worker_settings *settings,
                                   struct error *err)
{
    static const struct runtime_ops ops = {
        .name = "simple",
        .start = simple_start,
        .stop = simple_stop,
        .usage = simple_usage,
        .reset_usage = simple_reset_usage,
        .pid = simple_pid,
        .leftovers = simple_leftovers,
        .close = simple_close,
    };
    struct simple_runtime *runtime = calloc(1, sizeof(*runtime));
    const char *path = getenv("PATH");
    if (runtime) {
        runtime->init = string_printf("%s/init", settings->libexec_dir);
        runtime->runs = string_printf("%s/simple", settings->run_dir);
        runtime->path = string_printf("PATH=%s", path ? path : "/usr/local/bin:/usr/bin:/bin");
    }
    if (!runtime || !runtime->init || !runtime->runs || !runtime->path) {
        error_set(err, ERROR_INTERNAL, "out of memory");
    } else if (access(runtime->init, X_OK) < 0) {
        error_set(err, ERROR_NOT_FOUND, "%s is not there or not executable (WORKER_LIBEXEC_DIR)",
                  runtime->init);
    } else if (remove_tree(runtime->runs, err) == 0 &&
               make_directories(runtime->runs, 0700, err) == 0) {
        runtime->base.ops = &ops;
        runtime->base.without = LIMIT_BIT(LIMIT_KIND_COUNT) - 1;
        runtime->loop = loop;
        runtime->settings = settings;
        return &runtime->base;
    }
    if (runtime)
        runtime_destroy(runtime);
    return NULL;
}
