/* What a callback's URL must be, and how its body is signed: see callbacks.h. */
#include "controller/controller.h"

#include <stdio.h>
#include <string.h>

int callback_host(const char *text, char out[CALLBACK_HOST_SIZE])
{
    struct http_url url;
    if (http_url_parse(text, &url, NULL) < 0)
        return -1;
    snprintf(out, CALLBACK_HOST_SIZE, "%s://%s:%u", url.tls ? "https" : "http", url.host, url.port);
    return 0;
}

int callback_check(const struct controller *controller, const char *text,
                   const struct function_spec *spec, const char *field, struct error *err)
{
    struct http_url url;
    struct error why = {0};
    const char *name = field[0] == '/' ? field + 1 : field;
    if (http_url_parse(text, &url, &why) < 0)
        return error_set_field(err, why.code, field, "%s: %s", name, why.message);
    if (!callback_guard_allows_host(&controller->callbacks.guard, url.host, url.tls))
        return error_set_field(err, ERROR_INVALID_REQUEST, field,
                               "%s must be https to a public address, or to a network in the "
                               "setting CONTROLLER_CALLBACK_ALLOW",
                               name);
    if (spec->callback_secret)
        return 0;
    return error_set_field(err, ERROR_INVALID_REQUEST, field,
                           "%s needs a function with a callback_secret, which signs what is sent; "
                           "deploy %s with one",
                           name, spec->name);
}

void callback_sign(const char *secret, time_t time, const char *body, size_t body_len,
                   char out[CALLBACK_SIGNATURE_SIZE])
{
    struct hmac_sha256 hmac;
    uint8_t digest[32];
    char stamp[32], hex[2 * sizeof(digest) + 1];
    int len = snprintf(stamp, sizeof(stamp), "%lld.", (long long)time);
    hmac_sha256_init(&hmac, secret, strlen(secret));
    hmac_sha256_update(&hmac, stamp, (size_t)len);
    hmac_sha256_update(&hmac, body, body_len);
    hmac_sha256_final(&hmac, digest);
    hex_encode(digest, sizeof(digest), hex);
    snprintf(out, CALLBACK_SIGNATURE_SIZE, "t=%lld,v1=%s", (long long)time, hex);
}
