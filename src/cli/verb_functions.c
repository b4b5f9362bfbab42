/* faas list, describe, rm: functions as the controller has them. */
#include "base/cleanup.h"
#include "base/text.h"
#include "cli/api.h"
#include "cli/output.h"
#include "cli/verbs.h"

#include <stdio.h>
#include <string.h>

static void add_function_row(struct table *table, const struct json *function)
{
    char text[64], age[32];
    table_add(table, json_get_string(function, "name"));
    table_add_int(table, json_get_int(function, "version", 0));
    table_add(table, json_get_string(function, "state"));
    table_add(table, json_get_string(function, "runtime"));
    table_add(table, json_get_string(function, "contract"));
    snprintf(text, sizeof(text), "%lld MiB", (long long)json_get_int(function, "memory_mb", 0));
    table_add(table, text);
    format_duration_ns((uint64_t)json_get_int(function, "timeout_ms", 0) * 1000000, text,
                       sizeof(text));
    table_add(table, text);
    format_age(json_get_string(function, "updated_at"), age, sizeof(age));
    table_add(table, age);
}

/* Calls `each` for every function, page by page. */
static int each_function(const struct api *api,
                         void (*each)(void *data, const struct json *function), void *data,
                         struct error *err)
{
    char cursor[256] = "";
    do {
        char escaped[800], path[1024];
        autojson *page = NULL;
        api_escape(cursor, escaped, sizeof(escaped));
        snprintf(path, sizeof(path), "/v1/functions?limit=500%s%s", cursor[0] ? "&cursor=" : "",
                 escaped);
        struct api_call call = {.method = "GET", .path = path};
        if (api_get_json(api, &call, &page, err))
            return -1;
        json_foreach (i, function, json_get(page, "functions"))
            each(data, function);
        const char *next = json_get_string(page, "next_cursor");
        if (next && *next && (strlen(next) >= sizeof(cursor) || strcmp(next, cursor) == 0))
            return error_set(err, ERROR_UNAVAILABLE, "the controller's list does not end");
        snprintf(cursor, sizeof(cursor), "%s", next ? next : "");
    } while (cursor[0]);
    return 0;
}

static void print_one_json(void *data, const struct json *function)
{
    (void)data;
    print_json(stdout, function, false);
}

static void print_one_name(void *data, const struct json *function)
{
    (void)data;
    const char *name = json_get_string(function, "name");
    if (name)
        print_line(name);
}

static void add_one_row(void *data, const struct json *function)
{
    add_function_row(data, function);
}

static int run_list(struct cli *cli)
{
    static const char *const titles[] = {"NAME",     "VERSION", "STATE",   "RUNTIME",
                                         "CONTRACT", "MEMORY",  "TIMEOUT", "UPDATED"};
    struct error err = {0};
    struct api api;
    struct table table;

    table_init(&table, titles, ARRAY_LENGTH(titles));
    int result = api_init(&api, cli, &err);
    if (result == 0) {
        if (cli_json(cli))
            result = each_function(&api, print_one_json, NULL, &err);
        else if (cli_flag(cli, "names"))
            result = each_function(&api, print_one_name, NULL, &err);
        else
            result = each_function(&api, add_one_row, &table, &err);
    }
    if (result == 0 && !cli_json(cli) && !cli_flag(cli, "names"))
        table_finish(&table);
    table_deinit(&table);
    return result ? cli_fail(cli, &err) : 0;
}

static void print_member(const char *key, const struct json *value)
{
    size_t len = 0;
    const char *text = json_string(value, &len);
    printf("%s%-16s%s ", style_dim(stdout), key, style_off(stdout));
    if (text) {
        print_untrusted(stdout, text, len);
        printf("\n");
    } else {
        print_json(stdout, value, false);
    }
}

static int run_describe(struct cli *cli)
{
    struct error err = {0};
    struct api api;
    autojson *function = NULL;
    char name[800], path[1024];

    api_escape(cli->arguments[0], name, sizeof(name));
    snprintf(path, sizeof(path), "/v1/functions/%s", name);
    struct api_call call = {.method = "GET", .path = path};
    if (api_init(&api, cli, &err) || api_get_json(&api, &call, &function, &err))
        return cli_fail(cli, &err);
    if (cli_json(cli)) {
        print_json(stdout, function, false);
        return 0;
    }
    json_foreach (i, value, function)
        print_member(json_key_at(function, i), value);
    return 0;
}

static int run_rm(struct cli *cli)
{
    struct error err = {0};
    struct api api;
    autojson *answer = NULL;
    char name[800], path[1024];

    api_escape(cli->arguments[0], name, sizeof(name));
    snprintf(path, sizeof(path), "/v1/functions/%s", name);
    struct api_call call = {.method = "DELETE", .path = path};
    if (api_init(&api, cli, &err) || api_get_json(&api, &call, &answer, &err))
        return cli_fail(cli, &err);
    if (!cli_json(cli))
        printf("%s is removed\n", cli->arguments[0]);
    return 0;
}

static const struct cli_option list_options[] = {
    {"names", 0, NULL, "names only, one a line", NULL},
};

const struct cli_verb cli_verb_list = {
    .name = "list",
    .arguments = "",
    .summary = "list the functions",
    .description = "With --json, one object a line.",
    .example = "faas list",
    .options = list_options,
    .option_count = ARRAY_LENGTH(list_options),
    .run = run_list,
};
const struct cli_verb cli_verb_describe = {
    .name = "describe",
    .arguments = "NAME",
    .summary = "show everything about one function",
    .example = "faas describe hello",
    .min_arguments = 1,
    .max_arguments = 1,
    .run = run_describe,
};
const struct cli_verb cli_verb_rm = {
    .name = "rm",
    .arguments = "NAME",
    .summary = "remove a function with all its versions",
    .description =
        "Calls under way finish; records of past executions stay until their retention ends.",
    .example = "faas rm hello",
    .min_arguments = 1,
    .max_arguments = 1,
    .run = run_rm,
};
