/* Texts of the host that the worker reads: mountinfo, then (behind a NUL) /proc/PID/cgroup, when the first byte is even; else a
 * resolv.conf. What was found lies within them, and reading what a container is given finds the same again. */
#include "base/cleanup.h"
#include "worker/cgroup_hierarchy.h"
#include "worker/network.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool condition)
{
    if (!condition)
        abort();
}

static void find_cgroup(const struct cgroup_hierarchy *hierarchy, const char *membership)
{
    struct error err = {0};
    autofree char *path = cgroup_membership_path(membership, hierarchy, &err);
    if (!path) {
        require(err.code == ERROR_NOT_FOUND);
        return;
    }
    require(!strchr(path, '\n') && strstr(membership, path));
    autofree char *folder = cgroup_folder(hierarchy, path);
    require(folder && strncmp(folder, hierarchy->mount, strlen(hierarchy->mount)) == 0);
}

static void try_mounts(const char *mountinfo, const char *membership)
{
    with_cleanup(cgroup_hierarchies_deinit) struct cgroup_hierarchies all = {0};
    require(cgroup_hierarchies_parse(mountinfo, &all, NULL) == 0);
    require(all.count <= CGROUP_HIERARCHIES_MAX);
    for (size_t i = 0; i < all.count; i++) {
        require(strlen(all.items[i].mount) + strlen(all.items[i].root) <= strlen(mountinfo));
        find_cgroup(&all.items[i], membership);
    }
    cgroup_hierarchies_find_v1(&all, "memory");
    cgroup_hierarchies_find_v2(&all);
}

static void try_resolv_conf(char *text, size_t len)
{
    with_cleanup(buffer_deinit) struct buffer once = BUFFER_INIT(len + 16);
    with_cleanup(buffer_deinit) struct buffer twice = BUFFER_INIT(len + 16);
    struct name_servers first = {0}, second = {0};
    require(network_copy_resolv_conf(text, &once, &first, NULL) == 0);
    require(first.count <= NAME_SERVERS_MAX);
    autofree char *copy = strdup(once.data ? once.data : "");
    require(copy && network_copy_resolv_conf(copy, &twice, &second, NULL) == 0);
    require(once.len == twice.len && memcmp(&first, &second, sizeof(first)) == 0);
    require(once.len == 0 || memcmp(once.data, twice.data, once.len) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    size_t len = size - 1;
    autofree char *text = malloc(len + 2);
    if (!text)
        return 0;
    memcpy(text, data + 1, len);
    text[len] = text[len + 1] = '\0';
    size_t first = strlen(text);
    if (data[0] % 2 == 1)
        try_resolv_conf(text, len);
    else
        try_mounts(text, first < len ? text + first + 1 : "");
    return 0;
}
