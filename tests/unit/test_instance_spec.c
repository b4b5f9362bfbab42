/* Functions as containers: command, environment, mounts and limits. */
#include "worker/instance_spec.h"

#include "base/cleanup.h"
#include "base/file.h"
#include "base/text.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

static struct function_spec function;
static char directory[64];

static void set_up(void)
{
    strcpy(directory, "/tmp/test-instance-spec-XXXXXX");
    cr_assert_not_null(mkdtemp(directory));
    function_spec_init(&function);
    function.name = strdup("hello");
    function.version = 3;
}

static void tear_down(void)
{
    function_spec_deinit(&function);
    remove_tree(directory, NULL);
}

TestSuite(instance_spec, .init = set_up, .fini = tear_down);

static void add_file(const char *name)
{
    autofree char *path = string_printf("%s/%s", directory, name);
    cr_assert_eq(write_file_atomic(path, "x", 1, 0755, false, NULL), 0);
}

static void expect_command(const char *expected)
{
    struct error err = {0};
    autofree const char **command = instance_command(&function, directory, "/.faas", &err);
    cr_assert_not_null(command, "%s", err.message);
    char joined[512] = "";
    for (size_t i = 0; command[i]; i++) {
        strcat(joined, i ? " " : "");
        strcat(joined, command[i]);
    }
    cr_expect_str_eq(joined, expected, "%s", joined);
}

static void use(enum function_runtime runtime, const char *handler)
{
    function.runtime = runtime;
    free(function.handler);
    function.handler = handler ? strdup(handler) : NULL;
    function.contract = handler ? CONTRACT_HANDLER : CONTRACT_PROCESS;
}

Test(instance_spec, commands_are_those_of_the_protocol)
{
    add_file("main.py");
    add_file("index.mjs");
    add_file("bootstrap");
    use(RUNTIME_PYTHON, NULL);
    expect_command("zygote -- python3 /.faas/python/adapter.py process main.py");
    use(RUNTIME_PYTHON, "main.handler");
    expect_command("handler -- python3 /.faas/python/adapter.py handler main.handler");
    use(RUNTIME_NODEJS, NULL);
    expect_command("zygote -- node /.faas/nodejs/adapter.js process index.mjs");
    use(RUNTIME_NODEJS, "index.handler");
    expect_command("handler -- node /.faas/nodejs/adapter.js handler index.handler");
    use(RUNTIME_GO, NULL);
    expect_command("exec -- ./bootstrap");
    use(RUNTIME_NATIVE, NULL);
    expect_command("exec -- ./bootstrap");
}

Test(instance_spec, a_missing_entry_file_is_named_with_what_is_there)
{
    struct error err = {0};
    add_file("app.py");
    use(RUNTIME_PYTHON, NULL);
    cr_expect_null(instance_command(&function, directory, "/.faas", &err));
    cr_expect_eq(err.code, ERROR_INVALID_REQUEST);
    cr_expect_not_null(strstr(err.message, "main.py"));
    cr_expect_not_null(strstr(err.message, "app.py"));
}

static void expect_entry(const char *expected)
{
    autofree char *entry = instance_entry(&function);
    cr_expect_str_eq(entry, expected);
}

Test(instance_spec, a_single_source_file_gets_the_name_that_is_started)
{
    use(RUNTIME_PYTHON, NULL);
    expect_entry("main.py");
    use(RUNTIME_PYTHON, "app.handler");
    expect_entry("app.py");
    use(RUNTIME_PYTHON, "../../x.handler");
    expect_entry("main.py");
    use(RUNTIME_NODEJS, NULL);
    expect_entry("index.js");
    use(RUNTIME_NATIVE, NULL);
    expect_entry("bootstrap");
}

static const char *variable(const char *const *env, const char *name)
{
    const char *found = NULL;
    for (size_t i = 0; env[i]; i++) {
        if (strncmp(env[i], name, strlen(name)) == 0 && env[i][strlen(name)] == '=') {
            cr_expect_null(found, "%s is there twice", name);
            found = env[i] + strlen(name) + 1;
        }
    }
    return found ? found : "(none)";
}

Test(instance_spec, the_functions_environment_beats_the_images_and_the_platforms_beats_both)
{
    static const char *const image[] = {"PATH=/image", "LANG=C", "FUNCTION_NAME=image",
                                        "broken",      "=worse", NULL};
    function.env.items = calloc(2, sizeof(function.env.items[0]));
    function.env.count = 2;
    function.env.items[0] = (struct key_value){strdup("LANG"), strdup("de")};
    function.env.items[1] = (struct key_value){strdup("FUNCTION_VERSION"), strdup("forged")};
    autofree const char **env = instance_environment(&function, image, NULL);
    cr_assert_not_null(env);
    cr_expect_str_eq(variable(env, "PATH"), "/image");
    cr_expect_str_eq(variable(env, "LANG"), "de");
    cr_expect_str_eq(variable(env, "HOME"), "/tmp");
    cr_expect_str_eq(variable(env, "FUNCTION_NAME"), "hello");
    cr_expect_str_eq(variable(env, "FUNCTION_VERSION"), "3");
    cr_expect_str_eq(variable(env, "FUNCTION_MEMORY_MB"), "128");
    cr_expect_str_eq(variable(env, "FUNCTION_TIMEOUT_MS"), "30000");
    cr_expect_str_eq(variable(env, "broken"), "(none)");
}

