/* faas deploy: a file or folder and a function's settings become one PUT; waits until the version
 * is ready.
 *
 * A folder may hold faas.json with the function's fields as the API names them (`faas new` writes
 * one); options beat it. */
#include "base/cleanup.h"
#include "base/file.h"
#include "base/text.h"
#include "cli/api.h"
#include "cli/options.h"
#include "cli/output.h"
#include "cli/verbs.h"
#include "model/function.h"
#include "oci/archive.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#define CODE_MAX_BYTES (64UL * 1024 * 1024)

static int read_code(const char *path, struct buffer *code, struct error *err)
{
    struct stat status;
    if (stat(path, &status))
        return error_set_errno(err, ERROR_NOT_FOUND, errno, "cannot read the function's code at %s",
                               path);
    if (S_ISDIR(status.st_mode))
        return archive_pack_directory(path, CODE_MAX_BYTES, code, err);
    return buffer_read_file(code, path, err);
}

/* PATH, else ./NAME when that is a folder, else the current folder. */
static const char *code_path(const struct cli *cli)
{
    struct stat status;
    if (cli->argument_count > 1)
        return cli->arguments[1];
    if (stat(cli->arguments[0], &status) == 0 && S_ISDIR(status.st_mode))
        return cli->arguments[0];
    return ".";
}

static int read_folder_settings(const char *path, struct json **ret_settings, struct error *err)
{
    autofree char *file = string_printf("%s/faas.json", path);
    struct buffer text = BUFFER_INIT(256 * 1024);
    int result = 0;

    *ret_settings = NULL;
    if (file && path_exists(file)) {
        result = buffer_read_file(&text, file, err);
        if (result == 0 && !(*ret_settings = json_parse(text.data, text.len, NULL, err)))
            result = error_wrap(err, "%s", file);
        else if (result == 0 && json_type(*ret_settings) != JSON_OBJECT)
            result = error_set(err, ERROR_INVALID_REQUEST, "%s must hold a JSON object", file);
    }
    buffer_deinit(&text);
    return result;
}

/* By the entry file, so that `faas deploy hello` needs no --runtime. */
static const char *guess_runtime(const char *path)
{
    static const struct {
        const char *entry, *runtime;
    } guesses[] = {{"main.py", "python"},
                   {"index.js", "nodejs"},
                   {"index.mjs", "nodejs"},
                   {"main.go", "go"},
                   {"bootstrap", "native"}};
    static const struct {
        const char *suffix, *runtime;
    } suffixes[] = {{".py", "python"}, {".js", "nodejs"}, {".mjs", "nodejs"}, {".go", "go"}};
    for (size_t i = 0; i < ARRAY_LENGTH(guesses); i++) {
        autofree char *entry = string_printf("%s/%s", path, guesses[i].entry);
        if (entry && path_exists(entry))
            return guesses[i].runtime;
    }
    for (size_t i = 0; i < ARRAY_LENGTH(suffixes); i++) {
        size_t len = strlen(path), suffix = strlen(suffixes[i].suffix);
        if (len > suffix && strcmp(path + len - suffix, suffixes[i].suffix) == 0)
            return suffixes[i].runtime;
    }
    return NULL;
}

/* The option for that member of `retry`, if it was given; for any member with NULL. */
static const char *retry_option(const struct cli *cli, const char *key)
{
    static const struct {
        const char *option, *key;
    } members[] = {{"retry-attempts", "max_attempts"},
                   {"retry-backoff", "backoff_ms"},
                   {"retry-max-age", "max_age_ms"}};
    for (size_t i = 0; i < ARRAY_LENGTH(members); i++)
        if ((!key || strcmp(members[i].key, key) == 0) && cli_option(cli, members[i].option))
            return cli_option(cli, members[i].option);
    return NULL;
}

static int write_number_options(const struct cli *cli, struct json_writer *writer,
                                struct error *err)
{
    if (write_int_option(cli, writer, "memory", "memory_mb", err) ||
        write_double_option(cli, writer, "cpus", "cpus", err) ||
        write_int_option(cli, writer, "tmp", "tmp_mb", err) ||
        write_int_option(cli, writer, "pids", "pids", err) ||
        write_int_option(cli, writer, "io-bps", "io_bps", err) ||
        write_int_option(cli, writer, "io-iops", "io_iops", err) ||
        write_int_option(cli, writer, "network-kbps", "network_kbps", err) ||
        write_int_option(cli, writer, "min-instances", "min_instances", err) ||
        write_int_option(cli, writer, "max-instances", "max_instances", err) ||
        write_int_option(cli, writer, "concurrency", "concurrency", err) ||
        write_double_option(cli, writer, "rate-limit", "rate_limit", err) ||
        write_int_option(cli, writer, "rate-burst", "rate_burst", err) ||
        write_int_option(cli, writer, "max-concurrency", "max_concurrency", err) ||
        write_int_option(cli, writer, "reserved-concurrency", "reserved_concurrency", err) ||
        write_duration_option(cli, writer, "timeout", "timeout_ms", err) ||
        write_duration_option(cli, writer, "keep-alive", "keep_alive_ms", err))
        return -1;
    return 0;
}

