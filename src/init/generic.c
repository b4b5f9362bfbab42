/* A generic instance: no function yet, and perhaps a keeper, which has the interpreter up.
 *
 * LOAD makes it the function's. The keeper, which has run nobody's code so far, takes over what the
 * mode would have started: it is told ARGV and environment, and what faas-init holds of it moves to
 * where that mode holds it. Without a keeper that can do it, the mode starts as it always does. */
#include "init/load.h"
#include "init/server.h"

#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

extern char **environ;

#define PASSED_ON_MAX (LOAD_MAX + 8192) /* FUNCTION_PAYLOAD_FILE comes in addition */

static struct load the_load;

void load_arrives(struct server *server)
{
    (void)server;
    load_begin(&the_load);
}

void load_piece(struct server *server, const uint8_t *bytes, size_t len)
{
    (void)server;
    load_add(&the_load, bytes, len);
}

/* ---- to the keeper ---- */

struct text {
    size_t len;
    char bytes[PASSED_ON_MAX];
};

static void text_add(struct text *text, const char *string)
{
    size_t size = strlen(string) + 1;

    if (text->len + size <= sizeof(text->bytes))
        memcpy(text->bytes + text->len, string, size);
    text->len += size;
}

/* A LOAD like the worker's, with the environment that a process of this mode would be started with. */
static int pass_on(struct server *server, const char *mode)
{
    static struct text text;
    char *const *argv = server->instance->argv;
    char *const *env = payload_base_environment(server->instance);

    text.len = 0;
    text_add(&text, mode);
    while (*argv)
        text_add(&text, *argv++);
    text_add(&text, "");
    while (*env)
        text_add(&text, *env++);
    if (text.len > sizeof(text.bytes))
        return -1;
    struct frame_header header = frame_header_make(FRAME_LOAD, 0, 0, 0, (uint32_t)text.len);
    struct iovec parts[] = {{&header, sizeof(header)}, {text.bytes, text.len}};
    struct msghdr message = {.msg_iov = parts, .msg_iovlen = 2};
    return sendmsg(server->zygote_fd, &message, MSG_NOSIGNAL) ==
                   (ssize_t)(sizeof(header) + text.len)
               ? 0
               : -1;
}

/* ---- the change ---- */

/* The keeper is told. What it does not do in time it will find out by itself: its sockets close. */
static void keeper_becomes(struct server *server)
{
    struct instance *instance = server->instance;

    if (instance->mode == MODE_ZYGOTE)
        return; /* it says READY as a zygote */
    if (instance->mode == MODE_HANDLER) {
        close(server->zygote_fd);
        close(INSTANCE_FD_ADAPTER);
    } else {
        server->standby = instance->keeper;
        server->standby_fd = server->zygote_fd;
        server->standby_up = false; /* it says READY as a process that stands by */
        instance->keeper = 0;
    }
    server->zygote_fd = -1;
}

static void keeper_end(struct server *server)
{
    struct instance *instance = server->instance;

    if (server->zygote_fd >= 0)
        close(server->zygote_fd);
    server->zygote_fd = -1;
    if (instance->keeper > 0)
        leftovers_end(instance);
    instance->keeper = 0;
}

void load_take(struct server *server)
{
    struct instance *instance = server->instance;
    const char *problem = load_finish(&the_load);

    if (!problem && mode_parse(the_load.mode, &instance->mode) != 0)
        problem = "a LOAD of a mode that does not exist";
    if (problem) {
        fprintf(stderr, "faas-init: the worker sent %s\n", problem);
        server->ended = true;
        return;
    }
    instance->argv = the_load.argv;
    environ = the_load.environment;
    server->ready_said = false;
    worker_expect(server);
    if (instance->mode != MODE_EXEC && server->zygote_fd >= 0 &&
        pass_on(server, the_load.mode) == 0) {
        keeper_becomes(server);
    } else {
        keeper_end(server);
        mode_start(server);
    }
}
