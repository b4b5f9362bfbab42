/* Serves one worker: frames on the control socket, until it hangs up.
 *
 * One loop waits for whatever comes first: bytes from the worker, a frame of the zygote, a signal
 * (a child ended, or faas-init is to end). An invocation's way: its payload is written as it
 * arrives; then the program is started (exec) or the zygote told (zygote); its end is noticed; what
 * it left is ended; EXIT goes to the worker; RUN_DIR is emptied. While one is under way the worker
 * has nothing to say, so nothing is read from it but its hanging up. */
#include "init/server.h"

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

int send_frame(int fd, enum frame_type type, uint16_t flags, uint32_t value, const char *meta)
{
    uint32_t meta_len = (uint32_t)strlen(meta);
    struct frame_header header = frame_header_make(type, flags, value, meta_len, 0);
    struct iovec parts[] = {{&header, sizeof(header)}, {(void *)meta, meta_len}};
    struct msghdr message = {.msg_iov = parts, .msg_iovlen = 2};

    return sendmsg(fd, &message, MSG_NOSIGNAL) == (ssize_t)(sizeof(header) + meta_len) ? 0 : -1;
}

void answer(struct server *server, enum frame_type type, uint16_t flags, uint32_t value,
            const char *meta)
{
    if (send_frame(INSTANCE_FD_CONTROL, type, flags, value, meta) != 0)
        server->ended = true;
}

/* A generic instance takes one LOAD, and nothing before it is READY. */
void worker_expect(struct server *server)
{
    bool generic = server->instance->mode == MODE_GENERIC;

    if (!generic)
        frame_reader_expect(&server->worker, FRAME_BIT(FRAME_INVOKE), BODY_MAX);
    else
        frame_reader_expect(&server->worker, server->ready_said ? FRAME_BIT(FRAME_LOAD) : 0,
                            LOAD_MAX);
}

void say_ready_once(struct server *server)
{
    if (!server->ready_said)
        answer(server, FRAME_READY, 0, 0, "");
    server->ready_said = true;
    if (server->instance->mode == MODE_GENERIC)
        worker_expect(server);
}

/* ---- an invocation ---- */

void invocation_end(struct server *server, uint16_t flags, uint32_t status, const char *message)
{
    server->phase = PHASE_IDLE;
    answer(server, FRAME_EXIT, flags, status, message);
    /* After the answer, since nobody waits for it; before the next invocation, since it would find
     * it. */
    if (run_dir_clean(server->instance) != 0)
        server->ended = true;
    if (server->instance->mode == MODE_STANDBY && !server->ended)
        standby_start(server, NULL);
}

static void start_main(struct server *server, int payload_fd)
{
    struct program program = {.argv = server->instance->argv,
                              .env = payload_environment(server->payload),
                              .stdin_fd = payload_fd,
                              .stdout_fd = INSTANCE_FD_STDOUT,
                              .stderr_fd = INSTANCE_FD_STDERR,
                              .socket_fd = -1,
                              .keeper_fd = -1,
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

    if (server->standby == 0 && standby_start(server, message) != 0) {
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

static void take_invoke(struct server *server, enum frame_event event)
{
    struct frame_reader *reader = &server->worker;

    if (event == FRAME_EVENT_HEAD)
        server->payload = payload_begin(server->instance, reader->meta, reader->header.body_len);
    else if (event == FRAME_EVENT_BODY)
        payload_add(server->payload, reader->piece, reader->piece_len);
    else
        invocation_start(server);
}

static void take_load(struct server *server, enum frame_event event)
{
    if (event == FRAME_EVENT_HEAD)
        load_arrives(server);
    else if (event == FRAME_EVENT_BODY)
        load_piece(server, server->worker.piece, server->worker.piece_len);
    else
        load_take(server);
}

/* Bytes of a frame, or of several; nothing may follow an INVOKE before its EXIT. */
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
        } else if (reader->header.type == FRAME_LOAD) {
            take_load(server, event);
        } else {
            take_invoke(server, event);
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
            standby_forget(server);
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
        zygote_heard(server);
    if (wait[3].revents)
        standby_heard(server);
    if (wait[1].revents) {
        signals_take(server->instance);
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
    frame_reader_init(&server.worker, 0, 0);
    worker_expect(&server);
    run_dir_clean(instance);
    mode_start(&server);
    while (!server.ended && !instance->told_to_end)
        step(&server);
    /* The kernel does it for PID 1, at once and completely. */
    if (!instance->is_pid1) {
        instance->keeper = 0;
        leftovers_end(instance);
        run_dir_clean(instance);
    }
    return 0;
}
