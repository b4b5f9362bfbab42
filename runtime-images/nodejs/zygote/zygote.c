/* A Node.js addon: makes the process that loads it a zygote, which forks a child for each invocation.
 *
 *     serve(socket)      never returns in the zygote. Returns in each child, which stands ready for an invocation: undefined.
 *                        When the process cannot be forked, it returns a text, and nothing has changed.
 *     takeInvocation()   in a child: waits for the invocation, makes the payload its standard input, and sets EXECUTION_ID
 *                        and FUNCTION_PAYLOAD.
 *     pid()              the process's id, which process.pid has of the parent.
 *     seedRandom()       in a child, before it calls Math.random(): the first call takes a seed of this child's own. Returns
 *                        how many numbers to skip: they are more of the seed, which is short.
 *     randomSeeded()     after it.
 *     setVariable(name, bytes)   in a process that serves many calls: sets an environment variable, in memory that the next value of
 *                        the same name takes (environment.h). Returns whether it has: 1 or 0.
 *
 * The zygote runs no JavaScript any more: every child starts from the same state. It speaks what src/init/protocol.h says
 * of zygotes. The next child is forked while nobody waits for it; it reads its invocation from the socket by itself, while
 * the zygote sleeps until a child ends. The zygote is the reaper of all orphans below it, so "no child left" means that
 * nothing of the invocation is. It takes no signals: what an invocation sends to it must not reach the next one.
 *
 * A function's code may load this file too. It gives nothing that a process may not do anyway. */
#include "environment.h"
#include "files.h"
#include "memory.h"
#include "threads.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

/* ---- of Node-API, which is stable over versions of Node.js and of compilers, what is needed here ---- */

typedef struct napi_env__ *napi_env;
typedef struct napi_value__ *napi_value;
typedef struct napi_callback_info__ *napi_callback_info;
typedef napi_value (*napi_callback)(napi_env env, napi_callback_info info);

int napi_create_function(napi_env env, const char *name, size_t len, napi_callback callback,
                         void *data, napi_value *ret_function);
int napi_set_named_property(napi_env env, napi_value object, const char *name, napi_value value);
int napi_create_int32(napi_env env, int32_t number, napi_value *ret_number);
int napi_create_string_utf8(napi_env env, const char *text, size_t len, napi_value *ret_string);
int napi_get_cb_info(napi_env env, napi_callback_info info, size_t *count, napi_value *arguments,
                     napi_value *self, void **data);
int napi_get_buffer_info(napi_env env, napi_value buffer, void **ret_bytes, size_t *ret_len);
int napi_get_value_string_utf8(napi_env env, napi_value value, char *text, size_t size,
                               size_t *ret_len);
int napi_get_value_int32(napi_env env, napi_value value, int32_t *ret_number);

/* v8::V8::SetFlagsFromString(const char *) */
extern void v8_set_flags(const char *flags) __asm__("_ZN2v82V818SetFlagsFromStringEPKc")
    __attribute__((weak));

/* ---- the protocol ---- */

#define META_MAX 4096
#define PAYLOAD_ENV_MAX (96 * 1024)
#define VARIABLE_NAME_MAX 64
#define SKIP_MASK 0x3ffu
#define LOST_MAX 32 /* children, one after another */
enum { FRAME_INVOKE = 1, FRAME_READY = 2, FRAME_EXIT = 3 };
enum { FLAG_DIRTY = 2 };

struct header {
    uint16_t type, flags;
    uint32_t meta_len, body_len, value;
} __attribute__((packed));

enum state { STATE_WAITING, STATE_RUNNING, STATE_HUNG_UP };

static sigset_t own_mask;    /* of the interpreter; the zygote blocks every signal */
static volatile char *state; /* shared with the child that stands ready */
static int socket_fd = -1;
static char problem[ZYGOTE_MESSAGE_MAX]; /* of a child that could not be made whole */

static void send_frame(uint16_t type, uint16_t flags, uint32_t value)
{
    struct header header = {.type = type, .flags = flags, .value = value};

    if (send(socket_fd, &header, sizeof(header), MSG_NOSIGNAL) != sizeof(header))
        _exit(0); /* faas-init is gone */
}

