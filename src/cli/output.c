/* Tables, colours and untrusted text on a terminal. */
#include "cli/output.h"

#include "base/cleanup.h"
#include "base/text.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static bool is_c1(unsigned char first, unsigned char second)
{
    return first == 0xc2 && second >= 0x80 && second <= 0x9f;
}

/* Whether byte `i` is a control character or part of one. U+0080 to U+009F, two bytes in UTF-8, are controls as well: a
 * terminal takes U+009B for "escape [". */
static bool is_control(const char *text, size_t len, size_t i)
{
    const unsigned char *bytes = (const unsigned char *)text;
    return bytes[i] < 0x20 || bytes[i] == 0x7f || (i + 1 < len && is_c1(bytes[i], bytes[i + 1])) ||
           (i > 0 && is_c1(bytes[i - 1], bytes[i]));
}

static char *printable_copy(const char *text)
{
    size_t len = strlen(text);
    char *copy = strdup(text);
    for (size_t i = 0; copy && i < len; i++)
        if (is_control(text, len, i))
            copy[i] = '?';
    return copy;
}

void table_init(struct table *table, const char *const *titles, size_t columns)
{
    assert(columns > 0 && columns <= TABLE_COLUMNS_MAX);
    *table = (struct table){.columns = columns};
    for (size_t i = 0; i < columns; i++)
        table->titles[i] = titles[i];
}

void table_add(struct table *table, const char *cell)
{
    if (table->cell_count == table->cell_cap) {
        size_t cap = table->cell_cap ? table->cell_cap * 2 : 64;
        char **cells = realloc(table->cells, cap * sizeof(*cells));
        if (!cells)
            return;
        table->cells = cells;
        table->cell_cap = cap;
    }
    table->cells[table->cell_count++] = printable_copy(cell ? cell : "-");
}

void table_add_int(struct table *table, int64_t number)
{
    char text[32];
    snprintf(text, sizeof(text), "%lld", (long long)number);
    table_add(table, text);
}

/* Characters, not bytes: names may hold any UTF-8. */
static int text_width(const char *text)
{
    int width = 0;
    for (; *text; text++)
        width += ((unsigned char)*text & 0xc0) != 0x80;
    return width;
}

static void print_cell(const char *cell, const char *style, int width, bool last)
{
    int padding = last ? 0 : width - text_width(cell) + 2;
    printf("%s%s%s%*s", style, cell, style[0] ? style_off(stdout) : "", padding > 0 ? padding : 0,
           "");
}

void table_finish(struct table *table)
{
    int widths[TABLE_COLUMNS_MAX];
    assert(table->columns > 0);
    for (size_t i = 0; i < table->columns; i++)
        widths[i] = text_width(table->titles[i]);
    for (size_t i = 0; i < table->cell_count; i++) {
        int width = table->cells[i] ? text_width(table->cells[i]) : 0;
        if (width > widths[i % table->columns])
            widths[i % table->columns] = width;
    }
    for (size_t i = 0; i < table->columns; i++)
        print_cell(table->titles[i], style_dim(stdout), widths[i], i + 1 == table->columns);
    printf("\n");
    for (size_t i = 0; i < table->cell_count; i++) {
        size_t column = i % table->columns;
        const char *cell = table->cells[i] ? table->cells[i] : "";
        print_cell(cell, style_status(stdout, cell), widths[column], column + 1 == table->columns);
        if (column + 1 == table->columns)
            printf("\n");
    }
    table_deinit(table);
}

void table_deinit(struct table *table)
{
    for (size_t i = 0; i < table->cell_count; i++)
        free(table->cells[i]);
    free(table->cells);
    *table = (struct table){.columns = table->columns};
}

static const char *style(FILE *stream, const char *sequence)
{
    const char *no_color = getenv("NO_COLOR");
    return isatty(fileno(stream)) && !(no_color && no_color[0]) ? sequence : "";
}

const char *style_bold(FILE *stream)
{
    return style(stream, "\033[1m");
}

const char *style_dim(FILE *stream)
{
    return style(stream, "\033[2m");
}

const char *style_green(FILE *stream)
{
    return style(stream, "\033[32m");
}

