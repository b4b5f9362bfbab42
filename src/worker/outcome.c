/* From what was seen of an invocation to its status, result and error; see outcome.h. */
#include "worker/outcome.h"

#include "base/blob.h"
#include "base/cleanup.h"

#include <ctype.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>

#define TYPE_MAX 256
#define MESSAGE_MAX 4096
#define STACK_FRAMES_MAX 64

/* Results are passed on as text, so only depth and size are bounded, generously. */
static bool is_json_ahead(const struct json_ahead *ahead, const char *text, size_t len)
{
    static const struct json_limits limits = {
        .max_bytes = 128 * 1024 * 1024, .max_depth = 128, .max_values = 8 * 1024 * 1024};
    return json_check_ahead(ahead, text, len, &limits, NULL) == 0;
}

static bool is_json(const char *text, size_t len)
{
    return is_json_ahead(NULL, text, len);
}

static bool is_blank(char c)
{
    return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

static void trim(const char **text, size_t *len)
{
    while (*len > 0 && is_blank((*text)[0])) {
        (*text)++;
        (*len)--;
    }
    while (*len > 0 && is_blank((*text)[*len - 1]))
        (*len)--;
}

static int copy_result(struct outcome_stdout *ret, const char *text, size_t len, struct error *err)
{
    ret->result = malloc(len + 1);
    if (!ret->result)
        return error_set(err, ERROR_INTERNAL, "out of memory");
    memcpy(ret->result, text, len);
    ret->result[len] = '\0';
    ret->result_len = len;
    return 0;
}

/* Text, or base64 of what is none, as a JSON string. */
static int quote_result(struct outcome_stdout *ret, const char *text, size_t len, struct error *err)
{
    with_cleanup(buffer_deinit) struct buffer encoded = BUFFER_INIT(len * 2 + 64);
    with_cleanup(buffer_deinit) struct buffer quoted = BUFFER_INIT(len * 6 + 64);
    ret->base64 = !utf8_valid(text, len);
    if (ret->base64) {
        if (base64_encode(text, len, &encoded, err) < 0)
            return -1;
        text = encoded.data;
        len = encoded.len;
    }
    struct json_writer *writer = json_writer_new(&quoted);
    if (!writer)
        return error_set(err, ERROR_INTERNAL, "out of memory");
    json_write_string_len(writer, text, len);
    if (json_writer_finish(writer, err) < 0)
        return -1;
    ret->result = buffer_take(&quoted, &ret->result_len);
    return ret->result ? 0 : error_set(err, ERROR_INTERNAL, "out of memory");
}

int outcome_from_stdout(const char *text, size_t len, struct outcome_stdout *ret, struct error *err)
{
    *ret = (struct outcome_stdout){0};
    const char *all = text ? text : "";
    size_t all_len = text ? len : 0;
    trim(&all, &all_len);
    if (is_json(all, all_len))
        return copy_result(ret, all, all_len, err);
    const char *newline = memrchr(all, '\n', all_len);
    if (newline) {
        const char *last = newline + 1;
        size_t last_len = (size_t)(all + all_len - last);
        size_t before = (size_t)(last - text);
        trim(&last, &last_len);
        if (is_json(last, last_len)) {
            ret->log_len = before;
            return copy_result(ret, last, last_len, err);
        }
    }
    return quote_result(ret, text, len, err);
}

void outcome_fail(struct execution *execution, enum execution_status status, const char *type,
                  const char *format, ...)
{
    char message[MESSAGE_MAX];
    va_list args;
    va_start(args, format);
    vsnprintf(message, sizeof(message), format, args);
    va_end(args);
    execution_error_deinit(&execution->error);
    execution->error = (struct execution_error){.exit_code = -1};
    execution->error.type = strdup(type);
    execution->error.message = strdup(message);
    execution->has_error = true;
    execution->status = status;
}

void outcome_from_wait_status(struct execution *execution, int wait_status)
{
    if (WIFSIGNALED(wait_status)) {
        int number = WTERMSIG(wait_status);
        const char *name = sigabbrev_np(number);
        char signal_name[32];
        if (name)
            snprintf(signal_name, sizeof(signal_name), "SIG%s", name);
        else
            snprintf(signal_name, sizeof(signal_name), "signal %d", number);
        outcome_fail(execution, EXECUTION_FAILED, "Function.Signal", "the function was ended by %s",
                     signal_name);
        execution->error.signal = strdup(signal_name);
        return;
    }
    int code = WIFEXITED(wait_status) ? WEXITSTATUS(wait_status) : 255;
    outcome_fail(execution, EXECUTION_FAILED, "Function.ExitStatus",
                 "the function ended with exit status %d", code);
    execution->error.exit_code = code;
}

/* A copy of at most `max` bytes, cut between characters; U+FFFD for what is not UTF-8 comes with
 * the JSON writer. */
static char *copy_cut(const char *text, size_t max)
{
    size_t len = strnlen(text, max + 1);
    if (len > max) {
        len = max;
        while (len > 0 && ((unsigned char)text[len] & 0xc0) == 0x80)
            len--;
    }
    return strndup(text, len);
}

/* The stack as a JSON array of strings with at most STACK_FRAMES_MAX lines. */
static char *copy_stack(const struct json *stack)
{
    if (!stack || json_type(stack) != JSON_ARRAY || json_count(stack) == 0)
        return NULL;
    with_cleanup(buffer_deinit) struct buffer out = BUFFER_INIT(STACK_FRAMES_MAX * MESSAGE_MAX);
    struct json_writer *writer = json_writer_new(&out);
    if (!writer)
        return NULL;
    json_array_begin(writer);
    json_foreach (i, line, stack) {
        const char *text = json_string(line, NULL);
        autofree char *cut = text && i < STACK_FRAMES_MAX ? copy_cut(text, 1024) : NULL;
        if (cut)
            json_write_string(writer, cut);
    }
    json_array_end(writer);
    return json_writer_finish(writer, NULL) == 0 ? buffer_take(&out, NULL) : NULL;
}

void outcome_from_handler_error(struct execution *execution, const char *body, size_t len)
{
    struct error err = {0};
    autojson *root = json_parse(body, len, NULL, &err);
    if (!root || json_type(root) != JSON_OBJECT) {
        outcome_fail(execution, EXECUTION_FAILED, "Function.ProtocolError",
                     "the function failed, and its error cannot be read: %s",
                     root ? "it is not a JSON object" : err.message);
        return;
    }
    const char *type = json_get_string(root, "type");
    const char *message = json_get_string(root, "message");
    autofree char *type_cut = copy_cut(type && *type ? type : "Error", TYPE_MAX);
    outcome_fail(execution, EXECUTION_FAILED, type_cut ? type_cut : "Error", "%s",
                 message ? message : "");
    /* A function must not look as if the platform had failed. */
    if (type_cut && strncmp(type_cut, "Platform.", 9) == 0) {
        free(execution->error.type);
        execution->error.type = strdup("Error");
    }
    execution->error.stack = copy_stack(json_get(root, "stack"));
}

/* What a control character becomes in a JSON string; how many bytes. */
static size_t escape_control(unsigned char byte, char out[8])
{
    static const char letters[0x20] = {
        ['\b'] = 'b', ['\f'] = 'f', ['\n'] = 'n', ['\r'] = 'r', ['\t'] = 't'};
    if (!letters[byte])
        return (size_t)snprintf(out, 8, "\\u%04x", byte);
    out[0] = '\\';
    out[1] = letters[byte];
    return 2;
}

/* Text that is JSON but for control characters in its strings: escapes those, in a copy that takes the place of `*text`. Fails with
 * ERROR_PAYLOAD_TOO_LARGE when it would be longer than `max_len`. */
static int escape_controls(char **text, size_t *len, size_t max_len, struct error *err)
{
    with_cleanup(buffer_deinit) struct buffer out = BUFFER_INIT(max_len);
    const char *from = *text;
    size_t copied = 0;
    bool in_string = false;
    for (size_t at = 0; at < *len; at++) {
        char escaped[8];
        if (in_string && (unsigned char)from[at] < 0x20) {
            size_t width = escape_control((unsigned char)from[at], escaped);
            if (buffer_append(&out, from + copied, at - copied, err) < 0 ||
                buffer_append(&out, escaped, width, err) < 0)
                return -1;
            copied = at + 1;
        } else if (from[at] == '"') {
            in_string = !in_string;
        } else if (in_string && from[at] == '\\') {
            at++;
        }
    }
    if (copied == 0)
        return 0;
    if (buffer_append(&out, from + copied, *len - copied, err) < 0)
        return -1;
    free(*text);
    *text = buffer_take(&out, len);
    return 0;
}

/* Whether it is JSON now. */
static bool make_json(char **text, size_t *len, const struct json_ahead *ahead, size_t max_len,
                      struct error *err)
{
    return is_json_ahead(ahead, *text, *len) ||
           (escape_controls(text, len, max_len, err) == 0 && is_json(*text, *len));
}

void outcome_from_handler_result(struct execution *execution, char *body, size_t len,
                                 const struct json_ahead *ahead, size_t max_len)
{
    autofree char *result = body;
    if (!result) {
        outcome_fail(execution, EXECUTION_LOST, "Platform.Internal", "out of memory");
        return;
    }
    struct error err = {0};
    bool valid = len <= max_len && make_json(&result, &len, ahead, max_len, &err);
    if (len > max_len || err.code == ERROR_PAYLOAD_TOO_LARGE) {
        outcome_fail(execution, EXECUTION_FAILED, "Function.ResultTooLarge",
                     "the result is larger than the limit of %zu bytes", max_len);
        return;
    }
    if (!valid) {
        outcome_fail(execution, EXECUTION_FAILED, "Function.InvalidResult",
                     "the result is not valid JSON");
        return;
    }
    execution_drop_result(execution);
    execution->result = steal_pointer(&result);
    execution->result_len = len;
    execution->status = EXECUTION_SUCCEEDED;
}

void outcome_from_handler_blob(struct execution *execution, struct blob *body,
                               const struct json_ahead *ahead, size_t max_len)
{
    size_t len = body->len;
    if (len <= max_len && is_json_ahead(ahead, body->bytes, len)) {
        execution_drop_result(execution);
        execution_take_result(execution, body);
        execution->status = EXECUTION_SUCCEEDED;
        return;
    }
    char *copy = malloc(len + 1);
    if (copy) {
        memcpy(copy, body->bytes, len);
        copy[len] = '\0';
    }
    blob_unref(body);
    outcome_from_handler_result(execution, copy, len, NULL, max_len);
}

void outcome_lost(struct execution *execution, const char *type, const struct error *why)
{
    outcome_fail(execution, EXECUTION_LOST, type, "%s", why->message);
}
