/* Image names: [HOST[:PORT]/]PATH[:TAG], as in the distribution-spec, without digests. */
#include "oci/image_store.h"

#include <stdio.h>
#include <string.h>

#define TAG_MAX 128
#define LOWER "abcdefghijklmnopqrstuvwxyz0123456789"

static bool valid_component(const char *text, size_t len)
{
    return len > 0 && strspn(text, LOWER "._-") >= len && strchr("._-", text[0]) == NULL &&
           strchr("._-", text[len - 1]) == NULL;
}

/* The first of several components may have a port. */
static size_t host_len(const char *text, size_t len)
{
    const char *colon = memchr(text, ':', len);
    if (!colon)
        return len;
    const char *port = colon + 1;
    size_t port_len = len - (size_t)(port - text);
    return port_len > 0 && strspn(port, "0123456789") >= port_len ? (size_t)(colon - text) : len;
}

static bool valid_path(const char *path, size_t len)
{
    const char *end = path + len;
    for (const char *at = path; at <= end;) {
        const char *slash = memchr(at, '/', (size_t)(end - at));
        size_t part = (size_t)((slash ? slash : end) - at);
        if (!valid_component(at, at == path && slash ? host_len(at, part) : part))
            return false;
        at += part + 1;
    }
    return true;
}

static bool valid_tag(const char *tag)
{
    const char *allowed = LOWER "ABCDEFGHIJKLMNOPQRSTUVWXYZ_.-";
    size_t len = strlen(tag);
    return len > 0 && len <= TAG_MAX && strspn(tag, allowed) == len && tag[0] != '.' &&
           tag[0] != '-';
}

int image_name_normalise(const char *name, char out[IMAGE_NAME_MAX + 1], struct error *err)
{
    const char *slash = strrchr(name, '/');
    const char *colon = strchr(slash ? slash : name, ':');
    size_t path_len = colon ? (size_t)(colon - name) : strlen(name);
    const char *tag = colon ? colon + 1 : "latest";
    if (!valid_path(name, path_len) || !valid_tag(tag) ||
        path_len + 1 + strlen(tag) > IMAGE_NAME_MAX)
        return error_set(err, ERROR_INVALID_REQUEST,
                         "\"%.100s\" is no image name; lower-case letters, digits and \"._-/\", "
                         "then perhaps a tag, make one, as in \"tools/python:3.11\"",
                         name);
    snprintf(out, IMAGE_NAME_MAX + 1, "%.*s:%s", (int)path_len, name, tag);
    return 0;
}
