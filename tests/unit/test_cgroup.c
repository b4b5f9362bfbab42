/* Cgroups of instances: with real containers on this host's hierarchies, on a v2-only view of it, and by text. */
#include "container_fixture.h"
#include "worker/cgroup.h"
#include "worker/cgroup_hierarchy.h"
#include "worker/enforcement.h"

#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/wait.h>

TestSuite(cgroup, .init = fixture_set_up, .fini = fixture_tear_down, .timeout = 120);

static char worker_name[48];

static struct worker_cgroup *open_worker(void)
{
    struct error err = {0};

    snprintf(worker_name, sizeof(worker_name), "test-%d", (int)getpid());
    struct worker_cgroup *cgroup = worker_cgroup_new(worker_name, &err);
    cr_assert_not_null(cgroup, "%s", err.message);
    return cgroup;
}

/* `run` may return while the container's process is on its way into its program. Frozen there, with threads that it has
 * killed and that do not end, cgroup v1 never says FROZEN. */
static bool is_still_the_runtimes(pid_t pid)
{
    with_cleanup(buffer_deinit) struct buffer text = BUFFER_INIT(256);
    autofree char *path = string_printf("/proc/%d/comm", pid);

    return buffer_read_file(&text, path, NULL) == 0 && text.len > 0 &&
           strncmp(text.data, "runc", 4) == 0;
}

static pid_t run_in_with(const struct worker_cgroup *cgroup, const char *id, const char *script,
                         int64_t memory_bytes, int64_t pids)
{
    const char *args[4];
    struct oci_runtime_spec spec = fixture_spec(script, args);
    struct oci_outcome outcome = {0};
    struct error err = {0};
    autofree char *path = worker_cgroup_path(cgroup, id);

    spec.cgroups_path = path;
    spec.memory_bytes = memory_bytes;
    spec.limit_swap = worker_cgroup_support(cgroup)->swap;
    spec.pids = pids;
    fixture_write_bundle(&spec);
    struct oci_call call = {.verb = OCI_RUN, .id = id, .bundle = fixture_bundle};
    cr_assert_eq(oci_runtime_call(&fixture_runtime, &call, &outcome, &err), 0, "%s", err.message);
    while (is_still_the_runtimes(outcome.pid))
        sched_yield();
    return outcome.pid;
}

static pid_t run_in(const struct worker_cgroup *cgroup, const char *id, const char *script)
{
    return run_in_with(cgroup, id, script, 64 << 20, 64);
}

static struct instance_cgroup *open_instance(const struct worker_cgroup *cgroup, pid_t pid)
{
    struct error err = {0};
    struct instance_cgroup *instance = instance_cgroup_open(cgroup, pid, &err);

    cr_assert_not_null(instance, "%s", err.message);
    return instance;
}

static struct instance_stats read_stats(struct instance_cgroup *instance)
{
    struct instance_stats stats;
    struct error err = {0};

    cr_assert_eq(instance_cgroup_read(instance, &stats, &err), 0, "%s", err.message);
    return stats;
}

static void delete_container(const char *id)
{
    struct oci_call call = {.verb = OCI_DELETE, .id = id, .force = true};
    struct error err = {0};

    cr_assert_eq(oci_runtime_call(&fixture_runtime, &call, NULL, &err), 0, "%s", err.message);
}

/* Folders named faas-<worker> in any hierarchy. */
static bool anything_left(void)
{
    autofree char *command = string_printf(
        "find /sys/fs/cgroup -type d -name 'faas-%s' | grep -q . && exit 7 || exit 0", worker_name);
    const char *const argv[] = {"sh", "-c", command, NULL};
    with_cleanup(spawn_result_deinit) struct spawn_result result = {0};

    cr_assert_eq(
        spawn_run(&(struct spawn_options){.argv = argv, .timeout_ms = 20000}, &result, NULL), 0);
    return result.wait_status != 0;
}

/* ---- on this host ---- */

Test(cgroup, this_host_enforces_what_instances_need)
{
    struct cgroup_support support;
    struct error err = {0};

    cr_assert_eq(cgroup_detect(&support, &err), 0, "%s", err.message);
    cr_expect(support.memory && support.cpu && support.pids);
    cr_expect(support.version == CGROUP_V1 || support.version == CGROUP_V2);
}

