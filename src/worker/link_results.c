/* Results on their way to a controller: each is kept until the controller has taken it, and said again on a new connection; see
 * link.h. */
#include "worker/link_internal.h"

#include "base/blob.h"
#include "base/cleanup.h"
#include "base/log.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A log that was cut has a marker, too. */
#define LOG_MARKER_MAX 1024
/* Log chunks are dropped when so many bytes wait. */
#define LOGS_QUEUED_MAX (1024UL * 1024)

static void outgoing_free(struct outgoing *message)
{
    buffer_deinit(&message->head);
    if (message->shared)
        blob_unref(message->shared);
    else
        free(message->body[0]);
    free(message->body[1]);
    free(message);
}

static void drop_first(struct link *link)
{
    struct outgoing *message = link->first;
    link->first = message->next;
    link->count--;
    outgoing_free(message);
}

void link_drop_kept(struct link *link)
{
    while (link->first)
        drop_first(link);
}

void link_acknowledged(struct link *link, uint64_t messages)
{
    uint64_t sent = message_stream_sent(link->stream); /* the stream borrows the others */
    messages = messages < sent ? messages : sent;
    if (messages >= link->announced)
        link_note_announced(link);
    if (!link->first)
        return;
    while (link->first && link->first->number && link->first->number <= messages)
        drop_first(link);
    if (!link->first && link->delivered)
        link->delivered(link->options.data);
}

/* ---- sending ---- */

int link_send_now(struct link *link, const char *head, size_t head_len, char *owned_body,
                  size_t body_len, struct error *err)
{
    struct message_part part = {.bytes = owned_body, .len = body_len, .owned = owned_body};
    if (message_stream_send(link->stream, head, head_len, &part, owned_body ? 1 : 0, err) < 0)
        return -1;
    link->sent++;
    message_stream_push(link->stream);
    return 0;
}

/* The stream borrows the bodies: they stand until it has sent them. */
static int send_kept(struct link *link, struct outgoing *message)
{
    struct error err = {0};
    struct message_part parts[2];
    for (int i = 0; i < 2; i++)
        parts[i] = (struct message_part){.bytes = message->body[i], .len = message->body_len[i]};
    if (message_stream_send(link->stream, message->head.data, message->head.len, parts, 2, &err) <
        0) {
        log_warn("a result cannot be sent now", LOG_STR("controller", link->url), LOG_ERR(&err));
        return -1;
    }
    message->number = ++link->sent;
    link->changed = true;
    return 0;
}

void link_send_kept(struct link *link)
{
    for (struct outgoing *message = link->first; message; message = message->next) {
        if (!message->number && send_kept(link, message) < 0)
            break;
    }
    message_stream_push(link->stream);
}

void link_forget_numbers(struct link *link)
{
    for (struct outgoing *message = link->first; message; message = message->next)
        message->number = 0;
}

/* Takes the message. */
static void keep(struct link *link, struct outgoing *message)
{
    *(link->first ? &link->last->next : &link->first) = message;
    bool behind = link->first != message && !link->last->number;
    link->last = message;
    link->count++;
    if (!link->stream)
        return;
    if (behind) /* earlier ones could not be sent */
        link_send_kept(link);
    else if (send_kept(link, message) == 0)
        message_stream_push(link->stream);
}

static struct outgoing *outgoing_new(const char *id, bool is_build)
{
    struct outgoing *message = calloc(1, sizeof(*message));
    if (!message)
        return NULL;
    buffer_init(&message->head, MESSAGE_HEAD_MAX);
    snprintf(message->id, sizeof(message->id), "%s", id);
    message->is_build = is_build;
    return message;
}

/* ---- the messages ---- */

static int write_result_head(struct buffer *head, const struct execution *execution,
                             struct error *err)
{
    struct json_writer *writer = json_writer_new(head);
    if (!writer)
        return error_set(err, ERROR_INTERNAL, "out of memory");
    json_object_begin(writer);
    json_member_string(writer, "kind", "result");
    json_member_string(writer, "execution_id", execution->id);
    json_member_int(writer, "attempt", execution->attempt);
    json_member_string(writer, "status", execution_status_name(execution->status));
    json_member_bool(writer, "cold_start", execution->cold_start);
    json_member_bool(writer, "result_base64", execution->result_base64);
    json_member_int(writer, "result_len", (int64_t)execution->result_len);
    json_member_int(writer, "logs_len", (int64_t)execution->logs_len);
    if (execution->has_error) {
        json_key(writer, "error");
        execution_error_write(writer, &execution->error);
    }
    json_key(writer, "metrics");
    execution_metrics_write(writer, &execution->metrics);
    json_object_end(writer);
    return json_writer_finish(writer, err);
}

