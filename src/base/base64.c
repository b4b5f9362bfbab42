/* Base64 (RFC 4648, section 4): the standard alphabet, padded; white space is skipped when
 * decoding. */
#include "base/text.h"

#include <sys/types.h>

static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

int base64_encode(const void *data, size_t len, struct buffer *out, struct error *err)
{
    const unsigned char *in = data;
    if (len > out->max)
        return error_set(err, ERROR_PAYLOAD_TOO_LARGE, "more than %zu bytes", out->max);
    size_t encoded = len / 3 * 4 + (len % 3 ? 4 : 0);
    if (buffer_reserve(out, encoded, err) < 0)
        return -1;

    char *to = out->data + out->len;
    for (size_t i = 0; i < len; i += 3) {
        size_t left = len - i;
        uint32_t bits = (uint32_t)in[i] << 16;
        bits |= left > 1 ? (uint32_t)in[i + 1] << 8 : 0;
        bits |= left > 2 ? (uint32_t)in[i + 2] : 0;
        *to++ = alphabet[bits >> 18];
        *to++ = alphabet[bits >> 12 & 63];
        *to++ = left > 1 ? alphabet[bits >> 6 & 63] : '=';
        *to++ = left > 2 ? alphabet[bits & 63] : '=';
    }
    *to = '\0';
    out->len += encoded;
    return 0;
}

/* 0 to 63, or -1. */
static int digit_value(char c)
{
    if (c >= 'A' && c <= 'Z')
        return c - 'A';
    if (c >= 'a' && c <= 'z')
        return c - 'a' + 26;
    if (c >= '0' && c <= '9')
        return c - '0' + 52;
    return c == '+' ? 62 : c == '/' ? 63 : -1;
}

static bool is_space(char c)
{
    return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

static int refuse_character(char c, size_t at, struct error *err)
{
    if (c > 0x20 && c < 0x7F)
        return error_set(err, ERROR_INVALID_REQUEST,
                         "not base64: '%c' at byte %zu; allowed are A-Z a-z 0-9 + / and final =", c,
                         at);
    return error_set(err, ERROR_INVALID_REQUEST,
                     "not base64: byte 0x%02x at byte %zu; allowed are A-Z a-z 0-9 + / and final =",
                     (unsigned char)c, at);
}

/* Decodes into memory that is large enough; the number of bytes, or -1. */
static ssize_t decode(const char *text, size_t len, unsigned char *out, struct error *err)
{
    uint32_t bits = 0;
    size_t digits = 0, padding = 0, written = 0;
    for (size_t at = 0; at < len; at++) {
        if (is_space(text[at]))
            continue;
        if (text[at] == '=' && digits % 4 >= 2 && digits % 4 + padding < 4) {
            padding++;
            continue;
        }
        int value = digit_value(text[at]);
        if (value < 0 || padding > 0)
            return refuse_character(text[at], at, err);
        bits = bits << 6 | (uint32_t)value;
        if (++digits % 4 == 0) {
            out[written++] = (unsigned char)(bits >> 16);
            out[written++] = (unsigned char)(bits >> 8);
            out[written++] = (unsigned char)bits;
        }
    }
    size_t rest = digits % 4;
    if (rest + padding != 0 && rest + padding != 4)
        return error_set(err, ERROR_INVALID_REQUEST,
                         "not base64: it ends at byte %zu in the middle of a group of four; is it "
                         "cut off, or is the padding (=) missing?",
                         len);
    /* RFC 4648, section 3.5: the unused bits of the last digit must be zero, so that each text has
     * one meaning. */
    if ((rest == 2 && bits & 15) || (rest == 3 && bits & 3))
        return error_set(err, ERROR_INVALID_REQUEST,
                         "not base64: the last digit before byte %zu has bits set that belong to "
                         "no byte",
                         len);
    if (rest == 2)
        out[written++] = (unsigned char)(bits >> 4);
    if (rest == 3) {
        out[written++] = (unsigned char)(bits >> 10);
        out[written++] = (unsigned char)(bits >> 2);
    }
    return (ssize_t)written;
}

int base64_decode(const char *text, size_t len, struct buffer *out, struct error *err)
{
    size_t digits = 0;
    for (size_t at = 0; at < len; at++)
        digits += !is_space(text[at]) && text[at] != '=';
    if (buffer_reserve(out, digits / 4 * 3 + digits % 4 * 3 / 4, err) < 0)
        return -1;
    ssize_t written = decode(text, len, (unsigned char *)out->data + out->len, err);
    if (written < 0) {
        out->data[out->len] = '\0';
        return -1;
    }
    out->len += (size_t)written;
    out->data[out->len] = '\0';
    return 0;
}
