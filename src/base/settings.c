/* Settings loaded: defaults, then the environment, then flags, each value checked by its row. */
#include "base/settings_table.h"

#include "base/cleanup.h"
#include "base/log.h"
#include "base/text.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

static void *member(const struct setting *row, void *object)
{
    return (char *)object + row->offset;
}

static int set_string(const char *text, char **to, struct error *err)
{
    char *copy = strdup(text);
    if (!copy)
        return error_set(err, ERROR_INTERNAL, "out of memory");
    free(*to);
    *to = copy;
    return 0;
}

static bool parse_bool(const char *text, bool *ret)
{
    static const char *const words[] = {"false", "true", "0", "1", "no", "yes"};
    for (size_t i = 0; i < ARRAY_LENGTH(words); i++)
        if (strcasecmp(text, words[i]) == 0) {
            *ret = i % 2 == 1;
            return true;
        }
    return false;
}

/* What is measured in ms may be written as a duration too: 30s. */
static bool parse_int(const struct setting *row, const char *text, int64_t *ret)
{
    char *end;
    errno = 0;
    long long number = strtoll(text, &end, 10);
    bool whole = end != text && *end == '\0' && errno == 0;
    int64_t value = number;
    if (!whole && row->unit && strcmp(row->unit, "ms") == 0)
        whole = duration_parse_ms(text, &value, NULL) == 0;
    if (!whole || value < row->min || value > row->max)
        return false;
    *ret = value;
    return true;
}

static bool is_choice(const char *choices, const char *text)
{
    size_t len = strlen(text);
    for (const char *at = choices; at; at = strchr(at, '|')) {
        at += *at == '|';
        if (strncmp(at, text, len) == 0 && (at[len] == '|' || at[len] == '\0'))
            return true;
    }
    return false;
}

/* `source` is what the user wrote the value behind: the variable's or the flag's name. */
static int set_value(const struct setting *row, const char *source, const char *text, void *object,
                     struct error *err)
{
    bool valid = true;
    void *to = member(row, object);
    if (row->type == SETTING_INT)
        valid = parse_int(row, text, to);
    else if (row->type == SETTING_BOOL)
        valid = parse_bool(text, to);
    else if (row->type == SETTING_CHOICE)
        valid = is_choice(row->choices, text);
    if (!valid) {
        char allowed[SETTING_ALLOWED_SIZE];
        setting_allowed(row, allowed);
        return error_set(err, ERROR_INVALID_REQUEST, "%s must be %s, not \"%.100s\"", source,
                         allowed, row->secret ? "(secret)" : text);
    }
    if (row->type == SETTING_STRING || row->type == SETTING_CHOICE)
        return set_string(text, to, err);
    return 0;
}

static int load_defaults(const struct settings_spec *spec, void *object, struct error *err)
{
    for (size_t i = 0; i < spec->row_count; i++) {
        const struct setting *row = &spec->rows[i];
        bool is_string = row->type == SETTING_STRING || row->type == SETTING_CHOICE;
        if (row->default_value) {
            if (set_value(row, row->name, row->default_value, object, err) < 0)
                return error_wrap(err, "default");
        } else if (is_string && set_string("", member(row, object), err) < 0) {
            return -1;
        }
    }
    return 0;
}

/* An empty variable counts as not set, so that a unit file or compose file can leave one blank. */
static int load_environment(const struct settings_spec *spec, void *object, struct error *err)
{
    for (size_t i = 0; i < spec->row_count; i++) {
        const char *text = getenv(spec->rows[i].name);
        if (text && *text && set_value(&spec->rows[i], spec->rows[i].name, text, object, err) < 0)
            return -1;
    }
    return 0;
}

static bool is_known(const struct settings_spec *spec, const char *name, size_t len,
                     struct nearest *nearest)
{
    for (size_t i = 0; i < spec->row_count; i++) {
        if (strlen(spec->rows[i].name) == len && strncmp(spec->rows[i].name, name, len) == 0)
            return true;
        if (strncmp(spec->rows[i].name, spec->prefix, strlen(spec->prefix)) == 0)
            nearest_offer(nearest, spec->rows[i].name + strlen(spec->prefix));
    }
    return false;
}

