/* The worker's part of the hierarchies: what the host offers, the folder that instances go to, and
 * its removal. */
#include "worker/cgroup.h"

#include "base/buffer.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "base/log.h"
#include "base/text.h"
#include "worker/cgroup_hierarchy.h"
#include "worker/cgroup_instance.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysinfo.h>
#include <sys/xattr.h>
#include <unistd.h>

#define SUPERVISOR "faas-supervisor"
#define REMOVE_TIMEOUT_MS 1000
#define WORKER_NAME_MAX 64
/* Both versions end at a hundred times their usual weight, or a bit more. */
#define WEIGHT_CPUS_MAX 100
/* How deep below a hierarchy's root a login session or service may be. */
#define HUSK_DEPTH 8

/* The controllers that limits need. */
static const char *const needed[] = {"memory", "cpu", "pids"};
/* Those that instances' cgroups have where the host has them. */
static const char *const wanted[] = {"memory", "cpu", "pids", "io"};

struct worker_cgroup {
    struct cgroup_hierarchies hierarchies;
    struct cgroup_support support;
    char *membership;  /* owned: this process's /proc/self/cgroup at the start */
    char *folder_name; /* owned: "faas-<worker>" */
    char *base;        /* owned; v2 only: path below the hierarchy's root, "/" or "/a/b" */
    bool moved;        /* v2: processes were moved to the supervisor leaf */
    char *switched_on; /* owned; v2: the base's cgroup.subtree_control as it was, "" when unknown */
};

/* ---- what the host offers ---- */

static char *v1_own_folder(const struct cgroup_hierarchies *all, const char *membership,
                           const char *controller)
{
    const struct cgroup_hierarchy *hierarchy = cgroup_hierarchies_find_v1(all, controller);
    autofree char *path = hierarchy ? cgroup_membership_path(membership, hierarchy, NULL) : NULL;

    return path ? cgroup_folder(hierarchy, path) : NULL;
}

static bool v1_usable(const struct cgroup_hierarchies *all, const char *membership,
                      const char *controller)
{
    autofree char *folder = v1_own_folder(all, membership, controller);

    return folder && access(folder, W_OK) == 0;
}

static bool has_file(const char *folder, const char *name)
{
    autofree char *path = string_printf("%s/%s", folder, name);

    return path && path_exists(path);
}

static void support_v1(const struct cgroup_hierarchies *all, const char *membership,
                       struct cgroup_support *ret)
{
    autofree char *memory = v1_own_folder(all, membership, "memory");
    autofree char *blkio = v1_own_folder(all, membership, "blkio");

    ret->version = CGROUP_V1;
    ret->hybrid = cgroup_hierarchies_find_v2(all) != NULL;
    ret->memory = v1_usable(all, membership, "memory");
    ret->cpu = v1_usable(all, membership, "cpu");
    ret->pids = v1_usable(all, membership, "pids");
    ret->devices = v1_usable(all, membership, "devices");
    ret->freezer = v1_usable(all, membership, "freezer");
    ret->io = blkio && v1_usable(all, membership, "blkio") &&
              has_file(blkio, "blkio.throttle.read_bps_device");
    ret->swap = memory && has_file(memory, "memory.memsw.limit_in_bytes");
}

/* Whether a list of words, separated by spaces and ended by a newline or the text's end, has `word`. */
static bool words_have(const char *text, const char *word, size_t len)
{
    for (const char *at = text; (at = strstr(at, word)); at += len)
        if ((at == text || at[-1] == ' ') && (at[len] == ' ' || at[len] == '\n' || at[len] == '\0'))
            return true;
    return false;
}

/* The list in a cgroup's file; malloc'd, "" when it cannot be read, NULL when out of memory. */
static char *read_list(const char *folder, const char *file)
{
    with_cleanup(buffer_deinit) struct buffer text = BUFFER_INIT(4096);
    autofree char *path = string_printf("%s/%s", folder, file);

    if (!path || buffer_read_file(&text, path, NULL) < 0)
        buffer_clear(&text);
    return buffer_take(&text, NULL);
}

static bool list_has(const char *folder, const char *file, const char *word)
{
    autofree char *list = read_list(folder, file);

    return list && words_have(list, word, strlen(word));
}

