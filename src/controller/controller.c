/* The controller's life: see controller.h. */
#include "controller/controller.h"

#include "base/cleanup.h"
#include "base/file.h"
#include "base/listen_fds.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/notify.h"
#include "controller/refresh.h"
#include "controller/routes.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* By which a service manager knows the listening socket (docs/operations.md). */
#define LISTENER_NAME "faas-listener"
#define PEM_MAX_BYTES (256 * 1024)
#define TICK_MS 100
#define RETENTION_EVERY_MS ((uint64_t)60 * 1000)
#define FOLLOWERS_PING_MS 15000
#define LAST_ANSWERS_MS 50
#define NS_PER_MS 1000000ULL
#define NS_PER_HOUR (3600ULL * 1000000000ULL)
/* A worker gets no more when so many bytes wait to be sent to it. */
#define QUEUED_ENOUGH ((size_t)64 * 1024 * 1024)

/* ---- giving out work ---- */

static int tell_assignment(struct worker_session *session, struct live_execution *execution,
                           struct error *err)
{
    char head[384];
    const struct function_spec *spec = &execution->version->record.spec;
    snprintf(head, sizeof(head),
             "{\"kind\":\"invoke\",\"execution_id\":\"%s\",\"attempt\":%lld,\"function\":\"%s\","
             "\"version\":%lld,\"timeout_ms\":%lld}",
             execution->record.id, (long long)execution->record.attempt, spec->name,
             (long long)spec->version, (long long)spec->timeout_ms);
    return session_give(session, head, execution->payload, err);
}

bool controller_expects_workers(const struct controller *controller)
{
    uint64_t wait_ms = (uint64_t)controller->config.worker_lost_ms;
    if (wait_ms > SESSION_STATE_MS)
        wait_ms = SESSION_STATE_MS;
    return clock_monotonic_ns() - controller->started_ns < wait_ms * NS_PER_MS;
}

int controller_check_placement(const struct controller *controller,
                               struct function_version *version, struct error *err)
{
    char text[512];
    if (placement_expected(&controller->dispatch.placement, version) ||
        sessions_alive(controller) == 0 || controller_expects_workers(controller))
        return 0;
    placement_explain(&controller->dispatch.placement, version, text, sizeof(text));
    return error_set(err, ERROR_NO_CAPACITY, "%s", text);
}

static void assign(struct controller *controller, struct live_execution *execution,
                   struct worker_session *session)
{
    struct error err = {0};
    if (!delivery_may_begin(controller, execution))
        return;
    if (tell_assignment(session, execution, &err) == 0)
        executions_started(controller, execution, session);
    else
        executions_fail(controller, execution, EXECUTION_LOST, "Platform.NotDelivered", "%s",
                        err.message);
}

/* One that does not read what it is sent is told no more for a while. */
static void note_room(struct worker_session *session)
{
    session->dispatch.reachable = session->stream && session_queued(session) < QUEUED_ENOUGH;
}

static void note_rooms(struct controller *controller)
{
    struct dispatch *dispatch = &controller->dispatch;
    dispatch->places = 0;
    dispatch->places_reserved = controller->registry.reserved;
    list_for_each(link, &controller->sessions.all)
    {
        struct worker_session *session =
            (struct worker_session *)list_entry(link, struct dispatch_worker, link);
        note_room(session);
        if (!session->lost && !session->dispatch.draining)
            dispatch->places += session->dispatch.concurrency;
    }
}

void controller_fill(struct controller *controller, struct worker_session *session)
{
    struct live_execution *execution;
    while (session_queued(session) < QUEUED_ENOUGH &&
           (execution = dispatch_next_for(&controller->dispatch, &session->dispatch)))
        assign(controller, execution, session);
}

void controller_dispatch(struct controller *controller)
{
    struct dispatch_worker *worker;
    struct live_execution *execution;
    note_rooms(controller);
    while ((execution = dispatch_next(&controller->dispatch, &controller->sessions.all, &worker))) {
        struct worker_session *session = (struct worker_session *)worker;
        assign(controller, execution, session);
        controller_fill(controller, session);
        session_flush(session);
        note_room(session);
    }
    if (!list_empty(&controller->builds.waiting))
        builds_dispatch(controller);
}

