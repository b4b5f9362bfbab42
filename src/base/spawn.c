/* Starting processes: posix_spawn with nothing inherited but what is named, a pidfd that tells of
 * the end, one reap.
 *
 * stdin is a memfd, so no writer is needed; stdout and stderr are pipes that are read while the
 * child runs (lest it blocks) and once more, without waiting, after it ended. Somebody else may
 * hold the pipes open then: that is no reason to wait. */
#include "base/spawn.h"

#include "base/buffer.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "base/loop.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define INPUT_MAX (1024 * 1024)
#define FDS_MAX 16
#define REAP_MS 50

static const char *const path_only[] = {
    "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", NULL};

/* What is kept of one of the child's streams. */
struct capture {
    int fd; /* owned; -1: ended */
    struct buffer kept;
    bool keep_last; /* else the first bytes */
};

struct child {
    pid_t pid;
    int pidfd; /* owned */
    struct capture output, errors;
    bool timed_out;
};

/* ---- streams ---- */

static void capture_add(struct capture *capture, const char *bytes, size_t len)
{
    struct buffer *kept = &capture->kept;
    if (capture->keep_last && kept->len + len > kept->max) {
        if (len > kept->max) {
            bytes += len - kept->max;
            len = kept->max;
        }
        size_t excess = kept->len + len > kept->max ? kept->len + len - kept->max : 0;
        buffer_consume(kept, excess);
    }
    size_t room = kept->max - kept->len;
    buffer_append(kept, bytes, len < room ? len : room, NULL);
}

/* Reads what is there; closes at the end of the stream. At most `limit` bytes, so that endless
 * output cannot hold us. */
static void capture_read(struct capture *capture, size_t limit)
{
    char chunk[16384];
    for (size_t total = 0; capture->fd >= 0 && total < limit;) {
        ssize_t len = read(capture->fd, chunk, sizeof(chunk));
        if (len > 0) {
            capture_add(capture, chunk, (size_t)len);
            total += (size_t)len;
        } else if (len < 0 && errno == EINTR) {
            continue;
        } else {
            if (len == 0 || errno != EAGAIN) {
                close(capture->fd);
                capture->fd = -1;
            }
            return;
        }
    }
}

static void capture_deinit(struct capture *capture)
{
    if (capture->fd >= 0)
        close(capture->fd);
    capture->fd = -1;
    buffer_deinit(&capture->kept);
}

/* ---- start ---- */

/* Descriptors of the child, before they get their numbers; all owned, CLOEXEC, and above the
 * numbers they will get. */
struct child_fds {
    int stdio[3];
    int extra[FDS_MAX];
    size_t extra_count;
};

static void child_fds_deinit(struct child_fds *fds)
{
    for (size_t i = 0; i < 3; i++)
        if (fds->stdio[i] >= 0)
            close(fds->stdio[i]);
    for (size_t i = 0; i < fds->extra_count; i++)
        close(fds->extra[i]);
}

/* Moves a descriptor above every number that the child will use, so that dup2 cannot overwrite one
 * still needed. */
static int move_up(int *fd)
{
    int moved = fcntl(*fd, F_DUPFD_CLOEXEC, 3 + FDS_MAX);
    if (moved < 0)
        return -1;
    close(*fd);
    *fd = moved;
    return 0;
}

static int make_input(const struct spawn_options *options, int *ret_fd)
{
    if (!options->input) {
        *ret_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
        return *ret_fd < 0 ? -1 : 0;
    }
    autoclose int fd = memfd_create("stdin", MFD_CLOEXEC);
    for (size_t written = 0; fd >= 0 && written < options->input_len;) {
        ssize_t len = write(fd, options->input + written, options->input_len - written);
        if (len < 0)
            return -1;
        written += (size_t)len;
    }
    if (fd < 0 || lseek(fd, 0, SEEK_SET) < 0)
        return -1;
    *ret_fd = steal_fd(&fd);
    return 0;
}

