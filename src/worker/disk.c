/* From a folder to its file system's device, and from a partition to its disk; see disk.h. */
#include "worker/disk.h"

#include "base/buffer.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "base/text.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

int disk_whole(const char *sysfs, struct disk device, struct disk *ret, struct error *err)
{
    with_cleanup(buffer_deinit) struct buffer text = BUFFER_INIT(64);
    autofree char *folder = string_printf("%s/dev/block/%u:%u", sysfs, device.major, device.minor);
    autofree char *partition = folder ? string_printf("%s/partition", folder) : NULL;
    autofree char *above = folder ? string_printf("%s/../dev", folder) : NULL;
    struct disk found = device;

    if (!partition || !above)
        return error_set(err, ERROR_INTERNAL, "out of memory");
    if (!path_exists(folder))
        return error_set(err, ERROR_UNAVAILABLE, "%u:%u is no block device", device.major,
                         device.minor);
    if (path_exists(partition) && (buffer_read_file(&text, above, err) < 0 || !text.data ||
                                   sscanf(text.data, "%u:%u", &found.major, &found.minor) != 2))
        return error_set(err, ERROR_UNAVAILABLE, "the disk of partition %u:%u cannot be told",
                         device.major, device.minor);
    *ret = found;
    return 0;
}

/* Of the nearest folder that is there. */
static int stat_above(const char *path, struct stat *ret, struct error *err)
{
    autofree char *folder = strdup(path);

    while (folder && stat(folder, ret) < 0) {
        char *slash = strrchr(folder, '/');
        if (errno != ENOENT)
            return error_set_errno(err, ERROR_UNAVAILABLE, errno, "look at %s", path);
        if (!slash || slash == folder)
            strcpy(folder, slash ? "/" : ".");
        else
            *slash = '\0';
    }
    return folder ? 0 : error_set(err, ERROR_INTERNAL, "out of memory");
}

int disk_find(const char *path, struct disk *ret, struct error *err)
{
    struct stat status;

    if (stat_above(path, &status, err) < 0)
        return -1;
    struct disk device = {major(status.st_dev), minor(status.st_dev)};
    if (disk_whole("/sys", device, ret, err) < 0)
        return error_wrap(err, "the file system of %s is on no disk of its own", path);
    return 0;
}