static void version_gone(void *data, const struct function_version *version)
{
    struct controller *controller = data;
    const struct function_entry *function = version->function;
    const struct function_spec *spec = &version->record.spec;
    sessions_forget(controller, function->name, spec->version);
    if (function->current &&
        function->live_versions <= 1U + (function->newest != function->current))
        store_prune_versions(controller->store, function->name,
                             function->current->record.spec.version, NULL, NULL);
}

/* ---- time ---- */

/* What it has waited for, as the first half of a sentence. */
static void say_lack(const struct controller *controller, const struct live_execution *execution,
                     char *text, size_t size)
{
    const struct function_entry *function = execution->version->function;
    if (dispatch_at_bound(execution))
        snprintf(text, size,
                 "%s has %zu invocations under way, as many as its max_instances allows, and none "
                 "ended",
                 function->name, function->under_way);
    else if (sessions_alive(controller) == 0)
        snprintf(text, size, "no worker is in contact, and none came");
    else if (sessions_taking(controller) == 0)
        snprintf(text, size, "every worker in contact is drained or stops, and no other came");
    else if (!placement_possible(&controller->dispatch.placement, execution->version)) {
        placement_explain(&controller->dispatch.placement, execution->version, text, size);
        size_t len = strlen(text);
        snprintf(text + len, size - len, ", and none came");
    } else if (function->reserved == 0 && dispatch_shared_full(&controller->dispatch))
        snprintf(text, size,
                 "every place that is not reserved for another function is taken, and none became "
                 "free");
    else
        snprintf(text, size, "every worker is busy, and none became free");
}

static void fail_expired(struct controller *controller, struct live_execution *execution)
{
    char lack[544];
    say_lack(controller, execution, lack, sizeof(lack));
    dispatch_remove(&controller->dispatch, execution);
    executions_fail(controller, execution, EXECUTION_CANCELLED, "Platform.NoCapacity",
                    "%s within %lld ms", lack, (long long)controller->config.queue_wait_ms);
}

static void expire_waiting(struct controller *controller)
{
    uint64_t now_ns = clock_monotonic_ns();
    uint64_t wait_ns = (uint64_t)controller->config.queue_wait_ms * NS_PER_MS;
    struct list *first;
    while ((first = list_first(&controller->dispatch.waiting))) {
        struct live_execution *execution = list_entry(first, struct live_execution, wait_link);
        if (now_ns - execution->accepted_ns < wait_ns)
            return;
        fail_expired(controller, execution);
    }
}

static void tick(void *data)
{
    struct controller *controller = data;
    sessions_tick(controller);
    expire_waiting(controller);
    keeps_tick(controller);
    delivery_tick(controller);
    controller_dispatch(controller);
    if (controller->draining)
        drain_tick(controller);
}

static void retention_due(void *data)
{
    struct controller *controller = data;
    uint64_t now_ns = clock_realtime_ns();
    const struct controller_config *config = &controller->config;
    uint64_t keep_ns = (uint64_t)config->retention_hours * NS_PER_HOUR;
    uint64_t dead_ns = (uint64_t)config->dead_letter_hours * NS_PER_HOUR;
    struct store_retention retention = {
        .before_ns = now_ns > keep_ns ? now_ns - keep_ns : 0,
        .dead_before_ns = now_ns > dead_ns ? now_ns - dead_ns : 0,
        .now_ns = now_ns,
        .keep_count = config->retention_count,
    };
    store_expire_executions(controller->store, &retention, NULL, NULL);
}

static void ping_due(void *data)
{
    log_followers_ping(data);
}

/* ---- stopping ---- */

static void on_signal(void *data, int signal)
{
    struct controller *controller = data;
    (void)signal;
    drain_begin(controller);
}

