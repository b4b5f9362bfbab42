/* Named API tokens in memory: see tokens.h. Their JSON is in token_spec.c. */
#include "controller/tokens.h"

#include "base/cleanup.h"
#include "base/log.h"
#include "base/loop.h"
#include "controller/auth.h"
#include "controller/controller.h"

#include <stdlib.h>
#include <string.h>

void tokens_init(struct tokens *tokens)
{
    *tokens = (struct tokens){0};
    list_init(&tokens->all);
}

void tokens_deinit(struct tokens *tokens)
{
    string_map_deinit(&tokens->by_name);
    string_map_deinit(&tokens->by_hash);
    list_for_each(link, &tokens->all) free(list_entry(link, struct token, link));
    list_init(&tokens->all);
}

struct token *tokens_find(const struct tokens *tokens, const char *hash)
{
    return string_map_get(&tokens->by_hash, hash);
}

struct token *tokens_of_request(const struct controller *controller,
                                const struct http_request *request)
{
    char hash[SHA256_HEX_LEN + 1];
    if (controller->tokens.by_hash.count == 0 ||
        auth_hash(http_request_header(request, "Authorization"), hash, NULL) < 0)
        return NULL;
    return tokens_find(&controller->tokens, hash);
}

/* ---- their life ---- */

static void free_token(struct token *token)
{
    list_remove(&token->link);
    free(token);
}

void tokens_revoke(struct tokens *tokens, struct token *token)
{
    string_map_remove(&tokens->by_name, token->spec.name);
    string_map_remove(&tokens->by_hash, token->spec.hash);
    token->revoked = true;
    tokens->revoked_ns = clock_monotonic_ns();
    if (token->calls == 0)
        free_token(token);
}

void token_take_call(struct token *token)
{
    token->calls++;
}

void token_give_call(struct token *token)
{
    if (--token->calls == 0 && token->revoked)
        free_token(token);
}

static int add(struct tokens *tokens, const struct token_spec *spec, struct token **ret,
               struct error *err)
{
    struct token *token = calloc(1, sizeof(*token));
    if (!token)
        return error_set(err, ERROR_INTERNAL, "out of memory");
    token->spec = *spec;
    if (string_map_put(&tokens->by_name, token->spec.name, token, err) < 0) {
        free(token);
        return -1;
    }
    if (string_map_put(&tokens->by_hash, token->spec.hash, token, err) < 0) {
        string_map_remove(&tokens->by_name, token->spec.name);
        free(token);
        return -1;
    }
    list_append(&tokens->all, &token->link);
    *ret = token;
    return 0;
}

int tokens_put(struct tokens *tokens, const struct token_spec *spec, struct error *err)
{
    struct token *token = string_map_get(&tokens->by_name, spec->name);
    if (token && strcmp(token->spec.hash, spec->hash) != 0) {
        tokens_revoke(tokens, token);
        token = NULL;
    }
    if (!token && add(tokens, spec, &token, err) < 0)
        return -1;
    token->seen = true;
    rate_set(&token->rate, spec->rate_limit, (uint64_t)spec->rate_burst);
    return 0;
}

/* ---- all of them ---- */

static int read_setting(const struct store_setting *setting, struct token_spec *spec,
                        struct error *err)
{
    autojson *value = json_parse(setting->value, strlen(setting->value), NULL, err);
    return value ? token_spec_read_stored(value, spec, err) : -1;
}

static void put_setting(struct tokens *tokens, const struct store_setting *setting)
{
    struct error err = {0};
    struct token_spec spec = {0};
    if (read_setting(setting, &spec, &err) < 0 || tokens_put(tokens, &spec, &err) < 0)
        log_error("an API token cannot be used", LOG_STR("token", setting->name), LOG_ERR(&err));
}

static void all_came(void *data, const struct store_setting *settings, size_t count,
                     const struct error *err)
{
    struct tokens *tokens = data;
    if (err) {
        log_warn("the API tokens cannot be read", LOG_ERR(err));
        return;
    }
    list_for_each(link, &tokens->all) list_entry(link, struct token, link)->seen = false;
    for (size_t i = 0; i < count; i++)
        put_setting(tokens, &settings[i]);
    list_for_each(link, &tokens->all)
    {
        struct token *token = list_entry(link, struct token, link);
        if (!token->seen && !token->revoked)
            tokens_revoke(tokens, token);
    }
}

int tokens_load(struct controller *controller, struct error *err)
{
    if (store_load_settings(controller->store, TOKEN_SETTING_PREFIX, all_came, &controller->tokens,
                            err) < 0)
        return error_wrap(err, "reading the API tokens");
    return 0;
}

void tokens_refresh(struct controller *controller)
{
    store_read_settings(controller->store, TOKEN_SETTING_PREFIX, all_came, &controller->tokens);
}
