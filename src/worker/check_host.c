/* What this host can enforce; see check_host.h. */
#include "worker/check_host.h"

#include "base/cleanup.h"
#include "base/file.h"
#include "base/spawn.h"
#include "base/text.h"
#include "oci/apparmor.h"
#include "oci/image_store.h"
#include "oci/runc.h"
#include "worker/cni.h"
#include "worker/enforcement.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <unistd.h>

#define TEXT_MAX 512
#define PROGRAM_TIMEOUT_MS 10000

enum verdict { VERDICT_OK, VERDICT_WARN, VERDICT_NO };

struct finding {
    const struct worker_settings *settings;
    enum verdict verdict;
    char text[TEXT_MAX];
};

/* ---- telling ---- */

__attribute__((format(printf, 3, 4))) static void say(struct finding *finding, enum verdict verdict,
                                                      const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(finding->text, sizeof(finding->text), format, arguments);
    va_end(arguments);
    finding->verdict = verdict;
}

static void say_error(struct finding *finding, enum verdict verdict, const struct error *err)
{
    say(finding, verdict, "%s", err->message);
}

static bool read_line(const char *path, char *out, size_t size)
{
    with_cleanup(buffer_deinit) struct buffer text = BUFFER_INIT(4096);
    if (buffer_read_file(&text, path, NULL) < 0 || text.len == 0)
        return false;
    snprintf(out, size, "%.*s", (int)strcspn(text.data, "\n"), text.data);
    return true;
}

/* ---- the kernel ---- */

static void check_user(struct finding *finding)
{
    if (geteuid() == 0)
        say(finding, VERDICT_OK, "root");
    else
        say(finding, VERDICT_NO, "uid %d: containers with networks of their own need root",
            (int)geteuid());
}

static void check_kernel(struct finding *finding)
{
    struct utsname system;
    uname(&system);
    say(finding, VERDICT_OK, "%s %s, %s", system.sysname, system.release, system.machine);
}

static const char *data_dir(const struct finding *finding)
{
    return finding->settings->data_dir ? finding->settings->data_dir : "/";
}

/* Says so when one of the limits `concerned` is missing: whether the worker may do without is the operator's word. */
static bool is_missing(struct finding *finding, limit_set concerned)
{
    struct host_means means;
    struct error err = {0};
    limit_set allowed = 0;
    char names[LIMIT_NAMES_SIZE];
    if (limit_set_parse(finding->settings->allow_unenforced, &allowed, &err) < 0 ||
        host_means_read(data_dir(finding), &means, &err) < 0 ||
        enforcement_check(&means, allowed | ~concerned, &err) < 0) {
        say_error(finding, VERDICT_NO, &err);
        return true;
    }
    limit_set_names(host_means_missing(&means) & concerned, names);
    if (*names)
        say(finding, VERDICT_WARN,
            "functions run without a limit, as WORKER_ALLOW_UNENFORCED lets them: %s", names);
    return *names;
}

static void check_cgroups(struct finding *finding)
{
    struct cgroup_support support;
    if (is_missing(finding, LIMIT_BIT(LIMIT_MEMORY) | LIMIT_BIT(LIMIT_CPU) | LIMIT_BIT(LIMIT_PIDS)))
        return;
    cgroup_detect(&support, NULL);
    say(finding, VERDICT_OK, "version %d%s: memory, cpu, pids%s", support.version,
        support.hybrid ? " (hybrid)" : "", support.freezer ? ", freezer" : "");
}

static void check_swap(struct finding *finding)
{
    struct cgroup_support support;
    if (is_missing(finding, LIMIT_BIT(LIMIT_SWAP)))
        return;
    cgroup_detect(&support, NULL);
    say(finding, VERDICT_OK, support.swap ? "is part of the memory limit" : "the host has none");
}

/* Only functions that ask for it need it. */
static void check_io(struct finding *finding)
{
    struct cgroup_support support;
    struct disk disk = {0};
    struct error err = {0};
    limit_set allowed = 0;
    limit_set_parse(finding->settings->allow_unenforced, &allowed, NULL);
    if (cgroup_detect(&support, &err) == 0 && !support.io)
        error_set(&err, ERROR_UNAVAILABLE, "no usable cgroup controller (v1: blkio, v2: io)");
    else if (!err.code)
        disk_find(data_dir(finding), &disk, &err);
    if (!err.code)
        say(finding, VERDICT_OK, "io_bps and io_iops limit disk %u:%u", disk.major, disk.minor);
    else if (allowed & LIMIT_BIT(LIMIT_IO))
        say(finding, VERDICT_WARN,
            "functions run without a limit, as WORKER_ALLOW_UNENFORCED lets them: io: %s",
            err.message);
    else
        say(finding, VERDICT_WARN, "functions with io_bps or io_iops cannot run: %s", err.message);
}

