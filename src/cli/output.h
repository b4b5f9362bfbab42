/* What people see: tables, colours and units on a terminal; plain columns in a pipe. */
#pragma once

#include "base/json.h"

#include <stdbool.h>
#include <stdio.h>

#define TABLE_COLUMNS_MAX 10

/* Rows are kept until the end so that columns get their width. Cells are copied; control characters
 * in them are shown as '?', since names and messages come from other people. */
struct table {
    const char *titles[TABLE_COLUMNS_MAX];
    size_t columns;
    char **cells; /* owned, row by row */
    size_t cell_count, cell_cap;
};

void table_init(struct table *table, const char *const *titles, size_t columns);
void table_add(struct table *table, const char *cell); /* NULL: "-" */
void table_add_int(struct table *table, int64_t number);
/* Prints and frees. */
void table_finish(struct table *table);
/* Frees without printing; also after table_finish(). */
void table_deinit(struct table *table);

/* Escape sequences on a terminal, "" elsewhere and with NO_COLOR. `stream` decides. */
const char *style_bold(FILE *stream);
const char *style_dim(FILE *stream);
const char *style_green(FILE *stream);
const char *style_red(FILE *stream);
const char *style_yellow(FILE *stream);
const char *style_off(FILE *stream);
/* The colour of an execution status or function state. */
const char *style_status(FILE *stream, const char *status);

/* Text that strangers wrote, for a terminal: control characters but newline and tab shown as '?'.
 */
void print_untrusted(FILE *stream, const char *text, size_t len);
/* The same for one that is to stay within its line; NULL: "?". */
void print_word(FILE *stream, const char *text);
/* Alone on a line of stdout. */
void print_line(const char *text);
/* A value as JSON on one line, or indented by two spaces. With a newline. */
int print_json(FILE *stream, const struct json *value, bool indented);
/* "3 min ago" for an RFC 3339 time. */
void format_age(const char *rfc3339, char *out, size_t size);
