/* Bundles on disk: writing, checking, and making one that stands on its own. */
#include "oci/bundle.h"

#include "base/cleanup.h"
#include "base/file.h"
#include "base/json.h"
#include "base/spawn.h"
#include "base/text.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define COPY_TIMEOUT_MS (10 * 60 * 1000)

static const struct json_limits config_limits = {.max_bytes = OCI_CONFIG_MAX_BYTES,
                                                 .max_depth = 32};

int oci_bundle_write(const char *directory, const struct oci_runtime_spec *spec, struct error *err)
{
    with_cleanup(buffer_deinit) struct buffer config = BUFFER_INIT(OCI_CONFIG_MAX_BYTES);
    autofree char *path = string_printf("%s/config.json", directory);

    if (!path)
        return error_set(err, ERROR_INTERNAL, "out of memory");
    if (oci_runtime_spec_write(spec, &config, err) < 0 ||
        make_directories(directory, 0711, err) < 0 ||
        write_file_atomic(path, config.data, config.len, 0644, false, err) < 0)
        return error_wrap(err, "bundle %s", directory);
    return 0;
}

/* ---- check ---- */

/* `path` as the runtime sees it: relative ones start at the bundle. */
static char *resolve(const char *directory, const char *path)
{
    return path[0] == '/' ? strdup(path) : string_printf("%s/%s", directory, path);
}

static int check_exists(const char *directory, const char *path, const char *pointer,
                        struct error *err)
{
    struct stat status;
    autofree char *resolved = resolve(directory, path);

    if (!resolved)
        return error_set(err, ERROR_INTERNAL, "out of memory");
    if (stat(resolved, &status) < 0)
        return error_set_field(err, ERROR_INVALID_REQUEST, pointer, "%s: %s", resolved,
                               strerror(errno));
    return 0;
}

static bool is_bind(const struct json *mount)
{
    const char *type = json_get_string(mount, "type");

    if (type && strcmp(type, "bind") == 0)
        return true;
    json_foreach (i, option, json_get(mount, "options")) {
        const char *text = json_string(option, NULL);
        if (text && (strcmp(text, "bind") == 0 || strcmp(text, "rbind") == 0))
            return true;
    }
    return false;
}

static int check_mounts(const char *directory, const struct json *mounts, struct error *err)
{
    json_foreach (i, mount, mounts) {
        char pointer[64];
        const char *destination = json_get_string(mount, "destination");
        const char *source = json_get_string(mount, "source");

        snprintf(pointer, sizeof(pointer), "/mounts/%zu", i);
        if (!destination || destination[0] != '/')
            return error_set_field(err, ERROR_INVALID_REQUEST, pointer,
                                   "a mount needs an absolute destination");
        if (is_bind(mount) && (!source || check_exists(directory, source, pointer, err) < 0))
            return source ? -1
                          : error_set_field(err, ERROR_INVALID_REQUEST, pointer,
                                            "a bind mount needs a source");
    }
    return 0;
}

static int check_config(const char *directory, const struct json *config, struct error *err)
{
    const char *version = json_get_string(config, "ociVersion");
    const char *rootfs = json_get_string(json_get(config, "root"), "path");
    const struct json *args = json_get(json_get(config, "process"), "args");

    if (!version || strncmp(version, "1.", 2) != 0)
        return error_set_field(err, ERROR_INVALID_REQUEST, "/ociVersion",
                               "\"%.32s\" is not a version 1.x", version ? version : "");
    if (json_type(config) != JSON_OBJECT || json_count(args) == 0 ||
        !json_string(json_at(args, 0), NULL))
        return error_set_field(err, ERROR_INVALID_REQUEST, "/process/args", "no program given");
    if (!rootfs)
        return error_set_field(err, ERROR_INVALID_REQUEST, "/root/path",
                               "no root file system given");
    if (check_exists(directory, rootfs, "/root/path", err) < 0)
        return -1;
    return check_mounts(directory, json_get(config, "mounts"), err);
}

