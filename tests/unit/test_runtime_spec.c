/* config.json as the writer makes it: against the specification's own schema, and member by member. */
#include "base/cleanup.h"
#include "base/file.h"
#include "base/json.h"
#include "base/spawn.h"
#include "base/text.h"
#include "oci/runtime_spec.h"
#include "oci/seccomp.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define SCHEMA_FOLDER "/usr/share/gocode/src/github.com/opencontainers/runtime-spec/schema"

static const char *const args[] = {"/.faas/init", "exec", "--", "/app/function/bootstrap", NULL};
static const char *const env[] = {"PATH=/usr/bin:/bin", "GREETING=hello = world", NULL};
static const char *const bind_options[] = {"bind", "ro", "nosuid", "nodev", NULL};
static const char *const tmpfs_options[] = {"nosuid", "nodev", "size=64m", "mode=1777", NULL};
static const struct oci_mount mounts[] = {
    {"/app/function", "bind", "/var/lib/faas/worker/code/x", bind_options},
    {"/tmp", "tmpfs", "tmpfs", tmpfs_options},
};
static const struct oci_annotation annotations[] = {{"faas.function", "hello"}};
static const int oom_score_adj = 500;

static struct oci_runtime_spec minimal_spec(void)
{
    return (struct oci_runtime_spec){.rootfs = "/images/rootfs", .args = args};
}

static struct oci_runtime_spec full_spec(void)
{
    return (struct oci_runtime_spec){
        .rootfs = "/images/rootfs",
        .rootfs_readonly = true,
        .args = args,
        .env = env,
        .cwd = "/app/function",
        .uid = 1000,
        .gid = 1000,
        .hostname = "hello",
        .mounts = mounts,
        .mount_count = ARRAY_LENGTH(mounts),
        .shm_bytes = 16 << 20,
        .memory_bytes = 128 << 20,
        .limit_swap = true,
        .cpu_quota_us = 50000,
        .pids = 64,
        .io_major = 254,
        .io_minor = 16,
        .io_bps = 5000000000,
        .io_iops = 200,
        .cgroups_path = "faas-w/i1",
        .nofile = 4096,
        .oom_score_adj = &oom_score_adj,
        .network_namespace = "/run/faas/w/netns/n1",
        .apparmor_profile = "faas-test",
        .id_map_host_base = 0x20000000,
        .id_map_size = 65536,
        .seccomp = true,
        .rootfs_propagation = "slave",
        .annotations = annotations,
        .annotation_count = ARRAY_LENGTH(annotations),
    };
}

static struct json *write_and_parse(const struct oci_runtime_spec *spec)
{
    with_cleanup(buffer_deinit) struct buffer text = BUFFER_INIT(OCI_CONFIG_MAX_BYTES);
    struct error err = {0};

    cr_assert_eq(oci_runtime_spec_write(spec, &text, &err), 0, "%s", err.message);
    struct json *root = json_parse(text.data, text.len, NULL, &err);
    cr_assert_not_null(root, "%s", err.message);
    return root;
}

/* Walks "a/b/0/c". */
static const struct json *at(const struct json *value, const char *path)
{
    autofree char *copy = strdup(path);
    char *rest = NULL;

    for (char *step = strtok_r(copy, "/", &rest); step; step = strtok_r(NULL, "/", &rest))
        value = json_type(value) == JSON_ARRAY ? json_at(value, (size_t)atoi(step))
                                               : json_get(value, step);
    return value;
}

/* ---- the specification's schema ---- */

static void expect_valid(const struct oci_runtime_spec *spec)
{
    with_cleanup(buffer_deinit) struct buffer text = BUFFER_INIT(OCI_CONFIG_MAX_BYTES);
    with_cleanup(spawn_result_deinit) struct spawn_result result = {0};
    char path[] = "/tmp/faas-config-XXXXXX";
    const char *const argv[] = {
        "/usr/bin/python3", "-W", "ignore", TEST_SOURCE_DIR "/tests/schema/validate_oci_config.py",
        SCHEMA_FOLDER,      path, NULL};
    struct error err = {0};

    if (!path_exists(SCHEMA_FOLDER))
        cr_skip_test("the package golang-github-opencontainers-specs-dev is not installed");
    cr_assert_eq(oci_runtime_spec_write(spec, &text, &err), 0, "%s", err.message);
    int fd = mkstemp(path);
    cr_assert_eq(write(fd, text.data, text.len), (ssize_t)text.len);
    close(fd);
    int failed =
        spawn_run(&(struct spawn_options){.argv = argv, .timeout_ms = 60000, .output_max = 65536},
                  &result, &err);
    unlink(path);
    cr_assert_eq(failed, 0, "%s", err.message);
    cr_expect_eq(result.wait_status, 0, "%s", result.errors);
}

