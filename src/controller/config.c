/* The controller's settings table. */
#include "controller/config.h"

#include "base/cleanup.h"
#include "base/http_client.h"
#include "base/http_server.h"
#include "base/text.h"
#include "controller/callback_guard.h"
#include "store/store.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#define AT(member_) .offset = offsetof(struct controller_config, member_)
#define STRING(name_, member_, default_, text_)                                                    \
    {                                                                                              \
        .name = (name_), .type = SETTING_STRING, AT(member_), .default_value = (default_),         \
        .text = (text_)                                                                            \
    }
#define INT(name_, member_, default_, min_, max_, unit_, text_)                                    \
    {                                                                                              \
        .name = (name_), .type = SETTING_INT, AT(member_), .default_value = (default_),            \
        .min = (min_), .max = (max_), .unit = (unit_), .text = (text_)                             \
    }
#define CHOICE(name_, member_, default_, choices_, text_)                                          \
    {                                                                                              \
        .name = (name_), .type = SETTING_CHOICE, AT(member_), .default_value = (default_),         \
        .choices = (choices_), .text = (text_)                                                     \
    }

static const struct setting rows[] = {
    STRING("CONTROLLER_LISTEN", listen, "127.0.0.1:8080",
           "Address and port to serve HTTP on; port 0 takes a free one."),
    STRING("CONTROLLER_TLS_CERT_FILE", tls_cert_file, NULL,
           "Certificate chain (PEM) for serving HTTPS in place of HTTP; with "
           "CONTROLLER_TLS_KEY_FILE."),
    STRING("CONTROLLER_TLS_KEY_FILE", tls_key_file, NULL,
           "Private key (PEM) of the certificate; only its owner should be able to read it."),
    STRING("CONTROLLER_DATA_DIR", data_dir, "/var/lib/faas",
           "Folder for the database, the access tokens and the file controller.url."),
    {.name = "CONTROLLER_DATABASE_URL",
     .type = SETTING_STRING,
     AT(database_url),
     .secret = true,
     .text = "Where functions and executions are kept: sqlite:///absolute/path, or "
             "postgresql://USER:PASSWORD@HOST:PORT/DATABASE; empty means the SQLite file "
             "controller.db in the data folder."},
    {.name = "WORKER_TOKEN",
     .type = SETTING_STRING,
     AT(worker_token),
     .secret = true,
     .text = "Token that workers present; empty means the one in the data folder's file "
             "worker-token, which is made at the first start."},
    INT("CONTROLLER_PAYLOAD_MAX_BYTES", payload_max_bytes, "6291456", 1, 64 * 1024 * 1024, "bytes",
        "Largest payload of an invocation."),
    INT("CONTROLLER_RESULT_MAX_BYTES", result_max_bytes, "6291456", 1, 64 * 1024 * 1024, "bytes",
        "Largest result of an invocation."),
    INT("CONTROLLER_LOG_MAX_BYTES", log_max_bytes, "262144", 1024, 16 * 1024 * 1024, "bytes",
        "Bytes kept of an invocation's log; its end is kept."),
    INT("CONTROLLER_ARCHIVE_MAX_BYTES", archive_max_bytes, "67108864", 1024, 512 * 1024 * 1024,
        "bytes", "Largest code archive, packed."),
    INT("CONTROLLER_ARCHIVE_UNPACKED_MAX_MB", archive_unpacked_max_mb, "512", 1, 16384, "MiB",
        "Largest code archive, unpacked."),
    INT("CONTROLLER_ARCHIVE_MAX_FILES", archive_max_files, "65536", 1, 1000000, "files",
        "Most files in a code archive."),
    INT("CONTROLLER_QUEUE_LENGTH", queue_length, "100000", 1, 10000000, "invocations",
        "Most invocations that wait for a worker; more are answered with 429."),
    INT("CONTROLLER_QUEUE_LENGTH_PER_FUNCTION", queue_length_per_function, "10000", 1, 10000000,
        "invocations", "Most invocations of one function that wait for a worker."),
    INT("CONTROLLER_QUEUE_MAX_MB", queue_max_mb, "512", 1, 1048576, "MiB",
        "Most memory for the payloads of waiting invocations."),
    INT("CONTROLLER_UNWRITTEN_MAX_MB", unwritten_max_mb, "256", 1, 1048576, "MiB",
        "With so much that the database has not taken yet (it is slow, away, or its disk is full), "
        "new invocations are answered with 429."),
    INT("CONTROLLER_QUEUE_WAIT_MS", queue_wait_ms, "30000", 0, 900000, "ms",
        "How long a synchronous invocation waits for a worker before it is answered with 503."),
    INT("CONTROLLER_WORKER_LOST_MS", worker_lost_ms, "15000", 1000, 600000, "ms",
        "A worker that is silent for so long is lost, and with it what it was running."),
    INT("CONTROLLER_WORKER_RECONNECT_MS", worker_reconnect_ms, "3000", 100, 600000, "ms",
        "A worker whose connection has ended and that makes no other for so long is lost, too: its "
        "process is gone."),
    INT("CONTROLLER_ASYNC_ATTEMPTS", async_attempts, "10", 1, 100, "attempts",
        "How often an asynchronous invocation may lose its worker, or meet one that cannot run it, "
        "before it is given up."),
    INT("CONTROLLER_LEASE_MS", lease_ms, "15000", 1000, 600000, "ms",
        "With PostgreSQL: a controller that has not been heard of for so long loses the "
        "asynchronous invocations that it had taken to the others."),
    INT("CONTROLLER_ASYNC_QUEUE_LENGTH", async_queue_length, "1000000", 1, 1000000000,
        "invocations",
        "Most asynchronous invocations that wait in the store (as far as one controller knows); "
        "more are answered with 429."),
    INT("CONTROLLER_IDEMPOTENCY_HOURS", idempotency_hours, "24", 1, 8760, "hours",
        "An Idempotency-Key stands for the same asynchronous invocation so long."),
    INT("CONTROLLER_DEAD_LETTER_RETENTION_HOURS", dead_letter_hours, "336", 1, 876000, "hours",
        "Asynchronous invocations that were given up, and their payloads, are kept so long."),
    STRING("CONTROLLER_CALLBACK_ALLOW", callback_allow, NULL,
           "Networks (CIDR, comma-separated; 10.1.0.0/16,fd00:1::/64) that callbacks may go to "
           "besides the internet's public addresses; only to these may they go without TLS."),
    STRING("CONTROLLER_CALLBACK_CA_FILE", callback_ca_file, NULL,
           "Certificate authorities (PEM) that receivers of callbacks are checked against; empty "
           "means the system's."),
    INT("CONTROLLER_CALLBACK_TIMEOUT_MS", callback_timeout_ms, "10000", 100, 120000, "ms",
        "A receiver of a callback must have answered within this."),
    INT("CONTROLLER_CALLBACK_ATTEMPTS", callback_attempts, "12", 1, 1000, "attempts",
        "A callback that was not taken so often is given up."),
    INT("CONTROLLER_CALLBACK_BACKOFF_MS", callback_backoff_ms, "1000", 1, 3600000, "ms",
        "Pause before the second attempt of a callback; doubled before each later one up to an "
        "hour, with jitter."),
    INT("CONTROLLER_CALLBACK_MAX_AGE_HOURS", callback_age_hours, "24", 1, 720, "hours",
        "No attempt of a callback begins later than this after the end of its invocation."),
    INT("CONTROLLER_CALLBACK_CONCURRENCY", callback_concurrency, "64", 1, 256, "callbacks",
        "Most callbacks that this controller sends at once."),
    INT("CONTROLLER_CALLBACK_CONCURRENCY_PER_HOST", callback_per_host, "8", 1, 256, "callbacks",
        "Most callbacks that this controller sends to one host and port at once."),
    INT("CONTROLLER_CALLBACK_RESULT_MAX_BYTES", callback_result_max_bytes, "262144", 0, 6291456,
        "bytes", "A larger result is left out of a callback, which then has result_link."),
    INT("CONTROLLER_DRAIN_MS", drain_ms, "30000", 0, 3600000, "ms",
        "How long a stopping controller waits for the invocations under way."),
    INT("CONTROLLER_CONNECTIONS", connections, "4096", 16, 100000, "connections",
        "Most HTTP connections at once."),
    INT("CONTROLLER_CONNECTIONS_PER_CLIENT", connections_per_client, "2048", 0, 100000,
        "connections", "Most HTTP connections from one address at once; 0: no limit of its own."),
    INT("CONTROLLER_RATE_LIMIT", rate_limit, "0", 0, 1000000, "requests a second",
        "Most requests from one client address (of IPv6: one /64 network), workers' excepted; more "
        "are answered with 429. 0: no limit."),
    INT("CONTROLLER_RATE_BURST", rate_burst, "100", 1, 1000000, "requests",
        "How many requests a client may make at once after a pause, where there is "
        "CONTROLLER_RATE_LIMIT."),
    INT("CONTROLLER_BODY_MEMORY_MB", body_memory_mb, "512", 16, 1048576, "MiB",
        "Most memory for request bodies that are on their way."),
    INT("CONTROLLER_EXECUTION_RETENTION_HOURS", retention_hours, "168", 1, 876000, "hours",
        "Finished executions and their logs are kept so long."),
    INT("CONTROLLER_EXECUTION_RETENTION_COUNT", retention_count, "100000", 0, 1000000000,
        "executions", "Most executions kept; 0 means no such bound."),
    CHOICE("LOG_LEVEL", log_level, "info", "debug|info|warn|error", "Least level that is logged."),
    CHOICE("LOG_FORMAT", log_format, "text", "text|json", "Form of log lines, on stderr."),
};