const char *style_red(FILE *stream)
{
    return style(stream, "\033[31m");
}

const char *style_yellow(FILE *stream)
{
    return style(stream, "\033[33m");
}

const char *style_off(FILE *stream)
{
    return style(stream, "\033[0m");
}

const char *style_status(FILE *stream, const char *status)
{
    static const char *const good[] = {"succeeded", "ready", "connected"};
    static const char *const bad[] = {"failed", "timed_out", "out_of_memory", "lost"};
    static const char *const waiting[] = {"queued",    "running",  "building",
                                          "cancelled", "draining", "drained"};
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++)
        if (strcmp(status, good[i]) == 0)
            return style_green(stream);
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        if (strcmp(status, bad[i]) == 0)
            return style_red(stream);
    for (size_t i = 0; i < sizeof(waiting) / sizeof(waiting[0]); i++)
        if (strcmp(status, waiting[i]) == 0)
            return style_yellow(stream);
    return "";
}

void print_untrusted(FILE *stream, const char *text, size_t len)
{
    bool terminal = isatty(fileno(stream));
    if (!terminal) {
        fwrite(text, 1, len, stream);
        return;
    }
    for (size_t i = 0; i < len; i++) {
        bool layout = text[i] == '\n' || text[i] == '\t';
        putc(!layout && is_control(text, len, i) ? '?' : (unsigned char)text[i], stream);
    }
}

void print_word(FILE *stream, const char *text)
{
    autofree char *word = printable_copy(text ? text : "?");
    if (word)
        fputs(isatty(fileno(stream)) ? word : text ? text : "?", stream);
}

void print_line(const char *text)
{
    print_word(stdout, text);
    putchar('\n');
}

static void print_indent(FILE *stream, int depth)
{
    fprintf(stream, "\n%*s", depth * 2, "");
}

static int print_scalar(FILE *stream, const struct json *value)
{
    struct buffer out = BUFFER_INIT(256 * 1024 * 1024);
    struct json_writer *writer = json_writer_new(&out);
    json_write_value(writer, value);
    int status = json_writer_finish(writer, NULL);
    if (status == 0)
        fwrite(out.data, 1, out.len, stream);
    buffer_deinit(&out);
    return status;
}

/* Recursion is bounded by the parser's depth limit. */
static void print_indented(FILE *stream, const struct json *value, int depth)
{
    bool object = json_type(value) == JSON_OBJECT;
    if ((!object && json_type(value) != JSON_ARRAY) || json_count(value) == 0) {
        print_scalar(stream, value);
        return;
    }
    putc(object ? '{' : '[', stream);
    json_foreach (i, member, value) {
        if (i > 0)
            putc(',', stream);
        print_indent(stream, depth + 1);
        if (object) {
            struct buffer key = BUFFER_INIT(1024 * 1024);
            struct json_writer *writer = json_writer_new(&key);
            json_write_string(writer, json_key_at(value, i));
            if (json_writer_finish(writer, NULL) == 0)
                fprintf(stream, "%s: ", key.data);
            buffer_deinit(&key);
        }
        print_indented(stream, member, depth + 1);
    }
    print_indent(stream, depth);
    putc(object ? '}' : ']', stream);
}

int print_json(FILE *stream, const struct json *value, bool indented)
{
    int status = 0;
    if (indented)
        print_indented(stream, value, 0);
    else
        status = print_scalar(stream, value);
    putc('\n', stream);
    return status;
}

void format_age(const char *rfc3339, char *out, size_t size)
{
    struct tm tm = {0};
    if (!rfc3339 || !strptime(rfc3339, "%Y-%m-%dT%H:%M:%S", &tm)) {
        snprintf(out, size, "-");
        return;
    }
    long long seconds = (long long)(time(NULL) - timegm(&tm));
    if (seconds < 0)
        seconds = 0;
    if (seconds < 60)
        snprintf(out, size, "%lld s ago", seconds);
    else if (seconds < 3600)
        snprintf(out, size, "%lld min ago", seconds / 60);
    else if (seconds < 86400)
        snprintf(out, size, "%lld h ago", seconds / 3600);
    else
        snprintf(out, size, "%lld days ago", seconds / 86400);
}
