/* Reading mountinfo and /proc/<pid>/cgroup, and the removal of cgroup folders with what runs in
 * them. */
#include "worker/cgroup_hierarchy.h"

#include "base/buffer.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "base/text.h"

#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define PROC_TEXT_MAX (4u * 1024 * 1024)
#define TREE_DEPTH_MAX 8

/* ---- mountinfo ---- */

static bool is_octal(char digit)
{
    return digit >= '0' && digit <= '7';
}

/* mountinfo writes space, tab, newline and backslash as \ooo. */
static void unescape(char *text)
{
    char *to = text;

    for (const char *from = text; *from;) {
        if (from[0] == '\\' && is_octal(from[1]) && is_octal(from[2]) && is_octal(from[3])) {
            *to++ = (char)((from[1] - '0') << 6 | (from[2] - '0') << 3 | (from[3] - '0'));
            from += 4;
        } else {
            *to++ = *from++;
        }
    }
    *to = '\0';
}

struct mount_line {
    char *root, *mount, *type, *options; /* borrowed from the line */
};

/* "36 35 98:0 ROOT MOUNT options optional... - TYPE source SUPER_OPTIONS"; cuts the line into
 * strings. */
static bool split_mount_line(char *line, struct mount_line *ret)
{
    char *fields[64];
    size_t count = 0, dash = 0;
    char *rest = NULL;

    for (char *field = strtok_r(line, " ", &rest); field && count < ARRAY_LENGTH(fields);
         field = strtok_r(NULL, " ", &rest)) {
        if (dash == 0 && count >= 6 && strcmp(field, "-") == 0)
            dash = count;
        fields[count++] = field;
    }
    if (dash == 0 || dash + 3 >= count)
        return false;
    *ret = (struct mount_line){fields[3], fields[4], fields[dash + 1], fields[dash + 3]};
    unescape(ret->root);
    unescape(ret->mount);
    return true;
}

static void hierarchy_deinit(struct cgroup_hierarchy *hierarchy)
{
    free(hierarchy->mount);
    free(hierarchy->root);
    free(hierarchy->controllers);
    *hierarchy = (struct cgroup_hierarchy){0};
}

void cgroup_hierarchies_deinit(struct cgroup_hierarchies *hierarchies)
{
    for (size_t i = 0; i < hierarchies->count; i++)
        hierarchy_deinit(&hierarchies->items[i]);
    hierarchies->count = 0;
}

/* A hierarchy mounted twice is taken where it is seen first: /sys/fs/cgroup comes before what
 * containers mount. */
static bool is_known(const struct cgroup_hierarchies *all, const struct cgroup_hierarchy *one)
{
    for (size_t i = 0; i < all->count; i++)
        if (all->items[i].v2 == one->v2 && strcmp(all->items[i].controllers, one->controllers) == 0)
            return true;
    return false;
}

static int add_mount(struct cgroup_hierarchies *all, const struct mount_line *line,
                     struct error *err)
{
    bool v2 = strcmp(line->type, "cgroup2") == 0;

    if (!v2 && strcmp(line->type, "cgroup") != 0)
        return 0;
    struct cgroup_hierarchy one = {
        .mount = strdup(line->mount),
        .root = strdup(line->root),
        .controllers = v2 ? strdup("") : string_printf(",%s,", line->options),
        .v2 = v2,
    };
    if (!one.mount || !one.root || !one.controllers) {
        hierarchy_deinit(&one);
        return error_set(err, ERROR_INTERNAL, "out of memory");
    }
    if (all->count == CGROUP_HIERARCHIES_MAX || is_known(all, &one))
        hierarchy_deinit(&one);
    else
        all->items[all->count++] = one;
    return 0;
}

int cgroup_hierarchies_parse(const char *mountinfo, struct cgroup_hierarchies *ret,
                             struct error *err)
{
    autofree char *text = strdup(mountinfo);
    char *rest = NULL;

    *ret = (struct cgroup_hierarchies){0};
    if (!text)
        return error_set(err, ERROR_INTERNAL, "out of memory");
    for (char *line = strtok_r(text, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest)) {
        struct mount_line fields;
        if (split_mount_line(line, &fields) && add_mount(ret, &fields, err) < 0) {
            cgroup_hierarchies_deinit(ret);
            return -1;
        }
    }
    return 0;
}

int cgroup_hierarchies_read(struct cgroup_hierarchies *ret, struct error *err)
{
    with_cleanup(buffer_deinit) struct buffer text = BUFFER_INIT(PROC_TEXT_MAX);

    *ret = (struct cgroup_hierarchies){0};
    if (buffer_read_file(&text, "/proc/self/mountinfo", err) < 0)
        return -1;
    return cgroup_hierarchies_parse(text.data ? text.data : "", ret, err);
}

/* `list` is ",a,b,". */
static bool has_controller(const char *list, const char *controller, size_t len)
{
    for (const char *at = list; len > 0 && (at = strchr(at, ',')); at++)
        if (strncmp(at + 1, controller, len) == 0 && at[1 + len] == ',')
            return true;
    return false;
}

const struct cgroup_hierarchy *
cgroup_hierarchies_find_v1(const struct cgroup_hierarchies *hierarchies, const char *controller)
{
    for (size_t i = 0; i < hierarchies->count; i++)
        if (!hierarchies->items[i].v2 &&
            has_controller(hierarchies->items[i].controllers, controller, strlen(controller)))
            return &hierarchies->items[i];
    return NULL;
}