void link_send_result(struct link *link, struct execution *execution)
{
    struct outgoing *message = outgoing_new(execution->id, false);
    struct error err = {0};
    if (!message || write_result_head(&message->head, execution, &err) < 0) {
        log_error("a result is lost", LOG_STR("execution", execution->id), LOG_ERR(&err));
        if (message)
            outgoing_free(message);
        return;
    }
    message->shared = steal_pointer(&execution->shared);
    message->body[0] = steal_pointer(&execution->result);
    message->body_len[0] = message->body[0] ? execution->result_len : 0;
    message->body[1] = steal_pointer(&execution->logs);
    message->body_len[1] = message->body[1] ? execution->logs_len : 0;
    keep(link, message);
}

struct blob *link_result_room(struct link *link, size_t len, size_t log_max)
{
    return link->stream ? message_stream_room(link->stream, len, log_max + LOG_MARKER_MAX) : NULL;
}

void link_send_log(struct link *link, const char *execution_id, int64_t attempt, uint64_t offset,
                   const char *text, size_t len)
{
    if (!link->stream || message_stream_queued(link->stream) > LOGS_QUEUED_MAX)
        return;
    with_cleanup(buffer_deinit) struct buffer head = BUFFER_INIT(MESSAGE_HEAD_MAX);
    char *copy = malloc(len + 1);
    struct json_writer *writer = copy ? json_writer_new(&head) : NULL;
    if (!writer) {
        free(copy);
        return;
    }
    memcpy(copy, text, len);
    json_object_begin(writer);
    json_member_string(writer, "kind", "log");
    json_member_string(writer, "execution_id", execution_id);
    json_member_int(writer, "attempt", attempt);
    json_member_int(writer, "offset", (int64_t)offset);
    json_object_end(writer);
    if (json_writer_finish(writer, NULL) == 0)
        link_send_now(link, head.data, head.len, copy, len, NULL);
    else
        free(copy);
}

static int write_build_head(struct buffer *head, const char *build_id, bool ok, size_t output_len,
                            struct error *err)
{
    struct json_writer *writer = json_writer_new(head);
    if (!writer)
        return error_set(err, ERROR_INTERNAL, "out of memory");
    json_object_begin(writer);
    json_member_string(writer, "kind", "build_result");
    json_member_string(writer, "build_id", build_id);
    json_member_bool(writer, "ok", ok);
    json_member_int(writer, "output_len", (int64_t)output_len);
    json_object_end(writer);
    return json_writer_finish(writer, err);
}

void link_send_build(struct link *link, const char *build_id, bool ok, const char *output,
                     size_t output_len, const char *artifact, size_t artifact_len)
{
    struct outgoing *message = outgoing_new(build_id, true);
    const char *texts[2] = {output, artifact};
    size_t lens[2] = {output_len, artifact_len};
    bool lost = !message || write_build_head(&message->head, build_id, ok, output_len, NULL) < 0;
    for (int i = 0; i < 2 && !lost; i++) {
        message->body[i] = malloc(lens[i] + 1);
        lost = !message->body[i];
        if (!lost && lens[i] > 0)
            memcpy(message->body[i], texts[i], lens[i]);
        message->body_len[i] = lens[i];
    }
    if (lost) {
        log_error("a build's result is lost", LOG_STR("build", build_id));
        if (message)
            outgoing_free(message);
        return;
    }
    keep(link, message);
}

/* ---- asking ---- */

size_t link_pending(const struct link *link)
{
    return link->count;
}

static void write_pending(const struct link *link, bool builds, struct json_writer *writer)
{
    for (const struct outgoing *message = link->first; message; message = message->next) {
        if (message->is_build == builds && !message->number)
            json_write_string(writer, message->id);
    }
}

void link_write_pending(const struct link *link, struct json_writer *writer)
{
    write_pending(link, false, writer);
}

void link_write_pending_builds(const struct link *link, struct json_writer *writer)
{
    write_pending(link, true, writer);
}