static void check_namespaces(struct finding *finding)
{
    static const char *const kinds[] = {"pid", "mnt", "net", "ipc", "uts", "cgroup"};
    for (size_t i = 0; i < ARRAY_LENGTH(kinds); i++) {
        char path[64];
        snprintf(path, sizeof(path), "/proc/self/ns/%s", kinds[i]);
        if (access(path, F_OK) < 0) {
            say(finding, VERDICT_NO, "this kernel has no %s namespaces", kinds[i]);
            return;
        }
    }
    if (!is_missing(finding, LIMIT_BIT(LIMIT_USERNS)))
        say(finding, VERDICT_OK, "user, pid, mount, network, ipc, uts, cgroup");
}

static void check_seccomp(struct finding *finding)
{
    char actions[256] = "";
    if (is_missing(finding, LIMIT_BIT(LIMIT_SECCOMP)))
        return;
    read_line("/proc/sys/kernel/seccomp/actions_avail", actions, sizeof(actions));
    say(finding, VERDICT_OK, "%s", actions);
}

static void check_apparmor(struct finding *finding)
{
    if (!oci_apparmor_enabled())
        say(finding, VERDICT_OK, "not on this kernel: namespaces, capabilities and seccomp hold");
    else if (strcmp(finding->settings->apparmor, "off") == 0)
        say(finding, VERDICT_WARN, "switched off by WORKER_APPARMOR");
    else if (access("/sbin/apparmor_parser", X_OK) < 0 &&
             access("/usr/sbin/apparmor_parser", X_OK) < 0)
        say(finding, VERDICT_WARN, "no apparmor_parser: install the package apparmor");
    else
        say(finding, VERDICT_OK, "each worker loads its profile");
}

