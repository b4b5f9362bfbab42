/* faas executions, logs, workers: what happened, what is said, and who works. */
#include "base/cleanup.h"
#include "base/text.h"
#include "cli/api.h"
#include "cli/output.h"
#include "cli/verbs.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- executions ---- */

static void add_execution_row(struct table *table, const struct json *execution)
{
    const struct json *metrics = json_get(execution, "metrics");
    char text[64];
    table_add(table, json_get_string(execution, "id"));
    table_add(table, json_get_string(execution, "function"));
    table_add_int(table, json_get_int(execution, "version", 0));
    table_add(table, json_get_string(execution, "status"));
    format_duration_ns((uint64_t)json_get_int(metrics, "duration", 0), text, sizeof(text));
    table_add(table, text);
    format_bytes((uint64_t)json_get_int(metrics, "memory_peak", 0), text, sizeof(text));
    table_add(table, text);
    table_add(table, json_get_bool(execution, "cold_start", false) ? "cold" : "warm");
    format_age(json_get_string(execution, "created_at"), text, sizeof(text));
    table_add(table, text);
}

static int executions_path(const struct cli *cli, char *path, size_t size, struct error *err)
{
    const char *limit = cli_option(cli, "limit");
    const char *status = cli_option(cli, "status");
    char name[256] = "", status_text[64] = "";
    char *end = NULL;
    long count = limit ? strtol(limit, &end, 10) : 20;
    if (limit && (*end || count < 1 || count > 1000))
        return error_set(err, ERROR_INVALID_REQUEST, "--limit must be 1 to 1000, not %s", limit);
    if (cli->argument_count > 0)
        api_escape(cli->arguments[0], name, sizeof(name));
    if (status)
        api_escape(status, status_text, sizeof(status_text));
    snprintf(path, size, "/v1/executions?limit=%ld%s%s%s%s", count, name[0] ? "&function=" : "",
             name, status ? "&status=" : "", status_text);
    return 0;
}

static int show_one_execution(const struct cli *cli, const struct api *api, const char *id,
                              struct error *err)
{
    char path[256];
    autojson *execution = NULL;
    snprintf(path, sizeof(path), "/v1/executions/%s", id);
    struct api_call call = {.method = "GET", .path = path};
    if (api_get_json(api, &call, &execution, err))
        return -1;
    return print_json(stdout, execution, !cli_json(cli));
}

static int list_executions(const struct cli *cli, const struct api *api, struct error *err)
{
    static const char *const titles[] = {"EXECUTION", "FUNCTION", "VERSION", "STATUS",
                                         "DURATION",  "MEMORY",   "START",   "CREATED"};
    char path[1024];
    autojson *page = NULL;
    struct table table;
    if (executions_path(cli, path, sizeof(path), err))
        return -1;
    struct api_call call = {.method = "GET", .path = path};
    if (api_get_json(api, &call, &page, err))
        return -1;
    if (cli_json(cli)) {
        json_foreach (i, execution, json_get(page, "executions"))
            print_json(stdout, execution, false);
        return 0;
    }
    table_init(&table, titles, ARRAY_LENGTH(titles));
    json_foreach (i, execution, json_get(page, "executions"))
        add_execution_row(&table, execution);
    table_finish(&table);
    return 0;
}

static int run_executions(struct cli *cli)
{
    struct error err = {0};
    struct api api;
    int result = api_init(&api, cli, &err);
    if (result == 0 && cli->argument_count > 0 && time_id_valid(cli->arguments[0]))
        result = show_one_execution(cli, &api, cli->arguments[0], &err);
    else if (result == 0)
        result = list_executions(cli, &api, &err);
    return result ? cli_fail(cli, &err) : 0;
}

/* ---- logs ---- */

struct log_printer {
    const struct cli *cli;
    struct buffer pending; /* bytes of a line that is not complete yet */
};

