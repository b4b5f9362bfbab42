/* A fast look at JSON text that is only passed on: says "valid" for nearly all that is, and "not sure" for the rest, which
 * the parser then judges (json_check() in json_parse.c). So it makes no messages, and may give up at whatever is rare, but must never
 * accept what the parser would refuse; the fuzz target holds the two against each other.
 *
 * Somebody else may change the text meanwhile: each byte is looked at for itself, and no step rests on what one was before.
 *
 * Most of a large text is inside strings: those are read 64 bytes at a time. */
#include "base/json_tree.h"

#include "base/text.h"

#include <stdlib.h>
#include <string.h>

/* Deeper nesting is for the parser. */
#define DEPTH_MAX 1024
/* A number this long with an exponent this short is finite, whatever its digits. */
#define NUMBER_LEN_MAX 100
#define EXPONENT_DIGITS_MAX 2
/* Of a text that is looked at while it comes: nesting, and pieces in a row that led nowhere. */
#define AHEAD_DEPTH_MAX 100
#define AHEAD_MISSES_MAX 4

typedef signed char bytes16 __attribute__((vector_size(16)));
#define STRIDE (4 * sizeof(bytes16))

struct scan {
    const char *at, *end;
    size_t values_left;
    size_t depth, depth_max;
    /* A string value ends before its closing quote, or has what is not understood. */
    bool in_string;
    unsigned char is_object[DEPTH_MAX / 8]; /* a bit for each open level */
};

static void skip_blanks(struct scan *scan)
{
    while (scan->at < scan->end &&
           (*scan->at == ' ' || *scan->at == '\n' || *scan->at == '\r' || *scan->at == '\t'))
        scan->at++;
}

/* Not 0 where a byte is no plain character of a string, which are ASCII without controls, quote and backslash. As signed numbers, what
 * is not ASCII is below the controls. */
static bytes16 special_of(const char *text)
{
    bytes16 bytes;
    memcpy(&bytes, text, sizeof(bytes));
    return (bytes16)((bytes < 0x20) | (bytes == '"') | (bytes == '\\'));
}

static bool is_zero(bytes16 bytes)
{
    uint64_t halves[2];
    memcpy(halves, &bytes, sizeof(halves));
    return (halves[0] | halves[1]) == 0;
}

/* Over the plain characters that come next, or most of them. */
static void skip_plain(struct scan *scan)
{
    const char *at = scan->at;
    while ((size_t)(scan->end - at) >= STRIDE && is_zero(special_of(at) | special_of(at + 16) |
                                                         special_of(at + 32) | special_of(at + 48)))
        at += STRIDE;
    while (scan->end - at >= 16 && is_zero(special_of(at)))
        at += 16;
    scan->at = at;
}

static int hex4(const char *text)
{
    int value = 0;
    for (int i = 0; i < 4; i++) {
        char c = text[i];
        int digit = c >= '0' && c <= '9'                     ? c - '0'
                    : (c | 0x20) >= 'a' && (c | 0x20) <= 'f' ? (c | 0x20) - 'a' + 10
                                                             : -1;
        if (digit < 0)
            return -1;
        value = value * 16 + digit;
    }
    return value;
}

/* Behind a backslash. NUL characters are for the parser: keys must not have any. */
static bool scan_escape(struct scan *scan)
{
    size_t left = (size_t)(scan->end - scan->at);
    if (left < 2)
        return false;
    if (scan->at[1] != 'u') {
        bool known = scan->at[1] && strchr("\"\\/bfnrt", scan->at[1]);
        scan->at += 2;
        return known;
    }
    if (left < 6)
        return false;
    int value = hex4(scan->at + 2);
    scan->at += 6;
    if (value < 0xD800 || value > 0xDFFF)
        return value > 0;
    if (value > 0xDBFF || left < 12 || scan->at[0] != '\\' || scan->at[1] != 'u')
        return false;
    int low = hex4(scan->at + 2);
    scan->at += 6;
    return low >= 0xDC00 && low <= 0xDFFF;
}

