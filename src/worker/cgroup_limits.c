/* Other limits for an instance that runs: the same files with the same values as the OCI runtime writes at a start. */
#include "base/cleanup.h"
#include "base/file.h"
#include "base/text.h"
#include "worker/cgroup_instance.h"

#include <stdio.h>

#define CPU_PERIOD_US 100000
/* v1 counts socket buffers by themselves: this part of the memory may be in them, on top of it. */
#define SOCKET_SHARE 4
#define SOCKET_BYTES_MIN (4 << 20)

static int write_limit(const char *folder, const char *file, const char *value, struct error *err)
{
    autofree char *path = folder ? string_printf("%s/%s", folder, file) : NULL;
    if (!path)
        return error_set(err, ERROR_INTERNAL, "no folder for %s", file);
    return write_file_value(path, value, err);
}

static int write_number(const char *folder, const char *file, int64_t value, struct error *err)
{
    char text[32];
    snprintf(text, sizeof(text), "%lld", (long long)value);
    return write_limit(folder, file, text, err);
}

int cgroup_limit_sockets_v1(const char *folder, int64_t memory_bytes, struct error *err)
{
    static const char file[] = "memory.kmem.tcp.limit_in_bytes";
    int64_t limit = memory_bytes / SOCKET_SHARE;
    autofree char *path = string_printf("%s/%s", folder, file);

    if (!path || !path_exists(path))
        return path ? 0 : error_set(err, ERROR_INTERNAL, "out of memory");
    return write_number(folder, file, limit > SOCKET_BYTES_MIN ? limit : SOCKET_BYTES_MIN, err);
}

/* v1 refuses a limit of memory and swap below that of memory alone, at every moment. */
static int limit_memory_v1(const char *folder, const struct cgroup_limits *from,
                           const struct cgroup_limits *to, struct error *err)
{
    static const char memory[] = "memory.limit_in_bytes", swap[] = "memory.memsw.limit_in_bytes";
    bool grows = to->memory_bytes > from->memory_bytes;
    if (to->limit_swap && grows && write_number(folder, swap, to->memory_bytes, err) < 0)
        return -1;
    if (write_number(folder, memory, to->memory_bytes, err) < 0 ||
        cgroup_limit_sockets_v1(folder, to->memory_bytes, err) < 0)
        return -1;
    if (to->limit_swap && !grows && write_number(folder, swap, to->memory_bytes, err) < 0)
        return -1;
    return 0;
}

/* A kernel that is given less than is used kills (v2) or takes long to refuse (v1). */
static int limit_memory(struct instance_cgroup *instance, const struct cgroup_limits *from,
                        const struct cgroup_limits *to, struct error *err)
{
    struct instance_stats stats;
    autofree char *folder = instance_cgroup_folder(instance, "memory");
    if (to->memory_bytes < from->memory_bytes && (instance_cgroup_read(instance, &stats, err) < 0 ||
                                                  stats.memory_bytes > (uint64_t)to->memory_bytes))
        return error_set(err, ERROR_NO_CAPACITY,
                         "the instance uses more memory already than its function may");
    /* v2 keeps swap apart, where it stays at none. */
    return instance->version == CGROUP_V2
               ? write_number(folder, "memory.max", to->memory_bytes, err)
               : limit_memory_v1(folder, from, to, err);
}

static int limit_cpu(struct instance_cgroup *instance, const struct cgroup_limits *to,
                     struct error *err)
{
    char text[64];
    autofree char *folder = instance_cgroup_folder(instance, "cpu");
    if (instance->version == CGROUP_V1)
        return write_number(folder, "cpu.cfs_quota_us", to->cpu_quota_us, err);
    snprintf(text, sizeof(text), "%lld %d", (long long)to->cpu_quota_us, CPU_PERIOD_US);
    return write_limit(folder, "cpu.max", text, err);
}

int instance_cgroup_weigh(struct instance_cgroup *instance, unsigned parts, struct error *err)
{
    bool v2 = instance->version == CGROUP_V2;
    unsigned weight = (v2 ? 100 : 1024) / parts; /* what the kernel gives at first */
    autofree char *folder = instance_cgroup_folder(instance, "cpu");
    return write_number(folder, v2 ? "cpu.weight" : "cpu.shares", weight > 0 ? weight : 1, err);
}

static int limit_pids(struct instance_cgroup *instance, const struct cgroup_limits *to,
                      struct error *err)
{
    autofree char *folder = instance_cgroup_folder(instance, "pids");
    return write_number(folder, "pids.max", to->pids, err);
}

/* "max" for none. */
static const char *io_rate(int64_t rate, char text[24])
{
    snprintf(text, 24, "%lld", (long long)rate);
    return rate > 0 ? text : "max";
}

void cgroup_io_max_v2(const struct cgroup_limits *limits, char out[CGROUP_IO_MAX_SIZE])
{
    char bytes[24], operations[24];
    const char *bps = io_rate(limits->io_bps, bytes), *iops = io_rate(limits->io_iops, operations);
    snprintf(out, CGROUP_IO_MAX_SIZE, "%u:%u rbps=%s wbps=%s riops=%s wiops=%s", limits->disk.major,
             limits->disk.minor, bps, bps, iops, iops);
}

/* A rate of 0 takes the limit away. */
static int throttle_v1(const char *folder, const char *what, struct disk disk, int64_t rate,
                       struct error *err)
{
    static const char *const ways[] = {"read", "write"};
    char file[64], text[64];
    snprintf(text, sizeof(text), "%u:%u %lld", disk.major, disk.minor, (long long)rate);
    for (int i = 0; i < 2; i++) {
        snprintf(file, sizeof(file), "blkio.throttle.%s_%s_device", ways[i], what);
        if (write_limit(folder, file, text, err) < 0)
            return -1;
    }
    return 0;
}

static int limit_io(struct instance_cgroup *instance, const struct cgroup_limits *from,
                    const struct cgroup_limits *to, struct error *err)
{
    char text[CGROUP_IO_MAX_SIZE];
    bool v2 = instance->version == CGROUP_V2;
    autofree char *folder = instance_cgroup_folder(instance, v2 ? "io" : "blkio");
    if (v2) {
        cgroup_io_max_v2(to, text);
        return write_limit(folder, "io.max", text, err);
    }
    if (to->io_bps != from->io_bps && throttle_v1(folder, "bps", to->disk, to->io_bps, err) < 0)
        return -1;
    if (to->io_iops != from->io_iops)
        return throttle_v1(folder, "iops", to->disk, to->io_iops, err);
    return 0;
}

int instance_cgroup_limit(struct instance_cgroup *instance, const struct cgroup_limits *from,
                          const struct cgroup_limits *to, struct error *err)
{
    if (to->memory_bytes != from->memory_bytes && limit_memory(instance, from, to, err) < 0)
        return error_wrap(err, "memory limit");
    if (to->cpu_quota_us != from->cpu_quota_us && limit_cpu(instance, to, err) < 0)
        return error_wrap(err, "CPU limit");
    if (to->pids != from->pids && limit_pids(instance, to, err) < 0)
        return error_wrap(err, "limit of processes");
    if ((to->io_bps != from->io_bps || to->io_iops != from->io_iops) &&
        limit_io(instance, from, to, err) < 0)
        return error_wrap(err, "I/O limit");
    return 0;
}