static int check_readable(const char *setting, const char *path, struct error *err)
{
    if (!*path || access(path, R_OK) == 0)
        return 0;
    return error_set_errno(err, ERROR_INVALID_REQUEST, errno, "%s: %s cannot be read", setting,
                           path);
}

static int check_tls(const struct controller_config *config, struct error *err)
{
    if (!*config->tls_cert_file != !*config->tls_key_file)
        return error_set(err, ERROR_INVALID_REQUEST,
                         "CONTROLLER_TLS_CERT_FILE and CONTROLLER_TLS_KEY_FILE go together: %s is "
                         "missing",
                         *config->tls_key_file ? "CONTROLLER_TLS_CERT_FILE"
                                               : "CONTROLLER_TLS_KEY_FILE");
    if (check_readable("CONTROLLER_TLS_CERT_FILE", config->tls_cert_file, err) < 0 ||
        check_readable("CONTROLLER_TLS_KEY_FILE", config->tls_key_file, err) < 0)
        return -1;
    return http_check_ca_file(config->callback_ca_file, err) < 0
               ? error_wrap(err, "CONTROLLER_CALLBACK_CA_FILE")
               : 0;
}

static int check(const void *object, struct error *err)
{
    const struct controller_config *config = object;
    if (config->data_dir[0] != '/')
        return error_set(err, ERROR_INVALID_REQUEST,
                         "CONTROLLER_DATA_DIR must be an absolute path, not \"%s\"",
                         config->data_dir);
    if (config->database_url[0] && store_schema_version(config->database_url) < 0)
        return error_set(
            err, ERROR_INVALID_REQUEST,
            "CONTROLLER_DATABASE_URL must begin with sqlite:// (sqlite:///path/to/file) "
            "or postgresql://");
    if (http_check_address(config->listen, err) < 0)
        return error_wrap(err, "CONTROLLER_LISTEN");
    if (check_tls(config, err) < 0)
        return -1;
    struct callback_guard guard;
    if (callback_guard_init(&guard, config->callback_allow, err) < 0)
        return error_wrap(err, "CONTROLLER_CALLBACK_ALLOW");
    if (config->worker_token[0] && strlen(config->worker_token) < 16)
        return error_set(err, ERROR_INVALID_REQUEST,
                         "WORKER_TOKEN must have 16 characters or more");
    if (config->worker_token[strcspn(config->worker_token, " \t\r\n")])
        return error_set(err, ERROR_INVALID_REQUEST,
                         "WORKER_TOKEN must be one word, without blanks");
    return 0;
}

const struct settings_spec controller_settings = {
    .program = "faas-controller",
    .prefix = "CONTROLLER_",
    .summary = "Serves the platform's HTTP API, keeps functions and executions, and hands "
               "invocations to workers.",
    .example = "faas-controller --listen 127.0.0.1:8080 --data-dir /var/lib/faas",
    .action = "--backup FILE, --restore FILE",
    .action_text =
        "copy the SQLite database, which may be in use, to FILE; or put FILE in its place "
        "while no controller runs",
    .rows = rows,
    .row_count = ARRAY_LENGTH(rows),
    .check = check,
};

char *controller_database_url(const struct controller_config *config)
{
    return config->database_url[0] ? strdup(config->database_url)
                                   : string_printf("sqlite://%s/controller.db", config->data_dir);
}
