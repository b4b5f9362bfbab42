/* One instance's cgroups: cgroup_instance.c reads and kills, cgroup_limits.c sets limits; see worker/cgroup.h for the interface. */
#pragma once

#include "worker/cgroup.h"
#include "worker/cgroup_hierarchy.h"

enum cgroup_source {
    MEMORY_PEAK,
    MEMORY_NOW,
    CPU_TIME,
    OOM_EVENTS,
    PIDS_EVENTS,
    CGROUP_SOURCE_COUNT
};

struct cgroup_source_info;

struct instance_cgroup {
    const struct cgroup_hierarchies *hierarchies; /* borrowed, as the next */
    const char *owner;                            /* the folder that instances' cgroups are in */
    enum cgroup_version version;
    const struct cgroup_source_info *sources;
    int fds[CGROUP_SOURCE_COUNT]; /* owned; -1 for what this host does not have */
    int kill_fd;                  /* owned; v2 cgroup.kill, or -1 */
    int freeze_fd;                /* owned; v1 freezer.state, v2 cgroup.freeze, or -1 */
    char *members;                /* owned: a folder whose cgroup.procs lists its processes */
    char *membership;             /* owned: which cgroups it is in, as /proc/<pid>/cgroup has it */
    bool peak_writable;
    bool frozen;
};

/* Socket buffers of the v1 memory cgroup `folder`, in proportion to its memory; nothing where the kernel cannot. */
int cgroup_limit_sockets_v1(const char *folder, int64_t memory_bytes, struct error *err);
/* The line of v2 io.max for the limits of I/O. `out`: CGROUP_IO_MAX_SIZE bytes. */
#define CGROUP_IO_MAX_SIZE 160
void cgroup_io_max_v2(const struct cgroup_limits *limits, char out[CGROUP_IO_MAX_SIZE]);
/* `hierarchies` and `owner` must live until instance_cgroup_close(). */
struct instance_cgroup *instance_cgroup_new(const struct cgroup_hierarchies *hierarchies,
                                            const char *owner, enum cgroup_version version,
                                            pid_t pid, struct error *err);
/* Its folder in a controller's hierarchy; malloc'd, or NULL: none that is its own, which is to say OWNER/<instance>. Of a process that
 * has ended the kernel tells every v1 hierarchy's root: nothing may be read of that, limited or killed. */
char *instance_cgroup_folder(const struct instance_cgroup *instance, const char *controller);
