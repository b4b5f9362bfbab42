/* UTF-8 (RFC 3629): the check that text from strangers must pass. */
#include "base/text.h"

#include <string.h>

/* The second byte's range excludes overlong forms, surrogates and what is beyond U+10FFFF (RFC
 * 3629, section 4). */
size_t utf8_width(const char *text, size_t left)
{
    const unsigned char *in = (const unsigned char *)text;
    unsigned char low = 0x80, high = 0xBF;
    size_t width = 0;
    if (in[0] < 0x80)
        return 1;
    if (in[0] >= 0xC2 && in[0] <= 0xDF) {
        width = 2;
    } else if (in[0] >= 0xE0 && in[0] <= 0xEF) {
        width = 3;
        low = in[0] == 0xE0 ? 0xA0 : low;
        high = in[0] == 0xED ? 0x9F : high;
    } else if (in[0] >= 0xF0 && in[0] <= 0xF4) {
        width = 4;
        low = in[0] == 0xF0 ? 0x90 : low;
        high = in[0] == 0xF4 ? 0x8F : high;
    }
    if (width == 0 || width > left || in[1] < low || in[1] > high)
        return 0;
    for (size_t i = 2; i < width; i++)
        if ((in[i] & 0xC0) != 0x80)
            return 0;
    return width;
}

size_t utf8_valid_len(const char *text, size_t len)
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
        size_t width = utf8_width(text + at, len - at);
        if (width == 0)
            break;
        at += width;
    }
    return at;
}

bool utf8_valid(const char *text, size_t len)
{
    return utf8_valid_len(text, len) == len;
}
