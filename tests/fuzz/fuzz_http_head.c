/* What is guessed of a request from its first bytes, before they are read: it never goes past them, and more of them never make another number
 * of the one that was seen. */
#include "base/http_head.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size > 2048)
        return 0;
    uint64_t whole = http_head_announces((const char *)data, size);
    for (size_t len = 0; len < size; len++) {
        char *beginning = malloc(len ? len : 1); /* of its own: a byte too far is seen */
        if (!beginning)
            return 0;
        memcpy(beginning, data, len);
        uint64_t seen = http_head_announces(beginning, len);
        free(beginning);
        if (seen != 0 && seen != whole)
            abort();
    }
    return 0;
}
