/* One process of the OCI runtime per verb: its command line, its log, and what its end means. */
#include "oci/runc.h"

#include "base/buffer.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "base/json.h"
#include "base/spawn.h"
#include "base/text.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define TIMEOUT_DEFAULT_MS 30000
#define FDS_MAX 16
#define LOG_READ_MAX (64 * 1024)
#define LIST_OUTPUT_MAX (32u * 1024 * 1024)
#define OUTPUT_MAX (1024 * 1024)
#define SPAWN_FIRST_FD 3

/* One verb under way. */
struct call_job {
    const struct oci_runtime *runtime;
    enum oci_verb verb;
    bool force;
    char *pid_file; /* owned; create and run */
    char *subject;  /* owned: "runc run 4f2a" for errors */
    int log_fd;     /* owned: memfd that the runtime logs to */
    oci_done_fn *done;
    void *data;
};

/* A command line under construction; strings are borrowed from here and from the call. */
struct command {
    const char *argv[24];
    size_t argc;
    int fds[FDS_MAX + 1];
    size_t fd_count;
    char log_path[40];
    char fd_count_text[24];
    char signal_text[16];
};

static const char *const verb_words[OCI_VERB_COUNT] = {
    [OCI_CREATE] = "create", [OCI_RUN] = "run",           [OCI_START] = "start",
    [OCI_STATE] = "state",   [OCI_KILL] = "kill",         [OCI_DELETE] = "delete",
    [OCI_LIST] = "list",     [OCI_FEATURES] = "features", [OCI_VERSION] = "--version",
};

/* ---- the runtime itself ---- */

static int find_in_path(const char *name, char **ret, struct error *err)
{
    const char *path = getenv("PATH");

    if (!path || !*path)
        path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    while (*path) {
        size_t len = strcspn(path, ":");
        autofree char *candidate = string_printf("%.*s/%s", (int)len, path, name);
        if (!candidate)
            return error_set(err, ERROR_INTERNAL, "out of memory");
        if (len > 0 && access(candidate, X_OK) == 0) {
            *ret = steal_pointer(&candidate);
            return 0;
        }
        path += len + (path[len] == ':');
    }
    return error_set(err, ERROR_NOT_FOUND,
                     "OCI runtime \"%s\" is not in PATH; install runc or name another one", name);
}

static int find_program(const char *path, char **ret, struct error *err)
{
    if (!path || !*path)
        return error_set(err, ERROR_INVALID_REQUEST, "no OCI runtime named");
    if (!strchr(path, '/'))
        return find_in_path(path, ret, err);
    if (access(path, X_OK) < 0)
        return error_set_errno(err, ERROR_NOT_FOUND, errno, "OCI runtime \"%s\" cannot be executed",
                               path);
    *ret = realpath(path, NULL);
    return *ret ? 0 : error_set_errno(err, ERROR_NOT_FOUND, errno, "OCI runtime \"%s\"", path);
}

int oci_runtime_init(struct oci_runtime *runtime, const char *path, const char *root,
                     struct error *err)
{
    *runtime = (struct oci_runtime){0};
    if (find_program(path, &runtime->path, err) < 0)
        return -1;
    runtime->root = strdup(root);
    if (!runtime->root) {
        oci_runtime_deinit(runtime);
        return error_set(err, ERROR_INTERNAL, "out of memory");
    }
    if (make_directories(root, 0700, err) < 0) {
        oci_runtime_deinit(runtime);
        return error_wrap(err, "state folder of the OCI runtime");
    }
    return 0;
}

void oci_runtime_deinit(struct oci_runtime *runtime)
{
    free(runtime->path);
    free(runtime->root);
    *runtime = (struct oci_runtime){0};
}

void oci_outcome_deinit(struct oci_outcome *outcome)
{
    free(outcome->states);
    free(outcome->text);
    *outcome = (struct oci_outcome){0};
}

/* ---- the command line ---- */

static bool verb_has_id(enum oci_verb verb)
{
    return verb <= OCI_DELETE;
}

static bool verb_starts_process(enum oci_verb verb)
{
    return verb == OCI_CREATE || verb == OCI_RUN;
}

static int check_call(const struct oci_call *call, struct error *err)
{
    if (verb_has_id(call->verb) && (!call->id || !oci_id_valid(call->id)))
        return error_set(err, ERROR_INVALID_REQUEST,
                         "container id \"%.140s\" must be 1 to %d of letters, digits and _+-.",
                         call->id ? call->id : "", OCI_ID_MAX);
    if (verb_starts_process(call->verb) && !call->bundle)
        return error_set(err, ERROR_INVALID_REQUEST, "no bundle named");
    if (call->fd_count > FDS_MAX)
        return error_set(err, ERROR_INVALID_REQUEST, "%zu descriptors for a container; at most %d",
                         call->fd_count, FDS_MAX);
    return 0;
}

