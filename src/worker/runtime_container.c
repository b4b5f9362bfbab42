/* Instances as OCI containers.
 *
 * start: a user-namespace slot and a network namespace are taken, the bundle is written (thread pool), `run` of the OCI
 * runtime starts the container; then its first process is held by a pidfd, its cgroup and counters by open files. stop: kill
 * by pidfd and cgroup, reap, `delete --force`, give back network and slot, remove the bundle. What cannot be removed is
 * tried again in the background, and the pool does not wait for it. */
#include "base/cleanup.h"
#include "base/file.h"
#include "base/log.h"
#include "base/loop.h"
#include "base/text.h"
#include "oci/apparmor.h"
#include "oci/bundle.h"
#include "oci/image_store.h"
#include "oci/runc.h"
#include "worker/cgroup.h"
#include "worker/config.h"
#include "worker/instance_spec.h"
#include "worker/network.h"
#include "worker/runtime.h"

#include <assert.h>
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

/* Network namespaces kept ready of each kind. */
#define POOL_BRIDGE 4
#define POOL_NONE 2
/* A process that was killed should be gone by then; if not, deleting goes on without it. */
#define DEATH_MS 3000
#define REMOVE_TRIES 8
#define REMOVE_FIRST_MS 250
#define REMOVE_LAST_MS 5000
#define DELETE_TIMEOUT_MS 10000

struct container_runtime {
    struct runtime base;
    uv_loop_t *loop;
    const struct worker_settings *settings;
    struct oci_runtime oci;
    struct worker_cgroup *cgroup;
    struct network *network;
    struct image_store *images;
    char *bundles, *netns, *state, *resolv_conf; /* owned paths */
    bool has_resolv_conf;
    char *apparmor_profile;               /* owned; NULL: none */
    uint8_t slots[INSTANCE_ID_SLOTS / 8]; /* bits of those in use */
    size_t instances;                     /* not yet removed, those given up on included */
    size_t leftovers;
    bool closing;
    void (*closed)(void *data);
    void *closed_data;
};

struct runtime_instance {
    struct container_runtime *runtime;
    char *id, *bundle, *cgroups_path; /* owned */
    const struct function_spec *spec; /* borrowed until `started` */
    const char *code_dir;             /* likewise */
    const char **command;             /* owned */
    int fds[INSTANCE_FD_COUNT];
    int slot;
    struct network_namespace *ns;
    int image_hold;
    pid_t pid;
    int pidfd;
    uv_poll_t *death; /* of the pidfd */
    struct loop_timer *timer;
    struct instance_cgroup *cgroup;
    int counters;
    bool start_over; /* the start has succeeded or failed */
    bool created;    /* the OCI runtime may know it */
    bool stopping;
    int tries;
    bool given_up;    /* `stopped` was called; removal goes on in the background */
    struct error err; /* of the start, or of removing files */
    bool failed;
    uint64_t started_ns;
    runtime_started_fn *started;
    void *started_data;
    runtime_stopped_fn *stopped;
    void *stopped_data;
};

static void begin_removal(struct runtime_instance *instance);
static void finish_close(struct container_runtime *runtime);

/* ---- small parts ---- */

static int slot_take(struct container_runtime *runtime)
{
    for (int slot = 0; slot < (int)INSTANCE_ID_SLOTS; slot++) {
        if (!(runtime->slots[slot / 8] & 1u << slot % 8)) {
            runtime->slots[slot / 8] |= (uint8_t)(1u << slot % 8);
            return slot;
        }
    }
    return -1;
}

static void slot_release(struct container_runtime *runtime, int slot)
{
    if (slot >= 0)
        runtime->slots[slot / 8] &= (uint8_t) ~(1u << slot % 8);
}

static void close_fds(struct runtime_instance *instance)
{
    for (int i = 0; i < INSTANCE_FD_COUNT; i++) {
        if (instance->fds[i] >= 0)
            close(instance->fds[i]);
        instance->fds[i] = -1;
    }
}

