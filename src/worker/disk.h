/* Which disk a folder is on, as cgroup limits of I/O name it: a whole one, by its device numbers (kernel documents:
 * admin-guide/cgroup-v2, "io.max"; ABI/testing/sysfs-class-block).
 *
 * Blocks, on files of /sys and on the folder. */
#pragma once

#include "base/error.h"

struct disk {
    unsigned major, minor;
};

/* Of the folder `path`, or of the nearest one above it that is there. ERROR_UNAVAILABLE when that is on no block device that can be
 * told: in memory, on a network, or on a file system with several devices (btrfs, ZFS, overlay). */
int disk_find(const char *path, struct disk *ret, struct error *err);
/* The whole disk that a device is, or is a partition of. `sysfs`: where that is mounted. */
int disk_whole(const char *sysfs, struct disk device, struct disk *ret, struct error *err);
