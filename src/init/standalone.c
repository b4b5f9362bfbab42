/* One invocation without a worker: somebody runs the bundle by hand.
 *
 * The program gets what an invocation gets (payload on stdin, in FUNCTION_PAYLOAD_FILE and
 * FUNCTION_PAYLOAD, EXECUTION_ID), but faas-init's own stdout and stderr. Zygotes and adapters see
 * that their descriptor 3 is no socket, and serve once too. */
#include "init/instance.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define EXIT_NOT_STARTED 127

static struct payload *payload_from_stdin(struct instance *instance, const char *execution_id)
{
    static uint8_t bytes[6 << 20];
    size_t len = 0;
    ssize_t got;

    if (isatty(0))
        return payload_begin(instance, execution_id, 0);
    while (len < sizeof(bytes) && (got = read(0, bytes + len, sizeof(bytes) - len)) > 0)
        len += (size_t)got;
    struct payload *payload = payload_begin(instance, execution_id, (uint32_t)len);
    payload_add(payload, bytes, len);
    return payload;
}

/* The payload file, open; -1 with `message`. No payload at all is `{}`, as it is over HTTP. */
static int take_payload(struct instance *instance, struct payload **ret_payload, char *message)
{
    const char *text = getenv("FUNCTION_PAYLOAD");
    const char *id = getenv("EXECUTION_ID");
    struct payload *payload;

    id = id && strlen(id) <= FRAME_META_MAX ? id : "by-hand";
    if (text) {
        payload = payload_begin(instance, id, (uint32_t)strlen(text));
        payload_add(payload, (const uint8_t *)text, strlen(text));
    } else {
        payload = payload_from_stdin(instance, id);
    }
    if (payload_len(payload) == 0)
        payload_add(payload, (const uint8_t *)"{}", 2);
    if (payload_finish(payload, message) != 0)
        return -1;
    *ret_payload = payload;
    return payload_open(instance, message);
}

/* The wait status of the main process. */
static int wait_for(struct instance *instance, pid_t main_pid)
{
    struct pollfd signals = {.fd = instance->signal_fd, .events = POLLIN};
    int status;
    pid_t pid;

    for (;;) {
        poll(&signals, 1, -1);
        if (signals_take(instance))
            kill(main_pid, SIGKILL);
        while ((pid = waitpid(-1, &status, WNOHANG | __WALL)) > 0)
            if (pid == main_pid)
                return status;
    }
}

int standalone(struct instance *instance)
{
    char message[MESSAGE_MAX];
    struct payload *payload = NULL;
    int payload_fd = take_payload(instance, &payload, message);
    int status = 0;
    pid_t pid = -1;

    if (payload_fd >= 0) {
        struct program program = {.argv = instance->argv,
                                  .env = payload_environment(payload),
                                  .stdin_fd = payload_fd,
                                  .stdout_fd = 1,
                                  .stderr_fd = 2,
                                  .socket_fd = -1,
                                  .keeper_fd = -1,
                                  .expendable = true};
        pid = program_start(instance, &program, message);
    }
    if (pid > 0) {
        status = wait_for(instance, pid);
        leftovers_end(instance);
    }
    payload_remove(instance); /* only that: RUN_DIR may be anybody's */
    if (pid < 0) {
        fprintf(stderr, "faas-init: %s\n", message);
        return EXIT_NOT_STARTED;
    }
    return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}
