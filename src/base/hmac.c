/* HMAC-SHA256 (RFC 2104): see text.h. */
#include "base/text.h"

#include <string.h>

#define BLOCK 64

void hmac_sha256_init(struct hmac_sha256 *hmac, const void *key, size_t key_len)
{
    uint8_t block[BLOCK] = {0}, pad[BLOCK];
    if (key_len > BLOCK) {
        struct sha256 sha;
        sha256_init(&sha);
        sha256_update(&sha, key, key_len);
        sha256_final(&sha, block);
    } else {
        memcpy(block, key, key_len);
    }
    for (size_t i = 0; i < BLOCK; i++)
        pad[i] = block[i] ^ 0x36;
    sha256_init(&hmac->inner);
    sha256_update(&hmac->inner, pad, sizeof(pad));
    for (size_t i = 0; i < BLOCK; i++)
        pad[i] = block[i] ^ 0x5c;
    sha256_init(&hmac->outer);
    sha256_update(&hmac->outer, pad, sizeof(pad));
    explicit_bzero(block, sizeof(block));
    explicit_bzero(pad, sizeof(pad));
}

void hmac_sha256_update(struct hmac_sha256 *hmac, const void *data, size_t len)
{
    sha256_update(&hmac->inner, data, len);
}

void hmac_sha256_final(struct hmac_sha256 *hmac, uint8_t out[32])
{
    uint8_t inner[32];
    sha256_final(&hmac->inner, inner);
    sha256_update(&hmac->outer, inner, sizeof(inner));
    sha256_final(&hmac->outer, out);
    explicit_bzero(hmac, sizeof(*hmac));
}
