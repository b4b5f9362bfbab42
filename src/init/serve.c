/* Serves one worker: frames on the control socket, until it hangs up.
 *
 * One loop waits for whatever comes first: bytes from the worker, a frame of the zygote, a signal
 * (a child ended, or faas-init is to end). An invocation's way: its payload is written as it
 * arrives; then the program is started (exec) or the zygote told (zygote); its end is noticed; what
 * it left is ended; EXIT goes to the worker; RUN_DIR is emptied. While one is under way the worker
 * has nothing to say, so nothing is read from it but its hanging up. */
#include "init/instance.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#define BODY_MAX (64U << 20)
#define READ_SIZE (64 * 1024)
#define CLEANUP_ROUND_MS 2

enum phase {
    PHASE_IDLE,     /* or in the middle of an INVOKE that is arriving */
    PHASE_RUNNING,  /* the invocation's main process runs */
    PHASE_CLEANING, /* it ended, and the zygote still has other children to reap */
};

struct server {
    struct instance *instance;
    enum phase phase;
    struct frame_reader worker;
    struct frame_reader zygote;
    int zygote_fd; /* -1: none */
    struct payload *payload;
    pid_t main;          /* exec, standby: the invocation's main process */
    pid_t standby;       /* standby: the process that waits for the next invocation; 0: none */
    bool standby_up;     /* it was heard of (or of its end): no more to wait for */
    int standby_fd;      /* our end of its socket; -1: none */
    uint32_t status;     /* PHASE_CLEANING: its wait status */
    uint64_t give_up_ms; /* PHASE_CLEANING, monotonic */
    bool ready_said;
    bool ended; /* the worker hung up, or the connection makes no sense any more */
};

/* Frames of faas-init's own are small and few, so that waiting for room in the socket never takes
 * long. */
static int send_frame(int fd, enum frame_type type, uint16_t flags, uint32_t value,
                      const char *meta)
{
    uint32_t meta_len = (uint32_t)strlen(meta);
    struct frame_header header = frame_header_make(type, flags, value, meta_len, 0);
    struct iovec parts[] = {{&header, sizeof(header)}, {(void *)meta, meta_len}};
    struct msghdr message = {.msg_iov = parts, .msg_iovlen = 2};

    return sendmsg(fd, &message, MSG_NOSIGNAL) == (ssize_t)(sizeof(header) + meta_len) ? 0 : -1;
}

static void answer(struct server *server, enum frame_type type, uint16_t flags, uint32_t value,
                   const char *meta)
{
    if (send_frame(INSTANCE_FD_CONTROL, type, flags, value, meta) != 0)
        server->ended = true;
}

static void say_ready_once(struct server *server)
{
    if (!server->ready_said)
        answer(server, FRAME_READY, 0, 0, "");
    server->ready_said = true;
}

/* ---- processes that live longer than an invocation, or start before it ---- */

/* Starts ARGV with a socket as its descriptor 3: to faas-init (our end is *ret_fd), or to the worker when `ret_fd` is
 * NULL. `program` has what is special about it. */
static pid_t start_companion(struct server *server, struct program program, int *ret_fd,
                             char *message)
{
    int pair[2] = {-1, -1};
    int null = open("/dev/null", O_RDONLY | O_CLOEXEC);
    pid_t pid = -1;

    if (null < 0 || (ret_fd && socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0)) {
        snprintf(message, MESSAGE_MAX, "cannot start %s: %s", server->instance->argv[0],
                 strerror(errno));
    } else {
        program.argv = server->instance->argv;
        program.env = payload_base_environment(server->instance);
        program.stdin_fd = null;
        program.stdout_fd = INSTANCE_FD_STDOUT;
        program.stderr_fd = INSTANCE_FD_STDERR;
        program.socket_fd = ret_fd ? pair[1] : INSTANCE_FD_ADAPTER;
        program.own_session = true;
        pid = program_start(server->instance, &program, message);
    }
    if (null >= 0)
        close(null);
    if (pair[1] >= 0)
        close(pair[1]);
    if (ret_fd && pid > 0)
        *ret_fd = pair[0];
    else if (pair[0] >= 0)
        close(pair[0]);
    return pid;
}