/* The --retry-… options as one object, with what faas.json says of the rest. */
static int write_retry(const struct cli *cli, struct json_writer *writer,
                       const struct json *settings, struct error *err)
{
    if (!retry_option(cli, NULL))
        return 0;
    json_key(writer, "retry");
    json_object_begin(writer);
    int result = 0;
    if (write_int_option(cli, writer, "retry-attempts", "max_attempts", err) ||
        write_duration_option(cli, writer, "retry-backoff", "backoff_ms", err) ||
        write_duration_option(cli, writer, "retry-max-age", "max_age_ms", err))
        result = -1;
    const struct json *given = json_get(settings, "retry");
    json_foreach (i, value, given) {
        const char *key = json_key_at(given, i);
        if (retry_option(cli, key))
            continue;
        json_key(writer, key);
        json_write_value(writer, value);
    }
    json_object_end(writer);
    return result;
}

/* All --env (or --label) options as one object. */
static int write_pairs(const struct cli *cli, struct json_writer *writer, const char *option,
                       const char *key, struct error *err)
{
    bool begun = false;
    for (size_t i = 0; i < cli->option_count; i++) {
        const char *pair = cli->options[i].value;
        if (strcmp(cli->options[i].name, option) != 0)
            continue;
        const char *equals = strchr(pair, '=');
        if (!equals || equals == pair)
            return error_set(err, ERROR_INVALID_REQUEST, "--%s must be KEY=VALUE, not %s", option,
                             pair);
        if (!begun) {
            json_key(writer, key);
            json_object_begin(writer);
            begun = true;
        }
        autofree char *name = strndup(pair, (size_t)(equals - pair));
        json_member_string(writer, name ? name : "", equals + 1);
    }
    if (begun)
        json_object_end(writer);
    return 0;
}

/* From a file, so that it is in no list of processes. A line end behind it is not part of it. */
static int write_callback_secret(const struct cli *cli, struct json_writer *writer,
                                 struct error *err)
{
    const char *path = cli_option(cli, "callback-secret-file");
    with_cleanup(buffer_deinit) struct buffer text = BUFFER_INIT(4096);
    if (!path)
        return 0;
    if (buffer_read_file(&text, path, err) < 0)
        return error_wrap(err, "--callback-secret-file");
    size_t len = text.len;
    while (len > 0 && (text.data[len - 1] == '\n' || text.data[len - 1] == '\r'))
        len--;
    json_key(writer, "callback_secret");
    json_write_string_len(writer, text.data ? text.data : "", len);
    if (text.data)
        explicit_bzero(text.data, text.len);
    return 0;
}

/* All options of that name as one list. */
static void write_list(const struct cli *cli, struct json_writer *writer, const char *option,
                       const char *key)
{
    if (!cli_option(cli, option))
        return;
    json_key(writer, key);
    json_array_begin(writer);
    for (size_t i = 0; i < cli->option_count; i++)
        if (strcmp(cli->options[i].name, option) == 0)
            json_write_string(writer, cli->options[i].value);
    json_array_end(writer);
}

static const struct {
    const char *option, *key;
} string_options[] = {{"runtime", "runtime"}, {"contract", "contract"},
                      {"handler", "handler"}, {"network", "network"},
                      {"image", "image"},     {"callback", "callback_url"}};

/* Whether an option on the command line replaces the field `key` of faas.json. */
static bool field_overridden(const struct cli *cli, const char *key)
{
    static const struct {
        const char *option, *key;
    } others[] = {{"memory", "memory_mb"},
                  {"tmp", "tmp_mb"},
                  {"pids", "pids"},
                  {"io-bps", "io_bps"},
                  {"io-iops", "io_iops"},
                  {"cpus", "cpus"},
                  {"timeout", "timeout_ms"},
                  {"env", "env"},
                  {"label", "labels"},
                  {"public", "public"},
                  {"requires", "requires"},
                  {"network-allow", "network_allow"},
                  {"network-kbps", "network_kbps"},
                  {"min-instances", "min_instances"},
                  {"max-instances", "max_instances"},
                  {"concurrency", "concurrency"},
                  {"rate-limit", "rate_limit"},
                  {"rate-burst", "rate_burst"},
                  {"max-concurrency", "max_concurrency"},
                  {"reserved-concurrency", "reserved_concurrency"},
                  {"callback-secret-file", "callback_secret"},
                  {"keep-alive", "keep_alive_ms"}};
    for (size_t i = 0; i < ARRAY_LENGTH(string_options); i++)
        if (strcmp(string_options[i].key, key) == 0)
            return cli_option(cli, string_options[i].option) != NULL;
    for (size_t i = 0; i < ARRAY_LENGTH(others); i++)
        if (strcmp(others[i].key, key) == 0)
            return cli_option(cli, others[i].option) != NULL;
    if (strcmp(key, "retry") == 0)
        return retry_option(cli, NULL) != NULL;
    return strcmp(key, "name") == 0 || strcmp(key, "code") == 0;
}

