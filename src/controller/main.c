/* faas-controller: settings, start, run, stop; or a backup or restore of its database. Exit status 2 means that a setting
 * is wrong. */
#include "base/cleanup.h"
#include "base/log.h"
#include "base/memory.h"
#include "controller/controller.h"

#include <stdio.h>
#include <string.h>

static void set_up_log(const struct controller_config *config)
{
    enum log_level level = LOG_LEVEL_INFO;
    enum log_format format = LOG_FORMAT_TEXT;
    log_level_parse(config->log_level, &level, NULL);
    log_format_parse(config->log_format, &format, NULL);
    log_init("controller", level, format);
}

typedef int copy_fn(const char *url, const char *file, struct error *err);

/* "--backup FILE" or "--restore FILE" as the first arguments; they are taken out. NULL when there is neither. */
static copy_fn *take_copy_flag(int *argc, char **argv, const char **ret_file)
{
    copy_fn *copy = *argc < 3                           ? NULL
                    : strcmp(argv[1], "--backup") == 0  ? store_backup
                    : strcmp(argv[1], "--restore") == 0 ? store_restore
                                                        : NULL;
    if (!copy)
        return NULL;
    *ret_file = argv[2];
    *argc -= 2;
    memmove(argv + 1, argv + 3, ((size_t)*argc) * sizeof(*argv)); /* with the NULL behind */
    return copy;
}

static int fail(const char *what, const struct error *err)
{
    log_error(what, LOG_ERR(err));
    return err->code == ERROR_INVALID_REQUEST ? 2 : 1;
}

static int run_copy(const struct controller_config *config, copy_fn *copy, const char *file)
{
    struct error err = {0};
    autofree char *url = controller_database_url(config);
    if (!url || copy(url, file, &err) < 0)
        return fail(copy == store_backup ? "cannot back up" : "cannot restore", &err);
    printf("%s\n", file);
    return 0;
}

static int run(struct controller *controller)
{
    struct error err = {0};
    int status = 0;
    if (controller_start(controller, &err) == 0)
        controller_run(controller);
    else
        status = fail("cannot start", &err);
    controller_deinit(controller);
    return status;
}

int main(int argc, char **argv)
{
    static struct controller controller;
    enum settings_outcome outcome;
    struct error err = {0};
    const char *file = NULL;
    int status = 0;

    memory_keep_freed();
    log_init("controller", LOG_LEVEL_INFO, LOG_FORMAT_TEXT);
    copy_fn *copy = take_copy_flag(&argc, argv, &file);
    if (settings_load(&controller_settings, argc, argv, &controller.config, &outcome, &err) < 0) {
        log_error("a setting is wrong", LOG_ERR(&err));
        status = 2;
    } else if (outcome == SETTINGS_RUN) {
        set_up_log(&controller.config);
        status = copy ? run_copy(&controller.config, copy, file) : run(&controller);
    }
    settings_deinit(&controller_settings, &controller.config);
    return status;
}
