/* faas up: controller and one worker in the foreground, watched over. A program that ends without
 * being asked is started again, with a pause that grows; SIGINT or SIGTERM stops the worker, then
 * the controller, and removes the run file by which `faas` on the same machine finds this platform.
 */
#include "base/cleanup.h"
#include "base/file.h"
#include "base/log.h"
#include "base/loop.h"
#include "base/spawn.h"
#include "base/text.h"
#include "cli/api.h"
#include "cli/run_file.h"
#include "cli/verbs.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define RESTART_PAUSE_MS 500
#define RESTART_PAUSE_MAX_MS 30000
#define READY_POLL_MS 50
#define READY_TIMEOUT_MS 120000

extern char **environ;

struct program {
    struct up *up;
    const char *name;    /* "faas-controller" */
    char *path;          /* owned */
    char **environment;  /* owned, NULL-terminated; strings owned */
    struct spawn *child; /* NULL: not running */
    struct loop_timer *restart;
    bool asked_to_stop;
    uint64_t pause_ms;
    uint64_t started_ns;
};

struct up {
    uv_loop_t loop;
    struct program controller, worker;
    const char *listen;
    char *data_dir;   /* owned, absolute */
    char *url_file;   /* owned: where the controller says its address */
    char *token_file; /* owned */
    char *run_file;   /* owned */
    char url[256];
    int parent_pipe[2]; /* the children's end of a pipe that closes when this process ends, however
                           it ends */
    struct loop_signals *signals;
    struct loop_timer *ready_timer;
    uint64_t deadline_ns;
    bool ready, stopping;
    int status;
};

static void stop(struct up *up);

/* ---- environment of the children ---- */

static void free_environment(char **environment)
{
    for (char **at = environment; at && *at; at++)
        free(*at);
    free(environment);
}

static size_t count_strings(const char *const *strings)
{
    size_t count = 0;
    while (strings[count])
        count++;
    return count;
}

static bool sets_same_name(const char *entry, const char *const *entries)
{
    size_t name = strcspn(entry, "=");
    for (size_t i = 0; entries[i]; i++)
        if (strncmp(entries[i], entry, name + 1) == 0)
            return true;
    return false;
}

/* `base` with `extra` (NAME=value …) put over it; both NULL-terminated. */
static char **merge_environment(const char *const *base, const char *const *extra)
{
    char **merged = calloc(count_strings(base) + count_strings(extra) + 1, sizeof(*merged));
    size_t used = 0;
    bool failed = !merged;
    for (size_t i = 0; !failed && extra[i]; i++)
        failed = !(merged[used++] = strdup(extra[i]));
    for (size_t i = 0; !failed && base[i]; i++)
        if (!sets_same_name(base[i], extra))
            failed = !(merged[used++] = strdup(base[i]));
    if (failed) {
        free_environment(merged);
        return NULL;
    }
    return merged;
}

/* Puts `extra` over what the program has, which is this process's environment at first. */
static int set_environment(struct program *program, const char *const *extra)
{
    char **base = program->environment ? program->environment : environ;
    char **merged = merge_environment((const char *const *)base, extra);
    if (!merged)
        return -1;
    free_environment(program->environment);
    program->environment = merged;
    return 0;
}

/* ---- processes ---- */

static void restart_program(void *data);

static void stopped_everything(struct up *up)
{
    loop_timer_stop(up->ready_timer);
    up->ready_timer = NULL;
    loop_signals_stop(up->signals);
    up->signals = NULL;
    uv_stop(&up->loop);
}

/* Once: a second SIGTERM would cut its draining short. */
static void ask_to_stop(struct program *program)
{
    if (!program->child || program->asked_to_stop)
        return;
    program->asked_to_stop = true;
    spawn_kill(program->child, SIGTERM);
}

