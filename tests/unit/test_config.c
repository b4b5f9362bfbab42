/* The worker's settings: which runtime, which name, which token. */
#include "worker/config.h"

#include "base/file.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct worker_settings settings;
static struct error err;

static int load(const char *first, const char *second)
{
    char *argv[] = {(char *)"faas-worker", (char *)first, (char *)second, NULL};
    enum settings_outcome outcome;
    return settings_load(&worker_settings_spec,
                         second  ? 3
                         : first ? 2
                                 : 1,
                         argv, &settings, &outcome, &err);
}

static void tear_down(void)
{
    settings_deinit(&worker_settings_spec, &settings);
}

TestSuite(config, .fini = tear_down);

static void expect_runtime(enum worker_runtime_kind expected)
{
    enum worker_runtime_kind kind;
    cr_assert_eq(worker_settings_runtime(&settings, &kind, &err), 0, "%s", err.message);
    cr_expect_eq(kind, expected);
}

Test(config, containers_are_the_default)
{
    cr_assert_eq(load(NULL, NULL), 0, "%s", err.message);
    expect_runtime(WORKER_RUNTIME_CONTAINER);
}

Test(config, both_names_choose_the_runtime)
{
    cr_assert_eq(load("--use-container=false", NULL), 0, "%s", err.message);
    expect_runtime(WORKER_RUNTIME_SIMPLE);
    settings_deinit(&worker_settings_spec, &settings);
    memset(&settings, 0, sizeof(settings));
    cr_assert_eq(load("--runtime-type=simple", NULL), 0, "%s", err.message);
    expect_runtime(WORKER_RUNTIME_SIMPLE);
    settings_deinit(&worker_settings_spec, &settings);
    memset(&settings, 0, sizeof(settings));
    cr_assert_eq(load("--runtime-type=simple", "--use-container=no"), 0, "%s", err.message);
    expect_runtime(WORKER_RUNTIME_SIMPLE);
}

Test(config, a_contradiction_is_refused_with_both_names)
{
    cr_expect_lt(load("--use-container=true", "--runtime-type=simple"), 0);
    cr_expect_not_null(strstr(err.message, "WORKER_USE_CONTAINER"));
    cr_expect_not_null(strstr(err.message, "WORKER_RUNTIME_TYPE"));
}

Test(config, other_words_are_refused_with_what_would_be_right)
{
    cr_expect_lt(load("--use-container=perhaps", NULL), 0);
    cr_expect_not_null(strstr(err.message, "perhaps"));
    cr_expect_lt(load("--runtime-type=docker", NULL), 0);
    cr_expect_not_null(strstr(err.message, "container or simple"));
    cr_expect_lt(load("--name=Not/Good", NULL), 0);
    cr_expect_not_null(strstr(err.message, "WORKER_NAME"));
}

Test(config, the_token_is_read_from_the_data_folder_and_blanks_are_cut)
{
    char directory[] = "/tmp/test-config-XXXXXX";
    char flag[64], path[64];
    cr_assert_not_null(mkdtemp(directory));
    snprintf(flag, sizeof(flag), "--data-dir=%s", directory);
    snprintf(path, sizeof(path), "%s/worker-token", directory);
    cr_assert_eq(load(flag, NULL), 0, "%s", err.message);
    cr_expect_lt(worker_settings_complete(&settings, &err), 0);
    cr_expect_not_null(strstr(err.message, path));
    write_file_atomic(path, "secret\n", 7, 0600, false, NULL);
    cr_assert_eq(worker_settings_complete(&settings, &err), 0, "%s", err.message);
    cr_expect_str_eq(settings.token, "secret");
    cr_expect_gt(settings.memory_mb, 0);
    cr_expect_gt(settings.start_parallel, 0);
    cr_expect_eq(strncmp(settings.run_dir, "/run/faas/", 10), 0);
    remove_tree(directory, NULL);
}
