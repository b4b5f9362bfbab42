/* What the JSON files share: how a parsed tree lies in memory (json_parse.c makes it, json.c reads it), and the two
 * halves of json_check().
 *
 * Everything is in one arena, freed at once. Arrays and members are contiguous; an object also has
 * the order of its members by key, so that a look-up in a large one is a binary search. */
#pragma once

#include "base/json.h"

/* A number that is no int64_t keeps its text, so that it is written again as it was. */
struct json_real {
    double value;
    const char *text;
};

struct json {
    enum json_type type;
    uint32_t count; /* values in it; bytes of a string; numbers: 1 for an integer, 0 for a real */
    union {
        bool boolean;
        int64_t integer;
        const struct json_real *real;
        const char *string;
        const struct json *items;
        const struct json_object *object;
    };
};

struct json_object {
    const struct json_pair *pairs;
    const uint32_t *by_key; /* indices of `pairs`, sorted */
};

struct json_pair {
    struct json value;
    const char *key; /* NUL-terminated, without NULs inside */
};

/* Whether the text is certainly one valid JSON value within the limits (none of them 0; max_bytes is not looked at). false:
 * perhaps not. */
bool json_scan(const char *text, size_t len, const struct json_limits *limits);
/* The same for what was looked at ahead. */
bool json_scan_rest(const struct json_ahead *ahead, const char *text, size_t len,
                    const struct json_limits *limits);
/* json_check() by the parser alone: slower, certain, and with words for what is wrong. */
int json_check_by_parser(const char *text, size_t len, const struct json_limits *limits,
                         struct error *err);