const struct cgroup_hierarchy *
cgroup_hierarchies_find_v2(const struct cgroup_hierarchies *hierarchies)
{
    for (size_t i = 0; i < hierarchies->count; i++)
        if (hierarchies->items[i].v2)
            return &hierarchies->items[i];
    return NULL;
}

/* ---- /proc/<pid>/cgroup ---- */

char *cgroup_membership_read(int pid, struct error *err)
{
    with_cleanup(buffer_deinit) struct buffer text = BUFFER_INIT(256 * 1024);
    char path[64];

    if (pid)
        snprintf(path, sizeof(path), "/proc/%d/cgroup", pid);
    else
        snprintf(path, sizeof(path), "/proc/self/cgroup");
    if (buffer_read_file(&text, path, err) < 0)
        return NULL;
    char *result = buffer_take(&text, NULL);
    if (!result)
        error_set(err, ERROR_INTERNAL, "out of memory");
    return result;
}

/* Whether "cpu,cpuacct" (or "" for v2) names this hierarchy. */
static bool names_hierarchy(const char *list, size_t len, const struct cgroup_hierarchy *hierarchy)
{
    if (hierarchy->v2)
        return len == 0;
    return has_controller(hierarchy->controllers, list, strcspn(list, ",:"));
}

char *cgroup_membership_path(const char *membership, const struct cgroup_hierarchy *hierarchy,
                             struct error *err)
{
    for (const char *line = membership; *line;) {
        size_t len = strcspn(line, "\n");
        const char *list = memchr(line, ':', len);
        const char *path = list ? memchr(list + 1, ':', len - (size_t)(list + 1 - line)) : NULL;
        if (path && names_hierarchy(list + 1, (size_t)(path - list - 1), hierarchy)) {
            char *copy = strndup(path + 1, len - (size_t)(path + 1 - line));
            if (!copy)
                error_set(err, ERROR_INTERNAL, "out of memory");
            return copy;
        }
        line += len + (line[len] == '\n');
    }
    error_set(err, ERROR_NOT_FOUND, "no cgroup in the hierarchy at %s", hierarchy->mount);
    return NULL;
}

char *cgroup_folder(const struct cgroup_hierarchy *hierarchy, const char *path)
{
    size_t root_len = strlen(hierarchy->root);

    /* Where a container engine mounted only its own part of a v1 hierarchy, the path still names
     * all of it. */
    if (root_len > 1 && strncmp(path, hierarchy->root, root_len) == 0 &&
        (path[root_len] == '/' || path[root_len] == '\0'))
        path += root_len;
    while (*path == '/')
        path++;
    return *path ? string_printf("%s/%s", hierarchy->mount, path) : strdup(hierarchy->mount);
}

/* ---- removal ---- */

int cgroup_kill_members(const char *folder)
{
    with_cleanup(buffer_deinit) struct buffer text = BUFFER_INIT(PROC_TEXT_MAX);
    autofree char *path = string_printf("%s/cgroup.procs", folder);
    int count = 0;

    if (!path || buffer_read_file(&text, path, NULL) < 0)
        return -1;
    for (const char *line = text.data; line && *line;) {
        char *end = NULL;
        long pid = strtol(line, &end, 10);
        if (end == line)
            break;
        if (pid > 1 && pid != getpid()) {
            kill((pid_t)pid, SIGKILL);
            count++;
        }
        line = end + strspn(end, "\n");
    }
    return count;
}

/* A frozen process dies only once it thaws. */
static void thaw(const char *folder)
{
    static const struct {
        const char *file, *value;
    } switches[] = {{"freezer.state", "THAWED"}, {"cgroup.freeze", "0"}};

    for (size_t i = 0; i < ARRAY_LENGTH(switches); i++) {
        autofree char *path = string_printf("%s/%s", folder, switches[i].file);
        if (path && path_exists(path))
            write_file_value(path, switches[i].value, NULL);
    }
}

static bool remove_below(const char *folder, unsigned depth)
{
    DIR *directory = depth < TREE_DEPTH_MAX ? opendir(folder) : NULL;

    if (!directory)
        return depth < TREE_DEPTH_MAX && errno == ENOENT;
    for (struct dirent *entry; (entry = readdir(directory));) {
        if (entry->d_type != DT_DIR || strcmp(entry->d_name, ".") == 0 ||
            strcmp(entry->d_name, "..") == 0)
            continue;
        autofree char *child = string_printf("%s/%s", folder, entry->d_name);
        if (child)
            remove_below(child, depth + 1);
    }
    closedir(directory);
    if (rmdir(folder) == 0 || errno == ENOENT)
        return true;
    cgroup_kill_members(folder);
    thaw(folder);
    return false;
}

bool cgroup_try_remove(const char *folder)
{
    return remove_below(folder, 0);
}

/* A folder of cgroupfs that holds a process cannot be removed, so this harms nobody who is in use. */
static void remove_if_named(const char *folder, const char *entry, const char *name, unsigned depth)
{
    autofree char *child = string_printf("%s/%s", folder, entry);

    if (!child)
        return;
    cgroup_remove_empty(child, name, depth);
    if (strcmp(entry, name) == 0)
        rmdir(child);
}

void cgroup_remove_empty(const char *folder, const char *name, unsigned depth)
{
    DIR *directory = depth > 0 ? opendir(folder) : NULL;

    if (!directory)
        return;
    for (struct dirent *entry; (entry = readdir(directory));)
        if (entry->d_type == DT_DIR && entry->d_name[0] != '.')
            remove_if_named(folder, entry->d_name, name, depth - 1);
    closedir(directory);
}
