/* The worker's settings table, and what it takes from the machine when a setting is left open. */
#include "worker/config.h"

#include "base/cleanup.h"
#include "base/file.h"
#include "base/http_client.h"
#include "base/http_url.h"
#include "base/text.h"
#include "worker/enforcement.h"
#include "worker/network.h"
#include "worker/network_addresses.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/sysinfo.h>
#include <sys/utsname.h>
#include <unistd.h>

#define MIB (1024 * 1024)

#define ROW(name_, type_, member_, ...)                                                            \
    {                                                                                              \
        .name = (name_), .type = SETTING_##type_,                                                  \
        .offset = offsetof(struct worker_settings, member_), __VA_ARGS__                           \
    }

static const struct setting rows[] = {
    ROW("WORKER_CONTROLLER_URL", STRING, controller_url, .default_value = "http://127.0.0.1:8080",
        .text = "Controllers to take work from, separated by commas."),
    ROW("WORKER_TOKEN", STRING, token, .secret = true,
        .text = "The workers' token, as the controller wrote it to DATA_DIR/worker-token."),
    ROW("WORKER_TOKEN_FILE", STRING, token_file,
        .text = "File that holds the token; default: worker-token in WORKER_DATA_DIR."),
    ROW("WORKER_CA_FILE", STRING, ca_file,
        .text = "Certificates (PEM) of the authorities that controllers with https:// are checked "
                "against; default: the system's."),
    ROW("WORKER_SHARED_MEMORY", BOOL, shared_memory, .default_value = "true",
        .text = "Large payloads and results go through memory that both sides have mapped: with a "
                "controller on this machine (up to 48 MiB a controller), and with a Python handler "
                "(6 MiB for one with memory_mb of 96 or more)."),
    ROW("WORKER_NAME", STRING, name,
        .text = "Name of this worker, unique among the controller's; default: the host's name."),
    ROW("WORKER_DATA_DIR", STRING, data_dir, .default_value = "/var/lib/faas",
        .text = "Where unpacked code and bundles are kept (in its folder worker/)."),
    ROW("WORKER_IMAGE_DIR", STRING, image_dir, .default_value = "/var/lib/faas/images",
        .text = "The image store."),
    ROW("WORKER_RUN_DIR", STRING, run_dir,
        .text = "Run-time state, lost at reboot; default: /run/faas/NAME."),
    ROW("WORKER_LIBEXEC_DIR", STRING, libexec_dir,
        .text = "Folder with faas-init (as `init`) and the language adapters; default: beside the "
                "program."),
    ROW("WORKER_USE_CONTAINER", STRING, use_container,
        .text = "true: functions run in containers; false: as plain host processes, without "
                "isolation. The older name of WORKER_RUNTIME_TYPE."),
    ROW("WORKER_RUNTIME_TYPE", STRING, runtime_type,
        .text = "container, or simple: plain host processes, without isolation, for development "
                "and instant rollback; default: container."),
    ROW("WORKER_OCI_RUNTIME", STRING, oci_runtime, .default_value = "runc",
        .text = "Path of runc or of another OCI runtime with its command line."),
    ROW("WORKER_NETWORK_SUBNET", STRING, network_subnet,
        .text = "Addresses for functions with network bridge; default: 10.88.64.0/18."),
    ROW("WORKER_APPARMOR", CHOICE, apparmor, .default_value = "auto", .choices = "auto|require|off",
        .text = "AppArmor profile for containers: where it can be had, always (or the worker does "
                "not start), or never."),
    ROW("WORKER_ALLOW_UNENFORCED", STRING, allow_unenforced,
        .text =
            "Limits that functions may run without where the host cannot enforce them, separated "
            "by commas: memory, swap, cpu, pids, userns (user namespaces), seccomp, io. Without it "
            "the worker does not start on such a host, or, with io, refuses the functions that "
            "ask for it."),
    ROW("WORKER_NETWORK_DENY", STRING, network_deny,
        .text = "Networks that no function may reach, separated by commas, such as "
                "10.0.0.0/8,192.168.0.0/16; name servers stay reachable on port 53."),
    ROW("WORKER_DNS", STRING, dns,
        .text = "Name servers for functions, up to 3 IPv4 addresses separated by commas; default: "
                "the host's."),
    ROW("WORKER_LABELS", STRING, labels,
        .text = "Labels of this worker, KEY or KEY=VALUE separated by commas, such as "
                "gpu,zone=a: functions name those that they need in requires. Every worker has "
                "arch, os and name by itself."),
    ROW("WORKER_CONCURRENCY", INT, concurrency, .default_value = "64", .min = 1, .max = 4096,
        .text = "Invocations at the same time. Of many, one function leaves a ninth to others."),
    ROW("WORKER_MAX_INSTANCES", INT, max_instances, .default_value = "256", .min = 1, .max = 8192,
        .text = "Instances (containers) at the same time, busy and idle."),
    ROW("WORKER_MEMORY_MB", INT, memory_mb, .default_value = "0", .min = 0, .max = 16777216,
        .unit = "MiB",
        .text = "Memory limits of all instances together; 0: four fifths of the machine's."),
    ROW("WORKER_KEEP_ALIVE_MS", INT, keep_alive_ms, .default_value = "300000", .min = 0,
        .max = 86400000, .unit = "ms",
        .text = "How long an idle instance is kept; 0: one instance for each invocation."),
    ROW("WORKER_KEEP_ALIVE_POLICY", CHOICE, keep_alive_policy, .default_value = "history",
        .choices = "history|fixed",
        .text = "fixed: WORKER_KEEP_ALIVE_MS for every function. history: a function whose calls "
                "follow a pattern has its instance as long as a call is likely, and has one made "
                "ahead of a call that is due; others have WORKER_KEEP_ALIVE_MS."),
    ROW("WORKER_FREEZE_AFTER_MS", INT, freeze_after_ms, .default_value = "1000", .min = -1,
        .max = 86400000, .unit = "ms",
        .text = "An instance that was idle for so long is frozen (its processes are stopped) until "
                "its next invocation; 0: at once, -1: never."),
    ROW("WORKER_START_PARALLEL", INT, start_parallel, .default_value = "0", .min = 0, .max = 256,
        .text =
            "Instances started at the same time; 0: twice the number of CPUs. Fewer while calls of "
            "others come, which need the processors."),
    ROW("WORKER_POOL_SIZE", INT, pool_size, .default_value = "4", .min = 0, .max = 64,
        .text = "Containers kept ready for functions that have no instance yet, of each image, "
                "runtime and "
                "network in use; 0: none, each instance is started when it is needed."),
    ROW("WORKER_START_TIMEOUT_MS", INT, start_timeout_ms, .default_value = "30000", .min = 100,
        .max = 600000, .unit = "ms",
        .text = "An instance that is not ready (its code loaded) by then is given up."),
    ROW("WORKER_DRAIN_TIMEOUT_MS", INT, drain_timeout_ms, .default_value = "60000", .min = 0,
        .max = 3600000, .unit = "ms",
        .text = "On SIGTERM: how long running invocations may take to finish."),
    ROW("WORKER_CODE_CACHE_MB", INT, code_cache_mb, .default_value = "4096", .min = 1,
        .max = 16777216, .unit = "MiB",
        .text = "Unpacked code that is kept; the least recently used goes first."),
    ROW("WORKER_PAYLOAD_MAX_BYTES", INT, payload_max_bytes, .default_value = "6291456", .min = 1024,
        .max = 64 * MIB, .unit = "bytes", .text = "Largest payload."),
    ROW("WORKER_RESULT_MAX_BYTES", INT, result_max_bytes, .default_value = "6291456", .min = 1024,
        .max = 64 * MIB, .unit = "bytes", .text = "Largest result."),
    ROW("WORKER_LOG_MAX_BYTES", INT, log_max_bytes, .default_value = "262144", .min = 4096,
        .max = 16 * MIB, .unit = "bytes",
        .text = "Log kept of one invocation: its end, with a marker where it was cut."),
    ROW("WORKER_ARCHIVE_MAX_BYTES", INT, archive_max_bytes, .default_value = "67108864",
        .min = 1024, .max = 1024L * MIB, .unit = "bytes", .text = "Largest code archive, packed."),
    ROW("WORKER_UNPACKED_MAX_BYTES", INT, unpacked_max_bytes, .default_value = "536870912",
        .min = 1024, .max = 16L * 1024 * MIB, .unit = "bytes",
        .text = "Largest code archive, unpacked."),
    ROW("WORKER_ARCHIVE_MAX_FILES", INT, archive_max_files, .default_value = "65536", .min = 1,
        .max = 1048576, .text = "Most files in a code archive."),
    ROW("WORKER_OPEN_FILES", INT, open_files, .default_value = "1024", .min = 64, .max = 1048576,
        .text = "Open files of each process of a function."),
    ROW("WORKER_BUILD_MEMORY_MB", INT, build_memory_mb, .default_value = "1536", .min = 256,
        .max = 65536, .unit = "MiB", .text = "Memory for compiling a function."),
    ROW("WORKER_BUILD_TIMEOUT_MS", INT, build_timeout_ms, .default_value = "120000", .min = 1000,
        .max = 900000, .unit = "ms", .text = "Time for compiling a function."),
    ROW("LOG_LEVEL", CHOICE, log_level, .default_value = "info", .choices = "debug|info|warn|error",
        .text = "Least level that is logged."),
    ROW("LOG_FORMAT", CHOICE, log_format, .default_value = "text", .choices = "text|json",
        .text = "Form of the log lines."),
};