static void forget_standby(struct server *server)
{
    if (server->standby_fd >= 0)
        close(server->standby_fd);
    server->standby_fd = -1;
    server->standby = 0;
}

/* A failure (with `message`, which may be NULL) matters only once there is an invocation for it. */
static int start_standby(struct server *server, char *message)
{
    char ignored[MESSAGE_MAX];
    pid_t pid;

    forget_standby(server);
    pid = start_companion(server, (struct program){.expendable = true}, &server->standby_fd,
                          message ? message : ignored);

    server->standby_up = false;
    if (pid < 0)
        forget_standby(server);
    else
        server->standby = pid;
    return pid < 0 ? -1 : 0;
}

/* It says that it is up, or it ended; what is wrong then shows at the invocation that starts it again. */
static void standby_heard(struct server *server)
{
    uint8_t ignored[64];

    while (recv(server->standby_fd, ignored, sizeof(ignored), MSG_DONTWAIT) > 0)
        ;
    server->standby_up = true;
    say_ready_once(server);
}

/* ---- an invocation ---- */

static void invocation_end(struct server *server, uint16_t flags, uint32_t status,
                           const char *message)
{
    server->phase = PHASE_IDLE;
    answer(server, FRAME_EXIT, flags, status, message);
    /* After the answer, since nobody waits for it; before the next invocation, since it would find
     * it. */
    if (run_dir_clean(server->instance) != 0)
        server->ended = true;
    if (server->instance->mode == MODE_STANDBY && !server->ended)
        start_standby(server, NULL);
}

static void start_main(struct server *server, int payload_fd)
{
    struct program program = {.argv = server->instance->argv,
                              .env = payload_environment(server->payload),
                              .stdin_fd = payload_fd,
                              .stdout_fd = INSTANCE_FD_STDOUT,
                              .stderr_fd = INSTANCE_FD_STDERR,
                              .socket_fd = -1,
                              .expendable = true,
                              .own_session = true};
    char message[MESSAGE_MAX];
    pid_t pid = program_start(server->instance, &program, message);

    if (pid < 0) {
        invocation_end(server, FRAME_FLAG_NOT_STARTED, 127 << 8, message);
        return;
    }
    server->main = pid;
    server->phase = PHASE_RUNNING;
}

static void ask_standby(struct server *server)
{
    char message[MESSAGE_MAX];

    if (server->standby == 0 && start_standby(server, message) != 0) {
        invocation_end(server, FRAME_FLAG_NOT_STARTED, 127 << 8, message);
        return;
    }
    /* When it dies at this moment, its wait status says so. */
    send_frame(server->standby_fd, FRAME_INVOKE, 0, server->worker.header.value,
               server->worker.meta);
    server->main = server->standby;
    server->standby = 0; /* its socket stays open until it ends: it may not have said READY yet */
    server->phase = PHASE_RUNNING;
}

static void ask_zygote(struct server *server)
{
    if (server->zygote_fd < 0 || send_frame(server->zygote_fd, FRAME_INVOKE, 0,
                                            server->worker.header.value, server->worker.meta) != 0)
        invocation_end(server, FRAME_FLAG_NOT_STARTED | FRAME_FLAG_DIRTY, 127 << 8,
                       "the runtime's process has ended");
    else
        server->phase = PHASE_RUNNING;
}

static void invocation_start(struct server *server)
{
    char message[MESSAGE_MAX];
    int payload_fd;

    if (payload_finish(server->payload, message) != 0 ||
        (payload_fd = payload_open(server->instance, message)) < 0) {
        invocation_end(server, FRAME_FLAG_NOT_STARTED, 127 << 8, message);
        return;
    }
    /* O_NONBLOCK, O_ASYNC and the like belong to the pipe, and an earlier invocation may have set
     * them. */
    fcntl(INSTANCE_FD_STDOUT, F_SETFL, 0);
    fcntl(INSTANCE_FD_STDERR, F_SETFL, 0);
    if (server->instance->mode == MODE_EXEC)
        start_main(server, payload_fd);
    else if (server->instance->mode == MODE_STANDBY)
        ask_standby(server);
    else
        ask_zygote(server);
    close(payload_fd);
}