Test(cgroup, a_running_container_is_measured)
{
    struct worker_cgroup *worker = open_worker();
    struct instance_cgroup *instance =
        open_instance(worker, run_in(worker, "measured", "while :; do :; done"));
    struct instance_stats first = read_stats(instance), later = first;

    while (later.cpu_time_ns < first.cpu_time_ns + 20 * 1000 * 1000)
        later = read_stats(instance);
    cr_expect_gt(first.memory_bytes, 0);
    cr_expect_geq(first.memory_peak_bytes, first.memory_bytes);
    cr_expect_eq(later.oom_kills, 0);
    instance_cgroup_close(instance);
    delete_container("measured");
    worker_cgroup_free(worker);
}

Test(cgroup, the_peak_starts_anew_after_a_reset)
{
    struct worker_cgroup *worker = open_worker();
    pid_t pid = run_in(worker, "peak",
                       "busybox dd if=/dev/zero of=/tmp/a bs=1M count=4; busybox rm /tmp/a; exec "
                       "busybox sleep 1000");
    struct instance_cgroup *instance = open_instance(worker, pid);
    struct instance_stats stats = read_stats(instance);
    struct error err = {0};

    while (stats.memory_peak_bytes < 4 << 20 ||
           stats.memory_bytes + (3 << 20) > stats.memory_peak_bytes)
        stats = read_stats(instance);
    if (instance_cgroup_reset_peak(instance, &err) == 0)
        cr_expect_lt(read_stats(instance).memory_peak_bytes, 4 << 20);
    else
        cr_expect_eq(err.code, ERROR_UNAVAILABLE, "a kernel that cannot reset says so: %s",
                     err.message);
    instance_cgroup_close(instance);
    delete_container("peak");
    worker_cgroup_free(worker);
}

Test(cgroup, a_kill_for_lack_of_memory_is_counted)
{
    struct worker_cgroup *worker = open_worker();
    pid_t pid = run_in_with(worker, "oom",
                            "busybox sleep 0.2; x=xxxxxxxxxxxxxxxx; while :; do x=$x$x; done",
                            16 << 20, 64);
    struct instance_cgroup *instance = open_instance(worker, pid);

    wait_until_ended(pid);
    cr_expect_geq(read_stats(instance).oom_kills, 1);
    cr_expect_leq(read_stats(instance).memory_peak_bytes, 17 << 20);
    instance_cgroup_close(instance);
    delete_container("oom");
    worker_cgroup_free(worker);
}

Test(cgroup, refused_forks_are_counted)
{
    struct worker_cgroup *worker = open_worker();
    pid_t pid = run_in_with(
        worker, "forks", "busybox sleep 0.2; while :; do busybox sleep 1000 & done", 64 << 20, 8);
    struct instance_cgroup *instance = open_instance(worker, pid);

    while (read_stats(instance).pids_max_events == 0 && !has_ended(pid))
        sched_yield();
    cr_expect_geq(read_stats(instance).pids_max_events, 1);
    instance_cgroup_close(instance);
    delete_container("forks");
    worker_cgroup_free(worker);
}

static struct cgroup_limits limits_of(const struct worker_cgroup *worker, int64_t memory_bytes,
                                      int64_t cpu_quota_us, int64_t pids)
{
    return (struct cgroup_limits){.memory_bytes = memory_bytes,
                                  .limit_swap = worker_cgroup_support(worker)->swap,
                                  .cpu_quota_us = cpu_quota_us,
                                  .pids = pids};
}

static void set_limits(struct instance_cgroup *instance, const struct cgroup_limits *from,
                       const struct cgroup_limits *to)
{
    struct error err = {0};
    cr_assert_eq(instance_cgroup_limit(instance, from, to, &err), 0, "%s", err.message);
}

Test(cgroup, another_memory_limit_holds_in_a_running_container)
{
    struct worker_cgroup *worker = open_worker();
    pid_t pid = run_in_with(worker, "smaller",
                            "trap go=1 USR1; until [ \"$go\" ]; do busybox sleep 0.02; done; "
                            "x=xxxxxxxxxxxxxxxx; while :; do x=$x$x; done",
                            64 << 20, 64);
    struct instance_cgroup *instance = open_instance(worker, pid);
    struct cgroup_limits first = limits_of(worker, 64 << 20, 100000, 64);
    struct cgroup_limits more = limits_of(worker, 128 << 20, 50000, 64);
    struct cgroup_limits less = limits_of(worker, 16 << 20, 200000, 32);

    set_limits(instance, &first, &more);
    set_limits(instance, &more, &less);
    while (!has_ended(pid))
        kill(pid, SIGUSR1); /* again, because its trap may not have stood yet */
    cr_expect_geq(read_stats(instance).oom_kills, 1);
    cr_expect_leq(read_stats(instance).memory_peak_bytes, 17 << 20);
    instance_cgroup_close(instance);
    delete_container("smaller");
    worker_cgroup_free(worker);
}

