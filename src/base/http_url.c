/* URLs of users: see http_url.h. */
#include "base/http_url.h"

#include <ctype.h>
#include <curl/curl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int check_text(const char *text, struct error *err)
{
    size_t len = strnlen(text, HTTP_URL_MAX + 1);
    if (len == 0 || len > HTTP_URL_MAX)
        return error_set(err, ERROR_INVALID_REQUEST, "a URL must have 1 to %d bytes", HTTP_URL_MAX);
    for (size_t i = 0; i < len; i++)
        if (text[i] <= ' ' || text[i] > '~')
            return error_set(err, ERROR_INVALID_REQUEST,
                             "a URL must be of visible ASCII characters; write others as %%XX");
    return 0;
}

/* Letters, digits, '-', '_' and '.', or an address in brackets. */
static int take_host(const char *text, struct http_url *url, struct error *err)
{
    size_t len = strlen(text);
    bool bracketed = len > 2 && text[0] == '[' && text[len - 1] == ']';
    if (bracketed) {
        text++;
        len -= 2;
    }
    if (len == 0 || len > HTTP_URL_HOST_MAX)
        return error_set(err, ERROR_INVALID_REQUEST, "a URL's host must have 1 to %d bytes",
                         HTTP_URL_HOST_MAX);
    for (size_t i = 0; i < len; i++) {
        unsigned char c = (unsigned char)text[i];
        if (!isalnum(c) && c != '.' && c != (bracketed ? ':' : '-') && (bracketed || c != '_'))
            return error_set(err, ERROR_INVALID_REQUEST,
                             "a URL's host must be a name or an address");
        url->host[i] = (char)tolower(c);
    }
    url->host[len] = '\0';
    return 0;
}

static char *part(CURLU *parsed, CURLUPart which)
{
    char *text = NULL;
    return curl_url_get(parsed, which, &text, CURLU_DEFAULT_PORT) == CURLUE_OK ? text : NULL;
}

static int take_parts(CURLU *parsed, struct http_url *url, struct error *err)
{
    char *scheme = part(parsed, CURLUPART_SCHEME), *host = part(parsed, CURLUPART_HOST);
    char *port = part(parsed, CURLUPART_PORT), *zone = part(parsed, CURLUPART_ZONEID);
    int outcome = -1;
    url->tls = scheme && strcmp(scheme, "https") == 0;
    url->port = port ? (uint16_t)strtoul(port, NULL, 10) : 0;
    if (!scheme || (!url->tls && strcmp(scheme, "http") != 0))
        error_set(err, ERROR_INVALID_REQUEST, "a URL must begin with https:// or http://");
    else if (zone)
        error_set(err, ERROR_INVALID_REQUEST, "a URL's address must not have a zone");
    else if (url->port == 0)
        error_set(err, ERROR_INVALID_REQUEST, "a URL's port must be 1 to 65535");
    else
        outcome = take_host(host ? host : "", url, err);
    curl_free(scheme);
    curl_free(host);
    curl_free(port);
    curl_free(zone);
    return outcome;
}

int http_url_parse(const char *text, struct http_url *ret, struct error *err)
{
    struct http_url url = {0};
    if (check_text(text, err) < 0)
        return -1;
    CURLU *parsed = curl_url();
    if (!parsed)
        return error_set(err, ERROR_INTERNAL, "out of memory");
    CURLUcode code = curl_url_set(parsed, CURLUPART_URL, text, CURLU_DISALLOW_USER);
    int outcome;
    if (code == CURLUE_USER_NOT_ALLOWED)
        outcome = error_set(err, ERROR_INVALID_REQUEST, "a URL must not hold a user or password");
    else if (code != CURLUE_OK)
        outcome = error_set(err, ERROR_INVALID_REQUEST,
                            "a URL must be https://HOST[:PORT]/PATH: this one cannot be read");
    else
        outcome = take_parts(parsed, &url, err);
    curl_url_cleanup(parsed);
    if (outcome == 0)
        *ret = url;
    return outcome;
}
