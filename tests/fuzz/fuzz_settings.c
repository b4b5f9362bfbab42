/* Settings given as flags, or as variables (NAME=VALUE), one a line: the first byte chooses the program (bit 0) and the way (bit
 * 1). Values that were accepted are within what the table allows, and a refusal says something on one line. */
#include "base/cleanup.h"
#include "controller/config.h"
#include "worker/config.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ARGUMENTS_MAX 32

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

union settings {
    struct controller_config controller;
    struct worker_settings worker;
};

static void check_values(const struct settings_spec *spec, const void *object)
{
    for (size_t i = 0; i < spec->row_count; i++) {
        const struct setting *row = &spec->rows[i];
        const void *member = (const char *)object + row->offset;
        if (row->type == SETTING_INT) {
            int64_t number = *(const int64_t *)member;
            if (number < row->min || number > row->max)
                abort();
        } else if (row->type == SETTING_STRING && !*(char *const *)member) {
            abort();
        }
    }
}

static void load(const struct settings_spec *spec, int argc, char **argv)
{
    union settings settings;
    enum settings_outcome outcome;
    struct error err = {0};
    memset(&settings, 0, sizeof(settings));
    if (settings_load(spec, argc, argv, &settings, &outcome, &err) == 0)
        check_values(spec, &settings);
    else if (!err.message[0] || strchr(err.message, '\n'))
        abort();
    settings_deinit(spec, &settings);
}

/* --help and --check-config print; that is not what is looked at. */
static void silence(void)
{
    static bool silent;
    if (silent)
        return;
    silent = true;
    if (!freopen("/dev/null", "w", stdout))
        abort();
}

/* Sets those variables that the program knows; with `line` NULL, none. */
static void set_variables(const struct settings_spec *spec, char *line)
{
    char *value = line ? strchr(line, '=') : NULL;
    for (size_t i = 0; i < spec->row_count; i++) {
        const char *name = spec->rows[i].name;
        size_t len = strlen(name);
        if (!line)
            unsetenv(name);
        else if (value == line + len && memcmp(line, name, len) == 0)
            setenv(name, value + 1, 1);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *argv[ARGUMENTS_MAX + 2] = {(char *)"program"};
    int argc = 1;
    if (size == 0)
        return 0;
    silence();
    autofree char *text = strndup((const char *)data + 1, size - 1);
    if (!text)
        return 0;
    const struct settings_spec *spec = data[0] % 2 ? &worker_settings_spec : &controller_settings;
    bool variables = data[0] & 2;
    char *rest = NULL;
    for (char *line = strtok_r(text, "\n", &rest); line && argc <= ARGUMENTS_MAX;
         line = strtok_r(NULL, "\n", &rest)) {
        if (variables)
            set_variables(spec, line);
        else
            argv[argc++] = line;
    }
    load(spec, argc, argv);
    set_variables(spec, NULL);
    return 0;
}
