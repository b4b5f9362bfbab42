/* A running generic container becomes a function's: code, limits, host name and /tmp at once, the bundle a moment later on a pool
 * thread. What differs afterwards from a container that was started for the function is only how the code mount came about. */
#include "worker/container.h"

#include "base/log.h"

#include <stdlib.h>
#include <string.h>

#define MIB (1024ll * 1024)

/* ---- is its image still what it was started from? ---- */

struct file_mark container_image_mark(const struct container_runtime *runtime)
{
    struct stat status;
    if (stat(runtime->image_index, &status) < 0)
        return (struct file_mark){0};
    return (struct file_mark){.inode = status.st_ino, .changed = status.st_mtim};
}

static bool marks_equal(const struct file_mark *a, const struct file_mark *b)
{
    return a->inode == b->inode && a->changed.tv_sec == b->changed.tv_sec &&
           a->changed.tv_nsec == b->changed.tv_nsec;
}

/* Reads the store only when its index has changed. */
bool container_outdated(struct runtime_instance *instance)
{
    struct container_runtime *runtime = instance->runtime;
    struct file_mark mark = container_image_mark(runtime);
    struct image image = {0};
    if (marks_equal(&mark, &instance->image_mark))
        return false;
    if (image_store_get(runtime->images, instance->image.name, &image, NULL) < 0)
        return true;
    bool same = strcmp(image.digest, instance->image.digest) == 0 &&
                strcmp(image.rootfs, instance->image.rootfs) == 0;
    image_deinit(&image);
    if (same)
        instance->image_mark = mark;
    return !same;
}

/* ---- the bundle ---- */

static void rewrite_work(void *data)
{
    struct runtime_instance *instance = data;
    instance->failed = container_write_bundle(instance, &instance->image, &instance->err) < 0;
    attach_point_release(&instance->point);
}

static void rewrite_done(void *data)
{
    struct runtime_instance *instance = data;
    instance->rewriting = false;
    if (instance->failed)
        log_error("bundle does not show what runs", LOG_STR("instance", instance->id),
                  LOG_ERR(&instance->err));
    if (instance->stopping)
        container_begin_removal(instance);
}

static int rewrite_bundle(struct runtime_instance *instance, struct error *err)
{
    if (loop_work(instance->runtime->loop, rewrite_work, rewrite_done, instance, err) < 0)
        return -1;
    instance->rewriting = true;
    return 0;
}

/* ---- the container ---- */

static int set_limits(struct runtime_instance *instance, const struct function_spec *spec,
                      struct error *err)
{
    const struct container_runtime *runtime = instance->runtime;
    bool swap = worker_cgroup_support(runtime->cgroup)->swap;
    struct cgroup_limits from =
        instance_cgroup_limits(instance->spec, swap, runtime->base.without, runtime->disk);
    struct cgroup_limits to =
        instance_cgroup_limits(spec, swap, runtime->base.without, runtime->disk);
    return instance_cgroup_limit(instance->cgroup, &from, &to, err);
}

static void on_late_policy(void *data, const struct error *err)
{
    struct runtime_instance *instance = data;
    log_error("network policy came late", LOG_STR("instance", instance->id), LOG_ERR(err));
}

/* At once: the pool gives no generic instance to a function whose policy has to be waited for. */
static int limit_network(struct runtime_instance *instance, const struct function_spec *spec,
                         struct error *err)
{
    int rc = network_apply(instance->runtime->network, instance->ns, spec, on_late_policy, instance,
                           err);
    if (rc == 0)
        return error_set(err, ERROR_INTERNAL, "the network policy has to be waited for");
    return rc < 0 ? -1 : 0;
}

static int enter(struct runtime_instance *instance, const struct runtime_load *load,
                 struct error *err)
{
    if (enforcement_check_function(load->spec, instance->runtime->refused, err) < 0 ||
        set_limits(instance, load->spec, err) < 0 || limit_network(instance, load->spec, err) < 0 ||
        attach_hostname(instance->pidfd, load->spec->name, err) < 0)
        return -1;
    if (load->spec->tmp_mb != instance->spec->tmp_mb &&
        attach_tmp_size(instance->pid, load->spec->tmp_mb * MIB, err) < 0)
        return -1;
    return attach_point_put(&instance->point, load->code_dir, err);
}

int container_specialise(struct runtime_instance *instance, const struct runtime_load *load,
                         const char ***ret_environment, struct error *err)
{
    if (container_outdated(instance))
        return error_set(err, ERROR_CONFLICT, "image %s was replaced or removed",
                         instance->image.name);
    const char **command = instance_strings_join(load->command, NULL);
    const char **environment =
        instance_environment(load->spec, (const char *const *)instance->image.env, err);
    if (!command || !environment || enter(instance, load, err) < 0) {
        free(command);
        free(environment);
        return command ? -1 : error_set(err, ERROR_INTERNAL, "out of memory");
    }
    free(instance->command);
    instance->command = command;
    instance->spec = load->spec;
    instance->code_dir = load->code_dir;
    if (rewrite_bundle(instance, err) < 0) {
        free(environment);
        return -1;
    }
    *ret_environment = environment;
    return 0;
}