/* A variable with the program's prefix that is no setting was meant to be one, perhaps: a limit that does not hold. It is no error, because
 * others than the operator set such variables, too. */
static void tell_unknown(const struct settings_spec *spec)
{
    size_t prefix_len = strlen(spec->prefix);
    for (char **at = environ; *at; at++) {
        size_t len = strcspn(*at, "=");
        if (strncmp(*at, spec->prefix, prefix_len) != 0 || len == prefix_len)
            continue;
        autofree char *name = strndup(*at, len);
        struct nearest nearest = {.wanted = name ? name + prefix_len : ""};
        if (!name || is_known(spec, name, len, &nearest))
            continue;
        autofree char *meant =
            nearest.best ? string_printf("%s%s", spec->prefix, nearest.best) : NULL;
        log_warn("a variable of the environment is no setting of this program",
                 LOG_STR("variable", name), LOG_STR("did_you_mean", meant ? meant : ""));
    }
}

static const struct setting *find_flag(const struct settings_spec *spec, const char *name,
                                       struct error *err)
{
    struct nearest nearest = {.wanted = name + 2}; /* without the dashes */
    char offered[SETTING_FLAG_SIZE], best[SETTING_FLAG_SIZE] = "";
    for (size_t i = 0; i < spec->row_count; i++) {
        setting_flag(spec, &spec->rows[i], offered);
        if (strcmp(offered, name) == 0)
            return &spec->rows[i];
        nearest_offer(&nearest, offered + 2);
        if (nearest.best == offered + 2) { /* `offered` is written again: keep a copy */
            snprintf(best, sizeof(best), "%s", offered);
            nearest.best = best + 2;
        }
    }
    if (nearest.best)
        error_set(err, ERROR_INVALID_REQUEST, "unknown flag %.64s; did you mean %s?", name, best);
    else
        error_set(err, ERROR_INVALID_REQUEST, "unknown flag %.64s; %s --help lists all", name,
                  spec->program);
    return NULL;
}

/* Arguments can be read by everybody on the machine: a secret does not stay there. */
static void blot_out(const struct setting *row, char *value)
{
    if (row->secret)
        memset(value, 'x', strlen(value));
}

static int take_value(const struct setting *row, const char *source, char *text, void *object,
                      struct error *err)
{
    int outcome = set_value(row, source, text, object, err);
    blot_out(row, text);
    return outcome;
}

/* The flag at argv[*at], with its value there or in the next argument; *at moves behind it. */
static int load_flag(const struct settings_spec *spec, int argc, char **argv, int *at, void *object,
                     struct error *err)
{
    char *argument = argv[(*at)++];
    if (strncmp(argument, "--", 2) != 0)
        return error_set(err, ERROR_INVALID_REQUEST,
                         "unexpected argument \"%.64s\"; settings are written --name VALUE",
                         argument);
    size_t name_len = strcspn(argument, "=");
    autofree char *name = strndup(argument, name_len);
    if (!name)
        return error_set(err, ERROR_INTERNAL, "out of memory");
    const struct setting *row = find_flag(spec, name, err);
    if (!row)
        return -1;

    char *next = *at < argc ? argv[*at] : NULL;
    bool ignored;
    if (argument[name_len] == '=')
        return take_value(row, name, argument + name_len + 1, object, err);
    if (row->type == SETTING_BOOL && (!next || !parse_bool(next, &ignored)))
        return set_value(row, name, "true", object, err);
    if (!next)
        return error_set(err, ERROR_INVALID_REQUEST, "%s needs a value", name);
    (*at)++;
    return take_value(row, name, next, object, err);
}

enum request { REQUEST_RUN, REQUEST_HELP, REQUEST_VERSION, REQUEST_CHECK, REQUEST_MARKDOWN };

/* REQUEST_RUN for an argument that asks for nothing special. */
static enum request request_of(const char *argument)
{
    static const struct {
        const char *flag;
        enum request request;
    } requests[] = {{"--help", REQUEST_HELP},
                    {"-h", REQUEST_HELP},
                    {"--version", REQUEST_VERSION},
                    {"--check-config", REQUEST_CHECK},
                    {"--markdown", REQUEST_MARKDOWN}};
    for (size_t i = 0; i < ARRAY_LENGTH(requests); i++)
        if (strcmp(argument, requests[i].flag) == 0)
            return requests[i].request;
    return REQUEST_RUN;
}

