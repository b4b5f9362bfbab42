/* A function's definition as a container: command, environment, mounts, limits; see instance_spec.h. */
#include "worker/instance_spec.h"

#include "base/cleanup.h"
#include "base/file.h"
#include "base/text.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define ENV_MAX 512
#define COMMAND_MAX 8
#define CPU_PERIOD_US 100000
#define SHM_BYTES (64ll * 1024 * 1024)
#define MIB (1024ll * 1024)
/* Tasks of our own in each container: faas-init, and the zygote or adapter. */
#define OWN_TASKS 2
/* Functions go before anything else of the host when it runs out of memory. */
#define OOM_SCORE_ADJ 500

static const char default_path[] =
    "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

static size_t count_strings(const char *const *strings)
{
    size_t count = 0;
    while (strings && strings[count])
        count++;
    return count;
}

const char **instance_strings_join(const char *const *first, const char *const *second)
{
    const char *const *lists[] = {first, second};
    size_t count = count_strings(first) + count_strings(second);
    size_t bytes = (count + 1) * sizeof(char *);
    for (size_t l = 0; l < 2; l++)
        for (size_t i = 0; lists[l] && lists[l][i]; i++)
            bytes += strlen(lists[l][i]) + 1;
    const char **joined = malloc(bytes);
    if (!joined)
        return NULL;
    char *text = (char *)(joined + count + 1);
    size_t at = 0;
    for (size_t l = 0; l < 2; l++) {
        for (size_t i = 0; lists[l] && lists[l][i]; i++) {
            joined[at++] = text;
            text = stpcpy(text, lists[l][i]) + 1;
        }
    }
    joined[at] = NULL;
    return joined;
}

/* ---- command ---- */

/* "main" of "main.handler", when it can be a file's name; else NULL. */
static char *handler_module(const struct function_spec *function)
{
    const char *dot = function->handler ? strrchr(function->handler, '.') : NULL;
    if (!dot || dot == function->handler)
        return NULL;
    size_t len = (size_t)(dot - function->handler);
    static const char allowed[] =
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-";
    if (len > 64 || strspn(function->handler, allowed) < len)
        return NULL;
    return strndup(function->handler, len);
}

char *instance_entry(const struct function_spec *function)
{
    autofree char *module = handler_module(function);
    switch (function->runtime) {
    case RUNTIME_PYTHON:
        return string_printf("%s.py", module ? module : "main");
    case RUNTIME_NODEJS:
        return string_printf("%s.js", module ? module : "index");
    default:
        return strdup("bootstrap");
    }
}

/* Names at the top of the code folder, for an error message. */
static void list_folder(const char *path, char *out, size_t size)
{
    DIR *directory = opendir(path);
    const struct dirent *entry;
    size_t len = 0;
    out[0] = '\0';
    while (directory && (entry = readdir(directory)) && len + 40 < size) {
        if (entry->d_name[0] == '.')
            continue;
        len += (size_t)snprintf(out + len, size - len, "%s%.32s", len ? ", " : "", entry->d_name);
    }
    if (directory)
        closedir(directory);
}

static bool has_file(const char *code_dir, const char *name)
{
    autofree char *path = string_printf("%s/%s", code_dir, name);
    return path && access(path, R_OK) == 0;
}

/* The entry file of contract process; NULL when there is none. */
static const char *find_entry(const struct function_spec *function, const char *code_dir,
                              struct error *err)
{
    static const char *const names[RUNTIME_COUNT][3] = {
        [RUNTIME_PYTHON] = {"main.py"},
        [RUNTIME_NODEJS] = {"index.js", "index.mjs", "index.cjs"},
        [RUNTIME_GO] = {"bootstrap"},
        [RUNTIME_NATIVE] = {"bootstrap"},
    };
    for (size_t i = 0; i < 3 && names[function->runtime][i]; i++) {
        if (has_file(code_dir, names[function->runtime][i]))
            return names[function->runtime][i];
    }
    char found[256];
    list_folder(code_dir, found, sizeof(found));
    error_set(err, ERROR_INVALID_REQUEST,
              "the code has no %s at its top, which runtime %s starts; it has: %s",
              function->runtime == RUNTIME_NODEJS ? "index.js or index.mjs"
                                                  : names[function->runtime][0],
              function_runtime_name(function->runtime), *found ? found : "nothing");
    return NULL;
}