static void program_ended(void *data, const struct spawn_result *result)
{
    struct program *program = data;
    struct up *up = program->up;
    struct error err = {0};

    program->child = NULL;
    if (spawn_result_check(result, program->name, &err) && up->stopping) {
        log_error("a program did not stop in order", LOG_STR("program", program->name),
                  LOG_ERR(&err));
        up->status = 1;
    }
    if (up->stopping) {
        if (program == &up->worker)
            ask_to_stop(&up->controller);
        if (!up->worker.child && !up->controller.child)
            stopped_everything(up);
        return;
    }
    bool configuration_error =
        WIFEXITED(result->wait_status) && WEXITSTATUS(result->wait_status) == 2;
    if (!up->ready || configuration_error) {
        log_error("a program ended before the platform was ready",
                  LOG_STR("program", program->name), LOG_ERR(&err));
        up->status = 1;
        stop(up);
        return;
    }
    if (clock_monotonic_ns() - program->started_ns > 10ULL * 1000 * 1000 * 1000)
        program->pause_ms = RESTART_PAUSE_MS;
    log_error("a program ended and is started again", LOG_STR("program", program->name),
              LOG_ERR(&err), LOG_INT("pause_ms", (int64_t)program->pause_ms));
    program->restart =
        loop_timer_start(&up->loop, program->pause_ms, 0, restart_program, program, NULL);
    program->pause_ms =
        program->pause_ms * 2 < RESTART_PAUSE_MAX_MS ? program->pause_ms * 2 : RESTART_PAUSE_MAX_MS;
}

static int start_program(struct program *program, struct error *err)
{
    const char *argv[] = {program->path, NULL};
    const int fds[] = {program->up->parent_pipe[0]};
    struct spawn_options options = {
        .argv = argv,
        .environment = (const char *const *)program->environment,
        .inherit_output = true,
        .new_process_group =
            true, /* Ctrl-C reaches this process only, which then stops the others in order */
        .fds = fds,
        .fd_count = 1,
    };
    program->started_ns = clock_monotonic_ns();
    program->child = spawn_start(&program->up->loop, &options, program_ended, program, err);
    return program->child ? 0 : -1;
}

static void restart_program(void *data)
{
    struct program *program = data;
    struct error err = {0};
    loop_timer_stop(program->restart);
    program->restart = NULL;
    if (start_program(program, &err)) {
        log_error("a program cannot be started", LOG_STR("program", program->name), LOG_ERR(&err));
        program->up->status = 1;
        stop(program->up);
    }
}

static void cancel_restart(struct program *program)
{
    loop_timer_stop(program->restart);
    program->restart = NULL;
}

/* The worker first, so that it can deliver its results; the controller when the worker is gone. */
static void stop(struct up *up)
{
    if (up->stopping)
        return;
    up->stopping = true;
    cancel_restart(&up->worker);
    cancel_restart(&up->controller);
    if (up->worker.child)
        ask_to_stop(&up->worker);
    else if (up->controller.child)
        ask_to_stop(&up->controller);
    else
        stopped_everything(up);
}

static void on_signal(void *data, int signal)
{
    struct up *up = data;
    if (!up->stopping) {
        stop(up);
        return;
    }
    /* The second one is meant: pass it on, so that draining is cut short. The controller still waits for its worker. */
    if (up->worker.child)
        spawn_kill(up->worker.child, signal);
    else if (up->controller.child)
        spawn_kill(up->controller.child, signal);
}

/* ---- readiness ---- */

static void write_run_file(const struct up *up)
{
    struct error err = {0};
    if (run_file_write(up->run_file, up->url, up->token_file, &err) < 0)
        log_warn("commands on this machine must be told --url and --token", LOG_ERR(&err));
}

/* The address that the controller says it listens on; false while it has not said. */
static bool read_url(struct up *up)
{
    struct buffer file = BUFFER_INIT(256);
    bool known = buffer_read_file(&file, up->url_file, NULL) == 0 && file.len > 0;
    if (known)
        snprintf(up->url, sizeof(up->url), "%.*s", (int)strcspn(file.data, "\r\n"), file.data);
    buffer_deinit(&file);
    return known;
}

