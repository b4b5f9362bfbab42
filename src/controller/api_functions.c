/* /v1/functions: create, update, read, list, delete. Changes themselves are in changes.c. */
#include "controller/changes.h"
#include "controller/controller.h"
#include "controller/handlers.h"
#include "controller/refresh.h"

#include <stdlib.h>
#include <string.h>

#define LIST_MAX 1000
#define LIST_DEFAULT 100

void serve_create_function(struct http_request *request, void *data)
{
    changes_create(data, request);
}

void serve_put_function(struct http_request *request, void *data)
{
    changes_put(data, request, http_request_param(request, "name"));
}

void serve_delete_function(struct http_request *request, void *data)
{
    changes_delete(data, request, http_request_param(request, "name"));
}

/* ---- read ---- */

static void respond_function(struct http_request *request, const struct function_entry *function,
                             const char *code_member, const char *code_base64)
{
    struct json_answer answer;
    if (json_answer_begin(&answer, request) < 0)
        return;
    function_write(answer.writer, function, code_member, code_base64);
    json_answer_respond(&answer, request, 200);
}

/* A read that waits for the code from the store. */
struct code_read {
    struct controller *controller;
    struct http_request *request;
    const char *member; /* "code" or "artifact" */
    char name[FUNCTION_NAME_MAX + 1];
};

static void respond_not_found(struct http_request *request, const char *name)
{
    struct error err = {0};
    error_set(&err, ERROR_NOT_FOUND, "there is no function %.80s", name);
    http_respond_error(request, &err);
}

static void code_came(void *data, char *bytes, size_t len, const struct error *err)
{
    struct code_read *read = data;
    struct buffer text = BUFFER_INIT((size_t)1024 * 1024 * 1024);
    struct error failure = {0};
    const struct function_entry *function = registry_find(&read->controller->registry, read->name);
    read->controller->pending_reads--;
    if (!function)
        respond_not_found(read->request, read->name);
    else if (err)
        http_respond_error(read->request, err);
    else if (base64_encode(bytes, len, &text, &failure) < 0)
        http_respond_error(read->request, &failure);
    else
        respond_function(read->request, function, read->member, text.data ? text.data : "");
    buffer_deinit(&text);
    free(bytes);
    free(read);
}

static void respond_with_code(struct controller *controller, struct http_request *request,
                              const struct function_entry *function, const char *member)
{
    struct error err = {0};
    const struct function_spec *spec = &function->newest->record.spec;
    const char *sha256 =
        strcmp(member, "artifact") == 0 ? spec->artifact_sha256 : spec->code_sha256;
    if (!sha256) {
        error_set(&err, ERROR_NOT_READY,
                  "version %lld of function %s has no artifact: it is not built (yet)",
                  (long long)spec->version, function->name);
        http_respond_error(request, &err);
        return;
    }
    struct code_read *read = calloc(1, sizeof(*read));
    if (!read) {
        error_set(&err, ERROR_INTERNAL, "out of memory");
        http_respond_error(request, &err);
        return;
    }
    read->controller = controller;
    read->request = request;
    read->member = member;
    memcpy(read->name, function->name, sizeof(read->name));
    controller->pending_reads++;
    store_get_code(controller->store, sha256, code_came, read);
}

void serve_get_function(struct http_request *request, void *data)
{
    struct controller *controller = data;
    struct error err = {0};
    const char *name = http_request_param(request, "name");
    const char *include = http_request_query(request, "include");
    if (refresh_missing(controller, request, name, serve_get_function))
        return;
    const struct function_entry *function = registry_find(&controller->registry, name);
    bool artifact = include && strcmp(include, "artifact") == 0;
    if (include && !artifact && strcmp(include, "code") != 0) {
        error_set_field(&err, ERROR_INVALID_REQUEST, "include",
                        "include must be \"code\", \"artifact\" or left out, not \"%.40s\"",
                        include);
        http_respond_error(request, &err);
    } else if (!function) {
        respond_not_found(request, name);
    } else if (include) {
        respond_with_code(controller, request, function, artifact ? "artifact" : "code");
    } else {
        respond_function(request, function, NULL, NULL);
    }
}

/* ---- list ---- */

void serve_list_functions(struct http_request *request, void *data)
{
    const struct controller *controller = data;
    const struct registry *registry = &controller->registry;
    struct error err = {0};
    struct json_answer answer;
    int limit;
    if (query_limit(request, LIST_MAX, LIST_DEFAULT, &limit, &err) < 0) {
        http_respond_error(request, &err);
        return;
    }
    if (json_answer_begin(&answer, request) < 0)
        return;
    size_t begin = registry_seek(registry, http_request_query(request, "cursor"));
    size_t end = begin + (size_t)limit;
    if (end > registry->sorted_count)
        end = registry->sorted_count;
    json_object_begin(answer.writer);
    json_key(answer.writer, "functions");
    json_array_begin(answer.writer);
    for (size_t i = begin; i < end; i++)
        function_write(answer.writer, registry->sorted[i], NULL, NULL);
    json_array_end(answer.writer);
    if (end > begin && end < registry->sorted_count)
        json_member_string(answer.writer, "next_cursor", registry->sorted[end - 1]->name);
    json_object_end(answer.writer);
    json_answer_respond(&answer, request, 200);
}