static uint32_t id_base(const struct runtime_instance *instance)
{
    return INSTANCE_ID_BASE + (uint32_t)instance->slot * INSTANCE_ID_COUNT;
}

static void instance_destroy(struct runtime_instance *instance)
{
    close_fds(instance);
    slot_release(instance->runtime, instance->slot);
    network_release(instance->runtime->network, instance->ns);
    if (instance->image_hold >= 0)
        close(instance->image_hold);
    if (instance->counters >= 0)
        close(instance->counters);
    if (instance->pidfd >= 0)
        close(instance->pidfd);
    instance_cgroup_close(instance->cgroup);
    loop_timer_stop(instance->timer);
    instance->runtime->instances--;
    free(instance->id);
    free(instance->bundle);
    free(instance->cgroups_path);
    free(instance->command);
    free(instance);
}

/* ---- start ---- */

static void start_failed(struct runtime_instance *instance, const struct error *err)
{
    close_fds(instance);
    instance->start_over = true;
    if (instance->stopping)
        begin_removal(instance);
    else
        instance->started(instance->started_data, err);
}

static int open_handles(struct runtime_instance *instance, struct error *err)
{
    instance->pidfd = pidfd_open(instance->pid, 0);
    if (instance->pidfd < 0)
        return error_set_errno(err, ERROR_UNAVAILABLE, errno,
                               "the container's first process (%d) cannot be held", instance->pid);
    instance->cgroup = instance_cgroup_open(instance->runtime->cgroup, instance->pid, err);
    if (!instance->cgroup)
        return -1;
    if (instance->spec->network == NETWORK_BRIDGE) {
        instance->counters = network_counters_open(instance->pid, err);
        if (instance->counters < 0)
            return -1;
    }
    return 0;
}

static void on_run(void *data, const struct oci_outcome *outcome, const struct error *err)
{
    struct runtime_instance *instance = data;
    struct error why = {0};
    if (outcome) {
        instance->pid = outcome->pid;
        err = open_handles(instance, &why) < 0 ? &why : NULL;
    }
    if (err) {
        why = *err;
        error_wrap(&why, "container could not be started");
        start_failed(instance, &why);
        return;
    }
    close_fds(instance);
    instance->start_over = true;
    log_info("container started", LOG_STR("instance", instance->id),
             LOG_STR("function", instance->spec->name), LOG_STR("image", instance->spec->image),
             LOG_INT("pid", instance->pid),
             LOG_INT("us", (int64_t)(clock_monotonic_ns() - instance->started_ns) / 1000));
    if (instance->stopping)
        begin_removal(instance);
    else
        instance->started(instance->started_data, NULL);
}

/* The function reopens its stdout and stderr by name (/dev/stderr): its user must own the pipes. */
static int own_pipes(struct runtime_instance *instance, struct error *err)
{
    uid_t uid = id_base(instance) + INSTANCE_UID;
    for (int i = 2; i < INSTANCE_FD_COUNT; i++) {
        if (fchown(instance->fds[i], uid, uid) < 0)
            return error_set_errno(err, ERROR_INTERNAL, errno, "cannot hand over a pipe");
    }
    return 0;
}

static int write_bundle(struct runtime_instance *instance, const struct image *image,
                        struct error *err)
{
    const struct container_runtime *runtime = instance->runtime;
    struct instance_spec spec;
    struct instance_spec_options options = {
        .rootfs = image->rootfs,
        .image_env = (const char *const *)image->env,
        .code_dir = instance->code_dir,
        .libexec_dir = runtime->settings->libexec_dir,
        .resolv_conf = runtime->has_resolv_conf ? runtime->resolv_conf : NULL,
        .cgroups_path = instance->cgroups_path,
        .network_namespace = instance->ns->path,
        .command = instance->command,
        .apparmor_profile = runtime->apparmor_profile,
        .id_base = id_base(instance),
        .limit_swap = worker_cgroup_support(runtime->cgroup)->swap,
        .open_files = (uint64_t)runtime->settings->open_files,
        .payload_max_bytes = (uint64_t)runtime->settings->payload_max_bytes,
    };
    if (instance_spec_init(&spec, instance->spec, &options, err) < 0)
        return -1;
    int rc = oci_bundle_write(instance->bundle, &spec.oci, err);
    instance_spec_deinit(&spec);
    return rc;
}