/* -1: not given; 0 or 1; an error for anything else. */
static int parse_use_container(const char *text, int *ret, struct error *err)
{
    static const char *const yes[] = {"true", "1", "yes"};
    static const char *const no[] = {"false", "0", "no"};
    if (!text || !*text) {
        *ret = -1;
        return 0;
    }
    for (size_t i = 0; i < ARRAY_LENGTH(yes); i++) {
        if (strcasecmp(text, yes[i]) == 0 || strcasecmp(text, no[i]) == 0) {
            *ret = strcasecmp(text, yes[i]) == 0;
            return 0;
        }
    }
    return error_set(err, ERROR_INVALID_REQUEST,
                     "WORKER_USE_CONTAINER must be true or false, not \"%s\"", text);
}

static int parse_runtime_type(const char *text, int *ret, struct error *err)
{
    if (!text || !*text)
        *ret = -1;
    else if (strcmp(text, "container") == 0)
        *ret = 1;
    else if (strcmp(text, "simple") == 0)
        *ret = 0;
    else
        return error_set(err, ERROR_INVALID_REQUEST,
                         "WORKER_RUNTIME_TYPE must be container or simple, not \"%s\"", text);
    return 0;
}

int worker_settings_runtime(const struct worker_settings *settings, enum worker_runtime_kind *ret,
                            struct error *err)
{
    int use = -1, type = -1;
    if (parse_use_container(settings->use_container, &use, err) < 0 ||
        parse_runtime_type(settings->runtime_type, &type, err) < 0)
        return -1;
    if (use >= 0 && type >= 0 && use != type)
        return error_set(err, ERROR_INVALID_REQUEST,
                         "WORKER_USE_CONTAINER=%s and WORKER_RUNTIME_TYPE=%s contradict each "
                         "other: set one of them, or both to the same choice",
                         settings->use_container, settings->runtime_type);
    *ret = use == 0 || type == 0 ? WORKER_RUNTIME_SIMPLE : WORKER_RUNTIME_CONTAINER;
    return 0;
}

