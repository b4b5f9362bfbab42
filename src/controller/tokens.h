/* Named API tokens, beside the one of DATA_DIR/token: each with a scope and, if wanted, a rate and a bound on calls at the
 * same time.
 *
 * The store has them as settings ("api-token/NAME"), with the hash of their text; the text itself is shown once, when it is
 * made. All of them are in memory, so a look-up is one by hash. With PostgreSQL other controllers hear of a change and read
 * them anew. A token that is revoked while calls run under it lives until the last of them has ended. Loop thread only. */
#pragma once

#include "base/json.h"
#include "base/list.h"
#include "base/string_map.h"
#include "base/text.h"
#include "controller/rate_limit.h"
#include "model/function.h"

struct controller;
struct http_request;

#define TOKENS_MAX 10000

enum token_scope {
    TOKEN_ADMIN,  /* everything that the token of DATA_DIR/token may */
    TOKEN_INVOKE, /* calling functions, and reading an execution by its id */
};

struct token_spec {
    char name[FUNCTION_NAME_MAX + 1];
    char hash[SHA256_HEX_LEN + 1];
    enum token_scope scope;
    double rate_limit;       /* requests a second; 0: no limit */
    int64_t rate_burst;      /* 0: those of a second, at least one */
    int64_t max_concurrency; /* synchronous calls at the same time; 0: no bound */
    int64_t created_at_ns;   /* wall clock */
};

struct token {
    struct token_spec spec;
    struct rate rate;
    size_t calls; /* synchronous ones under way; each is a reference */
    bool revoked; /* in no map any more */
    bool seen;    /* while all are read anew */
    struct list link;
};

struct tokens {
    struct string_map by_name, by_hash; /* struct token, owned by `all` */
    struct list all;                    /* with revoked ones whose calls run */
    uint64_t revoked_ns;                /* monotonic: when one was last revoked; 0: never */
};

void tokens_init(struct tokens *tokens);
void tokens_deinit(struct tokens *tokens);
/* Blocking, at start-up. */
int tokens_load(struct controller *controller, struct error *err);
/* Reads them anew: another controller may have changed them. */
void tokens_refresh(struct controller *controller);

/* NULL: none. */
struct token *tokens_find(const struct tokens *tokens, const char *hash);
/* Of the request's Authorization header; NULL when it has no named one. */
struct token *tokens_of_request(const struct controller *controller,
                                const struct http_request *request);
/* A new one, or new limits for one that is known. -1 only when out of memory. */
int tokens_put(struct tokens *tokens, const struct token_spec *spec, struct error *err);
void tokens_revoke(struct tokens *tokens, struct token *token);
void token_take_call(struct token *token);
void token_give_call(struct token *token);

/* What a user sent, without the hash. */
int token_spec_read_request(const struct json *value, struct token_spec *spec, struct error *err);
/* What token_spec_to_setting() wrote. */
int token_spec_read_stored(const struct json *value, struct token_spec *spec, struct error *err);
/* What users are shown, members only. */
void token_spec_write_members(struct json_writer *writer, const struct token_spec *spec);
/* As it is stored; malloc'd. */
char *token_spec_to_setting(const struct token_spec *spec, struct error *err);
/* The setting's name; out: TOKEN_SETTING_NAME_SIZE. */
#define TOKEN_SETTING_PREFIX "api-token/"
#define TOKEN_SETTING_NAME_SIZE (sizeof(TOKEN_SETTING_PREFIX) + FUNCTION_NAME_MAX)
void token_setting_name(const char *name, char out[TOKEN_SETTING_NAME_SIZE]);
