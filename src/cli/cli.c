/* Finds the verb, its options and its arguments in the command line, by the tables of verbs.c. */
#include "cli/cli.h"

#include "base/buffer.h"
#include "base/cleanup.h"
#include "base/log.h"
#include "cli/output.h"

#include <stdio.h>
#include <string.h>

const struct cli_option cli_global_options[] = {
    {"json", 0, NULL, "print JSON for scripts instead of text for people", NULL},
    {"url", 0, "URL", "the controller's address (environment: FAAS_URL)", NULL},
    {"token", 0, "TOKEN",
     "the access token (environment: FAAS_TOKEN, which other users of the machine cannot see)",
     NULL},
    {"ca-file", 0, "FILE",
     "certificates of the authorities that an https:// address is checked against (environment: "
     "FAAS_CA_FILE); default: the system's",
     NULL},
    {"help", 'h', NULL, "this text", NULL},
};
const size_t cli_global_option_count = ARRAY_LENGTH(cli_global_options);

const char *cli_option(const struct cli *cli, const char *name)
{
    for (size_t i = cli->option_count; i-- > 0;)
        if (strcmp(cli->options[i].name, name) == 0)
            return cli->options[i].value;
    return NULL;
}

bool cli_flag(const struct cli *cli, const char *name)
{
    return cli_option(cli, name) != NULL;
}

bool cli_json(const struct cli *cli)
{
    return cli_flag(cli, "json");
}

int cli_fail(const struct cli *cli, const struct error *err)
{
    const struct error_code_info *info = error_code_info(err->code);
    if (cli_json(cli)) {
        struct buffer out = BUFFER_INIT(16 * 1024);
        struct json_writer *writer = json_writer_new(&out);
        json_object_begin(writer);
        json_key(writer, "error");
        json_object_begin(writer);
        json_member_string(writer, "type", info->type);
        json_member_string(writer, "message", err->message);
        json_member_string(writer, "field", err->field[0] ? err->field : NULL);
        json_object_end(writer);
        json_object_end(writer);
        if (json_writer_finish(writer, NULL) == 0)
            fprintf(stderr, "%s\n", out.data);
        buffer_deinit(&out);
    } else {
        fputs("faas: ", stderr);
        print_untrusted(stderr, err->message, strlen(err->message));
        fputs("\n", stderr);
    }
    return info->exit_status;
}

static size_t edit_distance(const char *a, const char *b)
{
    size_t row[64];
    size_t a_len = strlen(a), b_len = strlen(b);
    if (a_len >= ARRAY_LENGTH(row) || b_len >= ARRAY_LENGTH(row))
        return SIZE_MAX;
    for (size_t j = 0; j <= b_len; j++)
        row[j] = j;
    for (size_t i = 1; i <= a_len; i++) {
        size_t diagonal = row[0];
        row[0] = i;
        for (size_t j = 1; j <= b_len; j++) {
            size_t above = row[j];
            size_t best = diagonal + (a[i - 1] != b[j - 1]);
            if (above + 1 < best)
                best = above + 1;
            if (row[j - 1] + 1 < best)
                best = row[j - 1] + 1;
            row[j] = best;
            diagonal = above;
        }
    }
    return row[b_len];
}

const char *cli_nearest(const char *word, const char *const *candidates, size_t count)
{
    const char *nearest = NULL;
    size_t nearest_distance = 3;
    for (size_t i = 0; i < count; i++) {
        size_t distance = edit_distance(word, candidates[i]);
        if (distance < nearest_distance) {
            nearest = candidates[i];
            nearest_distance = distance;
        }
    }
    return nearest;
}

/* Words of the command line that `name` ("image import") matches at argv[0]; 0: none. */
static int verb_words(const char *name, int argc, char **argv)
{
    const char *space = strchr(name, ' ');
    if (!space)
        return argc > 0 && strcmp(argv[0], name) == 0 ? 1 : 0;
    size_t first = (size_t)(space - name);
    if (argc > 1 && strlen(argv[0]) == first && strncmp(argv[0], name, first) == 0 &&
        strcmp(argv[1], space + 1) == 0)
        return 2;
    return 0;
}