/* What a cgroup's file says, in the v1 memory hierarchy. */
static char *memory_file(const char *id, const char *name)
{
    autofree char *command = string_printf(
        "cat $(find /sys/fs/cgroup/memory -type d -path '*/faas-%s/%s')/%s", worker_name, id, name);
    const char *const argv[] = {"sh", "-c", command, NULL};
    with_cleanup(spawn_result_deinit) struct spawn_result result = {0};

    cr_assert_eq(spawn_run(&(struct spawn_options){.argv = argv, .output_max = 256}, &result, NULL),
                 0);
    return steal_pointer(&result.output);
}

Test(cgroup, on_v1_socket_buffers_are_limited_from_before_the_start)
{
    struct worker_cgroup *worker = open_worker();
    struct error err = {0};

    if (worker_cgroup_support(worker)->version != CGROUP_V1) {
        worker_cgroup_free(worker);
        cr_skip_test("v2 counts them as memory");
    }
    cr_assert_eq(worker_cgroup_prepare(worker, "sockets", 64 << 20, &err), 0, "%s", err.message);
    pid_t pid = run_in(worker, "sockets", "exec busybox sleep 1000");
    autofree char *before = memory_file("sockets", "memory.kmem.tcp.limit_in_bytes");
    cr_expect_str_eq(before, "16777216\n");

    struct instance_cgroup *instance = open_instance(worker, pid);
    struct cgroup_limits first = limits_of(worker, 64 << 20, 100000, 64);
    struct cgroup_limits more = limits_of(worker, 128 << 20, 100000, 64);
    set_limits(instance, &first, &more);
    autofree char *after = memory_file("sockets", "memory.kmem.tcp.limit_in_bytes");
    cr_expect_str_eq(after, "33554432\n");
    instance_cgroup_close(instance);
    delete_container("sockets");
    cr_expect_eq(worker_cgroup_prepare(worker, "never-started", 1 << 20, &err), 0, "%s",
                 err.message);
    autofree char *least = memory_file("never-started", "memory.kmem.tcp.limit_in_bytes");
    cr_expect_str_eq(least, "4194304\n");
    cr_expect_eq(worker_cgroup_remove(worker, "never-started", &err), 0, "%s", err.message);
    worker_cgroup_free(worker);
    cr_expect_not(anything_left());
}

Test(cgroup, another_limit_of_processes_holds_in_a_running_container)
{
    struct worker_cgroup *worker = open_worker();
    pid_t pid = run_in_with(worker, "fewer",
                            "trap go=1 USR1; until [ \"$go\" ]; do busybox sleep 0.02; done; while "
                            ":; do busybox sleep 1000 & done",
                            64 << 20, 4096);
    struct instance_cgroup *instance = open_instance(worker, pid);
    struct cgroup_limits from = limits_of(worker, 64 << 20, 100000, 4096);
    struct cgroup_limits to = limits_of(worker, 64 << 20, 100000, 8);

    set_limits(instance, &from, &to);
    while (read_stats(instance).pids_max_events == 0 && !has_ended(pid))
        kill(pid, SIGUSR1);
    cr_expect_geq(read_stats(instance).pids_max_events, 1);
    instance_cgroup_close(instance);
    delete_container("fewer");
    worker_cgroup_free(worker);
}

Test(cgroup, a_memory_limit_below_what_is_used_is_refused_and_kills_nobody)
{
    struct worker_cgroup *worker = open_worker();
    pid_t pid = run_in(worker, "used", "busybox sleep 1000");
    struct instance_cgroup *instance = open_instance(worker, pid);
    struct cgroup_limits from = limits_of(worker, 64 << 20, 100000, 64);
    struct cgroup_limits to = limits_of(worker, 4096, 100000, 64);
    struct error err = {0};

    cr_expect_eq(instance_cgroup_limit(instance, &from, &to, &err), -1);
    cr_expect_eq(err.code, ERROR_NO_CAPACITY, "%s", err.message);
    cr_expect_not(has_ended(pid));
    cr_expect_eq(read_stats(instance).oom_kills, 0);
    instance_cgroup_close(instance);
    delete_container("used");
    worker_cgroup_free(worker);
}