/* systemd marks what it has given away (Delegate=yes). */
static bool is_delegated(const char *folder)
{
    static const char *const marks[] = {"trusted.delegate", "user.delegate"};
    char value[8];

    for (size_t i = 0; i < ARRAY_LENGTH(marks); i++)
        if (getxattr(folder, marks[i], value, sizeof(value)) == 1 && value[0] == '1')
            return true;
    return false;
}

/* Where instances may be put: see the layout in the header. malloc'd path below the hierarchy's
 * root. */
static char *v2_base(const struct cgroup_hierarchy *v2, const char *membership, struct error *err)
{
    autofree char *own = cgroup_membership_path(membership, v2, err);
    char *base = NULL;

    if (!own)
        return NULL;
    char *leaf = strrchr(own, '/');
    if (leaf && strcmp(leaf + 1, SUPERVISOR) == 0)
        leaf[leaf == own] = '\0';
    autofree char *folder = cgroup_folder(v2, own);
    if (folder)
        base = strdup(own[0] && is_delegated(folder) ? own : "/");
    if (!base)
        error_set(err, ERROR_INTERNAL, "out of memory");
    return base;
}

static void support_v2(const struct cgroup_hierarchy *v2, const char *membership,
                       struct cgroup_support *ret)
{
    autofree char *base = v2_base(v2, membership, NULL);
    autofree char *folder = base ? cgroup_folder(v2, base) : NULL;

    ret->version = CGROUP_V2;
    if (!folder || access(folder, W_OK) < 0)
        return;
    ret->memory = list_has(folder, "cgroup.controllers", "memory");
    ret->cpu = list_has(folder, "cgroup.controllers", "cpu");
    ret->pids = list_has(folder, "cgroup.controllers", "pids");
    ret->io = list_has(folder, "cgroup.controllers", "io");
    ret->devices = true; /* by BPF, which every v2 kernel has */
    ret->freezer = true;
    /* Only cgroups below the root have the file itself; a kernel without swap has no /proc/swaps.
     */
    ret->swap = ret->memory && path_exists("/proc/swaps");
}

/* One controller that limits need is enough: the others may be missing altogether. */
static bool is_v1(const struct cgroup_hierarchies *all)
{
    for (size_t i = 0; i < ARRAY_LENGTH(needed); i++)
        if (cgroup_hierarchies_find_v1(all, needed[i]))
            return true;
    return false;
}

static void detect(const struct cgroup_hierarchies *all, const char *membership,
                   struct cgroup_support *ret)
{
    const struct cgroup_hierarchy *v2 = cgroup_hierarchies_find_v2(all);

    *ret = (struct cgroup_support){0};
    if (is_v1(all) || !v2)
        support_v1(all, membership, ret);
    else
        support_v2(v2, membership, ret);
}

int cgroup_detect(struct cgroup_support *ret, struct error *err)
{
    with_cleanup(cgroup_hierarchies_deinit) struct cgroup_hierarchies all = {0};

    *ret = (struct cgroup_support){0};
    if (cgroup_hierarchies_read(&all, err) < 0)
        return -1;
    if (all.count == 0)
        return error_set(
            err, ERROR_UNAVAILABLE,
            "no cgroup hierarchy is mounted; limits need cgroup v1 or v2 at /sys/fs/cgroup");
    autofree char *membership = cgroup_membership_read(0, err);
    if (!membership)
        return -1;
    detect(&all, membership, ret);
    return 0;
}

/* ---- v2 layout ---- */

static int switch_controller(const char *folder, char sign, const char *controller,
                             struct error *err)
{
    autofree char *path = string_printf("%s/cgroup.subtree_control", folder);
    char value[32];

    if (!path)
        return error_set(err, ERROR_INTERNAL, "out of memory");
    snprintf(value, sizeof(value), "%c%s", sign, controller);
    return write_file_value(path, value, err);
}

/* Moves every process of cgroup `from` to cgroup `to`. New ones may appear meanwhile, so it looks
 * again. */
