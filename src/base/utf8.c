/* UTF-8 (RFC 3629): the check that text from strangers must pass. */
#include "base/text.h"

#include <string.h>

/* Bytes of the well-formed character at `text`, or 0. The second byte's range excludes overlong
 * forms, surrogates and what is beyond U+10FFFF (RFC 3629, section 4). */
static size_t character_width(const unsigned char *text, size_t left)
{
    unsigned char first = text[0], low = 0x80, high = 0xBF;
    size_t width = 0;
    if (first < 0x80)
        return 1;
    if (first >= 0xC2 && first <= 0xDF) {
        width = 2;
    } else if (first >= 0xE0 && first <= 0xEF) {
        width = 3;
        low = first == 0xE0 ? 0xA0 : low;
        high = first == 0xED ? 0x9F : high;
    } else if (first >= 0xF0 && first <= 0xF4) {
        width = 4;
        low = first == 0xF0 ? 0x90 : low;
        high = first == 0xF4 ? 0x8F : high;
    }
    if (width == 0 || width > left || text[1] < low || text[1] > high)
        return 0;
    for (size_t i = 2; i < width; i++)
        if ((text[i] & 0xC0) != 0x80)
            return 0;
    return width;
}

bool utf8_valid(const char *text, size_t len)
{
    size_t at = 0;
    while (at < len) {
        uint64_t eight;
        if (len - at >= sizeof(eight)) { /* eight ASCII characters in one step */
            memcpy(&eight, text + at, sizeof(eight));
            if (!(eight & 0x8080808080808080u)) {
                at += sizeof(eight);
                continue;
            }
        }
        size_t width = character_width((const unsigned char *)text + at, len - at);
        if (width == 0)
            return false;
        at += width;
    }
    return true;
}