/* false when the other side hung up. */
static bool read_exactly(void *data, size_t size)
{
    char *at = data;

    while (size > 0) {
        ssize_t got = read(socket_fd, at, size);

        if (got == 0 || (got < 0 && errno != EINTR))
            return false;
        if (got > 0) {
            at += got;
            size -= (size_t)got;
        }
    }
    return true;
}

static bool read_invoke(char execution_id[META_MAX + 1])
{
    struct header header;

    if (!read_exactly(&header, sizeof(header)) || header.type != FRAME_INVOKE ||
        header.meta_len > META_MAX || header.body_len != 0 ||
        !read_exactly(execution_id, header.meta_len))
        return false;
    execution_id[header.meta_len] = '\0';
    return true;
}

/* ---- the invocation ---- */

/* The payload is standard input, and in the environment when it fits there. */
static void take_payload(void)
{
    static char payload[PAYLOAD_ENV_MAX + 2];
    const char *path = getenv("FUNCTION_PAYLOAD_FILE");
    int fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    size_t len = 0;
    ssize_t got;

    if (fd < 0)
        return;
    dup2(fd, STDIN_FILENO);
    close(fd);
    while (len <= PAYLOAD_ENV_MAX &&
           (got = pread(STDIN_FILENO, payload + len, PAYLOAD_ENV_MAX + 1 - len, (off_t)len)) > 0)
        len += (size_t)got;
    if (len <= PAYLOAD_ENV_MAX && !memchr(payload, '\0', len))
        setenv("FUNCTION_PAYLOAD", payload, 1);
}

static void take_invocation(void)
{
    static char execution_id[META_MAX + 1];

    if (!read_invoke(execution_id)) {
        *state = STATE_HUNG_UP;
        _exit(0);
    }
    *state = STATE_RUNNING;
    munmap((void *)state, 1);
    close(socket_fd);
    if (problem[0] != '\0') {
        dprintf(STDERR_FILENO, "the process for the invocation cannot be made: %s\n", problem);
        _exit(1);
    }
    setenv("EXECUTION_ID", execution_id, 1);
    take_payload();
}

/* ---- the zygote ---- */

static void wait_for(pid_t child, int *ret_status)
{
    for (;;) {
        pid_t pid = waitpid(-1, ret_status, __WALL);

        if (pid == child)
            return;
        if (pid < 0 && errno != EINTR)
            _exit(1);
    }
}

/* When other processes are left, faas-init kills them, and hears here that they are gone. */
static void report(uint32_t status)
{
    pid_t pid;

    do
        pid = waitpid(-1, NULL, WNOHANG | __WALL);
    while (pid > 0);
    if (pid == 0) {
        send_frame(FRAME_EXIT, FLAG_DIRTY, status);
        do
            pid = waitpid(-1, NULL, __WALL);
        while (pid > 0 || errno == EINTR);
    }
    send_frame(FRAME_EXIT, 0, status);
}

/* When memory runs out, the invocation goes, not the zygote. */
static void be_expendable(void)
{
    int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);

    if (fd < 0)
        return;
    if (write(fd, "1000", 4) < 0)
        (void)0; /* the limit holds without it; only the choice of the victim is less good */
    close(fd);
}

static void be_whole(void)
{
    setsid();
    prctl(PR_SET_DUMPABLE, 1);
    be_expendable();
    if (files_renew(problem) != 0 || threads_revive(problem) != 0)
        take_invocation(); /* to tell it, since this process can do nothing else */
    sigprocmask(SIG_SETMASK, &own_mask, NULL);
}

/* Returns in a child. A child that ends before its invocation is replaced, but not for ever. */
static void fork_children(void)
{
    for (int lost = 0; lost < LOST_MAX; lost++) {
        int status;
        pid_t child;

        *state = STATE_WAITING;
        child = threads_fork();
        if (child == 0) {
            be_whole();
            return;
        }
        if (child < 0)
            break;
        wait_for(child, &status);
        if (*state == STATE_HUNG_UP)
            _exit(0);
        if (*state == STATE_RUNNING) {
            report((uint32_t)status);
            lost = -1;
        }
    }
    _exit(1);
}