/* ---- bytes from the worker ---- */

/* Bytes of a frame, or of several; stops where an invocation begins. */
static void take_worker_bytes(struct server *server, const uint8_t *bytes, size_t len)
{
    struct frame_reader *reader = &server->worker;
    enum frame_event event;

    while (!server->ended &&
           (event = frame_reader_next(reader, &bytes, &len)) != FRAME_EVENT_MORE) {
        if (server->phase != PHASE_IDLE || event == FRAME_EVENT_INVALID) {
            fprintf(stderr, "faas-init: the worker sent %s\n",
                    reader->problem ? reader->problem : "a frame while an invocation was running");
            server->ended = true;
        } else if (event == FRAME_EVENT_HEAD) {
            server->payload =
                payload_begin(server->instance, reader->meta, reader->header.body_len);
        } else if (event == FRAME_EVENT_BODY) {
            payload_add(server->payload, reader->piece, reader->piece_len);
        } else {
            invocation_start(server);
        }
    }
}

static void read_worker(struct server *server)
{
    static uint8_t bytes[READ_SIZE];
    ssize_t len = recv(INSTANCE_FD_CONTROL, bytes, sizeof(bytes), MSG_DONTWAIT);

    if (len > 0)
        take_worker_bytes(server, bytes, (size_t)len);
    else if (len == 0 || (errno != EAGAIN && errno != EINTR))
        server->ended = true;
}

/* ---- the zygote or adapter ---- */

static void start_keeper(struct server *server)
{
    struct instance *instance = server->instance;
    char message[MESSAGE_MAX];
    pid_t pid;

    if (instance->mode == MODE_ZYGOTE) {
        pid = start_companion(server, (struct program){.subreaper = true}, &server->zygote_fd,
                              message);
    } else {
        pid = start_companion(server, (struct program){.expendable = true}, NULL, message);
        close(INSTANCE_FD_ADAPTER); /* the worker sees its end when the adapter ends */
    }
    if (pid < 0)
        answer(server, FRAME_ADAPTER_EXIT, FRAME_FLAG_NOT_STARTED, 127 << 8, message);
    else
        instance->keeper = pid;
}

static void keeper_ended(struct server *server, uint32_t status)
{
    server->instance->keeper = 0;
    if (server->zygote_fd >= 0)
        close(server->zygote_fd);
    server->zygote_fd = -1;
    leftovers_end(server->instance);
    if (server->phase != PHASE_IDLE)
        invocation_end(server, FRAME_FLAG_DIRTY, status, "the runtime's process has ended");
    answer(server, FRAME_ADAPTER_EXIT, 0, status, "");
}

/* EXIT with DIRTY from the zygote: the main process ended, other children are still there. EXIT
 * without: no child is left. */
static void take_zygote_frame(struct server *server, const struct frame_header *header)
{
    bool dirty = header->flags & FRAME_FLAG_DIRTY;

    if (header->type == FRAME_READY) {
        say_ready_once(server);
    } else if (server->phase == PHASE_RUNNING && dirty) {
        server->phase = PHASE_CLEANING;
        server->status = header->value;
        server->give_up_ms = now_ms() + CLEANUP_LIMIT_MS;
        leftovers_kill(server->instance);
    } else if (server->phase == PHASE_RUNNING) {
        invocation_end(server, 0, header->value, "");
    } else if (server->phase == PHASE_CLEANING && !dirty) {
        invocation_end(server, 0, server->status, "");
    }
}

static void kill_keeper(struct server *server)
{
    if (server->instance->keeper > 0)
        kill(server->instance->keeper, SIGKILL);
}

