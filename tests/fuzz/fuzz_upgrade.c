/* The answer to a request that leaves HTTP: whatever a server says, the head that was found lies within it, and more bytes never
 * change what was found. */
#include "base/http_tunnel.h"

#include <stdint.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    int status = -1, again = -1;
    ssize_t len = http_tunnel_read_answer((const char *)data, size, &status);
    if (len > (ssize_t)size || (len > 0 && (status < 0 || status > 999)))
        abort();
    if (len > 0 && http_tunnel_read_answer((const char *)data, (size_t)len, &again) != len)
        abort();
    if (len > 0 && again != status)
        abort();
    return 0;
}
