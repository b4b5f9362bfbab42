/* faas bundle: the OCI bundle that a worker runs for a function, complete in one folder, for inspection and for
 * `runc run` by hand. The same code makes it that makes the worker's (worker/instance_spec.h). */
#include "base/cleanup.h"
#include "base/file.h"
#include "base/text.h"
#include "cli/api.h"
#include "cli/output.h"
#include "cli/verbs.h"
#include "model/function.h"
#include "oci/archive.h"
#include "oci/bundle.h"
#include "oci/image_store.h"
#include "worker/instance_spec.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define CODE_MAX_BYTES (64UL * 1024 * 1024)

/* Everything that the bundle is made from. */
struct parts {
    struct function_spec function;
    struct image_store *store;
    struct image image;
    char *temporary; /* owned: a folder that holds `code` */
    char *code_dir;  /* owned */
    char *libexec_dir;
    const char **command;
    struct instance_spec spec;
};

static void parts_deinit(struct parts *parts)
{
    instance_spec_deinit(&parts->spec);
    free(parts->command);
    free(parts->libexec_dir);
    if (parts->temporary)
        remove_tree(parts->temporary, NULL);
    free(parts->temporary);
    free(parts->code_dir);
    image_deinit(&parts->image);
    image_store_close(parts->store);
    function_spec_deinit(&parts->function);
}

static int unpack_code(struct parts *parts, const struct json *function, struct error *err)
{
    size_t len = 0;
    const char *base64 = json_string(json_get(function, "artifact"), &len);
    if (!base64)
        base64 = json_string(json_get(function, "code"), &len);
    if (!base64)
        return error_set(err, ERROR_UNAVAILABLE, "the controller did not send the function's code");
    with_cleanup(buffer_deinit) struct buffer code = BUFFER_INIT(2 * CODE_MAX_BYTES);
    if (base64_decode(base64, len, &code, err))
        return -1;
    char folder[] = "/tmp/faas-bundle-XXXXXX";
    if (!mkdtemp(folder))
        return error_set_errno(err, ERROR_INTERNAL, errno, "cannot make a temporary folder");
    parts->temporary = strdup(folder);
    parts->code_dir = string_printf("%s/code", folder);
    if (!parts->temporary || !parts->code_dir)
        return error_set(err, ERROR_INTERNAL, "out of memory");
    if (archive_detect(code.data, code.len) != ARCHIVE_KIND_FILE)
        return archive_extract(code.data, code.len, parts->code_dir, NULL, NULL, err);
    autofree char *entry = instance_entry(&parts->function);
    return archive_extract_file(code.data, code.len, entry ? entry : "main",
                                parts->function.runtime == RUNTIME_NATIVE, parts->code_dir, err);
}

/* Beside the programs in a build tree and in an installation. */
static int find_libexec(struct parts *parts, struct error *err)
{
    autofree char *programs = program_directory();
    static const char *const places[] = {"../libexec", "../libexec/faas"};
    for (size_t i = 0; programs && i < ARRAY_LENGTH(places); i++) {
        autofree char *place = string_printf("%s/%s", programs, places[i]);
        autofree char *init = string_printf("%s/init", place ? place : "");
        if (init && path_exists(init)) {
            parts->libexec_dir = realpath(place, NULL);
            return 0;
        }
    }
    return error_set(err, ERROR_NOT_FOUND,
                     "faas-init is not where it should be: %s/../libexec/init",
                     programs ? programs : "");
}

static int find_image(const struct cli *cli, struct parts *parts, struct error *err)
{
    const char *directory =
        cli_option(cli, "image-dir") ? cli_option(cli, "image-dir") : getenv("WORKER_IMAGE_DIR");
    parts->store =
        image_store_open(directory && directory[0] ? directory : "/var/lib/faas/images", NULL, err);
    return parts->store ? image_store_get(parts->store, parts->function.image, &parts->image, err)
                        : -1;
}