static void read_zygote(struct server *server)
{
    uint8_t buffer[4096];
    const uint8_t *bytes = buffer;
    ssize_t got = recv(server->zygote_fd, buffer, sizeof(buffer), MSG_DONTWAIT);
    size_t len = got > 0 ? (size_t)got : 0;
    enum frame_event event;

    /* A broken connection is dealt with as the end of the process, which it is or is now made. */
    if (got == 0 || (got < 0 && errno != EAGAIN && errno != EINTR)) {
        close(server->zygote_fd);
        server->zygote_fd = -1;
        kill_keeper(server);
        return;
    }
    while ((event = frame_reader_next(&server->zygote, &bytes, &len)) != FRAME_EVENT_MORE) {
        if (event == FRAME_EVENT_INVALID) {
            kill_keeper(server);
            return;
        }
        if (event == FRAME_EVENT_END)
            take_zygote_frame(server, &server->zygote.header);
    }
}

/* ---- the loop ---- */

static void reap(struct server *server)
{
    struct instance *instance = server->instance;
    int status;
    pid_t pid;

    while ((pid = waitpid(-1, &status, WNOHANG | __WALL)) > 0) {
        if (pid == instance->keeper) {
            keeper_ended(server, (uint32_t)status);
        } else if (server->phase == PHASE_RUNNING && pid == server->main) {
            int left = leftovers_end(instance);

            invocation_end(server, left ? FRAME_FLAG_DIRTY : 0, (uint32_t)status, "");
        } else if (pid == server->standby) {
            forget_standby(server);
            say_ready_once(server);
        }
    }
}

static void clean_on(struct server *server)
{
    if (now_ms() < server->give_up_ms)
        leftovers_kill(server->instance);
    else
        invocation_end(server, FRAME_FLAG_DIRTY, server->status, "");
}

static void step(struct server *server)
{
    bool idle = server->phase == PHASE_IDLE;
    struct pollfd wait[] = {
        {.fd = INSTANCE_FD_CONTROL, .events = (short)(idle ? POLLIN : POLLRDHUP)},
        {.fd = server->instance->signal_fd, .events = POLLIN},
        {.fd = server->zygote_fd, .events = POLLIN},
        {.fd = server->standby_up ? -1 : server->standby_fd, .events = POLLIN},
    };
    int ready = poll(wait, 4, server->phase == PHASE_CLEANING ? CLEANUP_ROUND_MS : -1);

    if (ready < 0 && errno != EINTR)
        server->ended = true;
    if (server->phase == PHASE_CLEANING)
        clean_on(server); /* whatever else happens, so that nobody can keep it from happening */
    if (ready <= 0)
        return;
    if (wait[2].revents)
        read_zygote(server);
    if (wait[3].revents)
        standby_heard(server);
    if (wait[1].revents) {
        if (signals_take(server->instance))
            server->ended = true;
        reap(server);
    }
    if (wait[0].revents & (POLLRDHUP | POLLHUP | POLLERR | POLLNVAL) && !(wait[0].revents & POLLIN))
        server->ended = true;
    else if (wait[0].revents && idle)
        read_worker(server);
}

int serve(struct instance *instance)
{
    static struct server server;

    server.instance = instance;
    server.zygote_fd = -1;
    server.standby_fd = -1;
    frame_reader_init(&server.worker, FRAME_BIT(FRAME_INVOKE), BODY_MAX);
    frame_reader_init(&server.zygote, FRAME_BIT(FRAME_READY) | FRAME_BIT(FRAME_EXIT), 0);
    if (instance->mode == MODE_ZYGOTE || instance->mode == MODE_HANDLER)
        start_keeper(&server);
    else if (instance->mode == MODE_EXEC || start_standby(&server, NULL) != 0)
        say_ready_once(&server);
    while (!server.ended)
        step(&server);
    /* The kernel does it for PID 1, at once and completely. */
    if (!instance->is_pid1) {
        instance->keeper = 0;
        leftovers_end(instance);
        run_dir_clean(instance);
    }
    return 0;
}