/* On a pool thread: image and bundle. */
static int prepare(struct runtime_instance *instance, struct error *err)
{
    struct image image = {0};
    struct image_store *images = instance->runtime->images;
    if (image_store_get(images, instance->spec->image, &image, err) < 0)
        return -1;
    int rc = image_store_hold(images, &image, &instance->image_hold, err);
    if (rc == 0)
        rc = own_pipes(instance, err);
    if (rc == 0)
        rc = write_bundle(instance, &image, err);
    image_deinit(&image);
    return rc;
}

static void prepare_work(void *data)
{
    struct runtime_instance *instance = data;
    instance->failed = prepare(instance, &instance->err) < 0;
}

static void prepare_done(void *data)
{
    struct runtime_instance *instance = data;
    struct container_runtime *runtime = instance->runtime;
    struct oci_call call = {.verb = OCI_RUN,
                            .id = instance->id,
                            .bundle = instance->bundle,
                            .fds = instance->fds,
                            .fd_count = INSTANCE_FD_COUNT,
                            .timeout_ms = (uint64_t)runtime->settings->start_timeout_ms};
    if (instance->stopping || instance->failed) {
        start_failed(instance, &instance->err);
        return;
    }
    instance->created = true;
    if (oci_runtime_start(&runtime->oci, runtime->loop, &call, on_run, instance, &instance->err) <
        0)
        start_failed(instance, &instance->err);
}

static void on_network(void *data, struct network_namespace *ns, const struct error *err)
{
    struct runtime_instance *instance = data;
    instance->ns = ns;
    if (err || instance->stopping) {
        if (err)
            instance->err = *err;
        start_failed(instance, &instance->err);
        return;
    }
    if (loop_work(instance->runtime->loop, prepare_work, prepare_done, instance, &instance->err) <
        0)
        start_failed(instance, &instance->err);
}

static int fill_instance(struct runtime_instance *instance, const struct runtime_start *start,
                         struct error *err)
{
    struct container_runtime *runtime = instance->runtime;
    instance->id = strdup(start->id);
    instance->bundle = string_printf("%s/%s", runtime->bundles, start->id);
    instance->cgroups_path = worker_cgroup_path(runtime->cgroup, start->id);
    instance->command = instance_strings_join(start->command, NULL);
    if (!instance->id || !instance->bundle || !instance->cgroups_path || !instance->command)
        return error_set(err, ERROR_INTERNAL, "out of memory");
    instance->slot = slot_take(runtime);
    if (instance->slot < 0)
        return error_set(err, ERROR_NO_CAPACITY, "all %u user namespace slots are in use",
                         INSTANCE_ID_SLOTS);
    instance->spec = start->spec;
    instance->code_dir = start->code_dir;
    instance->started_ns = clock_monotonic_ns();
    return network_take(runtime->network, start->spec->network, on_network, instance, err);
}

static struct runtime_instance *container_start(struct runtime *base,
                                                const struct runtime_start *start,
                                                runtime_started_fn *started, void *data,
                                                struct error *err)
{
    struct container_runtime *runtime = (struct container_runtime *)base;
    struct runtime_instance *instance = calloc(1, sizeof(*instance));
    if (!instance) {
        for (int i = 0; i < INSTANCE_FD_COUNT; i++)
            close(start->fds[i]);
        error_set(err, ERROR_INTERNAL, "out of memory");
        return NULL;
    }
    instance->runtime = runtime;
    instance->slot = instance->image_hold = instance->counters = instance->pidfd = -1;
    instance->started = started;
    instance->started_data = data;
    memcpy(instance->fds, start->fds, sizeof(instance->fds));
    runtime->instances++;
    if (fill_instance(instance, start, err) < 0) {
        instance_destroy(instance);
        return NULL;
    }
    return instance;
}

