/* Makes the checksums of tar headers right again, so that a fuzzer gets behind them. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

/* Every block that says "ustar" counts as a header. Whether anything changed. */
static inline bool tar_repair(uint8_t *bytes, size_t size)
{
    bool changed = false;
    for (size_t at = 0; at + 512 <= size; at += 512) {
        uint8_t *head = bytes + at;
        char text[8];
        unsigned sum = 8 * ' ';
        if (memcmp(head + 257, "ustar", 5) != 0)
            continue;
        for (size_t i = 0; i < 512; i++)
            sum += i >= 148 && i < 156 ? 0 : head[i];
        snprintf(text, sizeof(text), "%06o", sum & 0777777);
        text[7] = ' ';
        changed = changed || memcmp(head + 148, text, 8) != 0;
        memcpy(head + 148, text, 8);
    }
    return changed;
}