/* One character that is not plain. */
static bool scan_character(struct scan *scan)
{
    unsigned char byte = (unsigned char)*scan->at;
    const char *start = scan->at;
    if (byte == '\\') {
        if (scan_escape(scan))
            return true;
        scan->at = start;
        return false;
    }
    size_t width = byte < 0x20 ? 0 : utf8_width(scan->at, (size_t)(scan->end - scan->at));
    scan->at += width;
    return width > 0;
}

/* From inside of a string to behind its closing quote; else to what is not understood. */
static bool scan_string_rest(struct scan *scan)
{
    while (scan->at < scan->end) {
        skip_plain(scan);
        if (scan->at == scan->end)
            return false;
        if (*scan->at == '"') {
            scan->at++;
            return true;
        }
        if (!scan_character(scan))
            return false;
    }
    return false;
}

/* From the opening quote to behind the closing one. */
static bool scan_string(struct scan *scan)
{
    scan->at++;
    return scan_string_rest(scan);
}

static bool scan_string_value(struct scan *scan)
{
    scan->in_string = !scan_string(scan);
    return !scan->in_string;
}

static size_t skip_digits(struct scan *scan)
{
    const char *start = scan->at;
    while (scan->at < scan->end && *scan->at >= '0' && *scan->at <= '9')
        scan->at++;
    return (size_t)(scan->at - start);
}

static bool next_is(const struct scan *scan, char a, char b)
{
    return scan->at < scan->end && (*scan->at == a || *scan->at == b);
}

static bool scan_number(struct scan *scan)
{
    const char *start = scan->at;
    scan->at += *scan->at == '-';
    bool zero = next_is(scan, '0', '0');
    size_t digits = skip_digits(scan);
    if (digits == 0 || (zero && digits > 1))
        return false;
    if (next_is(scan, '.', '.')) {
        scan->at++;
        if (skip_digits(scan) == 0)
            return false;
    }
    if (next_is(scan, 'e', 'E')) {
        scan->at++;
        scan->at += next_is(scan, '+', '-');
        digits = skip_digits(scan);
        if (digits == 0 || digits > EXPONENT_DIGITS_MAX)
            return false;
    }
    return scan->at - start <= NUMBER_LEN_MAX;
}

static bool scan_word(struct scan *scan, const char *word)
{
    size_t len = strlen(word);
    if ((size_t)(scan->end - scan->at) < len || memcmp(scan->at, word, len) != 0)
        return false;
    scan->at += len;
    return true;
}

static bool in_object(const struct scan *scan)
{
    size_t level = scan->depth - 1;
    return scan->is_object[level / 8] >> level % 8 & 1;
}

static bool open_level(struct scan *scan)
{
    size_t level = scan->depth;
    if (level == scan->depth_max)
        return false;
    unsigned char bit = (unsigned char)(1U << level % 8);
    if (*scan->at == '{')
        scan->is_object[level / 8] |= bit;
    else
        scan->is_object[level / 8] &= (unsigned char)~bit;
    scan->depth++;
    scan->at++;
    return true;
}

static bool scan_scalar(struct scan *scan)
{
    switch (*scan->at) {
    case '"':
        return scan_string_value(scan);
    case 't':
        return scan_word(scan, "true");
    case 'f':
        return scan_word(scan, "false");
    case 'n':
        return scan_word(scan, "null");
    default:
        return scan_number(scan);
    }
}

/* A member's key and colon. */
static bool scan_key(struct scan *scan)
{
    skip_blanks(scan);
    if (!next_is(scan, '"', '"') || !scan_string(scan))
        return false;
    skip_blanks(scan);
    if (!next_is(scan, ':', ':'))
        return false;
    scan->at++;
    return true;
}

