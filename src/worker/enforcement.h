/* Which limits this host can enforce, and which of them the operator lets the worker do without (WORKER_ALLOW_UNENFORCED).
 *
 * A limit that was allowed to be missing is still enforced where the host can. One that is missing and not allowed keeps the worker
 * from starting, or, if it is one that only some functions ask for (LIMITS_ASKED_FOR), those functions. Not here: AppArmor, which
 * WORKER_APPARMOR decides about, and the network, without which those functions are refused that ask for it.
 *
 * Blocks, on files of /proc and /sys only. */
#pragma once

#include "base/json.h"
#include "model/function.h"
#include "worker/cgroup.h"

enum limit_kind {
    LIMIT_MEMORY,  /* memory cgroup */
    LIMIT_SWAP,    /* the host has swap, and it is not part of the memory limit */
    LIMIT_CPU,     /* cpu cgroup */
    LIMIT_PIDS,    /* pids cgroup */
    LIMIT_USERNS,  /* a user namespace with ids of its own for each instance */
    LIMIT_SECCOMP, /* the filter of system calls */
    LIMIT_IO,      /* rates of the disk: io_bps, io_iops */
    LIMIT_KIND_COUNT
};

/* A set of limits: bits 1 << kind. */
typedef unsigned limit_set;
#define LIMIT_BIT(kind) (1u << (kind))
/* Without these no function is less isolated that did not ask for them. */
#define LIMITS_ASKED_FOR LIMIT_BIT(LIMIT_IO)

/* What the host has, as far as limits rest on it. */
struct host_means {
    struct cgroup_support cgroups;
    bool swap; /* some is in use or may be */
    bool seccomp;
    bool user_namespaces;
    bool has_disk;
    struct disk disk; /* that the data folder is on */
};

/* The name that the setting has for it: "memory". */
const char *limit_name(enum limit_kind kind);
/* A list of names, separated by commas and blanks. ERROR_INVALID_REQUEST names what is none, and the right ones. */
int limit_set_parse(const char *list, limit_set *ret, struct error *err);
/* The names in a set, separated by ", ". `out`: LIMIT_NAMES_SIZE bytes. */
#define LIMIT_NAMES_SIZE 96
void limit_set_names(limit_set set, char out[LIMIT_NAMES_SIZE]);
/* An array of the names. */
void limit_set_write(struct json_writer *writer, limit_set set);

/* -1 when nothing can be told of the host's cgroups. `data_dir`: the worker's, made already or not. */
int host_means_read(const char *data_dir, struct host_means *ret, struct error *err);
limit_set host_means_missing(const struct host_means *means);
/* ERROR_UNAVAILABLE when something is missing that every function has and that is not allowed to be: the message names it, and the
 * setting. */
int enforcement_check(const struct host_means *means, limit_set allowed, struct error *err);
/* ERROR_UNAVAILABLE when the function asks for one of `refused`. */
int enforcement_check_function(const struct function_spec *function, limit_set refused,
                               struct error *err);