/* How code gets into a container that runs already. */
static void check_mounts(struct finding *finding)
{
    int tree = (int)syscall(SYS_open_tree, AT_FDCWD, "/", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
    if (tree < 0) {
        say(finding, VERDICT_NO, "open_tree: %s (Linux 5.12 or newer is needed)", strerror(errno));
        return;
    }
    struct mount_attr attributes = {.attr_set = MOUNT_ATTR_RDONLY};
    int rc =
        (int)syscall(SYS_mount_setattr, tree, "", AT_EMPTY_PATH, &attributes, sizeof(attributes));
    if (rc < 0)
        say(finding, VERDICT_NO, "mount_setattr: %s (Linux 5.12 or newer is needed)",
            strerror(errno));
    else
        say(finding, VERDICT_OK, "open_tree, mount_setattr");
    close(tree);
}

/* ---- programs ---- */

/* Numbers of "runc version 1.1.5+ds1"; 0 when it is no runc. */
static int parse_runc_version(const char *version, int ret[3])
{
    return sscanf(version, "runc version %d.%d.%d", &ret[0], &ret[1], &ret[2]) == 3;
}

static bool is_before(const int version[3], int major, int minor, int patch)
{
    int wanted[] = {major, minor, patch};
    for (int i = 0; i < 3; i++)
        if (version[i] != wanted[i])
            return version[i] < wanted[i];
    return false;
}

void check_host_known_problems(const char *version, char *out, size_t size)
{
    int runc[3];
    out[0] = '\0';
    if (!parse_runc_version(version, runc))
        return;
    const char *leaked = is_before(runc, 1, 1, 12) ? "CVE-2024-21626, " : "";
    bool masked = is_before(runc, 1, 2, 8) || (runc[1] == 3 && is_before(runc, 1, 3, 3));
    if (*leaked || masked)
        snprintf(out, size, "%s%s unless the distribution has mended its package", leaked,
                 masked ? "CVE-2025-31133, CVE-2025-52565, CVE-2025-52881" : "");
}

static void check_oci_runtime(struct finding *finding)
{
    const char *wanted = finding->settings->oci_runtime;
    char problems[256], root[] = "/tmp/faas-check-XXXXXX";
    struct oci_runtime runtime = {0};
    struct oci_call call = {.verb = OCI_VERSION, .timeout_ms = PROGRAM_TIMEOUT_MS};
    struct oci_outcome outcome = {0};
    struct error err = {0};
    if (!mkdtemp(root)) {
        say(finding, VERDICT_NO, "no folder can be made in /tmp: %s", strerror(errno));
        return;
    }
    if (oci_runtime_init(&runtime, wanted, root, &err) < 0 ||
        oci_runtime_call(&runtime, &call, &outcome, &err) < 0) {
        say(finding, VERDICT_NO, "\"%s\" (WORKER_OCI_RUNTIME): %s", wanted, err.message);
    } else {
        check_host_known_problems(outcome.text, problems, sizeof(problems));
        say(finding, *problems ? VERDICT_WARN : VERDICT_OK, "%s, %s%s%s", runtime.path,
            outcome.text, *problems ? "; known problems: " : "", problems);
    }
    oci_outcome_deinit(&outcome);
    oci_runtime_deinit(&runtime);
    remove_tree(root, NULL);
}

static void check_cni(struct finding *finding)
{
    struct cni_config config = {.path = CNI_PATH_DEFAULT};
    struct error err = {0};
    autofree char *bridge = cni_find_plugin(&config, "bridge", &err);
    if (bridge)
        say(finding, VERDICT_OK, "%s", bridge);
    else
        say(finding, VERDICT_WARN, "functions with network bridge cannot run: %s", err.message);
}

static void check_nftables(struct finding *finding)
{
    static const char *const argv[] = {"nft", "list", "tables", NULL};
    with_cleanup(spawn_result_deinit) struct spawn_result result = {0};
    struct spawn_options options = {
        .argv = argv, .timeout_ms = PROGRAM_TIMEOUT_MS, .output_max = 4096};
    struct error err = {0};
    if (spawn_run(&options, &result, &err) < 0 || spawn_result_check(&result, "nft", &err) < 0)
        say(finding, VERDICT_WARN, "functions with network bridge cannot run: %s", err.message);
    else
        say(finding, VERDICT_OK, "nft answers");
}

/* ---- the worker's own parts ---- */

static void check_init(struct finding *finding)
{
    autofree char *path = string_printf("%s/init", finding->settings->libexec_dir);
    if (path && access(path, X_OK) == 0)
        say(finding, VERDICT_OK, "%s", path);
    else
        say(finding, VERDICT_NO, "%s: %s (WORKER_LIBEXEC_DIR)", path ? path : "init",
            strerror(errno));
}

static void check_images(struct finding *finding)
{
    const char *folder = finding->settings->image_dir;
    struct image_list list = {0};
    struct error err = {0};
    if (!path_exists(folder)) {
        say(finding, VERDICT_WARN, "%s is not there; `faas image import` makes it", folder);
        return;
    }
    struct image_store *store = image_store_open(folder, NULL, &err);
    if (!store || image_store_list(store, &list, &err) < 0)
        say_error(finding, VERDICT_NO, &err);
    else
        say(finding, list.count > 0 ? VERDICT_OK : VERDICT_WARN, "%zu in %s", list.count, folder);
    image_list_deinit(&list);
    image_store_close(store);
}

static const struct {
    const char *name;
    void (*check)(struct finding *finding);
} checks[] = {
    {"user", check_user},       {"kernel", check_kernel},
    {"cgroups", check_cgroups}, {"swap", check_swap},
    {"disk I/O", check_io},     {"namespaces", check_namespaces},
    {"seccomp", check_seccomp}, {"AppArmor", check_apparmor},
    {"mounts", check_mounts},   {"OCI runtime", check_oci_runtime},
    {"CNI plugins", check_cni}, {"nftables", check_nftables},
    {"faas-init", check_init},  {"images", check_images},
};

int check_host(const struct worker_settings *settings, FILE *out)
{
    static const char *const verdicts[] = {"ok", "warn", "no"};
    bool able = true;
    for (size_t i = 0; i < ARRAY_LENGTH(checks); i++) {
        struct finding finding = {.settings = settings};
        checks[i].check(&finding);
        able = able && finding.verdict != VERDICT_NO;
        fprintf(out, "%-12s  %-4s  %s\n", checks[i].name, verdicts[finding.verdict], finding.text);
    }
    return able ? 0 : 1;
}
