/* The error object: filling it, wrapping it, and the one table from code to what each program
 * shows. */
#include "base/error.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static const struct error_code_info code_infos[ERROR_CODE_COUNT] = {
    [ERROR_NONE] = {"none", 200, 0, 0},
    [ERROR_INVALID_REQUEST] = {"invalid_request", 400, 2, 0},
    [ERROR_UNAUTHORIZED] = {"unauthorized", 401, 3, 0},
    [ERROR_FORBIDDEN] = {"forbidden", 403, 3, 0},
    [ERROR_NOT_FOUND] = {"not_found", 404, 4, 0},
    [ERROR_CONFLICT] = {"conflict", 409, 5, 0},
    [ERROR_NOT_READY] = {"not_ready", 409, 5, 1},
    [ERROR_PAYLOAD_TOO_LARGE] = {"payload_too_large", 413, 2, 0},
    [ERROR_THROTTLED] = {"throttled", 429, 6, 1},
    [ERROR_NO_CAPACITY] = {"no_capacity", 503, 6, 1},
    [ERROR_TIMED_OUT] = {"timed_out", 504, 7, 1},
    [ERROR_UNAVAILABLE] = {"unavailable", 503, 7, 1},
    [ERROR_INTERNAL] = {"internal", 500, 8, 0},
};

const struct error_code_info *error_code_info(enum error_code code)
{
    if ((unsigned)code >= ERROR_CODE_COUNT)
        code = ERROR_INTERNAL;
    return &code_infos[code];
}

enum error_code error_code_from_type(const char *type)
{
    for (int code = ERROR_NONE + 1; type && code < ERROR_CODE_COUNT; code++)
        if (strcmp(code_infos[code].type, type) == 0)
            return (enum error_code)code;
    return ERROR_INTERNAL;
}

/* Where a cut at `len` leaves whole UTF-8 characters only. */
static size_t whole_characters(const char *text, size_t len)
{
    size_t start = len;
    while (start > 0 && len - start < 4) {
        unsigned char byte = (unsigned char)text[--start];
        if ((byte & 0xC0) == 0x80)
            continue;
        size_t width = byte < 0x80 ? 1 : byte < 0xE0 ? 2 : byte < 0xF0 ? 3 : 4;
        return start + width > len ? start : len;
    }
    return len;
}

/* Messages quote what strangers sent: they stay one line and cannot steer a terminal. */
static void make_one_line(char *text, size_t size)
{
    size_t len = strlen(text);
    if (len == size - 1)
        text[whole_characters(text, len)] = '\0';
    for (char *c = text; *c; c++)
        if ((unsigned char)*c < 0x20 || *c == 0x7F)
            *c = ' ';
}

static void append_cut(char *text, size_t size, const char *more)
{
    size_t len = strlen(text);
    size_t take = strnlen(more, size - 1 - len);
    memcpy(text + len, more, take);
    text[len + take] = '\0';
}

__attribute__((format(printf, 4, 0))) static void fill(struct error *err, enum error_code code,
                                                       const char *pointer, const char *format,
                                                       va_list arguments)
{
    /* Built aside: an argument may be the message that is there now. */
    struct error made = {.code = code};
    snprintf(made.field, sizeof(made.field), "%s", pointer);
    vsnprintf(made.message, sizeof(made.message), format, arguments);
    make_one_line(made.field, sizeof(made.field));
    make_one_line(made.message, sizeof(made.message));
    *err = made;
}

#ifdef __clang_analyzer__
#undef error_set
#undef error_set_field
#undef error_set_errno
#undef error_wrap
#endif

int error_set(struct error *err, enum error_code code, const char *format, ...)
{
    if (!err)
        return -1;
    va_list arguments;
    va_start(arguments, format);
    fill(err, code, "", format, arguments);
    va_end(arguments);
    return -1;
}

int error_set_field(struct error *err, enum error_code code, const char *pointer,
                    const char *format, ...)
{
    if (!err)
        return -1;
    va_list arguments;
    va_start(arguments, format);
    fill(err, code, pointer ? pointer : "", format, arguments);
    va_end(arguments);
    return -1;
}

int error_set_errno(struct error *err, enum error_code code, int sys_errno, const char *format, ...)
{
    if (!err)
        return -1;
    va_list arguments;
    va_start(arguments, format);
    fill(err, code, "", format, arguments);
    va_end(arguments);

    size_t len = strlen(err->message);
    int saved = errno;
    errno = sys_errno;
    snprintf(err->message + len, sizeof(err->message) - len, ": %m");
    errno = saved;
    err->sys_errno = sys_errno;
    return -1;
}

int error_wrap(struct error *err, const char *format, ...)
{
    if (!err)
        return -1;
    struct error made = *err;
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(made.message, sizeof(made.message), format, arguments);
    va_end(arguments);
    append_cut(made.message, sizeof(made.message), ": ");
    append_cut(made.message, sizeof(made.message), err->message);
    make_one_line(made.message, sizeof(made.message));
    *err = made;
    return -1;
}
