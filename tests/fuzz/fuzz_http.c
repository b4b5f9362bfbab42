/* The HTTP server's own text work on what a client sent: paths, parameters, percent-encoding. What decodes is found again when it is encoded. */
#include "base/http_route.h"

#include "base/cleanup.h"
#include "base/text.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct http_route routes[] = {
    {.method = "GET", .pattern = "/v1/functions/{name}"},
    {.method = "*", .pattern = "/fn/{name}"},
    {.method = "GET", .pattern = "/files/{path...}"},
    {.method = "GET", .pattern = "/v1/worker/functions/{name}/{version}"},
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Every byte as %XX. */
static void encode(const char *text, size_t len, char *out)
{
    for (size_t i = 0; i < len; i++)
        sprintf(out + 3 * i, "%%%02X", (unsigned char)text[i]);
}

static void check_decoding(const char *text, size_t len)
{
    autofree char *plus = http_percent_decode(text, len, true);
    autofree char *decoded = http_percent_decode(text, len, false);
    if (!plus != !decoded)
        abort();
    if (!decoded)
        return;
    size_t decoded_len = strlen(decoded);
    autofree char *encoded = malloc(3 * decoded_len + 1);
    if (!encoded || decoded_len > len || !utf8_valid(decoded, decoded_len))
        abort();
    encoded[0] = '\0';
    encode(decoded, decoded_len, encoded);
    autofree char *again = http_percent_decode(encoded, 3 * decoded_len, true);
    if (!again || strcmp(again, decoded) != 0)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const methods[] = {"GET", "HEAD", "POST"};
    struct http_route_match match;
    char *path = strndup((const char *)data, size);
    if (!path)
        return 0;
    http_route_find(routes, sizeof(routes) / sizeof(routes[0]), methods[size % 3], path, &match);
    if (match.route && !match.path_known)
        abort();
    for (size_t i = 0; i < match.param_count; i++)
        if (strlen(match.params[i].value) > size)
            abort(); /* decoding never makes text longer */
    http_route_match_deinit(&match);
    char allowed[16]; /* too small for all of them, on purpose */
    http_route_allowed(routes, sizeof(routes) / sizeof(routes[0]), path, allowed, sizeof(allowed));
    if (strlen(allowed) >= sizeof(allowed))
        abort();
    check_decoding(path, strlen(path));
    free(http_percent_decode((const char *)data, size, true));
    free(path);
    return 0;
}
