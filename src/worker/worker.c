/* Puts the parts together: assignments come in by the links, go through functions and pool, results go out; see worker.h. */
#include "worker/worker_internal.h"

#include "base/cleanup.h"
#include "base/file.h"
#include "base/http_client.h"
#include "base/log.h"
#include "base/loop.h"
#include "base/sealed_memory.h"
#include "worker/instance_spec.h"
#include "worker/orphans.h"
#include "worker/outcome.h"

#include <stdlib.h>
#include <string.h>
#include <sys/sysinfo.h>
#include <unistd.h>

#define FUNCTIONS_MAX 4096
/* Functions whose idle times are remembered. */
#define HISTORIES_MAX 2048
/* How long results may take to be delivered when everything else has been stopped. */
#define DELIVERY_MS 10000

static void check_drained(struct worker *worker);

/* ---- invocations ---- */

static void admit_backlog(struct worker *worker);

static void answer(struct worker *worker, struct invocation *invocation)
{
    struct execution *execution = &invocation->execution;
    log_debug("execution finished", LOG_STR("execution", execution->id),
              LOG_STR("function", execution->function),
              LOG_STR("status", execution_status_name(execution->status)),
              LOG_INT("duration_us", (int64_t)(execution->metrics.duration / 1000)),
              LOG_INT("cold", execution->cold_start));
    if (execution->status == EXECUTION_LOST)
        log_warn("execution could not be run", LOG_STR("execution", execution->id),
                 LOG_STR("function", execution->function),
                 LOG_STR("error", execution->error.message));
    link_send_result(invocation->link, execution);
    TAILQ_REMOVE(&worker->all, invocation, all);
    if (worker->arriving == invocation)
        worker->arriving = NULL;
    invocation_free(invocation);
}

static void on_done(void *data, struct invocation *invocation)
{
    struct worker *worker = data;
    worker->running--;
    answer(worker, invocation);
    admit_backlog(worker);
    check_drained(worker);
}

static struct blob *result_room(void *data, struct invocation *invocation, size_t len)
{
    const struct worker *worker = data;
    return link_result_room(invocation->link, len, (size_t)worker->settings->log_max_bytes);
}

/* Why the code cannot be used is the function's own failure; everything else is ours. */
static void fail_preparation(struct invocation *invocation, const struct error *err)
{
    if (err->code == ERROR_INVALID_REQUEST || err->code == ERROR_PAYLOAD_TOO_LARGE)
        outcome_fail(&invocation->execution, EXECUTION_FAILED, "Function.NotStarted", "%s",
                     err->message);
    else
        outcome_lost(&invocation->execution, "Platform.CodeUnavailable", err);
}

static void on_function(void *data, struct function *function, const struct error *err)
{
    struct invocation *invocation = data;
    struct worker *worker = invocation->data;
    invocation->function = function;
    if (invocation->cancelled)
        outcome_fail(&invocation->execution, EXECUTION_CANCELLED, "Function.Cancelled",
                     "the execution was cancelled");
    else if (worker->stopping)
        outcome_fail(&invocation->execution, EXECUTION_LOST, "Platform.Stopping",
                     "the worker is stopping");
    else if (!function)
        fail_preparation(invocation, err);
    if (invocation->execution.status != EXECUTION_RUNNING)
        on_done(worker, invocation);
    else
        pool_run(worker->pool, invocation);
}

static void admit(struct worker *worker, struct invocation *invocation)
{
    struct error err = {0};
    const struct execution *execution = &invocation->execution;
    worker->running++;
    invocation->function =
        functions_find(worker->functions, execution->function, execution->version);
    if (invocation->function) {
        pool_run(worker->pool, invocation);
        return;
    }
    if (functions_get(worker->functions, invocation->link, execution->function, execution->version,
                      on_function, invocation, &err) < 0) {
        outcome_lost(&invocation->execution, "Platform.CodeUnavailable", &err);
        on_done(worker, invocation);
    }
}

static void admit_backlog(struct worker *worker)
{
    struct invocation *invocation;
    while (worker->running < (size_t)worker->settings->concurrency &&
           (invocation = TAILQ_FIRST(&worker->backlog))) {
        TAILQ_REMOVE(&worker->backlog, invocation, waiting);
        invocation->queued = false;
        admit(worker, invocation);
    }
}