static void on_parent_end(uv_poll_t *poll, int status, int events)
{
    (void)status;
    (void)events;
    uv_poll_stop(poll);
    drain_begin(poll->data);
}

/* ---- starting ---- */

static int prepare_folders(struct controller *controller, struct error *err)
{
    const char *data_dir = controller->config.data_dir;
    autofree char *check = string_printf("%s/check", data_dir);
    if (!check)
        return error_set(err, ERROR_INTERNAL, "out of memory");
    /* What a controller that was killed left behind. */
    if (make_directories(data_dir, 0755, err) < 0 || remove_tree(check, err) < 0 ||
        make_directories(check, 0700, err) < 0)
        return error_wrap(err, "setting CONTROLLER_DATA_DIR (%s)", data_dir);
    return 0;
}

static int open_store(struct controller *controller, struct error *err)
{
    const struct controller_config *config = &controller->config;
    autofree char *url = controller_database_url(config);
    if (!url)
        return error_set(err, ERROR_INTERNAL, "out of memory");
    controller->store = store_open(&controller->loop, url, err);
    return controller->store ? 0 : -1;
}

static int read_pem(const char *setting, const char *path, struct buffer *out, struct error *err)
{
    buffer_init(out, PEM_MAX_BYTES);
    if (buffer_read_file(out, path, err) < 0)
        return error_wrap(err, "setting %s (%s)", setting, path);
    return 0;
}

static int read_tls(struct controller *controller, struct error *err)
{
    const char *certificate = controller->config.tls_cert_file;
    const char *key = controller->config.tls_key_file;
    struct stat status;
    if (!*certificate && !*key)
        return 0;
    if (stat(key, &status) == 0 && (status.st_mode & 0077))
        log_warn("others can read the private key", LOG_STR("file", key));
    if (read_pem("CONTROLLER_TLS_CERT_FILE", certificate, &controller->tls_certificate, err) < 0)
        return -1;
    return read_pem("CONTROLLER_TLS_KEY_FILE", key, &controller->tls_key, err);
}

/* The socket that a service manager kept open since the last start; 0 when there is none at the address that is asked for. */
static int inherited_listener(struct controller *controller)
{
    if (controller->inherited_fd <= 0)
        return 0;
    controller->listener_kept =
        http_listens_at(controller->inherited_fd, controller->config.listen);
    if (controller->listener_kept)
        return controller->inherited_fd;
    log_warn("the socket that was passed is at another address: it is closed, and a new one opened",
             LOG_STR("address", controller->config.listen));
    close(controller->inherited_fd);
    notify_drop_fd(LISTENER_NAME);
    return 0;
}

static int start_server(struct controller *controller, struct error *err)
{
    const struct controller_config *config = &controller->config;
    struct http_server_options options = {
        .listen = config->listen,
        .route_count = api_route_count,
        .data = controller,
        .admit = config->rate_limit ? routes_admit : NULL,
        .authorize = routes_authorize,
        .confirm = routes_confirm,
        .room = routes_room,
        .tls_certificate = controller->tls_certificate.data,
        .tls_key = controller->tls_key.data,
        .connection_limit = (unsigned)config->connections,
        .connections_per_client = (unsigned)config->connections_per_client,
        .max_buffered_bytes = (size_t)config->body_memory_mb * 1024 * 1024};
    controller->routes = routes_make(controller, err);
    if (!controller->routes ||
        rate_limit_init(&controller->rate_limit, (uint64_t)config->rate_limit,
                        (uint64_t)config->rate_burst, err) < 0)
        return -1;
    options.routes = controller->routes;
    options.inherited_fd = inherited_listener(controller);
    controller->server = http_server_new(&controller->loop, &options, err);
    return controller->server ? 0
                              : error_wrap(err, "setting CONTROLLER_LISTEN (%s)", config->listen);
}