Test(runtime_spec, full_spec_is_valid_by_the_specifications_schema)
{
    struct oci_runtime_spec spec = full_spec();
    expect_valid(&spec);
}

Test(runtime_spec, minimal_spec_is_valid_by_the_specifications_schema)
{
    struct oci_runtime_spec spec = minimal_spec();
    expect_valid(&spec);
}

/* ---- what never differs ---- */

Test(runtime_spec, nobody_has_capabilities_or_gains_privileges)
{
    static const char *const sets[] = {"bounding", "effective", "inheritable", "permitted",
                                       "ambient"};
    struct oci_runtime_spec spec = minimal_spec();
    autojson *root = write_and_parse(&spec);

    for (size_t i = 0; i < ARRAY_LENGTH(sets); i++) {
        const struct json *set = json_get(at(root, "process/capabilities"), sets[i]);
        cr_expect(set && json_type(set) == JSON_ARRAY && json_count(set) == 0, "%s", sets[i]);
    }
    cr_expect(json_bool(at(root, "process/noNewPrivileges"), false));
    cr_expect_not(json_bool(at(root, "process/terminal"), true));
}

static bool has_namespace(const struct json *root, const char *type, const char **ret_path)
{
    json_foreach (i, namespace, at(root, "linux/namespaces")) {
        if (strcmp(json_get_string(namespace, "type"), type) == 0) {
            *ret_path = json_get_string(namespace, "path");
            return true;
        }
    }
    return false;
}

Test(runtime_spec, every_namespace_is_the_containers_own)
{
    static const char *const types[] = {"pid", "mount", "ipc", "uts", "cgroup", "network"};
    struct oci_runtime_spec spec = minimal_spec();
    autojson *root = write_and_parse(&spec);
    const char *path = "";

    for (size_t i = 0; i < ARRAY_LENGTH(types); i++) {
        cr_expect(has_namespace(root, types[i], &path), "%s", types[i]);
        cr_expect_null(path);
    }
    cr_expect_not(has_namespace(root, "user", &path), "none without an id mapping");
}

Test(runtime_spec, kernel_paths_are_masked_and_sys_is_not_mounted)
{
    struct oci_runtime_spec spec = full_spec();
    autojson *root = write_and_parse(&spec);
    bool kcore = false, bus = false, sysrq = false;

    json_foreach (i, path, at(root, "linux/maskedPaths")) {
        kcore = kcore || strcmp(json_string(path, NULL), "/proc/kcore") == 0;
        bus = bus || strcmp(json_string(path, NULL), "/proc/bus") == 0;
    }
    json_foreach (i, path, at(root, "linux/readonlyPaths"))
        sysrq = sysrq || strcmp(json_string(path, NULL), "/proc/sysrq-trigger") == 0;
    cr_expect(kcore);
    cr_expect(bus, "the list of the host's devices");
    cr_expect(sysrq);
    json_foreach (i, mount, json_get(root, "mounts"))
        cr_expect_neq(strncmp(json_get_string(mount, "destination"), "/sys", 4), 0);
}

Test(runtime_spec, no_device_is_allowed_by_default)
{
    struct oci_runtime_spec spec = minimal_spec();
    autojson *root = write_and_parse(&spec);

    cr_expect_eq(json_count(at(root, "linux/resources/devices")), 1);
    cr_expect_not(json_bool(at(root, "linux/resources/devices/0/allow"), true));
    cr_expect_str_eq(json_string(at(root, "linux/resources/devices/0/access"), NULL), "rwm");
}

Test(runtime_spec, core_dumps_are_off_and_descriptors_limited)
{
    struct oci_runtime_spec spec = full_spec();
    autojson *root = write_and_parse(&spec);

    cr_expect_str_eq(json_string(at(root, "process/rlimits/0/type"), NULL), "RLIMIT_NOFILE");
    cr_expect_eq(json_int(at(root, "process/rlimits/0/hard"), -1), 4096);
    cr_expect_str_eq(json_string(at(root, "process/rlimits/1/type"), NULL), "RLIMIT_CORE");
    cr_expect_eq(json_int(at(root, "process/rlimits/1/hard"), -1), 0);
}

/* ---- what does ---- */

Test(runtime_spec, limits_are_written_as_asked)
{
    struct oci_runtime_spec spec = full_spec();
    autojson *root = write_and_parse(&spec);
    const struct json *resources = at(root, "linux/resources");

    cr_expect_eq(json_int(at(resources, "memory/limit"), 0), 128 << 20);
    cr_expect_eq(json_int(at(resources, "memory/swap"), 0), 128 << 20, "memory + swap: so no swap");
    cr_expect_eq(json_int(at(resources, "cpu/quota"), 0), 50000);
    cr_expect_eq(json_int(at(resources, "cpu/period"), 0), 100000);
    cr_expect_eq(json_int(at(resources, "pids/limit"), 0), 64);
}

