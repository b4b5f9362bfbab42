/* Settings of faas-worker: one table (base/settings.h) that makes flags, environment variables,
 * help and documentation. */
#pragma once

#include "base/settings.h"
#include "model/labels.h"

enum worker_runtime_kind { WORKER_RUNTIME_CONTAINER, WORKER_RUNTIME_SIMPLE };

struct worker_settings {
    /* who and where */
    char *controller_url; /* comma-separated; every string is owned */
    char *token;
    char *token_file;
    char *ca_file;
    bool shared_memory;
    char *name;
    char *labels; /* as they were given; see worker_settings_labels() */
    char *data_dir;
    char *image_dir;
    char *run_dir;
    char *libexec_dir;
    /* how functions run */
    char *use_container;
    char *runtime_type;
    char *oci_runtime;
    char *network_subnet;
    char *allow_unenforced;
    char *apparmor;
    char *network_deny;
    char *dns;
    int64_t concurrency;
    int64_t max_instances;
    int64_t memory_mb;
    int64_t keep_alive_ms;
    char *keep_alive_policy;
    int64_t freeze_after_ms;
    int64_t start_parallel;
    int64_t pool_size;
    int64_t start_timeout_ms;
    int64_t drain_timeout_ms;
    int64_t code_cache_mb;
    /* limits */
    int64_t payload_max_bytes;
    int64_t result_max_bytes;
    int64_t log_max_bytes;
    int64_t archive_max_bytes;
    int64_t unpacked_max_bytes;
    int64_t archive_max_files;
    int64_t open_files;
    int64_t build_memory_mb;
    int64_t build_timeout_ms;
    /* logs */
    char *log_level;
    char *log_format;
};

extern const struct settings_spec worker_settings_spec;

/* What WORKER_USE_CONTAINER and WORKER_RUNTIME_TYPE say together; a contradiction is an error. */
int worker_settings_runtime(const struct worker_settings *settings, enum worker_runtime_kind *ret,
                            struct error *err);
/* All labels of this worker: those that were given and its own (arch, os, name). */
int worker_settings_labels(const struct worker_settings *settings, struct labels *ret,
                           struct error *err);
/* Fills what was left open from the machine: name, memory, parallelism, folders. */
int worker_settings_fill(struct worker_settings *settings, struct error *err);
/* The same, and reads the token's file. */
int worker_settings_complete(struct worker_settings *settings, struct error *err);