static struct invocation *find_invocation(struct worker *worker, const char *id)
{
    struct invocation *invocation;
    TAILQ_FOREACH(invocation, &worker->all, all)
    {
        if (strcmp(invocation->execution.id, id) == 0)
            return invocation;
    }
    return NULL;
}

static int fill_invocation(struct worker *worker, struct invocation *invocation,
                           const struct json *head, struct message_in *in, struct error *err)
{
    size_t body_len = in->message.body_len;
    int64_t timeout_ms = json_get_int(head, "timeout_ms", 0);
    if (timeout_ms < 1 || timeout_ms > FUNCTION_TIMEOUT_MS_MAX)
        return error_set(err, ERROR_INVALID_REQUEST, "timeout_ms must be 1 to %d, not %lld",
                         FUNCTION_TIMEOUT_MS_MAX, (long long)timeout_ms);
    if (in->cut || body_len > (size_t)worker->settings->payload_max_bytes)
        return error_set(err, ERROR_PAYLOAD_TOO_LARGE,
                         "the payload has %zu bytes; this worker takes %lld", body_len,
                         (long long)worker->settings->payload_max_bytes);
    invocation->payload = message_take_room(in, &invocation->payload_at);
    if (!invocation->payload)
        return error_set(err, ERROR_INTERNAL, "out of memory");
    invocation->payload_len = body_len;
    invocation->timeout_ms = (uint64_t)timeout_ms;
    return 0;
}

/* Its payload still stands where it came, so that an instance which is ready gets it from there. */
static void begin(struct worker *worker, struct invocation *invocation)
{
    if (worker->running >= (size_t)worker->settings->concurrency) {
        invocation->queued = true;
        TAILQ_INSERT_TAIL(&worker->backlog, invocation, waiting);
    } else {
        admit(worker, invocation);
    }
}

static void take_invoke(struct worker *worker, struct link *link, const struct json *head,
                        struct message_in *in)
{
    struct error err = {0};
    const char *id = json_get_string(head, "execution_id");
    const char *name = json_get_string(head, "function");
    if (!id || !name || !function_name_valid(name)) {
        log_error("assignment without execution_id or function");
        return;
    }
    if (find_invocation(worker, id)) {
        log_warn("execution was assigned twice", LOG_STR("execution", id));
        return;
    }
    struct invocation *invocation = invocation_new(id, json_get_int(head, "attempt", 1), name,
                                                   json_get_int(head, "version", 0), &err);
    if (!invocation) {
        log_error("assignment cannot be taken", LOG_ERR(&err));
        return;
    }
    invocation->link = link;
    invocation->done = on_done;
    invocation->room = result_room;
    invocation->data = worker;
    TAILQ_INSERT_TAIL(&worker->all, invocation, all);
    if (fill_invocation(worker, invocation, head, in, &err) < 0 || worker->stopping) {
        if (worker->stopping)
            error_set(&err, ERROR_UNAVAILABLE, "the worker is stopping");
        outcome_lost(&invocation->execution, "Platform.NotAccepted", &err);
        answer(worker, invocation);
        return;
    }
    worker->arriving = invocation;
    begin(worker, invocation);
    if (worker->arriving)
        invocation_keep_payload(worker->arriving);
    worker->arriving = NULL;
}

static void take_cancel(struct worker *worker, const struct json *head)
{
    const char *id = json_get_string(head, "execution_id");
    struct invocation *invocation = id ? find_invocation(worker, id) : NULL;
    if (!invocation)
        return;
    if (invocation->queued) {
        TAILQ_REMOVE(&worker->backlog, invocation, waiting);
        outcome_fail(&invocation->execution, EXECUTION_CANCELLED, "Function.Cancelled",
                     "the execution was cancelled");
        answer(worker, invocation);
        check_drained(worker);
    } else if (!invocation->function) {
        invocation->cancelled = true; /* ends when its function is there */
    } else {
        pool_cancel(worker->pool, invocation);
    }
}

