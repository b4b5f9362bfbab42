/* config.json of an OCI bundle, section by section in the order of the specification. */
#include "oci/runtime_spec.h"

#include "base/json.h"
#include "oci/seccomp.h"

#include <stdio.h>
#include <string.h>

#define NOFILE_DEFAULT 1024
#define CPU_PERIOD_DEFAULT_US 100000

static const char *const no_strings[] = {NULL};

/* Paths below /proc and /sys that tell about the host or act on it; what container engines mask by
 * default. */
static const char *const masked_paths[] = {"/proc/acpi",
                                           "/proc/asound",
                                           "/proc/bus",
                                           "/proc/interrupts",
                                           "/proc/kcore",
                                           "/proc/keys",
                                           "/proc/latency_stats",
                                           "/proc/timer_list",
                                           "/proc/timer_stats",
                                           "/proc/sched_debug",
                                           "/proc/scsi",
                                           "/sys/firmware",
                                           "/sys/devices/virtual/powercap",
                                           NULL};
static const char *const readonly_paths[] = {"/proc/fs", "/proc/irq", "/proc/sys",
                                             "/proc/sysrq-trigger", NULL};

static const char *const proc_options[] = {"nosuid", "noexec", "nodev", NULL};
static const char *const dev_options[] = {"nosuid",   "noexec",   "strictatime",
                                          "mode=755", "size=64k", NULL};

static int check_absolute(const char *path, const char *pointer, struct error *err)
{
    if (path && path[0] != '/')
        return error_set_field(err, ERROR_INVALID_REQUEST, pointer,
                               "\"%s\" must be an absolute path", path);
    return 0;
}

static int check_mount(const struct oci_mount *mount, struct error *err)
{
    if (!mount->destination || !mount->type || !mount->source || mount->source[0] == '\0')
        return error_set_field(err, ERROR_INVALID_REQUEST, "/mounts",
                               "a mount needs a destination, a type and a source");
    return check_absolute(mount->destination, "/mounts", err);
}

static int check_spec(const struct oci_runtime_spec *spec, struct error *err)
{
    if (!spec->rootfs || spec->rootfs[0] == '\0')
        return error_set_field(err, ERROR_INVALID_REQUEST, "/root/path",
                               "no root file system given");
    if (!spec->args || !spec->args[0])
        return error_set_field(err, ERROR_INVALID_REQUEST, "/process/args", "no program given");
    if (check_absolute(spec->cwd, "/process/cwd", err) < 0 ||
        check_absolute(spec->network_namespace, "/linux/namespaces", err) < 0)
        return -1;
    for (size_t i = 0; spec->env && spec->env[i]; i++) {
        const char *equals = strchr(spec->env[i], '=');
        if (!equals || equals == spec->env[i])
            return error_set_field(err, ERROR_INVALID_REQUEST, "/process/env",
                                   "\"%.64s\" is not NAME=value", spec->env[i]);
    }
    for (size_t i = 0; i < spec->mount_count; i++)
        if (check_mount(&spec->mounts[i], err) < 0)
            return -1;
    if (spec->memory_bytes < 0 || spec->cpu_quota_us < 0 || spec->pids < 0 || spec->shm_bytes < 0 ||
        spec->io_bps < 0 || spec->io_iops < 0)
        return error_set_field(err, ERROR_INVALID_REQUEST, "/linux/resources",
                               "a limit must not be negative");
    return 0;
}

static void write_strings(struct json_writer *json, const char *key, const char *const *strings)
{
    json_key(json, key);
    json_array_begin(json);
    for (; *strings; strings++)
        json_write_string(json, *strings);
    json_array_end(json);
}

static void write_rlimit(struct json_writer *json, const char *type, uint64_t limit)
{
    json_object_begin(json);
    json_member_string(json, "type", type);
    json_member_int(json, "hard", (int64_t)limit);
    json_member_int(json, "soft", (int64_t)limit);
    json_object_end(json);
}

static void write_capabilities(struct json_writer *json)
{
    static const char *const sets[] = {"bounding", "effective", "inheritable", "permitted",
                                       "ambient"};

    json_key(json, "capabilities");
    json_object_begin(json);
    for (size_t i = 0; i < sizeof(sets) / sizeof(sets[0]); i++)
        write_strings(json, sets[i], no_strings);
    json_object_end(json);
}

