/* faas tokens create, list, rm: named API tokens. */
#include "base/cleanup.h"
#include "cli/api.h"
#include "cli/options.h"
#include "cli/output.h"
#include "cli/verbs.h"

#include <stdio.h>

#define TOKENS "/v1/tokens"

/* ---- create ---- */

static int make_request(const struct cli *cli, struct buffer *request, struct error *err)
{
    const char *scope = cli_option(cli, "scope");
    struct json_writer *writer = json_writer_new(request);
    if (!writer)
        return error_set(err, ERROR_INTERNAL, "out of memory");
    json_object_begin(writer);
    json_member_string(writer, "name", cli->arguments[0]);
    json_member_string(writer, "scope", scope ? scope : "invoke");
    int result = 0;
    if (write_double_option(cli, writer, "rate-limit", "rate_limit", err) < 0 ||
        write_int_option(cli, writer, "rate-burst", "rate_burst", err) < 0 ||
        write_int_option(cli, writer, "max-concurrency", "max_concurrency", err) < 0)
        result = -1;
    json_object_end(writer);
    return json_writer_finish(writer, result == 0 ? err : NULL) < 0 ? -1 : result;
}

static int run_create(struct cli *cli)
{
    struct error err = {0};
    struct api api;
    struct buffer request = BUFFER_INIT(4096);
    autojson *token = NULL;
    int result = -1;
    if (api_init(&api, cli, &err) == 0 && make_request(cli, &request, &err) == 0) {
        struct api_call call = {
            .method = "POST", .path = TOKENS, .body = request.data, .body_len = request.len};
        result = api_get_json(&api, &call, &token, &err);
    }
    buffer_deinit(&request);
    if (result < 0)
        return cli_fail(cli, &err);
    if (cli_json(cli))
        return print_json(stdout, token, false);
    const char *text = json_get_string(token, "token");
    print_line(text ? text : "");
    fprintf(stderr, "This is the only time that it is shown. Use it as FAAS_TOKEN.\n");
    return 0;
}

/* ---- list ---- */

static void add_limit(struct table *table, const struct json *token, const char *key)
{
    double number = json_double(json_get(token, key), 0);
    char text[32];
    snprintf(text, sizeof(text), "%g", number);
    table_add(table, number > 0 ? text : NULL);
}

static int run_list(struct cli *cli)
{
    static const char *const titles[] = {"NAME", "SCOPE", "RATE", "CONCURRENCY", "MADE"};
    struct error err = {0};
    struct api api;
    struct table table;
    autojson *answer = NULL;
    struct api_call call = {.method = "GET", .path = TOKENS};
    if (api_init(&api, cli, &err) || api_get_json(&api, &call, &answer, &err))
        return cli_fail(cli, &err);
    if (cli_json(cli))
        return print_json(stdout, json_get(answer, "tokens"), false);
    table_init(&table, titles, ARRAY_LENGTH(titles));
    json_foreach (i, token, json_get(answer, "tokens")) {
        char age[64];
        format_age(json_get_string(token, "created_at"), age, sizeof(age));
        table_add(&table, json_get_string(token, "name"));
        table_add(&table, json_get_string(token, "scope"));
        add_limit(&table, token, "rate_limit");
        add_limit(&table, token, "max_concurrency");
        table_add(&table, age);
    }
    table_finish(&table);
    return 0;
}

/* ---- rm ---- */

static int run_rm(struct cli *cli)
{
    struct error err = {0};
    struct api api;
    char name[256], path[512];
    autojson *answer = NULL;
    struct api_call call = {.method = "DELETE", .path = path};
    api_escape(cli->arguments[0], name, sizeof(name));
    snprintf(path, sizeof(path), TOKENS "/%s", name);
    if (api_init(&api, cli, &err) || api_get_json(&api, &call, &answer, &err))
        return cli_fail(cli, &err);
    if (!cli_json(cli))
        printf("revoked %s\n", cli->arguments[0]);
    return 0;
}

static const struct cli_option create_options[] = {
    {"scope", 0, "S", "what it may: call functions (default), or everything", "invoke|admin"},
    {"rate-limit", 0, "N", "requests a second, such as 0.5 (default: no limit)", NULL},
    {"rate-burst", 0, "N", "so many at once after a pause (default: a second's worth)", NULL},
    {"max-concurrency", 0, "N", "synchronous calls at the same time; 0, the default, is no bound",
     NULL},
};

const struct cli_verb cli_verb_tokens_create = {
    .name = "tokens create",
    .arguments = "NAME",
    .summary = "make an API token of its own for somebody, and show it once",
    .description =
        "Scope invoke may call functions and read an execution by its id; scope admin may do "
        "everything that\nthe controller's own token may.",
    .example = "faas tokens create billing --rate-limit 50 --max-concurrency 10",
    .options = create_options,
    .option_count = ARRAY_LENGTH(create_options),
    .min_arguments = 1,
    .max_arguments = 1,
    .run = run_create,
};
const struct cli_verb cli_verb_tokens_list = {
    .name = "tokens list",
    .arguments = "",
    .summary = "list the named API tokens",
    .example = "faas tokens list",
    .run = run_list,
};
const struct cli_verb cli_verb_tokens_rm = {
    .name = "tokens rm",
    .arguments = "NAME",
    .summary = "revoke an API token",
    .description = "Calls that run go on; no further request with it is answered.",
    .example = "faas tokens rm billing",
    .min_arguments = 1,
    .max_arguments = 1,
    .run = run_rm,
};
