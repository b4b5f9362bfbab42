/* Reading an instance's cgroup through descriptors that stay open: a table says which file tells
 * which number. */
#include "worker/cgroup_instance.h"

#include "base/cleanup.h"
#include "base/file.h"
#include "base/text.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define KILL_ROUNDS 8

struct cgroup_source_info {
    const char *controller; /* v1 hierarchy */
    const char *file;
    const char *key; /* the line that begins with it; NULL: the file is one number */
    uint64_t factor; /* to the unit of struct instance_stats */
    bool writable;
};

static const struct cgroup_source_info sources_v1[CGROUP_SOURCE_COUNT] = {
    [MEMORY_PEAK] = {"memory", "memory.max_usage_in_bytes", NULL, 1, true},
    [MEMORY_NOW] = {"memory", "memory.usage_in_bytes", NULL, 1, false},
    [CPU_TIME] = {"cpuacct", "cpuacct.usage", NULL, 1, false},
    [OOM_EVENTS] = {"memory", "memory.oom_control", "oom_kill ", 1, false},
    [PIDS_EVENTS] = {"pids", "pids.events", "max ", 1, false},
};

static const struct cgroup_source_info sources_v2[CGROUP_SOURCE_COUNT] = {
    [MEMORY_PEAK] = {NULL, "memory.peak", NULL, 1, true},
    [MEMORY_NOW] = {NULL, "memory.current", NULL, 1, false},
    [CPU_TIME] = {NULL, "cpu.stat", "usage_usec ", 1000, false},
    [OOM_EVENTS] = {NULL, "memory.events", "oom_kill ", 1, false},
    [PIDS_EVENTS] = {NULL, "pids.events", "max ", 1, false},
};

/* Whether `path` ends with /OWNER/<instance>. */
static bool is_own(const char *path, const char *owner)
{
    const char *instance = strrchr(path, '/');
    size_t len = strlen(owner);

    return instance && instance[1] && (size_t)(instance - path) > len &&
           instance[-1 - (ptrdiff_t)len] == '/' && memcmp(instance - len, owner, len) == 0;
}

char *instance_cgroup_folder(const struct instance_cgroup *instance, const char *controller)
{
    const struct cgroup_hierarchy *hierarchy =
        instance->version == CGROUP_V2
            ? cgroup_hierarchies_find_v2(instance->hierarchies)
            : cgroup_hierarchies_find_v1(instance->hierarchies, controller);
    autofree char *path =
        hierarchy ? cgroup_membership_path(instance->membership, hierarchy, NULL) : NULL;

    return path && is_own(path, instance->owner) ? cgroup_folder(hierarchy, path) : NULL;
}

static int open_in(const char *folder, const char *file, int flags)
{
    autofree char *path = string_printf("%s/%s", folder, file);

    return path ? open(path, flags | O_CLOEXEC) : -1;
}

static void open_source(struct instance_cgroup *instance, enum cgroup_source source,
                        const char *folder)
{
    const struct cgroup_source_info *info = &instance->sources[source];
    int fd = info->writable ? open_in(folder, info->file, O_RDWR) : -1;

    /* memory.peak of a kernel before 6.12 can only be read. */
    if (source == MEMORY_PEAK)
        instance->peak_writable = fd >= 0;
    instance->fds[source] = fd >= 0 ? fd : open_in(folder, info->file, O_RDONLY);
}

static const char *last_part(const char *path)
{
    const char *slash = strrchr(path, '/');

    return slash ? slash + 1 : path;
}

/* Only when the instance has a cgroup of its own there: whoever shares it would be stopped too. */
static int open_freezer(const struct instance_cgroup *instance)
{
    if (instance->version == CGROUP_V2)
        return open_in(instance->members, "cgroup.freeze", O_WRONLY);
    autofree char *folder = instance_cgroup_folder(instance, "freezer");
    if (!folder || strcmp(last_part(folder), last_part(instance->members)) != 0)
        return -1;
    return open_in(folder, "freezer.state", O_WRONLY);
}

/* In the hierarchy of any controller: its processes are the same in all. */
static char *find_members(const struct instance_cgroup *instance)
{
    static const char *const controllers[] = {"memory", "pids", "cpu"};
    char *folder = NULL;

    for (size_t i = 0; !folder && i < ARRAY_LENGTH(controllers); i++)
        folder = instance_cgroup_folder(instance, controllers[i]);
    return folder;
}

static int open_all(struct instance_cgroup *instance, pid_t pid, struct error *err)
{
    instance->membership = cgroup_membership_read(pid, err);
    if (!instance->membership)
        return -1;
    for (int i = 0; i < CGROUP_SOURCE_COUNT; i++) {
        autofree char *folder = instance_cgroup_folder(instance, instance->sources[i].controller);
        if (folder)
            open_source(instance, i, folder);
    }
    instance->members = find_members(instance);
    if (!instance->members)
        return error_set(err, ERROR_NOT_FOUND,
                         "process %d is in no cgroup of its own with a limit (or has ended)",
                         (int)pid);
    instance->kill_fd =
        instance->version == CGROUP_V2 ? open_in(instance->members, "cgroup.kill", O_WRONLY) : -1;
    instance->freeze_fd = open_freezer(instance);
    return 0;
}

struct instance_cgroup *instance_cgroup_new(const struct cgroup_hierarchies *hierarchies,
                                            const char *owner, enum cgroup_version version,
                                            pid_t pid, struct error *err)
{
    struct instance_cgroup *instance = calloc(1, sizeof(*instance));

    if (!instance) {
        error_set(err, ERROR_INTERNAL, "out of memory");
        return NULL;
    }
    instance->hierarchies = hierarchies;
    instance->owner = owner;
    instance->version = version;
    instance->sources = version == CGROUP_V2 ? sources_v2 : sources_v1;
    instance->kill_fd = instance->freeze_fd = -1;
    for (int i = 0; i < CGROUP_SOURCE_COUNT; i++)
        instance->fds[i] = -1;
    if (open_all(instance, pid, err) == 0)
        return instance;
    error_wrap(err, "cgroup of process %d", (int)pid);
    instance_cgroup_close(instance);
    return NULL;
}