/* `faas image` and the like: which second words there are. -1 with `err` set; 0 when it is no first word of any verb. */
static int unknown_second_word(const char *word, const char *next, struct error *err)
{
    with_cleanup(buffer_deinit) struct buffer known = BUFFER_INIT(1024);
    size_t len = strlen(word);
    for (size_t i = 0; cli_verbs[i]; i++)
        if (strncmp(cli_verbs[i]->name, word, len) == 0 && cli_verbs[i]->name[len] == ' ')
            buffer_printf(&known, NULL, "%s%s", known.len > 0 ? ", " : "",
                          cli_verbs[i]->name + len + 1);
    if (known.len == 0)
        return 0;
    return error_set(err, ERROR_INVALID_REQUEST, "`faas %s` takes one of %s, not %s", word,
                     known.data, next ? next : "nothing");
}

static int unknown_verb(const char *word, const char *next, struct error *err)
{
    const char *names[64];
    size_t count = 0;
    if (unknown_second_word(word, next, err) < 0)
        return -1;
    for (size_t i = 0; cli_verbs[i] && count < ARRAY_LENGTH(names); i++)
        names[count++] = cli_verbs[i]->name;
    const char *nearest = cli_nearest(word, names, count);
    if (nearest)
        return error_set(err, ERROR_INVALID_REQUEST, "there is no verb %s; did you mean `faas %s`?",
                         word, nearest);
    return error_set(err, ERROR_INVALID_REQUEST, "there is no verb %s; `faas --help` lists them",
                     word);
}

static const struct cli_option *find_option(const struct cli_verb *verb, const char *name,
                                            size_t len, char letter)
{
    for (size_t pass = 0; pass < 2; pass++) {
        const struct cli_option *options = pass == 0 ? verb->options : cli_global_options;
        size_t count = pass == 0 ? verb->option_count : cli_global_option_count;
        for (size_t i = 0; i < count; i++) {
            if (letter ? options[i].letter == letter
                       : strlen(options[i].name) == len && strncmp(options[i].name, name, len) == 0)
                return &options[i];
        }
    }
    return NULL;
}

static int unknown_option(const struct cli_verb *verb, const char *name, size_t len,
                          struct error *err)
{
    char word[64];
    const char *names[64];
    size_t count = 0;
    snprintf(word, sizeof(word), "%.*s", (int)len, name);
    for (size_t i = 0; i < verb->option_count && count < ARRAY_LENGTH(names); i++)
        names[count++] = verb->options[i].name;
    for (size_t i = 0; i < cli_global_option_count && count < ARRAY_LENGTH(names); i++)
        names[count++] = cli_global_options[i].name;
    const char *nearest = cli_nearest(word, names, count);
    if (nearest)
        return error_set(err, ERROR_INVALID_REQUEST,
                         "`faas %s` has no option --%s; did you mean --%s?", verb->name, word,
                         nearest);
    return error_set(err, ERROR_INVALID_REQUEST,
                     "`faas %s` has no option --%s; `faas %s --help` lists them", verb->name, word,
                     verb->name);
}

/* "none|bridge" holds "none". */
static bool value_allowed(const char *values, const char *value)
{
    size_t len = strlen(value);
    for (const char *at = values; at; at = strchr(at, '|') ? strchr(at, '|') + 1 : NULL)
        if (strncmp(at, value, len) == 0 && (at[len] == '|' || at[len] == '\0') && len > 0)
            return true;
    return false;
}

static int add_option(struct cli *cli, const struct cli_option *option, const char *value,
                      struct error *err)
{
    if (cli->option_count == CLI_OPTIONS_MAX)
        return error_set(err, ERROR_INVALID_REQUEST, "more than %d options", CLI_OPTIONS_MAX);
    if (option->values && value && !value_allowed(option->values, value))
        return error_set(err, ERROR_INVALID_REQUEST, "--%s must be one of %s, not %s", option->name,
                         option->values, value);
    cli->options[cli->option_count].name = option->name;
    cli->options[cli->option_count].value = value ? value : "";
    cli->option_count++;
    return 0;
}