static int move_processes(const char *from, const char *to, struct error *err)
{
    autofree char *source = string_printf("%s/cgroup.procs", from);
    autofree char *target = string_printf("%s/cgroup.procs", to);

    if (!source || !target)
        return error_set(err, ERROR_INTERNAL, "out of memory");
    for (int round = 0; round < 16; round++) {
        with_cleanup(buffer_deinit) struct buffer text = BUFFER_INIT(1024 * 1024);
        char *rest = NULL;
        if (buffer_read_file(&text, source, err) < 0)
            return -1;
        if (text.len == 0)
            return 0;
        for (char *pid = strtok_r(text.data, "\n", &rest); pid; pid = strtok_r(NULL, "\n", &rest)) {
            struct error failed = {0};
            if (write_file_value(target, pid, &failed) < 0 && failed.sys_errno != ESRCH)
                return error_set(err, failed.code, "move process %s to %s: %s", pid, to,
                                 failed.message);
        }
    }
    return error_set(err, ERROR_UNAVAILABLE, "processes keep appearing in the cgroup %s", from);
}

static int make_leaf_and_move(struct worker_cgroup *cgroup, const char *base, struct error *err)
{
    autofree char *leaf = string_printf("%s/" SUPERVISOR, base);

    if (!leaf)
        return error_set(err, ERROR_INTERNAL, "out of memory");
    if (mkdir(leaf, 0755) < 0 && errno != EEXIST)
        return error_set_errno(err, ERROR_UNAVAILABLE, errno, "make the cgroup %s", leaf);
    cgroup->moved = true;
    return move_processes(base, leaf, err);
}

static int enable_in_base(struct worker_cgroup *cgroup, const char *base, struct error *err)
{
    for (size_t i = 0; i < ARRAY_LENGTH(wanted); i++) {
        struct error failed = {0};
        if (!list_has(base, "cgroup.controllers", wanted[i]) ||
            list_has(base, "cgroup.subtree_control", wanted[i]))
            continue;
        if (switch_controller(base, '+', wanted[i], &failed) < 0) {
            /* EBUSY: the cgroup still holds processes. */
            if (failed.sys_errno == EBUSY && !cgroup->moved &&
                make_leaf_and_move(cgroup, base, err) < 0)
                return -1;
            if (switch_controller(base, '+', wanted[i], err) < 0)
                return error_wrap(err, "cgroup controller %s", wanted[i]);
        }
    }
    return 0;
}

static int layout_v2(struct worker_cgroup *cgroup, struct error *err)
{
    const struct cgroup_hierarchy *v2 = cgroup_hierarchies_find_v2(&cgroup->hierarchies);

    autofree char *base = cgroup_folder(v2, cgroup->base);
    autofree char *folder = base ? string_printf("%s/%s", base, cgroup->folder_name) : NULL;
    if (!folder)
        return error_set(err, ERROR_INTERNAL, "out of memory");
    cgroup->switched_on = read_list(base, "cgroup.subtree_control");
    if (!cgroup->switched_on)
        return error_set(err, ERROR_INTERNAL, "out of memory");
    if (enable_in_base(cgroup, base, err) < 0)
        return -1;
    if (mkdir(folder, 0755) < 0 && errno != EEXIST)
        return error_set_errno(err, ERROR_UNAVAILABLE, errno, "make the cgroup %s", folder);
    for (size_t i = 0; i < ARRAY_LENGTH(wanted); i++)
        if (list_has(folder, "cgroup.controllers", wanted[i]) &&
            switch_controller(folder, '+', wanted[i], err) < 0)
            return error_wrap(err, "cgroup controller %s", wanted[i]);
    cgroup->support.swap = has_file(folder, "memory.swap.max");
    return 0;
}

/* Switches off what was not on `before`: what this worker needed, and what the OCI runtime added on its way to an instance. The
 * kernel refuses what others still use. */
static void switch_off_since(const char *base, const char *before)
{
    autofree char *now = read_list(base, "cgroup.subtree_control");
    char *rest = NULL;

    for (char *word = now ? strtok_r(now, " \n", &rest) : NULL; word;
         word = strtok_r(NULL, " \n", &rest))
        if (!words_have(before, word, strlen(word)))
            switch_controller(base, '-', word, NULL);
}

