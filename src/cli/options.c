/* Options as members of a request: see options.h. */
#include "cli/options.h"

#include "base/text.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>

int write_int_option(const struct cli *cli, struct json_writer *writer, const char *option,
                     const char *key, struct error *err)
{
    const char *text = cli_option(cli, option);
    char *end = NULL;
    if (!text)
        return 0;
    errno = 0;
    long long number = strtoll(text, &end, 10);
    if (errno || end == text || *end)
        return error_set(err, ERROR_INVALID_REQUEST, "--%s must be a whole number, not %s", option,
                         text);
    json_member_int(writer, key, number);
    return 0;
}

int write_double_option(const struct cli *cli, struct json_writer *writer, const char *option,
                        const char *key, struct error *err)
{
    const char *text = cli_option(cli, option);
    if (!text)
        return 0;
    char *end = NULL;
    double number = strtod(text, &end);
    if (end == text || *end || !isfinite(number))
        return error_set(err, ERROR_INVALID_REQUEST, "--%s must be a number such as 0.5, not %s",
                         option, text);
    json_member_double(writer, key, number);
    return 0;
}

int write_duration_option(const struct cli *cli, struct json_writer *writer, const char *option,
                          const char *key, struct error *err)
{
    const char *text = cli_option(cli, option);
    int64_t duration_ms = 0;
    if (!text)
        return 0;
    if (duration_parse_ms(text, &duration_ms, err))
        return error_wrap(err, "--%s", option);
    json_member_int(writer, key, duration_ms);
    return 0;
}