/* 0; or -1 with `message`, and nothing has changed. */
static int become_zygote(char *message)
{
    sigset_t all;

    sigfillset(&all);
    if (!v8_set_flags) {
        snprintf(message, ZYGOTE_MESSAGE_MAX, "V8 is not in reach");
        return -1;
    }
    state = mmap(NULL, 1, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (state == MAP_FAILED) {
        snprintf(message, ZYGOTE_MESSAGE_MAX, "no memory to share");
        return -1;
    }
    if (threads_freeze(message) != 0) {
        munmap((void *)state, 1);
        return -1;
    }
    if (memory_share(message) != 0 || files_survey(socket_fd, message) != 0) {
        if (threads_revive(message) != 0)
            _exit(1);
        munmap((void *)state, 1);
        return -1;
    }
    sigprocmask(SIG_SETMASK, &all, &own_mask);
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    prctl(PR_SET_DUMPABLE, 0);
    return 0;
}

/* ---- what JavaScript calls ---- */

static napi_value serve_called(napi_env env, napi_callback_info info)
{
    char message[ZYGOTE_MESSAGE_MAX] = "";
    napi_value argument = NULL, result = NULL;
    size_t count = 1;

    if (napi_get_cb_info(env, info, &count, &argument, NULL, NULL) != 0 || count != 1 ||
        napi_get_value_int32(env, argument, &socket_fd) != 0)
        return NULL;
    if (become_zygote(message) == 0) {
        send_frame(FRAME_READY, 0, 0);
        fork_children();
        return NULL;
    }
    napi_create_string_utf8(env, message, strlen(message), &result);
    return result;
}

static napi_value pid_called(napi_env env, napi_callback_info info)
{
    napi_value pid = NULL;

    (void)info;
    napi_create_int32(env, getpid(), &pid);
    return pid;
}

static napi_value take_invocation_called(napi_env env, napi_callback_info info)
{
    (void)env;
    (void)info;
    take_invocation();
    return NULL;
}

/* V8 seeds Math.random() of a context at its first call, from a generator that all children have in the same state, or
 * with the value of a flag. */
static napi_value seed_random_called(napi_env env, napi_callback_info info)
{
    uint32_t random[2];
    napi_value skip = NULL;
    char flag[32];

    (void)info;
    if (getrandom(random, sizeof(random), 0) != sizeof(random))
        _exit(1);
    snprintf(flag, sizeof(flag), "--random-seed=%d", (int32_t)(random[0] ? random[0] : 1));
    v8_set_flags(flag);
    napi_create_int32(env, (int32_t)(random[1] & SKIP_MASK), &skip);
    return skip;
}

static napi_value random_seeded_called(napi_env env, napi_callback_info info)
{
    (void)env;
    (void)info;
    v8_set_flags("--random-seed=0"); /* other contexts and threads have seeds of their own */
    return NULL;
}

static napi_value set_variable_called(napi_env env, napi_callback_info info)
{
    char name[VARIABLE_NAME_MAX];
    napi_value arguments[2] = {NULL, NULL}, set = NULL;
    size_t count = 2, len = 0;
    void *bytes = NULL;

    bool is_set = napi_get_cb_info(env, info, &count, arguments, NULL, NULL) == 0 && count == 2 &&
                  napi_get_value_string_utf8(env, arguments[0], name, sizeof(name), NULL) == 0 &&
                  napi_get_buffer_info(env, arguments[1], &bytes, &len) == 0 &&
                  environment_set(name, len > 0 ? bytes : "", len) == 0;
    napi_create_int32(env, is_set, &set);
    return set;
}

static void add_function(napi_env env, napi_value exports, const char *name, napi_callback callback)
{
    napi_value function = NULL;

    if (napi_create_function(env, name, strlen(name), callback, NULL, &function) == 0)
        napi_set_named_property(env, exports, name, function);
}

napi_value napi_register_module_v1(napi_env env, napi_value exports)
    __attribute__((visibility("default")));

napi_value napi_register_module_v1(napi_env env, napi_value exports)
{
    add_function(env, exports, "serve", serve_called);
    add_function(env, exports, "takeInvocation", take_invocation_called);
    add_function(env, exports, "pid", pid_called);
    add_function(env, exports, "seedRandom", seed_random_called);
    add_function(env, exports, "randomSeeded", random_seeded_called);
    add_function(env, exports, "setVariable", set_variable_called);
    return exports;
}