static void on_log(struct invocation *invocation, uint64_t offset, const char *text, size_t len)
{
    link_send_log(invocation->link, invocation->execution.id, invocation->execution.attempt, offset,
                  text, len);
}

/* ---- assignments ---- */

static void take_forget(struct worker *worker, const struct json *head)
{
    const char *name = json_get_string(head, "function");
    int64_t version = json_get_int(head, "version", 0);
    if (!name)
        return;
    kept_forget(worker->kept, name, version);
    pool_forget(worker->pool, name, version);
    functions_forget(worker->functions, name, version);
}

/* Of several controllers, which all go by the same mark, the last word counts. */
static void take_drain(struct worker *worker, const struct json *head)
{
    bool drained = json_get_bool(head, "drained", true);
    if (drained == worker->drained)
        return;
    worker->drained = drained;
    log_info(drained ? "drained: no calls come, and nothing is made ready for them"
                     : "resumed: calls come again");
    if (worker->pool)
        pool_make_ahead(worker->pool, !worker->drained && !worker->draining);
}

static void assigned(void *data, struct link *link, const struct json *head, struct message_in *in)
{
    struct worker *worker = data;
    const char *kind = json_get_string(head, "kind");
    if (!kind)
        kind = "";
    if (strcmp(kind, "invoke") == 0)
        take_invoke(worker, link, head, in);
    else if (worker->stopping)
        log_debug("assignment came too late", LOG_STR("kind", kind));
    else if (strcmp(kind, "build") == 0)
        builds_take(worker->builds, link, head);
    else if (strcmp(kind, "cancel") == 0)
        take_cancel(worker, head);
    else if (strcmp(kind, "forget") == 0)
        take_forget(worker, head);
    else if (strcmp(kind, "keep") == 0)
        kept_take(worker->kept, link, head);
    else if (strcmp(kind, "drain") == 0)
        take_drain(worker, head);
    else
        log_warn("assignment of an unknown kind", LOG_STR("kind", kind));
}

static void superseded(void *data, struct link *link)
{
    (void)link;
    worker_drain(data);
}

/* ---- stopping ---- */

static void announced(void *data, struct link *link)
{
    (void)link;
    check_drained(data);
}

/* What a controller gave out before it knew that this worker stops is still on its way here, and is run. */
static bool all_know(const struct worker *worker)
{
    for (size_t i = 0; i < worker->link_count; i++)
        if (!link_announced(worker->links[i]))
            return false;
    return true;
}

static void finish_stop(struct worker *worker)
{
    loop_timer_stop(worker->deadline);
    worker->deadline = NULL;
    loop_timer_stop(worker->check); /* it may be due still, and who has been told frees */
    worker->check = NULL;
    orphans_stop(worker->orphans);
    worker->orphans = NULL;
    if (worker->idle_table)
        idle_table_close(worker->idle_table, worker->settings->data_dir);
    worker->idle_table = NULL;
    kept_free(worker->kept);
    worker->kept = NULL;
    functions_free(worker->functions);
    worker->functions = NULL;
    /* After worker_kill() some may still have waited for their function. */
    struct invocation *invocation;
    while ((invocation = TAILQ_FIRST(&worker->all))) {
        TAILQ_REMOVE(&worker->all, invocation, all);
        invocation_free(invocation);
    }
    for (size_t i = 0; i < worker->link_count; i++)
        link_free(worker->links[i]);
    worker->link_count = 0;
    code_cache_free(worker->cache);
    worker->cache = NULL;
    http_client_free(worker->http);
    worker->http = NULL;
    log_info("stopped");
    worker->stopped(worker->data);
}

static size_t undelivered(const struct worker *worker)
{
    size_t count = 0;
    for (size_t i = 0; i < worker->link_count; i++)
        count += link_pending(worker->links[i]);
    return count;
}

static void on_delivery_deadline(void *data)
{
    struct worker *worker = data;
    log_error("results could not be delivered", LOG_INT("count", (int64_t)undelivered(worker)));
    finish_stop(worker);
}

static void check_stop(void *data);

/* From the loop, never from inside of a callback that wants it; once for all that happens until then. */
static void check_soon(struct worker *worker)
{
    if (!worker->check)
        worker->check = loop_timer_start(worker->loop, 0, 0, check_stop, worker, NULL);
}

