/* A function's definition as an object: its defaults, its life, the names of its choices. */
#include "model/function.h"

#include "base/cleanup.h"

#include <stdlib.h>
#include <string.h>

static const struct {
    const char *name;
    const char *image;
} runtimes[RUNTIME_COUNT] = {
    [RUNTIME_PYTHON] = {"python", "faas-runtime-python:latest"},
    [RUNTIME_NODEJS] = {"nodejs", "faas-runtime-nodejs:latest"},
    [RUNTIME_GO] = {"go", "faas-runtime-go:latest"},
    [RUNTIME_NATIVE] = {"native", "faas-runtime-native:latest"},
};

void function_spec_init(struct function_spec *spec)
{
    *spec = (struct function_spec){
        .memory_mb = 128,
        .cpus = 1.0,
        .timeout_ms = 30000,
        .tmp_mb = 64,
        .pids = 64,
        .concurrency = 1,
        .keep_alive_ms = -1,
        .retry = {.max_attempts = 1, .backoff_ms = 1000, .max_age_ms = 24 * 3600 * 1000}};
}

static void key_values_deinit(struct key_values *pairs)
{
    for (size_t i = 0; i < pairs->count; i++) {
        free(pairs->items[i].key);
        free(pairs->items[i].value);
    }
    free(pairs->items);
}

void function_spec_deinit(struct function_spec *spec)
{
    free(spec->name);
    free(spec->image);
    free(spec->handler);
    free(spec->callback_url);
    if (spec->callback_secret)
        explicit_bzero(spec->callback_secret, strlen(spec->callback_secret));
    free(spec->callback_secret);
    free(spec->code_sha256);
    free(spec->artifact_sha256);
    free(spec->artifact_arch);
    key_values_deinit(&spec->env);
    key_values_deinit(&spec->labels);
    labels_deinit(&spec->requires);
    destinations_deinit(&spec->network_allow);
    function_spec_init(spec);
}

/* False only when out of memory. */
static bool copy_string(char **to, const char *from)
{
    *to = from ? strdup(from) : NULL;
    return *to || !from;
}

static bool copy_key_values(struct key_values *to, const struct key_values *from)
{
    *to = (struct key_values){0};
    if (from->count == 0)
        return true;
    to->items = calloc(from->count, sizeof(*to->items));
    if (!to->items)
        return false;
    for (size_t i = 0; i < from->count; i++) {
        to->count = i + 1;
        if (!copy_string(&to->items[i].key, from->items[i].key) ||
            !copy_string(&to->items[i].value, from->items[i].value))
            return false;
    }
    return true;
}

int function_spec_copy(struct function_spec *to, const struct function_spec *from,
                       struct error *err)
{
    struct function_spec copy = *from;
    /* All of them, so that what failed is NULL and the copy can be freed as it is. */
    bool complete = copy_string(&copy.name, from->name);
    complete &= copy_string(&copy.image, from->image);
    complete &= copy_string(&copy.handler, from->handler);
    complete &= copy_string(&copy.callback_url, from->callback_url);
    complete &= copy_string(&copy.callback_secret, from->callback_secret);
    complete &= copy_string(&copy.code_sha256, from->code_sha256);
    complete &= copy_string(&copy.artifact_sha256, from->artifact_sha256);
    complete &= copy_key_values(&copy.env, &from->env);
    complete &= copy_key_values(&copy.labels, &from->labels);
    complete &= copy_string(&copy.artifact_arch, from->artifact_arch);
    complete &= labels_copy(&copy.requires, &from->requires) == 0;
    complete &= destinations_copy(&copy.network_allow, &from->network_allow) == 0;
    if (!complete) {
        function_spec_deinit(&copy);
        return error_set(err, ERROR_INTERNAL, "out of memory");
    }
    *to = copy;
    return 0;
}

const char *function_runtime_name(enum function_runtime runtime)
{
    return runtimes[runtime].name;
}

const char *function_runtime_default_image(enum function_runtime runtime)
{
    return runtimes[runtime].image;
}

int function_runtime_parse(const char *text, enum function_runtime *ret, struct error *err)
{
    for (int i = 0; i < RUNTIME_COUNT; i++)
        if (strcmp(text, runtimes[i].name) == 0) {
            *ret = (enum function_runtime)i;
            return 0;
        }
    return error_set_field(err, ERROR_INVALID_REQUEST, "/runtime",
                           "runtime must be python, nodejs, go or native, not \"%.64s\"", text);
}

const char *function_contract_name(enum function_contract contract)
{
    return contract == CONTRACT_HANDLER ? "handler" : "process";
}

const char *function_network_name(enum function_network network)
{
    return network == NETWORK_NONE ? "none" : "bridge";
}

const char *function_state_name(enum function_state state)
{
    static const char *const names[] = {
        [FUNCTION_BUILDING] = "building", [FUNCTION_READY] = "ready", [FUNCTION_FAILED] = "failed"};
    return names[state];
}
