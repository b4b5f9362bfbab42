/* faas dlq list, show, redrive, purge: dead letters, the asynchronous invocations that were given up. */
#include "base/cleanup.h"
#include "base/text.h"
#include "cli/api.h"
#include "cli/output.h"
#include "cli/verbs.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DEAD_LETTERS "/v1/dead-letters"

/* ---- list ---- */

static void add_row(struct table *table, const struct json *execution)
{
    const struct json *error = json_get(execution, "error");
    char age[64];
    table_add(table, json_get_string(execution, "id"));
    table_add(table, json_get_string(execution, "function"));
    table_add(table, json_get_string(execution, "status"));
    table_add_int(table, json_get_int(execution, "attempt", 0));
    table_add(table, json_get_string(error, "type"));
    format_age(json_get_string(execution, "dead_at"), age, sizeof(age));
    table_add(table, age);
}

static int list_path(const struct cli *cli, char *path, size_t size, struct error *err)
{
    const char *limit = cli_option(cli, "limit");
    char name[256] = "", *end = NULL;
    long count = limit ? strtol(limit, &end, 10) : 20;
    if (limit && (*end || count < 1 || count > 1000))
        return error_set(err, ERROR_INVALID_REQUEST, "--limit must be 1 to 1000, not %s", limit);
    if (cli->argument_count > 0)
        api_escape(cli->arguments[0], name, sizeof(name));
    snprintf(path, size, DEAD_LETTERS "?limit=%ld%s%s", count, name[0] ? "&function=" : "", name);
    return 0;
}

static void print_list(const struct cli *cli, const struct json *letters)
{
    static const char *const titles[] = {"EXECUTION", "FUNCTION", "STATUS",
                                         "ATTEMPT",   "ERROR",    "DEAD SINCE"};
    struct table table;
    if (cli_json(cli)) {
        json_foreach (i, execution, letters)
            print_json(stdout, execution, false);
        return;
    }
    table_init(&table, titles, ARRAY_LENGTH(titles));
    json_foreach (i, execution, letters)
        add_row(&table, execution);
    table_finish(&table);
}

static int run_list(struct cli *cli)
{
    struct error err = {0};
    struct api api;
    char path[512];
    autojson *page = NULL;
    struct api_call call = {.method = "GET", .path = path};
    if (api_init(&api, cli, &err) || list_path(cli, path, sizeof(path), &err) ||
        api_get_json(&api, &call, &page, &err))
        return cli_fail(cli, &err);
    print_list(cli, json_get(page, "dead_letters"));
    return 0;
}

/* ---- show ---- */

static int run_show(struct cli *cli)
{
    struct error err = {0};
    struct api api;
    char id[256], path[512];
    autojson *letter = NULL;
    struct api_call call = {.method = "GET", .path = path};
    api_escape(cli->arguments[0], id, sizeof(id));
    snprintf(path, sizeof(path), DEAD_LETTERS "/%s", id);
    if (api_init(&api, cli, &err) || api_get_json(&api, &call, &letter, &err))
        return cli_fail(cli, &err);
    return print_json(stdout, letter, !cli_json(cli));
}

/* ---- redrive and purge ---- */

/* Which dead letters: one by its id, a function's, or all of them. Nothing at all is not taken for all. */
static int target_path(const struct cli *cli, const char *suffix, char *path, size_t size,
                       struct error *err)
{
    const char *function = cli_option(cli, "function");
    char text[256];
    if ((cli->argument_count > 0) + (function != NULL) + cli_flag(cli, "all") != 1)
        return error_set(err, ERROR_INVALID_REQUEST,
                         "say which: an execution's id, --function NAME or --all");
    if (cli->argument_count > 0) {
        api_escape(cli->arguments[0], text, sizeof(text));
        snprintf(path, size, DEAD_LETTERS "/%s%s", text, suffix);
    } else if (function) {
        api_escape(function, text, sizeof(text));
        snprintf(path, size, DEAD_LETTERS "%s?function=%s", suffix, text);
    } else {
        snprintf(path, size, DEAD_LETTERS "%s", suffix);
    }
    return 0;
}

static int change(struct cli *cli, const char *method, const char *suffix, const char *done)
{
    struct error err = {0};
    struct api api;
    char path[512];
    autojson *answer = NULL;
    struct api_call call = {.method = method, .path = path};
    if (target_path(cli, suffix, path, sizeof(path), &err) || api_init(&api, cli, &err) ||
        api_get_json(&api, &call, &answer, &err))
        return cli_fail(cli, &err);
    if (cli_json(cli) && answer)
        return print_json(stdout, answer, false);
    printf("%lld %s\n", (long long)json_get_int(answer, "count", 0), done);
    return 0;
}

static int run_redrive(struct cli *cli)
{
    return change(cli, "POST", "/redrive", "queued again");
}

static int run_purge(struct cli *cli)
{
    return change(cli, "DELETE", "", "removed");
}

static const struct cli_option list_options[] = {
    {"limit", 0, "N", "at most so many (default 20, at most 1000)", NULL},
};
static const struct cli_option target_options[] = {
    {"function", 0, "NAME", "all of this function", NULL},
    {"all", 0, NULL, "all of every function", NULL},
};

const struct cli_verb cli_verb_dlq_list = {
    .name = "dlq list",
    .arguments = "[FUNCTION]",
    .summary = "list dead letters: asynchronous invocations that were given up",
    .description =
        "An asynchronous invocation is given up when it has failed as often as its "
        "function's retry policy\nallows, has lost its worker too often, or was too old. "
        "Its payload is kept.",
    .example = "faas dlq list hello",
    .options = list_options,
    .option_count = ARRAY_LENGTH(list_options),
    .max_arguments = 1,
    .run = run_list,
};
const struct cli_verb cli_verb_dlq_show = {
    .name = "dlq show",
    .arguments = "ID",
    .summary = "show a dead letter with its error, log and payload",
    .example = "faas dlq show 0193f1d2-7c1e-7abc-8def-0123456789ab",
    .min_arguments = 1,
    .max_arguments = 1,
    .run = run_show,
};
const struct cli_verb cli_verb_dlq_redrive = {
    .name = "dlq redrive",
    .arguments = "[ID]",
    .summary = "queue dead letters again",
    .description = "They keep their ids and start anew under their function's retry policy.",
    .example = "faas dlq redrive --function hello",
    .options = target_options,
    .option_count = ARRAY_LENGTH(target_options),
    .max_arguments = 1,
    .run = run_redrive,
};
const struct cli_verb cli_verb_dlq_purge = {
    .name = "dlq purge",
    .arguments = "[ID]",
    .summary = "remove dead letters",
    .example = "faas dlq purge --all",
    .options = target_options,
    .option_count = ARRAY_LENGTH(target_options),
    .max_arguments = 1,
    .run = run_purge,
};