/* Behind a value: ends what ends here, and goes to where the next value begins. */
static bool scan_end(struct scan *scan)
{
    for (;;) {
        skip_blanks(scan);
        if (scan->depth == 0)
            return scan->at == scan->end;
        if (next_is(scan, ',', ',')) {
            scan->at++;
            return !in_object(scan) || scan_key(scan);
        }
        char close = in_object(scan) ? '}' : ']';
        if (!next_is(scan, close, close))
            return false;
        scan->at++;
        scan->depth--;
    }
}

/* One value, or the beginning of one that has others inside. */
static bool scan_value(struct scan *scan)
{
    skip_blanks(scan);
    if (scan->at == scan->end || scan->values_left-- == 0)
        return false;
    if (*scan->at != '{' && *scan->at != '[')
        return scan_scalar(scan) && scan_end(scan);
    char close = *scan->at == '{' ? '}' : ']';
    if (!open_level(scan))
        return false;
    skip_blanks(scan);
    if (next_is(scan, close, close))
        return scan_end(scan);
    return close == ']' || scan_key(scan);
}

bool json_scan(const char *text, size_t len, const struct json_limits *limits)
{
    struct scan scan = {.at = text, .end = text + len, .values_left = limits->max_values};
    scan.depth_max = limits->max_depth < DEPTH_MAX ? limits->max_depth : DEPTH_MAX;
    do {
        if (!scan_value(&scan))
            return false;
    } while (scan.depth > 0);
    return true;
}

/* ---- while it comes ---- */

/* Where `at` stands is in `done`: the text may move. `scan` is as it was there, before a value or inside of a string. */
struct json_ahead {
    struct scan scan;
    size_t done;
    int misses;
};

struct json_ahead *json_ahead_new(void)
{
    struct json_ahead *ahead = calloc(1, sizeof(*ahead));
    if (!ahead)
        return NULL;
    ahead->scan.values_left = SIZE_MAX;
    ahead->scan.depth_max = AHEAD_DEPTH_MAX;
    return ahead;
}

void json_ahead_free(struct json_ahead *ahead)
{
    free(ahead);
}

/* A value, or the rest of a string, and on to where the next value begins. */
static bool scan_step(struct scan *scan)
{
    if (!scan->in_string)
        return scan_value(scan);
    scan->in_string = !scan_string_rest(scan);
    return !scan->in_string && scan_end(scan);
}

/* What a step changes. (Of the open levels it forgets or adds some, but does not replace one by another.) */
struct place {
    const char *at;
    size_t values_left, depth;
    bool in_string;
};

static struct place place_of(const struct scan *scan)
{
    return (struct place){scan->at, scan->values_left, scan->depth, scan->in_string};
}

static void go_back(struct scan *scan, struct place place)
{
    scan->at = place.at;
    scan->values_left = place.values_left;
    scan->depth = place.depth;
    scan->in_string = place.in_string;
}

/* Whether all is one valid value. In any case `ahead` stands where it can go on once there is more. */
static bool go_on(struct json_ahead *ahead, const char *text, size_t len)
{
    struct scan *scan = &ahead->scan;
    struct place before;
    bool stepped;
    scan->at = text + ahead->done;
    scan->end = text + len;
    do {
        before = place_of(scan);
        stepped = scan_step(scan);
    } while (stepped && scan->depth > 0);
    if (stepped || !scan->in_string)
        go_back(scan, before);
    ahead->done = (size_t)(scan->at - text);
    return stepped;
}

void json_ahead_look(struct json_ahead *ahead, const char *text, size_t len)
{
    if (!ahead || ahead->misses == AHEAD_MISSES_MAX)
        return;
    size_t before = ahead->done;
    go_on(ahead, text, len);
    ahead->misses = ahead->done > before ? 0 : ahead->misses + 1;
}

bool json_scan_rest(const struct json_ahead *ahead, const char *text, size_t len,
                    const struct json_limits *limits)
{
    struct json_ahead last = *ahead;
    return limits->max_depth >= AHEAD_DEPTH_MAX && last.done <= len && go_on(&last, text, len) &&
           SIZE_MAX - last.scan.values_left < limits->max_values;
}