/* "http://127.0.0.1:8080": a wildcard address is named by the loopback one. */
static char *public_url(const struct controller *controller)
{
    const char *listen = controller->config.listen;
    const char *colon = strrchr(listen, ':');
    int host_len = colon ? (int)(colon - listen) : (int)strlen(listen);
    autofree char *host = strndup(listen, (size_t)host_len);
    if (!host)
        return NULL;
    const char *shown = strcmp(host, "0.0.0.0") == 0 ? "127.0.0.1"
                        : strcmp(host, "[::]") == 0  ? "[::1]"
                                                     : host;
    return string_printf("%s://%s:%u", controller->tls_key.len ? "https" : "http", shown,
                         http_server_port(controller->server));
}

static int write_url_file(struct controller *controller, struct error *err)
{
    autofree char *url = public_url(controller);
    autofree char *line = url ? string_printf("%s\n", url) : NULL;
    autofree char *path = string_printf("%s/controller.url", controller->config.data_dir);
    if (!line || !path)
        return error_set(err, ERROR_INTERNAL, "out of memory");
    if (write_file_atomic(path, line, strlen(line), 0644, false, err) < 0)
        return -1;
    log_info("listening", LOG_STR("url", url), LOG_STR("version", FAAS_VERSION));
    return 0;
}

/* `faas up` names a file that tells commands of this machine where its controller is (FAAS_RUN_FILE). It removes the file itself,
 * unless it was killed; then its controller does. */
static void remove_run_file(void)
{
    const char *path = getenv("FAAS_RUN_FILE");
    if (path)
        unlink(path);
}

static void remove_url_file(struct controller *controller)
{
    remove_run_file();
    autofree char *path = string_printf("%s/controller.url", controller->config.data_dir);
    if (path)
        unlink(path);
}

static int start_timers(struct controller *controller, struct error *err)
{
    uv_loop_t *loop = &controller->loop;
    controller->tick = loop_timer_start(loop, TICK_MS, TICK_MS, tick, controller, err);
    controller->retention = loop_timer_start(loop, RETENTION_EVERY_MS, RETENTION_EVERY_MS,
                                             retention_due, controller, err);
    controller->ping =
        loop_timer_start(loop, FOLLOWERS_PING_MS, FOLLOWERS_PING_MS, ping_due, controller, err);
    controller->signals = loop_signals_start(loop, on_signal, controller, err);
    return controller->tick && controller->retention && controller->ping && controller->signals
               ? 0
               : -1;
}

/* `faas up` gives the end of a pipe: when it closes, the parent is gone, however it ended. */
static void watch_parent(struct controller *controller)
{
    const char *text = getenv("FAAS_PARENT_FD");
    struct stat status;
    int fd = text ? atoi(text) : -1;
    if (fd < 3 || fstat(fd, &status) < 0 ||
        uv_poll_init(&controller->loop, &controller->parent, fd) < 0)
        return;
    controller->parent.data = controller;
    controller->watches_parent = true;
    uv_poll_start(&controller->parent, UV_READABLE | UV_DISCONNECT, on_parent_end);
}

static bool is_shared(const char *database_url)
{
    return strncmp(database_url, "postgresql://", 13) == 0;
}

static int load_tokens(struct controller *controller, struct error *err)
{
    const struct controller_config *config = &controller->config;
    struct auth *auth = &controller->auth;
    return is_shared(config->database_url)
               ? auth_load_shared(auth, config->data_dir, config->worker_token, controller->store,
                                  err)
               : auth_load(auth, config->data_dir, config->worker_token, err);
}

