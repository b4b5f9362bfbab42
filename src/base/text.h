/* Small text helpers: UTF-8, base64, hexadecimal, identifiers, sizes, durations, paths. */
#pragma once

#include "base/buffer.h"

#include <stdbool.h>
#include <stdint.h>

bool utf8_valid(const char *text, size_t len);
/* Bytes of the longest well-formed beginning of `text`. */
size_t utf8_valid_len(const char *text, size_t len);
/* Bytes of the well-formed character at `text` (`left` bytes are there, at least 1); 0 when there
 * is none. */
size_t utf8_width(const char *text, size_t left);
int base64_encode(const void *data, size_t len, struct buffer *out, struct error *err);
/* Standard alphabet, padding required, white space between lines allowed. Says at which byte it
 * went wrong. */
int base64_decode(const char *text, size_t len, struct buffer *out, struct error *err);
/* out: 2 * len + 1 bytes. */
void hex_encode(const void *data, size_t len, char *out);

/* 128 random bits as 32 hexadecimal digits. */
#define RANDOM_ID_LEN 32
void random_id(char out[RANDOM_ID_LEN + 1]);
/* UUID version 7 (RFC 9562): sorts by time of making, and within one process strictly. "018f…-…" 36
 * characters. */
#define TIME_ID_LEN 36
void time_id(char out[TIME_ID_LEN + 1]);
bool time_id_valid(const char *text);

/* SHA-256 (FIPS 180-4). */
struct sha256 {
    uint32_t state[8];
    uint64_t len;
    uint8_t block[64];
};
void sha256_init(struct sha256 *sha);
void sha256_update(struct sha256 *sha, const void *data, size_t len);
void sha256_final(struct sha256 *sha, uint8_t out[32]);
/* Lower-case hexadecimal; 64 characters and NUL. */
#define SHA256_HEX_LEN 64
void sha256_hex(const void *data, size_t len, char out[SHA256_HEX_LEN + 1]);

/* HMAC-SHA256 (RFC 2104); the end forgets the key. */
struct hmac_sha256 {
    struct sha256 inner, outer;
};
void hmac_sha256_init(struct hmac_sha256 *hmac, const void *key, size_t key_len);
void hmac_sha256_update(struct hmac_sha256 *hmac, const void *data, size_t len);
void hmac_sha256_final(struct hmac_sha256 *hmac, uint8_t out[32]);

/* Compares without telling by its time where the difference is. */
bool equal_constant_time(const void *a, const void *b, size_t len);

/* "250ms", "30s", "2m", "1h", or a bare number of milliseconds. */
int duration_parse_ms(const char *text, int64_t *ret_ms, struct error *err);
/* "1.5 ms", "45.7 MB": for people. out at least 24 bytes. */
void format_duration_ns(uint64_t ns, char *out, size_t size);
void format_bytes(uint64_t bytes, char *out, size_t size);

/* "Did you mean …": offer each name there is, then read `best`, NULL when none is close enough.
 *
 *     struct nearest nearest = {.wanted = "memory"};
 *     nearest_offer(&nearest, "memory_mb"); … */
struct nearest {
    const char *wanted;
    const char *best; /* one of those offered */
    size_t distance;
};
void nearest_offer(struct nearest *nearest, const char *name);

/* malloc'd; NULL when out of memory. */
char *string_printf(const char *format, ...) __attribute__((format(printf, 1, 2)));
