/* faas invoke: one call. The result goes to stdout; log and a line of figures go to stderr, so that
 * pipes get the result only. */
#include "base/cleanup.h"
#include "base/text.h"
#include "cli/api.h"
#include "cli/output.h"
#include "cli/verbs.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define PAYLOAD_READ_MAX (64UL * 1024 * 1024)

static int read_payload(const struct cli *cli, struct buffer *payload, struct error *err)
{
    const char *data = cli_option(cli, "data");
    const char *file = cli_option(cli, "file");
    bool from_stdin = (cli->argument_count > 1) || (file && strcmp(file, "-") == 0);

    if (cli->argument_count > 1 && strcmp(cli->arguments[1], "-") != 0)
        return error_set(err, ERROR_INVALID_REQUEST,
                         "the payload is given with --data JSON, --file F or - (stdin), not as %s",
                         cli->arguments[1]);
    if ((data != NULL) + (file != NULL) + (cli->argument_count > 1) > 1)
        return error_set(err, ERROR_INVALID_REQUEST, "give only one of --data, --file and -");
    if (data)
        return buffer_append_string(payload, data, err);
    if (from_stdin)
        return buffer_read_fd(payload, STDIN_FILENO, err);
    if (file)
        return buffer_read_file(payload, file, err);
    return buffer_append_string(payload, "{}", err);
}

static int64_t metric(const struct json *execution, const char *name)
{
    return json_get_int(json_get(execution, "metrics"), name, 0);
}

static void print_place(const struct json *execution)
{
    const char *worker = json_get_string(execution, "worker");
    print_word(stderr, json_get_string(execution, "function"));
    fprintf(stderr, " v%lld on ", (long long)json_get_int(execution, "version", 0));
    print_word(stderr, worker ? worker : "no worker");
    fprintf(stderr, ", execution ");
    print_word(stderr, json_get_string(execution, "id"));
}

static void print_summary(const struct json *execution)
{
    const char *status = json_get_string(execution, "status");
    char duration[32], start[32], memory[32];
    format_duration_ns((uint64_t)metric(execution, "duration"), duration, sizeof(duration));
    format_duration_ns((uint64_t)metric(execution, "start_time"), start, sizeof(start));
    format_bytes((uint64_t)metric(execution, "memory_peak"), memory, sizeof(memory));
    fputs(style_status(stderr, status ? status : ""), stderr);
    print_word(stderr, status);
    fprintf(stderr, "%s in %s", style_off(stderr), duration);
    if (json_get_bool(execution, "cold_start", false))
        fprintf(stderr, ", cold start %s", start);
    fprintf(stderr, ", memory %s  %s", memory, style_dim(stderr));
    print_place(execution);
    fprintf(stderr, "%s\n", style_off(stderr));
}

static void print_error_details(const struct json *error)
{
    const char *type = json_get_string(error, "type");
    const char *message = json_get_string(error, "message");
    if (!error || json_type(error) != JSON_OBJECT)
        return;
    fputs(style_red(stderr), stderr);
    print_word(stderr, type ? type : "error");
    fprintf(stderr, "%s: ", style_off(stderr));
    if (message)
        print_untrusted(stderr, message, strlen(message));
    fprintf(stderr, "\n");
    json_foreach (i, line, json_get(error, "stack")) {
        const char *text = json_string(line, NULL);
        fprintf(stderr, "  ");
        if (text)
            print_untrusted(stderr, text, strlen(text));
        fprintf(stderr, "\n");
    }
}

static void print_execution(const struct json *execution)
{
    const char *logs = json_get_string(execution, "logs");
    const struct json *result = json_get(execution, "result");
    if (logs && logs[0]) {
        fprintf(stderr, "%s", style_dim(stderr));
        print_untrusted(stderr, logs, strlen(logs));
        fprintf(stderr, "%s%s", logs[strlen(logs) - 1] == '\n' ? "" : "\n", style_off(stderr));
    }
    print_error_details(json_get(execution, "error"));
    if (result && json_type(result) != JSON_NULL)
        print_json(stdout, result, isatty(STDOUT_FILENO));
    fflush(stdout);
    print_summary(execution);
}