Test(cgroup, instances_together_weigh_as_much_as_a_process_for_each_cpu)
{
    struct worker_cgroup *worker = open_worker();
    pid_t pid = run_in(worker, "weight", "busybox sleep 1000");
    bool v2 = worker_cgroup_support(worker)->version == CGROUP_V2;
    autofree char *command =
        string_printf("own=$(sed -n 's/^[0-9]*:%s://p' /proc/%d/cgroup); top=/sys/fs/cgroup%s;"
                      "test $(cat $top$(dirname $own)/%s) -eq $(($(nproc --all) * %d))",
                      v2 ? "" : "[a-z,]*\\bcpu\\b[a-z,]*", (int)pid, v2 ? "" : "/cpu",
                      v2 ? "cpu.weight" : "cpu.shares", v2 ? 100 : 1024);

    fixture_shell(command);
    delete_container("weight");
    worker_cgroup_free(worker);
    cr_expect_not(anything_left());
}

Test(cgroup, kill_ends_every_process)
{
    struct worker_cgroup *worker = open_worker();
    pid_t pid = run_in(worker, "killed", "for i in 1 2 3 4 5; do busybox sleep 1000 & done; wait");
    struct instance_cgroup *instance = open_instance(worker, pid);
    struct error err = {0};

    cr_expect_eq(instance_cgroup_kill(instance, &err), 0, "%s", err.message);
    wait_until_ended(pid);
    cr_expect_eq(instance_cgroup_kill(instance, &err), 0, "again, with nobody there: %s",
                 err.message);
    instance_cgroup_close(instance);
    delete_container("killed");
    worker_cgroup_free(worker);
}

/* The text of a file in the folder that it has in this controller's hierarchy. */
static char *file_of(pid_t pid, const char *controller, const char *v1_file, const char *v2_file)
{
    with_cleanup(buffer_deinit) struct buffer text = BUFFER_INIT(4096);
    with_cleanup(cgroup_hierarchies_deinit) struct cgroup_hierarchies all = {0};
    autofree char *membership = cgroup_membership_read(pid, NULL);

    cr_assert_eq(cgroup_hierarchies_read(&all, NULL), 0);
    const struct cgroup_hierarchy *v1 = cgroup_hierarchies_find_v1(&all, controller);
    const struct cgroup_hierarchy *hierarchy = v1 ? v1 : cgroup_hierarchies_find_v2(&all);
    autofree char *path = cgroup_membership_path(membership, hierarchy, NULL);
    autofree char *folder = cgroup_folder(hierarchy, path);
    autofree char *file = string_printf("%s/%s", folder, v1 ? v1_file : v2_file);
    cr_assert_eq(buffer_read_file(&text, file, NULL), 0, "%s", file);
    return strdup(text.data);
}

Test(cgroup, an_instance_counts_as_a_part_of_one)
{
    struct worker_cgroup *worker = open_worker();
    pid_t pid = run_in(worker, "light", "while :; do sleep 1; done");
    struct instance_cgroup *instance = open_instance(worker, pid);
    struct error err = {0};
    bool v2 = worker_cgroup_support(worker)->version == CGROUP_V2;
    static const struct {
        unsigned parts;
        int v1, v2;
    } rows[] = {{4, 256, 25}, {64, 16, 1}, {128, 8, 1}, {1, 1024, 100}};

    for (size_t i = 0; i < ARRAY_LENGTH(rows); i++) {
        cr_assert_eq(instance_cgroup_weigh(instance, rows[i].parts, &err), 0, "%s", err.message);
        autofree char *weight = file_of(pid, "cpu", "cpu.shares", "cpu.weight");
        cr_expect_eq(atoi(weight), v2 ? rows[i].v2 : rows[i].v1, "%u: %s", rows[i].parts, weight);
    }
    instance_cgroup_close(instance);
    delete_container("light");
    worker_cgroup_free(worker);
}

/* Whether the kernel says that all of its cgroup is stopped. */
static bool is_frozen(pid_t pid)
{
    autofree char *text = file_of(pid, "freezer", "freezer.state", "cgroup.events");
    return strstr(text, "FROZEN") || strstr(text, "frozen 1");
}

