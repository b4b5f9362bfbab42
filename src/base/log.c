/* Log lines: formatted into one fixed block and written by one write(2), whatever the fields hold.
 */
#include "base/log.h"

#include "base/loop.h"
#include "base/text.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define LINE_SIZE 8192
#define LINE_END_RESERVE 8 /* for the closing quote, brace and line feed of a line that was cut */
#define FIELDS_MAX 12

static struct {
    const char *program;
    enum log_level level;
    enum log_format format;
} config = {.program = "faas", .level = LOG_LEVEL_INFO, .format = LOG_FORMAT_TEXT};

static const char *const level_names[] = {"DEBUG", "INFO", "WARN", "ERROR"};
static const char *const level_words[] = {"debug", "info", "warn", "error"};

struct line {
    char data[LINE_SIZE];
    size_t len;
};

void log_init(const char *program, enum log_level level, enum log_format format)
{
    config.program = program;
    config.level = level;
    config.format = format;
}

int log_level_parse(const char *text, enum log_level *ret, struct error *err)
{
    for (size_t i = 0; i < sizeof(level_words) / sizeof(level_words[0]); i++)
        if (strcmp(text, level_words[i]) == 0) {
            *ret = (enum log_level)i;
            return 0;
        }
    return error_set(err, ERROR_INVALID_REQUEST,
                     "the log level must be debug, info, warn or error, not \"%.40s\"", text);
}

int log_format_parse(const char *text, enum log_format *ret, struct error *err)
{
    bool json = strcmp(text, "json") == 0;
    if (!json && strcmp(text, "text") != 0)
        return error_set(err, ERROR_INVALID_REQUEST,
                         "the log format must be text or json, not \"%.40s\"", text);
    *ret = json ? LOG_FORMAT_JSON : LOG_FORMAT_TEXT;
    return 0;
}

bool log_enabled(enum log_level level)
{
    return level >= config.level;
}

/* A piece goes in whole or not at all, so that a cut never splits an escape or a character. */
static bool put(struct line *line, const char *piece, size_t len)
{
    if (line->len + len > LINE_SIZE - LINE_END_RESERVE)
        return false;
    memcpy(line->data + line->len, piece, len);
    line->len += len;
    return true;
}

static bool put_string(struct line *line, const char *string)
{
    return put(line, string, strlen(string));
}

static void put_end(struct line *line, const char *string)
{
    size_t len = strlen(string);
    if (line->len + len <= LINE_SIZE) {
        memcpy(line->data + line->len, string, len);
        line->len += len;
    }
}

/* C0 and C1 control characters and DEL: they steer terminals. */
static bool is_control(const char *at, size_t len)
{
    unsigned char first = (unsigned char)at[0];
    if (len == 1)
        return first < 0x20 || first == 0x7F;
    return len == 2 && first == 0xC2 && (unsigned char)at[1] < 0xA0;
}

static bool put_escape(struct line *line, const char *at, size_t len)
{
    char escape[8];
    unsigned code = (unsigned char)at[len - 1];
    if (*at == '"' || *at == '\\')
        snprintf(escape, sizeof(escape), "\\%c", *at);
    else if (*at == '\n' || *at == '\t' || *at == '\r')
        snprintf(escape, sizeof(escape), "\\%c", *at == '\n' ? 'n' : *at == '\t' ? 't' : 'r');
    else
        snprintf(escape, sizeof(escape), "\\u%04x", code);
    return put_string(line, escape);
}

/* The same escapes serve both formats: they are JSON's. */
static void put_escaped(struct line *line, const char *text)
{
    size_t left = strlen(text);
    while (left > 0) {
        size_t len = utf8_width(text, left);
        bool fits;
        if (len == 0)
            fits = put_string(line, "\xEF\xBF\xBD");
        else if (is_control(text, len) || *text == '"' || *text == '\\')
            fits = put_escape(line, text, len);
        else
            fits = put(line, text, len);
        if (!fits)
            return;
        len = len ? len : 1;
        text += len;
        left -= len;
    }
}

static bool needs_quotes(const char *text)
{
    for (const unsigned char *c = (const unsigned char *)text; *c; c++)
        if (*c <= ' ' || *c == '"' || *c == '\\' || *c == '=' || *c == 0x7F)
            return true;
    return *text == '\0';
}

static void put_quoted(struct line *line, const char *text)
{
    put_end(line, "\"");
    put_escaped(line, text);
    put_end(line, "\"");
}

/* False when the field has no room left and was dropped. */
static bool put_field(struct line *line, const struct log_field *field)
{
    bool json = config.format == LOG_FORMAT_JSON;
    char start[96], number[24];
    snprintf(start, sizeof(start), json ? ",\"%.80s\":" : " %.80s=", field->key);
    /* 24 more for a number or the beginning of a string */
    if (line->len + strlen(start) + 24 > LINE_SIZE - LINE_END_RESERVE)
        return false;
    put_string(line, start);
    if (!field->string) {
        snprintf(number, sizeof(number), "%lld", (long long)field->number);
        put_string(line, number);
    } else if (json || needs_quotes(field->string)) {
        put_quoted(line, field->string);
    } else {
        put_escaped(line, field->string);
    }
    return true;
}

static void put_beginning(struct line *line, enum log_level level, const char *message)
{
    char time[25], start[160];
    clock_format_rfc3339(clock_realtime_ns(), time);
    if (config.format == LOG_FORMAT_JSON) {
        snprintf(start, sizeof(start),
                 "{\"ts\":\"%s\",\"level\":\"%s\",\"program\":\"%.64s\",\"msg\":", time,
                 level_words[level], config.program);
        put_string(line, start);
        put_quoted(line, message);
    } else {
        snprintf(start, sizeof(start), "%s %s %.64s ", time, level_names[level], config.program);
        put_string(line, start);
        put_escaped(line, message);
    }
}

void log_write(enum log_level level, const char *message, const struct log_field *fields,
               size_t count)
{
    struct line line;
    line.len = 0;
    put_beginning(&line, level, message);
    for (size_t i = 0; i < count && i < FIELDS_MAX; i++)
        if (!put_field(&line, &fields[i]))
            break;
    put_end(&line, config.format == LOG_FORMAT_JSON ? "}\n" : "\n");
    /* Nothing can be done, nor told, when stderr does not take it. */
    ssize_t ignored = write(STDERR_FILENO, line.data, line.len);
    (void)ignored;
}
