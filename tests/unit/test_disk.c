/* Which disk limits of I/O are of, and the line that v2 is told. */
#include "base/cleanup.h"
#include "base/file.h"
#include "base/text.h"
#include "worker/cgroup_instance.h"
#include "worker/disk.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

static char sysfs[64];

static void put(const char *path, const char *text)
{
    autofree char *whole = string_printf("%s/%s", sysfs, path);
    cr_assert_eq(write_file_atomic(whole, text, strlen(text), 0644, false, NULL), 0, "%s", whole);
}

static void folder(const char *path)
{
    autofree char *whole = string_printf("%s/%s", sysfs, path);
    cr_assert_eq(make_directories(whole, 0755, NULL), 0, "%s", whole);
}

static void point(const char *target, const char *path)
{
    autofree char *whole = string_printf("%s/%s", sysfs, path);
    cr_assert_eq(symlink(target, whole), 0, "%s", whole);
}

/* A disk with a partition, as /sys has them. */
static void set_up(void)
{
    strcpy(sysfs, "/tmp/test-disk-XXXXXX");
    cr_assert_not_null(mkdtemp(sysfs));
    folder("dev/block");
    folder("devices/pci/block/sda/sda2");
    put("devices/pci/block/sda/dev", "8:0\n");
    put("devices/pci/block/sda/sda2/dev", "8:2\n");
    put("devices/pci/block/sda/sda2/partition", "2\n");
    point("../../devices/pci/block/sda", "dev/block/8:0");
    point("../../devices/pci/block/sda/sda2", "dev/block/8:2");
}

static void tear_down(void)
{
    remove_tree(sysfs, NULL);
}

TestSuite(disk, .init = set_up, .fini = tear_down);

static void expect_whole(unsigned major, unsigned minor)
{
    struct disk disk = {0};
    struct error err = {0};
    cr_assert_eq(disk_whole(sysfs, (struct disk){major, minor}, &disk, &err), 0, "%s", err.message);
    cr_expect_eq(disk.major, 8);
    cr_expect_eq(disk.minor, 0);
}

Test(disk, a_partitions_disk_is_found_and_a_disk_is_its_own)
{
    expect_whole(8, 2);
    expect_whole(8, 0);
}

Test(disk, what_is_no_block_device_is_refused)
{
    struct disk disk = {7, 7};
    struct error err = {0};
    cr_expect_eq(disk_whole(sysfs, (struct disk){0, 45}, &disk, &err), -1);
    cr_expect_eq(err.code, ERROR_UNAVAILABLE);
    put("devices/pci/block/sda/dev", "none\n");
    cr_expect_eq(disk_whole(sysfs, (struct disk){8, 2}, &disk, &err), -1);
    cr_expect_eq(disk.major, 7, "nothing is told after a failure");
    cr_expect_eq(disk_find("/proc", &disk, &err), -1, "it is in memory");
    cr_expect_eq(err.code, ERROR_UNAVAILABLE);
}

Test(disk, of_a_folder_that_is_not_there_the_nearest_above_it_counts)
{
    struct disk here = {0}, below = {0};
    autofree char *path = string_printf("%s/not/there/yet", sysfs);
    struct error err = {0};
    int rc = disk_find(sysfs, &here, &err);
    cr_expect_eq(disk_find(path, &below, &err), rc, "%s", err.message);
    cr_expect_eq(below.major, here.major);
    cr_expect_eq(below.minor, here.minor);
}

static void expect_io_max(int64_t bps, int64_t iops, const char *expected)
{
    struct cgroup_limits limits = {.disk = {254, 16}, .io_bps = bps, .io_iops = iops};
    char line[CGROUP_IO_MAX_SIZE];
    cgroup_io_max_v2(&limits, line);
    cr_expect_str_eq(line, expected);
}

Test(disk, v2_is_told_of_each_rate_and_of_none)
{
    expect_io_max(1048576, 50, "254:16 rbps=1048576 wbps=1048576 riops=50 wiops=50");
    expect_io_max(INT64_MAX, 0,
                  "254:16 rbps=9223372036854775807 wbps=9223372036854775807 riops=max wiops=max");
    expect_io_max(0, 0, "254:16 rbps=max wbps=max riops=max wiops=max");
}
