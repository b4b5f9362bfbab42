/* The start of one container.
 *
 * A user-namespace slot and a network namespace are taken, the bundle is written (thread pool), `run` of the OCI runtime starts the
 * container; then its first process is held by a pidfd, its cgroup and counters by open files. */
#include "base/cleanup.h"
#include "base/log.h"
#include "base/text.h"
#include "oci/bundle.h"
#include "worker/container.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <unistd.h>

void container_close_fds(struct runtime_instance *instance)
{
    for (int i = 0; i < INSTANCE_FD_COUNT; i++) {
        if (instance->fds[i] >= 0)
            close(instance->fds[i]);
        instance->fds[i] = -1;
    }
}

/* Without a user namespace they are the host's own. */
static uint32_t id_base(const struct runtime_instance *instance)
{
    if (instance->runtime->base.without & LIMIT_BIT(LIMIT_USERNS))
        return 0;
    return INSTANCE_ID_BASE + (uint32_t)instance->slot * INSTANCE_ID_COUNT;
}

static void start_failed(struct runtime_instance *instance, const struct error *err)
{
    container_close_fds(instance);
    instance->start_over = true;
    if (instance->stopping)
        container_begin_removal(instance);
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

static void finish_run(struct runtime_instance *instance, const struct oci_outcome *outcome,
                       const struct error *err)
{
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
    container_close_fds(instance);
    instance->start_over = true;
    log_info("container started", LOG_STR("instance", instance->id),
             LOG_STR("function", instance->spec->name ? instance->spec->name : ""),
             LOG_STR("image", instance->spec->image), LOG_INT("pid", instance->pid),
             LOG_INT("network_us", (int64_t)(instance->networked_ns - instance->started_ns) / 1000),
             LOG_INT("bundle_us", (int64_t)(instance->prepared_ns - instance->networked_ns) / 1000),
             LOG_INT("us", (int64_t)(clock_monotonic_ns() - instance->started_ns) / 1000));
    if (instance->stopping)
        container_begin_removal(instance);
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

int container_write_bundle(struct runtime_instance *instance, const struct image *image,
                           struct error *err)
{
    const struct container_runtime *runtime = instance->runtime;
    struct instance_spec spec;
    struct instance_spec_options options = {
        .rootfs = image->rootfs,
        .image_env = (const char *const *)image->env,
        .code_dir = instance->code_dir ? instance->code_dir : instance->point.path,
        .late_code = !instance->code_dir,
        .hostname = instance->spec->name ? NULL : instance->id,
        .libexec_dir = runtime->settings->libexec_dir,
        .resolv_conf = runtime->has_resolv_conf ? runtime->resolv_conf : NULL,
        .cgroups_path = instance->cgroups_path,
        .network_namespace = instance->ns->path,
        .command = instance->command,
        .apparmor_profile = runtime->apparmor_profile,
        .id_base = id_base(instance),
        .limit_swap = worker_cgroup_support(runtime->cgroup)->swap,
        .disk = runtime->disk,
        .without = runtime->base.without,
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
    struct container_runtime *runtime = instance->runtime;
    struct image image = {0};
    bool generic = !instance->code_dir;
    instance->image_mark = container_image_mark(runtime);
    if (image_store_get(runtime->images, instance->spec->image, &image, err) < 0)
        return -1;
    int rc = image_store_hold(runtime->images, &image, &instance->image_hold, err);
    if (rc == 0)
        rc = own_pipes(instance, err);
    if (rc == 0 && generic)
        rc = attach_point_init(&instance->point, runtime->attach, instance->id, err);
    if (rc == 0)
        rc = container_write_bundle(instance, &image, err);
    if (rc == 0 && generic)
        instance->image = image;
    else
        image_deinit(&image);
    return rc;
}

static void prepare_work(void *data)
{
    struct runtime_instance *instance = data;
    instance->failed = prepare(instance, &instance->err) < 0;
}

static void run_prepared(struct container_runtime *runtime);

static void on_run(void *data, const struct oci_outcome *outcome, const struct error *err)
{
    struct runtime_instance *instance = data;
    struct container_runtime *runtime = instance->runtime;
    runtime->running--;
    finish_run(instance, outcome, err);
    run_prepared(runtime);
}

static void run(struct runtime_instance *instance)
{
    struct container_runtime *runtime = instance->runtime;
    struct oci_call call = {.verb = OCI_RUN,
                            .id = instance->id,
                            .bundle = instance->bundle,
                            .fds = instance->fds,
                            .fd_count = INSTANCE_FD_COUNT,
                            .unhurried = !instance->code_dir,
                            .timeout_ms = (uint64_t)runtime->settings->start_timeout_ms};
    instance->created = instance->may_live = true;
    if (worker_cgroup_prepare(
            runtime->cgroup, instance->id,
            instance_cgroup_limits(instance->spec, false, runtime->base.without, runtime->disk)
                .memory_bytes,
            &instance->err) < 0 ||
        oci_runtime_start(&runtime->oci, runtime->loop, &call, on_run, instance, &instance->err) <
            0)
        start_failed(instance, &instance->err);
    else
        runtime->running++;
}

static void unqueue(struct runtime_instance *instance)
{
    TAILQ_REMOVE(&instance->runtime->prepared, instance, prepared);
    instance->queued = false;
}

/* What nobody waits for is prepared ahead, so that no time is lost between two runs, and starts when another run is over. */
static void run_prepared(struct container_runtime *runtime)
{
    struct runtime_instance *instance;
    while (runtime->running < (size_t)runtime->settings->start_parallel &&
           (instance = TAILQ_FIRST(&runtime->prepared))) {
        unqueue(instance);
        run(instance);
    }
}

static void deferred_failure(void *data)
{
    struct runtime_instance *instance = data;
    start_failed(instance, &instance->err);
}

void container_unqueue(struct runtime_instance *instance)
{
    unqueue(instance);
    loop_defer(instance->runtime->loop, deferred_failure, instance, NULL);
}

static void prepare_done(void *data)
{
    struct runtime_instance *instance = data;
    struct container_runtime *runtime = instance->runtime;
    instance->prepared_ns = clock_monotonic_ns();
    if (instance->stopping || instance->failed) {
        start_failed(instance, &instance->err);
        return;
    }
    if (instance->code_dir) {
        run(instance);
        return;
    }
    TAILQ_INSERT_TAIL(&runtime->prepared, instance, prepared);
    instance->queued = true;
    run_prepared(runtime);
}

/* The namespace is what the function may have of the network. */
static void on_policy(void *data, const struct error *err)
{
    struct runtime_instance *instance = data;
    instance->networked_ns = clock_monotonic_ns();
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

static void on_network(void *data, struct network_namespace *ns, const struct error *err)
{
    struct runtime_instance *instance = data;
    instance->ns = ns;
    if (err || instance->stopping) {
        on_policy(instance, err);
        return;
    }
    int rc = network_apply(instance->runtime->network, ns, instance->spec, on_policy, instance,
                           &instance->err);
    if (rc < 0)
        start_failed(instance, &instance->err);
    else if (rc > 0)
        on_policy(instance, NULL);
}

static int fill_instance(struct runtime_instance *instance, const struct runtime_start *start,
                         struct error *err)
{
    struct container_runtime *runtime = instance->runtime;
    if (enforcement_check_function(start->spec, runtime->refused, err) < 0)
        return -1;
    instance->id = strdup(start->id);
    instance->bundle = string_printf("%s/%s", runtime->bundles, start->id);
    instance->cgroups_path = worker_cgroup_path(runtime->cgroup, start->id);
    instance->command = instance_strings_join(start->command, NULL);
    if (!instance->id || !instance->bundle || !instance->cgroups_path || !instance->command)
        return error_set(err, ERROR_INTERNAL, "out of memory");
    instance->slot = id_ranges_take(&runtime->ids, err);
    if (instance->slot < 0)
        return -1;
    instance->spec = start->spec;
    instance->code_dir = start->code_dir;
    instance->started_ns = clock_monotonic_ns();
    return network_take(runtime->network, start->spec->network, on_network, instance, err);
}

struct runtime_instance *container_start(struct runtime *base, const struct runtime_start *start,
                                         runtime_started_fn *started, void *data, struct error *err)
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
    instance->point = ATTACH_POINT_NONE;
    instance->started = started;
    instance->started_data = data;
    memcpy(instance->fds, start->fds, sizeof(instance->fds));
    runtime->instances++;
    if (fill_instance(instance, start, err) < 0) {
        container_destroy(instance);
        return NULL;
    }
    return instance;
}
