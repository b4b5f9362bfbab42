/* What an operator or a user writes as a place in the network: an entry of network_allow, a range, a list of name servers. */
#include "base/cleanup.h"
#include "model/destination.h"
#include "worker/network.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct destination destination = {0};
    struct name_servers servers = {0};
    struct error err = {0};
    uint32_t first = 1, last = 0;
    autofree char *text = strndup((const char *)data, size);
    if (!text)
        return 0;
    if (destination_parse(text, &destination, &err) == 0)
        destination_deinit(&destination);
    else if (!err.message[0] || strchr(err.message, '\n'))
        abort();
    if (network_range_parse((const char *)data, size, &first, &last, NULL) == 0 && first > last)
        abort();
    if (name_servers_parse(text, &servers, NULL) == 0 && servers.count > NAME_SERVERS_MAX)
        abort();
    return 0;
}