static void expect_throttle(const struct json *root, const char *member, int64_t rate)
{
    char path[96];
    snprintf(path, sizeof(path), "linux/resources/blockIO/%s", member);
    const struct json *list = at(root, path);
    cr_assert_eq(json_count(list), 1, "%s", member);
    cr_expect_eq(json_int(at(list, "0/major"), 0), 254, "%s", member);
    cr_expect_eq(json_int(at(list, "0/minor"), 0), 16, "%s", member);
    cr_expect_eq(json_int(at(list, "0/rate"), 0), rate, "%s", member);
}

Test(runtime_spec, a_disks_rates_hold_for_reads_and_for_writes)
{
    struct oci_runtime_spec spec = full_spec();
    autojson *both = write_and_parse(&spec);
    expect_throttle(both, "throttleReadBpsDevice", 5000000000);
    expect_throttle(both, "throttleWriteBpsDevice", 5000000000);
    expect_throttle(both, "throttleReadIOPSDevice", 200);
    expect_throttle(both, "throttleWriteIOPSDevice", 200);
    spec.io_bps = 0;
    autojson *one = write_and_parse(&spec);
    cr_expect_eq(json_count(at(one, "linux/resources/blockIO")), 2);
    expect_throttle(one, "throttleReadIOPSDevice", 200);
}

Test(runtime_spec, limits_that_are_not_asked_for_are_absent)
{
    struct oci_runtime_spec spec = minimal_spec();
    autojson *root = write_and_parse(&spec);

    cr_expect_null(at(root, "linux/resources/memory"));
    cr_expect_null(at(root, "linux/resources/cpu"));
    cr_expect_null(at(root, "linux/resources/pids"));
    cr_expect_null(at(root, "linux/resources/blockIO"));
    cr_expect_null(at(root, "linux/seccomp"));
    cr_expect_null(at(root, "linux/cgroupsPath"));
    cr_expect_null(at(root, "process/oomScoreAdj"));
}

Test(runtime_spec, swap_is_left_out_where_the_host_cannot_limit_it)
{
    struct oci_runtime_spec spec = full_spec();
    spec.limit_swap = false;
    autojson *root = write_and_parse(&spec);

    cr_expect_not_null(at(root, "linux/resources/memory/limit"));
    cr_expect_null(at(root, "linux/resources/memory/swap"));
}

Test(runtime_spec, a_network_namespace_is_joined_by_path)
{
    struct oci_runtime_spec spec = full_spec();
    autojson *root = write_and_parse(&spec);
    const char *path = NULL;

    cr_expect(has_namespace(root, "network", &path));
    cr_expect_str_eq(path, "/run/faas/w/netns/n1");
}

Test(runtime_spec, ids_are_mapped_to_the_hosts_range)
{
    struct oci_runtime_spec spec = full_spec();
    autojson *root = write_and_parse(&spec);
    const char *path = "";

    cr_expect(has_namespace(root, "user", &path));
    cr_expect_eq(json_int(at(root, "linux/uidMappings/0/hostID"), 0), 0x20000000);
    cr_expect_eq(json_int(at(root, "linux/gidMappings/0/size"), 0), 65536);
    cr_expect_eq(json_int(at(root, "linux/gidMappings/0/containerID"), -1), 0);
}

Test(runtime_spec, strings_survive)
{
    static const char *const odd[] = {"A=\"quotes\" \\ \n tab\t \x01 é", NULL};
    struct oci_runtime_spec spec = minimal_spec();
    spec.env = odd;
    autojson *root = write_and_parse(&spec);

    cr_expect_str_eq(json_string(at(root, "process/env/0"), NULL), odd[0]);
}

/* ---- what is refused ---- */

static void expect_refused(const struct oci_runtime_spec *spec, const char *pointer)
{
    with_cleanup(buffer_deinit) struct buffer text = BUFFER_INIT(OCI_CONFIG_MAX_BYTES);
    struct error err = {0};

    cr_expect_eq(oci_runtime_spec_write(spec, &text, &err), -1, "%s", pointer);
    cr_expect_eq(err.code, ERROR_INVALID_REQUEST);
    cr_expect_str_eq(err.field, pointer);
}