static int print_all(const struct buffer *text, struct error *err)
{
    size_t written = fwrite(text->data, 1, text->len, stdout);
    if (written != text->len || fflush(stdout) != 0)
        return error_set_errno(err, ERROR_INTERNAL, errno, "cannot write to stdout");
    return 0;
}

static int show_value(const struct setting *row, void *object, struct buffer *out,
                      struct error *err)
{
    void *from = member(row, object);
    if (row->type == SETTING_INT)
        return buffer_printf(out, err, "%s=%lld\n", row->name, (long long)*(int64_t *)from);
    if (row->type == SETTING_BOOL)
        return buffer_printf(out, err, "%s=%s\n", row->name, *(bool *)from ? "true" : "false");
    const char *text = *(char **)from;
    return buffer_printf(out, err, "%s=%s\n", row->name, row->secret && *text ? "(secret)" : text);
}

static int show_values(const struct settings_spec *spec, void *object, struct buffer *out,
                       struct error *err)
{
    for (size_t i = 0; i < spec->row_count; i++)
        if (show_value(&spec->rows[i], object, out, err) < 0)
            return -1;
    return 0;
}

static int serve(const struct settings_spec *spec, enum request request, void *object,
                 struct error *err)
{
    with_cleanup(buffer_deinit) struct buffer out = BUFFER_INIT(1024 * 1024);
    int result = 0;
    if (request == REQUEST_HELP)
        result = settings_help(spec, &out, err);
    else if (request == REQUEST_VERSION)
        result = buffer_printf(&out, err, "%s %s\n", spec->program, FAAS_VERSION);
    else if (request == REQUEST_MARKDOWN)
        result = settings_markdown(spec, &out, err);
    else
        result = show_values(spec, object, &out, err);
    return result < 0 ? -1 : print_all(&out, err);
}

static int load(const struct settings_spec *spec, int argc, char **argv, void *object,
                enum settings_outcome *ret_outcome, struct error *err)
{
    bool check_only = false;
    if (load_defaults(spec, object, err) < 0)
        return -1;
    /* Help must come even where a setting is wrong. */
    for (int i = 1; i < argc; i++) {
        enum request request = request_of(argv[i]);
        check_only = check_only || request == REQUEST_CHECK;
        if (request != REQUEST_RUN && request != REQUEST_CHECK) {
            *ret_outcome = SETTINGS_EXIT;
            return serve(spec, request, object, err);
        }
    }
    if (load_environment(spec, object, err) < 0)
        return -1;
    tell_unknown(spec);
    bool action = false;
    for (int i = 1; i < argc;) {
        bool is_action = spec->action && strcmp(argv[i], spec->action) == 0;
        action = action || is_action;
        if (is_action || request_of(argv[i]) == REQUEST_CHECK)
            i++;
        else if (load_flag(spec, argc, argv, &i, object, err) < 0)
            return -1;
    }
    if (spec->check && spec->check(object, err) < 0)
        return -1;
    *ret_outcome = check_only ? SETTINGS_EXIT : action ? SETTINGS_ACTION : SETTINGS_RUN;
    return check_only ? serve(spec, REQUEST_CHECK, object, err) : 0;
}

int settings_load(const struct settings_spec *spec, int argc, char **argv, void *object,
                  enum settings_outcome *ret_outcome, struct error *err)
{
    if (load(spec, argc, argv, object, ret_outcome, err) == 0)
        return 0;
    settings_deinit(spec, object);
    return -1;
}

void settings_deinit(const struct settings_spec *spec, void *object)
{
    for (size_t i = 0; i < spec->row_count; i++) {
        const struct setting *row = &spec->rows[i];
        if (row->type != SETTING_STRING && row->type != SETTING_CHOICE)
            continue;
        char **string = member(row, object);
        free(*string);
        *string = NULL;
    }
}
