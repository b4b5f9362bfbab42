/* Bundles on disk, and the one for running by hand, with real runc. */
#include "container_fixture.h"

TestSuite(bundle, .init = fixture_set_up, .fini = fixture_tear_down, .timeout = 120);

static void write_config(const char *text)
{
    autofree char *path = string_printf("%s/config.json", fixture_bundle);
    struct error err = {0};

    cr_assert_eq(make_directories(fixture_bundle, 0755, &err), 0, "%s", err.message);
    cr_assert_eq(write_file_atomic(path, text, strlen(text), 0644, false, &err), 0, "%s",
                 err.message);
}

static void expect_bad(const char *text, const char *pointer)
{
    struct error err = {0};

    write_config(text);
    cr_expect_eq(oci_bundle_check(fixture_bundle, &err), -1, "%s", text);
    if (pointer)
        cr_expect_str_eq(err.field, pointer, "%s: %s", text, err.message);
}

Test(bundle, what_is_written_passes_the_check)
{
    struct error err = {0};
    struct stat status;
    autofree char *path = string_printf("%s/config.json", fixture_bundle);

    fixture_write_script("true");
    cr_expect_eq(oci_bundle_check(fixture_bundle, &err), 0, "%s", err.message);
    cr_assert_eq(stat(path, &status), 0);
    cr_expect_eq(status.st_mode & 07777, 0644);
}

Test(bundle, writing_again_replaces_the_configuration)
{
    struct error err = {0};

    fixture_write_script("true");
    fixture_write_script("echo second >&3");
    autofree char *output = fixture_run_to_end("again");
    cr_expect_str_eq(output, "second\n");
    cr_expect_eq(oci_bundle_check(fixture_bundle, &err), 0, "%s", err.message);
}

Test(bundle, a_spec_that_cannot_run_leaves_no_file)
{
    struct error err = {0};

    cr_expect_eq(oci_bundle_write(fixture_bundle, &(struct oci_runtime_spec){0}, &err), -1);
    cr_expect_not(path_exists(fixture_bundle));
}

Test(bundle, the_check_names_what_is_wrong)
{
    struct error err = {0};

    cr_expect_eq(oci_bundle_check(fixture_bundle, &err), -1, "there is none yet");
    expect_bad("", NULL);
    expect_bad("[]", "/ociVersion");
    expect_bad("{\"ociVersion\":\"2.0\"}", "/ociVersion");
    expect_bad("{\"ociVersion\":\"1.0.2\"}", "/process/args");
    expect_bad("{\"ociVersion\":\"1.0.2\",\"process\":{\"args\":[7]}}", "/process/args");
    expect_bad("{\"ociVersion\":\"1.0.2\",\"process\":{\"args\":[\"a\"]}}", "/root/path");
    expect_bad(
        "{\"ociVersion\":\"1.0.2\",\"process\":{\"args\":[\"a\"]},\"root\":{\"path\":\"nowhere\"}}",
        "/root/path");
    expect_bad("{\"ociVersion\":\"1.0.2\",\"process\":{\"args\":[\"a\"]},\"root\":{\"path\":\"/"
               "\"},\"mounts\":[{}]}",
               "/mounts/0");
    expect_bad("{\"ociVersion\":\"1.0.2\",\"process\":{\"args\":[\"a\"]},\"root\":{\"path\":\"/\"},"
               "\"mounts\":[{\"destination\":\"/a\",\"type\":\"bind\",\"source\":\"/nowhere\"}]}",
               "/mounts/0");
    expect_bad("{\"ociVersion\":\"1.0.2\",\"process\":{\"args\":[\"a\"]},\"root\":{\"path\":\"/\"},"
               "\"mounts\":[{\"destination\":\"/a\",\"options\":[\"rbind\"]}]}",
               "/mounts/0");
}

/* The spec of a function with its code in a bind mount, as the worker makes it. */
static struct oci_runtime_spec spec_with_code(const char **args, struct oci_mount *mount)
{
    static const char *const options[] = {"bind", "ro", "nosuid", "nodev", NULL};
    autofree char *command = string_printf("mkdir -p %s/code && echo 'the code' >%s/code/main",
                                           fixture_folder, fixture_folder);
    static char code[80];
    struct oci_runtime_spec spec = fixture_spec("busybox cat /tmp/main >&3 2>&3", args);

    fixture_shell(command);
    snprintf(code, sizeof(code), "%s/code", fixture_folder);
    *mount = (struct oci_mount){"/tmp", "bind", code, options};
    spec.mounts = mount;
    spec.network_namespace = "/run/gone";
    spec.cgroups_path = "/gone/too";
    return spec;
}

Test(bundle, an_export_runs_without_what_it_was_made_from)
{
    const char *args[4];
    struct oci_mount mount;
    struct error err = {0};
    struct oci_runtime_spec spec = spec_with_code(args, &mount);
    autofree char *forget = string_printf("rm -r %s/code %s", fixture_folder, fixture_rootfs);

    cr_assert_eq(oci_bundle_export(fixture_bundle, &spec, &err), 0, "%s", err.message);
    fixture_shell(forget);
    cr_expect_eq(oci_bundle_check(fixture_bundle, &err), 0, "%s", err.message);
    autofree char *output = fixture_run_to_end("exported");
    cr_expect_str_eq(output, "the code\n");
}

Test(bundle, an_export_does_not_overwrite)
{
    const char *args[4];
    struct error err = {0};
    struct oci_runtime_spec spec = fixture_spec("true", args);

    fixture_write_bundle(&spec);
    cr_expect_eq(oci_bundle_export(fixture_bundle, &spec, &err), -1);
    cr_expect_eq(err.code, ERROR_CONFLICT, "%s", err.message);
    cr_expect_eq(oci_bundle_check(fixture_bundle, NULL), 0, "what was there is whole");
}

Test(bundle, a_failed_export_leaves_nothing)
{
    const char *args[4];
    struct error err = {0};
    struct oci_mount missing = {"/x", "bind", "/no/such/folder", NULL};
    struct oci_runtime_spec spec = fixture_spec("true", args);

    spec.mounts = &missing;
    cr_expect_eq(oci_bundle_export(fixture_bundle, &spec, &err), -1);
    cr_expect(strstr(err.message, "/no/such/folder"), "%s", err.message);
    cr_expect_not(path_exists(fixture_bundle));
}