Test(runtime_spec, what_cannot_run_is_refused)
{
    static const char *const nothing[] = {NULL}, *const no_name[] = {"=value", NULL};
    static const struct oci_mount relative = {"tmp", "tmpfs", "tmpfs", NULL},
                                  no_source = {"/tmp", "bind", "", NULL};
    struct oci_runtime_spec spec = minimal_spec();

    spec.rootfs = NULL, expect_refused(&spec, "/root/path"), spec = minimal_spec();
    spec.args = nothing, expect_refused(&spec, "/process/args"), spec = minimal_spec();
    spec.cwd = "app", expect_refused(&spec, "/process/cwd"), spec = minimal_spec();
    spec.env = no_name, expect_refused(&spec, "/process/env"), spec = minimal_spec();
    spec.network_namespace = "n1", expect_refused(&spec, "/linux/namespaces"),
    spec = minimal_spec();
    spec.mounts = &relative, spec.mount_count = 1, expect_refused(&spec, "/mounts");
    spec.mounts = &no_source, expect_refused(&spec, "/mounts"), spec = minimal_spec();
    spec.memory_bytes = -1, expect_refused(&spec, "/linux/resources");
    spec = full_spec();
    spec.io_iops = -1, expect_refused(&spec, "/linux/resources");
}

Test(runtime_spec, a_config_over_the_limit_is_an_error)
{
    with_cleanup(buffer_deinit) struct buffer small = BUFFER_INIT(100);
    struct oci_runtime_spec spec = minimal_spec();
    struct error err = {0};

    cr_expect_eq(oci_runtime_spec_write(&spec, &small, &err), -1);
    cr_expect_eq(err.code, ERROR_PAYLOAD_TOO_LARGE);
}

/* ---- seccomp ---- */

static const struct json *find_rule(const struct json *root, const char *call, const char *action)
{
    json_foreach (i, rule, at(root, "linux/seccomp/syscalls")) {
        if (strcmp(json_get_string(rule, "action"), action) != 0)
            continue;
        json_foreach (j, name, json_get(rule, "names"))
            if (strcmp(json_string(name, NULL), call) == 0)
                return rule;
    }
    return NULL;
}

Test(seccomp, what_is_not_listed_is_refused)
{
    static const char *const refused[] = {
        "mount",
        "umount2",
        "open_tree",
        "move_mount",
        "fsopen",
        "unshare",
        "setns",
        "ptrace",
        "process_vm_readv",
        "bpf",
        "perf_event_open",
        "io_uring_setup",
        "io_uring_enter",
        "keyctl",
        "add_key",
        "request_key",
        "kexec_load",
        "init_module",
        "finit_module",
        "userfaultfd",
        "clock_settime",
        "swapon",
        "reboot",
        "quotactl",
        "name_to_handle_at",
        "open_by_handle_at",
        "pidfd_getfd",
        "kcmp",
        "chroot",
        "pivot_root",
        "syslog",
        "fanotify_init",
    };
    struct oci_runtime_spec spec = full_spec();
    autojson *root = write_and_parse(&spec);

    cr_expect_str_eq(json_string(at(root, "linux/seccomp/defaultAction"), NULL), "SCMP_ACT_ERRNO");
    for (size_t i = 0; i < ARRAY_LENGTH(refused); i++)
        cr_expect_null(find_rule(root, refused[i], "SCMP_ACT_ALLOW"), "%s", refused[i]);
}

Test(seccomp, a_filtered_call_is_never_allowed_without_its_filter)
{
    static const char *const calls[] = {"clone",       "socket",    "socketpair", "ioctl",
                                        "personality", "prlimit64", "madvise",    "fallocate"};
    struct oci_runtime_spec spec = full_spec();
    autojson *root = write_and_parse(&spec);

    for (size_t i = 0; i < ARRAY_LENGTH(calls); i++) {
        const struct json *rule = find_rule(root, calls[i], "SCMP_ACT_ALLOW");
        cr_assert_not_null(rule, "%s", calls[i]);
        cr_expect_gt(json_count(json_get(rule, "args")), 0, "%s", calls[i]);
    }
}

Test(seccomp, clone3_does_not_exist_so_that_libraries_fall_back)
{
    struct oci_runtime_spec spec = full_spec();
    autojson *root = write_and_parse(&spec);
    const struct json *rule = find_rule(root, "clone3", "SCMP_ACT_ERRNO");

    cr_assert_not_null(rule);
    cr_expect_eq(json_get_int(rule, "errnoRet", 0), 38);
}

Test(seccomp, every_group_is_documented_with_its_reason)
{
    with_cleanup(buffer_deinit) struct buffer text = BUFFER_INIT(65536);
    struct error err = {0};

    cr_assert_eq(oci_seccomp_markdown(&text, &err), 0, "%s", err.message);
    cr_expect(strstr(text.data, "| new sockets | by argument |"));
    cr_expect(strstr(text.data, "clone3"));
}
