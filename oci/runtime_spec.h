/* Writes an OCI runtime configuration (config.json), OCI runtime-spec 1.0.2.
 *
 * The struct says what differs from container to container; what never does is written here and
 * cannot be asked for otherwise: all five capability sets empty, noNewPrivileges, no terminal, no
 * device beyond the runtime's defaults, no /sys, /proc and a private /dev, the usual masked and
 * read-only kernel paths, namespaces pid, mount, ipc, uts, cgroup and network, RLIMIT_CORE 0, and a
 * file-descriptor limit.
 *
 * Every pointer is borrowed and only read during the call. Zero means "not set" unless said
 * otherwise. */
#pragma once

#include "base/buffer.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define OCI_SPEC_VERSION "1.0.2"
/* A config.json larger than this is refused on writing and on reading. */
#define OCI_CONFIG_MAX_BYTES (4u * 1024 * 1024)

struct oci_mount {
    const char *destination;    /* absolute, in the container */
    const char *type;           /* "bind", "tmpfs", … */
    const char *source;         /* for a bind: absolute, or relative to the bundle */
    const char *const *options; /* NULL-terminated; NULL: none */
};

struct oci_annotation {
    const char *key;
    const char *value;
};

struct oci_runtime_spec {
    const char *rootfs; /* absolute, or relative to the bundle; required */
    bool rootfs_readonly;

    const char *const *args; /* NULL-terminated, at least one; required */
    const char *const *env;  /* NULL-terminated "NAME=value"; NULL: empty environment */
    const char *cwd;         /* absolute; NULL: "/" */
    uint32_t uid, gid;       /* in the container */
    const char *hostname;    /* NULL: the runtime's choice */

    /* Mounted after /proc, /dev and /dev/shm, in this order. */
    const struct oci_mount *mounts;
    size_t mount_count;
    int64_t shm_bytes; /* size of /dev/shm; 0: no /dev/shm */

    /* Limits of the container's cgroup. */
    int64_t memory_bytes;
    bool limit_swap; /* memory + swap = memory_bytes; only where the host accounts for swap (see
                        worker/cgroup.h) */
    int64_t cpu_quota_us;   /* CPU time per period */
    uint64_t cpu_period_us; /* 0 with a quota: 100000 */
    int64_t pids;
    /* Of a whole disk (not a partition): bytes and operations a second, of reads and of writes. */
    uint32_t io_major, io_minor;
    int64_t io_bps, io_iops;
    const char *cgroups_path; /* absolute below the hierarchies' root, or (v1) relative to the
                                 runtime's own; NULL: its choice */

    uint64_t nofile;          /* soft and hard; 0: 1024 */
    const int *oom_score_adj; /* NULL: inherited */

    const char
        *network_namespace; /* path of one to join; NULL: a new one with nothing but loopback */
    /* User namespace: container ids 0..size-1 are host ids base..base+size-1. Size 0: no user
     * namespace. */
    uint32_t id_map_host_base;
    uint32_t id_map_size;

    const char *apparmor_profile;   /* loaded (oci/apparmor.h); NULL: none */
    bool seccomp;                   /* the allow-list of oci/seccomp.h */
    const char *rootfs_propagation; /* "slave", …; NULL: the runtime's default */

    const struct oci_annotation *annotations;
    size_t annotation_count;
};

/* Appends config.json to `out`. ERROR_INVALID_REQUEST when a required member is missing or a path
 * is not absolute. */
int oci_runtime_spec_write(const struct oci_runtime_spec *spec, struct buffer *out,
                           struct error *err);
