/* From JSON text to a tree: yajl reports what it reads, this file counts it against the limits and
 * builds.
 *
 * Values that are complete wait on one stack; the end of an array or object moves its own from
 * there to the arena. So nothing here recurses, and the depth is refused before yajl's own stack of
 * states grows.
 *
 * What yajl does not do itself: strict UTF-8 (it lets overlong forms and surrogates through), pairs
 * of \u surrogates, duplicate keys, limits, positions as line and byte. */
#include "base/json_tree.h"

#include "base/cleanup.h"
#include "base/text.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <yajl/yajl_parse.h>

#define DEFAULT_MAX_BYTES ((size_t)8 * 1024 * 1024)
#define DEFAULT_MAX_DEPTH 64
#define DEFAULT_MAX_VALUES 100000
#define NUMBER_LEN_MAX 1000
#define CHUNK_MIN 1024
#define CHUNK_MAX 65536

struct chunk {
    struct chunk *next;
    size_t used, size;
    _Alignas(16) char data[];
};

struct document {
    struct json root; /* first: json_free() gets its address */
    struct chunk *chunks;
};

/* A value that is complete, or an object's key waiting for its value. */
struct entry {
    struct json value;
    const char *key;
};

struct level {
    bool is_object;
    size_t first; /* its values are entries[first …] */
};

struct parse {
    const char *text;
    size_t len;
    struct json_limits limits;
    struct error *err;
    yajl_handle yajl;
    bool at_end;               /* all text was given to yajl */
    struct document *document; /* NULL: only checked */
    struct entry *entries;
    size_t entry_count, entry_cap;
    struct level *levels; /* NULL: only checked */
    size_t depth;
    size_t value_count;
    const char *key; /* of the value that comes next */
};

/* ---- errors: all callbacks return 1 to go on and 0 to stop ---- */

/* Like error_set(), with the position before it. */
__attribute__((format(printf, 4, 5))) static int
fail_at(struct parse *parse, size_t at, enum error_code code, const char *format, ...)
{
    char message[400];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(message, sizeof(message), format, arguments);
    va_end(arguments);

    size_t line = 1, start = 0;
    for (size_t i = 0; i < at && i < parse->len; i++)
        if (parse->text[i] == '\n') {
            line++;
            start = i + 1;
        }
    error_set(parse->err, code, "JSON at line %zu, byte %zu: %s", line, at - start + 1, message);
    return 0;
}

/* Of the last byte that yajl has looked at. At the end it looks at a chunk of its own. */
static size_t position(const struct parse *parse)
{
    size_t consumed = parse->at_end ? parse->len : yajl_get_bytes_consumed(parse->yajl);
    return consumed > 0 ? consumed - 1 : 0;
}

static int fail_memory(struct parse *parse)
{
    error_set(parse->err, ERROR_INTERNAL, "out of memory for JSON of %zu bytes", parse->len);
    return 0;
}

/* ---- arena ---- */

static void *arena_take(struct document *document, size_t size)
{
    size = (size + 7) & ~(size_t)7;
    struct chunk *chunk = document->chunks;
    if (!chunk || chunk->size - chunk->used < size) {
        size_t next = chunk ? chunk->size * 2 : CHUNK_MIN;
        next = next > CHUNK_MAX ? CHUNK_MAX : next;
        next = next < size ? size : next;
        chunk = malloc(sizeof(*chunk) + next);
        if (!chunk)
            return NULL;
        *chunk = (struct chunk){.next = document->chunks, .size = next};
        document->chunks = chunk;
    }
    void *taken = chunk->data + chunk->used;
    chunk->used += size;
    return taken;
}

static char *arena_copy(struct document *document, const char *text, size_t len)
{
    char *copy = arena_take(document, len + 1);
    if (copy) {
        memcpy(copy, text, len);
        copy[len] = '\0';
    }
    return copy;
}

void json_free(struct json *root)
{
    struct document *document = (struct document *)root;
    if (!document)
        return;
    while (document->chunks) {
        struct chunk *next = document->chunks->next;
        free(document->chunks);
        document->chunks = next;
    }
    free(document);
}

/* ---- what yajl reports ---- */

static int count_value(struct parse *parse)
{
    if (++parse->value_count > parse->limits.max_values)
        return fail_at(parse, position(parse), ERROR_INVALID_REQUEST, "more than %zu values",
                       parse->limits.max_values);
    return 1;
}