/* The child's end in *ret_child, ours (non-blocking) in *ret_ours. */
static int make_output(bool captured, int inherit_from, int *ret_child, int *ret_ours)
{
    int ends[2];
    *ret_ours = -1;
    if (inherit_from >= 0) {
        *ret_child = fcntl(inherit_from, F_DUPFD_CLOEXEC, 3 + FDS_MAX);
        if (*ret_child < 0)
            *ret_child = open("/dev/null", O_RDWR | O_CLOEXEC);
        return *ret_child < 0 ? -1 : 0;
    }
    if (!captured) {
        *ret_child = open("/dev/null", O_RDWR | O_CLOEXEC);
        return *ret_child < 0 ? -1 : 0;
    }
    if (pipe2(ends, O_CLOEXEC))
        return -1;
    fcntl(ends[0], F_SETFL, O_NONBLOCK);
    *ret_ours = ends[0];
    *ret_child = ends[1];
    return 0;
}

static int prepare_fds(const struct spawn_options *options, struct child *child,
                       struct child_fds *fds)
{
    bool captured = options->output_max > 0 && !options->inherit_output;
    *fds = (struct child_fds){.stdio = {-1, -1, -1}};
    if (make_input(options, &fds->stdio[0]) ||
        make_output(captured, options->inherit_output ? 1 : -1, &fds->stdio[1],
                    &child->output.fd) ||
        make_output(captured, options->inherit_output ? 2 : -1, &fds->stdio[2], &child->errors.fd))
        return -1;
    for (size_t i = 0; i < 3; i++)
        if (move_up(&fds->stdio[i]))
            return -1;
    for (size_t i = 0; i < options->fd_count; i++) {
        fds->extra[i] = fcntl(options->fds[i], F_DUPFD_CLOEXEC, 3 + FDS_MAX);
        if (fds->extra[i] < 0)
            return -1;
        fds->extra_count++;
    }
    return 0;
}

static int fill_actions(posix_spawn_file_actions_t *actions, const struct spawn_options *options,
                        const struct child_fds *fds)
{
    int status = 0;
    for (int i = 0; i < 3 && !status; i++)
        status = posix_spawn_file_actions_adddup2(actions, fds->stdio[i], i);
    for (size_t i = 0; i < fds->extra_count && !status; i++)
        status = posix_spawn_file_actions_adddup2(actions, fds->extra[i], 3 + (int)i);
    if (!status)
        status = posix_spawn_file_actions_addclosefrom_np(actions, 3 + (int)fds->extra_count);
    if (!status && options->directory)
        status = posix_spawn_file_actions_addchdir_np(actions, options->directory);
    return status;
}

static void fill_attributes(posix_spawnattr_t *attributes, const struct spawn_options *options)
{
    sigset_t none, all;
    short flags = POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF;
    sigemptyset(&none);
    sigfillset(&all);
    posix_spawnattr_setsigmask(attributes, &none);
    posix_spawnattr_setsigdefault(attributes, &all);
    if (options->new_process_group) {
        posix_spawnattr_setpgroup(attributes, 0);
        flags |= POSIX_SPAWN_SETPGROUP;
    }
    if (options->background || options->background_session)
        flags |= POSIX_SPAWN_SETSID;
    posix_spawnattr_setflags(attributes, flags);
}

static int call_posix_spawn(const struct spawn_options *options, const struct child_fds *fds,
                            pid_t *ret_pid)
{
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    const char *const *environment = options->environment ? options->environment : path_only;

    int status = posix_spawn_file_actions_init(&actions);
    if (status)
        return status;
    status = posix_spawnattr_init(&attributes);
    if (!status) {
        fill_attributes(&attributes, options);
        status = fill_actions(&actions, options, fds);
        if (!status)
            status = posix_spawnp(ret_pid, options->argv[0], &actions, &attributes,
                                  (char *const *)options->argv, (char *const *)environment);
        posix_spawnattr_destroy(&attributes);
    }
    posix_spawn_file_actions_destroy(&actions);
    return status;
}

static int start_failed(const struct spawn_options *options, int status, struct error *err)
{
    if (options->directory && access(options->directory, X_OK))
        return error_set_errno(err, ERROR_UNAVAILABLE, errno, "cannot start %s in %s",
                               options->argv[0], options->directory);
    if (status == ENOENT)
        return error_set(err, ERROR_NOT_FOUND, "cannot start %s: there is no such program",
                         options->argv[0]);
    return error_set_errno(err, ERROR_UNAVAILABLE, status, "cannot start %s", options->argv[0]);
}

