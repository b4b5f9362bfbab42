/* The inner function of SHA-256, in its portable form and with the processor's own instructions; for
 * sha256.c (and its test) only. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

extern const uint32_t sha256_round_constants[64];

/* Whether sha256_blocks_native() can be used on this machine. */
bool sha256_has_native(void);
void sha256_blocks_native(uint32_t state[8], const uint8_t *blocks, size_t count);
void sha256_blocks_portable(uint32_t state[8], const uint8_t *blocks, size_t count);
