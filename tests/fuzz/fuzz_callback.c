/* What a user writes as a callback's URL, and an operator as the networks that callbacks may go to. */
#include "base/cleanup.h"
#include "base/http_url.h"
#include "controller/callback_guard.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct http_url url;
    struct callback_guard guard;
    struct error err = {0};
    autofree char *text = strndup((const char *)data, size);
    if (!text)
        return 0;
    if (http_url_parse(text, &url, &err) == 0) {
        if (!url.host[0] || url.port == 0 || strpbrk(url.host, " %@/\\[]"))
            abort();
    } else if (!err.message[0] || strchr(err.message, '\n')) {
        abort();
    }
    if (callback_guard_init(&guard, text, NULL) == 0 && guard.allowed.count > 0 &&
        guard.allowed.items[0].bits > 128)
        abort();
    return 0;
}
