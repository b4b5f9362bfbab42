/* A folder with a minimal root file system (busybox-static) and a place for bundles and the runtime's state; for tests that run
 * real containers. */
#pragma once

#include "base/cleanup.h"
#include "base/file.h"
#include "base/spawn.h"
#include "base/text.h"
#include "oci/bundle.h"
#include "oci/runc.h"

#include <criterion/criterion.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define FIXTURE_HOST_UID 0x20000000u

static char fixture_folder[] = "/tmp/faas-oci-XXXXXX";
static char fixture_rootfs[64], fixture_bundle[64], fixture_root[64];
static struct oci_runtime fixture_runtime;

static inline void fixture_shell(const char *command)
{
    const char *const argv[] = {"sh", "-c", command, NULL};
    with_cleanup(spawn_result_deinit) struct spawn_result result = {0};
    struct error err = {0};

    cr_assert_eq(
        spawn_run(&(struct spawn_options){.argv = argv, .timeout_ms = 60000, .output_max = 65536},
                  &result, &err),
        0, "%s", err.message);
    cr_assert_eq(result.wait_status, 0, "%s: %s", command, result.errors);
}

static inline void fixture_set_up(void)
{
    struct error err = {0};

    if (geteuid() != 0 || !path_exists("/bin/busybox"))
        cr_skip_test("needs root and busybox-static");
    cr_assert_not_null(mkdtemp(fixture_folder));
    cr_assert_eq(chmod(fixture_folder, 0711), 0);
    snprintf(fixture_rootfs, sizeof(fixture_rootfs), "%s/rootfs", fixture_folder);
    snprintf(fixture_bundle, sizeof(fixture_bundle), "%s/bundle", fixture_folder);
    snprintf(fixture_root, sizeof(fixture_root), "%s/state", fixture_folder);
    autofree char *command =
        string_printf("cd %s && umask 022 && mkdir -p rootfs/bin rootfs/proc rootfs/dev rootfs/tmp "
                      "rootfs/usr rootfs/etc &&"
                      "cp /bin/busybox rootfs/bin/ && ln -s busybox rootfs/bin/sh &&"
                      "for link in lib lib64; do ln -s usr/$link rootfs/$link; done",
                      fixture_folder);
    fixture_shell(command);
    cr_assert_eq(oci_runtime_init(&fixture_runtime, "runc", fixture_root, &err), 0, "%s",
                 err.message);
}

/* A missing folder is no error: the test was skipped. */
static inline void fixture_tear_down(void)
{
    struct error err = {0};

    if (fixture_runtime.path)
        cr_expect_eq(oci_runtime_delete_all(&fixture_runtime, NULL, &err), 0, "%s", err.message);
    oci_runtime_deinit(&fixture_runtime);
    cr_expect_eq(remove_tree(fixture_folder, &err), 0, "%s", err.message);
}

/* A skipped test's tear-down is not called. */
#define fixture_skip(why)                                                                          \
    do {                                                                                           \
        fixture_tear_down();                                                                       \
        cr_skip_test(why);                                                                         \
    } while (0)

/* What a function's container gets, with `/bin/sh -c SCRIPT` in it. The result borrows `args`, which needs room for 4. */
static inline struct oci_runtime_spec fixture_spec(const char *script, const char **args)
{
    static const char *const env[] = {"PATH=/bin:/usr/bin", NULL};
    /* runc gives a tmpfs the mode of the folder that it covers, so it belongs to the user. */
    static const char *const tmpfs[] = {"nosuid", "nodev", "size=8m", "uid=1000", "gid=1000", NULL};
    static const struct oci_mount tmp = {"/tmp", "tmpfs", "tmpfs", tmpfs};

    args[0] = "/bin/sh";
    args[1] = "-c";
    args[2] = script;
    args[3] = NULL;
    return (struct oci_runtime_spec){
        .rootfs = fixture_rootfs,
        .rootfs_readonly = true,
        .args = args,
        .env = env,
        .uid = 1000,
        .gid = 1000,
        .hostname = "function",
        .mounts = &tmp,
        .mount_count = 1,
        .shm_bytes = 1 << 20,
        .memory_bytes = 64 << 20,
        .cpu_quota_us = 100000,
        .pids = 64,
        .id_map_host_base = FIXTURE_HOST_UID,
        .id_map_size = 65536,
        .seccomp = true,
    };
}

static inline void fixture_write_bundle(const struct oci_runtime_spec *spec)
{
    struct error err = {0};

    cr_assert_eq(oci_bundle_write(fixture_bundle, spec, &err), 0, "%s", err.message);
}

static inline void fixture_write_script(const char *script)
{
    const char *args[4];
    struct oci_runtime_spec spec = fixture_spec(script, args);

    fixture_write_bundle(&spec);
}

/* Whether the process is gone, or dead and only not reaped yet. */
static inline bool has_ended(pid_t pid)
{
    with_cleanup(buffer_deinit) struct buffer text = BUFFER_INIT(4096);
    autofree char *path = string_printf("/proc/%d/stat", pid);

    return buffer_read_file(&text, path, NULL) < 0 || strstr(text.data, ") Z ") != NULL ||
           strstr(text.data, ") X ") != NULL;
}

/* One that was killed takes a moment, also when it has left its cgroup already. */
static inline void wait_until_ended(pid_t pid)
{
    while (!has_ended(pid))
        sched_yield();
}

/* Runs the bundle with the write end of a pipe as its descriptor 3, and returns everything that came out. */
static inline char *fixture_run_to_end(const char *id)
{
    int fds[2];
    struct oci_outcome outcome = {0};
    struct error err = {0};
    with_cleanup(buffer_deinit) struct buffer text = BUFFER_INIT(1 << 20);

    cr_assert_eq(pipe2(fds, O_CLOEXEC), 0);
    cr_assert_eq(fchown(fds[1], FIXTURE_HOST_UID + 1000, FIXTURE_HOST_UID + 1000), 0);
    struct oci_call call = {
        .verb = OCI_RUN, .id = id, .bundle = fixture_bundle, .fds = &fds[1], .fd_count = 1};
    cr_assert_eq(oci_runtime_call(&fixture_runtime, &call, &outcome, &err), 0, "%s", err.message);
    close(fds[1]);
    cr_assert_eq(buffer_read_fd(&text, fds[0], &err), 0, "%s", err.message);
    close(fds[0]);
    call = (struct oci_call){.verb = OCI_DELETE, .id = id, .force = true};
    cr_assert_eq(oci_runtime_call(&fixture_runtime, &call, NULL, &err), 0, "%s", err.message);
    return buffer_take(&text, NULL);
}
