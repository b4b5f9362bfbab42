/* A function's definition as users send it: what is accepted keeps the rules, and survives being stored. */
#include "base/cleanup.h"
#include "model/function.h"

#include <stdint.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool condition)
{
    if (!condition)
        abort();
}

static void check_rules(const struct function_spec *spec)
{
    require(function_name_valid(spec->name));
    require(spec->image && spec->image[0] != '/' && !strstr(spec->image, ".."));
    require(!spec->handler || !strstr(spec->handler, ".."));
    require((spec->contract == CONTRACT_HANDLER) == (spec->handler != NULL));
    require(spec->memory_mb >= FUNCTION_MEMORY_MB_MIN && spec->memory_mb <= FUNCTION_MEMORY_MB_MAX);
    require(spec->cpus >= 0.05 && spec->cpus <= 2);
    for (size_t i = 0; i < spec->env.count; i++)
        require(strncmp(spec->env.items[i].key, "FUNCTION_", 9) != 0 &&
                !strchr(spec->env.items[i].key, '='));
}

static void check_stored(const struct function_spec *spec)
{
    with_cleanup(buffer_deinit) struct buffer text = BUFFER_INIT(1 << 20);
    with_cleanup(function_spec_deinit) struct function_spec again, copy;
    function_spec_init(&again);
    require(function_spec_copy(&copy, spec, NULL) == 0);
    struct json_writer *writer = json_writer_new(&text);
    json_object_begin(writer);
    function_spec_write_members(writer, &copy);
    json_object_end(writer);
    require(json_writer_finish(writer, NULL) == 0);
    autojson *value = json_parse(text.data, text.len, NULL, NULL);
    require(value && function_spec_read(value, &again, NULL) == 0);
    require(strcmp(again.name, spec->name) == 0 && again.cpus == spec->cpus);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    autojson *value = json_parse((const char *)data, size, NULL, NULL);
    if (!value)
        return 0;
    with_cleanup(function_spec_deinit) struct function_spec spec, stored;
    struct error err = {0};
    function_spec_init(&stored);
    if (function_spec_read_request(value, NULL, 2.0, &spec, &err) == 0) {
        check_rules(&spec);
        check_stored(&spec);
    } else {
        require(err.message[0] && !strchr(err.message, '\n'));
    }
    function_spec_read(value, &stored, NULL);
    return 0;
}