int oci_bundle_check(const char *directory, struct error *err)
{
    with_cleanup(buffer_deinit) struct buffer text = BUFFER_INIT(OCI_CONFIG_MAX_BYTES);
    autofree char *path = string_printf("%s/config.json", directory);

    if (!path)
        return error_set(err, ERROR_INTERNAL, "out of memory");
    if (buffer_read_file(&text, path, err) < 0)
        return error_wrap(err, "bundle %s", directory);
    autojson *config = json_parse(text.data ? text.data : "", text.len, &config_limits, err);
    if (!config || check_config(directory, config, err) < 0)
        return error_wrap(err, "bundle %s: config.json", directory);
    return 0;
}

/* ---- export ---- */

/* cp keeps modes, links and holes, and shares blocks where the file system can. */
static int copy_tree(const char *from, const char *to, struct error *err)
{
    const char *const argv[] = {"cp", "-a", "--reflink=auto", "--", from, to, NULL};
    const struct spawn_options options = {
        .argv = argv, .timeout_ms = COPY_TIMEOUT_MS, .output_max = 4096};
    with_cleanup(spawn_result_deinit) struct spawn_result result = {0};

    if (spawn_run(&options, &result, err) < 0)
        return -1;
    return spawn_result_check(&result, "cp", err);
}

/* A spec whose mounts are copies with sources of their own. */
struct export
{
    const char *directory;
    struct oci_mount *mounts; /* owned */
    char **sources;           /* owned, as are the strings; NULL for mounts that are no bind */
    size_t count;
};

static void export_deinit(struct export *export)
{
    for (size_t i = 0; export->sources && i < export->count; i++)
        free(export->sources[i]);
    free(export->sources);
    free(export->mounts);
}

static int export_mount(struct export *export, size_t index, struct error *err)
{
    struct oci_mount *mount = &export->mounts[index];

    if (strcmp(mount->type, "bind") != 0)
        return 0;
    export->sources[index] = string_printf("mounts/%zu", index);
    autofree char *target = string_printf("%s/mounts/%zu", export->directory, index);
    if (!export->sources[index] || !target)
        return error_set(err, ERROR_INTERNAL, "out of memory");
    if (copy_tree(mount->source, target, err) < 0)
        return error_wrap(err, "copy of %s", mount->source);
    mount->source = export->sources[index];
    return 0;
}

static int export_mounts(struct export *export, const struct oci_runtime_spec *spec,
                         struct error *err)
{
    autofree char *folder = string_printf("%s/mounts", export->directory);

    export->count = spec->mount_count;
    export->mounts = calloc(spec->mount_count + 1, sizeof(*export->mounts));
    export->sources = calloc(spec->mount_count + 1, sizeof(*export->sources));
    if (!folder || !export->mounts || !export->sources)
        return error_set(err, ERROR_INTERNAL, "out of memory");
    if (make_directories(folder, 0755, err) < 0)
        return -1;
    for (size_t i = 0; i < spec->mount_count; i++) {
        export->mounts[i] = spec->mounts[i];
        if (export_mount(export, i, err) < 0)
            return -1;
    }
    return 0;
}

static int export_all(const char *directory, const struct oci_runtime_spec *spec, struct error *err)
{
    with_cleanup(export_deinit) struct export export = {.directory = directory};
    struct oci_runtime_spec copy = *spec;
    autofree char *rootfs = string_printf("%s/rootfs", directory);

    if (!rootfs)
        return error_set(err, ERROR_INTERNAL, "out of memory");
    if (copy_tree(spec->rootfs, rootfs, err) < 0)
        return error_wrap(err, "copy of %s", spec->rootfs);
    if (export_mounts(&export, spec, err) < 0)
        return -1;
    copy.rootfs = "rootfs";
    copy.mounts = export.mounts;
    copy.network_namespace = NULL;
    copy.cgroups_path = NULL;
    return oci_bundle_write(directory, &copy, err);
}

int oci_bundle_export(const char *directory, const struct oci_runtime_spec *spec, struct error *err)
{
    if (rmdir(directory) < 0 && errno != ENOENT)
        return error_set_errno(err, errno == ENOTEMPTY ? ERROR_CONFLICT : ERROR_INVALID_REQUEST,
                               errno, "bundle folder %s", directory);
    if (make_directories(directory, 0711, err) < 0)
        return -1;
    if (export_all(directory, spec, err) < 0) {
        remove_tree(directory, NULL);
        return error_wrap(err, "export of a bundle to %s", directory);
    }
    return 0;
}
