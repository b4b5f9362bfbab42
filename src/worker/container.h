/* What the files of runtime `container` share: runtime_container.c (the runtime itself, readings), container_start.c and
 * container_remove.c (one instance). */
#pragma once

#include "base/loop.h"
#include "oci/image_store.h"
#include "oci/runc.h"
#include "worker/cgroup.h"
#include "worker/config.h"
#include "worker/instance_spec.h"
#include "worker/network.h"
#include "worker/runtime.h"

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

struct runtime_instance *container_start(struct runtime *base, const struct runtime_start *start,
                                         runtime_started_fn *started, void *data,
                                         struct error *err);
void container_stop(struct runtime_instance *instance, runtime_stopped_fn *stopped, void *data);
void container_close_fds(struct runtime_instance *instance);
/* Gives back what the instance holds, and frees it. */
void container_destroy(struct runtime_instance *instance);
/* Kills the container if it runs, then removes what there was. The start is over. */
void container_begin_removal(struct runtime_instance *instance);
/* An instance less: a runtime that is closing may go on. */
void container_removed(struct container_runtime *runtime);
