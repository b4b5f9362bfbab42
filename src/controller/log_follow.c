/* Logs as they are written: see log_follow.h. */
#include "controller/log_follow.h"

#include "base/cleanup.h"
#include "controller/controller.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct log_follower {
    struct controller *controller;
    char function[FUNCTION_NAME_MAX + 1];
    struct http_stream *stream;
    struct list link;
};

/* ---- lines as JSON ---- */

static int write_line(struct buffer *out, const char *execution_id, uint64_t time_ns,
                      const char *text, size_t len, struct error *err)
{
    char time[25];
    struct json_writer *writer = json_writer_new(out);
    if (!writer)
        return error_set(err, ERROR_INTERNAL, "out of memory");
    clock_format_rfc3339(time_ns, time);
    json_object_begin(writer);
    json_member_string(writer, "execution_id", execution_id);
    json_member_string(writer, "time", time);
    json_key(writer, "line");
    json_write_string_len(writer, text, len);
    json_object_end(writer);
    return json_writer_finish(writer, err);
}

int log_write_lines(struct buffer *out, const char *execution_id, uint64_t time_ns,
                    const char *text, size_t len, char after, struct error *err)
{
    while (len > 0) {
        const char *newline = memchr(text, '\n', len);
        size_t line_len = newline ? (size_t)(newline - text) : len;
        if (line_len > LOG_LINE_MAX)
            line_len = LOG_LINE_MAX;
        if (write_line(out, execution_id, time_ns, text, line_len, err) < 0 ||
            buffer_append(out, &after, 1, err) < 0)
            return -1;
        size_t used = line_len + (newline && text + line_len == newline);
        text += used;
        len -= used;
    }
    return 0;
}

/* ---- followers ---- */

void log_followers_init(struct log_followers *followers)
{
    *followers = (struct log_followers){0};
    list_init(&followers->all);
}

static void stream_closed(void *data)
{
    struct log_follower *follower = data;
    list_remove(&follower->link);
    follower->controller->followers.count--;
    free(follower);
}

void log_follow(struct controller *controller, struct http_request *request, const char *name)
{
    struct error err = {0};
    struct log_follower *follower = NULL;
    if (controller->followers.count >= LOG_FOLLOWERS_MAX)
        error_set(&err, ERROR_THROTTLED,
                  "%d clients follow logs already, which is the most that may", LOG_FOLLOWERS_MAX);
    else if (!(follower = calloc(1, sizeof(*follower))))
        error_set(&err, ERROR_INTERNAL, "out of memory");
    if (!follower) {
        http_respond_error(request, &err);
        return;
    }
    follower->controller = controller;
    snprintf(follower->function, sizeof(follower->function), "%s", name);
    list_append(&controller->followers.all, &follower->link);
    controller->followers.count++;
    follower->stream =
        http_stream_begin(request, 200, "application/x-ndjson", stream_closed, follower);
    if (!follower->stream)
        stream_closed(follower);
}

void log_followers_end(struct controller *controller)
{
    list_for_each(link, &controller->followers.all)
        http_stream_end(list_entry(link, struct log_follower, link)->stream);
}

void log_followers_ping(struct controller *controller)
{
    list_for_each(link, &controller->followers.all)
        http_stream_write(list_entry(link, struct log_follower, link)->stream, "\n", 1);
}

static void show(struct controller *controller, const struct live_execution *execution,
                 const char *text, size_t len)
{
    with_cleanup(buffer_deinit) struct buffer lines = BUFFER_INIT(16 * 1024 * 1024);
    list_for_each(link, &controller->followers.all)
    {
        struct log_follower *follower = list_entry(link, struct log_follower, link);
        if (strcmp(follower->function, execution->record.function) != 0)
            continue;
        if (!lines.len && log_write_lines(&lines, execution->record.id, clock_realtime_ns(), text,
                                          len, '\n', NULL) < 0)
            return;
        http_stream_write(follower->stream, lines.data, lines.len);
    }
}

/* ---- chunks ---- */

/* Where the last complete line of the text ends; all of it when a line is too long to wait for. */
static size_t complete_len(const char *text, size_t len)
{
    const char *newline = len ? memrchr(text, '\n', len) : NULL;
    if (newline)
        return (size_t)(newline - text) + 1;
    return len >= LOG_LINE_MAX ? len : 0;
}

static void drop_oldest(struct live_execution *execution, size_t keep)
{
    if (execution->log.len > keep)
        buffer_consume(&execution->log, execution->log.len - keep);
    if (execution->line_pending > execution->log.len)
        execution->line_pending = execution->log.len;
}

void log_chunk(struct controller *controller, struct live_execution *execution, uint64_t offset,
               const char *bytes, size_t len)
{
    size_t max = (size_t)controller->config.log_max_bytes;
    if (offset + len <= execution->log_seen)
        return; /* sent again */
    if (offset < execution->log_seen) {
        size_t known = (size_t)(execution->log_seen - offset);
        bytes += known;
        len -= known;
        offset += known;
    }
    execution->log_seen = offset + len;
    if (len > max) {
        bytes += len - max;
        len = max;
    }
    drop_oldest(execution, max - len);
    if (buffer_append(&execution->log, bytes, len, NULL) < 0)
        return;
    execution->line_pending += len;
    const char *pending = execution->log.data + execution->log.len - execution->line_pending;
    size_t complete = complete_len(pending, execution->line_pending);
    if (complete == 0)
        return;
    show(controller, execution, pending, complete);
    execution->line_pending -= complete;
}

void log_finished(struct controller *controller, struct live_execution *execution, uint64_t total)
{
    const struct execution *record = &execution->record;
    uint64_t shown = execution->log_seen - execution->line_pending;
    if (list_empty(&controller->followers.all) || record->logs_len == 0)
        return;
    if (total < record->logs_len)
        total = record->logs_len;
    if (total <= shown)
        return;
    uint64_t rest = total - shown;
    size_t len = rest < record->logs_len ? (size_t)rest : record->logs_len;
    show(controller, execution, record->logs + record->logs_len - len, len);
}
