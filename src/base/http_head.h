/* A look at the beginning of a request, before libmicrohttpd reads it. */
#pragma once

#include <stddef.h>
#include <stdint.h>

/* What a request's head announces as the length of its body, as far as it is among these bytes: 0 when there is no Content-Length, or
 * none that is a number. A guess that nothing but speed may rest on: libmicrohttpd decides what the request is. */
uint64_t http_head_announces(const char *bytes, size_t len);