Test(cgroup, a_frozen_instance_takes_no_cpu_time_until_it_is_thawed)
{
    struct worker_cgroup *worker = open_worker();
    pid_t pid = run_in(worker, "still-ice", "while :; do :; done");
    struct instance_cgroup *instance = open_instance(worker, pid);
    struct error err = {0};

    cr_assert_eq(instance_cgroup_freeze(instance, &err), 0, "%s", err.message);
    cr_expect_eq(instance_cgroup_freeze(instance, &err), 0, "again: %s", err.message);
    while (!is_frozen(pid))
        sched_yield();
    struct instance_stats frozen = read_stats(instance), later = frozen;
    for (int i = 0; i < 50; i++)
        is_frozen(pid);
    later = read_stats(instance);
    cr_expect_eq(later.cpu_time_ns, frozen.cpu_time_ns);
    cr_expect_gt(later.memory_bytes, 0, "its memory is still counted");
    cr_assert_eq(instance_cgroup_thaw(instance, &err), 0, "%s", err.message);
    while (later.cpu_time_ns == frozen.cpu_time_ns)
        later = read_stats(instance);
    instance_cgroup_close(instance);
    delete_container("still-ice");
    worker_cgroup_free(worker);
}

Test(cgroup, a_frozen_instance_can_be_killed)
{
    struct worker_cgroup *worker = open_worker();
    pid_t pid = run_in(worker, "kill-ice", "for i in 1 2 3; do busybox sleep 1000 & done; wait");
    struct instance_cgroup *instance = open_instance(worker, pid);
    struct error err = {0};

    cr_assert_eq(instance_cgroup_freeze(instance, &err), 0, "%s", err.message);
    while (!is_frozen(pid))
        sched_yield();
    cr_expect_eq(instance_cgroup_kill(instance, &err), 0, "%s", err.message);
    wait_until_ended(pid);
    instance_cgroup_close(instance);
    delete_container("kill-ice");
    worker_cgroup_free(worker);
}

Test(cgroup, a_cgroup_that_is_gone_is_not_found)
{
    struct worker_cgroup *worker = open_worker();
    struct instance_cgroup *instance =
        open_instance(worker, run_in(worker, "gone", "exec busybox sleep 1000"));
    struct instance_stats stats;
    struct error err = {0};

    delete_container("gone");
    cr_expect_eq(instance_cgroup_read(instance, &stats, &err), -1);
    cr_expect_eq(err.code, ERROR_NOT_FOUND, "%s", err.message);
    instance_cgroup_close(instance);
    worker_cgroup_free(worker);
}

Test(cgroup, freeing_removes_everything_even_what_still_runs)
{
    struct worker_cgroup *worker = open_worker();
    pid_t pid = run_in(worker, "still", "for i in 1 2 3; do busybox sleep 1000 & done; wait");

    cr_assert(anything_left());
    worker_cgroup_free(worker);
    wait_until_ended(pid);
    cr_expect_not(anything_left());
}

Test(cgroup, a_successor_removes_what_a_crashed_worker_left)
{
    struct worker_cgroup *crashed = open_worker();
    pid_t pid = run_in(crashed, "left", "exec busybox sleep 1000");
    struct worker_cgroup *successor = open_worker();

    wait_until_ended(pid);
    worker_cgroup_free(successor);
    cr_expect_not(anything_left());
    worker_cgroup_free(crashed);
}

Test(cgroup, a_frozen_instance_can_be_removed)
{
    struct worker_cgroup *worker = open_worker();
    struct error err = {0};
    pid_t pid = run_in(worker, "frozen", "exec busybox sleep 1000");
    autofree char *pause = string_printf("runc --root %s pause frozen", fixture_root);

    fixture_shell(pause);
    cr_expect_eq(worker_cgroup_remove(worker, "frozen", &err), 0, "%s", err.message);
    cr_expect(has_ended(pid));
    worker_cgroup_free(worker);
    cr_expect_not(anything_left());
}

Test(cgroup, an_empty_folder_of_the_name_elsewhere_is_removed_too)
{
    autofree char *elsewhere = string_printf(
        "$(find /sys/fs/cgroup -maxdepth 2 -name cgroup.procs | head -n 1 | xargs dirname)/test-%d",
        (int)getpid());
    autofree char *make = string_printf("mkdir -p %s/faas-test-%d", elsewhere, (int)getpid());
    autofree char *clean = string_printf("rmdir %s", elsewhere);

    fixture_shell(make);
    worker_cgroup_free(open_worker());
    cr_expect_not(anything_left());
    fixture_shell(clean);
}

