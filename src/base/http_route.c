/* Finding the route of a request and decoding what its path holds. */
#include "base/http_route.h"

#include "base/text.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int hex_value(char digit)
{
    if (digit >= '0' && digit <= '9')
        return digit - '0';
    if (digit >= 'a' && digit <= 'f')
        return digit - 'a' + 10;
    if (digit >= 'A' && digit <= 'F')
        return digit - 'A' + 10;
    return -1;
}

char *http_percent_decode(const char *text, size_t len, bool plus)
{
    char *decoded = malloc(len + 1);
    size_t out = 0;
    for (size_t i = 0; decoded && i < len; i++) {
        char byte = text[i];
        if (byte == '%') {
            int high = i + 1 < len ? hex_value(text[i + 1]) : -1;
            int low = i + 2 < len ? hex_value(text[i + 2]) : -1;
            if (high < 0 || low < 0 || (high == 0 && low == 0))
                goto broken;
            byte = (char)(high * 16 + low);
            i += 2;
        } else if (byte == '+' && plus) {
            byte = ' ';
        }
        decoded[out++] = byte;
    }
    if (!decoded || !utf8_valid(decoded, out))
        goto broken;
    decoded[out] = '\0';
    return decoded;
broken:
    free(decoded);
    return NULL;
}

void http_route_match_deinit(struct http_route_match *match)
{
    for (size_t i = 0; i < match->param_count; i++)
        free(match->params[i].value);
    match->param_count = 0;
}

static bool add_param(struct http_route_match *match, const char *name, size_t name_len,
                      const char *value, size_t value_len)
{
    if (match->param_count == HTTP_PARAMS_MAX)
        return false;
    char *decoded = http_percent_decode(value, value_len, false);
    if (!decoded)
        return false;
    match->params[match->param_count].name = name;
    match->params[match->param_count].name_len = name_len;
    match->params[match->param_count].value = decoded;
    match->param_count++;
    return true;
}

/* Compares segment by segment; parameters are decoded into `match`. */
static bool pattern_matches(const char *pattern, const char *path, struct http_route_match *match)
{
    while (*pattern) {
        if (*pattern != '{') {
            if (*pattern != *path)
                return false;
            pattern++;
            path++;
            continue;
        }
        const char *end = strchr(pattern, '}');
        size_t name_len = (size_t)(end - pattern) - 1;
        bool rest = name_len > 3 && strncmp(end - 3, "...", 3) == 0;
        size_t value_len = rest ? strlen(path) : strcspn(path, "/");
        if ((!rest && value_len == 0) ||
            !add_param(match, pattern + 1, rest ? name_len - 3 : name_len, path, value_len))
            return false;
        path += value_len;
        pattern = end + 1;
    }
    return *path == '\0';
}

static bool method_matches(const char *route_method, const char *method)
{
    return strcmp(route_method, "*") == 0 || strcmp(route_method, method) == 0 ||
           (strcmp(method, "HEAD") == 0 && strcmp(route_method, "GET") == 0);
}

void http_route_find(const struct http_route *routes, size_t count, const char *method,
                     const char *path, struct http_route_match *ret_match)
{
    *ret_match = (struct http_route_match){0};
    if (strlen(path) > HTTP_PATH_MAX)
        return;
    for (size_t i = 0; i < count; i++) {
        if (pattern_matches(routes[i].pattern, path, ret_match)) {
            ret_match->path_known = true;
            if (method_matches(routes[i].method, method)) {
                ret_match->route = &routes[i];
                return;
            }
        }
        http_route_match_deinit(ret_match);
    }
}

void http_route_allowed(const struct http_route *routes, size_t count, const char *path, char *out,
                        size_t size)
{
    size_t len = 0;
    out[0] = '\0';
    for (size_t i = 0; i < count && len < size; i++) {
        struct http_route_match match = {0};
        if (pattern_matches(routes[i].pattern, path, &match))
            len +=
                (size_t)snprintf(out + len, size - len, "%s%s", len ? ", " : "", routes[i].method);
        http_route_match_deinit(&match);
    }
}
