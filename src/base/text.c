/* Small conversions between values and text: hexadecimal, durations, sizes. (UTF-8, base64, SHA-256
 * and identifiers have files of their own.) */
#include "base/text.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void hex_encode(const void *data, size_t len, char *out)
{
    static const char digits[] = "0123456789abcdef";
    const uint8_t *in = data;
    for (size_t i = 0; i < len; i++) {
        *out++ = digits[in[i] >> 4];
        *out++ = digits[in[i] & 15];
    }
    *out = '\0';
}

bool equal_constant_time(const void *a, const void *b, size_t len)
{
    const volatile uint8_t *left = a, *right = b;
    uint8_t difference = 0;
    for (size_t i = 0; i < len; i++)
        difference |= left[i] ^ right[i];
    return difference == 0;
}

/* Milliseconds in the unit at `text` ("" counts as ms); 0 for an unknown one. */
static int64_t unit_ms(const char *text)
{
    static const struct {
        const char *name;
        int64_t ms;
    } units[] = {{"", 1}, {"ms", 1}, {"s", 1000}, {"m", 60000}, {"h", 3600000}};
    for (size_t i = 0; i < sizeof(units) / sizeof(units[0]); i++)
        if (strcmp(units[i].name, text) == 0)
            return units[i].ms;
    return 0;
}

int duration_parse_ms(const char *text, int64_t *ret_ms, struct error *err)
{
    int64_t number = 0;
    const char *at = text;
    for (; *at >= '0' && *at <= '9'; at++)
        if (__builtin_mul_overflow(number, 10, &number) ||
            __builtin_add_overflow(number, *at - '0', &number))
            return error_set(err, ERROR_INVALID_REQUEST, "\"%.40s\" is too long a duration", text);
    int64_t unit = at > text ? unit_ms(at) : 0;
    if (unit == 0)
        return error_set(err, ERROR_INVALID_REQUEST,
                         "\"%.40s\" is not a duration; write it as 250ms, 30s, 2m or 1h (a bare "
                         "number is milliseconds)",
                         text);
    if (__builtin_mul_overflow(number, unit, &number))
        return error_set(err, ERROR_INVALID_REQUEST, "\"%.40s\" is too long a duration", text);
    *ret_ms = number;
    return 0;
}

/* `value` in the first of `units` (each 1000 times the one before) that keeps it below 1000. */
static void format_scaled(double value, const char *const *units, size_t count, char *out,
                          size_t size)
{
    size_t unit = 0;
    while (unit + 1 < count && value >= (unit == 0 ? 1000 : 999.95)) {
        value /= 1000;
        unit++;
    }
    snprintf(out, size, "%.*f %s", unit == 0 ? 0 : 1, value, units[unit]);
}

void format_duration_ns(uint64_t ns, char *out, size_t size)
{
    static const char *const units[] = {"ns", "µs", "ms", "s"};
    uint64_t seconds = ns / 1000000000;
    if (seconds >= 3600)
        snprintf(out, size, "%llu h %llu min", (unsigned long long)(seconds / 3600),
                 (unsigned long long)(seconds / 60 % 60));
    else if (seconds >= 60)
        snprintf(out, size, "%llu min %llu s", (unsigned long long)(seconds / 60),
                 (unsigned long long)(seconds % 60));
    else
        format_scaled((double)ns, units, 4, out, size);
}

void format_bytes(uint64_t bytes, char *out, size_t size)
{
    static const char *const units[] = {"B", "kB", "MB", "GB", "TB", "PB"};
    format_scaled((double)bytes, units, 6, out, size);
}

char *string_printf(const char *format, ...)
{
    char *text = NULL;
    va_list arguments;
    va_start(arguments, format);
    int len = vasprintf(&text, format, arguments);
    va_end(arguments);
    return len < 0 ? NULL : text;
}