/* The name becomes part of paths, cgroups and nftables tables. */
static int check_name(const char *name, struct error *err)
{
    size_t len = strlen(name);
    bool good = len >= 1 && len <= 40 && name[0] != '-';
    for (size_t i = 0; good && i < len; i++)
        good = islower((unsigned char)name[i]) || isdigit((unsigned char)name[i]) || name[i] == '-';
    if (!good)
        return error_set(err, ERROR_INVALID_REQUEST,
                         "WORKER_NAME must be 1 to 40 of a-z, 0-9 and '-', not \"%s\"", name);
    return 0;
}

/* Labels that every worker has by itself. */
static const char *const own_labels[] = {"arch", "os", "name"};

static int read_given_labels(const struct worker_settings *settings, struct labels *ret,
                             struct error *err)
{
    if (settings->labels && labels_parse(settings->labels, ret, err) < 0)
        return error_wrap(err, "WORKER_LABELS");
    for (size_t i = 0; i < ret->count; i++)
        for (size_t k = 0; k < ARRAY_LENGTH(own_labels); k++)
            if (label_has_key(ret->items[i], own_labels[k]))
                return error_set(err, ERROR_INVALID_REQUEST,
                                 "WORKER_LABELS must not have %s: each worker has that label by "
                                 "itself",
                                 own_labels[k]);
    if (ret->count + ARRAY_LENGTH(own_labels) > LABELS_MAX)
        return error_set(err, ERROR_INVALID_REQUEST,
                         "WORKER_LABELS must have at most %zu labels, not %zu",
                         LABELS_MAX - ARRAY_LENGTH(own_labels), ret->count);
    return 0;
}

