/* See folder.h. All names are read before any is used, so that a walk does not hold a second
 * descriptor a level, and the order does not depend on the file system. */
#include "oci/folder.h"

#include "base/cleanup.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>

void folder_names_deinit(struct folder_names *names)
{
    for (size_t i = 0; i < names->count; i++)
        free(names->items[i]);
    free(names->items);
}

static int compare_names(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static int add(struct folder_names *names, const char *name, size_t max, struct error *err)
{
    if (names->count == max)
        return error_set(err, ERROR_PAYLOAD_TOO_LARGE, "a folder holds more than %zu files", max);
    if (names->count == names->cap) {
        size_t cap = names->cap ? 2 * names->cap : 32;
        void *items = reallocarray(names->items, cap, sizeof(*names->items));
        if (!items)
            return error_set(err, ERROR_INTERNAL, "out of memory");
        names->items = items;
        names->cap = cap;
    }
    char *copy = strdup(name);
    if (!copy)
        return error_set(err, ERROR_INTERNAL, "out of memory");
    names->items[names->count++] = copy;
    return 0;
}

static void folder_cleanup(DIR **folder)
{
    if (*folder)
        closedir(*folder);
}

int folder_names_read(struct folder_names *names, int fd, size_t max, struct error *err)
{
    autoclose int own = openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    with_cleanup(folder_cleanup) DIR *folder = own < 0 ? NULL : fdopendir(own);
    if (!folder)
        return error_set_errno(err, ERROR_INTERNAL, errno, "cannot read a folder");
    own = -1; /* closed with the folder */
    for (;;) {
        errno = 0;
        struct dirent *entry = readdir(folder);
        if (!entry && errno)
            return error_set_errno(err, ERROR_INTERNAL, errno, "cannot read a folder");
        if (!entry)
            break;
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        if (add(names, entry->d_name, max, err) < 0)
            return -1;
    }
    if (names->count > 1)
        qsort(names->items, names->count, sizeof(*names->items), compare_names);
    return 0;
}