static const struct oci_mount *mount_at(const struct instance_spec *spec, const char *destination)
{
    for (size_t i = 0; i < spec->oci.mount_count; i++) {
        if (strcmp(spec->mounts[i].destination, destination) == 0)
            return &spec->mounts[i];
    }
    return NULL;
}

static bool has_option(const struct oci_mount *mount, const char *option)
{
    for (size_t i = 0; mount && mount->options[i]; i++) {
        if (strcmp(mount->options[i], option) == 0)
            return true;
    }
    return false;
}

Test(instance_spec, the_container_has_the_functions_limits_and_nothing_to_write_but_tmp)
{
    static const char *const command[] = {"exec", "--", "./bootstrap", NULL};
    struct instance_spec spec;
    struct instance_spec_options options = {.rootfs = "/rootfs",
                                            .code_dir = "/code",
                                            .libexec_dir = "/libexec",
                                            .command = command,
                                            .id_base = INSTANCE_ID_BASE};
    struct error err = {0};
    function.memory_mb = 64;
    function.cpus = 0.5;
    function.tmp_mb = 16;
    function.pids = 10;
    cr_assert_eq(instance_spec_init(&spec, &function, &options, &err), 0, "%s", err.message);
    cr_expect(spec.oci.rootfs_readonly);
    cr_expect(spec.oci.seccomp);
    cr_expect_eq(spec.oci.uid, 1000);
    cr_expect_eq(spec.oci.memory_bytes, 64 << 20);
    cr_expect_eq(spec.oci.cpu_quota_us * 2, (int64_t)spec.oci.cpu_period_us);
    cr_expect_geq(spec.oci.pids, 10);
    cr_expect_eq(spec.oci.id_map_size, 65536);
    cr_expect_str_eq(spec.oci.cwd, "/app/function");
    cr_expect_str_eq(spec.oci.args[0], "/.faas/init");
    cr_expect_str_eq(spec.oci.args[3], "./bootstrap");
    cr_expect(has_option(mount_at(&spec, "/app/function"), "ro"));
    cr_expect(has_option(mount_at(&spec, "/.faas"), "ro"));
    cr_expect(has_option(mount_at(&spec, "/tmp"), "size=16777216"));
    cr_expect_null(mount_at(&spec, "/etc/resolv.conf"));
    instance_spec_deinit(&spec);
}

Test(instance_spec, what_the_host_cannot_enforce_is_not_asked_of_the_runtime)
{
    static const char *const command[] = {"exec", "--", "./bootstrap", NULL};
    struct instance_spec_options options = {.rootfs = "/rootfs",
                                            .code_dir = "/code",
                                            .libexec_dir = "/libexec",
                                            .command = command,
                                            .disk = {254, 16},
                                            .limit_swap = true};
    function.io_bps = 2 << 20;
    function.io_iops = 100;
    for (int kind = 0; kind < LIMIT_KIND_COUNT; kind++) {
        struct instance_spec spec;
        struct error err = {0};
        options.without = LIMIT_BIT(kind);
        cr_assert_eq(instance_spec_init(&spec, &function, &options, &err), 0, "%s", err.message);
        const struct oci_runtime_spec *oci = &spec.oci;
        cr_expect_eq(oci->memory_bytes == 0, kind == LIMIT_MEMORY, "%s", limit_name(kind));
        cr_expect_eq(!oci->limit_swap, kind == LIMIT_MEMORY, "%s", limit_name(kind));
        cr_expect_eq(oci->cpu_quota_us == 0, kind == LIMIT_CPU, "%s", limit_name(kind));
        cr_expect_eq(oci->pids == 0, kind == LIMIT_PIDS, "%s", limit_name(kind));
        cr_expect_eq(oci->id_map_size == 0, kind == LIMIT_USERNS, "%s", limit_name(kind));
        cr_expect_eq(!oci->seccomp, kind == LIMIT_SECCOMP, "%s", limit_name(kind));
        cr_expect_eq(oci->io_bps, kind == LIMIT_IO ? 0 : 2 << 20, "%s", limit_name(kind));
        cr_expect_eq(oci->io_iops, kind == LIMIT_IO ? 0 : 100, "%s", limit_name(kind));
        cr_expect_eq(oci->io_minor, kind == LIMIT_IO ? 0 : 16, "%s", limit_name(kind));
        instance_spec_deinit(&spec);
    }
}