static void child_deinit(struct child *child)
{
    if (child->pidfd >= 0)
        close(child->pidfd);
    capture_deinit(&child->output);
    capture_deinit(&child->errors);
}

/* A program that was started with SIGCHLD ignored would never learn how its children end. */
static void stop_ignoring_children(void)
{
    struct sigaction action;
    if (sigaction(SIGCHLD, NULL, &action) == 0 && action.sa_handler == SIG_IGN)
        signal(SIGCHLD, SIG_DFL);
}

static void reap(struct child *child, int *ret_wait_status)
{
    pid_t reaped;
    do
        reaped = waitpid(child->pid, ret_wait_status, 0);
    while (reaped < 0 && errno == EINTR);
    if (reaped < 0)
        *ret_wait_status = W_EXITCODE(255, 0); /* an end that nobody saw is no success */
}

/* From here, because there is no way to ask posix_spawn for it: at once, before the program has threads or children. Where the kernel groups processes by
 * session, nice counts within one session only: a program that is alone in its own takes as much as a busy one of another. */
static void put_session_behind_others(pid_t pid)
{
    char path[64], nice[16];

    snprintf(path, sizeof(path), "/proc/%d/autogroup", (int)pid);
    snprintf(nice, sizeof(nice), "%d", SPAWN_BACKGROUND_NICE);
    (void)write_file_value(path, nice, NULL); /* not there: no such groups */
}

static void put_behind_others(pid_t pid, const struct spawn_options *options)
{
    if (options->background || options->background_session)
        put_session_behind_others(pid);
    if (options->background)
        (void)setpriority(PRIO_PROCESS, (id_t)pid,
                          getpriority(PRIO_PROCESS, (id_t)pid) + SPAWN_BACKGROUND_NICE);
}

static int child_start(struct child *child, const struct spawn_options *options, struct error *err)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    struct child_fds fds;
    pthread_once(&once, stop_ignoring_children);
    *child = (struct child){
        .pidfd = -1,
        .output = {.fd = -1, .kept = BUFFER_INIT(options->output_max)},
        .errors = {.fd = -1, .kept = BUFFER_INIT(options->output_max), .keep_last = true}};
    if (options->fd_count > FDS_MAX || (options->input && options->input_len > INPUT_MAX))
        return error_set(err, ERROR_INTERNAL, "too many descriptors or too much input for %s",
                         options->argv[0]);

    int status =
        prepare_fds(options, child, &fds) ? errno : call_posix_spawn(options, &fds, &child->pid);
    child_fds_deinit(&fds);
    if (status) {
        child_deinit(child);
        return start_failed(options, status, err);
    }
    put_behind_others(child->pid, options);
    child->pidfd = (int)syscall(SYS_pidfd_open, child->pid, 0);
    if (child->pidfd < 0) {
        int wait_status;
        status = errno;
        kill(child->pid, SIGKILL);
        reap(child, &wait_status);
        child_deinit(child);
        return start_failed(options, status, err);
    }
    return 0;
}

/* ---- end ---- */

/* How it ended; reaps it unless `flags` has WNOWAIT. By the pidfd: whoever else reaps it, its number may be another's by then. */
static int take_status(const struct child *child, int flags)
{
    siginfo_t info = {0};
    int status;
    do
        status = waitid(P_PIDFD, (id_t)child->pidfd, &info, WEXITED | flags);
    while (status < 0 && errno == EINTR);
    if (status < 0)
        return W_EXITCODE(255, 0); /* an end that nobody saw is no success */
    if (info.si_code == CLD_EXITED)
        return W_EXITCODE(info.si_status, 0);
    return W_EXITCODE(0, info.si_status) | (info.si_code == CLD_DUMPED ? WCOREFLAG : 0);
}

/* The child has ended: moves what was captured into the result. */
static void child_finish(struct child *child, int wait_status, struct spawn_result *ret_result)
{
    *ret_result = (struct spawn_result){.wait_status = wait_status, .timed_out = child->timed_out};
    capture_read(&child->output, 1024 * 1024);
    capture_read(&child->errors, 1024 * 1024);
    ret_result->output = buffer_take(&child->output.kept, &ret_result->output_len);
    ret_result->errors = buffer_take(&child->errors.kept, &ret_result->errors_len);
    capture_deinit(&child->output);
    capture_deinit(&child->errors);
}