static int write_fields(const struct cli *cli, struct json_writer *writer,
                        const struct json *settings, const char *path, struct error *err)
{
    json_foreach (i, value, settings) {
        const char *key = json_key_at(settings, i);
        if (field_overridden(cli, key))
            continue;
        json_key(writer, key);
        json_write_value(writer, value);
    }
    for (size_t i = 0; i < ARRAY_LENGTH(string_options); i++)
        json_member_string(writer, string_options[i].key,
                           cli_option(cli, string_options[i].option));
    if (!cli_option(cli, "runtime") && !json_get(settings, "runtime")) {
        const char *runtime = guess_runtime(path);
        if (!runtime)
            return error_set(err, ERROR_INVALID_REQUEST,
                             "say --runtime python, nodejs, go or native: %s has none of main.py, "
                             "index.js, index.mjs, main.go, "
                             "bootstrap",
                             path);
        json_member_string(writer, "runtime", runtime);
    }
    if (cli_flag(cli, "public"))
        json_member_bool(writer, "public", true);
    write_list(cli, writer, "network-allow", "network_allow");
    write_list(cli, writer, "requires", "requires");
    if (write_number_options(cli, writer, err) || write_retry(cli, writer, settings, err) ||
        write_callback_secret(cli, writer, err) || write_pairs(cli, writer, "env", "env", err) ||
        write_pairs(cli, writer, "label", "labels", err))
        return -1;
    return 0;
}

static int make_request(const struct cli *cli, const char *path, struct buffer *request,
                        struct error *err)
{
    struct buffer code = BUFFER_INIT(CODE_MAX_BYTES);
    struct buffer base64 = BUFFER_INIT(CODE_MAX_BYTES * 2);
    autojson *settings = NULL;
    int result = -1;

    if (read_folder_settings(path, &settings, err) == 0 && read_code(path, &code, err) == 0 &&
        base64_encode(code.data, code.len, &base64, err) == 0) {
        struct json_writer *writer = json_writer_new(request);
        json_object_begin(writer);
        result = write_fields(cli, writer, settings, path, err);
        json_key(writer, "code");
        json_write_string_len(writer, base64.data ? base64.data : "", base64.len);
        json_object_end(writer);
        if (json_writer_finish(writer, result == 0 ? err : NULL))
            result = -1;
    }
    buffer_deinit(&code);
    buffer_deinit(&base64);
    return result;
}

/* Polls until `version` is no longer building. */
static int wait_until_built(const struct api *api, const char *path, struct json **function,
                            struct error *err)
{
    struct api_call call = {.method = "GET", .path = path};
    while (strcmp(json_get_string(*function, "state") ? json_get_string(*function, "state") : "",
                  "building") == 0) {
        struct timespec pause = {.tv_nsec = 100 * 1000 * 1000};
        nanosleep(&pause, NULL);
        json_free(*function);
        *function = NULL;
        if (api_get_json(api, &call, function, err))
            return -1;
    }
    return 0;
}

static int report(const struct cli *cli, const struct json *function)
{
    const char *state = json_get_string(function, "state");
    const char *output = json_get_string(function, "build_output");
    bool ready = state && strcmp(state, "ready") == 0;
    if (cli_json(cli)) {
        print_json(stdout, function, false);
    } else if (ready) {
        printf("%s%s%s version %lld is %sready%s\n", style_bold(stdout), cli->arguments[0],
               style_off(stdout), (long long)json_get_int(function, "version", 0),
               style_green(stdout), style_off(stdout));
    } else {
        fprintf(stderr, "faas: %s version %lld could not be built\n", cli->arguments[0],
                (long long)json_get_int(function, "version", 0));
        if (output)
            print_untrusted(stderr, output, strlen(output));
    }
    return ready ? 0 : EXIT_FUNCTION_FAILED;
}