/* ---- stop ---- */

/* All is removed. */
static void removed(struct runtime_instance *instance)
{
    struct container_runtime *runtime = instance->runtime;
    runtime_stopped_fn *stopped = instance->given_up ? NULL : instance->stopped;
    void *data = instance->stopped_data;
    if (instance->given_up)
        runtime->leftovers--;
    instance_destroy(instance);
    if (stopped)
        stopped(data);
    finish_close(runtime);
}

/* The pool goes on; the removal is tried again later. */
static void give_up(struct runtime_instance *instance, const struct error *err)
{
    log_warn("container could not be removed, trying again", LOG_STR("instance", instance->id),
             LOG_INT("tries", instance->tries), LOG_ERR(err));
    if (instance->given_up)
        return;
    instance->given_up = true;
    instance->runtime->leftovers++;
    instance->stopped(instance->stopped_data);
}

static void start_delete(void *data);

static void remove_failed(struct runtime_instance *instance, const struct error *err)
{
    struct container_runtime *runtime = instance->runtime;
    instance->tries++;
    if (instance->tries >= REMOVE_TRIES || runtime->closing) {
        log_error("container could not be removed; the worker's next start tries again",
                  LOG_STR("instance", instance->id), LOG_ERR(err));
        removed(instance);
        return;
    }
    give_up(instance, err);
    uint64_t pause_ms = REMOVE_FIRST_MS << instance->tries;
    instance->timer =
        loop_timer_start(runtime->loop, pause_ms < REMOVE_LAST_MS ? pause_ms : REMOVE_LAST_MS, 0,
                         start_delete, instance, NULL);
}

static void remove_files_work(void *data)
{
    struct runtime_instance *instance = data;
    instance->failed = remove_tree(instance->bundle, &instance->err) < 0;
}

static void remove_files_done(void *data)
{
    struct runtime_instance *instance = data;
    if (instance->failed)
        remove_failed(instance, &instance->err);
    else
        removed(instance);
}

static void remove_files(struct runtime_instance *instance)
{
    struct container_runtime *runtime = instance->runtime;
    if (loop_work(runtime->loop, remove_files_work, remove_files_done, instance, &instance->err) <
        0)
        remove_failed(instance, &instance->err);
}

/* A runtime that was killed half-way leaves processes and cgroups that `delete` does not know. */
static int remove_cgroup(struct runtime_instance *instance, struct error *err)
{
    instance_cgroup_close(instance->cgroup);
    instance->cgroup = NULL;
    return worker_cgroup_remove(instance->runtime->cgroup, instance->id, err);
}

static void on_deleted(void *data, const struct oci_outcome *outcome, const struct error *err)
{
    struct runtime_instance *instance = data;
    struct error why = {0};
    (void)outcome;
    if (!err && remove_cgroup(instance, &why) < 0)
        err = &why;
    if (err) {
        why = *err;
        remove_cgroup(instance, NULL);
        remove_failed(instance, &why);
        return;
    }
    log_info("container removed", LOG_STR("instance", instance->id),
             LOG_INT("lived_ms", (int64_t)(clock_monotonic_ns() - instance->started_ns) / 1000000));
    remove_files(instance);
}

static void start_delete(void *data)
{
    struct runtime_instance *instance = data;
    struct container_runtime *runtime = instance->runtime;
    struct oci_call call = {
        .verb = OCI_DELETE, .id = instance->id, .force = true, .timeout_ms = DELETE_TIMEOUT_MS};
    loop_timer_stop(instance->timer);
    instance->timer = NULL;
    if (!instance->created) {
        remove_files(instance);
        return;
    }
    if (oci_runtime_start(&runtime->oci, runtime->loop, &call, on_deleted, instance,
                          &instance->err) < 0)
        remove_failed(instance, &instance->err);
}

