/* Texts made from the verb tables: --help, man pages, shell completion. */
#include "cli/cli.h"

#include "cli/verbs.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

static void print_options(const struct cli_option *options, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        char left[64];
        char letter[8] = "    ";
        if (options[i].letter)
            snprintf(letter, sizeof(letter), "-%c, ", options[i].letter);
        snprintf(left, sizeof(left), "%s--%s%s%s", letter, options[i].name,
                 options[i].argument ? " " : "", options[i].argument ? options[i].argument : "");
        printf("  %-26s %s", left, options[i].text);
        if (options[i].values)
            printf(" (%s)", options[i].values);
        printf("\n");
    }
}

static void print_verb_help(const struct cli_verb *verb)
{
    printf("faas %s%s%s\n\n%s\n", verb->name, verb->arguments[0] ? " " : "", verb->arguments,
           verb->summary);
    if (verb->description)
        printf("\n%s\n", verb->description);
    if (verb->option_count) {
        printf("\nOptions:\n");
        print_options(verb->options, verb->option_count);
    }
    printf("\nFor every verb:\n");
    print_options(cli_global_options, cli_global_option_count);
    printf("\nExample:\n");
    for (const char *line = verb->example; *line;) {
        size_t len = strcspn(line, "\n");
        printf("  %.*s\n", (int)len, line);
        line += len + (line[len] == '\n');
    }
}

void cli_print_help(const struct cli_verb *verb)
{
    if (verb) {
        print_verb_help(verb);
        return;
    }
    printf("faas: run functions in containers on your own machines\n\nUsage: faas VERB [ARGUMENTS] "
           "[OPTIONS]\n\n");
    for (size_t i = 0; cli_verbs[i]; i++) {
        char left[64];
        snprintf(left, sizeof(left), "%s %s", cli_verbs[i]->name, cli_verbs[i]->arguments);
        printf("  %-30s %s\n", left, cli_verbs[i]->summary);
    }
    printf("\n`faas VERB --help` tells more, with an example. First steps:\n\n"
           "  faas up                                    (in one terminal)\n"
           "  faas new hello --runtime python\n"
           "  faas deploy hello\n"
           "  faas invoke hello --data '{\"name\": \"you\"}'\n\n"
           "Exit status: 0 success, 1 the function failed, 2 wrong usage or input; others: `faas "
           "man | man -l -`.\n");
}

/* ---- man page ---- */

/* Text for roff: backslashes and leading dots or quotes would be commands. */
static void print_roff(const char *text)
{
    bool line_start = true;
    for (const char *at = text; *at; at++) {
        if (line_start && (*at == '.' || *at == '\''))
            printf("\\&");
        line_start = *at == '\n';
        if (*at == '\\')
            printf("\\e");
        else if (*at == '-')
            printf("\\-");
        else
            putchar(*at);
    }
}

static void print_roff_options(const struct cli_option *options, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        printf(".TP\n\\fB");
        if (options[i].letter)
            printf("\\-%c\\fR, \\fB", options[i].letter);
        printf("\\-\\-");
        print_roff(options[i].name);
        printf("\\fR");
        if (options[i].argument)
            printf(" \\fI%s\\fR", options[i].argument);
        printf("\n");
        print_roff(options[i].text);
        if (options[i].values)
            printf(" (%s)", options[i].values);
        printf("\n");
    }
}

static void print_man_verb(const struct cli_verb *verb)
{
    printf(".SS faas %s %s\n", verb->name, verb->arguments);
    print_roff(verb->summary);
    printf(".\n");
    if (verb->description) {
        printf(".PP\n");
        print_roff(verb->description);
        printf("\n");
    }
    print_roff_options(verb->options, verb->option_count);
    printf(".PP\nExample:\n.PP\n.nf\n.RS\n");
    print_roff(verb->example);
    printf("\n.RE\n.fi\n");
}

