/* A named API token as users send it, and as the store has it: what is accepted keeps the rules, and survives being stored. */
#include "base/cleanup.h"
#include "controller/tokens.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool condition)
{
    if (!condition)
        abort();
}

static void check_rules(const struct token_spec *spec)
{
    require(function_name_valid(spec->name));
    require(spec->rate_limit == 0 || spec->rate_limit >= FUNCTION_RATE_MIN);
    require(spec->rate_limit <= FUNCTION_RATE_MAX && spec->rate_burst >= 0);
    require(spec->max_concurrency >= 0 && spec->max_concurrency <= FUNCTION_CONCURRENCY_MAX);
}

static void check_stored(const struct token_spec *spec)
{
    struct token_spec whole = *spec, again;
    char name[TOKEN_SETTING_NAME_SIZE];
    sha256_hex(spec->name, strlen(spec->name), whole.hash);
    whole.created_at_ns = 1;
    autofree char *text = token_spec_to_setting(&whole, NULL);
    require(text != NULL);
    autojson *value = json_parse(text, strlen(text), NULL, NULL);
    require(value && token_spec_read_stored(value, &again, NULL) == 0);
    require(strcmp(again.name, spec->name) == 0 && strcmp(again.hash, whole.hash) == 0);
    require(again.rate_limit == spec->rate_limit && again.rate_burst == spec->rate_burst);
    require(again.scope == spec->scope && again.max_concurrency == spec->max_concurrency);
    token_setting_name(spec->name, name);
    require(strcmp(name + strlen(TOKEN_SETTING_PREFIX), spec->name) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    autojson *value = json_parse((const char *)data, size, NULL, NULL);
    if (!value)
        return 0;
    struct token_spec spec, stored;
    struct error err = {0};
    if (token_spec_read_request(value, &spec, &err) == 0) {
        check_rules(&spec);
        check_stored(&spec);
    } else {
        require(err.message[0] && !strchr(err.message, '\n'));
    }
    if (token_spec_read_stored(value, &stored, NULL) == 0)
        check_rules(&stored);
    return 0;
}
