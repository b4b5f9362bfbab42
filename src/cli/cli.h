/* The command `faas`: verbs and options as tables. One table row makes the parser, --help, the man
 * page and the shell completion, so they cannot disagree.
 *
 * A verb's run() returns an exit status: 0, 1 when the function (not the platform) failed, or what
 * error_code_info() says of the error; it has printed everything by then. */
#pragma once

#include "base/error.h"
#include "base/json.h"

#include <stdbool.h>
#include <stddef.h>

struct cli_option {
    const char *name;     /* "memory": --memory */
    char letter;          /* 'f': -f; 0: none */
    const char *argument; /* "MB"; NULL: a flag */
    const char *text;
    const char *values; /* "none|bridge", for completion and checking; NULL: free */
};

struct cli;

struct cli_verb {
    const char *name;      /* "deploy", or "image import" */
    const char *arguments; /* "NAME [PATH]" */
    const char *summary;
    const char *description; /* paragraphs for --help and the man page; may be NULL */
    const char *example;     /* command lines, one a line */
    const struct cli_option *options;
    size_t option_count;
    size_t min_arguments, max_arguments;
    int (*run)(struct cli *cli);
};

#define CLI_OPTIONS_MAX 256
#define EXIT_FUNCTION_FAILED 1

struct cli {
    const struct cli_verb *verb;
    const char *arguments[8]; /* positional */
    size_t argument_count;
    struct {
        const char *name;
        const char *value;
    } options[CLI_OPTIONS_MAX]; /* in order of appearance */
    size_t option_count;
};

extern const struct cli_verb *const cli_verbs[]; /* NULL-terminated, in the order of --help */
extern const struct cli_option cli_global_options[];
extern const size_t cli_global_option_count;

/* The last value given for --NAME, or NULL. */
const char *cli_option(const struct cli *cli, const char *name);
bool cli_flag(const struct cli *cli, const char *name);
bool cli_json(const struct cli *cli);
/* Prints "faas: message" (as JSON with --json) to stderr; the exit status for it. */
int cli_fail(const struct cli *cli, const struct error *err);

/* Finds the verb and its options in argv. */
int cli_parse(struct cli *cli, int argc, char **argv, struct error *err);
/* Help of one verb, or of the program when `verb` is NULL, on stdout. */
void cli_print_help(const struct cli_verb *verb);
/* The one a user may have meant, or NULL. */
const char *cli_nearest(const char *word, const char *const *candidates, size_t count);

int cli_main(int argc, char **argv);
