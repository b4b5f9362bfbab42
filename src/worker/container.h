/* What the files of runtime `container` share: runtime_container.c (the runtime itself, readings), container_start.c,
 * container_specialise.c and
 * container_remove.c (one instance). */
#pragma once

#include "base/loop.h"
#include "oci/image_store.h"
#include "oci/runc.h"
#include "worker/attach.h"
#include "worker/cgroup.h"
#include "worker/config.h"
#include "worker/id_ranges.h"
#include "worker/instance_spec.h"
#include "worker/network.h"
#include "worker/runtime.h"

#include <sys/queue.h>
#include <sys/stat.h>

struct container_runtime {
    struct runtime base;
    uv_loop_t *loop;
    const struct worker_settings *settings;
    struct oci_runtime oci;
    struct worker_cgroup *cgroup;
    limit_set refused; /* functions that ask for one of these are */
    struct disk disk;  /* that limits of I/O are of */
    struct network *network;
    struct image_store *images;
    char *bundles, *netns, *state, *attach, *resolv_conf, *image_index; /* owned paths */
    uv_fs_event_t *images_watch; /* of the image store's folder */
    bool has_resolv_conf, attach_open;
    char *apparmor_profile; /* owned; NULL: none */
    struct id_ranges ids;
    size_t running;                          /* OCI runtimes that start an instance */
    TAILQ_HEAD(, runtime_instance) prepared; /* generic ones that wait for one of those to end */
    size_t instances;                        /* not yet removed, those given up on included */
    size_t leftovers;
    bool closing;
    void (*closed)(void *data);
    void *closed_data;
};

/* Which of its states a file is in that is only ever replaced. */
struct file_mark {
    ino_t inode;
    struct timespec changed;
};

struct runtime_instance {
    struct container_runtime *runtime;
    char *id, *bundle, *cgroups_path; /* owned */
    const struct function_spec *spec; /* borrowed: struct runtime_start, struct runtime_load */
    const char *code_dir;             /* likewise; NULL: generic */
    const char **command;             /* owned */
    struct image image;               /* a generic one's; what it was started from */
    struct file_mark image_mark;      /* of the image store's index when it was `image` */
    struct attach_point point;        /* one that was generic has it */
    bool rewriting;                   /* the bundle, on a pool thread */
    int fds[INSTANCE_FD_COUNT];
    int slot; /* of the runtime's ids; -1: none */
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
    bool may_live;   /* created, and its cgroup was not yet seen gone */
    bool queued;     /* in the runtime's list `prepared` */
    TAILQ_ENTRY(runtime_instance) prepared;
    bool stopping;
    int tries;
    bool given_up;    /* `stopped` was called; removal goes on in the background */
    struct error err; /* of the start, or of removing files */
    bool failed;
    uint64_t started_ns; /* monotonic, as the next two */
    uint64_t networked_ns, prepared_ns;
    runtime_started_fn *started;
    void *started_data;
    runtime_stopped_fn *stopped;
    void *stopped_data;
};

struct runtime_instance *container_start(struct runtime *base, const struct runtime_start *start,
                                         runtime_started_fn *started, void *data,
                                         struct error *err);
/* config.json for what `spec`, `code_dir` and `command` of the instance say; blocks. */
int container_write_bundle(struct runtime_instance *instance, const struct image *image,
                           struct error *err);
int container_specialise(struct runtime_instance *instance, const struct runtime_load *load,
                         const char ***ret_environment, struct error *err);
bool container_outdated(struct runtime_instance *instance);
/* State of the image store's index. */
struct file_mark container_image_mark(const struct container_runtime *runtime);
void container_stop(struct runtime_instance *instance, runtime_stopped_fn *stopped, void *data);
/* A prepared instance that waits is given up: what follows a start that failed. */
void container_unqueue(struct runtime_instance *instance);
void container_close_fds(struct runtime_instance *instance);
/* Gives back what the instance holds, and frees it. */
void container_destroy(struct runtime_instance *instance);
/* Kills the container if it runs, then removes what there was. The start is over. */
void container_begin_removal(struct runtime_instance *instance);
/* An instance less: a runtime that is closing may go on. */
void container_removed(struct container_runtime *runtime);