const char **instance_command(const struct function_spec *function, const char *code_dir,
                              const char *seen_libexec_dir, struct error *err)
{
    const char *command[COMMAND_MAX] = {0};
    size_t count = 0;
    bool handler = function->contract == CONTRACT_HANDLER;
    const char *entry = handler ? function->handler : find_entry(function, code_dir, err);
    autofree char *python = string_printf("%s/python/adapter.py", seen_libexec_dir);
    autofree char *nodejs = string_printf("%s/nodejs/adapter.js", seen_libexec_dir);
    if (!entry)
        return NULL;
    if (function->runtime == RUNTIME_PYTHON) {
        command[count++] = handler ? "handler" : "zygote";
        command[count++] = "--";
        command[count++] = "python3";
        command[count++] = python;
        command[count++] = handler ? "handler" : "process";
        command[count++] = entry;
    } else if (function->runtime == RUNTIME_NODEJS) {
        command[count++] = handler ? "handler" : "zygote";
        command[count++] = "--";
        command[count++] = "node";
        command[count++] = nodejs;
        command[count++] = handler ? "handler" : "process";
        command[count++] = entry;
    } else {
        command[count++] = "exec";
        command[count++] = "--";
        command[count++] = "./bootstrap";
    }
    const char **packed = instance_strings_join(command, NULL);
    if (!packed || !python || !nodejs) {
        free(packed);
        error_set(err, ERROR_INTERNAL, "out of memory");
        return NULL;
    }
    return packed;
}

const char **instance_generic_command(enum function_runtime runtime, struct error *err)
{
    static const char *const python[] = {
        "generic", "--", "python3", INSTANCE_LIBEXEC_DIR "/python/adapter.py", "generic", NULL};
    static const char *const nodejs[] = {
        "generic", "--", "node", INSTANCE_LIBEXEC_DIR "/nodejs/adapter.js", "generic", NULL};
    static const char *const other[] = {"generic", NULL};
    const char **packed = instance_strings_join(runtime == RUNTIME_PYTHON   ? python
                                                : runtime == RUNTIME_NODEJS ? nodejs
                                                                            : other,
                                                NULL);
    if (!packed)
        error_set(err, ERROR_INTERNAL, "out of memory");
    return packed;
}

/* ---- environment ---- */

/* Ends with '*': every name that begins so. */
static bool name_matches(const char *name, const char *pattern)
{
    size_t len = strlen(pattern);
    return pattern[len - 1] == '*' ? strncmp(name, pattern, len - 1) == 0
                                   : strcmp(name, pattern) == 0;
}

static bool name_in(const char *name, const char *const *patterns)
{
    for (; *patterns; patterns++)
        if (name_matches(name, *patterns))
            return true;
    return false;
}

/* What the interpreter, its loader or its C library have read when they started. */
static bool is_read_at_start(const char *name, enum function_runtime runtime)
{
    static const char *const both[] = {"LD_*",    "GLIBC_TUNABLES", "MALLOC_*", "LANG", "LC_*",
                                       "LOCPATH", "PATH",           "HOME",     NULL};
    static const char *const python[] = {"PYTHON*", NULL};
    static const char *const nodejs[] = {"NODE_*", "UV_*", "OPENSSL_*", "ICU_*", NULL};
    static const char *const nodejs_late[] = {"NODE_ENV", "NODE_TLS_REJECT_UNAUTHORIZED",
                                              "UV_THREADPOOL_SIZE", NULL};
    if (name_in(name, both))
        return true;
    if (runtime == RUNTIME_PYTHON)
        return name_in(name, python);
    return name_in(name, nodejs) && !name_in(name, nodejs_late);
}

bool instance_takes_late_environment(const struct function_spec *function)
{
    if (function->runtime != RUNTIME_PYTHON && function->runtime != RUNTIME_NODEJS)
        return true;
    for (size_t i = 0; i < function->env.count; i++)
        if (is_read_at_start(function->env.items[i].key, function->runtime))
            return false;
    return true;
}

struct environment {
    const char *entries[ENV_MAX + 1];
    char *owned[ENV_MAX]; /* those that were made here */
    size_t count, owned_count;
};

