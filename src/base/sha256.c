/* SHA-256 (FIPS 180-4): names code archives and image layers by their content. */
#include "base/text.h"

#include "base/sha256_blocks.h"

#include <endian.h>
#include <stdatomic.h>
#include <string.h>

/* FIPS 180-4, section 4.2.2. */
const uint32_t sha256_round_constants[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};

static uint32_t rotate(uint32_t word, int by)
{
    return word >> by | word << (32 - by);
}

/* FIPS 180-4, section 6.2.2. */
static void compress(uint32_t state[8], const uint8_t block[64])
{
    uint32_t words[64];
    uint32_t a = state[0], b = state[1], c = state[2], d = state[3];
    uint32_t e = state[4], f = state[5], g = state[6], h = state[7];
    for (int i = 0; i < 16; i++) {
        uint32_t word;
        memcpy(&word, block + 4 * i, sizeof(word));
        words[i] = be32toh(word);
    }
    for (int i = 16; i < 64; i++) {
        uint32_t w15 = words[i - 15], w2 = words[i - 2];
        words[i] = words[i - 16] + (rotate(w15, 7) ^ rotate(w15, 18) ^ w15 >> 3) + words[i - 7] +
                   (rotate(w2, 17) ^ rotate(w2, 19) ^ w2 >> 10);
    }
    for (int i = 0; i < 64; i++) {
        uint32_t t1 = h + (rotate(e, 6) ^ rotate(e, 11) ^ rotate(e, 25)) + ((e & f) ^ (~e & g)) +
                      sha256_round_constants[i] + words[i];
        uint32_t t2 =
            (rotate(a, 2) ^ rotate(a, 13) ^ rotate(a, 22)) + ((a & b) ^ (a & c) ^ (b & c));
        h = g, g = f, f = e, e = d + t1;
        d = c, c = b, b = a, a = t1 + t2;
    }
    const uint32_t sums[8] = {a, b, c, d, e, f, g, h};
    for (int i = 0; i < 8; i++)
        state[i] += sums[i];
}

void sha256_blocks_portable(uint32_t state[8], const uint8_t *blocks, size_t count)
{
    for (; count > 0; count--, blocks += 64)
        compress(state, blocks);
}

static void compress_blocks(uint32_t state[8], const uint8_t *blocks, size_t count)
{
    static atomic_int native = -1; /* not known yet */
    int use = atomic_load_explicit(&native, memory_order_relaxed);
    if (use < 0) {
        use = sha256_has_native();
        atomic_store_explicit(&native, use, memory_order_relaxed);
    }
    (use ? sha256_blocks_native : sha256_blocks_portable)(state, blocks, count);
}

void sha256_init(struct sha256 *sha)
{
    *sha = (struct sha256){.state = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f,
                                     0x9b05688c, 0x1f83d9ab, 0x5be0cd19}};
}

void sha256_update(struct sha256 *sha, const void *data, size_t len)
{
    const uint8_t *in = data;
    while (len > 0) {
        size_t used = sha->len % sizeof(sha->block);
        if (used == 0 && len >= sizeof(sha->block)) {
            size_t whole = len / sizeof(sha->block);
            compress_blocks(sha->state, in, whole);
            sha->len += whole * sizeof(sha->block);
            in += whole * sizeof(sha->block);
            len -= whole * sizeof(sha->block);
            continue;
        }
        size_t step = sizeof(sha->block) - used < len ? sizeof(sha->block) - used : len;
        memcpy(sha->block + used, in, step);
        sha->len += step;
        in += step;
        len -= step;
        if (used + step == sizeof(sha->block))
            compress_blocks(sha->state, sha->block, 1);
    }
}

void sha256_final(struct sha256 *sha, uint8_t out[32])
{
    static const uint8_t padding[64] = {0x80};
    uint64_t bits = htobe64(sha->len * 8);
    size_t used = sha->len % 64;
    sha256_update(sha, padding, used < 56 ? 56 - used : 120 - used);
    sha256_update(sha, &bits, sizeof(bits));
    for (int i = 0; i < 8; i++) {
        uint32_t word = htobe32(sha->state[i]);
        memcpy(out + 4 * i, &word, sizeof(word));
    }
}

void sha256_hex(const void *data, size_t len, char out[SHA256_HEX_LEN + 1])
{
    struct sha256 sha;
    uint8_t digest[32];
    sha256_init(&sha);
    sha256_update(&sha, data, len);
    sha256_final(&sha, digest);
    hex_encode(digest, sizeof(digest), out);
}
