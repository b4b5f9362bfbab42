/* The API's table: see routes.h. docs/openapi.yaml describes the same calls; a test compares them. */
#include "controller/routes.h"

#include "base/cleanup.h"
#include "controller/admission.h"
#include "controller/controller.h"
#include "controller/handlers.h"

#include <stdlib.h>
#include <string.h>

#define MIB ((size_t)1024 * 1024)
#define SMALL_MAX ((size_t)16 * 1024)

const struct api_route api_routes[] = {
    {"*", "/fn/{name}", serve_invoke_raw, ACCESS_INVOKE_PUBLIC, BODY_PAYLOAD},
    {"POST", "/v1/functions/{name}/invocations", serve_invoke, ACCESS_INVOKE, BODY_PAYLOAD},
    {"POST", "/v1/functions", serve_create_function, ACCESS_USER, BODY_DEFINITION},
    {"GET", "/v1/functions", serve_list_functions, ACCESS_USER, BODY_NONE},
    {"PUT", "/v1/functions/{name}", serve_put_function, ACCESS_USER, BODY_DEFINITION},
    {"GET", "/v1/functions/{name}", serve_get_function, ACCESS_USER, BODY_NONE},
    {"DELETE", "/v1/functions/{name}", serve_delete_function, ACCESS_USER, BODY_NONE},
    {"GET", "/v1/functions/{name}/logs", serve_function_logs, ACCESS_USER, BODY_NONE},
    {"GET", "/v1/executions", serve_list_executions, ACCESS_USER, BODY_NONE},
    {"GET", "/v1/executions/{id}", serve_get_execution, ACCESS_RESULT, BODY_NONE},
    {"GET", "/v1/executions/{id}/logs", serve_execution_logs, ACCESS_RESULT, BODY_NONE},
    {"POST", "/v1/executions/{id}/callback/redrive", serve_redrive_callback, ACCESS_USER,
     BODY_NONE},
    {"GET", "/v1/dead-letters", serve_list_dead_letters, ACCESS_USER, BODY_NONE},
    {"DELETE", "/v1/dead-letters", serve_delete_dead_letters, ACCESS_USER, BODY_NONE},
    {"POST", "/v1/dead-letters/redrive", serve_redrive_dead_letters, ACCESS_USER, BODY_NONE},
    {"GET", "/v1/dead-letters/{id}", serve_get_dead_letter, ACCESS_USER, BODY_NONE},
    {"DELETE", "/v1/dead-letters/{id}", serve_delete_dead_letter, ACCESS_USER, BODY_NONE},
    {"POST", "/v1/dead-letters/{id}/redrive", serve_redrive_dead_letter, ACCESS_USER, BODY_NONE},
    {"POST", "/v1/tokens", serve_create_token, ACCESS_USER, BODY_SMALL},
    {"GET", "/v1/tokens", serve_list_tokens, ACCESS_USER, BODY_NONE},
    {"DELETE", "/v1/tokens/{name}", serve_delete_token, ACCESS_USER, BODY_NONE},
    {"GET", "/v1/workers", serve_workers, ACCESS_USER, BODY_NONE},
    {"POST", "/v1/workers/{name}/drain", serve_drain_worker, ACCESS_USER, BODY_NONE},
    {"DELETE", "/v1/workers/{name}/drain", serve_resume_worker, ACCESS_USER, BODY_NONE},
    {"GET", "/v1/worker/stream", serve_worker_stream, ACCESS_WORKER, BODY_NONE},
    {"GET", "/v1/worker/functions/{name}/{version}", serve_worker_function, ACCESS_WORKER,
     BODY_NONE},
    {"GET", "/v1/worker/code/{sha256}", serve_worker_code, ACCESS_WORKER, BODY_NONE},
    {"GET", "/healthz", serve_health, ACCESS_ANYBODY, BODY_NONE},
    {"GET", "/readyz", serve_ready, ACCESS_ANYBODY, BODY_NONE},
    {"GET", "/metrics", serve_metrics, ACCESS_ANYBODY, BODY_NONE},
    {"GET", "/openapi.yaml", serve_openapi, ACCESS_ANYBODY, BODY_NONE},
};
const size_t api_route_count = ARRAY_LENGTH(api_routes);

static size_t body_max(const struct controller_config *config, enum route_body body)
{
    size_t archive = (size_t)config->archive_max_bytes;
    switch (body) {
    case BODY_DEFINITION: /* code in base64, with line breaks, and the rest */
        return archive / 2 * 3 + MIB;
    case BODY_SMALL:
        return SMALL_MAX;
    case BODY_PAYLOAD:
        return (size_t)config->payload_max_bytes;
    default:
        return 0;
    }
}

struct http_route *routes_make(const struct controller *controller, struct error *err)
{
    struct http_route *routes = calloc(api_route_count, sizeof(*routes));
    if (!routes) {
        error_set(err, ERROR_INTERNAL, "out of memory");
        return NULL;
    }
    for (size_t i = 0; i < api_route_count; i++)
        routes[i] =
            (struct http_route){.method = api_routes[i].method,
                                .pattern = api_routes[i].pattern,
                                .handler = api_routes[i].handler,
                                .max_body_bytes = body_max(&controller->config, api_routes[i].body),
                                .tag = (int)api_routes[i].access};
    return routes;
}

