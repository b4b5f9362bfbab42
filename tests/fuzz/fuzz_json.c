/* JSON: any bytes are refused or become a tree; a tree that is written reads back, and is written the same again. The fast check
 * accepts nothing that the parser refuses. */
#include "base/cleanup.h"
#include "base/json_tree.h"

#include <stdint.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void write_again(const struct json *value, struct buffer *out)
{
    struct json_writer *writer = json_writer_new(out);
    if (!writer)
        abort();
    json_write_value(writer, value);
    struct error err;
    if (json_writer_finish(writer, &err) < 0)
        abort();
}

static void check_lookups(const struct json *value)
{
    json_foreach (i, member, value) {
        const char *key = json_key_at(value, i);
        if (key && json_get(value, key) != member)
            abort();
        check_lookups(member); /* no deeper than the parser's limit */
    }
}

/* Looked at in pieces, each a byte longer than the one before. */
static int check_in_pieces(const char *text, size_t size, const struct json_limits *limits)
{
    struct json_ahead *ahead = json_ahead_new();
    size_t step = size ? (unsigned char)text[0] % 7 : 0;
    for (size_t at = 0; at < size; at += ++step) {
        autofree char *copy = malloc(at + 1); /* so that a look beyond what has come is seen */
        if (!copy)
            abort();
        memcpy(copy, text, at);
        json_ahead_look(ahead, copy, at);
    }
    int check = json_check_ahead(ahead, text, size, limits, NULL);
    json_ahead_free(ahead);
    return check;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *text = (const char *)data;
    struct json_limits limits = {.max_depth = 20, .max_values = 5000};
    struct error err = {0};
    int check = json_check(text, size, &limits, NULL);
    if (check != json_check_by_parser(text, size, &limits, NULL))
        abort();
    struct json_limits deep = {.max_depth = 200, .max_values = 5000};
    if (check_in_pieces(text, size, &deep) != json_check_by_parser(text, size, &deep, NULL))
        abort();
    autojson *value = json_parse(text, size, &limits, &err);
    if (!value) {
        if (!err.message[0])
            abort();
        return 0;
    }
    if (check < 0)
        abort();
    check_lookups(value);

    with_cleanup(buffer_deinit) struct buffer first = BUFFER_INIT(1 << 26);
    with_cleanup(buffer_deinit) struct buffer second = BUFFER_INIT(1 << 26);
    write_again(value, &first);
    autojson *again =
        json_parse(first.data, first.len, &(struct json_limits){.max_bytes = 1 << 26}, &err);
    if (!again)
        abort();
    write_again(again, &second);
    if (first.len != second.len || memcmp(first.data, second.data, first.len) != 0)
        abort();
    return 0;
}