static void add(struct command *command, const char *word)
{
    command->argv[command->argc++] = word;
    command->argv[command->argc] = NULL;
}

static void add_pair(struct command *command, const char *option, const char *value)
{
    add(command, option);
    add(command, value);
}

static void add_globals(struct command *command, const struct call_job *job,
                        const struct oci_call *call)
{
    size_t passed = verb_starts_process(call->verb) ? call->fd_count : 0;

    for (size_t i = 0; i < passed; i++)
        command->fds[i] = call->fds[i];
    command->fds[passed] = job->log_fd;
    command->fd_count = passed + 1;
    snprintf(command->log_path, sizeof(command->log_path), "/proc/self/fd/%zu",
             SPAWN_FIRST_FD + passed);
    add_pair(command, "--root", job->runtime->root);
    add_pair(command, "--log", command->log_path);
    add_pair(command, "--log-format", "json");
}

static void add_verb(struct command *command, const struct call_job *job,
                     const struct oci_call *call)
{
    add(command, verb_words[call->verb]);
    if (call->verb == OCI_RUN)
        add(command, "--detach");
    if (verb_starts_process(call->verb)) {
        add_pair(command, "--bundle", call->bundle);
        add_pair(command, "--pid-file", job->pid_file);
    }
    if (verb_starts_process(call->verb) && call->fd_count > 0) {
        snprintf(command->fd_count_text, sizeof(command->fd_count_text), "%zu", call->fd_count);
        add_pair(command, "--preserve-fds", command->fd_count_text);
    }
    if (call->verb == OCI_KILL && call->all)
        add(command, "--all");
    if (call->verb == OCI_DELETE && call->force)
        add(command, "--force");
    if (call->verb == OCI_LIST)
        add_pair(command, "--format", "json");
    if (verb_has_id(call->verb))
        add(command, call->id);
    if (call->verb == OCI_KILL) {
        snprintf(command->signal_text, sizeof(command->signal_text), "%d",
                 call->signal ? call->signal : SIGKILL);
        add(command, command->signal_text);
    }
}

static void command_build(struct command *command, struct spawn_options *options,
                          const struct call_job *job, const struct oci_call *call)
{
    /* runc is a Go program: its collector and its threads help it with what is over in milliseconds. */
    static const char *const unhurried[] = {
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "GOMAXPROCS=1",
        "GOGC=off", NULL};

    *command = (struct command){0};
    add(command, job->runtime->path);
    if (call->verb != OCI_VERSION)
        add_globals(command, job, call);
    add_verb(command, job, call);
    *options = (struct spawn_options){
        .argv = command->argv,
        .environment = call->unhurried ? unhurried : NULL,
        /* A container's processes would inherit how nice it is, but they leave its session's group for a cgroup of their own. */
        .background = call->unhurried && !verb_starts_process(call->verb),
        .background_session = call->unhurried,
        .fds = command->fds,
        .fd_count = command->fd_count,
        .timeout_ms = call->timeout_ms ? call->timeout_ms : TIMEOUT_DEFAULT_MS,
        /* A container's process inherits these, so they must not be pipes that nobody reads. */
        .output_max = verb_starts_process(call->verb) ? 0
                      : call->verb == OCI_LIST        ? LIST_OUTPUT_MAX
                                                      : OUTPUT_MAX,
    };
}

/* ---- one call ---- */

static void job_deinit(struct call_job *job)
{
    free(job->pid_file);
    free(job->subject);
    if (job->log_fd >= 0)
        close(job->log_fd);
}

