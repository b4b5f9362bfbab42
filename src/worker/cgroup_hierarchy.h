/* Which control group hierarchies are mounted, and where a process is in each.
 *
 * From /proc/<pid>/mountinfo and /proc/<pid>/cgroup (proc(5), cgroups(7)). A host has one v2
 * hierarchy, or several of v1, or (hybrid) both. Plain data; no thread of its own. */
#pragma once

#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>

#define CGROUP_HIERARCHIES_MAX 24

struct cgroup_hierarchy {
    char *mount;       /* owned: where it is mounted */
    char *root;        /* owned: which of its cgroups is mounted there, usually "/" */
    char *controllers; /* owned: ",cpu,cpuacct," (v1; a named one: ",name=systemd,"), "" for v2 */
    bool v2;
};

struct cgroup_hierarchies {
    struct cgroup_hierarchy items[CGROUP_HIERARCHIES_MAX];
    size_t count;
};

int cgroup_hierarchies_read(struct cgroup_hierarchies *ret, struct error *err);
/* From the text of a mountinfo file. */
int cgroup_hierarchies_parse(const char *mountinfo, struct cgroup_hierarchies *ret,
                             struct error *err);
void cgroup_hierarchies_deinit(struct cgroup_hierarchies *hierarchies);
/* The v1 hierarchy of a controller, or NULL. */
const struct cgroup_hierarchy *
cgroup_hierarchies_find_v1(const struct cgroup_hierarchies *hierarchies, const char *controller);
const struct cgroup_hierarchy *
cgroup_hierarchies_find_v2(const struct cgroup_hierarchies *hierarchies);

/* The text of /proc/<pid>/cgroup (pid 0: this process's own); malloc'd. */
char *cgroup_membership_read(int pid, struct error *err);
/* The path, below the hierarchy's root as this process sees it, of the cgroup that `membership` (a
 * /proc/<pid>/cgroup) tells for `hierarchy`; malloc'd. NULL with ERROR_NOT_FOUND when it tells
 * none. */
char *cgroup_membership_path(const char *membership, const struct cgroup_hierarchy *hierarchy,
                             struct error *err);
/* The folder of the cgroup `path`; malloc'd, NULL when out of memory. */
char *cgroup_folder(const struct cgroup_hierarchy *hierarchy, const char *path);

/* One attempt to remove the cgroup `folder` and those below it; what it cannot remove yet it thaws and kills. True when it is
 * gone (or was not there). A process dies in all its hierarchies at once, so several folders are tried in turn. */
bool cgroup_try_remove(const char *folder);
/* Removes cgroups named `name` without processes and children, at most `depth` levels below `folder`. */
void cgroup_remove_empty(const char *folder, const char *name, unsigned depth);
/* One round of SIGKILL to the processes of `folder` (not below); returns how many there were, or -1
 * (folder unreadable). */
int cgroup_kill_members(const char *folder);