static int add_own_label(struct labels *labels, const char *key, const char *value,
                         struct error *err)
{
    autofree char *text = string_printf("%s=%s", key, value);
    return text ? labels_add(labels, text, err) : error_set(err, ERROR_INTERNAL, "out of memory");
}

int worker_settings_labels(const struct worker_settings *settings, struct labels *ret,
                           struct error *err)
{
    struct labels labels = {0};
    struct utsname system;
    uname(&system);
    if (read_given_labels(settings, &labels, err) < 0 ||
        add_own_label(&labels, "arch", system.machine, err) < 0 ||
        add_own_label(&labels, "os", "linux", err) < 0 ||
        add_own_label(&labels, "name", settings->name, err) < 0) {
        labels_deinit(&labels);
        return -1;
    }
    *ret = labels;
    return 0;
}

static int check_labels(const struct worker_settings *settings, struct error *err)
{
    struct labels labels = {0};
    int outcome = read_given_labels(settings, &labels, err);
    labels_deinit(&labels);
    return outcome;
}

static int check_networks(const struct worker_settings *settings, struct error *err)
{
    struct name_servers servers;

    if (network_filter_check_list(settings->network_deny, err) < 0)
        return error_wrap(err, "WORKER_NETWORK_DENY");
    if (name_servers_parse(settings->dns, &servers, err) < 0)
        return error_wrap(err, "WORKER_DNS");
    if (*settings->network_subnet && subnet_parse(settings->network_subnet, NULL, err) < 0)
        return error_wrap(err, "WORKER_NETWORK_SUBNET");
    return 0;
}

static int check_folders(const struct worker_settings *settings, struct error *err)
{
    const struct {
        const char *name, *path;
    } folders[] = {{"WORKER_DATA_DIR", settings->data_dir},
                   {"WORKER_IMAGE_DIR", settings->image_dir},
                   {"WORKER_RUN_DIR", settings->run_dir},
                   {"WORKER_LIBEXEC_DIR", settings->libexec_dir}};
    for (size_t i = 0; i < ARRAY_LENGTH(folders); i++)
        if (*folders[i].path && folders[i].path[0] != '/')
            return error_set(err, ERROR_INVALID_REQUEST, "%s must be an absolute path, not \"%s\"",
                             folders[i].name, folders[i].path);
    return 0;
}

static int check_controllers(const struct worker_settings *settings, struct error *err)
{
    autofree char *urls = strdup(settings->controller_url);
    struct http_url url;
    char *rest = NULL;
    size_t count = 0;
    if (!urls)
        return error_set(err, ERROR_INTERNAL, "out of memory");
    for (char *text = strtok_r(urls, ", ", &rest); text; text = strtok_r(NULL, ", ", &rest)) {
        if (http_url_parse(text, &url, err) < 0)
            return error_wrap(err, "WORKER_CONTROLLER_URL, address %zu", count + 1);
        count++;
    }
    return count > 0 ? 0
                     : error_set(err, ERROR_INVALID_REQUEST,
                                 "WORKER_CONTROLLER_URL must name at least one controller");
}

static int check_authorities(const struct worker_settings *settings, struct error *err)
{
    return http_check_ca_file(settings->ca_file, err) < 0 ? error_wrap(err, "WORKER_CA_FILE") : 0;
}

static int check(const void *object, struct error *err)
{
    const struct worker_settings *settings = object;
    enum worker_runtime_kind kind;
    if (settings->name && *settings->name && check_name(settings->name, err) < 0)
        return -1;
    limit_set allowed;
    if (check_labels(settings, err) < 0 || check_networks(settings, err) < 0 ||
        check_folders(settings, err) < 0 || check_controllers(settings, err) < 0 ||
        check_authorities(settings, err) < 0 ||
        limit_set_parse(settings->allow_unenforced, &allowed, err) < 0)
        return -1;
    return worker_settings_runtime(settings, &kind, err);
}

