/* See http_head.h. */
#include "base/http_head.h"

#include <string.h>
#include <strings.h>

#define NAME "Content-Length:"
#define NAME_LEN (sizeof(NAME) - 1)

/* The number at `at`, up to the end of its line; 0 when there is anything else, or the line's end is not among these bytes. */
static uint64_t read_length(const char *at, const char *end)
{
    uint64_t length = 0;
    while (at < end && *at == ' ')
        at++;
    for (; at < end && *at >= '0' && *at <= '9'; at++) {
        unsigned digit = (unsigned)(*at - '0');
        if (length > (UINT64_MAX - digit) / 10)
            return 0;
        length = length * 10 + digit;
    }
    return at < end && *at == '\r' ? length : 0;
}

uint64_t http_head_announces(const char *bytes, size_t len)
{
    const char *end = bytes + len, *line = bytes;
    for (const char *newline; (newline = memchr(line, '\n', (size_t)(end - line)));) {
        line = newline + 1;
        if (line == end || *line == '\r' || *line == '\n')
            return 0; /* the head is over */
        if ((size_t)(end - line) > NAME_LEN && strncasecmp(line, NAME, NAME_LEN) == 0)
            return read_length(line + NAME_LEN, end);
    }
    return 0;
}
