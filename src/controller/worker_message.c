/* Messages of workers: see worker_message.h. */
#include "controller/worker_message.h"

#include "store/store.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int read_id(const struct json *head, const char *key, struct worker_message *out,
                   struct error *err)
{
    const char *id = json_get_string(head, key);
    if (!id || !id[0] || strlen(id) > TIME_ID_LEN)
        return error_set(err, ERROR_INVALID_REQUEST, "%s must be an id of at most %d characters",
                         key, TIME_ID_LEN);
    snprintf(out->id, sizeof(out->id), "%s", id);
    return 0;
}

/* A length in the head, at most `available`. */
static int read_len(const struct json *head, const char *key, size_t available, size_t *ret,
                    struct error *err)
{
    int64_t len = json_get_int(head, key, 0);
    if (len < 0 || (uint64_t)len > available)
        return error_set(err, ERROR_INVALID_REQUEST, "%s is %lld, but the body has %zu bytes", key,
                         (long long)len, available);
    *ret = (size_t)len;
    return 0;
}

/* Where the worker can change it, no more than a first look is safe; and what will not stay there is copied first, so that what is kept is
 * what was checked. */
static int check_result(struct message_in *in, size_t len, struct error *err)
{
    struct json_limits limits = {
        .max_bytes = SIZE_MAX, .max_depth = EXECUTION_RESULT_DEPTH_MAX, .max_values = SIZE_MAX};
    if (in->memory && len > STORE_LARGE_BYTES && json_check_quick(in->message.body, len, &limits))
        return 0;
    if (message_own_body(in, err) < 0)
        return -1;
    if (json_check_ahead(in->message.ahead, in->message.body, len, &limits, err) < 0)
        return error_wrap(err, "the result is no JSON");
    return 0;
}

static int read_result_body(const struct json *head, struct message_in *in,
                            struct worker_message *out, struct error *err)
{
    const struct message *message = &in->message;
    if (read_len(head, "result_len", message->body_len, &out->result_len, err) < 0 ||
        read_len(head, "logs_len", message->body_len - out->result_len, &out->logs_len, err) < 0)
        return -1;
    if (out->result_len + out->logs_len != message->body_len)
        return error_set(err, ERROR_INVALID_REQUEST,
                         "result_len and logs_len make %zu, but the body has %zu bytes",
                         out->result_len + out->logs_len, message->body_len);
    int64_t total = json_get_int(head, "logs_total", (int64_t)out->logs_len);
    out->logs_total = total > 0 ? (uint64_t)total : 0;
    if (out->result_len > 0 && check_result(in, out->result_len, err) < 0)
        return -1;
    out->result = out->result_len > 0 ? message->body : NULL;
    out->logs = message->body + out->result_len;
    return 0;
}

static int read_result(const struct json *head, struct message_in *in, struct worker_message *out,
                       struct error *err)
{
    const char *status = json_get_string(head, "status");
    const struct json *error = json_get(head, "error");
    const struct json *metrics = json_get(head, "metrics");

    out->kind = WORKER_MESSAGE_RESULT;
    out->attempt = json_get_int(head, "attempt", 1);
    if (read_id(head, "execution_id", out, err) < 0 ||
        execution_status_parse(status ? status : "", &out->status, err) < 0)
        return -1;
    if (!execution_status_final(out->status))
        return error_set(err, ERROR_INVALID_REQUEST, "a result's status cannot be %s", status);
    out->cold_start = json_get_bool(head, "cold_start", false);
    out->result_base64 = json_get_bool(head, "result_base64", false);
    if (error && json_type(error) == JSON_OBJECT) {
        out->has_error = true;
        if (execution_error_read(error, &out->error, err) < 0)
            return -1;
    }
    if (metrics && json_type(metrics) == JSON_OBJECT &&
        execution_metrics_read(metrics, &out->metrics, err) < 0)
        return -1;
    return read_result_body(head, in, out, err);
}

static int read_log(const struct json *head, struct message_in *in, struct worker_message *out,
                    struct error *err)
{
    const struct message *message = &in->message;
    int64_t offset = json_get_int(head, "offset", 0);
    out->kind = WORKER_MESSAGE_LOG;
    out->attempt = json_get_int(head, "attempt", 1);
    out->offset = offset > 0 ? (uint64_t)offset : 0;
    out->bytes = message->body;
    out->bytes_len = message->body_len;
    return read_id(head, "execution_id", out, err);
}

static int read_build_result(const struct json *head, struct message_in *in,
                             struct worker_message *out, struct error *err)
{
    const struct message *message = &in->message;
    out->kind = WORKER_MESSAGE_BUILD_RESULT;
    out->ok = json_get_bool(head, "ok", false);
    if (read_id(head, "build_id", out, err) < 0 ||
        read_len(head, "output_len", message->body_len, &out->output_len, err) < 0)
        return -1;
    out->output = message->body;
    out->artifact = message->body + out->output_len;
    out->artifact_len = message->body_len - out->output_len;
    if (out->ok && out->artifact_len == 0)
        return error_set(err, ERROR_INVALID_REQUEST, "a build that went well has an artifact");
    return 0;
}

static int read_state(const struct json *head, struct message_in *in, struct worker_message *out,
                      struct error *err)
{
    const struct message *message = &in->message;
    (void)head;
    (void)err;
    out->kind = WORKER_MESSAGE_STATE;
    out->bytes = message->body;
    out->bytes_len = message->body_len;
    return 0;
}

static int read_memory(const struct json *head, struct message_in *in, struct worker_message *out,
                       struct error *err)
{
    (void)in;
    (void)err;
    out->kind = WORKER_MESSAGE_MEMORY;
    out->ok = json_get_bool(head, "ok", false);
    out->shown = json_get_bool(head, "shown", false);
    return 0;
}

int worker_message_read(struct message_in *in, struct worker_message *ret, struct error *err)
{
    static const struct {
        const char *name;
        bool in_place;
        int (*read)(const struct json *head, struct message_in *in, struct worker_message *out,
                    struct error *err);
    } kinds[] = {{"result", true, read_result},
                 {"log", false, read_log},
                 {"state", false, read_state},
                 {"build_result", false, read_build_result},
                 {"memory", false, read_memory}};

    memset(ret, 0, sizeof(*ret));
    ret->error.exit_code = -1;
    autojson *head = json_parse(in->message.head, in->message.head_len, NULL, err);
    if (!head)
        return error_wrap(err, "a message's head");
    const char *kind = json_get_string(head, "kind");
    for (size_t i = 0; kind && i < sizeof(kinds) / sizeof(kinds[0]); i++) {
        if (strcmp(kind, kinds[i].name) != 0)
            continue;
        if ((kinds[i].in_place || message_own_body(in, err) == 0) &&
            kinds[i].read(head, in, ret, err) == 0)
            return 0;
        worker_message_deinit(ret);
        return error_wrap(err, "message of kind %s", kind);
    }
    return error_set_field(err, ERROR_INVALID_REQUEST, "/kind",
                           "kind must be state, result, log, build_result or memory, not %.40s",
                           kind ? kind : "absent");
}

void worker_message_deinit(struct worker_message *message)
{
    execution_error_deinit(&message->error);
    memset(&message->error, 0, sizeof(message->error));
}