static bool platform_is_ready(struct up *up)
{
    struct http_answer answer = {0};
    char url[320];
    snprintf(url, sizeof(url), "%s/readyz", up->url);
    struct http_call_options options = {
        .method = "GET", .url = url, .timeout_ms = 2000, .ca_file = getenv("WORKER_CA_FILE")};
    if (http_fetch(&options, &answer, NULL))
        return false;
    bool ready = answer.status == 200;
    http_answer_deinit(&answer);
    return ready;
}

/* The worker is told the address, and a controller that is started again later must keep it, also when its port was
 * picked by the kernel. */
static int start_worker(struct up *up, struct error *err)
{
    const char *address = strstr(up->url, "://");
    autofree char *listen = string_printf("CONTROLLER_LISTEN=%s", address ? address + 3 : "");
    autofree char *url = string_printf("WORKER_CONTROLLER_URL=%s", up->url);
    const char *const controller[] = {listen, NULL};
    const char *const worker[] = {url, NULL};
    if (!listen || !url || set_environment(&up->controller, controller) ||
        set_environment(&up->worker, worker))
        return error_set(err, ERROR_INTERNAL, "out of memory");
    return start_program(&up->worker, err);
}

static void poll_ready(void *data)
{
    struct up *up = data;
    if (up->stopping)
        return;
    struct error err = {0};
    if (!up->url[0] && read_url(up) && start_worker(up, &err)) {
        log_error("the worker cannot be started", LOG_ERR(&err));
        up->status = 1;
        stop(up);
    } else if (up->worker.child && platform_is_ready(up)) {
        up->ready = true;
        loop_timer_stop(up->ready_timer);
        up->ready_timer = NULL;
        write_run_file(up);
        printf("ready %s\n", up->url);
        fflush(stdout);
    } else if (clock_monotonic_ns() > up->deadline_ns) {
        log_error("the platform was not ready in time", LOG_INT("timeout_ms", READY_TIMEOUT_MS));
        up->status = 1;
        stop(up);
    }
}

/* ---- set-up ---- */

/* WORKER_TOKEN is shared by a file in the data folder, so nothing secret is in an environment that
 * `ps e` shows. */
static int prepare_environments(struct up *up, struct error *err)
{
    autofree char *listen = string_printf("CONTROLLER_LISTEN=%s", up->listen);
    autofree char *controller_dir = string_printf("CONTROLLER_DATA_DIR=%s", up->data_dir);
    autofree char *database =
        string_printf("CONTROLLER_DATABASE_URL=sqlite://%s/controller.db", up->data_dir);
    autofree char *worker_dir = string_printf("WORKER_DATA_DIR=%s", up->data_dir);
    autofree char *token_file = string_printf("WORKER_TOKEN_FILE=%s/worker-token", up->data_dir);
    autofree char *run_file = string_printf("FAAS_RUN_FILE=%s", up->run_file);
    if (!listen || !controller_dir || !database || !worker_dir || !token_file || !run_file)
        return error_set(err, ERROR_INTERNAL, "out of memory");
    bool database_given = getenv("CONTROLLER_DATABASE_URL") != NULL;
    const char *const controller[] = {"FAAS_PARENT_FD=3",
                                      run_file,
                                      listen,
                                      controller_dir,
                                      database_given ? NULL : database,
                                      NULL};
    const char *const worker[] = {"FAAS_PARENT_FD=3", worker_dir, token_file, NULL};
    if (set_environment(&up->controller, controller) || set_environment(&up->worker, worker))
        return error_set(err, ERROR_INTERNAL, "out of memory");
    return 0;
}