static void write_process(struct json_writer *json, const struct oci_runtime_spec *spec)
{
    json_key(json, "process");
    json_object_begin(json);
    json_member_bool(json, "terminal", false);
    json_key(json, "user");
    json_object_begin(json);
    json_member_int(json, "uid", spec->uid);
    json_member_int(json, "gid", spec->gid);
    json_object_end(json);
    write_strings(json, "args", spec->args);
    write_strings(json, "env", spec->env ? spec->env : no_strings);
    json_member_string(json, "cwd", spec->cwd ? spec->cwd : "/");
    write_capabilities(json);
    json_key(json, "rlimits");
    json_array_begin(json);
    write_rlimit(json, "RLIMIT_NOFILE", spec->nofile ? spec->nofile : NOFILE_DEFAULT);
    write_rlimit(json, "RLIMIT_CORE", 0);
    json_array_end(json);
    json_member_bool(json, "noNewPrivileges", true);
    if (spec->apparmor_profile)
        json_member_string(json, "apparmorProfile", spec->apparmor_profile);
    if (spec->oom_score_adj)
        json_member_int(json, "oomScoreAdj", *spec->oom_score_adj);
    json_object_end(json);
}

static void write_mount(struct json_writer *json, const struct oci_mount *mount)
{
    json_object_begin(json);
    json_member_string(json, "destination", mount->destination);
    json_member_string(json, "type", mount->type);
    json_member_string(json, "source", mount->source);
    if (mount->options)
        write_strings(json, "options", mount->options);
    json_object_end(json);
}

static void write_shm(struct json_writer *json, int64_t bytes)
{
    char size[32];
    const char *const options[] = {"nosuid", "noexec", "nodev", "mode=1777", size, NULL};

    snprintf(size, sizeof(size), "size=%lld", (long long)bytes);
    write_mount(json, &(struct oci_mount){"/dev/shm", "tmpfs", "shm", options});
}

static void write_mounts(struct json_writer *json, const struct oci_runtime_spec *spec)
{
    json_key(json, "mounts");
    json_array_begin(json);
    write_mount(json, &(struct oci_mount){"/proc", "proc", "proc", proc_options});
    write_mount(json, &(struct oci_mount){"/dev", "tmpfs", "tmpfs", dev_options});
    if (spec->shm_bytes > 0)
        write_shm(json, spec->shm_bytes);
    for (size_t i = 0; i < spec->mount_count; i++)
        write_mount(json, &spec->mounts[i]);
    json_array_end(json);
}

static void write_id_mapping(struct json_writer *json, const char *key,
                             const struct oci_runtime_spec *spec)
{
    json_key(json, key);
    json_array_begin(json);
    json_object_begin(json);
    json_member_int(json, "containerID", 0);
    json_member_int(json, "hostID", spec->id_map_host_base);
    json_member_int(json, "size", spec->id_map_size);
    json_object_end(json);
    json_array_end(json);
}

static void write_namespace(struct json_writer *json, const char *type, const char *path)
{
    json_object_begin(json);
    json_member_string(json, "type", type);
    json_member_string(json, "path", path);
    json_object_end(json);
}

static void write_namespaces(struct json_writer *json, const struct oci_runtime_spec *spec)
{
    json_key(json, "namespaces");
    json_array_begin(json);
    write_namespace(json, "pid", NULL);
    write_namespace(json, "mount", NULL);
    write_namespace(json, "ipc", NULL);
    write_namespace(json, "uts", NULL);
    write_namespace(json, "cgroup", NULL);
    write_namespace(json, "network", spec->network_namespace);
    if (spec->id_map_size > 0)
        write_namespace(json, "user", NULL);
    json_array_end(json);
}

static void write_cpu(struct json_writer *json, const struct oci_runtime_spec *spec)
{
    json_key(json, "cpu");
    json_object_begin(json);
    json_member_int(json, "quota", spec->cpu_quota_us);
    json_member_int(json, "period",
                    spec->cpu_period_us ? (int64_t)spec->cpu_period_us : CPU_PERIOD_DEFAULT_US);
    json_object_end(json);
}