static int push(struct parse *parse, struct json value)
{
    if (parse->entry_count == parse->entry_cap) {
        size_t cap = parse->entry_cap ? 2 * parse->entry_cap : 32;
        struct entry *entries = reallocarray(parse->entries, cap, sizeof(*entries));
        if (!entries)
            return fail_memory(parse);
        parse->entries = entries;
        parse->entry_cap = cap;
    }
    parse->entries[parse->entry_count++] = (struct entry){.value = value, .key = parse->key};
    parse->key = NULL;
    return 1;
}

static int on_null(void *data)
{
    struct parse *parse = data;
    if (!count_value(parse))
        return 0;
    return parse->document ? push(parse, (struct json){.type = JSON_NULL}) : 1;
}

static int on_boolean(void *data, int boolean)
{
    struct parse *parse = data;
    if (!count_value(parse))
        return 0;
    if (!parse->document)
        return 1;
    return push(parse, (struct json){.type = JSON_BOOL, .boolean = boolean != 0});
}

static int push_real(struct parse *parse, double value, const char *text, size_t len)
{
    struct json_real *real = arena_take(parse->document, sizeof(*real));
    if (!real || !(real->text = arena_copy(parse->document, text, len)))
        return fail_memory(parse);
    real->value = value;
    return push(parse, (struct json){.type = JSON_NUMBER, .real = real});
}

static int on_number(void *data, const char *text, size_t len)
{
    struct parse *parse = data;
    char copy[NUMBER_LEN_MAX + 1];
    if (!count_value(parse))
        return 0;
    if (len > NUMBER_LEN_MAX)
        return fail_at(parse, position(parse), ERROR_INVALID_REQUEST,
                       "a number of %zu characters; at most %d are allowed", len, NUMBER_LEN_MAX);
    memcpy(copy, text, len);
    copy[len] = '\0';

    if (!strpbrk(copy, ".eE")) {
        errno = 0;
        int64_t integer = strtoll(copy, NULL, 10);
        if (errno == 0)
            return parse->document
                       ? push(parse,
                              (struct json){.type = JSON_NUMBER, .count = 1, .integer = integer})
                       : 1;
    }
    double value = strtod(copy, NULL);
    if (!isfinite(value))
        return fail_at(parse, position(parse), ERROR_INVALID_REQUEST,
                       "the number %.40s is out of range (at most about 1.8e308)", copy);
    return parse->document ? push_real(parse, value, text, len) : 1;
}

static int on_string(void *data, const unsigned char *text, size_t len)
{
    struct parse *parse = data;
    if (!count_value(parse))
        return 0;
    if (!parse->document)
        return 1;
    char *copy = arena_copy(parse->document, (const char *)text, len);
    if (!copy)
        return fail_memory(parse);
    return push(parse, (struct json){.type = JSON_STRING, .count = (uint32_t)len, .string = copy});
}

static int on_key(void *data, const unsigned char *text, size_t len)
{
    struct parse *parse = data;
    if (memchr(text, '\0', len))
        return fail_at(parse, position(parse), ERROR_INVALID_REQUEST,
                       "a key must not contain the NUL character");
    if (!parse->document)
        return 1;
    parse->key = arena_copy(parse->document, (const char *)text, len);
    return parse->key ? 1 : fail_memory(parse);
}

static int begin(struct parse *parse, bool is_object)
{
    if (!count_value(parse))
        return 0;
    if (parse->depth == parse->limits.max_depth)
        return fail_at(parse, position(parse), ERROR_INVALID_REQUEST,
                       "nested more than %zu levels deep", parse->limits.max_depth);
    if (parse->document) {
        /* The entry holds the key until the end fills in the value. */
        if (!push(parse, (struct json){.type = is_object ? JSON_OBJECT : JSON_ARRAY}))
            return 0;
        parse->levels[parse->depth] =
            (struct level){.is_object = is_object, .first = parse->entry_count};
    }
    parse->depth++;
    return 1;
}

static int on_begin_object(void *data)
{
    return begin(data, true);
}

static int on_begin_array(void *data)
{
    return begin(data, false);
}