Test(cgroup, removing_one_instance_leaves_the_others)
{
    struct worker_cgroup *worker = open_worker();
    struct error err = {0};
    pid_t one = run_in(worker, "one", "exec busybox sleep 1000"),
          two = run_in(worker, "two", "exec busybox sleep 1000");

    cr_expect_eq(worker_cgroup_remove(worker, "one", &err), 0, "%s", err.message);
    wait_until_ended(one);
    cr_expect_not(has_ended(two));
    cr_expect_eq(worker_cgroup_remove(worker, "one", &err), 0, "gone already: %s", err.message);
    worker_cgroup_free(worker);
}

Test(cgroup, names_that_would_leave_the_folder_are_refused)
{
    struct worker_cgroup *worker = open_worker();
    struct error err = {0};

    cr_expect_null(worker_cgroup_new("../other", &err));
    cr_expect_eq(err.code, ERROR_INVALID_REQUEST);
    cr_expect_null(worker_cgroup_new("", &err));
    cr_expect_eq(worker_cgroup_remove(worker, "..", &err), -1);
    cr_expect_eq(err.code, ERROR_INVALID_REQUEST);
    worker_cgroup_free(worker);
}

Test(cgroup, a_process_that_is_gone_has_no_cgroup)
{
    struct worker_cgroup *worker = open_worker();
    struct error err = {0};
    pid_t pid = fork();

    if (pid == 0)
        _exit(0);
    waitpid(pid, NULL, 0);
    cr_expect_null(instance_cgroup_open(worker, pid, &err));
    cr_expect_neq(err.code, 0);
    worker_cgroup_free(worker);
}

/* ---- a v2 hierarchy, in a mount namespace that shows nothing else ---- */

static void show_v2_only(void)
{
    cr_assert_eq(unshare(CLONE_NEWNS), 0);
    cr_assert_eq(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL), 0);
    while (umount2("/sys/fs/cgroup", MNT_DETACH) == 0)
        ;
    cr_assert_eq(mount("cgroup2", "/sys/fs/cgroup", "cgroup2", 0, NULL), 0);
}

static bool v2_has_memory(void)
{
    with_cleanup(buffer_deinit) struct buffer text = BUFFER_INIT(4096);

    cr_assert_eq(buffer_read_file(&text, "/sys/fs/cgroup/cgroup.controllers", NULL), 0);
    return text.data && strstr(text.data, "memory");
}

Test(cgroup, limits_that_v2_cannot_enforce_are_named)
{
    struct cgroup_support support;
    struct error err = {0};

    show_v2_only();
    struct host_means means = {.seccomp = true, .user_namespaces = true};
    cr_assert_eq(cgroup_detect(&support, &err), 0, "%s", err.message);
    means.cgroups = support;
    int failed = enforcement_check(&means, 0, &err);
    cr_expect_eq(support.version, CGROUP_V2);
    cr_expect_eq(failed, v2_has_memory() ? 0 : -1, "%s", err.message);
    if (failed) {
        cr_expect_eq(err.code, ERROR_UNAVAILABLE);
        cr_expect(strstr(err.message, "memory") && strstr(err.message, "cpu") &&
                      strstr(err.message, "pids"),
                  "%s", err.message);
    }
}

/* A process in an instance's cgroup, as the OCI runtime would put it there. */
static pid_t start_in_v2(const char *path)
{
    autofree char *folder = string_printf("/sys/fs/cgroup%s", path),
                  *procs = string_printf("/sys/fs/cgroup%s/cgroup.procs", path);
    struct error err = {0};
    int ready[2];
    char byte;

    cr_assert_eq(make_directories(folder, 0755, &err), 0, "%s", err.message);
    cr_assert_eq(pipe(ready), 0);
    pid_t pid = fork();
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (write_file_value(procs, "0", NULL) < 0 || write(ready[1], "x", 1) != 1)
            _exit(1);
        for (;;)
            ;
    }
    close(ready[1]);
    cr_assert_eq(read(ready[0], &byte, 1), 1, "the process did not get into %s", path);
    close(ready[0]);
    return pid;
}

/* What /proc tells of a process that was killed and not waited for: on v1 every hierarchy's root. Whoever took that for the
 * instance's own cgroup would kill the whole host, so this test only opens. */
