/* Settings of a program, from one table.
 *
 * A row makes: the environment variable NAME, the flag --name-in-lower-case (the program's own
 * prefix left out: CONTROLLER_LISTEN of faas-controller is --listen), the help text, a row of
 * docs/configuration.md, and the check of type and range. A flag beats the environment, which beats
 * the default. Errors name the setting, the value and what would be right. */
#pragma once

#include "base/buffer.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum setting_type {
    SETTING_STRING, /* char *, owned by the struct */
    SETTING_INT,    /* int64_t, min..max */
    SETTING_BOOL,   /* bool: true|false|1|0|yes|no */
    SETTING_CHOICE, /* char *, one of `choices` */
};

struct setting {
    const char *name; /* "CONTROLLER_LISTEN" */
    enum setting_type type;
    size_t offset;             /* of the member in the settings struct */
    const char *default_value; /* as text; NULL: empty string / 0 / false */
    int64_t min, max;
    const char *choices; /* "container|simple" */
    const char *unit;    /* "ms", "MiB", or NULL */
    const char *text;    /* one sentence for --help and the documentation */
    bool secret;         /* value never shown; overwritten in argv once read */
};

struct settings_spec {
    const char *program; /* "faas-controller" */
    const char *prefix;  /* "CONTROLLER_" */
    const char *summary; /* one paragraph for --help */
    const char *example; /* one command line */
    /* A flag of the program's own in place of a run, such as "--check-host", and what it does, for
     * --help; NULL: none. */
    const char *action, *action_text;
    const struct setting *rows;
    size_t row_count;
    /* Checks that span several settings; may be NULL. */
    int (*check)(const void *object, struct error *err);
};

enum settings_outcome {
    SETTINGS_RUN,    /* go on */
    SETTINGS_ACTION, /* the same, but for the program's own flag */
    SETTINGS_EXIT,   /* --help, --version, --check-config or --markdown was served: exit 0 */
};

/* Fills `object` (zeroed by the caller) from defaults, environment and argv[1..]. Fails on an
 * unknown flag or a bad value. Logs a warning for each variable that has the prefix and is no setting. */
int settings_load(const struct settings_spec *spec, int argc, char **argv, void *object,
                  enum settings_outcome *ret_outcome, struct error *err);
void settings_deinit(const struct settings_spec *spec, void *object);
/* The help text, and the table for docs/configuration.md. */
int settings_help(const struct settings_spec *spec, struct buffer *out, struct error *err);
int settings_markdown(const struct settings_spec *spec, struct buffer *out, struct error *err);
