/* What the worker reads from a CNI plugin: a result or an error. */
#include "worker/cni.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char interface[IFNAMSIZ];
    char words[128];

    if (cni_parse_result((const char *)data, size, "faas0", interface, NULL) == 0 &&
        !interface_name_valid(interface))
        abort();
    cni_parse_error((const char *)data, size, words, sizeof(words));
    for (const char *at = words; *at; at++)
        if ((unsigned char)*at < 0x20)
            abort();
    return 0;
}