static int job_init(struct call_job *job, const struct oci_runtime *runtime,
                    const struct oci_call *call, struct error *err)
{
    *job = (struct call_job){
        .runtime = runtime, .verb = call->verb, .force = call->force, .log_fd = -1};
    if (check_call(call, err) < 0)
        return -1;
    const char *slash = strrchr(runtime->path, '/');
    bool has_id = verb_has_id(call->verb);
    job->subject = string_printf("%s %s%s%s", slash ? slash + 1 : runtime->path,
                                 verb_words[call->verb], has_id ? " " : "", has_id ? call->id : "");
    if (verb_starts_process(call->verb)) {
        job->pid_file = string_printf("%s/pid", call->bundle);
        /* A pid file from before must not be taken for this one's. */
        if (job->pid_file && unlink(job->pid_file) < 0 && errno != ENOENT)
            return error_set_errno(err, ERROR_INTERNAL, errno, "remove %s", job->pid_file);
    }
    if (!job->subject || (verb_starts_process(call->verb) && !job->pid_file))
        return error_set(err, ERROR_INTERNAL, "out of memory");
    job->log_fd = memfd_create("oci-runtime-log", MFD_CLOEXEC);
    if (job->log_fd < 0)
        return error_set_errno(err, ERROR_INTERNAL, errno, "memory file for the log of %s",
                               job->subject);
    return 0;
}

/* The tail of what the runtime logged. */
static void read_log(int fd, char *out, size_t size)
{
    struct stat status;
    autofree char *text = malloc(LOG_READ_MAX + 1);

    out[0] = '\0';
    if (!text || fstat(fd, &status) < 0)
        return;
    off_t start = status.st_size > LOG_READ_MAX ? status.st_size - LOG_READ_MAX : 0;
    ssize_t len = pread(fd, text, LOG_READ_MAX, start);
    if (len <= 0)
        return;
    text[len] = '\0';
    oci_parse_log(text, (size_t)len, out, size);
}

static enum error_code classify(const struct call_job *job, const char *words)
{
    if (verb_starts_process(job->verb))
        return strstr(words, "already exists") ? ERROR_CONFLICT : ERROR_UNAVAILABLE;
    if (verb_has_id(job->verb) &&
        (strstr(words, "does not exist") || strstr(words, "container not running") ||
         strstr(words, "process already finished") || strstr(words, "No such file or directory") ||
         strstr(words, "No such process")))
        return ERROR_NOT_FOUND;
    return ERROR_UNAVAILABLE;
}

static int failure(const struct call_job *job, const struct spawn_result *result, struct error *err)
{
    char words[512];

    read_log(job->log_fd, words, sizeof(words));
    if (result->timed_out)
        return error_set(err, ERROR_TIMED_OUT, "%s did not end in time and was killed%s%s",
                         job->subject, words[0] ? "; it said: " : "", words);
    if (!words[0]) {
        spawn_result_check(result, job->subject, err);
        if (err)
            err->code = ERROR_UNAVAILABLE;
        return -1;
    }
    return error_set(err, classify(job, words), "%s: %s", job->subject, words);
}

static int read_pid(const struct call_job *job, pid_t *ret, struct error *err)
{
    with_cleanup(buffer_deinit) struct buffer text = BUFFER_INIT(64);
    char *end = NULL;

    if (buffer_read_file(&text, job->pid_file, err) < 0)
        return error_wrap(err, "%s", job->subject);
    errno = 0;
    long pid = text.data ? strtol(text.data, &end, 10) : 0;
    if (errno || pid <= 1 || pid > 4194304 || (*end && *end != '\n'))
        return error_set(err, ERROR_UNAVAILABLE, "%s wrote no pid to %s", job->subject,
                         job->pid_file);
    *ret = (pid_t)pid;
    return 0;
}

static int take_line(const struct spawn_result *result, char **ret, struct error *err)
{
    *ret = strndup(result->output, strcspn(result->output, "\n"));
    return *ret ? 0 : error_set(err, ERROR_INTERNAL, "out of memory");
}

static int take_features(const struct spawn_result *result, char **ret, struct error *err)
{
    if (json_check(result->output, result->output_len, NULL, err) < 0)
        return error_wrap(err, "features of the OCI runtime");
    *ret = strdup(result->output);
    return *ret ? 0 : error_set(err, ERROR_INTERNAL, "out of memory");
}

static int read_one_state(const struct spawn_result *result, struct oci_outcome *ret,
                          struct error *err)
{
    ret->states = calloc(1, sizeof(*ret->states));
    if (!ret->states)
        return error_set(err, ERROR_INTERNAL, "out of memory");
    ret->state_count = 1;
    return oci_parse_state(result->output, result->output_len, ret->states, err);
}

static int read_outcome(const struct call_job *job, const struct spawn_result *result,
                        struct oci_outcome *ret, struct error *err)
{
    switch (job->verb) {
    case OCI_CREATE:
    case OCI_RUN:
        return read_pid(job, &ret->pid, err);
    case OCI_STATE:
        return read_one_state(result, ret, err);
    case OCI_LIST:
        return oci_parse_list(result->output, result->output_len, &ret->states, &ret->state_count,
                              err);
    case OCI_FEATURES:
        return take_features(result, &ret->text, err);
    case OCI_VERSION:
        return take_line(result, &ret->text, err);
    default:
        return 0;
    }
}

