/* The end of one container.
 *
 * Kill by pidfd and cgroup, reap, `delete --force`, give back network and slot, remove the bundle. What cannot be removed is tried again
 * in the background, and the pool does not wait for it. */
#include "base/cleanup.h"
#include "base/file.h"
#include "base/log.h"
#include "worker/container.h"

#include <assert.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/pidfd.h>
#include <sys/wait.h>
#include <unistd.h>

/* A process that was killed should be gone by then; if not, deleting goes on without it. */
#define DEATH_MS 3000
#define REMOVE_TRIES 8
#define REMOVE_FIRST_MS 250
#define REMOVE_LAST_MS 5000
#define DELETE_TIMEOUT_MS 10000

void container_destroy(struct runtime_instance *instance)
{
    container_close_fds(instance);
    /* What may still have processes keeps its range of ids, as one does whose worker died: the next start frees it. */
    if (instance->slot >= 0 && !instance->may_live)
        id_ranges_give(&instance->runtime->ids, instance->slot);
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
    image_deinit(&instance->image);
    free(instance);
}
/* All is removed. */
static void removed(struct runtime_instance *instance)
{
    struct container_runtime *runtime = instance->runtime;
    runtime_stopped_fn *stopped = instance->given_up ? NULL : instance->stopped;
    void *data = instance->stopped_data;
    if (instance->given_up)
        runtime->leftovers--;
    container_destroy(instance);
    if (stopped)
        stopped(data);
    container_removed(runtime);
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
    attach_point_remove(&instance->point);
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
    if (worker_cgroup_remove(instance->runtime->cgroup, instance->id, err) < 0)
        return -1;
    instance->may_live = false;
    return 0;
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
    struct oci_call call = {.verb = OCI_DELETE,
                            .id = instance->id,
                            .force = true,
                            .unhurried = true,
                            .timeout_ms = DELETE_TIMEOUT_MS};
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

void container_begin_removal(struct runtime_instance *instance)
{
    container_close_fds(instance);
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
    container_begin_removal(data);
}

void container_stop(struct runtime_instance *instance, runtime_stopped_fn *stopped, void *data)
{
    assert(!instance->stopping);
    instance->stopping = true;
    instance->stopped = stopped;
    instance->stopped_data = data;
    if (instance->queued)
        container_unqueue(instance);
    if (!instance->start_over || instance->rewriting)
        return; /* what is under way looks at `stopping` when it is done */
    if (instance->pidfd >= 0)
        container_begin_removal(instance);
    else
        loop_defer(instance->runtime->loop, deferred_removal, instance, NULL);
}