static int run_man(struct cli *cli)
{
    (void)cli;
    printf(".TH FAAS 1 \"\" \"faas %s\" \"User commands\"\n.SH NAME\nfaas \\- run functions in "
           "containers on your own "
           "machines\n.SH SYNOPSIS\n.B faas\n.I VERB\n[\\fIARGUMENTS\\fR] [\\fIOPTIONS\\fR]\n.SH "
           "VERBS\n",
           FAAS_VERSION);
    for (size_t i = 0; cli_verbs[i]; i++)
        print_man_verb(cli_verbs[i]);
    printf(".SH GLOBAL OPTIONS\n");
    print_roff_options(cli_global_options, cli_global_option_count);
    printf(".SH EXIT STATUS\n.TP\n0\nsuccess\n.TP\n1\nthe function failed, timed out or ran out of "
           "memory\n");
    for (int code = ERROR_NONE + 1; code < ERROR_CODE_COUNT; code++) {
        const struct error_code_info *info = error_code_info((enum error_code)code);
        printf(".TP\n%d\n%s\n", info->exit_status, info->type);
    }
    printf(".SH ENVIRONMENT\n.TP\nFAAS_URL\nthe controller's address\n.TP\nFAAS_TOKEN\nthe access "
           "token\n");
    return 0;
}

/* ---- shell completion ---- */

/* "image import" as a word of a shell function's case: "image import" -> "image_import". */
static void print_identifier(const char *name)
{
    for (const char *at = name; *at; at++)
        putchar(isalnum((unsigned char)*at) ? *at : '_');
}

static void print_bash_options(const struct cli_option *options, size_t count)
{
    for (size_t i = 0; i < count; i++)
        printf("--%s ", options[i].name);
}

static void print_bash_values(const struct cli_verb *verb)
{
    for (size_t i = 0; i < verb->option_count; i++) {
        if (!verb->options[i].values)
            continue;
        printf("        --%s) COMPREPLY=($(compgen -W '", verb->options[i].name);
        for (const char *at = verb->options[i].values; *at; at++)
            putchar(*at == '|' ? ' ' : *at);
        printf("' -- \"$current\")); return ;;\n");
    }
}

static void print_bash_verb(const struct cli_verb *verb)
{
    printf("_faas_");
    print_identifier(verb->name);
    printf("() {\n    case $previous in\n");
    print_bash_values(verb);
    printf("    esac\n    COMPREPLY=($(compgen -W '");
    print_bash_options(verb->options, verb->option_count);
    print_bash_options(cli_global_options, cli_global_option_count);
    printf("' -- \"$current\"))\n");
    if (strncmp(verb->arguments, "NAME", 4) == 0 && strncmp(verb->name, "image", 5) != 0)
        printf("    [[ $current == -* ]] || COMPREPLY+=($(compgen -W \"$(faas list --names "
               "2>/dev/null)\" -- \"$current\"))\n");
    printf("}\n");
}

static int run_completion(struct cli *cli)
{
    (void)cli;
    printf(
        "# bash completion for faas; also for zsh after `autoload bashcompinit && bashcompinit`\n");
    for (size_t i = 0; cli_verbs[i]; i++)
        print_bash_verb(cli_verbs[i]);
    printf(
        "_faas() {\n    local current=${COMP_WORDS[COMP_CWORD]} "
        "previous=${COMP_WORDS[COMP_CWORD-1]} verb=${COMP_WORDS[1]}\n"
        "    if [[ $verb == image && $COMP_CWORD -gt 2 ]]; then verb=image_${COMP_WORDS[2]}; fi\n"
        "    if [[ $COMP_CWORD -eq 1 ]]; then COMPREPLY=($(compgen -W '");
    for (size_t i = 0; cli_verbs[i]; i++)
        printf("%.*s ", (int)strcspn(cli_verbs[i]->name, " "), cli_verbs[i]->name);
    printf("' -- \"$current\")); return; fi\n"
           "    if [[ ${COMP_WORDS[1]} == image && $COMP_CWORD -eq 2 ]]; then COMPREPLY=($(compgen "
           "-W 'import list rm' -- "
           "\"$current\")); return; fi\n"
           "    declare -F \"_faas_$verb\" >/dev/null && \"_faas_$verb\"\n}\ncomplete -o default "
           "-F _faas faas\n");
    return 0;
}

const struct cli_verb cli_verb_man = {
    .name = "man",
    .arguments = "",
    .summary = "print the manual page",
    .example = "faas man | man -l -",
    .run = run_man,
};
const struct cli_verb cli_verb_completion = {
    .name = "completion",
    .arguments = "",
    .summary = "print the shell completion (bash, zsh)",
    .example = "source <(faas completion)",
    .run = run_completion,
};
