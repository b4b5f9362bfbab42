/* Structured log lines on stderr: one line, one write(2).
 *
 *     log_info("instance ready", LOG_STR("instance", id), LOG_INT("start_ms", ms));
 *
 * LOG_FORMAT text:
 *
 *     2026-01-31T12:00:00.123Z INFO controller instance ready instance=ab12 start_ms=31
 *
 * json: one object a line with ts, level, program, msg and the fields. Values are escaped: a tenant's text cannot forge a line or send control characters to a terminal. Secrets
 * are never passed here. Thread-safe. Fields are at most 12 a line; a line is cut at 8 KiB. */
#pragma once

#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum log_level { LOG_LEVEL_DEBUG, LOG_LEVEL_INFO, LOG_LEVEL_WARN, LOG_LEVEL_ERROR };
enum log_format { LOG_FORMAT_TEXT, LOG_FORMAT_JSON };

struct log_field {
    const char *key;
    const char *string; /* NULL: a number */
    int64_t number;
};

#define LOG_STR(key_, value_)                                                                      \
    ((struct log_field){.key = (key_), .string = (value_) ? (value_) : ""})
#define LOG_INT(key_, value_) ((struct log_field){.key = (key_), .number = (value_)})
/* error type and message as two fields' worth of text */
#define LOG_ERR(err_) ((struct log_field){.key = "error", .string = (err_)->message})

/* Until called: text at INFO. `program` is borrowed for ever. */
void log_init(const char *program, enum log_level level, enum log_format format);
int log_level_parse(const char *text, enum log_level *ret, struct error *err);
int log_format_parse(const char *text, enum log_format *ret, struct error *err);
bool log_enabled(enum log_level level);

void log_write(enum log_level level, const char *message, const struct log_field *fields,
               size_t count);

#define LOG_AT(level_, message_, ...)                                                              \
    do {                                                                                           \
        if (log_enabled(level_)) {                                                                 \
            const struct log_field fields_[] = {{0}, ##__VA_ARGS__};                               \
            log_write((level_), (message_), fields_ + 1,                                           \
                      sizeof(fields_) / sizeof(fields_[0]) - 1);                                   \
        }                                                                                          \
    } while (0)
#define log_debug(message, ...) LOG_AT(LOG_LEVEL_DEBUG, message, ##__VA_ARGS__)
#define log_info(message, ...) LOG_AT(LOG_LEVEL_INFO, message, ##__VA_ARGS__)
#define log_warn(message, ...) LOG_AT(LOG_LEVEL_WARN, message, ##__VA_ARGS__)
#define log_error(message, ...) LOG_AT(LOG_LEVEL_ERROR, message, ##__VA_ARGS__)