static void print_log_line(const struct cli *cli, const struct json *line)
{
    const char *id = json_get_string(line, "execution_id");
    const char *text = json_get_string(line, "line");
    char shown[32];
    if (cli_json(cli)) {
        print_json(stdout, line, false);
        return;
    }
    if (id) {
        snprintf(shown, sizeof(shown), "%.8s…%s", id, strlen(id) > 12 ? id + strlen(id) - 4 : "");
        fputs(style_dim(stdout), stdout);
        print_word(stdout, shown);
        printf("%s ", style_off(stdout));
    }
    if (text)
        print_untrusted(stdout, text, strlen(text));
    printf("\n");
}

static int print_stream(void *data, const char *bytes, size_t len)
{
    struct log_printer *printer = data;
    if (buffer_append(&printer->pending, bytes, len, NULL))
        return -1;
    char *newline;
    while (printer->pending.len > 0 &&
           (newline = memchr(printer->pending.data, '\n', printer->pending.len))) {
        size_t line_len = (size_t)(newline - printer->pending.data);
        autojson *line = json_parse(printer->pending.data, line_len, NULL, NULL);
        if (line)
            print_log_line(printer->cli, line);
        buffer_consume(&printer->pending, line_len + 1);
    }
    fflush(stdout);
    return 0;
}

static int follow_logs(const struct cli *cli, const struct api *api, const char *path,
                       struct error *err)
{
    struct log_printer printer = {.cli = cli, .pending = BUFFER_INIT(4 * 1024 * 1024)};
    struct http_answer answer = {0};
    struct api_call call = {.method = "GET",
                            .path = path,
                            .timeout_ms = 24ULL * 3600 * 1000,
                            .on_data = print_stream,
                            .on_data_arg = &printer};
    int result = api_call(api, &call, &answer, err);
    if (result == 0)
        result = http_answer_check(&answer, err);
    http_answer_deinit(&answer);
    buffer_deinit(&printer.pending);
    return result;
}

static int show_logs(const struct cli *cli, const struct api *api, const char *path,
                     struct error *err)
{
    autojson *logs = NULL;
    struct api_call call = {.method = "GET", .path = path};
    if (api_get_json(api, &call, &logs, err))
        return -1;
    json_foreach (i, line, json_get(logs, "logs"))
        print_log_line(cli, line);
    return 0;
}

static int run_logs(struct cli *cli)
{
    struct error err = {0};
    struct api api;
    char name[800], path[1024];
    bool follow = cli_flag(cli, "follow");
    bool execution = time_id_valid(cli->arguments[0]);

    api_escape(cli->arguments[0], name, sizeof(name));
    if (execution)
        snprintf(path, sizeof(path), "/v1/executions/%s/logs", name);
    else
        snprintf(path, sizeof(path), "/v1/functions/%s/logs%s", name, follow ? "?follow=true" : "");
    int result = api_init(&api, cli, &err);
    if (result == 0)
        result = follow && !execution ? follow_logs(cli, &api, path, &err)
                                      : show_logs(cli, &api, path, &err);
    return result ? cli_fail(cli, &err) : 0;
}

/* ---- workers ---- */

/* "a,b" of an array of strings; "-" when there are none. */
static void add_list(struct table *table, const struct json *list)
{
    with_cleanup(buffer_deinit) struct buffer text = BUFFER_INIT(4096);
    json_foreach (i, item, list) {
        const char *word = json_string(item, NULL);
        if (word)
            buffer_printf(&text, NULL, "%s%s", text.len > 0 ? "," : "", word);
    }
    table_add(table, text.data);
}

static void add_worker_row(struct table *table, const struct json *worker)
{
    char text[64];
    table_add(table, json_get_string(worker, "name"));
    table_add(table, json_get_string(worker, "state"));
    table_add(table, json_get_string(worker, "runtime"));
    snprintf(text, sizeof(text), "%lld of %lld", (long long)json_get_int(worker, "running", 0),
             (long long)json_get_int(worker, "concurrency", 0));
    table_add(table, text);
    table_add_int(table, (int64_t)json_count(json_get(worker, "instances")));
    snprintf(text, sizeof(text), "%lld MiB", (long long)json_get_int(worker, "memory_mb", 0));
    table_add(table, text);
    format_age(json_get_string(worker, "last_contact_at"), text, sizeof(text));
    table_add(table, text);
    add_list(table, json_get(worker, "unenforced"));
    add_list(table, json_get(worker, "labels"));
}