/* Adds "NAME=value", or replaces the entry of that name. */
static int env_put(struct environment *env, const char *entry, struct error *err)
{
    size_t name_len = (size_t)(strchrnul(entry, '=') - entry) + 1;
    for (size_t i = 0; i < env->count; i++) {
        if (strncmp(env->entries[i], entry, name_len) == 0) {
            env->entries[i] = entry;
            return 0;
        }
    }
    if (env->count == ENV_MAX)
        return error_set(err, ERROR_INVALID_REQUEST,
                         "the environment has more than %d variables with the image's own",
                         ENV_MAX);
    env->entries[env->count++] = entry;
    return 0;
}

/* Takes `entry`. */
static int env_put_owned(struct environment *env, char *entry, struct error *err)
{
    if (!entry || env->owned_count == ENV_MAX) {
        free(entry);
        return error_set(err, ERROR_INTERNAL, "out of memory");
    }
    env->owned[env->owned_count++] = entry;
    return env_put(env, entry, err);
}

static int env_fill(struct environment *env, const struct function_spec *function,
                    const char *const *image_env, struct error *err)
{
    if (env_put(env, default_path, err) < 0 || env_put(env, "HOME=/tmp", err) < 0)
        return -1;
    for (size_t i = 0; image_env && image_env[i]; i++) {
        const char *equals = strchr(image_env[i], '=');
        if (equals && equals != image_env[i] && env_put(env, image_env[i], err) < 0)
            return -1;
    }
    for (size_t i = 0; i < function->env.count; i++) {
        const struct key_value *pair = &function->env.items[i];
        if (env_put_owned(env, string_printf("%s=%s", pair->key, pair->value), err) < 0)
            return -1;
    }
    if (!function->name)
        return 0;
    if (env_put_owned(env, string_printf("FUNCTION_NAME=%s", function->name), err) < 0 ||
        env_put_owned(env, string_printf("FUNCTION_VERSION=%lld", (long long)function->version),
                      err) < 0 ||
        env_put_owned(env, string_printf("FUNCTION_MEMORY_MB=%lld", (long long)function->memory_mb),
                      err) < 0)
        return -1;
    if (function->concurrency > 1 &&
        env_put_owned(env,
                      string_printf("FUNCTION_CONCURRENCY=%lld", (long long)function->concurrency),
                      err) < 0)
        return -1;
    return env_put_owned(
        env, string_printf("FUNCTION_TIMEOUT_MS=%lld", (long long)function->timeout_ms), err);
}

const char **instance_environment(const struct function_spec *function,
                                  const char *const *image_env, struct error *err)
{
    struct environment env = {0};
    const char **packed = NULL;
    if (env_fill(&env, function, image_env, err) == 0) {
        packed = instance_strings_join(env.entries, NULL);
        if (!packed)
            error_set(err, ERROR_INTERNAL, "out of memory");
    }
    for (size_t i = 0; i < env.owned_count; i++)
        free(env.owned[i]);
    return packed;
}

/* ---- the container ---- */

static void add_bind(struct instance_spec *spec, const char *destination, const char *source,
                     bool slave)
{
    static const char *const plain[] = {"bind", "ro", "nosuid", "nodev", NULL};
    static const char *const following[] = {"bind", "rslave", "ro", "nosuid", "nodev", NULL};
    const char *const *options = slave ? following : plain;
    spec->mounts[spec->oci.mount_count++] = (struct oci_mount){
        .destination = destination, .type = "bind", .source = source, .options = options};
}

/* It belongs to the function's user, because runc gives a tmpfs the mode of the folder in the image
 * that it covers, whatever `mode` says. */
static int add_tmpfs(struct instance_spec *spec, const char *destination, char **size_option,
                     long long bytes, const char *mode, const char **options)
{
    size_t count = 0;
    *size_option = string_printf("size=%lld", bytes);
    options[count++] = "nosuid";
    options[count++] = "nodev";
    options[count++] = mode;
    options[count++] = "uid=1000";
    options[count++] = "gid=1000";
    options[count++] = *size_option;
    options[count] = NULL;
    spec->mounts[spec->oci.mount_count++] = (struct oci_mount){
        .destination = destination, .type = "tmpfs", .source = "tmpfs", .options = options};
    return *size_option ? 0 : -1;
}