static int prepare(struct up *up, const struct cli *cli, struct error *err)
{
    autofree char *programs = program_directory();
    const char *data_dir =
        cli_option(cli, "data-dir") ? cli_option(cli, "data-dir") : DEFAULT_DATA_DIR;
    const char *environment_listen = getenv("CONTROLLER_LISTEN");

    up->listen = cli_option(cli, "listen") ? cli_option(cli, "listen")
                 : environment_listen      ? environment_listen
                                           : "127.0.0.1:8080";
    if (make_directories(data_dir, 0711, err))
        return error_wrap(err, "data folder");
    up->data_dir = realpath(data_dir, NULL);
    if (!programs || !up->data_dir)
        return error_set_errno(err, ERROR_INTERNAL, errno,
                               "cannot find this program's folder or %s", data_dir);
    up->url_file = string_printf("%s/controller.url", up->data_dir);
    up->token_file = string_printf("%s/token", up->data_dir);
    up->run_file = run_file_path(getpid());
    up->controller =
        (struct program){.up = up, .name = "faas-controller", .pause_ms = RESTART_PAUSE_MS};
    up->worker = (struct program){.up = up, .name = "faas-worker", .pause_ms = RESTART_PAUSE_MS};
    up->controller.path = string_printf("%s/faas-controller", programs);
    up->worker.path = string_printf("%s/faas-worker", programs);
    if (!up->url_file || !up->token_file || !up->run_file || !up->controller.path ||
        !up->worker.path)
        return error_set(err, ERROR_INTERNAL, "out of memory");
    unlink(up->url_file);
    if (pipe2(up->parent_pipe, O_CLOEXEC))
        return error_set_errno(err, ERROR_INTERNAL, errno, "cannot make a pipe");
    return prepare_environments(up, err);
}

static void release(struct up *up)
{
    struct program *const programs[] = {&up->controller, &up->worker};
    for (size_t i = 0; i < ARRAY_LENGTH(programs); i++) {
        free(programs[i]->path);
        free_environment(programs[i]->environment);
    }
    for (size_t i = 0; i < 2; i++)
        if (up->parent_pipe[i] >= 0)
            close(up->parent_pipe[i]);
    free(up->data_dir);
    free(up->url_file);
    free(up->token_file);
    free(up->run_file);
}

static int run_loop(struct up *up, struct error *err)
{
    up->deadline_ns = clock_monotonic_ns() + READY_TIMEOUT_MS * 1000000ULL;
    up->signals = loop_signals_start(&up->loop, on_signal, up, err);
    if (!up->signals)
        return -1;
    if (start_program(&up->controller, err) == 0)
        up->ready_timer =
            loop_timer_start(&up->loop, READY_POLL_MS, READY_POLL_MS, poll_ready, up, err);
    if (!up->ready_timer)
        stop(up);
    if (!up->stopping || up->controller.child || up->worker.child)
        uv_run(&up->loop, UV_RUN_DEFAULT);
    return up->ready_timer || up->ready || up->stopping ? 0 : -1;
}

static int run_up(struct cli *cli)
{
    struct error err = {0};
    struct up up = {.parent_pipe = {-1, -1}};
    int result = -1;

    log_init("faas", LOG_LEVEL_INFO, LOG_FORMAT_TEXT);
    if (uv_loop_init(&up.loop) == 0) {
        result = prepare(&up, cli, &err);
        if (result == 0)
            result = run_loop(&up, &err);
        loop_close(&up.loop);
        if (up.run_file)
            unlink(up.run_file);
    } else {
        error_set(&err, ERROR_INTERNAL, "cannot make an event loop");
    }
    release(&up);
    if (result || err.code)
        return cli_fail(cli, &err);
    return up.status;
}

static const struct cli_option options[] = {
    {"data-dir", 0, "DIR", "database, tokens and caches (default " DEFAULT_DATA_DIR ")", NULL},
    {"listen", 0, "ADDR:PORT",
     "where the API is served; port 0 picks a free one (default 127.0.0.1:8080)", NULL},
};

const struct cli_verb cli_verb_up = {
    .name = "up",
    .arguments = "",
    .summary = "run controller and one worker in the foreground",
    .description = "Prints `ready URL` on stdout once functions can be invoked. Every setting of "
                   "faas-controller and faas-worker can be\n"
                   "given in the environment. SIGINT or SIGTERM finishes what is under way, "
                   "removes containers, mounts and cgroups,\n"
                   "and ends; a second one cuts the waiting short.",
    .example = "faas up --data-dir ./data --listen 127.0.0.1:9000",
    .options = options,
    .option_count = ARRAY_LENGTH(options),
    .run = run_up,
};
