/* What a worker sends, heads included: whatever comes, what was read lies within the message. */
#include "controller/worker_message.h"

#include <stdint.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_within(const struct message *message, const char *part, size_t len)
{
    if (len > 0 && (part < message->body || part + len > message->body + message->body_len))
        abort();
}

/* The message at *data, when it is whole; moves *data behind it. */
static bool next_message(const uint8_t **data, size_t *size, struct message *ret)
{
    size_t head_len, body_len;
    if (*size < MESSAGE_HEADER_SIZE ||
        message_header_read((const char *)*data, &head_len, &body_len, NULL) < 0)
        return false;
    size_t left = *size - MESSAGE_HEADER_SIZE;
    if (head_len > left || body_len > left - head_len)
        return false;
    const char *head = (const char *)*data + MESSAGE_HEADER_SIZE;
    *ret = (struct message){
        .head = head, .head_len = head_len, .body = head + head_len, .body_len = body_len};
    *data += MESSAGE_HEADER_SIZE + head_len + body_len;
    *size = left - head_len - body_len;
    return true;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct message raw;
    struct worker_message message;
    struct error err = {0};
    while (next_message(&data, &size, &raw)) {
        struct message_in in = {.message = raw};
        if (worker_message_read(&in, &message, &err) < 0)
            continue;
        check_within(&raw, message.result, message.result_len);
        check_within(&raw, message.logs, message.logs_len);
        check_within(&raw, message.bytes, message.bytes_len);
        check_within(&raw, message.output, message.output_len);
        check_within(&raw, message.artifact, message.artifact_len);
        worker_message_deinit(&message);
    }
    return 0;
}