Test(cgroup, a_process_that_has_ended_already_has_no_cgroup_that_is_anybodys)
{
    struct worker_cgroup *worker = open_worker();
    struct error err = {0};
    pid_t pid = fork();

    if (pid == 0)
        _exit(0);
    wait_until_ended(pid);
    struct instance_cgroup *instance = instance_cgroup_open(worker, pid, &err);
    cr_expect_null(instance, "a cgroup that others are in was opened as an instance's");
    cr_expect_eq(err.code, ERROR_NOT_FOUND, "%s", err.message);
    instance_cgroup_close(instance);
    cr_expect_eq(waitpid(pid, NULL, 0), pid);
    worker_cgroup_free(worker);
}

Test(cgroup, a_process_elsewhere_has_no_cgroup_of_an_instance)
{
    struct worker_cgroup *worker = open_worker();
    struct error err = {0};
    struct instance_cgroup *instance = instance_cgroup_open(worker, getpid(), &err);

    cr_expect_null(instance, "this process's own cgroup was opened as an instance's");
    instance_cgroup_close(instance);
    worker_cgroup_free(worker);
}

Test(cgroup, on_v2_an_instance_is_measured_and_killed)
{
    struct error err = {0};
    int status = 0;

    show_v2_only();
    struct worker_cgroup *worker = open_worker();
    autofree char *path = worker_cgroup_path(worker, "i1");
    cr_expect_eq(path[0], '/', "runc wants an absolute path: %s", path);
    pid_t pid = start_in_v2(path);
    struct instance_cgroup *instance = open_instance(worker, pid);
    while (read_stats(instance).cpu_time_ns < 1000 * 1000)
        sched_yield();
    cr_expect_eq(instance_cgroup_kill(instance, &err), 0, "%s", err.message);
    cr_assert_eq(waitpid(pid, &status, 0), pid);
    cr_expect_eq(WTERMSIG(status), SIGKILL);
    instance_cgroup_close(instance);
    worker_cgroup_free(worker);
    cr_expect_not(anything_left());
}

Test(cgroup, on_v2_a_frozen_instance_is_thawed_and_killed)
{
    struct error err = {0};
    int status = 0;

    show_v2_only();
    struct worker_cgroup *worker = open_worker();
    autofree char *path = worker_cgroup_path(worker, "ice2");
    pid_t pid = start_in_v2(path);
    struct instance_cgroup *instance = open_instance(worker, pid);
    cr_assert_eq(instance_cgroup_freeze(instance, &err), 0, "%s", err.message);
    while (!is_frozen(pid))
        sched_yield();
    struct instance_stats frozen = read_stats(instance);
    for (int i = 0; i < 20; i++)
        cr_expect(is_frozen(pid));
    cr_expect_eq(read_stats(instance).cpu_time_ns, frozen.cpu_time_ns);
    cr_assert_eq(instance_cgroup_thaw(instance, &err), 0, "%s", err.message);
    while (read_stats(instance).cpu_time_ns == frozen.cpu_time_ns)
        sched_yield();
    cr_assert_eq(instance_cgroup_freeze(instance, &err), 0, "%s", err.message);
    cr_expect_eq(instance_cgroup_kill(instance, &err), 0, "%s", err.message);
    cr_assert_eq(waitpid(pid, &status, 0), pid);
    cr_expect_eq(WTERMSIG(status), SIGKILL);
    instance_cgroup_close(instance);
    worker_cgroup_free(worker);
    cr_expect_not(anything_left());
}

Test(cgroup, on_v2_leftovers_are_killed_even_when_frozen)
{
    int status = 0;

    show_v2_only();
    struct worker_cgroup *crashed = open_worker();
    autofree char *path = worker_cgroup_path(crashed, "i1");
    autofree char *freeze = string_printf("echo 1 >/sys/fs/cgroup%s/cgroup.freeze", path);
    pid_t pid = start_in_v2(path);
    fixture_shell(freeze);
    struct worker_cgroup *successor = open_worker();

    cr_assert_eq(waitpid(pid, &status, WNOHANG), pid);
    cr_expect_eq(WTERMSIG(status), SIGKILL);
    worker_cgroup_free(successor);
    cr_expect_not(anything_left());
    worker_cgroup_free(crashed);
}

/* ---- by text ---- */