static void on_delivered(void *data)
{
    check_soon(data);
}

static void on_runtime_closed(void *data)
{
    struct worker *worker = data;
    loop_timer_stop(worker->deadline);
    worker->deadline = NULL;
    if (undelivered(worker) == 0) {
        finish_stop(worker);
        return;
    }
    worker->delivering = true;
    for (size_t i = 0; i < worker->link_count; i++)
        link_on_delivered(worker->links[i], on_delivered);
    worker->deadline =
        loop_timer_start(worker->loop, DELIVERY_MS, 0, on_delivery_deadline, worker, NULL);
}

static void on_pool_stopped(void *data)
{
    struct worker *worker = data;
    pool_free(worker->pool);
    worker->pool = NULL;
    if (builds_count(worker->builds) == 0 && !worker->closing) {
        worker->closing = true;
        struct runtime *runtime = steal_pointer(&worker->runtime);
        runtime->ops->close(runtime, on_runtime_closed, worker);
    }
}

static void stop_pool(struct worker *worker)
{
    if (worker->stopping)
        return;
    worker->stopping = true;
    pool_stop(worker->pool, on_pool_stopped, worker);
}

static void check_stop(void *data)
{
    struct worker *worker = data;
    loop_timer_stop(worker->check);
    worker->check = NULL;
    if (worker->delivering) {
        if (undelivered(worker) == 0)
            finish_stop(worker);
        return;
    }
    if (worker->stopping) {
        if (!worker->pool && builds_count(worker->builds) == 0 && !worker->closing)
            on_pool_stopped(worker);
        return;
    }
    if (TAILQ_EMPTY(&worker->all) && builds_count(worker->builds) == 0 && all_know(worker))
        stop_pool(worker);
}

/* Called whenever something has ended, often from inside of the pool. */
static void check_drained(struct worker *worker)
{
    if (worker->draining)
        check_soon(worker);
}

static void on_drain_deadline(void *data)
{
    struct worker *worker = data;
    log_warn("running invocations did not end in time", LOG_INT("count", (int64_t)worker->running));
    worker_kill(worker);
}

void worker_drain(struct worker *worker)
{
    if (worker->draining)
        return;
    worker->draining = true;
    log_info("draining", LOG_INT("running", (int64_t)worker->running));
    worker->deadline = loop_timer_start(worker->loop, (uint64_t)worker->settings->drain_timeout_ms,
                                        0, on_drain_deadline, worker, NULL);
    if (worker->pool)
        pool_make_ahead(worker->pool, false);
    for (size_t i = 0; i < worker->link_count; i++)
        link_announce(worker->links[i]);
    check_drained(worker);
}

static void fail_backlog(struct worker *worker)
{
    struct invocation *invocation;
    struct error err = {0};
    error_set(&err, ERROR_UNAVAILABLE, "the worker is stopping");
    while ((invocation = TAILQ_FIRST(&worker->backlog))) {
        TAILQ_REMOVE(&worker->backlog, invocation, waiting);
        outcome_lost(&invocation->execution, "Platform.Stopping", &err);
        answer(worker, invocation);
    }
}

void worker_kill(struct worker *worker)
{
    worker->draining = true;
    fail_backlog(worker);
    stop_pool(worker);
    builds_stop(worker->builds);
}

/* ---- starting ---- */

static int open_cache(struct worker *worker, struct error *err)
{
    const struct worker_settings *settings = worker->settings;
    autofree char *directory = string_printf("%s/worker/code", settings->data_dir);
    struct code_cache_options options = {
        .directory = directory,
        .max_bytes = (uint64_t)settings->code_cache_mb * 1024 * 1024,
        .archive_max_bytes = (size_t)settings->archive_max_bytes,
        .unpacked_max_bytes = (uint64_t)settings->unpacked_max_bytes,
        .archive_max_files = (size_t)settings->archive_max_files,
    };
    if (!directory)
        return error_set(err, ERROR_INTERNAL, "out of memory");
    worker->cache = code_cache_new(worker->loop, &options, err);
    return worker->cache ? 0 : -1;
}

