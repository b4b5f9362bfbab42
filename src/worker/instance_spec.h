/* From a function's definition to the OCI runtime specification of its instance's container. Also
 * what `faas bundle` writes.
 *
 * instance_command() says how faas-init runs the function; instance_spec_init() makes everything
 * else. */
#pragma once

#include "model/function.h"
#include "oci/runtime_spec.h"

/* User and group of functions inside the container. */
#define INSTANCE_UID 1000
#define INSTANCE_ID_COUNT 65536
#define INSTANCE_ID_BASE 0x20000000u
#define INSTANCE_CODE_DIR "/app/function"
#define INSTANCE_LIBEXEC_DIR "/.faas"
#define INSTANCE_RUN_DIR "/run/faas"

struct instance_spec_options {
    const char *rootfs;           /* unpacked image */
    const char *const *image_env; /* the image's own environment; NULL-terminated, may be NULL */
    const char *code_dir;         /* on the host */
    const char *libexec_dir;      /* on the host */
    const char *resolv_conf;      /* on the host; NULL: none */
    const char *hostname;
    const char *cgroups_path;      /* NULL: the OCI runtime's choice */
    const char *network_namespace; /* NULL: a new one with loopback only */
    const char *const *command;    /* from instance_command(), or a build's */
    uint32_t id_base;              /* first host id of the user namespace */
    bool limit_swap;
    uint64_t open_files;
    uint64_t payload_max_bytes; /* size of the run folder */
};

struct instance_spec {
    struct oci_runtime_spec oci; /* points into the members below and into the options */
    const char **args;           /* owned */
    char **env;                  /* owned */
    char *options[4];            /* owned texts of mount options */
    const char *mount_options[5][8];
    struct oci_mount mounts[5];
    int oom_score_adj;
};

/* Name of the file that a single source file gets, and that contract `process` starts: "main.py".
 * `text` decides between index.js and index.mjs; may be NULL. malloc'd. */
char *instance_entry(const struct function_spec *spec);
/* faas-init's command: MODE, "--", ARGV…, NULL. Checks that the entry file is in `code_dir`.
 * `libexec_dir` and `code_dir` are as the function sees them for ARGV (runtime simple: the host's).
 * One allocation: free(). */
const char **instance_command(const struct function_spec *spec, const char *code_dir,
                              const char *seen_libexec_dir, struct error *err);
/* The environment of a function: the image's, then the function's own, then the platform's.
 * NULL-terminated; strings and array are one allocation: free(). */
const char **instance_environment(const struct function_spec *spec, const char *const *image_env,
                                  struct error *err);

int instance_spec_init(struct instance_spec *spec, const struct function_spec *function,
                       const struct instance_spec_options *options, struct error *err);
void instance_spec_deinit(struct instance_spec *spec);