void instance_cgroup_close(struct instance_cgroup *instance)
{
    if (!instance)
        return;
    for (int i = 0; i < CGROUP_SOURCE_COUNT; i++)
        if (instance->fds[i] >= 0)
            close(instance->fds[i]);
    if (instance->kill_fd >= 0)
        close(instance->kill_fd);
    if (instance->freeze_fd >= 0)
        close(instance->freeze_fd);
    free(instance->members);
    free(instance->membership);
    free(instance);
}

/* The number on the line that begins with `key`, or at the beginning. */
static uint64_t find_number(const char *text, const char *key)
{
    if (!key)
        return strtoull(text, NULL, 10);
    for (const char *line = text; *line;) {
        if (strncmp(line, key, strlen(key)) == 0)
            return strtoull(line + strlen(key), NULL, 10);
        line += strcspn(line, "\n");
        line += *line == '\n';
    }
    return 0;
}

static int read_source(const struct instance_cgroup *instance, enum cgroup_source source,
                       uint64_t *ret, struct error *err)
{
    const struct cgroup_source_info *info = &instance->sources[source];
    char text[2048];

    *ret = 0;
    if (instance->fds[source] < 0)
        return 0;
    ssize_t len = pread(instance->fds[source], text, sizeof(text) - 1, 0);
    if (len < 0)
        return error_set_errno(err, errno == ENODEV ? ERROR_NOT_FOUND : ERROR_INTERNAL, errno,
                               "read %s", info->file);
    text[len] = '\0';
    *ret = find_number(text, info->key) * info->factor;
    return 0;
}

/* Those of `sources`, a bit each; the others are 0. */
static int read_sources(struct instance_cgroup *instance, unsigned sources,
                        struct instance_stats *ret, struct error *err)
{
    uint64_t numbers[CGROUP_SOURCE_COUNT] = {0};

    for (int i = 0; i < CGROUP_SOURCE_COUNT; i++)
        if ((sources & 1U << i) && read_source(instance, i, &numbers[i], err) < 0)
            return -1;
    *ret = (struct instance_stats){
        .memory_peak_bytes = numbers[MEMORY_PEAK],
        .memory_bytes = numbers[MEMORY_NOW],
        .cpu_time_ns = numbers[CPU_TIME],
        .oom_kills = numbers[OOM_EVENTS],
        .pids_max_events = numbers[PIDS_EVENTS],
    };
    return 0;
}

int instance_cgroup_read(struct instance_cgroup *instance, struct instance_stats *ret,
                         struct error *err)
{
    return read_sources(instance, ~0U, ret, err);
}

int instance_cgroup_read_call(struct instance_cgroup *instance, struct instance_stats *ret,
                              struct error *err)
{
    return read_sources(instance, 1U << MEMORY_PEAK | 1U << CPU_TIME | 1U << OOM_EVENTS, ret, err);
}

int instance_cgroup_reset_peak(struct instance_cgroup *instance, struct error *err)
{
    if (!instance->peak_writable)
        return error_set(err, ERROR_UNAVAILABLE, "this kernel cannot reset a cgroup's memory peak");
    if (pwrite(instance->fds[MEMORY_PEAK], "0", 1, 0) < 0)
        return error_set_errno(err, ERROR_UNAVAILABLE, errno, "reset the memory peak");
    return 0;
}

static int set_frozen(struct instance_cgroup *instance, bool frozen, struct error *err)
{
    const char *word =
        instance->version == CGROUP_V2 ? (frozen ? "1" : "0") : (frozen ? "FROZEN" : "THAWED");

    if (instance->frozen == frozen)
        return 0;
    if (instance->freeze_fd < 0)
        return error_set(err, ERROR_UNAVAILABLE, "this instance has no freezer cgroup of its own");
    if (pwrite(instance->freeze_fd, word, strlen(word), 0) < 0)
        return error_set_errno(err, ERROR_UNAVAILABLE, errno, "%s an instance's cgroup",
                               frozen ? "freeze" : "thaw");
    instance->frozen = frozen;
    return 0;
}

int instance_cgroup_freeze(struct instance_cgroup *instance, struct error *err)
{
    return set_frozen(instance, true, err);
}

int instance_cgroup_thaw(struct instance_cgroup *instance, struct error *err)
{
    return set_frozen(instance, false, err);
}

/* SIGKILL to what is in the cgroup, until nothing is or it has been tried often enough. */
static int kill_members(const struct instance_cgroup *instance, struct error *err)
{
    for (int round = 0; round < KILL_ROUNDS; round++) {
        int count = cgroup_kill_members(instance->members);
        if (count == 0)
            return 0;
        if (count < 0)
            return !path_exists(instance->members)
                       ? 0
                       : error_set(err, ERROR_UNAVAILABLE, "read the processes of %s",
                                   instance->members);
    }
    return 0;
}

int instance_cgroup_kill(struct instance_cgroup *instance, struct error *err)
{
    if (instance->kill_fd >= 0 && pwrite(instance->kill_fd, "1", 1, 0) == 1)
        return 0;
    int outcome = kill_members(instance, err);
    /* A frozen process of v1 takes its signals when it is thawed; with the cgroup gone that is void. */
    instance_cgroup_thaw(instance, NULL);
    return outcome;
}