/* Takes argv[*i] and, where it has an argument of its own, argv[*i + 1]. */
static int parse_option(struct cli *cli, int argc, char **argv, int *i, struct error *err)
{
    const char *word = argv[*i];
    bool is_long = word[1] == '-';
    const char *name = is_long ? word + 2 : word + 1;
    const char *equals = is_long ? strchr(name, '=') : NULL;
    size_t len = equals ? (size_t)(equals - name) : strlen(name);
    const struct cli_option *option = NULL;

    if (is_long || len == 1)
        option = find_option(cli->verb, name, len, is_long ? 0 : name[0]);
    if (!option)
        return unknown_option(cli->verb, name, len, err);
    if (!option->argument) {
        if (equals)
            return error_set(err, ERROR_INVALID_REQUEST, "--%s takes no value", option->name);
        return add_option(cli, option, NULL, err);
    }
    if (equals)
        return add_option(cli, option, equals + 1, err);
    if (*i + 1 >= argc)
        return error_set(err, ERROR_INVALID_REQUEST, "--%s needs a value: --%s %s", option->name,
                         option->name, option->argument);
    *i += 1;
    return add_option(cli, option, argv[*i], err);
}

static int check_argument_count(const struct cli *cli, struct error *err)
{
    const struct cli_verb *verb = cli->verb;
    if (cli_flag(cli, "help"))
        return 0;
    if (cli->argument_count < verb->min_arguments)
        return error_set(err, ERROR_INVALID_REQUEST, "`faas %s` needs %s; see `faas %s --help`",
                         verb->name, verb->arguments, verb->name);
    return 0;
}

int cli_parse(struct cli *cli, int argc, char **argv, struct error *err)
{
    int words = 0;
    /* `workers drain` goes before `workers`. */
    for (size_t i = 0; cli_verbs[i]; i++) {
        int these = verb_words(cli_verbs[i]->name, argc - 1, argv + 1);
        if (these > words) {
            words = these;
            cli->verb = cli_verbs[i];
        }
    }
    if (!words)
        return unknown_verb(argv[1], argc > 2 ? argv[2] : NULL, err);

    bool only_arguments = false;
    for (int i = 1 + words; i < argc; i++) {
        const char *word = argv[i];
        if (!only_arguments && strcmp(word, "--") == 0) {
            only_arguments = true;
        } else if (!only_arguments && word[0] == '-' && word[1] != '\0') {
            if (parse_option(cli, argc, argv, &i, err))
                return -1;
        } else {
            if (cli->argument_count == cli->verb->max_arguments)
                return error_set(err, ERROR_INVALID_REQUEST, "`faas %s` takes %s; %s is too much",
                                 cli->verb->name,
                                 cli->verb->arguments[0] ? cli->verb->arguments : "no arguments",
                                 word);
            cli->arguments[cli->argument_count++] = word;
        }
    }
    return check_argument_count(cli, err);
}

int cli_main(int argc, char **argv)
{
    struct error err = {0};
    struct cli cli = {0};

    log_init("faas", LOG_LEVEL_WARN, LOG_FORMAT_TEXT);
    if (argc < 2 || strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0 ||
        strcmp(argv[1], "help") == 0) {
        cli_print_help(NULL);
        return argc < 2 ? error_code_info(ERROR_INVALID_REQUEST)->exit_status : 0;
    }
    if (strcmp(argv[1], "--version") == 0) {
        printf("faas %s\n", FAAS_VERSION);
        return 0;
    }
    if (cli_parse(&cli, argc, argv, &err))
        return cli_fail(&cli, &err);
    if (cli_flag(&cli, "help")) {
        cli_print_help(cli.verb);
        return 0;
    }
    return cli.verb->run(&cli);
}
