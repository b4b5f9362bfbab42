/* The worker's place in the control group hierarchies, and what each instance's cgroup can tell.
 *
 * Layout (kernel documents: admin-guide/cgroup-v1, admin-guide/cgroup-v2):
 *
 *     v1  (also hybrid, where the controllers are on v1) <own>/faas-<worker>/<instance> in every
 *         hierarchy, <own> being the worker's own cgroup there; the OCI runtime makes them.
 *     v2  <base>/faas-<worker>/<instance>. <base> is the worker's own cgroup when it was delegated
 *         (systemd Delegate=yes, or the root of a cgroup namespace): its processes move to the leaf
 *         <base>/faas-supervisor first, because a cgroup with controllers for its children may not
 *         hold processes. A worker started by hand in somebody else's cgroup (a login session) uses
 *         the root of the hierarchy as <base>.
 *
 * Against other processes of the host, faas-<worker> has the weight of one busy process for each CPU.
 *
 * All calls block, but only on cgroupfs, which is memory. Loop thread only, except cgroup_detect().
 */
#pragma once

#include "base/error.h"
#include "worker/disk.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

enum cgroup_version { CGROUP_V1 = 1, CGROUP_V2 = 2 };

/* What this host can do. */
struct cgroup_support {
    enum cgroup_version version; /* where the controllers are */
    bool hybrid;                 /* v1 controllers and a mounted v2 hierarchy */
    bool memory, cpu, pids;      /* limits that every instance needs (worker/enforcement.h) */
    bool io;                     /* rates of a disk can be limited */
    bool swap;                   /* swap can be limited (struct oci_runtime_spec.limit_swap) */
    bool devices, freezer;
};

/* Fills *ret in any case. -1 (ERROR_UNAVAILABLE) when no hierarchy is there at all. */
int cgroup_detect(struct cgroup_support *ret, struct error *err);

struct worker_cgroup;

/* Detects, makes the v2 layout, and removes what a predecessor with the same name left (killing
 * what still runs in it). `worker` is the worker's name ([a-z0-9-]). The object is the caller's:
 * worker_cgroup_free(). */
struct worker_cgroup *worker_cgroup_new(const char *worker, struct error *err);
/* Kills what is left in instances' cgroups, removes them and everything worker_cgroup_new() made,
 * and frees. Accepts NULL. */
void worker_cgroup_free(struct worker_cgroup *cgroup);
const struct cgroup_support *worker_cgroup_support(const struct worker_cgroup *cgroup);
/* What goes into struct oci_runtime_spec.cgroups_path for `instance`; malloc'd, NULL when out of
 * memory. */
char *worker_cgroup_path(const struct worker_cgroup *cgroup, const char *instance);
/* Before its start: what the OCI runtime does not limit. On v1, socket buffers have a limit of their own beside memory_bytes,
 * which counts only for sockets made after it was set; on v2 they are part of the memory. Without a limit (0) there is none for
 * them. worker_cgroup_remove() is due also after a failure. */
int worker_cgroup_prepare(struct worker_cgroup *cgroup, const char *instance, int64_t memory_bytes,
                          struct error *err);
/* Kills every process in `instance`'s cgroups and removes them (blocks up to 1 s for the kernel to
 * let go). For an instance that the OCI runtime did not clean up. */
int worker_cgroup_remove(struct worker_cgroup *cgroup, const char *instance, struct error *err);

/* An instance's cgroup files, kept open so that a reading costs a pread(2) each. */
struct instance_cgroup;

struct instance_stats {
    uint64_t memory_peak_bytes; /* since instance_cgroup_reset_peak(), or since its start where the
                                   kernel cannot reset */
    uint64_t memory_bytes;
    uint64_t cpu_time_ns;     /* since its start: take the difference of two readings */
    uint64_t oom_kills;       /* since its start */
    uint64_t pids_max_events; /* forks refused by the pids limit since its start */
};

/* By the host pid of the instance's first process. ERROR_NOT_FOUND unless that is in a cgroup below faas-<worker>: it has ended
 * already, or is another's. */
struct instance_cgroup *instance_cgroup_open(const struct worker_cgroup *cgroup, pid_t pid,
                                             struct error *err);
void instance_cgroup_close(struct instance_cgroup *instance); /* accepts NULL */
/* A value that this host cannot tell is 0. Still works after all processes have ended; when the
 * cgroup is gone the result is ERROR_NOT_FOUND. */
int instance_cgroup_read(struct instance_cgroup *instance, struct instance_stats *ret,
                         struct error *err);
/* Only what a call's record needs: memory_peak_bytes, cpu_time_ns and oom_kills. */
int instance_cgroup_read_call(struct instance_cgroup *instance, struct instance_stats *ret,
                              struct error *err);
/* 0 when the peak starts anew; -1 (ERROR_UNAVAILABLE) on a v2 kernel before 6.12, which only has
 * the peak of a life. */
int instance_cgroup_reset_peak(struct instance_cgroup *instance, struct error *err);
/* SIGKILL to every process in it, at once (v2 cgroup.kill) or by repeated reading of the list (v1); a frozen one is
 * thawed for it where the kernel needs that (v1).
 */
int instance_cgroup_kill(struct instance_cgroup *instance, struct error *err);
/* Stops every process in it, and lets them go on (v1 freezer.state, v2 cgroup.freeze): asked for here, done by the
 * kernel a moment later. Again in the same state: nothing happens. ERROR_UNAVAILABLE where this host has no freezer, or the
 * runtime made no cgroup of the instance's own in it. */
int instance_cgroup_freeze(struct instance_cgroup *instance, struct error *err);
int instance_cgroup_thaw(struct instance_cgroup *instance, struct error *err);

/* When it shares the processors with other instances, it counts as one part in so many of one that has its whole weight. */
int instance_cgroup_weigh(struct instance_cgroup *instance, unsigned parts, struct error *err);

/* What an instance may use, 0: no limit; as the OCI runtime sets it from struct oci_runtime_spec. */
struct cgroup_limits {
    int64_t memory_bytes;
    bool limit_swap;      /* memory and swap together are memory_bytes */
    int64_t cpu_quota_us; /* of the period that the cgroup has */
    int64_t pids;
    struct disk disk;        /* whose rates the next two are */
    int64_t io_bps, io_iops; /* a second, of reads and of writes each */
};
/* From the limits that it has to others; writes what differs. ERROR_NO_CAPACITY when it uses more memory than it may now. After a
 * failure the limits are something between the two. */
int instance_cgroup_limit(struct instance_cgroup *instance, const struct cgroup_limits *from,
                          const struct cgroup_limits *to, struct error *err);
