/* What the host cannot enforce, weighed against what the operator lets be missing; see enforcement.h. */
#include "worker/enforcement.h"

#include "base/cleanup.h"
#include "base/file.h"
#include "base/text.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SETTING "WORKER_ALLOW_UNENFORCED"

static const char *const names[LIMIT_KIND_COUNT] = {
    [LIMIT_MEMORY] = "memory", [LIMIT_SWAP] = "swap",     [LIMIT_CPU] = "cpu",
    [LIMIT_PIDS] = "pids",     [LIMIT_USERNS] = "userns", [LIMIT_SECCOMP] = "seccomp",
    [LIMIT_IO] = "io",
};

const char *limit_name(enum limit_kind kind)
{
    return names[kind];
}

/* ---- sets ---- */

static int find_kind(const char *name)
{
    for (int kind = 0; kind < LIMIT_KIND_COUNT; kind++)
        if (strcmp(names[kind], name) == 0)
            return kind;
    return -1;
}

int limit_set_parse(const char *list, limit_set *ret, struct error *err)
{
    autofree char *copy = strdup(list ? list : "");
    char every[LIMIT_NAMES_SIZE];
    char *rest = NULL;
    limit_set set = 0;

    if (!copy)
        return error_set(err, ERROR_INTERNAL, "out of memory");
    for (char *word = strtok_r(copy, ", ", &rest); word; word = strtok_r(NULL, ", ", &rest)) {
        int kind = find_kind(word);
        if (kind < 0) {
            limit_set_names(LIMIT_BIT(LIMIT_KIND_COUNT) - 1, every);
            return error_set(err, ERROR_INVALID_REQUEST,
                             SETTING " must be a list of %s; \"%.64s\" is none of them", every,
                             word);
        }
        set |= LIMIT_BIT(kind);
    }
    *ret = set;
    return 0;
}

void limit_set_names(limit_set set, char out[LIMIT_NAMES_SIZE])
{
    size_t len = 0;

    out[0] = '\0';
    for (int kind = 0; kind < LIMIT_KIND_COUNT; kind++)
        if (set & LIMIT_BIT(kind))
            len += (size_t)snprintf(out + len, LIMIT_NAMES_SIZE - len, "%s%s", len ? ", " : "",
                                    names[kind]);
}

void limit_set_write(struct json_writer *writer, limit_set set)
{
    json_array_begin(writer);
    for (int kind = 0; kind < LIMIT_KIND_COUNT; kind++)
        if (set & LIMIT_BIT(kind))
            json_write_string(writer, names[kind]);
    json_array_end(writer);
}

/* ---- the host ---- */

static bool has_swap(void)
{
    with_cleanup(buffer_deinit) struct buffer text = BUFFER_INIT(64 * 1024);

    return buffer_read_file(&text, "/proc/swaps", NULL) == 0 && text.data && strchr(text.data, '/');
}

static bool has_user_namespaces(void)
{
    with_cleanup(buffer_deinit) struct buffer most = BUFFER_INIT(64);

    if (!path_exists("/proc/self/ns/user"))
        return false;
    return buffer_read_file(&most, "/proc/sys/user/max_user_namespaces", NULL) < 0 || !most.data ||
           strtol(most.data, NULL, 10) != 0;
}

int host_means_read(const char *data_dir, struct host_means *ret, struct error *err)
{
    *ret = (struct host_means){.swap = has_swap(),
                               .seccomp = path_exists("/proc/sys/kernel/seccomp/actions_avail"),
                               .user_namespaces = has_user_namespaces()};
    ret->has_disk = disk_find(data_dir, &ret->disk, NULL) == 0;
    return cgroup_detect(&ret->cgroups, err);
}

limit_set host_means_missing(const struct host_means *means)
{
    const struct cgroup_support *cgroups = &means->cgroups;
    limit_set missing = 0;

    if (!cgroups->memory)
        missing |= LIMIT_BIT(LIMIT_MEMORY);
    else if (!cgroups->swap && means->swap)
        missing |= LIMIT_BIT(LIMIT_SWAP);
    if (!cgroups->cpu)
        missing |= LIMIT_BIT(LIMIT_CPU);
    if (!cgroups->pids)
        missing |= LIMIT_BIT(LIMIT_PIDS);
    if (!means->user_namespaces)
        missing |= LIMIT_BIT(LIMIT_USERNS);
    if (!means->seccomp)
        missing |= LIMIT_BIT(LIMIT_SECCOMP);
    if (!cgroups->io || !means->has_disk)
        missing |= LIMIT_BIT(LIMIT_IO);
    return missing;
}

/* What may help, for the first of those that are missing. */
static const char *advice(limit_set missing)
{
    if (missing & LIMIT_BIT(LIMIT_MEMORY))
        return "run as root with the controllers mounted and writable; some kernels need "
               "cgroup_enable=memory on their command line";
    if (missing & (LIMIT_BIT(LIMIT_CPU) | LIMIT_BIT(LIMIT_PIDS)))
        return "run as root with the controllers mounted and writable";
    if (missing & LIMIT_BIT(LIMIT_SWAP))
        return "swapoff, or the kernel parameter swapaccount=1";
    if (missing & LIMIT_BIT(LIMIT_USERNS))
        return "sysctl user.max_user_namespaces";
    return "a kernel with CONFIG_SECCOMP_FILTER";
}

int enforcement_check(const struct host_means *means, limit_set allowed, struct error *err)
{
    limit_set missing = host_means_missing(means) & ~(allowed | LIMITS_ASKED_FOR);
    char words[LIMIT_NAMES_SIZE];

    if (!missing)
        return 0;
    limit_set_names(missing, words);
    return error_set(
        err, ERROR_UNAVAILABLE,
        "this host cannot enforce these limits: %s (cgroup v%d%s): %s; or name in " SETTING
        " what functions may run without",
        words, (int)means->cgroups.version, means->cgroups.hybrid ? ", hybrid" : "",
        advice(missing));
}

int enforcement_check_function(const struct function_spec *function, limit_set refused,
                               struct error *err)
{
    bool asks = function->io_bps > 0 || function->io_iops > 0;
    if (!asks || !(refused & LIMIT_BIT(LIMIT_IO)))
        return 0;
    return error_set(err, ERROR_UNAVAILABLE,
                     "this worker's host cannot limit I/O, which io_bps and io_iops ask for: leave "
                     "them out, or name io in " SETTING " there");
}