static int open_functions(struct worker *worker, struct error *err)
{
    struct functions_options options = {
        .cache = worker->cache,
        .seen_libexec_dir = worker->kind == WORKER_RUNTIME_SIMPLE ? worker->settings->libexec_dir
                                                                  : INSTANCE_LIBEXEC_DIR,
        .max = FUNCTIONS_MAX,
    };
    worker->functions = functions_new(worker->loop, &options, err);
    return worker->functions ? 0 : -1;
}

static int open_runtime(struct worker *worker, struct error *err)
{
    if (worker->kind == WORKER_RUNTIME_SIMPLE) {
        log_warn("RUNTIME SIMPLE: FUNCTIONS RUN AS PLAIN PROCESSES OF THIS HOST, AS THIS USER, "
                 "WITHOUT ANY ISOLATION AND WITHOUT LIMITS. For development and rollback only");
        worker->runtime = runtime_simple_new(worker->loop, worker->settings, err);
    } else {
        worker->runtime = runtime_container_new(worker->loop, worker->settings, err);
        if (worker->runtime)
            worker->images = image_store_open(worker->settings->image_dir, NULL, err);
    }
    worker->without = worker->runtime ? worker->runtime->without : 0;
    return worker->runtime && (worker->images || worker->kind == WORKER_RUNTIME_SIMPLE) ? 0 : -1;
}

static void on_images_changed(void *data)
{
    struct worker *worker = data;
    if (!worker->pool)
        return;
    pool_images_changed(worker->pool);
    worker_refresh_images(worker);
}

static int open_histories(struct worker *worker, struct error *err)
{
    if (strcmp(worker->settings->keep_alive_policy, "history") != 0)
        return 0;
    worker->idle_table = idle_table_open(worker->settings->data_dir, HISTORIES_MAX, err);
    return worker->idle_table ? 0 : -1;
}

static void on_keep(void *data, struct function *function, size_t count)
{
    struct worker *worker = data;
    if (worker->pool && !worker->stopping)
        pool_keep(worker->pool, function, count);
}

static int open_kept(struct worker *worker, struct error *err)
{
    struct kept_options options = {.functions = worker->functions, .keep = on_keep, .data = worker};
    worker->kept = kept_new(&options, err);
    return worker->kept ? 0 : -1;
}

/* With instances. */
static bool shares_memory(const struct worker *worker)
{
    struct error why = {0};
    if (!worker->settings->shared_memory || worker->without & LIMIT_BIT(LIMIT_SECCOMP))
        return false;
    if (sealed_memory_check(&why) == 0)
        return true;
    log_warn("large bodies of instances go over their sockets", LOG_ERR(&why));
    return false;
}

static int open_pool(struct worker *worker, struct error *err)
{
    const struct worker_settings *settings = worker->settings;
    struct pool_options options = {
        .runtime = worker->runtime,
        .limits = {.payload_max = (size_t)settings->payload_max_bytes,
                   .result_max = (size_t)settings->result_max_bytes,
                   .log_max = (size_t)settings->log_max_bytes,
                   .start_timeout_ms = (uint64_t)settings->start_timeout_ms,
                   .share_memory = shares_memory(worker)},
        .keep_alive_ms = (uint64_t)settings->keep_alive_ms,
        .memory_mb = settings->memory_mb,
        .max_instances = (size_t)settings->max_instances,
        .start_parallel = (size_t)settings->start_parallel,
        .generic_size = (size_t)settings->pool_size,
        .log = on_log,
        .idle_table = worker->idle_table,
        .freeze_after_ms = settings->freeze_after_ms,
    };
    worker->pool = pool_new(worker->loop, &options, err);
    if (!worker->pool)
        return -1;
    worker->runtime->images_changed_data = worker;
    worker->runtime->images_changed = on_images_changed;
    return 0;
}

static void on_build_over(void *data)
{
    check_drained(data);
}

static int open_builds(struct worker *worker, struct error *err)
{
    struct builds_options options = {.settings = worker->settings,
                                     .runtime = worker->runtime,
                                     .functions = worker->functions,
                                     .over = on_build_over,
                                     .data = worker};
    worker->builds = builds_new(worker->loop, &options, err);
    return worker->builds ? 0 : -1;
}