/* Gives the base back as it was, as far as nobody else uses it meanwhile. */
static void undo_layout_v2(struct worker_cgroup *cgroup)
{
    const struct cgroup_hierarchy *v2 = cgroup_hierarchies_find_v2(&cgroup->hierarchies);
    autofree char *base = cgroup->base ? cgroup_folder(v2, cgroup->base) : NULL;
    autofree char *leaf = base ? string_printf("%s/" SUPERVISOR, base) : NULL;

    if (!leaf)
        return;
    if (cgroup->switched_on)
        switch_off_since(base, cgroup->switched_on);
    if (cgroup->moved && move_processes(leaf, base, NULL) == 0)
        rmdir(leaf);
}

/* ---- life ---- */

/* <base or own>/faas-<worker>[/instance] in one hierarchy; malloc'd, NULL when this process is not in it. */
static char *folder_in(const struct worker_cgroup *cgroup, const struct cgroup_hierarchy *hierarchy,
                       const char *instance)
{
    bool in_base = hierarchy->v2 && cgroup->base;
    autofree char *own = in_base ? strdup(cgroup->base)
                                 : cgroup_membership_path(cgroup->membership, hierarchy, NULL);
    autofree char *parent = own ? cgroup_folder(hierarchy, own) : NULL;

    if (!parent)
        return NULL;
    return string_printf("%s/%s%s%s", parent, cgroup->folder_name, instance ? "/" : "",
                         instance ? instance : "");
}

/* In turn, because a process that is frozen in one hierarchy keeps the others' folders busy. *ret_left: one that stays. */
static bool try_remove_everywhere(const struct worker_cgroup *cgroup, const char *instance,
                                  char **ret_left)
{
    bool gone = true;

    for (size_t i = 0; i < cgroup->hierarchies.count; i++) {
        char *folder = folder_in(cgroup, &cgroup->hierarchies.items[i], instance);
        if (!folder || cgroup_try_remove(folder)) {
            free(folder);
            continue;
        }
        free(*ret_left);
        *ret_left = folder;
        gone = false;
    }
    return gone;
}

static int remove_everywhere(const struct worker_cgroup *cgroup, const char *instance,
                             struct error *err)
{
    autofree char *left = NULL;

    /* No hierarchy tells everybody when a cgroup has become empty, so this asks again. */
    for (unsigned waited_ms = 0; !try_remove_everywhere(cgroup, instance, &left); waited_ms++) {
        if (waited_ms == REMOVE_TIMEOUT_MS)
            return error_set(err, ERROR_UNAVAILABLE,
                             "the cgroup %s cannot be removed: something in it does not end", left);
        usleep(1000);
    }
    return 0;
}

/* An earlier worker may have been started in another cgroup (another login session): what the OCI runtime deleted its instances
 * from is left there as an empty folder of this worker's name. */
static void remove_husks(const struct worker_cgroup *cgroup)
{
    for (size_t i = 0; i < cgroup->hierarchies.count; i++)
        cgroup_remove_empty(cgroup->hierarchies.items[i].mount, cgroup->folder_name, HUSK_DEPTH);
}

static bool name_valid(const char *name)
{
    size_t len = name ? strlen(name) : 0;

    return len > 0 && len <= WORKER_NAME_MAX && name[0] != '.' &&
           strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.") == len;
}

/* Against the host's other processes all instances together weigh as much as one busy process for each CPU, instead of one in all. */
static int set_weight(const struct worker_cgroup *cgroup, struct error *err)
{
    bool v2 = cgroup->support.version == CGROUP_V2;
    const struct cgroup_hierarchy *hierarchy =
        v2 ? cgroup_hierarchies_find_v2(&cgroup->hierarchies)
           : cgroup_hierarchies_find_v1(&cgroup->hierarchies, "cpu");
    autofree char *folder = hierarchy ? folder_in(cgroup, hierarchy, NULL) : NULL;
    autofree char *path =
        folder ? string_printf("%s/%s", folder, v2 ? "cpu.weight" : "cpu.shares") : NULL;
    int cpus = get_nprocs() < WEIGHT_CPUS_MAX ? get_nprocs() : WEIGHT_CPUS_MAX;
    char weight[32];

    if (!path)
        return 0;
    snprintf(weight, sizeof(weight), "%d", cpus * (v2 ? 100 : 1024));
    if (make_directories(folder, 0755, err) < 0)
        return -1;
    return path_exists(path) ? write_file_value(path, weight, err) : 0;
}

