/* An http or https URL that a user gave, checked before it is kept or used. Parsed by libcurl's own URL parser, so that what was
 * checked is what is connected to. */
#pragma once

#include "base/error.h"

#include <stdbool.h>
#include <stdint.h>

#define HTTP_URL_MAX 2048
#define HTTP_URL_HOST_MAX 253

struct http_url {
    bool tls;                         /* https */
    char host[HTTP_URL_HOST_MAX + 1]; /* in lower case; an IPv6 address without brackets */
    uint16_t port;
};

/* Visible ASCII of at most HTTP_URL_MAX bytes, http or https, without user and password. The error
 * says what would be right, and nothing of the URL but its scheme: it may hold a secret. */
int http_url_parse(const char *text, struct http_url *ret, struct error *err);