static int compare_pairs(const void *a, const void *b, void *pairs)
{
    const struct json_pair *base = pairs;
    return strcmp(base[*(const uint32_t *)a].key, base[*(const uint32_t *)b].key);
}

static int check_duplicates(struct parse *parse, const struct json_pair *pairs,
                            const uint32_t *by_key, size_t count)
{
    for (size_t i = 1; i < count; i++)
        if (strcmp(pairs[by_key[i - 1]].key, pairs[by_key[i]].key) == 0)
            return fail_at(parse, position(parse), ERROR_INVALID_REQUEST,
                           "the object that ends here has the key \"%.100s\" twice",
                           pairs[by_key[i]].key);
    return 1;
}

static int build_object(struct parse *parse, const struct entry *entries, size_t count,
                        struct json *value)
{
    struct document *document = parse->document;
    struct json_object *object = arena_take(document, sizeof(*object));
    struct json_pair *pairs = arena_take(document, count * sizeof(*pairs));
    uint32_t *by_key = arena_take(document, count * sizeof(*by_key));
    if (!object || !pairs || !by_key)
        return fail_memory(parse);
    for (size_t i = 0; i < count; i++) {
        pairs[i] = (struct json_pair){.value = entries[i].value, .key = entries[i].key};
        by_key[i] = (uint32_t)i;
    }
    qsort_r(by_key, count, sizeof(*by_key), compare_pairs, pairs);
    if (!check_duplicates(parse, pairs, by_key, count))
        return 0;
    *object = (struct json_object){.pairs = pairs, .by_key = by_key};
    value->object = object;
    return 1;
}

static int build_array(struct parse *parse, const struct entry *entries, size_t count,
                       struct json *value)
{
    struct json *items = arena_take(parse->document, count * sizeof(*items));
    if (!items)
        return fail_memory(parse);
    for (size_t i = 0; i < count; i++)
        items[i] = entries[i].value;
    value->items = items;
    return 1;
}

static int on_end(void *data)
{
    struct parse *parse = data;
    parse->depth--;
    if (!parse->document)
        return 1;
    const struct level *level = &parse->levels[parse->depth];
    struct json *value = &parse->entries[level->first - 1].value;
    const struct entry *entries = &parse->entries[level->first];
    size_t count = parse->entry_count - level->first;
    parse->entry_count = level->first;
    value->count = (uint32_t)count;
    return level->is_object ? build_object(parse, entries, count, value)
                            : build_array(parse, entries, count, value);
}

/* ---- checks before yajl ---- */

/* The four hexadecimal digits of a \u escape; -1 when there are none (yajl then says what is
 * wrong). */
static int escape_value(const char *at, size_t left)
{
    int value = 0;
    if (left < 6 || at[0] != '\\' || at[1] != 'u')
        return -1;
    for (int i = 2; i < 6; i++) {
        char c = at[i];
        int digit = c >= '0' && c <= '9' ? c - '0' : (c | 0x20) - 'a' + 10;
        if (digit < 0 || digit > 15 || (digit > 9 && (c | 0x20) > 'f'))
            return -1;
        value = value * 16 + digit;
    }
    return value;
}

/* A backslash is valid inside strings only, so the whole text can be searched without knowing where
 * strings are. */
static int check_surrogates(struct parse *parse)
{
    const char *end = parse->text + parse->len;
    for (const char *at = parse->text; (at = memchr(at, '\\', (size_t)(end - at)));) {
        int value = escape_value(at, (size_t)(end - at));
        if (value < 0xD800 || value > 0xDFFF) {
            at += end - at > 2 ? 2 : end - at;
            continue;
        }
        int low = value < 0xDC00 ? escape_value(at + 6, (size_t)(end - at - 6)) : -1;
        if (low < 0xDC00 || low > 0xDFFF)
            return fail_at(parse, (size_t)(at - parse->text), ERROR_INVALID_REQUEST,
                           "\\u%04x is half of a surrogate pair; the other half is missing", value);
        at += 12;
    }
    return 1;
}

static int check_bytes(struct parse *parse)
{
    if (parse->len > parse->limits.max_bytes) {
        error_set(parse->err, ERROR_PAYLOAD_TOO_LARGE, "JSON must be at most %zu bytes, not %zu",
                  parse->limits.max_bytes, parse->len);
        return 0;
    }
    size_t valid = utf8_valid_len(parse->text, parse->len);
    if (valid < parse->len)
        return fail_at(parse, valid, ERROR_INVALID_REQUEST, "byte 0x%02x is not valid UTF-8",
                       (unsigned char)parse->text[valid]);
    return check_surrogates(parse);
}

