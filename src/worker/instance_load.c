/* A generic instance becomes a function's: the runtime gives the container what is the function's, faas-init its command and environment. */
#include "base/cleanup.h"
#include "base/log.h"
#include "base/loop.h"
#include "worker/instance_internal.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* "MODE", ARGV…, "", environment… of "MODE", "--", ARGV… and the environment; *ret is malloc'd. */
static int make_load(const char *const *command, const char *const *environment, char **ret,
                     size_t *ret_len, struct error *err)
{
    with_cleanup(buffer_deinit) struct buffer body = BUFFER_INIT(LOAD_MAX);
    size_t count = 1;
    int rc = buffer_append(&body, command[0], strlen(command[0]) + 1, err);
    for (size_t i = 2; rc == 0 && command[i]; i++, count++)
        rc = buffer_append(&body, command[i], strlen(command[i]) + 1, err);
    if (rc == 0)
        rc = buffer_append(&body, "", 1, err);
    for (size_t i = 0; rc == 0 && environment[i]; i++, count++)
        rc = buffer_append(&body, environment[i], strlen(environment[i]) + 1, err);
    if (rc == 0 && count > LOAD_STRINGS_MAX)
        rc = error_set(err, ERROR_NO_CAPACITY, "%zu strings are too many", count);
    if (rc < 0)
        return error_wrap(err, "environment");
    *ret = buffer_take(&body, ret_len);
    return *ret ? 0 : error_set(err, ERROR_INTERNAL, "out of memory");
}

/* The channels that the contract has. */
static int settle_channels(struct instance *instance, struct error *err)
{
    int fd = instance->adapter_fd;
    instance->adapter_fd = -1;
    output_collect_stdout(instance->output, !instance->handler);
    if (instance->handler)
        return instance_open_adapter(instance, fd, err);
    close(fd);
    return 0;
}

static int send_load(struct instance *instance, struct error *err)
{
    struct runtime_load load = {.spec = instance->spec,
                                .code_dir = code_directory(instance->function->code),
                                .command = instance->command};
    autofree const char **environment = NULL;
    size_t len = 0;
    if (instance->runtime->ops->specialise(instance->runtime_instance, &load, &environment, err) <
            0 ||
        make_load(instance->command, environment, &instance->load, &len, err) < 0 ||
        settle_channels(instance, err) < 0)
        return -1;
    return channel_send(instance->control, FRAME_LOAD, 0, "", instance->load, len, err);
}

int instance_load(struct instance *instance, struct function *function, struct error *err)
{
    instance_move(instance, INSTANCE_LOADING);
    instance_take_function(instance, function);
    instance->runtime->ops->usage(instance->runtime_instance, &instance->before, NULL);
    instance->deadline = loop_timer_start(instance->loop, instance->limits.start_timeout_ms, 0,
                                          instance_start_timed_out, instance, err);
    if (!instance->deadline || send_load(instance, err) < 0)
        return -1;
    log_debug("instance loading", LOG_STR("instance", instance->id),
              LOG_STR("function", function->spec.name),
              LOG_INT("us", (int64_t)(clock_monotonic_ns() - instance->asked_ns) / 1000));
    return 0;
}

bool instance_outdated(struct instance *instance)
{
    return instance->runtime->ops->outdated(instance->runtime_instance);
}