void spawn_result_deinit(struct spawn_result *result)
{
    free(result->output);
    free(result->errors);
    *result = (struct spawn_result){0};
}

/* The last line that is not blank. */
static void last_line(const char *text, size_t len, const char **ret_start, size_t *ret_len)
{
    while (len > 0 && (text[len - 1] == '\n' || text[len - 1] == '\r' || text[len - 1] == ' '))
        len--;
    size_t start = len;
    while (start > 0 && text[start - 1] != '\n')
        start--;
    *ret_start = text + start;
    *ret_len = len - start;
}

int spawn_result_check(const struct spawn_result *result, const char *program, struct error *err)
{
    const char *line = "";
    size_t len = 0;
    if (WIFEXITED(result->wait_status) && WEXITSTATUS(result->wait_status) == 0)
        return 0;
    if (result->errors)
        last_line(result->errors, result->errors_len, &line, &len);
    if (len > 400)
        len = 400;
    const char *separator = len ? ": " : "";
    if (result->timed_out)
        return error_set(err, ERROR_TIMED_OUT, "%s did not end in time and was killed%s%.*s",
                         program, separator, (int)len, line);
    if (WIFSIGNALED(result->wait_status))
        return error_set(err, ERROR_UNAVAILABLE, "%s was killed by signal %d (%s)%s%.*s", program,
                         WTERMSIG(result->wait_status), strsignal(WTERMSIG(result->wait_status)),
                         separator, (int)len, line);
    return error_set(err, ERROR_UNAVAILABLE, "%s ended with status %d%s%.*s", program,
                     WEXITSTATUS(result->wait_status), separator, (int)len, line);
}

/* ---- blocking ---- */

static void wait_for_end(struct child *child, uint64_t timeout_ms)
{
    uint64_t deadline_ns = clock_monotonic_ns() + timeout_ms * 1000000ULL;
    for (;;) {
        struct pollfd fds[3] = {{.fd = child->pidfd, .events = POLLIN},
                                {.fd = child->output.fd, .events = POLLIN},
                                {.fd = child->errors.fd, .events = POLLIN}};
        int wait_ms = -1;
        if (timeout_ms && !child->timed_out) {
            uint64_t now_ns = clock_monotonic_ns();
            uint64_t left_ms = now_ns >= deadline_ns ? 0 : (deadline_ns - now_ns) / 1000000ULL + 1;
            wait_ms = left_ms > INT_MAX ? INT_MAX : (int)left_ms;
        }
        int ready = poll(fds, 3, wait_ms);
        if (ready == 0 && clock_monotonic_ns() >= deadline_ns) {
            child->timed_out = true;
            kill(child->pid, SIGKILL);
        } else if (ready > 0) {
            if (fds[1].revents)
                capture_read(&child->output, 64 * 1024);
            if (fds[2].revents)
                capture_read(&child->errors, 64 * 1024);
            if (fds[0].revents)
                return;
        }
    }
}

int spawn_run(const struct spawn_options *options, struct spawn_result *ret_result,
              struct error *err)
{
    struct child child;
    if (child_start(&child, options, err))
        return -1;
    wait_for_end(&child, options->timeout_ms);
    child_finish(&child, take_status(&child, 0), ret_result);
    child_deinit(&child);
    return 0;
}

/* ---- on a loop ---- */

struct spawn {
    struct child child;
    uv_loop_t *loop;
    uv_poll_t exit_poll, output_poll, errors_poll;
    int open_handles;
    struct loop_timer *deadline; /* of its end, then of its reaping */
    spawn_done_fn *done;
    void *data;
};

static void reap_work(void *job)
{
    struct spawn *spawn = job;
    take_status(&spawn->child, 0);
    close(spawn->child.pidfd);
}

static void reap_now(void *data)
{
    struct spawn *spawn = data;
    loop_timer_stop(spawn->deadline);
    if (loop_work(spawn->loop, reap_work, free, spawn, NULL) == 0)
        return;
    reap_work(spawn);
    free(spawn);
}

/* The last thread of a process tells of its end before it has taken its own entries out of /proc, and whoever reaps the process before
 * that spins in the kernel. A loop that goes before others would even keep it from getting there. So it has some time, and who waits is a
 * thread of the pool. */
