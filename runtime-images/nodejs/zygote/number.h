/* Reads numbers of /proc's text files. (Those of the C library would bind the addon to the version that it was built with.) */
#pragma once

#include <stdbool.h>
#include <stdint.h>

/* The number at *at, after blanks, in base 10 or 16; *at is then behind it. false when there is none. */
static inline bool number_read(const char **at, unsigned int base, uint64_t *ret_number)
{
    const char *place = *at;
    uint64_t number = 0;
    bool any = false;

    while (*place == ' ' || *place == '\t')
        place++;
    for (;; place++) {
        unsigned int digit = base;

        if (*place >= '0' && *place <= '9')
            digit = (unsigned int)(*place - '0');
        else if (*place >= 'a' && *place <= 'f')
            digit = (unsigned int)(*place - 'a' + 10);
        if (digit >= base)
            break;
        number = number * base + digit;
        any = true;
    }
    *at = place;
    *ret_number = number;
    return any;
}