static bool is_worker(const struct controller *controller, struct http_request *request)
{
    enum auth_role role;
    return auth_role(&controller->auth, http_request_header(request, "Authorization"), &role,
                     NULL) == 0 &&
           role == AUTH_WORKER;
}

int routes_admit(struct http_request *request, const struct http_route *route, void *data,
                 struct error *err)
{
    struct controller *controller = data;
    if (route && route->tag == ACCESS_WORKER && is_worker(controller, request))
        return 0;
    uint64_t wait_ns = rate_limit_take(&controller->rate_limit, http_request_client(request),
                                       http_request_received_ns(request));
    if (wait_ns == 0)
        return 0;
    return error_set(
        err, ERROR_THROTTLED,
        "this address makes more than the %lld requests a second that it may; the next "
        "is taken in %.3f s",
        (long long)controller->config.rate_limit, (double)wait_ns / 1e9);
}

static bool is_public(const struct function_entry *function)
{
    return function &&
           (function->current ? function->current : function->newest)->record.spec.public;
}

/* `ret_token`: a named one; NULL: another. */
static int identify(const struct controller *controller, const struct http_request *request,
                    enum auth_role *ret_role, struct token **ret_token, struct error *err)
{
    char hash[SHA256_HEX_LEN + 1];
    if (auth_hash(http_request_header(request, "Authorization"), hash, err) < 0)
        return -1;
    *ret_role = auth_role_of(&controller->auth, hash);
    *ret_token = *ret_role == AUTH_NOBODY ? tokens_find(&controller->tokens, hash) : NULL;
    if (*ret_token)
        *ret_role = AUTH_USER;
    if (*ret_role != AUTH_NOBODY)
        return 0;
    return error_set(err, ERROR_UNAUTHORIZED,
                     "the token is not known here (known are, of the controller's data folder, "
                     "the one in token for users and the one in worker-token for workers, and "
                     "those that were made with POST /v1/tokens)");
}

static int check_role(const struct controller *controller, const struct http_request *request,
                      enum route_access access, struct token **ret_token, struct error *err)
{
    enum auth_role role;
    if (identify(controller, request, &role, ret_token, err) < 0)
        return -1;
    if ((role == AUTH_WORKER) != (access == ACCESS_WORKER))
        return error_set(err, ERROR_FORBIDDEN, "this call needs %s token, and this is %s one",
                         access == ACCESS_WORKER ? "the workers'" : "a user's",
                         role == AUTH_WORKER ? "the workers'" : "a user's");
    if (*ret_token && (*ret_token)->spec.scope == TOKEN_INVOKE && access == ACCESS_USER)
        return error_set(err, ERROR_FORBIDDEN,
                         "this call needs a token of scope admin, and %s has scope invoke",
                         (*ret_token)->spec.name);
    return 0;
}

static struct function_entry *function_of(const struct controller *controller,
                                          const struct http_request *request)
{
    const char *name = http_request_param(request, "name");
    return name ? registry_find(&controller->registry, name) : NULL;
}

static bool is_async(const struct http_request *request)
{
    const char *mode = http_request_query(request, "mode");
    return mode && strcmp(mode, "async") == 0;
}

static bool is_waited_for(const struct http_request *request, enum route_access access)
{
    return access == ACCESS_INVOKE_PUBLIC || (access == ACCESS_INVOKE && !is_async(request));
}

struct blob *routes_room(struct http_request *request, const struct http_route *route, void *data,
                         size_t len)
{
    return is_waited_for(request, (enum route_access)route->tag) ? worker_streams_room(data, len)
                                                                 : NULL;
}

int routes_authorize(struct http_request *request, const struct http_route *route, void *data,
                     struct error *err)
{
    struct controller *controller = data;
    enum route_access access = (enum route_access)route->tag;
    bool invokes = access == ACCESS_INVOKE || access == ACCESS_INVOKE_PUBLIC;
    bool waits = is_waited_for(request, access);
    uint64_t now_ns = http_request_received_ns(request);
    struct token *token = NULL;
    controller->metrics.requests++;
    if (access == ACCESS_ANYBODY)
        return 0;
    struct function_entry *function = invokes ? function_of(controller, request) : NULL;
    if ((access != ACCESS_INVOKE_PUBLIC || !is_public(function)) &&
        check_role(controller, request, access, &token, err) < 0)
        return -1;
    if (token && admission_check_token(controller, token, waits, now_ns, err) < 0)
        return -1;
    return function ? admission_check(controller, function, !waits, now_ns, err) : 0;
}

int routes_confirm(struct http_request *request, const struct http_route *route, void *data,
                   struct error *err)
{
    const struct controller *controller = data;
    enum route_access access = (enum route_access)route->tag;
    struct token *token = NULL;
    if (http_request_received_ns(request) > controller->tokens.revoked_ns ||
        access == ACCESS_ANYBODY ||
        (access == ACCESS_INVOKE_PUBLIC && is_public(function_of(controller, request))))
        return 0;
    return check_role(controller, request, access, &token, err);
}
