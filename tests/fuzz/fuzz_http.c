/* The HTTP server's own text work on what a client sent: paths, parameters, percent-encoding. */
#include "base/http_route.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

static const struct http_route routes[] = {
    {.method = "GET", .pattern = "/v1/functions/{name}"},
    {.method = "*", .pattern = "/fn/{name}"},
    {.method = "GET", .pattern = "/files/{path...}"},
    {.method = "GET", .pattern = "/v1/worker/functions/{name}/{version}"},
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct http_route_match match;
    char *path = strndup((const char *)data, size);
    if (!path)
        return 0;
    http_route_find(routes, sizeof(routes) / sizeof(routes[0]), "GET", path, &match);
    for (size_t i = 0; i < match.param_count; i++)
        if (strlen(match.params[i].value) > size)
            abort(); /* decoding never makes text longer */
    http_route_match_deinit(&match);
    char allowed[16]; /* too small for all of them, on purpose */
    http_route_allowed(routes, sizeof(routes) / sizeof(routes[0]), path, allowed, sizeof(allowed));
    if (strlen(allowed) >= sizeof(allowed))
        abort();
    free(http_percent_decode((const char *)data, size, true));
    free(path);
    return 0;
}
