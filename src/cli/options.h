/* Options of the command line as members of the JSON that is sent: nothing is written for one that was not given, and -1 is
 * returned with ERROR_INVALID_REQUEST for one that cannot be read. */
#pragma once

#include "cli/cli.h"

int write_int_option(const struct cli *cli, struct json_writer *writer, const char *option,
                     const char *key, struct error *err);
int write_double_option(const struct cli *cli, struct json_writer *writer, const char *option,
                        const char *key, struct error *err);
/* "1500ms", "30s", "2m"; as milliseconds. */
int write_duration_option(const struct cli *cli, struct json_writer *writer, const char *option,
                          const char *key, struct error *err);