static void on_watch_closed(uv_handle_t *handle)
{
    free(handle);
}

static void stop_watching(struct runtime_instance *instance)
{
    if (instance->death)
        uv_close((uv_handle_t *)instance->death, on_watch_closed);
    instance->death = NULL;
    loop_timer_stop(instance->timer);
    instance->timer = NULL;
}

/* The container's first process has been killed, or is past waiting for. */
static void on_death_timeout(void *data)
{
    struct runtime_instance *instance = data;
    stop_watching(instance);
    log_warn("killed container does not end", LOG_STR("instance", instance->id),
             LOG_INT("pid", instance->pid));
    start_delete(instance);
}

static void on_death(uv_poll_t *poll, int status, int events)
{
    struct runtime_instance *instance = poll->data;
    siginfo_t info;
    (void)status;
    (void)events;
    stop_watching(instance);
    /* It is our child, because this process is the subreaper of what the OCI runtime leaves. */
    waitid(P_PIDFD, (id_t)instance->pidfd, &info, WEXITED | WNOHANG);
    start_delete(instance);
}

static void begin_removal(struct runtime_instance *instance)
{
    close_fds(instance);
    if (instance->pidfd < 0) {
        start_delete(instance);
        return;
    }
    pidfd_send_signal(instance->pidfd, SIGKILL, NULL, 0);
    if (instance->cgroup)
        instance_cgroup_kill(instance->cgroup, NULL);
    instance->death = calloc(1, sizeof(*instance->death));
    if (!instance->death ||
        uv_poll_init(instance->runtime->loop, instance->death, instance->pidfd) < 0) {
        free(steal_pointer(&instance->death));
        start_delete(instance);
        return;
    }
    instance->death->data = instance;
    uv_poll_start(instance->death, UV_READABLE, on_death);
    instance->timer =
        loop_timer_start(instance->runtime->loop, DEATH_MS, 0, on_death_timeout, instance, NULL);
}

static void deferred_removal(void *data)
{
    begin_removal(data);
}

static void container_stop(struct runtime_instance *instance, runtime_stopped_fn *stopped,
                           void *data)
{
    assert(!instance->stopping);
    instance->stopping = true;
    instance->stopped = stopped;
    instance->stopped_data = data;
    if (!instance->start_over)
        return; /* what is under way looks at `stopping` when it is done */
    if (instance->pidfd >= 0)
        begin_removal(instance);
    else
        loop_defer(instance->runtime->loop, deferred_removal, instance, NULL);
}

/* ---- readings ---- */

static int container_usage(struct runtime_instance *instance, struct runtime_usage *ret,
                           struct error *err)
{
    struct instance_stats stats;
    struct network_counters counters = {0};
    if (!instance->cgroup)
        return error_set(err, ERROR_NOT_READY, "the container does not run");
    if (instance_cgroup_read(instance->cgroup, &stats, err) < 0)
        return -1;
    if (instance->counters >= 0)
        network_counters_read(instance->counters, &counters, NULL);
    *ret = (struct runtime_usage){.cpu_ns = stats.cpu_time_ns,
                                  .memory_peak_bytes = stats.memory_peak_bytes,
                                  .network_in_bytes = counters.in_bytes,
                                  .network_out_bytes = counters.out_bytes,
                                  .oom_kills = stats.oom_kills};
    return 0;
}

static void container_reset_usage(struct runtime_instance *instance)
{
    /* A kernel that cannot reset gives the peak of the instance's life. */
    if (instance->cgroup)
        instance_cgroup_reset_peak(instance->cgroup, NULL);
}

static pid_t container_pid(const struct runtime_instance *instance)
{
    return instance->pid;
}

static size_t container_leftovers(const struct runtime *base)
{
    return ((const struct container_runtime *)base)->leftovers;
}

