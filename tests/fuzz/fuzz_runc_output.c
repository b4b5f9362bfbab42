/* What the driver reads from an OCI runtime: a state, a list, a log. */
#include "oci/runc.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct oci_state state, *states = NULL;
    size_t count = 0;
    char words[128];

    if (oci_parse_state((const char *)data, size, &state, NULL) == 0 && !oci_id_valid(state.id))
        abort();
    if (oci_parse_list((const char *)data, size, &states, &count, NULL) == 0)
        for (size_t i = 0; i < count; i++)
            if (!oci_id_valid(states[i].id) || states[i].pid < 0)
                abort();
    free(states);
    oci_parse_log((const char *)data, size, words, sizeof(words));
    for (const char *at = words; *at; at++)
        if ((unsigned char)*at < 0x20)
            abort();
    return 0;
}