const struct settings_spec worker_settings_spec = {
    .program = "faas-worker",
    .prefix = "WORKER_",
    .summary = "Runs functions in OCI containers: takes invocations from controllers over HTTP and "
               "sends the results back.",
    .example = "faas-worker --controller-url http://10.0.0.1:8080 --concurrency 32",
    .action = "--check-host",
    .action_text = "show what this host can enforce, and exit: 1 when functions cannot run",
    .rows = rows,
    .row_count = ARRAY_LENGTH(rows),
    .check = check,
};

/* The host's name as a worker's: lower case, everything else '-'. */
static char *default_name(void)
{
    char host[41] = "";
    if (gethostname(host, sizeof(host) - 1) < 0 || !isalnum((unsigned char)host[0]))
        return strdup("worker");
    host[sizeof(host) - 1] = '\0';
    for (char *c = host; *c; c++)
        *c = isalnum((unsigned char)*c) ? (char)tolower((unsigned char)*c) : '-';
    return strdup(host);
}

/* build/bin/faas-worker finds build/libexec; an installed one /usr/libexec/faas. */
static char *default_libexec_dir(void)
{
    autofree char *directory = program_directory();
    static const char *const candidates[] = {"../libexec", "../libexec/faas"};
    for (size_t i = 0; directory && i < ARRAY_LENGTH(candidates); i++) {
        autofree char *path = string_printf("%s/%s/init", directory, candidates[i]);
        if (path && path_exists(path)) {
            path[strlen(path) - strlen("/init")] = '\0';
            return realpath(path, NULL);
        }
    }
    return strdup("/usr/libexec/faas");
}

static int read_token(struct worker_settings *settings, struct error *err)
{
    if (*settings->token)
        return 0;
    if (!*settings->token_file) {
        free(settings->token_file);
        settings->token_file = string_printf("%s/worker-token", settings->data_dir);
        if (!settings->token_file)
            return error_set(err, ERROR_INTERNAL, "out of memory");
    }
    with_cleanup(buffer_deinit) struct buffer text = BUFFER_INIT(4096);
    if (buffer_read_file(&text, settings->token_file, err) < 0)
        return error_wrap(err, "no WORKER_TOKEN is set, and the token file cannot be used");
    while (text.len > 0 && isspace((unsigned char)text.data[text.len - 1]))
        text.data[--text.len] = '\0';
    if (text.len == 0)
        return error_set(err, ERROR_INVALID_REQUEST, "the token file %s is empty",
                         settings->token_file);
    for (size_t i = 0; i < text.len; i++) {
        if (!isgraph((unsigned char)text.data[i]))
            return error_set(err, ERROR_INVALID_REQUEST,
                             "the token file %s must hold one line of printable characters",
                             settings->token_file);
    }
    free(settings->token);
    settings->token = buffer_take(&text, NULL);
    return settings->token ? 0 : error_set(err, ERROR_INTERNAL, "out of memory");
}

static int64_t machine_memory_mb(void)
{
    struct sysinfo info;
    if (sysinfo(&info) < 0)
        return 1024;
    return (int64_t)((uint64_t)info.totalram * info.mem_unit / MIB);
}

/* Sets a string that was left empty; `value` becomes the struct's. */
static int fill(char **member, char *value)
{
    if (*member && **member) {
        free(value);
        return 0;
    }
    free(*member);
    *member = value;
    return value ? 0 : -1;
}

int worker_settings_fill(struct worker_settings *settings, struct error *err)
{
    if (fill(&settings->name, default_name()) < 0)
        return error_set(err, ERROR_INTERNAL, "out of memory");
    if (check_name(settings->name, err) < 0)
        return -1;
    if (fill(&settings->run_dir, string_printf("/run/faas/%s", settings->name)) < 0 ||
        fill(&settings->libexec_dir, default_libexec_dir()) < 0)
        return error_set(err, ERROR_INTERNAL, "out of memory");
    if (settings->memory_mb == 0)
        settings->memory_mb = machine_memory_mb() * 4 / 5;
    if (settings->start_parallel == 0)
        settings->start_parallel = 2 * get_nprocs();
    return 0;
}

int worker_settings_complete(struct worker_settings *settings, struct error *err)
{
    return worker_settings_fill(settings, err) < 0 ? -1 : read_token(settings, err);
}
