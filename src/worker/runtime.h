/* How instances come to be: one interface, two implementations.
 *
 * `container` makes each instance an OCI container (bundle, network namespace, cgroup, `runc run`);
 * `simple` starts the same faas-init as a plain host process, without any isolation, for
 * development and instant rollback. Both give faas-init the same four descriptors, so everything
 * above this interface is the same for both.
 *
 * Life of an instance: start() … `started` is called … usage(), reset_usage() … stop() … `stopped`
 * is called. stop() may come at any time after start(), also before `started`, which is then never
 * called. Everything is on the loop thread; callbacks never come from inside the call that they
 * answer.
 *
 * A generic instance is started without code, ahead of its function, and gets it once by
 * specialise(), which is some system calls and does not wait for a disk, a process or a thread. From
 * then on it is what start() would have made of that function. */
#pragma once

#include "init/protocol.h"
#include "model/function.h"
#include "worker/enforcement.h"

#include <uv.h>

struct runtime;          /* one a worker */
struct runtime_instance; /* one container or process tree */

/* Totals since the start of the instance, but for memory_peak_bytes: since reset_usage(). */
struct runtime_usage {
    uint64_t cpu_ns;
    uint64_t memory_peak_bytes;
    uint64_t network_in_bytes;
    uint64_t network_out_bytes;
    uint64_t oom_kills; /* processes that the kernel killed for the memory limit */
};

struct runtime_start {
    const char *id; /* of the instance: letters and digits */
    const struct function_spec
        *spec; /* limits, image, network, environment; borrowed until `started` or `stopped`. Of a
                  generic instance: without a name, and borrowed until specialise() or `stopped` */
    const char *code_dir;       /* unpacked code on the host; likewise. NULL: a generic instance */
    const char *const *command; /* what faas-init runs: MODE, "--", ARGV…, NULL; copied */
    int fds[INSTANCE_FD_COUNT]; /* the instance's ends; the runtime closes them, also on failure,
                                   but not before the start has succeeded or failed */
};

/* What a generic instance becomes; borrowed until `stopped`. */
struct runtime_load {
    const struct function_spec *spec; /* image, runtime and network are the instance's */
    const char *code_dir;
    const char *const *command;
};

/* err is NULL when faas-init runs. After a failure stop() is still due. */
typedef void runtime_started_fn(void *data, const struct error *err);
/* Nothing of the instance is left, or what is left is being removed in the background. The handle
 * is invalid. */
typedef void runtime_stopped_fn(void *data);

struct runtime_ops {
    const char *name;
    struct runtime_instance *(*start)(struct runtime *runtime, const struct runtime_start *start,
                                      runtime_started_fn *started, void *data, struct error *err);
    /* A started generic instance gets code, limits and all else that is the function's, but for the
     * environment, which is the caller's to hand over (FRAME_LOAD): *ret_environment is
     * NULL-terminated and one allocation, the caller's. After a failure the instance is of no use.
     * ERROR_CONFLICT: its image is not what the image's name means now. NULL: this runtime has no
     * generic instances. */
    int (*specialise)(struct runtime_instance *instance, const struct runtime_load *load,
                      const char ***ret_environment, struct error *err);
    /* Of a started generic instance: whether specialise() would say ERROR_CONFLICT. NULL as above. */
    bool (*outdated)(struct runtime_instance *instance);
    /* Kills every process at once, then removes what there was. */
    void (*stop)(struct runtime_instance *instance, runtime_stopped_fn *stopped, void *data);
    int (*usage)(struct runtime_instance *instance, struct runtime_usage *ret, struct error *err);
    void (*reset_usage)(struct runtime_instance *instance);
    /* Stops every process of a started instance, or lets them go on; stop() needs no thaw before it. NULL: this runtime
     * cannot. */
    int (*freeze)(struct runtime_instance *instance, bool frozen, struct error *err);
    /* When started instances share the processors, it counts as one part in so many; 1 at the start. NULL: this runtime cannot. */
    int (*weigh)(struct runtime_instance *instance, unsigned parts);
    /* pid of faas-init on the host; 0 before it is started. */
    pid_t (*pid)(const struct runtime_instance *instance);
    /* Instances whose removal is still being tried in the background. */
    size_t (*leftovers)(const struct runtime *runtime);
    /* All instances must be stopped. Removes what there was, once more what could not be removed
     * before, and frees the runtime; `closed` (may be NULL) comes later. */
    void (*close)(struct runtime *runtime, void (*closed)(void *data), void *data);
};

struct runtime {
    const struct runtime_ops *ops;
    /* Called when the meaning of an image's name may have changed; set by who keeps generic instances. */
    void (*images_changed)(void *data);
    void *images_changed_data;
    limit_set without; /* limits that are not enforced */
};

struct worker_settings;
/* Block. Check that the programs are there (runc answers, faas-init exists), remove what a predecessor
 * of the same name left, and make the folders. `settings` is borrowed until `closed`. */
struct runtime *runtime_container_new(uv_loop_t *loop, const struct worker_settings *settings,
                                      struct error *err);
struct runtime *runtime_simple_new(uv_loop_t *loop, const struct worker_settings *settings,
                                   struct error *err);
