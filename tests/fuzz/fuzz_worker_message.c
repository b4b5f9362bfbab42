/* What a worker posts, heads included: whatever comes, what was read lies within the batch. */
#include "controller/worker_message.h"

#include <stdint.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_within(const struct message *message, const char *part, size_t len)
{
    if (len > 0 && (part < message->body || part + len > message->body + message->body_len))
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct message raw;
    struct worker_message message;
    struct error err = {0};
    size_t offset = 0;
    while (message_next((const char *)data, size, &offset, &raw, &err) > 0) {
        if (worker_message_read(&raw, &message, &err) < 0)
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
