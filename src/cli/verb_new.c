/* faas new: a folder with a function that deploys and runs as it is. */
#include "base/cleanup.h"
#include "base/file.h"
#include "base/text.h"
#include "cli/templates.h"
#include "cli/verbs.h"
#include "model/function.h"

#include <stdio.h>
#include <string.h>

static const struct function_template *find_template(const char *runtime, const char *contract)
{
    for (size_t i = 0; i < function_template_count; i++)
        if (strcmp(function_templates[i].runtime, runtime) == 0 &&
            strcmp(function_templates[i].contract, contract) == 0)
            return &function_templates[i];
    return NULL;
}

static int write_in(const char *folder, const char *name, const char *content, unsigned mode,
                    struct error *err)
{
    autofree char *path = string_printf("%s/%s", folder, name);
    if (!path)
        return error_set(err, ERROR_INTERNAL, "out of memory");
    return write_file_atomic(path, content, strlen(content), mode, false, err);
}

static int make_folder(const char *name, const struct function_template *template,
                       struct error *err)
{
    if (path_exists(name))
        return error_set(err, ERROR_CONFLICT, "%s exists already; choose another name or remove it",
                         name);
    if (make_directories(name, 0755, err) ||
        write_in(name, "faas.json", template->settings, 0644, err))
        return -1;
    for (const struct template_file *file = template->files; file->name; file++)
        if (write_in(name, file->name, file->content, file->mode, err))
            return -1;
    return 0;
}

static int run_new(struct cli *cli)
{
    struct error err = {0};
    const char *name = cli->arguments[0];
    const char *runtime = cli_option(cli, "runtime");
    const char *contract = cli_option(cli, "contract") ? cli_option(cli, "contract") : "process";
    const struct function_template *template = runtime ? find_template(runtime, contract) : NULL;
    int result = -1;

    if (!function_name_valid(name))
        error_set(&err, ERROR_INVALID_REQUEST,
                  "a function's name is 1 to 63 of a-z, 0-9 and '-', not at either end; not %.80s",
                  name);
    else if (!runtime)
        error_set(&err, ERROR_INVALID_REQUEST,
                  "say which language: --runtime python, nodejs, go or native");
    else if (!template)
        error_set(&err, ERROR_INVALID_REQUEST, "runtime %s has contract process only, not %s",
                  runtime, contract);
    else
        result = make_folder(name, template, &err);
    if (result)
        return cli_fail(cli, &err);
    if (!cli_json(cli))
        printf("%s/ is ready; next: faas deploy %s && faas invoke %s\n", name, name, name);
    return 0;
}

static const struct cli_option options[] = {
    {"runtime", 'r', "R", "the language", "python|nodejs|go|native"},
    {"contract", 0, "C", "a fresh process per call (default), or a handler that is loaded once",
     "process|handler"},
};

const struct cli_verb cli_verb_new = {
    .name = "new",
    .arguments = "NAME",
    .summary = "make a function folder that deploys and runs as it is",
    .example = "faas new hello --runtime python --contract handler",
    .options = options,
    .option_count = ARRAY_LENGTH(options),
    .min_arguments = 1,
    .max_arguments = 1,
    .run = run_new,
};