/* ---- the runtime ---- */

static void runtime_destroy(struct container_runtime *runtime)
{
    network_free(runtime->network);
    worker_cgroup_free(runtime->cgroup);
    image_store_close(runtime->images);
    oci_runtime_deinit(&runtime->oci);
    free(runtime->bundles);
    free(runtime->netns);
    free(runtime->state);
    free(runtime->resolv_conf);
    if (runtime->apparmor_profile)
        oci_apparmor_unload(runtime->apparmor_profile, NULL);
    free(runtime->apparmor_profile);
    free(runtime);
}

static void on_network_stopped(void *data)
{
    struct container_runtime *runtime = data;
    void (*closed)(void *) = runtime->closed;
    void *closed_data = runtime->closed_data;
    struct error err = {0};
    if (oci_runtime_delete_all(&runtime->oci, NULL, &err) < 0 ||
        remove_tree(runtime->bundles, &err) < 0 || remove_tree(runtime->netns, &err) < 0 ||
        remove_tree(runtime->state, &err) < 0)
        log_warn("not everything could be removed", LOG_ERR(&err));
    unlink(runtime->resolv_conf);
    runtime_destroy(runtime);
    if (closed)
        closed(closed_data);
}

static void finish_close(struct container_runtime *runtime)
{
    if (runtime->closing && runtime->instances == 0)
        network_stop(runtime->network, on_network_stopped, runtime);
}

static void container_close(struct runtime *base, void (*closed)(void *data), void *data)
{
    struct container_runtime *runtime = (struct container_runtime *)base;
    runtime->closing = true;
    runtime->closed = closed;
    runtime->closed_data = data;
    finish_close(runtime);
}

static int make_paths(struct container_runtime *runtime, struct error *err)
{
    const struct worker_settings *settings = runtime->settings;
    runtime->bundles = string_printf("%s/worker/bundles", settings->data_dir);
    runtime->netns = string_printf("%s/netns", settings->run_dir);
    runtime->state = string_printf("%s/runc", settings->run_dir);
    runtime->resolv_conf = string_printf("%s/resolv.conf", settings->run_dir);
    if (!runtime->bundles || !runtime->netns || !runtime->state || !runtime->resolv_conf)
        return error_set(err, ERROR_INTERNAL, "out of memory");
    autofree char *init = string_printf("%s/init", settings->libexec_dir);
    if (!init || access(init, X_OK) < 0)
        return error_set(err, ERROR_NOT_FOUND,
                         "%s is not there or not executable; WORKER_LIBEXEC_DIR must be the folder "
                         "that holds faas-init as `init`",
                         init ? init : "init");
    return 0;
}

/* The OCI runtime answers, and what a predecessor left is gone. */
static int open_oci_runtime(struct container_runtime *runtime, struct error *err)
{
    struct oci_call call = {.verb = OCI_VERSION, .timeout_ms = 10000};
    struct oci_outcome outcome = {0};
    size_t count = 0;
    if (oci_runtime_init(&runtime->oci, runtime->settings->oci_runtime, runtime->state, err) < 0 ||
        oci_runtime_call(&runtime->oci, &call, &outcome, err) < 0)
        return error_wrap(err, "OCI runtime \"%s\" (WORKER_OCI_RUNTIME) cannot be used",
                          runtime->settings->oci_runtime);
    log_info("OCI runtime", LOG_STR("path", runtime->oci.path), LOG_STR("version", outcome.text));
    oci_outcome_deinit(&outcome);
    if (oci_runtime_delete_all(&runtime->oci, &count, err) < 0)
        return error_wrap(err, "containers of a predecessor");
    if (count > 0)
        log_info("removed containers of a predecessor", LOG_INT("count", (int64_t)count));
    return remove_tree(runtime->bundles, err);
}