static int invoke(const struct cli *cli, const struct api *api, const struct buffer *payload,
                  struct error *err)
{
    char path[256];
    autojson *execution = NULL;
    bool async = cli_flag(cli, "async");
    const char *priority = cli_option(cli, "priority");
    const char *callback = cli_option(cli, "callback");
    autofree char *callback_line = callback ? string_printf("Callback-Url: %s", callback) : NULL;
    if (callback && (!async || strpbrk(callback, "\r\n")))
        return error_set(err, ERROR_INVALID_REQUEST,
                         async ? "--callback must be a URL" : "--callback is for --async only");
    if (priority && !async)
        return error_set(err, ERROR_INVALID_REQUEST, "--priority is for --async only");
    snprintf(path, sizeof(path), "/v1/functions/%s/invocations%s%s%s", cli->arguments[0],
             async ? "?mode=async" : "", priority ? "&priority=" : "", priority ? priority : "");
    struct api_call call = {.method = "POST",
                            .path = path,
                            .header = callback_line,
                            .body = payload->data ? payload->data : "",
                            .body_len = payload->len};

    if (api_get_json(api, &call, &execution, err))
        return -1;
    const char *id = json_get_string(execution, "id");
    if (!id)
        return error_set(err, ERROR_UNAVAILABLE, "the controller's answer has no id");
    if (cli_json(cli))
        print_json(stdout, execution, false);
    else if (async)
        print_line(id);
    else
        print_execution(execution);
    const char *status = json_get_string(execution, "status");
    return async || (status && strcmp(status, "succeeded") == 0) ? 0 : EXIT_FUNCTION_FAILED;
}

static int invoke_raw(const struct cli *cli, const struct api *api, const struct buffer *payload,
                      struct error *err)
{
    char path[256];
    struct http_answer answer = {0};
    int result = 0;
    snprintf(path, sizeof(path), "/fn/%s", cli->arguments[0]);
    struct api_call call = {.method = "POST",
                            .path = path,
                            .body = payload->data ? payload->data : "",
                            .body_len = payload->len};

    if (api_call(api, &call, &answer, err))
        return -1;
    if (answer.status == 502 || answer.status == 504) {
        fwrite(answer.body.data ? answer.body.data : "", 1, answer.body.len, stderr);
        fprintf(stderr, "\n");
        result = EXIT_FUNCTION_FAILED;
    } else if (http_answer_check(&answer, err)) {
        result = -1;
    } else {
        fwrite(answer.body.data ? answer.body.data : "", 1, answer.body.len, stdout);
    }
    http_answer_deinit(&answer);
    return result;
}

static int run_invoke(struct cli *cli)
{
    struct error err = {0};
    struct api api;
    struct buffer payload = BUFFER_INIT(PAYLOAD_READ_MAX);
    int result = -1;

    if (strlen(cli->arguments[0]) > 63 || strchr(cli->arguments[0], '/'))
        error_set(&err, ERROR_INVALID_REQUEST, "%.80s is no function's name", cli->arguments[0]);
    else if (cli_flag(cli, "raw") && cli_flag(cli, "async"))
        error_set(&err, ERROR_INVALID_REQUEST,
                  "--raw waits for the result and --async does not: give one of them");
    else if (read_payload(cli, &payload, &err) == 0 && api_init(&api, cli, &err) == 0)
        result = cli_flag(cli, "raw") ? invoke_raw(cli, &api, &payload, &err)
                                      : invoke(cli, &api, &payload, &err);
    buffer_deinit(&payload);
    return result < 0 ? cli_fail(cli, &err) : result;
}

static const struct cli_option options[] = {
    {"data", 'd', "JSON", "the payload", NULL},
    {"file", 0, "F", "read the payload from a file", NULL},
    {"async", 0, NULL,
     "return the execution's id at once; `faas executions` and `faas logs` tell the rest", NULL},
    {"priority", 0, "P", "with --async: among the function's invocations that wait",
     "high|normal|low"},
    {"callback", 0, "URL", "with --async: told of the end; needs a callback secret", NULL},
    {"raw", 0, NULL, "print the result's own bytes and nothing else", NULL},
};

const struct cli_verb cli_verb_invoke = {
    .name = "invoke",
    .arguments = "NAME [-]",
    .summary = "call a function and show its result",
    .description = "The payload is --data, --file, or stdin with -; without any it is {}. The "
                   "result goes to stdout; the log and a line of\n"
                   "figures go to stderr. The exit status is 1 when the function failed.",
    .example = "faas invoke hello --data '{\"name\": \"you\"}'\n"
               "cat big.json | faas invoke hello - --raw >result.json",
    .options = options,
    .option_count = ARRAY_LENGTH(options),
    .min_arguments = 1,
    .max_arguments = 2,
    .run = run_invoke,
};
