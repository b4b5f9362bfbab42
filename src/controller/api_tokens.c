/* /v1/tokens: named API tokens, made, listed and revoked. Their text is in the answer to their making, and nowhere else. */
#include "base/cleanup.h"
#include "base/log.h"
#include "controller/controller.h"
#include "controller/handlers.h"

#include <stdlib.h>
#include <string.h>

/* A change that waits for the store. */
struct token_change {
    struct controller *controller;
    struct http_request *request;
    struct token_spec spec;
    char text[2 * RANDOM_ID_LEN + 1];
};

static void end(struct token_change *change)
{
    change->controller->pending_reads--;
    explicit_bzero(change->text, sizeof(change->text));
    free(change);
}

static struct token_change *begin(struct controller *controller, struct http_request *request)
{
    struct error err = {0};
    struct token_change *change = calloc(1, sizeof(*change));
    if (!change) {
        error_set(&err, ERROR_INTERNAL, "out of memory");
        http_respond_error(request, &err);
        return NULL;
    }
    change->controller = controller;
    change->request = request;
    controller->pending_reads++;
    return change;
}

/* ---- making one ---- */

static int read_request(const struct http_request *request, struct token_spec *spec,
                        struct error *err)
{
    size_t len = 0;
    const char *body = http_request_body(request, &len);
    autojson *value = json_parse(len ? body : "", len, NULL, err);
    return value ? token_spec_read_request(value, spec, err) : -1;
}

static int check_new(const struct tokens *tokens, const char *name, struct error *err)
{
    if (string_map_get(&tokens->by_name, name))
        return error_set(err, ERROR_CONFLICT,
                         "there is a token %s already; revoke it first, or choose another name",
                         name);
    if (tokens->by_name.count >= TOKENS_MAX)
        return error_set(err, ERROR_CONFLICT, "there are %d tokens, which is the most that may be",
                         TOKENS_MAX);
    return 0;
}

static void respond_made(struct http_request *request, const struct token_change *change)
{
    struct json_answer answer;
    if (json_answer_begin(&answer, request) < 0)
        return;
    json_object_begin(answer.writer);
    token_spec_write_members(answer.writer, &change->spec);
    json_member_string(answer.writer, "token", change->text);
    json_object_end(answer.writer);
    json_answer_respond(&answer, request, 201);
}

static void made(void *data, const struct error *err)
{
    struct token_change *change = data;
    struct error failure = {0};
    if (err)
        failure = *err;
    else
        tokens_put(&change->controller->tokens, &change->spec, &failure);
    if (failure.code == ERROR_CONFLICT)
        error_set(&failure, ERROR_CONFLICT, "there is a token %s already", change->spec.name);
    if (failure.code) {
        http_respond_error(change->request, &failure);
    } else {
        log_info("an API token was made", LOG_STR("token", change->spec.name));
        respond_made(change->request, change);
    }
    end(change);
}

/* Takes the change. */
static void store_token(struct token_change *change)
{
    struct error err = {0};
    char name[TOKEN_SETTING_NAME_SIZE];
    random_id(change->text);
    random_id(change->text + RANDOM_ID_LEN);
    sha256_hex(change->text, strlen(change->text), change->spec.hash);
    change->spec.created_at_ns = (int64_t)clock_realtime_ns();
    autofree char *value = token_spec_to_setting(&change->spec, &err);
    if (!value) {
        http_respond_error(change->request, &err);
        end(change);
        return;
    }
    token_setting_name(change->spec.name, name);
    store_add_setting(change->controller->store, name, value, made, change);
}

void serve_create_token(struct http_request *request, void *data)
{
    struct controller *controller = data;
    struct error err = {0};
    struct token_spec spec;
    if (read_request(request, &spec, &err) < 0 ||
        check_new(&controller->tokens, spec.name, &err) < 0) {
        http_respond_error(request, &err);
        return;
    }
    struct token_change *change = begin(controller, request);
    if (!change)
        return;
    change->spec = spec;
    store_token(change);
}

/* ---- list ---- */

static int by_name(const void *a, const void *b)
{
    const struct token *const *one = a, *const *other = b;
    return strcmp((*one)->spec.name, (*other)->spec.name);
}

static void write_tokens(struct json_writer *writer, const struct token *const *sorted,
                         size_t count)
{
    json_object_begin(writer);
    json_key(writer, "tokens");
    json_array_begin(writer);
    for (size_t i = 0; i < count; i++) {
        json_object_begin(writer);
        token_spec_write_members(writer, &sorted[i]->spec);
        json_object_end(writer);
    }
    json_array_end(writer);
    json_object_end(writer);
}

void serve_list_tokens(struct http_request *request, void *data)
{
    const struct controller *controller = data;
    const struct string_map *all = &controller->tokens.by_name;
    struct error err = {0};
    struct json_answer answer;
    size_t count = 0;
    autofree const struct token **sorted = calloc(all->count + 1, sizeof(*sorted));
    if (!sorted) {
        error_set(&err, ERROR_INTERNAL, "out of memory");
        http_respond_error(request, &err);
        return;
    }
    string_map_for_each(slot, all) sorted[count++] = slot->value;
    qsort(sorted, count, sizeof(*sorted), by_name);
    if (json_answer_begin(&answer, request) < 0)
        return;
    write_tokens(answer.writer, sorted, count);
    json_answer_respond(&answer, request, 200);
}

/* ---- revoking one ---- */

static void revoked(void *data, const struct error *err)
{
    struct token_change *change = data;
    struct tokens *tokens = &change->controller->tokens;
    if (err) {
        http_respond_error(change->request, err);
        end(change);
        return;
    }
    struct token *token = string_map_get(&tokens->by_name, change->spec.name);
    if (token)
        tokens_revoke(tokens, token);
    log_info("an API token was revoked", LOG_STR("token", change->spec.name));
    http_respond(change->request, 204, NULL, NULL, 0, NULL, 0);
    end(change);
}

void serve_delete_token(struct http_request *request, void *data)
{
    struct controller *controller = data;
    const char *name = http_request_param(request, "name");
    struct error err = {0};
    char setting[TOKEN_SETTING_NAME_SIZE];
    struct token *token = string_map_get(&controller->tokens.by_name, name);
    if (!token) {
        error_set(&err, ERROR_NOT_FOUND, "there is no token %.80s", name);
        http_respond_error(request, &err);
        return;
    }
    struct token_change *change = begin(controller, request);
    if (!change)
        return;
    change->spec = token->spec;
    token_setting_name(change->spec.name, setting);
    store_put_setting(controller->store, setting, NULL, revoked, change);
}
