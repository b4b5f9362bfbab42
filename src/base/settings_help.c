/* Settings shown: the help text and the table for docs/configuration.md, from the rows that also
 * load them. */
#include "base/settings_table.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

void setting_flag(const struct settings_spec *spec, const struct setting *row,
                  char out[SETTING_FLAG_SIZE])
{
    size_t prefix_len = spec->prefix ? strlen(spec->prefix) : 0;
    bool own = prefix_len > 0 && strncmp(row->name, spec->prefix, prefix_len) == 0;
    snprintf(out, SETTING_FLAG_SIZE, "--%s", row->name + (own ? prefix_len : 0));
    for (char *c = out; *c; c++)
        *c = *c == '_' ? '-' : (char)tolower((unsigned char)*c);
}

/* "a|b|c" as "a, b or c". */
static void list_choices(const char *choices, char *out, size_t size)
{
    size_t len = 0;
    for (const char *at = choices; *at && len + 8 < size;) {
        size_t word = strcspn(at, "|");
        const char *rest = at[word] ? at + word + 1 : "";
        const char *between = !*rest ? "" : strchr(rest, '|') ? ", " : " or ";
        int added = snprintf(out + len, size - len, "%.*s%s", (int)word, at, between);
        len += (size_t)added < size - len ? (size_t)added : size - len - 1;
        at = rest;
    }
}

void setting_allowed(const struct setting *row, char out[SETTING_ALLOWED_SIZE])
{
    out[0] = '\0';
    if (row->type == SETTING_BOOL)
        snprintf(out, SETTING_ALLOWED_SIZE, "true or false");
    else if (row->type == SETTING_CHOICE)
        list_choices(row->choices, out, SETTING_ALLOWED_SIZE);
    else if (row->type == SETTING_INT)
        snprintf(out, SETTING_ALLOWED_SIZE, "%lld to %lld%s%s", (long long)row->min,
                 (long long)row->max, row->unit ? " " : "", row->unit ? row->unit : "");
}

static int help_row(const struct settings_spec *spec, const struct setting *row, struct buffer *out,
                    struct error *err)
{
    char flag[SETTING_FLAG_SIZE], allowed[SETTING_ALLOWED_SIZE];
    setting_flag(spec, row, flag);
    setting_allowed(row, allowed);
    if (buffer_printf(out, err, "  %s, %s\n      %s\n", flag, row->name, row->text) < 0)
        return -1;
    const char *value = row->default_value ? row->default_value : "";
    if (!*allowed && !*value)
        return 0;
    return buffer_printf(out, err, "      %s%s%s%s\n", allowed, *allowed && *value ? "; " : "",
                         *value ? "default " : "", value);
}

int settings_help(const struct settings_spec *spec, struct buffer *out, struct error *err)
{
    if (buffer_printf(out, err,
                      "Usage: %s [--SETTING VALUE]...\n\n%s\n\nEach setting is a flag and an "
                      "environment variable; the flag wins.\n\n",
                      spec->program, spec->summary) < 0)
        return -1;
    for (size_t i = 0; i < spec->row_count; i++)
        if (help_row(spec, &spec->rows[i], out, err) < 0)
            return -1;
    if (spec->action &&
        buffer_printf(out, err, "\n  %-15s  %s", spec->action, spec->action_text) < 0)
        return -1;
    return buffer_printf(out, err,
                         "\n  --check-config   check all settings, show them, and exit\n"
                         "  --markdown       print the table of settings for the documentation\n"
                         "  --version, --help\n\nExample:\n  %s\n",
                         spec->example);
}

/* A bar would end the table's cell. */
static int append_cell(struct buffer *out, const char *text, struct error *err)
{
    for (; *text; text++) {
        if (*text == '|' && buffer_append_string(out, "\\", err) < 0)
            return -1;
        if (buffer_append(out, text, 1, err) < 0)
            return -1;
    }
    return buffer_append_string(out, " | ", err);
}

static int markdown_row(const struct settings_spec *spec, const struct setting *row,
                        struct buffer *out, struct error *err)
{
    char flag[SETTING_FLAG_SIZE], allowed[SETTING_ALLOWED_SIZE];
    const char *value = row->default_value;
    setting_flag(spec, row, flag);
    setting_allowed(row, allowed);
    if (buffer_printf(out, err, "| `%s` | `%s` | %s", row->name, flag, value && *value ? "`" : "") <
            0 ||
        buffer_printf(out, err, "%s%s | ", value ? value : "", value && *value ? "`" : "") < 0 ||
        append_cell(out, allowed, err) < 0 || append_cell(out, row->text, err) < 0)
        return -1;
    out->data[out->len - 1] = '\n';
    return 0;
}

int settings_markdown(const struct settings_spec *spec, struct buffer *out, struct error *err)
{
    if (buffer_printf(out, err,
                      "## %s\n\n%s\n\n"
                      "| variable | flag | default | allowed | what it does |\n"
                      "|---|---|---|---|---|\n",
                      spec->program, spec->summary) < 0)
        return -1;
    for (size_t i = 0; i < spec->row_count; i++)
        if (markdown_row(spec, &spec->rows[i], out, err) < 0)
            return -1;
    return 0;
}
