/* faas callback redrive: the end of an asynchronous invocation is told once more. */
#include "base/cleanup.h"
#include "cli/api.h"
#include "cli/output.h"
#include "cli/verbs.h"

#include <stdio.h>

static int run_redrive(struct cli *cli)
{
    struct error err = {0};
    struct api api;
    char id[256], path[512];
    autojson *answer = NULL;
    struct api_call call = {.method = "POST", .path = path};
    api_escape(cli->arguments[0], id, sizeof(id));
    snprintf(path, sizeof(path), "/v1/executions/%s/callback/redrive", id);
    if (api_init(&api, cli, &err) || api_get_json(&api, &call, &answer, &err))
        return cli_fail(cli, &err);
    if (cli_json(cli))
        return print_json(stdout, answer, false);
    printf("the callback is sent again\n");
    return 0;
}

const struct cli_verb cli_verb_callback_redrive = {
    .name = "callback redrive",
    .arguments = "ID",
    .summary = "send the callback of an execution again",
    .description = "The execution has ended. How its callback went is in GET /v1/executions/ID.",
    .example = "faas callback redrive 0193f1d2-7c1e-7abc-8def-0123456789ab",
    .min_arguments = 1,
    .max_arguments = 1,
    .run = run_redrive,
};
