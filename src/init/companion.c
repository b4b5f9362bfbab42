/* Processes that live longer than an invocation, or start before it: the zygote, the handler's
 * adapter, the process that stands by, the keeper of a generic instance. They are started by
 * faas-init and still not trusted: the function's code runs in them, or beside them with the same
 * uid. */
#include "init/server.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* Which sockets it has: handler the worker's, zygote and standby one to faas-init, a keeper both,
 * since it does not know yet which of them it will be. `pair_fd` is its end of the one to faas-init. */
static void give_sockets(struct program *program, enum mode mode, int pair_fd)
{
    bool worker = mode == MODE_HANDLER || mode == MODE_GENERIC;

    program->socket_fd = worker ? INSTANCE_FD_ADAPTER : pair_fd;
    program->keeper_fd = mode == MODE_GENERIC ? pair_fd : -1;
}

/* Starts ARGV; our end of its socket to faas-init is *ret_fd, which is NULL when it has none. `program` has what is
 * special about it. */
static pid_t start_companion(struct server *server, struct program program, int *ret_fd,
                             char *message)
{
    struct instance *instance = server->instance;
    int pair[2] = {-1, -1};
    int null = open("/dev/null", O_RDONLY | O_CLOEXEC);
    pid_t pid = -1;

    if (null < 0 || (ret_fd && socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0)) {
        snprintf(message, MESSAGE_MAX, "cannot start %s: %s", instance->argv[0], strerror(errno));
    } else {
        program.argv = instance->argv;
        program.env = payload_base_environment(instance);
        program.stdin_fd = null;
        program.stdout_fd = INSTANCE_FD_STDOUT;
        program.stderr_fd = INSTANCE_FD_STDERR;
        program.own_session = true;
        give_sockets(&program, instance->mode, pair[1]);
        pid = program_start(instance, &program, message);
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

/* ---- the process that stands by ---- */

void standby_forget(struct server *server)
{
    if (server->standby_fd >= 0)
        close(server->standby_fd);
    server->standby_fd = -1;
    server->standby = 0;
}

int standby_start(struct server *server, char *message)
{
    char ignored[MESSAGE_MAX];
    pid_t pid;

    standby_forget(server);
    pid = start_companion(server, (struct program){.expendable = true}, &server->standby_fd,
                          message ? message : ignored);

    server->standby_up = false;
    if (pid < 0)
        standby_forget(server);
    else
        server->standby = pid;
    return pid < 0 ? -1 : 0;
}

/* A process that was started in place of a zygote that could not be forked is a zygote after all. */
static void standby_forks(struct server *server)
{
    struct instance *instance = server->instance;

    instance->mode = MODE_ZYGOTE;
    instance->keeper = server->phase == PHASE_RUNNING ? server->main : server->standby;
    server->zygote_fd = server->standby_fd;
    server->main = 0;
    server->standby = 0;
    server->standby_fd = -1;
    server->falls_back = false;
    frame_reader_init(&server->zygote, FRAME_BIT(FRAME_READY) | FRAME_BIT(FRAME_EXIT), 0);
}

/* Its frame is small enough to come in one piece; whatever else comes is no matter. */
void standby_heard(struct server *server)
{
    struct frame_header header = {0};
    ssize_t got = recv(server->standby_fd, &header, sizeof(header), MSG_DONTWAIT);

    server->standby_up = true;
    if (server->falls_back && got == sizeof(header) && header.type == FRAME_READY &&
        !(header.flags & FRAME_FLAG_STANDS_BY))
        standby_forks(server);
    say_ready_once(server);
}

/* ---- the zygote, adapter or keeper ---- */

static void keeper_start(struct server *server)
{
    struct instance *instance = server->instance;
    struct program program = {.subreaper = instance->mode == MODE_ZYGOTE,
                              .expendable = instance->mode == MODE_HANDLER};
    bool adapter = instance->mode == MODE_HANDLER;
    char message[MESSAGE_MAX];
    pid_t pid;

    frame_reader_init(&server->zygote, FRAME_BIT(FRAME_READY) | FRAME_BIT(FRAME_EXIT), 0);
    pid = start_companion(server, program, adapter ? NULL : &server->zygote_fd, message);

    if (adapter)
        close(INSTANCE_FD_ADAPTER); /* the worker sees its end when the adapter ends */
    if (pid > 0)
        instance->keeper = pid;
    else if (instance->mode == MODE_GENERIC)
        say_ready_once(server);
    else
        answer(server, FRAME_ADAPTER_EXIT, FRAME_FLAG_NOT_STARTED, 127 << 8, message);
}

void mode_start(struct server *server)
{
    struct instance *instance = server->instance;
    bool bare = instance->mode == MODE_EXEC || (instance->mode == MODE_GENERIC && !instance->argv);

    if (bare || (instance->mode == MODE_STANDBY && standby_start(server, NULL) != 0))
        say_ready_once(server);
    else if (instance->mode != MODE_STANDBY)
        keeper_start(server);
}

void keeper_ended(struct server *server, uint32_t status)
{
    server->instance->keeper = 0;
    if (server->zygote_fd >= 0)
        close(server->zygote_fd);
    server->zygote_fd = -1;
    leftovers_end(server->instance);
    if (server->instance->mode == MODE_GENERIC) {
        say_ready_once(server);
        return;
    }
    if (server->phase != PHASE_IDLE)
        invocation_end(server, FRAME_FLAG_DIRTY, status, "the runtime's process has ended");
    answer(server, FRAME_ADAPTER_EXIT, 0, status, "");
}

/* It may have an invocation already: INVOKE may come before READY. */
static void zygote_stands_by(struct server *server)
{
    struct instance *instance = server->instance;

    instance->mode = MODE_STANDBY;
    if (server->phase == PHASE_RUNNING)
        server->main = instance->keeper;
    else
        server->standby = instance->keeper;
    instance->keeper = 0;
    server->standby_fd = server->zygote_fd;
    server->standby_up = true;
    server->zygote_fd = -1;
    server->falls_back = true;
}

/* EXIT with DIRTY from the zygote: the main process ended, other children are still there. EXIT
 * without: no child is left. */
static void take_zygote_frame(struct server *server, const struct frame_header *header)
{
    bool dirty = header->flags & FRAME_FLAG_DIRTY;

    if (header->type == FRAME_READY) {
        if (server->instance->mode == MODE_ZYGOTE && header->flags & FRAME_FLAG_STANDS_BY)
            zygote_stands_by(server);
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

void zygote_heard(struct server *server)
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