/* What the runtime's end means. *ret needs oci_outcome_deinit() only on success. */
static int conclude(const struct call_job *job, const struct spawn_result *result,
                    struct oci_outcome *ret, struct error *err)
{
    struct error local = {0};

    *ret = (struct oci_outcome){0};
    if (result->timed_out || result->wait_status != 0)
        failure(job, result, &local);
    else if (read_outcome(job, result, ret, &local) < 0)
        oci_outcome_deinit(ret);
    else
        return 0;
    if (job->verb == OCI_DELETE && job->force && local.code == ERROR_NOT_FOUND)
        return 0;
    if (err)
        *err = local;
    return -1;
}

static void on_runtime_exit(void *data, const struct spawn_result *result)
{
    struct call_job *job = data;
    struct oci_outcome outcome;
    struct error err = {0};
    int failed = conclude(job, result, &outcome, &err);
    oci_done_fn *done = job->done;
    void *done_data = job->data;

    job_deinit(job);
    free(job);
    done(done_data, failed ? NULL : &outcome, failed ? &err : NULL);
    if (!failed)
        oci_outcome_deinit(&outcome);
}

int oci_runtime_start(const struct oci_runtime *runtime, uv_loop_t *loop,
                      const struct oci_call *call, oci_done_fn *done, void *data, struct error *err)
{
    struct command command;
    struct spawn_options options;
    struct call_job *job = malloc(sizeof(*job));

    if (!job)
        return error_set(err, ERROR_INTERNAL, "out of memory");
    if (job_init(job, runtime, call, err) == 0) {
        job->done = done;
        job->data = data;
        command_build(&command, &options, job, call);
        if (spawn_start(loop, &options, on_runtime_exit, job, err))
            return 0;
        error_wrap(err, "%s", job->subject);
    }
    job_deinit(job);
    free(job);
    return -1;
}

int oci_runtime_call(const struct oci_runtime *runtime, const struct oci_call *call,
                     struct oci_outcome *ret, struct error *err)
{
    with_cleanup(job_deinit) struct call_job job;
    with_cleanup(spawn_result_deinit) struct spawn_result result = {0};
    struct command command;
    struct spawn_options options;
    struct oci_outcome outcome;

    if (job_init(&job, runtime, call, err) < 0)
        return -1;
    command_build(&command, &options, &job, call);
    if (spawn_run(&options, &result, err) < 0)
        return error_wrap(err, "%s", job.subject);
    if (conclude(&job, &result, &outcome, err) < 0)
        return -1;
    if (ret)
        *ret = outcome;
    else
        oci_outcome_deinit(&outcome);
    return 0;
}

/* ---- leftovers ---- */

/* State folders that `list` does not show are those that the runtime cannot read; all that is left
 * is to remove them. */
static int remove_unreadable(const struct oci_runtime *runtime, size_t *count, struct error *err)
{
    DIR *folder = opendir(runtime->root);

    if (!folder)
        return errno == ENOENT
                   ? 0
                   : error_set_errno(err, ERROR_INTERNAL, errno, "open %s", runtime->root);
    int failed = 0;
    for (struct dirent *entry; !failed && (entry = readdir(folder));) {
        if (entry->d_name[0] == '.')
            continue;
        autofree char *path = string_printf("%s/%s", runtime->root, entry->d_name);
        if (!path)
            failed = error_set(err, ERROR_INTERNAL, "out of memory");
        else
            failed = remove_tree(path, err);
        (*count)++;
    }
    closedir(folder);
    return failed;
}

int oci_runtime_delete_all(const struct oci_runtime *runtime, size_t *ret_count, struct error *err)
{
    with_cleanup(oci_outcome_deinit) struct oci_outcome list = {0};
    size_t count = 0;

    if (oci_runtime_call(runtime, &(struct oci_call){.verb = OCI_LIST}, &list, err) < 0)
        return -1;
    for (size_t i = 0; i < list.state_count; i++) {
        struct oci_call call = {.verb = OCI_DELETE, .id = list.states[i].id, .force = true};
        if (oci_runtime_call(runtime, &call, NULL, err) < 0)
            return -1;
        count++;
    }
    if (remove_unreadable(runtime, &count, err) < 0)
        return error_wrap(err, "leftovers of the OCI runtime");
    if (ret_count)
        *ret_count = count;
    return 0;
}
