/* Rows of the store: the columns that are JSON text, and a priority. The first byte chooses. Whatever is read can be written,
 * and what was written is read as the same. */
#include "base/cleanup.h"
#include "store/record.h"

#include <stdint.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool condition)
{
    if (!condition)
        abort();
}

static bool same(const struct buffer *one, const struct buffer *other)
{
    return one->len == other->len &&
           (one->len == 0 || memcmp(one->data, other->data, one->len) == 0);
}

static void try_spec(const char *text, size_t len)
{
    with_cleanup(function_spec_deinit) struct function_spec spec, again;
    with_cleanup(buffer_deinit) struct buffer once = BUFFER_INIT(8 << 20);
    with_cleanup(buffer_deinit) struct buffer twice = BUFFER_INIT(8 << 20);
    struct error err = {0};
    function_spec_init(&spec);
    function_spec_init(&again);
    if (record_read_spec(text, len, &spec, &err) < 0) {
        require(err.message[0] != '\0');
        return;
    }
    require(record_write_spec(&spec, &once, &err) == 0);
    require(record_read_spec(once.data, once.len, &again, &err) == 0);
    require(record_write_spec(&again, &twice, &err) == 0);
    require(same(&once, &twice));
}

/* An execution's error and its metrics, with a NUL between them. */
static void try_details(const char *error, const char *metrics)
{
    with_cleanup(execution_deinit) struct execution execution, again;
    with_cleanup(buffer_deinit) struct buffer first = BUFFER_INIT(2 * RECORD_DETAIL_MAX);
    with_cleanup(buffer_deinit) struct buffer second = BUFFER_INIT(2 * RECORD_DETAIL_MAX);
    execution_init(&execution);
    execution_init(&again);
    if (record_read_details(error, metrics, &execution, NULL) < 0 ||
        record_write_details(&execution, &first, &second, NULL) < 0)
        return;
    require(buffer_append(&first, "", 1, NULL) == 0 && buffer_append(&second, "", 1, NULL) == 0);
    require(record_read_details(first.len > 1 ? first.data : NULL, second.data, &again, NULL) == 0);
    require(again.has_error == execution.has_error);
    require(memcmp(&again.metrics, &execution.metrics, sizeof(again.metrics)) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    size_t len = size - 1;
    autofree char *text = malloc(len + 2);
    if (!text)
        return 0;
    memcpy(text, data + 1, len);
    text[len] = text[len + 1] = '\0';
    if (data[0] % 2 == 0) {
        try_spec(text, len);
    } else {
        size_t first = strlen(text);
        try_details(text, first < len ? text + first + 1 : NULL);
    }
    record_parse_state(text);
    return 0;
}