static int add_mounts(struct instance_spec *spec, const struct function_spec *function,
                      const struct instance_spec_options *options)
{
    long long payload =
        options->payload_max_bytes ? (long long)options->payload_max_bytes : 6 * MIB;
    add_bind(spec, INSTANCE_CODE_DIR, options->code_dir, options->late_code);
    add_bind(spec, INSTANCE_LIBEXEC_DIR, options->libexec_dir, false);
    if (options->resolv_conf)
        add_bind(spec, "/etc/resolv.conf", options->resolv_conf, false);
    if (add_tmpfs(spec, "/tmp", &spec->tmp_size, function->tmp_mb * MIB, "mode=1777",
                  spec->tmp_options) < 0)
        return -1;
    return add_tmpfs(spec, INSTANCE_RUN_DIR, &spec->run_size, payload + 2 * MIB, "mode=0700",
                     spec->run_options);
}

struct cgroup_limits instance_cgroup_limits(const struct function_spec *function, bool limit_swap,
                                            limit_set without, struct disk disk)
{
    struct cgroup_limits limits = {.limit_swap =
                                       limit_swap && !(without & LIMIT_BIT(LIMIT_MEMORY))};
    if (!(without & LIMIT_BIT(LIMIT_MEMORY)))
        limits.memory_bytes = function->memory_mb * MIB;
    if (!(without & LIMIT_BIT(LIMIT_CPU)))
        limits.cpu_quota_us = (int64_t)(function->cpus * CPU_PERIOD_US);
    if (!(without & LIMIT_BIT(LIMIT_PIDS)))
        limits.pids = function->pids + OWN_TASKS;
    if (!(without & LIMIT_BIT(LIMIT_IO))) {
        limits.disk = disk;
        limits.io_bps = function->io_bps;
        limits.io_iops = function->io_iops;
    }
    return limits;
}

static void set_limits(struct instance_spec *spec, const struct function_spec *function,
                       const struct instance_spec_options *options)
{
    struct oci_runtime_spec *oci = &spec->oci;
    struct cgroup_limits limits =
        instance_cgroup_limits(function, options->limit_swap, options->without, options->disk);
    oci->memory_bytes = limits.memory_bytes;
    oci->limit_swap = limits.limit_swap;
    oci->cpu_period_us = CPU_PERIOD_US;
    oci->cpu_quota_us = limits.cpu_quota_us;
    oci->pids = limits.pids;
    oci->io_major = limits.disk.major;
    oci->io_minor = limits.disk.minor;
    oci->io_bps = limits.io_bps;
    oci->io_iops = limits.io_iops;
    oci->nofile = options->open_files;
    oci->shm_bytes = SHM_BYTES;
    spec->oom_score_adj = OOM_SCORE_ADJ;
    oci->oom_score_adj = &spec->oom_score_adj;
}

int instance_spec_init(struct instance_spec *spec, const struct function_spec *function,
                       const struct instance_spec_options *options, struct error *err)
{
    static const char *const init[] = {INSTANCE_LIBEXEC_DIR "/init", NULL};
    *spec = (struct instance_spec){0};
    spec->args = instance_strings_join(init, options->command);
    spec->env = instance_environment(function, options->image_env, err);
    if (!spec->env) {
        instance_spec_deinit(spec);
        return -1;
    }
    spec->oci.mounts = spec->mounts;
    if (!spec->args || add_mounts(spec, function, options) < 0) {
        instance_spec_deinit(spec);
        return error_set(err, ERROR_INTERNAL, "out of memory");
    }
    struct oci_runtime_spec *oci = &spec->oci;
    oci->rootfs = options->rootfs;
    oci->rootfs_readonly = true;
    oci->args = spec->args;
    oci->env = spec->env;
    oci->cwd = INSTANCE_CODE_DIR;
    oci->uid = INSTANCE_UID;
    oci->gid = INSTANCE_UID;
    oci->hostname = options->hostname ? options->hostname : function->name;
    oci->cgroups_path = options->cgroups_path;
    oci->network_namespace = options->network_namespace;
    oci->id_map_host_base = options->id_base;
    oci->id_map_size = options->without & LIMIT_BIT(LIMIT_USERNS) ? 0 : INSTANCE_ID_COUNT;
    oci->apparmor_profile = options->apparmor_profile;
    oci->seccomp = !(options->without & LIMIT_BIT(LIMIT_SECCOMP));
    set_limits(spec, function, options);
    return 0;
}

void instance_spec_deinit(struct instance_spec *spec)
{
    free(spec->args);
    free(spec->env);
    free(spec->tmp_size);
    free(spec->run_size);
    *spec = (struct instance_spec){0};
}