/* ---- running it ---- */

static const yajl_callbacks callbacks = {
    .yajl_null = on_null,
    .yajl_boolean = on_boolean,
    .yajl_number = on_number,
    .yajl_string = on_string,
    .yajl_start_map = on_begin_object,
    .yajl_map_key = on_key,
    .yajl_end_map = on_end,
    .yajl_start_array = on_begin_array,
    .yajl_end_array = on_end,
};

static int fail_syntax(struct parse *parse)
{
    unsigned char *yajl_text = yajl_get_error(parse->yajl, 0, NULL, 0);
    const char *reason = yajl_text ? (const char *)yajl_text : "syntax error";
    size_t len = strcspn(reason, "\n");
    while (len > 0 && reason[len - 1] == '.')
        len--;
    fail_at(parse, position(parse), ERROR_INVALID_REQUEST, "%.*s", (int)len, reason);
    if (yajl_text)
        yajl_free_error(parse->yajl, yajl_text);
    return -1;
}

static int run(struct parse *parse)
{
    if (!check_bytes(parse))
        return -1;
    parse->yajl = yajl_alloc(&callbacks, NULL, parse);
    if (!parse->yajl) {
        fail_memory(parse);
        return -1;
    }
    yajl_config(parse->yajl, yajl_dont_validate_strings, 1); /* done by check_bytes() */
    yajl_status status = yajl_parse(parse->yajl, (const unsigned char *)parse->text, parse->len);
    parse->at_end = status == yajl_status_ok;
    if (parse->at_end)
        status = yajl_complete_parse(parse->yajl);
    int result = status == yajl_status_ok ? 0 : -1;
    if (status == yajl_status_error)
        fail_syntax(parse);
    yajl_free(parse->yajl);
    return result;
}

static struct json_limits with_defaults(const struct json_limits *limits)
{
    struct json_limits all = limits ? *limits : (struct json_limits){0};
    all.max_bytes = all.max_bytes ? all.max_bytes : DEFAULT_MAX_BYTES;
    all.max_bytes = all.max_bytes < UINT32_MAX ? all.max_bytes : UINT32_MAX;
    all.max_depth = all.max_depth ? all.max_depth : DEFAULT_MAX_DEPTH;
    all.max_values = all.max_values ? all.max_values : DEFAULT_MAX_VALUES;
    return all;
}

struct json *json_parse(const char *text, size_t len, const struct json_limits *limits,
                        struct error *err)
{
    struct parse parse = {.text = text, .len = len, .limits = with_defaults(limits), .err = err};
    parse.document = calloc(1, sizeof(*parse.document));
    parse.levels = calloc(parse.limits.max_depth, sizeof(*parse.levels));
    int result = -1;
    if (!parse.document || !parse.levels)
        fail_memory(&parse);
    else
        result = run(&parse);
    if (result == 0)
        parse.document->root = parse.entries[0].value;
    free(parse.entries);
    free(parse.levels);
    if (result == 0)
        return &parse.document->root;
    json_free((struct json *)parse.document);
    return NULL;
}

int json_check_by_parser(const char *text, size_t len, const struct json_limits *limits,
                         struct error *err)
{
    struct parse parse = {.text = text, .len = len, .limits = with_defaults(limits), .err = err};
    return run(&parse);
}

bool json_check_quick(const char *text, size_t len, const struct json_limits *limits)
{
    struct json_limits all = with_defaults(limits);
    return len <= all.max_bytes && json_scan(text, len, &all);
}

int json_check(const char *text, size_t len, const struct json_limits *limits, struct error *err)
{
    if (json_check_quick(text, len, limits))
        return 0;
    return json_check_by_parser(text, len, limits, err);
}

int json_check_ahead(const struct json_ahead *ahead, const char *text, size_t len,
                     const struct json_limits *limits, struct error *err)
{
    struct json_limits all = with_defaults(limits);
    if (ahead && len <= all.max_bytes && json_scan_rest(ahead, text, len, &all))
        return 0;
    return json_check(text, len, limits, err);
}
