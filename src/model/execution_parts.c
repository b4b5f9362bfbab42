/* An execution's error and metrics, to JSON and back. What is read comes from a function's own process by way of the
 * worker: texts are cut to size, members that are not known are ignored, so that an odd error is still told. */
#include "model/execution.h"

#include "base/cleanup.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#define TYPE_MAX 256
#define MESSAGE_MAX 16384
#define SIGNAL_MAX 32
#define STACK_FRAMES_MAX 100
#define STACK_FRAME_MAX 1024

void execution_error_deinit(struct execution_error *error)
{
    free(error->type);
    free(error->message);
    free(error->signal);
    free(error->stack);
    *error = (struct execution_error){.exit_code = -1};
}

void execution_error_write(struct json_writer *writer, const struct execution_error *error)
{
    json_object_begin(writer);
    json_member_string(writer, "type", error->type);
    json_member_string(writer, "message", error->message);
    if (error->exit_code >= 0)
        json_member_int(writer, "exit_code", error->exit_code);
    json_member_string(writer, "signal", error->signal);
    if (error->stack) {
        json_key(writer, "stack");
        json_write_raw(writer, error->stack, strlen(error->stack));
    }
    json_object_end(writer);
}

/* At most `max` bytes of whole characters. */
static size_t cut_len(const char *text, size_t len, size_t max)
{
    return len <= max ? len : utf8_valid_len(text, max);
}

static int read_text(const struct json *value, const char *key, size_t max, char **ret,
                     struct error *err)
{
    size_t len;
    const struct json *member = json_get(value, key);
    const char *text = json_string(member, &len);
    if (!member || json_type(member) == JSON_NULL)
        return 0;
    if (!text)
        return error_set(err, ERROR_INVALID_REQUEST, "an error's %s must be a string", key);
    *ret = strndup(text, cut_len(text, len, max));
    return *ret ? 0 : error_set(err, ERROR_INTERNAL, "out of memory");
}

static int read_stack(const struct json *stack, char **ret, struct error *err)
{
    if (!stack || json_type(stack) == JSON_NULL)
        return 0;
    if (json_type(stack) != JSON_ARRAY)
        return error_set(err, ERROR_INVALID_REQUEST, "an error's stack must be an array");
    /* A byte becomes at most six (\u001b). */
    with_cleanup(buffer_deinit) struct buffer text =
        BUFFER_INIT(STACK_FRAMES_MAX * (6 * STACK_FRAME_MAX + 3) + 2);
    struct json_writer *writer = json_writer_new(&text);
    if (!writer)
        return error_set(err, ERROR_INTERNAL, "out of memory");
    json_array_begin(writer);
    for (size_t i = 0; i < json_count(stack) && i < STACK_FRAMES_MAX; i++) {
        size_t len;
        const char *frame = json_string(json_at(stack, i), &len);
        if (frame)
            json_write_string_len(writer, frame, cut_len(frame, len, STACK_FRAME_MAX));
    }
    json_array_end(writer);
    if (json_writer_finish(writer, err) < 0)
        return -1;
    *ret = buffer_take(&text, NULL);
    return *ret ? 0 : error_set(err, ERROR_INTERNAL, "out of memory");
}

int execution_error_read(const struct json *value, struct execution_error *error, struct error *err)
{
    struct execution_error read = {.exit_code = -1};
    if (json_type(value) != JSON_OBJECT)
        return error_set(err, ERROR_INVALID_REQUEST, "an error must be a JSON object");
    int64_t exit_code = json_get_int(value, "exit_code", -1);
    if (exit_code >= 0 && exit_code <= 255)
        read.exit_code = (int)exit_code;
    if (read_text(value, "type", TYPE_MAX, &read.type, err) < 0 ||
        read_text(value, "message", MESSAGE_MAX, &read.message, err) < 0 ||
        read_text(value, "signal", SIGNAL_MAX, &read.signal, err) < 0 ||
        read_stack(json_get(value, "stack"), &read.stack, err) < 0) {
        execution_error_deinit(&read);
        return -1;
    }
    execution_error_deinit(error);
    *error = read;
    return 0;
}

static const struct {
    const char *name;
    size_t offset;
} metrics_members[] = {
    {"duration", offsetof(struct execution_metrics, duration)},
    {"memory_peak", offsetof(struct execution_metrics, memory_peak)},
    {"network_in", offsetof(struct execution_metrics, network_in)},
    {"network_out", offsetof(struct execution_metrics, network_out)},
    {"cpu_time", offsetof(struct execution_metrics, cpu_time)},
    {"queue_time", offsetof(struct execution_metrics, queue_time)},
    {"start_time", offsetof(struct execution_metrics, start_time)},
};

void execution_metrics_write(struct json_writer *writer, const struct execution_metrics *metrics)
{
    json_object_begin(writer);
    for (size_t i = 0; i < ARRAY_LENGTH(metrics_members); i++) {
        const void *from = (const char *)metrics + metrics_members[i].offset;
        uint64_t number = *(const uint64_t *)from;
        json_member_int(writer, metrics_members[i].name,
                        number > INT64_MAX ? INT64_MAX : (int64_t)number);
    }
    json_object_end(writer);
}

int execution_metrics_read(const struct json *value, struct execution_metrics *metrics,
                           struct error *err)
{
    struct execution_metrics read = *metrics;
    if (json_type(value) != JSON_OBJECT)
        return error_set(err, ERROR_INVALID_REQUEST, "metrics must be a JSON object");
    for (size_t i = 0; i < ARRAY_LENGTH(metrics_members); i++) {
        const struct json *member = json_get(value, metrics_members[i].name);
        void *to = (char *)&read + metrics_members[i].offset;
        int64_t number = json_int(member, -1);
        if (!member)
            continue;
        if (number < 0)
            return error_set(err, ERROR_INVALID_REQUEST,
                             "the metric %s must be a whole number from 0",
                             metrics_members[i].name);
        *(uint64_t *)to = (uint64_t)number;
    }
    *metrics = read;
    return 0;
}
