/* Routes and percent-encoding of the HTTP server: pure text work, apart so that it can be tested
 * and fuzzed. */
#pragma once

#include "base/http_server.h"

#define HTTP_PARAMS_MAX 4
#define HTTP_PATH_MAX 4096

struct http_route_match {
    const struct http_route *route; /* NULL: none */
    bool path_known;                /* some route has this path, with another method */
    struct {
        const char *name; /* in the route's pattern, ends at '}' */
        size_t name_len;
        char *value; /* owned, decoded */
    } params[HTTP_PARAMS_MAX];
    size_t param_count;
};

/* `path` still percent-encoded, without the query. HEAD is served by GET routes. */
void http_route_find(const struct http_route *routes, size_t count, const char *method,
                     const char *path, struct http_route_match *ret_match);
/* The methods that routes have for this path ("GET, DELETE"), cut to fit; "" when none. */
void http_route_allowed(const struct http_route *routes, size_t count, const char *path, char *out,
                        size_t size);
void http_route_match_deinit(struct http_route_match *match);

/* Decodes %XX (and '+' as a space when `plus`); malloc'd. NULL for a broken escape, an encoded NUL,
 * bytes that are not UTF-8, or no memory. */
char *http_percent_decode(const char *text, size_t len, bool plus);