static const char v1_mounts[] =
    "31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755\n"
    "32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw shared:9 - cgroup cgroup rw,cpu,cpuacct\n"
    "33 31 0:30 /docker/abc /sys/fs/cgroup/memory rw master:2 shared:9 - cgroup cgroup rw,memory\n"
    "34 31 0:31 / /sys/fs/cgroup/with\\040space rw - cgroup cgroup rw,name=systemd\n"
    "35 31 0:32 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"
    "36 31 0:33 / /elsewhere/memory rw - cgroup cgroup rw,memory\n"
    "broken line\n"
    "37 31 0:33 / /short rw -\n";

static void expect_folder(const struct cgroup_hierarchy *hierarchy, const char *membership,
                          const char *folder)
{
    struct error err = {0};

    cr_assert_not_null(hierarchy);
    autofree char *path = cgroup_membership_path(membership, hierarchy, &err);
    cr_assert_not_null(path, "%s", err.message);
    autofree char *found = cgroup_folder(hierarchy, path);
    cr_expect_str_eq(found, folder);
}

Test(cgroup_hierarchy, mounts_and_memberships_give_folders)
{
    static const char membership[] =
        "12:cpuacct,cpu:/a/b\n11:memory:/docker/abc/c\n1:name=systemd:/s\n0::/u\n";
    with_cleanup(cgroup_hierarchies_deinit) struct cgroup_hierarchies all = {0};
    struct error err = {0};

    cr_assert_eq(cgroup_hierarchies_parse(v1_mounts, &all, &err), 0, "%s", err.message);
    cr_expect_eq(all.count, 4);
    expect_folder(cgroup_hierarchies_find_v1(&all, "cpu"), membership,
                  "/sys/fs/cgroup/cpu,cpuacct/a/b");
    expect_folder(cgroup_hierarchies_find_v1(&all, "cpuacct"), membership,
                  "/sys/fs/cgroup/cpu,cpuacct/a/b");
    expect_folder(cgroup_hierarchies_find_v1(&all, "memory"), membership,
                  "/sys/fs/cgroup/memory/c");
    expect_folder(cgroup_hierarchies_find_v1(&all, "name=systemd"), membership,
                  "/sys/fs/cgroup/with space/s");
    expect_folder(cgroup_hierarchies_find_v2(&all), membership, "/sys/fs/cgroup/unified/u");
    cr_expect_null(cgroup_hierarchies_find_v1(&all, "mem"));
    cr_expect_null(cgroup_hierarchies_find_v1(&all, "pids"));
}

Test(cgroup_hierarchy, a_backslash_that_begins_no_escape_is_one)
{
    static const char mounts[] = "30 1 0:1 /\\4 /m\\ 12\\x rw - cgroup cgroup rw,memory\n"
                                 "31 1 0:1 /\\7 /m\\04 rw - cgroup cgroup rw,cpu\n"
                                 "32 1 0:1 /\\101 /\\+12\\0421 rw - cgroup cgroup rw,pids\n";
    with_cleanup(cgroup_hierarchies_deinit) struct cgroup_hierarchies all = {0};

    cr_assert_eq(cgroup_hierarchies_parse(mounts, &all, NULL), 0);
    cr_assert_eq(all.count, 3);
    cr_expect_str_eq(all.items[0].root, "/\\4");
    cr_expect_str_eq(all.items[0].mount, "/m\\");
    cr_expect_str_eq(all.items[1].root, "/\\7");
    cr_expect_str_eq(all.items[1].mount, "/m\\04");
    cr_expect_str_eq(all.items[2].root, "/A");
    cr_expect_str_eq(all.items[2].mount, "/\\+12\"1");
}

Test(cgroup_hierarchy, a_membership_that_is_not_told_is_not_found)
{
    static const char *const texts[] = {"", "\n\n", "nonsense", "1:pids", "1:pids:/x\n"};
    with_cleanup(cgroup_hierarchies_deinit) struct cgroup_hierarchies all = {0};
    struct error err = {0};

    cr_assert_eq(cgroup_hierarchies_parse(v1_mounts, &all, &err), 0, "%s", err.message);
    for (size_t i = 0; i < ARRAY_LENGTH(texts); i++) {
        cr_expect_null(
            cgroup_membership_path(texts[i], cgroup_hierarchies_find_v1(&all, "memory"), &err));
        cr_expect_eq(err.code, ERROR_NOT_FOUND);
    }
}
