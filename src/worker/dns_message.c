/* Writing a question and reading an answer. Names in an answer are only stepped over, so no pointer is ever followed. */
#include "worker/dns_message.h"

#include <stdbool.h>
#include <string.h>

#define HEADER 12
#define OPT 11 /* the EDNS record of a query, at its end */
#define TYPE_A 1
#define TYPE_OPT 41
#define CLASS_IN 1
#define FLAG_ANSWER 0x8000
#define FLAG_RECURSE 0x0100
#define LABEL_MAX 63

static uint8_t *put16(uint8_t *at, unsigned value)
{
    at[0] = (uint8_t)(value >> 8);
    at[1] = (uint8_t)value;
    return at + 2;
}

static unsigned get16(const uint8_t *at)
{
    return (unsigned)at[0] << 8 | at[1];
}

static uint32_t get32(const uint8_t *at)
{
    return (uint32_t)get16(at) << 16 | get16(at + 2);
}

static uint8_t *put_name(uint8_t *at, const char *name)
{
    while (*name) {
        size_t len = strcspn(name, ".");
        if (len == 0 || len > LABEL_MAX)
            return NULL;
        *at++ = (uint8_t)len;
        memcpy(at, name, len);
        at += len;
        name += len + (name[len] == '.');
    }
    *at++ = 0;
    return at;
}

size_t dns_query_write(uint16_t id, const char *name, uint8_t out[DNS_QUERY_MAX])
{
    uint8_t *at = out;

    if (!*name || strlen(name) > DNS_QUERY_MAX - HEADER - OPT - 6)
        return 0;
    at = put16(at, id);
    at = put16(at, FLAG_RECURSE);
    at = put16(at, 1); /* questions */
    at = put16(at, 0);
    at = put16(at, 0);
    at = put16(at, 1); /* additional records */
    at = put_name(at, name);
    if (!at)
        return 0;
    at = put16(at, TYPE_A);
    at = put16(at, CLASS_IN);
    *at++ = 0; /* the root's name */
    at = put16(at, TYPE_OPT);
    at = put16(at, DNS_ANSWER_MAX);
    memset(at, 0, 6);
    return (size_t)(at + 6 - out);
}

/* Steps over a name; false when it is cut short. */
static bool skip_name(const uint8_t *data, size_t len, size_t *at)
{
    while (*at < len) {
        unsigned label = data[*at];
        if (label >= 0xc0) {
            *at += 2;
            return *at <= len;
        }
        if (label > LABEL_MAX)
            return false;
        *at += 1 + label;
        if (label == 0)
            return true;
    }
    return false;
}

static int not_an_answer(struct error *err)
{
    return error_set(err, ERROR_INVALID_REQUEST, "the name server's message is no answer");
}

static bool same_letter(uint8_t a, uint8_t b)
{
    if (a >= 'A' && a <= 'Z')
        a = (uint8_t)(a - 'A' + 'a');
    if (b >= 'A' && b <= 'Z')
        b = (uint8_t)(b - 'A' + 'a');
    return a == b;
}

/* It repeats the question, whole. */
static bool answers(const uint8_t *data, size_t len, const uint8_t *query, size_t query_len)
{
    size_t end = query_len - OPT;

    if (len < end || get16(data) != get16(query) || !(get16(data + 2) & FLAG_ANSWER) ||
        get16(data + 4) != 1)
        return false;
    for (size_t i = HEADER; i < end; i++)
        if (!same_letter(data[i], query[i]))
            return false;
    return true;
}

static int read_records(const uint8_t *data, size_t len, size_t at, struct dns_answer *ret,
                        struct error *err)
{
    for (unsigned left = get16(data + 6); left > 0; left--) {
        if (!skip_name(data, len, &at) || len - at < 10)
            return not_an_answer(err);
        unsigned type = get16(data + at), class = get16(data + at + 2);
        uint32_t ttl = get32(data + at + 4);
        size_t size = get16(data + at + 8);
        at += 10;
        if (len - at < size)
            return not_an_answer(err);
        if (type == TYPE_A && class == CLASS_IN && size == 4 && ret->count < DNS_ADDRESSES_MAX) {
            ret->addresses[ret->count++] = get32(data + at);
            ret->ttl_s = ttl < ret->ttl_s ? ttl : ret->ttl_s;
        }
        at += size;
    }
    return 0;
}

int dns_answer_read(const uint8_t *data, size_t len, const uint8_t *query, size_t query_len,
                    struct dns_answer *ret, struct error *err)
{
    struct dns_answer read = {.ttl_s = UINT32_MAX};

    if (!answers(data, len, query, query_len))
        return not_an_answer(err);
    unsigned code = data[3] & 0xfu;
    if (code == 3)
        return error_set(err, ERROR_NOT_FOUND, "there is no such name");
    if (code != 0)
        return error_set(err, ERROR_UNAVAILABLE, "the name server answered with code %u", code);
    if (read_records(data, len, query_len - OPT, &read, err) < 0)
        return -1;
    if (read.count == 0)
        return error_set(err, ERROR_NOT_FOUND, "the name has no IPv4 address");
    *ret = read;
    return 0;
}
