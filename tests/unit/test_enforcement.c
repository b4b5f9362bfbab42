/* What is missing on a host, and what the operator lets be missing. */
#include "worker/enforcement.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

static struct host_means everything(void)
{
    return (struct host_means){.cgroups = {.version = CGROUP_V1,
                                           .memory = true,
                                           .cpu = true,
                                           .pids = true,
                                           .swap = true,
                                           .io = true},
                               .swap = true,
                               .seccomp = true,
                               .user_namespaces = true,
                               .has_disk = true};
}

static void expect_refused(const struct host_means *means, limit_set allowed, const char *name)
{
    struct error err = {0};
    char part[64];
    snprintf(part, sizeof(part), "cannot enforce these limits: %s (", name);
    cr_assert_eq(enforcement_check(means, allowed, &err), -1, "%s is not refused", name);
    cr_expect_eq(err.code, ERROR_UNAVAILABLE);
    cr_expect(strstr(err.message, part), "%s", err.message);
    cr_expect(strstr(err.message, "WORKER_ALLOW_UNENFORCED"), "%s", err.message);
}

Test(enforcement, a_host_that_has_all_is_taken)
{
    struct host_means means = everything();
    cr_expect_eq(host_means_missing(&means), 0);
    cr_expect_eq(enforcement_check(&means, 0, NULL), 0);
}

Test(enforcement, each_limit_that_is_missing_is_refused_unless_it_is_allowed)
{
    for (int kind = 0; kind < LIMIT_KIND_COUNT; kind++) {
        struct host_means means = everything();
        limit_set others = (LIMIT_BIT(LIMIT_KIND_COUNT) - 1) & ~LIMIT_BIT(kind);
        means.cgroups.memory = kind != LIMIT_MEMORY;
        means.cgroups.cpu = kind != LIMIT_CPU;
        means.cgroups.pids = kind != LIMIT_PIDS;
        means.cgroups.swap = kind != LIMIT_SWAP;
        means.user_namespaces = kind != LIMIT_USERNS;
        means.seccomp = kind != LIMIT_SECCOMP;
        means.cgroups.io = kind != LIMIT_IO;
        cr_expect_eq(host_means_missing(&means), LIMIT_BIT(kind), "%s", limit_name(kind));
        if (LIMITS_ASKED_FOR & LIMIT_BIT(kind))
            continue;
        expect_refused(&means, 0, limit_name(kind));
        expect_refused(&means, others, limit_name(kind));
        cr_expect_eq(enforcement_check(&means, LIMIT_BIT(kind), NULL), 0, "%s", limit_name(kind));
    }
}

Test(enforcement, only_functions_that_ask_for_it_are_refused_for_want_of_io)
{
    struct host_means means = everything();
    struct error err = {0};
    struct function_spec function;
    function_spec_init(&function);
    means.has_disk = false;
    cr_expect_eq(host_means_missing(&means), LIMIT_BIT(LIMIT_IO));
    cr_expect_eq(enforcement_check(&means, 0, NULL), 0);
    cr_expect_eq(enforcement_check_function(&function, LIMIT_BIT(LIMIT_IO), NULL), 0);
    function.io_iops = 100;
    cr_expect_eq(enforcement_check_function(&function, 0, NULL), 0);
    cr_expect_eq(enforcement_check_function(&function, LIMIT_BIT(LIMIT_IO), &err), -1);
    cr_expect_eq(err.code, ERROR_UNAVAILABLE);
    cr_expect(strstr(err.message, "WORKER_ALLOW_UNENFORCED"), "%s", err.message);
    function.io_iops = 0;
    function.io_bps = 2 << 20;
    cr_expect_eq(enforcement_check_function(&function, LIMIT_BIT(LIMIT_IO), NULL), -1);
    function_spec_deinit(&function);
}

Test(enforcement, only_what_is_not_allowed_is_named)
{
    struct host_means means = everything();
    means.cgroups.cpu = means.cgroups.pids = false;
    expect_refused(&means, 0, "cpu, pids");
    expect_refused(&means, LIMIT_BIT(LIMIT_CPU), "pids");
}

Test(enforcement, swap_is_no_limit_where_there_is_none)
{
    struct host_means means = everything();
    means.cgroups.swap = means.swap = false;
    cr_expect_eq(host_means_missing(&means), 0);
}

Test(enforcement, a_list_is_read_and_written)
{
    limit_set set = 0;
    char names[LIMIT_NAMES_SIZE];
    cr_assert_eq(limit_set_parse(" seccomp,pids, memory,pids", &set, NULL), 0);
    limit_set_names(set, names);
    cr_expect_str_eq(names, "memory, pids, seccomp");
    cr_assert_eq(limit_set_parse("memory,swap,cpu,pids,userns,seccomp,io", &set, NULL), 0);
    cr_expect_eq(set, LIMIT_BIT(LIMIT_KIND_COUNT) - 1);
    limit_set_names(set, names);
    cr_expect_str_eq(names, "memory, swap, cpu, pids, userns, seccomp, io");
    cr_assert_eq(limit_set_parse(NULL, &set, NULL), 0);
    cr_expect_eq(set, 0);
}

Test(enforcement, a_name_that_is_none_is_told_with_the_right_ones)
{
    limit_set set = 77;
    struct error err = {0};
    cr_assert_eq(limit_set_parse("memory,ram", &set, &err), -1);
    cr_expect_eq(err.code, ERROR_INVALID_REQUEST);
    cr_expect(strstr(err.message, "\"ram\""), "%s", err.message);
    cr_expect(strstr(err.message, "memory, swap, cpu, pids, userns, seccomp, io"), "%s",
              err.message);
    cr_expect_eq(set, 77);
}
