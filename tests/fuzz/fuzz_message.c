/* Message batches: whatever the lengths say, a message lies within the batch, and the reader always moves on. */
#include "base/message.h"

#include <stdint.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *batch = (const char *)data, *end = batch + size;
    struct message message;
    struct error err;
    size_t offset = 0;
    for (;;) {
        size_t before = offset;
        int result = message_next(batch, size, &offset, &message, &err);
        if (result <= 0)
            return 0;
        if (offset <= before || offset > size || message.head < batch ||
            message.head + message.head_len != message.body ||
            message.body_len > (size_t)(end - message.body))
            abort();
    }
}
