/* faas-controller: settings, start, run, stop. Exit status 2 means that a setting is wrong. */
#include "base/log.h"
#include "controller/controller.h"

static void set_up_log(const struct controller_config *config)
{
    enum log_level level = LOG_LEVEL_INFO;
    enum log_format format = LOG_FORMAT_TEXT;
    log_level_parse(config->log_level, &level, NULL);
    log_format_parse(config->log_format, &format, NULL);
    log_init("controller", level, format);
}

int main(int argc, char **argv)
{
    static struct controller controller;
    enum settings_outcome outcome;
    struct error err = {0};
    int status = 0;

    log_init("controller", LOG_LEVEL_INFO, LOG_FORMAT_TEXT);
    if (settings_load(&controller_settings, argc, argv, &controller.config, &outcome, &err) < 0) {
        log_error("a setting is wrong", LOG_ERR(&err));
        status = 2;
    } else if (outcome == SETTINGS_RUN) {
        set_up_log(&controller.config);
        if (controller_start(&controller, &err) == 0) {
            controller_run(&controller);
        } else {
            log_error("cannot start", LOG_ERR(&err));
            status = err.code == ERROR_INVALID_REQUEST ? 2 : 1;
        }
        controller_deinit(&controller);
    }
    settings_deinit(&controller_settings, &controller.config);
    return status;
}
