/* What a user writes as a callback's URL, and an operator as the networks that callbacks may go to; and, where there are two lines, whether
 * callbacks may go to the second's address when the first's networks are allowed. Written as IPv6 an address is the same one. */
#include "base/cleanup.h"
#include "base/http_url.h"
#include "controller/callback_guard.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool condition)
{
    if (!condition)
        abort();
}

/* Some of what is never the internet's. */
static bool is_inner(uint32_t address)
{
    return address >> 24 == 0 || address >> 24 == 10 || address >> 24 == 127 ||
           address >> 20 == 0xac1 || address >> 16 == 0xc0a8 || address >> 16 == 0xa9fe ||
           address >> 28 == 0xe || address == UINT32_MAX;
}

static void check_v4(const struct callback_guard *guard, const struct in_addr *address, bool tls,
                     bool allowed)
{
    const struct sockaddr_in socket_address = {.sin_family = AF_INET, .sin_addr = *address};
    char text[INET_ADDRSTRLEN], written[64];
    inet_ntop(AF_INET, address, text, sizeof(text));
    require(callback_guard_allows(guard, (const struct sockaddr *)&socket_address, tls) == allowed);
    snprintf(written, sizeof(written), "::ffff:%s", text);
    require(callback_guard_allows_host(guard, written, tls) == allowed);
    if (guard->allowed.count > 0)
        return;
    require(!allowed || !is_inner(ntohl(address->s_addr)));
    snprintf(written, sizeof(written), "64:ff9b::%s", text);
    require(!callback_guard_allows_host(guard, written, tls) || allowed);
}

static void try_guard(char *text)
{
    struct callback_guard guard;
    struct in_addr address;
    char *host = strchr(text, '\n');
    if (!host)
        return;
    *host++ = '\0';
    if (callback_guard_init(&guard, text, NULL) < 0)
        return;
    bool with_tls = callback_guard_allows_host(&guard, host, true);
    bool without = callback_guard_allows_host(&guard, host, false);
    require(with_tls || !without);
    require(guard.allowed.count > 0 || !without);
    if (inet_pton(AF_INET, host, &address) != 1)
        return;
    check_v4(&guard, &address, true, with_tls);
    check_v4(&guard, &address, false, without);
}

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
    try_guard(text);
    return 0;
}