static int run_deploy(struct cli *cli)
{
    const char *name = cli->arguments[0];
    const char *path = code_path(cli);
    struct error err = {0};
    struct api api;
    struct buffer request = BUFFER_INIT(CODE_MAX_BYTES * 2);
    autojson *function = NULL;
    char url[256];
    int result = -1;

    snprintf(url, sizeof(url), "/v1/functions/%s", name);
    if (!function_name_valid(name))
        error_set_field(
            &err, ERROR_INVALID_REQUEST, "/name",
            "a function's name is 1 to 63 of a-z, 0-9 and '-', not at either end; not %.80s", name);
    else if (api_init(&api, cli, &err) == 0 && make_request(cli, path, &request, &err) == 0) {
        struct api_call call = {
            .method = "PUT", .path = url, .body = request.data, .body_len = request.len};
        if (api_get_json(&api, &call, &function, &err) == 0)
            result = cli_flag(cli, "no-wait") ? 0 : wait_until_built(&api, url, &function, &err);
    }
    buffer_deinit(&request);
    if (result)
        return cli_fail(cli, &err);
    if (cli_flag(cli, "no-wait")) {
        print_json(stdout, function, false);
        return 0;
    }
    return report(cli, function);
}

static const struct cli_option options[] = {
    {"runtime", 'r', "R", "the language; found by the entry file when not given",
     "python|nodejs|go|native"},
    {"contract", 0, "C", "a fresh process per call (default), or a handler that is loaded once",
     "process|handler"},
    {"handler", 0, "H", "module.function of contract handler, such as main.handler", NULL},
    {"memory", 'm', "MB", "memory limit in MiB, 16 to 10240 (default 128)", NULL},
    {"cpus", 0, "N", "processors, 0.05 and up (default 1.0)", NULL},
    {"timeout", 't', "DUR", "time limit, such as 500ms, 30s or 5m (default 30s)", NULL},
    {"env", 'e', "K=V", "an environment variable; may be given often", NULL},
    {"network", 0, "N", "out through NAT (default), or loopback only", "bridge|none"},
    {"network-allow", 0, "DEST",
     "reach this only: HOST[:PORT[-PORT]][/tcp|/udp]; may be given often", NULL},
    {"network-kbps", 0, "N", "kilobits a second, each way (default: no limit)", NULL},
    {"image", 0, "NAME", "another image than the runtime's own", NULL},
    {"tmp", 0, "MB", "size of /tmp in MiB (default 64)", NULL},
    {"pids", 0, "N", "most processes and threads at once (default 64)", NULL},
    {"io-bps", 0, "N", "bytes a second from disk, and to it (default: no limit)", NULL},
    {"io-iops", 0, "N", "reads a second from disk, and writes (default: no limit)", NULL},
    {"min-instances", 0, "N", "instances kept ready (default 0)", NULL},
    {"max-instances", 0, "N", "most instances at the same time; 0, the default, is no bound", NULL},
    {"concurrency", 0, "N",
     "calls that one instance takes at the same time (default 1); contract handler", NULL},
    {"rate-limit", 0, "N", "calls that are accepted a second, such as 0.5 (default: no limit)",
     NULL},
    {"rate-burst", 0, "N", "so many at once after a pause (default: a second's worth)", NULL},
    {"max-concurrency", 0, "N", "calls at the same time; 0, the default, is no bound", NULL},
    {"reserved-concurrency", 0, "N", "places at workers that are its own; it gets no more", NULL},
    {"retry-attempts", 0, "N", "asynchronous calls: so many attempts may fail (default 1)", NULL},
    {"retry-backoff", 0, "DUR", "pause before the second attempt, then doubled (default 1s)", NULL},
    {"retry-max-age", 0, "DUR", "no attempt begins later than this (default 24h)", NULL},
    {"keep-alive", 0, "DUR", "how long an idle instance is kept; 0s: none is used twice", NULL},
    {"callback", 0, "URL", "told of the end of each asynchronous call", NULL},
    {"callback-secret-file", 0, "F", "signs what is told: 16 to 256 bytes, never shown again",
     NULL},
    {"label", 0, "K=V", "a label; may be given often", NULL},
    {"requires", 0, "LABEL", "a label that its worker must have, K or K=V; may be given often",
     NULL},
    {"public", 0, NULL, "/fn/NAME needs no token", NULL},
    {"no-wait", 0, NULL, "do not wait until a compiled function is built", NULL},
};

const struct cli_verb cli_verb_deploy = {
    .name = "deploy",
    .arguments = "NAME [PATH]",
    .summary = "create a function, or make a new version of it",
    .description = "PATH is a source file, an archive (.zip, .tar, .tar.gz) or a folder; without "
                   "it, the folder NAME if there is one,\n"
                   "else the current one. A folder's faas.json may hold the function's fields; "
                   "options beat it. Calls that are under\n"
                   "way finish on the old version, and none fails because of the update.",
    .example = "faas deploy hello ./hello --runtime python --memory 128 --timeout 10s\n"
               "faas deploy api main.py --contract handler --handler main.handler --env STAGE=test",
    .options = options,
    .option_count = ARRAY_LENGTH(options),
    .min_arguments = 1,
    .max_arguments = 2,
    .run = run_deploy,
};