static int collect(const struct cli *cli, const struct json *function, struct parts *parts,
                   struct error *err)
{
    function_spec_init(&parts->function);
    if (function_spec_read(function, &parts->function, err) || find_image(cli, parts, err) ||
        find_libexec(parts, err) || unpack_code(parts, function, err))
        return -1;
    parts->command = instance_command(&parts->function, parts->code_dir, INSTANCE_LIBEXEC_DIR, err);
    if (!parts->command)
        return -1;
    struct instance_spec_options options = {
        .rootfs = parts->image.rootfs,
        .image_env = (const char *const *)parts->image.env,
        .code_dir = parts->code_dir,
        .libexec_dir = parts->libexec_dir,
        .hostname = parts->function.name,
        .command = parts->command,
        .id_base = INSTANCE_ID_BASE,
        .without = LIMIT_BIT(LIMIT_IO), /* which disk it will run from is not known */
        .open_files = 1024,
        .payload_max_bytes = 6UL * 1024 * 1024,
    };
    return instance_spec_init(&parts->spec, &parts->function, &options, err);
}

/* Whether the user namespace's root, a nobody on the host, can reach the bundle. */
static bool everybody_may_enter(const char *directory)
{
    autofree char *parent = strdup(directory);
    char *slash = parent ? strrchr(parent, '/') : NULL;
    if (slash)
        *slash = '\0';
    autofree char *path = parent ? realpath(!slash ? "." : parent[0] ? parent : "/", NULL) : NULL;
    for (char *end = path ? path + strlen(path) : NULL; path && end > path;) {
        struct stat status;
        *end = '\0';
        if (stat(path, &status) == 0 && !(status.st_mode & S_IXOTH))
            return false;
        end = strrchr(path, '/');
    }
    return true;
}

static int export(const struct cli *cli, const char *directory, struct error *err)
{
    struct api api;
    autojson *function = NULL;
    struct parts parts = {0};
    char name[800], path[1024];

    api_escape(cli->arguments[0], name, sizeof(name));
    snprintf(path, sizeof(path), "/v1/functions/%s?include=artifact", name);
    struct api_call call = {.method = "GET", .path = path};
    if (api_init(&api, cli, err) || api_get_json(&api, &call, &function, err))
        return -1;
    int result = collect(cli, function, &parts, err);
    if (result == 0 && !everybody_may_enter(directory)) {
        fprintf(stderr,
                "faas: %s is below a folder that only its owner may enter: the bundle goes without "
                "a user namespace, whose "
                "root could not reach it\n",
                directory);
        parts.spec.oci.id_map_size = 0;
    }
    if (result == 0)
        result = oci_bundle_export(directory, &parts.spec.oci, err);
    parts_deinit(&parts);
    return result;
}

static int run_bundle(struct cli *cli)
{
    struct error err = {0};
    autofree char *default_directory = string_printf("%s-bundle", cli->arguments[0]);
    const char *directory = cli_option(cli, "out") ? cli_option(cli, "out") : default_directory;

    if (!directory || export(cli, directory, &err))
        return cli_fail(cli, &err);
    if (cli_json(cli))
        printf("{\"bundle\":\"%s\"}\n", directory);
    else
        printf("%s holds config.json and rootfs; run it: runc run --bundle %s try-1\n", directory,
               directory);
    return 0;
}

static const struct cli_option options[] = {
    {"out", 'o', "DIR",
     "where to, a folder that does not exist yet or is empty (default NAME-bundle)", NULL},
    {"image-dir", 0, "DIR",
     "this machine's image store (default /var/lib/faas/images; environment: WORKER_IMAGE_DIR)",
     NULL},
};

const struct cli_verb cli_verb_bundle = {
    .name = "bundle",
    .arguments = "NAME",
    .summary = "write the OCI bundle that a worker runs for this function",
    .description = "On a machine that has the function's image. `runc run --bundle DIR ID` then "
                   "serves one invocation with the payload\n"
                   "from stdin, and ends with the function's exit status. Below a folder that only "
                   "its owner may enter, the bundle goes\n"
                   "without the user namespace that the worker's has.",
    .example = "faas bundle hello --out ./bundle\necho '{}' | runc run --bundle ./bundle try-1",
    .options = options,
    .option_count = ARRAY_LENGTH(options),
    .min_arguments = 1,
    .max_arguments = 1,
    .run = run_bundle,
};