static int add_link(struct worker *worker, const char *url, struct error *err)
{
    struct link_options options = {
        .url = url,
        .token = worker->settings->token,
        .ca_file = *worker->settings->ca_file ? worker->settings->ca_file : NULL,
        .shared_memory = worker->settings->shared_memory,
        .name = worker->settings->name,
        .session = worker->session,
        .describe = worker_describe,
        .assigned = assigned,
        .superseded = superseded,
        .announced = announced,
        .data = worker,
    };
    if (worker->link_count == LINKS_MAX)
        return error_set(err, ERROR_INVALID_REQUEST,
                         "WORKER_CONTROLLER_URL must name at most %d controllers", LINKS_MAX);
    struct link *link = link_new(worker->loop, worker->http, &options, err);
    if (!link)
        return -1;
    worker->links[worker->link_count++] = link;
    return 0;
}

static int open_links(struct worker *worker, struct error *err)
{
    worker->http = http_client_new(worker->loop, err);
    autofree char *urls = strdup(worker->settings->controller_url);
    if (!worker->http || !urls)
        return urls ? -1 : error_set(err, ERROR_INTERNAL, "out of memory");
    char *rest = urls;
    for (char *url = strtok_r(urls, ", ", &rest); url; url = strtok_r(NULL, ", ", &rest)) {
        if (add_link(worker, url, err) < 0)
            return -1;
    }
    return 0;
}

struct worker *worker_new(uv_loop_t *loop, const struct worker_settings *settings,
                          void (*stopped)(void *data), void *data, struct error *err)
{
    struct worker *worker = calloc(1, sizeof(*worker));
    if (!worker) {
        error_set(err, ERROR_INTERNAL, "out of memory");
        return NULL;
    }
    worker->loop = loop;
    worker->settings = settings;
    worker->stopped = stopped;
    worker->data = data;
    worker->locks = WORKER_LOCKS_NONE;
    TAILQ_INIT(&worker->all);
    TAILQ_INIT(&worker->backlog);
    random_id(worker->session);
    uname(&worker->system);
    worker->cpus = get_nprocs();
    if (worker_settings_runtime(settings, &worker->kind, err) < 0 ||
        worker_settings_labels(settings, &worker->labels, err) < 0 ||
        worker_locks_take(&worker->locks, settings, err) < 0 || open_links(worker, err) < 0 ||
        open_cache(worker, err) < 0 || open_functions(worker, err) < 0 ||
        open_runtime(worker, err) < 0 || open_kept(worker, err) < 0 ||
        open_histories(worker, err) < 0 || open_pool(worker, err) < 0 ||
        open_builds(worker, err) < 0) {
        worker_free(worker);
        return NULL;
    }
    worker->orphans = orphans_start(loop, err);
    if (!worker->orphans) {
        worker_free(worker);
        return NULL;
    }
    return worker;
}

void worker_start(struct worker *worker)
{
    log_info("ready", LOG_STR("worker", worker->settings->name),
             LOG_STR("runtime", worker->runtime->ops->name),
             LOG_INT("concurrency", worker->settings->concurrency),
             LOG_INT("memory_mb", worker->settings->memory_mb));
    for (size_t i = 0; i < worker->link_count; i++)
        link_start(worker->links[i]);
}

void worker_free(struct worker *worker)
{
    if (!worker)
        return;
    orphans_stop(worker->orphans);
    pool_free(steal_pointer(
        &worker->pool)); /* the runtime tells of changes of images until it is closed */
    idle_table_free(worker->idle_table);
    kept_free(worker->kept);
    functions_free(worker->functions);
    for (size_t i = 0; i < worker->link_count; i++)
        link_free(worker->links[i]);
    code_cache_free(worker->cache);
    http_client_free(worker->http);
    if (worker->runtime) {
        worker->runtime->ops->close(worker->runtime, NULL, NULL);
        uv_run(worker->loop, UV_RUN_DEFAULT);
    }
    labels_deinit(&worker->labels);
    image_list_deinit(&worker->image_list);
    image_store_close(worker->images);
    builds_free(worker->builds);
    worker_locks_release(&worker->locks, worker->settings);
    free(worker);
}
