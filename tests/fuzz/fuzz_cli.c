/* What the command makes of a controller's answers: the first byte chooses the verb, the second the answer's status, the rest is
 * the body of every answer. The linker puts the functions below in the place of the HTTP client's, of the pause between two
 * looks, and of the look for this machine's own controllers. */
#include "base/http_client.h"
#include "cli/cli.h"
#include "cli/run_file.h"

#include <assert.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* As many calls as a verb may make of one answer that says each time that there is more. */
#define CALLS_MAX 64
#define ARGUMENTS_MAX 8

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int __wrap_http_fetch(const struct http_call_options *options, struct http_answer *ret_answer,
                      struct error *err);
struct json *__wrap_run_file_find(const char *url);
int __wrap_nanosleep(const struct timespec *pause, struct timespec *left);

static const char *const lines[][ARGUMENTS_MAX] = {
    {"list"},
    {"list", "--json"},
    {"list", "--names"},
    {"describe", "hello"},
    {"describe", "hello", "--json"},
    {"rm", "hello"},
    {"logs", "hello"},
    {"logs", "hello", "--json"},
    {"logs", "hello", "--follow"},
    {"executions"},
    {"executions", "--json"},
    {"executions", "019a3c1e-5b7c-7d01-8a2b-3c4d5e6f7081"},
    {"workers"},
    {"workers", "--json"},
    {"invoke", "hello"},
    {"invoke", "hello", "--json"},
    {"invoke", "hello", "--async"},
    {"invoke", "hello", "--raw"},
    {"dlq", "list"},
    {"dlq", "show", "019a3c1e-5b7c-7d01-8a2b-3c4d5e6f7081"},
    {"dlq", "redrive", "--all"},
    {"dlq", "purge", "--all"},
    {"deploy", "hello", "/proc/self/status", "--runtime", "native"},
    {"deploy", "hello", "/proc/self/status", "--runtime", "native", "--no-wait"},
    {"dlq", "purge", "--all", "--json"},
    {"workers", "drain", "host-1"},
    {"workers", "resume", "host-1"},
    {"tokens", "list"},
    {"tokens", "create", "billing"},
};

static struct {
    const uint8_t *body;
    size_t len;
    int status;
    unsigned calls;
} script;

static int give_pieces(const struct http_call_options *options)
{
    size_t piece = script.len / 3 + 1;
    for (size_t at = 0; at < script.len; at += piece) {
        size_t left = script.len - at;
        if (options->on_data(options->on_data_arg, (const char *)script.body + at,
                             left < piece ? left : piece) != 0)
            return -1;
    }
    return 0;
}

int __wrap_http_fetch(const struct http_call_options *options, struct http_answer *ret_answer,
                      struct error *err)
{
    *ret_answer = (struct http_answer){.status = script.status,
                                       .body = BUFFER_INIT(options->max_response_bytes)};
    if (++script.calls > CALLS_MAX)
        abort();
    if (options->on_data && script.status / 100 == 2)
        return give_pieces(options) == 0 ? 0 : error_set(err, ERROR_UNAVAILABLE, "aborted");
    return buffer_append(&ret_answer->body, (const char *)script.body, script.len, err);
}

struct json *__wrap_run_file_find(const char *url)
{
    (void)url;
    return NULL;
}

/* Who waits until something is built is told something else after a while, as it would be by a controller. */
int __wrap_nanosleep(const struct timespec *pause, struct timespec *left)
{
    (void)pause;
    (void)left;
    if (script.calls > CALLS_MAX / 2)
        script.status = 503;
    return 0;
}

static void silence(void)
{
    static bool silent;
    if (silent)
        return;
    silent = true;
    stdout = fopen("/dev/null", "w");
    stderr = fopen("/dev/null", "w");
    if (!stdout || !stderr)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const int statuses[] = {200, 404, 202, 502, 204, 299, 401, 0};
    char *argv[ARGUMENTS_MAX + 2] = {(char *)"faas"};
    int argc = 1;
    if (size < 2)
        return 0;
    silence();
    const char *const *line = lines[data[0] % (sizeof(lines) / sizeof(lines[0]))];
    for (int i = 0; i < ARGUMENTS_MAX && line[i]; i++)
        argv[argc++] = (char *)line[i];
    script.status = statuses[data[1] % (sizeof(statuses) / sizeof(statuses[0]))];
    script.body = data + 2;
    script.len = size - 2;
    script.calls = 0;
    cli_main(argc, argv);
    return 0;
}