int controller_start(struct controller *controller, struct error *err)
{
    const struct controller_config *config = &controller->config;
    struct dispatch_limits limits = {.length = (size_t)config->queue_length,
                                     .length_per_function =
                                         (size_t)config->queue_length_per_function,
                                     .payload_bytes = (size_t)config->queue_max_mb * 1024 * 1024};

    controller->inherited_fd = listen_fds_take(LISTENER_NAME);
    uv_loop_init(&controller->loop);
    controller->started_ns = clock_monotonic_ns();
    controller->machine_cpus = (double)sysconf(_SC_NPROCESSORS_ONLN);
    registry_init(&controller->registry, version_gone, controller);
    tokens_init(&controller->tokens);
    worker_drains_init(&controller->worker_drains);
    executions_init(&controller->executions);
    dispatch_init(&controller->dispatch, &limits);
    sessions_init(&controller->sessions);
    builds_init(&controller->builds);
    log_followers_init(&controller->followers);

    if (loop_start_pool(&controller->loop, err) < 0 || prepare_folders(controller, err) < 0 ||
        open_store(controller, err) < 0 || load_tokens(controller, err) < 0 ||
        tokens_load(controller, err) < 0 || worker_drains_load(controller, err) < 0 ||
        registry_load(&controller->registry, controller->store, err) < 0 ||
        delivery_start(controller, is_shared(config->database_url), err) < 0 ||
        callbacks_start(controller, err) < 0 || builds_resume(controller, err) < 0 ||
        refresh_start(controller, err) < 0 || read_tls(controller, err) < 0 ||
        start_server(controller, err) < 0 || start_timers(controller, err) < 0)
        return -1;
    watch_parent(controller);
    if (write_url_file(controller, err) < 0)
        return -1;
    /* Without it, memory is kept. */
    controller->rest = memory_rest_start(&controller->loop, NULL);
    controller->notify = notify_ready(&controller->loop);
    if (!controller->listener_kept)
        controller->listener_kept = notify_keep_fd(controller->notify, LISTENER_NAME,
                                                   http_server_listener(controller->server));
    return 0;
}

void controller_run(struct controller *controller)
{
    loop_raise_priority();
    while (!controller->stopped)
        uv_run(&controller->loop, UV_RUN_DEFAULT);
}

static void close_timers(struct controller *controller)
{
    struct loop_timer **const timers[] = {&controller->tick, &controller->retention,
                                          &controller->ping};
    for (size_t i = 0; i < ARRAY_LENGTH(timers); i++) {
        loop_timer_stop(*timers[i]);
        *timers[i] = NULL;
    }
    notify_free(controller->notify);
    controller->notify = NULL;
    memory_rest_stop(controller->rest);
    controller->rest = NULL;
    if (controller->signals)
        loop_signals_stop(controller->signals);
    controller->signals = NULL;
    if (controller->watches_parent)
        uv_close((uv_handle_t *)&controller->parent, NULL);
    controller->watches_parent = false;
}

static void stop_loop(void *data)
{
    uv_stop(data);
}

/* Answers that were given in the last moment go out before the server closes. */
static void close_server(struct controller *controller)
{
    if (!controller->server)
        return;
    if (controller->listener_kept)
        remove_run_file();
    else
        remove_url_file(controller);
    drain_give_up_rest(controller);
    worker_streams_close(controller);
    http_server_quiesce(controller->server);
    struct loop_timer *timer =
        loop_timer_start(&controller->loop, LAST_ANSWERS_MS, 0, stop_loop, &controller->loop, NULL);
    if (timer)
        uv_run(&controller->loop, UV_RUN_DEFAULT);
    loop_timer_stop(timer);
}

void controller_deinit(struct controller *controller)
{
    close_timers(controller);
    close_server(controller);
    if (controller->store)
        executions_flush(controller);
    delivery_stop(controller);
    callbacks_stop(controller);
    store_close(controller->store);
    http_server_free(controller->server);
    buffer_deinit(&controller->tls_certificate);
    if (controller->tls_key.data)
        explicit_bzero(controller->tls_key.data, controller->tls_key.len);
    buffer_deinit(&controller->tls_key);
    rate_limit_deinit(&controller->rate_limit);
    builds_deinit(controller);
    sessions_deinit(controller);
    executions_deinit(controller);
    registry_deinit(&controller->registry);
    tokens_deinit(&controller->tokens);
    worker_drains_deinit(&controller->worker_drains);
    free(controller->routes);
    loop_close(&controller->loop);
    log_info("stopped");
}