static int open_network(struct container_runtime *runtime, struct error *err)
{
    const struct worker_settings *settings = runtime->settings;
    struct network_options options = {
        .worker = settings->name,
        .directory = runtime->netns,
        .subnet = *settings->network_subnet ? settings->network_subnet : NULL,
        .pool_bridge = POOL_BRIDGE,
        .pool_none = POOL_NONE,
    };
    runtime->network = network_new(runtime->loop, &options, err);
    if (!runtime->network)
        return -1;
    const struct error *problem = network_bridge_problem(runtime->network);
    if (problem)
        log_warn("functions with network \"bridge\" cannot run here", LOG_ERR(problem));
    struct error why = {0};
    runtime->has_resolv_conf = network_write_resolv_conf(runtime->resolv_conf, NULL, &why) == 0;
    if (!runtime->has_resolv_conf)
        log_warn("functions have no name resolution", LOG_ERR(&why));
    return 0;
}

/* A profile of this worker's own, so that it can go when the worker does. */
static int open_apparmor(struct container_runtime *runtime, struct error *err)
{
    const char *wanted = runtime->settings->apparmor;
    struct error why = {0};
    if (strcmp(wanted, "off") == 0)
        return 0;
    autofree char *name = string_printf("faas-%s", runtime->settings->name);
    if (!name)
        return error_set(err, ERROR_INTERNAL, "out of memory");
    if (!oci_apparmor_enabled())
        error_set(&why, ERROR_UNAVAILABLE, "this kernel does not enforce AppArmor profiles");
    else if (oci_apparmor_load(name, &why) == 0)
        runtime->apparmor_profile = steal_pointer(&name);
    if (!runtime->apparmor_profile && strcmp(wanted, "require") == 0) {
        *err = why;
        return error_wrap(err, "WORKER_APPARMOR is \"require\"");
    }
    if (!runtime->apparmor_profile && oci_apparmor_enabled())
        log_warn("containers run without an AppArmor profile", LOG_ERR(&why));
    return 0;
}

static int open_parts(struct container_runtime *runtime, struct error *err)
{
    const struct worker_settings *settings = runtime->settings;
    struct cgroup_support support;
    /* Containers' first processes become our children when the OCI runtime ends. */
    if (prctl(PR_SET_CHILD_SUBREAPER, 1) < 0)
        return error_set_errno(err, ERROR_INTERNAL, errno, "cannot become a subreaper");
    if (make_paths(runtime, err) < 0 || open_oci_runtime(runtime, err) < 0)
        return -1;
    if (cgroup_check(&support, err) < 0)
        return error_wrap(err, "runtime \"container\"");
    runtime->cgroup = worker_cgroup_new(settings->name, err);
    if (!runtime->cgroup)
        return -1;
    if (open_apparmor(runtime, err) < 0)
        return -1;
    runtime->images = image_store_open(settings->image_dir, NULL, err);
    if (!runtime->images)
        return error_wrap(err, "image store (WORKER_IMAGE_DIR)");
    if (make_directories(runtime->bundles, 0711, err) < 0)
        return -1;
    /* Last, because it starts work on the loop, which only network_stop() ends. */
    return open_network(runtime, err);
}

struct runtime *runtime_container_new(uv_loop_t *loop, const struct worker_settings *settings,
                                      struct error *err)
{
    static const struct runtime_ops ops = {
        .name = "container",
        .start = container_start,
        .stop = container_stop,
        .usage = container_usage,
        .reset_usage = container_reset_usage,
        .pid = container_pid,
        .leftovers = container_leftovers,
        .close = container_close,
    };
    struct container_runtime *runtime = calloc(1, sizeof(*runtime));
    if (!runtime) {
        error_set(err, ERROR_INTERNAL, "out of memory");
        return NULL;
    }
    runtime->base.ops = &ops;
    runtime->loop = loop;
    runtime->settings = settings;
    if (open_parts(runtime, err) < 0) {
        runtime_destroy(runtime);
        return NULL;
    }
    return &runtime->base;
}
