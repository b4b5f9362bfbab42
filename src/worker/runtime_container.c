/* Instances as OCI containers: what they share, and what can be read of them. container_start.c and container_remove.c have the life
 * of one. */
#include "base/cleanup.h"
#include "base/file.h"
#include "base/log.h"
#include "base/text.h"
#include "oci/apparmor.h"
#include "worker/container.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

/* Network namespaces kept ready of each kind. */
#define POOL_BRIDGE 4
#define POOL_NONE 2

/* ---- readings ---- */

static int container_usage(struct runtime_instance *instance, struct runtime_usage *ret,
                           struct error *err)
{
    struct instance_stats stats;
    struct network_counters counters = {0};
    if (!instance->cgroup)
        return error_set(err, ERROR_NOT_READY, "the container does not run");
    if (instance_cgroup_read_call(instance->cgroup, &stats, err) < 0)
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

static int container_freeze(struct runtime_instance *instance, bool frozen, struct error *err)
{
    if (!instance->cgroup)
        return error_set(err, ERROR_UNAVAILABLE, "the instance is not started");
    return frozen ? instance_cgroup_freeze(instance->cgroup, err)
                  : instance_cgroup_thaw(instance->cgroup, err);
}

static int container_weigh(struct runtime_instance *instance, unsigned parts)
{
    return instance->cgroup ? instance_cgroup_weigh(instance->cgroup, parts, NULL) : -1;
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

static void unwatch_images(struct container_runtime *runtime);

static void runtime_destroy(struct container_runtime *runtime)
{
    unwatch_images(runtime);
    if (runtime->attach_open)
        attach_folder_close(runtime->attach);
    network_free(runtime->network);
    worker_cgroup_free(runtime->cgroup);
    image_store_close(runtime->images);
    oci_runtime_deinit(&runtime->oci);
    id_ranges_close(&runtime->ids);
    free(runtime->bundles);
    free(runtime->netns);
    free(runtime->state);
    free(runtime->attach);
    free(runtime->image_index);
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

void container_removed(struct container_runtime *runtime)
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
    container_removed(runtime);
}

static int make_paths(struct container_runtime *runtime, struct error *err)
{
    const struct worker_settings *settings = runtime->settings;
    runtime->bundles = string_printf("%s/worker/bundles", settings->data_dir);
    runtime->netns = string_printf("%s/netns", settings->run_dir);
    runtime->state = string_printf("%s/runc", settings->run_dir);
    runtime->attach = string_printf("%s/attach", settings->run_dir);
    runtime->resolv_conf = string_printf("%s/resolv.conf", settings->run_dir);
    runtime->image_index = string_printf("%s/index.json", settings->image_dir);
    if (!runtime->bundles || !runtime->netns || !runtime->state || !runtime->attach ||
        !runtime->resolv_conf || !runtime->image_index)
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
    struct name_servers servers = {0};
    struct error why = {0};
    runtime->has_resolv_conf =
        network_write_resolv_conf(runtime->resolv_conf, settings->dns, &servers, &why) == 0;
    if (!runtime->has_resolv_conf)
        log_warn("functions have no name resolution", LOG_ERR(&why));
    struct network_options options = {
        .worker = settings->name,
        .directory = runtime->netns,
        .denied = settings->network_deny,
        .name_servers = &servers,
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
    return 0;
}

/* After the predecessor's containers are gone, so that its ranges are free. */
static int open_ids(struct container_runtime *runtime, struct error *err)
{
    if (make_directories(ID_RANGES_FOLDER, 0711, err) < 0)
        return -1;
    return id_ranges_open(&runtime->ids, ID_RANGES_FILE, runtime->settings->run_dir, err);
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

/* ---- changes of the image store ---- */

static void on_images_changed(uv_fs_event_t *watch, const char *name, int events, int status)
{
    const struct container_runtime *runtime = watch->data;
    (void)events;
    if (status < 0 || !name || strcmp(name, "index.json") != 0 || !runtime->base.images_changed)
        return;
    runtime->base.images_changed(runtime->base.images_changed_data);
}

static void on_watch_closed(uv_handle_t *handle)
{
    free(handle);
}

static void unwatch_images(struct container_runtime *runtime)
{
    if (runtime->images_watch)
        uv_close((uv_handle_t *)runtime->images_watch, on_watch_closed);
    runtime->images_watch = NULL;
}

static int watch_images(struct container_runtime *runtime, struct error *err)
{
    uv_fs_event_t *watch = calloc(1, sizeof(*watch));
    int rc = watch ? uv_fs_event_init(runtime->loop, watch) : UV_ENOMEM;
    if (rc < 0) {
        free(watch);
        return error_set_errno(err, ERROR_INTERNAL, -rc, "cannot watch the image store");
    }
    watch->data = runtime;
    runtime->images_watch = watch;
    rc = uv_fs_event_start(watch, on_images_changed, runtime->settings->image_dir, 0);
    if (rc == 0)
        return 0;
    unwatch_images(runtime);
    return error_set_errno(err, ERROR_UNAVAILABLE, -rc, "cannot watch %s",
                           runtime->settings->image_dir);
}

/* What cannot be limited here is refused, or said loudly where the operator allows it. */
static int check_limits(struct container_runtime *runtime, struct error *err)
{
    struct host_means means;
    limit_set allowed = 0;
    if (limit_set_parse(runtime->settings->allow_unenforced, &allowed, err) < 0 ||
        host_means_read(runtime->settings->data_dir, &means, err) < 0 ||
        enforcement_check(&means, allowed, err) < 0)
        return -1;
    runtime->base.without = host_means_missing(&means) & allowed;
    runtime->refused = host_means_missing(&means) & ~allowed;
    runtime->disk = means.disk;
    for (int kind = 0; kind < LIMIT_KIND_COUNT; kind++)
        if (runtime->base.without & LIMIT_BIT(kind))
            log_warn("FUNCTIONS RUN WITHOUT A LIMIT THAT THIS HOST CANNOT ENFORCE, as "
                     "WORKER_ALLOW_UNENFORCED lets them",
                     LOG_STR("limit", limit_name(kind)));
    return 0;
}

static int open_parts(struct container_runtime *runtime, struct error *err)
{
    const struct worker_settings *settings = runtime->settings;
    /* Containers' first processes become our children when the OCI runtime ends. */
    if (prctl(PR_SET_CHILD_SUBREAPER, 1) < 0)
        return error_set_errno(err, ERROR_INTERNAL, errno, "cannot become a subreaper");
    if (check_limits(runtime, err) < 0)
        return error_wrap(err, "runtime \"container\"");
    if (make_paths(runtime, err) < 0 || open_oci_runtime(runtime, err) < 0 ||
        open_ids(runtime, err) < 0)
        return -1;
    runtime->cgroup = worker_cgroup_new(settings->name, err);
    if (!runtime->cgroup)
        return -1;
    if (open_apparmor(runtime, err) < 0)
        return -1;
    runtime->images = image_store_open(settings->image_dir, NULL, err);
    if (!runtime->images)
        return error_wrap(err, "image store (WORKER_IMAGE_DIR)");
    if (make_directories(runtime->bundles, 0711, err) < 0 ||
        attach_folder_open(runtime->attach, err) < 0)
        return -1;
    runtime->attach_open = true;
    if (watch_images(runtime, err) < 0)
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
        .specialise = container_specialise,
        .outdated = container_outdated,
        .stop = container_stop,
        .usage = container_usage,
        .reset_usage = container_reset_usage,
        .freeze = container_freeze,
        .weigh = container_weigh,
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
    runtime->ids = ID_RANGES_NONE;
    TAILQ_INIT(&runtime->prepared);
    runtime->loop = loop;
    runtime->settings = settings;
    if (open_parts(runtime, err) < 0) {
        /* Made for the OCI runtime; with containers of a predecessor in it, it stays. */
        if (runtime->state)
            rmdir(runtime->state);
        runtime_destroy(runtime);
        return NULL;
    }
    return &runtime->base;
}