static int run_workers(struct cli *cli)
{
    static const char *const titles[] = {"WORKER",       "STATE",        "RUNTIME",
                                         "BUSY",         "INSTANCES",    "MEMORY",
                                         "LAST CONTACT", "NOT ENFORCED", "LABELS"};
    struct error err = {0};
    struct api api;
    autojson *page = NULL;
    struct table table;
    struct api_call call = {.method = "GET", .path = "/v1/workers"};

    if (api_init(&api, cli, &err) || api_get_json(&api, &call, &page, &err))
        return cli_fail(cli, &err);
    if (cli_json(cli)) {
        json_foreach (i, worker, json_get(page, "workers"))
            print_json(stdout, worker, false);
        return 0;
    }
    table_init(&table, titles, ARRAY_LENGTH(titles));
    json_foreach (i, worker, json_get(page, "workers"))
        add_worker_row(&table, worker);
    table_finish(&table);
    return 0;
}

static int change_drain(struct cli *cli, const char *method, const char *done)
{
    struct error err = {0};
    struct api api;
    char name[512], path[600];
    autojson *answer = NULL;
    struct api_call call = {.method = method, .path = path, .needs_no_answer = true};
    api_escape(cli->arguments[0], name, sizeof(name));
    snprintf(path, sizeof(path), "/v1/workers/%s/drain", name);
    if (api_init(&api, cli, &err) || api_get_json(&api, &call, &answer, &err))
        return cli_fail(cli, &err);
    if (!cli_json(cli))
        printf("%s %s\n", cli->arguments[0], done);
    return 0;
}

static int run_drain(struct cli *cli)
{
    return change_drain(cli, "POST", "is given nothing new; faas workers shows when it is drained");
}

static int run_resume(struct cli *cli)
{
    return change_drain(cli, "DELETE", "is given work again");
}

static const struct cli_option executions_options[] = {
    {"status", 0, "S", "only those with this status",
     "queued|running|succeeded|failed|timed_out|out_of_memory|lost|cancelled"},
    {"limit", 'n', "N", "at most so many, 1 to 1000 (default 20)", NULL},
};
static const struct cli_option logs_options[] = {
    {"follow", 'f', NULL, "go on as new lines come, until Ctrl-C", NULL},
};

const struct cli_verb cli_verb_executions = {
    .name = "executions",
    .arguments = "[NAME|ID]",
    .summary = "list past and present executions, newest first, or show one",
    .description = "With --json, one object a line.",
    .example = "faas executions hello --status failed\nfaas executions "
               "019a3c1e-5b7c-7d01-8a2b-3c4d5e6f7081",
    .options = executions_options,
    .option_count = ARRAY_LENGTH(executions_options),
    .max_arguments = 1,
    .run = run_executions,
};
const struct cli_verb cli_verb_logs = {
    .name = "logs",
    .arguments = "NAME|ID",
    .summary = "show what a function, or one execution, wrote to its log",
    .example = "faas logs hello -f",
    .options = logs_options,
    .option_count = ARRAY_LENGTH(logs_options),
    .min_arguments = 1,
    .max_arguments = 1,
    .run = run_logs,
};
const struct cli_verb cli_verb_workers = {
    .name = "workers",
    .arguments = "",
    .summary = "list the workers, what they can take and when they were last heard",
    .example = "faas workers",
    .run = run_workers,
};
const struct cli_verb cli_verb_workers_drain = {
    .name = "workers drain",
    .arguments = "NAME",
    .summary = "give a worker nothing new; what it runs comes to its end",
    .description = "The mark stays, whatever is restarted, until faas workers resume.",
    .example = "faas workers drain host-1",
    .min_arguments = 1,
    .max_arguments = 1,
    .run = run_drain,
};
const struct cli_verb cli_verb_workers_resume = {
    .name = "workers resume",
    .arguments = "NAME",
    .summary = "give a drained worker work again",
    .example = "faas workers resume host-1",
    .min_arguments = 1,
    .max_arguments = 1,
    .run = run_resume,
};
