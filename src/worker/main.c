/* faas-worker: settings, log, loop, signals; everything else is worker.c. */
#include "base/log.h"
#include "base/loop.h"
#include "base/memory.h"
#include "base/notify.h"
#include "worker/check_host.h"
#include "worker/worker.h"

#include <stdio.h>

struct program {
    struct worker *worker;
    struct loop_signals *signals;
    struct notify *notify; /* to a service manager; NULL: none */
    struct memory_rest *rest;
    bool draining;
};

static void on_signal(void *data, int signal)
{
    struct program *program = data;
    log_info(program->draining ? "second signal: stopping now" : "stopping",
             LOG_INT("signal", signal));
    if (program->draining)
        worker_kill(program->worker);
    else
        worker_drain(program->worker);
    notify_stopping(program->notify);
    program->draining = true;
}

static void on_stopped(void *data)
{
    struct program *program = data;
    loop_signals_stop(program->signals);
    program->signals = NULL;
    notify_free(program->notify);
    program->notify = NULL;
    memory_rest_stop(program->rest);
    program->rest = NULL;
}

static int fail(const struct error *err)
{
    fprintf(stderr, "faas-worker: %s\n", err->message);
    return error_code_info(err->code)->exit_status;
}

static int run(struct worker_settings *settings, struct error *err)
{
    struct program program = {0};
    enum log_level level;
    enum log_format format;
    uv_loop_t loop;
    if (log_level_parse(settings->log_level, &level, err) < 0 ||
        log_format_parse(settings->log_format, &format, err) < 0 ||
        worker_settings_complete(settings, err) < 0)
        return -1;
    log_init("worker", level, format);
    uv_loop_init(&loop);
    if (loop_start_pool(&loop, err) == 0)
        program.signals = loop_signals_start(&loop, on_signal, &program, err);
    if (program.signals)
        program.worker = worker_new(&loop, settings, on_stopped, &program, err);
    if (program.worker) {
        loop_raise_priority();
        worker_start(program.worker);
        program.notify = notify_ready(&loop);
        /* Without it, memory is kept. */
        program.rest = memory_rest_start(&loop, NULL);
        uv_run(&loop, UV_RUN_DEFAULT);
    }
    if (program.signals)
        loop_signals_stop(program.signals);
    int rc = program.worker ? 0 : -1;
    worker_free(program.worker);
    loop_close(&loop);
    return rc;
}

/* No log lines among the rows: they are for people. */
static int check(struct worker_settings *settings, struct error *err)
{
    log_init("worker", LOG_LEVEL_ERROR, LOG_FORMAT_TEXT);
    return worker_settings_fill(settings, err) < 0 ? -1 : check_host(settings, stdout);
}

int main(int argc, char **argv)
{
    struct worker_settings settings = {0};
    enum settings_outcome outcome;
    struct error err = {0};
    memory_keep_freed();
    log_init("worker", LOG_LEVEL_INFO, LOG_FORMAT_TEXT);
    int rc = settings_load(&worker_settings_spec, argc, argv, &settings, &outcome, &err);
    if (rc == 0 && outcome == SETTINGS_RUN)
        rc = run(&settings, &err);
    else if (rc == 0 && outcome == SETTINGS_ACTION)
        rc = check(&settings, &err);
    settings_deinit(&worker_settings_spec, &settings);
    return rc >= 0 ? rc : fail(&err);
}