static void write_memory(struct json_writer *json, const struct oci_runtime_spec *spec)
{
    json_key(json, "memory");
    json_object_begin(json);
    json_member_int(json, "limit", spec->memory_bytes);
    if (spec->limit_swap)
        json_member_int(json, "swap", spec->memory_bytes);
    json_object_end(json);
}

static void write_throttle(struct json_writer *json, const char *key,
                           const struct oci_runtime_spec *spec, int64_t rate)
{
    if (rate == 0)
        return;
    json_key(json, key);
    json_array_begin(json);
    json_object_begin(json);
    json_member_int(json, "major", spec->io_major);
    json_member_int(json, "minor", spec->io_minor);
    json_member_int(json, "rate", rate);
    json_object_end(json);
    json_array_end(json);
}

static void write_block_io(struct json_writer *json, const struct oci_runtime_spec *spec)
{
    json_key(json, "blockIO");
    json_object_begin(json);
    write_throttle(json, "throttleReadBpsDevice", spec, spec->io_bps);
    write_throttle(json, "throttleWriteBpsDevice", spec, spec->io_bps);
    write_throttle(json, "throttleReadIOPSDevice", spec, spec->io_iops);
    write_throttle(json, "throttleWriteIOPSDevice", spec, spec->io_iops);
    json_object_end(json);
}

static void write_resources(struct json_writer *json, const struct oci_runtime_spec *spec)
{
    json_key(json, "resources");
    json_object_begin(json);
    /* No device at all; the runtime itself adds the harmless ones (null, zero, full, random,
     * urandom, tty). */
    json_key(json, "devices");
    json_array_begin(json);
    json_object_begin(json);
    json_member_bool(json, "allow", false);
    json_member_string(json, "access", "rwm");
    json_object_end(json);
    json_array_end(json);
    if (spec->memory_bytes > 0)
        write_memory(json, spec);
    if (spec->cpu_quota_us > 0)
        write_cpu(json, spec);
    if (spec->pids > 0) {
        json_key(json, "pids");
        json_object_begin(json);
        json_member_int(json, "limit", spec->pids);
        json_object_end(json);
    }
    if (spec->io_bps > 0 || spec->io_iops > 0)
        write_block_io(json, spec);
    json_object_end(json);
}

static void write_linux(struct json_writer *json, const struct oci_runtime_spec *spec)
{
    json_key(json, "linux");
    json_object_begin(json);
    if (spec->id_map_size > 0) {
        write_id_mapping(json, "uidMappings", spec);
        write_id_mapping(json, "gidMappings", spec);
    }
    write_namespaces(json, spec);
    json_member_string(json, "cgroupsPath", spec->cgroups_path);
    write_resources(json, spec);
    if (spec->seccomp) {
        json_key(json, "seccomp");
        oci_seccomp_write(json);
    }
    json_member_string(json, "rootfsPropagation", spec->rootfs_propagation);
    write_strings(json, "maskedPaths", masked_paths);
    write_strings(json, "readonlyPaths", readonly_paths);
    json_object_end(json);
}

static void write_annotations(struct json_writer *json, const struct oci_runtime_spec *spec)
{
    if (spec->annotation_count == 0)
        return;
    json_key(json, "annotations");
    json_object_begin(json);
    for (size_t i = 0; i < spec->annotation_count; i++)
        json_member_string(json, spec->annotations[i].key, spec->annotations[i].value);
    json_object_end(json);
}

int oci_runtime_spec_write(const struct oci_runtime_spec *spec, struct buffer *out,
                           struct error *err)
{
    if (check_spec(spec, err) < 0)
        return error_wrap(err, "runtime spec");

    struct json_writer *json = json_writer_new(out);
    if (!json)
        return error_set(err, ERROR_INTERNAL, "runtime spec: out of memory");
    json_object_begin(json);
    json_member_string(json, "ociVersion", OCI_SPEC_VERSION);
    json_key(json, "root");
    json_object_begin(json);
    json_member_string(json, "path", spec->rootfs);
    json_member_bool(json, "readonly", spec->rootfs_readonly);
    json_object_end(json);
    json_member_string(json, "hostname", spec->hostname);
    write_process(json, spec);
    write_mounts(json, spec);
    write_annotations(json, spec);
    write_linux(json, spec);
    json_object_end(json);
    if (json_writer_finish(json, err) < 0)
        return error_wrap(err, "runtime spec");
    return 0;
}
