/* Identifiers: random ones that cannot be guessed, and ones that sort by time. */
#include "base/text.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

/* No identifier is better than a guessable one, and the kernel always has random bytes once booted.
 */
static void random_bytes(void *out, size_t len)
{
    ssize_t got;
    do
        got = getrandom(out, len, 0);
    while (got < 0 && errno == EINTR);
    if (got != (ssize_t)len)
        abort();
}

void random_id(char out[RANDOM_ID_LEN + 1])
{
    uint8_t bytes[RANDOM_ID_LEN / 2];
    random_bytes(bytes, sizeof(bytes));
    hex_encode(bytes, sizeof(bytes), out);
}

/* Milliseconds since 1970 times 4096, with the fraction of the millisecond in the low 12 bits (RFC
 * 9562, section 6.2, method 3). Each call gives more than the one before, also when the clock
 * stands or goes back. */
static uint64_t next_tick(void)
{
    static _Atomic uint64_t last;
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    uint64_t tick = ((uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000) << 12;
    tick |= (uint64_t)now.tv_nsec % 1000000 * 4096 / 1000000;

    uint64_t before = atomic_load(&last), next;
    do
        next = tick > before ? tick : before + 1;
    while (!atomic_compare_exchange_weak(&last, &before, next));
    return next;
}

void time_id(char out[TIME_ID_LEN + 1])
{
    uint8_t id[16];
    char hex[2 * sizeof(id) + 1];
    uint64_t tick = next_tick();
    random_bytes(id, sizeof(id));
    for (int i = 0; i < 6; i++)
        id[i] = (uint8_t)(tick >> (52 - 8 * i));
    id[6] = (uint8_t)(0x70 | (tick >> 8 & 0x0F)); /* version 7 */
    id[7] = (uint8_t)tick;
    id[8] = (id[8] & 0x3F) | 0x80; /* variant of RFC 9562 */

    hex_encode(id, sizeof(id), hex);
    const char *from = hex;
    for (int i = 0; i < TIME_ID_LEN; i++)
        out[i] = i == 8 || i == 13 || i == 18 || i == 23 ? '-' : *from++;
    out[TIME_ID_LEN] = '\0';
}

bool time_id_valid(const char *text)
{
    static const char pattern[] = "xxxxxxxx-xxxx-7xxx-Vxxx-xxxxxxxxxxxx";
    if (!text || strnlen(text, TIME_ID_LEN + 1) != TIME_ID_LEN)
        return false;
    for (int i = 0; i < TIME_ID_LEN; i++) {
        const char *allowed = pattern[i] == 'x'   ? "0123456789abcdef"
                              : pattern[i] == 'V' ? "89ab"
                              : pattern[i] == '7' ? "7"
                                                  : "-";
        if (!strchr(allowed, text[i]))
            return false;
    }
    return true;
}
