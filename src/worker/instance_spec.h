/* From a function's definition to the OCI runtime specification of its instance's container. Also
 * what `faas bundle` writes. No state; blocks only for looking at the code folder.
 *
 * instance_command() says how faas-init runs the function; instance_spec_init() makes everything
 * else. */
#pragma once

#include "model/function.h"
#include "oci/runtime_spec.h"
#include "worker/enforcement.h"

/* User and group of functions inside the container. */
#define INSTANCE_UID 1000
/* Each instance has ids of its own on the host, base + slot * count (worker/id_ranges.h); slot 0 is that of bundles run by hand. */
#define INSTANCE_ID_BASE 0x20000000u
#define INSTANCE_ID_COUNT 65536u
#define INSTANCE_ID_SLOTS 16384u

#define INSTANCE_CODE_DIR "/app/function"
#define INSTANCE_LIBEXEC_DIR "/.faas"
#define INSTANCE_RUN_DIR "/run/faas"

/* Everything is borrowed until instance_spec_deinit(). */
struct instance_spec_options {
    const char *rootfs;           /* unpacked image */
    const char *const *image_env; /* the image's own; NULL-terminated, may be NULL */
    const char *code_dir;         /* on the host */
    bool
        late_code; /* code_dir is an attach point (worker/attach.h): what is mounted there later shows
                       in the container */
    const char *libexec_dir;       /* on the host */
    const char *resolv_conf;       /* on the host; NULL: none */
    const char *hostname;          /* NULL: the function's name */
    const char *cgroups_path;      /* NULL: the OCI runtime's choice */
    const char *network_namespace; /* NULL: a new one with loopback only */
    const char *const *command;    /* from instance_command(), or a build's */
    const char *apparmor_profile;  /* NULL: none */
    uint32_t id_base;              /* first host id of the user namespace */
    bool limit_swap;
    struct disk disk;           /* that limits of I/O are of */
    limit_set without;          /* limits that the host cannot enforce */
    uint64_t open_files;        /* 0: 1024 */
    uint64_t payload_max_bytes; /* for the size of the run folder; 0: 6 MiB */
};

#define INSTANCE_MOUNTS_MAX 5

struct instance_spec {
    struct oci_runtime_spec oci; /* for oci_bundle_write() and its like */
    /* what `oci` points to */
    const char **args; /* owned, as the next two */
    const char **env;
    char *tmp_size, *run_size;
    const char *tmp_options[8], *run_options[8];
    struct oci_mount mounts[INSTANCE_MOUNTS_MAX];
    int oom_score_adj;
};

/* Name that the code gets when it is one source file: "main.py", or a handler's module; malloc'd,
 * NULL when out of memory. */
char *instance_entry(const struct function_spec *function);
/* faas-init's command: MODE, "--", ARGV…, NULL. One allocation: free() it. `seen_libexec_dir`: where
 * the function sees the adapters (INSTANCE_LIBEXEC_DIR; the host's folder for runtime simple).
 * ERROR_INVALID_REQUEST when the entry file is not in `code_dir`. */
const char **instance_command(const struct function_spec *function, const char *code_dir,
                              const char *seen_libexec_dir, struct error *err);
/* The same for a generic instance of that runtime: faas-init, and an interpreter without a function. */
const char **instance_generic_command(enum function_runtime runtime, struct error *err);
/* Whether the function can run in an interpreter that was started before its environment was known (init/protocol.h: what LOAD cannot
 * do). Names decide, whatever their values, so a few functions are refused that could. */
bool instance_takes_late_environment(const struct function_spec *function);
/* A function's environment: the image's, then its own, then the platform's; of a nameless one (a generic instance's) the image's only.
 * NULL-terminated, one allocation: free() it. */
const char **instance_environment(const struct function_spec *function,
                                  const char *const *image_env, struct error *err);
/* The list with other strings put in front, as one allocation: free() it. */
const char **instance_strings_join(const char *const *first, const char *const *second);

/* What the container's cgroup gets, also when the function comes to a container that runs already. */
struct cgroup_limits instance_cgroup_limits(const struct function_spec *function, bool limit_swap,
                                            limit_set without, struct disk disk);

int instance_spec_init(struct instance_spec *spec, const struct function_spec *function,
                       const struct instance_spec_options *options, struct error *err);
void instance_spec_deinit(struct instance_spec *spec);