static void reap_later(struct spawn *spawn)
{
    spawn->deadline = loop_timer_start(spawn->loop, REAP_MS, 0, reap_now, spawn, NULL);
    if (!spawn->deadline)
        reap_now(spawn);
}

static void handle_closed(uv_handle_t *handle)
{
    struct spawn *spawn = handle->data;
    if (--spawn->open_handles > 0)
        return;
    struct spawn_result result;
    child_finish(&spawn->child, take_status(&spawn->child, WNOWAIT), &result);
    spawn->done(spawn->data, &result);
    spawn_result_deinit(&result);
    reap_later(spawn);
}

static void close_poll(uv_poll_t *poll)
{
    if (!uv_is_closing((uv_handle_t *)poll))
        uv_close((uv_handle_t *)poll, handle_closed);
}

/* The polls are closed before their descriptors: only then is it known that epoll no longer watches
 * them. */
static void child_ended(uv_poll_t *poll, int status, int events)
{
    struct spawn *spawn = poll->data;
    (void)status;
    (void)events;
    loop_timer_stop(spawn->deadline);
    spawn->deadline = NULL;
    close_poll(&spawn->exit_poll);
    if (spawn->output_poll.data)
        close_poll(&spawn->output_poll);
    if (spawn->errors_poll.data)
        close_poll(&spawn->errors_poll);
}

static void stream_ready(uv_poll_t *poll, int status, int events)
{
    struct spawn *spawn = poll->data;
    struct capture *capture =
        poll == &spawn->output_poll ? &spawn->child.output : &spawn->child.errors;
    char chunk[16384];
    (void)status;
    (void)events;
    ssize_t len = read(capture->fd, chunk, sizeof(chunk));
    if (len > 0)
        capture_add(capture, chunk, (size_t)len);
    else if (len == 0 || (errno != EAGAIN && errno != EINTR))
        uv_poll_stop(poll); /* the descriptor is closed with the child's end */
}

static void deadline_passed(void *data)
{
    struct spawn *spawn = data;
    loop_timer_stop(spawn->deadline);
    spawn->deadline = NULL;
    spawn->child.timed_out = true;
    kill(spawn->child.pid, SIGKILL);
}

static bool watch(struct spawn *spawn, uv_loop_t *loop, uv_poll_t *poll, int fd,
                  uv_poll_cb callback)
{
    if (fd < 0 || uv_poll_init(loop, poll, fd))
        return false;
    poll->data = spawn;
    spawn->open_handles++;
    uv_poll_start(poll, UV_READABLE, callback);
    return true;
}

/* Nobody would tell of its end: it does not get to run. */
static void abandon(struct spawn *spawn)
{
    int wait_status;
    kill(spawn->child.pid, SIGKILL);
    reap(&spawn->child, &wait_status);
    child_deinit(&spawn->child);
    free(spawn);
}

struct spawn *spawn_start(uv_loop_t *loop, const struct spawn_options *options, spawn_done_fn *done,
                          void *data, struct error *err)
{
    struct spawn *spawn = calloc(1, sizeof(*spawn));
    if (!spawn) {
        error_set(err, ERROR_INTERNAL, "out of memory");
        return NULL;
    }
    if (child_start(&spawn->child, options, err)) {
        free(spawn);
        return NULL;
    }
    spawn->loop = loop;
    spawn->done = done;
    spawn->data = data;
    if (!watch(spawn, loop, &spawn->exit_poll, spawn->child.pidfd, child_ended)) {
        error_set(err, ERROR_INTERNAL, "cannot watch %s", options->argv[0]);
        abandon(spawn);
        return NULL;
    }
    watch(spawn, loop, &spawn->output_poll, spawn->child.output.fd, stream_ready);
    watch(spawn, loop, &spawn->errors_poll, spawn->child.errors.fd, stream_ready);
    if (options->timeout_ms)
        spawn->deadline =
            loop_timer_start(loop, options->timeout_ms, 0, deadline_passed, spawn, NULL);
    return spawn;
}

void spawn_kill(struct spawn *spawn, int signal)
{
    /* Not reaped yet, so the number cannot belong to anybody else. */
    kill(spawn->child.pid, signal);
}

pid_t spawn_pid(const struct spawn *spawn)
{
    return spawn->child.pid;
}