static int open_cgroup(struct worker_cgroup *cgroup, const char *worker, struct error *err)
{
    if (!name_valid(worker))
        return error_set(err, ERROR_INVALID_REQUEST,
                         "\"%.80s\" cannot name a cgroup; use letters, digits, - and _",
                         worker ? worker : "");
    cgroup->folder_name = string_printf("faas-%s", worker);
    if (!cgroup->folder_name)
        return error_set(err, ERROR_INTERNAL, "out of memory");
    if (cgroup_hierarchies_read(&cgroup->hierarchies, err) < 0)
        return -1;
    cgroup->membership = cgroup_membership_read(0, err);
    if (!cgroup->membership)
        return -1;
    detect(&cgroup->hierarchies, cgroup->membership, &cgroup->support);
    bool v2 = cgroup->support.version == CGROUP_V2;
    if (v2) {
        cgroup->base =
            v2_base(cgroup_hierarchies_find_v2(&cgroup->hierarchies), cgroup->membership, err);
        if (!cgroup->base)
            return -1;
    }
    if (remove_everywhere(cgroup, NULL, err) < 0)
        return error_wrap(err, "leftovers of an earlier worker");
    remove_husks(cgroup);
    if (v2 && layout_v2(cgroup, err) < 0)
        return -1;
    return set_weight(cgroup, err);
}

struct worker_cgroup *worker_cgroup_new(const char *worker, struct error *err)
{
    struct worker_cgroup *cgroup = calloc(1, sizeof(*cgroup));

    if (!cgroup) {
        error_set(err, ERROR_INTERNAL, "out of memory");
        return NULL;
    }
    if (open_cgroup(cgroup, worker, err) == 0)
        return cgroup;
    worker_cgroup_free(cgroup);
    return NULL;
}

void worker_cgroup_free(struct worker_cgroup *cgroup)
{
    struct error err = {0};

    if (!cgroup)
        return;
    if (cgroup->membership && remove_everywhere(cgroup, NULL, &err) < 0)
        log_warn("cgroups of the worker are left behind", LOG_ERR(&err));
    if (cgroup->base)
        undo_layout_v2(cgroup);
    cgroup_hierarchies_deinit(&cgroup->hierarchies);
    free(cgroup->membership);
    free(cgroup->folder_name);
    free(cgroup->base);
    free(cgroup->switched_on);
    free(cgroup);
}

const struct cgroup_support *worker_cgroup_support(const struct worker_cgroup *cgroup)
{
    return &cgroup->support;
}

char *worker_cgroup_path(const struct worker_cgroup *cgroup, const char *instance)
{
    if (!cgroup->base)
        return string_printf("%s/%s", cgroup->folder_name, instance);
    return string_printf("%s/%s/%s", cgroup->base[1] ? cgroup->base : "", cgroup->folder_name,
                         instance);
}

int worker_cgroup_prepare(struct worker_cgroup *cgroup, const char *instance, int64_t memory_bytes,
                          struct error *err)
{
    const struct cgroup_hierarchy *memory =
        cgroup_hierarchies_find_v1(&cgroup->hierarchies, "memory");

    if (cgroup->support.version != CGROUP_V1 || !memory || memory_bytes == 0)
        return 0;
    autofree char *folder = folder_in(cgroup, memory, instance);
    if (!folder)
        return error_set(err, ERROR_INTERNAL, "out of memory");
    if (make_directories(folder, 0755, err) < 0)
        return -1;
    return cgroup_limit_sockets_v1(folder, memory_bytes, err);
}

int worker_cgroup_remove(struct worker_cgroup *cgroup, const char *instance, struct error *err)
{
    if (!name_valid(instance))
        return error_set(err, ERROR_INVALID_REQUEST, "\"%.80s\" names no instance",
                         instance ? instance : "");
    return remove_everywhere(cgroup, instance, err);
}

struct instance_cgroup *instance_cgroup_open(const struct worker_cgroup *cgroup, pid_t pid,
                                             struct error *err)
{
    return instance_cgroup_new(&cgroup->hierarchies, cgroup->folder_name, cgroup->support.version,
                               pid, err);
}
